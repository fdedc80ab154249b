"""The problems that are measured: layer sizes, batch, and how many events arrive when.

Events are drawn at random from a fixed seed: units evenly, times evenly over the window. The weights are
scaled so that the hidden layer's activity is that of a trained network; ``activity`` is the band that every
contender has to stay in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eventnet import Events

__all__ = ["SHAPES", "TAU_MEM", "TAU_SYN", "THRESHOLD", "Problem", "Shape"]

TAU_MEM, TAU_SYN, THRESHOLD = 20e-3, 5e-3, 1.0


@dataclass(frozen=True)
class Shape:
    """One row of the table of shapes.

    Args:
        layers: inputs, hidden LIF neurons, LI outputs.
        batch: samples.
        events: input events per sample, all within ``window`` seconds.
        duration: seconds that the network runs.
        steps: seconds per step that the contenders on a grid are measured at.
        weight, readout: mean and standard deviation of the normal distributions the weights are drawn from.
        activity: smallest and largest number of hidden spikes per sample that count.
        distinct: at most one event per unit.
        recurrent: standard deviation of the hidden layer's weights to itself, None without; every spike arrives
            ``recurrent_delay`` seconds later. The delay is a constant: a grid of that step has no shorter one.
        delay: smallest and largest delay in seconds, uniform, one per connection from the input, learnt; None without.
        density: share of the connections from the input that are there; the weights of the others are zero.
    """

    name: str
    layers: tuple[int, int, int]
    batch: int
    events: int
    window: float
    duration: float
    steps: tuple[float, ...]
    weight: tuple[float, float]
    readout: tuple[float, float]
    activity: tuple[int, int]
    distinct: bool = False
    recurrent: float | None = None
    recurrent_delay: float = 1e-3
    delay: tuple[float, float] | None = None
    density: float = 1.0

    @property
    def kind(self) -> str:
        """What a contender has to offer: "plain", "recurrent" or "delays"."""
        return "recurrent" if self.recurrent is not None else "plain" if self.delay is None else "delays"

    def problem(self) -> Problem:
        """The events, labels and weights of this shape: the same in every process."""
        generator = torch.Generator().manual_seed(2024)
        inputs, hidden, outputs = self.layers
        size = (self.batch, self.events)
        times = (torch.rand(size, generator=generator) * self.window).sort(1).values
        if self.distinct:
            units = torch.rand(self.batch, inputs, generator=generator).argsort(1)[:, : self.events]
        else:
            units = torch.randint(inputs, size, generator=generator)
        offsets = torch.arange(self.batch + 1) * self.events
        events = Events(times.flatten(), units.flatten(), offsets, inputs, torch.tensor(self.duration))
        w1 = self.weight[0] + self.weight[1] * torch.randn(inputs, hidden, generator=generator)
        if self.weight[0] == 0:
            w1 -= w1.mean(0)  # excitation and inhibition in balance: no drift that grows with the number of events
        w2 = self.readout[0] + self.readout[1] * torch.randn(hidden, outputs, generator=generator)
        labels = torch.randint(outputs, (self.batch,), generator=generator)
        own = delay = mask = None
        if self.recurrent is not None:
            own = self.recurrent * torch.randn(hidden, hidden, generator=generator)
            own -= own.mean(0)
        if self.delay is not None:
            low, high = self.delay
            delay = low + (high - low) * torch.rand(inputs, hidden, generator=generator)
        if self.density < 1:
            mask = torch.rand(inputs, hidden, generator=generator) < self.density
            w1 = w1 * mask
        return Problem(self, events, labels, w1, w2, own, delay, mask)


@dataclass(frozen=True)
class Problem:
    """What every contender starts from: ``w1 (inputs, hidden)``, ``w2 (hidden, outputs)``, and where the shape has them
    ``recurrent (hidden, hidden)`` and ``delay (inputs, hidden)`` in seconds, all float32, and a bool ``mask (inputs, hidden)``.
    """

    shape: Shape
    events: Events
    labels: Tensor
    w1: Tensor
    w2: Tensor
    recurrent: Tensor | None = None
    delay: Tensor | None = None
    mask: Tensor | None = None

    def part(self, samples: int) -> Problem:
        """The first ``samples`` samples."""
        return replace(self, events=self.events[:samples], labels=self.labels[:samples])


def _speech(name: str, **changes: Any) -> Shape:
    """700-256-20 over one second: a spoken digit through a cochlea."""
    shape = Shape(name, (700, 256, 20), 32, 8000, 1.0, 1.0, (1e-3,), (0.0, 0.31), (0.0, 0.1), (512, 1536))
    return replace(shape, **changes)


def _scaling(events: int, std: float) -> Shape:
    return Shape(f"scaling-{events}", (700, 256, 20), 1, events, 1.0, 1.0, (1e-3,), (0.0, std), (0.0, 0.1), (512, 1536))


_SHAPES = [
    _speech("speech-dense", steps=(1e-3, 1e-2)),
    _speech("speech-silent", weight=(0.0, 0.05), activity=(0, 0)),
    _speech("speech-recurrent", recurrent=0.2),
    _speech("speech-delays-30", delay=(0.0, 30e-3)),
    _speech("speech-delays-30-sparse", weight=(0.0, 0.85), delay=(0.0, 30e-3), density=0.1),
    _speech("speech-delays-300", weight=(0.0, 0.34), delay=(0.0, 300e-3), steps=(1e-3, 1e-2)),
    Shape("yin-yang", (5, 200, 3), 32, 5, 30e-3, 60e-3, (1e-3,), (1.5, 0.78), (0.93, 0.1), (50, 300), True),
    Shape(
        "latency",
        (784, 350, 10),
        50,
        150,
        20e-3,
        40e-3,
        (0.5e-3,),
        (0.078, 0.045),
        (0.2, 0.37),
        (260, 1050),
        True,
    ),
    Shape("vision", (2312, 512, 10), 32, 4000, 0.3, 0.3, (1e-3,), (0.0, 0.29), (0.0, 0.1), (512, 1536)),
    *(_scaling(events, std) for events, std in ((1_000, 0.87), (10_000, 0.275), (100_000, 0.088), (1_000_000, 0.0274))),
]
SHAPES = {shape.name: shape for shape in _SHAPES}
