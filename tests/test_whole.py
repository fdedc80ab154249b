"""Whole numbers of all types are taken; what only looks like one is refused by its name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eventnet.layers.whole import whole_at_least


@pytest.mark.parametrize("x", [3, np.int32(3), np.uint8(3), torch.tensor(3), torch.tensor([3])])
def test_whole_numbers_become_ints(x):
    assert type(whole_at_least(3, x, "size")) is int and whole_at_least(3, x, "size") == 3


@pytest.mark.parametrize("x", [2, -3, 3.0, np.float64(3), "3", None, torch.tensor(3.0), torch.tensor([3, 4])])
def test_others_are_refused_by_name(x):
    with pytest.raises(ValueError, match=r"size must be a whole number, at least 3, got "):
        whole_at_least(3, x, "size")
