"""EGRU against torch.nn.GRU of the same size: training, one sequence at a time, and step by step.

    python benchmarks/egru.py            measure and print
    python benchmarks/egru.py --save     and keep the results in results/egru.json, and time against steps in results/egru.png

Every row is a process of its own: the same random input for both, float32, two threads, after the tests of what is measured.
The units' thresholds are 0.1, and their biases get one more number, chosen so that they are as active as the row says; what
the activity then was, forward and backward, is in the result. Training is forward and backward with a gradient of ones. A
sequence of one sample is one call without gradient, or a call for each step (the making of the stream is part of its time).
Beside its ratio stands what its bytes allow, the weights that a dense step reads over those of a sparse one:
``(I + H) / (I + activity H)`` where each step reads the input's weights too, ``1 / activity`` where these are read once for
all steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine, peak_growth, seconds
from speed import THREADS, check_tests
from torch import Tensor, nn

from eventnet import EGRU, EGRUStream

RESULTS = Path(__file__).with_name("results") / "egru.json"
TESTS = [f"tests/test_{name}.py" for name in ("egru", "egru_drive", "egru_kernels", "egru_stream")]
INPUTS = 64
LENGTHS = (98, 196, 392, 784)
CLOSE = 0.01  # of the activity that is asked for


@dataclasses.dataclass(frozen=True)
class Row:
    """A problem: ``what`` is "train", "sequence" or "stream"."""

    what: str
    hidden: int
    batch: int
    steps: int
    activity: float
    half_width: float = 0.05
    layers: int = 1
    inputs: float = 1.0  # share of them that is not zero


ROWS = [
    *(
        Row("train", hidden, batch, 100, activity)
        for hidden in (256, 1024)
        for batch in (32, 128)
        for activity in (0.1, 0.3)
    ),
    *(Row("train", 1024, 32, 100, activity) for activity in (0.5, 0.7)),
    *(Row("train", 256, 128, 100, activity) for activity in (0.5, 0.7, 0.9)),
    *(Row("train", 1024, 32, 100, 0.1, half_width) for half_width in (0.2, 1.0)),
    *(Row("train", 512, 32, 100, activity, layers=3) for activity in (0.1, 0.3)),
    *(Row("train", 256, 32, steps, 0.1) for steps in LENGTHS),  # time grows as the sequence does
    *(Row("sequence", 1024, 1, 500, activity) for activity in (0.05, 0.1, 0.2, 0.3, 0.5)),
    Row("sequence", 1024, 1, 500, 0.1, inputs=0.05),
    *(Row("sequence", 1024, 1, 500, activity, layers=3) for activity in (0.1, 0.3)),
    *(Row("stream", 1024, 1, 500, activity) for activity in (0.05, 0.1, 0.3)),
    Row("stream", 1024, 1, 500, 0.1, inputs=0.05),
]


def measure(row: Row, repeats: int) -> dict[str, Any]:
    """Seconds and bytes of both, in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    x = torch.randn(row.steps, row.batch, INPUTS)
    x *= torch.rand_like(x) < row.inputs
    mine = EGRU(INPUTS, row.hidden, row.layers, half_width=row.half_width)
    theirs = nn.GRU(INPUTS, row.hidden, row.layers)
    set_activity(mine, x, row.activity)
    with torch.no_grad():
        did = [steps.activity() for steps in mine(x, return_steps=True)[2]]
    found = {name: sum(getattr(one, name) for one in did) / row.layers for name in ("forward", "backward")}
    call = {"train": train, "sequence": infer, "stream": stream}[row.what]
    contenders = {"egru": mine, "gru": theirs}
    result: dict[str, Any] = {
        "row": dataclasses.asdict(row),
        "activity": found,
        "threads": THREADS,
        "torch": torch.__version__,
    }
    for name, module in contenders.items():
        run = call(module, x)
        run()
        result[name] = {"bytes": peak_growth(run)}
        result[name] |= dataclasses.asdict(seconds(run, repeats=repeats))
    if row.what != "train":
        half = nn.GRU(INPUTS, row.hidden, row.layers, dtype=torch.bfloat16)
        result["gru, bfloat16"] = dataclasses.asdict(seconds(call(half, x.bfloat16()), repeats=repeats))
    return result


def train(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        module.zero_grad()
        output = module(x)[0]
        output.backward(torch.ones_like(output))

    return run


def infer(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """One call, without gradient."""

    def run() -> None:
        with torch.no_grad():
            module(x)

    return run


def stream(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call for each step, without gradient."""

    def run() -> None:
        with torch.no_grad():
            if isinstance(module, EGRU):
                step = EGRUStream(module)
                for now in x:
                    step(now)
            else:
                state = None
                for now in x.split(1):
                    _, state = module(now, state)

    return run


@torch.no_grad()
def set_activity(layer: EGRU, x: Tensor, activity: float) -> None:
    """Give the units a bias with which as many of them fire, layer by layer."""
    for k in range(layer.num_layers):
        low, high, found = -5.0, 5.0, 1.0
        getattr(layer, f"threshold_l{k}").fill_(0.1)
        for _ in range(20):
            middle = (low + high) / 2
            getattr(layer, f"bias_ih_l{k}")[2 * layer.hidden_size :] = middle
            found = (layer(x, return_steps=True)[2][k].y != 0).double().mean().item()
            low, high = (low, middle) if found > activity else (middle, high)
        if abs(found - activity) > CLOSE:
            sys.exit(f"activity {found:.3f} instead of {activity} in layer {k + 1}: nothing measured")


def allowed(row: dict[str, Any], activity: float) -> str:
    """What the bytes of the weights allow: a dense step reads all of them, a sparse one those of active units.

    The first number is for steps one by one, which read the input's weights too; in one call the second one is closer. The
    inputs of further layers are as active as their own units.
    """
    inputs, hidden, more = INPUTS, row["hidden"], 2 * row["layers"] - 1  # recurrent weights, and those between layers
    sparse = row["inputs"] * inputs + activity * hidden * more
    low, high = sorted(((inputs + hidden * more) / sparse, 1 / activity))
    return f"{low:.1f} to {high:.1f}×"


def table(results: list[dict[str, Any]]) -> str:
    """Each row as ratios by the best and the median of the repeats."""
    lines = [
        "| problem | activity: forward, backward | EGRU | nn.GRU | ratio | bytes allow |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        row, active = r["row"], r["activity"]
        ratios = dict.fromkeys(f"{r['gru'][which] / r['egru'][which]:.2g}" for which in ("best", "median"))
        times = [f"{1e3 * r[name]['best']:.3g} ms" for name in ("egru", "gru")]
        what = {"train": "training", "sequence": "one sequence", "stream": "step by step"}[row["what"]]
        if row["what"] == "train":
            sizes = [r[name]["bytes"] for name in ("egru", "gru")]
            times = [f"{t}, {s / 1e6:.0f} MB" if s is not None else t for t, s in zip(times, sizes, strict=True)]
        else:
            times[1] += f" (bfloat16 {1e3 * r['gru, bfloat16']['best']:.3g} ms)"
        cells = [
            f"{what}{_form(row)}, {row['hidden']} units, batch {row['batch']}, {row['steps']} steps, "
            f"half-width {row['half_width']}",
            f"{active['forward']:.0%}, {active['backward']:.0%}",
            *times,
            " / ".join(ratios) + "×",
            allowed(row, active["forward"]) if row["what"] != "train" else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Time of forward + backward against the number of steps, and the lines of a time that grows as they do."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from eventnet import plots

    form = dataclasses.asdict(next(row for row in ROWS if row.steps == LENGTHS[-1]))
    mine = [r for r in results if {**r["row"], "steps": form["steps"]} == form and r["row"]["steps"] in LENGTHS]
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axis = figure.subplots()
    for name, label, colour in (("egru", "EGRU", plots.BLUE), ("gru", "torch.nn.GRU", plots.ORANGE)):
        times = [1e3 * r[name]["best"] for r in mine]
        axis.loglog(LENGTHS, times, "o-", color=colour, label=label)
        axis.loglog(LENGTHS, [times[0] * n / LENGTHS[0] for n in LENGTHS], "--", color=colour, linewidth=0.8)
    axis.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set(xlabel="steps", ylabel="forward + backward (ms, best of the repeats)")
    axis.set_title(
        f"{form['hidden']} units, batch {form['batch']}, {form['activity']:.0%} active; dashed: as the steps",
        fontsize=10,
    )
    axis.legend(frameon=False)
    axis.grid(True, alpha=0.25)
    plots.save(figure, path)


def _form(row: dict[str, Any]) -> str:
    layers = f", {row['layers']} layers" if row["layers"] > 1 else ""
    return layers + (f", events: {row['inputs']:.0%} of the inputs" if row["inputs"] < 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="at least so many (default 5)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/egru.json")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    parser.add_argument("--in-process", type=int, metavar="ROW", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process is not None:
        print(json.dumps(measure(ROWS[args.in_process], args.repeats)))
        return
    if args.draw:
        draw(json.loads(RESULTS.read_text()), RESULTS.with_suffix(".png"))
        return
    check_tests(TESTS)
    here = {"machine": machine(), "commit": commit()}
    results = []
    for k in range(len(ROWS)):
        command = [sys.executable, __file__, "--in-process", str(k), "--repeats", str(args.repeats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout) | here)
        print(json.dumps(results[-1]), flush=True)
    print(table(results))
    if args.save:
        part = RESULTS.with_suffix(".part")
        part.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
        os.replace(part, RESULTS)
        draw(results, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
