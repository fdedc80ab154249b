"""Export to NIR: the numbers of the file, what a file cannot hold, and files that are whole or not there."""

import contextlib
import re
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from eventnet import EGRU, LI, LIF
from eventnet.hardware.nir import check as nir_check
from eventnet.hardware.nir import from_nir, to_nir, write_nir
from eventnet.hardware.nir.check import check_against
from eventnet.hardware.nir.files import KNOWN, differences, read_graph, write_graph

DT = 1e-3
pytestmark = pytest.mark.usefixtures("one_thread")


def grown(model, scale=4.0):
    """The model with weights that make it fire."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(scale)
    return model


def spikes_of(imported, steps=150, batch=2, rate=0.2):
    shape = tuple(imported.flat.nodes["input"].output_type["output"])
    raster = torch.rand(steps, batch, *shape, generator=torch.Generator().manual_seed(0)) < rate
    return imported(raster, return_traces=True)


# ---- the numbers -----------------------------------------------------------------------------------------------------------


def test_charge_convention_holds_the_layers_own_numbers():
    layer = LIF(3, 2, tau_mem=torch.tensor([0.01, 0.03]), tau_syn=4e-3, threshold=0.7, reset=-0.1, bias=0.2)
    graph = to_nir(layer, dt=DT, convention="charge")
    assert graph.edges == [
        ("input", "layer_0_linear"),
        ("layer_0_linear", "layer_0_neuron"),
        ("layer_0_neuron", "output"),
    ]
    np.testing.assert_array_equal(graph.nodes["layer_0_linear"].weight, layer.weight.detach().double().numpy().T)
    neuron = graph.nodes["layer_0_neuron"]
    for field, name in (("tau_mem", "tau_mem"), ("v_threshold", "threshold"), ("v_reset", "reset"), ("v_leak", "bias")):
        np.testing.assert_array_equal(getattr(neuron, field), getattr(layer, name).detach().double().expand(2).numpy())
    np.testing.assert_array_equal(neuron.r, 1)
    np.testing.assert_array_equal(neuron.w_in, neuron.tau_syn)  # a pulse of area 1 makes I jump by its weight


def test_step_convention_is_that_of_snntorch():
    layer = LIF(3, 2, tau_mem=torch.tensor([0.01, 0.03]), tau_syn=4e-3)
    graph = to_nir(layer, dt=DT)
    neuron = graph.nodes["layer_0_neuron"]
    np.testing.assert_array_equal(neuron.r, neuron.tau_mem / DT)
    np.testing.assert_array_equal(neuron.w_in, neuron.tau_syn / DT)
    expected = layer.weight.detach().double().numpy().T * (DT / neuron.tau_mem)[:, None]
    np.testing.assert_allclose(graph.nodes["layer_0_linear"].weight, expected, rtol=1e-15)


def test_both_conventions_are_one_network():
    torch.manual_seed(0)
    model = grown(nn.Sequential(LIF(5, 6, recurrent=True, delay=(0.0, 4e-3), bias=0.1), LIF(6, 4), LI(4, 2)), 8.0)
    runs = [spikes_of(from_nir(to_nir(model, dt=DT, convention=each))) for each in ("step", "charge")]
    assert all(trace.sum() > 20 for trace in runs[0][1].spikes.values())
    assert all(torch.equal(runs[0][1].spikes[name], trace) for name, trace in runs[1][1].spikes.items())
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=0, atol=1e-12)


def test_a_recurrent_layer_is_a_graph_of_its_own():
    graph = to_nir(LIF(3, 2, recurrent=True), dt=DT)
    inner = graph.nodes["layer_0_neuron"]
    assert {name: type(node).__name__ for name, node in inner.nodes.items()} == {
        "input": "Input",
        "lif": "CubaLIF",
        "w_rec": "Linear",
        "output": "Output",
    }
    # Norse gives out what it computes last: the edge to the output comes after those of the loop
    assert inner.edges == [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]


def test_metadata_says_what_the_format_does_not(tmp_path):
    write_nir(LIF(3, 2), tmp_path / "a.nir", dt=DT)
    said = read_graph(tmp_path / "a.nir").metadata
    assert float(said.pop("dt")) == DT
    expected = {
        "reset": "to_value",
        "order": "current_first",
        "convention": "step",
        "start": "rest",
        "writer": "eventnet",
    }
    assert said == expected
    assert dict(from_nir(tmp_path / "a.nir").missing) == {}


def test_nir_keeps_metadata_of_graphs_and_of_nodes(tmp_path):
    node = nir.Linear(np.ones((2, 2)), metadata={"number": 0.25, "text": "ab"})
    inner = nir.NIRGraph.from_list(nir.Scale(np.ones(2), metadata={"deep": 3}))
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([2])), "a": node, "b": inner, "output": nir.Output(np.array([2]))},
        [("input", "a"), ("a", "b"), ("b", "output")],
        metadata={"dt": 1e-3},
    )
    nir.write(tmp_path / "a.nir", graph)
    again = nir.read(tmp_path / "a.nir")
    assert again.metadata == {"dt": 1e-3}
    assert again.nodes["a"].metadata == {"number": 0.25, "text": "ab"}
    assert again.nodes["b"].nodes["scale"].metadata == {"deep": 3}


def test_pruned_and_parametrized_layers_travel(tmp_path):
    layers = [grown(LIF(4, 3)), LI(3, 2)]
    prune.random_unstructured(layers[0], "weight", amount=0.5)
    parametrizations.weight_norm(layers[1], "weight")
    write_nir(layers, tmp_path / "a.nir", dt=DT)
    assert (from_nir(tmp_path / "a.nir").to_model()[0].weight == 0).sum() == 6


def test_a_layer_with_a_forward_of_its_own_is_another_layer():
    class Doubled(LIF):
        def forward(self, events):
            return super().forward(events.merge(events))

    with pytest.raises(TypeError, match="NIR has no node for Doubled"):
        to_nir(Doubled(2, 2), dt=DT)


def test_ten_layers_keep_their_order_by_name():
    graph = to_nir([nn.Linear(2, 2, bias=False) for _ in range(11)], dt=DT)
    names = [name for name in graph.nodes if name.startswith("layer")]
    assert names == sorted(names) and names[-1] == "layer_10_linear"


# ---- delays ----------------------------------------------------------------------------------------------------------------


def test_axonal_delays_are_one_node_and_exact():
    layer = LIF(3, 2, delay=torch.tensor([[0.4e-3], [2e-3], [3.3e-3]], dtype=torch.float64), delay_kind="axonal")
    graph = to_nir(layer, dt=DT)
    assert list(graph.nodes) == ["input", "layer_0_delay", "layer_0_linear", "layer_0_neuron", "output"]
    np.testing.assert_allclose(graph.nodes["layer_0_delay"].delay, [0.4e-3, 2e-3, 3.3e-3], rtol=1e-6)
    assert from_nir(graph).delay_rounding == pytest.approx(0.4e-3, rel=1e-6)


def test_synaptic_delays_are_grouped_by_steps():
    layer = LIF(2, 2, delay=torch.tensor([[0.0, 1.2e-3], [4e-3, 0.9e-3]]))
    graph = to_nir(layer, dt=DT)
    assert {name for name in graph.nodes if "delay" in name} == {"layer_0_delay_1", "layer_0_delay_4"}
    np.testing.assert_array_equal(graph.nodes["layer_0_delay_1"].delay, [1e-3, 1e-3])
    assert graph.nodes["layer_0_delay_1"].metadata["rounding"] == pytest.approx(0.2e-3, rel=1e-5)
    whole = sum(node.weight for name, node in graph.nodes.items() if "linear" in name)
    np.testing.assert_array_equal(whole, to_nir(LIF_with(layer.weight), dt=DT).nodes["layer_0_linear"].weight)
    np.testing.assert_array_equal(graph.nodes["layer_0_linear_1"].weight != 0, [[False, False], [True, True]])


def LIF_with(weight):
    layer = LIF(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def test_too_many_delays_are_refused_with_their_number():
    layer = LIF(4, 3, delay=torch.arange(12.0).reshape(4, 3) * DT)
    to_nir(layer, dt=DT, max_delay_groups=12)
    with pytest.raises(
        ValueError, match=r"layer_0\.delay: 12 distinct delays .* max_delay_groups=11: .* larger max_delay"
    ):
        to_nir(layer, dt=DT, max_delay_groups=11)


def test_masked_synapses_have_neither_weight_nor_delay():
    mask = torch.tensor([[True, False], [True, True]])
    layer = LIF(2, 2, delay=torch.tensor([[1e-3, 9e-3], [2e-3, 1e-3]]), mask=mask)
    graph = to_nir(layer, dt=DT)
    assert sorted(name for name in graph.nodes if "delay" in name) == ["layer_0_delay_1", "layer_0_delay_2"]
    assert graph.nodes["layer_0_linear_1"].weight[1, 0] == 0 == graph.nodes["layer_0_linear_2"].weight[1, 0]


def test_a_layer_without_synapses_travels():
    layer = LIF(2, 3, delay=(1e-3, 5e-3))
    with torch.no_grad():
        layer.weight.zero_()
    assert "layer_0_delay" not in to_nir(layer, dt=DT).nodes


# ---- there and back --------------------------------------------------------------------------------------------------------


@st.composite
def models(draw):
    """Chains of LIF layers and perhaps an LI, with delays in whole steps."""
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    layers = []
    for num_in, num in pairwise(sizes):

        def drawn(low, high, num=num):
            shape = draw(st.sampled_from([(), (num,)]))
            return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

        given = {"tau_mem": drawn(2e-3, 3e-2), "tau_syn": drawn(2e-3, 3e-2), "bias": drawn(-0.2, 0.3)}
        kind = draw(st.sampled_from(["synaptic", "axonal", "dendritic"]))
        recurrent = draw(st.booleans())
        for name, there, sources in (("delay", True, num_in), ("recurrent_delay", recurrent, num)):
            if there and draw(st.booleans()):
                shape = {"synaptic": (sources, num), "axonal": (sources, 1), "dendritic": (1, num)}[kind]
                given[name] = torch.randint(0, 4, shape, generator=generator).double() * DT
        given |= {"threshold": drawn(0.5, 1.5), "reset": drawn(-0.3, 0.3), "dtype": dtype}
        layers.append(LIF(num_in, num, recurrent=recurrent, delay_kind=kind, **given))
    if draw(st.booleans()):
        layers.append(LI(sizes[-1], 2, dtype=dtype))
    return grown(nn.Sequential(*layers))


@given(models(), st.sampled_from(["step", "charge"]))
def test_model_to_file_to_model_to_file(tmp_path_factory, model, convention):
    path = tmp_path_factory.mktemp("nir") / "a.nir"
    write_nir(model, path, dt=DT, convention=convention)  # which simulates it, too
    imported = from_nir(path)
    dtype = model[0].weight.dtype
    again = to_nir(imported.to_model(dtype), dt=DT, convention=convention)
    if dtype == torch.float32 or convention == "charge":
        assert differences(imported.to_nir(), again) == []
    else:  # dt / tau_mem and back: float64 has no digits left to hide it in
        assert all(re.fullmatch(r".*\.weight", name) for name in differences(imported.to_nir(), again))
    for one, other in zip(model, imported.to_model(dtype), strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=1e-14 if dtype == torch.float64 else 0, atol=0)


def every_node():
    """A graph that holds all types of nodes, those with several dimensions first."""

    def ones(*shape):
        return np.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape)

    cuba = dict(tau_syn=ones(2) * 1e-2, tau_mem=ones(2) * 2e-2, r=ones(2), v_leak=ones(2) * 0.1)
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2])),
            "lif": nir.CubaLIF(**cuba, v_threshold=ones(2), v_reset=-ones(2)),
            "hold": nir.Delay(np.array([2e-3, 1e-3])),
            "w_rec": nir.Linear(ones(2, 2)),
            "output": nir.Output(np.array([2])),
        },
        [("input", "lif"), ("lif", "hold"), ("hold", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )
    chain = {
        "input": nir.Input(np.array([2, 9])),
        "conv1d": nir.Conv1d(9, ones(3, 2, 2), 1, 0, 1, 1, ones(3)),
        "flatten_1d": nir.Flatten({"input": np.array([3, 8])}, 0, -1),
        "scale": nir.Scale(ones(24)),
        "linear": nir.Linear(ones(16, 24)),
        "if": nir.IF(ones(16), ones(16) * 0.1),
        "i": nir.I(ones(16) * 1e3),
        "threshold": nir.Threshold(ones(16)),
        "li": nir.LI(ones(16) * 1e-2, ones(16), ones(16) * 0.1),
        "affine": nir.Affine(ones(2, 16), ones(2)),
        "cubali": nir.CubaLI(**cuba),
        "lif": nir.LIF(ones(2) * 1e-2, ones(2) * 3, ones(2) * 0.1, ones(2), ones(2) * 0.2),
        "delay": nir.Delay(ones(2) * 3e-3),
        "loop": inner,
        "output": nir.Output(np.array([2])),
    }
    names = list(chain)
    images = {
        "input": nir.Input(np.array([2, 8, 8])),
        "conv2d": nir.Conv2d((8, 8), ones(3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, ones(3)),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "average": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten(None, 0, -1),
        "output": nir.Output(None),
    }
    others = list(images)
    return [nir.NIRGraph(c, list(pairwise(n))) for c, n in ((chain, names), (images, others))]


def kinds(graph):
    for node in graph.nodes.values():
        yield type(node).__name__
        if isinstance(node, nir.NIRGraph):
            yield from kinds(node)


def test_every_node_survives_file_import_file(tmp_path):
    graphs = every_node()
    assert {kind for graph in graphs for kind in kinds(graph)} == set(KNOWN)
    for graph in graphs:
        write_nir(graph, tmp_path / "a.nir")
        imported = from_nir(tmp_path / "a.nir", dt=DT, reset="to_value")
        write_nir(imported.to_nir(), tmp_path / "b.nir")
        assert differences(graph, read_graph(tmp_path / "b.nir")) == []
        output, _ = spikes_of(imported, steps=20)
        assert torch.isfinite(output).all()


def test_any_other_number_is_a_difference():
    def leaves(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield path

    graph = every_node()[0]
    found = list(leaves(graph.to_dict(), ()))
    assert len(found) > 25
    for path in found:
        other = every_node()[0]
        node = other
        for key in path[:-1]:
            node = node[key] if isinstance(node, dict) else getattr(node, key)
        value = getattr(node, path[-1]).copy()
        value.flat[-1] = np.nextafter(value.flat[-1], 9)
        setattr(node, path[-1], value)
        assert differences(graph, other) == [".".join(path)]


@pytest.mark.parametrize("change", ["edges", "metadata", "dtype", "type"])
def test_differences_of_structure(change):
    graph, other = every_node()[0], every_node()[0]
    if change == "edges":
        other.edges = [*other.edges[1:], ("input", "loop")]
    if change == "metadata":
        other.metadata = {"dt": 1.0}
    if change == "dtype":
        other.nodes["linear"].weight = other.nodes["linear"].weight.astype(np.float32)
    if change == "type":
        other.nodes["linear"] = nir.Affine(other.nodes["linear"].weight, np.zeros(16))
    assert differences(graph, other)


# ---- torch's layers, and nodes as they are ---------------------------------------------------------------------------------


def test_torchs_layers_and_nodes_of_nir(tmp_path):
    torch.manual_seed(0)
    layers = [
        grown(nn.Conv2d(2, 3, 3, stride=2, padding=1), 3.0),
        nn.Flatten(),
        nir.Threshold(np.full(27, 0.5)),
        nn.Linear(27, 5),
        grown(LIF(5, 4)),
    ]
    graph = to_nir(layers, dt=DT, input_shape=(2, 5, 5))
    assert [type(n).__name__ for n in graph.nodes.values()] == [
        *("Input", "Conv2d", "Flatten", "Threshold", "Affine", "Linear", "CubaLIF", "Output")
    ]
    raster = (torch.rand(30, 2, 2, 5, 5) < 0.3).double()
    output = from_nir(graph)(raster)
    with torch.no_grad():
        above = (layers[1](layers[0].double()(raster[0])) > 0.5).double()
        current = layers[3].double()(above) @ layers[4].weight.double()
        first = DT / 0.02 * current > 1
    assert output.sum() > 0 and torch.equal(output[0] == 1, first)
    for convention in ("step", "charge"):
        parts = [layers[0].float(), layers[1], layers[3].float(), layers[4]]
        write_nir(parts, tmp_path / "a.nir", dt=DT, input_shape=(2, 5, 5), convention=convention)


def test_shape_of_the_input_has_to_be_known():
    with pytest.raises(ValueError, match=r"Conv2d does not tell the shape of its input: pass input_shape"):
        to_nir([nn.Conv2d(2, 3, 3), nn.Flatten()], dt=DT)


# ---- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (EGRU(3, 2), TypeError, "layer_0: EGRU cannot travel in NIR"),
        (
            [LIF(3, 2), nn.ReLU()],
            TypeError,
            "layer_1: NIR has no node for ReLU; expected one of LIF, LI, Linear, ",
        ),
        ([], ValueError, "expected at least one layer"),
        (LIF(3, 2, refractory=1e-3), ValueError, r"layer_0\.refractory: NIR has no refractory period"),
        (LIF(3, 2, branches=2), ValueError, r"layer_0\.weight: NIR has no neuron with dendritic branches"),
        (LIF(3, 2, initial_voltage=0.1), ValueError, r"layer_0\.initial_voltage: NIR has no initial state"),
        (LIF(3, 2, initial_current=0.1), ValueError, r"layer_0\.initial_current: NIR has no initial state"),
        (nn.Conv2d(2, 2, 3, padding_mode="circular"), ValueError, "padding_mode: NIR pads with zeros, got 'circular'"),
        (nn.Conv2d(2, 2, 3, groups=2), ValueError, "grouped and of non-square convolutions"),
        (nn.Conv2d(2, 2, (3, 1)), ValueError, "grouped and of non-square convolutions"),
        (nn.Flatten(0), ValueError, "Flatten over the batch"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name(model, error, text):
    with pytest.raises(error, match=text):
        to_nir(model, dt=DT, input_shape=(2, 5, 5))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("weight", torch.nan, r"layer_0_linear_\d\.weight\[1, 0\] is nan; expected finite numbers"),
        ("weight", torch.inf, r"layer_0_linear_\d\.weight\[1, 0\] is inf; expected finite numbers"),
        ("delay", -1e-3, r"layer_0\.delay: expected finite seconds >= 0, got -0\.001"),
        ("delay", torch.nan, r"layer_0\.delay: expected finite seconds >= 0, got nan"),
        ("tau_mem", -1.0, r"layer_0_neuron\.tau_mem\[1\] is -1\.0; expected time constants > 0"),
        ("threshold", torch.nan, r"layer_0_neuron\.v_threshold\[1\] is nan; expected finite numbers"),
    ],
)
def test_numbers_that_cannot_be(name, value, text):
    layer = LIF(3, 2, delay=(0.0, 2e-3), tau_mem=torch.full((2,), 0.02), threshold=torch.ones(2))
    with torch.no_grad():
        parameter = getattr(layer, name)
        parameter[(0, 1) if parameter.dim() == 2 else 1] = value
    with pytest.raises(ValueError, match=text):
        to_nir(layer, dt=DT)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dt": 0.0}, "dt: expected seconds > 0, got 0.0"),
        ({"dt": DT, "convention": "both"}, "convention: expected one of step, charge, got 'both'"),
    ],
)
def test_arguments_are_checked(given, text):
    with pytest.raises(ValueError, match=text):
        to_nir(LIF(3, 2), **given)


def test_a_model_needs_dt(tmp_path):
    with pytest.raises(ValueError, match="expected dt"):
        write_nir(LIF(3, 2), tmp_path / "a.nir")


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_not_a_whole_file(tmp_path):
    path = tmp_path / "a.nir"
    write_nir(LIF(30, 20), path, dt=DT)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"a\.nir: not a whole NIR \(HDF5\) file"):
            from_nir(path)
    path.write_text("[layers]\n")
    with pytest.raises(ValueError, match=r"a\.nir: not a whole NIR \(HDF5\) file"):
        from_nir(path)
    with pytest.raises(FileNotFoundError, match=r"b\.nir: no such file"):
        from_nir(tmp_path / "b.nir")


def test_hdf5_that_is_no_nir(tmp_path):
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file["weights"] = [1.0]
    with pytest.raises(ValueError, match=r"not a NIR file: expected HDF5 with a group 'node', got \['weights'\]"):
        from_nir(tmp_path / "a.nir")


def test_a_node_of_an_unknown_type_is_named(tmp_path):
    write_nir(LIF(3, 2, recurrent=True), tmp_path / "a.nir", dt=DT)
    with h5py.File(tmp_path / "a.nir", "a") as file:
        node = file["node/nodes/layer_0_neuron/nodes/lif"]
        del node["type"]
        node["type"] = "GatedUnit"
    with pytest.raises(
        ValueError, match=r"node 'layer_0_neuron\.lif' is of type 'GatedUnit'; expected one of NIRGraph"
    ):
        from_nir(tmp_path / "a.nir")


def test_a_node_without_a_field(tmp_path):
    write_nir(LIF(3, 2), tmp_path / "a.nir", dt=DT)
    with h5py.File(tmp_path / "a.nir", "a") as file:
        del file["node/nodes/layer_0_neuron/tau_mem"]
    with pytest.raises(ValueError, match=r"a\.nir: nir .* cannot read it: .*tau_mem"):
        from_nir(tmp_path / "a.nir")


@pytest.mark.parametrize(("name", "value"), [("layer_0_linear/weight", np.nan), ("layer_0_delay/delay", -1e-3)])
def test_numbers_of_a_file_that_cannot_be(tmp_path, name, value):
    write_nir(LIF(3, 2, delay=2e-3), tmp_path / "a.nir", dt=DT)
    with h5py.File(tmp_path / "a.nir", "a") as file:
        data = file[f"node/nodes/{name}"]
        data[...] = np.full(data.shape, value)
    with pytest.raises(ValueError, match=rf"a\.nir: {name.replace('/', '.')}\[0.*\] is {value}; expected"):
        from_nir(tmp_path / "a.nir")


def test_an_older_file_stays_when_a_new_one_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.nir"
    write_nir(LIF(3, 2), path, dt=DT)
    before = path.read_bytes()

    def broken(name, graph):
        name.write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(nir, "write", broken)
    with pytest.raises(OSError, match="no space left"):
        write_nir(LIF(3, 2), path, dt=DT)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.nir"]


def test_a_file_that_lost_something_takes_no_place(tmp_path, monkeypatch):
    write = nir.write

    def lossy(name, graph):
        graph.nodes["layer_0_linear"].weight[0, 0] += 1.0
        write(name, graph)
        graph.nodes["layer_0_linear"].weight[0, 0] -= 1.0

    monkeypatch.setattr(nir, "write", lossy)
    with pytest.raises(RuntimeError, match=r"does not keep nodes\.layer_0_linear\.weight"):
        write_nir(LIF(3, 2), tmp_path / "a.nir", dt=DT)
    assert list(tmp_path.iterdir()) == []


# ---- the check by simulation -----------------------------------------------------------------------------------------------


def spoilt(graph, what):
    """The graph with one thing wrong."""
    inner = graph.nodes["layer_0_neuron"].nodes
    if what == "weight":
        graph.nodes["layer_0_linear_2"].weight[0, 1] *= 1 + 1e-6
    if what == "transposed":
        inner["w_rec"].weight = inner["w_rec"].weight.T.copy()
    if what == "delay":
        graph.nodes["layer_0_delay_2"].delay += DT
    if what == "leak":
        inner["lif"].v_leak[-1] += 1e-6
    if what == "reset":
        inner["lif"].v_reset[:] = 0.1
    if what == "readout":
        graph.nodes["layer_1_neuron"].tau_syn *= 1 + 1e-6
    if what == "edge":
        graph.edges.remove(("layer_0_linear_1", "layer_0_neuron"))
        graph.edges.append(("layer_0_linear_1", "output"))
    return graph


@pytest.mark.parametrize("what", ["weight", "transposed", "delay", "leak", "reset", "readout"])
def test_the_check_sees_each_thing_that_is_wrong(what):
    torch.manual_seed(0)
    delay = torch.tensor([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]) * DT
    layers = [grown(LIF(4, 3, recurrent=True, delay=delay), 6.0), LI(3, 2)]
    graph = to_nir(layers, dt=DT)
    check_against(from_nir(graph), layers)
    with pytest.raises(RuntimeError, match=r"layer_\d_neuron.*: other (spikes|voltages) than the layer's"):
        check_against(from_nir(spoilt(graph, what)), layers)


def test_the_check_is_another_way_to_the_numbers(tmp_path, monkeypatch):
    # weights exported untransposed: a square layer fits as well, and only the simulation tells
    monkeypatch.setattr(
        "eventnet.hardware.nir.exporting._signal_weight", lambda weight, layer, rules: weight.detach().double().numpy()
    )
    with pytest.raises(RuntimeError, match="layer_0_neuron: other"):
        write_nir(grown(LIF(3, 3)), tmp_path / "a.nir", dt=DT, convention="charge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("apart", [0.0, 1e-6])
def test_only_spikes_that_rounding_decides_may_differ(apart, monkeypatch):
    layer = LIF(
        1, 1, tau_mem=DT, tau_syn=DT, threshold=1.0 - apart, dtype=torch.float64
    )  # V is what arrives in this step
    with torch.no_grad():
        layer.weight.fill_(1.0)
    imported = from_nir(to_nir(layer, dt=DT))
    stepped = nir_check.stepped

    def other(layers, raster, rules):
        ((_, (spikes, voltage, above)),) = stepped(layers, raster, rules)
        return [(layer, (torch.where(raster > 0, 1 - spikes, spikes), voltage, above))]

    check_against(imported, [layer])
    monkeypatch.setattr(nir_check, "stepped", other)
    with pytest.raises(RuntimeError, match="other spikes than the layer's") if apart else contextlib.nullcontext():
        check_against(imported, [layer])


def test_write_graph_hands_the_file_to_the_check(tmp_path):
    graph = to_nir(LIF(3, 2), dt=DT)

    def check(again):
        assert differences(graph, again) == [] and again is not graph
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        write_graph(graph, tmp_path / "a.nir", check)
    assert list(tmp_path.iterdir()) == []
