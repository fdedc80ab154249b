"""A floor of the slope at a spike: the gradient of one that barely reaches the threshold, and all the others as they are."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from helpers import needs_compiled, on_both_backends
from test_recurrent import as_events, loss_of, tensors
from test_recurrent import draw as draw_network
from torch import Tensor

from eventnet import LIF, Events, diagnose, lif

KINDS = {
    "plain": ("recurrent_weight", "delay", "recurrent_delay", "refractory", "initial_voltage", "initial_current"),
    "recurrent": ("delay", "recurrent_delay", "refractory", "initial_voltage", "initial_current"),
    "delays": ("recurrent_weight", "recurrent_delay", "refractory", "initial_voltage", "initial_current"),
    "everything": (),
}  # what they leave out


draw = cache(draw_network)  # it looks for a network that spikes well


def gradients(kind: str, seed: int, floor: float | None, backend: str):
    """Spikes and the gradients of all that there is."""
    net, samples = draw(seed)
    given = {name: x.detach() for name, x in tensors(net).items() if name not in KINDS[kind]}
    if kind in ("plain", "recurrent") and seed % 2:  # time constants for all: another kernel
        given |= {name: given[name].mean() for name in ("tau_mem", "tau_syn")}
    given = {name: x.requires_grad_() for name, x in given.items()}
    events, times, values = as_events(samples, net.weight.shape[0])
    option = {} if floor is None else {"slope_floor": floor}
    spikes = lif(events, backend=backend, **given, **option)
    loss_of(spikes.times, torch.linspace(-1, 1, spikes.num_events, dtype=torch.float64)).backward()
    return spikes, {name: x.grad for name, x in {**given, "times": times, "values": values}.items()}


@needs_compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 11))])
def test_compiled_kernel_is_the_reference(seed, kind):
    acts = False
    for floor in (60.0, 200.0):
        fast, mine = gradients(kind, seed, floor, "cpu")
        slow, theirs = gradients(kind, seed, floor, "reference")
        torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-12)
        _, exact = gradients(kind, seed, 0.0, "cpu")
        for name, value in theirs.items():
            error = (mine[name] - value).norm() / value.norm().clamp(min=1e-9)
            assert error < 1e-9, f"{name}: {error:.1e}"
        acts |= bool((mine["weight"] - exact["weight"]).norm() > 1e-3 * exact["weight"].norm())
    assert acts


@on_both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_and_what_is_steeper_stay_bit_for_bit(kind, backend):
    spikes, exact = gradients(kind, 1, None, backend)
    for floor in (0.0, 1e-6, 1e3):
        others, found = gradients(kind, 1, floor, backend)
        assert others.times.equal(spikes.times) and others.units.equal(spikes.units)
        if floor < 1:
            assert all(found[name].equal(exact[name]) for name in exact)


@on_both_backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("delay", [None, torch.tensor([[2e-3]]), torch.tensor([[2e-3, 2e-3]])])
def test_one_spike(delay, dtype, backend):
    """dt/dw = -K(t - d) / max(V', floor), and of all else that moves the voltage likewise."""
    weight = torch.full((1, 2), 6.4, dtype=dtype, requires_grad=True)
    threshold = torch.ones(2, dtype=dtype, requires_grad=True)
    times = torch.zeros(1, dtype=dtype, requires_grad=True)
    events = Events(times, torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1]), 1, 0.1)

    def grads(floor: float) -> tuple[Tensor, ...]:
        spikes = lif(events, weight, delay=delay, threshold=threshold, slope_floor=floor, backend=backend)
        assert spikes.units.tolist() == [0, 1]
        return torch.autograd.grad(spikes.times.sum(), (weight, threshold, times))

    tau_mem, tau_syn = 20e-3, 5e-3
    spike = lif(events, weight.detach(), delay=delay, backend=backend).times[0].item() - (
        2e-3 if delay is not None else 0
    )
    kernel = tau_syn / (tau_mem - tau_syn) * (math.exp(-spike / tau_mem) - math.exp(-spike / tau_syn))
    slope = (6.4 * math.exp(-spike / tau_syn) - 1) / tau_mem
    for floor in (0.0, 0.5 * slope, 2 * slope, 1e4):
        divided = max(slope, floor)
        by_weight, by_threshold, by_time = grads(floor)
        torch.testing.assert_close(by_weight, torch.full_like(weight, -kernel / divided), rtol=1e-3, atol=0)
        torch.testing.assert_close(by_threshold, torch.full_like(threshold, 1 / divided), rtol=1e-3, atol=0)
        torch.testing.assert_close(by_time, torch.full_like(times, 2 * slope / divided), rtol=1e-3, atol=0)


def test_the_module_has_it_and_says_when_it_acts():
    torch.manual_seed(0)
    layer = LIF(4, 5, slope_floor=90.0, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.mul_(4)
    assert (
        "slope_floor=90" in repr(layer)
        and "slope_floor" not in repr(LIF(4, 5))
        and "slope_floor" not in layer.state_dict()
    )
    events = as_events(draw(0)[1], 4)[0].detach()
    found = diagnose(layer, events)
    assert 0 < found.floored < found.spikes and found.floored == int((found.slopes < 90.0).sum())
    layer(events).times.sum().backward()
    (same,) = torch.autograd.grad(lif(events, layer.weight, slope_floor=90.0).times.sum(), layer.weight)
    assert layer.weight.grad.equal(same)


@pytest.mark.parametrize("floor", [-1.0, math.nan, math.inf])
def test_what_is_no_floor_is_refused(floor):
    events = Events.from_list([([0.0], [0])], num_units=1, duration=0.1)
    message = r"slope_floor is .*; expected finite volts per second >= 0 \(0: off\)"
    with pytest.raises(ValueError, match=message):
        lif(events, torch.ones(1, 1), slope_floor=floor)
    with pytest.raises(ValueError, match=message):
        LIF(1, 1, slope_floor=floor)
