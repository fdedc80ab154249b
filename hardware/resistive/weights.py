"""Random weights of reservoirs: drawn from a seed, scaled to a spectral radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["check_weights", "radius_to_scale", "random_weights", "spectral_radius"]

SQUARINGS = 24  # of a matrix, for its spectral radius


def random_weights(
    in_features: int,
    out_features: int,
    seed: int,
    *,
    density: float = 1.0,
    recurrent_density: float = 1.0,
    radius: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Input weights ``(in, out)`` and recurrent ones ``(out, out)``: normal, N(0, 1), each present with probability ``density``.

    A seed stands for a chip. Conductances drawn from a device model, ``G+ - G-``, serve as well.

    Args:
        density, recurrent_density: shares of the weights that are there, from 0 to 1.
        radius: the recurrent weights are scaled to this spectral radius; None: as drawn.

    Raises:
        ValueError: a density is no share; a radius below 0; recurrent weights of spectral radius 0, which no scale gives another.

    Example:
        >>> weight, recurrent_weight = random_weights(4, 3, seed=0, density=0.5)
        >>> weight.shape, recurrent_weight.shape
        (torch.Size([4, 3]), torch.Size([3, 3]))
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows, share in ((in_features, density), (out_features, recurrent_density)):
        if not 0 <= share <= 1:
            raise ValueError(f"random_weights: a density is a share from 0 to 1, got {share}")
        weight = torch.randn(rows, out_features, generator=generator, dtype=torch.float64)
        present = torch.rand(rows, out_features, generator=generator, dtype=torch.float64) < share
        found.append((weight * present).to(dtype))
    weight, recurrent = found
    if radius is not None:
        own = radius_to_scale("random_weights", recurrent, radius)
        recurrent = recurrent * (radius / own if own else 0.0)
    return weight, recurrent


def spectral_radius(weight: Tensor) -> float:
    """Largest absolute value of the eigenvalues of a square matrix, ``lim |W^n|^(1/n)``, rounded to six digits.

    W is squared again and again, to n = 2^24, with its norm taken out each time: a power iteration that a complex pair of
    eigenvalues does not disturb, in matrix products only.

    Raises:
        ValueError: the matrix is not square, or not finite.

    Example:
        >>> spectral_radius(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
        2.0
    """
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"spectral_radius: expected a square matrix, got {tuple(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("spectral_radius: the matrix is not finite")
    power, log = weight.detach().double(), 0.0  # log |W^n| / n
    for k in range(SQUARINGS + 1):
        norm = float(power.norm())
        if norm == 0:
            return 0.0
        log += math.log(norm) / 2**k
        if k < SQUARINGS:
            power = (power / norm) @ (power / norm)
    return float(f"{math.exp(log):.6g}")


def radius_to_scale(name: str, recurrent: Tensor, radius: float) -> float:
    """The spectral radius of recurrent weights that are to be scaled to another one; an error if that cannot be."""
    if not 0 <= radius < math.inf:
        raise ValueError(f"{name}: radius: expected a number >= 0, finite, or None, got {radius}")
    own = spectral_radius(recurrent)
    if own == 0 and radius != 0:
        raise ValueError(f"{name}: the recurrent weights have spectral radius 0: no scale gives another")
    return own


def check_weights(name: str, weight: Tensor, recurrent_weight: Tensor | None) -> None:
    """An error unless they are ``(in, out)`` and ``(out, out)``, or None, finite, and of one dtype and device."""
    if weight.dim() != 2:
        raise ValueError(f"{name}: expected a weight (in, out), got {tuple(weight.shape)}")
    out = weight.shape[1]
    if recurrent_weight is not None and recurrent_weight.shape != (out, out):
        raise ValueError(f"{name}: expected a recurrent_weight ({out}, {out}), got {tuple(recurrent_weight.shape)}")
    for kind, each in (("weight", weight), ("recurrent_weight", recurrent_weight)):
        if each is None:
            continue
        if each.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name}: expected a {kind} in float32 or float64, got {each.dtype}")
        if each.dtype != weight.dtype or each.device != weight.device:
            own, other = f"{weight.dtype} on {weight.device}", f"{each.dtype} on {each.device}"
            raise TypeError(f"{name}: expected weights of one dtype on one device, got {own} and {other}")
        if not bool(torch.isfinite(each).all()):  # such neurons would be silent, and nothing would say why
            raise ValueError(f"{name}: the {kind} is not finite")
