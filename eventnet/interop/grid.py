"""A layer on a time grid, and the layer in continuous time that is equal to it at the steps.

snnTorch and Norse step, x[n] being the spikes that come in at step n, s[n - 1] the layer's own of the step before:

    I[n] = alpha I[n - 1] + x[n] weight + s[n - 1] recurrent_weight + bias
    V[n] = beta V[n - 1] + (1 - beta) leak + gain I[n],   s[n] = V[n] > threshold

Take a spike of step n for an event at n dt. Until the layer spikes, V[n] is then the voltage of ``LIF`` at (n + 1) dt, to
rounding, with

    alpha = e^{-dt/tau_syn},   beta = e^{-dt/tau_mem},   weights of LIF = gain / K(dt) weights
    bias of LIF = leak + gain bias / ((1 - alpha) (1 - beta)),   V(0) = leak,   I(0) = -alpha gain bias / ((1 - alpha) K(dt))

where K(dt) is the voltage dt after a unit jump of the current. (The bias of a linear layer charges the synaptic current first,
hence I(0).) Only spikes differ: a grid tells one at the start of the step in which V reaches the threshold, up to dt early, and
resets a voltage that is above it. Both differences vanish with dt.

A neuron without a synaptic current (snnTorch's Leaky: ``tau_syn`` None, alpha 0) jumps by the weight. What comes closest is a
short tau_syn and the same charge, weight tau_mem / tau_syn, which tends to the jump as tau_syn -> 0. With tau_syn =
tau_mem (1 - beta), just below dt, V is the grid's again once the current is gone, and ``LIF.drive`` with x as currents gives the
very V[n].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor

from eventnet.interop.readout import StartedLI
from eventnet.kernels.reference import synaptic_kernel
from eventnet.layers.lif import LIF
from eventnet.layers.readout import LI

__all__ = [
    *("GridLayer", "Mapped", "check_row", "check_step", "from_layer", "mapping"),
    *("note_on_start", "refused", "said", "to_layer"),
]

Gain = Literal["1", "1 - beta"]
WEIGHTS = (("weight", "mask"), ("recurrent_weight", "recurrent_mask"))
PARAMETERS = (  # taken by attribute: what torch.nn.utils prunes or parametrizes is no parameter any more
    *("weight", "recurrent_weight", "tau_mem", "tau_syn", "threshold"),
    *("reset", "bias", "initial_voltage", "initial_current"),
)
ALIKE = 1e-5  # relative: what float32 keeps of a start that was computed


@dataclass(frozen=True, eq=False)
class GridLayer:
    """One layer of a grid library, linear part and neurons, all in float64; see the module for the equations.

    Args:
        name: of its parts in the model, for errors and reports.
        dt: seconds of a step.
        weight: (in, out).
        tau_mem, tau_syn: seconds, 0-d or (out,); tau_syn None: no synaptic current.
        gain: of the current in a step of the voltage: "1" in snnTorch, "1 - beta" in Norse.
        leak: volts, where V starts.
        threshold: volts, 0-d or (out,); None: it never spikes, its voltage is read.
        reset: after a spike "subtract" takes the threshold off, "value" sets V to ``reset_value``.
        reset_late: it does so a step later.
        bias: (out,), added in every step; None: none.
        recurrent_weight, recurrent_mask: (out, out).
        learn: what requires grad, by the names that it has in ``LIF``.
        told: what stands for each of LIF's parameters, in the library's own words.
    """

    name: str
    dt: float
    weight: Tensor
    tau_mem: Tensor
    tau_syn: Tensor | None
    gain: Gain
    leak: Tensor
    threshold: Tensor | None = None
    reset: Literal["subtract", "value"] = "subtract"
    reset_value: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    reset_late: bool = False
    bias: Tensor | None = None
    recurrent_weight: Tensor | None = None
    recurrent_mask: Tensor | None = None
    learn: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num = self.weight.shape[1]
        given = {key: getattr(self, key) for key in ("tau_mem", "tau_syn", "leak", "threshold", "reset_value", "bias")}
        for key, value in given.items():
            if value is not None and value.dim() and value.shape != (num,):
                raise ValueError(
                    f"{self.name}: {key} of shape {tuple(value.shape)} for {num} neurons; expected one or ({num},)"
                )
        for key in ("weight", "bias", "recurrent_weight"):
            value = getattr(self, key)
            if value is not None and not bool(value.isfinite().all()):
                raise ValueError(f"{self.name}: {key} holds NaN or inf; expected finite numbers")

    def reset_error(self) -> float:
        """By what share of the threshold V is too low after a spike, at most: what is subtracted late would have decayed since.
        0 where V is set to a value: what is lost there is the charge of the step."""
        if self.threshold is None or self.reset != "subtract":
            return 0.0
        return float(_lost(self.dt * (2 if self.reset_late else 1), self.tau_mem).max())


@dataclass(frozen=True)
class Mapped:
    """One line of a conversion: as the grid library says it, as eventnet says it, and how the one follows from the other."""

    theirs: str
    ours: str
    how: str


def refused(what: str, remedy: str) -> NotImplementedError:
    """The error for what the other side does not have."""
    return NotImplementedError(f"{what} has no equal there: {remedy}")


def check_step(dt: float) -> None:
    """Raise unless ``dt`` is a positive number of seconds."""
    if isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < inf:
        raise ValueError(f"dt: expected the seconds of a step, a number > 0, got {dt!r}")


def check_row(grids: Sequence[GridLayer]) -> None:
    """Raise unless each layer takes as many inputs as the one before it has neurons."""
    for before, grid in pairwise(grids):
        if before.weight.shape[1] != grid.weight.shape[0]:
            raise ValueError(
                f"{grid.name}: takes {grid.weight.shape[0]} inputs, but {before.name} has {before.weight.shape[1]} neurons; are "
                "the layers in the order of the forward pass?"
            )


def to_layer(grid: GridLayer, tau_syn: float | None, dtype: torch.dtype) -> LIF | LI:
    """The layer in continuous time; ``tau_syn`` in seconds is for neurons that have no synaptic current, see the module.

    It is computed in float64, from the time constants as ``dtype`` keeps them, and rounded once.
    """
    tau_mem = grid.tau_mem.to(dtype).double()
    short = tau_mem * _lost(grid.dt, tau_mem) if tau_syn is None else torch.tensor(tau_syn, dtype=torch.float64)
    kept = (short if grid.tau_syn is None else grid.tau_syn).to(dtype).double()
    factor = _factor(grid, tau_mem, kept)
    given: dict[str, Any] = {"tau_mem": tau_mem, "tau_syn": kept, "bias": grid.leak}
    given |= {"learn": grid.learn, "dtype": dtype}
    if grid.bias is not None:
        given["bias"] = grid.leak + grid.bias * _risen(grid, tau_mem, kept)
        given["initial_voltage"] = grid.leak
        if grid.tau_syn is not None or grid.threshold is None:  # else none, which LIF.drive's compiled kernel has not
            given["initial_current"] = _started(grid, grid.bias, tau_mem, kept)
    layer: LIF | LI
    if grid.threshold is None:
        kind = StartedLI if "initial_voltage" in given else LI
        layer = kind(*grid.weight.shape, **given)
    else:
        given |= {"threshold": grid.threshold, "reset": grid.reset_value}
        if grid.recurrent_weight is not None:
            delay = torch.tensor(grid.dt, dtype=torch.float64)
            given |= {"recurrent": True, "recurrent_delay": delay, "recurrent_mask": grid.recurrent_mask}
        layer = LIF(*grid.weight.shape, **given)
    with torch.no_grad():
        layer.weight.copy_(grid.weight * factor)
        if grid.recurrent_weight is not None:
            layer.get_parameter("recurrent_weight").copy_(grid.recurrent_weight * factor)
    return layer


def from_layer(
    layer: LIF | LI, name: str, dt: float, gain: Gain, leaky: bool = False
) -> tuple[GridLayer, tuple[str, ...]]:
    """The layer on a grid of step ``dt``, and what changes on the way that no shorter step mends.

    ``leaky``: without its synaptic current.

    Raises:
        NotImplementedError: the layer has something that these grids do not.
    """
    _refuse_extras(layer, name, dt)
    held = {key: getattr(layer, key, None) for key in PARAMETERS}
    own = {key: value.detach().double().cpu() for key, value in held.items() if value is not None}
    tau_mem, tau_syn = own["tau_mem"], own["tau_syn"]
    voltage, current = _start(own)
    start = voltage.reshape(-1)[0]
    shared = gain == "1 - beta" and bool((voltage == start).all())  # Norse's leak, where it starts, is one number
    grid = GridLayer(
        name,
        dt,
        own["weight"],
        tau_mem,
        None if leaky else tau_syn,
        gain,
        start if shared else torch.zeros_like(start),
        threshold=own.get("threshold"),
        reset_value=own.get("reset", torch.zeros((), dtype=torch.float64)),
        recurrent_mask=dict(layer.named_buffers()).get("recurrent_mask"),
        learn=tuple(key for key, value in layer.named_parameters() if value.requires_grad),
    )
    if gain == "1" and bool(grid.reset_value.any()):
        raise refused(f"{name}: reset={said(grid.reset_value)}", "take it off threshold, reset, bias and start first")
    factor, above = _factor(grid, tau_mem, tau_syn), own["bias"] - grid.leak
    biased = bool(above.any()) or "initial_current" in own or (gain == "1" and "initial_voltage" in own)
    bias = (above / _risen(grid, tau_mem, tau_syn)).expand(layer.out_features) if biased else None
    weight, recurrent = (_there(own.get(key), getattr(layer, mask, None)) for key, mask in WEIGHTS)
    assert weight is not None
    recurrent = None if recurrent is None else recurrent / factor
    grid = replace(grid, weight=weight / factor, bias=bias, recurrent_weight=recurrent)
    expected = torch.zeros(()) if bias is None else _started(grid, bias, tau_mem, tau_syn)
    return grid, tuple(_notes(grid, layer, (voltage, current), expected))


def _lost(seconds: float, tau: Tensor) -> Tensor:
    """1 - e^{-seconds/tau}."""
    return -torch.expm1(-seconds / tau)


def _factor(grid: GridLayer, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """LIF's weights per weight of the grid."""
    if grid.tau_syn is None:
        return tau_mem / tau_syn
    gained = 1.0 if grid.gain == "1" else _lost(grid.dt, tau_mem)
    return gained / synaptic_kernel(torch.tensor(grid.dt, dtype=torch.float64), tau_mem, tau_syn)


def _risen(grid: GridLayer, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """The voltage that a bias of 1 in every step ends at."""
    current = torch.ones_like(tau_syn) if grid.tau_syn is None else 1 / _lost(grid.dt, tau_syn)
    return current / _lost(grid.dt, tau_mem) if grid.gain == "1" else current


def _started(grid: GridLayer, bias: Tensor, tau_mem: Tensor, tau_syn: Tensor) -> Tensor:
    """The current at time 0 that makes the voltage rise as the bias charges the grid's."""
    if grid.tau_syn is None:
        return torch.zeros_like(bias)
    left = torch.exp(-grid.dt / tau_syn) / _lost(grid.dt, tau_syn)
    return -left * bias * _factor(grid, tau_mem, tau_syn)


def _there(weight: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Zero where there is no synapse."""
    return weight if weight is None or mask is None else torch.where(mask.to(weight.device), weight, 0.0)


def _start(own: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Voltage and current of a layer at time 0."""
    rest = own["bias"]
    if "threshold" in own:
        rest = torch.where(rest < own["threshold"], rest, own["reset"])
    return own.get("initial_voltage", rest), own.get("initial_current", torch.zeros_like(rest))


def _refuse_extras(layer: LIF | LI, name: str, dt: float) -> None:
    """Raise for what ``LIF`` has and these grids do not."""
    if getattr(layer, "branches", None) is not None:
        raise refused(f"{name}: dendritic branches", "keep the layer in eventnet")
    delay, refractory = getattr(layer, "delay", None), getattr(layer, "refractory", None)
    if delay is not None and bool(delay.any()):
        raise refused(f"{name}: delay", "keep the layer in eventnet, or train it without delays")
    if refractory is not None and bool(refractory.any()):
        raise refused(f"{name}: refractory={said(refractory)} s", "set it to 0 and train on")
    own = getattr(layer, "recurrent_delay", None)
    if own is not None and own.max().item() > dt * (1 + ALIKE):
        raise refused(
            f"{name}: recurrent_delay={said(own)} s", f"recurrent spikes arrive a step later, after dt={dt:g} s"
        )


def note_on_start(grids: Iterable[GridLayer]) -> list[str]:
    """What training a bias does not do, for the layers that learn one and start with a current that depends on it."""
    learning = [g.name for g in grids if "bias" in g.learn and g.bias is not None and g.tau_syn is not None]
    names = "; ".join(learning)
    return [f"training changes bias, and not initial_current, which made it rise as there: {names}"] if learning else []


def _notes(grid: GridLayer, layer: LIF | LI, start: tuple[Tensor, Tensor], expected: Tensor) -> Iterator[str]:
    voltage, current = start
    size = max(float(expected.abs().max()), 1e-9)
    if bool((voltage != grid.leak).any()) or bool(((current - expected).abs() > ALIKE * size).any()):
        yield (
            f"{grid.name}: starts at {said(voltage)} V with a current of {said(current)}; on the grid at {said(grid.leak)} V "
            "with none. What is different decays with tau_mem and tau_syn"
        )
    if getattr(layer, "mask", None) is not None:
        yield f"{grid.name}: mask: weights of 0, which training there would change"
    eye = torch.eye(layer.out_features, dtype=torch.bool)
    kept, own = (eye if grid.gain == "1" else ~eye), grid.recurrent_mask  # one to one there, no autapses here
    if own is not None and not torch.equal(own.cpu(), kept):
        yield f"{grid.name}: recurrent_mask: weights of 0, which training there would change"
    if grid.tau_syn is None:
        yield f"{grid.name}: tau_syn={said(layer.tau_syn)} s is dropped: an arrival is a jump of the voltage"


# ---- the lines of a report --------------------------------------------------------------------------------------------------


def mapping(grid: GridLayer, layer: LIF | LI) -> tuple[Mapped, ...]:
    """What became of what, for a reader to check."""
    return tuple(_mapped(grid, {key: x.detach() for key, x in layer.named_parameters()}))


def _mapped(grid: GridLayer, own: Mapping[str, Tensor]) -> Iterator[Mapped]:
    told, factor = grid.told, _factor(grid, own["tau_mem"].double(), own["tau_syn"].double())
    lost = {"1": "-dt / ln(beta)", "1 - beta": "-dt / ln(1 - dt tau_mem_inv)"}[grid.gain]
    lost_syn = {"1": "-dt / ln(alpha)", "1 - beta": "-dt / ln(1 - dt tau_syn_inv)"}[grid.gain]
    yield Mapped(told["tau_mem"], f"tau_mem={said(own['tau_mem'])} s", lost)
    how = "has none there; tends to it as tau_syn -> 0" if grid.tau_syn is None else lost_syn
    yield Mapped(told["tau_syn"], f"tau_syn={said(own['tau_syn'])} s", how)
    rule = "tau_mem / tau_syn" if grid.tau_syn is None else f"{grid.gain if grid.gain == '1' else '(1 - beta)'} / K(dt)"
    yield Mapped(told["weight"], f"weight {tuple(own['weight'].shape)}", f"transposed, times {said(factor)} = {rule}")
    if grid.bias is not None:
        start = ", ".join(f"{key} {said(own[key])}" for key in ("initial_voltage", "initial_current") if key in own)
        yield Mapped(told["bias"], f"bias={said(own['bias'])} V", f"a constant input; {start or 'starts at rest'}")
    elif bool(grid.leak):
        yield Mapped(told["leak"], f"bias={said(own['bias'])} V", "the same")
    if grid.recurrent_weight is not None:
        delay = own.get("recurrent_delay", torch.zeros(()))
        yield Mapped(
            told["recurrent_weight"], f"recurrent_delay={said(delay)} s", "recurrent spikes arrive a step later"
        )
    if grid.threshold is None:
        yield Mapped(told["reset"], "LI", "never spikes: its voltage is read")
        return
    yield Mapped(
        f"threshold={said(grid.threshold)}", f"threshold={said(own['threshold'])} V", "the same; there >, here >="
    )
    yield Mapped(told["reset"], f"reset={said(own['reset'])} V", _reset_told(grid))


def _reset_told(grid: GridLayer) -> str:
    if grid.reset == "subtract":
        return f"the same as dt -> 0; at this dt up to {grid.reset_error():.1%} of the threshold too low there"
    steps = "two steps" if grid.reset_late else "a step"
    return f"the same as dt -> 0; at this dt the charge of up to {steps} is lost there"


def said(value: Tensor) -> str:
    """A number, or the range of several."""
    low, high = value.detach().min().item(), value.detach().max().item()
    return f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
