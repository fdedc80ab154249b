"""Export to NIR, the exchange format of neuromorphic tools: layers become nodes of a graph, by one table.

    LIF    tau_syn I' = -I + w_in S,  tau_mem V' = (v_leak - V) + r I,  V > v_threshold: a spike, V <- v_reset    (nir.CubaLIF)
    LI     the same without spikes                                                                               (nir.CubaLI)

``v_leak`` is eventnet's bias. The format has no word for what a spike is as a signal S, so there are two conventions:

    "step"     a spike is 1 for one step of dt, as in Norse and snnTorch:  w_in = tau_syn / dt,  r = tau_mem / dt, and a
               node's weights are the layer's times dt / tau_mem. Another dt is another file.
    "charge"   a spike is a pulse of area 1:  w_in = tau_syn,  r = 1, the weights are the layer's. No dt is in the numbers.

Either way an event adds ``weight`` to eventnet's current, which is r I. Weights are ``(out, in)`` in NIR, ``(in, out)`` here.
What the format cannot say is written as metadata of the graph (``dt``, ``reset``, ``order``, ``convention``, ``start``, see
``simulate.Rules``), and ``write_nir`` simulates the file it wrote. All numbers are float64, so that float32 parameters
come back as they were. Gated units, refractory periods and initial states have no node: they are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF
from eventnet.hardware.nir.check import check_against
from eventnet.hardware.nir.files import check_graph, write_graph
from eventnet.hardware.nir.importing import Imported, from_nir
from eventnet.hardware.nir.simulate import Rules, to_steps
from eventnet.hardware.quantize import IDLE

if TYPE_CHECKING:
    import nir

__all__ = ["Imported", "from_nir", "to_nir", "write_nir"]

Model = nn.Module | Sequence[Any]  # a layer, or layers in order; nodes of nir may be among them


def to_nir(
    model: Model,
    *,
    dt: float,
    convention: str = "step",
    max_delay_groups: int = 64,
    input_shape: Sequence[int] | None = None,
) -> nir.NIRGraph:
    """The NIR graph of a model.

    Args:
        model: a ``LIF``, ``LI``, ``nn.Linear``, ``nn.Conv2d``, ``nn.Flatten`` or ``nn.Sequential`` or list of them; a node of
            ``nir`` (a ``Threshold``, say) is taken as it is.
        dt: seconds of a step; delays per synapse are rounded to it.
        convention: of a spike as a signal, "step" or "charge"; see above. The tools that were tried read "step" only.
        max_delay_groups: delays per synapse take a ``Delay`` and a ``Linear`` for each distinct number of steps; an error is
            raised beyond this number. A delay per source takes one ``Delay``, and is not rounded.
        input_shape: units in; needed where the first layer does not tell it: ``(channels, height, width)`` for a Conv2d.

    Raises:
        TypeError: a module that NIR has no node for, by name.
        ValueError: a parameter that NIR cannot hold, by name; not finite numbers; too many delays.

    Example:
        >>> graph = to_nir(nn.Sequential(LIF(4, 3), LI(3, 2)), dt=1e-3)
        >>> [type(node).__name__ for node in graph.nodes.values()]
        ['Input', 'Linear', 'CubaLIF', 'Linear', 'CubaLI', 'Output']
        >>> graph.metadata["dt"], graph.metadata["reset"]
        (0.001, 'to_value')
    """
    import nir

    layers = list(flat_layers(model))
    if not layers:
        raise ValueError("to_nir: expected at least one layer, got none")
    draft = Draft(Rules(dt, convention=convention), max_delay_groups)
    width = len(str(len(layers) - 1))  # readers go through the names in their order
    for position, layer in enumerate(layers):
        draft.prefix = f"layer_{position:0{width}d}"
        _exporter(layer, draft.prefix)(layer, draft)
    shape = input_shape if input_shape is not None else draft.shape_in
    if shape is None:
        raise ValueError(
            f"to_nir: a {type(layers[0]).__name__} does not tell the shape of its input: "
            "pass input_shape, such as (2, 34, 34) for (channels, height, width)"
        )
    nodes = {"input": nir.Input(np.array(shape)), **draft.nodes, "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [*draft.edges, (draft.end, "output")], draft.metadata())
    check_graph(graph)
    return graph


def write_nir(
    model: Model | nir.NIRGraph,
    path: str | os.PathLike[str],
    *,
    dt: float | None = None,
    convention: str = "step",
    max_delay_groups: int = 64,
    input_shape: Sequence[int] | None = None,
) -> None:
    """Write a model, or a graph, to a NIR file, whole or not at all, and check the file before it takes its place.

    The file is read again: it must hold every number of the graph. Of a model, it is then simulated, and must give the spikes
    and voltages that the layers' own equations give in steps of dt (``check``).

    Args:
        path: of the file; an older one is replaced.
        model, dt, convention, max_delay_groups, input_shape: as in ``to_nir``; for a graph they do not count.

    Raises:
        Disagreement: the file is not what was to be written; it is not there, or the older one is.
        TypeError, ValueError: as in ``to_nir``.
    """
    import nir

    if isinstance(model, nir.NIRGraph):
        write_graph(model, path)
        return
    if dt is None:
        raise ValueError("write_nir: expected dt, the seconds of a step, for a model; got none")
    graph = to_nir(model, dt=dt, convention=convention, max_delay_groups=max_delay_groups, input_shape=input_shape)
    layers = list(flat_layers(model))
    write_graph(graph, path, lambda again: check_against(from_nir(again), layers))


def flat_layers(model: Model) -> Iterator[Any]:
    """The layers of a model in order, those of an ``nn.Sequential`` in it among them, without dropout."""
    if isinstance(model, nn.Sequential | nn.ModuleList | list | tuple):
        for part in model:
            yield from flat_layers(part)
    elif not isinstance(model, IDLE):
        yield model


# ---- the graph in the making -----------------------------------------------------------------------------------------------


@dataclass
class Draft:
    """Nodes and edges so far; ``end`` is the node that the next one comes after."""

    rules: Rules
    max_delay_groups: int
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    end: str = "input"
    prefix: str = ""
    shape_in: tuple[int, ...] | None = None

    def append(self, kind: str, node: nir.NIRNode) -> None:
        """One more node after the end."""
        name = f"{self.prefix}_{kind}"
        self.nodes[name] = node
        self.edges.append((self.end, name))
        self.end = name

    def starts_with(self, *shape: int) -> None:
        """The input of the graph has this shape, if this is its first layer."""
        if self.end == "input":
            self.shape_in = shape

    def metadata(self) -> dict[str, Any]:
        """What the format has no field for."""
        rules = self.rules
        said = {"dt": rules.dt, "reset": rules.reset, "order": rules.order, "convention": rules.convention}
        return {**said, "start": rules.start, "writer": "eventnet"}


def _exporter(layer: Any, name: str) -> Callable[[Any, Draft], None]:
    import nir

    if isinstance(layer, nir.NIRNode):
        return _node
    if isinstance(layer, EGRU):
        raise TypeError(f"{name}: EGRU cannot travel in NIR: the format has no node of gated units")
    for kind, export in EXPORTERS.items():
        if (
            isinstance(layer, kind) and type(layer).forward is kind.forward
        ):  # pruned and parametrized ones are of a subclass
            return export
    known = ", ".join(kind.__name__ for kind in EXPORTERS)
    raise TypeError(f"{name}: NIR has no node for {type(layer).__name__}; expected one of {known}, or a node of nir")


# ---- layers ----------------------------------------------------------------------------------------------------------------


def _lif(layer: LIF, draft: Draft) -> None:
    """Synapses, then a CubaLIF; a recurrent layer is a graph of its own, as snnTorch and Norse have it."""
    import nir

    given = layer.arguments()
    if layer.branches is not None:
        raise ValueError(f"{draft.prefix}.weight: NIR has no neuron with dendritic branches: train with branches=None")
    for name in ("initial_voltage", "initial_current"):
        if name in given:
            raise ValueError(f"{draft.prefix}.{name}: NIR has no initial state; a neuron starts at rest: leave it out")
    if "refractory" in given and bool((torch.as_tensor(given["refractory"]) != 0).any()):
        raise ValueError(f"{draft.prefix}.refractory: NIR has no refractory period: train with refractory=0")
    neuron = nir.CubaLIF(
        **_leaky(layer, draft.rules),
        v_threshold=_per_neuron(layer.threshold, layer.out_features),
        v_reset=_per_neuron(layer.reset, layer.out_features),
    )
    draft.starts_with(layer.in_features)
    name, node = f"{draft.prefix}_neuron", neuron
    if "recurrent_weight" in given:
        size = np.array([layer.out_features])
        nodes: dict[str, nir.NIRNode] = {"input": nir.Input(size), "lif": neuron, "output": nir.Output(size)}
        edges = [("input", "lif")]
        _connect(nodes, edges, _synapses(layer, "recurrent_", draft), "lif", "", "w_rec", "lif")
        edges.append(("lif", "output"))  # the last: Norse gives out what it computes last
        node = nir.NIRGraph(nodes, edges)
    _connect(draft.nodes, draft.edges, _synapses(layer, "", draft), draft.end, f"{draft.prefix}_", "linear", name)
    draft.nodes[name], draft.end = node, name


def _li(layer: LI, draft: Draft) -> None:
    import nir

    draft.starts_with(layer.in_features)
    draft.append("linear", nir.Linear(_signal_weight(layer.weight, layer, draft.rules)))
    draft.append("neuron", nir.CubaLI(**_leaky(layer, draft.rules)))


def _leaky(layer: LIF | LI, rules: Rules) -> dict[str, np.ndarray]:
    """What CubaLIF and CubaLI have in common."""
    num = layer.out_features
    tau_mem, tau_syn = _per_neuron(layer.tau_mem, num), _per_neuron(layer.tau_syn, num)
    stepped = rules.convention == "step"
    return {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "r": tau_mem / rules.dt if stepped else np.ones(num),
        "v_leak": _per_neuron(layer.bias, num),
        "w_in": tau_syn / rules.dt if stepped else tau_syn.copy(),
    }


def _per_neuron(value: Tensor, num: int) -> np.ndarray:
    return np.array(np.broadcast_to(_array(value), (num,)))


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()


def _signal_weight(weight: Tensor, layer: LIF | LI, rules: Rules) -> np.ndarray:
    """``(out, in)``, in the unit of the convention."""
    turned = np.ascontiguousarray(_array(weight).T)
    if rules.convention == "charge":
        return turned
    return turned * (rules.dt / _per_neuron(layer.tau_mem, layer.out_features))[:, None]


# ---- synapses and delays ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Synapses of one delay (per source, or one for all), ``weight`` ``(out, in)``."""

    weight: np.ndarray
    delay: np.ndarray | None = None
    label: str = ""
    rounding: float = 0.0


def _synapses(layer: LIF, which: str, draft: Draft) -> list[Group]:
    """A layer's synapses from its input (``which`` is empty) or from itself, in groups of one delay."""
    given, name = layer.arguments(), f"{draft.prefix}.{which}delay"
    weight, mask = given[f"{which}weight"], given.get(f"{which}mask")
    weight = weight if mask is None else torch.where(mask, weight, 0.0)
    signal = _signal_weight(weight, layer, draft.rules)
    if f"{which}delay" not in given:
        return [Group(signal)]
    delay = _array(given[f"{which}delay"])
    delay = np.broadcast_to(delay.T, signal.shape) if delay.ndim else np.full(signal.shape, float(delay))
    bad = ~(np.isfinite(delay) & (delay >= 0))
    if bad.any():
        raise ValueError(f"{name}: expected finite seconds >= 0, got {delay[bad][0]:g}")
    whole = to_steps(delay, draft.rules.dt) * draft.rules.dt
    on_grid = np.abs(delay - whole) <= np.finfo(np.float32).eps * whole  # but for the rounding of float32
    return _grouped(signal, np.where(on_grid, whole, delay), name, draft)


def _grouped(signal: np.ndarray, delay: np.ndarray, name: str, draft: Draft) -> list[Group]:
    """One group where the steps of a delay are its source's, or else one for each number of steps.

    A weight of 0 is no synapse: it has no delay.
    """
    dt, there = draft.rules.dt, signal != 0
    steps = np.where(there, to_steps(delay, dt), 0)
    most = steps.max(0, initial=0)
    if (steps == np.where(there, most, 0)).all():
        seconds = _of_sources(delay, there, most * dt)
        return [Group(signal, seconds if seconds.any() else None, rounding=_largest(delay - seconds, there))]
    distinct = np.unique(steps[there])
    if len(distinct) > draft.max_delay_groups:
        raise ValueError(
            f"{name}: {len(distinct)} distinct delays in steps of {dt:g} s, expected at most max_delay_groups="
            f"{draft.max_delay_groups}: NIR delays populations, so each takes a Delay and a Linear of its own. Round the delays "
            "to fewer, take a longer dt, a delay per source, or a larger max_delay_groups"
        )
    groups = []
    for count in distinct:
        of_group, label = there & (steps == count), f"_{count:0{len(str(distinct[-1]))}d}"
        seconds = np.full(signal.shape[1], count * dt)
        rounding = _largest(delay - seconds, of_group)
        groups.append(Group(np.where(of_group, signal, 0.0), seconds if count else None, label, rounding))
    return groups


def _of_sources(delay: np.ndarray, there: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """``(in,)`` delays: exact where all synapses of a source agree, else rounded to steps."""
    least, most = delay.min(0, where=there, initial=np.inf), delay.max(0, where=there, initial=0.0)
    return np.where(least == most, most, rounded)


def _largest(difference: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(difference).max(where=where, initial=0.0))


def _connect(
    nodes: dict[str, nir.NIRNode],
    edges: list[tuple[str, str]],
    groups: Iterable[Group],
    source: str,
    prefix: str,
    kind: str,
    target: str,
) -> None:
    """From ``source`` through each group's Delay and Linear to ``target``."""
    import nir

    for group in groups:
        at = source
        if group.delay is not None:
            name = f"{prefix}delay{group.label}"
            # by how much delays of synapses were moved to make this one
            nodes[name] = nir.Delay(group.delay, metadata={"rounding": group.rounding} if group.rounding else {})
            edges.append((at, name))
            at = name
        name = f"{prefix}{kind}{group.label}"
        nodes[name] = nir.Linear(group.weight)
        edges += [(at, name), (name, target)]


# ---- torch's layers --------------------------------------------------------------------------------------------------------


def _linear(layer: nn.Linear, draft: Draft) -> None:
    import nir

    draft.starts_with(layer.in_features)
    weight = _array(layer.weight)
    draft.append("linear", nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias)))


def _conv2d(layer: nn.Conv2d, draft: Draft) -> None:
    import nir

    if layer.padding_mode != "zeros":
        raise ValueError(f"{draft.prefix}.padding_mode: NIR pads with zeros, got {layer.padding_mode!r}")
    if layer.groups != 1 or layer.kernel_size[0] != layer.kernel_size[1]:
        raise ValueError(
            f"{draft.prefix}: nir {nir.version} takes the shapes of grouped and of non-square convolutions for others and cannot "
            f"read them back; got groups={layer.groups}, kernel_size={tuple(layer.kernel_size)}"
        )
    node = nir.Conv2d(
        input_shape=None,
        weight=_array(layer.weight),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=np.zeros(layer.out_channels) if layer.bias is None else _array(layer.bias),
    )
    draft.append("conv2d", node)


def _flatten(layer: nn.Flatten, draft: Draft) -> None:
    """NIR counts dimensions without the batch."""
    import nir

    start, end = (k - 1 if k > 0 else k for k in (layer.start_dim, layer.end_dim))
    if layer.start_dim == 0 or layer.end_dim == 0:
        raise ValueError(f"{draft.prefix}: a Flatten over the batch (dimension 0) has no meaning in NIR; start at 1")
    draft.append("flatten", nir.Flatten(input_type=None, start_dim=start, end_dim=end))


def _node(node: nir.NIRNode, draft: Draft) -> None:
    """A node of nir itself."""
    shape = next(iter(node.input_type.values()))
    if shape is not None:
        draft.starts_with(*(int(k) for k in shape))
    draft.append(type(node).__name__.lower(), node)


EXPORTERS: Mapping[type[nn.Module], Callable[[Any, Draft], None]] = {
    LIF: _lif,
    LI: _li,
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.Flatten: _flatten,
}
