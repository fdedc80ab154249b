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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "HFOX",
    "HFOX_PROGRAMMING",
    "HFO2_STUCK",
    "PCM",
    "PCM_PROGRAMMING",
    "Cell",
    "Chip",
    "Clipped",
    "Drift",
    "FlickerNoise",
    "Forming",
    "ProgrammingNoise",
    "ReadNoise",
    "Spread",
    "Stuck",
    "check_age",
    "check_conductance",
    "normals",
    "seeded",
]

SMALLEST = 1e-7  # of g in logarithms: a cell that does not conduct drifts as one that hardly does
BLOCK = 16  # torch draws normal numbers in blocks of this many


# ---- checks ---------------------------------------------------------------------------------------------------------


def check_age(age: float) -> None:
    """An error unless it is a finite number of seconds >= 0."""
    if not (math.isfinite(age) and age >= 0):
        raise ValueError(f"age: expected seconds since programming, finite and >= 0, got {age}")


def check_conductance(conductance: Tensor, g_max: float, g_min: float = 0.0) -> None:
    """An error unless all are from g_min to g_max; a millionth of the range is forgiven."""
    if conductance.numel() == 0:
        return
    slack = 1e-6 * (g_max - g_min)
    low, high = (each.item() for each in conductance.aminmax())
    if not (low >= g_min - slack and high <= g_max + slack):  # NaN is not either
        got = high if low >= g_min - slack else low
        raise ValueError(
            f"conductance: expected {g_min:g} to {g_max:g} S, got {got:g}; to_pair scales weights to that range"
        )


def _polynomial(coefficients: tuple[float, ...], g: Tensor) -> Tensor:
    found = torch.zeros_like(g)
    for each in reversed(coefficients):
        found = found * g + each
    return found


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a share from 0 to 1, got {value}")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a number >= 0, finite, got {value}")


# ---- random numbers -------------------------------------------------------------------------------------------------


def seeded(*seed: int) -> torch.Generator:
    """A generator for a seed, or for one of the streams of a seed: ``seeded(chip, cycle)``.

    Raises:
        ValueError: a negative seed.

    Example:
        >>> torch.rand(1, generator=seeded(3)).equal(torch.rand(1, generator=seeded(3, 0)))
        False
    """
    if any(each < 0 for each in seed):
        raise ValueError(f"expected seeds >= 0, got {', '.join(map(str, seed))}")
    # The length counts too: NumPy's seed sequences take trailing zeros for nothing.
    state = np.random.SeedSequence([len(seed), *seed]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(state))


def normals(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """``shape`` standard normal numbers on the device and in the dtype of ``like``.

    Drawn row by row (rows of the last dimension) in whole blocks, so that rows drawn in several calls are those drawn in one.

    Example:
        >>> once, twice = seeded(0), seeded(0)
        >>> parts = [normals((2, 5), twice, torch.zeros(())), normals((1, 5), twice, torch.zeros(()))]
        >>> normals((3, 5), once, torch.zeros(())).equal(torch.cat(parts))
        True
    """
    *outer, last = shape or (1,)
    padded = -(-last // BLOCK) * BLOCK
    drawn = torch.randn(*outer, padded, generator=generator, dtype=torch.float32)
    return drawn[..., :last].reshape(shape).to(like.device, like.dtype)


def _uniforms(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float32).to(like.device)


# ---- what a cell does -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forming:
    """Random conductance of cells that are formed and never programmed: the weights of a random reservoir.

        G = B |N(mean, std)|,   B ~ Bernoulli(formed)

    The forming voltage sets the share of the cells that conduct, and with it the sparsity of the weights.

    Args:
        formed: share of the cells that the forming voltage makes conduct, from 0 to 1.
        mean, std: siemens.

    Source: Lin, Wang et al., "Resistive memory-based zero-shot liquid state machine for multimodal event data learning"
    (Nature Computational Science 2025).

    Example:
        >>> G = Forming(formed=0.5, mean=20e-6, std=5e-6).draw((100, 100), seeded(0))
        >>> f"{(G == 0).float().mean():.2f}", f"{G[G > 0].mean():.1e}"
        ('0.50', '2.0e-05')
    """

    formed: float
    mean: float
    std: float

    def __post_init__(self) -> None:
        _share("formed", self.formed)
        _not_negative(mean=self.mean, std=self.std)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """``shape`` conductances."""
        like = torch.empty((), dtype=dtype)
        formed = _uniforms(torch.Size(shape), generator, like) < self.formed
        return formed * (self.mean + self.std * normals(shape, generator, like)).abs()


@dataclass(frozen=True)
class ProgrammingNoise:
    """How far conductances are from their targets: a polynomial of ``g = G / G_max``, measured at some times after programming.

        sigma = (G_max / reference) sum_k c_k g^k

    Before the first time it is that of the first. Between two times it is interpolated in the logarithm of time (an assumption:
    only the times themselves were measured), with the same z: a cell that came out high stays high. One time only holds always.

    Args:
        coefficients: for each time, c_0, c_1, ... in siemens.
        reference: the G_max, in siemens, of the devices that were measured.
        times: seconds since programming, ascending.

    Raises:
        ValueError: lists of unequal length, times that do not ascend; in ``sigma``, an age after the last of several times.

    Example:
        >>> at_full = [HFOX_PROGRAMMING.sigma(torch.tensor(1.0), 40e-6, age) * 1e6 for age in (1.0, 86400.0)]
        >>> [f"{sigma:.3f} uS" for sigma in at_full]
        ['1.103 uS', '2.651 uS']
    """

    coefficients: tuple[tuple[float, ...], ...]
    reference: float
    times: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if len(self.times) != len(self.coefficients) or not self.times:
            raise ValueError(
                f"expected one polynomial for each time, got {len(self.coefficients)} for {len(self.times)} times"
            )
        if list(self.times) != sorted(set(self.times)):
            raise ValueError(f"times: expected ascending seconds, got {self.times}")
        _not_negative(first_time=self.times[0], reference=self.reference)

    def sigma(self, g: Tensor, g_max: float, age: float = 0.0) -> Tensor:
        """Standard deviation in siemens for targets ``g`` in units of ``g_max``, ``age`` seconds after programming."""
        check_age(age)
        if age > self.times[-1] and len(self.times) > 1:
            raise ValueError(
                f"programming noise was measured up to {self.times[-1]:g} s after programming, got age={age:g}"
            )
        later = next((k for k, time in enumerate(self.times) if age <= time), len(self.times) - 1)
        found = _polynomial(self.coefficients[later], g)
        if later > 0 and age < self.times[later]:
            start, end = math.log(self.times[later - 1]), math.log(self.times[later])
            share = (math.log(age) - start) / (end - start)
            found = (1 - share) * _polynomial(self.coefficients[later - 1], g) + share * found
        return found * (g_max / self.reference)


class Clipped(NamedTuple):
    """``clip(slope ln g + offset, low, high)``."""

    slope: float
    offset: float
    low: float
    high: float

    def __call__(self, g: Tensor) -> Tensor:
        """The value for ``g = G / G_max``."""
        return (self.slope * g.clamp(min=SMALLEST).log() + self.offset).clamp(self.low, self.high)


PCM_MEAN = Clipped(-0.0155, 0.0244, 0.049, 0.1)
PCM_STD = Clipped(-0.0125, -0.0059, 0.008, 0.045)


@dataclass(frozen=True)
class Drift:
    """Conductance that decays with a power of time, each cell with its own exponent.

        G(t) = G (max(t, t_0) / t_0)^-nu,   nu ~ |N(mean(g), std(g))|,   g = G / G_max of the target

    The defaults are those of phase-change memory: mean ``clip(-0.0155 ln g + 0.0244, 0.049, 0.1)``, standard deviation
    ``clip(-0.0125 ln g - 0.0059, 0.008, 0.045)``, t_0 = 20 s.

    Args:
        mean, std: of the exponent.
        start: t_0, seconds; until then nothing drifts.

    Source: Nandakumar et al., "Phase-change memory models for deep learning training and inference" (ICECS 2019);
    Joshi et al., "Accurate deep neural network inference using computational phase-change memory" (Nature Communications 2020).

    Example:
        >>> Drift().factor(torch.tensor([0.05, 0.1]), age=2000.0)
        tensor([0.7943, 0.6310])
    """

    mean: Clipped = PCM_MEAN
    std: Clipped = PCM_STD
    start: float = 20.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start > 0):
            raise ValueError(f"start: expected seconds > 0, got {self.start}")

    def exponents(self, g: Tensor, generator: torch.Generator) -> Tensor:
        """One exponent for each of the targets ``g`` in units of G_max."""
        return (self.mean(g) + self.std(g) * normals(tuple(g.shape), generator, g)).abs()

    def factor(self, exponents: Tensor, age: float) -> Tensor:
        """What is left of the conductance after ``age`` seconds, from 0 to 1."""
        check_age(age)
        return torch.exp(
            -math.log(max(age, self.start) / self.start) * exponents
        )  # pow depends on the number of threads


@dataclass(frozen=True)
class ReadNoise:
    """Fluctuation from one read to the next, independent of the age: ``sigma = sqrt((proportional G)^2 + additive^2)``.

    Args:
        proportional: share of the conductance; ReRAM about 0.01 (Wan et al., Nature 2022).
        additive: siemens.

    Example:
        >>> G = torch.tensor([10e-6])
        >>> f"{ReadNoise(0.01).sigma(G, G, 40e-6).item():.0e}"
        '1e-07'
    """

    proportional: float = 0.01
    additive: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(proportional=self.proportional, additive=self.additive)

    def sigma(self, conductance: Tensor, written: Tensor, g_max: float, age: float = 0.0) -> Tensor:
        """Standard deviation, in siemens, of one read of ``conductance``."""
        if self.additive == 0:
            return self.proportional * conductance
        return ((self.proportional * conductance) ** 2 + self.additive**2).sqrt()


@dataclass(frozen=True)
class FlickerNoise:
    """1/f noise of phase-change memory, which grows with the time since programming.

        sigma = G Q sqrt(ln((t + t_r) / (2 t_r))),   Q = min(0.2, 0.0088 / max(g^0.65, 1e-3))

    with G the conductance now and ``g = G / G_max`` as it was written; 0 until t_r. Drawn anew for every read: the correlation
    of successive reads is left out.

    Args:
        read_time: t_r, seconds.

    Source: Nandakumar et al. (ICECS 2019); Joshi et al. (Nature Communications 2020).

    Example:
        >>> G = torch.tensor([25e-6])
        >>> f"{FlickerNoise().sigma(G, G, 25e-6, age=20.0).item():.2e}"
        '9.20e-07'
    """

    read_time: float = 250e-9

    def __post_init__(self) -> None:
        if not (math.isfinite(self.read_time) and self.read_time > 0):
            raise ValueError(f"read_time: expected seconds > 0, got {self.read_time}")

    def sigma(self, conductance: Tensor, written: Tensor, g_max: float, age: float = 0.0) -> Tensor:
        """Standard deviation, in siemens, of one read of ``conductance``, written ``age`` seconds ago as ``written``."""
        check_age(age)
        power = torch.exp(0.65 * torch.log(written / g_max))  # pow depends on the number of threads
        share = (0.0088 / power.clamp(min=1e-3)).clamp(max=0.2)
        grown = math.log(max((age + self.read_time) / (2 * self.read_time), 1.0))
        return conductance * share * math.sqrt(grown)


@dataclass(frozen=True)
class Stuck:
    """Cells that no longer switch: a share is stuck on, at G_max, another off, at G_min.

    Args:
        on, off: shares of all cells, from 0 to 1, at most 1 together.

    Example:
        >>> HFO2_STUCK
        Stuck(on=0.0175, off=0.0904)
    """

    on: float = 0.0
    off: float = 0.0

    def __post_init__(self) -> None:
        _share("on", self.on)
        _share("off", self.off)
        _share("on + off", self.on + self.off)


@dataclass(frozen=True)
class Spread:
    """Relative spread of the conductance, normal: from cell to cell, fixed on a chip, and from one writing to the next.

    Args:
        device_to_device, cycle_to_cycle: standard deviations relative to the conductance; 0.1 is 10 %.

    Example:
        >>> Spread(device_to_device=0.1)
        Spread(device_to_device=0.1, cycle_to_cycle=0.0)
    """

    device_to_device: float = 0.0
    cycle_to_cycle: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(device_to_device=self.device_to_device, cycle_to_cycle=self.cycle_to_cycle)


# ---- a cell, and the cells of a chip --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A memory cell: its range and its effects, in the order of the module's docstring; None: it does not have that one.

    Args:
        g_max, g_min: siemens, the range of the targets.
        levels: number of conductances that can be asked for, equally spaced from g_min to g_max; None: any.
        spread, programming, drift, stuck, read: the effects.

    Raises:
        ValueError: not 0 <= g_min < g_max, fewer than two levels; in ``program``, targets out of the range or NaN.

    Example:
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
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels: expected at least 2, or None for any conductance, got {self.levels}")

    def program(self, target: Tensor, cells: torch.Generator, writing: torch.Generator | None = None) -> Chip:
        """Cells written to ``target`` siemens, of any shape; without gradients.

        Args:
            cells: draws what belongs to the chip; the same state is the same chip.
            writing: draws what is new each time it is written; without it ``cells`` does that too.
        """
        check_conductance(target, self.g_max, self.g_min)
        target = target.detach()
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
            drawn = _uniforms(target.shape, cells, target)
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


# ---- numbers from publications --------------------------------------------------------------------------------------

HFOX_PROGRAMMING = ProgrammingNoise(
    coefficients=(
        (0.348e-6, 16.030e-6, -43.853e-6, 45.393e-6, -16.815e-6),
        (0.701e-6, 22.086e-6, -50.773e-6, 47.095e-6, -16.458e-6),
        (0.782e-6, 20.274e-6, -43.507e-6, 37.062e-6, -11.934e-6),
    ),
    reference=40e-6,
    times=(1.0, 86_400.0, 172_800.0),
)
"""HfOx ReRAM 1 s, 1 day and 2 days after programming: Wan et al., "A compute-in-memory chip based on resistive random-access
memory" (Nature 2022), polynomials fitted to its figures by the authors of aihwkit. The mean does not drift."""

PCM_PROGRAMMING = ProgrammingNoise(coefficients=((0.26348e-6, 1.9650e-6, -1.1731e-6),), reference=25e-6)
"""Phase-change memory: Nandakumar et al., "Phase-change memory models for deep learning training and inference" (ICECS 2019)."""

HFO2_STUCK = Stuck(on=0.0175, off=0.0904)
"""Stuck cells of an HfO2 test chip. About 10 % faulty was reported; the shares, and which is which, are unverified."""

HFOX = Cell(g_max=40e-6, programming=HFOX_PROGRAMMING, read=ReadNoise(proportional=0.01))
"""HfOx ReRAM as measured by Wan et al. (Nature 2022): ``HFOX_PROGRAMMING``, and about 1 % from read to read."""

PCM = Cell(g_max=25e-6, programming=PCM_PROGRAMMING, drift=Drift(), read=FlickerNoise())
"""Phase-change memory as measured by Nandakumar et al. (ICECS 2019)."""
