"""A parity report as a page that needs nothing beside it: whether the exported network is the trained one, and what differs.

The answer comes first, then what it rests on. A fact that the report does not have leaves its section empty but for the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from eventnet.hardware import parity_pictures as pictures
from eventnet.hardware.energy import Interval
from eventnet.hardware.mapping.profiles import LIMITS
from eventnet.hardware.page import (
    Html,
    absent,
    code,
    document,
    escape,
    figure,
    figures,
    items,
    number,
    paragraph,
    section,
    table,
)
from eventnet.hardware.parity_pictures import COLOURS, STAGES
from eventnet.hardware.parity_words import IDENTITY, OF_FILE, PARAMETERS, PASSED, QUESTIONS

if TYPE_CHECKING:
    from eventnet.hardware.parity import Gate, ParityReport

__all__ = ["OF_FILE", "PASSED", "QUESTIONS", "page"]

Facts = Mapping[str, Any]

TITLE = "Is the exported network the trained one?"


def page(report: ParityReport) -> str:
    """The report as HTML.

    Example:
        >>> from eventnet.hardware.parity import Gate, ParityReport
        >>> text = page(ParityReport({"lost": []}, [Gate("L0", True, "2 files")]))
        >>> "<h1>Is the exported network the trained one?</h1>" in text, "Not known" in text
        (True, True)
    """
    facts, drawn = report.facts, report.pictures
    names = _stages(facts)
    return document(
        TITLE,
        _headline(report.gates, _questions(facts)),
        section("Warnings", *_warnings(facts)),
        section("Gates", _gates(report.gates, _questions(facts))),
        section("Accuracy per stage", *_accuracy(facts.get("accuracy"), names)),
        section("Not carried over", *_lost(facts)),
        section("Errors of the parameters", *_parameters(facts.get("parameters"))),
        section("Dynamics", *_dynamics(facts)),
        section("Spikes", *_rasters(drawn.get("rasters"), drawn.get("dt") or _step(facts), names)),
        section("Voltage where they part", *_trace(drawn.get("trace"), facts, names)),
        section("Weights", *_weights(drawn.get("weights"))),
        section("Counts per sample", *_counts(facts.get("counts"))),
        section("Energy per sample (estimate, not measurement)", *_energy(facts)),
        section("Resources", *_resources(facts.get("resources"))),
        section("Identity", *_identity(facts.get("identity"))),
    )


def _is_nir(facts: Facts) -> bool:
    return (facts.get("identity") or {}).get("target") == "NIR"


def _questions(facts: Facts) -> Mapping[str, str]:
    """The gates that a target has."""
    return OF_FILE if _is_nir(facts) else QUESTIONS


def _stages(facts: Facts) -> Mapping[str, str]:
    """What the trained and the exported network are called."""
    return {**STAGES, "chip": "in the file, run in steps"} if _is_nir(facts) else STAGES


def _arrow(name: str) -> str:
    """A projection's name, which a line may break at the arrow only."""
    return name.replace("->", " → ")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


# ---- the answer ------------------------------------------------------------------------------------------------------------


def _headline(gates: Sequence[Gate], questions: Mapping[str, str]) -> Html:
    """Yes only where every gate passed, or all but Lava's, which needs an installation of its own."""
    failed = [gate.name for gate in gates if gate.passed is False]
    missing = [gate.name for gate in gates if gate.passed is None and not gate.word]
    missing = sorted([*missing, *(questions.keys() - {gate.name for gate in gates})])
    others = "".join(f" {gate.name}: {gate.word}." for gate in gates if gate.word)
    if failed:
        kind, answer = "bad", f"No. Failed: {_listed(failed)}."
    elif not missing:
        kind, answer = "good", "Yes. All gates passed." if not others else "Yes."
    elif missing == ["L3"]:
        kind, answer = "good", "Yes, as far as it was checked. Not run: L3, the comparison with Lava."
    elif {*missing} <= {"L3", "chip"}:  # what fits on a chip is another question
        kind, answer = "good", f"Yes, as far as it was checked. Not answered: {_listed(missing)}."
    else:
        kind, answer = "open", f"Not known. Gates not run: {_listed(missing)}."
    return Html(f"<header><h1>{TITLE}</h1>\n{paragraph(answer + others, f'answer {kind}')}</header>")


def _warnings(facts: Facts) -> list[Html]:
    """What is far off, and what was assumed."""
    if "warnings" not in facts:
        return absent("the report does not say")
    lines = [*facts.get("assumed", ()), *facts["warnings"]]
    return [items(lines) if lines else paragraph("None.")]


def _gates(gates: Sequence[Gate], questions: Mapping[str, str]) -> Html:
    """All that the target has, whether they were asked or not, and any others."""
    found = [(gate.name, gate.answer, PASSED[gate.passed][1], gate.text) for gate in gates]
    names = {name for name, *_ in found}
    found += [(name, *PASSED[None], "was not asked for") for name in questions if name not in names]
    rows = []
    for name, answer, kind, text in sorted(found, key=lambda each: each[0]):
        question = Html(f"{escape(questions[name])}<br>") if name in questions else Html()
        what = Html(f'{question}<span class="soft">{escape(text)}</span>')
        rows.append((name, Html(f'<span class="{kind}">{escape(answer)}</span>'), what))
    return table(("gate", "answer", "question, and what was found"), rows, "A gate that was not run has not passed.")


# ---- accuracy and losses ---------------------------------------------------------------------------------------------------


def _accuracy(accuracy: Facts | None, names: Mapping[str, str]) -> list[Html]:
    """A picture, the same as a table, and what else was counted."""
    stages = {name: x for name, x in (accuracy or {}).items() if isinstance(x, Mapping)}
    if accuracy is None or not stages:
        return absent("no labels were given")
    text = {name: f"{x['share']:.2%} ({x['low']:.2%} to {x['high']:.2%})" for name, x in stages.items()}
    words = "; ".join(f"{names.get(name, name)} {x}" for name, x in text.items())
    picture = pictures.accuracy(stages, names)
    caption = "Dots: share of the labels that are right. Bars: Wilson's 95 % interval."
    rows = [(names.get(name, name), x) for name, x in text.items()]
    for name, x in accuracy.items():
        if name not in stages:
            label = "both say the same" if name == "agreement" else name
            rows.append((label, f"{x:.2%}" if name == "agreement" else number(x)))
    return [
        figures(figure(picture, f"Accuracy per stage with 95 % intervals: {words}", caption)),
        table(("stage", "accuracy (95 % interval)"), rows, "The same in numbers"),
    ]


def _lost(facts: Facts) -> list[Html]:
    """Features that are left out; of a file for other tools, what these lose."""
    lost, readers = facts.get("lost"), facts.get("readers") or {}
    if lost is None:
        return absent("the report does not say")
    parts = [paragraph("By the file: nothing. By tools that read it:")] if readers and lost else []
    parts.append(items(lost) if lost else paragraph("Nothing."))
    whole = [reader for reader, answer in readers.items() if answer == "reads it"]
    return [*parts, paragraph(f"Read as it is by {_listed(whole)}.")] if whole else parts


def _by_name(facts: Mapping[str, Facts], lines: Mapping[str, Callable[[Facts], str]], caption: str) -> Html:
    """A column for each name, a row for each line: narrow where names are few, as they are."""
    rows = [(label, *(value(x) for x in facts.values())) for label, value in lines.items()]
    return table(("", *facts), rows, caption)


def _parameters(errors: Mapping[str, Facts] | None) -> list[Html]:
    if not errors:
        return absent("the report has no errors of parameters")

    def label_of(key: str) -> tuple[str, float]:
        base = key.removeprefix("recurrent_")
        label, factor = PARAMETERS.get(base, (key, 1))
        return (f"recurrent {label}" if base != key and base in PARAMETERS else label), factor

    def value_of(key: str, factor: float) -> Callable[[Facts], str]:
        return lambda x: number(x[key] * factor if key in x else None)

    keys = dict.fromkeys(key for x in errors.values() for key in x)  # in the order of the quantiser
    lines = {label: value_of(key, factor) for key in keys for label, factor in [label_of(key)]}
    return [_by_name(errors, lines, "Beside the trained numbers, per population; a dash: it has none")]


# ---- dynamics --------------------------------------------------------------------------------------------------------------


def _step(facts: Facts) -> float | None:
    """Seconds of a step."""
    return (facts.get("identity") or {}).get("step_s")


def _dynamics(facts: Facts) -> list[Html]:
    layers, step = facts.get("dynamics"), _step(facts)
    if not layers:
        return absent("the network has no spiking layer that could be compared")
    lines: dict[str, Callable[[Facts], str]] = {
        "spikes, trained": lambda x: number(x["spikes_trained"]),
        "spikes, exported": lambda x: number(x["spikes_chip"]),
        "lag (steps)": lambda x: number(x["lag_steps"]),
        "distance": lambda x: number(x["distance"]),
    }
    parts = [
        _by_name(
            layers,
            lines,
            "Spikes per sample, how late the exported network is, and how far its spikes are from the trained ones (0: the same)",
        ),
        paragraph("The first spike that differs:"),
        items(f"{name}: {_where(x['first_divergence'], step)}" for name, x in layers.items()),
    ]
    overflows = {name: n for name, n in (facts.get("overflows") or {}).items() if n}
    if overflows:
        where = ", ".join(f"{name} {n:,}" for name, n in overflows.items())
        parts.append(
            paragraph(f"Currents that wrapped or voltages that were clipped, times in all samples: {where}.", "bad")
        )
    elif "overflows" in facts:
        parts.append(paragraph("No current wrapped and no voltage was clipped."))
    return parts


def _where(found: Facts | None, step: float | None) -> str:
    """The first step in which only one of both has a spike."""
    if not found:
        return "none"
    when = f" ({number(1e3 * found['step'] * step, 'ms')})" if step else ""
    only = f"of the {'exported' if found['fired_on'] == 'chip' else 'trained'} network only"
    text = f"step {found['step']:,}{when}, sample {found['sample']}, neuron {found['neuron']}: then a spike {only}"
    above = found.get("chip_above_threshold")
    if above is not None:
        text += (
            f"; the exported neuron's voltage was {abs(above):.2%} {'above' if above >= 0 else 'below'} the threshold"
        )
    return text


def _rasters(layers: Mapping[str, Facts] | None, step: float | None, names: Mapping[str, str]) -> list[Html]:
    """Of the first sample; both pictures of a layer have the same axes."""
    if not layers or not step:
        return absent("the report keeps no spikes")
    shown = []
    for name, layer in layers.items():
        steps, units = layer["chip"]
        chip = ([k * step for k in steps], units)
        trained = layer["trained"]
        end = max([*trained[0], *chip[0], step])
        top = max([*trained[1], *chip[1], 0])
        for where, spikes in (("trained", trained), ("chip", chip)):
            caption = f"{name}, {names[where]}: {len(spikes[0]):,} spikes of {len(set(spikes[1])):,} neurons"
            picture = pictures.raster(spikes, COLOURS[where], end, top)
            shown.append(figure(picture, f"Spikes over time: {caption}", caption))
    return [paragraph("The first sample that was compared."), figures(*shown)]


def _trace(trace: Facts | None, facts: Facts, names: Mapping[str, str]) -> list[Html]:
    """Both voltages around the first spike that only one of them has."""
    layers = facts.get("dynamics") or {}
    if not trace:
        same = layers and not any(x.get("first_divergence") for x in layers.values())
        return absent("no spike differs in the samples that were compared" if same else "the report keeps no voltages")
    step = _step(facts)
    caption = f"{trace['name']}: {_where(trace, step)}."
    parts = [
        figures(figure(pictures.trace(trace, step, names), f"Voltages of one neuron over time. {caption}", caption))
    ]
    if "trained" not in trace:
        parts.append(
            paragraph("The exported network's alone: a layer with refractory periods gives no voltage.", "soft")
        )
    return parts


# ---- weights, counts, chip, identity ---------------------------------------------------------------------------------------


def _weights(projections: Mapping[str, Facts] | None) -> list[Html]:
    if not projections:
        return absent("the report keeps no weights")
    shown = []
    for name, x in projections.items():
        before, after = (torch.as_tensor(x[key]).detach().double().cpu().flatten() for key in ("before", "after"))
        before, after = before[before.isfinite()], after[after.isfinite()]
        caption = f"{_arrow(name)}: {len(before):,} weights"
        shown.append(
            figure(pictures.histogram(before, after), f"Histogram before and after rounding of {caption}", caption)
        )
    return [figures(*shown)]


def _counts(counts: Facts | None) -> list[Html]:
    if not counts:
        return absent("nothing was counted")
    spikes, operations = counts.get("spikes_per_sample", {}), counts.get("synaptic_operations_per_sample", {})
    samples = f", over {number(counts['samples'])} samples" if "samples" in counts else ""
    return [
        table(("population", "spikes"), [(name, number(x)) for name, x in spikes.items()], "Spikes per sample"),
        table(
            ("projection", "operations"),
            [(_arrow(name), number(x)) for name, x in operations.items()],
            f"Synaptic operations per sample{samples}",
        ),
    ]


def _energy(facts: Facts) -> list[Html]:
    """Ranges on each device."""
    if _is_nir(facts):
        return absent("a NIR file holds equations, and what they cost is up to what runs them")
    found = facts.get("energy")
    if not found:
        return absent("no device has a price for all that was counted")

    def text(joules: Sequence[float] | None) -> str:
        return "not known" if joules is None else Interval(*joules).text("J")

    rows = [
        (name, *(text(x[f"{part}_joules_per_sample"]) for part in ("dynamic", "idle"))) for name, x in found.items()
    ]
    caption = "From these counts and published coefficients; batch size 1, without sensors and transfers"
    return [
        table(("device", "dynamic", "idle"), rows, caption),
        paragraph("eventnet report shows dense baselines beside these, sources and assumptions.", "soft"),
    ]


def _resources(found: Facts | None) -> list[Html]:
    """Whether it fits; what does not and what to do; and what the answer rests on that no source states."""
    if not found:
        return absent("no chip was asked for")
    if "profile" not in found:  # of a file that is for no chip: how large it is
        sizes = [(name, number(x)) for name, x in found.items() if not isinstance(x, Mapping)]
        sizes += [(f"nodes: {kind}", number(x)) for kind, x in found.get("nodes", {}).items()]
        return [table((), sizes, "Size of the network in the file")]
    cores, profile = number(found.get("num_cores")), found.get("profile", "the chip")
    violations = found.get("violations") or ()
    if violations and all(x["limit"] == "neuron_kinds" for x in violations):
        parts = [paragraph(f"No such neurons on {profile}: nothing was placed.", "open")]
    elif found.get("ok"):
        parts = [paragraph(f"Fits on {profile}. Cores: {cores}.", "good")]
    else:
        parts = [paragraph(f"Does not fit on {profile}. Cores that it would take: {cores}.", "bad")]
    rows = []
    for x in violations:
        where = _arrow(x["layer"]) + (f", neuron {x['neuron']}" if x.get("neuron") is not None else "")
        such = f" ({x['count']:,} such)" if x.get("count", 1) > 1 else ""
        rows.append(
            (where, LIMITS.get(x["limit"], x["limit"]), number(x["found"]) + such, number(x["allowed"]), x["remedy"])
        )
    if rows:
        parts.append(table(("where", "limit", "found", "allowed", "what to do"), rows, "What does not fit"))
    unverified = found.get("unverified") or {}
    limits = [(LIMITS.get(name, name), number(x["value"]), x["source"]) for name, x in unverified.items()]
    if limits:
        caption = "Limits that no source was found for; a dash: the number is not known, nothing was checked"
        parts.append(table(("limit", "taken", "source"), limits, caption))
    return parts


def _identity(identity: Facts | None) -> list[Html]:
    if not identity:
        return absent("the report does not say what was compared")
    rows = [(IDENTITY.get(name, name), code(x) if "sha" in name else number(x)) for name, x in identity.items()]
    return [table((), rows, "What was compared, and with what")]
