"""Where the spikes of a chip part from those of the trained layers: counts, lag, distance, the first difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eventnet import LIF, Events
from eventnet.hardware.calibrate import far, filtered
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import Record
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.quantize import within
from eventnet.hardware.trained import Told, told_by

__all__ = ["compare_spikes", "earlier"]

LAGS = range(-2, 5)  # a gated layer hears and tells through a hop more than its trained one
FAR = 10e-3  # seconds of the filter that spikes are compared through
HOPS = 1  # steps after a sample's end in which a chip still tells what it heard before
AROUND = 40  # steps of a voltage that are shown before and after a difference


@torch.no_grad()
def compare_spikes(
    network: HardwareNetwork, model: Any, events: Events, record: Record
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each spiking layer: spikes, lag, distance and the first difference; and the first sample's spikes, for a picture."""
    dt, found = network.dt, {}
    pictures: dict[str, Any] = {"rasters": {}, "dt": dt}
    for told in told_by(model, events, dt, len(next(iter(record.spikes.values())))):
        name, trained = told.name, told.raster
        chip = ((record.spikes[name] != 0) & within(events.num_steps(dt) + HOPS, len(trained))).float()
        overlap = {lag: float((trained * earlier(chip, lag)).sum()) for lag in LAGS}
        lag = max(overlap, key=lambda k: (overlap[k], -abs(k)))
        aligned = earlier(chip, lag)
        neurons = network[name]
        above = earlier(_above(neurons, record), lag) if isinstance(neurons, LIFNeurons) else None
        first = _divergence(trained, aligned, above)
        found[name] = {
            "spikes_trained": float(trained.sum()) / events.batch_size,
            "spikes_chip": float(chip.sum()) / events.batch_size,
            "lag_steps": lag,
            "distance": far(aligned, filtered(trained, dt, FAR), dt, FAR),
            "first_divergence": first,
        }
        pictures["rasters"][name] = {
            "size": trained.shape[2],
            "duration": float(events.duration[0]),
            "trained": _first_sample(told, dt),
            "chip": tuple(x.tolist() for x in chip[:, 0].nonzero(as_tuple=True)),
        }
        if first is not None and "trace" not in pictures and isinstance(told.layer, LIF):
            pictures["trace"] = _trace(network, told, record, first)
    return found, pictures


def _first_sample(told: Told, dt: float) -> tuple[list[float], list[int]]:
    """Times in seconds and units of the first sample's spikes, exact where the layer has them so."""
    if isinstance(told.layer, LIF) and told.heard is not None:
        exact = told.layer(told.heard[:1])
        return exact.times.tolist(), exact.units.tolist()
    step, unit = told.raster[:, 0].nonzero(as_tuple=True)
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


def _divergence(trained: Tensor, chip: Tensor, above: Tensor | None) -> dict[str, Any] | None:
    """The first step with a spike in one that has none in the other, a step more or less, and how far ``above`` its threshold the
    chip's neuron was; None if each spike has its like."""
    near = {
        "trained": sum(earlier(trained, k) for k in (-1, 0, 1)),
        "chip": sum(earlier(chip, k) for k in (-1, 0, 1)),
    }
    different = ((trained > 0) & (near["chip"] == 0)) | ((chip > 0) & (near["trained"] == 0))
    if not bool(different.any()):
        return None
    step, sample, neuron = (int(k) for k in different.nonzero()[0])
    margin = None if above is None else float(above[step, sample, neuron])
    return {
        "step": step,
        "sample": sample,
        "neuron": neuron,
        "fired_on": "chip" if bool(chip[step, sample, neuron]) else "trained",
        "chip_above_threshold": margin,
    }


def _above(neurons: LIFNeurons, record: Record) -> Tensor:
    """How far v was above its threshold before a reset, as a share of the threshold: ``(T, B, N)``."""
    v = record.v[neurons.name]
    return neurons.before_reset(record.u[neurons.name], v) / (neurons.vth << 6).double().to(v.device) - 1


def _trace(network: HardwareNetwork, told: Told, record: Record, where: Mapping[str, Any]) -> dict[str, Any]:
    """Both voltages, as shares of the threshold, around a step; times in seconds."""
    dt, name, layer = network.dt, told.name, told.layer
    neurons = network[name]
    assert isinstance(neurons, LIFNeurons) and isinstance(layer, LIF) and told.heard is not None
    sample, neuron = where["sample"], where["neuron"]
    first, last = max(0, where["step"] - AROUND), min(len(record.v[name]), where["step"] + AROUND)
    times = torch.arange(first, last) * dt
    chip = record.v[name][first:last, sample, neuron] / (neurons.vth[neuron] << 6)
    found = {"name": name, **where, "times": times.tolist(), "chip": chip.tolist()}
    if bool((neurons.refractory == 0).all()):  # of the others the layer has no voltage
        _, voltage = layer(told.heard[sample : sample + 1], return_voltage=True)
        reset, threshold = (x.expand(layer.out_features)[neuron] for x in (layer.reset, layer.threshold))
        found["trained"] = ((voltage.at(times)[0, :, neuron] - reset) / (threshold - reset)).tolist()
    return found
