"""Networks of snnTorch and back; snnTorch itself is the witness."""

from __future__ import annotations

import copy
from itertools import pairwise
from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eventnet import LI, LIF, Events
from eventnet.interop import from_snntorch, to_snntorch
from eventnet.interop.readout import StartedLI

snn = pytest.importorskip("snntorch")

F64 = torch.float64
KINDS = ("Leaky", "Synaptic", "RLeaky", "RSynaptic")
DECAYS = st.floats(0.05, 0.9995)


def neurons(kind, num, **own):
    given = {"beta": 0.95, **({"alpha": 0.8} if "Synaptic" in kind else {})}
    given |= {"linear_features": num} if kind[0] == "R" and "all_to_all" not in own else {}
    return getattr(snn, kind)(**(given | own))


def a_model(kind="Synaptic", sizes=(12, 20, 6), bias=True, scale=1.0, **own):
    """Weights such that there are some spikes."""
    torch.manual_seed(0)
    parts = []
    for num_in, num_out in pairwise(sizes):
        linear, cell = nn.Linear(num_in, num_out, bias), neurons(kind, num_out, **own)
        with torch.no_grad():
            linear.weight.mul_(scale * (1.0 if "Synaptic" in kind else 3.0))
            if bias:
                linear.bias.mul_(0.05)
            if hasattr(cell, "recurrent") and isinstance(cell.recurrent, nn.Linear):
                cell.recurrent.weight.mul_(0.3)
                cell.recurrent.bias.mul_(0.05)
        parts += [linear, cell]
    return nn.Sequential(*parts)


def a_probe(num_in, duration, step=1e-3, seed=0):
    """Events at multiples of ``step``."""
    raster = torch.rand(round(duration / step), 3, num_in, generator=torch.Generator().manual_seed(seed)) < 0.08
    return Events.from_dense(raster.double(), step)


@given(alpha=DECAYS, beta=DECAYS, dt=st.floats(1e-5, 1e-2), seed=st.integers(0, 99))
def test_a_float32_model_returns_bit_for_bit(alpha, beta, dt, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(5, 4), snn.Synaptic(alpha=alpha, beta=torch.rand(4) * 0.9 + 0.05, threshold=torch.rand(4) + 0.1),
        nn.Linear(4, 3, bias=False), snn.RSynaptic(alpha=alpha, beta=beta, all_to_all=False, V=torch.randn(3)),
        nn.Linear(3, 2), snn.Synaptic(alpha=alpha, beta=beta, reset_mechanism="none"),
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    network, _ = from_snntorch(model, dt, dtype=F64, probe=torch.zeros(2, 1, 5))
    back, _ = to_snntorch(network, dt, dtype=torch.float32, probe=torch.zeros(2, 1, 5))
    after = back.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
        assert torch.equal(value, model.state_dict()[name]), name  # which is left as it was


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_it_returns_within_a_rounding(kind):
    model = a_model(kind)
    network, _ = from_snntorch(model, 1e-3)
    back, report = to_snntorch(network, 1e-3, leaky="Leaky" in kind)
    assert [type(part).__name__ for part in back] == [type(part).__name__ for part in model]
    for name, value in back.state_dict().items():
        expected = model.state_dict()[name]
        if name in ("0.bias", "2.bias") and kind[0] == "R":  # both biases are added in every step
            expected = expected + model.state_dict()[f"{int(name[0]) + 1}.recurrent.bias"]
        torch.testing.assert_close(value, expected, rtol=3e-7, atol=1e-9)
    assert any("dropped" in note for note in report.notes) == ("Leaky" in kind)


@given(
    tau_mem=st.floats(2e-3, 0.1),
    tau_syn=st.floats(1e-3, 0.1),
    dt=st.floats(1e-5, 5e-3),
    bias=st.sampled_from([0.0, 0.4]),
)
def test_our_layers_return(tau_mem, tau_syn, dt, bias):
    torch.manual_seed(0)
    given = {"tau_mem": tau_mem, "tau_syn": torch.linspace(0.5, 1.5, 4) * tau_syn, "threshold": 0.7, "bias": bias}
    network = [LIF(3, 4, **given, recurrent=True, dtype=F64), LI(4, 2, tau_mem=tau_mem, tau_syn=tau_syn, dtype=F64)]
    model, report = to_snntorch(network, dt, probe=torch.zeros(2, 1, 3))
    back, _ = from_snntorch(model, dt, probe=torch.zeros(2, 1, 3))
    for before, after in zip(network, back, strict=True):
        for name, value in before.named_parameters():
            there = after.get_parameter(name)  # the bias of a linear layer is one per neuron
            torch.testing.assert_close(there, value.expand_as(there), rtol=1e-12, atol=1e-15)
    assert any("starts at" in note for note in report.notes) == (bias != 0)


@pytest.mark.parametrize("own", [{}, {"reset_mechanism": "zero"}, {"reset_delay": False}])
@pytest.mark.parametrize("bias", [True, False])
@given(alpha=DECAYS, beta=DECAYS)
def test_voltages_are_equal_until_the_first_spike(own, bias, alpha, beta):
    model = a_model(sizes=(12, 20), bias=bias, alpha=alpha, beta=beta, **own).double()
    _, report = from_snntorch(model, 1e-3, probe=a_probe(12, 0.06))
    layer = report.layers[0]
    assert layer.voltage_error < 1e-9 / (1 - beta)  # of sums of up to 1 / (1 - beta) steps
    assert layer.first_error <= layer.expected * (1 + 1e-9) or layer.spikes[0] != layer.spikes[1]


def test_a_readout_is_equal_at_all_steps():
    model = a_model(sizes=(12, 5)).double()
    model[1] = snn.Synaptic(alpha=0.8, beta=0.95, reset_mechanism="none")
    network, report = from_snntorch(model, 1e-3)
    assert isinstance(network[0], StartedLI)
    assert report.layers[0].spikes is None and report.layers[0].voltage_error < 1e-6  # alpha and beta are of float32
    network, report = from_snntorch(model, 1e-3, dtype=F64)
    assert report.layers[0].voltage_error < 1e-12


def test_a_first_spike_is_told_up_to_a_step_early():
    model = a_model(sizes=(12, 20), bias=False, scale=2.0)
    _, report = from_snntorch(model, 1e-3)
    layer = report.layers[0]
    assert layer.spikes[0] > 100 and 0 < layer.first_error <= layer.expected == 1e-3


def two_layers(recurrent=False):
    torch.manual_seed(1)
    network = [LIF(12, 20, recurrent=recurrent, dtype=F64), LIF(20, 6, dtype=F64)]
    with torch.no_grad():
        network[0].weight.mul_(6.0)
        network[1].weight.mul_(10.0)
    return network


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_error_falls_with_the_step(recurrent):
    """At 1/16 of the step about 1/16 of the error; the benchmark goes on to 10 us."""
    network, events, errors = two_layers(recurrent), a_probe(12, 0.05), []
    for dt in (1e-3, 6.25e-5):
        model, report = to_snntorch(network, dt, probe=events)
        errors.append([layer.error[0] for layer in report.layers])
        assert [type(part).__name__ for part in model][1] == ("RSynaptic" if recurrent else "Synaptic")
    assert min(layer.spikes[1] for layer in report.layers) > 20
    assert all(8 < coarse / fine < 32 for coarse, fine in zip(errors[0], errors[-1], strict=True)), errors
    assert sum(layer.unpaired for layer in report.layers) <= 0.02 * sum(layer.spikes[1] for layer in report.layers)


def test_neurons_that_do_not_graze_have_the_same_counts():
    """Grazing: that another threshold, by 1 % here, would make another number of spikes."""
    layer, events = two_layers()[0], a_probe(12, 0.05)
    counts = []
    for threshold in (0.99, 1.0, 1.01):
        layer.load_state_dict({**layer.state_dict(), "threshold": torch.tensor(threshold)})
        counts.append(layer(events).counts())
    layer.load_state_dict({**layer.state_dict(), "threshold": torch.tensor(1.0)})
    sure = (counts[0] == counts[1]) & (counts[1] == counts[2])
    model, _ = to_snntorch(layer, 1e-4, probe=events)
    there = sum(model(x)[0] for x in events.to_dense(1e-4))
    assert 0.7 * sure.numel() < sure.sum() < sure.numel() and counts[1][sure].sum() > 80
    assert torch.equal(there[sure].long(), counts[1][sure])


def test_leaky_tends_to_its_equal_with_the_step():
    """A Leaky at steps of dt, with tau_syn just below dt: the jump is met as dt -> 0."""
    torch.manual_seed(2)
    events, errors = a_probe(12, 0.05), []
    for dt in (1e-3, 2.5e-4, 6.25e-5):
        model = nn.Sequential(nn.Linear(12, 20, bias=False), snn.Leaky(beta=exp(-dt / 0.02)))
        with torch.no_grad():
            model[0].weight.copy_(torch.randn(20, 12, generator=torch.Generator().manual_seed(0)))
        _, report = from_snntorch(model, dt, probe=events)
        errors.append(report.layers[0].error[0])
    assert report.layers[0].spikes[0] > 100
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2] > 0


def test_currents_into_a_leaky_are_the_same_at_the_steps():
    """Numbers in every step, as of images that stand still: ``LIF.drive`` makes the very voltages; weights come back."""
    torch.manual_seed(0)
    beta = torch.tensor([0.95, 0.6, 0.8])
    linear, neuron = nn.Linear(7, 3).double(), snn.Leaky(beta=beta, threshold=1e3)
    x = torch.rand(20, 4, 7, dtype=F64)
    network, report = from_snntorch([linear, neuron], 1e-3, probe=x)
    mem, expected = torch.zeros(4, 3, dtype=F64), []
    for row in x:
        _, mem = neuron(linear(row), mem)
        expected.append(mem)
    found = network[0].drive(x, 1e-3, return_voltage=True)[1]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-6)  # beta is float32
    assert "560 events" in report.probe and not report.notes[:-1]  # the last: no spikes
    back, _ = to_snntorch(network, 1e-3, leaky=True)
    torch.testing.assert_close(back[0].weight, linear.weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(back[0].bias, linear.bias, rtol=1e-12, atol=0)


def test_after_a_spike_of_input_a_leaky_is_met_again():
    """A short synaptic current leaves the voltage that a jump leaves, once it is gone."""
    linear, neuron = nn.Linear(1, 1, bias=False).double(), snn.Leaky(beta=torch.tensor(0.9, dtype=F64), threshold=1e3)
    network, _ = from_snntorch([linear, neuron], 1e-3)
    raster = torch.zeros(40, 1, 1, dtype=F64)
    raster[2] = 1.0
    voltage = network[0](Events.from_dense(raster, 1e-3), return_voltage=True)[1].at(torch.tensor([0.035], dtype=F64))
    assert voltage.item() == pytest.approx(linear.weight.item() * 0.9**32, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_the_graph_of_its_last_step_is_converted(kind):
    """As after a step of training: its neurons still hold voltages with gradients."""
    model = a_model(kind, init_hidden=True)
    model(torch.ones(2, 12))
    held = model[1].mem
    from_snntorch(model, 1e-3)
    assert held.requires_grad and model[1].mem is held


def not_finite(linear):
    nn.init.constant_(linear.weight[1:2, 2:3], float("nan"))
    return linear


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        (
            [nn.Linear(5, 4), snn.Leaky(0.9), nn.Linear(3, 2), snn.Leaky(0.9)],
            "takes 3 inputs, but 0 Linear, 1 Leaky has 4",
        ),
        ([nn.Linear(5, 4), snn.Leaky(torch.rand(3))], r"0 Linear, 1 Leaky: tau_mem of shape \(3,\) for 4 neurons"),
        ([not_finite(nn.Linear(5, 4)), snn.Leaky(0.9)], "0 Linear, 1 Leaky: weight holds NaN or inf"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, named):
    with pytest.raises(ValueError, match=named):
        from_snntorch(layers, 1e-3)


@pytest.mark.parametrize("model", [None, lambda x: x])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match="expected a model of snnTorch"):
        from_snntorch(model, 1e-3)


def test_a_model_in_half_precision_becomes_one_of_float32():
    network, _ = from_snntorch([nn.Linear(5, 4).half(), snn.Leaky(0.9)], 1e-3)
    assert network[0].weight.dtype == torch.float32


def test_recurrent_excitation_that_runs_away_is_an_error():
    """A grid bounds it by a spike per step and neuron."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), snn.RSynaptic(alpha=0.8, beta=0.9, linear_features=4))
    nn.init.constant_(model[0].bias, 1.0)
    nn.init.constant_(model[1].recurrent.weight, 1.0)
    with pytest.raises(RuntimeError, match="20 spikes per step and neuron here, where a grid has one"):
        from_snntorch(model, 1e-3)


def test_learnable_parameters_stay_learnable():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 4), snn.RSynaptic(alpha=0.8, beta=0.9, linear_features=4, learn_beta=True, learn_threshold=True)
    )
    nn.init.uniform_(model[1].recurrent.weight, -0.1, 0.1)
    model[0].bias.requires_grad_(False)
    model[1].recurrent.bias.requires_grad_(False)
    network, _ = from_snntorch(model, 1e-3)
    learnt = {name for name, p in network[0].named_parameters() if p.requires_grad}
    assert learnt == {"weight", "recurrent_weight", "tau_mem", "threshold"}
    back, _ = to_snntorch(network, 1e-3)
    learnt = {name for name, p in back.named_parameters() if p.requires_grad}
    assert learnt == {"0.weight", "1.beta", "1.threshold", "1.recurrent.weight"}
    model[1].recurrent.bias.requires_grad_(True)  # a part of the sum
    assert from_snntorch(model, 1e-3)[0][0].bias.requires_grad


def test_one_to_one_recurrence_stays_so():
    model = nn.Sequential(nn.Linear(5, 4), snn.RLeaky(beta=0.9, all_to_all=False, V=0.7))
    network, report = from_snntorch(model, 1e-3)
    assert torch.equal(network[0].recurrent_mask, torch.eye(4, dtype=torch.bool))
    assert any("V was one number" in note for note in report.notes)
    back, _ = to_snntorch(network, 1e-3, leaky=True)
    torch.testing.assert_close(back[1].V, torch.full((4,), 0.7))


def test_the_model_can_be_a_row_of_layers_or_run_as_it_is():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(5, 4), snn.Leaky(beta=0.9)

        def forward(self, x):
            return self.lif1(self.fc1(x))

    net = Net()
    with pytest.raises(TypeError, match=r"\[net.fc1, net.lif1"):
        from_snntorch(net, 1e-3)
    network, _ = from_snntorch([net.fc1, net.lif1], 1e-3)
    nested, _ = from_snntorch(nn.Sequential(nn.Flatten(), nn.Sequential(net.fc1, net.lif1)), 1e-3)
    assert torch.equal(network[0].weight, nested[0].weight)
    single, _ = from_snntorch([net.fc1, snn.Leaky(beta=0.9, init_hidden=True, output=True)], 1e-3)
    assert torch.equal(network[0].weight, single[0].weight)


def test_what_comes_out_runs_as_snntorch_users_do():
    from snntorch import utils

    model, _ = to_snntorch([LIF(5, 4), LI(4, 2)], 1e-3)
    utils.reset(model)
    outputs = [model(x) for x in (torch.rand(10, 3, 5) < 0.3).float()]
    spk, syn, mem = outputs[-1]
    assert spk.shape == syn.shape == mem.shape == (3, 2)


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(5, 4), snn.Leaky(0.9, inhibition=True)], "inhibition"),
        ([nn.Linear(5, 4), snn.Leaky(0.9, state_quant=lambda x: x)], "state_quant"),
        ([nn.Linear(5, 4), snn.Leaky(0.9, graded_spikes_factor=2.0)], "graded_spikes_factor"),
        ([nn.Linear(5, 4), snn.Leaky(1.0)], "beta=1"),
        ([nn.Linear(5, 4), snn.Synaptic(0.0, 0.9)], "alpha=0"),
        ([nn.Linear(5, 4), snn.RSynaptic(0.8, 0.9, linear_features=4, reset_delay=False)], "reset_delay=False"),
        ([nn.Linear(5, 4), snn.RLeaky(0.9, conv2d_channels=1, kernel_size=3)], "a convolution as recurrence"),
        ([nn.Linear(5, 4), snn.Leaky(0.9, reset_mechanism="none"), nn.Linear(4, 2), snn.Leaky(0.9)], "reset_mechanism='none'"),
        ([nn.Linear(5, 4), snn.Alpha(0.9, 0.8)], "Alpha"),
        ([nn.Linear(5, 4), snn.Lapicque(0.9)], "Lapicque"),
        ([snn.Leaky(0.9)], "without an nn.Linear"),
        ([nn.Linear(5, 4), nn.Linear(4, 4), snn.Leaky(0.9)], "1 Linear after 0 Linear"),
        ([nn.Linear(5, 4), nn.BatchNorm1d(4), snn.Leaky(0.9)], "BatchNorm1d"),
        ([nn.Conv2d(1, 4, 3), snn.Leaky(0.9)], "Conv2d"),
        ([nn.Linear(5, 4), snn.Leaky(0.9), nn.Linear(4, 2)], "at the end"),
    ],
)  # fmt: skip
def test_what_has_no_equal_is_refused_by_name(layers, named):
    with pytest.raises(NotImplementedError, match=named):
        from_snntorch(layers, 1e-3)


def test_no_neurons_are_an_error():
    with pytest.raises(ValueError, match="no snnTorch neurons"):
        from_snntorch(nn.Sequential(nn.Flatten()), 1e-3)


def test_a_silent_probe_is_said():
    _, report = from_snntorch(a_model(scale=1e-3, bias=False), 1e-3)
    assert sum("no spikes on this probe" in note for note in report.notes) == 2
    assert "no spikes on this probe" in str(report)
