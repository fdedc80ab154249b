"""What a spiking layer did in a call, as numbers: for logs, and to see why a gradient is what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.kernels.reference_lif import Layer, Run
from eventnet.layers.branches import PlateauLIF
from eventnet.layers.lif import LIF, Watcher

__all__ = ["Diagnosis", "diagnose", "diagnosing"]


@dataclass(frozen=True)
class Diagnosis:
    """Facts about one call of a layer.

    Args:
        events, spikes: that came in and went out.
        silent_share: of all (sample, neuron) pairs, those without a spike: they have no gradient.
        smallest_slope: of the voltage as it crosses the threshold, in volts per second; infinite without spikes. A spike's
            gradient is in proportion to 1 / slope: see ``slopes`` for all.
        floored: spikes whose slope is below the layer's ``slope_floor``: their gradients are limited.
        slopes: of every spike, in the order of the spikes.
        saved_bytes: what the backward pass needs beyond its inputs.

    Example:
        >>> layer = LIF(1, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, 9.0)
        >>> found = diagnose(layer, Events.from_list([([0.0], [0])], num_units=1, duration=0.1))
        >>> found.events, found.spikes, found.silent_share, bool(found.smallest_slope > 0)
        (1, 1, 0.0, True)
    """

    events: int
    spikes: int
    silent_share: float
    smallest_slope: float
    floored: int
    slopes: Tensor
    saved_bytes: int


@torch.no_grad()
def diagnose(layer: LIF | PlateauLIF, events: Events) -> Diagnosis:
    """Run ``layer`` on ``events``, without gradient, and say what happened; ``diagnosing`` tells of a run that is made anyway.

    The slope at a spike is ``(bias - threshold + I) / tau_mem`` with the current I just then. EventProp divides by it: a spike
    that barely reaches the threshold has an exact but huge gradient, and one step of the optimiser may delete the spike. Of a
    ``PlateauLIF`` it tells of the neurons, ``diagnosing`` of the branches too.
    """
    if not isinstance(layer, LIF | PlateauLIF):
        raise TypeError(
            f"diagnose: expected a LIF or PlateauLIF layer, got {type(layer).__name__}; diagnosing(module) tells of all "
            "layers in it"
        )
    with diagnosing(layer) as found:
        layer(events)
    return found[""]


@contextmanager
def diagnosing(module: nn.Module) -> Iterator[dict[str, Diagnosis]]:
    """Within it, what the ``LIF`` layers in ``module`` do, by their names in ``module.named_modules()``; of each its last call.

    A layer's own name is "". Of a ``PlateauLIF`` "name" is what its neurons do and "name.branches" what its branches do, each
    of them counted as a neuron. Outside of it nothing is computed.

    Example:
        >>> model = nn.Sequential(LIF(3, 8), LIF(8, 2))
        >>> with diagnosing(model) as found:
        ...     _ = model(Events.from_list([([0.0], [0])], num_units=3, duration=0.1))
        >>> list(found), found["0"].events
        (['0', '1'], 1)
    """
    found: dict[str, Diagnosis] = {}

    def watcher(name: str) -> Watcher:
        def watch(events: Events, layer: Layer, run: Run) -> None:
            found[name] = _diagnosis(events, layer, run)

        return watch

    watched = []
    for name, part in module.named_modules():
        if isinstance(part, LIF | PlateauLIF):
            watched.append((part, "watchers", watcher(name)))
        if isinstance(part, PlateauLIF):
            watched.append((part, "branch_watchers", watcher(f"{name}.branches".lstrip("."))))
    for part, watchers, watch in watched:
        setattr(part, watchers, (*getattr(part, watchers), watch))
    try:
        yield found
    finally:
        for part, watchers, watch in watched:
            setattr(part, watchers, tuple(other for other in getattr(part, watchers) if other is not watch))


@torch.no_grad()
def _diagnosis(events: Events, layer: Layer, run: Run) -> Diagnosis:
    num = layer.synapses.weight.shape[-1]
    neuron = layer.neuron.to(torch.float64).expand(num)
    n = run.units.to(torch.int64)
    slopes = (run.currents.double() - (neuron.threshold - neuron.bias)[n]) / neuron.tau_mem[n]
    pairs = events.batch_size * num
    sample = torch.repeat_interleave(torch.arange(events.batch_size, device=n.device), run.offsets.diff())
    fired = torch.zeros(pairs, dtype=torch.bool, device=n.device).index_fill(0, sample * num + n, True)
    return Diagnosis(
        events=events.num_events,
        spikes=n.numel(),
        silent_share=1 - int(fired.sum()) / pairs if pairs else 0.0,
        smallest_slope=slopes.min().item() if slopes.numel() else float("inf"),
        floored=int((slopes < layer.slope_floor).sum()),
        slopes=slopes,
        # of a spike its exact time and its unit; one current, or two of which the run shows the first
        saved_bytes=n.numel() * (8 + 4) + run.currents.untyped_storage().nbytes() + 8 * run.offsets.numel(),
    )
