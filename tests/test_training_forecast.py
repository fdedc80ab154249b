"""Forecasting as an objective: loss, the free forecast and its score, and runs from start to end without an accuracy."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from test_training import StopAt, rows, same_weights

from eventnet import Events, data, metrics
from eventnet.data.dataset import graded, lagged
from eventnet.training import (
    DataError,
    GatedRecipe,
    RecipeError,
    SpikingRecipe,
    build,
    evaluate,
    evaluate_network,
    find,
    load_model,
    objective,
    train,
)
from eventnet.training.history import best_epoch
from eventnet.training.module import Tally
from eventnet.training.network import Outcome
from eventnet.training.run import initial_network

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = find("mackey_glass").changed(hidden=(8,), epochs=2, batch_size=8, data_options={"window": 4, "stride": 40})


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    """The series with few pieces of training, and a short test."""
    whole = data.load("mackey_glass", **SMALL.data_options)
    events, labels = whole.test.events.crop(0.0, 0.8), whole.test.labels[:, :800]
    return dataclasses.replace(whole, test=data.EventDataset(events, labels))


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory):
    """An uninterrupted run."""
    return train(SMALL, tmp_path_factory.mktemp("runs") / "whole", splits=splits, progress=False)


# ---- the objective


def test_smape_is_neurobenchs():
    f, a = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.5, 2.0, 0.5])
    assert metrics.smape(f, a) == pytest.approx(200 / 3 * (0.5 / 2.5 + 1 + 0))
    assert metrics.smape(a, a) == 0 and metrics.smape(torch.zeros(1), torch.zeros(1)) == 200
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.smape(f, a[:2])


def test_the_loss_leaves_out_what_is_not_judged():
    scores = torch.tensor([[[1.0], [2.0], [9.0]]], requires_grad=True)
    labels = torch.tensor([[[0.0], [4.0], [math.nan]]])
    loss = objective.loss(SMALL, Outcome(scores), labels)
    loss.backward()
    assert loss.item() == 2.5 and scores.grad.flatten().tolist() == [1.0, -2.0, 0.0]
    nothing = objective.loss(SMALL, Outcome(scores), torch.full((1, 3, 1), math.nan))
    nothing.backward()
    assert nothing.item() == 0
    with pytest.raises(
        DataError, match=r"numbers to forecast of shape \(1, 3, 1\) for the readout 'each', got \(1, 2, 1\)"
    ):
        objective.loss(SMALL, Outcome(scores), labels[:, :2])


def test_labels_that_are_left_out_have_no_weight():
    recipe = SMALL.changed(direct=False, standardize=False)
    scores = torch.randn(2, 3, 4, requires_grad=True)
    nothing = objective.loss(recipe, Outcome(scores), torch.full((2, 3), -100))
    nothing.backward()
    assert nothing.item() == 0 and not scores.grad.any()
    times = torch.tensor([[0.1, math.inf]])
    first = SpikingRecipe("x", hidden=(3,), readout="first_spike")
    assert objective.loss(first, Outcome(times), torch.tensor([-100])).item() == 0


@torch.no_grad()
def test_losses_weigh_labels_not_samples():
    """Three batches of one sample, with 1, 9 and no labels: the loss is that of all 10."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(10, 3, 4, generator=generator) + 0.1
    network = build(SMALL.changed(direct=False, standardize=False, batch_size=1), 4, 2)
    classes = torch.randint(0, 2, (3, 10), generator=generator)
    numbers = torch.rand(3, 10, 2, generator=generator)
    for labels, none in ((classes, -100), (numbers, math.nan)):
        labels[0, :9], labels[1, :1], labels[2] = none, none, none
        outcome = network.eval()(graded(inputs, 1e-3))
        expected = objective.loss(network.recipe, outcome, labels).item()
        tally = Tally(network.meter())
        for k in range(3):
            one = network(graded(inputs[:, k : k + 1], 1e-3))
            loss = objective.loss(network.recipe, one, labels[k : k + 1]).item()
            tally.add(network.recipe, loss, one, labels[k : k + 1], None)
        assert tally.metrics()["loss"] == pytest.approx(expected, rel=1e-5)
        found = evaluate_network(network, data.EventDataset(graded(inputs, 1e-3), labels))
        assert found.loss == pytest.approx(expected, rel=1e-5)


def test_whether_numbers_are_to_be_forecast_is_asked_without_drawing(splits):
    def never(events):
        raise AssertionError("a sample was taken")

    assert dataclasses.replace(
        splits, train=data.EventDataset(splits.train.events, splits.train.labels, never)
    ).forecasts
    samples = [(splits.train.events[0], torch.tensor(1))]

    class Drawing(torch.utils.data.Dataset):
        def __getitem__(self, index):
            torch.rand(1)
            return samples[index]

    before = torch.random.get_rng_state()
    assert not dataclasses.replace(splits, train=Drawing()).forecasts
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- the forecast


@pytest.mark.parametrize("unit", ["egru", "gru"])
@pytest.mark.parametrize(
    "changes", [{}, {"standardize": False}, {"direct": False}, {"hidden": (8, 8), "trace_decay": 0.5}]
)
@torch.no_grad()
def test_a_forecast_feeds_its_outputs_back(unit, changes):
    """Against a network that is run anew on all that is known for each point."""
    recipe = SMALL.changed(unit=unit, **changes)
    network = build(recipe, 6, 2)
    generator = torch.Generator().manual_seed(0)
    series = torch.rand(2, 12, 2, generator=generator) + 0.1
    inputs = torch.stack([lagged(one, 3) for one in series], 1)
    network.calibrate_(graded(inputs, 1e-3))
    if network.direct is not None:
        torch.nn.init.normal_(network.direct.weight, std=0.1)
    network.eval()
    found = network.forecast(graded(inputs, 1e-3), torch.tensor([7, 5]))
    assert found.shape == (2, 12, 2)
    for k, known in enumerate((7, 5)):
        heard = series[k].clone()
        for step in range(known, 12):
            so_far = graded(lagged(heard[:step], 3)[:, None], 1e-3)
            heard[step] = network(so_far).scores[0, -1]
            torch.testing.assert_close(found[k, step - 1], heard[step], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_is_scored_is_the_free_forecast(splits):
    network = build(SMALL, 4, 1)
    network.calibrate_(splits.train.events)
    found = evaluate_network(network, splits.test)
    events, labels = splits.test.__getitems__([0])
    own = network.forecast(events, torch.tensor([751]))[0, 750:]
    assert found.smape == pytest.approx(metrics.smape(own, labels[0, 750:]))
    assert found.accuracy is None and found.score == ("sMAPE", f"{found.smape:.2f}")
    assert "accuracy" not in found.summary() and found.summary()["smape"] == found.smape
    ahead = network(events).scores[0, 750:]
    assert found.loss == pytest.approx(float(((ahead - labels[0, 750:]) ** 2).mean()), rel=1e-5)


def test_standardized_inputs_have_mean_0_and_deviation_1(splits):
    network = build(SMALL, 4, 1)
    network.calibrate_(splits.train.events)
    values = splits.train.events.values
    assert network.mean.item() == pytest.approx(values.mean().item())
    assert network.deviation.item() == pytest.approx(values.std().item())
    dense = network.dense(splits.validation.events)[10:]
    assert abs(dense.mean().item()) < 0.3 and abs(dense.std().item() - 1) < 0.3
    assert not any("mean" in name for name in build(SMALL.changed(standardize=False), 4, 1).state_dict())


@pytest.mark.parametrize(
    "values, error",
    [
        ([], "expected at least 2 numbers in samples of training, got 0"),
        ([0.5], "expected at least 2 numbers in samples of training, got 1"),
        ([0.7, 0.7, 0.7], "3 numbers all alike, about 0.7"),
        ([1e6, 1e6 + 0.0625, 1e6], "3 numbers all alike"),
        (None, "3 numbers all alike, about 1"),
    ],
)
def test_what_cannot_be_standardized_is_refused(splits, values, error):
    count = 3 if values is None else len(values)
    events = Events.from_list([([1e-3 * k for k in range(count)], [0] * count)], 4, 0.9)
    if values is not None:
        values = torch.tensor(values, dtype=torch.float32)
        events = Events(events.times, events.units, events.offsets, 4, events.duration, values)
    train_part = data.EventDataset(events, torch.zeros(1, 900, 1))
    with pytest.raises(RecipeError, match=f"^standardize: .*{error}"):
        initial_network(SMALL, dataclasses.replace(splits, train=train_part))


def test_classes_are_not_standardized(splits, tmp_path):
    parts = {
        name: data.EventDataset(part.events, part.labels[:, :, 0].nan_to_num(0).round().to(torch.int64))
        for name in ("train", "validation", "test")
        for part in [getattr(splits, name)]
    }
    recipe, classes = SMALL.changed(best="accuracy", epochs=1), dataclasses.replace(splits, **parts, num_classes=2)
    with pytest.raises(RecipeError, match=r"^standardize: .*mackey_glass has classes"):
        train(recipe, tmp_path / "run", splits=classes, progress=False)


def test_more_steps_than_there_are_cannot_be_known():
    events = Events.from_list([([0.0], [0])], 4, 3e-3)
    network = build(SMALL.changed(standardize=False), 4, 1)
    assert network.forecast(events, torch.tensor([3])).shape == (1, 3, 1)
    with pytest.raises(DataError, match="4 steps are said to be known, and the events last 3"):
        network.forecast(events, torch.tensor([4]))


# ---- runs


def test_a_run_shows_no_accuracy(finished, splits, capsys):
    result = json.loads((finished.folder / "result.json").read_text())
    assert set(result) == {"best_epoch", "validation_loss", "seconds", "test"}
    assert result["test"]["smape"] == finished.test.smape and "accuracy" not in result["test"]
    assert finished.validation_accuracy is None and finished.test.accuracy is None
    assert not any("accuracy" in name for name in rows(finished.folder)[0])
    assert "accuracy" not in json.loads((finished.folder / "model.json").read_text())
    assert {path.name for path in finished.plots} == {"learning_curve.png", "forecast.png", "firing_rates.png"}
    assert all(path.stat().st_size > 10_000 for path in finished.plots)
    network, description = load_model(finished.folder)
    assert description["validation_loss"] == finished.validation_loss
    assert evaluate_network(network, splits.test) == finished.test
    found = [float(row["validation_loss"]) for row in rows(finished.folder)]
    assert found[finished.best_epoch - 1] == min(found) and found[-1] < found[0]


def test_the_log_shows_no_accuracy(splits, tmp_path, capsys):
    train(SMALL.changed(epochs=1), tmp_path, splits=splits)
    printed = capsys.readouterr().err
    assert "epoch 1/1: loss " in printed and "validation loss" in printed and "accuracy" not in printed


@pytest.mark.parametrize("step", [0, 1])
def test_a_killed_run_resumes_to_the_same_forecast(finished, splits, tmp_path, step):
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path, splits=splits, progress=False, callbacks=[StopAt(1, step)])
    again = train(None, tmp_path, resume=True, splits=splits, progress=False)
    assert rows(tmp_path) == rows(finished.folder) and same_weights(tmp_path, finished.folder)
    assert again.test == finished.test and math.isfinite(again.test.smape)


def test_a_run_is_evaluated_on_its_data(finished):
    found = evaluate(finished.folder, part="validation")
    assert found.samples == 1 and found.accuracy is None and 0 < found.smape < 200


def test_the_dense_twin_trains(splits, tmp_path):
    result = train(SMALL.changed(unit="gru", epochs=1), tmp_path, splits=splits, progress=False)
    assert result.test.activity["activity"] == 1 and result.test.smape > 0


@pytest.mark.parametrize(
    "recipe, error",
    [
        (SMALL.changed(best="accuracy"), "there is no accuracy; expected best=loss, got accuracy"),
        (SMALL.changed(direct=False, standardize=False, readout="mean"), "expected a gated recipe with readout=each"),
        (SpikingRecipe("x", readout="at", readout_step=1e-3, best="loss"), "expected a gated recipe with readout=each"),
    ],
)
def test_recipes_that_do_not_forecast_are_refused(splits, tmp_path, recipe, error):
    with pytest.raises(DataError, match=error):
        train(recipe, tmp_path / "run", splits=splits, progress=False)
    assert not (tmp_path / "run").exists()


def test_units_that_are_no_whole_steps_are_refused(splits, tmp_path):
    with pytest.raises(DataError, match="whole steps of 3 numbers"):
        train(SMALL, tmp_path, splits=dataclasses.replace(splits, num_classes=3), progress=False)
    events = Events.from_list([([0.0], [0])], 4, 3e-3)
    with pytest.raises(DataError, match="a forecast needs readout=each"):
        build(SMALL, 4, 3).forecast(events, torch.tensor([1]))
    with pytest.raises(DataError, match="networks that go step by step"):
        build(SpikingRecipe("x", hidden=(3,)), 4, 1).forecast(events, torch.tensor([1]))


@pytest.mark.parametrize("name", ["direct", "standardize"])
def test_fields_for_outputs_of_each_step(name):
    with pytest.raises(RecipeError, match=f"{name}: expected readout=each and no embedding"):
        GatedRecipe("x", **{name: True})


def test_the_best_epoch_without_accuracies():
    history = [{"epoch": k, "validation_loss": loss} for k, loss in enumerate((0.3, 0.1, 0.2))]
    assert best_epoch(history, "loss")["epoch"] == 1
