"""What a folder of an export holds, which model is exported, how outputs are read, and what the report warns of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from test_hardware_export import HAS_LAVA, small
from torch import nn

from eventnet import EGRU, LI, LIF
from eventnet.hardware import Deployment, compile, export, export_nir, exporting, finetune
from eventnet.hardware.command import export_run, step_costs, subset
from eventnet.hardware.parity import Gate, ParityReport, accuracy_gate, chip_gate
from eventnet.hardware.parity_facts import energy_of, warnings_of
from eventnet.hardware.parity_page import page
from eventnet.hardware.reading import Reader, Reading
from eventnet.hardware.trained import fingerprint, reading_of, scores_of, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def gated(**options):
    torch.manual_seed(0)
    return [EGRU(8, 12, step=1e-3, **options), nn.Linear(12, 3)]


def folder_of(path):
    return {each.name for each in path.iterdir()}


def gates(report):
    return {gate.name: gate for gate in report.gates}


# ---- how outputs are read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: small()[0], lambda: list(small()[0]), gated], ids=["Sequential", "list", "EGRU"]
)
def test_a_reading_that_nobody_said_is_a_note(make, tmp_path):
    model, (_, events, labels) = make(), small()
    report = export(
        compile(model, calibration=events, search=False), model, "loihi", tmp_path, events, labels, tolerance=1
    )
    (line,) = report.facts["assumed"]
    assert re.match(r"readout: .*, assumed; reading=.* says another", line)
    assert gates(report)["L2"].text.endswith(f"readout: {report.facts['identity']['readout']}, assumed")
    assert "assumed; reading=" in (tmp_path / "parity.html").read_text()
    said = compile(model, calibration=events, search=False, reading="mean")
    report = export(said, model, "loihi", tmp_path, events, labels, tolerance=1)
    assert report.facts["assumed"] == [] and report.facts["identity"]["readout"] == "mean (mean voltage)"
    assert gates(report)["L2"].text.endswith("readout: mean (mean voltage)")


def test_a_recipe_says_how_it_is_read():
    model = nn.Module()
    model.hidden, model.readout = nn.ModuleList([LIF(4, 3)]), LI(3, 2)
    model.recipe = SimpleNamespace(readout="mean", logit_scale=2.0, readout_decay=None, readout_step=None)
    reading, assumed = reading_of(model)
    assert (reading.kind, reading.factor, assumed) == ("mean", 2.0, [])


def test_the_mean_of_gated_units_has_one_name():
    _, events, _ = small()
    model = gated()
    found = compile(model, calibration=events, reading="mean")
    old = compile(model, calibration=events, reading="step_mean")  # the name in files of earlier versions
    assert found.reading == old.reading and found.reading.kind == "mean" and found.reading.of_steps
    assert Reading.from_dict({"kind": "step_mean"}) == Reading("mean", of_steps=True)
    output, _ = model[0](events)
    expected = model[1](output.mean(0))
    assert torch.allclose(scores_of(model, found.reading, events), expected, atol=1e-5)
    assert (found.run(events).scores - expected).abs().max() < 0.1
    reader = Reader(Reading("mean", volts=(1.0,), offset=(0.0,), of_steps=True), torch.tensor([2]), 1e-3)
    reader.add(torch.tensor([9.0, 1.0, 3.0, 9.0])[:, None, None], torch.zeros(4, 1, 1))
    assert reader.scores().tolist() == [[2.0]]  # the ends of the two steps, alike


def test_a_recipe_s_network_is_read_as_it_was_deployed():
    """Not as its recipe says, where another reading was asked for."""
    _, events, _ = small()

    class Net(nn.Module):
        recipe = SimpleNamespace(step=1e-3, readout="last", tied=False)

        def __init__(self):
            super().__init__()
            self.hidden, self.readout = gated()

        def forward(self, events):
            return SimpleNamespace(scores=self.readout(self.hidden(events)[0][-1]))

    model = Net()
    output = model.hidden(events)[0]
    for kind, of_output in (("last", output[-1]), ("mean", output.mean(0)), ("at", output.transpose(0, 1))):
        reading, assumed = reading_of(model, None if kind == "last" else kind)
        assert reading.kind == kind and assumed == []
        assert torch.allclose(scores_of(model, reading, events), model.readout(of_output), atol=1e-5)


@pytest.mark.parametrize("reading", ["last", "count"])
def test_a_reading_that_a_layer_has_not_is_refused(reading):
    model, events, _ = small()
    with pytest.raises(ValueError, match=f"readout '{reading}' of LI outputs: expected max, mean, integral or at"):
        compile(model, calibration=events, reading=reading)


# ---- the folder ------------------------------------------------------------------------------------------------------------


def test_nothing_of_an_earlier_export_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "lava_gate", lambda *_: Gate("L3", None, "not here"))
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "network.net").write_text("mine too, of the name of a file that exports write")
    common = {"parity.json", "parity.html", "notes.txt", "network.net"}
    lines = []
    for target, files in (
        ("lava", {"network.safetensors", "lava_network.py", "arrays.npz", "expected.npz"}),
        ("nir", {"network.nir"}),
        ("loihi", {"network.safetensors"}),
    ):
        export(deployment, model, target, tmp_path, events, labels, samples=1, steps=3, say=lines.append)
        assert folder_of(tmp_path) == files | common
        listed = json.loads((tmp_path / "parity.json").read_text())["files"]
        assert set(listed) == files | {"parity.json", "parity.html"}
    assert "removed, as of an earlier export: arrays.npz, expected.npz, lava_network.py, network.safetensors" in lines
    assert "mine too" in (tmp_path / "network.net").read_text()


def test_what_is_no_file_stops_an_export_before_anything_is_written(tmp_path):
    model, events, _ = small()
    deployment = compile(model, calibration=events, search=False)
    export(deployment, model, "nir", tmp_path, events, samples=1, steps=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "network.safetensors").mkdir()
    with pytest.raises(
        FileExistsError, match=r"network\.safetensors: expected a file, or nothing yet; nothing was written"
    ):
        export(deployment, model, "loihi", tmp_path, events)
    (tmp_path / "network.safetensors").rmdir()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "report", ["[]", "not JSON", '{"files": [{}, "notes.txt", "../x", 3]}', '{"files": "network.nir"}']
)
def test_a_report_of_somebody_else_removes_nothing(report, tmp_path):
    model, events, _ = small()
    for name in ("network.nir", "notes.txt"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "parity.json").write_text(report)
    export(compile(model, calibration=events, search=False), model, "loihi", tmp_path, events, samples=1, steps=3)
    assert {"network.nir", "notes.txt"} < folder_of(tmp_path)


def test_an_export_that_fails_changes_nothing(tmp_path, monkeypatch):
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False)
    export(deployment, model, "loihi", tmp_path, events, labels)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_, **__):
        raise RuntimeError("half way")

    monkeypatch.setattr(exporting, "measure", broken)
    for target in ("loihi", "lava"):
        with pytest.raises(RuntimeError, match="half way"):
            export(deployment, model, target, tmp_path, events, labels)
        with pytest.raises(RuntimeError, match="half way"):
            export(deployment, model, target, tmp_path / "new", events, labels)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(NotADirectoryError, match="expected a folder"):
        export(deployment, model, "loihi", tmp_path / "parity.json", events, labels)


def test_a_deployment_is_loaded_from_the_folder_of_its_export(tmp_path):
    model, events, _ = small()
    deployment = compile(model, calibration=events, search=False)
    export(deployment, model, "loihi", tmp_path, events)
    assert torch.equal(Deployment.load(tmp_path).run(events).scores, deployment.run(events).scores)


@pytest.mark.parametrize("steps", [0, -1])
def test_files_check_themselves_with_a_step_at_least(steps, tmp_path):
    model, events, _ = small()
    deployment = compile(model, calibration=events, search=False)
    for call in (
        lambda: export(deployment, model, "loihi", tmp_path, events, steps=steps),
        lambda: export_nir(model, tmp_path, events, steps=steps),
    ):
        with pytest.raises(ValueError, match=f"steps: expected at least one .*, got {steps}"):
            call()
    raster = deployment.raster(events)[:0]
    gate = exporting._loads(lambda: deployment.network, "it", deployment.network, raster)[1]
    assert gate.name == "L1" and gate.passed is None and "nothing was compared" in gate.text


# ---- the model -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["loihi", "nir"])
def test_another_model_is_refused(target, tmp_path):
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False, reading="mean")
    assert export(deployment, None, target, tmp_path, events, samples=1, steps=5).facts["identity"]["model_sha256"] == (
        fingerprint(state_of(model))
    )
    deployment.save(tmp_path / "saved")
    loaded = Deployment.load(tmp_path / "saved")
    with pytest.raises(ValueError, match="has no trained model"):
        export(loaded, None, target, tmp_path, events)
    export(loaded, model, target, tmp_path, events, samples=1, steps=5)
    tuned = finetune(deployment, [(events, labels)], epochs=1)
    with torch.no_grad():
        model[1].weight.add_(1e-3)
    for each in (deployment, loaded, tuned):
        with pytest.raises(ValueError, match="not those that were compiled"):
            export(each, model, target, tmp_path / "new", events)
    with pytest.raises(ValueError, match="not those that were compiled"):
        deployment.report(events)
    assert not (tmp_path / "new").exists()


def test_dropout_between_layers_is_no_part_of_the_model():
    model, events, _ = small()
    lif, li = model
    deployment = compile(nn.Sequential(lif, nn.Dropout(0.5), li), calibration=events, search=False)
    for same in ([lif, li], model, [nn.Dropout(0.1), lif, li], nn.ModuleList([lif, nn.Dropout(0.5), li])):
        assert deployment.trained(same) is same
    with pytest.raises(ValueError, match="not those that were compiled"):
        deployment.trained([lif, LI(12, 3)])


# ---- warnings --------------------------------------------------------------------------------------------------------------


def test_every_warning_has_its_number():
    far = {
        "parameters": {
            "a": {"tau_mem_relative_error": 0.06, "tau_syn_relative_error": 0.04, "threshold_relative_error": 0.5},
            "b": {"weight_sqnr_db": 19.9, "recurrent_weight_sqnr_db": 20.1, "threshold_factor": 1.05},
            "c": {"threshold_factor": 1.0, "weight_clipped": 1.0},
        },
        "dynamics": {
            "a": {"spikes_trained": 10.0, "spikes_chip": 8.9},
            "b": {"spikes_trained": 10.0, "spikes_chip": 10.9},
            "c": {"spikes_trained": 0.0, "spikes_chip": 1.0},
        },
        "overflows": {"a": 3, "b": 0},
    }
    assert warnings_of(far, merged=7) == [
        "a: tau_mem is off by up to 6.0%: take longer steps",
        "b: weight: 19.9 dB of signal to rounding noise",
        "b: the search for a threshold ended at the edge of its grid, 1.05 of the trained one",
        "a: 10 spikes per sample trained, 8.9 exported (-11%)",
        "c: 0 spikes per sample trained, 1 exported",
        "a: 3 numbers overflowed in all samples",
        "7 input events that shared a step with another of their unit count once",
    ]
    assert warnings_of({}) == []


def test_warnings_are_said_and_shown(tmp_path):
    torch.manual_seed(0)
    model, (_, events, labels) = [LIF(8, 12, tau_mem=5.0), LI(12, 3)], small()
    with torch.no_grad():
        model[0].weight.mul_(400)
    lines = []
    deployment = compile(model, calibration=events, reading="mean")
    report = export(deployment, model, "loihi", tmp_path, events, labels, tolerance=1, say=lines.append)
    error = report.facts["parameters"]["hidden_0"]["tau_mem_relative_error"]
    assert error > 0.05 and any("tau_mem is off by up to" in line for line in report.facts["warnings"])
    assert [f"warning: {line}" for line in report.facts["warnings"]] == lines[-len(report.facts["warnings"]) :]
    text = (tmp_path / "parity.html").read_text()
    assert text.index("tau_mem is off by up to") < text.index("<h2>Gates</h2>") and "What was lost" not in text
    assert json.loads((tmp_path / "parity.json").read_text())["warnings"] == report.facts["warnings"]


def test_the_factor_of_the_threshold_is_not_its_rounding():
    model, events, _ = small()
    errors = compile(model, calibration=events).log.errors["hidden_0"]
    assert errors["threshold_factor"] != 1 and errors["threshold_relative_error"] < 2e-3


# ---- gates and energy ------------------------------------------------------------------------------------------------------


def test_units_that_no_chip_has_are_an_answer(tmp_path):
    model, (_, events, _) = gated(), small()
    deployment = compile(model, calibration=events, reading="last")
    report = export(deployment, model, "loihi", tmp_path, events, deployment.predict(events), tolerance=1)
    gate = gates(report)["chip"]
    assert (gate.passed, gate.answer) == (None, "not on this chip") and str(gate).startswith("chip  not on this chip: ")
    text = (tmp_path / "parity.html").read_text()
    assert "Cores that it would take" not in text and "No such neurons on loihi2" in text
    assert "Yes, as far as it was checked. Not run: L3, the comparison with Lava. chip: not on this chip." in text
    assert json.loads((tmp_path / "parity.json").read_text())["gates"][-1]["answer"] == "not on this chip"
    other = {"ok": False, "profile": "x", "violations": [{"limit": "fan_in", "line": "too many"}]}
    assert chip_gate({"resources": other}).passed is False


def test_points_are_lost():
    facts = {"accuracy": {"trained": {"share": 0.9}, "chip": {"share": 0.8972}}, "identity": {"readout": "max (x)"}}
    text = accuracy_gate(facts, 0.02).text
    assert text.endswith(
        "89.72% in the fixed-point simulation: 0.28 points lower than trained, 2.00 allowed; readout: max (x)"
    )
    facts["accuracy"]["chip"]["share"] = 0.95
    assert "5.00 points higher than trained" in accuracy_gate(facts, 0.02).text


def test_labels_that_are_all_left_out_are_not_no_labels(tmp_path):
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False)
    report = export(deployment, model, "loihi", tmp_path, events, torch.full_like(labels, -100), samples=1, steps=3)
    assert gates(report)["L2"].passed is None and "all labels are -100" in gates(report)["L2"].text
    assert accuracy_gate({}, 0.01).text == "no labels were given"


def test_energies_are_those_of_the_counts(tmp_path):
    from eventnet.hardware.counting import count_deployed
    from eventnet.hardware.energy import estimate
    from eventnet.hardware.energy_profiles import ENERGY_PROFILES

    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False)
    found = export(deployment, model, "loihi", tmp_path, events, labels, tolerance=1).facts["energy"]
    counts = count_deployed(deployment, events)
    assert found == energy_of(counts, deployment.network.dt) and found
    for name, joules in found.items():
        cost = estimate(counts, name, dt=deployment.network.dt)
        assert ENERGY_PROFILES[name].event_driven and joules["dynamic_joules_per_sample"] == cost.dynamic.to_list()
        assert joules["idle_joules_per_sample"] == (None if cost.idle is None else cost.idle.to_list())
        assert f"<td>{cost.dynamic.text('J')}</td>" in (tmp_path / "parity.html").read_text()


def test_words_in_short():
    model, events, _ = small()
    deployment = compile(model, calibration=events, search=False)
    assert repr(deployment) == f"Deployment({deployment.network!r}, readout max (largest voltage))"
    assert repr(deployment.network) == (
        f"HardwareNetwork(input 8, hidden_0 12, output 3; {deployment.network.num_synapses} synapses, dt=0.001 s)"
    )
    report = ParityReport({"warnings": ["a"]}, [Gate("L0", True, ""), Gate("L3", None, "")])
    assert repr(report) == "ParityReport(L0 passed, L3 not run; 1 warnings)"


# ---- NIR without integers --------------------------------------------------------------------------------------------------


def parts(events, labels):
    class Part:
        def __len__(self):
            return len(labels)

        def __getitems__(self, chosen):
            return events[torch.tensor(chosen)], labels[chosen]

    return SimpleNamespace(train=Part(), validation=Part(), test=Part())


def test_a_limit_of_a_chip_does_not_refuse_nir(tmp_path):
    model, events, labels = [LIF(8, 12, delay=0.2), LI(12, 3)], *small()[1:]
    with pytest.raises(ValueError, match="expected at most 62"):
        compile(model, calibration=events)
    lines = []
    options = {"dt": 1e-3, "chip": "loihi2", "tolerance": 1, "samples": 1, "steps": 3, "say": lines.append}
    report = export_run(model, parts(events, labels), "nir", tmp_path, **options)
    assert not any("not used" in line for line in lines)
    export_run(model, parts(events, labels), "nir", tmp_path, **{**options, "chip": "loihi1", "calibration": 8})
    assert "note: not used: calibration and chip; NIR holds the trained layers, not a chip's integers" in lines
    assert report.ok and folder_of(tmp_path) == {"network.nir", "parity.json", "parity.html"}
    assert set(gates(report)) == {"L0", "L1", "L2"} and report.facts["identity"]["step_s"] == 1e-3
    with pytest.raises(TypeError, match="NIR has no node for EGRU units"):
        export_nir(gated(), tmp_path, events)
    for name, given in (("finetune", {"epochs": 1}), ("try_dt", {"try_dt": [1e-3]})):
        with pytest.raises(ValueError, match=f"{name}: NIR holds the trained layers"):
            export_run(model, parts(events, labels), "nir", tmp_path, **given)


def test_the_page_of_a_nir_file_is_of_no_chip(tmp_path):
    model, events, labels = small()
    export_nir(model, tmp_path, events, labels, reading="max", tolerance=1)
    text = (tmp_path / "parity.html").read_text()
    words = re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
    for other in ("on the chip", "the chip", "Lava", "L3", "fixed-point", "was not asked for"):
        assert other not in words
    assert "agree to 1e-9" in words and "in the file, run in steps" in words and "Yes. All gates passed." in words
    assert "Norse refuses it: there is no Delay (10 nodes)" in words and words.count("there is no Delay") == 3
    assert "a NIR file holds equations" in words


def test_readers_that_read_a_file_are_named(tmp_path):
    _, events, _ = small()
    report = export_nir([LIF(8, 3)], tmp_path, events, reading="count", dt=1e-4)
    assert report.facts["readers"] == {"Norse": "reads it", "snnTorch": "reads it", "Sinabs": "refuses it"}
    assert [line.split(" refuses")[0] for line in report.facts["lost"]] == ["Sinabs"]
    assert "Read as it is by Norse, snnTorch." in page(report)


# ---- the command -----------------------------------------------------------------------------------------------------------


def test_the_step_that_is_used_is_among_those_tried(tmp_path):
    model, events, labels = small()
    lines = []
    export_run(model, parts(events, labels), "loihi", tmp_path, try_dt=[5e-4], tolerance=1, say=lines.append)
    assert lines[0] == "trained (float), on the validation part: 100.00%"
    assert re.search(r"0\.5 ms .*%, .* spikes; 1 ms .*%", lines[1]) and lines[2] == "compiled for steps of 1 ms"
    assert [cost["dt"] for cost in step_costs(model, events, events, labels, [1e-3])] == [1e-3]


@pytest.mark.parametrize(("options", "name"), [({"limit": 0}, "limit"), ({"calibration": 0}, "calibration")])
def test_a_limit_of_nothing_is_named(options, name, tmp_path):
    model, events, labels = small()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1 sample, got 0"):
        export_run(model, parts(events, labels), "loihi", tmp_path, **options)
    assert subset(parts(events, labels).test, 2)[0].batch_size == 2


# ---- the script ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_LAVA, reason="Lava is not installed: make lava")
def test_a_script_that_cannot_check_says_so_in_a_sentence(tmp_path):
    model, events, _ = small()
    deployment = compile(model, calibration=events, search=False)
    folders = {name: tmp_path / name for name in ("none", "cut", "gone")}
    for folder in folders.values():
        deployment.to_lava(folder, events[:1], steps=5)
    whole = (folders["cut"] / "expected.npz").read_bytes()
    (folders["cut"] / "expected.npz").write_bytes(whole[: len(whole) // 2])
    (folders["gone"] / "expected.npz").unlink()
    running = {}
    for name, folder in folders.items():  # side by side, as each has to import Lava
        command = [sys.executable, "lava_network.py", "--check", *(["--samples", "0"] if name == "none" else [])]
        running[name] = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    said = {name: process.communicate()[1] for name, process in running.items()}
    assert {name: process.returncode for name, process in running.items()} == {"none": 2, "cut": 1, "gone": 1}
    assert "--samples: expected at least 1, got 0" in said["none"]
    assert re.fullmatch(r".*expected\.npz: damaged or cut short \(.*\); export again", said["cut"].strip())
    assert re.fullmatch(r".*expected\.npz: no such file; .*", said["gone"].strip())
