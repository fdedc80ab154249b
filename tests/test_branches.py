"""Dendritic branches: one branch is LIF, several against closed forms, another implementation, differences and the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    F64,
    Recorder,
    compiled_for,
    error,
    gradients,
    needs_compiled,
    on_both_backends,
    on_every_isa,
    weighted,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eventnet import LIF, Events, constrain_, lif
from eventnet.kernels import reference_branches
from eventnet.kernels.reference import Neuron
from eventnet.layers.branches import PlateauLIF

pytestmark = pytest.mark.usefixtures("one_thread")

DURATION = 0.08
PER_NEURON = ("tau_mem", "threshold", "reset", "bias")
TOGETHER = ("plain", "shared taus", "recurrent", "axonal")  # all neurons hear an event at the same time
APART = ("refractory", "per target", "everything")  # each hears it at a time of its own, or starts somewhere
KINDS = TOGETHER + APART
Parameters = dict[str, Tensor]


def draw(
    seed: int, kind: str = "plain", branches: int = 3, num_in: int = 4, num: int = 5
) -> tuple[Parameters, Parameters]:
    """A layer, and its input as ``times`` (E,) and ``values`` (E,) of two samples; all time constants differ or some coincide."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, dtype=F64, generator=generator)

    def normal(mean: float, std: float, *shape: int) -> Tensor:
        return mean + std * torch.randn(shape, dtype=F64, generator=generator)

    one = kind in ("shared taus", "refractory")
    layer = {
        "weight": normal(0.3, 0.6, num_in, branches, num),
        "tau_mem": uniform(10e-3, 30e-3, *(() if one else (num,))),
        "tau_syn": 2e-3 * 20 ** uniform(0, 1, branches, 1 if one else num),
        "threshold": uniform(0.8, 1.2, num),
        "reset": uniform(-0.3, 0.0, num),
        "bias": uniform(-0.2, 0.3, num),
    }
    if not one:  # equal to the membrane's, equal to another's, and nearly so
        layer["tau_syn"][0, 0] = layer["tau_mem"][0]
        layer["tau_syn"][-1, 1] = layer["tau_syn"][0, 1]
        layer["tau_syn"][0, -1] = layer["tau_mem"][-1] * (1 + 1e-9)
    if kind in ("recurrent", "axonal", "everything"):
        layer["recurrent_weight"] = normal(-0.3, 0.3, num, branches, num)
    if kind == "axonal":
        layer["delay"] = uniform(0, 5e-3, num_in, 1, 1)
        layer["recurrent_delay"] = uniform(1e-3, 5e-3, num, 1, 1)
    if kind == "refractory":
        layer["refractory"] = uniform(1e-3, 4e-3)
        layer["initial_voltage"] = uniform(0.1, 0.3)
    if kind == "per target":
        layer["delay"] = uniform(0, 5e-3, 1, branches, num)
        layer["initial_current"] = uniform(0.0, 0.4, branches, 1)
    if kind == "everything":
        layer["delay"] = uniform(0, 5e-3, num_in, branches, num)
        layer["recurrent_delay"] = uniform(1e-3, 5e-3, num, branches, num)
        layer["refractory"] = uniform(0, 3e-3, num)
        layer["initial_voltage"] = uniform(-0.2, 0.5, num)
        layer["initial_current"] = uniform(-0.2, 0.6, branches, num)
    times = torch.cat([uniform(0, 0.9 * DURATION, count).sort()[0] for count in (14, 9)])
    return layer, {"times": times, "values": uniform(0.5, 1.5, 23)}


def packed(given: Parameters, num_in: int = 4) -> Events:
    """The input of ``draw``; its units are always the same."""
    units = (torch.arange(23) * 7 // 3 % num_in).int()
    return Events.trusted(
        given["times"], units, torch.tensor([0, 14, 23]), num_in, torch.full((2,), DURATION, dtype=F64), given["values"]
    )


def run(layer: Parameters, backend: str, **options: Any) -> Any:
    """``lif`` of all that ``draw`` made, in one dictionary."""
    arguments = {name: x for name, x in layer.items() if name not in ("times", "values")}
    return lif(packed(layer), backend=backend, **arguments, **options)


def with_gradients(given: Parameters, backend: str) -> tuple[Events, Parameters]:
    leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
    spikes = run(leaves, backend)
    return spikes, gradients(weighted(spikes.times), leaves)


def assert_same(found: Events, expected: Events, shift: float = 0.0) -> None:
    assert found.units.equal(expected.units) and found.offsets.equal(expected.offsets)
    torch.testing.assert_close(found.times, expected.times + shift, rtol=0, atol=1e-11)


# ---- one branch is a layer without -------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("kind", ["shared taus", "axonal", "everything"])
def test_one_branch_is_the_layer_without_bit_for_bit(kind, backend):
    layer, events = draw(1, kind, branches=1)
    layer["weight"] *= 3
    branched, found = with_gradients(layer | events, backend)
    plain = {
        name: x[:, 0] if name.endswith(("weight", "delay")) else x[0] if name in ("tau_syn", "initial_current") else x
        for name, x in layer.items()
    }
    spikes, expected = with_gradients(plain | events, backend)
    assert spikes.num_events > 5
    assert branched.times.equal(spikes.times) and branched.units.equal(spikes.units)
    for name, x in expected.items():
        assert found[name].flatten().equal(x.flatten()), name


@on_both_backends
def test_branches_alike_are_one(backend):
    """Branches with the same time constant hear the sum of their inputs."""
    layer, events = draw(2, branches=3)
    layer["tau_syn"] = layer["tau_syn"][:1].expand(3, -1)
    one = layer | {"weight": layer["weight"].sum(1), "tau_syn": layer["tau_syn"][0]}
    spikes = run(one | events, backend)
    assert spikes.num_events > 5
    assert_same(run(layer | events, backend), spikes)


# ---- the first crossing ------------------------------------------------------------------------------------


def neurons(generator: torch.Generator, num: int, branches: int) -> tuple[Tensor, Tensor, Neuron]:
    """Voltages below the threshold 1, currents of either sign and of sizes far apart, time constants of 1 ms to 0.4 s."""

    def log_uniform(low: float, high: float, *shape: int) -> Tensor:
        return low * (high / low) ** torch.rand(shape, dtype=F64, generator=generator)

    tau_mem, tau_syn = log_uniform(6e-3, 0.15, num), log_uniform(1e-3, 0.4, num, branches)
    tau_syn[: num // 8, 0] = tau_mem[: num // 8]
    tau_syn[num // 8 : num // 4, 0] = tau_syn[num // 8 : num // 4, 1] * (1 + 1e-10)
    sizes = log_uniform(0.1, 20, num, branches)
    currents = sizes * torch.randn(num, branches, dtype=F64, generator=generator)
    bias = 0.5 * torch.randn(num, dtype=F64, generator=generator)
    voltage = 1 - 2 * torch.rand(num, dtype=F64, generator=generator)
    ones = torch.ones(num, dtype=F64)
    return voltage, currents, Neuron(tau_mem, tau_syn, ones, 0 * ones, bias)


@pytest.mark.parametrize("branches", [2, 4])
def test_first_crossing_is_never_passed(branches):
    """No point of a fine grid before it is above the threshold, and where there is none, none is."""
    voltage, currents, neuron = neurons(torch.Generator().manual_seed(branches), 500, branches)
    horizon = torch.full_like(voltage, 0.5)
    wait = reference_branches.first_crossing(voltage, currents, horizon, neuron)
    grid = 0.5 * torch.linspace(0, 1, 2001, dtype=F64) ** 2  # finer where currents are large
    each = Neuron(*(p[:, None] for p in neuron))
    shape = (500, grid.numel())
    heights, _ = reference_branches.flow(
        voltage[:, None].expand(shape), currents[:, None].expand(*shape, -1), grid.expand(shape), each
    )
    above = heights >= 1 + 1e-12
    first = torch.where(above.any(1), grid[above.double().argmax(1)], torch.inf)
    assert (wait <= first).all()
    hit = torch.isfinite(wait)
    assert 80 < hit.sum() < 400
    at, there = reference_branches.flow(voltage, currents, wait.where(hit, 0.0), neuron)
    assert (at - 1)[hit].abs().max() < 1e-12
    assert (reference_branches.slope(at, there, neuron)[hit] > 0).all()


@on_both_backends
@pytest.mark.parametrize(("height", "expected"), [(1.0 + 1e-9, 1), (1.0 - 1e-9, 0)])
def test_a_narrow_peak_early_in_a_long_rise_and_fall_is_seen(height, expected, backend):
    """A fast branch lifts the voltage for a moment, another pulls it down, a slow one brings it up later, not to the threshold.

    The weights are scaled so that the first peak misses or meets the threshold by 1e-9 of it.
    """
    tau_syn = torch.tensor([1e-3, 20e-3, 200e-3], dtype=F64)
    weight = torch.tensor([40.0, -6.0, 2.5], dtype=F64)
    ones = torch.ones(1, dtype=F64)
    neuron = Neuron(10e-3 * ones, tau_syn[None], ones, 0 * ones, 0 * ones)
    grid = torch.linspace(0, 0.4, 400_001, dtype=F64)
    curve, _ = reference_branches.flow(
        torch.zeros(grid.shape, dtype=F64), weight.expand(grid.numel(), 3), grid, Neuron(*(p[:1] for p in neuron))
    )
    peak = int(curve[:10_000].argmax())
    turns = (curve.diff().sign().diff() != 0).sum()
    assert turns == 3 and curve[10_000:].max() < 0.9 * curve[peak]  # up, down, up, down
    rise = curve[peak - 1 : peak + 2]
    top = rise[1] + (rise[2] - rise[0]) ** 2 / (
        8 * (2 * rise[1] - rise[0] - rise[2])
    )  # of the parabola through three points
    one = Events.from_list([([0.0], [0])], num_units=1, duration=0.4, dtype=F64)
    spikes = lif(one, (weight * height / top)[None, :, None], tau_syn=tau_syn, tau_mem=10e-3, backend=backend)
    assert spikes.num_events == expected


@on_both_backends
@pytest.mark.parametrize("weight", [(14.0, -7.0), (-6.0, 9.0), (5.0, 3.0)])
def test_first_spike_in_closed_form(weight, backend):
    """tau_mem = 20 ms, tau_syn = 10 and 40 ms: with z = e^{-s/40ms}, V = a (z^2 - z^4) + 2 b (z - z^2): a quartic."""
    a, b = (torch.tensor(x, dtype=F64, requires_grad=True) for x in weight)
    theta = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def voltage(z: Tensor) -> Tensor:
        return a * (z**2 - z**4) + 2 * b * (z - z**2)

    companion = torch.zeros(4, 4, dtype=F64)  # of z^4 + (2b - a)/a z^2 - 2b/a z + theta/a
    companion[1:, :3] = torch.eye(3, dtype=F64)
    with torch.no_grad():
        companion[:, 3] = -torch.stack([theta / a, -2 * b / a, (2 * b - a) / a, 0 * a])
    roots = torch.linalg.eigvals(companion)
    z = max(r.real.item() for r in roots if abs(r.imag) < 1e-12 and 0 < r.real < 1)  # the largest is the first
    z = torch.tensor(z, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(voltage(z), z)
    z = z.detach() - (voltage(z.detach()) - theta) / slope  # one Newton step makes it differentiable
    expected = 3e-3 - 40e-3 * z.log()

    events = Events.from_list([([3e-3], [0])], num_units=1, duration=0.3, dtype=F64)
    tau_syn = torch.tensor([10e-3, 40e-3], dtype=F64)
    both = torch.stack([a, b])[None, :, None]
    spikes = lif(events, both, tau_mem=20e-3, tau_syn=tau_syn, threshold=theta, backend=backend)
    found = spikes.first_times()[0, 0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-11)
    for mine, theirs in zip(
        torch.autograd.grad(found, (a, b, theta)), torch.autograd.grad(expected, (a, b, theta)), strict=True
    ):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-8)


@on_both_backends
@pytest.mark.parametrize("shift", [-1e-18, 0.0, 1e-18])
def test_an_arrival_at_the_very_spike_makes_no_second_one(shift, backend):
    """However rounding orders them: the wait for a crossing may be the whole stretch, or nothing."""
    weight = torch.tensor([[[4.0], [3.0]], [[0.5], [-0.5]]], dtype=F64)
    taus = {"tau_mem": 20e-3, "tau_syn": torch.tensor([1e-6, 40e-3])}  # one that is next to nothing, too
    one = Events.from_list([([3e-3], [0])], num_units=2, duration=0.03, dtype=F64)
    first = lif(one, weight, backend=backend, **taus).times[0].item()
    both = Events.from_list([([3e-3, first + shift], [0, 1])], num_units=2, duration=0.03, dtype=F64)
    found = lif(both, weight, backend=backend, max_spikes=20, **taus)
    assert found.times[0].item() == pytest.approx(first, abs=1e-12)
    assert (found.times.diff() > 1e-3).all()


def on_a_grid(given: Parameters, dt: float = 4e-6) -> list[list[float]]:
    """Spike times of every neuron of the first sample by the midpoint rule."""
    layer = {name: x.numpy() for name, x in given.items()}
    num = layer["weight"].shape[-1]
    events = packed(given)[:1]
    arrivals = [
        (round(t / dt), int(u), v)
        for t, u, v in zip(*(x.tolist() for x in (events.times, events.units, events.values)), strict=True)
    ]
    v, i, spikes = layer["bias"].copy(), 0 * layer["tau_syn"], [[] for _ in range(num)]
    for step in range(round(DURATION / dt)):
        while arrivals and arrivals[0][0] == step:
            _, unit, value = arrivals.pop(0)
            i = i + value * layer["weight"][unit]
        half = i.sum(0), (i / (1 + 0.5 * dt / layer["tau_syn"])).sum(0)
        middle = v + 0.5 * dt * (layer["bias"] - v + half[0]) / layer["tau_mem"]
        v = v + dt * (layer["bias"] - middle + half[1]) / layer["tau_mem"]
        i = i * (1 - 0.5 * dt / layer["tau_syn"]) / (1 + 0.5 * dt / layer["tau_syn"])
        for n in (v >= layer["threshold"]).nonzero()[0]:
            spikes[n].append((step + 1) * dt)
            v[n] = layer["reset"][n]
    return spikes


@on_both_backends
def test_spikes_are_those_of_a_fine_grid(backend):
    layer, events = draw(4)
    found, expected = run(layer | events, backend), on_a_grid(layer | events)
    assert sum(map(len, expected)) > 8
    for n, times in enumerate(expected):
        assert found[:1].times[found[:1].units == n].tolist() == pytest.approx(times, rel=0, abs=5e-5)


# ---- gradients ---------------------------------------------------------------------------------------------


def differences(measure: Callable[[Parameters], tuple[Tensor, Any]], given: Parameters, entries: int) -> Parameters:
    """Fourth-order central differences of ``entries`` numbers of each parameter; NaN for others and where the order changes."""
    _, order = measure(given)
    generator = torch.Generator().manual_seed(0)
    slopes = {}
    for name, value in given.items():
        slopes[name] = torch.full_like(value, torch.nan).reshape(-1)
        size = max(value.abs().max().item(), 0.0 if value.abs().max() > 0 else 1.0)
        for k in torch.randperm(value.numel(), generator=generator)[:entries].tolist():

            def moved(amount: float, name: str = name, k: int = k) -> tuple[Tensor, Any]:
                changed = given[name].clone()
                changed.view(-1)[k] += amount
                return measure(given | {name: changed})

            for h in (3e-6 * size, 3e-7 * size):
                losses, orders = zip(*(moved(f * h) for f in (-2, -1, 1, 2)), strict=True)
                if all(o == order for o in orders):
                    a, b, c, d = losses
                    slopes[name][k] = (a - d + 8 * (c - b)) / (12 * h)
                    break
        slopes[name] = slopes[name].reshape(value.shape)
    return slopes


def network(given: Parameters, backend: str) -> tuple[Tensor, Any]:
    """Two layers; loss, and who fires in which order between which arrivals."""
    first = run({name: x for name, x in given.items() if not name.startswith("2.")}, backend)
    events = Events.trusted(first.times, first.units, first.offsets, first.num_units, first.duration)
    second = {name[2:]: x for name, x in given.items() if name.startswith("2.")}
    last = lif(events, backend=backend, **second)
    story = [first.units.tolist(), last.units.tolist()]
    for before, after in ((packed(given), first), (first, last)):
        story += [torch.cat([before[b].times, after[b].times]).argsort().tolist() for b in range(2)]
    return weighted(torch.sin(60 * last.times)), story


def stack(kind: str, seed: int) -> Parameters:
    """Parameters of two layers; the second has no delays."""
    (first, events), (second, _) = draw(seed, kind), draw(seed + 50, "recurrent", branches=2, num_in=5, num=4)
    second["weight"] += 0.5
    return first | events | {f"2.{name}": x for name, x in second.items()}


def assert_exact(given: Parameters, backend: str, entries: int) -> int:
    slopes = differences(lambda moved: network(moved, backend), given, entries)
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    loss, story = network(leaves, backend)
    assert min(len(story[0]), len(story[1])) > 2
    found = gradients(loss, leaves)
    checked = 0
    for name, expected in slopes.items():
        kept = torch.isfinite(expected)
        checked += int(kept.sum())
        scale = max(expected[kept].norm().item(), 1e-3 * found[name].norm().item(), 1e-9) if kept.any() else 1.0
        assert (found[name] - expected)[kept].norm().item() < 1e-6 * scale, name
    return checked


@needs_compiled
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_differences(kind, report):
    checked = assert_exact(stack(kind, 7), "cpu", entries=8)
    assert checked > 60
    report(f"branches: EventProp within 1e-6 of finite differences, two layers, {kind} ({checked} numbers)")


def test_gradients_of_the_reference_are_differences():
    """With delays per synapse, refractory periods and initial values too: along a random direction of all parameters."""
    layer, events = draw(7, "everything")
    given, generator = layer | events, torch.Generator().manual_seed(1)
    way = {n: x.abs().max() * torch.randn(x.shape, dtype=F64, generator=generator) for n, x in given.items()}

    def measure(step: float) -> tuple[Tensor, Any]:
        moved = {name: x + step * way[name] for name, x in given.items()}
        spikes = run(moved, "reference")
        return weighted(spikes.times), spikes.units.tolist()

    (losses, stories) = zip(*(measure(k * 3e-7) for k in (-2, -1, 1, 2)), strict=True)
    assert len(stories[0]) > 12 and all(story == stories[0] for story in stories)
    a, b, c, d = losses
    _, found = with_gradients(given, "reference")
    assert min(x.norm() for x in found.values()) > 0
    slope = sum((found[name] * x).sum() for name, x in way.items())
    assert slope.item() == pytest.approx(((a - d + 8 * (c - b)) / (12 * 3e-7)).item(), rel=1e-6)


@pytest.mark.slow
@needs_compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20, 30))
def test_all_gradients_are_differences(kind, seed):
    assert_exact(stack(kind, seed), "cpu", entries=1000)


@needs_compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
@pytest.mark.parametrize("branches", [2, 4])
def test_compiled_kernel_is_the_reference(kind, branches, seed):
    layer, events = draw(seed, kind, branches)
    (fast, mine), (slow, theirs) = (with_gradients(layer | events, backend) for backend in ("cpu", "reference"))
    assert slow.num_events > 0
    assert_same(fast, slow)
    assert not {name: e for name, x in theirs.items() if not (e := error(mine[name], x)) < 1e-9}


@on_every_isa
@pytest.mark.parametrize("kind", ["shared taus", "recurrent", "everything"])
def test_every_build_is_the_reference(kind, isa):
    layer, events = draw(11, kind, num=19)
    with compiled_for(isa):
        fast, mine = with_gradients(layer | events, "cpu")
    slow, theirs = with_gradients(layer | events, "reference")
    assert slow.num_events > 20
    assert_same(fast, slow)
    assert not {name: e for name, x in theirs.items() if not (e := error(mine[name], x)) < 1e-9}


@on_every_isa
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close(kind, isa):
    layer, events = draw(5, kind, num=19)
    single = {name: x.float() for name, x in (layer | events).items()}
    with compiled_for(isa):
        fast, mine = with_gradients(single, "cpu")
    slow, theirs = with_gradients({name: x.double() for name, x in single.items()}, "reference")
    assert slow.num_events > 20 and fast.units.equal(slow.units)
    assert (fast.times - slow.times).abs().max() < 2e-6
    assert not {name: e for name, x in theirs.items() if not (e := error(mine[name], x)) < 2e-3}


@needs_compiled
def test_slope_floor_is_the_references():
    layer, events = draw(3)
    found = []
    for floor in (0.0, 40.0):
        for backend in ("cpu", "reference"):
            leaves = {name: x.clone().requires_grad_() for name, x in (layer | events).items()}
            spikes = run(leaves, backend, slope_floor=floor)
            found.append(gradients(weighted(spikes.times), leaves))
    exact, _, mine, theirs = found
    assert all(error(mine[name], x) < 1e-9 for name, x in theirs.items())
    assert error(mine["weight"], exact["weight"]) > 1e-3


def small(backend: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A neuron with two branches, in seconds for milliseconds to suit gradcheck, as a function of all it depends on."""
    times = torch.tensor([0.1, 0.42, 0.75], dtype=F64)
    given = {
        "weight": torch.tensor([[[3.0], [1.5]], [[-2.0], [4.0]]], dtype=F64),
        "tau_mem": torch.tensor(1.0, dtype=F64),
        "tau_syn": torch.tensor([[0.3], [1.0]], dtype=F64),
        "threshold": torch.tensor(1.0, dtype=F64),
        "reset": torch.tensor(-0.1, dtype=F64),
        "bias": torch.tensor(0.15, dtype=F64),
    }

    def call(times: Tensor, values: Tensor, *numbers: Tensor) -> Tensor:
        units, offsets = torch.tensor([0, 1, 0], dtype=torch.int32), torch.tensor([0, 3])
        events = Events.trusted(times, units, offsets, 2, torch.tensor([1.5], dtype=F64), values)
        return lif(events, backend=backend, **dict(zip(given, numbers, strict=True))).times

    return call, [x.clone().requires_grad_() for x in (times, torch.ones_like(times), *given.values())]


@on_both_backends
def test_gradcheck(backend):
    call, inputs = small(backend)
    assert call(*inputs).numel() > 2
    assert torch.autograd.gradcheck(call, inputs, atol=1e-7, rtol=1e-6)


@pytest.mark.slow
def test_reference_differentiates_twice():
    assert torch.autograd.gradgradcheck(*small("reference"), atol=1e-5, rtol=1e-5, fast_mode=True)


@needs_compiled
def test_compiled_refuses_to_differentiate_twice():
    call, inputs = small("cpu")
    (slope,) = torch.autograd.grad(call(*inputs).sum(), inputs[2], create_graph=True)
    with pytest.raises(RuntimeError, match=r"no double backward.*backend='reference'"):
        torch.autograd.grad(slope.sum(), inputs[2])


# ---- what torch asks of an operator, and what it is refused ------------------------------------------------


@needs_compiled
@pytest.mark.parametrize(
    ("kind", "kernel"),
    [("plain", "lif_branches"), ("axonal", "lif_branches"), ("refractory", "lif_each"), ("everything", "lif_each")],
)
def test_operators_pass_opcheck(kind, kernel):
    layer, events = draw(0, kind)
    with Recorder() as recorder:
        with_gradients(layer | events, "cpu")
    names = [function.name() for function, _, _ in recorder.calls]
    assert names == [f"eventnet::{kernel}", f"eventnet::{kernel}_backward"]  # one call per layer and batch
    for function, args, _ in recorder.calls:
        forward = not function.name().endswith("_backward")
        fresh = [
            x.detach().clone().requires_grad_(forward and x.is_floating_point()) if isinstance(x, Tensor) else x
            for x in args
        ]
        torch.library.opcheck(function, tuple(fresh))


@needs_compiled
@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_threads_do_not_matter(kind):
    layer, events = draw(6, kind, num=40)
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(with_gradients(layer | events, "cpu"))
    torch.set_num_threads(1)
    for spikes, slopes in found[1:]:
        assert spikes.times.equal(found[0][0].times)
        assert all(error(x, found[0][1][name]) < 1e-12 for name, x in slopes.items())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "tau_syn per neuron": ({"tau_syn": torch.ones(5)}, r"tau_syn of 3 branches .*\(3,\).*\(branches, out\) = \(3, 5\)"),
    "negative tau_syn": ({"tau_syn": torch.tensor([1e-3, -1e-3, 1e-3])}, r"tau_syn of branch 1 of neuron 0 is -0\.001"),
    "recurrent weight": (
        {"recurrent_weight": torch.zeros(5, 5).double()},
        r"must be \(out, branches, out\) = \(5, 3, 5\)",
    ),
    "delay": ({"delay": torch.zeros(4, 5)}, r"\(4, 3, 5\) synaptic, \(4, 1, 1\) axonal, \(1, 3, 5\) dendritic"),
    "mask": ({"mask": torch.ones(4, 5, dtype=torch.bool)}, r"mask must be bool \(4, 3, 5\)"),
    "current": ({"initial_current": torch.tensor([0.0, torch.inf, 0.0])}, "initial_current of branch 1 of neuron 0"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_with_what_to_do(wrong, message):
    layer, events = draw(0)
    with pytest.raises(ValueError, match=message):
        run(layer | events | wrong, "reference")


@on_both_backends
def test_weights_that_are_not_finite_are_refused(backend):
    layer, events = draw(0)
    layer["weight"][1, 1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"sample 0, neuron 2: the voltage is not finite"):
        run(layer | events, backend)


@on_both_backends
@pytest.mark.parametrize("sizes", [(0, 2, 3), (3, 2, 0)])
def test_layers_without_units(sizes, backend):
    weight = torch.zeros(sizes, dtype=F64, requires_grad=True)
    events = Events.from_list([([], []), ([], [])], num_units=sizes[0], duration=0.1, dtype=F64)
    for options in ({}, {"refractory": 1e-3}):
        weight.grad = None
        spikes = lif(events, weight, tau_syn=torch.tensor([1e-3, 2e-3]), backend=backend, **options)
        spikes.times.sum().backward()
        assert spikes.num_events == 0 and weight.grad.shape == sizes


@on_both_backends
@pytest.mark.parametrize("kind", ["recurrent", "everything"])
@pytest.mark.parametrize("samples", [0, 2])
def test_batches_without_events(kind, samples, backend):
    layer, _ = draw(0, kind)
    layer = {name: x for name, x in layer.items() if not name.startswith("initial")}
    leaves = {name: x.requires_grad_() for name, x in layer.items()}
    empty = Events.from_list([([], [])] * samples, num_units=4, duration=0.1, dtype=F64)
    spikes = lif(empty, backend=backend, **leaves)
    assert spikes.batch_size == samples and spikes.num_events == 0
    assert all((x == 0).all() for x in gradients(spikes.times.sum(), leaves).values())


@on_both_backends
@pytest.mark.parametrize("kind", ["plain", "refractory", "per target"])
def test_simultaneous_arrivals_on_branches_add_up_in_any_order(kind, backend):
    """Of two units at one time, and as one of a unit with the weights of both."""
    layer, events = draw(12, kind)
    both = torch.cat([layer["weight"], layer["weight"][:1] + layer["weight"][1:2]])
    times = events["times"][:14].tolist()

    def spikes(*units: int) -> Events:
        sample = [(t, u) for t in times for u in units]
        given = Events.from_list([tuple(zip(*sample, strict=True))], num_units=5, duration=DURATION, dtype=F64)
        return lif(given, both, backend=backend, **{name: x for name, x in layer.items() if name != "weight"})

    assert spikes(4).num_events > 5
    assert_same(spikes(0, 1), spikes(4))
    assert_same(spikes(1, 0), spikes(4))


@on_both_backends
@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_masked_synapses_are_those_of_weight_zero(kind, backend):
    """Gradients of the others are the same, theirs are zero."""
    (layer, events), generator = draw(2, kind), torch.Generator().manual_seed(2)
    mask = torch.rand(4, 3, 5, generator=generator) < 0.6
    own = torch.rand(5, 3, 5, generator=generator) < 0.6 if "recurrent_weight" in layer else None
    masks = {"mask": mask} if own is None else {"mask": mask, "recurrent_mask": own}
    layer["weight"] += 0.6
    pruned = {
        name: x * masks["mask" if name == "weight" else "recurrent_mask"]
        for name, x in layer.items()
        if "weight" in name
    }
    found, expected = [], []
    for slopes, drawn, options in ((found, layer, masks), (expected, layer | pruned, {})):
        leaves = {name: x.clone().requires_grad_() for name, x in (drawn | events).items()}
        spikes = run(leaves, backend, **options)
        slopes += [spikes, gradients(weighted(spikes.times), leaves)]
    assert found[0].num_events > 5
    assert_same(found[0], expected[0])
    for name, x in expected[1].items():
        kept = (
            masks["recurrent_mask" if name.startswith("recurrent") else "mask"]
            if name.endswith(("weight", "delay"))
            else True
        )
        assert error(found[1][name], torch.where(torch.as_tensor(kept), x, 0.0)) < 1e-9, name


# ---- properties --------------------------------------------------------------------------------------------

layers = st.tuples(st.integers(0, 2**20), st.sampled_from(KINDS), st.integers(2, 4))


def holds(property_: Callable[..., None]) -> Callable[..., None]:
    """On both backends, with fewer examples on the slow reference."""
    many, few = given(layers)(property_), settings(max_examples=2)(given(layers)(property_))

    @on_both_backends
    def test(backend: str) -> None:
        (few if backend == "reference" else many)(backend)

    test.__name__, test.__doc__ = property_.__name__, property_.__doc__
    return test


@holds
def test_later_input_gives_the_same_output_later(backend: str, drawn: Any) -> None:
    layer, events = draw(*drawn)
    layer = {name: x for name, x in layer.items() if not name.startswith("initial")}
    early = {"times": 0.6 * events["times"], "values": events["values"]}
    spikes = run(layer | early, backend)
    late = run(layer | early | {"times": early["times"] + 7e-3}, backend)
    kept = [spikes[b].crop(0.0, DURATION - 7e-3) for b in range(2)]
    for b in range(2):
        before = late[b].crop(7e-3, DURATION)
        assert before.units.equal(kept[b].units)
        torch.testing.assert_close(before.times, kept[b].times, rtol=0, atol=1e-10)


@holds
def test_samples_do_not_see_each_other(backend: str, drawn: Any) -> None:
    layer, events = draw(*drawn)
    both = packed(events)
    assert_same(lif(both[[1, 0]], backend=backend, **layer), lif(both, backend=backend, **layer)[[1, 0]])


@holds
def test_order_of_branches_does_not_matter(backend: str, drawn: Any) -> None:
    layer, events = draw(*drawn)
    moved = {
        name: x.flip(1)
        if name.endswith(("weight", "delay"))
        else x.flip(0)
        if name in ("tau_syn", "initial_current")
        else x
        for name, x in layer.items()
    }
    assert_same(run(moved | events, backend), run(layer | events, backend))


@holds
def test_a_branch_without_weights_is_none(backend: str, drawn: Any) -> None:
    layer, events = draw(*drawn)
    branches = drawn[2]
    more = {
        name: torch.cat([x, torch.zeros_like(x[:, :1])], 1) if x.dim() == 3 and x.shape[1] == branches else x
        for name, x in layer.items()
    }
    if "initial_current" in layer:
        more["initial_current"] = torch.cat([layer["initial_current"], torch.zeros_like(layer["initial_current"][:1])])
    more["tau_syn"] = torch.cat([layer["tau_syn"], torch.full_like(layer["tau_syn"][:1], 0.3)])
    assert_same(run(more | events, backend), run(layer | events, backend))


@holds
def test_silent_neurons_have_zero_gradients(backend: str, drawn: Any) -> None:
    layer, events = draw(*drawn)
    layer["weight"][..., 1] = -layer["weight"][..., 1].abs()
    layer["bias"][1] = -0.5
    if "recurrent_weight" in layer:
        layer["recurrent_weight"][..., 1] = -0.1
    layer |= {name: torch.zeros_like(x) for name, x in layer.items() if name.startswith("initial")}
    spikes, found = with_gradients(layer | events, backend)
    assert spikes.counts()[:, 1].sum() == 0
    assert (found["weight"][..., 1] == 0).all()
    if layer["tau_syn"].shape[1] > 1:
        assert (found["tau_syn"][:, 1] == 0).all()


@on_both_backends
@pytest.mark.parametrize("kind", ["shared taus", "recurrent", "everything"])
@pytest.mark.parametrize("cut", [0.013, 0.041])
def test_a_trial_in_two_parts_is_the_whole(kind, cut, backend):
    layer, events = draw(9, kind)
    whole = packed(events)
    ends = {name: layer.pop(name) for name in ("initial_voltage", "initial_current") if name in layer}
    expected = lif(whole, backend=backend, **layer, **ends)
    first, state = lif(whole.crop(0.0, cut), backend=backend, return_state=True, **layer, **ends)
    assert state.current.shape == (2, 3, 5)
    second = lif(whole.crop(cut, DURATION), backend=backend, state=state, **layer)
    for b in range(2):
        times = torch.cat([first[b].times, second[b].times + cut])
        assert torch.cat([first[b].units, second[b].units]).tolist() == expected[b].units.tolist()
        torch.testing.assert_close(times, expected[b].times, rtol=0, atol=1e-10)


@needs_compiled
@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_states_are_the_references(kind):
    layer, events = draw(9, kind)
    ends = {name: layer.pop(name) for name in ("initial_voltage", "initial_current") if name in layer}
    found = []
    for backend in ("cpu", "reference"):
        first, state = lif(packed(events), backend=backend, return_state=True, **layer, **ends)
        leaves = {name: x.clone().requires_grad_() for name, x in layer.items()}
        second = lif(packed(events), backend=backend, state=state, **leaves)
        found.append((first, state, second, gradients(weighted(second.times), leaves)))
    mine, theirs = found
    for part in (0, 2):
        assert_same(mine[part], theirs[part])
    for name in ("voltage", "current", "refractory_left"):
        torch.testing.assert_close(getattr(mine[1], name), getattr(theirs[1], name), rtol=0, atol=1e-10)
    assert_same(mine[1].pending, theirs[1].pending)
    assert not {name: e for name, x in theirs[3].items() if not (e := error(mine[3][name], x)) < 1e-9}


# ---- the voltage -------------------------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("kind", ["shared taus", "axonal", "per target", "everything"])
def test_voltage_is_that_of_the_state(kind, backend):
    """The voltage at a time is where a trial that ends there leaves it."""
    layer, events = draw(9, kind)
    layer = {name: x for name, x in layer.items() if name != "refractory"}
    whole, ends = packed(events), [0.013, 0.041, 0.0735]
    spikes, voltage = lif(whole, backend=backend, return_voltage=True, **layer)
    assert spikes.num_events > 5
    found = voltage.at(torch.tensor(ends, dtype=F64))
    for k, end in enumerate(ends):
        _, state = lif(whole.crop(0.0, end), backend=backend, return_state=True, **layer)
        torch.testing.assert_close(found[:, k], state.voltage, rtol=0, atol=1e-9)
    with pytest.raises(NotImplementedError, match=r"Voltage.max .* two or more .* \.at\(\) are"):
        voltage.max()


@on_both_backends
@pytest.mark.parametrize("kind", ["plain", "shared taus"])
def test_integral_of_the_voltage_follows_from_the_equations(kind, backend):
    """tau_mem (V(T) - V(0) + what the resets took) = bias T - int V + sum_k tau_syn[k] (what arrived - I_k(T))."""
    layer, drawn = draw(9, kind)
    events = packed(drawn)
    spikes, voltage = lif(events, backend=backend, return_voltage=True, **layer)
    _, state = lif(events, backend=backend, return_state=True, **layer)
    sizes = layer["weight"][events.units.long()] * events.values[:, None, None]
    arrived = torch.zeros_like(state.current).index_add(0, events.samples, sizes)
    heard = (layer["tau_syn"] * (arrived - state.current)).sum(1)
    fallen = state.voltage - layer["bias"] + (layer["threshold"] - layer["reset"]) * spikes.counts()
    assert spikes.num_events > 5
    torch.testing.assert_close(voltage.integral(), layer["bias"] * DURATION + heard - layer["tau_mem"] * fallen)
    torch.testing.assert_close(voltage.mean(), voltage.integral() / DURATION)


@needs_compiled
def test_gradients_of_the_voltage_are_differences():
    layer, events = draw(9, "recurrent")
    given, times = layer | events, torch.tensor([0.021, 0.063], dtype=F64)

    def measure(moved: Parameters) -> tuple[Tensor, Any]:
        spikes, voltage = run(moved, "cpu", return_voltage=True)
        story = torch.cat([packed(moved)[0].times, spikes[0].times]).argsort().tolist()
        return weighted(voltage.at(times)) + 30 * weighted(voltage.integral(20e-3)), (spikes.units.tolist(), story)

    slopes = differences(measure, given, entries=3)
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    for name, found in gradients(measure(leaves)[0], leaves).items():
        kept = torch.isfinite(slopes[name])
        assert kept.any(), name
        assert (found - slopes[name])[kept].norm() < 1e-6 * max(slopes[name][kept].norm().item(), 1e-3), name


# ---- the module --------------------------------------------------------------------------------------------


def test_module_has_a_weight_and_a_time_constant_per_branch():
    layer = LIF(3, 2, branches=4, tau_syn=(1e-3, 1.0), recurrent=True, delay=(0.0, 1e-3), learn=("weight", "tau_syn"))
    assert layer.weight.shape == layer.delay.shape == (3, 4, 2) and layer.recurrent_weight.shape == (2, 4, 2)
    torch.testing.assert_close(layer.tau_syn[:, 1], torch.tensor([1e-3, 1e-2, 0.1, 1.0]))
    assert "branches=4" in repr(layer)
    with torch.no_grad():
        layer.tau_syn[2, 1] = -1.0
    with pytest.raises(ValueError, match="tau_syn of branch 2 of neuron 1"):
        layer(Events.from_list([([], [])], num_units=3, duration=0.1))
    assert (constrain_(layer).tau_syn > 0).all()


def test_module_refuses_what_makes_no_branches():
    for layer in (LIF, PlateauLIF):
        for branches in (0, 2.0):
            with pytest.raises(ValueError, match=f"branches must be a whole number, at least 1.* got {branches}"):
                layer(3, 2, branches=branches)
    with pytest.raises(ValueError, match=r"spreads it over branches=K"):
        LIF(3, 2, tau_syn=(1e-3, 1e-2))
    with pytest.raises(ValueError, match=r"tau_syn=\(low, high\) spreads it .* got \(0\.001, 0\.002, 0\.003\)"):
        LIF(3, 2, branches=3, tau_syn=(1e-3, 2e-3, 3e-3))


def test_a_number_that_is_learnt_is_one_for_each_branch():
    """Or K branches would stay the sum of one another."""
    learn = ("weight", "tau_syn")
    layer, events = LIF(4, 5, branches=3, tau_syn=7e-3, learn=learn, dtype=F64), packed(draw(0)[1])
    assert layer.tau_syn.shape == (3, 5) and (layer.tau_syn == 7e-3).all()
    with torch.no_grad():
        layer.weight.copy_(draw(0)[0]["weight"])
    layer(events).times.sum().backward()
    assert (layer.tau_syn.grad[0] != layer.tau_syn.grad[1]).any()
    shared = LIF(4, 5, branches=3, tau_syn=torch.tensor(7e-3), learn=learn)
    for other in (shared, LIF(4, 5, branches=3), LIF(4, 5, branches=1, learn=learn)):
        assert other.tau_syn.shape == () and other.tau_syn.requires_grad == (other.branches == 1 or other is shared)


@pytest.mark.parametrize("number", [np.int64(2), torch.tensor(2)])
def test_branches_may_be_a_whole_number_of_another_kind(number):
    for layer in (LIF(3, 2, branches=number), PlateauLIF(3, 2, branches=number)):
        assert type(layer.branches) is int and layer.weight.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((LIF, name) for name in ("tau_syn", "tau_mem", "delay", "recurrent_delay", "initial_current")),
        *((PlateauLIF, name) for name in ("jump", "tau_branch", "tau_plateau", "threshold")),
        *((lif, name) for name in ("delay", "bias", "refractory")),
    ],
)
def test_a_list_is_refused_with_what_to_do(make, name):
    call = partial(lif, packed(draw(0)[1]), draw(0)[0]["weight"]) if make is lif else partial(make, 3, 2, branches=2)
    with pytest.raises(TypeError, match=f"^{name} must be a number or a tensor, got list; torch.tensor makes one"):
        call(**{name: [1e-3, 2e-3]})


def test_a_mask_leaves_weights_without_effect_and_gradient():
    layer, events = draw(8, branches=2)
    mask = torch.zeros_like(layer["weight"], dtype=torch.bool)
    mask[:2, 0] = mask[2:, 1] = True  # the first inputs reach the first branch, the others the second
    weight = layer.pop("weight").requires_grad_()
    found = lif(packed(events), weight, mask=mask, **layer)
    assert_same(found, lif(packed(events), (weight * mask).detach(), **layer))
    found.times.sum().backward()
    assert (weight.grad[~mask] == 0).all() and (weight.grad[mask] != 0).any()


# ---- branches with thresholds ------------------------------------------------------------------------------


def plateaus(seed: int = 0, **options: Any) -> PlateauLIF:
    """A layer whose branches and somata fire on the input of ``draw``."""
    torch.manual_seed(seed)
    layer = PlateauLIF(4, 3, branches=2, branch_threshold=0.6, tau_plateau=(20e-3, 60e-3), dtype=F64, **options)
    with torch.no_grad():
        layer.weight.normal_(0.9, 0.6)
        layer.jump.fill_(1.5)
    return layer


@on_both_backends
def test_plateau_is_a_current_that_starts_when_a_branch_reaches_its_threshold(backend):
    """One branch, one event: the branch's crossing in closed form, then the soma's."""
    layer = PlateauLIF(
        1, 1, branches=1, tau_branch=20e-3, tau_syn=10e-3, branch_threshold=1.0, branch_refractory=0.2, jump=4.0,
        tau_plateau=40e-3, tau_mem=20e-3, backend=backend, dtype=F64,
    )  # fmt: skip
    torch.nn.init.constant_(layer.weight, 6.0)
    events = Events.from_list([([1e-3], [0])], num_units=1, duration=0.2, dtype=F64)
    spikes, dendritic = layer(events, return_branches=True)
    fast = -20e-3 * math.log((1 + math.sqrt(1 - 4 / 6)) / 2)  # V = w (x - x^2), x = e^{-s/20ms}
    slow = -40e-3 * math.log((1 + math.sqrt(1 - 2 / 4)) / 2)  # V = 2 w (y - y^2), y = e^{-s/40ms}
    assert dendritic.times.tolist() == pytest.approx([1e-3 + fast], rel=1e-12)
    assert spikes.times[0].item() == pytest.approx(1e-3 + fast + slow, rel=1e-12)


@needs_compiled
def test_gradients_of_plateaus_are_differences_and_the_references():
    learn = ("weight", "jump", "tau_plateau", "tau_branch", "tau_syn", "branch_threshold", "tau_mem", "threshold")
    layer = plateaus(learn=learn)
    given = {name: p.detach().clone() for name, p in layer.named_parameters() if p.requires_grad}
    given |= draw(0)[1]

    def measure(moved: Parameters) -> tuple[Tensor, Any]:
        own = {name: x for name, x in moved.items() if name not in ("times", "values")}
        spikes, dendritic = torch.func.functional_call(layer, own, (packed(moved), True))
        story = [spikes.units.tolist(), dendritic.units.tolist()]
        for before, after in ((packed(moved), dendritic), (dendritic, spikes)):
            story += [torch.cat([before[b].times, after[b].times]).argsort().tolist() for b in range(2)]
        return weighted(torch.sin(60 * spikes.times)), story

    slopes = differences(measure, given, entries=6)
    leaves = {name: x.requires_grad_() for name, x in given.items()}
    loss, story = measure(leaves)
    assert len(story[0]) > 5 and len(story[1]) > 10
    layer.backend = "reference"
    theirs = gradients(measure(leaves)[0], leaves)
    for name, found in gradients(loss, leaves).items():
        assert error(found, theirs[name]) < 1e-9, name
        kept = torch.isfinite(slopes[name])
        assert kept.any(), name
        assert (found - slopes[name])[kept].norm() < 1e-6 * max(slopes[name][kept].norm().item(), 1e-3), name


def test_plateaus_of_a_branch_reach_its_own_soma_only():
    layer = plateaus(jump=torch.ones(2, 3))
    with torch.no_grad():
        layer.jump[:, 1] = 0.0
    spikes, dendritic = layer(packed(draw(0)[1]), return_branches=True)
    assert (dendritic.units % 3 == 1).any() and spikes.counts()[:, 1].sum() == 0 and spikes.num_events > 0


def test_constrain_brings_plateaus_back():
    layer = plateaus(learn=("tau_plateau", "tau_branch", "branch_threshold"))
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(p if not p.requires_grad else -torch.ones_like(p))
    constrain_(layer)
    assert all((p > 0).all() for p in layer.parameters() if p.requires_grad)


def test_plateau_layer_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"jump must be one number or \(branches, out\) = \(2, 3\), got shape \(3,\)"):
        PlateauLIF(4, 3, jump=torch.ones(3))
    with pytest.raises(ValueError, match="branches must be a whole number, at least 1"):
        PlateauLIF(4, 3, branches=0)
    with pytest.raises(ValueError, match=r"mask must be bool \(4, 2, 3\)"):
        PlateauLIF(4, 3, mask=torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask must be bool \(4, 2, 3\).* got torch\.int64 \(4, 2, 3\)"):
        PlateauLIF(4, 3, mask=torch.ones(4, 2, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="mask must be a bool tensor, got list"):
        PlateauLIF(4, 3, mask=[[1]])
    for seconds in (-1.0, math.nan, math.inf, torch.full((6,), 1e-3)):
        with pytest.raises(ValueError, match=r"branch_refractory is .*; expected one number of finite seconds >= 0"):
            PlateauLIF(4, 3, branch_refractory=seconds)


@pytest.mark.parametrize("name", ["tau_branch", "tau_syn", "tau_plateau", "branch_threshold", "jump"])
def test_plateau_layer_names_what_is_out_of_bounds(name):
    wrong = math.nan if name == "jump" else -1.0
    with pytest.raises(ValueError, match=f"^{name} is {wrong}; expected "):
        PlateauLIF(4, 3, **{name: wrong})
    layer = PlateauLIF(4, 3, learn=(name,), **{name: torch.ones(2, 3)})
    with torch.no_grad():
        getattr(layer, name)[1, 2] = wrong
    with pytest.raises(ValueError, match=f"^{name} of branch 1 of neuron 2 is {wrong}; expected "):
        layer(packed(draw(0)[1]))


def test_a_branch_may_be_out_of_reach():
    layer = plateaus()
    with torch.no_grad():
        layer.branch_threshold.fill_(math.inf)
    assert layer(packed(draw(0)[1]), return_branches=True)[1].num_events == 0
