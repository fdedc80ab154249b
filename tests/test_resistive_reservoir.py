"""Reservoirs, echo-state networks and what measures them, against plain loops and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import F64, random_events
from hypothesis import given
from hypothesis import strategies as st

from eventnet import LIF, Events, data, metrics
from eventnet.hardware.resistive import measures
from eventnet.hardware.resistive.echo_state import EchoState, with_activity
from eventnet.hardware.resistive.readouts import RidgeReadout
from eventnet.hardware.resistive.reservoir import (
    Drive,
    Reservoir,
    bisected,
    random_weights,
    spectral_radius,
    spikes_in_steps,
    with_rate,
)

DT = 2e-3


def drawn(seed=0, counts=(40, 0, 25, 60), num_units=6, duration=0.05, **options):
    return random_events(torch.Generator().manual_seed(seed), list(counts), num_units, duration, **options)


def one(inputs=6, out=5, seed=0, **options):
    given = {"dt": DT, "decay": 0.8, "threshold": 1.0, "gain": 0.5} | options
    return Reservoir.random(inputs, out, seed, dtype=F64, **given)


def by_loop(reservoir: Reservoir, events: Events) -> torch.Tensor:
    """``(T, B, out)``, 0 or 1, in plain Python."""
    x = events.to_dense(reservoir.dt).tolist()
    w, r = reservoir.weight.tolist(), reservoir.recurrent_weight.tolist()
    out, batch = len(r), events.batch_size
    steps = events.num_steps(reservoir.dt).tolist()
    u = [[0.0] * out for _ in range(batch)]
    s = [[0] * out for _ in range(batch)]
    found = []
    for t in range(len(x)):
        for b in range(batch):
            before = s[b]
            s[b] = [0] * out
            for n in range(out):
                total = sum(x[t][b][j] * w[j][n] for j in range(len(w))) + sum(before[m] * r[m][n] for m in range(out))
                u[b][n] = reservoir.decay * u[b][n] * (1 - before[n]) + reservoir.gain * total
                s[b][n] = int(u[b][n] > reservoir.threshold and t < steps[b])
        found.append([list(each) for each in s])
    return torch.tensor(found)


# ---- in steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["plain", "graded", "grid", "late", "ragged"])
def test_steps_are_the_loop(seed, kind):
    events = drawn(seed, graded=kind == "graded", grid=DT / 2 if kind == "grid" else None, late=kind == "late")
    if kind == "ragged":
        events = replace(events, duration=torch.tensor([0.05, 0.02, 0.031, 0.013], dtype=F64))
    reservoir = one(seed=seed, gain=1.0)
    spikes, expected = reservoir(events), by_loop(reservoir, events)
    assert expected.sum() > 8
    assert torch.equal(spikes.to_dense(DT).long(), expected)
    Events(spikes.times, spikes.units, spikes.offsets, spikes.num_units, spikes.duration)  # runs its checks


def test_by_hand():
    """u: 0.6, then 0.9 0.6 + 0.6 = 1.14 fires, then 0.6 again, from 0, and what the other neuron's spike adds."""
    events = Events.from_list([([0.0, DT, 2 * DT], [0, 0, 0])], 1, 4 * DT, dtype=F64)
    weight = torch.tensor([[0.6, 0.0]], dtype=F64)
    recurrent = torch.tensor([[0.0, 1.5], [0.5, 0.0]], dtype=F64)
    spikes = spikes_in_steps(events, weight, recurrent, dt=DT, decay=0.9, threshold=1.0)
    assert spikes.to_dense(DT)[:, 0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]  # at last 0.9 0.6 + 0.5 = 1.04


def test_threshold_itself_is_no_spike():
    events = Events.from_list([([0.0], [0])], 1, DT)
    assert spikes_in_steps(events, torch.ones(1, 1), dt=DT, threshold=1.0).num_events == 0
    assert spikes_in_steps(events, torch.ones(1, 1), dt=DT, threshold=0.999).num_events == 1


def test_a_sample_ends_with_its_duration():
    """A neuron that keeps itself going, and an event at the very end."""
    lasting = torch.tensor([3 * DT, 7 * DT, 5.5 * DT], dtype=F64)
    events = Events.from_list([([0.0], [0])] * 3, 1, lasting, dtype=F64)
    spikes = spikes_in_steps(events, torch.ones(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64), dt=DT, threshold=0.5)
    assert spikes.counts().flatten().tolist() == [3, 7, 6]
    late = Events.from_list([([0.01], [0]), ([0.004], [0])], 1, torch.tensor([0.01, 0.004], dtype=F64), dtype=F64)
    assert spikes_in_steps(late, torch.ones(1, 1, dtype=F64), dt=DT, threshold=0.5).num_events == 0


def test_parameters_per_neuron():
    events = drawn()
    reservoir = one()
    w, r = reservoir.weight * 0.5, reservoir.recurrent_weight * 0.5
    decay, threshold = torch.linspace(0.5, 0.95, 5, dtype=F64), torch.linspace(0.3, 2, 5, dtype=F64)
    alone = [
        spikes_in_steps(events, w[:, [n]], None, dt=DT, decay=float(decay[n]), threshold=float(threshold[n])).counts()
        for n in range(5)
    ]
    both = spikes_in_steps(events, w, None, dt=DT, decay=decay, threshold=threshold)
    assert torch.equal(both.counts(), torch.cat(alone, 1)) and both.num_events
    assert not torch.equal(
        spikes_in_steps(events, w, r, dt=DT, decay=decay, threshold=threshold).counts(), both.counts()
    )


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


def test_drive_is_the_dense_product():
    events = drawn(1, graded=True, late=True)
    weight = torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    drive = Drive(events, DT, weight)
    found = torch.stack([drive.at(t) for t in range(drive.num_steps)])
    assert torch.allclose(found, events.to_dense(DT) @ weight, atol=1e-13)
    assert drive.at(drive.num_steps).abs().max() == 0


@pytest.mark.parametrize("dt", [1e-3, 0.1, 0.34 / 50])
def test_steps_of_a_raster_are_its_rows(dt):
    """Also where t * dt, in single precision, is a little less than it should be."""
    raster = torch.randint(0, 3, (300, 2, 3), generator=torch.Generator().manual_seed(0)).float()
    drive = Drive(Events.from_dense(raster, dt), dt, torch.eye(3))
    assert torch.equal(torch.stack([drive.at(t) for t in range(drive.num_steps)]), raster)


# ---- in continuous time ---------------------------------------------------------------------------------------------


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


# ---- features -------------------------------------------------------------------------------------------------------


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


# ---- weights and calibration ----------------------------------------------------------------------------------------


def test_weights_come_from_the_seed():
    first, again, other = (random_weights(30, 20, seed, density=0.3) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert 0.2 < (first[0] != 0).double().mean() < 0.4 and bool((first[1] != 0).all())
    assert torch.equal(random_weights(30, 20, 0, density=0.3, dtype=F64)[0].float(), first[0])


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_spectral_radius_is_that_of_the_eigenvalues(seed, size):
    matrix = torch.randn(size, size, dtype=F64, generator=torch.Generator().manual_seed(seed))
    assert spectral_radius(matrix) == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=3e-6)


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


def test_spectral_radius_of_special_matrices():
    shift = torch.diag(torch.ones(9), 1)
    angle = torch.tensor(0.7)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    assert spectral_radius(shift) == 0.0
    assert spectral_radius(1e-30 * torch.eye(3)) == pytest.approx(1e-30, rel=1e-5)
    assert spectral_radius(3 * turn) == pytest.approx(3.0, rel=1e-5)
    assert spectral_radius(torch.tensor([[1.0, 1e6], [0.0, 1.0]])) == pytest.approx(1.0, rel=1e-5)


def test_radius_is_reached():
    reservoir = one(out=40, radius=1.3)
    assert float(torch.linalg.eigvals(reservoir.recurrent_weight).abs().max()) == pytest.approx(1.3, rel=1e-5)
    network = EchoState.random(2, 40, seed=0, radius=0.7)
    assert float(torch.linalg.eigvals(network.recurrent_weight).abs().max()) == pytest.approx(0.7, rel=1e-5)
    assert bool((EchoState.random(2, 10, seed=0, radius=0.0).recurrent_weight == 0).all())


@pytest.mark.parametrize("by", ["threshold", "input"])
@pytest.mark.parametrize("tau_syn", [None, 3e-3], ids=["steps", "exact"])
@pytest.mark.parametrize("rate", [5.0, 60.0])
def test_rate_is_reached(by, tau_syn, rate):
    events = drawn(1, (200,) * 8, 20, 0.1)
    # weak recurrence: spikes bring forth few others
    reservoir = one(20, 200, radius=0.1, threshold=1.0, gain=0.5, tau_syn=tau_syn)
    found = with_rate(reservoir, events, rate, by=by)
    assert metrics.firing_rates(found(events)).mean().item() == pytest.approx(rate, rel=0.05)
    same = found.weight if by == "threshold" else found.threshold
    assert same is (reservoir.weight if by == "threshold" else reservoir.threshold)


def test_a_rate_out_of_reach_is_an_error():
    silent = Events.from_list([([], [])], 6, 0.1)
    with pytest.raises(ValueError, match="the nearest to 5 spikes per second is 0"):
        with_rate(one(), silent, 5.0)
    explosive = replace(one(), recurrent_weight=torch.full((5, 5), 100.0, dtype=F64))
    with pytest.raises(ValueError, match="recurrent weights keep the spikes going"):
        with_rate(explosive, drawn(duration=0.5, counts=(3, 3)), 1.0, by="input")


@pytest.mark.parametrize(("wanted", "power"), [(1e-7, 1), (3e5, 2), (1.0, 3), (0.9, 0.5)])
def test_bisection(wanted, power):
    factor, value = bisected(lambda x: x**power, wanted, 1e-9)
    assert value == pytest.approx(wanted, rel=1e-8) and factor == pytest.approx(wanted ** (1 / power), rel=1e-8)


def test_bisection_stops_when_it_is_near_enough():
    tried = []
    bisected(lambda x: tried.append(x) or x, 3.0, 0.5)
    assert tried == [1.0, pytest.approx(2.0)]


def test_bisection_returns_the_nearest_beside_a_jump():
    factor, value = bisected(lambda x: 10.0 if x > 3 else 1.0, 4.0, 1e-3)
    assert value == 1.0 and factor <= 3


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
        ({"recurrent_weight": torch.zeros(5, 4)}, r"recurrent_weight \(5, 5\), got \(5, 4\)"),
    ],
)
def test_errors(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(one(), **changes)


def test_errors_of_arguments():
    with pytest.raises(ValueError, match="6 units but weight is"):
        one(4)(drawn())
    with pytest.raises(ValueError, match=r"expected a rate in \(0, 1 / dt = 500\)"):
        with_rate(one(), drawn(), 600.0)
    with pytest.raises(ValueError, match="by must be"):
        with_rate(one(), drawn(), 5.0, by="gain")
    with pytest.raises(ValueError, match="a density is a share"):
        random_weights(3, 3, 0, density=1.5)
    with pytest.raises(ValueError, match="square"):
        spectral_radius(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        spectral_radius(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="radius 0"):
        Reservoir.random(3, 4, 0, recurrent_density=0.0, radius=1.0)


# ---- echo state -----------------------------------------------------------------------------------------------------


def echo(inputs=3, out=7, **options):
    return EchoState.random(inputs, out, seed=0, dtype=F64, **({"leak": 0.3, "bias": 0.2, "gain": 0.5} | options))


def test_echo_state_is_the_loop():
    network, inputs = echo(), torch.randn(9, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    w, r, bias = network.weight.tolist(), network.recurrent_weight.tolist(), network.bias.tolist()
    state = [[0.0] * 7 for _ in range(2)]
    found = network(inputs)
    for t, row in enumerate(inputs.tolist()):
        for b in range(2):
            total = [
                0.5 * sum(row[b][j] * w[j][n] for j in range(3))
                + sum(state[b][m] * r[m][n] for m in range(7))
                + bias[n]
                for n in range(7)
            ]
            state[b] = [0.7 * x + 0.3 * math.tanh(y) for x, y in zip(state[b], total, strict=True)]
        assert torch.allclose(found[t], torch.tensor(state, dtype=F64), atol=1e-14)
    half = network(inputs[5:], state=network(inputs[:5])[-1])
    assert torch.allclose(half, found[5:], atol=1e-14)
    assert network(inputs[:0]).shape == (0, 2, 7)


def test_echo_state_on_events_is_that_on_their_raster():
    events, network = drawn(), echo(6)
    expected = network(events.to_dense(DT))
    assert torch.allclose(network.on_events(events, DT), expected, atol=1e-13)
    assert torch.allclose(network.on_events(events, DT, [24, 3]), expected[[24, 3]], atol=1e-13)
    assert network.on_events(events, DT, [30]).shape == (1, 4, 7)  # beyond the end: without input
    assert network.on_events(events, DT, []).shape == (0, 4, 7)


def test_initial_state_fades():
    network, inputs = echo(radius=0.8), torch.randn(300, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    ends = [network(inputs, state=torch.full((1, 7), x, dtype=F64))[-1] for x in (-1.0, 1.0)]
    assert (ends[0] - ends[1]).abs().max() < 1e-6


@pytest.mark.parametrize("activity", [0.05, 0.6])
def test_activity_is_reached(activity):
    inputs = torch.randn(60, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    network = with_activity(echo(bias=0.0, leak=1.0 if activity > 0.4 else 0.3), inputs, activity)
    assert network(inputs).square().mean().sqrt().item() == pytest.approx(activity, rel=0.02)


def test_errors_of_echo_state():
    for changes, said in [
        ({"leak": 0.0}, "leak must be"),
        ({"gain": 0.0}, "gain must be"),
        ({"recurrent_weight": torch.zeros(2, 2)}, r"recurrent_weight \(7, 7\)"),
        ({"bias": torch.zeros(2)}, r"bias \(7,\)"),
        ({"weight": torch.zeros(2)}, "weight"),
    ]:
        with pytest.raises(ValueError, match=said):
            replace(echo(), **changes)
    with pytest.raises(ValueError, match="on_events"):
        echo()(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="count from 0"):
        echo(6).on_events(drawn(), DT, [-1])
    with pytest.raises(ValueError, match="at least one input"):
        echo().forecast(lambda x: x, torch.zeros(0, 1, 3), 2)
    with pytest.raises(ValueError, match="are there inputs"):
        with_activity(echo(bias=0.0), torch.zeros(5, 1, 3), 0.3)
    with pytest.raises(ValueError, match="radius 0"):
        EchoState.random(2, 3, 0, recurrent_density=0.0)


def test_forecast_goes_on_from_its_own_output():
    network, inputs = echo(), torch.randn(6, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    out = torch.randn(7, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    found = network.forecast(lambda x: x @ out, inputs, 4)
    series = inputs
    for value in found:
        assert torch.allclose(value, network(series)[-1] @ out, atol=1e-13)
        series = torch.cat([series, value[None]])


def test_mackey_glass_goes_on_by_itself(report):
    """A Lyapunov time ahead, from its own output; the mean of the series has a normalised error of 1."""
    points = torch.from_numpy(data.mackey_glass.series(826))[:, None, None] - 0.9
    train, test = points[:750], points[750:]
    network = EchoState.random(1, 200, seed=0, radius=1.0, leak=0.6, bias=0.2, gain=0.5, dtype=F64)
    states = network(train[:-1])[50:, 0]
    readout = RidgeReadout(1e-8).fit(states, train[51:, 0])
    found = network.forecast(readout.scores, train, len(test))
    error = ((found - test).square().mean() / test.var(correction=0)).sqrt().item()
    report(f"Mackey-Glass, echo state of 200 units, 75 points from its own output: normalised error {error:.3f}")
    assert error < 0.25


# ---- measures -------------------------------------------------------------------------------------------------------


def noise(steps=3000, seed=0):
    return torch.rand(steps, dtype=F64, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize("length", [1, 4, 12])
def test_memory_of_a_delay_line_is_its_length(length):
    signal = noise()
    line = torch.stack([signal.roll(k) for k in range(1, length + 1)], 1)
    curve = measures.memory_curve(line, signal, 20)
    assert curve[:length].min() > 1 - 1e-9 and curve[length:].max() == 0
    assert measures.memory_capacity(line, signal, 20) == pytest.approx(length, abs=1e-9)
    mixed = line @ torch.randn(length, length, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert measures.memory_capacity(mixed, signal, 20) == pytest.approx(length, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_memory_of_a_memoryless_net_is_zero(seed):
    signal = noise(seed=seed)
    network = EchoState.random(1, 30, seed=seed, radius=0.0, bias=0.5, dtype=F64)
    assert measures.memory_capacity(network(signal[:, None, None])[:, 0], signal, 40) == 0


def test_memory_of_a_leaky_integrator_is_its_closed_form():
    """x = sum a^j u(t - j): the correlation with u(t - k) is a^k sqrt(1 - a^2), so MC_k = a^2k (1 - a^2)."""
    signal, a = noise(60_000), 0.7
    states, x = [], 0.0
    for u in signal.tolist():
        x = a * x + u
        states.append(x)
    curve = measures.memory_curve(torch.tensor(states, dtype=F64)[:, None], signal, 5)
    expected = torch.tensor([a ** (2 * k) * (1 - a * a) for k in range(1, 6)], dtype=F64)
    assert torch.allclose(curve, expected, atol=0.02)


def test_memory_is_at_most_the_number_of_states():
    signal = noise()
    network = EchoState.random(1, 20, seed=0, radius=0.95, gain=0.05, dtype=F64)
    assert 5 < measures.memory_capacity(network(signal[:, None, None])[:, 0], signal, 60) <= 20


def test_rank():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(12, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    assert measures.rank(low) == 3
    assert measures.rank(low + 1e-4 * torch.randn(12, 30, generator=generator)) == 12
    assert measures.rank(low + 1e-4 * torch.randn(12, 30, generator=generator), tolerance=1e-2) == 3
    assert measures.rank(torch.zeros(4, 3)) == 0 and measures.rank(torch.zeros(0, 3)) == 0
    assert measures.rank(torch.eye(5).long()) == 5


def test_reservoir_tells_inputs_apart_more_than_versions_of_one():
    events = drawn(4, (60,) * 24, 20, 0.1)
    reservoir = one(20, 100, radius=0.3)
    kernel = measures.rank(reservoir.features(events), tolerance=0.05)
    versions = measures.jittered(events[:1], 0.2e-3, seed=0, copies=24)
    assert kernel > measures.rank(reservoir.features(versions), tolerance=0.05)


def test_jitter():
    events = drawn(0, (50, 30))
    moved = measures.jittered(events, 1e-3, seed=1, copies=2)
    Events(moved.times, moved.units, moved.offsets, moved.num_units, moved.duration)  # runs its checks
    assert torch.equal(moved.counts(), events.counts().repeat(2, 1))
    assert 0.5e-3 < (moved[:2].times - events.times).std() < 1.2e-3
    assert torch.equal(measures.jittered(events, 1e-3, seed=1, copies=2).times, moved.times)
    assert torch.equal(measures.jittered(events, 0.0, seed=1).times, events.times)
    assert bool((measures.jittered(events, 1.0, seed=1).times < 0.05).all())


def test_separation():
    labels = torch.tensor([0, 0, 1, 1, 1])
    states = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    found = measures.separation(states, labels)
    assert (found.between, found.within) == pytest.approx((3 / 2, 0.5))
    assert found.ratio == pytest.approx(1.0)
    assert measures.separation(torch.ones(5, 2), labels).ratio == 0


def test_errors_of_measures():
    with pytest.raises(ValueError, match=r"states \(T, N\) and inputs \(T,\)"):
        measures.memory_curve(torch.zeros(5, 2), torch.zeros(4), 1)
    with pytest.raises(ValueError, match="too few"):
        measures.memory_curve(torch.zeros(120, 30), torch.zeros(120), 10)
    with pytest.raises(ValueError, match="finite"):
        measures.rank(torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match=r"labels \(B,\)"):
        measures.separation(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="standard deviation"):
        measures.jittered(drawn(), -1.0, 0)
