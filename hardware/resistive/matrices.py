"""The matrices of weights of a model: which ones arrays can hold, and which layers are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from eventnet import EGRU, LI, LIF, EGRUCell
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear

__all__ = ["Matrix", "matrices_of"]


class Matrix(NamedTuple):
    """One of them: the name of its parameter in the model, its layer, itself."""

    name: str
    layer: nn.Module
    parameter: nn.Parameter


def matrices_of(model: nn.Module) -> list[Matrix]:
    """All of them, in the order of the model's modules.

    Raises:
        TypeError: a layer with weights of another kind; it is named.
        ValueError: weights that two layers share, or that are pruned or parametrized; no layer with weights.

    Example:
        >>> [each.name for each in matrices_of(nn.Sequential(LIF(4, 3, recurrent=True), LI(3, 2)))]
        ['0.weight', '0.recurrent_weight', '1.weight']
    """
    if getattr(getattr(model, "recipe", None), "tied", False):
        raise ValueError("model: its output weights are those of its embedding (tied); arrays hold them apart")
    found = list(_all(model))
    if not found:
        raise ValueError("model: expected at least one layer with weights, got none")
    names: dict[int, str] = {}
    for name, _, parameter in found:
        if id(parameter) in names:
            raise ValueError(f"{name}: shared with {names[id(parameter)]}; arrays hold the weights of one layer each")
        names[id(parameter)] = name
    return found


def _all(model: nn.Module) -> Iterator[Matrix]:
    for where, layer in model.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, LIF) and layer.branches is not None:
            raise TypeError(f"{where or 'model'}: weights of dendritic branches are not placed; expected branches=None")
        if isinstance(layer, LIF | LI):
            names = [name for name in ("weight", "recurrent_weight") if getattr(layer, name, None) is not None]
        elif isinstance(layer, EGRU | EGRUCell):
            names = [re.sub("_(orig|g|v)$", "", name) for name in own if name.startswith("weight")]
        elif type(layer) in (nn.Linear, CrossbarLinear) or parametrize.is_parametrized(layer, "weight"):
            names = ["weight"]
        else:
            matrices = [name for name, each in own.items() if each.dim() > 1]
            if matrices:
                raise TypeError(
                    f"{where or 'model'}: a {type(layer).__name__} has weights ({', '.join(matrices)}) that are not placed; "
                    "expected LIF, LI, EGRU, EGRUCell and nn.Linear layers"
                )
            continue
        for name in names:
            if name not in own:
                raise ValueError(
                    f"{'.'.join(filter(None, (where, name)))}: pruned or parametrized weights; make them plain first, "
                    "as with torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
                )
            yield Matrix(".".join(filter(None, (where, name))), layer, own[name])
