"""Sweeps of the benchmark: every contender at every point, changes against ideal devices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_sweeps as sweeps

from eventnet import data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def found():
    splits = data.load("digits")
    train = splits.train.events[:200], splits.train.labels[:200]
    held = splits.test.events[:60], splits.test.labels[:60]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sweeps.devices(train, held, chips=2, units=30, epochs=3, quick=True)
    finally:
        torch.set_num_threads(threads)


def test_contenders_at_every_point(found):
    assert {point["sweep"] for point in found["points"]} == set(sweeps.SWEEPS)
    for point in found["points"]:
        assert {"fitted", "carried", "placed", "refitted"} <= set(point["shares"])
        assert ("lif" in point["shares"]) == (point["sweep"] in ("programming", "stuck", "age"))
        assert ("fitted_1s" in point["shares"]) == (point["sweep"] in ("age", "together"))
        assert all(len(each) == 2 and 0 <= min(each) <= max(each) <= 1 for each in point["shares"].values())
        if point["value"] == 0:  # nothing happens
            assert not any(sweeps.losses(found, point, "placed")) and not any(sweeps.losses(found, point, "carried"))
    assert min(found["ideal"]["fitted"]) > 0.3


def test_losses_are_against_the_same_chip():
    found = {"ideal": {"fitted": [0.9, 0.8], "lif": [0.5, 0.5]}}
    point = {"shares": {"fitted": [0.8, 0.8], "carried": [0.6, 0.5]}}
    assert sweeps.losses(found, point, "fitted") == pytest.approx([0.1, 0.0])
    assert sweeps.losses(found, point, "carried") == pytest.approx([0.3, 0.3])
    assert sweeps.losses(found, point, "lif") is None


def test_points_in_words():
    said = [sweeps.label(sweep, value) for sweep, value in sweeps.points(quick=False)]
    assert len(set(said)) == len(said) == sum(map(len, sweeps.SWEEPS.values()))
    assert "all together after 2 d" in said and "HfOx after 1 s" in said


def test_table(found):
    text = sweeps.table(found)
    assert "| all together after 2 d |" in text and "Means over 2 chips of the same 60 held-out samples" in text
    assert "digital readout" in text and text.count("| 30 units |") == 3
