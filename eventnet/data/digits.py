"""Handwritten digits, 8x8, that come with scikit-learn: real data without a download."""

from __future__ import annotations

import torch

from eventnet.data.dataset import EventDataset, Splits, stratified_split
from eventnet.events import Events

__all__ = ["load"]

TEST_SIZE = 360  # of 1,797
TEST_SEED = 2021  # a constant: the test part is the same for every seed of load
VALIDATION_SIZE = 180


def load(
    root: object = None,
    *,
    seed: int = 0,
    validation_fraction: float = VALIDATION_SIZE / (1797 - TEST_SIZE),
    t_max: float = 20e-3,
    duration: float = 40e-3,
) -> Splits:
    """1,797 digits (1257 / 180 / 360) as latencies ``t = (1 - p / 16) * t_max`` of the 64 pixels ``p > 0``.

    The test part is a fixed fifth, drawn evenly from the classes; ``seed`` and ``validation_fraction`` divide
    the rest. (scikit-learn bundles the test part of the UCI set "Optical Recognition of Handwritten Digits",
    Alpaydin and Kaynak 1998, without its writers, so that writers are in all three parts.)

    Args:
        root: not used.
        seed: of the validation part.
        validation_fraction: of the 1,437 samples outside the test part.
        t_max: seconds; ink of half the full darkness fires at half of it.
        duration: seconds; the default leaves the membrane one time constant of 20 ms after the last spike.
    """
    from sklearn.datasets import load_digits

    bundle = load_digits()
    labels = torch.from_numpy(bundle.target).to(torch.int64)
    ink = torch.from_numpy(bundle.data) / 16.0
    events = Events.from_latency(ink, 0.0, t_max, duration=duration, minimum=1 / 16).to(torch.float32)
    everything = EventDataset(events, labels)
    rest, test = stratified_split(labels, TEST_SIZE / len(labels), TEST_SEED)
    train, validation = stratified_split(labels[rest], validation_fraction, seed)
    note = (
        f"scikit-learn's bundled digits: {len(train)} training, {len(validation)} validation (seed {seed}), "
        f"{len(test)} test (fixed)"
    )
    return Splits(
        train=everything.select(rest[train]),
        validation=everything.select(rest[validation]),
        test=everything.select(test),
        name="digits",
        num_units=64,
        num_classes=10,
        sensor_size=(8, 8, 1),
        note=note,
    )
