"""What ``eventnet export | benchmark | report`` do with the folder of a run; ``eventnet.hardware`` is imported when they run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from eventnet import Events
from eventnet.training import checkpoint, objective
from eventnet.training.batches import Batches
from eventnet.training.errors import CheckpointError, UserError
from eventnet.training.recipe import GatedRecipe
from eventnet.training.run import CONFIG, RESULT, data_of, recipe_of

__all__ = ["BENCHMARK", "benchmark_run", "export_run", "headline", "report_runs", "summary"]

BENCHMARK, PARITY = "benchmark.json", "parity.json"
TARGETS = ("loihi", "lava", "nir")  # folders of exports, beside the benchmark
STEP = 1e-3  # seconds, of layers in continuous time

Say = Callable[[str], None]


def export_run(
    run: Path, to: str, out: Path, *, data_root: Path | None = None, say: Say = lambda text: None, **options: Any
) -> Any:
    """Export the network of a run; the ``ParityReport`` of ``eventnet.hardware.command``. Errors are the user's."""
    from eventnet.hardware import command

    network, _ = checkpoint.load_model(run)
    splits, recipe = data_of(run, data_root), network.recipe
    if splits.forecasts:
        raise UserError(
            f"{run}: {recipe.name} forecasts numbers, and an exported network's classes are compared; not carried over yet"
        )
    shuffled = Batches(splits.train, recipe.batch_size, shuffle=True, seed=recipe.seed)
    try:
        return command.export_run(network.eval(), splits, to, out, batches=shuffled, say=say, **options)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error)) from error


# ---- benchmark -------------------------------------------------------------------------------------------------------------


def benchmark_run(
    run: Path,
    *,
    dt: float | None = None,
    baseline_dt: float | None = None,
    limit: int | None = None,
    calibration: int = 64,
    data_root: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Count and estimate on the test part of a finished run; writes ``RUN/benchmark.json``.

    Args:
        dt: seconds of a step of the chip; by default 1 ms, of gated units their own.
        baseline_dt: seconds of a step of the dense baselines; by default the task's: between two labels, or of gated units their
            own; else the chip's.
    """
    from eventnet.hardware.benchmark import benchmark
    from eventnet.hardware.command import subset

    for name, samples in (("limit", limit), ("calibration", calibration)):
        if samples is not None and samples < 1:
            raise UserError(f"--{name}: expected at least 1 sample, got {samples}")
    for name, step in (("dt", dt), ("baseline-dt", baseline_dt)):
        if step is not None and not 0 < step < math.inf:
            raise UserError(f"--{name}: expected seconds > 0, got {step:g}")
    recipe = recipe_of(run)
    if not (run / RESULT).is_file():
        raise CheckpointError(f"{run}: this run is not finished, and the test part is for its end")
    network, _ = checkpoint.load_model(run)
    splits = data_of(run, data_root)
    own = recipe.step if isinstance(recipe, GatedRecipe) else None
    if own is not None and dt not in (None, own):
        raise UserError(f"--dt: the units were trained with steps of {own:g} s, expected those, got {dt:g}")
    events, labels = subset(splits.test, limit)
    typical: Events | None = None if splits.forecasts else subset(splits.train, calibration)[0]
    try:
        facts = benchmark(
            network.eval(),
            events,
            None if splits.forecasts else labels,
            dt=own or dt or STEP,
            baseline_dt=baseline_dt or _task_step(recipe),
            calibration=typical,
            predict=lambda outcome: objective.predict(recipe, outcome.scores),
            say=say,
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    if splits.forecasts:
        facts |= _forecast(run)
        facts["notes"].append("The network forecasts numbers: the counts are those of one pass over the known series.")
    checkpoint.write_files({run / BENCHMARK: json.dumps(facts, allow_nan=False, indent=1).encode()})
    return facts


def _task_step(recipe: Any) -> float | None:
    """Seconds between two answers that the task asks for, or of gated units a step; None: there is one answer at the end."""
    if isinstance(recipe, GatedRecipe):
        return recipe.step
    return float(recipe.readout_step) if recipe.readout == "at" else None


def _forecast(run: Path) -> dict[str, Any]:
    """How good the forecasts of a run are, as it found itself."""
    error = checkpoint.read_json(run / RESULT)["test"].get("smape")
    return {} if error is None else {"forecast": {"name": "test sMAPE", "value": error}}


def summary(facts: dict[str, Any]) -> Iterator[Any]:
    """The facts of a benchmark as tables and lines for a terminal."""
    yield from _accuracy_lines(facts)
    yield _operations_table(facts)
    yield _energy_table(facts)
    yield _advantage_table(facts)
    yield from facts["notes"]
    yield "All energies are estimates, not measurements; eventnet report shows sources and assumptions."


def headline(facts: dict[str, Any]) -> dict[str, str]:
    """The most important of them, a line each: work, and what it costs beside the strongest dense networks."""
    from eventnet.hardware.energy import Interval

    layers = facts["counts"][facts["charged"]].values()
    work = sum(x["accumulates"] + x["multiply_accumulates"] for x in layers)
    dense = max(sum(x["dense"] for x in layers), 1)
    found = {"synaptic operations": f"{work:,.0f} per sample, {work / dense:.1%} of those of a dense network"}
    for device in ("loihi1", "asic45"):
        if device in facts["energy"]:
            x = facts["energy"][device]
            idle = x["idle_joules_per_sample"]
            rest = "idle power not known" if idle is None else f"{Interval(*idle).text('J')} idle"
            found[f"energy, {device}"] = f"{Interval(*x['dynamic_joules_per_sample']).text('J')} + {rest}, estimated"
    for x in facts["baselines"]:
        if x["profile"] == "asic45" and "zeros skipped" in x["name"]:
            found[f"dense, {x['name']}"] = f"{Interval(*x['dynamic_joules_per_sample']).text('J')} on asic45, estimated"
    return found


def _accuracy_lines(facts: dict[str, Any]) -> Iterator[str]:
    if facts.get("forecast"):
        yield f"{facts['forecast']['name']}: {facts['forecast']['value']:.3g}"
    for name, x in facts["accuracy"].items():
        if x["share"] is None:
            yield f"accuracy, {name.replace('_', ' ')}: not known, there are no labels"
            continue
        yield f"accuracy, {name.replace('_', ' ')}: {x['share']:.2%} ({x['low']:.2%} to {x['high']:.2%}) of {x['labels']} labels"


def _operations_table(facts: dict[str, Any]) -> Table:
    kind = facts["charged"]
    table = Table(title=f"per sample, {kind.replace('_', ' ')} network", title_justify="left", box=None, pad_edge=False)
    names = {
        "spikes": "spikes",
        "accumulates": "accumulates",
        "multiply_accumulates": "MACs",
        "dense": "dense equivalent",
        "state_updates": "state updates",
    }
    for heading in ("layer", "neurons", *names.values()):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer, x in facts["counts"][kind].items():
        table.add_row(layer, f"{x['neurons']:,}", *(f"{x[name]:,.0f}" for name in names))
    return table


def _energy_table(facts: dict[str, Any]) -> Table:
    from eventnet.hardware.energy import Interval

    table = Table(title="energy per sample, estimated", title_justify="left", box=None, pad_edge=False)
    for heading in ("device", "dynamic", "idle"):
        table.add_column(heading)
    rows = [(name, x) for name, x in facts["energy"].items()]
    rows += [(f"{x['name']} on {x['profile']}", x) for x in facts["baselines"] if x["profile"] == "asic45"]
    for name, x in rows:
        dynamic, idle = (x[f"{part}_joules_per_sample"] for part in ("dynamic", "idle"))
        table.add_row(name, Interval(*dynamic).text("J"), "not known" if idle is None else Interval(*idle).text("J"))
    return table


def _advantage_table(facts: dict[str, Any]) -> Table:
    title = "dynamic energy of a dense baseline on asic45, over that of the network"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("device", "baseline", "advantage", "does it pay?"):
        table.add_column(heading)
    for device, comparisons in facts["break_even"].items():
        for each in comparisons:
            low, high = (_times(x) for x in each["advantage_at_own_rate"])
            table.add_row(
                device, each["baseline"].partition(" on ")[0], f"{low} to {high}", each["verdict"].partition(":")[0]
            )
    return table


def _times(advantage: float | None) -> str:
    return "any" if advantage is None else f"{advantage:.2g}x" if advantage < 10 else f"{advantage:,.0f}x"


# ---- report ----------------------------------------------------------------------------------------------------------------


def report_runs(
    runs: Sequence[Path], path: Path, *, data_root: Path | None = None, say: Say = lambda text: None
) -> None:
    """Draw one page of all runs; those without a benchmark get one first."""
    from eventnet.hardware.benchmark import FORMAT
    from eventnet.hardware.benchmark_page import Run, page

    found = []
    for run in runs:
        if not (run / BENCHMARK).is_file():
            say(f"{run}: no {BENCHMARK} yet")
            benchmark_run(run, data_root=data_root, say=say)
        facts = checkpoint.read_json(run / BENCHMARK)
        if not isinstance(facts, dict):
            raise UserError(f"{run / BENCHMARK}: not what eventnet benchmark writes; run eventnet benchmark {run}")
        if facts.get("format") != FORMAT:
            raise UserError(
                f"{run / BENCHMARK}: written by another version; delete it, or run eventnet benchmark {run}"
            )
        parity = {
            target: checkpoint.read_json(run / target / PARITY)
            for target in TARGETS
            if (run / target / PARITY).is_file()
        }
        links = {target: os.path.relpath(run / target / "parity.html", path.parent) for target in parity}
        found.append(Run(str(run), facts, parity, _training(run), links, _stale(run, facts)))
    try:
        text = page(found)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        files = ", ".join(str(run / BENCHMARK) for run in runs)
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{files}: not what eventnet benchmark writes ({why}); run it again") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made ({error.strerror or error})") from error
    checkpoint.write_files({path: text.encode()})


def _stale(run: Path, facts: dict[str, Any]) -> list[str]:
    """A warning if the facts are of another network than the run's folder holds now."""
    from eventnet.hardware.trained import fingerprint, state_of

    identity = facts.get("identity")
    counted = identity.get("model_sha256") if isinstance(identity, dict) else None
    if counted in (None, fingerprint(state_of(checkpoint.load_model(run)[0]))):
        return []
    return [f"{BENCHMARK} is of another network than the one in the folder now; run eventnet benchmark {run}"]


def _training(run: Path) -> dict[str, Any]:
    """How a run was trained, as lines of a table."""
    result, config = checkpoint.read_json(run / RESULT), checkpoint.read_json(run / CONFIG)
    recipe = config["recipe"]
    found = {"recipe": recipe["name"], "data": config["data"], "seconds": result["seconds"], "seed": recipe["seed"]}
    found |= {"epochs": recipe["epochs"], "best_epoch": result["best_epoch"]}
    names = {"test_accuracy": result["test"].get("accuracy"), "test sMAPE": result["test"].get("smape")}
    return found | {name: value for name, value in names.items() if value is not None}
