"""The multi-timescale XOR: what the events tell, that no part of it tells the class, and that a seed is a data set."""

from __future__ import annotations

import pytest
import torch

from eventnet.data import xor


def counts_by_stretch(pulses: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Events per trial in the cue and in each pulse ``(trials, 1 + pulses)``, classes and bits."""
    events, labels, bits = xor.trials(1000, seed=seed, pulses=pulses)
    spans = [(0.0, 60e-3)] + [(60e-3 + 20e-3 + k * 30e-3, 60e-3 + (k + 1) * 30e-3) for k in range(pulses)]
    counts = [events.crop(low, high).lengths for low, high in spans]
    assert sum(c.sum() for c in counts) == events.num_events  # nothing in the gaps, nothing at or after the end
    return torch.stack(counts, 1), labels, bits


@pytest.mark.parametrize("pulses", [1, 4])
def test_rates_tell_the_bits(pulses):
    counts, labels, bits = counts_by_stretch(pulses)
    assert counts.shape == bits.shape == (1000, 1 + pulses)
    means = {0: (12.0, 72.0), 1: (10.0, 60.0)}  # channels * rate * seconds, of the cue and of a pulse
    for stretch in range(1 + pulses):
        for bit in (0, 1):
            chosen = counts[bits[:, stretch] == bit, stretch].double()
            expected = means[min(stretch, 1)][bit]
            assert abs(chosen.mean() - expected) < 4 * (expected / chosen.numel()) ** 0.5  # Poisson: variance = mean
            assert 0.7 < chosen.var() / expected < 1.35
    assert labels.equal(bits[:, 0] ^ bits[:, -1])


def test_groups_of_units_fire_in_their_stretches_and_alike():
    events, _, _ = xor.trials(500, seed=1)
    slow = events.units < 20
    assert events.num_units == 40 and events.times[slow].max() < 60e-3 and events.times[~slow].min() >= 80e-3
    for group in (slow, ~slow):
        per_unit = torch.bincount(events.units[group].long() % 20, minlength=20).double()
        assert (
            (per_unit - per_unit.mean()) ** 2 / per_unit.mean()
        ).sum() < 45  # chi-squared with 19 degrees: p = 0.0007


def test_no_bit_and_no_count_alone_tells_the_class():
    counts, labels, bits = counts_by_stretch(4)
    for stretch in range(5):
        agree = (bits[:, stretch] == labels).double().mean()
        assert abs(agree - 0.5) < 4 * 0.5 / 1000**0.5
        same = torch.corrcoef(torch.stack([counts[:, stretch].double(), labels.double()]))[0, 1]
        assert abs(same) < 4 / 1000**0.5


def test_both_bits_together_tell_it():
    counts, labels, _ = counts_by_stretch(4)
    slow, fast = counts[:, 0] > 35, counts[:, -1] > 28
    assert ((slow ^ fast) == labels.bool()).double().mean() > 0.995


def test_a_seed_is_a_data_set():
    first, again, other = (xor.trials(20, seed=seed) for seed in (3, 3, 4))
    assert first[0].times.equal(again[0].times) and first[0].units.equal(again[0].units) and first[1].equal(again[1])
    assert first[0].num_events != other[0].num_events


def test_load_has_three_parts_and_a_fixed_test_part():
    splits, others = xor.load(seed=0), xor.load(seed=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2000, 500, 1000)
    assert splits.num_units == 40 and splits.num_classes == 2
    same = [getattr(splits, part).events.times.equal(getattr(others, part).events.times) for part in xor.SIZES]
    assert same == [False, False, True]


@pytest.mark.parametrize("wrong", [{"pulses": 0}, {"cue": 0.0}, {"gap": -1.0}, {"cue_rates": (0.0, 10.0)}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        xor.trials(10, seed=0, **wrong)


def test_its_validation_part_is_fixed():
    with pytest.raises(ValueError, match="leave validation_fraction out"):
        xor.load(validation_fraction=0.1)
