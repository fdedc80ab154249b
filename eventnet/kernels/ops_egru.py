"""The compiled kernels of gated units as torch operators: one call per layer, direction and sequence.

``egru_drive`` are the products of a layer's inputs, ``egru`` its steps.
"""

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
EGRU, DRIVE = "eventnet::egru", "eventnet::egru_drive"
# Shares above which a dense product is faster, of its inputs that are not zero or needed (measured at 128 to 1024 units).
DENSE, DENSE_WEIGHT, DENSE_INPUT = 0.5, 0.35, 0.4
torch.library.define(EGRU + "_pack", "(Tensor weight) -> Tensor")
torch.library.define(DRIVE, "(Tensor x, Tensor weight, Tensor bias, Tensor? needed) -> Tensor")
torch.library.define(
    DRIVE + "_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor? needed, bool of_x, bool of_weight) -> (Tensor x, Tensor weight)",
)
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


def drive_cpu(x: Tensor, weight: Tensor, bias: Tensor, needed: Tensor | None) -> Tensor:
    """``linear(x, weight, bias)`` that skips inputs that are zero, where this is faster, whatever their weights are.

    ``needed``, as large as x: where False the gradient of x is of no use, and may be zero.
    """
    drive: Tensor = torch.ops.eventnet.egru_drive.default(x, weight, bias, needed)
    return drive


def stepper(
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    threshold: Tensor,
    c: Tensor,
    y: Tensor,
    zoneout: float,
) -> Callable[[np.ndarray], np.ndarray]:
    """A step without operators around it: at one sample these would take longer than the step."""
    none = weight_hh.new_zeros(len(weight_hh))
    packed = [torch.ops.eventnet.egru_pack.default(weight.detach()) for weight in (weight_ih, weight_hh)]
    biases = [none if bias is None else bias for bias in (bias_ih, bias_hh)]
    fixed = [_array(x.detach().clone()) for x in (packed[0], biases[0], packed[1], biases[1], threshold)]
    state, step, told = (c.numpy(), y.numpy()), _kernel().egru_step, y.numpy()

    def call(x: np.ndarray) -> np.ndarray:
        step(x, *fixed, *state, zoneout, torch.get_num_threads())
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


@torch.library.impl(DRIVE, "CPU")
def _drive(x: Tensor, weight: Tensor, bias: Tensor, needed: Tensor | None) -> Tensor:
    if _share(x) > DENSE:
        return torch.nn.functional.linear(x, weight, bias)
    packed = torch.ops.eventnet.egru_pack.default(weight)
    out = _kernel().sparse_linear(_array(x.flatten(0, -2)), _array(packed), _array(bias), torch.get_num_threads())
    return torch.from_numpy(out).reshape(*x.shape[:-1], len(weight))


@torch.library.impl(DRIVE + "_backward", "CPU")
def _drive_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Tensor | None, of_x: bool, of_weight: bool
) -> tuple[Tensor, Tensor]:
    threads, back = torch.get_num_threads(), grad.flatten(0, -2).contiguous()
    found = [x.new_empty(0), x.new_empty(0)]
    if of_x and (needed is None or _share(needed) > DENSE_INPUT):
        found[0] = (back @ weight).reshape(x.shape)
    elif of_x:
        assert needed is not None
        packed = torch.ops.eventnet.egru_pack.default(weight)
        wanted = needed.flatten(0, -2).to(x.dtype)
        out = _kernel().sparse_linear_input(_array(back), _array(packed), _array(wanted), threads)
        found[0] = torch.from_numpy(out).reshape(x.shape)
    if of_weight and _share(x) > DENSE_WEIGHT:
        found[1] = back.t() @ x.flatten(0, -2)
    elif of_weight:
        found[1] = torch.from_numpy(_kernel().sparse_linear_weight(_array(back), _array(x.flatten(0, -2)), threads))
    return found[0], found[1]


def _share(x: Tensor) -> float:
    return int(x.count_nonzero()) / max(x.numel(), 1)


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
    # as row_of in sparse_inputs.h lays them out: whole vectors, then an odd number of lines
    hidden, size = weight.shape[0] // 3, weight.dtype.itemsize
    lanes = _kernel().vector_bytes // size
    lines = (3 * ((hidden + lanes - 1) // lanes * lanes) * size + 63) // 64
    return weight.new_empty((weight.shape[1], (lines | 1) * 64 // size))


@torch.library.register_fake(DRIVE)
def _(x: Tensor, weight: Tensor, bias: Tensor, needed: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))


@torch.library.register_fake(DRIVE + "_backward")
def _(grad: Tensor, x: Tensor, weight: Tensor, needed: Any, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if of_x else 0), weight.new_empty(weight.shape if of_weight else 0)


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
        everything = ctx.saved_tensors  # asked for once: torch.utils.checkpoint allows no more
        tensors, packed, saved = everything[:7], everything[7], everything[8:]
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


def _drive_saves(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, needed = inputs
    ctx.save_for_backward(x, weight, needed)


def _drive_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_x, of_weight, of_bias, _ = ctx.needs_input_grad
    found = torch.ops.eventnet.egru_drive_backward.default(grad, *ctx.saved_tensors, of_x, of_weight)
    bias = grad.flatten(0, -2).sum(0) if of_bias else None
    return found[0] if of_x else None, found[1] if of_weight else None, bias, None


torch.library.register_autograd(DRIVE, _drive_gradients, setup_context=_drive_saves)
torch.library.register_autograd(DRIVE + "_backward", _no_double_backward)
