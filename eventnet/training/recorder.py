"""Lightning callbacks: one keeps the run folder up to date, one shows progress, one begins tasks."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback

from eventnet.training.batches import Batches
from eventnet.training.checkpoint import save_model, save_state
from eventnet.training.continual import ContinualNetwork, ContinualRecipe, TaskBatches
from eventnet.training.errors import TrainingError
from eventnet.training.history import best_epoch
from eventnet.training.module import Classifier
from eventnet.training.recipe import Recipe

__all__ = ["Progress", "Recorder", "TaskStart"]

METRICS = "metrics.csv"


class Recorder(Callback):
    """At the end of each epoch: ``metrics.csv``, ``training.pt`` and, if it is the one to keep so far, the model.

    ``history`` has a row per finished epoch; ``batches`` are told which epoch it is.
    """

    def __init__(self, folder: Path, batches: Sequence[Batches], history: list[dict[str, float]]) -> None:
        self.folder, self.batches, self.history = folder, batches, history
        self._start = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Classifier) -> None:  # type: ignore[override]
        for each in self.batches:
            each.set_epoch(module.epoch)
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Classifier) -> None:  # type: ignore[override]
        row: dict[str, float] = {"epoch": module.epoch + 1}
        for part, tally in (("train", module.training_tally), ("validation", module.validation_tally)):
            row |= {f"{part}_{name}": value for name, value in tally.metrics().items()}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(time.perf_counter() - self._start, 3)
        if not math.isfinite(row["validation_loss"]):
            raise TrainingError(f"epoch {module.epoch + 1}: the validation loss is {row['validation_loss']}")
        self.history.append(row)
        if best_epoch(self.history, module.recipe.best) is row:
            facts = {name: row[name] for name in ("epoch", "validation_accuracy", "validation_loss") if name in row}
            save_model(self.folder, module.network, data=module.recipe.data, **facts)
        state = {
            "epoch": row["epoch"],
            "network": module.network.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "history": self.history,
        }
        save_state(self.folder, state, beside={self.folder / METRICS: as_csv(self.history)})


def as_csv(rows: list[dict[str, float]]) -> bytes:
    """Rows as CSV; a column that a row lacks, of a task not begun yet or a run begun by an older version, stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class TaskStart(Callback):
    """At the start of each task the network begins it, and the optimiser forgets; called when ``batches`` know the epoch."""

    def __init__(self, batches: TaskBatches) -> None:
        self.batches = batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Classifier) -> None:  # type: ignore[override]
        if module.recipe.place(module.epoch)[1] == 0:
            assert isinstance(module.network, ContinualNetwork)
            trainer.optimizers[0].state.clear()
            module.network.begin_task_(self.batches.of_task())


class Progress(Callback):
    """A line per epoch, and on a terminal a bar with loss, accuracy, spikes per neuron and time left."""

    def __init__(self, epochs: int, print_line: Callable[[str], None] | None = None) -> None:
        from rich.console import Console

        self.epochs = epochs
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.print_line = print_line or (lambda line: self.console.print(line, highlight=False, soft_wrap=True))
        self._bar: Any = None
        self._next = 0.0
        self._began = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: Classifier) -> None:  # type: ignore[override]
        self._began = time.perf_counter()
        if not self.live:
            return
        from rich import progress

        columns = [  # each with the width of terminal that it needs, so that none is cut
            (progress.TextColumn("{task.fields[of_task]}epoch {task.fields[epoch]}/{task.fields[epochs]}"), 0),
            (progress.BarColumn(bar_width=None), 84),
            (progress.TextColumn("{task.fields[numbers]}"), 80),
            (progress.TextColumn("{task.fields[left]} left"), 0),
        ]
        self._bar = progress.Progress(
            *(column for column, width in columns if self.console.width >= width),
            console=self.console,
            transient=True,
            auto_refresh=False,
            expand=True,
        )
        steps = self.epochs * trainer.num_training_batches
        done = module.first_epoch * trainer.num_training_batches
        fields = {"epoch": module.first_epoch + 1, "epochs": self.epochs, "numbers": "", "left": "?"}
        fields["of_task"] = of_task(module.recipe, module.first_epoch)
        self._task = self._bar.add_task("", total=steps, completed=done, **fields)
        self._bar.start()

    def on_train_batch_end(self, trainer: Any, module: Classifier, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        now = time.perf_counter()
        if self._bar is None or now < self._next:
            return
        self._next = now + 0.1  # drawing takes milliseconds
        per_epoch = trainer.num_training_batches
        done = module.epoch * per_epoch + batch_idx + 1
        numbers = module.training_tally.sentence()
        left = clock(self._left(done - module.first_epoch * per_epoch, self.epochs * per_epoch - done))
        where = {"epoch": module.epoch + 1, "of_task": of_task(module.recipe, module.epoch)}
        self._bar.update(self._task, completed=done, **where, numbers=numbers, left=left)
        self._bar.refresh()

    def on_train_epoch_end(self, trainer: Any, module: Classifier) -> None:  # type: ignore[override]
        done = module.epoch + 1
        validation = module.validation_tally.metrics()
        by_loss = module.recipe.best == "loss"
        reached = f"loss {validation['loss']:.4g}" if by_loss else f"accuracy {validation['accuracy']:.1%}"
        place = f"{of_task(module.recipe, module.epoch)}epoch {done}/{self.epochs}"
        line = f"{place}: {module.training_tally.sentence()}, validation {reached}"
        if not self.live:  # the bar shows it
            line += f", {clock(self._left(done - module.first_epoch, self.epochs - done))} left"
        self.print_line(line)
        for layer in module.training_tally.meter.silent_layers():
            self.print_line(f"  {layer} {module.network.remedy}")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._stop()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._stop()

    def _left(self, done: int, remaining: int) -> float:
        return (time.perf_counter() - self._began) / max(done, 1) * remaining

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def of_task(recipe: Recipe, epoch: int) -> str:
    """Which task an epoch is of, before the number of the epoch; nothing where there is one task.

    Example:
        >>> from eventnet.training import find
        >>> of_task(find("permuted_mnist"), 4), of_task(find("digits"), 4)
        ('task 2/10, ', '')
    """
    return f"task {recipe.place(epoch)[0] + 1}/{recipe.tasks}, " if isinstance(recipe, ContinualRecipe) else ""


def clock(seconds: float) -> str:
    """``45 s``, ``3:07 min``, ``2:05 h``.

    Example:
        >>> clock(45), clock(187), clock(7500)
        ('45 s', '3:07 min', '2:05 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
