"""Write the tables of the project's README and of this folder's from ``benchmarks/results``.

    python benchmarks/tables.py [--check]

A table goes between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``, NAME being one of ``TABLES``. Markers whose results are
not there are left as they are. ``--check`` changes nothing and exits with 1 if a file is out of date.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
READMES = (Path(__file__).resolve().parents[1] / "README.md", Path(__file__).with_name("README.md"))
NAMES = {
    "dcls": "DCLS",
    "spikingjelly": "SpikingJelly",
    "snntorch": "snnTorch",
    "norse": "Norse",
    "sinabs": "Sinabs",
}


def speed_table(results: Path) -> str | None:
    """Time of each contender as a multiple of eventnet's, forward + backward and forward, and peak memory."""
    path = results / "speed.json"
    if not path.exists():
        return None
    rows = json.loads(path.read_text())
    lines = [_machine(rows), ""]
    for what, title in (("train", "forward + backward"), ("forward", "forward")):
        lines += [*_ratios(rows, what, title), ""]
    return "\n".join(lines).rstrip()


def brief_speed_table(results: Path) -> str | None:
    """Forward + backward: our own grid in C++, and the fastest of the libraries, by the best of the repeats."""
    path = results / "speed.json"
    if not path.exists():
        return None
    rows = json.loads(path.read_text())
    heads = (
        "shape, step of the grids",
        "eventnet",
        "our grid in C++",
        "fastest library",
        "memory: grid",
        "memory: library",
    )
    lines = [_machine(rows), "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for shape in _ordered(r["shape"] for r in rows):
        mine = [r for r in rows if r["shape"] == shape]
        ours = next((r for r in mine if r["contender"] == "eventnet"), None)
        for step in sorted({r["step"] for r in mine if r["step"]}) if ours else ():
            grid = next((r for r in mine if r["contender"] == "grid-gather" and r["step"] == step), None)
            libraries = [r for r in mine if r["contender"].partition("-")[0] in NAMES and r["step"] == step]
            fastest = min(libraries, key=lambda r: r["seconds"]["train"]["best"], default=None)
            shown = [f"{1e3 * ours['seconds']['train']['best']:.3g} ms"]
            for other in (grid, fastest):
                name = f" ({_label(other['contender'])})" if other is not None and other is fastest else ""
                shown.append("" if other is None else _best_ratio(ours, other) + name)
            shown += ["" if other is None else _times(other["bytes"] / ours["bytes"]) for other in (grid, fastest)]
            lines.append("| " + " | ".join([f"{shape}, {1e3 * step:g} ms", *shown]) + " |")
    return "\n".join(lines)


def _best_ratio(ours: dict[str, Any], other: dict[str, Any]) -> str:
    return _times(other["seconds"]["train"]["best"] / ours["seconds"]["train"]["best"])


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def _ratios(rows: list[dict[str, Any]], what: str, title: str) -> list[str]:
    contenders = _ordered(r["contender"] for r in rows if r["contender"] != "eventnet")
    head = ["shape", f"eventnet, {title}", *(_label(c) for c in contenders)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for shape in _ordered(r["shape"] for r in rows):
        mine = [r for r in rows if r["shape"] == shape]
        ours = next((r for r in mine if r["contender"] == "eventnet"), None)
        if ours is None:
            continue
        base = ours["seconds"][what]["best"]
        for step in sorted({r["step"] for r in mine if r["step"]}):
            cells = [f"{shape}, {1e3 * step:g} ms", f"{1e3 * base:.3g} ms{_megabytes(ours, what)}"]
            for contender in contenders:
                other = next((r for r in mine if r["contender"] == contender and r["step"] in (step, None)), None)
                cells.append("" if other is None else _ratio(ours, other, what) + _megabytes(other, what))
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratio(ours: dict[str, Any], other: dict[str, Any], what: str) -> str:
    """By the best of the repeats and, where it says something else, by their median."""
    by = (other["seconds"][what][which] / ours["seconds"][what][which] for which in ("best", "median"))
    return " / ".join(dict.fromkeys(f"{ratio:.2g}" for ratio in by)) + "×"


def _megabytes(row: dict[str, Any], what: str) -> str:
    return f", {row['bytes'] / 1e6:.3g} MB" if what == "train" and row["bytes"] is not None else ""


def _machine(rows: list[dict[str, Any]]) -> str:
    versions = _ordered(f"{_label(r['contender'])} {r['version']}" for r in rows if r["contender"] in NAMES)
    return f"{_on([r['machine'] for r in rows], rows[0]['torch'])}; {', '.join(versions)}."


def _on(machines: list[dict[str, Any]], torch: str) -> str:
    named = _ordered(f"{m['cpu']}, {m['cores']} cores, {' '.join(m['features'])}" for m in machines)
    return f"Measured on {'; '.join(named)}, two threads, PyTorch {torch}"


def _label(contender: str) -> str:
    name, _, form = contender.partition("-")
    return NAMES[name] + (f", {form}" if form else "") if name in NAMES else contender


def _ordered(names: Any) -> list[str]:
    return list(dict.fromkeys(names))


def error_table(results: Path) -> str | None:
    """Error of spikes and gradients against seconds."""
    path = results / "error_curve.json"
    if not path.exists():
        return None
    curve = json.loads(path.read_text())
    lines = [
        f"{curve['shape']}, batch {curve['batch']}, {curve['machine']['cpu']}, two threads; "
        "against the exact solution in float64.",
        "",
        "| method | spike-time error, median | unmatched | gradient: cosine | norm | forward + backward |",
        "|---|---|---|---|---|---|",
    ]
    for r in curve["rows"]:
        lines.append(
            f"| {r['method']} | {1e6 * r['spike_time_error_median']:.2g} µs | {r['unmatched_fraction']:.1%} "
            f"| {r['gradient_cosine']:.4f} | {r['gradient_norm_ratio']:.3g}× | {1e3 * r['seconds']:.3g} ms |"
        )
    return "\n".join(lines)


def accuracy_table(results: Path) -> str | None:
    """Test accuracy of every spiking recipe over its seeds, beside the linear floor and the published number."""
    found = _accuracies(results, "spiking")
    if not found:
        return None
    lines = [
        "| recipe | test accuracy | seeds | linear floor | published | met |",
        "|---|---|---|---|---|---|",
    ]
    for name, recipe in found.items():
        published = recipe.get("published")
        cells = [
            name,
            _percent([run["test_accuracy"] for run in recipe["runs"]]),
            str(len(recipe["runs"])),
            _floor(recipe),
            "" if published is None else f"{100 * published['accuracy']:.2f} % ({published['source']})",
            "" if recipe.get("met") is None else ("yes" if recipe["met"] else "no"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gated_table(results: Path) -> str | None:
    """Every gated recipe beside its dense twin: accuracy, and what its layers multiply."""
    found = _accuracies(results, "gated")
    if not found:
        return None
    head = ["recipe", "units", "parameters", "seeds", "test accuracy", "validation loss", "active", "with a gradient"]
    head += ["multiplications per step", "linear floor"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, recipe in found.items():
        runs, first = recipe["runs"], recipe["runs"][0]
        did = {key: statistics.mean(run["test"][key] for run in runs) for key in first["test"]}
        work, dense = did["multiplications"], did["dense_multiplications"]
        size = "-".join(map(str, first["recipe"]["hidden"]))
        cells = [
            name,
            f"{size} {'EGRU' if first['recipe']['unit'] == 'egru' else 'GRU'}",
            f"{first['parameters']:,}",
            str(len(runs)),
            _percent([run["test_accuracy"] for run in runs]),
            f"{statistics.mean(run['validation_loss'] for run in runs):.4f}",
            f"{did['activity']:.1%}",
            f"{did['backward_activity']:.1%}",
            f"{work:,.0f} ({work / dense:.0%} of the dense)",
            _floor(recipe),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _accuracies(results: Path, family: str) -> dict[str, dict[str, Any]]:
    """What ``accuracy.py`` wrote of the recipes of a family, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((results / "accuracy").glob("*.json"))}
    return {name: r for name, r in found.items() if r["runs"][0].get("recipe", {}).get("family", "spiking") == family}


def _percent(shares: list[float]) -> str:
    scores = [100 * share for share in shares]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.2f}{spread} %"


def _floor(recipe: dict[str, Any]) -> str:
    floor = recipe.get("linear_floor")
    return "" if floor is None else f"{100 * floor:.1f} %"


def fold_table(folds: list[dict[str, Any]]) -> str:
    """Test accuracy of every contender on every speaker that was left out, the mean of its seeds."""
    speakers, contenders = (list(dict.fromkeys(fold[name] for fold in folds)) for name in ("speaker", "contender"))
    lines = [
        "| " + " | ".join(["contender", "parameters", *speakers, "mean", "spikes per digit"]) + " |",
        "|---" * (len(speakers) + 4) + "|",
    ]
    for contender in contenders:
        own = [fold for fold in folds if fold["contender"] == contender]
        scores = [[fold["test_accuracy"] for fold in own if fold["speaker"] == speaker] for speaker in speakers]
        means = [statistics.mean(score) if score else None for score in scores]
        known = [mean for mean in means if mean is not None]
        spikes = [fold["test"]["spikes_per_inference"] for fold in own if "test" in fold]
        cells = [
            contender,
            f"{own[0]['parameters']:,}",
            *("" if mean is None else f"{100 * mean:.1f} %" for mean in means),
            f"{100 * statistics.mean(known):.1f} %" if len(known) == len(speakers) else "",
            f"{statistics.mean(spikes):.0f}" if spikes else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def folds_table(results: Path) -> str | None:
    """Spoken digits of a stranger: the folds of ``fsdd_folds.py``."""
    path = results / "fsdd_folds.json"
    return fold_table(json.loads(path.read_text())["folds"]) if path.exists() else None


def brief_folds_table(results: Path) -> str | None:
    """Of those, each contender's mean over the speakers."""
    path = results / "fsdd_folds.json"
    if not path.exists():
        return None
    folds = json.loads(path.read_text())["folds"]
    speakers = {fold["speaker"] for fold in folds}
    lines = [f"| contender | parameters | test accuracy, mean of {len(speakers)} speakers |", "|---|---|---|"]
    for contender in _ordered(fold["contender"] for fold in folds):
        own = [fold for fold in folds if fold["contender"] == contender]
        means = [statistics.mean(f["test_accuracy"] for f in own if f["speaker"] == each) for each in speakers]
        lines.append(f"| {contender} | {own[0]['parameters']:,} | {100 * statistics.mean(means):.1f} % |")
    return "\n".join(lines)


def egru_table(results: Path) -> str | None:
    """EGRU against ``nn.GRU``."""
    path = results / "egru.json"
    if not path.exists():
        return None
    import egru

    rows = json.loads(path.read_text())
    return "\n".join([_on([r["machine"] for r in rows], rows[0]["torch"]) + ".", "", egru.table(rows)])


BRIEF_EGRU = (
    ("train", {"hidden": 1024, "batch": 32, "half_width": 0.05, "layers": 1}),
    ("train", {"hidden": 256, "batch": 128, "half_width": 0.05, "layers": 1}),
    ("sequence", {"hidden": 1024, "layers": 1, "inputs": 1.0}),
    ("stream", {"hidden": 1024, "layers": 1, "inputs": 1.0}),
)


def brief_egru_table(results: Path) -> str | None:
    """EGRU against ``nn.GRU`` at 10 and 30 % activity."""
    path = results / "egru.json"
    if not path.exists():
        return None
    import egru

    rows = json.loads(path.read_text())
    chosen = [
        row
        for what, own in BRIEF_EGRU
        for row in rows
        if row["row"]["what"] == what
        and row["row"]["activity"] in (0.1, 0.3)
        and all(row["row"][name] == value for name, value in own.items())
    ]
    return "\n".join([_on([r["machine"] for r in rows], rows[0]["torch"]) + ".", "", egru.table(chosen)])


def export_table(results: Path) -> str | None:
    """Accuracy of exported networks: trained, with integers, fine-tuned, and Lava's answer."""
    paths = sorted((results / "export").glob("*.json"))
    if not paths:
        return None
    heads = (
        "network",
        "step",
        "seeds",
        "test samples",
        "trained",
        "integers",
        "fine-tuned",
        "Lava 0.10.0, every number",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for path in paths:
        found = json.loads(path.read_text())
        runs = found["runs"]
        shares = [
            f"{100 * statistics.mean(r[part] for r in runs):.2f} %"
            + (f" ({_signed(found, part)})" if part != "trained" else "")
            for part in ("trained", "integers", "fine_tuned")
        ]
        lava = next((gate for gate in found["gates_of_the_first_run"] if gate["name"] == "L3"), None)
        said = "not run" if lava is None or lava["passed"] is None else "equal" if lava["passed"] else "differs"
        count = re.search(r"of (\d+) samples", lava["text"]) if lava else None
        cells = [path.stem, f"{1e3 * found['step_s']:g} ms", str(len(runs)), f"{runs[0]['samples']:,}", *shares]
        lines.append("| " + " | ".join([*cells, f"{said}, {count[1]} samples" if count else said]) + " |")
    return "\n".join(lines)


def _signed(found: dict[str, Any], part: str) -> str:
    return f"{-100 * found['mean_loss'][part]:+.2f}"


def suite_table(results: Path) -> str | None:
    """Every recipe of ``suite.py``: accuracy, operations, energy range, time and memory."""
    paths = sorted((results / "suite").glob("*.json"))
    if not paths:
        return None
    from eventnet.hardware.energy import Interval

    heads = [
        "recipe",
        "size",
        "test, of samples",
        "fixed point, of samples counted",
        "synaptic operations per sample",
        "of the dense",
        "state updates",
    ]
    heads += ["energy per sample, estimated", "dense, every step", "dense, one pass", "training", "memory"]
    found = [json.loads(path.read_text()) for path in paths]
    machines = _ordered(f"{each['machine']['cpu']}, {each['machine']['cores']} cores" for each in found)
    lines = [
        f"Measured on {'; '.join(machines)}, one seed each.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for each in found:
        facts, layers = each["benchmark"], each["benchmark"]["counts"][each["benchmark"]["charged"]].values()
        work = sum(x["accumulates"] + x["multiply_accumulates"] for x in layers)
        dense = sum(x["dense"] for x in layers)
        energy = facts["energy"].get(CHIP)
        dense_ones = [x for x in facts["baselines"] if x["profile"] == CHIP and x["name"].endswith("zeros skipped")]
        twins = [next((x for x in dense_ones if kind in x["name"]), None) for kind in ("every step", "one pass")]
        fixed = facts["accuracy"].get("fixed_point")
        score = each["test"].get("accuracy")
        cells = [
            each["recipe"],
            each["size"],
            (f"{score:.2%}" if score is not None else f"sMAPE {each['test']['smape']:.2f}")
            + f" of {each['test']['samples']:,}",
            f"{'–' if fixed is None or fixed['share'] is None else format(fixed['share'], '.2%')} of "
            f"{facts['identity']['samples']:,}",
            f"{work:,.0f}",
            f"{work / dense:.1%}" if dense else "",
            f"{sum(x['state_updates'] for x in layers):,.0f}",
            *("" if x is None else Interval(*x["dynamic_joules_per_sample"]).text("J") for x in (energy, *twins)),
            f"{each['train_seconds']:,.0f} s",
            "" if each["peak_bytes"] is None else f"{each['peak_bytes'] / 2**20:,.0f} MiB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


CHIP = "asic45"  # it prices arithmetic and memory, and takes graded events too


def mackey_glass_table(results: Path) -> str | None:
    """NeuroBench's chaotic forecasting, as ``mackey_glass.py`` found it."""
    path = results / "mackey_glass.json"
    if not path.exists():
        return None
    import mackey_glass

    found = json.loads(path.read_text())
    heading = f"tau {found['tau']}; {found['machine']['cpu']}, one thread, PyTorch {found['torch']}, neurobench"
    return f"{heading} {found['neurobench']}. Published: {found['source']}.\n\n{mackey_glass.table(found['rows'])}"


def resistive_table(results: Path) -> str | None:
    """Reservoirs and trained networks on resistive memory."""
    path = results / "resistive.json"
    if not path.exists():
        return None
    import resistive

    return resistive.table(json.loads(path.read_text()))


def dendrites_table(results: Path) -> str | None:
    """Active dendrites, branches, ELM, segments."""
    import dendrites

    return dendrites.table(results)


def interop_table(results: Path) -> str | None:
    """Networks of snnTorch and Norse."""
    path = results / "interop.json"
    if not path.exists():
        return None
    import interop

    return interop.table(json.loads(path.read_text()))


def dense_mnist_table(results: Path) -> str | None:
    """A spiking layer in a convolutional network."""
    path = results / "dense_mnist.json"
    if not path.exists():
        return None
    import dense_mnist

    return dense_mnist.table(json.loads(path.read_text()))


TABLES: dict[str, Callable[[Path], str | None]] = {
    "brief-speed": brief_speed_table,
    "speed": speed_table,
    "error": error_table,
    "accuracy": accuracy_table,
    "brief-folds": brief_folds_table,
    "folds": folds_table,
    "gated": gated_table,
    "brief-egru": brief_egru_table,
    "egru": egru_table,
    "export": export_table,
    "suite": suite_table,
    "mackey-glass": mackey_glass_table,
    "resistive": resistive_table,
    "dendrites": dendrites_table,
    "interop": interop_table,
    "dense-mnist": dense_mnist_table,
}


def fill(text: str, results: Path = RESULTS) -> str:
    """``text`` with every table between its markers brought up to date."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if (begin in text) != (end in text):
            raise ValueError(f"README: {begin} and {end} must come as a pair")
        content = table(results)
        if begin in text and content is not None:
            pattern = re.escape(begin) + ".*?" + re.escape(end)
            new = f"{begin}\n{content}\n{end}".replace("\\", r"\\")
            text = re.sub(pattern, new, text, flags=re.DOTALL)
    return text


def update(*, check: bool = False) -> list[Path]:
    """Bring the tables of all files up to date, unless it is only a check; those that were not."""
    stale = []
    for path in READMES:
        old = path.read_text()
        if (new := fill(old)) != old:
            stale.append(path)
            if not check:
                part = path.with_suffix(".part")
                part.write_text(new)
                os.replace(part, path)
    return stale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the README is up to date")
    args = parser.parse_args()
    stale = update(check=args.check)
    if stale and args.check:
        sys.exit(f"{', '.join(map(str, stale))}: tables out of date; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
