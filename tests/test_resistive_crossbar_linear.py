"""CrossbarLinear: nn.Linear where everything is ideal, gradients, training with noise, a seed is a chip."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from resistive_cases import F64, linear, numbers, on_every_device
from torch import Tensor, nn

from eventnet.hardware.resistive import (
    ADC,
    DAC,
    HFOX,
    PCM,
    Cell,
    Crossbar,
    CrossbarLinear,
    ProgrammingNoise,
    ReadNoise,
    seeded,
    to_pair,
)
from eventnet.hardware.resistive.effects import HFO2_STUCK

REAL = {"cell": HFOX, "dac": DAC(8), "adc": ADC(8, noise=0.04), "wire_resistance": 0.35, "tile": (32, 32)}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("tile", [None, (64, 64), (256, 256), (7, 3)])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_ideal_is_nn_linear(leading, tile, dtype):
    x, trained = numbers(*leading, 70, dtype=dtype), linear(dtype=dtype)
    every = {"tile": tile, "dac": DAC(None), "adc": ADC(None, bound=torch.inf)}  # through all tiles
    x = x * (torch.arange(70) < 60 * (numbers(*leading, 1) > 0))  # some inputs are 0, and some rows all
    for options in ({"tile": tile}, every, {"cell": Cell(g_min=2e-6)}):
        layer = CrossbarLinear.from_linear(trained, **options)
        for mode in (layer.train(), layer.eval()):
            torch.testing.assert_close(mode(x), trained(x), rtol=0, atol=1e-6)


def test_errors_say_what_came():
    for options, error, says in [
        ({"cell": None}, TypeError, "cell: expected a Cell, .* got None"),
        ({"adc": 8}, TypeError, r"adc: expected ADC\(bits=8\) .* got 8"),
        ({"dac": "8"}, TypeError, r"dac: expected DAC\(bits=8\) .* got '8'"),
        ({"tile": 64}, ValueError, r"tile: expected \(rows, columns\) .* got 64"),
        ({"age": -1.0}, ValueError, "age: expected seconds"),
    ]:
        with pytest.raises(error, match=says):
            CrossbarLinear(3, 2, **options)
    layer = CrossbarLinear(3, 2).eval()
    layer.adc = 8
    with pytest.raises(TypeError, match=r"adc: expected ADC\(bits=8\) .* got 8"):
        layer(torch.ones(3))


def test_a_layer_of_another_draws_no_random_numbers():
    trained = linear()
    state = torch.get_rng_state()
    CrossbarLinear.from_linear(trained, **REAL)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_bias_and_without_inputs():
    trained = linear(5, 3, bias=False)
    assert CrossbarLinear.from_linear(trained).bias is None
    assert Crossbar(to_pair(torch.zeros(3, 0)), adc=ADC(8)).product(torch.ones(2, 0)).shape == (2, 3)
    zero = CrossbarLinear(5, 3, bias=False, dac=DAC(8), adc=ADC(8))
    nn.init.zeros_(zero.weight)
    assert zero(torch.ones(2, 5)).eq(0).all() and zero(torch.zeros(2, 5)).eq(0).all()


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


def test_error_grows_with_the_noise():
    trained, x = linear(100, 10), numbers(200, 100, seed=1)
    errors = []
    for sigma in (0.0, 0.5e-6, 1e-6, 2e-6, 4e-6):
        cell = Cell(programming=ProgrammingNoise(((sigma,),), 40e-6))
        errors.append((CrossbarLinear.from_linear(trained, cell=cell).eval()(x) - trained(x)).norm().item())
    assert errors[0] == pytest.approx(0, abs=1e-9)
    assert errors == sorted(errors)


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
    with pytest.raises(ValueError, match="age"):
        CrossbarLinear(2, 2, age=-1.0)


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


@on_every_device
def test_a_layer_is_the_same_chip_on_any_device(device):
    x, here = numbers(11, 70), made(cell=PCM, compensate_drift=True, age=60.0)
    there = copy.deepcopy(here).to(device)
    torch.testing.assert_close(there(x.to(device)).cpu(), here(x))
    for layer in (here.train(), there.train()):
        layer.restart()
    torch.testing.assert_close(there(x.to(device)).cpu(), here(x))
    there(x.to(device)).sum().backward()
    assert there.weight.grad.device.type == device
