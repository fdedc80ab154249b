"""Codes: how they are drawn, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from eventnet.layers.codes import Codes


def test_random_codes_hold_each_unit_equally_often():
    for active in (3, 15, 28):
        units = Codes.random(6000, 30, active, generator=torch.Generator().manual_seed(13)).units.reshape(6000, active)
        assert (units.sort(1).values.diff(dim=1) > 0).all()
        share = torch.bincount(units.flatten(), minlength=30) / 6000
        p = active / 30
        assert (share - p).abs().max() < 4.5 * math.sqrt(p * (1 - p) / 6000)  # 30 units
    assert Codes.random(2, 5, 0).to_list() == [[], []] and Codes.random(1, 4, 4).to_list() == [[0, 1, 2, 3]]
    assert Codes.random(0, 4, 2).batch_size == 0


def test_bad_packing_is_refused():
    units, wrong = torch.tensor([1, 2]), torch.tensor([0, 1])
    for offsets in (wrong, torch.tensor([0, 3, 2]), torch.tensor([], dtype=torch.int64), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="offsets must ascend from 0 to the number of active units, 2"):
            Codes(units, offsets, 5)
    with pytest.raises(TypeError, match=r"units must be a one-dimensional tensor of integers, got torch\.float32"):
        Codes(units.float(), torch.tensor([0, 2]), 5)
    with pytest.raises(TypeError, match="got list; from_list takes lists"):
        Codes([1, 2], torch.tensor([0, 2]), 5)
    with pytest.raises(TypeError, match=r"integers, got torch\.complex64"):
        Codes(units.to(torch.complex64), torch.tensor([0, 2]), 5)
    for num_units in (-1, 5.5):
        with pytest.raises(ValueError, match=f"num_units must be a whole number, 0 or more, got {num_units}"):
            Codes(units[:0], torch.tensor([0]), num_units)
    with pytest.raises(ValueError, match="0 <= active <= num_units"):
        Codes.random(1, 5, 6)
