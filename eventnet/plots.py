"""Pictures of training and activity. Functions return a matplotlib ``Figure``; ``save`` writes it whole or
not at all.

matplotlib is imported when a function is called, and only its object interface: no window, no global state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eventnet.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Activity", "accuracy_by_task", "activity", "firing_rates", "forecast", "learning_curve", "pareto", "save"]

# Okabe and Ito: apart from each other for colour-blind eyes too.
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#B8BCC2", "#22272E"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
DASHES = (0, (4, 3))
MS = 1e3


@dataclass(frozen=True)
class Activity:
    """What a network does with one sample.

    Args:
        inputs: the sample, a batch of one.
        hidden: the spikes of each hidden layer, batches of one.
        times, voltage: ``(K,)`` seconds and ``(K, classes)`` volts of the readout.
        output: spikes of the readout if it spikes.
        threshold: of the readout if it spikes, volts.
        label, predicted: class numbers; None where there is one per step.
        scale: of the readout's axis; events, units: what those of the hidden layers are called.
    """

    inputs: Events
    hidden: Sequence[Events]
    times: Tensor
    voltage: Tensor
    output: Events | None = None
    threshold: float | None = None
    label: int | None = None
    predicted: int | None = None
    scale: str = "voltage (V)"
    events: str = "spikes"
    units: str = "neurons"


def learning_curve(
    history: Sequence[Mapping[str, float]],
    *,
    best_epoch: int | None = None,
    test_accuracy: float | None = None,
) -> Figure:
    """Loss, accuracy and activity over the epochs.

    Args:
        history: rows with epoch, train_loss, validation_loss, train_accuracy, validation_accuracy and
            train_spikes_per_neuron or train_activity, as in a run's ``metrics.csv``; of forecasts without the accuracies.
        best_epoch: marked by a line; test_accuracy: marked there.
    """
    classes = "train_accuracy" in history[0]
    figure, axes = _figure(1, 3 if classes else 2, width=11 if classes else 7.6, height=3.4)
    loss, accuracy, spikes = axes[0, 0], axes[0, 1], axes[0, -1]
    epochs = [row["epoch"] for row in history]
    style: dict[str, Any] = {"linewidth": 1.8, "marker": "o" if len(epochs) < 10 else None, "markersize": 4}
    for name, colour, label in (("train", BLUE, "training"), ("validation", ORANGE, "validation")):
        loss.plot(epochs, [row[f"{name}_loss"] for row in history], color=colour, label=label, **style)
        if classes:
            percent = [row[f"{name}_accuracy"] * 100 for row in history]
            accuracy.plot(epochs, percent, color=colour, label=label, **style)
    active = "train_activity" in history[0]
    activity = [100 * row["train_activity"] if active else row["train_spikes_per_neuron"] for row in history]
    spikes.plot(epochs, activity, color=BLUE, **style)
    spikes.set_ylim(0, 1.1 * max(activity) or 1.0)
    _log_scale_if_wide(loss, [row[f"{part}_loss"] for row in history for part in ("train", "validation")])
    last = "Hidden units active in a step (%)" if active else "Spikes per hidden neuron and sample"
    titles = ("Loss", "Accuracy (%)", last) if classes else ("Loss", last)
    for axis, title in zip(axes[0], titles, strict=True):
        _title(axis, title)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if best_epoch is not None:
            axis.axvline(best_epoch, color=GREY, linewidth=1, linestyle=DASHES, zorder=0)
    if best_epoch is not None:
        if classes and test_accuracy is not None:
            label = f"test {test_accuracy:.1%}"
            accuracy.plot(best_epoch, test_accuracy * 100, "D", color=GREEN, markersize=6, zorder=5, label=label)
        late = best_epoch > (epochs[0] + epochs[-1]) / 2
        spikes.annotate(
            f"best validation: epoch {best_epoch}",
            (best_epoch, 0.06),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(-5 if late else 5, 0),
            ha="right" if late else "left",
            color=INK,
            fontsize=9,
        )
    for axis in axes[0, :-1]:
        _legend(axis)
    return figure


def accuracy_by_task(history: Sequence[Mapping[str, float]], *, epochs: int) -> Figure:
    """Validation accuracy of each task over the epochs, from when it was begun, and the mean of those begun.

    Args:
        history: rows with epoch, validation_accuracy and, of the tasks begun, validation_accuracy_of_task_1 and so on.
        epochs: of each task; the tasks come one after the other.
    """
    from matplotlib import colormaps

    figure, axes = _figure(1, 1, width=9.0, height=4.2)
    axis = axes[0, 0]
    tasks = -(-int(history[-1]["epoch"]) // epochs)
    style: dict[str, Any] = {"marker": "o", "markevery": [0]}  # a task may have one epoch to be seen in

    def line(name: str, **options: Any) -> Any:
        there = [row for row in history if name in row]
        return axis.plot([row["epoch"] for row in there], [100 * row[name] for row in there], **style, **options)[0]

    for k in range(tasks):
        colour, begins = colormaps["viridis"](0.85 * k / max(tasks - 1, 1)), k * epochs + 0.5
        line(f"validation_accuracy_of_task_{k + 1}", color=colour, linewidth=1.2, markersize=4)
        axis.axvline(begins, color=GREY, linewidth=1, linestyle=DASHES, zorder=0)
        if k % -(-tasks // 12) == 0:
            number = str(k + 1) if k else "task 1"
            axis.text(begins, 1.01, number, transform=axis.get_xaxis_transform(), color=colour, fontsize=9)
    ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "zorder": 3}
    mean = line("validation_accuracy", color=ORANGE, linewidth=2.8, label="mean of the tasks so far", **ring)
    _title(axis, "Validation accuracy of each task (%)", pad=18)
    axis.set_xlabel("epoch")
    axis.set_xlim(0.5, float(history[-1]["epoch"]) + 0.5)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    _legend(axis, handles=[mean], loc="lower left")
    return figure


def forecast(actual: Tensor, own: Tensor, *, known: int, title: str = "") -> Figure:
    """A series and its forecast, and how far apart they are, over the steps.

    Args:
        actual, own: ``(K,)``; of the network's outputs the first ``known`` are each one step ahead of what it was given, the
            others follow from its own.
    """
    figure, axes = _figure(2, 1, width=10, height=4.6, heights=[2.0, 1.0])
    values, errors = axes[0, 0], axes[1, 0]
    steps = range(1, len(actual) + 1)
    values.plot(steps, actual.tolist(), color=GREY, linewidth=2.4, label="series")
    values.plot(steps, own.tolist(), color=BLUE, linewidth=1.2, label="forecast")
    errors.plot(steps, (own - actual).abs().clamp(min=1e-7).tolist(), color=ORANGE, linewidth=1.2)
    errors.set_yscale("log")
    errors.set_xlabel("step")
    for axis in (values, errors):
        axis.axvline(known, color=INK, linewidth=1, linestyle=DASHES, zorder=0)
    _title(values, title or f"Forecast from step {known} on, by the network's own outputs")
    _title(errors, "Absolute error")
    _legend(values, loc="lower left")
    return figure


def activity(before: Activity, after: Activity, *, title: str = "") -> Figure:
    """Rasters of input and hidden layers and the readout's voltage of one sample, before and after training."""
    layers = len(after.hidden)
    heights = [1.3, *[2.0] * layers, 2.2]
    figure, axes = _figure(layers + 2, 2, width=10, height=1.0 + 1.35 * sum(heights) / 1.5, heights=heights)
    span = float(after.inputs.duration[0]) * MS
    for column, (one, name) in enumerate(((before, "before training"), (after, "after training"))):
        _raster(axes[0, column], one.inputs, INK, f"input, {one.inputs.num_events} events")
        axes[0, column].annotate(
            name + _verdict(one),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 22),
            textcoords="offset points",
            fontsize=12,
            weight="bold",
            color=INK,
        )
        for k, layer in enumerate(one.hidden):
            fired = int(layer.units.unique().numel())
            which = f"hidden layer{f' {k + 1}' if layers > 1 else ''}"
            text = f"{which}, {layer.num_events} {one.events} from {fired} of {layer.num_units} {one.units}"
            _raster(axes[1 + k, column], layer, BLUE, text)
        _voltage(axes[-1, column], one)
        axes[-1, column].set_xlabel("time (ms)")
    low, high = (f([axis.get_ylim()[k] for axis in axes[-1]]) for k, f in ((0, min), (1, max)))
    for axis in axes[-1]:
        axis.set_ylim(low, high)
    for axis in axes.flat:
        axis.set_xlim(-0.01 * span, span * 1.01)
    for axis in axes[:-1].flat:
        axis.tick_params(labelbottom=False)
    for axis in axes[:, 1]:  # as on the left
        axis.tick_params(labelleft=False)
    axes[0, 0].set_ylabel("unit")
    for k in range(layers):
        axes[1 + k, 0].set_ylabel(after.units.removesuffix("s"))
    axes[-1, 0].set_ylabel(after.scale)
    figure.align_ylabels(axes[:, 0])
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK)
    return figure


def firing_rates(
    rates: Sequence[Sequence[float]],
    *,
    before: Sequence[Sequence[float]] | None = None,
    scale: str = "mean firing rate (Hz)",
    units: str = "neurons",
) -> Figure:
    """Histogram of the units' mean rates of events, one panel per layer.

    Args:
        rates: Hz, per layer and neuron; before: the same before training, as an outline.
        scale, units: what they are called.
    """
    figure, axes = _figure(1, len(rates), width=max(6.0, 5.0 * len(rates)), height=3.4)
    for k, layer in enumerate(rates):
        axis = axes[0, k]
        values = torch.as_tensor(layer, dtype=torch.float64)
        old = None if before is None else torch.as_tensor(before[k], dtype=torch.float64)
        highest = max(float(values.max()), float(old.max()) if old is not None else 0.0, 1e-9)
        edges = torch.linspace(0, highest, 31).tolist()
        if old is not None:
            axis.hist(old.tolist(), edges, histtype="step", color=ORANGE, linewidth=1.6, label="before training")
        axis.hist(values.tolist(), edges, color=BLUE, alpha=0.85, label="after training", rwidth=0.9)
        silent = int((values == 0).sum())
        name = "Hidden layer" + (f" {k + 1}" if len(rates) > 1 else "")
        measure = scale.partition("(")[2].rstrip(")")
        _title(axis, f"{name}: {values.mean():.1f} {measure} on average, {silent} of {len(values)} silent")
        axis.set_xlabel(scale)
        axis.set_ylabel(units)
        _legend(axis, loc="upper right")
    return figure


def pareto(points: Mapping[str, Sequence[tuple[float, float]]], *, cost: str, score: str, title: str = "") -> Figure:
    """Points of cost and score, kind by kind, and the front of those that none beats in both.

    Args:
        points: (cost > 0, score between 0 and 1) of each network, by kind.
        cost, score: what they are, for the axes.
    """
    figure, axes = _figure(1, 1, width=9.0, height=4.6)
    axis = axes[0, 0]
    markers = "osD^vP"
    for k, (kind, some) in enumerate(points.items()):
        if some:
            x, y = zip(*some, strict=True)
            style = {"color": PALETTE[k % len(PALETTE)], "marker": markers[k % len(markers)], "edgecolors": "white"}
            axis.scatter(x, [100 * value for value in y], s=48, linewidths=0.6, zorder=3, label=kind, **style)
    front = front_of([point for some in points.values() for point in some])
    axis.plot(
        [x for x, _ in front],
        [100 * y for _, y in front],
        color=GREY,
        linewidth=1.4,
        drawstyle="steps-post",
        zorder=1,
        label="front",
    )
    axis.set_xscale("log")
    axis.set_xlabel(cost)
    axis.set_ylabel(f"{score} (%)")
    _title(axis, title or "Costs and scores; nothing lies beyond the front")
    _legend(axis, loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the points, none of which it may hide
    return figure


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points (cost, score) than which no other one costs less and scores more, by cost.

    Example:
        >>> front_of([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9)])
        [(1.0, 0.5), (3.0, 0.9)]
    """
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a PNG, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


# ---- inside -----------------------------------------------------------------------------------------------


def _figure(
    rows: int, columns: int, *, width: float, height: float, heights: Sequence[float] | None = None
) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=INK, labelsize=9, color=GREY)
        axis.xaxis.label.set_color(INK)
        axis.yaxis.label.set_color(INK)
    return figure, axes


def _title(axis: Axes, text: str, **options: Any) -> None:
    axis.set_title(text, loc="left", fontsize=10.5, color=INK, **options)


def _legend(axis: Axes, **options: Any) -> None:
    """On a white ground, so that a line behind it does not run through its words."""
    axis.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=9, labelcolor=INK, **options)


def _log_scale_if_wide(axis: Axes, values: Sequence[float]) -> None:
    """Plain numbers at the ticks, three a decade if there are few decades."""
    from matplotlib.ticker import LogLocator

    ratio = max(values) / min(values) if min(values) > 0 else 0.0
    if ratio > 3:
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 300 else (1,)))
        axis.yaxis.set_major_formatter("{x:g}")


def _raster(axis: Axes, events: Events, colour: str, title: str) -> None:
    """Dots, smaller where there are many."""
    size = max(1.0, min(9.0, 3000 / max(events.num_events, 1)))
    axis.scatter((events.times.detach() * MS).tolist(), events.units.tolist(), s=size, color=colour, linewidths=0)
    axis.set_ylim(-0.5 - 0.01 * events.num_units, events.num_units * 1.01 - 0.5)
    _title(axis, title)


def _voltage(axis: Axes, one: Activity) -> None:
    """The label's output in colour, the strongest other one named too, the rest in grey."""
    times = (one.times.detach() * MS).tolist()
    voltage = one.voltage.detach()
    classes = voltage.shape[1]
    coloured = dict(zip(range(classes), PALETTE, strict=False))
    if one.label is not None:
        coloured = {one.label: GREEN}
        if one.predicted is not None and one.predicted not in (one.label, -1):
            coloured[one.predicted] = ORANGE
    for n in sorted(range(classes), key=lambda n: n in coloured):
        axis.plot(
            times,
            voltage[:, n].tolist(),
            color=coloured.get(n, GREY),
            linewidth=2.0 if n in coloured else 0.9,
            zorder=3 if n in coloured else 2,
            label=None if n not in coloured else str(n) if len(coloured) > 2 else f"class {n}",
        )
    if one.output is not None:
        top = one.threshold if one.threshold is not None else float(voltage.max())
        for time, unit in zip((one.output.times.detach() * MS).tolist(), one.output.units.tolist(), strict=True):
            axis.plot(time, top * 1.08, "v", color=coloured.get(unit, GREY), markersize=6, zorder=4, clip_on=False)
    if one.threshold is not None:
        axis.axhline(one.threshold, color=GREY, linewidth=0.8, linestyle=DASHES, zorder=1)
    _title(axis, "readout")
    if len(coloured) < classes:
        axis.plot([], [], color=GREY, linewidth=0.9, label="others")
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
    _legend(axis, ncols=7, handlelength=1.0, columnspacing=1.1, **above)


def _verdict(one: Activity) -> str:
    if one.predicted is None:
        return ""
    said = f": predicts {one.predicted}" if one.predicted >= 0 else ": all outputs silent"
    if one.label is None:
        return said
    return said + (" (right)" if one.label == one.predicted else f" (wrong: it is {one.label})")
