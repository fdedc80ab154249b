"""Eventnet's time per event: from 10³ to 10⁶ events, against fan-out, on one and on two threads.

    python benchmarks/scaling.py            measure, then draw results/scaling.png
    python benchmarks/scaling.py --draw     only draw

Events: the ``scaling`` shapes, one sample of 700-256-20. Fan-out: ``speech-dense``, 32 samples of 8,000 events, with 64 to
2,048 hidden neurons, each as active as there. Times are measured as ``speed.py`` does, after the same tests; an activity
outside of two to six spikes per hidden neuron is an error.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from measure import commit, machine
from shapes import SHAPES, Shape
from speed import RESULTS, check_tests, measure

AXES = {
    "events": ("input events", "one sample, 700-256-20, about 1,000 hidden spikes"),
    "fan-out": ("hidden neurons N", "32 samples, 700-N-20, about 4 spikes per neuron"),
}
WAYS = {"forward": ("tab:blue", "forward"), "train": ("tab:red", "forward + backward")}
THREADS = (1, 2)
FAN_OUT = (64, 128, 256, 512, 1024, 2048)


def shapes(axis: str) -> list[Shape]:
    """The problems along an axis of ``AXES``."""
    if axis == "events":
        return [shape for name, shape in SHAPES.items() if name.startswith("scaling-")]
    inputs, _, outputs = SHAPES["speech-dense"].layers
    return [
        replace(SHAPES["speech-dense"], name=f"fan-out-{n}", layers=(inputs, n, outputs), activity=(2 * n, 6 * n))
        for n in FAN_OUT
    ]


def place(axis: str, shape: Shape) -> int:
    """Where on the axis a problem is."""
    return shape.events if axis == "events" else shape.layers[1]


def points(axis: str, repeats: int = 5) -> list[dict[str, Any]]:
    """One row per problem and number of threads: what ``speed.measure`` says, and where the problem is."""
    rows = []
    for shape in shapes(axis):
        problem = shape.problem()
        for threads in THREADS:
            result = measure(problem, CONTENDERS["eventnet"], None, repeats, threads)
            row = {
                "axis": axis,
                "at": place(axis, shape),
                "events": shape.batch * shape.events,
                "neurons": shape.layers[1],
            }
            row |= result
            print(text(row), flush=True)
            rows.append(row)
    return rows


def text(row: dict[str, Any]) -> str:
    """A row to read."""
    forward, train = (1e9 * per_event(row, what) for what in ("forward", "train"))
    return (
        f"{row['shape']:18} {row['threads']} thread{'s' * (row['threads'] > 1):1}  forward {forward:9.1f} ns/event  "
        f"train {train:9.1f} ns/event  {row['spikes']:8.0f} spikes"
    )


def per_event(row: dict[str, Any], what: str) -> float:
    """Seconds per input event, of all samples, by the best of the repeats."""
    seconds: float = row["seconds"][what]["best"]
    return seconds / row["events"]


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Three panels: time per event against the number of events and against fan-out; speed-up by the second thread."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (*times, gain) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for panel, (axis, (label, network)) in zip(times, AXES.items(), strict=True):
        draw_times(panel, {n: [r for r in rows if r["axis"] == axis and r["threads"] == n] for n in THREADS})
        panel.set(xlabel=label, ylabel="time per event (ns)")
        panel.set_title(network, fontsize=9)
    fan_out = [r["at"] for r in rows if r["axis"] == "fan-out" and r["threads"] == 1]
    times[1].set_xticks(fan_out, [str(n) for n in fan_out])
    times[1].minorticks_off()
    for axis, style, samples in zip(AXES, ("o-", "s--"), ("one sample", "32 samples"), strict=True):
        alone, both = ([r for r in rows if r["axis"] == axis and r["threads"] == n] for n in THREADS)
        for what, (colour, name) in WAYS.items():
            ratio = [per_event(a, what) / per_event(b, what) for a, b in zip(alone, both, strict=True)]
            work = [r["events"] * r["neurons"] for r in both]
            gain.semilogx(work, ratio, style, color=colour, markersize=4, label=f"{name}, {samples}")
    gain.axhline(1, color="0.6", linewidth=0.8)
    gain.set(ylim=(0, 2.1), xlabel="input events × hidden neurons", ylabel="speed-up by the second thread")
    for panel in (times[0], gain):
        panel.legend(fontsize=8, frameon=False)
    for panel in (*times, gain):
        panel.grid(True, alpha=0.25)
    figure.suptitle(title, fontsize=10)
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=150)
    plt.close(figure)
    os.replace(part, path)


def draw_times(panel: Any, rows: dict[int, list[dict[str, Any]]]) -> None:
    """Time per event of the rows of each number of threads."""
    for what, (colour, name) in WAYS.items():
        for (threads, mine), style in zip(rows.items(), ("o--", "o-"), strict=True):
            nanoseconds = [1e9 * per_event(r, what) for r in mine]
            label = f"{name}, {threads} thread{'s' * (threads > 1)}"
            panel.loglog([r["at"] for r in mine], nanoseconds, style, color=colour, markersize=4, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    parser.add_argument("--repeats", type=int, default=5, help="at least so many (default 5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default benchmarks/results)")
    args = parser.parse_args()
    path = args.results / "scaling.json"
    if not args.draw:
        check_tests()
        rows = [row for axis in AXES for row in points(axis, args.repeats)]
        args.results.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"machine": machine(), "commit": commit(), "rows": rows}, indent=1) + "\n")
        os.replace(part, path)
    kept = json.loads(path.read_text())
    title = f"eventnet, {kept['machine']['cpu']}, {kept['machine']['cores']} cores"
    plot(kept["rows"], title, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
