"""Permuted MNIST: the same images as many tasks, each with the pixels in an order of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eventnet.data.dataset import EventDataset, Sample, Splits, official_splits
from eventnet.data.folders import data_root
from eventnet.data.idx import COMPLETE, FILES, read_images
from eventnet.data.lines import STEP, line_events
from eventnet.events import replace_unchecked

__all__ = ["TaskDataset", "load", "permutations"]

PIXELS = 784


class TaskDataset(Dataset[Sample]):
    """A data set once for each task, task after task: unit j of task k has the events of the data's unit ``orders[k, j]``.

    Args:
        data: the samples, the same for all tasks.
        orders: ``(tasks, units)``, a permutation of the units for each task.
        numbers: of the tasks; 0, 1, ... if not given.

    Raises:
        ValueError: a row that is no permutation; numbers that are not one for each task.

    The samples are permuted when they are taken, so that tasks cost no memory.

    Example:
        >>> from eventnet import Events
        >>> events = Events.from_list([([0.1], [0]), ([0.1, 0.2], [1, 2])], num_units=3, duration=1.0)
        >>> tasks = TaskDataset(EventDataset(events, torch.tensor([0, 1])), torch.tensor([[0, 1, 2], [2, 0, 1]]))
        >>> len(tasks), tasks.only(range(1, 2))[1][0].units.tolist()
        (4, [2, 0])
    """

    def __init__(self, data: EventDataset, orders: Tensor, numbers: Sequence[int] | None = None) -> None:
        units = data.events.num_units
        if orders.dim() != 2 or not orders.sort(1).values.equal(torch.arange(units).expand(len(orders), -1)):
            raise ValueError(
                f"TaskDataset: expected orders of shape (tasks, {units}), each row a permutation of the units, "
                f"got {tuple(orders.shape)}"
            )
        self.data, self.orders = data, orders
        self.numbers = tuple(range(len(orders)) if numbers is None else numbers)
        if not len(set(self.numbers)) == len(self.numbers) == len(orders):
            raise ValueError(f"TaskDataset: expected {len(orders)} different numbers of tasks, got {self.numbers}")
        self._places = orders.argsort(1).to(torch.int32)  # of the data's units in each task

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.orders)

    @property
    def labels(self) -> Tensor:
        """``(tasks * samples,)``"""
        return self.data.labels.repeat(self.num_tasks)

    @property
    def tasks(self) -> Tensor:
        """``(tasks * samples,)`` the number of the task that each sample is of."""
        return torch.tensor(self.numbers).repeat_interleave(len(self.data))

    def only(self, tasks: Sequence[int]) -> TaskDataset:
        """The data set of these tasks, which keep their numbers."""
        if unknown := set(tasks) - set(self.numbers):
            raise ValueError(f"TaskDataset: expected some of the tasks {self.numbers}, got {sorted(unknown)}")
        return TaskDataset(self.data, self.orders[[self.numbers.index(task) for task in tasks]], tasks)

    def __len__(self) -> int:
        return self.num_tasks * len(self.data)

    def __getitem__(self, index: int) -> Sample:
        events, labels = self.__getitems__([index])
        return events, labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """A batch at once, as of ``EventDataset``."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        if bool(((chosen < 0) | (chosen >= len(self))).any()):
            raise IndexError(f"TaskDataset: expected indices from 0 to {len(self) - 1}, got {chosen.tolist()}")
        events, labels = self.data.__getitems__((chosen % len(self.data)).tolist())
        task = (chosen // len(self.data))[events.samples]
        return replace_unchecked(events, units=self._places[task, events.units.long()]), labels

    def __repr__(self) -> str:
        return f"TaskDataset({self.num_tasks} tasks of {self.data!r})"


def permutations(units: int, tasks: int, seed: int) -> Tensor:
    """``(tasks, units)`` orders of the units; the first task has the data as they are.

    Example:
        >>> permutations(3, 2, seed=0)[0]
        tensor([0, 1, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(units, generator=generator) for _ in range(tasks - 1)]
    return torch.stack([torch.arange(units), *drawn])


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 1 / 60,
    tasks: int = 10,
) -> Splits:
    """59,000 / 1,000 / 10,000 images for each task; a pixel ``p > 0`` is an event of value ``p / 255`` in a single step of 1 ms.

    Args:
        root: as of ``mnist``, see :func:`eventnet.data.idx.load`.
        seed: of the permutations, in the test part too, and of the validation part.
        validation_fraction: drawn from the training files evenly from the classes; small, as published networks learn from all
            60,000 images.
        tasks: the first is MNIST as it is.

    Raises:
        FileNotFoundError: a file is missing; ValueError: a file is truncated or something else, there is no task.
    """
    if tasks < 1:
        raise ValueError(f"tasks: expected at least one, got {tasks}")
    folder = data_root(root, "permuted_mnist")
    parts = {}
    for part in FILES:
        images, labels = read_images(folder, "mnist", part)
        parts[part] = EventDataset(line_events(images, PIXELS, STEP), torch.from_numpy(labels.astype(np.int64)))
    splits = official_splits(
        parts["train"],
        parts["test"],
        source="idx files, all pixels at once, p/255",
        complete=COMPLETE,
        validation_fraction=validation_fraction,
        seed=seed,
        name="permuted_mnist",
        num_units=PIXELS,
        num_classes=10,
        sensor_size=None,
        step=STEP,
    )
    orders = permutations(PIXELS, tasks, seed)
    train, validation, test = (TaskDataset(getattr(splits, part), orders) for part in ("train", "validation", "test"))
    note = f"{splits.note}, in each of {tasks} tasks"
    return dataclasses.replace(splits, train=train, validation=validation, test=test, note=note)
