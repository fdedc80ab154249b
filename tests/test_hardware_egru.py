"""EGRU units in integers: their tables and arithmetic, the float layer a few steps later, quantising, fine-tuning, Lava."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hardware_networks import random_egru
from hypothesis import given, settings
from hypothesis import strategies as st
from in_lava import compare_with_lava
from torch import nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.hardware import Deployment, QuantizedTwin, compile, finetune
from eventnet.hardware.egru import ONE, EGRUUnits, tables
from eventnet.hardware.egru_quantize import binned, quantize_gated
from eventnet.hardware.files import load_network, save_network
from eventnet.hardware.finetuning import share_right
from eventnet.hardware.lava import rebuilt, to_lava
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Dense, HardwareNetwork, Inputs
from eventnet.hardware.reading import Reader, Reading
from eventnet.hardware.trained import reading_of, scores_of
from eventnet.layers.egru import EGRUState
from eventnet.training import GatedRecipe, build

HERE = Path(__file__).resolve().parent
needs_lava = pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="Lava is not installed: make lava")
pytestmark = pytest.mark.usefixtures("one_thread")
STEP = 1e-3
STATED = 2**-10  # by how much c may differ from the float layer's: the docstring of eventnet.hardware.egru


def graded(seed, batch=6, units=5, steps=12, lengths=None):
    """Events of values k / 255, some in every step; samples of the given lengths, in steps."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [steps] * batch if lengths is None else lengths
    samples, values = [], []
    for length in lengths:
        there = torch.rand(length, units, generator=generator) < 0.4
        there[0, 0] = True
        step, unit = there.nonzero(as_tuple=True)
        samples.append((step * STEP, unit))
        values.append(torch.randint(1, 256, (len(step),), generator=generator) / 255)
    events = Events.from_list(samples, num_units=units, duration=torch.tensor(lengths) * STEP)
    values[0][0] = 1.0
    return Events(events.times, events.units, events.offsets, units, events.duration, torch.cat(values))


def units(seed=0, inputs=5, hidden=16, gain=2.0, **options):
    torch.manual_seed(seed)
    layer = EGRU(inputs, hidden, step=STEP, **options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.uniform_(-0.5, 0.5)
            elif name.startswith("weight"):
                parameter.mul_(gain)
    return layer


def model(seed=0, classes=3, **options):
    layer = units(seed, **options)
    return nn.Sequential(layer, nn.Linear(layer.hidden_size, classes))


def deployed(network, events, payload_bits=8, reading=None):
    made = quantize_gated(network, events, payload_bits=payload_bits, reading=reading)
    return Deployment(made[0], made[2], made[1])


# ---- tables and arithmetic -------------------------------------------------------------------------------------------------


def test_tables_are_the_functions():
    x = torch.arange(257, dtype=torch.float64) / 16 - 8
    kept = 0.2 + 0.8 * torch.sigmoid(x)
    exact = torch.stack([torch.sigmoid(x), kept, torch.tanh(x)]) * ONE
    assert torch.equal(tables(0.2), exact.round().to(torch.int32))
    assert torch.equal(tables()[0], tables()[1])


def test_between_places_a_table_is_within_the_stated_error():
    u = torch.arange(-ONE - 500, ONE + 501)[None]
    stepper = EGRUUnits("hidden", 1).stepper(torch.device("cpu"))
    exact = torch.tanh(u.clamp(-ONE, ONE).double() / 4096)
    assert float((stepper.look(2, u) / ONE - exact).abs().max()) < 4e-4
    assert float((stepper.look(0, u) / ONE - torch.sigmoid(u.clamp(-ONE, ONE).double() / 4096)).abs().max()) < 1e-4


def by_hand(x, h, c, threshold, bits):
    """One unit and step in Python's integers, from the equations in the docstring."""

    def look(row, u):
        p = min(max(u, -(2**15)), 2**15) + 2**15
        k = min(p >> 8, 255)
        return row[k] + (((row[k + 1] - row[k]) * (p - (k << 8)) + 2**7) >> 8)

    of_r, of_z, of_n = tables().tolist()
    big_x = [((a * 20_000 + 2**15) >> 16) + 100 for a in x]
    big_h = [((a * 30_000 + 2**16) >> 17) - 50 for a in h]
    r, z = look(of_r, big_x[0] + big_h[0]), look(of_z, big_x[1] + big_h[1])
    u = big_x[2] + ((r * big_h[2] + 2**14) >> 15)
    v = (z * c + (2**15 - z) * look(of_n, u) + 2**14) >> 15
    fired = v > threshold
    told = min((v + ((1 << (15 - bits)) >> 1)) >> (15 - bits), 2**bits - 1) if fired else 0
    return told, u, v - fired * threshold


@settings(max_examples=60)
@given(st.data())
def test_a_step_is_the_equations(data):
    wide = st.integers(-200_000, 200_000)
    x, h = (data.draw(st.lists(wide, min_size=3, max_size=3)) for _ in range(2))
    c, threshold = data.draw(st.integers(-ONE, ONE)), data.draw(st.integers(0, ONE))
    bits = data.draw(st.sampled_from([1, 8, 15]))
    numbers = {"input_multiplier": 20_000, "input_shift": 16, "input_bias": 100}
    numbers |= {"recurrent_multiplier": 30_000, "recurrent_shift": 17, "recurrent_bias": -50}
    stepper = EGRUUnits("hidden", 1, threshold=threshold, payload_bits=bits, **numbers).stepper(torch.device("cpu"))
    state = {name: torch.tensor([[value]], dtype=torch.int32) for name, value in (("u", 0), ("v", c))}
    arrived = {"input": torch.tensor([x], dtype=torch.int32), "recurrent": torch.tensor([h], dtype=torch.int32)}
    told, _ = stepper.step(1, arrived, state)
    assert (int(told), int(state["u"]), int(state["v"])) == by_hand(x, h, c, threshold, bits)


def test_beyond_the_tables_is_counted():
    units = EGRUUnits("hidden", 1, input_multiplier=2**14, input_shift=1, threshold=ONE)
    network = HardwareNetwork(
        [Inputs("input", 1), units], [Dense("input", "hidden", [[8, 0, 8]], port="input")], dt=STEP
    )
    _, state = simulate(network, torch.tensor([[1], [0], [0]]), return_state=True)
    assert state.overflows == {"hidden": 2}  # r and n, once


# ---- properties of a simulation --------------------------------------------------------------------------------------------


def same(a, b):
    return all(torch.equal(x, other[name]) for part, other in zip(a, b, strict=True) for name, x in part.items())


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.data())
def test_a_run_cut_in_two_is_the_whole(seed, data):
    network, spikes = random_egru(seed)
    cut = data.draw(st.integers(0, len(spikes)))
    first, state = simulate(network, spikes[:cut], return_state=True)
    second = simulate(network, spikes[cut:], state=state)
    joined = tuple({name: torch.cat([x, b[name]]) for name, x in a.items()} for a, b in zip(first, second, strict=True))
    assert same(simulate(network, spikes), joined)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_samples_of_a_batch_do_not_see_each_other(seed):
    network, spikes = random_egru(seed)
    batch = torch.cat([spikes, torch.zeros_like(spikes), spikes.roll(3, 0)], dim=1)
    together = simulate(network, batch)
    for order in ([2, 0, 1], [1]):
        assert same(simulate(network, batch[:, order]), tuple({k: x[:, order] for k, x in p.items()} for p in together))


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_a_file_and_a_script_keep_everything(tmp_path_factory, seed):
    network, spikes = random_egru(seed)
    folder = tmp_path_factory.mktemp("file")
    save_network(network, folder / "network.safetensors")
    whole = simulate(network, spikes)
    assert same(whole, simulate(load_network(folder / "network.safetensors"), spikes))
    assert same(whole, simulate(rebuilt(to_lava(network, folder, spikes)), spikes))


def test_graded_spikes_are_delivered_alike_by_product_and_one_by_one(monkeypatch):
    network, spikes = random_egru(5)
    found = []
    for many in (0, 10_000):  # never a product, always
        monkeypatch.setattr("eventnet.hardware.synapses.MANY", many)
        found.append(simulate(network, spikes))
    assert same(*found)
    assert int((found[0].spikes["hidden_1"] != 0).sum()) > 5


# ---- the float layer, some steps later ---------------------------------------------------------------------------------------


def on_grid(layer):
    """Weights that 8 bits hold: even multiples of max / 254, gate by gate and unit by unit."""
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith("weight"):
                largest = weight.abs().amax(1, keepdim=True)
                weight.copy_((weight / largest * 127).round() / 127 * largest)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_step_from_the_same_state_is_the_float_layer_s_up_to_the_stated_error(seed):
    layer, events = units(seed), graded(seed)
    on_grid(layer)
    network, *_ = quantize_gated([layer, nn.Linear(16, 2)], events, payload_bits=15)
    raster = binned(events, STEP, network.notes["values"], late=1)
    found = simulate(network, raster)
    c, y = (part["hidden_0"].float()[:-1] / ONE for part in (found.v, found.spikes))  # of the step before
    state = EGRUState(*(part.reshape(1, -1, 16) for part in (c, y)))
    with torch.no_grad():
        _, _, (exact,) = layer((raster[:-1] / 255).reshape(1, -1, 5), state, return_steps=True)
    clear = (exact.v - exact.unit.threshold).abs() > STATED  # to fire or not is no question
    for part, expected in ((found.v, exact.c), (found.spikes, exact.y)):
        apart = (part["hidden_0"][1:].reshape(1, -1, 16) / ONE - expected.detach()).abs()
        assert float(apart[clear].max()) < STATED
    assert float(clear.float().mean()) > 0.95 and int(found.spikes["hidden_0"].count_nonzero()) > 10


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_a_run_without_events_is_the_float_layers_some_steps_later(seed):
    layer, events = units(seed, num_layers=2), graded(seed)
    on_grid(layer)
    with torch.no_grad():
        layer.threshold_l0.fill_(1.0)
        layer.threshold_l1.fill_(1.0)
    network, *_ = quantize_gated([layer, nn.Linear(16, 2)], events, payload_bits=15)
    found = simulate(network, binned(events, STEP, network.notes["values"], late=3))
    with torch.no_grad():
        _, _, steps = layer(events, return_steps=True)
    for k, exact in enumerate(steps):
        apart = (found.v[f"hidden_{k}"][k + 1 :][:12] / ONE - exact.c.detach()).abs()
        assert float(apart.max()) < STATED
        assert float(exact.c.detach().abs().max()) > 0.1


def test_units_are_idle_until_their_input_arrives():
    layer = units(num_layers=3)
    with torch.no_grad():
        for k in range(3):
            getattr(layer, f"bias_ih_l{k}")[-16:] = 5.0  # they fire without input
            getattr(layer, f"threshold_l{k}").fill_(0.1)
    network = deployed([layer, nn.Linear(16, 2)], graded(0)).network
    silent = torch.zeros(6, 1, 5, dtype=torch.int32)
    found = simulate(network, silent)
    for k in range(3):
        assert int(found.spikes[f"hidden_{k}"][: k + 1].abs().sum()) == 0
        assert int(found.spikes[f"hidden_{k}"][k + 1].count_nonzero()) > 8
        assert int(found.v[f"hidden_{k}"][: k + 1].abs().sum()) == 0


@pytest.mark.parametrize("zoneout", [0.0, 0.3])
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("kind", ["last", "mean", "each"])
def test_scores_are_the_trained_network_s(kind, decay, zoneout):
    recipe = GatedRecipe(
        name="mine", hidden=(16, 16), step=STEP, readout=kind, trace_decay=decay, zoneout=zoneout, dropout=0.5, seed=3
    )
    network = build(recipe, num_units=5, num_classes=4).eval()
    events = graded(1, lengths=[12, 3, 9, 1])
    exact = network(events).scores.detach().double()
    deployment = deployed(network, events, payload_bits=12)
    found = deployment.run(events).scores
    if kind == "each":  # after the end of a sample there is nothing to compare
        there = torch.arange(12)[None, :, None] < torch.tensor([12, 3, 9, 1])[:, None, None]
        exact, found = exact * there, found * there
    assert found.shape == exact.shape
    assert float((found - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert float((exact - exact.mean(-1, keepdim=True)).abs().max()) > 0.05  # there is something to get wrong
    assert (
        float((compile(network, calibration=events).run(events).scores - deployment.run(events).scores).abs().max())
        < 0.1
    )


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_are_multiplied_into_the_weights(tied):
    recipe = GatedRecipe(name="mine", hidden=(16,), step=STEP, readout="each", embedding=6, tied=tied, seed=1)
    network = build(recipe, num_units=9, num_classes=9).eval()
    with torch.no_grad():
        network.readout.bias.uniform_(-1, 1)
    events = Events.from_list([(torch.arange(7) * STEP, torch.arange(7))], num_units=9, duration=7 * STEP)
    exact = network(events).scores.detach().double()
    found = compile(network, calibration=events).run(events).scores
    assert float((found - exact).abs().max()) < 0.03 * float(exact.abs().max())


def test_plain_events_are_counted_where_they_happen():
    events = Events.from_list([([0.0, 0.0002, 0.0009, 0.0011], [1, 1, 0, 1])], num_units=2, duration=2 * STEP)
    deployment = compile(model(inputs=2), calibration=events)
    assert deployment.raster(events)[:, 0].tolist() == [[1, 2], [0, 1], [0, 0], [0, 0]]
    assert "sent as one graded spike" in deployment.log.lost[0]


def test_values_become_integers_and_what_that_loses_is_told():
    assert quantize_gated(model(), graded(0))[0].notes["values"] == pytest.approx(255, rel=1e-6)
    events = graded(0)
    odd = Events(events.times, events.units, events.offsets, 5, events.duration, events.values**2 * 3)
    _, log, _, _ = quantize_gated(model(), odd)
    assert "values of input events rounded" in log.lost[0]


def test_the_log_tells_what_was_lost():
    events = graded(2, batch=32)
    _, fine, _, apart = quantize_gated(model(num_layers=2), events, payload_bits=15)
    _, coarse, _, far = quantize_gated(model(num_layers=2), events, payload_bits=3)
    for name in ("hidden_0", "hidden_1"):
        assert fine.errors[name]["sent_sqnr_db"] > coarse.errors[name]["sent_sqnr_db"] + 5
        assert apart[name] < far[name]
        assert fine.errors[name]["input_weight_sqnr_db"] > 40


def test_a_network_in_training_is_compared_without_dropout():
    network, events = model(num_layers=2, dropout=0.7).train(), graded(2, batch=32)
    apart = compile(network, calibration=events).distances
    assert network[0].training and apart == compile(network.eval(), calibration=events).distances


# ---- reading -----------------------------------------------------------------------------------------------------------------


def test_late_outputs_are_read_late():
    v = torch.arange(8, dtype=torch.int32)[:, None, None].expand(8, 2, 1)
    steps = torch.tensor([5, 2])
    expected = {"last": [7, 4], "step_mean": [5.0, 3.5], "max": [7, 4], "at": [[3, 4, 5, 6, 7]] * 2}
    for kind, scores in expected.items():
        reading = Reading(kind, volts=(1.0,), offset=(0.0,), lag=2, step=STEP if kind == "at" else None)
        reader = Reader(reading, steps, STEP)
        for part in v.split(3):
            reader.add(part, torch.zeros_like(part))
        assert reader.scores().squeeze(-1).tolist() == scores, kind


def test_a_saved_deployment_does_the_same(tmp_path):
    events = graded(4)
    deployment = compile(model(trace_decay=0.8), calibration=events)
    deployment.save(tmp_path / "net")
    back = Deployment.load(tmp_path / "net")
    assert torch.equal(back.run(events).scores, deployment.run(events).scores)
    assert back.reading == deployment.reading and back.reading.lag == 1


# ---- fine-tuning ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "trace_decay": 0.9}])
@pytest.mark.parametrize("reading", ["last", "step_mean", "at"])
def test_the_twin_is_the_deployment(options, reading):
    events = graded(5, lengths=[12, 7, 1])
    deployment = compile(model(**options), calibration=events, reading=reading)
    twin = QuantizedTwin(deployment)
    assert torch.equal(twin(events), deployment.run(events).scores)
    with torch.no_grad():
        for weight in twin.weights:
            weight.add_(torch.empty_like(weight).uniform_(-9, 9)).clamp_(-256, 254)
    assert torch.equal(twin(events), twin.deploy().run(events).scores)
    assert not torch.equal(twin(events), deployment.run(events).scores)


def test_the_twin_s_gradient_has_the_float_network_s_direction():
    events, network = graded(6, batch=16), model(num_layers=2, gain=1.5)
    hidden, readout = network
    on_grid(hidden)
    labels = torch.arange(16) % 3
    nn.functional.cross_entropy(readout(hidden(events)[0][-1]), labels).backward()
    twin = QuantizedTwin(deployed(network, events, payload_bits=15))
    nn.functional.cross_entropy(twin(events), labels).backward()
    float_weights = [hidden.weight_ih_l0, hidden.weight_hh_l0, hidden.weight_ih_l1, hidden.weight_hh_l1, readout.weight]
    for k, (exact, found) in enumerate(zip(float_weights, twin.weights, strict=True)):
        own = exact.detach().abs().amax(1, keepdim=True) if k < 4 else exact.detach().abs().max()
        expected = (exact.grad * own / 254).t().flatten()  # of a weight in units of the grid
        assert float(nn.functional.cosine_similarity(found.grad.flatten(), expected, 0)) > 0.99, k
        assert float(found.grad.norm() / expected.norm()) == pytest.approx(1.0, abs=0.1), k


def test_no_gradient_comes_from_idle_steps():
    events = Events.from_list([([0.0, 4 * STEP], [0, 1])], num_units=5, duration=6 * STEP)
    network = model()
    with torch.no_grad():
        network[0].bias_ih_l0[-16:] = 3.0
    deployment = compile(network, calibration=events)
    late = dataclasses.replace(
        deployment.network["hidden_0"], first_step=5
    )  # unit 0 arrives in step 2, unit 1 in step 6
    deployment.network = deployment.network.changed(
        populations=[late if each.name == "hidden_0" else each for each in deployment.network.populations]
    )
    twin = QuantizedTwin(deployment)
    twin(events)[0, 0].backward()
    heard = twin.weights[0].grad.abs().sum(1)
    assert float(heard[1]) > 0 and float(heard.sum()) == float(heard[1])


def test_saturated_units_tell_the_most_and_have_no_gradient():
    network, events = model(), graded(9)
    with torch.no_grad():
        network[0].bias_ih_l0.copy_(torch.tensor([20.0, -20.0, 20.0]).repeat_interleave(16))
    deployment = compile(network, calibration=events)
    told = simulate(deployment.network, deployment.raster(events)).spikes["hidden_0"]
    assert bool((told[1:] == 255).all())
    twin = QuantizedTwin(deployment)
    twin(events).sum().backward()
    assert float(twin.weights[0].grad.abs().sum()) == 0 and float(twin.weights[2].grad.abs().sum()) > 0


def test_what_is_told_without_end_is_its_own_trace():
    events = graded(9)
    network, log, reading, _ = quantize_gated(model(trace_decay=0.9995), events)
    (synapses,) = network.onto("output")
    units = 2**8  # told without end
    arriving = (synapses.weight[3] * units).double() * 2.0**synapses.weight_exp
    voltage = 64 * arriving / (int(network["output"].dv[0]) / 4096)  # where what is lost in a step is what comes
    exact = synapses.weight[3] / log.errors["output"]["scale"]
    torch.testing.assert_close(voltage * reading.volts[0], exact.double())


def test_fine_tuning_learns():
    torch.manual_seed(0)
    events = graded(7, batch=48)
    labels = (torch.arange(48) % 2).long()
    late = (events.times > 5 * STEP).long() ^ labels[events.samples]
    moved = Events(events.times, (events.units % 2 + 2 * late).int(), events.offsets, 5, events.duration, events.values)
    deployment = compile(model(classes=2), calibration=moved)
    before = share_right(deployment, moved, labels)
    tuned = finetune(deployment, [(moved, labels)] * 4, epochs=5, learning_rate=2.0)
    assert share_right(tuned, moved, labels) > max(0.85, before)
    grid = torch.cat([each.weight.flatten() for each in tuned.network.projections])
    assert bool((grid % 2 == 0).all()) and int(grid.min()) >= -256 and int(grid.max()) <= 254


# ---- Lava ----------------------------------------------------------------------------------------------------------------------


@needs_lava
def test_networks_equal_lava(tmp_path):
    events = graded(8, batch=2)
    deployment = compile(model(num_layers=2, trace_decay=0.9), calibration=events)
    networks = [random_egru(seed) for seed in (1, 2)] + [(deployment.network, deployment.raster(events))]
    assert compare_with_lava(networks, tmp_path) == {}


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 160, 20))
def test_more_random_networks_equal_lava(first, tmp_path):
    assert compare_with_lava([random_egru(seed) for seed in range(first, first + 20)], tmp_path) == {}


def test_a_script_says_that_the_process_is_not_lava_s(tmp_path):
    network, spikes = random_egru(0)
    script = to_lava(network, tmp_path, spikes).read_text()
    assert "NOT part of stock Lava 0.10.0" in script and "no node of NIR" in script
    plain = compile([LIF(4, 3), LI(3, 2)], calibration=Events.from_list([([0.01], [2])], num_units=4, duration=0.1))
    other = to_lava(plain.network, tmp_path, torch.ones(3, 1, 4, dtype=torch.int32)).read_text()
    assert "EGRU" not in other and "OWN PROCESSES" not in other


def test_there_are_recorded_networks():
    networks = [load_network(path) for path in (HERE / "recorded").glob("lava_*.safetensors")]
    layers = [each for network in networks for each in network.neurons if isinstance(each, EGRUUnits)]
    assert len(layers) >= 4 and len({each.payload_bits for each in layers}) > 1


# ---- refusals ------------------------------------------------------------------------------------------------------------------


def broken(**changes):
    network = model()
    with torch.no_grad():
        for name, value in changes.items():
            getattr(network[0], name).fill_(value)
    return network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EGRUUnits("a", 2, input_multiplier=2**15), "a.input_multiplier: expected 0 to 32,767"),
        (lambda: EGRUUnits("a", 2, recurrent_shift=0), "a.recurrent_shift: expected 1 to 40"),
        (lambda: EGRUUnits("a", 2, threshold=-1), "a.threshold: expected 0 to 32,768"),
        (lambda: EGRUUnits("a", 2, input_bias=[1, 2]), r"a.input_bias: expected one integer or \(6,\), got \(2,\)"),
        (
            lambda: EGRUUnits("a", 2, table=[[0] * 256] * 3),
            r"a.table: expected one integer or \(3, 257\), got \(3, 256\)",
        ),
        (lambda: EGRUUnits("a", 2, payload_bits=16), "a.payload_bits: expected an integer from 1 to 15"),
        (lambda: EGRUUnits("a", 2, first_step=0), "a.first_step: expected an integer from 1"),
        (lambda: EGRUUnits("a", 300, payload_bits=15), "more than 32 bits: expected fewer payload_bits"),
        (
            lambda: HardwareNetwork([Inputs("i", 1), EGRUUnits("a", 1)], [Dense("i", "a", [[1, 2, 3]])], STEP),
            "no port ''; a has 'input', 'recurrent'",
        ),
        (lambda: compile(model(bidirectional=True), calibration=graded(0)), "units of both directions"),
        (lambda: compile([EGRU(5, 4), nn.Linear(4, 2)], calibration=graded(0)), r"expected EGRU\(..., step=1e-3\)"),
        (lambda: compile(model(), calibration=graded(0), dt=2e-3), "trained with steps of 0.001 s, expected those"),
        (
            lambda: compile(model(), calibration=graded(0), reading="max"),
            "readout 'max' of EGRU outputs: expected last, mean or at",
        ),
        (
            lambda: compile(broken(threshold_l0=-0.1), calibration=graded(0)),
            r"thresholds of -0.1 to -0.1; .*constrain_",
        ),
        (
            lambda: compile(broken(bias_hh_l0=float("nan")), calibration=graded(0)),
            "bias_hh_l0: expected finite numbers",
        ),
        (lambda: compile(broken(weight_ih_l0=1e9), calibration=graded(0)), "a weight of 1e.09 is too large"),
        (
            lambda: compile(model(trace_decay=0.99999), calibration=graded(0)),
            "trace_decay is 0.99999: the chip's nearest",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_models_are_refused():
    with pytest.raises(TypeError, match="layer 0 is EGRU: expected LIF or LI"):
        compile([EGRU(5, 4, step=STEP)], calibration=graded(0))
    with pytest.raises(TypeError, match="Linear: expected an EGRU and an nn"):
        quantize_gated(nn.Linear(2, 2), graded(0))


def test_units_without_their_own_projection_have_no_gradient():
    deployment = compile(model(), calibration=graded(0))
    some = [each for each in deployment.network.projections if each.port != "recurrent"]
    deployment.network = deployment.network.changed(projections=some)
    with pytest.raises(ValueError, match="hidden_0: expected one projection from below and one of its own, got 1"):
        QuantizedTwin(deployment)


def test_arrays_in_a_script_are_the_network_s(tmp_path):
    network, spikes = random_egru(3)
    to_lava(network, tmp_path, spikes)
    arrays = np.load(tmp_path / "arrays.npz")
    np.testing.assert_array_equal(arrays["hidden_0.table"], network["hidden_0"].table)


# ---- networks of recipes ---------------------------------------------------------------------------------------------------


def of_recipe(**changes):
    torch.manual_seed(0)
    network = build(GatedRecipe("x", hidden=(16,), step=STEP, **changes), 5, 5)
    with torch.no_grad():
        for name, parameter in network.hidden.named_parameters():
            if name.startswith("weight"):
                parameter.mul_(2)
        if network.direct is not None:
            network.direct.weight.normal_()
    return network


@pytest.mark.parametrize("field", ["direct", "standardize"])
def test_what_integers_have_no_place_for_is_refused_by_name(field):
    network, events = of_recipe(readout="each", **{field: True}), graded(0)
    with pytest.raises(TypeError, match=f"{field}: not carried over, .*{field}=False"):
        compile(network, calibration=events)
    assert torch.equal(scores_of(network, reading_of(network)[0], events), network.eval()(events).scores)
    with pytest.raises(TypeError, match=f"{field}: not carried over"):
        scores_of(network, Reading("last"), events)


@pytest.mark.parametrize("embedding", [0, 4])
@pytest.mark.parametrize("own", ["last", "mean", "each"])
@torch.no_grad()
def test_another_reading_of_samples_of_several_lengths(own, embedding, tmp_path):
    lengths = [12, 3, 9, 1]
    network, events = of_recipe(readout=own, embedding=embedding, trace_decay=0.5), graded(3, lengths=lengths)
    for kind, like in (("last", "last"), ("mean", "mean"), ("at", "each")):
        reading, _ = reading_of(network, Reading(kind, step=STEP if kind == "at" else None))
        other = of_recipe(readout=like, embedding=embedding, trace_decay=0.5).eval()
        expected = [other(events[k : k + 1]).scores[0] for k in range(4)]
        found = scores_of(network, reading, events)
        for k, length in enumerate(lengths):
            here = found[k, :length] if kind == "at" else found[k]
            assert torch.allclose(here, expected[k], atol=1e-5)
        deployment = compile(network, calibration=events, reading=reading)
        report = deployment.report(events, None if kind == "at" else deployment.predict(events))
        assert (deployment.run(events).scores[0] - expected[0]).abs().max() < 0.2 and report.facts["dynamics"]


def test_a_model_left_in_training_mode_says_the_same_each_time():
    network, events = of_recipe(readout="last", dropout=0.9), graded(4)
    reading, expected = reading_of(network)[0], network.eval()(events).scores
    network.train()
    network.hidden.eval()
    with torch.no_grad():
        assert not torch.equal(network(events).scores, expected)
    assert torch.equal(scores_of(network, reading, events), expected)
    assert network.training and network.readout.training and not network.hidden.training


def test_a_sample_that_lasts_no_time_is_named():
    events = Events.from_list([([0.0], [0]), ([], [])], 5, [2 * STEP, 0.0])
    with pytest.raises(ValueError, match="sample 1 lasts 0 s"):
        scores_of(model(), Reading("last"), events)
