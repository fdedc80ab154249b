"""What reading resistive arrays costs: cells, drivers, converters, digital sums, buffers and neurons, each on its own.

For each sample and each matrix of weights, with R reads (the steps of a clocked chip), T tiles of rows and C of columns,
``arrays = 2 T C`` and x inputs that are not zero,

    cells       R x cells in use, to R x all cells of the arrays,   times joules for a cell and a read
                or  V^2 t G x (2 out),   x plain inputs of V volts (graded ones: at most), G the mean conductance of a cell
    drivers     2 C x rows driven,   times joules for a row
    converters  R T out,             times joules for a conversion of so many bits
    digital     R (T - 1) out,       times joules for an addition of what two tiles gave
    buffers     R x arrays,          times joules to bring a read's inputs to an array and its outputs away
    neurons     neurons x steps,     times joules for an update

Every number is between two bounds and has a source; ``array_costs.CLOCKED`` says them. Most are of other chips than the one that
is simulated: an estimate, good for what dominates and for orders of magnitude. Programming, idle power and control are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eventnet import LI, LIF, Events
from eventnet.counts import Counts
from eventnet.hardware.energy import Interval
from eventnet.hardware.energy_profiles import Coefficient
from eventnet.hardware.resistive.array_costs import ARRAY_CAUSES, BLOCK, CLOCKED, ArrayCosts
from eventnet.hardware.resistive.placing import ResistiveDeployment
from eventnet.hardware.resistive.reservoir import Reservoir

__all__ = ["ArrayEnergy", "Reads", "array_energy", "reads_of", "reads_of_reservoir"]

CAVEAT = "estimate, not measurement"
_RECURRENT = ("recurrent_weight", "weight_hh_l0", "weight_hh")  # what reads the layer's own spikes


@dataclass(frozen=True)
class Reads:
    """What is asked of the arrays of one matrix of weights, for each sample.

    Args:
        out_features, in_features: of the weights.
        reads: of the arrays, each with all inputs of a step.
        inputs: that are not zero, of all reads; None: not known, from none to all.
        tile: rows and columns of an array; None: one array as large as it takes.
        input_bits: of an input; 1: plain events.
        adc_bits: of the converters.
        conductance: siemens, mean of the cells in use; needed where costs are ``V^2 G t``.
        updates: neurons times steps, of the layer behind.
    """

    out_features: int
    in_features: int
    reads: float
    inputs: float | None = None
    tile: tuple[int, int] | None = (128, 128)
    input_bits: int = 1
    adc_bits: int = 8
    conductance: float | None = None
    updates: float = 0.0

    def __post_init__(self) -> None:
        if min(self.out_features, self.in_features) < 1 or (self.tile is not None and min(self.tile) < 1):
            raise ValueError(
                f"expected at least one output, one input and one cell a tile, got {self.out_features} outputs, "
                f"{self.in_features} inputs, tile={self.tile}"
            )
        if self.input_bits < 1:
            raise ValueError(f"input_bits: expected at least 1, got {self.input_bits}")
        if not (math.isfinite(self.reads) and self.reads >= 0):
            raise ValueError(f"reads: expected a number >= 0, got {self.reads}")
        if self.inputs is not None and not self.inputs >= 0:
            raise ValueError(f"inputs: expected a number >= 0, got {self.inputs}")
        if not (math.isfinite(self.updates) and self.updates >= 0):
            raise ValueError(f"updates: expected a number >= 0, got {self.updates}")
        if self.conductance is not None and not (math.isfinite(self.conductance) and self.conductance >= 0):
            raise ValueError(f"conductance: expected siemens >= 0, or None, got {self.conductance}")

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles of rows, and of columns."""
        rows, columns = self.size
        return -(-self.in_features // rows), -(-self.out_features // columns)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of an array."""
        return self.tile or (self.in_features, self.out_features)

    @property
    def arrays(self) -> int:
        """Tiles of G+ and of G-."""
        rows, columns = self.tiles
        return 2 * rows * columns


@dataclass(frozen=True)
class ArrayEnergy:
    """Joules for each sample, by matrix of weights and cause (``ARRAY_CAUSES``); ``print`` it for the parts and the ADC share.

    Example:
        >>> found = array_energy({"hidden": Reads(200, 256, reads=50, inputs=1000.0)})
        >>> found.causes["drivers"].text("J"), found.causes["digital"].text("J")
        ('1.7 nJ', '300 pJ - 1 nJ')
        >>> found.adc_share.low < found.adc_share.high
        True
    """

    layers: Mapping[str, Mapping[str, Interval]]
    costs: ArrayCosts
    assumptions: tuple[str, ...] = field(default=())

    @property
    def causes(self) -> dict[str, Interval]:
        """Joules by cause, of all matrices."""
        return {cause: _sum(each[cause] for each in self.layers.values()) for cause in ARRAY_CAUSES}

    @property
    def total(self) -> Interval:
        """Joules of all causes."""
        return _sum(self.causes.values())

    @property
    def adc_share(self) -> Interval:
        """The part of the total that converters take, from 0 to 1."""
        return self.share("converters")

    def share(self, cause: str) -> Interval:
        """The part of the total that a cause takes, from 0 to 1: its bounds against the opposite ones of the others."""
        mine = self.causes[cause]
        others = _sum(each for name, each in self.causes.items() if name != cause)
        low, high = mine.low + others.high, mine.high + others.low
        return Interval(mine.low / low if low else 0.0, mine.high / high if high else 0.0)

    def __str__(self) -> str:
        lines = [f"{self.total.text('J')} per sample ({CAVEAT}); ADC share {_percent(self.adc_share)}"]
        for cause, each in self.causes.items():
            lines.append(f"{cause:<12} {each.text('J'):>20} {_percent(self.share(cause)):>12}")
        doubtful = self.costs.unverified
        if doubtful:
            lines.append(f"no first-hand source was read for: {', '.join(doubtful)}")
        return "\n".join([*lines, *(f"- {each}" for each in self.assumptions)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file, units in the keys; bounds are ``[low, high]``."""
        return {
            "note": CAVEAT,
            "total_joules_per_sample": self.total.to_list(),
            "adc_share": self.adc_share.to_list(),
            "causes_joules_per_sample": {cause: each.to_list() for cause, each in self.causes.items()},
            "layers_joules_per_sample": {
                name: {cause: each.to_list() for cause, each in causes.items()} for name, causes in self.layers.items()
            },
            "voltage_volts": self.costs.voltage,
            "read_time_seconds": self.costs.read_time,
            "coefficients_joules": {
                name: {"range": [each.low, each.high], "source": each.source, "status": each.status}
                for name, each in self.costs.numbers.items()
            },
            "assumptions": list(self.assumptions),
        }


def array_energy(reads: Mapping[str, Reads], costs: ArrayCosts | None = None) -> ArrayEnergy:
    """What the reads of the arrays of a network cost, for each sample.

    Args:
        reads: by matrix of weights: of a reservoir by ``reads_of_reservoir``, of a placed model by ``reads_of``.
        costs: None: ``CLOCKED``.

    Raises:
        ValueError: no matrix, converters of bits without a figure, or costs of ``V^2 G t`` and no conductance.

    Example:
        >>> one = array_energy({"w": Reads(64, 64, reads=1.0, inputs=64.0, tile=(64, 64), adc_bits=4)})
        >>> one.causes["cells"].text("J"), one.causes["buffers"].text("J")
        ('28 pJ', '1.1 nJ')
    """
    if not reads:
        raise ValueError("reads: expected at least one matrix of weights, got none")
    costs = CLOCKED if costs is None else costs
    layers = {}
    for name, each in reads.items():
        try:
            layers[name] = _of_matrix(each, costs)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    said = [
        "All arrays are read in every step, with or without an event; no two products of a step are merged.",
        "G+ and G- of a weight share one conversion, of the difference of their currents.",
    ]
    if costs.voltage is None:
        said.append("Cells cost the same whatever their conductance (SpikeSim's figure for a read).")
    return ArrayEnergy(layers, costs, tuple(said))


def reads_of(
    placed: ResistiveDeployment, counts: Mapping[str, Counts], *, adc_bits: int = 8, dac_bits: int = 8
) -> dict[str, Reads]:
    """The reads of a placed model's arrays, by the name of their weights.

    Args:
        counts: of the placed model, as of ``eventnet.counting.count``: steps are reads.
        adc_bits, dac_bits: of converters that the deployment has as ideal ones, or not at all: a real chip has some.

    Raises:
        ValueError: a layer that was not counted.

    Example:
        >>> from eventnet import Events, LI, LIF
        >>> from eventnet.counting import count
        >>> from eventnet.hardware.resistive.placing import place
        >>> placed = place(torch.nn.Sequential(LIF(4, 3), LI(3, 2)))
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> found = reads_of(placed, count(placed.model, [events], dt=1e-3))
        >>> found["0.weight"].reads, found["0.weight"].inputs, found["0.weight"].arrays
        (100.0, 2.0, 2)
    """
    found: dict[str, Reads] = {}
    updated: set[str] = set()  # layers whose neurons have been charged
    for name, arrays in placed.arrays.items():
        layer, _, weight = name.rpartition(".")
        if layer not in counts:
            raise ValueError(f"counts: layer {layer!r} of {name} was not counted; there are {', '.join(counts)}")
        mine = counts[layer].per_sample()
        events = isinstance(placed.model.get_submodule(layer), LIF | LI)
        plain = events and (weight == "recurrent_weight" or not counts[layer].multiply_accumulates)
        known = (
            sum(each.rpartition(".")[0] == layer for each in placed.arrays) <= 2
        )  # else counts are of all its layers
        dac, adc = arrays.dac, arrays.adc
        found[name] = Reads(
            arrays.out_features,
            arrays.in_features,
            mine["steps"],
            mine["spikes" if weight in _RECURRENT else "inputs"] if known else None,
            arrays.tile,
            1 if plain else (dac_bits if dac is None or dac.bits is None else dac.bits),
            adc_bits if adc is None or adc.bits is None else adc.bits,
            arrays.chip.at(arrays.age).double().mean().item(),
            0.0 if layer in updated else mine["state_updates"],
        )
        updated.add(layer)
    return found


def reads_of_reservoir(
    reservoir: Reservoir,
    events: Events,
    *,
    tile: tuple[int, int] | None = (128, 128),
    adc_bits: int = 8,
    dac_bits: int = 8,
) -> dict[str, Reads]:
    """The reads of a reservoir's arrays, for each of these samples on average: every step of ``dt`` reads all of them.

    Its readout is not on arrays: a multiplication for each feature and class, which is left out.

    Args:
        events: of the inputs; events of a unit in one step are one input.
        tile, adc_bits: of the arrays; ``dac_bits`` where events are graded.

    Raises:
        TypeError: what is no ``Events``. ValueError: no sample.

    Example:
        >>> reservoir = Reservoir.formed(64, 200, seed=0, radius=1.0)
        >>> events = Events.from_latency(torch.rand(8, 64, generator=torch.manual_seed(0)), 0.0, 0.05)
        >>> print(str(array_energy(reads_of_reservoir(reservoir, events))).splitlines()[0])
        410 nJ - 2.5 uJ per sample (estimate, not measurement); ADC share 3.4-74 %
    """
    if not isinstance(events, Events):
        raise TypeError(f"events: expected eventnet.Events, got {type(events).__name__}")
    if not events.batch_size:
        raise ValueError("events: expected at least one sample, got none")
    (inputs, units), dt = reservoir.weight.shape, reservoir.dt
    steps = events.num_steps(dt).double().mean().item()
    driven = [each.to_dense(dt).count_nonzero().item() / each.batch_size for each in (events, reservoir(events))]
    bits = 1 if events.values is None else dac_bits
    found = {"weight": Reads(units, inputs, steps, driven[0], tile, bits, adc_bits, updates=steps * units)}
    if reservoir.recurrent_weight is not None:
        found["recurrent_weight"] = Reads(units, units, steps, driven[1], tile, 1, adc_bits)
    return found


def _of_matrix(reads: Reads, costs: ArrayCosts) -> dict[str, Interval]:
    """Joules by cause for one matrix of weights and one sample."""
    (rows, columns), most = reads.tiles, reads.reads * reads.in_features
    plain = reads.input_bits == 1
    inputs = Interval(0.0, most) if reads.inputs is None else Interval(reads.inputs, reads.inputs)
    if costs.voltage is not None and costs.read_time is not None:
        if reads.conductance is None:
            raise ValueError("conductance: expected siemens, as the costs are V^2 G t, got None")
        joules = costs.voltage**2 * costs.read_time * reads.conductance
        at_most = 2 * reads.out_features * joules
        cells = Interval(inputs.low if plain else 0.0, inputs.high) * at_most
    else:
        used, there = 2 * reads.out_features * reads.in_features, reads.arrays * math.prod(reads.size)
        cells = Interval(reads.reads * used, reads.reads * there) * _interval(costs.cells)
    # Bit by bit, or as much as the last one for each of its levels; a graded driver may be on for zeros too.
    bits = Interval(float(reads.input_bits), 2.0 ** (reads.input_bits - 1))
    driven = inputs if plain else Interval(inputs.low, max(most, inputs.high))
    blocks = math.prod(-(-each // BLOCK) for each in reads.size)
    return {
        "cells": cells,
        "drivers": driven * bits * (2 * columns) * _interval(costs.drivers),
        "converters": _interval(costs.conversion(reads.adc_bits)) * (reads.reads * rows * reads.out_features),
        "digital": _interval(costs.digital) * (reads.reads * (rows - 1) * reads.out_features),
        "buffers": Interval(1.0, blocks) * (reads.reads * reads.arrays) * _interval(costs.buffers),
        "neurons": _interval(costs.neurons) * reads.updates,
    }


def _interval(coefficient: Coefficient) -> Interval:
    return Interval(coefficient.low, coefficient.high)


def _sum(intervals: Iterable[Interval]) -> Interval:
    return sum(intervals, Interval(0.0, 0.0))


def _percent(share: Interval) -> str:
    low, high = (f"{100 * each:.2g}" for each in (share.low, share.high))
    return f"{low} %" if low == high else f"{low}-{high} %"
