"""The benchmark of permuted MNIST: a stopped run goes on to the same result, rows differ in what they say, contexts are found."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import permuted_mnist  # noqa: E402
from permuted_mnist import Images, Run, Setting  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = Setting("both", 3, 0, epochs=2, rate=5e-3, hidden=60, batch=32, share=0.2)


@pytest.fixture(scope="module")
def images() -> Images:
    """Four classes around means of their own."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 30, generator=generator)
    labels = torch.randint(4, (500,), generator=generator)
    x = means[labels] + 0.3 * torch.randn(500, 30, generator=generator)
    return Images(x[:300], labels[:300], x[300:], labels[300:])


@pytest.mark.parametrize("row", permuted_mnist.ROWS)
def test_rows_learn(images, row):
    found = Run(replace(SMALL, row=row), images)()
    assert min(found["of_each_task_when_learnt"]) > 0.9 and found["contexts_right"] > 0.9
    assert found["accuracy"] == pytest.approx(sum(found["of_each_task"]) / 3)


@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (2, 1)])
def test_a_stopped_run_goes_on_to_the_same_result(images, tmp_path, monkeypatch, stop):
    whole = Run(SMALL, images)
    expected = whole()
    train = Run._train

    def interrupted(self, x, task, epoch):
        if (task, epoch) == stop:
            train(self, x[:64], task, epoch)  # in the middle of the epoch
            raise KeyboardInterrupt
        train(self, x, task, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "_train", interrupted)
        Run(SMALL, images, tmp_path)()
    again = Run(SMALL, images, tmp_path)
    assert (again.task, again.epoch) == stop
    found = again()
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    for name, value in whole.network.state_dict().items():
        assert again.network.state_dict()[name].equal(value), name


def test_the_state_of_another_run_is_refused(images, tmp_path):
    run = Run(SMALL, images, tmp_path)
    run._save()
    with pytest.raises(SystemExit, match="another run"):
        Run(replace(SMALL, batch=16), images, tmp_path)


def test_schedules_are_by_the_number_of_tasks():
    assert [(s.epochs, s.rate) for s in (permuted_mnist.setting("both", n, 0) for n in (2, 10, 25))] == [
        (5, 1e-3),
        (3, 5e-4),
        (5, 3e-4),
    ]
    winners, alike = (permuted_mnist.setting("winners", 10, 0, schedule) for schedule in (None, "both"))
    assert (winners.epochs, winners.rate, winners.name, winners.published) == (5, 1e-4, "winners-10-0", 0.9133)
    assert (alike.epochs, alike.rate, alike.name, alike.published) == (3, 5e-4, "winners-10-0-3x0.0005", None)
    short = permuted_mnist.setting("both", 5, 0, "short")  # published for the row, not what it has by default
    assert (short.epochs, short.rate, short.name, short.published) == (1, 5e-4, "both-5-0-1x0.0005", 0.9636)
    assert permuted_mnist.setting("winners", 5, 0, "short").published is None


def test_tasks_are_permutations_of_the_first():
    orders = permuted_mnist.permutations(20, 3, seed=1)
    assert orders[0].equal(torch.arange(20))
    assert all(order.sort().values.equal(torch.arange(20)) for order in orders)
    assert not orders[1].equal(orders[2])


def test_contexts_are_found_without_labels(images):
    found = permuted_mnist.unlabelled(images, 4, seed=0, batch=50)
    assert found["contexts"] == 4 and found["batches_in_a_wrong_context"] == 0
    assert found["test_contexts_right"] > 0.9


def test_results_are_kept_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(permuted_mnist, "RESULT", tmp_path / "found.json")
    permuted_mnist.keep("runs", "a", {"accuracy": 0.5})
    permuted_mnist.keep("runs", "b", {"accuracy": 0.6})
    permuted_mnist.keep("segments", "c", {})
    content = json.loads((tmp_path / "found.json").read_text())
    assert set(content["runs"]) == {"a", "b"} and set(content) == {"runs", "segments"}
    assert {"machine", "commit", "torch", "threads", "accuracy"} <= set(content["runs"]["a"])
