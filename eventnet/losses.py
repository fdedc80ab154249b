"""Losses on spike times, and what keeps activity in a useful range. Voltage losses are ``torch.nn.functional``'s."""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet.events import Events


def first_spike_cross_entropy(
    first_times: Tensor,
    labels: Tensor,
    *,
    tau: float = 0.5e-3,
    late_weight: float = 0.003,
    late_tau: float = 6.4e-3,
) -> Tensor:
    """Cross-entropy in which the earliest output spike wins, averaged over the batch.

        l = -log softmax(-t / tau)[y] + late_weight (exp(t_y / late_tau) - 1)

    Silent outputs (``inf``) are left out of the softmax. A sample whose label neuron is silent counts as a guess,
    ``l = log N``, and contributes no gradient (there is no spike to move): see ``lift_silent_``.

    Args:
        first_times: ``(B, N)`` seconds, ``inf`` where silent, as from ``Events.first_times()``.
        labels: ``(B,)`` integers in ``[0, N)``.
        tau, late_tau: seconds; late_weight: size of the term that pulls the label's spike to early times.

    Source: Wunderlich & Pehle 2021 (equation of the Yin-Yang experiment); Göltz et al. 2021.

    Example:
        >>> times = torch.tensor([[0.010, 0.020], [0.010, float("inf")]], requires_grad=True)
        >>> loss = first_spike_cross_entropy(times, torch.tensor([0, 1]))
        >>> loss.backward()
        >>> times.grad[1].tolist()
        [0.0, 0.0]
    """
    if first_times.dim() != 2 or labels.shape != first_times.shape[:1]:
        raise ValueError(
            f"first_spike_cross_entropy: expected times (B, N) and labels (B,), got {tuple(first_times.shape)} "
            f"and {tuple(labels.shape)}"
        )
    fired = torch.isfinite(first_times)
    safe = torch.where(fired, first_times, torch.zeros_like(first_times))
    scores = torch.where(fired, -safe / tau, torch.full_like(safe, -torch.inf))
    chosen = labels[:, None]
    valid = fired.gather(1, chosen)[:, 0]
    # rows without a label spike get equal scores: a guess, and inf - inf never enters the graph
    scores = torch.where(valid[:, None], scores, torch.zeros_like(scores))
    log_likelihood = scores.log_softmax(1).gather(1, chosen)[:, 0]
    loss = -log_likelihood
    if late_weight:  # without it nothing may overflow in long trials
        loss = loss + late_weight * torch.expm1(safe.gather(1, chosen)[:, 0] / late_tau)
    return loss.sum() / max(labels.numel(), 1)


def predict_first_spike(first_times: Tensor) -> Tensor:
    """``(B,)`` index of the earliest unit; -1 where all are silent (always wrong)."""
    earliest, index = first_times.detach().min(1)
    return torch.where(torch.isfinite(earliest), index, torch.full_like(index, -1))


def spike_count_penalty(events: Events, target: float, *, tau: float = 20e-3) -> Tensor:
    """Squared distance of each neuron's mean spike count from ``target``: ``mean_n (mean_b count - target)^2``.

    A count has no gradient. Here a spike that comes ``tau`` later counts as one spike less, which pushes the spikes
    of neurons that fire too much to later times, and beyond the end: a surrogate, not an exact gradient.

    Args:
        events: output of a layer.
        target: spikes per neuron and sample.
        tau: seconds of delay that stand for one spike less.
    """
    if not events.batch_size:
        return _soft_counts(events, tau).sum()
    mean = _soft_counts(events, tau).mean(0)
    return ((mean - target) ** 2).mean()


def rate_penalty(events: Events, highest: float, *, tau: float = 20e-3) -> Tensor:
    """Squared excess of each neuron's mean rate over ``highest`` (spikes per second); gradient as in ``spike_count_penalty``."""
    seconds = events.duration.clamp(min=torch.finfo(events.dtype).tiny)[:, None]
    rate = (_soft_counts(events, tau) / seconds).sum(0) / max(events.batch_size, 1)
    return ((rate - highest).clamp(min=0) ** 2).mean()


def _soft_counts(events: Events, tau: float) -> Tensor:
    """``(B, N)`` counts whose derivative in a spike's time is ``-1/tau``."""
    one = 1 + (events.times.detach() - events.times) / tau
    total = events.times.new_zeros(events.batch_size * events.num_units).index_add(0, events._keys(), one)
    return total.reshape(events.batch_size, events.num_units)


@torch.no_grad()
def lift_silent_(weight: Tensor, events: Events, amount: float) -> int:
    """Add ``amount`` to all weights of neurons that are silent in the whole batch; returns how many there were.

    Exact gradients do not reach a neuron that never fires; this small push, once per step, brings it back. An
    empty batch says nothing about who is silent, and changes nothing.

    Args:
        weight: ``(in, out)``, or ``(in, branches, out)``, changed in place.
        events: what the layer put out, ``out`` units.
        amount: added to the weight; a percent of the typical weight is enough.
    """
    if weight.shape[-1] != events.num_units:
        raise ValueError(
            f"lift_silent_: weight is (in, out) = {tuple(weight.shape)} but the events have {events.num_units} units"
        )
    if not events.batch_size:
        return 0
    silent = torch.bincount(events.units, minlength=events.num_units) == 0
    weight += amount * silent.to(weight.dtype)
    return int(silent.sum())


def activity_penalty(fired: Tensor, target: float = 0.0) -> Tensor:
    """Squared distance of the share of units that fire from ``target``: ``(mean(fired) - target)^2``.

    Args:
        fired: of gated units, as ``EGRUSteps.fired``: 0 or 1 with a pseudo-derivative.
        target: events per unit and step.

    Source: Subramoney et al. 2023 (ICLR), the regulariser of EGRU's activity.

    Example:
        >>> round(activity_penalty(torch.tensor([1.0, 0.0, 0.0, 0.0]), target=0.05).item(), 3)
        0.04
    """
    return (fired.mean() - target) ** 2


def voltage_penalty(c: Tensor, rest: float = -0.9) -> Tensor:
    """Mean squared distance of what gated units keep from ``rest``: units that stay far below their threshold are silent.

    Args:
        c: of gated units, as ``EGRUSteps.c``.

    Source: Subramoney et al. 2023 (ICLR).

    Example:
        >>> voltage_penalty(torch.tensor([-0.9, 0.1])).item()
        0.5
    """
    return ((c - rest) ** 2).mean()
