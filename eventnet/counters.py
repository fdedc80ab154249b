"""Counters of this package's layers: what their events and values cost; ``eventnet.counting`` says what counts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet.counters_torch import Fan, Rows, argument, columns, laid_out, one_step, operations, product, recurrent
from eventnet.counts import Counts, Forward, counter, kept, kept_of, total
from eventnet.events import Events
from eventnet.layers.dendrites import Segments
from eventnet.layers.egru import EGRU, EGRUCell, EGRUState
from eventnet.layers.egru_steps import EGRUSteps
from eventnet.layers.elm import ELM, ELMSteps
from eventnet.layers.lif import LIF
from eventnet.layers.prototypes import Prototypes
from eventnet.layers.readout import LI
from eventnet.tally import InSteps, by_step, sent_and_met, tally

__all__ = ["routed"]


@counter(LIF)
def _lif(layer: LIF, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events and the layer's own spikes, each with the weights of its row; what is pending in a state was counted."""
    events: Events = argument(args, kwargs, 0, "events")
    spikes: Events = output[0] if isinstance(output, tuple) else output
    last, there = lasting(events, dt), [routed(events, layer, "")]
    if getattr(layer, "recurrent_weight", None) is not None:
        there.append(routed(spikes, layer, "recurrent_"))
    return _counts(events, layer, last, there, spikes.num_events, by_step(spikes, dt, last.each, last.longest))


@counter(LI)
def _li(layer: LI, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events, each with the weights of its row."""
    events: Events = argument(args, kwargs, 0, "events")
    last = lasting(events, dt)
    return _counts(events, layer, last, [routed(events, layer, "")], 0, torch.zeros(last.longest, dtype=torch.int64))


class Routed(NamedTuple):
    """Events over the connections of a layer: how many were sent, what they met, what waits, and what there is to meet."""

    sent: int
    met: int
    waits: int
    plain: bool
    synapses: int
    size: int


def _counts(
    events: Events, layer: LIF | LI, last: Lasting, there: list[Routed], spikes: int, profile: Tensor
) -> Counts:
    """The counts of a layer from those of its connections, of which the first are those of its input."""
    plain = sum(one.met for one in there if one.plain)
    graded = sum(one.met for one in there if not one.plain)
    return Counts(
        samples=events.batch_size,
        steps=last.steps,
        neurons=layer.out_features,
        synapses=sum(one.synapses for one in there),
        inputs=there[0].sent,
        spikes=spikes,
        accumulates=plain,
        multiply_accumulates=graded,
        dense=sum(one.size for one in there) * last.steps,
        state_updates=layer.out_features * last.steps,
        weight_reads=plain + graded,
        buffer_writes=sum(one.waits for one in there),
        spikes_per_step=profile,
    )


@dataclass(frozen=True)
class Weights:
    """What the connections of a layer are, source by source: those that are there, and what waits for a spike of each."""

    there: Fan
    waits: Fan | None
    size: int

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor | None, delay: Tensor | None) -> Weights:
        """From a weight ``(in, out)`` or ``(in, branches, out)``, its mask and its delay.

        Example:
            >>> found = Weights.of(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), None, torch.tensor([[0.0, 1.0]]))
            >>> found.there.each.tolist(), found.waits.each.tolist(), found.size
            ([2, 1], [1, 1], 4)
        """
        there = (weight != 0 if mask is None else (weight != 0) & mask).flatten(1)  # all branches of all neurons
        waits = None
        if delay is not None:
            one = delay.dim() < 2 or delay[0].numel() == 1
            late = delay.reshape(-1, 1) if one else delay.expand(-1, *weight.shape[1:]).flatten(1)
            # of a source with one delay the event itself waits, otherwise each of its arrivals
            waits = Fan.of(((late > 0) & (there.any(1, keepdim=True) if one else there)).sum(1))
        return cls(Fan.of(there.sum(1)), waits, weight.numel())


def routed(events: Events, layer: LIF | LI, prefix: str) -> Routed:
    """What events meet of a layer's weight of that prefix, with its mask and its delay.

    Example:
        >>> layer = LIF(2, 2, delay=1e-3)
        >>> layer.weight.data = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> found = routed(Events.from_list([([0.0, 0.1, 0.2], [0, 0, 1])], num_units=2, duration=1.0), layer, "")
        >>> found.sent, found.met, found.waits
        (3, 5, 5)
    """
    weight: Tensor = getattr(layer, prefix + "weight")
    mask, delay = (getattr(layer, prefix + part, None) for part in ("mask", "delay"))
    found = kept(prefix, (weight, mask, delay), lambda: Weights.of(weight, mask, delay))
    fans = [found.there] if found.waits is None else [found.there, found.waits]
    sent, *uneven = sent_and_met(events, *(fan.each for fan in fans if fan.even is None))
    met = [uneven.pop(0) if fan.even is None else fan.even * sent for fan in fans]
    return Routed(sent, met[0], sum(met[1:]), events.values is None, found.there.synapses, found.size)


@dataclass(frozen=True)
class Lasting:
    """Steps of all samples together, of the longest one, and of each."""

    steps: int
    longest: int
    each: Tensor


def lasting(events: Events, dt: float) -> Lasting:
    """How many steps samples last."""

    def find() -> Lasting:
        each = events.num_steps(dt)
        number = each.tolist()
        return Lasting(sum(number), max(number, default=0), each)

    return kept_of(events.duration, f"lasting {dt}", find)  # which the spikes of a layer share with its input


# ---- gated units -----------------------------------------------------------------------------------------------------------


def _with_steps(layer: EGRU | ELM) -> Forward:
    """A forward that also returns what the units did."""
    forward = layer.forward

    def both(input: Any, state: Any = None, *, return_steps: bool = False) -> tuple[Any, Any]:
        found: tuple[Any, ...] = forward(input, state, return_steps=True)
        return found if return_steps else found[:2], found[2]

    return both


def _hidden_from_outside(layer: EGRU) -> Forward | None:
    """As ``_with_steps``, where the output does not show it."""
    return _with_steps(layer) if layer.num_layers > 1 or layer.trace_decay is not None else None


@counter(EGRU, more=_hidden_from_outside)
def _egru(layer: EGRU, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Inputs that are not zero (events of one unit in a step add up to one), and units that sent a value a step before."""
    (last, *_), steps = output
    given, state = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "state")
    x: Tensor | InSteps
    lengths = None
    if isinstance(given, Events):
        assert layer.step is not None
        x, lasts = InSteps(given, layer.step), lasting(given, layer.step)
        lengths = None if lasts.steps == lasts.longest * given.batch_size else lasts.each
    else:
        x = laid_out(given, layer.batch_first)[0]
    directions, outside = 1 + layer.bidirectional, tally(x).active
    found: list[Counts] = []
    below: list[Tensor] = []
    for k, suffix in enumerate(layer._suffixes()):
        side = k % directions
        if steps is None:  # of one layer
            y, rows = laid_out(last, layer.batch_first, lengths)
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


# ---- dendrites -------------------------------------------------------------------------------------------------------------


@counter(Segments)
def _segments(layer: Segments, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """The products of the contexts, of which one that many samples share is there once; gates are applied element by element."""
    context: Tensor = argument(args, kwargs, 0, "context")
    weight = layer.weight.flatten(0, 1)
    return dataclasses.replace(
        product(context, weight),
        steps=context.numel() // layer.context_features,
        inputs=columns(weight, "weight").tally(context).active,
    )


@counter(Prototypes)
def _prototypes(layer: Prototypes, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """The products of inputs with prototypes; the squares of prototypes are known beforehand, and none of them is a neuron."""
    x: Tensor = argument(args, kwargs, 0, "x")
    return dataclasses.replace(
        product(x, layer.contexts), steps=len(x), inputs=columns(layer.contexts, "weight").tally(x).active
    )


@counter(ELM, more=_with_steps)
def _elm(layer: ELM, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Inputs with their synapses, and the products of the MLP and of the readout; zeros in what they are given cost nothing.
    A trace and a memory unit are a state each."""
    steps: ELMSteps = output[1]
    said: Tensor = output[0][0]
    batch, times = steps.memory.shape[1], len(steps.memory)
    before = torch.cat([steps.start[None], steps.memory[:-1]])
    inward, back = layer.mlp_in.weight.split([layer.index.shape[0], layer.memory], 1)
    synapses = kept("synapses", (layer.weight, layer.index), lambda: _listening(layer))
    arrived = synapses.tally(steps.x)
    of_inputs = Counts(
        synapses=synapses.synapses,
        dense=layer.weight.numel() * batch * times,
        **operations(synapses.met(arrived), not arrived.graded),
    )
    parts = [of_inputs, product(steps.branch, inward, "inward"), product(before, back, "back")]
    parts.append(product(steps.hidden, layer.mlp_out.weight, "forth"))
    if layer.readout is not None:
        parts.append(product(steps.memory, layer.readout.weight, "readout"))
    return dataclasses.replace(
        total(parts),
        samples=batch,
        steps=batch * times,
        neurons=layer.memory,
        inputs=arrived.active,
        spikes=tally(said).active,
        state_updates=(layer.memory + layer.tau_syn.numel()) * batch * times,
    )


def _listening(layer: ELM) -> Fan:
    """The synapses of each input that are not zero."""
    there = (layer.weight > 0).flatten().long()
    each = torch.zeros(layer.in_features, dtype=torch.int64, device=there.device)
    return Fan.of(each.index_add_(0, layer.index.flatten(), there))
