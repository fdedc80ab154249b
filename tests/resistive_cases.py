"""Cells, layers, reservoirs and samples that several tests of resistive memory share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import F64, random_events
from torch import Tensor, nn

from eventnet.hardware.resistive import EchoState, Reservoir

without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=without_cuda)])
MICRO, DAY, DRAWS = 1e-6, 86_400.0, 40_000


def full(value: float, size: int = DRAWS) -> Tensor:
    return torch.full((size,), value, dtype=F64)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear(inputs: int = 70, out: int = 9, bias: bool = True, seed: int = 0, dtype: torch.dtype = F64) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, out, bias, dtype=dtype)


PENALTIES = (1e-3, 0.1, 1.0, 10.0, 1e3)
SHAPES = [(60, 8), (12, 30), (25, 25)]  # more samples, more features, as many


def problem(samples=60, features=8, seed=0, classes=3):
    """Features of different sizes and offsets, class numbers, and numbers that depend on the features."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, features, dtype=F64, generator=generator)
    weight = torch.randn(features, classes, dtype=F64, generator=generator)
    noisy = x @ weight + 2 * torch.randn(samples, classes, dtype=F64, generator=generator)
    x = x * torch.logspace(-1, 1, features, dtype=F64) + torch.linspace(-3, 5, features, dtype=F64)
    labels = noisy.argmax(1)
    labels[:classes] = torch.arange(classes)  # each is there
    return x, labels, noisy + 10


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(np.asarray(expected), dtype=F64)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


DT = 2e-3


def drawn(seed=0, counts=(40, 0, 25, 60), num_units=6, duration=0.05, **options):
    return random_events(torch.Generator().manual_seed(seed), list(counts), num_units, duration, **options)


def one(inputs=6, out=5, seed=0, **options):
    given = {"dt": DT, "decay": 0.8, "threshold": 1.0, "gain": 0.5} | options
    return Reservoir.random(inputs, out, seed, dtype=F64, **given)


def echo(inputs=3, out=7, **options):
    return EchoState.random(inputs, out, seed=0, dtype=F64, **({"leak": 0.3, "bias": 0.2, "gain": 0.5} | options))
