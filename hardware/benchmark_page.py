"""A benchmark as a page that needs nothing beside it: how accurate, how sparse, how much energy, when it does not pay, and why.

The answers come first, then what they rest on. Every energy is a range and an estimate, and says so. A fact that is missing
leaves its section empty but for the reason. Several networks are compared first, then each has its own sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventnet.hardware import benchmark_pictures as pictures
from eventnet.hardware.benchmark_answers import ANSWERS, charged, summary, verdicts
from eventnet.hardware.benchmark_details import DETAILS
from eventnet.hardware.benchmark_words import (
    CAVEAT,
    CHOSEN,
    STAGES,
    Facts,
    accuracy,
    device,
    forecast,
    percent,
    rate_of,
    span,
    verdict_kind,
)
from eventnet.hardware.page import (
    Html,
    absent,
    contents,
    document,
    escape,
    figure,
    figures,
    items,
    link,
    marked,
    number,
    paragraph,
    section,
    table,
)
from eventnet.hardware.parity_page import OF_FILE, PASSED, QUESTIONS

__all__ = ["Run", "page"]

TITLE = "Accuracy, sparsity and energy"
COMPARED = "The networks compared"
EXPORTS, TRAINING = "Exported networks", "Training"
BEFORE = "Coefficients and sources"  # what comes before it: exports and training
TRAINED = {
    "recipe": "recipe",
    "data": "data",
    "seconds": "training time (s)",
    "epochs": "epochs",
    "best_epoch": "best epoch",
    "seed": "seed",
    "parameters": "parameters",
    "test_accuracy": "test accuracy at the end of training",
    "validation_accuracy": "validation accuracy",
}


@dataclass(frozen=True)
class Run:
    """One network on the page.

    Args:
        name: what it is called.
        facts: of ``eventnet.hardware.benchmark.benchmark``; what is missing is said to be.
        parity: the facts of ``parity.json`` for each target that the network was exported to.
        training: how it was trained, as lines of a table: ``recipe``, ``data``, ``seconds``, ``seed``, ...
        links: for each target the path of its report, relative to the page.
        warnings: what a reader should know before anything else.
    """

    name: str
    facts: Facts
    parity: Mapping[str, Facts] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def page(runs: Sequence[Run]) -> str:
    r"""The benchmark of one network or of several as HTML.

    Raises:
        ValueError: no network.

    Example:
        >>> text = page([Run("digits", {"accuracy": {"trained": {"share": 0.9, "low": 0.8, "high": 0.95, "labels": 60}}})])
        >>> "<h1>digits: accuracy, sparsity and energy</h1>" in text, "90.0\u00a0% (80.0 to 95.0\u00a0%)" in text
        (True, True)
    """
    if not runs:
        raise ValueError("runs: expected at least one network, got none")
    if len(runs) == 1:
        title = f"{runs[0].name}: {TITLE[0].lower()}{TITLE[1:]}"
        return document(title, _header(title, contents(_headings())), *_run(runs[0]))
    title = f"{len(runs)} networks: {TITLE[0].lower()}{TITLE[1:]}"
    names = [f"{k}. {run.name}" for k, run in enumerate(runs, 1)]
    head = _header(title, contents([COMPARED, *names]))
    whole = [
        section(name, contents(_headings(), f"run{k}-"), *_run(run, 3, f"run{k}-"))
        for k, (name, run) in enumerate(zip(names, runs, strict=True), 1)
    ]
    return document(title, head, section(COMPARED, *_compared(runs)), *whole)


def _header(title: str, *parts: Html) -> Html:
    caveat = f"All energies here: {CAVEAT}. They are counts times published figures, as ranges; nothing was metered."
    return Html(f"<header><h1>{escape(title)}</h1>\n{paragraph(caveat)}{Html().join(parts)}</header>")


def _headings() -> list[str]:
    """Of all sections of one network, in their order."""
    details = list(DETAILS)
    at = details.index(BEFORE)
    return [*ANSWERS, *details[:at], EXPORTS, TRAINING, *details[at:]]


def _run(run: Run, level: int = 2, prefix: str = "") -> list[Html]:
    """The answers at first sight, then every section."""
    makers = {**ANSWERS, **DETAILS}
    parts = {name: make(run.facts) for name, make in makers.items()}
    parts |= {EXPORTS: _exports(run), TRAINING: _training(run.training)}
    return [
        *(paragraph(f"Warning: {line}", "open") for line in run.warnings),
        summary(run.facts),
        *(section(name, *parts[name], level=level, prefix=prefix) for name in _headings()),
    ]


# ---- several networks ------------------------------------------------------------------------------------------------------


def _compared(runs: Sequence[Run]) -> list[Html]:
    """Accuracy against energy where there are both, and a table of all."""
    shown = []
    for name in CHOSEN:
        points = [
            (k, run.facts["energy"][name]["dynamic_joules_per_sample"], found)
            for k, run in enumerate(runs, 1)
            if name in (run.facts.get("energy") or {}) and (found := _best(run.facts))
        ]
        if len(points) > 1:
            told = "; ".join(f"{k}: {accuracy(found)}, {span(bounds)}" for k, bounds, found in points)
            alt = f"Accuracy against dynamic energy on {device(name)}, {CAVEAT}: {told}"
            caption = (
                f"{device(name)}, {CAVEAT}. Lines: ranges of energy and 95 % intervals of accuracy; idle left out."
            )
            shown.append(
                figure(pictures.pareto(points, name), alt, caption + _missing(runs, [k for k, _, _ in points]))
            )
    parts = [figures(*shown)] if shown else absent("no two networks have an accuracy and an estimate on one device")
    header = (
        "network",
        "accuracy",
        "of",
        "step",
        "samples",
        "spikes",
        "of dense",
        *map(device, CHOSEN),
        "pays",
        "may or may not",
        "does not",
    )
    caption = (
        f"Up and to the left is better. Energies: dynamic, per sample, {CAVEAT}; last columns: number of comparisons with "
        "dense baselines in which the network pays, may or may not pay, does not pay"
    )
    parts = [paragraph(line, "open") for line in _differences(runs)] + parts
    return [*parts, table(header, [_row(k, run) for k, run in enumerate(runs, 1)], caption)]


def _differences(runs: Sequence[Run]) -> list[str]:
    """What stands in the way of a comparison, as warnings."""
    told = {"stage": "stages of the network", "step": "steps", "samples": "numbers of samples"}
    columns = dict(zip(told, zip(*(_basis(run.facts) for run in runs), strict=True), strict=True))
    differ = [told[name] for name, values in columns.items() if len({x for x in values if x != "–"}) > 1]
    lines = [f"Warning: the networks were counted with different {', '.join(differ)}; see the table."] if differ else []
    return lines + [f"Warning: {k}. {run.name}: {line}" for k, run in enumerate(runs, 1) for line in run.warnings]


def _basis(facts: Facts) -> tuple[str, str, str]:
    """What was counted: the stage of the network, the length of a step, the number of samples."""
    identity, stage = facts.get("identity") or {}, facts.get("charged")
    step = identity.get("step_s")
    told = "–" if step is None else f"{number(1e3 * step)} ms"
    return STAGES.get(stage, str(stage)) if stage else "–", told, number(identity.get("samples"))


def _missing(runs: Sequence[Run], drawn: Sequence[int]) -> str:
    """Which networks a picture does not show."""
    names = [f"{k}. {run.name}" for k, run in enumerate(runs, 1) if k not in drawn]
    return f" Without an estimate or an accuracy: {', '.join(names)}." if names else ""


def _row(k: int, run: Run) -> tuple[object, ...]:
    facts, energy, counts = run.facts, run.facts.get("energy") or {}, charged(run.facts)
    spikes = sum(each["spikes"] for each in counts.values() if each.get("dense")) if counts else None
    spans = [span((energy.get(name) or {}).get("dynamic_joules_per_sample")) for name in CHOSEN]
    kinds = [verdict_kind(each["verdict"]) for _, each in verdicts(facts)]
    marks = [marked(kinds.count(kind), kind) if kinds else "–" for kind in ("good", "open", "bad")]
    score = forecast(facts["forecast"]) if facts.get("forecast") else accuracy(_best(facts))
    return (f"{k}. {run.name}", score, *_basis(facts), number(spikes), percent(rate_of(counts)), *spans, *marks)


def _best(facts: Facts) -> Facts | None:
    """The accuracy of what the devices are charged for, if it is known."""
    stages = facts.get("accuracy") or {}
    found: Facts | None = stages.get(facts.get("charged")) or stages.get("trained")
    return found if found and found["share"] is not None else None


# ---- exports and training --------------------------------------------------------------------------------------------------


def _exports(run: Run) -> list[Html]:
    if not run.parity:
        return absent("the network was not exported")
    parts = [paragraph("Whether the exported network is the trained one. A gate that was not run has not passed.")]
    for target, facts in run.parity.items():
        nir = (facts.get("identity") or {}).get("target") == "NIR"
        rows = [_gate(gate, OF_FILE if nir else QUESTIONS) for gate in facts.get("gates") or ()]
        if rows:
            parts.append(table(("gate", "answer", "question", "found"), rows, f"Export to {target}"))
        else:
            parts += [paragraph(f"Export to {target}:"), *absent("its report has no gates")]
        for key, heading in (("warnings", "Warnings:"), ("lost", "Not carried over:")):
            parts += [paragraph(heading), items(facts[key])] if facts.get(key) else []
        if target in run.links:
            parts.append(paragraph(link(run.links[target], f"The whole report of the export to {target}")))
    return parts


def _gate(gate: Facts, questions: Mapping[str, str]) -> tuple[object, ...]:
    word, kind = PASSED[gate.get("passed")]
    return gate["name"], marked(gate.get("answer") or word, kind), questions.get(gate["name"], "–"), gate["text"]


def _training(training: Mapping[str, Any]) -> list[Html]:
    if not training:
        return absent("the facts do not say how it was trained")
    rows = [(TRAINED.get(key, key), number(x)) for key, x in training.items()]
    return [table((), rows, "As the run's folder says")]
