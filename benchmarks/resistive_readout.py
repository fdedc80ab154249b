"""Reservoirs whose only trained part is a ridge readout, on data sets, beside the linear floor and what is published.

The official test part; ten chips where no other number is printed. Settings are chosen on 500 training samples for 200 units,
by the leave-one-out error of a chip that is not one of those reported; larger reservoirs take the same.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure import commit
from resistive_chips import Choice, chosen, fitted, formed_reservoir
from resistive_energy import energy
from resistive_energy import table as energy_table
from resistive_inputs import SETS, WINDOWS, Part, Task, in_windows, load, times_of

from eventnet import Events
from eventnet.hardware.parity import interval

__all__ = ["UNITS", "floors", "merged", "range_text", "readout", "row", "run", "say", "table"]

UNITS = 200
FLOORS = (1, WINDOWS, 8, 16)  # windows of time that the input's events are counted in
MOST = 5e7  # numbers in the training samples' counts; finer floors are left out, they take gigabytes and minutes
SIZES = {"34 x 34 x 2": (UNITS, 1000), "1k, 16 x 16": (UNITS, 3600)}  # by part of the name; else UNITS alone
LARGE = 2000  # training samples, from which on a readout of 5,000 features takes half a minute
ORDER = ("N-MNIST 1k", "N-MNIST 6-9", "FSDD", "Ev-Objects", "Ev-Containers", "JapaneseVowels")  # of the table
SOURCE = "published (Lin, Wang et al. 2025)"
PUBLISHED = (  # data, readout, share
    ("N-MNIST, full, 16 x 16", "200 units, simulated", 0.891),
    ("N-MNIST, full, 16 x 16", "200 units, on the chip", 0.897),
    ("N-MNIST, full, 16 x 16", "3,600 units", 0.981),
    ("N-MNIST, full, 16 x 16", "trained recurrent network", 0.962),
    ("N-TIDIGITS, 64 channels", "200 units, simulated", 0.708),
    ("N-TIDIGITS, 64 channels", "200 units, on the chip", 0.701),
)
DIFFERS = {
    "N-MNIST": "published are networks of the full set, 60,000 training samples; here there are 1,000 and 100 to test, or of the "
    "four classes 6-9 2,800 and 400 to test, taken from the official training part",
    "FSDD": "instead of N-TIDIGITS the Free Spoken Digit Dataset, a simulated cochlea of 700 channels, 2,700 training samples "
    "and 300 to test of the same six speakers",
    "Ev-Objects, Ev-Containers": "the official split, bins of 20 ms as steps; we know of no published reservoir",
    "JapaneseVowels": "the official split, values as graded events in steps of 1 ms, utterances lengthened by silence to 29 "
    "steps, counts are sums of values; we know of no published reservoir of spikes",
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(name: str, shares: Sequence[float], samples: int, **more: Any) -> dict[str, Any]:
    """One line of the readout's table: the mean over chips with Wilson's interval, as of one reading of the test samples."""
    mean = statistics.mean(shares)
    found = {"name": name, "shares": list(shares), **interval(mean * samples, samples), "samples": samples, **more}
    say(f"{name}: {mean:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    return found


def floors(train: Part, test: Part, windows: Sequence[int] = (1, WINDOWS)) -> list[dict[str, Any]]:
    """Linear readouts of the input itself, counted in each of these numbers of windows."""
    found = []
    for each in windows:
        name = "counts" if each == 1 else f"counts in {each} windows"
        score = fitted(in_windows(train[0], each), train[1]).score(in_windows(test[0], each), test[1])
        found.append(row(f"linear floor, {name}", [score], len(test[1])))
    return found


def readout(task: Task, chips: int, units: int, choice: Choice) -> list[dict[str, Any]]:
    """Reservoirs on one data set: ridge on spike counts, and on counts and traces; what the latter cost."""
    train, test = task.train, task.test
    shares: dict[str, list[float]] = {"counts": [], "counts and traces": []}
    spikes, start = [], time.perf_counter()
    for chip in range(chips):
        reservoir = formed_reservoir(train[0][::18], units, chip, choice, task.decay, task.steps)
        x, z = (reservoir.features(part[0], times=times_of(part[0])) for part in (train, test))
        for name, columns in (("counts", units), ("counts and traces", None)):
            found = fitted(x[:, :columns], train[1]).score(z[:, :columns], test[1])
            shares[name].append(found)
        spikes.append(z[:, :units].sum(1).mean().item())
    more = {"units": units, "seconds_per_chip": round((time.perf_counter() - start) / chips, 1)}
    rows = [row(f"{units} units, {name}", each, len(test[1]), **more) for name, each in shares.items()]
    clock = {"steps": task.steps, "classes": int(train[1].max()) + 1, "graded": test[0].values is not None}
    rows[-1]["energy"] = energy(units, test[0].num_units, inputs(test[0], task.steps), statistics.mean(spikes), **clock)
    return rows


def inputs(events: Events, steps: int) -> float:
    """Units and steps of a sample that have events, on average."""
    return events.to_dense(events.duration[0].item() / steps)[:steps].count_nonzero().item() / events.batch_size


# ---- on data --------------------------------------------------------------------------------------------------------


def run(
    root: Path,
    keep: Callable[[dict[str, Any]], object],
    *,
    sets: Sequence[str] = SETS,
    units: Sequence[int] | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """The data sets that are in ``root``, with reservoirs of those ``units`` if given; ``keep`` gets what there is after each."""
    found: dict[str, Any] = {"choices": {}, "sets": {}}
    here = commit()
    for each in sets[:1] if quick else sets:
        try:
            tasks = load(root, each)
        except FileNotFoundError as error:
            say(f"left out: {error}")
            continue
        for name, task in tasks.items():
            if quick:
                task = Task((task.train[0][:300], task.train[1][:300]), task.test)
            size = len(task.train[1]) * task.train[0].num_units
            rows = floors(task.train, task.test, [windows for windows in FLOORS if windows * size <= MOST])
            sizes = next((sizes for part, sizes in SIZES.items() if part in name and not quick), (UNITS,))
            if sizes := [size for size in sizes if units is None or size in units]:
                choice = chosen(task, UNITS)
                say(f"{name}: {choice}")
                found["choices"][name] = vars(choice)
            for size in sizes:
                rows += readout(task, 2 if quick else chips_of(size, len(task.train[1])), size, choice)
            found["sets"][name] = [{**line, "commit": here} for line in rows]
            keep(found)
    return found


def chips_of(units: int, samples: int) -> int:
    """As many as minutes allow."""
    if units <= UNITS or (units <= 1000 and samples < LARGE):
        return 10
    return 3 if units <= 1000 else 1


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What was found before, with its lines replaced by new ones of the same data and name."""
    sets = dict(old.get("sets", {}))
    for name, rows in new["sets"].items():
        lines = {line["name"]: line for line in [*sets.get(name, []), *rows]}
        sets[name] = sorted(lines.values(), key=lambda line: line.get("units", 0))
    sets = {name: sets[name] for name in sorted(sets, key=_place)}
    return {**old, **new, "choices": {**old.get("choices", {}), **new["choices"]}, "sets": sets}


def _place(name: str) -> tuple[int, str]:
    return next((k for k, part in enumerate(ORDER) if name.startswith(part)), len(ORDER)), name


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Markdown: accuracies, what is published, energies."""
    lines = ["| data | readout | test accuracy | Wilson 95 % | chips: lowest to highest |", "|---|---|---|---|---|"]
    costs = []
    for name, rows in found["sets"].items():
        for each in rows:
            chips = each["shares"]
            spread = "" if "units" not in each else f"{100 * min(chips):.1f} to {100 * max(chips):.1f} of {len(chips)}"
            shown = f"{100 * each['share']:.1f} %", range_text(each), spread
            lines.append("| " + " | ".join([f"{name}, {each['samples']} test samples", each["name"], *shown]) + " |")
            if "energy" in each:
                costs.append((f"{name}, {each['units']:,} units", each["energy"]))
    lines += [f"| {data}, {SOURCE} | {name} | {100 * share:.1f} % |  |  |" for data, name, share in PUBLISHED]
    text = [f"- {name}: {each}." for name, each in DIFFERS.items()]
    lines += [
        "",
        "Means over chips, with the interval of one reading of the test samples; chips share these. Floors "
        f"in 8 and 16 windows are left out where the training samples have more than {MOST / 1e6:.0f} million counts.",
    ]
    parts = ["\n".join(lines), "\n".join(["What differs from the published data:", "", *text])]
    if costs:
        parts += [
            "Energy of a test sample (estimate, not measurement), 8-bit converters; of counts and traces, whose digital "
            "readout is not on arrays and not in the converters' share:",
            energy_table(costs),
        ]
    return "\n\n".join(parts)


def range_text(each: dict[str, Any]) -> str:
    return f"{100 * each['low']:.1f} to {100 * each['high']:.1f}"
