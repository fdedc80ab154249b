"""The check of a conversion: both networks run on the same input, and a report says how they differ.

The probe's events are at whole steps, so that both hear the same. A grid tells a spike of step n at n dt, at the start of the
step in which the voltage reaches the threshold: in the first layer a first spike is 0 to dt early. Each further layer adds as
much, and each reset its own error (``GridLayer.reset_error``); all of it is in proportion to dt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.interop.grid import GridLayer, Mapped, mapping
from eventnet.interop.steps import from_steps
from eventnet.kernels.reference import SpikeStorm
from eventnet.layers.lif import LIF, lif
from eventnet.layers.readout import LI

__all__ = ["LayerReport", "Report", "Trace", "probe_of", "report_on", "traces_of"]

BATCH, TAUS, MOST_STEPS = 4, 6.0, 4000  # of a probe that is drawn: samples, membrane time constants, steps
SAMPLES = 64  # of the voltage, in time
MOST_PER_STEP = 20  # spikes of a neuron here, on average


class Trace(NamedTuple):
    """What a layer of the grid did: its voltages ``(T, B, N)`` after each step, and its spikes, None if it has none."""

    voltage: Tensor
    spikes: Tensor | None


@dataclass(frozen=True)
class LayerReport:
    """How one layer was converted, and what both sides did on the probe.

    Args:
        name: of the layer's parts in the grid's model.
        mapping: what became of what.
        spikes: there and here; None for a readout.
        first_error: seconds between first spikes, at most.
        expected: seconds that it should not exceed: dt for this and each layer before (and the tau_syn of those that have none).
        error: seconds between the k-th spikes of a neuron there and here: median and most.
        unpaired: spikes without a k-th one on the other side.
        diverges: seconds at which the first pair is further apart than ``expected``, or the first spike unpaired; None: never.
        voltage_error: largest difference of voltages up to a neuron's first spike (of a readout: of all).
    """

    name: str
    mapping: tuple[Mapped, ...]
    spikes: tuple[int, int] | None
    first_error: float
    expected: float
    error: tuple[float, float]
    unpaired: int
    diverges: float | None
    voltage_error: float

    def __str__(self) -> str:
        widths = [max(len(getattr(line, side)) for line in self.mapping) for side in ("theirs", "ours")]
        lines = [f"  {m.theirs:{widths[0]}}  {m.ours:{widths[1]}}  {m.how}" for m in self.mapping]
        if self.spikes is None:
            return "\n".join([self.name, *lines, f"  voltages: at most {self.voltage_error:.2g} V apart"])
        there, here = self.spikes
        parts = [f"  spikes: {there:,} there, {here:,} here"]
        if there and here:
            parts[0] += (
                f"; first ones at most {_time(self.first_error)} apart (expected: up to {_time(self.expected)}), "
                f"all {_time(self.error[0])} in the median and {_time(self.error[1])} at most"
            )
        if self.unpaired:
            parts[0] += f", {self.unpaired:,} without a partner"
        if self.diverges is not None:
            parts.append(f"  first divergence, further apart than expected: at {_time(self.diverges)}")
        parts.append(f"  voltages before the first spike: at most {self.voltage_error:.2g} V apart")
        return "\n".join([self.name, *lines, *parts])


@dataclass(frozen=True)
class Report:
    """What a conversion did, and how both networks ran on the probe.

    Args:
        title: from what to what.
        dt: seconds of a step of the grid.
        probe: what they heard.
        layers: one for each layer with neurons.
        notes: what changed that no shorter step mends.
    """

    title: str
    dt: float
    probe: str
    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def same_counts(self) -> bool:
        """Whether all spiking layers have as many spikes there as here."""
        return all(layer.spikes is None or layer.spikes[0] == layer.spikes[1] for layer in self.layers)

    def __str__(self) -> str:
        head = f"{self.title}, dt={_time(self.dt)}; probe: {self.probe}"
        return "\n".join([head, *map(str, self.layers), *(f"note: {note}" for note in self.notes)])


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def probe_of(given: Events | Tensor | None, layers: Sequence[GridLayer]) -> Tensor:
    """The raster ``(T, B, N)`` that both networks hear: given, or drawn so that a unit fires about once per membrane time
    constant; float64."""
    dt, num_in = layers[0].dt, layers[0].weight.shape[0]
    expected = f"probe: expected Events of {num_in} units or a raster (T, B, {num_in}) with T and B >= 1, got "
    if given is None:
        tau = max(float(layer.tau_mem.max()) for layer in layers)
        steps = min(max(round(TAUS * tau / dt), 20), MOST_STEPS)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(steps, BATCH, num_in, generator=generator) < min(dt / tau, 0.5)
        return drawn.double()
    if not isinstance(given, Events | Tensor):
        raise TypeError(expected + type(given).__name__)
    raster = given.detach().to("cpu").to_dense(dt) if isinstance(given, Events) else given.detach().cpu()
    if raster.dim() != 3 or raster.numel() == 0 or raster.shape[2] != num_in:
        raise ValueError(f"{expected}{given if isinstance(given, Events) else tuple(raster.shape)}")
    return raster.double()


def traces_of(
    network: Sequence[nn.Module], raster: Tensor, dt: float, steps: Tensor
) -> list[tuple[Tensor, Events | None]]:
    """Voltages ``(K, B, N)`` at the end of ``steps`` ``(K,)``, and the spikes, of each layer of ours; in float64.

    Raises:
        SpikeStorm: recurrent excitation without bounds, which a grid has: a spike per step and neuron.
    """
    events = from_steps(raster, dt)
    found: list[tuple[Tensor, Events | None]] = []
    times = ((steps.double() + 1) * dt).clamp(max=events.duration.max().item())
    for layer in network:
        layer = copy.deepcopy(layer).double().cpu()
        with torch.no_grad():
            if isinstance(layer, LI):
                found.append((layer(events).at(times).transpose(0, 1), None))
            else:
                assert isinstance(layer, LIF)
                most = MOST_PER_STEP * len(raster) * events.batch_size * layer.out_features
                try:
                    events, voltage = lif(events, **layer.arguments(), return_voltage=True, max_spikes=most)
                except SpikeStorm:
                    raise SpikeStorm(
                        f"the probe makes more than {MOST_PER_STEP} spikes per step and neuron here, where a grid has one at "
                        "most: lower the weights, the recurrent ones above all, or pass a weaker probe=, such as your data"
                    ) from None
                found.append((voltage.at(times).transpose(0, 1), events))
    return found


def report_on(
    title: str,
    grids: Sequence[GridLayer],
    network: Sequence[LIF | LI],
    raster: Tensor,
    theirs: Sequence[Trace],
    notes: Sequence[str],
) -> Report:
    """Run our side and compare."""
    dt = grids[0].dt
    steps = torch.linspace(0, len(raster) - 1, min(SAMPLES, len(raster))).round().long().unique()
    layers, expected = [], 0.0
    for grid, layer, trace, (voltage, spikes) in zip(
        grids, network, theirs, traces_of(network, raster, dt, steps), strict=True
    ):
        expected += dt + (0.0 if grid.tau_syn is not None else float(layer.tau_syn.max()))
        layers.append(_compared(grid, layer, trace, voltage, spikes, steps, expected))
    events, (length, batch, _) = int(raster.count_nonzero()), raster.shape
    probe = f"{events:,} events in {batch} x {_time(length * dt)}"
    silent = [layer.name for layer in layers if layer.spikes is not None and not any(layer.spikes)]
    said = [f"{name}: no spikes on this probe, so they are not checked: pass one like your data" for name in silent]
    return Report(title, dt, probe, tuple(layers), (*notes, *said))


def _compared(
    grid: GridLayer,
    layer: LIF | LI,
    trace: Trace,
    voltage: Tensor,
    spikes: Events | None,
    steps: Tensor,
    expected: float,
) -> LayerReport:
    apart = (trace.voltage[steps] - voltage).abs()
    if trace.spikes is None or spikes is None:
        return LayerReport(
            grid.name, mapping(grid, layer), None, 0.0, expected, (0.0, 0.0), 0, None, float(apart.max())
        )
    there = Events.from_dense(trace.spikes, grid.dt)
    before = trace.spikes.cumsum(0)[steps] == 0
    before &= spikes.first_times()[None] > (steps.double()[:, None, None] + 1) * grid.dt
    ours, others, left = _paired(spikes, there)
    gaps = np.abs(ours[:, 0] - others[:, 0])
    first = gaps[ours[:, 1] == 0]
    late = np.concatenate([left, np.minimum(ours[:, 0], others[:, 0])[gaps > expected * (1 + 1e-9)]])
    return LayerReport(
        grid.name,
        mapping(grid, layer),
        (there.num_events, spikes.num_events),
        float(first.max(initial=0.0)),
        expected,
        (float(np.median(gaps)) if gaps.size else 0.0, float(gaps.max(initial=0.0))),
        len(left),
        float(late.min()) if late.size else None,
        float(apart[before].max()) if bool(before.any()) else 0.0,
    )


def _paired(a: Events, b: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time, k) of the k-th spikes of the same neuron on both sides, ``(P, 2)`` each, and the times of the rest."""
    (keys_a, rows_a), (keys_b, rows_b) = _numbered(a), _numbered(b)
    _, i, j = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    left = np.concatenate([np.delete(rows_a[:, 0], i), np.delete(rows_b[:, 0], j)])
    return rows_a[i], rows_b[j], left


def _numbered(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """A key for each spike from its sample, neuron and number k in their train; and (time, k)."""
    neuron = (events.samples * events.num_units + events.units).numpy()
    order = np.argsort(neuron, kind="stable")  # events are sorted by time
    neuron, times = neuron[order], events.times.double().numpy()[order]
    k = np.arange(len(neuron)) - np.searchsorted(neuron, neuron)
    return neuron * 2**32 + k, np.stack([times, k], 1)
