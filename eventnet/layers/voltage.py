"""The voltage of a spiking layer, as that of leaky integrators that hear what it heard; its resets are subtracted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events, replace_unchecked
from eventnet.kernels.reference import Neuron
from eventnet.kernels.reference_lif import Layer, Synapses
from eventnet.layers.readout import Voltage


def voltage_of(events: Events, spikes: Events, layer: Layer, backend: str) -> Voltage:
    """What ``lif`` returns with ``return_voltage``."""
    if layer.refractory is not None:
        raise NotImplementedError("lif: return_voltage is not possible with a refractory period yet")
    if layer.branches is not None:
        return _of_branches(events, spikes, layer, backend)
    delays = [synapses.delay for synapses in (layer.synapses, layer.recurrent) if synapses is not None]
    if all(delay is None or delay.shape[1] == 1 for delay in delays):
        return Voltage(*_heard(events, spikes, layer), layer.neuron, spikes, backend, layer.initial_voltage)
    return VoltageByNeuron(events, layer.synapses.weight, layer.neuron, spikes, backend, layer.initial_voltage, layer)


@dataclass(frozen=True, eq=False, repr=False)
class VoltageByNeuron(Voltage):
    """The same where each neuron hears its input in an order of its own: exact, but every reading goes through all events and, in
    a recurrent layer, all spikes once per neuron; with gradients it keeps them all.
    """

    layer: Layer | None = None

    def max(self) -> Tensor:
        """``(B, N)``"""
        return self._of_each(Voltage.max)

    def mean(self) -> Tensor:
        """``(B, N)``"""
        return self._of_each(Voltage.mean)

    def integral(self, decay: float | None = None) -> Tensor:
        """``(B, N)``"""
        return self._of_each(lambda voltage: voltage.integral(decay))

    def at(self, times: Tensor) -> Tensor:
        """``(B, T, N)``"""
        return self._of_each(lambda voltage: voltage.at(times))

    def _of_each(self, reading: Callable[[Voltage], Tensor]) -> Tensor:
        assert self.layer is not None and self.spikes is not None
        num = self.weight.shape[1]
        columns = [reading(_of_one(n, self.events, self.spikes, self.layer, self.backend)) for n in range(num)]
        return torch.cat(columns, -1) if columns else reading(Voltage(self.events, self.weight, self.neuron))


@dataclass(frozen=True, eq=False, repr=False)
class VoltageOfBranches(Voltage):
    """The sum of the voltages that the currents of the branches make: all readings but the maximum are sums of theirs."""

    parts: tuple[Voltage, ...] = ()

    def max(self) -> Tensor:
        """``(B, N)``, of neurons with one branch."""
        if len(self.parts) > 1:
            raise NotImplementedError(
                "Voltage.max is not possible with two or more dendritic branches yet; .mean(), .integral() and .at() are"
            )
        return self.parts[0].max()

    def mean(self) -> Tensor:
        """``(B, N)``"""
        return torch.stack([part.mean() for part in self.parts]).sum(0)

    def integral(self, decay: float | None = None) -> Tensor:
        """``(B, N)``"""
        return torch.stack([part.integral(decay) for part in self.parts]).sum(0)

    def at(self, times: Tensor) -> Tensor:
        """``(B, T, N)``"""
        return torch.stack([part.at(times) for part in self.parts]).sum(0)


def _of_branches(events: Events, spikes: Events, layer: Layer, backend: str) -> VoltageOfBranches:
    """Of the first branch is all that a neuron has once: its bias, its start and its resets."""
    assert layer.branches is not None
    none = torch.zeros_like(layer.neuron.bias)
    parts = [voltage_of(events, spikes, layer.branch(0), backend)]
    for k in range(1, layer.branches):
        own = layer.branch(k)
        passive = own.neuron._replace(threshold=none, reset=none, bias=none)
        parts.append(voltage_of(events, spikes, own._replace(neuron=passive, initial_voltage=None), backend))
    first = parts[0]
    return VoltageOfBranches(first.events, first.weight, first.neuron, spikes, backend, first.initial, tuple(parts))


def _of_one(n: int, events: Events, spikes: Events, layer: Layer, backend: str) -> Voltage:
    """The voltage of neuron ``n`` alone."""

    def own(x: Tensor) -> Tensor:
        return x if x.numel() == 1 else x[n : n + 1]

    def column(synapses: Synapses) -> Synapses:
        weight, delay = synapses
        if delay is None or delay.shape[1] == 1:
            return Synapses(weight[:, n : n + 1], delay)
        # an infinite one is of a synapse that is not there: its weight is 0
        finite = torch.where(torch.isinf(delay[:, n : n + 1]), 0.0, delay[:, n : n + 1])
        return Synapses(weight[:, n : n + 1], finite)

    alone = Layer(
        column(layer.synapses),
        Neuron(*map(own, layer.neuron)),
        None if layer.recurrent is None else column(layer.recurrent),
        initial_voltage=None if layer.initial_voltage is None else own(layer.initial_voltage),
        initial_current=None if layer.initial_current is None else own(layer.initial_current),
    )
    fired = spikes.keep(spikes.units == n)
    fired = replace_unchecked(fired, units=torch.zeros_like(fired.units), num_units=1)
    return Voltage(*_heard(events, spikes, alone), alone.neuron, fired, backend, alone.initial_voltage)


def _heard(events: Events, spikes: Events, layer: Layer) -> tuple[Events, Tensor]:
    """All that reaches the neurons, at its arrival, and with which weights: the input's units, then those that spike, then one
    whose event at time 0 brings the initial current."""
    arrived, weights = kernels.delayed(events, layer.synapses.delay), [layer.synapses.weight]
    if layer.recurrent is not None:
        arrived = _beside(arrived, kernels.delayed(spikes, layer.recurrent.delay))
        weights.append(layer.recurrent.weight)
    if layer.initial_current is not None:
        arrived = _beside(arrived, _one_each(events))
        weights.append(layer.initial_current.expand(1, weights[0].shape[1]))
    return arrived, torch.cat(weights)


def _beside(events: Events, more: Events) -> Events:
    """Both, the units of ``more`` after those of ``events``."""
    num = events.num_units + more.num_units
    ones = None if events.values is None else torch.ones_like(more.times, dtype=events.values.dtype)
    moved = replace_unchecked(more, units=more.units + events.num_units, num_units=num, values=ones)
    return replace_unchecked(events, num_units=num).merge(moved)


def _one_each(events: Events) -> Events:
    """An event at time 0 of a single unit, in each sample."""
    batch = events.batch_size
    offsets = torch.arange(batch + 1, device=events.device)
    units = events.units.new_zeros(batch)
    return Events.trusted(events.times.new_zeros(batch), units, offsets, 1, events.duration)
