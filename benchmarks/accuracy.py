"""Test accuracy of a recipe over several seeds: ``eventnet train`` once per seed, then mean and spread.

    python benchmarks/accuracy.py yinyang
    python benchmarks/accuracy.py nmnist --data-root FOLDER --seeds 0 1 2 3 4 --set epochs=20
    python benchmarks/accuracy.py row_mnist --data-root FOLDER --set unit=gru --name row_mnist_gru

Every seed is a process of its own with its own run folder; called again, finished runs are kept and stopped
ones resumed. Every choice (epoch, settings) is made on the validation part; the test part is used once per
run, by the run itself. The result goes to ``benchmarks/results/accuracy/RECIPE.json``: each run's settings,
validation and test accuracy, machine and commit, the published number that it is compared with, and the linear
floor: ridge regression on event counts, on all steps for gated recipes, or on leaky traces where each step has a label, its
penalty chosen on the validation part, then fitted to both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, commit
from torch.nn.functional import pad

from eventnet import LIF
from eventnet.training import Recipe, load_model

RESULTS = Path(__file__).with_name("results") / "accuracy"
EVENTNET = [sys.executable, "-c", "from eventnet.cli import main; main()"]
# Test accuracies of the same network on the same data; how the number was chosen stands beside it.
PUBLISHED: dict[str, dict[str, Any]] = {
    "yinyang": {
        "accuracy": 0.9810,
        "source": "Wunderlich & Pehle 2021: last epoch, 10 seeds, ± 0.18; best epoch 98.49",
    },
    "yinyang30": {"accuracy": 0.967, "source": "DelGrad, Göltz et al. 2025: one network"},
    "yinyang30_delays": {"accuracy": 0.982, "source": "DelGrad, Göltz et al. 2025: one network, synaptic delays"},
    "ecg": {"accuracy": 0.859, "source": "Yin et al. 2021, a recurrent network; ours is feed-forward"},
    "ecg_recurrent": {"accuracy": 0.859, "source": "Yin et al. 2021, a recurrent network of adaptive neurons"},
    "mnist": {
        "accuracy": 0.9758,
        "source": "Wunderlich & Pehle 2021: last epoch, 10 seeds, ± 0.12; best epoch 97.73",
    },
}
PENALTIES = np.logspace(-2, 5, 15)
MOST = 100_000_000  # numbers that a ridge regression is given
TRACES = (10e-3, 30e-3, 100e-3, 300e-3, 1.0)  # seconds


def train(recipe: str, seed: int, folder: Path, data_root: str | None, changes: list[str]) -> None:
    """Start the run of one seed, go on with it, or leave it if it is finished."""
    if (folder / "result.json").exists():
        print(f"seed {seed}: finished", file=sys.stderr)
        return
    if (folder / "config.json").exists():
        command = [*EVENTNET, "train", recipe, "--resume", str(folder)]
    else:
        command = [*EVENTNET, "train", recipe, "--seed", str(seed), "--out", str(folder), *map(option, changes)]
    if data_root:
        command += ["--data-root", data_root]
    started = commits(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _beside(folder).write_text("\n".join(dict.fromkeys([*started, commit()])) + "\n")
    print(f"seed {seed}: {folder}", file=sys.stderr)
    if subprocess.run(command).returncode:
        sys.exit(f"seed {seed} stopped; the same command goes on with it")


def option(change: str) -> str:
    """``tau_mem=0.01`` as an option of the command line: ``--tau-mem=0.01``; ``recurrent=yes``: ``--recurrent``."""
    name, _, value = change.partition("=")
    name = name.replace("_", "-")
    return {"yes": f"--{name}", "no": f"--no-{name}"}.get(value, f"--{name}={value}")


def commits(folder: Path) -> list[str]:
    """The commits that a run was started and resumed at."""
    beside = _beside(folder)
    return beside.read_text().split() if beside.exists() else []


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".commit")


def read_run(seed: int, folder: Path) -> dict[str, Any]:
    """Everything that a table quotes about one finished run."""
    result, config, environment = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("result", "config", "environment")
    )
    with open(folder / "metrics.csv", newline="") as file:
        best = next(row for row in csv.DictReader(file) if int(row["epoch"]) == result["best_epoch"])
    model = load_model(folder)[0]
    taus = [layer.tau_syn for layer in model.modules() if isinstance(layer, LIF) and layer.branches]
    return {
        "seed": seed,
        "test_accuracy": result["test"]["accuracy"],
        "validation_accuracy": result["validation_accuracy"],
        "validation_loss": float(best["validation_loss"]),
        "best_epoch": result["best_epoch"],
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        **({"branch_tau_syn": torch.cat(taus, 1).tolist()} if taus else {}),  # seconds, of each branch's neurons
        "seconds": result["seconds"],
        "test": result["test"],
        "recipe": config["recipe"],
        "data": config["data"],
        "environment": environment,
        "commit": commits(folder),
    }


def write(target: Path, collected: dict[str, Any]) -> None:
    """The results as JSON, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(collected, indent=1) + "\n")
    os.replace(part, target)


def collect(recipe: str, folders: dict[int, Path]) -> dict[str, Any]:
    """Everything that a table quotes about finished runs; refuses to mix runs of different settings."""
    runs = [read_run(seed, folder) for seed, folder in folders.items()]
    first = _settings(runs[0])
    for run in runs[1:]:
        changed = sorted(name for name, value in _settings(run).items() if first.get(name) != value)
        if changed:
            raise ValueError(
                f"seeds {runs[0]['seed']} and {run['seed']} differ in {', '.join(changed)}: "
                "delete the runs of one of the settings, or give another folder with --runs"
            )
    return {
        "recipe": recipe,
        **summary([run["test_accuracy"] for run in runs], PUBLISHED.get(recipe)),
        "runs": runs,
    }


def _settings(run: dict[str, Any]) -> dict[str, Any]:
    recipe = Recipe.from_dict(run["recipe"]).to_dict()  # with the defaults of what an older version did not have
    return {name: value for name, value in recipe.items() if name != "seed"}


def summary(scores: list[float], published: dict[str, Any] | None) -> dict[str, Any]:
    """Mean, deviation, and whether the published mean is met: missed by two standard errors at most."""
    mean = statistics.mean(scores)
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    met = None
    if published is not None and deviation is not None:
        met = mean >= published["accuracy"] - 2 * deviation / len(scores) ** 0.5
    return {"mean": mean, "standard_deviation": deviation, "published": published, "met": met}


def linear_floor(splits: Any, step: float | None = None) -> tuple[float, str] | None:
    """Test accuracy of ridge regression on event counts, or on first times where all counts are the same.

    With ``step`` in seconds: on the events of each step. Where labels are per step: on leaky traces of the events at each
    step, with the time constants in ``TRACES``. None where these would be more than ``MOST`` numbers.
    """
    from sklearn.linear_model import RidgeClassifier

    parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
    labels = {name: part.labels.flatten().numpy() for name, part in parts.items()}
    if parts["train"].labels.dim() > 1:
        if labels["train"].size * parts["train"].events.num_units * len(TRACES) > MOST:
            return None
        inputs, what = {name: traces(part) for name, part in parts.items()}, f"{len(TRACES)} traces per unit"
    elif step is not None:
        events = parts["train"].events
        if events.batch_size * events.num_units * int(events.num_steps(step).max()) > MOST:
            return None
        dense = {name: part.events.to_dense(step).transpose(0, 1) for name, part in parts.items()}
        steps = max(x.shape[1] for x in dense.values())
        inputs = {name: pad(x, (0, 0, 0, steps - x.shape[1])).flatten(1).numpy() for name, x in dense.items()}
        what = "all steps"
    else:
        inputs, what = {name: part.events.counts().numpy() for name, part in parts.items()}, "event counts"
        if (inputs["train"] == inputs["train"][:1]).all():
            times = {name: part.events.first_times().numpy() for name, part in parts.items()}
            inputs, what = {name: np.where(np.isfinite(t), t, 0.0) for name, t in times.items()}, "first times"
    mean, spread = inputs["train"].mean(0), inputs["train"].std(0)
    spread[spread == 0] = 1.0
    inputs = {name: ((x - mean) / spread).astype(np.float32) for name, x in inputs.items()}
    train, validation = ((inputs[name], labels[name]) for name in ("train", "validation"))
    fits = {penalty: RidgeClassifier(alpha=penalty).fit(*train).score(*validation) for penalty in PENALTIES}
    both = [np.concatenate(pair) for pair in zip(train, validation, strict=True)]
    best = RidgeClassifier(alpha=max(fits, key=lambda penalty: fits[penalty])).fit(*both)
    return float(best.score(inputs["test"], labels["test"])), f"ridge on {what}"


def traces(part: Any) -> np.ndarray:
    """``(samples * steps, units * traces)`` leaky traces at the end of each labelled step."""
    batch, steps = part.labels.shape
    grid = torch.arange(1, steps + 1) * (part.events.duration.max().item() / steps)
    columns = [part.events.to_trace(grid, tau).reshape(batch * steps, -1) for tau in TRACES]
    return torch.cat(columns, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="as in eventnet train")
    parser.add_argument("--name", help="of the result and the run folders; the recipe's if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the recipe to change")
    parser.add_argument("--data-root", default=os.environ.get("EVENTNET_DATA"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "accuracy", help="folder of the run folders")
    args = parser.parse_args()
    name = args.name or args.recipe
    folders = {seed: args.runs / f"{name}-{seed}" for seed in args.seeds}
    for seed, folder in folders.items():
        train(args.recipe, seed, folder, args.data_root, args.set)
    collected = collect(args.recipe, folders)
    floor = _floor(collected["runs"][0]["recipe"], args.data_root)
    collected |= {"linear_floor": floor[0], "linear_floor_is": floor[1]} if floor else {}
    write(RESULTS / f"{name}.json", collected)
    scores = ", ".join(f"{run['test_accuracy']:.2%}" for run in collected["runs"])
    deviation = collected["standard_deviation"]
    print(f"{name}: {collected['mean']:.2%} ± {deviation or 0:.2%} ({scores}); linear floor: {floor}")


def _floor(recipe: dict[str, Any], data_root: str | None) -> tuple[float, str] | None:
    from eventnet.training.run import load_data

    return linear_floor(load_data(Recipe.from_dict(recipe), data_root), recipe.get("step"))


if __name__ == "__main__":
    main()
