"""Our NIR files read by Norse, snnTorch and Sinabs (`make peers` installs them): the same spikes, or what is lost is named."""

import contextlib
import io
import logging
import os
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import nn

from eventnet import LI, LIF
from eventnet.hardware.nir import from_nir, write_nir
from eventnet.hardware.nir.readers import lost_by_readers, verdicts

pytest.importorskip("nirtorch")
DT = 1e-4  # snnTorch has no other
TAUS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def full(value, *shape):
    return np.full(shape or (1,), float(value))


def norse(graph, raster, dt):
    module = pytest.importorskip("norse.torch")
    logging.disable(logging.WARNING)  # it says which parameters it does not take
    try:
        return stepped(module.from_nir(graph, dt=dt), raster)
    finally:
        logging.disable(logging.NOTSET)


def snntorch(graph, raster, dt):
    module = pytest.importorskip("snntorch.import_nir")
    with contextlib.redirect_stdout(io.StringIO()):
        network = module.import_from_nir(graph)
    return stepped(network, raster)


@torch.no_grad()
def stepped(network, raster):
    """Step by step; a single sample goes without its dimension, which NIR does not know."""
    state, outputs = None, []
    alone = raster.shape[1] == 1
    for arriving in raster.float():
        output, state = network(arriving[0] if alone else arriving, state)
        outputs.append(output[None] if alone else output)
    return torch.stack(outputs).double()


@torch.no_grad()
def sinabs(graph, raster, dt, single=False):
    module = pytest.importorskip("sinabs.nir")
    from sinabs.activation import SingleSpike

    steps, batch, shape = raster.shape[0], raster.shape[1], raster.shape[2:]
    network = module.from_nir(graph, batch_size=batch)
    for part in network.modules() if single else ():
        if hasattr(part, "spike_fn"):
            part.spike_fn, part.min_v_mem = SingleSpike, None
    output, _ = network(raster.float().transpose(0, 1).reshape(batch * steps, *shape))
    return output.reshape(batch, steps, *output.shape[1:]).transpose(0, 1).double()


READERS = {"Norse": norse, "snnTorch": snntorch, "Sinabs": sinabs}


def grown(model, scale):
    """The model with weights that make it fire."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(scale)
    return model


def layers(*sizes, scale=5.0, **given):
    """A chain of LIF layers that fire."""
    torch.manual_seed(0)
    return grown(nn.Sequential(*(LIF(*pair, **{**TAUS, **given}) for pair in pairwise(sizes))), scale)


def images():
    torch.manual_seed(0)
    return [grown(nn.Conv2d(2, 3, 3, padding=1), 2.0), nn.Flatten(), *layers(75, 6)]


def integrators(kind):
    generator = np.random.default_rng(0)
    affine = nir.Affine(np.abs(generator.normal(size=(5, 4))), full(0, 5))
    node = (
        nir.IF(full(1, 5), full(1, 5)) if kind == "IF" else nir.LIF(full(1e-2, 5), *(full(v, 5) for v in (1, 0, 0.1)))
    )
    return nir.NIRGraph.from_list(affine, node)


def two_ways():
    generator = np.random.default_rng(0)
    ways = {way: nir.Linear(np.abs(generator.normal(size=(5, 4)))) for way in "ab"}
    neuron = nir.LIF(full(1e-2, 5), *(full(v, 5) for v in (1, 0, 0.03)))
    nodes = {"input": nir.Input(np.array([4])), **ways, "lif": neuron, "output": nir.Output(np.array([5]))}
    return nir.NIRGraph(nodes, [("input", "a"), ("input", "b"), ("a", "lif"), ("b", "lif"), ("lif", "output")])


def spread(low, high, num=6):
    return torch.linspace(low, high, num)


# name: model, options, and what is lost by name (a part of it), reader by reader; "" where the spikes are the same
CASES = {
    "one layer": (lambda: layers(8, 6), {}, "", "", "linear: there is no Linear"),
    "three layers": (lambda: layers(8, 12, 12, 5), {}, "", "", "no CubaLIF"),
    "time constants of each neuron": (
        lambda: layers(8, 6, tau_mem=spread(5e-3, 2e-2), tau_syn=spread(2e-3, 8e-3)),
        *({}, "", "", "no CubaLIF"),
    ),
    "recurrent": (lambda: layers(8, 6, recurrent=True), {}, "", "", "no CubaLIF"),
    "three recurrent layers": (lambda: layers(8, 6, 6, 4, recurrent=True), {}, "", "", "no CubaLIF"),
    "torch's Linear with a bias": (
        lambda: [grown(nn.Linear(8, 8), 3.0), *layers(8, 6)],
        *({}, "", "", "no CubaLIF"),
    ),
    "images, a sample at a time": (
        images,
        {"input_shape": (2, 5, 5), "batch": 1},
        *("start_dim: flattens the batch", "start_dim: flattens the batch", "no CubaLIF"),
    ),
    "images": (images, {"input_shape": (2, 5, 5)}, "start_dim: flattens", "start_dim: flattens", "no CubaLIF"),
    "another dt": (lambda: layers(8, 6), {"dt": 1e-3}, "", "dt: is 0.0001 s", "no CubaLIF"),
    "charge": (lambda: layers(8, 6), {"convention": "charge"}, "convention: ", "r: refused", "convention: "),
    "bias": (
        lambda: layers(8, 6, bias=0.3),
        {},
        "v_leak: is also added to the current",
        "v_leak: refused",
        "no CubaLIF",
    ),
    "recurrent with bias": (
        lambda: layers(8, 6, recurrent=True, bias=0.3),
        *({}, "lif.v_leak: is also added", "lif.v_leak: refused", "no CubaLIF"),
    ),
    "reset": (lambda: layers(8, 6, reset=-0.3), {}, "v_reset: resets to 0", "v_reset: resets to 0", "no CubaLIF"),
    "thresholds of each neuron": (
        lambda: layers(8, 6, threshold=spread(0.5, 2.0)),
        *({}, "", "v_threshold: refused where it differs", "no CubaLIF"),
    ),
    "axonal delays": (
        lambda: layers(8, 6, delay=(0.0, 1e-3), delay_kind="axonal"),
        *({}, "delay: there is no Delay", "delay: there is no Delay", "delay: there is no Delay"),
    ),
    "synaptic delays": (
        lambda: layers(8, 6, delay=(0.0, 5e-4)),
        *({}, "there is no Delay", "there is no Delay", "there is no Delay"),
    ),
    "axonal delays of two layers": (
        lambda: layers(8, 6, 6, delay=(0.0, 1e-3), delay_kind="axonal", scale=8.0),
        *({}, "there is no Delay", "there is no Delay", "there is no Delay"),
    ),
    "recurrent delays": (
        lambda: layers(8, 6, recurrent=True, recurrent_delay=2e-3),
        *({}, "neuron.delay: there is no Delay", "neuron.delay: there is no Delay", "neuron.delay: there is no Delay"),
    ),
    "readout": (
        lambda: [*layers(8, 6), LI(6, 2)],
        *({}, "neuron: there is no CubaLI", "neuron: there is no CubaLI", "neuron: there is no CubaLI"),
    ),
    "integrators": (
        lambda: integrators("IF"),
        *({"dt": 1.0}, "", "there is no IF", "may spike several times in a step"),
    ),
    "integrators, another dt": (
        lambda: integrators("IF"),
        *({"dt": 0.5}, "r: is 1, and dt 1 s", "there is no IF", "may spike several times in a step"),
    ),
    "two ways to a neuron": (two_ways, {"dt": 1e-4}, "may come a step late", "", "no Linear"),
    "neurons without a current": (
        lambda: integrators("LIF"),
        *({"dt": 1e-3}, "", "dt: is 0.0001 s", "tau: counts steps"),
    ),
}


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("case", list(CASES))
def test_spikes_are_ours_or_what_is_lost_is_named(case, reader, tmp_path, report):
    make, options, *losses = CASES[case]
    loss = losses[list(READERS).index(reader)]
    options = {"dt": DT} | options
    batch, dt = options.pop("batch", 3), options["dt"]
    model = make()
    write_nir(model, tmp_path / "a.nir", **options)
    foreign = isinstance(model, nir.NIRGraph)
    imported = from_nir(tmp_path / "a.nir", **({"dt": dt, "reset": "to_value"} if foreign else {}))
    shape = tuple(imported.flat.nodes["input"].output_type["output"])
    raster = (torch.rand(300, batch, *shape, generator=torch.Generator().manual_seed(1)) < 0.05).double()
    ours = imported(raster)
    assert 20 < ours.count_nonzero() < ours.numel() / 2 or case == "readout"
    lost = lost_by_readers(imported)[reader]
    refused, verdict = False, verdicts(imported)[reader]
    try:
        theirs = READERS[reader](nir.read(tmp_path / "a.nir"), raster, dt)
        same = torch.equal(theirs, ours)
        result = f"differ in {(theirs != ours).sum()} places, {ours.count_nonzero()} spikes are ours"
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        refused = True
        same, result = False, f"{type(error).__name__}: {str(error)[:50]}"
    report(f"nir, {reader}: {case}: {'same spikes' if same else result}; lost: {', '.join(lost[:1]) or 'nothing'}")
    if "flatten" not in loss and not case.startswith("images"):  # a batch of those is another matter
        assert verdict.answer == ("refuses it" if refused else "reads it" if same else "reads it, but loses")
    if case == "images, a sample at a time":  # which is what the note on the batch says is read well
        assert any(loss in each for each in lost) and same == (reader != "Sinabs")
    elif loss:
        assert any(loss in each for each in lost) and not same
    else:
        assert lost == () and same


def test_sinabs_as_it_would_be_with_single_spikes_and_no_floor():
    """What is named for its integrators is all that is different."""
    graph = integrators("IF")
    raster = (torch.rand(200, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    ours = from_nir(graph, dt=1.0, reset="subtract")(raster)
    assert ours.sum() > 100 and torch.equal(sinabs(graph, raster, 1.0, single=True), ours)


def test_sinabs_own_file():
    path = Path(os.environ.get("EVENTNET_DATA", "/nowhere")) / "nir" / "cnn_sinabs.nir"
    if not path.is_file():
        pytest.skip("EVENTNET_DATA is not set, or has no nir")
    raster = (torch.rand(40, 2, 2, 34, 34, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    ours = from_nir(path, dt=1.0, reset="subtract")(raster)
    assert ours.sum() > 10 and torch.equal(sinabs(nir.read(path), raster, 1.0, single=True), ours)


def test_nirtorch_alone_loses_the_bias_of_an_affine():
    """Why weights without a bias are written as Linear, and Affine is mapped by our own importer."""
    nirtorch = pytest.importorskip("nirtorch")
    graph = nir.NIRGraph.from_list(nir.Affine(full(0, 2, 2), np.array([0.5, 7.0])))
    silence = torch.zeros(1, 1, 2)
    assert from_nir(graph, dt=1.0)(silence).tolist() == [[[0.5, 7.0]]]
    output, _ = nirtorch.nir_to_torch(graph, {})(silence[0].float())
    assert output.abs().max() < 1  # torch's random initial bias
