"""LIF: a spiking layer in continuous time with EventProp gradients.

    V' = (bias - V + I) / tau_mem,   I' = -I / tau_syn
    an event of unit j adds value * weight[j, n] to I of neuron n, delay[j, n] later
    a spike of neuron m adds recurrent_weight[m, n] to I of neuron n, recurrent_delay[m, n] later

With K dendritic branches, I = sum_k I_k, tau_syn[k, n] I_k' = -I_k: each branch has its own weights ``weight[j, k, n]`` (and
``recurrent_weight[m, k, n]``, delays, masks) and its own synaptic time constant. This is the model of Zheng et al., "Temporal
dendritic heterogeneity incorporated with spiking neural networks for learning multi-timescale dynamics" (2024), without its grid.

When V reaches ``threshold`` from below the neuron emits a spike and V becomes ``reset``; I goes on. V stays there for the
``refractory`` period. There is no time grid and no rounding of delays: spike times are solved to machine precision. The
gradient is the exact one of these times, by the adjoint equations of Wunderlich & Pehle, "Event-based backpropagation can
compute exact gradients for spiking neural networks" (2021).

- An arrival changes the current only: the voltage is continuous. Simultaneous arrivals add up.
- Events that arrive at or after the end of the trial (``events.duration``) do not count, and have zero gradient.
- V starts at ``initial_voltage``, or at rest, ``bias`` (at ``reset`` if bias >= threshold: such a neuron has no rest and fires by
  itself); I starts at ``initial_current``, or at 0.
- In continuous time V is exactly the threshold at a spike: "reset by subtraction" and "reset to 0" are the same thing.
- The gradient does not see spikes appear or vanish, so a neuron that never fires gets none: see ``losses`` and ``initial``.
- A spike that barely reaches the threshold has an exact but huge gradient; ``slope_floor`` limits it.
- Spike times need more digits than half precision has: within autocast layers of events compute in their parameters' dtype, and
  currents and latencies of lower precision are widened. ``torch.compile`` runs these layers as they are, between its graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from eventnet import kernels
from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.kernels.reference_lif import Layer, Run
from eventnet.layers.neuron import as_extras, as_neuron, as_parameter, check_slope_floor, describe, register
from eventnet.layers.readout import Voltage
from eventnet.layers.state import LIFState, check_state, resumed, started, state_after
from eventnet.layers.synapses import Delay, as_recurrent, as_synapses, initial_delay, initial_tau_syn, normal_weight
from eventnet.layers.voltage import voltage_of
from eventnet.layers.whole import whole_at_least

__all__ = ["LIF", "LIFState", "lif"]

Watcher = Callable[[Events, Layer, Run], None]
ARGUMENTS = (
    *("weight", "recurrent_weight", "delay", "recurrent_delay", "tau_mem", "tau_syn", "threshold", "reset", "bias"),
    *("refractory", "initial_voltage", "initial_current", "mask", "recurrent_mask", "slope_floor"),
)  # of lif, that a layer may have
LEARNT = ("weight", "recurrent_weight", "delay", "recurrent_delay")  # by default
MAX_SPIKES = 2**26  # about 3 GB; a storm beyond it is an error, never a silent cap


@overload
def lif(
    events: Events,
    weight: Tensor,
    *,
    recurrent_weight: Tensor | None = ...,
    delay: float | Tensor | None = ...,
    recurrent_delay: float | Tensor | None = ...,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    refractory: float | Tensor = ...,
    initial_voltage: float | Tensor | None = ...,
    initial_current: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    recurrent_mask: Tensor | None = ...,
    slope_floor: float = ...,
    state: LIFState | None = ...,
    return_voltage: Literal[False] = ...,
    return_state: Literal[False] = ...,
    backend: str = ...,
    max_spikes: int = ...,
) -> Events: ...


@overload
def lif(
    events: Events,
    weight: Tensor,
    *,
    recurrent_weight: Tensor | None = ...,
    delay: float | Tensor | None = ...,
    recurrent_delay: float | Tensor | None = ...,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    refractory: float | Tensor = ...,
    initial_voltage: float | Tensor | None = ...,
    initial_current: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    recurrent_mask: Tensor | None = ...,
    slope_floor: float = ...,
    state: LIFState | None = ...,
    return_voltage: Literal[True],
    return_state: Literal[False] = ...,
    backend: str = ...,
    max_spikes: int = ...,
) -> tuple[Events, Voltage]: ...


@overload
def lif(
    events: Events,
    weight: Tensor,
    *,
    recurrent_weight: Tensor | None = ...,
    delay: float | Tensor | None = ...,
    recurrent_delay: float | Tensor | None = ...,
    tau_mem: float | Tensor = ...,
    tau_syn: float | Tensor = ...,
    threshold: float | Tensor = ...,
    reset: float | Tensor = ...,
    bias: float | Tensor = ...,
    refractory: float | Tensor = ...,
    initial_voltage: float | Tensor | None = ...,
    initial_current: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    recurrent_mask: Tensor | None = ...,
    slope_floor: float = ...,
    state: LIFState | None = ...,
    return_voltage: Literal[False] = ...,
    return_state: Literal[True],
    backend: str = ...,
    max_spikes: int = ...,
) -> tuple[Events, LIFState]: ...


@outside_graphs
def lif(
    events: Events,
    weight: Tensor,
    *,
    recurrent_weight: Tensor | None = None,
    delay: float | Tensor | None = None,
    recurrent_delay: float | Tensor | None = None,
    tau_mem: float | Tensor = 20e-3,
    tau_syn: float | Tensor = 5e-3,
    threshold: float | Tensor = 1.0,
    reset: float | Tensor = 0.0,
    bias: float | Tensor = 0.0,
    refractory: float | Tensor = 0.0,
    initial_voltage: float | Tensor | None = None,
    initial_current: float | Tensor | None = None,
    mask: Tensor | None = None,
    recurrent_mask: Tensor | None = None,
    slope_floor: float = 0.0,
    state: LIFState | None = None,
    return_voltage: bool = False,
    return_state: bool = False,
    backend: str = "auto",
    max_spikes: int = MAX_SPIKES,
) -> Events | tuple[Events, Voltage] | tuple[Events, LIFState]:
    """Spikes of current-based leaky integrate-and-fire neurons driven by events, with exact gradients.

    Args:
        events: input of ``in`` units; graded events (``values``) scale the weight.
        weight: ``(in, out)``; the row of the unit that fired is added to the currents. ``(in, K, out)`` gives each neuron K
            dendritic branches; in this order an event reads its weights to all branches in one go.
        recurrent_weight: ``(out, out)``; the row of the neuron that spiked is added to the currents. ``(out, K, out)`` with
            branches; a ``recurrent_mask`` leads a neuron's spikes to some branches only.
        delay, recurrent_delay: seconds >= 0 from an event (spike) to its arrivals, never rounded; one number, ``(in, out)`` per
            synapse, ``(in, 1)`` per source (axonal) or ``(1, out)`` per target (dendritic). With branches ``(in, K, out)``,
            ``(in, 1, 1)`` or ``(1, K, out)``.
        tau_mem, tau_syn: seconds, > 0 (equal ones and tau_syn > tau_mem included); one number, 0-d or ``(out,)``. With branches
            tau_syn is one number, ``(K,)`` or ``(K, 1)`` per branch, ``(1, out)`` per neuron or ``(K, out)``.
        threshold, reset, bias: volts; one number, 0-d or ``(out,)``; threshold > reset.
        refractory: seconds >= 0 for which V stays at ``reset`` after a spike; one number, 0-d or ``(out,)``.
        initial_voltage, initial_current: volts at time 0, the voltage below the threshold; one number, 0-d or ``(out,)``. With
            branches each has a current, in the shapes of tau_syn.
        mask, recurrent_mask: bool, as the weights; where False there is no synapse, and its weight and delay get no gradient.
            With delays per synapse or per target only arrivals at synapses that are there are computed, where the neurons share
            their time constants (and these are not learnt, in the backward pass). Otherwise whole rows are: their order is the
            same for all neurons, and to read a row is faster than to skip parts of it.
        slope_floor: volts per second >= 0; 0: off. The gradient of a spike is in proportion to 1 / slope, the voltage's at the
            threshold, and huge for one that barely reaches it: a smaller slope than this counts as this. Spikes stay as they
            are, gradients are exact but for those spikes; ``diagnose`` counts them.
        state: of an earlier call, to go on from; instead of the initial voltage and current.
        return_voltage: also return the ``Voltage``, to be read by ``.max() .mean() .integral() .at(times)``. With delays per
            synapse or per target every reading goes through all events once per neuron; with two and more branches once per
            branch, and there is no ``.max()`` yet.
        return_state: also return the ``LIFState`` at the end of the events' duration. A trial cut in two, the second part going
            on from the state of the first, has the spikes of the whole; gradients are cut: none flows through a state.
        backend: "auto" (the compiled kernel where there is one), "cpu" or "reference".
        max_spikes: an error is raised beyond this number of output spikes.

    Returns:
        ``Events`` of ``out`` units with the same duration; its times are differentiable in the input times and values, the
        weight and every parameter that requires grad. A silent layer returns no events, still in the graph.

    Raises:
        ValueError: a bound is violated, shapes or devices do not fit, the voltage is not finite.
        TypeError: an argument is neither a number nor a tensor; the weight is not float32 or float64.
        RuntimeError: more than ``max_spikes`` spikes.
        NotImplementedError: ``return_voltage`` with a refractory period or a state; what the backend lacks.

    Example:
        >>> events = Events.from_list([([0.0], [0])], num_units=1, duration=0.1)
        >>> weight = torch.tensor([[9.0]], requires_grad=True)
        >>> spikes = lif(events, weight)
        >>> spikes.first_times().sum().backward()
        >>> spikes.num_events, bool(weight.grad < 0)  # a larger weight makes it fire earlier
        (1, True)
    """
    kernels.check_layer_input("lif", events, weight, branched=True)
    layer = as_layer(
        weight,
        recurrent_weight,
        delay,
        recurrent_delay,
        tau_mem,
        tau_syn,
        threshold,
        reset,
        bias,
        refractory,
        initial_voltage,
        initial_current,
        mask,
        recurrent_mask,
        slope_floor,
    )
    return run_layer(events, layer, state, return_voltage, return_state, backend, max_spikes)


def run_layer(
    events: Events,
    layer: Layer,
    state: LIFState | None,
    return_voltage: bool,
    return_state: bool,
    backend: str,
    max_spikes: int = MAX_SPIKES,
    watchers: Iterable[Watcher] = (),
) -> Events | tuple[Events, Voltage] | tuple[Events, LIFState]:
    """``lif`` of checked arguments; ``watchers`` get to see the run."""
    incoming = events  # and what is still on its way
    if state is not None:
        if layer.initial_voltage is not None or layer.initial_current is not None:
            raise ValueError("lif: pass either a state or an initial voltage and current, not both")
        check_state(state, events, layer)
        layer, incoming = started(layer, state), resumed(events, state.pending)
    if return_voltage and (return_state or state is not None):
        raise NotImplementedError("lif: return_voltage is not possible with a state yet")
    run = kernels.lif(incoming, layer, backend, max_spikes, return_state)
    num = layer.synapses.weight.shape[-1]
    spikes = Events.trusted(run.times.to(events.dtype), run.units, run.offsets, num, events.duration)
    for watch in watchers:
        watch(events, layer, run)
    if return_state:
        return spikes, state_after(incoming, layer, run, state)
    if not return_voltage:
        return spikes
    return spikes, voltage_of(events, spikes, layer, backend)


def as_layer(
    weight: Tensor,
    recurrent_weight: Tensor | None = None,
    delay: float | Tensor | None = None,
    recurrent_delay: float | Tensor | None = None,
    tau_mem: float | Tensor = 20e-3,
    tau_syn: float | Tensor = 5e-3,
    threshold: float | Tensor = 1.0,
    reset: float | Tensor = 0.0,
    bias: float | Tensor = 0.0,
    refractory: float | Tensor = 0.0,
    initial_voltage: float | Tensor | None = None,
    initial_current: float | Tensor | None = None,
    mask: Tensor | None = None,
    recurrent_mask: Tensor | None = None,
    slope_floor: float = 0.0,
) -> Layer:
    """The arguments of ``lif`` as checked tensors."""
    branches = weight.shape[1] if weight.dim() == 3 else None
    if branches == 0:
        raise ValueError(f"weight (in, branches, out) has no branches: shape {tuple(weight.shape)}")
    own = dict(tau_mem=tau_mem, tau_syn=tau_syn, threshold=threshold, reset=reset, bias=bias)
    start = dict(initial_voltage=initial_voltage, initial_current=initial_current)
    check_numbers(delay=delay, recurrent_delay=recurrent_delay, refractory=refractory, **start, **own)
    neuron = as_neuron(weight.shape[-1], weight, branches=branches, **own)
    synapses = as_synapses(weight, delay, mask)
    recurrent = as_recurrent(weight, recurrent_weight, recurrent_delay, recurrent_mask)
    extras = as_extras(weight, neuron, refractory, branches=branches, **start)
    return Layer(synapses, neuron, recurrent, *extras, slope_floor=check_slope_floor(slope_floor))


def check_numbers(**given: object) -> None:
    """Raise for what is neither a number nor a tensor: a list may be meant as values or as (low, high)."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor | Real):
            raise TypeError(
                f"{name} must be a number or a tensor, got {type(value).__name__}; torch.tensor makes one of a list (a range, "
                "where one is possible, is a tuple)"
            )


class LIF(nn.Module):
    """A layer of leaky integrate-and-fire neurons; see ``lif`` for the equations and the arguments.

    Args:
        in_features, out_features: units in and out. ``weight`` is ``(in_features, out_features)``, normal with standard
            deviation in^-1/2: often too small to fire. ``initial.fire_fraction_`` scales it to the input.
        branches: K dendritic branches per neuron: ``weight`` is ``(in_features, K, out_features)``, standard deviation
            (in K)^-1/2. Branches differ by their ``tau_syn`` and delays: with the same ones for all, K branches do what one
            does, at K times the cost. A layer of one branch is the layer without.
        recurrent: with a ``recurrent_weight`` ``(out_features, out_features)``, normal with standard deviation out^-1/2; with
            branches ``(out_features, K, out_features)``, (out K)^-1/2.
        delay, recurrent_delay: seconds; (low, high) draws them uniformly, a number or a tensor sets them.
        delay_kind: "synaptic" (one delay per connection), "axonal" (per source) or "dendritic" (per target).
        tau_mem, tau_syn, threshold, reset, bias, refractory, initial_voltage, initial_current: one number, or
            ``(out_features,)`` to have one per neuron. With branches ``tau_syn=(low, high)`` is log-spaced over them, the same
            for all neurons, as a parameter ``(K, out_features)``. So is a number that is learnt: two and more branches start
            alike and each learns its own. Other shapes stay as they are given (a 0-d tensor: one for all, learnt or not).
        mask, recurrent_mask: bool, as the weights; where False there is no synapse. Weights that ``torch.nn.utils.prune``
            prunes are zero, no more: their work is done.
        slope_floor: volts per second; smaller slopes at spikes count as this in the backward pass.
        learn: names of the parameters that require grad (those of the default that the layer does not have are left out); call
            ``eventnet.constrain_`` after optimiser steps on others than the weights.
        backend: "auto", "cpu" or "reference".
        dtype: of the parameters; torch's default if not given.

    Raises:
        ValueError, TypeError: as ``lif``.

    Example:
        >>> layer = LIF(4, 3, tau_mem=10e-3, learn=("weight", "tau_mem"))
        >>> sorted(name for name, p in layer.named_parameters() if p.requires_grad)
        ['tau_mem', 'weight']
        >>> layer(Events.from_list([([], [])], num_units=4, duration=0.1)).num_events
        0
        >>> LIF(4, 3, recurrent=True, delay=(0.0, 20e-3)).delay.shape
        torch.Size([4, 3])
        >>> branched = LIF(4, 3, branches=3, tau_syn=(2e-3, 200e-3), learn=("weight", "tau_syn"))
        >>> branched.weight.shape, branched.tau_syn[:, 0].mul(1e3).round(decimals=2).tolist()
        (torch.Size([4, 3, 3]), [2.0, 20.0, 200.0])
    """

    weight: Tensor
    tau_mem: Tensor
    tau_syn: Tensor
    threshold: Tensor
    reset: Tensor
    bias: Tensor
    slope_floor: float = 0.0
    branches: int | None = None
    watchers: tuple[Watcher, ...] = ()  # of each call: see diagnosing

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        branches: int | None = None,
        recurrent: bool = False,
        delay: Delay = None,
        recurrent_delay: Delay = None,
        delay_kind: str = "synaptic",
        tau_mem: float | Tensor = 20e-3,
        tau_syn: float | Tensor | tuple[float, float] = 5e-3,
        threshold: float | Tensor = 1.0,
        reset: float | Tensor = 0.0,
        bias: float | Tensor = 0.0,
        refractory: float | Tensor = 0.0,
        initial_voltage: float | Tensor | None = None,
        initial_current: float | Tensor | None = None,
        mask: Tensor | None = None,
        recurrent_mask: Tensor | None = None,
        slope_floor: float = 0.0,
        learn: tuple[str, ...] = LEARNT,
        backend: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        branches = None if branches is None else whole_at_least(1, branches, "branches")
        self.slope_floor, self.branches = slope_floor, branches
        targets = (out_features,) if branches is None else (branches, out_features)
        own: dict[str, Tensor] = {"weight": normal_weight(in_features, *targets, dtype=dtype)}
        if recurrent:
            own["recurrent_weight"] = normal_weight(out_features, *targets, dtype=dtype)
        for name, value, num_in in (("delay", delay, in_features), ("recurrent_delay", recurrent_delay, out_features)):
            if not isinstance(value, tuple):
                check_numbers(**{name: value})
            if value is not None:
                own[name] = initial_delay(value, delay_kind, num_in, *targets, dtype=dtype)
        given: dict[str, float | Tensor | None] = {
            "tau_mem": tau_mem,
            "tau_syn": initial_tau_syn(tau_syn, branches, out_features),
            "threshold": threshold,
            "reset": reset,
            "bias": bias,
            "refractory": refractory,
            "initial_voltage": initial_voltage,
            "initial_current": initial_current,
        }
        check_numbers(**given)
        if branches is not None and branches > 1 and "tau_syn" in learn and not isinstance(tau_syn, Tensor | tuple):
            given["tau_syn"] = torch.full(targets, float(tau_syn), dtype=torch.float64)
        for name, parameter in given.items():
            idle = name == "refractory" and name not in learn and not isinstance(parameter, Tensor) and parameter == 0
            if parameter is not None and not idle:
                own[name] = as_parameter(parameter, dtype)
        register(self, tuple(n for n in learn if n in own) if learn == LEARNT else learn, **own)
        for name, where in (("mask", mask), ("recurrent_mask", recurrent_mask)):
            if where is not None and not isinstance(where, Tensor):
                raise TypeError(f"{name} must be a bool tensor, got {type(where).__name__}; torch.as_tensor makes one")
            self.register_buffer(name, None if where is None else where.detach().clone())
        as_layer(**self.arguments())  # what is wrong is said here already

    @overload
    def forward(
        self,
        events: Events,
        return_voltage: Literal[False] = ...,
        *,
        state: LIFState | None = ...,
        return_state: Literal[False] = ...,
    ) -> Events: ...

    @overload
    def forward(
        self,
        events: Events,
        return_voltage: Literal[True],
        *,
        state: LIFState | None = ...,
        return_state: Literal[False] = ...,
    ) -> tuple[Events, Voltage]: ...

    @overload
    def forward(
        self,
        events: Events,
        return_voltage: Literal[False] = ...,
        *,
        state: LIFState | None = ...,
        return_state: Literal[True],
    ) -> tuple[Events, LIFState]: ...

    @outside_graphs
    def forward(
        self,
        events: Events,
        return_voltage: bool = False,
        *,
        state: LIFState | None = None,
        return_state: bool = False,
    ) -> Events | tuple[Events, Voltage] | tuple[Events, LIFState]:
        """Spikes of ``out_features`` units (and their ``Voltage``, or the ``LIFState`` at the end) for events of ``in_features``
        units; ``state`` to go on from, instead of the layer's initial voltage and current."""
        given = self.arguments()
        if state is not None:
            given = {name: p for name, p in given.items() if name not in ("initial_voltage", "initial_current")}
        kernels.check_layer_input("lif", events, self.weight, branched=True)
        asked = state, return_voltage, return_state
        return run_layer(events, as_layer(**given), *asked, self.backend, watchers=self.watchers)

    @overload
    def drive(self, current: Tensor, dt: float, return_voltage: Literal[False] = ...) -> Events: ...

    @overload
    def drive(self, current: Tensor, dt: float, return_voltage: Literal[True]) -> tuple[Events, Tensor]: ...

    @outside_graphs
    def drive(self, current: Tensor, dt: float, return_voltage: bool = False) -> Events | tuple[Events, Tensor]:
        """Spikes for currents ``(T, B, in_features)`` that hold for ``dt`` seconds each, and the voltages at the ends of these
        steps, ``(T, B, out_features)``: see ``lif_drive``."""
        from eventnet.layers.drive import run_drive  # which needs this file

        layer = as_layer(**self.arguments())
        return run_drive(current, layer, dt, return_voltage, self.backend, watchers=self.watchers)

    def arguments(self) -> dict[str, Any]:
        """Those of ``lif``: the weights, delays, parameters and masks that this layer has, and its ``slope_floor``."""
        # by attribute: a weight that torch.nn.utils prunes or parametrizes is no parameter of the layer any more
        given = {name: getattr(self, name, None) for name in ARGUMENTS}
        return {name: value for name, value in given.items() if value is not None}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "watchers"}

    def extra_repr(self) -> str:
        parts = [f"{self.in_features}, {self.out_features}", "recurrent" if hasattr(self, "recurrent_weight") else ""]
        parts.append("" if self.branches is None else f"branches={self.branches}")
        parts.append(describe({name: p for name, p in self.named_parameters() if not name.endswith("weight")}))
        masks = {f"share of {name}": mask for name, mask in self.named_buffers() if mask.numel()}
        parts.append(describe({name: mask.float().mean() for name, mask in masks.items()}))
        parts.append(f"slope_floor={self.slope_floor:g}" if self.slope_floor else "")
        return ", ".join(part for part in parts if part)
