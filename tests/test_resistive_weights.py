"""Random weights and their spectral radius, against eigenvalues."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64, one

from eventnet.hardware.resistive.echo_state import EchoState
from eventnet.hardware.resistive.weights import check_weights, random_weights, spectral_radius


def test_weights_come_from_the_seed():
    first, again, other = (random_weights(30, 20, seed, density=0.3) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert 0.2 < (first[0] != 0).double().mean() < 0.4 and bool((first[1] != 0).all())
    assert torch.equal(random_weights(30, 20, 0, density=0.3, dtype=F64)[0].float(), first[0])


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_spectral_radius_is_that_of_the_eigenvalues(seed, size):
    matrix = torch.randn(size, size, dtype=F64, generator=torch.Generator().manual_seed(seed))
    assert spectral_radius(matrix) == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=3e-6)


def test_spectral_radius_of_special_matrices():
    shift = torch.diag(torch.ones(9), 1)
    angle = torch.tensor(0.7)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    assert spectral_radius(shift) == 0.0
    assert spectral_radius(1e-30 * torch.eye(3)) == pytest.approx(1e-30, rel=1e-5)
    assert spectral_radius(3 * turn) == pytest.approx(3.0, rel=1e-5)
    assert spectral_radius(torch.tensor([[1.0, 1e6], [0.0, 1.0]])) == pytest.approx(1.0, rel=1e-5)


def test_radius_is_reached():
    reservoir = one(out=40, radius=1.3)
    assert float(torch.linalg.eigvals(reservoir.recurrent_weight).abs().max()) == pytest.approx(1.3, rel=1e-5)
    network = EchoState.random(2, 40, seed=0, radius=0.7)
    assert float(torch.linalg.eigvals(network.recurrent_weight).abs().max()) == pytest.approx(0.7, rel=1e-5)
    assert bool((EchoState.random(2, 10, seed=0, radius=0.0).recurrent_weight == 0).all())


def test_errors():
    with pytest.raises(ValueError, match="a density is a share"):
        random_weights(3, 3, 0, density=1.5)
    with pytest.raises(ValueError, match="square"):
        spectral_radius(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        spectral_radius(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="radius 0"):
        random_weights(3, 4, 0, recurrent_density=0.0, radius=1.0)
    assert random_weights(3, 4, 0, recurrent_density=0.0, radius=0.0)[1].eq(0).all()
    for radius in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"radius: expected a number >= 0, finite, or None, got {radius}"):
            random_weights(3, 4, 0, radius=radius)
    with pytest.raises(TypeError, match="one dtype on one device"):
        check_weights("net", torch.zeros(2, 3), torch.zeros(3, 3, dtype=F64))
