"""Neurons under piecewise-constant currents: closed forms, everlasting synapses, differences, and the compiled kernel."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from helpers import F64, Recorder, compiled_for, error, needs_compiled, on_both_backends, on_every_isa
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eventnet import LIF, Events, diagnosing, lif
from eventnet.layers.drive import lif_drive

pytestmark = pytest.mark.usefixtures("one_thread")

DT = 5e-3
Parameters = dict[str, Any]


def draw(seed: int, steps: int = 8, batch: int = 3, num_in: int = 4, num: int = 6, pause: bool = True) -> Parameters:
    """Currents and a layer whose neurons all differ; some fire several times in a step, some never."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, dtype=F64, generator=generator)

    drawn = {
        "current": 0.5 + torch.randn(steps, batch, num_in, dtype=F64, generator=generator),
        "weight": 0.8 + torch.randn(num_in, num, dtype=F64, generator=generator),
        "tau_mem": uniform(4e-3, 30e-3, num),
        "threshold": uniform(0.7, 1.2, num),
        "reset": uniform(-0.4, 0.1, num),
        "bias": uniform(-0.2, 0.5, num),
        "refractory": uniform(0.0, 8e-3, num) * (torch.arange(num) % 3 > 0),
        "initial_voltage": uniform(-0.3, 0.6, num),
    }
    if not pause:
        del drawn["refractory"]
    return drawn


def run(given: Parameters, backend: str, **more: Any) -> tuple[Events, Tensor]:
    rest = {name: value for name, value in given.items() if name not in ("current", "weight")}
    return lif_drive(given["current"], given.get("weight"), DT, backend=backend, return_voltage=True, **rest, **more)


def slopes(given: Parameters, backend: str, **more: Any) -> tuple[Events, Tensor, dict[str, Tensor]]:
    """Spikes, voltages, and the gradient of a random function of both in all that is given."""
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    spikes, voltage = run(leaves, backend, **more)
    generator = torch.Generator().manual_seed(1)
    pull = [torch.randn(x.shape, dtype=F64, generator=generator).to(x) for x in (spikes.times, voltage)]
    total = (spikes.times * pull[0]).sum() * 10 + (voltage * pull[1]).sum()
    found = torch.autograd.grad(total, list(leaves.values()))
    return spikes, voltage, dict(zip(leaves, found, strict=True))


# ---- closed forms ----------------------------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("dt", [1e-3, 7e-3, 0.1])
def test_a_constant_current_makes_a_clock(backend, dt):
    """From reset to threshold it takes tau log((J - reset) / (J - threshold)), whatever the steps; then the refractory period."""
    tau, threshold, reset, pause, level = 12e-3, 0.9, -0.2, 3e-3, 1.7
    steps = math.ceil(0.1 / dt)
    current = torch.full((steps, 1, 1), level - 0.3, dtype=F64)
    spikes, voltage = lif_drive(
        *(current, None, dt),
        tau_mem=tau,
        threshold=threshold,
        reset=reset,
        bias=0.3,
        refractory=pause,
        initial_voltage=reset,
        return_voltage=True,
        backend=backend,
    )
    period = tau * math.log((level - reset) / (level - threshold))
    count = math.floor((steps * dt + pause) / (period + pause))
    expected = torch.arange(count, dtype=F64) * (period + pause) + period
    torch.testing.assert_close(spikes.times, expected, rtol=1e-12, atol=0)
    assert spikes.duration.item() == pytest.approx(steps * dt) and spikes.num_units == 1
    since = steps * dt - (spikes.times[-1].item() + pause)
    left = level + (reset - level) * math.exp(-since / tau) if since > 0 else reset
    assert voltage[-1].item() == pytest.approx(left, abs=1e-12)


@on_both_backends
def test_the_voltage_carries_over(backend):
    """Two pulses that are each too short to fire do together, and the gap between them counts."""
    tau, dt = 20e-3, 4e-3
    current = torch.tensor([3.0, 0.0, 3.0, 0.0], dtype=F64)[:, None, None]
    spikes, voltage = lif_drive(current, None, dt, threshold=0.9, return_voltage=True, backend=backend)
    fade = math.exp(-dt / tau)
    before = 3 * (1 - fade) * fade
    expected = 2 * dt + tau * math.log((3 - before) / (3 - 0.9))
    assert spikes.times.tolist() == pytest.approx([expected], rel=1e-13)
    assert voltage[:2].flatten().tolist() == pytest.approx([3 * (1 - fade), before])
    assert lif_drive(current[:2], None, dt, threshold=0.9, backend=backend).num_events == 0


@on_both_backends
def test_at_the_threshold_is_not_above_it(backend):
    """The voltage comes ever closer to a target at the threshold; any above it is reached, if there is time."""
    current = torch.tensor([1.0, math.nextafter(1.0, 0.0), 1.0 + 1e-9, 1.0 + 1e-15], dtype=F64).expand(12, 1, 4)
    spikes, voltage = lif_drive(current, None, 50e-3, backend=backend, return_voltage=True)
    assert spikes.units.tolist() == [2]
    assert spikes.times.item() == pytest.approx(20e-3 * math.log1p(1e9), rel=1e-6)
    assert (voltage[..., [0, 1, 3]] <= 1).all()


@on_both_backends
def test_without_rest_it_starts_at_reset(backend):
    spikes = lif_drive(torch.zeros(1, 1, 1, dtype=F64), None, 50e-3, bias=2.0, reset=-1.0, backend=backend)
    assert spikes.times[0].item() == pytest.approx(20e-3 * math.log(3))


@on_both_backends
def test_gradient_of_one_spike(backend):
    """t = tau log(J / (J - 1)) has the derivative -tau / (J (J - 1)) in J, over the share of it that each step has."""
    current = torch.full((4, 1, 1), 2.0, dtype=F64, requires_grad=True)
    tau = torch.tensor(20e-3, dtype=F64, requires_grad=True)
    spikes = lif_drive(current, None, 4e-3, tau_mem=tau, backend=backend)
    assert spikes.num_events == 1
    of_current, of_tau = torch.autograd.grad(spikes.times.sum(), (current, tau))
    assert of_current.sum().item() == pytest.approx(-20e-3 / 2)
    assert of_tau.item() == pytest.approx(math.log(2))
    ends = torch.tensor([0.0, 4e-3, 8e-3, 12e-3, spikes.times.item()], dtype=F64)
    share = (torch.exp(ends / 20e-3).diff()) / (math.exp(ends[-1] / 20e-3) - 1)  # of int e^{t / tau} dt
    torch.testing.assert_close(of_current.flatten() / of_current.sum(), share)


# ---- a current is a synapse that never forgets -------------------------------------------------------------------


def as_events(current: Tensor) -> Events:
    """Graded events at the start of each step, of the size by which the current changes."""
    steps, batch, num = current.shape
    change = torch.diff(current, dim=0, prepend=torch.zeros_like(current[:1]))
    times = (torch.arange(steps, dtype=F64) * DT).repeat_interleave(num).repeat(batch)
    units = torch.arange(num).repeat(steps * batch)
    offsets = torch.arange(batch + 1) * steps * num
    return Events(times, units, offsets, num, steps * DT, values=change.transpose(0, 1).reshape(-1))


@on_both_backends
@pytest.mark.parametrize("seed", range(4))
def test_events_through_everlasting_synapses_are_the_same(backend, seed):
    given = draw(seed)
    spikes, _ = run(given, backend)
    rest = {name: value for name, value in given.items() if name not in ("current", "weight")}
    told = lif(as_events(given["current"]), given["weight"], tau_syn=1e9, backend="reference", **rest)
    assert spikes.num_events > 10 and spikes.units.tolist() == told.units.tolist()
    assert spikes.offsets.tolist() == told.offsets.tolist()
    torch.testing.assert_close(spikes.times, told.times, rtol=0, atol=1e-11)


@pytest.mark.parametrize("delay", [None, 2e-3])
def test_recurrent_layer_is_one_of_two_branches(delay):
    """The input's never forgets, that of the layer's own spikes does."""
    given = draw(7, num=4)
    generator = torch.Generator().manual_seed(3)
    back = 0.7 * torch.randn(4, 4, dtype=F64, generator=generator)
    spikes, _ = run(given, "reference", recurrent_weight=back, recurrent_delay=delay)
    alone, _ = run(given, "reference")
    rest = {name: value for name, value in given.items() if name not in ("current", "weight")}
    told = lif(
        as_events(given["current"]),
        torch.stack([given["weight"], torch.zeros(4, 4, dtype=F64)], 1),
        recurrent_weight=torch.stack([torch.zeros_like(back), back], 1),
        recurrent_delay=delay,
        tau_syn=torch.tensor([1e9, 5e-3], dtype=F64),
        backend="reference",
        **rest,
    )
    assert spikes.units.tolist() == told.units.tolist() and spikes.units.tolist() != alone.units.tolist()
    torch.testing.assert_close(spikes.times, told.times, rtol=0, atol=1e-10)


# ---- gradients against differences ---------------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("pause", [False, True])
def test_gradients_are_those_of_differences(backend, pause):
    given = draw(11, steps=5, batch=2, num_in=2, num=4, pause=pause)
    if pause:
        given["refractory"] += 1e-3  # that differences may go both ways
    names, leaves = list(given), [x.clone().requires_grad_() for x in given.values()]

    def outputs(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        spikes, voltage = run(dict(zip(names, leaves, strict=True)), backend)
        return spikes.times, voltage

    assert len(outputs(*leaves)[0]) > 6
    assert torch.autograd.gradcheck(outputs, leaves, eps=1e-7, atol=1e-6, rtol=1e-5, fast_mode=backend == "reference")


def test_gradients_of_a_recurrent_layer_are_those_of_differences():
    given = draw(12, steps=2, batch=1, num_in=2, num=2)
    given["weight"] = given["weight"].abs() + 0.5
    given["current"] = given["current"].abs() + 1.5
    given["refractory"] += 1e-3
    generator = torch.Generator().manual_seed(3)
    given["recurrent_weight"] = torch.randn(2, 2, dtype=F64, generator=generator)
    given["recurrent_delay"] = 1e-3 + 2e-3 * torch.rand(2, 2, dtype=F64, generator=generator)
    given["tau_syn"] = torch.tensor(4e-3, dtype=F64)
    given["initial_current"] = torch.tensor(0.4, dtype=F64)
    names, leaves = list(given), [x.clone().requires_grad_() for x in given.values()]

    def outputs(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        spikes, voltage = run(dict(zip(names, leaves, strict=True)), "reference")
        return spikes.times, voltage

    assert len(outputs(*leaves)[0]) > 3
    assert torch.autograd.gradcheck(outputs, leaves, eps=1e-7, atol=1e-6, rtol=1e-5, fast_mode=True)


# ---- the compiled kernel -------------------------------------------------------------------------------------------


@cache
def expected(seed: int, shape: tuple[int, ...], pause: bool, floor: float) -> tuple[Parameters, Any]:
    """A case, its numbers as float32 has them, and what the reference makes of it."""
    given = {name: value.float().double() for name, value in draw(seed, *shape, pause=pause).items()}
    return given, slopes(given, "reference", slope_floor=floor)


SHAPES = [(8, 3, 4, 6), (1, 5, 3, 33), (30, 1, 2, 1), (12, 2, 5, 16), (3, 0, 2, 4), (0, 2, 2, 4), (4, 2, 2, 0)]


@on_every_isa
@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("floor", [0.0, 30.0])
def test_compiled_kernel_is_the_reference(isa, pause, floor, report):
    worst = 0.0
    for seed, shape in enumerate(SHAPES):
        given, (spikes, voltage, gradients) = expected(seed, shape, pause, floor)
        with compiled_for(isa):
            told, readings, found = slopes(given, "cpu", slope_floor=floor)
        assert told.units.tolist() == spikes.units.tolist() and told.offsets.tolist() == spikes.offsets.tolist()
        errors = {"times": error(told.times, spikes.times), "voltage": error(readings, voltage)}
        errors |= {name: error(found[name], gradients[name]) for name in given}
        assert not {name: value for name, value in errors.items() if not value <= 1e-9}, shape
        worst = max(worst, *errors.values())
    report(f"drive, kernel vs reference, float64, max relative error {worst:.0e} ({isa})")


@on_every_isa
def test_single_precision(isa):
    for seed in range(3):
        given, (exact, voltage, gradients) = expected(seed, (20, 4, 5, 40), True, 0.0)
        with compiled_for(isa):
            spikes, readings, found = slopes({name: value.float() for name, value in given.items()}, "cpu")
        assert spikes.dtype == torch.float32 and spikes.units.tolist() == exact.units.tolist()
        assert error(spikes.times.double(), exact.times) < 1e-5 and error(readings.double(), voltage) < 1e-5
        assert max(error(found[name].double(), gradients[name]) for name in given) < 1e-3  # some spikes barely make it


@needs_compiled
def test_tau_alone_or_nothing_kept():
    """The voltages are kept for the gradient of tau_mem only: without it, and without reading them, none are."""
    given = draw(5)
    for name in ("weight", "tau_mem"):
        leaf = given[name].clone().requires_grad_()
        found = []
        for backend in ("reference", "cpu"):
            rest = {key: value for key, value in (given | {name: leaf}).items() if key not in ("current", "weight")}
            weight = leaf if name == "weight" else given["weight"]
            with Recorder() as seen:
                times = lif_drive(given["current"], weight, DT, backend=backend, **rest).times
            found.append(torch.autograd.grad(times.square().sum(), leaf)[0])
            if backend == "cpu":
                ((_, _, out),) = seen.calls
                assert len(out[1]) == (len(given["current"]) if name == "tau_mem" else 0)
        torch.testing.assert_close(*found)


@needs_compiled
@pytest.mark.parametrize("kept", [False, True])
def test_operator_keeps_torchs_rules(kept):
    given = draw(2, steps=4, batch=2)
    target = given["current"] @ given["weight"]
    own = [given[name] for name in ("tau_mem", "threshold", "reset", "refractory", "initial_voltage")]
    leaves = [x.clone().requires_grad_() for x in (target, *own)]
    leaves[1].requires_grad_(kept)
    torch.library.opcheck(torch.ops.eventnet.lif_drive.default, (*leaves, DT, 0.0, kept, 1000))
    with torch.no_grad():
        _, voltage, units, offsets, exact, steps = torch.ops.eventnet.lif_drive.default(*leaves, DT, 0.0, kept, 1000)
        of_voltage = torch.ones_like(voltage) if kept else None
        spikes = (exact, units, offsets, steps, voltage, torch.ones_like(exact), of_voltage)
        plain = [x.detach() for x in leaves]
        torch.library.opcheck(torch.ops.eventnet.lif_drive_backward.default, (*plain, DT, *spikes, 0.0))


@needs_compiled
def test_operator_has_no_gradient_of_tau_without_voltages():
    target, tau, *own = (torch.tensor(x, dtype=F64) for x in (2.0, 20e-3, 1.0, 0.0, 0.0, 0.0))
    tau.requires_grad_()
    times = torch.ops.eventnet.lif_drive.default(target.expand(5, 1, 1), tau, *own, DT, 0.0, False, 10)[0]
    with pytest.raises(RuntimeError, match="tau_mem needs the voltages"):
        times.sum().backward()


@needs_compiled
def test_no_double_backward():
    leaf = draw(0)["current"].requires_grad_()
    times = lif_drive(leaf, None, DT, backend="cpu").times
    (slope,) = torch.autograd.grad(times.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(slope.sum(), leaf)


@needs_compiled
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    given = draw(9, steps=40, batch=13, num=70)
    given["current"] = given["current"] @ given.pop("weight")  # the product's digits may depend on them
    before = torch.get_num_threads()
    spikes, voltage, found = slopes(given, "cpu")
    try:
        torch.set_num_threads(threads)
        (told, readings, one), (_, _, two) = (slopes(given, "cpu") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(told.times, spikes.times) and torch.equal(readings, voltage)
    for name in given:
        torch.testing.assert_close(one[name], found[name], rtol=1e-10, atol=1e-12)  # sums in another order
        assert torch.equal(one[name], two[name])  # and in the same the second time


# ---- properties ----------------------------------------------------------------------------------------------------


@on_both_backends
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), later=st.integers(1, 4))
def test_silence_before_shifts_all_spikes(backend, seed, later):
    given = draw(seed, steps=4, batch=2)
    given["initial_voltage"] = given["bias"]  # at rest
    spikes, _ = run(given, backend)
    waited, _ = run(given | {"current": torch.nn.functional.pad(given["current"], (0, 0, 0, 0, later, 0))}, backend)
    assert waited.units.tolist() == spikes.units.tolist()
    torch.testing.assert_close(waited.times, spikes.times + later * DT, rtol=0, atol=1e-12)


@on_both_backends
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), parts=st.integers(2, 4))
def test_shorter_steps_of_the_same_current_change_nothing(backend, seed, parts):
    given = draw(seed, steps=4, batch=2)
    rest = {name: value for name, value in given.items() if name not in ("current", "weight")}
    spikes, voltage = run(given, backend)
    finer = given["current"].repeat_interleave(parts, 0)
    told, readings = lif_drive(finer, given["weight"], DT / parts, backend=backend, return_voltage=True, **rest)
    assert told.units.tolist() == spikes.units.tolist()
    torch.testing.assert_close(told.times, spikes.times, rtol=0, atol=1e-12)
    torch.testing.assert_close(readings[parts - 1 :: parts], voltage, rtol=0, atol=1e-10)


@on_both_backends
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(4)))
def test_samples_know_nothing_of_each_other(backend, seed, order):
    given = draw(seed, steps=4, batch=4)
    spikes, voltage = run(given, backend)
    told, readings = run(given | {"current": given["current"][:, order]}, backend)
    assert torch.equal(told.units, spikes[order].units)
    torch.testing.assert_close(told.times, spikes[order].times, rtol=0, atol=1e-12)
    torch.testing.assert_close(readings, voltage[:, order], rtol=0, atol=1e-12)


@on_both_backends
def test_silent_neurons_are_in_the_graph(backend):
    given = draw(0)
    given["current"] = given["current"] * 0 - 5
    given["weight"] = given["weight"].abs()
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    spikes, _ = run(leaves, backend)
    assert spikes.num_events == 0
    found = torch.autograd.grad(spikes.times.sum(), list(leaves.values()))
    assert all(not slope.any() for slope in found)


# ---- the layer -----------------------------------------------------------------------------------------------------


@on_both_backends
def test_layer_is_the_function(backend):
    made = LIF(4, 3, tau_mem=10e-3, refractory=2e-3, bias=0.4, backend=backend, dtype=F64)
    current = 3 * torch.rand(6, 2, 4, dtype=F64, generator=torch.manual_seed(0))
    expected, readings = lif_drive(
        *(current, made.weight, DT), tau_mem=10e-3, refractory=2e-3, bias=0.4, return_voltage=True, backend=backend
    )
    spikes, voltage = made.drive(current, DT, return_voltage=True)
    assert torch.equal(spikes.times, expected.times) and torch.equal(voltage, readings)
    assert torch.equal(made.drive(current, DT).times, expected.times)
    masked = LIF(4, 3, mask=torch.zeros(4, 3, dtype=torch.bool), backend=backend, dtype=F64)
    assert masked.drive(current, DT).num_events == 0


@on_both_backends
def test_diagnosis_sees_what_is_driven(backend):
    made = LIF(1, 1, backend=backend, dtype=F64)
    torch.nn.init.constant_(made.weight, 2.0)
    with diagnosing(made) as found:
        made.drive(torch.ones(3, 1, 1, dtype=F64), 10e-3)
    assert (found[""].events, found[""].spikes) == (0, 2)
    assert found[""].slopes.tolist() == pytest.approx([(2 - 1) / 20e-3] * 2)


def test_dtypes():
    """The wider one of current and weight; half precision is widened to the weight's."""
    weight = torch.ones(1, 1)
    for dtype, expected in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (F64, F64)):
        spikes = lif_drive(torch.full((3, 1, 1), 2.0, dtype=dtype), weight, 10e-3)
        assert spikes.dtype == expected and spikes.num_events == 2
    assert lif_drive(torch.full((3, 1, 1), 2.0).half(), None, 10e-3).dtype == torch.float32


ONES = torch.ones(2, 1, 1)
REFUSED = {
    "no tensor": (lambda: lif_drive([[1.0]], torch.ones(1, 1), DT), TypeError, "float tensor, got list"),
    "integers": (lambda: lif_drive(ONES.long(), torch.ones(1, 1), DT), TypeError, r"float tensor, got torch\.int64"),
    "two axes": (lambda: lif_drive(ONES[0], torch.ones(1, 1), DT), ValueError, r"shape \(T, B, in\), got \(1, 1\)"),
    "neither": (lambda: lif_drive(1.0, None, DT), TypeError, "float tensor, got float"),
    "other inputs": (lambda: lif_drive(ONES, torch.ones(3, 1), DT), ValueError, r"\(T, B, 3\), got \(2, 1, 1\)"),
    "vector": (lambda: lif_drive(ONES, torch.ones(1), DT), ValueError, r"\(in, out\), got shape \(1,\)"),
    "no time": (lambda: lif_drive(ONES, None, 0.0), ValueError, "dt must be a positive number of seconds, got 0.0"),
    "half weight": (lambda: lif_drive(ONES, torch.ones(1, 1).half(), DT), TypeError, "float32 or float64"),
    "delay": (lambda: LIF(1, 1, delay=1e-3).drive(ONES, DT), NotImplementedError, "no delays of the input"),
    "branches": (lambda: LIF(1, 1, branches=2).drive(ONES, DT), NotImplementedError, "no dendritic branches"),
    "bound": (lambda: lif_drive(ONES, None, DT, tau_mem=-1.0), ValueError, "tau_mem of neuron 0 is -1.0"),
    "start": (lambda: lif_drive(ONES, None, DT, initial_voltage=2.0), ValueError, "below the threshold"),
    "backend": (lambda: lif_drive(ONES, None, DT, backend="gpu"), ValueError, "backend must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        call()


@needs_compiled
@pytest.mark.parametrize("backend", ["cpu", "auto"])
def test_what_the_compiled_kernel_lacks_is_refused_by_name(backend):
    with pytest.raises(NotImplementedError, match=r"no recurrent_weight; backend='reference' has all of it"):
        LIF(1, 1, recurrent=True, backend=backend).drive(ONES, DT)
    with pytest.raises(NotImplementedError, match="no initial_current"):
        lif_drive(ONES, None, DT, initial_current=1.0, backend=backend)


@on_both_backends
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_current_that_is_no_number(backend, wrong):
    current = torch.ones(4, 3, 2)
    current[1, 2, 1] = wrong
    with pytest.raises(ValueError, match="sample 2, neuron 1: the voltage is not finite"):
        lif_drive(current, None, DT, backend=backend)


@on_both_backends
def test_a_storm_is_an_error(backend):
    with pytest.raises(RuntimeError, match=r"more than max_spikes = 50 spikes in one call \(reached in sample 0\)"):
        lif_drive(torch.full((1, 1, 1), 1e6), None, 1.0, max_spikes=50, backend=backend)
