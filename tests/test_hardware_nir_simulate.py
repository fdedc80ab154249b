"""The step simulation of NIR graphs against closed forms and eventnet's own layers; import, and what a file does not say."""

import math
import os
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from eventnet import LI, LIF, Events
from eventnet.hardware.nir import from_nir, to_nir
from eventnet.hardware.nir.files import differences

DT = 1e-3
GIVEN = {"dt": DT, "reset": "to_value"}
pytestmark = pytest.mark.usefixtures("one_thread")


def full(value, *shape):
    return np.full(shape or (1,), float(value))


def lif(tau=2.5e-3, threshold=0.1, leak=0.0, reset=0.0, r=1.0):
    return nir.LIF(full(tau), full(r), full(leak), full(threshold), full(reset))


def cubalif(num=1, tau_syn=5e-3, tau_mem=1e-2, threshold=1.0, reset=0.0, leak=0.0, r=1.0, w_in=5.0):
    return nir.CubaLIF(*(full(v, num) for v in (tau_syn, tau_mem, r, leak, threshold, reset, w_in)))


def chain(*nodes, **metadata):
    graph = nir.NIRGraph.from_list(*nodes)
    graph.metadata = metadata
    return graph


def steps_of(spikes):
    return spikes.flatten().nonzero().flatten().tolist()


def pulse(steps, at=0, units=1):
    raster = torch.zeros(steps, 1, units, dtype=torch.float64)
    raster[at] = 1
    return raster


# ---- neurons, in closed form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decay", "kept"), [("euler", 1 - 1e-4 / 2.5e-3), ("exponential", math.exp(-1e-4 / 2.5e-3))])
def test_lif_under_constant_current_fires_periodically(decay, kept):
    current, threshold = 0.13, 0.1
    # V after n steps is current (1 - kept^n): the first above the threshold spikes and begins again at 0
    period = math.floor(math.log(1 - threshold / current) / math.log(kept)) + 1
    net = from_nir(chain(lif(threshold=threshold)), dt=1e-4, reset="to_value", decay=decay)
    spikes, traces = net(torch.full((10 * period, 1, 1), current, dtype=torch.float64), return_traces=True)
    assert steps_of(spikes) == list(range(period - 1, 10 * period, period))
    n = torch.arange(1, period, dtype=torch.float64)
    torch.testing.assert_close(
        traces.voltages["lif"][: period - 1].flatten(), current * (1 - kept**n), rtol=0, atol=1e-14
    )


def test_threshold_is_strict():
    # the voltages are exact in binary: 1/2, 3/4, 7/8, ...
    current = torch.ones(6, 1, 1)
    assert steps_of(from_nir(chain(lif(tau=2e-3, threshold=0.75)), **GIVEN)(current)) == [2, 5]
    assert steps_of(from_nir(chain(lif(tau=2e-3, threshold=0.7499)), **GIVEN)(current)) == [1, 3, 5]


@pytest.mark.parametrize(("order", "lag"), [("current_first", 0), ("voltage_first", 1)])
def test_order_of_current_and_voltage(order, lag):
    """One pulse: the current is alpha^n, the voltage the sum of what it gives, with or without this step's."""
    alpha, beta = 1 - DT / 5e-3, 1 - DT / 1e-2
    net = from_nir(chain(cubalif(threshold=9.0)), **GIVEN, order=order)
    _, traces = net(pulse(30), return_traces=True)
    n = torch.arange(30, dtype=torch.float64)
    response = (1 - beta) * (alpha ** (n + 1) - beta ** (n + 1)) / (alpha - beta)
    expected = torch.cat([torch.zeros(lag, dtype=torch.float64), response[: 30 - lag]])
    torch.testing.assert_close(traces.voltages["cubalif"].flatten(), expected, rtol=0, atol=1e-14)


def test_reset_to_a_value_and_by_subtraction():
    node = nir.IF(full(1), full(1), full(-0.5))
    runs = {}
    for reset in ("to_value", "subtract"):
        _, traces = from_nir(chain(node), dt=1.0, reset=reset)(torch.full((4, 1, 1), 0.75), return_traces=True)
        runs[reset] = traces.voltages["if"].flatten().tolist()
    assert runs == {"to_value": [0.75, -0.5, 0.25, 1.0], "subtract": [0.75, 0.0, 0.75, 0.0]}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (nir.I(full(0.5)), [0.5, 1.0, 1.5]),
        (nir.LI(full(2.0), full(3.0), full(1.0)), [2.5, 3.25, 3.625]),  # from rest at 1 towards 1 + 3
        (nir.CubaLI(full(2.0), full(2.0), full(1.0), full(0.0), full(2.0)), [0.5, 1.0, 1.375]),
        (nir.Threshold(full(0.9)), [1.0, 1.0, 1.0]),
        (nir.Threshold(full(1.0)), [0.0, 0.0, 0.0]),
        (nir.Scale(full(-3.0)), [-3.0, -3.0, -3.0]),
        (nir.Delay(full(2.0)), [0.0, 0.0, 1.0]),
    ],
)
def test_nodes_under_a_constant_of_one(node, expected):
    assert from_nir(chain(node), dt=1.0)(torch.ones(3, 1, 1)).flatten().tolist() == expected


def test_neurons_start_at_rest_or_where_they_have_none_at_reset():
    for leak, start in ((0.4, 0.4), (1.0, 0.2), (3.0, 0.2)):
        net = from_nir(chain(lif(tau=1e-2, threshold=1.0, leak=leak, reset=0.2)), **GIVEN)
        _, traces = net(torch.zeros(1, 1, 1), return_traces=True)
        assert traces.voltages["lif"].item() == pytest.approx(start + 0.1 * (leak - start), abs=1e-15)


# ---- linear nodes, as torch has them ---------------------------------------------------------------------------------------


def test_images_as_torch_computes_them():
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(3, 2, 3, 3)), generator.normal(size=3)
    conv = nir.Conv2d((8, 8), weight, (1, 1), "same", (2, 2), 1, bias)
    pools = [kind(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])) for kind in (nir.SumPool2d, nir.AvgPool2d)]
    nodes = {"input": nir.Input(np.array([2, 8, 8])), "conv": conv, "sum": pools[0], "average": pools[1]}
    nodes |= {"flatten": nir.Flatten(None, 1, -1), "output": nir.Output(None)}
    names = list(nodes)
    raster = torch.rand(2, 3, 2, 8, 8, dtype=torch.float64)
    net = from_nir(nir.NIRGraph(nodes, list(pairwise(names))), dt=1.0)
    expected = functional.conv2d(raster[1], torch.tensor(weight), torch.tensor(bias), padding="same", dilation=2)
    expected = functional.avg_pool2d(functional.avg_pool2d(expected, 2) * 4, 2).flatten(2)
    torch.testing.assert_close(net(raster)[1], expected, rtol=0, atol=1e-12)
    assert torch.equal(net(raster.flatten(2)), net(raster))


def test_affine_and_conv1d():
    weight, bias = np.arange(6.0).reshape(2, 3), np.array([0.5, -0.5])
    assert from_nir(chain(nir.Affine(weight, bias)), dt=1.0)(torch.eye(3)[:, None]).tolist() == [
        [[0.5, 2.5]],
        [[1.5, 3.5]],
        [[2.5, 4.5]],
    ]
    conv = nir.Conv1d(4, np.ones((1, 1, 2)), 2, 0, 1, 1, np.zeros(1))
    assert from_nir(chain(conv), dt=1.0)(torch.arange(4.0).reshape(1, 1, 1, 4)).tolist() == [[[[1.0, 5.0]]]]


def test_each_unit_of_a_delay_has_its_own():
    net = from_nir(chain(nir.Delay(np.array([0.0, 1.4e-3, 3e-3]))), dt=DT)
    assert net(pulse(5, at=1, units=3))[:, 0].T.nonzero()[:, 1].tolist() == [1, 2, 4]
    assert net.delay_rounding == pytest.approx(0.4e-3)


# ---- loops -----------------------------------------------------------------------------------------------------------------


def loop(*between):
    """A neuron that each input makes fire once, and that hears itself through ``between``."""
    nodes = {"input": nir.Input(np.array([1])), "lif": lif(tau=DT, threshold=0.5)}
    edges, at = [("input", "lif")], "lif"
    for k, node in enumerate(between):
        nodes[f"node_{k}"] = node
        edges.append((at, f"node_{k}"))
        at = f"node_{k}"
    nodes["output"] = nir.Output(np.array([1]))
    return nir.NIRGraph(nodes, [*edges, (at, "lif"), ("lif", "output")])


@pytest.mark.parametrize(("seconds", "lag"), [(None, 1), (0.0, 1), (1e-3, 1), (2e-3, 2), (5e-3, 5)])
def test_a_loop_takes_its_delay_and_one_step_at_least(seconds, lag):
    delay = [] if seconds is None else [nir.Delay(full(seconds))]
    net = from_nir(loop(*delay, nir.Linear(full(1, 1, 1))), **GIVEN)
    assert steps_of(net(pulse(20, at=2))) == list(range(2, 20, lag))


def test_inner_graphs_are_as_if_they_were_not_there():
    inner = loop(nir.Linear(full(1, 1, 1)))
    outer = chain(nir.Linear(full(2, 1, 1)), inner, nir.Linear(full(1, 1, 1)), lif(tau=DT, threshold=0.5))
    net = from_nir(outer, **GIVEN)
    assert "nirgraph.lif" in net.flat.nodes and net.flat.late == {("nirgraph.lif", "nirgraph.node_0")}
    assert steps_of(net(pulse(6, at=2))) == [2, 3, 4, 5]


def test_paths_that_skip_a_layer_take_no_steps():
    nodes = {
        "input": nir.Input(np.array([1])),
        "first": lif(tau=DT, threshold=0.5),
        "second": lif(tau=DT, threshold=1.5),  # one spike is not enough
        "output": nir.Output(np.array([1])),
    }
    edges = [("input", "first"), ("first", "second"), ("input", "second"), ("second", "output")]
    net = from_nir(nir.NIRGraph(nodes, edges), **GIVEN)
    assert steps_of(net(pulse(5, at=1))) == [1]


@pytest.mark.parametrize(
    ("edges", "text"),
    [
        ([("a", "b"), ("b", "a")], "expected a neuron in every loop, got none in"),
        ([("b", "a")], r"node 'b' \(Linear\) has no source"),
    ],
)
def test_graphs_that_cannot_run(edges, text):
    nodes = {"input": nir.Input(np.array([1])), "output": nir.Output(np.array([1]))}
    nodes |= {name: nir.Linear(full(1, 1, 1)) for name in "ab"}
    graph = nir.NIRGraph(nodes, [("input", "a"), *edges, ("a", "output")], type_check=False)
    with pytest.raises(ValueError, match=text):
        from_nir(graph, dt=DT)


def test_one_input_and_one_output():
    nodes = {"one": nir.Input(np.array([1])), "two": nir.Input(np.array([1])), "output": nir.Output(np.array([1]))}
    with pytest.raises(ValueError, match="expected a graph with one Input, got 2: one, two"):
        from_nir(nir.NIRGraph(nodes, [("one", "output"), ("two", "output")]), dt=DT)


def test_a_delay_of_a_loop_and_of_others_is_refused():
    graph = loop(nir.Delay(full(DT)), nir.Linear(full(1, 1, 1)))
    graph.edges.append(("input", "node_0"))
    with pytest.raises(ValueError, match=r"node 'node_0' \(Delay\) has sources in a loop and others"):
        from_nir(graph, **GIVEN)(pulse(3))


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 2), (0, 1, 3)])
def test_rasters_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"expected a raster of shape \(T, B, 3\) with T >= 1"):
        from_nir(chain(nir.Scale(full(1, 3))), dt=DT)(torch.zeros(shape))


def test_a_step_longer_than_a_time_constant():
    graph = chain(cubalif(tau_syn=5e-4))
    with pytest.raises(ValueError, match=r"cubalif\.tau_syn is 0\.0005 s, less than a step of 0\.001 s"):
        from_nir(graph, **GIVEN)(pulse(3))
    assert torch.isfinite(from_nir(graph, **GIVEN, decay="exponential")(pulse(3))).all()


# ---- eventnet's layers in continuous time ----------------------------------------------------------------------------------


@torch.no_grad()
def test_small_steps_come_to_eventnets_own_spike_times():
    torch.manual_seed(1)
    delay = torch.randint(0, 30, (4, 5)) * 1e-4
    model = nn.Sequential(LIF(4, 5, delay=delay, bias=0.2), LIF(5, 3, recurrent=True))
    for name, parameter in model.named_parameters():
        if name.endswith(".weight"):  # the recurrent ones stay small: no storm of spikes
            parameter.mul_(12.0)
    times = torch.tensor([1e-3, 3e-3, 4e-3, 8e-3, 9e-3, 13e-3])
    events = Events.from_list([(times, [0, 2, 1, 3, 0, 2])], num_units=4, duration=0.03)
    first = model[0](events)
    expected = {"layer_0_neuron": first, "layer_1_neuron.lif": model[1](first)}
    errors = []
    for step in (1e-4, 2e-5):
        _, traces = from_nir(to_nir(model, dt=step))(events.to_dense(step), return_traces=True)
        errors.append(0.0)
        for name, exact in expected.items():
            found = Events.from_dense(traces.spikes[name], step)
            assert torch.equal(found.counts(), exact.counts()) and exact.num_events > 3
            mine, theirs = (each.times[np.lexsort((each.times, each.units))] for each in (found, exact))
            errors[-1] = max(errors[-1], float((mine + step - theirs).abs().max()))
    assert errors[1] < 3e-4 and errors[1] < errors[0] / 4, errors  # forward Euler: in proportion to dt


def test_to_model_gives_the_layers_back():
    torch.manual_seed(0)
    model = nn.Sequential(
        LIF(
            3,
            4,
            recurrent=True,
            delay=(0.0, 4e-3),
            delay_kind="axonal",
            tau_mem=torch.linspace(0.01, 0.02, 4),
            reset=-0.2,
        ),
        LI(4, 2, bias=0.3),
    )
    for convention in ("step", "charge"):
        again = from_nir(to_nir(model, dt=DT, convention=convention)).to_model()
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    assert from_nir(to_nir(model, dt=DT)).to_model(torch.float64)[0].weight.dtype == torch.float64


# ---- what a file does not say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, r"does not say dt \(seconds of a step\) and reset \('to_value' or 'subtract'\)"),
        ({"dt": DT}, r"does not say reset \('to_value' or 'subtract'\); .* pass it to from_nir"),
        ({"reset": "to_value"}, r"does not say dt \(seconds of a step\); .* pass it to from_nir"),
    ],
)
def test_dt_and_reset_have_to_be_known(given, text):
    with pytest.raises(ValueError, match=text):
        from_nir(chain(lif()), **given)


def test_missing_pieces_are_listed_with_the_values_in_use():
    net = from_nir(chain(lif(), order="voltage_first"), dt=DT, reset="subtract")
    assert dict(net.missing) == {"dt": DT, "reset": "subtract", "convention": "step", "start": "rest"}
    assert net.rules.order == "voltage_first" and not net.overridden
    assert "dt not in the file, reset not in the file" in repr(net)


def test_what_is_given_goes_before_what_the_file_says():
    net = from_nir(chain(lif(), dt=1e-4, reset="to_value"), dt=2e-4)
    assert net.rules.dt == 2e-4 and dict(net.overridden) == {"dt": 1e-4}


def test_readouts_need_no_reset():
    assert "reset" in from_nir(chain(nir.LI(full(1e-2), full(1), full(0))), dt=DT).missing


@pytest.mark.parametrize(
    ("metadata", "given", "text"),
    [
        ({"reset": "soft"}, {"dt": DT}, "says reset='soft' in its metadata; expected one of to_value, subtract"),
        ({"dt": "fast"}, {"reset": "to_value"}, "says dt='fast' in its metadata; expected seconds"),
        ({"dt": -1.0}, {"reset": "to_value"}, "dt: expected seconds > 0, got -1.0"),
        ({}, {"dt": DT, "reset": "hard"}, "reset: expected one of to_value, subtract, got 'hard'"),
        ({}, {**GIVEN, "decay": "linear"}, "decay: expected one of euler, exponential, got 'linear'"),
    ],
)
def test_words_that_mean_nothing(metadata, given, text):
    with pytest.raises(ValueError, match=text):
        from_nir(chain(lif(), **metadata), **given)


def test_a_soft_reset_runs_only_if_asked_for_and_becomes_no_layer():
    graph = chain(nir.Linear(full(1, 1, 1)), cubalif(), dt=DT, reset="subtract", convention="charge")
    with pytest.raises(ValueError, match=r"says reset='subtract', a soft reset.* Pass reset='subtract'"):
        from_nir(graph)
    net = from_nir(graph, reset="subtract")
    assert net.rules.reset == "subtract" and "reset" not in net.missing
    with pytest.raises(ValueError, match=r"to_model: reset='subtract' \(a soft reset\)"):
        net.to_model()
    assert isinstance(from_nir(graph, reset="to_value").to_model()[0], LIF)


# ---- what eventnet's layers cannot hold ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([lif()], r"node 'lif' \(LIF\) has no synaptic current"),
        (
            [nir.Linear(full(1, 1, 1)), cubalif(), nir.Threshold(full(1))],
            r"node 'threshold' \(Threshold\) has no layer",
        ),
        ([nir.Affine(full(1, 1, 1), full(1)), cubalif()], r"affine\.bias is a constant current"),
        ([cubalif()], r"'cubalif' hears 'input' \(Input\); expected a Linear between them"),
        (
            [nir.Linear(full(1, 1, 1)), cubalif(), nir.Linear(full(1, 1, 1))],
            "expected the last neurons, 'cubalif', to be",
        ),
        ([nir.Linear(full(1, 1, 1))], "expected the last neurons"),
    ],
)
def test_what_has_no_layer_is_refused_by_name(nodes, text):
    with pytest.raises(ValueError, match=text):
        from_nir(chain(*nodes), **GIVEN).to_model()


def test_convolutions_have_no_layer():
    nodes = {
        "input": nir.Input(np.array([1, 2, 2])),
        "conv": nir.Conv2d((2, 2), full(1, 1, 1, 1, 1), 1, 0, 1, 1, full(0)),
    }
    graph = nir.NIRGraph(nodes | {"output": nir.Output(None)}, [("input", "conv"), ("conv", "output")])
    with pytest.raises(ValueError, match=r"node 'conv' \(Conv2d\) is a layer of images"):
        from_nir(graph, dt=DT).to_model()


def skipping():
    one = full(1, 1, 1)
    nodes = {"input": nir.Input(np.array([1])), "w": nir.Linear(one), "first": cubalif(), "v": nir.Linear(one)}
    nodes |= {"second": cubalif(), "skip": nir.Linear(one), "output": nir.Output(np.array([1]))}
    edges = [("input", "w"), ("w", "first"), ("first", "v"), ("v", "second"), ("second", "output")]
    return nodes, edges


def test_paths_that_skip_a_layer_are_refused_by_name():
    nodes, edges = skipping()
    net = from_nir(nir.NIRGraph(nodes, [*edges, ("input", "skip"), ("skip", "second")]), **GIVEN)
    with pytest.raises(ValueError, match=r"'second' hears input beside the layer before it, 'first': .* form a chain"):
        net.to_model()


def test_paths_that_lead_back_over_two_layers_are_refused_by_name():
    nodes, edges = skipping()
    net = from_nir(nir.NIRGraph(nodes, [*edges, ("second", "skip"), ("skip", "first")]), **GIVEN)
    with pytest.raises(ValueError, match="'first' hears second beside the layer before it, 'input'"):
        net.to_model()


def test_a_synapse_with_two_delays_is_refused():
    nodes, edges = skipping()
    nodes["hold"] = nir.Delay(full(DT))
    graph = nir.NIRGraph(nodes, [*edges, ("first", "hold"), ("hold", "skip"), ("skip", "second")])
    with pytest.raises(ValueError, match=r"second\.delay: a synapse has several delays"):
        from_nir(graph, **GIVEN).to_model()


def test_a_readout_with_delays_is_no_layer():
    readout = nir.CubaLI(*(full(v) for v in (5e-3, 1e-2, 1, 0, 5)))
    with pytest.raises(ValueError, match=r"'cubali' \(CubaLI\) has delays"):
        from_nir(chain(nir.Delay(full(DT)), nir.Linear(full(1, 1, 1)), readout), dt=DT).to_model()


# ---- the files of others, where EVENTNET_DATA names a folder that holds them -----------------------------------------------

ROOT = Path(os.environ.get("EVENTNET_DATA", "/nowhere")) / "nir"
needs_files = pytest.mark.skipif(not ROOT.is_dir(), reason="EVENTNET_DATA is not set, or has no nir")


@needs_files
def test_norses_neuron_spikes_where_it_must():
    signal, voltage, spikes = torch.tensor(np.loadtxt(ROOT / "lif_exact.csv", delimiter=",")).T
    net = from_nir(ROOT / "lif_norse.nir", dt=1e-4, reset="to_value")
    assert steps_of(net(signal.reshape(-1, 1, 1))) == [460, 510, 710, 760] == spikes.nonzero().flatten().tolist()
    # up to the first spike the recorded voltage is the exact solution
    exact = from_nir(ROOT / "lif_norse.nir", dt=1e-4, reset="to_value", decay="exponential")
    _, traces = exact(signal.reshape(-1, 1, 1), return_traces=True)
    torch.testing.assert_close(traces.voltages["1"][:460].flatten(), voltage[:460], rtol=0, atol=1e-7)


@needs_files
def test_sinabs_network_imports_and_runs():
    with pytest.raises(ValueError, match=r"cnn_sinabs\.nir: does not say dt .* and reset"):
        from_nir(ROOT / "cnn_sinabs.nir")
    net = from_nir(ROOT / "cnn_sinabs.nir", dt=1.0, reset="subtract")
    raster = torch.rand(20, 2, 2, 34, 34, generator=torch.Generator().manual_seed(0)) < 0.1
    output, traces = net(raster, return_traces=True)
    assert output.shape == (20, 2, 10) and output.sum() > 0
    assert {name: trace.shape[2:] for name, trace in traces.spikes.items()}["1"] == (16, 16, 16)
    assert differences(net.to_nir(), nir.read(ROOT / "cnn_sinabs.nir")) == []
