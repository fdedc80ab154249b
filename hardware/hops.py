"""Paths of unequal length: each projection takes a step, so what skips a population arrives earlier than what passes it.

In continuous time both arrive together. A graph that stands for such a network needs a compensating delay on the shorter path:

    delay += depth(target) - depth(source) - 1,    depth = projections on the longest path from the inputs

Projections within a loop (those whose target leads back to their source) are not on such a path: what they add is a step of
their own. A chain needs no delay, nor does what ``compile`` makes of one.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from eventnet.hardware.network import MAX_DELAY, Convolution, HardwareNetwork, Projection

__all__ = ["check_hops", "compensated", "depths"]


def depths(network: HardwareNetwork) -> dict[str, int]:
    """Projections on the longest path from the inputs to each population; one that nothing reaches has 0."""
    found = {each.name: 0 for each in network.populations}
    for _ in network.populations:  # as many rounds as the longest path can have projections
        for each in _forward(network):
            found[each.target] = max(found[each.target], found[each.source] + 1)
    return found


def check_hops(network: HardwareNetwork) -> None:
    """An error if a path skips a population that another one passes, without a delay that makes up for it.

    A delay of at least the steps that are missing is taken as the compensation: what lies above is the model's own. Synapses of
    weight 0 do not count.

    Raises:
        ValueError: names the projection and the delay that it lacks.
    """
    for each, missing in _skips(network):
        if _shortest(each) < missing:
            populations, steps = ("population", "step") if missing == 1 else ("populations", "steps")
            raise ValueError(
                f"{each.name}: skips {missing} {populations}, so that its spikes arrive {missing} {steps} early; "
                "compensated(network) adds that delay"
            )


def _shortest(projection: Projection) -> float:
    """The shortest delay of a synapse whose weight is not 0; infinite if there is none."""
    there, delay = projection.weight != 0, getattr(projection, "delay", None)
    if not bool(there.any()):
        return math.inf
    return 0 if delay is None else int(delay.expand(there.shape)[there].min())


def compensated(network: HardwareNetwork) -> HardwareNetwork:
    """The network with a delay on each projection that skips populations: all paths from the inputs take as many steps.

    Delays that are there already are the model's own and stay on top.

    Raises:
        ValueError: a delay would exceed what a synapse holds, or the projection is a convolution, which has none.

    Example:
        >>> from eventnet.hardware.lif import LIFNeurons
        >>> from eventnet.hardware.network import Dense, Inputs
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 1), LIFNeurons("a", 1, vth=10), LIFNeurons("b", 2, vth=10)],
        ...     [Dense("input", "a", [[100]]), Dense("a", "b", [[100, 2]]), Dense("input", "b", [[4, 100]])],
        ...     dt=1e-3,
        ... )
        >>> compensated(network).projections[2].delay
        tensor([[1, 1]], dtype=torch.int32)
    """
    missing = {id(each): steps for each, steps in _skips(network)}
    return network.changed(projections=[_delayed(each, missing.get(id(each), 0)) for each in network.projections])


def _delayed(projection: Projection, steps: int) -> Projection:
    if not steps:
        return projection
    if isinstance(projection, Convolution):
        raise ValueError(
            f"{projection.name}: a convolution has no delays to make up for {steps} skipped populations; put as many "
            "populations that pass the spikes on in its way"
        )
    own = getattr(projection, "delay", None)
    delay = steps + (torch.zeros_like(projection.weight) if own is None else own)
    if int(delay.max()) > MAX_DELAY:
        raise ValueError(
            f"{projection.name}: {steps} skipped populations and its own delays make {int(delay.max())} steps, "
            f"expected at most {MAX_DELAY}"
        )
    return dataclasses.replace(projection, delay=delay)  # type: ignore[call-arg]


def _skips(network: HardwareNetwork) -> list[tuple[Projection, int]]:
    """Projections that skip populations, and how many."""
    depth = depths(network)
    lengths = [(each, depth[each.target] - depth[each.source] - 1) for each in _forward(network)]
    return [(each, steps) for each, steps in lengths if steps > 0]


def _forward(network: HardwareNetwork) -> list[Projection]:
    """The projections that are in no loop."""
    return [each for each in network.projections if each.source not in _reached(network, each.target)]


def _reached(network: HardwareNetwork, start: str) -> set[str]:
    """A population and all that its spikes can lead to."""
    found, new = {start}, {start}
    while new:
        new = {each.target for each in network.projections if each.source in new} - found
        found |= new
    return found
