"""The page of a benchmark: every energy a range and an estimate, every verdict shown, every gap explained; it stands alone."""

import copy
import functools
import html
import json
import re

import pytest
import torch
from test_hardware_parity_page import NASTY, Page
from torch import nn

from eventnet import LI, LIF, Events
from eventnet.hardware import page as parts
from eventnet.hardware.benchmark import benchmark
from eventnet.hardware.benchmark_page import Run, page
from eventnet.hardware.benchmark_words import CAVEAT, NO_BREAK, device, span, verdict_kind

ANSWERS = ["How accurate", "How sparse", "How much energy", "When does it not pay", "What was assumed"]
DETAILS = ["Where the energy goes", "Operations per layer", "All devices", "Dense baselines"]
DETAILS += ["Sparse weights and sparse activity", "Activity over time", "Spikes of one sample"]
DETAILS += ["Delays and time constants", "Exported networks", "Training", "Coefficients and sources", "Identity"]
LEFT_OUT = '<p class="soft">Left out: '
ENERGY = re.compile(rf"(?<![\w.–])(?:(\d[\d.]*)–)?\d[\d.]*[ {NO_BREAK}][afpnuµmkMG]?J\b")
QUOTED = r'<section id="[^"]*coefficients-and-sources">.*?</section>|<details>.*?</details>'  # what sources say, in their words
BLOCKS = (
    r"<div><p.*?</div>",
    r"<figure>.*?</figure>",
    r'<p class="soft">[^<]*</p><div class="scroll".*?</div>',
    r"<li>.*?</li>",
)


class Net(nn.Sequential):
    def forward(self, events):
        return super().forward(events).max()


@functools.cache
def counted() -> str:
    """The facts of a small network with delays, as JSON."""
    torch.manual_seed(0)
    events = Events.from_list(
        [([0.001 * k for k in range(1, 25)], [(3 * k + j) % 12 for k in range(24)]) for j in range(6)],
        num_units=12,
        duration=0.03,
    )
    first = LIF(12, 16, delay=(0.0, 5e-3), tau_mem=10e-3, tau_syn=5e-3)
    network = Net(first, LI(16, 3))
    with torch.no_grad():
        first.weight.normal_(0.4, 0.3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    return json.dumps(benchmark(network, events, labels, dt=1e-3, calibration=events), allow_nan=False)


def some_facts() -> dict:
    return json.loads(counted())


def thin(facts: dict) -> dict:
    """With fewer pictures, which take time."""
    facts["energy"] = {name: facts["energy"][name] for name in ("loihi1", "asic45")}
    facts["break_even"] = {"loihi1": facts["break_even"]["loihi1"][:1]}
    return facts


def some_run(facts: dict | None = None, name: str = "digits") -> Run:
    gates = [
        {"name": "L0", "passed": True, "text": "3 populations"},
        {"name": "L2", "passed": None, "text": "no labels"},
    ]
    parity = {"loihi": {"gates": gates, "lost": ["refractory periods"]}}
    gates += [{"name": "L3", "passed": None, "answer": "not possible", "text": "no Lava process"}]
    parity["nir"] = {"gates": gates[:1], "warnings": ["far off"], "identity": {"target": "NIR"}}
    training = {"recipe": "digits", "seconds": 12.5, "seed": 0, "note": "by hand"}
    return Run(name, some_facts() if facts is None else facts, parity, training, {"loihi": "loihi/parity.html"})


@pytest.fixture(scope="module")
def whole() -> str:
    return page([some_run()])


def read(text: str) -> Page:
    """The page taken apart, if it stands alone and is well-formed."""
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>") and len(found.texts["h1"]) == 1
    assert len(found.ids) == len(set(found.ids))
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    targets = [x for x in found.targets if not x.startswith("data:image/png;")]
    inside = [x.removeprefix("#") for x in targets if x.startswith("#")]
    assert set(inside) <= set(found.ids)
    assert {x for x in targets if not x.startswith("#")} <= {"loihi/parity.html"}
    assert "@import" not in text and text.count("url(") == text.count("url(#")
    assert not re.search(r'(?:src|href|action|data)="[a-z]+:(?!image/png)', text) and " on" + "load=" not in text
    assert all(x["role"] == "img" and len(x["aria-label"]) > 10 and "viewbox" in x for x in found.pictures)
    return found


def below(text: str, heading: str) -> str:
    """What stands below a heading."""
    return re.split(rf"<h[23]>{re.escape(heading)}</h[23]>", text)[1].split("<section")[0]


def plain(text: str) -> str:
    return html.unescape(text).replace(NO_BREAK, " ")


# ---- a whole page ----------------------------------------------------------------------------------------------------------


def test_a_whole_page(whole):
    found, facts = read(whole), some_facts()
    assert found.texts["h2"] == ANSWERS + DETAILS
    assert LEFT_OUT not in whole
    for stage in facts["accuracy"].values():
        told = f"{100 * stage['share']:.1f} % ({100 * stage['low']:.1f} to {100 * stage['high']:.1f} %)"
        assert told in plain(below(whole, "How accurate"))
    assert "fixed-point simulation" in below(whole, "How accurate")
    layers = facts["counts"]["fixed_point"].values()
    rate = sum(x["accumulates"] for x in layers) / sum(x["dense"] for x in layers)
    row = f"events per connection and step</th><td>[^<]*</td><td>{re.escape(f'{rate:.3g}')}</td>"
    assert re.search(row, below(whole, "How sparse"))
    for name, each in facts["energy"].items():
        row = f'<th scope="row">{html.escape(device(name))}</th><td'
        told = below(whole, "All devices").split(row)[1].split("</tr>")[0]
        assert span(each["dynamic_joules_per_sample"]) in told and span(each["idle_joules_per_sample"]) in told
    devices = {each["profile"] for each in facts["baselines"]}
    assert below(whole, "Dense baselines").count("<tr>") == len(devices) + len(facts["baselines"])
    assert below(whole, "Sparse weights and sparse activity").count("<tr>") == 5
    assert "3 populations" in below(whole, "Exported networks") and "not run" in below(whole, "Exported networks")
    for line in ("refractory periods", "far off", "not possible", "The file loads", "The files load"):
        assert line in below(whole, "Exported networks")
    assert 'href="loihi/parity.html"' in below(whole, "Exported networks")
    assert "12.5" in below(whole, "Training") and "by hand" in below(whole, "Training")
    assert "torch" in below(whole, "Identity")


def test_pictures_are_there(whole):
    facts = some_facts()
    numbers = {"How accurate": 1, "How much energy": 2, "When does it not pay": 8, "Where the energy goes": 2}
    assert sum(len(some) for some in facts["break_even"].values()) == 8
    numbers |= {"Activity over time": 2, "Spikes of one sample": 2, "Delays and time constants": 1}
    assert {name: below(whole, name).count("<svg") for name in numbers} == numbers
    assert read(whole).tags.count("svg") == sum(numbers.values())


def test_operations_of_every_layer_in_both_computations(whole):
    told = below(whole, "Operations per layer")
    words = {"accumulates": "accumulates", "state updates": "state_updates", "weight reads": "weight_reads"}
    words |= {"dense equivalent": "dense", "delay buffer writes": "buffer_writes", "spikes": "spikes"}
    for layers in some_facts()["counts"].values():
        for label, key in words.items():
            cells = "".join(f"<td>{parts.number(each[key])}</td>" for each in layers.values())
            assert f'<th scope="row">{label}</th>{cells}' in told


def test_every_coefficient_has_its_source_and_status(whole):
    told = below(whole, "Coefficients and sources")
    for each in some_facts()["energy"].values():
        for coefficient in each["coefficients"].values():
            source = html.escape(coefficient["source"])
            assert re.search(rf"<td>{coefficient['status']}</td><td[^>]*>{re.escape(source)}</td>", told)
    assert "details::details-content{content-visibility:visible" in whole.split("@media print")[1]  # on paper


def test_every_assumption_is_listed(whole):
    facts, told = some_facts(), below(whole, "What was assumed")
    said = [*facts["assumptions"], *facts["notes"]]
    said += [line for each in facts["energy"].values() for line in each["assumptions"]]
    said += [line for some in facts["break_even"].values() for each in some for line in each["assumptions"]]
    assert said and all(html.escape(line) in told for line in said)


def test_the_same_facts_are_the_same_page():
    facts = thin(some_facts())
    assert page([Run("a", facts)]) == page([Run("a", copy.deepcopy(facts))])


# ---- energies and verdicts -------------------------------------------------------------------------------------------------


def bare(text: str) -> list[str]:
    """Energies that are one number, or that stand in a block without the caveat."""
    text = plain(re.sub(QUOTED, "", text, flags=re.DOTALL))
    whole = [found.span() for block in BLOCKS for found in re.finditer(block, text, re.DOTALL) if CAVEAT in found[0]]
    wrong = []
    for found in ENERGY.finditer(text):
        first, last = found.span()
        two = found[1] or text[last:].startswith(" to ") or text[:first].endswith(" to ")
        if not (two and any(start <= first and last <= end for start, end in whole)):
            wrong.append(text[first - 60 : last + 20])
    return wrong


def test_no_energy_is_a_bare_number(whole):
    assert len(ENERGY.findall(plain(whole))) > 100
    assert not bare(whole)
    assert bare("<li>it takes 3.2 µJ (estimate, not measurement)</li>")
    assert bare("<li>it takes 3.2–4 µJ</li>")
    assert not bare("<li>it takes 820 nJ to 4 µJ (estimate, not measurement)</li>")


def test_equal_bounds_are_both_shown():
    assert plain(span([2e-6, 2e-6])) == "2–2 µJ"
    assert plain(span([9.99e-7, 2e-6])) == "1–2 µJ" and plain(span([9.9e-7, 2e-6])) == "990 nJ to 2 µJ"
    assert span([0.0, 0.0]) == "none" and span(None) == span([None, 1.0]) == "not known"


def test_idle_energy_is_apart(whole):
    idle = span(some_facts()["energy"]["loihi1"]["idle_joules_per_sample"])
    assert f"idle energy comes on top: {idle}" in whole
    assert re.search(rf"Loihi 1: idle energy, {idle}, is [\d,.]+–[\d,.]+ times the dynamic energy", whole)
    assert "ASIC (45 nm): idle power is not known, which is not zero." in whole
    assert "Idle power is in neither energy." in below(whole, "When does it not pay")


VERDICTS = {
    "pays at its own rate": "good",
    "always pays, up to an event on every connection in every step": "good",
    "may or may not pay at its own rate": "open",
    "does not pay at its own rate": "bad",
    "never pays: without any event it costs as much already": "bad",
}


def test_every_verdict_is_shown_alike():
    facts = thin(some_facts())
    one = facts["break_even"]["loihi1"][0]
    facts["break_even"] = {"loihi1": [one | {"verdict": verdict} for verdict in VERDICTS]}
    text = page([Run("a", facts)])
    told = below(text, "When does it not pay")
    for verdict, kind in VERDICTS.items():
        assert verdict_kind(verdict) == kind
        mark = re.compile(rf'<span class="{kind}">. {re.escape(verdict)}</span>')
        assert len(mark.findall(told)) == 2, "in the table and below its picture"
    for line in ('"good">✓ pays: 2<', '"open">? may or may not: 1<', '"bad">✗ does not pay: 2<'):
        assert line in text


def test_published_thresholds(whole):
    told = below(whole, "When does it not pay")
    for each in some_facts()["break_even"]["loihi1"][0]["thresholds"]:
        author, _, title = each["source"].partition(", ")
        assert f'<th scope="row">{html.escape(author)}</th>' in told and html.escape(title) in told


def test_extreme_break_evens():
    """Infinite advantages, rates above one, no break-even, no thresholds: a picture each, and no error."""
    facts = thin(some_facts())
    one = facts["break_even"]["loihi1"][0]
    count = len(one["advantage"])
    facts["break_even"]["loihi1"] = [
        one | {"advantage": [[1.0, None]] * count, "advantage_at_own_rate": [1.0, None]},
        one | {"advantage": [[None, None]] * count, "break_even_events_per_connection_and_step": [0.5, None]},
        one | {"advantage": [[0.0, 1e-30]] * count, "break_even_events_per_connection_and_step": None},
        one | {"own_rate_events_per_connection_and_step": 2.5, "thresholds": []},
        one | {"own_rate_events_per_connection_and_step": 1e-7},
    ]
    told = below(page([Run("a", facts)]), "When does it not pay")
    assert told.count("<svg") == 5 and "1–∞" in told and "0.5–∞" in told


def test_energies_that_are_nothing():
    facts = thin(some_facts())
    for each in facts["energy"].values():
        each["dynamic_joules_per_sample"] = [0.0, 0.0]
        each["causes_joules_per_sample"] = {cause: [0.0, 0.0] for cause in each["causes_joules_per_sample"]}
        each["layers_joules_per_sample"] = {"a": each["causes_joules_per_sample"]}
    facts["activity"] = {"a": {"bin_s": 1e-3, "rate_hz": [0.0, 0.0]}}
    text = page([Run("a", facts)])
    assert "Loihi 1: no operation costs anything there." in text and "no layer sends spikes" in text
    read(text)


# ---- what is missing -------------------------------------------------------------------------------------------------------

MISSING = {
    "accuracy": {"How accurate": "no labels were given"},
    "counts": {"How sparse": "nothing was counted", "Operations per layer": "nothing was counted"},
    "energy": {
        "How much energy": "no device could",
        "Where the energy goes": "no device could",
        "All devices": "no device could",
    },
    "break_even": {"When does it not pay": "no comparison"},
    "baselines": {"Dense baselines": "no dense baseline"},
    "sparsity": {"Sparse weights and sparse activity": "it was not computed"},
    "activity": {"Activity over time": "it was not recorded"},
    "rasters": {"Spikes of one sample": "no spikes were kept"},
    "learnt": {"Delays and time constants": "the network has no delays"},
    "identity": {"Identity": "the facts do not say"},
    "assumptions": {},
    "charged": {},
}


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_part_leaves_the_reason(key):
    facts = thin(some_facts())
    del facts[key]
    text = page([some_run(facts)])
    assert read(text).texts["h2"] == ANSWERS + DETAILS
    assert text.count(LEFT_OUT) == len(MISSING[key])
    for heading, why in MISSING[key].items():
        assert f"{LEFT_OUT}{why}" in below(text, heading)


def test_nothing_at_all():
    text = page([Run("a", {})])
    found = read(text)
    assert found.texts["h2"] == ANSWERS + DETAILS and not found.pictures
    assert text.count(LEFT_OUT) == len(ANSWERS + DETAILS)


def test_a_device_that_was_refused():
    facts = thin(some_facts())
    del facts["energy"]["loihi1"]
    facts["refused"] = {"loihi1": "no cost of multiply_accumulates"}
    text = page([Run("a", facts)])
    assert below(text, "How much energy").count("Loihi 1: no cost of multiply_accumulates") == 1
    assert "Energy per sample, Loihi 1" not in text and "Energy per sample, ASIC (45 nm)" in text


def test_without_a_fixed_point_twin():
    facts = thin(some_facts())
    del facts["accuracy"]["fixed_point"], facts["counts"]["fixed_point"]
    facts |= {"charged": "trained", "notes": ["No fixed-point twin: too long delays."]}
    text = page([Run("a", facts)])
    assert "A fixed-point simulation is missing" in below(text, "How accurate")
    assert "No fixed-point twin: too long delays." in below(text, "What was assumed")
    assert "fixed-point simulation; 95 % interval" not in text and "trained (float); 95 % interval" in text


def test_no_runs():
    with pytest.raises(ValueError, match="at least one network"):
        page([])


# ---- several, and hostile names --------------------------------------------------------------------------------------------


def test_several_networks():
    runs = [some_run(thin(some_facts()), "same"), some_run(thin(some_facts()), "same"), Run("bare", {})]
    text = page(runs)
    found = read(text)
    assert found.texts["h2"] == ["The networks compared", "1. same", "2. same", "3. bare"]
    assert found.texts["h3"] == 3 * (ANSWERS + DETAILS)
    told = below(text, "The networks compared")
    assert (
        told.count("<svg") == 2
        and told.count("<tr>") == 4
        and told.count("Without an estimate or an accuracy: 3. bare.") == 2
    )
    assert not bare(text)
    for name in ("loihi1", "asic45"):
        assert told.count(span(runs[0].facts["energy"][name]["dynamic_joules_per_sample"])) >= 4  # pictures and rows


def test_several_that_cannot_be_drawn_together():
    one, two = thin(some_facts()), thin(some_facts())
    del one["energy"]["loihi1"], two["energy"]["asic45"]
    told = below(page([Run("a", one), Run("b", two)]), "The networks compared")
    assert "<svg" not in told and "Left out: no two networks" in told and told.count("<tr>") == 3


def test_several_that_were_counted_differently():
    """Stage, step and samples have a column each; where they differ, the page says so."""
    alike = [Run(name, thin(some_facts())) for name in "ab"]
    told = below(page(alike), "The networks compared")
    assert "Warning" not in told and told.count("<td>6</td>") >= 2 and told.count("1 ms</td>") >= 2
    assert told.count("<td>fixed-point simulation</td>") == 2
    one, two = thin(some_facts()), thin(some_facts())
    two["identity"] |= {"samples": 3, "step_s": 2e-3}
    two["charged"] = "trained"
    told = below(page([Run("a", one), Run("b", two)]), "The networks compared")
    assert "Warning: the networks were counted with different stages of the network, steps, numbers of samples" in told
    assert "2 ms</td>" in told and "<td>trained (float)</td>" in told


def test_warnings_of_a_run_come_first():
    run = Run("a", thin(some_facts()), warnings=["of another network"])
    text = page([run])
    assert text.index("Warning: of another network") < text.index("How accurate</h2>")
    assert "Warning: 1. a: of another network" in below(page([run, Run("b", {})]), "The networks compared")


def test_a_forecast_has_an_error_and_no_accuracy():
    facts = thin(some_facts()) | {"accuracy": {}, "forecast": {"name": "test sMAPE", "value": 12.3456}}
    text = page([Run("a", facts)])
    told = below(text, "How accurate")
    assert "test sMAPE 12.3." in told and "one pass over the known series" in told and LEFT_OUT not in told
    head = text.split("<h2>")[0]
    assert '<p class="value">not known</p>' not in head and '<p class="value">test sMAPE 12.3</p>' in head
    assert "<td>test sMAPE 12.3</td>" in below(page([Run("a", facts), Run("b", facts)]), "The networks compared")


def test_which_interval_is_said():
    facts = thin(some_facts())
    facts["accuracy"]["trained"]["interval"] = "bootstrap over samples"
    told = below(page([Run("a", facts)]), "How accurate")
    assert "<td>bootstrap over samples</td>" in told and "<td>Wilson</td>" in told
    assert "95 % interval (bootstrap over samples, Wilson)" in told


def test_the_step_of_the_baselines_is_said():
    facts = thin(some_facts())
    assert "take steps of 1 ms, as the chip does" in below(page([Run("a", facts)]), "Dense baselines")
    facts["identity"]["baseline_step_s"] = 4e-3
    told = below(page([Run("a", facts)]), "Dense baselines")
    assert "steps of 4 ms, the task&#x27;s; the chip takes steps of 1 ms" in told.replace("&#39;", "&#x27;")


def nasty(value):
    """The same with hostile text and hostile names of layers, devices and parameters."""
    if isinstance(value, dict):
        return {key: nasty(x) for key, x in value.items()}
    if isinstance(value, list):
        return [nasty(x) for x in value]
    return f"{value} {NASTY}" if isinstance(value, str) and value != "fixed_point" else value


def test_text_is_escaped():
    facts = nasty(thin(some_facts()))
    for key in ("energy", "break_even", "activity", "learnt", "identity"):
        facts[key] |= {f"{NASTY} {name}": x for name, x in facts[key].items()}
    for layers in (*facts["counts"].values(), facts["energy"]["loihi1"]["layers_joules_per_sample"]):
        layers |= {f"{NASTY} {name}": x for name, x in layers.items()}
    facts["rasters"]["layers"] |= {NASTY: facts["rasters"]["layers"]["input"]}
    facts["refused"] = {NASTY: NASTY}
    facts["accuracy"][NASTY] = facts["accuracy"]["trained"]
    gates = [{"name": NASTY, "passed": False, "text": NASTY}]
    runs = [Run(NASTY, facts, {NASTY: {"gates": gates, "lost": [NASTY]}}, {NASTY: NASTY}) for _ in range(2)]
    for text in (page(runs[:1]), page(runs)):
        read(text)
        assert "<script" not in text and text.count("&lt;script&gt;") > 100


@pytest.mark.parametrize(
    "address", ["https://x.y", "//x.y/a", "/etc/passwd", "javascript:alert(1)", "", "#", "# x", "\\\\x"]
)
def test_links_stay_beside_the_page(address):
    with pytest.raises(ValueError, match="beside the page"):
        parts.link(address, "text")


def test_links_are_quoted():
    assert parts.link('a "b"/c&d.html', "<") == '<a href="a%20%22b%22/c%26d.html">&lt;</a>'
