"""Sparse binary codes: sets of active units by their indices, many of them packed behind each other.

Ahmad and Hawkins, How do neurons operate on sparse distributed representations? arXiv:1601.00720, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from eventnet.layers.whole import whole_at_least

__all__ = ["Codes", "offsets_of"]


@dataclass(frozen=True, eq=False)
class Codes:
    """A packed, ragged batch of sparse binary codes: which of ``num_units`` units are active.

    Args:
        units: ``(E,)`` integers in ``[0, num_units)``, none twice in one code, in any order; kept as int64.
        offsets: ``(B + 1,)`` integers; code ``b`` is ``units[offsets[b]:offsets[b + 1]]``.
        num_units: number of units.

    Raises:
        ValueError, TypeError: on anything else; the message names the code and the unit.

    Example:
        >>> codes = Codes.from_list([[4, 1], []], num_units=5)
        >>> codes.batch_size, codes.offsets.tolist()
        (2, [0, 2, 2])
    """

    units: Tensor
    offsets: Tensor
    num_units: int

    def __post_init__(self) -> None:
        for name in ("units", "offsets"):
            x = getattr(self, name)
            if not isinstance(x, Tensor) or x.dim() != 1 or not _of_integers(x):
                got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(
                    f"Codes: {name} must be a one-dimensional tensor of integers, got {got}; from_list takes lists"
                )
            object.__setattr__(self, name, x.to(torch.int64))
        object.__setattr__(self, "num_units", whole_at_least(0, self.num_units, "Codes: num_units"))
        units, offsets = self.units, self.offsets
        if not offsets.numel() or offsets[0] != 0 or offsets[-1] != units.numel() or bool((offsets.diff() < 0).any()):
            raise ValueError(
                f"Codes: offsets must ascend from 0 to the number of active units, {units.numel()} (B + 1 numbers for B "
                f"codes), got {offsets.tolist()[:8]}{'...' if offsets.numel() > 8 else ''}"
            )
        self._refuse((units < 0) | (units >= self.num_units), units, f"is outside [0, {self.num_units})")
        key, order = torch.sort(self.rows() * self.num_units + units)
        again = torch.zeros_like(units, dtype=torch.bool)
        again[order[1:]] = key[1:] == key[:-1]
        self._refuse(again, units, "is there twice; a code is a set")

    def _refuse(self, bad: Tensor, units: Tensor, why: str) -> None:
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise ValueError(f"Codes: code {int(self.rows()[i])}: unit {int(units[i])} {why}")

    @classmethod
    def trusted(cls, units: Tensor, offsets: Tensor, num_units: int) -> Codes:
        """Build without checks, from int64 tensors that are known to be right."""
        codes = object.__new__(cls)
        for name, value in (("units", units), ("offsets", offsets), ("num_units", num_units)):
            object.__setattr__(codes, name, value)
        return codes

    @classmethod
    def from_list(cls, codes: Sequence[Any] | Tensor, num_units: int) -> Codes:
        """Pack one sequence or tensor of units for each code (a tensor ``(B, a)``: one row for each)."""
        sets = [torch.as_tensor(code) for code in codes]
        for i, x in enumerate(sets):
            if x.dim() != 1:
                raise TypeError(
                    f"Codes: code {i} has shape {tuple(x.shape)}; expected a list of units for each code, as in [[3, 5, 8]] "
                    "for one code of three units"
                )
        sets = [x.to(torch.int64) if x.numel() == 0 else x for x in sets]  # torch makes an empty list float
        units = torch.cat(sets) if sets else torch.empty(0, dtype=torch.int64)
        return cls(units, offsets_of(torch.tensor([x.numel() for x in sets], dtype=torch.int64)), num_units)

    @classmethod
    def random(
        cls,
        batch: SupportsIndex,
        num_units: SupportsIndex,
        active: SupportsIndex,
        *,
        generator: torch.Generator | None = None,
    ) -> Codes:
        """``batch`` codes of ``active`` units each, every such set equally likely; drawn on the CPU.

        Example:
            >>> Codes.random(3, num_units=1000, active=20).units.shape
            torch.Size([60])
        """
        batch = whole_at_least(0, batch, "Codes.random: batch")
        num_units = whole_at_least(0, num_units, "Codes.random: num_units")
        active = whole_at_least(0, active, "Codes.random: active")
        if active > num_units:
            raise ValueError(f"Codes.random: expected 0 <= active <= num_units, got {active} of {num_units}")
        drawn = min(active, num_units - active)  # or those that are not active
        sets = torch.randint(max(num_units, 1), (batch, drawn), generator=generator)
        while True:  # drawing what is there twice again treats all units alike, so the sets stay equally likely
            sets = sets.sort(1).values
            again = torch.nn.functional.pad(sets.diff(dim=1) == 0, (min(drawn, 1), 0))
            if not bool(again.any()):
                break
            sets[again] = torch.randint(num_units, (int(again.sum()),), generator=generator)
        if drawn < active:
            others = torch.ones(batch, num_units, dtype=torch.bool).scatter_(1, sets, False)
            sets = others.nonzero()[:, 1].reshape(batch, active)
        return cls.trusted(sets.reshape(-1), torch.arange(batch + 1) * active, num_units)

    @property
    def batch_size(self) -> int:
        """Number of codes."""
        return self.offsets.numel() - 1

    def sizes(self) -> Tensor:
        """``(B,)`` number of active units of each code."""
        return self.offsets.diff()

    def rows(self) -> Tensor:
        """``(E,)`` the code to which each active unit belongs."""
        return torch.repeat_interleave(self.sizes(), output_size=self.units.numel())

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on another device."""
        return Codes.trusted(self.units.to(device), self.offsets.to(device), self.num_units)

    def to_list(self) -> list[list[int]]:
        """The active units of each code."""
        units, offsets = self.units.tolist(), self.offsets.tolist()
        return [units[start:stop] for start, stop in pairwise(offsets)]


def _of_integers(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def offsets_of(sizes: Tensor) -> Tensor:
    """``(B + 1,)``: where each of ``(B,)`` pieces of these sizes starts when they lie behind each other, and the end."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
