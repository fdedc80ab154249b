"""Initialisation that makes neurons fire: exact gradients need spikes to work with."""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet.events import Events
from eventnet.layers.lif import LIF


@torch.no_grad()
def normal_(weight: Tensor, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill ``weight`` with N(mean, std) in place."""
    return weight.normal_(mean, std, generator=generator)


@torch.no_grad()
def fire_fraction_(layer: LIF, events: Events, fraction: float = 0.5, *, tolerance: float = 0.02) -> float:
    """Scale ``layer.weight`` in place until about ``fraction`` of (sample, neuron) pairs fire on ``events``.

    A bisection on one common factor; the fraction grows with it as long as the weights' mean is not very negative.

    Args:
        layer: a ``LIF`` layer whose weights give the directions.
        events: a batch of typical input.
        fraction: wanted share of pairs with at least one spike, between 0 and 1.
        tolerance: stop when the share is this close.

    Returns:
        The share reached.

    Raises:
        ValueError: no factor up to 2^20 reaches the share (say, because most samples are empty).

    Example:
        >>> events = Events.from_latency(torch.rand(16, 20, generator=torch.manual_seed(0)), 0.0, 0.02, duration=0.05)
        >>> layer = LIF(20, 100)
        >>> abs(fire_fraction_(layer, events, 0.3) - 0.3) < 0.02
        True
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fire_fraction_: fraction must be between 0 and 1, got {fraction}")
    direction = layer.weight.clone()

    def share(factor: float) -> float:
        layer.weight.copy_(direction * factor)
        return (layer(events).counts() > 0).float().mean().item()

    low, high = 0.0, 1.0
    while (reached := share(high)) < fraction - tolerance:
        low, high = high, high * 2
        if high > 2**20:
            layer.weight.copy_(direction)
            raise ValueError(
                f"fire_fraction_: at most {reached:.3f} of the neurons fire on these events, {fraction} was asked for; "
                "are there samples without events, or weights that are all negative?"
            )
    for _ in range(40):
        if abs(reached - fraction) <= tolerance:
            break
        middle = (low + high) / 2
        reached = share(middle)
        low, high = (middle, high) if reached < fraction else (low, middle)
    return reached
