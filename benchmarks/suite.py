"""Every recipe at a declared size: accuracy, operations, energy range, time and memory in one table.

    python benchmarks/suite.py --data-root FOLDER              all recipes whose data are there, size "quick"
    python benchmarks/suite.py --size full row_mnist ecg --data-root FOLDER

Each recipe is trained by ``eventnet train`` and counted by ``eventnet benchmark``, each in a process of its own, one after the
other; a run that is finished is kept, one that was stopped goes on. The result of a recipe goes to
``benchmarks/results/suite/RECIPE.json`` with machine and the commits of training and counting; ``tables.py`` makes a table of
them, at the end of this command too. Sizes: ``quick`` trains two epochs (of recipes of tasks: one epoch of each of two) and
counts 100 test samples: it shows that everything runs, not what a recipe reaches; ``full`` trains as the recipe says and counts
the whole test part. Recipes whose data are not there are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import ROOT, commit, machine

from eventnet.files import write_files
from eventnet.training import RECIPES, ContinualRecipe, DataError
from eventnet.training.run import load_data

RESULTS = Path(__file__).with_name("results") / "suite"
EVENTNET = [sys.executable, "-c", "from eventnet.cli import main; import sys; sys.exit(main())"]
SIZES: dict[str, dict[str, list[str]]] = {
    "quick": {"train": ["--epochs", "2"], "tasks": ["--tasks", "2", "--epochs", "1"], "benchmark": ["--limit", "100"]},
    "full": {"train": [], "tasks": [], "benchmark": []},
}
HEADLINE = (
    "asic45"  # the device whose range the table shows: it prices arithmetic and memory, and takes graded events too
)

# What is kept of an estimate; coefficients and their sources are the library's, and in each run's own benchmark.json.
PRICED = ("dynamic_joules_per_sample", "idle_joules_per_sample", "latency_seconds_per_sample")


def run(command: list[str]) -> tuple[int, float, int]:
    """Exit code, seconds and peak bytes of a process."""
    started = time.perf_counter()
    process = subprocess.Popen([*EVENTNET, *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - started, 1024 * usage.ru_maxrss  # kilobytes on Linux


def measure(name: str, size: str, folder: Path, data_root: str | None) -> dict[str, Any]:
    """Train and count one recipe; what a table quotes."""
    root = ["--data-root", data_root] if data_root else []
    found: dict[str, Any] = {"recipe": name, "size": size, "machine": machine(), "benchmark_commit": commit()}
    memory = folder.with_name(folder.name + ".memory.json")  # of the training, which a kept run does not repeat
    if not (folder / "result.json").is_file():
        train(name, size, folder, memory, root)
    code, found["benchmark_seconds"], _ = run(["benchmark", str(folder), *SIZES[size]["benchmark"], *root])
    if code:
        sys.exit(f"{name}: benchmark stopped")
    result, facts = (json.loads((folder / f"{part}.json").read_text()) for part in ("result", "benchmark"))
    found |= {"test": result["test"], "train_seconds": result["seconds"], **json.loads(memory.read_text())}
    kept = {part: facts[part] for part in ("accuracy", "charged", "counts", "notes", "identity")}
    kept["energy"] = {name: {key: x[key] for key in PRICED} for name, x in facts["energy"].items()}
    kept["baselines"] = [{key: x[key] for key in ("name", "profile", *PRICED)} for x in facts["baselines"]]
    return found | {"benchmark": kept}


def train(name: str, size: str, folder: Path, memory: Path, root: list[str]) -> None:
    """Train in a folder beside it, which gets its name only when all about the training is written."""
    part = folder.with_name(folder.name + ".part")
    facts: dict[str, Any] = {"peak_bytes": None, "resumed": False, "commit": commit()}  # None: it ended unseen
    if not (part / "result.json").is_file():
        facts["resumed"] = (part / "config.json").is_file()
        short = SIZES[size]["tasks" if isinstance(RECIPES[name], ContinualRecipe) else "train"]
        where = ["--resume", str(part)] if facts["resumed"] else [*short, "--out", str(part)]
        code, _, facts["peak_bytes"] = run(["train", name, *where, *root])
        if code:
            sys.exit(f"{name}: training stopped; the same command goes on with it")
    write_files({memory: json.dumps(facts).encode()})
    part.rename(folder)


def absent(name: str, data_root: str | None) -> str | None:
    """Why a recipe's data cannot be loaded; None if they can."""
    try:
        load_data(RECIPES[name], data_root)
    except DataError as error:
        return str(error)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="all by default")
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "suite", help="folder of the runs")
    parser.add_argument("--data-root")
    options = parser.parse_args()
    unknown = [name for name in options.recipes if name not in RECIPES]
    if unknown:
        parser.error(f"unknown recipes: {', '.join(unknown)}; eventnet recipes lists them")
    left_out: dict[str, str] = {}
    for name in options.recipes or RECIPES:
        if (why := absent(name, options.data_root)) is not None:
            left_out[name] = why
            continue
        print(f"== {name}, {options.size}", file=sys.stderr, flush=True)
        folder = options.runs / options.size / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        found = measure(name, options.size, folder, options.data_root)
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_files({RESULTS / f"{name}.json": (json.dumps(found, indent=1) + "\n").encode()})
    import tables

    tables.update()
    print(tables.suite_table(RESULTS.parent) or "nothing was measured")
    for name, why in left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
