"""Datasets of events in memory, their batches, and the training / validation / test split of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eventnet.events import Events

__all__ = ["Drop", "EventDataset", "Splits", "collate", "graded", "lagged", "official_splits", "stratified_split"]

Sample = tuple[Events, Tensor]


class EventDataset(Dataset[Sample]):
    """A whole split, packed in memory as one :class:`Events`.

    Args:
        events: ``B`` samples.
        labels: ``(B,)`` int64, one class per sample, or ``(B, T)``, one per step; or ``(B, T, N)`` floats, N numbers to forecast
            in each step, NaN where none is judged.
        transform: optional function from ``Events`` to ``Events``, applied anew whenever samples are taken
            (augmentation).

    ``dataset[i]`` is ``(Events of batch 1, label)``; a ``DataLoader`` asks for a list of indices at once and
    gets a ready batch, which :func:`collate` passes on.

    Example:
        >>> events = Events.from_list([([0.1], [0]), ([], []), ([0.2], [1])], num_units=2, duration=1.0)
        >>> dataset = EventDataset(events, torch.tensor([0, 1, 1]))
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=collate)
        >>> [labels.tolist() for _, labels in loader]
        [[0, 1], [1]]
    """

    def __init__(self, events: Events, labels: Tensor, transform: Callable[[Events], Events] | None = None) -> None:
        labels = torch.as_tensor(labels)
        numbers = labels.is_floating_point()
        if labels.is_complex() or (numbers and labels.dim() != 3):
            raise TypeError(
                "EventDataset: labels must be integers (class numbers), or floats (B, T, N) to forecast, got "
                f"{labels.dtype} of shape {tuple(labels.shape)}"
            )
        if labels.dim() not in ((3,) if numbers else (1, 2)) or labels.shape[0] != events.batch_size:
            raise ValueError(
                f"EventDataset: expected labels of shape (B,) or (B, T) for B = {events.batch_size} samples, or floats (B, T, N) "
                f"to forecast, got {tuple(labels.shape)}"
            )
        self.events = events
        self.labels = labels if numbers else labels.to(torch.int64)
        self.transform = transform

    def __len__(self) -> int:
        return self.events.batch_size

    def __getitem__(self, index: int) -> Sample:
        events = self.events.sample(int(index))
        return self._transformed(events), self.labels[int(index)]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """A batch at once; a ``DataLoader`` calls this instead of one ``[i]`` per sample."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return self._transformed(self.events[chosen]), self.labels[chosen]

    def select(self, indices: Sequence[int] | Tensor) -> EventDataset:
        """The dataset of these samples only, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return EventDataset(self.events[chosen], self.labels[chosen], self.transform)

    def __repr__(self) -> str:
        return f"EventDataset({self.events!r})"

    def _transformed(self, events: Events) -> Events:
        return events if self.transform is None else self.transform(events)


@dataclass(frozen=True)
class Drop:
    """Augmentation: leaves each event out with this probability, drawn anew by torch on every access."""

    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise ValueError(f"Drop: expected a probability in [0, 1), got {self.probability}")

    def __call__(self, events: Events) -> Events:
        return events.keep(torch.rand(events.num_events, device=events.device) >= self.probability)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test part of a data set, and what a network needs to know to fit it.

    ``sensor_size`` is ``(width, height, polarities)``, with units numbered ``(p * height + y) * width + x``,
    or ``None`` where units are not on a grid. ``note`` says where the samples are from, how many there are,
    and what is missing. ``step`` are the seconds of a step of data that comes in steps, such as the rows of an image.
    ``num_classes`` is the number of outputs: of series to forecast, how many numbers a step has.
    """

    train: Dataset[Sample]
    validation: Dataset[Sample]
    test: Dataset[Sample]
    name: str
    num_units: int
    num_classes: int
    sensor_size: tuple[int, int, int] | None
    note: str
    step: float | None = None

    @property
    def forecasts(self) -> bool:
        """Whether labels are numbers to forecast, not classes; looks at a sample only where the training part has no labels."""
        labels = getattr(self.train, "labels", None)
        if not isinstance(labels, Tensor):
            with torch.random.fork_rng(devices=[]):  # a transform of the sample may draw
                labels = torch.as_tensor(self.train[0][1])
        return labels.is_floating_point()


def collate(samples: Any) -> Sample:
    """A batch from a list of ``(Events, label)``, from one such sample, or from a batch that is ready.

    Returns ``(Events, labels)`` with labels ``(B,)``, or ``(B, T)`` where they are per step, ``(B, T, N)`` numbers to forecast.
    """
    if isinstance(samples, tuple) and len(samples) == 2 and isinstance(samples[0], Events):
        events, labels = samples
        # batch_size=None in the DataLoader hands over one sample: its label still lacks the batch dimension.
        return events, labels if labels.shape[:1] == (events.batch_size,) else labels[None]
    parts = list(samples)
    if not parts:
        raise ValueError("collate: expected at least one (Events, label) pair, got none")
    labels = torch.stack([torch.as_tensor(label) for _, label in parts])
    return Events.cat(events for events, _ in parts), labels


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Ascending indices ``(rest, part)`` of samples, ``part`` a fraction of every class.

    ``part`` holds ``round(fraction * B)`` samples, each class within less than one sample of its share, but a
    class keeps at least one sample in ``rest``. Labels per step ``(B, T)`` cannot be stratified: there it is
    a plain draw. The result depends on labels, fraction and seed alone.

    Example:
        >>> rest, part = stratified_split(torch.tensor([0, 0, 1, 1]), 0.5, seed=0)
        >>> len(rest), len(part)
        (2, 2)
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation_fraction: expected a fraction in [0, 1), got {fraction}")
    groups = labels.numpy() if labels.dim() == 1 else np.zeros(len(labels), np.int64)
    # RandomState, not default_rng: numpy promises never to change its streams.
    random = np.random.RandomState(seed)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    taken = np.zeros(len(groups), bool)
    for label, count in enumerate(_shares(sizes, fraction)):
        members = np.flatnonzero(group == label)
        taken[random.permutation(members)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~taken)), torch.from_numpy(np.flatnonzero(taken))


def official_splits(
    train: EventDataset,
    test: EventDataset,
    *,
    source: str,
    complete: tuple[int, int],
    validation_fraction: float,
    seed: int,
    **facts: Any,
) -> Splits:
    """Splits of a set that comes with a training and a test part; validation is drawn from the training part.

    ``complete`` are the official numbers of training and test samples, ``source`` begins the note, ``facts``
    are the other fields of :class:`Splits`.
    """
    rest, validation = stratified_split(train.labels, validation_fraction, seed)
    counts = zip((len(train), len(test)), complete, ("training", "test"), strict=True)
    partial = [f"{here} of {there} {kind}" for here, there, kind in counts if here != there]
    note = (
        f"{source}: {len(rest)} training, {len(validation)} validation (seed {seed}), "
        f"{len(test)} test (official)" + (f"; partial copy: {', '.join(partial)}" if partial else "")
    )
    return Splits(train=train.select(rest), validation=train.select(validation), test=test, note=note, **facts)


def lagged(series: Tensor, window: int) -> Tensor:
    """Of each step of a series ``(K, N)`` its numbers, those of the step before it, ...: ``(K, window N)``, 0 before the series.

    Example:
        >>> lagged(torch.tensor([[1.0], [2.0], [3.0]]), 2).tolist()
        [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]
    """
    padded = torch.cat([series.new_zeros(window - 1, series.shape[1]), series])
    return padded.unfold(0, window, 1).flip(2).transpose(1, 2).reshape(len(series), -1)


def graded(inputs: Tensor, step: float) -> Events:
    """Numbers ``(T, B, N)`` as events of their value in steps of so many seconds, none for zeros.

    Example:
        >>> graded(torch.tensor([[[0.5, 0.0]], [[0.0, 2.0]]]), 1e-3).values
        tensor([0.5000, 2.0000])
    """
    by_sample = inputs.transpose(0, 1)
    sample, t, unit = by_sample.nonzero(as_tuple=True)
    counts = torch.bincount(sample, minlength=len(by_sample))
    return Events(
        (t.to(torch.float64) * step).to(torch.float32),
        unit.to(torch.int32),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        inputs.shape[2],
        len(inputs) * step,  # type: ignore[arg-type]
        by_sample[sample, t, unit],
    )


def _shares(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each class: largest remainders, so that they add up to ``round(fraction * total)``."""
    exact = sizes * fraction
    shares = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(fraction * int(sizes.sum())) - int(shares.sum())
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: max(missing, 0)]] += 1
    return np.minimum(shares, sizes - 1) if len(sizes) else shares
