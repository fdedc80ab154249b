"""What resistive cells do to a conductance: every drawn number has the distribution that its publication gives."""

from __future__ import annotations

import math

import pytest
import torch
from resistive_cases import DAY, F64, MICRO, full

from eventnet.hardware.resistive import (
    HFOX,
    PCM,
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
from eventnet.hardware.resistive.effects import HFO2_STUCK, HFOX_PROGRAMMING, PCM_PROGRAMMING

PUBLISHED = {  # age in seconds: ascending coefficients in microsiemens
    "hfox": (
        (HFOX_PROGRAMMING, 40, 1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
        (HFOX_PROGRAMMING, 40, DAY, (0.701, 22.086, -50.773, 47.095, -16.458)),
        (HFOX_PROGRAMMING, 40, 2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
    ),
    "pcm": ((PCM_PROGRAMMING, 25, 0.0, (0.26348, 1.9650, -1.1731)),),
}


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


def test_drift_of_one_distribution_for_all_cells():
    chip = Cell(25e-6, drift=Drift(mean=0.06, std=0.01)).program(torch.linspace(0, 25e-6, 40_000), seeded(1))
    assert chip.exponents is not None
    assert chip.exponents.mean().item() == pytest.approx(0.06, rel=0.01)
    assert chip.exponents.std().item() == pytest.approx(0.01, rel=0.03)
    assert Drift(mean=0.0, std=0.0).exponents(torch.ones(3), seeded(0)).eq(0).all()


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


def test_spread_of_devices_stays_and_that_of_cycles_is_new():
    cell = Cell(spread=Spread(device_to_device=0.1, cycle_to_cycle=0.05))
    first, second = (cell.program(full(20e-6), seeded(0), seeded(0, cycle)).at() / 20e-6 for cycle in (1, 2))
    assert first.std().item() == pytest.approx(math.hypot(0.1, 0.05), rel=0.03)
    assert (first - second).std().item() == pytest.approx(0.05 * math.sqrt(2), rel=0.03)
    fixed = Cell(spread=Spread(device_to_device=0.1))
    assert torch.equal(
        fixed.program(full(20e-6), seeded(0), seeded(1)).at(), fixed.program(full(20e-6), seeded(0), seeded(2)).at()
    )


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


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: Stuck(0.6, 0.5), "on \\+ off: expected a share"),
        (lambda: Forming(1.2, 0, 0), "formed: expected a share"),
        (lambda: Forming(0.5, 1e-6, -1e-6), "std: expected a number >= 0"),
        (lambda: ReadNoise(-0.1), "proportional"),
        (lambda: Spread(math.nan), "device_to_device"),
        (lambda: FlickerNoise(0.0), "read_time"),
        (lambda: Drift(start=0.0), "start"),
        (lambda: Drift(mean=-0.1), "mean: expected a number >= 0"),
        (lambda: Drift(std=math.inf), "std: expected a number >= 0, finite"),
        (lambda: ProgrammingNoise(((1.0,),), 1.0, (1.0, 2.0)), "one polynomial for each time, got 1 for 2 times"),
        (lambda: ProgrammingNoise(((1.0,), (1.0,)), 1.0, (2.0, 1.0)), "ascending"),
        (lambda: ProgrammingNoise(((1.0,), (1.0,)), 1.0, (0.0, 1.0)), "times: expected .*> 0 where there are several"),
        (lambda: ProgrammingNoise(((1.0,),), 1.0, (math.nan,)), "times: expected finite"),
        (lambda: ProgrammingNoise(((1.0,),), 0.0), "reference: expected siemens > 0, got 0"),
        (lambda: ProgrammingNoise(((),), 1.0), "coefficients: expected c_0"),
        (lambda: ProgrammingNoise(((math.nan,),), 1.0), "coefficients: expected .*finite"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()
