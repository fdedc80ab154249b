"""What reservoirs of the benchmark get: windows, pooled pixels, steps of zeros and ones, data sets of one duration."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_inputs as inputs

from eventnet import Events, data


def test_pooled():
    x, y, p = torch.tensor([0, 1, 31, 33, 5, 2]), torch.tensor([0, 1, 30, 3, 33, 3]), torch.tensor([0, 0, 0, 0, 0, 1])
    events = Events.from_list([((torch.arange(6) * 1e-3).tolist(), ((p * 34 + y) * 34 + x).tolist())], 2312, 0.01)
    kept = inputs.pooled(events)
    assert kept.num_units == 256 and kept.units.tolist() == [0, 0, 15 * 16 + 15]
    torch.testing.assert_close(kept.times, torch.tensor([0.0, 1e-3, 2e-3]))


@given(st.lists(st.tuples(st.floats(0, 0.0399), st.integers(0, 4)), max_size=30), st.integers(1, 6))
def test_windows_add_up_to_the_counts(found, windows):
    events = Events.from_list([([t for t, _ in sorted(found)], [unit for _, unit in sorted(found)])], 5, 0.04)
    parts = inputs.in_windows(events, windows)
    assert parts.shape == (1, 5 * windows)
    assert parts.reshape(1, windows, 5).sum(1).equal(events.counts().float())


def test_binary_has_one_event_per_unit_and_step():
    events = Events.from_list([([0.0, 1e-4, 5e-3, 9.9e-3], [2, 2, 2, 0])], 3, 0.01)
    ones = inputs.binary(events).to_dense(0.01 / inputs.STEPS)
    assert ones.max() == 1 and ones.sum() == 3


def test_times_are_the_ends_of_windows():
    assert inputs.times_of(Events.from_list([([], [])], 1, 0.4)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_both_parts_together_in_another_order():
    splits = data.load("digits")
    events, labels = inputs.both(splits)
    assert events.batch_size == len(labels) == len(splits.train) + len(splits.validation)
    assert labels.bincount().equal(torch.cat([splits.train.labels, splits.validation.labels]).bincount())
    assert inputs.both(splits)[1].equal(labels) and not labels[: len(splits.train)].equal(splits.train.labels)


def test_vowels_are_graded_and_of_one_duration(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2, 12, 9)).round(3)
    line = [":".join(",".join(map(str, channel)) for channel in row) for row in rows]
    for part, steps in (("TRAIN", (7, 9)), ("TEST", (9, 8))):
        lines = [
            ":".join(",".join(c.split(",")[:n]) for c in one.split(":")) for one, n in zip(line, steps, strict=True)
        ]
        text = "\n".join(f"{one}:{k + 1}" for k, one in enumerate(lines * 5))
        classes = " ".join(map(str, range(1, 11)))
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text(f"@classLabel true {classes}\n@data\n{text}\n")
    task = inputs.load(tmp_path, "vowels")["JapaneseVowels"]
    assert task.steps == 29 and task.train[0].values is not None
    for events, _ in (task.train, task.test):
        torch.testing.assert_close(events.duration, torch.full_like(events.duration, 0.029))
    raster = task.test[0].to_dense(1e-3)
    assert raster.shape[0] == 29
    torch.testing.assert_close(raster[:9, 0].T, torch.from_numpy(rows[0]).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.in_windows(task.test[0], 1)[0], torch.from_numpy(rows[0].sum(1)).float())


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="vowels"):
        inputs.load(tmp_path, "vowels")
