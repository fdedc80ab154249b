"""Cells that were formed and never given a value: a chip's own random conductances, as the weights of a reservoir.

    G = chip(clip(B |N(mean, std)|, G_min, G_max), age),   B ~ Bernoulli(formed),   w = k (G+ - G-)

What forming leaves is a target that nobody chose. Noise, drift and stuck cells were measured on cells that had been written, so
each is taken as one that was written to it (an assumption). Of the input weights k is 1 / G_max, of the recurrent ones such that
what forming left has the wanted spectral radius; what noise and age then make of it is not scaled away.

Source: Lin, Wang et al., "Resistive memory-based zero-shot liquid state machine for multimodal event data learning" (Nature
Computational Science 2025).
"""

from __future__ import annotations

import torch

from eventnet.hardware.resistive.crossbar import IDEAL, Pair
from eventnet.hardware.resistive.devices import Cell, check_cell
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.effects import Forming
from eventnet.hardware.resistive.weights import radius_to_scale

__all__ = ["HALF_FORMED", "formed_pairs"]

HALF_FORMED = Forming(formed=0.5, mean=20e-6, std=5e-6)
"""Half of the cells conduct, in the middle of the range of ``HFOX``: a choice of ours, no measurement."""


def formed_pairs(
    in_features: int,
    out_features: int,
    seed: int,
    *,
    forming: Forming = HALF_FORMED,
    cell: Cell = IDEAL,
    age: float = 0.0,
    radius: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Pair, Pair]:
    """The pairs of the input weights ``(out, in)`` and of the recurrent weights ``(out, out)`` of one chip.

    Args:
        seed: the chip: same seed, same cells, at any age.
        forming: what conductances are drawn from, clipped to the cell's range.
        cell: what the cells are after forming; the default one is ideal.
        age: seconds since then.
        radius: spectral radius of the recurrent weights as formed; None: k is 1 / G_max as of the input weights.

    Raises:
        TypeError: a ``forming`` or a ``cell`` that is none; another dtype than float32 and float64.
        ValueError: a mean of ``forming`` beyond G_max; a radius below 0; recurrent weights of spectral radius 0, which no scale
            gives another; an age beyond what was measured.

    Example:
        >>> from eventnet.hardware.resistive.weights import spectral_radius
        >>> pair, recurrent = formed_pairs(4, 3, seed=0, radius=0.9)
        >>> pair.weight().shape, f"{spectral_radius(recurrent.weight()):.3f}"
        (torch.Size([3, 4]), '0.900')
    """
    if not isinstance(forming, Forming):
        raise TypeError(f"forming: expected a Forming, as Forming(formed=0.5, mean=20e-6, std=5e-6), got {forming!r}")
    check_cell(cell)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    if forming.mean > cell.g_max:
        raise ValueError(f"forming: expected a mean up to the cell's G_max, {cell.g_max:g} S, got {forming.mean:g} S")
    cells, found = seeded(seed), []
    for stream, inputs in enumerate((in_features, out_features)):
        formed = forming.draw((2, out_features, inputs), cells, dtype).clamp(cell.g_min, cell.g_max)
        scale = 1 / cell.g_max
        if stream == 1 and radius is not None:
            own = radius_to_scale("formed_pairs", scale * (formed[0] - formed[1]), radius)
            scale = scale * radius / own if own else 0.0
        positive, negative = cell.program(formed, seeded(seed, stream)).at(age)
        found.append(Pair(positive, negative, scale))
    return found[0], found[1]
