"""A run: from a recipe to a folder with its config, metrics, checkpoints, plots and test result.

config.json        recipe, data root, what the data set says about itself
environment.json   versions, machine, kernels
metrics.csv        a row per finished epoch
model.safetensors, model.json   the weights of the best validation epoch and what they mean
training.pt        where --resume goes on
result.json        accuracy on the test part (sMAPE of a forecast), measured once, at the end
plots/*.png
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from eventnet import __version__, data, kernels
from eventnet.data.permuted import TaskDataset
from eventnet.training.batches import Batches
from eventnet.training.build import build
from eventnet.training.checkpoint import (
    FORMAT,
    load_model,
    load_state,
    read_json,
    to_json,
    write_files,
)
from eventnet.training.continual import ContinualRecipe, TaskBatches
from eventnet.training.errors import CheckpointError, DataError, RecipeError, TrainingError, nearest
from eventnet.training.evaluation import Evaluation, evaluate_network
from eventnet.training.network import Network
from eventnet.training.recipe import GatedRecipe, Recipe
from eventnet.training.setting import fields_of

__all__ = ["Result", "evaluate", "fresh_folder", "load_data", "recipe_of", "train"]

CONFIG, ENVIRONMENT, RESULT = "config.json", "environment.json", "result.json"
PARTS = ("train", "validation", "test")
CALIBRATION_SAMPLES = 256
ACCELERATORS = ("cpu", "gpu", "auto")


@dataclass(frozen=True)
class Result:
    """A finished run: ``test`` is the best epoch's network on the test part."""

    folder: Path
    recipe: Recipe
    test: Evaluation
    best_epoch: int
    validation_accuracy: float | None  # None of forecasts
    validation_loss: float
    seconds: float
    plots: tuple[Path, ...]


def train(
    recipe: Recipe | None,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    data_root: str | os.PathLike[str] | None = None,
    splits: data.Splits | None = None,
    accelerator: str = "cpu",
    progress: bool = True,
    callbacks: Sequence[Any] = (),
) -> Result:
    """Train by a recipe into a folder, keep the best validation epoch, test it once, draw the plots.

    Args:
        recipe: what to train; with ``resume`` it may be None, and must be the run's own if given.
        folder: a new or empty folder; with ``resume`` the folder of a run that was stopped.
        resume: go on after the last finished epoch, to the same numbers as if it had not been stopped.
        data_root: where the recordings are; see ``eventnet.data.load``.
        splits: data that is loaded already, instead of ``recipe.data``.
        accelerator: "cpu", "gpu" or "auto"; compiled kernels run on the CPU, others need ``backend="reference"``.
        progress: show the progress bar.
        callbacks: further Lightning callbacks.

    Raises:
        UserError (RecipeError, DataError, CheckpointError, TrainingError): with what to do about it.

    Example:
        >>> train(find("digits"), "runs/digits").test.accuracy  # doctest: +SKIP
    """
    folder = Path(folder)
    _check_accelerator(accelerator)
    if resume:
        recipe, data_root = _to_resume(folder, recipe, data_root)
    elif recipe is None:
        raise RecipeError("train: expected a recipe, got None; only a resumed run knows its own")
    else:
        _claim(folder)
    try:
        splits = load_data(recipe, data_root) if splits is None else splits
        _check_step(recipe, splits)
        _check_tasks(recipe, splits)
        _check_objective(recipe, splits)
        if not resume:
            _describe(folder, recipe, data_root, splits)
        with torch.random.fork_rng(devices=[]):
            history = _fit(recipe, folder, splits, resume, accelerator, progress, callbacks)
            return _finish(folder, splits, history)
    except BaseException:
        if not resume:
            _unclaim(folder)
        raise


def evaluate(
    folder: str | os.PathLike[str], *, part: str | None = None, data_root: str | os.PathLike[str] | None = None
) -> Evaluation:
    """The best network of a run on one part of its data: "test", "validation" or "train".

    Without ``part`` it is the test part of a finished run. Of one that is not finished the part has to be named,
    so that nobody chooses on the test part unawares.
    """
    folder = Path(folder)
    if part is not None and part not in PARTS:
        raise RecipeError(f"part: expected {', '.join(PARTS)}, got {part!r}{nearest(part, PARTS)}")
    _read_config(folder)  # is it a run at all?
    if part is None and not (folder / RESULT).is_file():
        raise CheckpointError(
            f"{folder}: this run is not finished, and the test part is for its end; part='validation' measures what it "
            "has learnt so far, part='test' insists"
        )
    network, _ = load_model(folder)
    return evaluate_network(network, getattr(data_of(folder, data_root), part or "test"))


def data_of(folder: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> data.Splits:
    """The data that a run was trained on; ``data_root`` if it lies elsewhere by now."""
    config = _read_config(Path(folder))
    return load_data(recipe_of(folder), data_root or config.get("data_root"))


def _check_accelerator(name: str) -> None:
    if name not in ACCELERATORS:
        raise RecipeError(f"accelerator: expected {', '.join(ACCELERATORS)}, got {name!r}{nearest(name, ACCELERATORS)}")
    if name == "gpu" and not torch.cuda.is_available():
        raise RecipeError("accelerator 'gpu': torch sees no GPU here; use cpu, or auto to take what there is")


def fresh_folder(wanted: str | os.PathLike[str]) -> Path:
    """``wanted``, or ``wanted-2``, ``wanted-3``, ... if there is something of that name already."""
    wanted = Path(wanted)
    folder, k = wanted, 1
    while folder.exists():
        k += 1
        folder = wanted.with_name(f"{wanted.name}-{k}")
    return folder


def load_data(recipe: Recipe, root: str | os.PathLike[str] | None) -> data.Splits:
    """The data set of a recipe."""
    options = dict(recipe.data_options)
    if recipe.validation_fraction is not None:
        options["validation_fraction"] = recipe.validation_fraction
    if isinstance(recipe, ContinualRecipe):
        options["tasks"] = recipe.tasks
    try:
        splits = data.load(recipe.data, root, seed=recipe.seed, **options)
    except (OSError, ValueError, TypeError) as error:
        text = str(error).replace("root=", "data_root=")
        absent = isinstance(error, FileNotFoundError) and "data_root=" not in text
        raise DataError(f"{text}; data_root=<folder> names another" if absent else text) from error
    for part in PARTS:
        if not len(getattr(splits, part)):
            raise DataError(f"{recipe.data}: the {part} part is empty; validation_fraction keeps some samples")
    return splits


def _check_step(recipe: Recipe, splits: data.Splits) -> None:
    """Steps of a gated network that are not those of the data would merge some, or leave some empty."""
    if isinstance(recipe, GatedRecipe) and splits.step is not None and recipe.step != splits.step:
        raise DataError(
            f"{splits.name} comes in steps of {splits.step:g} s; expected step={splits.step:g}, got {recipe.step:g}"
        )


def _check_tasks(recipe: Recipe, splits: data.Splits) -> None:
    """A network that learns task after task has segments for so many."""
    if not isinstance(recipe, ContinualRecipe):
        return
    for part in PARTS:
        dataset = getattr(splits, part)
        tasks = dataset.num_tasks if isinstance(dataset, TaskDataset) else 0
        if tasks != recipe.tasks:
            raise DataError(
                f"{splits.name}: expected a {part} part of {recipe.tasks} tasks (eventnet.data.permuted.TaskDataset), got "
                f"{tasks or type(dataset).__name__}"
            )


def _check_objective(recipe: Recipe, splits: data.Splits) -> None:
    """Numbers to forecast need a network that goes step by step, and have no accuracy to choose by."""
    if not splits.forecasts:
        if isinstance(recipe, GatedRecipe) and recipe.standardize:
            raise RecipeError(
                f"standardize: outputs are then in units of the inputs, as of a forecast; {splits.name} has classes"
            )
        return
    if not isinstance(recipe, GatedRecipe) or recipe.readout != "each":
        raise DataError(f"{splits.name} is to be forecast; expected a gated recipe with readout=each")
    if recipe.best != "loss":
        raise DataError(
            f"{splits.name} is to be forecast, so there is no accuracy; expected best=loss, got {recipe.best}"
        )
    if splits.num_units % splits.num_classes:
        raise DataError(
            f"{splits.name}: expected the {splits.num_units} units of a step to be whole steps of {splits.num_classes} numbers, "
            "the latest first, so that a forecast can take their place"
        )


def initial_network(recipe: Recipe, splits: data.Splits) -> Network:
    """The network before training; depends on recipe and data alone."""
    network = build(recipe, splits.num_units, splits.num_classes)
    batches = Batches(splits.train, CALIBRATION_SAMPLES, shuffle=True, seed=recipe.seed)
    events, _ = next(iter(batches))
    try:
        network.calibrate_(events)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"init_firing: {error}") from error
    return network


# ---- the steps of train -----------------------------------------------------------------------------------


def _claim(folder: Path) -> None:
    """Make the folder, and find out now whether it can be written, not after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be made the run's folder ({error.strerror or error}); choose another with --out"
        ) from error
    if taken:
        raise CheckpointError(
            f"{folder}: is not empty; --resume {folder} goes on with the run in it, --out chooses another folder"
        )


def _unclaim(folder: Path) -> None:
    """Take back a folder in which no epoch was finished, so that it does not stand in the way of the next attempt."""
    with contextlib.suppress(OSError):  # what stopped the run is what the user must hear of
        if {path.name for path in folder.iterdir()} <= {CONFIG, ENVIRONMENT}:
            (folder / CONFIG).unlink(missing_ok=True)
            (folder / ENVIRONMENT).unlink(missing_ok=True)
            folder.rmdir()


def _describe(folder: Path, recipe: Recipe, root: Any, splits: data.Splits) -> None:
    config = {
        "format": FORMAT,
        "recipe": recipe.to_dict(),
        "data_root": None if root is None else str(root),
        "data": splits.note,
    }
    write_files({folder / CONFIG: to_json(config), folder / ENVIRONMENT: to_json(environment())})


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    names = ("torch", "lightning", "numpy", "tonic", "safetensors", "scikit-learn")
    versions = {name: metadata.version(name) for name in names}
    return {
        "eventnet": __version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "kernels": kernels.available(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor()


def recipe_of(folder: str | os.PathLike[str]) -> Recipe:
    """The recipe that a run was started with."""
    return Recipe.from_dict(_read_config(Path(folder))["recipe"])


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG} there, so this is not the folder of a run")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") != FORMAT or "recipe" not in config:
        raise CheckpointError(
            f"{folder / CONFIG}: not a run of format {FORMAT}, which eventnet {__version__} reads; "
            "use the version it was written with, or start another run"
        )
    return config


def _to_resume(folder: Path, recipe: Recipe | None, root: Any) -> tuple[Recipe, Any]:
    """The recipe and data root of the run to resume."""
    config = _read_config(folder)
    if (folder / RESULT).is_file():
        raise CheckpointError(
            f"{folder}: this run is finished, and the test part is used once; start another run with more epochs"
        )
    own = Recipe.from_dict(config["recipe"])
    if recipe is not None and recipe != own:
        changed = [s.name for s in fields_of(own) if getattr(recipe, s.name) != getattr(own, s.name)]
        raise RecipeError(
            f"{folder}: a resumed run keeps its recipe ({own.name}), but {', '.join(changed) or 'name'} differ; "
            "leave them out, or start another run"
        )
    return own, config.get("data_root") if root is None else root


def _fit(
    recipe: Recipe,
    folder: Path,
    splits: data.Splits,
    resume: bool,
    accelerator: str,
    progress: bool,
    callbacks: Sequence[Any],
) -> list[dict[str, float]]:
    network = initial_network(recipe, splits)
    state = load_state(folder) if resume and (folder / "training.pt").exists() else None
    history: list[dict[str, float]] = []
    if state is not None:
        network.load_state_dict(state["network"])
        history = state["history"]
    if len(history) >= recipe.total_epochs:
        return history

    import lightning.pytorch as lightning

    from eventnet.training.module import Classifier
    from eventnet.training.recorder import Progress, Recorder, TaskStart

    batches, validation = _batches(recipe, splits)
    module = Classifier(recipe, network, len(history), None if state is None else state["optimizer"])
    shown = [Progress(recipe.total_epochs)] if progress else []
    kept = [Recorder(folder, (batches, validation), history)]
    begun = [TaskStart(batches)] if isinstance(batches, TaskBatches) else []
    for each in (batches, validation):
        each.set_epoch(len(history))
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=recipe.total_epochs - len(history),
            gradient_clip_val=recipe.gradient_clip,
            callbacks=[*shown, *callbacks, *kept, *begun],
            reload_dataloaders_every_n_epochs=1,  # which may have become longer by a task
            default_root_dir=folder,
            # what Lightning would do at every step or print at the start, and the recorder does once per
            # epoch
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, batches, validation)
        except SystemExit as stop:  # what Lightning makes of Ctrl+C
            if not history and not resume:
                raise TrainingError(f"stopped in epoch 1 of {recipe.total_epochs}; there was nothing to keep") from stop
            raise TrainingError(
                f"stopped after epoch {len(history)} of {recipe.total_epochs}; eventnet train {recipe.name} "
                f"--resume {folder} goes on"
            ) from stop
    return history


def _batches(recipe: Recipe, splits: data.Splits) -> tuple[Batches, Batches]:
    """Those of training, shuffled and augmented, and of validation."""
    varied: dict[str, Any] = {"shuffle": True, "seed": recipe.seed}
    varied |= {"dropout": recipe.input_dropout, "shift": recipe.input_shift}
    if isinstance(recipe, ContinualRecipe):
        assert isinstance(splits.train, TaskDataset) and isinstance(splits.validation, TaskDataset)  # as checked
        return TaskBatches(splits.train, recipe, **varied), TaskBatches(splits.validation, recipe, so_far=True)
    return Batches(splits.train, recipe.batch_size, **varied), Batches(splits.validation, recipe.batch_size)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, its list of devices, and warnings about what is meant to be so here."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*GPU available but not used.*")
        warnings.filterwarnings("ignore", module=r"lightning\.pytorch\.utilities\._pytree")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _finish(folder: Path, splits: data.Splits, history: list[dict[str, float]]) -> Result:
    network, description = load_model(folder)
    test = evaluate_network(network, splits.test)
    seconds = sum(row["seconds"] for row in history)
    facts = {
        "best_epoch": int(description["epoch"]),
        "validation_accuracy": description.get("validation_accuracy"),
        "validation_loss": description.get("validation_loss", math.nan),  # which older versions did not keep
        "seconds": round(seconds, 2),
    }
    written = {name: value for name, value in facts.items() if value is not None}
    write_files({folder / RESULT: to_json({**written, "test": test.summary()})})
    from eventnet.training.figures import draw

    plots = draw(folder / "plots", initial_network(network.recipe, splits), network, splits, history, test)
    return Result(folder=folder, recipe=network.recipe, test=test, plots=plots, **facts)
