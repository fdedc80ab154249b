"""A trained network on one part of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eventnet import Events, metrics
from eventnet.data.permuted import TaskDataset
from eventnet.training import objective
from eventnet.training.batches import Batches
from eventnet.training.network import Network

__all__ = ["Evaluation", "evaluate_network"]


@dataclass(frozen=True)
class Evaluation:
    """What a network does on ``samples`` samples.

    ``loss`` and ``accuracy`` are per label (per step where labels are per step). Of forecasts ``accuracy`` is None and there is
    ``smape``: the symmetric mean absolute percentage error of what the network forecasts on its own, from a sample's first label
    on; ``loss`` is still one step ahead. ``activity`` are the numbers of the network's meter:
    ``spikes_per_inference`` and ``silent_share`` of spiking layers, ``activity`` and ``multiplications`` of gated ones.
    ``rates`` are each hidden layer's mean rates of events in Hz, one number per unit. Of data that has tasks ``of_each_task`` are
    the accuracies of those that were seen, and ``contexts_right`` is the share of samples that were taken for one of their task,
    if the network looks for that.
    """

    samples: int
    loss: float
    accuracy: float | None
    input_events_per_inference: float
    activity: dict[str, float]
    rates: tuple[tuple[float, ...], ...]
    smape: float | None = None
    of_each_task: tuple[float, ...] = ()
    contexts_right: float | None = None

    @property
    def score(self) -> tuple[str, str]:
        """Name and value of what the network is judged by, in words.

        Example:
            >>> Evaluation(1, 0.1, 0.975, 0.0, {}, ()).score, Evaluation(1, 0.1, None, 0.0, {}, (), smape=13.37).score
            (('accuracy', '97.50%'), ('sMAPE', '13.37'))
        """
        if self.accuracy is None:
            return "sMAPE", "unknown" if self.smape is None else f"{self.smape:.2f}"
        return "accuracy", f"{self.accuracy:.2%}"

    def summary(self) -> dict[str, Any]:
        """The numbers, one beside the other, without the list of rates."""
        names = ("samples", "loss", "accuracy", "smape", "contexts_right", "input_events_per_inference")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        tasks = {"of_each_task": list(self.of_each_task)} if self.of_each_task else {}
        return own | tasks | self.activity


@torch.no_grad()
def evaluate_network(network: Network, dataset: Any) -> Evaluation:
    """Run the network once over the data set, in its order; nothing is random. Of tasks only those count that it has seen.

    Example:
        >>> from eventnet.data import load
        >>> from eventnet.training import build, find
        >>> network = build(find("digits"), 64, 10)
        >>> evaluate_network(network, load("digits").validation.select(range(8))).samples
        8
    """
    recipe, meter, dataset = network.recipe, network.meter(), network.seen(dataset)
    by_task = ByTask(dataset) if isinstance(dataset, TaskDataset) else None
    samples, loss, correct, labelled, inputs, seconds = 0, 0.0, 0.0, 0, 0, 0.0
    forecast: list[tuple[Tensor, Tensor]] = []
    training = network.training
    network.eval()
    try:
        for events, labels in Batches(dataset, recipe.batch_size):
            outcome = network(events)
            here = int(objective.judged(labels).sum())
            loss += objective.loss(recipe, outcome, labels).item() * here
            if labels.is_floating_point():
                forecast.append(forecast_of(network, events, labels))
            elif here:
                predicted = objective.predict(recipe, outcome.scores)
                correct += metrics.accuracy(predicted, labels) * here
                if by_task is not None:
                    by_task.add(predicted == labels, outcome.contexts)
            samples, labelled = samples + labels.shape[0], labelled + here
            inputs += events.num_events
            seconds += events.duration.double().sum().item()
            meter.add(outcome)
    finally:
        network.train(training)
    return Evaluation(
        samples=samples,
        loss=loss / max(labelled, 1),
        accuracy=None if forecast else round(correct) / max(labelled, 1),
        input_events_per_inference=inputs / max(samples, 1),
        activity=meter.metrics(),
        rates=tuple(tuple((counts / max(seconds, 1e-30)).tolist()) for counts in meter.counts()),
        smape=metrics.smape(*(torch.cat(part) for part in zip(*forecast, strict=True))) if forecast else None,
        **({} if by_task is None else by_task.facts()),
    )


class ByTask:
    """Adds up what was right of each task of a data set, over its samples in their order."""

    def __init__(self, dataset: TaskDataset) -> None:
        self._tasks, self._numbers = dataset.tasks, dataset.numbers
        self._right: list[Tensor] = []
        self._contexts: list[Tensor] = []

    def add(self, right: Tensor, contexts: Tensor | None = None) -> None:
        """Which samples ``(B,)`` of a batch are right, and the task that each was taken for."""
        self._right.append(right)
        if contexts is not None:
            self._contexts.append(contexts)

    def of_each(self) -> dict[int, float]:
        """The accuracy of each task by its number; NaN of one that no sample was of yet."""
        right = torch.cat(self._right).double().cpu()
        tasks = self._tasks[: len(right)]
        return {number: right[tasks == number].mean().item() for number in self._numbers}

    def facts(self) -> dict[str, Any]:
        """``of_each_task`` and ``contexts_right`` of an ``Evaluation``."""
        known = (torch.cat(self._contexts) == self._tasks).double().mean().item() if self._contexts else None
        return {"of_each_task": tuple(self.of_each().values()), "contexts_right": known}


def forecast_of(network: Network, events: Events, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the network forecasts on its own from each sample's first label on, and these labels, both ``(numbers,)``.

    The input of a sample is known up to the step of its first label, whose label is thus one step ahead; from then on the network
    hears its own outputs.
    """
    counted = objective.judged(labels)
    own = network.forecast(events, objective.known_of(labels))
    return own[counted], labels[counted].to(own.dtype)
