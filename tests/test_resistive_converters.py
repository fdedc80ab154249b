"""Converters: symmetric levels, what is clipped, straight-through gradients, noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64, numbers

from eventnet.hardware.resistive import ADC, DAC, seeded
from eventnet.hardware.resistive.converters import quantize


@given(st.integers(2, 12), st.floats(0.01, 100), st.integers(0, 100))
def test_quantize_rounds_to_the_nearest_of_symmetric_levels(bits, bound, seed):
    values = bound * 1.5 * numbers(50, seed=seed)
    found, step = quantize(values, bits, bound), 2 * bound / (2**bits - 2)
    assert (found - values.clamp(-bound, bound)).abs().max() <= step / 2 * (1 + 1e-9)
    torch.testing.assert_close((found / step).round() * step, found)
    torch.testing.assert_close(quantize(-values, bits, bound), -found)
    torch.testing.assert_close(quantize(found, bits, bound), found)
    assert quantize(torch.zeros(1), bits, bound) == 0


def test_gradients_of_converters_go_straight_through_within_the_bounds():
    x = torch.tensor([[-3.0, -0.7, 0.1, 0.9, 2.0]], requires_grad=True)
    inside = torch.tensor([[0.0, 1, 1, 1, 0]])
    for found in (DAC(4, bound=1.0)(x), ADC(4, bound=0.5)(x, 2.0), quantize(x, None, 1.0)):
        assert torch.equal(torch.autograd.grad(found.sum(), x)[0], inside)
    assert torch.equal(torch.autograd.grad(DAC(4)(x).sum(), x)[0], torch.ones(1, 5))


def test_a_dac_without_a_bound_takes_the_largest_input_of_each_row():
    x = torch.tensor([[1.0, -4.0, 0.3], [0.0, 0.0, 0.0], [0.001, 0.0005, 0.0]])
    found = DAC(8)(x)
    assert torch.equal(found, torch.cat([DAC(8)(row[None]) for row in x]))
    assert ((found - x).abs() <= x.abs().amax(-1, keepdim=True) / 254 * 1.0001).all()
    assert torch.equal(DAC(None)(x), x)


def test_an_adc_without_bound_leaves_what_comes_without_input():
    y = numbers(4, 3)
    assert torch.equal(ADC(None, bound=torch.inf)(y, torch.tensor([[0.0], [1.0], [0.0], [2.0]])), y)


def test_noise_of_an_adc():
    y = ADC(None, noise=0.04)(torch.zeros(200, 100, dtype=F64), 3.0, seeded(0))
    assert y.std().item() == pytest.approx(0.12, rel=0.03)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: ADC(noise=0.1)(torch.ones(2), 1.0), "needs a generator"),
        (lambda: ADC(1), "bits: expected 2 to 24"),
        (lambda: DAC(4.5), "bits: expected 2 to 24, whole, .*got 4.5"),
        (lambda: ADC(8, bound=torch.inf), "bound"),
        (lambda: ADC(noise=-1.0), "standard deviation"),
        (lambda: DAC(8, bound=0.0), "bound"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()
