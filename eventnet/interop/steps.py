"""eventnet's layers among layers of a time grid: rasters ``(T, B, N)`` in and out, with gradients through both.

In, x at step n is an event of size x at n dt, none where x is 0; the size carries the gradient, so the layer before learns from
the spikes that it had, and nothing from those that it had not. Out, a spike at t is a 1 in the step that holds t. As a spike
moves by dt, what follows sees it a step later, so the gradient of its time is the difference of the gradients of two steps,

    dL/dt = (dL/dy[n + 1] - dL/dy[n]) / dt,

which tends to the exact one as dt -> 0. As everywhere here, spikes that appear or vanish have no gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventnet.events import Events, replace_unchecked
from eventnet.interop.grid import check_step
from eventnet.layers.lif import LIF, LIFState
from eventnet.layers.readout import LI

__all__ = ["SpkMem", "StateSteps", "from_steps", "to_steps"]


class Ended(NamedTuple):
    """The state of a readout: it cannot go on."""

    steps: int


class _Steps(torch.autograd.Function):
    """A raster of events whose gradient reaches their times."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, events: Events, dt: float) -> Tensor:
        plain = replace_unchecked(events, times=times).detach()
        raster, slack = plain.to_dense(dt), 1 - torch.finfo(times.dtype).eps  # which counts times within a rounding in
        steps = (plain.times.double() / dt / slack).floor().long().clamp(max=len(raster) - 1)
        ctx.where, ctx.dt = (steps, plain.samples, plain.units.long()), dt
        ctx.counted = plain.times < plain.duration[plain.samples]
        return raster

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        step, sample, unit = ctx.where
        later = (step + 1).clamp(max=len(grad) - 1)  # at the end there is no later step, and nothing to gain
        moved = (grad[later, sample, unit] - grad[step, sample, unit]) / ctx.dt
        return torch.where(ctx.counted, moved, 0.0), None, None


def to_steps(events: Events, dt: float) -> Tensor:
    """``(T, B, N)`` spike counts per step as ``Events.to_dense``, with the gradient of the events' times; see the module.

    T is that of the longest sample, 0 of an empty batch.

    Example:
        >>> times = torch.tensor([0.0012], requires_grad=True)
        >>> raster = to_steps(Events(times, torch.tensor([0]), torch.tensor([0, 1]), 1, 0.004), dt=1e-3)
        >>> (raster[:, 0, 0] * torch.arange(4.0)).sum().backward()  # the number of its step
        >>> raster[:, 0, 0].tolist(), round(times.grad.item())  # steps per second
        ([0.0, 1.0, 0.0, 0.0], 1000)
    """
    check_step(dt)
    return _Steps.apply(events.times, events, dt)


def from_steps(raster: Tensor, dt: float) -> Events:
    """The numbers of a raster ``(T, B, N)`` as sizes of events at the starts of its steps, with its gradient where it is not 0.

    Spikes are events of size 1. Any other number x, a pixel say, is an event of size x: one for each step and unit, so a raster
    without zeros is much slower than one of spikes, or than currents into ``LIF.drive``.

    Example:
        >>> raster = torch.eye(3).reshape(3, 1, 3).requires_grad_()
        >>> from_steps(raster, dt=1e-3).values.sum().backward()
        >>> raster.grad.sum().item()
        3.0
    """
    if raster.dim() != 3:
        raise ValueError(
            f"expected all steps at once, (T, B, N), got {tuple(raster.shape)}: there is no loop over steps here"
        )
    there = raster.detach() != 0
    events = Events.from_dense(there.to(raster.dtype), dt)
    if not raster.requires_grad and bool((raster == there).all()):
        return events
    step = (events.times.double() / dt).round().long()
    return replace_unchecked(events, values=raster[step, events.samples, events.units.long()].to(events.dtype))


class StateSteps(nn.Module):
    """A layer of eventnet with Norse's calling convention: ``(T, B, N)`` and a state in, the same out.

    Spikes come out of an ``LIF``, voltages at the end of each step out of an ``LI``. An ``LIF`` goes on from the state of an
    earlier call; gradients are cut there.

    Args:
        layer: ``LIF`` or ``LI``.
        dt: seconds of a step.

    Example:
        >>> import norse.torch as norse
        >>> from eventnet import LIF
        >>> model = norse.SequentialState(StateSteps(LIF(20, 10), 1e-3), nn.Linear(10, 5), norse.LI())
        >>> voltage, state = model((torch.rand(50, 2, 20) < 0.1).float())
        >>> voltage.shape
        torch.Size([50, 2, 5])
    """

    def __init__(self, layer: LIF | LI, dt: float) -> None:
        super().__init__()
        check_step(dt)
        self.layer, self.dt = _checked(layer), dt

    def forward(self, raster: Tensor, state: LIFState | Ended | None = None) -> tuple[Tensor, LIFState | Ended]:
        """Output ``(T, B, out)`` and state for a raster ``(T, B, in)`` of spikes."""
        events = _input(raster, self.layer, self.dt)
        if isinstance(self.layer, LI):
            if state is not None:
                raise NotImplementedError("a readout LI has no state to go on from: give it the whole sequence at once")
            return _voltage(self.layer(events), events, len(raster), self.dt), Ended(len(raster))
        spikes, after = self.layer(events, state=state, return_state=True)
        return _output(spikes, len(raster), self.dt), after

    def extra_repr(self) -> str:
        return f"dt={self.dt:g}"


class SpkMem(nn.Module):
    """A layer of eventnet with snnTorch's output: ``(spk, mem)`` for a whole sequence.

    snnTorch's layers take a step at a time; this one takes all steps, for the loop over time is what eventnet does without.
    ``mem`` is the voltage at the end of each step; an ``LI`` has no spikes, its ``spk`` is 0.

    Args:
        layer: ``LIF`` or ``LI``.
        dt: seconds of a step.

    Example:
        >>> from eventnet import LIF
        >>> layer = SpkMem(LIF(20, 10), dt=1e-3)
        >>> spk, mem = layer((torch.rand(50, 2, 20) < 0.1).float())
        >>> spk.shape, mem.shape
        (torch.Size([50, 2, 10]), torch.Size([50, 2, 10]))
    """

    def __init__(self, layer: LIF | LI, dt: float) -> None:
        super().__init__()
        check_step(dt)
        self.layer, self.dt = _checked(layer), dt

    def forward(self, raster: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and voltages ``(T, B, out)`` for a raster ``(T, B, in)`` of spikes."""
        events = _input(raster, self.layer, self.dt)
        if isinstance(self.layer, LI):
            mem = _voltage(self.layer(events), events, len(raster), self.dt)
            return torch.zeros_like(mem), mem
        spikes, voltage = self.layer(events, return_voltage=True)
        return _output(spikes, len(raster), self.dt), _voltage(voltage, events, len(raster), self.dt)

    def extra_repr(self) -> str:
        return f"dt={self.dt:g}"


def _checked(layer: LIF | LI) -> LIF | LI:
    if not isinstance(layer, LIF | LI):
        raise TypeError(f"layer: expected an LIF or an LI, got {type(layer).__name__}")
    return layer


def _input(raster: Tensor, layer: LIF | LI, dt: float) -> Events:
    """In the dtype of the layer."""
    return from_steps(raster.to(layer.weight.dtype), dt)


def _output(spikes: Events, steps: int, dt: float) -> Tensor:
    """Spikes ``(T, B, N)``, with all steps also where there are no samples to tell how many."""
    raster = to_steps(spikes, dt)
    return nn.functional.pad(raster, (0, 0, 0, 0, 0, steps - len(raster)))


def _voltage(voltage: Any, events: Events, steps: int, dt: float) -> Tensor:
    """``(T, B, N)`` at the ends of the steps."""
    ends = torch.arange(1, steps + 1, dtype=events.dtype, device=events.device) * dt
    latest = events.duration.max() if len(events) else ends[-1]
    return voltage.at(ends.clamp(max=latest)).transpose(0, 1)
