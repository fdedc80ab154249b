"""Calibration: rates and activities are reached, or an error says why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from resistive_cases import F64, drawn, echo, one

from eventnet import Events, metrics
from eventnet.hardware.resistive.calibration import bisected, with_activity, with_rate


@pytest.mark.parametrize("by", ["threshold", "input"])
@pytest.mark.parametrize("tau_syn", [None, 3e-3], ids=["steps", "exact"])
@pytest.mark.parametrize("rate", [5.0, 60.0])
def test_rate_is_reached(by, tau_syn, rate):
    events = drawn(1, (200,) * 8, 20, 0.1)
    # weak recurrence: spikes bring forth few others
    reservoir = one(20, 200, radius=0.1, threshold=1.0, gain=0.5, tau_syn=tau_syn)
    found = with_rate(reservoir, events, rate, by=by)
    assert metrics.firing_rates(found(events)).mean().item() == pytest.approx(rate, rel=0.05)
    same = found.weight if by == "threshold" else found.threshold
    assert same is (reservoir.weight if by == "threshold" else reservoir.threshold)


def test_a_rate_out_of_reach_is_an_error():
    silent = Events.from_list([([], [])], 6, 0.1)
    with pytest.raises(ValueError, match="the nearest to 5 spikes per second is 0"):
        with_rate(one(), silent, 5.0)
    explosive = replace(one(), recurrent_weight=torch.full((5, 5), 100.0, dtype=F64))
    with pytest.raises(ValueError, match="recurrent weights keep the spikes going"):
        with_rate(explosive, drawn(duration=0.5, counts=(3, 3)), 1.0, by="input")


@pytest.mark.parametrize(("wanted", "power"), [(1e-7, 1), (3e5, 2), (1.0, 3), (0.9, 0.5)])
def test_bisection(wanted, power):
    factor, value = bisected(lambda x: x**power, wanted, 1e-9)
    assert value == pytest.approx(wanted, rel=1e-8) and factor == pytest.approx(wanted ** (1 / power), rel=1e-8)


def test_bisection_stops_when_it_is_near_enough():
    tried = []
    bisected(lambda x: tried.append(x) or x, 3.0, 0.5)
    assert tried == [1.0, pytest.approx(2.0)]


def test_bisection_returns_the_nearest_beside_a_jump():
    factor, value = bisected(lambda x: 10.0 if x > 3 else 1.0, 4.0, 1e-3)
    assert value == 1.0 and factor <= 3


@pytest.mark.parametrize("activity", [0.05, 0.6])
def test_activity_is_reached(activity):
    inputs = torch.randn(60, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    network = with_activity(echo(bias=0.0, leak=1.0 if activity > 0.4 else 0.3), inputs, activity)
    assert network(inputs).square().mean().sqrt().item() == pytest.approx(activity, rel=0.02)


def test_errors():
    with pytest.raises(ValueError, match=r"expected a rate in \(0, 1 / dt = 500\)"):
        with_rate(one(), drawn(), 600.0)
    with pytest.raises(ValueError, match="by must be"):
        with_rate(one(), drawn(), 5.0, by="gain")
    with pytest.raises(ValueError, match="are there inputs"):
        with_activity(echo(bias=0.0), torch.zeros(5, 1, 3), 0.3)
    with pytest.raises(ValueError, match=r"an activity in \(0, 1\), got 1"):
        with_activity(echo(), torch.zeros(5, 1, 3), 1.0)
