"""LIF: closed forms, what the equations say about order and ends, edge cases, and errors that help."""

from __future__ import annotations

import math
import resource
import sys
import time

import numpy as np
import pytest
import torch
from helpers import (
    F64,
    KINDS,
    NAMES,
    Case,
    error,
    gradients,
    on_both_backends,
    random_events,
    run_lif,
    weighted,
    with_grad,
)
from scipy.special import lambertw
from torch import Tensor, nn

from eventnet import LIF, Events, constrain_, lif

ONE = Events.from_list([([0.003], [0])], num_units=1, duration=0.1, dtype=F64)


def leaves(**values: float) -> dict[str, Tensor]:
    """Parameters of one neuron with one input, as tensors that require grad."""
    defaults = {"tau_mem": 0.02, "tau_syn": 0.01, "threshold": 1.0, "reset": 0.0, "bias": 0.0}
    tensors = {name: torch.tensor(x, dtype=F64) for name, x in (defaults | values).items() if name != "weight"}
    tensors["weight"] = torch.tensor([[values.get("weight", 5.0)]], dtype=F64)
    return {name: x.requires_grad_() for name, x in tensors.items()}


# ---- closed forms ------------------------------------------------------------------------------------------


def slow_membrane(w: Tensor, theta: Tensor) -> Tensor:
    """tau_mem = 2 tau_syn = 20 ms: V = w (x - x^2) with x = e^{-s/tau_mem}."""
    return -0.02 * ((1 + (1 - 4 * theta / w).sqrt()) / 2).log()


def slow_synapse(w: Tensor, theta: Tensor) -> Tensor:
    """tau_syn = 2 tau_mem = 20 ms: V = 2 w (y - y^2) with y = e^{-s/tau_syn}."""
    return -0.02 * ((1 + (1 - 2 * theta / w).sqrt()) / 2).log()


def equal(w: Tensor, theta: Tensor) -> Tensor:
    """tau_mem = tau_syn = 20 ms: V = w (s/tau) e^{-s/tau}, inverted by Lambert's W."""
    root = -lambertw(-(theta / w).item()).real  # s / tau; one Newton step makes it differentiable
    root = torch.tensor(root, dtype=F64)
    value, slope = w * root * torch.exp(-root), (w * (1 - root) * torch.exp(-root)).detach()
    return 0.02 * (root + (theta - value) / slope)


@on_both_backends
@pytest.mark.parametrize(
    ("formula", "tau_mem", "tau_syn"),
    [(slow_membrane, 0.02, 0.01), (slow_synapse, 0.01, 0.02), (equal, 0.02, 0.02)],
    ids=["tau_mem = 2 tau_syn", "tau_syn = 2 tau_mem", "tau_mem = tau_syn"],
)
@pytest.mark.parametrize("weight", [4.5, 6.0, 30.0])
def test_first_spike_in_closed_form(formula, tau_mem, tau_syn, weight, backend):
    given = leaves(tau_mem=tau_mem, tau_syn=tau_syn, weight=weight)
    events, given, moved = with_grad(ONE, given)
    found = run_lif(events, given, backend).first_times()[0, 0]
    slopes = gradients(found, {name: moved[name] for name in ("weight", "threshold", "times")})

    w, theta = (torch.tensor(x, dtype=F64, requires_grad=True) for x in (weight, 1.0))
    expected = 0.003 + formula(w, theta)
    dw, dtheta = torch.autograd.grad(expected, (w, theta))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert slopes["weight"].item() == pytest.approx(dw.item(), rel=1e-9)
    assert slopes["threshold"].item() == pytest.approx(dtheta.item(), rel=1e-9)
    assert slopes["times"].item() == pytest.approx(1.0, rel=1e-12)  # the response moves with its cause


@on_both_backends
def test_weight_gradient_by_hand(backend):
    """dt/dw = -K(s) / V'(t) at the first spike."""
    given = leaves()
    run_lif(ONE, given, backend).first_times().sum().backward()
    x = (1 + math.sqrt(1 - 4 / 5)) / 2
    kernel, slope = x - x * x, 5 * (2 * x * x - x) / 0.02
    assert given["weight"].grad.item() == pytest.approx(-kernel / slope, rel=1e-12)


@on_both_backends
def test_tonic_neuron_in_closed_form(backend):
    """Without input a neuron with bias > threshold fires with a known period, from reset on."""
    given = leaves(tau_mem=0.02, threshold=1.0, reset=-0.5, bias=1.3)
    silence = Events.from_list([([], [])], num_units=1, duration=0.2, dtype=F64)
    times = run_lif(silence, given, backend).times
    tau, theta, low, rest = (given[name] for name in ("tau_mem", "threshold", "reset", "bias"))
    period = tau * ((rest - low) / (rest - theta)).log()
    assert times.numel() == int(0.2 / period)
    expected = period * torch.arange(1, times.numel() + 1)
    assert error(times, expected) < 1e-13
    used = {name: given[name] for name in ("tau_mem", "threshold", "reset", "bias")}
    found, by_hand = gradients(weighted(times), used), gradients(weighted(expected), used)
    for name in used:
        assert error(found[name], by_hand[name]) < 1e-11


def simulate(case: Case, dt: float = 2e-6) -> list[list[float]]:
    """Spike times of every neuron by the midpoint rule; a spike subtracts ``threshold - reset``."""
    events, given = case.draw()
    weight = given["weight"].numpy()
    tau_mem, tau_syn, threshold, reset, bias = (given[n].expand(case.outputs).numpy() for n in NAMES)
    arrivals = [(round(t / dt), u) for t, u in zip(events.times.tolist(), events.units.tolist(), strict=True)]
    v, i = np.where(bias < threshold, bias, reset), np.zeros(case.outputs)
    spikes: list[list[float]] = [[] for _ in range(case.outputs)]
    for step in range(round(case.duration / dt)):
        while arrivals and arrivals[0][0] == step:
            i = i + weight[arrivals.pop(0)[1]]
        middle = v + 0.5 * dt * (bias - v + i) / tau_mem
        v = v + dt * (bias - middle + i * np.exp(-0.5 * dt / tau_syn)) / tau_mem
        i = i * np.exp(-dt / tau_syn)
        for n in np.flatnonzero(v >= threshold):
            spikes[n].append((step + 1) * dt)
            v[n] -= threshold[n] - reset[n]
    return spikes


@on_both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_reset_by_subtraction_on_a_fine_grid_is_the_same_thing(kind, backend):
    case = Case(kind, counts=(8,), outputs=4, mean=2.0, std=1.5, seed=3, grid=1e-3)
    spikes = run_lif(*case.draw(), backend)
    found = simulate(case)
    assert spikes.num_events > 4
    for n in range(4):
        assert spikes.times[spikes.units == n].tolist() == pytest.approx(found[n], rel=0, abs=2e-5)


# ---- what an arrival does ----------------------------------------------------------------------------------


@on_both_backends
def test_arrival_leaves_the_voltage_continuous(backend):
    events, given = Case("per neuron", counts=(10,), mean=0, std=1.0).draw()
    _, voltage = run_lif(events, given, backend, return_voltage=True)
    eps = 1e-9
    before, after = voltage.at(events.times - eps), voltage.at(events.times + eps)
    steepest = given["weight"].abs().sum() / given["tau_mem"].min()
    assert ((after - before).abs() <= 4 * eps * steepest).all()
    assert (voltage.at(events.times + 1e-3) - voltage.at(events.times)).abs().max() > 1e-2


@on_both_backends
def test_simultaneous_arrivals_add_up(backend):
    together = Events.from_list([([0.01, 0.01, 0.01], [0, 1, 0])], 2, 0.1, dtype=F64)
    swapped = Events.from_list([([0.01, 0.01, 0.01], [1, 0, 0])], 2, 0.1, dtype=F64)
    summed = Events.from_list([([0.01], [0])], 1, 0.1, dtype=F64)
    weight = torch.tensor([[3.0, 1.0], [2.0, 9.0]], dtype=F64)
    one = lif(summed, 2 * weight[:1] + weight[1:], backend=backend)
    for events in (together, swapped):
        spikes = lif(events, weight, backend=backend)
        assert spikes.units.tolist() == one.units.tolist()
        assert error(spikes.times, one.times) < 1e-13


@on_both_backends
@pytest.mark.parametrize("late", [0.05, 0.0500001, 0.2])
def test_arrivals_at_or_after_the_end_do_not_count(late, backend):
    """Nor do they get a gradient, but an exact zero."""
    events = Events.from_list([([0.001, 0.01, late], [0, 1, 0])], 2, 0.05, dtype=F64)
    given = {"weight": torch.tensor([[6.0, 4.0], [5.0, 7.0]], dtype=F64), **KINDS["slow membrane"](2, None)}
    events, given, moved = with_grad(events, given)
    spikes, voltage = run_lif(events, given, backend, return_voltage=True)
    kept = events.keep(events.times < 0.05).detach()
    assert torch.equal(spikes.times, run_lif(kept, given, backend).times)
    for loss in (
        weighted(spikes.times),
        weighted(voltage.integral()),
        weighted(voltage.at(torch.tensor([0.02, 0.04]))),
    ):
        assert gradients(loss, moved, keep=True)["times"][-1] == 0


@on_both_backends
def test_neuron_at_its_threshold_starts_at_reset(backend):
    """bias = threshold has no rest below the threshold either; just below there is one."""
    silence = Events.from_list([([], [])], 1, 0.1, dtype=F64)
    weight = torch.zeros(1, 3, dtype=F64)
    bias = torch.tensor([1.0, 1.5, 1.0 - 1e-9], dtype=F64)
    _, voltage = lif(silence, weight, bias=bias, reset=-0.25, return_voltage=True, backend=backend)
    assert error(voltage.at(torch.tensor([0.0]))[0, 0], torch.tensor([-0.25, -0.25, 1.0 - 1e-9], dtype=F64)) < 1e-15


@on_both_backends
def test_inhibited_tonic_neuron_is_late(backend):
    """Crossings on a rising voltage that has no peak (I <= 0), which need the safeguarded search."""
    quiet = Events.from_list([([], [])], 1, 0.1, dtype=F64)
    given = leaves(bias=1.5, weight=-3.0)
    first = run_lif(quiet, given, backend).times[0]
    events, given, moved = with_grad(ONE, given)
    later = run_lif(events, given, backend).times[0]
    assert later > first + 1e-3
    slopes = gradients(later, moved)
    assert slopes["weight"] < 0 < slopes["tau_syn"]  # less inhibition, and shorter: earlier


# ---- nothing to do -----------------------------------------------------------------------------------------

EMPTY = {
    "silent": Events.from_list([([0.01], [1]), ([], [])], 3, 0.05, dtype=F64),
    "no events": Events.from_list([([], []), ([], [])], 3, 0.05, dtype=F64),
    "no samples": Events.from_list([], 3, 0.05, dtype=F64),
    "only late events": Events.from_list([([0.06], [1])], 3, 0.05, dtype=F64),
    "no time": Events.from_list([([0.0], [1])], 3, 0.0, dtype=F64),
    "no inputs": Events.from_list([([], [])], 0, 0.05, dtype=F64),
}


@on_both_backends
@pytest.mark.parametrize("outputs", [2, 0])
@pytest.mark.parametrize("events", EMPTY.values(), ids=EMPTY)
def test_nothing_happens_and_gradients_are_zero_not_missing(events, outputs, backend):
    weight = torch.full((events.num_units, outputs), 0.1, dtype=F64)
    events, given, moved = with_grad(events, {"weight": weight, **KINDS["slow membrane"](outputs, None)})
    spikes, voltage = run_lif(events, given, backend, return_voltage=True)
    assert (spikes.num_events, spikes.batch_size, spikes.num_units) == (0, events.batch_size, outputs)
    assert spikes.counts().shape == spikes.first_times().shape == (events.batch_size, outputs)
    for slope in gradients(spikes.times.sum() + spikes.first_times().clamp(max=0).sum(), moved, keep=True).values():
        assert (slope == 0).all()
    at = voltage.at(torch.tensor([0.01, 0.02], dtype=F64))
    for reading in (voltage.max(), voltage.mean(), voltage.integral(), voltage.integral(decay=0.01), at):
        gradients(reading.sum(), moved, keep=True)


@on_both_backends
def test_silent_layer_passes_zero_gradients_on(backend):
    """Only the weight is learnt, as by default, and nothing arrives."""
    first, second = LIF(3, 4, backend=backend, dtype=F64), LIF(4, 2, backend=backend, dtype=F64)
    second(first(EMPTY["no events"])).times.sum().backward()
    assert (first.weight.grad == 0).all() and (second.weight.grad == 0).all()


@on_both_backends
def test_silent_network_trains_without_nan(backend):
    events = random_events(torch.Generator().manual_seed(0), [5, 3], 3)
    sizes = ((3, 4), (4, 2))
    layers = nn.ModuleList(LIF(*size, learn=("weight", *NAMES), backend=backend, dtype=F64) for size in sizes)
    for layer in layers:
        nn.init.constant_(layer.weight, 1e-3)
    before = layers[0].weight.clone()
    optimiser = torch.optim.Adam(layers.parameters(), lr=1e-2)
    for _ in range(3):
        out = events
        for layer in layers:
            out, voltage = layer(out, return_voltage=True)
        optimiser.zero_grad()
        (out.times.sum() + out.first_times().clamp(max=1).sum() + voltage.max().sum()).backward()
        optimiser.step()
        constrain_(layers)
    assert out.num_events == 0
    for name, p in layers.named_parameters():
        assert torch.isfinite(p).all(), name
    assert torch.equal(before, layers[0].weight)


# ---- dtypes, modules ---------------------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("weight_dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("times_dtype", [torch.float32, F64], ids=str)
def test_dtype_of_times_is_independent_of_the_weights(times_dtype, weight_dtype, backend):
    events, given = Case("per neuron", graded=True, mean=2.0, std=1.0).draw()
    events, given, moved = with_grad(events.to(times_dtype), {name: x.to(weight_dtype) for name, x in given.items()})
    spikes, voltage = run_lif(events, given, backend, return_voltage=True)
    exact = run_lif(events.to(F64), {name: x.to(F64) for name, x in given.items()}, backend)
    assert spikes.dtype == times_dtype and spikes.duration.dtype == times_dtype
    assert voltage.max().dtype == voltage.integral().dtype == weight_dtype
    assert voltage.at(torch.tensor([0.01], dtype=times_dtype)).dtype == weight_dtype
    assert spikes.counts().tolist() == exact.counts().tolist()
    assert error(spikes.times, exact.times) < 1e-5
    for name, slope in gradients(weighted(spikes.times), moved).items():
        assert slope.dtype == moved[name].dtype


@on_both_backends
def test_module_is_the_function(backend):
    events, given = Case("per neuron").draw()
    layer = LIF(6, 5, backend=backend, dtype=F64, learn=("weight", *NAMES), **{n: given[n] for n in NAMES})
    with torch.no_grad():
        layer.weight.copy_(given["weight"])
    expected = run_lif(events, given, backend)
    spikes = layer(events)
    assert torch.equal(spikes.times, expected.times) and torch.equal(spikes.units, expected.units)
    assert set(layer.state_dict()) == {"weight", *NAMES}
    assert torch.equal(
        torch.func.functional_call(LIF(6, 5, backend=backend, dtype=F64), given, (events,)).times,
        spikes.times,
    )


def test_functional_call_reaches_the_given_tensors():
    events, given = Case("slow membrane").draw()
    layer = LIF(6, 5, dtype=F64)
    _, given, moved = with_grad(events, given)
    torch.func.functional_call(layer, given, (events,)).times.sum().backward()
    assert all(moved[name].grad is not None for name in given)
    assert layer.weight.grad is None


def test_learn_names_what_requires_grad():
    layer = LIF(3, 2, learn=("tau_mem", "reset"))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"tau_mem", "reset"}
    with pytest.raises(ValueError, match=r"no parameter 'delay'; choose from weight, tau_mem"):
        LIF(3, 2, learn=("weight", "delay"))


def test_constrain_restores_every_bound():
    net = nn.Sequential(LIF(3, 2, learn=NAMES), LIF(2, 2, threshold=torch.tensor([1.0, 2.0]), reset=0.5))
    with torch.no_grad():
        net[0].tau_mem.fill_(-1.0)
        net[0].tau_syn.fill_(0.0)
        net[0].reset.fill_(3.0)
        net[1].threshold[0] = 0.2
    untouched = net[1].threshold[1].item()
    assert constrain_(net) is net
    events = Events.from_list([([0.001], [0])], 3, 0.01)
    net[1](net[0](events))
    assert net[1].threshold[1].item() == untouched


# ---- errors ------------------------------------------------------------------------------------------------

W = torch.ones(1, 2, dtype=F64)
BAD = {
    "not Events": (
        lambda b: lif([0.1], W, backend=b),
        TypeError,
        r"lif: expected eventnet.Events, got list.*from_dense",
    ),
    "units": (
        lambda b: lif(ONE, torch.ones(3, 2), backend=b),
        ValueError,
        r"events have 1 units.*\(3, 2\); in must be 1",
    ),
    "weight's shape": (
        lambda b: lif(ONE, W[0], backend=b),
        ValueError,
        r"weight must be \(in, out\), got shape \(2,\)",
    ),
    "weight's dtype": (
        lambda b: lif(ONE, W.half(), backend=b),
        TypeError,
        r"float32 or float64, got torch.float16",
    ),
    "weight's device": (
        lambda b: lif(ONE, W.to("meta"), backend=b),
        ValueError,
        r"on cpu but weight is on meta.*events\.to",
    ),
    "parameter's device": (
        lambda b: lif(ONE, W, tau_mem=torch.ones(2, device="meta"), backend=b),
        ValueError,
        r"tau_mem is on meta but weight is on cpu; move",
    ),
    "parameter's shape": (
        lambda b: lif(ONE, W, bias=torch.ones(3, dtype=F64), backend=b),
        ValueError,
        r"bias must be one number or a tensor of shape \(2,\), got shape \(3,\)",
    ),
    "tau_mem = 0": (
        lambda b: lif(ONE, W, tau_mem=0.0, backend=b),
        ValueError,
        r"tau_mem of neuron 0 is 0.*constrain_",
    ),
    "tau_syn < 0": (
        lambda b: lif(ONE, W, tau_syn=torch.tensor([0.1, -0.5]), backend=b),
        ValueError,
        r"tau_syn of neuron 1 is -0\.5.*constrain_",
    ),
    "tau_mem NaN": (
        lambda b: lif(ONE, W, tau_mem=math.nan, backend=b),
        ValueError,
        r"tau_mem of neuron 0 is nan",
    ),
    "threshold = reset": (
        lambda b: lif(ONE, W, threshold=0.5, reset=torch.tensor([0.0, 0.5]), backend=b),
        ValueError,
        r"threshold of neuron 1 is 0\.5, its reset is 0\.5.*above the reset.*constrain_",
    ),
    "threshold < reset": (
        lambda b: lif(ONE, W, reset=2.0, backend=b),
        ValueError,
        r"threshold of neuron 0 is 1.*reset is 2",
    ),
    "bias inf": (
        lambda b: lif(ONE, W, bias=math.inf, backend=b),
        ValueError,
        r"bias of neuron 0 is inf; expected a finite",
    ),
    "weight NaN": (
        lambda b: lif(ONE, torch.tensor([[1.0, math.nan]]), backend=b),
        ValueError,
        r"sample 0, neuron 1: the voltage is not finite; weight or values hold NaN",
    ),
    "weight inf": (
        lambda b: lif(ONE, torch.tensor([[1.0, -math.inf]]), backend=b),
        ValueError,
        r"sample 0, neuron 1: the voltage is not finite",
    ),
    "storm": (
        lambda b: lif(ONE, 1e3 * W, max_spikes=10, backend=b),
        RuntimeError,
        r"more than max_spikes = 10 spikes.*sample 0.*lower the weights.*max_spikes",
    ),
}


@on_both_backends
@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_with_what_to_do(call, kind, message, backend):
    with pytest.raises(kind, match=message):
        call(backend)


@on_both_backends
def test_spike_storm_stops_early_and_in_little_memory(backend):
    weight = torch.full((1, 200), 1e9, dtype=F64)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RuntimeError, match="more than max_spikes = 1000 spikes"):
        lif(ONE, weight, max_spikes=1000, backend=backend)
    assert time.perf_counter() - start < 20
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (100e6 if sys.platform == "darwin" else 100e3)  # bytes there, kilobytes elsewhere


@on_both_backends
def test_as_many_spikes_as_allowed_are_no_storm(backend):
    count = lif(ONE, 10 * W, backend=backend).num_events
    assert lif(ONE, 10 * W, max_spikes=count, backend=backend).num_events == count
    with pytest.raises(RuntimeError, match="max_spikes"):
        lif(ONE, 10 * W, max_spikes=count - 1, backend=backend)


# ---- numbers at the edge ------------------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_rounding_does_not_bring_a_neuron_to_a_threshold_that_it_only_tends_to(backend, dtype):
    events = Events.from_list([([], [])], 1, 3.0, dtype=dtype)
    assert lif(events, torch.zeros(1, 1, dtype=dtype), bias=1.0, threshold=1.0, backend=backend).num_events == 0


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-10])
def test_float32_gradients_do_not_depend_on_the_unit_of_voltage(scale):
    events = Events.from_list([([0.0, 0.004, 0.009], [0, 1, 0])], 2, 0.05)
    grads = []
    for factor in (1.0, scale):
        weight = torch.tensor([[6.0], [4.0]]).mul_(factor).requires_grad_()
        lif(events, weight, threshold=factor).times.sum().backward()
        grads.append(weight.grad * factor)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize("name, value", [("tau_mem", torch.inf), ("tau_syn", torch.inf), ("reset", -torch.inf)])
def test_infinite_parameters_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} of neuron 0 is -?inf; .*finite"):
        lif(ONE, torch.ones(1, 1, dtype=F64), **{name: value})


def test_what_is_wrong_is_said_when_the_layer_is_made():
    with pytest.raises(ValueError, match=r"tau_mem of neuron 0 is -1\.0; time constants are positive"):
        LIF(3, 2, tau_mem=-1.0)
    with pytest.raises(ValueError, match=r"tau_syn must be one number or a tensor of shape \(2,\), got shape \(3,\)"):
        LIF(3, 2, tau_syn=torch.full((3,), 1e-3))
    with pytest.raises(ValueError, match="threshold must be above the reset"):
        LIF(3, 2, threshold=0.0)
    with pytest.raises(TypeError, match=r"learn must be a tuple of names, such as \('weight',\)"):
        LIF(3, 2, learn="weight")  # type: ignore[arg-type]
    with torch.device("meta"):
        assert LIF(3, 2).weight.is_meta


def test_repr_shows_the_neurons():
    layer = LIF(3, 2, tau_mem=torch.tensor([0.01, 0.02]), threshold=2.0)
    assert repr(layer) == "LIF(3, 2, tau_mem=0.01..0.02, tau_syn=0.005, threshold=2, reset=0, bias=0)"
