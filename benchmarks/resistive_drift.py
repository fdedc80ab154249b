"""Trained networks on phase-change memory that drifts for up to a year, with and without one correction for each matrix.

The data and the networks are those of ``resistive_sweeps.py``; cells have all effects of ``PCM`` (programming noise, drift; read
noise where there is no event), converters are ideal. The reservoir is not here: its conductances are beyond these cells' range.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resistive_devices import Net, Setting, trained_lif
from resistive_inputs import Part
from resistive_readout import UNITS, floors, range_text, say
from resistive_sweeps import DAY, parts

from eventnet.hardware import compile
from eventnet.hardware.parity import interval
from eventnet.hardware.resistive import PCM

__all__ = ["AGES", "drift", "run", "table"]

AGES = {"25 s": 25.0, "1 h": 3600.0, "1 d": DAY, "30 d": 30 * DAY, "1 year": 365 * DAY}  # seconds since programming
CONTENDERS = {
    "placed": "trained network, placed",
    "compensated": "trained network, drift compensated",
    "refitted": "trained network, placed, last layer fitted on the chip",
    "lif": "trained LIF network, placed",
    "lif_compensated": "trained LIF network, drift compensated",
}


def drift(
    train: Part,
    held: Part,
    *,
    chips: int,
    hidden: int = UNITS,
    epochs: int = 20,
    ages: Mapping[str, float] = AGES,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Shares of right held-out samples of every chip, by age and contender; ``keep`` gets what there is after each age."""
    net, lif = Net(train, held, hidden, epochs), trained_lif(*train, hidden=hidden, epochs=epochs)

    def shares_of(where: Setting, chip: int) -> dict[str, float]:
        found = {}
        for compensated in (False, True):
            own = net.on(where, chip, compensated)
            options = {"seed": chip, "age": where.age, "compensate_drift": compensated}
            told = compile(lif, "resistive", cell=where.cell, reading="mean", **options).predict(held[0])
            right = (told == held[1]).double().mean().item()
            if compensated:
                found |= {"compensated": own["placed"], "lif_compensated": right}
            else:
                found |= {**own, "lif": right}
        return found

    whole: dict[str, Any] = {"samples": len(held[1]), "ideal": shares_of(Setting(), 0), "ages": {}}
    whole["linear_floor"] = {each["name"]: each["share"] for each in floors(train, held)}
    for name, age in ages.items():
        rows = [shares_of(Setting(PCM, age=age), chip) for chip in range(chips)]
        shares = {each: [row[each] for row in rows] for each in CONTENDERS}
        whole["ages"][name] = shares
        say(f"PCM after {name}: " + ", ".join(f"{each} {statistics.mean(own):.3f}" for each, own in shares.items()))
        keep(whole)
    return whole


def run(root: Path, keep: Callable[[dict[str, Any]], object], *, quick: bool = False) -> dict[str, Any]:
    """Ten chips at all ages; two at the first and the last where it is quick."""
    ages = {name: AGES[name] for name in ("25 s", "1 year")} if quick else AGES
    return drift(*parts(root), chips=2 if quick else 10, ages=ages, keep=keep)


def table(found: dict[str, Any]) -> str:
    """Markdown: means over chips, and the lowest and highest of them."""
    lines = ["| phase-change memory | " + " | ".join(CONTENDERS.values()) + " |", "|---" * (1 + len(CONTENDERS)) + "|"]
    lines.append("| " + " | ".join(["ideal", *(f"{100 * found['ideal'][each]:.1f} %" for each in CONTENDERS)]) + " |")
    for name, shares in found["ages"].items():
        cells = []
        for each in CONTENDERS:
            mean, low, high = (100 * f(shares[each]) for f in (statistics.mean, min, max))
            cells.append(f"{mean:.1f} % ({low:.1f} to {high:.1f})")
        lines.append("| " + " | ".join([f"after {name}", *cells]) + " |")
    chips, count = len(next(iter(found["ages"].values()))["placed"]), found["samples"]
    floor = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["linear_floor"].items())
    said = (
        f"Means over {chips} chips of {count} held-out samples, in brackets the lowest and the highest; cells `PCM`, ideal "
        f"converters. Wilson's interval of one accuracy of 90 %: {range_text(interval(0.9 * count, count))}. Of the same input, "
        f"not on devices: {floor}."
    )
    return "\n".join([*lines, "", said])
