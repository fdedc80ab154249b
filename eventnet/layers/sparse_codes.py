"""Sparse binary codes: how often a segment recognises what it should not, and misses what it should recognise.

A code is a set of a of n units that are active. A segment has synapses onto s of the units that were active in the pattern
it stores; it recognises a code in which at least theta of them are active. All follows from one distribution: two random
sets, of s and of a out of n units, share b of them with probability

    p(b; n, s, a) = C(s, b) C(n - s, a - b) / C(n, a),     T(n, s, a, theta) = sum over b >= theta of p(b)

    false match:     T(n, s, a, theta)                   a random code is recognised
    false negative:  T(a, s, v, s - theta + 1)           a stored code that lost v of its a units is missed
    union:           T(n, round(s_M), a, theta),   s_M = n (1 - (1 - s/n)^M)     a segment that stores M patterns

log p is a sum over the table of b: its cells x = b, s - b, a - b, n - s - a + b, of expected sizes e = sa/n, s(n-a)/n, ...,

    log p = sum of x log(e / x) + h(s) + h(n - s) + h(a) + h(n - a) - h(n) - sum of h(x),   h(x) = log x! - x log x + x

where h is small (below 10 at n = 10^6), so no digits are lost to factorials of millions. The tail is summed on its short side,
away from the mean, from the ratios of neighbouring terms. Float64; arguments are whole numbers or tensors that broadcast.

Ahmad and Hawkins, How do neurons operate on sparse distributed representations? arXiv:1601.00720, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "capacity",
    "classification_error",
    "false_match",
    "false_negative",
    "optimal_threshold",
    "union_size",
]

Whole = int | Sequence[int] | Tensor
LARGEST = 10**7  # units: the product of two sizes is then an exact integer in float64
SERIES = 16  # h(x) from here on by its series, which is then exact to the last digit
SMALL = [0.0] + [math.log(math.factorial(x)) - x * math.log(x) + x for x in range(1, SERIES)]


def false_match(
    num_units: Whole, active: Whole, synapses: Whole, threshold: Whole, *, patterns: Whole = 1, log: bool = False
) -> Tensor:
    """Probability that a segment recognises a random code.

        T(n, round(s_M), a, theta),   s_M = n (1 - (1 - s/n)^M)

    With several patterns the segment's synapses are their union. Its size is random, and the rounded mean is put in for it.
    Rounding makes what comes out up to about ``theta / (2 s_M)`` of itself too large or too small (8 % at theta = 10 and
    s_M = 60). Leaving out the spread makes it too small, the more the larger theta: with 4 patterns of s = a = 30 of 300 units,
    s_M = 103, both make 1 % at theta = 12, 29 % at theta = 25 and 45 % at theta = 30.

    Args:
        num_units: n, units in all, up to 10^7.
        active: a, active units of the code.
        synapses: s, synapses of the segment for each pattern that it stores.
        threshold: theta, active synapses that make it recognise, 1 to s.
        patterns: M, how many random patterns the segment stores.
        log: return the natural logarithm (a probability below 1e-308 is 0 in float64).

    Returns:
        float64, of the shape that the arguments broadcast to.

    Raises:
        ValueError, TypeError: arguments that are not whole numbers in their ranges; the message names the first bad one.

    Example:
        >>> [f"{p:.3e}" for p in false_match(10_000, 200, 25, 15, patterns=[1, 10])]
        ['5.304e-20', '1.271e-04']
    """
    n, a, s, theta, M = _numbers(
        num_units=num_units, active=active, synapses=synapses, threshold=threshold, patterns=patterns
    )
    _check_code(n, a)
    _check_segment(s, theta, n, "num_units")
    _require(M >= 1, M, "patterns", "at least 1")
    return _scaled(_log_union_match(n, a, s, theta, M), log)


def false_negative(active: Whole, synapses: Whole, threshold: Whole, lost: Whole, *, log: bool = False) -> Tensor:
    """Probability that a segment misses its pattern after some of the pattern's active units fell silent.

        T(a, s, v, s - theta + 1): more than s - theta of the s synapses are onto units that were lost

    It does not matter whether other units became active instead: they're not of the pattern, so no synapse is onto them. A
    segment that stores more patterns misses no more often.

    Args:
        active: a, active units of the pattern.
        synapses: s, synapses onto them, up to a.
        threshold: theta, active synapses that make the segment recognise, 1 to s.
        lost: v, active units that fell silent, 0 to a.
        log: return the natural logarithm.

    Returns:
        float64, of the shape that the arguments broadcast to.

    Raises:
        ValueError, TypeError: arguments that are not whole numbers in their ranges.

    Example:
        >>> f"{false_negative(128, 30, 8, lost=26):.3e}"
        '3.142e-16'
    """
    a, s, theta, v = _numbers(active=active, synapses=synapses, threshold=threshold, lost=lost)
    _require((a >= 1) & (a <= LARGEST), a, "active", f"1 to {LARGEST}")
    _check_segment(s, theta, a, "active")
    _require(v <= a, v, "lost", "0 to active")
    return _scaled(_log_tail(a, s, v, s - theta + 1), log)


def union_size(num_units: Whole, synapses: Whole, patterns: Whole) -> Tensor:
    """Mean number of different units among those of M random sets of s units each: ``n (1 - (1 - s/n)^M)``.

    Args:
        num_units: n, units in all, up to 10^7.
        synapses: s, units of each set, up to n.
        patterns: M, number of sets, 0 or more.

    Returns:
        float64, of the shape that the arguments broadcast to; not rounded.

    Raises:
        ValueError, TypeError: arguments that are not whole numbers in their ranges.

    Example:
        >>> f"{union_size(10_000, 25, 10):.2f}"
        '247.21'
    """
    n, s, M = _numbers(num_units=num_units, synapses=synapses, patterns=patterns)
    _require((n >= 1) & (n <= LARGEST), n, "num_units", f"1 to {LARGEST}")
    _require(s <= n, s, "synapses", "0 to num_units")
    return _union_size(n, s, M)


def classification_error(
    num_units: Whole,
    active: Whole,
    synapses: Whole,
    threshold: Whole,
    *,
    classes: Whole,
    lost: Whole = 0,
    segments: Whole = 1,
    patterns: Whole = 1,
    log: bool = False,
) -> Tensor:
    """Upper bound of the probability that a noisy stored code is not recognised as its class and as nothing else.

        min(1, false negative + (classes - 1) segments * false match)

    The sum bounds the probability of a union of events, so the segments need not be independent of each other; the stored
    codes must be random.

    Args:
        num_units, active, synapses, threshold, patterns: as in ``false_match``; synapses up to active.
        classes: number of classes, 1 or more.
        lost: active units of the code that fell silent, each replaced by another unit or by none.
        segments: number of segments of each class.
        log: return the natural logarithm.

    Returns:
        float64, of the shape that the arguments broadcast to.

    Raises:
        ValueError, TypeError: arguments that are not whole numbers in their ranges.

    Example:
        >>> f"{classification_error(10_000, 200, 25, 12, classes=1000, lost=60):.2e}"
        '3.45e-03'
    """
    others, each = _numbers(classes=classes, segments=segments)
    _require(others >= 1, others, "classes", "at least 1")
    _require(each >= 1, each, "segments", "at least 1")
    match = false_match(num_units, active, synapses, threshold, patterns=patterns, log=True)
    missed = false_negative(active, synapses, threshold, lost, log=True)
    bound = torch.logaddexp(missed, match + torch.log((others - 1) * each))
    return _scaled(bound.clamp(max=0.0), log)


def capacity(num_units: Whole, active: Whole, synapses: Whole, threshold: Whole, *, false_match: float) -> Tensor:
    """How many random patterns a segment can store: the most with which it recognises a random code rarely enough.

    The largest M with ``T(n, round(s_M), a, theta) <= false_match``; 0 where one pattern is too many.

    Args:
        num_units, active, synapses, threshold: as in ``false_match``; threshold up to active too (or any number fits).
        false_match: the probability to keep to, between 0 and 1 (both excluded).

    Returns:
        int64, of the shape that the arguments broadcast to.

    Raises:
        ValueError, TypeError: arguments that are not whole numbers in their ranges, a probability out of its range.

    Example:
        >>> capacity(10_000, 200, 25, [10, 15, 20], false_match=1e-6).tolist()
        [2, 6, 11]
    """
    n, a, s, theta = _numbers(num_units=num_units, active=active, synapses=synapses, threshold=threshold)
    _check_code(n, a)
    _check_segment(s, theta, n, "num_units")
    _require(theta <= a, theta, "threshold", "1 to active")
    bound = _log_tolerance("false_match", false_match)
    # with so many patterns the mean union is within half a unit of all units, and every code is recognised
    full = torch.where(s < n, torch.ceil(torch.log(2 * n + 1) / -torch.log1p(-s / n)), torch.ones_like(n)) + 1
    too_many = _first(lambda M: _log_union_match(n, a, s, theta, M) > bound, torch.ones_like(n), full)
    return (too_many - 1).to(torch.int64)


def optimal_threshold(
    num_units: Whole,
    active: Whole,
    synapses: Whole,
    *,
    lost: Whole,
    false_match: float,
    false_negative: float,
    patterns: Whole = 1,
) -> Tensor:
    """The threshold that keeps both errors furthest below what is tolerated.

    ``argmin over theta of max(log(false match / tolerated), log(false negative / tolerated))``: with the threshold the one
    falls and the other grows, so the best is where they meet.

    Args:
        num_units, active, synapses, patterns: as in ``false_match``; synapses up to active.
        lost: active units of a stored pattern that fall silent, at most.
        false_match, false_negative: tolerated probabilities, between 0 and 1 (both excluded).

    Returns:
        int64, of the shape that the arguments broadcast to.

    Raises:
        ValueError: no threshold keeps to both; the message has the best one and what it gives. And arguments out of their ranges.

    Example:
        >>> optimal_threshold(10_000, 200, [20, 40], lost=60, false_match=1e-6, false_negative=1e-2).tolist()
        [8, 13]
    """
    n, a, s, v, M = _numbers(num_units=num_units, active=active, synapses=synapses, lost=lost, patterns=patterns)
    _check_code(n, a)
    one = torch.ones_like(n)
    _check_segment(s, one, a, "active")
    _require(v <= a, v, "lost", "0 to active")
    _require(M >= 1, M, "patterns", "at least 1")
    tolerated = _log_tolerance("false_match", false_match), _log_tolerance("false_negative", false_negative)

    def excess(theta: Tensor) -> tuple[Tensor, Tensor]:
        matched, missed = _log_union_match(n, a, s, theta, M), _log_tail(a, s, v, s - theta + 1)
        return matched - tolerated[0], missed - tolerated[1]

    def crossed(theta: Tensor) -> Tensor:
        matched, missed = excess(theta)
        return missed >= matched

    above = _first(crossed, one, s)
    below = (above - 1).clamp(min=1)
    worst = [torch.maximum(*excess(theta)) for theta in (below, above)]
    best = torch.where(worst[0] <= worst[1], below, above)
    bad = torch.minimum(*worst) > 0
    if bool(bad.any()):
        matched, missed = (torch.exp(x + t)[bad][0].item() for x, t in zip(excess(best), tolerated, strict=True))
        raise ValueError(
            f"no threshold keeps to both tolerances (false_match={false_match:g}, false_negative={false_negative:g}) with "
            f"synapses={int(s[bad][0])}: the best, {int(best[bad][0])}, gives {matched:.3g} and {missed:.3g}; "
            "use more synapses, or tolerate more"
        )
    return best.to(torch.int64)


# ---- the distribution, on float64 tensors of one shape --------------------------------------------------------------


def _union_size(n: Tensor, s: Tensor, M: Tensor) -> Tensor:
    return torch.where(M > 0, -n * torch.expm1(M * torch.log1p(-s / n)), 0.0)  # no pattern: 0 log(0) if s = n


def _log_union_match(n: Tensor, a: Tensor, s: Tensor, theta: Tensor, M: Tensor) -> Tensor:
    return _log_tail(n, _union_size(n, s, M).round(), a, theta)


def _log_tail(n: Tensor, s: Tensor, a: Tensor, least: Tensor) -> Tensor:
    """log T(n, s, a, least): sets of s and of a out of n units share ``least`` or more."""
    above = least * n > s * a  # the mean: from there on the terms fall
    # from below it: 1 - P(a - least + 1 or more of the a are not among the s), which is above the mean of those
    marked, first = torch.where(above, s, n - s), torch.where(above, least, a - least + 1)
    log_p = _log_term(n, marked, a, first) + torch.log(_sum_of_ratios(n, marked, a, first))
    return torch.where(above, log_p, torch.log1p(-torch.exp(log_p)).nan_to_num(nan=-torch.inf))


def _log_term(n: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log p(b; n, s, a); -inf where b is more than s or a."""
    possible = b <= torch.minimum(s, a)
    b = torch.minimum(b, torch.minimum(s, a))
    total = _remainder(s) + _remainder(n - s) + _remainder(a) + _remainder(n - a) - _remainder(n)
    excess = (b * n - s * a) / n  # exact but for the division
    cells = (b, s * a, -excess), (s - b, s * (n - a), excess), (a - b, (n - s) * a, excess)
    for x, expected, more in (*cells, (n - s - a + b, (n - s) * (n - a), -excess)):
        size = x.clamp(min=1.0)
        near = more.abs() < size / 2  # there log1p keeps the digits that the ratio has lost
        ratio = torch.where(near, torch.log1p(torch.where(near, more / size, 0.0)), torch.log(expected / n / size))
        total = total + torch.where(x > 0, x * ratio, 0.0) - _remainder(x)
    return torch.where(possible, total, -torch.inf)


def _sum_of_ratios(n: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``(p(b) + p(b + 1) + ...) / p(b)`` for b above the mean."""
    term = total = torch.ones_like(n)
    while bool((term > 1e-17 * total).any()):
        term = term * ((s - b).clamp(min=0) / (b + 1)) * ((a - b).clamp(min=0) / (n - s - a + b + 1))
        total, b = total + term, b + 1
    return total


def _remainder(x: Tensor) -> Tensor:
    """``h(x) = log x! - x log x + x``: Stirling's series, below 16 from the factorials."""
    small = torch.tensor(SMALL, dtype=x.dtype, device=x.device)[x.clamp(0, SERIES - 1).long()]
    y = x.clamp(min=SERIES)
    z = 1 / (y * y)
    series = (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z / 1188)))) / y
    return torch.where(x < SERIES, small, 0.5 * torch.log(2 * math.pi * y) + series)


def _first(true: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The smallest whole number from ``low`` to ``high`` from which on ``true`` holds; ``high`` where it never does."""
    while bool((low < high).any()):
        middle = ((low + high) / 2).floor()
        found = true(middle)
        low, high = torch.where(found, low, torch.minimum(middle + 1, high)), torch.where(found, middle, high)
    return high


# ---- arguments ------------------------------------------------------------------------------------------------------


def _numbers(**arguments: Whole) -> tuple[Tensor, ...]:
    """The arguments as float64 tensors of one shape, checked to be whole numbers, 0 or more."""
    found = []
    for name, value in arguments.items():
        number = torch.as_tensor(value)
        if number.is_complex() or number.dtype == torch.bool:
            raise TypeError(f"{name}: expected whole numbers, got {number.dtype}")
        number = number.to(torch.float64)
        _require(number.isfinite() & (number == number.round()) & (number >= 0), number, name, "whole numbers >= 0")
        found.append(number)
    return torch.broadcast_tensors(*found)


def _check_code(n: Tensor, a: Tensor) -> None:
    _require((n >= 1) & (n <= LARGEST), n, "num_units", f"1 to {LARGEST}")
    _require(a <= n, a, "active", "0 to num_units")


def _check_segment(s: Tensor, theta: Tensor, most: Tensor, of: str) -> None:
    _require((s >= 1) & (s <= most), s, "synapses", f"1 to {of}")
    _require((theta >= 1) & (theta <= s), theta, "threshold", "1 to synapses (more is never reached)")


def _require(good: Tensor, value: Tensor, name: str, expected: str) -> None:
    if not bool(good.all()):
        raise ValueError(f"{name}: expected {expected}, got {value.expand(good.shape)[~good][0].item():.10g}")


def _log_tolerance(name: str, probability: float) -> float:
    if not 0 < probability < 1:
        raise ValueError(f"{name}: expected a probability between 0 and 1, both excluded, got {probability}")
    return math.log(probability)


def _scaled(log_p: Tensor, log: bool) -> Tensor:
    return log_p if log else torch.exp(log_p)
