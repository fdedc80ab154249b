"""Connections of a layer: from whatever the user passes to checked weights and delays."""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events, replace_unchecked
from eventnet.kernels.reference_lif import Layer, Synapses

KINDS = ("synaptic", "axonal", "dendritic")
Delay = float | Tensor | tuple[float, float] | None  # (low, high) draws them


def as_synapses(weight: Tensor, delay: float | Tensor | None, name: str = "") -> Synapses:
    """``weight`` (in, out) and its delays, checked; ``name`` is the prefix in errors, such as "recurrent_"."""
    if delay is None:
        return Synapses(weight)
    if not isinstance(delay, Tensor):
        delay = torch.full((1, 1), float(delay), dtype=weight.dtype, device=weight.device)
    shape = tuple(weight.shape)
    allowed = {(1, 1): "", **{delay_shape(kind, *shape): f" {kind}" for kind in KINDS}}
    if delay.dim() == 0:
        delay = delay.reshape(1, 1)
    if tuple(delay.shape) not in allowed:
        wanted = ", ".join(f"{s}{kind}" for s, kind in allowed.items() if kind)
        raise ValueError(f"{name}delay must be one number or {wanted}, got shape {tuple(delay.shape)}")
    if delay.device != weight.device:
        raise ValueError(f"{name}delay is on {delay.device} but weight is on {weight.device}; move both to one device")
    if not delay.is_meta and not bool((sound := (delay >= 0) & torch.isfinite(delay)).all()):
        at = (~sound).nonzero()[0].tolist()
        raise ValueError(
            f"{name}delay{at} is {delay[tuple(at)].item()}; delays are finite seconds >= 0 "
            "(eventnet.constrain_(module) after each optimiser step keeps them so)"
        )
    return Synapses(weight, delay if delay.dtype == weight.dtype else delay.to(weight.dtype))


def as_recurrent(weight: Tensor, recurrent_weight: Tensor | None, delay: float | Tensor | None) -> Synapses | None:
    """The layer's connections to itself, checked."""
    if recurrent_weight is None:
        if delay is not None:
            raise ValueError("recurrent_delay needs a recurrent_weight")
        return None
    num = weight.shape[1]
    if recurrent_weight.shape != (num, num):
        raise ValueError(
            f"recurrent_weight must be (out, out) = {(num, num)}, got shape {tuple(recurrent_weight.shape)}"
        )
    if recurrent_weight.dtype != weight.dtype or recurrent_weight.device != weight.device:
        raise ValueError(
            f"recurrent_weight is {recurrent_weight.dtype} on {recurrent_weight.device} but weight is {weight.dtype} on "
            f"{weight.device}; they must agree"
        )
    return as_synapses(recurrent_weight, delay, "recurrent_")


def heard(events: Events, spikes: Events, layer: Layer) -> tuple[Events, Tensor]:
    """All that reaches the neurons, at its arrival, and with which weights: the input's units, then the layer's own, then one
    whose event at time 0 brings the initial current."""
    if missing := [name for name in kernels.each_has_its_own(layer) if not name.startswith("initial_")]:
        raise NotImplementedError(f"lif: return_voltage is not possible with {', '.join(missing)} yet")
    arrived, weights = kernels.delayed(events, layer.synapses.delay), [layer.synapses.weight]
    if layer.recurrent is not None:
        arrived = _beside(arrived, kernels.delayed(spikes, layer.recurrent.delay))
        weights.append(layer.recurrent.weight)
    if layer.initial_current is not None:
        arrived = _beside(arrived, _one_each(events))
        weights.append(layer.initial_current.expand(1, spikes.num_units))
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


def delay_shape(kind: str, num_in: int, num_out: int) -> tuple[int, int]:
    """Of the delays: one per synapse, per source (axonal) or per target (dendritic)."""
    if kind not in KINDS:
        raise ValueError(f"delay_kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return {"synaptic": (num_in, num_out), "axonal": (num_in, 1), "dendritic": (1, num_out)}[kind]


def normal_weight(num_in: int, num_out: int, dtype: torch.dtype | None) -> Tensor:
    """``(in, out)``, normal with standard deviation in^-1/2."""
    return torch.randn(num_in, num_out, dtype=dtype) / max(num_in, 1) ** 0.5


def initial_delay(
    given: float | Tensor | tuple[float, float], kind: str, num_in: int, num_out: int, dtype: torch.dtype | None
) -> Tensor:
    """A delay of one value, given values, or uniform in (low, high), in the shape of its kind."""
    shape = delay_shape(kind, num_in, num_out)
    if isinstance(given, tuple):
        low, high = given
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"delay=(low, high): expected 0 <= low <= high in seconds, got {given}")
        return low + (high - low) * torch.rand(shape, dtype=dtype)
    if isinstance(given, Tensor):
        return given.detach().clone().to(dtype or torch.get_default_dtype())
    return torch.full(shape, float(given), dtype=dtype)
