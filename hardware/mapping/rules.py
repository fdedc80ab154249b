"""What a chip asks of neurons and synapses, wherever on it they lie: one function for each limit of a profile.

A rule takes a network and a profile and yields what is violated. A limit that the profile lacks, or does not know, allows all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.mapping.placement import Synapses
from eventnet.hardware.mapping.profiles import LIMITS, Profile
from eventnet.hardware.network import Dense, HardwareNetwork, Population, Projection, Sparse

__all__ = ["RULES", "Violation", "bits_needed", "violation"]

REMEDIES = {
    "cores": "prune or quantise the weights, drop the delays, or use fewer neurons or a larger system",
    "inputs": "merge or drop input units",
    "hidden": "use fewer hidden neurons",
    "outputs": "use fewer outputs, or read out groups of them",
    "neurons_per_core": "use fewer neurons",
    "input_axons_per_core": "prune the sources of this neuron, or split it",
    "output_axons_per_core": "prune what this population projects to, or order its targets by their sources",
    "synapse_bits_per_core": "prune or quantise the weights of this neuron, or drop its delays",
    "delay_slots_per_core": "shorten the delays onto this neuron",
    "kernel_entries": "use fewer channels or smaller kernels",
    "neuron_entries": "use fewer channels, larger strides or pooling",
    "fan_in": "prune to the {allowed} largest weights, or split the neuron",
    "output_fan_in": "prune to the {allowed} largest weights, or split the neuron",
    "weight_bits": "quantise the weights to {allowed} bits",
    "max_delay": "train with delays up to {allowed}, or take longer steps",
    "time_constants_per_core": "cluster_time_constants(network, {allowed})",
    "thresholds_per_core": "cluster_time_constants(network, None, thresholds={allowed})",
    "neuron_kinds": "replace the neurons by ones that it has",
    "resets": "use a chip that resets to zero, or train anew with the chip's own reset",
    "recurrent": "drop the recurrent weights, or use a chip with recurrence",
    "recurrent_outputs": "drop the recurrent weights, or add a layer of outputs without them",
    "graded_bits": "send spikes without values (message_bits={allowed})",
}


@dataclass(frozen=True)
class Violation:
    """One limit that does not hold, in one layer.

    Args:
        layer: the name of a population or projection.
        neuron: the worst, or the first that has no place; None if it is not about one.
        limit: its name in the profile.
        found, allowed: what the network has and the chip.
        remedy: what to do.
        count: how many neurons (weights, cores) of the layer there are like this one.

    Example:
        >>> print(Violation("hidden", 17, "fan_in", 80, 63, "prune to the 63 largest weights, or split the neuron"))
        hidden, neuron 17: fan-in 80 of 63; prune to the 63 largest weights, or split the neuron
    """

    layer: str
    neuron: int | None
    limit: str
    found: Any
    allowed: Any
    remedy: str
    count: int = 1

    def __str__(self) -> str:
        where = self.layer if self.neuron is None else f"{self.layer}, neuron {self.neuron}"
        if isinstance(self.found, int) and not isinstance(self.found, bool):
            numbers = f"{LIMITS[self.limit]} {self.found:,} of {self.allowed:,}"
        else:
            numbers = f"{LIMITS[self.limit]} {self.found}, not {self.allowed}"
        return f"{where}: {numbers}{f' ({self.count:,} such)' if self.count > 1 else ''}; {self.remedy}"


def violation(
    limit: str, layer: str, neuron: int | None, found: Any, allowed: Any, count: int = 1, remedy: str = ""
) -> Violation:
    """A violation with the remedy of its limit, unless there is a better one."""
    return Violation(layer, neuron, limit, found, allowed, remedy or REMEDIES[limit].format(allowed=allowed), count)


def _outputs(network: HardwareNetwork) -> list[Population]:
    """The populations that project to no other."""
    sending = {each.source for each in network.projections if each.target != each.source}
    return [each for each in network.neurons if each.name not in sending]


def _sizes(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    last = _outputs(network)
    hidden = [each for each in network.neurons if each not in last]
    groups: tuple[tuple[str, Sequence[Population]], ...] = (
        ("inputs", network.inputs),
        ("hidden", hidden),
        ("outputs", last),
    )
    for name, group in groups:
        found, allowed = sum(each.size for each in group), chip.value(name)
        if allowed is not None and found > allowed:
            yield violation(name, " + ".join(each.name for each in group), None, found, allowed)


def _fan_in(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    if chip.value("fan_in") is None:
        return
    last = {each.name for each in _outputs(network)}
    for each in network.neurons:
        limit = "output_fan_in" if each.name in last and chip.value("output_fan_in") is not None else "fan_in"
        allowed = chip.value(limit)
        found = np.zeros(each.size, np.int64)
        for projection in network.onto(each.name):
            found += Synapses(projection, network[projection.source].size, each.size).fan_in()
        if found.max() > allowed:
            worst = int(found.argmax())
            yield violation(limit, each.name, worst, int(found[worst]), allowed, int((found > allowed).sum()))


def _weights(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    allowed = chip.value("weight_bits")
    for each in network.projections if allowed is not None else ():
        needed = bits_needed(each.effective(), chip.value("weight_format"))
        if needed.numel() and int(needed.max()) > allowed:
            worst = int(needed.argmax())
            count = int((needed > allowed).sum())
            yield violation("weight_bits", each.name, _target(each, worst), int(needed.max()), allowed, count)


def bits_needed(weight: Tensor, weight_format: str) -> Tensor:
    """Bits of each weight, once the largest power of two that divides all is taken out (``weight_exp`` holds it).

    ``sign mode``: one bit for the sign where the projection has both; ``signed``: two's complement; ``magnitude``: none for
    the sign.

    Example:
        >>> bits_needed(torch.tensor([8, -32, 0]), "signed").tolist()
        [2, 3, 1]
    """
    values = weight.to(torch.int64)
    while values.any() and not (values & 1).any():
        values = values >> 1
    signed = weight_format == "signed" or (
        weight_format == "sign mode" and bool((values < 0).any() and (values > 0).any())
    )
    magnitude = torch.where(values < 0, -values - 1, values) if signed else values.abs()
    bits = torch.frexp(magnitude.to(torch.float64)).exponent
    return bits + 1 if signed else bits


def _delays(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    allowed = chip.value("max_delay")
    for each in network.projections if allowed is not None else ():
        if each.max_delay > allowed:
            delay = each.delay  # type: ignore[attr-defined]  # there is one, as the longest is not 0
            count = int((delay > allowed).sum())
            yield violation("max_delay", each.name, _target(each, int(delay.argmax())), each.max_delay, allowed, count)


def _target(projection: Projection, index: int) -> int | None:
    """The target neuron of a synapse by its place in ``weight``; None for kernels, which have many."""
    if isinstance(projection, Dense):
        return index % projection.weight.shape[1]
    return int(projection.columns[index]) if isinstance(projection, Sparse) else None


def _neurons(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    kinds, resets = chip.value("neuron_kinds"), chip.value("resets")
    for each in network.neurons:
        if kinds is not None and each.kind not in kinds:
            yield violation("neuron_kinds", each.name, None, each.kind, " or ".join(kinds))
        elif isinstance(each, LIFNeurons):
            if resets is not None and "zero" not in resets:
                yield violation("resets", each.name, None, "to zero", " or ".join(resets))
            yield from _decays(each, chip.value("decay"))


def _decays(neurons: LIFNeurons, decay: str | None) -> Iterator[Violation]:
    du, dv = neurons.du.to(torch.int64), neurons.dv.to(torch.int64)
    if decay == "none":
        bad = (du != 4095) | (dv != 0)
        allowed, remedy = "du 4095, dv 0", "train neurons without a leak and without a synaptic current"
    elif decay == "bit shift":
        bad = ~(_is_power(du + 1) & _is_power(dv))
        allowed = "du + 1 and dv 4096 / 2^k"
        remedy = "round tau_mem and tau_syn so that a step loses a half, a quarter, an eighth ..."
    else:
        return
    if bad.any():
        k = int(bad.to(torch.uint8).argmax())
        found = f"du {int(du[k])}, dv {int(dv[k])}"
        yield violation("decay", neurons.name, k, found, allowed, int(bad.sum()), remedy)


def _is_power(number: Tensor) -> Tensor:
    return (number > 0) & (number & (number - 1) == 0)


def _recurrence(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    targets: dict[str, set[str]] = {each.name: set() for each in network.populations}
    for each in network.projections:
        targets[each.source].add(each.target)
    last = {each.name for each in _outputs(network)}
    for each in network.projections:
        if each.source in _reached(each.target, targets):
            if chip.value("recurrent") is False:
                yield violation("recurrent", each.name, None, "yes", "no")
            elif chip.value("recurrent_outputs") is False and each.source in last:
                yield violation("recurrent_outputs", each.name, None, "yes", "no")


def _reached(start: str, targets: dict[str, set[str]]) -> set[str]:
    """The populations that spikes of ``start`` get to, itself among them."""
    found, ahead = {start}, [start]
    while ahead:
        new = targets[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def _graded(network: HardwareNetwork, chip: Profile) -> Iterator[Violation]:
    allowed = chip.value("graded_bits")
    for each in network.projections if allowed is not None else ():
        if each.message_bits > allowed:
            yield violation("graded_bits", each.name, None, each.message_bits, allowed)


RULES: tuple[Callable[[HardwareNetwork, Profile], Iterator[Violation]], ...] = (
    _sizes,
    _fan_in,
    _weights,
    _delays,
    _neurons,
    _recurrence,
    _graded,
)
