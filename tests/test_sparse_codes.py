"""Statistics of sparse codes: published numbers, exact fractions, extended precision at a million units, sampling."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventnet.layers.segments import Codes, SegmentPool
from eventnet.layers.sparse_codes import (
    capacity,
    classification_error,
    false_match,
    false_negative,
    optimal_threshold,
    union_size,
)

pytestmark = pytest.mark.usefixtures("one_thread")

MATCHES = [  # n, a, s, theta
    ((200_000, 2000, 10, 10), 9.779363371e-21),
    ((200_000, 2000, 16, 8), 1.1821305579669338e-12),
    ((100_000, 2000, 20, 10), 1.541927673e-12),
    ((10_000, 300, 24, 12), 8.375845227e-13),
    ((300, 64, 24, 12), 1.09461662334e-3),
    ((500, 64, 24, 12), 5.69571108770e-6),
    ((700, 64, 24, 12), 1.41253230931e-7),
    ((300, 128, 24, 12), 0.292078213738),
    ((900, 128, 24, 12), 2.502555198153784e-5),
    ((1900, 128, 24, 12), 7.131437622620044e-9),
]
UNIONS = [(1, 5.3035241903e-20), (10, 1.27080441384e-4)]  # of M patterns; a=200, s=25, theta=15, n=10000
MISSES = [((128, 30, 8, 26), 3.1419333449968437e-16), ((128, 30, 16, 32), 5.900789122369233e-4)]  # a, s, theta, v


def exact_tail(n: int, s: int, a: int, least: int) -> Fraction:
    """The definition, in whole numbers."""
    shared = range(max(least, a + s - n, 0), min(s, a) + 1)
    return Fraction(sum(math.comb(s, b) * math.comb(n - s, a - b) for b in shared), math.comb(n, a))


def exact_log(p: Fraction) -> float:
    """Near 1 from the other side: 1 - 1e-9 as a float has lost what its logarithm is made of."""
    if p > Fraction(1, 2):
        return math.log1p(-float(1 - p))
    return math.log(p.numerator) - math.log(p.denominator) if p else -math.inf


def test_published_false_matches():
    for arguments, value in MATCHES:
        assert false_match(*arguments).item() == pytest.approx(value, rel=1e-9, abs=0)
    columns = list(zip(*(arguments for arguments, _ in MATCHES), strict=True))
    together = false_match(*columns)
    assert together.tolist() == pytest.approx([value for _, value in MATCHES], rel=1e-9, abs=0)


@pytest.mark.parametrize("arguments, _", MATCHES)
def test_false_match_is_the_fraction(arguments, _):
    n, a, s, theta = arguments
    assert false_match(n, a, s, theta).item() == pytest.approx(float(exact_tail(n, s, a, theta)), rel=1e-12, abs=0)


def test_published_unions():
    for patterns, value in UNIONS:
        assert false_match(10_000, 200, 25, 15, patterns=patterns).item() == pytest.approx(value, rel=1e-9, abs=0)


def test_published_false_negatives():
    for arguments, value in MISSES:
        a, s, theta, v = arguments
        found = false_negative(*arguments).item()
        assert found == pytest.approx(value, rel=1e-9, abs=0)
        assert found == pytest.approx(float(exact_tail(a, s, v, s - theta + 1)), rel=1e-12, abs=0)


codes = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)).flatmap(
        lambda x: st.tuples(st.just(x[0]), st.just(x[1]), st.just(x[2]), st.integers(1, x[2]))
    )
)


@given(codes)
@settings(max_examples=150, deadline=None)
def test_small_codes_are_exact(code):
    n, a, s, theta = code
    exact = exact_tail(n, s, a, theta)
    found = false_match(n, a, s, theta).item()
    assert found == pytest.approx(float(exact), rel=1e-12, abs=0)
    logarithm = false_match(n, a, s, theta, log=True).item()
    assert logarithm == pytest.approx(exact_log(exact), rel=1e-12, abs=1e-300)
    if s <= a:
        for lost in {0, a // 2, a}:
            expected = float(exact_tail(a, s, lost, s - theta + 1))
            assert false_negative(a, s, theta, lost).item() == pytest.approx(expected, rel=1e-12, abs=0)


@given(codes, st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_monotone_probabilities(code, patterns):
    n, a, s, _ = code
    matched = false_match(n, a, s, range(1, s + 1), patterns=patterns)
    assert ((matched >= 0) & (matched <= 1)).all() and (matched.diff() <= 1e-15).all()
    more = false_match(n, a, s, 1, patterns=range(1, patterns + 1))
    assert (more.diff() >= -1e-15).all()
    if s <= a:
        missed = false_negative(a, s, torch.arange(1, s + 1)[:, None], torch.arange(a + 1))
        assert ((missed >= 0) & (missed <= 1)).all()
        assert (missed.diff(dim=0) >= -1e-15).all() and (missed.diff(dim=1) >= -1e-15).all()


def test_a_million_units_in_extended_precision():
    """Beside sums of all terms from logarithms of factorials, which double precision is too short for."""
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no extended precision on this machine")
    n = 10**6
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.longdouble)))])

    def witness(s: int, a: int, least: int) -> float:
        b = np.arange(max(least, a + s - n, 0), min(s, a) + 1)
        chosen = log_factorial[s] - log_factorial[b] - log_factorial[s - b]
        others = log_factorial[n - s] - log_factorial[a - b] - log_factorial[n - s - a + b]
        terms = chosen + others - (log_factorial[n] - log_factorial[a] - log_factorial[n - a])
        return float(terms.max() + np.log(np.exp(terms - terms.max()).sum()))

    sizes = [
        (10, 10, 10),
        (40, 2000, 20),
        (1000, 1000, 1),
        (1000, 20_000, 60),
        (3000, 20_000, 60),
        (300_000, 500, 100),
        (300_000, 500, 400),
        (900_000, 500, 400),
        (20_000, 500_000, 9_900),
        (20_000, 500_000, 10_300),
        (500_000, 500_000, 251_500),
    ]
    s, a, theta = zip(*sizes, strict=True)
    found = false_match(n, a, s, theta, log=True)
    for case, value in zip(sizes, found.tolist(), strict=True):
        assert abs(math.expm1(value - witness(*case))) < 1e-9, case


def test_log_reaches_below_the_smallest_number():
    arguments = (10**6, 2000, 200, 190)
    assert false_match(*arguments).item() == 0
    exact = exact_log(exact_tail(10**6, 200, 2000, 190))
    assert exact < -1000 and false_match(*arguments, log=True).item() == pytest.approx(exact, rel=1e-12)


def test_certain_and_impossible():
    assert false_match(100, 0, 10, 1).item() == 0 and false_match(100, 100, 10, 10).item() == 1
    assert false_match(100, 5, 10, 6).item() == 0 and false_match(100, 95, 10, 5).item() == 1
    assert false_negative(20, 20, 20, [0, 1]).tolist() == [0, 1]
    assert false_match(10, 1, 10, 1, patterns=3).item() == 1  # all units are synapses


@pytest.mark.parametrize("theta, error", [(12, -0.01), (25, -0.29), (30, -0.45)])
def test_false_match_of_a_union_is_as_far_off_as_it_says(theta, error):
    """Beside the mean over the union's size, which grows by the s - b units of a set that are not in it yet."""
    n, a, s, patterns = 300, 30, 30, 4
    sizes = {s: Fraction(1)}
    for _ in range(patterns - 1):
        grown: dict[int, Fraction] = {}
        for size, p in sizes.items():
            for b in range(s + 1):
                ways = math.comb(size, b) * math.comb(n - size, s - b)
                grown[size + s - b] = grown.get(size + s - b, Fraction(0)) + p * Fraction(ways, math.comb(n, s))
        sizes = grown
    exact = float(sum(p * exact_tail(n, size, a, theta) for size, p in sizes.items()))
    assert false_match(n, a, s, theta, patterns=patterns).item() / exact - 1 == pytest.approx(error, abs=0.005)


def test_union_size_is_the_mean_of_sampled_unions():
    n, s, patterns, trials = 500, 40, 8, 4000
    drawn = Codes.random(trials * patterns, n, s, generator=torch.Generator().manual_seed(1)).units
    seen = torch.zeros(trials, n).scatter_(1, drawn.reshape(trials, -1), 1.0).sum(1)
    assert abs(seen.mean() - union_size(n, s, patterns)) < 3 * seen.std() / trials**0.5
    assert union_size(n, s, [0, 1]).tolist() == pytest.approx([0, s])
    assert union_size(n, n, [0, 1, 2]).tolist() == [0, n, n]


def test_classification_error_is_the_sum_of_its_parts():
    n, a, s, theta, lost = 2000, 40, 20, 8, 20
    matched, missed = exact_tail(n, s, a, theta), exact_tail(a, s, lost, s - theta + 1)
    found = classification_error(n, a, s, theta, classes=[1, 100], segments=5, lost=lost)
    assert found.tolist() == pytest.approx([float(missed), float(missed + 99 * 5 * matched)], rel=1e-12)
    assert classification_error(n, a, s, 1, classes=10**6).item() == 1
    logarithm = classification_error(10**6, 1000, 40, 30, classes=1000, log=True).item()
    assert logarithm == pytest.approx(math.log(999) + false_match(10**6, 1000, 40, 30, log=True).item(), rel=1e-12)


def test_classification_error_bounds_what_is_sampled():
    """200 classes of one segment each; a test is wrong if its own segment is silent or another one recognises it."""
    n, a, s, theta, lost, classes = 300, 40, 12, 6, 16, 200
    generator = torch.Generator().manual_seed(2)
    wrong = 0
    for _ in range(20):
        patterns = Codes.random(classes, n, a, generator=generator)
        pool = SegmentPool(classes, n, capacity=s)
        pool.learn(range(classes), patterns, s, generator=generator)
        kept = patterns.units.reshape(classes, a)
        kept = kept.gather(1, torch.rand(kept.shape, generator=generator).argsort(1)[:, : a - lost])
        free = torch.rand(classes, n, generator=generator).scatter_(1, patterns.units.reshape(classes, a), -1.0)
        noisy = torch.cat([kept, free.topk(lost, 1).indices], 1)
        wrong += int(((pool(noisy) >= theta) != torch.eye(classes, dtype=torch.bool)).any(1).sum())
    share, tests = wrong / (20 * classes), 20 * classes
    bound = classification_error(n, a, s, theta, classes=classes, lost=lost).item()
    missed = false_negative(a, s, theta, lost).item()
    error = 3 * math.sqrt(share * (1 - share) / tests)
    assert missed - error < share < bound + error
    assert share > 0.7 * bound  # the bound is close while errors are rare


@pytest.mark.parametrize("bound", [1e-12, 1e-6, 1e-2])
@pytest.mark.parametrize("code", [(10_000, 200, 25, 15), (2000, 40, 20, 8), (10**6, 1000, 40, 12)])
def test_capacity_is_the_last_that_fits(code, bound):
    most = int(capacity(*code, false_match=bound))
    assert most >= 0
    if most:
        assert false_match(*code, patterns=most) <= bound
    assert false_match(*code, patterns=most + 1) > bound


def test_capacity_of_many_at_once_and_at_the_edges():
    together = capacity(10_000, 200, 25, [10, 15, 20], false_match=1e-6).tolist()
    assert together == [int(capacity(10_000, 200, 25, theta, false_match=1e-6)) for theta in (10, 15, 20)]
    assert capacity(100, 10, 100, 3, false_match=0.5).item() == 0
    one = int(capacity(1000, 1, 1, 1, false_match=0.5))  # the code's one unit is in the union: s_M <= 500
    assert union_size(1000, 1, one).round() <= 500 < union_size(1000, 1, one + 1).round()


@pytest.mark.parametrize("code", [(10_000, 200, 40, 60), (2000, 40, 20, 8), (10**6, 1000, 30, 300), (2000, 40, 20, 0)])
def test_optimal_threshold_is_the_best_of_all(code):
    n, a, s, lost = code
    tolerated = {"false_match": 1e-4, "false_negative": 1e-2}
    every = torch.arange(1, s + 1)
    matched = false_match(n, a, s, every, log=True) - math.log(1e-4)
    missed = false_negative(a, s, every, lost, log=True) - math.log(1e-2)
    best = optimal_threshold(n, a, s, lost=lost, **tolerated)
    worst = torch.maximum(matched, missed)
    assert worst[int(best) - 1] == worst.min() <= 0


def test_no_threshold_is_good_enough():
    with pytest.raises(ValueError, match=r"no threshold .* synapses=10: the best, \d+, gives .*; use more synapses"):
        optimal_threshold(1000, 50, [40, 10], lost=20, false_match=1e-6, false_negative=1e-3)
    kept = {"lost": 10, "false_match": 1e-6, "false_negative": 1e-3}
    optimal_threshold(1000, 50, 20, **kept)
    with pytest.raises(ValueError, match="no threshold"):
        optimal_threshold(1000, 50, 20, patterns=30, **kept)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 0, 1, 1), "num_units: expected 1 to 10000000, got 0"),
        ((10**8, 1, 1, 1), "num_units: expected 1 to 10000000, got 100000000"),
        ((100, 101, 5, 3), "active: expected 0 to num_units, got 101"),
        ((100, 10, 101, 3), "synapses: expected 1 to num_units, got 101"),
        ((100, 10, [5, 7], 6), "threshold: expected 1 to synapses .*got 6"),
        ((100, 10, 5, 0), "threshold: expected 1 to synapses"),
        ((100, 10.5, 5, 3), "active: expected whole numbers >= 0, got 10.5"),
        ((100, math.nan, 5, 3), "active: expected whole numbers"),
        ((100, -1, 5, 3), "active: expected whole numbers >= 0, got -1"),
    ],
)
def test_bad_codes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        false_match(*arguments)


def test_other_bad_arguments_are_refused():
    for call, message in [
        (lambda: false_match(100, 10, 5, 3, patterns=0), "patterns: expected at least 1"),
        (lambda: false_negative(10, 11, 3, 1), "synapses: expected 1 to active, got 11"),
        (lambda: false_negative(10, 5, 3, 11), "lost: expected 0 to active, got 11"),
        (lambda: union_size(10, 11, 1), "synapses: expected 0 to num_units"),
        (lambda: classification_error(100, 10, 5, 3, classes=0), "classes: expected at least 1"),
        (lambda: classification_error(100, 10, 5, 3, classes=2, segments=0), "segments: expected at least 1"),
        (lambda: capacity(100, 10, 5, 3, false_match=1.0), "false_match: expected a probability between 0 and 1"),
        (lambda: capacity(100, 2, 5, 3, false_match=0.1), "threshold: expected 1 to active, got 3"),
        (lambda: optimal_threshold(100, 10, 5, lost=2, false_match=0.1, false_negative=0), "false_negative: expected"),
        (
            lambda: optimal_threshold(100, 10, 11, lost=2, false_match=0.1, false_negative=0.1),
            "synapses: expected 1 to a",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"active: expected whole numbers, got torch\.bool"):
        false_match(100, torch.tensor(True), 5, 3)
