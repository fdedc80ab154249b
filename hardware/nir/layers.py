"""From a NIR graph to eventnet's layers, where these can hold it: a chain of current-based neurons with linear synapses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eventnet import LI, LIF
from eventnet.hardware.nir.graph import Flat
from eventnet.hardware.nir.simulate import Rules

__all__ = ["branch_of", "to_layers"]

CURRENTLESS = "has no synaptic current, and eventnet's layers have one"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("I", "IF", "LI", "LIF"), CURRENTLESS),
    **dict.fromkeys(("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"), "is a layer of images, and eventnet has none"),
    **dict.fromkeys(("Scale", "Flatten", "Threshold"), "has no layer in eventnet"),
}


@dataclass(frozen=True)
class Branch:
    """A way from a neuron or the input to a neuron."""

    source: str
    weight: np.ndarray  # (out, in)
    delay: np.ndarray | None  # (in,) seconds


def to_layers(flat: Flat, rules: Rules, dtype: torch.dtype | None) -> nn.Sequential:
    """See ``Imported.to_model``."""
    if rules.reset != "to_value":
        raise ValueError(
            f"to_model: reset={rules.reset!r} (a soft reset): eventnet's neurons have a hard one; import with reset='to_value'"
        )
    for name, node in flat.nodes.items():
        kind = type(node).__name__
        if kind in REFUSED:
            raise ValueError(f"to_model: node {name!r} ({kind}) {REFUSED[kind]}; from_nir(...) runs it in steps")
    left = {
        name: [branch_of(flat, source, name) for source in flat.sources(name)]
        for name in flat.order
        if flat.kind(name) in ("CubaLIF", "CubaLI")
    }
    layers, previous = [], flat.input
    while left:
        following = [name for name, branches in left.items() if previous in {each.source for each in branches}]
        if not following:
            raise ValueError(
                f"to_model: nothing hears {previous!r}, but {', '.join(left)} are left: expected a chain of layers"
            )
        name = following[0]
        branches = left.pop(name)
        others = sorted({each.source for each in branches} - {previous, name})
        if others:
            raise ValueError(
                f"to_model: {name!r} hears {', '.join(others)} beside the layer before it, {previous!r}: "
                "eventnet's layers form a chain, without paths that skip one or lead back"
            )
        forward, recurrent = ([each for each in branches if each.source == end] for end in (previous, name))
        layers.append(_layer(flat, name, forward, recurrent, rules, dtype))
        previous = name
    if not layers or flat.sources(flat.output) != [previous]:
        found = ", ".join(flat.sources(flat.output))
        raise ValueError(f"to_model: expected the last neurons, {previous!r}, to be the output, got {found!r}")
    return nn.Sequential(*layers)


def branch_of(flat: Flat, at: str, target: str) -> Branch:
    """The Linear (or Affine without bias) that leads to ``target``, and the Delay before it, if there is one."""
    node, delay = flat.nodes[at], None
    if flat.kind(at) not in ("Linear", "Affine"):
        raise ValueError(f"to_model: {target!r} hears {at!r} ({flat.kind(at)}); expected a Linear between them")
    if np.any(getattr(node, "bias", 0.0)):
        raise ValueError(
            f"to_model: {at}.bias is a constant current, and eventnet's layers have none (theirs is v_leak)"
        )
    source = _only_source(flat, at)
    if flat.kind(source) == "Delay":
        delay = flat.nodes[source].delay
        source = _only_source(flat, source)
    return Branch(source, node.weight, delay)


def _only_source(flat: Flat, name: str) -> str:
    sources = flat.sources(name)
    if len(sources) != 1:
        raise ValueError(f"to_model: {name!r} has {len(sources)} sources, {', '.join(sources)}; expected one")
    return sources[0]


def _layer(
    flat: Flat,
    name: str,
    forward: list[Branch],
    recurrent: list[Branch],
    rules: Rules,
    dtype: torch.dtype | None,
) -> LIF | LI:
    node = flat.nodes[name]
    # what an event of weight 1 adds to r I: its spike lasts for a step and is 1 high, or has area 1
    jump = node.r * node.w_in / node.tau_syn * (rules.dt if rules.convention == "step" else 1.0)
    given: dict[str, Any] = {
        "tau_mem": _shared(node.tau_mem),
        "tau_syn": _shared(node.tau_syn),
        "bias": _shared(node.v_leak),
    }
    weight, delay = _synapses(forward, jump, f"{name}.delay")
    shape = weight.shape
    if flat.kind(name) == "CubaLI":
        if delay is not None or recurrent:
            raise ValueError(f"to_model: {name!r} (CubaLI) has delays or hears itself; eventnet's LI has neither")
        readout = LI(*shape, **given, dtype=dtype)
        return _filled(readout, weight=weight)
    given |= {"threshold": _shared(node.v_threshold), "reset": _shared(node.v_reset)}
    filled = {"weight": weight}
    if recurrent:
        filled["recurrent_weight"], recurrent_delay = _synapses(recurrent, jump, f"{name}.recurrent_delay")
        given |= {"recurrent": True, "recurrent_delay": recurrent_delay}
    return _filled(LIF(*shape, delay=delay, **given, dtype=dtype), **filled)


def _shared(value: np.ndarray) -> float | Tensor:
    """One number where all neurons have the same: kernels are faster with it."""
    return float(value.flat[0]) if (value == value.flat[0]).all() else torch.tensor(value)


def _synapses(branches: list[Branch], jump: np.ndarray, what: str) -> tuple[Tensor, Tensor | None]:
    """``(in, out)`` weights and delays of branches that run side by side."""
    weights = np.stack([each.weight for each in branches])
    if ((weights != 0).sum(0) > 1).any():
        raise ValueError(
            f"to_model: {what}: a synapse has several delays, on branches side by side; expected one for each"
        )
    weight = torch.tensor((weights.sum(0) * jump[:, None]).T)
    delays = [np.zeros(weights.shape[2]) if each.delay is None else each.delay for each in branches]
    if not any(delay.any() for delay in delays):
        return weight, None
    if len(delays) == 1:
        return weight, torch.tensor(delays[0])[:, None]
    of_synapse = np.select([part != 0 for part in weights], [np.broadcast_to(d, weights[0].shape) for d in delays], 0.0)
    return weight, torch.tensor(of_synapse.T)


def _filled(layer: Any, **weights: Tensor) -> Any:
    with torch.no_grad():
        for name, value in weights.items():
            getattr(layer, name).copy_(value)
    return layer
