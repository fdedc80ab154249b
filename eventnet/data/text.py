"""Text, character by character: an event for each, and the next one is the label of the step."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["load"]

NAMES = ("tinyshakespeare.txt", "input.txt")
FOLDERS = ("text", "tinyshakespeare", "tiny_shakespeare", ".")
TRAINING = 0.9  # of the text; the rest is the test part, as everybody has it


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 1 / 9,
    length: int = 128,
    step: float = 1e-3,
) -> Splits:
    """Pieces of ``length`` characters of tinyshakespeare: a unit for each of its 65 characters, labels ``(N, length)``.

    The first 90 % of the text are for training, their last ``validation_fraction`` is the validation part; the last 10 % are the
    test part. Nothing is drawn: ``seed`` changes nothing. Characters at the end that fill no piece are left out.

    Args:
        root: folder with ``tinyshakespeare.txt`` or ``input.txt``, or with ``text/`` that has it.
        seed: of nothing.
        validation_fraction: of the training text.
        length: characters of a piece; the network starts each of them anew.
        step: seconds of a character.

    Raises:
        FileNotFoundError: the file is missing; ValueError: it is not text, or too short for one piece in each part.
    """
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
        parts[part] = pieces(codes[first:last], len(alphabet), length, step)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    return Splits(
        **parts,
        name="characters",
        num_units=len(alphabet),
        num_classes=len(alphabet),
        sensor_size=None,
        note=f"{path.name}, {len(codes):,} characters of {len(alphabet)}, pieces of {length}: {sizes} (the text's last 10 %)",
    )


def pieces(codes: np.ndarray, units: int, length: int, step: float) -> EventDataset:
    """Characters one after the other, cut into pieces; the label of each is the next one."""
    count = (len(codes) - 1) // length
    times = np.tile((np.arange(length) * step).astype(np.float32), count)
    events = Events(
        torch.from_numpy(times),
        torch.from_numpy(codes[: count * length].copy()),
        torch.arange(count + 1) * length,
        units,
        length * step,  # type: ignore[arg-type]
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
