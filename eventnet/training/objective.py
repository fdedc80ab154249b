"""What a recipe minimises, and how scores become predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet import losses, metrics
from eventnet.training.errors import DataError
from eventnet.training.network import Outcome
from eventnet.training.recipe import Recipe, SpikingRecipe

__all__ = ["judged", "known_of", "loss", "predict"]


def loss(recipe: Recipe, outcome: Outcome, labels: Tensor) -> Tensor:
    """Mean loss without penalties: of the classification for labels ``(B,)``, or ``(B, K)`` per step, where -100 is left out; the
    mean squared error of numbers to forecast ``(B, K, outputs)``, where NaN is left out."""
    scores = outcome.scores
    if labels.is_floating_point():
        if scores.shape != labels.shape:
            raise DataError(
                f"expected numbers to forecast of shape {tuple(scores.shape)} for the readout {recipe.readout!r}, "
                f"got {tuple(labels.shape)}"
            )
        counted = judged(labels)
        return (
            F.mse_loss(scores[counted], labels[counted].to(scores.dtype)) if bool(counted.any()) else 0 * scores.sum()
        )
    if scores.shape[:-1] != labels.shape:
        per_step = " (readouts 'at' and 'each' need a label per step, the others one per sample)"
        raise DataError(
            f"expected labels of shape {tuple(scores.shape[:-1])} for the readout {recipe.readout!r}, "
            f"got {tuple(labels.shape)}{per_step}"
        )
    if not bool(judged(labels).any()):
        return 0 * scores[scores.isfinite()].sum()  # times of neurons that did not fire are infinite
    if isinstance(recipe, SpikingRecipe) and recipe.readout == "first_spike":
        return losses.first_spike_cross_entropy(
            scores,
            labels,
            tau=recipe.first_spike_tau,
            late_weight=recipe.late_weight,
            late_tau=recipe.late_tau,
        )
    return F.cross_entropy(scores.flatten(0, -2), labels.flatten())


def judged(labels: Tensor) -> Tensor:
    """Which labels count: classes that are not -100, numbers to forecast that are not NaN.

    Example:
        >>> judged(torch.tensor([1, -100])).tolist()
        [True, False]
        >>> judged(torch.tensor([[[float("nan")], [0.5]]])).tolist()
        [[[False], [True]]]
    """
    return ~labels.isnan() if labels.is_floating_point() else labels != metrics.IGNORED


def known_of(labels: Tensor) -> Tensor:
    """``(B,)`` steps of each sample that are known before a free forecast: up to that of its first label, which is thus one step
    ahead.

    Example:
        >>> known_of(torch.tensor([[[float("nan")], [0.5], [0.6]]])).tolist()
        [2]
    """
    return judged(labels).any(-1).to(torch.int8).argmax(1) + 1


def predict(recipe: Recipe, scores: Tensor) -> Tensor:
    """The class of each sample (or step); -1 where no output neuron fired."""
    if isinstance(recipe, SpikingRecipe) and recipe.readout == "first_spike":
        return losses.predict_first_spike(scores)
    return scores.detach().argmax(-1)
