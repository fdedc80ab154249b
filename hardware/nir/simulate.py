"""A NIR graph in steps of ``dt``: what a file says, run.

A graph holds differential equations. How a computer steps them is not in it, and every tool has its own way: these are
``Rules``. With a = 1 - dt/tau_syn and b = 1 - dt/tau_mem (forward Euler), a step of a current-based neuron is

    I <- a I + (1 - a) w_in S,   V <- b V + (1 - b) (v_leak + r I),   a spike where V > v_threshold, then V <- v_reset

What a neuron sends goes through the whole graph in the same step, and takes one step on a way that leads back to the neuron.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eventnet.hardware.nir.files import NEURONS, RESETTING
from eventnet.hardware.nir.graph import Flat

if TYPE_CHECKING:
    import nir

__all__ = ["Rules", "Simulation", "Traces", "simulate", "to_steps"]

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


class Traces(NamedTuple):
    """What each neuron node did: spikes (0 or 1), voltages after the step, and voltages before the reset of those that spiked,
    ``(T, B, ...)`` by the name of the node."""

    spikes: Mapping[str, Tensor]
    voltages: Mapping[str, Tensor]
    before_reset: Mapping[str, Tensor]


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
        self.voltage = self.before_reset = self._start()
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
        self.voltage = self.before_reset = voltage.expand(signal.shape)
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


# ---- the graph, step by step -----------------------------------------------------------------------------------------------


class Simulation:
    """A graph under way: each call goes on from where the one before ended, so that a long run can be cut in pieces.

    Args:
        flat: the graph.
        rules: how it is stepped.
        batch: samples.

    Raises:
        ValueError: a step is longer than a time constant; what ``flatten`` lets pass and no step can do.
    """

    def __init__(self, flat: Flat, rules: Rules, batch: int) -> None:
        self.flat, self.batch, self.ways = flat, batch, _ways(flat, rules)
        self.nodes = {
            name: STEPS[flat.kind(name)](name, flat.nodes[name], rules, _is_late(flat, name)) for name in flat.order
        }
        self.neurons = {name: node for name, node in self.nodes.items() if isinstance(node, Neuron)}
        self.outputs = {name: torch.zeros(batch, *node.r.shape, dtype=DTYPE) for name, node in self.neurons.items()}

    def __call__(self, raster: Tensor) -> tuple[Tensor, Traces]:
        """The output ``(T, B, ...)`` for the next steps of input, and what each neuron did; see ``simulate``."""
        raster = _as_input(raster, self.flat)
        if raster.shape[1] != self.batch:
            raise ValueError(f"expected as many samples as before, {self.batch}, got {raster.shape[1]}")
        outputs, states = [], []
        for arriving in raster:
            self._step(arriving)
            outputs.append(self.outputs[self.flat.output])
            states.append(self._state())
        return torch.stack(outputs), _stacked(states)

    def state(self) -> Traces:
        """What the neurons are at now, as the traces of one step: before the first call, how they start."""
        return _stacked([self._state()])

    def _step(self, arriving: Tensor) -> None:
        before, self.outputs = self.outputs, {}
        for name in self.flat.order:
            signals = [(before if late else self.outputs)[source] * size for source, late, size in self.ways[name]]
            self.outputs[name] = self.nodes[name](sum(signals[1:], signals[0]) if signals else arriving)

    def _state(self) -> Traces:
        spikes = {name: self.outputs[name] for name in self.neurons if self.flat.kind(name) in RESETTING}
        voltages = {name: node.voltage.expand_as(self.outputs[name]) for name, node in self.neurons.items()}
        before = {name: self.neurons[name].before_reset.expand_as(x) for name, x in spikes.items()}
        return Traces(spikes, voltages, before)


def _stacked(states: list[Traces]) -> Traces:
    """States one after the other, as traces."""
    parts = zip(*states, strict=True)
    return Traces(*({name: torch.stack([each[name] for each in part]) for name in part[0]} for part in parts))


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
    return Simulation(flat, rules, raster.shape[1])(raster)


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
