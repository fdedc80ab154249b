"""What the answers of a benchmark's page rest on: tables by layer, device and baseline, activity, exports, sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from eventnet.hardware import benchmark_pictures as pictures
from eventnet.hardware.benchmark_answers import charged, refusals
from eventnet.hardware.benchmark_words import (
    CAVEAT,
    STAGES,
    Facts,
    cause,
    device,
    devices_shown,
    percent,
    seconds,
    span,
    times,
)
from eventnet.hardware.page import (
    BLUE,
    ORANGE,
    Html,
    absent,
    code,
    collapsible,
    figure,
    figures,
    items,
    number,
    paragraph,
    table,
)
from eventnet.hardware.parity_pictures import raster

__all__ = ["DETAILS"]

COUNTS = {
    "neurons": "neurons",
    "synapses": "weights that are not zero",
    "inputs": "input events",
    "spikes": "spikes",
    "accumulates": "accumulates",
    "multiply_accumulates": "multiply-accumulates",
    "dense": "dense equivalent",
    "state_updates": "state updates",
    "weight_reads": "weight reads",
    "buffer_writes": "delay buffer writes",
}
IDENTITY = {
    "step_s": "step (s)",
    "baseline_step_s": "step of the dense baselines (s)",
    "samples": "test samples",
    "seconds_per_sample": "seconds per sample",
    "input_events_per_sample": "input events per sample",
}
UNITS = {"joules": "J", "watts": "W", "seconds": "s"}
STATUSES = (
    "Status: measured on a chip; synthesised: simulated before the chip was made; estimated: a rough figure, or one derived "
    "from another; unverified: no source was read."
)
SPARSITY = {
    "dense": "neither",
    "sparse weights": "sparse weights",
    "sparse activity": "sparse activity",
    "both": "both",
}


# ---- energy ----------------------------------------------------------------------------------------------------------------


def _where(facts: Facts) -> list[Html]:
    energy = facts.get("energy") or {}
    if not energy:
        return absent("no device could be charged")
    parts: list[Html] = [paragraph(f"Dynamic energy per sample, {CAVEAT}. Idle energy is not in it.")]
    shown, tables = [], []
    for name in devices_shown(energy):
        layers: Mapping[str, Facts] = energy[name].get("layers_joules_per_sample") or {}
        causes = [each for each in energy[name].get("causes_joules_per_sample") or {} if _costs(layers, each)]
        if not causes:
            tables.append(paragraph(f"{device(name)}: no operation costs anything there.", "soft"))
            continue
        rows = [(layer, *(span(each.get(x)) for x in causes)) for layer, each in layers.items()]
        rows.append(("all layers", *(span(energy[name]["causes_joules_per_sample"][x]) for x in causes)))
        told = "; ".join(f"{cause(x)} {y}" for x, y in zip(causes, rows[-1][1:], strict=True))
        caption = (
            f"{device(name)}, {CAVEAT}: low and high bound of each layer; one below 1 % of all is in the table only."
        )
        alt = f"Dynamic energy by layer and cause on {device(name)}, {CAVEAT}: {told}"
        shown.append(figure(pictures.where(layers), alt, caption))
        header = ("layer", *(cause(x) for x in causes))
        tables.append(table(header, rows, f"{device(name)}: dynamic energy per sample, {CAVEAT}"))
    return [*parts, figures(*shown) if shown else Html(), *tables]


def _costs(layers: Mapping[str, Facts], name: str) -> bool:
    return any((each.get(name) or (0, 0))[1] for each in layers.values())


def _devices(facts: Facts) -> list[Html]:
    energy = facts.get("energy") or {}
    if not energy:
        return [*absent("no device could be charged"), *refusals(facts)]
    rows = []
    for name, each in energy.items():
        statuses = Counter(x.get("status", "unverified") for x in (each.get("coefficients") or {}).values())
        told = ", ".join(f"{n} {status}" for status, n in statuses.most_common()) or "not said"
        latency = seconds(each.get("latency_seconds_per_sample"))
        idle = span(each.get("idle_joules_per_sample"))
        rows.append((device(name), span(each["dynamic_joules_per_sample"]), idle, latency, told))
    header = ("device", "dynamic", "idle", "time per sample", "status of its figures")
    about = [f"{device(name)}: {each['about']}" for name, each in energy.items() if each.get("about")]
    return [
        table(header, rows, f"Energy per sample, {CAVEAT}"),
        *([collapsible("What each device's figures include and leave out", items(about))] if about else []),
        *refusals(facts),
    ]


def _baselines(facts: Facts) -> list[Html]:
    found = facts.get("baselines") or []
    if not found:
        return absent("no dense baseline was estimated")
    devices: dict[str, list[tuple[str, ...]]] = {}
    for each in found:
        bounds = (each["dynamic_joules_per_sample"], each.get("idle_joules_per_sample"))
        row = (each["name"], *map(span, bounds), seconds(each.get("latency_seconds_per_sample")))
        devices.setdefault(each["profile"], []).append(row)
    header = ("dense network", "dynamic", "idle", "time per sample")
    return [
        paragraph(
            f"Dense networks with the same connections. They were not trained: their accuracy is not known. {_step(facts)}"
        ),
        *(table(header, rows, f"{device(name)}: energy per sample, {CAVEAT}") for name, rows in devices.items()),
    ]


def _step(facts: Facts) -> str:
    """In which steps the baselines of every step work."""
    identity = facts.get("identity") or {}
    own, chip = identity.get("baseline_step_s"), identity.get("step_s")
    if own is None:
        return ""
    told = "as the chip does" if own == chip else f"the task's; the chip takes steps of {number(1e3 * (chip or 0))} ms"
    return f"Those of every step take steps of {number(1e3 * own)} ms, {told}."


def _sparsities(facts: Facts) -> list[Html]:
    rows = facts.get("sparsity") or []
    if not rows:
        return absent("it was not computed")
    dense = rows[0].get("operations_per_sample") or 0
    cells = [
        (
            SPARSITY.get(row["name"], row["name"]),
            number(row["operations_per_sample"]),
            percent(row["operations_per_sample"] / dense) if dense else "–",
            span(row["energy_joules_per_sample"]),
            f"{times([100 * x for x in row['share_of_dense']])} %",
        )
        for row in rows
    ]
    header = ("used", "synaptic operations", "share of dense", "dynamic energy", "share of dense energy")
    return [table(header, cells, f"Per sample, on {device('asic45')}; energies are {CAVEAT}")]


# ---- counts and activity ---------------------------------------------------------------------------------------------------


def _operations(facts: Facts) -> list[Html]:
    counts = facts.get("counts") or {}
    if not counts:
        return absent("nothing was counted")
    parts = []
    for stage, layers in counts.items():
        rows = [(label, *(number(each.get(key)) for each in layers.values())) for key, label in COUNTS.items()]
        parts.append(table(("", *layers), rows, f"Per sample, {STAGES.get(stage, stage)}"))
    return parts


def _activity(facts: Facts) -> list[Html]:
    found = facts.get("activity") or {}
    active = {name: each for name, each in found.items() if any(each["rate_hz"])}
    if not active:
        return absent("no layer sends spikes" if found else "it was not recorded")
    shown = []
    for name, each in active.items():
        mean, most = sum(each["rate_hz"]) / len(each["rate_hz"]), max(each["rate_hz"])
        told = f"{name}: mean {number(mean)}, largest {number(most)} spikes per neuron and second"
        colour = BLUE if name in charged(facts) and name != "input" else ORANGE
        shown.append(figure(pictures.activity(each, colour), f"Activity over time. {told}", told))
    silent = [name for name in found if name not in active]
    parts = [paragraph("Mean over the test samples."), figures(*shown)]
    return [*parts, paragraph(f"Without spikes: {', '.join(silent)}.", "soft")] if silent else parts


def _rasters(facts: Facts) -> list[Html]:
    found = facts.get("rasters") or {}
    layers = found.get("layers") or {}
    if not layers:
        return absent("no spikes were kept")
    end, shown = found.get("duration_s") or 1e-3, []
    end = max([end, *(t for each in layers.values() for t in each["times_s"])])  # all have the same axis
    for name, each in layers.items():
        spikes = (each["times_s"], each["units"])
        colour = ORANGE if name == "input" else BLUE
        caption = f"{name}: {len(spikes[0]):,} spikes of {len(set(spikes[1])):,} of {each['size']:,} neurons"
        caption += f"; {each['left_out']:,} more are not shown" if each.get("left_out") else ""
        shown.append(figure(raster(spikes, colour, end, each["size"] - 1), f"Spikes over time. {caption}", caption))
    return [paragraph("The first test sample, before rounding to fixed point."), figures(*shown)]


def _learnt(facts: Facts) -> list[Html]:
    found = {name: values for name, values in (facts.get("learnt") or {}).items() if values}
    if not found:
        return absent("the network has no delays and no time constants of its own")
    single = {name: values[0] for name, values in found.items() if min(values) == max(values)}
    shown = []
    for name, values in found.items():
        if name not in single:
            middle = sorted(values)[len(values) // 2]
            caption = f"{name}: {seconds([min(values), max(values)])}, median {number(1e3 * middle)} ms"
            shown.append(figure(pictures.learnt(values), f"Histogram of {caption}", caption))
    parts = [figures(*shown)] if shown else []
    lines = [f"{name}: {number(1e3 * value)} ms, the same everywhere" for name, value in single.items()]
    return [*parts, items(lines)] if lines else parts


# ---- sources ---------------------------------------------------------------------------------------------------------------


def _coefficients(facts: Facts) -> list[Html]:
    devices = {name: each.get("coefficients") for name, each in (facts.get("energy") or {}).items()}
    for each in facts.get("baselines") or []:
        devices.setdefault(each["profile"], each.get("coefficients"))
    parts = []
    for name, coefficients in devices.items():
        if coefficients:
            rows = [_coefficient(key, each) for key, each in coefficients.items()]
            header = ("for one", "range", "status", "source")
            statuses = Counter(row[2] for row in rows)
            told = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
            listed = table(header, rows, f"{device(name)}: every figure that was used")
            parts.append(collapsible(f"{device(name)}: {len(rows)} figures ({told})", listed))
    return [paragraph(STATUSES), *parts] if parts else absent("the facts hold no coefficients")


def _coefficient(key: str, each: Facts) -> tuple[str, str, str, str]:
    name, _, unit = key.rpartition("_")
    whole = next((x for x in COUNTS if name.startswith(x)), name)
    part = name.removeprefix(whole).replace("_", ", ", 1)
    label = f"{COUNTS.get(whole, whole)}{part}".replace("_", " ")
    bounds = each.get("range") or [None, None]
    return label, span(bounds, UNITS.get(unit, unit)), str(each.get("status", "not said")), str(each.get("source", "–"))


def _identity(facts: Facts) -> list[Html]:
    identity = facts.get("identity") or {}
    if not identity:
        return absent("the facts do not say what was counted")
    rows = [(IDENTITY.get(key, key), code(x) if "sha" in key else number(x)) for key, x in identity.items()]
    return [table((), rows, "What was counted, and with what")]


DETAILS: Mapping[str, Callable[[Facts], list[Html]]] = {
    "Where the energy goes": _where,
    "Operations per layer": _operations,
    "All devices": _devices,
    "Dense baselines": _baselines,
    "Sparse weights and sparse activity": _sparsities,
    "Activity over time": _activity,
    "Spikes of one sample": _rasters,
    "Delays and time constants": _learnt,
    "Coefficients and sources": _coefficients,
    "Identity": _identity,
}
