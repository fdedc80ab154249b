"""What operations cost on devices: energy profiles as data, each coefficient a range with its source and how far to trust it.

A coefficient is ``measured`` on a chip, ``synthesised`` (from a simulation of the circuit before it was made), ``estimated``
(a rough figure, or derived from another one), or ``unverified`` (copied from one second hand, or from no source that was read).
Its name is a cause of ``CAUSES``, or a cause and a part of it (``accumulates_converters``); the parts of a cause add up.
A cause that is included in another one is a zero that says so. A cause that is absent cannot be done, or its cost is not
known: a network that needs it gets an error, never a zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from eventnet.hardware.checks import nearest

__all__ = ["CAUSES", "ENERGY_PROFILES", "Coefficient", "EnergyProfile", "energy_profile"]

STATUSES = ("measured", "synthesised", "estimated", "unverified")

# The operations that cost energy: fields of eventnet.counting.Counts. A weight read is that of 8 bits, or of a float32.
CAUSES = ("accumulates", "multiply_accumulates", "state_updates", "spikes", "weight_reads", "buffer_writes")


@dataclass(frozen=True)
class Coefficient:
    """A number of a device between two bounds, in SI units; equal bounds where the source gives one number.

    Raises:
        ValueError: a bound is negative or not finite, low > high, no source, or a status that is none of ``STATUSES``.

    Example:
        >>> Coefficient(52e-12, 81e-12, "J", "Davies et al., IEEE Micro 2018", "synthesised").high
        8.1e-11
    """

    low: float
    high: float
    unit: str
    source: str
    status: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 <= self.low <= self.high):
            raise ValueError(f"expected 0 <= low <= high, finite, got low={self.low!r}, high={self.high!r}")
        if self.unit not in ("J", "W", "s"):
            raise ValueError(f"unit: expected J, W or s, got {self.unit!r}")
        if self.status not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")
        if not self.source:
            raise ValueError("source: expected who says so, got nothing; write 'none found' if there is none")


@dataclass(frozen=True)
class EnergyProfile:
    """A device: what its operations cost, and what it takes while it waits.

    Args:
        about: what the figures include and leave out.
        coefficients: joules for one operation, by name: a cause of ``CAUSES``, or ``cause_part``.
        idle_power: watts while nothing happens; None: not known, which is not zero.
        seconds_per_step: what a step takes at least; None: not known.
        event_driven: whether only events cost synaptic operations. If not, every connection is computed in every step.
        mac_bits: width of the activation that ``multiply_accumulates`` is for; None: its cost does not depend on it.
        dense: the share of a coefficient that a dense network of bytes pays there, by name; all of it where none is given.

    Raises:
        ValueError: a coefficient whose name begins with no cause, or in another unit.

    Example:
        >>> chip = energy_profile("loihi1")
        >>> chip.names("state_updates"), chip.coefficients["state_updates"].status
        (('state_updates',), 'synthesised')
        >>> chip.changed(state_updates=60e-12).coefficients["state_updates"]
        Coefficient(low=6e-11, high=6e-11, unit='J', source='set by hand', status='unverified')
    """

    name: str
    about: str
    coefficients: Mapping[str, Coefficient]
    idle_power: Coefficient | None = None
    seconds_per_step: Coefficient | None = None
    event_driven: bool = True
    mac_bits: int | None = None
    dense: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, coefficient in self.coefficients.items():
            if not any(_belongs(name, cause) for cause in CAUSES):
                raise ValueError(f"{self.name}: no cause of energy is called {name!r}{nearest(name, CAUSES)}")
            _check_unit(f"{self.name}: {name}", coefficient, "J")
        _check_unit(f"{self.name}: idle_power", self.idle_power, "W")
        _check_unit(f"{self.name}: seconds_per_step", self.seconds_per_step, "s")
        object.__setattr__(self, "coefficients", MappingProxyType(dict(self.coefficients)))
        object.__setattr__(self, "dense", MappingProxyType(dict(self.dense)))

    def names(self, cause: str) -> tuple[str, ...]:
        """The names of the coefficients that make up a cause; none if the device cannot do it."""
        return tuple(name for name in self.coefficients if _belongs(name, cause))

    @property
    def numbers(self) -> dict[str, Coefficient]:
        """Every number of the profile, by name."""
        others = {"idle_power": self.idle_power, "seconds_per_step": self.seconds_per_step}
        return {**self.coefficients, **{name: each for name, each in others.items() if each is not None}}

    @property
    def unverified(self) -> tuple[str, ...]:
        """The numbers for which no source could be read."""
        return tuple(name for name, each in self.numbers.items() if each.status == "unverified")

    def changed(self, **values: Coefficient | float | bool | None) -> EnergyProfile:
        """A copy with other numbers: a ``Coefficient``, or a plain number, which is then ``unverified``; None takes one away.

        ``event_driven`` and ``mac_bits`` are plain values.
        """
        plain = {name: values.pop(name) for name in ("event_driven", "mac_bits") if name in values}
        units = {"idle_power": "W", "seconds_per_step": "s"}
        own = {name: _coefficient(value, units.get(name, "J")) for name, value in values.items()}
        fields = {name: own.pop(name) for name in units if name in own}
        kept = {name: each for name, each in {**self.coefficients, **own}.items() if each is not None}
        return dataclasses.replace(self, coefficients=kept, **fields, **plain)  # type: ignore[arg-type]


def energy_profile(name: str) -> EnergyProfile:
    """The profile of this name.

    Raises:
        ValueError: there is none; the nearest name is given.

    Example:
        >>> energy_profile("asic45").mac_bits
        8
    """
    if name not in ENERGY_PROFILES:
        there = ", ".join(ENERGY_PROFILES)
        raise ValueError(f"no energy profile {name!r}{nearest(name, ENERGY_PROFILES)}; there are {there}")
    return ENERGY_PROFILES[name]


def _belongs(name: str, cause: str) -> bool:
    return name == cause or name.startswith(f"{cause}_")


def _check_unit(name: str, coefficient: Coefficient | None, unit: str) -> None:
    if coefficient is not None and coefficient.unit != unit:
        raise ValueError(f"{name}: expected a coefficient in {unit}, got one in {coefficient.unit}")


def _coefficient(value: Coefficient | float | None, unit: str) -> Coefficient | None:
    if value is None or isinstance(value, Coefficient):
        return value
    return Coefficient(float(value), float(value), unit, "set by hand", "unverified")


PICO, NANO = 1e-12, 1e-9


def _one(value: float, source: str, status: str, unit: str = "J") -> Coefficient:
    return Coefficient(value, value, unit, source, status)


def _span(low: float, high: float, source: str, status: str, unit: str = "J") -> Coefficient:
    return Coefficient(low, high, unit, source, status)


def _included(where: str) -> Coefficient:
    return _one(0.0, f"included in {where}", "estimated")


DAVIES = "Davies et al., Loihi, IEEE Micro 2018, table 2 (simulation before silicon, 14 nm, 0.75 V)"
BLOUW = "Blouw et al. 2018 (arXiv 1812.01739), table of power"

LOIHI1 = EnergyProfile(
    "loihi1",
    "Intel Loihi 1, neurocores. Its figures are of simulations before silicon, and the synaptic operation is the least that "
    "one costs: a lower bound. Left out: the x86 cores, getting data on and off the chip, spikes to several cores.",
    {
        "accumulates": _one(23.6 * PICO, f"{DAVIES}: energy for a synaptic spike operation, minimum", "synthesised"),
        "state_updates": _span(
            52 * PICO,
            81 * PICO,
            f"{DAVIES}: neuron update, inactive and active; for each neuron and step",
            "synthesised",
        ),
        "spikes_tile": _one(1.7 * PICO, f"{DAVIES}: spike within a tile", "synthesised"),
        "spikes_hops": _span(
            0.0,
            (7 * 3.0 + 3 * 4.0) * PICO,
            "none to the farthest of 8 x 4 tiles: 7 hops east-west of 3.0 pJ and 3 north-south of 4.0 pJ; energies: "
            f"{DAVIES}; arrangement: SANA-FE's Loihi architecture file",
            "estimated",
        ),
        "weight_reads": _included("the synaptic operation: weights are in the core"),
        "buffer_writes": _included("the synaptic operation: it ends in the core's delay buffer"),
    },
    idle_power=_one(0.029, f"{BLOUW}: Loihi, idle", "measured", "W"),
    seconds_per_step=_span(
        113 * NANO,
        465 * NANO,
        "barrier synchronisation of 1 to 32 tiles, quoted from table 2; not found",
        "unverified",
        "s",
    ),
)

KERAS = "KerasSpiking 0.3, model_energy.py"
HOEPPNER = "Höppner et al. 2019 (arXiv 1903.08941), whose tables were not read"


def _keras_spinnaker(synapse: Coefficient, neuron: Coefficient) -> dict[str, Coefficient]:
    """A processor that adds a weight or a weight times a value at the same price, as its software does."""
    rest = "the synaptic event or the neuron update: the table has no others"
    zeros = {name: _included(rest) for name in ("spikes", "weight_reads", "buffer_writes")}
    return {"accumulates": synapse, "multiply_accumulates": synapse, "state_updates": neuron, **zeros}


SPINNAKER = EnergyProfile(
    "spinnaker",
    "SpiNNaker, one chip of 18 ARM968 processors, 130 nm. Left out: boards, links, getting data on and off the chip.",
    _keras_spinnaker(
        _one(13.3 * NANO, f"{KERAS}: energy_per_synop, citing {HOEPPNER}", "unverified"),
        _one(26 * NANO, f"{KERAS}: energy_per_neuron, citing {HOEPPNER}", "unverified"),
    ),
    idle_power=_span(
        0.36,
        1.0,
        "high: peak power of a chip, Painkras et al., JSSC 2013 (it covers work too); low: quoted second-hand, not found",
        "unverified",
        "W",
    ),
    seconds_per_step=_one(
        1e-3, "van Albada et al. 2018: real time with steps of 1 ms, slower with shorter ones", "measured", "s"
    ),
)

SPINNAKER2 = EnergyProfile(
    "spinnaker2",
    "SpiNNaker 2: figures of its prototype, 28 nm; the chip is of 22 nm. Left out: idle power, links, data on and off the chip.",
    _keras_spinnaker(
        _span(
            0.45 * NANO,
            1.5 * NANO,
            f"low: {KERAS}, energy_per_synop; high: a table derived from it that says 'prototype'; both cite {HOEPPNER}",
            "unverified",
        ),
        _one(2.19 * NANO, f"{KERAS}: energy_per_neuron, citing {HOEPPNER}", "unverified"),
    ),
)

DEGNAN = f"{KERAS}: one multiply-accumulate, citing Degnan, Marr and Hasler 2015, which was not read"


def _processor(name: str, what: str, joules: float, idle: float, stand_in: str) -> EnergyProfile:
    """A processor that computes every connection in every step, as KerasSpiking takes it."""
    cost = _one(joules, DEGNAN, "unverified")
    rest = "the multiply-accumulate: the table has no others"
    zeros = {each: _included(rest) for each in ("spikes", "weight_reads", "buffer_writes")}
    return EnergyProfile(
        name,
        f"{what}, float32. Every connection is computed in every step: it gains nothing from events. The figures are "
        "synthetic: operations per watt of the processor, without data on and off it. Its idle power is another one's.",
        {"accumulates": cost, "multiply_accumulates": cost, "state_updates": cost, **zeros},
        idle_power=_one(idle, f"{BLOUW}: {stand_in}, idle, in its place", "estimated", "W"),
        event_driven=False,
    )


CPU = _processor("cpu", "Intel i7-4960X", 8.6 * NANO, 17.01, "CPU")
GPU = _processor("gpu", "Nvidia GTX Titan Black, at large batches only", 0.3 * NANO, 14.97, "GPU")
ARM = _processor("arm", "ARM Cortex-A", 0.9 * NANO, 2.64, "Jetson TX1")

HOROWITZ = "Horowitz, ISSCC 2014, rough energies at 45 nm and 0.9 V"
LEAKAGE = "Left out: leakage (so idle power), clock, control, a network on chip."
SUMS = (
    "Assumed: an event costs its target's sum nothing in memory (low: all events of a step are gathered target by target) to "
    "10 pJ (high: it arrives alone); a dense layer keeps the sum in a register and pays nothing."
)
DENSE = {  # a dense layer: sums in registers, activations and states of 8 bits
    "accumulates_memory": 0.0,
    "multiply_accumulates_memory": 0.0,
    "buffer_writes_wide": 0.0,
    "state_updates_memory": 0.25,
    "state_updates_second": 0.0,
}
SRAM = "8 kB SRAM, 10 pJ for 64 bits"
CACHES = f"{HOROWITZ}: {SRAM}, to 1 MB, 100 pJ for 64 bits; all of a word is used"


def _asic(name: str, about: str, arithmetic: Mapping[str, Coefficient], weight: Coefficient) -> EnergyProfile:
    """A digital chip of 45 nm: arithmetic as given, memory as for both number formats."""
    sums = _span(
        0.0,
        10 * PICO,
        "assumed; high: an event that arrives alone reads and writes its target's sum of 32 bits, 5 pJ each "
        f"({HOROWITZ}: {SRAM}); low: all events of a step are gathered target by target, the sum in a register",
        "estimated",
    )
    memory = {
        "accumulates_memory": sums,
        "multiply_accumulates_memory": sums,
        "state_updates_memory": _one(
            10 * PICO, f"{HOROWITZ}: a state of 32 bits, read and written: {SRAM}", "estimated"
        ),
        "state_updates_second": _span(
            0.0, 10 * PICO, f"{HOROWITZ}: none, or a second state of 32 bits, read and written: {SRAM}", "estimated"
        ),
        "spikes": _one(
            10 * PICO, f"{HOROWITZ}: an address of 32 bits, written to a queue and read: {SRAM}", "estimated"
        ),
        "weight_reads": weight,
        "buffer_writes": _one(
            2.5 * PICO, f"{HOROWITZ}: an entry of 8 bits, written and read later: {SRAM}", "estimated"
        ),
        "buffer_writes_wide": _span(
            0.0, 7.5 * PICO, f"{HOROWITZ}: no more, or the other 24 of an entry of 32 bits: {SRAM}", "estimated"
        ),
    }
    return EnergyProfile(
        name,
        f"{about} {SUMS} {LEAKAGE}",
        {**arithmetic, **memory},
        mac_bits=8 if name == "asic45" else None,
        dense=DENSE,
    )


ASIC45 = _asic(
    "asic45",
    "A digital chip, 45 nm: weights and activations of 8 bits, sums of 8 to 32 bits, on-chip memory of 8 kB to 1 MB.",
    {
        "accumulates": _span(0.03 * PICO, 0.1 * PICO, f"{HOROWITZ}: int8 add, int32 add", "estimated"),
        "multiply_accumulates": _span(
            0.23 * PICO, 0.3 * PICO, f"{HOROWITZ}: int8 multiply 0.2 pJ and int8 or int32 add", "estimated"
        ),
        "state_updates_arithmetic": _span(
            0.3 * PICO,
            6.5 * PICO,
            f"{HOROWITZ}: three int32 adds (decays by shifts), to two int32 multiplies of 3.1 pJ and three adds",
            "estimated",
        ),
    },
    _span(1.25 * PICO, 12.5 * PICO, f"{CACHES}: eight weights", "estimated"),
)
ASIC45_FLOAT32 = _asic(
    "asic45_float32",
    "A digital chip, 45 nm, in float32, on-chip memory of 8 kB to 1 MB.",
    {
        "accumulates": _one(0.9 * PICO, f"{HOROWITZ}: fp32 add", "estimated"),
        "multiply_accumulates": _one(4.6 * PICO, f"{HOROWITZ}: fp32 multiply 3.7 pJ and add 0.9 pJ", "estimated"),
        "state_updates_arithmetic": _one(
            10.1 * PICO, f"{HOROWITZ}: two fp32 multiplies and three adds, for two decays and a comparison", "estimated"
        ),
    },
    _span(5 * PICO, 50 * PICO, f"{CACHES}: two weights", "estimated"),
)

SPIKESIM = "SpikeSim (arXiv 2210.12899), ela_spikesim.py, 65 nm, RRAM: "
ROWS = 64  # of a crossbar, and columns


def _read(joules: float, what: str) -> Coefficient:
    """A share of what reading one crossbar costs, per operation: from all cells being of use to only one."""
    why = (
        f"{SPIKESIM}{what}; one read of 64 x 64 cells, divided by 4,096 operations (a spike on all rows, all columns in use) "
        "to 1 (a spike on one row, one column in use)"
    )
    return _span(joules / ROWS**2, joules, why, "synthesised")


IN_MEMORY = EnergyProfile(
    "in_memory",
    "Crossbars of 64 x 64 RRAM cells with converters of 4 bits. A read costs the same whatever the number of rows with a "
    "spike and of columns in use, so the range is from all 4,096 cells to one: of a read, the cells take 2 %, the converters "
    "19 %, buffers and wires 79 %. "
    "Plain spikes only: values would need several reads. Left out: idle power, arrays for more than 4 bits a weight.",
    {
        "accumulates_cells": _read(8 * 1.76423 * PICO, "crossbar 1.76 pJ, 8 times for 8 columns to a converter"),
        "accumulates_converters": _read(
            ROWS * (2.03084 + 0.094245) * PICO, "ADC 2.03 pJ and multiplexer 0.09 pJ a column"
        ),
        "accumulates_buffers": _read(
            (397 + 8 * 19.64 + 4.64 + 8 * 0.2) * PICO,
            "tile buffer 397 pJ, H-tree 157 pJ, fetch 4.6 pJ, column buffers 1.6 pJ",
        ),
        "state_updates": _span(
            4 * 1.274 / ROWS * PICO,
            4 * 1.274 * PICO,
            f"{SPIKESIM}neuron 5.1 pJ for each read; whether of 64 neurons or of one is not said",
            "synthesised",
        ),
        "spikes": _included("accumulates: tile buffer and H-tree"),
        "weight_reads": _included("accumulates: weights stay in the cells"),
        "buffer_writes": _included("accumulates: tile buffer; SpikeSim has no delays"),
    },
)

ENERGY_PROFILES: Mapping[str, EnergyProfile] = MappingProxyType(
    {each.name: each for each in (LOIHI1, SPINNAKER, SPINNAKER2, CPU, GPU, ARM, ASIC45, ASIC45_FLOAT32, IN_MEMORY)}
)
