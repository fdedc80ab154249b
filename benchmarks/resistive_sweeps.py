"""Accuracy on resistive memory against each of its effects: programming noise, read noise, converters, stuck cells, age.

700 training samples of N-MNIST 1k, 400 held out (the official test part and 300 others), one polarity pooled to 16 x 16; each
effect alone, then all together.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from resistive_chips import Choice, chosen
from resistive_devices import Net, Random, Setting, bound_of, setting, trained_lif
from resistive_energy import BITS, energy
from resistive_energy import table as energy_table
from resistive_inputs import STEPS, Part, Task, binary, both, pooled
from resistive_readout import UNITS, floors, range_text, say
from torch import nn

from eventnet import Events, data
from eventnet.hardware import compile
from eventnet.hardware.parity import interval

__all__ = ["CONTENDERS", "DAY", "SWEEPS", "devices", "losses", "parts", "run", "table"]

DAY = 86_400.0
OF_EVENTS = ("programming", "stuck", "age")  # effects that layers of events have
SWEEPS: dict[str, tuple[Any, ...]] = {
    "programming": (0.0, 0.5, 1.0, 1.5, 2.0),  # times HFOX_PROGRAMMING after 1 s
    "read": (0.0, 0.01, 0.03, 0.1, 0.3),  # of the conductance, at each read
    "bits": (8, 7, 6, 5, 4, 3),
    "stuck": (0.0, 0.025, 0.05, 0.1, 0.2),  # of the cells, on and off as in HFO2_STUCK
    "age": (1.0, DAY, 2 * DAY),  # of HFOX
    "together": (1.0, DAY, 2 * DAY),  # ages, with read noise of 1 %, 8-bit converters and HFO2_STUCK
}
CONTENDERS = {
    "fitted": "reservoir, readout fitted on the chip",
    "fitted_1s": "reservoir, readout fitted on the chip after 1 s",
    "carried": "reservoir, readout carried over from ideal cells",
    "placed": "trained network, placed",
    "refitted": "trained network, placed, last layer fitted on the chip",
    "lif": "trained LIF network, placed",
}


def points(quick: bool) -> Iterator[tuple[str, float]]:
    for sweep, values in SWEEPS.items():
        yield from ((sweep, value) for value in (values[:: len(values) - 1] if quick else values))


@dataclass
class Bench:
    """What all chips share: the data (of the networks, and with binary steps for the reservoir), the networks, the choices."""

    held: Part
    ones: Part
    others: Part
    net: Net
    lif: list[nn.Module]
    choice: Choice
    bound: float
    units: int
    points: tuple[tuple[str, float], ...]

    def chip(self, chip: int) -> tuple[dict[str, float], list[dict[str, float]], float]:
        """Shares on ideal devices, at every point, and the reservoir's spikes of a sample on ideal devices."""
        torch.set_num_threads(1)
        random = Random(self.ones, self.others, chip, self.choice, self.units)
        random.bound, early = self.bound, None
        spikes = random.features(Setting())[1][:, : self.units].sum(1).mean().item()
        ideal = {**random.on(Setting(), None)[0], **self.net.on(Setting(), chip), **self._lif(Setting(), chip)}
        found = []
        for sweep, value in self.points:
            if value == 0:  # ideal
                kept = [name for name in ideal if name != "lif" or sweep in OF_EVENTS]
                found.append({name: ideal[name] for name in kept})
                continue
            where, aging = setting(sweep, value), sweep in ("age", "together")
            first = value == SWEEPS[sweep][0]
            shares, own = random.on(where, None if first or not aging else early)
            if aging and first:
                early, shares["fitted_1s"] = own, shares["fitted"]
            found.append({**shares, **self.net.on(where, chip)})
            if sweep in OF_EVENTS:
                found[-1].update(self._lif(where, chip))
        say(f"chip {chip}")
        return {name: share for name, share in ideal.items() if name != "carried"}, found, spikes

    def _lif(self, where: Setting, seed: int) -> dict[str, float]:
        placed = compile(self.lif, "resistive", cell=where.cell, seed=seed, age=where.age, reading="mean")
        return {"lif": (placed.predict(self.held[0]) == self.held[1]).double().mean().item()}


def devices(
    train: Part,
    held: Part,
    *,
    chips: int,
    units: int = UNITS,
    epochs: int = 20,
    quick: bool = False,
    workers: int = 1,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Accuracy of every contender at every point, for each chip; the choices; what each has on ideal devices.

    ``workers`` processes take a chip each, which changes no number; ``keep`` gets what there is after each chip.
    """
    start = time.perf_counter()
    net, lif = Net(train, held, units, epochs), trained_lif(*train, hidden=units, epochs=epochs)
    say(f"networks trained, {time.perf_counter() - start:.0f} s")
    ones, others = (binary(train[0]), train[1]), (binary(held[0]), held[1])
    choice = chosen(Task(ones, others), units)
    bound = bound_of((ones[0][:500], ones[1][:500]), choice, units)
    bench = Bench(held, ones, others, net, lif, choice, bound, units, tuple(points(quick)))
    say(f"{choice}, bounds {bound:g} and {net.bound:g}, {time.perf_counter() - start:.0f} s")
    whole: dict[str, Any] = {
        "choice": vars(choice),
        "adc_bound": {"reservoir": bound, "network": net.bound},
        "weight_decay": net.weight_decay,
        "units": units,
        "epochs": epochs,
        "training_samples": len(train[1]),
        "samples": len(held[1]),
        "linear_floor": {each["name"]: each["share"] for each in floors(train, held)},
    }
    ideal: dict[str, list[float]] = {}
    every: list[dict[str, list[float]]] = [{} for _ in bench.points]
    spikes = []
    with (
        futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
        if workers > 1
        else nullcontext() as pool
    ):
        for own, shares, fired in (pool.map if pool else map)(bench.chip, range(chips)):
            for into, each in zip([ideal, *every], [own, *shares], strict=True):
                for name, share in each.items():
                    into.setdefault(name, []).append(share)
            spikes.append(fired)
            pairs = zip(bench.points, every, strict=True)
            whole["ideal"] = ideal
            whole["points"] = [{"sweep": sweep, "value": value, "shares": shares} for (sweep, value), shares in pairs]
            events = others[0].num_events / len(held[1])
            clock = {"steps": STEPS, "classes": int(train[1].max()) + 1}
            whole["energy"] = energy(units, others[0].num_units, events, statistics.mean(spikes), **clock)
            keep(whole)
    return whole


def parts(root: Path) -> tuple[Part, Part]:
    """Training and held-out samples."""
    splits = data.load("nmnist", root=root / "nmnist_1k")
    events, labels = both(splits)
    events = pooled(events)
    held = Events.cat([events[700:], pooled(splits.test.events)]), torch.cat([labels[700:], splits.test.labels])
    return (events[:700], labels[:700]), held


def run(root: Path, keep: Callable[[dict[str, Any]], object], *, quick: bool = False) -> dict[str, Any]:
    chips, cores = (2 if quick else 10), len(os.sched_getaffinity(0))
    return devices(*parts(root), chips=chips, quick=quick, workers=cores, keep=keep)


# ---- table ----------------------------------------------------------------------------------------------------------


def losses(found: dict[str, Any], point: dict[str, Any], name: str) -> list[float] | None:
    """Of each chip, what a contender loses against itself on ideal devices."""
    if name not in point["shares"]:
        return None
    best = found["ideal"]["fitted" if name in ("carried", "fitted_1s") else name]
    return [a - b for a, b in zip(best, point["shares"][name], strict=True)]


def label(sweep: str, value: float) -> str:
    """A point in words."""
    age = "1 s" if value == 1 else f"{value / DAY:g} d"
    return {
        "programming": f"programming noise x {value:g}",
        "read": f"read noise {100 * value:g} %",
        "bits": f"converters of {value:g} bits",
        "stuck": f"{100 * value:g} % of the cells stuck",
        "age": f"HfOx after {age}",
        "together": f"all together after {age}",
    }[sweep]


def table(found: dict[str, Any]) -> str:
    lines = ["| devices | " + " | ".join(CONTENDERS.values()) + " |", "|---" * (1 + len(CONTENDERS)) + "|"]

    def shown(shares: list[float], lost: list[float] | None) -> str:
        text = f"{100 * statistics.mean(shares):.1f} %"
        if lost is None:
            return text
        spread = statistics.stdev(lost) if len(lost) > 1 else 0.0
        return f"{text} ({round(-100 * statistics.mean(lost), 1) + 0.0:+.1f} ± {100 * spread:.1f})"

    own = found["ideal"]
    cells = [shown(own[name], None) if name in own else "" for name in CONTENDERS]
    lines.append("| " + " | ".join(["ideal", *cells]) + " |")
    for point in found["points"]:
        cells = [
            shown(point["shares"][name], losses(found, point, name)) if name in point["shares"] else ""
            for name in CONTENDERS
        ]
        lines.append("| " + " | ".join([label(point["sweep"], point["value"]), *cells]) + " |")
    chips, count = len(own["fitted"]), found["samples"]
    half = interval(0.8 * count, count)
    floor = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["linear_floor"].items())
    lines += [
        "",
        f"Means over {chips} chips of the same {count} held-out samples; in brackets the change against the same chip's ideal "
        f"devices, in points, and its standard deviation over chips. Wilson's interval of one accuracy of 80 %: "
        f"{range_text(half)}. Of the same input, not on devices: {floor}.",
        "",
        "Energy of a sample (estimate, not measurement); the digital readout is not on arrays and not in the converters' share:",
        "",
        energy_table([(f"{found['units']} units", found["energy"])], BITS),
    ]
    return "\n".join(lines)
