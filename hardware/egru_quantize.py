"""From a trained EGRU and its linear readout to integers: populations and projections of a hardware graph.

Each row of a weight matrix (a gate of a unit) has a scale of its own, S = 254 / max|row|, so that

    weight = 2 round(W S / 2)  in -256 ... 254 (even: every simulator of Loihi agrees on these)
    multiplier / 2^shift = 2^12 / (S K),    bias = round(2^12 b),    threshold = round(2^15 threshold)

where K is what stands for 1 in what arrives: 2^bits of what units send, 255 over the largest value of graded input, 1 of plain
events. Readout: neurons that integrate and never fire, all with one scale S and the exponent e of weights at which the voltages
of the calibration batch, and half as much again, fit in 24 bits. With what their voltage keeps in a step, d (the trace's decay;
0 without a trace), a logit is ``v (1 - d) / (64 S 2^e 2^bits) + bias``.

What the units do at inference is all there is: dropout and drop-connect are for training; zoneout is in the table of z. Linear
embeddings of the input, and of the output, are multiplied into the weights behind and before them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import EGRU, Events
from eventnet.hardware.egru import ONE, PRE_ONE, EGRUUnits, tables
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Dense, HardwareNetwork, Inputs, Projection
from eventnet.hardware.quantize import EXPONENTS, FULL, HEADROOM, TOP, Log, chain_of, sqnr
from eventnet.hardware.reading import Reading, accepted
from eventnet.layers.egru_steps import within

__all__ = ["Gated", "binned", "evaluating", "gated_of", "gated_reading", "quantize_gated"]

KINDS = {"last": "last", "mean": "mean", "each": "at"}  # of readings, by those of gated recipes
GRADED, MESSAGE_BITS = 255, 16  # of the largest value of graded input, and what a message of it may hold


@dataclass(frozen=True)
class Gated:
    """The parts of a gated network: the units, the seconds of a step, and the weights around them, ``(out, in)``."""

    units: EGRU
    step: float
    embedding: Tensor | None
    weight_out: Tensor
    bias_out: Tensor
    kind: str  # of its reading
    more: tuple[str, ...] = ()  # fields of the recipe by which the network does more than these parts

    @property
    def weight_in(self) -> Tensor:
        """Of the first layer, of the input's own units."""
        weight = _exact(self.units.get_parameter("weight_ih_l0"))
        return weight if self.embedding is None else weight @ self.embedding

    def check_whole(self) -> None:
        """An error if the network does more than these parts."""
        if self.more:
            raise TypeError(
                f"{' and '.join(self.more)}: not carried over, as integers are made of gated units and the readout behind "
                f"them alone; "
                f"expected a recipe with {', '.join(f'{name}=False' for name in self.more)}"
            )


def gated_of(model: Any) -> Gated | None:
    """The parts of a gated network, or None if it is none: a chain (``chain_of``) of an ``EGRU`` and an ``nn.Linear``, perhaps
    with an ``embedding`` and a recipe.

    Raises:
        ValueError: nothing says how long a step is; units of both directions.
    """
    chain = chain_of(model)
    if chain is None or len(chain) != 2:
        return None
    units, readout = chain
    if not (isinstance(units, EGRU) and isinstance(readout, nn.Linear)):
        return None
    recipe = getattr(model, "recipe", None)
    step = getattr(recipe, "step", units.step)
    if step is None:
        raise ValueError("EGRU: nothing says how many seconds a step lasts: expected EGRU(..., step=1e-3)")
    if units.bidirectional:
        raise ValueError(
            "EGRU: units of both directions need the whole sequence first, and a chip has none: expected one"
        )
    for name, value in [*units.named_parameters(), *(("readout." + name, x) for name, x in readout.named_parameters())]:
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: expected finite numbers, got some that are not")
    weight_out, embedding = _exact(readout.weight), getattr(model, "embedding", None)
    bias_out = weight_out.new_zeros(len(weight_out)) if readout.bias is None else _exact(readout.bias)
    if embedding is not None:
        embedding = _exact(embedding.weight)
        if getattr(recipe, "tied", False):
            weight_out, bias_out = embedding.t() @ weight_out, embedding.t() @ bias_out + _exact(model.bias)
    kind = "last" if recipe is None else KINDS[recipe.readout]
    more = tuple(name for name in ("direct", "standardize") if getattr(recipe, name, False))
    return Gated(units, float(step), embedding, weight_out, bias_out, kind, more)


def gated_reading(gated: Gated, wanted: Reading | str | None = None) -> Reading:
    """How the outputs are read: as wanted, or as the recipe says, or at the end."""
    if wanted is None or isinstance(wanted, str):
        kind = wanted or gated.kind
        wanted = Reading(kind, step=gated.step if kind == "at" else None)
    accepted(wanted, "EGRU")
    return dataclasses.replace(wanted, of_steps=wanted.kind == "mean")


def binned(events: Events, dt: float, values: float | None, late: int) -> Tensor:
    """Events as a gated layer counts them, ``(T + late, B, N)`` int32: step t holds ``t dt <= time < (t + 1) dt``; the ``late``
    steps after them are empty.

    ``values``: a value of 1 becomes this integer; None: events have none.
    """
    dense = events.to_dense(dt) * (1.0 if values is None else values)
    return nn.functional.pad(dense.round().to(torch.int32), (0, 0, 0, 0, 0, late))


@torch.no_grad()
def quantize_gated(
    model: Any, calibration: Events, *, reading: Reading | str | None = None, payload_bits: int = 8
) -> tuple[HardwareNetwork, Log, Reading, dict[str, float]]:
    """The integers of a gated network, an account of the error, how it is read, and how far each layer's events are then from
    the trained one's (squares, relative to its own).

    Args:
        model: see ``gated_of``.
        calibration: a batch of typical input, not of the test set.
        reading: a ``Reading``, or its kind, "last", "mean" or "at" (every step); by default the recipe's, or "last".
        payload_bits: of what units send each other.

    Raises:
        TypeError: the model is no gated network, or its recipe has ``direct`` or ``standardize``, which are not carried over.
        ValueError: a number is not finite or beyond what a unit holds; a readout that integer units have not.

    Example:
        >>> events = Events.from_list([([0.001, 0.004], [2, 0])], num_units=4, duration=0.008)
        >>> network, log, reading, _ = quantize_gated([EGRU(4, 8, step=1e-3), torch.nn.Linear(8, 3)], events)
        >>> [each.name for each in network.populations], reading.kind, reading.lag
        (['input', 'hidden_0', 'output'], 'last', 1)
    """
    gated = gated_of(model)
    if gated is None:
        raise TypeError(f"{type(model).__name__}: expected an EGRU and an nn.Linear behind it")
    gated.check_whole()
    dt = gated.step
    reading = gated_reading(gated, reading)
    log, units = Log(), gated.units
    values = _values(calibration, dt, log)
    notes = {"binned": True} if values is None else {"binned": True, "values": values}
    populations: list[Any] = [Inputs("input", gated.weight_in.shape[1])]
    projections: list[Projection] = []
    known, bits = (1.0 if values is None else values), MESSAGE_BITS  # what stands for 1
    for k in range(units.num_layers):
        layer, synapses = _layer(gated, k, populations[-1].name, known, bits, payload_bits, log)
        populations.append(layer)
        projections += synapses
        known, bits = 2.0**payload_bits, payload_bits
    hidden = HardwareNetwork(populations, projections, dt, notes)
    raster = binned(calibration, dt, values, units.num_layers)
    record, state = simulate(hidden, raster, record=(), return_state=True)
    distances = _compare(gated, calibration, record.spikes, known, log)
    for name, times in state.overflows.items():
        log.errors[name]["beyond_table"] = times / max(1, 3 * record.spikes[name].numel())
    output, onto_output, volts = _output(gated, populations[-1], record.spikes[populations[-1].name], known, log)
    network = HardwareNetwork([*populations, output], [*projections, onto_output], dt, notes)
    offset = tuple(gated.bias_out.tolist())
    reading = dataclasses.replace(reading, volts=(volts,) * len(offset), offset=offset, lag=units.num_layers)
    return network, log, reading, distances


# ---- parts of a network ------------------------------------------------------------------------------------------------------


def _values(events: Events, dt: float, log: Log) -> float | None:
    """What an input event's value of 1 becomes; None where events have none."""
    dense = events.to_dense(dt)
    largest = float(dense.abs().max()) if dense.numel() else 0.0
    if events.values is None:
        if largest > 1:
            log.lost.append(
                f"up to {largest:.0f} input events of one unit in a step of {dt:g} s: sent as one graded spike"
            )
        return None
    whole = bool((dense == dense.round()).all()) and largest <= GRADED
    values = 1.0 if whole or not largest else GRADED / largest
    error = float((dense * values - (dense * values).round()).abs().max())
    if error > 1e-3:
        log.lost.append(f"values of input events rounded to integers, {values:.4g} for 1: by up to {error:.2g} of one")
    return values


def _layer(
    gated: Gated, k: int, source: str, known: float, bits: int, payload_bits: int, log: Log
) -> tuple[EGRUUnits, list[Projection]]:
    """A layer's population and its two projections."""
    units, name = gated.units, f"hidden_{k}"
    numbers: dict[str, Any] = {}
    projections: list[Projection] = []
    log.errors[name] = {}
    below = gated.weight_in if k == 0 else _exact(getattr(units, f"weight_ih_l{k}"))
    own = _exact(getattr(units, f"weight_hh_l{k}"))
    ends = (
        ("input", "ih", source, below, known, bits),
        ("recurrent", "hh", name, own, 2.0**payload_bits, payload_bits),
    )
    for port, short, end, weight, one, message_bits in ends:
        whole, multiplier, shift = _rows(f"{name}.{port}", weight, one)
        numbers[f"{port}_multiplier"], numbers[f"{port}_shift"] = multiplier, shift
        bias = _exact(getattr(units, f"bias_{short}_l{k}")) if units.bias else torch.zeros(len(weight))
        numbers[f"{port}_bias"] = (PRE_ONE * bias).round().to(torch.int32)
        found = whole * (multiplier * one / PRE_ONE / 2.0**shift)[:, None]
        log.errors[name][f"{port}_weight_sqnr_db"] = sqnr(weight, found)
        synapses = Dense(end, name, whole.t().to(torch.int32), port=port, message_bits=message_bits, sign_mode="mixed")
        projections.append(synapses)
    threshold = _exact(getattr(units, f"threshold_l{k}"))
    if float(threshold.min()) < 0 or float(threshold.max()) > 1:
        raise ValueError(
            f"{name}: thresholds of {float(threshold.min()):.4g} to {float(threshold.max()):.4g}; expected 0 to 1, where "
            "eventnet.constrain_ keeps them"
        )
    layer = EGRUUnits(
        name,
        units.hidden_size,
        threshold=(ONE * threshold).round().to(torch.int32),
        payload_bits=payload_bits,
        first_step=k + 2,  # a step after the input's first, and one more for each layer below
        table=tables(units.zoneout),
        **numbers,
    )
    return layer, projections


def _rows(name: str, weight: Tensor, one: float) -> tuple[Tensor, Tensor, Tensor]:
    """Integers of a matrix ``(3H, in)``, and of each row the multiplier and shift back to pre-activations."""
    largest = weight.abs().amax(1)
    scale = torch.where(largest > 0, FULL / largest, 1.0)
    whole = (2 * (weight * scale[:, None] / 2).round()).clamp(-256, FULL)
    back = PRE_ONE / (scale * one)
    shift = (15 - torch.frexp(back).exponent).clamp(1, 40)  # the multiplier then has 15 bits
    multiplier = (back * 2.0**shift).round()
    if float(multiplier.max()) > 2**15:
        raise ValueError(f"{name}: a weight of {float(largest.max()):.4g} is too large beside an input of 1")
    return whole, torch.where(largest > 0, multiplier, 0).clamp(max=2**15 - 1).to(torch.int32), shift.to(torch.int32)


def _output(
    gated: Gated, layer: EGRUUnits, sent: Tensor, known: float, log: Log
) -> tuple[LIFNeurons, Projection, float]:
    """The output population, what it hears of the last layer, and the volts of its voltage."""
    decay = gated.units.trace_decay or 0.0
    dv = round(4096 * (1 - decay))
    if dv < 1:
        raise ValueError(f"trace_decay is {decay}: the chip's nearest is 1; expected at most {1 - 1 / 4096:.6g}")
    weight, keep = gated.weight_out, 1 - dv / 4096
    scale = FULL / (float(weight.abs().max()) or 1.0)
    voltage, reach = torch.zeros(sent.shape[1], len(weight), dtype=torch.float64), 0.0
    for sums in sent.double() @ (weight.t() * scale):
        voltage = keep * voltage + sums
        reach = max(reach, HEADROOM * float(voltage.abs().max()))
    exponent = next((e for e in EXPONENTS if reach * 2.0**e <= TOP), EXPONENTS[-1])
    scale *= min(1.0, TOP / max(reach * 2.0**exponent, 1.0))
    whole = (2 * (weight * scale / 2).round()).clamp(-256, FULL)
    log.errors["output"] = {
        "scale": scale,
        "weight_exp": float(exponent),
        "weight_sqnr_db": sqnr(weight, whole / scale),
        "trace_decay_error": abs(keep - decay),
    }
    neurons = LIFNeurons("output", len(weight), du=4095, dv=dv, vth=TOP)
    synapses = Dense(
        layer.name,
        "output",
        whole.t().to(torch.int32),
        weight_exp=exponent,
        message_bits=layer.payload_bits,
        sign_mode="mixed",
    )
    return neurons, synapses, (1 - keep) / (64 * scale * 2.0**exponent * known)


def _compare(gated: Gated, events: Events, sent: dict[str, Tensor], known: float, log: Log) -> dict[str, float]:
    """How the integers' events differ from the trained layers', on the calibration batch."""
    units = gated.units
    dense = events.to_dense(gated.step).to(next(units.parameters()))
    x = dense if gated.embedding is None else dense @ gated.embedding.to(dense).t()
    with evaluating(units):
        steps = units(x.transpose(0, 1) if units.batch_first else x, return_steps=True)[2]
    distances = {}
    there = within(events.num_steps(gated.step), len(dense))[:, :, None]
    for k, done in enumerate(steps):
        exact, found = done.y.double(), sent[f"hidden_{k}"][k + 1 :][: len(dense)].double() / known
        errors = log.errors[f"hidden_{k}"]
        errors["sent_sqnr_db"] = sqnr(exact * there, found * there)
        apart = ((exact != 0) != (found != 0)) & there
        errors["events_that_differ"] = float(apart.sum()) / max(1, int(((exact != 0) & there).sum()))
        square = float((exact * there).square().sum())
        distances[f"hidden_{k}"] = float(((exact - found) * there).square().sum()) / max(square, 1e-12)
    return distances


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for all of a model's modules; afterwards each has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _exact(value: Tensor) -> Tensor:
    return value.detach().double().cpu()
