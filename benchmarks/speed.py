"""Time and memory of one batch, forward and forward + backward, against the baselines and libraries.

    python benchmarks/speed.py                              every shape, every contender that is installed
    python benchmarks/speed.py speech-dense eventnet norse  one shape, these contenders ("scaling" is all
    scaling shapes)

Every contender that has a layer for the shape runs in a process of its own, one after the other on two threads: a
warm-up, then at least five repeats of which the best and the median are shown. ``forward`` is without, ``train`` with
the backward pass into all weights, and into the delays where the shape has them. Memory is the peak of resident
memory during one ``train`` above what was resident before it, events and weights being loaded and the code warm (a
batch of one went first). The tests of what is measured run first; if one fails nothing is measured. A run whose
hidden activity leaves the shape's band is void. Every result is printed as a JSON line, then the table of ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS, Contender, version
from measure import ROOT, commit, machine, peak_growth, seconds
from shapes import SHAPES, Problem

TESTS = [
    "tests/test_kernels.py",
    "tests/test_recurrent.py",
    "tests/test_delayed_traces.py",
    "tests/test_benchmarks.py::test_grid_gather_equals_autograd_through_the_same_grid",
]
RESULTS = Path(__file__).with_name("results")
THREADS = 2


class Void(RuntimeError):
    """A run that must not be compared."""


def measure(
    problem: Problem, contender: Contender, step: float | None, repeats: int = 5, threads: int = THREADS
) -> dict[str, Any]:
    """Run one contender in this process; ``step`` in seconds, None off the grid."""
    torch.set_num_threads(threads)
    shape = problem.shape
    network = contender.build(problem, step or 0.0)
    small = problem.part(1)
    network.train(small)
    memory = peak_growth(lambda: network.train(problem))
    with torch.no_grad():
        _, spikes = network.forward(problem)
        counts = spikes() if callable(spikes) else spikes
    fired = None if contender.name == "floor" else counts.double().mean().item()
    low, high = shape.activity
    if fired is not None and not low <= fired <= high:
        raise Void(f"{fired:.0f} hidden spikes per sample, expected {low} to {high}")

    def forward() -> None:
        with torch.no_grad():
            network.forward(problem)

    return {
        "contender": contender.name,
        "version": version(contender),
        "shape": shape.name,
        "step": step,
        "seconds": {
            "forward": dataclasses.asdict(seconds(forward, repeats=repeats)),
            "train": dataclasses.asdict(seconds(lambda: network.train(problem), repeats=repeats)),
        },
        "bytes": memory,
        "spikes": fired,
        "threads": threads,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="all", help=f"all, scaling, {', '.join(SHAPES)}")
    parser.add_argument("contender", nargs="*", help=f"default: all installed ones of {', '.join(CONTENDERS)}")
    parser.add_argument("--repeats", type=int, default=5, help="at least so many (default 5)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/speed.json")
    parser.add_argument("--in-process", type=float, metavar="STEP", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process is not None:
        print(json.dumps(_in_process(args)))
        return
    shapes = _chosen_shapes(parser, args.shape)
    contenders = _chosen_contenders(parser, args.contender)
    check_tests()
    here = {"machine": machine(), "commit": commit()}
    results = []
    for shape in shapes:
        results += [result | here for result in _run(shape, contenders, args.repeats)]
    if args.save:
        save(results, RESULTS / "speed.json")


def check_tests(tests: list[str] | None = None) -> None:
    """Run the correctness tests of what is measured (``TESTS``); leave if one is red."""
    print("tests of what is measured: ", end="", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *(tests or TESTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "", file=sys.stderr)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nthe tests of what is measured fail: nothing measured")


def save(results: list[dict[str, Any]], path: Path) -> None:
    """Merge ``results`` into the file: a result replaces the one of the same shape, contender and step."""
    kept = json.loads(path.read_text()) if path.exists() else []
    keyed = {(r["shape"], r["contender"], r["step"]): r for r in kept + results}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(r) for r in keyed.values()) + "\n]\n")
    os.replace(part, path)


def _chosen_shapes(parser: argparse.ArgumentParser, name: str) -> list[str]:
    chosen = [s for s in SHAPES if name in ("all", s) or (name == "scaling" and s.startswith("scaling-"))]
    if not chosen:
        parser.error(f"no shape {name!r}; choose from all, scaling, {', '.join(SHAPES)}")
    return chosen


def _chosen_contenders(parser: argparse.ArgumentParser, names: list[str]) -> list[Contender]:
    for name in names:
        if name not in CONTENDERS:
            parser.error(f"no contender {name!r}; choose from {', '.join(CONTENDERS)}")
    chosen = []
    for name in names or CONTENDERS:
        try:
            version(CONTENDERS[name])
        except importlib.metadata.PackageNotFoundError:
            if names:
                parser.error(f"{name} is not installed; `make peers` installs all of them")
            print(f"{name}: not installed, left out (`make peers` installs it)", file=sys.stderr)
            continue
        chosen.append(CONTENDERS[name])
    return chosen


def _run(shape: str, contenders: list[Contender], repeats: int) -> list[dict[str, Any]]:
    results = []
    for contender in contenders:
        own = contender.package == "eventnet"
        if SHAPES[shape].kind not in contender.kinds:
            print(f"{shape}: {contender.name} has no such layer, left out", file=sys.stderr)
            continue
        if not own and (shape.startswith("scaling") or shape == "speech-silent"):
            continue  # these show how eventnet's time depends on its input
        for step in SHAPES[shape].steps if contender.grid else (None,):
            result = _spawn(shape, contender, step, repeats)
            if result is not None:
                print(json.dumps(result), flush=True)
                results.append(result)
    print(table(results), flush=True)
    return results


def _spawn(shape: str, contender: Contender, step: float | None, repeats: int) -> dict[str, Any] | None:
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [
        sys.executable,
        __file__,
        shape,
        contender.name,
        "--repeats",
        str(repeats),
        "--in-process",
        str(step or 0.0),
    ]
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        print(f"{shape}, {contender.name}, step {step}: VOID: {reason}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _in_process(args: argparse.Namespace) -> dict[str, Any]:
    return measure(SHAPES[args.shape].problem(), CONTENDERS[args.contender[0]], args.in_process or None, args.repeats)


def table(results: list[dict[str, Any]]) -> str:
    """Text table of one shape: best (median) milliseconds, ratio to eventnet's best, memory, spikes."""
    if not results:
        return ""
    base = next((r for r in results if r["contender"] == "eventnet"), None)
    lines = [
        f"\n{results[0]['shape']:32} {'forward ms':>20} {'ratio':>7} {'train ms':>20} {'ratio':>7} "
        f"{'MB':>8} {'spikes':>7}"
    ]
    for r in results:
        name = r["contender"] + (f" @ {1e3 * r['step']:g} ms" if r["step"] else "")
        cells = [f"{name:32}"]
        for what in ("forward", "train"):
            s = r["seconds"][what]
            ratio = f"{s['best'] / base['seconds'][what]['best']:.2f}" if base else "-"
            cells.append(f"{1e3 * s['best']:10.3f} ({1e3 * s['median']:.3f})".rjust(20) + f" {ratio:>7}")
        memory = "-" if r["bytes"] is None else f"{r['bytes'] / 1e6:.1f}"
        spikes = "-" if r["spikes"] is None else f"{r['spikes']:.0f}"
        lines.append(" ".join([*cells, f"{memory:>8}", f"{spikes:>7}"]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
