"""Carrying a network to a target: files, gates that can fail, the command line, what is counted."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import warnings

import numpy as np
import pytest
import torch
from hardware_networks import random_convolution, random_network
from torch import nn

from eventnet import EGRU, LI, LIF, Events, cli
from eventnet.hardware import Deployment, QuantizedTwin, TargetWarning, compile, export, targeting
from eventnet.hardware.counting import fan_out
from eventnet.hardware.dynamics import earlier
from eventnet.hardware.exporting import _loads
from eventnet.hardware.lava import rebuilt, to_lava
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork, Inputs
from eventnet.hardware.parity import Gate, ParityReport, accuracy_gate, interval, lava_gate

HAS_LAVA = importlib.util.find_spec("lava") is not None


def small(batch=6):
    """A network, events, and labels that it gets right as it is."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    samples = [
        (torch.sort(torch.rand(40, generator=generator) * 0.05)[0], torch.randint(0, 8, (40,), generator=generator))
        for _ in range(batch)
    ]
    events = Events.from_list(samples, num_units=8, duration=0.05)
    model = nn.Sequential(LIF(8, 12, recurrent=True, delay=(0.0, 5e-3), recurrent_delay=(0.0, 5e-3)), LI(12, 3))
    with torch.no_grad():
        model[0].weight.mul_(10)
    return model, events, model[1](model[0](events)).max().argmax(-1)


# ---- the gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["loihi", "lava", "nir"])
def test_every_target_writes_its_files_and_passes_its_gates(target, tmp_path):
    model, events, labels = small()
    deployment = compile(model, calibration=events, dt=2.5e-4)
    report = export(deployment, model, target, tmp_path, events, labels, tolerance=0.5, samples=1, steps=60)
    files = {"loihi": "network.safetensors", "lava": "lava_network.py", "nir": "network.nir"}
    assert (tmp_path / files[target]).stat().st_size > 0
    found = json.loads((tmp_path / "parity.json").read_text())
    assert found["ok"] and report.ok
    passed = {gate["name"]: gate["passed"] for gate in found["gates"]}
    assert passed["L0"] and passed["L1"] and passed["L2"]
    if target == "lava":
        assert "no recurrent layers" in report.facts["identity"]["netx"]
        assert passed["L3"] is (True if HAS_LAVA else None)
    assert (tmp_path / "parity.html").read_text().startswith("<!DOCTYPE html>")


def test_accuracy_gate_fails_where_too_much_is_lost():
    facts = {"accuracy": {"trained": {"share": 0.9}, "chip": {"share": 0.88}}}
    assert accuracy_gate(facts, 0.01).passed is False and accuracy_gate(facts, 0.03).passed is True
    assert accuracy_gate({}, 0.01).passed is None


def test_files_that_say_something_else_fail_their_gate(tmp_path):
    model, events, _ = small()
    deployment = compile(model, calibration=events)
    script = deployment.to_lava(tmp_path, events[:1])
    raster = deployment.raster(events[:1])
    assert [gate.passed for gate in _loads(lambda: rebuilt(script), "script", deployment.network, raster)] == [
        True,
        True,
    ]
    arrays = dict(np.load(tmp_path / "arrays.npz"))
    arrays["synapses_0.weight"] = arrays["synapses_0.weight"] + 2
    np.savez(tmp_path / "arrays.npz", **arrays)
    loads, same = _loads(lambda: rebuilt(script), "script", deployment.network, raster)
    assert loads.passed and same.passed is False and "hidden_0" in same.text
    (tmp_path / "arrays.npz").write_bytes(b"nothing")
    assert [gate.passed for gate in _loads(lambda: rebuilt(script), "script", deployment.network, raster)] == [
        False,
        None,
    ]


@pytest.mark.skipif(not HAS_LAVA, reason="Lava is not installed: make lava")
def test_lava_gate_fails_on_another_expectation(tmp_path):
    model, events, _ = small()
    script = compile(model, calibration=events).to_lava(tmp_path, events[:1], steps=20)
    expected = dict(np.load(tmp_path / "expected.npz"))
    expected["u.hidden_0"][5, 0, 0] += 1
    np.savez(tmp_path / "expected.npz", **expected)
    gate = lava_gate(script, 1)
    assert gate.passed is False and "u.hidden_0: 1 of" in gate.text


@pytest.mark.parametrize("seed", range(6))
def test_scripts_say_what_the_network_is(seed, tmp_path):
    for network, spikes in (random_network(seed), random_convolution(seed)):
        found = simulate(rebuilt(to_lava(network, tmp_path, spikes)), spikes)
        for part, other in zip(simulate(network, spikes), found, strict=True):
            assert all(torch.equal(x, other[name]) for name, x in part.items())


def test_files_are_compared_number_by_number_even_where_nothing_happens(tmp_path):
    model, _, _ = small()
    silent = Events.from_list([([], [])], num_units=8, duration=0.01)
    deployment = compile(model, calibration=silent, search=False)
    script = deployment.to_lava(tmp_path, silent)
    arrays = dict(np.load(tmp_path / "arrays.npz"))
    np.savez(tmp_path / "arrays.npz", **(arrays | {"synapses_0.weight": 0 * arrays["synapses_0.weight"]}))
    loads, same = _loads(lambda: rebuilt(script), "script", deployment.network, deployment.raster(silent))
    assert loads.passed and same.passed is False and "input->hidden_0.weight" in same.text
    del arrays["synapses_0.weight"]
    np.savez(tmp_path / "arrays.npz", **arrays)
    loads, same = _loads(lambda: rebuilt(script), "script", deployment.network, deployment.raster(silent))
    assert loads.passed is False and same.passed is None


def test_what_cannot_be_checked_is_refused_before_anything_is_written(tmp_path):
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False)
    for options, message in (({"samples": 0}, "expected at least one"), ({"chip": "moon"}, "moon")):
        with pytest.raises(ValueError, match=message):
            export(deployment, model, "loihi", tmp_path / "new", events, labels, **options)
    with pytest.raises(ValueError, match="was fine-tuned in the chip's integers"):
        export(QuantizedTwin(deployment).deploy(), model, "nir", tmp_path / "new", events, labels)
    assert not (tmp_path / "new").exists()


def test_a_network_beyond_the_limits_of_its_chip_fails(tmp_path):
    model, events, labels = small()
    report = export(
        compile(model, calibration=events), model, "loihi", tmp_path, events, labels, tolerance=1, chip="xylo"
    )
    assert not report.ok and {gate.name: gate.passed for gate in report.gates}["chip"] is False


def test_samples_without_labels_are_no_accuracy(tmp_path):
    model, events, labels = small()
    report = export(compile(model, calibration=events), model, "loihi", tmp_path, events, torch.full_like(labels, -100))
    assert {gate.name: gate.passed for gate in report.gates}["L2"] is None


def test_a_report_without_gates_is_not_ok():
    assert not ParityReport({}).ok
    assert not ParityReport({}, [Gate("L3", None, "not asked")]).ok
    assert not ParityReport({}, [Gate("L0", True, ""), Gate("L1", False, "")]).ok


def test_gated_units_are_carried_too(tmp_path):
    torch.manual_seed(0)
    _, events, _ = small()
    model = [EGRU(8, 12, step=1e-3), nn.Linear(12, 3)]
    deployment = compile(model, calibration=events)
    labels = deployment.predict(events)
    report = export(deployment, model, "lava", tmp_path, events, labels, tolerance=0.5, samples=1, steps=20)
    assert report.ok and {gate.name: gate.passed for gate in report.gates}["L1"]
    assert report.facts["dynamics"]["hidden_0"]["lag_steps"] == 1 and "no node of NIR" in report.facts["lost"][-1]
    with pytest.raises(TypeError, match="NIR has no node for EGRU units"):
        export(deployment, model, "nir", tmp_path, events)
    turned = EGRU(8, 12, step=1e-3, batch_first=True, dropout=0.5, num_layers=2)
    other = [turned, nn.Linear(12, 3)]
    found = [compile(other, calibration=events).report(events, labels).facts["accuracy"] for _ in range(2)]
    assert found[0] == found[1]  # nothing is dropped


@pytest.mark.parametrize(
    ("make", "target", "message"),
    [
        (lambda: LIF(2, 2, delay=(0.0, 0.5)), "loihi", r"LIF\.delay: .* steps of 0\.001 s; a chip holds 62"),
        (lambda: LIF(2, 2, recurrent=True, recurrent_delay=0.1), "loihi", r"LIF\.recurrent_delay: .*a chip holds 62"),
        (lambda: LI(2, 2, tau_mem=3.0), "loihi", r"LI\.tau_mem: decays of 12 bits hold it to"),
        (lambda: LIF(2, 2, refractory=1e-3), "nir", r"LIF\.refractory: neither Lava nor NIR"),
        (lambda: EGRU(2, 2), "nir", "NIR has no node for EGRU units"),
    ],
)
def test_layers_that_a_target_cannot_hold_warn_where_they_are_made(make, target, message):
    with targeting(target, dt=1e-3), pytest.warns(TargetWarning, match=message):
        make()
    with warnings.catch_warnings(), targeting(target, dt=1e-3):
        warnings.simplefilter("error")
        LIF(2, 2, delay=(0.0, 0.05))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()  # nothing is said any more


# ---- what is measured ----------------------------------------------------------------------------------------------------


def test_report_of_a_deployment():
    model, events, labels = small()
    found = compile(model, calibration=events, dt=5e-4).report(events, labels)
    facts = found.facts
    assert facts["accuracy"]["labels"] == 6 and facts["accuracy"]["trained"]["share"] == 1.0
    layer = facts["dynamics"]["hidden_0"]
    assert layer["lag_steps"] == 0 and 0 <= layer["distance"] < 0.3
    assert layer["spikes_trained"] == pytest.approx(model[0](events).num_events / 6)
    assert facts["counts"]["spikes_per_sample"]["input"] == pytest.approx(events.num_events / 6, abs=1)
    assert facts["resources"]["ok"]
    assert {"hidden_0->hidden_0", "input->hidden_0", "hidden_0->output"} == set(found.pictures["weights"])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [random_network, random_convolution])
def test_fan_out_counts_synapses_one_by_one(make, seed):
    network, _ = make(seed)
    for each in network.projections:
        size = network[each.source].size
        alike = {"weight": (each.effective() != 0).int(), "weight_exp": 0, "weight_bits": 8, "message_bits": 0}
        alike |= {"sign_mode": "excitatory", "source": "one", "target": "other"}
        alike |= {} if each.kind == "convolution" else {"delay": None}
        other = LIFNeurons("other", network[each.target].size, vth=131_071)
        counted = HardwareNetwork([Inputs("one", size), other], [dataclasses.replace(each, **alike)], dt=1e-3)
        alone = torch.zeros(2, size, size, dtype=torch.int32)
        alone[0] = torch.eye(size)  # in sample k unit k fires
        assert torch.equal((simulate(counted, alone).u["other"][1] >> 6).sum(1).double(), fan_out(each, size))


def test_earlier_does_not_wrap():
    raster = torch.tensor([1, 0, 0, 2])
    assert earlier(raster, 1).tolist() == [0, 0, 2, 0] and earlier(raster, -1).tolist() == [0, 1, 0, 0]


def test_intervals():
    assert interval(0, 20)["low"] == pytest.approx(0, abs=1e-12) and interval(20, 20)["high"] == pytest.approx(1)
    assert np.isnan(interval(0, 0)["share"])


# ---- the command line ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    assert cli.main(["train", "digits", "--hidden", "30", "--epochs", "1", "--out", str(folder)]) == 0
    return folder


def test_export_of_a_run(run, capsys):
    arguments = [
        "export",
        str(run),
        "--to",
        "loihi",
        "--dt",
        "5e-4",
        "--try-dt",
        "1e-3,1",
        "--limit",
        "60",
        "--tolerance",
        "0.2",
    ]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "compiled for steps of 0.5 ms" in said and "1 ms" in said and "1000 ms refused" in said
    assert re.search(r"L1 +passed", said) and re.search(r"L2 +passed", said) and re.search(r"chip +passed", said)
    assert Deployment.load(run / "loihi" / "network.safetensors").network.dt == 5e-4


def test_a_failed_gate_is_the_exit_code(run, tmp_path, capsys):
    assert (
        cli.main(
            ["export", str(run), "--out", str(tmp_path), "--limit", "8", "--calibration", "4", "--tolerance", "-1"]
        )
        == 1
    )
    assert re.search(r"L2 +FAILED", capsys.readouterr().out)


def test_what_is_wrong_is_one_line(run, tmp_path, capsys):
    assert cli.main(["export", str(run), "--to", "moon", "--limit", "4", "--calibration", "4"]) == 1
    assert "expected one of loihi, lava, nir, got 'moon'" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path)]) == 1
    assert "is" in capsys.readouterr().err
