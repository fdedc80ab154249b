"""Resistive memory: cells whose conductances are weights, random hardware as a feature.

- Cells: ``devices`` (a ``Cell`` is its effects, a ``Chip`` written cells), ``effects``, ``draws``.
- Crossbars: ``crossbar`` (weights as pairs, products in tiles), ``converters``, ``ir_drop``, ``compensation`` of drift;
  ``crossbar_linear`` is ``nn.Linear`` on them.
- Trained models on a chip: ``placing``, with ``matrices`` (which weights) and ``placement_report``; ``energy``, ``array_costs``.
- Reservoirs: ``reservoir`` (spiking) and ``echo_state`` (graded), of random ``weights``; ``stepped`` neurons, ``calibration`` of
  rates, ``measures``.
- Readouts: ``ridge``, ``logistic``, ``contrastive``; ``moments`` and ``checks`` are what they share.
"""

from eventnet.hardware.resistive.calibration import with_activity, with_rate
from eventnet.hardware.resistive.compensation import drift_compensation
from eventnet.hardware.resistive.contrastive import Contrastive, Labelled, contrastive_loss, fit_contrastive, zero_shot
from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import Crossbar, Pair, from_pair, to_pair
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import HFOX, PCM, Cell, Chip
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.echo_state import EchoState
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
from eventnet.hardware.resistive.logistic import LogisticReadout
from eventnet.hardware.resistive.placing import ResistiveDeployment, place
from eventnet.hardware.resistive.reservoir import Reservoir
from eventnet.hardware.resistive.ridge import RidgeReadout
from eventnet.hardware.resistive.stepped import spikes_in_steps
from eventnet.hardware.resistive.weights import random_weights, spectral_radius

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
    "EchoState",
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
    "drift_compensation",
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
    "with_activity",
    "with_rate",
    "zero_shot",
]
