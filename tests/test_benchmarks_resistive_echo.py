"""Echo states of the benchmark: they are the library's, and forecast what can be forecast."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_echo as echo
from resistive_chips import Choice

from eventnet.hardware.resistive import EchoState
from eventnet.hardware.resistive.formed import formed_pairs

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = echo.Shape(radius=0.7, leak=0.6, gain=2.0)
SERIES = (1 + 0.3 * torch.sin(torch.arange(900.0, dtype=torch.float64) / 6))[:, None]


def test_ideal_arrays_are_the_echo_state():
    pairs = formed_pairs(1, 30, 4, **Choice(radius=0.7, formed=echo.FORMED).cells)
    weight, recurrent = (pair.weight().double().t() for pair in pairs)
    network = EchoState(weight, recurrent, leak=0.6, gain=2.0)
    mine = echo.on_chip(SHAPE, echo.DEVICES["echo"], 4, units=30)
    states = mine.states(SERIES[:200, None])
    torch.testing.assert_close(states, network(SERIES[:200, None]), rtol=1e-6, atol=1e-6)
    mine.fit(states[:, 0], SERIES[:200], 1e-6)
    expected = network.forecast(mine.readout, SERIES[:200, None], 40).detach()
    torch.testing.assert_close(mine.forecast(mine.state, 40), expected, rtol=1e-5, atol=1e-5)


def test_called_as_the_harness_calls_it():
    """The first point of a batch is the next true one, the others are not looked at."""
    mine = echo.on_chip(SHAPE, echo.DEVICES["echo"], 4, units=30)
    mine.fit(mine.states(SERIES[:300, None])[:, 0], SERIES[:300], 1e-8)
    batch = torch.cat([SERIES[300:301], torch.full((29, 1), math.nan, dtype=torch.float64)])[:, None]
    with torch.no_grad():
        said = mine(batch)
    assert said.shape == (30, 1)
    torch.testing.assert_close(said, SERIES[301:331], rtol=0.01, atol=0.0)


def test_noise_is_that_of_the_chip():
    def states(name, seed):
        return echo.on_chip(SHAPE, echo.DEVICES[name], seed, units=30).states(SERIES[:50, None])

    names = list(echo.DEVICES)
    first, again, other = states(names[2], 1), states(names[2], 1), states(names[2], 2)
    assert first.equal(again) and not first.equal(other) and not first.equal(states(names[1], 1))
    still = echo.on_chip(SHAPE, echo.DEVICES[names[1]], 1, units=30)
    assert still.states(SERIES[:50, None]).equal(still.states(SERIES[:50, None]))
    noisy = echo.on_chip(SHAPE, echo.DEVICES[names[2]], 1, units=30)
    assert not noisy.states(SERIES[:50, None]).equal(noisy.states(SERIES[:50, None]))


def test_trials_of_all_penalties_at_once_are_those_of_each(monkeypatch):
    monkeypatch.setattr(echo, "PENALTIES", (1e-6, 1e-1))
    known = SERIES[: echo.TRAINING]
    mine = echo.on_chip(SHAPE, echo.DEVICES["echo"], 4, units=30)
    states = mine.states(known[:, None])[:, 0]
    true = torch.stack([known[start : start + echo.FREE] for start in echo.STARTS], 1)
    expected = []
    for penalty in echo.PENALTIES:
        mine.fit(states[: echo.FITTED], known[: echo.FITTED], penalty)
        starts = states[[start - 1 for start in echo.STARTS]]
        expected.append(echo.smape(mine.forecast(starts, echo.FREE), true))
    assert echo.trials(mine, known) == pytest.approx(expected, rel=1e-3) and expected[0] < expected[1]


def test_choices_are_made_on_training_points_alone():
    assert max(echo.STARTS) + echo.FREE == echo.TRAINING and min(echo.STARTS) >= echo.WASHOUT


def test_smape():
    assert echo.smape(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])) == pytest.approx(50.0)


@pytest.mark.parametrize("name", ["echo", "echo, HfOx with read noise"])
def test_a_sine_in_the_harness(name, monkeypatch):
    pytest.importorskip("neurobench")
    import mackey_glass

    monkeypatch.setattr(echo, "SHAPES", (SHAPE,))
    monkeypatch.setattr(echo, "PENALTIES", (1e-6, 1e-2))
    monkeypatch.setattr(echo, "DEVICES", {name: echo.DEVICES[name]})
    series = (1 + 0.3 * torch.sin(torch.arange(1501.0, dtype=torch.float64) / 6))[:, None]
    monkeypatch.setattr(echo.forecaster, "__defaults__", (40,))
    (row,) = echo.run(series, 0, mackey_glass.in_harness)
    dense = 40 * 40 + 40 + 40
    assert row["dense"] == dense and row["macs"] <= dense and row["parameters"] == dense + 1
    assert row["contender"] == name and row["penalty"] in echo.PENALTIES
    assert row["smape"] < (1.0 if name == "echo" else 30.0)
