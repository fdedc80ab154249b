"""A NIR graph without graphs in it, its nodes in an order in which they can be run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from eventnet.hardware.nir.files import NEURONS

if TYPE_CHECKING:
    import nir

__all__ = ["Flat", "flatten", "reached"]


@dataclass(frozen=True)
class Flat:
    """A graph without graphs in it, in an order in which each node comes after its sources of the same step.

    ``late`` are the edges that take a step: from a neuron, on a way that leads back to it.
    """

    nodes: Mapping[str, nir.NIRNode]
    edges: tuple[tuple[str, str], ...]
    late: frozenset[tuple[str, str]]
    order: tuple[str, ...]
    input: str = field(default="")
    output: str = field(default="")

    def kind(self, name: str) -> str:
        """The type of a node."""
        return type(self.nodes[name]).__name__

    def sources(self, name: str) -> list[str]:
        """The nodes with an edge to this one."""
        return [a for a, b in self.edges if b == name]

    def targets(self, name: str) -> list[str]:
        """The nodes that this one has an edge to."""
        return [b for a, b in self.edges if a == name]


def flatten(graph: nir.NIRGraph) -> Flat:
    """The graph with the nodes of its inner graphs in it, ``outer.inner`` by name.

    Raises:
        ValueError: not one input and one output; a loop without a neuron; an edge to a node that is not there.
    """
    nodes, edges = _spliced(graph, "")
    ends = []
    for kind in ("Input", "Output"):
        found = [name for name, node in nodes.items() if type(node).__name__ == kind]
        if len(found) != 1:
            raise ValueError(f"expected a graph with one {kind}, got {len(found)}: {', '.join(found) or 'none'}")
        ends.append(found[0])
    ahead = {name: reached(name, edges) for name in nodes}
    late = frozenset((a, b) for a, b in edges if type(nodes[a]).__name__ in NEURONS and a in ahead[b])
    sources = {name: [a for a, b in edges if b == name and (a, b) not in late] for name in nodes}
    try:
        order = tuple(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise ValueError(f"expected a neuron in every loop, got none in {' -> '.join(error.args[1])}") from None
    flat = Flat(nodes, tuple(edges), late, order, *ends)
    for name in nodes:
        if name != flat.input and not flat.sources(name):
            raise ValueError(f"node {name!r} ({flat.kind(name)}) has no source: no edge leads to it")
    return flat


def _spliced(graph: nir.NIRGraph, prefix: str) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Nodes and edges; edges to and from an inner graph end at the neighbours of its own Input and Output."""
    nodes: dict[str, nir.NIRNode] = {}
    edges = [(prefix + a, prefix + b) for a, b in graph.edges]
    for key, node in graph.nodes.items():
        name = prefix + key
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, within = _spliced(node, f"{name}.")
        ways: dict[str, list[str]] = {}
        for kind in ("Input", "Output"):
            ends = [each for each, part in inner.items() if type(part).__name__ == kind]
            if len(ends) != 1:
                raise ValueError(f"{name}: expected an inner graph with one {kind}, got {len(ends)}")
            ways[kind] = (
                [b for a, b in within if a == ends[0]] if kind == "Input" else [a for a, b in within if b == ends[0]]
            )
            within = [edge for edge in within if ends[0] not in edge]
            del inner[ends[0]]
        into = [(a, way) for a, b in edges if b == name for way in ways["Input"]]
        out = [(way, b) for a, b in edges if a == name for way in ways["Output"]]
        edges = [edge for edge in edges if name not in edge] + into + within + out
        nodes |= inner
    return nodes, edges


def reached(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes that edges lead to from ``start``."""
    targets: dict[str, list[str]] = {}
    for a, b in edges:
        targets.setdefault(a, []).append(b)
    found: set[str] = set()
    waiting = list(targets.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += targets.get(name, ())
    return found
