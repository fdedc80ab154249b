"""Time series of the UCR/UEA archive (``.ts`` files): channels as units, values as graded events, a step for each sample."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, official_splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["STEP", "load", "read_ts"]

STEP = 1e-3  # seconds

FOLDERS = ("ucr", "JapaneseVowels", "japanese_vowels", "vowels", ".")
COMPLETE = (270, 370)  # training and test recordings


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 0.2,
) -> Splits:
    """JapaneseVowels: 270 / 370 utterances of nine speakers, 12 channels, 7 to 29 steps of 1 ms; the label is the speaker.

    Args:
        root: folder with ``JapaneseVowels_TRAIN.ts`` and ``JapaneseVowels_TEST.ts``, or with ``ucr/`` that has them.
        seed, validation_fraction: of the validation part, drawn from the training file evenly from the classes.

    Raises:
        FileNotFoundError: a file is missing; ValueError: a file is damaged or something else.
    """
    folder = data_root(root, "vowels")
    parts, classes = {}, None
    for part in ("TRAIN", "TEST"):
        name = f"JapaneseVowels_{part}.ts"
        path = find_file(folder, FOLDERS, (name,))
        if path is None:
            raise FileNotFoundError(
                f"vowels: no {name} in {folder} or {folder / FOLDERS[0]}; pass root=<folder that holds it>"
            )
        series, labels, known = read_ts(path)
        if classes not in (None, known):
            raise ValueError(f"{path}: its classes {known} are not those of the training file, {classes}")
        classes = known
        parts[part] = EventDataset(series_events(series, STEP), labels)
    units = {dataset.events.num_units for dataset in parts.values()}
    if len(units) != 1:
        raise ValueError(f"vowels: training and test file differ in their channels: {sorted(units)}")
    return official_splits(
        parts["TRAIN"],
        parts["TEST"],
        source="JapaneseVowels of the UCR/UEA archive, a step of 1 ms each",
        complete=COMPLETE,
        validation_fraction=validation_fraction,
        seed=seed,
        name="vowels",
        num_units=units.pop(),
        num_classes=len(classes or ()),
        sensor_size=None,
        step=STEP,
    )


def read_ts(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], torch.Tensor, tuple[str, ...]]:
    """The series ``(steps, channels)`` of a ``.ts`` file, their classes by number, and the names of the classes.

    The format: comments (#), a header (@) with ``@classLabel true NAME NAME ...``, then ``@data`` and a line per series, its
    channels divided by colons, their values by commas, the class last.
    """
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a .ts file ({error})") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    heads = [line.lower() for line in lines]
    if "@data" not in heads:
        raise ValueError(f"{path}: truncated or not a .ts file: it has no line @data")
    start = heads.index("@data")
    header = [line.split() for line in lines[:start]]
    classes = next((tuple(words[2:]) for words in header if words[0].lower() == "@classlabel" and len(words) > 2), ())
    if not classes:
        raise ValueError(f"{path}: expected a line '@classLabel true NAME NAME ...' before @data, found none")
    series: list[np.ndarray] = []
    labels: list[int] = []
    for number, line in enumerate(lines[start + 1 :], 1):
        *channels, name = line.split(":")
        try:
            values = [np.array(channel.split(","), dtype=np.float64) for channel in channels]
            labels.append(classes.index(name.strip()))
        except ValueError as error:
            raise ValueError(f"{path}: series {number} is damaged or cut short ({error})") from error
        sizes = sorted({len(channel) for channel in values})
        if len(sizes) != 1 or (series and len(values) != series[0].shape[1]):
            raise ValueError(
                f"{path}: series {number} has {len(values)} channels of {sizes} values; expected equally long channels, as "
                "many as in the first series"
            )
        if not all(np.isfinite(channel).all() for channel in values):
            raise ValueError(f"{path}: series {number} has values that are not finite")
        series.append(np.stack(values, 1))
    if not series:
        raise ValueError(f"{path}: has no series after @data; it is truncated, get it again")
    return series, torch.tensor(labels), classes


def series_events(series: list[np.ndarray], step: float) -> Events:
    """Series ``(steps, channels)``: an event of each value that is not zero."""
    samples, durations = [], []
    values = []
    for one in series:
        at, channel = np.nonzero(one)
        samples.append(((at * step).astype(np.float32), channel))
        values.append(one[at, channel])
        durations.append(len(one) * step)
    plain = Events.from_list(samples, series[0].shape[1], durations)
    graded = torch.from_numpy(np.concatenate(values).astype(np.float32))
    return Events(plain.times, plain.units, plain.offsets, plain.num_units, plain.duration, graded)
