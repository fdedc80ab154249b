"""The compiled kernels of gated units as torch operators: one call per layer, direction and sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.kernels.ops import _array, _kernel, _no_double_backward, _tensors
from eventnet.kernels.reference_egru import Steps, Unit

UNITS = (
    "Tensor drive, Tensor weight, Tensor bias, Tensor threshold, Tensor c, Tensor y, Tensor? kept, "
    "float height, float half_width, float zoneout"
)
EGRU = "eventnet::egru"
torch.library.define(EGRU, f"({UNITS}, bool keep_gates) -> (Tensor y, Tensor v, Tensor gates)")
torch.library.define(
    EGRU + "_backward",
    f"({UNITS}, Tensor told, Tensor value, Tensor gates, Tensor? of_told, Tensor? of_value) -> (Tensor drive, Tensor weight, "
    "Tensor bias, Tensor threshold, Tensor c, Tensor y)",
)


def egru_cpu(drive: Tensor, unit: Unit, c: Tensor, y: Tensor, kept: Tensor | None, zoneout: float) -> Steps:
    """Compiled twin of ``reference_egru.egru_reference``."""
    tensors = (drive, unit.weight, unit.bias, unit.threshold, c, y, kept)
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    out = torch.ops.eventnet.egru.default(*tensors, unit.height, unit.half_width, zoneout, wanted)
    return Steps(out[0], out[1])


def _arrays(tensors: tuple[Tensor | None, ...], dtype: torch.dtype) -> list[Any]:
    *numbers, kept = tensors
    arrays: list[Any] = [_array(x, dtype) for x in numbers if x is not None]
    return [*arrays, None if kept is None else _array(kept, torch.uint8)]


@torch.library.impl(EGRU, "CPU")
def _forward(*args: Any) -> tuple[Tensor, ...]:
    tensors, options = args[:7], args[7:]
    return _tensors(_kernel().egru(*_arrays(tensors, args[0].dtype), *options, torch.get_num_threads()))


@torch.library.impl(EGRU + "_backward", "CPU")
def _backward(*args: Any) -> tuple[Tensor, ...]:
    tensors, options, saved, grads = args[:7], args[7:10], args[10:13], args[13:]
    dtype = args[0].dtype
    cotangents = (None if g is None else _array(g, dtype) for g in grads)
    call = _kernel().egru_backward
    found = call(*_arrays(tensors, dtype), *options, *(_array(x) for x in saved), *cotangents, torch.get_num_threads())
    return tuple(x.to(dtype) for x in _tensors(found))


@torch.library.register_fake(EGRU)
def _(drive: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    steps, batch, hidden = drive.shape[0], drive.shape[1], threshold.shape[0]
    y = drive.new_empty((steps, batch, hidden))
    return y, torch.empty_like(y), drive.new_empty((steps if rest[-1] else 0, batch, 4, hidden))


@torch.library.register_fake(EGRU + "_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in args[:6])


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        out = _below(*args)
        ctx.mark_non_differentiable(out[2])
        ctx.set_materialize_grads(False)
        ctx.options = args[7:10]
        ctx.save_for_backward(*args[:7], *out)
        return out

    @staticmethod
    def backward(ctx: Any, of_told: Tensor | None, of_value: Tensor | None, _: None) -> Any:  # type: ignore[override]
        need = ctx.needs_input_grad
        if of_told is None and of_value is None:
            return (None,) * len(need)
        tensors, saved = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        found = torch.ops.eventnet.egru_backward.default(*tensors, *ctx.options, *saved, of_told, of_value)
        grads = [g if n else None for g, n in zip(found, need, strict=False)]
        return (*grads, None, None, None, None, None)


def _below(*args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.eventnet.egru.default(*args)


def _call(*args: Any) -> Any:
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
    return _Differentiable.apply(*args) if wanted else _below(*args)


torch.library.impl(EGRU, "Autograd")(_call)
torch.library.register_autograd(EGRU + "_backward", _no_double_backward)
