"""The parity report of a NIR file: the file run in steps, as other tools run it, beside the trained layers.

A step of NIR gives what holds at its end. Here the start is step 0, and what the file gives in its step k is that of time
(k + 1) dt: spikes and voltages of both networks then stand side by side.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from eventnet import LI, LIF, Events
from eventnet.hardware.dynamics import chosen, compare_spikes
from eventnet.hardware.nir import Disagreement, Imported, from_nir, write_nir
from eventnet.hardware.nir.check import check_against, neurons_of
from eventnet.hardware.nir.layers import branch_of
from eventnet.hardware.nir.readers import verdicts
from eventnet.hardware.nir.simulate import Simulation, Traces
from eventnet.hardware.parity import Gate, ParityReport, accuracy_gate, compared, identity
from eventnet.hardware.parity_facts import warnings_of
from eventnet.hardware.quantize import layers_of, names_of, rasterize, within
from eventnet.hardware.reading import Reader, Reading

__all__ = ["nir_report"]

SAMPLES, STEPS = 64, 64  # that are simulated at a time

Synapses = Mapping[tuple[str, str], Tensor]
"""Of each projection, by its source and target, the synapses of each source neuron whose weight is not zero, ``(source,)``."""


class Run(NamedTuple):
    """What the file says of all samples: scores as the trained network's, and spikes of each neuron, ``(N,)``."""

    scores: Tensor
    spikes: dict[str, Tensor]


def nir_report(
    model: nn.Module | list[nn.Module],
    path: Path,
    events: Events,
    labels: Tensor | None = None,
    *,
    dt: float,
    reading: Reading,
    assumed: Sequence[str] = (),
    tolerance: float = 0.01,
    samples: int = 3,
    steps: int = 200,
) -> ParityReport:
    """Write a NIR file, read it again, run it in steps, and compare it with the model: the gates L0, L1 and L2.

    What the file does with the events is measured if it passes the first two.

    Args:
        model: LIF layers, at the end LIF or LI; see ``layers_of``.
        path: of the file.
        dt: seconds of a step.
        reading, assumed: how the outputs are read, and what was assumed about it; see ``trained.reading_of``.
        events, labels, tolerance, samples, steps: as of ``export``.
    """
    layers = layers_of(model)
    report = ParityReport({"identity": identity("NIR", model, events, dt, reading), "assumed": list(assumed)})
    try:
        found = _written(layers, path, dt)
    except Disagreement as error:
        report.gates = [Gate("L0", False, str(error).replace(str(path), path.name))]
        report.gates += [Gate(name, None, "there is no file to run") for name in ("L1", "L2")]
        return report
    report.facts["identity"]["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    report.facts |= {"parameters": {"graph": {"delay_worst_s": found.delay_rounding}}, **_readers(found)}
    same = _same(found, layers, rasterize(events[:samples], dt)[:steps].cpu())
    report.gates = [Gate("L0", True, f"{path.name}: {found!r}"), same]
    if same.passed is False:
        report.gates.append(Gate("L2", None, "the file is another network"))
        return report
    _measure(report, found, model, reading, events, labels)
    report.facts["warnings"] = warnings_of(report.facts)
    report.gates.append(accuracy_gate(report.facts, tolerance, "in the file, run in steps"))
    return report


def _readers(found: Imported) -> dict[str, Any]:
    """What other tools make of the file, and what they lose."""
    read = verdicts(found)
    return {
        "lost": [f"{reader} {verdict}" for reader, verdict in read.items() if verdict.losses],
        "readers": {reader: verdict.answer for reader, verdict in read.items()},
    }


def _written(layers: list[LIF | LI], path: Path, dt: float) -> Imported:
    """The file, written and read again."""
    write_nir(layers, path, dt=dt)
    try:
        return from_nir(path)
    except ValueError as error:
        raise Disagreement(str(error)) from error


def _same(found: Imported, layers: list[LIF | LI], raster: Tensor) -> Gate:
    """L1: the file that was read again does what the layers' own equations do, on random spikes and on these."""
    try:
        checks = {"random spikes": check_against(found, layers), "the samples": check_against(found, layers, raster)}
    except Disagreement as error:
        return Gate("L1", False, str(error))
    text = "; ".join(f"{each} on {what}" for what, each in checks.items())
    if not all(each.voltages for each in checks.values()):
        return Gate("L1", None, f"rounding decided on a spike of the first step, so that nothing was compared: {text}")
    return Gate("L1", True, f"read again and run beside the layers' own equations: {text}")


@torch.no_grad()
def _measure(
    report: ParityReport,
    found: Imported,
    model: nn.Module | list[nn.Module],
    reading: Reading,
    events: Events,
    labels: Tensor | None,
) -> None:
    """Add what the file does with the events, and what is in it."""
    names = dict(zip(names_of(layers_of(model)), neurons_of(found), strict=True))
    synapses, run, few = _synapses(found, names), _run(found, names, reading, events), chosen(events)
    spikes, voltages = _recorded(found, names, few)
    dynamics, report.pictures = compare_spikes(model, few, found.rules.dt, spikes, voltages.get)
    report.facts |= {
        "dynamics": dynamics,
        "resources": _resources(found, synapses),
        "counts": _counts(run, synapses, events.batch_size),
    }
    if labels is not None:
        report.facts["accuracy"] = compared(reading, model, events, labels, run.scores.to(events.device))


# ---- the file, run ---------------------------------------------------------------------------------------------------------


def _states(found: Imported, names: Mapping[str, str], raster: Tensor) -> Iterator[Traces]:
    """The spikes and voltages of the layers at the times 0, dt, 2 dt, ..., a few steps at a time.

    What comes in the raster's last step would be in those of after the end.
    """
    simulation = Simulation(found.flat, found.rules, raster.shape[1])
    yield _of_layers(simulation.state(), names)
    for part in raster[:-1].split(STEPS):
        if len(part):  # samples may last 0 s
            yield _of_layers(simulation(part)[1], names)


def _of_layers(traces: Traces, names: Mapping[str, str]) -> Traces:
    """By the names of the layers instead of the nodes."""
    return Traces(*({name: part[node] for name, node in names.items() if node in part} for part in traces))


def _run(found: Imported, names: Mapping[str, str], reading: Reading, events: Events) -> Run:
    """All samples, a few at a time."""
    parts = [_run_piece(found, names, reading, events[k : k + SAMPLES]) for k in range(0, events.batch_size, SAMPLES)]
    rows = [row for part in parts for row in part.scores]  # scores per step are of several lengths
    scores = pad_sequence(rows, batch_first=True)
    spikes = {name: torch.stack([part.spikes[name] for part in parts]).sum(0) for name in parts[0].spikes}
    return Run(scores, spikes)


def _run_piece(found: Imported, names: Mapping[str, str], reading: Reading, events: Events) -> Run:
    """What is kept of each step is what the reader and the counts need."""
    dt, output = found.rules.dt, list(names)[-1]
    raster, steps = rasterize(events, dt).cpu(), events.num_steps(dt).cpu()
    spikes = {"input": (raster != 0).sum((0, 1))}
    size = found.flat.nodes[names[output]].r.size
    volts = dataclasses.replace(reading, volts=(1.0,) * size, offset=(0.0,) * size, lag=0)
    reader = Reader(volts, steps, dt)
    for traces in _states(found, names, raster):
        done, voltage = reader.done, traces.voltages[output]
        reader.add(voltage, traces.spikes.get(output, voltage))
        alive = within(steps, len(voltage), done)
        for name, fired in traces.spikes.items():
            spikes[name] = ((fired != 0) & alive).sum((0, 1)) + spikes.get(name, 0)
    return Run(reader.scores(), spikes)


def _recorded(found: Imported, names: Mapping[str, str], events: Events) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every step of a few samples: spikes, and voltages before the reset, 0 at the reset and 1 at the threshold."""
    raster = rasterize(events, found.rules.dt)
    spikes: dict[str, list[Tensor]] = {}
    voltages: dict[str, list[Tensor]] = {}
    for traces in _states(found, names, raster.cpu()):
        for name, before in traces.before_reset.items():
            node = found.flat.nodes[names[name]]
            reset, threshold = torch.as_tensor(node.v_reset), torch.as_tensor(node.v_threshold)
            spikes.setdefault(name, []).append(traces.spikes[name] != 0)
            voltages.setdefault(name, []).append(((before - reset) / (threshold - reset)).float())
    joined = ({name: torch.cat(parts).to(events.device) for name, parts in kept.items()} for kept in (spikes, voltages))
    fired, levels = joined
    return {"input": raster != 0, **fired}, levels


# ---- the file, counted -----------------------------------------------------------------------------------------------------


def _synapses(found: Imported, names: Mapping[str, str]) -> Synapses:
    """Those of a projection may be in several nodes, one for each delay."""
    layers = {found.flat.input: "input", **{node: name for name, node in names.items()}}
    fan_out: dict[tuple[str, str], Tensor] = {}
    for name, node in names.items():
        for source in found.flat.sources(node):
            branch = branch_of(found.flat, source, node)
            ends = layers[branch.source], name
            fan_out[ends] = torch.as_tensor((branch.weight != 0).sum(0)) + fan_out.get(ends, 0)
    return fan_out


def _resources(found: Imported, synapses: Synapses) -> dict[str, Any]:
    """The size of the file's network; parameters are all of its numbers."""
    nodes = found.flat.nodes.values()
    arrays = [x for node in nodes for x in vars(node).values() if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    return {
        "neurons": sum(int(found.flat.nodes[name].r.size) for name in neurons_of(found)),
        "synapses": sum(int(each.sum()) for each in synapses.values()),
        "parameters": sum(x.size for x in arrays),
        "nodes": dict(Counter(type(node).__name__ for node in nodes)),
    }


def _counts(run: Run, synapses: Synapses, samples: int) -> dict[str, Any]:
    """Spikes of each layer and synaptic operations of each projection, per sample."""
    operations = {ends: float((run.spikes[ends[0]] * each).sum()) / samples for ends, each in synapses.items()}
    return {
        "samples": samples,
        "spikes_per_sample": {name: float(each.sum()) / samples for name, each in run.spikes.items()},
        "synaptic_operations_per_sample": {f"{a}->{b}": x for (a, b), x in operations.items()},
    }
