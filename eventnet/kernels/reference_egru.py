"""The specification of the event-based GRU: a loop over steps in plain torch, with autograd.

    r = sigmoid(x_r + R_r y + b_r)                    y: what the units told each other, c: what they keep to themselves,
    z = sigmoid(x_z + R_z y + b_z)                    both of the step before
    n = tanh(x_n + r (R_n y + b_n))
    v = z c + (1 - z) n                               o = 1 where v > threshold, else 0
    y = o v                                           c = v - o threshold

The step function has no derivative; in its place stands a triangle of a height and a half-width around the threshold:
``do/dv = height max(0, 1 - |v - threshold| / half_width)``. Gates are in the order of ``torch.nn.GRU``: r, z, n.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Unit(NamedTuple):
    """What a layer of units is made of: ``(3H, H)``, ``(3H,)``, ``(H,)``, and the shape of the pseudo-derivative."""

    weight: Tensor
    bias: Tensor
    threshold: Tensor
    height: float
    half_width: float


class Steps(NamedTuple):
    """Of each step ``(T, B, H)``: what was told, and the value of each unit before its threshold is taken off."""

    y: Tensor
    v: Tensor


class Fired(torch.autograd.Function):
    """1 where ``above > 0``, else 0; its derivative is the triangle."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, height: float, half_width: float) -> Tensor:
        ctx.save_for_backward(above)
        ctx.height, ctx.half_width = height, half_width
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (above,) = ctx.saved_tensors
        return grad * ctx.height * (1 - above.abs() / ctx.half_width).clamp(min=0), None, None


def egru_reference(
    drive: Tensor, unit: Unit, c: Tensor, y: Tensor, kept: Tensor | None = None, zoneout: float = 0.0
) -> Steps:
    """Steps of a layer from its drive ``(T, B, 3H)``, input products with their biases, and its state ``(B, H)`` twice.

    ``kept (T, B, H)``: where true a unit keeps its c for a step. ``zoneout``: the share that all units keep instead.
    """
    told, values = [], []
    for t, now in enumerate(
        drive.unbind(0)
    ):  # indexing drive[t] would cost a zero tensor of all steps each in the backward pass
        of_r, of_z, of_n = now.chunk(3, -1)
        back_r, back_z, back_n = (y @ unit.weight.t() + unit.bias).chunk(3, -1)
        z = torch.sigmoid(of_z + back_z)
        n = torch.tanh(of_n + torch.sigmoid(of_r + back_r) * back_n)
        v = z * c + (1 - z) * n
        if kept is not None:
            v = torch.where(kept[t], c, v)
        if zoneout:
            v = zoneout * c + (1 - zoneout) * v
        o = Fired.apply(v - unit.threshold, unit.height, unit.half_width)
        y, c = o * v, v - o * unit.threshold
        told.append(y)
        values.append(v)
    if not told:
        nothing = drive.new_zeros(0, *c.shape) + 0 * (c + y)
        return Steps(nothing, nothing)
    return Steps(torch.stack(told), torch.stack(values))
