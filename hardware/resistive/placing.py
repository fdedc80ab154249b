"""A trained model on resistive arrays: a copy of it whose weights are what the cells of one chip hold.

    w = k (G+ - G-),   G = chip(target, age) of ``eventnet.hardware.resistive.devices``, k one number for each matrix

What an event adds to a layer's currents is a row of its weights, and the arrays are linear in what is applied to them: for
layers of events (LIF, LI, EGRU) the conductances that were programmed, wires included, take the place of the weights, and all
else (delays, time constants, thresholds, biases) is the layer's own, digital and exact. An ``nn.Linear`` becomes a
``CrossbarLinear``: its products go through converters, with new read noise for each.

=====================  ====================  ===========
effect                 LIF, LI, EGRU         nn.Linear
=====================  ====================  ===========
levels, spread         yes                   yes
programming noise      yes                   yes
drift, stuck cells     yes                   yes
IR drop (first order)  yes                   yes
read noise             no                    each product
DAC, ADC               no                    each product
=====================  ====================  ===========

Read noise that is new for each event would need a weight of its own for every event; it is left out, and ``notes`` say so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, EGRUCell, Events
from eventnet.hardware.checks import check_events
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.quantize import chain_of
from eventnet.hardware.reading import Reading
from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import HFOX, Cell
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.effects import check_age
from eventnet.hardware.trained import reading_of, scores_of

__all__ = ["ArrayReport", "PlacementReport", "ResistiveDeployment", "place"]

PLACING = 4  # the stream of a chip's seed that its layers' seeds are from


class ArrayReport(NamedTuple):
    """The arrays of one matrix of weights.

    Args:
        shape: ``(out, in)``.
        error: root mean square of what the weights are off, relative to that of the weights; NaN where all weights are 0.
        largest: the largest of these differences, relative to the largest weight.
        cells: that are used, two for each weight.
        arrays: tiles, of G+ and of G-.
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
    """What a chip holds, by the names of the weights; ``print`` it for a table."""

    arrays: Mapping[str, ArrayReport]
    seed: int
    age: float
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """Cells used by all weights."""
        return sum(each.cells for each in self.arrays.values())

    @property
    def tiles(self) -> int:
        """Arrays of all weights."""
        return sum(each.arrays for each in self.arrays.values())

    @property
    def stuck(self) -> float:
        """Share of the used cells that is stuck."""
        return sum(each.stuck * each.cells for each in self.arrays.values()) / max(self.cells, 1)

    def __str__(self) -> str:
        lines = [f"chip {self.seed}, {self.age:g} s after programming"]
        lines.append(
            f"{'weights':<24} {'(out, in)':>12} {'error':>8} {'cells':>10} {'arrays':>7} {'filled':>7} {'stuck':>7}"
        )
        for name, each in self.arrays.items():
            shape, used = (
                f"{each.shape[0]}, {each.shape[1]}",
                f"{each.cells:>10,} {each.arrays:>7,} {each.filled:>7.1%}",
            )
            lines.append(f"{name:<24} {shape:>12} {each.error:>8.2%} {used} {each.stuck:>7.2%}")
        lines.append(f"{'all':<24} {'':>12} {'':>8} {self.cells:>10,} {self.tiles:>7,} {'':>7} {self.stuck:>7.2%}")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file; ages in seconds, errors and shares as fractions."""
        arrays = {name: each._asdict() for name, each in self.arrays.items()}
        return {"seed": self.seed, "age_seconds": self.age, "arrays": arrays, "notes": list(self.notes)}


@dataclass(eq=False, repr=False)
class ResistiveDeployment:
    """A trained model on the arrays of one chip; made by ``place`` or ``eventnet.hardware.compile(model, "resistive")``.

    Args:
        model: the placed copy, in evaluation mode: a module as any other.
        arrays: by the name of the weights, the ``CrossbarLinear`` that holds them. Of an ``nn.Linear`` it is the layer itself.
        held: by the name of the weights, of layers of events, the parameter that has them, and whether it is ``(in, out)``.
        notes: what is modelled and what is not.
        seed: the chip.
        reading: what the scores are read from, where ``run`` is to differ from what the model says.
    """

    model: nn.Module
    arrays: Mapping[str, CrossbarLinear]
    held: Mapping[str, tuple[nn.Parameter, bool]]
    notes: tuple[str, ...]
    seed: int = 0
    reading: Reading | str | None = None

    def __repr__(self) -> str:
        return f"ResistiveDeployment({len(self.arrays)} matrices, seed={self.seed}, age={self.age:g} s)"

    @torch.no_grad()
    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the placed model returns."""
        return self.model(*args, **options)

    @property
    def age(self) -> float:
        """Seconds since programming; setting it lets the same chip age, or go back."""
        return next((each.age for each in self.arrays.values()), 0.0)

    @age.setter
    def age(self, seconds: float) -> None:
        check_age(seconds)
        before = self.age
        try:
            self._set_age(seconds)
        except ValueError:  # beyond what was measured
            self._set_age(before)
            raise

    @torch.no_grad()
    def run(self, events: Events) -> Tensor:
        """Scores ``(B, classes)``, read as those of the trained model are.

        Raises:
            TypeError: the model is no chain of layers that such scores are defined for; call the deployment instead.

        Example:
            >>> model = nn.Sequential(LIF(4, 3), LI(3, 2))
            >>> events = Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
            >>> place(model).run(events).shape
            torch.Size([1, 2])
        """
        check_events("events", events)
        reading, _ = reading_of(self.model, self.reading)
        gated, recipe = gated_of(self.model), getattr(self.model, "recipe", None)
        if gated is None or (recipe is not None and reading.kind == gated.kind):
            return scores_of(self.model, reading, events)
        if gated.embedding is not None:
            raise ValueError(f"reading: expected {gated.kind!r}, as the recipe says, of a network with an embedding")
        chain = chain_of(self.model)
        assert chain is not None  # as it is gated
        units, readout = chain
        told = nn.Linear(units.hidden_size, units.hidden_size, bias=False).to(next(units.parameters()))
        nn.init.eye_(told.weight)  # what the units say, read as scores are
        scores: Tensor = readout(scores_of([units, told], reading, events))
        return scores

    def predict(self, events: Events) -> Tensor:
        """The class of each sample, or of each of its steps."""
        return reading_of(self.model, self.reading)[0].predict(self.run(events))

    def report(self) -> PlacementReport:
        """How far the weights are off, how many cells and arrays they take, and how many of these are stuck.

        Example:
            >>> from eventnet.hardware.resistive import Cell
            >>> found = place(nn.Linear(200, 10), cell=Cell()).report()
            >>> found.cells, found.tiles, found.stuck
            (4000, 4, 0.0)
        """
        return PlacementReport(
            {name: _reported(each) for name, each in self.arrays.items()}, self.seed, self.age, self.notes
        )

    def _set_age(self, seconds: float) -> None:
        for each in self.arrays.values():
            each.age = seconds
        weights = {name: self.arrays[name].crossbar().effective_weight() for name in self.held}
        for name, (parameter, by_input) in self.held.items():
            with torch.no_grad():
                parameter.copy_(weights[name].t() if by_input else weights[name])


def place(
    model: nn.Module | list[nn.Module],
    *,
    cell: Cell = HFOX,
    tile: tuple[int, int] | None = (128, 128),
    dac: DAC | None = None,
    adc: ADC | None = None,
    wire_resistance: float = 0.0,
    seed: int = 0,
    age: float = 0.0,
    reading: Reading | str | None = None,
) -> ResistiveDeployment:
    """A copy of a trained model whose weights are those of one chip; the model itself stays as it is.

    Each matrix of weights has a scale of its own, ``k = max|w| / (G_max - G_min)``, and cells of its own. A synapse that a mask
    takes away still has its two cells, at G_min: with programming noise it is no longer quite absent.

    Args:
        model: any module of LIF, LI, EGRU, EGRUCell and nn.Linear layers, or a list of them, one after the other.
        cell: memory cell; ``Cell()`` is ideal.
        tile: rows (inputs) and columns (outputs) of an array; None: one array for each matrix.
        dac, adc: converters of the products of nn.Linear layers; None: ideal ones.
        wire_resistance: ohm per cell; 0: ideal wires.
        seed: the chip: same seed, same weights.
        age: seconds since programming; ``deployment.age`` can be set later.
        reading: what the scores of ``run`` are read from; None: what the model says, see ``eventnet.hardware.compile``.

    Raises:
        TypeError: a layer with weights of another kind; it is named.
        ValueError: weights that two layers share, that are pruned or parametrized, or not finite; no layer with weights.

    Example:
        >>> model = nn.Sequential(LIF(4, 3), LI(3, 2))
        >>> chips = [place(model, seed=seed) for seed in (0, 0, 1)]
        >>> weights = [chip.model[0].weight for chip in chips]
        >>> weights[0].equal(weights[1]), weights[0].equal(weights[2]), weights[0].equal(model[0].weight)
        (True, False, False)
    """
    check_age(age)
    whole = nn.Sequential(*model) if isinstance(model, list | tuple) else model
    if getattr(getattr(whole, "recipe", None), "tied", False):
        raise ValueError("model: its output weights are those of its embedding (tied); arrays hold them apart")
    _check_shared(list(_weights(whole)))
    placed = copy.deepcopy(whole)
    found = list(_weights(placed))
    options: dict[str, Any] = {"cell": cell, "tile": tile, "wire_resistance": wire_resistance}
    arrays: dict[str, CrossbarLinear] = {}
    held: dict[str, tuple[nn.Parameter, bool]] = {}
    with torch.random.fork_rng(devices=[]):  # new layers draw weights that nobody sees
        for k, (name, layer, parameter) in enumerate(found):
            options["seed"] = int(seeded(seed, PLACING, k).initial_seed())
            if isinstance(layer, nn.Linear):
                arrays[name] = CrossbarLinear.from_linear(layer, dac=dac, adc=adc, **options)
                placed = _replaced(placed, layer, arrays[name])
            else:
                by_input = isinstance(layer, LIF | LI)
                arrays[name] = _holding(layer, name, parameter, by_input, options)
                held[name] = parameter, by_input
    placed.eval().requires_grad_(False)
    for each in arrays.values():
        each.eval().requires_grad_(False)
    made = ResistiveDeployment(placed, arrays, held, _notes(found, cell, dac, adc, wire_resistance), seed, reading)
    made.age = age
    return made


# ---- the weights of a model -----------------------------------------------------------------------------------------


def _weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """The matrices of weights: their names, layers and parameters.

    Raises:
        TypeError, ValueError: as of ``place``.
    """
    some = False
    for where, layer in model.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, LIF | LI):
            names = [name for name in ("weight", "recurrent_weight") if getattr(layer, name, None) is not None]
        elif isinstance(layer, EGRU | EGRUCell):
            names = [name for name in own if name.startswith("weight")]
        elif type(layer) in (nn.Linear, CrossbarLinear):
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
            some = True
            yield ".".join(filter(None, (where, name))), layer, own[name]
    if not some:
        raise ValueError("model: expected at least one layer with weights, got none")


def _check_shared(found: list[tuple[str, nn.Module, nn.Parameter]]) -> None:
    names: dict[int, str] = {}
    for name, _, parameter in found:
        if id(parameter) in names:
            raise ValueError(f"{name}: shared with {names[id(parameter)]}; arrays hold the weights of one layer each")
        names[id(parameter)] = name


def _holding(
    layer: nn.Module, name: str, parameter: nn.Parameter, by_input: bool, options: dict[str, Any]
) -> CrossbarLinear:
    """Arrays without converters with the weights of a layer of events; its mask becomes weights of 0."""
    weight = parameter.detach()
    if by_input:
        masked = "recurrent_mask" if name.endswith("recurrent_weight") else "mask"
        mask = getattr(layer, masked, None)
        if mask is not None:
            weight = torch.where(mask, weight, 0.0)
            setattr(layer, masked, None)
        weight = weight.t()
    out, inputs = weight.shape
    made = CrossbarLinear(inputs, out, bias=False, device=weight.device, dtype=weight.dtype, **options)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def _replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model with another layer wherever that one was."""
    if model is old:
        return new
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return model


def _reported(arrays: CrossbarLinear) -> ArrayReport:
    wanted, chip = arrays.weight.detach(), arrays.chip
    off = arrays.crossbar().effective_weight() - wanted
    out, inputs = wanted.shape
    rows, columns = arrays.tile or (max(inputs, 1), max(out, 1))
    cells, number = 2 * wanted.numel(), 2 * -(-inputs // rows) * -(-out // columns)
    size, largest = wanted.norm().item(), wanted.abs().max().item() if wanted.numel() else 0.0
    return ArrayReport(
        (out, inputs),
        off.norm().item() / size if size else float("nan"),
        off.abs().max().item() / largest if largest else float("nan"),
        cells,
        number,
        cells / max(number * rows * columns, 1),
        0.0 if chip.stuck is None else (~chip.stuck.isnan()).double().mean().item(),
    )


def _notes(
    found: list[tuple[str, nn.Module, nn.Parameter]], cell: Cell, dac: DAC | None, adc: ADC | None, wires: float
) -> tuple[str, ...]:
    """What is modelled and what is not, in sentences."""
    effects = {
        "finite levels": cell.levels,
        "spread": cell.spread,
        "programming noise": cell.programming,
        "drift": cell.drift,
        "stuck cells": cell.stuck,
        "IR drop to first order": wires or None,
    }
    there = [name for name, each in effects.items() if each is not None]
    linear = [isinstance(layer, nn.Linear) for _, layer, _ in found]
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
