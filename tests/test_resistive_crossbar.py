"""Crossbars: weights as pairs of conductances, products in tiles through converters, noise, gradients, the wires of tiles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64, numbers

from eventnet.hardware.resistive import ADC, DAC, Cell, Crossbar, Pair, seeded, to_pair
from eventnet.hardware.resistive.crossbar import from_pair
from eventnet.hardware.resistive.ir_drop import ir_drop

shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(shapes, st.integers(0, 1000), st.floats(1e-3, 1e3), st.sampled_from([0.0, 1e-6]))
def test_weights_come_back_from_their_conductances(shape, seed, size, g_min):
    weight, cell = size * numbers(*shape, seed=seed), Cell(25e-6, g_min)
    pair = to_pair(weight, cell)
    torch.testing.assert_close(from_pair(pair), weight, rtol=1e-9, atol=1e-9 * size)
    for each in (pair.positive, pair.negative):
        assert each.min() >= g_min and each.max() <= 25e-6 * (1 + 1e-9)
    assert torch.equal(torch.minimum(pair.positive, pair.negative), torch.full(shape, g_min, dtype=F64))
    torch.testing.assert_close(torch.maximum(pair.positive, pair.negative).max(), torch.tensor(25e-6, dtype=F64))


@given(shapes, st.sampled_from([None, 2.0]))
def test_weights_of_zero_are_pairs_without_a_difference(shape, scale):
    pair = to_pair(torch.zeros(shape), Cell(g_min=1e-6), scale)
    assert torch.equal(pair.positive, pair.negative)
    assert from_pair(pair).eq(0).all()
    mixed = numbers(*shape)
    mixed[0, 0] = 0
    assert from_pair(to_pair(mixed, Cell(g_min=1e-6)))[0, 0] == 0


def test_a_scale_is_kept():
    weight = torch.tensor([[1.0, -0.5]])
    pair = to_pair(weight, Cell(40e-6), scale=1e5)
    assert pair.scale == 1e5
    torch.testing.assert_close(pair.positive, torch.tensor([[10e-6, 0.0]]))
    torch.testing.assert_close(from_pair(pair), weight)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: to_pair(torch.tensor([torch.nan, 1.0])), "finite weights"),
        (lambda: to_pair(torch.tensor([1.0, -torch.inf])), "finite weights"),
        (lambda: to_pair(torch.tensor([1.0]), scale=1e3), "holds weights up to 0.04, got 1"),
        (lambda: to_pair(torch.tensor([1.0]), scale=-1.0), "scale of -1"),
        (lambda: Pair(torch.ones(2), torch.ones(3), 1.0), "one shape, got \\(2,\\) and \\(3,\\)"),
        (lambda: Pair(-torch.ones(2), torch.ones(2), 1.0), "negative one or NaN"),
        (lambda: Pair(torch.ones(2), torch.full((2,), torch.nan), 1.0), "negative one or NaN"),
        (lambda: Pair(torch.ones(2), torch.full((2,), torch.inf), 1.0), "an infinite one"),
        (lambda: Pair(torch.ones(2), torch.ones(2), torch.nan), "scale: expected .*got nan"),
        (
            lambda: Crossbar(to_pair(torch.ones(3, 2)), read_sigma=(torch.ones(3, 2), torch.ones(2))),
            "read_sigma: expected",
        ),
        (lambda: Crossbar(to_pair(torch.ones(3))), "conductances \\(out, in\\), got \\(3,\\)"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), tile=(0, 4)), "tile"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), tile=128), r"tile: expected \(rows, columns\) .* got 128"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), tile=(1.5, 2)), r"tile: expected .* whole, .* got \(1\.5, 2\)"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2))).product(torch.ones(3)), "shape \\(..., 2\\), got \\(3,\\)"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), adc=ADC(noise=0.1)).product(torch.ones(2)), "needs a generator"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: Crossbar(torch.ones(3, 2)), "expected a Pair, as to_pair makes it of weights, got Tensor"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), None), "cell: expected a Cell, .* got None"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), adc=8), r"adc: expected ADC\(bits=8\) or alike, .* got 8"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), dac=ADC()), r"dac: expected DAC\(bits=8\) or alike, .* got ADC"),
        (lambda: to_pair(torch.ones(2), 40e-6), "cell: expected a Cell, .* got 4e-05"),
    ],
)
def test_errors_of_kinds_say_what_came(call, says):
    with pytest.raises(TypeError, match=says):
        call()


def test_every_tile_is_converted_on_its_own():
    weight, x = numbers(9, 70), numbers(4, 70, seed=1)
    adc = ADC(6, bound=3.0)
    found = Crossbar(to_pair(weight), tile=(32, 4), adc=adc).product(x)
    unit = weight.abs().max() * x.abs().amax(-1, keepdim=True)
    parts = [slice(0, 32), slice(32, 64), slice(64, 70)]
    expected = sum(adc(x[:, part] @ weight[:, part].t(), unit) for part in parts)
    torch.testing.assert_close(found, expected)
    whole = Crossbar(to_pair(weight), tile=None, adc=adc).product(x)
    assert not torch.allclose(found, whole)


def test_an_array_that_exceeds_the_bound_is_clipped_and_tiles_hold_more():
    weight, x = torch.ones(1, 64), torch.ones(1, 64)
    assert Crossbar(to_pair(weight), adc=ADC(8, bound=10.0), tile=(64, 1)).product(x).item() == pytest.approx(10)
    assert Crossbar(to_pair(weight), adc=ADC(8, bound=10.0), tile=(8, 1)).product(x).item() == pytest.approx(
        64, abs=0.4
    )


def test_eight_bits_are_near():
    weight, x = numbers(9, 200) / 20, numbers(30, 200, seed=1)
    exact = x @ weight.t()
    errors = [
        (Crossbar(to_pair(weight), dac=DAC(bits), adc=ADC(bits)).product(x) - exact).norm().item() / exact.norm().item()
        for bits in (4, 6, 8, 12)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.06 and errors[3] < 0.004


def test_noise_of_reads_and_of_converters_add_up():
    pair, x = to_pair(numbers(3, 40)), torch.ones(20_000, 40, dtype=F64)
    sigma = (torch.full((3, 40), 1e-6, dtype=F64), torch.zeros(3, 40, dtype=F64))
    adc = ADC(None, bound=torch.inf, noise=0.04)
    found = Crossbar(pair, read_sigma=sigma, adc=adc, tile=(16, 8)).product(x, seeded(0))
    expected = (40 * (pair.scale * 1e-6) ** 2 + 3 * (0.04 * pair.scale * 40e-6) ** 2) ** 0.5  # three tiles
    assert found.std(0).tolist() == pytest.approx([expected] * 3, rel=0.03)


def test_a_product_passes_the_gradient_of_its_conductances():
    weight, x = numbers(9, 70), numbers(4, 70, seed=1)
    x[0] = 0  # no noise there
    x.requires_grad_()
    sigma = (torch.full((9, 70), 1e-6, dtype=F64), torch.zeros(9, 70, dtype=F64))
    crossbar = Crossbar(to_pair(weight), read_sigma=sigma, dac=DAC(8), adc=ADC(8, bound=100.0), tile=(32, 4))
    (grad,) = torch.autograd.grad(crossbar.product(x, seeded(0))[1:].sum(), x)
    torch.testing.assert_close(grad[1:], weight.sum(0).expand(3, 70))
    assert grad[0].eq(0).all()


def test_the_wires_of_a_crossbar_are_those_of_its_tiles():
    weight, x = numbers(9, 70), numbers(4, 70, seed=1)
    pair = to_pair(weight)
    found = Crossbar(pair, tile=(32, 4), wire_resistance=20.0).product(x)
    expected = np.zeros((4, 9))
    for sign, conductance in ((1, pair.positive), (-1, pair.negative)):
        for i in range(0, 70, 32):
            for j in range(0, 9, 4):
                array = conductance[j : j + 4, i : i + 32].t()
                expected[:, j : j + 4] += (sign * pair.scale * x[:, i : i + 32] @ ir_drop(array, 20.0)).numpy()
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_smaller_tiles_lose_less_and_too_large_ones_are_said():
    weight, x = torch.ones(256, 256, dtype=F64), torch.ones(1, 256, dtype=F64)
    lost = []
    for size in (16, 32, 64):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lost.append(
                256 - Crossbar(to_pair(weight), tile=(size, size), wire_resistance=0.35).product(x).mean().item()
            )
    assert lost == sorted(lost) and lost[0] > 0 and lost[2] < 256 * 0.06
    with pytest.warns(UserWarning, match="take smaller tiles"):
        Crossbar(to_pair(weight), tile=None, wire_resistance=0.35)
