"""The Lightning module: one step of training, and the sums that an epoch's metrics are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from eventnet import Diagnosis, Events, constrain_, diagnosing, losses, metrics
from eventnet.kernels.reference import SpikeStorm
from eventnet.training import objective
from eventnet.training.errors import TrainingError
from eventnet.training.network import Network, Outcome
from eventnet.training.recipe import Recipe

__all__ = ["Classifier", "Tally"]

Batch = tuple[Events, Tensor]


class Tally:
    """Sums over the batches of an epoch; cheap, because it is fed at every step."""

    def __init__(self) -> None:
        self.loss, self.samples, self.correct, self.labels = 0.0, 0, 0, 0
        self.hidden = 0  # layers
        self.floored: int | None = None  # spikes; None: no floor
        self.counts: list[Tensor] = []  # spikes of each neuron, for each spiking layer; the readout is the last

    def add(self, recipe: Recipe, loss: float, outcome: Outcome, labels: Tensor, found: Iterable[Diagnosis]) -> None:
        """One batch; ``found`` of its layers only if their slopes have a floor."""
        size = labels.shape[0]
        self.loss += loss * size
        self.samples += size
        self.hidden = len(recipe.hidden)
        predicted = objective.predict(recipe, outcome.scores)
        self.correct += int((predicted == labels).sum())  # no prediction is IGNORED
        self.labels += int((labels != metrics.IGNORED).sum())
        if recipe.slope_floor:
            self.floored = (self.floored or 0) + sum(layer.floored for layer in found)
        for k, events in enumerate(outcome.spikes):
            counts = torch.bincount(events.units, minlength=events.num_units)
            if k == len(self.counts):
                self.counts.append(counts)
            else:
                self.counts[k] += counts

    def metrics(self) -> dict[str, float]:
        """loss, accuracy, spikes per hidden neuron and sample, share of hidden neurons that never fired; with a floor of the
        slopes, the share of all spikes below it."""
        spikes = [int(counts.sum()) for counts in self.counts]
        hidden = self.counts[: self.hidden]
        neurons = sum(counts.numel() for counts in hidden)
        silent = sum(int((counts == 0).sum()) for counts in hidden)
        floored = {} if self.floored is None else {"floored_share": self.floored / max(sum(spikes), 1)}
        return {
            "loss": self.loss / max(self.samples, 1),
            "accuracy": self.correct / max(self.labels, 1),
            "spikes_per_neuron": sum(spikes[: self.hidden]) / max(self.samples * neurons, 1),
            "spikes_per_inference": sum(spikes) / max(self.samples, 1),
            "silent_share": silent / max(neurons, 1),
            **floored,
        }

    def silent_layers(self) -> list[str]:
        """The names of the spiking layers without a single spike."""
        names = [f"hidden layer {k + 1}" for k in range(self.hidden)] + ["the readout"]
        return [name for name, counts in zip(names, self.counts, strict=False) if not counts.any()]


class Classifier(lightning.LightningModule):
    """Trains a network by its recipe with any ``lightning.pytorch.Trainer``.

    Metrics of an epoch are logged once, at its end, as train_* and validation_*.

    Args:
        recipe, network: what to train.
        first_epoch: number of epochs that were trained before (the learning rate depends on the epoch).
        optimizer_state: the optimiser's state then.

    Raises:
        TrainingError: the loss or a voltage is not finite.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        first_epoch: int = 0,
        optimizer_state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.optimizer_state = optimizer_state
        self.recipe, self.network, self.first_epoch = recipe, network, first_epoch
        self.training_tally, self.validation_tally = Tally(), Tally()
        self._spikes: tuple[Events, ...] = ()
        learnt = {name.rpartition(".")[2] for name, p in network.named_parameters() if p.requires_grad}
        self.bounded = bool(learnt - {"weight", "recurrent_weight", "bias"})  # something that has bounds is learnt

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0, counted over all sessions of the run."""
        return self.first_epoch + self.trainer.current_epoch

    def forward(self, events: Events) -> Outcome:
        """The network's outcome for a batch."""
        return self.network(events)

    def on_train_epoch_start(self) -> None:
        """Start the sums, set the learning rate."""
        self.training_tally = Tally()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * self.recipe.learning_rate_decay**self.epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch with the penalties."""
        outcome, loss = self._evaluate(batch, f"epoch {self.epoch + 1}, step {batch_idx + 1}", self.training_tally)
        self._spikes = tuple(spikes.detach() for spikes in outcome.spikes)
        extra = objective.penalty(self.recipe, outcome)
        return loss if extra is None else loss + extra

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After the optimiser's step: wake silent neurons, restore bounds."""
        if self.recipe.lift:
            for layer, spikes in zip([*self.network.hidden, self.network.readout], self._spikes, strict=False):
                losses.lift_silent_(layer.weight, spikes, self.recipe.lift)
        if self.bounded:
            constrain_(self.network)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log("train", self.training_tally)

    def on_validation_epoch_start(self) -> None:
        """Start the sums."""
        self.validation_tally = Tally()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        self._evaluate(batch, f"validation after epoch {self.epoch + 1}", self.validation_tally)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log("validation", self.validation_tally)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, each parameter with the step of its kind."""
        groups = []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                step = adam_step(self.recipe, name)
                groups.append({"params": [parameter], "lr": step, "initial_lr": step})
        optimizer = torch.optim.Adam(groups, betas=(0.9, self.recipe.beta2), fused=True)  # one call for all parameters
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        return optimizer

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Nothing to do on the CPU, where Lightning would copy piece by piece."""
        events, labels = batch
        return (events, labels) if events.device == device else (events.to(device), labels.to(device))

    def _evaluate(self, batch: Batch, where: str, tally: Tally) -> tuple[Outcome, Tensor]:
        events, labels = batch
        watch: AbstractContextManager[dict[str, Diagnosis]] = nullcontext({})
        if self.recipe.slope_floor:
            watch = diagnosing(self.network)
        try:
            with watch as found:
                outcome = self.network(events)
        except ValueError as error:
            if "not finite" not in str(error):
                raise
            raise TrainingError(f"{where}: {error}; {_REMEDY}") from error
        except SpikeStorm as error:
            raise TrainingError(f"{where}: {error}; {_REMEDY}, or a lower init_firing") from error
        loss = objective.loss(self.recipe, outcome, labels)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"{where}: the loss is {loss.item()}; {_REMEDY}")
        tally.add(self.recipe, loss.item(), outcome, labels, found.values())
        return outcome, loss

    def _log(self, part: str, tally: Tally) -> None:
        self.log_dict({f"{part}_{name}": value for name, value in tally.metrics().items()})


def adam_step(recipe: Recipe, name: str) -> float:
    """Adam's step for a parameter of the network.

    Weights and delays have their own. Any other gets one in proportion to its initial size, so that 5e-3 moves a time
    constant of 20 ms by 0.1 ms; one that starts at 0 (reset, bias) in proportion to the threshold.

    Example:
        >>> adam_step(Recipe(name="mine", learning_rate=5e-3, tau_mem=20e-3), "hidden.0.tau_mem")
        0.0001
    """
    kind = name.rpartition(".")[2]
    if kind.endswith("delay"):
        return recipe.delay_learning_rate
    if kind.endswith("weight"):
        return recipe.learning_rate
    read = name.startswith("readout") and kind.startswith("tau")
    return recipe.learning_rate * float(getattr(recipe, f"readout_{kind}" if read else kind, recipe.threshold))


_REMEDY = "try a smaller learning_rate, or gradient_clip=1"
