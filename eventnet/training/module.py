"""The Lightning module: one step of training, and the sums that an epoch's metrics are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from eventnet import Diagnosis, Events, diagnosing
from eventnet.data.permuted import TaskDataset
from eventnet.kernels.reference import SpikeStorm
from eventnet.training import objective
from eventnet.training.errors import TrainingError
from eventnet.training.evaluation import ByTask
from eventnet.training.meter import Meter
from eventnet.training.network import Network, Outcome
from eventnet.training.recipe import Recipe, SpikingRecipe

__all__ = ["Classifier", "Tally"]

Batch = tuple[Events, Tensor]


class Tally:
    """Sums over the batches of an epoch; cheap, because it is fed at every step."""

    def __init__(self, meter: Meter, by_task: ByTask | None = None) -> None:
        self.loss, self.correct, self.labels = 0.0, 0, 0
        self.forecasts = False  # which are not right or wrong
        self.meter, self.by_task = meter, by_task

    def add(
        self, recipe: Recipe, loss: float, outcome: Outcome, labels: Tensor, found: Iterable[Diagnosis] | None
    ) -> None:
        """One batch; ``found`` of its layers only if their slopes have a floor."""
        judged = int(objective.judged(labels).sum())
        self.loss += loss * judged
        self.labels += judged
        self.forecasts = labels.is_floating_point()
        if not self.forecasts:
            right = objective.predict(recipe, outcome.scores) == labels
            self.correct += int(right.sum())  # no prediction is IGNORED
            if self.by_task is not None:
                self.by_task.add(right)
        self.meter.add(outcome, found)

    def metrics(self) -> dict[str, float]:
        """loss, accuracy (of classes), what the units did, and the accuracy of each task, numbered from 1."""
        accuracy = {} if self.forecasts else {"accuracy": self.correct / max(self.labels, 1)}
        tasks = {} if self.by_task is None else self.by_task.of_each()
        of_each = {f"accuracy_of_task_{number + 1}": share for number, share in tasks.items()}
        return {"loss": self.loss / max(self.labels, 1), **accuracy, **self.meter.metrics(), **of_each}

    def sentence(self) -> str:
        """The most important of them, in words."""
        found = self.metrics()
        if self.forecasts:
            return f"loss {found['loss']:.3g}, {self.meter.sentence()}"
        return f"loss {found['loss']:.3f}, accuracy {found['accuracy']:.1%}, {self.meter.sentence()}"


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
        self.training_tally, self.validation_tally = Tally(network.meter()), Tally(network.meter())
        self._spikes: tuple[Events, ...] = ()

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0, counted over all sessions of the run."""
        return self.first_epoch + self.trainer.current_epoch

    def forward(self, events: Events) -> Outcome:
        """The network's outcome for a batch."""
        return self.network(events)

    def on_train_epoch_start(self) -> None:
        """Start the sums, set the learning rate."""
        self.training_tally = Tally(self.network.meter())
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * self.recipe.learning_rate_decay ** self.recipe.place(self.epoch)[1]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch with the penalties."""
        outcome, loss = self._evaluate(batch, f"epoch {self.epoch + 1}, step {batch_idx + 1}", self.training_tally)
        self._spikes = tuple(spikes.detach() for spikes in outcome.spikes)
        steps = max(len(self.trainer.train_dataloader or ()), 1)
        extra = self.network.penalty(outcome, (self.epoch + batch_idx / steps) / self.recipe.total_epochs)
        return loss if extra is None else loss + extra

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After the optimiser's step."""
        self.network.after_step_(self._spikes)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log("train", self.training_tally)

    def on_validation_epoch_start(self) -> None:
        """Start the sums."""
        dataset = getattr(self.trainer.val_dataloaders, "dataset", None)
        by_task = ByTask(dataset) if isinstance(dataset, TaskDataset) else None
        self.validation_tally = Tally(self.network.meter(), by_task)

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
                step = self.network.step_size(name)
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
        floor = isinstance(self.recipe, SpikingRecipe) and self.recipe.slope_floor
        watch: AbstractContextManager[dict[str, Diagnosis]] = diagnosing(self.network) if floor else nullcontext({})
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
        tally.add(self.recipe, loss.item(), outcome, labels, found.values() if floor else None)
        return outcome, loss

    def _log(self, part: str, tally: Tally) -> None:
        self.log_dict({f"{part}_{name}": value for name, value in tally.metrics().items()})


_REMEDY = "try a smaller learning_rate, or gradient_clip=1"
