"""Random numbers of chips: in parts as at once, streams of a seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64

from eventnet.hardware.resistive import HFOX, seeded
from eventnet.hardware.resistive.draws import normals


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 40))
def test_rows_drawn_in_parts_are_those_drawn_at_once(parts, columns):
    like = torch.zeros((), dtype=F64)
    generator = seeded(0)
    found = torch.cat([normals((rows, columns), generator, like) for rows in parts])
    assert torch.equal(found, normals((sum(parts), columns), seeded(0), like))


def test_streams_of_a_seed_differ():
    first = [torch.rand(1, generator=seeded(*each)).item() for each in ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0))]
    assert len(set(first)) == len(first)
    with pytest.raises(ValueError, match="seeds >= 0, got -1"):
        seeded(-1)


def test_seeds_of_numpy_are_those_of_python():
    assert torch.rand(3, generator=seeded(np.int64(7), 1)).equal(torch.rand(3, generator=seeded(7, 1)))


def test_a_seed_is_no_generator():
    with pytest.raises(TypeError, match=r"expected a generator that draws the noise, as seeded\(0\), got 3"):
        normals((2,), 3, torch.zeros(()))
    with pytest.raises(TypeError, match="a generator"):
        HFOX.program(torch.tensor([20e-6]), 0)
