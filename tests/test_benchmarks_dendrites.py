"""The tables of dendrites: one line per configuration, means over its seeds, nothing where nothing ran."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import dendrites


def run(row: str, seed: int, accuracy: float, published: float | None) -> dict[str, object]:
    return {
        "row": row,
        "tasks": 10,
        "seed": seed,
        "epochs": 3,
        "rate": 5e-4,
        "accuracy": accuracy,
        "published": published,
        "of_each_task_when_learnt": [0.97, 0.95],
    }


def test_without_results_there_is_no_table(tmp_path):
    assert dendrites.table(tmp_path) is None


def test_seeds_are_one_line(tmp_path):
    runs = [run("winners", 0, 0.9, None), run("both", 0, 0.94, 0.94), run("both", 1, 0.96, 0.94)]
    kept = {"runs": {str(k): one for k, one in enumerate(runs)}}
    (tmp_path / "permuted_mnist.json").write_text(json.dumps(kept))
    _, _, both, winners = dendrites.table(tmp_path).splitlines()
    assert "95.00% ± 1.41 | 2 | 94.00% | +1.0 points | 96.00%" in both
    assert "90.00% | 1 | another schedule |" in winners


def test_xor_shows_seeds_and_time_constants(tmp_path):
    (tmp_path / "accuracy").mkdir()
    runs = [
        {"seed": seed, "test_accuracy": 0.9 + seed / 100, "branch_tau_syn": [[5e-3] * 4, [0.1] * 4]} for seed in (0, 2)
    ]
    (tmp_path / "accuracy" / "xor.json").write_text(json.dumps({"runs": runs}))
    heading, _, line = dendrites.table(tmp_path).splitlines()
    assert "seed 0 | seed 2 |" in heading
    assert line == "| 2 | 90.0% | 92.0% | 91.00% ± 1.41 | 5.0 to 5.0; 100.0 to 100.0 |"


@pytest.mark.parametrize("learnt, shown", [([], ""), ([[[1e-3, 2e-3, 3e-3]]], "0.4 to 3.6")])
def test_time_constants(learnt, shown):
    assert dendrites.time_constants(learnt) == shown
