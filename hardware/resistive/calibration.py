"""Calibration of reservoirs: a mean rate of spikes, or an activity of graded states, is reached by bisection of one factor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor

from eventnet import Events, metrics
from eventnet.hardware.resistive.echo_state import EchoState
from eventnet.hardware.resistive.reservoir import Reservoir

__all__ = ["bisected", "with_activity", "with_rate"]

DOUBLINGS, HALVINGS = 40, 50  # of a bisection: for the bracket, and within it


def with_rate(
    reservoir: Reservoir,
    events: Events,
    rate: float,
    *,
    by: Literal["threshold", "input"] = "threshold",
    tolerance: float = 0.05,
) -> Reservoir:
    """The reservoir whose neurons have this mean rate on calibration events, by bisection.

    Args:
        events: a batch of typical input, of the training part.
        rate: spikes per second and neuron, averaged over samples and neurons; in steps at most 1 / dt.
        by: what is changed: the threshold, or a factor on the input weights only, which leaves the recurrence as it is.
        tolerance: relative; a rate beyond it is an error.

    Raises:
        ValueError: the rate cannot be reached: too little input, neurons that most inputs inhibit, or recurrent weights that keep
            the spikes going by themselves, so that the rate jumps past the wanted one.

    Example:
        >>> events = Events.from_latency(torch.rand(8, 64, generator=torch.manual_seed(0)), 0.0, 0.02)
        >>> reservoir = with_rate(Reservoir.random(64, 200, seed=0, radius=1.0), events, rate=20.0)
        >>> abs(metrics.firing_rates(reservoir(events)).mean().item() - 20.0) <= 1.0
        True
    """
    if by not in ("threshold", "input"):
        raise ValueError(f"with_rate: by must be 'threshold' or 'input', got {by!r}")
    if not rate > 0 or (reservoir.tau_syn is None and rate >= 1 / reservoir.dt):
        raise ValueError(
            f"with_rate: expected a rate in (0, 1 / dt = {1 / reservoir.dt:g}) spikes per second, got {rate}"
        )

    def scaled(factor: float) -> Reservoir:
        if by == "threshold":
            return replace(reservoir, threshold=reservoir.threshold / factor)
        return replace(reservoir, weight=reservoir.weight * factor)

    def reached(factor: float) -> float:
        return metrics.firing_rates(scaled(factor)(events)).mean().item()

    factor, found = bisected(reached, rate, tolerance / 10)
    if not abs(found - rate) <= tolerance * rate:
        raise ValueError(
            f"with_rate: the nearest to {rate:g} spikes per second is {found:g}. Either the rate ends there: too few events, or "
            "neurons whose weights add up to less than 0 stay silent. Or it jumps there: recurrent weights keep the spikes "
            "going, and a smaller spectral radius, or by='input', has more rates"
        )
    return scaled(factor)


def with_activity(network: EchoState, inputs: Tensor, activity: float, *, tolerance: float = 0.02) -> EchoState:
    """The network whose states have this root mean square on calibration inputs, by bisection of the input gain.

    Args:
        inputs: ``(T, B, in)`` of the training part; of events ``events.to_dense(dt)``.
        activity: in (0, 1); small: nearly linear, with much memory; near 1: saturated. With a leak, states are averages: of noise
            they are at most about (leak / (2 - leak))^1/2.
        tolerance: relative; an activity beyond it is an error.

    Raises:
        ValueError: it cannot be reached: biases or recurrent weights keep the states going by themselves, or there is no input.

    Example:
        >>> inputs = torch.rand(50, 1, 1, generator=torch.manual_seed(0))
        >>> network = with_activity(EchoState.random(1, 40, seed=0), inputs, 0.2)
        >>> abs(network(inputs).square().mean().sqrt().item() - 0.2) < 0.004
        True
    """
    if not 0 < activity < 1:
        raise ValueError(f"with_activity: expected an activity in (0, 1), got {activity}")

    def reached(factor: float) -> float:
        return float(replace(network, gain=network.gain * factor)(inputs).double().square().mean().sqrt())

    factor, found = bisected(reached, activity, tolerance / 10)
    if not abs(found - activity) <= tolerance * activity:
        raise ValueError(
            f"with_activity: the nearest to {activity:g} is {found:g}; are there inputs, does the network without them come to "
            "rest (spectral radius below 1, small biases), and does the leak leave so much?"
        )
    return replace(network, gain=network.gain * factor)


def bisected(function: Callable[[float], float], wanted: float, tolerance: float) -> tuple[float, float]:
    """A factor > 0 at which a ``function`` that grows with it is nearest to ``wanted``, of those tried, and its value there.

    Doubles or halves from 1 until ``wanted`` is passed, then halves the interval of the factor's logarithm, until the value is
    within the relative tolerance.

    Example:
        >>> factor, value = bisected(lambda x: x * x, 9.0, 1e-6)
        >>> round(factor, 3), round(value, 3)
        (3.0, 9.0)
    """
    tried: list[tuple[float, float, float]] = []  # (distance, factor, value)

    def low(x: float) -> bool:
        value = function(math.exp(x))
        tried.append((abs(value - wanted), math.exp(x), value))
        return value < wanted

    def done() -> bool:
        return min(tried)[0] <= tolerance * abs(wanted)

    step = math.log(2)
    up = low(0.0)
    left = right = 0.0
    for _ in range(DOUBLINGS):
        if done():
            break
        left, right = (right, right + step) if up else (left - step, left)
        if low(right if up else left) != up:
            break
    else:
        return min(tried)[1:]
    for _ in range(HALVINGS):
        if done():
            break
        middle = (left + right) / 2
        left, right = (middle, right) if low(middle) else (left, middle)
    _, factor, value = min(tried)
    return factor, value
