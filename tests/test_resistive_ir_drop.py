"""Wires: the first order against the nodal solution in its range, that one against circuits solved by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64, numbers
from torch import Tensor

from eventnet.hardware.resistive import seeded
from eventnet.hardware.resistive.ir_drop import FIRST_ORDER, drop, ir_drop, ir_drop_nodal


def arrays(kind: str, rows: int, columns: int) -> Tensor:
    torch.manual_seed(rows)
    shape = (rows, columns)
    return (
        40e-6
        * {
            "full": torch.ones(shape, dtype=F64),
            "uniform": torch.rand(shape, dtype=F64),
            "sparse": (torch.rand(shape) < 0.3).to(F64),
            "graded": torch.rand(rows, 1, dtype=F64) * torch.rand(1, columns, dtype=F64),
        }[kind]
    )


@pytest.mark.parametrize("kind", ["full", "uniform", "sparse", "graded"])
@pytest.mark.parametrize("rows, columns", [(4, 4), (16, 16), (64, 64), (100, 100), (8, 48), (48, 8)])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_first_order_is_within_a_hundredth_of_the_nodal_solution_in_its_range(rows, columns, kind, share):
    conductance = arrays(kind, rows, columns)
    resistance = share * FIRST_ORDER / drop(conductance, 1.0).max().item()
    exact, found = ir_drop_nodal(conductance, resistance), ir_drop(conductance, resistance)
    assert (found - exact).abs().max() <= 0.01 * exact.max()
    for x in (torch.ones(1, rows, dtype=F64), numbers(20, rows).abs(), numbers(20, rows)):
        scale = (x.abs() @ exact).norm(dim=-1)  # without what cancels
        assert ((x @ (found - exact)).norm(dim=-1) <= 0.01 * scale).all()
    ideal_error = (x.abs() @ (conductance - exact)).norm(dim=-1)
    assert ((x @ (found - exact)).norm(dim=-1) < 0.15 * ideal_error).all()


def test_the_range_in_cells():
    assert (
        drop(torch.full((119, 119), 40e-6), 0.35).max() <= FIRST_ORDER < drop(torch.full((120, 120), 40e-6), 0.35).max()
    )


def test_to_first_order_the_error_is_of_second_order():
    conductance = arrays("uniform", 12, 9)
    errors = [(ir_drop(conductance, r) - ir_drop_nodal(conductance, r)).abs().max().item() for r in (8.0, 4.0, 2.0)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_nodal_solution_of_arrays_that_are_solved_by_hand():
    one = torch.tensor([[0.5]], dtype=F64)
    torch.testing.assert_close(ir_drop_nodal(one, 0.3), torch.tensor([[1 / (2 + 0.6)]], dtype=F64))
    # One row, two cells behind one another: node voltages u, v with conductances g to columns of one segment each.
    g, h, r = 0.5, 0.8, 0.3
    a, b = 1 / (1 / g + r), 1 / (1 / h + r)
    v_over_u = 1 / (1 + r * b)
    u = 1 / (1 + r * (a + b * v_over_u))
    expected = torch.tensor([[a * u, b * u * v_over_u]], dtype=F64)
    torch.testing.assert_close(ir_drop_nodal(torch.tensor([[g, h]], dtype=F64), r), expected)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 100), st.floats(1e-3, 1e4))
def test_nodal_solution_obeys_reciprocity_and_conserves_current(rows, columns, seed, resistance):
    conductance = 40e-6 * torch.rand(rows, columns, generator=seeded(seed), dtype=F64)
    exact = ir_drop_nodal(conductance, resistance)
    torch.testing.assert_close(ir_drop_nodal(conductance.t(), resistance), exact.t(), rtol=1e-6, atol=1e-15)
    assert (exact > 0).all()
    assert exact.sum() <= conductance.sum() * (1 + 1e-9)
    torch.testing.assert_close(ir_drop(conductance.t(), resistance), ir_drop(conductance, resistance).t())


def test_without_resistance_nothing_drops():
    conductance = arrays("uniform", 5, 6)
    assert torch.equal(ir_drop(conductance, 0.0), conductance)
    assert torch.equal(ir_drop_nodal(conductance, 0.0), conductance)


def test_unused_cells_of_an_array_change_nothing():
    conductance = arrays("uniform", 5, 6)
    larger = torch.nn.functional.pad(conductance, (0, 3, 0, 4))
    torch.testing.assert_close(ir_drop(larger, 10.0)[:5, :6], ir_drop(conductance, 10.0))
    torch.testing.assert_close(ir_drop_nodal(larger, 10.0)[:5, :6], ir_drop_nodal(conductance, 10.0))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: ir_drop(torch.tensor([[-1.0]])), "conductances >= 0"),
        (lambda: ir_drop_nodal(torch.tensor([[torch.nan]])), "conductances >= 0"),
        (lambda: ir_drop(torch.ones(2, 2), -0.1), "wire resistance"),
        (lambda: ir_drop_nodal(torch.ones(2)), "\\(rows, columns\\), got \\(2,\\)"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()
