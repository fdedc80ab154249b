"""The ELM benchmark: both contenders are of one size and learn, tables come from results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import elm

from eventnet import Events
from eventnet.data import EventDataset, Splits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("channels", [8, 140])
def test_the_gru_is_the_smallest_that_is_not_smaller(channels):
    wanted, found = (elm.parameters(elm.Adder(kind, channels)) for kind in ("elm", "gru"))
    hidden = elm.gru_size(wanted, channels)
    smaller = 3 * (hidden - 1) * (channels + hidden + 1) + hidden * elm.CLASSES
    assert smaller < wanted <= found < 1.06 * wanted


def first_ones(seed: int, size: int) -> EventDataset:
    """Which of four channels spoke first, another having spoken since."""
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randint(4, (size, 2), generator=random)
    samples = [([0.01, 0.02, 0.11, 0.12], [a, a, 4 + b, 4 + b]) for a, b in numbers.tolist()]
    return EventDataset(Events.from_list(samples, 8, 0.2), numbers[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["elm", "gru"])
def test_a_contender_learns_and_keeps_its_best_epoch(kind):
    parts = (first_ones(seed, size) for seed, size in enumerate((640, 50, 50)))
    splits = Splits(*parts, "first ones", 8, elm.CLASSES, None, "made here")
    found, module = elm.train(kind, splits, seed=0, rate=5e-3, epochs=12)
    assert found["validation"] == max(found["curve"]) == elm.accuracy(module, splits.validation) > 0.8
    assert found["best_epoch"] == found["curve"].index(found["validation"]) + 1
    assert found["parameters"] == elm.parameters(module)


def test_tables_are_of_the_results():
    size = elm.Size("small", 6, 2, 3, 4, 2, 2, 5)
    row = elm.measure(size, 2, 2)
    assert 0 < row["fused"]["best"] <= row["fused"]["median"] and row["loop"]["best"] > 0
    row["fused"], row["loop"] = {"best": 0.01, "median": 0.02}, {"best": 0.05, "median": 0.08}
    both = row | {"threads": 2, "fused": {"best": 0.005, "median": 0.005}}
    last = elm.speed_table([both, row]).splitlines()[-1]  # of one problem: all numbers of threads in one line
    assert last.endswith("| 2 | 10.0 ms | 50.0 ms | 5.0, 4.0 | 5.0 ms | 50.0 ms | 10.0, 16.0 |")
    runs = [
        {"contender": "elm", "parameters": 1234, "rate": 0.01, "validation": 0.5, "test": test} for test in (0.4, 0.6)
    ]
    runs.append({"contender": "elm", "parameters": 1234, "rate": 0.02, "validation": 0.1})  # not chosen, not tested
    assert elm.adding_table(runs).endswith("| ELM | 1,234 | 0.01 | 0.500 | 0.400, 0.600 | 0.500 |")
