"""Error against time: grids of 10, 1 and 0.1 ms and eventnet in float32, against the exact solution.

    python benchmarks/error_curve.py [--shape speech-dense] [--batch 8]

The exact solution is eventnet's in float64, whose spike times are solved to rounding error. The grid is
``grid-gather``, the fast compiled baseline of the speed tables. A grid's spikes are matched with the exact
ones neuron by neuron in order of time, within 20 ms; their error counts from the end of the step that they
were found in, less the grid's mean offset, so that no convention about where in a step a spike lies counts
for or against it. The gradient is that of the hidden weights of the cross-entropy of the mean readout
voltage; BPTT's is a surrogate (fast sigmoid, slope 25), so it does not tend to the exact one however fine the
grid.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import CONTENDERS
from grid_gather import grid_gather, grid_spikes
from measure import commit, machine, seconds
from networks import steps_of
from shapes import SHAPES, TAU_MEM, TAU_SYN, THRESHOLD, Problem
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from eventnet import LI, LIF, Events

RESULTS = Path(__file__).with_name("results")
STEPS = (10e-3, 1e-3, 0.1e-3)
NEAR = 20e-3  # seconds; farther apart, two spikes are not the same one


def exact(problem: Problem, dtype: torch.dtype) -> tuple[Events, Tensor]:
    """Hidden spikes and the gradient of the hidden weights by eventnet in ``dtype``."""
    taus: dict[str, Any] = dict(tau_mem=TAU_MEM, tau_syn=TAU_SYN, dtype=dtype)
    hidden, readout = LIF(*problem.w1.shape, threshold=THRESHOLD, **taus), LI(*problem.w2.shape, **taus)
    hidden.weight.data, readout.weight.data = problem.w1.to(dtype), problem.w2.to(dtype)
    spikes = hidden(problem.events.to(dtype))
    cross_entropy(readout(spikes).mean(), problem.labels).backward()
    assert hidden.weight.grad is not None
    return spikes.detach(), hidden.weight.grad


def on_grid(problem: Problem, dt: float) -> tuple[Events, Tensor]:
    """Hidden spikes (at the ends of their steps) and the surrogate gradient by BPTT on a grid."""
    w1 = problem.w1.clone().requires_grad_()
    settings: dict[str, Any] = dict(
        dt=dt, steps=steps_of(problem.shape, dt), tau_mem=TAU_MEM, tau_syn=TAU_SYN, threshold=THRESHOLD
    )
    voltage, _ = grid_gather(problem.events, w1, problem.w2, **settings)
    cross_entropy(voltage, problem.labels).backward()
    assert w1.grad is not None
    return grid_spikes(problem.events, w1, **settings), w1.grad


def match(found: Events, truth: Events) -> tuple[np.ndarray, int]:
    """Signed time errors of the spikes that pair up, and how many of both sides are left over."""
    errors, left = [], 0
    ours, theirs = _trains(found), _trains(truth)
    for key in ours.keys() | theirs.keys():
        a, b = ours.get(key, []), theirs.get(key, [])
        i = j = 0
        while i < len(a) and j < len(b):
            gap = a[i] - b[j]
            if abs(gap) > NEAR:
                i, j, left = i + (gap < 0), j + (gap > 0), left + 1
                continue
            if i + 1 < len(a) and abs(a[i + 1] - b[j]) < abs(gap):
                i, left = i + 1, left + 1
            elif j + 1 < len(b) and abs(a[i] - b[j + 1]) < abs(gap):
                j, left = j + 1, left + 1
            else:
                errors.append(gap)
                i, j = i + 1, j + 1
        left += len(a) - i + len(b) - j
    return np.array(errors), left


def _trains(events: Events) -> dict[int, list[float]]:
    trains: dict[int, list[float]] = {}
    for key, time in zip(
        (events.samples * events.num_units + events.units).tolist(), events.times.tolist(), strict=True
    ):
        trains.setdefault(key, []).append(time)
    return trains


def compare(found: tuple[Events, Tensor], truth: tuple[Events, Tensor], shift: bool) -> dict[str, float]:
    """Errors of spikes (seconds, after taking away their mean if ``shift``) and of the gradient."""
    errors, left = match(found[0], truth[0])
    offset = errors.mean() if shift else 0.0
    sizes = np.abs(errors - offset)
    grad, reference = found[1].double().flatten(), truth[1].flatten()
    return {
        "spike_time_error_median": float(np.median(sizes)),
        "spike_time_error_95": float(np.quantile(sizes, 0.95)),
        "spike_time_offset": float(errors.mean()),
        "spikes": found[0].num_events,
        "unmatched_fraction": left / (found[0].num_events + truth[0].num_events),
        "gradient_cosine": cosine_similarity(grad, reference, 0).item(),
        "gradient_norm_ratio": (grad.norm() / reference.norm()).item(),
        "gradient_angle": _angle(grad, reference),
    }


def _angle(a: Tensor, b: Tensor) -> float:
    """Degrees between two vectors, accurate for small angles too."""
    half = (a / a.norm() - b / b.norm()).norm() / 2
    return float(np.degrees(2 * np.arcsin(half.clamp(max=1.0).item())))


def curve(problem: Problem) -> list[dict[str, Any]]:
    """One row per method: its errors and its seconds for forward + backward."""
    torch.set_num_threads(2)
    truth = exact(problem, torch.float64)
    rows = []
    for dt in STEPS:
        network = CONTENDERS["grid-gather"].build(problem, dt)
        taken = seconds(partial(network.train, problem))
        rows.append(
            {
                "method": f"grid {1e3 * dt:g} ms",
                **compare(on_grid(problem, dt), truth, shift=True),
                "seconds": taken.best,
            }
        )
    network = CONTENDERS["eventnet"].build(problem, 0.0)
    taken = seconds(partial(network.train, problem))
    errors = compare(exact(problem, torch.float32), truth, shift=False)
    rows.append({"method": "eventnet float32", **errors, "seconds": taken.best})
    return rows


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Two panels: spike-time error and the angle of the gradient against seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    panels = (
        ("spike_time_error_median", "spike-time error, median (s)"),
        ("gradient_angle", "angle to the exact gradient (degrees)"),
    )
    for axis, (key, label) in zip(axes, panels, strict=True):
        grid = [r for r in rows if r["method"].startswith("grid")]
        axis.loglog(
            [1e3 * r["seconds"] for r in grid],
            [r[key] for r in grid],
            "o-",
            color="0.45",
            label="grid, surrogate BPTT",
        )
        ours = rows[-1]
        axis.loglog(1e3 * ours["seconds"], ours[key], "D", color="tab:red", label="eventnet, float32")
        for r in rows:
            name, first = r["method"].removeprefix("grid "), r is rows[0]
            side = {"xytext": (-6, 5), "ha": "right"} if first else {"xytext": (6, 5), "ha": "left"}
            axis.annotate(name, (1e3 * r["seconds"], r[key]), textcoords="offset points", fontsize=8, **side)
        axis.set_xlabel("forward + backward (ms)")
        axis.set_ylabel(label)
        axis.grid(True, alpha=0.25)
        axis.margins(x=0.25, y=0.1)
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=150)
    plt.close(figure)
    os.replace(part, path)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [
        f"{'':18} {'spike error':>12} {'95 %':>9} {'unmatched':>10} {'cosine':>12} {'norm':>8} {'angle':>11} {'ms':>8}"
    ]
    for r in rows:
        lines.append(
            f"{r['method']:18} {1e3 * r['spike_time_error_median']:9.2e} ms "
            f"{1e3 * r['spike_time_error_95']:9.2e} "
            f"{r['unmatched_fraction']:9.2%} {r['gradient_cosine']:12.9f} {r['gradient_norm_ratio']:8.3f} "
            f"{r['gradient_angle']:9.2e}° {1e3 * r['seconds']:8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", default="speech-dense", choices=[name for name, shape in SHAPES.items() if shape.kind == "plain"]
    )
    parser.add_argument("--batch", type=int, default=8, help="samples (a grid of 0.1 ms needs 10 MB for each)")
    args = parser.parse_args()
    from speed import check_tests

    check_tests()
    problem = SHAPES[args.shape].problem().part(args.batch)
    rows = curve(problem)
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    out = {"shape": args.shape, "batch": args.batch, "machine": machine(), "commit": commit(), "rows": rows}
    part = RESULTS / "error_curve.part"
    part.write_text(json.dumps(out, indent=1) + "\n")
    os.replace(part, RESULTS / "error_curve.json")
    plot(rows, f"{args.shape}, batch {args.batch}, against float64", RESULTS / "error_curve.png")


if __name__ == "__main__":
    main()
