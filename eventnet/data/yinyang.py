"""The Yin-Yang data set, generated: points in a Yin-Yang figure, of class yin, yang or dot.

The published samples are reproduced exactly (Kriener, Göltz, Petrovici, "The Yin-Yang dataset", NICE 2022,
arXiv:2102.08211): 5,000 / 1,000 / 1,000 points from the seeds 42, 41 and 40.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits
from eventnet.events import Events

__all__ = ["encode", "load", "points"]

R_BIG, R_SMALL = 0.5, 0.1
PARTS = {"train": (42, 5000), "validation": (41, 1000), "test": (40, 1000)}  # seed, points


def points(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(x, y, 1 - x, 1 - y)``, ``(size, 4)`` float64 in [0, 1], and their classes ``(size,)``.

    Classes: 0 yin, 1 yang, 2 dot. Each sample draws its class first, then points until one is of that class.

    Example:
        >>> samples, labels = points(seed=42, size=5000)
        >>> samples[0, :2].round(4).tolist(), np.bincount(labels).tolist()
        ([0.6803, 0.4505], [1681, 1702, 1617])
    """
    # The published stream mixes integer and float draws of one generator, so that it must be drawn in a loop.
    random = np.random.RandomState(seed)
    samples, labels = np.empty((size, 4)), np.empty(size, np.int64)
    for i in range(size):
        wanted = random.randint(3)
        while True:
            x, y = (random.random_sample(2) * 2.0 * R_BIG).tolist()
            if _distance(x, y, R_BIG) <= R_BIG and _class(x, y) == wanted:
                break
        samples[i], labels[i] = (x, y, 1.0 - x, 1.0 - y), wanted
    return samples, labels


def encode(samples: np.ndarray, *, t_max: float, duration: float, dtype: torch.dtype = torch.float32) -> Events:
    """Points ``(B, 4)`` as events: unit ``i`` fires at ``samples[:, i] * t_max`` s, unit 4 (bias) at 0."""
    times = np.concatenate([samples * t_max, np.zeros((len(samples), 1))], axis=1)
    order = np.argsort(times, axis=1, kind="stable")
    return Events(
        torch.from_numpy(np.take_along_axis(times, order, axis=1)).to(dtype).reshape(-1),
        torch.from_numpy(order).reshape(-1),
        torch.arange(len(samples) + 1) * times.shape[1],
        times.shape[1],
        duration,  # type: ignore[arg-type]
    )


def load(
    root: object = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    t_max: float = 30e-3,
    duration: float = 60e-3,
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """The published samples as 5 units: x, y, 1 - x, 1 - y spike at ``value * t_max``, the bias unit at 0.

    Args:
        root, seed: not used: the samples are generated, and the published validation set has its own seed.
        validation_fraction: must be left out, for the same reason.
        t_max: seconds; the time of a spike for the value 1.
        duration: seconds.
        dtype: of the times.
    """
    if validation_fraction is not None:
        raise ValueError("yinyang: has a published validation set of 1,000 points; leave validation_fraction out")
    made = {}
    for part, (part_seed, size) in PARTS.items():
        samples, labels = points(part_seed, size)
        made[part] = EventDataset(
            encode(samples, t_max=t_max, duration=duration, dtype=dtype), torch.from_numpy(labels)
        )
    note = "generated as published (Kriener et al. 2021, seeds 42, 41, 40): 5000 training, 1000 validation, 1000 test"
    return Splits(
        made["train"],
        made["validation"],
        made["test"],
        name="yinyang",
        num_units=5,
        num_classes=3,
        sensor_size=None,
        note=note,
    )


def _distance(x: float, y: float, centre: float) -> float:
    """From (centre, R_BIG)."""
    dx, dy = x - centre, y - R_BIG
    return math.sqrt(dx * dx + dy * dy)


def _class(x: float, y: float) -> int:
    right, left = _distance(x, y, 1.5 * R_BIG), _distance(x, y, 0.5 * R_BIG)
    if right < R_SMALL or left < R_SMALL:
        return 2
    yang = right <= R_SMALL or R_SMALL < left <= 0.5 * R_BIG or (y > R_BIG and right > 0.5 * R_BIG)
    return int(yang)
