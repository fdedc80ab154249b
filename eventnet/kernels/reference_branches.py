"""A neuron between two events: its soma hears the currents of K dendritic branches, each with a time constant of its own.

    tau_mem V' = bias - V + sum_k I_k,   tau_syn[k] I_k' = -I_k

Currents and ``tau_syn`` have the branches last: ``(..., K)``. A neuron without branches is one with K = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet.kernels import reference
from eventnet.kernels.reference import Neuron, synaptic_kernel

_LOOKS = 60  # stretches to bound the voltage over, each half as long as the one before
_CLOSE = 4  # units in the last place from the threshold that count as on it


def flow(v: Tensor, i: Tensor, s: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Voltage and currents after ``s`` seconds without events."""
    tau_mem, tau_syn, bias = neuron.tau_mem, neuron.tau_syn, neuron.bias
    heard = (i * synaptic_kernel(s[..., None], tau_mem[..., None], tau_syn)).sum(-1)
    return bias + (v - bias) * torch.exp(-s / tau_mem) + heard, i * torch.exp(-s[..., None] / tau_syn)


def slope(v: Tensor, i: Tensor, neuron: Neuron) -> Tensor:
    """``dV/dt`` in volts per second."""
    return (neuron.bias - v + i.sum(-1)) / neuron.tau_mem


def first_crossing(v: Tensor, i: Tensor, horizon: Tensor, neuron: Neuron) -> Tensor:
    """Seconds until the voltage first reaches the threshold, ``inf`` if it does not within ``horizon``; no gradient.

    With one current the voltage has one peak at most. With several it is a sum of K + 1 exponentials, which may rise and fall
    several times: see ``_climb``.
    """
    if i.shape[-1] == 1:
        return reference.first_crossing(v, i[..., 0], horizon, neuron._replace(tau_syn=neuron.tau_syn[..., 0]))
    with torch.no_grad():
        v, i, horizon, neuron = (
            v.expand_as(horizon),
            i.expand(*horizon.shape, -1),
            horizon,
            Neuron(*(p.expand(*horizon.shape, *p.shape[1:]) for p in neuron)),
        )
        open_ = horizon > 0
        wait = torch.full_like(horizon, torch.inf)
        wait[open_] = _climb(v[open_], i[open_], horizon[open_], Neuron(*(p[open_] for p in neuron)))
        return wait


def _climb(v: Tensor, i: Tensor, horizon: Tensor, neuron: Neuron) -> Tensor:
    """The same for ``(M,)`` neurons: from bound to bound, so that no crossing is passed, however narrow.

    The voltage relaxes towards the sum of the currents. Over the next ``look`` seconds this sum is at most S: the positive
    currents as they are now, the negative ones as they will be then. So the voltage stays below one that relaxes towards S, whose
    crossing is known in closed form; to go there, or to the end of the look, is safe. Of looks of many lengths the best step
    counts. Close to the crossing the bound is as steep as the voltage: the steps converge quadratically, and from below.
    """
    wait, at = torch.full_like(v, torch.inf), torch.zeros_like(v)
    todo = torch.arange(v.numel(), device=v.device)
    shorter = 0.5 ** torch.arange(_LOOKS, dtype=v.dtype, device=v.device)
    while todo.numel():
        own = neuron.at(todo)
        here, currents = flow(v[todo], i[todo], at[todo], own)
        u, gap, total = here - own.bias, own.threshold - own.bias, currents.sum(-1)
        close = _CLOSE * torch.finfo(v.dtype).eps * (gap.abs() + u.abs() + currents.abs().sum(-1))
        left = horizon[todo] - at[todo]
        look = left[:, None] * shorter
        decayed = currents[:, None] * torch.exp(-look[..., None] / own.tau_syn[:, None])
        most = torch.where(currents[:, None] > 0, currents[:, None], decayed).sum(-1)
        top = torch.maximum(gap, u)[:, None]
        reaches = most > top
        ratio = (top - u[:, None]) / torch.where(reaches, most - u[:, None], torch.ones_like(most))
        crosses = torch.where(reaches, -torch.log1p(-ratio) * own.tau_mem[:, None], torch.full_like(most, torch.inf))
        step = torch.minimum(crosses, look).amax(1)
        ends = crosses[:, 0] >= left
        hit = ~ends & (((gap - u <= close) & (total >= u)) | (at[todo] + step == at[todo]))
        wait[todo[hit]] = at[todo[hit]]
        at[todo] = at[todo] + step
        todo = todo[~(hit | ends)]
    return wait


def polish(s: Tensor, v: Tensor, i: Tensor, neuron: Neuron) -> Tensor:
    """Newton steps at a crossing: they make ``s`` differentiable (two steps: to second order) in everything it depends on."""
    for _ in range(2):
        at, currents = flow(v, i, s, neuron)
        s = s - (at - neuron.threshold) / slope(at, currents, neuron)
    return s


def floored(s: Tensor, now: Tensor, v: Tensor, i: Tensor, neuron: Neuron, floor: float) -> Tensor:
    """The wait ``s`` from ``now`` to a crossing, its gradient that of a slope not below ``floor``: ``dt = -dV / max(V', floor)``.

    dV is that of the voltage above the threshold at one time, whatever moves ``now``; a steeper crossing keeps its gradient.
    """
    wait = s.detach() - (now - now.detach())
    at, currents = flow(v, i, wait, neuron)
    steep = slope(at, currents, neuron).detach()
    above = at - neuron.threshold
    return torch.where(steep < floor, wait - (above - above.detach()) / floor, s)
