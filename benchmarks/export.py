"""What a chip costs: test accuracy of finished runs as trained, with integers, and fine-tuned; and whether Lava agrees.

    python benchmarks/export.py fsdd_chip RUN [RUN ...] --dt 1e-3 --finetune 2 --lava 20
    python benchmarks/export.py row_mnist RUN [RUN ...] --finetune 1 --learning-rate 0.1 --calibration 512 --lava 20

Scales are searched on training samples; fine-tuning uses the training part, and the validation part chooses its epoch (the
start is one of them). The test part is looked at once for each of the three. ``--lava N`` runs N test samples of the first run,
200 steps of each, in Lava 0.10.0 and compares every spike, current and voltage. The result goes to
``benchmarks/results/export/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from measure import commit, machine

from eventnet.hardware import Deployment, compile, export, finetune
from eventnet.hardware.command import subset
from eventnet.hardware.parity import compared
from eventnet.training import load_model
from eventnet.training.batches import Batches
from eventnet.training.run import data_of

RESULTS = Path(__file__).with_name("results") / "export"


def measure(run: Path, options: argparse.Namespace) -> tuple[dict[str, Any], Deployment, Any]:
    """Accuracies of one run, in shares; the fine-tuned deployment; the test samples."""
    network, _ = load_model(run)
    network.eval()
    recipe, splits = network.recipe, data_of(run, options.data_root)
    events, labels = subset(splits.test, None)
    typical, _ = subset(splits.train, options.calibration)
    found: dict[str, Any] = {"run": run.name, "seed": recipe.seed, "samples": len(labels)}

    started = time.perf_counter()
    deployment = compile(network, calibration=typical, dt=options.dt)
    found["compile_seconds"] = round(time.perf_counter() - started, 1)
    tuned = deployment
    if options.finetune:
        batches = Batches(splits.train, recipe.batch_size, shuffle=True, seed=recipe.seed)
        started = time.perf_counter()
        tuned = finetune(
            deployment,
            batches,
            epochs=options.finetune,
            learning_rate=options.learning_rate,
            validation=subset(splits.validation, None),
            say=say,
        )
        found["finetune_seconds"] = round(time.perf_counter() - started, 1)
    for name, each in (("integers", deployment), ("fine_tuned", tuned)):
        decision = each.run(events)
        facts = compared(each.reading, network, events, labels, decision.scores)
        found["trained"], found[name] = facts["trained"]["share"], facts["chip"]["share"]
        found[f"{name}_agreement"] = facts["agreement"]
        found[f"{name}_spikes"] = {part: float(n.double().mean()) for part, n in decision.spikes.items()}
        found[f"{name}_overflows"] = decision.overflows
    say(
        f"{run.name}: trained {found['trained']:.2%}, integers {found['integers']:.2%}, tuned {found['fine_tuned']:.2%}"
    )
    found["recipe"], found["step_s"] = recipe.to_dict(), deployment.network.dt
    return found, tuned, (events, labels)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--dt", type=float)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.25)
    parser.add_argument("--finetune", type=int, default=3)
    parser.add_argument("--lava", type=int, default=0)
    parser.add_argument("--data-root")
    options = parser.parse_args()
    rows, gates = [], []
    for k, run in enumerate(options.runs):
        found, deployment, (events, labels) = measure(run, options)
        rows.append(found)
        if options.lava and k == 0:
            folder = run / "lava"
            report = export(deployment, deployment.model, "lava", folder, events, labels, samples=options.lava, say=say)
            gates = report.to_dict()["gates"]
    losses = {name: statistics.mean(row["trained"] - row[name] for row in rows) for name in ("integers", "fine_tuned")}
    result = {
        "name": options.name,
        "step_s": rows[0]["step_s"],
        "mean_trained": statistics.mean(row["trained"] for row in rows),
        "mean_loss": losses,
        "runs": rows,
        "gates_of_the_first_run": gates,
        "machine": machine(),
        "commit": commit(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{options.name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in ("name", "mean_trained", "mean_loss")}, indent=2))


if __name__ == "__main__":
    main()
