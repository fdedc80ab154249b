"""What ``benchmark`` and the command line say of a network: counts that add up, baselines that are fair, files that are whole."""

import json

import pytest
import torch
from torch import nn

from eventnet import EGRU, LI, LIF, Events, cli, files
from eventnet.cli_hardware import _task_step, headline, summary
from eventnet.counting import Counts, count
from eventnet.hardware import compile
from eventnet.hardware.baselines import Baseline
from eventnet.hardware.benchmark import (
    FORMAT,
    HIDDEN_ZEROS,
    _activity,
    _inputs,
    _share,
    _twins,
    _zero_outputs,
    _zeros,
    benchmark,
)
from eventnet.hardware.benchmark_page import Run, page
from eventnet.hardware.counting import count_deployed
from eventnet.hardware.energy import estimate
from eventnet.hardware.energy_profiles import ENERGY_PROFILES
from eventnet.training import find

pytestmark = pytest.mark.usefixtures("one_thread")


class Spiking(nn.Sequential):
    def forward(self, events):
        return super().forward(events).max()


class PerStep(nn.Module):
    """The same answer in each of 60 steps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, events):
        return self.model(events)[:, None].expand(-1, 60, -1)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.units, self.readout = EGRU(5, 6, step=1e-3), nn.Linear(6, 2)

    def forward(self, events):
        return self.readout(self.units(events)[0][-1])


def spiking() -> Spiking:
    torch.manual_seed(0)
    hidden = LIF(8, 12, recurrent=True, delay=(0.0, 5e-3))
    with torch.no_grad():
        hidden.weight.abs_().mul_(4)
    return Spiking(hidden, LI(12, 3))


def samples(units: int = 8, batch: int = 6) -> tuple[Events, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts = []  # at most one event of a unit in a step of 1 ms
    for _ in range(batch):
        step, unit = (torch.rand(50, units, generator=generator) < 0.08).nonzero(as_tuple=True)
        parts.append((step * 1e-3, unit))
    return Events.from_list(parts, num_units=units, duration=0.06), torch.arange(batch) % 3


def test_the_twin_is_charged_and_the_trained_network_counted_beside_it():
    model, (events, labels) = spiking(), samples()
    found = benchmark(model, events, labels, dt=1e-3, calibration=events)
    assert found["charged"] == "fixed_point" and set(found["counts"]) == {"trained", "fixed_point"}
    counted = count_deployed(compile(model, calibration=events, dt=1e-3), events)
    assert found["counts"]["fixed_point"]["hidden_0"]["accumulates"] == counted["hidden_0"].accumulates / 6
    mine = estimate(counted, "loihi1", dt=1e-3).dynamic
    assert found["energy"]["loihi1"]["dynamic_joules_per_sample"] == pytest.approx(mine.to_list())
    assert found["accuracy"]["trained"]["labels"] == 6
    guess = model(events).argmax(1)
    assert found["accuracy"]["trained"]["share"] == pytest.approx(float((guess == labels).float().mean()))
    assert {*found["energy"], *found["refused"]} == set(ENERGY_PROFILES)
    json.dumps(found, allow_nan=False)


def test_without_calibration_or_a_twin_the_trained_network_is_charged_and_the_note_says_why():
    events, labels = samples()
    found = benchmark(spiking(), events, labels, dt=1e-3)
    assert found["charged"] == "trained" and "No fixed-point twin was compiled" in found["notes"][0]
    events, _ = samples(units=5)
    found = benchmark(Gated(), events, labels, dt=1e-3, calibration=events)
    assert found["charged"] == "trained" and "No fixed-point twin: " in found["notes"][0]


def test_a_silent_network_is_priced_all_the_same():
    model, (events, labels) = spiking(), samples()
    with torch.no_grad():
        model[0].weight.zero_()
    found = benchmark(model, events, labels, dt=1e-3)
    assert found["energy"]["loihi1"]["causes_joules_per_sample"]["state_updates"][0] > 0
    assert found["energy"]["loihi1"]["causes_joules_per_sample"]["accumulates"] == [0, 0]
    assert found["sparsity"] == []
    json.dumps(found, allow_nan=False)


def test_what_multiplies_values_is_refused_by_devices_that_cannot():
    events, _ = samples(units=5)
    found = benchmark(Gated(), events, None, dt=1e-3)
    assert found["accuracy"] == {} and "loihi1" in found["refused"] and "asic45" in found["energy"]


def test_nothing_is_read_of_no_samples():
    events, labels = samples()
    with pytest.raises(ValueError, match="at least one sample"):
        benchmark(spiking(), events[:0], labels[:0], dt=1e-3)


@pytest.mark.parametrize(
    "dense, outside, expected",
    [
        (10 * 4 * 5, 0.75, 0.75),  # feed-forward: 4 units from outside, 10 steps, 5 neurons
        (10 * 5 * (4 + 5), 0.75, 4 / 9 * 0.75 + 5 / 9 * HIDDEN_ZEROS),  # recurrent
        (3 * 10 * 5 * (4 + 5), 0.0, 5 / 9 * HIDDEN_ZEROS),  # gated, an input in every step
    ],
)
def test_zeros_of_the_dense_twin_are_those_counted(dense, outside, expected):
    layer = Counts(samples=1, steps=10, neurons=5, dense=dense)
    layers = {"input": Counts(samples=1, steps=10, neurons=4), "first": layer, "second": layer}
    found = _zeros(layers, 4, outside, HIDDEN_ZEROS)
    assert found["first"] == pytest.approx(expected) and found["second"] == HIDDEN_ZEROS
    assert _zero_outputs(layers, outside, HIDDEN_ZEROS) == {"input": outside, "first": HIDDEN_ZEROS, "second": 0.0}


def test_what_asks_for_the_context_is_no_layer_of_the_dense_twin():
    """The nearest of 3 prototypes is found before the first layer hears the same 4 units; neither sends what has zeros."""
    search = Counts(samples=1, steps=10, dense=10 * 4 * 3)
    layer = Counts(samples=1, steps=10, neurons=5, dense=10 * 4 * 5)
    layers = {"input": Counts(samples=1, steps=10, neurons=4), "prototypes": search, "first": layer, "second": layer}
    assert _zeros(layers, 4, 0.75, HIDDEN_ZEROS) == {
        "input": HIDDEN_ZEROS,
        "prototypes": 0.75,
        "first": 0.75,
        "second": HIDDEN_ZEROS,
    }


def twins_of(model, events, **options) -> tuple[Baseline, ...]:
    counts = {"input": _inputs(events, 1e-3), **count(model, [events], dt=1e-3)}
    return _twins(model, counts, events, 1e-3, options.get("baseline_dt", 1e-3), options.get("answers", 1))


def test_zeros_of_one_pass_are_the_units_that_stay_silent():
    """One unit of 8 hears nothing in any sample, and one hears something in every second sample."""
    times = [[0.001 * k for k in range(7 - b % 2)] for b in range(6)]
    events = Events.from_list([(x, list(range(len(x)))) for x in times], num_units=8, duration=0.06)
    model = Spiking(LIF(8, 12), LI(12, 3))
    every, _, _, once = twins_of(model, events)
    writes = once.operations["input"]["buffer_writes"]
    assert writes == pytest.approx(6.5) and every.operations["input"]["buffer_writes"] == 8 * 60
    assert once.operations["0"]["multiply_accumulates"] == pytest.approx(6.5 * 12)
    assert once.operations["1"]["multiply_accumulates"] == pytest.approx(12 * 3 * HIDDEN_ZEROS)
    gated = twins_of(Gated(), samples(units=5)[0])
    assert gated[3].operations["readout"] == gated[2].operations["readout"]  # no zeros among gated units
    assert gated[0].operations["units"]["state_updates"] == 6 * 60 and not every.operations["0"]["state_updates"]


def test_the_baselines_take_the_tasks_steps():
    model, (events, labels) = spiking(), samples()
    found = benchmark(model, events, labels, dt=1e-3, baseline_dt=4e-3)
    assert found["identity"]["step_s"] == 1e-3 and found["identity"]["baseline_step_s"] == 4e-3
    every = found["baselines"][0]
    assert every["steps_per_sample"] == 15 and every["latency_seconds_per_sample"] == pytest.approx([0.06] * 2)
    assert any("steps of 4 ms, the task's, where the chip takes steps of 1 ms" in x for x in found["assumptions"])
    same = benchmark(model, events, labels, dt=1e-3)
    assert same["identity"]["baseline_step_s"] == 1e-3 and same["baselines"][0]["steps_per_sample"] == 60
    assert same["energy"] == found["energy"]


def test_only_one_answer_for_each_sample_has_a_baseline_of_one_pass():
    model, (events, labels) = spiking(), samples()
    one = benchmark(model, events, labels, dt=1e-3)
    assert any("one pass" in each["name"] for each in one["baselines"]) and len(one["break_even"]["loihi1"]) == 2
    many = benchmark(PerStep(model), events, labels[:, None].expand(6, 60), dt=1e-3)
    assert not any("one pass" in each["name"] for each in many["baselines"]) and len(many["break_even"]["loihi1"]) == 1
    assert any("a sample has up to 60 answers" in note for note in many["notes"])


def test_events_from_outside_are_in_the_break_even():
    model, (events, labels) = spiking(), samples()
    found = benchmark(model, events, labels, dt=1e-3)
    even = found["break_even"]["asic45"][0]
    at = even["rates_events_per_connection_and_step"]
    own = even["own_rate_events_per_connection_and_step"]
    before = max(k for k, rate in enumerate(at) if rate <= own)
    low, high = (even["energy_joules_per_sample"][k][1] for k in (before, before + 1))
    line = low + (high - low) * (own - at[before]) / (at[before + 1] - at[before])
    assert line == pytest.approx(found["energy"]["asic45"]["dynamic_joules_per_sample"][1], rel=1e-6)


def test_events_that_no_layer_gets_are_not_counted():
    events = Events.from_list([([0.01, 0.02, 0.05], [0, 1, 2]), ([0.01, 0.02], [0, 1])], 4, duration=[0.02, 0.05])
    assert _inputs(events, 1e-3).spikes == 3
    found = benchmark(Spiking(LIF(4, 3), LI(3, 2)), events, None, dt=1e-3)
    assert found["identity"]["input_events_per_sample"] == 1.5


def test_activity_is_that_of_the_samples_that_still_last():
    """Two neurons that both fire in every step, of one sample for 2 steps and of one for 6."""
    layer = Counts(samples=2, steps=8, neurons=2, spikes_per_step=torch.tensor([4, 4, 2, 2, 2, 2]))
    found = _activity({"a": layer}, torch.tensor([2, 6]), 1e-3)["a"]
    assert found["rate_hz"] == [1000.0] * 6
    long = Counts(samples=2, steps=602, neurons=1, spikes_per_step=torch.ones(600, dtype=torch.int64))
    assert set(_activity({"a": long}, torch.tensor([2, 600]), 1e-3)["a"]["rate_hz"][1:]) == {1000.0}


def test_intervals_of_labels_per_step_are_of_samples():
    """All steps of a sample are right or all are wrong: as sure as 20 samples, not as 2,000 steps."""
    labels = torch.zeros(20, 100, dtype=torch.int64)
    predictions = (torch.arange(20) % 2)[:, None].expand(20, 100)
    found = _share(predictions, labels)
    assert found["share"] == 0.5 and found["labels"] == 2000 and found["interval"] == "bootstrap over samples"
    assert found["high"] - found["low"] > 0.3 and found == _share(predictions, labels)
    assert _share(predictions[:, 0], labels[:, 0])["interval"] == "Wilson"
    assert _share(predictions[:, :50], labels)["share"] == 0.25  # a shorter piece
    assert "one sample" in _share(predictions[:1], labels[:1])["interval"]


def test_labels_that_are_all_ignored_and_samples_of_no_duration():
    model, (events, labels) = spiking(), samples()
    found = benchmark(model, events, torch.full_like(labels, -100), dt=1e-3)
    assert found["accuracy"]["trained"]["share"] is None and found["accuracy"]["trained"]["labels"] == 0
    json.dumps(found, allow_nan=False)
    nothing = Events.from_list([([], []), ([], [])], num_units=8, duration=0.0)
    empty = benchmark(model, nothing, labels[:2], dt=1e-3)
    json.dumps(empty, allow_nan=False)
    for facts in (found, empty):
        assert "<h1>" in page([Run("a", facts)]) and all(summary(facts)) and headline(facts)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert cli.main(["train", "digits", "--hidden", "30", "--epochs", "1", "--out", str(folder)]) == 0
    assert cli.main(["benchmark", str(folder), "--limit", "20"]) == 0
    return folder


def test_the_command_writes_what_it_shows(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["benchmark", str(run), "--limit", "20"]) == 0
    out = capsys.readouterr().out
    facts = json.loads((run / "benchmark.json").read_text())
    assert facts["identity"]["samples"] == 20
    assert "estimates, not measurements" in out and "loihi1" in out and "does it pay?" in out
    assert f"{facts['counts']['fixed_point']['hidden_0']['accumulates']:,.0f}" in out


def test_report_draws_one_page_of_all_runs(run, capsys):
    page = run.parent / "report.html"
    assert cli.main(["report", str(run), str(run), "--out", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and "not measurement" in text and "<script" not in text
    assert str(page) in capsys.readouterr().out


def test_errors_of_the_commands_are_one_line(run, tmp_path, capsys):
    assert cli.main(["benchmark", str(tmp_path)]) == 1
    assert "not the folder of a run" in capsys.readouterr().err
    facts = json.loads((run / "benchmark.json").read_text())
    (run / "benchmark.json").write_text(json.dumps(facts | {"format": 0}))
    assert cli.main(["report", str(run)]) == 1
    assert "another version" in capsys.readouterr().err
    wrong = ([], "x", {"format": FORMAT, "energy": 3}, facts | {"energy": {"loihi1": {}}}, facts | {"counts": [1]})
    for content in (*wrong, facts | {"identity": [1]}, facts | {"accuracy": {"trained": 3}}):
        (run / "benchmark.json").write_text(json.dumps(content))
        assert cli.main(["report", str(run)]) == 1
        error = capsys.readouterr().err
        assert "not what eventnet benchmark writes" in error and error.count("\n") == 1
    (run / "benchmark.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "option, value", [("--limit", "0"), ("--calibration", "0"), ("--calibration", "-3"), ("--dt", "0"), ("--dt", "nan")]
)
def test_options_that_make_no_sense_are_refused_by_name(run, capsys, option, value):
    assert cli.main(["benchmark", str(run), option, value]) == 1
    error = capsys.readouterr().err
    assert f"{option}: expected" in error and error.count("\n") == 1


def test_pages_and_facts_that_cannot_be_written(run, tmp_path, capsys, monkeypatch):
    page = tmp_path / "new" / "folder" / "page.html"
    assert cli.main(["report", str(run), "--out", str(page)]) == 0 and page.is_file()
    assert cli.main(["report", str(run), "--out", str(page / "below.html")]) == 1
    assert "cannot be made" in capsys.readouterr().err

    def read_only(contents):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_files", read_only)
    for command in (["report", str(run)], ["benchmark", str(run), "--limit", "2"]):
        assert cli.main(command) == 1
        error = capsys.readouterr().err
        assert "cannot write" in error and "Permission denied" in error and error.count("\n") == 1


def test_facts_of_another_network_are_warned_of(run, tmp_path):
    page, before = tmp_path / "page.html", (run / "benchmark.json").read_text()
    assert cli.main(["report", str(run), "--out", str(page)]) == 0 and "Warning" not in page.read_text()
    facts = json.loads(before)
    facts["identity"]["model_sha256"] = "0" * 64
    (run / "benchmark.json").write_text(json.dumps(facts))
    assert cli.main(["report", str(run), "--out", str(page)]) == 0
    (run / "benchmark.json").write_text(before)
    assert "Warning: benchmark.json is of another network" in page.read_text()


def test_the_step_of_the_baselines_is_the_tasks():
    assert _task_step(find("vowels")) == find("vowels").step
    digits = find("digits")
    assert _task_step(digits) is None
    assert _task_step(digits.changed(readout="at", readout_step=4e-3)) == 4e-3


def test_a_run_that_forecasts_shows_its_error(tmp_path, capsys):
    folder = tmp_path / "series"
    options = ["--hidden", "6", "--epochs", "1", "--data-options", "window=4", "--data-options", "stride=40"]
    assert cli.main(["train", "mackey_glass", *options, "--out", str(folder)]) == 0
    capsys.readouterr()
    assert cli.main(["benchmark", str(folder), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    error = json.loads((folder / "result.json").read_text())["test"]["smape"]
    assert f"test sMAPE: {error:.3g}" in out and "one pass over the" in out and "No network" not in out
    facts = json.loads((folder / "benchmark.json").read_text())
    assert facts["charged"] == "trained" and facts["forecast"] == {"name": "test sMAPE", "value": error}
    assert cli.main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert f"test sMAPE {error:.3g}" in text and "one pass over the known series" in text
    assert "no labels were given" not in text
