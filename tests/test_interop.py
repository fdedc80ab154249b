"""Conversions: what they share, the report that checks them, and what they ask for."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

import eventnet
from eventnet import LI, LIF, Events, interop
from eventnet.interop import grid, probe
from eventnet.interop.grid import GridLayer, from_layer, to_layer
from eventnet.interop.readout import StartedLI
from eventnet.interop.stages import layers_of
from eventnet.packages import MissingPackage

MODULES = ("grid", "norse", "probe", "readout", "snntorch", "stages", "steps")
F64 = torch.float64


def a_grid(**changes):
    generator = torch.Generator().manual_seed(0)
    given = {
        "name": "layer",
        "dt": 1e-3,
        "weight": torch.randn(3, 4, generator=generator, dtype=F64),
        "tau_mem": torch.tensor(0.02, dtype=F64),
        "tau_syn": torch.tensor(0.005, dtype=F64),
        "gain": "1",
        "leak": torch.zeros((), dtype=F64),
        "threshold": torch.ones((), dtype=F64),
        "learn": ("weight",),
    }
    return GridLayer(**(given | changes))


def stepped(layer: GridLayer, raster):
    """The recursion of the module's docstring, without spikes, as it stands there."""
    alpha, beta = torch.exp(-layer.dt / layer.tau_syn), torch.exp(-layer.dt / layer.tau_mem)
    gain = 1.0 if layer.gain == "1" else 1 - beta
    current, voltage, found = torch.zeros(raster.shape[1], layer.weight.shape[1], dtype=F64), layer.leak, []
    for x in raster:
        current = alpha * current + x @ layer.weight + (0.0 if layer.bias is None else layer.bias)
        voltage = beta * voltage + (1 - beta) * layer.leak + gain * current
        found.append(voltage)
    return torch.stack(found)


@pytest.mark.parametrize("gain", ["1", "1 - beta"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("threshold", [None, 1e9])
@pytest.mark.parametrize("taus", [(0.02, 0.005), (0.005, 0.005), (0.004, 0.01)])
def test_voltages_at_the_steps_are_those_of_the_recursion(gain, biased, threshold, taus):
    bias = torch.tensor([0.3, -0.1, 0.0, 0.02], dtype=F64) if biased else None
    leak = torch.tensor(0.0 if gain == "1" else 0.2, dtype=F64)
    tau_mem, tau_syn = (torch.tensor(tau, dtype=F64) for tau in taus)
    top = None if threshold is None else torch.tensor(threshold, dtype=F64)
    source = a_grid(gain=gain, bias=bias, leak=leak, threshold=top, tau_mem=tau_mem, tau_syn=tau_syn)
    layer = to_layer(source, 1e-3, F64)
    raster = (torch.rand(60, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    events = Events.from_dense(raster, 1e-3)
    voltage = layer(events) if threshold is None else layer(events, return_voltage=True)[1]
    ends = torch.arange(1, 61, dtype=F64).mul(1e-3).clamp(max=events.duration.max())
    torch.testing.assert_close(voltage.at(ends).transpose(0, 1), stepped(source, raster), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gain", ["1", "1 - beta"])
def test_a_layer_comes_back_from_the_grid(gain):
    torch.manual_seed(0)
    layer = LIF(3, 4, recurrent=True, tau_mem=torch.rand(4) * 0.02 + 0.005, threshold=0.7, dtype=F64)
    found, notes = from_layer(layer, "0", 1e-3, gain)
    back = to_layer(found, 1e-3, F64)
    assert not notes
    for name, value in layer.named_parameters():
        torch.testing.assert_close(back.get_parameter(name), value, rtol=1e-14, atol=0)


def test_a_start_that_no_grid_has_is_noted():
    _, notes = from_layer(LIF(3, 4, bias=0.5), "0", 1e-3, "1")
    assert len(notes) == 1 and "starts at 0.5 V" in notes[0]
    assert from_layer(LIF(3, 4, bias=0.5), "0", 1e-3, "1 - beta")[1] == ()  # Norse starts at its v_leak
    _, notes = from_layer(LIF(3, 4, bias=torch.tensor([0.1, 0.2, 0.3, 0.4])), "0", 1e-3, "1 - beta")
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (LIF(3, 4, delay=0.01), "delay"),
        (LIF(3, 4, recurrent=True, recurrent_delay=0.01), "recurrent_delay=0.01 s"),
        (LIF(3, 4, refractory=2e-3), "refractory=0.002 s"),
        (LIF(3, 4, branches=2), "dendritic branches"),
        (LIF(3, 4, reset=-0.5), "reset=-0.5"),
    ],
)
def test_what_no_grid_has_is_refused_by_name(layer, named):
    with pytest.raises(NotImplementedError, match=named):
        from_layer(layer, "0", 1e-3, "1")


@pytest.mark.parametrize("late", [False, True])
def test_reset_error_bounds_what_a_subtraction_costs(late):
    """One spike, then no input: the grid's voltage is that of the closed form less at most ``reset_error``, and less at least
    the part of it that does not depend on where in the step the spike was."""
    source = a_grid(weight=torch.tensor([[0.3]], dtype=F64), reset_late=late)
    alpha, beta = torch.exp(-source.dt / source.tau_syn), torch.exp(-source.dt / source.tau_mem)
    current, voltage, fired, reset = torch.tensor(0.3, dtype=F64), torch.zeros((), dtype=F64), [], 0.0
    for n in range(30):
        voltage = beta * voltage + current - (reset if late else 0.0)
        reset = float(voltage > 1)
        fired += [n] * int(reset)
        voltage = voltage - (0.0 if late else reset)
        current = current * alpha
    layer = to_layer(source, 1e-3, F64)
    events = Events.from_list([([0.0], [0])], 1, 0.03, dtype=F64)
    spikes, ours = layer(events, return_voltage=True)
    assert len(fired) == spikes.num_events == 1
    assert fired[0] * 1e-3 < spikes.times.item() <= (fired[0] + 1) * 1e-3
    settled = float(torch.exp(-(30 - fired[0] - (2 if late else 1)) * source.dt / source.tau_mem))
    short = (ours.at(torch.tensor([0.03], dtype=F64)).item() - voltage.item()) / settled
    assert (0.0 if not late else source.reset_error() / 3) < short <= source.reset_error()


def test_the_report_sees_a_wrong_weight(monkeypatch):
    """The check would catch a mistake of the conversion: with another factor no voltage is the same."""
    right, wrong = (_report_of(factor, monkeypatch) for factor in (1.0, 1.01))
    assert right.layers[0].voltage_error < 1e-12 and wrong.layers[0].voltage_error > 1e-4


def _report_of(factor, monkeypatch):
    source, exact = a_grid(), grid._factor
    with monkeypatch.context() as patch:
        patch.setattr(grid, "_factor", lambda *given: factor * exact(*given))
        layer = to_layer(source, 1e-3, F64)
    source = a_grid(told=dict.fromkeys(("tau_mem", "tau_syn", "weight", "reset"), "there"))
    raster = probe.probe_of(None, [source])
    trace = probe.Trace(stepped(source, raster), torch.zeros(len(raster), raster.shape[1], 4, dtype=F64))
    return probe.report_on("there -> here", [source], [layer], raster, [trace], ())


def test_the_report_reads_well():
    text = str(_report_of(1.0, pytest.MonkeyPatch()))
    assert text.startswith("there -> here, dt=1 ms; probe: ")
    for part in ("tau_mem=0.02 s", "-dt / ln(beta)", "1 / K(dt)", "spikes: 0 there", "voltages before the first spike"):
        assert part in text


def test_spikes_are_paired_by_number():
    a = Events.from_list([([0.1, 0.2, 0.3], [0, 0, 1]), ([0.1], [0])], 2, 1.0)
    b = Events.from_list([([0.11, 0.3], [0, 1]), ([0.1, 0.4], [0, 0])], 2, 1.0)
    ours, theirs, left = probe._paired(a, b)
    assert [round(float(x), 3) for x in ours[:, 0] - theirs[:, 0]] == [-0.01, 0.0, 0.0]
    assert sorted(round(float(x), 3) for x in left) == [0.2, 0.4]


@pytest.mark.parametrize("given", [torch.zeros(5, 3), torch.zeros(0, 1, 3), torch.zeros(5, 0, 3), torch.zeros(5, 1, 4)])
def test_a_probe_that_does_not_fit_is_refused(given):
    with pytest.raises(ValueError, match=r"probe: expected Events of 3 units or a raster \(T, B, 3\)"):
        probe.probe_of(given, [a_grid()])
    with pytest.raises(TypeError, match=r"probe: expected Events of 3 units .* got list"):
        probe.probe_of([1, 0, 1], [a_grid()])


@pytest.mark.parametrize("convert", ["to_snntorch", "to_norse"])
def test_layers_of_ours_that_do_not_fit_are_named(convert):
    pytest.importorskip(convert.removeprefix("to_"))
    with pytest.raises(ValueError, match="1: takes 3 inputs, but 0 has 4 neurons"):
        getattr(interop, convert)([LIF(5, 4), LIF(3, 2)], 1e-3)


def test_a_readout_starts_where_it_is_told():
    readout = StartedLI(
        2, 1, tau_mem=0.02, tau_syn=0.005, bias=0.5, initial_voltage=-0.2, initial_current=0.3, dtype=F64
    )
    never = LIF(
        2, 1, tau_mem=0.02, tau_syn=0.005, bias=0.5, initial_voltage=-0.2, initial_current=0.3, threshold=1e9, dtype=F64
    )
    never.load_state_dict({**never.state_dict(), "weight": readout.weight.detach()})
    events = Events.from_list([([0.01, 0.03], [0, 1]), ([], [])], 2, 0.05, dtype=F64)
    times = torch.linspace(0, 0.05, 11, dtype=F64)
    torch.testing.assert_close(readout(events).at(times), never(events, return_voltage=True)[1].at(times))
    assert readout(events).at(times)[:, 0, 0].tolist() == pytest.approx([-0.2, -0.2])
    readout(events).mean().sum().backward()
    assert readout.weight.grad.abs().min() > 0 and readout.initial_voltage.grad is None


def test_layers_are_taken_in_order():
    hidden, readout = LIF(3, 4), LI(4, 2)
    assert layers_of(nn.Sequential(hidden, readout)) == layers_of([hidden, readout]) == [hidden, readout]
    assert layers_of(hidden) == [hidden]
    with pytest.raises(NotImplementedError, match="0 LI"):
        layers_of([readout, hidden])
    with pytest.raises(NotImplementedError, match="0 Linear"):
        layers_of([nn.Linear(3, 4)])
    with pytest.raises(NotImplementedError, match="GRU has no equal"):
        layers_of(nn.GRU(3, 4))
    with pytest.raises(TypeError, match="in the order of its forward"):
        layers_of(nn.ModuleDict({"hidden": hidden}))
    with pytest.raises(TypeError, match="layers of eventnet in order, got NoneType"):
        layers_of(None)
    with pytest.raises(ValueError, match="no layers"):
        layers_of([])


@pytest.mark.parametrize("dt", [0.0, -1e-3, float("inf"), float("nan"), "1e-3", True])
def test_a_step_is_a_positive_number_of_seconds(dt):
    with pytest.raises(ValueError, match="dt: expected the seconds of a step"):
        grid.check_step(dt)


@pytest.mark.parametrize("name", ["from_snntorch", "to_snntorch", "from_norse", "to_norse"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingPackage, match=rf"{name} needs the package .*eventnet\[interop\]"):
        getattr(importlib.import_module("eventnet.interop"), name)(LIF(3, 4), 1e-3)


def test_interop_loads_neither_library():
    code = "import eventnet.interop, sys; print({'snntorch', 'norse', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    needed = {"norse": ("norse",), "snntorch": ("snntorch",), "steps": ("norse",)}
    for package in needed.get(name, ()):
        pytest.importorskip(package)
    torch.manual_seed(0)
    public = {name: getattr(eventnet, name) for name in eventnet.__all__}
    module = importlib.import_module(f"eventnet.interop.{name}")
    assert doctest.testmod(module, extraglobs={"torch": torch, "nn": nn, **public}).failed == 0
