"""What ``benchmark`` and the command line say of a network: counts that add up, baselines that are fair, files that are whole."""

import json

import pytest
import torch
from torch import nn

from eventnet import EGRU, LI, LIF, Events, cli
from eventnet.counting import Counts
from eventnet.hardware import compile
from eventnet.hardware.benchmark import HIDDEN_ZEROS, _zeros, benchmark
from eventnet.hardware.counting import count_deployed
from eventnet.hardware.energy import estimate
from eventnet.hardware.energy_profiles import ENERGY_PROFILES

pytestmark = pytest.mark.usefixtures("one_thread")


class Spiking(nn.Sequential):
    def forward(self, events):
        return super().forward(events).max()


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
    "dense, inputs, expected",
    [
        (10 * 4 * 5, 10, 1 - 10 / 40),  # feed-forward: 4 units from outside, 10 steps, 5 neurons
        (10 * 5 * (4 + 5), 10, 4 / 9 * (1 - 10 / 40) + 5 / 9 * HIDDEN_ZEROS),  # recurrent
        (3 * 10 * 5 * (4 + 5), 40, 5 / 9 * HIDDEN_ZEROS),  # gated, an input in every step
    ],
)
def test_zeros_of_the_dense_twin_are_those_counted(dense, inputs, expected):
    layer = Counts(samples=1, steps=10, neurons=5, dense=dense, inputs=inputs)
    found = _zeros({"first": layer, "second": layer}, 4, HIDDEN_ZEROS)
    assert found == {"first": pytest.approx(expected), "second": HIDDEN_ZEROS}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert cli.main(["train", "digits", "--hidden", "30", "--epochs", "1", "--out", str(folder)]) == 0
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
    (run / "benchmark.json").write_text(json.dumps(facts))
