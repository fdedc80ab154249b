"""The compiled kernel of neurons under piecewise-constant currents as a torch operator: one call per layer and batch.

It takes the targets ``(T, B, N)``, bias plus current; the product with the weight is torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.kernels.ops import _array, _kernel, _like, _no_double_backward, _tensors
from eventnet.kernels.reference import too_many_spikes
from eventnet.kernels.reference_lif import Layer, Run

DRIVE = "eventnet::lif_drive"
NEURON = "Tensor target, Tensor tau_mem, Tensor threshold, Tensor reset, Tensor refractory, Tensor start, float dt"
SUMS = 5  # rows of the sums per neuron, in the order of the five parameters
torch.library.define(
    DRIVE,
    f"({NEURON}, float slope_floor, bool kept, int max_spikes) -> (Tensor times, Tensor voltage, Tensor units, "
    "Tensor offsets, Tensor exact, Tensor steps)",
)
torch.library.define(
    DRIVE + "_backward",
    f"({NEURON}, Tensor exact, Tensor units, Tensor offsets, Tensor steps, Tensor voltage, Tensor of_times, "
    "Tensor? of_voltage, float slope_floor) -> (Tensor target, Tensor sums)",
)


def lif_drive_cpu(target: Tensor, layer: Layer, dt: float, max_spikes: int, kept: bool) -> tuple[Run, Tensor]:
    """Compiled twin of ``reference_drive.drive_reference`` for layers without currents of their own; without the last state.

    The voltages are left out unless they are ``kept``.
    """
    neuron = layer.neuron.to(target.dtype)
    start = neuron.start() if layer.initial_voltage is None else layer.initial_voltage.to(target.dtype)
    pause = target.new_zeros(()) if layer.refractory is None else layer.refractory.to(target.dtype)
    own = (neuron.tau_mem, neuron.threshold, neuron.reset, pause, start)
    kept = kept or (torch.is_grad_enabled() and neuron.tau_mem.requires_grad)
    found = torch.ops.eventnet.lif_drive.default(target, *own, dt, layer.slope_floor, kept, max_spikes)
    times, voltage, units, offsets, exact, steps = found
    return Run(times, units, offsets, _currents(target, neuron.bias, units, offsets, steps), exact=exact), voltage


@torch.no_grad()
def _currents(target: Tensor, bias: Tensor, units: Tensor, offsets: Tensor, steps: Tensor) -> Tensor:
    """Those at the spikes."""
    n, sample = units.to(torch.int64), torch.arange(target.shape[1]).repeat_interleave(offsets.diff())
    return target[steps, sample, n] - bias.expand(target.shape[2])[n]


# ---- calls into the extension module --------------------------------------------------------------------------------


@torch.library.impl(DRIVE, "CPU")
def _drive(*args: Any) -> tuple[Tensor, ...]:
    *tensors, dt, _, kept, max_spikes = args
    given = (_array(x, tensors[0].dtype) for x in tensors)
    try:
        found = _kernel().lif_drive(*given, dt, kept, max_spikes, torch.get_num_threads())
    except OverflowError as storm:
        raise too_many_spikes(max_spikes, int(str(storm))) from None
    exact, units, offsets, steps, voltage = _tensors(found)
    return exact.to(tensors[0].dtype, copy=True), voltage, units, offsets, exact, steps


@torch.library.impl(DRIVE + "_backward", "CPU")
def _drive_backward(*args: Any) -> tuple[Tensor, ...]:
    layer, dt, spikes, (voltage, of_times, of_voltage, floor) = args[:6], args[6], args[7:11], args[11:]
    own = layer[0].dtype
    found = _kernel().lif_drive_backward(
        *(_array(x, own) for x in layer),
        dt,
        *(_array(x) for x in spikes),
        _array(voltage),
        _array(of_times),
        None if of_voltage is None else _array(of_voltage, own),
        floor,
        torch.get_num_threads(),
    )
    of_target, sums = _tensors(found)
    return of_target, sums


# ---- shapes, for tracing --------------------------------------------------------------------------------------------


@torch.library.register_fake(DRIVE)
def _(target: Tensor, *args: Any) -> tuple[Tensor, ...]:
    spikes, kept = torch.library.get_ctx().new_dynamic_size(), args[-2]
    exact = target.new_empty(spikes, dtype=torch.float64)
    offsets = target.new_empty(target.shape[1] + 1, dtype=torch.int64)
    units, steps = exact.new_empty(spikes, dtype=torch.int32), exact.new_empty(spikes, dtype=torch.int64)
    voltage = target.new_empty((target.shape[0] if kept else 0, *target.shape[1:]))
    return target.new_empty(spikes), voltage, units, offsets, exact, steps


@torch.library.register_fake(DRIVE + "_backward")
def _(target: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return target.new_empty(target.shape), target.new_empty((SUMS, target.shape[2]), dtype=torch.float64)


# ---- gradients ------------------------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.dt, ctx.slope_floor, _, _ = inputs
    _, voltage, *spikes = output
    units, offsets, exact, steps = spikes
    ctx.mark_non_differentiable(*spikes)
    ctx.set_materialize_grads(False)  # zeros for voltages that nobody reads would be as large as the targets
    ctx.save_for_backward(*tensors, exact, units, offsets, steps, voltage)


def _gradients(ctx: Any, of_times: Tensor | None, of_voltage: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if of_times is None and of_voltage is None:
        return (None,) * 10
    saved = ctx.saved_tensors  # asked for once: checkpoints allow no more
    tensors, spikes, voltage = saved[:6], saved[6:10], saved[10]
    of_times = torch.zeros_like(spikes[0]) if of_times is None else of_times
    if len(voltage) != len(tensors[0]):  # not kept
        if ctx.needs_input_grad[1]:
            raise RuntimeError("eventnet::lif_drive: the gradient of tau_mem needs the voltages: kept=True")
        of_voltage = None  # compiled graphs make one
    found = torch.ops.eventnet.lif_drive_backward.default(
        *tensors, ctx.dt, *spikes, voltage, of_times, of_voltage, ctx.slope_floor
    )
    grads = (found[0], *found[1].unbind())
    need = ctx.needs_input_grad
    own = tuple(_like(g, x) if n else None for g, x, n in zip(grads, tensors, need, strict=False))
    return (*own, None, None, None, None)


torch.library.register_autograd(DRIVE, _gradients, setup_context=_save)
torch.library.register_autograd(DRIVE + "_backward", _no_double_backward)
