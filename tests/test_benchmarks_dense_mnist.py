"""The benchmark of a convolutional network with a spiking layer: both codings learn, the best epoch on validation is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import dense_mnist
from dense_mnist import Images

pytestmark = pytest.mark.usefixtures("one_thread")


def images(count: int) -> Images:
    """A bright patch in one of ten places."""
    labels = torch.arange(count) % 10
    x = 0.3 * torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(count))
    for row, label in zip(x, labels.tolist(), strict=True):
        row[0, 2 + 12 * (label // 5) :, 5 * (label % 5) :][:10, :6] += 0.7
    return Images(x, labels)


@pytest.mark.parametrize("coding", dense_mnist.CODINGS)
def test_learns(coding, capsys):
    parts = {"train": images(1000), "validation": images(100), "test": images(200)}
    found = dense_mnist.train(coding, parts, epochs=5, seed=0)
    assert found["test_accuracy"] > 0.5 and found["spikes_per_image"] > 10
    assert len(found["validation_accuracy"]) == 5 and "validation" in capsys.readouterr().out
