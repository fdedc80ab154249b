"""Resistive memory: cells whose conductances are weights, with their noise, and the crossbars that multiply with them."""

from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import Crossbar, Pair, from_pair, to_pair
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import HFOX, PCM, Cell, Chip
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.effects import (
    HFO2_STUCK,
    HFOX_PROGRAMMING,
    PCM_PROGRAMMING,
    Drift,
    FlickerNoise,
    Forming,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
)
from eventnet.hardware.resistive.energy import Reads, array_energy, reads_of
from eventnet.hardware.resistive.ir_drop import ir_drop, ir_drop_nodal
from eventnet.hardware.resistive.placing import ResistiveDeployment, place

__all__ = [
    "ADC",
    "DAC",
    "HFOX",
    "HFOX_PROGRAMMING",
    "HFO2_STUCK",
    "PCM",
    "PCM_PROGRAMMING",
    "Cell",
    "Chip",
    "Crossbar",
    "CrossbarLinear",
    "Drift",
    "FlickerNoise",
    "Forming",
    "Pair",
    "ProgrammingNoise",
    "ReadNoise",
    "Reads",
    "ResistiveDeployment",
    "Spread",
    "Stuck",
    "array_energy",
    "from_pair",
    "ir_drop",
    "ir_drop_nodal",
    "place",
    "reads_of",
    "seeded",
    "to_pair",
]
