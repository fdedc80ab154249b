"""What a trained model says, and which spikes its layers send, in the terms of the network that was made of it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.hardware.calibrate import as_raster
from eventnet.hardware.egru_quantize import Gated, evaluating, gated_of, gated_reading
from eventnet.hardware.quantize import chain_of, layers_of, names_of
from eventnet.hardware.reading import KINDS, OF_LAYERS, Reading, accepted
from eventnet.layers.egru_steps import within

__all__ = ["LayerSpikes", "fingerprint", "layer_spikes", "reading_of", "scores_of", "state_of"]


class LayerSpikes(NamedTuple):
    """A layer's spikes: ``raster (T, B, N)``, in the steps at which a chip without delay of its own would see them; the layer and
    the events that it heard, of a spiking one."""

    name: str
    raster: Tensor
    layer: LIF | EGRU
    heard: Events | None


def reading_of(model: Any, wanted: Reading | str | None = None) -> tuple[Reading, list[str]]:
    """How a model's outputs are read, in its own volts; and a line on what was assumed, where neither the caller nor the model
    says it.

    Example:
        >>> reading, assumed = reading_of([LIF(4, 3), LI(3, 2)])
        >>> reading.kind, assumed
        ('max', ["readout: largest voltage, assumed; reading='mean', 'integral' or 'at' says another"])
    """
    gated, recipe = gated_of(model), getattr(model, "recipe", None)
    assumed = wanted is None and recipe is None
    if gated is not None:
        kind, reading = "EGRU", gated_reading(gated, wanted)
    else:
        last = layers_of(model)[-1]
        kind = "LI" if isinstance(last, LI) else "LIF"
        if wanted is None and recipe is not None and hasattr(recipe, "readout_step"):
            wanted = Reading(recipe.readout, recipe.logit_scale, recipe.readout_decay, recipe.readout_step)
        wanted = OF_LAYERS[kind][0] if wanted is None else wanted
        reading = Reading(wanted) if isinstance(wanted, str) else wanted
        accepted(reading, kind)
        reading = dataclasses.replace(reading, of_steps=False)
    *others, final = [repr(other) for other in OF_LAYERS[kind] if other != reading.kind]
    or_so = f"{', '.join(others)} or {final}" if others else final
    line = f"readout: {KINDS[reading.kind]}, assumed; reading={or_so} says another"
    return reading, [line] if assumed else []


@torch.no_grad()
def scores_of(model: Any, reading: Reading, events: Events) -> Tensor:
    """Scores of the trained model, read as its deployment is, with nothing dropped.

    Raises:
        TypeError: another reading than its own of a network with ``direct`` or ``standardize``.
    """
    gated = gated_of(model)
    if gated is not None:
        if getattr(model, "recipe", None) is not None and reading.kind == gated.kind:
            with evaluating(model):
                scores: Tensor = model(events).scores
            return scores
        return _gated_scores(gated, reading, events)
    *hidden, last = layers_of(model)
    for layer in hidden:
        events = layer(events)
    out: Any = last(events)
    if reading.kind == "at":
        assert reading.step is not None
        last_step = round(events.duration.max().item() / reading.step)
        samples: Tensor = out.at(torch.arange(1, last_step + 1, dtype=events.dtype) * reading.step)
        return samples * reading.factor
    if reading.kind == "integral":
        area: Tensor = out.integral(reading.decay)
        return area * (reading.factor / (reading.decay or 1.0))
    method = {"first_spike": "first_times", "count": "counts"}.get(reading.kind, reading.kind)
    found: Tensor = getattr(out, method)()
    return found if reading.kind in ("first_spike", "count") else found * reading.factor


def _gated_scores(gated: Gated, reading: Reading, events: Events) -> Tensor:
    """Those of gated units and the weights behind them."""
    gated.check_whole()
    steps = events.num_steps(gated.step)
    if bool((steps < 1).any()):
        raise ValueError(f"sample {int(steps.argmin())} lasts 0 s; expected at least one step of it")
    output, _ = _run(gated, _dense(gated, events))
    output = output.transpose(0, 1) if gated.units.batch_first else output
    output = output * within(steps, len(output))[:, :, None]  # units go on after the end of a shorter sample
    if reading.kind == "last":
        output = output[steps - 1, torch.arange(len(steps))]
    elif reading.kind == "mean":
        output = output.sum(0) / steps[:, None]
    else:
        output = output.transpose(0, 1)
    return output @ gated.weight_out.T.to(output) + gated.bias_out.to(output)


def _dense(gated: Gated, events: Events) -> Tensor:
    """What the units get of events, step by step."""
    x = events.to_dense(gated.step)
    x = x if gated.embedding is None else x @ gated.embedding.to(x).T
    x = x.to(next(gated.units.parameters()).dtype)
    return x.transpose(0, 1) if gated.units.batch_first else x


def _run(gated: Gated, x: Tensor, **options: Any) -> Any:
    """The units on something, with nothing dropped."""
    with evaluating(gated.units):
        return gated.units(x, **options)


@torch.no_grad()
def layer_spikes(model: Any, events: Events, dt: float, steps: int) -> list[LayerSpikes]:
    """The spikes of each layer that has some, from the input side, in so many steps."""
    gated = gated_of(model)
    if gated is None:
        found = []
        layers = layers_of(model)
        for name, layer in zip(names_of(layers), layers, strict=True):
            if isinstance(layer, LIF):
                sent = layer(events)
                found.append(LayerSpikes(name, as_raster(sent, dt, steps), layer, events))
                events = sent
        return found
    _, _, done = _run(gated, _dense(gated, events), return_steps=True)
    rasters = [torch.nn.functional.pad((each.y != 0).float(), (0, 0, 0, 0, 0, steps - len(each.y))) for each in done]
    names = [f"hidden_{k}" for k in range(len(rasters))]
    return [LayerSpikes(name, raster, gated.units, None) for name, raster in zip(names, rasters, strict=True)]


def state_of(model: Any) -> dict[str, Tensor]:
    """The parameters of a model, by name; of a chain the same with and without dropout between its layers."""
    if isinstance(model, nn.Module) and not isinstance(model, nn.Sequential | nn.ModuleList):
        return {name: x for name, x in model.state_dict().items() if isinstance(x, Tensor)}
    found = ((k, layer.state_dict()) for k, layer in enumerate(chain_of(model) or ()))
    return {f"{k}.{name}": x for k, state in found for name, x in state.items() if isinstance(x, Tensor)}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and numbers."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
