"""Rows of the forecasting benchmark that are kept, and those that may not be mixed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import mackey_glass

FACTS = {"tau": 17, "machine": {"cpu": "one"}, "torch": "2", "neurobench": "3"}


def test_rows_of_other_units_are_kept_with_their_commit(tmp_path):
    path = tmp_path / "found.json"
    assert mackey_glass.others(path, FACTS, ["echo"]) == {"rows": [], "recipes": {}}
    rows = [
        {"contender": name, "repeat": 0} for name in ("egru", "gru", "linear", *mackey_glass.resistive_echo.DEVICES)
    ]
    path.write_text(json.dumps({**FACTS, "commit": "abc", "recipes": {"egru": {}}, "rows": rows}))
    found = mackey_glass.others(path, FACTS, ["echo"])
    assert [row["contender"] for row in found["rows"]] == ["egru", "gru"] and found["recipes"] == {"egru": {}}
    assert {row["commit"] for row in found["rows"]} == {"abc"}
    assert not mackey_glass.others(path, FACTS, mackey_glass.UNITS)["rows"]


def test_rows_of_another_machine_are_not_mixed(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps({**FACTS, "recipes": {}, "rows": [{"contender": "gru", "repeat": 0}]}))
    with pytest.raises(SystemExit, match="another torch; run all units"):
        mackey_glass.others(path, {**FACTS, "torch": "1"}, ["echo"])
