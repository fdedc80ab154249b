"""EGRU units in plain integers: gates from tables, weights of 8 bits, what is sent as a graded spike.

In step t, with what arrived at the ports, ``x (3H,)`` from below and ``h (3H,)`` from the layer itself (gates r, z, n):

    X = (x m_x + 2^(s_x - 1) >> s_x) + b_x          r = table_r(X_r + H_r)         v = z c + (2^15 - z) n + 2^14 >> 15
    H = (h m_h + 2^(s_h - 1) >> s_h) + b_h          z = table_z(X_z + H_z)         fired where v > threshold
                                                    u = X_n + (r H_n + 2^14 >> 15)
                                                    n = table_n(u)
    sent: y = min(v + 2^(14 - bits) >> 15 - bits, 2^bits - 1) where fired, else 0;      c = v - threshold where fired, else v

``>>`` shifts towards minus infinity, and binds weaker than ``+``. X, H and u count 1 as 2^12; r, z, n, v, c and thresholds as
2^15; what is sent as 2^bits, without a sign, as thresholds are at least 0 (bits = 15: nothing is rounded). A table holds its
function at 257 places, 1/16 apart, from -8 to 8; between two places the line through them counts:

    p = clip(u, -2^15, 2^15) + 2^15,   k = min(p >> 8, 255),   f = p - (k << 8)
    table(u) = table[k] + ((table[k+1] - table[k]) f + 2^7 >> 8)

``tables()`` gives ``round(2^15 sigmoid(k/16 - 8))``, twice, and ``round(2^15 tanh(k/16 - 8))``; they are kept with the units. The
line is at most 4e-4 off; 1024 places without it would be 8e-3 off, in four times the memory. With weights that 8 bits hold and 15
bits of payload, a step from the same state is within 2^-10 of the float layer's, but where a unit is that close to its threshold.

Each projection is a hop of a step, so a layer runs that many steps after the float one. Its biases would move it from the first
step on: before ``first_step`` the units do nothing. Lava 0.10.0 has no such neuron, NIR 1.0 no such node.

Source: Subramoney, Nazeer, Schöne, Mayr & Kappel, "Efficient recurrent architectures through activity sparsity and sparse
back-propagation through time" (ICLR 2023).
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import torch
from torch import Tensor

from eventnet.hardware.checks import check_number, integers
from eventnet.hardware.network import Ints, Population

__all__ = ["EGRUUnits", "tables"]


ONE = 2**15  # of gates, states and thresholds; also where tables end: 8 of pre-activations
PRE_ONE = 2**12  # of pre-activations
PLACES = 257


@functools.cache
def tables(zoneout: float = 0.0) -> Tensor:
    """The tables of r, z and n, ``(3, 257)`` int32: the same on every machine, as they come from decimal arithmetic.

    ``zoneout``: the share of c that all units keep in any case, ``z' = zoneout + (1 - zoneout) z``.

    Example:
        >>> tables()[:, [0, 128, 144, 256]]
        tensor([[    11,  16384,  23955,  32757],
                [    11,  16384,  23955,  32757],
                [-32768,      0,  24956,  32768]], dtype=torch.int32)
    """
    with decimal.localcontext(decimal.Context(prec=30, rounding=decimal.ROUND_HALF_EVEN)):
        kept = Decimal(str(zoneout))
        places = [Decimal(k) / 16 - 8 for k in range(PLACES)]
        sigmoid = [1 / (1 + (-x).exp()) for x in places]
        tanh = [2 / (1 + (-2 * x).exp()) - 1 for x in places]
        values = [sigmoid, [kept + (1 - kept) * z for z in sigmoid], tanh]
        rounded = [[int((ONE * x).quantize(Decimal(1))) for x in row] for row in values]
    return torch.tensor(rounded, dtype=torch.int32)


@dataclass(frozen=True, eq=False)
class EGRUUnits(Population):
    """Event-based gated recurrent units; see ``help(eventnet.hardware.egru)`` for their equations.

    Projections from below end at the port ``"input"``, those of the layer itself at ``"recurrent"``; both take ``3 size``
    numbers, in the order r, z, n. In a simulation ``u`` is the pre-activation of n (of what arrives, only z is not in it), ``v``
    is c at the end of the step, and spikes are the values that are sent. A unit whose v rounds to 0 may fire unheard.

    Args:
        name, size: of the population.
        input_multiplier, input_shift, input_bias: ``m_x`` (0 to 32,767), ``s_x`` (1 to 40) and ``b_x`` (-2^20 to 2^20).
        recurrent_multiplier, recurrent_shift, recurrent_bias: ``m_h``, ``s_h`` and ``b_h``, alike.
        threshold: 0 to 2^15, of each unit.
        payload_bits: of what is sent, 1 to 15.
        first_step: the first step in which the units act.
        table: of r, z and n, ``(3, 257)``; ``tables()`` if not given.

    Each is one integer, or one for each gate and unit ``(3 size,)``; thresholds ``(size,)``.

    Example:
        >>> units = EGRUUnits("hidden", 2, input_multiplier=16384, input_shift=15, threshold=[0, 9830])
        >>> units.ports, units.threshold
        ({'input': 6, 'recurrent': 6}, tensor([   0, 9830], dtype=torch.int32))
    """

    kind = "egru"
    input_multiplier: Ints = 0
    input_shift: Ints = 1
    input_bias: Ints = 0
    recurrent_multiplier: Ints = 0
    recurrent_shift: Ints = 1
    recurrent_bias: Ints = 0
    threshold: Ints = 0
    payload_bits: int = 8
    first_step: int = 1
    table: Ints = None

    RANGES: ClassVar[Mapping[str, tuple[int, int]]] = {
        "multiplier": (0, 2**15 - 1),
        "shift": (1, 40),
        "bias": (-(2**20), 2**20),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for end in ("input", "recurrent"):
            for name, (low, high) in self.RANGES.items():
                self._keep(f"{end}_{name}", low, high, (3 * self.size,))
        self._keep("threshold", 0, ONE, (self.size,))
        if self.table is None:
            object.__setattr__(self, "table", tables())
        self._keep("table", -ONE, ONE, (3, PLACES))
        object.__setattr__(self, "table", self.table.clone())  # a file keeps no two names of one tensor
        for name, high in (("payload_bits", 15), ("first_step", 2**31 - 1)):
            object.__setattr__(self, name, check_number(f"{self.name}.{name}", getattr(self, name), 1, high))
        if self.size << (8 + self.payload_bits) > 2**31:
            raise ValueError(
                f"{self.name}: what {self.size} units tell with {self.payload_bits} bits may add up to more than 32 bits: "
                "expected fewer payload_bits"
            )

    def _keep(self, name: str, low: int, high: int, shape: tuple[int, ...]) -> None:
        object.__setattr__(self, name, integers(f"{self.name}.{name}", getattr(self, name), low, high, shape=shape))

    @property
    def ports(self) -> dict[str, int]:
        return {"input": 3 * self.size, "recurrent": 3 * self.size}

    def stepper(self, device: torch.device) -> EGRUStepper:
        """The units at work."""
        return EGRUStepper(self, device)


class EGRUStepper:
    """EGRU units at work: their state is ``v`` (c) and ``u``. Overflows are pre-activations beyond the tables, which is no harm
    where the functions are flat."""

    def __init__(self, units: EGRUUnits, device: torch.device) -> None:
        self.size, self.first, self.bits = units.size, units.first_step, units.payload_bits
        self.ends = {
            end: tuple(getattr(units, f"{end}_{name}").to(device, torch.int64) for name in units.RANGES)
            for end in ("input", "recurrent")
        }
        self.threshold, self.table = units.threshold.to(device), units.table.to(device, torch.int64)

    def start(self, batch: int) -> dict[str, Tensor]:
        """The state before the first step."""
        nothing = torch.zeros(batch, self.size, dtype=torch.int32, device=self.table.device)
        return {"u": nothing, "v": nothing.clone()}

    def step(self, t: int, arrived: Mapping[str, Tensor], state: dict[str, Tensor]) -> tuple[Tensor, int]:
        """One step of the equations above."""
        if t < self.first:
            return torch.zeros_like(state["v"]), 0
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (self.scaled(end, arrived[end]).chunk(3, 1) for end in self.ends)
        r, z = self.look(0, x_r + h_r), self.look(1, x_z + h_z)
        u = x_n + ((r * h_n + ONE // 2) >> 15)
        n = self.look(2, u)
        v = ((z * state["v"] + (ONE - z) * n + ONE // 2) >> 15).to(torch.int32)
        fired = v > self.threshold
        lost = 15 - self.bits
        sent = ((v + ((1 << lost) >> 1)) >> lost).clamp(max=2**self.bits - 1)
        state["u"], state["v"] = u.to(torch.int32), v - fired * self.threshold
        beyond = sum(int((p.abs() > ONE).sum()) for p in (x_r + h_r, x_z + h_z, u))
        return sent * fired, beyond

    def scaled(self, end: str, arrived: Tensor) -> Tensor:
        """What arrived at a port as a part of the pre-activations, ``(B, 3 size)`` int64."""
        multiplier, shift, bias = self.ends[end]
        return ((arrived * multiplier + (1 << (shift - 1))) >> shift) + bias

    def look(self, gate: int, u: Tensor) -> Tensor:
        """A gate's table between its places."""
        table = self.table[gate]
        p = u.clamp(-ONE, ONE) + ONE
        k = (p >> 8).clamp(max=PLACES - 2)
        low = table[k]
        return low + (((table[k + 1] - low) * (p - (k << 8)) + 128) >> 8)
