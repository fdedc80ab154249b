"""Layers that hear far more than they say: their delayed synapses get their gradients impulse by impulse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import needs_compiled
from torch import Tensor

from eventnet import Events, lif

pytestmark = needs_compiled

INPUTS, NEURONS = 37, 18  # whole vectors of neither
TAUS = {"apart": (20e-3, 5e-3), "near": (10e-3, 9.8e-3), "equal": (10e-3, 10e-3), "slow synapses": (6e-3, 15e-3)}


def draw(
    kind: str, longest: float, taus: str = "apart", dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], Events]:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    given = {"weight": (random(INPUTS, NEURONS) - 0.4) * 6e-3 / TAUS[taus][1]}  # about as many spikes with all of them
    given["delay"] = longest * random(1 if kind == "dendritic" else INPUTS, NEURONS)
    if kind == "recurrent":
        given["recurrent_weight"] = 0.2 * (random(NEURONS, NEURONS) - 0.5)
        given["recurrent_delay"] = 5e-3 * random(NEURONS, NEURONS)
    durations = torch.tensor([0.3, 0.2, 0.25], dtype=torch.float64)
    samples = [
        ((random(n) * d).sort().values, torch.randint(INPUTS, (n,), generator=generator))
        for n, d in zip((300, 0, 250), durations.tolist(), strict=True)
    ]
    events = Events.from_list(samples, INPUTS, durations, dtype=torch.float64)
    events = replace(events, values=0.5 + random(550))
    return {name: x.to(dtype) for name, x in given.items()}, events.to(dtype)


def run(given: dict[str, Tensor], events: Events, **options) -> tuple[Events, dict[str, Tensor]]:
    leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
    spikes = lif(events, **leaves, **options)
    (spikes.times.sin() * torch.linspace(-1, 1, spikes.num_events, dtype=spikes.times.dtype)).sum().backward()
    return spikes, {name: x.grad for name, x in leaves.items()}


def assert_close(mine: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    for name, right in theirs.items():
        error = ((mine[name] - right).norm() / right.norm()).item()
        assert error <= tolerance, f"{name}: {error:.1e}"


slow = pytest.mark.slow


@pytest.mark.parametrize("longest", [pytest.param(0.0, marks=slow), 8e-3, pytest.param(40e-3, marks=slow)])
@pytest.mark.parametrize("kind", ["synaptic", "dendritic", pytest.param("recurrent", marks=slow)])
@pytest.mark.parametrize("taus", TAUS)
def test_gradients_are_those_of_the_reference(taus, kind, longest):
    given, events = draw(kind, longest, taus)
    options = dict(zip(("tau_mem", "tau_syn"), TAUS[taus], strict=True))
    fast, mine = run(given, events, **options, backend="cpu")
    slow, theirs = run(given, events, **options, backend="reference")
    assert 20 < slow.num_events < events.num_events / 3
    torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-11)
    assert_close(mine, theirs, 1e-8)


def test_gradients_of_a_recurrent_layer_are_those_of_the_reference():
    given, events = draw("recurrent", 8e-3)
    events = events[2:]
    slow, theirs = run(given, events, backend="reference")
    _, mine = run(given, events, backend="cpu")
    assert 10 < slow.num_events < events.num_events / 3
    assert_close(mine, theirs, 1e-8)


@pytest.mark.parametrize("longest", [8e-3, 40e-3])
def test_refractory_periods_masks_and_initial_states(longest):
    given, events = draw("synaptic", longest)
    mask = torch.rand(INPUTS, NEURONS, generator=torch.Generator().manual_seed(0)) < 0.9
    options = {"refractory": 4e-3, "mask": mask, "bias": 0.2, "initial_voltage": 0.5, "initial_current": 1.0}
    _, mine = run(given, events, **options, backend="cpu")
    slow, theirs = run(given, events, **options, backend="reference")
    assert 20 < slow.num_events < events.num_events / 3
    assert_close(mine, theirs, 1e-8)
    assert not mine["weight"][~mask].any() and not mine["delay"][~mask].any()


@pytest.mark.parametrize("longest", [8e-3, 40e-3])
@pytest.mark.parametrize("taus", TAUS)
def test_float32_is_the_other_way_but_for_rounding(taus, longest):
    """Gradients of input times need every arrival looked up: a way of its own to the same gradients."""
    given, events = draw("synaptic", longest, taus, torch.float32)
    options = dict(zip(("tau_mem", "tau_syn"), TAUS[taus], strict=True))
    _, mine = run(given, events, **options)
    _, theirs = run(given, events.retime(events.times.clone().requires_grad_()), **options)
    assert any(not mine[name].equal(right) for name, right in theirs.items())  # two ways indeed
    assert_close(mine, theirs, 3e-5)


@pytest.mark.parametrize("longest", [1e-3, 30e-3])
@pytest.mark.parametrize("taus", TAUS)
def test_a_long_silence_leaves_the_gradients_finite(taus, longest):
    given, events = draw("synaptic", longest, taus)
    late = Events.cat([events[:1].crop(0.0, 0.3).shift(60.0)])
    late = replace(late, duration=torch.tensor([60.3], dtype=torch.float64))
    options = dict(zip(("tau_mem", "tau_syn"), TAUS[taus], strict=True))
    _, mine = run(given, late, **options, backend="cpu")
    _, theirs = run(given, events[:1], **options, backend="cpu")
    for name, right in theirs.items():
        assert torch.isfinite(mine[name]).all()
        assert right.any()


def test_more_threads_repeat_bit_for_bit():
    given, events = draw("synaptic", 8e-3, dtype=torch.float32)
    events = Events.cat([events] * 4)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(run(given, events)[1])
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for a, b in zip(results[1].values(), results[2].values(), strict=True))
    assert_close(results[1], results[0], 1e-5)


@pytest.mark.parametrize("name", ["weight", "delay"])
def test_gradients_are_differences(name):
    given, events = draw("synaptic", 8e-3)
    spikes, grads = run(given, events)
    way = torch.randn(given[name].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = 1e-7 if name == "weight" else 1e-10

    def loss(step: float) -> Tensor:
        moved = lif(events, **(given | {name: given[name] + step * scale * way}))
        assert moved.units.equal(spikes.units)
        return (moved.times.sin() * torch.linspace(-1, 1, moved.num_events, dtype=torch.float64)).sum()

    given["delay"] = given["delay"] + 1e-6  # no delay becomes negative
    spikes, grads = run(given, events)
    numeric = (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))).item() / (12 * scale)
    exact = (grads[name] * way).sum().item()
    assert abs(numeric - exact) <= 1e-6 * abs(exact)
