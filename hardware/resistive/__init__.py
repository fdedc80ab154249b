"""Resistive memory: cells whose conductances are weights, with their noise, the crossbars that
multiply with them, random reservoirs made of them, and readouts of these."""

from eventnet.hardware.resistive.contrastive import Contrastive, Labelled, contrastive_loss, fit_contrastive, zero_shot
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
from eventnet.hardware.resistive.readouts import LogisticReadout, RidgeReadout
from eventnet.hardware.resistive.reservoir import (
    Reservoir,
    random_weights,
    spectral_radius,
    spikes_in_steps,
    with_rate,
)

__all__ = [
    "ADC",
    "DAC",
    "HFO2_STUCK",
    "HFOX",
    "HFOX_PROGRAMMING",
    "PCM",
    "PCM_PROGRAMMING",
    "Cell",
    "Chip",
    "Contrastive",
    "Crossbar",
    "CrossbarLinear",
    "Drift",
    "FlickerNoise",
    "Forming",
    "Labelled",
    "LogisticReadout",
    "Pair",
    "ProgrammingNoise",
    "ReadNoise",
    "Reads",
    "Reservoir",
    "ResistiveDeployment",
    "RidgeReadout",
    "Spread",
    "Stuck",
    "array_energy",
    "contrastive_loss",
    "fit_contrastive",
    "from_pair",
    "ir_drop",
    "ir_drop_nodal",
    "place",
    "random_weights",
    "reads_of",
    "seeded",
    "spectral_radius",
    "spikes_in_steps",
    "to_pair",
    "with_rate",
    "zero_shot",
]
