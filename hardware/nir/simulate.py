"""A NIR graph in steps of ``dt``: what a file says, run.

A graph holds differential equations. How a computer steps them is not in it, and every tool has its own way: these are
``Rules``. With a = 1 - dt/tau_syn and b = 1 - dt/tau_mem (forward Euler), a step of a current-based neuron is

    I <- a I + (1 - a) w_in S,   V <- b V + (1 - b) (v_leak + r I),   a spike where V > v_threshold, then V <- v_reset

What a neuron sends goes through the whole graph in the same step, and takes one step on a way that leads back to the neuron.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eventnet.hardware.nir.files import NEURONS, RESETTING

if TYPE_CHECKING:
    import nir

__all__ = ["Flat", "Rules", "Traces", "flatten", "reached", "simulate", "to_steps"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "reset": ("to_value", "subtract"),
    "order": ("current_first", "voltage_first"),
    "convention": ("step", "charge"),
    "start": ("rest",),
    "decay": ("euler", "exponential"),
}
PASSING = ("Delay", "Flatten")  # nodes whose output is spikes if their input is
DTYPE = torch.float64


@dataclass(frozen=True)
class Rules:
    """How a graph is stepped.

    Args:
        dt: seconds of a step.
        reset: after a spike: "to_value", V becomes v_reset, or "subtract", V falls by v_threshold - v_reset.
        order: "current_first": what arrives in a step is in that step's current when the voltage is computed;
            "voltage_first": the voltage takes the current of the step before.
        convention: of a spike as a signal: "step", it is 1 for one step; "charge", it is a pulse of area 1 (1 / dt for one step).
        start: "rest": V begins at v_leak (at v_reset where that is no rest, v_leak >= v_threshold; at 0 without a leak), I at 0.
        decay: "euler", a factor of 1 - dt/tau per step, or "exponential", e^{-dt/tau}.
    """

    dt: float
    reset: str = "to_value"
    order: str = "current_first"
    convention: str = "step"
    start: str = "rest"
    decay: str = "euler"

    def __post_init__(self) -> None:
        if isinstance(self.dt, bool) or not isinstance(self.dt, int | float) or not 0 < self.dt < math.inf:
            raise ValueError(f"dt: expected seconds > 0, got {self.dt!r}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def kept(self, tau: Tensor, what: str) -> Tensor:
        """What is left after a step of something that decays with ``tau``."""
        if self.decay == "exponential":
            return torch.exp(-self.dt / tau)
        if bool((tau < self.dt).any()):
            raise ValueError(
                f"{what} is {tau.min().item():g} s, less than a step of {self.dt:g} s: forward Euler overshoots; "
                'use a smaller dt or decay="exponential"'
            )
        return 1 - self.dt / tau


@dataclass(frozen=True)
class Traces:
    """What each neuron node did: spikes (0 or 1) and voltages after the step, ``(T, B, ...)`` by the name of the node."""

    spikes: Mapping[str, Tensor]
    voltages: Mapping[str, Tensor]


# ---- nodes: each takes the signal of a step and gives that of its output ---------------------------------------------------

Step = Callable[[Tensor], Tensor]


def tensor(value: Any) -> Tensor:
    """A node's array, in the dtype of the simulation."""
    return torch.as_tensor(np.asarray(value), dtype=DTYPE)


class Neuron:
    """Any of NIR's neurons; those without current, leak or threshold leave out these parts of the equation."""

    def __init__(self, name: str, node: nir.NIRNode, rules: Rules, _late: bool) -> None:
        given = {key: tensor(value) for key, value in vars(node).items() if isinstance(value, np.ndarray)}
        self.rules, self.r = rules, given["r"]
        self.v_leak = given.get("v_leak", torch.zeros_like(self.r))
        self.v_threshold, self.v_reset = given.get("v_threshold"), given.get("v_reset")
        tau_mem, tau_syn = given.get("tau_mem", given.get("tau")), given.get("tau_syn")
        if tau_mem is None:  # an integrator: V' = r I
            self.kept, self.taken = torch.ones_like(self.r), torch.full_like(self.r, rules.dt)
        else:
            self.kept = rules.kept(tau_mem, f"{name}.tau")
            self.taken = 1 - self.kept
        self.kept_current = None if tau_syn is None else rules.kept(tau_syn, f"{name}.tau_syn")
        self.w_in = given.get("w_in", torch.ones_like(self.r))
        self.voltage = self._start()
        self.current = torch.zeros_like(self.r)

    def _start(self) -> Tensor:
        if self.v_threshold is None or self.v_reset is None:
            return self.v_leak
        return torch.where(self.v_leak >= self.v_threshold, self.v_reset, self.v_leak)

    def __call__(self, signal: Tensor) -> Tensor:
        drive = signal
        if self.kept_current is not None:
            before = self.current
            self.current = self.kept_current * before + (1 - self.kept_current) * self.w_in * signal
            drive = self.current if self.rules.order == "current_first" else before
        voltage = self.kept * self.voltage + self.taken * (self.v_leak + self.r * drive)
        self.voltage = voltage.expand(signal.shape)
        if self.v_threshold is None or self.v_reset is None:
            return self.voltage
        spikes = self.voltage > self.v_threshold
        below = self.v_reset if self.rules.reset == "to_value" else self.voltage - (self.v_threshold - self.v_reset)
        self.voltage = torch.where(spikes, below, self.voltage)
        return spikes.to(DTYPE)


class Delay:
    """Gives out what came in a number of steps before, each unit its own; if ``late``, one has passed already."""

    def __init__(self, _name: str, node: nir.Delay, rules: Rules, late: bool) -> None:
        steps = torch.as_tensor(to_steps(node.delay, rules.dt))
        self.steps = (steps - 1).clamp(min=0) if late else steps
        self.length, self.now = int(self.steps.max()) + 1 if steps.numel() else 1, 0
        self.past: Tensor | None = None

    def __call__(self, signal: Tensor) -> Tensor:
        if self.past is None:
            self.past = signal.new_zeros(self.length, *signal.shape)
        self.past[self.now % self.length] = signal
        index = ((self.now - self.steps) % self.length).expand(1, *signal.shape)
        self.now += 1
        return self.past.gather(0, index)[0]


def to_steps(seconds: Any, dt: float) -> np.ndarray:
    """Delays in whole steps, to the nearest."""
    return np.rint(np.asarray(seconds, dtype=np.float64) / dt).astype(np.int64)


def linear(_name: str, node: Any, _rules: Rules, _late: bool) -> Step:
    """y = W x, or W x + b."""
    weight, bias = tensor(node.weight), tensor(node.bias) if hasattr(node, "bias") else None
    return lambda signal: functional.linear(signal, weight, bias)


def convolution(_name: str, node: Any, _rules: Rules, _late: bool) -> Step:
    """Of one or two dimensions, as torch has them."""
    weight, bias = tensor(node.weight), tensor(node.bias)
    convolve = functional.conv1d if weight.dim() == 3 else functional.conv2d
    padding = node.padding if isinstance(node.padding, str) else sizes(node.padding)
    stride, dilation, groups = sizes(node.stride), sizes(node.dilation), int(node.groups)
    return lambda signal: convolve(signal, weight, bias, stride, padding, dilation, groups)


def pooling(_name: str, node: Any, _rules: Rules, _late: bool) -> Step:
    """Sums or averages (zeros of the padding counted in) of patches."""
    kernel, stride, padding = sizes(node.kernel_size), sizes(node.stride), sizes(node.padding)
    divisor = 1 if type(node).__name__ == "SumPool2d" else None
    return lambda signal: functional.avg_pool2d(signal, kernel, stride, padding, divisor_override=divisor)


def sizes(value: Any) -> tuple[int, ...]:
    """One integer or several, as a tuple."""
    return tuple(int(k) for k in np.atleast_1d(value))


def flattening(_name: str, node: nir.Flatten, _rules: Rules, _late: bool) -> Step:
    """NIR counts dimensions without the batch."""
    start, end = (int(k) + 1 if k >= 0 else int(k) for k in (node.start_dim, node.end_dim))
    return lambda signal: signal.flatten(start, end)


def scaling(_name: str, node: nir.Scale, _rules: Rules, _late: bool) -> Step:
    """y = s x, element by element."""
    scale = tensor(node.scale)
    return lambda signal: scale * signal


def threshold(_name: str, node: nir.Threshold, _rules: Rules, _late: bool) -> Step:
    """1 where the signal is above the threshold."""
    level = tensor(node.threshold)
    return lambda signal: (signal > level).to(DTYPE)


def passing(_name: str, _node: nir.NIRNode, _rules: Rules, _late: bool) -> Step:
    """Inputs and outputs."""
    return lambda signal: signal


STEPS: Mapping[str, Callable[[str, Any, Rules, bool], Step]] = {
    **dict.fromkeys(NEURONS, Neuron),
    **dict.fromkeys(("Affine", "Linear"), linear),
    **dict.fromkeys(("Conv1d", "Conv2d"), convolution),
    **dict.fromkeys(("SumPool2d", "AvgPool2d"), pooling),
    **dict.fromkeys(("Input", "Output"), passing),
    "Delay": Delay,
    "Flatten": flattening,
    "Scale": scaling,
    "Threshold": threshold,
}


# ---- the graph -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flat:
    """A graph without graphs in it, in an order in which each node comes after its sources of the same step.

    ``late`` are the edges that take a step: from a neuron, on a way that leads back to it.
    """

    nodes: Mapping[str, nir.NIRNode]
    edges: tuple[tuple[str, str], ...]
    late: frozenset[tuple[str, str]]
    order: tuple[str, ...]
    input: str = field(default="")
    output: str = field(default="")

    def kind(self, name: str) -> str:
        """The type of a node."""
        return type(self.nodes[name]).__name__

    def sources(self, name: str) -> list[str]:
        """The nodes with an edge to this one."""
        return [a for a, b in self.edges if b == name]

    def targets(self, name: str) -> list[str]:
        """The nodes that this one has an edge to."""
        return [b for a, b in self.edges if a == name]


def flatten(graph: nir.NIRGraph) -> Flat:
    """The graph with the nodes of its inner graphs in it, ``outer.inner`` by name.

    Raises:
        ValueError: not one input and one output; a loop without a neuron; an edge to a node that is not there.
    """
    nodes, edges = _spliced(graph, "")
    ends = []
    for kind in ("Input", "Output"):
        found = [name for name, node in nodes.items() if type(node).__name__ == kind]
        if len(found) != 1:
            raise ValueError(f"expected a graph with one {kind}, got {len(found)}: {', '.join(found) or 'none'}")
        ends.append(found[0])
    ahead = {name: reached(name, edges) for name in nodes}
    late = frozenset((a, b) for a, b in edges if type(nodes[a]).__name__ in NEURONS and a in ahead[b])
    sources = {name: [a for a, b in edges if b == name and (a, b) not in late] for name in nodes}
    try:
        order = tuple(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise ValueError(f"expected a neuron in every loop, got none in {' -> '.join(error.args[1])}") from None
    flat = Flat(nodes, tuple(edges), late, order, *ends)
    for name in nodes:
        if name != flat.input and not flat.sources(name):
            raise ValueError(f"node {name!r} ({flat.kind(name)}) has no source: no edge leads to it")
    return flat


def _spliced(graph: nir.NIRGraph, prefix: str) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Nodes and edges; edges to and from an inner graph end at the neighbours of its own Input and Output."""
    nodes: dict[str, nir.NIRNode] = {}
    edges = [(prefix + a, prefix + b) for a, b in graph.edges]
    for key, node in graph.nodes.items():
        name = prefix + key
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, within = _spliced(node, f"{name}.")
        ways: dict[str, list[str]] = {}
        for kind in ("Input", "Output"):
            ends = [each for each, part in inner.items() if type(part).__name__ == kind]
            if len(ends) != 1:
                raise ValueError(f"{name}: expected an inner graph with one {kind}, got {len(ends)}")
            ways[kind] = (
                [b for a, b in within if a == ends[0]] if kind == "Input" else [a for a, b in within if b == ends[0]]
            )
            within = [edge for edge in within if ends[0] not in edge]
            del inner[ends[0]]
        into = [(a, way) for a, b in edges if b == name for way in ways["Input"]]
        out = [(way, b) for a, b in edges if a == name for way in ways["Output"]]
        edges = [edge for edge in edges if name not in edge] + into + within + out
        nodes |= inner
    return nodes, edges


def reached(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes that edges lead to from ``start``."""
    targets: dict[str, list[str]] = {}
    for a, b in edges:
        targets.setdefault(a, []).append(b)
    found: set[str] = set()
    waiting = list(targets.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += targets.get(name, ())
    return found


def simulate(flat: Flat, rules: Rules, raster: Tensor) -> tuple[Tensor, Traces]:
    """The output ``(T, B, ...)`` for a raster of input spikes (or currents), and what each neuron did, in float64.

    Args:
        flat: the graph.
        rules: how it is stepped.
        raster: ``(T, B, ...)``, one number per step, sample and unit; ``(T, B, N)`` will do where units have several dimensions.

    Raises:
        ValueError: the raster does not fit the input; a step is longer than a time constant.
    """
    raster = _as_input(raster, flat)
    neurons = [name for name in flat.order if flat.kind(name) in NEURONS]
    steps = {name: STEPS[flat.kind(name)](name, flat.nodes[name], rules, _is_late(flat, name)) for name in flat.order}
    ways = _ways(flat, rules)
    outputs = {name: torch.zeros(raster.shape[1], *flat.nodes[name].r.shape, dtype=DTYPE) for name in neurons}
    record: dict[str, list[Tensor]] = {name: [] for name in (flat.output, *neurons)}
    voltages: dict[str, list[Tensor]] = {name: [] for name in neurons}
    for arriving in raster:
        before, outputs = outputs, {}
        for name in flat.order:
            signals = [(before if late else outputs)[source] * size for source, late, size in ways[name]]
            outputs[name] = steps[name](sum(signals[1:], signals[0]) if signals else arriving)
        for name, kept in record.items():
            kept.append(outputs[name])
        for name, kept in voltages.items():
            kept.append(steps[name].voltage)  # type: ignore[attr-defined]
    done = {name: torch.stack(kept) for name, kept in record.items()}
    spikes = {name: done[name] for name in neurons if flat.kind(name) in RESETTING}
    return done[flat.output], Traces(spikes, {name: torch.stack(kept) for name, kept in voltages.items()})


def _as_input(raster: Tensor, flat: Flat) -> Tensor:
    shape = sizes(flat.nodes[flat.input].output_type["output"])
    raster = torch.as_tensor(raster).to(DTYPE)
    if raster.dim() < 3 or raster.shape[0] == 0 or math.prod(raster.shape[2:]) != math.prod(shape):
        raise ValueError(
            f"expected a raster of shape (T, B, {', '.join(map(str, shape))}) with T >= 1, got {tuple(raster.shape)}"
        )
    return raster.reshape(*raster.shape[:2], *shape)


def _ways(flat: Flat, rules: Rules) -> dict[str, list[tuple[str, bool, float]]]:
    """For each node its sources: whether their output takes a step, and what it is multiplied with on its way.

    A spike is 1 until it becomes a signal, in the first node that does not just pass it on.
    """
    spiking = {flat.input, *(name for name in flat.order if flat.kind(name) in (*RESETTING, "Threshold"))}
    passing = {flat.output}
    for name in flat.order:
        if flat.kind(name) in PASSING and all(a in spiking for a in flat.sources(name)):
            spiking.add(name)
            passing.add(name)
    height = 1 / rules.dt if rules.convention == "charge" else 1.0
    return {
        name: [
            (a, (a, name) in flat.late, height if a in spiking and name not in passing else 1.0)
            for a in flat.sources(name)
        ]
        for name in flat.order
    }


def _is_late(flat: Flat, name: str) -> bool:
    """Whether what comes to a node has spent a step on its way."""
    late = {(a, name) in flat.late for a in flat.sources(name)}
    if flat.kind(name) == "Delay" and len(late) > 1:
        raise ValueError(f"node {name!r} (Delay) has sources in a loop and others: give each its own Delay")
    return late == {True}
