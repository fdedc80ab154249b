"""SegmentPool: the dense product's overlaps, the theory's probabilities, learning, and what is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eventnet import Events
from eventnet.layers import segments as module
from eventnet.layers.codes import Codes
from eventnet.layers.segments import SegmentPool
from eventnet.layers.sparse_codes import false_match, false_negative

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pool(segments: int, units: int, capacity: int, seed: int) -> SegmentPool:
    """Rows of different lengths, some empty, some permanences too small to count."""
    generator = seeded(seed)
    pool = SegmentPool(segments, units, capacity)
    sizes = torch.randint(0, min(capacity, units) + 1, (segments,), generator=generator).tolist()
    pool.learn(range(segments), [torch.randperm(units, generator=generator)[:k] for k in sizes])
    pool.permanence *= torch.rand(pool.permanence.shape, generator=generator)
    return pool


def random_codes(batch: int, units: int, seed: int) -> Codes:
    generator = seeded(seed)
    sizes = torch.randint(0, units + 1, (batch,), generator=generator).tolist()
    return Codes.from_list([torch.randperm(units, generator=generator)[:k] for k in sizes], units)


def dense_overlap(pool: SegmentPool, codes: Codes) -> Tensor:
    """The matrix product that the pool does without."""
    weight = torch.zeros(pool.num_segments, pool.num_units)
    segment, place = (pool.permanence >= pool.connected).nonzero(as_tuple=True)
    weight[segment, pool.units[segment, place].long()] = 1.0
    code = torch.zeros(codes.batch_size, codes.num_units)
    code[codes.rows(), codes.units] = 1.0
    return (code @ weight.T).to(torch.int32)


# ---- recognising ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 25), st.integers(1, 12), st.integers(0, 9), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_overlap_is_the_dense_product(segments, units, capacity, batch, seed):
    pool, codes = random_pool(segments, units, capacity, seed), random_codes(batch, units, seed + 1)
    expected = dense_overlap(pool, codes)
    assert torch.equal(pool(codes), expected)
    for threshold in (1, 3):
        active = pool.active(codes, threshold)
        assert (active.num_units, active.batch_size) == (segments, batch)
        assert active.to_list() == [row.nonzero().flatten().tolist() for row in expected >= threshold]


@pytest.mark.parametrize("work", [1, 100, 1000])
def test_memory_is_bounded_by_chunks_that_change_nothing(monkeypatch, work):
    pool, codes = random_pool(40, 30, 10, 0), random_codes(50, 30, 1)
    expected, active = pool(codes), pool.active(codes, 2).to_list()
    monkeypatch.setattr(module, "WORK", work)
    chunks = list(pool._chunks(codes, pool._index()))
    assert [start for start, _ in chunks] == [0, *(stop for _, stop in chunks[:-1])] and chunks[-1][1] == 50
    synapses = dense_overlap(pool, codes).sum(1)
    assert all(stop - start == 1 or 40 * (stop - start) + synapses[start:stop].sum() <= work for start, stop in chunks)
    assert torch.equal(pool(codes), expected) and pool.active(codes, 2).to_list() == active


def test_codes_keep_their_order_and_are_independent():
    pool, codes = random_pool(40, 30, 10, 2), random_codes(12, 30, 3)
    together, order = pool(codes), torch.randperm(12, generator=seeded(4))
    sets = [torch.tensor(units, dtype=torch.int64) for units in codes.to_list()]
    assert torch.equal(pool([sets[i] for i in order]), together[order])
    assert torch.equal(pool([x.flip(0) for x in sets]), together)
    assert torch.equal(torch.cat([pool([x]) for x in sets]), together)


@pytest.mark.parametrize("threshold", [4, 2**31 - 1, 2**31, 2**32 + 1, 2**64])
def test_a_threshold_above_what_segments_have_is_never_reached(threshold):
    pool = SegmentPool(2, 10, 3)
    pool.learn([0], [[3, 5, 7]])
    assert pool.active([[3, 5, 7], [3]], threshold).to_list() == [[], []]
    assert pool.active([[3, 5, 7], [3]], 3).to_list() == [[0], []]


def test_empty_codes_and_an_empty_batch():
    pool = random_pool(5, 30, 10, 0)
    assert torch.equal(pool([[], []]), torch.zeros(2, 5, dtype=torch.int32))
    assert pool([]).shape == (0, 5)
    assert pool.active([], 1).batch_size == 0 and pool.active([[], [], []], 1).to_list() == [[], [], []]
    assert SegmentPool(3, 10, 2)([[1, 2]]).tolist() == [[0, 0, 0]]


def test_codes_come_as_events_lists_rows_and_pairs():
    pool = random_pool(20, 8, 6, 5)
    events = Events.from_list([([0.1, 0.2, 0.3], [5, 0, 3]), ([], []), ([0.2], [7])], num_units=8, duration=1.0)
    expected = pool([[5, 0, 3], [], [7]])
    assert torch.equal(pool(events), expected)
    assert torch.equal(pool(Codes(events.units, events.offsets, 8)), expected)
    assert torch.equal(pool(torch.tensor([[5, 0, 3]])), expected[:1])
    twice = Events.from_list([([0.1, 0.2], [5, 5])], num_units=8, duration=1.0)
    with pytest.raises(ValueError, match="code 0: unit 5 is there twice"):
        pool(twice)


# ---- theory ---------------------------------------------------------------------------------------------------------
# Any two (segment, code) pairs are independent of each other, so the share of pairs has the variance of independent ones.


def within_three_sigma(hits: Tensor, probability: float) -> bool:
    share = hits.double().mean().item()
    return abs(share - probability) < 3 * math.sqrt(probability * (1 - probability) / hits.numel())


@pytest.mark.parametrize("n, a, s, theta", [(300, 64, 24, 12), (500, 64, 24, 10), (2000, 40, 20, 3)])
def test_false_matches_are_as_often_as_they_should(n, a, s, theta):
    generator = seeded(10)
    pool = SegmentPool(4000, n, s)
    pool.learn(range(4000), Codes.random(4000, n, a, generator=generator), s, generator=generator)
    overlap = pool(Codes.random(500, n, a, generator=generator))
    assert within_three_sigma(overlap >= theta, false_match(n, a, s, theta).item())


def test_false_matches_of_unions():
    """Each segment stores 10 patterns; given the sizes of the unions, which are random, the probability is exact."""
    n, a, s, theta, patterns, segments = 2000, 40, 20, 12, 10, 3000
    generator = seeded(11)
    pool = SegmentPool(segments, n, s * patterns)
    for _ in range(patterns):
        pool.learn(range(segments), Codes.random(segments, n, a, generator=generator), s, generator=generator)
    hits = pool(Codes.random(500, n, a, generator=generator)) >= theta
    given_sizes = false_match(n, a, pool.sizes(), theta).mean().item()
    assert within_three_sigma(hits, given_sizes)
    assert false_match(n, a, s, theta, patterns=patterns).item() == pytest.approx(given_sizes, rel=0.05)


@pytest.mark.parametrize("a, s, theta, lost", [(40, 20, 12, 14), (128, 30, 16, 45), (64, 24, 8, 38)])
def test_false_negatives_are_as_often_as_they_should(a, s, theta, lost):
    n, generator = 1000, seeded(12)
    pattern = Codes.random(1, n, a, generator=generator).units
    pool = SegmentPool(3000, n, s)
    pool.learn(range(3000), pattern.expand(3000, a), s, generator=generator)
    kept = pattern[torch.rand(400, a, generator=generator).argsort(1)[:, lost:]]
    others = torch.rand(400, n, generator=generator).index_fill_(1, pattern, -1.0).topk(lost, 1).indices
    missed = pool(torch.cat([kept, others], 1)) < theta
    assert within_three_sigma(missed, false_negative(a, s, theta, lost).item())


# ---- learning -------------------------------------------------------------------------------------------------------


def test_a_segment_recognises_each_pattern_that_it_learnt():
    n, a, s = 500, 40, 20
    generator = seeded(20)
    patterns = [Codes.random(8, n, a, generator=generator) for _ in range(5)]
    pool = SegmentPool(8, n, 5 * s)
    for k, codes in enumerate(patterns):
        before = pool.units.clone()
        pool.learn(range(8), codes, s, generator=generator)
        assert torch.equal(pool.units[before >= 0], before[before >= 0])  # what was there stays
        for known in patterns[: k + 1]:
            assert (pool(known).diagonal() >= s).all()
    for segment, units in enumerate(pool.units):
        held = units[units >= 0].tolist()
        assert len(set(held)) == len(held) == pool.sizes()[segment] <= 5 * s
        learnt = {unit for codes in patterns for unit in codes.to_list()[segment]}
        assert set(held) <= learnt


def test_learning_again_grows_nothing_and_samples_repeat_with_the_seed():
    codes = Codes.random(4, 50, 10, generator=seeded(0))
    pools = [SegmentPool(4, 50, 10) for _ in range(2)]
    for pool in pools:
        pool.learn(range(4), codes, 6, generator=seeded(1))
    assert torch.equal(pools[0].units, pools[1].units) and pools[0].sizes().tolist() == [6] * 4
    pools[0].learn(range(4), codes)
    assert torch.equal(pools[0].units.sort(1).values, codes.units.reshape(4, 10).sort(1).values.int())
    kept = copy.deepcopy(pools[0].state_dict())
    pools[0].learn(range(4), codes, permanence=0.7)
    assert all(torch.equal(kept[name], value) for name, value in pools[0].state_dict().items())


def test_samples_are_uniform():
    """Each of 20 active units is in a sample of 5 a quarter of the time."""
    pool = SegmentPool(8000, 100, 5)
    pool.learn(range(8000), torch.arange(40, 60).expand(8000, 20), 5, generator=seeded(3))
    share = torch.bincount(pool.units.flatten(), minlength=100) / 8000
    assert share[:40].sum() == share[60:].sum() == 0
    assert (share[40:60] - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 8000)  # 20 units


@pytest.mark.parametrize("changed", [1, 4, 30])
def test_overlaps_follow_what_is_learnt_after_the_first_question(changed):
    """Few changed segments are indexed beside the others, many make a new index."""
    pool, codes = random_pool(40, 30, 20, 6), random_codes(20, 30, 7)
    pool(codes)
    for seed in range(3):
        some = torch.randperm(40, generator=seeded(seed))[:changed]
        free = int((pool.units[some] < 0).sum(1).min())
        pool.learn(some, Codes.random(changed, 30, min(free, 3), generator=seeded(seed)))
        assert torch.equal(pool(codes), dense_overlap(pool, codes))
        pool.reinforce(some, Codes.random(changed, 30, 10, generator=seeded(seed)), up=0.3, down=0.3)
        assert torch.equal(pool(codes), dense_overlap(pool, codes))


def test_a_full_segment_refuses_and_nothing_is_grown():
    pool = SegmentPool(2, 20, 4)
    pool.learn([1], [[1, 2, 3]])
    before = pool.units.clone()
    with pytest.raises(ValueError, match="segment 1 has 1 free places of 4, and code 1 needs 2"):
        pool.learn([0, 1], [[5], [3, 4, 5]])
    assert torch.equal(pool.units, before)
    pool.learn([1], [[3, 4]])  # one of them is there
    assert pool.sizes().tolist() == [0, 4]


def test_reinforce_moves_permanences_and_prunes():
    pool = SegmentPool(2, 20, 4)
    pool.learn([0, 1], [[1, 2, 3], [1]], permanence=0.4)
    code = [[1, 2, 3, 4]]
    assert pool(code).tolist() == [[0, 0]]
    pool.reinforce([0], [[1, 7]], up=0.2, down=0.3)
    assert pool.permanence[0].tolist() == pytest.approx([0.6, 0.1, 0.1, 0.0])
    assert pool(code).tolist() == [[1, 0]]
    pool.reinforce([0], [[1]], up=0.9, down=0.1)
    assert pool.permanence[0].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])
    assert pool.units[0].tolist() == [1, -1, -1, -1]
    pool.learn([0], [[9, 10, 11]])
    assert pool.units[0].tolist() == [1, 9, 10, 11] and pool.units[1].tolist() == [1, -1, -1, -1]


@pytest.mark.parametrize(("permanence", "steps"), [(0.3, 3), (1.0, 10), (1.0, 100), (1.0, 1000), (0.6, 3)])
def test_a_synapse_is_gone_after_as_many_steps_as_its_permanence_has(permanence, steps):
    pool = SegmentPool(1, 20, 4)
    pool.learn([0], [[1, 2]], permanence=permanence)
    for _ in range(steps - 1):
        pool.reinforce([0], [[2]], down=permanence / steps)
    assert sorted(pool.units[0].tolist()) == [-1, -1, 1, 2]
    pool.reinforce([0], [[2]], down=permanence / steps)
    assert sorted(pool.units[0].tolist()) == [-1, -1, -1, 2] and pool.permanence[0].count_nonzero() == 1


# ---- module ---------------------------------------------------------------------------------------------------------


def test_state_dict_holds_the_segments():
    pool, codes = random_pool(40, 30, 10, 8), random_codes(5, 30, 9)
    assert set(pool.state_dict()) == {"units", "permanence"}
    other = random_pool(40, 30, 10, 10)
    other(codes)  # what it indexed is not what it is given
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other(codes), pool(codes))
    assert torch.equal(copy.deepcopy(pool)(codes), pool(codes))
    assert not list(pool.parameters())


def replaced(pool: SegmentPool, other: SegmentPool) -> None:
    pool.units, pool.permanence = other.units, other.permanence


def copied(pool: SegmentPool, other: SegmentPool) -> None:
    for mine, its in zip(pool.buffers(), other.buffers(), strict=True):
        mine.copy_(its)


def assigned(pool: SegmentPool, other: SegmentPool) -> None:
    pool.load_state_dict(other.state_dict(), assign=True)


@pytest.mark.parametrize("change", [replaced, copied, assigned])
@pytest.mark.parametrize("then", [lambda pool: pool, copy.deepcopy])
def test_overlaps_are_of_the_segments_that_the_buffers_hold(change, then):
    pool, other, codes = random_pool(40, 30, 10, 8), random_pool(40, 30, 10, 9), random_codes(5, 30, 10)
    pool(codes)
    change(pool, other)
    pool = then(pool)
    assert torch.equal(pool(codes), dense_overlap(other, codes))
    pool.units[3, 0], pool.permanence[3, 0] = 17, 1.0
    pool.learn([1], [[]])  # what it indexes anew isn't all
    assert torch.equal(pool(codes), dense_overlap(pool, codes))


def test_a_copy_of_what_was_written_into_is_indexed_anew():
    """Also where its buffers were written into as often as those that were indexed."""
    for writes in range(4):
        pool = SegmentPool(2, 10, 2)
        pool([[1]])
        for _ in range(writes):
            pool.units[0, 0], pool.permanence[0, 0] = 1, 1.0
        assert copy.deepcopy(pool)([[1]]).tolist() == [[int(writes > 0), 0]]


def test_functional_call_asks_the_buffers_that_it_is_given():
    pool, others, codes = random_pool(40, 30, 10, 0), [random_pool(40, 30, 10, k) for k in (1, 2)], [[1, 5, 9]]
    own = pool(codes)
    for other in others * 2:
        assert torch.equal(torch.func.functional_call(pool, dict(other.named_buffers()), (codes,)), other(codes))
        assert torch.equal(pool(codes), own)


def test_inference_tensors():
    """They do not count what is written into them."""
    with torch.inference_mode():
        pool, codes = random_pool(40, 30, 10, 8), random_codes(5, 30, 9)
        for seed in range(3):
            pool.learn([seed], [[]])
            pool.reinforce([4], Codes.random(1, 30, 10, generator=seeded(seed)), up=0.5, down=0.5)
            pool.units[seed, 0], pool.permanence[seed, 0] = 29, 1.0
            assert torch.equal(pool(codes), dense_overlap(pool, codes))
            assert pool.active(codes, 2).batch_size == 5


def test_segments_onto_units_that_are_not_there_are_refused():
    large, small = SegmentPool(2, 100, 3), SegmentPool(2, 50, 3)
    large.learn([0], [[1, 99]])
    small.load_state_dict(large.state_dict())
    for call in (small, lambda codes: small.active(codes, 1)):
        with pytest.raises(
            ValueError, match=r"onto unit 99, outside \[0, 50\); were the segments loaded from a pool over"
        ):
            call([[1, 2]])
    small.units[0, 0] = -7
    with pytest.raises(ValueError, match="onto unit -7"):
        small([[1, 2]])


def test_buffers_move():
    pool = random_pool(5, 30, 10, 8)
    pool([[1]])
    moved = copy.deepcopy(pool).to("meta")
    assert {x.device.type for x in (moved.units, moved.permanence)} == {"meta"}
    with pytest.raises(ValueError, match="codes on cpu, the pool is on meta"):
        moved(Codes.from_list([[1]], 30))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
def test_a_pool_computes_the_same_on_a_gpu():
    pool, codes = random_pool(400, 300, 40, 8), random_codes(20, 300, 9)
    expected = pool(codes)
    moved = copy.deepcopy(pool).to("cuda")
    assert torch.equal(moved(codes.to("cuda")).cpu(), expected)
    assert moved.active(codes.to("cuda"), 4).to("cpu").to_list() == pool.active(codes, 4).to_list()
    few = torch.arange(3)
    patterns = Codes.random(3, 300, 20, generator=seeded(0))
    for each in (pool, moved):
        each.permanence.mul_(0), each.units.fill_(-1)
        each.learn(few, patterns.to(each.units.device), 10, generator=seeded(1))
        each.reinforce(few, patterns.to(each.units.device))
    assert torch.equal(moved.units.cpu(), pool.units)
    assert torch.equal(moved.to("cpu")(codes), pool(codes))


# ---- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codes, message",
    [
        ([[1], [2, 3, 2]], "code 1: unit 2 is there twice; a code is a set"),
        ([[1], [], [4, 10]], r"code 2: unit 10 is outside \[0, 10\)"),
        ([[-1]], r"code 0: unit -1 is outside \[0, 10\)"),
        (Codes.from_list([[1]], 11), "codes over 11 units, expected 10"),
    ],
)
def test_bad_codes_are_refused(codes, message):
    pool = SegmentPool(3, 10, 4)
    for call in (pool, lambda x: pool.active(x, 1), lambda x: pool.learn(range(len(x)), x)):
        if not isinstance(codes, Codes) or call is pool:
            with pytest.raises(ValueError, match=message):
                call(codes)


def test_bad_learning_is_refused():
    pool = SegmentPool(3, 10, 4)
    for segments, codes, message in [
        ([3], [[1]], r"segment 3 is outside \[0, 3\)"),
        ([-1], [[1]], r"segment -1 is outside"),
        ([1, 1], [[1], [2]], "a segment is there twice"),
        ([1], [[1], [2]], "1 segments but 2 codes"),
    ]:
        for change in (pool.learn, pool.reinforce):
            with pytest.raises(ValueError, match=message):
                change(segments, codes)
    with pytest.raises(TypeError, match="segments must be a list of integers"):
        pool.learn([0.5], [[1]])
    with pytest.raises(ValueError, match="code 1 has 1 active units, fewer than 2 synapses"):
        pool.learn([0, 1, 2], [[1, 2], [1], []], 2)
    for synapses in (0, 1.5):
        with pytest.raises(
            ValueError, match=rf"synapses \(or None: .*\) must be a whole number, at least 1, got {synapses}"
        ):
            pool.learn([0], [[1, 2]], synapses)
    with pytest.raises(ValueError, match="permanence must be in"):
        pool.learn([0], [[1]], permanence=0.0)
    with pytest.raises(ValueError, match="up and down must be 0 or more"):
        pool.reinforce([0], [[1]], down=-0.1)
    for threshold in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="threshold must be a whole number, at least 1"):
            pool.active([[1]], threshold)
    assert pool.sizes().tolist() == [0, 0, 0]


def test_whole_numbers_may_be_of_numpy_or_of_a_tensor():
    for kind in (int, np.int64, np.uint8, torch.tensor):
        pool = SegmentPool(kind(1), kind(10), kind(4))
        assert repr(pool) == "SegmentPool(1, 10, capacity=4, connected=0.5)"
        pool.learn([0], [[1, 2]], kind(2))
        assert pool.active([[1, 2], [2]], kind(2)).to_list() == [[0], []]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 1, 1), "num_segments must be a whole number, at least 1, got 0"),
        ((1, 0, 1), "num_units must be"),
        ((1, 100.5, 1), "num_units must be a whole number, at least 1, got 100.5"),
        ((1, 1, 0), "capacity must be"),
        ((1, 1, 2.5), "capacity must be a whole number, at least 1, got 2.5"),
        ((2**16, 1, 2**15), "65536 x 32768 places; expected fewer than 2\\^31"),
        ((np.int32(2**16), 1, np.int32(2**16)), "65536 x 65536 places"),
        ((1, 2**31, 1), "num_units is 2147483648; expected fewer than 2\\^31"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentPool(*arguments)
    with pytest.raises(ValueError, match="connected"):
        SegmentPool(1, 1, 1, connected=0.0)
