"""The report of a NIR file: known dynamics, counts, the check with measured numbers, and runs cut in pieces."""

import re
from pathlib import Path

import h5py
import pytest
import torch
from torch import nn

from eventnet import LI, LIF, Events
from eventnet.hardware import compile, export, export_nir, nir_report
from eventnet.hardware.nir import Disagreement, from_nir, to_nir, write_nir
from eventnet.hardware.nir import check as nir_check
from eventnet.hardware.nir.check import check_against
from eventnet.hardware.nir.simulate import Simulation
from eventnet.hardware.quantize import rasterize
from eventnet.hardware.reading import Reading

DT = 1e-3
pytestmark = pytest.mark.usefixtures("one_thread")


def relay(weight):
    """Two units that pass on what one unit before them told: the current lasts for a step in the file, e^(-t/dt) else."""
    layer = LIF(2, 2, tau_mem=10e-3, tau_syn=DT)
    with torch.no_grad():
        layer.weight.copy_(weight * torch.eye(2))
    return layer


def relayed(weight):
    """Two samples, of 3 and 2 events on the grid, through relays, and the facts of their file."""
    samples = [([0.01, 0.03, 0.05], [0, 1, 0]), ([0.02, 0.04], [1, 1])]
    return [relay(weight), relay(weight), LI(2, 3)], Events.from_list(samples, num_units=2, duration=0.07)


def random_net(batch=7):
    """A recurrent network with delays, and samples of several lengths."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    lengths = [0.02 + 0.005 * (k % 4) for k in range(batch)]
    samples = [
        (torch.sort(torch.rand(40, generator=generator) * t)[0], torch.randint(0, 8, (40,), generator=generator))
        for t in lengths
    ]
    model = [LIF(8, 12, recurrent=True, delay=(0.0, 5e-3), recurrent_delay=(0.0, 5e-3)), LI(12, 3)]
    with torch.no_grad():
        model[0].weight.mul_(10)
    return model, Events.from_list(samples, num_units=8, duration=lengths)


def exported(model, events, folder, labels=None, reading=None, **options):
    deployment = compile(model, calibration=events, dt=DT, search=False, reading=reading)
    return export(deployment, model, "nir", folder, events, labels, **options)


def gates(report):
    return {gate.name: gate for gate in report.gates}


# ---- dynamics --------------------------------------------------------------------------------------------------------------


def test_spikes_that_are_known(tmp_path):
    # 20 V: 0.75 ms after each event 20 K(t) is 1 V. In the file a step of dt adds 20 dt / tau_mem = 2 V, and both layers are
    # through in one step: the second is there 1.5 ms after the event in continuous time, a step later.
    report = exported(*relayed(20.0), tmp_path)
    assert {name: x["lag_steps"] for name, x in report.facts["dynamics"].items()} == {"hidden_0": 0, "hidden_1": -1}
    for layer in report.facts["dynamics"].values():
        assert layer["spikes_trained"] == layer["spikes_chip"] == 2.5
        assert layer["distance"] == pytest.approx(0, abs=1e-6) and layer["first_divergence"] is None
    first = report.pictures["rasters"]["hidden_0"]
    assert first["chip"] == ([11, 31, 51], [0, 1, 0]) and first["trained"][1] == [0, 1, 0]
    assert first["trained"][0] == pytest.approx([0.01075, 0.03075, 0.05075], abs=5e-5)
    assert "trace" not in report.pictures


def test_the_first_difference_that_is_known(tmp_path):
    # 10.5 V: 10.5 dt / tau_mem = 1.05 V in a step of the file; else at most 0.82 V, or 0.94 V 20 ms after another event
    report = exported(*relayed(10.5), tmp_path)
    found = report.facts["dynamics"]["hidden_0"]
    assert (found["spikes_trained"], found["spikes_chip"]) == (0, 2.5)
    where = found["first_divergence"]
    assert where["chip_above_threshold"] == pytest.approx(0.05, abs=1e-6)
    where = {name: where[name] for name in ("step", "sample", "neuron", "fired_on")}
    assert where == {"step": 11, "sample": 0, "neuron": 0, "fired_on": "chip"}
    trace = report.pictures["trace"]
    assert trace["chip"][11] == 0 and 0.8 < max(trace["trained"]) < 0.84 and trace["times"][11] == pytest.approx(0.011)


def test_counts_and_sizes_that_are_known(tmp_path):
    facts = exported(*relayed(20.0), tmp_path).facts
    assert facts["counts"] == {
        "samples": 2,
        "spikes_per_sample": {"input": 2.5, "hidden_0": 2.5, "hidden_1": 2.5},
        "synaptic_operations_per_sample": {"input->hidden_0": 2.5, "hidden_0->hidden_1": 2.5, "hidden_1->output": 7.5},
    }
    nodes = {"Input": 1, "Linear": 3, "CubaLIF": 2, "CubaLI": 1, "Output": 1}
    weights, of_lif, of_li = 4 + 4 + 6, 2 * 2 * 7, 3 * 5
    size = {"neurons": 7, "synapses": 10, "parameters": weights + of_lif + of_li, "nodes": nodes}
    assert facts["resources"] == size
    identity = facts["identity"]
    assert identity["samples"] == identity["samples_of_the_dynamics"] == 2
    assert identity["torch"] == torch.__version__ and len(identity["model_sha256"]) == 64


def test_synapses_of_one_projection_in_several_nodes_count_once(tmp_path):
    model, events = random_net()
    facts = exported(model, events, tmp_path).facts
    assert facts["resources"]["nodes"]["Linear"] > 6
    assert facts["resources"]["synapses"] == 8 * 12 + 12 * 12 + 12 * 3
    spikes, operations = facts["counts"]["spikes_per_sample"], facts["counts"]["synaptic_operations_per_sample"]
    assert operations["hidden_0->hidden_0"] == pytest.approx(12 * spikes["hidden_0"])
    assert operations["hidden_0->output"] == pytest.approx(3 * spikes["hidden_0"])


def test_spikes_after_the_end_of_a_sample_do_not_count(tmp_path):
    model, _ = relayed(20.0)
    short = Events.from_list([([0.01], [0]), ([0.01, 0.03], [0, 0])], num_units=2, duration=[0.0105, 0.05])
    found = exported(model, short, tmp_path).facts["dynamics"]["hidden_0"]
    assert found["spikes_trained"] == 1.0 and found["spikes_chip"] == 1.5


def test_the_page_shows_spikes_voltages_and_sizes(tmp_path):
    exported(*relayed(10.5), tmp_path)
    text = (tmp_path / "parity.html").read_text()
    below = {part.split("</h2>")[0]: part for part in text.split("<h2>")[1:]}
    assert below["Spikes"].count("<svg") == 4 and below["Voltage where they part"].count("<svg") == 1
    assert "nodes: CubaLIF" in below["Resources"] and "Does not fit" not in text


def test_a_network_without_spiking_layers_has_no_dynamics(tmp_path):
    _, events = relayed(20.0)
    report = exported([LI(2, 3)], events, tmp_path)
    assert report.facts["dynamics"] == {} and gates(report)["L1"].passed
    assert report.facts["counts"]["synaptic_operations_per_sample"] == {"input->output": 7.5}


def test_spiking_outputs_are_read_by_their_first_spikes(tmp_path):
    model, events = relayed(20.0)
    report = exported(model[:2], events, tmp_path, torch.tensor([0, 1]), reading="first_spike")
    assert report.facts["accuracy"]["chip"]["share"] == 1.0 and set(report.facts["dynamics"]) == {"hidden_0", "output"}


# ---- in pieces -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_a_simulation_goes_on_where_it_ended(steps):
    model, events = random_net()
    imported, raster = from_nir(to_nir(model, dt=DT)), rasterize(events, DT)
    whole, expected = imported(raster, return_traces=True)
    assert expected.spikes["layer_0_neuron.lif"].sum() > 50
    simulation = Simulation(imported.flat, imported.rules, raster.shape[1])
    parts = [simulation(part) for part in raster.split(steps)]
    assert torch.equal(torch.cat([output for output, _ in parts]), whole)
    for kind in expected._fields:
        for name, trace in getattr(expected, kind).items():
            assert torch.equal(torch.cat([getattr(traces, kind)[name] for _, traces in parts]), trace)


def test_a_simulation_is_of_so_many_samples():
    model, events = random_net()
    imported = from_nir(to_nir(model, dt=DT))
    with pytest.raises(ValueError, match="expected as many samples as before, 3, got 7"):
        Simulation(imported.flat, imported.rules, 3)(rasterize(events, DT))


def watched(monkeypatch):
    """The scores of each run of all samples, and the steps and samples of each piece, as they come."""
    scores, sizes = [], []
    run, step = nir_report._run, Simulation.__call__

    def running(*arguments):
        found = run(*arguments)
        scores.append(found.scores)
        return found

    def stepping(self, raster):
        sizes.append(tuple(raster.shape[:2]))
        return step(self, raster)

    monkeypatch.setattr(nir_report, "_run", running)
    monkeypatch.setattr(Simulation, "__call__", stepping)
    for module in ("nir_report", "nir.exporting"):  # what the checks run is no piece
        monkeypatch.setattr(f"eventnet.hardware.{module}.check_against", lambda *_: nir_check.Agreement(1, 1, 0.0, 1))
    return scores, sizes


@pytest.mark.parametrize("reading", ["max", "mean", "integral", Reading("at", step=5e-3)], ids=str)
def test_pieces_give_the_numbers_of_one_run(reading, tmp_path, monkeypatch):
    model, events = random_net()
    labels = torch.randint(0, 3, (7, 7), generator=torch.Generator().manual_seed(2))
    there = torch.arange(1, 8) * 5e-3 <= events.duration[:, None] + 1e-6
    labels = torch.where(there, labels, -100) if isinstance(reading, Reading) else labels[:, 0]
    scores, sizes = watched(monkeypatch)
    whole = exported(model, events, tmp_path, labels, reading, tolerance=1.0).facts
    steps = int(events.num_steps(DT).max())
    assert sizes == [(steps, 7)] * 2  # of all, and of the few whose dynamics are compared
    sizes.clear()
    monkeypatch.setattr(nir_report, "SAMPLES", 2)
    monkeypatch.setattr(nir_report, "STEPS", 9)
    pieces = exported(model, events, tmp_path, labels, reading, tolerance=1.0).facts
    assert max(steps for steps, _ in sizes) == 9 and {batch for _, batch in sizes} == {1, 2, 7}
    assert sum(n for n, batch in sizes if batch == 7) == steps
    assert pieces["identity"].pop("file_sha256") and whole["identity"].pop("file_sha256")
    assert pieces == whole and pieces["counts"]["spikes_per_sample"]["hidden_0"] > 10
    one, other = (x[there] if isinstance(reading, Reading) else x for x in scores)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_scores_of_steps_are_the_voltages_at_their_ends(tmp_path):
    model, events = random_net()
    labels = torch.full((7, 7), -100)
    labels[:, :3] = torch.randint(0, 3, (7, 3), generator=torch.Generator().manual_seed(2))
    reading = Reading("at", step=5e-3)
    found = exported(model, events, tmp_path, labels, reading, tolerance=1.0).facts["accuracy"]
    output = from_nir(tmp_path / "network.nir")(rasterize(events, DT))
    said = output[4:35:5].transpose(0, 1).argmax(-1)  # after 5, 10, ... steps
    counted = labels != -100
    assert found["labels"] == 21
    assert found["chip"]["share"] == pytest.approx(float((said == labels)[counted].double().mean()))


# ---- the gates -------------------------------------------------------------------------------------------------------------


def test_the_gate_says_what_it_measured(tmp_path):
    model, events = random_net()
    text = gates(exported(model, events, tmp_path, samples=4, steps=25))["L1"].text
    number = r"(\d[\d,]*) spikes equal, (\d[\d,]*) voltages at most (\S+) V apart, in (\d+) steps on the samples"
    spikes, voltages, apart, steps = re.search(number, text).groups()
    _, traces = from_nir(tmp_path / "network.nir")(rasterize(events[:4], DT)[:25], return_traces=True)
    assert int(spikes.replace(",", "")) == int(traces.spikes["layer_0_neuron.lif"].sum()) > 10
    assert int(voltages.replace(",", "")) == 25 * 4 * (12 + 3) and steps == "25" and 0 < float(apart) < 1e-9
    assert "in 60 steps on random spikes" in text


def test_the_check_returns_the_largest_difference(monkeypatch):
    model, _ = random_net()
    stepped = nir_check.stepped

    def other(*arguments):
        return [(layer, (spikes, v + 5e-10, above)) for layer, (spikes, v, above) in stepped(*arguments)]

    imported = from_nir(to_nir(model, dt=DT))
    assert check_against(imported, model).difference < 1e-12
    monkeypatch.setattr(nir_check, "stepped", other)
    assert check_against(imported, model).difference == pytest.approx(5e-10, rel=1e-3)


def tampering(monkeypatch, change):
    """The file is changed after it was written and checked, before it is read."""

    def write(*arguments, **options):
        write_nir(*arguments, **options)
        change(Path(arguments[1]))

    monkeypatch.setattr(nir_report, "write_nir", write)


@pytest.mark.parametrize(
    ("node", "layer"), [("layer_0_linear_0", "layer_0_neuron"), ("layer_1_linear", "layer_1_neuron")]
)
def test_a_file_that_was_changed_is_another_network(node, layer, tmp_path, monkeypatch):
    def change(path):
        with h5py.File(path, "r+") as file:
            weight = file[f"node/nodes/{node}/weight"]
            weight[...] = weight[...] * (1 + 1e-3)

    tampering(monkeypatch, change)
    model, events = random_net()
    report = exported(model, events, tmp_path, torch.zeros(7, dtype=torch.int64))
    assert gates(report)["L0"].passed and gates(report)["L1"].passed is False and not report.ok
    assert re.match(rf"{layer}\S*: other (spikes|voltages) than the layer's", gates(report)["L1"].text)
    assert gates(report)["L2"].passed is None and "accuracy" not in report.facts


def test_a_file_of_other_layers_is_another_network(tmp_path, monkeypatch):
    tampering(monkeypatch, lambda path: write_nir([LIF(8, 3)], path, dt=DT))
    model, events = random_net()
    assert gates(exported(model, events, tmp_path))["L1"].passed is False


def test_a_file_that_cannot_be_read_does_not_load(tmp_path, monkeypatch):
    tampering(monkeypatch, lambda path: path.write_bytes(b"nothing"))
    report = exported(*random_net(), tmp_path)
    assert {name: gate.passed for name, gate in gates(report).items()} == {"L0": False, "L1": None, "L2": None}
    assert "not a whole NIR" in gates(report)["L0"].text and "no file to run" in gates(report)["L2"].text


def test_where_rounding_decides_from_the_first_step_on_nothing_was_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(nir_report, "check_against", lambda *_: nir_check.Agreement(0, 0, 0.0, 0))
    gate = gates(exported(*relayed(20.0), tmp_path))["L1"]
    assert gate.passed is None and "nothing was compared" in gate.text


def test_delays_that_the_layers_had_are_those_that_were_rounded():
    delay = torch.tensor([[0.2e-3, 1.0e-3], [2.4e-3, 3.0e-3]])
    assert from_nir(to_nir(LIF(2, 2, delay=delay), dt=DT)).delay_rounding == pytest.approx(0.4e-3, rel=1e-5)


def test_without_labels_there_is_no_accuracy(tmp_path):
    model, events = random_net()
    report = exported(nn.Sequential(*model), events, tmp_path)
    assert gates(report)["L2"].text == "no labels were given" and report.ok


def test_other_errors_are_no_answer(tmp_path, monkeypatch):
    """A gate fails where the file is another network, not where something else is wrong."""
    model, events = random_net()

    def broken(error):
        def call(*_, **__):
            raise error

        return call

    for name in ("check_against", "write_nir", "from_nir"):
        for error in (RuntimeError("out of memory"), OSError("disk full")):
            with monkeypatch.context() as patch, pytest.raises(type(error), match=str(error)):
                patch.setattr(nir_report, name, broken(error))
                exported(model, events, tmp_path)
    monkeypatch.setattr(nir_report, "write_nir", broken(Disagreement("not what was written")))
    report = exported(model, events, tmp_path, samples=1, steps=3)
    assert gates(report)["L0"].passed is False and gates(report)["L0"].text == "not what was written"


@pytest.mark.parametrize(
    ("other", "text"),
    [([LIF(8, 3)], r"neurons: \[3\] in the file, \[12, 3\]"), ([LIF(7, 12), LI(12, 3)], r"input: of shape \(7,\) in")],
)
def test_sizes_that_differ_are_named(other, text):
    model, _ = random_net()
    with pytest.raises(Disagreement, match=text):
        check_against(from_nir(to_nir(other, dt=DT)), model)


@pytest.mark.parametrize("reading", ["max", "mean", "integral", Reading("at", step=DT)], ids=str)
def test_a_piece_of_samples_that_last_no_time(reading, tmp_path, monkeypatch):
    model, _ = relayed(20.0)
    events = Events.from_list([([], []), ([], []), ([0.01], [0])], 2, [0.0, 0.0, 0.03])
    monkeypatch.setattr(nir_report, "SAMPLES", 2)
    facts = export_nir(model, tmp_path, events, reading=reading, dt=DT, samples=3, steps=30).facts
    assert facts["counts"]["spikes_per_sample"]["input"] == pytest.approx(1 / 3)
