"""The converters around an array: numbers to voltages (DAC) and currents to numbers (ADC).

    q(v) = step round(clip(v, -bound, bound) / step),   step = 2 bound / (2^bits - 2)

2^bits - 1 levels, symmetric, with 0 among them. The gradient goes straight through: 1 within the bounds, 0 beyond them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eventnet.hardware.resistive.draws import normals

__all__ = ["ADC", "DAC", "check_converters", "quantize"]


def quantize(values: Tensor, bits: int | None, bound: float | Tensor) -> Tensor:
    """The nearest of ``2^bits - 1`` levels from -bound to bound, with the gradient of the clipping alone.

    Args:
        values: of any shape.
        bits: at least 2; None: clipped only.
        bound: in the unit of the values; a tensor is broadcast against them.

    Example:
        >>> x = torch.tensor([-3.0, 0.2, 0.4, 1.0], requires_grad=True)
        >>> found = quantize(x, bits=3, bound=1.0)  # steps of a third
        >>> found.detach(), torch.autograd.grad(found.sum(), x)[0]
        (tensor([-1.0000,  0.3333,  0.3333,  1.0000]), tensor([0., 1., 1., 1.]))
    """
    bound = torch.as_tensor(bound, dtype=values.dtype, device=values.device)
    clipped = values.clamp(-bound, bound)
    if bits is None:
        return clipped
    step = torch.where(bound > 0, 2 * bound / (2**bits - 2), 1.0)  # within a bound of 0 there is only 0
    nearest = (clipped.detach() / step).round_().mul_(step)
    return clipped + (nearest - clipped.detach()) if clipped.requires_grad else nearest


@dataclass(frozen=True)
class DAC:
    """Digital to analogue: the inputs as one of ``2^bits - 1`` voltages.

    Args:
        bits: 8 in Wan et al. (Nature 2022) and in aihwkit's presets; None: any voltage.
        bound: the largest input; larger ones are clipped. None: of each row its largest absolute value, in which case the
            scale is a number that the digital side divides out and multiplies in again.

    Example:
        >>> DAC(bits=3)(torch.tensor([[0.0, 3.0, 2.0], [0.0, 0.0, 0.0]]))
        tensor([[0., 3., 2.],
                [0., 0., 0.]])
    """

    bits: int | None = 8
    bound: float | None = None

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if self.bound is not None and not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(
                f"bound: expected a number > 0, or None for the largest input of each row, got {self.bound}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """``(..., in)`` inputs, rounded and clipped."""
        return quantize(x, self.bits, self.largest(x))

    def largest(self, x: Tensor) -> Tensor:
        """The input that is full scale, ``(..., 1)``."""
        if self.bound is not None:
            return x.new_full((*x.shape[:-1], 1), self.bound)
        return largest_of_rows(x)


@dataclass(frozen=True)
class ADC:
    """Analogue to digital: what comes out of a column, with noise, as one of ``2^bits - 1`` numbers.

    Its unit is the current of one cell at G_max under the largest input: a bound of 10 holds ten such cells.

    Args:
        bits: 8 in Wan et al. (Nature 2022) and in aihwkit's presets; None: any number.
        bound: in that unit; what exceeds it is clipped. 10 is usual.
        noise: standard deviation in that unit, new at every conversion; 0.04 is usual.

    Example:
        >>> ADC(bits=None, bound=2.0)(torch.tensor([[1.5, 5.0]]), largest=torch.tensor(2.0))
        tensor([[1.5000, 4.0000]])
    """

    bits: int | None = 8
    bound: float = 10.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if not self.bound > 0 or (self.bits is not None and math.isinf(self.bound)):
            raise ValueError(f"bound: expected a number > 0 (infinite only without bits), got {self.bound}")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"noise: expected a standard deviation >= 0, got {self.noise}")

    def __call__(self, y: Tensor, largest: Tensor | float, generator: torch.Generator | None = None) -> Tensor:
        """``(..., out)`` sums of products, rounded and clipped; ``largest`` is what one unit is, broadcast against them.

        Raises:
            ValueError: there is noise, and no generator to draw it.
        """
        if self.noise > 0:
            if generator is None:
                raise ValueError("ADC: noise needs a generator, as in adc(y, largest, generator)")
            y = y + self.noise * largest * normals(tuple(y.shape), generator, y)
        return self.rounded(y, largest)

    def rounded(self, y: Tensor, largest: Tensor | float) -> Tensor:
        """What comes out, without noise."""
        if math.isinf(self.bound):
            return y  # and no bits; an infinite bound times no input is no number
        return quantize(y, self.bits, self.bound * torch.as_tensor(largest, dtype=y.dtype, device=y.device))


def largest_of_rows(x: Tensor) -> Tensor:
    """``(..., 1)``: the largest absolute value of each row, without a gradient."""
    if x.shape[-1] == 0:
        return x.new_zeros((*x.shape[:-1], 1))
    return x.detach().abs().amax(-1, keepdim=True)


def check_converters(dac: Any, adc: Any) -> None:
    """An error unless they are converters, or None."""
    for name, given, kind in (("dac", dac, DAC), ("adc", adc, ADC)):
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name}: expected {kind.__name__}(bits=8) or alike, None for an ideal one, got {given!r}")


def _check_bits(bits: int | None) -> None:
    if bits is not None and not (2 <= bits <= 24 and bits == int(bits)):
        raise ValueError(f"bits: expected 2 to 24, whole, or None for no rounding, got {bits}")
