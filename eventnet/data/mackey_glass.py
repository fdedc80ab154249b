"""The Mackey-Glass series, generated: a chaotic signal whose next points are to be forecast, as in NeuroBench.

    x'(t) = beta x(t - tau) / (1 + x(t - tau)^n) - gamma x(t),    x(t) = x_0 for t <= 0

with beta = 0.2, gamma = 0.1, n = 10. NeuroBench has a series for each tau from 17 to 30, with a past x_0 and a Lyapunov time of
its own, in which 75 points are taken; ten Lyapunov times are for training, the ten after them for the test.

NeuroBench distributes its series as files and asks that they be used, because a chaotic series depends on the last bits of its
integrator. These are not those files: the equation, its parameters, the spacing and the offsets are NeuroBench's, the numbers are
those of our integrator.

Sources: Mackey & Glass, "Oscillation and chaos in physiological control systems" (Science 1977); Yik et al., "The NeuroBench
framework for benchmarking neuromorphic computing algorithms and systems" (2025); ``MackeyGlass`` of its package, version 2.3.0;
the table of its data set, huggingface.co/datasets/NeuroBench/mackey_glass.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from eventnet.data.dataset import EventDataset, Splits, graded, lagged

__all__ = ["POINTS", "STEP", "load", "series", "solve"]

STEP = 1e-3  # seconds that a point lasts for a network
BETA, GAMMA, EXPONENT = 0.2, 0.1, 10
LONGEST = 1000.0  # delay: within one, numbers grow by e^(GAMMA tau)
# tau: Lyapunov time, past
SERIES = {
    17: (197, 0.7206597),
    18: (138, 0.774431),
    19: (315, 0.778347),
    20: (131, 0.922599),
    21: (191, 0.947943),
    22: (119, 0.545596),
    23: (106, 0.862225),
    24: (97, 0.325966),
    25: (98, 0.829783),
    26: (104, 1.003349),
    27: (112, 0.649141),
    28: (119, 1.09575),
    29: (131, 0.925618),
    30: (139, 0.271364),
}
POINTS = 75  # in a Lyapunov time
TRAINING, TEST = 10, 10  # Lyapunov times


def solve(times: np.ndarray, tau: float = 17.0, past: float = SERIES[17][1], *, resolution: int = 1000) -> np.ndarray:
    """The solution at ``times >= 0``, of the same shape, by the method of steps.

    Over an interval of length tau all that comes from the past is known, ``g(t) = beta x(t - tau) / (1 + x(t - tau)^n)``. What
    is left is linear, and a step of length h = tau / resolution is

        x(t + h) = e^(-gamma h) x(t) + h / 6 (e^(-gamma h) g(t) + 4 e^(-gamma h / 2) g(t + h / 2) + g(t + h))

    Simpson's rule, with cubic Hermite interpolation between the steps: an error of order h^4.

    Args:
        times: in the equation's units of time.
        tau: the delay, > 0, at most 1000.
        past: the value until time 0.
        resolution: steps per delay.

    Raises:
        ValueError: a time is negative or not finite, tau or resolution is not positive, or tau is too long.

    Example:
        >>> solve(np.array([0.0, 17.0, 100.0])).round(4).tolist()
        [0.7207, 1.2668, 0.6084]
    """
    times = np.asarray(times, np.float64)
    if not (0 < tau <= LONGEST) or not isinstance(resolution, int) or resolution < 1:
        raise ValueError(
            f"mackey_glass: expected a delay tau > 0, at most {LONGEST:g}, and a whole number of steps >= 1, got {tau!r}, "
            f"{resolution!r}"
        )
    if times.size and not (np.isfinite(times).all() and times.min() >= 0):
        raise ValueError("mackey_glass: expected finite times >= 0")
    h = tau / resolution
    intervals = int(times.max() // tau) + 1 if times.size else 0
    value = np.full((intervals + 1, resolution + 1), float(past))  # row 0: the past, from -tau to 0
    slope = np.zeros_like(value)
    whole, half = math.exp(-GAMMA * h), math.exp(-GAMMA * h / 2)
    fading = whole ** np.arange(resolution + 1)
    for k in range(1, intervals + 1):
        known = value[k - 1]
        middle = (known[:-1] + known[1:]) / 2 + h / 8 * (slope[k - 1, :-1] - slope[k - 1, 1:])
        g = production(known)
        gained = h / 6 * (whole * g[:-1] + 4 * half * production(middle) + g[1:])
        value[k, 0] = known[-1]
        value[k, 1:] = fading[1:] * (known[-1] + np.cumsum(gained / fading[1:]))
        slope[k] = g - GAMMA * value[k]
    where = times / tau
    row = np.minimum(where.astype(np.int64), max(intervals - 1, 0))
    place = (where - row) * resolution
    left = np.minimum(place.astype(np.int64), resolution - 1)
    s = place - left
    at = row + 1, left
    to = row + 1, left + 1
    found: np.ndarray = (
        (1 + 2 * s) * (1 - s) ** 2 * value[at]
        + s * s * (3 - 2 * s) * value[to]
        + h * s * (1 - s) * ((1 - s) * slope[at] - s * slope[to])
    )
    return found


def production(x: np.ndarray) -> np.ndarray:
    """``beta x / (1 + x^n)``."""
    grown: np.ndarray = BETA * x / (1 + x**EXPONENT)
    return grown


def series(points: int, tau: int = 17, offset: float = 0.0) -> np.ndarray:
    """``points`` points of one of NeuroBench's series, 75 in each Lyapunov time; the first is ``offset`` points after t = tau.

    NeuroBench's generator begins where the delayed past ends, as this does.

    Raises:
        ValueError: there is no series with this tau.

    Example:
        >>> series(1501, offset=37.5).shape
        (1501,)
    """
    if tau not in SERIES:
        raise ValueError(f"mackey_glass: expected tau from {min(SERIES)} to {max(SERIES)}, a whole number, got {tau!r}")
    lyapunov_time, past = SERIES[tau]
    return solve(tau + (offset + np.arange(points)) * (lyapunov_time / POINTS), tau, past)


def load(
    root: object = None,
    *,
    seed: int = 0,
    validation_fraction: float = 0.2,
    tau: int = 17,
    offset: float = 0.0,
    window: int = 1,
    length: int = 150,
    stride: int = 10,
    warm_up: int = 50,
) -> Splits:
    """1,501 points: forecast one point ahead in training and validation, freely for ten Lyapunov times in the test.

    Labels are floats ``(K, 1)``, for each step the next point; NaN where a step is for warming up only. Training samples are
    pieces of the first points, overlapping. The one sample of the validation part ends with the last points of the ten Lyapunov
    times of training, the one of the test part is the whole series, its first 750 labels NaN. What is scored freely is what
    follows a sample's last NaN.

    Args:
        root, seed: accepted as by the other sets; nothing is read or drawn.
        validation_fraction: of the 750 points of training, its last ones.
        tau: the delay of the series, from 17 to 30.
        offset: of the first point, in Lyapunov times; NeuroBench's repeats have 0, 0.5, 1, ... 14.5.
        window: points that a step has, unit k for the point k steps ago; those before the series are absent.
        length, stride: points of a training piece, and from one to the next.
        warm_up: points of a piece, and before the validation part, that the network is given but not judged by.

    Raises:
        ValueError: an option is out of range, or no training piece fits.

    Example:
        >>> splits = load()
        >>> splits.num_units, splits.num_classes, splits.test.labels.shape
        (1, 1, torch.Size([1, 1500, 1]))
    """
    del root, seed
    training, end = TRAINING * POINTS, (TRAINING + TEST) * POINTS
    for name, count, least in (
        ("window", window, 1),
        ("length", length, 1),
        ("stride", stride, 1),
        ("warm_up", warm_up, 0),
    ):
        if not isinstance(count, int) or count < least:
            raise ValueError(f"mackey_glass: {name} must be a whole number of points >= {least}, got {count!r}")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"mackey_glass: validation_fraction must be a share in (0, 1), got {validation_fraction!r}")
    if not 0 <= offset < math.inf:
        raise ValueError(f"mackey_glass: offset must be a number of Lyapunov times >= 0, got {offset!r}")
    middle = training - round(validation_fraction * training)
    if not warm_up < length <= middle or middle == training:
        raise ValueError(
            f"mackey_glass: expected pieces longer than the {warm_up} points of their warm-up and not longer than the {middle} "
            f"training points, got length {length}"
        )
    # NeuroBench cuts an offset in points to a whole number
    points = torch.from_numpy(series(end + 1, tau, int(offset * POINTS))).to(torch.float32)
    starts = range(0, middle - length + 1, stride)
    parts = {
        "train": forecasts(points, window, [(k, k + length, k + warm_up) for k in starts]),
        "validation": forecasts(points, window, [(max(middle - warm_up, 0), training, middle)]),
        "test": forecasts(points, window, [(0, end, training)]),
    }
    return Splits(
        **parts,
        name="mackey_glass",
        num_units=window,
        num_classes=1,
        sensor_size=None,
        step=STEP,
        note=(
            f"Mackey-Glass, tau {tau}, offset {offset:g} Lyapunov times, generated: {len(starts)} pieces of {length} of the "
            f"first {middle} points, {training - middle} for validation, {end - training} test points forecast freely"
        ),
    )


def forecasts(points: torch.Tensor, window: int, pieces: list[tuple[int, int, int]]) -> EventDataset:
    """Pieces ``(first, end, judged)`` of a series, equally long, with the next point as label of each step from ``judged`` on."""
    windows = lagged(points[:, None], window)
    inputs = torch.stack([windows[first:end] for first, end, _ in pieces], 1)
    labels = torch.stack([points[first + 1 : end + 1] for first, end, _ in pieces])
    for label, (first, _, judged) in zip(labels, pieces, strict=True):
        label[: judged - first] = math.nan
    return EventDataset(graded(inputs, STEP), labels[:, :, None])
