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
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.lava import EXPECTED, rebuilt
from eventnet.hardware.loihi import simulate
from eventnet.hardware.mapping import profile
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.netx import to_netx
from eventnet.hardware.parity import Gate, ParityReport, accuracy_gate, chip_gate, lava_gate, measure

__all__ = ["TARGETS", "export"]

TARGETS = ("loihi", "lava", "nir")
NETWORK, GRAPH, NETX = "network.safetensors", "network.nir", "network.net"


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
    steps: int = 200,
    chip: str = "loihi2",
    say: Callable[[str], None] = lambda text: None,
) -> ParityReport:
    """Write the files of a target, and ``parity.json`` and ``parity.html`` beside them; returns the report with its gates.

    Args:
        deployment: of ``compile``.
        model: what it was compiled from.
        target: "loihi": one file, ``network.safetensors``; "lava": also a script that runs it there, and
            ``network.net`` for netx if that can hold it; "nir": ``network.nir``, the
            trained layers themselves in steps of the deployment's dt.
        folder: made if it is not there.
        events, labels: samples that were not used before; the first few go into the files, for their own check.
        tolerance: accuracy that may be lost.
        samples, steps: that the files check themselves with, and that Lava runs if it is installed: so many samples, so many of
            their first steps (Lava takes up to half a second for one).
        chip: a profile whose limits are checked.
        say: told what is being done.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    profile(chip)  # an unknown one is named before anything is written
    if samples < 1 or not events.batch_size:
        raise ValueError("samples: expected at least one for the files to check themselves with, got none")
    if target == "nir" and gated_of(model) is not None:
        raise TypeError(
            "NIR has no node for EGRU units: expected LIF and LI layers; the targets loihi and lava hold them"
        )
    if target == "nir" and deployment.network.notes.get("fine_tuned"):
        raise ValueError(
            "NIR holds the trained layers, and this deployment was fine-tuned in the chip's integers: export the one of compile"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if target == "nir":
        from eventnet.hardware.nir_report import nir_report

        say("running the file in steps, and comparing it with the trained network")
        checks: dict[str, Any] = {"tolerance": tolerance, "samples": samples, "steps": steps}
        report = nir_report(deployment, model, folder / GRAPH, events, labels, **checks)
        report.save(folder)
        return report
    deployment.save(folder / NETWORK)
    some = events[: min(samples, events.batch_size)]
    raster = deployment.raster(some)[:steps]
    say("comparing the network on the chip with the trained one")
    report = measure(deployment, model, events, labels, chip=chip)
    if target == "loihi":
        report.gates += _loads(lambda: Deployment.load(folder / NETWORK).network, NETWORK, deployment.network, raster)
    else:
        script = deployment.to_lava(folder, some, steps)
        report.gates += _loads(lambda: rebuilt(script), f"{script.name} and {EXPECTED}", deployment.network, raster)
    report.gates += [accuracy_gate(report.facts, tolerance), chip_gate(report.facts)]
    if target == "lava":
        report.facts["identity"]["netx"] = _netx(deployment, folder / NETX)
        say(f"running {raster.shape[1]} samples of {len(raster)} steps in Lava")
        report.gates.append(lava_gate(script, raster.shape[1]))
    report.save(folder)
    return report


def _netx(deployment: Deployment, path: Path) -> str:
    """Also write the file that netx reads, if it can hold the network; what became of it."""
    try:
        to_netx(deployment.network, path)
    except ValueError as error:
        return f"no file for netx: {error}"
    return path.name


def _loads(load: Callable[[], HardwareNetwork], what: str, network: HardwareNetwork, raster: Tensor) -> list[Gate]:
    """L0 and L1: the files load, and what they say is the network that was simulated."""
    try:
        found = load()
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [Gate("L0", False, f"{what}: {error!r}"), Gate("L1", None, "there is nothing to simulate")]
    if changed := [
        name for name, x in numbers_of(network).items() if not torch.equal(x, numbers_of(found).get(name, x[:0]))
    ]:
        return [Gate("L0", True, f"{what}: read"), Gate("L1", False, f"differs in {', '.join(changed[:5])}")]
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


def numbers_of(network: HardwareNetwork) -> dict[str, Tensor]:
    """Every number of a graph, by name; weights as the synapses hold them, in the order of the projections' names."""
    found: dict[str, Tensor] = {}
    for each in network.populations:
        found |= {f"{each.name}.{name}": x for name, x in vars(each).items() if isinstance(x, Tensor)}
    for projection in network.projections:
        own = {name: x for name, x in vars(projection).items() if isinstance(x, Tensor)} | {
            "weight": projection.effective()
        }
        found |= {f"{projection.name}{projection.port and '.' + projection.port}.{name}": x for name, x in own.items()}
    return found
