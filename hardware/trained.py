"""What a trained model says, and what its layers tell, in the terms of the network that was made of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet import EGRU, LIF, Events
from eventnet.hardware.calibrate import seen
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.quantize import layers_of, names_of
from eventnet.hardware.reading import Reading

__all__ = ["Told", "scores_of", "state_of", "told_by"]


class Told(NamedTuple):
    """A layer's spikes: ``raster (T, B, N)``, in the steps at which a chip without delay of its own would see them; the layer and
    the events that it heard, of a spiking one."""

    name: str
    raster: Tensor
    layer: LIF | EGRU
    heard: Events | None


@torch.no_grad()
def scores_of(model: Any, reading: Reading, events: Events) -> Tensor:
    """Scores of the trained model, read as its deployment is."""
    if gated_of(model) is not None:
        if not isinstance(model, list | tuple | torch.nn.Sequential):
            found: Tensor = model(events).scores
            return found
        parts: Any = model
        units, readout = parts
        training, output = units.training, None
        try:
            output, _ = units.eval()(events)
        finally:
            units.train(training)
        output = output.transpose(0, 1) if units.batch_first else output
        steps = events.num_steps(units.step)
        if reading.kind == "last":
            output = output[steps - 1, torch.arange(len(steps))]
        elif reading.kind == "step_mean":
            output = output.sum(0) / steps[:, None]
        else:
            output = output.transpose(0, 1)
        logits: Tensor = readout(output)
        return logits
    *hidden, last = layers_of(model)
    for layer in hidden:
        events = layer(events)
    out: Any = last(events)
    if reading.kind == "first_spike":
        times: Tensor = out.first_times()
        return times
    if reading.kind == "at":
        assert reading.step is not None
        last_step = round(events.duration.max().item() / reading.step)
        samples: Tensor = out.at(torch.arange(1, last_step + 1, dtype=events.dtype) * reading.step)
        return samples
    if reading.kind == "count":
        counts: Tensor = out.counts()
        return counts
    if reading.kind == "integral":
        area: Tensor = out.integral(reading.decay)
        return area
    read: Tensor = out.max() if reading.kind == "max" else out.mean()
    return read


@torch.no_grad()
def told_by(model: Any, events: Events, dt: float, steps: int) -> list[Told]:
    """What each layer tells that spikes, from the input side, in so many steps."""
    gated = gated_of(model)
    if gated is None:
        found = []
        layers = layers_of(model)
        for name, layer in zip(names_of(layers), layers, strict=True):
            if isinstance(layer, LIF):
                told = layer(events)
                found.append(Told(name, seen(told, dt, steps), layer, events))
                events = told
        return found
    x = events.to_dense(dt)
    x = x if gated.embedding is None else x @ gated.embedding.to(x.dtype).T
    x = x.to(next(gated.units.parameters()).dtype)
    training = gated.units.training
    try:
        _, _, done = gated.units.eval()(x.transpose(0, 1) if gated.units.batch_first else x, return_steps=True)
    finally:
        gated.units.train(training)
    rasters = [torch.nn.functional.pad((each.y != 0).float(), (0, 0, 0, 0, 0, steps - len(each.y))) for each in done]
    names = [f"hidden_{k}" for k in range(len(rasters))]
    return [Told(name, raster, gated.units, None) for name, raster in zip(names, rasters, strict=True)]


def state_of(model: Any) -> dict[str, Tensor]:
    """The parameters of a model, by name."""
    if isinstance(model, torch.nn.Module):
        return dict(model.state_dict())
    return {f"{k}.{name}": x for k, layer in enumerate(model) for name, x in layer.state_dict().items()}
