"""NeuroBench's chaotic forecasting, by its protocol and in its harness: EGRU, its dense twin, echo states and a linear floor.

    python benchmarks/mackey_glass.py [--repeats 10] [--save]
    python benchmarks/mackey_glass.py --units echo --save    rows of other units are kept as they are
    python benchmarks/mackey_glass.py --quick

Repeat r takes the Mackey-Glass series with tau = 17 from r / 2 Lyapunov times on, with seed r: ten Lyapunov times of 75 points
for training, one point ahead, then a free forecast of the next ten, whose sMAPE counts. Settings were chosen, and in each run the
epoch is, by the loss on the last fifth of the training points, which the gradient never sees. Echo states (``resistive_echo.py``)
choose their settings in each repeat, on training points too. The operations are those that NeuroBench's harness counts in the
forecast, per point.

The published baselines are of NeuroBench's own series files, which differ from ours in their last bits, so that they diverge
after some Lyapunov times. Its script for the echo state network averages over tau from 17 to 30, tuned for each; that for the
LSTM over repeats with tau = 17.

The runs are kept under ``runs/mackey_glass``: called again, finished ones are kept and stopped ones resumed. ``--save`` writes
``benchmarks/results/mackey_glass.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import accuracy
import resistive_echo
import torch
from measure import ROOT, commit, machine
from torch import Tensor, nn

from eventnet.data import mackey_glass
from eventnet.training import GatedRecipe, Recipe, evaluate, find, load_model, train
from eventnet.training.run import recipe_of

RESULT = Path(__file__).with_name("results") / "mackey_glass.json"
RUNS = ROOT / "runs" / "mackey_glass"
GATED = ("egru", "gru")
UNITS = (*GATED, "echo")
CONTENDERS = (*GATED, *resistive_echo.DEVICES, "linear")
WINDOWS = (5, 10, 20, 50)  # of the linear floor, chosen on the validation points
TRAINING, TEST = mackey_glass.TRAINING * mackey_glass.POINTS, mackey_glass.TEST * mackey_glass.POINTS
VALIDATION = TRAINING // 5
PUBLISHED: tuple[dict[str, Any], ...] = (
    {
        "contender": "LSTM (published)",
        "smape": 13.37,
        "macs": 6.03e4,
        "acs": 0.0,
        "dense": 6.03e4,
        "footprint": 4.90e5,
        "activation_sparsity": 0.530,
        "connection_sparsity": 0.0,
    },
    {
        "contender": "ESN (published)",
        "smape": 14.79,
        "macs": 4.37e3,
        "acs": 0.0,
        "dense": 3.52e4,
        "footprint": 2.81e5,
        "activation_sparsity": 0.0,
        "connection_sparsity": 0.876,
    },
)
SOURCE = "NeuroBench's leaderboard (leaderboard.rst of the repository, 2024-01-17)"


class Linear(nn.Module):
    """A linear prediction from the last points, called as NeuroBench's models: only the first point of a batch is used."""

    def __init__(self, window: int, known: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(window, 1, dtype=known.dtype)
        self.register_buffer("points", known[-window:, 0].clone())  # the last ones, oldest first

    def fit(self, series: Tensor) -> Linear:
        """Least squares on all windows of a series ``(K, 1)``."""
        window = len(self.points)
        inputs = series[:, 0].unfold(0, window, 1)[:-1]
        design = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        solution = torch.linalg.lstsq(design, series[window:], driver="gelsd").solution[:, 0]
        with torch.no_grad():
            self.linear.weight.copy_(solution[None, :-1])
            self.linear.bias.copy_(solution[-1:])
        return self

    def forward(self, batch: Tensor) -> Tensor:
        """``(T, 1, 1)``, the result ``(T, 1)``."""
        points, latest, said = self.points, batch[0, 0], []
        for _ in batch:
            points = torch.cat([points[1:], latest])
            latest = self.linear(points)
            said.append(latest)
        return torch.stack(said)


def in_harness(model: Any, series: Tensor) -> dict[str, float]:
    """What NeuroBench measures of a model that forecasts the test points of a series ``(1501, 1)``."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import SMAPE, ActivationSparsity, SynapticOperations
    from torch.utils.data import DataLoader, TensorDataset

    test = TensorDataset(series[TRAINING:-1, None], series[TRAINING + 1 :])
    loader = DataLoader(test, batch_size=TEST, shuffle=False)
    metrics = [[Footprint, ConnectionSparsity, ParameterCount], [SMAPE, ActivationSparsity, SynapticOperations]]
    found = Benchmark(model, loader, [], [], metrics).run(quiet=True)
    operations = found["SynapticOperations"]
    return {
        "smape": found["SMAPE"],
        "macs": operations["Effective_MACs"],
        "acs": operations["Effective_ACs"],
        "dense": operations["Dense"],
        "footprint": found["Footprint"],
        "parameters": found["ParameterCount"],
        "activation_sparsity": found["ActivationSparsity"],
        "connection_sparsity": found["ConnectionSparsity"],
    }


def series_of(repeat: int, tau: int) -> Tensor:
    """The points of a repeat, ``(1501, 1)`` float64."""
    points = mackey_glass.series(TRAINING + TEST + 1, tau, int(0.5 * repeat * mackey_glass.POINTS))
    return torch.from_numpy(points)[:, None]


def recipe_for(unit: str, repeat: int, tau: int, quick: bool) -> Recipe:
    """The recipe of a repeat."""
    recipe = find("mackey_glass").changed(unit=unit, seed=repeat, data_options={"offset": 0.5 * repeat, "tau": tau})
    return recipe.changed(epochs=2) if quick else recipe


def run(recipe: Recipe, folder: Path) -> None:
    """Train, or go on, unless it is done."""
    if (folder / "config.json").exists() and recipe_of(folder) != recipe:
        sys.exit(f"{folder}: a run of other settings; remove it, or choose another folder with --runs")
    if (folder / "result.json").exists():
        return
    train(recipe, folder, resume=(folder / "config.json").exists(), progress=False)


def gated(recipe: Recipe, folder: Path, repeat: int) -> dict[str, Any]:
    """Train one repeat and measure it."""
    from eventnet.training.neurobench import to_neurobench

    assert isinstance(recipe, GatedRecipe)
    run(recipe, folder)
    result = json.loads((folder / "result.json").read_text())
    network, _ = load_model(folder)
    series = series_of(repeat, recipe.data_options["tau"])
    found = in_harness(to_neurobench(network, context=series[:TRAINING].float()), series)
    return {
        "contender": recipe.unit,
        "repeat": repeat,
        **found,
        "validation_smape": evaluate(folder, part="validation").smape,
        **{name: result[name] for name in ("validation_loss", "best_epoch", "seconds")},
    }


def linear(repeat: int, tau: int) -> dict[str, Any]:
    """The linear floor of one repeat: the window by its one-step error on the validation points, then fitted to all."""
    from neurobench.models import TorchModel

    started, series = time.perf_counter(), series_of(repeat, tau)
    known, fitted = series[:TRAINING], series[: TRAINING - VALIDATION]

    @torch.no_grad()
    def error(window: int) -> float:
        model = Linear(window, fitted).fit(fitted)
        windows = known[:, 0].unfold(0, window, 1)[TRAINING - VALIDATION - window : -1]
        return float(((model.linear(windows) - known[TRAINING - VALIDATION :]) ** 2).mean())

    errors = {window: error(window) for window in WINDOWS}
    window = min(errors, key=lambda each: errors[each])
    with torch.no_grad():
        found = in_harness(TorchModel(Linear(window, known).fit(known)), series)
    facts = {"window": window, "validation_loss": errors[window], "seconds": round(time.perf_counter() - started, 3)}
    return {"contender": "linear", "repeat": repeat, **found, **facts}


def others(path: Path, facts: dict[str, Any], units: Sequence[str]) -> dict[str, Any]:
    """Rows and recipes that the file has of other units; they must be of the same circumstances."""
    new = {"linear", *(resistive_echo.DEVICES if "echo" in units else ()), *units}
    old = json.loads(path.read_text()) if path.exists() else {"rows": [], "recipes": {}}
    rows = [{"commit": old.get("commit"), **row} for row in old["rows"] if row["contender"] not in new]
    if rows and (differs := [name for name in ("tau", "machine", "torch", "neurobench") if old[name] != facts[name]]):
        sys.exit(f"{path}: its other rows are of another {', '.join(differs)}; run all units")
    return {"rows": rows, "recipes": old["recipes"]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean and spread of the sMAPE, and what a forecast point costs, beside what is published."""
    head = ["model", "sMAPE", "repeats", "effective MACs", "dense", "parameters", "bytes", "inactive"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        scores = [row["smape"] for row in own]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        mean = {key: statistics.mean(row[key] for row in own) for key in ("macs", "dense", "activation_sparsity")}
        size = {key: f"{statistics.mean(row[key] for row in own):,.0f}" for key in ("parameters", "footprint")}
        score = f"{statistics.mean(scores):.2f}{spread}"
        costs = [f"{mean['macs']:,.0f}", f"{mean['dense']:,.0f}", size["parameters"], size["footprint"]]
        cells = [name, score, str(len(own)), *costs, f"{mean['activation_sparsity']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    for row in PUBLISHED:
        costs = [f"{row['macs']:,.0f}", f"{row['dense']:,.0f}", "", f"{row['footprint']:,.0f}"]
        cells = [row["contender"], f"{row['smape']:.2f}", "", *costs, f"{row['activation_sparsity']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="of NeuroBench's 30 (default 10)")
    parser.add_argument("--units", nargs="*", default=list(UNITS), choices=UNITS)
    parser.add_argument("--tau", type=int, default=17, choices=sorted(mackey_glass.SERIES))
    parser.add_argument("--quick", action="store_true", help="two repeats of two epochs: whether it runs")
    parser.add_argument("--runs", type=Path, help="folder of the runs (default runs/mackey_glass)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/mackey_glass.json")
    args = parser.parse_args()
    try:
        version = metadata.version("neurobench")
    except metadata.PackageNotFoundError:
        sys.exit("NeuroBench is not here; make peers installs it")
    if args.quick and args.save:
        sys.exit("--quick only shows that it runs; nothing of it is worth saving")
    runs = args.runs or (RUNS.with_name("mackey_glass_quick") if args.quick else RUNS)
    torch.set_num_threads(1)
    here = machine()
    facts = {"tau": args.tau, "machine": here, "torch": torch.__version__, "neurobench": version}
    before = others(RESULT, facts, args.units) if args.save else {"rows": [], "recipes": {}}
    started, rows = time.perf_counter(), []
    for repeat in range(2 if args.quick else args.repeats):
        series = series_of(repeat, args.tau)
        done = [linear(repeat, args.tau)]
        done += resistive_echo.run(series, repeat, in_harness) if "echo" in args.units else []
        for unit in args.units:
            if unit in GATED:
                recipe = recipe_for(unit, repeat, args.tau, args.quick)
                done.append(gated(recipe, runs / f"{unit}-{args.tau}-{repeat}", repeat))
        print(json.dumps([{key: row[key] for key in ("contender", "smape", "macs")} for row in done]), flush=True)
        rows += [{**row, "commit": commit()} for row in done]
    rows = sorted([*before["rows"], *rows], key=lambda row: CONTENDERS.index(row["contender"]))
    print(f"\ntau {args.tau}, {here['cpu']}, one thread, PyTorch {torch.__version__}, neurobench {version}\n")
    print(table(rows))
    print(f"\nPublished: {SOURCE}. {time.perf_counter() - started:.0f} s.")
    if args.save:
        recipes = {unit: recipe_for(unit, 0, args.tau, False).to_dict() for unit in args.units if unit in GATED}
        recipes = before["recipes"] | recipes
        accuracy.write(RESULT, {**facts, "published": PUBLISHED, "source": SOURCE, "recipes": recipes, "rows": rows})


if __name__ == "__main__":
    main()
