"""What comes in from outside: integers of NumPy pass, and what is something else is named in a sentence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from test_hardware_export import small
from torch import nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.hardware import compile, export, export_nir, finetune
from eventnet.hardware.files import contents
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.mapping import profile
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs
from eventnet.hardware.nir import from_nir, to_nir

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "given", [None, ("events", "labels"), torch.zeros(5, 1, 8), "pair"], ids=["None", "tuple", "tensor", "pair"]
)
def test_what_are_no_events_is_named(given, tmp_path):
    model, events, labels = small()
    given = (events, labels) if given == "pair" else given
    deployment = compile(model, calibration=events, search=False, reading="mean")
    kind = type(given).__name__
    with pytest.raises(TypeError, match=f"calibration: expected Events, got {kind}"):
        compile(model, calibration=given)
    for call in (
        lambda: deployment.run(given),
        lambda: deployment.raster(given),
        lambda: export(deployment, model, "loihi", tmp_path / "new", given),
        lambda: export_nir(model, tmp_path / "new", given),
    ):
        with pytest.raises(TypeError, match=f"events: expected Events, got {kind}"):
            call()
    with pytest.raises(TypeError, match="batches: expected"):
        finetune(deployment, [(given, labels)], epochs=1)
    assert not (tmp_path / "new").exists()


def test_a_data_set_is_not_its_batches():
    model, events, labels = small()
    deployment = compile(model, calibration=events, search=False, reading="mean")
    singles = [(events[k : k + 1], int(labels[k])) for k in range(len(labels))]
    with pytest.raises(TypeError, match=r"got \(Events, int\); of a data set, Batches\(data, batch_size\)"):
        finetune(deployment, singles, epochs=1)
    with pytest.raises(TypeError, match="expected pairs of Events and labels, got int"):
        finetune(deployment, 3, epochs=1)


def test_arrays_and_integers_of_numpy():
    one, two = np.int64(1), np.int64(2)
    synapses = Dense("input", "n", [[100], [50]], weight_exp=np.int64(0), message_bits=np.int8(0))
    neurons = LIFNeurons("n", one, vth=np.int64(100), reset_interval=np.int64(9))
    network = HardwareNetwork([Inputs("input", two), neurons], [synapses], 1e-3)
    assert json.dumps([network["input"].size, network.projections[0].weight_exp, neurons.reset_interval]) == "[2, 0, 9]"
    assert contents(network)
    raster = np.random.default_rng(0).integers(0, 2, (20, 3, 2))
    expected = simulate(network, torch.as_tensor(raster))
    for given in (raster, {"input": raster}):
        assert torch.equal(simulate(network, given).v["n"], expected.v["n"])
    with pytest.raises(TypeError, match=r"spikes: expected a tensor \(T, B, N\) of integers, got Events"):
        simulate(network, Events.from_list([([], [])], num_units=2, duration=0.1))
    kernel = Convolution("input", "n", [[[[1]]]], shape=(one, one, two), stride=(one, one), groups=one)
    assert kernel.out_shape == (1, 1, 2) and type(kernel.groups) is int
    for value in (True, 1.5, "1", None, np.float64(1.0)):
        with pytest.raises(ValueError, match=r"a\.size: expected an integer from 1"):
            Inputs("a", value)


def test_an_imported_file_says_what_it_takes():
    net = from_nir(to_nir([LIF(8, 3)], dt=1e-3))
    _, events, _ = small()
    with pytest.raises(
        TypeError, match=r"expected a tensor \(T, B, ...\) .* of 0.001 s, got Events; events.to_dense\(0.001\)"
    ):
        net(events)
    assert torch.equal(net(events.to_dense(1e-3)), net(events.to_dense(1e-3).numpy()))


def test_modules_that_do_nothing_once_training_is_over():
    _, events, _ = small()
    torch.manual_seed(0)
    hidden, readout, units, linear = LIF(8, 12), LI(12, 3), EGRU(8, 12, step=1e-3), nn.Linear(12, 3)
    for plain, idle in (
        ([hidden, readout], nn.Sequential(nn.Identity(), hidden, nn.Dropout(0.5), readout)),
        ([units, linear], nn.ModuleList([units, nn.Dropout(0.5), linear])),
        ([units, linear], nn.ModuleList([units, linear])),
    ):
        one, other = (compile(model, calibration=events, reading="mean") for model in (plain, idle))
        assert torch.equal(one.run(events).scores, other.run(events).scores)
        assert other.report(events, one.predict(events)).facts["accuracy"]["agreement"] > 0.5


# ---- messages --------------------------------------------------------------------------------------------------------------


def broken(where):
    model, events, _ = small()
    with torch.no_grad():
        dict(model.named_parameters())[where].view(-1)[0] = math.nan
    return lambda: compile(model, calibration=events)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compile([EGRU(8, 4, step=1e-3)], calibration=small()[1]), r"layer 0 is EGRU: .*\[EGRU, nn.Linear\]"),
        (
            lambda: compile(nn.GRU(2, 2), calibration=small()[1]),
            r"expected a chain of LIF and LI layers, or \[EGRU, nn.Linear\]",
        ),
        (lambda: compile([LIF(5, 2)], calibration=small()[1]), "calibration: expected events of 5 units, .* got 8"),
        (
            lambda: compile(small()[0], "lava", calibration=small()[1]),
            r"compile for 'loihi', then export\(deployment, model, 'lava'",
        ),
        (lambda: compile(small()[0], "nir", calibration=small()[1]), r"export_nir\(model, folder, events\)"),
        (broken("1.weight"), "output.weight: expected finite numbers"),
        (broken("0.weight"), "hidden_0.weight: expected finite numbers"),
        (broken("0.delay"), "hidden_0.delay: expected finite seconds"),
        (lambda: compile(small()[0], calibration=small()[1], reading="at"), r"Reading\('at', step=...\)"),
        (lambda: profile("lohi2"), r"did you mean 'loihi2'\?\); there are loihi1"),
        (lambda: profile("moon"), r"no profile 'moon'; there are loihi1"),
    ],
)
def test_messages_name_the_remedy(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
