"""A trained network on one part of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from eventnet import metrics
from eventnet.training import objective
from eventnet.training.batches import Batches
from eventnet.training.network import Network

__all__ = ["Evaluation", "evaluate_network"]


@dataclass(frozen=True)
class Evaluation:
    """What a network does on ``samples`` samples.

    ``accuracy`` is per label (per step where labels are per step). ``activity`` are the numbers of the network's meter:
    ``spikes_per_inference`` and ``silent_share`` of spiking layers, ``activity`` and ``multiplications`` of gated ones.
    ``rates`` are each hidden layer's mean rates of events in Hz, one number per unit.
    """

    samples: int
    loss: float
    accuracy: float
    input_events_per_inference: float
    activity: dict[str, float]
    rates: tuple[tuple[float, ...], ...]

    def summary(self) -> dict[str, Any]:
        """The numbers, one beside the other, without the list of rates."""
        own = {name: getattr(self, name) for name in ("samples", "loss", "accuracy", "input_events_per_inference")}
        return own | self.activity


@torch.no_grad()
def evaluate_network(network: Network, dataset: Any) -> Evaluation:
    """Run the network once over the data set, in its order; nothing is random.

    Example:
        >>> from eventnet.data import load
        >>> from eventnet.training import build, find
        >>> network = build(find("digits"), 64, 10)
        >>> evaluate_network(network, load("digits").validation.select(range(8))).samples
        8
    """
    recipe, meter = network.recipe, network.meter()
    samples, loss, correct, labelled, inputs, seconds = 0, 0.0, 0.0, 0, 0, 0.0
    training = network.training
    network.eval()
    try:
        for events, labels in Batches(dataset, recipe.batch_size):
            outcome = network(events)
            size, here = labels.shape[0], int((labels != metrics.IGNORED).sum())
            loss += objective.loss(recipe, outcome, labels).item() * size
            if here:
                correct += metrics.accuracy(objective.predict(recipe, outcome.scores), labels) * here
            samples, labelled = samples + size, labelled + here
            inputs += events.num_events
            seconds += events.duration.double().sum().item()
            meter.add(outcome)
    finally:
        network.train(training)
    return Evaluation(
        samples=samples,
        loss=loss / max(samples, 1),
        accuracy=round(correct) / max(labelled, 1),
        input_events_per_inference=inputs / max(samples, 1),
        activity=meter.metrics(),
        rates=tuple(tuple((counts / max(seconds, 1e-30)).tolist()) for counts in meter.counts()),
    )
