"""Permuted MNIST, one task after the other: do active dendrites and k-winners keep what was learnt before?

    python benchmarks/permuted_mnist.py --data-root FOLDER --tasks 10 [--rows both winners] [--seeds 0 1] [--save]
    python benchmarks/permuted_mnist.py --data-root FOLDER --tasks 10 --unlabelled [--save]   contexts found without labels
    python benchmarks/permuted_mnist.py --segments [--save]                                   segments by context and by row

FOLDER has ``mnist/``. A task is MNIST with its pixels permuted, the first one as it is; tasks come one after the other and are
not seen again. Reported is the accuracy on the test images of all tasks after the last one. The task of a test image is not told:
its context is the nearest prototype (mean training image) of those seen.

The configuration is the published one (Iyer et al. 2022 and their code): 784-2048-2048-10, half of the weights, those of the
output included, one segment per task and unit, 5 % winners without boosting, pixels normalised, Adam, batches of 256, a new
optimiser for each task. *winners*: no segments; *dendrites*: ReLU instead of winners; *mlp*: dense weights, ReLU. Epochs and
rate were chosen there for each row and number of tasks, so that rows differ in them as well; ``--schedule both``
trains all rows alike. For *both* with 2 and 5 tasks there are two published schedules: five epochs, for ten segments whatever the
tasks (here they stay one per task), and ``--schedule short``, one epoch, for a segment per task.

A run that was stopped goes on with the same command, from the last epoch in ``--runs``, to the same result; a finished one is not
run again. ``--save`` keeps each result in ``results/permuted_mnist.json`` as soon as there is one.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import io
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine, seconds
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eventnet.data import idx
from eventnet.data.permuted import permutations
from eventnet.files import write_files
from eventnet.layers.dendrites import Segments
from eventnet.layers.prototypes import Prototypes
from eventnet.training.continual import SCHEDULES, ContinualNetwork, ContinualRecipe

CONSOLE = Console(stderr=True)
RESULT = Path(__file__).with_name("results") / "permuted_mnist.json"
ROWS = ("both", "winners", "dendrites", "mlp")
PUBLISHED = {
    "both": {2: 0.9747, 5: 0.9636, 10: 0.9455, 25: 0.9209, 50: 0.8705, 100: 0.8142},
    "winners": {2: 0.9657, 5: 0.9389, 10: 0.9133, 25: 0.8459, 50: 0.7556, 100: 0.6561},
    "dendrites": {2: 0.9676, 5: 0.8911, 10: 0.8285, 25: 0.7615, 50: 0.6833, 100: 0.6154},
    "mlp": {10: 0.8203, 100: 0.4831},
}
ALL_SCHEDULES = {**SCHEDULES, "short": {2: (1, 5e-4), 5: (1, 5e-4)}}  # published as well, of both


@dataclass(frozen=True)
class Setting:
    """One run; what it gives depends on nothing else."""

    row: str
    tasks: int
    seed: int
    epochs: int
    rate: float
    hidden: int = 2048
    batch: int = 256
    share: float = 0.05
    density: float = 0.5

    @property
    def own(self) -> bool:
        """Whether it is trained as the row is by default."""
        return SCHEDULES[self.row].get(self.tasks) == (self.epochs, self.rate)

    @property
    def published(self) -> float | None:
        """The mean accuracy of this row, if it is trained by a schedule published for it."""
        short = self.row == "both" and ALL_SCHEDULES["short"].get(self.tasks) == (self.epochs, self.rate)
        return PUBLISHED[self.row][self.tasks] if self.own or short else None

    @property
    def recipe(self) -> ContinualRecipe:
        """What the network is made of."""
        return ContinualRecipe(
            name="permuted_mnist",
            row=self.row,
            tasks=self.tasks,
            seed=self.seed,
            hidden=(self.hidden, self.hidden),
            share=self.share,
            density=self.density,
        )

    @property
    def name(self) -> str:
        other = "" if self.own else f"-{self.epochs}x{self.rate:g}"
        return f"{self.row}-{self.tasks}-{self.seed}{other}"


def setting(row: str, tasks: int, seed: int, schedule: str | None = None) -> Setting:
    """The published configuration, trained by the schedule of its own row or of another one."""
    given = ALL_SCHEDULES[schedule or row]
    if tasks not in given:
        raise ValueError(
            f"{schedule or row}: there is a published schedule for {', '.join(map(str, given))} tasks, not for {tasks}"
        )
    return Setting(row, tasks, seed, *given[tasks])


# ---- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """``train`` and ``test`` images ``(B, features)``, normalised, and their labels."""

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor


def mnist(root: str) -> Images:
    parts = []
    for part in ("train", "test"):
        images, labels = idx.read_images(Path(root), "mnist", part)
        x = torch.tensor(images).flatten(1).float() / 255
        x = (x - ContinualRecipe.input_mean) / ContinualRecipe.input_deviation
        parts += [x, torch.tensor(labels).long()]
    return Images(*parts)


def batches(samples: int, of: Setting, task: int, epoch: int) -> Iterator[Tensor]:
    """Indices, in an order that depends on seed, task and epoch alone."""
    generator = torch.Generator().manual_seed((of.seed * 1000 + task) * 1000 + epoch)
    yield from torch.randperm(samples, generator=generator).split(of.batch)


# ---- one run --------------------------------------------------------------------------------------------------------


class Run:
    """A network on its way through the tasks."""

    def __init__(self, of: Setting, images: Images, folder: Path | None = None) -> None:
        self.of, self.images = of, images
        self.path = None if folder is None else folder / f"{of.name}.pt"
        self.orders = permutations(images.train.shape[1], of.tasks, of.seed)
        self.network = ContinualNetwork(of.recipe, images.train.shape[1], int(images.labels.max()) + 1)
        self.task, self.epoch, self.taken = 0, 0, 0.0
        self.learnt: list[float] = []  # of each task, right after it was trained
        self._new_optimizer()
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _new_optimizer(self) -> None:
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.of.rate, fused=True)

    def __call__(self) -> dict[str, Any]:
        """Train what is left, evaluate."""
        per_epoch = -(-len(self.images.train) // self.of.batch)
        with Progress(console=CONSOLE, disable=not CONSOLE.is_terminal) as bar:
            done = (self.task * self.of.epochs + self.epoch) * per_epoch
            self.step = partial(
                bar.advance,
                bar.add_task(self.of.name, total=self.of.tasks * self.of.epochs * per_epoch, completed=done),
            )
            for task in range(self.task, self.of.tasks):
                x = self.images.train[:, self.orders[task]]
                if self.epoch == 0:
                    self.network.prototypes.add(x)
                    self._new_optimizer()
                for epoch in range(self.epoch, self.of.epochs):
                    start = time.perf_counter()
                    self._train(x, task, epoch)
                    self.task, self.epoch = task, epoch + 1
                    if epoch + 1 == self.of.epochs:
                        self.learnt.append(self._accuracy(task)[0])
                        self.task, self.epoch = task + 1, 0
                    self.taken += time.perf_counter() - start
                    self._save()
                say(f"{self.of.name}: task {task + 1} of {self.of.tasks}, {self.learnt[-1]:.4f}, {self.taken:.0f} s")
        found = [self._accuracy(task) for task in range(self.of.tasks)]
        return {
            **dataclasses.asdict(self.of),
            "accuracy": statistics.mean(right for right, _ in found),
            "of_each_task": [right for right, _ in found],
            "of_each_task_when_learnt": self.learnt,
            "contexts_right": statistics.mean(known for _, known in found),
            "published": self.of.published,
            "seconds": round(self.taken),
        }

    def _train(self, x: Tensor, task: int, epoch: int) -> None:
        self.network.train()
        context = self.network.prototypes.contexts[task]
        for index in batches(len(x), self.of, task, epoch):
            loss = nn.functional.cross_entropy(self.network.scores(x[index], context), self.images.labels[index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step()

    @torch.no_grad()
    def _accuracy(self, task: int) -> tuple[float, float]:
        """Share of the test images that are classified right, and whose context is that of their task."""
        self.network.eval()
        prototypes, right, known = self.network.prototypes, 0, 0
        with parametrize.cached():
            for x, y in zip(self.images.test.split(1000), self.images.test_labels.split(1000), strict=True):
                x = x[:, self.orders[task]]
                nearest = prototypes.nearest(x)
                right += int((self.network.scores(x, (prototypes.contexts, nearest)).argmax(1) == y).sum())
                known += int((nearest == task).sum())
        return right / len(self.images.test), known / len(self.images.test)

    def _save(self) -> None:
        if self.path is None:
            return
        state = {
            "of": dataclasses.asdict(self.of),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.epoch else None,  # each task has its own
            **{name: getattr(self, name) for name in ("task", "epoch", "taken", "learnt")},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_files({self.path: buffer.getvalue()})

    def _load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["of"] != dataclasses.asdict(self.of):
            sys.exit(f"{path} is of another run, {state['of']}; name another folder by --runs")
        self.network.load_state_dict(state["network"])
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.task, self.epoch, self.taken, self.learnt = (state[x] for x in ("task", "epoch", "taken", "learnt"))


# ---- by context, not by row; without labels -------------------------------------------------------------------------


def segments_by_context(units: int = 2048, segments: int = 10, features: int = 784, rows: int = 256) -> dict[str, Any]:
    """Seconds of the segments of one layer for a batch from one task: computed once, or for each row."""
    layer, context = Segments(units, segments, features), torch.randn(features)
    each = context.expand(rows, features).contiguous()

    def training(contexts: Tensor) -> None:
        layer.weight.grad = None
        layer(contexts).sum().backward()

    @torch.no_grad()
    def inference(contexts: Tensor) -> None:
        layer(contexts)

    found: dict[str, Any] = {"units": units, "segments": segments, "features": features, "rows": rows}
    for call in (inference, training):
        once, by_row = (seconds(partial(call, x)) for x in (context, each))
        found[call.__name__] = {"once": once.best, "by_row": by_row.best, "ratio": by_row.best / once.best}
        say(f"segments, {call.__name__}: {once.best * 1e3:.2f} ms, by row {by_row.best * 1e3:.1f} ms")
    return found


def unlabelled(images: Images, tasks: int, seed: int, batch: int = 256) -> dict[str, Any]:
    """Contexts found from the stream of training batches alone, in the order of training (one epoch of each task)."""
    prototypes, mistaken, owner = Prototypes(images.train.shape[1]), 0, []
    orders = permutations(images.train.shape[1], tasks, seed)
    of = Setting("both", tasks, seed, 1, 0.0, batch=batch)
    for task, order in enumerate(orders):
        for index in batches(len(images.train), of, task, 0):
            found = prototypes.assign(images.train[index][:, order])
            if found == len(owner):
                owner.append(task)
            mistaken += owner[found] != task
    nearest = [prototypes.nearest(images.test[:, order]) for order in orders]
    right = [(torch.tensor(owner)[near] == task).double().mean().item() for task, near in enumerate(nearest)]
    found = {"tasks": tasks, "seed": seed, "contexts": len(prototypes), "batches_in_a_wrong_context": mistaken}
    return found | {"test_contexts_right": statistics.mean(right)}


# ---- all of them ----------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, flush=True)


def kept() -> dict[str, Any]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def keep(part: str, name: str, found: dict[str, Any]) -> None:
    """One result beside the others."""
    content = kept()
    here = {"machine": machine(), "commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    content.setdefault(part, {})[name] = found | here
    write_files({RESULT: (json.dumps(content, indent=1) + "\n").encode()})


def use_heap() -> None:
    """Let glibc keep large blocks that are freed: fresh pages for the gradients of each step take a third of its time."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, most_mmaps = -1, -4
        libc.mallopt(most_mmaps, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with mnist/")
    parser.add_argument("--tasks", type=int, nargs="+", default=[10], choices=SCHEDULES["both"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument(
        "--schedule", choices=ALL_SCHEDULES, help="train as long and as fast as this row, not as each row's own"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/permuted_mnist"), help="where unfinished runs are kept")
    parser.add_argument("--save", action="store_true", help=f"keep the results in {RESULT.name}")
    parser.add_argument("--segments", action="store_true", help="measure segments computed by context and by row, only")
    parser.add_argument("--unlabelled", action="store_true", help="find contexts without labels, only")
    args = parser.parse_args()
    use_heap()
    if args.segments:
        found = segments_by_context()
        if args.save:
            keep("segments", "2048x10x784", found)
        return
    if not args.data_root:
        parser.error("--data-root is needed")
    images = mnist(args.data_root)
    for tasks in args.tasks:
        for seed in args.seeds:
            if args.unlabelled:
                found = unlabelled(images, tasks, seed)
                say(json.dumps(found))
                if args.save:
                    keep("unlabelled", f"{tasks}-{seed}", found)
                continue
            for row in args.rows:
                if tasks not in ALL_SCHEDULES[args.schedule or row]:
                    say(f"{row}-{tasks}-{seed}: left out, there is no published schedule")
                    continue
                of = setting(row, tasks, seed, args.schedule)
                if of.name in kept().get("runs", {}):
                    say(f"{of.name}: there is a result")
                    continue
                run = Run(of, images, args.runs)
                found = run()
                say(f"{of.name}: {found['accuracy']:.4f}, published {of.published}")
                if args.save:
                    keep("runs", of.name, found)
                    (args.runs / f"{of.name}.pt").unlink()


if __name__ == "__main__":
    main()
