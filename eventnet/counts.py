"""What a layer did, in numbers: ``Counts``; and the registry of functions that count the calls of a kind of layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import reduce
from operator import add, attrgetter
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["COUNTERS", "Counter", "Counts", "Forward", "counter", "kept", "per_sample_of", "total"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Counts:
    """What one layer did, summed over samples; ``per_sample()`` has the means. Counts of two batches of a layer can be added.

    Args:
        samples, steps: of the input; steps are those of all samples together.
        neurons, synapses: the layer's size; synapses are its weights that are not zero.
        inputs: events, or numbers that are not zero, that reached the layer from outside.
        spikes: events, or outputs that are not zero.
        accumulates, multiply_accumulates, dense: synaptic operations, see ``eventnet.counting``.
        state_updates: neurons that have a state, times steps.
        weight_reads: weights fetched at batch size 1, one for each synaptic operation.
        buffer_writes: inputs that wait in a delay buffer: one per synapse, or per source if it has one delay.
        spikes_per_step: ``(T,)`` spikes of each step, of all samples; empty for layers that know no steps.

    Example:
        >>> one = Counts(samples=1, steps=2, neurons=3, synapses=6, spikes=4, accumulates=12)
        >>> (one + one).accumulates, (one + one).per_sample()["accumulates"], one.firing_rate
        (24, 12.0, 0.6666666666666666)
    """

    samples: int = 0
    steps: int = 0
    neurons: int = 0
    synapses: int = 0
    inputs: int = 0
    spikes: int = 0
    accumulates: int = 0
    multiply_accumulates: int = 0
    dense: int = 0
    state_updates: int = 0
    weight_reads: int = 0
    buffer_writes: int = 0
    spikes_per_step: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.int64), compare=False, repr=False
    )

    @property
    def synaptic_operations(self) -> int:
        """Accumulates and multiply-accumulates."""
        return self.accumulates + self.multiply_accumulates

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and step."""
        return self.spikes / max(self.neurons * self.steps, 1)

    def __add__(self, other: Counts) -> Counts:
        """The counts of two batches of the same layer."""
        return _merged([self, other], ("neurons", "synapses"), summed)

    def per_sample(self) -> dict[str, float]:
        """Means over the samples, by name."""
        return {name: getattr(self, name) / max(self.samples, 1) for name in NUMBERS if name not in NO_MEANS}


NUMBERS = tuple(each.name for each in dataclasses.fields(Counts) if each.name != "spikes_per_step")
NO_MEANS = ("samples", "neurons", "synapses")
all_numbers = attrgetter(*NUMBERS)


def total(counts: Iterable[Counts]) -> Counts:
    """The counts of several layers of one network, over the same samples and steps.

    Example:
        >>> layers = [Counts(samples=5, steps=10, neurons=3, spikes=2), Counts(samples=5, steps=10, neurons=1, spikes=4)]
        >>> total(layers).spikes, total(layers).neurons, total(layers).samples
        (6, 4, 5)
    """
    return _merged(list(counts), ("samples", "steps"), summed)


def repeated(counts: Iterable[Counts]) -> Counts:
    """The counts of several calls of one layer with the same samples, step after step.

    Example:
        >>> both = repeated([Counts(samples=5, steps=5, neurons=3, spikes=2)] * 2)
        >>> both.samples, both.steps, both.neurons, both.spikes
        (5, 10, 3, 4)
    """
    return _merged(list(counts), ("samples", "neurons", "synapses"), torch.cat)


def per_sample_of(layers: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    """Means over the samples, of each layer by name, for a file.

    Example:
        >>> per_sample_of({"hidden": Counts(samples=4, neurons=3, spikes=2)})["hidden"]["spikes"]
        0.5
    """
    return {
        name: {"neurons": counts.neurons, "synapses": counts.synapses, **counts.per_sample()}
        for name, counts in layers.items()
    }


def summed(profiles: list[Tensor]) -> Tensor:
    """The sum of vectors, shorter ones filled up with zeros."""
    length = max(len(each) for each in profiles)
    if all(len(each) == length for each in profiles):
        return reduce(add, profiles)
    return torch.stack([functional.pad(each, (0, length - len(each))) for each in profiles]).sum(0)


def _merged(parts: list[Counts], common: tuple[str, ...], join: Callable[[list[Tensor]], Tensor]) -> Counts:
    """Sums, but of the ``common`` numbers, which are those of each part (the largest, where they differ)."""
    if not parts:
        return Counts()
    if len(parts) == 1:
        return parts[0]
    columns = zip(NUMBERS, zip(*map(all_numbers, parts), strict=True), strict=True)
    numbers = {name: (max if name in common else sum)(column) for name, column in columns}
    return Counts(**numbers, spikes_per_step=join([part.spikes_per_step for part in parts]))


# ---- the interface by which a layer is counted -----------------------------------------------------------------------------

Counter = Callable[[Any, tuple[Any, ...], dict[str, Any], Any, float], Counts]
Forward = Callable[..., tuple[Any, Any]]


class Counters(dict[type[nn.Module], Counter]):
    """The functions that count, by the kind of layer; and of some kinds, what makes a call say more (``counter``)."""

    def __init__(self) -> None:
        super().__init__()
        self.more: dict[Counter, Callable[[Any], Forward | None]] = {}


COUNTERS = Counters()


def counter(
    *kinds: type[nn.Module], more: Callable[[Any], Forward | None] | None = None
) -> Callable[[Counter], Counter]:
    """Register how a call of a kind of layer is counted: ``counts(layer, args, kwargs, output, dt) -> Counts``.

    ``samples`` 0: the layer does not know which dimension they are; ``eventnet.counting.count`` fills them in.

    Args:
        kinds: of layers, subclasses included.
        more: from a layer to a forward that is called in place of its own while it is counted, as an output may not show what
            there is to count: it returns the output and whatever the function wants to see. None: its own shows all. With
            ``more`` the function's ``output`` is such a pair (its second part None, if it was the layer's own).

    Example:
        >>> from eventnet.counting import count
        >>> class Sum(nn.Module):
        ...     def forward(self, x):
        ...         return x.sum(-1, keepdim=True)
        >>> @counter(Sum)
        ... def _(layer, args, kwargs, output, dt):
        ...     return Counts(accumulates=int(args[0].count_nonzero()))
        >>> found = count(Sum(), [torch.eye(3)], dt=1e-3)[""]
        >>> found.accumulates, found.samples
        (3, 3)
    """

    def register(function: Counter) -> Counter:
        COUNTERS.update(dict.fromkeys(kinds, function))
        if more is not None:
            COUNTERS.more[function] = more
        return function

    return register


# ---- what is found once ----------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """What counters found while ``count`` lasts: by layer, and of the present batch by object."""

    layer: nn.Module | None = None
    layers: dict[tuple[nn.Module | None, str], tuple[list[tuple[Any, ...]], Any]] = field(default_factory=dict)
    batch: dict[tuple[int, str], tuple[Any, Any]] = field(default_factory=dict)


MEMORY: ContextVar[Memory | None] = ContextVar("MEMORY", default=None)


def kept(name: str, tensors: tuple[Tensor | None, ...], make: Callable[[], Value]) -> Value:
    """What ``make`` finds in the tensors of the layer that is counted, made again only if they are others or were changed.

    ``name`` is its own for each use that a counter makes of this. Outside of ``count`` nothing is kept.

    Example:
        >>> kept("weights", (torch.eye(3),), lambda: 3)
        3
    """
    memory = MEMORY.get()
    if memory is None or any(each is not None and each.is_inference() for each in tensors):
        return make()
    key = memory.layer, name
    # with the tensors, so that no other one takes their place in memory
    now = [(each, None if each is None else each._version) for each in tensors]
    if key in memory.layers:
        before, found = memory.layers[key]
        if all(_same(*pair) for pair in zip(before, now, strict=True)):
            return cast(Value, found)
    found = make()
    memory.layers[key] = now, found
    return found


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Whether two tensors, with their versions, are the same numbers."""
    (a, old), (b, new) = before, now
    if a is b or a is None or b is None:
        return a is b and old == new
    alike = (a.data_ptr(), a.shape, a.stride(), a.dtype, a.device) == (
        b.data_ptr(),
        b.shape,
        b.stride(),
        b.dtype,
        b.device,
    )
    return alike and old == new


def kept_of(thing: Any, name: str, make: Callable[[], Value]) -> Value:
    """What ``make`` finds in a thing that several layers meet and none changes, as ``Events``, until the next batch."""
    memory = MEMORY.get()
    if memory is None:
        return make()
    key = id(thing), name
    if key not in memory.batch:
        memory.batch[key] = thing, make()  # with the thing, so that no other one gets its id
    return cast(Value, memory.batch[key][1])
