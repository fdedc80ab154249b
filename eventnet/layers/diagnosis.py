"""What a spiking layer did in a call, as numbers: for logs, and to see why a gradient is what it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events
from eventnet.layers.lif import LIF, MAX_SPIKES, as_layer

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """Facts about one call of a layer.

    Args:
        events, spikes: that came in and went out.
        silent_share: of all (sample, neuron) pairs, those without a spike: they have no gradient.
        smallest_slope: of the voltage as it crosses the threshold, in volts per second; infinite without spikes. A spike's
            gradient is in proportion to 1 / slope: see ``slopes`` for all.
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
    slopes: Tensor
    saved_bytes: int


@torch.no_grad()
def diagnose(layer: LIF, events: Events) -> Diagnosis:
    """Run ``layer`` on ``events``, without gradient, and say what happened.

    The slope at a spike is ``(bias - threshold + I) / tau_mem`` with the current I just then. EventProp divides by it: a spike
    that barely reaches the threshold has an exact but huge gradient, and one step of the optimiser may delete the spike.
    """
    own = as_layer(**layer.arguments())
    kernels.check_layer_input("diagnose", events, own.synapses.weight)
    run = kernels.lif(events, own, layer.backend, MAX_SPIKES)
    neuron = own.neuron.to(torch.float64).expand(layer.out_features)
    n = run.units.to(torch.int64)
    slopes = (run.currents.double() - (neuron.threshold - neuron.bias)[n]) / neuron.tau_mem[n]
    pairs = events.batch_size * layer.out_features
    sample = torch.repeat_interleave(torch.arange(events.batch_size, device=n.device), run.offsets.diff())
    fired = torch.unique(sample * layer.out_features + n).numel()
    return Diagnosis(
        events=events.num_events,
        spikes=n.numel(),
        silent_share=1 - fired / pairs if pairs else 0.0,
        smallest_slope=slopes.min().item() if slopes.numel() else float("inf"),
        slopes=slopes,
        # of a spike its exact time, its unit, and one current or two
        saved_bytes=n.numel() * (8 + 4 + 8 * (2 if kernels.each_has_its_own(own) else 1)) + 8 * run.offsets.numel(),
    )
