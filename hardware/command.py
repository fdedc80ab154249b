"""What ``eventnet export`` does: compile a trained network, show what steps cost, fine-tune if asked, write the files, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events, metrics
from eventnet.hardware.deployment import STEP, Deployment, compile
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.exporting import TARGETS, export, export_nir
from eventnet.hardware.finetuning import finetune
from eventnet.hardware.parity import ParityReport
from eventnet.hardware.trained import reading_of, scores_of

__all__ = ["export_run", "step_costs", "subset"]

Say = Callable[[str], None]
CALIBRATION, CHIP = 64, "loihi2"  # what export_run and export take unless told


def export_run(
    model: nn.Module,
    splits: Any,
    target: str,
    folder: str | Path,
    *,
    batches: Iterable[tuple[Events, Tensor]] = (),
    dt: float | None = None,
    try_dt: Sequence[float] = (),
    calibration: int = CALIBRATION,
    epochs: int = 0,
    limit: int | None = None,
    say: Say = lambda text: None,
    **options: Any,
) -> ParityReport:
    """Export a trained network to a target, and compare the two on the test part of its data.

    Args:
        model: the trained network.
        splits: its data, with parts ``train``, ``validation`` and ``test`` of ``(Events, label)``.
        target, folder: as of ``export``, which gets all further options.
        batches: of training data, to fine-tune with for so many ``epochs``.
        dt: seconds of a step, by default as of ``compile``; ``try_dt``: others whose cost is shown beside it, on the validation
            part.
        calibration: training samples that the scales are searched on, evenly from all; for NIR neither these
            nor a ``chip`` are used, which is said where they are given.
        limit: at most so many samples of the test part (and of the validation part), evenly from all.
        say: told what is being done.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    test = subset(splits.test, limit)
    if target == "nir":
        _check_nir(epochs, try_dt)
        unused = {"calibration": calibration != CALIBRATION, "chip": options.pop("chip", CHIP) != CHIP}
        if names := [name for name, given in unused.items() if given]:
            say(f"note: not used: {' and '.join(names)}; NIR holds the trained layers, not a chip's integers")
        return export_nir(model, folder, *test, dt=STEP if dt is None else dt, say=say, **options)
    typical, _ = subset(splits.train, calibration, "calibration")
    validation = subset(splits.validation, limit)
    if try_dt:
        gated = gated_of(model)
        used = dt or (STEP if gated is None else gated.step)
        say(f"trained (float), on the validation part: {_accuracy(model, *validation):.2%}")
        costs = step_costs(model, typical, *validation, sorted({*try_dt, used}))
        say("step length, on the validation part: " + "; ".join(str_of(cost) for cost in costs))
    deployment = compile(model, calibration=typical, dt=dt)
    say(f"compiled for steps of {deployment.network.dt * 1e3:g} ms")
    if epochs:
        deployment = finetune(deployment, batches, epochs=epochs, validation=validation, say=say)
    return export(deployment, model, target, folder, *test, say=say, **options)


def _check_nir(epochs: int, try_dt: Sequence[float]) -> None:
    for name, given in (("finetune", epochs), ("try_dt", try_dt)):
        if given:
            raise ValueError(f"{name}: NIR holds the trained layers, not the chip's integers: leave it out")


def _accuracy(model: nn.Module, events: Events, labels: Tensor) -> float:
    """Of the trained network."""
    reading, _ = reading_of(model)
    return metrics.accuracy(reading.predict(scores_of(model, reading, events)), labels)


def step_costs(
    model: nn.Module, calibration: Events, events: Events, labels: Tensor, dts: Iterable[float]
) -> list[dict[str, Any]]:
    """What each step length costs: accuracy and spikes of the network compiled for it, or why it cannot be.

    Example:
        >>> from eventnet import LI, LIF
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> [cost["dt"] for cost in step_costs([LIF(4, 3), LI(3, 2)], events, events, torch.tensor([0]), [1e-3, 2e-3])]
        [0.001, 0.002]
    """
    found: list[dict[str, Any]] = []
    for dt in dts:
        try:
            deployment: Deployment = compile(model, calibration=calibration, dt=dt)
        except ValueError as error:
            found.append({"dt": dt, "refused": str(error)})
            continue
        decision = deployment.run(events)
        spikes = {name: float(n.double().mean()) for name, n in decision.spikes.items() if name != "input"}
        right = metrics.accuracy(deployment.reading.predict(decision.scores), labels)
        found.append({"dt": dt, "accuracy": right, "spikes_per_sample": sum(spikes.values())})
    return found


def str_of(cost: dict[str, Any]) -> str:
    """A step length and its cost, in words."""
    if "refused" in cost:
        return f"{cost['dt'] * 1e3:g} ms refused ({cost['refused']})"
    return f"{cost['dt'] * 1e3:g} ms {cost['accuracy']:.2%}, {cost['spikes_per_sample']:.0f} spikes"


def subset(part: Any, limit: int | None, name: str = "limit") -> tuple[Events, Tensor]:
    """Samples of a part of a data set, evenly from all if there are more than the limit, which errors call by ``name``."""
    if limit is not None and limit < 1:
        raise ValueError(f"{name}: expected at least 1 sample, got {limit}")
    size = len(part)
    chosen = torch.arange(size) if limit is None or limit >= size else torch.linspace(0, size - 1, limit).long()
    events, labels = part.__getitems__(chosen.tolist())
    return events, labels
