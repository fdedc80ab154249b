"""Devices of the benchmark: ideal arrays are the reservoir, settings are what they say, a chip is a chip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_devices as devices
from resistive_chips import Choice, formed_reservoir
from resistive_inputs import DECAY, binary

from eventnet import data
from eventnet.hardware.resistive import Reservoir
from eventnet.hardware.resistive.effects import HFO2_STUCK, HFOX_PROGRAMMING
from eventnet.hardware.resistive.formed import formed_pairs

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE, DAY = Choice(rate=100.0), 86_400.0


@pytest.fixture(scope="module")
def ones():
    splits = data.load("digits")
    train = binary(splits.train.events[:200]), splits.train.labels[:200]
    return train, (binary(splits.test.events[:60]), splits.test.labels[:60])


def test_ideal_arrays_are_the_reservoir(ones):
    random = devices.Random(*ones, 3, CHOICE, 30)
    reservoir = formed_reservoir(ones[0][0][::9], 30, 3, CHOICE)
    assert isinstance(reservoir, Reservoir) and reservoir.threshold == random.threshold
    for part, features in zip(ones, random.features(devices.Setting()), strict=True):
        counts = reservoir.features(part[0])
        assert counts.sum() > 100 and features[:, :30].equal(counts)
        # Traces of spikes at their steps' ends, one step later than those of a trace at that time
        last = reservoir.features(part[0], times=[part[0].duration[0].item()])[:, 30:]
        torch.testing.assert_close(features[:, -30:] * DECAY, last, rtol=1e-4, atol=1e-4)


def test_same_chip_same_features(ones):
    where = devices.setting("together", 1.0)
    first, again = (devices.Random(*ones, 1, CHOICE, 20).features(where) for _ in range(2))
    other = devices.Random(*ones, 2, CHOICE, 20).features(where)
    assert first[0].equal(again[0]) and first[1].equal(again[1]) and not first[0].equal(other[0])


def test_settings():
    g = torch.tensor([0.2, 0.9])
    twice = devices.setting("programming", 2.0).cell.programming
    torch.testing.assert_close(twice.sigma(g, 40e-6, 1.0), 2 * HFOX_PROGRAMMING.sigma(g, 40e-6, 1.0))
    stuck = devices.setting("stuck", 0.1).cell.stuck
    assert stuck.on + stuck.off == pytest.approx(0.1)
    assert stuck.on / stuck.off == pytest.approx(HFO2_STUCK.on / HFO2_STUCK.off)
    assert devices.setting("bits", 4).bits == 4 and devices.setting("read", 0.1).cell.read.proportional == 0.1
    together = devices.setting("together", DAY)
    assert together.bits == 8 and together.age == DAY and together.cell.stuck == HFO2_STUCK


def test_arrays_are_written_with_the_noise_of_their_chip():
    pair = formed_pairs(12, 40, 5, **CHOICE.cells)[0]
    written, again, other = (
        devices.crossbar_of(pair, devices.setting("age", 1.0), seed, 0, 10.0).effective_weight() for seed in (5, 5, 6)
    )
    assert written.equal(again) and not written.equal(other) and not written.equal(pair.weight())
    assert devices.crossbar_of(pair, devices.Setting(), 5, 0, 10.0).effective_weight().equal(pair.weight())


def test_the_range_of_converters_is_one_of_those_tried(ones):
    few = ones[0][0][:80], ones[0][1][:80]
    assert devices.bound_of(few, CHOICE, 10) in devices.BOUNDS
