"""The specification of ``eventnet.lif``: branched, recurrent, delayed, refractory, in plain torch. See ``reference`` and
``reference_branches`` for its parts.

Every neuron goes from event to event of its own: an arrival, the end of its refractory period, a threshold crossing, the end of
the trial. Without recurrence the neurons know nothing of each other and all of them advance at once. With it, a neuron advances
up to what no spike to come can disturb: the earliest event of the whole sample plus the smallest recurrent delay.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eventnet.kernels.reference import Neuron, Packed, check_finite, graph, pad_events, padded, too_many_spikes
from eventnet.kernels.reference_branches import first_crossing, floored, flow, polish


class Synapses(NamedTuple):
    """``weight`` (in, N), and ``delay`` in seconds: (in, N), (in, 1) for one per source, (1, N) for one per target, or none.

    To K dendritic branches ``weight`` is (in, K, N) and ``delay`` (in, K, N), (in, 1, 1), (1, K, N) or none. An infinite delay is
    that of a synapse that is not there; its weight is 0.
    """

    weight: Tensor
    delay: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Synapses:
        """The same in another dtype."""
        return Synapses(self.weight.to(dtype), None if self.delay is None else self.delay.to(dtype))

    def branched(self) -> Synapses:
        """The same with an axis of branches."""
        if self.weight.dim() == 3:
            return self
        return Synapses(self.weight[:, None], None if self.delay is None else self.delay[:, None])

    def branch(self, k: int) -> Synapses:
        """Those of branch ``k`` alone, without the axis of branches."""
        delay = self.delay
        return Synapses(self.weight[:, k], None if delay is None else delay[:, k if delay.shape[1] > 1 else 0])

    def above(self, other: Synapses) -> Synapses:
        """The sources of both."""
        weight = torch.cat([self.weight, other.weight])
        if self.delay is None and other.delay is None:
            return Synapses(weight)
        delays = [w.new_zeros(w.shape) if d is None else d.expand(w.shape) for w, d in (self, other)]
        return Synapses(weight, torch.cat(delays))


class Layer(NamedTuple):
    """What ``eventnet.lif`` computes with: ``refractory`` in seconds, initial state in volts; (N,), one number or none.

    With K dendritic branches ``initial_current`` is (K, N) or (K, 1).

    ``slope_floor``, volts per second, takes the place of a smaller slope at a spike in the backward pass.

    A layer that goes on from an earlier state has ``held``: seconds for which each voltage is still at reset, (B, N); the initial
    state is then (B, N) too (its currents (B, K, N)), and events may come before time 0: they count where they arrive at 0 or
    later.
    """

    synapses: Synapses
    neuron: Neuron
    recurrent: Synapses | None = None
    refractory: Tensor | None = None
    initial_voltage: Tensor | None = None
    initial_current: Tensor | None = None
    held: Tensor | None = None
    slope_floor: float = 0.0

    @property
    def branches(self) -> int | None:
        """How many dendritic branches each neuron has; None for neurons without."""
        return self.synapses.weight.shape[1] if self.synapses.weight.dim() == 3 else None

    def branch(self, k: int) -> Layer:
        """That of neurons without branches that hear what branch ``k`` hears."""
        current = self.initial_current
        return self._replace(
            synapses=self.synapses.branch(k),
            neuron=self.neuron._replace(tau_syn=_one_branch(self.neuron.tau_syn, 0, k)),
            recurrent=None if self.recurrent is None else self.recurrent.branch(k),
            initial_current=None if current is None else _one_branch(current, -2, k),
        )

    def options(self) -> list[str]:
        """The names of the arguments in use beyond weight and neuron."""
        used = {
            "delay": self.synapses.delay,
            "recurrent_weight": self.recurrent,
            "refractory": self.refractory,
            "initial_voltage": self.initial_voltage,
            "initial_current": self.initial_current,
        }
        return [name for name, value in used.items() if value is not None]

    def tensors(self) -> list[Tensor | None]:
        """All that a gradient may be asked of."""
        return [*self.synapses, *self.neuron, *(self.recurrent or ()), *self[3:7]]


class Run(NamedTuple):
    """Spikes ``times, units, offsets``, sorted by time (then unit) in each sample; currents at them; the last state, (B, N).

    A neuron's branches have a ``current`` each, (B, K, N); ``currents`` are their sums. Compiled kernels leave the state out
    unless it is asked for.
    """

    times: Tensor
    units: Tensor
    offsets: Tensor
    currents: Tensor
    voltage: Tensor | None = None
    current: Tensor | None = None
    held: Tensor | None = None
    exact: Tensor | None = None  # times in the kernel's own precision


def lif_reference(packed: Packed, layer: Layer, max_spikes: int) -> Run:
    """The layer over the whole trial."""
    dtype = torch.promote_types(packed.times.dtype, layer.synapses.weight.dtype)
    batch, num = packed.duration.numel(), layer.synapses.weight.shape[-1]
    branches = layer.branches or 1
    neuron = layer.neuron.to(dtype).expand(num)
    neuron = neuron._replace(tau_syn=neuron.tau_syn.expand(branches, num).T)
    end = packed.duration.to(dtype)[:, None].expand(batch, num)

    def given(value: Tensor | None, default: Tensor) -> Tensor:
        return (default if value is None else value.to(dtype)).expand(batch, num)

    v, i = given(layer.initial_voltage, neuron.start()), _currents(layer, batch, dtype)
    refractory = given(layer.refractory, end.new_zeros(()))
    now = torch.zeros_like(end)
    free = given(layer.held, end.new_zeros(()))  # when a voltage that is held may move again
    held = free > 0
    v = torch.where(held, neuron.reset, v)
    finished = torch.zeros_like(end, dtype=torch.bool)
    own = None if layer.recurrent is None else layer.recurrent.branched().to(dtype)
    synapses = layer.synapses.branched().to(dtype)
    queue = Queue(packed, synapses if own is None else synapses.above(own), end)
    foresight = torch.inf if own is None else smallest_delay(own)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    emitted = 0
    while True:
        arrival, size, branch, column = queue.head()
        released = held & (free <= arrival) & (free < end)
        until = torch.where(released, free, torch.minimum(arrival, end))
        wait = first_crossing(v.detach(), i.detach(), (until - now).detach(), neuron)
        hit = torch.isfinite(wait) & ~held
        event = torch.where(hit, now + wait, until).detach().masked_fill(finished, torch.inf)
        due = ~finished & (event <= event.amin(1, keepdim=True) + foresight) if num else ~finished
        if not bool(due.any()):
            break
        hit = hit & due
        b, n = hit.nonzero(as_tuple=True)
        s = until - now
        crossing = (v[b, n], i[b, n], neuron.at(n))
        reached = polish(wait[b, n], *crossing)
        if layer.slope_floor:
            reached = floored(reached, now[b, n], *crossing, layer.slope_floor)
        s = s.index_put((b, n), reached)
        later_v, later_i = flow(v, i, s, neuron)
        later_v = torch.where(hit, neuron.reset, torch.where(held, v, later_v))
        arrives = due & ~hit & ~released & (arrival < end)
        finished = finished | (due & ~hit & ~released & ~arrives)
        v = torch.where(due, later_v, v)
        arrived = torch.where(arrives, size, torch.zeros_like(size))[..., None]
        i = torch.where(due[..., None], later_i + arrived * torch.nn.functional.one_hot(branch, branches), i)
        now = torch.where(due, torch.where(hit, now + s, until), now)
        held = (held & ~(due & released)) | (hit if layer.refractory is not None else False)
        queue.take(arrives, column)
        if b.numel() == 0:
            continue
        emitted += b.numel()
        if emitted > max_spikes:
            raise too_many_spikes(max_spikes, int(b[0]))
        free = torch.where(hit, now + refractory, free)
        found.append((now[b, n], b, n, i[b, n].sum(-1)))
        if own is not None:
            queue.add(now[b, n], b, n, own)
    check_finite(v)
    i = i.transpose(1, 2)
    check_finite(i)
    i = i if layer.branches else i[:, 0]
    left = torch.where(held, free - end, torch.zeros_like(end)).clamp(min=0)
    return _sorted(found, v, i, left, graph([packed.times, packed.values, *layer.tensors()], dtype))


def _one_branch(x: Tensor, axis: int, k: int) -> Tensor:
    """Branch ``k`` without the axis of branches; one number for all neurons as such."""
    x = x.select(axis, k)
    return x.reshape(()) if x.numel() == 1 else x


def _currents(layer: Layer, batch: int, dtype: torch.dtype) -> Tensor:
    """Those that the layer starts with, ``(B, N, K)``."""
    num, branches = layer.synapses.weight.shape[-1], layer.branches
    given = layer.initial_current
    start = layer.synapses.weight.new_zeros(()) if given is None else given
    start = start.to(dtype).expand((batch, num) if branches is None else (batch, branches, num))
    return start[..., None] if branches is None else start.transpose(1, 2)


class Queue:
    """Arrivals on their way: ``(B, N, M)`` times and sizes in any order, those after the end of the trial left out.

    All that an event sends to a branch is in one column: ``branches`` (M,) tells to which.
    """

    def __init__(self, packed: Packed, synapses: Synapses, end: Tensor) -> None:
        time, unit, size = pad_events(packed)
        self.end = end
        num = end.shape[1]
        delay = end.new_zeros(1, 1, num) if synapses.delay is None else synapses.delay
        delay = padded(delay.expand(synapses.weight.shape))[unit]  # (B, M, K, N)
        self.times = _columns(time.to(end.dtype)[..., None, None] + delay)
        self.sizes = _columns(size.to(end.dtype)[..., None, None] * padded(synapses.weight)[unit])
        self.per_event = torch.arange(synapses.weight.shape[1], device=end.device)
        self.branches = self.per_event.repeat(time.shape[1])
        early, padding = (x.repeat_interleave(self.per_event.numel(), 1)[:, None] for x in (time < 0, unit < 0))
        self._drop_late(padding | (early & (self.times.detach() < 0)))

    def head(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next arrival of each neuron: its time (the end of the trial if none is left), size, branch and column."""
        if self.times.shape[2] == 0:
            none = torch.zeros_like(self.end, dtype=torch.int64)
            return self.end, torch.zeros_like(self.end), none, none
        column = self.times.detach().argmin(2, keepdim=True)
        time, size = self.times.gather(2, column)[..., 0], self.sizes.gather(2, column)[..., 0]
        left = torch.isfinite(time)
        column, size = column[..., 0], torch.where(left, size, torch.zeros_like(size))
        return torch.where(left, time, self.end), size, self.branches[column], column

    def take(self, which: Tensor, column: Tensor) -> None:
        """Remove the arrivals of the neurons ``which``."""
        if self.times.shape[2]:
            taken = torch.zeros_like(self.times, dtype=torch.bool).scatter(2, column[..., None], which[..., None])
            self.times = self.times.masked_fill(taken, torch.inf)

    def add(self, time: Tensor, b: Tensor, n: Tensor, synapses: Synapses) -> None:
        """Spikes of the layer itself at ``time`` in sample ``b``, of neuron ``n``."""
        rank = torch.arange(b.numel(), device=b.device)
        rank = rank - torch.searchsorted(b.contiguous(), b.contiguous())  # among the spikes of its sample; b is sorted
        shape = (self.end.shape[0], int(rank.max()) + 1, *synapses.weight.shape[1:])
        delay = (
            torch.zeros_like(synapses.weight)
            if synapses.delay is None
            else synapses.delay.expand(synapses.weight.shape)
        )
        times = self.end.new_full(shape, torch.inf).index_put((b, rank), time[:, None, None] + delay[n])
        sizes = self.end.new_zeros(shape).index_put((b, rank), synapses.weight[n])
        kept = torch.isfinite(self.times.detach()).any(0).any(0)
        self.times = torch.cat([self.times[..., kept], _columns(times)], 2)
        self.sizes = torch.cat([self.sizes[..., kept], _columns(sizes)], 2)
        self.branches = torch.cat([self.branches[kept], self.per_event.repeat(shape[1])])
        self._drop_late(~torch.isfinite(self.times.detach()))

    def _drop_late(self, gone: Tensor) -> None:
        self.times = self.times.masked_fill(gone | (self.times.detach() >= self.end[..., None]), torch.inf)


def _columns(x: Tensor) -> Tensor:
    """``(B, M, K, N)`` as ``(B, N, M K)``."""
    return x.permute(0, 3, 1, 2).flatten(2)


def smallest_delay(synapses: Synapses) -> float:
    """Seconds from a spike to the earliest arrival that it can cause."""
    if synapses.delay is None or synapses.delay.numel() == 0:
        return 0.0
    return float(synapses.delay.detach().min())


def _sorted(
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]], v: Tensor, i: Tensor, left: Tensor, zero: Tensor
) -> Run:
    index = torch.empty(0, dtype=torch.int64, device=v.device)
    none = (v.new_empty(0), index, index, v.new_empty(0))
    at, b, n, current = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else none
    at = at + zero
    order = n.argsort(stable=True)
    order = order[at.detach()[order].argsort(stable=True)]
    order = order[b[order].argsort(stable=True)]
    offsets = torch.nn.functional.pad(torch.bincount(b, minlength=v.shape[0]).cumsum(0), (1, 0))
    return Run(at[order], n[order].to(torch.int32), offsets, current[order], v + zero, i + zero, left)
