"""Measures of reservoirs, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from resistive_cases import F64, drawn, one

from eventnet import Events
from eventnet.hardware.resistive import measures
from eventnet.hardware.resistive.echo_state import EchoState


def noise(steps=3000, seed=0):
    return torch.rand(steps, dtype=F64, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize("length", [1, 4, 12])
def test_memory_of_a_delay_line_is_its_length(length):
    signal = noise()
    line = torch.stack([signal.roll(k) for k in range(1, length + 1)], 1)
    curve = measures.memory_curve(line, signal, 20)
    assert curve[:length].min() > 1 - 1e-9 and curve[length:].max() == 0
    assert measures.memory_capacity(line, signal, 20) == pytest.approx(length, abs=1e-9)
    mixed = line @ torch.randn(length, length, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert measures.memory_capacity(mixed, signal, 20) == pytest.approx(length, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_memory_of_a_memoryless_net_is_zero(seed):
    signal = noise(seed=seed)
    network = EchoState.random(1, 30, seed=seed, radius=0.0, bias=0.5, dtype=F64)
    assert measures.memory_capacity(network(signal[:, None, None])[:, 0], signal, 40) == 0


def test_memory_of_a_leaky_integrator_is_its_closed_form():
    """x = sum a^j u(t - j): the correlation with u(t - k) is a^k sqrt(1 - a^2), so MC_k = a^2k (1 - a^2)."""
    signal, a = noise(60_000), 0.7
    states, x = [], 0.0
    for u in signal.tolist():
        x = a * x + u
        states.append(x)
    curve = measures.memory_curve(torch.tensor(states, dtype=F64)[:, None], signal, 5)
    expected = torch.tensor([a ** (2 * k) * (1 - a * a) for k in range(1, 6)], dtype=F64)
    assert torch.allclose(curve, expected, atol=0.02)


def test_memory_is_at_most_the_number_of_states():
    signal = noise()
    network = EchoState.random(1, 20, seed=0, radius=0.95, gain=0.05, dtype=F64)
    assert 5 < measures.memory_capacity(network(signal[:, None, None])[:, 0], signal, 60) <= 20


def test_rank():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(12, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    assert measures.rank(low) == 3
    assert measures.rank(low + 1e-4 * torch.randn(12, 30, generator=generator)) == 12
    assert measures.rank(low + 1e-4 * torch.randn(12, 30, generator=generator), tolerance=1e-2) == 3
    assert measures.rank(torch.zeros(4, 3)) == 0 and measures.rank(torch.zeros(0, 3)) == 0
    assert measures.rank(torch.eye(5).long()) == 5


def test_reservoir_tells_inputs_apart_more_than_versions_of_one():
    events = drawn(4, (60,) * 24, 20, 0.1)
    reservoir = one(20, 100, radius=0.3)
    kernel = measures.rank(reservoir.features(events), tolerance=0.05)
    versions = measures.jittered(events[:1], 0.2e-3, seed=0, copies=24)
    assert kernel > measures.rank(reservoir.features(versions), tolerance=0.05)


def test_jitter():
    events = drawn(0, (50, 30))
    moved = measures.jittered(events, 1e-3, seed=1, copies=2)
    Events(moved.times, moved.units, moved.offsets, moved.num_units, moved.duration)  # runs its checks
    assert torch.equal(moved.counts(), events.counts().repeat(2, 1))
    assert 0.5e-3 < (moved[:2].times - events.times).std() < 1.2e-3
    assert torch.equal(measures.jittered(events, 1e-3, seed=1, copies=2).times, moved.times)
    assert torch.equal(measures.jittered(events, 0.0, seed=1).times, events.times)
    assert bool((measures.jittered(events, 1.0, seed=1).times < 0.05).all())


def test_separation():
    labels = torch.tensor([0, 0, 1, 1, 1])
    states = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    found = measures.separation(states, labels)
    assert (found.between, found.within) == pytest.approx((3 / 2, 0.5))
    assert found.ratio == pytest.approx(1.0)
    assert measures.separation(torch.ones(5, 2), labels).ratio == 0


def test_errors():
    with pytest.raises(ValueError, match=r"states \(T, N\) and inputs \(T,\)"):
        measures.memory_curve(torch.zeros(5, 2), torch.zeros(4), 1)
    with pytest.raises(ValueError, match="too few"):
        measures.memory_curve(torch.zeros(120, 30), torch.zeros(120), 10)
    with pytest.raises(ValueError, match="finite"):
        measures.rank(torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match=r"labels \(B,\)"):
        measures.separation(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="states are not finite"):
        measures.separation(torch.tensor([[math.nan]]), torch.zeros(1))
    with pytest.raises(ValueError, match="standard deviation"):
        measures.jittered(drawn(), -1.0, 0)
    with pytest.raises(ValueError, match="at least one copy, got 0"):
        measures.jittered(drawn(), 1e-3, 0, copies=0)
