"""What a chip holds of a trained model: how far its weights are off, the cells and arrays they take, and what is modelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import Cell

__all__ = ["MatrixReport", "PlacementReport", "matrix_report", "notes_on"]


class MatrixReport(NamedTuple):
    """The arrays of one matrix of weights.

    Args:
        shape: ``(out, in)``.
        error: root mean square of what the weights are off, relative to that of the weights; NaN where all weights are 0.
        largest: the largest of these differences, relative to the largest weight.
        cells: that are used, two for each weight.
        arrays: of G+ and of G-, one of each for every tile of the weights.
        filled: share of the cells of these arrays that is used.
        stuck: share of the used cells.
    """

    shape: tuple[int, int]
    error: float
    largest: float
    cells: int
    arrays: int
    filled: float
    stuck: float


@dataclass(frozen=True)
class PlacementReport:
    """What a chip holds: its ``matrices`` of weights by name, and all of them together; ``print`` it for a table."""

    matrices: Mapping[str, MatrixReport]
    seed: int
    age: float
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """Cells used by all weights."""
        return sum(each.cells for each in self.matrices.values())

    @property
    def arrays(self) -> int:
        """Arrays of all weights, of G+ and of G-."""
        return sum(each.arrays for each in self.matrices.values())

    @property
    def stuck(self) -> float:
        """Share of the used cells that is stuck."""
        return sum(each.stuck * each.cells for each in self.matrices.values()) / max(self.cells, 1)

    def __str__(self) -> str:
        lines = [f"chip {self.seed}, {self.age:g} s after programming"]
        lines.append(
            f"{'weights':<24} {'(out, in)':>12} {'error':>8} {'cells':>10} {'arrays':>7} {'filled':>7} {'stuck':>7}"
        )
        for name, each in self.matrices.items():
            shape, used = (
                f"{each.shape[0]}, {each.shape[1]}",
                f"{each.cells:>10,} {each.arrays:>7,} {each.filled:>7.1%}",
            )
            lines.append(f"{name:<24} {shape:>12} {each.error:>8.2%} {used} {each.stuck:>7.2%}")
        lines.append(f"{'all':<24} {'':>12} {'':>8} {self.cells:>10,} {self.arrays:>7,} {'':>7} {self.stuck:>7.2%}")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file; ages in seconds, errors and shares as fractions."""
        matrices = {name: each._asdict() for name, each in self.matrices.items()}
        return {"seed": self.seed, "age_seconds": self.age, "matrices": matrices, "notes": list(self.notes)}


def matrix_report(arrays: CrossbarLinear) -> MatrixReport:
    """What became of one matrix of weights."""
    wanted, chip = arrays.weight.detach(), arrays.chip
    off = arrays.crossbar().effective_weight() - wanted
    out, inputs = wanted.shape
    rows, columns = arrays.tile or (max(inputs, 1), max(out, 1))
    cells, number = 2 * wanted.numel(), 2 * -(-inputs // rows) * -(-out // columns)
    size, largest = wanted.norm().item(), wanted.abs().max().item() if wanted.numel() else 0.0
    return MatrixReport(
        (out, inputs),
        off.norm().item() / size if size else float("nan"),
        off.abs().max().item() / largest if largest else float("nan"),
        cells,
        number,
        cells / max(number * rows * columns, 1),
        0.0 if chip.stuck is None else (~chip.stuck.isnan()).double().mean().item(),
    )


def notes_on(
    layers: Sequence[nn.Module], cell: Cell, dac: DAC | None, adc: ADC | None, wires: float, compensated: bool
) -> tuple[str, ...]:
    """What is modelled and what is not, in sentences."""
    effects = {
        "finite levels": cell.levels,
        "spread": cell.spread,
        "programming noise": cell.programming,
        "drift, compensated by one factor for each matrix" if compensated else "drift": cell.drift,
        "stuck cells": cell.stuck,
        "IR drop to first order": wires or None,
    }
    there = [name for name, each in effects.items() if each is not None]
    linear = [isinstance(layer, nn.Linear) for layer in layers]
    notes = [f"weights: {', '.join(there) if there else 'ideal, no effect of the cell or the wires'}"]
    if any(linear):
        products = [
            each for each, given in (("read noise", cell.read), ("DAC", dac), ("ADC", adc)) if given is not None
        ]
        notes.append(
            f"products of nn.Linear layers: {', '.join(products) if products else 'ideal'}; biases are digital"
        )
    if not all(linear):
        left = ["read noise"] if cell.read is not None else []
        left += ["converters"] if dac is not None or adc is not None else []
        exact = "delays, time constants, thresholds and biases are digital and exact"
        missing = f"not modelled: {' and '.join(left)} of each event; " if left else ""
        notes.append(f"layers of events (LIF, LI, EGRU): the weights alone are the chip's; {missing}{exact}")
    return tuple(notes)
