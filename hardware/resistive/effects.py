"""What resistive memory cells do to a conductance: the effects that a ``Cell`` is made of, and measured ones as constants.

Each is a record of its numbers and functions that draw from a generator; conductances are in siemens, ages in seconds since
programming, ``g = G / G_max``. In which order they act: ``eventnet.hardware.resistive.devices``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eventnet.hardware.resistive.draws import normals, uniforms

__all__ = [
    "HFO2_STUCK",
    "HFOX_PROGRAMMING",
    "PCM_PROGRAMMING",
    "Clipped",
    "Drift",
    "FlickerNoise",
    "Forming",
    "ProgrammingNoise",
    "ReadNoise",
    "Spread",
    "Stuck",
    "check_age",
]

SMALLEST = 1e-7  # of g in logarithms: a cell that does not conduct drifts as one that hardly does


# ---- checks ---------------------------------------------------------------------------------------------------------


def check_age(age: float) -> None:
    """An error unless it is a finite number of seconds >= 0."""
    if not (math.isfinite(age) and age >= 0):
        raise ValueError(f"age: expected seconds since programming, finite and >= 0, got {age}")


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


# ---- effects --------------------------------------------------------------------------------------------------------


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
        >>> from eventnet.hardware.resistive import seeded
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
        formed = uniforms(torch.Size(shape), generator, like) < self.formed
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
        ValueError: lists of unequal length, empty or not finite, times that do not ascend, several that begin at 0, a reference
            that is not > 0; in ``sigma``, an age after the last of several times.

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
        if not (math.isfinite(self.times[-1]) and self.times[0] >= 0) or (len(self.times) > 1 and self.times[0] == 0):
            raise ValueError(f"times: expected finite seconds, > 0 where there are several, got {self.times}")
        if not all(each and all(map(math.isfinite, each)) for each in self.coefficients):
            raise ValueError(f"coefficients: expected c_0, c_1, ... for each time, finite, got {self.coefficients}")
        if not (math.isfinite(self.reference) and self.reference > 0):
            raise ValueError(f"reference: expected siemens > 0, got {self.reference}")

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
        mean, std: of the exponent: a number >= 0 for all cells, or a function of g, ``Clipped`` of this file.
        start: t_0, seconds; until then nothing drifts.

    Source: Nandakumar et al., "Phase-change memory models for deep learning training and inference" (ICECS 2019);
    Joshi et al., "Accurate deep neural network inference using computational phase-change memory" (Nature Communications 2020).

    Example:
        >>> Drift().factor(torch.tensor([0.05, 0.1]), age=2000.0)
        tensor([0.7943, 0.6310])
        >>> from eventnet.hardware.resistive import seeded
        >>> Drift(mean=0.05, std=0.0).exponents(torch.tensor([0.2, 1.0]), seeded(0))
        tensor([0.0500, 0.0500])
    """

    mean: Clipped | float = PCM_MEAN
    std: Clipped | float = PCM_STD
    start: float = 20.0

    def __post_init__(self) -> None:
        plain = {name: getattr(self, name) for name in ("mean", "std")}
        _not_negative(**{name: each for name, each in plain.items() if not isinstance(each, Clipped)})
        if not (math.isfinite(self.start) and self.start > 0):
            raise ValueError(f"start: expected seconds > 0, got {self.start}")

    def exponents(self, g: Tensor, generator: torch.Generator) -> Tensor:
        """One exponent for each of the targets ``g`` in units of G_max."""
        mean, std = (each(g) if isinstance(each, Clipped) else each for each in (self.mean, self.std))
        return (mean + std * normals(tuple(g.shape), generator, g)).abs()

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


# ---- as measured ----------------------------------------------------------------------------------------------------

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
