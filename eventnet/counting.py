"""How many operations a network performs: counted exactly, layer by layer, over any number of batches.

A synaptic operation is an input that is not zero meeting a weight that is not zero: an *accumulate* if the input is a plain
spike (the weight is added), a *multiply-accumulate* if it has a value.

- Spiking layers (``LIF``, ``LI``): several spikes of a unit in one step count each; events with ``values`` are graded. Steps
  are those of a clocked chip: ``dt`` seconds each. An operation counts when its spike is sent, also if it would arrive, a delay
  later, after the end of the sample: a trial cut in two (``state``) costs what the whole costs.
- Layers of numbers (``nn.Linear``, ``nn.GRU``, ``EGRU``, ...): the inputs of a product are plain if all of them, in that call,
  are -1, 0 or 1, as in NeuroBench. Sequences count for their own lengths; the padding of a convolution never counts.
- *dense* is what the same connections cost if every input were there in every step, zero weights included, as in NeuroBench.
- Biases are in none of them, as in NeuroBench; nor are products of gates with each other, in which NeuroBench differs (see
  ``eventnet.counters_torch``): what a neuron does with what arrives is its state update.
- Not counted: activations, dropout, pooling, and what scales element by element (batch norm, which is folded into the weights
  beside it before a network is deployed; layer norm, PReLU); functions that are no modules, as ``functional.linear``.

Source of the terms: Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems" (2025).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from eventnet import counters, counters_torch
from eventnet.counts import COUNTERS, MEMORY, Counter, Counts, Memory, counter, per_sample_of, repeated, total
from eventnet.events import Events

__all__ = ["Counts", "count", "counter", "per_sample_of", "total"]

BUILT_IN = (counters, counters_torch)  # registered by their import
ELEMENTWISE = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


@torch.no_grad()
def count(network: nn.Module, batches: Iterable[Any], *, dt: float) -> dict[str, Counts]:
    """Run a network over batches and count what its layers do, by the layers' names.

    Args:
        network: any module; layers of a kind that has a counter (``counter``) are counted, in evaluation mode. A layer that is
            called several times with a batch, as cells are, goes on for as many steps.
        batches: what the network is called with, one after the other; memory is that of one batch. Of tensors the first
            dimension is taken for the samples, unless a recurrent layer knows better.
        dt: seconds of a step of layers in continuous time.

    Raises:
        TypeError: a module with weights of its own has no counter, so that the counts would be too low.
        NotImplementedError: a layer is driven by currents (``LIF.drive``).

    Example:
        >>> from eventnet import LI, LIF
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> found = count(nn.Sequential(LIF(4, 3), LI(3, 2)), [events], dt=1e-3)
        >>> found["0"].accumulates, found["0"].state_updates, found["0"].dense
        (6, 300, 1200)
    """
    if not 0 < dt < float("inf"):
        raise ValueError(f"dt: expected seconds > 0, got {dt!r}")
    found: dict[str, Counts] = {}
    modes = [(module, module.training) for module in network.modules()]
    with _hooked(network, dt) as (calls, memory):
        try:
            network.eval()
            for batch in batches:
                network(batch)
                for name, counts in _of_a_batch(calls, batch).items():
                    found[name] = found[name] + counts if name in found else counts
                calls.clear()
                memory.batch.clear()
        finally:
            for module, training in modes:
                module.training = training
    return found


@contextmanager
def _hooked(network: nn.Module, dt: float) -> Iterator[tuple[dict[str, list[Counts]], Memory]]:
    """While this lasts, the counts of each call of the network's layers are listed under their names."""
    calls: dict[str, list[Counts]] = {}
    memory = Memory()
    with ExitStack() as stack:
        for name, layer, function in list(_counted(network, "", set())):
            if hasattr(layer, "drive"):
                layer.__dict__["drive"] = _refused(name)
                stack.callback(delattr, layer, "drive")
            more = COUNTERS.more.get(function)
            forward = None if more is None else more(layer)
            hook = _hook(name, function, dt, calls, memory, more is not None, forward is not None)
            # before the user's own hooks, which are to see the output as ever
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True, prepend=forward is not None).remove)
            if forward is not None:
                layer.forward = forward
                stack.callback(delattr, layer, "forward")
        yield calls, memory


def _refused(name: str) -> Callable[..., Any]:
    """In place of ``LIF.drive`` while a network is counted: no hook sees it, and the counts would be too low."""

    def drive(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"count: layer {name} is driven by currents (LIF.drive), which are not counted; give it events, such as "
            "Events.from_latency makes of numbers"
        )

    return drive


def _hook(
    name: str, function: Counter, dt: float, calls: dict[str, list[Counts]], memory: Memory, pair: bool, instead: bool
) -> Any:
    """A hook that counts a call. ``pair``: the function takes an output and more, which ``instead`` of the layer's own forward
    returned."""

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if memory.layer is not None:  # a counter may call its layer again
            return None
        memory.layer, before = layer, MEMORY.set(memory)
        try:
            seen = (output, None) if pair and not instead else output
            calls.setdefault(name, []).append(function(layer, args, kwargs, seen, dt))
        finally:
            memory.layer = None
            MEMORY.reset(before)
        return output[0] if instead else None

    return hook


def _counted(network: nn.Module, name: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module, Counter]]:
    """The layers of a network that have a counter, from the outside in; each once, also if it has several names."""
    if network in seen:
        return
    seen.add(network)
    kind = next((kind for kind in type(network).__mro__ if kind in COUNTERS), None)
    if kind is not None:
        yield name, network, COUNTERS[kind]
        return
    own = network._parameters.items()
    if not isinstance(network, ELEMENTWISE) and any(_is_weight(*each) for each in own):
        raise TypeError(
            f"{name or 'the network'}: a {type(network).__name__} with weights has no counter, the counts would be too low; "
            "register one with eventnet.counting.counter (which returns Counts() if its weights cost nothing)"
        )
    for child, module in network.named_children():
        yield from _counted(module, f"{name}.{child}".lstrip("."), seen)


def _is_weight(name: str, parameter: Tensor | None) -> bool:
    """Whether inputs are multiplied with a parameter, by its name or as it has two dimensions or more."""
    if parameter is None:
        return False
    named = name in ("weight", "kernel") or name.startswith("weight_")
    return named or isinstance(parameter, nn.UninitializedParameter) or parameter.dim() > 1


def _of_a_batch(calls: Mapping[str, list[Counts]], batch: Any) -> dict[str, Counts]:
    """The counts of each layer, of all its calls with a batch; samples filled in where it does not know them."""
    found = {name: repeated(each) for name, each in calls.items()}
    samples = max((each.samples for each in found.values()), default=0) or _num_samples(batch)
    return {name: each if each.samples else dataclasses.replace(each, samples=samples) for name, each in found.items()}


def _num_samples(batch: Any) -> int:
    """How many samples a batch has, as far as it can be seen."""
    if isinstance(batch, Events):
        return batch.batch_size
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    return _num_samples(batch[0]) if isinstance(batch, list | tuple) and batch else 1
