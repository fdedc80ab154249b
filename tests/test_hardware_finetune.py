"""Training through the chip's integers: the same numbers forward, the stated gradient backward, frozen weights, progress."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eventnet import LI, LIF, Events
from eventnet.hardware import QuantizedTwin, compile, finetune
from eventnet.hardware.finetuning import share_right
from eventnet.hardware.lif_finetune import HALF_WIDTH, HEIGHT
from eventnet.hardware.loihi import simulate
from eventnet.kernels import cpu


def classes(seed, batch=24, units=12, duration=0.1):
    """Two classes: the first half of the units fires early, or the second half does."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(batch) % 2
    samples = []
    for label in labels.tolist():
        times = torch.sort(torch.rand(30, generator=generator) * duration)[0]
        half = (times < duration / 2).long() ^ label
        samples.append((times, half * (units // 2) + torch.randint(0, units // 2, (30,), generator=generator)))
    return Events.from_list(samples, num_units=units, duration=duration), labels


def network(seed=0, **options):
    torch.manual_seed(seed)
    hidden, second, readout = LIF(12, 16, **options), LIF(16, 10), LI(10, 2)
    with torch.no_grad():
        hidden.weight.mul_(10)
        second.weight.mul_(10)
    return nn.Sequential(hidden, second, readout)


BACKENDS = ["reference", "cpu"] if cpu.load() else ["reference"]
DELAYED = {"recurrent": True, "delay": (0.0, 10e-3), "recurrent_delay": (0.0, 10e-3)}


@pytest.mark.parametrize("options", [{}, DELAYED, {"recurrent": True}])
@pytest.mark.parametrize("reading", ["mean", "max"])
def test_forward_is_the_deployment(options, reading):
    events, _ = classes(1)
    deployment = compile(network(**options), calibration=events, reading=reading)
    twin = QuantizedTwin(deployment)
    assert torch.equal(twin(events), deployment.run(events).scores)
    assert torch.equal(twin.deploy().run(events).scores, deployment.run(events).scores)


class Spike(torch.autograd.Function):
    """1 above the threshold, with the triangle as derivative."""

    @staticmethod
    def forward(ctx, v, threshold):
        ctx.save_for_backward(v, threshold)
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        v, threshold = ctx.saved_tensors
        return grad * HEIGHT * (1 - (v / threshold - 1).abs() / HALF_WIDTH).clamp(min=0) / threshold, None


def by_autograd(deployment, weights, raster):
    """The scores by plain torch operations, each step's numbers moved to the chip's: gradients go straight through."""
    chip, x = simulate(deployment.network, raster), {"input": list(raster.double())}
    spikes = {}
    for neurons in deployment.network.neurons:
        name = neurons.name
        onto = [(k, each) for k, each in enumerate(deployment.network.projections) if each.target == name]
        alpha, beta = 1 - (neurons.du.double() + 1) / 4096, 1 - neurons.dv.double() / 4096
        u = v = torch.zeros(raster.shape[1], neurons.size, dtype=torch.float64)
        exact_v = neurons.v.expand_as(v)
        x[name], voltages = [], []
        for t in range(len(raster)):
            a = torch.zeros_like(u)
            for k, each in onto:
                delay = torch.zeros_like(each.weight) if each.delay is None else each.delay
                for d in delay.unique().tolist():
                    if t - 1 - d >= 0:
                        a = a + x[each.source][t - 1 - d] @ (weights[k] * (delay == d)) * 2.0**each.weight_exp
            u = alpha * u + 64 * a
            u = u + (chip.u[name][t] - u).detach()
            full = (
                torch.div(exact_v.long() * (4096 - neurons.dv.long()), 4096, rounding_mode="trunc")
                + chip.u[name][t]
                + neurons.bias
            )
            v = beta * v + u
            v = v + (full - v).detach()
            s = Spike.apply(v, (neurons.vth << 6).double())
            v = v * (1 - s.detach())
            exact_v = chip.v[name][t]
            x[name].append(s)
            voltages.append(v)
        spikes[name] = torch.stack(x[name])
    return torch.stack(voltages), spikes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, DELAYED, {"recurrent": True}])
def test_gradient_is_that_of_autograd_through_the_same_steps(options, backend):
    events, labels = classes(2, batch=6, duration=0.05)
    deployment = compile(network(1, **options), calibration=events, reading="mean")
    twin = QuantizedTwin(deployment)
    for stage in twin.stages:
        stage.backend = backend
    nn.functional.cross_entropy(100 * twin(events), labels).backward()
    weights = [w.detach().double().requires_grad_() for w in twin.weights]
    v, _ = by_autograd(deployment, weights, deployment.raster(events))
    volts = torch.tensor(deployment.reading.volts, dtype=torch.float64)
    ends = torch.ones(len(v), dtype=torch.float64)
    ends[0] = ends[-1] = 0.5
    scores = (v * volts * ends[:, None, None]).sum(0) / (len(v) - 1)
    assert torch.allclose(scores, twin(events), rtol=1e-9)
    nn.functional.cross_entropy(100 * scores, labels).backward()
    for mine, theirs in zip(twin.weights, weights, strict=True):
        assert float(theirs.grad.abs().max()) > 0
        assert torch.allclose(mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4 * float(theirs.grad.abs().max()))


def test_it_learns_what_the_network_did_not_know():
    (events, labels), unseen = classes(3, batch=48), classes(4, batch=48)
    deployment = compile(network(4, **DELAYED), calibration=events, reading="mean")
    lines = []
    better = finetune(
        deployment, [(events, labels)] * 8, epochs=3, learning_rate=4.0, validation=unseen, say=lines.append
    )
    assert share_right(better, *unseen) >= max(0.9, share_right(deployment, *unseen) + 0.1)
    assert len(lines) == 4 and "validation accuracy" in lines[-1]
    assert all(bool((each.weight % 2 == 0).all()) for each in better.network.projections)


def test_a_weight_that_goes_to_and_fro_is_frozen():
    events, _ = classes(5, batch=2)
    twin = QuantizedTwin(compile(network(), calibration=events, reading="mean"))
    start = twin.weights[0].detach().clone()
    for k in range(40):
        with torch.no_grad():
            twin.weights[0][0, 0] = float(start[0, 0]) + (2.0 if k % 2 else 0.0)
            twin.weights[0][0, 1] = float(start[0, 1]) + 0.1 * k  # goes one way: it is learning
        twin.after_step_()
    assert bool(twin.frozen_0[0, 0]) and int(twin.frozen_0.sum()) == 1
    assert float(twin.weights[0].detach()[0, 0]) % 2 == 0


def test_synapses_that_a_mask_leaves_out_stay_out():
    events, labels = classes(7, batch=8)
    mask = torch.rand(12, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    deployment = compile(network(mask=mask), calibration=events, reading="mean")
    tuned = finetune(deployment, [(events, labels)] * 4, epochs=1, learning_rate=8.0)
    before, after = (each.network.projections[0].weight for each in (deployment, tuned))
    assert not bool(after[~mask].any()) and not torch.equal(before, after)
    assert (
        "weight_sqnr_db" in deployment.log.errors["hidden_0"] and "weight_sqnr_db" not in tuned.log.errors["hidden_0"]
    )
    with pytest.raises(ValueError, match="expected some to train with"):
        finetune(deployment, [], epochs=1)


def test_first_spikes_are_refused():
    events, _ = classes(6, batch=2)
    with pytest.raises(ValueError, match="has no gradient here"):
        QuantizedTwin(compile(network()[:2], calibration=events))
