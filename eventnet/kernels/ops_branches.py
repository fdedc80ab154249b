"""The compiled kernel of neurons with dendritic branches as a torch operator: one call per layer and batch.

Its backward pass: given what a spike is worth, the gradients of a branch are those of a layer with its time constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.kernels.ops import (
    DELAY,
    EVENTS,
    GRADIENTS,
    LAYER,
    RECURRENT,
    _fake_lif,
    _fake_lif_gradients,
    _gradients,
    _implement_spiking,
    _like,
    _no_double_backward,
    _register_autograd,
    _save_spikes,
    _wanted,
)
from eventnet.kernels.reference import Packed
from eventnet.kernels.reference_lif import Layer, Run

LIF_BRANCHES = "eventnet::lif_branches"

torch.library.define(
    LIF_BRANCHES,
    f"({EVENTS}, {LAYER}, {RECURRENT}, float slope_floor, int max_spikes) -> (Tensor, Tensor, Tensor, Tensor exact_times, "
    "Tensor currents)",
)
torch.library.define(
    LIF_BRANCHES + "_backward",
    f"(Tensor grad, Tensor exact_times, Tensor spike_units, Tensor spike_offsets, Tensor currents, {EVENTS}, {LAYER}, "
    f"{RECURRENT}, float slope_floor, bool inputs, bool taus) -> {GRADIENTS[:-1]}, Tensor recurrent_weight, Tensor tau_syn)",
)


def lif_branches_cpu(packed: Packed, layer: Layer, max_spikes: int) -> Run:
    """Compiled twin of ``lif_reference`` for neurons with branches, for events at their arrivals; without the last state."""
    recurrent: tuple[Tensor | None, Tensor | None] = (None, None)
    if layer.recurrent is not None:
        back, wait = layer.recurrent
        recurrent = back, wait.reshape(-1) if wait is not None else back.new_zeros(1)
    weight, floor = layer.synapses.weight, layer.slope_floor
    out = torch.ops.eventnet.lif_branches.default(*packed, weight, *layer.neuron, *recurrent, floor, max_spikes)
    return Run(out[0], out[1], out[2], out[4])


def _fake_gradients(*args: Any) -> tuple[Tensor, ...]:
    weight = args[10]
    return (*_fake_lif_gradients(*args), weight.new_empty(weight.shape[1:], dtype=torch.float64))


def _from_spikes(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, tensors = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
    *found, back, tau_syn = torch.ops.eventnet.lif_branches_backward.default(
        grad, *spikes, *tensors, ctx.slope_floor, *_wanted(ctx)
    )
    own: tuple[Tensor | None, Tensor | None] = (None, None)
    if tensors[11] is not None:
        own = back, _like(found[1][DELAY], tensors[12]) if ctx.needs_input_grad[12] else None
    return (*_gradients(ctx, tensors, found, spiking=True, tau_syn=tau_syn), *own, None, None)


_implement_spiking(LIF_BRANCHES, 2)
torch.library.register_fake(LIF_BRANCHES, _fake_lif)
torch.library.register_fake(LIF_BRANCHES + "_backward", _fake_gradients)
_register_autograd(LIF_BRANCHES, _save_spikes, _from_spikes)
torch.library.register_autograd(LIF_BRANCHES + "_backward", _no_double_backward)
