"""Speed rows: products that are timed compute the same, the table names bounds and machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_speed as speed
from measure import Seconds

pytestmark = pytest.mark.usefixtures("one_thread")


def test_products_and_table(monkeypatch):
    made = {}

    def once(call, **options):
        made[len(made)] = call()
        return Seconds(1e-3 * (1 + len(made)), 2e-3 * (1 + len(made)), 5)

    monkeypatch.setattr(speed, "seconds", once)
    rows = speed.products(((4, 30, 7),))
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(made[0], made[2]) and made[2].shape == (4, 7)
    features = [{"data": "16 x 16", "samples": 1000, "units": 1000, "spikes": 5.0, "best": 3.0, "median": 4.0}]
    where = {"cpu": "one", "cores": 2}
    text = speed.table({"threads": 2, "features": features, "products": rows, "machine": where})
    assert "on one, 2 cores, 2 threads" in text and "| 3 / 4 s |  | 10 s |" in text
    assert "ideal crossbar | 0.003 / 0.006 s | 1.5 / 1.5x the plain product's 2 ms | 3x |" in text
