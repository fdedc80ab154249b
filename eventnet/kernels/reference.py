"""The specification of every kernel, in plain torch: short, float64-safe, differentiable by autograd.

All functions take the packed events of a batch and the parameters of the neurons. The compiled kernels must return the same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_NEAR = 1e-2  # |x| below which the voltage kernel is summed as a series


class Packed(NamedTuple):
    """Events of a batch, as in ``eventnet.Events``: sample ``b`` owns those in ``offsets[b] .. offsets[b + 1]``."""

    times: Tensor
    units: Tensor
    offsets: Tensor
    values: Tensor | None
    duration: Tensor


class Neuron(NamedTuple):
    """Parameters of ``N`` current-based leaky integrate-and-fire neurons, each one number for all or ``(N,)``.

    Of neurons with ``K`` dendritic branches ``tau_syn`` is ``(K, 1)`` or ``(K, N)``.
    """

    tau_mem: Tensor
    tau_syn: Tensor
    threshold: Tensor
    reset: Tensor
    bias: Tensor

    def is_scalar(self) -> bool:
        """Whether all neurons share all parameters."""
        return all(p.numel() == 1 for p in self)

    def shares_taus(self) -> bool:
        """Whether all neurons share their time constants: decays are then computed once for all."""
        return self.tau_mem.numel() == 1 and self.tau_syn.numel() == 1

    def expand(self, num: int) -> Neuron:
        """The same with every parameter as ``(num,)``, or ``(K, num)``."""
        return Neuron(*(p.expand(*p.shape[:-1], num) for p in self))

    def to(self, dtype: torch.dtype) -> Neuron:
        """The same in another dtype."""
        return Neuron(*(p.to(dtype) for p in self))

    def at(self, n: Tensor) -> Neuron:
        """The parameters of neurons ``n``."""
        return Neuron(*(p[n] for p in self))

    def start(self) -> Tensor:
        """Voltage at time 0: the resting value ``bias``, or ``reset`` for a neuron that has no rest (bias >= threshold)."""
        return torch.where(self.bias < self.threshold, self.bias, self.reset)


def synaptic_kernel(s: Tensor, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """Voltage ``s`` seconds after a unit jump of the current, ``K(s) = ts/(tm-ts) (e^{-s/tm} - e^{-s/ts})``.

    Written as ``(s/tm) e^{-s/max(tm,ts)} (1 - e^{-|x|})/|x|`` with ``x = s (1/ts - 1/tm)``: it never overflows. Near tm = ts it
    is ``(s/tm) e^{-s (1/tm + 1/ts)/2} sinh(x/2)/(x/2)``, a series in x^2, which is smooth through x = 0.
    """
    x = s * (1 / tau_syn - 1 / tau_mem)
    near = x.abs() < _NEAR
    safe = torch.where(near, torch.ones_like(x), x.abs())
    far = torch.exp(-s / torch.maximum(tau_mem, tau_syn)) * -torch.expm1(-safe) / safe
    z = (torch.where(near, x, torch.zeros_like(x)) / 2) ** 2
    series = 1 + z / 6 * (1 + z / 20 * (1 + z / 42))
    return s / tau_mem * torch.where(near, torch.exp(-s * (1 / tau_mem + 1 / tau_syn) / 2) * series, far)


def flow(v: Tensor, i: Tensor, s: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Voltage and current after ``s`` seconds without events."""
    tau_mem, tau_syn, bias = neuron.tau_mem, neuron.tau_syn, neuron.bias
    later = bias + (v - bias) * torch.exp(-s / tau_mem) + i * synaptic_kernel(s, tau_mem, tau_syn)
    return later, i * torch.exp(-s / tau_syn)


def slope(v: Tensor, i: Tensor, neuron: Neuron) -> Tensor:
    """``dV/dt`` in volts per second."""
    return (neuron.bias - v + i) / neuron.tau_mem


def peak_time(v: Tensor, i: Tensor, neuron: Neuron) -> Tensor:
    """Time of the voltage's maximum in an event-free stretch that starts at ``(v, i)``: 0 if it falls from the start,
    ``inf`` if it rises for ever. At most one exists, and none for ``i <= 0``. No gradient: see ``polish_peak``."""
    tm, ts = neuron.tau_mem.detach(), neuron.tau_syn.detach()
    positive = i > 0
    r = (v - neuron.bias.detach()) / torch.where(positive, i, torch.ones_like(i))
    below = ts + r * (tm - ts)
    x = (1 - r) * (tm - ts) / torch.where(below > 0, below, torch.ones_like(below))
    difference = tm - ts
    close = difference == 0
    wide = torch.where(close, torch.ones_like(tm), difference)
    # log1p(x) / (tm - ts), with its limit where the time constants coincide
    stretch = torch.where(close, (1 - r) / torch.where(below > 0, below, torch.ones_like(below)), torch.log1p(x) / wide)
    peak = torch.where(below > 0, tm * ts * stretch, torch.full_like(r, torch.inf))
    peak = torch.where(r < 1, peak, torch.zeros_like(peak))
    return torch.where(positive, peak, torch.full_like(peak, torch.inf))


def first_crossing(v: Tensor, i: Tensor, horizon: Tensor, neuron: Neuron) -> Tensor:
    """Seconds until the voltage first reaches the threshold, ``inf`` if it does not within ``horizon``; no gradient."""
    with torch.no_grad():
        # The only place where the voltage can be highest: its peak, or the end of the stretch.
        best = torch.minimum(peak_time(v, i, neuron), horizon)
        hit = (best > 0) & (flow(v, i, best, neuron)[0] >= neuron.threshold)
        hit &= (i > 0) | (neuron.bias > neuron.threshold)  # else it rises to its rest at most, which rounding may reach
        here, high = Neuron(*(p.expand_as(best)[hit] for p in neuron)), best[hit]
        low, v, i = torch.zeros_like(high), v.expand_as(best)[hit], i.expand_as(best)[hit]
        for _ in range(40 if high.numel() else 0):  # bisection, so that it cannot fail; polish() mends the last digits
            middle = (low + high) / 2
            above = flow(v, i, middle, here)[0] >= here.threshold
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return torch.full_like(best, torch.inf).index_put((hit,), high)


def polish_peak(s: Tensor, v: Tensor, i: Tensor, neuron: Neuron) -> Tensor:
    """Newton steps where the slope vanishes: they make the time of a peak differentiable. (To first order its height
    does not need that.)"""
    for _ in range(2):
        at, current = flow(v, i, s, neuron)
        steep = slope(at, current, neuron)
        s = s + steep * neuron.tau_mem / (current / neuron.tau_syn + steep)
    return s


def pad_events(packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """``(B, M)`` times, units and sizes of the events that count, the rest filled with unit -1 at the end of the sample."""
    times, units, offsets, values, duration = packed
    batch = offsets.numel() - 1
    sample = torch.arange(batch, device=times.device).repeat_interleave(offsets.diff())
    column = torch.arange(times.numel(), device=times.device) - offsets[sample]
    counted = times.detach() < duration[sample]
    sample, column = sample[counted], column[counted]
    width = int(column.max()) + 1 if column.numel() else 0
    size = torch.ones_like(times) if values is None else values
    time = duration[:, None].expand(batch, width).clone().index_put((sample, column), times[counted])
    unit = units.new_full((batch, width), -1, dtype=torch.int64)
    unit = unit.index_put((sample, column), units[counted].to(torch.int64))
    scale = times.new_zeros(batch, width, dtype=size.dtype).index_put((sample, column), size[counted])
    return time, unit, scale


def _begin(
    packed: Packed, weight: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Neuron, Tensor]:
    """What a simulation starts from, in one dtype: padded events, durations, weight rows, neurons, ``(B, N)`` voltages."""
    time, unit, size = pad_events(packed)
    dtype = torch.promote_types(time.dtype, weight.dtype)
    batch, num = packed.duration.numel(), weight.shape[1]
    neuron = neuron.to(dtype).expand(num)
    voltage = neuron.start().expand(batch, num)
    rows = padded(weight.to(dtype))
    return time.to(dtype), unit, size.to(dtype), packed.duration.to(dtype), rows, neuron, voltage


def padded(rows: Tensor) -> Tensor:
    """With a last row of zeros for unit -1, so that padding adds nothing whatever the rows hold."""
    return torch.cat([rows, rows.new_zeros((1, *rows.shape[1:]))])


def graph(inputs: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
    """Zero, connected to everything that a layer depends on: a silent layer has a graph too, with zero gradients."""
    return torch.stack([x.reshape(-1)[:0].sum().to(torch.float64) for x in inputs if x is not None]).sum().to(dtype)


class SpikeStorm(RuntimeError):
    """More spikes in one call than allowed."""


def too_many_spikes(max_spikes: int, sample: int) -> SpikeStorm:
    """The error for a spike storm."""
    return SpikeStorm(
        f"lif: more than max_spikes = {max_spikes} spikes in one call (reached in sample {sample}); lower the weights or "
        "the input rate, raise the threshold, or allow more: eventnet.lif(..., max_spikes=...)"
    )


def check_finite(v: Tensor) -> None:
    """Raise if a voltage ``(B, N)`` or ``(B, K, N)`` is NaN or infinite, naming sample and neuron."""
    bad = ~torch.isfinite(v.detach())
    if bool(bad.any()):
        b, *_, n = bad.nonzero()[0].tolist()
        raise ValueError(
            f"sample {b}, neuron {n}: the voltage is not finite; weight or values hold NaN, inf or huge numbers"
        )


def li_max_reference(packed: Packed, weight: Tensor, neuron: Neuron) -> Tensor:
    """``(B, N)`` largest voltage of neurons that never spike.

    A maximum is at the start, at the end, where the slope vanishes between two events, or in the kink at an arrival:
    there its time moves with the arrival, which autograd sees because the stretch before it ends at that event.
    """
    time, unit, size, duration, rows, neuron, v = _begin(packed, weight, neuron)
    i = torch.zeros_like(v)
    best, now = v, torch.zeros_like(duration)
    for step in range(time.shape[1] + 1):
        until = time[:, step] if step < time.shape[1] else duration
        stretch = (until - now)[:, None].expand_as(v)
        peak = peak_time(v.detach(), i.detach(), neuron)
        inside = (peak > 0) & (peak < stretch.detach())
        b, n = inside.nonzero(as_tuple=True)
        at, own = (v[b, n], i[b, n]), neuron.at(n)
        between = best.index_put((b, n), flow(*at, polish_peak(peak[b, n], *at, own), own)[0])
        best = torch.where(between > best, between, best)
        v, i = flow(v, i, stretch, neuron)
        # simultaneous arrivals: the first one is the kink, whatever rounding does to the rest
        best = torch.where((v > best) & (stretch > 0), v, best)
        now = until
        if step < time.shape[1]:
            i = i + size[:, step, None] * rows[unit[:, step]]
    check_finite(v)
    return best + graph([packed.times, packed.values, weight, *neuron], best.dtype)


def li_integral_reference(packed: Packed, weight: Tensor, neuron: Neuron, rate: float) -> Tensor:
    """``(B, N)`` ``integral_0^T V(t) e^{-rate t} dt`` of neurons that never spike.

    V is a sum over arrivals, so is its integral: no order of events matters.
    """
    times, units, offsets, values, duration = packed
    batch, num = duration.numel(), weight.shape[1]
    dtype = torch.promote_types(times.dtype, weight.dtype)
    neuron = neuron.to(dtype)
    sample = torch.arange(batch, device=times.device).repeat_interleave(offsets.diff())
    counted = times.detach() < duration[sample]
    times, units, sample = times[counted], units[counted].to(torch.int64), sample[counted]
    left = (duration[sample] - times).to(dtype)[:, None]
    slow, fast = 1 / neuron.tau_mem + rate, 1 / neuron.tau_syn + rate
    # y = integral_0^h K(s) e^{-rate s} ds solves y' + slow y = (1 - e^{-fast h}) / (fast tau_mem)
    kernel = synaptic_kernel(left, 1 / slow, 1 / fast) / slow
    area = (decay_integral(fast, left) - kernel) / (slow * neuron.tau_mem)
    damping = torch.exp(-rate * times.to(dtype))
    size = damping if values is None else values[counted].to(dtype) * damping
    total = times.new_zeros((batch, num), dtype=dtype)
    total = total.index_add(0, sample, area * size[:, None] * weight.to(dtype)[units])
    span = duration.to(dtype)[:, None]
    rest = span if rate == 0 else decay_integral(torch.as_tensor(rate, dtype=dtype), span)
    total = total + neuron.bias * rest + (neuron.start() - neuron.bias) * decay_integral(slow, span)
    check_finite(total)
    return total


def decay_integral(rate: Tensor, span: Tensor) -> Tensor:
    """``integral_0^span e^{-rate t} dt`` for rate > 0."""
    return -torch.expm1(-rate * span) / rate
