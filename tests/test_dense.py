"""Layers of events between dense ones: rasters and currents in, rasters, traces and voltages out, learning through both."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from helpers import F64, on_both_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eventnet import LI, LIF, Events, lif
from eventnet.layers.dense import Dense, mean_trace

pytestmark = pytest.mark.usefixtures("one_thread")

DT = 2e-3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def layer(num_in: int = 3, num: int = 4, seed: int = 0) -> LIF:
    made = LIF(num_in, num, tau_mem=10e-3, tau_syn=3e-3, dtype=F64)
    with torch.no_grad():
        made.weight.copy_(2 + 2 * draw(num_in, num, seed=seed))
    return made


def raster(steps: int = 12, batch: int = 2, num: int = 3, seed: int = 1) -> Tensor:
    return (draw(steps, batch, num, seed=seed) > 0.5).to(F64)


# ---- what goes in and out ------------------------------------------------------------------------------------------


def test_spikes_in_and_out():
    made, x = layer(), raster()
    with torch.no_grad():
        found = Dense(made, DT)(x)
    expected = made(Events.from_dense(x, DT)).detach().to_dense(DT)
    assert found.shape == (12, 2, 4) and torch.equal(found, expected) and found.sum() > 5


def test_currents_in():
    made, x = layer(), 1 + draw(12, 2, 3)
    spikes, voltage = made.drive(x, DT, return_voltage=True)
    assert spikes.num_events > 5
    with torch.no_grad():
        assert torch.equal(Dense(made, DT, inputs="currents")(x), spikes.to_dense(DT))
    assert torch.equal(Dense(made, DT, inputs="currents", outputs="voltage")(x), voltage)
    trace = Dense(made, DT, inputs="currents", outputs="trace", tau=5e-3)(x)
    assert torch.equal(trace, mean_trace(spikes, 12, DT, 5e-3))


def test_voltages_out():
    made, readout, x = layer(), LI(3, 4, dtype=F64), raster()
    ends = torch.arange(1, 13, dtype=F64) * DT
    expected = made(Events.from_dense(x, DT), return_voltage=True)[1].at(ends)
    torch.testing.assert_close(Dense(made, DT, outputs="voltage")(x), expected.transpose(0, 1))
    expected = readout(Events.from_dense(x, DT)).at(ends)
    torch.testing.assert_close(Dense(readout, DT, outputs="voltage")(x), expected.transpose(0, 1))


def test_any_module_of_events():
    network = nn.Sequential(layer(), layer(4, 5, seed=3), LI(5, 2, dtype=F64))
    assert Dense(network, DT, outputs="voltage")(raster()).shape == (12, 2, 2)
    assert Dense(network[:2], DT, outputs="trace")(raster()).shape == (12, 2, 5)


@pytest.mark.parametrize("outputs", ["spikes", "trace", "voltage"])
@pytest.mark.parametrize("inputs", ["spikes", "currents"])
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
@pytest.mark.filterwarnings("ignore:Events.to_dense cuts")
def test_nothing_comes_out_of_nothing(inputs, outputs, shape):
    found = Dense(layer(), DT, inputs=inputs, outputs=outputs)(torch.zeros(shape, dtype=F64))
    assert found.shape == (*shape[:2], 4)


REFUSED = {
    "inputs": (lambda: Dense(layer(), DT, inputs="frames"), ValueError, "inputs must be one of spikes, currents"),
    "outputs": (
        lambda: Dense(layer(), DT, outputs="rate"),
        ValueError,
        "outputs must be one of spikes, trace, voltage",
    ),
    "dt": (lambda: Dense(layer(), 0.0), ValueError, "dt must be a positive number of seconds, got 0.0"),
    "tau": (lambda: Dense(layer(), DT, tau=math.inf), ValueError, "tau must be a positive number of seconds"),
    "currents": (lambda: Dense(LI(3, 2), DT, inputs="currents"), TypeError, "drive a LIF layer; LI takes events only"),
    "shape": (lambda: Dense(layer(), DT)(torch.zeros(2, 3)), ValueError, r"\(T, B, N\), got \(2, 3\)"),
    "events": (lambda: Dense(LI(3, 2, dtype=F64), DT)(raster()), TypeError, "LI returned Voltage; expected Events"),
    "voltage": (
        lambda: Dense(nn.Sequential(layer()), DT, outputs="voltage")(raster()),
        TypeError,
        "Sequential returned Events; outputs='voltage' is for",
    ),
    "counts": (lambda: Dense(layer(), DT)(raster() / 2), ValueError, "takes counts.*inputs='currents'"),
    "no number": (lambda: Dense(layer(), "1 ms"), ValueError, "dt must be a positive number of seconds, got '1 ms'"),
    "no tensor": (
        lambda: Dense(layer(), DT)([[[1.0]]]),
        TypeError,
        r"expected a tensor of shape \(T, B, N\), got list",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        call()


def test_repr():
    shown = repr(Dense(LIF(3, 4), 1e-3, inputs="currents", outputs="trace"))
    assert "dt=0.001, inputs='currents', outputs='trace', tau=0.02" in shown and "LIF(3, 4" in shown
    assert "tau=0.02" not in repr(Dense(LI(3, 4), 1e-3, outputs="voltage")).split("(layer)")[0]


# ---- gradients that are cut say so ---------------------------------------------------------------------------------


def test_rasters_of_times_that_learn_warn():
    made, x = layer(), raster()
    with pytest.warns(UserWarning, match=r"Events\.to_dense cuts the gradient.*Events\.to_trace"):
        assert not Dense(made, DT)(x).requires_grad
    with pytest.warns(UserWarning, match=r"Events\.from_dense cuts the gradient.*LIF\.drive"):
        Events.from_dense(x.clone().requires_grad_(), DT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(Events.from_dense(x, DT)).detach().to_dense(DT)
        Events.from_dense(x.clone().requires_grad_().detach(), DT)
        with torch.no_grad():
            Dense(made, DT)(x.clone().requires_grad_())


# ---- the mean trace ------------------------------------------------------------------------------------------------


def packed(times: Tensor, sizes: Tensor | None = None) -> Events:
    """One sample of two units, by turns."""
    units = torch.arange(len(times)) % 2
    values = None if sizes is None else sizes
    return Events.trusted(
        times, units.int(), torch.tensor([0, len(times)]), 2, torch.full((1,), 0.04, dtype=F64), values
    )


@settings(max_examples=30, deadline=None)
@given(
    times=st.lists(st.floats(0, 0.04), max_size=8).map(sorted),
    tau=st.floats(1e-3, 1.0),
    steps=st.integers(1, 7),
    graded=st.booleans(),
)
def test_mean_trace_is_the_integral(times, tau, steps, graded):
    """That of each event's exponential over each step, added up."""
    dt = 0.04 / steps
    sizes = 0.5 + torch.rand(len(times), dtype=F64, generator=torch.manual_seed(0)) if graded else None
    found = mean_trace(packed(torch.tensor(times, dtype=F64), sizes), steps, dt, tau)
    expected = torch.zeros(steps, 1, 2, dtype=F64)
    for e, t in enumerate(times):
        for k in range(steps):
            start, end = max(t, k * dt), max(t, (k + 1) * dt)
            area = tau * (math.exp(-(start - t) / tau) - math.exp(-(end - t) / tau))
            expected[k, 0, e % 2] += area / dt * (1 if sizes is None else sizes[e].item())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_mean_trace_has_no_jumps():
    """Not where an event passes from one step to the next, and not where it passes the end."""
    for border in (0.01, 0.02, 0.04):
        before, after = (
            mean_trace(packed(torch.tensor([border + shift], dtype=F64)), 4, 0.01, 5e-3) for shift in (-1e-9, 1e-9)
        )
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_gradient_of_the_mean_trace():
    times = torch.tensor([0.003, 0.011, 0.012, 0.0399], dtype=F64, requires_grad=True)
    sizes = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, s: mean_trace(packed(t, s), 4, 0.01, 7e-3), (times, sizes), eps=1e-7)


# ---- learning through a layer of events ---------------------------------------------------------------------------


class Network(nn.Module):
    """Convolution -> LIF, by currents or by latencies -> mean traces -> linear layer."""

    def __init__(self, coding: str, backend: str = "auto") -> None:
        super().__init__()
        self.coding = coding
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, dtype=F64), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
        self.spiking = LIF(8, 5, tau_mem=10e-3, backend=backend, dtype=F64, learn=("weight", "tau_mem", "threshold"))
        self.classes = nn.Linear(5, 3, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if self.coding == "currents":
            spikes = self.spiking.drive(features.expand(3, *features.shape), 10e-3)
        else:
            spikes = self.spiking(Events.from_latency(features.sigmoid(), 0.0, 20e-3, duration=30e-3))
        return self.classes(mean_trace(spikes, 1, 30e-3, tau=20e-3)[0])


@on_both_backends
@pytest.mark.parametrize("coding", ["currents", "latencies"])
def test_convolution_to_spikes_to_linear_layer(coding, backend):
    """Exact gradients from the loss to the image and to every parameter on the way."""
    torch.manual_seed(3)
    network = Network(coding, backend)
    with torch.no_grad():
        network.spiking.weight.mul_(2).abs_().add_(3 if coding == "currents" else 1)
        network.features[0].bias.add_(0.5)
    x = torch.rand(2, 1, 6, 6, dtype=F64, requires_grad=True)
    names, parameters = zip(*((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True)

    def loss(x: Tensor, *own: Tensor) -> Tensor:
        output = torch.func.functional_call(network, dict(zip(names, own, strict=True)), (x,))
        return nn.functional.cross_entropy(output, torch.tensor([0, 2]))

    slopes = torch.autograd.grad(loss(x, *parameters), (x, *parameters))
    assert all(slope.any() for slope in slopes)
    assert torch.autograd.gradcheck(
        loss, (x, *parameters), eps=1e-7, atol=1e-6, rtol=1e-4, fast_mode=backend == "reference"
    )


def test_a_dense_model_learns_through_spikes():
    """Which of two inputs is stronger, from the spikes of a hidden layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), Dense(LIF(16, 16), 10e-3, inputs="currents", outputs="trace"), nn.Linear(16, 2)
    )
    nn.init.normal_(model[2].layer.weight, 0.5, 0.5)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model[0].weight.detach().clone()
    for _ in range(80):
        x = torch.rand(64, 2)
        loss = nn.functional.cross_entropy(model(4 * x.expand(3, 64, 2)).mean(0), (x[:, 1] > x[:, 0]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.rand(500, 2)
    right = model(4 * x.expand(3, 500, 2)).mean(0).argmax(1) == (x[:, 1] > x[:, 0])
    assert right.float().mean() > 0.9 and (model[0].weight - first).abs().max() > 0.05


@pytest.mark.parametrize("outputs", ["trace", "voltage"])
def test_checkpoints_take_currents(outputs):
    """The way back runs the layer again instead of keeping what it needs."""
    dense, x = Dense(layer(), DT, inputs="currents", outputs=outputs), (1 + draw(12, 2, 3)).requires_grad_()
    (expected,) = torch.autograd.grad(dense(x).sum(), x)
    (found,) = torch.autograd.grad(checkpoint(dense, x, use_reentrant=False).sum(), x)
    assert expected.any() and torch.equal(found, expected)


def test_latencies_take_any_float():
    """Times need more digits than half precision has."""
    values = torch.tensor([[0.25, 1.0, 0.5]])
    for dtype in (torch.bfloat16, torch.float16):
        leaf = values.to(dtype).requires_grad_()
        events = Events.from_latency(leaf, 0.0, 0.02)
        assert events.dtype == events.duration.dtype == torch.float32
        torch.testing.assert_close(events.times, Events.from_latency(values, 0.0, 0.02).times)
        (slope,) = torch.autograd.grad(lif(events, torch.full((3, 1), 3.0)).times.sum(), leaf)
        assert slope.dtype == dtype and slope.any()
