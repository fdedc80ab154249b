"""``export``: a trained network into a folder, for Loihi's arithmetic, Lava or NIR, with the report that says whether it is still
the trained one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events
from eventnet.hardware.deployment import Deployment
from eventnet.hardware.lava import EXPECTED, rebuilt
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.parity import Gate, ParityReport, accuracy_gate, lava_gate, measure

__all__ = ["TARGETS", "export"]

TARGETS = ("loihi", "lava")
NETWORK = "network.safetensors"


def export(
    deployment: Deployment,
    model: nn.Module | list[nn.Module],
    target: str,
    folder: str | Path,
    events: Events,
    labels: Tensor | None = None,
    *,
    tolerance: float = 0.01,
    samples: int = 3,
    chip: str = "loihi2",
    say: Callable[[str], None] = lambda text: None,
) -> ParityReport:
    """Write the files of a target, and ``parity.json`` and ``parity.html`` beside them; returns the report with its gates.

    Args:
        deployment: of ``compile``.
        model: what it was compiled from.
        target: "loihi": one file, ``network.safetensors``; "lava": also a script that runs it there.
        folder: made if it is not there.
        events, labels: samples that were not used before; the first few go into the files, for their own check.
        tolerance: accuracy that may be lost.
        samples: that the files check themselves with, and that Lava runs if it is installed.
        chip: a profile whose limits are checked.
        say: told what is being done.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    deployment.save(folder / NETWORK)
    some = events[: min(samples, events.batch_size)]
    raster = deployment.raster(some)
    say("comparing the network on the chip with the trained one")
    report = measure(deployment, model, events, labels, chip=chip)
    if target == "loihi":
        report.gates += _loads(lambda: Deployment.load(folder / NETWORK).network, NETWORK, deployment.network, raster)
    else:
        script = deployment.to_lava(folder, some)
        report.gates += _loads(lambda: rebuilt(script), f"{script.name} and {EXPECTED}", deployment.network, raster)
    report.gates.append(accuracy_gate(report.facts, tolerance))
    if target == "lava":
        say(f"running {raster.shape[1]} samples of {len(raster)} steps in Lava")
        report.gates.append(lava_gate(script, raster.shape[1]))
    report.save(folder)
    return report


def _loads(load: Callable[[], HardwareNetwork], what: str, network: HardwareNetwork, raster: Tensor) -> list[Gate]:
    """L0 and L1: the files load, and what they say is the network that was simulated."""
    try:
        found = load()
    except (OSError, ValueError, TypeError) as error:
        return [Gate("L0", False, f"{what}: {error}"), Gate("L1", None, "there is nothing to simulate")]
    mine: Any = simulate(network, raster)
    theirs: Any = simulate(found, raster)
    wrong = [
        f"{part} of {name}"
        for part in mine._fields
        for name, x in getattr(mine, part).items()
        if not torch.equal(x, getattr(theirs, part)[name])
    ]
    numbers = sum(x.numel() for part in mine for x in part.values())
    text = (
        f"differs in {', '.join(wrong)}"
        if wrong
        else f"{numbers:,} spikes, currents and voltages are equal, bit for bit"
    )
    return [Gate("L0", True, f"{what}: {len(found.populations)} populations"), Gate("L1", not wrong, text)]
