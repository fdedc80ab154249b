"""MNIST read line by line or pixel by pixel: images as sequences of graded events, a step for each line."""

from __future__ import annotations

import os

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, official_splits
from eventnet.data.folders import data_root
from eventnet.data.idx import COMPLETE, FILES, read_images
from eventnet.events import Events

__all__ = ["STEP", "load"]

STEP = 1e-3  # seconds


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 1 / 12,
) -> Splits:
    """55,000 / 5,000 / 10,000 images as sequences: of rows, 28 steps of 28 units, or of pixels, 784 steps of one unit.

    A pixel ``p > 0`` is an event of value ``p / 255``; a step lasts 1 ms.

    Args:
        name: ``"row_mnist"`` or ``"pixel_mnist"``.
        root: as of ``mnist``, see :func:`eventnet.data.idx.load`.
        seed, validation_fraction: of the validation part, drawn from the training files evenly from the classes.

    Raises:
        FileNotFoundError: a file is missing; ValueError: a file is truncated or something else.
    """
    units = {"row_mnist": 28, "pixel_mnist": 1}[name]
    folder = data_root(root, name)
    parts = {}
    for part in FILES:
        images, labels = read_images(folder, "mnist", part)
        parts[part] = EventDataset(line_events(images, units, STEP), torch.from_numpy(labels.astype(np.int64)))
    return official_splits(
        parts["train"],
        parts["test"],
        source=f"idx files, {units} pixels at a time, p/255, a step of 1 ms each",
        complete=COMPLETE,
        validation_fraction=validation_fraction,
        seed=seed,
        name=name,
        num_units=units,
        num_classes=10,
        sensor_size=None,
        step=STEP,
    )


def line_events(images: np.ndarray, units: int, step: float) -> Events:
    """Bytes ``(B, H, W)`` as ``units`` pixels a step: an event of value ``p / 255`` for each pixel ``p > 0``."""
    pixels = images.reshape(len(images), -1)
    place = [np.flatnonzero(row).astype(np.int32) for row in pixels]
    lengths = np.array([len(row) for row in place], np.int64)
    where = np.concatenate(place) if place else np.empty(0, np.int32)
    value = pixels[np.repeat(np.arange(len(pixels)), lengths), where]
    return Events(
        torch.from_numpy((where // units * step).astype(np.float32)),
        torch.from_numpy(where % units),
        torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        units,
        pixels.shape[1] // units * step,  # type: ignore[arg-type]
        torch.from_numpy((value / np.float32(255)).astype(np.float32)),
    )
