"""Resistive memory cells: what becomes of a target conductance when it is written, when time passes, and when it is read.

    G_0 = nearest level to the target                                           (levels)
    G_1 = G_0 (1 + s_d z_d) (1 + s_c z_c)                                       (spread: of the devices, of the cycles)
    G_2 = max(0, G_1 + sigma(G_0 / G_max, t) z_p)                               (programming noise)
    G_3 = G_2 (max(t, t_0) / t_0)^-nu,   nu drawn for G_0 / G_max               (drift)
    G   = G_max or G_min where the cell is stuck, else G_3                      (stuck)
    read: G + sigma_r(G, t) z_r, z_r new for every read                         (read)

with z ~ N(0, 1), independent for every cell, and t seconds since programming. ``Cell`` holds the effects of one technology;
what is left out does not happen, and a cell of which nothing is given is ideal. Conductances are in siemens throughout.

A seed is a chip: z_d, the drift exponents and the stuck cells belong to the chip, z_c and z_p to each time it is written. All
numbers are drawn on the CPU, one after another and in float32, so that neither the number of threads nor the torch device nor
the dtype changes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eventnet.hardware.resistive.draws import normals, uniforms
from eventnet.hardware.resistive.effects import (
    HFOX_PROGRAMMING,
    PCM_PROGRAMMING,
    Drift,
    FlickerNoise,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
    check_age,
)

__all__ = ["HFOX", "PCM", "Cell", "Chip", "check_cell", "check_conductance"]

EFFECTS: dict[str, tuple[type, ...]] = {
    "spread": (Spread,),
    "programming": (ProgrammingNoise,),
    "drift": (Drift,),
    "stuck": (Stuck,),
    "read": (ReadNoise, FlickerNoise),
}


@dataclass(frozen=True)
class Cell:
    """A memory cell: its range and its effects, in the order of the module's docstring; None: it does not have that one.

    Args:
        g_max, g_min: siemens, the range of the targets.
        levels: number of conductances that can be asked for, equally spaced from g_min to g_max; None: any.
        spread, programming, drift, stuck, read: the effects.

    Raises:
        ValueError: not 0 <= g_min < g_max, fewer than two levels; in ``program``, targets out of the range or NaN.
        TypeError: an effect of another kind; in ``program``, targets that are not float32 or float64.

    Example:
        >>> from eventnet.hardware.resistive import seeded
        >>> chip = PCM.program(torch.full((1000,), 20e-6), seeded(0))
        >>> [f"{chip.at(age).mean() * 1e6:.1f} uS" for age in (0.0, 86400.0)]
        ['20.0 uS', '13.3 uS']
    """

    g_max: float = 40e-6
    g_min: float = 0.0
    levels: int | None = None
    spread: Spread | None = None
    programming: ProgrammingNoise | None = None
    drift: Drift | None = None
    stuck: Stuck | None = None
    read: ReadNoise | FlickerNoise | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.g_max) and 0 <= self.g_min < self.g_max):
            raise ValueError(f"expected 0 <= g_min < g_max, finite, got g_min={self.g_min}, g_max={self.g_max}")
        if self.levels is not None and (self.levels < 2 or self.levels != int(self.levels)):
            raise ValueError(
                f"levels: expected a whole number of at least 2, or None for any conductance, got {self.levels}"
            )

        for name, kinds in EFFECTS.items():
            given = getattr(self, name)
            if given is not None and not isinstance(given, kinds):
                names = " or ".join(each.__name__ for each in kinds)
                raise TypeError(f"{name}: expected {names}, or None, got {given!r}")

    def program(self, target: Tensor, cells: torch.Generator, writing: torch.Generator | None = None) -> Chip:
        """Cells written to ``target`` siemens, of any shape; without gradients.

        Args:
            cells: draws what belongs to the chip; the same state is the same chip.
            writing: draws what is new each time it is written; without it ``cells`` does that too.
        """
        check_conductance(target, self.g_max, self.g_min)
        target = target.detach().clamp(self.g_min, self.g_max)  # a copy, and without what the check forgives
        writing = cells if writing is None else writing
        shape = tuple(target.shape)
        if self.levels is not None:
            step = (self.g_max - self.g_min) / (self.levels - 1)
            target = self.g_min + ((target - self.g_min) / step).round() * step
        scale = deviation = exponents = stuck = None
        if self.spread is not None:
            of_cell = 1 + self.spread.device_to_device * normals(shape, cells, target)
            scale = of_cell * (1 + self.spread.cycle_to_cycle * normals(shape, writing, target))
        if self.drift is not None:
            exponents = self.drift.exponents(target / self.g_max, cells)
        if self.stuck is not None:
            drawn = uniforms(target.shape, cells, target)
            on, off = drawn < self.stuck.on, drawn >= 1 - self.stuck.off
            stuck = torch.full_like(target, torch.nan).masked_fill(on, self.g_max).masked_fill(off, self.g_min)
        if self.programming is not None:
            deviation = normals(shape, writing, target)
        return Chip(self, target, scale, deviation, exponents, stuck)


@dataclass(frozen=True, eq=False)
class Chip:
    """Cells that have been written: their conductances at any time since, and reads of them. Made by ``Cell.program``.

    Args:
        target: ``(...)`` siemens, one of the levels.
        scale, deviation: ``(1 + s_d z_d) (1 + s_c z_c)`` and z_p of each cell.
        exponents: nu of each cell.
        stuck: siemens of the cells that are stuck, NaN for the others.

    Example:
        >>> from eventnet.hardware.resistive import seeded
        >>> chip = HFOX.program(torch.full((3,), 20e-6), seeded(0))
        >>> chip.at(3600.0).shape, chip.read(3600.0, seeded(1)).shape
        (torch.Size([3]), torch.Size([3]))
    """

    cell: Cell
    target: Tensor
    scale: Tensor | None = None
    deviation: Tensor | None = None
    exponents: Tensor | None = None
    stuck: Tensor | None = None

    def at(self, age: float = 0.0) -> Tensor:
        """Conductances in siemens, ``age`` seconds after programming."""
        return self._drifted(self._written(age), age)

    def read_sigma(self, age: float = 0.0) -> Tensor | None:
        """Standard deviation of one read, in siemens; None without read noise."""
        return self.reading(age)[1]

    def reading(self, age: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """What one read finds: its mean, which is ``at(age)``, and its standard deviation, ``read_sigma(age)``."""
        written = self._written(age)
        found = self._drifted(written, age)
        if self.cell.read is None:
            return found, None
        return found, self.cell.read.sigma(found, self._or_stuck(written), self.cell.g_max, age)

    def read(self, age: float, generator: torch.Generator) -> Tensor:
        """Conductances, in siemens, as one read finds them; noise can take a small one below 0."""
        found, sigma = self.reading(age)
        return found if sigma is None else found + sigma * normals(tuple(found.shape), generator, found)

    def _written(self, age: float) -> Tensor:
        """G_2: as programmed, with the programming noise as it is at that age."""
        check_age(age)
        found = self.target
        if self.scale is not None:
            found = found * self.scale
        if self.cell.programming is not None and self.deviation is not None:
            sigma = self.cell.programming.sigma(self.target / self.cell.g_max, self.cell.g_max, age)
            found = sigma.mul_(self.deviation).add_(found)
        return found if found is self.target else found.clamp_(min=0)

    def _drifted(self, written: Tensor, age: float) -> Tensor:
        if self.cell.drift is not None and self.exponents is not None:
            written = written * self.cell.drift.factor(self.exponents, age)
        return self._or_stuck(written)

    def _or_stuck(self, found: Tensor) -> Tensor:
        return found if self.stuck is None else torch.where(self.stuck.isnan(), found, self.stuck)


def check_cell(cell: Any) -> None:
    """An error unless it is a ``Cell``."""
    if not isinstance(cell, Cell):
        raise TypeError(f"cell: expected a Cell, such as HFOX, or Cell() for an ideal one, got {cell!r}")


def check_conductance(conductance: Tensor, g_max: float, g_min: float = 0.0) -> None:
    """An error unless all are from g_min to g_max; a millionth of the range is forgiven."""
    if conductance.dtype not in (torch.float32, torch.float64):  # in half precision noise vanishes without a word
        raise TypeError(f"conductance: expected float32 or float64, got {conductance.dtype}")
    if conductance.numel() == 0:
        return
    slack = 1e-6 * (g_max - g_min)
    low, high = (each.item() for each in conductance.aminmax())
    if not (low >= g_min - slack and high <= g_max + slack):  # NaN is not either
        got = high if low >= g_min - slack else low
        raise ValueError(
            f"conductance: expected {g_min:g} to {g_max:g} S, got {got:g}; to_pair scales weights to that range"
        )


HFOX = Cell(g_max=40e-6, programming=HFOX_PROGRAMMING, read=ReadNoise(proportional=0.01))
"""HfOx ReRAM as measured by Wan et al. (Nature 2022): ``HFOX_PROGRAMMING``, and about 1 % from read to read."""

PCM = Cell(g_max=25e-6, programming=PCM_PROGRAMMING, drift=Drift(), read=FlickerNoise())
"""Phase-change memory as measured by Nandakumar et al. (ICECS 2019)."""
