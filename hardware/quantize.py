"""From a trained network to integers: LIF and LI layers as populations and projections of a hardware graph.

With steps of dt seconds, ``alpha = e^(-dt/tau_syn)``, ``beta = e^(-dt/tau_mem)`` and what a current of 1 V adds to the voltage in
a step, ``K = tau_syn / (tau_syn - tau_mem) (alpha - beta)``, a scale S per population (for all of its synapses alike) gives

    weight = 2 round(W S / 2^e / 2)  in -256 ... 254 (even: every simulator of Loihi agrees on these),   weight_exp = e
    du = round(4096 (1 - alpha)) - 1,   dv = round(4096 (1 - beta)),   vth = round((threshold - reset) S / K)
    bias = round(64 (bias - reset) (1 - beta) S / K)  as a mantissa and an exponent

since a chip adds the current to the voltage as it is, where ours gains K times it, and resets to 0. Then its v is
``64 S / K (V - reset)``, at step t that at t dt. Input events are taken to the nearest step. A spike is seen at the end of the
step in which it happens, on average half a step late: delays of spikes are rounded from ``delay / dt - 1/2``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.network import MAX_DELAY, Dense, HardwareNetwork, Inputs, Projection

__all__ = ["Log", "Scale", "chain_of", "layers_of", "quantize", "rasterize", "sqnr"]

FULL = 254  # the largest even weight
TOP = 131_071  # the largest threshold
EXPONENTS = range(0, -8, -1)  # of weights, tried in this order
IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.AlphaDropout)  # once training is over
HEADROOM = 1.5  # of a readout's voltage beyond what a calibration batch showed


@dataclass(frozen=True)
class Scale:
    """How a population's numbers become integers: ``S`` per volt, ``exponent`` of the weights, and a factor on the threshold."""

    s: float
    exponent: int = 0
    threshold: float = 1.0


@dataclass
class Log:
    """What quantising a network lost: ``errors[population][what]``; features that are not carried over (``lost``), and what was
    ``assumed``, in lines of text."""

    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"errors": self.errors, "lost": self.lost, "assumed": self.assumed}


def chain_of(model: Any) -> list[Any] | None:
    """The modules of a chain, from the input to the output, without those that do nothing once training is over; None if the
    model is none: a layer, a list, an ``nn.Sequential`` or ``nn.ModuleList``, or a module with ``hidden`` and ``readout``.

    Example:
        >>> [type(each).__name__ for each in chain_of([LIF(4, 3), nn.Dropout(0.5), LI(3, 2)])]
        ['LIF', 'LI']
    """
    if isinstance(model, LIF | LI | EGRU):
        return [model]
    if isinstance(model, nn.Sequential | nn.ModuleList | list | tuple):
        return [each for each in model if not isinstance(each, IDLE)]
    hidden, readout = getattr(model, "hidden", None), getattr(model, "readout", None)
    if not (isinstance(hidden, nn.Module) and isinstance(readout, nn.Module)):
        return None
    return [*hidden, readout] if isinstance(hidden, nn.ModuleList) else [hidden, readout]


def layers_of(model: nn.Module | list[nn.Module] | tuple[nn.Module, ...]) -> list[LIF | LI]:
    """The layers of a chain, from the input to the output: of a list, an ``nn.Sequential``, or a module with ``hidden`` layers
    and a ``readout``.

    Raises:
        TypeError: something else, or a layer that the chip has no neurons for; it is named.
    """
    parts = chain_of(model)
    if parts is None:
        raise TypeError(
            f"{type(model).__name__}: expected a chain of LIF and LI layers, or [EGRU, nn.Linear]: a list of them, an "
            "nn.Sequential, or a module with hidden (an nn.ModuleList) and readout"
        )
    for k, part in enumerate(parts):
        if not isinstance(part, LIF | LI):
            raise TypeError(
                f"layer {k} is {type(part).__name__}: expected LIF or LI, the layers that an integer neuron exists for, or the "
                "two layers [EGRU, nn.Linear]"
            )
        if isinstance(part, LIF) and part.branches is not None:
            raise TypeError(
                f"layer {k}: no integer neuron and no NIR node has dendritic branches; expected branches=None"
            )
        if isinstance(part, LI) and k + 1 < len(parts):
            raise TypeError(f"layer {k} is LI, which sends nothing to the layers behind it: expected it at the end")
    if not parts:
        raise TypeError("expected at least one layer, got none")
    return parts


def names_of(layers: list[LIF | LI]) -> list[str]:
    """Of the populations: hidden_0, hidden_1, ... and output."""
    return [*(f"hidden_{k}" for k in range(len(layers) - 1)), "output"]


def rasterize(events: Events, dt: float, values: float | None = None) -> Tensor:
    """Events as counts of steps, each taken to the nearest one: ``(T + 1, B, N)`` int32 for T steps of ``dt`` seconds, since what
    happens in the last of them is seen one later.

    ``values``: an event's value becomes ``round(value * values)``; None: events have none, or each counts as 1.
    """
    steps = int(events.num_steps(dt).max()) + 1 if events.batch_size else 1
    counted = events.times < events.duration[events.samples]
    step = (events.times.detach().double() / dt + 0.5).floor().to(torch.int64).clamp(max=steps - 1)
    size = (
        torch.ones_like(step)
        if values is None or events.values is None
        else (events.values * values).round().to(torch.int64)
    )
    where = (step[counted], events.samples[counted], events.units[counted].to(torch.int64))
    raster = torch.zeros(steps, events.batch_size, events.num_units, dtype=torch.int64, device=events.device)
    return raster.index_put(where, size[counted], accumulate=True).to(torch.int32)


def within(steps: Tensor, count: int, first: int = 0) -> Tensor:
    """``(T, B, 1)``: which of so many steps, from ``first`` on, belong to samples that last ``steps (B,)``."""
    return (torch.arange(first, first + count, device=steps.device)[:, None] <= steps)[:, :, None]


def weights_of(layer: LIF | LI) -> dict[str, Tensor]:
    """A layer's weights in float64, zero where a mask has no synapse: ``""`` of the input, ``"recurrent_"`` of its own."""
    found = {}
    for prefix in ("", "recurrent_"):
        weight, mask = getattr(layer, f"{prefix}weight", None), getattr(layer, f"{prefix}mask", None)
        if weight is not None:
            weight = weight.detach().double().cpu()
            found[prefix] = weight if mask is None else weight * mask.cpu()
    return found


def quantize(
    model: nn.Module | list[nn.Module],
    dt: float,
    *,
    scales: Mapping[str, Scale] | None = None,
    message_bits: int = 0,
    notes: Mapping[str, Any] | None = None,
) -> tuple[HardwareNetwork, Log]:
    """The integers of a chain of layers, with an account of the error.

    Args:
        model: LIF layers, at the end LIF or LI; see ``layers_of``.
        dt: seconds of a step.
        scales: of the populations; by default the largest that their weights and thresholds allow. ``calibrate`` searches.
        message_bits: of the input's events: 0 if none has a value and no unit has two in a step.
        notes: kept in the network.

    Raises:
        ValueError: a delay is longer than 62 steps, a number is not finite or beyond what a neuron can hold.

    Example:
        >>> network, log = quantize([LIF(4, 3), LI(3, 2)], dt=1e-3)
        >>> [each.name for each in network.populations], int(network["hidden_0"].du[0])
        (['input', 'hidden_0', 'output'], 741)
    """
    layers, log = layers_of(model), Log()
    populations: list[Any] = [Inputs("input", layers[0].in_features)]
    projections: list[Projection] = []
    for name, layer in zip(names_of(layers), layers, strict=True):
        scale = (scales or {}).get(name) or largest_scale(name, layer, dt)
        neurons, synapses = integers_of(name, populations[-1].name, layer, dt, scale, message_bits, log)
        populations.append(neurons)
        projections += synapses
        message_bits = 0
    return HardwareNetwork(populations, projections, dt, dict(notes or {})), log


def integers_of(
    name: str, source: str, layer: LIF | LI, dt: float, scale: Scale, message_bits: int, log: Log
) -> tuple[LIFNeurons, list[Projection]]:
    """A layer's population and its projections."""
    p = _numbers(name, layer, dt)
    s, size = scale.s, layer.out_features
    du, dv = (4096 * (1 - p["alpha"])).round() - 1, (4096 * (1 - p["beta"])).round()
    per_volt = s / p["gain"]
    if isinstance(layer, LIF):
        vth = ((p["threshold"] - p["reset"]) * scale.threshold * per_volt).round()
    else:
        vth = torch.full((size,), float(TOP), dtype=torch.float64)
    if float(vth.min()) < 1 or float(vth.max()) > TOP:
        raise ValueError(
            f"{name}: thresholds of {float(vth.min()):.4g} to {float(vth.max()):.4g} at scale {s:.4g}; expected 1 to {TOP:,}: "
            "the weights are too large or too small beside the threshold"
        )
    mantissa, exponent = _mantissa(name, 64 * (p["bias"] - p["reset"]) * (1 - p["beta"]) * per_volt)
    bias = mantissa * 2.0**exponent
    u_start, v_start = _start(p, s, per_volt, bias)
    neurons = LIFNeurons(
        name,
        size,
        du=du.to(torch.int32),
        dv=dv.to(torch.int32),
        vth=vth.to(torch.int32),
        bias_mant=mantissa.to(torch.int32),
        bias_exp=exponent.to(torch.int32),
        u=u_start.to(torch.int32),
        v=v_start.to(torch.int32),
        refractory=(p["refractory"] / dt).round().to(torch.int32),
    )
    errors = log.errors.setdefault(name, {"scale": s, "weight_exp": float(scale.exponent)})
    if bool((du < 0).any()) or bool((dv < 1).any()):
        log.lost.append(
            f"{name}: decays too slow for 12 bits in steps of {dt:g} s; some of its neurons do not leak: take longer steps"
        )
    errors["tau_syn_relative_error"] = _worst(-dt / torch.log1p(-(du + 1) / 4096) / p["tau_syn"] - 1)
    errors["tau_mem_relative_error"] = _worst(-dt / torch.log1p(-dv / 4096) / p["tau_mem"] - 1)
    if isinstance(layer, LIF):
        errors["threshold_factor"] = scale.threshold
        wanted = (p["threshold"] - p["reset"]) * scale.threshold * per_volt
        errors["threshold_relative_error"] = _worst(vth / wanted - 1)
    projections: list[Projection] = []
    for prefix, weight in weights_of(layer).items():
        end, delay = name if prefix else source, getattr(layer, f"{prefix}delay", None)
        whole = integer_weight(weight, scale)
        errors[f"{prefix}weight_sqnr_db"] = sqnr(weight, whole * (2.0**scale.exponent / s))
        errors[f"{prefix}weight_clipped"] = float(((weight * s / 2.0**scale.exponent).abs() > FULL + 1).double().mean())
        late = (
            None
            if delay is None
            else _delay(f"{name}.{prefix}delay", delay, dt, source == "input" and not prefix, errors, prefix)
        )
        shape = tuple(weight.shape)
        projections.append(
            Dense(
                end,
                name,
                whole.to(torch.int32),
                delay=None if late is None else late.expand(shape),
                weight_exp=scale.exponent,
                sign_mode="mixed",
                message_bits=message_bits if not prefix else 0,
            )
        )
    return neurons, projections


def integer_weight(weight: Tensor, scale: Scale) -> Tensor:
    """``2 round(W S / 2^e / 2)``, clipped to -256 ... 254."""
    return (2 * (weight * (scale.s / 2.0**scale.exponent) / 2).round()).clamp(-256, FULL)


def largest_scale(name: str, layer: LIF | LI, dt: float, reach: Tensor | None = None) -> Scale:
    """The scale that uses the whole range of weights, with the exponent that lets the threshold fit; of a readout, the volts
    ``(out,)`` that its voltage may ``reach`` (2 V if not given)."""
    p = _numbers(name, layer, dt)
    weights = [weight.abs().max() for weight in weights_of(layer).values() if weight.numel()]
    largest = float(torch.stack(weights).max()) if weights else 0.0
    largest = largest or 1.0
    if isinstance(layer, LIF):
        needed = p["threshold"] - p["reset"]
    else:
        needed = torch.full_like(p["bias"], 2.0) if reach is None else reach
    for exponent in EXPONENTS:
        s = FULL / largest * 2.0**exponent
        if float((needed * s / p["gain"]).max()) <= TOP:
            return Scale(s, exponent)
    raise ValueError(
        f"{name}: a weight of {largest:.4g} V is too small beside the threshold: at most 17 bits lie between them on the chip; "
        "take shorter steps (dt), or prune what is never reached"
    )


def check_finite(layers: list[LIF | LI], dt: float) -> None:
    """An error that names the first parameter with a number that is not finite."""
    for name, layer in zip(names_of(layers), layers, strict=True):
        _numbers(name, layer, dt)
        for key in ("delay", "recurrent_delay"):
            delay = getattr(layer, key, None)
            if delay is not None and not bool(torch.isfinite(delay).all()):
                raise ValueError(f"{name}.{key}: expected finite seconds, got some that are not")


def _numbers(name: str, layer: LIF | LI, dt: float) -> dict[str, Tensor]:
    """A layer's parameters ``(out,)`` in float64, and the factors of a step."""
    size = layer.out_features
    given = {
        "threshold": 1.0 if isinstance(layer, LIF) else math.inf,
        "reset": 0.0,
        "refractory": 0.0,
        "initial_voltage": None,
        "initial_current": None,
    }
    p: dict[str, Any] = {}
    for key in ("tau_mem", "tau_syn", "bias", *given):
        value = getattr(layer, key, given.get(key))
        if value is not None:
            p[key] = torch.as_tensor(value).detach().double().cpu().expand(size)
    for key, value in [
        *p.items(),
        ("weight", layer.weight),
        ("recurrent_weight", getattr(layer, "recurrent_weight", None)),
    ]:
        never = key == "threshold" and isinstance(layer, LI)
        if value is not None and not never and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}.{key}: expected finite numbers, got some that are not")
    p["alpha"], p["beta"] = torch.exp(-dt / p["tau_syn"]), torch.exp(-dt / p["tau_mem"])
    p["gain"] = gain(dt, p["tau_mem"], p["tau_syn"])
    return p


def gain(dt: float, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """K: what a current of 1 V at the start of a step has added to the voltage at its end.

    ``tau_syn / (tau_syn - tau_mem) (e^(-dt/tau_syn) - e^(-dt/tau_mem))``; for equal time constants ``dt / tau e^(-dt/tau)``.
    """
    rate = dt * (1 / tau_mem - 1 / tau_syn)
    ratio = torch.where(rate.abs() < 1e-9, 1.0 + rate / 2, torch.expm1(rate) / torch.where(rate == 0, 1.0, rate))
    return dt / tau_mem * torch.exp(-dt / tau_mem) * ratio


def _mantissa(name: str, bias: Tensor) -> tuple[Tensor, Tensor]:
    """``bias = mantissa 2^exponent`` with a mantissa of 13 bits and the smallest exponent of 0 to 7."""
    exponent = torch.ceil(torch.log2((bias.abs() / 4095).clamp(min=1.0)))
    if float(exponent.max()) > 7:
        raise ValueError(
            f"{name}: a bias of {float(bias.abs().max()):.4g} units a step; expected at most {4095 << 7:,}"
        )
    return (bias / 2.0**exponent).round(), exponent


def _start(p: Mapping[str, Tensor], s: float, per_volt: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """u and v before the first step, such that v is the initial voltage after it."""
    rest = torch.where(p["bias"] < p["threshold"], p["bias"], p["reset"])
    voltage = (p.get("initial_voltage", rest) - p["reset"]) * 64 * per_volt
    u = p.get("initial_current", torch.zeros_like(rest)) * 64 * s / p["alpha"]
    top = 2**23 - 1
    return (u / p["alpha"]).round().clamp(-top, top), ((voltage - u - bias) / p["beta"]).round().clamp(-top, top)


def _delay(what: str, delay: Tensor, dt: float, from_input: bool, errors: dict[str, float], prefix: str) -> Tensor:
    """Delays in steps; the rounding goes into the errors, in seconds."""
    delay = delay.detach().double().cpu()
    if not bool(torch.isfinite(delay).all()):
        raise ValueError(f"{what}: expected finite seconds, got some that are not")
    exact = delay / dt
    late = 0.0 if from_input else 0.5  # what a spike on the chip is late already
    steps = (exact - late).round().clamp(min=0)
    if float(steps.max()) > MAX_DELAY:
        raise ValueError(
            f"{what}: {float(delay.max()):.4g} s is {int(steps.max())} steps of {dt:.4g} s; expected at most {MAX_DELAY}: take "
            f"steps of {float(delay.max()) / MAX_DELAY:.4g} s or longer, or bound the delays in training"
        )
    error = (steps + late - exact) * dt
    errors[f"{prefix}delay_worst_s"], errors[f"{prefix}delay_mean_s"] = float(error.abs().max()), float(error.mean())
    return steps.to(torch.int32)


def _worst(relative: Tensor) -> float:
    return float(relative.abs().max())


def sqnr(exact: Tensor, found: Tensor) -> float:
    """Signal to quantisation noise, in decibel."""
    noise = float((exact - found).square().sum())
    return math.inf if noise == 0 else 10 * math.log10(max(float(exact.square().sum()), 1e-300) / noise)
