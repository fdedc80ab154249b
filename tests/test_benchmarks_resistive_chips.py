"""Chips of the benchmark: their conductances, their reservoirs, and what is chosen of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_chips as chips
from resistive_inputs import Task

from eventnet import data, metrics
from eventnet.hardware.resistive import HFOX, Reservoir
from eventnet.hardware.resistive.formed import formed_pairs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task():
    splits = data.load("digits")
    train = splits.train.events[:150], splits.train.labels[:150]
    return Task(train, (splits.test.events[:20], splits.test.labels[:20]), rates=(60.0,))


def test_conductances_are_those_of_the_chip():
    one, two, other = (formed_pairs(12, 40, seed, **chips.Choice(radius=0.7, formed=0.3).cells) for seed in (5, 5, 6))
    assert one[0].positive.equal(two[0].positive) and one[0].positive.shape == (40, 12)
    assert not one[0].positive.equal(other[0].positive)
    assert (one[1].positive > 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert one[1].positive.max() <= HFOX.g_max
    largest = torch.linalg.eigvals(one[1].weight().double()).abs().max().item()
    assert largest == pytest.approx(0.7, rel=1e-3)


def test_reservoirs_have_the_rate_and_the_clock(task):
    events = task.train[0][:40]
    reservoir = chips.formed_reservoir(events, 30, 2, chips.Choice(rate=80.0), decay=0.8, steps=20)
    assert isinstance(reservoir, Reservoir) and reservoir.decay == 0.8
    assert reservoir.dt == pytest.approx(events.duration[0].item() / 20)
    assert metrics.firing_rates(reservoir(events)).mean().item() == pytest.approx(80.0, rel=0.05)
    assert reservoir.weight.equal(formed_pairs(64, 30, 2, **chips.Choice().cells)[0].weight().t())


def test_the_choice_sees_no_test_sample(task):
    choice = chips.chosen(task, 20)
    blind = Task(task.train, (task.test[0][:0], task.test[1][:0]), rates=(60.0,))
    assert choice == chips.chosen(blind, 20) and choice.rate == 60.0


def test_the_readout_takes_its_penalty_from_training_samples():
    x = torch.randn(80, 5, generator=torch.manual_seed(0))
    readout = chips.fitted(x, (x[:, 0] > 0).long())
    assert readout.chosen in chips.PENALTIES and readout.score(x, (x[:, 0] > 0).long()) > 0.9
