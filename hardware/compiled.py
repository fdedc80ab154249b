"""The compiled twin of a simulation: graphs of LIF neurons with dense and sparse synapses, on the CPU; ``kernels/cpu/chip.h``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eventnet.hardware.lif import LIFNeurons, LIFStepper
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs
from eventnet.hardware.synapses import Synapses
from eventnet.kernels import cpu

__all__ = ["refusal", "run"]


def refusal(network: HardwareNetwork, device: torch.device) -> str | None:
    """Why the compiled kernel does not serve a network, or None if it does."""
    if device.type != "cpu":
        return f"it runs on the CPU, the spikes are on {device}"
    for each in network.neurons:
        if not isinstance(each, LIFNeurons):
            return f"{each.name}: it has LIF neurons, not {each.kind}"
    for projection in network.projections:
        if isinstance(projection, Convolution):
            return f"{projection.name}: it has dense and sparse synapses, no convolutions"
    return None if cpu.load() is not None else cpu.describe()


def run(
    network: HardwareNetwork,
    state: Any,
    sent: dict[str, Tensor],
    u: dict[str, Tensor],
    v: dict[str, Tensor],
    steps: int,
) -> None:
    """Move a ``State`` on by so many steps, and write the spikes, u and v of each; all are written in place."""
    batch = next(iter(sent.values())).shape[1]
    populations = [
        (each.size, sent[each.name].contiguous().numpy())
        if isinstance(each, Inputs)
        else _neurons(each, state, sent[each.name], u.get(each.name), v.get(each.name))
        for each in network.populations
    ]
    places = {each.name: k for k, each in enumerate(network.populations)}
    projections = [_synapses(each, network, places) for each in network.projections]
    module: Any = cpu.load()
    found = module.run_chip(populations, projections, batch, state.step, steps, torch.get_num_threads())
    for each, overflows in zip(network.populations, found, strict=True):
        if each.name in state.overflows:
            state.overflows[each.name] += overflows
    state.step += steps


def _neurons(each: Any, state: Any, sent: Tensor, u: Tensor | None, v: Tensor | None) -> tuple[Any, ...]:
    stepper: LIFStepper = each.stepper(torch.device("cpu"))
    own, pending = state.neurons[each.name], state.pending[each.name, ""]
    parameters = (stepper.keep_u, stepper.keep_v, stepper.bias, stepper.threshold)
    return (
        each.size,
        sent.numpy(),
        *(x.to(torch.int32).contiguous().numpy() for x in parameters),
        None if stepper.refractory is None else stepper.refractory.numpy(),
        stepper.interval or 0,
        stepper.offset,
        own["u"].numpy(),
        own["v"].numpy(),
        own["waiting"].numpy() if "waiting" in own else None,
        pending.numpy(),
        len(pending),
        None if u is None else u.numpy(),
        None if v is None else v.numpy(),
    )


def _synapses(each: Any, network: HardwareNetwork, places: dict[str, int]) -> tuple[Any, ...]:
    ready: Any = Synapses(each, network, torch.device("cpu"))
    first = columns = None
    if not isinstance(each, Dense):
        first = torch.cat([ready.first, ready.first[-1:] + ready.count[-1:]]).numpy()
        columns = ready.columns.to(torch.int32).numpy()
    return (
        places[each.source],
        places[each.target],
        ready.weight.to(torch.int16).contiguous().numpy(),  # 9 bits, shifted up by at most 7
        None if ready.delay is None else ready.delay.to(torch.uint8).contiguous().numpy(),
        first,
        columns,
        max(0, -ready.shift),
        ready.num_delays,
        ready.graded,
    )
