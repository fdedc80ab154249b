"""EGRU units in fine-tuning: forward their integers, backward straight through what is rounded.

With the numbers of a step as in ``eventnet.hardware.egru``, T' the slope of a table, L = 15 - bits and
``o' = height max(0, 1 - |v - threshold| / (half_width 2^15)) / 2^15``, the derivative of firing,

    dv = dy (o + v o') / 2^L + dc (1 - threshold o'),   dc[t-1] = dv z / 2^15,   dy[t-1] += W_h (dH m_h / 2^s_h)
    dX = dv (R, Z, N),   dH = dv (R, Z, N r / 2^15)     with N = (1 - z / 2^15) T'_n,   Z = (c[t-1] - n) / 2^15 T'_z,
                                                             R = N H_n / 2^15 T'_r

All numbers of the forward pass come from the simulation. Thresholds, biases and scales stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet.hardware.egru import ONE, PLACES, EGRUUnits
from eventnet.hardware.integer_weights import on_grid, with_weight
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork, Inputs

__all__ = ["EGRUStage"]

HEIGHT, HALF_WIDTH = 0.7, 1.0  # of the triangle that is the derivative of firing, as of EGRU


class Slopes(NamedTuple):
    """What a step's dv, dy and dc are multiplied with: ``(T, B, 3H)`` twice, ``(T, B, H)``."""

    to_below: Tensor
    to_own: Tensor
    to_c: Tensor
    of_y: Tensor
    of_c: Tensor


class EGRUStage:
    """EGRU units of a network with what comes in from below and from themselves.

    Raises:
        ValueError: not one projection onto each port.
    """

    def __init__(self, network: HardwareNetwork, units: EGRUUnits) -> None:
        self.network, self.units = network, units
        onto = [k for k, each in enumerate(network.projections) if each.target == units.name]
        self.projections = sorted(onto, key=lambda k: network.projections[k].port)
        ports = [network.projections[k].port for k in self.projections]
        if ports != ["input", "recurrent"] or network.projections[self.projections[1]].source != units.name:
            raise ValueError(f"{units.name}: expected one projection from below and one of its own, got {len(onto)}")
        if any(network.projections[k].max_delay for k in self.projections):
            raise ValueError(f"{units.name}: expected projections without delays")
        for k in self.projections:
            if not network.projections[k].message_bits:
                raise ValueError(f"{network.projections[k].name}: expected message_bits > 0, as units tell values")

    def apply(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """c and what is sent, ``(T, B, H)``, of what is heard ``(T, B, N)``, with a gradient to it and to the weights."""
        sent: tuple[Tensor, Tensor] = _Integers.apply(self, x, *weights)
        return sent

    def run(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the units tell, and their c."""
        name = self.units.name
        given = [with_weight(self.network.projections[k], w) for k, w in zip(self.projections, weights, strict=True)]
        alone = HardwareNetwork([Inputs(given[0].source, x.shape[2]), self.units], given, self.network.dt)
        spikes, _, v = simulate(alone, x.to(torch.int32), record=[name])
        return spikes[name], v[name]

    def factors(self) -> tuple[Tensor, Tensor]:
        """``multiplier / 2^shift`` of both ports, ``(3H,)``."""
        ends = ("input", "recurrent")
        pairs = [(getattr(self.units, f"{end}_multiplier"), getattr(self.units, f"{end}_shift")) for end in ends]
        below, own = (multiplier / 2.0 ** shift.double() for multiplier, shift in pairs)
        return below.float(), own.float()

    def slopes(self, x: Tensor, sent: Tensor, c: Tensor, weights: Sequence[Tensor]) -> Slopes:
        """The derivatives of all steps, from the numbers that the units had in them."""
        units, stepper = self.units, self.units.stepper(x.device)
        heard = (
            _arriving(source, w, self.network.projections[k].weight_exp)
            for source, w, k in zip((x, sent), weights, self.projections, strict=True)
        )
        steps, size = len(c), units.size
        parts = [
            stepper.scaled(end, a).unflatten(2, (3, size)).unbind(2) for end, a in zip(stepper.ends, heard, strict=True)
        ]
        (x_r, x_z, x_n), (h_r, h_z, h_n) = parts
        r, z = stepper.look(0, x_r + h_r), stepper.look(1, x_z + h_z)
        u = x_n + ((r * h_n + ONE // 2) >> 15)
        n = stepper.look(2, u)
        before = torch.cat([torch.zeros_like(c[:1]), c[:-1]]).to(torch.int64)
        v = (z * before + (ONE - z) * n + ONE // 2) >> 15
        above = (v - units.threshold.to(x.device)).float() / ONE
        v, z, r, n, before = (a.float() / ONE for a in (v, z, r, n, before))
        of_n = (1 - z) * self._slope(2, u)
        of_z = (before - n) * self._slope(1, x_z + h_z)
        of_r = of_n * (h_n.float() / ONE) * self._slope(0, x_r + h_r)
        fires = HEIGHT * (1 - above.abs() / HALF_WIDTH).clamp(min=0)
        acts = torch.arange(1, steps + 1, device=x.device)[:, None, None] >= units.first_step
        return Slopes(
            torch.cat([of_r, of_z, of_n], 2) * acts,
            torch.cat([of_r, of_z, of_n * r], 2),  # in idle steps nothing was sent to themselves
            z,
            ((above > 0) + v * fires) / 2.0 ** (15 - units.payload_bits),
            1 - units.threshold.to(x.device) / ONE * fires,
        )

    def _slope(self, gate: int, u: Tensor) -> Tensor:
        """Of a table, at these places; 0 beyond it."""
        table = self.units.table[gate].to(u.device).float()
        k = ((u + ONE) >> 8).clamp(0, PLACES - 2)
        return (table[k + 1] - table[k]) / 256 * (u.abs() <= ONE)


class _Integers(torch.autograd.Function):
    """A stage over all steps: ``x (T, B, I)`` and weights -> c and what is sent ``(T, B, H)``, as floating-point numbers."""

    @staticmethod
    def forward(ctx: Any, stage: EGRUStage, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        sent, c = stage.run(x, weights)
        ctx.stage = stage
        ctx.save_for_backward(x, sent, c, *weights)
        ctx.mark_non_differentiable(out := c.double())
        return out, sent.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Any, grad_sent: Tensor) -> Any:
        stage: EGRUStage = ctx.stage
        x, sent, c, *weights = ctx.saved_tensors
        exps = [2.0 ** stage.network.projections[k].weight_exp for k in stage.projections]
        below, own = stage.factors()
        slopes = stage.slopes(x, sent, c, weights)
        back = (on_grid(weights[1]) * exps[1]).t() * own[:, None].to(x.device)
        steps = len(c)
        dv = torch.zeros_like(grad_sent)
        dc = torch.zeros_like(grad_sent[0])
        for t in range(steps - 1, -1, -1):
            dy = grad_sent[t]
            if t + 1 < steps:
                dy = dy + (dv[t + 1].repeat(1, 3) * slopes.to_own[t + 1]) @ back
            dv[t] = dy * slopes.of_y[t] + dc * slopes.of_c[t]
            dc = dv[t] * slopes.to_c[t]
        thrice = dv.repeat(1, 1, 3)
        of_below, of_own = thrice * slopes.to_below * below.to(x.device), thrice * slopes.to_own * own.to(x.device)
        found = [
            torch.einsum("tbj,tbn->jn", source[:-1].float(), grad[1:]) * e
            for source, grad, e in zip((x, sent), (of_below, of_own), exps, strict=True)
        ]
        grad_x = None
        if ctx.needs_input_grad[1]:
            later = torch.cat([of_below[1:], torch.zeros_like(of_below[:1])])
            grad_x = later @ (on_grid(weights[0]) * exps[0]).t()
        return None, grad_x, *found


def _arriving(sent: Tensor, weight: Tensor, exponent: int) -> Tensor:
    """What arrives in each step of what was sent ``(T, B, N)`` in the one before, int64; exact, as below 2^53."""
    sums = (sent[:-1].double() @ on_grid(weight).double()) * 2.0**exponent
    return torch.cat([torch.zeros_like(sums[:1]), sums.floor()]).to(torch.int64)
