"""Networks of Norse and back; Norse itself is the witness."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eventnet import LI, LIF, Events
from eventnet.interop import from_norse, to_norse

norse = pytest.importorskip("norse.torch")

F64 = torch.float64
RATES = st.floats(5.0, 900.0)  # per second, in steps of 1 ms


def parameters(tau_mem_inv=100.0, tau_syn_inv=200.0, v_leak=0.0, v_th=1.0, v_reset=0.0, dtype=torch.float32):
    given = {"tau_mem_inv": tau_mem_inv, "tau_syn_inv": tau_syn_inv, "v_leak": v_leak, "v_th": v_th, "v_reset": v_reset}
    return norse.LIFParameters(**{name: torch.as_tensor(value, dtype=dtype) for name, value in given.items()})


def a_model(dt=1e-3, recurrent=True, **own):
    torch.manual_seed(0)
    hidden = (
        [norse.LIFRecurrent(20, 8, parameters(**own), dt=dt)] if recurrent else [nn.Linear(20, 8), norse.LIFCell(dt=dt)]
    )
    model = norse.SequentialState(
        nn.Linear(12, 20), norse.LIF(parameters(**own), dt=dt), *hidden, nn.Linear(8, 3), norse.LI(dt=dt)
    )
    with torch.no_grad():
        model[0].weight.mul_(6.0)
    return model


def a_probe(duration=0.06):
    raster = torch.rand(round(duration / 1e-3), 3, 12, generator=torch.Generator().manual_seed(0)) < 0.1
    return Events.from_dense(raster.double(), 1e-3)


@given(tau_mem_inv=RATES, tau_syn_inv=RATES, v_leak=st.sampled_from([0.0, 0.25]), seed=st.integers(0, 99))
def test_a_float32_model_returns_bit_for_bit(tau_mem_inv, tau_syn_inv, v_leak, seed):
    torch.manual_seed(seed)
    p = parameters(tau_mem_inv, tau_syn_inv, v_leak, v_th=0.7, v_reset=-0.1)
    model = norse.SequentialState(
        nn.Linear(5, 4), norse.LIF(p), norse.LIFRecurrent(4, 3, p), nn.Linear(3, 2, bias=False), norse.LI()
    )
    network, _ = from_norse(model, dtype=F64, probe=torch.zeros(2, 1, 5))
    back, _ = to_norse(network, 1e-3, dtype=torch.float32, probe=torch.zeros(2, 1, 5))
    assert [type(part) for part in back] == [type(part) for part in model]
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name
    for before, after in zip(model, back, strict=True):
        for name, value in getattr(before, "p", norse.LIParameters())._asdict().items():
            if isinstance(value, torch.Tensor) and hasattr(before, "p"):
                assert torch.equal(value, getattr(after.p, name)), name


@given(
    tau_mem=st.floats(5e-3, 0.1),
    tau_syn=st.floats(5e-3, 0.1),
    dt=st.floats(1e-5, 4e-3),
    bias=st.sampled_from([0.0, 0.4]),
)
def test_our_layers_return(tau_mem, tau_syn, dt, bias):
    torch.manual_seed(0)
    taus = {"tau_mem": tau_mem, "tau_syn": torch.linspace(1.0, 1.5, 4) * tau_syn}
    no_autapses = ~torch.eye(4, dtype=torch.bool)
    network = [
        LIF(3, 4, **taus, bias=bias, reset=-0.2, recurrent=True, recurrent_mask=no_autapses, dtype=F64),
        LI(4, 2, tau_mem=tau_mem, tau_syn=tau_syn, bias=bias, dtype=F64),
    ]
    model, report = to_norse(network, dt, probe=torch.zeros(2, 1, 3))
    assert not report.notes[:-1] and "no spikes" in report.notes[-1]
    back, _ = from_norse(model, dt, probe=torch.zeros(2, 1, 3))
    for before, after in zip(network, back, strict=True):
        for name, value in before.named_parameters():
            expected = torch.where(no_autapses, value, 0.0) if name == "recurrent_weight" else value
            torch.testing.assert_close(after.get_parameter(name), expected, rtol=1e-12, atol=1e-15)


@given(tau_mem_inv=RATES, tau_syn_inv=RATES, v_leak=st.sampled_from([0.0, -0.3, 0.25]))
def test_voltages_are_equal_until_the_first_spike(tau_mem_inv, tau_syn_inv, v_leak):
    linear, cell = list(a_model(tau_mem_inv=tau_mem_inv, tau_syn_inv=tau_syn_inv, v_leak=v_leak, dtype=F64).double())[
        :2
    ]
    _, report = from_norse([linear, cell], dtype=F64, probe=a_probe())
    assert report.layers[0].voltage_error < 1e-6  # Norse's v starts as a float32
    assert report.layers[0].voltage_error < 1e-11 or v_leak


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_error_falls_with_the_step(recurrent):
    torch.manual_seed(1)
    network = [LIF(12, 20, recurrent=recurrent, dtype=F64), LIF(20, 6, dtype=F64), LI(6, 2, dtype=F64)]
    with torch.no_grad():
        network[0].weight.mul_(6.0)
        network[1].weight.mul_(10.0)
    errors, voltages = [], []
    for dt in (1e-3, 6.25e-5):
        _, report = to_norse(network, dt, probe=a_probe(0.05))
        errors.append([layer.error[0] for layer in report.layers[:2]])
        voltages.append(report.layers[2].voltage_error)
    assert min(layer.spikes[1] for layer in report.layers[:2]) > 20
    assert sum(layer.unpaired for layer in report.layers) <= 0.02 * sum(layer.spikes[1] for layer in report.layers[:2])
    assert all(8 < coarse / fine < 32 for coarse, fine in zip(errors[0], errors[-1], strict=True)), errors
    assert voltages[0] > 4 * voltages[1] > 0


def test_every_module_is_read():
    model = a_model(recurrent=False)
    network, report = from_norse(model, 1e-3, probe=a_probe())
    assert [isinstance(layer, LI) for layer in network] == [False, False, True]
    assert [layer.name.split()[-1] for layer in report.layers] == ["LIF", "LIFCell", "LI"]
    cell = norse.LIFRecurrentCell(12, 4, autapses=True)
    network, report = from_norse(cell)
    assert isinstance(network[0], LIF) and network[0].recurrent_mask is None
    assert network[0].recurrent_delay.item() == pytest.approx(1e-3)
    lifted = norse.SequentialState(norse.Lift(nn.Linear(12, 4)), norse.LICell())
    assert isinstance(from_norse(lifted)[0][0], LI)


def test_a_model_in_steps_of_something_else_is_an_error():
    with pytest.raises(ValueError, match="made with"):
        from_norse(a_model(dt=1e-3), 1e-4)


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(5, 4), norse.IAF()], "IAF"),
        ([nn.Linear(5, 4), norse.LIFAdEx()], "LIFAdEx"),
        ([nn.Linear(5, 4), norse.LIFRecurrent(4, 4)], "after an nn.Linear"),
        ([norse.LIF()], "without an nn.Linear"),
        ([nn.Linear(5, 4), norse.LI(), nn.Linear(4, 2), norse.LI()], "before the last layer"),
        ([nn.Linear(5, 4), norse.LIF(dt=0.02)], "tau_mem_inv=100 in steps of 0.02 s"),
        ([nn.Linear(5, 4), nn.Dropout(), norse.LIF()], "Dropout"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(layers, named):
    with pytest.raises(NotImplementedError, match=named):
        from_norse(layers)


def test_a_recurrent_layer_with_a_bias_per_neuron_is_refused():
    layer = LIF(3, 4, recurrent=True, bias=torch.tensor([0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(NotImplementedError, match="bias per neuron"):
        to_norse(layer, 1e-3)


def test_learnable_parameters_stay_learnable():
    layer = LIF(3, 4, learn=("weight", "tau_mem", "bias"))
    model, _ = to_norse(layer, 1e-3)
    assert [name for name, x in model[1].p._asdict().items() if getattr(x, "requires_grad", False)] == [
        "tau_mem_inv",
        "v_leak",
    ]
    back, _ = from_norse(model)
    assert {name for name, p in back.named_parameters() if p.requires_grad} == {"0.weight", "0.tau_mem", "0.bias"}
