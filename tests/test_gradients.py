"""Exact gradients: three LIF layers and a readout against fourth-order central differences, for every parameter.

Entry by entry: each number of each parameter is moved by 3e-6 of its size to both sides, and every loss is measured.
The order of all events must stay the same, since that is where the gradient is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from helpers import F64, ISAS, KINDS, NAMES, error, gradients, needs_compiled, on_both_backends, random_events, weighted
from torch import Tensor

from eventnet import LI, Events, Voltage, lif

STEP = 3e-6
BOUND = 1e-6
SIZES = (4, 5, 5, 4, 3)  # units of the input, of three LIF layers and of the readout

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Stack:
    """Three LIF layers and a leaky-integrator readout, with their input; ``means``: of the layers' weights."""

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
        for layer, (inputs, outputs) in enumerate(zip(SIZES, SIZES[1:], strict=False), start=1):
            mean = self.means[layer - 1] if layer < 4 else 0.0
            weight = mean + (mean or 1.0) * torch.randn(inputs, outputs, dtype=F64, generator=generator)
            if layer == 3:
                weight[:, 0] /= 20  # silent: its largest voltage is not the threshold
            parameters[f"{layer}.weight"] = weight
            for name, value in KINDS[self.kind](outputs, generator).items():
                if layer < 4 or name in ("tau_mem", "tau_syn", "bias"):
                    parameters[f"{layer}.{name}"] = value
        return events, parameters


def forward(stack: Stack, events: Events, parameters: Parameters, backend: str) -> tuple[dict[str, Tensor], list[Events]]:
    """All losses by name, and the events of every layer from the input on."""
    layers = [
        Events.trusted(
            parameters["times"], events.units, events.offsets, events.num_units, events.duration, parameters.get("values")
        )
    ]
    for layer in (1, 2, 3):
        given = {name: parameters[f"{layer}.{name}"] for name in NAMES}
        out, voltage = lif(layers[-1], parameters[f"{layer}.weight"], return_voltage=True, backend=backend, **given)
        layers.append(out)
    readout = LI(SIZES[3], SIZES[4], backend=backend, dtype=F64)
    named = {name: parameters[f"4.{name}"] for name in ("weight", "tau_mem", "tau_syn", "bias")}
    membrane = torch.func.functional_call(readout, named, (layers[-1],))
    losses = {"spike time": weighted(layers[-1].times)}
    losses |= {f"readout {name}": weighted(x) for name, x in readings(membrane, stack.duration).items()}
    losses |= {f"spiking {name}": weighted(x) for name, x in readings(voltage, stack.duration).items()}
    return losses, layers


def readings(voltage: Voltage, duration: float) -> dict[str, Tensor]:
    return {
        "integral": voltage.integral(),
        "decayed integral": voltage.integral(decay=duration / 3),
        "mean": voltage.mean(),
        "samples": voltage.at(torch.tensor([0.13, 0.41, 0.73, 1.0], dtype=F64) * duration),
        "maximum": voltage.max(),
    }


def order(layers: list[Events]) -> list[object]:
    """What must not change: who fires, how often, and in which order with the events that the neurons receive."""
    found: list[object] = []
    for before, after in zip(layers, layers[1:], strict=False):
        found += [after.offsets.tolist(), after.units.tolist()]
        for b in range(before.batch_size):
            found.append(torch.cat([before[b].times, after[b].times]).argsort(stable=True).tolist())
    return found


def directions(parameters: Parameters) -> Iterator[tuple[str, int, float]]:
    """Every entry of every parameter with the step for it: relative to the parameter's size (1 where that is 0)."""
    for name, value in parameters.items():
        size = value.abs().max().item() or 1.0
        for entry in range(value.numel()):
            yield name, entry, STEP * size


@torch.no_grad()
def differences(
    measure: Callable[[Parameters], tuple[Tensor, list[object]]], parameters: Parameters
) -> tuple[dict[str, Tensor], int, int]:
    """``{name: (losses, entries)}`` by central differences, entries looked at, entries where the order would not stay.

    Where the order changes a step ten times smaller is tried; where it still does the result is NaN.
    """
    expected = measure(parameters)[1]
    found = {name: [] for name in parameters}
    failed = 0

    def moved(name: str, entry: int, amount: float) -> tuple[Tensor, bool]:
        changed = parameters[name].clone()
        changed.view(-1)[entry] += amount
        losses, seen = measure({**parameters, name: changed})
        return losses, seen == expected

    for name, entry, step in directions(parameters):
        for h in (step, step / 10):
            (a, b, c, d), same = zip(*(moved(name, entry, k * h) for k in (-2, -1, 1, 2)), strict=True)
            slope = (a - d + 8 * (c - b)) / (12 * h)
            if all(same):
                break
        else:
            slope, failed = torch.full_like(slope, torch.nan), failed + 1
        found[name].append(slope)
    checked = sum(len(slopes) for slopes in found.values()) - failed
    return {name: torch.stack(slopes, 1) for name, slopes in found.items()}, checked, failed


STACKS = [
    Stack("slow membrane", (2.5, 1.2, 1.2)),
    Stack("slow membrane", (2.5, 1.2, 1.2), graded=True),
    Stack("equal time constants", (0.8, 0.4, 0.4)),
    Stack("slow synapse", (0.6, 0.3, 0.3), seed=2),
    Stack("per neuron", (1, 0.3, 0.3), graded=True),
    Stack("tonic", (2, 0.6, 0.6)),
]
