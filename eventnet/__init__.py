"""eventnet: event-based networks in PyTorch with exact gradients."""

from importlib import metadata as _metadata

from eventnet import data, initial, kernels, losses
from eventnet.events import Events
from eventnet.layers.branches import PlateauLIF
from eventnet.layers.dendrites import ActiveDendrites
from eventnet.layers.diagnosis import Diagnosis, diagnose, diagnosing
from eventnet.layers.drive import lif_drive
from eventnet.layers.egru import EGRU, EGRUCell, EGRUState
from eventnet.layers.egru_steps import EGRUSteps
from eventnet.layers.egru_stream import EGRUStream
from eventnet.layers.elm import ELM
from eventnet.layers.lif import LIF, LIFState, lif
from eventnet.layers.neuron import constrain_
from eventnet.layers.readout import LI, Voltage
from eventnet.layers.segments import SegmentPool
from eventnet.layers.winners import KWinners

__all__ = [
    "EGRU",
    "ELM",
    "LI",
    "LIF",
    "ActiveDendrites",
    "Diagnosis",
    "EGRUCell",
    "EGRUState",
    "EGRUSteps",
    "EGRUStream",
    "Events",
    "KWinners",
    "LIFState",
    "PlateauLIF",
    "SegmentPool",
    "Voltage",
    "constrain_",
    "data",
    "diagnose",
    "diagnosing",
    "initial",
    "kernels",
    "lif",
    "lif_drive",
    "losses",
]

try:
    __version__ = _metadata.version("eventnet")
except _metadata.PackageNotFoundError:  # a folder of sources on the path
    __version__ = "not installed"
