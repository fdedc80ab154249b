"""StartedLI: a readout that does not start at rest.

    V' = (bias - V + I) / tau_mem,   I' = -I / tau_syn,   V(0) = initial_voltage,   I(0) = initial_current

As a grid's leaky integrator behind a linear layer with a bias: it starts at 0, and the bias charges it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events
from eventnet.layers.lif import as_layer
from eventnet.layers.neuron import as_parameter, register
from eventnet.layers.readout import LI, Voltage
from eventnet.layers.voltage import voltage_of

__all__ = ["StartedLI"]


class StartedLI(LI):
    """``LI`` with an initial voltage and current.

    Args:
        in_features, out_features, ...: as ``LI``.
        initial_voltage, initial_current: at time 0; one number or ``(out_features,)``. They are parameters that do not require
            grad: how the readout starts is no matter of training.

    Example:
        >>> readout = StartedLI(3, 2, bias=1.0, initial_voltage=0.0, initial_current=0.0)
        >>> silent = Events.from_list([([], [])], num_units=3, duration=0.1)
        >>> readout(silent).at(torch.tensor([0.0, 0.02]))[0, :, 0]  # 1 - e^-1
        tensor([0.0000, 0.6321], grad_fn=<SelectBackward0>)
    """

    initial_voltage: Tensor
    initial_current: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        initial_voltage: float | Tensor,
        initial_current: float | Tensor,
        dtype: torch.dtype | None = None,
        **own: Any,
    ) -> None:
        super().__init__(in_features, out_features, dtype=dtype, **own)
        start = {"initial_voltage": initial_voltage, "initial_current": initial_current}
        register(self, (), **{name: as_parameter(value, dtype) for name, value in start.items()})

    def forward(self, events: Events) -> Voltage:
        """``Voltage`` of ``out_features`` units for events of ``in_features`` units."""
        kernels.check_layer_input("StartedLI", events, self.weight)
        names = ("tau_mem", "tau_syn", "bias", "initial_voltage", "initial_current")
        own = {name: getattr(self, name) for name in names}
        layer = as_layer(self.weight, threshold=self._never, reset=self._zero, **own)
        silent = Events.trusted(
            events.times[:0].detach(),
            events.units[:0],
            torch.zeros_like(events.offsets),
            self.out_features,
            events.duration,
        )
        return replace(voltage_of(events, silent, layer, self.backend), spikes=None)
