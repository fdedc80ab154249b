"""The benchmark of conversions: its rows say what happened, and runs are kept beside each other."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from eventnet import Events

pytest.importorskip("snntorch")


@pytest.fixture
def interop(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("interop")


def test_a_tenth_of_the_step_is_about_a_tenth_of_the_error(interop):
    convert = interop.conversions()["snnTorch Synaptic, subtract, at once"]
    coarse, fine = (convert(dt, interop.a_probe()).layers[0] for dt in (1e-3, 1e-4))
    assert fine.spikes[0] > 200 and 5 < coarse.error[0] / fine.error[0] < 20
    assert coarse.first_error <= 1e-3 and fine.first_error <= 1e-4


def test_the_network_converted_answers_as_before(interop):
    torch.manual_seed(0)
    there = interop.There(8, 3, 1e-3)
    with torch.no_grad():
        for parameter in (there.model[0].weight, there.model[0].bias):
            parameter.mul_(0.02)  # no spikes: then both sides are equal
    events = Events.from_dense((torch.rand(40, 4, 8) < 0.1).float(), 1e-3)
    here = interop.Here(there, events)
    voltage, spikes = there(events)
    ours, fired = here(events)
    assert not spikes.any() and not fired.any()
    ends = here.network[1](here.network[0](events)).at((torch.arange(40) + 1) * 1e-3)
    torch.testing.assert_close(ends.mean(1), voltage, rtol=1e-4, atol=1e-5)  # there the mean is that of the steps' ends
    assert ours.shape == voltage.shape and [p.numel() for p in here.learnt()] == [p.numel() for p in there.learnt()]


def test_runs_are_kept_beside_each_other(interop, monkeypatch, tmp_path):
    monkeypatch.setattr(interop, "RESULT", tmp_path / "interop.json")
    rows = [{"data": "digits", "dt": 1e-3, "seed": seed, "accuracy": 0.5} for seed in (0, 1)]
    interop.save("finetune", rows[:1])
    interop.save("finetune", rows[1:])
    interop.save("finetune", [rows[0] | {"accuracy": 0.9}])
    kept = json.loads((tmp_path / "interop.json").read_text())["finetune"]["rows"]
    assert [(row["seed"], row["accuracy"]) for row in kept] == [(1, 0.5), (0, 0.9)]


def test_the_picture_is_drawn(interop, tmp_path):
    numbers = {"median_error": 1e-4, "unpaired": 1, "spikes_there": 10, "spikes_here": 11, "layer": 1}
    rows = [{"conversion": name, "dt": dt, **numbers} for name in ("one", "other") for dt in interop.STEPS]
    interop.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
