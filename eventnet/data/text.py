"""Text, character by character: an event for each, and the next one is the label of the step."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["STEP", "load"]

STEP = 1e-3  # seconds
NAMES = ("tinyshakespeare.txt", "input.txt")
FOLDERS = ("text", "tinyshakespeare", "tiny_shakespeare", ".")
TRAINING = 0.9  # of the text; the rest is the test part, as everybody has it


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 1 / 9,
    length: int = 128,
) -> Splits:
    """Pieces of ``length`` characters of tinyshakespeare: a unit for each of its 65 characters, labels ``(N, length)``.

    The first 90 % of the text are for training, their last ``validation_fraction`` is the validation part; the last 10 % are the
    test part. Nothing is drawn: ``seed`` changes nothing. Characters at the end that fill no piece are left out.

    Args:
        root: folder with ``tinyshakespeare.txt`` or ``input.txt``, or with ``text/`` that has it.
        seed: accepted as by the other sets.
        validation_fraction: of the training text.
        length: characters of a piece, of 1 ms each; the network starts each piece anew.

    Raises:
        FileNotFoundError: the file is missing; ValueError: it is not text, or too short for one piece in each part; an option
        is out of range.
    """
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"characters: length must be a whole number of characters >= 1, got {length!r}")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"characters: validation_fraction must be a share in (0, 1), got {validation_fraction!r}")
    path = _find(data_root(root, "characters"))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 ({error})") from error
    alphabet = sorted(set(text))
    number = {character: k for k, character in enumerate(alphabet)}
    codes = np.array([number[character] for character in text], np.int32)
    end = int(TRAINING * len(codes))
    middle = end - int(validation_fraction * end)
    parts = {}
    for part, first, last in (("train", 0, middle), ("validation", middle, end), ("test", end, len(codes))):
        if last - first <= length:
            raise ValueError(
                f"{path}: {last - first} characters for the {part} part are too few for a piece of {length} and what follows "
                "it; give a longer text or a smaller length"
            )
        parts[part] = pieces(codes[first:last], len(alphabet), length)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    return Splits(
        **parts,
        name="characters",
        num_units=len(alphabet),
        num_classes=len(alphabet),
        sensor_size=None,
        step=STEP,
        note=f"{path.name}, {len(codes):,} characters of {len(alphabet)}, pieces of {length}: {sizes} (the text's last 10 %)",
    )


def pieces(codes: np.ndarray, units: int, length: int) -> EventDataset:
    """Characters one after the other, cut into pieces; the label of each is the next one."""
    count = (len(codes) - 1) // length
    times = np.tile((np.arange(length) * STEP).astype(np.float32), count)
    events = Events(
        torch.from_numpy(times),
        torch.from_numpy(codes[: count * length].copy()),
        torch.arange(count + 1) * length,
        units,
        length * STEP,  # type: ignore[arg-type]
    )
    labels = codes[1 : count * length + 1].reshape(count, length).astype(np.int64)
    return EventDataset(events, torch.from_numpy(labels))


def _find(root: Path) -> Path:
    path = find_file(root, FOLDERS, NAMES)
    if path is None:
        raise FileNotFoundError(
            f"characters: no {' or '.join(NAMES)} in {root} or {root / FOLDERS[0]}; pass root=<folder that holds it>"
        )
    return path
