"""Import from NIR: a file becomes something that runs, and says what the file did not say."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from eventnet import Events
from eventnet.hardware.nir.files import RESETTING, check_graph, read_graph
from eventnet.hardware.nir.graph import Flat, flatten
from eventnet.hardware.nir.layers import to_layers
from eventnet.hardware.nir.simulate import CHOICES, Rules, Traces, simulate, to_steps

if TYPE_CHECKING:
    import nir

__all__ = ["Imported", "from_nir"]

ASSUMED = {"order": "current_first", "convention": "step", "start": "rest"}  # of a file that does not say


@dataclass(frozen=True, eq=False)
class Imported:
    """A NIR graph that runs.

    Attributes:
        rules: how it is stepped: what the file says, and for the rest what was asked for or assumed.
        missing: the pieces that the file does not say, each with the value in use.
        overridden: the pieces that the file says and the caller said otherwise, with what the file says.
    """

    graph: nir.NIRGraph
    flat: Flat
    rules: Rules
    missing: Mapping[str, Any]
    overridden: Mapping[str, Any]

    @overload
    def __call__(self, raster: Tensor, return_traces: Literal[False] = ...) -> Tensor: ...

    @overload
    def __call__(self, raster: Tensor, return_traces: Literal[True]) -> tuple[Tensor, Traces]: ...

    def __call__(self, raster: Tensor, return_traces: bool = False) -> Tensor | tuple[Tensor, Traces]:
        """The output ``(T, B, ...)``, spikes or voltages, for input ``(T, B, ...)``; with ``return_traces`` also the spikes
        and voltages of every neuron node. All in float64."""
        given: Any = raster
        if not isinstance(given, Tensor | np.ndarray):
            hint = f"; events.to_dense({self.rules.dt:g}) makes one" if isinstance(given, Events) else ""
            raise TypeError(
                f"raster: expected a tensor (T, B, ...) of spikes in steps of {self.rules.dt:g} s, got "
                f"{type(given).__name__}{hint}"
            )
        output, traces = simulate(self.flat, self.rules, torch.as_tensor(given))
        return (output, traces) if return_traces else output

    @property
    def delay_rounding(self) -> float:
        """The largest difference in seconds between a delay and the steps that it is run with: a delay of the file, or one of
        a layer's synapses that ``to_nir`` rounded, as it wrote into the Delay's metadata."""
        delays = [node for node in self.flat.nodes.values() if type(node).__name__ == "Delay"]
        dt = self.rules.dt
        of_file = [float(np.abs(each.delay - to_steps(each.delay, dt) * dt).max(initial=0.0)) for each in delays]
        own = self.graph.metadata.get("writer") == "eventnet"
        of_layers = [float(each.metadata.get("rounding", 0.0)) for each in delays if own]
        return max([*of_file, *of_layers], default=0.0)

    def to_nir(self) -> nir.NIRGraph:
        """The graph, as it came."""
        return copy.deepcopy(self.graph)

    def to_model(self, dtype: torch.dtype | None = None) -> nn.Sequential:
        """eventnet's layers, in continuous time, where the graph is a chain that they can hold.

        Args:
            dtype: of the parameters; torch's default if not given.

        Raises:
            ValueError: a node, a parameter, a reset or a path that eventnet's layers do not have, by name.
        """
        return to_layers(self.flat, self.rules, dtype)

    def __repr__(self) -> str:
        pieces = "".join(f", {name} not in the file" for name in self.missing)
        return f"Imported({len(self.flat.nodes)} nodes, dt={self.rules.dt:g} s{pieces})"


def from_nir(
    source: str | os.PathLike[str] | nir.NIRGraph,
    *,
    dt: float | None = None,
    reset: str | None = None,
    order: str | None = None,
    convention: str | None = None,
    decay: str = "euler",
) -> Imported:
    """A NIR file (or graph), ready to run in steps.

    The format says nothing of dt, reset kind, order, or what a spike is as a signal. Files of eventnet say them as metadata. For
    others dt and, where neurons spike, reset have to be given; order ("current_first") and convention ("step") are assumed.
    What is given goes before what the file says. See ``simulate.Rules`` for the values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a NIR file, or a truncated one; dt or reset neither in the file nor given; a subtractive reset that was
            not asked for; a node, a loop or a number that cannot be run.

    Example:
        >>> import nir, numpy, torch
        >>> neuron = nir.IF(r=numpy.ones(1), v_threshold=numpy.ones(1))
        >>> net = from_nir(nir.NIRGraph.from_list(neuron), dt=1.0, reset="to_value")
        >>> net(torch.full((5, 1, 1), 0.6)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0]
        >>> dict(net.missing)
        {'dt': 1.0, 'reset': 'to_value', 'order': 'current_first', 'convention': 'step', 'start': 'rest'}
    """
    name = "the graph"
    if isinstance(source, str | os.PathLike):
        name, graph = str(source), read_graph(source)
    else:
        graph = copy.deepcopy(source)
        check_graph(graph)
    flat = flatten(graph)
    said = _said(graph, name)
    given = {"dt": dt, "reset": reset, "order": order, "convention": convention}
    given = {piece: value for piece, value in given.items() if value is not None}
    if said.get("reset") == "subtract" and "reset" not in given:
        raise ValueError(
            f"{name}: says reset='subtract', a soft reset. NIR's neurons have a hard one: other tools will run it otherwise. "
            "Pass reset='subtract' to simulate it so, or reset='to_value'"
        )
    _require(flat, {**said, **given}, name)
    used = {"reset": "to_value", **ASSUMED, **said, **given}  # the first where no neuron has a reset
    missing = {piece: used[piece] for piece in ("dt", "reset", *ASSUMED) if piece not in said}
    overridden = {piece: said[piece] for piece in given if piece in said and said[piece] != given[piece]}
    return Imported(graph, flat, replace(Rules(**used), decay=decay), missing, overridden)


def _said(graph: nir.NIRGraph, name: str) -> dict[str, Any]:
    """The rules that a graph's metadata states, checked."""
    said: dict[str, Any] = {}
    for piece in ("dt", "reset", *ASSUMED):
        if piece not in graph.metadata:
            continue
        value = graph.metadata[piece]
        try:
            said[piece] = float(value) if piece == "dt" else str(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name}: says dt={value!r} in its metadata; expected seconds") from None
        if piece != "dt" and said[piece] not in CHOICES[piece]:
            raise ValueError(
                f"{name}: says {piece}={said[piece]!r} in its metadata; expected one of {', '.join(CHOICES[piece])}"
            )
    return said


def _require(flat: Flat, known: Mapping[str, Any], name: str) -> None:
    """Raise where nobody said dt, or the reset of neurons that have one."""
    lost = ["dt (seconds of a step)"] if "dt" not in known else []
    if "reset" not in known and any(flat.kind(each) in RESETTING for each in flat.nodes):
        lost.append("reset ('to_value' or 'subtract')")
    if lost:
        raise ValueError(f"{name}: does not say {' and '.join(lost)}; NIR has no field for it: pass it to from_nir")
