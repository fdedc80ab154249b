"""Global drift compensation: one number that brings the outputs of arrays back to the size they had at programming.

    alpha(t) = sum_n G_n(0) / sum_n G_n(t),    over the cells of G+ and of G- of one matrix of weights

Each sum is one calibration read: the same voltage on all rows, the currents of all columns added up. The one at programming is
kept. The digital side multiplies with alpha behind the converters: it is part of the scale k of the weights. Wires are left out.

If all cells drift with one exponent nu, ``alpha = (t / t_0)^nu``, and nothing of the drift is left. If exponents are spread,
N(mean, std^2) independent of the conductances, a weight is still off by ``alpha (t / t_0)^-nu - 1``; the root mean square is

    sqrt(exp(std^2 L^2) - 1),    L = ln(t / t_0)

Source: Joshi et al., "Accurate deep neural network inference using computational phase-change memory" (Nature Communications
2020).
"""

from __future__ import annotations

import torch

from eventnet.hardware.resistive.devices import Chip

__all__ = ["drift_compensation"]


def drift_compensation(chip: Chip, age: float, generator: torch.Generator) -> float:
    """alpha: how much smaller the current of all cells is ``age`` seconds after programming; 1 if none flows.

    Args:
        chip: the cells of one matrix of weights.
        generator: draws the noise of both reads; the same state is the same read at programming.

    Example:
        >>> from eventnet.hardware.resistive import Cell, Drift, seeded
        >>> chip = Cell(drift=Drift()).program(torch.full((2, 100, 100), 40e-6), seeded(0))
        >>> alpha = drift_compensation(chip, 2000.0, seeded(1))
        >>> f"{chip.at(2000.0).mean() / 40e-6:.2f}", f"{alpha * chip.at(2000.0).mean() / 40e-6:.2f}"
        ('0.80', '1.00')
    """
    at_first, now = (_current(chip, each, generator) for each in (0.0, age))
    return at_first / now if at_first > 0 and now > 0 else 1.0


def _current(chip: Chip, age: float, generator: torch.Generator) -> float:
    """Of all cells, for one volt. NumPy adds up in one order on any number of threads."""
    return float(chip.read(age, generator).double().cpu().numpy().sum())
