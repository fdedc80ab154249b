"""The compiled kernels of neurons with dendritic branches as torch operators: one call per layer and batch.

``lif_branches`` is for neurons that all hear an event at the same time. Its backward pass: given what a spike is worth, the
gradients of a branch are those of a layer with its time constant. ``lif_each`` serves the rest, as a layer of K N cells.
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
    _saved,
    _wanted,
    lif_each_cpu,
)
from eventnet.kernels.reference import Neuron, Packed
from eventnet.kernels.reference_lif import Layer, Run, Synapses

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


def lif_branches_each_cpu(packed: Packed, layer: Layer, max_spikes: int, final: bool) -> Run:
    """The same for delays per synapse or per target, refractory periods and initial states; with ``final`` the last state."""
    branches, num = layer.synapses.weight.shape[1:]
    run = lif_each_cpu(packed, _cells(layer), max_spikes, final)
    if run.voltage is None or run.current is None or run.held is None:
        return run
    current = run.current.unflatten(1, (branches, num))
    return run._replace(voltage=run.voltage[:, :num], current=current, held=run.held[:, :num])


def _cells(layer: Layer) -> Layer:
    """The layer as one of K N cells, cell k N + n being branch k of neuron n; its weight stays (in, K, N), to tell them apart."""
    branches, num = layer.synapses.weight.shape[1:]

    def shared(x: Tensor) -> Tensor:
        """What the branches of a neuron share: one number, (N,) or (B, N)."""
        return x if x.numel() == 1 and x.dim() < 2 else x.repeat(*(1,) * (x.dim() - 1), branches)

    def own(x: Tensor) -> Tensor:
        """What each has of its own: (K, 1), (K, N) or (B, K, N)."""
        return x.expand(*x.shape[:-1], num).flatten(-2)

    def delay(synapses: Synapses) -> Tensor | None:
        return None if synapses.delay is None else synapses.delay.flatten(1)

    neuron, back = layer.neuron, layer.recurrent
    refractory, voltage, current, held = layer.refractory, layer.initial_voltage, layer.initial_current, layer.held
    return layer._replace(
        synapses=Synapses(layer.synapses.weight, delay(layer.synapses)),
        neuron=Neuron(*map(shared, neuron))._replace(tau_syn=own(neuron.tau_syn)),
        recurrent=None if back is None else Synapses(back.weight.flatten(1), delay(back)),
        refractory=None if refractory is None else shared(refractory),
        initial_voltage=None if voltage is None else shared(voltage),
        initial_current=None if current is None else own(current),
        held=None if held is None else shared(held),
    )


def _fake_gradients(*args: Any) -> tuple[Tensor, ...]:
    weight = args[10]
    return (*_fake_lif_gradients(*args), weight.new_empty(weight.shape[1:], dtype=torch.float64))


def _from_spikes(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, tensors = _saved(ctx, 4)
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
