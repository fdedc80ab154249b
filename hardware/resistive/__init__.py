"""Resistive memory: cells whose conductances are weights, random hardware as a feature.

- Cells: ``devices`` (a ``Cell`` is its effects, a ``Chip`` written cells), ``effects``, ``draws``.
- Crossbars: ``crossbar`` (weights as pairs, products in tiles), ``converters``, ``ir_drop``, ``compensation`` of drift;
  ``crossbar_linear`` is ``nn.Linear`` on them.
- Trained models on a chip: ``placing``, with ``matrices`` (which weights) and ``placement_report``; ``energy``, ``array_costs``.
- Reservoirs: ``reservoir`` (spiking) and ``echo_state`` (graded), of random ``weights`` or the cells of a chip, as ``formed``;
  ``stepped`` neurons, ``calibration`` of rates, ``measures``.
- Readouts: ``ridge``, ``logistic``, ``contrastive``; ``moments`` and ``checks`` are what they share.

Here are the names that most uses need; the rest is in these modules.
"""

from eventnet.hardware.resistive.calibration import with_activity, with_rate
from eventnet.hardware.resistive.contrastive import Contrastive, fit_contrastive, zero_shot
from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import Crossbar, Pair, to_pair
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import HFOX, PCM, Cell
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.echo_state import EchoState
from eventnet.hardware.resistive.effects import (
    Drift,
    FlickerNoise,
    Forming,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
)
from eventnet.hardware.resistive.energy import array_energy, reads_of, reads_of_reservoir
from eventnet.hardware.resistive.logistic import LogisticReadout
from eventnet.hardware.resistive.placing import place
from eventnet.hardware.resistive.reservoir import Reservoir
from eventnet.hardware.resistive.ridge import RidgeReadout

__all__ = [
    "ADC",
    "DAC",
    "HFOX",
    "PCM",
    "Cell",
    "Contrastive",
    "Crossbar",
    "CrossbarLinear",
    "Drift",
    "EchoState",
    "FlickerNoise",
    "Forming",
    "LogisticReadout",
    "Pair",
    "ProgrammingNoise",
    "ReadNoise",
    "Reservoir",
    "RidgeReadout",
    "Spread",
    "Stuck",
    "array_energy",
    "fit_contrastive",
    "place",
    "reads_of",
    "reads_of_reservoir",
    "seeded",
    "to_pair",
    "with_activity",
    "with_rate",
    "zero_shot",
]
