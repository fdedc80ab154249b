"""The picture of the sweeps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resistive_drawing
from resistive_sweeps import CONTENDERS, points


def test_every_contender_has_a_style():
    assert set(resistive_drawing.STYLES) == set(CONTENDERS)


def test_a_picture_of_all_sweeps(tmp_path):
    pytest.importorskip("matplotlib")
    shares = {name: [0.7, 0.8] for name in CONTENDERS}
    found = {
        "linear_floor": {"linear floor, counts in 4 windows": 0.75},
        "points": [{"sweep": sweep, "value": value, "shares": shares} for sweep, value in points(quick=True)],
        "ideal": shares,
        "samples": 60,
        "units": 30,
    }
    resistive_drawing.draw(found, tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 20_000
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
