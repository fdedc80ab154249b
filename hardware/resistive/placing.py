"""A trained model on resistive arrays: a copy of it whose weights are what the cells of one chip hold.

    w = k (G+ - G-),   G = chip(target, age) of ``eventnet.hardware.resistive.devices``, k one number for each matrix

(times alpha of ``eventnet.hardware.resistive.compensation``, if drift is to be compensated).

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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from eventnet import LI, LIF, Events
from eventnet.hardware.checks import check_events
from eventnet.hardware.egru_quantize import KINDS, gated_of
from eventnet.hardware.quantize import chain_of
from eventnet.hardware.reading import Reading
from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import check_arrays
from eventnet.hardware.resistive.crossbar_linear import CrossbarLinear
from eventnet.hardware.resistive.devices import HFOX, Cell
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.effects import check_age
from eventnet.hardware.resistive.matrices import Matrix, matrices_of
from eventnet.hardware.resistive.placement_report import PlacementReport, matrix_report, notes_on
from eventnet.hardware.trained import reading_of, scores_of

__all__ = ["ResistiveDeployment", "place"]

PLACING = 4  # the stream of a chip's seed that its layers' seeds are from
OPTIONS = {"age", "cell", "tile", "dac", "adc", "wire_resistance", "compensate_drift", "seed", "cycle"}  # of arrays


@dataclass(eq=False, repr=False)
class ResistiveDeployment:
    """A trained model on the arrays of one chip; made by ``place`` or ``eventnet.hardware.compile(model, "resistive")``.

    Args:
        model: the placed copy, in evaluation mode: a module as any other.
        arrays: by the name of the weights, the ``CrossbarLinear`` that holds them. Of an ``nn.Linear`` it is the layer itself. Of
            a layer of events their options stay as they are: only ``age`` below changes its weights.
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
        """Scores ``(B, classes)``, or ``(B, K, classes)`` of K steps: those of the trained model, or as ``reading`` says.

        Raises:
            TypeError: the model is no chain of layers that such scores are defined for; call the deployment instead.

        Example:
            >>> model = nn.Sequential(LIF(4, 3), LI(3, 2))
            >>> events = Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
            >>> place(model).run(events).shape
            torch.Size([1, 2])
        """
        check_events("events", events)
        reading, gated = _reading(self.model, self.reading), gated_of(self.model) is not None
        if getattr(self.model, "recipe", None) is not None and (gated or self.reading is None):
            scores: Tensor = _reading_so(self.model, reading)(events).scores
            return scores
        if not gated:
            return scores_of(self.model, reading, events)
        chain = chain_of(self.model)
        assert chain is not None  # as it is gated
        units, readout = chain
        like = next(units.parameters())
        told = skip_init(nn.Linear, units.hidden_size, units.hidden_size, False, device=like.device, dtype=like.dtype)
        nn.init.eye_(told.weight)  # what the units say, read as scores are, for the arrays of the readout
        scores = readout(scores_of([units, told], reading, events))
        return scores

    def predict(self, events: Events) -> Tensor:
        """The class of each sample, or of each of its steps."""
        return _reading(self.model, self.reading).predict(self.run(events))

    def report(self) -> PlacementReport:
        """How far the weights are off, how many cells and arrays they take, and how many of these are stuck.

        Example:
            >>> from eventnet.hardware.resistive import Cell
            >>> found = place(nn.Linear(200, 10), cell=Cell()).report()
            >>> found.cells, found.arrays, found.stuck
            (4000, 4, 0.0)
        """
        return PlacementReport(
            {name: matrix_report(each) for name, each in self.arrays.items()}, self.seed, self.age, self.notes
        )

    def _set_age(self, seconds: float) -> None:
        for each in self.arrays.values():
            each._age = float(seconds)  # what nobody else may set of ``_HeldArrays``
        # all of them: what is wrong with a weight, an age or a tile is found here, not at the first product
        weights = {name: each.crossbar().effective_weight() for name, each in self.arrays.items()}
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
    compensate_drift: bool = False,
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
        compensate_drift: whether each matrix is multiplied with the ``drift_compensation`` of its cells at that age.
        reading: what the scores of ``run`` are read from; None: what the model says, see ``eventnet.hardware.compile``.

    Raises:
        TypeError: a layer with weights of another kind, which is named; a cell or a converter that is none.
        ValueError: weights that two layers share, that are pruned or parametrized, or not finite; no layer with weights; a
            ``reading`` that the model has not; an age beyond what was measured.

    Example:
        >>> model = nn.Sequential(LIF(4, 3), LI(3, 2))
        >>> chips = [place(model, seed=seed) for seed in (0, 0, 1)]
        >>> weights = [chip.model[0].weight for chip in chips]
        >>> weights[0].equal(weights[1]), weights[0].equal(weights[2]), weights[0].equal(model[0].weight)
        (True, False, False)
    """
    check_age(age)
    check_arrays(cell, tile, dac, adc)
    whole = nn.Sequential(*model) if isinstance(model, list | tuple) else model
    matrices_of(whole)  # before it is copied: a copy of what is pruned can fail
    placed = copy.deepcopy(whole)
    if reading is not None:
        _reading_so(placed, _reading(placed, reading))
    found = matrices_of(placed)
    options: dict[str, Any] = {"cell": cell, "tile": tile, "wire_resistance": wire_resistance}
    options["compensate_drift"] = compensate_drift
    arrays: dict[str, CrossbarLinear] = {}
    held: dict[str, tuple[nn.Parameter, bool]] = {}
    for k, matrix in enumerate(found):
        options["seed"] = int(seeded(seed, PLACING, k).initial_seed())
        if isinstance(matrix.layer, nn.Linear):
            arrays[matrix.name] = CrossbarLinear.from_linear(matrix.layer, dac=dac, adc=adc, **options)
            placed = _replaced(placed, matrix.layer, arrays[matrix.name])
        else:
            by_input = isinstance(matrix.layer, LIF | LI)
            arrays[matrix.name] = _holding(matrix, by_input, options)
            held[matrix.name] = matrix.parameter, by_input
    placed.eval().requires_grad_(False)
    for each in arrays.values():
        each.eval().requires_grad_(False)
    notes = notes_on([each.layer for each in found], cell, dac, adc, wire_resistance, compensate_drift)
    notes += _assumed(placed, reading)
    made = ResistiveDeployment(placed, arrays, held, notes, seed, reading)
    made.age = age
    return made


# ---- what scores are read from --------------------------------------------------------------------------------------


def _reading(model: nn.Module, wanted: Reading | str | None) -> Reading:
    """As wanted, or as the model says."""
    chain = chain_of(model)
    if chain is None or (gated_of(model) is None and not all(isinstance(each, LIF | LI) for each in chain)):
        raise TypeError(
            f"{type(model).__name__}: expected, for scores that are read from events, a chain of LIF and LI layers or of an EGRU "
            "and an nn.Linear; call the deployment as you call the model: deployment(x)"
        )
    return reading_of(model, wanted)[0]


def _assumed(model: nn.Module, wanted: Reading | str | None) -> tuple[str, ...]:
    """What ``run`` takes for granted about the scores; nothing of a model that has none, which ``run`` refuses."""
    try:
        return tuple(reading_of(model, wanted)[1])
    except (TypeError, ValueError):
        return ()


def _reading_so(model: Any, reading: Reading) -> Any:
    """A gated network of a recipe with this reading in place of the recipe's, its layers the same ones; others as they are."""
    if getattr(model, "recipe", None) is None or gated_of(model) is None:
        return model
    readouts = {kind: readout for readout, kind in KINDS.items()}
    other = copy.copy(model)
    other.recipe = model.recipe.changed(readout=readouts[reading.kind])
    return other


# ---- its arrays -----------------------------------------------------------------------------------------------------


class _HeldArrays(CrossbarLinear):
    """Arrays whose weights a layer of events has a copy of: an option that changed here would not change the layer."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OPTIONS and hasattr(self, name) and getattr(self, name) != value:
            raise AttributeError(
                f"{name}: a layer of events has the weights that were placed, and this would not change them; place the model "
                "again with other options, or set the age of the deployment"
            )
        super().__setattr__(name, value)


def _holding(matrix: Matrix, by_input: bool, options: dict[str, Any]) -> CrossbarLinear:
    """Arrays without converters with the weights of a layer of events; its mask becomes weights of 0."""
    weight = matrix.parameter.detach()
    if by_input:
        masked = "recurrent_mask" if matrix.name.endswith("recurrent_weight") else "mask"
        mask = getattr(matrix.layer, masked, None)
        if mask is not None:
            weight = torch.where(mask, weight, 0.0)
            setattr(matrix.layer, masked, None)
        weight = weight.t()
    out, inputs = weight.shape
    made = skip_init(_HeldArrays, inputs, out, bias=False, device=weight.device, dtype=weight.dtype, **options)
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
