"""The plots of a run: learning curve, one sample before and after training, its forecast or the tasks, firing rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eventnet import LIF, Events, data, plots
from eventnet.training import objective
from eventnet.training.batches import Batches
from eventnet.training.continual import ContinualRecipe
from eventnet.training.errors import CheckpointError
from eventnet.training.evaluation import Evaluation, evaluate_network
from eventnet.training.gated import GatedNetwork
from eventnet.training.history import best_epoch
from eventnet.training.network import Network
from eventnet.training.recipe import GatedRecipe
from eventnet.training.spiking import SpikingNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["activity_of", "draw"]

SAMPLES_BEFORE = 256  # for the firing rates before training
Rates = tuple[tuple[float, ...], ...]  # of each layer's units
POINTS = 400  # of a voltage curve


def draw(
    folder: Path,
    before: Network,
    after: Network,
    splits: data.Splits,
    history: list[dict[str, float]],
    test: Evaluation,
) -> tuple[Path, ...]:
    """Write the PNG files of a run and return their paths."""
    try:
        folder.mkdir(exist_ok=True)
        tasks = isinstance(after.recipe, ContinualRecipe)
        found = None if tasks else int(best_epoch(history, after.recipe.best)["epoch"])  # there is no choice
        curve = plots.learning_curve(history, best_epoch=found, test_accuracy=test.accuracy)
        written = [plots.save(curve, folder / "learning_curve.png")]
        if splits.forecasts:
            written.append(plots.save(forecast_of(after, splits), folder / "forecast.png"))
        elif tasks:
            by_task = plots.accuracy_by_task(history, epochs=after.recipe.epochs)
            written.append(plots.save(by_task, folder / "tasks.png"))
        else:
            pair = (activity_of(before, splits), activity_of(after, splits))
            written.append(plots.save(plots.activity(*pair), folder / "activity.png"))
        if after.recipe.hidden:
            figure = rates_of_tasks(splits, test) if tasks else rates_of(before, after, splits)
            written.append(plots.save(figure, folder / "firing_rates.png"))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the plots into {folder}: {error.strerror or error}; model and result are saved"
        ) from error
    return tuple(written)


def rates_of(before: Network, after: Network, splits: data.Splits) -> Figure:
    """How often hidden units fire before and after training."""
    some = data.EventDataset(*next(iter(Batches(splits.validation, SAMPLES_BEFORE))))
    rates = [evaluate_network(network, some).rates for network in (before, after)]
    words: dict[str, Any] = {}
    if isinstance(after.recipe, GatedRecipe):
        rates = [scaled(layers, 100 * after.recipe.step) for layers in rates]  # percent, from events per second
        words = {"scale": "steps in which a unit is active (%)", "units": "units"}
    return plots.firing_rates(rates[1], before=rates[0], **words)


def rates_of_tasks(splits: data.Splits, test: Evaluation) -> Figure:
    """How often hidden units are active after the last task; before the first one a network cannot be asked."""
    seconds = float(splits.test[0][0].duration)  # of a sample
    percent = scaled(test.rates, 100 * seconds)
    return plots.firing_rates(percent, scale="samples in which a unit is active (%)", units="units")


def scaled(rates: Rates, factor: float) -> Rates:
    """All rates times a factor."""
    return tuple(tuple(factor * rate for rate in layer) for layer in rates)


@torch.no_grad()
def forecast_of(network: Network, splits: data.Splits) -> Figure:
    """What the network makes of the first test sample on its own, beside the series: the first number of each step."""
    events, labels = data.collate(splits.test[0])
    known = int(objective.known_of(labels))
    network.eval()
    own = network.forecast(events, torch.tensor([known]))[0, known - 1 :, 0]
    label = labels[0, known - 1 :, 0]
    there = ~label.isnan()
    return plots.forecast(label[there], own[there], known=1)


@torch.no_grad()
def activity_of(network: Network, splits: data.Splits, sample: int = 0) -> plots.Activity:
    """What the network does with one validation sample."""
    one = splits.validation.__getitems__([sample]) if hasattr(splits.validation, "__getitems__") else None
    events, labels = data.collate(splits.validation[sample]) if one is None else one
    network.eval()  # nothing is dropped; the network is here to be looked at
    single = labels.dim() == 1
    predicted = int(objective.predict(network.recipe, network(events).scores)[0]) if single else None
    facts: dict[str, Any] = {"label": int(labels[0]) if single else None, "predicted": predicted}
    if isinstance(network, SpikingNetwork):
        return _of_spikes(network, events, facts)
    assert isinstance(network, GatedNetwork)
    return _of_steps(network, events, facts)


def _of_spikes(network: SpikingNetwork, events: Events, facts: dict[str, Any]) -> plots.Activity:
    hidden = network.hidden_spikes(events)
    last = hidden[-1] if hidden else events
    times = torch.linspace(0, float(events.duration[0]), POINTS, dtype=events.dtype)
    output = threshold = None
    if isinstance(network.readout, LIF):
        output, voltage = network.readout(last, return_voltage=True)
        threshold = network.recipe.threshold
    else:
        voltage = network.readout(last)
    drawn = {"times": times, "voltage": voltage.at(times)[0], "output": output, "threshold": threshold}
    return plots.Activity(inputs=events, hidden=hidden, **drawn, **facts)


def _of_steps(network: GatedNetwork, events: Events, facts: dict[str, Any]) -> plots.Activity:
    """The scores are those that the readout would give at each step."""
    step = network.recipe.step
    inputs = network.dense(events)
    said, heard = network.layers(inputs, events.num_steps(step))
    hidden = [layer.steps.to_events(step) for layer in heard if layer.steps is not None]
    times = torch.arange(1, len(said) + 1) * step
    return plots.Activity(
        inputs=events,
        hidden=hidden,
        times=times,
        voltage=network.read(said, inputs)[:, 0],
        scale="logit at each step",
        events="events",
        units="units",
        **facts,
    )
