"""Formed cells as the weights of a reservoir: seeds, statistics, age, against cells written one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resistive_cases import DAY, F64, drawn

from eventnet.hardware.resistive import HFOX, PCM, Cell, Drift, Forming, Reservoir, Stuck, seeded, with_rate
from eventnet.hardware.resistive.formed import HALF_FORMED, formed_pairs


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    inputs=st.integers(1, 20),
    out=st.integers(2, 20),
    radius=st.floats(0.1, 3.0),
    dtype=st.sampled_from([torch.float32, F64]),
)
def test_weights_are_those_of_the_cells_of_one_chip(seed, inputs, out, radius, dtype):
    pairs = formed_pairs(inputs, out, seed, radius=radius, dtype=dtype)
    cells = seeded(seed)
    for pair, rows in zip(pairs, (inputs, out), strict=True):
        expected = HALF_FORMED.draw((2, out, rows), cells, dtype).clamp(max=40e-6)
        assert torch.equal(torch.stack([pair.positive, pair.negative]), expected) and expected.dtype == dtype
    assert pairs[0].scale == 1 / 40e-6  # a weight of 1 is a cell at G_max
    largest = torch.linalg.eigvals(pairs[1].weight().double()).abs().max().item()
    assert largest == pytest.approx(radius, rel=1e-4)
    reservoir = Reservoir.formed(inputs, out, seed, radius=radius, dtype=dtype)
    assert reservoir.weight.equal(pairs[0].weight().t()) and reservoir.weight.shape == (inputs, out)
    assert reservoir.recurrent_weight.equal(pairs[1].weight().t())


def test_forming_sets_how_many_weights_there_are():
    for formed in (0.1, 0.5, 1.0):
        weight = Reservoir.formed(150, 100, 2, forming=Forming(formed, 20e-6, 5e-6)).weight
        assert (weight == 0).double().mean().item() == pytest.approx((1 - formed) ** 2, abs=0.02)
        assert weight.mean().abs() < 0.02 and weight.abs().max() <= 1


def test_a_seed_is_a_chip():
    options = {"cell": replace(PCM, stuck=Stuck(0.02, 0.1)), "age": 3600.0, "radius": 0.8}
    first, again, other = (Reservoir.formed(40, 60, seed, **options) for seed in (4, 4, 5))
    assert first.weight.equal(again.weight) and first.recurrent_weight.equal(again.recurrent_weight)
    assert not first.weight.equal(other.weight)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            reservoir = replace(Reservoir.formed(6, 60, 4, **options), gain=0.5)
            found.append(reservoir.features(drawn(), times=[0.02, 0.05]))
    finally:
        torch.set_num_threads(before)
    assert found[0].sum() > 10 and all(each.equal(found[0]) for each in found[1:])


def test_the_same_cells_grow_older():
    fresh, hour, day = (Reservoir.formed(50, 80, 1, cell=HFOX, age=age, radius=1.0) for age in (1.0, 3600.0, DAY))
    ideal = Reservoir.formed(50, 80, 1, radius=1.0)
    off = [(each.weight - ideal.weight).norm().item() for each in (fresh, hour, day)]
    assert 0 < off[0] < off[1] < off[2]
    moved = [(each.weight - ideal.weight).flatten() for each in (fresh, day)]
    assert torch.corrcoef(torch.stack(moved))[0, 1] > 0.95  # a cell that came out high stays high


def test_what_age_takes_is_not_scaled_away():
    """One exponent for all cells: after ten thousand times t_0 both matrices are smaller by that power."""
    cell = Cell(drift=Drift(mean=0.05, std=0.0))
    young, old = (Reservoir.formed(10, 30, 0, cell=cell, age=age, radius=1.0) for age in (0.0, 20.0 * 1e4))
    for name in ("weight", "recurrent_weight"):
        torch.testing.assert_close(getattr(old, name), 1e4**-0.05 * getattr(young, name))


def test_its_input_is_as_that_of_any_reservoir():
    events = drawn(1, (300,) * 6, 40, 0.1)
    for tau_syn in (None, 3e-3):
        made = Reservoir.formed(40, 50, 0, cell=HFOX, age=1.0, radius=0.5, dt=2e-3, decay=0.8, tau_syn=tau_syn)
        assert (made.dt, made.decay, made.threshold, made.gain, made.tau_syn) == (2e-3, 0.8, 1.0, 1.0, tau_syn)
        reservoir = with_rate(made, events, 30.0)
        assert reservoir.features(events, times=[0.05, 0.1]).shape == (6, 150)


def test_errors_say_what_came():
    for options, error, said in [
        ({"forming": 0.5}, TypeError, "forming: expected a Forming, as .* got 0.5"),
        ({"cell": None}, TypeError, "cell: expected a Cell, such as HFOX, .* got None"),
        ({"forming": Forming(0.5, 20.0, 5.0)}, ValueError, "mean up to the cell's G_max, 4e-05 S, got 20 S"),
        ({"age": 1e9, "cell": HFOX}, ValueError, "measured up to"),
        ({"age": -1.0, "cell": HFOX}, ValueError, "age"),
        ({"forming": Forming(0.0, 20e-6, 5e-6), "radius": 1.0}, ValueError, "spectral radius 0"),
        ({"radius": -1.0}, ValueError, "radius: expected a number >= 0, finite, or None, got -1.0"),
        ({"dtype": torch.int64}, TypeError, "dtype: expected torch.float32 or torch.float64, got torch.int64"),
        ({"decay": 1.0}, ValueError, "decay must be"),
    ]:
        with pytest.raises(error, match=said):
            Reservoir.formed(4, 3, 0, **options)
    assert Reservoir.formed(4, 3, 0, forming=Forming(0.0, 20e-6, 5e-6)).recurrent_weight.eq(0).all()
    for seed in (-1, None, 0.5):
        with pytest.raises(ValueError, match=f"whole seeds >= 0, got {seed}"):
            Reservoir.formed(4, 3, seed)
