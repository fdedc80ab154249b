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
IDLE, SOFT = "#7A828C", "#59616C"
GROUND: dict[str, Any] = {
    "facecolor": "white",
    "alpha": 0.75,
    "edgecolor": "none",
    "pad": 1,
}  # so that words on a band can be read
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


def _write(
    axis: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float] = (0, 0),
    within: Any = "data",
    **style: Any,
) -> None:
    """Words at a place, some points away from it; a "$" in a name is no formula."""
    style = {"fontsize": 8.5, "color": INK, "va": "center", **style}
    axis.annotate(text, at, offset, xycoords=within, textcoords="offset points", parse_math=False, **style)


def _bar(axis: Axes, bounds: Bounds, y: float, height: float, colour: str, smallest: float) -> None:
    """A range as a bar with ends that are seen also where both bounds are the same."""
    low, high = max(bounds[0], smallest), max(bounds[1], smallest)
    axis.plot([low, high], [y, y], color=colour, linewidth=height, solid_capstyle="butt", alpha=0.55)
    axis.plot([low, high], [y, y], linestyle="none", marker="|", color=colour, markersize=height + 3, markeredgewidth=2)


# ---- devices ---------------------------------------------------------------------------------------------------------------


Row = tuple[str, Bounds, Bounds | None]


def energies(rows: Sequence[Row], beside: Sequence[Row] = ()) -> Figure:
    """Of each device its name, below it the dynamic energy and, on a line of its own, the idle energy.

    Args:
        rows: what it is called, dynamic and idle joules per sample; idle None where it is not known.
        beside: the rows of another picture, which is to have the same axis.
    """
    picture, axis = canvas(height=0.7 + 0.6 * len(rows))
    both = [*rows, *beside]
    every = [x for _, dynamic, idle in both for x in (*dynamic, *(idle or ())) if x > 0] or [1e-9, 1e-3]
    _logarithmic(axis, min(every), max(every), "J")
    for k, (name, dynamic, idle) in enumerate(rows):
        within = ("axes fraction", "data")
        _write(axis, short(name, 36), (0, k - 0.32), within=within, fontweight="bold")
        _range(axis, dynamic, k - 0.03, 6, BLUE, "#005C91", "")
        if idle is None:
            _write(axis, "idle: not known", (0, k + 0.25), within=within, color=SOFT)
        else:
            _range(axis, idle, k + 0.25, 3, IDLE, SOFT, " idle")
    axis.set_ylim(len(rows) - 0.5, -0.55)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color=GREY, linewidth=0.5, alpha=0.5)
    axis.set_axisbelow(True)
    axis.set_xlabel("energy per sample")
    return picture


def _range(axis: Axes, bounds: Bounds, y: float, height: float, colour: str, ink: str, what: str) -> None:
    """A bar and its bounds in words, on that side of it where there is more room."""
    first, last = axis.get_xlim()
    _bar(axis, bounds, y, height, colour, first)
    low, high = (max(x, first) for x in bounds)
    left = math.log10(low / first) > math.log10(last / high)
    at, gap, side = (low, -6, "right") if left else (high, 6, "left")
    _write(axis, f"{span(bounds)}{what}", (at, y), (gap, 0), ha=side, color=ink)


def pareto(points: Sequence[tuple[int, Bounds, Mapping[str, float]]], name: str) -> Figure:
    """Accuracy against dynamic energy on one device: a cross of both ranges for each network, named by its number."""
    picture, axis = canvas(height=3.0)
    every = [x for _, bounds, _ in points for x in bounds if x > 0]
    _logarithmic(axis, min(every), max(every), "J")
    smallest = axis.get_xlim()[0]
    sides = (((5, 8), "left"), ((-5, -8), "right"), ((-5, 8), "right"), ((5, -8), "left"))
    for k, bounds, found in points:
        colour = tuple(COLOURS.values())[(k - 1) % len(COLOURS)]
        offset, side = sides[(k - 1) % len(sides)]
        low, high = max(bounds[0], smallest), max(bounds[1], smallest)
        middle, share = math.sqrt(low * high), 100 * found["share"]
        axis.plot([low, high], [share, share], color=colour, linewidth=3, alpha=0.8, solid_capstyle="butt")
        axis.plot([middle, middle], [100 * found["low"], 100 * found["high"]], color=colour, linewidth=3, alpha=0.8)
        _write(axis, str(k), (middle, share), offset, ha=side, fontweight="bold")
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
    most = sum(high for _, high in total.values())
    parts = {name: each for name, each in layers.items() if sum(high for _, high in each.values()) > most / 100}
    rows = [("all layers", total), *((short(name), each) for name, each in parts.items())]
    picture, axis = canvas(height=1.1 + 0.25 * ((len(causes) + 1) // 2) + 0.44 * len(rows))
    for k, (_, each) in enumerate(rows):
        for bound, y in ((0, k - 0.2), (1, k + 0.2)):
            left = 0.0
            for name in causes:
                value = each.get(name, (0, 0))[bound]
                label = cause(name) if k == bound == 0 else None
                axis.barh(y, value, 0.34, left, color=COLOURS[name], edgecolor="white", linewidth=0.4, label=label)
                left += value
            _write(axis, ("low", "high")[bound], (left, y), (3, 0), fontsize=8)
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
    from matplotlib.ticker import NullLocator

    picture, axis = canvas(height=3.0)
    rates, own = found["rates_events_per_connection_and_step"], found["own_rate_events_per_connection_and_step"]
    gains = [[math.inf if x is None else x for x in pair] for pair in found["advantage"]]
    finite = [x for pair in gains for x in pair if 0 < x < math.inf] or [1.0]
    top = min(max(*finite, 1.0) * 3, 10.0**DECADES)
    bottom = max(min(*finite, 1.0) / 3, top / 10.0**DECADES)
    axis.set_xscale("log")
    axis.set_yscale("log")
    lows, highs = [min(max(x, bottom), top) for x, _ in gains], [min(x, top) for _, x in gains]
    axis.fill_between(rates, lows, highs, color=BLUE, alpha=0.35)
    axis.set_xlim(min(*rates, own), max(*rates, own))
    axis.set_ylim(bottom, top)
    axis.axhline(1, color=INK, linewidth=1)
    crossing = found.get("break_even_events_per_connection_and_step")
    if crossing:
        ends = [rates[-1] if x is None else min(max(x, rates[0]), rates[-1]) for x in crossing]
        axis.plot(ends, [1, 1], color=INK, linewidth=5, solid_capstyle="butt")
    for text, y, side in (("network costs less", 4, "bottom"), ("network costs more", -4, "top")):
        _write(axis, text, (axis.get_xlim()[0], 1), (4, y), va=side, fontsize=8, bbox=GROUND)
    _own_rate(axis, own)
    _thresholds(axis, found, own)
    for each in (axis.xaxis, axis.yaxis):
        each.set_minor_locator(NullLocator())
        each.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e−"))
    axis.set_xlabel("events per connection and step")
    axis.set_ylabel("advantage")
    return picture


def _own_rate(axis: Axes, own: float) -> None:
    axis.axvline(own, color=ORANGE, linewidth=2)
    low, high = (math.log10(x) for x in axis.get_xlim())
    left = math.log10(own) - low > (high - low) / 2
    gap, side = (-4, "right") if left else (4, "left")
    style: dict[str, Any] = {"color": "#A84300", "fontweight": "bold", "bbox": GROUND, "va": "bottom"}
    _write(axis, f"own rate {times([own])}", (own, axis.get_ylim()[0]), (gap, 4), ha=side, **style)


def _thresholds(axis: Axes, found: Mapping[str, Any], own: float) -> None:
    """Of each publication the rates below which events pay, all in events per connection and step; names above the axes."""
    places: dict[str, list[float]] = {}
    for each in found.get("thresholds", ()):
        if each["own"]:
            factor = own / each["own"]
            author = short(str(each["source"]).split(" ")[0])
            places.setdefault(author, []).extend((each["low"] * factor, each["high"] * factor))
    first, last = axis.get_xlim()
    for row, (author, some) in enumerate(places.items()):
        low, high = min(some), max(some)
        axis.axvspan(low, max(high, low * 1.03), color=("#3D444D", "#8C8467")[row % 2], alpha=0.28, linewidth=0)
        middle = min(max(math.sqrt(low * high), first * 4), last / 4)  # half a name from the edge at least
        told, within = f"{author} {times([low, high])}", ("data", "axes fraction")
        _write(axis, told, (middle, 1), (0, 3 + 10 * row), within, ha="center", va="bottom")


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
