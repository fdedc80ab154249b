"""Cases, networks and comparisons that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eventnet import LI, Events, Voltage, lif
from eventnet.kernels import cpu

F64 = torch.float64
ISAS = [isa for isa in cpu.WIDEST_FIRST if cpu.load("baseline").supports(isa)] if cpu.load() else []
needs_compiled = pytest.mark.skipif(not ISAS, reason="the C++ kernels are not compiled in this installation")
BACKENDS = [pytest.param("cpu", marks=needs_compiled), "reference"]
on_both_backends = pytest.mark.parametrize("backend", BACKENDS)
on_every_isa = pytest.mark.parametrize("isa", ISAS or [pytest.param("none", marks=needs_compiled)])

NAMES = ("tau_mem", "tau_syn", "threshold", "reset", "bias")
LI_NAMES = ("weight", "tau_mem", "tau_syn", "bias")


@contextmanager
def compiled_for(isa: str) -> Iterator[None]:
    """Make the "cpu" backend run the build for this instruction set."""
    module = cpu.load(isa)
    with mock.patch.object(cpu, "load", lambda isa=None: module):
        yield


class Recorder(TorchDispatchMode):
    """Within it, notes what goes into and comes out of the eventnet operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.namespace == "eventnet":
            self.calls.append((function, args, result))
        return result


# ---- neurons, by what is special about them ----------------------------------------------------------------


def shared(tau_mem: float, tau_syn: float, **others: float) -> Callable[..., dict[str, Tensor]]:
    """Neurons that have the same parameters, as 0-d tensors."""
    values = {"threshold": 1.0, "reset": 0.0, "bias": 0.0} | others | {"tau_mem": tau_mem, "tau_syn": tau_syn}
    return lambda num, generator: {name: torch.tensor(values[name], dtype=F64) for name in NAMES}


def per_neuron(num: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Neurons that differ in everything; neuron 0 has equal time constants, some have tau_syn > tau_mem."""
    ranges = dict(
        tau_mem=(8e-3, 25e-3),
        tau_syn=(4e-3, 20e-3),
        threshold=(0.8, 1.3),
        reset=(-0.4, 0.3),
        bias=(-0.3, 0.4),
    )
    drawn = {}
    for name, (low, high) in ranges.items():
        drawn[name] = low + (high - low) * torch.rand(num, dtype=F64, generator=generator)
    drawn["tau_syn"][:1] = drawn["tau_mem"][:1]
    return drawn


def tonic(num: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Shared time constants; every other neuron has its bias above the threshold and fires by itself."""
    drawn = shared(18e-3, 6e-3)(num, generator)
    level = torch.rand(num, dtype=F64, generator=generator)
    restless = torch.arange(num) % 2 == 0
    return drawn | {
        "bias": torch.where(restless, 1.2 + 0.3 * level, 0.5 * level - 0.3),
        "reset": 0.3 * level - 0.2,
    }


KINDS = {
    "slow membrane": shared(20e-3, 5e-3),
    "equal time constants": shared(10e-3, 10e-3, reset=-0.2, bias=0.1),
    "slow synapse": shared(8e-3, 20e-3, threshold=1.2, reset=0.1, bias=-0.1),
    "per neuron": per_neuron,
    "tonic": tonic,
}


# ---- input and layers --------------------------------------------------------------------------------------


def random_events(
    generator: torch.Generator,
    counts: list[int],
    num_units: int,
    duration: float = 0.05,
    *,
    graded: bool = False,
    late: bool = False,
    grid: float | None = None,
) -> Events:
    """Float64 events, uniform in time; ``late``: the last fifth after the end; ``grid``: times coincide."""
    samples = []
    for count in counts:
        times = torch.rand(count, dtype=F64, generator=generator) * duration * (1.25 if late else 0.95)
        if grid is not None:
            times = (times / grid).round() * grid
        samples.append((times.sort()[0], torch.randint(num_units, (count,), generator=generator)))
    events = Events.from_list(samples, num_units, duration, dtype=F64)
    if not graded:
        return events
    values = 1 + 0.5 * torch.randn(events.num_events, dtype=F64, generator=generator)
    return replace(events, values=values)


@dataclass(frozen=True)
class Case:
    """One layer and its input, drawn from a seed."""

    kind: str
    counts: tuple[int, ...] = (12, 0, 9)
    inputs: int = 6
    outputs: int = 5
    mean: float = 3.0
    std: float = 3.0
    graded: bool = False
    late: bool = False
    grid: float | None = None
    duration: float = 0.05
    seed: int = 0

    def __str__(self) -> str:
        extra = [name for name in ("graded", "late", "grid") if getattr(self, name)]
        return " ".join([self.kind, f"{self.inputs}-{self.outputs}", f"{sum(self.counts)} events", *extra])

    def draw(self) -> tuple[Events, dict[str, Tensor]]:
        """The events, and the layer's weight and neuron parameters by name, all in float64."""
        generator = torch.Generator().manual_seed(self.seed)
        events = random_events(
            generator,
            list(self.counts),
            self.inputs,
            self.duration,
            graded=self.graded,
            late=self.late,
            grid=self.grid,
        )
        weight = self.mean + self.std * torch.randn(self.inputs, self.outputs, dtype=F64, generator=generator)
        return events, {"weight": weight, **KINDS[self.kind](self.outputs, generator)}


def with_grad(events: Events, parameters: dict[str, Tensor]) -> tuple[Events, dict[str, Tensor], dict[str, Tensor]]:
    """Fresh leaves: events, parameters, and all that require grad by name (times, values, weight, ...)."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in parameters.items()}
    inputs = {"times": events.times.detach().clone().requires_grad_()}
    if events.values is not None:
        inputs["values"] = events.values.detach().clone().requires_grad_()
    fresh = Events.trusted(
        inputs["times"], events.units, events.offsets, events.num_units, events.duration, inputs.get("values")
    )
    return fresh, leaves, inputs | leaves


def run_lif(events: Events, parameters: dict[str, Tensor], backend: str, **options: Any) -> Any:
    """``lif`` with parameters that come by name."""
    others = {name: x for name, x in parameters.items() if name != "weight"}
    return lif(events, parameters["weight"], backend=backend, **others, **options)


def run_li(events: Events, parameters: dict[str, Tensor], backend: str) -> Voltage:
    """The voltage of leaky integrators with the same weight, time constants and bias."""
    weight = parameters["weight"]
    named = {name: parameters[name] for name in LI_NAMES}
    layer = LI(*weight.shape, backend=backend, dtype=weight.dtype)
    return torch.func.functional_call(layer, named, (events,))


# ---- comparisons -------------------------------------------------------------------------------------------


def error(found: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Largest difference (beyond ``floor``) relative to the largest expected number; 0 where there are none."""
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if expected.numel() == 0:
        return 0.0
    found, expected = found.detach().to(F64), expected.detach().to(F64)
    distance = max((found - expected).abs().max().item() - floor, 0.0)
    scale = expected.abs().max().item()
    return distance / scale if scale > 0 else distance


def gradients(loss: Tensor, leaves: dict[str, Tensor], *, keep: bool = False) -> dict[str, Tensor]:
    """Gradient of ``loss`` in each leaf; all must be in its graph and finite."""
    found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), retain_graph=keep), strict=True))
    for name, gradient in found.items():
        assert torch.isfinite(gradient).all(), f"the gradient in {name} is not finite"
    return found


def ranks(events: Events) -> Tensor:
    """``(E,)``: each event is the how-manieth (from 0) of its unit in its sample."""
    keys = events._keys()
    order = keys.argsort(stable=True)
    ordered = keys[order]
    starts = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel()) - starts
    return rank


def table(events: Events, width: int | None = None) -> Tensor:
    """``(B, N, K)`` times of each unit's k-th event, ``inf`` where there is none; differentiable."""
    rank = ranks(events)
    width = width if width is not None else int(rank.max()) + 1 if rank.numel() else 0
    times = events.times.new_full((events.batch_size, events.num_units, width), torch.inf)
    return times.index_put((events.samples, events.units.to(torch.int64), rank), events.times)


def cotangent(shape: torch.Size) -> Tensor:
    """Fixed coefficients between 0.5 and 1.5, by place: (sample, neuron, number of spike, ...)."""
    phase = torch.zeros(shape, dtype=F64)
    for axis, size in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = size
        phase = phase + ((axis + 1) * 1.7 * torch.arange(size, dtype=F64)).reshape(view)
    return 1 + 0.5 * torch.cos(phase + 0.5)


def weighted(x: Tensor) -> Tensor:
    """A scalar that depends on every finite element of ``x`` with different coefficients."""
    finite = torch.isfinite(x.detach())
    return (cotangent(x.shape).to(x.dtype)[finite] * x[finite]).sum()


def drive_at(spikes: Events, events: Events, parameters: dict[str, Tensor]) -> Tensor:
    """``(K,)`` tau_mem * slope of each spike, ``bias - threshold + I``: near 0 it grazes the threshold."""
    unit = spikes.units.to(torch.int64)
    own = {name: parameters[name].expand(spikes.num_units)[unit] for name in NAMES}
    age = spikes.times[:, None] - events.times[None]
    counts = (events.samples == spikes.samples[:, None]) & (age > 0) & (events.times < events.duration[events.samples])
    size = torch.ones_like(events.times) if events.values is None else events.values
    arrived = parameters["weight"][events.units.to(torch.int64)][:, unit].T * size
    current = (torch.where(counts, arrived, 0.0) * torch.exp(-age.clamp(min=0) / own["tau_syn"][:, None])).sum(1)
    return (own["bias"] - own["threshold"] + current).detach()


# ---- one layer, everything it returns ----------------------------------------------------------------------


def layer_outputs(events: Events, parameters: dict[str, Tensor], backend: str) -> tuple[Events, dict[str, Tensor]]:
    """The spikes of a layer, and all that can be read from it and from leaky integrators with the same weight.

    "times" is the ``table`` of spike times; the others are ``(B, N)`` volts and volt seconds.
    """
    spikes, voltage = run_lif(events, parameters, backend, return_voltage=True)
    membrane = run_li(events, parameters, backend)
    return spikes, {
        "times": table(spikes),
        "LIF maximum": voltage.max(),
        "LI maximum": membrane.max(),
        "LI integral": membrane.integral(),
        "LI decayed integral": membrane.integral(decay=0.3 * float(events.duration.max())),
    }


def layer_gradients(
    events: Events, parameters: dict[str, Tensor], backend: str, mask: Tensor | None = None
) -> tuple[Events, dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """``layer_outputs`` and the gradients of a weighted sum of each; ``mask`` chooses among the spike times."""
    events, parameters, leaves = with_grad(events, parameters)
    spikes, outputs = layer_outputs(events, parameters, backend)
    found = {}
    for name, value in outputs.items():
        chosen = value if mask is None or name != "times" else torch.where(mask, value, torch.inf)
        used = {n: x for n, x in leaves.items() if n not in ("threshold", "reset") or not name.startswith("LI ")}
        found[name] = gradients(weighted(chosen), used, keep=True)
    return spikes, {name: value.detach() for name, value in outputs.items()}, found
