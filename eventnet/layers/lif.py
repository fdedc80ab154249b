"""LIF: a spiking layer in continuous time with EventProp gradients.

    V' = (bias - V + I) / tau_mem,   I' = -I / tau_syn,   an event of unit j adds value * weight[j] to I

When V reaches ``threshold`` from below the neuron emits a spike and V becomes ``reset``; I goes on. There is no time grid:
spike times are solved to machine precision. The gradient is the exact one of these times, by the adjoint equations of
Wunderlich & Pehle, "Event-based backpropagation can compute exact gradients for spiking neural networks" (2021).

- An arrival changes the current only: the voltage is continuous. Simultaneous arrivals add up.
- Events at or after the end of the trial (``events.duration``) do not count, and have zero gradient.
- V starts at rest, ``bias`` (at ``reset`` if bias >= threshold: such a neuron has no rest and fires by itself).
- In continuous time V is exactly the threshold at a spike: "reset by subtraction" and "reset to 0" are the same thing.
- The gradient does not see spikes appear or vanish, so a neuron that never fires gets none: see ``losses`` and ``initial``.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from eventnet import kernels
from eventnet.events import Events
from eventnet.layers.neuron import as_neuron, as_parameter, describe, register
from eventnet.layers.readout import Voltage

__all__ = ["LIF", "lif"]

MAX_SPIKES = 2**26  # about 3 GB; a storm beyond it is an error, never a silent cap


@overload
def lif(
    events: Events,
    weight: Tensor,
    *,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    return_voltage: Literal[False] = ...,
    backend: str = ...,
    max_spikes: int = ...,
) -> Events: ...


@overload
def lif(
    events: Events,
    weight: Tensor,
    *,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    return_voltage: Literal[True],
    backend: str = ...,
    max_spikes: int = ...,
) -> tuple[Events, Voltage]: ...


def lif(
    events: Events,
    weight: Tensor,
    *,
    tau_mem: float | Tensor = 20e-3,
    tau_syn: float | Tensor = 5e-3,
    threshold: float | Tensor = 1.0,
    reset: float | Tensor = 0.0,
    bias: float | Tensor = 0.0,
    return_voltage: bool = False,
    backend: str = "auto",
    max_spikes: int = MAX_SPIKES,
) -> Events | tuple[Events, Voltage]:
    """Spikes of current-based leaky integrate-and-fire neurons driven by events, with exact gradients.

    Args:
        events: input of ``in`` units; graded events (``values``) scale the weight.
        weight: ``(in, out)``; the row of the unit that fired is added to the currents.
        tau_mem, tau_syn: seconds, > 0 (equal ones and tau_syn > tau_mem included); one number, 0-d or ``(out,)``.
        threshold, reset, bias: volts; one number, 0-d or ``(out,)``; threshold > reset.
        return_voltage: also return the ``Voltage``, to be read by ``.max() .mean() .integral() .at(times)``.
        backend: "auto" (the compiled kernel where there is one), "cpu" or "reference".
        max_spikes: an error is raised beyond this number of output spikes.

    Returns:
        ``Events`` of ``out`` units with the same duration; its times are differentiable in the input times and values, the
        weight and every parameter that requires grad. A silent layer returns no events, still in the graph.

    Raises:
        ValueError: a bound is violated, shapes or devices do not fit, the voltage is not finite.
        RuntimeError: more than ``max_spikes`` spikes.

    Example:
        >>> events = Events.from_list([([0.0], [0])], num_units=1, duration=0.1)
        >>> weight = torch.tensor([[9.0]], requires_grad=True)
        >>> spikes = lif(events, weight)
        >>> spikes.first_times().sum().backward()
        >>> spikes.num_events, bool(weight.grad < 0)  # a larger weight makes it fire earlier
        (1, True)
    """
    kernels.check_layer_input("lif", events, weight)
    given = dict(tau_mem=tau_mem, tau_syn=tau_syn, threshold=threshold, reset=reset, bias=bias)
    neuron = as_neuron(weight.shape[1], weight, **given)
    times, units, offsets = kernels.lif(events, weight, neuron, backend, max_spikes)
    spikes = Events.trusted(times, units, offsets, weight.shape[1], events.duration)
    if not return_voltage:
        return spikes
    return spikes, Voltage(events, weight, neuron, spikes, backend)


class LIF(nn.Module):
    """A layer of leaky integrate-and-fire neurons; see ``lif`` for the equations and the arguments.

    Args:
        in_features, out_features: units in and out. ``weight`` is ``(in_features, out_features)``, normal with standard
            deviation in^-1/2: often too small to fire. ``initial.fire_fraction_`` scales it to the input.
        tau_mem, tau_syn, threshold, reset, bias: one number, or ``(out_features,)`` to have one per neuron.
        learn: names of the parameters that require grad; call ``eventnet.constrain_`` after optimiser steps on the others
            than the weight.
        backend: "auto", "cpu" or "reference".
        dtype: of the parameters; torch's default if not given.

    Example:
        >>> layer = LIF(4, 3, tau_mem=10e-3, learn=("weight", "tau_mem"))
        >>> sorted(name for name, p in layer.named_parameters() if p.requires_grad)
        ['tau_mem', 'weight']
        >>> layer(Events.from_list([([], [])], num_units=4, duration=0.1)).num_events
        0
    """

    weight: Tensor
    tau_mem: Tensor
    tau_syn: Tensor
    threshold: Tensor
    reset: Tensor
    bias: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau_mem: float | Tensor = 20e-3,
        tau_syn: float | Tensor = 5e-3,
        threshold: float | Tensor = 1.0,
        reset: float | Tensor = 0.0,
        bias: float | Tensor = 0.0,
        learn: tuple[str, ...] = ("weight",),
        backend: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        weight = torch.randn(in_features, out_features, dtype=dtype) / max(in_features, 1) ** 0.5
        given = dict(tau_mem=tau_mem, tau_syn=tau_syn, threshold=threshold, reset=reset, bias=bias)
        register(self, learn, weight=weight, **{name: as_parameter(value, dtype) for name, value in given.items()})
        as_neuron(out_features, self.weight, **self._parameters_of_neurons())  # what is wrong is said here already

    @overload
    def forward(self, events: Events, return_voltage: Literal[False] = ...) -> Events: ...

    @overload
    def forward(self, events: Events, return_voltage: Literal[True]) -> tuple[Events, Voltage]: ...

    def forward(self, events: Events, return_voltage: bool = False) -> Events | tuple[Events, Voltage]:
        """Spikes of ``out_features`` units (and their ``Voltage``) for events of ``in_features`` units."""
        neurons = self._parameters_of_neurons()
        return lif(events, self.weight, **neurons, return_voltage=return_voltage, backend=self.backend)  # type: ignore[call-overload]

    def _parameters_of_neurons(self) -> dict[str, Tensor]:
        return {
            "tau_mem": self.tau_mem,
            "tau_syn": self.tau_syn,
            "threshold": self.threshold,
            "reset": self.reset,
            "bias": self.bias,
        }

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {describe(self._parameters_of_neurons())}"
