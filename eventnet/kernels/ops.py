"""The compiled kernels as torch operators: one call per layer and batch, its backward pass an operator of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet.kernels import cpu
from eventnet.kernels.reference import Neuron, too_many_spikes

# rows of the sums over the batch that the backward kernels return, in the order of adjoint.h
BEFORE, AFTER, AFTER_TAU, START, START_TAU, TAU_MEM, TAU_SYN = range(7)


def lif(
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    neuron: Neuron,
    shared_taus: bool,
    max_spikes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compiled twin of ``reference.lif_reference``: times, units and offsets of the spikes."""
    out = _lif(times, units, offsets, values, duration, weight, *neuron, shared_taus, max_spikes)
    return out[0], out[1], out[2]


def li_max(
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    neuron: Neuron,
    shared_taus: bool,
) -> Tensor:
    """Compiled twin of ``reference.li_max_reference``."""
    result: Tensor = _li_max(times, units, offsets, values, duration, weight, *neuron, shared_taus)[0]
    return result


def _kernel() -> Any:
    module = cpu.load()
    if module is None:
        raise RuntimeError(f"eventnet's compiled kernels: {cpu.describe()}; use backend='reference'")
    return module


def _arrays(
    times: Tensor, units: Tensor, offsets: Tensor, values: Tensor | None, duration: Tensor, weight: Tensor
) -> tuple[np.ndarray | None, ...]:
    """The packed events and the weight as contiguous arrays; times in float64, values in the weight's dtype."""
    sizes = None if values is None else _array(values.to(weight.dtype))
    at, end = times.to(torch.float64), duration.to(torch.float64)
    return (_array(at), _array(units), _array(offsets), sizes, _array(end), _array(weight))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _parameters(*neuron: Tensor) -> np.ndarray:
    return _array(torch.stack(neuron).to(torch.float64))


# ---- spikes ---------------------------------------------------------------------------------------------------------


@torch.library.custom_op("eventnet::lif", mutates_args=(), device_types="cpu")
def _lif(
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    tau_mem: Tensor,
    tau_syn: Tensor,
    threshold: Tensor,
    reset: Tensor,
    bias: Tensor,
    shared_taus: bool,
    max_spikes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """times, units, offsets of the spikes; their times and currents in float64 for the backward pass."""
    arrays = _arrays(times, units, offsets, values, duration, weight)
    parameters = _parameters(tau_mem, tau_syn, threshold, reset, bias)
    try:
        found = _kernel().lif(*arrays, parameters, shared_taus, max_spikes, torch.get_num_threads())
    except OverflowError as storm:
        raise too_many_spikes(max_spikes, int(str(storm))) from None
    exact, out_units, out_offsets, currents = (torch.from_numpy(x) for x in found)
    return exact.to(times.dtype, copy=True), out_units, out_offsets, exact, currents


@_lif.register_fake
def _(times: Tensor, units: Tensor, offsets: Tensor, values: Any, duration: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    spikes = torch.library.get_ctx().new_dynamic_size()
    exact = times.new_empty(spikes, dtype=torch.float64)
    return times.new_empty(spikes), units.new_empty(spikes), torch.empty_like(offsets), exact, torch.empty_like(exact)


@torch.library.custom_op("eventnet::lif_backward", mutates_args=(), device_types="cpu")
def _lif_backward(
    grad_times: Tensor,
    spike_times: Tensor,
    spike_units: Tensor,
    spike_offsets: Tensor,
    currents: Tensor,
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    tau_mem: Tensor,
    tau_syn: Tensor,
    threshold: Tensor,
    reset: Tensor,
    bias: Tensor,
    shared_taus: bool,
    inputs: bool,
    taus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients: weight; sums per neuron; input times and values (empty unless ``inputs``)."""
    arrays = _arrays(times, units, offsets, values, duration, weight)
    parameters = _parameters(tau_mem, tau_syn, threshold, reset, bias)
    spikes = (_array(x) for x in (spike_times, spike_units, spike_offsets, currents, grad_times.to(torch.float64)))
    found = _kernel().lif_backward(
        *arrays, parameters, shared_taus, *spikes, inputs, taus, torch.get_num_threads()
    )
    grad_weight, sums, grad_times, grad_values = (torch.from_numpy(x) for x in found)
    return grad_weight, sums, grad_times, grad_values


@_lif_backward.register_fake
def _(
    grad_times: Tensor,
    spike_times: Tensor,
    spike_units: Tensor,
    spike_offsets: Tensor,
    currents: Tensor,
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    return _fake_gradients(times, values, weight, inputs=rest[-2])


def _fake_gradients(times: Tensor, values: Tensor | None, weight: Tensor, inputs: bool) -> tuple[Tensor, ...]:
    sums = weight.new_empty((7, weight.shape[1]), dtype=torch.float64)
    events = times.shape[0] if inputs else 0
    grad_times = times.new_empty(events, dtype=torch.float64)
    grad_values = times.new_empty(events if values is not None else 0, dtype=torch.float64)
    return torch.empty_like(weight, memory_format=torch.contiguous_format), sums, grad_times, grad_values


def _lif_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.shared_taus, _ = inputs
    _, units, offsets, exact, currents = output
    ctx.mark_non_differentiable(units, offsets, exact, currents)
    ctx.save_for_backward(exact, units, offsets, currents, *tensors)


def _lif_gradients(ctx: Any, grad_times: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    spikes, tensors = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
    need = ctx.needs_input_grad
    inputs, taus = need[0] or need[3], need[6] or need[7]
    found = _lif_backward(grad_times, *spikes, *tensors, ctx.shared_taus, inputs, taus)
    weight, sums, times, values = found
    own: list[Tensor | None] = [None] * 5
    if any(need[6:11]):
        threshold, reset, bias = tensors[8], tensors[9], tensors[10]
        restless = (bias >= threshold).to(sums.dtype)
        rise = (reset - bias).to(sums.dtype)
        own = [
            sums[TAU_MEM] + (sums[AFTER_TAU] + restless * sums[START_TAU]) * rise,
            sums[TAU_SYN],
            -sums[BEFORE],
            sums[AFTER] + restless * sums[START],
            sums[BEFORE] - sums[AFTER] - restless * sums[START],
        ]
    return _assemble(need, tensors, weight, times, values, own)


def _assemble(
    need: tuple[bool, ...], tensors: Any, weight: Tensor, times: Tensor, values: Tensor, own: list[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients in the order and dtypes of the operator's arguments; None where none is needed."""
    grads: list[Tensor | None] = [times, None, None, values, None, weight, *own]
    cast = [g.to(x.dtype) if n and g is not None else None for n, g, x in zip(need, grads, tensors, strict=False)]
    return (*cast, *[None] * (len(need) - len(cast)))


def _no_double_backward(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "eventnet: the compiled kernels have no double backward; backend='reference' differentiates twice"
    )


_lif.register_autograd(_lif_gradients, setup_context=_lif_setup)
_lif_backward.register_autograd(_no_double_backward)


# ---- largest voltage ------------------------------------------------------------------------------------------------


@torch.library.custom_op("eventnet::li_max", mutates_args=(), device_types="cpu")
def _li_max(
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    tau_mem: Tensor,
    tau_syn: Tensor,
    threshold: Tensor,
    reset: Tensor,
    bias: Tensor,
    shared_taus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(B, N)`` each: largest voltage; its time; the arrival whose kink it is (or -1) and the slope before that."""
    arrays = _arrays(times, units, offsets, values, duration, weight)
    parameters = _parameters(tau_mem, tau_syn, threshold, reset, bias)
    found = _kernel().li_max(*arrays, parameters, shared_taus, torch.get_num_threads())
    value, at, event, slope = (torch.from_numpy(x) for x in found)
    return value + bias, at, event, slope


@_li_max.register_fake
def _(
    times: Tensor, units: Tensor, offsets: Tensor, values: Any, duration: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    value = weight.new_empty((duration.shape[0], weight.shape[1]))
    at = torch.empty_like(value, dtype=torch.float64)
    return value, at, torch.empty_like(value, dtype=torch.int64), torch.empty_like(value)


@torch.library.custom_op("eventnet::li_max_backward", mutates_args=(), device_types="cpu")
def _li_max_backward(
    grad: Tensor,
    at: Tensor,
    event: Tensor,
    slope: Tensor,
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    tau_mem: Tensor,
    tau_syn: Tensor,
    threshold: Tensor,
    reset: Tensor,
    bias: Tensor,
    shared_taus: bool,
    inputs: bool,
    taus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients: weight; sums per neuron; input times and values (empty unless ``inputs``)."""
    arrays = _arrays(times, units, offsets, values, duration, weight)
    parameters = _parameters(tau_mem, tau_syn, threshold, reset, bias)
    marks = (_array(x) for x in (at, event, slope, grad))
    found = _kernel().li_max_backward(
        *arrays, parameters, shared_taus, *marks, inputs, taus, torch.get_num_threads()
    )
    grad_weight, sums, grad_times, grad_values = (torch.from_numpy(x) for x in found)
    return grad_weight, sums, grad_times, grad_values


@_li_max_backward.register_fake
def _(
    grad: Tensor,
    at: Tensor,
    event: Tensor,
    slope: Tensor,
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    return _fake_gradients(times, values, weight, inputs=rest[-2])


def _li_max_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.shared_taus = inputs
    _, at, event, slope = output
    ctx.mark_non_differentiable(at, event, slope)
    ctx.save_for_backward(at, event, slope, *tensors)


def _li_max_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    marks, tensors = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
    need = ctx.needs_input_grad
    inputs, taus = need[0] or need[3], need[6] or need[7]
    found = _li_max_backward(grad, *marks, *tensors, ctx.shared_taus, inputs, taus)
    weight, sums, times, values = found
    own: list[Tensor | None] = [None] * 5
    if any(need[6:11]):
        threshold, reset, bias = tensors[8], tensors[9], tensors[10]
        restless = (bias >= threshold).to(sums.dtype)
        from_reset = restless * sums[START]
        own = [
            sums[TAU_MEM] + restless * sums[START_TAU] * (reset - bias).to(sums.dtype),
            sums[TAU_SYN],
            torch.zeros_like(sums[0]),
            from_reset,
            sums[BEFORE] - sums[AFTER] - from_reset,
        ]
    return _assemble(need, tensors, weight, times, values, own)


_li_max.register_autograd(_li_max_gradients, setup_context=_li_max_setup)
_li_max_backward.register_autograd(_no_double_backward)
