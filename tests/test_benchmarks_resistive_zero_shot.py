"""Zero-shot of the benchmark: unseen classes are kept out of every choice, and what is common to both kinds is found."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_zero_shot as zero

from eventnet import Events
from eventnet.hardware.resistive.contrastive import Labelled

pytestmark = pytest.mark.usefixtures("one_thread")


def kind(mixing, seed, noise=0.1, per_class=12):
    """Samples of ten classes: one place each, seen through a mixing matrix ``(places, features)``."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(10, len(mixing), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10).repeat(per_class)
    features = (places[labels] + noise * torch.randn(len(labels), len(mixing), generator=generator)) @ mixing
    cut = len(labels) // 3
    return zero.Kind(*(Labelled(features[k : k + cut], labels[k : k + cut]) for k in (0, cut, 2 * cut)))


def mixings():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 6, generator=generator), torch.randn(4, 7, generator=generator)


def test_a_common_linear_cause_is_found_in_unseen_classes():
    """Of 4 dimensions, seen in 8 classes: both kinds are linear in one cause, so unseen classes lie where they should."""
    first, second = (kind(mixing, seed) for seed, mixing in enumerate(mixings(), 2))
    rows = [zero.division(first, second, seen) for seen in ((0, 1, 2, 3, 4, 5, 6, 7), (2, 3, 4, 5, 6, 7, 8, 9))]
    for row in rows:
        assert row["chance"] == 0.5 and row["seen_chance"] == 0.125
        assert row["image_to_sound"]["share"] > 0.9 and row["sound_to_image"]["seen"] > 0.8
        assert row["image_to_sound"]["samples"] == 24 and row["image_to_sound"]["low"] > 0.5


def test_unseen_classes_change_nothing_of_the_choice():
    first, second = (kind(mixing, seed) for seed, mixing in enumerate(mixings(), 2))
    seen = (0, 1, 2, 3, 4, 5, 6, 7)

    def spoilt(part):
        return zero.Kind(
            *(Labelled(torch.where((x.labels > 7)[:, None], -3 * x.features, x.features), x.labels) for x in part)
        )

    one, other = zero.division(first, second, seen), zero.division(spoilt(first), second, seen)
    for name in ("weight_decay", "epoch", "seen_chance"):
        assert one[name] == other[name]
    assert [one[name]["seen"] for name in zero.DIRECTIONS] == [other[name]["seen"] for name in zero.DIRECTIONS]
    assert one["image_to_sound"]["share"] != other["image_to_sound"]["share"]


def test_divisions():
    eights, sevens = zero.divisions(8), zero.divisions(7)
    assert set(eights) == set(itertools.combinations(range(10), 8)) and len(eights) == 45
    assert set(sevens) == set(itertools.combinations(range(10), 7)) and len(sevens) == 120


def test_summary_counts_divisions_that_differ_from_chance():
    def row(low, share, high):
        return {"chance": 0.5, "seen_chance": 0.125} | {
            name: {"low": low, "share": share, "high": high, "seen": 0.6} for name in zero.DIRECTIONS
        }

    found = zero.summary([row(0.6, 0.7, 0.8), row(0.4, 0.5, 0.6), row(0.2, 0.3, 0.4)], (100, 400))
    each = found["image_to_sound"]
    assert (
        each["share"] == pytest.approx(0.5)
        and each["deviation"] == pytest.approx(0.2)
        and each["seen"] == pytest.approx(0.6)
    )
    assert (each["above_chance"], each["below_chance"], found["divisions"]) == (1, 1, 3)
    assert each["high"] - each["low"] > found["sound_to_image"]["high"] - found["sound_to_image"]["low"]


def test_trials_and_table():
    first, second = (kind(mixing, seed, per_class=6) for seed, mixing in enumerate(mixings(), 2))
    seen = []
    found = zero.trials({"features": [(first, second)], "others": [(second, first)]}, seen.append, (8, 7), 1)
    assert set(found["rows"]) == {"8", "7"} and len(seen) == 4
    assert found["means"]["7"]["features"]["chance"] == pytest.approx(1 / 3)
    text = zero.table(found)
    assert "| 7 | features | image to sound |" in text and "| 33 % |" in text and "of 60 |" in text
    one = " and ".join(f"{100 * found['rows']['8']['others'][0][each]['share']:.1f}" for each in zero.DIRECTIONS)
    assert f"{one} % (others)" in text  # of 8 and 9
    assert "87-88 %" in text and "picked on the test set" in text


def test_representations_of_events():
    def parts(units):
        events = Events.from_latency(torch.rand(60, units, generator=torch.manual_seed(units)), 0.0, 0.3)
        labels = torch.arange(60) % 10
        return [(events[:40], labels[:40]), (events[40:50], labels[40:50]), (events[50:], labels[50:])]

    found = zero.representations(parts(20), parts(30))
    assert [len(chips) for chips in found.values()] == [zero.CHIPS, 1, 1]
    (image, sound), *others = found[f"{zero.UNITS} units, counts and traces"]
    assert image.train.features.shape == sound.train.features.shape == (40, 5 * zero.UNITS)
    assert not others[0][0].train.features.equal(image.train.features)
    assert found["linear floor, counts"][0][1].everything.features.equal(torch.ones(60, 30))
