"""Which kernel serves a call. Every op has one readable reference and compiled twins that return the same numbers.

``backend="auto"`` takes the compiled kernel for CPU tensors. Nothing falls back in silence: a device that a backend can't
serve is an error naming the one that can, and an installation without compiled kernels says so on the first call.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from eventnet.events import Events
from eventnet.kernels import cpu
from eventnet.kernels.reference import Neuron, Packed, li_integral_reference, li_max_reference
from eventnet.kernels.reference_drive import drive_reference
from eventnet.kernels.reference_egru import Steps, Unit, egru_reference
from eventnet.kernels.reference_lif import Layer, Run, lif_reference

__all__ = ["available"]

BACKENDS = ("auto", "cpu", "reference")


def available() -> dict[str, str]:
    """Each backend and what it is, or why it is not there.

    Example:
        >>> "reference" in available()
        True
    """
    return {
        "cpu": cpu.describe(),
        "reference": "plain torch: any device, float64-safe, double backward; slow",
    }


def choose(backend: str, device: torch.device) -> str:
    """The backend that serves tensors on ``device``: "cpu" or "reference"."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "reference":
        return backend
    if device.type != "cpu":
        raise ValueError(
            f"no compiled kernel for tensors on {device}: move them to the CPU, or pass backend='reference', "
            "which runs on any device"
        )
    if cpu.load() is not None:
        return "cpu"
    if backend == "cpu":
        raise RuntimeError(f"backend 'cpu' is not there: {cpu.describe()}; backend='reference' serves any tensor")
    _announce_reference(cpu.describe())
    return "reference"


@cache
def _announce_reference(reason: str) -> None:
    warnings.warn(f"eventnet runs on its slow reference backend: {reason}", RuntimeWarning, stacklevel=2)


def check_layer_input(name: str, events: Events, weight: Tensor, branched: bool = False) -> None:
    """Types, shapes and devices of a layer's input, with errors that say what was expected.

    ``branched``: the weight may be ``(in, branches, out)``, too.
    """
    if not isinstance(events, Events):
        raise TypeError(
            f"{name}: expected eventnet.Events, got {type(events).__name__}; Events.from_dense takes rasters"
        )
    if weight.dim() != 2 and not (branched and weight.dim() == 3):
        more = "; with dendritic branches (in, branches, out)" if branched else ""
        raise ValueError(f"{name}: weight must be (in, out), got shape {tuple(weight.shape)}{more}")
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: weight must be float32 or float64, got {weight.dtype}")
    if events.num_units != weight.shape[0]:
        raise ValueError(
            f"{name}: events have {events.num_units} units but weight is "
            f"{'(in, out)' if weight.dim() == 2 else '(in, branches, out)'} = {tuple(weight.shape)}; "
            f"in must be {events.num_units}"
        )
    if events.device != weight.device:
        raise ValueError(
            f"{name}: events are on {events.device} but weight is on {weight.device}; use events.to(device)"
        )


def lif(events: Events, layer: Layer, backend: str, max_spikes: int, final: bool = False) -> Run:
    """The layer's spikes, their times in the dtype of the events' times; with ``final`` also the last state."""
    weight = layer.synapses.weight
    if choose(backend, weight.device) == "reference":
        run = lif_reference(_packed(events), layer, max_spikes)
        return run._replace(times=run.times.to(events.dtype), exact=run.times.detach())
    if layer.branches is not None:
        return _branched(events, layer, max_spikes, final)
    from eventnet.kernels.ops import lif_cpu, lif_each_cpu

    if final or each_has_its_own(layer):
        return lif_each_cpu(_packed(events), layer, max_spikes, final)
    return lif_cpu(_packed(delayed(events, layer.synapses.delay)), layer, max_spikes)


def lif_drive(
    target: Tensor, layer: Layer, dt: float, backend: str, max_spikes: int, voltage: bool = False
) -> tuple[Run, Tensor]:
    """Spikes of neurons whose voltages relax to ``target`` (T, B, N), and with ``voltage`` these at the ends of the steps."""
    if choose(backend, target.device) == "reference":
        run, voltages = drive_reference(target, layer, dt, max_spikes)
        return run._replace(exact=run.times.detach()), voltages
    lacking = [name for name in ("recurrent_weight", "initial_current") if name in layer.options()]
    if lacking:
        raise NotImplementedError(
            f"lif_drive: the compiled kernel has no {', no '.join(lacking)}; backend='reference' has all of it"
        )
    from eventnet.kernels.ops_drive import lif_drive_cpu

    return lif_drive_cpu(target, layer, dt, max_spikes, voltage)


def delayed(events: Events, delay: Tensor | None) -> Events:
    """Events at their arrivals, for one delay per source ``(in, 1)`` or ``(in, 1, 1)``, or one for all; differentiable."""
    if delay is None:
        return events
    late = delay.to(events.dtype)
    return events.retime(
        events.times + (late.reshape(()) if late.numel() == 1 else late.reshape(-1)[events.units.to(torch.int64)])
    )


def _branched(events: Events, layer: Layer, max_spikes: int, final: bool) -> Run:
    """``lif`` by the compiled kernels, for neurons with dendritic branches."""
    if layer.branches == 1:  # one branch is none
        run = lif(events, layer.branch(0), "cpu", max_spikes, final)
        return run if run.current is None else run._replace(current=run.current[:, None])
    from eventnet.kernels.ops_branches import lif_branches_cpu, lif_branches_each_cpu

    if final or each_has_its_own(layer):
        return lif_branches_each_cpu(_packed(events), layer, max_spikes, final)
    return lif_branches_cpu(_packed(delayed(events, layer.synapses.delay)), layer, max_spikes)


def each_has_its_own(layer: Layer) -> list[str]:
    """What of the layer makes its neurons differ in more than their parameters: no arrival is shared by all of them."""
    extras = [name for name in ("refractory", "initial_voltage", "initial_current") if name in layer.options()]
    missing = ["a state"] if layer.held is not None else extras
    given = {"delay": layer.synapses.delay, "recurrent_delay": layer.recurrent and layer.recurrent.delay}
    shared = {name: delay is None or delay.shape[1:].numel() == 1 for name, delay in given.items()}
    return missing + [f"{name} per synapse or per target" for name in given if not shared[name]]


def li_max(events: Events, weight: Tensor, neuron: Neuron, backend: str) -> Tensor:
    """``(B, N)`` largest voltage of neurons that never spike."""
    if choose(backend, weight.device) == "reference":
        return li_max_reference(_packed(events), weight, neuron).to(weight.dtype)
    from eventnet.kernels.ops import li_max_cpu

    return li_max_cpu(_packed(events), weight, neuron)


def li_integral(events: Events, weight: Tensor, neuron: Neuron, rate: float, backend: str) -> Tensor:
    """``(B, N)`` ``integral_0^T V(t) e^{-rate t} dt`` of neurons that never spike."""
    if choose(backend, weight.device) == "reference":
        return li_integral_reference(_packed(events), weight, neuron, rate).to(weight.dtype)
    from eventnet.kernels.ops import li_integral_cpu

    return li_integral_cpu(_packed(events), weight, neuron, rate)


def egru_drive(x: Tensor, weight: Tensor, bias: Tensor | None, needed: Tensor | None, backend: str) -> Tensor:
    """``linear(x, weight, bias)`` for inputs ``(T, B, I)`` that may be mostly zero; without ``needed`` all have a gradient."""
    if choose(backend, x.device) == "reference":
        return torch.nn.functional.linear(x, weight, bias)
    fits = weight.dim() == 2 and weight.shape[1] == x.shape[-1] and len(weight) % 3 == 0
    fits = fits and all(p is None or (p.dtype, p.device) == (x.dtype, x.device) for p in (weight, bias))
    fits = fits and (bias is None or bias.shape == weight.shape[:1]) and x.dtype in (torch.float32, torch.float64)
    if not fits or torch.is_autocast_enabled("cpu"):
        return torch.nn.functional.linear(x, weight, bias)  # which has its own words for them, and autocast's dtypes
    from eventnet.kernels.ops_egru import drive_cpu

    return drive_cpu(x, weight, weight.new_zeros(len(weight)) if bias is None else bias, needed)


def egru(
    drive: Tensor, unit: Unit, c: Tensor, y: Tensor, backend: str, kept: Tensor | None = None, zoneout: float = 0.0
) -> Steps:
    """The steps of a layer of event-based gated units, as ``egru_reference``."""
    _check_units(drive, unit, c, y, kept)
    if choose(backend, drive.device) == "reference":
        return egru_reference(drive, unit, c, y, kept, zoneout)
    if drive.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"EGRU: the compiled kernels take float32 or float64, got {drive.dtype}; backend='reference' takes any"
        )
    from eventnet.kernels.ops_egru import egru_cpu

    return egru_cpu(drive, unit, c, y, kept, zoneout)


def _check_units(drive: Tensor, unit: Unit, c: Tensor, y: Tensor, kept: Tensor | None) -> None:
    steps, batch, hidden = drive.shape[0], drive.shape[1], unit.weight.shape[1]
    given = {"weight_hh": unit.weight, "bias_hh": unit.bias, "threshold": unit.threshold, "state.c": c, "state.y": y}
    shapes = ((3 * hidden, hidden), (3 * hidden,), (hidden,), (batch, hidden), (batch, hidden))
    for (name, x), shape in zip(given.items(), shapes, strict=True):
        if x.shape != shape:
            raise RuntimeError(f"EGRU: expected {name} of shape {shape}, got {tuple(x.shape)}")
        if x.dtype != drive.dtype or x.device != drive.device:
            raise RuntimeError(f"EGRU: {name} is {x.dtype} on {x.device}, the input {drive.dtype} on {drive.device}")
    if drive.shape[2] != 3 * hidden or (kept is not None and kept.shape != (steps, batch, hidden)):
        raise RuntimeError(f"EGRU: expected input products (T, B, {3 * hidden}), got {tuple(drive.shape)}")


def _packed(events: Events) -> Packed:
    return Packed(events.times, events.units, events.offsets, events.values, events.duration)
