"""Drift in the benchmark: every contender at every age, what compensation is, the table."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_drift as drifting
from resistive_devices import Net, Setting

from eventnet import data
from eventnet.hardware.resistive import PCM

pytestmark = pytest.mark.usefixtures("one_thread")
CENTURY = 100 * 365 * 86_400.0


@pytest.fixture(scope="module")
def samples():
    splits = data.load("digits")
    train = splits.train.events[:200], splits.train.labels[:200]
    return train, (splits.test.events[:60], splits.test.labels[:60])


@pytest.fixture(scope="module")
def found(samples):
    return drifting.drift(*samples, chips=2, ages={"25 s": 25.0, "100 years": CENTURY}, hidden=30, epochs=10)


def test_every_contender_at_every_age(found):
    for shares in found["ages"].values():
        assert set(shares) == set(drifting.CONTENDERS)
        assert all(len(each) == 2 and 0 <= min(each) <= max(each) <= 1 for each in shares.values())
    assert found["ideal"]["placed"] > 0.5


def test_of_ideal_cells_there_is_nothing_to_compensate(found):
    ideal = found["ideal"]
    assert ideal["compensated"] == ideal["placed"] and ideal["lif_compensated"] == ideal["lif"]


def test_chips_are_those_of_their_age_with_and_without_compensation(found, samples):
    net, late = Net(*samples, 30, 10), found["ages"]["100 years"]
    for chip in range(2):
        plain, compensated = (net.on(Setting(PCM, age=CENTURY), chip, each) for each in (False, True))
        assert late["placed"][chip] == plain["placed"] and late["refitted"][chip] == plain["refitted"]
        assert late["compensated"][chip] == compensated["placed"]
    assert late != found["ages"]["25 s"]


def test_table(found):
    text = drifting.table(found)
    mean = 100 * statistics.mean(found["ages"]["100 years"]["compensated"])
    assert "| after 100 years |" in text and f"| {mean:.1f} % (" in text and "Means over 2 chips of 60" in text
    floor = found["linear_floor"]["linear floor, counts"]
    assert 0.5 < floor < 1 and f"linear floor, counts {100 * floor:.1f} %" in text and "Wilson's interval" in text
