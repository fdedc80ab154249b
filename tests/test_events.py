"""Events: construction and its errors, parts, other forms, and being carried around by torch."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import F64, random_events
from torch import Tensor
from torch.utils import _pytree as pytree

from eventnet import Events

PAIR = Events.from_list([([0.1, 0.2, 0.2], [0, 2, 1]), ([], []), ([0.05], [2])], 3, 0.5, dtype=F64)


def graded(events: Events = PAIR) -> Events:
    values = torch.arange(1, events.num_events + 1, dtype=events.dtype)
    return Events(events.times, events.units, events.offsets, events.num_units, events.duration, values)


def assert_same(found: Events, expected: Events) -> None:
    assert torch.equal(found.times, expected.times) and torch.equal(found.units, expected.units)
    assert torch.equal(found.offsets, expected.offsets) and torch.equal(found.duration, expected.duration)
    assert found.num_units == expected.num_units and found.dtype == expected.dtype
    assert (found.values is None) == (expected.values is None)
    assert found.values is None or torch.equal(found.values, expected.values)


# ---- construction ------------------------------------------------------------------------------------------


def test_fields_have_their_dtypes():
    events = Events(
        torch.tensor([0.1]),
        torch.tensor([1], dtype=torch.uint8),
        torch.tensor([0, 1], dtype=torch.int32),
        2,
        1.0,
    )
    assert (events.times.dtype, events.units.dtype) == (torch.float32, torch.int32)
    assert (events.offsets.dtype, events.duration.dtype) == (torch.int64, torch.float32)
    assert events.duration.tolist() == [1.0]
    assert PAIR.batch_size == len(PAIR) == 3 and PAIR.num_events == 4
    assert PAIR.lengths.tolist() == [3, 0, 1] and PAIR.samples.tolist() == [0, 0, 0, 2]
    assert repr(PAIR) == "Events(4 events, 3 samples, 3 units, 0.5 s, float64, cpu)"
    assert repr(graded()[:0]) == "Events(0 events, 0 samples, 3 units, - s, float64, cpu, graded)"


def test_from_list_takes_lists_arrays_and_tensors_and_sorts_on_demand():
    expected = Events.from_list([([0.1, 0.2], [1, 0])], 2, 1.0, dtype=F64)
    for make in (np.array, lambda x: torch.tensor(x, dtype=F64 if 0.1 in x else None), list):
        times, units = make([0.1, 0.2]), make([1, 0])
        assert_same(Events.from_list([(times, units)], 2, 1.0, dtype=F64), expected)
    assert_same(Events.from_list([([0.2, 0.1], [0, 1])], 2, 1.0, dtype=F64, sort=True), expected)


def test_durations_per_sample():
    events = Events.from_list([([0.1], [0]), ([], [])], 1, [0.5, 0.25])
    assert events.duration.tolist() == [0.5, 0.25]
    assert repr(events).count("0.25..0.5 s") == 1


def test_from_latency_sorts_and_differentiates():
    values = torch.tensor([[0.0, 1.0, 0.25], [0.5, 0.1, 0.9]], dtype=F64, requires_grad=True)
    events = Events.from_latency(values, 0.01, 0.03, minimum=0.2)
    assert events.units.tolist() == [1, 2, 2, 0]
    assert events.times.tolist() == pytest.approx([0.01, 0.025, 0.012, 0.02])
    assert events.duration.tolist() == [0.03, 0.03]
    (slope,) = torch.autograd.grad(events.times.sum(), values)
    assert slope.tolist() == [pytest.approx(row) for row in ([0, -0.02, -0.02], [-0.02, 0, -0.02])]


def structured(t: list[int], **fields: list[int]) -> np.ndarray:
    array = np.zeros(len(t), dtype=[("t", np.int64), *((name, np.int16) for name in fields)])
    array["t"] = t
    for name, values in fields.items():
        array[name] = values
    return array


def test_from_structured_gives_frames_as_tonic_does():
    array = structured([1000, 3000, 3000], x=[1, 3, 0], y=[0, 1, 2], p=[1, 0, 1])
    events = Events.from_structured(array, (4, 3, 2), dtype=F64)
    frames = events.to_dense(1e-3).reshape(-1, 1, 2, 3, 4)  # step, batch, polarity, y, x
    assert frames.nonzero().tolist() == [[1, 0, 1, 0, 1], [3, 0, 0, 1, 3], [3, 0, 1, 2, 0]]
    assert events.duration.item() == pytest.approx(3001e-6)
    cochlea = Events.from_structured([structured([5], x=[2]), structured([], x=[])], (7, 1, 1), duration=1.0)
    assert (cochlea.num_units, cochlea.units.tolist(), cochlea.lengths.tolist()) == (7, [2], [1, 0])


def field(**changes: object) -> Callable[[], Events]:
    """Construct PAIR with some fields changed."""
    fields = {name: getattr(PAIR, name) for name in ("times", "units", "offsets", "num_units", "duration")}
    return lambda: Events(**{**fields, **changes})  # type: ignore[arg-type]


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


A_LIST = [([0.1], [0])]
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "NaN time": (
        field(times=times(0.1, math.nan, 0.2, 0.05)),
        ValueError,
        r"sample 0, event 1: time nan s; expected finite",
    ),
    "negative time": (
        field(times=times(0.1, 0.2, 0.2, -0.05)),
        ValueError,
        r"sample 2, event 0: time -0.05 s; expected .* >= 0",
    ),
    "infinite time": (
        field(times=times(0.1, 0.2, math.inf, 0.05)),
        ValueError,
        r"sample 0, event 2: time inf s",
    ),
    "unsorted": (
        field(times=times(0.1, 0.3, 0.2, 0.05)),
        ValueError,
        r"sample 0, event 2: time 0.2 s comes before its predecessor.*sort=True",
    ),
    "unit too large": (
        field(units=torch.tensor([0, 2, 1, 3])),
        ValueError,
        r"sample 2, event 0: unit 3 is outside \[0, 3\)",
    ),
    "unit negative": (
        field(units=torch.tensor([0, -1, 1, 2])),
        ValueError,
        r"sample 0, event 1: unit -1 is outside \[0, 3\)",
    ),
    "units float": (field(units=times(0, 1, 1, 2)), TypeError, r"units must be integers, got torch.float64"),
    "units bool": (
        field(units=torch.ones(4, dtype=torch.bool)),
        TypeError,
        r"units must be integers, got torch.bool",
    ),
    "times int": (
        field(times=torch.arange(4)),
        TypeError,
        r"times must be float32 or float64 seconds, got torch.int64",
    ),
    "times half": (
        field(times=times(0.1, 0.2, 0.2, 0.05).half()),
        TypeError,
        r"float32 or float64 seconds, got torch.float16",
    ),
    "times list": (
        field(times=[0.1]),
        TypeError,
        r"times must be a tensor, got list; Events.from_list takes lists",
    ),
    "times 2-d": (
        field(times=torch.zeros(2, 2)),
        ValueError,
        r"times must be one-dimensional, got shape \(2, 2\)",
    ),
    "lengths": (field(times=times(0.1)), ValueError, r"1 times but 4 units; every event needs one of each"),
    "device": (
        field(units=PAIR.units.to("meta")),
        ValueError,
        r"units is on meta but times is on cpu; move all to one device",
    ),
    "offsets end": (
        field(offsets=torch.tensor([0, 3])),
        ValueError,
        r"offsets must ascend from 0 to the number of events, 4",
    ),
    "offsets order": (
        field(offsets=torch.tensor([0, 3, 1, 4])),
        ValueError,
        r"must ascend .* got \[0, 3, 1, 4\]",
    ),
    "offsets float": (field(offsets=times(0, 4)), TypeError, r"offsets must be integers, got torch.float64"),
    "duration NaN": (
        field(duration=math.nan),
        ValueError,
        r"sample 0: duration nan s; expected a finite number of seconds >= 0",
    ),
    "time in float32": (
        lambda: Events.from_list([([-0.1], [0])], 1, 1.0),
        ValueError,
        r"sample 0, event 0: time -0.1 s;",
    ),
    "duration in float32": (
        lambda: Events.from_list([([0.1], [0])], 1, -0.1),
        ValueError,
        r"sample 0: duration -0.1 s;",
    ),
    "duration negative": (field(duration=[1.0, -1.0, 1.0]), ValueError, r"sample 1: duration -1.0 s"),
    "duration shape": (
        field(duration=[1.0, 2.0]),
        ValueError,
        r"one number or \(3,\) for 3 samples, got \(2,\)",
    ),
    "values dtype": (
        field(values=torch.ones(4)),
        ValueError,
        r"values must be \(4,\) torch.float64 like times, got \(4,\) torch.float32",
    ),
    "values NaN": (
        field(values=times(1, 1, 1, math.nan)),
        ValueError,
        r"sample 2, event 0: value nan; expected a finite number",
    ),
    "list lengths": (
        lambda: Events.from_list([*A_LIST, ([0.1, 0.2], [0])], 1, 1.0),
        ValueError,
        r"from_list: sample 1 has 2 times but 1 units",
    ),
    "list units": (
        lambda: Events.from_list([([0.1], [0.5])], 1, 1.0),
        TypeError,
        r"sample 0 has units of dtype torch.float64",
    ),
    "raster shape": (
        lambda: Events.from_dense(torch.zeros(3, 2), 1.0),
        ValueError,
        r"shape \(T, B, N\), got \(3, 2\)",
    ),
    "raster graded": (
        lambda: Events.from_dense(torch.full((1, 1, 1), 0.5), 1.0),
        ValueError,
        r"must hold spike counts",
    ),
    "raster negative": (
        lambda: Events.from_dense(-torch.ones(1, 1, 1), 1.0),
        ValueError,
        r"must hold spike counts",
    ),
    "raster dt": (
        lambda: Events.from_dense(torch.ones(1, 1, 1), 0.0),
        ValueError,
        r"dt must be a positive number of seconds",
    ),
    "dense dt": (
        lambda: PAIR.to_dense(-1.0),
        ValueError,
        r"dt must be a positive number of seconds, got -1.0",
    ),
    "latency range": (
        lambda: Events.from_latency(torch.tensor([[0.5, 0.1], [0.2, 1.5]]), 0.0, 1.0),
        ValueError,
        r"sample 1, unit 1: value 1.5 is outside \[0, 1\]",
    ),
    "latency NaN": (
        lambda: Events.from_latency(torch.tensor([[math.nan]]), 0.0, 1.0),
        ValueError,
        r"sample 0, unit 0: value nan",
    ),
    "latency shape": (
        lambda: Events.from_latency(torch.zeros(3), 0.0, 1.0),
        ValueError,
        r"shape \(B, N\), got \(3,\)",
    ),
    "latency times": (
        lambda: Events.from_latency(torch.zeros(1, 1), 0.2, 0.1),
        ValueError,
        r"0 <= t_min <= t_max",
    ),
    "structured x": (
        lambda: Events.from_structured(structured([1, 2], x=[0, 4]), (4, 1, 1)),
        ValueError,
        r"sample 0, event 1: x = 4 is outside \[0, 4\) of sensor_size",
    ),
    "structured t": (
        lambda: Events.from_structured(np.zeros(1, dtype=[("x", int)]), (4, 1, 1)),
        TypeError,
        r"sample 0 has fields \('x',\); expected at least t",
    ),
    "cat nothing": (lambda: Events.cat([]), ValueError, r"expected at least one Events, got none"),
    "cat units": (
        lambda: Events.cat([PAIR, Events.from_list([], 4, 1.0)]),
        ValueError,
        r"item 1 has 4 units, item 0 has 3",
    ),
    "cat graded": (
        lambda: Events.cat([PAIR, graded()]),
        ValueError,
        r"some items have values .* and some have none",
    ),
    "merge shape": (lambda: PAIR.merge(PAIR[:2]), ValueError, r"expected 3 samples of 3 units, got 2 of 3"),
    "merge graded": (lambda: PAIR.merge(graded()), ValueError, r"one side has values"),
    "sample": (lambda: PAIR.sample(3), IndexError, r"no sample 3 in a batch of 3"),
    "crop": (
        lambda: PAIR.crop(0.3, 0.1),
        ValueError,
        r"expected 0 <= start <= stop seconds, got 0.3 and 0.1",
    ),
    "shift below 0": (lambda: PAIR.shift(-0.07), ValueError, r"sample 2, event 0 would move to -0\.0\d+ s"),
    "shift shape": (
        lambda: PAIR.shift(torch.zeros(7)),
        ValueError,
        r"a number or \(3,\), one per sample, got \(7,\); Events.retime",
    ),
    "trace tau": (lambda: PAIR.to_trace(times(0.1), tau=0.0), ValueError, r"tau must be positive"),
    "trace times": (
        lambda: PAIR.to_trace(torch.zeros(2, 2), tau=1.0),
        ValueError,
        r"expected times of shape \(K,\)",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_with_where_it_is(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


# ---- parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [1, -1, np.int64(2), torch.tensor(0)], ids=repr)
def test_one_sample_by_number(index):
    expected = PAIR.to_list()[int(index)]
    one = graded()[index]
    assert one.batch_size == 1
    assert torch.equal(one.times, expected[0]) and torch.equal(one.units, expected[1])
    assert one.values.tolist() == [[1.0, 2.0, 3.0], [], [4.0]][int(index)]


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        ([2, 0, 0], [2, 0, 0]),
        (torch.tensor([1]), [1]),
        (torch.tensor([True, False, True]), [0, 2]),
        ([], []),
    ],
    ids=repr,
)
def test_several_samples_at_once(index, chosen):
    parts = [graded().sample(i) for i in chosen]
    assert_same(graded()[index], Events.cat(parts) if parts else graded().keep(torch.zeros(4, dtype=torch.bool))[:0])


def test_crop_keeps_what_is_inside_and_counts_from_its_start():
    part = graded().crop(0.1, 0.2)
    assert part.times.tolist() == [0.0] and part.values.tolist() == [1.0]
    assert part.lengths.tolist() == [1, 0, 0]
    assert part.duration.tolist() == pytest.approx([0.1] * 3)
    assert PAIR.crop(0.1, 9.0).duration.tolist() == pytest.approx([0.4] * 3)


def test_shift_by_number_sample_and_event():
    assert_same(PAIR.shift(0.0), PAIR)
    moved = PAIR.shift(0.25)
    assert moved.times.tolist() == pytest.approx([0.35, 0.45, 0.45, 0.3])
    assert moved.duration.tolist() == [0.75] * 3
    each = PAIR.shift(times(0.0, 0.5, 0.25))
    assert each.times.tolist() == pytest.approx([0.1, 0.2, 0.2, 0.3])
    assert each.duration.tolist() == [0.5, 1.0, 0.75]
    own = graded().retime(graded().times + times(0.15, 0.0, -0.1, 0.0))
    assert own.times.tolist() == pytest.approx([0.1, 0.2, 0.25, 0.05])
    assert own.units.tolist() == [1, 2, 0, 2] and own.values.tolist() == [3.0, 2.0, 1.0, 4.0]
    assert own.duration.tolist() == [0.5] * 3


def test_shift_per_sample_also_where_there_are_as_many_events_as_samples():
    two = Events.from_list([([0.1, 0.2], [0, 0]), ([], [])], 1, 1.0, dtype=F64)
    assert two.shift(times(0.1, 0.5)).times.tolist() == pytest.approx([0.2, 0.3])


def test_shift_is_differentiable():
    amount = torch.tensor(0.1, dtype=F64, requires_grad=True)
    PAIR.shift(amount).times.sum().backward()
    assert amount.grad == 4


def test_first_times_and_counts():
    first = PAIR.first_times()
    assert first.tolist() == [[0.1, 0.2, 0.2], [math.inf] * 3, [math.inf, math.inf, 0.05]]
    assert PAIR.counts().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]
    again = Events.from_list([([0.1, 0.2, 0.3], [1, 1, 0])], 2, 1.0, dtype=F64)
    moving = again.times.clone().requires_grad_()
    fresh = Events(moving, again.units, again.offsets, 2, 1.0)
    fresh.first_times().sum().backward()
    assert moving.grad.tolist() == [1, 0, 1]  # the second event of unit 1 does not matter


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
def test_nothing_at_all_is_legal(shape):
    batch, units = shape
    empty = Events.from_list([([], [])] * batch, units, 0.3)
    assert empty.counts().shape == empty.first_times().shape == (batch, units)
    assert empty.to_trace(torch.tensor([0.1]), 0.1).shape == (batch, 1, units)
    assert empty.to_dense(0.1).shape[1:] == (batch, units)
    assert_same(empty.sort(), empty)
    assert_same(empty.merge(empty), empty)
    assert_same(empty[[]], empty[:0])
    assert empty.crop(0.0, 0.1).num_events == empty.shift(0.1).num_events == 0
    assert repr(empty)


# ---- other forms -------------------------------------------------------------------------------------------


def test_trace_is_the_sum_of_exponentials():
    events = graded(random_events(torch.Generator().manual_seed(0), [9, 0, 6], 3, 0.05))
    grid = times(0.049, 0.0, 0.013, 0.013)
    tau = times(0.01, 0.02, 0.005)
    expected = torch.zeros(3, 4, 3, dtype=F64)
    for t, b, u, value in zip(events.times, events.samples, events.units.long(), events.values, strict=True):
        expected[b, :, u] += torch.where(grid >= t, value * torch.exp(-(grid - t) / tau[u]), 0.0)
    assert torch.allclose(events.to_trace(grid, tau), expected, rtol=1e-12, atol=0)
    shared = events.to_trace(grid, 0.01)
    assert torch.allclose(shared[..., 0], expected[..., 0], rtol=1e-12, atol=0)


def test_trace_is_differentiable_in_everything():
    base = graded(random_events(torch.Generator().manual_seed(1), [5, 4], 2, 1.0))

    def trace(at: Tensor, values: Tensor, tau: Tensor) -> Tensor:
        events = Events.trusted(at, base.units, base.offsets, 2, base.duration, values)
        return events.to_trace(times(0.31, 0.97), tau)

    inputs = [base.times.clone(), base.values.clone(), times(0.3, 0.5)]
    assert torch.autograd.gradcheck(trace, [x.requires_grad_() for x in inputs], atol=1e-8)


def test_dense_sums_values_and_leaves_out_what_comes_after_the_end():
    events = Events(times(0.01, 0.011, 0.05), torch.tensor([0, 0, 1]), torch.tensor([0, 3]), 2, 0.02, times(2, 0.5, 9))
    assert events.to_dense(0.01)[:, 0].tolist() == [[0, 0], [2.5, 0]]


@pytest.mark.parametrize("dt", [1e-3, 0.7e-3, 1e-6, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_dense_takes_a_rounded_multiple_of_dt_for_the_multiple_and_nothing_else(dt, dtype):
    steps = 100_000
    at = torch.arange(steps + 1).to(dtype) * torch.tensor(dt, dtype=dtype)  # two roundings
    exact = (torch.arange(steps + 1, dtype=F64) * dt).to(dtype)  # one
    for edges in (at, exact):
        batch = Events(edges[:-1], torch.zeros(steps, dtype=torch.int32), torch.tensor([0, steps]), 1, edges[-1])
        assert torch.equal(batch.to_dense(dt).flatten(), torch.ones(steps, dtype=dtype))
    before = exact
    for _ in range(5):
        before = torch.nextafter(before, torch.zeros_like(before))
    early = Events(before[1:], torch.zeros(steps, dtype=torch.int32), torch.tensor([0, steps]), 1, exact[-1])
    assert torch.equal(early.to_dense(dt).flatten(), torch.ones(steps, dtype=dtype))  # each in the step that ends there


def test_dense_keeps_an_event_just_before_the_end():
    end = torch.tensor(0.1)
    batch = Events(torch.nextafter(end, end * 0)[None], torch.tensor([0]), torch.tensor([0, 1]), 1, end)
    assert batch.to_dense(0.01).flatten().tolist() == [0] * 9 + [1]


# ---- carried around ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [PAIR, graded(), PAIR[:0]], ids=repr)
@pytest.mark.parametrize(
    "carry",
    [
        lambda e: pickle.loads(pickle.dumps(e)),
        copy.copy,
        copy.deepcopy,
        lambda e: pytree.tree_map(lambda x: x, e),
    ],
    ids=["pickle", "copy", "deepcopy", "pytree"],
)
def test_copies_are_the_same(carry, events):
    found = carry(events)
    assert isinstance(found, Events)
    assert_same(found, events)


def test_loading_weights_only_builds_events_and_checks_them(tmp_path):
    torch.save({"good": graded()}, tmp_path / "good.pt")
    code = f"import torch, eventnet\nprint(torch.load({str(tmp_path / 'good.pt')!r}, weights_only=True)['good'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.strip() == repr(graded()), result.stderr
    assert_same(torch.load(tmp_path / "good.pt", weights_only=True)["good"], graded())
    torch.save(Events.trusted(PAIR.times, PAIR.units + 90, PAIR.offsets, 3, PAIR.duration), tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"sample 0, event 0: unit 9\d is outside \[0, 3\)"):
        torch.load(tmp_path / "bad.pt", weights_only=True)


def test_pytree_maps_over_the_tensors():
    leaves, spec = pytree.tree_flatten(graded())
    assert sum(isinstance(x, Tensor) for x in leaves) == 5
    doubled = pytree.tree_map_only(Tensor, lambda x: 2 * x, graded())
    assert torch.equal(doubled.times, 2 * PAIR.times) and doubled.num_units == 3
    assert_same(pytree.tree_unflatten(leaves, spec), graded())


def test_to_converts_times_and_values_only():
    single = graded().to(torch.float32)
    assert single.times.dtype == single.values.dtype == single.duration.dtype == torch.float32
    assert (single.units.dtype, single.offsets.dtype) == (torch.int32, torch.int64)
    assert single.to(F64).dtype == F64
    elsewhere = graded().to("meta")
    assert {x.device.type for x in pytree.tree_leaves(elsewhere) if isinstance(x, Tensor)} == {"meta"}
    at = PAIR.times.clone().requires_grad_()
    Events(at, PAIR.units, PAIR.offsets, 3, 0.5).to(torch.float32).times.sum().backward()
    assert at.grad.tolist() == [1.0] * 4


def test_detach_leaves_the_graph():
    moving = Events(PAIR.times.clone().requires_grad_(), PAIR.units, PAIR.offsets, 3, 0.5)
    assert moving.times.requires_grad and not moving.detach().times.requires_grad


def test_events_travel_from_loader_workers():
    """Samples are made in another process and collated there."""
    samples = [graded()[i] for i in range(3)] * 2
    loader = torch.utils.data.DataLoader(samples, batch_size=3, num_workers=1, collate_fn=Events.cat)
    batches = list(loader)
    assert len(batches) == 2
    for batch in batches:
        assert_same(batch, graded())


class OneOf(torch.utils.data.Dataset):
    """Samples that share the memory of their batch."""

    def __init__(self, events: Events) -> None:
        self.events = events

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, i: int) -> Events:
        return self.events.sample(i)


def test_a_sample_is_pickled_without_the_rest_of_its_batch():
    batch = graded(random_events(torch.Generator().manual_seed(2), [3, 5000], 4, 1.0))
    alone = batch.sample(0)
    assert len(pickle.dumps(alone)) < 3000 < 100_000 < len(pickle.dumps(batch))
    assert_same(pickle.loads(pickle.dumps(alone)), alone)
    leaf = Events(batch.times.clone().requires_grad_(), batch.units, batch.offsets, 4, 1.0)
    assert pickle.loads(pickle.dumps(leaf.sample(0))).times.requires_grad


def test_a_whole_batch_is_pickled_without_a_copy():
    batch = graded()
    assert batch.__getstate__()["times"] is batch.times


def test_loader_workers_send_a_sample_without_the_rest_of_its_batch():
    batch = random_events(torch.Generator().manual_seed(3), [3, 5000], 4, 1.0)
    loader = torch.utils.data.DataLoader(OneOf(batch), batch_size=None, num_workers=1)
    for i, found in enumerate(loader):
        assert_same(found, batch.sample(i))
        assert found.times.untyped_storage().nbytes() == found.times.nbytes


def test_fields_can_not_be_replaced():
    with pytest.raises(AttributeError):
        PAIR.times = torch.zeros(4)  # type: ignore[misc]


def test_numbers_out_of_range_are_refused_where_they_enter():
    with pytest.raises(ValueError, match=r"unit 4294967297 is outside \[0, 3\)"):
        Events(torch.tensor([0.1]), torch.tensor([2**32 + 1]), torch.tensor([0, 1]), 3, torch.tensor(1.0))
    values = torch.rand(1, 2)
    with pytest.raises(ValueError, match="t_min <= t_max"):
        Events.from_latency(values, 0.0, torch.inf)
    for duration in (torch.nan, -1.0):
        with pytest.raises(ValueError, match="sample 0: duration"):
            Events.from_latency(values, 0.0, 0.02, duration=duration)
    with pytest.raises(ValueError, match="dt must be a positive"):
        Events.from_dense(torch.ones(1, 1, 1), dt=torch.inf)
    with pytest.raises(TypeError, match=r"float32 or float64 seconds, not torch\.int32"):
        Events.from_latency(values, 0.0, 0.02).to(torch.int32)
    assert Events.from_dense(torch.ones(2, 1, 1, dtype=torch.bool), dt=1e-3).num_events == 2
