"""Liquid state machines: steps and continuous time, features, threads, conductances as weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from resistive_cases import DT, F64, drawn, on_every_device, one

from eventnet import LIF, Events
from eventnet.hardware.resistive import ADC, DAC, Cell, Crossbar, Pair, ProgrammingNoise, seeded, to_pair
from eventnet.hardware.resistive.reservoir import Reservoir


@pytest.mark.parametrize("tau_syn", [None, 3e-3], ids=["steps", "exact"])
def test_samples_do_not_depend_on_each_other_nor_on_threads(tau_syn):
    generator = torch.Generator().manual_seed(3)
    events = drawn(3, [int(n) for n in torch.randint(100, 400, (12,), generator=generator)], 40, 0.06)
    reservoir = Reservoir.random(40, 150, seed=1, dt=DT, threshold=1.0, gain=0.15, tau_syn=tau_syn, radius=1.0)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            again = Reservoir.random(40, 150, seed=1, dt=DT, threshold=1.0, gain=0.15, tau_syn=tau_syn, radius=1.0)
            found.append(again.features(events, times=[0.02, 0.06], tau=0.01, batch_size=5))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
    alone = torch.cat([reservoir.features(events[b], times=[0.02, 0.06], tau=0.01) for b in range(12)])
    assert torch.equal(alone, found[0]) and found[0].dtype == torch.float32
    assert 1 < found[0][:, :150].mean() < 25


@pytest.mark.parametrize("tau_syn", [None, 3e-3], ids=["steps", "exact"])
def test_nothing_in_nothing_out(tau_syn):
    reservoir = one(tau_syn=tau_syn)
    silent = Events.from_list([([], []), ([], [])], 6, 0.01)
    assert reservoir(silent).num_events == 0
    assert reservoir.features(silent, times=[0.01], tau=0.01).tolist() == [[0.0] * 10] * 2
    assert reservoir.features(Events.from_list([], 6, 0.01)).shape == (0, 5)
    if tau_syn is None:
        assert replace(reservoir, recurrent_weight=None)(drawn()).num_events > 0


def test_exact_form_is_lif():
    events = drawn()
    reservoir = one(tau_syn=4e-3, gain=0.8)
    layer = LIF(6, 5, recurrent=True, tau_mem=-DT / math.log(0.8), tau_syn=4e-3, threshold=1.0, learn=(), dtype=F64)
    scale = 0.8 * reservoir.tau_mem / 4e-3
    with torch.no_grad():
        layer.weight.copy_(reservoir.weight * scale)
        layer.recurrent_weight.copy_(reservoir.recurrent_weight * scale)
    spikes, expected = reservoir(events), layer(events)
    assert expected.num_events > 20
    assert torch.equal(spikes.units, expected.units) and torch.equal(spikes.offsets, expected.offsets)
    assert torch.allclose(spikes.times, expected.times, rtol=1e-12)


def test_both_forms_meet_where_jumps_are_small():
    events, dt = drawn(5, (1500, 900), duration=0.1), 1e-5
    reservoir = Reservoir(one().weight.abs(), None, dt, math.exp(-dt / 0.02), threshold=1.0, gain=0.02)
    counts = reservoir(events).counts()
    assert counts.sum() > 100
    difference = (replace(reservoir, tau_syn=1e-5)(events).counts() - counts).abs()
    assert difference.sum() <= 0.03 * counts.sum()


def test_what_a_jump_has_beyond_the_threshold():
    events = Events.from_list([([0.01], [0])], 1, 0.1, dtype=F64)
    reservoir = Reservoir(torch.full((1, 1), 2.6, dtype=F64), None, 1e-3, 0.95, threshold=1.0, gain=1.0)
    assert reservoir(events).num_events == 1
    assert replace(reservoir, tau_syn=1e-6)(events).num_events == 2


def test_features_are_counts_and_traces():
    events, reservoir = drawn(2), one()
    spikes = reservoir(events)
    times = [0.05, 0.01, 0.03]
    found = reservoir.features(events, scale=4.0, times=times, tau=0.01, batch_size=3)
    assert torch.equal(found[:, :5], spikes.counts() / 4.0)
    traces = spikes.to_trace(torch.tensor(times, dtype=F64), 0.01)
    assert torch.allclose(found[:, 5:].reshape(4, 3, 5), traces, rtol=1e-12)
    by_hand = sum(
        math.exp(-(0.03 - t) / 0.01)
        for t, n in zip(*(x.tolist() for x in spikes.to_list()[0]), strict=True)
        if n == 2 and t <= 0.03
    )
    assert found[0, 5 + 2 * 5 + 2].item() == pytest.approx(by_hand, rel=1e-12)
    own = reservoir.features(events, times=times)[:, 5:]
    assert torch.allclose(own, reservoir.features(events, times=times, tau=reservoir.tau_mem)[:, 5:])


def on_crossbars(reservoir: Reservoir, cell: Cell, seed: int = 0) -> list[Crossbar]:
    """Its two matrices of weights, written to a chip, in tiles and through converters without bits or bounds."""
    found = []
    for k, weight in enumerate((reservoir.weight, reservoir.recurrent_weight)):
        pair = to_pair(weight.t(), cell)
        written = cell.program(torch.stack([pair.positive, pair.negative]), seeded(seed, k)).at()
        ideal = {"dac": DAC(None), "adc": ADC(None, bound=math.inf), "tile": (16, 16)}
        found.append(Crossbar(Pair(written[0], written[1], pair.scale), cell, **ideal))
    return found


@pytest.mark.parametrize("cell", [Cell(), Cell(25e-6, 1e-6)], ids=["ideal", "ideal, with a smallest conductance"])
def test_on_ideal_crossbars_it_is_the_software_reservoir(cell):
    """Spikes of the equation with products of the arrays, step by step, and features of the weights that they hold."""
    events = drawn(1, (300, 200, 400), 40, 0.1)
    reservoir = one(40, 50, radius=1.0, threshold=1.0, gain=0.15)
    inputs, recurrent = on_crossbars(reservoir, cell)
    u = s = torch.zeros(3, 50, dtype=F64)
    found = []
    for x in events.to_dense(DT):
        u = reservoir.decay * u * (1 - s) + reservoir.gain * (inputs.product(x) + recurrent.product(s))
        s = (u > reservoir.threshold).to(F64)
        found.append(s)
    assert torch.equal(torch.stack(found), reservoir(events).to_dense(DT))
    assert reservoir(events).num_events > 200
    for tau_syn in (None, 3e-3):
        software = replace(reservoir, tau_syn=tau_syn)
        weights = {"weight": inputs.effective_weight().t(), "recurrent_weight": recurrent.effective_weight().t()}
        times = [0.02, 0.06, 0.1]
        features = replace(software, **weights).features(events, times=times)
        torch.testing.assert_close(features, software.features(events, times=times), rtol=0, atol=1e-6)


def test_programming_noise_moves_its_features_further_the_larger_it_is():
    events, reservoir, off = drawn(1, (300,) * 8, 40, 0.1), one(40, 50, radius=1.0, threshold=1.0, gain=0.15), []
    for sigma in (0.0, 0.5e-6, 2e-6, 8e-6):
        cell = Cell(programming=ProgrammingNoise(((sigma,),), 40e-6))
        moved = [
            replace(reservoir, weight=w.effective_weight().t(), recurrent_weight=r.effective_weight().t())
            for w, r in (on_crossbars(reservoir, cell, seed) for seed in range(3))
        ]
        off.append(sum((each.features(events) - reservoir.features(events)).norm().item() for each in moved))
    assert off[0] == 0 and off == sorted(off) and len(set(off)) == 4


def test_a_chips_conductances_are_weights():
    """Pairs of cells, a share of them formed; siemens."""
    generator = torch.Generator().manual_seed(0)
    cells = [20e-6 + 5e-6 * torch.randn(2, rows, 30, generator=generator) for rows in (6, 30)]
    cells = [each.abs() * (torch.rand(each.shape, generator=generator) < 0.4) for each in cells]
    weight, recurrent = (positive - negative for positive, negative in cells)
    chip = Reservoir(weight, recurrent, dt=DT, threshold=1.0, gain=1 / 20e-6)
    plain = Reservoir(weight / 20e-6, recurrent / 20e-6, dt=DT, threshold=1.0, gain=1.0)
    events = drawn()
    assert torch.equal(chip(events).counts(), plain(events).counts()) and chip(events).num_events > 50


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decay": 1.0}, r"decay must be in \[0, 1\)"),
        ({"decay": 0.0, "tau_syn": 1e-3}, r"decay must be in \(0, 1\)"),
        ({"threshold": 0.0}, "threshold must be"),
        ({"dt": -1.0}, "dt must be"),
        ({"gain": math.inf}, "gain must be"),
        ({"tau_syn": 0.0}, "tau_syn must be"),
        ({"weight": torch.zeros(3)}, r"a weight \(in, out\)"),
        ({"weight": torch.full((6, 5), math.nan, dtype=F64)}, "the weight is not finite"),
        ({"recurrent_weight": torch.zeros(5, 4)}, r"recurrent_weight \(5, 5\), got \(5, 4\)"),
    ],
)
def test_errors(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(one(), **changes)


def test_errors_of_arguments():
    with pytest.raises(ValueError, match="6 units but weight is"):
        one(4)(drawn())
    with pytest.raises(TypeError, match=r"expected eventnet\.Events, got Tensor"):
        one().features(torch.zeros(2, 6))
    with pytest.raises(TypeError, match=r"weight in float32 or float64, got torch\.int64"):
        Reservoir(torch.ones(6, 5, dtype=torch.int64))
    for options, said in [
        ({"scale": 0.0}, "scale > 0"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"tau": 0.01}, "times says when"),
        ({"times": [0.01, math.nan]}, "finite times"),
    ]:
        with pytest.raises(ValueError, match=said):
            one().features(drawn(), **options)


@on_every_device
@pytest.mark.parametrize("tau_syn", [None, 3e-3], ids=["steps", "exact"])
def test_features_are_the_same_on_any_device(device, tau_syn):
    events, here = drawn(2), one(tau_syn=tau_syn, backend="reference")
    there = replace(here, weight=here.weight.to(device), recurrent_weight=here.recurrent_weight.to(device))
    found = there.features(events.to(device), times=[0.01, 0.05])
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), here.features(events, times=[0.01, 0.05]))
    assert found[:, :5].sum() > 5
