"""Weights that stay sparse: a fixed mask is applied where the weight is used, so that no optimiser can fill it in.

    weight = original * mask

The parameter is ``original``; what the module computes with is the product. Gradients of masked entries are zero, and whatever an
optimiser does with such an entry (momentum from before, weight decay, steps that mix entries) does not reach the product.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Masked", "fan_in_uniform_", "random_mask", "sparsify_"]

Module = TypeVar("Module", bound=nn.Module)


class Masked(nn.Module):
    """The parametrization ``original * mask``.

    Args:
        mask: of the weight's shape, true (or one) where there is a connection.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        # Of the weight's type: a product with bools takes several times longer.
        self.register_buffer("mask", mask.to(dtype or torch.get_default_dtype()))

    def forward(self, original: Tensor) -> Tensor:
        """The weight."""
        return original * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The parameter that a weight is kept in; entries without a connection are dropped."""
        return weight * self.mask


def sparsify_(
    module: Module, density: float, *, name: str = "weight", rows: int = 1, generator: torch.Generator | None = None
) -> Module:
    """Leave every unit of a module a random share of its inputs, for good; returns the module.

    Each row of the weight (an output unit, or an output channel of a convolution) keeps ``round(density * fan_in)`` connections,
    drawn anew for each row. The values of those stay; draw them before by ``fan_in_uniform_`` where their scale matters.

    Args:
        module: an ``nn.Linear``, ``nn.Conv2d`` or any module whose parameter ``name`` is ``(out, in, ...)``.
        density: share of the connections that remain, in (0, 1].
        rows: leading dimensions of the weight that number its rows.
        generator: of the random choice; None is torch's own.

    The parameter is then ``module.parametrizations.weight.original``, and mask and parameter are in the ``state_dict``.
    ``torch.nn.utils.parametrize.remove_parametrizations(module, "weight")`` makes it a plain (dense) parameter again, with its
    zeros; in evaluation ``with parametrize.cached():`` computes the product once. Keep the module by its ``state_dict``: torch
    does not pickle parametrized ones (``copy.deepcopy`` works).

    Raises:
        ValueError: a density outside (0, 1], or so low that a unit has no input; a weight that is sparse already.
        AttributeError: the module has no such parameter.

    Example:
        >>> layer = sparsify_(nn.Linear(20, 3), 0.25)
        >>> (layer.weight != 0).sum(1).tolist()
        [5, 5, 5]
    """
    weight = getattr(module, name)
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"sparsify_: {name} of this {type(module).__name__} has a parametrization already")
    mask = random_mask(weight.shape, density, rows=rows, generator=generator).to(weight.device)
    parametrize.register_parametrization(module, name, Masked(mask, weight.dtype))
    return module


def random_mask(
    shape: torch.Size | tuple[int, ...], density: float, *, rows: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Bools of that shape; in each row ``round(density * fan_in)`` are true, at random places.

    Example:
        >>> random_mask((2, 3, 4), 0.5).flatten(1).sum(1).tolist()
        [6, 6]
        >>> random_mask((2, 3, 4), 0.5, rows=2).sum(2).tolist()
        [[2, 2, 2], [2, 2, 2]]
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; expected a share in (0, 1]")
    fan_in = math.prod(shape[rows:])
    kept = round(density * fan_in)
    if not kept:
        raise ValueError(f"density {density} of {fan_in} inputs is none; expected at least {1 / max(fan_in, 1):.2g}")
    order = torch.rand(math.prod(shape[:rows]), fan_in, generator=generator).argsort(1)[:, :kept]
    return torch.zeros(len(order), fan_in, dtype=torch.bool).scatter_(1, order, True).view(shape)


@torch.no_grad()
def fan_in_uniform_(
    weight: Tensor, share: float = 1.0, *, rows: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Fill a weight ``(out, in, ...)`` with U(-b, b), ``b = (share * fan_in)^-1/2``, in place.

    Args:
        weight, rows: as of ``sparsify_``.
        share: of the products that are not zero: density of the weight times share of the inputs that are active.

    Source: Iyer et al., "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic environments" (2022).

    Example:
        >>> weight = fan_in_uniform_(torch.empty(50, 100), share=0.25)
        >>> bool(weight.abs().max() <= 0.2), bool(weight.abs().max() > 0.19)
        (True, True)
    """
    if not 0 < share <= 1:
        raise ValueError(f"fan_in_uniform_: share is {share}; expected one in (0, 1]")
    bound = (share * math.prod(weight.shape[rows:])) ** -0.5
    return weight.uniform_(-bound, bound, generator=generator)
