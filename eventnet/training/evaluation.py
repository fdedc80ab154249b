"""A trained network on one part of a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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

    ``accuracy`` is per label (per step where labels are per step), ``spikes_per_inference`` counts all
    spiking layers; ``rates`` are each hidden layer's mean firing rates in Hz, one number per neuron.
    """

    samples: int
    loss: float
    accuracy: float
    spikes_per_inference: float
    input_events_per_inference: float
    silent_share: float
    rates: tuple[tuple[float, ...], ...]

    def summary(self) -> dict[str, Any]:
        """The numbers without the list of rates."""
        return {name: value for name, value in asdict(self).items() if name != "rates"}


@torch.no_grad()
def evaluate_network(network: Network, dataset: Any) -> Evaluation:
    """Run the network once over the data set, in its order; nothing is random.

    Example:
        >>> from eventnet.data import load
        >>> from eventnet.training import find
        >>> network = Network(find("digits"), 64, 10)
        >>> evaluate_network(network, load("digits").validation.select(range(8))).samples
        8
    """
    recipe = network.recipe
    samples, loss, correct, labelled, spikes, inputs = 0, 0.0, 0.0, 0, 0, 0
    counts = [torch.zeros(size, dtype=torch.float64) for size in recipe.hidden]
    seconds = 0.0
    for events, labels in Batches(dataset, recipe.batch_size):
        outcome = network(events)
        size, here = labels.shape[0], int((labels != metrics.IGNORED).sum())
        loss += objective.loss(recipe, outcome, labels).item() * size
        if here:
            correct += metrics.accuracy(objective.predict(recipe, outcome.scores), labels) * here
        samples, labelled = samples + size, labelled + here
        spikes += sum(layer.num_events for layer in outcome.spikes)
        inputs += events.num_events
        seconds += events.duration.double().sum().item()
        for total, layer in zip(counts, outcome.spikes, strict=False):
            total += torch.bincount(layer.units, minlength=layer.num_units)
    neurons = sum(recipe.hidden)
    return Evaluation(
        samples=samples,
        loss=loss / max(samples, 1),
        accuracy=round(correct) / max(labelled, 1),
        spikes_per_inference=spikes / max(samples, 1),
        input_events_per_inference=inputs / max(samples, 1),
        silent_share=sum(int((total == 0).sum()) for total in counts) / max(neurons, 1),
        rates=tuple(tuple((total / max(seconds, 1e-30)).tolist()) for total in counts),
    )
