"""LI and Voltage: closed forms, the kink at an arrival, and how the readings relate to each other."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import (
    F64,
    KINDS,
    LI_NAMES,
    NAMES,
    Case,
    error,
    gradients,
    on_both_backends,
    run_li,
    run_lif,
    weighted,
    with_grad,
)
from scipy.integrate import quad
from torch import Tensor

from eventnet import LI, Events, Voltage

END = 0.06


def leaves(events: Events, weight: list[float], tau_mem: float, tau_syn: float, bias: float = 0.0):
    """A single leaky integrator, as ``with_grad`` returns it."""
    given = {"weight": torch.tensor(weight, dtype=F64)[:, None]}
    given |= {n: torch.tensor(x, dtype=F64) for n, x in zip(LI_NAMES[1:], (tau_mem, tau_syn, bias), strict=True)}
    return with_grad(events, given)


def impulse(s: float, tau_mem: float, tau_syn: float) -> float:
    """Voltage s after a unit of current, and 0 before."""
    if s <= 0:
        return 0.0
    if tau_mem == tau_syn:
        return s / tau_mem * math.exp(-s / tau_mem)
    return tau_syn / (tau_mem - tau_syn) * (math.exp(-s / tau_mem) - math.exp(-s / tau_syn))


TAUS = [(0.02, 0.01), (0.01, 0.02), (0.02, 0.02), (0.02, 0.0199999), (0.3, 0.0001), (0.0001, 0.3)]


@on_both_backends
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS)
def test_maximum_after_one_arrival(tau_mem, tau_syn, backend):
    """bias + w K(s*) at s* = log(tm/ts) tm ts / (tm - ts), wherever in time that is."""
    events = Events.from_list([([0.003], [0])], 1, 3.0, dtype=F64)
    events, given, moved = leaves(events, [2.0], tau_mem, tau_syn, bias=0.3)
    top = run_li(events, given, backend).max()
    ratio = tau_mem / tau_syn
    gain = ratio ** (ratio / (1 - ratio)) if ratio != 1 else math.exp(-1)
    assert top.item() == pytest.approx(0.3 + 2 * gain, rel=1e-10)
    slopes = gradients(top.sum(), moved)
    assert slopes["weight"].item() == pytest.approx(gain, rel=1e-10)
    assert slopes["bias"].item() == pytest.approx(1.0, rel=1e-12)
    assert abs(slopes["times"].item()) < 1e-9
    # in units of one time constant the peak depends on their ratio only
    assert (slopes["tau_mem"] * tau_mem + slopes["tau_syn"] * tau_syn).item() == pytest.approx(0, abs=1e-10)


@on_both_backends
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS[:3])
def test_maximum_in_the_kink_at_an_arrival(tau_mem, tau_syn, backend):
    """A strong negative arrival cuts the rise off: the maximum w K(b - a) moves with both arrivals."""
    a, b, w = 0.004, 0.007, 3.0
    events = Events.from_list([([a, b], [0, 1])], 2, END, dtype=F64)
    events, given, moved = leaves(events, [w, -40.0], tau_mem, tau_syn)
    top = run_li(events, given, backend).max()
    assert top.item() == pytest.approx(w * impulse(b - a, tau_mem, tau_syn), rel=1e-12)
    slopes = gradients(top.sum(), moved)
    current = w * math.exp(-(b - a) / tau_syn)
    rise = (current - top.item()) / tau_mem  # dV/dt just before the kink
    assert slopes["times"].tolist() == pytest.approx([-rise, rise], rel=1e-11)
    assert slopes["weight"][:, 0].tolist() == pytest.approx([top.item() / w, 0.0], rel=1e-12)


@on_both_backends
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS[:3])
def test_maximum_at_the_end_and_at_the_start(tau_mem, tau_syn, backend):
    """Also with an arrival right at the end, which does not count."""
    events = Events.from_list([([0.003, 0.006], [0, 0])], 1, 0.006, dtype=F64)
    events, given, moved = leaves(events, [2.0], tau_mem, tau_syn)
    top = run_li(events, given, backend).max()
    assert top.item() == pytest.approx(2 * impulse(0.003, tau_mem, tau_syn), rel=1e-12)
    rise = (2 * math.exp(-0.003 / tau_syn) - top.item()) / tau_mem
    assert gradients(top.sum(), moved)["times"].tolist() == pytest.approx([-rise, 0.0], rel=1e-11)
    down = {**given, "weight": -given["weight"]}
    start = run_li(events, down, backend).max()
    assert start.item() == 0
    assert (gradients(start.sum(), moved)["times"] == 0).all()


@on_both_backends
@pytest.mark.parametrize("decay", [None, 0.004, 0.02, 0.5])
@pytest.mark.parametrize(("tau_mem", "tau_syn"), TAUS)
def test_integral_is_what_quadrature_finds(tau_mem, tau_syn, decay, backend):
    times, weight, bias = [0.002, 0.011, 0.011, 0.03], [2.0, -1.0, 0.5, 3.0], 0.2
    events = Events.from_list([(times, [0, 1, 2, 3])], 4, END, dtype=F64)
    _, given, _ = leaves(events, weight, tau_mem, tau_syn, bias)

    def damped(t: float) -> float:
        v = bias + sum(w * impulse(t - a, tau_mem, tau_syn) for a, w in zip(times, weight, strict=True))
        return v * (1.0 if decay is None else math.exp(-t / decay))

    fine = [a + d for a in times for d in (0.0, 2e-4, 1e-3) if a + d < END]
    expected = quad(damped, 0, END, points=sorted(set(fine)), limit=400, epsabs=1e-13, epsrel=1e-11)[0]
    voltage = run_li(events, given, backend)
    assert voltage.integral(decay=decay).item() == pytest.approx(expected, rel=1e-9)
    if decay is None:
        assert voltage.mean().item() == pytest.approx(expected / END, rel=1e-9)


@on_both_backends
def test_equal_time_constants_are_the_limit_of_near_ones(backend):
    case = Case("equal time constants", mean=0.5, std=1.0)
    events, given = case.draw()

    def all_readings(tau_syn: float) -> list[Tensor]:
        fresh, moved_given, moved = with_grad(events, given | {"tau_syn": torch.tensor(tau_syn, dtype=F64)})
        voltage = run_li(fresh, moved_given, backend)
        readings = [
            voltage.max(),
            voltage.integral(),
            voltage.integral(0.01),
            voltage.at(torch.tensor([0.02, 0.04])),
        ]
        used = {n: x for n, x in moved.items() if n not in ("threshold", "reset")}
        slopes = gradients(sum(weighted(x) for x in readings), used)
        return [*readings, *slopes.values()]

    exact = all_readings(0.01)
    for relative in (1e-12, -1e-9, 1e-7, -1e-6):
        for near, equal in zip(all_readings(0.01 * (1 + relative)), exact, strict=True):
            assert error(near, equal) < 20 * abs(relative) + 1e-11


# ---- the voltage of a spiking layer ------------------------------------------------------------------------


@on_both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_spiking_voltage_on_a_dense_grid(kind, backend):
    """Samples on a grid stay below the threshold, fall to reset at spikes, and agree with all readings."""
    events, given = Case(kind, counts=(8, 3), outputs=4, mean=1.5, std=1.5).draw()
    spikes, voltage = run_lif(events, given, backend, return_voltage=True)
    own = {name: given[name].expand(4) for name in NAMES}
    grid = torch.linspace(0, 0.05, 601, dtype=F64)
    v = voltage.at(grid)
    assert (v <= own["threshold"] + 1e-12).all()
    if spikes.num_events:
        at = voltage.at(spikes.times)[spikes.samples, torch.arange(spikes.num_events), spikes.units.long()]
        assert error(at, own["reset"][spikes.units.long()]) < 1e-9
        just_before = voltage.at(spikes.times - 1e-10)
        just_before = just_before[spikes.samples, torch.arange(spikes.num_events), spikes.units.long()]
        assert (own["threshold"][spikes.units.long()] - just_before).abs().max() < 1e-5
    assert error(torch.trapezoid(v, grid, dim=1), voltage.integral()) < 5e-2
    assert error(voltage.integral() / 0.05, voltage.mean()) < 1e-13
    assert (v.amax(1) <= voltage.max() + 1e-12).all()
    silent = spikes.counts() == 0
    assert error(v.amax(1)[silent], voltage.max()[silent]) < 1e-2
    assert error(voltage.max()[~silent], own["threshold"].expand(2, 4)[~silent]) < 1e-15


@on_both_backends
def test_voltage_of_neurons_that_never_spike_is_that_of_integrators(backend):
    events, given = Case("per neuron", counts=(8, 3), mean=1.5, std=1.5, graded=True).draw()
    _, voltage = run_lif(events, given | {"threshold": torch.tensor(1e9, dtype=F64)}, backend, return_voltage=True)
    membrane = run_li(events, given, backend)
    at = torch.tensor([0.0, 0.013, 0.05], dtype=F64)
    for read in (Voltage.max, Voltage.mean, Voltage.integral, lambda v: v.integral(0.01), lambda v: v.at(at)):
        assert error(read(voltage), read(membrane)) < 1e-13


@on_both_backends
def test_samples_come_in_the_order_asked_for(backend):
    events, given = Case("per neuron").draw()
    voltage = run_lif(events, given, backend, return_voltage=True)[1]
    at = torch.tensor([0.04, 0.0, 0.013, 0.013, 0.05], dtype=F64)
    together = voltage.at(at)
    assert together.shape == (3, 5, 5)
    assert error(together, torch.stack([voltage.at(t[None])[:, 0] for t in at], 1)) < 1e-12
    assert voltage.at(torch.empty(0, dtype=F64)).shape == (3, 0, 5)


@on_both_backends
def test_readout_without_time(backend):
    """A trial of no duration: the mean is the voltage at the start, the integral 0."""
    voltage = LI(1, 2, bias=0.7, backend=backend, dtype=F64)(
        Events.from_list([([], []), ([0.0], [0])], 1, 0.0, dtype=F64)
    )
    assert torch.equal(voltage.mean(), torch.full((2, 2), 0.7, dtype=F64))
    assert torch.equal(voltage.max(), torch.full((2, 2), 0.7, dtype=F64))
    assert (voltage.integral() == 0).all()


@on_both_backends
def test_the_last_voltage_is_that_at_the_end_of_each_sample(backend):
    events, given = Case("per neuron", counts=(9, 6, 0)).draw()
    ends = torch.tensor([0.05, 0.02, 0.05], dtype=F64)
    events = Events(events.times, events.units, events.offsets, events.num_units, ends)
    voltage = run_li(events, given, backend)
    for b, end in enumerate(ends):
        torch.testing.assert_close(voltage.last()[b], voltage.at(end[None])[b, 0], rtol=1e-13, atol=1e-13)


@on_both_backends
def test_durations_may_differ_in_a_batch(backend):
    events, given = Case("per neuron", counts=(9, 6)).draw()
    mixed = Events(events.times, events.units, events.offsets, events.num_units, torch.tensor([0.05, 0.02], dtype=F64))
    voltage = run_li(mixed, given, backend)
    for b, end in enumerate((0.05, 0.02)):
        alone = events[b].crop(0.0, end)
        own = run_li(alone, given, backend)
        assert error(voltage.max()[b : b + 1], own.max()) < 1e-14
        assert error(voltage.mean()[b : b + 1], own.mean()) < 1e-13


def test_module_is_what_it_says():
    layer = LI(3, 2, tau_mem=torch.tensor([0.01, 0.02]), learn=("weight", "bias"))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"weight", "bias"}
    assert set(layer.state_dict()) == set(LI_NAMES)
    with pytest.raises(ValueError, match=r"no parameter 'threshold'; choose from weight, tau_mem, tau_syn, bias"):
        LI(3, 2, learn=("threshold",))


ONE = Events.from_list([([0.003], [0])], 1, 0.1)
BAD = {
    "not Events": (
        lambda v: LI(1, 2)(torch.zeros(3, 1, 1)),
        TypeError,
        r"LI: expected eventnet.Events, got Tensor",
    ),
    "units": (
        lambda v: LI(3, 2)(ONE),
        ValueError,
        r"LI: events have 1 units but weight is .*\(3, 2\); in must be 1",
    ),
    "decay": (
        lambda v: v.integral(decay=0.0),
        ValueError,
        r"decay must be a positive number of seconds or None, got 0\.0",
    ),
    "negative": (
        lambda v: v.at(torch.tensor([-1.0])),
        ValueError,
        r"expected times of shape \(K,\), finite seconds >= 0",
    ),
    "NaN": (
        lambda v: v.at(torch.tensor([math.nan])),
        ValueError,
        r"expected times of shape \(K,\), finite seconds >= 0",
    ),
    "shape": (lambda v: v.at(torch.zeros(2, 2)), ValueError, r"expected times of shape \(K,\)"),
    "tau": (lambda v: LI(1, 2, tau_syn=-1.0)(ONE), ValueError, r"tau_syn of neuron 0 is -1.*constrain_"),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_with_what_to_do(call, kind, message):
    with pytest.raises(kind, match=message):
        call(LI(1, 2)(ONE))


READINGS = {
    "max": lambda v: v.max(),
    "integral": lambda v: v.integral(),
    "damped integral": lambda v: v.integral(decay=0.01),
    "mean": lambda v: v.mean(),
    "at": lambda v: v.at(torch.linspace(0.0, 0.1, 5)),
}


@on_both_backends
@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(weight, read, backend):
    layer = LI(1, 2, backend=backend)
    with torch.no_grad():
        layer.weight[0, 1] = weight
    events = Events.from_list([([], []), ([0.003], [0])], 1, 0.1)
    with pytest.raises(ValueError, match=r"sample 1, neuron 1: the voltage is not finite; weight or values hold NaN"):
        read(layer(events))


@on_both_backends
@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_weights_of_events_after_the_end_may_be_anything(read, backend):
    layer = LI(2, 2, backend=backend)
    with torch.no_grad():
        layer.weight[1] = math.nan
    late = Events.from_list([([0.003, 0.2], [0, 1])], 2, 0.1)
    expected = read(layer(late.crop(0.0, 0.1)))
    torch.testing.assert_close(read(layer(late)), expected)


@pytest.mark.parametrize("late", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_float32_integral_of_a_late_arrival(late):
    """Area and its derivatives are tiny differences here; a series keeps their digits."""
    found = []
    for dtype in (torch.float32, F64):
        layer = LI(1, 1, dtype=dtype, learn=("weight", "tau_mem", "tau_syn"))
        with torch.no_grad():
            layer.weight.fill_(1.0)
        total = layer(Events.from_list([([1.0 - late], [0])], 1, 1.0, dtype=F64)).integral()
        total.sum().backward()
        found.append([x.item() for x in (total, layer.weight.grad, layer.tau_mem.grad, layer.tau_syn.grad)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@on_both_backends
@pytest.mark.parametrize("apart", [0.0, 1e-7, 9e-7, 2e-6])
def test_maximum_where_time_constants_almost_agree(backend, apart):
    events = Events.from_list([([0.0, 0.002], [0, 1])], 2, 0.1, dtype=F64)
    events, given, moved = leaves(events, [1.0, 0.3], 0.01, 0.01 * (1 + apart))
    slopes = gradients(run_li(events, given, backend).max().sum(), moved)
    equal = leaves(Events.from_list([([0.0, 0.002], [0, 1])], 2, 0.1, dtype=F64), [1.0, 0.3], 0.01, 0.01 * (1 + 3e-6))
    near = gradients(run_li(equal[0], equal[1], "reference").max().sum(), equal[2])
    for name in ("tau_mem", "tau_syn", "weight"):
        assert error(slopes[name], near[name]) < 1e-5


def test_reference_maximum_with_an_event_that_adds_nothing_has_gradients():
    layer = LI(2, 1, bias=0.5, backend="reference", dtype=F64, learn=("weight", "tau_syn"))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.3923], [0.0]]))
    layer(Events.from_list([([0.0, 0.314], [0, 1])], 2, 0.5, dtype=F64)).max().sum().backward()
    assert layer.tau_syn.grad.item() == pytest.approx(8.8622, abs=1e-3)


def test_reprs_and_errors_at_construction():
    layer = LI(3, 2)
    assert repr(layer) == "LI(3, 2, tau_mem=0.02, tau_syn=0.005, bias=0)"
    assert (
        repr(layer(Events.from_list([([0.001], [0])], num_units=3, duration=0.01))) == "Voltage of 1 samples, 2 neurons"
    )
    with pytest.raises(ValueError, match=r"tau_syn of neuron 0 is 0\.0"):
        LI(3, 2, tau_syn=0.0)
