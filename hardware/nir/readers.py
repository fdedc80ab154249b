"""What other tools lose when they read a NIR graph, by name.

Found by running their importers (Norse 1.1.0, snnTorch 1.0.0, Sinabs 3.1.3, all through NIRTorch 2.6) against
``simulate``; ``tests/test_hardware_nir_peers.py`` repeats it. Where nothing is named their spikes are ours, step for step,
at the same dt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eventnet.hardware.nir.graph import Flat, reached
from eventnet.hardware.nir.importing import Imported
from eventnet.hardware.nir.simulate import Rules

if TYPE_CHECKING:
    import nir

__all__ = ["Verdict", "lost_by_readers", "verdicts"]

LINEAR = ("Input", "Output", "Affine", "Conv2d", "Flatten", "SumPool2d")
SNNTORCH_DT = 1e-4  # seconds; written into its importer


class Loss(NamedTuple):
    """What a tool leaves out or takes for something else: of a node, of its field, or of the whole graph; ``refused`` if it reads
    no file that has it."""

    node: str
    field: str
    what: str
    refused: bool = False

    def __str__(self) -> str:
        where = ".".join(part for part in (self.node, self.field) if part)
        return f"{where}: {self.what}"


class Verdict(NamedTuple):
    """What a tool makes of a file: "reads it", "reads it, but loses", or "refuses it"; and why, alike nodes together."""

    answer: str
    losses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.answer}: {'; '.join(self.losses)}" if self.losses else self.answer


def verdicts(imported: Imported) -> dict[str, Verdict]:
    """What each tool makes of this graph.

    Example:
        >>> from eventnet.hardware.nir import from_nir, to_nir
        >>> for tool, verdict in verdicts(from_nir(to_nir([LIF(4, 3, bias=0.1), LIF(3, 2, bias=0.1)], dt=1e-4))).items():
        ...     print(tool, verdict)
        Norse reads it, but loses: v_leak: is also added to the current (2 nodes)
        snnTorch refuses it: v_leak: refused (2 nodes)
        Sinabs refuses it: there is no Linear (2 nodes); there is no CubaLIF (2 nodes)
    """
    return {tool: _verdict(losses) for tool, losses in _losses(imported).items()}


def _verdict(losses: list[Loss]) -> Verdict:
    if not losses:
        return Verdict("reads it", ())
    refusing = [loss for loss in losses if loss.refused]
    alike: dict[tuple[str, str], list[Loss]] = {}
    for loss in refusing or losses:  # a file that is refused loses nothing more
        alike.setdefault((loss.field, loss.what), []).append(loss)
    lines = [_together(*key, group) for key, group in alike.items()]
    return Verdict("refuses it" if refusing else "reads it, but loses", tuple(lines))


def _together(field: str, what: str, losses: list[Loss]) -> str:
    """One line for losses that differ by the node only."""
    if len(losses) == 1:
        return str(losses[0])
    return f"{field}: {what} ({len(losses)} nodes)" if field else f"{what} ({len(losses)} nodes)"


def lost_by_readers(imported: Imported) -> dict[str, tuple[str, ...]]:
    """For each tool the nodes and fields of this graph that it leaves out, refuses or takes for something else.

    Example:
        >>> from eventnet.hardware.nir import from_nir, to_nir
        >>> lost = lost_by_readers(from_nir(to_nir(LIF(4, 3, bias=0.1), dt=1e-4)))
        >>> lost["Norse"]
        ('layer_0_neuron.v_leak: is also added to the current',)
        >>> lost["snnTorch"]
        ('layer_0_neuron.v_leak: refused',)
    """
    return {tool: tuple(map(str, losses)) for tool, losses in _losses(imported).items()}


def _losses(imported: Imported) -> dict[str, list[Loss]]:
    flat, rules = imported.flat, imported.rules
    return {tool: [*_of_rules(rules), *losses(flat, rules)] for tool, losses in READERS.items()}


def _of_rules(rules: Rules) -> Iterator[Loss]:
    """What all of them take for granted."""
    if rules.convention != "step":
        yield Loss("", "convention", "a spike counts as 1 for one step, not as a pulse of area 1")
    if rules.order != "current_first":
        yield Loss("", "order", "the new current enters the voltage")


def _nodes(flat: Flat, kinds: tuple[str, ...]) -> Iterator[tuple[str, str, nir.NIRNode]]:
    """Name, type and node of each that is of one of these types."""
    for name in flat.order:
        if flat.kind(name) in kinds:
            yield name, flat.kind(name), flat.nodes[name]


def _unread(flat: Flat, read: tuple[str, ...]) -> Iterator[Loss]:
    for name in flat.order:
        if flat.kind(name) not in read:
            yield Loss(name, "", f"there is no {flat.kind(name)}", True)


def _flattened(flat: Flat) -> Iterator[Loss]:
    for name, _, node in _nodes(flat, ("Flatten",)):
        if node.start_dim == 0:
            yield Loss(name, "start_dim", "flattens the batch too; a sample at a time is read well")


def _norse(flat: Flat, rules: Rules) -> Iterator[Loss]:
    unread = list(_unread(flat, (*LINEAR, "Linear", "IF", "LIF", "CubaLIF")))
    graphs = Counter(
        loss.node.rpartition(".")[0] for loss in unread
    )  # it leaves out one node of a graph, and refuses two
    yield from (loss._replace(refused=max(graphs.values()) > 1) for loss in unread)
    yield from _flattened(flat)
    for name, kind, node in _nodes(flat, ("IF", "LIF", "CubaLIF")):
        if node.v_reset.any() and rules.reset == "to_value":
            yield Loss(name, "v_reset", "resets to 0")
        if kind == "CubaLIF" and node.v_leak.any():
            yield Loss(name, "v_leak", "is also added to the current")
        if kind == "LIF" and (node.r != 1).any():
            yield Loss(name, "r", "is 1")
        if kind == "IF" and (node.r * rules.dt != 1).any():
            yield Loss(name, "r", "is 1, and dt 1 s")
    for name in flat.order:
        if len(set(flat.sources(name)) - reached(name, flat.edges)) > 1:  # of a way back it makes the same as we do
            yield Loss(name, "", "what comes on several ways may come a step late")


def _snntorch(flat: Flat, rules: Rules) -> Iterator[Loss]:
    yield from _unread(flat, (*LINEAR, "Linear", "AvgPool2d", "LIF", "CubaLIF"))
    yield from _flattened(flat)
    neurons = list(_nodes(flat, ("LIF", "CubaLIF")))
    if neurons and rules.dt != SNNTORCH_DT:
        yield Loss("", "dt", f"is {SNNTORCH_DT:g} s")
    if neurons and rules.reset == "subtract":
        yield Loss("", "reset", "to 0")
    for name, kind, node in neurons:
        if node.v_reset.any():
            yield Loss(name, "v_reset", "resets to 0")
        if node.v_leak.any():
            yield Loss(name, "v_leak", "refused", True)
        if np.unique(node.v_threshold).size > 1:
            yield Loss(name, "v_threshold", "refused where it differs from neuron to neuron", True)
        if kind == "CubaLIF" and not np.allclose(node.r, node.tau_mem / SNNTORCH_DT):
            yield Loss(
                name, "r", f"refused unless it is tau_mem / {SNNTORCH_DT:g} s, as in files of dt={SNNTORCH_DT:g}", True
            )


def _sinabs(flat: Flat, rules: Rules) -> Iterator[Loss]:
    yield from _unread(flat, (*LINEAR, "IF", "LIF"))
    for name, kind, node in _nodes(flat, ("IF", "LIF")):
        yield Loss(name, "", "may spike several times in a step")
        if rules.reset == "to_value":
            yield Loss(name, "v_reset", "the reset subtracts the threshold")
        if kind == "IF":
            yield Loss(name, "", "the voltage stops at -v_threshold")
        else:
            yield Loss(name, "tau", "counts steps, and scales no input")
            if node.v_leak.any():
                yield Loss(name, "v_leak", "refused", True)


READERS: Mapping[str, Callable[[Flat, Rules], Iterator[Loss]]] = {
    "Norse": _norse,
    "snnTorch": _snntorch,
    "Sinabs": _sinabs,
}
