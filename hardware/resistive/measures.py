"""What a reservoir can remember and tell apart, measured on its states; none of these trains it.

- Memory: of its random input, how much a linear readout recalls k steps later (Jaeger, "Short term memory in echo state
  networks", GMD report 152, 2001).
- Kernel rank and generalisation rank: the dimensions that different inputs span, which the readout can use, and those that
  versions of one input span, which it has to bear (Legenstein & Maass, "Edge of chaos and prediction of computational performance
  for neural circuit models", Neural Networks 2007).
- Separation: the distance between states of different classes against that within a class (Norton & Ventura, "Improving liquid
  state machines through iterative refinement of the reservoir", Neurocomputing 2010).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eventnet import Events
from eventnet.hardware.resistive.ridge import RidgeReadout

__all__ = ["Separation", "jittered", "memory_capacity", "memory_curve", "rank", "separation"]

SIGNIFICANT = 4.0  # standard errors of a correlation, below which it counts as none


def memory_curve(states: Tensor, inputs: Tensor, delays: int, *, washout: int = 100, penalty: float = 1e-8) -> Tensor:
    """``(delays,)`` squared correlations of the input k = 1, 2, ... steps ago with what a linear readout makes of the states.

        MC_k = cov^2(u(t - k), y_k(t)) / (var(u) var(y_k)),    y_k(t) = w_k . x(t) + b_k

    w_k is fitted to the first half of the steps, the correlation is that on the second half. One that is not positive by four
    standard errors, 4 / sqrt(steps), counts as 0: otherwise chance would add up over the delays.

    Args:
        states: ``(T, N)``, x(t) after the input u(t) has arrived.
        inputs: ``(T,)``, independent and identically distributed, one number per step.
        delays: how many.
        washout: first steps that are left out, while the initial state fades; at least the delays are.
        penalty: of the ridge regression, times the number of steps it is fitted to, for standardised states.

    Raises:
        ValueError: shapes do not fit, or too few steps.

    Example:
        >>> inputs = torch.rand(600, generator=torch.manual_seed(0))
        >>> line = torch.stack([inputs.roll(k) for k in range(1, 4)], 1)  # remembers three steps
        >>> memory_curve(line, inputs, 5).round(decimals=3).tolist()
        [1.0, 1.0, 1.0, 0.0, 0.0]
    """
    if states.dim() != 2 or inputs.shape != states.shape[:1]:
        raise ValueError(
            f"memory_curve: expected states (T, N) and inputs (T,), got {tuple(states.shape)}, {tuple(inputs.shape)}"
        )
    first = max(washout, delays)
    half = (len(states) - first) // 2
    if delays < 1 or half < 2 or half <= states.shape[1]:
        raise ValueError(
            f"memory_curve: {len(states)} steps are too few for {delays} delays, a washout of {washout} and {states.shape[1]} "
            "states: both halves of the rest need more steps than there are states"
        )
    signal = inputs.detach().double()
    past = torch.stack([signal[first - k : len(signal) - k] for k in range(1, delays + 1)], 1)
    states = states[first:]
    readout = RidgeReadout(penalty * half, standardize=True).fit(states[:half], past[:half])
    said, past = readout.scores(states[half:]), past[half:]
    said, past = said - said.mean(0), past - past.mean(0)
    correlation = (said * past).sum(0) / (said.norm(dim=0) * past.norm(dim=0)).clamp(min=1e-300)
    return torch.where(correlation > SIGNIFICANT / math.sqrt(len(past)), correlation**2, 0.0)


def memory_capacity(states: Tensor, inputs: Tensor, delays: int, *, washout: int = 100, penalty: float = 1e-8) -> float:
    """``sum_k MC_k`` of the ``memory_curve``: about how many past inputs the states hold, at most their number N.

    Example:
        >>> inputs = torch.rand(600, generator=torch.manual_seed(0))
        >>> memory_capacity(torch.tanh(inputs)[:, None], inputs, 10)  # nothing of the past
        0.0
    """
    return float(memory_curve(states, inputs, delays, washout=washout, penalty=penalty).sum())


def rank(states: Tensor, *, tolerance: float | None = None) -> int:
    """The rank of states ``(M, N)``, one row per input: how many singular values are above ``tolerance`` times the largest.

    Of M different inputs it is the **kernel rank** (kernel quality): M means that a linear readout can give them any M numbers.
    Of M versions of one input (``jittered``) it is the **generalisation rank**: small means that it does not tell them apart. The
    difference is what predicts performance.

    Args:
        tolerance: relative; rounding, ``max(M, N) eps``, if not given. Noise needs a larger one, such as 0.01.

    Example:
        >>> rank(torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
        1
    """
    if states.dim() != 2 or not bool(torch.isfinite(states).all()):
        raise ValueError(f"rank: expected finite states (M, N), got {tuple(states.shape)}")
    if not states.numel():
        return 0
    sizes = torch.linalg.svdvals(states.detach().double())
    eps = torch.finfo(states.dtype).eps if states.is_floating_point() else torch.finfo(torch.float64).eps
    share = max(states.shape) * eps if tolerance is None else tolerance
    return int((sizes > share * sizes[0]).sum())


def jittered(events: Events, std: float, seed: int, *, copies: int = 1) -> Events:
    """``copies`` of each sample with every time moved by N(0, std) seconds, kept within the duration; copy after copy.

    Example:
        >>> events = Events.from_list([([0.01, 0.02], [0, 1])], num_units=2, duration=0.05)
        >>> jittered(events, 1e-3, seed=0, copies=4).batch_size
        4
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"jittered: expected a standard deviation >= 0 seconds, got {std}")
    if copies < 1:
        raise ValueError(f"jittered: expected at least one copy, got {copies}")
    generator = torch.Generator().manual_seed(seed)
    many = Events.cat([events] * copies)
    moved = many.times + (std * torch.randn(many.num_events, generator=generator)).to(many.times)
    last = torch.nextafter(many.duration, torch.zeros_like(many.duration))[many.samples]
    return many.retime(torch.minimum(moved.clamp(min=0), torch.maximum(last, many.times)))


class Separation(NamedTuple):
    """Mean distances of states ``between`` classes and ``within`` one, and ``ratio = between / (within + 1)``."""

    between: float
    within: float
    ratio: float


def separation(states: Tensor, labels: Tensor) -> Separation:
    """How far apart a reservoir puts the classes.

        between = sum_{l, m} |mu_l - mu_m| / n^2,    within = mean_m mean_{o of m} |o - mu_m|,    ratio = between / (within + 1)

    with mu_m the mean state of class m of n. The 1 makes the ratio depend on the states' scale: compare reservoirs with one scale
    of the features only.

    Args:
        states: ``(B, N)``; ``labels``: ``(B,)`` class numbers.

    Example:
        >>> separation(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
        Separation(between=5.0, within=1.0, ratio=2.5)
    """
    if states.dim() != 2 or labels.shape != states.shape[:1] or not len(labels):
        raise ValueError(
            f"separation: expected states (B, N) and labels (B,), got {tuple(states.shape)} and {tuple(labels.shape)}"
        )
    states = states.detach().double()
    if not bool(torch.isfinite(states).all()):
        raise ValueError("separation: the states are not finite")
    members = [states[labels == label] for label in labels.unique()]
    means = torch.stack([own.mean(0) for own in members])
    between = float((means[:, None] - means).norm(dim=2).mean())
    within = sum(float((own - mean).norm(dim=1).mean()) for own, mean in zip(members, means, strict=True)) / len(means)
    return Separation(between, within, between / (within + 1))
