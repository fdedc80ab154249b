"""Diagnoses: the numbers of a call, against the voltage itself."""

from __future__ import annotations

import math

import pytest
import torch
from test_recurrent import as_events, draw

from eventnet import LIF, Events, diagnose


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


def test_silence_has_no_slope():
    found = diagnose(LIF(2, 3), Events.from_list([([], []), ([], [])], num_units=2, duration=0.1))
    assert (found.spikes, found.silent_share, found.smallest_slope) == (0, 1.0, math.inf)


def test_empty_batch():
    found = diagnose(LIF(2, 3), Events.from_list([], num_units=2, duration=0.1))
    assert (found.events, found.spikes, found.silent_share) == (0, 0, 0.0)
