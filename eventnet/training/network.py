"""What every network of a recipe has, whatever it is made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from eventnet import EGRUSteps, Events
from eventnet.training.errors import DataError
from eventnet.training.meter import Meter
from eventnet.training.recipe import Recipe

__all__ = ["Heard", "Network", "Outcome"]


class Heard(NamedTuple):
    """What a layer heard: so many inputs in so many positions, the steps of all samples; what its units did; and the weights that
    an input meets, and that a step needs besides."""

    positions: int
    inputs: int
    not_zero: int  # of all inputs in all positions
    hidden: int
    steps: EGRUSteps | None  # None for dense units
    met: float
    own: float


class Outcome(NamedTuple):
    """What a network says about a batch.

    ``scores``: ``(B, classes)`` logits, per step ``(B, K, classes)``, or the first spike times for the readout ``first_spike``;
    of forecasts the numbers themselves, ``(B, K, outputs)``.
    ``spikes``: of each spiking layer, from the input side; the output layer last if it spikes. ``heard``: by each gated layer.
    ``active``: of each layer without time, in how many samples each unit was active. ``contexts``: the task that each sample was
    taken for, ``(B,)``, where it is not told.
    """

    scores: Tensor
    spikes: tuple[Events, ...] = ()
    heard: tuple[Heard, ...] = ()
    active: tuple[Tensor, ...] = ()
    contexts: Tensor | None = None


class Network(nn.Module):
    """The network of a recipe, for data with ``num_units`` units and ``num_classes`` classes, or numbers to forecast."""

    recipe: Recipe
    remedy = ""  # what a silent layer means, and what helps

    def __init__(self, recipe: Recipe, num_units: int, num_classes: int) -> None:
        super().__init__()
        self.recipe, self.num_units, self.num_classes = recipe, num_units, num_classes

    def calibrate_(self, events: Events) -> None:
        """Fit the initial parameters to a batch of typical input, if the recipe asks for it."""

    def penalty(self, outcome: Outcome, progress: float) -> Tensor | None:
        """What the activity adds to the loss, after this share of the training; None for nothing."""
        return None

    def after_step_(self, spikes: tuple[Events, ...]) -> None:
        """What is left to do after a step of the optimiser; ``spikes`` are those of the batch."""

    def step_size(self, name: str) -> float:
        """Adam's step for the parameter of this name."""
        return self.recipe.learning_rate

    def forecast(self, events: Events, known: Tensor) -> Tensor:
        """Outputs ``(B, K, outputs)`` of each step; after the first ``known`` steps ``(B,)`` the inputs are these outputs.

        Raises:
            DataError: the network does not go step by step.
        """
        raise DataError(
            f"{self.recipe.name}: a forecast is for networks that go step by step; expected a gated recipe with readout=each"
        )

    def seen(self, dataset: Any) -> Any:
        """The part of a data set that the network can be asked about: of tasks those it has seen, of others all."""
        return dataset

    def meter(self) -> Meter:
        """What adds up the activity of an epoch."""
        raise NotImplementedError
