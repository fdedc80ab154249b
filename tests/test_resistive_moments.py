"""Sums over batches keep their digits."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import problem

from eventnet.hardware.resistive.moments import Moments


@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_sums_keep_their_digits_far_from_zero(offset, seed):
    x, _, y = problem(30, 5, seed)
    parts = [Moments.of(x[a:b] + offset, y[a:b]) for a, b in ((0, 1), (1, 1), (1, 20), (20, 30))]
    total = parts[0]
    for part in parts[1:]:
        total = total.with_(part)
    centred = x - x.mean(0)
    assert total.count == 30
    assert torch.allclose(total.xx, centred.T @ centred, rtol=1e-7, atol=1e-6)
    assert torch.allclose(total.xy, centred.T @ (y - y.mean(0)), rtol=1e-7, atol=1e-6)
    assert torch.allclose(total.spread(), x.std(0, correction=0), rtol=1e-7)
