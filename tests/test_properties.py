"""Properties that hold for every layer and every input, checked on examples that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import F64, KINDS, NAMES, error, gradients, on_both_backends, run_li, run_lif, table, weighted, with_grad
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eventnet import Events

pytestmark = pytest.mark.usefixtures("one_thread")

UNITS, DURATION, GRID = 3, 0.05, 1e-3
Parameters = dict[str, Tensor]


@st.composite
def events(draw: st.DrawFn, min_samples: int = 1, graded: bool | None = None) -> Events:
    """One to three samples of up to five events on a grid of 1 ms, so that many coincide."""
    samples = []
    for _ in range(draw(st.integers(min_samples, 3))):
        pairs = draw(st.lists(st.tuples(st.integers(0, 49), st.integers(0, UNITS - 1)), max_size=5))
        pairs.sort(key=lambda pair: pair[0])
        samples.append(([GRID * t for t, _ in pairs], [u for _, u in pairs]))
    packed = Events.from_list(samples, UNITS, DURATION, dtype=F64)
    if graded is None:
        graded = draw(st.booleans())
    if not graded:
        return packed
    sizes = st.lists(st.integers(-4, 8), min_size=packed.num_events, max_size=packed.num_events)
    return replace(packed, values=torch.tensor(draw(sizes), dtype=F64) / 4)


@st.composite
def layers(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS)) -> Parameters:
    """A layer of one to five neurons."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    outputs = draw(st.integers(1, 5))
    kind = draw(st.sampled_from(kinds))
    scale = 0.8 if kind == "slow synapse" else 3.0  # its arrivals last longer
    weight = scale * (torch.randn(UNITS, outputs, dtype=F64, generator=generator) + 1)
    return {"weight": weight, **KINDS[kind](outputs, generator)}


def outputs_and_slopes(
    batch: Events, parameters: Parameters, backend: str
) -> tuple[Events, dict[str, Tensor], dict[str, Tensor]]:
    """Spikes, spike times and maxima and integrals by name, and gradients of their sum with coefficients by place."""
    batch, parameters, leaves = with_grad(batch, parameters)
    spikes, voltage = run_lif(batch, parameters, backend, return_voltage=True)
    membrane = run_li(batch, parameters, backend)
    named = {"times": table(spikes, 200), "max": membrane.max(), "integral": voltage.integral(0.02)}
    return spikes, named, gradients(sum(weighted(x) for x in named.values()), leaves)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-10) -> None:
    for name, value in expected.items():
        finite = torch.isfinite(value)
        assert torch.equal(torch.isfinite(found[name]), finite), name
        assert error(found[name][finite], value[finite]) <= bound, name


def holds_for(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``given`` for both backends, with fewer examples on the slow reference."""

    def decorate(property_: Callable[..., None]) -> Callable[..., None]:
        many = given(**drawn)(property_)
        few = settings(max_examples=6)(given(**drawn)(property_))

        @on_both_backends
        def test(backend: str) -> None:
            (few if backend == "reference" else many)(backend=backend)

        test.__name__, test.__doc__ = property_.__name__, property_.__doc__
        return test

    return decorate


# ---- layers ----------------------------------------------------------------------------------------------------------


@holds_for(batch=events(), parameters=layers(("slow membrane", "slow synapse", "per neuron")), steps=st.integers(1, 30))
def test_later_input_gives_the_same_output_later(backend, batch, parameters, steps):
    """From rest, with bias below the threshold: nothing happens before the first event."""
    delay = steps * GRID
    spikes = run_lif(batch, parameters, backend)
    later = run_lif(batch.shift(delay), parameters, backend)
    assert later.units.tolist() == spikes.units.tolist() and later.offsets.tolist() == spikes.offsets.tolist()
    assert torch.allclose(later.times, spikes.times + delay, rtol=0, atol=1e-11)


@holds_for(batch=events(min_samples=2), parameters=layers(), seed=st.integers(0, 99))
def test_samples_do_not_see_each_other(backend, batch, parameters, seed):
    """Any order, selection and repetition of samples gives exactly their own spikes."""
    whole = run_lif(batch, parameters, backend)
    chosen = torch.randint(batch.batch_size, (4,), generator=torch.Generator().manual_seed(seed))
    part, expected = run_lif(batch[chosen], parameters, backend), whole[chosen]
    assert torch.equal(part.times, expected.times) and torch.equal(part.units, expected.units)
    assert torch.equal(part.offsets, expected.offsets)


@holds_for(batch=events(min_samples=2), parameters=layers())
def test_gradient_of_a_batch_is_the_sum_over_its_parts(backend, batch, parameters):
    def slopes(part: Events) -> dict[str, Tensor]:
        part, moving, leaves = with_grad(part, parameters)
        spikes = run_lif(part, moving, backend)
        readings = (spikes.times**2).sum() + (run_li(part, moving, backend).max() ** 2).sum()
        return gradients(readings, {name: leaves[name] for name in parameters})

    whole, parts = slopes(batch), [slopes(batch.sample(i)) for i in range(batch.batch_size)]
    assert_close({name: sum(part[name] for part in parts) for name in whole}, whole, 1e-9)


@holds_for(batch=events(), parameters=layers(("slow membrane", "equal time constants", "slow synapse")))
def test_empty_samples_add_nothing(backend, batch, parameters):
    """In front, between and behind; a neuron at rest stays there."""
    empty = batch[:1].keep(torch.zeros(batch[:1].num_events, dtype=torch.bool))
    padded = Events.cat([empty, *(part for i in range(batch.batch_size) for part in (batch[i], empty))])
    spikes, expected = run_lif(padded, parameters, backend), run_lif(batch, parameters, backend)
    assert torch.equal(spikes.times, expected.times) and torch.equal(spikes.units, expected.units)
    assert spikes.lengths[0::2].sum() == 0


@holds_for(batch=events(), parameters=layers(("slow membrane", "slow synapse")), seed=st.integers(0, 99))
def test_silent_neurons_and_unused_inputs_change_nothing(backend, batch, parameters, seed):
    """Neurons without weight between others, inputs that never fire: same output, exactly zero gradients for them."""
    _, outputs, slopes = outputs_and_slopes(batch, parameters, backend)
    inputs, neurons = parameters["weight"].shape
    generator = torch.Generator().manual_seed(seed)
    row, column = (int(torch.randint(n + 1, (), generator=generator)) for n in (inputs, neurons))
    wide = parameters["weight"].new_zeros(inputs + 1, neurons + 1)
    rows, columns = ([k for k in range(n + 1) if k != skip] for n, skip in ((inputs, row), (neurons, column)))
    wide[row] = torch.randn(neurons + 1, dtype=F64, generator=generator)
    wide[:, column] = 0
    wide[torch.tensor(rows)[:, None], torch.tensor(columns)] = parameters["weight"]
    moved = replace(batch, num_units=inputs + 1, units=torch.tensor(rows)[batch.units.long()])

    batch_, given_, leaves = with_grad(moved, parameters | {"weight": wide})
    spikes, voltage = run_lif(batch_, given_, backend, return_voltage=True)
    membrane = run_li(batch_, given_, backend)
    found = {"times": table(spikes, 200), "max": membrane.max(), "integral": voltage.integral(0.02)}
    assert spikes.counts()[:, column].sum() == 0
    found = {name: value[:, columns] for name, value in found.items()}
    assert_close({name: value.detach() for name, value in found.items()}, outputs, 1e-12)
    new = gradients(sum(weighted(x) for x in found.values()), leaves)
    assert (new["weight"][row] == 0).all() and (new["weight"][:, column] == 0).all()
    assert_close(new | {"weight": new["weight"][rows][:, columns]}, slopes, 1e-9)


@holds_for(batch=events(), parameters=layers(), seed=st.integers(0, 99))
def test_order_of_neurons_inputs_and_simultaneous_events_does_not_matter(backend, batch, parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    _, outputs, slopes = outputs_and_slopes(batch, parameters, backend)
    inputs, neurons = parameters["weight"].shape
    into, out = torch.randperm(inputs, generator=generator), torch.randperm(neurons, generator=generator)
    shuffled = {name: x if x.dim() == 0 else x[..., out] for name, x in parameters.items()}
    shuffled["weight"] = shuffled["weight"][into]
    ties = torch.rand(batch.num_events, generator=generator, dtype=F64).argsort()  # any order, then sorted by time
    ties = ties[batch.times[ties].argsort(stable=True)]
    ties = ties[batch.samples[ties].argsort(stable=True)]
    where = into.argsort()
    other = replace(
        batch,
        times=batch.times[ties],
        units=where[batch.units[ties].long()],
        values=None if batch.values is None else batch.values[ties],
    )
    fresh, given_, leaves = with_grad(other, shuffled)
    spikes, voltage = run_lif(fresh, given_, backend, return_voltage=True)
    found = {
        "times": table(spikes, 200),
        "max": run_li(fresh, given_, backend).max(),
        "integral": voltage.integral(0.02),
    }
    found = {name: value[:, out.argsort()] for name, value in found.items()}
    assert_close({name: value.detach() for name, value in found.items()}, outputs, 1e-10)
    new = gradients(sum(weighted(x) for x in found.values()), leaves)
    restored = {name: x if x.dim() == 0 else x[..., out.argsort()] for name, x in new.items() if name in parameters}
    restored["weight"] = restored["weight"][where]
    assert_close(restored, {name: slopes[name] for name in parameters}, 1e-8)


@holds_for(batch=events(), parameters=layers(), end=st.integers(1, 49))
def test_what_comes_after_the_end_does_not_count(backend, batch, parameters, end):
    """A shorter trial gives the spikes of the longer one up to its end, and later events have no gradient at all."""
    stop = (end - 0.5) * GRID
    short = replace(batch, duration=torch.full((batch.batch_size,), stop, dtype=F64))
    expected = run_lif(batch, parameters, backend)
    expected = expected.keep(expected.times <= stop)
    fresh, given_, leaves = with_grad(short, parameters)
    spikes, voltage = run_lif(fresh, given_, backend, return_voltage=True)
    assert spikes.units.tolist() == expected.units.tolist()
    assert torch.allclose(spikes.times, expected.times, rtol=0, atol=1e-12)
    loss = weighted(spikes.times) + weighted(voltage.integral()) + weighted(run_li(fresh, given_, backend).max())
    slopes = gradients(loss, leaves)
    late = batch.times > stop
    assert (slopes["times"][late] == 0).all()
    if batch.values is not None:
        assert (slopes["values"][late] == 0).all()


@holds_for(batch=events(graded=False), parameters=layers())
def test_graded_events_scale_the_weight(backend, batch, parameters):
    """Values of two are doubled weights, and two events at once are one of size two."""
    doubled = run_lif(batch, parameters | {"weight": 2 * parameters["weight"]}, backend)
    for twice in (replace(batch, values=torch.full_like(batch.times, 2.0)), batch.merge(batch)):
        spikes = run_lif(twice, parameters, backend)
        assert spikes.units.tolist() == doubled.units.tolist()
        assert torch.allclose(spikes.times, doubled.times, rtol=0, atol=1e-11)


@holds_for(batch=events(), parameters=layers(), factor=st.sampled_from([1e-3, 0.1, 10.0, 1e3]))
def test_units_of_time_and_voltage_are_arbitrary(backend, batch, parameters, factor):
    """All times scaled scale the spikes; all voltages scaled change nothing."""
    spikes = run_lif(batch, parameters, backend)
    slower = {name: x * factor if name.startswith("tau") else x for name, x in parameters.items()}
    stretched = replace(batch, times=batch.times * factor, duration=batch.duration * factor)
    slow = run_lif(stretched, slower, backend)
    assert slow.units.tolist() == spikes.units.tolist()
    assert torch.allclose(slow.times, spikes.times * factor, rtol=1e-9, atol=0)
    louder = {name: x if name.startswith("tau") else x * factor for name, x in parameters.items()}
    loud = run_lif(batch, louder, backend)
    assert loud.units.tolist() == spikes.units.tolist()
    assert torch.allclose(loud.times, spikes.times, rtol=1e-9, atol=0)


# ---- events ----------------------------------------------------------------------------------------------------------


def as_sets(batch: Events) -> list[list[tuple[float, int, float]]]:
    """Each sample's (time, unit, value), in an order that does not depend on ties."""
    values = torch.ones_like(batch.times) if batch.values is None else batch.values
    rows = list(zip(batch.times.tolist(), batch.units.tolist(), values.tolist(), strict=True))
    return [sorted(rows[a:b]) for a, b in zip(batch.offsets.tolist(), batch.offsets.tolist()[1:], strict=False)]


def checked(batch: Events) -> Events:
    """The same through the constructor, which refuses anything out of order."""
    return Events(batch.times, batch.units, batch.offsets, batch.num_units, batch.duration, batch.values)


@given(batch=events())
def test_samples_put_together_again_are_the_batch(batch):
    for parts in ([batch.sample(i) for i in range(batch.batch_size)], [batch[:1], batch[1:]]):
        whole = checked(Events.cat(parts))
        assert as_sets(whole) == as_sets(batch) and torch.equal(whole.duration, batch.duration)
    assert as_sets(checked(batch[torch.arange(batch.batch_size).flip(0)])) == as_sets(batch)[::-1]
    assert [len(t) for t, _ in batch.to_list()] == batch.lengths.tolist()


@given(batch=events(graded=False), seed=st.integers(0, 99))
def test_split_and_merge_are_inverse(batch, seed):
    mask = torch.rand(batch.num_events, generator=torch.Generator().manual_seed(seed)) < 0.5
    merged = checked(batch.keep(mask).merge(batch.keep(~mask)))
    assert as_sets(merged) == as_sets(batch)
    assert torch.equal(merged.counts(), batch.counts())


@given(batch=events(), cut=st.integers(0, 50))
def test_cropped_parts_make_up_the_whole(batch, cut):
    stop = cut * GRID
    before, after = batch.crop(0.0, stop), batch.crop(stop, DURATION)
    assert torch.allclose(before.duration + after.duration, batch.duration)
    whole = checked(before).merge(checked(after).shift(stop))
    for found, expected in zip(as_sets(whole), as_sets(batch), strict=True):
        assert [u for _, u, _ in found] == [u for _, u, _ in expected] or len(found) == len(expected)
        assert torch.allclose(torch.tensor([t for t, *_ in found]), torch.tensor([t for t, *_ in expected]))


@given(batch=events(), seed=st.integers(0, 99))
def test_sort_restores_any_order(batch, seed):
    order = torch.rand(batch.num_events, generator=torch.Generator().manual_seed(seed)).argsort()
    order = order[batch.samples[order].argsort(stable=True)]
    values = None if batch.values is None else batch.values[order]
    mixed = Events.trusted(
        batch.times[order], batch.units[order], batch.offsets, batch.num_units, batch.duration, values
    )
    assert as_sets(checked(mixed.sort())) == as_sets(batch)


@given(
    seed=st.integers(0, 2**16),
    shape=st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 4)),
    dt=st.sampled_from([1e-3, 0.7e-3, 1 / 3, 1e-6, 0.1, 7.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_raster_survives_the_round_trip(seed, shape, dt, dtype):
    raster = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).clamp(min=0).to(dtype)
    batch = checked(Events.from_dense(raster, dt))
    assert batch.num_events == raster.sum() and batch.dtype == dtype
    again = batch.to_dense(dt)
    if shape[1] == 0:
        assert again.shape[1:] == raster.shape[1:]
    else:
        assert torch.equal(again, raster)


@given(batch=events(), seed=st.integers(0, 99))
def test_counts_first_times_and_traces_agree(batch, seed):
    assume(batch.num_events)
    counts, first = batch.counts(), batch.first_times()
    assert counts.sum() == batch.num_events
    assert torch.equal(torch.isfinite(first), counts > 0)
    size = None if batch.values is None else torch.ones_like(batch.times)
    trace = replace(batch, values=size).to_trace(torch.tensor([DURATION], dtype=F64), tau=1e9)
    assert torch.allclose(trace[:, 0], counts.to(F64))
    assert torch.equal(batch.to(torch.float32).counts(), counts)


def test_the_names_of_the_parameters():
    """The helpers and the layers speak of the same five parameters."""
    for kind in KINDS.values():
        assert set(kind(3, torch.Generator().manual_seed(0))) == set(NAMES)
