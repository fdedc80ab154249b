"""The specification of ``eventnet.lif_drive``: neurons under piecewise-constant currents, in plain torch.

    tau_mem V' = target[k] - V + I   on [k dt, (k + 1) dt),   I' = -I / tau_syn

The target is where the voltage would settle: bias plus input current. I is the current that the layer's own spikes make, and
what is left of its initial one. Without I the voltage v reaches the threshold after ``tau_mem log(1 + (threshold - v) / (target -
threshold))`` seconds if the target is above the threshold, and never otherwise; with I the crossing is that of any LIF neuron
whose bias is the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet.kernels.reference import Neuron, Packed, check_finite, graph, too_many_spikes
from eventnet.kernels.reference_branches import first_crossing, floored, flow, polish
from eventnet.kernels.reference_lif import Layer, Queue, Run, Synapses, _sorted, smallest_delay


def drive_reference(target: Tensor, layer: Layer, dt: float, max_spikes: int) -> tuple[Run, Tensor]:
    """Spikes for ``target`` (T, B, N), and the voltages at the ends of the steps, (T, B, N)."""
    steps, batch, num = target.shape
    neuron = layer.neuron.to(target.dtype).expand(num)
    neuron = neuron._replace(tau_syn=neuron.tau_syn[:, None])
    end = target.new_full((batch, num), steps * dt)

    def given(value: Tensor | None, default: Tensor) -> Tensor:
        return (default if value is None else value.to(target.dtype)).expand(batch, num)

    v = given(layer.initial_voltage, neuron.start())
    i = given(layer.initial_current, end.new_zeros(()))[..., None]
    refractory, free = given(layer.refractory, end.new_zeros(())), torch.zeros_like(end)
    held = torch.zeros_like(end, dtype=torch.bool)
    own = (layer.recurrent or Synapses(target.new_empty(0, num))).branched().to(target.dtype)
    queue, foresight = Queue(_no_events(end), own, end), torch.inf if layer.recurrent is None else smallest_delay(own)
    alone = layer.recurrent is None and layer.initial_current is None
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    voltages, emitted = [], 0
    for k in range(steps):
        check_finite(target[k])
        here = neuron._replace(bias=target[k])
        now, stop = torch.full_like(end, k * dt), torch.full_like(end, (k + 1) * dt)
        finished = torch.zeros_like(held)
        while num and not bool(finished.all()):
            arrival, size, _, column = queue.head()
            released = held & (free < stop) & (free <= arrival)
            until = torch.where(released, free, torch.minimum(arrival, stop))
            wait = _first_crossing(v, i, until - now, here, alone)
            hit = torch.isfinite(wait) & ~held
            event = torch.where(hit, now + wait, until).detach().masked_fill(finished, torch.inf)
            due = ~finished & (event <= event.amin(1, keepdim=True) + foresight)
            hit = hit & due
            b, n = hit.nonzero(as_tuple=True)
            at = (v[b, n], i[b, n], Neuron(neuron.tau_mem[n], *neuron.at(n)[1:4], target[k, b, n]))
            reached = _closed_form(at[0], at[2]) if alone else polish(wait[b, n], *at)
            if layer.slope_floor:
                reached = floored(reached, now[b, n], *at, layer.slope_floor)
            s = (until - now).index_put((b, n), reached)
            later_v, later_i = flow(v, i, s, here)
            later_v = torch.where(hit, neuron.reset, torch.where(held, v, later_v))
            arrives = due & ~hit & ~released & (arrival < stop)
            finished = finished | (due & ~hit & ~released & ~arrives)
            v = torch.where(due, later_v, v)
            i = torch.where(due[..., None], later_i + torch.where(arrives, size, 0.0)[..., None], i)
            now = torch.where(due, torch.where(hit, now + s, until), now)
            held = (held & ~(due & released)) | (hit if layer.refractory is not None else False)
            queue.take(arrives, column)
            if b.numel() == 0:
                continue
            emitted += b.numel()
            if emitted > max_spikes:
                raise too_many_spikes(max_spikes, int(b[0]))
            free = torch.where(hit, now + refractory, free)
            found.append((now[b, n], b, n, i[b, n].sum(-1) + target[k, b, n] - neuron.bias[n]))
            if layer.recurrent is not None:
                queue.add(now[b, n], b, n, own)
        voltages.append(v)
    check_finite(v)
    left = torch.where(held, free - end, torch.zeros_like(end)).clamp(min=0)
    run = _sorted(found, v, i[..., 0], left, graph([target, *layer.tensors()], target.dtype))
    return run, torch.stack(voltages) if voltages else torch.zeros_like(target)


def _first_crossing(v: Tensor, i: Tensor, horizon: Tensor, neuron: Neuron, alone: bool) -> Tensor:
    """Seconds until the voltage first reaches the threshold, ``inf`` if it does not within ``horizon``; no gradient."""
    if not alone:
        return first_crossing(v.detach(), i.detach(), horizon.detach(), neuron)
    with torch.no_grad():
        rises = neuron.bias > neuron.threshold
        wait = _closed_form(v, neuron._replace(bias=torch.where(rises, neuron.bias, neuron.threshold + 1)))
        return torch.where(rises & (wait <= horizon), wait, torch.inf)


def _closed_form(v: Tensor, neuron: Neuron) -> Tensor:
    """Seconds from ``v`` to the threshold, for a bias above it; none from a voltage that rounding put beyond the threshold."""
    missing = (neuron.threshold - v).clamp(min=0)
    return neuron.tau_mem * torch.log1p(missing / (neuron.bias - neuron.threshold))


def _no_events(end: Tensor) -> Packed:
    offsets = torch.zeros(end.shape[0] + 1, dtype=torch.int64, device=end.device)
    return Packed(end.new_empty(0), offsets[:0].int(), offsets, None, end.new_zeros(len(end)))
