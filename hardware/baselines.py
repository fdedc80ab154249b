"""Against what a network is to be compared, and at which event rate it stops paying.

A network of events has dense twins with the same connections: one that runs in every step, and, where a sample has one answer,
one that runs once with
activations of ceil(log2(T + 1)) bits, since T binary steps carry no more than that many bits of a rate (Yan et al. 2024).
With r the event rate (synaptic operations of all possible ones: events per connection and step), energy is a line,

    E(r) = a r + b,      b = state updates + idle,      advantage(r) = B / E(r),      break-even at r = (B - b) / a,

B the baseline's energy, with its idle part. On one device the same coefficients are in both, so bounds are those over its
coefficients jointly (both are linear, so a ratio is extreme where every coefficient is at a bound), not of two separate ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from eventnet.counting import Counts
from eventnet.hardware.energy import (
    CAVEAT,
    Estimate,
    Interval,
    bounds_of,
    checked,
    estimate,
    hull,
    latency_of,
    quotient,
    ratio,
    steps_of,
)
from eventnet.hardware.energy_profiles import CAUSES, EnergyProfile, energy_profile

__all__ = ["THRESHOLDS", "Baseline", "BreakEven", "Sparsity", "Threshold", "break_even", "dense_twin", "sparsity"]

# ---- dense twins -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """A dense network with the same connections: its operations for each sample, by layer and cause.

    Args:
        bits: width of its activations; its weights have 8 bits.
        steps: for each sample; of the one that runs once, those that its time is told in.
        assumptions: sentences that a report lists.
    """

    name: str
    operations: Mapping[str, Mapping[str, float]]
    bits: int
    steps: float
    assumptions: tuple[str, ...]

    def estimate(
        self, profile: EnergyProfile | str, *, dt: float | None = None, latency: float | None = None
    ) -> Estimate:
        """What it costs on a device, as ``eventnet.hardware.energy.estimate``; a multiply-accumulate costs bits / ``mac_bits``.

        Raises:
            ValueError: the device cannot multiply, or as ``estimate``.
        """
        device = energy_profile(profile) if isinstance(profile, str) else profile
        seconds, how = latency_of(device, self.steps, dt, latency)
        width = self.bits / device.mac_bits if device.mac_bits else 1.0
        operations = {
            layer: {cause: n * (width if cause == "multiply_accumulates" else 1.0) for cause, n in causes.items()}
            for layer, causes in self.operations.items()
        }
        said = [*self.assumptions, how]
        if width != 1:
            said.append(f"A multiply-accumulate with {self.bits} bits costs {width:g} of one with {device.mac_bits}.")
        return checked(Estimate(self.name, device, operations, seconds, self.steps, tuple(said), dense=True))


def dense_twin(
    counts: Mapping[str, Counts],
    *,
    zero_share: float | Mapping[str, float] = 0.5,
    zero_share_once: float | Mapping[str, float] = 0.5,
    zero_outputs: float | Mapping[str, float] | None = None,
    zero_outputs_once: float | Mapping[str, float] | None = None,
    weight_reuse: float = 1.0,
    gated: bool = False,
    answers: float = 1.0,
    steps: float | None = None,
) -> tuple[Baseline, ...]:
    """Dense int8 networks with a network's connections: run in every step and once, each without and with zero skipping.

    A layer writes its outputs, and those behind it read them, as activations of 8 bits: a ``buffer_writes`` each. Layers that are
    fed forward have no state.

    Args:
        zero_share: share of a layer's inputs that are zero in a step of the twin, by layer, or one for all.
        zero_share_once: the same in the twin that runs once, where only what is silent for a whole sample is zero.
        zero_outputs, zero_outputs_once: the same of its outputs; by default those of the next layer's inputs, none of the last's.
        weight_reuse: multiplications for each weight that is fetched; 1 in a full matrix at batch size 1, more in convolutions.
        gated: a state of 8 bits is kept for each neuron (GRU).
        answers: that are given for each sample; with more than one, no network that runs once gives them, and none is made.
        steps: of the twin that runs in every step, for each sample; by default the network's.

    Raises:
        ValueError: a share outside 0 ... 1, a reuse below 1, a layer without a share, no samples.

    Example:
        >>> layers = {"hidden": Counts(samples=2, steps=10, neurons=3, synapses=12, dense=120, state_updates=30)}
        >>> [(twin.name, twin.operations["hidden"]["multiply_accumulates"], twin.bits) for twin in dense_twin(layers)]
        [('int8, every step', 60.0, 8), ('int8, every step, zeros skipped', 30.0, 8), \
('3 bits, one pass', 12.0, 3), ('3 bits, one pass, zeros skipped', 6.0, 3)]
    """
    if not 1 <= weight_reuse < math.inf:
        raise ValueError(f"weight_reuse: expected at least 1, got {weight_reuse!r}")
    own = steps_of(counts)
    steps = own if steps is None else steps
    if not 0 <= steps < math.inf:
        raise ValueError(f"steps: expected a number >= 0, got {steps!r}")
    zeros = _by_layer(zero_share, counts, "zero_share")
    zeros_once = _by_layer(zero_share_once, counts, "zero_share_once")
    outputs = _outputs(zero_outputs, zeros, counts, "zero_outputs")
    outputs_once = _outputs(zero_outputs_once, zeros_once, counts, "zero_outputs_once")
    bits = max(1, math.ceil(math.log2(own + 1)))
    said = (
        "The dense network has the same connections and 8-bit weights, all of them present; it was not trained, so that it "
        "reaches the same accuracy is not known.",
        f"A weight is fetched for every {weight_reuse:g} multiplications; batch size 1; it works as long as the network does.",
        "Its sums stay in registers; an activation is a byte, written once and read once; "
        + ("it keeps a state of 8 bits for each gated unit." if gated else "it has no state."),
    )
    every = f"It computes {steps:g} steps for each sample."
    once = (
        f"It computes the sample once: {bits} bits of activation carry as much as the number of spikes in {own:g} steps (Yan "
        "et al. 2024), and nothing of their times: no equal where the answer is in the timing."
    )
    skip = "A zero costs neither multiplication nor fetch nor writing, and finding it costs nothing; share of zero inputs: "
    kinds = [("int8, every step", 8, steps, zeros, outputs, every)]
    if answers <= 1:
        kinds.append((f"{bits} bits, one pass", bits, 1.0, zeros_once, outputs_once, once))
    twins = []
    for name, width, times, shares, sent, how in kinds:
        for skipped in (False, True):
            operations = {
                layer: _dense_operations(
                    each,
                    times,
                    shares[layer] if skipped else 0.0,
                    sent[layer] if skipped else 0.0,
                    weight_reuse,
                    gated,
                )
                for layer, each in counts.items()
            }
            told = skip + ", ".join(f"{layer} {shares[layer]:.3g}" for layer, x in counts.items() if x.dense) + "."
            label, more = (f"{name}, zeros skipped", (told,)) if skipped else (name, ())
            twins.append(Baseline(label, operations, width, steps, (*said, how, *more)))
    return tuple(twins)


def _outputs(
    value: float | Mapping[str, float] | None, inputs: Mapping[str, float], counts: Mapping[str, Counts], name: str
) -> dict[str, float]:
    """The share of zeros among each layer's outputs."""
    if value is None:
        value = dict(zip(counts, [*list(inputs.values())[1:], 0.0], strict=True))
    return _by_layer(value, counts, name)


def _dense_operations(
    counts: Counts, times: float, zeros: float, zero_outputs: float, reuse: float, gated: bool
) -> dict[str, float]:
    """The twin of one layer, for each sample, if it computes its connections so many times."""
    share = times / counts.steps if counts.steps else 0.0
    multiplications = counts.dense * share * (1 - zeros)
    return {
        **dict.fromkeys(CAUSES, 0.0),
        "multiply_accumulates": multiplications,
        "weight_reads": multiplications / reuse,
        "state_updates": counts.state_updates * share if gated else 0.0,
        "buffer_writes": counts.neurons * times * (1 - zero_outputs) if counts.steps else 0.0,
    }


# ---- break-even ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """An event rate below which publications found that events pay; ``unit``: per neuron and step, or per synapse and inference.

    Example:
        >>> THRESHOLDS[0].high, THRESHOLDS[0].unit
        (0.057, 'spikes per neuron and step')
    """

    low: float
    high: float
    unit: str
    when: str
    source: str


YAN = "Yan et al., Reconsidering the energy efficiency of spiking neural networks, arXiv 2409.08290"
PER_STEP, PER_INFERENCE = "spikes per neuron and step", "spikes per synapse and inference"

THRESHOLDS = (
    Threshold(
        0.057, 0.057, PER_STEP, "T = 5, typical neuromorphic hardware, quantised twin", f"{YAN}, version 4 (2026)"
    ),
    Threshold(
        0.064, 0.064, PER_STEP, "T = 5 to 10, typical neuromorphic hardware, quantised twin", f"{YAN}, version 2 (2025)"
    ),
    Threshold(
        0.15,
        1.38,
        PER_INFERENCE,
        "integrate-and-fire neurons; which of the two depends on how the dense network is implemented",
        "Dampfhoffer et al., Are SNNs really more energy-efficient than ANNs?, IEEE TETCI 7(3), 2023",
    ),
)


@dataclass(frozen=True)
class BreakEven:
    """How energy and advantage depend on the event rate, and where the advantage is 1.

    Args:
        rates: events per connection and step, at which ``energy`` (joules per sample) and ``advantage`` were computed.
        own_rate: the network's own, ``advantage_now`` what it has there; ``steps`` for each sample.
        break_even: the rate below which the network costs less than the baseline; None: never, for any value of the coefficients.
        with_idle: whether idle power is in both energies.
    """

    rates: tuple[float, ...]
    energy: tuple[Interval, ...]
    advantage: tuple[Interval, ...]
    own_rate: float
    advantage_now: Interval
    break_even: Interval | None
    steps: float
    with_idle: bool
    baseline: str
    assumptions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In words whether the network pays at its own rate."""
        if self.break_even is None:
            return "never pays: without any event it costs as much already"
        if self.break_even.low >= 1:
            return "always pays, up to an event on every connection in every step"
        if self.own_rate < self.break_even.low:
            return "pays at its own rate"
        return (
            "does not pay at its own rate"
            if self.own_rate > self.break_even.high
            else "may or may not pay at its own rate"
        )

    def beside_literature(self) -> tuple[tuple[Threshold, float, str], ...]:
        """Published thresholds, the network's own rate in the same unit, and whether it is below, between or above."""
        own = {PER_STEP: self.own_rate, PER_INFERENCE: self.own_rate * self.steps}
        return tuple((each, own[each.unit], _place(own[each.unit], each)) for each in THRESHOLDS)

    def __str__(self) -> str:
        at = "no rate" if self.break_even is None else _words(self.break_even)
        return (
            f"against {self.baseline}: advantage {_words(self.advantage_now)} at its own rate of {self.own_rate:.2g} events per "
            f"connection and step, 1 at {at}; {self.verdict} ({CAVEAT})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file; bounds are ``[low, high]``, an infinite one None."""
        return {
            "baseline": self.baseline,
            "verdict": self.verdict,
            "with_idle": self.with_idle,
            "own_rate_events_per_connection_and_step": self.own_rate,
            "own_rate_events_per_connection_and_sample": self.own_rate * self.steps,
            "advantage_at_own_rate": _plain(self.advantage_now),
            "break_even_events_per_connection_and_step": None if self.break_even is None else _plain(self.break_even),
            "rates_events_per_connection_and_step": list(self.rates),
            "energy_joules_per_sample": [each.to_list() for each in self.energy],
            "advantage": [_plain(each) for each in self.advantage],
            "thresholds": [
                {**asdict(threshold), "own": own, "own_is": place} for threshold, own, place in self.beside_literature()
            ],
            "assumptions": list(self.assumptions),
        }


RATES = tuple(10.0 ** (k / 10 - 4) for k in range(41))  # from 1e-4 to 1


def break_even(
    counts: Mapping[str, Counts],
    profile: EnergyProfile | str,
    baseline: Estimate,
    *,
    dt: float | None = None,
    latency: float | None = None,
    rates: Sequence[float] = RATES,
    idle: bool = True,
) -> BreakEven:
    """At which event rate a network on a device costs what a baseline costs.

    Synaptic operations, weight reads, spikes and buffer writes are taken to grow with the rate, all layers and events from
    outside alike; state updates and idle power do not depend on it. Idle power counts if it is known for both devices.

    Raises:
        ValueError: no synaptic operation was counted, so that what an event costs is not known; or as ``estimate``.

    Example:
        >>> layers = {"a": Counts(samples=1, steps=10, neurons=9, dense=9000, accumulates=90, weight_reads=90, state_updates=90)}
        >>> found = break_even(layers, "asic45", dense_twin(layers)[0].estimate("asic45", dt=1e-3), dt=1e-3)
        >>> found.own_rate, found.verdict
        (0.01, 'pays at its own rate')
    """
    network = estimate(counts, profile, dt=dt, latency=latency)
    own = rate_of(counts)
    if own == 0:
        raise ValueError("no synaptic operation was counted: what an event costs, and so the break-even, is not known")
    fixed = _fixed(network.profile)
    with_idle = idle and network.idle is not None and baseline.idle is not None
    work, other = network.totals, baseline.totals
    lines = []  # of each combination of bounds: slope, energy without events, the baseline's energy
    for prices, others in bounds_of(network, baseline, idle=with_idle):
        slope = sum(prices[cause] * n for cause, n in work.items() if cause not in fixed) / own
        rest = sum(prices[cause] * n for cause, n in work.items() if cause in fixed) + prices["idle"]
        lines.append((slope, rest, sum(others[cause] * n for cause, n in other.items()) + others["idle"]))

    def at(rate: float) -> tuple[Interval, Interval]:
        energies = [slope * rate + rest for slope, rest, _ in lines]
        gains = [quotient(line[2], energy) for line, energy in zip(lines, energies, strict=True)]
        return hull(energies), hull(gains)

    curve = [at(rate) for rate in rates]
    crossings = [quotient(max(against - rest, 0.0), slope) for slope, rest, against in lines]
    said = [*network.assumptions, *baseline.assumptions]
    said.append(
        "Synaptic operations, weight reads, spikes (those from outside too) and buffer writes grow with the event rate, in all "
        "layers alike."
    )
    neither = "Idle power is in neither" + (": it is not known for both." if idle else ".")
    said.append("Idle power is in both." if with_idle else neither)
    if network.profile != baseline.profile:
        said.append("The devices differ: this compares them as much as the networks.")
    return BreakEven(
        rates=tuple(rates),
        energy=tuple(energy for energy, _ in curve),
        advantage=tuple(gain for _, gain in curve),
        own_rate=own,
        advantage_now=at(own)[1],
        break_even=hull(crossings) if any(crossings) else None,
        steps=network.steps,
        with_idle=with_idle,
        baseline=f"{baseline.name} on {baseline.profile.name}",
        assumptions=tuple(dict.fromkeys(said)),
    )


def rate_of(counts: Mapping[str, Counts]) -> float:
    """Events per connection and step: synaptic operations of those that there would be if every input came in every step."""
    dense = sum(each.dense for each in counts.values())
    return sum(each.synaptic_operations for each in counts.values()) / dense if dense else 0.0


# ---- two kinds of sparsity -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sparsity:
    """One row: synaptic operations and dynamic energy (joules) per sample, and the energy as a share of the dense row's."""

    name: str
    operations: float
    energy: Interval
    share: Interval


def sparsity(
    counts: Mapping[str, Counts], profile: EnergyProfile | str, *, weight_density: float | Mapping[str, float]
) -> tuple[Sparsity, ...]:
    """What sparse weights and sparse activity save, alone and together: dense, weights, activity, both (as counted).

    A layer's rate is weight density x activity, so the two factors multiply in synaptic operations; not in energy, since
    state updates stay, and spikes depend on activity only.

    Args:
        weight_density: share of a layer's weights that are not zero, by layer, or one for all, in 0 < share <= 1.

    Example:
        >>> layers = {"a": Counts(samples=1, steps=10, neurons=5, dense=1000, accumulates=50, state_updates=50, spikes=10)}
        >>> [(row.name, row.operations) for row in sparsity(layers, "loihi1", weight_density=0.5)]
        [('dense', 1000.0), ('sparse weights', 500.0), ('sparse activity', 100.0), ('both', 50.0)]
    """
    densities = _by_layer(weight_density, counts, "weight_density")
    for layer, each in counts.items():
        if each.dense and not (densities[layer] and each.synaptic_operations):
            raise ValueError(f"layer {layer!r}: expected weights and synaptic operations that are not zero")
    found = estimate(counts, profile, latency=1.0)  # the dynamic part depends on no time
    grown = [
        _grown(counts, found, densities, weights, activity) for activity in (False, True) for weights in (False, True)
    ]
    names = ("dense", "sparse weights", "sparse activity", "both")
    return tuple(
        Sparsity(name, operations, each.dynamic, ratio(each, grown[0][1], idle=False))
        for name, (operations, each) in zip(names, grown, strict=True)
    )


def _grown(
    counts: Mapping[str, Counts], found: Estimate, densities: Mapping[str, float], weights: bool, activity: bool
) -> tuple[float, Estimate]:
    """Synaptic operations for each sample and the estimate, if weights or activity were dense."""
    total, operations = 0.0, {}
    for layer, causes in found.operations.items():
        each = counts[layer]
        own = each.synaptic_operations / each.dense / densities[layer] if each.dense else 1.0
        events = 1.0 if activity else 1 / own
        factor = events if weights or not each.dense else events / densities[layer]
        total += each.synaptic_operations / each.samples * factor
        growth = {cause: 1.0 if cause in _fixed(found.profile) else factor for cause in CAUSES} | {"spikes": events}
        operations[layer] = {cause: n * growth[cause] for cause, n in causes.items()}
    return total, replace(found, operations=operations)


def _fixed(profile: EnergyProfile) -> tuple[str, ...]:
    """The causes that no event adds to."""
    return ("state_updates",) if profile.event_driven else ("state_updates", "multiply_accumulates", "weight_reads")


def _by_layer(value: float | Mapping[str, float], counts: Mapping[str, Counts], name: str) -> dict[str, float]:
    """One share for each layer, in 0 ... 1."""
    shares = dict(value) if isinstance(value, Mapping) else dict.fromkeys(counts, float(value))
    if shares.keys() != counts.keys():
        raise ValueError(f"{name}: expected a share for each of {', '.join(counts)}, got {', '.join(shares) or 'none'}")
    for layer, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected shares from 0 to 1, got {share!r} for {layer!r}")
    return shares


def _place(own: float, threshold: Threshold) -> str:
    return "below" if own < threshold.low else "above" if own > threshold.high else "between"


def _words(interval: Interval) -> str:
    low, high = (f"{float(f'{each:.2g}'):g}" for each in interval.to_list())
    return low if low == high else f"{low} to {high}"


def _plain(interval: Interval) -> list[float | None]:
    return [each if math.isfinite(each) else None for each in interval.to_list()]
