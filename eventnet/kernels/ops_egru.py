"""The compiled kernels of gated units as torch operators: one call per layer, direction and sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet.kernels.ops import _array, _kernel, _no_double_backward, _tensors
from eventnet.kernels.reference_egru import Steps, Unit

UNITS = (
    "Tensor drive, Tensor weight, Tensor bias, Tensor threshold, Tensor c, Tensor y, Tensor? kept, "
    "float height, float half_width, float zoneout"
)
EGRU = "eventnet::egru"
torch.library.define(EGRU + "_pack", "(Tensor weight) -> Tensor")
torch.library.define(EGRU, f"({UNITS}, Tensor packed, bool keep_gates) -> (Tensor y, Tensor v, Tensor gates)")
torch.library.define(
    EGRU + "_backward",
    f"({UNITS}, Tensor packed, Tensor told, Tensor gates, Tensor? of_told, Tensor? of_value, bool of_weight, bool of_y) -> "
    "(Tensor drive, Tensor weight, Tensor bias, Tensor threshold, Tensor c, Tensor y)",
)


def egru_cpu(drive: Tensor, unit: Unit, c: Tensor, y: Tensor, kept: Tensor | None, zoneout: float) -> Steps:
    """Compiled twin of ``reference_egru.egru_reference``."""
    tensors = (drive, unit.weight, unit.bias, unit.threshold, c, y, kept)
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    packed = torch.ops.eventnet.egru_pack.default(unit.weight.detach())
    out = torch.ops.eventnet.egru.default(*tensors, unit.height, unit.half_width, zoneout, packed, wanted)
    return Steps(out[0], out[1])


def stepper(
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    threshold: Tensor,
    c: Tensor,
    y: Tensor,
) -> Callable[[np.ndarray], np.ndarray]:
    """A step without operators around it: at one sample these would take longer than the step."""
    none = weight_hh.new_zeros(len(weight_hh))
    packed = [torch.ops.eventnet.egru_pack.default(weight.detach()) for weight in (weight_ih, weight_hh)]
    biases = [none if bias is None else bias for bias in (bias_ih, bias_hh)]
    fixed = [_array(x.detach().clone()) for x in (packed[0], biases[0], packed[1], biases[1], threshold)]
    state, step, told = (c.numpy(), y.numpy()), _kernel().egru_step, y.numpy()

    def call(x: np.ndarray) -> np.ndarray:
        step(x, *fixed, *state, torch.get_num_threads())
        return told

    return call


# ---- calls into the extension module --------------------------------------------------------------------------------


def _arrays(args: tuple[Any, ...]) -> list[Any]:
    """The tensors and options of the units, the weight replaced by the packed one, in the dtype of the drive."""
    drive, _, bias, threshold, c, y, kept, *options, packed = args
    arrays = [_array(x, drive.dtype) for x in (drive, packed, bias, threshold, c, y)]
    return [*arrays, None if kept is None else _array(kept, torch.uint8), *options]


@torch.library.impl(EGRU + "_pack", "CPU")
def _pack(weight: Tensor) -> Tensor:
    return torch.from_numpy(_kernel().egru_pack(_array(weight), torch.get_num_threads()))


@torch.library.impl(EGRU, "CPU")
def _forward(*args: Any) -> tuple[Tensor, ...]:
    return _tensors(_kernel().egru(*_arrays(args[:11]), args[11], torch.get_num_threads()))


@torch.library.impl(EGRU + "_backward", "CPU")
def _backward(*args: Any) -> tuple[Tensor, ...]:
    """As the forward operator, but the values take the place of the drive that they came of."""
    units, saved, grads, wanted = args[:11], args[11:13], args[13:15], args[15:]
    dtype = args[0].dtype
    cotangents = (None if g is None else _array(g, dtype) for g in grads)
    call = _kernel().egru_backward
    found = call(*_arrays(units), *(_array(x) for x in saved), *cotangents, *wanted, torch.get_num_threads())
    return tuple(x.to(dtype) for x in _tensors(found))


# ---- shapes, for tracing --------------------------------------------------------------------------------------------


@torch.library.register_fake(EGRU + "_pack")
def _(weight: Tensor) -> Tensor:
    # as row_of in egru.h lays them out: whole vectors, then an odd number of lines
    hidden, size = weight.shape[0] // 3, weight.dtype.itemsize
    lanes = _kernel().vector_bytes // size
    lines = (3 * ((hidden + lanes - 1) // lanes * lanes) * size + 63) // 64
    return weight.new_empty((weight.shape[1], (lines | 1) * 64 // size))


@torch.library.register_fake(EGRU)
def _(drive: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    steps, batch, hidden = drive.shape[0], drive.shape[1], threshold.shape[0]
    y = drive.new_empty((steps, batch, hidden))
    return y, torch.empty_like(y), drive.new_empty((steps if rest[-1] else 0, batch, 4, hidden))


@torch.library.register_fake(EGRU + "_backward")
def _(value: Tensor, weight: Tensor, *args: Any) -> tuple[Tensor, ...]:
    steps, batch, hidden = value.shape
    rows = 3 * hidden if args[-2] else 0
    shapes = (steps, batch, 3 * hidden), (rows, hidden), (3 * hidden,), (hidden,), (batch, hidden), (batch, hidden)
    return tuple(value.new_empty(shape) for shape in shapes)


# ---- gradients ------------------------------------------------------------------------------------------------------


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        out = _below(*args)
        ctx.mark_non_differentiable(out[2])
        ctx.set_materialize_grads(False)
        ctx.options = args[7:10]
        told, value, gates = out
        ctx.save_for_backward(value, *args[1:7], args[10], told, gates)
        return out

    @staticmethod
    def backward(ctx: Any, of_told: Tensor | None, of_value: Tensor | None, _: None) -> Any:
        need = ctx.needs_input_grad
        if of_told is None and of_value is None:
            return (None,) * len(need)
        tensors, packed, saved = ctx.saved_tensors[:7], ctx.saved_tensors[7], ctx.saved_tensors[8:]
        grads = of_told, of_value, need[1], need[5]
        found = torch.ops.eventnet.egru_backward.default(*tensors, *ctx.options, packed, *saved, *grads)
        own = [g if n else None for g, n in zip(found, need, strict=False)]
        return (*own, *(None,) * (len(need) - len(own)))


def _below(*args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.eventnet.egru.default(*args)


def _call(*args: Any) -> Any:
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
    return _Differentiable.apply(*args) if wanted else _below(*args)


torch.library.impl(EGRU, "Autograd")(_call)
torch.library.register_autograd(EGRU + "_backward", _no_double_backward)
