"""The Mackey-Glass series: its integrator against halved steps, SciPy and the equation itself, and what is made of its points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eventnet import data
from eventnet.data.dataset import lagged
from eventnet.data.mackey_glass import POINTS, SERIES, series, solve


def scipy_solution(times: np.ndarray, tau: float, past: float) -> np.ndarray:
    """An explicit Runge-Kutta method of order 8, interval by interval of the delay."""
    integrate = pytest.importorskip("scipy.integrate")
    before, x, found = (lambda t: past), past, np.empty_like(times)
    for k in range(int(times.max() // tau) + 1):

        def slope(t, x, before=before):
            delayed = before(t - tau)
            return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

        span = (k * tau, (k + 1) * tau)
        done = integrate.solve_ivp(slope, span, [x], "DOP853", rtol=1e-12, atol=1e-13, dense_output=True, max_step=2.0)
        here = (times >= span[0]) & (times < span[1] + 1e-9)
        found[here] = done.sol(times[here])[0]
        before, x = (lambda t, solution=done.sol: solution(t)[0]), done.y[0, -1]
    return found


@pytest.mark.parametrize("tau", [17, 23, 30])
def test_halved_steps_change_nothing_that_matters(tau):
    lyapunov_time, past = SERIES[tau]
    times = tau + np.arange(5 * POINTS) * lyapunov_time / POINTS
    ours, halved, coarse, finer = (solve(times, tau, past, resolution=n) for n in (1000, 2000, 100, 400))
    assert np.abs(ours - halved).max() < 1e-8
    few = times < 2 * lyapunov_time
    order = np.log2(np.abs(coarse - halved)[few].max() / np.abs(finer - halved)[few].max()) / 2
    assert 3.4 < order < 5


@pytest.mark.parametrize("tau", [17, 30])
def test_the_solution_is_that_of_scipy(tau):
    lyapunov_time, past = SERIES[tau]
    times = np.linspace(0, 2 * lyapunov_time, 100)
    assert np.abs(solve(times, tau, past) - scipy_solution(times, tau, past)).max() < 1e-9


def test_the_solution_obeys_its_equation():
    times, h = np.linspace(20.0, 900.0, 300), 1e-3
    x, delayed = solve(times), solve(times - 17)
    slope = (solve(times + h) - solve(times - h)) / (2 * h)
    assert np.abs(slope - (0.2 * delayed / (1 + delayed**10) - 0.1 * x)).max() < 1e-6


def test_before_a_delay_has_passed_the_solution_is_known():
    """With a constant past it is an exponential."""
    past = SERIES[17][1]
    goal = 0.2 * past / (1 + past**10) / 0.1
    times = np.linspace(0, 17, 50)
    assert np.allclose(solve(times), goal + (past - goal) * np.exp(-0.1 * times), rtol=0, atol=1e-13)


def test_offsets_are_one_series():
    assert np.array_equal(series(50, offset=30), series(80)[30:])
    assert np.ptp(series(1501)) > 0.8 and not np.allclose(series(100, tau=18), series(100))


@pytest.mark.parametrize("window", [1, 4])
def test_labels_are_the_next_points_and_units_the_last_ones(window):
    splits = data.load("mackey_glass", window=window, offset=0.5, length=60, warm_up=20, stride=30)
    assert (splits.num_units, splits.num_classes, splits.step, splits.forecasts) == (window, 1, 1e-3, True)
    points = torch.from_numpy(series(1501, offset=37)).float()
    for part, first, last, judged in (
        ("train", 30, 90, 50),  # its second piece
        ("validation", 580, 750, 600),
        ("test", 0, 1500, 750),
    ):
        events, labels = getattr(splits, part).__getitems__([1 if part == "train" else 0])
        dense = events.to_dense(1e-3)[:, 0]
        assert dense.shape == (last - first, window) and (events.num_steps(1e-3) == last - first).all()
        for lag in range(window):
            assert torch.equal(dense[window:, lag], points[first + window - lag : last - lag])
        known = labels[0, :, 0]
        assert known[: judged - first].isnan().all()
        assert torch.equal(known[judged - first :], points[judged + 1 : last + 1])
    before = splits.test.events.to_dense(1e-3)[: window - 1, 0]
    assert (before.triu(1) == 0).all()  # there is nothing before the series
    ends = (len(splits.train) - 1) * 30 + 60
    assert 570 < ends <= 600  # the validation points are in no training piece


def test_nothing_is_drawn():
    one, other = (data.load("mackey_glass", seed=seed) for seed in (0, 1))
    assert torch.equal(one.train.events.values, other.train.events.values)
    assert torch.equal(one.test.labels[:, 750:], other.test.labels[:, 750:])


def test_lagged_of_several_numbers():
    numbers = torch.arange(6.0).reshape(3, 2)
    assert lagged(numbers, 2).tolist() == [[0, 1, 0, 0], [2, 3, 0, 1], [4, 5, 2, 3]]


@pytest.mark.parametrize(
    "options, error",
    [
        ({"tau": 16}, "expected tau from 17 to 30"),
        ({"tau": 17.5}, "expected tau from 17 to 30"),
        ({"offset": -1.0}, "offset must be a number of Lyapunov times >= 0"),
        ({"window": 0}, "window must be a whole number of points >= 1"),
        ({"stride": 2.5}, "stride must be a whole number"),
        ({"length": 601}, "not longer than the 600 training points, got length 601"),
        ({"length": 50}, "expected pieces longer than the 50 points of their warm-up"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a share"),
    ],
)
def test_options_out_of_range_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        data.load("mackey_glass", **options)


@pytest.mark.parametrize(
    "given",
    [
        {"tau": -1.0},
        {"tau": 1001.0},
        {"tau": 1e5},
        {"resolution": 0},
        {"times": np.array([-1.0])},
        {"times": np.array([np.nan])},
    ],
)
def test_what_cannot_be_solved_is_refused(given):
    with pytest.raises(ValueError, match="mackey_glass: expected"):
        solve(**{"times": np.array([1.0]), **given})


def test_the_longest_delay_has_finite_numbers():
    assert np.isfinite(solve(np.linspace(0, 2500, 9), 1000.0)).all()


def test_numbers_as_labels():
    splits = data.load("mackey_glass")
    events = splits.train.events[torch.arange(2)]
    assert data.EventDataset(events, torch.zeros(2, 150, 1)).select([1]).labels.shape == (1, 150, 1)
    assert data.collate(splits.train[0])[1].shape == (1, 150, 1)
    assert data.collate([splits.train[0], splits.train[1]])[1].dtype == torch.float32
    with pytest.raises(TypeError, match="labels must be integers"):
        data.EventDataset(events, torch.zeros(2, 150))
    for labels in (torch.zeros(2, 150, 1, dtype=torch.int64), torch.zeros(3, 150, 1)):
        with pytest.raises(ValueError, match=r"or floats \(B, T, N\) to forecast, got"):
            data.EventDataset(events, labels)
