"""The plots of a run: learning curve, one sample before and after training, firing rates."""

from __future__ import annotations

from pathlib import Path

import torch

from eventnet import LIF, data, plots
from eventnet.training import objective
from eventnet.training.batches import Batches
from eventnet.training.errors import CheckpointError
from eventnet.training.evaluation import Evaluation, evaluate_network
from eventnet.training.network import Network

__all__ = ["activity_of", "draw"]

SAMPLES_BEFORE = 256  # for the firing rates before training
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
        found = max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
        curve = plots.learning_curve(history, best_epoch=int(found["epoch"]), test_accuracy=test.accuracy)
        written = [plots.save(curve, folder / "learning_curve.png")]
        pair = (activity_of(before, splits), activity_of(after, splits))
        written.append(plots.save(plots.activity(*pair), folder / "activity.png"))
        if after.recipe.hidden:
            some = data.EventDataset(*next(iter(Batches(splits.validation, SAMPLES_BEFORE))))
            rates = [evaluate_network(network, some).rates for network in (before, after)]
            written.append(plots.save(plots.firing_rates(rates[1], before=rates[0]), folder / "firing_rates.png"))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the plots into {folder}: {error.strerror or error}; model and result are saved"
        ) from error
    return tuple(written)


@torch.no_grad()
def activity_of(network: Network, splits: data.Splits, sample: int = 0) -> plots.Activity:
    """What the network does with one validation sample."""
    one = splits.validation.__getitems__([sample]) if hasattr(splits.validation, "__getitems__") else None
    events, labels = data.collate(splits.validation[sample]) if one is None else one
    outcome = network(events)
    hidden = network.hidden_spikes(events)
    last = hidden[-1] if hidden else events
    times = torch.linspace(0, float(events.duration[0]), POINTS, dtype=events.dtype)
    output = threshold = None
    if isinstance(network.readout, LIF):
        output, voltage = network.readout(last, return_voltage=True)
        threshold = network.recipe.threshold
    else:
        voltage = network.readout(last)
    single = labels.dim() == 1
    return plots.Activity(
        inputs=events,
        hidden=hidden,
        times=times,
        voltage=voltage.at(times)[0],
        output=output,
        threshold=threshold,
        label=int(labels[0]) if single else None,
        predicted=int(objective.predict(network.recipe, outcome.scores)[0]) if single else None,
    )
