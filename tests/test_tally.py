"""What is counted of numbers and events: compiled, in torch, and as written down by hand."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from eventnet import Events, tally
from eventnet.counters_torch import in_turn
from eventnet.counting import count
from eventnet.kernels import cpu
from eventnet.tally import InSteps, Tally, by_step, sent_and_met

VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, float("nan"), float("inf"))


@pytest.fixture(params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setattr(cpu, "load", lambda: None)
    elif cpu.load() is None:
        pytest.skip("kernels are not compiled")
    yield request.param


def enumerated(x: Tensor) -> tuple[int, int, list[int], list[int]]:
    """Number by number."""
    rows, columns, graded = [0] * len(x), [0] * x.shape[1], 0
    for r, row in enumerate(x.tolist()):
        for c, number in enumerate(row):
            if number != 0:
                rows[r] += 1
                columns[c] += 1
                graded += number not in (1, -1)
    return sum(rows), graded, rows, columns


def plain(found: Tally) -> tuple[int, int, list[int], list[int]]:
    assert found.columns is not None
    return found.active, found.graded, found.rows.tolist(), found.columns.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 5), (17, 33), (0, 4), (2, 9000), (700, 300)])
def test_numbers_as_enumerated(path: str, dtype: torch.dtype, rows: int, size: int) -> None:
    torch.manual_seed(rows)
    x = torch.tensor(VALUES, dtype=dtype)[torch.randint(len(VALUES), (rows, size))]
    expected = enumerated(x)
    assert plain(tally.tally(x, columns=True))[:2] == expected[:2]
    if rows:
        assert plain(tally.tally(x, columns=True)) == expected
        turned = tally.tally(x.t(), columns=True)
        assert (turned.rows.tolist(), turned.columns.tolist()) == (expected[3], expected[2])
    assert tally.tally(x).columns is None


def test_numbers_do_not_depend_on_threads() -> None:
    x = torch.randn(900, 700) * (torch.rand(900, 700) < 0.3)
    threads = torch.get_num_threads()
    found = []
    try:
        for num in (1, 2, 5):
            torch.set_num_threads(num)
            found.append(plain(tally.tally(x, columns=True)))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2] == enumerated(x)


@given(st.data())
def test_events_as_their_raster(data: st.DataObject) -> None:
    durations = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    samples = []
    for _ in durations:
        events = sorted(
            data.draw(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 2), st.integers(-2, 2)), max_size=12))
        )
        samples.append(([0.01 * t for t, *_ in events], [u for _, u, _ in events], [float(v) for _, _, v in events]))
    graded = data.draw(st.booleans())
    offsets = torch.tensor([0, *torch.tensor([len(times) for times, _, _ in samples]).cumsum(0).tolist()])
    times, units, values = (torch.tensor([each for sample in samples for each in sample[k]]) for k in range(3))
    made = Events(
        times.double(),
        units.int(),
        offsets,
        3,
        0.1 * torch.tensor(durations, dtype=torch.float64),
        values.double() if graded else None,
    )
    fan = torch.tensor([5, 0, 7])
    for compiled in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not compiled:
                patch.setattr(cpu, "load", lambda: None)
            raster = made.to_dense(0.1)
            found = tally.tally(InSteps(made, 0.1), columns=True)
            assert plain(found) == enumerated(raster.flatten(0, 1))
            there = (made.times < made.duration[made.samples]) & (
                torch.ones(len(times), dtype=torch.bool) if made.values is None else made.values != 0
            )
            expected = int(there.sum()), int(fan[made.units[there].long()].sum())
            assert sent_and_met(made, fan) == expected
            steps = made.num_steps(0.1)
            profile = by_step(made, 0.1, steps, int(steps.max()))
            late = torch.minimum((made.times / 0.1 / (1 - 2.3e-16)).long(), steps[made.samples] - 1)
            assert profile.tolist() == torch.bincount(late, minlength=int(steps.max())).tolist()


def test_a_tensor_changed_in_place_is_looked_at_again() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    apart, in_place = (nn.Sequential(first, nn.ReLU(inplace=inplace), second) for inplace in (False, True))
    x = torch.randn(7, 6)
    assert count(in_place, [x], dt=1e-3) == count(apart, [x], dt=1e-3)
    assert count(in_place, [x], dt=1e-3)["2"].inputs < 7 * 5  # some were negative


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", ["padded", "packed", "one sample"])
@pytest.mark.parametrize("with_state", [False, True])
def test_layers_in_turn_say_what_the_whole_says(
    kind: type[nn.RNNBase], bidirectional: bool, form: str, with_state: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(4, 5, 3, bidirectional=bidirectional)
    parts = [torch.randn(n, 4) for n in (5, 7, 2)]
    x = {"padded": torch.randn(6, 3, 4), "packed": pack_sequence(parts, enforce_sorted=False), "one sample": parts[0]}[
        form
    ]
    shape = (3 * (1 + bidirectional), 3, 5) if form != "one sample" else (3 * (1 + bidirectional), 5)
    state = torch.randn(shape)
    hx = None if not with_state else (state, torch.randn(shape)) if kind is nn.LSTM else state
    forward = in_turn(layer)
    assert forward is not None
    output, end = layer(x, hx)
    (found, found_end), said = forward(x, hx)
    same = (found.data, output.data) if form == "packed" else (found, output)
    torch.testing.assert_close(*same)  # up to rounding: products of other shapes
    ends = zip(end, found_end, strict=True) if isinstance(end, tuple) else [(end, found_end)]
    for pair in ends:
        torch.testing.assert_close(*pair)
    assert len(said) == 3 and said[-1] is found
    assert count(layer, [x], dt=1e-3) and "forward" not in vars(layer)
