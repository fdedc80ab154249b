"""Loihi's fixed-point arithmetic, bit for bit as Lava 0.10.0 has it: a hardware graph, run step by step.

In step t, with M = 2^23, ``tdz(a)`` = a / 4096 rounded towards zero, and int32 throughout:

    a = what arrives in this step
    u = tdz(u (4096 - (du + 1))) + (a << 6);   once: u > M -> u - 2M,  u <= -M -> u + 2M    (a single wrap, no modulo)
    v = clip(tdz(v (4096 - dv)) + u + bias, -M + 1, M - 1)
    s = v > (vth << 6);   v = 0 where s                                     (strictly above; u is not reset)

A synapse holds its weight clipped and cut (``Projection.effective``). The spikes of a step are added up at each target,
apart for each delay, and the **sum** is shifted by ``weight_exp`` (down: towards minus infinity); it arrives in step
t + 1 + delay. A convolution's sums wrap at 24 bits instead. Projections onto one population add up.

Two neurons go beyond what Lava can confirm: a refractory period (v is held at 0) has no fixed-point model there.

Source: lava-nc 0.10.0, its process models tagged ``fixed_pt``; Davies et al., "Loihi: a neuromorphic manycore processor with
on-chip learning" (IEEE Micro, 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, LIFNeurons, Projection, Sparse

__all__ = ["Record", "State", "simulate"]

M = 2**23
BATCH_OF_SYNAPSES = 2**22  # that are gathered at a time: 16 MB of weights


class Record(NamedTuple):
    """What happened: a tensor ``(T, B, N)`` for each population. Spikes are int32, 0 or 1 (of graded ones, the value)."""

    spikes: dict[str, Tensor]
    u: dict[str, Tensor]
    v: dict[str, Tensor]


@dataclass
class State:
    """Where a simulation stands: ``u`` and ``v`` of each population, ``(B, N)``; what is on its way; steps done."""

    step: int
    u: dict[str, Tensor]
    v: dict[str, Tensor]
    pending: dict[str, Tensor]  # (slots, B, N): slot s holds what arrives in the steps t with t % slots == s
    waiting: dict[str, Tensor]  # steps that a neuron is still refractory for
    overflows: dict[str, int] = field(default_factory=dict)  # currents wrapped and voltages clipped so far


def simulate(
    network: HardwareNetwork,
    spikes: Tensor | Mapping[str, Tensor],
    *,
    state: State | None = None,
    record: Collection[str] | None = None,
    return_state: bool = False,
) -> Record | tuple[Record, State]:
    """The spikes, currents and voltages of every population, every step.

    Args:
        network: the graph, from plain integer arrays (``HardwareNetwork``) or a compiled model.
        spikes: ``(T, B, N)`` or ``(T, N)``, bool or integers (how many, or the value of a graded spike), of the one population of
            ``Inputs``, or of each by name. They decide on the device.
        state: to go on from, of an earlier call; otherwise the populations' own u and v, at step 0.
        record: names of the populations whose u and v are kept; all by default. Spikes always are. A long run in bounded
            memory is a number of calls that hand on their state.
        return_state: also return the state after the last step.

    Returns:
        ``(spikes, u, v)``: dicts of ``(T, B, N)`` int32 tensors by the names of the populations, ``(T, N)`` if the input had no
        batch. u and v are those at the end of a step: v is 0 where there was a spike.

    Example:
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 1), LIFNeurons("neuron", 1, du=2047, dv=0, vth=200)],
        ...     [Dense("input", "neuron", [[100]])],
        ...     dt=1e-3,
        ... )
        >>> spikes, u, v = simulate(network, torch.tensor([[1], [1], [0], [0], [0]]))
        >>> spikes["neuron"][:, 0].tolist(), v["neuron"][:, 0].tolist()
        ([0, 0, 1, 0, 0], [0, 6400, 0, 4800, 7200])
    """
    rasters, batched = _rasters(network, spikes)
    first = next(iter(rasters.values()))
    num_steps, batch = first.shape[:2]
    state = _started(network, batch, first.device) if state is None else _copied(state)
    kept = [each.name for each in network.neurons] if record is None else [network[name].name for name in record]
    synapses = [_Synapses(each, network, first.device) for each in network.projections]
    constants = {each.name: _Constants(each, first.device) for each in network.neurons if isinstance(each, LIFNeurons)}
    shapes = {each.name: (num_steps, batch, each.size) for each in network.neurons}
    told = {
        name: torch.empty(shape, dtype=torch.int32, device=first.device) for name, shape in shapes.items()
    } | rasters
    u = {name: torch.empty(shapes[name], dtype=torch.int32, device=first.device) for name in kept}
    v = {name: torch.empty(shapes[name], dtype=torch.int32, device=first.device) for name in kept}
    for k in range(num_steps):
        for name, constant in constants.items():
            told[name][k] = _step(constant, state, name)
            if name in u:
                u[name][k], v[name][k] = state.u[name], state.v[name]
        for each in synapses:
            each.deliver(told[each.source][k], state)
        state.step += 1
    found = Record(*({name: x if batched else x[:, 0] for name, x in part.items()} for part in (told, u, v)))
    return (found, state) if return_state else found


class _Constants:
    """A population's parameters as its steps use them."""

    def __init__(self, neurons: LIFNeurons, device: torch.device) -> None:
        self.keep_u = (4096 - (neurons.du.to(device, torch.int64) + 1)).to(device)
        self.keep_v = 4096 - neurons.dv.to(device, torch.int64)
        self.bias, self.threshold = neurons.bias.to(device), (neurons.vth << 6).to(device)
        self.interval, self.offset = neurons.reset_interval, neurons.reset_offset
        self.refractory = neurons.refractory.to(device) if bool(neurons.refractory.any()) else None


def _step(constant: _Constants, state: State, name: str) -> Tensor:
    """One step of a population: its spikes, ``(B, N)``; ``state`` is moved on."""
    pending = state.pending[name]
    slot = state.step % len(pending)
    u, v = state.u[name], state.v[name]
    if constant.interval is not None and (state.step + 1) % constant.interval == constant.offset:
        u, v = torch.zeros_like(u), torch.zeros_like(v)
    u = _towards_zero(u * constant.keep_u) + (pending[slot] << 6)
    pending[slot] = 0
    high, low = u > M, u <= -M
    u = u - high * torch.tensor(2 * M, dtype=torch.int32) + low * torch.tensor(2 * M, dtype=torch.int32)
    moved = _towards_zero(v * constant.keep_v) + u + constant.bias
    v = moved.clamp(-M + 1, M - 1)
    state.overflows[name] = state.overflows.get(name, 0) + int((high | low).sum()) + int((moved != v).sum())
    if constant.refractory is not None:
        v = torch.where(state.waiting[name] > 0, 0, v)
    fired = v > constant.threshold
    if constant.refractory is not None:
        left = (state.waiting[name] - 1).clamp(min=0)
        state.waiting[name] = torch.where(fired, constant.refractory, left)
    state.u[name], state.v[name] = u, v.masked_fill(fired, 0)
    return fired


def _towards_zero(product: Tensor) -> Tensor:
    """An int64 product / 4096, rounded towards zero, as int32."""
    return torch.div(product, 4096, rounding_mode="trunc").to(torch.int32)


class _Synapses:
    """A projection, ready to deliver the spikes of a step."""

    def __init__(self, projection: Projection, network: HardwareNetwork, device: torch.device) -> None:
        self.source, self.target = projection.source, projection.target
        self.graded = projection.message_bits > 0
        self.shift = projection.weight_exp
        self.geometry = projection if isinstance(projection, Convolution) else None
        self.delay: Tensor | None = None
        self.num_delays = projection.max_delay + 1
        weight = projection.effective().to(device)
        if isinstance(projection, Sparse):
            self._sort(projection, weight, network[self.source].size, device)
        else:
            self.first, self.weight = None, weight
            if isinstance(projection, Dense) and projection.delay is not None:
                self.delay = projection.delay.to(device, torch.int64)
        if self.shift >= 0:
            self.weight = self.weight << self.shift  # as good as the shifted sum

    def _sort(self, projection: Sparse, weight: Tensor, sources: int, device: torch.device) -> None:
        rows = projection.rows.to(device, torch.int64)
        order = rows.argsort(stable=True)
        self.weight, self.columns = weight[order], projection.columns.to(device, torch.int64)[order]
        if projection.delay is not None:
            self.delay = projection.delay.to(device, torch.int64)[order]
        counts = torch.bincount(rows, minlength=sources)
        self.first, self.count = counts.cumsum(0) - counts, counts

    def deliver(self, spikes: Tensor, state: State) -> None:
        """Add what the spikes ``(B, N)`` of this step cause to what is on its way."""
        if self.geometry is not None:
            self._convolve(self.geometry, spikes, state)
            return
        where, unit = spikes.nonzero(as_tuple=True)
        if not len(unit):
            return
        value = spikes[where, unit].to(torch.int32) if self.graded else None
        pending = state.pending[self.target]
        slots, batch, size = pending.shape
        if self.shift < 0:  # the sum of each delay is shifted, so it is made apart
            sums = pending.new_zeros(self.num_delays, batch, size)
            self._add(sums, 0, where, unit, value)
            late = (state.step + 1 + torch.arange(self.num_delays, device=spikes.device)) % slots
            pending.index_add_(0, late, sums >> -self.shift)
        else:
            self._add(pending, state.step + 1, where, unit, value)

    def _add(self, onto: Tensor, step: int, where: Tensor, unit: Tensor, value: Tensor | None) -> None:
        """Add the weights of ``unit`` of sample ``where``, times ``value``, to the slots ``step + delay`` of ``onto``."""
        each = self.weight.shape[1] if self.first is None else max(1, int(self.count.max()))
        chunk = max(1, BATCH_OF_SYNAPSES // each)
        slots, batch, size = onto.shape
        for k in range(0, len(unit), chunk):
            b, j = where[k : k + chunk], unit[k : k + chunk]
            some = None if value is None else value[k : k + chunk]
            if self.first is None and self.delay is None:
                rows = self.weight[j] if some is None else self.weight[j] * some[:, None]
                onto[step % slots].index_add_(0, b, rows)
                continue
            if self.first is None:
                weight, delay = self.weight[j], self.delay[j]
                sample, column = b[:, None], torch.arange(size, device=onto.device)
                some = None if some is None else some[:, None]
            else:
                counts = self.count[j]
                spike = torch.repeat_interleave(torch.arange(len(j), device=j.device), counts)
                index = torch.arange(len(spike), device=j.device) - (counts.cumsum(0) - counts - self.first[j])[spike]
                weight, column, sample = self.weight[index], self.columns[index], b[spike]
                delay = 0 if self.delay is None else self.delay[index]
                some = None if some is None else some[spike]
            place = (((step + delay) % slots) * batch + sample) * size + column
            weight = weight if some is None else weight * some
            onto.view(-1).index_add_(0, place.expand(weight.shape).reshape(-1), weight.reshape(-1))

    def _convolve(self, geometry: Convolution, spikes: Tensor, state: State) -> None:
        if not bool(spikes.any()):
            return
        value = spikes if self.graded else spikes != 0
        images = value.to(torch.float64).reshape(-1, *geometry.shape)  # integers below 2^53 are exact
        options = geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        sums = functional.conv2d(images, self.weight.to(torch.float64), None, *options)
        pending = state.pending[self.target]
        pending[(state.step + 1) % len(pending)] += ((sums.flatten(1).to(torch.int64) + M) % (2 * M) - M).to(
            torch.int32
        )


def _rasters(network: HardwareNetwork, spikes: Tensor | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The spikes of each population of inputs, ``(T, B, N)`` int32, and whether they came as a batch."""
    names = [each.name for each in network.inputs]
    if isinstance(spikes, Tensor):
        if len(names) > 1:
            raise ValueError(f"spikes: expected a dict of tensors for the inputs {', '.join(names)}, got one tensor")
        spikes = {names[0]: spikes}
    if sorted(spikes) != sorted(names):
        raise ValueError(f"spikes: expected those of {', '.join(names)}, got those of {', '.join(spikes)}")
    found: dict[str, Tensor] = {}
    for name in names:
        raster = spikes[name]
        if raster.is_floating_point() or raster.is_complex():
            raise TypeError(f"spikes of {name}: expected bool or integers, got {raster.dtype}")
        size = network[name].size
        if raster.dim() not in (2, 3) or raster.shape[-1] != size:
            raise ValueError(f"spikes of {name}: expected (T, B, {size}) or (T, {size}), got {tuple(raster.shape)}")
        found[name] = (raster if raster.dim() == 3 else raster[:, None]).to(torch.int32)
    if len({(*each.shape[:2], each.device) for each in found.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in found.items())
        raise ValueError(f"spikes: expected as many steps and samples of each, on one device, got {shapes}")
    return found, spikes[names[0]].dim() == 3


def _started(network: HardwareNetwork, batch: int, device: torch.device) -> State:
    """Before the first step."""
    u, v, pending, waiting = {}, {}, {}, {}
    for each in network.neurons:
        assert isinstance(each, LIFNeurons)
        u[each.name], v[each.name] = (x.to(device).repeat(batch, 1) for x in (each.u, each.v))
        slots = 2 + max((projection.max_delay for projection in network.onto(each.name)), default=0)
        pending[each.name] = torch.zeros(slots, batch, each.size, dtype=torch.int32, device=device)
        waiting[each.name] = torch.zeros(batch, each.size, dtype=torch.int32, device=device)
    return State(0, u, v, pending, waiting)


def _copied(state: State) -> State:
    parts = (state.u, state.v, state.pending, state.waiting)
    return State(state.step, *({name: x.clone() for name, x in part.items()} for part in parts), dict(state.overflows))
