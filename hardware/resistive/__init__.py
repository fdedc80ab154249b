"""Resistive memory: cells whose conductances are weights, with their noise, and the crossbars that multiply with them."""

from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import Crossbar, CrossbarLinear, Pair, from_pair, to_pair
from eventnet.hardware.resistive.devices import (
    HFO2_STUCK,
    HFOX,
    HFOX_PROGRAMMING,
    PCM,
    PCM_PROGRAMMING,
    Cell,
    Chip,
    Drift,
    FlickerNoise,
    Forming,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
    seeded,
)
from eventnet.hardware.resistive.ir_drop import ir_drop, ir_drop_nodal

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
    "Spread",
    "Stuck",
    "from_pair",
    "ir_drop",
    "ir_drop_nodal",
    "seeded",
    "to_pair",
]
