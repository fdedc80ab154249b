"""Training batches whose order and augmentation depend on seed and epoch alone, so that a killed run can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from eventnet import Events
from eventnet.data import collate

__all__ = ["Batches", "drop_events", "shift_units"]

Batch = tuple[Events, Tensor]


class Batches:
    """Iterates over a data set in batches, without worker processes.

    With ``shuffle`` the order is a permutation drawn from ``(seed, epoch)``, and each batch is augmented by
    random numbers drawn from ``(seed, epoch, number of the batch)``: nothing depends on what ran before. A
    transform of the data set that draws from torch's global generator (``eventnet.data.Drop``) is covered
    too.

    Args:
        dataset: a data set of ``(Events, label)``.
        batch_size: samples; the last batch of an epoch may be smaller.
        shuffle, seed: see above; without ``shuffle`` nothing is random.
        dropout: probability that an event is left out (training input).
        shift: move the units of each sample by up to this many.

    Example:
        >>> from eventnet.data import EventDataset
        >>> events = Events.from_list([([0.1], [0])] * 5, num_units=1, duration=1.0)
        >>> batches = Batches(EventDataset(events, torch.arange(5)), batch_size=2, shuffle=True)
        >>> sorted(label for _, labels in batches for label in labels.tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        dropout: float = 0.0,
        shift: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.dropout, self.shift = dropout, shift
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """The samples of this epoch, in order."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        return torch.randperm(len(self.dataset), generator=generator)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        for step, chosen in enumerate(self.order().split(self.batch_size)):
            if self.shuffle:
                torch.manual_seed(_mix(self.seed, epoch, step))  # of every device
            events, labels = self._take(chosen.tolist())
            if self.shift:
                events = shift_units(events, self.shift)
            if self.dropout:
                events = drop_events(events, self.dropout)
            yield events, labels

    def _take(self, indices: list[int]) -> Batch:
        if hasattr(self.dataset, "__getitems__"):
            return collate(self.dataset.__getitems__(indices))
        return collate([self.dataset[i] for i in indices])


def drop_events(events: Events, probability: float) -> Events:
    """Leave each event out with this probability, drawn from torch's global generator."""
    return events.keep(torch.rand(events.num_events) >= probability)


def shift_units(events: Events, most: int) -> Events:
    """Move the units of each sample by a random whole number in -most..most; events that leave the range are dropped."""
    amount = torch.randint(-most, most + 1, (events.batch_size,))
    units = events.units + amount[events.samples]
    kept = (units >= 0) & (units < events.num_units)
    moved = Events.trusted(
        events.times,
        units.to(torch.int32),
        events.offsets,
        events.num_units,
        events.duration,
        events.values,
    )
    return moved.keep(kept)


def _mix(*numbers: int) -> int:
    """A seed that differs for different numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
