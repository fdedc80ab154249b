"""The command of the resistive benchmark: parts are saved beside one another, the table has those that are there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.setattr(resistive, "RESULT", tmp_path / "resistive.json")
    return resistive.RESULT


def test_parts_are_saved_beside_one_another(result):
    resistive.save("zero_shot", {"means": {}}, 3.2)
    resistive.save("readout", {"choices": {"a": 1}, "sets": {"a": [{"name": "x"}]}}, 1.0)
    resistive.save("readout", {"choices": {"b": 1}, "sets": {"b": [{"name": "y"}]}}, 1.0)
    whole = json.loads(result.read_text())
    assert set(whole) == {"zero_shot", "readout"} and set(whole["readout"]["sets"]) == {"a", "b"}
    assert whole["zero_shot"]["seconds"] == 3 and {"torch", "machine", "commit"} <= set(whole["readout"])
    assert [path.name for path in result.parent.iterdir()] == ["resistive.json"]


def test_table_has_the_parts_that_are_there(monkeypatch):
    for name, part in resistive.PARTS.items():
        monkeypatch.setattr(part, "table", lambda found, name=name: f"{name} {found}")
    assert resistive.table({"speed": 1, "readout": 2}) == "readout 2\n\nspeed 1"
    assert resistive.table({}) == ""


def test_a_part_runs_alone_and_is_saved_only_if_asked(result, tmp_path, monkeypatch, capsys):
    def run(root, keep, *, quick=False):
        keep({"root": root.name, "quick": quick})
        return {"threads": 1, "features": [], "products": []}

    monkeypatch.setattr(resistive.resistive_speed, "run", run)
    command = ["resistive.py", "--data-root", str(tmp_path), "--speed"]
    for more in ([], ["--save", "--quick"]):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        resistive.main()
        assert not result.exists() and "| what | seconds |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--save"])
    resistive.main()
    assert json.loads(result.read_text())["speed"]["root"] == tmp_path.name


def test_a_root_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["resistive.py"])
    with pytest.raises(SystemExit):
        resistive.main()
    assert "--data-root is needed" in capsys.readouterr().err
