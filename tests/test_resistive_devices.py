"""Resistive cells: the order of their effects, levels, a seed is a chip."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import DAY, F64, MICRO, full, on_every_device

from eventnet.hardware import resistive
from eventnet.hardware.resistive import HFOX, PCM, Cell, Drift, FlickerNoise, ReadNoise, Spread, Stuck, seeded
from eventnet.hardware.resistive.effects import HFO2_STUCK, PCM_PROGRAMMING


def test_conductance_is_never_negative():
    written = PCM.program(full(0.0), seeded(0)).at(0.0)
    assert written.min() == 0
    assert (written == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_cell_without_read_noise_reads_what_it_holds():
    chip = Cell().program(full(10e-6, 4), seeded(0))
    assert chip.read_sigma(0.0) is None
    assert torch.equal(chip.read(0.0, seeded(0)), chip.at(0.0))


def test_stuck_cells_do_not_drift():
    found = Cell(25e-6, drift=Drift(), stuck=Stuck(on=0.5)).program(full(20e-6), seeded(0))
    stuck = found.at(0.0) == 25e-6
    assert torch.equal(found.at(1e6)[stuck], found.at(0.0)[stuck])
    assert bool((found.at(1e6)[~stuck] < 20e-6).all())


def test_levels():
    target = torch.linspace(1e-6, 41e-6, 1001, dtype=F64)
    cell = Cell(41e-6, 1e-6, levels=5)
    found = cell.program(target, seeded(0)).at()
    torch.testing.assert_close(found.unique() / MICRO, torch.tensor([1.0, 11, 21, 31, 41], dtype=F64))
    assert (found - target).abs().max() <= 5e-6 * (1 + 1e-9)
    torch.testing.assert_close(cell.program(found.clamp(max=41e-6), seeded(0)).at(), found)


def test_what_belongs_to_the_chip_is_the_same_at_every_writing():
    cell = Cell(25e-6, programming=PCM_PROGRAMMING, drift=Drift(), stuck=HFO2_STUCK, read=FlickerNoise())
    first, second = (cell.program(full(20e-6, 1000), seeded(0), seeded(0, cycle)) for cycle in (1, 2))
    assert first.exponents is not None and second.exponents is not None
    assert first.stuck is not None and second.stuck is not None
    assert torch.equal(first.exponents, second.exponents)
    torch.testing.assert_close(first.stuck, second.stuck, equal_nan=True)
    assert not torch.equal(first.at(), second.at())


EVERYTHING = Cell(
    25e-6, 1e-6, 16, Spread(0.1, 0.1), PCM_PROGRAMMING, Drift(), Stuck(0.02, 0.09), FlickerNoise()
)  # fmt: skip


def test_a_seed_is_a_chip_on_any_number_of_threads_and_in_any_dtype():
    target = torch.linspace(1e-6, 25e-6, 100_003, dtype=F64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            chip = EVERYTHING.program(target, seeded(7))
            found.append(torch.stack([chip.at(1e4), chip.read(1e4, seeded(9))]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], each) for each in found)
    single = EVERYTHING.program(target.float(), seeded(7)).at(1e4)
    off = ((single.double() - found[0][0]).abs() > 1e-5 * 25e-6).double().mean()
    assert off < 1e-3  # but for targets half-way between two levels
    assert not torch.equal(found[0][0], EVERYTHING.program(target, seeded(8)).at(1e4))


@given(st.floats(0, 1), st.floats(0, 2 * DAY), st.integers(0, 100))
def test_any_target_gives_finite_conductances_that_are_not_negative(g, age, seed):
    for cell in (HFOX, PCM, EVERYTHING, Cell()):
        target = cell.g_min + torch.full((3, 2), g) * (cell.g_max - cell.g_min)
        chip = cell.program(target, seeded(seed))
        for each in (chip.at(age), chip.read_sigma(age)):
            assert each is None or bool((torch.isfinite(each) & (each >= 0)).all() and each.shape == (3, 2))


def test_an_ideal_cell_holds_its_target():
    target = torch.rand(5, 3) * 40e-6
    assert torch.equal(Cell().program(target, seeded(0)).at(1e9), target)
    assert Cell().program(torch.tensor(1e-6), seeded(0)).at().shape == ()
    assert HFOX.program(torch.empty(0, 3), seeded(0)).at().shape == (0, 3)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: Cell().program(torch.tensor([41e-6]), seeded(0)), "expected 0 to 4e-05 S, got 4.1e-05"),
        (lambda: Cell(g_min=1e-6).program(torch.tensor([0.0]), seeded(0)), "expected 1e-06 to 4e-05 S, got 0"),
        (lambda: Cell().program(torch.tensor([-1e-6]), seeded(0)), "got -1e-06"),
        (lambda: Cell().program(torch.tensor([torch.nan]), seeded(0)), "got nan"),
        (lambda: PCM.program(full(1e-6, 1), seeded(0)).at(-1.0), "age: expected seconds since programming.*got -1"),
        (lambda: PCM.program(full(1e-6, 1), seeded(0)).read_sigma(math.nan), "age: expected.*got nan"),
        (lambda: Cell(g_min=2e-6, g_max=1e-6), "0 <= g_min < g_max"),
        (lambda: Cell(levels=1), "at least 2"),
        (lambda: Cell(levels=2.5), "whole number of at least 2, .*got 2.5"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_an_effect_of_another_kind_is_refused():
    for name, kind, value in [
        ("read", "ReadNoise or FlickerNoise", 0.01),
        ("programming", "ProgrammingNoise", ReadNoise()),
        ("drift", "Drift", 0.05),
        ("stuck", "Stuck", 0.1),
        ("spread", "Spread", 0.1),
    ]:
        with pytest.raises(TypeError, match=f"{name}: expected {kind}, or None, got"):
            Cell(**{name: value})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_as_noise_would_vanish_in_it(dtype):
    with pytest.raises(TypeError, match=f"expected float32 or float64, got {dtype}"):
        HFOX.program(torch.tensor([20e-6], dtype=dtype), seeded(0))


def test_a_target_that_rounding_puts_below_zero_is_zero():
    chip = Cell(g_max=25e-6, read=PCM.read).program(torch.tensor([-1e-12]), seeded(0))
    assert chip.at().item() == 0 and chip.read(20.0, seeded(1)).item() == 0


def test_a_chip_keeps_what_was_written_when_the_target_changes():
    target = full(1e-6, 3)
    chip = Cell().program(target, seeded(0))
    target.fill_(2e-6)
    assert torch.equal(chip.at(), full(1e-6, 3))


def test_the_package_has_few_names():
    assert len(set(resistive.__all__)) <= 30 and all(hasattr(resistive, name) for name in resistive.__all__)


def test_import_is_light():
    code = "import torch, numpy, sys; a = set(sys.modules); import eventnet.hardware.resistive; print(set(sys.modules) - a)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "'eventnet.hardware.resistive.ir_drop'" in found
    assert "'scipy'" not in found and "'matplotlib'" not in found


@on_every_device
def test_a_chip_is_the_same_on_any_device(device):
    target = torch.linspace(0, 25e-6, 1000, dtype=F64)
    cell = Cell(25e-6, 0.0, None, Spread(0.1, 0.1), PCM_PROGRAMMING, Drift(), Stuck(0.02, 0.09), FlickerNoise())
    here, there = (cell.program(each, seeded(7)) for each in (target, target.to(device)))
    assert there.at(1e4).device.type == device
    torch.testing.assert_close(there.at(1e4).cpu(), here.at(1e4))
    torch.testing.assert_close(there.read(1e4, seeded(9)).cpu(), here.read(1e4, seeded(9)))
