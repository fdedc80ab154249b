"""What a recipe minimises, and how scores become predictions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eventnet import losses
from eventnet.training.errors import DataError
from eventnet.training.network import Outcome
from eventnet.training.recipe import Recipe, SpikingRecipe

__all__ = ["loss", "predict"]


def loss(recipe: Recipe, outcome: Outcome, labels: Tensor) -> Tensor:
    """Mean loss of the classification, without penalties. Labels ``(B,)``, or ``(B, K)`` per step; -100 is left out."""
    scores = outcome.scores
    if scores.shape[:-1] != labels.shape:
        per_step = " (readouts 'at' and 'each' need a label per step, the others one per sample)"
        raise DataError(
            f"expected labels of shape {tuple(scores.shape[:-1])} for the readout {recipe.readout!r}, "
            f"got {tuple(labels.shape)}{per_step}"
        )
    if isinstance(recipe, SpikingRecipe) and recipe.readout == "first_spike":
        return losses.first_spike_cross_entropy(
            scores,
            labels,
            tau=recipe.first_spike_tau,
            late_weight=recipe.late_weight,
            late_tau=recipe.late_tau,
        )
    return F.cross_entropy(scores.flatten(0, -2), labels.flatten())


def predict(recipe: Recipe, scores: Tensor) -> Tensor:
    """The class of each sample (or step); -1 where no output neuron fired."""
    if isinstance(recipe, SpikingRecipe) and recipe.readout == "first_spike":
        return losses.predict_first_spike(scores)
    return scores.detach().argmax(-1)
