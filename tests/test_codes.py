"""Codes: how they are drawn, and what is refused."""

from __future__ import annotations

import math

import numpy as np
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
        with pytest.raises(ValueError, match=f"num_units must be a whole number, at least 0, got {num_units}"):
            Codes(units[:0], torch.tensor([0]), num_units)
    with pytest.raises(ValueError, match="0 <= active <= num_units"):
        Codes.random(1, 5, 6)
    for arguments in ((1.5, 5, 2), (1, 5.0, 2), (1, 5, 2.0), (-1, 5, 2), (1, 5, -2)):
        with pytest.raises(ValueError, match=r"Codes\.random: .* must be a whole number, at least 0, got"):
            Codes.random(*arguments)


@pytest.mark.parametrize(
    "codes", [[3, 5, 8], torch.tensor([3, 5, 8]), np.array([3, 5, 8]), [[3], 5], torch.tensor([[[3, 5], [8, 9]]])]
)
def test_a_code_is_a_list_in_a_list(codes):
    with pytest.raises(
        TypeError, match=r"code \d has shape .*; expected a list of units .* \[\[3, 5, 8\]\] for one code"
    ):
        Codes.from_list(codes, 10)


def test_whole_numbers_may_be_of_numpy():
    codes = Codes.random(np.uint8(3), np.uint8(200), np.uint8(150), generator=torch.Generator().manual_seed(0))
    assert codes.sizes().tolist() == [150] * 3 and type(codes.num_units) is int
    assert Codes.from_list([np.array([3, 5]), np.array([], dtype=int)], np.int64(9)).to_list() == [[3, 5], []]
