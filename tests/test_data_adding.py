"""Spoken-digit adding: pairs of recordings written here."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_fsdd import FILES, write

from eventnet import Events
from eventnet.data import EventDataset, adding, fsdd
from eventnet.data.adding import pairs

OPTIONS = {"channels": 40, "duration": 0.1, "validation_fraction": 0.2}
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recordings"), FILES)


Times = tuple[float, ...]


def halves(part) -> list[tuple[Times, Times]]:
    """Times of the events of each pair's two digits."""
    found = []
    for k in range(len(part)):
        times = part[k][0].times
        late = times >= part[k][0].duration / 2
        found.append((tuple(times[~late].tolist()), tuple(times[late].tolist())))
    return found


def digits_of(part, place: int) -> dict[Times, int]:
    """Labels of digits by the times of their events, as the first (0) or the second digit (1) of a pair."""
    shifted = part.events.shift(place * part.events.duration)
    found = {tuple(shifted.sample(k).times.tolist()): int(label) for k, label in enumerate(part.labels)}
    assert len(found) == len(part)  # no two recordings are alike
    return found


def same(a, b) -> bool:
    return a.labels.equal(b.labels) and a.events.times.equal(b.events.times) and a.events.units.equal(b.events.units)


def test_pairs_are_two_digits_of_their_part_and_the_label_is_their_sum(root):
    made, single = adding.load(root, **OPTIONS), fsdd.load(root, **OPTIONS)
    assert [len(getattr(made, name)) for name in PARTS] == [240, 60, 300]
    assert (made.name, made.num_units, made.num_classes) == ("fsdd_adding", 40, 19)
    for name in PARTS:
        part = getattr(made, name)
        one, other = (digits_of(getattr(single, name), place) for place in (0, 1))
        labels = [one[first] + other[second] for first, second in halves(part)]
        assert part.labels.tolist() == labels and max(labels) <= 18
        assert part.events.duration.unique().tolist() == pytest.approx([0.2])
        e = part.events
        Events(e.times, e.units, e.offsets, e.num_units, e.duration)  # runs its checks


def test_each_recording_is_as_often_first_as_second(root):
    made = adding.load(root, rounds=3, **OPTIONS)
    assert len(made.train) == 360 and len(made.validation) == 60 and len(made.test) == 300
    for part, times in ((made.train, 3), (made.validation, 2), (made.test, 2)):
        for half in zip(*halves(part), strict=True):
            assert {half.count(recording) for recording in half} == {times}


def test_a_seed_gives_the_same_pairs_and_never_touches_the_test_part(root):
    first, again, other = (adding.load(root, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert all(same(getattr(first, name), getattr(again, name)) for name in PARTS)
    assert same(first.test, other.test)
    assert not same(first.train, other.train) and not same(first.validation, other.validation)


def test_who_is_left_out_is_in_no_other_part(root):
    options = {"channels": 40, "duration": 0.1, "speaker": "ben", "validation_speaker": "cleo"}
    made, single = adding.load(root, **options), fsdd.load(root, **options)
    assert [len(getattr(made, name)) for name in PARTS] == [200, 200, 200]
    for place in (0, 1):
        heard = {name: {pair[place] for pair in halves(getattr(made, name))} for name in PARTS}
        for name in PARTS:
            assert heard[name] == set(digits_of(getattr(single, name), place))
        assert not heard["train"] & heard["test"] and not heard["train"] & heard["validation"]
    assert "200 train, 200 validation, 200 test" in made.note and "test (ben)" in made.note


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=8), rounds=st.integers(1, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_nothing_is_lost_in_pairs(sizes, rounds, seed):
    samples = [([0.1 * (k + 1) for k in range(n)], [number] * n) for number, n in enumerate(sizes)]
    digits = EventDataset(Events.from_list(samples, len(sizes), 0.5), torch.arange(len(sizes)))
    made = pairs(digits, rounds, seed)
    assert len(made) == rounds * len(sizes)
    assert made.events.num_events == 2 * rounds * sum(sizes)
    assert made.labels.sum() == 2 * rounds * sum(range(len(sizes)))
    late = made.events.times >= 0.5
    assert late.sum() == rounds * sum(sizes)


@pytest.mark.parametrize("rounds", [0, 1.5, -1])
def test_rounds_are_counted(root, rounds):
    with pytest.raises(ValueError, match=r"fsdd_adding: rounds is .* expected a positive integer"):
        adding.load(root, rounds=rounds)


def test_missing_recordings_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder recordings"):
        adding.load(tmp_path)


def test_examples():
    found = doctest.testmod(adding)
    assert found.attempted >= 3 and found.failed == 0
