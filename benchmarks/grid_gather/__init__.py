"""The honest baseline of the speed tables: a compiled LIF on a grid that gathers a weight row per event.

``grid_gather.cpp`` holds the equations, ``recurrent.h`` and ``delayed.h`` those of a layer with connections to itself and of one
with a delay per synapse. ``compiled.py`` compiles them on first use into ``build/benchmarks`` of the source tree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet import Events

from .compiled import compile_library, instruction_set, library

__all__ = ["compile_library", "floor", "grid_gather", "grid_spikes", "instruction_set"]


def grid_gather(
    events: Events,
    w1: Tensor,
    w2: Tensor,
    *,
    dt: float,
    steps: int,
    recurrent: Tensor | None = None,
    recurrent_delay: float = 1e-3,
    delay: Tensor | None = None,
    tau_mem: float = 20e-3,
    tau_syn: float = 5e-3,
    threshold: float = 1.0,
    slope: float = 25.0,
) -> tuple[Tensor, Tensor]:
    """Mean readout voltage ``(B, outputs)`` and hidden spikes per sample ``(B,)``.

    ``w1 (inputs, hidden)`` and ``w2 (hidden, outputs)``, float32; times float32. ``recurrent (hidden, hidden)`` are weights
    of the hidden layer to itself, which arrive ``recurrent_delay`` seconds (a whole number of steps, at least one) after
    the spike's step. ``delay (inputs, hidden)`` are seconds per synapse, interpolated between two steps. Differentiable in
    the weights and in ``delay``: BPTT with a fast-sigmoid surrogate of ``slope``, the reset detached.
    """
    given = {"times": events.times, "w1": w1, "w2": w2, "recurrent": recurrent, "delay": delay}
    for name, x in given.items():
        if x is not None and x.dtype != torch.float32:
            raise TypeError(f"grid_gather: {name} must be float32, got {x.dtype}")
    if w1.shape[0] != events.num_units or w2.shape[0] != w1.shape[1]:
        raise ValueError(f"grid_gather: {events.num_units} units do not fit {tuple(w1.shape)} and {tuple(w2.shape)}")
    if recurrent is not None and delay is not None:
        raise ValueError("grid_gather: recurrent or delay, not both")
    w1 = w1.contiguous()
    settings = (steps, dt, tau_mem, tau_syn, threshold)
    if recurrent is not None:
        late = round(recurrent_delay / dt)
        if recurrent.shape != (w1.shape[1], w1.shape[1]) or late < 1:
            raise ValueError(f"grid_gather: recurrent {tuple(recurrent.shape)}, {late} steps late, does not fit")
        filtered, spikes = _Second.apply(w1, recurrent.contiguous(), events, "recurrent", (late,), settings, slope)
    elif delay is not None:
        if delay.shape != w1.shape or not bool((delay >= 0).all()):
            raise ValueError(f"grid_gather: delays must be {tuple(w1.shape)} and not negative")
        filtered, spikes = _Second.apply(w1, delay.contiguous(), events, "delayed", (), settings, slope)
    else:
        filtered, spikes = _Hidden.apply(w1, events, settings, slope)
    return filtered[:, : w1.shape[1]] @ w2, spikes


def grid_spikes(
    events: Events, w1: Tensor, *, dt: float, steps: int, tau_mem: float, tau_syn: float, threshold: float
) -> Events:
    """The hidden spikes, each at the end of the step in which the voltage was found above the threshold."""
    settings = (steps, dt, tau_mem, tau_syn, threshold)
    _, _, kept = _forward(w1.detach(), events, settings, keep=True)
    sample, step, unit = (kept[:, :, : w1.shape[1]] >= threshold).nonzero(as_tuple=True)
    offsets = torch.searchsorted(sample, torch.arange(events.batch_size + 1))
    times = ((step + 1).double() * dt).to(events.dtype)
    return Events(times, unit, offsets, w1.shape[1], torch.tensor(steps * dt, dtype=events.dtype))


def _forward(w1: Tensor, events: Events, settings: tuple, *, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Filtered spikes (B, width), counts (B,), voltages before the reset (B, steps, width) if ``keep``."""
    batch, (inputs, hidden) = events.batch_size, w1.shape
    width = library().grid_gather_width(hidden)
    kept = torch.empty(batch, settings[0], width) if keep else None
    filtered, spikes = torch.zeros(batch, width), torch.empty(batch, dtype=torch.int64)
    library().grid_gather_forward(
        *_pointers(events), w1.data_ptr(), inputs, hidden, *settings, torch.get_num_threads(),
        None if kept is None else kept.data_ptr(), filtered.data_ptr(), spikes.data_ptr(),
    )  # fmt: skip
    return filtered, spikes, kept


def _pointers(events: Events) -> tuple[int, int, int, int]:
    return events.times.data_ptr(), events.units.data_ptr(), events.offsets.data_ptr(), events.batch_size


class _Hidden(torch.autograd.Function):
    """The hidden layer: a neuron's spikes, each weighted with what it adds to the readout's mean."""

    @staticmethod
    def forward(ctx: Any, w1: Tensor, events: Events, settings: tuple, slope: float) -> tuple[Tensor, Tensor]:
        filtered, spikes, kept = _forward(w1, events, settings, keep=ctx.needs_input_grad[0])
        ctx.saved = (events, kept, settings, slope, w1.shape)
        ctx.mark_non_differentiable(spikes)
        return filtered, spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        events, kept, settings, slope, (inputs, hidden) = ctx.saved
        grad, dw1 = grad.contiguous(), torch.empty(inputs, hidden)
        library().grid_gather_backward(
            *_pointers(events), inputs, hidden, *settings, slope, torch.get_num_threads(),
            kept.data_ptr(), grad.data_ptr(), dw1.data_ptr(),
        )  # fmt: skip
        return dw1, None, None, None


class _Second(torch.autograd.Function):
    """The hidden layer with a second tensor to learn: "recurrent" weights (``extra``: steps of delay) or "delayed" synapses."""

    @staticmethod
    def forward(
        ctx: Any, w1: Tensor, second: Tensor, events: Events, name: str, extra: tuple, settings: tuple, slope: float
    ) -> tuple[Tensor, Tensor]:
        batch, (inputs, hidden) = events.batch_size, w1.shape
        width = library().grid_gather_width(hidden)
        columns = width if name == "recurrent" else library().grid_gather_lanes(hidden)
        kept = torch.empty(batch, settings[0], columns) if any(ctx.needs_input_grad[:2]) else None
        filtered, spikes = torch.zeros(batch, width), torch.empty(batch, dtype=torch.int64)
        layer = (inputs, hidden, *settings, torch.get_num_threads())
        getattr(library(), f"{name}_forward")(
            *_pointers(events), w1.data_ptr(), *layer, second.data_ptr(), *extra,
            None if kept is None else kept.data_ptr(), filtered.data_ptr(), spikes.data_ptr(),
        )  # fmt: skip
        ctx.saved = (w1, second, events, name, extra, layer, slope, kept)
        ctx.mark_non_differentiable(spikes)
        return filtered, spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        w1, second, events, name, extra, layer, slope, kept = ctx.saved
        grad, dw1, d_second = grad.contiguous(), torch.empty_like(w1), torch.empty_like(second)
        getattr(library(), f"{name}_backward")(
            *_pointers(events), w1.data_ptr(), *layer, second.data_ptr(), *extra, slope,
            kept.data_ptr(), grad.data_ptr(), dw1.data_ptr(), d_second.data_ptr(),
        )  # fmt: skip
        return dw1, d_second, None, None, None, None, None


def floor(events: Events, w1: Tensor, *, backward: bool) -> float:
    """Stream the weight rows of all events, and the gradient's rows back if ``backward``."""
    (inputs, hidden), threads = w1.shape, torch.get_num_threads()
    args = (events.units.data_ptr(), events.offsets.data_ptr(), events.batch_size)
    total: float = library().floor_forward(*args, w1.data_ptr(), inputs, hidden, threads)
    if backward:
        dw1 = torch.empty(inputs, hidden)
        library().floor_backward(*args, inputs, hidden, threads, dw1.data_ptr())
        total += float(dw1[0, 0])
    return total
