"""Electrocardiograms of the QT database as level-crossing events, each step labelled with its wave.

Yin, Corradi, Bohté, "Accurate and efficient time-domain classification with adaptive spiking recurrent neural
networks", Nature Machine Intelligence 2021. Two leads, sampled at 250 Hz: a step is 4 ms and a recording of
1,301 steps 5.2 s (the heartbeats in it are some 190 steps apart). ``x`` ``(N, 1301, 4)`` has two channels per
lead: lead 1 rose, lead 1 fell, lead 2 rose, lead 2 fell by the threshold since the step before; its only -1,
in the last step, is an end mark. ``y`` ``(N, 1301, 6)`` marks the wave: P, PQ, QR, RS, ST, TP.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, official_splits
from eventnet.data.folders import data_root, find_file
from eventnet.events import Events

__all__ = ["STEP", "load"]

STEP = 4e-3  # seconds
CHANNELS, CLASSES = 4, 6
COMPLETE = (618, 141)  # training and test recordings


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 0.15,
    unlabelled: int = 0,
) -> Splits:
    """618 / 141 recordings of 4 units, 5.204 s; labels ``(N, 1301)``, one of 6 classes per step of 4 ms.

    The channels are rises and falls already (no channel goes both ways), so 4 units hold everything; an event
    of step k is at ``k * STEP``. The validation part is a plain draw from the training file: the files do not
    say which patient a recording is from.

    Args:
        root: folder with ``QTDB_train.mat`` and ``QTDB_test.mat``, or with ``ecg_qtdb/`` that has them.
        seed, validation_fraction: of the validation part.
        unlabelled: the label of steps that no wave is marked in (8 % of the training steps, 10 % of the test
            steps). 0 is what the published results count them as (argmax of nothing); -100 leaves them out of
            ``torch.nn.functional.cross_entropy``. The published accuracy also leaves out the first 10 steps.

    Raises:
        FileNotFoundError: a file is missing; ValueError: a file is damaged or holds something else.
    """
    folder = data_root(root, "ecg")
    paths = {part: _find(folder, part) for part in ("train", "test")}
    parts = {part: _read_part(path, unlabelled) for part, path in paths.items()}
    return official_splits(
        parts["train"],
        parts["test"],
        source=f"QT database, level crossings (Yin et al. 2021), step 4 ms, unmarked steps = {unlabelled}",
        complete=COMPLETE,
        validation_fraction=validation_fraction,
        seed=seed,
        name="ecg",
        num_units=CHANNELS,
        num_classes=CLASSES,
        sensor_size=None,
        step=STEP,
    )


def _find(root: Path, part: str) -> Path:
    path = find_file(root, ("ecg_qtdb", "qtdb", "QTDB", "ecg", "."), (f"QTDB_{part}.mat",))
    if path is None:
        raise FileNotFoundError(
            f"ecg: no QTDB_{part}.mat in {root} or {root / 'ecg_qtdb'}; pass root=<folder that holds it>"
        )
    return path


def _read_part(path: Path, unlabelled: int) -> EventDataset:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["x", "y"])
    except Exception as error:
        # On damaged files scipy raises anything from IndexError to NotImplementedError.
        raise ValueError(f"{path}: truncated or not a MATLAB file ({type(error).__name__}: {error})") from error
    if "x" not in content or "y" not in content:
        raise ValueError(f"{path}: expected the variables x and y, found {sorted(content)}")
    x, y = content["x"], content["y"]
    if x.ndim != 3 or x.shape[2] != CHANNELS or y.shape != (*x.shape[:2], CLASSES):
        raise ValueError(f"{path}: expected x (N, T, {CHANNELS}) and y (N, T, {CLASSES}), got {x.shape} and {y.shape}")
    inside = x[:, :-1] if x.shape[1] else x
    if not np.isin(inside, (0, 1)).all() or not np.isin(x, (-1, 0, 1)).all():
        raise ValueError(f"{path}: expected x of 0 and 1 (and -1 as an end mark in the last step), got {np.unique(x)}")
    raster = torch.from_numpy((x > 0).astype(np.float32)).transpose(0, 1)
    labels = np.where(y.any(axis=2), y.argmax(axis=2), unlabelled)
    return EventDataset(Events.from_dense(raster, STEP), torch.from_numpy(labels.astype(np.int64)))
