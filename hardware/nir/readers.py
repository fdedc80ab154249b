"""What other tools lose when they read a NIR graph, by name.

Found by running their importers (Norse 1.1.0, snnTorch 1.0.0, Sinabs 3.1.3, all through NIRTorch 2.6) against
``simulate``; ``tests/test_hardware_nir_peers.py`` repeats it. Where nothing is named their spikes are ours, step for step,
at the same dt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from eventnet.hardware.nir.graph import Flat, reached
from eventnet.hardware.nir.importing import Imported
from eventnet.hardware.nir.simulate import Rules

if TYPE_CHECKING:
    import nir

__all__ = ["lost_by_readers"]

LINEAR = ("Input", "Output", "Affine", "Conv2d", "Flatten", "SumPool2d")
SNNTORCH_DT = 1e-4  # seconds; written into its importer


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
    flat, rules = imported.flat, imported.rules
    return {tool: tuple([*_of_rules(rules), *losses(flat, rules)]) for tool, losses in READERS.items()}


def _of_rules(rules: Rules) -> Iterator[str]:
    """What all of them take for granted."""
    if rules.convention != "step":
        yield "convention: a spike counts as 1 for one step, not as a pulse of area 1"
    if rules.order != "current_first":
        yield "order: the new current enters the voltage"


def _nodes(flat: Flat, kinds: tuple[str, ...]) -> Iterator[tuple[str, str, nir.NIRNode]]:
    """Name, type and node of each that is of one of these types."""
    for name in flat.order:
        if flat.kind(name) in kinds:
            yield name, flat.kind(name), flat.nodes[name]


def _unread(flat: Flat, read: tuple[str, ...]) -> Iterator[str]:
    for name in flat.order:
        if flat.kind(name) not in read:
            yield f"{name}: there is no {flat.kind(name)}"


def _flattened(flat: Flat) -> Iterator[str]:
    for name, _, node in _nodes(flat, ("Flatten",)):
        if node.start_dim == 0:
            yield f"{name}.start_dim: flattens the batch too; a sample at a time is read well"


def _norse(flat: Flat, rules: Rules) -> Iterator[str]:
    yield from _unread(flat, (*LINEAR, "Linear", "IF", "LIF", "CubaLIF"))
    yield from _flattened(flat)
    for name, kind, node in _nodes(flat, ("IF", "LIF", "CubaLIF")):
        if node.v_reset.any() and rules.reset == "to_value":
            yield f"{name}.v_reset: resets to 0"
        if kind == "CubaLIF" and node.v_leak.any():
            yield f"{name}.v_leak: is also added to the current"
        if kind == "LIF" and (node.r != 1).any():
            yield f"{name}.r: is 1"
        if kind == "IF" and (node.r * rules.dt != 1).any():
            yield f"{name}.r: is 1, and dt 1 s"
    for name in flat.order:
        if len(set(flat.sources(name)) - reached(name, flat.edges)) > 1:  # of a way back it makes the same as we do
            yield f"{name}: what comes on several ways may come a step late"


def _snntorch(flat: Flat, rules: Rules) -> Iterator[str]:
    yield from _unread(flat, (*LINEAR, "Linear", "AvgPool2d", "LIF", "CubaLIF"))
    yield from _flattened(flat)
    neurons = list(_nodes(flat, ("LIF", "CubaLIF")))
    if neurons and rules.dt != SNNTORCH_DT:
        yield f"dt: is {SNNTORCH_DT:g} s"
    if neurons and rules.reset == "subtract":
        yield "reset: to 0"
    for name, kind, node in neurons:
        if node.v_reset.any():
            yield f"{name}.v_reset: resets to 0"
        if node.v_leak.any():
            yield f"{name}.v_leak: refused"
        if np.unique(node.v_threshold).size > 1:
            yield f"{name}.v_threshold: refused where it differs from neuron to neuron"
        if kind == "CubaLIF" and not np.allclose(node.r, node.tau_mem / SNNTORCH_DT):
            yield f"{name}.r: refused unless it is tau_mem / {SNNTORCH_DT:g} s"


def _sinabs(flat: Flat, rules: Rules) -> Iterator[str]:
    yield from _unread(flat, (*LINEAR, "IF", "LIF"))
    for name, kind, node in _nodes(flat, ("IF", "LIF")):
        yield f"{name}: may spike several times in a step"
        if rules.reset == "to_value":
            yield f"{name}.v_reset: the reset subtracts the threshold"
        if kind == "IF":
            yield f"{name}: the voltage stops at -v_threshold"
        else:
            yield f"{name}.tau: counts steps, and scales no input"
            if node.v_leak.any():
                yield f"{name}.v_leak: refused"


READERS: Mapping[str, Callable[[Flat, Rules], Iterator[str]]] = {
    "Norse": _norse,
    "snnTorch": _snntorch,
    "Sinabs": _sinabs,
}
