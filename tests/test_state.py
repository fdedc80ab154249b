"""State in and out: a trial in parts is the whole trial, whatever is on its way where it is cut."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recurrent import DURATION, as_events, draw, loss_of, tensors
from torch import Tensor

from eventnet import LIF, Events, LIFState, lif

BACKENDS = ["cpu", "reference"]
UNUSED = {
    "everything": (),
    "plain": ("recurrent_weight", "recurrent_delay", "delay", "refractory"),
    "delays": ("recurrent_weight", "recurrent_delay", "refractory"),
    "recurrent": ("recurrent_delay", "delay"),
}


def network(seed: int, kind: str = "everything"):
    net, samples = draw(seed)
    given = {name: x for name, x in tensors(net).items() if name not in UNUSED[kind]}
    return given, as_events(samples, net.weight.shape[0])[0]


def in_parts(events: Events, given: dict, cuts: list[float], backend: str) -> tuple[list[Events], LIFState]:
    """The spikes of each part, at their times in the whole trial."""
    state, found, first = None, [], dict(given)
    for start, end in zip([0.0, *cuts], [*cuts, DURATION], strict=True):
        spikes, state = lif(events.crop(start, end), **first, state=state, return_state=True, backend=backend)
        found.append(spikes.retime(spikes.times + start))
        first = {name: x for name, x in given.items() if not name.startswith("initial_")}
    return found, state


def joined(parts: list[Events], sample: int) -> list[tuple[float, int]]:
    return [(t, n) for part in parts for t, n in zip(*(x.tolist() for x in part.to_list()[sample]), strict=True)]


def assert_same(parts: list[Events], whole: Events) -> None:
    for b in range(whole.batch_size):
        found, expected = joined(parts, b), joined([whole], b)
        assert [n for _, n in found] == [n for _, n in expected]
        torch.testing.assert_close(
            torch.tensor([t for t, _ in found]), torch.tensor([t for t, _ in expected]), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", UNUSED)
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_the_whole(seed, kind, backend):
    given, events = network(seed, kind)
    parts, _ = in_parts(events, given, [0.011, 0.0127, 0.05, 0.0501], backend)
    assert_same(parts, lif(events, **given, backend=backend))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), cuts=st.lists(st.floats(1e-4, DURATION - 1e-4), max_size=6, unique=True))
def test_any_cut_will_do(seed, cuts):
    given, events = network(seed)
    parts, _ = in_parts(events, given, sorted(cuts), "cpu")
    assert_same(parts, lif(events, **given))


@settings(max_examples=100, deadline=None)
@given(
    ticks=st.lists(st.integers(0, 29), min_size=1, max_size=20),
    cut=st.integers(1, 29),
    delays=st.lists(st.integers(0, 12), min_size=2, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    backend=st.sampled_from(BACKENDS),
)
def test_no_arrival_is_lost_or_counted_twice_where_it_meets_the_cut(ticks, cut, delays, dtype, backend):
    times = torch.tensor(sorted(ticks), dtype=dtype) * 1e-3
    events = Events(times, torch.zeros(len(ticks), dtype=torch.int32), torch.tensor([0, len(ticks)]), 1, 0.03)
    delay = torch.tensor([delays], dtype=dtype) * 1e-3
    given = dict(weight=torch.tensor([[2.5, 3.0]], dtype=dtype), delay=delay, backend=backend)
    first, state = lif(events.crop(0.0, cut * 1e-3), **given, return_state=True)
    second = lif(events.crop(cut * 1e-3, 0.03), **given, state=state)
    whole = lif(events, **given)
    assert first.num_events + second.num_events == whole.num_events
    found = torch.cat([first.times, second.times + cut * 1e-3])
    torch.testing.assert_close(found, whole.times, rtol=0, atol=1e-10 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_last_state_is_that_of_the_whole(backend):
    given, events = network(1)
    _, whole = lif(events, **given, return_state=True, backend=backend)
    _, last = in_parts(events, given, [0.02, 0.07], backend)
    for name in ("voltage", "current", "refractory_left", "time"):
        torch.testing.assert_close(getattr(last, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    assert whole.pending.num_events == last.pending.num_events > 0
    torch.testing.assert_close(last.pending.times, whole.pending.times, rtol=0, atol=1e-12)
    assert whole.time.tolist() == [DURATION, DURATION]


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 8))])
def test_gradients_after_a_cut_are_those_of_the_reference(seed):
    found = []
    for backend in BACKENDS:
        given, events = network(seed)
        _, state = lif(events.crop(0.0, 0.03), **given, return_state=True, backend=backend)
        given = {name: x for name, x in given.items() if not name.startswith("initial_")}
        spikes = lif(events.crop(0.03, DURATION), **given, state=state, backend=backend)
        assert spikes.num_events > 5
        loss_of(spikes.times, torch.linspace(-1, 1, spikes.num_events, dtype=torch.float64)).backward()
        found.append({name: x.grad for name, x in given.items()})
    for name, expected in found[1].items():
        error = (found[0][name] - expected).norm() / expected.norm().clamp(min=1e-9)
        assert error < 1e-8, f"{name}: {error:.1e}"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_gradients_after_a_cut_are_differences_with_the_state_held_fixed(seed):
    given, events = network(seed)
    _, state = lif(events.crop(0.0, 0.03), **given, return_state=True)
    given = {name: x for name, x in given.items() if not name.startswith("initial_")}
    later = events.crop(0.03, DURATION)

    def loss() -> torch.Tensor:
        spikes = lif(later, **given, state=state)
        return loss_of(spikes.times, torch.linspace(-1, 1, spikes.num_events, dtype=torch.float64))

    loss().backward()
    for name, x in given.items():
        h = 1e-6 * x.detach().abs().mean()
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        if name in ("delay", "recurrent_delay", "refractory"):
            direction = torch.where(x.detach() > 0, direction, 0.0)  # 0 has a gradient from one side only
        values = []
        for step in (-2, -1, 1, 2):
            with torch.no_grad():
                x += step * h * direction
                values.append(loss().item())
                x -= step * h * direction
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        torch.testing.assert_close(
            (x.grad * direction).sum(), slope, rtol=2e-6, atol=2e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_event_by_event_in_bounded_memory():
    torch.manual_seed(0)
    layer = LIF(20, 30, recurrent=True, delay=(0.0, 4e-3), recurrent_delay=(1e-3, 3e-3), dtype=torch.float64)
    with torch.no_grad():
        layer.weight *= 8
    times = torch.rand(400, dtype=torch.float64).sort().values * 0.2
    events = Events(times, torch.randint(20, (400,)), torch.tensor([0, 400]), 20, 0.2)
    whole = layer(events)
    assert whole.num_events > 50
    state, found, most = None, [], 0
    edges = [0.0, *(times[1:] - 1e-9).tolist(), 0.2]
    with torch.no_grad():
        for start, end in pairwise(edges):
            spikes, state = layer(events.crop(start, end), state=state, return_state=True)
            found += (spikes.times + start).tolist()
            most = max(most, state.pending.num_events)
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), whole.times.detach(), rtol=0, atol=1e-9)
    assert most < 40  # what is younger than the longest delay, not what was ever sent


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_events_in_parts(dtype):
    torch.manual_seed(1)
    layer = LIF(50, 40, recurrent=True, delay=(0.0, 10e-3), recurrent_delay=(1e-3, 5e-3), dtype=dtype)
    with torch.no_grad():
        layer.weight *= 1.5
    n = 4000
    times = (torch.rand(n, dtype=dtype) * 0.4).sort().values
    events = Events(times, torch.randint(50, (n,)), torch.tensor([0, n]), 50, 0.4)
    with torch.no_grad():
        whole = layer(events)
        state, found = None, []
        for start, end in ((0.0, 0.13), (0.13, 0.17), (0.17, 0.4)):
            spikes, state = layer(events.crop(start, end), state=state, return_state=True)
            found.append(spikes.times + start)
    found = torch.cat(found)
    assert whole.num_events > 300
    if dtype == torch.float64:
        torch.testing.assert_close(found, whole.times, rtol=0, atol=1e-9)
    else:  # rounding may turn a spike that grazes the threshold
        assert abs(len(found) - whole.num_events) < 0.02 * whole.num_events


def test_float32_parts():
    given, events = network(2)
    given = {name: x.detach().float() for name, x in given.items()}
    parts, _ = in_parts(events, given, [0.02, 0.05], "cpu")
    whole = lif(events, **given)
    assert sum(part.num_events for part in parts) == whole.num_events
    found = torch.tensor([t for t, _ in joined(parts, 0)])
    torch.testing.assert_close(found, torch.tensor([t for t, _ in joined([whole], 0)]), rtol=0, atol=1e-6)


def test_a_cut_at_the_very_spike():
    given, events = network(3, "recurrent")
    given = {name: x.detach().float() for name, x in given.items()}
    late = Events(
        events.times.detach().float(), events.units, events.offsets, 4, DURATION, events.values.detach().float()
    )
    whole = lif(late, **given)
    start = {name: x for name, x in given.items() if not name.startswith("initial_")}
    for cut in whole.to_list()[0][0][:8].tolist():
        first, state = lif(late.crop(0.0, cut), **given, return_state=True)
        second = lif(late.crop(cut, DURATION), **start, state=state)
        assert first.num_events + second.num_events == whole.num_events
        assert (second.dtype, second.duration.dtype) == (torch.float32, torch.float32)


def test_states_can_be_copied_and_saved(tmp_path):
    given, events = network(1)
    _, state = lif(events.crop(0.0, 0.03), **given, return_state=True)
    assert state.pending.num_events > 0
    torch.save(tuple(state), tmp_path / "state.pt")
    saved = LIFState(*torch.load(tmp_path / "state.pt", weights_only=True))
    start = {name: x for name, x in given.items() if not name.startswith("initial_")}
    found = [lif(events.crop(0.03, DURATION), **start, state=s).times for s in (state, copy.deepcopy(state), saved)]
    assert found[0].equal(found[1]) and found[0].equal(found[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_pieces_of_no_length(backend):
    given, events = network(1)
    _, state = lif(events.crop(0.0, 0.03), **given, return_state=True, backend=backend)
    start = {name: x for name, x in given.items() if not name.startswith("initial_")}
    nothing, same = lif(events.crop(0.03, 0.03), **start, state=state, return_state=True, backend=backend)
    assert nothing.num_events == 0
    torch.testing.assert_close(same.voltage, state.voltage)
    assert same.pending.num_events == state.pending.num_events
    empty = Events.from_list([([0.0], [0])], num_units=1, duration=0.0)
    assert lif(empty, torch.ones(1, 2), delay=torch.tensor([[0.01, 0.02]]), backend=backend).num_events == 0


def test_a_delay_that_is_never_over_has_finite_gradients():
    times = torch.tensor([0.01, 0.02], requires_grad=True)
    events = Events(times, torch.tensor([0, 0]), torch.tensor([0, 2]), 1, 0.1)
    weight = torch.full((1, 2), 9.0, requires_grad=True)
    delay = torch.tensor([[1e9, 1e-3]], requires_grad=True)
    lif(events, weight, delay=delay).times.sum().backward()
    assert all(x.grad.isfinite().all() for x in (times, weight, delay))


def test_one_number_in_any_shape():
    given, events = network(0, "delays")
    given |= {
        "initial_current": torch.full((1, 1), 0.5, dtype=torch.float64),
        "bias": torch.full((1, 1), 0.1, dtype=torch.float64),
    }
    found = [lif(events, **given, backend=backend) for backend in BACKENDS]
    torch.testing.assert_close(found[0].times, found[1].times, rtol=0, atol=1e-9)


def test_wrong_states_are_refused():
    given, events = network(0)
    _, state = lif(events, **given, return_state=True)
    start = {name: x for name, x in given.items() if not name.startswith("initial_")}
    with pytest.raises(ValueError, match="either a state or an initial voltage"):
        lif(events, **given, state=state)
    with pytest.raises(TypeError, match="expected the LIFState of an earlier call, got tuple"):
        lif(events, **start, state=tuple(state))
    with pytest.raises(
        ValueError, match=r"state\.voltage is of \(2, 5\) \(samples, neurons\), but this call has \(1, 5\)"
    ):
        lif(events[:1], **start, state=state)
    with pytest.raises(ValueError, match=r"state\.current is of \(1, 5\)"):
        lif(events, **start, state=state._replace(current=state.current[:1]))
    feed_forward = {name: x for name, x in start.items() if not name.startswith("recurrent_")}
    with pytest.raises(ValueError, match=r"state\.pending has 9 units, but this layer has 4"):
        lif(events, **feed_forward, state=state)
    with pytest.raises(NotImplementedError, match="return_voltage is not possible with a state yet"):
        lif(events, **start, state=state, return_voltage=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("silent", [False, True])
def test_the_voltage_goes_on_from_an_initial_voltage_and_current(silent, backend):
    """The second part of a trial, from the state at the cut, has the voltage of the whole."""
    given, events = network(1, "plain")
    given = {name: x.detach() for name, x in given.items() if not name.startswith("initial_")}
    if silent:
        given["threshold"] = given["threshold"] + 1e6
    events, cut = events.sample(0).detach(), 0.021
    whole, voltage = lif(events, **given, return_voltage=True, backend=backend)
    first, state = lif(events.crop(0.0, cut), **given, return_state=True, backend=backend)
    start = {"initial_voltage": state.voltage[0], "initial_current": state.current[0]}
    second, rest = lif(events.crop(cut, DURATION), **given, **start, return_voltage=True, backend=backend)
    assert (whole.num_events == 0) == silent and first.num_events + second.num_events == whole.num_events

    def same(one: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

    grid = torch.linspace(0.0, DURATION - cut, 40, dtype=torch.float64)
    same(rest.at(grid), voltage.at(grid + cut))
    _, before = lif(events.crop(0.0, cut), **given, return_voltage=True, backend=backend)
    same(before.integral() + rest.integral(), voltage.integral())
    same(before.integral(0.01) + rest.integral(0.01) * math.exp(-cut / 0.01), voltage.integral(0.01))
    same(torch.maximum(before.max(), rest.max()), voltage.max())
    same(rest.mean() * (DURATION - cut), rest.integral())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("voltage", [0.7, -0.4])
def test_an_initial_voltage_relaxes_and_an_initial_current_drives(voltage, backend):
    """V = bias + (V0 - bias) e^{-t/tm} + I0 K(t), also where there is no event and in a trial of no duration."""
    v0 = torch.tensor(voltage, dtype=torch.float64, requires_grad=True)
    i0 = torch.tensor([0.0, 0.9], dtype=torch.float64, requires_grad=True)
    weight, silence = torch.zeros(1, 2).double(), Events.from_list([([], [])], 1, 0.04, dtype=torch.float64)
    start = dict(bias=0.1, initial_voltage=v0, initial_current=i0, threshold=5.0)
    _, found = lif(silence, weight, **start, return_voltage=True, backend=backend)
    t = torch.tensor([0.0, 0.004, 0.04], dtype=torch.float64)
    fall, kernel = torch.exp(-t / 20e-3), (torch.exp(-t / 20e-3) - torch.exp(-t / 5e-3)) / 3
    expected = 0.1 + (voltage - 0.1) * fall[:, None] + i0.detach() * kernel[:, None]
    torch.testing.assert_close(found.at(t)[0].detach(), expected, rtol=0, atol=1e-12)
    by_voltage, by_current = torch.autograd.grad(found.at(t).sum(), (v0, i0))
    torch.testing.assert_close(by_voltage, 2 * fall.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(by_current, kernel.sum().expand(2), rtol=1e-12, atol=0)
    (by_voltage,) = torch.autograd.grad(found.max()[0, 0], v0)
    at_start = voltage > 0.1  # else it rises to the end
    assert by_voltage.item() == pytest.approx(1.0 if at_start else math.exp(-2))
    nothing = Events.from_list([([], [])], 1, 0.0, dtype=torch.float64)
    _, point = lif(nothing, weight, **start, return_voltage=True, backend=backend)
    assert point.mean().tolist() == point.max().tolist() == [[voltage, voltage]] and not point.integral().any()
