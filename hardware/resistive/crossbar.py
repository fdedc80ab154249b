"""Crossbars: weights as differential pairs of conductances, and products with them in tiles.

    w = k (G+ - G-),   G+ = G_min + max(w, 0) / k,   G- = G_min + max(-w, 0) / k,   k = max|w| / (G_max - G_min)
    y[j] = sum over tiles of ADC(sum_{i in tile} w[j, i] DAC(x[i])) + bias[j]

Inputs are voltages on the rows of an array and are applied to an array of G+ and to one of G-; outputs are the differences of
their column currents. Weights are ``(out, in)``, as in ``nn.Linear``: a weight's first index is its column, its second its row.
An array of limited size holds a tile; each tile has converters of its own, and what they give is added up digitally.

Noise of a read is new for every row of ``x``: the noises of the cells of a column add up to one normal number of variance
``sum_i x[i]^2 sigma[j, i]^2``, which is what is drawn. So the rows of a batch do not depend on one another, and a generator gives
a batch in one call the same noise as in several.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet.hardware.resistive.converters import ADC, DAC, check_converters, largest_of_rows
from eventnet.hardware.resistive.devices import Cell, check_cell
from eventnet.hardware.resistive.draws import normals
from eventnet.hardware.resistive.ir_drop import FIRST_ORDER, drop, ir_drop

__all__ = ["Crossbar", "Pair", "check_arrays", "from_pair", "to_pair"]

IDEAL = Cell()


# ---- differential pairs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pair:
    """Weights as pairs of conductances: ``w = scale (positive - negative)``.

    Args:
        positive, negative: ``(out, in)`` siemens.
        scale: k, weight per siemens.

    Raises:
        ValueError: conductances of two shapes, negative, infinite or NaN; a scale that is not finite or negative.

    Example:
        >>> Pair(torch.tensor([[30e-6]]), torch.tensor([[10e-6]]), scale=5e4).weight()
        tensor([[1.]])
    """

    positive: Tensor
    negative: Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.positive.shape != self.negative.shape:
            shapes = f"{tuple(self.positive.shape)} and {tuple(self.negative.shape)}"
            raise ValueError(f"expected positive and negative conductances of one shape, got {shapes}")
        for each in (self.positive, self.negative):
            low, high = _bounds(each)
            if not (low >= 0 and high < math.inf):
                raise ValueError("expected finite conductances >= 0 S, got an infinite one, a negative one or NaN")
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale: expected weight per siemens >= 0, finite, got {self.scale}")

    def weight(self) -> Tensor:
        """``(out, in)``: the weights that the pairs stand for."""
        return self.scale * (self.positive - self.negative)


def to_pair(weight: Tensor, cell: Cell = IDEAL, scale: float | None = None) -> Pair:
    """The conductances that hold weights: the one of the weight's sign above G_min, the other at G_min.

    Args:
        weight: ``(out, in)``, or any shape.
        cell: gives the range from G_min to G_max.
        scale: k, weight per siemens; None: the largest absolute weight is the whole range.

    Raises:
        ValueError: a weight that is not finite, or one too large for the scale. TypeError: a ``cell`` that is none.

    Example:
        >>> pair = to_pair(torch.tensor([[1.0, -0.5, 0.0]]), Cell(g_max=40e-6))
        >>> (pair.positive * 1e6).round(), (pair.negative * 1e6).round()
        (tensor([[40.,  0.,  0.]]), tensor([[ 0., 20.,  0.]]))
    """
    check_cell(cell)
    weight = weight.detach()
    largest = max(map(abs, _bounds(weight)))
    if not largest < float("inf"):
        raise ValueError("to_pair: expected finite weights, got an infinite one or NaN")
    span = cell.g_max - cell.g_min
    if scale is None:
        scale = largest / span or 1 / span  # any scale holds zeros
    if not 0 < scale < float("inf") or largest > scale * span * (1 + 1e-6):
        raise ValueError(
            f"to_pair: a scale of {scale:g} per siemens holds weights up to {scale * span:g}, got {largest:g}"
        )
    signed = weight / scale
    positive, negative = signed.clamp(0, span).add_(cell.g_min), signed.neg_().clamp_(0, span).add_(cell.g_min)
    return Pair(positive, negative, scale)


def _bounds(weight: Tensor) -> tuple[float, float]:
    """Smallest and largest; NaN if there is one among them."""
    if weight.numel() == 0:
        return 0.0, 0.0
    low, high = weight.aminmax()
    return low.item(), high.item()


def from_pair(pair: Pair) -> Tensor:
    """The weights of differential pairs, ``k (G+ - G-)``: the inverse of ``to_pair``.

    Example:
        >>> weight = torch.tensor([[1.0, -0.5, 0.0]])
        >>> from_pair(to_pair(weight)).equal(weight)
        True
    """
    return pair.weight()


# ---- products -------------------------------------------------------------------------------------------------------


class Crossbar:
    """Arrays that are ready to be read: products with differential pairs, in tiles, through converters.

    Without an ADC nothing happens to a tile that would not happen to the sum, and one plain product serves.

    Args:
        pair: conductances ``(out, in)``.
        cell: gives G_max, the unit of the ADC.
        read_sigma: standard deviations of one read, siemens, for ``pair.positive`` and ``pair.negative``; None: no read noise.
            What wires take from it is left out.
        tile: rows (inputs) and columns (outputs) of an array; None: one array as large as it takes.
        dac, adc: converters; None: ideal ones.
        wire_resistance: ohm per cell; 0: ideal wires. See ``ir_drop``; beyond its range there is a warning.

    Raises:
        TypeError: a pair, a cell or a converter that is none. ValueError: shapes that do not fit, a tile without cells.

    Example:
        >>> weight = torch.randn(10, 300)
        >>> crossbar = Crossbar(to_pair(weight), tile=(128, 128), adc=ADC(bits=14))
        >>> x = torch.rand(5, 300)
        >>> bool((crossbar.product(x) - x @ weight.t()).abs().max() < 0.02)
        True
    """

    def __init__(
        self,
        pair: Pair,
        cell: Cell = IDEAL,
        *,
        read_sigma: tuple[Tensor, Tensor] | None = None,
        tile: tuple[int, int] | None = (128, 128),
        dac: DAC | None = None,
        adc: ADC | None = None,
        wire_resistance: float = 0.0,
    ) -> None:
        if not isinstance(pair, Pair):
            raise TypeError(f"Crossbar: expected a Pair, as to_pair makes it of weights, got {type(pair).__name__}")
        if pair.positive.dim() != 2:
            raise ValueError(f"Crossbar: expected conductances (out, in), got {tuple(pair.positive.shape)}")
        check_arrays(cell, tile, dac, adc)
        self.out_features, self.in_features = pair.positive.shape
        self.tile = tile or (max(self.in_features, 1), max(self.out_features, 1))
        self.dac, self.adc = dac, adc
        self.full = pair.scale * cell.g_max  # what one cell at G_max weighs
        if wire_resistance != 0:
            dropped = [_with_wires(each, self.tile, wire_resistance) for each in (pair.positive, pair.negative)]
            pair = Pair(dropped[0], dropped[1], pair.scale)
        self.weight = self._in_tiles(pair.weight())
        self.variance = None
        if read_sigma is not None:
            if any(each.shape != pair.positive.shape for each in read_sigma):
                shapes = " and ".join(str(tuple(each.shape)) for each in read_sigma)
                raise ValueError(f"read_sigma: expected two of shape {tuple(pair.positive.shape)}, got {shapes}")
            self.variance = self._in_tiles(pair.scale**2 * (read_sigma[0] ** 2 + read_sigma[1] ** 2))

    def product(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(..., out)``: what the arrays make of ``x`` ``(..., in)``.

        The gradient of x is that of the conductances, straight through the converters; noise has none.

        Raises:
            ValueError: another number of inputs; there is noise, and no generator to draw it.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"Crossbar: expected x of shape (..., {self.in_features}), got {tuple(x.shape)}")
        rows = x.reshape(math.prod(x.shape[:-1]), self.in_features)
        unit = None if self.adc is None else self.full * (self.dac.largest(rows) if self.dac else largest_of_rows(rows))
        if self.dac is not None:
            rows = self.dac(rows)
        rows = self._rows_in_tiles(rows)
        found = rows @ self.weight
        variance = None if self.variance is None else rows.detach().square() @ self.variance
        if self.adc is not None and unit is not None and self.adc.noise > 0:
            of_adc = (self.adc.noise * unit) ** 2
            variance = of_adc if variance is None else variance + of_adc
        if variance is not None:
            found = found + variance.sqrt() * self._drawn(found, generator)
        if self.adc is not None and unit is not None:
            found = self.adc.rounded(found, unit)
        if found.dim() == 3:
            found = found.sum(0)
        return found.reshape(*x.shape[:-1], self.out_features)

    def effective_weight(self) -> Tensor:
        """``(out, in)``: the weights that the arrays multiply with, wires included, without noise and converters."""
        return self.weight.reshape(-1, self.out_features)[: self.in_features].t()

    @property
    def _tiles(self) -> int:
        """Arrays whose outputs are converted on their own and added up; one where nothing is converted."""
        return 1 if self.adc is None else -(-max(self.in_features, 1) // self.tile[0])

    def _in_tiles(self, weight: Tensor) -> Tensor:
        """``(out, in)`` as ``(in, out)``; as ``(tiles, rows, out)``, filled up with zeros, if there are several tiles."""
        if self._tiles == 1:
            return weight.t()
        missing = self._tiles * self.tile[0] - self.in_features
        return F.pad(weight.t(), (0, 0, 0, missing)).reshape(self._tiles, self.tile[0], self.out_features)

    def _rows_in_tiles(self, rows: Tensor) -> Tensor:
        """``(B, in)``; as ``(tiles, B, rows)`` if there are several tiles."""
        if self._tiles == 1:
            return rows
        missing = self._tiles * self.tile[0] - self.in_features
        return F.pad(rows, (0, missing)).reshape(-1, self._tiles, self.tile[0]).transpose(0, 1)

    def _drawn(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Normal numbers of the shape of ``like``, drawn row by row of the batch."""
        if generator is None:
            raise ValueError("Crossbar: its noise needs a generator, as in crossbar.product(x, generator)")
        if like.dim() == 2:
            return normals(tuple(like.shape), generator, like)
        tiles, batch, out = like.shape
        return normals((batch, tiles * out), generator, like).reshape(batch, tiles, out).transpose(0, 1)


def check_arrays(cell: Any, tile: Any, dac: Any, adc: Any) -> None:
    """An error unless arrays can be of these cells, of this size, and have these converters."""
    check_cell(cell)
    check_converters(dac, adc)
    whole = isinstance(tile, tuple | list) and len(tile) == 2 and all(isinstance(each, int) for each in tile)
    if tile is not None and not (whole and min(tile) >= 1):
        raise ValueError(f"tile: expected (rows, columns) >= 1, whole, or None, got {tile!r}")


def _with_wires(conductance: Tensor, tile: tuple[int, int], resistance: float) -> Tensor:
    """``(out, in)`` effective conductances of arrays of this size; cells that are not used do not conduct."""
    out, inputs = conductance.shape
    rows, columns = min(tile[0], max(inputs, 1)), min(tile[1], max(out, 1))
    filled = F.pad(conductance.t(), (0, -out % columns, 0, -inputs % rows))
    arrays = filled.reshape(filled.shape[0] // rows, rows, filled.shape[1] // columns, columns).transpose(1, 2)
    largest = drop(arrays, resistance).amax().item() if arrays.numel() else 0.0
    if largest > FIRST_ORDER:
        warnings.warn(
            f"wires take {largest:.2f} of a cell's voltage; first order is within 1 % up to {FIRST_ORDER}: take smaller tiles",
            stacklevel=3,
        )
    return ir_drop(arrays, resistance).transpose(1, 2).reshape(filled.shape)[:inputs, :out].t()
