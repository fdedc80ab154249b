"""The scales of a network's populations, searched on a batch of its own data.

From the input side, each layer hears what the integer layers before it send, and its scale and threshold are those whose spikes
are nearest to the trained layer's: both filtered by ``e^(-t/tau)``, the squared distance relative to the trained layer's own.
The scale decides on the rounding and, above the full range, on what is clipped; the threshold makes up for what a grid loses (the
part of a step that is left after a spike). A readout gets the largest scale at which its voltage does not overflow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import LI, LIF, Events
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork, Inputs
from eventnet.hardware.quantize import (
    HEADROOM,
    Log,
    Scale,
    integers_of,
    largest_scale,
    layers_of,
    names_of,
    rasterize,
    within,
)

__all__ = ["calibrate"]

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 1.25, 1.6, 2.0)
THRESHOLDS = (1.0, 0.98, 0.96, 0.93, 0.9, 1.02, 1.05)


def calibrate(
    model: nn.Module | list[nn.Module], events: Events, dt: float, *, message_bits: int = 0, tau: float = 10e-3
) -> tuple[dict[str, Scale], dict[str, float]]:
    """Scales for ``quantize``, and how far each spiking population's spikes are then from the trained layer's (0: the same).

    Args:
        model: as of ``quantize``.
        events: a batch of typical input, not of the test set.
        dt: seconds of a step.
        message_bits: of the input, as of ``quantize``; its values are whole numbers here.
        tau: seconds of the filter that spikes are compared through.

    Example:
        >>> events = Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
        >>> scales, distance = calibrate([LIF(4, 3), LI(3, 2)], events, 1e-3)
        >>> sorted(scales), distance
        (['hidden_0', 'output'], {'hidden_0': 0.0})
    """
    scales: dict[str, Scale] = {}
    distances: dict[str, float] = {}
    layers, raster, source = layers_of(model), rasterize(events, dt), "input"
    alive = within(events.num_steps(dt), len(raster))
    for name, layer in zip(names_of(layers), layers, strict=True):
        bits, message_bits = message_bits, 0
        if isinstance(layer, LI):
            with torch.no_grad():
                grid = torch.arange(len(raster), dtype=events.dtype, device=events.device) * dt
                reach = HEADROOM * layer(events).at(grid).abs().amax((0, 1)).double().cpu()
            scales[name] = largest_scale(name, layer, dt, reach)
            break
        with torch.no_grad():
            sent = layer(events)
        goal = filtered(as_raster(sent, dt, len(raster)), dt, tau)

        def attempt(
            scale: Scale,
            name: str = name,
            layer: LIF = layer,
            source: str = source,
            raster: Tensor = raster,
            bits: int = bits,
        ) -> Tensor:
            neurons, synapses = integers_of(name, source, layer, dt, scale, bits, Log())
            network = HardwareNetwork([Inputs(source, layer.in_features), neurons], synapses, dt)
            return simulate(network, raster, record=()).spikes[name] * alive

        best = largest_scale(name, layer, dt)
        spikes = attempt(best)
        distance = van_rossum_distance(spikes, goal, dt, tau)
        full = best
        for field, factors in (("s", SCALES), ("threshold", THRESHOLDS)):
            for factor in factors[1:]:
                searched: dict[str, Any] = {field: (full.s if field == "s" else 1.0) * factor}
                other = dataclasses.replace(best, **searched)
                try:
                    found = attempt(other)
                except ValueError:  # a threshold beyond 17 bits
                    continue
                apart = van_rossum_distance(found, goal, dt, tau)
                if apart < distance:
                    best, spikes, distance = other, found, apart
        scales[name], distances[name] = best, distance
        events, raster, source = sent, spikes, name
    return scales, distances


def as_raster(events: Events, dt: float, steps: int) -> Tensor:
    """Spikes of a trained layer in the steps at whose end a chip would see them: ``(T, B, N)``."""
    step = (events.times.detach().double() / dt).ceil().to(torch.int64).clamp(max=steps - 1)
    raster = torch.zeros(steps, events.batch_size, events.num_units, device=events.device)
    where = (step, events.samples, events.units.to(torch.int64))
    return raster.index_put(where, torch.ones((), device=events.device).expand(len(step)), accumulate=True)


def filtered(raster: Tensor, dt: float, tau: float) -> Tensor:
    """``x[t] = e^(-dt/tau) x[t-1] + raster[t]``."""
    keep, x = float(torch.exp(torch.tensor(-dt / tau))), torch.zeros_like(raster[0], dtype=torch.float32)
    traces = torch.empty(raster.shape, device=raster.device)
    for k, spikes in enumerate(raster):
        x = x * keep + spikes
        traces[k] = x
    return traces


def van_rossum_distance(spikes: Tensor, goal: Tensor, dt: float, tau: float) -> float:
    """Squared distance of filtered spikes from a goal (filtered as well), relative to the goal's own square.

    van Rossum, "A novel spike distance" (Neural Computation 2001).
    """
    return float((filtered(spikes, dt, tau) - goal).square().sum() / goal.square().sum().clamp(min=1e-12))
