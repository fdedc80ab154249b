"""The table of what dendrites are for: tasks one after the other, XOR in time, sums of spoken digits, sets of active units.

    python benchmarks/dendrites.py

It reads what ``permuted_mnist.py``, ``accuracy.py xor``, ``elm.py`` and ``sparse_codes.py`` kept in ``results/``.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
ROWS = {
    "both": "active dendrites and winners",
    "winners": "winners only",
    "dendrites": "active dendrites only",
    "mlp": "neither (dense)",
}
XOR = {"xor_one_branch": 1, "xor": 2, "xor_four_branches": 4}  # recipes' results: branches


def table(results: Path = RESULTS) -> str | None:
    """All of them, those without results left out."""
    parts = [
        continual_table(results),
        segments_line(results),
        xor_table(results),
        elm_tables(results),
        pool_table(results),
    ]
    return "\n\n".join(part for part in parts if part) or None


def read(results: Path, name: str) -> dict[str, Any]:
    """What a benchmark kept; nothing if it did not run."""
    path = results / name
    return json.loads(path.read_text()) if path.exists() else {}


def continual_table(results: Path) -> str | None:
    """Mean accuracy over all tasks after the last one, by row, tasks and schedule."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in read(results, "permuted_mnist.json").get("runs", {}).values():
        runs[run["tasks"], run["row"], run["epochs"], run["rate"]].append(run)
    if not runs:
        return None
    lines = [
        "| permuted MNIST: tasks | network | epochs a task, rate | all tasks after the last | seeds | published | difference "
        "| of a task when just learnt |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted(runs, key=lambda key: (key[0], list(ROWS).index(key[1]), key[2:])):
        tasks, row, epochs, rate = key
        found = [run["accuracy"] for run in runs[key]]
        published = runs[key][0]["published"]
        there = f"{published:.2%}" if published else "another schedule"
        away = f"{(statistics.mean(found) - published) * 100:+.1f} points" if published else ""
        learnt = statistics.mean(share for run in runs[key] for share in run["of_each_task_when_learnt"])
        cells = (tasks, ROWS[row], f"{epochs}, {rate:g}", spread(found), len(found), there, away, f"{learnt:.2%}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def segments_line(results: Path) -> str | None:
    """Segments computed once for a batch of one context, and for each row."""
    found = read(results, "permuted_mnist.json").get("segments", {})
    if not found:
        return None
    lines = ["| segments of one layer, for a batch of one task | by row | once | ratio |", "|---|---|---|---|"]
    for case in found.values():
        sizes = f"{case['units']:,} units, {case['segments']} segments of {case['features']}, {case['rows']} rows"
        for what in ("inference", "training"):
            one = case[what]
            lines.append(
                f"| {sizes}, {what} | {one['by_row'] * 1e3:.0f} ms | {one['once'] * 1e3:.1f} ms | {one['ratio']:.0f}× |"
            )
    return "\n".join(lines)


def xor_table(results: Path) -> str | None:
    """Test accuracy of each seed; what the branches' time constants became."""
    found = {branches: read(results / "accuracy", f"{name}.json") for name, branches in XOR.items()}
    found = {branches: recipe for branches, recipe in found.items() if recipe}
    if not found:
        return None
    seeds = sorted({run["seed"] for recipe in found.values() for run in recipe["runs"]})
    lines = [
        f"| XOR in time: branches | {' | '.join(f'seed {seed}' for seed in seeds)} | mean "
        "| time constants learnt, ms: 10th to 90th percentile |",
        f"|---|{'---|' * len(seeds)}---|---|",
    ]
    for branches, recipe in found.items():
        of = {run["seed"]: run for run in recipe["runs"]}
        cells = [f"{of[seed]['test_accuracy']:.1%}" if seed in of else "" for seed in seeds]
        learnt = [run["branch_tau_syn"] for run in recipe["runs"] if run.get("branch_tau_syn")]
        lines.append(
            f"| {branches} | {' | '.join(cells)} | {spread([run['test_accuracy'] for run in recipe['runs']])} | "
            f"{time_constants(learnt)} |"
        )
    return "\n".join(lines)


def time_constants(learnt: list[list[list[float]]]) -> str:
    """Of runs' branches' neurons, in seconds: of each branch the 10th to the 90th percentile, in milliseconds."""
    if not learnt:
        return ""
    found = []
    for branch in range(len(learnt[0])):
        deciles = statistics.quantiles([tau for run in learnt for tau in run[branch]], n=10)
        found.append(f"{deciles[0] * 1e3:.1f} to {deciles[-1] * 1e3:.1f}")
    return "; ".join(found)


def elm_tables(results: Path) -> str | None:
    """Accuracy beside the GRU, speed beside a loop over steps."""
    found = read(results, "elm.json")
    if not found:
        return None
    import elm

    parts = []
    if "adding" in found:
        parts.append(elm.adding_table(found["adding"]["rows"]))
    if "speed" in found:
        parts.append(elm.speed_table(found["speed"]["rows"]))
    return "\n\n".join(parts)


def pool_table(results: Path) -> str | None:
    """A pool's overlaps against a dense product."""
    found = read(results, "sparse_codes.json")
    if not found:
        return None
    lines = [
        "| 100,000 segments of 40 synapses, codes of 2,000 of 100,000 | dense product | all overlaps | active segments "
        "| peak memory of these |",
        "|---|---|---|---|---|",
    ]
    for row in found["speed"]["rows"]:
        overlap, active = row["overlap"], row["active"]
        lines.append(
            f"| {row['batch']} codes at once, per code | {row['dense'] * 1e3:.0f} ms | {times(overlap)} | {times(active)} | "
            f"{overlap['peak_bytes'] / 2**20:.0f}, {active['peak_bytes'] / 2**20:.0f} MiB |"
        )
    return "\n".join(lines)


def times(one: dict[str, float]) -> str:
    return f"{one['seconds'] * 1e3:.1f} ms, {one['times_dense']:.0f}×"


def spread(found: list[float]) -> str:
    """Mean and standard deviation of shares."""
    mean = statistics.mean(found)
    return f"{mean:.2%}" + (f" ± {statistics.stdev(found) * 100:.2f}" if len(found) > 1 else "")


if __name__ == "__main__":
    print(table())
