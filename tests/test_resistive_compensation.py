"""Global drift compensation: exact where all cells drift alike, the closed form of what is left where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from resistive_cases import DAY, F64, linear, numbers
from torch import nn

from eventnet.hardware import compile
from eventnet.hardware.resistive import ADC, DAC, PCM, Cell, CrossbarLinear, Drift, ReadNoise, Stuck, place, seeded
from eventnet.hardware.resistive.compensation import drift_compensation


def drifting(mean: float, std: float = 0.0) -> Drift:
    """Exponents of this mean and spread, whatever the conductance."""
    return Drift(mean, std)


ALIKE = Cell(drift=drifting(0.06))


@pytest.mark.parametrize("age", [0.0, 20.0, 3600.0, 365 * DAY])
def test_of_cells_that_drift_alike_nothing_is_left(age):
    chip = ALIKE.program(40e-6 * numbers(2, 9, 70).abs().clamp(max=1), seeded(0))
    assert drift_compensation(chip, age, seeded(1)) == pytest.approx((max(age, 20.0) / 20.0) ** 0.06, rel=1e-12)
    trained, x = linear(), numbers(4, 70)
    layer = CrossbarLinear.from_linear(trained, cell=ALIKE, age=age, compensate_drift=True).eval()
    torch.testing.assert_close(layer(x), trained(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.train()(x), trained(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("age", [2000.0, DAY, 365 * DAY])
def test_of_cells_that_drift_apart_the_closed_form_is_left(age):
    mean, std, log = 0.06, 0.01, math.log(age / 20.0)
    trained = nn.Linear(300, 300, bias=False, dtype=F64)
    nn.init.ones_(trained.weight)
    off = {}
    for compensated in (True, False):
        layer = CrossbarLinear.from_linear(
            trained, cell=Cell(drift=drifting(mean, std)), age=age, compensate_drift=compensated
        ).eval()
        off[compensated] = (layer.crossbar().effective_weight() - 1).square().mean().sqrt().item()
    assert off[True] == pytest.approx(math.sqrt(math.exp((std * log) ** 2) - 1), rel=0.03)
    left, squared = (math.exp(-k * mean * log + (k * std * log) ** 2 / 2) for k in (1, 2))
    assert off[False] == pytest.approx(math.sqrt(squared - 2 * left + 1), rel=0.03)


def test_reads_of_the_calibration_have_noise():
    """Two sums over n cells of G, each with n^(1/2) times the noise of one."""
    sigma, n, conductance = 1e-6, 100, 20e-6
    chip = Cell(read=ReadNoise(0.0, sigma)).program(torch.full((n,), conductance, dtype=F64), seeded(0))
    found = torch.tensor([drift_compensation(chip, 60.0, seeded(1, k)) for k in range(2000)], dtype=F64)
    expected = math.sqrt(2 * n) * sigma / (n * conductance)
    assert found.std().item() == pytest.approx(expected, rel=0.05)
    assert found.mean().item() == pytest.approx(1.0, abs=4 * expected / math.sqrt(2000))


def test_it_multiplies_behind_the_converters():
    trained, x = linear(), numbers(6, 70)
    options = {"cell": PCM, "dac": DAC(6), "adc": ADC(5, bound=4.0, noise=0.04), "tile": (32, 32), "age": DAY}
    plain = CrossbarLinear.from_linear(trained, **options).eval()
    compensated = CrossbarLinear.from_linear(trained, **options, compensate_drift=True).eval()
    ratio = (compensated(x, seeded(3)) - trained.bias) / (plain(x, seeded(3)) - trained.bias)
    alpha = ratio.nanmedian()
    assert 1.3 < alpha < 2.0  # (86400 / 20)^0.05 is 1.52
    torch.testing.assert_close(ratio.nan_to_num(alpha.item()), alpha.expand(ratio.shape))
    assert "compensate_drift=True" in repr(compensated) and "compensate_drift" not in repr(plain)
    compensated.compensate_drift = False
    assert torch.equal(compensated(x, seeded(3)), plain(x, seeded(3)))


@pytest.mark.parametrize("cell, target", [(Cell(), 0.0), (Cell(drift=Drift(), stuck=Stuck(off=1.0)), 10e-6)])
def test_cells_without_current_need_none(cell, target):
    assert drift_compensation(cell.program(torch.full((3, 3), target), seeded(0)), DAY, seeded(0)) == 1.0


def test_a_chip_has_one_at_any_age_and_on_any_number_of_threads():
    before, found = torch.get_num_threads(), []
    trained = linear(700, 200, dtype=torch.float32)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer = CrossbarLinear.from_linear(trained, cell=PCM, compensate_drift=True, seed=3).eval()
            for age in (DAY, 60.0, DAY):  # what was asked before changes nothing
                layer.age = age
                weight = layer.crossbar().effective_weight()
            found.append(weight)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_placed_model_stays_nearer_to_the_trained_one():
    model = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 5))
    off = {
        compensated: place(model, cell=PCM, age=30 * DAY, compensate_drift=compensated)
        .report()
        .matrices["0.weight"]
        .error
        for compensated in (True, False)
    }
    assert off[True] < 0.6 * off[False]
    placed = compile(model, "resistive", cell=ALIKE, compensate_drift=True)
    for placed.age in (0.0, 30 * DAY):
        assert placed.report().matrices["2.weight"].error < 1e-6
    assert any("drift, compensated by one factor" in note for note in placed.notes)
