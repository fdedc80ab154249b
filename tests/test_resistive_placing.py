"""Trained models on resistive arrays: the same where the cells are ideal, one chip a seed, what noise and age do, errors."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from helpers import random_events
from resistive_cases import F64, numbers, on_every_device
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, EGRUCell, Events
from eventnet.hardware import compile
from eventnet.hardware.reading import Reading
from eventnet.hardware.resistive import (
    ADC,
    HFOX,
    PCM,
    Cell,
    CrossbarLinear,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
    place,
)
from eventnet.hardware.trained import reading_of
from eventnet.training.build import build
from eventnet.training.network import Network
from eventnet.training.recipes import find

IDEAL = Cell()


def spiking(recurrent: bool = True, dtype: torch.dtype = F64, **options: object) -> nn.Sequential:
    """Two layers that fire, and a readout."""
    torch.manual_seed(1)
    layers = [LIF(6, 20, recurrent=recurrent, dtype=dtype, **options), LIF(20, 10, dtype=dtype), LI(10, 3, dtype=dtype)]
    with torch.no_grad():
        for layer in layers[:2]:
            layer.weight.mul_(8.0).abs_()
    return nn.Sequential(*layers)


def gated(**options: object) -> list[nn.Module]:
    torch.manual_seed(2)
    units = EGRU(6, 16, step=5e-3, dtype=F64, **options)
    with torch.no_grad():
        for name, each in units.named_parameters():
            if name.startswith("threshold"):
                each.mul_(0.1)
    return [units, nn.Linear(16, 3, dtype=F64)]


def events(seed: int = 0) -> Events:
    return random_events(torch.Generator().manual_seed(seed), [30, 20, 40, 25], 6, duration=0.1)


def off(placed: nn.Module, model: nn.Module) -> float:
    """Root mean square of what the weights are off, relative."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(placed.parameters(), model.parameters(), strict=True)]
    return (
        sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(b.square().sum()) for _, b in pairs)
    ) ** 0.5


# ---- ideal cells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_spiking_layers_on_ideal_cells_say_the_same(recurrent, dtype):
    model, x = spiking(recurrent, dtype), events()
    placed = compile(model, "resistive", cell=IDEAL)
    assert model[0](x).num_events > 20 and model[1](model[0](x)).num_events > 5
    torch.testing.assert_close(placed.run(x), model(x).max(), rtol=1e-6, atol=1e-6 if dtype is F64 else 1e-4)
    torch.testing.assert_close(placed(x).mean(), model(x).mean(), rtol=1e-6, atol=1e-6 if dtype is F64 else 1e-4)
    assert placed(x).max().requires_grad is False


@pytest.mark.parametrize("kind", ["last", "mean"])
def test_gated_units_and_their_readout_on_ideal_cells_say_the_same(kind):
    model, x = gated(), events()
    placed = compile(model, "resistive", cell=IDEAL, reading=kind)
    output, _ = model[0](x)
    assert 0.05 < (output != 0).double().mean() < 0.95
    found = output[-1] if kind == "last" else output.mean(0)
    torch.testing.assert_close(placed.run(x), model[1](found).detach(), rtol=1e-6, atol=1e-6)
    assert placed.predict(x).shape == (4,)


def test_gated_scores_come_from_the_crossbars_of_the_readout():
    model, x = gated(), events()
    placed = place(model, cell=Cell(read=ReadNoise(0.2)))
    assert not torch.equal(placed.run(x), placed.run(x))  # each product has new noise
    assert torch.equal(place(model, cell=HFOX).run(x), place(model, cell=HFOX).run(x))


def test_linear_layers_on_ideal_cells_say_the_same():
    model = nn.Sequential(nn.Linear(150, 40, dtype=F64), nn.ReLU(), nn.Linear(40, 7, bias=False, dtype=F64))
    placed = compile(model, "resistive", cell=IDEAL)
    x = numbers(5, 150)
    torch.testing.assert_close(placed(x), model(x).detach(), rtol=1e-6, atol=1e-6)
    assert isinstance(placed.model[0], CrossbarLinear)
    alone = place(nn.Linear(3, 2, dtype=F64), cell=IDEAL)
    assert isinstance(alone.model, CrossbarLinear) and alone.report().cells == 12


def test_cells_and_stacks_of_gated_units_are_placed():
    model = nn.ModuleList([EGRUCell(4, 5), EGRU(4, 5, num_layers=2, bidirectional=True)])
    placed = place(model, cell=IDEAL)
    assert len(placed.arrays) == 2 + 8
    assert off(placed.model, model) < 1e-6
    x = torch.randn(7, 2, 4)
    torch.testing.assert_close(placed.model[1](x)[0], model[1](x)[0], rtol=1e-5, atol=1e-5)


def test_the_network_of_a_module_of_ones_own_is_placed_where_it_is():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Linear(6, 6)
            self.again = self.same

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.same(x))

    placed = place(Own(), cell=HFOX)
    assert placed.model.same is placed.model.again and list(placed.arrays) == ["same.weight"]


# ---- networks of recipes --------------------------------------------------------------------------------------------

SPIKING = ["digits", "yinyang", "ecg_recurrent", "fsdd_delays", "shd"]
GATED = ["row_mnist", "nmnist_egru", "ecg_egru", "mackey_glass"]


def network(name: str, **changes: object) -> Network:
    """That of a recipe with 12 hidden units, which fire."""
    model = build(find(name).changed(hidden=(12,), **changes), 6, 3).double().eval()
    with torch.no_grad():
        for key, each in model.named_parameters():
            if key.rpartition(".")[2] in ("weight", "recurrent_weight") and name in SPIKING:
                each.copy_(
                    2.0 * torch.rand(each.shape, generator=torch.Generator().manual_seed(len(key)), dtype=F64) - 0.4
                )
            if key.startswith("direct"):
                each.copy_(numbers(*each.shape))
            if ".threshold" in key and name in GATED:
                each.mul_(0.1)
    return model


@pytest.mark.parametrize("name", [*SPIKING, *GATED])
def test_networks_of_recipes_on_ideal_cells_say_the_same(name):
    model, x = network(name), events()
    expected = model(x).scores.detach()
    assert torch.isfinite(expected).sum() >= 9 and expected.unique().numel() >= 10
    placed = compile(model, "resistive", cell=IDEAL)
    torch.testing.assert_close(placed.run(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(placed(x).scores, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(placed.predict(x), reading_of(model)[0].predict(expected))
    noisy = compile(model, "resistive", cell=HFOX)
    assert "readout.weight" in noisy.arrays and not torch.equal(noisy.run(x), expected)


@pytest.mark.parametrize("name", [each for each in SPIKING if each != "yinyang"])
def test_spiking_networks_are_read_as_is_wanted(name):
    model, x = network(name), events()
    voltage = model.readout(model.hidden_spikes(x)[-1])
    wanted = {
        "max": voltage.max(),
        "mean": voltage.mean(),
        "integral": voltage.integral(),
        Reading("at", step=0.02): voltage.at(torch.arange(1, 6, dtype=F64) * 0.02),
    }
    for reading, expected in wanted.items():
        found = compile(model, "resistive", cell=IDEAL, reading=reading).run(x)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name, changes", [("row_mnist", {}), ("nmnist_egru", {}), ("nmnist_egru", {"embedding": 4})])
def test_gated_networks_are_read_as_is_wanted(name, changes):
    model, x = network(name, **changes), events()
    with torch.no_grad():
        told, _ = model.hidden(model.dense(x))
        wanted = {"last": told[-1], "mean": told.mean(0), "at": told.transpose(0, 1)}
        for reading, expected in wanted.items():
            placed = compile(model, "resistive", cell=IDEAL, reading=reading)
            torch.testing.assert_close(placed.run(x), model.readout(expected), rtol=1e-6, atol=1e-6)
            assert placed.predict(x).shape == expected.shape[:-1]
            assert placed.model.recipe == model.recipe  # only read in another way
            noisy = place(model, cell=Cell(read=ReadNoise(0.2)), reading=reading)
            assert not torch.equal(noisy.run(x), noisy.run(x))  # the products of its readout are those of arrays


def test_samples_of_a_gated_network_that_end_earlier_are_read_at_their_end():
    model, x = network("nmnist_egru"), events()
    short = dataclasses.replace(x.crop(0, 0.05), duration=torch.tensor([0.1, 0.05, 0.08, 0.06], dtype=F64))
    for reading in ("last", "mean"):
        placed = compile(model, "resistive", cell=IDEAL, reading=reading)
        alone = torch.cat([placed.run(short[k]) for k in range(4)])
        torch.testing.assert_close(placed.run(short), alone, rtol=1e-6, atol=1e-6)


def test_what_is_read_draws_no_random_numbers():
    model, x = gated(), events()
    placed = compile(model, "resistive", cell=HFOX, reading="mean")
    state = torch.get_rng_state()
    placed.run(x)
    assert torch.equal(torch.get_rng_state(), state)


# ---- other modules --------------------------------------------------------------------------------------------------


def test_what_is_no_matrix_stays_digital_and_exact():
    model = nn.Sequential(
        nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Dropout(), nn.LayerNorm(20), nn.Linear(20, 3)
    )
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    model(x)  # moves the means of the normalisation
    placed = place(model, cell=IDEAL)
    assert list(placed.arrays) == ["0.weight", "5.weight"]
    torch.testing.assert_close(placed(x), model.eval()(x).detach(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(place(model, cell=HFOX)(x), model(x).detach(), atol=1e-3)


def test_layers_of_a_larger_module_are_placed_and_called_as_they_are():
    class Two(nn.Module):
        """Spikes and gated units side by side, and what reads both."""

        def __init__(self) -> None:
            super().__init__()
            self.spiking, self.units = spiking()[0], gated()[0]
            self.both = nn.Linear(36, 2, dtype=F64)

        def forward(self, x: Events) -> Tensor:
            told, _ = self.units(x.to_dense(5e-3))
            return self.both(torch.cat([self.spiking(x).counts().to(F64), told[-1]], 1))

    torch.manual_seed(0)
    model, x = Two(), events()
    placed = compile(model, "resistive", cell=IDEAL)
    assert set(placed.arrays) == {
        "spiking.weight", "spiking.recurrent_weight", "units.weight_ih_l0", "units.weight_hh_l0", "both.weight",
    }  # fmt: skip
    torch.testing.assert_close(placed(x), model(x).detach(), rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match=r"Two: expected, for scores .* call the deployment as you call the model"):
        placed.run(x)


# ---- chips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [spiking, lambda: nn.Sequential(*gated())])
def test_a_seed_is_a_chip(make):
    model = make()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    one, same, other = (place(model, cell=PCM, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for name, arrays in one.arrays.items():
        weights = [each.arrays[name].crossbar().effective_weight() for each in (one, same, other)]
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
        assert arrays.weight.data_ptr() not in [each.data_ptr() for each in model.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(each.requires_grad for name, each in model.named_parameters() if "weight" in name)
    assert len({each.seed for each in one.arrays.values()}) == len(one.arrays)  # no two matrices share their noise


@pytest.mark.parametrize("make", [spiking, gated])
def test_a_chip_says_the_same_on_any_number_of_threads(make):
    model, x, before, found = make(), events(), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            placed = compile(model, "resistive", cell=PCM, adc=ADC(8), wire_resistance=0.35, seed=2, age=3600.0)
            found.append(placed.run(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@on_every_device
def test_a_model_is_placed_where_it_is(device):
    layers = [LIF(6, 20, backend="reference", dtype=F64), LI(20, 3, backend="reference", dtype=F64)]
    with torch.no_grad():
        layers[0].weight.abs_().mul_(8.0)
    model, x = nn.Sequential(*layers), events()
    other = nn.Sequential(nn.Linear(150, 40, dtype=F64), nn.Linear(40, 7, dtype=F64))
    wanted = [place(each, cell=PCM, age=60.0, compensate_drift=True) for each in (model, other)]
    found = [place(each.to(device), cell=PCM, age=60.0, compensate_drift=True) for each in (model, other)]
    torch.testing.assert_close(found[0].run(x.to(device)).cpu(), wanted[0].run(x))
    torch.testing.assert_close(found[1](numbers(5, 150).to(device)).cpu(), wanted[1](numbers(5, 150)))
    assert found[0].report().matrices["0.weight"].error == pytest.approx(wanted[0].report().matrices["0.weight"].error)


def test_more_noise_is_further_off_on_average():
    model, found = spiking(), []
    for sigma in (0.0, 0.5e-6, 1e-6, 2e-6, 4e-6):
        cell = Cell(programming=ProgrammingNoise(((sigma,),), reference=40e-6))
        found.append(sum(off(place(model, cell=cell, seed=seed).model[0], model[0]) for seed in range(4)) / 4)
    assert found[0] < 1e-9 and found == sorted(found) and len(set(found)) == 5
    # sigma of both cells against k: half of the noise of the cell at 0 is cut off there
    scores = [
        (place(model, cell=Cell(spread=Spread(s)), seed=1).run(events()) - model(events()).max()).abs().mean()
        for s in (0.01, 0.3)
    ]
    assert scores[0] < scores[1]


def test_the_weights_are_those_of_the_cells():
    model = nn.Sequential(LIF(5, 4, recurrent=True, dtype=F64))
    placed = place(model, cell=Cell(levels=3), tile=(2, 2))
    scale = model[0].weight.abs().max()
    torch.testing.assert_close(placed.model[0].weight, (2 * model[0].weight.detach() / scale).round() / 2 * scale)
    stuck = place(model, cell=Cell(stuck=Stuck(off=1.0)))
    assert stuck.model[0].weight.eq(0).all() and stuck.model[0].recurrent_weight.eq(0).all()
    assert stuck.report().stuck == 1.0


def test_wires_lower_the_weights_the_same_for_events_and_products():
    weight = numbers(60, 50).abs()
    layer, linear = LIF(50, 60, dtype=F64), nn.Linear(50, 60, bias=False, dtype=F64)
    with torch.no_grad():
        layer.weight.copy_(weight.t())
        linear.weight.copy_(weight)
    a, b = (place(each, cell=IDEAL, wire_resistance=1.0) for each in (layer, linear))
    torch.testing.assert_close(a.model.weight.t(), b.model.crossbar().effective_weight())
    torch.testing.assert_close(b(torch.eye(50, dtype=F64)), a.model.weight)
    ratio = a.model.weight / layer.weight
    assert ratio.max() <= 1 and ratio[-1, -1] < ratio[0, 0] < 1
    tiled = place(linear, cell=IDEAL, wire_resistance=1.0, adc=ADC(bits=None, bound=1e9), tile=(16, 16))
    assert tiled.arrays["weight"].crossbar().effective_weight().shape == (60, 50)
    assert tiled.report().matrices["weight"].error < b.report().matrices["weight"].error


def test_a_chip_ages_and_goes_back():
    model = spiking()
    placed = place(model, cell=HFOX)
    fresh = copy.deepcopy(placed.model.state_dict())
    error = placed.report().matrices["0.weight"].error
    placed.age = 86_400.0
    assert placed.age == 86_400.0 and placed.report().matrices["0.weight"].error > error
    torch.testing.assert_close(
        place(model, cell=HFOX, age=86_400.0).model.state_dict(), placed.model.state_dict(), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match="measured up to"):
        placed.age = 1e9
    assert placed.age == 86_400.0
    placed.age = 0.0
    torch.testing.assert_close(placed.model.state_dict(), fresh, rtol=0, atol=0)


@pytest.mark.parametrize(
    "option, value",
    [
        ("cell", PCM),
        ("age", 60.0),
        ("tile", (16, 16)),
        ("seed", 5),
        ("wire_resistance", 1.0),
        ("compensate_drift", True),
    ],
)
def test_arrays_of_events_hold_what_was_placed(option, value):
    """Their weights are copies: a report of other arrays than the layer's would be wrong."""
    model, x = spiking(), events()
    placed = place(model, cell=HFOX)
    before, told = str(placed.report()), placed.run(x)
    for name in ("0.weight", "1.weight"):
        with pytest.raises(AttributeError, match=f"{option}: a layer of events has .* place the model again"):
            setattr(placed.arrays[name], option, value)
    with pytest.raises(AttributeError, match="cycle: a layer of events"):
        placed.arrays["0.weight"].program(cycle=1)
    assert str(placed.report()) == before and torch.equal(placed.run(x), told)
    again = copy.deepcopy(placed)
    again.age = 3600.0
    assert str(placed.report()) == before and not torch.equal(again.run(x), told)


def test_arrays_of_products_are_the_layer():
    placed = place(nn.Linear(30, 20), cell=IDEAL)
    x, error = numbers(4, 30, dtype=torch.float32), placed.report().matrices["weight"].error
    told = placed(x)
    placed.arrays["weight"].cell = Cell(spread=Spread(0.2))
    assert placed.report().matrices["weight"].error > error + 0.1 and not torch.allclose(placed(x), told)


def test_masked_synapses_have_cells_too():
    mask = torch.rand(6, 20) < 0.5
    model = spiking(mask=mask)
    torch.testing.assert_close(
        place(model, cell=IDEAL).run(events()), model(events()).max().detach(), rtol=1e-6, atol=1e-6
    )
    noisy = place(model, cell=HFOX)
    assert noisy.model[0].mask is None and noisy.model[0].weight[~mask].abs().max() > 0
    assert model[0].mask is mask or torch.equal(model[0].mask, mask)


# ---- errors ---------------------------------------------------------------------------------------------------------


def filled(layer: nn.Linear, value: float) -> nn.Linear:
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize(
    "call, error, says",
    [
        (
            lambda: compile(spiking(), "resistive", dt=1e-3),
            TypeError,
            "resistive has no option 'dt'; dt is one of loihi",
        ),
        (lambda: compile(spiking(), "resistive", sed=1), TypeError, "'sed' \\(did you mean 'seed'"),
        (lambda: compile(spiking(), calibration=events(), cell=HFOX), TypeError, "cell is one of resistive"),
        (lambda: compile(spiking()), TypeError, "loihi needs calibration"),
        (lambda: place(nn.Sequential(nn.GRU(2, 3))), TypeError, "0: a GRU has weights"),
        (lambda: compile(spiking(), "restive"), ValueError, "expected one of loihi, resistive"),
        (lambda: place(network("mackey_glass"), reading="mean"), ValueError, "direct: expected readout=each"),
        (lambda: place(network("row_mnist"), reading="max"), ValueError, "'max' of EGRU outputs: expected last"),
        (lambda: place(spiking(), reading="last"), ValueError, "'last' of LI outputs: expected max"),
        (lambda: place(nn.Linear(2, 2), reading="max"), TypeError, "Linear: expected, for scores .* a chain"),
        (lambda: place(spiking(), age=-1.0), ValueError, "age"),
        (lambda: place(nn.Linear(2, 2), age=1e9), ValueError, "measured up to"),
        (lambda: place(nn.Linear(2, 2), tile=(0, 3)), ValueError, "tile"),
        (lambda: place(spiking(), tile=128), ValueError, r"tile: expected \(rows, columns\) .* got 128"),
        (lambda: place(spiking(), adc=8), TypeError, r"adc: expected ADC\(bits=8\) .*, got 8"),
        (lambda: compile(nn.Linear(2, 2), "resistive", dac=8), TypeError, r"dac: expected DAC\(bits=8\) .*, got 8"),
        (lambda: compile(spiking(), "resistive", cell=None), TypeError, "cell: expected a Cell, .* got None"),
        (lambda: place(spiking(), cell="hfox"), TypeError, "cell: expected a Cell, .* got 'hfox'"),
        (lambda: place(filled(nn.Linear(2, 2), torch.inf)), ValueError, "finite weights"),
        (lambda: place(filled(nn.Linear(2, 2), torch.nan)), ValueError, "finite weights"),
        (lambda: place(spiking(), seed=-1), ValueError, "seeds >= 0"),
        (lambda: place(spiking(), tile=(0, 3)).model, ValueError, "tile"),
        (lambda: place(nn.Linear(2, 2)).run(events()), TypeError, "chain"),
    ],
)
def test_errors_say_what_came(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_calibration_is_not_needed():
    model, x = spiking(), events()
    one, two = compile(model, "resistive"), compile(model, "resistive", calibration=x)
    assert torch.equal(one.run(x), two.run(x))
