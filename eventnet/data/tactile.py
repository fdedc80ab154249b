"""Ev-Objects and Ev-Containers: what a robot's finger with an event-driven skin felt while it grasped things.

Gu, Sng, Taunyazov, Soh, "TactileSGNet: a spiking graph neural network for event-based tactile object
recognition", IROS 2020. Each recording is a file ``sample_<i>_label_<class>.npy`` in ``train/`` or ``test/``:
float32 of shape ``(39 taxels, 2 polarities, bins)``, 1 where a taxel sent events of that polarity (0:
pressure rose, 1: it fell) within the bin. A bin is 20 ms: 250 bins are 5 s (Ev-Objects), 325 are 6.5 s
(Ev-Containers).
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, official_splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["BIN", "load"]

BIN = 20e-3  # seconds
TAXELS, POLARITIES = 39, 2
SETS = {  # folder, classes, bins, training and test samples, default validation fraction
    "objects": ("Ev-Objects", 36, 250, (576, 144), 1 / 8),
    "containers": ("Ev-Containers", 20, 325, (240, 60), 1 / 6),
}


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    duration: float | None = None,
) -> Splits:
    """The official split as events of 78 units, unit ``polarity * 39 + taxel``, at the start of their bins.

    Args:
        name: ``"objects"`` (36 classes, 576 / 144 samples) or ``"containers"`` (20 classes, 240 / 60).
        root: folder with ``Ev-Objects.zip`` or the folder ``Ev-Objects``, or with ``tactile/`` that has it
            (the other likewise). Archives are read in place.
        seed, validation_fraction: of the validation part, drawn evenly from the classes of the training part;
            2 samples per class if not given.
        duration: seconds; the length of the recordings (5 or 6.5 s) if not given. Later events are left out.

    Raises:
        FileNotFoundError: nothing there; ValueError: a file of another shape or a damaged archive.
    """
    stem, num_classes, bins, complete, default_fraction = SETS[name]
    folder = data_root(root, name)
    source = find_file(folder, ("tactile", "."), (stem + ".zip", stem))
    if source is None and folder.name == stem:
        source = folder
    if source is None:
        raise FileNotFoundError(
            f"{name}: no {stem}.zip and no folder {stem} in {folder} or {folder / 'tactile'}; "
            "pass root=<folder that holds it>"
        )
    parts = {part: _read_part(source, part, num_classes, bins) for part in ("train", "test")}
    if duration is not None:
        parts = {part: EventDataset(_within(d.events, duration), d.labels) for part, d in parts.items()}
    return official_splits(
        parts["train"],
        parts["test"],
        source=f"{stem} (Gu et al. 2020), bins of 20 ms",
        complete=complete,
        validation_fraction=default_fraction if validation_fraction is None else validation_fraction,
        seed=seed,
        name=name,
        num_units=TAXELS * POLARITIES,
        num_classes=num_classes,
        sensor_size=(TAXELS, 1, POLARITIES),
    )


def _read_part(source: Path, part: str, num_classes: int, bins: int) -> EventDataset:
    found = []
    for file, content in _files(source, part):
        match = re.fullmatch(r"sample_(\d+)_label_(\d+)\.npy", file.rpartition("/")[2])
        if match is None:
            continue
        number, label = int(match[1]), int(match[2])
        if label >= num_classes:
            raise ValueError(f"{source}, {file}: label {label}; expected 0 to {num_classes - 1}")
        found.append((number, label, _array(f"{source}, {file}", content, bins)))
    if not found:
        raise FileNotFoundError(f"{source}: no files {part}/sample_<i>_label_<class>.npy in it")
    found.sort(key=lambda item: item[0])  # archives list them in the order 0, 10, 100, 1
    # (B, taxel, polarity, bin) -> (bin, B, polarity * taxel)
    raster = torch.from_numpy(np.stack([array for _, _, array in found])).permute(3, 0, 2, 1).flatten(2)
    return EventDataset(Events.from_dense(raster, BIN), torch.tensor([label for _, label, _ in found]))


def _files(source: Path, part: str) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted((source / part).glob("*.npy")):
            yield f"{part}/{path.name}", path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if f"/{part}/" in f"/{name}" and name.endswith(".npy"):
                    yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source}: truncated or not a zip archive ({error}); get it again") from error


def _array(where: str, content: bytes, bins: int) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{where}: truncated or not an .npy file ({error})") from error
    if array.shape != (TAXELS, POLARITIES, bins) or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{where}: expected zeros and ones of shape ({TAXELS}, {POLARITIES}, {bins}), got {array.dtype} "
            f"of shape {array.shape} with values from {array.min(initial=0)} to {array.max(initial=0)}"
        )
    return array.astype(np.float32)


def _within(events: Events, duration: float) -> Events:
    """The events before ``duration``, which becomes the duration of every sample."""
    if not 0 < duration < math.inf:
        raise ValueError(f"duration: expected a positive number of seconds, got {duration}")
    kept = events.keep(events.times < duration)
    return Events(kept.times, kept.units, kept.offsets, kept.num_units, duration)  # type: ignore[arg-type]
