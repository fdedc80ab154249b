"""eventnet: event-based networks in PyTorch with exact gradients."""

from eventnet import data, initial, kernels, losses
from eventnet.events import Events
from eventnet.layers.lif import LIF, lif
from eventnet.layers.neuron import constrain_
from eventnet.layers.readout import LI, Voltage

__all__ = ["LI", "LIF", "Events", "Voltage", "constrain_", "data", "initial", "kernels", "lif", "losses"]
