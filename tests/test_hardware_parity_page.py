"""The page of a parity report: it stands alone, escapes what it is told, and says what is missing and why."""

import doctest
import math
import re
from html.parser import HTMLParser

import matplotlib
import pytest
import torch

from eventnet.hardware import page as parts
from eventnet.hardware import parity_page, parity_pictures
from eventnet.hardware.parity import Gate, ParityReport, interval
from eventnet.hardware.parity_page import page

VOID = {"meta", "br", "link", "img", "hr", "input"}
NASTY = "<script>alert('x')</script> & \"$\\frac{$\" --> </svg>"
HEADINGS = [
    "Warnings",
    "Gates",
    "Accuracy per stage",
    "Not carried over",
    "Errors of the parameters",
    "Dynamics",
    "Spikes",
]
HEADINGS += ["Voltage where they part", "Weights", "Counts per sample", "Energy per sample (estimate, not measurement)"]
HEADINGS += ["Resources", "Identity"]
ASKED = {"L0": True, "L1": True, "L2": True, "L3": True}


class Page(HTMLParser):
    """A page taken apart; every tag must be closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.targets, self.texts = [], [], [], [], {}
        self.pictures = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag}: an attribute twice"
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [value for name, value in attrs if name.split(":")[-1] in ("src", "href", "srcset", "data")]
        if tag == "svg":
            self.pictures.append(given)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def section(self, text: str, heading: str) -> str:
        """What stands below a heading."""
        return text.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]


def read(text: str) -> Page:
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert found.texts["h2"] == HEADINGS
    assert len(found.ids) == len(set(found.ids))
    assert "script" not in found.tags and "link" not in found.tags
    assert "http:" not in text and "https:" not in text and "@import" not in text
    references = found.targets + [f"#{name}" for name in re.findall(r"url\(#(.*?)\)", text)]
    assert all(x.startswith("data:image/png;") or x.removeprefix("#") in found.ids for x in references)
    assert text.count("url(") == text.count("url(#")
    assert all(x["role"] == "img" and x["aria-label"] and "viewbox" in x for x in found.pictures)
    return found


def gates(**passed: bool | None) -> list[Gate]:
    return [Gate(name, answer, f"text of {name}") for name, answer in (ASKED | passed).items()]


def some_facts() -> dict:
    error = {
        "scale": 412.5,
        "weight_exp": -1.0,
        "tau_mem_relative_error": 0.0125,
        "weight_sqnr_db": 41.5,
        "weight_clipped": 0.002,
    }
    delay = {"delay_worst_s": 5e-4, "recurrent_weight_sqnr_db": math.inf}
    where = {"step": 24, "sample": 3, "neuron": 7, "fired_on": "chip", "chip_above_threshold": 0.015}
    dynamics = {"spikes_trained": 12.5, "spikes_chip": 12.25, "lag_steps": 1, "distance": 0.07}
    return {
        "identity": {"eventnet": "0.1.0", "chip": "loihi2", "step_s": 1e-3, "model_sha256": "ab" * 32},
        "lost": [],
        "warnings": [],
        "energy": {"loihi1": {"dynamic_joules_per_sample": [1e-7, 2e-7], "idle_joules_per_sample": None}},
        "parameters": {"hidden_0": error | delay, "output": error},
        "dynamics": {"hidden_0": dynamics | {"first_divergence": where}},
        "overflows": {"hidden_0": 0},
        "resources": {"profile": "loihi2", "ok": True, "num_cores": 3, "violations": [], "unverified": {}},
        "counts": {
            "spikes_per_sample": {"hidden_0": 12.25},
            "synaptic_operations_per_sample": {"input->hidden_0": 81234.5},
            "samples": 16,
        },
        "accuracy": {"trained": interval(90, 100), "chip": interval(88, 100), "labels": 100, "agreement": 0.97},
    }


def some_pictures() -> dict:
    times = [k * 1e-3 for k in range(10)]
    weights = torch.linspace(-1, 1, 50)
    return {
        "dt": 1e-3,
        "rasters": {"hidden_0": {"trained": ([0.0105, 0.02], [1, 4]), "chip": ([11, 21, 30], [1, 4, 2])}},
        "trace": {
            **some_facts()["dynamics"]["hidden_0"]["first_divergence"],
            **{"name": "hidden_0", "times": times, "chip": times, "trained": times},
        },
        "weights": {"input->hidden_0": {"before": weights, "after": (weights * 8).round() / 8}},
    }


@pytest.fixture(scope="module")
def whole() -> str:
    return page(ParityReport(some_facts(), gates(), some_pictures()))


def test_a_whole_report(whole):
    found = read(whole)
    assert len(found.pictures) == 5 and "Left out" not in whole
    assert "Yes. All gates passed." in whole
    below = {heading: found.section(whole, heading) for heading in HEADINGS}
    assert below["Gates"].count(">passed<") == 4 and "text of L2" in below["Gates"]
    assert "90.00% (82.56% to 94.48%)" in below["Accuracy per stage"] and "97.00%" in below["Accuracy per stage"]
    assert "<p>Nothing.</p>" in below["Not carried over"]
    for row in (
        '<tr><th scope="row">scale (1/V)</th><td>412.5</td><td>412.5</td></tr>',
        '<tr><th scope="row">tau_mem, largest error (%)</th><td>1.25</td><td>1.25</td></tr>',
        '<tr><th scope="row">weights, SQNR (dB)</th><td>41.5</td><td>41.5</td></tr>',
        '<tr><th scope="row">delays, largest error (s)</th><td>0.0005</td><td>–</td></tr>',
        '<tr><th scope="row">recurrent weights, SQNR (dB)</th><td>∞</td><td>–</td></tr>',
    ):
        assert row in below["Errors of the parameters"]
    assert (
        "hidden_0: step 24 (24 ms), sample 3, neuron 7: then a spike of the exported network only" in below["Dynamics"]
    )
    assert "hidden_0, trained (float): 2 spikes of 2 neurons" in below["Spikes"]
    assert "hidden_0, fixed-point simulation: 3 spikes of 3 neurons" in below["Spikes"]
    assert (
        "input → hidden_0" in below["Counts per sample"].replace("&gt;", ">") and "81,234" in below["Counts per sample"]
    )
    assert "Fits on loihi2. Cores: 3." in below["Resources"]
    assert f"<code>{'ab' * 32}</code>" in below["Identity"] and "0.001" in below["Identity"]


def test_the_same_report_is_the_same_page_and_leaves_matplotlib_alone(whole):
    before = dict(matplotlib.rcParams), matplotlib.get_backend()
    assert page(ParityReport(some_facts(), gates(), some_pictures())) == whole
    assert (dict(matplotlib.rcParams), matplotlib.get_backend()) == before


@pytest.mark.parametrize(
    ("given", "kind", "answer"),
    [
        (gates(), "good", "Yes. All gates passed."),
        (gates(L3=None), "good", "Yes, as far as it was checked. Not run: L3, the comparison with Lava."),
        (gates()[:3], "good", "Yes, as far as it was checked. Not run: L3, the comparison with Lava."),
        (gates(L2=None, L3=None), "open", "Not known. Gates not run: L2, L3."),
        (gates(L1=False, L3=None), "bad", "No. Failed: L1."),
        ([*gates(), Gate("L1", None, "of a second file")], "open", "Not known. Gates not run: L1."),
        ([], "open", "Not known. Gates not run: L0, L1, L2, L3."),
    ],
)
def test_the_answer(given, kind, answer):
    """A gate that was not run has not passed; one that failed decides."""
    assert f'<p class="answer {kind}">{answer}</p>' in page(ParityReport({}, given))


def test_an_empty_report_says_what_is_missing():
    text = page(ParityReport({}))
    assert not read(text).pictures and text.count("Left out: ") == len(HEADINGS) - 1
    assert text.count("was not asked for") == 4 and "Left out: no labels were given." in text


def test_without_labels_trace_or_differences():
    facts, drawn = some_facts(), some_pictures()
    del facts["accuracy"], drawn["trace"]
    drawn |= {"rasters": {}, "weights": {}}
    missing = page(ParityReport(facts, gates(), drawn))
    assert "no labels were given" in missing and "the report keeps no voltages" in missing
    facts["dynamics"]["hidden_0"]["first_divergence"] = None
    same = page(ParityReport(facts, gates(), drawn))
    assert "hidden_0: none" in same and "no spike differs in the samples that were compared" in same
    assert not read(same).pictures


def test_failures_and_further_stages():
    facts, drawn = some_facts(), some_pictures()
    del drawn["trace"]["trained"], drawn["rasters"], drawn["weights"]
    facts["accuracy"]["fine-tuned"] = interval(89, 100)
    facts["overflows"] = {"hidden_0": 1234, "output": 0}
    found = {"layer": "hidden_0->output", "neuron": 5, "limit": "fan_in", "found": 8000, "allowed": 4096}
    facts["resources"] |= {"ok": False, "violations": [found | {"remedy": "prune", "count": 3}]}
    facts["resources"]["unverified"] = {"delay_slots_per_core": {"value": None, "source": "none found"}}
    text = page(ParityReport(facts, gates(L2=False), drawn))
    assert len(read(text).pictures) == 2 and ">FAILED<" in text
    assert "fine-tuned 89.00% (" in text  # the picture's own words
    assert "clipped, times in all samples: hidden_0 1,234." in text
    assert "a layer with refractory periods gives no voltage" in text
    assert "Does not fit on loihi2. Cores that it would take: 3." in text
    row = "<td>fan-in</td><td>8,000 (3 such)</td><td>4,096</td><td>prune</td>"
    assert f'<th scope="row">hidden_0 → output, neuron 5</th>{row}' in text
    assert '<th scope="row">delay slots on a core</th><td>–</td><td>none found</td>' in text


def test_text_is_escaped():
    facts, drawn = some_facts(), some_pictures()
    facts["lost"] = [NASTY]
    facts["accuracy"] = {"trained": interval(1, 2), NASTY: interval(1, 2), f"{NASTY}2": 3}
    facts["parameters"] = {NASTY: {NASTY: 1.0}}
    facts["dynamics"] = {NASTY: facts["dynamics"]["hidden_0"]}
    facts["overflows"] = {NASTY: 1}
    facts["counts"] = {"spikes_per_sample": {NASTY: 1}, "synaptic_operations_per_sample": {NASTY: NASTY}}
    found = {"layer": NASTY, "neuron": None, "limit": NASTY, "found": NASTY, "allowed": NASTY, "remedy": NASTY}
    limits = {NASTY: {"value": NASTY, "source": NASTY}}
    facts["resources"] = {"profile": NASTY, "ok": False, "violations": [found], "unverified": limits}
    facts["identity"] = {NASTY: NASTY, "step_s": 1e-3, "a_sha256": NASTY}
    drawn["rasters"] = {NASTY: drawn["rasters"]["hidden_0"]}
    drawn["weights"] = {NASTY: drawn["weights"]["input->hidden_0"]}
    drawn["trace"]["name"] = NASTY
    text = page(ParityReport(facts, [Gate("L0", True, NASTY), Gate(NASTY, False, NASTY)], drawn))
    read(text)  # no script, every picture whole
    assert "<script" not in text and text.count("&lt;script&gt;") > 30


def test_degenerate_pictures():
    """A silent layer, weights that are all the same, none at all, and more spikes than a path is for."""
    many = parity_pictures.MANY + 1
    rasters = {
        "silent": {"trained": ([], []), "chip": ([], [])},
        "busy": {"trained": ([0.01] * many, [1] * many), "chip": ([], [])},
    }
    weights = {"zero": {"before": [0.0, 0.0], "after": [0.0, 0.0]}, "none": {"before": [], "after": []}}
    text = page(ParityReport({}, [], {"dt": 1e-3, "rasters": rasters, "weights": weights}))
    found = read(text)
    assert len(found.pictures) == 6 and any(x.startswith("data:image/png;") for x in found.targets)
    assert len(text) < 400_000  # the busy layer as pixels


def test_a_histogram_of_rounded_weights_has_no_comb():
    """As many of the chip's levels in each bin, so that evenly spread weights make even bins."""
    before = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    figure = parity_pictures.histogram(before, (before * 127).round() / 127)
    heights = figure.axes[0].patches[0].get_path().vertices[:, 1]
    inner = sorted(heights[heights > 0].tolist())[8:]  # without the bins at the ends
    assert len(inner) > 60 and max(inner) / min(inner) < 1.02


def test_the_examples_run():
    assert doctest.testmod(parts, extraglobs={"math": math}).failed == 0
    assert doctest.testmod(parity_page).failed == 0
