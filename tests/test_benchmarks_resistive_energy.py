"""Joules of a reservoir on arrays, by part, against the coefficients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_energy

from eventnet.hardware.energy_profiles import energy_profile
from eventnet.hardware.resistive.energy import Reads, array_energy


def test_parts_are_those_of_the_arrays_and_the_readout_is_apart():
    found = resistive_energy.energy(20, 64, 30.0, 40.0, steps=10, classes=4)
    each = energy_profile("asic45").coefficients["multiply_accumulates"]
    assert found["readout_joules"] == pytest.approx([4 * 5 * 20 * each.low, 4 * 5 * 20 * each.high])
    reads = {"a": Reads(20, 64, 10, 30.0, adc_bits=6, updates=200), "b": Reads(20, 20, 10, 40.0, adc_bits=6)}
    witness = array_energy(reads)
    assert found["bits"]["6"]["total_joules_per_sample"] == pytest.approx(witness.total.to_list())
    named = [cause for part in resistive_energy.PARTS.values() for cause in part]
    assert sorted(named) == sorted(found["bits"]["6"]["causes_joules_per_sample"])


def test_share_of_converters_grows_with_their_bits():
    bits = resistive_energy.energy(20, 64, 30.0, 40.0, steps=10, classes=4)["bits"]
    shares = [bits[str(each)]["adc_share"] for each in resistive_energy.BITS]
    assert all(0 < low < high < 1 for low, high in shares) and shares == sorted(shares)


def test_graded_inputs_drive_bit_by_bit():
    plain, graded = (resistive_energy.energy(20, 64, 30.0, 40.0, steps=10, classes=4, graded=g) for g in (False, True))
    drivers = [each["bits"]["8"]["layers_joules_per_sample"]["input"]["drivers"] for each in (plain, graded)]
    assert drivers[1][0] == pytest.approx(8 * drivers[0][0])


def test_table():
    found = resistive_energy.energy(20, 64, 30.0, 40.0, steps=10, classes=4)
    lines = resistive_energy.table([("small", found)], (4, 8)).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| small | 4 | 30 | 40 |") and lines[3].endswith("% |")
    assert "digital readout" in lines[0] and len({line.count("|") for line in lines}) == 1
