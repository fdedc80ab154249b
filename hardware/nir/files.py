"""NIR files: read, checked and written whole or not at all.

A NIR file is HDF5: a graph of nodes with parameters, and edges between them; see Pedersen et al., "Neuromorphic intermediate
representation: a unified instruction set for interoperable brain-inspired computing" (2024). The package ``nir`` reads and
writes it. What it leaves to the reader is done here: whether the file is whole, which node it cannot read, numbers that are
not finite, graphs that are equal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import nir

__all__ = ["Disagreement", "check_graph", "differences", "read_graph", "write_graph"]

NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")  # nodes with a voltage
RESETTING = ("IF", "LIF", "CubaLIF")  # that spike
KNOWN = (
    *("NIRGraph", "Input", "Output", *NEURONS, "Threshold", "Delay", "Affine", "Linear", "Scale", "Flatten"),
    *("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"),
)
POSITIVE = ("tau", "tau_mem", "tau_syn")


# ---- reading ---------------------------------------------------------------------------------------------------------------


def read_graph(path: str | os.PathLike[str]) -> nir.NIRGraph:
    """The graph of a file, checked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a NIR file, not a whole one, a node of an unknown type, a number that cannot be.
    """
    import nir

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    _check_content(path)
    try:
        graph = nir.read(path)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"{path}: nir {nir.version} cannot read it: {_said(error)}") from error
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"{path}: expected a graph of nodes, got one node of type {type(graph).__name__}")
    try:
        check_graph(graph)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return graph


def _check_content(path: Path) -> None:
    """Raise where the file is no NIR file or holds a node of an unknown type; ``nir.read`` says neither."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                raise ValueError(f"{path}: not a NIR file: expected HDF5 with a group 'node', got {sorted(file)}")
            for name, kind in _kinds(file["node"], ""):
                if kind not in KNOWN:
                    raise ValueError(f"{path}: node {name!r} is of type {kind!r}; expected one of {', '.join(KNOWN)}")
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: not a whole NIR (HDF5) file: {_said(error)}; get or export it again") from error


def _kinds(group: Any, name: str) -> Iterator[tuple[str, str]]:
    """Names and types of a group's node and of those in it."""
    kind = group["type"][()]
    yield name or "(the graph)", kind.decode() if isinstance(kind, bytes) else str(kind)
    for inner in group.get("nodes", {}):
        yield from _kinds(group["nodes"][inner], f"{name}.{inner}" if name else inner)


def _said(error: BaseException) -> str:
    """What an error says; an assertion or KeyError alone says little."""
    text = str(error)
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


def check_graph(graph: nir.NIRGraph, name: str = "") -> None:
    """Raise where a node cannot be simulated by any tool: not finite, a time constant <= 0, a delay < 0.

    Raises:
        ValueError: with the node, its field, the index and the number.
    """
    for key, node in graph.nodes.items():
        where = f"{name}.{key}" if name else key
        kind = type(node).__name__
        if kind not in KNOWN:
            raise ValueError(f"node {where!r} is of type {kind!r}; expected one of {', '.join(KNOWN)}")
        if kind == "NIRGraph":
            check_graph(node, where)
            continue
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                _check_numbers(f"{where}.{field}", value, field)


def _check_numbers(what: str, value: np.ndarray, field: str) -> None:
    bad, expected = ~np.isfinite(value), "expected finite numbers"
    if not bad.any() and field in POSITIVE:
        bad, expected = value <= 0, "expected time constants > 0 (seconds)"
    if not bad.any() and field == "delay":
        bad, expected = value < 0, "expected delays >= 0 (seconds)"
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{what}{list(index)} is {value[index]}; {expected}")


# ---- writing ---------------------------------------------------------------------------------------------------------------


class Disagreement(RuntimeError):
    """A NIR file is not what was written."""


def write_graph(
    graph: nir.NIRGraph,
    path: str | os.PathLike[str],
    check: Callable[[nir.NIRGraph], object] | None = None,
) -> None:
    """Write ``graph`` to ``path``, whole or not at all: what was there stays until the new file is complete and checked.

    The file is read back, compared with ``graph`` in every number, and handed to ``check``, which may raise.

    Raises:
        ValueError: a number that cannot be.
        Disagreement: the file does not say what the graph does.
    """
    import nir

    check_graph(graph)
    path = Path(path)
    name = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        nir.write(name, graph)
        again = read_graph(name)
        lost = differences(graph, again)
        if lost:
            raise Disagreement(f"{path}: not written, nir {nir.version} does not keep {'; '.join(lost)}")
        if check is not None:
            check(again)
        with name.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(name, path)
    finally:
        name.unlink(missing_ok=True)  # there only after an error


# ---- comparing -------------------------------------------------------------------------------------------------------------


def differences(one: nir.NIRGraph, other: nir.NIRGraph) -> list[str]:
    """What differs between two graphs, by name; nothing if they say the same. The order of nodes and edges does not count.

    Example:
        >>> import nir, numpy
        >>> graph = nir.NIRGraph.from_list(nir.Scale(numpy.ones(2)))
        >>> differences(graph, nir.NIRGraph.from_list(nir.Scale(numpy.array([1.0, 2.0]))))
        ['nodes.scale.scale']
    """
    return list(_differ(one.to_dict(), other.to_dict(), ""))


def _differ(one: Any, other: Any, name: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            inner = f"{name}.{key}" if name else str(key)
            if key == "edges":
                if _edges(one.get(key)) != _edges(other.get(key)):
                    yield inner
            elif key in one and key in other:
                yield from _differ(one[key], other[key], inner)
            elif key != "metadata" or one.get(key) or other.get(key):  # without entries it is not written
                yield inner
    elif not _same(one, other):
        yield name


def _edges(edges: Any) -> list[tuple[str, str]]:
    return sorted((str(a), str(b)) for a, b in edges or ())


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype.kind == b.dtype.kind and a.dtype.itemsize == b.dtype.itemsize and np.array_equal(a, b)
