"""The compiled kernels as torch operators: one call per layer and batch, its backward pass an operator of its own.

Each operator takes the packed events, the weight and the five neuron parameters, then what is its own. A backward
operator returns the gradient of the weight, sums per neuron from which those of the parameters follow, and the gradients
of the input times and values (empty unless asked for).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet.kernels import cpu
from eventnet.kernels.reference import Neuron, Packed, too_many_spikes
from eventnet.kernels.reference_lif import Layer, Run

# rows of the sums over the batch that the backward kernels return, in the order of impulse.h
BEFORE, AFTER, AFTER_TAU, START, START_TAU, TAU_MEM, TAU_SYN, DELAY, ROWS = range(9)
REFRACTORY, CURRENT, EACH_ROWS = ROWS, ROWS + 1, ROWS + 2  # and of delayed_adjoint.h

EVENTS = "Tensor times, Tensor units, Tensor offsets, Tensor? values, Tensor duration"
LAYER = "Tensor weight, Tensor tau_mem, Tensor tau_syn, Tensor threshold, Tensor reset, Tensor bias"
RECURRENT = "Tensor? recurrent_weight, Tensor? recurrent_delay"
GRADIENTS = "(Tensor weight, Tensor sums, Tensor times, Tensor values)"
OPTIONS = f"Tensor delay, {RECURRENT}, Tensor refractory, Tensor voltage, Tensor current, Tensor held"
LIF, LIF_EACH = "eventnet::lif", "eventnet::lif_each"
LI_MAX, LI_INTEGRAL = "eventnet::li_max", "eventnet::li_integral"

torch.library.define(
    LIF,
    f"({EVENTS}, {LAYER}, {RECURRENT}, float slope_floor, int max_spikes) -> (Tensor, Tensor, Tensor, Tensor exact_times, "
    "Tensor currents)",
)
torch.library.define(
    LIF + "_backward",
    f"(Tensor grad, Tensor exact_times, Tensor spike_units, Tensor spike_offsets, Tensor currents, {EVENTS}, {LAYER}, "
    f"{RECURRENT}, float slope_floor, bool inputs, bool taus) -> {GRADIENTS[:-1]}, Tensor recurrent_weight)",
)
torch.library.define(
    LIF_EACH,
    f"({EVENTS}, {LAYER}, {OPTIONS}, float slope_floor, bool final, int max_spikes) -> (Tensor, Tensor, Tensor, "
    "Tensor exact_times, Tensor facts, Tensor state)",
)
torch.library.define(
    LIF_EACH + "_backward",
    f"(Tensor grad, Tensor exact_times, Tensor spike_units, Tensor spike_offsets, Tensor facts, {EVENTS}, {LAYER}, {OPTIONS}, "
    "float slope_floor, bool inputs, bool taus) -> (Tensor sums, Tensor times, Tensor values, Tensor weight, Tensor delay, "
    "Tensor recurrent_weight, Tensor recurrent_delay)",
)
torch.library.define(LI_MAX, f"({EVENTS}, {LAYER}) -> (Tensor, Tensor at, Tensor event, Tensor slope)")
torch.library.define(
    LI_MAX + "_backward",
    f"(Tensor grad, Tensor at, Tensor event, Tensor slope, {EVENTS}, {LAYER}, bool inputs, bool taus) -> {GRADIENTS}",
)
torch.library.define(LI_INTEGRAL, f"({EVENTS}, {LAYER}, float rate) -> Tensor")
torch.library.define(
    LI_INTEGRAL + "_backward",
    f"(Tensor grad, {EVENTS}, {LAYER}, float rate, bool inputs, bool taus) -> {GRADIENTS}",
)


def lif_cpu(packed: Packed, layer: Layer, max_spikes: int) -> Run:
    """Compiled twin of ``lif_reference``, for events at their arrivals; without the last state."""
    recurrent: tuple[Tensor | None, Tensor | None] = (None, None)
    if layer.recurrent is not None:
        back, wait = layer.recurrent
        recurrent = back, wait.reshape(-1) if wait is not None else back.new_zeros(1)
    weight, floor = layer.synapses.weight, layer.slope_floor
    out = torch.ops.eventnet.lif.default(*packed, weight, *layer.neuron, *recurrent, floor, max_spikes)
    return Run(out[0], out[1], out[2], out[4])


def lif_each_cpu(packed: Packed, layer: Layer, max_spikes: int, final: bool) -> Run:
    """Compiled twin of ``lif_reference`` for delays per synapse or per target, refractory periods and initial states.

    The last state is left out unless ``final``.
    """
    weight, neuron = layer.synapses.weight, layer.neuron
    none = weight.new_zeros(1)

    def matrix(delay: Tensor | None) -> Tensor:
        return weight.new_zeros(1, 1) if delay is None else delay

    recurrent: tuple[Tensor | None, Tensor | None] = (None, None)
    if layer.recurrent is not None:
        recurrent = layer.recurrent.weight, matrix(layer.recurrent.delay)
    refractory = none if layer.refractory is None else layer.refractory
    voltage = neuron.start() if layer.initial_voltage is None else layer.initial_voltage
    current = none if layer.initial_current is None else layer.initial_current
    held = none if layer.held is None else layer.held
    options = (matrix(layer.synapses.delay), *recurrent, refractory, voltage, current, held)
    out = torch.ops.eventnet.lif_each.default(*packed, weight, *neuron, *options, layer.slope_floor, final, max_spikes)
    end = out[5].unbind() if final else (None, None, None)
    return Run(out[0], out[1], out[2], out[4][0], end[0], end[1], end[2], out[3])


def li_max_cpu(packed: Packed, weight: Tensor, neuron: Neuron) -> Tensor:
    """Compiled twin of ``reference.li_max_reference``."""
    result: Tensor = torch.ops.eventnet.li_max.default(*packed, weight, *neuron)[0]
    return result


def li_integral_cpu(packed: Packed, weight: Tensor, neuron: Neuron, rate: float) -> Tensor:
    """Compiled twin of ``reference.li_integral_reference``."""
    result: Tensor = torch.ops.eventnet.li_integral.default(*packed, weight, *neuron, rate)
    return result


# ---- calls into the extension module --------------------------------------------------------------------------------


def _kernel() -> Any:
    module = cpu.load()
    if module is None:
        raise RuntimeError(f"eventnet's compiled kernels: {cpu.describe()}; use backend='reference'")
    return module


def _arrays(
    times: Tensor,
    units: Tensor,
    offsets: Tensor,
    values: Tensor | None,
    duration: Tensor,
    weight: Tensor,
    *neuron: Tensor,
) -> tuple[np.ndarray | None, ...]:
    """Contiguous arrays; values and parameters in the weight's dtype."""
    own = weight.dtype
    sizes = None if values is None else _array(values, own)
    events = (_array(times), _array(units), _array(offsets), sizes, _array(duration))
    return (*events, _array(weight), *(_array(p, own) for p in neuron))


def _array(x: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
    # a small layer's call spends as long here as in its kernel, and asking is cheaper than doing nothing
    if x.requires_grad:
        x = x.detach()
    if dtype is not None and x.dtype != dtype:
        x = x.to(dtype)
    return (x if x.is_contiguous() else x.contiguous()).numpy()


def _tensors(arrays: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(x) for x in arrays)


def _implement_spiking(name: str, rest: int) -> None:
    """An operator of packed events, layer, options and ``rest`` more, and its backward operator, by the kernels of that name.

    The first of the rest is the slope's floor: for the backward operator.
    """
    kernel = name.removeprefix("eventnet::")

    def arrays(tensors: Sequence[Tensor | None]) -> tuple[np.ndarray | None, ...]:
        common = _arrays(*tensors[:11])  # type: ignore[arg-type]
        return (*common, *(None if x is None else _array(x, tensors[5].dtype) for x in tensors[11:]))  # type: ignore[union-attr]

    def forward(*args: Any) -> tuple[Tensor, ...]:
        tensors, (_, *more), max_spikes = args[:-rest], args[-rest:], args[-1]
        try:
            found = getattr(_kernel(), kernel)(*arrays(tensors), *more, torch.get_num_threads())
        except OverflowError as storm:
            raise too_many_spikes(max_spikes, int(str(storm))) from None
        exact, units, offsets, *kept = _tensors(found)
        return exact.to(tensors[0].dtype, copy=True), units, offsets, exact, *kept

    def backward(grad: Tensor, exact: Tensor, units: Tensor, offsets: Tensor, facts: Tensor, *args: Any) -> Any:
        *tensors, floor, inputs, taus = args
        spikes = (_array(x) for x in (exact, units, offsets, facts, grad))
        call = getattr(_kernel(), kernel + "_backward")
        return _tensors(call(*arrays(tensors), *spikes, floor, inputs, taus, torch.get_num_threads()))

    torch.library.impl(name, "CPU")(forward)
    torch.library.impl(name + "_backward", "CPU")(backward)


_implement_spiking(LIF, 2)
_implement_spiking(LIF_EACH, 3)


@torch.library.impl(LI_MAX, "CPU")
def _li_max(*tensors: Any) -> tuple[Tensor, ...]:
    value, at, event, slope = _tensors(_kernel().li_max(*_arrays(*tensors), torch.get_num_threads()))
    return value + tensors[-1], at, event, slope


@torch.library.impl(LI_MAX + "_backward", "CPU")
def _li_max_backward(grad: Tensor, at: Tensor, event: Tensor, slope: Tensor, *args: Any) -> Any:
    *tensors, inputs, taus = args
    marks = (_array(x) for x in (at, event, slope, grad))
    return _tensors(_kernel().li_max_backward(*_arrays(*tensors), *marks, inputs, taus, torch.get_num_threads()))


@torch.library.impl(LI_INTEGRAL, "CPU")
def _li_integral(*args: Any) -> Tensor:
    *tensors, rate = args
    return torch.from_numpy(_kernel().li_integral(*_arrays(*tensors), rate, torch.get_num_threads()))


@torch.library.impl(LI_INTEGRAL + "_backward", "CPU")
def _li_integral_backward(grad: Tensor, *args: Any) -> Any:
    *tensors, rate, inputs, taus = args
    threads = torch.get_num_threads()
    return _tensors(_kernel().li_integral_backward(*_arrays(*tensors), rate, _array(grad), inputs, taus, threads))


# ---- shapes, for tracing --------------------------------------------------------------------------------------------


def _fake_lif(times: Tensor, units: Tensor, offsets: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    spikes = torch.library.get_ctx().new_dynamic_size()
    exact = times.new_empty(spikes, dtype=torch.float64)
    return (
        times.new_empty(spikes),
        units.new_empty(spikes),
        torch.empty_like(offsets),
        exact,
        torch.empty_like(exact),
    )


@torch.library.register_fake(LIF_EACH)
def _(times: Tensor, units: Tensor, offsets: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    spikes = torch.library.get_ctx().new_dynamic_size()
    exact = times.new_empty(spikes, dtype=torch.float64)
    weight, final = rest[2], rest[-2]
    return (
        times.new_empty(spikes),
        units.new_empty(spikes),
        torch.empty_like(offsets),
        exact,
        exact.new_empty((2, spikes)),
        weight.new_empty((3, (offsets.shape[0] - 1) if final else 0, _targets(weight))),
    )


@torch.library.register_fake(LI_MAX)
def _(times: Tensor, units: Tensor, offsets: Tensor, values: Any, duration: Tensor, weight: Tensor, *rest: Any) -> Any:
    value = weight.new_empty((duration.shape[0], weight.shape[1]))
    at = torch.empty_like(value, dtype=torch.float64)
    return value, at, torch.empty_like(value, dtype=torch.int64), torch.empty_like(value)


@torch.library.register_fake(LI_INTEGRAL)
def _(times: Tensor, units: Tensor, offsets: Tensor, values: Any, duration: Tensor, weight: Tensor, *rest: Any) -> Any:
    return weight.new_empty((duration.shape[0], weight.shape[1]))


def _fake_gradients(first: int, last: int) -> Any:
    """Shapes of the gradients, for operators whose packed events and layer start at ``first``."""

    def fake(*args: Any) -> tuple[Tensor, ...]:
        times, _, _, values, _, weight = args[first : first + 6]
        inputs = args[last]
        sums = weight.new_empty((ROWS, weight.shape[-1]), dtype=torch.float64)
        events = times.shape[0] if inputs else 0
        grad_times = times.new_empty(events, dtype=torch.float64)
        grad_values = times.new_empty(events if values is not None else 0, dtype=torch.float64)
        return torch.empty_like(weight, memory_format=torch.contiguous_format), sums, grad_times, grad_values

    return fake


def _fake_lif_gradients(*args: Any) -> tuple[Tensor, ...]:
    back = args[-5]
    none = (0,) * args[10].dim()
    own = args[10].new_empty(none) if back is None else torch.empty_like(back, memory_format=torch.contiguous_format)
    return (*_fake_gradients(5, -2)(*args), own)


def _fake_each_gradients(*args: Any) -> tuple[Tensor, ...]:
    times, weight, back, inputs = args[5], args[10], args[17], args[-2]
    num = _targets(weight)
    events, own = times.shape[0] if inputs else 0, 0 if back is None else weight.shape[-1]
    sums = [weight.new_empty(shape, dtype=torch.float64) for shape in ((EACH_ROWS, num), (events,), (events,))]
    each = (weight.shape[0], num), (own, num), (own, num)
    return (*sums, *(weight.new_empty(shape) for shape in (weight.shape, *each)))


def _targets(weight: Tensor) -> int:
    """Neurons, or with weights (in, K, N) all their branches."""
    return weight.shape[1:].numel()


torch.library.register_fake(LIF, _fake_lif)
torch.library.register_fake(LIF + "_backward", _fake_lif_gradients)
torch.library.register_fake(LIF_EACH + "_backward", _fake_each_gradients)
torch.library.register_fake(LI_MAX + "_backward", _fake_gradients(4, -2))
torch.library.register_fake(LI_INTEGRAL + "_backward", _fake_gradients(1, -2))


# ---- gradients ------------------------------------------------------------------------------------------------------


def _save_spikes(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, units, offsets, exact, currents = output
    ctx.mark_non_differentiable(units, offsets, exact, currents)
    *tensors, ctx.slope_floor, _ = inputs
    ctx.save_for_backward(exact, units, offsets, currents, *tensors)


def _save_each(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, units, offsets, exact, facts, state = output
    ctx.mark_non_differentiable(units, offsets, exact, facts, state)
    *tensors, ctx.slope_floor, _, _ = inputs
    ctx.save_for_backward(exact, units, offsets, facts, *tensors)


def _saved(ctx: Any, facts: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The first ones, and the tensors of the call."""
    saved = ctx.saved_tensors  # asked for once: torch.utils.checkpoint allows no more
    return saved[:facts], saved[facts:]


def _from_spikes(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, tensors = _saved(ctx, 4)
    *found, back = torch.ops.eventnet.lif_backward.default(grad, *spikes, *tensors, ctx.slope_floor, *_wanted(ctx))
    own: tuple[Tensor | None, Tensor | None] = (None, None)
    if tensors[11] is not None:
        own = back, _like(found[1][DELAY], tensors[12]) if ctx.needs_input_grad[12] else None
    return (*_gradients(ctx, tensors, found, spiking=True), *own, None, None)


def _from_each(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, tensors = _saved(ctx, 4)
    found = torch.ops.eventnet.lif_each_backward.default(grad, *spikes, *tensors, ctx.slope_floor, *_wanted(ctx))
    sums, times, values, weight, delay, back, wait = found
    bias = sums[BEFORE] - sums[AFTER] - sums[START]
    own = [sums[TAU_MEM], sums[TAU_SYN], -sums[BEFORE], sums[AFTER], bias]
    rest = [delay, back, wait, sums[REFRACTORY], sums[START], sums[CURRENT], None]
    grads = [times, None, None, values, None, weight, *own, *rest]
    need = ctx.needs_input_grad
    found = tuple(
        _like(g, x) if n and g is not None and x is not None else None
        for n, g, x in zip(need, grads, tensors, strict=False)
    )
    return (*found, None, None, None)


def _save_peaks(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, at, event, slope = output
    ctx.mark_non_differentiable(at, event, slope)
    ctx.save_for_backward(at, event, slope, *inputs)


def _from_peaks(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    peaks, tensors = _saved(ctx, 3)
    found = torch.ops.eventnet.li_max_backward.default(grad, *peaks, *tensors, *_wanted(ctx))
    return _gradients(ctx, tensors, found, spiking=False)


def _save_integral(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.rate = inputs
    ctx.save_for_backward(*tensors)


def _from_integral(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    found = torch.ops.eventnet.li_integral_backward.default(grad, *tensors, ctx.rate, *_wanted(ctx))
    return (*_gradients(ctx, tensors, found, spiking=False), None)


def _wanted(ctx: Any) -> tuple[bool, bool]:
    """Whether gradients of the input (times, values) and of the time constants are needed."""
    need = ctx.needs_input_grad
    return need[0] or need[3], need[6] or need[7]


def _gradients(
    ctx: Any, tensors: Any, found: Sequence[Tensor], spiking: bool, tau_syn: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """Gradients of the packed events, the weight and the parameters, None where none is needed.

    ``tau_syn``: its gradient, where it is not among the sums per neuron.
    """
    weight, sums, times, values = found
    need = ctx.needs_input_grad
    own: list[Tensor | None] = [None] * 5
    if any(need[6:11]):
        threshold, reset, bias = tensors[8], tensors[9], tensors[10]
        restless = (bias >= threshold).to(sums.dtype)  # these start at reset, all others at their bias
        after, fallen = torch.zeros_like(sums[0]), torch.zeros_like(sums[0])
        if spiking:  # what its resets took from a voltage decays with tau_mem, too
            after, fallen = sums[AFTER], sums[AFTER_TAU] * (threshold - reset).to(sums.dtype)
        own = [
            sums[TAU_MEM] + restless * sums[START_TAU] * (reset - bias).to(sums.dtype) - fallen,
            sums[TAU_SYN] if tau_syn is None else tau_syn,
            -sums[BEFORE] if spiking else torch.zeros_like(sums[0]),
            after + restless * sums[START],
            sums[BEFORE] - sums[AFTER] - restless * sums[START],
        ]
    grads = [times, None, None, values, None, weight, *own]
    return tuple(_like(g, x) if n and g is not None else None for n, g, x in zip(need, grads, tensors, strict=False))


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """In the dtype of ``x``; summed over the neurons, or the synapses, that share it."""
    if grad.shape != x.shape:
        grad = grad.sum_to_size(x.shape) if grad.dim() == x.dim() else grad.sum().reshape(x.shape)
    return grad.to(x.dtype)


def _no_double_backward(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "eventnet: the compiled kernels have no double backward; backend='reference' differentiates twice"
    )


def _register_autograd(name: str, save: Callable[..., None], gradients: Callable[..., Any]) -> None:
    """What ``torch.library.register_autograd`` does, at half the cost of a call: a small layer's kernel takes no longer."""
    op = getattr(torch.ops.eventnet, name.removeprefix("eventnet::")).default

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = below(*inputs)
            save(ctx, inputs, output)
            ctx.set_materialize_grads(False)  # no zeros for outputs without gradient
            return output

        @staticmethod
        def backward(ctx: Any, grad: Tensor | None, *_: None) -> Any:
            return (None,) * len(ctx.needs_input_grad) if grad is None else gradients(ctx, grad)

    def below(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    def call(*inputs: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        return Differentiable.apply(*inputs) if wanted else below(*inputs)

    torch.library.impl(name, "Autograd")(call)


_register_autograd(LIF, _save_spikes, _from_spikes)
_register_autograd(LIF_EACH, _save_each, _from_each)
_register_autograd(LI_MAX, _save_peaks, _from_peaks)
_register_autograd(LI_INTEGRAL, _save_integral, _from_integral)
for _name in (LIF, LIF_EACH, LI_MAX, LI_INTEGRAL):
    torch.library.register_autograd(_name + "_backward", _no_double_backward)
