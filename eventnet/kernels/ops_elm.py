"""The compiled kernels of the expressive leaky memory neuron as torch operators: two calls per sequence.

``elm_branches`` are the traces of all synapses, summed by branch; ``elm_memory`` is the loop of the memory, with all products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.kernels.ops import _array, _kernel, _no_double_backward, _tensors
from eventnet.kernels.reference_elm import Memory, Run, Tree

BRANCHES, MEMORY = "eventnet::elm_branches", "eventnet::elm_memory"
TREE = "Tensor x, Tensor weight, Tensor index, Tensor decay, Tensor start"
UNITS = (
    "Tensor branches, Tensor inward, Tensor inward_bias, Tensor back, Tensor forth, Tensor forth_bias, Tensor keep, Tensor gain, "
    "Tensor start"
)
torch.library.define(BRANCHES, f"({TREE}) -> (Tensor branches, Tensor last)")
torch.library.define(
    BRANCHES + "_backward",
    f"({TREE}, Tensor branches, Tensor of_branches, Tensor of_last, bool inputs) -> "
    "(Tensor x, Tensor weight, Tensor decay, Tensor start)",
)
torch.library.define(MEMORY, f"({UNITS}, bool kept) -> (Tensor memory, Tensor active, Tensor moved)")
torch.library.define(
    MEMORY + "_backward",
    f"({UNITS}, Tensor memory, Tensor active, Tensor moved, Tensor of_memory) -> "
    f"({UNITS.replace('Tensor ', 'Tensor of_')})",
)


def elm_cpu(x: Tensor, tree: Tree, memory: Memory, trace: Tensor, m: Tensor, whole: bool = False) -> Run:
    """Compiled twin of ``reference_elm.elm_reference``."""
    branches, last = torch.ops.eventnet.elm_branches.default(x, *tree, trace)
    units = (branches, *memory._replace(back=memory.back * memory.keep), m)
    kept = whole or (torch.is_grad_enabled() and any(p.requires_grad for p in units))
    found, hidden, _ = torch.ops.eventnet.elm_memory.default(*units, kept)
    return Run(found, last, branches, hidden) if whole else Run(found, last)


# ---- calls into the extension module --------------------------------------------------------------------------------


@torch.library.impl(BRANCHES, "CPU")
def _branches(x: Tensor, weight: Tensor, index: Tensor, decay: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    given = (_array(p) for p in (x, weight, index, decay, start))
    out, last = _tensors(_kernel().elm_branches(*given, torch.get_num_threads()))
    return out, last.reshape(start.shape)


@torch.library.impl(BRANCHES + "_backward", "CPU")
def _branches_backward(*args: Any) -> tuple[Tensor, ...]:
    *tensors, inputs = args
    found = _kernel().elm_branches_backward(*(_array(p) for p in tensors), inputs, torch.get_num_threads())
    x, weight, decay, start = _tensors(found)
    return x, weight, decay.reshape(tensors[3].shape), start.reshape(tensors[4].shape)


@torch.library.impl(MEMORY, "CPU")
def _memory(*args: Any) -> tuple[Tensor, ...]:
    *tensors, kept = args
    return _tensors(_kernel().elm_memory(*(_array(p) for p in tensors), kept, torch.get_num_threads()))


@torch.library.impl(MEMORY + "_backward", "CPU")
def _memory_backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    return _tensors(_kernel().elm_memory_backward(*(_array(p) for p in tensors), torch.get_num_threads()))


# ---- shapes, for tracing --------------------------------------------------------------------------------------------


@torch.library.register_fake(BRANCHES)
def _(x: Tensor, weight: Tensor, index: Tensor, decay: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    return x.new_empty((*x.shape[:2], len(weight))), start.new_empty(start.shape)


@torch.library.register_fake(BRANCHES + "_backward")
def _(x: Tensor, weight: Tensor, index: Tensor, decay: Tensor, start: Tensor, *args: Any) -> tuple[Tensor, ...]:
    of_x = x.new_empty((x.shape[0] if args[-1] else 0, *x.shape[1:]))
    return of_x, *(p.new_empty(p.shape) for p in (weight, decay, start))


@torch.library.register_fake(MEMORY)
def _(branches: Tensor, inward: Tensor, inward_bias: Tensor, back: Tensor, *args: Any) -> tuple[Tensor, ...]:
    (steps, batch), (hidden, memory) = branches.shape[:2], back.shape
    kept = steps if args[-1] else 0
    shapes = (steps, batch, memory), (kept, batch, hidden), (kept, batch, memory)
    return tuple(branches.new_empty(shape) for shape in shapes)


@torch.library.register_fake(MEMORY + "_backward")
def _(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(p.new_empty(p.shape) for p in tensors[:-4])


# ---- gradients ------------------------------------------------------------------------------------------------------


def _branches_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _branches_gradients(ctx: Any, of_branches: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:
    need = ctx.needs_input_grad
    found = torch.ops.eventnet.elm_branches_backward.default(*ctx.saved_tensors, of_branches, of_last, need[0])
    x, weight, decay, start = (g if n else None for g, n in zip(found, (need[0], need[1], *need[3:]), strict=True))
    return x, weight, None, decay, start


def _memory_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:-1], *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # zeros for what is kept would be as large as it


def _memory_gradients(ctx: Any, of_memory: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if of_memory is None:
        return (None,) * len(ctx.needs_input_grad)
    found = torch.ops.eventnet.elm_memory_backward.default(*ctx.saved_tensors, of_memory)
    return *(g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False)), None


torch.library.register_autograd(BRANCHES, _branches_gradients, setup_context=_branches_save)
torch.library.register_autograd(MEMORY, _memory_gradients, setup_context=_memory_save)
for _name in (BRANCHES, MEMORY):
    torch.library.register_autograd(_name + "_backward", _no_double_backward)
