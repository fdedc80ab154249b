"""Continual learning, task after task: the recipe, its network of active dendrites and k-winners, and its batches.

A task is told in training: its prototype, the mean of its training inputs, is the context of the dendrites. In evaluation it is
not: the context of an input is the nearest prototype of the tasks seen so far.

Source: Iyer, Grewal, Velu, Souza, Forest & Ahmad, "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic
environments" (Frontiers in Neurorobotics, 2022), and their code: schedules, initialisation, normalised pixels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from eventnet import Events
from eventnet.data.permuted import TaskDataset
from eventnet.layers.dendrites import ActiveDendrites, Context
from eventnet.layers.prototypes import Prototypes
from eventnet.layers.sparse_weights import fan_in_uniform_, sparsify_
from eventnet.layers.winners import KWinners
from eventnet.training.batches import Batches
from eventnet.training.errors import DataError, RecipeError
from eventnet.training.meter import ContinualMeter
from eventnet.training.network import Network, Outcome
from eventnet.training.recipe import Recipe
from eventnet.training.setting import setting

__all__ = ["SCHEDULES", "ContinualNetwork", "ContinualRecipe", "TaskBatches"]

# Of each row, tasks: (epochs of each task, rate); published, chosen there for each row and number of tasks. Those of both at 2
# and 5 tasks were published for ten segments; with those of one per task, one epoch at 5e-4, it stays two points below what is
# published.
SCHEDULES = {
    "both": {2: (5, 1e-3), 5: (5, 7e-4), 10: (3, 5e-4), 25: (5, 3e-4), 50: (3, 3e-4), 100: (3, 1e-4)},
    "winners": {2: (3, 1e-3), 5: (10, 5e-5), 10: (5, 1e-4), 25: (10, 1e-5), 50: (10, 1e-5), 100: (5, 1e-4)},
    "dendrites": {2: (5, 5e-4), 5: (10, 1e-3), 10: (5, 5e-6), 25: (5, 5e-6), 50: (5, 1e-5), 100: (5, 5e-6)},
    "mlp": {10: (5, 3e-6), 100: (3, 1e-6)},
}
CONTEXT_SHARE = 0.1  # of the published initialisation of segments: as if a tenth of a context were not zero
SAMPLES_AT_ONCE = 4096  # for a prototype


@dataclass(frozen=True)
class ContinualRecipe(Recipe):
    """Training on tasks that come one after the other and are not seen again, each with an optimiser of its own.

    The data's units, normalised -> layers of the sizes in ``hidden`` -> one output per class, the same for all tasks. What is
    learnt last is kept: the validation part measures the tasks seen so far, nothing is chosen by it. A copy (``changed``) with
    another ``row`` or number of ``tasks`` has the published epochs and learning rate for them, unless these are given too; a
    recipe that is made anew has those of 10 tasks with both.

    Example:
        >>> recipe = ContinualRecipe(name="mine").changed(tasks=25)
        >>> recipe.epochs, recipe.learning_rate, recipe.total_epochs
        (5, 0.0003, 125)
    """

    family = "continual"

    data: str = setting("permuted_mnist", "data set that has tasks", choices=("permuted_mnist",))
    hidden: tuple[int, ...] = setting((2048, 2048), "units of each hidden layer", bound=">= 1")
    readout: str = setting("linear", "the outputs are linear in the last hidden layer", choices=("linear",))
    backend: str = setting("auto", "the layers are PyTorch's, on any device", choices=("auto",))
    learning_rate: float = setting(
        5e-4, "Adam's step; by default as published for the row and number of tasks", bound="> 0"
    )
    learning_rate_decay: float = setting(1.0, "factor on the learning rate after each epoch of a task", bound="> 0")
    batch_size: int = setting(256, "samples per optimiser step", "samples", ">= 1")
    epochs: int = setting(
        3,
        "passes through the samples of each task; by default as published for the row and number of tasks",
        bound=">= 1",
    )
    best: str = setting("last", "which epoch is kept", choices=("last",))
    seed: int = setting(0, "of the tasks, the initial weights, the validation part, order and dropout", bound=">= 0")

    tasks: int = setting(10, "tasks, one after the other", bound=">= 1")
    row: str = setting(
        "both",
        "row of the published table: units with dendrites and winners, one of them, or neither, with dense weights (mlp)",
        choices=tuple(SCHEDULES),
    )
    share: float = setting(0.05, "share of the units of a layer that win", bound="in (0, 1]")
    density: float = setting(0.5, "share of the weights that are there; of an mlp all", bound="in (0, 1]")
    input_mean: float = setting(0.13062755, "inputs are in units of their deviation from this: of MNIST's pixels")
    input_deviation: float = setting(0.30810780, "standard deviation of the inputs: of MNIST's pixels", bound="> 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise RecipeError("hidden: expected at least one layer, such as 2048,2048, got none")
        for size in self.hidden:
            if self.has_winners and not round(self.share * size):
                raise RecipeError(f"share: expected at least one winner among {size} units, got {self.share:g} of them")
        if "tasks" in self.data_options:
            raise RecipeError("data_options: expected no tasks, which the recipe has itself: tasks=10")

    def changed(self, **changes: Any) -> Self:
        """A copy with other values; see the class for epochs and learning rate."""
        row, tasks = changes.get("row", self.row), changes.get("tasks", self.tasks)
        if (row, tasks) != (self.row, self.tasks) and row in SCHEDULES:
            published = SCHEDULES[row].get(tasks)
            if published is not None:
                changes = {"epochs": published[0], "learning_rate": published[1], **changes}
            elif not {"epochs", "learning_rate"} <= changes.keys():
                known = ", ".join(map(str, SCHEDULES[row]))
                raise RecipeError(
                    f"tasks: expected {known} for the row {row}, which have a published schedule, got {tasks}; others need one, "
                    "such as epochs=3, learning_rate=0.0005"
                )
        return super().changed(**changes)

    @property
    def total_epochs(self) -> int:
        """Of all tasks."""
        return self.tasks * self.epochs

    def place(self, epoch: int) -> tuple[int, int]:
        """Task and epoch in it."""
        return divmod(epoch, self.epochs)

    @property
    def has_dendrites(self) -> bool:
        """Whether units have segments, one for each task."""
        return self.row in ("both", "dendrites")

    @property
    def has_winners(self) -> bool:
        """Whether k winners speak, instead of all that are positive."""
        return self.row in ("both", "winners")


class ContinualNetwork(Network):
    """Layers of active dendrites and k-winners, or without one of them, a linear readout, and the prototypes of the tasks.

    Events are added up per sample and unit, whenever they come. In training the context of all samples is the prototype of the
    task that was begun last (``begin_task_``), in evaluation that nearest to each. The initial parameters depend on the recipe's
    seed alone.

    Example:
        >>> network = ContinualNetwork(ContinualRecipe(name="mine", hidden=(20,), share=0.1), num_units=4, num_classes=3)
        >>> events = Events.from_list([([0.0], [2]), ([0.0], [1])], num_units=4, duration=1e-3)
        >>> network.begin_task_([(events, torch.tensor([0, 1]))])
        >>> network(events).scores.shape
        torch.Size([2, 3])
    """

    recipe: ContinualRecipe
    remedy = "said nothing; a smaller --learning-rate helps units to stay alive"

    def __init__(self, recipe: ContinualRecipe, num_units: int, num_classes: int) -> None:
        super().__init__(recipe, num_units, num_classes)
        density = 1.0 if recipe.row == "mlp" else recipe.density
        for heard in (num_units, *recipe.hidden):
            if not round(density * heard):
                raise RecipeError(
                    f"density: expected at least one of {heard} inputs for each unit, got {density:g} of them"
                )
        # of the hidden units, as if so many were active: scales the weights of those who hear them
        share = {"dendrites": 1.0, "mlp": 0.5}.get(recipe.row, recipe.share)
        self.hidden, self.active = nn.ModuleList(), nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            for k, (before, after) in enumerate(itertools.pairwise((num_units, *recipe.hidden))):
                layer = ActiveDendrites(
                    before,
                    after,
                    recipe.tasks if recipe.has_dendrites else 0,
                    num_units,
                    density=density,
                    input_share=share if k else 1.0,
                    context_share=CONTEXT_SHARE,
                )
                self.hidden.append(layer)
                self.active.append(KWinners(after, recipe.share) if recipe.has_winners else nn.ReLU())
            self.readout = nn.Linear(recipe.hidden[-1], num_classes)
            fan_in_uniform_(self.readout.weight, density * share)
            if density < 1:
                sparsify_(self.readout, density)
        self.prototypes = Prototypes(num_units)

    def forward(self, events: Events) -> Outcome:
        """Scores of the classes, how often each hidden unit was active, and in evaluation the contexts that were taken."""
        x = self.dense(events)
        nearest = self._nearest(x)
        said = self.layers(x, self._context(nearest))
        active = tuple((y.detach() != 0).sum(0) for y in said)
        return Outcome(self.readout(said[-1]), active=active, contexts=nearest)

    def scores(self, x: Tensor, context: Context | None) -> Tensor:
        """Logits of dense inputs ``(B, N)`` in a context, as of ``ActiveDendrites``, which networks without dendrites ignore."""
        scores: Tensor = self.readout(self.layers(x, context)[-1])
        return scores

    def layers(self, x: Tensor, context: Context | None) -> list[Tensor]:
        """What each hidden layer says."""
        said = []
        for layer, active in zip(self.hidden, self.active, strict=True):
            x = active(layer(x, context if self.recipe.has_dendrites else None))
            said.append(x)
        return said

    def dense(self, events: Events) -> Tensor:
        """The sums of each unit, normalised: ``(B, N)``."""
        values = torch.ones_like(events.times) if events.values is None else events.values
        x = values.new_zeros(events.batch_size, events.num_units, dtype=self.readout.weight.dtype)
        x.index_put_((events.samples, events.units.long()), values.to(x.dtype), accumulate=True)
        return (x - self.recipe.input_mean) / self.recipe.input_deviation

    @torch.no_grad()
    def begin_task_(self, batches: Any) -> None:
        """The prototype of a new task from its training inputs, batches of ``(Events, labels)``."""
        device = self.prototypes.contexts.device
        self.prototypes.add(torch.cat([self.dense(events.to(device)) for events, _ in batches]))

    def seen(self, dataset: Any) -> Any:
        """The tasks of a data set that were begun: of the others nothing can be asked."""
        if not isinstance(dataset, TaskDataset):
            return dataset
        self._check_begun()
        seen = [task for task in dataset.numbers if task < len(self.prototypes)]
        if not seen:
            raise DataError(
                f"{self.recipe.name}: expected one of the {len(self.prototypes)} tasks begun, got {dataset}"
            )
        return dataset.only(seen)

    def meter(self) -> ContinualMeter:
        """What adds up the activity of an epoch."""
        return ContinualMeter(self.recipe.hidden)

    def _nearest(self, x: Tensor) -> Tensor | None:
        """The task that each input is taken for; None where nobody asks, or it is told."""
        if not self.recipe.has_dendrites:
            return None
        self._check_begun()
        return None if self.training else self.prototypes(x)

    def _context(self, nearest: Tensor | None) -> Context | None:
        if not self.recipe.has_dendrites:
            return None
        if nearest is None:
            return self.prototypes.contexts[-1]
        there, index = nearest.unique(return_inverse=True)  # segments are computed for each context that is passed
        return self.prototypes.contexts[there], index

    def _check_begun(self) -> None:
        if not len(self.prototypes):
            raise DataError(f"{self.recipe.name}: no task was begun yet; begin_task_(batches of its training samples)")


class TaskBatches(Batches):
    """Batches of one task at a time, as many epochs as the recipe says; or, ``so_far``, of all tasks up to it.

    Args:
        dataset: all tasks.
        recipe: which says which epoch is of which task.
        others: as of ``Batches``.
    """

    def __init__(self, dataset: TaskDataset, recipe: Recipe, *, so_far: bool = False, **options: Any) -> None:
        super().__init__(dataset, recipe.batch_size, **options)
        self.all, self.recipe, self.so_far = dataset, recipe, so_far
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is, counted over all tasks."""
        super().set_epoch(epoch)
        task, _ = self.recipe.place(epoch)
        self.dataset = self.all.only(range(0 if self.so_far else task, task + 1))

    def of_task(self) -> Batches:
        """The samples of the task as they are, in their order, in large batches."""
        return Batches(self.dataset, SAMPLES_AT_ONCE)
