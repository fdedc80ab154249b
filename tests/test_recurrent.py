"""Recurrence, delays, refractory period, initial state: against a second implementation and its finite differences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from event_by_event import Net, simulate
from torch import Tensor

import eventnet.kernels.ops  # noqa: F401  # defines the operators
from eventnet import LIF, Events, constrain_, lif

DURATION = 0.08
Sample = list[tuple[float, int, float]]
NAMES = {
    "weight": "weight",
    "recurrent": "recurrent_weight",
    "delay": "delay",
    "recurrent_delay": "recurrent_delay",
    "tau_mem": "tau_mem",
    "tau_syn": "tau_syn",
    "threshold": "threshold",
    "reset": "reset",
    "bias": "bias",
    "refractory": "refractory",
    "voltage": "initial_voltage",
    "current": "initial_current",
}  # of the oracle, and of lif's arguments


def draw(seed: int, num_in: int = 4, num: int = 5) -> tuple[Net, list[Sample]]:
    """A network that spikes 2 to 50 times per neuron, with everything in use, and events of two samples."""
    rng = np.random.default_rng(seed)
    tau_mem = rng.uniform(8e-3, 30e-3, num)
    tau_syn = rng.uniform(3e-3, 20e-3, num)
    tau_syn[0] = tau_mem[0]
    net = Net(
        weight=rng.normal(0.9, 0.8, (num_in, num)),
        recurrent=rng.normal(-0.1, 0.4, (num, num)),
        delay=rng.uniform(0, 10e-3, (num_in, num)),
        recurrent_delay=rng.uniform(0, 8e-3, (num, num)) * (rng.random((num, num)) < 0.8),  # some are 0
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        threshold=rng.uniform(0.8, 1.2, num),
        reset=rng.uniform(-0.3, 0.2, num),
        bias=rng.uniform(-0.2, 0.4, num),
        refractory=rng.uniform(0, 3e-3, num) * (rng.random(num) < 0.7),
        voltage=rng.uniform(-0.2, 0.5, num),
        current=rng.uniform(-0.2, 1.0, num),
    )
    samples = []
    for count in (20, 8):
        times = np.sort(rng.uniform(0, DURATION, count))
        samples.append([(float(t), int(rng.integers(num_in)), float(rng.uniform(0.5, 1.5))) for t in times])
    most = max(sum(n == k for sample in oracle(net, samples) for _, n in sample) for k in range(num))
    return (net, samples) if 4 <= most <= 50 else draw(seed + 1000, num_in, num)


def tensors(net: Net) -> dict[str, Tensor]:
    return {NAMES[f.name]: torch.tensor(getattr(net, f.name), requires_grad=True) for f in fields(net)}


def as_events(samples: list[Sample], num_in: int) -> tuple[Events, Tensor, Tensor]:
    flat = [event for sample in samples for event in sample]
    times = torch.tensor([e[0] for e in flat], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([e[2] for e in flat], dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, *np.cumsum([len(s) for s in samples])])
    units = torch.tensor([e[1] for e in flat], dtype=torch.int32)
    return Events(times, units, offsets, num_in, DURATION, values), times, values


def loss_of(times: np.ndarray | Tensor, coefficients: np.ndarray | Tensor) -> float | Tensor:
    """Any smooth function of all spike times in their order."""
    sin = torch.sin if isinstance(times, Tensor) else np.sin
    return (coefficients * sin(60.0 * times)).sum()


class OrderChanged(Exception):
    """A step crossed a kink."""


def oracle(net: Net, samples: list[Sample]) -> list[list[tuple[float, int]]]:
    return [simulate(net, sample, DURATION)[0] for sample in samples]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("seed", range(6))
def test_spikes_are_those_of_the_second_implementation(seed, backend):
    net, samples = draw(seed)
    given = tensors(net)
    spikes = lif(as_events(samples, net.weight.shape[0])[0], backend=backend, **given)
    found = oracle(net, samples)
    assert spikes.lengths.tolist() == [len(sample) for sample in found]
    assert spikes.units.tolist() == [n for sample in found for _, n in sample]
    expected = torch.tensor([t for sample in found for t, _ in sample], dtype=torch.float64)
    torch.testing.assert_close(spikes.times.detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("seed", "backend"),
    [(0, "cpu"), (0, "reference")] + [pytest.param(seed, "reference", marks=pytest.mark.slow) for seed in (1, 2)],
)
def test_gradients_are_the_differences_of_the_second_implementation(seed, backend):
    check_gradients(*draw(seed), backend, entries=3, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_gradients_are_the_differences_of_the_second_implementation_everywhere(seed):
    check_gradients(*draw(seed), "cpu", entries=None, seed=seed)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 20))])
def test_compiled_kernel_is_the_reference_with_everything_in_use(seed):
    net, samples = draw(seed)
    results = []
    for backend in ("cpu", "reference"):
        given = tensors(net)
        events, times, values = as_events(samples, net.weight.shape[0])
        spikes = lif(events, backend=backend, **given)
        loss_of(spikes.times, torch.linspace(-1, 1, spikes.num_events, dtype=torch.float64)).backward()
        results.append((spikes, {**given, "times": times, "values": values}))
    (fast, fast_inputs), (slow, slow_inputs) = results
    assert fast.units.equal(slow.units) and fast.offsets.equal(slow.offsets)
    torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-9)
    for name, value in slow_inputs.items():
        error = (fast_inputs[name].grad - value.grad).norm() / value.grad.norm().clamp(min=1e-9)
        assert error < 1e-8, f"{name}: {error:.1e}"


def check_gradients(net: Net, samples: list[Sample], backend: str, entries: int | None, seed: int) -> None:
    """Fourth-order central differences of the oracle against autograd, norm-wise per kind of parameter.

    A step must not change the order in which arrivals and spikes happen to a neuron: there the gradient has a kink.
    """
    rng = np.random.default_rng(seed)
    given = tensors(net)
    events, times, values = as_events(samples, net.weight.shape[0])
    spikes = lif(events, backend=backend, **given)
    coefficients = rng.normal(size=spikes.num_events)
    loss_of(spikes.times, torch.tensor(coefficients)).backward()
    story = [simulate(net, sample, DURATION)[1] for sample in samples]

    def value(net: Net, samples: list[Sample]) -> float:
        runs = [simulate(net, sample, DURATION) for sample in samples]
        if [history for _, history in runs] != story:
            raise OrderChanged
        return float(loss_of(np.array([t for found, _ in runs for t, _ in sorted(found)]), coefficients))

    def difference(at: Callable[[float], float], unit: float) -> float:
        for step in (3e-6 * unit, 3e-7 * unit):
            with contextlib.suppress(OrderChanged):
                return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
        return np.nan

    def choose(places: list[Any]) -> list[Any]:
        some = entries is not None and len(places) > entries
        return [places[k] for k in rng.choice(len(places), entries, replace=False)] if some else places

    exact: dict[str, list[float]] = {}
    numeric: dict[str, list[float]] = {}
    for name, argument in NAMES.items():
        array, seconds = getattr(net, name), "delay" in name or "tau" in name or name == "refractory"
        both_sides = array > 0 if name in ("recurrent_delay", "refractory") else np.full(array.shape, True)
        for place in choose([p for p in np.ndindex(array.shape) if both_sides[p]]):

            def moved(step: float, name: str = name, place: Any = place) -> float:
                changed = getattr(net, name).copy()
                changed[place] += step
                return value(replace(net, **{name: changed}), samples)

            exact.setdefault(name, []).append(given[argument].grad[place].item())
            numeric.setdefault(name, []).append(difference(moved, 1e-2 if seconds else 1.0))
    flat = [(b, k) for b, sample in enumerate(samples) for k in range(len(sample))]
    for what, name, grad in ((0, "times", times.grad), (2, "values", values.grad)):
        for e in choose(list(range(len(flat)))):

            def moved_event(step: float, what: int = what, at: tuple[int, int] = flat[e]) -> float:
                changed = [list(sample) for sample in samples]
                event = list(changed[at[0]][at[1]])
                event[what] += step
                changed[at[0]][at[1]] = (event[0], event[1], event[2])
                return value(net, changed)

            exact.setdefault(name, []).append(grad[e].item())
            numeric.setdefault(name, []).append(difference(moved_event, 1e-2 if what == 0 else 1.0))
    for name in exact:
        mine, theirs = np.array(exact[name]), np.array(numeric[name])
        smooth = np.isfinite(theirs)
        assert smooth.mean() > 0.5, f"{name}: too many entries at a kink"
        error = np.linalg.norm((mine - theirs)[smooth]) / max(np.linalg.norm(theirs[smooth]), 1e-9)
        assert error < 1e-6, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("kind, shape", [("synaptic", (3, 2)), ("axonal", (3, 1)), ("dendritic", (1, 2))])
def test_module_has_delays_of_its_kind(kind, shape):
    layer = LIF(
        3,
        2,
        recurrent=True,
        delay=(1e-3, 5e-3),
        recurrent_delay=2e-3,
        delay_kind=kind,
        refractory=1e-3,
        backend="reference",
    )
    assert layer.delay.shape == shape
    assert bool(((layer.delay >= 1e-3) & (layer.delay <= 5e-3)).all())
    learnt = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert learnt == {"weight", "recurrent_weight", "delay", "recurrent_delay"}
    assert set(layer.state_dict()) == learnt | {"tau_mem", "tau_syn", "threshold", "reset", "bias", "refractory"}
    with torch.no_grad():
        layer.weight.fill_(9.0)
    events = Events.from_list([([0.0, 0.01], [0, 2])], num_units=3, duration=0.1)
    spikes = layer(events)
    spikes.times.sum().backward()
    assert spikes.num_events > 2
    assert all(layer.get_parameter(name).grad is not None for name in learnt)
    with torch.no_grad():
        layer.delay.fill_(-1.0)
        layer.refractory.fill_(-1.0)
    with pytest.raises(ValueError, match=r"delay\[0, 0\] is -1\.0; delays are finite seconds >= 0"):
        layer(events)
    assert constrain_(layer).delay.min() == 0 and layer.refractory == 0


def test_one_delay_is_that_of_all_synapses():
    net, samples = draw(1)
    given = tensors(net) | {"delay": 3e-3, "recurrent_delay": torch.tensor(4e-3)}
    full = given | {"delay": torch.full((4, 5), 3e-3).double(), "recurrent_delay": torch.full((5, 5), 4e-3).double()}
    events = as_events(samples, 4)[0]
    one, all_of_them = (lif(events, backend="reference", **arguments) for arguments in (given, full))
    assert one.units.equal(all_of_them.units)
    torch.testing.assert_close(
        one.times, all_of_them.times, rtol=0, atol=1e-9
    )  # a number is held in the weight's dtype


def test_what_is_wrong_with_connections_is_said():
    weight = torch.ones(3, 2)
    events = Events.from_list([([0.0], [0])], num_units=3, duration=0.1)
    for message, given in {
        "recurrent_delay needs a recurrent_weight": dict(recurrent_delay=1e-3),
        r"recurrent_weight must be \(out, out\) = \(2, 2\), got shape \(3, 3\)": dict(
            recurrent_weight=torch.ones(3, 3)
        ),
        "recurrent_weight is torch.float64 on cpu but weight is torch.float32": dict(
            recurrent_weight=torch.ones(2, 2).double()
        ),
        r"delay must be one number or \(3, 2\) synaptic, \(3, 1\) axonal, \(1, 2\) dendritic, got": dict(
            delay=torch.ones(3)
        ),
        r"delay\[0, 0\] is nan": dict(delay=float("nan")),
        "refractory of neuron 1 is -1": dict(refractory=torch.tensor([0.0, -1.0])),
        "initial_voltage of neuron 0 is 1.0; expected a finite voltage below the threshold": dict(initial_voltage=1.0),
        "initial_current of neuron 0 is nan": dict(initial_current=float("nan")),
        "delay_kind must be one of synaptic, axonal, dendritic, got 'nope'": dict(delay_kind="nope"),
        "expected 0 <= low <= high": dict(low_high=(2.0, 1.0)),
    }.items():
        with pytest.raises(ValueError, match=message):
            if "delay_kind" in given:
                LIF(3, 2, delay=1e-3, delay_kind="nope")
            elif "low_high" in given:
                LIF(3, 2, delay=(2.0, 1.0))
            else:
                lif(events, weight, backend="reference", **given)


def test_voltages_that_are_not_there_yet_are_refused_by_name():
    events = Events.from_list([([0.0], [0])], num_units=3, duration=0.1)
    delay = torch.full((3, 2), 1e-3)
    with pytest.raises(NotImplementedError, match="with a refractory period yet"):
        lif(events, torch.ones(3, 2), delay=delay, refractory=1e-3, return_voltage=True)


def test_learn_skips_what_a_layer_does_not_have_by_default_only():
    assert [n for n, p in LIF(3, 2).named_parameters() if p.requires_grad] == ["weight"]
    with pytest.raises(ValueError, match="no parameter 'delay'"):
        LIF(3, 2, learn=("weight", "delay"))
    assert LIF(3, 2, learn=("refractory",)).refractory.requires_grad


def common(seed: int, delays: str, shared: bool) -> tuple[dict[str, Tensor], Events, tuple[Tensor, Tensor]]:
    """A recurrent network whose arrivals reach all neurons at once: what the compiled kernels can do."""
    net, samples = draw(seed)
    given = tensors(net)
    for name in ("refractory", "initial_voltage", "initial_current", "delay", "recurrent_delay"):
        del given[name]
    if shared:
        given |= {
            name: given[name].detach()[1].clone().requires_grad_()
            for name in ("tau_mem", "tau_syn", "threshold", "reset", "bias")
        }
    rng = np.random.default_rng(seed)
    if delays != "none":
        for name, num in (("delay", 4), ("recurrent_delay", 5)):
            drawn = rng.uniform(0, 8e-3, (1 if delays == "one" else num, 1)) * (
                rng.random((1 if delays == "one" else num, 1)) < 0.8
            )
            given[name] = torch.tensor(drawn, requires_grad=True)
    events, times, values = as_events(samples, 4)
    return given, events, (times, values)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "each"])
@pytest.mark.parametrize("delays", ["none", "one", "axonal"])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_compiled_recurrence_is_the_reference(seed, delays, shared):
    results = {}
    for backend in ("cpu", "reference"):
        given, events, inputs = common(seed, delays, shared)
        spikes = lif(events, backend=backend, **given)
        coefficients = torch.linspace(-1, 1, spikes.num_events, dtype=torch.float64)
        loss_of(spikes.times, coefficients).backward()
        results[backend] = spikes, [*given.values(), *inputs]
    (fast, fast_inputs), (slow, slow_inputs) = results["cpu"], results["reference"]
    assert slow.num_events > 10
    assert fast.units.equal(slow.units) and fast.offsets.equal(slow.offsets)
    torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-11)
    for name, a, b in zip((*given, "times", "values"), fast_inputs, slow_inputs, strict=True):
        error = (a.grad - b.grad).norm() / b.grad.norm().clamp(min=1e-9)
        assert error < 1e-8, f"{name}: {error:.1e}"


READINGS = {
    "integral": lambda voltage: voltage.integral(decay=20e-3),
    "mean": lambda voltage: voltage.mean(),
    "sample": lambda voltage: voltage.at(torch.linspace(0, DURATION, 7, dtype=torch.float64)),
    "maximum": lambda voltage: voltage.max(),
}


slow = pytest.mark.slow  # a neuron at a time


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("delays", "initial", "backend"),
    [
        ("axonal", False, "cpu"),
        ("axonal", True, "cpu"),
        pytest.param("axonal", False, "reference", marks=slow),
        ("synaptic", True, "cpu"),
        pytest.param("axonal", True, "reference", marks=slow),
        pytest.param("synaptic", True, "reference", marks=slow),
        pytest.param("synaptic", False, "cpu", marks=slow),
    ],
)
def test_voltage_losses_of_recurrent_layers_match_differences(delays, initial, backend, reading):
    given, events, (times, values) = common(2, "none" if delays == "synaptic" else delays, shared=False)
    own = tensors(draw(2)[0])
    if delays == "synaptic":
        given |= {name: own[name] for name in ("delay", "recurrent_delay")}
    if initial:
        given |= {name: own[name] for name in ("initial_voltage", "initial_current")}
    names = [*given, "times", "values"]
    generator = torch.Generator().manual_seed(0)

    def read(step: float, way: dict[str, Tensor]) -> tuple[Tensor, list[int]]:
        moved = {name: value + step * way.get(name, 0.0) for name, value in given.items()}
        moved_events = Events(
            times + step * way.get("times", 0.0),
            events.units,
            events.offsets,
            4,
            DURATION,
            values + step * way.get("values", 0.0),
        )
        spikes, voltage = lif(moved_events, **moved, backend=backend, return_voltage=True)
        found = READINGS[reading](voltage)
        weights = torch.cos(torch.arange(found.numel(), dtype=torch.float64)).reshape(found.shape)
        return (weights * found).sum(), spikes.units.tolist()

    loss, order = read(0.0, {})
    loss.backward()
    for name, tensor in zip(names, [*given.values(), times, values], strict=True):
        way = {name: torch.randn(tensor.shape, dtype=torch.float64, generator=generator)}
        if "delay" in name:
            way[name] = way[name] * (tensor > 0)  # at 0 there is one side only
        unit = 1e-2 if name in ("times", "delay", "recurrent_delay", "tau_mem", "tau_syn") else 1.0
        with torch.no_grad():
            runs = [read(k * 1e-6 * unit, way) for k in (1, -1, 2, -2)]
        assert all(run[1] == order for run in runs)
        a, b, c, d = (run[0].item() for run in runs)
        numeric, exact = (8 * (a - b) - (c - d)) / (12e-6 * unit), (tensor.grad * way[name]).sum().item()
        assert abs(numeric - exact) <= 1e-6 * abs(numeric) + 1e-9, f"{name}: {exact} instead of {numeric}"


def large(kind: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], Events]:
    """Enough work for two threads; the kernels that it needs depend on the kind of its delays."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.9 * torch.randn(20, 64, generator=generator, dtype=torch.float64) + 0.2
    back = 0.2 * torch.randn(64, 64, generator=generator, dtype=torch.float64)
    wait = 5e-3 * torch.rand(*((64, 1) if kind == "axonal" else (64, 64)), generator=generator, dtype=torch.float64)
    samples = []
    for _ in range(8):
        times = 0.2 * torch.rand(200, generator=generator, dtype=torch.float64).sort().values
        samples.append((times, torch.randint(20, (200,), generator=generator)))
    given = {"weight": weight, "recurrent_weight": back, "recurrent_delay": wait}
    events = Events.from_list(samples, 20, 0.2, dtype=torch.float64)
    return {name: value.to(dtype).requires_grad_() for name, value in given.items()}, events


@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
def test_runs_repeat_bit_for_bit_on_any_number_of_threads(kind):
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            given, events = large(kind)
            spikes = lif(events, **given)
            spikes.times.sin().sum().backward()
            results.append([spikes.times.detach(), spikes.units, *(value.grad for value in given.values())])
    finally:
        torch.set_num_threads(before)
    assert results[0][0].numel() > 2000
    assert all(a.equal(b) for a, b in zip(results[1], results[2], strict=True))
    assert results[0][0].equal(results[1][0]) and results[0][1].equal(results[1][1])
    for a, b in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * a.abs().max().item())


@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
def test_float32_is_close_to_float64(kind):
    (single, events), (double, _) = large(kind, torch.float32), large(kind, torch.float64)
    short = events.crop(0.0, 0.05)  # recurrent networks are chaotic: rounding grows with time
    a, b = lif(short, **single), lif(short, **double)
    assert b.num_events > 300 and a.units.equal(b.units)
    torch.testing.assert_close(a.times, b.times, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
def test_a_storm_is_an_error(kind):
    given, events = large(kind)
    with torch.no_grad():
        given["recurrent_weight"].fill_(1.0)
    with pytest.raises(RuntimeError, match="more than max_spikes = 20000 spikes in one call"):
        lif(events, **given, max_spikes=20_000)


def test_recurrent_operator_passes_opcheck():
    given, events, _ = common(1, "axonal", shared=True)
    packed = (events.times, events.units, events.offsets, events.values, events.duration)
    neuron = [given[name] for name in ("tau_mem", "tau_syn", "threshold", "reset")]
    arguments = [
        *packed,
        given["weight"],
        *neuron,
        given["bias"],
        given["recurrent_weight"],
        given["recurrent_delay"][:, 0],
        0.0,
        1000,
    ]
    fresh = tuple(
        x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in arguments
    )
    torch.library.opcheck(torch.ops.eventnet.lif.default, fresh)


def test_operator_with_everything_in_use_passes_opcheck():
    net, samples = draw(1)
    given = {name: value.detach() for name, value in tensors(net).items()}
    events = as_events(samples, 4)[0].detach()
    packed = (events.times, events.units, events.offsets, events.values, events.duration)
    neuron = [given[name] for name in ("tau_mem", "tau_syn", "threshold", "reset", "bias")]
    names = ("delay", "recurrent_weight", "recurrent_delay", "refractory", "initial_voltage", "initial_current")
    arguments = [*packed, given["weight"], *neuron, *(given[name] for name in names)]
    fresh = [x.requires_grad_() if x is not events.duration and x.is_floating_point() else x for x in arguments]
    held = torch.zeros(1, dtype=torch.float64)
    torch.library.opcheck(torch.ops.eventnet.lif_each.default, (*fresh, held, 0.0, False, 1000))
    torch.library.opcheck(torch.ops.eventnet.lif_each.default, (*fresh, held, 0.0, True, 1000))
