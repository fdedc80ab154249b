"""What gated units did in a call: their values, their events, and what these cost in multiplications."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from eventnet.events import Events
from eventnet.kernels.reference_egru import Fired, Unit

__all__ = ["EGRUActivity", "EGRUSteps", "within"]


def within(lengths: Tensor, steps: int) -> Tensor:
    """``(T, B)``: whether a sample of so many steps lasts as long as that."""
    return torch.arange(steps, device=lengths.device)[:, None] < lengths


@dataclass(frozen=True)
class EGRUActivity:
    """Shares of the units, and multiplications with the recurrent weight that they ask for, per sample and step.

    Args:
        forward: share that fired: of their columns of the weight alone the others hear, and they alone have a gradient.
        backward: share that fired or was within ``half_width`` of its threshold: they alone need what comes back.
        multiplications: of the forward pass, with weights that are not zero.
        backward_multiplications: of the backward pass, for the gradient of the weight and for what comes back through it.
        dense: multiplications of a pass of ``torch.nn.GRU``, which needs two of them to go back.
        events: of each unit, in all samples and steps.
    """

    forward: float
    backward: float
    multiplications: float
    backward_multiplications: float
    dense: int
    events: Tensor = field(repr=False, compare=False)


class EGRUSteps(NamedTuple):
    """What the units of a layer did, of one direction: ``(T, B, H)``, or ``(sum of lengths, H)`` step by step where samples have
    ``lengths (B,)`` of their own.

    ``y`` is what they told, ``v`` their values before the threshold ``(H,)`` is taken off those that fired.
    """

    y: Tensor
    v: Tensor
    unit: Unit
    lengths: Tensor | None = None

    @property
    def fired(self) -> Tensor:
        """1 where a unit fired, else 0, with the pseudo-derivative: its mean is the activity that a loss may hold down."""
        fired: Tensor = Fired.apply(self.v - self.unit.threshold, self.unit.height, self.unit.half_width)
        return fired

    @property
    def c(self) -> Tensor:
        """What the units keep."""
        return self.v - self.fired * self.unit.threshold

    @property
    @torch.no_grad()
    def needed(self) -> Tensor:
        """Where a gradient of what is told is of use: of units that fired, or were within ``half_width`` of their threshold."""
        above = self.v - self.unit.threshold
        return ~(above <= 0) | (above.abs() < self.unit.half_width)

    @torch.no_grad()
    def activity(self) -> EGRUActivity:
        """How many units took part, and what that costs; weights that are zero, as pruned ones, cost nothing."""
        hidden = self.unit.threshold.numel()
        events, needed = (there.reshape(-1, hidden).sum(0) for there in (self.y != 0, self.needed))
        positions = max(self.y.numel() // max(hidden, 1), 1)
        forward, backward = events.double() / positions, needed.double() / positions
        there = (self.unit.weight != 0).sum(0).double()  # of each unit's column
        ahead, back = (forward * there).sum().item(), (backward * there).sum().item()
        shares = forward.mean().item(), backward.mean().item()
        return EGRUActivity(*shares, ahead, ahead + back, 3 * hidden * hidden, events.cpu())

    def to_events(self, step: float) -> Events:
        """What was told as events of the units: at ``t * step`` seconds for step t, with their values; a sample lasts its steps.

        Gradients of values flow, those of times do not: steps are given.
        """
        if not step > 0:
            raise ValueError(f"EGRUSteps.to_events: step must be a positive number of seconds, got {step}")
        told = self.y
        if self.lengths is not None:
            there = within(self.lengths, int(self.lengths.max()))
            told = told.new_zeros(*there.shape, told.shape[-1]).masked_scatter(there[:, :, None], told)
        by_sample = told.transpose(0, 1)  # events are sorted by sample, then time
        sample, t, unit = by_sample.detach().nonzero(as_tuple=True)
        counts = torch.bincount(sample, minlength=by_sample.shape[0])
        steps = (
            by_sample.new_full((len(by_sample),), len(told)) if self.lengths is None else self.lengths.to(told.dtype)
        )
        return Events(
            (t.to(torch.float64) * step).to(told.dtype),
            unit.to(torch.int32),
            torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
            self.unit.threshold.numel(),
            steps * step,
            by_sample[sample, t, unit],
        )
