"""From trained layers to integers: closed forms, the limit of short steps, refusals, calibration, readings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.hardware import Deployment, compile
from eventnet.hardware.calibrate import as_raster, calibrate, filtered, van_rossum_distance
from eventnet.hardware.loihi import simulate
from eventnet.hardware.quantize import Scale, gain, layers_of, quantize, rasterize
from eventnet.hardware.reading import KINDS, Reader, Reading


def made(layer, **values):
    """A layer with these parameters."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name).copy_(torch.as_tensor(value))
    return layer


def stream(seed, batch=4, units=10, events=60, duration=0.2):
    generator = torch.Generator().manual_seed(seed)
    samples = [
        (
            torch.sort(torch.rand(events, generator=generator) * duration)[0],
            torch.randint(0, units, (events,), generator=generator),
        )
        for _ in range(batch)
    ]
    return Events.from_list(samples, num_units=units, duration=duration)


def driven(seed=0, **options):
    """A layer of 10 -> 20 that fires now and then."""
    torch.manual_seed(seed)
    layer = LIF(10, 20, **options)
    with torch.no_grad():
        layer.weight.mul_(12).add_(1.0)
    return layer


# ---- closed forms --------------------------------------------------------------------------------------------------------


@given(st.floats(1e-4, 5e-3), st.floats(1e-3, 0.2), st.floats(1e-3, 0.2))
def test_gain_is_the_voltage_after_a_step(dt, tau_mem, tau_syn):
    mem, syn = (torch.tensor(x, dtype=torch.float64) for x in (tau_mem, tau_syn))
    layer = LI(1, 1, tau_mem=mem, tau_syn=syn, dtype=torch.float64)
    voltage = made(layer, weight=[[1.0]])(Events.from_list([([0.0], [0])], num_units=1, duration=1.0)).at(
        torch.tensor([dt])
    )
    assert float(gain(dt, mem, syn)) == pytest.approx(float(voltage.detach()), rel=1e-6)


def test_integers_of_one_neuron():
    layer = made(LIF(2, 1, tau_mem=20e-3, tau_syn=5e-3, bias=0.1, reset=-0.5), weight=[[2.0], [-1.0]])
    network, log = quantize([layer], 1e-3)
    neurons, scale, k = (
        network["output"],
        254 / 2,
        float(gain(1e-3, torch.tensor(20e-3).double(), torch.tensor(5e-3).double())),
    )
    assert network.projections[0].weight.flatten().tolist() == [254, -128]  # 2 round(-63.5), to even
    assert int(neurons.du) == round(4096 * (1 - math.exp(-1 / 5))) - 1
    assert int(neurons.dv) == round(4096 * (1 - math.exp(-1 / 20)))
    assert int(neurons.vth) == round(1.5 * scale / k)
    assert int(neurons.bias) == pytest.approx(64 * 0.6 * (1 - math.exp(-1 / 20)) * scale / k, rel=1e-3)
    assert log.errors["output"]["scale"] == pytest.approx(scale)
    assert log.errors["output"]["tau_mem_relative_error"] < 2e-3


def test_small_weights_get_an_exponent_and_tiny_ones_are_refused():
    layer = made(LIF(1, 1), weight=[[0.02]])
    network, _ = quantize([layer], 1e-3)
    assert network.projections[0].weight_exp < 0 and 60_000 < int(network["output"].vth) <= 131_071
    with pytest.raises(ValueError, match="too small beside the threshold"):
        quantize([made(layer, weight=[[1e-5]])], 1e-3)


def test_voltage_of_a_readout_starts_and_runs_as_the_trained_one():
    torch.manual_seed(0)
    layer, events = LI(10, 3, bias=0.3), stream(1)
    network, log = quantize([layer], 1e-4)
    v = simulate(network, rasterize(events, 1e-4)).v["output"]
    volts = gain(1e-4, *(torch.tensor(x).double() for x in (20e-3, 5e-3))) / (64 * log.errors["output"]["scale"])
    trained = layer(events).at(torch.arange(len(v)) * 1e-4).transpose(0, 1)
    assert (v * volts - trained).abs().max() < 0.02 * trained.abs().max()
    assert float((v[0] * volts - 0.3).abs().max()) < 2e-3


def test_neuron_with_a_bias_alone_fires_as_often():
    layer = made(LIF(1, 1, bias=1.5, initial_voltage=0.2), weight=[[1.0]])
    events = Events.from_list([([], [])], num_units=1, duration=0.5)
    dt = 2.5e-4
    network, log = quantize([layer], dt)
    told = simulate(network, rasterize(events, dt)).spikes["output"][:, 0, 0].nonzero().flatten() * dt
    exact = layer(events).times[: len(told)]
    assert len(told) > 15 and abs(len(told) - layer(events).num_events) <= 1
    # each spike is seen up to a step late, and the decay is off by as much as its rounding
    allowed = dt * torch.arange(1, len(told) + 1) + log.errors["output"]["tau_mem_relative_error"] * exact
    assert bool(((told - exact).abs() <= allowed + dt).all())


# ---- the limit of short steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"recurrent": True, "delay": (0.0, 3e-3), "recurrent_delay": (0.0, 3e-3)}])
def test_shorter_steps_come_nearer(options):
    events, distances, missing = stream(2), [], []
    layer = driven(3, **options)
    if options:
        with torch.no_grad():
            layer.recurrent_weight.mul_(0.3)
    told = layer(events)
    for dt in (2e-3, 2.5e-4):  # for still shorter ones the decays, 12 bits, are too coarse
        network, _ = quantize([layer], dt)
        spikes = simulate(network, rasterize(events, dt)).spikes["output"]
        distances.append(van_rossum_distance(spikes, filtered(as_raster(told, dt, len(spikes)), dt, 10e-3), dt, 10e-3))
        missing.append(abs(told.num_events - int(spikes.sum())))
    assert told.num_events > 100
    assert distances[1] < 0.4 * distances[0] and missing[1] < 0.25 * missing[0]


def test_events_go_to_the_nearest_step():
    events = Events.from_list([([0.0004, 0.0006, 0.0099], [0, 0, 1])], num_units=2, duration=0.01)
    raster = rasterize(events, 1e-3)
    assert raster.shape == (11, 1, 2) and raster[:, 0].nonzero().tolist() == [[0, 0], [1, 0], [10, 1]]


def test_delays_of_spikes_make_up_for_half_a_step():
    layer = LIF(1, 1, recurrent=True, delay=2e-3, recurrent_delay=3.5e-3)
    network, log = quantize([layer], 1e-3)
    assert [int(each.delay) for each in network.projections] == [2, 3]
    assert log.errors["output"]["recurrent_delay_worst_s"] == pytest.approx(0, abs=1e-9)


# ---- refusals ------------------------------------------------------------------------------------------------------------


def test_delay_beyond_the_buffer_is_refused_with_the_step_that_would_do():
    with pytest.raises(
        ValueError, match=r"output.delay: 0.07 s is 70 steps of 0.001 s; expected at most 62.*0.001129 s"
    ):
        quantize([LIF(2, 1, delay=0.07)], 1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([nn.Linear(2, 2)], "layer 0 is Linear: expected LIF or LI"),
        ([LI(2, 2), LIF(2, 2)], "layer 0 is LI, which sends nothing"),
        ([], "at least one layer"),
        ([LIF(2, 2, branches=2), LI(2, 2)], "layer 0: no integer neuron and no NIR node has dendritic branches"),
        (nn.Linear(2, 2), "expected a chain of LIF and LI layers"),
        ([EGRU(2, 2), LI(2, 2)], "layer 0 is EGRU"),
    ],
)
def test_models_that_are_no_chain_are_refused(model, message):
    with pytest.raises(TypeError, match=message):
        layers_of(model)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"output.weight: expected finite numbers"):
        quantize([made(LIF(1, 1), weight=[[math.inf]])], 1e-3)


def test_a_refractory_period_runs_here_and_is_refused_by_lava(tmp_path):
    layer, events = driven(refractory=5e-3), stream(0)
    deployment = compile([layer], calibration=events, reading="count", search=False)
    assert float(deployment.run(events).scores.sum()) < float(
        compile([driven()], calibration=events, reading="count").run(events).scores.sum()
    )
    with pytest.raises(ValueError, match="no fixed-point neuron with a refractory period"):
        deployment.to_lava(tmp_path, events)


def test_wrong_readings_are_named():
    events = stream(0)
    with pytest.raises(ValueError, match="readout 'max' of LIF outputs: expected first_spike or count"):
        compile([driven()], calibration=events, reading="max")
    with pytest.raises(ValueError, match="expected one of"):
        compile([driven()], calibration=events, reading="mode")
    with pytest.raises(ValueError, match="target: expected one of loihi"):
        compile([driven()], "moon", calibration=events)


# ---- calibration ---------------------------------------------------------------------------------------------------------


def test_calibration_comes_nearer_than_the_largest_scale():
    layer, events = driven(5), stream(5)
    with torch.no_grad():
        layer.weight[0, 0] = 60.0  # an outlier, for which all others would be rounded coarsely
    raster, goal = rasterize(events, 1e-3), filtered(as_raster(layer(events), 1e-3, 201), 1e-3, 10e-3)
    found = {}
    for name, scales in (("largest", {}), ("searched", calibrate([layer], events, 1e-3)[0])):
        network, _ = quantize([layer], 1e-3, scales=scales)
        found[name] = van_rossum_distance(simulate(network, raster).spikes["output"], goal, 1e-3, 10e-3)
    assert found["searched"] < 0.9 * found["largest"]


def test_clipped_weights_are_counted():
    layer = made(LIF(1, 2), weight=[[1.0, 0.25]])
    network, log = quantize([layer], 1e-3, scales={"output": Scale(508.0)})
    assert network.projections[0].weight.tolist() == [[254, 128]]
    assert log.errors["output"]["weight_clipped"] == 0.5


# ---- deployments ---------------------------------------------------------------------------------------------------------


def test_a_deployment_says_what_the_model_says_in_short_steps():
    torch.manual_seed(1)
    events, labels = stream(7, batch=12), None
    model = nn.Sequential(driven(6), LI(20, 4))
    trained = model[1](model[0](events)).mean()
    deployment = compile(model, calibration=events, dt=1e-4, reading="mean")
    decision = deployment.run(events)
    assert (decision.scores - trained).abs().max() < 0.1 * trained.abs().max()
    assert torch.equal(deployment.predict(events), decision.scores.argmax(-1)) and labels is None
    assert set(decision.overflows.values()) == {0}


@pytest.mark.parametrize("kind", sorted(set(KINDS) & {"max", "mean", "integral", "at"}))
def test_readings_of_pieces_are_those_of_voltages(kind):
    torch.manual_seed(0)
    events, layer, dt = stream(3), LI(10, 2, bias=0.1), 1e-4
    reading = Reading(
        kind,
        decay=0.05 if kind == "integral" else None,
        step=0.01 if kind == "at" else None,
        volts=(1, 1),
        offset=(0, 0),
    )
    voltage = layer(events)
    samples = voltage.at(torch.arange(2001) * dt).transpose(0, 1).double()
    reader = Reader(reading, events.num_steps(dt), dt)
    for part in samples.split(256):
        reader.add(part, part)
    exact = (
        voltage.at(torch.arange(1, 21) * 0.01)
        if kind == "at"
        else voltage.integral(0.05) / 0.05
        if kind == "integral"
        else getattr(voltage, kind)()
    )
    assert torch.allclose(reader.scores(), exact.double(), rtol=2e-3, atol=1e-4)


def test_first_spikes_and_counts_of_ragged_samples():
    spikes = torch.tensor([[0, 0, 1, 1, 1]]).T.reshape(5, 1, 1).repeat(1, 2, 1)
    for kind, expected in (("first_spike", [[2e-3], [math.inf]]), ("count", [[3.0], [0.0]])):
        reader = Reader(Reading(kind), torch.tensor([4, 1]), 1e-3)
        reader.add(spikes, spikes)
        assert torch.allclose(reader.scores().double(), torch.tensor(expected).double())


def test_a_saved_deployment_says_the_same(tmp_path):
    torch.manual_seed(0)
    events, model = stream(8), nn.Sequential(driven(8), LI(20, 3))
    deployment = compile(model, calibration=events)
    deployment.save(tmp_path / "network.safetensors")
    back = Deployment.load(tmp_path / "network.safetensors")
    assert torch.equal(back.run(events).scores, deployment.run(events).scores)
    assert back.log == deployment.log and back.reading == deployment.reading
    with pytest.raises(ValueError, match="has no trained model"):
        back.to_nir(tmp_path / "a.nir")


def test_two_events_in_a_step_become_a_graded_spike_and_are_reported():
    events = Events.from_list([([0.0101, 0.0102], [0, 0])], num_units=10, duration=0.1)
    deployment = compile([driven()], calibration=events, reading="count", search=False)
    assert deployment.network.projections[0].message_bits == 16
    assert "2 input events of one unit in a step" in deployment.log.lost[0]
    assert int(deployment.raster(events).max()) == 2


def test_input_events_that_are_lost_are_counted_and_values_refused():
    once, twice = stream(0, batch=1, events=5), Events.from_list([([0.01] * 3, [0] * 3)], num_units=10, duration=0.2)
    deployment = compile([driven()], calibration=once, reading="count", search=False)
    assert deployment.run(once).merged == 0 and deployment.run(twice).merged == 2
    assert "2 input events that shared a step" in deployment.report(twice).facts["warnings"][-1]
    graded = Events(torch.tensor([0.01]), torch.tensor([0]), torch.tensor([0, 1]), 10, 0.2, torch.tensor([2.0]))
    with pytest.raises(ValueError, match="expected none with values"):
        deployment.run(graded)


def test_a_short_sample_counts_the_same_beside_a_long_one():
    layer = driven(bias=1.5)
    short, long = ([0.01], [0]), ([0.01], [0])
    together = Events.from_list([short, long], num_units=10, duration=[0.05, 1.0])
    deployment = compile([layer], calibration=together, reading="count", search=False)
    alone = deployment.run(together[:1])
    assert torch.equal(deployment.run(together).spikes["output"][:1], alone.spikes["output"])
    assert int(alone.spikes["output"]) > 0
    layer_of = deployment.report(together).facts["dynamics"]["output"]
    assert layer_of["spikes_chip"] == pytest.approx(layer_of["spikes_trained"], rel=0.2)


def test_a_readout_may_rest_above_one_volt():
    layer, events = LI(10, 3, bias=1.5), Events.from_list([([], [])], num_units=10, duration=0.05)
    scores = compile([layer], calibration=events, reading="mean").run(events).scores
    assert torch.allclose(scores, torch.full_like(scores, 1.5), rtol=5e-3)


def test_weights_that_a_mask_leaves_out_do_not_set_the_scale():
    mask = torch.ones(10, 20, dtype=torch.bool)
    mask[0] = False
    layer = driven(mask=mask)
    network, log = quantize([layer], 1e-3)
    with torch.no_grad():
        layer.weight[0] = 1e6
    again, after = quantize([layer], 1e-3)
    assert torch.equal(network.projections[0].weight, again.projections[0].weight)
    assert log.errors == after.errors and log.errors["output"]["weight_sqnr_db"] > 35


def test_decays_that_round_to_nothing_are_said():
    _, log = quantize([LIF(2, 2, tau_mem=20.0)], 1e-3)
    assert "decays too slow for 12 bits" in log.lost[0]
    with pytest.raises(ValueError, match="expected finite seconds"):
        layer = LIF(2, 2, delay=1e-3)
        with torch.no_grad():
            layer.delay.fill_(math.nan)
        quantize([layer], 1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_shift_by_whole_steps_shifts_everything(seed, steps):
    layer, dt = driven(seed), 2.0**-10
    events = stream(seed, batch=1, duration=0.1)
    network, _ = quantize([layer], dt)
    raster = rasterize(events, dt)
    later = torch.cat([torch.zeros_like(raster[:steps]), raster])
    early, late = simulate(network, raster), simulate(network, later)
    assert torch.equal(early.spikes["output"], late.spikes["output"][steps:])
