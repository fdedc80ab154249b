"""Loihi's leaky integrate-and-fire neurons: their parameters, and their arithmetic as Lava 0.10.0 has it.

In step t, with M = 2^23, ``tdz(a)`` = a / 4096 rounded towards zero, and int32 throughout:

    a = what arrives in this step
    u = tdz(u (4096 - (du + 1))) + (a << 6);   once: u > M -> u - 2M,  u <= -M -> u + 2M    (a single wrap, no modulo)
    v = clip(tdz(v (4096 - dv)) + u + bias, -M + 1, M - 1)
    s = v > (vth << 6);   v = 0 where s                                     (strictly above; u is not reset)

A refractory period, in which v is held at 0, has no fixed-point model in Lava: nothing confirms ours.

Source: lava-nc 0.10.0, its process models tagged ``fixed_pt``; Davies et al., "Loihi: a neuromorphic manycore processor with
on-chip learning" (IEEE Micro, 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eventnet.hardware.checks import check_number, integers
from eventnet.hardware.network import Ints, M, Population

__all__ = ["LIFNeurons"]


@dataclass(frozen=True, eq=False)
class LIFNeurons(Population):
    """Loihi's leaky integrate-and-fire neurons; see ``help(eventnet.hardware.lif)`` for their equations.

    Args:
        name, size: of the population.
        du, dv: decays of the current, -1 to 4095 (-1: none), and of the voltage, 0 to 4096, in 1/4096 per step.
        vth: threshold in units of 64, 0 to 131,071.
        bias_mant, bias_exp: ``bias = bias_mant << bias_exp``; -4096 to 4095 and -7 to 7 (``>>`` if negative).
        u, v: current and voltage before the first step.
        reset_interval, reset_offset: if given, u and v are set to 0 before each step t (the first is 1) with
            ``t % reset_interval == reset_offset`` (Lava's LIFReset).
        refractory: steps after a spike in which v stays 0. Lava has no fixed-point model of it: nothing to compare with.

    One integer, or one for each neuron.

    Example:
        >>> LIFNeurons("hidden", 3, du=409, dv=[204, 204, 102], vth=1000).dv
        tensor([204, 204, 102], dtype=torch.int32)
    """

    kind = "lif"
    du: Ints = 4095
    dv: Ints = 0
    vth: Ints = 10
    bias_mant: Ints = 0
    bias_exp: Ints = 0
    u: Ints = 0
    v: Ints = 0
    reset_interval: int | None = None
    reset_offset: int = 0
    refractory: Ints = 0

    RANGES: ClassVar[Mapping[str, tuple[int, int]]] = {
        "du": (-1, 4095),
        "dv": (0, 4096),
        "vth": (0, 131_071),
        "bias_mant": (-4096, 4095),
        "bias_exp": (-7, 7),
        "u": (-(2**23) + 1, 2**23 - 1),
        "v": (-(2**23) + 1, 2**23 - 1),
        "refractory": (0, 2**20),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in self.RANGES.items():
            value = integers(f"{self.name}.{name}", getattr(self, name), low, high, shape=(self.size,))
            object.__setattr__(self, name, value)
        if self.reset_interval is not None:
            interval = check_number(f"{self.name}.reset_interval", self.reset_interval, 1, 2**31 - 1)
            object.__setattr__(self, "reset_interval", interval)
            object.__setattr__(self, "reset_offset", int(self.reset_offset) % interval)

    @property
    def bias(self) -> Tensor:
        """What a step adds to v, ``(size,)``."""
        exponent = self.bias_exp
        return torch.where(
            exponent >= 0, self.bias_mant << exponent.clamp(min=0), self.bias_mant >> (-exponent).clamp(min=0)
        )

    def before_reset(self, u: Tensor, v: Tensor) -> Tensor:
        """v before the reset of those that fired, of a run from the first step on: from its recorded u and v ``(T, B, N)``."""
        start, dv, bias = (x.to(v.device) for x in (self.v, self.dv, self.bias))
        before = torch.cat([start.expand_as(v[:1]), v[:-1]])
        if self.reset_interval is not None:
            step = torch.arange(1, len(v) + 1, device=v.device)
            before = before * (step % self.reset_interval != self.reset_offset)[:, None, None]
        moved = towards_zero(before.long() * (4096 - dv.long())) + u + bias
        return moved.clamp(-M + 1, M - 1)

    def stepper(self, device: torch.device) -> LIFStepper:
        """The neurons at work."""
        return LIFStepper(self, device)


class LIFStepper:
    """LIF neurons at work; their state is ``u``, ``v`` and, if they are ever refractory, ``waiting``: the steps left."""

    def __init__(self, neurons: LIFNeurons, device: torch.device) -> None:
        self.u, self.v = neurons.u.to(device), neurons.v.to(device)
        self.keep_u = 4096 - (neurons.du.to(device, torch.int64) + 1)
        self.keep_v = 4096 - neurons.dv.to(device, torch.int64)
        self.bias, self.threshold = neurons.bias.to(device), (neurons.vth << 6).to(device)
        self.interval, self.offset = neurons.reset_interval, neurons.reset_offset
        self.refractory = neurons.refractory.to(device) if bool(neurons.refractory.any()) else None

    def start(self, batch: int) -> dict[str, Tensor]:
        """The state before the first step."""
        state = {"u": self.u.repeat(batch, 1), "v": self.v.repeat(batch, 1)}
        if self.refractory is not None:
            state["waiting"] = torch.zeros_like(state["u"])
        return state

    def step(self, t: int, arrived: Mapping[str, Tensor], state: dict[str, Tensor]) -> tuple[Tensor, int]:
        """One step of the equations above."""
        u, v = state["u"], state["v"]
        if self.interval is not None and t % self.interval == self.offset:
            u, v = torch.zeros_like(u), torch.zeros_like(v)
        u = towards_zero(u * self.keep_u) + (arrived[""] << 6)
        high, low = u > M, u <= -M
        u = torch.where(high, u - 2 * M, torch.where(low, u + 2 * M, u))
        moved = towards_zero(v * self.keep_v) + u + self.bias
        v = moved.clamp(-M + 1, M - 1)
        overflows = int((high | low).sum()) + int((moved != v).sum())
        if self.refractory is not None:
            v = torch.where(state["waiting"] > 0, 0, v)
        fired = v > self.threshold
        if self.refractory is not None:
            state["waiting"] = torch.where(fired, self.refractory, (state["waiting"] - 1).clamp(min=0))
        state["u"], state["v"] = u, v.masked_fill(fired, 0)
        return fired, overflows


def towards_zero(product: Tensor) -> Tensor:
    """An int64 product / 4096, rounded towards zero, as int32."""
    return torch.div(product, 4096, rounding_mode="trunc").to(torch.int32)
