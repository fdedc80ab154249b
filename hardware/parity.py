"""Is the exported network the trained one? What is not carried over, where they part, and four gates.

    L0  the files load
    L1  what the files say is the network that was simulated, bit for bit
    L2  its accuracy is within a tolerance of the trained network's, on the same samples
    L3  Lava 0.10.0 does the same as the simulation, every spike, current and voltage, on a few samples

A gate that was not run says so; it has not passed. What is left out or assumed is listed by name, and what is far off warned of.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import eventnet
from eventnet import Events, metrics
from eventnet.counts import per_sample_of
from eventnet.files import write_files
from eventnet.hardware.counting import counts_of, operations_of
from eventnet.hardware.dynamics import chip_voltage, chosen, compare_spikes
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.files import contents
from eventnet.hardware.loihi import Record, simulate
from eventnet.hardware.mapping import check
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.parity_facts import energy_of, warnings_of
from eventnet.hardware.quantize import layers_of, names_of, weights_of
from eventnet.hardware.reading import Reading
from eventnet.hardware.trained import fingerprint, scores_of, state_of

if TYPE_CHECKING:
    from eventnet.hardware.deployment import Decision

__all__ = [
    "PAGE",
    "REPORT",
    "Gate",
    "ParityReport",
    "accuracy_gate",
    "interval",
    "lava_gate",
    "measure",
]

REPORT, PAGE = "parity.json", "parity.html"
LAVA_SECONDS = 120  # that a sample may take


@dataclass(frozen=True)
class Gate:
    """One question and its answer; ``passed`` is None where it was not asked, or where a ``word`` says why it has no answer."""

    name: str
    passed: bool | None
    text: str
    word: str = ""

    @property
    def answer(self) -> str:
        """In a word or two."""
        return self.word or {True: "passed", False: "FAILED", None: "not run"}[self.passed]

    def __str__(self) -> str:
        return f"{self.name}  {self.answer}: {self.text}"


@dataclass(repr=False)
class ParityReport:
    """What ``measure`` found; ``facts`` are plain values, ``pictures`` what a page draws."""

    facts: dict[str, Any]
    gates: list[Gate] = field(default_factory=list)
    pictures: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        gates = ", ".join(f"{gate.name} {gate.answer}" for gate in self.gates) or "no gates"
        return f"ParityReport({gates}; {len(self.facts.get('warnings', ()))} warnings)"

    @property
    def ok(self) -> bool:
        """No gate failed, and one at least was asked."""
        return all(gate.passed is not False for gate in self.gates) and any(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        gates = [
            {"name": gate.name, "passed": gate.passed, "answer": gate.answer, "text": gate.text} for gate in self.gates
        ]
        return {**self.facts, "gates": gates, "ok": self.ok}

    def save(self, folder: str | Path) -> None:
        """Write ``parity.json`` and ``parity.html``, a page that needs nothing else."""
        from eventnet.hardware.parity_page import page

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        plain = json.dumps(_plain(self.to_dict()), indent=2, allow_nan=False) + "\n"
        write_files({folder / REPORT: plain.encode(), folder / PAGE: page(self).encode()})


@torch.no_grad()
def measure(
    deployment: Any,
    model: nn.Module | list[nn.Module],
    events: Events,
    labels: Tensor | None = None,
    *,
    chip: str = "loihi2",
) -> ParityReport:
    """Compare a deployment with the model that it was compiled from.

    Args:
        deployment: of ``compile``.
        model: the trained network.
        events, labels: samples that were not used before; labels per sample, or per step (-100: none).
        chip: a profile of ``eventnet.hardware.mapping`` whose limits are checked.
    """
    network = deployment.network
    few = chosen(events)
    record = simulate(network, deployment.raster(few))
    assert isinstance(record, Record)
    decision = deployment.run(events)
    placement = check(network, chip)
    dynamics, pictures = compare_spikes(model, few, network.dt, record.spikes, chip_voltage(network, record))
    facts: dict[str, Any] = {
        "identity": {
            **identity("Loihi's arithmetic as of Lava 0.10.0", model, events, network.dt, deployment.reading),
            "chip": chip,
            "network_sha256": hashlib.sha256(contents(network)).hexdigest(),
        },
        "lost": list(deployment.log.lost),
        "assumed": list(deployment.log.assumed),
        "parameters": deployment.log.errors,
        "dynamics": dynamics,
        "overflows": decision.overflows,
        "resources": {name: x for name, x in placement.to_dict().items() if name != "cores"},
        "counts": _counts(network, decision),
        "energy": energy_of(counts_of(network, decision), network.dt),
    }
    facts["warnings"] = warnings_of(facts, decision.merged)
    if labels is not None:
        facts["accuracy"] = compared(deployment.reading, model, events, labels, decision.scores)
    if gated_of(model) is None:
        pictures["weights"] = _weights(deployment, layers_of(model))
    return ParityReport(facts, [], pictures)


# ---- gates -----------------------------------------------------------------------------------------------------------------


def accuracy_gate(facts: Mapping[str, Any], tolerance: float, where: str = "in the fixed-point simulation") -> Gate:
    """L2: the loss of accuracy is at most ``tolerance``."""
    if "accuracy" not in facts:
        return Gate("L2", None, "no labels were given")
    if not facts["accuracy"].get("labels", 1):
        return Gate(
            "L2", None, f"all labels are {metrics.IGNORED}, which stands for none: there is nothing to be right about"
        )
    trained, exported = (facts["accuracy"][name]["share"] for name in ("trained", "chip"))
    loss = trained - exported
    text = f"accuracy {trained:.2%} trained (float), {exported:.2%} {where}: {100 * abs(loss):.2f} points "
    text += f"{'lower' if loss >= 0 else 'higher'} than trained, {100 * tolerance:.2f} allowed"
    if readout := facts.get("identity", {}).get("readout"):
        text += f"; readout: {readout}{', assumed' if facts.get('assumed') else ''}"
    return Gate("L2", loss <= tolerance + 1e-9, text)  # shares are rounded


def chip_gate(facts: Mapping[str, Any]) -> Gate:
    """Whether the network is within the limits of the chip that was named; None where the chip has no such neurons at all."""
    found = facts["resources"]
    if found["ok"]:
        return Gate(
            "chip", True, f"fits on {found['num_cores']} cores of {found['profile']}, by the rules of hardware/mapping"
        )
    lines = "; ".join(each["line"] for each in found["violations"][:3])
    text = f"{found['profile']}: {lines}"
    foreign = all(each["limit"] == "neuron_kinds" for each in found["violations"])
    return Gate("chip", None, text, "not on this chip") if foreign else Gate("chip", False, text)


def lava_gate(script: Path, samples: int) -> Gate:
    """L3: the script's own check, in a process of its own, under a time limit."""
    import importlib.util

    if importlib.util.find_spec("lava") is None:
        return Gate("L3", None, "Lava is not installed (make lava)")
    command, allowed = [sys.executable, str(script), "--check", "--samples", str(samples)], 60 + LAVA_SECONDS * samples
    # Lava starts a process for each of its own, so that all of the group have to end
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, problem = process.communicate(timeout=allowed)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Gate("L3", False, f"Lava did not come to an end within {allowed} s")
    lines = out.strip().splitlines()
    if process.returncode == 0:
        return Gate("L3", True, f"Lava 0.10.0: {lines[-1]}")
    return Gate("L3", False, next((line for line in lines if "differ" in line), problem.strip()[-300:]))


# ---- what is compared ------------------------------------------------------------------------------------------------------


def identity(
    target: str, model: nn.Module | list[nn.Module], events: Events, dt: float, reading: Reading
) -> dict[str, Any]:
    """What was compared, with what, on how many samples."""
    return {
        "eventnet": eventnet.__version__,
        "torch": torch.__version__,
        "target": target,
        "step_s": dt,
        "readout": str(reading),
        "samples": events.batch_size,
        "samples_of_the_dynamics": chosen(events).batch_size,
        "model_sha256": fingerprint(state_of(model)),
    }


@torch.no_grad()
def compared(reading: Reading, model: Any, events: Events, labels: Tensor, scores: Tensor) -> dict[str, Any]:
    """Accuracy of the trained model and of scores of the exported network, with Wilson's 95 % intervals, and how often they
    say the same."""
    trained = reading.predict(scores_of(model, reading, events))
    chip = reading.predict(scores)
    counted = int((labels != metrics.IGNORED).sum())
    found = {
        name: interval(round(metrics.accuracy(said, labels) * counted) if counted else 0, counted)
        for name, said in (("trained", trained), ("chip", chip))
    }
    same = metrics.accuracy(chip, torch.where(labels == metrics.IGNORED, labels, trained))
    return {**found, "labels": counted, "agreement": same}


def interval(right: int, total: int) -> dict[str, Any]:
    """A share and Wilson's 95 % interval of it.

    Example:
        >>> {name: round(x, 3) for name, x in interval(8, 10).items()}
        {'share': 0.8, 'low': 0.49, 'high': 0.943}
    """
    if not total:
        return {"share": math.nan, "low": 0.0, "high": 1.0}
    z, share = 1.959964, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {"share": share, "low": middle - half, "high": middle + half}


def _counts(network: HardwareNetwork, decision: Decision) -> dict[str, Any]:
    """Spikes of each population, synaptic operations of each projection, and all that is counted; per sample, of all samples."""
    samples = len(decision.steps)
    return {
        "samples": samples,
        "spikes_per_sample": {name: int(x.sum()) / samples for name, x in decision.spikes.items()},
        "synaptic_operations_per_sample": {
            each.name: operations / samples for each, operations in operations_of(network, decision)
        },
        "populations": per_sample_of(counts_of(network, decision)),
    }


def _weights(deployment: Any, layers: list[Any]) -> dict[str, Any]:
    """Of each projection, weights before and after as volts, for histograms."""
    found: dict[str, Any] = {}
    for name, layer in zip(names_of(layers), layers, strict=True):
        for each in deployment.network.onto(name):
            before = weights_of(layer)["recurrent_" if each.source == name else ""]
            scale = deployment.log.errors[name]["scale"] / 2.0**each.weight_exp
            found[each.name] = {"before": before.flatten(), "after": each.weight.flatten() / scale}
    return found


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite in words."""
    if isinstance(value, Mapping):
        return {str(name): _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
