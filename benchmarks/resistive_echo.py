"""Echo states whose weights are conductances forecast the Mackey-Glass series: on ideal cells, and on noisy ones.

    x(t) = (1 - leak) x(t - 1) + leak tanh(gain W_in u(t) + W_rec x(t - 1)),    u(t + 1) = W_out x(t) + b

W_in and W_rec are arrays of a chip: differential pairs of random conductances, a tenth of the cells formed. W_out is digital, a
ridge readout fitted on the chip as it is. Radius, leak, gain and penalty are chosen in each repeat, on its own chip and training
points alone: fitted to the first four fifths, by the sMAPE of free forecasts of five Lyapunov times that go on into the last
fifth. Then the readout is fitted to all training points. Radii beyond 1 are not among the choices since, in a first trial of this
protocol on four repeats, which printed test scores too, one with 1.2 left the attractor.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from resistive_chips import Choice
from resistive_devices import Setting, crossbar_of, setting
from torch import Tensor, nn

from eventnet.data import mackey_glass
from eventnet.hardware.resistive import HFOX, Crossbar, RidgeReadout, seeded
from eventnet.hardware.resistive.formed import formed_pairs

__all__ = ["DEVICES", "Array", "Echo", "Shape", "forecaster", "on_chip", "run", "smape", "trials"]

UNITS, FORMED, WASHOUT = 200, 0.1, 100
TRAINING = mackey_glass.TRAINING * mackey_glass.POINTS
FITTED = TRAINING - TRAINING // 5
FREE = 5 * mackey_glass.POINTS
STARTS = tuple(range(FITTED - 4 * mackey_glass.POINTS, TRAINING - FREE + 1, 15))  # of trial forecasts
PENALTIES = tuple(10.0**k for k in range(-10, 1, 2))
DEVICES: dict[str, Setting] = {
    "echo": Setting(),
    "echo, HfOx": setting("age", 1.0),  # written once: other weights, which then do not change
    "echo, HfOx with read noise": Setting(HFOX, None, 1.0),
}


@dataclass(frozen=True)
class Shape:
    """What is chosen of an echo state."""

    radius: float = 0.7
    leak: float = 0.6
    gain: float = 1.0


SHAPES = tuple(Shape(*each) for each in itertools.product((0.7, 1.0), (0.3, 0.6), (1.0, 3.0)))


# ---- the network ----------------------------------------------------------------------------------------------------


class Array(nn.Module):
    """The product of arrays with ``gain`` times its input, and the linear layer that NeuroBench counts for it."""

    def __init__(self, crossbar: Crossbar, gain: float, noise: torch.Generator | None) -> None:
        super().__init__()
        weight = crossbar.effective_weight()
        self.linear = nn.Linear(crossbar.in_features, crossbar.out_features, bias=False, dtype=weight.dtype)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
        self.crossbar, self.gain, self.noise = crossbar, gain, noise

    def forward(self, input: Tensor) -> Tensor:
        scaled = self.gain * input
        plain = self.linear(scaled)  # also where it is not used: the harness counts calls of linear layers
        return plain if self.noise is None else self.crossbar.product(scaled, self.noise)


class Echo(nn.Module):
    """An echo state on two arrays, called as NeuroBench's models: of a batch only the first point is used."""

    def __init__(self, input: Array, recurrent: Array, leak: float) -> None:
        super().__init__()
        self.input, self.recurrent, self.tanh, self.leak = input, recurrent, nn.Tanh(), leak
        weight = recurrent.linear.weight
        self.readout = nn.Linear(len(weight), 1, dtype=weight.dtype)
        self.register_buffer("state", weight.new_zeros(1, len(weight)))  # before a forecast

    def step(self, state: Tensor, u: Tensor) -> Tensor:
        return torch.lerp(state, self.tanh(self.input(u) + self.recurrent(state)), self.leak)

    @torch.no_grad()
    def states(self, inputs: Tensor) -> Tensor:
        """``(T, B, units)`` for inputs ``(T, B, 1)``, from 0."""
        state, found = self.state.new_zeros(inputs.shape[1], self.state.shape[1]), []
        for u in inputs.unbind(0):
            state = self.step(state, u)
            found.append(state)
        return torch.stack(found)

    @torch.no_grad()
    def fit(self, states: Tensor, series: Tensor, penalty: float) -> Echo:
        """The readout, for a forecast that goes on after the last of the states."""
        ridge = fitted(states, series, penalty)
        self.readout.weight.copy_(ridge.weight.T)
        self.readout.bias.copy_(ridge.bias)
        self.state = states[-1:]
        return self

    @torch.no_grad()
    def forecast(self, states: Tensor, steps: int, readout: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """``(steps, B, 1)``: what comes after states ``(B, units)``, by itself."""
        found, readout = [], readout or self.readout
        for _ in range(steps):
            found.append(readout(states))
            states = self.step(states, found[-1])
        return torch.stack(found)

    def forward(self, batch: Tensor) -> Tensor:
        """``(T, 1, 1)``, the result ``(T, 1)``."""
        state, latest, said = self.state, batch[0], []
        for _ in batch:
            state = self.step(state, latest)
            latest = self.readout(state)
            said.append(latest[0])
        return torch.stack(said)


def on_chip(shape: Shape, devices: Setting, seed: int, units: int = UNITS) -> Echo:
    """The echo state of a chip."""
    pairs = formed_pairs(1, units, seed, **Choice(radius=shape.radius, formed=FORMED).cells)
    arrays, noisy = [], devices.cell.read is not None or devices.bits is not None
    for stream, (pair, gain) in enumerate(zip(pairs, (shape.gain, 1.0), strict=True)):
        pair = replace(pair, positive=pair.positive.double(), negative=pair.negative.double())
        crossbar = crossbar_of(pair, devices, seed, stream, bound=1.0)
        arrays.append(Array(crossbar, gain, seeded(seed, 9 + stream) if noisy else None))
    return Echo(arrays[0], arrays[1], shape.leak)


# ---- the protocol ---------------------------------------------------------------------------------------------------


def smape(said: Tensor, true: Tensor) -> float:
    """From 0 to 200, as NeuroBench's."""
    return float(200 * ((said - true).abs() / (said.abs() + true.abs())).mean())


def fitted(states: Tensor, series: Tensor, penalty: float) -> RidgeReadout:
    """From the states ``(T, units)`` of a series ``(T, 1)`` to its next points."""
    return RidgeReadout(penalty).fit(states[WASHOUT:-1], series[WASHOUT + 1 :])


def trials(echo: Echo, known: Tensor) -> list[float]:
    """Of every penalty the sMAPE of free forecasts from ``STARTS``, all at once; fitted to the first four fifths."""
    states = echo.states(known[:, None])[:, 0]
    ridges = [fitted(states[:FITTED], known[:FITTED], penalty) for penalty in PENALTIES]
    weight, bias = torch.stack([each.weight[:, 0] for each in ridges]), torch.stack([each.bias for each in ridges])

    def readouts(x: Tensor) -> Tensor:
        own = x.reshape(len(ridges), len(STARTS), -1)
        return ((own * weight[:, None]).sum(2) + bias).reshape(-1, 1)

    starts = states[[start - 1 for start in STARTS]].repeat(len(ridges), 1)
    said = echo.forecast(starts, FREE, readouts).reshape(FREE, len(ridges), len(STARTS))
    true = torch.stack([known[start : start + FREE, 0] for start in STARTS], 1)
    errors = [smape(said[:, k], true) for k in range(len(ridges))]
    return [error if math.isfinite(error) else 200.0 for error in errors]


def forecaster(known: Tensor, devices: Setting, seed: int, units: int = UNITS) -> tuple[Echo, dict[str, Any]]:
    """A chip's echo state that goes on after the training points ``known`` ``(750, 1)``, and what was chosen."""
    errors: dict[tuple[Shape, float], float] = {}
    for shape in SHAPES:
        found = trials(on_chip(shape, devices, seed, units), known)
        errors |= {(shape, penalty): error for penalty, error in zip(PENALTIES, found, strict=True)}
    shape, penalty = min(errors, key=errors.__getitem__)
    echo = on_chip(shape, devices, seed, units)
    echo.fit(echo.states(known[:, None])[:, 0], known, penalty)
    return echo, {**asdict(shape), "penalty": penalty, "validation_smape": errors[shape, penalty]}


def run(series: Tensor, repeat: int, in_harness: Callable[[Any, Tensor], dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each of ``DEVICES``; the repeat is the chip."""
    from neurobench.models import TorchModel

    rows = []
    for name, devices in DEVICES.items():
        start = time.perf_counter()
        echo, facts = forecaster(series[:TRAINING], devices, repeat)
        with torch.no_grad():
            found = in_harness(TorchModel(echo), series)
        facts["seconds"] = round(time.perf_counter() - start, 3)
        rows.append({"contender": name, "repeat": repeat, **found, **facts})
    return rows
