"""Crossbars: nn.Linear where everything is ideal, what each departure adds, straight-through gradients, and wires."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from eventnet.hardware.resistive import (
    ADC,
    DAC,
    HFO2_STUCK,
    HFOX,
    PCM,
    Cell,
    Crossbar,
    CrossbarLinear,
    Pair,
    ProgrammingNoise,
    ReadNoise,
    from_pair,
    ir_drop,
    ir_drop_nodal,
    seeded,
    to_pair,
)
from eventnet.hardware.resistive.converters import quantize
from eventnet.hardware.resistive.ir_drop import FIRST_ORDER, drop

F64 = torch.float64
REAL = {"cell": HFOX, "dac": DAC(8), "adc": ADC(8, noise=0.04), "wire_resistance": 0.35, "tile": (32, 32)}


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear(inputs: int = 70, out: int = 9, bias: bool = True, seed: int = 0, dtype: torch.dtype = F64) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, out, bias, dtype=dtype)


# ---- weights and conductances ---------------------------------------------------------------------------------------

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
        (lambda: Crossbar(to_pair(torch.ones(3))), "conductances \\(out, in\\), got \\(3,\\)"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), tile=(0, 4)), "tile"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2))).product(torch.ones(3)), "shape \\(..., 2\\), got \\(3,\\)"),
        (lambda: Crossbar(to_pair(torch.ones(3, 2)), adc=ADC(noise=0.1)).product(torch.ones(2)), "needs a generator"),
        (lambda: ADC(noise=0.1)(torch.ones(2), 1.0), "needs a generator"),
        (lambda: ADC(1), "bits: expected 2 to 24"),
        (lambda: ADC(8, bound=torch.inf), "bound"),
        (lambda: ADC(noise=-1.0), "standard deviation"),
        (lambda: DAC(8, bound=0.0), "bound"),
        (lambda: CrossbarLinear(2, 2, age=-1.0), "age"),
        (lambda: ir_drop(torch.tensor([[-1.0]])), "conductances >= 0"),
        (lambda: ir_drop_nodal(torch.tensor([[torch.nan]])), "conductances >= 0"),
        (lambda: ir_drop(torch.ones(2, 2), -0.1), "wire resistance"),
        (lambda: ir_drop_nodal(torch.ones(2)), "\\(rows, columns\\), got \\(2,\\)"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- converters -----------------------------------------------------------------------------------------------------


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


def test_noise_of_an_adc():
    y = ADC(None, noise=0.04)(torch.zeros(200, 100, dtype=F64), 3.0, seeded(0))
    assert y.std().item() == pytest.approx(0.12, rel=0.03)


# ---- products -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("tile", [None, (64, 64), (256, 256), (7, 3)])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_ideal_is_nn_linear(leading, tile, dtype):
    x, trained = numbers(*leading, 70, dtype=dtype), linear(dtype=dtype)
    every = {"tile": tile, "dac": DAC(None), "adc": ADC(None, bound=torch.inf)}  # through all tiles
    for options in ({"tile": tile}, every, {"cell": Cell(g_min=2e-6)}):
        layer = CrossbarLinear.from_linear(trained, **options)
        for mode in (layer.train(), layer.eval()):
            torch.testing.assert_close(mode(x), trained(x), rtol=0, atol=1e-6)


def test_without_bias_and_without_inputs():
    trained = linear(5, 3, bias=False)
    assert CrossbarLinear.from_linear(trained).bias is None
    assert Crossbar(to_pair(torch.zeros(3, 0)), adc=ADC(8)).product(torch.ones(2, 0)).shape == (2, 3)
    zero = CrossbarLinear(5, 3, bias=False, dac=DAC(8), adc=ADC(8))
    nn.init.zeros_(zero.weight)
    assert zero(torch.ones(2, 5)).eq(0).all() and zero(torch.zeros(2, 5)).eq(0).all()


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


def test_the_noise_of_a_read_is_the_sum_of_that_of_its_cells():
    weight, x = numbers(3, 40), numbers(1, 40, seed=1)
    layer = CrossbarLinear(40, 3, False, dtype=F64, cell=Cell(read=ReadNoise(0.1))).eval()
    with torch.no_grad():
        layer.weight.copy_(weight)
    found = layer(x.expand(40_000, 40))
    expected = ((x**2) @ ((0.1 * weight) ** 2).t()).sqrt()[0]  # of each pair one cell conducts
    torch.testing.assert_close(found.std(0), expected, rtol=0.03, atol=0)
    torch.testing.assert_close(found.mean(0), (x @ weight.t())[0], rtol=0, atol=0.03 * expected.max().item())
    assert layer(torch.zeros(2, 40, dtype=F64)).eq(0).all()  # no voltage, no current, no noise


def test_noise_of_reads_and_of_converters_add_up():
    pair, x = to_pair(numbers(3, 40)), torch.ones(20_000, 40, dtype=F64)
    sigma = (torch.full((3, 40), 1e-6, dtype=F64), torch.zeros(3, 40, dtype=F64))
    adc = ADC(None, bound=torch.inf, noise=0.04)
    found = Crossbar(pair, read_sigma=sigma, adc=adc, tile=(16, 8)).product(x, seeded(0))
    expected = (40 * (pair.scale * 1e-6) ** 2 + 3 * (0.04 * pair.scale * 40e-6) ** 2) ** 0.5  # three tiles
    assert found.std(0).tolist() == pytest.approx([expected] * 3, rel=0.03)


def test_error_grows_with_the_noise():
    trained, x = linear(100, 10), numbers(200, 100, seed=1)
    errors = []
    for sigma in (0.0, 0.5e-6, 1e-6, 2e-6, 4e-6):
        cell = Cell(programming=ProgrammingNoise(((sigma,),), 40e-6))
        errors.append((CrossbarLinear.from_linear(trained, cell=cell).eval()(x) - trained(x)).norm().item())
    assert errors[0] == pytest.approx(0, abs=1e-9)
    assert errors == sorted(errors)


# ---- gradients ------------------------------------------------------------------------------------------------------


def test_gradients_of_the_ideal_layer_are_those_of_finite_differences():
    x, w, b = (each.requires_grad_() for each in (numbers(2, 3, 5), numbers(4, 5, seed=1), numbers(4, seed=2)))
    layer = CrossbarLinear(5, 4, dtype=F64, adc=ADC(None, bound=torch.inf), tile=(2, 2))

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    for mode in (True, False):
        layer.train(mode)
        assert torch.autograd.gradcheck(call, (x, w, b))
        assert torch.autograd.gradgradcheck(call, (x, w, b))


@pytest.mark.parametrize("train", [True, False])
def test_gradients_go_straight_through_noise_converters_and_wires(train):
    trained, x = linear(), numbers(4, 70, seed=1).requires_grad_()
    layer = CrossbarLinear.from_linear(trained, **REAL).train(train)
    weights = numbers(4, 9, seed=2)
    noisy, exact = layer(x), trained(x)
    assert (noisy - exact).norm() > 0.01 * exact.norm()
    mine = torch.autograd.grad((noisy * weights).sum(), [x, *layer.parameters()])
    theirs = torch.autograd.grad((exact * weights).sum(), [x, *trained.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_product_passes_the_gradient_of_its_conductances():
    weight, x = numbers(9, 70), numbers(4, 70, seed=1)
    x[0] = 0  # no noise there
    x.requires_grad_()
    sigma = (torch.full((9, 70), 1e-6, dtype=F64), torch.zeros(9, 70, dtype=F64))
    crossbar = Crossbar(to_pair(weight), read_sigma=sigma, dac=DAC(8), adc=ADC(8, bound=100.0), tile=(32, 4))
    (grad,) = torch.autograd.grad(crossbar.product(x, seeded(0))[1:].sum(), x)
    torch.testing.assert_close(grad[1:], weight.sum(0).expand(3, 70))
    assert grad[0].eq(0).all()


def test_training_with_noise_makes_every_chip_better():
    truth, x = numbers(3, 20, dtype=torch.float32), numbers(256, 20, seed=1, dtype=torch.float32)
    layer = CrossbarLinear(20, 3, cell=HFOX, dac=DAC(8), adc=ADC(8), seed=5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    def loss() -> Tensor:
        return ((layer(x) - x @ truth.t()) ** 2).mean()

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    layer.eval()
    for seed in (5, 6, 7):
        layer.seed = seed
        assert loss().item() < 0.1 * first


# ---- a seed is a chip -----------------------------------------------------------------------------------------------


def made(seed: int = 0, **options: object) -> CrossbarLinear:
    return CrossbarLinear.from_linear(linear(), **{**REAL, "seed": seed, **options}).eval()


def test_a_chip_stays_and_its_reads_are_new():
    layer, x = made(), numbers(4, 70)
    weight = layer.programmed_weight()
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    assert torch.equal(weight, layer.programmed_weight())
    assert torch.equal(weight, made().programmed_weight())
    assert not torch.equal(weight, made(seed=1).programmed_weight())
    layer.restart()
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second)
    assert torch.equal(layer(x, seeded(3)), made()(x, seeded(3)))


def test_without_noise_of_reads_a_chip_repeats_itself():
    layer, x = made(cell=Cell(programming=HFOX.programming), adc=ADC(8)), numbers(4, 70)
    assert torch.equal(layer(x), layer(x))


def test_a_batch_in_parts_is_the_batch():
    x = numbers(11, 70)
    for options in ({}, {"adc": None}, {"dac": None}):
        whole, parts = made(**options), made(**options)
        found = torch.cat([parts(part) for part in x.split([1, 4, 6])])
        torch.testing.assert_close(found, whole(x))


def test_a_seed_gives_the_same_on_any_number_of_threads():
    before, found, x = torch.get_num_threads(), [], numbers(64, 300)
    trained = linear(300, 200)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer = CrossbarLinear.from_linear(trained, **REAL).eval()
            found.append((layer.programmed_weight(), layer(x)))
    finally:
        torch.set_num_threads(before)
    for weight, y in found[1:]:
        assert torch.equal(weight, found[0][0])
        torch.testing.assert_close(y, found[0][1])


def test_every_call_in_training_is_another_chip():
    layer, x = made(adc=None, cell=Cell(programming=HFOX.programming)).train(), numbers(4, 70)
    first, second = layer(x), layer(x)
    assert not torch.allclose(first, second)
    layer.restart()
    assert torch.equal(layer(x), first)


@pytest.mark.parametrize("how", ["step", "data", "replaced", "state_dict"])
def test_a_chip_is_written_again_when_the_weights_have_changed(how):
    layer, x = made(cell=Cell(), adc=None, dac=None, wire_resistance=0.0), numbers(4, 70)
    trained = linear(seed=1)
    layer(x)
    if how == "step":
        with torch.no_grad():
            layer.weight.add_(1.0)
            trained.weight.copy_(layer.weight)
            trained.bias.copy_(layer.bias)
    elif how == "state_dict":
        layer.load_state_dict(trained.state_dict())
    else:
        trained.bias.data.copy_(layer.bias)
        if how == "data":
            layer.weight.data.copy_(trained.weight)
        else:
            layer.weight = nn.Parameter(trained.weight.detach().clone())
    torch.testing.assert_close(layer(x), trained(x))


def test_writing_again_keeps_what_belongs_to_the_chip():
    layer = made(cell=Cell(stuck=HFO2_STUCK, programming=HFOX.programming))
    first, second = layer.program(), layer.program(cycle=1)
    assert first.stuck is not None and second.stuck is not None
    torch.testing.assert_close(first.stuck, second.stuck, equal_nan=True)
    assert not torch.equal(first.at(), second.at())
    assert torch.equal(first.at(), layer.program(cycle=0).at())
    assert first.target.shape == (2, 9, 70)


def test_age():
    layer, x = made(cell=PCM, adc=None), numbers(4, 70)
    norms = []
    for layer.age in (0.0, 3600.0, 86_400.0, 86_400.0 * 365):
        norms.append((layer.programmed_weight().norm().item(), layer(x).norm().item()))
    assert norms == sorted(norms, reverse=True)
    chip = layer.program()
    expected = chip.at(layer.age)[0] - chip.at(layer.age)[1]
    torch.testing.assert_close(layer.programmed_weight(), expected * layer.weight.abs().max() / 25e-6)
    with pytest.raises(ValueError, match="age"):
        layer.age = float("nan")


def test_arrays_for_many_products_in_a_row():
    layer, x = made(), numbers(4, 70)
    arrays = layer.crossbar()
    assert arrays is layer.crossbar()
    torch.testing.assert_close(arrays.product(x, seeded(0)) + layer.bias, layer(x, seeded(0)))
    layer.age = 60.0
    assert arrays is not layer.crossbar()


def test_a_layer_is_copied_and_saved_like_nn_linear():
    layer, x = made(), numbers(4, 70)
    layer(x)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(layer(x), other(x))
    assert list(layer.state_dict()) == ["weight", "bias"]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), layer(x))
    assert "adc=ADC(bits=8, bound=10.0, noise=0.04)" in repr(layer) and "seed=0" in repr(layer)
    frozen = linear().requires_grad_(False)
    assert not CrossbarLinear.from_linear(frozen).weight.requires_grad


# ---- wires ----------------------------------------------------------------------------------------------------------


def arrays(kind: str, rows: int, columns: int) -> Tensor:
    torch.manual_seed(rows)
    shape = (rows, columns)
    return (
        40e-6
        * {
            "full": torch.ones(shape, dtype=F64),
            "uniform": torch.rand(shape, dtype=F64),
            "sparse": (torch.rand(shape) < 0.3).to(F64),
            "graded": torch.rand(rows, 1, dtype=F64) * torch.rand(1, columns, dtype=F64),
        }[kind]
    )


@pytest.mark.parametrize("kind", ["full", "uniform", "sparse", "graded"])
@pytest.mark.parametrize("rows, columns", [(4, 4), (16, 16), (64, 64), (100, 100), (8, 48), (48, 8)])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_first_order_is_within_a_hundredth_of_the_nodal_solution_in_its_range(rows, columns, kind, share):
    conductance = arrays(kind, rows, columns)
    resistance = share * FIRST_ORDER / drop(conductance, 1.0).max().item()
    exact, found = ir_drop_nodal(conductance, resistance), ir_drop(conductance, resistance)
    assert (found - exact).abs().max() <= 0.01 * exact.max()
    for x in (torch.ones(1, rows, dtype=F64), numbers(20, rows).abs(), numbers(20, rows)):
        scale = (x.abs() @ exact).norm(dim=-1)  # without what cancels
        assert ((x @ (found - exact)).norm(dim=-1) <= 0.01 * scale).all()
    ideal_error = (x.abs() @ (conductance - exact)).norm(dim=-1)
    assert ((x @ (found - exact)).norm(dim=-1) < 0.15 * ideal_error).all()


def test_the_range_in_cells():
    assert (
        drop(torch.full((119, 119), 40e-6), 0.35).max() <= FIRST_ORDER < drop(torch.full((120, 120), 40e-6), 0.35).max()
    )


def test_to_first_order_the_error_is_of_second_order():
    conductance = arrays("uniform", 12, 9)
    errors = [(ir_drop(conductance, r) - ir_drop_nodal(conductance, r)).abs().max().item() for r in (8.0, 4.0, 2.0)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_nodal_solution_of_arrays_that_are_solved_by_hand():
    one = torch.tensor([[0.5]], dtype=F64)
    torch.testing.assert_close(ir_drop_nodal(one, 0.3), torch.tensor([[1 / (2 + 0.6)]], dtype=F64))
    # One row, two cells behind one another: node voltages u, v with conductances g to columns of one segment each.
    g, h, r = 0.5, 0.8, 0.3
    a, b = 1 / (1 / g + r), 1 / (1 / h + r)
    v_over_u = 1 / (1 + r * b)
    u = 1 / (1 + r * (a + b * v_over_u))
    expected = torch.tensor([[a * u, b * u * v_over_u]], dtype=F64)
    torch.testing.assert_close(ir_drop_nodal(torch.tensor([[g, h]], dtype=F64), r), expected)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 100), st.floats(1e-3, 1e4))
def test_nodal_solution_obeys_reciprocity_and_conserves_current(rows, columns, seed, resistance):
    conductance = 40e-6 * torch.rand(rows, columns, generator=seeded(seed), dtype=F64)
    exact = ir_drop_nodal(conductance, resistance)
    torch.testing.assert_close(ir_drop_nodal(conductance.t(), resistance), exact.t(), rtol=1e-6, atol=1e-15)
    assert (exact > 0).all()
    assert exact.sum() <= conductance.sum() * (1 + 1e-9)
    torch.testing.assert_close(ir_drop(conductance.t(), resistance), ir_drop(conductance, resistance).t())


def test_without_resistance_nothing_drops():
    conductance = arrays("uniform", 5, 6)
    assert torch.equal(ir_drop(conductance, 0.0), conductance)
    assert torch.equal(ir_drop_nodal(conductance, 0.0), conductance)


def test_unused_cells_of_an_array_change_nothing():
    conductance = arrays("uniform", 5, 6)
    larger = torch.nn.functional.pad(conductance, (0, 3, 0, 4))
    torch.testing.assert_close(ir_drop(larger, 10.0)[:5, :6], ir_drop(conductance, 10.0))
    torch.testing.assert_close(ir_drop_nodal(larger, 10.0)[:5, :6], ir_drop_nodal(conductance, 10.0))


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
