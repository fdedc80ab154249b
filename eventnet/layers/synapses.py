"""Connections of a layer: from whatever the user passes to checked weights and delays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eventnet.kernels.reference_lif import Synapses

KINDS = ("synaptic", "axonal", "dendritic")
Delay = float | Tensor | tuple[float, float] | None  # (low, high) draws them


def as_synapses(weight: Tensor, delay: float | Tensor | None, mask: Tensor | None = None, name: str = "") -> Synapses:
    """``weight`` (in, out) or (in, branches, out) and its delays, checked; ``name`` is the prefix in errors, such as
    "recurrent_"."""
    if mask is None:
        return Synapses(weight, _as_delay(weight, delay, name))
    check_mask(mask, weight, name)
    delay, there = _as_delay(weight, delay, name), torch.where(mask, weight, 0.0)
    if delay is None or delay.shape[1:].numel() == 1:  # all hear the same: what reaches one of them reaches all
        return Synapses(there, delay)
    return Synapses(there, torch.where(mask, delay, torch.inf))


def check_mask(mask: Tensor, weight: Tensor, name: str) -> None:
    """Raise where a mask does not fit its weights."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}mask must be a bool tensor, got {type(mask).__name__}; torch.as_tensor(mask) makes one")
    if mask.dtype != torch.bool or mask.shape != weight.shape or mask.device != weight.device:
        raise ValueError(
            f"{name}mask must be bool {tuple(weight.shape)} on {weight.device}, as the weights, got {mask.dtype} "
            f"{tuple(mask.shape)} on {mask.device}"
        )


def _as_delay(weight: Tensor, delay: float | Tensor | None, name: str) -> Tensor | None:
    if delay is None:
        return None
    if not isinstance(delay, Tensor):
        delay = torch.tensor(float(delay), dtype=weight.dtype, device=weight.device)
    shape = tuple(weight.shape)
    one = (1,) * len(shape)
    allowed = {one: "", **{delay_shape(kind, *shape): f" {kind}" for kind in KINDS}}
    if delay.dim() == 0:
        delay = delay.reshape(one)
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
    return delay if delay.dtype == weight.dtype else delay.to(weight.dtype)


def as_recurrent(
    weight: Tensor, recurrent_weight: Tensor | None, delay: float | Tensor | None, mask: Tensor | None
) -> Synapses | None:
    """The layer's connections to itself, checked."""
    if recurrent_weight is None:
        for name, given in (("delay", delay), ("mask", mask)):
            if given is not None:
                raise ValueError(f"recurrent_{name} needs a recurrent_weight")
        return None
    wanted = (weight.shape[-1], *weight.shape[1:])
    if recurrent_weight.shape != wanted:
        axes = "(out, out)" if weight.dim() == 2 else "(out, branches, out)"
        raise ValueError(f"recurrent_weight must be {axes} = {wanted}, got shape {tuple(recurrent_weight.shape)}")
    if recurrent_weight.dtype != weight.dtype or recurrent_weight.device != weight.device:
        raise ValueError(
            f"recurrent_weight is {recurrent_weight.dtype} on {recurrent_weight.device} but weight is {weight.dtype} on "
            f"{weight.device}; they must agree"
        )
    return as_synapses(recurrent_weight, delay, mask, "recurrent_")


def delay_shape(kind: str, num_in: int, *targets: int) -> tuple[int, ...]:
    """Of the delays: one per synapse, per source (axonal) or per target (dendritic); targets are (out) or (branches, out)."""
    if kind not in KINDS:
        raise ValueError(f"delay_kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return {"synaptic": (num_in, *targets), "axonal": (num_in, *(1,) * len(targets)), "dendritic": (1, *targets)}[kind]


def normal_weight(num_in: int, *targets: int, dtype: torch.dtype | None) -> Tensor:
    """``(in, out)`` or ``(in, branches, out)``, normal with standard deviation in^-1/2 or (in branches)^-1/2."""
    per_neuron = num_in * (targets[0] if len(targets) > 1 else 1)
    return torch.randn(num_in, *targets, dtype=dtype) / max(per_neuron, 1) ** 0.5


def initial_delay(
    given: float | Tensor | tuple[float, float], kind: str, num_in: int, *targets: int, dtype: torch.dtype | None
) -> Tensor:
    """A delay of one value, given values, or uniform in (low, high), in the shape of its kind."""
    shape = delay_shape(kind, num_in, *targets)
    if isinstance(given, tuple):
        low, high = given
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"delay=(low, high): expected 0 <= low <= high in seconds, got {given}")
        return low + (high - low) * torch.rand(shape, dtype=dtype)
    if isinstance(given, Tensor):
        return given.detach().clone().to(dtype or torch.get_default_dtype())
    return torch.full(shape, float(given), dtype=dtype)


def initial_tau_syn(
    given: float | Tensor | tuple[float, float], branches: int | None, num: int, name: str = "tau_syn"
) -> float | Tensor:
    """What is given, or log-spaced from the first branch to the last, ``(branches, num)``."""
    if not isinstance(given, tuple):
        return given
    if branches is None or len(given) != 2 or not 0 < given[0] <= given[1] < float("inf"):
        raise ValueError(
            f"{name}=(low, high) spreads it over branches=K, with 0 < low <= high in seconds; got {given}, branches={branches}"
        )
    low, high = given
    spread = torch.logspace(math.log10(low), math.log10(high), branches, dtype=torch.float64)
    return (spread if branches > 1 else spread.new_full((1,), (low * high) ** 0.5))[:, None].repeat(1, num)
