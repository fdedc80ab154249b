"""Counters of this package's layers: what their events and values cost; ``eventnet.counting`` says what counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.counters_torch import argument, one_step, operations, recurrent
from eventnet.counts import Counts, counter, total
from eventnet.events import Events
from eventnet.layers.egru import EGRU, EGRUCell, EGRUState
from eventnet.layers.egru_steps import EGRUSteps, within
from eventnet.layers.lif import LIF
from eventnet.layers.readout import LI

__all__ = ["profile", "routed", "sent"]


@counter(LIF)
def _lif(layer: LIF, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events and the layer's own spikes, each with the weights of its row; what is pending in a state was counted."""
    events: Events = argument(args, kwargs, 0, "events")
    spikes: Events = output[0] if isinstance(output, tuple) else output
    given, steps = layer.arguments(), int(events.num_steps(dt).sum())
    of_inputs = sent(events)
    found = Counts(
        samples=events.batch_size,
        steps=steps,
        neurons=layer.out_features,
        inputs=int(of_inputs.sum()),
        spikes=spikes.num_events,
        state_updates=layer.out_features * steps,
        spikes_per_step=profile(spikes, dt),
    )
    parts = [found, routed(of_inputs, given["weight"], steps, given, plain=events.values is None)]
    if "recurrent_weight" in given:
        parts.append(routed(sent(spikes), given["recurrent_weight"], steps, given, "recurrent_"))
    return total(parts)


@counter(LI)
def _li(layer: LI, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Input events, each with the weights of its row."""
    events: Events = argument(args, kwargs, 0, "events")
    of_inputs, steps = sent(events), int(events.num_steps(dt).sum())
    found = Counts(
        samples=events.batch_size,
        steps=steps,
        neurons=layer.out_features,
        inputs=int(of_inputs.sum()),
        state_updates=layer.out_features * steps,
        spikes_per_step=torch.zeros(_longest(events, dt), dtype=torch.int64),
    )
    return total([found, routed(of_inputs, layer.weight, steps, {}, plain=events.values is None)])


def sent(events: Events) -> Tensor:
    """``(N,)`` events of each unit that count: before the end of their sample, and not of value 0.

    Example:
        >>> sent(Events.from_list([([0.0, 0.1, 0.2], [0, 0, 1])], num_units=3, duration=0.2))
        tensor([2, 0, 0])
    """
    there = events.times < events.duration[events.samples]
    if events.values is not None:
        there = there & (events.values != 0)
    return torch.bincount(events.units[there].long(), minlength=events.num_units)


def routed(
    sent: Tensor, weight: Tensor, steps: int, given: dict[str, Any], prefix: str = "", plain: bool = True
) -> Counts:
    """What so many events ``(in,)`` of each source cost over a weight ``(in, out)``, ``given`` its mask and its delay.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> found = routed(torch.tensor([2, 1]), weight, 10, {"delay": torch.tensor([[0.0, 1.0]])})
        >>> found.accumulates, found.buffer_writes, found.dense
        (5, 3, 40)
    """
    there = weight != 0
    if prefix + "mask" in given:
        there = there & given[prefix + "mask"]
    waiting, delay = 0, given.get(prefix + "delay")
    if delay is not None:
        late = delay.reshape(-1, 1) if delay.dim() < 2 else delay
        # of a source with one delay the event itself waits, otherwise each of its arrivals
        waits = (late > 0) & (there.any(1, keepdim=True) if late.shape[1] == 1 else there)
        waiting = int((sent * waits.sum(1)).sum())
    done = int((sent * there.sum(1)).sum())
    return Counts(
        synapses=int(there.sum()), dense=weight.numel() * steps, buffer_writes=waiting, **operations(done, plain)
    )


def profile(spikes: Events, dt: float) -> Tensor:
    """``(T,)`` int64 events of each step of ``dt`` seconds, of all samples; steps as of ``Events.to_dense``.

    Example:
        >>> profile(Events.from_list([([0.0, 0.1, 0.1], [0, 0, 1])], num_units=3, duration=0.3), dt=0.1)
        tensor([1, 2, 0])
    """
    slack = 1 - torch.finfo(spikes.dtype).eps
    step = (spikes.times.detach().double() / dt / slack).floor().to(torch.int64)
    step = torch.minimum(step, spikes.num_steps(dt)[spikes.samples] - 1).clamp(min=0)
    return torch.bincount(step, minlength=_longest(spikes, dt)).cpu()


def _longest(events: Events, dt: float) -> int:
    """Steps of the longest sample."""
    return int(events.num_steps(dt).max()) if events.batch_size else 0


# ---- gated units -----------------------------------------------------------------------------------------------------------


@counter(EGRU)
def _egru(layer: EGRU, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """Inputs that are not zero (events of one unit in a step add up to one), and units that sent a value a step before.

    The layer is run again for what its lower layers send, unless it was called with ``return_steps``.
    """
    given, state = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "state")
    x, lengths = layer._padded(given)
    start = layer._state(state, x, batched=not (isinstance(given, Tensor) and given.dim() == 2)).y
    done: Any = output if len(output) == 3 else layer.forward(given, state, return_steps=True)
    steps: list[EGRUSteps] = done[2]
    there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if lengths is not None:
        there = within(lengths, len(x))
    found, below = [Counts(inputs=int(x[there].count_nonzero()))], []
    directions = 1 + layer.bidirectional
    for k, suffix in enumerate(layer._suffixes()):
        y = steps[k].y
        if lengths is not None:
            y = y.new_zeros(*there.shape, y.shape[-1]).masked_scatter(there[:, :, None], y)
        weights = getattr(layer, "weight_ih" + suffix), getattr(layer, "weight_hh" + suffix)
        found.append(recurrent(x, y, start[k], weights, there, reverse=bool(k % directions)))
        below.append(y)
        if len(below) == directions:
            x, below = torch.cat(below, -1), []
    return total(found)


@counter(EGRUCell)
def _egru_cell(layer: EGRUCell, args: tuple[Any, ...], kwargs: dict[str, Any], output: EGRUState, dt: float) -> Counts:
    """One step of an ``EGRU`` layer."""
    state = argument(args, kwargs, 1, "state")
    return one_step(argument(args, kwargs, 0, "x"), output.y, None if state is None else state.y, layer)
