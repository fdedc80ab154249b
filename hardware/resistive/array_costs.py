"""What the operations of resistive arrays cost, each coefficient a range with its source and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from eventnet.hardware.energy_profiles import Coefficient, energy_profile

__all__ = ["ARRAY_CAUSES", "BLOCK", "CLOCKED", "ArrayCosts"]

ARRAY_CAUSES = ("cells", "drivers", "converters", "digital", "buffers", "neurons")
BLOCK = 64  # rows, and columns, of the arrays that SpikeSim's figures are for


@dataclass(frozen=True)
class ArrayCosts:
    """Joules of what arrays and the circuits around them do.

    Args:
        cells: for a cell and a read, where no ``voltage`` is given.
        drivers: for a row of an array that gets one bit.
        converters: for a conversion, by bits.
        digital: for an addition.
        buffers: for a read of an array of 64 x 64 cells.
        neurons: for a neuron and step.
        voltage, read_time: V and t of ``V^2 G t``, volts and seconds; None: ``cells`` serves.

    Example:
        >>> import dataclasses
        >>> ohmic = dataclasses.replace(CLOCKED, voltage=0.2, read_time=10e-9)  # of your chip
        >>> ohmic.conversion(8).low, ohmic.unverified[:2]
        (1.67e-12, ('drivers', 'converters_4_bits'))

    Raises:
        ValueError: a coefficient that is not in joules, only one of voltage and read_time, or not > 0.
    """

    cells: Coefficient
    drivers: Coefficient
    converters: Mapping[int, Coefficient]
    digital: Coefficient
    buffers: Coefficient
    neurons: Coefficient
    voltage: float | None = None
    read_time: float | None = None

    def __post_init__(self) -> None:
        for name, each in self.numbers.items():
            if each.unit != "J":
                raise ValueError(f"{name}: expected a coefficient in J, got one in {each.unit}")
        given = [each for each in (self.voltage, self.read_time) if each is not None]
        if len(given) == 1 or not all(math.isfinite(each) and each > 0 for each in given):
            raise ValueError(
                f"expected voltage and read_time > 0, or neither, got voltage={self.voltage}, read_time={self.read_time}"
            )
        object.__setattr__(self, "converters", MappingProxyType(dict(self.converters)))

    @property
    def numbers(self) -> dict[str, Coefficient]:
        """Every coefficient, by name; those of the converters as ``converters_8_bits``."""
        found = {name: getattr(self, name) for name in ARRAY_CAUSES if name != "converters"}
        return {**found, **{f"converters_{bits}_bits": each for bits, each in self.converters.items()}}

    @property
    def unverified(self) -> tuple[str, ...]:
        """The coefficients for which no first-hand source was read."""
        return tuple(name for name, each in self.numbers.items() if each.status == "unverified")

    def conversion(self, bits: int) -> Coefficient:
        """Joules of a conversion of so many bits.

        Raises:
            ValueError: no figure for these bits.
        """
        if bits not in self.converters:
            raise ValueError(
                f"adc_bits: a figure is known for {', '.join(map(str, self.converters))} bits, got {bits!r}"
            )
        return self.converters[bits]


# ---- numbers from publications --------------------------------------------------------------------------------------

ACCELERGY = "as quoted in Accelergy's hwcomponents-library, isaac.py; the paper's own table was not read"
ISAAC = "ISAAC (Shafiee et al., ISCA 2016), 32 nm"
ISAAC_ADC = {4: 0.79e-12, 5: 0.99e-12, 6: 1.20e-12, 7: 1.42e-12, 8: 1.67e-12, 9: 1.97e-12, 10: 2.38e-12}
_SPIKESIM = energy_profile("in_memory").coefficients
_PER_ARRAY = BLOCK**2  # of these coefficients, which are for one of the operations of a full read


def _of_spikesim(name: str, share: float) -> Coefficient:
    """What one read of 64 x 64 cells costs, divided evenly."""
    given = _SPIKESIM[name]
    joules = given.low * _PER_ARRAY / share
    source = f"{given.source.split(';')[0]}; for one of {share:g} parts of a read of 64 x 64 cells"
    return Coefficient(joules, joules, "J", source, given.status)


_FOUR_BITS = _of_spikesim("accumulates_converters", BLOCK)  # one column


def _converter(bits: int) -> Coefficient:
    """From ISAAC's figure, scaled by its energy of a capacitor array, to SpikeSim's, doubled for each bit beyond its four."""
    high = _FOUR_BITS.high * 2.0 ** (bits - 4)
    source = (
        f"low: {ISAAC}, 16 mW for 8 converters of 8 bits at 1.2 GS/s, scaled to {bits} bits, {ACCELERGY}; "
        f"high: {_FOUR_BITS.source}, of 4 bits, at a constant figure of merit (Walden 1999): doubled for each bit"
    )
    return Coefficient(ISAAC_ADC[bits], high, "J", source, "unverified")


CLOCKED = ArrayCosts(
    cells=_of_spikesim("accumulates_cells", _PER_ARRAY),
    drivers=Coefficient(0.41667e-12, 0.41667e-12, "J", f"{ISAAC}, DAC of 1 bit, for a row, {ACCELERGY}", "unverified"),
    converters={bits: _converter(bits) for bits in ISAAC_ADC},
    digital=energy_profile("asic45").coefficients["accumulates"],
    buffers=_of_spikesim("accumulates_buffers", 1),
    neurons=_SPIKESIM["state_updates"],
)
"""Arrays that are read in every step: cells, buffers and neurons of SpikeSim (65 nm, RRAM), additions of Horowitz (45 nm),
drivers of ISAAC (32 nm), converters between ISAAC's and SpikeSim's."""
