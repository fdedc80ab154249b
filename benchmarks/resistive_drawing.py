"""The picture of ``resistive_sweeps.py``: accuracy of every contender against each effect."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

from resistive_inputs import WINDOWS
from resistive_sweeps import CONTENDERS, DAY

__all__ = ["draw"]

STYLES = {
    "fitted": ("tab:blue", "-", "o"),
    "fitted_1s": ("tab:cyan", "--", "v"),
    "carried": ("tab:purple", ":", "s"),
    "placed": ("tab:red", "-", "o"),
    "refitted": ("tab:orange", "--", "^"),
    "lif": ("0.35", "-.", "D"),
}


def draw(found: dict[str, Any], path: Path) -> None:
    """Accuracy against each effect: means over chips, bands from the lowest to the highest chip."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "programming": ("Programming noise", "times that of HfOx after 1 s"),
        "read": ("Read noise", "standard deviation, % of the conductance"),
        "bits": ("Converters", "bits"),
        "age": ("Age", "since programming, HfOx"),
        "stuck": ("Stuck cells (axis from 0)", "% of all cells"),
        "together": ("All of HfOx, 8 bits, 11 % stuck (axis from 0)", "since programming"),
    }
    figure, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
    floor = 100 * found["linear_floor"][f"linear floor, counts in {WINDOWS} windows"]
    for axis, sweep in zip(axes.flat, titles, strict=True):
        mine = [point for point in found["points"] if point["sweep"] == sweep]
        even = sweep in ("age", "together", "bits", "read")
        values = [p["value"] for p in mine]
        at = list(range(len(mine))) if even else [100 * v if sweep == "stuck" else v for v in values]
        for name, (color, line, marker) in STYLES.items():
            shares = [[100 * x for x in point["shares"].get(name, [])] for point in mine]
            if not all(shares):
                continue
            mean = [statistics.mean(x) for x in shares]
            axis.fill_between(at, [min(x) for x in shares], [max(x) for x in shares], color=color, alpha=0.15, lw=0)
            axis.plot(at, mean, color=color, ls=line, marker=marker, ms=4, label=CONTENDERS[name])
        axis.axhline(floor, color="k", lw=0.8, ls=(0, (1, 3)), label="linear floor (counts in windows), not on devices")
        if even:
            ages = ["1 s" if v == 1 else f"{v / DAY:g} d" for v in values]
            names = {"bits": [f"{v:g}" for v in values], "read": [f"{100 * v:g}" for v in values]}.get(sweep, ages)
            axis.set_xticks(at, names)
        axis.set_title(titles[sweep][0], fontsize=11)
        axis.set_xlabel(titles[sweep][1])
        axis.set_ylim(0 if sweep in ("stuck", "together") else 60, 100)
        axis.grid(alpha=0.25)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"right of {found['samples']} held-out samples, %")
    known = {}
    for axis in axes.flat:
        known.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    seen = {name: known[name] for name in [*CONTENDERS.values(), *known] if name in known}
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9.5)
    figure.suptitle(
        f"N-MNIST, 1k, {found['units']} units: means over {len(found['ideal']['fitted'])} chips, bands lowest to highest"
    )
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=130)
    plt.close(figure)
    os.replace(part, path)
