"""The pictures of a parity report: accuracy, spikes, voltages and weights of the trained network and the exported one.

Each is as wide as a phone; names that a user gave stand in the page's captions, but for those of the stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eventnet.hardware.page import BLUE, GREY, INK, ORANGE, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "STAGES", "accuracy", "histogram", "raster", "trace"]

COLOURS = {"trained": BLUE, "chip": ORANGE}
STAGES: Mapping[str, str] = {"trained": "trained (float)", "chip": "fixed-point simulation"}
BINS = 40
MANY = 20_000  # spikes: more are pixels, a path of so many would be megabytes


def accuracy(stages: Mapping[str, Mapping[str, float]], names: Mapping[str, str] = STAGES) -> Figure:
    """One line a stage, the first on top; not from zero, as dots have no length that could mislead."""
    picture, axis = canvas(height=0.9 + 0.42 * len(stages))
    for k, (name, x) in enumerate(stages.items()):
        colour = COLOURS.get(name, INK)
        axis.plot([100 * x["low"], 100 * x["high"]], [k, k], color=colour, alpha=0.3, linewidth=7)
        axis.plot(100 * x["share"], k, "o", color=colour, markersize=7)
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "color": INK}
        axis.annotate(f"{100 * x['share']:.1f}", (100 * x["share"], k), xytext=(0, 6), **style)
    # A "$" in a name is no formula.
    axis.set_yticks(range(len(stages)), [names.get(name, name) for name in stages], parse_math=False)
    axis.set_ylim(len(stages) - 0.5, -0.7)
    axis.margins(x=0.08)
    axis.set_xlabel("accuracy (%)")
    return picture


def raster(spikes: tuple[Sequence[float], Sequence[int]], colour: str, end: float, top: int) -> Figure:
    """Spikes (times in seconds, units), all as one path of short strokes: a mark for each would take ten times as much."""
    from matplotlib.ticker import MaxNLocator

    picture, axis = canvas()
    times, units = spikes
    half = max(0.4, 0.006 * top)  # of a stroke, in units: never too short to be seen
    gap = math.nan
    x = [value for t in times for value in (1e3 * t, 1e3 * t, gap)]
    y = [value for n in units for value in (n - half, n + half, gap)]
    axis.plot(x, y, color=colour, linewidth=1.2, solid_capstyle="butt", rasterized=len(times) > MANY)
    axis.set_xlim(-10 * end, 1010 * end)  # ms, with a hundredth on each side
    axis.set_ylim(-0.5 - half, top + 0.5 + half)
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axis.set_xlabel("time (ms)")
    axis.set_ylabel("neuron")
    return picture


def trace(found: Mapping[str, Any], step: float | None, names: Mapping[str, str] = STAGES) -> Figure:
    """Voltages as shares of the threshold around the step where they part; ``trained`` may be missing."""
    picture, axis = canvas(height=2.8)
    times = [1e3 * t for t in found["times"]]
    dashes = (
        (0, (5, 2)) if "trained" in found else "-"
    )  # where both are the same, the trained one's is seen between them
    for name, style in (("trained", "-"), ("chip", dashes)):
        if name in found:
            axis.plot(times, found[name], color=COLOURS[name], linewidth=1.6, linestyle=style, label=names[name])
    axis.axhline(1, color=GREY, linewidth=1, zorder=0)
    if step:
        axis.axvline(1e3 * step * found["step"], color=INK, linewidth=0.8, linestyle=(0, (1, 2)), label="they part")
    axis.set_xlabel("time (ms)")
    axis.set_ylabel("voltage / threshold")
    axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9, labelcolor=INK, borderpad=0
    )
    return picture


def histogram(before: Tensor, after: Tensor) -> Figure:
    """Edges lie between the levels of the integers, equally many in each bin: otherwise the rounding itself would make a comb."""
    picture, axis = canvas()
    both = torch.cat([before, after, torch.zeros(1, dtype=before.dtype)])
    low, high = float(both.min()), float(both.max())
    gaps = after.unique().diff()
    level = float(gaps.min()) if len(gaps) else (high - low) / BINS or 1.0
    width = level * max(1, math.ceil((high - low) / (BINS * level)))
    first, last = math.floor(low / width), math.ceil(high / width)
    edges = [k * width - level / 2 for k in range(first, last + 2)]
    axis.hist(after.numpy(), edges, histtype="stepfilled", alpha=0.45, color=COLOURS["chip"], label="after")
    axis.hist(before.numpy(), edges, histtype="step", linewidth=1.6, color=COLOURS["trained"], label="before")
    axis.set_xlabel("weight (V)")
    axis.set_ylabel("synapses")
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    return picture
