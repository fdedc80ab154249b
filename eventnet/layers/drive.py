"""LIF neurons driven by piecewise-constant currents: the way from a dense layer, a convolution say, into spikes.

    tau_mem V' = bias + current[k] @ weight - V + I   on [k dt, (k + 1) dt)

A current acts on the voltage itself: no synapse filters it. I is what the layer's own spikes make of it, if it is recurrent, and
``I' = -I / tau_syn``. Spike, reset and refractory period are those of ``lif``. The steps cut the currents, not the spikes: these
come when they come, several in a step if the current is strong, and V goes on from step to step. Without I a spike comes
``tau_mem log(1 + (threshold - V) / (target - threshold))`` seconds after V, with ``target = bias + current[k] @ weight``; a
neuron whose target is the threshold, or below it, does not fire. Gradients are exact, as for ``lif``.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Literal, overload

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.kernels.reference_lif import Layer
from eventnet.layers.lif import MAX_SPIKES, Watcher, as_layer

__all__ = ["lif_drive"]


@overload
def lif_drive(
    current: Tensor,
    weight: Tensor | None,
    dt: float,
    *,
    recurrent_weight: Tensor | None = ...,
    recurrent_delay: float | Tensor | None = ...,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    refractory: float | Tensor = ...,
    initial_voltage: float | Tensor | None = ...,
    initial_current: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    recurrent_mask: Tensor | None = ...,
    slope_floor: float = ...,
    return_voltage: Literal[False] = ...,
    backend: str = ...,
    max_spikes: int = ...,
) -> Events: ...


@overload
def lif_drive(
    current: Tensor,
    weight: Tensor | None,
    dt: float,
    *,
    recurrent_weight: Tensor | None = ...,
    recurrent_delay: float | Tensor | None = ...,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    refractory: float | Tensor = ...,
    initial_voltage: float | Tensor | None = ...,
    initial_current: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    recurrent_mask: Tensor | None = ...,
    slope_floor: float = ...,
    return_voltage: Literal[True],
    backend: str = ...,
    max_spikes: int = ...,
) -> tuple[Events, Tensor]: ...


@outside_graphs
def lif_drive(
    current: Tensor,
    weight: Tensor | None,
    dt: float,
    *,
    recurrent_weight: Tensor | None = None,
    recurrent_delay: float | Tensor | None = None,
    tau_mem: float | Tensor = 20e-3,
    tau_syn: float | Tensor = 5e-3,
    threshold: float | Tensor = 1.0,
    reset: float | Tensor = 0.0,
    bias: float | Tensor = 0.0,
    refractory: float | Tensor = 0.0,
    initial_voltage: float | Tensor | None = None,
    initial_current: float | Tensor | None = None,
    mask: Tensor | None = None,
    recurrent_mask: Tensor | None = None,
    slope_floor: float = 0.0,
    return_voltage: bool = False,
    backend: str = "auto",
    max_spikes: int = MAX_SPIKES,
) -> Events | tuple[Events, Tensor]:
    """Spikes of leaky integrate-and-fire neurons under piecewise-constant currents, with exact times and gradients.

    Args:
        current: ``(T, B, in)`` of any float dtype; row k holds from ``k dt`` to ``(k + 1) dt``.
        weight: ``(in, out)``; None: the current is that of the neurons, ``(T, B, out)``.
        dt: seconds per step, > 0.
        tau_syn: of the currents that the layer's own spikes (and ``initial_current``) make; the input has no synapse.
        return_voltage: also return V at the ends of the steps, ``(T, B, out)``, just after a spike at that very time;
            differentiable, too.
        backend: "auto" (the compiled kernel where there is one), "cpu" or "reference". The compiled kernel has no recurrent
            weights and no initial current: the reference has.

    All else is as for ``lif``. There are no delays of the input (shift the rows), and no dendritic branches, which differ by
    their synapses.

    Returns:
        ``Events`` of ``out`` units over T dt seconds; their times are differentiable in the current, the weights and every
        parameter that requires grad, and in the dtype of current and weight, the wider one.

    Raises:
        ValueError: a bound is violated, shapes or devices do not fit, a current is not finite.
        RuntimeError: more than ``max_spikes`` spikes.
        NotImplementedError: what the backend lacks.

    Example:
        >>> current = torch.full((3, 1, 1), 2.0, requires_grad=True)  # 2 volts for 3 steps of 10 ms
        >>> spikes = lif_drive(current, None, 10e-3)
        >>> spikes.times.detach() / 20e-3  # every log 2 time constants
        tensor([0.6931, 1.3863])
        >>> spikes.times[0].backward()
        >>> bool((current.grad[:2] < 0).all()), current.grad[2].item()  # what comes later moves no earlier spike
        (True, 0.0)
    """
    _check_current(current)
    layer = as_layer(
        _no_rows(current) if weight is None else weight,
        recurrent_weight,
        None,
        recurrent_delay,
        tau_mem,
        tau_syn,
        threshold,
        reset,
        bias,
        refractory,
        initial_voltage,
        initial_current,
        mask,
        recurrent_mask,
        slope_floor,
    )
    return run_drive(current, layer, dt, return_voltage, backend, max_spikes, weighted=weight is not None)


def run_drive(
    current: Tensor,
    layer: Layer,
    dt: float,
    return_voltage: bool,
    backend: str,
    max_spikes: int = MAX_SPIKES,
    weighted: bool = True,
    watchers: Iterable[Watcher] = (),
) -> Events | tuple[Events, Tensor]:
    """``lif_drive`` of checked parameters; ``watchers`` get to see the run, in which no events came in."""
    weight = layer.synapses.weight
    _check_current(current)
    _check(current, layer, dt, weighted)
    steps, batch, _ = current.shape
    dtype = torch.promote_types(current.dtype, weight.dtype)
    target, bias = current.to(dtype), layer.neuron.bias.to(dtype)
    if weighted:
        with torch.autocast(current.device.type, enabled=False):  # its products are too coarse for spike times
            rows = torch.addmm(bias.expand(weight.shape[1]), target.flatten(0, 1), weight.to(dtype))
            target = rows.view(steps, batch, weight.shape[1])
    else:
        target = target + bias
    run, voltage = kernels.lif_drive(target, layer, float(dt), backend, max_spikes, return_voltage)
    duration = target.new_full((batch,), steps * dt)
    spikes = Events.trusted(run.times, run.units, run.offsets, target.shape[2], duration)
    for watch in watchers:
        watch(Events.from_list([([], [])] * batch, weight.shape[0], duration), layer, run)
    return (spikes, voltage) if return_voltage else spikes


def _no_rows(current: Tensor) -> Tensor:
    """The weight of a layer that has none: it tells how many neurons there are, and their dtype."""
    dtype = current.dtype if current.dtype == torch.float64 else torch.float32
    return current.new_empty(0, current.shape[2], dtype=dtype)


def _check_current(current: Tensor) -> None:
    if not isinstance(current, Tensor) or not current.is_floating_point():
        kind = current.dtype if isinstance(current, Tensor) else type(current).__name__
        raise TypeError(f"lif_drive: expected currents as a float tensor, got {kind}")
    if current.dim() != 3:
        raise ValueError(f"lif_drive: expected currents of shape (T, B, in), got {tuple(current.shape)}")


def _check(current: Tensor, layer: Layer, dt: float, weighted: bool) -> None:
    weight = layer.synapses.weight
    if layer.branches is not None:
        raise NotImplementedError(
            "lif_drive: no dendritic branches: they differ by their synapses, which a current does not pass"
        )
    if layer.synapses.delay is not None:
        raise NotImplementedError("lif_drive: no delays of the input: currents have steps, so shift their rows instead")
    if weight.dim() != 2:
        raise ValueError(f"lif_drive: weight must be (in, out), got shape {tuple(weight.shape)}")
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"lif_drive: weight must be float32 or float64, got {weight.dtype}")
    inputs = weight.shape[0] if weighted else weight.shape[1]
    if current.shape[2] != inputs:
        raise ValueError(f"lif_drive: expected currents of shape (T, B, {inputs}), got {tuple(current.shape)}")
    if current.device != weight.device:
        raise ValueError(f"lif_drive: the current is on {current.device} but weight is on {weight.device}")
    if not 0 < dt < inf:
        raise ValueError(f"lif_drive: dt must be a positive number of seconds, got {dt}")
