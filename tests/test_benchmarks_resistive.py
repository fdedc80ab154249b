"""The benchmark of resistive memory: its chips are the library's reservoirs, its points are what they say, its table is whole."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import resistive  # noqa: E402

from eventnet import Events, data  # noqa: E402
from eventnet.hardware.resistive import HFO2_STUCK, HFOX_PROGRAMMING, Reservoir, seeded  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE = resistive.Choice(rate=100.0)


@pytest.fixture(scope="module")
def digits():
    splits = data.load("digits")
    train = splits.train.events[:200], splits.train.labels[:200]
    return train, (splits.test.events[:60], splits.test.labels[:60])


@pytest.fixture(scope="module")
def found(digits):
    return resistive.devices(*digits, chips=2, units=30, epochs=3, quick=True)


def test_ideal_arrays_are_the_reservoir(digits):
    ones = [(resistive.binary(events), labels) for events, labels in digits]
    random = resistive.Random(*ones, 3, CHOICE, 30)
    reservoir = resistive.formed_reservoir(ones[0][0][::9], 30, 3, CHOICE)
    assert isinstance(reservoir, Reservoir) and reservoir.threshold == random.threshold
    for part, features in zip(ones, random.features(resistive.Setting()), strict=True):
        counts = reservoir.features(part[0])
        assert counts.sum() > 100 and features[:, :30].equal(counts)
        # Traces of spikes at their steps' ends, one step later than those of a trace at that time
        last = reservoir.features(part[0], times=[part[0].duration[0].item()])[:, 30:]
        torch.testing.assert_close(features[:, -30:] * resistive.DECAY, last, rtol=1e-4, atol=1e-4)


def test_same_chip_same_features(digits):
    ones = [(resistive.binary(events), labels) for events, labels in digits]
    where = resistive.setting("together", 1.0)
    first, again = (resistive.Random(*ones, 1, CHOICE, 20).features(where) for _ in range(2))
    other = resistive.Random(*ones, 2, CHOICE, 20).features(where)
    assert first[0].equal(again[0]) and first[1].equal(again[1]) and not first[0].equal(other[0])


def test_settings():
    g = torch.tensor([0.2, 0.9])
    twice = resistive.setting("programming", 2.0).cell.programming
    torch.testing.assert_close(twice.sigma(g, 40e-6, 1.0), 2 * HFOX_PROGRAMMING.sigma(g, 40e-6, 1.0))
    stuck = resistive.setting("stuck", 0.1).cell.stuck
    assert stuck.on + stuck.off == pytest.approx(0.1)
    assert stuck.on / stuck.off == pytest.approx(HFO2_STUCK.on / HFO2_STUCK.off)
    assert resistive.setting("bits", 4).bits == 4 and resistive.setting("read", 0.1).cell.read.proportional == 0.1
    together = resistive.setting("together", resistive.DAY)
    assert together.bits == 8 and together.age == resistive.DAY and together.cell.stuck == HFO2_STUCK


def test_pooled():
    x, y, p = torch.tensor([0, 1, 31, 33, 5, 2]), torch.tensor([0, 1, 30, 3, 33, 3]), torch.tensor([0, 0, 0, 0, 0, 1])
    events = Events.from_list([((torch.arange(6) * 1e-3).tolist(), ((p * 34 + y) * 34 + x).tolist())], 2312, 0.01)
    kept = resistive.pooled(events)
    assert kept.num_units == 256 and kept.units.tolist() == [0, 0, 15 * 16 + 15]
    torch.testing.assert_close(kept.times, torch.tensor([0.0, 1e-3, 2e-3]))


def test_conductances_are_those_of_the_chip():
    one, two = (resistive.formed_pairs(12, 40, 5, resistive.Choice(radius=0.7, formed=0.3)) for _ in range(2))
    assert one[0].positive.equal(two[0].positive) and one[0].positive.shape == (40, 12)
    assert (one[1].positive > 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    largest = torch.linalg.eigvals(one[1].weight().double()).abs().max().item()
    assert largest == pytest.approx(0.7, rel=1e-3)
    drawn = resistive.crossbar_of(one[0], resistive.setting("age", 1.0), 5, 0, 10.0).effective_weight()
    assert not drawn.equal(one[0].weight()) and seeded(5).initial_seed() == seeded(5).initial_seed()


def test_devices(found):
    assert {point["sweep"] for point in found["points"]} == set(resistive.SWEEPS)
    for point in found["points"]:
        assert {"fitted", "carried", "placed", "refitted"} <= set(point["shares"])
        assert ("lif" in point["shares"]) == (point["sweep"] in ("programming", "stuck", "age"))
        assert ("fitted_1s" in point["shares"]) == (point["sweep"] in ("age", "together"))
        assert all(len(each) == 2 and 0 <= min(each) <= max(each) <= 1 for each in point["shares"].values())
        if point["value"] == 0:  # nothing happens
            assert not any(resistive.losses(found, point, "placed")) and not any(
                resistive.losses(found, point, "carried")
            )
    assert min(found["ideal"]["fitted"]) > 0.3
    shares = [each["adc_share"] for each in found["energy"]["bits"].values()]
    assert all(0 < low < high < 1 for low, high in shares) and shares == sorted(shares)


def test_readout_and_table(digits, found, tmp_path):
    rows = [*resistive.floors(*digits), *resistive.readout(*digits, 2, 20, CHOICE)]
    assert [len(each["shares"]) for each in rows] == [1, 1, 2, 2]
    assert all(each["low"] < each["share"] < each["high"] for each in rows)
    directions = {
        name: {"share": 0.5, "low": 0.4, "high": 0.6, "samples": 90, "pairs_above_chance": 1, "pairs_below": 2}
        for name in ("image_to_sound", "sound_to_image")
    }
    zero_shot = {"chance": 0.5, "pairs": [{}] * 45, "mean": directions}
    text = resistive.table({"readout": {"sets": {"digits": rows}}, "devices": found, "zero_shot": zero_shot})
    assert "digits, 60 test samples | 20 units, counts" in text and "all together after 2 d" in text
    assert "chance 50 %" in text and "89.1 %" in text and "in converters" in text
    resistive.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_zero_shot_is_told_by_classes_never_seen():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(12)
    places = torch.rand(10, 20, generator=generator)

    def part(units):
        values = (places[labels] + 0.05 * torch.rand(120, 20, generator=generator)) / 1.05
        return Events.from_latency(values.repeat(1, units // 20), 0.0, 0.04), labels

    found = resistive.zero_shot_pairs((part(20), part(20)), (part(40), part(40)), quick=True)
    row = found["pairs"][0]
    assert row["unseen"] == [0, 1] and row["chance"] == 0.5 and len(found["pairs"]) == 1
    assert row["image_to_sound"]["samples"] == 48 and not math.isnan(row["image_to_sound"]["share"])
    assert min(row["seen_validation"]) > 0.3  # of eight classes
