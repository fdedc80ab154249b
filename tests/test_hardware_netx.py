"""netx files: what its loader reads, and what it cannot hold.

Read by lava-dl's own loader, whose Lava processes then ran, the network below spiked as ours does.
"""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Dense, HardwareNetwork, Inputs
from eventnet.hardware.netx import to_netx


def chain():
    """20 inputs, 15 and 4 neurons; biases in units of 64."""
    draw = torch.Generator().manual_seed(0)
    weights = [2 * torch.randint(-100, 120, shape, generator=draw) for shape in ((20, 15), (15, 4))]
    hidden = LIFNeurons("hidden", 15, du=700, dv=200, vth=600, bias_mant=torch.arange(15), bias_exp=6)
    populations = [Inputs("input", 20), hidden, LIFNeurons("output", 4, du=500, dv=100, vth=400)]
    names = [each.name for each in populations]
    ends = zip(names[:-1], names[1:], weights, strict=True)
    return HardwareNetwork(populations, [Dense(a, b, weight, sign_mode="mixed") for a, b, weight in ends], dt=1e-3)


def loaded(path):
    """The graph as netx builds it: du = iDecay - 1, dv = vDecay, vth = vThMant, bias << 6."""
    populations, projections = [Inputs("input", 20)], []
    with h5py.File(path, "r") as file:
        for k in range(len(file["layer"])):
            layer = file[f"layer/{k}"]
            assert layer["type"][0] == b"dense" and layer["neuron/type"][0] == b"LOIHI"
            numbers = {name: int(layer[f"neuron/{name}"][()]) for name in ("iDecay", "vDecay", "vThMant")}
            size = int(np.prod(layer["shape"][()]))
            options = {"du": numbers["iDecay"] - 1, "dv": numbers["vDecay"], "vth": numbers["vThMant"]}
            if "bias" in layer:
                options |= {"bias_mant": layer["bias"][()], "bias_exp": 6}
            populations.append(LIFNeurons(f"layer_{k}", size, **options))
            weight = layer["weight"][()]
            assert weight.shape == (int(layer["outFeatures"][()]), int(layer["inFeatures"][()]))
            projections.append(Dense(populations[-2].name, populations[-1].name, weight.T.copy(), sign_mode="mixed"))
    return HardwareNetwork(populations, projections, dt=1e-3)


def test_the_file_says_what_the_network_is(tmp_path):
    network = chain()
    to_netx(network, tmp_path / "network.net")
    spikes = (torch.rand(60, 2, 20, generator=torch.Generator().manual_seed(1)) < 0.2).int()
    mine, theirs = simulate(network, spikes), simulate(loaded(tmp_path / "network.net"), spikes)
    assert int(mine.spikes["output"].sum()) > 50
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a["hidden"], b["layer_0"]) and torch.equal(a["output"], b["layer_1"])


def changed(place, **values):
    network = chain()
    parts = list(network.projections if place < 2 else network.populations)
    k = place if place < 2 else place - 1
    parts[k] = dataclasses.replace(parts[k], **values)
    return network.changed(**{"projections" if place < 2 else "populations": parts})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed(0, delay=torch.full((20, 15), 3)), "netx drops delays"),
        (lambda: changed(1, weight_exp=-1), "no exponent of weights, got -1"),
        (lambda: changed(0, message_bits=8), "plain spikes"),
        (lambda: changed(2, v=5), "starts neurons at 0"),
        (lambda: changed(2, bias_exp=3), "no multiple"),
        (lambda: changed(2, refractory=2), "no refractory period"),
        (lambda: changed(2, reset_interval=5), "no reset at intervals"),
        (lambda: changed(3, vth=[1, 2, 3, 4]), "output.vThMant: netx has one number"),
        (
            lambda: chain().changed(projections=[*chain().projections, Dense("hidden", "hidden", torch.eye(15).int())]),
            "no recurrent layers of this kind",
        ),
        (
            lambda: chain().changed(
                projections=[*chain().projections, Dense("input", "output", torch.ones(20, 4).int())]
            ),
            r"expected one from hidden, got hidden \(dense\), input \(dense\)",
        ),
    ],
)
def test_what_netx_cannot_hold_is_named(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_netx(make(), tmp_path / "network.net")
    assert not any(tmp_path.iterdir())
