"""Our layers among layers of a grid: rasters in and out, gradients through both, snnTorch's losses and plots on the output."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from eventnet import LI, LIF, Events
from eventnet.interop import SpkMem, StateSteps, to_steps
from eventnet.interop.steps import from_steps

F64 = torch.float64


def a_layer(num_in=5, num_out=4, **own):
    torch.manual_seed(0)
    layer = LIF(num_in, num_out, **own)
    with torch.no_grad():
        layer.weight.add_(0.5).mul_(3.0)
    return layer


def a_raster(steps=60, batch=3, num=5, seed=0, dtype=torch.float32):
    return (torch.rand(steps, batch, num, generator=torch.Generator().manual_seed(seed)) < 0.1).to(dtype)


def test_rasters_are_those_of_events():
    events = a_layer()(Events.from_dense(a_raster(), 1e-3))
    assert events.num_events > 20
    assert torch.equal(to_steps(events, 1e-3), events.detach().to_dense(1e-3))
    back = from_steps(a_raster(), 1e-3)
    assert back.values is None and torch.equal(back.to_dense(1e-3), a_raster())


@pytest.mark.parametrize("dt", [1e-3, 1e-4])
def test_the_gradient_of_times_tends_to_the_exact_one(dt):
    """A smooth function of the time of each spike, as a sum over steps and as a sum over spikes."""
    layer = a_layer(dtype=F64)
    events = Events.from_dense(a_raster(dtype=F64), 1e-3)
    grads = []
    for stepped in (False, True):
        spikes = layer(events)
        if stepped:
            raster = to_steps(spikes, dt)
            middles = (torch.arange(len(raster), dtype=F64) + 0.5) * dt
            loss = (raster * torch.sin(100 * middles)[:, None, None]).sum()
        else:
            loss = torch.sin(100 * spikes.times).sum()
        grads.append(torch.autograd.grad(loss, layer.weight)[0])
    exact, found = grads
    assert (found - exact).norm() < 100 * dt * exact.norm()  # the sine turns by 100 dt in a step


def test_the_gradient_of_a_raster_is_that_of_its_spikes():
    raster = a_raster(dtype=F64).requires_grad_()
    readout = LI(5, 2, dtype=F64)
    readout(from_steps(raster, 1e-3)).mean().sum().backward()
    one = raster.detach().nonzero()[7].tolist()
    events = Events.from_dense(raster.detach(), 1e-3)
    step = (events.times / 1e-3).round().long()
    which = (step == one[0]) & (events.samples == one[1]) & (events.units == one[2])
    sides = []
    for size in (1 - 1e-5, 1 + 1e-5):
        values = torch.ones_like(events.times).masked_fill(which, size)
        graded = Events(events.times, events.units, events.offsets, 5, events.duration, values)
        sides.append(readout(graded).mean().sum().item())
    assert raster.grad[tuple(one)].item() == pytest.approx((sides[1] - sides[0]) / 2e-5, rel=1e-6)
    assert bool((raster.grad[raster.detach() == 0] == 0).all())


def test_any_numbers_are_sizes_of_events():
    """A 2 is as two events, a size scales what an event does; all of them have gradients but zeros."""
    readout = LI(5, 2, dtype=F64)
    raster = a_raster(dtype=F64)
    twice = readout(Events.from_dense(2 * raster, 1e-3)).mean()
    torch.testing.assert_close(readout(from_steps(2 * raster, 1e-3)).mean(), twice)
    graded = (raster * torch.randn(raster.shape, dtype=F64, generator=torch.manual_seed(0))).requires_grad_()
    rest = readout(from_steps(0 * raster, 1e-3)).mean()
    one = readout(from_steps(graded, 1e-3)).mean() - rest
    torch.testing.assert_close(readout(from_steps(-3 * graded.detach(), 1e-3)).mean() - rest, -3 * one)
    one.sum().backward()
    assert torch.equal(graded.grad != 0, raster != 0)


@pytest.mark.parametrize("wrapper", [StateSteps, SpkMem])
@pytest.mark.parametrize("layer", [LIF(5, 4), LI(5, 4)])
@pytest.mark.parametrize("shape", [(6, 0, 5), (0, 3, 5)])
def test_nothing_comes_out_of_nothing(wrapper, layer, shape):
    raster = torch.zeros(shape, requires_grad=True)
    output, other = wrapper(layer, 1e-3)(raster)
    assert output.shape == (*shape[:2], 4) and (wrapper is StateSteps or other.shape == output.shape)
    (output.sum() + (other.sum() if wrapper is SpkMem else 0.0)).backward()


def test_a_step_alone_is_an_error():
    with pytest.raises(ValueError, match=r"all steps at once, \(T, B, N\), got \(3, 5\)"):
        SpkMem(a_layer(), 1e-3)(a_raster()[0])


@pytest.mark.parametrize("wrapper", [StateSteps, SpkMem])
def test_pytorch_does_with_them_what_it_does_with_any_module(wrapper):
    layer, raster = wrapper(a_layer(), 1e-3), a_raster()
    expected = layer(raster)[0]
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.compile(layer, backend="eager")]
    assert expected.sum() > 20 and all(torch.equal(other(raster)[0], expected) for other in copies)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(raster)[0], expected)
    for dtype in (torch.float16, torch.float64, torch.bool):  # they compute in the layer's
        assert torch.equal(layer(raster.to(dtype))[0], expected)


def test_a_sequence_cut_in_two_is_the_whole():
    layer = StateSteps(a_layer(recurrent=True, recurrent_delay=2e-3), 1e-3)
    raster = a_raster()
    whole, _ = layer(raster)
    first, state = layer(raster[:25])
    second, _ = layer(raster[25:], state)
    assert whole.sum() > 20 and torch.equal(torch.cat([first, second]), whole)


def test_a_readout_does_not_go_on():
    layer = StateSteps(LI(5, 2), 1e-3)
    voltage, state = layer(a_raster())
    assert voltage.shape == (60, 3, 2)
    with pytest.raises(NotImplementedError, match="whole sequence at once"):
        layer(a_raster(), state)


def test_inside_a_norse_sequence():
    """Between layers that Norse steps, forwards and backwards."""
    norse = pytest.importorskip("norse.torch")
    torch.manual_seed(0)
    p = norse.LIFParameters(v_th=torch.tensor(0.1))
    model = norse.SequentialState(
        nn.Linear(5, 8), norse.LIF(p), StateSteps(a_layer(8, 4), 1e-3), nn.Linear(4, 2), norse.LI()
    )
    assert model.stateful_layers == [False, True, True, False, True]
    voltage, state = model(a_raster())
    again, _ = model(a_raster(seed=1), state)
    assert voltage.shape == again.shape == (60, 3, 2)
    voltage.mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_spk_and_mem():
    layer = a_layer()
    spk, mem = SpkMem(layer, 1e-3)(a_raster())
    spikes, voltage = layer(Events.from_dense(a_raster(), 1e-3), return_voltage=True)
    assert torch.equal(spk, spikes.detach().to_dense(1e-3))
    ends = (torch.arange(60) + 1) * 1e-3
    torch.testing.assert_close(mem, voltage.at(ends.clamp(max=0.06)).transpose(0, 1))
    assert spk.requires_grad and mem.requires_grad
    spk, mem = SpkMem(LI(5, 2), 1e-3)(a_raster())
    assert spk.shape == mem.shape == (60, 3, 2) and not spk.any() and mem.any()


@pytest.mark.parametrize("wrapper", [StateSteps, SpkMem])
def test_only_layers_of_ours_are_wrapped(wrapper):
    with pytest.raises(TypeError, match="expected an LIF or an LI, got Linear"):
        wrapper(nn.Linear(3, 4), 1e-3)
    assert "dt=0.001" in repr(wrapper(LIF(3, 4), 1e-3))


# ---- what snnTorch does with it ---------------------------------------------------------------------------------------------

TARGETS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("ce_rate_loss", "spk"),
        ("ce_count_loss", "spk"),
        ("mse_count_loss", "spk"),
        ("ce_temporal_loss", "spk"),
        ("mse_temporal_loss", "spk"),
        ("ce_max_membrane_loss", "mem"),
        ("mse_membrane_loss", "mem"),
    ],
)
def test_functional_losses_take_our_outputs(name, reads):
    functional = pytest.importorskip("snntorch.functional")
    layer = a_layer()
    spk, mem = SpkMem(layer, 1e-3)(a_raster())
    loss = getattr(functional, name)()(spk if reads == "spk" else mem, TARGETS)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(layer.weight.grad).all()
    if name == "ce_count_loss":  # counts have no gradient: moving a spike by a step changes none
        torch.testing.assert_close(loss, cross_entropy(spk.sum(0), TARGETS))
        assert not layer.weight.grad.any()
    elif name != "mse_count_loss":
        assert layer.weight.grad.any()


def test_the_temporal_loss_trains_with_exact_gradients():
    """Its gradient of a first spike's step, -1 there, is what our spike times take for d step / dt = 1 / dt."""
    functional = pytest.importorskip("snntorch.functional")
    layer, dt = a_layer(dtype=F64), 1e-3
    events = Events.from_dense(a_raster(dtype=F64), dt)
    spikes = layer(events)
    functional.ce_temporal_loss()(to_steps(spikes, dt), TARGETS).backward()
    first = layer(events).first_times() / dt
    assert bool(torch.isfinite(first).all())
    steps = first + (first.floor() - first).detach()
    exact = torch.autograd.grad(cross_entropy(-steps, TARGETS), layer.weight)[0]
    torch.testing.assert_close(layer.weight.grad, exact)


def test_accuracy_of_rates():
    functional = pytest.importorskip("snntorch.functional")
    spk, _ = SpkMem(a_layer(), 1e-3)(a_raster())
    predicted = spk.sum(0).argmax(1)
    assert functional.accuracy_rate(spk, predicted) == 1.0


def test_spikeplot_draws_our_events(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pytest.importorskip("snntorch")
    if find_spec("pandas") is None:  # snntorch.spikeplot imports it, and its raster has no use for it
        monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    spikeplot = importlib.import_module("snntorch.spikeplot")
    from matplotlib import pyplot

    events = a_layer()(Events.from_dense(a_raster(), 1e-3))
    raster = events.detach().to_dense(1e-3)[:, 0]
    figure, axes = pyplot.subplots()
    points = spikeplot.raster(raster, axes, s=2)
    assert len(points.get_offsets()) == int((raster > 0).sum()) > 5
    pyplot.close(figure)
