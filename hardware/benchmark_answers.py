"""The answers of a benchmark's page: how accurate, how sparse, how much energy, when it does not pay, what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventnet.hardware import benchmark_pictures as pictures
from eventnet.hardware import parity_pictures
from eventnet.hardware.benchmark_words import (
    CAVEAT,
    STAGES,
    Facts,
    accuracy,
    device,
    devices_shown,
    forecast,
    percent,
    rate_of,
    short,
    span,
    times,
    verdict_kind,
)
from eventnet.hardware.page import Html, absent, cards, escape, figure, figures, items, marked, number, paragraph, table

__all__ = ["ANSWERS", "summary", "verdicts"]

MARKS = {"good": "✓", "bad": "✗", "open": "?"}
SHORT = {"good": "pays", "open": "may or may not", "bad": "does not pay"}


# ---- at first sight --------------------------------------------------------------------------------------------------------


def summary(facts: Facts) -> Html:
    """The answers in a few words each, side by side; every energy with its caveat."""
    stages, counts = facts.get("accuracy") or {}, charged(facts)
    best = stages.get(facts.get("charged")) or stages.get("trained")
    stage = STAGES["fixed_point" if best and best is stages.get("fixed_point") else "trained"]
    spikes = sum(each.get("spikes", 0) for each in _layers(counts).values()) if counts else None
    scored = ("Accuracy", accuracy(best), f"{stage}; 95 % interval" if best else "no labels were given")
    if facts.get("forecast"):
        scored = ("Error", forecast(facts["forecast"]), "of forecasts, at the end of training")
    shown = [
        scored,
        ("Spikes per sample", number(spikes), f"{percent(rate_of(counts))} of the dense operations"),
    ]
    energy = facts.get("energy") or {}
    for name in devices_shown(energy):
        idle = energy[name].get("idle_joules_per_sample")
        more = f"dynamic, {CAVEAT}; idle energy comes on top: {span(idle)}"
        shown.append((f"Energy per sample, {device(name)}", span(energy[name]["dynamic_joules_per_sample"]), more))
    if found := verdicts(facts):
        kinds = [verdict_kind(each["verdict"]) for _, each in found]
        lines = (marked(f"{MARKS[kind]} {SHORT[kind]}: {kinds.count(kind)}", kind) for kind in SHORT)
        told = f"devices against dense baselines at the network's own event rate, idle energy as below; {CAVEAT}"
        shown.append((f"Does it pay? {len(kinds)} comparisons", Html("<br>".join(lines)), told))
    return cards(*shown)


def charged(facts: Facts) -> Mapping[str, Facts]:
    """The counts that event-driven devices are charged for."""
    counts = facts.get("counts") or {}
    return counts.get(facts.get("charged")) or counts.get("trained") or {}


def verdicts(facts: Facts) -> list[tuple[str, Facts]]:
    """Each comparison with a baseline, with its device."""
    return [(name, each) for name, some in (facts.get("break_even") or {}).items() for each in some]


def _layers(counts: Mapping[str, Facts]) -> dict[str, Facts]:
    """Those that have connections: an input sends spikes, but is no layer."""
    return {name: each for name, each in counts.items() if each.get("dense")}


# ---- accuracy and sparsity -------------------------------------------------------------------------------------------------


def _accuracy(facts: Facts) -> list[Html]:
    stages = {STAGES.get(name, name): x for name, x in (facts.get("accuracy") or {}).items()}
    if facts.get("forecast"):
        told = (
            "The network forecasts numbers: there is no accuracy. Its error is that of forecasts on its own, measured at the "
            "end of training; the counts are those of one pass over the known series."
        )
        return [paragraph(f"{forecast(facts['forecast'])}.", "answer"), paragraph(told)]
    if not stages:
        return absent("no labels were given")
    known = {name: x for name, x in facts["accuracy"].items() if x["share"] is not None}
    if not known:
        return absent("all labels are left out of the accuracy (-100)")
    drawn = {"chip" if name == "fixed_point" else name: x for name, x in known.items()}
    names = {name: short(parity_pictures.STAGES.get(name, name), 24) for name in drawn}
    kinds = dict.fromkeys(x.get("interval", "Wilson") for x in drawn.values())
    told = "; ".join(f"{name} {accuracy(x)}" for name, x in stages.items())
    rows = [(name, accuracy(x), number(x.get("labels")), x.get("interval", "Wilson")) for name, x in stages.items()]
    header = ("network", "accuracy (95 % interval)", "labels", "interval")
    parts = [
        table(header, rows, "Share of the labels that are right"),
        figures(
            figure(
                parity_pictures.accuracy(drawn, names),
                f"Accuracy with 95 % intervals: {told}",
                f"Dots: accuracy. Bars: 95 % interval ({', '.join(kinds)}), which is that of the samples; another seed may "
                "differ by more.",
            )
        ),
    ]
    if "fixed_point" not in (facts.get("accuracy") or {}):
        parts += [paragraph("A fixed-point simulation is missing; the reason is among the assumptions.", "open")]
    return parts


def _sparsity(facts: Facts) -> list[Html]:
    counts = facts.get("counts") or {}
    if not counts:
        return absent("nothing was counted")
    inputs = (facts.get("identity") or {}).get("input_events_per_sample")
    columns = [_of_stage(each, inputs) for each in counts.values()]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    return [
        paragraph(
            "A dense network computes every connection in every step. This one computes a connection only when an event arrives."
        ),
        table(("", *(STAGES.get(name, name) for name in counts)), rows, "Means over the test samples"),
    ]


def _of_stage(counts: Mapping[str, Facts], inputs: float | None) -> dict[str, str]:
    """Lines about one stage, of all its layers together."""
    layers = _layers(counts)
    steps = max((each.get("steps", 0) for each in layers.values()), default=0)
    rate = rate_of(layers)
    done = sum(each["accumulates"] + each["multiply_accumulates"] for each in layers.values())
    places = sum(each["dense"] / each["steps"] for each in layers.values() if each.get("steps"))
    return {
        "steps per sample": number(steps),
        "input events per sample": number(inputs),
        "spikes per sample, all layers": number(sum(each["spikes"] for each in layers.values())),
        "synaptic operations per sample": number(done),
        "share of the dense operations": percent(rate),
        "events per connection and step": "–" if rate is None else f"{rate:.3g}",
        "events per connection and sample": "–" if rate is None else f"{rate * steps:.3g}",
        "weights that are not zero": percent(sum(x["synapses"] for x in layers.values()) / places if places else None),
    }


# ---- energy ----------------------------------------------------------------------------------------------------------------


def _energy(facts: Facts) -> list[Html]:
    energy = facts.get("energy") or {}
    if not energy:
        return [*absent("no device could be charged"), *refusals(facts)]
    rows = [
        (device(name), each["dynamic_joules_per_sample"], each.get("idle_joules_per_sample"))
        for name, each in energy.items()
    ]
    told = "; ".join(f"{name} {span(dynamic)} dynamic, {span(idle)} idle" for name, dynamic, idle in rows)
    baselines = (facts.get("baselines") or [])[:4]
    dense = [
        (each["name"], each["dynamic_joules_per_sample"], each.get("idle_joules_per_sample")) for each in baselines
    ]
    picture = pictures.energies(rows, beside=dense)
    shown = [figure(picture, f"Energy per sample, {CAVEAT}: {told}", f"This network. {_capital()}.")]
    if dense:
        on = device(baselines[0]["profile"])
        told = "; ".join(f"{name} {span(dynamic)} dynamic, {span(idle)} idle" for name, dynamic, idle in dense)
        caption = f"Dense baselines, all on {on}. {_capital()}."
        shown.append(
            figure(
                pictures.energies(dense, beside=rows), f"Dense baselines on {on}, {CAVEAT}, per sample: {told}", caption
            )
        )
    sentences = [line for name in devices_shown(energy) for line in [_idle(name, energy[name])] if line]
    return [
        paragraph(f"Energy per sample: {CAVEAT}.", "answer open"),
        paragraph(
            "Blue bars: dynamic energy, from counts and published figures, between its low and high bound. Grey bars: idle "
            "power while the sample lasts. Equal bounds mean that the source gives one number. Both pictures have the same axis."
        ),
        figures(*shown),
        items(sentences) if sentences else Html(),
        *refusals(facts),
    ]


def _capital() -> str:
    return CAVEAT[0].upper() + CAVEAT[1:]


def _idle(name: str, found: Facts) -> str | None:
    """How the two parts compare: what a comparison of dynamic energies leaves out."""
    dynamic, idle = found["dynamic_joules_per_sample"], found.get("idle_joules_per_sample")
    if idle is None:
        return f"{device(name)}: idle power is not known, which is not zero."
    if not dynamic[0]:
        return None
    share = times([idle[0] / dynamic[1], idle[1] / dynamic[0]])
    return f"{device(name)}: idle energy, {span(idle)}, is {share} times the dynamic energy ({CAVEAT})."


def refusals(facts: Facts) -> list[Html]:
    """Which devices have no estimate, and why."""
    refused = facts.get("refused") or {}
    lines = [f"{device(name)}: {why}" for name, why in refused.items()]
    return [paragraph("No estimate for:"), items(lines)] if lines else []


# ---- break-even ------------------------------------------------------------------------------------------------------------


def _break_even(facts: Facts) -> list[Html]:
    found = verdicts(facts)
    if not found:
        return [*absent("no comparison with a dense baseline was made"), *refusals(facts)]
    rows, shown = [], []
    for name, each in found:
        kind = verdict_kind(each["verdict"])
        mark = marked(f"{MARKS[kind]} {each['verdict']}", kind)
        gain = times(each["advantage_at_own_rate"])
        even = times(each["break_even_events_per_connection_and_step"])
        rows.append((device(name), mark, gain, even, against(each)))
        pair = f"{device(name)} against {against(each)}"
        told = f"{pair}: {each['verdict']}. Advantage at the own rate {gain}; equal at {even} events per connection and step."
        shown.append(figure(pictures.break_even(each), f"Advantage over the event rate. {told}", _caption(pair, mark)))
    own = found[0][1]["own_rate_events_per_connection_and_step"]
    return [
        paragraph(
            f"Advantage is the baseline's energy divided by the network's: above 1 the network costs less ({CAVEAT}). It falls "
            f"as the event rate grows; below the break-even rate the network pays. Its own rate is {times([own])} events per "
            "connection and step."
        ),
        paragraph(_idle_sentence([each for _, each in found])),
        table(
            ("device", "verdict", "advantage at own rate", "break-even rate", "against"),
            rows,
            "Every comparison that was made; rates in events per connection and step",
        ),
        paragraph(
            "Band: advantage between the bounds of the coefficients. Black bar on the line at 1: break-even. Grey stripes: rates "
            "below which publications found that events pay, for other networks and devices."
        ),
        figures(*shown),
        _thresholds(found[0][1].get("thresholds") or ()),
    ]


def against(found: Facts) -> str:
    """The baseline with its device's name in words."""
    name, _, where = str(found["baseline"]).rpartition(" on ")
    return f"{name}, on {device(where)}" if name else where


def _caption(pair: str, mark: Html) -> Html:
    return Html(f"{escape(pair)}: {mark}")


def _idle_sentence(found: Sequence[Facts]) -> str:
    """What the comparisons do with idle power."""
    kinds = {bool(each.get("with_idle")) for each in found}
    if kinds == {True}:
        return "Idle power is in both energies."
    if kinds == {False}:
        return "Idle power is in neither energy. A device that waits most of the time may lose what it gains here."
    return "Idle power is in both energies where it is known for both devices, else in neither."


def _thresholds(thresholds: Sequence[Facts]) -> Html:
    rows = [
        (author, f"{times([each['low'], each['high']])} {each['unit']}", _own(each), each["when"], rest.strip())
        for each in thresholds
        for author, _, rest in [str(each["source"]).partition(",")]
    ]
    caption = "Published thresholds: below them events pay, by these authors' models"
    return table(("authors", "threshold", "this network", "for", "publication"), rows, caption) if rows else Html()


def _own(each: Facts) -> str:
    return f"{times([each['own']])}: {each['own_is']}"


# ---- assumptions -----------------------------------------------------------------------------------------------------------


def _assumptions(facts: Facts) -> list[Html]:
    said, notes = facts.get("assumptions") or [], facts.get("notes") or []
    devices = {
        device(name): [line for line in each.get("assumptions", ()) if line not in said]
        for name, each in (facts.get("energy") or {}).items()
    }
    grouped: dict[str, list[str]] = {}  # what is the same for several devices is said once
    for name, lines in devices.items():
        for line in lines:
            grouped.setdefault(line, []).append(name)
    for each in (found for _, found in verdicts(facts)):
        for line in each.get("assumptions", ()):
            if line not in said and line not in grouped:
                grouped[line] = ["break-even"]
    rows = [(", ".join(names) if len(names) < len(devices) else "all", line) for line, names in grouped.items()]
    if not (said or notes or rows):
        return absent("the facts hold no assumptions")
    which = STAGES.get(str(facts.get("charged")), "not known")
    parts = [paragraph(f"Event-driven devices are charged for the operations of: {which}.")]
    parts += [items(said)] if said else []
    parts += [paragraph("Of this network:"), items(notes)] if notes else []
    return [*parts, table(("for", "assumption"), rows, "Of single devices and comparisons")] if rows else parts


ANSWERS = {
    "How accurate": _accuracy,
    "How sparse": _sparsity,
    "How much energy": _energy,
    "When does it not pay": _break_even,
    "What was assumed": _assumptions,
}
