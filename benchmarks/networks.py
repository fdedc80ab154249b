"""What the contenders share: a network to measure, and the recursion of those on a grid.

The network is inputs -> current-based LIF with synaptic current -> LI, the loss the cross-entropy of the mean
readout voltage. On a grid of step dt every library is set up to compute the same recursion (a =
e^{-dt/tau_syn}, b = e^{-dt/tau_mem}, K the exact answer of the voltage to a unit current over a step; see
``grid_gather/grid_gather.cpp``):

    I[k] = a I[k-1] + x[k],   U[k] = b V[k-1] + K I[k],   s[k] = U[k] >= threshold,   V[k] = 0 where s[k] else
    U[k]

x[k] are the weights of step k's events; of a recurrent layer also those of the spikes of step k-1; with delays an event counts
in the two steps around its arrival, by linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from shapes import TAU_MEM, TAU_SYN, Problem, Shape
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["Decay", "Network", "linear", "raster", "steps_of"]


@dataclass
class Network:
    """One contender set up for one problem.

    ``forward`` maps the problem to the mean readout voltage ``(B, outputs)`` and the number of hidden spikes
    per sample (a tensor, or a function that counts them afterwards, off the clock).
    """

    forward: Callable[[Problem], tuple[Tensor, Tensor | Callable[[], Tensor]]]
    parameters: list[nn.Parameter] = field(default_factory=list)

    def train(self, problem: Problem) -> None:
        """Forward and backward pass with fresh gradients of all weights."""
        for p in self.parameters:
            p.grad = None
        voltage, _ = self.forward(problem)
        cross_entropy(voltage, problem.labels).backward()


def raster(problem: Problem, dt: float) -> Tensor:
    """``(T, B, N)`` event counts: one scatter, faster than any library's own conversion."""
    events = problem.events
    steps, batch = steps_of(problem.shape, dt), events.batch_size
    step = (events.times * (1.0000005 / dt)).to(torch.int64).clamp_(max=steps - 1)
    where = (step * batch + events.samples) * events.num_units + events.units
    dense = torch.zeros(steps * batch * events.num_units)
    return dense.index_add_(0, where, torch.ones(where.shape)).reshape(steps, batch, -1)


def steps_of(shape: Shape, dt: float) -> int:
    return round(shape.duration / dt)


@dataclass(frozen=True)
class Decay:
    """The factors of one step."""

    dt: float

    @property
    def a(self) -> float:
        return math.exp(-self.dt / TAU_SYN)

    @property
    def b(self) -> float:
        return math.exp(-self.dt / TAU_MEM)

    @property
    def k(self) -> float:
        return TAU_SYN / (TAU_MEM - TAU_SYN) * (self.b - self.a)


def linear(weight: Tensor, gain: float) -> nn.Linear:
    """``nn.Linear`` without bias whose weight is ``gain * weight``, weight being (in, out)."""
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight.data = (gain * weight.T).contiguous()
    return layer
