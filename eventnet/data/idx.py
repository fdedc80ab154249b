"""MNIST and Fashion-MNIST from their idx files, as spike latencies: brighter pixels earlier."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, official_splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["load", "pixel_latencies", "read_idx", "read_images"]

FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "MNIST", "."),
    "fashion_mnist": ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "."),
}
FILES = {"train": "train", "test": "t10k"}
COMPLETE = (60000, 10000)  # training and test images


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 1 / 12,
    t_max: float = 20e-3,
    duration: float = 40e-3,
) -> Splits:
    """55,000 / 5,000 / 10,000 images as latencies ``t = (1 - p / 255) * t_max`` of the 784 pixels ``p > 1``.

    Args:
        name: ``"mnist"`` or ``"fashion_mnist"``.
        root: folder with the four idx files (``.gz`` or unpacked), or with ``mnist/`` or ``MNIST/raw/`` (for
            the other ``fashion_mnist/`` or ``FashionMNIST/raw/``) that has them.
        seed, validation_fraction: of the validation part, drawn from the training files evenly from the
            classes.
        t_max: seconds.
        duration: seconds; the default leaves the membrane one time constant of 20 ms after the last spike.

    Raises:
        FileNotFoundError: a file is missing; ValueError: a file is truncated or something else.
    """
    folder = data_root(root, name)
    parts = {part: _read_part(folder, name, part, t_max, duration) for part in FILES}
    return official_splits(
        parts["train"],
        parts["test"],
        source=f"idx files, t = (1 - p/255) * {t_max * 1e3:g} ms for p > 1",
        complete=COMPLETE,
        validation_fraction=validation_fraction,
        seed=seed,
        name=name,
        num_units=784,
        num_classes=10,
        sensor_size=(28, 28, 1),
    )


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of bytes in an idx file, packed with gzip (``.gz``) or not.

    The format: two zero bytes, the type (0x08: bytes), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the data.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: truncated or not a gzip file ({error}); get it again") from error
    dimensions = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * dimensions
    if content[:3] != b"\x00\x00\x08" or dimensions == 0 or len(content) < start:
        raise ValueError(
            f"{path}: not an idx file of bytes: expected it to start with 00 00 08 and the number of "
            f"dimensions, got {content[:4].hex(' ') or 'an empty file'}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path}: its header announces {' x '.join(map(str, shape))} = {math.prod(shape)} bytes, but "
            f"{len(content) - start} follow; the file is truncated or damaged, get it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def pixel_latencies(images: np.ndarray, *, t_max: float, duration: float, above: int = 1) -> Events:
    """Bytes ``(B, H, W)``: an event per pixel ``p > above``, at ``(1 - p / 255) * t_max`` seconds."""
    pixels = images.reshape(len(images), -1)
    latency = torch.from_numpy((1.0 - np.arange(256) / 255.0) * t_max).to(torch.float32)
    darkness = 255 - pixels
    lengths = (pixels > above).sum(axis=1)
    units = []
    for first in range(0, len(pixels), 4096):  # in chunks, because argsort makes eight bytes of every pixel
        part = slice(first, first + 4096)
        # A stable sort of bytes is a radix sort; the pixels that fire come first in it.
        order = np.argsort(darkness[part], axis=1, kind="stable").astype(np.int32)
        units.append(order[np.arange(pixels.shape[1]) < lengths[part, None]])
    unit = np.concatenate(units) if units else np.empty(0, np.int32)
    value = pixels[np.repeat(np.arange(len(pixels)), lengths), unit]
    return Events(
        latency[torch.from_numpy(value.astype(np.int64))],
        torch.from_numpy(unit),
        torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        pixels.shape[1],
        duration,  # type: ignore[arg-type]
    )


def _read_part(root: Path, name: str, part: str, t_max: float, duration: float) -> EventDataset:
    images, labels = read_images(root, name, part)
    events = pixel_latencies(images, t_max=t_max, duration=duration)
    return EventDataset(events, torch.from_numpy(labels.astype(np.int64)))


def read_images(root: Path, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(B, 28, 28)`` and labels ``(B,)``, bytes, of the "train" or "test" part."""
    images_file = _find(root, name, f"{FILES[part]}-images-idx3-ubyte")
    labels_file = _find(root, name, f"{FILES[part]}-labels-idx1-ubyte")
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_file}: expected images of shape (N, 28, 28), got {images.shape}; not a file of {name}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_file}: expected {len(images)} labels, one per image, got shape {labels.shape}")
    if len(labels) and labels.max() > 9:
        raise ValueError(f"{labels_file}: label {labels.max()}; expected classes 0 to 9, not a file of {name}")
    return images, labels


def _find(root: Path, name: str, stem: str) -> Path:
    # Some tools write "train-images.idx3-ubyte".
    names = [stem, stem + ".gz", stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"]
    path = find_file(root, FOLDERS[name], names)
    if path is None:
        places = ", ".join(str(root / folder) for folder in FOLDERS[name])
        raise FileNotFoundError(f"{name}: no file {stem}[.gz] in any of {places}; pass root=<folder that holds it>")
    return path
