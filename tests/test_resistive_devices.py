"""Resistive cells: every drawn number has the distribution that its publication gives, and a seed is a chip."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eventnet.hardware.resistive import (
    HFO2_STUCK,
    HFOX,
    HFOX_PROGRAMMING,
    PCM,
    PCM_PROGRAMMING,
    Cell,
    Drift,
    FlickerNoise,
    Forming,
    ProgrammingNoise,
    ReadNoise,
    Spread,
    Stuck,
    seeded,
)
from eventnet.hardware.resistive.draws import normals

MICRO, DAY, DRAWS = 1e-6, 86_400.0, 40_000
F64 = torch.float64
PUBLISHED = {  # age in seconds: ascending coefficients in microsiemens
    "hfox": (
        (HFOX_PROGRAMMING, 40, 1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
        (HFOX_PROGRAMMING, 40, DAY, (0.701, 22.086, -50.773, 47.095, -16.458)),
        (HFOX_PROGRAMMING, 40, 2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
    ),
    "pcm": ((PCM_PROGRAMMING, 25, 0.0, (0.26348, 1.9650, -1.1731)),),
}


def full(value: float, size: int = DRAWS) -> Tensor:
    return torch.full((size,), value, dtype=F64)


@pytest.mark.parametrize("g", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("noise, g_max, age, coefficients", [*PUBLISHED["hfox"], *PUBLISHED["pcm"]])
def test_programming_noise_is_the_published_polynomial(noise, g_max, age, coefficients, g):
    sigma = sum(c * g**k for k, c in enumerate(coefficients))
    drawn = Cell(g_max * MICRO, programming=noise).program(full(g * g_max * MICRO), seeded(0)).at(age) / MICRO
    assert drawn.std().item() == pytest.approx(sigma, rel=0.03)
    assert drawn.mean().item() == pytest.approx(g * g_max, abs=0.03 * sigma)


def test_programming_noise_scales_with_the_range_of_the_cells():
    g = torch.linspace(0, 1, 11, dtype=F64)
    torch.testing.assert_close(PCM_PROGRAMMING.sigma(g, 50e-6), 2 * PCM_PROGRAMMING.sigma(g, 25e-6))


def test_between_measured_ages_the_noise_is_interpolated_and_a_cell_keeps_its_side():
    g = torch.tensor([0.3, 0.8], dtype=F64)
    at = {age: HFOX_PROGRAMMING.sigma(g, 40e-6, age) for age in (0.0, 1.0, math.sqrt(DAY), DAY, 2 * DAY)}
    torch.testing.assert_close(at[0.0], at[1.0])
    torch.testing.assert_close(at[math.sqrt(DAY)], (at[1.0] + at[DAY]) / 2)
    chip = HFOX.program(full(20e-6, 100), seeded(0))
    assert torch.equal(chip.at(1.0) > 20e-6, chip.at(DAY) > 20e-6)
    assert not torch.equal(chip.at(1.0), chip.at(DAY))
    with pytest.raises(ValueError, match="measured up to 172800 s"):
        chip.at(3 * DAY)


def test_conductance_is_never_negative():
    written = PCM.program(full(0.0), seeded(0)).at(0.0)
    assert written.min() == 0
    assert (written == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("g", [0.01, 0.2, 1.0])
def test_drift_exponents_and_what_is_left(g):
    mean = min(max(-0.0155 * math.log(g) + 0.0244, 0.049), 0.1)
    std = min(max(-0.0125 * math.log(g) - 0.0059, 0.008), 0.045)
    chip = Cell(25e-6, drift=Drift()).program(full(g * 25e-6), seeded(1))
    assert chip.exponents is not None and chip.exponents.min() >= 0
    folded = std * math.sqrt(2 / math.pi) * math.exp(-((mean / std) ** 2) / 2) + mean * math.erf(
        mean / std / math.sqrt(2)
    )
    assert chip.exponents.mean().item() == pytest.approx(folded, rel=0.03)
    assert chip.exponents.std().item() == pytest.approx(math.sqrt(mean**2 + std**2 - folded**2), rel=0.03)
    assert torch.equal(chip.at(0.0), chip.at(20.0))
    torch.testing.assert_close(chip.at(2000.0) / chip.at(20.0), 100**-chip.exponents)
    torch.testing.assert_close(chip.at(2e5) / chip.at(2000.0), 100**-chip.exponents)


@pytest.mark.parametrize(
    "read, expected",
    [
        (ReadNoise(0.01), 0.01 * 10e-6),
        (ReadNoise(0.0, additive=3e-7), 3e-7),
        (ReadNoise(0.03, additive=4e-7), 5e-7),
        (FlickerNoise(), 10e-6 * 0.0088 / 0.4**0.65 * math.sqrt(math.log((100 + 250e-9) / 500e-9))),
    ],
)
def test_read_noise(read, expected):
    chip = Cell(25e-6, read=read).program(full(10e-6), seeded(0))
    drawn = chip.read(100.0, seeded(2))
    assert drawn.std().item() == pytest.approx(expected, rel=0.03)
    assert drawn.mean().item() == pytest.approx(10e-6, abs=0.03 * expected)
    assert not torch.equal(drawn, chip.read(100.0, seeded(3)))
    assert torch.equal(drawn, chip.read(100.0, seeded(2)))


def test_flicker_noise_of_small_and_young_cells():
    G = torch.tensor([1e-12, 25e-6], dtype=F64)
    sigma = FlickerNoise().sigma(G, G, 25e-6, age=20.0) / G
    grown = math.sqrt(math.log((20 + 250e-9) / 500e-9))
    assert sigma.tolist() == pytest.approx([0.2 * grown, 0.0088 * grown])
    assert FlickerNoise().sigma(G, G, 25e-6, age=0.0).tolist() == [0.0, 0.0]


def test_flicker_noise_is_that_of_the_conductance_as_written():
    chip = PCM.program(full(10e-6, 10), seeded(0))
    sigma = chip.read_sigma(DAY)
    assert sigma is not None
    share = sigma / chip.at(DAY)
    q = 0.0088 / (chip.at(0.0) / 25e-6) ** 0.65
    torch.testing.assert_close(share, q * math.sqrt(math.log((DAY + 250e-9) / 500e-9)))


def test_a_cell_without_read_noise_reads_what_it_holds():
    chip = Cell().program(full(10e-6, 4), seeded(0))
    assert chip.read_sigma(0.0) is None
    assert torch.equal(chip.read(0.0, seeded(0)), chip.at(0.0))


@pytest.mark.parametrize("formed", [0.0, 0.1, 0.5, 1.0])
def test_forming_is_a_zero_inflated_folded_normal(formed):
    mean, std = 10e-6, 10e-6
    G = Forming(formed, mean, std).draw((200, 200), seeded(0))
    assert (G > 0).float().mean().item() == pytest.approx(formed, abs=0.01)
    if formed:
        folded = std * math.sqrt(2 / math.pi) * math.exp(-0.5) + mean * math.erf(math.sqrt(0.5))
        assert G[G > 0].mean().item() == pytest.approx(folded, rel=0.03)
        assert G[G > 0].std().item() == pytest.approx(math.sqrt(mean**2 + std**2 - folded**2), rel=0.03)


def test_stuck_cells():
    chip = Cell(40e-6, 2e-6, stuck=HFO2_STUCK).program(full(10e-6), seeded(0))
    found = chip.at(0.0)
    assert set(found.unique().tolist()) == {2e-6, 10e-6, 40e-6}
    assert (found == 40e-6).double().mean().item() == pytest.approx(0.0175, rel=0.05)
    assert (found == 2e-6).double().mean().item() == pytest.approx(0.0904, rel=0.03)
    assert bool((Cell(stuck=Stuck(on=1.0)).program(full(0.0), seeded(0)).at(1.0) == 40e-6).all())


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


def test_spread_of_devices_stays_and_that_of_cycles_is_new():
    cell = Cell(spread=Spread(device_to_device=0.1, cycle_to_cycle=0.05))
    first, second = (cell.program(full(20e-6), seeded(0), seeded(0, cycle)).at() / 20e-6 for cycle in (1, 2))
    assert first.std().item() == pytest.approx(math.hypot(0.1, 0.05), rel=0.03)
    assert (first - second).std().item() == pytest.approx(0.05 * math.sqrt(2), rel=0.03)
    fixed = Cell(spread=Spread(device_to_device=0.1))
    assert torch.equal(
        fixed.program(full(20e-6), seeded(0), seeded(1)).at(), fixed.program(full(20e-6), seeded(0), seeded(2)).at()
    )


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
        (lambda: Stuck(0.6, 0.5), "on \\+ off: expected a share"),
        (lambda: Forming(1.2, 0, 0), "formed: expected a share"),
        (lambda: Forming(0.5, 1e-6, -1e-6), "std: expected a number >= 0"),
        (lambda: ReadNoise(-0.1), "proportional"),
        (lambda: Spread(math.nan), "device_to_device"),
        (lambda: FlickerNoise(0.0), "read_time"),
        (lambda: Drift(start=0.0), "start"),
        (lambda: ProgrammingNoise(((1.0,),), 1.0, (1.0, 2.0)), "one polynomial for each time, got 1 for 2 times"),
        (lambda: ProgrammingNoise(((1.0,), (1.0,)), 1.0, (2.0, 1.0)), "ascending"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_import_is_light():
    code = "import torch, numpy, sys; a = set(sys.modules); import eventnet.hardware.resistive; print(set(sys.modules) - a)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "'eventnet.hardware.resistive.ir_drop'" in found
    assert "'scipy'" not in found and "'matplotlib'" not in found


def test_statistics_are_those_of_aihwkit():
    pytest.importorskip("aihwkit")
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    from aihwkit.inference.noise.reram import ReRamWan2022NoiseModel

    torch.manual_seed(0)
    theirs, hfox = PCMLikeNoiseModel(g_max=25.0), ReRamWan2022NoiseModel(g_max=40.0)
    for g in (0.3, 0.9):
        target = full(g).float()
        chip = PCM.program(target.double() * 25e-6, seeded(0))
        written = theirs.apply_programming_noise_to_conductance(target * 25)
        assert written.std().item() == pytest.approx((chip.at() / MICRO).std().item(), rel=0.03)
        nu = theirs.generate_drift_coefficients(target * 25)
        assert chip.exponents is not None
        assert nu.mean().item() == pytest.approx(chip.exponents.mean().item(), rel=0.03)
        assert nu.std().item() == pytest.approx(chip.exponents.std().item(), rel=0.03)
        drifted = theirs.apply_drift_noise_to_conductance(written, nu, DAY - 20.0)  # its time starts 20 s later
        mine = chip.read(DAY, seeded(1)) / MICRO
        assert drifted.mean().item() == pytest.approx(mine.mean().item(), rel=0.03)
        assert drifted.std().item() == pytest.approx(mine.std().item(), rel=0.03)
        for age in (1.0, DAY, 2 * DAY):
            found = hfox.apply_drift_noise_to_conductance(target * 40, target * 40, age)
            mine = HFOX.program(target.double() * 40e-6, seeded(2)).at(age) / MICRO
            assert found.std().item() == pytest.approx(mine.std().item(), rel=0.03)
