"""``export``: a trained network into a folder, for Loihi's arithmetic, Lava or NIR, with the report that says whether it is still
the trained one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events
from eventnet.files import write_files
from eventnet.hardware.checks import check_events
from eventnet.hardware.deployment import NETWORK, STEP, Deployment
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.lava import ARRAYS, EXPECTED, SCRIPT, rebuilt
from eventnet.hardware.loihi import simulate
from eventnet.hardware.mapping import profile
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.netx import to_netx
from eventnet.hardware.parity import PAGE, REPORT, Gate, ParityReport, accuracy_gate, chip_gate, lava_gate, measure
from eventnet.hardware.reading import Reading
from eventnet.hardware.trained import reading_of

__all__ = ["TARGETS", "export", "export_nir"]

TARGETS = ("loihi", "lava", "nir")
GRAPH, NETX = "network.nir", "network.net"
FILES = frozenset({NETWORK, GRAPH, NETX, SCRIPT, ARRAYS, EXPECTED, REPORT, PAGE})  # that exports write

Say = Callable[[str], None]


def export(
    deployment: Deployment,
    model: nn.Module | list[nn.Module] | None,
    target: str,
    folder: str | Path,
    events: Events,
    labels: Tensor | None = None,
    *,
    tolerance: float = 0.01,
    samples: int = 3,
    steps: int = 200,
    chip: str = "loihi2",
    say: Say = lambda text: None,
) -> ParityReport:
    """Write the files of a target, and ``parity.json`` and ``parity.html`` beside them; returns the report with its gates.

    All files are written once everything is made, or none. Then those are removed that the ``parity.json`` of an earlier export
    into this folder lists as its own.

    Args:
        deployment: of ``compile``.
        model: what it was compiled from; None: the one that the deployment has.
        target: "loihi": one file, ``network.safetensors``; "lava": also a script that runs it there, and
            ``network.net`` for netx if that can hold it; "nir": ``network.nir``, the
            trained layers themselves in steps of the deployment's dt (``export_nir`` needs no deployment).
        folder: made if it is not there.
        events, labels: samples that were not used before; the first few go into the files, for their own check.
        tolerance: accuracy that may be lost.
        samples, steps: that the files check themselves with, and that Lava runs if it is installed: so many samples, so many of
            their first steps (Lava takes up to half a second for one).
        chip: a profile whose limits are checked.
        say: told what is being done, and each warning.

    Raises:
        ValueError: the model is not the one that was compiled; something that the target cannot hold.
        FileExistsError: something in the folder that is no file has the name of one to be written.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    profile(chip)  # an unknown one is named before anything is done
    model = deployment.trained(model)
    _check_samples(folder, events, samples, steps)
    checks: dict[str, Any] = {"tolerance": tolerance, "samples": samples, "steps": steps}
    if target == "nir":
        if deployment.network.notes.get("fine_tuned"):
            raise ValueError(
                "NIR holds the trained layers, and this deployment was fine-tuned in the chip's integers: export the one of "
                "compile"
            )
        how = (deployment.network.dt, deployment.reading, deployment.log.assumed)
        return _export_nir(model, folder, events, labels, *how, say, checks)

    def make(new: Path) -> ParityReport:
        deployment.save(new / NETWORK)
        few = events[: min(samples, events.batch_size)]
        raster = deployment.raster(few)[:steps]
        say("comparing the network in fixed-point simulation with the trained one")
        report = measure(deployment, model, events, labels, chip=chip)
        if target == "loihi":
            report.gates += _loads(lambda: load(new), NETWORK, deployment.network, raster)
        else:
            script = deployment.to_lava(new, few, steps)
            files = f"{script.name} and {EXPECTED}"
            report.gates += _loads(lambda: rebuilt(script), files, deployment.network, raster)
        report.gates += [accuracy_gate(report.facts, tolerance), chip_gate(report.facts)]
        if target == "lava":
            report.facts["identity"]["netx"] = _netx(deployment, new / NETX)
            say(f"running {raster.shape[1]} samples of {len(raster)} steps in Lava")
            report.gates.append(lava_gate(script, raster.shape[1]))
        return report

    def load(new: Path) -> HardwareNetwork:
        return Deployment.load(new / NETWORK).network

    return _written(folder, make, say)


def export_nir(
    model: nn.Module | list[nn.Module],
    folder: str | Path,
    events: Events,
    labels: Tensor | None = None,
    *,
    dt: float = STEP,
    reading: Reading | str | None = None,
    tolerance: float = 0.01,
    samples: int = 3,
    steps: int = 200,
    say: Say = lambda text: None,
) -> ParityReport:
    """Write the trained layers as ``network.nir`` in steps of ``dt``, with the report: no integers, and no limits of a chip.

    Args:
        model: LIF layers, at the end LIF or LI; or a network of ``eventnet.training`` with these.
        dt: seconds of a step.
        reading: as of ``compile``.
        folder, events, labels, tolerance, samples, steps, say: as of ``export``.

    Example:
        >>> from eventnet import LI, LIF
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> export_nir([LIF(4, 3, delay=0.2), LI(3, 2)], tempfile.mkdtemp(), events, reading="mean")
        ParityReport(L0 passed, L1 passed, L2 not run; 0 warnings)
    """
    _check_samples(folder, events, samples, steps)
    found, assumed = reading_of(model, reading)
    checks: dict[str, Any] = {"tolerance": tolerance, "samples": samples, "steps": steps}
    return _export_nir(model, folder, events, labels, dt, found, assumed, say, checks)


def _export_nir(
    model: nn.Module | list[nn.Module],
    folder: str | Path,
    events: Events,
    labels: Tensor | None,
    dt: float,
    reading: Reading,
    assumed: list[str],
    say: Say,
    checks: dict[str, Any],
) -> ParityReport:
    from eventnet.hardware.nir_report import nir_report

    if gated_of(model) is not None:
        raise TypeError(
            "NIR has no node for EGRU units: expected LIF and LI layers; the targets loihi and lava hold them"
        )

    def make(new: Path) -> ParityReport:
        say("running the file in steps, and comparing it with the trained network")
        return nir_report(model, new / GRAPH, events, labels, dt=dt, reading=reading, assumed=assumed, **checks)

    return _written(folder, make, say)


def _check_samples(folder: str | Path, events: Events, samples: int, steps: int) -> None:
    """What can be refused before anything is done."""
    check_events("events", events)
    if samples < 1 or not events.batch_size:
        raise ValueError("samples: expected at least one for the files to check themselves with, got none")
    if steps < 1:
        raise ValueError(f"steps: expected at least one for the files to check themselves with, got {steps}")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, or nothing yet")


def _written(folder: str | Path, make: Callable[[Path], ParityReport], say: Say) -> ParityReport:
    """Make the files somewhere else; once they are whole, write all of them and remove those of an earlier export."""
    folder = Path(folder)
    with tempfile.TemporaryDirectory(prefix="eventnet-") as new:
        report = make(Path(new))
        made = {path.name for path in Path(new).iterdir() if path.is_file()}
        report.facts["files"] = sorted(made | {REPORT, PAGE})
        report.save(new)
        found = {path.name: path.read_bytes() for path in sorted(Path(new).iterdir()) if path.is_file()}
    for path in (folder / name for name in found):
        if path.exists() and not path.is_file():
            raise FileExistsError(f"{path}: expected a file, or nothing yet; nothing was written")
    stale = sorted(_own_files(folder) - found.keys())
    folder.mkdir(parents=True, exist_ok=True)
    write_files({folder / name: content for name, content in found.items()})
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    if stale:
        say(f"removed, as of an earlier export: {', '.join(stale)}")
    for word, fact in (("note", "assumed"), ("warning", "warnings")):
        for line in report.facts.get(fact, ()):
            say(f"{word}: {line}")
    return report


def _own_files(folder: Path) -> set[str]:
    """The files that an earlier export into the folder says are its own, and that are there."""
    try:
        listed = json.loads((folder / REPORT).read_text()).get("files", [])
    except (OSError, ValueError, AttributeError):  # no report, or somebody else's file
        return set()
    known = {name for name in listed if isinstance(name, str) and name in FILES} if isinstance(listed, list) else set()
    return {name for name in known if (folder / name).is_file()}


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
    if not (numbers or wrong):
        return [Gate("L0", True, f"{what}: read"), Gate("L1", None, "no step was simulated: nothing was compared")]
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
