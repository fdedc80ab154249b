"""Recipes of tasks that come one after the other: network, schedule, batches, and runs from start to end."""

from __future__ import annotations

import json
import re
from math import isnan

import numpy as np
import pytest
import torch
from test_data_idx import STEMS, idx_bytes
from test_training import StopAt, rows, same_weights
from torch import nn

from eventnet import Events, cli, data
from eventnet.layers.prototypes import Prototypes
from eventnet.layers.winners import KWinners
from eventnet.training import (
    ContinualRecipe,
    DataError,
    Recipe,
    RecipeError,
    build,
    evaluate,
    evaluate_network,
    figures,
    find,
    load_model,
    train,
)
from eventnet.training.continual import SCHEDULES, TaskBatches
from eventnet.training.evaluation import ByTask
from eventnet.training.run import initial_network, load_data

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ContinualRecipe(
    name="permuted_mnist",
    tasks=3,
    hidden=(40, 40),
    share=0.2,
    epochs=2,
    learning_rate=3e-3,
    batch_size=25,
    validation_fraction=0.2,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The four files of an MNIST of three classes, each with bright pixels of its own."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    (folder / "mnist").mkdir()
    bright = random.random((3, 28, 28)) < 0.2
    for stem, size in zip(STEMS.values(), (250, 90), strict=True):
        labels = np.arange(size) % 3
        images = (120 * bright[labels] + random.integers(0, 120, (size, 28, 28))) * (
            random.random((size, 28, 28)) < 0.7
        )
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            (folder / "mnist" / f"{stem}-{kind}").write_bytes(idx_bytes(array))
    return folder


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """An uninterrupted run."""
    return train(SMALL, tmp_path_factory.mktemp("runs") / "whole", data_root=root, progress=False)


@pytest.fixture
def undrawn(monkeypatch):
    """Without plots, which take longer than the training."""
    monkeypatch.setattr(figures, "draw", lambda *_: ())


# ---- the network


def test_networks_are_the_published_ones():
    both, mlp = (build(find("permuted_mnist").changed(row=row), 784, 10) for row in ("both", "mlp"))
    segments = 2 * 2048 * 10 * 784
    assert sum(p.numel() for p in both.parameters()) == 784 * 2048 + 2048**2 + 20480 + 2 * 2048 + 10 + segments
    for layer, fan_in in ((both.hidden[0].linear, 784), (both.hidden[1].linear, 2048), (both.readout, 2048)):
        assert (layer.weight != 0).sum(1).eq(fan_in // 2).all()
    assert all(isinstance(active, KWinners) for active in both.active)
    assert (both.active[0](torch.randn(3, 2048)) != 0).sum(1).tolist() == [102] * 3
    assert all(isinstance(active, nn.ReLU) for active in mlp.active) and mlp.hidden[0].segments is None
    assert (mlp.readout.weight != 0).all()


def some_events(samples: int, units: int = 6, seed: int = 0) -> Events:
    """Graded events in one step, some units silent."""
    generator = torch.Generator().manual_seed(seed)
    raster = torch.rand(1, samples, units, generator=generator) * (torch.rand(units, generator=generator) < 0.8)
    return data.dataset.graded(raster, 1e-3)


@pytest.mark.parametrize("row", SCHEDULES)
def test_the_context_is_told_in_training_and_the_nearest_in_evaluation(row):
    network = build(SMALL.changed(row=row, epochs=1, learning_rate=1e-3), 6, 3)
    tasks = [some_events(8, seed=seed) for seed in (1, 2)]
    for events in tasks:
        network.begin_task_([(events, None)])
    mean, deviation = SMALL.input_mean, SMALL.input_deviation
    x = [(events.to_dense(1e-3)[0] - mean) / deviation for events in tasks]
    contexts = torch.stack([each.mean(0) for each in x])
    torch.testing.assert_close(network.prototypes.contexts, contexts)
    told = network.train()(tasks[0])
    torch.testing.assert_close(told.scores, network.scores(x[0], contexts[1]))
    assert told.contexts is None
    both, network = Events.cat(tasks), network.eval()
    guess, nearest = network(both), torch.cdist(torch.cat(x), contexts).argmin(1)
    assert len(nearest.unique()) == 2
    torch.testing.assert_close(guess.scores, network.scores(torch.cat(x), contexts[nearest]))
    dendrites = row in ("both", "dendrites")
    assert guess.contexts.equal(nearest) if dendrites else guess.contexts is None
    assert told.scores.equal(network.scores(x[0], contexts[0])) != dendrites
    for layer, active in zip(network.layers(torch.cat(x), (contexts, nearest)), guess.active, strict=True):
        assert active.equal((layer != 0).sum(0)) and active.sum() <= (8 if network.recipe.has_winners else 40) * 16


def test_plain_events_count_and_a_unit_adds_up():
    network = build(SMALL.changed(input_mean=0.0, input_deviation=2.0), 3, 2)
    events = Events.from_list([([0.1, 0.2, 0.3], [2, 0, 2]), ([], [])], num_units=3, duration=1.0)
    assert network.dense(events).tolist() == [[0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_weights_depend_on_the_seed_alone():
    first, before = build(SMALL, 6, 3).state_dict(), torch.random.get_rng_state()
    torch.manual_seed(5)
    again, other = (build(SMALL.changed(seed=seed), 6, 3).state_dict() for seed in (0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["hidden.0.segments.weight"].equal(other["hidden.0.segments.weight"])
    torch.random.set_rng_state(before)
    build(SMALL, 6, 3)
    assert torch.random.get_rng_state().equal(before)


def test_units_have_inputs():
    with pytest.raises(RecipeError, match=r"density: expected at least one of 4 inputs for each unit, got 0.1 of them"):
        build(SMALL.changed(density=0.1), 4, 3)
    assert build(SMALL.changed(row="mlp", density=0.1, epochs=1, learning_rate=1.0), 4, 3).hidden[0].linear.weight.all()


def test_a_network_that_saw_no_task_cannot_be_asked(root):
    splits = load_data(SMALL, root)
    network = initial_network(SMALL, splits)
    for ask in (lambda: network.eval()(some_events(2, 784)), lambda: evaluate_network(network, splits.test)):
        with pytest.raises(DataError, match="no task was begun yet; begin_task_"):
            ask()


# ---- recipes and batches


def test_another_row_or_number_of_tasks_has_its_published_schedule():
    recipe = find("permuted_mnist")
    assert (recipe.epochs, recipe.learning_rate) == SCHEDULES["both"][10] == (3, 5e-4)
    for row, schedules in SCHEDULES.items():
        for tasks, (epochs, rate) in schedules.items():
            changed = recipe.changed(row=row, tasks=tasks)
            assert (changed.epochs, changed.learning_rate, changed.total_epochs) == (epochs, rate, epochs * tasks)
            assert Recipe.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    own = recipe.changed(epochs=7)
    assert own.changed(seed=1).epochs == own.changed(tasks=10).epochs == 7
    assert own.changed(tasks=25).epochs == 5 and own.changed(tasks=25, epochs=2).learning_rate == 3e-4
    assert recipe.changed(tasks=3, epochs=1, learning_rate=0.1).tasks == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": 3},
            "tasks: expected 2, 5, 10, 25, 50, 100 for the row both, which .* got 3; others need one, such as epochs=3",
        ),
        ({"tasks": 3, "epochs": 1}, "tasks: expected 2, 5, "),
        ({"row": "mlp", "tasks": 2}, "tasks: expected 10, 100 for the row mlp"),
        ({"row": "winer"}, "row: unknown value 'winer'; did you mean 'winners'"),
        ({"tasks": 0}, "tasks: expected 2, 5"),
        ({"tasks": 0, "epochs": 1, "learning_rate": 1.0}, "tasks: expected a number >= 1, got 0"),
        ({"hidden": ()}, "hidden: expected at least one layer"),
        ({"best": "accuracy"}, "best: unknown value 'accuracy'"),
        ({"data": "mnist"}, "data: unknown value 'mnist'; did you mean 'permuted_mnist'"),
        ({"data_options": {"tasks": 5}}, "data_options: expected no tasks"),
        ({"share": 0.0}, r"share: expected a number in \(0, 1\], got 0"),
        ({"share": 0.05, "hidden": (40, 9)}, "share: expected at least one winner among 9 units, got 0.05 of them"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        find("permuted_mnist").changed(**changes)


def test_batches_are_of_one_task_at_a_time(root):
    splits = load_data(SMALL, root)
    training = TaskBatches(splits.train, SMALL, shuffle=True)
    so_far = TaskBatches(splits.validation, SMALL, so_far=True)
    heard, orders = [], []
    for epoch in range(SMALL.total_epochs):
        training.set_epoch(epoch)
        so_far.set_epoch(epoch)
        orders.append(training.order())
        dense = torch.cat([events.to_dense(1e-3)[0] for events, _ in training])
        task = splits.train.only([epoch // 2]).__getitems__(range(200))[0].to_dense(1e-3)[0]
        assert dense[orders[-1].argsort()].equal(task)
        heard.append(sum(len(labels) for _, labels in so_far))
        assert len(so_far) == len(list(so_far)) and len(training) == 8
    assert heard == [50, 50, 100, 100, 150, 150]
    assert not any(one.equal(other) for k, one in enumerate(orders) for other in orders[:k])


def test_accuracy_is_told_by_task(root):
    by_task = ByTask(load_data(SMALL.changed(tasks=2, epochs=1), root).test.only([0, 1]))
    right = torch.arange(180) % 3 == 0
    right[90:] = True
    by_task.add(right[:50], torch.zeros(50))
    by_task.add(right[50:], torch.zeros(130))
    assert by_task.facts() == {"of_each_task": (pytest.approx(1 / 3), 1.0), "contexts_right": 0.5}
    some = ByTask(load_data(SMALL, root).test.only([1, 2]))
    some.add(right[:60])
    assert some.of_each()[1] == pytest.approx(1 / 3) and isnan(some.of_each()[2])  # which no sample was of
    some.add(right[60:120])
    assert some.of_each() == {1: pytest.approx(1 / 3), 2: 1.0}


# ---- runs


def test_a_run_learns_one_task_after_the_other(finished, root):
    test, folder = finished.test, finished.folder
    assert test.samples == 270 and test.contexts_right == 1.0 and len(test.of_each_task) == 3
    assert min(test.of_each_task) > 0.6 and test.accuracy > 0.8
    assert test.accuracy == pytest.approx(sum(test.of_each_task) / 3)
    assert test.activity["activity"] == pytest.approx(0.2)
    assert json.loads((folder / "result.json").read_text())["test"] == test.summary()
    assert evaluate(folder, data_root=root) == test
    assert finished.best_epoch == 6 and [row["epoch"] for row in rows(folder)] == list("123456")
    assert evaluate(folder, part="validation").accuracy == finished.validation_accuracy
    assert evaluate(folder, part="train").samples == 600
    second = evaluate_network(load_model(folder)[0], load_data(SMALL, root).test.only([1]))
    assert (second.accuracy, second.contexts_right) == (test.of_each_task[1], 1.0)
    with pytest.raises(DataError, match=r"expected one of the 3 tasks begun, got TaskDataset\(1 tasks"):
        evaluate_network(load_model(folder)[0], load_data(SMALL.changed(tasks=5), root).test.only([4]))
    assert {path.name for path in finished.plots} == {"learning_curve.png", "tasks.png", "firing_rates.png"}
    assert all(path.stat().st_size > 10_000 for path in finished.plots)


def test_each_task_is_measured_after_each_epoch_from_its_first_on(finished, root):
    of_each = [f"validation_accuracy_of_task_{k}" for k in (1, 2, 3)]
    for epoch, row in enumerate(rows(finished.folder)):
        begun = of_each[: 1 + epoch // 2]
        assert [name for name in of_each if row[name]] == begun
        mean = sum(float(row[name]) for name in begun) / len(begun)
        assert float(row["validation_accuracy"]) == pytest.approx(mean)
    network, validation = load_model(finished.folder)[0], load_data(SMALL, root).validation
    alone = [evaluate_network(network, validation.only([task])).accuracy for task in range(3)]  # the last row's
    assert [float(row[name]) for name in of_each] == pytest.approx(alone)
    assert len(set(alone)) > 1


def test_it_is_adam_anew_for_each_task(finished, root):
    """Beside plain PyTorch."""
    splits = load_data(SMALL, root)
    network, prototypes = initial_network(SMALL, splits), Prototypes(784)
    batches = TaskBatches(splits.train, SMALL, shuffle=True, seed=SMALL.seed)
    for task in range(3):
        pixels = splits.train.only([task]).__getitems__(range(200))[0].to_dense(1e-3)[0]
        prototypes.add((pixels - SMALL.input_mean) / SMALL.input_deviation)
        optimizer = torch.optim.Adam(network.parameters(), lr=SMALL.learning_rate)
        for epoch in (2 * task, 2 * task + 1):
            batches.set_epoch(epoch)
            for events, labels in batches:
                x = (events.to_dense(1e-3)[0] - SMALL.input_mean) / SMALL.input_deviation
                loss = nn.functional.cross_entropy(network.scores(x, prototypes.contexts[task]), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    learnt = load_model(finished.folder)[0]
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(learnt.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learnt.prototypes.contexts, prototypes.contexts)


@pytest.mark.parametrize("stop", [(1, 3), (2, 2), (3, 0)])
@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_resumes_to_the_same_numbers(finished, root, tmp_path, stop):
    """In the middle of a task's second epoch, of its first, right after its first."""
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path / "run", data_root=root, progress=False, callbacks=[StopAt(*stop)])
    so_far = evaluate(tmp_path / "run", part="validation")
    assert len(so_far.of_each_task) == 1 + (stop[0] - 1) // 2  # of the tasks that it has seen
    result = train(None, tmp_path / "run", resume=True, progress=False)
    assert result.test == finished.test
    assert same_weights(tmp_path / "run", finished.folder) and rows(tmp_path / "run") == rows(finished.folder)


@pytest.mark.parametrize("row", ["winners", "dendrites", "mlp"])
@pytest.mark.usefixtures("undrawn")
def test_other_rows_train_and_the_rate_decays_within_a_task(root, tmp_path, row):
    recipe = SMALL.changed(row=row, epochs=2, learning_rate=3e-3, learning_rate_decay=0.5, hidden=(30,))
    result = train(recipe, tmp_path / "run", data_root=root, progress=False)
    assert result.test.of_each_task[-1] > 0.6
    assert result.test.contexts_right == (1.0 if row == "dendrites" else None)
    rates = [float(row["learning_rate"]) for row in rows(result.folder)]
    assert rates == pytest.approx([3e-3, 1.5e-3] * 3)


def test_data_without_tasks_or_with_others_is_refused(root, tmp_path):
    splits = load_data(SMALL, root)
    with pytest.raises(DataError, match=r"expected a train part of 10 tasks .*got 3"):
        train(find("permuted_mnist"), tmp_path / "run", splits=splits)
    with pytest.raises(DataError, match=r"digits: expected a train part of 3 tasks .*got EventDataset"):
        train(SMALL, tmp_path / "run", splits=data.load("digits"))
    assert not (tmp_path / "run").exists()


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line(capsys, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    small = ["--hidden", "30,30", "--share", "0.2", "--batch-size", "25", "--epochs", "1", "--learning-rate", "3e-3"]
    where = ["--data-root", str(root)]
    code, out, err = run(capsys, "train", "permuted_mnist", "--tasks", "2", *small, *where, "--out", "a")
    assert code == 0, err
    lines = err.splitlines()
    assert lines[0].startswith("task 1/2, epoch 1/2: loss ") and lines[1].startswith("task 2/2, epoch 2/2: loss ")
    assert all("20.0% of units active, validation accuracy" in line for line in lines)
    shown = re.search(r"accuracy of each task +(\S+%) (\S+%)\n", out)
    assert shown and "(epoch 2, the last)" in out and "of the samples are given that of their own task" in out
    code, out, _ = run(capsys, "evaluate", "a")
    assert code == 0 and shown[0] in out
    code, out, _ = run(capsys, "benchmark", "a", "--limit", "40")
    assert code == 0 and "hidden.0.segments" in out
    counted = json.loads((tmp_path / "a" / "benchmark.json").read_text())["counts"]["trained"]
    assert counted["prototypes"]["multiply_accumulates"] == counted["prototypes"]["dense"] == 2 * 784
    assert run(capsys, "report", "a")[0] == 0 and (tmp_path / "a" / "report.html").is_file()
    for target in ("loihi", "lava", "nir"):
        code, _, err = run(capsys, "export", "a", "--to", target)
        assert code == 1 and err.startswith("eventnet: error: ") and err.count("\n") == 1 and "ActiveDendrites" in err
    code, _, err = run(capsys, "train", "permuted_mnist", "--tasks", "3", *where)
    assert code == 1 and "eventnet: error: --tasks: expected 2, 5, 10, 25, 50, 100 for the row both" in err
    assert "others need one, such as --epochs 3, --learning-rate 0.0005" in err
