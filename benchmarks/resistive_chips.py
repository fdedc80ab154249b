"""Chips of random conductances as ideal reservoirs, and what is chosen of them on training samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from resistive_inputs import DECAY, STEPS, Task, times_of
from torch import Tensor

from eventnet import Events
from eventnet.hardware.resistive import (
    HFOX,
    Forming,
    Pair,
    Reservoir,
    RidgeReadout,
    seeded,
    spectral_radius,
    with_rate,
)

__all__ = ["CHOOSING", "Choice", "chosen", "fitted", "formed_pairs", "formed_reservoir"]

PENALTIES = tuple(10.0**k for k in range(-2, 6))
MEAN, STD = 20e-6, 5e-6  # siemens, of the cells that are formed
CHOOSING = 1000  # the chip that choices are made on


@dataclass(frozen=True)
class Choice:
    """What is chosen on training samples: spikes per second and neuron, spectral radius, share of formed cells."""

    rate: float = 15.0
    radius: float = 1.0
    formed: float = 0.5


def formed_pairs(inputs: int, units: int, seed: int, choice: Choice) -> tuple[Pair, Pair]:
    """Conductances ``(out, in)`` of the input and of the recurrent weights of a chip, the latter of that spectral radius."""
    generator, forming = seeded(seed), Forming(choice.formed, MEAN, STD)
    found = []
    for rows in (inputs, units):
        positive, negative = forming.draw((2, units, rows), generator).clamp(max=HFOX.g_max)
        found.append(Pair(positive, negative, 1 / HFOX.g_max))
    own = spectral_radius(found[1].weight())
    return found[0], replace(found[1], scale=found[1].scale * choice.radius / own)


def formed_reservoir(
    typical: Events, units: int, seed: int, choice: Choice, decay: float = DECAY, steps: int = STEPS
) -> Reservoir:
    """Ideal cells with these conductances, the threshold such that ``typical`` gives the chosen rate."""
    pairs = formed_pairs(typical.num_units, units, seed, choice)
    weight, recurrent = (pair.weight().t().contiguous() for pair in pairs)
    dt = typical.duration[0].item() / steps
    return with_rate(Reservoir(weight, recurrent, dt, decay, threshold=1.0, gain=1.0), typical, choice.rate)


def fitted(x: Tensor, y: Tensor) -> RidgeReadout:
    return RidgeReadout(PENALTIES, standardize=True).fit(x, y)


def chosen(task: Task, units: int) -> Choice:
    """By the squared error of the readout's leave-one-out on 500 training samples, on a chip of its own."""
    events, labels = task.train[0][:500], task.train[1][:500]
    errors = {}
    for rate, radius, formed in itertools.product(task.rates, (0.3, 1.0), (0.1, 0.5)):
        choice = Choice(rate, radius, formed)
        try:
            reservoir = formed_reservoir(events[::9], units, CHOOSING, choice, task.decay, task.steps)
        except ValueError:  # such a rate cannot be reached
            continue
        features = reservoir.features(events, times=times_of(events))
        errors[choice] = min(fitted(features, labels).errors)
    return min(errors, key=errors.__getitem__)
