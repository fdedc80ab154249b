"""Diagnoses: the numbers of a call, against the voltage itself."""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from helpers import on_both_backends
from test_recurrent import as_events
from test_recurrent import draw as draw_network
from torch import nn

from eventnet import LIF, Events, PlateauLIF, diagnose, diagnosing

draw = cache(draw_network)  # it looks for a network that spikes well


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", [{}, {"recurrent": True}, {"delay": (0.0, 5e-3)}, {"refractory": 1e-3}])
def test_slopes_are_those_of_the_voltage(kind, backend):
    torch.manual_seed(0)
    tau_mem = torch.linspace(10e-3, 30e-3, 5, dtype=torch.float64)
    layer = LIF(4, 5, tau_mem=tau_mem, bias=0.1, backend=backend, dtype=torch.float64, **kind)
    with torch.no_grad():
        layer.weight.mul_(4)
    events = as_events(draw(0)[1], 4)[0]
    found, spikes = diagnose(layer, events), layer(events)
    assert (found.events, found.spikes) == (events.num_events, spikes.num_events) and found.spikes > 5
    assert found.silent_share == pytest.approx((spikes.counts() == 0).double().mean().item())
    assert found.smallest_slope == found.slopes.min().item() > 0
    # a push of the threshold delays a spike by push / slope: dt_k / dthreshold = 1 / slope, for each neuron's first spike
    first = spikes.first_times().detach()
    push = 1e-7
    with torch.no_grad():
        layer.threshold.add_(push)
    moved = layer(events).first_times().detach() - first
    order = {}
    for t, n, b, slope in zip(spikes.times, spikes.units, spikes.samples, found.slopes, strict=True):
        order.setdefault((int(b), int(n)), (t, slope))
    alone = [(b, n) for b, n in order if not kind.get("recurrent")]
    for b, n in alone:
        assert moved[b, n].item() == pytest.approx(push / order[b, n][1].item(), rel=1e-4)


def stacked(backend: str) -> nn.Sequential:
    torch.manual_seed(0)
    options = dict(backend=backend, slope_floor=90.0, dtype=torch.float64)
    model = nn.Sequential(LIF(4, 6, **options), LIF(6, 5, recurrent=True, delay=(0.0, 3e-3), **options))
    with torch.no_grad():
        for layer in model:
            layer.weight.abs_().mul_(6)
    return model


@on_both_backends
def test_what_a_run_tells_is_what_diagnose_says(backend):
    model = stacked(backend)
    events = as_events(draw(0)[1], 4)[0]
    with diagnosing(model) as found:
        spikes = model(events)
    assert spikes.times.requires_grad and list(found) == ["0", "1"]
    for name, layer, given in (("0", model[0], events), ("1", model[1], model[0](events))):
        expected = diagnose(layer, given)
        assert found[name].slopes.equal(expected.slopes) and not found[name].slopes.requires_grad
        assert {**vars(found[name]), "slopes": None} == {**vars(expected), "slopes": None}
        assert found[name].floored == int((expected.slopes < 90.0).sum()) and 0 < found[name].floored < expected.spikes
    assert found["1"].events == found["0"].spikes


@on_both_backends
def test_of_each_layer_the_last_call_counts_and_a_state_goes_on(backend):
    layer, events = stacked(backend)[1], as_events(draw(0)[1], 6)[0]
    whole = diagnose(layer, events)
    with diagnosing(layer) as found:
        first, state = layer(events.crop(0.0, 0.03), return_state=True)
        assert found[""].spikes == first.num_events
        second, _ = layer(events.crop(0.03, 0.08), state=state, return_state=True)
    assert found[""].spikes == second.num_events == whole.spikes - first.num_events
    assert found[""].events == events.crop(0.03, 0.08).num_events


def test_diagnosing_ends_with_its_block():
    model, events = stacked("auto"), as_events(draw(0)[1], 4)[0]
    with pytest.raises(KeyError, match="stop"), diagnosing(model) as outer:
        with diagnosing(model[0]) as inner:
            model(events)
        assert inner[""].spikes == outer["0"].spikes
        raise KeyError("stop")
    assert not any(layer.watchers for layer in model)
    outer.clear(), inner.clear()
    model(events)
    assert not outer and not inner


def test_silence_has_no_slope():
    found = diagnose(LIF(2, 3), Events.from_list([([], []), ([], [])], num_units=2, duration=0.1))
    assert (found.spikes, found.silent_share, found.smallest_slope, found.floored) == (0, 1.0, math.inf, 0)


def test_empty_batch():
    found = diagnose(LIF(2, 3), Events.from_list([], num_units=2, duration=0.1))
    assert (found.events, found.spikes, found.silent_share) == (0, 0, 0.0)


def test_diagnose_wants_a_layer():
    with pytest.raises(TypeError, match="expected a LIF or PlateauLIF layer, got Sequential; diagnosing"):
        diagnose(nn.Sequential(LIF(2, 2)), Events.from_list([([], [])], num_units=2, duration=0.1))


@pytest.mark.parametrize("kind", [LIF, PlateauLIF])
def test_a_copy_made_meanwhile_is_not_watched(kind):
    layer, events = kind(2, 2), Events.from_list([([], [])], num_units=2, duration=0.1)
    with diagnosing(layer) as found:
        copied = copy.deepcopy(layer)
        copied(events)
        assert not found
        layer(events)
    assert found and not any(name.endswith("watchers") for name in vars(copied))


@on_both_backends
def test_plateaus_are_told_of_as_branches_and_as_neurons(backend):
    torch.manual_seed(0)
    layer = PlateauLIF(4, 3, branch_threshold=0.6, jump=2.0, bias=0.1, backend=backend, dtype=torch.float64)
    torch.nn.init.uniform_(layer.weight, 0.2, 1.5)
    events = as_events(draw(0)[1], 4)[0]
    with diagnosing(nn.Sequential(layer)) as found:
        spikes, dendritic = layer(events, return_branches=True)
    assert set(found) == {"0", "0.branches"} and diagnose(layer, events).slopes.equal(found["0"].slopes)
    assert found["0.branches"].events == events.num_events
    assert found["0.branches"].spikes == found["0"].events == dendritic.num_events > 5
    assert found["0"].spikes == spikes.num_events > 5
    for name, told in (("0", spikes), ("0.branches", dendritic)):
        assert found[name].silent_share == pytest.approx((told.counts() == 0).double().mean().item())
    # dt / dthreshold = 1 / slope, of the first event of each
    push = 1e-7
    for k, (told, threshold, name) in enumerate(
        [(spikes, layer.threshold, "0"), (dendritic, layer.branch_threshold, "0.branches")]
    ):
        before = threshold.detach().clone()
        with torch.no_grad():
            threshold.add_(push)
        moved = layer(events, return_branches=True)[k].first_times().detach()
        with torch.no_grad():
            threshold.copy_(before)
        first = {}
        for t, n, b, slope in zip(told.times, told.units, told.samples, found[name].slopes, strict=True):
            first.setdefault((int(b), int(n)), (t.item(), slope.item()))
        for (b, n), (t, slope) in first.items():
            assert moved[b, n].item() - t == pytest.approx(push / slope, rel=1e-4)
