"""A hardware graph, run step by step: Loihi's arithmetic bit for bit as Lava 0.10.0 has it.

In each step every population takes what arrives and moves on (``eventnet.hardware.lif`` has the equations of LIF neurons), then
every projection delivers its spikes. A synapse holds its weight clipped and cut (``Projection.effective``). The spikes of a step
are added up at each target, apart for each delay, and the **sum** is shifted by ``weight_exp`` (down: towards minus infinity); it
arrives in step t + 1 + delay. A convolution's sums wrap at 24 bits instead. Projections onto one population add up.

Source: lava-nc 0.10.0, its process models tagged ``fixed_pt``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from eventnet import Events
from eventnet.hardware import compiled
from eventnet.hardware.network import HardwareNetwork, Stepper
from eventnet.hardware.synapses import Synapses

__all__ = ["Record", "State", "simulate"]

Spikes = Tensor | np.ndarray | Mapping[str, Tensor] | Mapping[str, np.ndarray]

BACKENDS = ("auto", "cpu", "reference")


class Record(NamedTuple):
    """What happened: a tensor ``(T, B, N)`` for each population. Spikes are int32, 0 or 1 (of graded ones, the value)."""

    spikes: dict[str, Tensor]
    u: dict[str, Tensor]
    v: dict[str, Tensor]


@dataclass
class State:
    """Where a simulation stands after so many steps."""

    step: int
    neurons: dict[str, dict[str, Tensor]]  # of each population, ``(B, N)`` by name
    pending: dict[
        tuple[str, str], Tensor
    ]  # on its way to a port, (slots, B, N): slot s arrives where step % slots == s
    overflows: dict[str, int] = field(default_factory=dict)  # currents wrapped and voltages clipped so far

    def copy(self) -> State:
        """Another one, that a simulation may move on."""
        neurons = {name: {part: x.clone() for part, x in own.items()} for name, own in self.neurons.items()}
        return State(self.step, neurons, {port: x.clone() for port, x in self.pending.items()}, dict(self.overflows))


@overload
def simulate(
    network: HardwareNetwork,
    spikes: Spikes,
    *,
    state: State | None = None,
    record: Collection[str] | None = None,
    return_state: Literal[False] = False,
    backend: str = ...,
) -> Record: ...
@overload
def simulate(
    network: HardwareNetwork,
    spikes: Spikes,
    *,
    state: State | None = None,
    record: Collection[str] | None = None,
    return_state: Literal[True],
    backend: str = ...,
) -> tuple[Record, State]: ...
def simulate(
    network: HardwareNetwork,
    spikes: Spikes,
    *,
    state: State | None = None,
    record: Collection[str] | None = None,
    return_state: bool = False,
    backend: str = "auto",
) -> Record | tuple[Record, State]:
    """The spikes, currents and voltages of every population, every step.

    Args:
        network: the graph, from plain integer arrays (``HardwareNetwork``) or a compiled model.
        spikes: ``(T, B, N)`` or ``(T, N)``, bool or integers (how many, or the value of a graded spike), of the one population of
            ``Inputs``, or of each by name; arrays of NumPy as well. Tensors decide on the device.
        state: to go on from, of an earlier call; otherwise the populations' own u and v, at step 0.
        record: names of the populations whose u and v are kept; all by default. Spikes always are. A long run in bounded
            memory is a number of calls that hand on their state.
        return_state: also return the state after the last step.
        backend: "cpu", the compiled kernel (LIF neurons, dense and sparse synapses, on the CPU); "reference", plain torch, which
            runs everything anywhere; "auto": the first where it serves. The numbers are the same.

    Returns:
        ``(spikes, u, v)``: dicts of ``(T, B, N)`` int32 tensors by the names of the populations, ``(T, N)`` if the input had no
        batch. u and v are those at the end of a step: v is 0 where there was a spike.

    Example:
        >>> from eventnet.hardware.lif import LIFNeurons
        >>> from eventnet.hardware.network import Dense, Inputs
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 1), LIFNeurons("neuron", 1, du=2047, dv=0, vth=200)],
        ...     [Dense("input", "neuron", [[100]])],
        ...     dt=1e-3,
        ... )
        >>> spikes, u, v = simulate(network, torch.tensor([[1], [1], [0], [0], [0]]))
        >>> spikes["neuron"][:, 0].tolist(), v["neuron"][:, 0].tolist()
        ([0, 0, 1, 0, 0], [0, 6400, 0, 4800, 7200])
    """
    rasters, batched = _rasters(network, spikes)
    first = next(iter(rasters.values()))
    num_steps, batch, device = *first.shape[:2], first.device
    kept = [each.name for each in network.neurons] if record is None else [network[name].name for name in record]
    steppers = {each.name: each.stepper(device) for each in network.neurons}
    if state is None:
        neurons = {name: stepper.start(batch) for name, stepper in steppers.items()}
        state = State(0, neurons, _nothing_pending(network, batch, device), dict.fromkeys(steppers, 0))
    else:
        _check_state(state, network, batch, device)
        state = state.copy()
    shapes = {each.name: (num_steps, batch, each.size) for each in network.neurons}
    sent = {name: torch.empty(shape, dtype=torch.int32, device=device) for name, shape in shapes.items()} | rasters
    u = {name: torch.empty(shapes[name], dtype=torch.int32, device=device) for name in kept}
    v = {name: torch.empty(shapes[name], dtype=torch.int32, device=device) for name in kept}
    if _compiled(network, device, backend):
        compiled.run(network, state, sent, u, v, num_steps)
    else:
        _run(network, steppers, state, sent, u, v)
    found = Record(*({name: x if batched else x[:, 0] for name, x in part.items()} for part in (sent, u, v)))
    return (found, state) if return_state else found


def _compiled(network: HardwareNetwork, device: torch.device, backend: str) -> bool:
    """Whether the compiled kernel is to run."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    refused = compiled.refusal(network, device)
    if backend == "cpu" and refused is not None:
        raise ValueError(f"the compiled kernel does not serve this network: {refused}; backend='reference' does")
    return backend != "reference" and refused is None


def _run(
    network: HardwareNetwork,
    steppers: Mapping[str, Stepper],
    state: State,
    sent: dict[str, Tensor],
    u: dict[str, Tensor],
    v: dict[str, Tensor],
) -> None:
    """The steps in plain torch: this is what they mean."""
    first = next(iter(sent.values()))
    synapses = [Synapses(each, network, first.device) for each in network.projections]
    for k in range(len(first)):
        for name, stepper in steppers.items():
            own = state.neurons[name]
            fired, overflows = stepper.step(state.step + 1, _arriving(state, name), own)
            sent[name][k] = fired
            state.overflows[name] += overflows
            if name in u:
                u[name][k], v[name][k] = own["u"], own["v"]
        for each in synapses:
            each.deliver(sent[each.source][k], state.step, state.pending[each.target, each.port])
        state.step += 1


def _check_state(state: State, network: HardwareNetwork, batch: int, device: torch.device) -> None:
    """An error if a state is not one of this network, these samples and this device."""
    fresh = {each.name: each.stepper(device).start(batch) for each in network.neurons}
    wanted = {f"{name}.{part}": x for name, own in fresh.items() for part, x in own.items()}
    wanted |= {
        f"{name}.pending {port}".strip(): x for (name, port), x in _nothing_pending(network, batch, device).items()
    }
    given = {f"{name}.{part}": x for name, own in state.neurons.items() for part, x in own.items()}
    given |= {f"{name}.pending {port}".strip(): x for (name, port), x in state.pending.items()}
    if sorted(wanted) != sorted(given):
        raise ValueError(f"state: expected one of {', '.join(sorted(wanted))}, got {', '.join(sorted(given))}")
    for name, x in wanted.items():
        y = given[name]
        if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device:
            raise ValueError(
                f"state: {name} is {y.dtype} {tuple(y.shape)} on {y.device}, expected {x.dtype} {tuple(x.shape)} on {x.device}; "
                "a state goes on with the same network and samples"
            )


def _nothing_pending(network: HardwareNetwork, batch: int, device: torch.device) -> dict[tuple[str, str], Tensor]:
    """What is on its way before the first step."""
    pending = {}
    for each in network.neurons:
        for port, size in each.ports.items():
            onto = [projection.max_delay for projection in network.onto(each.name) if projection.port == port]
            slots = 2 + max(onto, default=0)
            pending[each.name, port] = torch.zeros(slots, batch, size, dtype=torch.int32, device=device)
    return pending


def _arriving(state: State, name: str) -> dict[str, Tensor]:
    """What arrives at each port of a population in this step; it is on its way no more."""
    arrived = {}
    for (target, port), pending in state.pending.items():
        if target == name:
            slot = pending[state.step % len(pending)]
            arrived[port] = slot.clone()
            slot.zero_()
    return arrived


def _rasters(network: HardwareNetwork, spikes: Spikes) -> tuple[dict[str, Tensor], bool]:
    """The spikes of each population of inputs, ``(T, B, N)`` int32, and whether they came as a batch."""
    names = [each.name for each in network.inputs]
    if isinstance(spikes, Tensor | np.ndarray):
        if len(names) > 1:
            raise ValueError(f"spikes: expected a dict of tensors for the inputs {', '.join(names)}, got one tensor")
        spikes = {names[0]: torch.as_tensor(spikes)}
    given: Any = spikes
    if not isinstance(given, Mapping):
        hint = "; rasterize of eventnet.hardware.quantize makes a raster of Events" if isinstance(given, Events) else ""
        raise TypeError(f"spikes: expected a tensor (T, B, N) of integers, got {type(given).__name__}{hint}")
    spikes = {name: torch.as_tensor(raster) for name, raster in given.items()}
    if sorted(spikes) != sorted(names):
        raise ValueError(f"spikes: expected those of {', '.join(names)}, got those of {', '.join(spikes)}")
    found: dict[str, Tensor] = {}
    for name in names:
        raster = spikes[name]
        if raster.is_floating_point() or raster.is_complex():
            raise TypeError(f"spikes of {name}: expected bool or integers, got {raster.dtype}")
        size = network[name].size
        if raster.dim() not in (2, 3) or raster.shape[-1] != size:
            raise ValueError(f"spikes of {name}: expected (T, B, {size}) or (T, {size}), got {tuple(raster.shape)}")
        if raster.dtype == torch.int64 and raster.numel() and int(raster.abs().max()) >= 2**31:
            raise ValueError(f"spikes of {name}: expected numbers of 32 bits, got up to {int(raster.abs().max()):,}")
        found[name] = (raster if raster.dim() == 3 else raster[:, None]).to(torch.int32)
    if len({(*each.shape[:2], each.device) for each in found.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in found.items())
        raise ValueError(f"spikes: expected as many steps and samples of each, on one device, got {shapes}")
    return found, spikes[names[0]].dim() == 3
