"""State of a spiking layer at the end of a stretch of time, from which the next stretch goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet.events import Events, replace_unchecked, sorting_order
from eventnet.kernels.reference_lif import Layer, Run, Synapses

__all__ = ["LIFState"]


class LIFState(NamedTuple):
    """Where ``lif`` stopped: pass it to the next call to go on from there. No gradient flows through it.

    Args:
        voltage, current: volts, ``(B, N)``; with K dendritic branches each has a current of its own, ``(B, K, N)``.
        pending: events that have not reached all their targets: of the input's units, then of the layer's own; a time is the
            shortest delay whose arrival is still to come.
        refractory_left: seconds for which the voltage stays at reset, ``(B, N)``.
        time: seconds since the first call, ``(B,)``.

    Example:
        >>> from eventnet import LIF, Events
        >>> layer = LIF(1, 1, delay=0.05)
        >>> events = Events.from_list([([0.01, 0.08], [0, 0])], num_units=1, duration=0.1)
        >>> first, state = layer(events.crop(0.0, 0.04), return_state=True)
        >>> state.pending.num_events
        1
        >>> second = layer(events.crop(0.04, 0.1), state=state)
    """

    voltage: Tensor
    current: Tensor
    pending: Events
    refractory_left: Tensor
    time: Tensor

    def to(self, device: Any) -> LIFState:
        """The same on another device."""
        return LIFState(
            self.voltage.to(device),
            self.current.to(device),
            self.pending.to(device),
            self.refractory_left.to(device),
            self.time.to(device),
        )


def check_state(state: LIFState, events: Events, layer: Layer) -> None:
    """Raise where a state does not fit the layer or its input."""
    if not isinstance(state, LIFState):
        raise TypeError(f"state: expected the LIFState of an earlier call, got {type(state).__name__}")
    weight = layer.synapses.weight
    shape, branched = (events.batch_size, weight.shape[-1]), (events.batch_size, *weight.shape[1:])
    for name, wanted in (("voltage", shape), ("current", branched), ("refractory_left", shape)):
        part = getattr(state, name)
        if tuple(part.shape) != wanted:
            axes = "(samples, neurons)" if len(wanted) == 2 else "(samples, branches, neurons)"
            raise ValueError(f"state.{name} is of {tuple(part.shape)} {axes}, but this call has {wanted}")
        if part.device != weight.device:
            raise ValueError(f"state is on {part.device} but weight is on {weight.device}; use state.to(device)")
    if state.pending.batch_size != shape[0]:
        raise ValueError(f"state.pending has {state.pending.batch_size} samples, but this call has {shape[0]}")
    units = _units(layer)
    if state.pending.num_units != units:
        raise ValueError(f"state.pending has {state.pending.num_units} units, but this layer has {units} in and out")


def started(layer: Layer, state: LIFState) -> Layer:
    """The layer, starting from ``state``."""
    dtype = layer.synapses.weight.dtype
    voltage, current, left = (x.detach().to(dtype) for x in (state.voltage, state.current, state.refractory_left))
    return layer._replace(initial_voltage=voltage, initial_current=current, held=left)


def resumed(events: Events, pending: Events) -> Events:
    """``events`` after those still on their way, among the units of both; at minus the shortest delay that is to come."""
    if pending.num_events == 0:
        return events
    pending = replace_unchecked(pending, times=-pending.times)
    both = replace_unchecked(
        events, times=events.times.double(), duration=events.duration.double(), num_units=pending.num_units
    )
    if (both.values is None) == (pending.values is None):
        return pending.merge(both)
    return _graded(pending).merge(_graded(both))


def state_after(events: Events, layer: Layer, run: Run, before: LIFState | None) -> LIFState:
    """The state at the end of ``events``, of which those of ``before`` are a part."""
    assert run.voltage is not None and run.current is not None and run.held is not None and run.exact is not None
    voltage, current, held = run.voltage.detach(), run.current.detach(), run.held.detach()
    spikes = Events.trusted(run.exact.double(), run.units, run.offsets, voltage.shape[1], events.duration)
    seen = events.duration.detach().double()
    return LIFState(
        voltage, current, _pending(events, spikes, layer), held, seen if before is None else before.time + seen
    )


def _graded(events: Events) -> Events:
    values = torch.ones_like(events.times) if events.values is None else events.values
    return replace_unchecked(events, values=values)


def _units(layer: Layer) -> int:
    weight = layer.synapses.weight
    return weight.shape[0] + (weight.shape[-1] if layer.recurrent is not None else 0)


def _pending(events: Events, spikes: Events, layer: Layer) -> Events:
    num_in = layer.synapses.weight.shape[0]
    sent = replace_unchecked(events, num_units=_units(layer))
    longest = _longest(layer.synapses)
    if layer.recurrent is not None:
        ones = None if events.values is None else torch.ones_like(spikes.times)
        own = replace_unchecked(spikes, units=spikes.units + num_in, num_units=sent.num_units, values=ones)
        sent = sent.merge(own)
        longest = torch.cat([longest, _longest(layer.recurrent)])
    end = sent.duration.detach().double()[sent.samples]
    time = sent.times.detach().double()
    before_end = (time < end) | (sent.units >= num_in)  # a spike may be at the very end
    kept = before_end & (time + longest[sent.units.to(torch.int64)] >= end)
    sample, delay = sent.samples[kept], _shortest_to_come(time[kept], end[kept])
    order = sorting_order(delay, sample)
    offsets = torch.nn.functional.pad(torch.bincount(sample, minlength=sent.batch_size).cumsum(0), (1, 0))
    values = None if sent.values is None else sent.values.detach()[kept][order]
    rest = torch.zeros_like(sent.duration)
    return Events.trusted(delay[order], sent.units[kept][order], offsets, sent.num_units, rest, values)


def _longest(synapses: Synapses) -> Tensor:
    """Seconds until an event of each source has reached all its targets."""
    weight, delay = synapses
    if delay is None or delay.numel() == 0:
        return torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
    # an infinite one is of a synapse that is not there
    return delay.detach().double().masked_fill(torch.isinf(delay), 0.0).flatten(1).amax(1).expand(weight.shape[0])


def _shortest_to_come(time: Tensor, end: Tensor) -> Tensor:
    """The smallest delay with ``time + delay >= end`` after rounding: so no arrival is lost, and none counts twice."""
    delay = (end - time).clamp(min=0)
    up, down = torch.full_like(delay, torch.inf), torch.full_like(delay, -torch.inf)
    for _ in range(2):
        delay = torch.where(time + delay < end, torch.nextafter(delay, up), delay)
    for _ in range(2):
        less = torch.nextafter(delay, down)
        delay = torch.where((time + less >= end) & (less >= 0), less, delay)
    return delay
