"""Counters of this package's layers: what their events and values cost; ``eventnet.counting`` says what counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eventnet.counters_torch import Fan, Rows, argument, laid_out, nonzero, one_step, operations, recurrent
from eventnet.counts import Counts, counter, kept, kept_of, total
from eventnet.events import Events
from eventnet.layers.egru import EGRU, EGRUCell, EGRUState
from eventnet.layers.egru_steps import EGRUSteps
from eventnet.layers.lif import LIF
from eventnet.layers.readout import LI

__all__ = ["profile", "routed", "sent"]


@counter(LIF)
def _lif(layer: LIF, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events and the layer's own spikes, each with the weights of its row; what is pending in a state was counted."""
    events: Events = argument(args, kwargs, 0, "events")
    spikes: Events = output[0] if isinstance(output, tuple) else output
    steps = lasting(events, dt).steps
    found = routed(sent(events), layer, "", steps, plain=events.values is None)
    if getattr(layer, "recurrent_weight", None) is not None:
        found = total([found, routed(sent(spikes), layer, "recurrent_", steps)])
    return Counts(
        samples=events.batch_size,
        steps=steps,
        neurons=layer.out_features,
        synapses=found.synapses,
        inputs=len(sent(events)),
        spikes=spikes.num_events,
        accumulates=found.accumulates,
        multiply_accumulates=found.multiply_accumulates,
        dense=found.dense,
        state_updates=layer.out_features * steps,
        weight_reads=found.weight_reads,
        buffer_writes=found.buffer_writes,
        spikes_per_step=profile(spikes, dt),
    )


@counter(LI)
def _li(layer: LI, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events, each with the weights of its row."""
    events: Events = argument(args, kwargs, 0, "events")
    last = lasting(events, dt)
    found = routed(sent(events), layer, "", last.steps, plain=events.values is None)
    return Counts(
        samples=events.batch_size,
        steps=last.steps,
        neurons=layer.out_features,
        synapses=found.synapses,
        inputs=len(sent(events)),
        accumulates=found.accumulates,
        multiply_accumulates=found.multiply_accumulates,
        dense=found.dense,
        state_updates=layer.out_features * last.steps,
        weight_reads=found.weight_reads,
        spikes_per_step=torch.zeros(last.longest, dtype=torch.int64),
    )


def sent(events: Events) -> Tensor:
    """Units of the events that count: before the end of their sample, and not of value 0.

    Example:
        >>> sent(Events.from_list([([0.0, 0.1, 0.2], [0, 0, 1])], num_units=3, duration=0.2))
        tensor([0, 0], dtype=torch.int32)
    """
    return kept_of(events, "sent", lambda: _sent(events))


def _sent(events: Events) -> Tensor:
    if not events.num_events:
        return events.units
    there, shortest = None, kept_of(events.duration, "shortest", lambda: float(events.duration.min()))
    # the last of each sample, as times ascend; in place of an empty one that of another
    if not float(events.times[events.offsets[1:] - 1].max()) < shortest:
        there = events.times < events.duration[events.samples]
    if events.values is not None:
        there = events.values != 0 if there is None else there & (events.values != 0)
    return events.units if there is None else events.units[there]


@dataclass(frozen=True)
class Weights:
    """What the connections of a layer are, source by source: those that are there, and what waits for a spike of each."""

    there: Fan
    waits: Fan | None
    size: int

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor | None, delay: Tensor | None) -> Weights:
        """From a weight ``(in, out)``, its mask and its delay.

        Example:
            >>> found = Weights.of(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), None, torch.tensor([[0.0, 1.0]]))
            >>> found.there.each.tolist(), found.waits.each.tolist(), found.size
            ([2, 1], [1, 1], 4)
        """
        there = weight != 0 if mask is None else (weight != 0) & mask
        waits = None
        if delay is not None:
            late = delay.reshape(-1, 1) if delay.dim() < 2 else delay
            # of a source with one delay the event itself waits, otherwise each of its arrivals
            waits = Fan.of(((late > 0) & (there.any(1, keepdim=True) if late.shape[1] == 1 else there)).sum(1))
        return cls(Fan.of(there.sum(1)), waits, weight.numel())


def routed(sent: Tensor, layer: LIF | LI, prefix: str, steps: int, plain: bool = True) -> Counts:
    """What events of units ``(E,)`` cost over a layer's weight of that prefix, with its mask and its delay.

    Example:
        >>> layer = LIF(2, 2, delay=1e-3)
        >>> layer.weight.data = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> found = routed(torch.tensor([0, 0, 1]), layer, "", 10)
        >>> found.accumulates, found.buffer_writes, found.dense
        (5, 5, 40)
    """
    weight: Tensor = getattr(layer, prefix + "weight")
    mask, delay = (getattr(layer, prefix + part, None) for part in ("mask", "delay"))
    found = kept(prefix, (weight, mask, delay), lambda: Weights.of(weight, mask, delay))
    return Counts(
        synapses=found.there.synapses,
        dense=found.size * steps,
        buffer_writes=_met(found.waits, sent) if found.waits is not None else 0,
        **operations(_met(found.there, sent), plain),
    )


def _met(fan: Fan, sent: Tensor) -> int:
    """The synapses that events of units ``(E,)`` meet."""
    return fan.even * len(sent) if fan.even is not None else int(fan.each.index_select(0, sent).sum())


def profile(spikes: Events, dt: float) -> Tensor:
    """``(T,)`` int64 events of each step of ``dt`` seconds, of all samples; steps as of ``Events.to_dense``.

    Example:
        >>> profile(Events.from_list([([0.0, 0.1, 0.1], [0, 0, 1])], num_units=3, duration=0.3), dt=0.1)
        tensor([1, 2, 0])
    """
    slack, last = 1 - torch.finfo(spikes.dtype).eps, lasting(spikes, dt)
    step = (spikes.times.double() / dt).div_(slack).to(torch.int64)  # times are not negative
    if last.each is None:
        step.clamp_(0, max(last.longest - 1, 0))
    else:
        step = torch.minimum(step, last.each[spikes.samples] - 1).clamp_(min=0)
    return torch.bincount(step, minlength=last.longest).cpu()


@dataclass(frozen=True)
class Lasting:
    """Steps of all samples together, of the longest one, and of each where they differ."""

    steps: int
    longest: int
    each: Tensor | None


def lasting(events: Events, dt: float) -> Lasting:
    """How many steps samples last."""

    def find() -> Lasting:
        each = events.num_steps(dt)
        number = each.tolist()
        longest = max(number, default=0)
        return Lasting(sum(number), longest, None if longest * len(number) == sum(number) else each)

    return kept_of(events.duration, f"lasting {dt}", find)  # which the spikes of a layer share with its input


# ---- gated units -----------------------------------------------------------------------------------------------------------


def _shown(layer: EGRU) -> str | None:
    """Whether a call has to say what its units did, as its output does not."""
    return "return_steps" if layer.num_layers > 1 or layer.trace_decay is not None else None


@counter(EGRU, more=_shown)
def _egru(layer: EGRU, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Inputs that are not zero (events of one unit in a step add up to one), and units that sent a value a step before."""
    given, state = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "state")
    lengths = None
    if isinstance(given, Events):
        x, lengths = layer._padded(given)
    else:
        x = laid_out(given, layer.batch_first)[0]
    directions, steps = 1 + layer.bidirectional, output[2] if len(output) == 3 else None
    found: list[Counts] = []
    below: list[Tensor] = []
    outside = nonzero(x)
    for k, suffix in enumerate(layer._suffixes()):
        side = k % directions
        if steps is None:  # of one layer
            y, rows = laid_out(output[0], layer.batch_first, lengths)
            y = y.chunk(directions, -1)[side]
        else:
            y, rows = _said(steps[k])
        weights = getattr(layer, "weight_ih" + suffix), getattr(layer, "weight_hh" + suffix)
        start = None if state is None else state.y[k].reshape(rows.samples, -1)
        found.append(recurrent(x, y, start, weights, rows, bool(side), suffix, 0 if found else outside))
        below.append(y)
        if len(below) == directions:
            x, below = torch.cat(below, -1) if directions > 1 else y, []
    return total(found)


def _said(steps: EGRUSteps) -> tuple[Tensor, Rows]:
    """What the units of a layer told, and how it is laid out."""
    if steps.lengths is None:
        return steps.y, Rows.full(*steps.y.shape[:2])
    lengths = steps.lengths
    return steps.y, kept_of(lengths, "rows", lambda: Rows.packed(lengths))


@counter(EGRUCell)
def _egru_cell(layer: EGRUCell, args: tuple[Any, ...], kwargs: dict[str, Any], output: EGRUState, dt: float) -> Counts:
    """One step of an ``EGRU`` layer."""
    state = argument(args, kwargs, 1, "state")
    return one_step(argument(args, kwargs, 0, "x"), output.y, None if state is None else state.y, layer)
