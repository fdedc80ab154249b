"""Exact gradients: three LIF layers and a readout against fourth-order central differences.

Entry by entry: each number of each parameter is moved by 3e-6 of its size to both sides, and every loss is
measured. The order of all events must stay the same, since that is where the gradient is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from helpers import (
    F64,
    KINDS,
    LI_NAMES,
    NAMES,
    Recorder,
    error,
    gradients,
    needs_compiled,
    on_both_backends,
    random_events,
    run_li,
    run_lif,
    weighted,
)
from torch import Tensor

from eventnet import Events, Voltage, lif
from eventnet.events import replace_unchecked

STEP = 3e-6
BOUND = 1e-6
SIZES = (4, 5, 5, 4, 3)  # units of the input, of three LIF layers and of the readout
SAMPLED = torch.tensor([0.13, 0.41, 0.73, 1.0], dtype=F64)  # when the voltage is sampled, of the duration

Parameters = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Stack:
    """Three LIF layers and a leaky-integrator readout, with their input; ``means``: of the weights."""

    kind: str
    means: tuple[float, float, float]
    graded: bool = False
    seed: int = 0
    counts: tuple[int, ...] = (12, 0, 9)
    duration: float = 0.05

    def __str__(self) -> str:
        return f"{self.kind}{', graded' * self.graded}"

    def draw(self) -> tuple[Events, Parameters]:
        """The input, and every parameter as a tensor named ``<layer>.<parameter>``, ``times``, ``values``."""
        generator = torch.Generator().manual_seed(self.seed)
        events = random_events(generator, list(self.counts), SIZES[0], self.duration, graded=self.graded)
        parameters = {"times": events.times}
        if events.values is not None:
            parameters["values"] = events.values
        for layer, (inputs, outputs) in enumerate(pairwise(SIZES), start=1):
            mean = self.means[layer - 1] if layer < 4 else 0.0
            weight = mean + (mean or 1.0) * torch.randn(inputs, outputs, dtype=F64, generator=generator)
            if layer == 3:
                weight[:, 0] /= 20  # silent: its largest voltage is not the threshold
            parameters[f"{layer}.weight"] = weight
            for name, value in KINDS[self.kind](outputs, generator).items():
                if layer < 4 or name in LI_NAMES:
                    parameters[f"{layer}.{name}"] = value
        return events, parameters


class Outcome(NamedTuple):
    """All losses by name, the events of every layer from the input on, and between which arrivals the maxima are.

    ``peaks`` holds an arrival's number for a maximum in its kink (else -1), and how many arrivals come before each.
    """

    losses: dict[str, Tensor]
    layers: list[Events]
    peaks: list[list[int]]


def forward(stack: Stack, events: Events, parameters: Parameters, backend: str) -> Outcome:
    """Run the network with these parameters (the times of the input among them)."""
    values = parameters.get("values")
    first = replace_unchecked(events, times=parameters["times"], values=values)
    layers = [first]
    for layer in (1, 2, 3):
        given = {name: parameters[f"{layer}.{name}"] for name in ("weight", *NAMES)}
        out, voltage = run_lif(layers[-1], given, backend, return_voltage=True)
        layers.append(out)
    membrane = run_li(layers[-1], {name: parameters[f"4.{name}"] for name in LI_NAMES}, backend)
    losses, peaks = {"spike time": weighted(layers[-1].times)}, []
    for name, read in (("readout", membrane), ("spiking", voltage)):
        with Recorder() as recorder:
            losses[f"{name} maximum"] = weighted(read.max())
        for _, _, (_, at, arrival, _) in recorder.calls:  # by the compiled kernel: the reference does not tell
            earlier = torch.searchsorted(read.events.times.detach().sort()[0], at)
            peaks += [arrival.flatten().tolist(), earlier.flatten().tolist()]
        losses[f"{name} integral"] = weighted(read.integral())
        losses[f"{name} decayed integral"] = weighted(read.integral(decay=stack.duration / 3))
        losses[f"{name} mean"] = weighted(read.mean())
        losses[f"{name} samples"] = weighted(read.at(SAMPLED * stack.duration))
    return Outcome(losses, layers, peaks)


def order(outcome: Outcome) -> list[object]:
    """What must not change: who fires, in which order with the events that come in, and where the maxima are."""
    found: list[object] = [outcome.peaks]
    for before, after in pairwise(outcome.layers):
        found += [after.offsets.tolist(), after.units.tolist()]
        for b in range(before.batch_size):
            found.append(torch.cat([before[b].times, after[b].times]).argsort(stable=True).tolist())
    return found


def size(name: str, value: Tensor) -> float:
    """What steps are relative to: the parameter's size, for voltages at least 1 (a reset of 0 has none)."""
    own = value.abs().max().item()
    return max(own, 1.0) if name.endswith(("threshold", "reset", "bias")) else own


class Differences(NamedTuple):
    """Slopes ``{name: (losses, entries)}``; how far one unit in the last place of a loss moves them; entries checked,
    and those whose slope is NaN since the order changes."""

    slopes: dict[str, Tensor]
    rounding: dict[str, Tensor]
    checked: int
    failed: int


@torch.no_grad()
def differences(measure: Callable[[Parameters], tuple[Tensor, list[object]]], parameters: Parameters) -> Differences:
    """Fourth-order central differences; where the order of events changes, with a step ten times smaller."""
    losses, expected = measure(parameters)
    slopes = {name: [] for name in parameters}
    failed = 0

    def moved(name: str, entry: int, amount: float) -> tuple[Tensor, bool]:
        changed = parameters[name].clone()
        changed.view(-1)[entry] += amount
        losses, seen = measure({**parameters, name: changed})
        return losses, seen == expected

    steps = {name: STEP * size(name, value) for name, value in parameters.items()}
    for name, entry in [(name, entry) for name, value in parameters.items() for entry in range(value.numel())]:
        for h in (steps[name], steps[name] / 10):
            (a, b, c, d), same = zip(*(moved(name, entry, k * h) for k in (-2, -1, 1, 2)), strict=True)
            slope = (a - d + 8 * (c - b)) / (12 * h)
            if all(same):
                break
        else:
            slope, failed = torch.full_like(slope, torch.nan), failed + 1
        slopes[name].append(slope)
    ulp = torch.finfo(F64).eps * losses.abs()
    checked = sum(map(len, slopes.values())) - failed
    rounding = {name: ulp / step for name, step in steps.items()}
    return Differences({name: torch.stack(rows, 1) for name, rows in slopes.items()}, rounding, checked, failed)


STACKS = [
    Stack("slow membrane", (2.5, 1.2, 1.2), graded=True),
    Stack("equal time constants", (0.8, 0.4, 0.4)),
    Stack("slow synapse", (0.6, 0.3, 0.3), seed=2),
    Stack("per neuron", (1.5, 0.4, 0.4), graded=True),
    Stack("tonic", (2, 0.6, 0.6)),
]


@cache
def measured(stack: Stack) -> Differences:
    """``differences`` of a stack by the compiled kernels: both backends are held against them."""
    events, parameters = stack.draw()
    return differences(lambda moved: measure(stack, events, moved, "cpu"), parameters)


def measure(stack: Stack, events: Events, parameters: Parameters, backend: str) -> tuple[Tensor, list[object]]:
    outcome = forward(stack, events, parameters, backend)
    return torch.stack(list(outcome.losses.values())), order(outcome)


def analytic(stack: Stack, backend: str) -> dict[str, Parameters]:
    """``{loss: {parameter: gradient}}``; only the readout's parameters may be missing from a loss's graph."""
    events, parameters = stack.draw()
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    losses = forward(stack, events, leaves, backend).losses
    found = {}
    for loss, value in losses.items():
        used = leaves if loss.startswith("readout") else {n: x for n, x in leaves.items() if not n.startswith("4.")}
        found[loss] = gradients(value, used, keep=True)
    return found


def assert_exact(stack: Stack, backend: str, rounding: float = 0.0) -> tuple[dict[tuple[str, str], float], int]:
    """Errors by (loss, kind of parameter), and how many numbers were compared.

    ``rounding``: units in the last place of a loss that the differences may be off by.
    """
    expected = measured(stack)
    found = analytic(stack, backend)
    assert expected.failed <= 0.01 * expected.checked, "the order of events changes: choose another seed"
    errors: dict[tuple[str, str], float] = {}
    for row, (loss, by_name) in enumerate(found.items()):
        for name, slopes in expected.slopes.items():
            numbers = slopes[row]
            if name not in by_name:
                assert (numbers == 0).all(), f"{loss} depends on {name}, its graph does not"
                continue
            kept = torch.isfinite(numbers)
            key = (loss, name.split(".")[-1])
            floor = rounding * expected.rounding[name][row].item()
            errors[key] = max(errors.get(key, 0), error(by_name[name].reshape(-1)[kept], numbers[kept], floor))
    wrong = {key: value for key, value in errors.items() if not value <= BOUND}
    assert not wrong, f"relative errors against finite differences: {wrong}"
    return errors, expected.checked


def worst(errors: dict[tuple[str, str], float], part: int) -> str:
    """The largest error by loss (``part`` 0) or by parameter (1), as text."""
    largest: dict[str, float] = {}
    for key, value in errors.items():
        largest[key[part]] = max(largest.get(key[part], 0), value)
    return ", ".join(f"{name} {value:.0e}" for name, value in largest.items())


@needs_compiled
@pytest.mark.parametrize(
    ("backend", "stacks"),
    [
        pytest.param("cpu", STACKS[::3], id="some, cpu"),
        pytest.param("cpu", STACKS, id="cpu", marks=pytest.mark.slow),
        pytest.param("reference", STACKS, id="reference", marks=pytest.mark.slow),
    ],
)
def test_three_layers_match_finite_differences(backend, stacks, report):
    errors: dict[tuple[str, str], float] = {}
    entries = 0
    for stack in stacks:
        found, checked = assert_exact(stack, backend)
        errors = {key: max(value, errors.get(key, 0)) for key, value in found.items()}
        entries += checked
    assert entries >= 140 * len(stacks)
    intro = f"EventProp vs finite differences, max relative error {max(errors.values()):.1e}"
    report(f"{intro} ({backend}; {len(stacks)} stacks, {entries} numbers)")
    report(f"  by loss: {worst(errors, 0)}")
    report(f"  by parameter: {worst(errors, 1)}")


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_stacks_spike_several_times(stack):
    """In every layer there are neurons with three spikes and more, so that resets are part of the gradients."""
    for spikes in forward(stack, *stack.draw(), "auto").layers[1:]:
        assert (spikes.counts() >= 3).sum() >= 3


@pytest.mark.slow
@needs_compiled
@pytest.mark.parametrize("seed", range(10, 26))
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_more_stacks_match_finite_differences(stack, seed):
    """Random ones, also where the numbers are so small that the differences' own rounding shows."""
    assert_exact(replace(stack, seed=seed), "cpu", rounding=1.0)


@pytest.mark.parametrize(
    "stack", [pytest.param(s, id=str(s), marks=[] if s is STACKS[0] else pytest.mark.slow) for s in STACKS]
)
def test_reference_matches_its_own_differences(stack):
    """The reference alone, along one random direction in the space of all parameters."""
    events, parameters = stack.draw()
    generator = torch.Generator().manual_seed(0)
    way = {
        name: size(name, value) * (2 * torch.rand(value.shape, dtype=F64, generator=generator) - 1)
        for name, value in parameters.items()
    }
    same = order(forward(stack, events, parameters, "reference"))
    losses = []
    with torch.no_grad():
        for k in (-2, -1, 1, 2):
            moved = {name: value + k * STEP * way[name] for name, value in parameters.items()}
            at, seen = measure(stack, events, moved, "reference")
            assert seen == same, "the order of events changed: choose another direction"
            losses.append(at)
    a, b, c, d = losses
    numbers = (a - d + 8 * (c - b)) / (12 * STEP)
    for row, (loss, by_name) in enumerate(analytic(stack, "reference").items()):
        slope = sum(float((gradient * way[name]).sum()) for name, gradient in by_name.items())
        assert slope == pytest.approx(numbers[row].item(), rel=BOUND), loss


@needs_compiled
def test_stacks_have_maxima_at_arrivals():
    """The maximum is exact also in the kink at an arrival: such ones are among those compared."""
    kinks = [k for stack in STACKS for arrivals in forward(stack, *stack.draw(), "cpu").peaks[::2] for k in arrivals]
    assert sum(k >= 0 for k in kinks) >= 3


# ---- torch's own checks ------------------------------------------------------------------------------------


def one_layer(
    backend: str, read: Callable[[Events, Voltage], Tensor], **given: float
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A small layer with seconds for milliseconds, to suit gradcheck, as a function of all it depends on."""
    times = torch.tensor([0.1, 0.42, 0.75], dtype=F64)
    sizes = torch.ones_like(times)
    events = Events(times, torch.tensor([0, 1, 0]), torch.tensor([0, 3]), 2, 2.0, sizes)
    weight = torch.tensor([[4.0, 2.5], [3.0, 5.5]], dtype=F64)
    values = {"tau_mem": 1.0, "tau_syn": 0.4, "threshold": 1.0, "reset": -0.1, "bias": 0.15} | given
    parameters = [torch.tensor(values[name], dtype=F64) for name in NAMES]

    def call(times: Tensor, sizes: Tensor, weight: Tensor, *neuron: Tensor) -> Tensor:
        moved = Events.trusted(times, events.units, events.offsets, 2, events.duration, sizes)
        named = dict(zip(NAMES, neuron, strict=True))
        return read(*lif(moved, weight, return_voltage=True, backend=backend, **named))

    return call, [x.clone().requires_grad_() for x in (times, sizes, weight, *parameters)]


READ = {
    "times": lambda spikes, voltage: spikes.times,
    "integral": lambda spikes, voltage: voltage.integral(decay=0.7),
    "samples": lambda spikes, voltage: voltage.at(torch.tensor([0.33, 1.1], dtype=F64)),
    "maximum": lambda spikes, voltage: voltage.max(),
}


@on_both_backends
@pytest.mark.parametrize("read", READ)
def test_gradcheck(read, backend):
    call, inputs = one_layer(backend, READ[read], threshold=6.0 if read == "maximum" else 1.0)
    assert torch.autograd.gradcheck(call, inputs, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("read", "tau_syn"),
    [*((read, 0.4) for read in READ), ("maximum", 1.0)]
    + [pytest.param(read, 1.0, marks=pytest.mark.slow) for read in ("times", "integral")],
)
def test_reference_differentiates_twice(read, tau_syn):
    call, inputs = one_layer("reference", READ[read], tau_syn=tau_syn, threshold=6.0 if read == "maximum" else 1.0)
    assert torch.autograd.gradgradcheck(call, inputs, atol=1e-5, rtol=1e-5, fast_mode=True)


@needs_compiled
@pytest.mark.parametrize("read", ["times", "maximum"])
def test_compiled_refuses_to_differentiate_twice(read):
    call, inputs = one_layer("cpu", READ[read], threshold=6.0 if read == "maximum" else 1.0)
    weight = inputs[2]
    (slope,) = torch.autograd.grad(call(*inputs).sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no double backward.*backend='reference'"):
        torch.autograd.grad(slope.sum(), weight)
