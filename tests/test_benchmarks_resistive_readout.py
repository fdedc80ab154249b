"""Readouts of the benchmark: floors, rows with intervals, lines that replace older ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_readout as readout
from resistive_chips import Choice, formed_reservoir
from resistive_inputs import Task

from eventnet import data
from eventnet.hardware.parity import interval
from eventnet.hardware.resistive import RidgeReadout

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE = Choice(rate=100.0)


@pytest.fixture(scope="module")
def task():
    splits = data.load("digits")
    train = splits.train.events[:200], splits.train.labels[:200]
    return Task(train, (splits.test.events[:60], splits.test.labels[:60]))


def test_floor_on_counts_is_ridge_on_counts(task):
    rows = readout.floors(task.train, task.test)
    x, z = (part[0].counts().float() for part in (task.train, task.test))
    ridge = RidgeReadout(tuple(10.0**k for k in range(-2, 6)), standardize=True).fit(x, task.train[1])
    assert rows[0]["shares"] == [ridge.score(z, task.test[1])] and rows[0]["share"] > 0.6
    assert [row["name"] for row in rows] == ["linear floor, counts", "linear floor, counts in 4 windows"]
    assert readout.floors(task.train, task.test, (4,)) == rows[1:]


def test_floors_alone_leave_lines_and_choices_of_reservoirs_as_they_were(task, monkeypatch):
    monkeypatch.setattr(readout, "load", lambda root, name: {"digits": task})
    monkeypatch.setattr(readout, "chosen", lambda *_: pytest.fail("nothing is to be chosen for floors"))
    found = readout.run(Path(), lambda found: None, sets=("digits",), units=(0,))
    assert len(found["sets"]["digits"]) == len(readout.FLOORS) and found["choices"] == {}
    old = {"choices": {"digits": 1}, "sets": {"digits": [{"name": "200 units, counts", "units": 200, "share": 0.9}]}}
    lines = readout.merged(old, found)["sets"]["digits"]
    assert (
        lines == [*found["sets"]["digits"], *old["sets"]["digits"]]
        and readout.merged(old, found)["choices"]["digits"] == 1
    )


def test_rows_of_chips(task):
    rows = readout.readout(task, 2, 20, CHOICE)
    assert [len(each["shares"]) for each in rows] == [2, 2] and all(
        each["low"] < each["share"] < each["high"] for each in rows
    )
    assert min(rows[1]["shares"]) > 0.3 and "energy" not in rows[0]
    spikes = [formed_reservoir(task.train[0][::18], 20, k, CHOICE)(task.test[0]).num_events / 60 for k in range(2)]
    assert rows[1]["energy"]["spikes"] == pytest.approx(sum(spikes) / 2)


def test_inputs_count_units_and_steps_once(task):
    events = task.test[0]
    dense = events.to_dense(events.duration[0].item() / 50)[:50]
    assert readout.inputs(events, 50) == pytest.approx((dense > 0).sum().item() / 60)
    assert readout.inputs(events, 50) <= events.num_events / 60


def test_row_has_the_interval_of_one_reading():
    row = readout.row("x", [0.7, 0.9], 50)
    assert {name: row[name] for name in ("share", "low", "high")} == pytest.approx(interval(40, 50))


def test_new_lines_replace_old_ones_of_their_name():
    old = {
        "choices": {"a": 1, "b": 2},
        "sets": {"a": [{"name": "200 units", "units": 200, "share": 0.1}, {"name": "floor"}]},
    }
    new = {
        "choices": {"a": 3},
        "sets": {"a": [{"name": "1000 units", "units": 1000}, {"name": "200 units", "units": 200}]},
    }
    found = readout.merged(old, new)
    assert found["choices"] == {"a": 3, "b": 2}
    assert [line["name"] for line in found["sets"]["a"]] == ["floor", "200 units", "1000 units"]
    assert "share" not in found["sets"]["a"][1] and readout.merged({}, new)["sets"]["a"]


def test_sets_are_in_one_order_whenever_they_were_run():
    found = {"choices": {}, "sets": {"JapaneseVowels": [], "FSDD, 700 channels": [], "other": []}}
    new = {"choices": {}, "sets": {"N-MNIST 6-9, 34 x 34 x 2": [], "N-MNIST 6-9, 16 x 16": []}}
    names = list(readout.merged(found, new)["sets"])
    assert names == [
        "N-MNIST 6-9, 16 x 16",
        "N-MNIST 6-9, 34 x 34 x 2",
        "FSDD, 700 channels",
        "JapaneseVowels",
        "other",
    ]


def test_chips_are_fewer_where_a_readout_takes_longer():
    assert [readout.chips_of(*each) for each in ((200, 2800), (1000, 900), (1000, 2800), (3600, 900))] == [10, 10, 3, 1]


def test_sets_that_are_not_there_are_left_out_and_said(tmp_path, capsys):
    assert readout.run(tmp_path, lambda found: None, sets=("vowels",)) == {"choices": {}, "sets": {}}
    assert "left out: vowels" in capsys.readouterr().err


def test_table_has_what_is_published_and_what_energy(task):
    rows = [*readout.floors(task.train, task.test), *readout.readout(task, 2, 20, CHOICE)]
    text = readout.table({"sets": {"digits": rows}})
    assert "| digits, 60 test samples | 20 units, counts |" in text and "of 2 |" in text
    assert "200 units, on the chip | 89.7 %" in text and "converters' share" in text
    assert all(name in text for name in readout.DIFFERS)
