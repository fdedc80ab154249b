"""Initialisation that makes neurons fire: exact gradients need spikes to work with."""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet import kernels
from eventnet.events import Events
from eventnet.layers.lif import LIF, as_layer, lif
from eventnet.layers.readout import LI


@torch.no_grad()
def normal_(weight: Tensor, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill ``weight`` with N(mean, std) in place."""
    return weight.normal_(mean, std, generator=generator)


@torch.no_grad()
def fire_fraction_(layer: LIF, events: Events, fraction: float = 0.5) -> float:
    """Scale ``layer.weight`` in place so that ``fraction`` of all (sample, neuron) pairs fire on ``events``.

    The layer's own spikes do not count: a recurrent layer is scaled as if it had no recurrent weights.
    A neuron fires when the voltage it would have without spiking, ``bias + factor X(t)``, reaches its threshold. X is
    linear in the weights, so the common factor is a quantile of ``(threshold - bias) / max X``: no search. With dendritic
    branches, where max X has no closed form, the factor is found by bisection: who fires grows with it.

    Args:
        layer: a ``LIF`` layer whose weights give the directions.
        events: a batch of typical input.
        fraction: wanted share of pairs with at least one spike, between 0 and 1.

    Returns:
        The share reached.

    Raises:
        TypeError: another layer, such as ``PlateauLIF``, where not the weights alone decide who fires.
        ValueError: no factor reaches the share (say, because most samples are empty).

    Example:
        >>> events = Events.from_latency(torch.rand(16, 20, generator=torch.manual_seed(0)), 0.0, 0.02, duration=0.05)
        >>> layer = LIF(20, 100)
        >>> abs(fire_fraction_(layer, events, 0.3) - 0.3) < 0.01
        True
    """
    if not isinstance(layer, LIF):
        raise TypeError(
            f"fire_fraction_: expected a LIF layer, got {type(layer).__name__}; of other spiking layers scale the weights by "
            "hand: in a PlateauLIF branches fire, then neurons, and diagnosing(layer) tells of both how many are silent"
        )
    if "weight" not in layer._parameters:
        raise ValueError(
            "fire_fraction_: the weight is pruned or parametrized; scale the layer before, or give it a mask instead"
        )
    if not 0 < fraction < 1:
        raise ValueError(f"fire_fraction_: fraction must be between 0 and 1, got {fraction}")
    if layer.branches is not None:
        return _by_bisection(layer, events, fraction)
    rise, gap = _highest(layer, events) - layer.bias, layer.threshold - layer.bias
    # how far each pair gets on its way to the threshold; a neuron without rest fires at any factor
    way = torch.where(gap > 0, rise / gap, torch.full_like(rise, torch.inf)).flatten().sort(descending=True).values
    wanted = max(round(fraction * way.numel()), 1)
    if way.numel() < wanted or way[wanted - 1] <= 0:
        able = (way > 0).double().mean().item() if way.numel() else 0.0
        raise ValueError(
            f"fire_fraction_: at most {able:.3f} of the neurons fire on these events, {fraction} was asked for; "
            "are there samples without events, or weights that are all negative?"
        )
    reach = way[wanted - 1]
    if torch.isfinite(reach):
        layer.weight.mul_((1 + 1e-4) / reach)
    return (way >= reach).double().mean().item()


def _by_bisection(layer: LIF, events: Events, fraction: float) -> float:
    """The same for a layer with branches, by running it: the smallest factor that reaches the share, to one in 2^20."""
    own = {name: value for name, value in layer.arguments().items() if not name.startswith("recurrent")}
    weight = own.pop("weight").clone()

    def share(factor: float) -> float:
        counts = lif(events, factor * weight, backend=layer.backend, **own).counts()
        return (counts > 0).double().mean().item() if counts.numel() else 0.0

    # from below, so that no run has more spikes than needed: from weights of a thousandth of a volt
    high = 1e-3 / max(float(weight.abs().max()), 1e-30)
    low, reached, alike = high / 2, share(high), 0
    for _ in range(40):
        if reached >= fraction or alike == 6:  # more would only make those that fire do nothing else
            break
        low, high = high, 2 * high
        before, reached = reached, share(high)
        alike = alike + 1 if reached == before > 0 else 0
    if reached < fraction:
        raise ValueError(
            f"fire_fraction_: at most {reached:.3f} of the neurons fire on these events, {fraction} was asked for; "
            "are there samples without events, or weights that are all negative?"
        )
    while high / low > 1 + 2**-20:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if share(middle) >= fraction else (middle, high)
    layer.weight.mul_(high)
    return share(high)


def _highest(layer: LIF, events: Events) -> Tensor:
    """Each neuron's highest voltage if it had no threshold, ``(B, out)``."""
    delay = getattr(layer, "delay", None)
    weight = as_layer(**layer.arguments()).synapses.weight
    if delay is None or delay.shape[1] == 1:
        late = events if delay is None else kernels.delayed(events, delay)
        return _driven(layer, weight, late, slice(None))
    columns = []  # each neuron hears its input in an order of its own
    for n in range(layer.out_features):
        late = kernels.delayed(events, delay[:, n : n + 1].expand(layer.in_features, 1))
        columns.append(_driven(layer, weight[:, n : n + 1], late, slice(n, n + 1)))
    return torch.cat(columns, 1)


def _driven(layer: LIF, weight: Tensor, events: Events, chosen: slice) -> Tensor:
    """The same of the ``chosen`` neurons, to which ``weight`` leads."""
    own = {name: getattr(layer, name) for name in ("tau_mem", "tau_syn", "bias")}
    own = {name: value[chosen] if value.dim() else value for name, value in own.items()}
    driven = LI(*weight.shape, **own, backend=layer.backend, dtype=weight.dtype).to(weight.device)
    driven.weight.copy_(weight)
    return driven(events).max()
