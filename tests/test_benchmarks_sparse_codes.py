"""The benchmark of sparse codes at a small size: what is compared is equal, what is drawn is what theory says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import sparse_codes

from eventnet.layers.codes import Codes
from eventnet.layers.segments import SegmentPool

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"UNITS": 400, "SLICE": 20, "SEGMENTS": 60, "POOL": 400, "CODES": 100}.items():
        monkeypatch.setattr(sparse_codes, name, value)


def test_the_slice_of_the_dense_product_is_what_the_pool_counts():
    generator = torch.Generator().manual_seed(0)
    pool = SegmentPool(60, 400, 10)
    pool.learn(range(60), Codes.random(60, 400, 40, generator=generator), 10, generator=generator)
    codes = Codes.random(5, 400, 100, generator=generator)
    seconds, overlap = sparse_codes.dense(codes.units.reshape(5, 100), pool)
    assert seconds > 0 and torch.equal(overlap, pool(codes)[:, :20])


def test_points_are_where_theory_has_them():
    generator = torch.Generator().manual_seed(0)
    found = [
        sparse_codes.false_matches(300, 64, 24, 8, generator),
        sparse_codes.false_negatives(1000, 128, 30, 12, 76, generator),
        *sparse_codes.unions(500, 40, 10, 3, 3, generator)[:1],
    ]
    for each in found:
        assert 0.001 < each["theory"] < 0.9
        assert abs(each["share"] - each["theory"]) < 1.5 * each["error"]
