"""Networks as a row of layers: those of a grid library as pairs of a linear layer and neurons, ours as ``LIF`` and ``LI``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventnet.interop.grid import refused
from eventnet.layers.lif import LIF
from eventnet.layers.readout import LI

__all__ = ["Stage", "copied", "dtype_of", "layers_of", "linear_of", "stages_of"]

REMEDIES = {
    "Conv": "put it before the first spiking layer and drive that with its output",
    "BatchNorm": "fold it into the linear layer before it",
    "Dropout": "take it out: it does nothing in evaluation",
}


class Stage(NamedTuple):
    """Neurons and the linear layer before them, None if there is none; ``name`` says where they are in the model."""

    name: str
    linear: nn.Linear | None
    neuron: nn.Module

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        tensors = [*(self.linear or self.neuron).parameters(), *self.neuron.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def drive(self, raster: Tensor) -> Tensor:
        """What the neurons get for a raster in float64."""
        if self.linear is None:
            return raster
        weight, bias = (
            None if x is None else x.detach().double().cpu() for x in (self.linear.weight, self.linear.bias)
        )
        assert weight is not None
        return nn.functional.linear(raster, weight, bias)


def copied(module: nn.Module) -> nn.Module:
    """A copy, in float64 on the CPU, also of neurons that still have the voltage and the graph of their last step."""
    held = [x for value in vars(module).values() for x in _tensors(value)]
    memo: dict[int, Any] = {id(x): x.detach() for x in held if not x.is_leaf}  # which copy.deepcopy refuses
    return copy.deepcopy(module, memo).double().cpu()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in an attribute of a module, its buffers for example."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple):
        yield from (x for x in (value.values() if isinstance(value, dict) else value) if isinstance(x, Tensor))


def stages_of(
    model: nn.Module | Iterable[nn.Module],
    is_neuron: Callable[[nn.Module], bool],
    library: str,
    unwrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> list[Stage]:
    """The stages of a model, in order.

    Raises:
        TypeError: a model whose order only its ``forward`` knows.
        NotImplementedError: a layer that is neither linear nor neurons.
    """
    found: list[Stage] = []
    waiting: tuple[str, nn.Linear] | None = None
    for name, part in _flat(model, is_neuron, library):
        module = unwrap(part)
        if isinstance(module, nn.Linear):
            if waiting is not None:
                raise refused(f"{name} Linear after {waiting[0]} Linear", "multiply the two into one")
            waiting = name, module
        elif is_neuron(module):
            named, linear = (f"{waiting[0]} Linear, {name}", waiting[1]) if waiting else (name, None)
            found.append(Stage(named, linear, module))
            waiting = None
        elif not isinstance(module, nn.Identity | nn.Flatten):
            kind = type(module).__name__
            remedy = next(
                (text for start, text in REMEDIES.items() if kind.startswith(start)), "convert the part around it"
            )
            raise refused(f"{name} {kind}", remedy)
    if not found:
        raise ValueError(f"there are no {library} neurons in {type(model).__name__}")
    if waiting is not None:
        raise refused(f"{waiting[0]} Linear at the end", "apply it to the output of the converted network")
    return found


def _flat(
    model: nn.Module | Iterable[nn.Module], is_neuron: Callable[[nn.Module], bool], library: str
) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in order, of sequences within sequences too."""
    if isinstance(model, nn.Module) and not isinstance(model, nn.Sequential | nn.ModuleList):
        if not (isinstance(model, nn.Linear) or is_neuron(model)):
            raise TypeError(
                f"{type(model).__name__}: only its forward knows the order of its layers; pass them in this order, such as "
                "[net.fc1, net.lif1, net.fc2, net.lif2]"
            )
        yield "0", model
        return
    if not isinstance(model, Iterable):
        raise TypeError(f"expected a model of {library} or its layers in order, got {type(model).__name__}")
    named = model.named_children() if isinstance(model, nn.Module) else ((str(i), m) for i, m in enumerate(model))
    for name, module in named:
        if isinstance(module, nn.Sequential):
            yield from ((f"{name}.{inner}", part) for inner, part in _flat(module, is_neuron, library))
        else:
            yield name, module


def dtype_of(stages: Iterable[Stage]) -> torch.dtype:
    """Of the first weights, float32 at least: layers of events compute in no less."""
    tensors: list[Tensor] = [p for stage in stages for m in (stage.linear, stage.neuron) if m for p in m.parameters()]
    return torch.promote_types(tensors[0].dtype, torch.float32) if tensors else torch.get_default_dtype()


def layers_of(network: nn.Module | Iterable[nn.Module]) -> list[LIF | LI]:
    """The layers of eventnet in a network, in order.

    Raises:
        NotImplementedError: other layers, or an ``LI`` before the end.
    """
    modules = [network] if isinstance(network, LIF | LI) else network
    if not isinstance(modules, nn.Module | Iterable):
        raise TypeError(f"expected layers of eventnet in order, got {type(network).__name__}")
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.Sequential | nn.ModuleList):
        if not any(isinstance(part, LIF | LI) for part in modules.modules()):
            raise refused(type(network).__name__, "convert LIF layers, the last one possibly an LI")
        raise TypeError(
            f"{type(network).__name__}: pass its layers in the order of its forward: [net.hidden, net.readout]"
        )
    layers: list[LIF | LI] = []
    for i, layer in enumerate(modules):
        if not isinstance(layer, LIF | LI):
            raise refused(f"{i} {type(layer).__name__}", "convert LIF layers, the last one possibly an LI")
        if layers and isinstance(layers[-1], LI):
            raise refused(f"{i - 1} LI", "only the last layer may be a readout")
        layers.append(layer)
    if not layers:
        raise ValueError("there are no layers to convert")
    return layers


def linear_of(
    weight: Tensor, bias: Tensor | None, learn_weight: bool, learn_bias: bool, dtype: torch.dtype
) -> nn.Linear:
    """``nn.Linear`` with a weight ``(in, out)``; what is learnt requires grad."""
    linear = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        if bias is not None:
            linear.bias.copy_(bias)
    linear.weight.requires_grad_(learn_weight)
    if bias is not None:
        linear.bias.requires_grad_(learn_bias)
    return linear
