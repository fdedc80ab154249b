"""Trained models on resistive arrays: the same where the cells are ideal, one chip a seed, what noise and age do, errors."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from helpers import F64, random_events
from torch import Tensor, nn
from torch.nn.utils import prune

from eventnet import EGRU, LI, LIF, EGRUCell, Events
from eventnet.hardware import compile
from eventnet.hardware.resistive import (
    ADC,
    DAC,
    HFO2_STUCK,
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
from eventnet.hardware.trained import reading_of, scores_of
from eventnet.training.build import build
from eventnet.training.recipes import find

IDEAL = Cell()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


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


@pytest.mark.parametrize("name", ["digits", "ecg_recurrent", "nmnist_egru", "row_mnist"])
def test_networks_of_recipes_on_ideal_cells_say_the_same(name):
    torch.manual_seed(0)
    model, x = build(find(name).changed(hidden=(12,)), 6, 3).eval(), events()
    x = dataclasses.replace(x, times=x.times.float(), duration=x.duration.float())
    placed = compile(model, "resistive", cell=IDEAL)
    torch.testing.assert_close(placed.run(x), scores_of(model, reading_of(model)[0], x), rtol=1e-5, atol=1e-5)
    noisy = compile(model, "resistive", cell=HFOX)
    assert "readout.weight" in noisy.arrays and noisy.predict(x).shape == placed.predict(x).shape


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
    assert tiled.report().arrays["weight"].error < b.report().arrays["weight"].error


def test_a_chip_ages_and_goes_back():
    model = spiking()
    placed = place(model, cell=HFOX)
    fresh = copy.deepcopy(placed.model.state_dict())
    error = placed.report().arrays["0.weight"].error
    placed.age = 86_400.0
    assert placed.age == 86_400.0 and placed.report().arrays["0.weight"].error > error
    torch.testing.assert_close(
        place(model, cell=HFOX, age=86_400.0).model.state_dict(), placed.model.state_dict(), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match="measured up to"):
        placed.age = 1e9
    assert placed.age == 86_400.0
    placed.age = 0.0
    torch.testing.assert_close(placed.model.state_dict(), fresh, rtol=0, atol=0)


def test_masked_synapses_have_cells_too():
    mask = torch.rand(6, 20) < 0.5
    model = spiking(mask=mask)
    torch.testing.assert_close(
        place(model, cell=IDEAL).run(events()), model(events()).max().detach(), rtol=1e-6, atol=1e-6
    )
    noisy = place(model, cell=HFOX)
    assert noisy.model[0].mask is None and noisy.model[0].weight[~mask].abs().max() > 0
    assert model[0].mask is mask or torch.equal(model[0].mask, mask)


# ---- reports --------------------------------------------------------------------------------------------------------


def test_a_report_counts_cells_and_arrays():
    placed = place(nn.Sequential(nn.Linear(200, 130), nn.Linear(130, 10)), cell=Cell(stuck=HFO2_STUCK), tile=(128, 64))
    report = placed.report()
    assert [each.cells for each in report.arrays.values()] == [2 * 200 * 130, 2 * 130 * 10]
    assert [each.arrays for each in report.arrays.values()] == [2 * 2 * 3, 2 * 2 * 1]
    assert report.cells == 54_600 and report.tiles == 16
    assert report.arrays["0.weight"].filled == pytest.approx(52_000 / (12 * 128 * 64))
    assert report.stuck == pytest.approx(0.1079, abs=0.005)
    assert "54,600" in str(report) and report.to_dict()["arrays"]["1.weight"]["cells"] == 2600


def test_notes_say_what_is_and_what_is_not_modelled():
    told = " ".join(compile(gated(), "resistive", cell=HFOX, dac=DAC(8), adc=ADC(8), wire_resistance=0.1).notes)
    for words in ("programming noise", "IR drop", "read noise, DAC, ADC", "not modelled: read noise and converters"):
        assert words in told
    assert "not modelled" not in " ".join(compile(spiking(), "resistive", cell=IDEAL).notes)
    assert "nn.Linear" not in " ".join(compile(spiking(), "resistive").notes)


# ---- errors ---------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(3, 3), "weight", amount=0.5)


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
        (lambda: compile(spiking(), "restive"), ValueError, "expected one of loihi, resistive"),
        (
            lambda: place(nn.Sequential(nn.GRU(2, 3))),
            TypeError,
            "0: a GRU has weights \\(weight_ih_l0, weight_hh_l0\\)",
        ),
        (lambda: place(nn.Conv2d(1, 2, 3)), TypeError, "model: a Conv2d"),
        (lambda: place(nn.ReLU()), ValueError, "at least one layer"),
        (lambda: place(Tied()), ValueError, "b.weight: shared with a.weight"),
        (lambda: place(build(find("characters").changed(hidden=(4,)), 3, 3)), ValueError, "\\(tied\\)"),
        (lambda: place(pruned()), ValueError, "weight: pruned or parametrized"),
        (lambda: place(spiking(), age=-1.0), ValueError, "age"),
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
