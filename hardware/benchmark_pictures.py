"""The pictures of a benchmark's page: energies as ranges, break-even, where the energy goes, activity, delays.

Each is as wide as a phone. Energies and rates that span decades have logarithmic axes; a range is a bar, never a point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eventnet.hardware.benchmark_words import CAUSES, cause, device, short, span, times
from eventnet.hardware.page import BLUE, GREY, INK, ORANGE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["activity", "break_even", "energies", "learnt", "pareto", "where"]

# Okabe and Ito's, as of eventnet.plots; apart from each other for colour-blind eyes too.
COLOURS = dict(zip(CAUSES, (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), strict=True))
IDLE = "#7A828C"
SMALL: dict[str, Any] = {"fontsize": 8.5, "color": INK, "parse_math": False}  # a "$" in a name is no formula
DECADES = 8  # of a break-even's advantage, at most
Bounds = Sequence[float]


def _logarithmic(axis: Axes, low: float, high: float, unit: str) -> None:
    """A logarithmic x-axis with SI prefixes, and few enough labels."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = 10 ** math.floor(math.log10(low) - 0.05), 10 ** math.ceil(math.log10(high) + 0.05)
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(LogLocator(numticks=6))
    axis.xaxis.set_major_formatter(EngFormatter(unit=unit, sep=" "))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _bar(axis: Axes, bounds: Bounds, y: float, height: float, colour: str, smallest: float) -> None:
    """A range as a bar with ends that are seen also where both bounds are the same."""
    low, high = max(bounds[0], smallest), max(bounds[1], smallest)
    axis.plot([low, high], [y, y], color=colour, linewidth=height, solid_capstyle="butt", alpha=0.55)
    axis.plot([low, high], [y, y], linestyle="none", marker="|", color=colour, markersize=height + 3, markeredgewidth=2)


# ---- devices ---------------------------------------------------------------------------------------------------------------


def energies(rows: Sequence[tuple[str, Bounds, Bounds | None]]) -> Figure:
    """Of each device a line of words, below it the dynamic energy and, on a line of its own, the idle energy.

    Args:
        rows: what it is called, dynamic and idle joules per sample; idle None where it is not known.
    """
    picture, axis = canvas(height=0.7 + 0.55 * len(rows))
    every = [x for _, dynamic, idle in rows for x in (*dynamic, *(idle or ())) if x > 0] or [1e-9, 1e-3]
    _logarithmic(axis, min(every), max(every), "J")
    smallest = axis.get_xlim()[0]
    for k, (name, dynamic, idle) in enumerate(rows):
        _bar(axis, dynamic, k + 0.12, 6, BLUE, smallest)
        axis.annotate(name, (0, k - 0.18), xycoords=("axes fraction", "data"), **SMALL, fontweight="bold", va="center")
        told = f"{span(dynamic)} dynamic"
        style = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center", "fontsize": 8.5}
        axis.annotate(told, (1, k - 0.18), color=BLUE, **style)
        if idle is not None:
            _bar(axis, idle, k + 0.36, 3, IDLE, smallest)
    axis.set_ylim(len(rows) - 0.4, -0.5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color=GREY, linewidth=0.5, alpha=0.5)
    axis.set_axisbelow(True)
    axis.set_xlabel("energy per sample; thin grey: idle")
    return picture


def pareto(points: Sequence[tuple[str, Bounds, Mapping[str, float]]], name: str) -> Figure:
    """Accuracy against dynamic energy on one device: a cross of both ranges for each network, named by its number."""
    picture, axis = canvas(height=3.0)
    every = [x for _, bounds, _ in points for x in bounds if x > 0]
    _logarithmic(axis, min(every), max(every), "J")
    smallest = axis.get_xlim()[0]
    for k, (label, bounds, found) in enumerate(points):
        colour = tuple(COLOURS.values())[k % len(COLOURS)]
        low, high = max(bounds[0], smallest), max(bounds[1], smallest)
        middle, share = math.sqrt(low * high), 100 * found["share"]
        axis.plot([low, high], [share, share], color=colour, linewidth=3, alpha=0.8, solid_capstyle="butt")
        axis.plot([middle, middle], [100 * found["low"], 100 * found["high"]], color=colour, linewidth=3, alpha=0.8)
        axis.annotate(label, (middle, share), xytext=(5, 5), textcoords="offset points", **SMALL, fontweight="bold")
    axis.margins(y=0.12)
    axis.grid(color=GREY, linewidth=0.5, alpha=0.4)
    axis.set_axisbelow(True)
    axis.set_xlabel(f"dynamic energy per sample, {device(name)}", parse_math=False)
    axis.set_ylabel("accuracy (%)")
    return picture


def where(layers: Mapping[str, Mapping[str, Bounds]]) -> Figure:
    """The dynamic energy of each layer and of all, by cause: bars of the low bounds and of the high bounds."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    causes = [name for name in COLOURS if any(each.get(name, (0, 0))[1] for each in layers.values())]
    total = {name: [sum(each.get(name, (0, 0))[k] for each in layers.values()) for k in (0, 1)] for name in causes}
    rows = [("all layers", total), *((short(name), each) for name, each in layers.items())]
    picture, axis = canvas(height=1.1 + 0.25 * ((len(causes) + 1) // 2) + 0.44 * len(rows))
    for k, (_, each) in enumerate(rows):
        for bound, y in ((0, k - 0.2), (1, k + 0.2)):
            left = 0.0
            for name in causes:
                value = each.get(name, (0, 0))[bound]
                label = cause(name) if k == bound == 0 else None
                axis.barh(y, value, 0.34, left, color=COLOURS[name], edgecolor="white", linewidth=0.4, label=label)
                left += value
            end = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
            axis.annotate(("low", "high")[bound], (left, y), **end)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    axis.set_ylim(len(rows) - 0.45, -0.55)
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(EngFormatter(unit="J", sep=" "))
    axis.set_xlabel("dynamic energy per sample")
    picture.legend(
        loc="outside upper left", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1, borderpad=0
    )
    return picture


# ---- break-even ------------------------------------------------------------------------------------------------------------


def break_even(found: Mapping[str, Any]) -> Figure:
    """The advantage over a baseline as a band over the event rate; where it is 1; the own rate; the published thresholds."""
    picture, axis = canvas(height=3.0)
    rates, own = found["rates_events_per_connection_and_step"], found["own_rate_events_per_connection_and_step"]
    gains = [(low, math.inf if high is None else high) for low, high in found["advantage"]]
    finite = [x for pair in gains for x in pair if 0 < x < math.inf] or [1.0]
    top = min(max(*finite, 1.0) * 3, 10.0**DECADES)
    bottom = max(min(*finite, 1.0) / 3, top / 10.0**DECADES)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.fill_between(rates, [max(x, bottom) for x, _ in gains], [min(x, top) for _, x in gains], color=BLUE, alpha=0.35)
    axis.set_xlim(min(*rates, own), max(*rates, own))
    axis.set_ylim(bottom, top)
    axis.axhline(1, color=INK, linewidth=1)
    crossing = found.get("break_even_events_per_connection_and_step")
    if crossing:
        ends = [rates[0] if not x else rates[-1] if x is None or x > rates[-1] else max(x, rates[0]) for x in crossing]
        axis.plot(ends, [1, 1], color=INK, linewidth=5, solid_capstyle="butt")
    for text, y, va in (("network costs less", 4, "bottom"), ("network costs more", -4, "top")):
        style: dict[str, Any] = {"xytext": (4, y), "textcoords": "offset points", "fontsize": 8, "color": INK, "va": va}
        axis.annotate(text, (axis.get_xlim()[0], 1), bbox=_ground(), **style)
    _own_rate(axis, own)
    _thresholds(axis, found, own)
    axis.set_xlabel("events per connection and step")
    axis.set_ylabel("advantage")
    return picture


def _ground() -> dict[str, Any]:
    """So that words can be read on what they stand on."""
    return {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}


def _own_rate(axis: Axes, own: float) -> None:
    axis.axvline(own, color=ORANGE, linewidth=2)
    low, high = (math.log10(x) for x in axis.get_xlim())
    left = math.log10(own) - low > (high - low) / 2
    place = {"xytext": (-4 if left else 4, 4), "textcoords": "offset points", "ha": "right" if left else "left"}
    at = (own, axis.get_ylim()[0])
    told = f"own rate {times([own])}"
    axis.annotate(told, at, **place, fontsize=8.5, color="#A84300", fontweight="bold", bbox=_ground())


def _thresholds(axis: Axes, found: Mapping[str, Any], own: float) -> None:
    """Of each publication the rates below which events pay, all in events per connection and step; names above the axes."""
    places: dict[str, list[float]] = {}
    for each in found.get("thresholds", ()):
        if each["own"]:
            factor = own / each["own"]
            author = str(each["source"]).split(" ")[0]
            places.setdefault(author, []).extend((each["low"] * factor, each["high"] * factor))
    first, last = axis.get_xlim()
    for row, (author, some) in enumerate(places.items()):
        low, high = min(some), max(some)
        axis.axvspan(low, max(high, low * 1.03), color=("#3D444D", "#8C8467")[row % 2], alpha=0.28, linewidth=0)
        middle = min(max(math.sqrt(low * high), first * 4), last / 4)  # within the picture, and half a name from its edge
        style: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        axis.annotate(f"{author} {times([low, high])}", (middle, 1), xytext=(0, 3 + 10 * row), **style, **SMALL)


# ---- activity --------------------------------------------------------------------------------------------------------------


def activity(found: Mapping[str, Any], colour: str = BLUE) -> Figure:
    """Spikes per neuron and second over time, averaged over the samples."""
    picture, axis = canvas(height=1.9)
    rates, width = found["rate_hz"], 1e3 * found["bin_s"]
    axis.stairs(rates, [k * width for k in range(len(rates) + 1)], color=colour, fill=True, alpha=0.4)
    axis.stairs(rates, [k * width for k in range(len(rates) + 1)], color=colour, linewidth=1.4)
    axis.set_xlim(0, width * len(rates))
    axis.set_ylim(0, max([*rates, 1e-9]) * 1.08)
    axis.set_xlabel("time (ms)")
    axis.set_ylabel("spikes per\nneuron and s")
    return picture


def learnt(seconds: Sequence[float]) -> Figure:
    """How many synapses or neurons have which delay or time constant."""
    picture, axis = canvas(height=1.9)
    axis.hist([1e3 * x for x in seconds], bins=min(40, max(8, len(seconds) // 8)), color=BLUE, alpha=0.75)
    axis.set_xlabel("ms")
    axis.set_ylabel("values")
    return picture
