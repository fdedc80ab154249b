"""Where the spikes of an exported network part from those of the trained layers: counts, lag, distance, the first difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from eventnet import LIF, Events
from eventnet.hardware.calibrate import filtered, van_rossum_distance
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import Record
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.quantize import within
from eventnet.hardware.trained import LayerSpikes, layer_spikes

__all__ = ["chip_voltage", "chosen", "compare_spikes", "earlier"]

SAMPLES = 16  # whose spikes are compared
LAGS = range(-2, 5)  # a gated layer is a hop later than its trained one
TAU = 10e-3  # seconds of the filter that spikes are compared through
AROUND = 40  # steps of a voltage that are shown before and after a difference

Voltage = Callable[[str], Tensor | None]
"""By a layer's name its voltages ``(T, B, N)`` before the reset of those that spiked, 0 at the reset and 1 at the threshold; None
of neurons that have none."""


def chosen(events: Events) -> Events:
    """The samples whose spikes are compared, evenly from all."""
    return events[torch.linspace(0, events.batch_size - 1, min(SAMPLES, events.batch_size)).long()]


def chip_voltage(network: HardwareNetwork, record: Record) -> Voltage:
    """The voltages of LIF neurons on a chip."""

    def voltage(name: str) -> Tensor | None:
        neurons = network[name]
        if not isinstance(neurons, LIFNeurons):
            return None
        v = record.v[name]
        before = torch.where(record.spikes[name] != 0, neurons.before_reset(record.u[name], v), v)
        return before / (neurons.vth << 6).double().to(v.device)

    return voltage


@torch.no_grad()
def compare_spikes(
    model: Any, events: Events, dt: float, spikes: Mapping[str, Tensor], voltage: Voltage
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each spiking layer: spikes, lag, distance and the first difference; and the first sample's spikes, for a picture.

    Args:
        model: the trained network.
        events: samples.
        dt: seconds of a step.
        spikes: of the exported network, ``(T, B, N)`` by the names of its layers: those of step t happened up to time t dt.
        voltage: of the exported network.
    """
    found: dict[str, Any] = {}
    pictures: dict[str, Any] = {"rasters": {}, "dt": dt}
    for layer in layer_spikes(model, events, dt, len(next(iter(spikes.values())))):
        name, trained, fired = layer.name, layer.raster, spikes[layer.name] != 0
        lag = _lag(trained, fired)
        chip = (fired & within(events.num_steps(dt) + lag, len(trained))).float()
        aligned, level = earlier(chip, lag), voltage(name)
        first = _divergence(trained, aligned, None if level is None else earlier(level, lag))
        found[name] = {
            "spikes_trained": float(trained.sum()) / events.batch_size,
            "spikes_chip": float(chip.sum()) / events.batch_size,
            "lag_steps": lag,
            "distance": van_rossum_distance(aligned, filtered(trained, dt, TAU), dt, TAU),
            "first_divergence": first,
        }
        pictures["rasters"][name] = {
            "size": trained.shape[2],
            "duration": float(events.duration[0]),
            "trained": _first_sample(layer, dt),
            "chip": tuple(x.tolist() for x in chip[:, 0].nonzero(as_tuple=True)),
        }
        if first is not None and level is not None and "trace" not in pictures:
            pictures["trace"] = _trace(layer, dt, torch.where(fired, 0.0, level), first)
    return found, pictures


def _lag(trained: Tensor, fired: Tensor) -> int:
    """The steps by which most of the spikes are late."""
    overlap = {lag: float((trained * earlier(fired, lag)).sum()) for lag in LAGS}
    return max(overlap, key=lambda k: (overlap[k], -abs(k)))


def _first_sample(layer: LayerSpikes, dt: float) -> tuple[list[float], list[int]]:
    """Times in seconds and units of the first sample's spikes, exact where the layer has them so."""
    if isinstance(layer.layer, LIF) and layer.heard is not None:
        exact = layer.layer(layer.heard[:1])
        return exact.times.tolist(), exact.units.tolist()
    step, unit = layer.raster[:, 0].nonzero(as_tuple=True)
    return (step * dt).tolist(), unit.tolist()


def earlier(raster: Tensor, steps: int) -> Tensor:
    """The same some steps earlier (later if negative); what leaves at one end does not come in at the other."""
    moved = torch.zeros_like(raster)
    kept = len(raster) - abs(steps)
    if steps >= 0:
        moved[:kept] = raster[steps:]
    else:
        moved[-steps:] = raster[:kept]
    return moved


def _divergence(trained: Tensor, chip: Tensor, voltage: Tensor | None) -> dict[str, Any] | None:
    """The first step with a spike in one that has none in the other, a step more or less, and how far above its threshold the
    exported neuron's ``voltage`` was; None if each spike has its like."""
    near = {
        "trained": sum(earlier(trained, k) for k in (-1, 0, 1)),
        "chip": sum(earlier(chip, k) for k in (-1, 0, 1)),
    }
    different = ((trained > 0) & (near["chip"] == 0)) | ((chip > 0) & (near["trained"] == 0))
    if not bool(different.any()):
        return None
    step, sample, neuron = (int(k) for k in different.nonzero()[0])
    return {
        "step": step,
        "sample": sample,
        "neuron": neuron,
        "fired_on": "chip" if bool(chip[step, sample, neuron]) else "trained",
        "chip_above_threshold": None if voltage is None else float(voltage[step, sample, neuron]) - 1,
    }


def _trace(layer: LayerSpikes, dt: float, level: Tensor, where: Mapping[str, Any]) -> dict[str, Any]:
    """Both voltages around a step, 0 at the reset and 1 at the threshold; ``level`` is the exported one's after a reset; times in
    seconds."""
    neurons, heard = layer.layer, layer.heard
    assert isinstance(neurons, LIF) and heard is not None
    sample, neuron = where["sample"], where["neuron"]
    first, last = max(0, where["step"] - AROUND), min(len(level), where["step"] + AROUND)
    times = torch.arange(first, last) * dt
    found = {"name": layer.name, **where, "times": times.tolist(), "chip": level[first:last, sample, neuron].tolist()}
    if not bool(
        torch.as_tensor(neurons.arguments().get("refractory", 0.0)).any()
    ):  # of the others the layer has no voltage
        _, voltage = neurons(heard[sample : sample + 1], return_voltage=True)
        reset, threshold = (x.expand(neurons.out_features)[neuron] for x in (neurons.reset, neurons.threshold))
        found["trained"] = ((voltage.at(times)[0, :, neuron] - reset) / (threshold - reset)).tolist()
    return found
