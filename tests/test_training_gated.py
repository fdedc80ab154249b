"""Recipes of gated units: what their networks compute and count, and runs from start to end."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from test_training import StopAt, rows, same_weights

from eventnet import EGRU, Events, cli, counting, data
from eventnet.training import (
    RECIPES,
    DataError,
    GatedRecipe,
    Recipe,
    RecipeError,
    SpikingRecipe,
    build,
    evaluate_network,
    figures,
    find,
    load_model,
    objective,
    train,
)
from eventnet.training.history import best_epoch

pytestmark = pytest.mark.usefixtures("one_thread")

GATED = [name for name, recipe in RECIPES.items() if isinstance(recipe, GatedRecipe)]
SMALL = GatedRecipe(
    name="small",
    hidden=(12, 12),
    step=10e-3,
    dropout=0.2,
    trace_decay=0.5,
    threshold_mean=0.1,
    activity_weight=1.0,
    learning_rate=1e-2,
    epochs=3,
    batch_size=16,
)


def some_events(steps: tuple[int, ...] = (5, 3, 4), units: int = 4, seed: int = 0) -> Events:
    """Graded events, some steps of 10 ms for each sample."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for count in steps:
        at, unit = (torch.rand(count, units, generator=generator) < 0.6).nonzero(as_tuple=True)
        samples.append((at * 10e-3, unit))
    plain = Events.from_list(samples, units, [count * 10e-3 for count in steps])
    values = torch.rand(plain.num_events, generator=generator)
    return Events(plain.times, plain.units, plain.offsets, units, plain.duration, values)


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    """Samples of 3 to 6 steps, whose class is the unit that is heard most."""
    parts = {}
    for seed, (part, size) in enumerate({"train": 64, "validation": 32, "test": 32}.items()):
        lengths = torch.randint(3, 7, (size,), generator=torch.Generator().manual_seed(seed))
        events = some_events(tuple(lengths.tolist()), 3, seed)
        parts[part] = data.EventDataset(events, events.counts().argmax(1))
    return data.Splits(**parts, name="made", num_units=3, num_classes=3, sensor_size=None, note="made")


# ---- the network


@pytest.mark.parametrize("unit", ["egru", "gru", "elm"])
@pytest.mark.parametrize("readout", ["last", "mean", "each"])
@pytest.mark.parametrize("embedding", [0, 6])
def test_a_batch_is_its_samples_whatever_their_lengths(unit, readout, embedding):
    recipe = SMALL.changed(unit=unit, hidden=SMALL.hidden[: 1 if unit == "elm" else None], readout=readout)
    network, events = build(recipe.changed(embedding=embedding), 4, 2).eval(), some_events()
    together = network(events).scores
    for k, length in enumerate((5, 3, 4)):
        alone = network(events.sample(k)).scores
        mine = together[k, :length] if readout == "each" else together[k]
        torch.testing.assert_close(mine, alone[0])


@pytest.mark.parametrize("readout", ["last", "mean", "each"])
def test_scores_are_those_of_the_layer_and_a_linear_readout(readout):
    network, events = build(SMALL.changed(readout=readout), 4, 2).eval(), some_events((5, 5))
    said, _ = network.hidden(events.to_dense(10e-3))
    heard = {"last": said[-1], "mean": said.mean(0), "each": said.transpose(0, 1)}[readout]
    torch.testing.assert_close(network(events).scores, network.readout(heard))


def test_an_elm_is_the_layer_of_the_recipes_fields_and_is_counted():
    form = {"branches": 3, "synapses": 2, "tau_mem": (5e-3, 0.2), "tau_syn": 8e-3}
    network = build(SMALL.changed(unit="elm", hidden=(7,), **form), 4, 2)
    assert network.hidden.index.shape == (3, 2) and network.hidden.readout is None
    torch.testing.assert_close(network.hidden.tau_mem[[0, -1]], torch.tensor([5e-3, 0.2]))
    torch.testing.assert_close(network.hidden.tau_syn, torch.full((3,), 8e-3))
    assert network.hidden.step == SMALL.step
    outcome, meter = network(some_events((5, 5))), network.meter()
    meter.add(outcome)
    dense = 3 * 2 + (3 + 7) * 14 + 14 * 7
    assert meter.metrics()["dense_multiplications"] == pytest.approx(dense)
    for wrong in ({"hidden": (7, 7)}, {"hidden": (7,), "memory": 10.0}):
        with pytest.raises(RecipeError, match="unit: an elm is one layer without gates"):
            SMALL.changed(unit="elm", **wrong)
    with pytest.raises(RecipeError, match="tau_mem: expected shortest,longest"):
        SMALL.changed(tau_mem=(0.2, 0.1))
    with pytest.raises(
        RecipeError, match="synapses: expected at least one for each of the 7 inputs, got 3 branches of 2"
    ):
        build(SMALL.changed(unit="elm", hidden=(7,), **form), 7, 2)


def test_tied_outputs_are_compared_with_the_embeddings():
    network, events = build(SMALL.changed(embedding=6, tied=True), 4, 4).eval(), some_events()
    said = network.hidden(torch.zeros(2, 1, 6))[0][-1]
    torch.testing.assert_close(network.read(said), network.readout(said) @ network.embedding.weight + network.bias)
    assert network(events).scores.shape == (3, 4)
    with pytest.raises(RecipeError, match="data whose classes are its units, got 4 units and 3 classes"):
        build(SMALL.changed(embedding=6, tied=True), 4, 3)


def test_the_twin_has_the_same_parameters_but_for_thresholds():
    ours, theirs = (
        sum(p.numel() for p in build(SMALL.changed(unit=unit), 4, 3).parameters()) for unit in ("egru", "gru")
    )
    assert ours - theirs == 2 * 12


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = build(SMALL, 4, 2).state_dict()
    before = torch.random.get_rng_state()
    again, other = (build(SMALL.changed(seed=seed), 4, 2).state_dict() for seed in (0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["hidden.weight_ih_l0"].equal(other["hidden.weight_ih_l0"])


@pytest.mark.parametrize("unit", ["egru", "gru"])
def test_multiplications_are_those_of_numbers_that_are_not_zero(unit):
    network, meter = build(SMALL.changed(unit=unit), 4, 2).eval(), build(SMALL.changed(unit=unit), 4, 2).meter()
    expected, told, dense, steps = 0, 0, 0, 0
    batches = [some_events(seed=1), some_events((2, 6), seed=2)]
    for events in batches:
        meter.add(network(events))
    for sample in (events.sample(k) for events in batches for k in range(events.batch_size)):
        x = sample.to_dense(10e-3)
        if isinstance(network.hidden, EGRU):
            layers = [done.y for done in network.hidden(x, return_steps=True)[2]]
        else:
            layers = [torch.ones(len(x), 1, 12)] * 2
        for inputs, outputs in zip((x, layers[0]), layers, strict=True):
            expected += 36 * int(inputs.count_nonzero()) + 36 * int(outputs.count_nonzero())
            dense += 36 * (inputs.shape[2] + 12) * len(x)
            told += int(outputs.count_nonzero())
        steps += len(x)
    found = meter.metrics()
    assert found["multiplications"] == pytest.approx(expected / steps, rel=1e-12)
    assert found["dense_multiplications"] == pytest.approx(dense / steps, rel=1e-12)
    assert found["activity"] == pytest.approx(told / (24 * steps), rel=1e-12)
    assert found["activity"] <= found["backward_activity"] <= 1
    assert (found["activity"] == 1) == (unit == "gru")


def test_the_weight_of_the_activity_rises():
    network = build(SMALL.changed(activity_weight=2.0, activity_ramp=0.5, activity_target=0.0), 4, 2)
    outcome = network(some_events())
    whole = network.penalty(outcome, 0.5)
    shares = [heard.steps.fired.mean() for heard in outcome.heard]
    torch.testing.assert_close(whole, 2.0 * (shares[0] ** 2 + shares[1] ** 2))
    torch.testing.assert_close(network.penalty(outcome, 0.25), whole / 2)
    assert network.penalty(outcome, 1.0) == whole and network.penalty(outcome, 0.0) == 0
    assert build(SMALL.changed(activity_weight=0.0), 4, 2).penalty(outcome, 1.0) is None
    dense = build(SMALL.changed(unit="gru"), 4, 2)
    assert dense.penalty(dense(some_events()), 1.0) is None


# ---- recipes


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("unit", ["egru", "gru"])
def test_recipes_build_networks_that_learn_from_events(name, unit):
    recipe = find(name).changed(unit=unit, hidden=(8,), step=10e-3)
    network, events = build(recipe, 4, 4), some_events()
    labels = torch.zeros(3, 5, dtype=torch.int64) if recipe.readout == "each" else torch.zeros(3, dtype=torch.int64)
    objective.loss(recipe, network(events), labels).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_recipes_know_their_family():
    for recipe in (SMALL, SpikingRecipe("x", tau_mem=1e-3)):
        again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
        assert again == recipe and type(again) is type(recipe)
    old = {name: value for name, value in SpikingRecipe("x").to_dict().items() if name != "family"}
    assert Recipe.from_dict(old) == SpikingRecipe("x")  # written before there were families
    with pytest.raises(RecipeError, match="unknown family of recipes 'gatd'; did you mean 'gated'"):
        Recipe.from_dict({**SMALL.to_dict(), "family": "gatd"})


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"hidden": ()}, "expected at least one layer"),
        ({"hidden": (8, 9)}, "expected gated layers of one size, such as 128,128, got 8,9"),
        ({"tied": True}, "expected an embedding"),
        ({"unit": "lstm"}, "unknown value 'lstm'"),
        ({"activity_target": 1.5}, r"expected a number in \[0, 1\)"),
        ({"readout_tau_mem": 1.0}, "unknown field 'readout_tau_mem'"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes, error):
    with pytest.raises(RecipeError, match=error):
        SMALL.changed(**changes)


# ---- runs


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory):
    """An uninterrupted run."""
    return train(SMALL, tmp_path_factory.mktemp("runs") / "whole", splits=splits, progress=False)


def test_a_run_leaves_what_spiking_ones_do(finished, splits):
    assert {path.name for path in finished.plots} == {"learning_curve.png", "activity.png", "firing_rates.png"}
    assert all(path.stat().st_size > 10_000 for path in finished.plots)
    network, description = load_model(finished.folder)
    assert isinstance(network.hidden, EGRU) and description["epoch"] == finished.best_epoch
    assert evaluate_network(network, splits.test) == finished.test
    columns = rows(finished.folder)[0]
    assert 0 < float(columns["train_activity"]) < 1 and float(columns["validation_multiplications"]) > 0
    assert (
        json.loads((finished.folder / "result.json").read_text())["test"]["activity"]
        == finished.test.activity["activity"]
    )


def test_a_run_begun_by_an_older_version_goes_on(splits, tmp_path):
    """Its rows have fewer columns."""
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path, splits=splits, progress=False, callbacks=[StopAt(1, 0)])
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    for row in state["history"]:
        del row["train_backward_activity"]
    torch.save(state, tmp_path / "training.pt")
    train(None, tmp_path, resume=True, splits=splits, progress=False)
    found = rows(tmp_path)
    assert [bool(row["train_backward_activity"]) for row in found] == [False, True, True]


@pytest.mark.parametrize("step", [0, 2])
def test_a_killed_run_resumes_to_the_same_numbers(finished, splits, tmp_path, step):
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path, splits=splits, progress=False, callbacks=[StopAt(1, step)])
    again = train(None, tmp_path, resume=True, splits=splits, progress=False)
    assert rows(tmp_path) == rows(finished.folder) and same_weights(tmp_path, finished.folder)
    assert again.test == finished.test


def test_the_best_epoch_by_loss(splits, tmp_path):
    result = train(SMALL.changed(best="loss", epochs=4), tmp_path, splits=splits, progress=False)
    found = [float(row["validation_loss"]) for row in rows(tmp_path)]
    assert found[result.best_epoch - 1] == min(found)


def test_dense_twins_train_and_are_drawn(splits, tmp_path):
    result = train(SMALL.changed(unit="gru"), tmp_path, splits=splits, progress=False)
    assert result.test.activity["activity"] == 1 and len(result.plots) == 3


def test_labels_that_are_not_per_step_are_refused(splits, tmp_path):
    with pytest.raises(ValueError, match="readouts 'at' and 'each' need a label per step"):
        train(SMALL.changed(readout="each"), tmp_path, splits=splits, progress=False)


def test_by_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = "@classLabel true 1 2\n@data\n"
    series = [f"{k % 2},1,0,2:{k % 2},0.5,1,1:{k % 2 + 1}" for k in range(20)]
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text(header + "\n".join(series))
    options = ["--hidden", "8", "--epochs", "2", "--data-root", str(tmp_path), "--out", "run"]
    assert cli.main(["train", "vowels", *options]) == 0
    printed = capsys.readouterr()
    assert "of units active" in printed.err and "multiplications a step" in printed.err
    assert "active units" in printed.out and "multiplications" in printed.out
    assert cli.main(["evaluate", "run"]) == 0
    assert "active units" in capsys.readouterr().out
    assert cli.main(["train", "vowels", *options[:-1], "other", "--readout-tau-mem", "1"]) == 2
    assert "no such option" in capsys.readouterr().err.lower()


def test_a_network_that_is_loaded_or_drawn_drops_nothing(finished, splits):
    network, _ = load_model(finished.folder)
    events = splits.validation.events
    assert not network.training and network(events).scores.equal(network(events).scores)
    fresh = build(SMALL.changed(dropout=0.5), 3, 3)
    pictures = [figures.activity_of(fresh, splits) for _ in range(2)]
    assert pictures[0].voltage.equal(pictures[1].voltage)
    said = pictures[0].voltage[int(events.num_steps(10e-3)[0]) - 1]
    assert int(said.argmax()) == pictures[0].predicted  # the last step is what is read


def test_steps_of_another_length_than_those_of_the_data_are_refused(splits, tmp_path):
    stepped = dataclasses.replace(splits, step=5e-3)
    with pytest.raises(DataError, match=r"made comes in steps of 0\.005 s; expected step=0\.005, got 0\.01"):
        train(SMALL, tmp_path / "a", splits=stepped, progress=False)
    assert train(SMALL.changed(step=5e-3, epochs=1), tmp_path / "b", splits=stepped, progress=False).best_epoch == 1


def test_a_sample_that_lasts_no_time_is_named():
    with pytest.raises(DataError, match="sample 1 of the batch lasts 0 s"):
        build(SMALL, 2, 2)(Events.from_list([([0.0], [1]), ([], [])], 2, [0.1, 0.0]))


def test_the_best_of_a_history():
    history = [
        {"epoch": 1, "validation_accuracy": 0.9, "validation_loss": 0.5},
        {"epoch": 2, "validation_accuracy": 0.8, "validation_loss": 0.4},
        {"epoch": 3, "validation_accuracy": 0.9, "validation_loss": 0.45},
    ]
    assert best_epoch(history)["epoch"] == 3 and best_epoch(history, "loss")["epoch"] == 2


def test_a_silent_layer_is_pointed_out(splits, tmp_path, capsys):
    recipe = SMALL.changed(threshold_mean=0.999, half_width=1e-3, learning_rate=1e-9, epochs=1)
    train(recipe, tmp_path, splits=splits)
    assert "hidden layer 1 told nothing; a smaller --threshold-mean" in capsys.readouterr().err


def test_dropout_is_for_training_only():
    network = build(SMALL.changed(dropout=0.5), 4, 2)
    events = some_events()
    assert not network(events).scores.equal(network(events).scores)
    dataset = data.EventDataset(events, torch.zeros(3, dtype=torch.int64))
    assert evaluate_network(network, dataset) == evaluate_network(network, dataset) and network.training
    network.eval()
    assert network(events).scores.equal(network(events).scores)


def test_tied_outputs_are_counted():
    """The product with the embedding's weight, which has no layer of its own, costs outputs x embedding in each step."""
    recipe = GatedRecipe(name="mine", hidden=(6,), step=1e-3, embedding=5, tied=True, readout="each")
    network = build(recipe, 7, 7)
    events = Events.from_list([([0.0, 1e-3, 2e-3], [1, 4, 2])], num_units=7, duration=3e-3)
    found = counting.count(network, [events], dt=1e-3)
    assert found["tied"].multiply_accumulates == 3 * 5 * 7
    assert found["embedding"].accumulates == 3 * 5  # one-hot inputs
    assert set(network.state_dict()) == {*dict(network.named_parameters())}  # the weight has one name
    copied = copy.deepcopy(network)
    assert copied.tied.shared[0] is copied.embedding
