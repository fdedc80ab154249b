"""Recordings as reservoirs and their linear floors get them: events of one duration with class numbers from 0 on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eventnet import Events, data

__all__ = [
    "DECAY",
    "SETS",
    "STEPS",
    "WINDOWS",
    "Part",
    "Task",
    "binary",
    "both",
    "in_windows",
    "load",
    "pooled",
    "times_of",
]

Part = tuple[Events, Tensor]  # samples and their class numbers
STEPS, WINDOWS, DECAY = 50, 4, 0.9


@dataclass(frozen=True)
class Task:
    """A data set, and what its reservoirs need to know of it."""

    train: Part
    test: Part
    steps: int = STEPS  # in the duration of a sample
    decay: float = DECAY  # what is left of a voltage after a step
    rates: tuple[float, ...] = (5.0, 15.0, 40.0)  # to try, spikes per second and neuron


# ---- data sets ------------------------------------------------------------------------------------------------------

SETS = ("nmnist_1k", "nmnist_6to9", "fsdd", "objects", "containers", "vowels")


def load(root: Path, name: str) -> dict[str, Task]:
    """A data set by the name of its folder or loader, as tasks by their names in the table.

    Raises:
        FileNotFoundError: it is not in ``root``.
    """
    if name.startswith("nmnist"):
        title = "N-MNIST 1k" if name == "nmnist_1k" else "N-MNIST 6-9"
        train, test = _parts(data.load("nmnist", root=root / name))
        small = (pooled(train[0]), train[1]), (pooled(test[0]), test[1])
        return {f"{title}, 16 x 16": Task(*small), f"{title}, 34 x 34 x 2": Task(train, test)}
    train, test = _parts(data.load(name, root=root))
    if name == "fsdd":
        return {"FSDD, 700 channels": Task(train, test, 129, 0.97)}
    if name == "vowels":
        return {"JapaneseVowels": Task(train, test, VOWEL_STEPS, rates=(50.0, 150.0, 400.0))}
    bins = round(train[0].duration[0].item() / data.tactile.BIN)
    return {f"Ev-{name.capitalize()}": Task(train, test, bins, 0.97, (1.0, 3.0, 10.0))}


VOWEL_STEPS = 29  # of 1 ms, of the longest utterance


def _parts(splits: Any) -> tuple[Part, Part]:
    """Training part (with the validation part) and test part."""
    parts = [both(splits), (splits.test.events, splits.test.labels)]
    present = parts[0][1].unique()
    parts = [(events, torch.searchsorted(present, labels)) for events, labels in parts]
    if splits.name == "vowels":  # of 7 to 29 steps: silence is added at the end
        parts = [(_lasting(events, VOWEL_STEPS * data.ucr.STEP), labels) for events, labels in parts]
    return parts[0], parts[1]


def _lasting(events: Events, duration: float) -> Events:
    return replace(events, duration=torch.full_like(events.duration, duration))


def both(splits: Any) -> Part:
    """Training and validation part together, in a fixed order without the classes' own."""
    events = Events.cat([splits.train.events, splits.validation.events])
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return events[order], labels[order]


# ---- of their events ------------------------------------------------------------------------------------------------


def pooled(events: Events) -> Events:
    """The first polarity of a 34 x 34 sensor, 2 x 2 pixels in one, the last row and column cut: 16 x 16 units."""
    events = events.keep(events.units < 34 * 34)
    y, x = events.units // 34 // 2, events.units % 34 // 2
    events = replace(events, units=(y * 16 + x).clamp(max=255), num_units=256)
    return events.keep((y < 16) & (x < 16))


def binary(events: Events) -> Events:
    """Events of a unit in one step of the reservoir are one."""
    dt = events.duration[0].item() / STEPS
    return Events.from_dense(events.to_dense(dt)[:STEPS].clamp(max=1), dt)


def times_of(events: Events) -> list[float]:
    """The ends of the windows, seconds."""
    duration = events.duration[0].item()
    return [duration * (k + 1) / WINDOWS for k in range(WINDOWS)]


def in_windows(events: Events, windows: int = WINDOWS) -> Tensor:
    """``(B, windows * units)`` event counts; of graded events the sums of their values."""
    duration = events.duration[0].item()
    return events.to_dense(duration / windows)[:windows].transpose(0, 1).flatten(1)
