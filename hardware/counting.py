"""How many operations a chip performs: counts of the fixed-point network, population by population.

What runs is counted: each sample for the steps that it lasts, one more (in which the events of the last half step and the end of
the sample are read) and the lag of the outputs; what it would do while a longer sample of its batch goes on is left out. A spike
costs an operation at each of its source's synapses whose weight is not zero (as the synapse holds it, ``Projection.effective``),
in the step in which it is sent: an accumulate, or a multiply-accumulate if the message has a value (``message_bits``). What a
synapse delays is written into a buffer. A weight is read for each operation. Every neuron moves on in every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from eventnet import Events
from eventnet.counts import Counts
from eventnet.hardware.network import Convolution, HardwareNetwork, Inputs, Projection, Sparse

if TYPE_CHECKING:
    from eventnet.hardware.deployment import Decision, Deployment

__all__ = ["count_deployed", "counts_of", "fan_out", "operations_of"]


def count_deployed(deployment: Deployment, events: Events) -> dict[str, Counts]:
    """Simulate the chip on events and count what each population does, the projections onto it included.

    ``inputs`` are spikes of other populations. ``Inputs`` have spikes, but no state and no synapses. Memory is bounded: a few
    samples and steps are simulated at a time (``Deployment.run``).

    Example:
        >>> from eventnet.hardware import compile
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> found = count_deployed(compile(nn.Sequential(LIF(4, 3), LI(3, 2)), calibration=events), events)
        >>> found["input"].spikes, found["hidden_0"].accumulates, found["hidden_0"].state_updates
        (2, 6, 303)
    """
    return counts_of(deployment.network, deployment.run(events))


def counts_of(network: HardwareNetwork, decision: Decision) -> dict[str, Counts]:
    """The counts of a run that is over, by population."""
    return {each.name: _population(network, each.name, decision) for each in network.populations}


def operations_of(network: HardwareNetwork, decision: Decision) -> Iterator[tuple[Projection, int]]:
    """The synaptic operations of each projection."""
    for each in network.projections:
        yield each, _sum(decision.by_neuron[each.source], fan_out(each, network[each.source].size))


def fan_out(projection: Projection, size: int) -> Tensor:
    """Synapses of each of ``size`` source neurons whose weight is not zero, ``(source,)``.

    Example:
        >>> from eventnet.hardware.network import Dense
        >>> fan_out(Dense("input", "hidden", [[100, -3], [7, 0]]), 2)
        tensor([2., 1.], dtype=torch.float64)
    """
    return _per_source(projection, size, projection.effective() != 0)


def _population(network: HardwareNetwork, name: str, decision: Decision) -> Counts:
    """The counts of one population."""
    spikes, size, steps = decision.by_neuron, network[name].size, int(decision.steps.sum())
    work = dict.fromkeys(("synapses", "dense", "accumulates", "multiply_accumulates", "buffer_writes"), 0)
    for each, operations in operations_of(network, decision):
        if each.target == name:
            there, sources = each.effective() != 0, network[each.source].size
            work["synapses"] += int(there.sum())
            work["dense"] += steps * int(_per_source(each, sources, torch.ones_like(there)).sum())
            work["multiply_accumulates" if each.message_bits else "accumulates"] += operations
            if each.max_delay:
                delayed = there & (getattr(each, "delay") > 0)  # noqa: B009
                work["buffer_writes"] += _sum(spikes[each.source], _per_source(each, sources, delayed))
    outside = {each.source for each in network.onto(name)} - {name}
    return Counts(
        samples=len(decision.steps),
        steps=steps,
        neurons=size,
        inputs=sum(int(spikes[source].sum()) for source in outside),
        spikes=int(spikes[name].sum()),
        state_updates=0 if isinstance(network[name], Inputs) else size * steps,
        weight_reads=work["accumulates"] + work["multiply_accumulates"],
        spikes_per_step=decision.by_step[name].cpu(),
        **work,
    )


def _per_source(projection: Projection, size: int, there: Tensor) -> Tensor:
    """How many synapses each source neuron has, ``(size,)``, of those that are ``there``, in the shape of the weights."""
    if isinstance(projection, Sparse):
        return torch.bincount(projection.rows.long(), there.double(), minlength=size)
    if isinstance(projection, Convolution):  # what a pixel changes, if each synapse counts as 1
        image = torch.zeros(1, *projection.shape, dtype=torch.float64, requires_grad=True)
        geometry = projection.stride, projection.padding, projection.dilation, projection.groups
        with torch.enable_grad():
            reached = functional.conv2d(image, there.double(), None, *geometry).sum()
            (found,) = torch.autograd.grad(reached, image)
        return found.flatten()
    return there.sum(1).double()


def _sum(spikes: Tensor, each: Tensor) -> int:
    """The sum of what spikes cost; whole numbers below 2^53 are exact."""
    return int((spikes.double() * each.to(spikes.device)).sum())
