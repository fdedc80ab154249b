"""Chips of random conductances as ideal reservoirs, and what is chosen of them on training samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from resistive_inputs import DECAY, STEPS, Task, times_of
from torch import Tensor

from eventnet import Events
from eventnet.hardware.resistive import Forming, Reservoir, RidgeReadout, with_rate

__all__ = ["CHOOSING", "Choice", "chosen", "fitted", "formed_reservoir"]

PENALTIES = tuple(10.0**k for k in range(-2, 6))
MEAN, STD = 20e-6, 5e-6  # siemens, of the cells that are formed
CHOOSING = 1000  # the chip that choices are made on


@dataclass(frozen=True)
class Choice:
    """What is chosen on training samples: spikes per second and neuron, spectral radius, share of formed cells."""

    rate: float = 15.0
    radius: float = 1.0
    formed: float = 0.5

    @property
    def cells(self) -> dict[str, Any]:
        """What ``Reservoir.formed`` and ``formed_pairs`` need to know of it."""
        return {"forming": Forming(self.formed, MEAN, STD), "radius": self.radius}


def formed_reservoir(
    typical: Events, units: int, seed: int, choice: Choice, decay: float = DECAY, steps: int = STEPS
) -> Reservoir:
    """Ideal cells with these conductances, the threshold such that ``typical`` gives the chosen rate."""
    dt = typical.duration[0].item() / steps
    made = Reservoir.formed(typical.num_units, units, seed, **choice.cells, dt=dt, decay=decay)
    return with_rate(made, typical, choice.rate)


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
