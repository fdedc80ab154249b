"""A run from start to end: what it leaves behind, that a killed one resumes to the same numbers, that the gradients are exact."""

import csv
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from eventnet import Events, data, diagnosing
from eventnet.training import (
    CheckpointError,
    DataError,
    Recipe,
    RecipeError,
    SpikingRecipe,
    TrainingError,
    evaluate,
    evaluate_network,
    find,
    load_model,
    run,
    train,
)
from eventnet.training.batches import Batches, shift_units
from eventnet.training.gradient_check import example, max_relative_error
from eventnet.training.run import fresh_folder

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = find("digits").changed(hidden=(30,), epochs=4, input_dropout=0.2)


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    """A few digits."""
    whole = data.load("digits")
    sizes = {"train": 200, "validation": 60, "test": 80}
    return dataclasses.replace(whole, **{part: getattr(whole, part).select(range(n)) for part, n in sizes.items()})


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory):
    """An uninterrupted run."""
    return train(SMALL, tmp_path_factory.mktemp("runs") / "whole", splits=splits, progress=False)


class StopAt:
    """Makes a Lightning callback that raises in the middle of an epoch."""

    def __new__(cls, epoch: int, step: int):
        from lightning.pytorch.callbacks import Callback

        class Stop(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                if (module.epoch, batch_idx) == (epoch, step):
                    raise InterruptedError("power cut")

        return Stop()


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what the clock says."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: row[name] for name in row if name != "seconds"} for row in csv.DictReader(file)]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_model(folder)[0].state_dict() for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- what a run leaves behind


def test_a_run_has_everything(finished):
    folder = finished.folder
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.csv",
        "model.json",
        "model.safetensors",
        "training.pt",
        "result.json",
        "plots/learning_curve.png",
        "plots/activity.png",
        "plots/firing_rates.png",
    }
    assert all(path.stat().st_size > 10_000 for path in finished.plots)
    assert Recipe.from_dict(json.loads((folder / "config.json").read_text())["recipe"]) == SMALL
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3", "4"]


def test_it_learns_and_keeps_the_best_epoch(finished):
    accuracies = [float(row["validation_accuracy"]) for row in rows(finished.folder)]
    assert finished.validation_accuracy == max(accuracies) > 0.5
    assert accuracies[finished.best_epoch - 1] == max(accuracies)
    assert float(rows(finished.folder)[-1]["train_loss"]) < 0.9 * float(rows(finished.folder)[0]["train_loss"])


def test_the_result_is_that_of_the_saved_model(finished, splits):
    network, description = load_model(finished.folder)
    test = evaluate_network(network, splits.test)
    assert test == finished.test
    assert json.loads((finished.folder / "result.json").read_text())["test"] == test.summary()
    assert description["epoch"] == finished.best_epoch
    assert evaluate_network(network, splits.validation).accuracy == finished.validation_accuracy


def test_evaluate_reads_the_data_itself(tmp_path):
    recipe = find("digits").changed(hidden=(10,), epochs=1)
    result = train(recipe, tmp_path / "run", progress=False)
    assert evaluate(tmp_path / "run") == result.test
    assert evaluate(tmp_path / "run", part="validation").accuracy == result.validation_accuracy


def test_a_run_that_is_not_finished_is_tested_only_if_asked_to(tmp_path, monkeypatch):
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path / "run", progress=False, callbacks=[StopAt(1, 0)])
    assert evaluate(tmp_path / "run", part="validation").samples == 180
    assert evaluate(tmp_path / "run", part="test").samples == 360
    monkeypatch.setattr(run, "load_model", None)  # what cannot be evaluated is refused before anything is loaded
    monkeypatch.setattr(run, "load_data", None)
    with pytest.raises(CheckpointError, match=r"run is not finished, .*part='validation'"):
        evaluate(tmp_path / "run")
    with pytest.raises(RecipeError, match="part: expected train, validation, test, got 'tset'; did you mean 'test'"):
        evaluate(tmp_path / "run", part="tset")


def test_the_global_random_state_is_left_alone(splits, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(SMALL.changed(epochs=1), tmp_path / "run", splits=splits, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        dict(readout="first_spike", init_mean=(0.3, 0.3), init_firing=None, lift=0.01),
        dict(readout="integral", readout_decay=0.02),
        dict(hidden=(20, 15), learn=("weight", "tau_mem", "threshold", "bias"), gradient_clip=1.0),
        dict(count_weight=0.1, count_target=1.0, rate_weight=1e-6, input_shift=2),
        dict(hidden=()),
        dict(hidden=(20, 15), recurrent=True, recurrent_delay=(1e-3, 5e-3), delay=(0.0, 5e-3), delay_kind="axonal"),
    ],
    ids=["first_spike", "integral", "learn", "penalties", "no hidden layer", "recurrent"],
)
def test_other_recipes_train(splits, tmp_path, changes):
    result = train(SMALL.changed(epochs=1, **changes), tmp_path / "run", splits=splits, progress=False)
    assert result.test.samples == 80
    assert 0 <= result.test.accuracy <= 1
    network = load_model(result.folder)[0]
    if "learn" in changes:
        assert network.hidden[0].tau_mem.item() != pytest.approx(SMALL.tau_mem, abs=1e-12)
        assert network.hidden[0].tau_mem.item() == pytest.approx(SMALL.tau_mem, rel=0.1)


@pytest.mark.parametrize("readout", ["max", "first_spike"])
def test_a_slope_floor_says_how_many_spikes_it_concerns(splits, tmp_path, capsys, readout):
    changes = dict(hidden=(20,), epochs=1, slope_floor=60.0, readout=readout, init_mean=(0.3, 0.3))
    folder = train(SMALL.changed(**changes), tmp_path / "run", splits=splits).folder
    (row,) = rows(folder)
    assert 0 < float(row["train_floored_share"]) < 1 and 0 < float(row["validation_floored_share"]) < 1
    told = f"{float(row['train_floored_share']):.1%} of spikes below the slope floor"
    assert told in capsys.readouterr().err
    network = load_model(folder)[0]  # of the epoch's end, as its validation
    floored = spikes = 0
    for events, _ in Batches(splits.validation, 16):
        with diagnosing(network) as found:
            network(events)
        floored += sum(layer.floored for layer in found.values())
        spikes += sum(layer.spikes for layer in found.values())
    assert floored / spikes == pytest.approx(float(row["validation_floored_share"]))
    assert len(found) == (1 if readout == "max" else 2)


def test_without_a_slope_floor_nothing_is_said_of_it(finished):
    assert not any("floored" in name for row in rows(finished.folder) for name in row)


def test_delays_are_learnt_at_their_own_rate_and_stay_at_least_zero(splits, tmp_path):
    own = dict(recurrent=True, delay=(0.0, 1e-3), recurrent_delay=(0.0, 1e-3), delay_learning_rate=0.5e-3)
    recipe = SMALL.changed(hidden=(10,), init_firing=0.8, epochs=1, **own)
    start = run.initial_network(recipe, splits).hidden[0]
    layer = load_model(train(recipe, tmp_path / "run", splits=splits, progress=False).folder)[0].hidden[0]
    for name in ("delay", "recurrent_delay"):
        value, moved = getattr(layer, name), (getattr(layer, name) - getattr(start, name)).abs()
        assert value.min() == 0 and 0.5e-3 < moved.max() < 7 * 0.5e-3  # seven steps, some against a bound
    assert not torch.equal(layer.recurrent_weight, start.recurrent_weight)


def test_a_recurrent_delayed_run_resumes_to_the_same_numbers(splits, tmp_path):
    recipe = SMALL.changed(hidden=(10,), recurrent=True, delay=(0.0, 5e-3), epochs=3)
    whole = train(recipe, tmp_path / "whole", splits=splits, progress=False)
    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "run", splits=splits, progress=False, callbacks=[StopAt(1, 3)])
    assert train(None, tmp_path / "run", resume=True, splits=splits, progress=False).test == whole.test
    assert same_weights(tmp_path / "run", whole.folder) and rows(tmp_path / "run") == rows(whole.folder)


def test_silent_layers_are_named_once_per_epoch(splits, tmp_path, capsys):
    silent = dict(init_firing=None, lift=0.0, init_mean=(0.3, -1.0, 0.1), init_std=(0.1, 0.0, 0.0))
    recipe = SMALL.changed(hidden=(10, 5), readout="first_spike", epochs=2, **silent)
    train(recipe, tmp_path / "run", splits=splits)
    told = [line for line in capsys.readouterr().err.splitlines() if "did not spike once" in line]
    assert [line.split(" did")[0].strip() for line in told] == ["hidden layer 2", "the readout"] * 2
    assert all("--lift" in line and "--init-firing" in line for line in told)


@pytest.mark.parametrize(("width", "numbers"), [(30, False), (60, False), (80, True), (120, True)])
def test_the_bar_shows_epoch_and_time_left_at_any_width(splits, tmp_path, monkeypatch, width, numbers):
    from lightning.pytorch.callbacks import Callback
    from rich.console import Console

    from eventnet.training import recorder

    class Draw(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            bar._next = 0.0
            bar.on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    screen = io.StringIO()
    bar = recorder.Progress(100)
    bar.console, bar.live = Console(file=screen, force_terminal=True, width=width), True
    bar._left = lambda done, remaining: 187
    train(SMALL.changed(epochs=1), tmp_path / "run", splits=splits, progress=False, callbacks=[bar, Draw()])
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).rpartition("min left")[0].rpartition("\r")[2]
    assert last.startswith("epoch 1/100") and last.endswith("3:07 ")
    assert ("spikes per neuron" in last) == numbers


def test_labels_per_step(tmp_path):
    generator = torch.Generator().manual_seed(0)
    raster = (torch.rand(25, 24, 4, generator=generator) < 0.2).float()
    events = Events.from_dense(raster, 4e-3)
    labels = raster.argmax(2).T.contiguous()
    labels[:, 0] = -100
    parts = [data.EventDataset(events[k : k + 8], labels[k : k + 8]) for k in (0, 8, 16)]
    splits = data.Splits(*parts, name="steps", num_units=4, num_classes=4, sensor_size=None, note="made here")
    recipe = SpikingRecipe(
        "steps", hidden=(12,), readout="at", readout_step=4e-3, epochs=2, batch_size=4, init_mean=(1.0, 0.1)
    )
    result = train(recipe, tmp_path / "run", splits=splits, progress=False)
    assert result.test.accuracy * 8 * 24 == pytest.approx(round(result.test.accuracy * 8 * 24))


# ---- order, dropout, resuming


def test_order_depends_on_seed_and_epoch_only(splits):
    def labels(seed, epoch, disturb=0):
        torch.manual_seed(disturb)
        batches = Batches(splits.train, 32, shuffle=True, seed=seed, dropout=0.3)
        batches.set_epoch(epoch)
        made = list(batches)
        return torch.cat([label for _, label in made]), torch.cat([events.times for events, _ in made])

    first, again = labels(0, 3), labels(0, 3, disturb=9)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (labels(0, 4), labels(1, 3)):
        assert not torch.equal(first[0], other[0])
        assert torch.equal(first[0].sort().values, other[0].sort().values)


def test_batches_cover_the_data_once(splits):
    batches = Batches(splits.validation, 25)
    assert [labels.numel() for _, labels in batches] == [25, 25, 10]
    assert len(batches) == 3
    assert torch.equal(torch.cat([labels for _, labels in batches]), splits.validation.labels)


def test_dropout_leaves_out_the_asked_share(splits):
    kept = sum(events.num_events for events, _ in Batches(splits.train, 32, shuffle=True, dropout=0.25))
    assert kept / splits.train.events.num_events == pytest.approx(0.75, abs=0.03)


def test_shift_moves_each_sample_as_a_whole():
    events = Events.from_list([([0.1, 0.2], [5, 6])] * 50, num_units=12, duration=1.0)
    torch.manual_seed(0)
    moved = shift_units(events, 3)
    assert torch.equal(moved.units[1::2] - moved.units[::2], torch.ones(50, dtype=torch.int32))
    assert set((moved.units[::2] - 5).tolist()) == set(range(-3, 4))
    edge = shift_units(Events.from_list([([0.1], [0])] * 50, num_units=2, duration=1.0), 3)
    assert edge.num_events < 50 and int(edge.units.max()) <= 1


def test_a_stopped_run_resumes_to_the_same_numbers(finished, splits, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(run, "_unclaim", lambda folder: None)  # as where the power fails
    for epoch in (0, 2):  # once before there is anything to go on from, once in the third epoch
        with pytest.raises(InterruptedError):
            train(SMALL, folder, splits=splits, progress=False, resume=epoch > 0, callbacks=[StopAt(epoch, 3)])
    assert len(rows(folder)) == 2
    result = train(None, folder, resume=True, splits=splits, progress=False)
    assert rows(folder) == rows(finished.folder)
    assert same_weights(folder, finished.folder)
    assert result.test == finished.test


def test_a_run_killed_by_the_system_resumes_to_the_same_numbers(tmp_path):
    arguments = ["train", "digits", "--hidden", "40", "--epochs", "12", "--out", str(tmp_path / "killed")]
    code = f"import torch; torch.set_num_threads(1)\nfrom eventnet.cli import main\nmain({arguments!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "training.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    killed_after = len(rows(tmp_path / "killed"))
    train(None, tmp_path / "killed", resume=True, progress=False)
    whole = train(find("digits").changed(hidden=(40,), epochs=12), tmp_path / "whole", progress=False)
    assert 1 <= killed_after < 12
    assert rows(tmp_path / "killed") == rows(whole.folder)
    assert same_weights(tmp_path / "killed", whole.folder)


def test_resume_keeps_the_recipe(splits, tmp_path):
    with pytest.raises(InterruptedError):
        train(SMALL, tmp_path / "run", splits=splits, progress=False, callbacks=[StopAt(1, 0)])
    with pytest.raises(RecipeError, match=r"keeps its recipe \(digits\), but learning_rate, epochs differ"):
        train(SMALL.changed(learning_rate=1.0, epochs=9), tmp_path / "run", resume=True, splits=splits)


def test_ctrl_c_says_how_to_go_on(splits, tmp_path):
    from lightning.pytorch.callbacks import Callback

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if module.epoch == 1:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(TrainingError, match=r"stopped after epoch 1 of 4; .*--resume"):
            train(SMALL, tmp_path / "run", splits=splits, progress=False, callbacks=[Interrupt()])
    finally:
        signal.signal(signal.SIGINT, before)


# ---- bad input


def test_nan_loss_stops_and_keeps_what_was_saved(splits, tmp_path):
    from lightning.pytorch.callbacks import Callback

    class Spoil(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if (module.epoch, batch_idx) == (1, 2):
                with torch.no_grad():
                    module.network.readout.weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"epoch 2, step 3: .*(nan|not finite).*; try a smaller learning_rate"):
        train(SMALL, tmp_path / "run", splits=splits, progress=False, callbacks=[Spoil()])
    assert len(rows(tmp_path / "run")) == 1
    assert all(bool(torch.isfinite(p).all()) for p in load_model(tmp_path / "run")[0].parameters())


def test_folder_of_another_run_is_refused(finished, splits):
    with pytest.raises(CheckpointError, match="is not empty; --resume"):
        train(SMALL, finished.folder, splits=splits)


def test_a_finished_run_is_not_resumed(finished, splits):
    with pytest.raises(CheckpointError, match="this run is finished"):
        train(None, finished.folder, resume=True, splits=splits)


def test_nothing_to_resume(tmp_path, splits):
    with pytest.raises(CheckpointError, match=r"no config.json there"):
        train(None, tmp_path, resume=True, splits=splits)


def test_train_without_a_recipe(tmp_path):
    with pytest.raises(RecipeError, match="expected a recipe, got None"):
        train(None, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(data="digit"), "unknown data set 'digit'.*'digits'"),
        (dict(data="nmnist"), "pass data_root=<folder that holds them> or set .*EVENTNET_DATA"),
        (dict(data_options={"duratoin": 1.0}), "unknown option 'duratoin'.*'duration'"),
    ],
)
def test_data_that_cannot_be_loaded(tmp_path, monkeypatch, changes, message):
    monkeypatch.delenv("EVENTNET_DATA", raising=False)
    with pytest.raises(DataError, match=message):
        train(SMALL.changed(**changes), tmp_path / "run", progress=False)


def test_fresh_folder(tmp_path):
    assert fresh_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert fresh_folder(tmp_path / "a") == tmp_path / "a-3"


# ---- gradients


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eventprop_is_exact(seed):
    network, loss = example(seed=seed)
    assert max_relative_error(network, loss) < 1e-7


def test_a_wrong_gradient_is_found():
    network, loss = example()
    weight = network.layers[0].weight
    handle = weight.register_hook(lambda gradient: gradient * 1.01)
    assert max_relative_error(network, loss) == pytest.approx(0.01, rel=0.05)
    handle.remove()


def test_gradient_check_of_a_closed_form():
    module = nn.Linear(3, 1).double()
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert max_relative_error(module, lambda: (module(x) ** 2).sum()) < 1e-6


def test_gradient_check_refuses_what_it_cannot_check():
    with pytest.raises(TypeError, match=r"weight is torch.float32; differences need float64"):
        max_relative_error(nn.Linear(2, 1), lambda: torch.zeros(()))
    with pytest.raises(ValueError, match="no parameter requires grad"):
        max_relative_error(nn.Linear(2, 1).requires_grad_(False), lambda: torch.zeros(()))
    with pytest.raises(ValueError, match="expected a loss function"):
        max_relative_error(nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("problem", "message"),
    [(ValueError("broken"), "broken"), (KeyboardInterrupt(), "stopped in epoch 1 of 4; there was nothing to keep")],
)
def test_a_run_that_fails_in_its_first_epoch_leaves_no_folder(splits, tmp_path, problem, message):
    from lightning.pytorch.callbacks import Callback

    class Fail(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            raise problem

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((ValueError, TrainingError), match=message):
            train(SMALL, tmp_path / "run", splits=splits, progress=False, callbacks=[Fail()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_saved_stays(splits, tmp_path, monkeypatch):
    from eventnet.training import recorder

    def fail(*_, **__):
        raise CheckpointError("no space left")

    monkeypatch.setattr(recorder, "save_state", fail)
    with pytest.raises(CheckpointError, match="no space left"):
        train(SMALL, tmp_path / "run", splits=splits, progress=False)
    assert load_model(tmp_path / "run")[1]["epoch"] == 1


def test_what_cannot_start_leaves_no_folder(tmp_path):
    with pytest.raises(RecipeError, match="accelerator: expected cpu, gpu, auto, got 'gpuu'; did you mean 'gpu'"):
        train(find("digits"), tmp_path / "run", accelerator="gpuu")
    with pytest.raises(DataError):
        train(find("nmnist"), tmp_path / "run", data_root=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
