"""Numbers about predictions and activity; all take tensors or Events and return plain floats or tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from eventnet.events import Events

__all__ = ["accuracy", "firing_rates", "silent_share", "smape", "spikes_per_inference", "spikes_per_neuron"]

IGNORED = -100  # the label that torch's cross_entropy leaves out


def accuracy(predictions: Tensor, labels: Tensor, *, ignored: int = IGNORED) -> float:
    """Share of labels that are predicted; steps or samples with the label ``ignored`` do not count. NaN for
    none.

    Args:
        predictions, labels: class numbers of the same shape, per sample ``(B,)`` or per step ``(B, K)``.

    Example:
        >>> accuracy(torch.tensor([1, 2, 0]), torch.tensor([1, 0, -100]))
        0.5
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"accuracy: predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must have one shape"
        )
    counted = labels != ignored
    total = int(counted.sum())
    return int(((predictions == labels) & counted).sum()) / total if total else float("nan")


def smape(forecast: Tensor, actual: Tensor) -> float:
    """Symmetric mean absolute percentage error, ``200 mean(|f - a| / (|f| + |a|))``: 0 to 200; 200 if that is not a number.

    Args:
        forecast, actual: numbers of the same shape.

    Source: the definition of NeuroBench's ``SMAPE``.

    Example:
        >>> smape(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
        50.0
    """
    if forecast.shape != actual.shape:
        raise ValueError(
            f"smape: forecast {tuple(forecast.shape)} and actual {tuple(actual.shape)} must have one shape"
        )
    value = 200 * ((forecast - actual).abs() / (forecast.abs() + actual.abs())).mean().item()
    return 200.0 if math.isnan(value) else value


def spikes_per_inference(layers: Events | Iterable[Events]) -> float:
    """Mean number of spikes of one sample, over all given layers together.

    Example:
        >>> spikes_per_inference(Events.from_list([([0.1, 0.2], [0, 0]), ([], [])], num_units=3, duration=1.0))
        1.0
    """
    parts = [layers] if isinstance(layers, Events) else list(layers)
    if not parts:
        return 0.0
    batch = {part.batch_size for part in parts}
    if len(batch) != 1:
        raise ValueError(f"spikes_per_inference: layers of one batch expected, got batch sizes {sorted(batch)}")
    return sum(part.num_events for part in parts) / max(parts[0].batch_size, 1)


def spikes_per_neuron(events: Events) -> float:
    """Mean number of spikes of one neuron in one sample."""
    return events.num_events / max(events.batch_size * events.num_units, 1)


def firing_rates(events: Events) -> Tensor:
    """``(N,)`` spikes per second of each unit, over all samples; 0 where no time passes."""
    counts = torch.bincount(events.units, minlength=events.num_units).to(torch.float64)
    seconds = events.duration.double().sum()
    return counts / seconds if seconds > 0 else counts.zero_()


def silent_share(events: Events) -> float:
    """Share of units without a single spike in the whole batch.

    Example:
        >>> silent_share(Events.from_list([([0.1], [0]), ([0.2], [0])], num_units=4, duration=1.0))
        0.75
    """
    fired = torch.bincount(events.units, minlength=events.num_units) > 0
    return 1 - int(fired.sum()) / events.num_units if events.num_units else 0.0
