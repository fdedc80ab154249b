"""What a network's operations would cost on a device: counts times coefficients, as ranges. An estimate, not a measurement.

For each sample, with n operations of a cause in a layer and c what one costs,

    dynamic energy = sum over layers and causes of n c,    idle energy = idle power x seconds per sample,

each between its low and its high bound. The two are never added up silently, and nothing here is one bare number.
The result is linear in the coefficients and in the counts. Not in it: what a profile's ``about`` says is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventnet.counting import Counts
from eventnet.hardware.energy_profiles import CAUSES, EnergyProfile, energy_profile

__all__ = ["Estimate", "Interval", "engineering", "estimate", "price", "ratio"]

CAVEAT = "estimate, not measurement"
PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


@dataclass(frozen=True)
class Interval:
    """A quantity between two bounds, neither of them negative.

    Raises:
        ValueError: low > high, or a bound is negative or not a number.

    Example:
        >>> Interval(1.0, 2.0) + Interval(0.5, 0.5), Interval(1.0, 2.0) * 3, Interval(1.0, 2.0) / Interval(1.0, 4.0)
        (Interval(low=1.5, high=2.5), Interval(low=3.0, high=6.0), Interval(low=0.25, high=2.0))
        >>> Interval(1.2e-5, 1.9e-5).text("J")
        '12-19 uJ'
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"expected 0 <= low <= high, got {self.low!r} and {self.high!r}")

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __mul__(self, other: float | Interval) -> Interval:
        factor = other if isinstance(other, Interval) else Interval(other, other)
        return Interval(self.low * factor.low, self.high * factor.high)

    def __truediv__(self, other: Interval) -> Interval:
        """Quotients of independent quantities; x / 0 is infinite."""
        return Interval(quotient(self.low, other.high), quotient(self.high, other.low))

    def text(self, unit: str = "") -> str:
        """Both bounds with an engineering prefix; one number if they are equal at two digits."""
        low, high = engineering(self.low, unit), engineering(self.high, unit)
        if low == high:
            return high
        (first, first_unit), (_, last_unit) = low.split(" "), high.split(" ")
        return f"{first}-{high}" if first_unit == last_unit else f"{low} - {high}" if self.low else f"0-{high}"

    def to_list(self) -> list[float]:
        """``[low, high]``, for a file."""
        return [self.low, self.high]


def engineering(value: float, unit: str) -> str:
    """A number at two digits with the prefix that keeps it between 1 and 1000.

    Example:
        >>> engineering(2.36e-11, "J"), engineering(0.0009996, "W"), engineering(0.0, "J"), engineering(120e-9, "J")
        ('24 pJ', '1 mW', '0 J', '120 nJ')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}"
    rounded = float(f"{value:.1e}")
    exponent = min(max(3 * math.floor(math.log10(rounded) / 3 + 1e-9), min(PREFIXES)), max(PREFIXES))
    return f"{float(f'{rounded / 10.0**exponent:.1e}'):g} {PREFIXES[exponent]}{unit}"


@dataclass(frozen=True)
class Estimate:
    """What a network, or a baseline, costs for each sample on a device. Every energy is an ``Interval`` in joules.

    Args:
        name: of what is estimated.
        operations: for each sample, by layer and cause.
        latency: seconds for each sample, during which idle power flows.
        steps: for each sample.
        assumptions: sentences that a report lists.
        dense: whether it is a dense network of bytes, which pays shares of some coefficients (``EnergyProfile.dense``).

    Example:
        >>> counts = {"hidden": Counts(samples=1, steps=100, neurons=10, accumulates=4000, state_updates=1000, spikes=50)}
        >>> found = estimate(counts, "loihi1", dt=1e-3)
        >>> print(found)
        150-180 nJ per sample + 2.9 mJ idle (estimate, not measurement)
        >>> found.causes["state_updates"].text("J"), found.layers["hidden"]["accumulates"].text("J")
        ('52-81 nJ', '94 nJ')
    """

    name: str
    profile: EnergyProfile
    operations: Mapping[str, Mapping[str, float]]
    latency: Interval
    steps: float
    assumptions: tuple[str, ...] = ()
    dense: bool = False

    @property
    def layers(self) -> dict[str, dict[str, Interval]]:
        """The dynamic energy by layer and cause."""
        return {
            layer: {
                cause: price(self.profile, cause, dense=self.dense) * n if n else Interval(0.0, 0.0)
                for cause, n in causes.items()
            }
            for layer, causes in self.operations.items()
        }

    @property
    def causes(self) -> dict[str, Interval]:
        """The dynamic energy by cause, of all layers."""
        layers = self.layers
        return {cause: _sum(causes[cause] for causes in layers.values()) for cause in CAUSES}

    @property
    def dynamic(self) -> Interval:
        """The dynamic energy of all layers and causes."""
        return _sum(self.causes.values())

    @property
    def idle(self) -> Interval | None:
        """Idle power times latency; None if the device's idle power is not known."""
        power = self.profile.idle_power
        return None if power is None else Interval(power.low, power.high) * self.latency

    @property
    def totals(self) -> dict[str, float]:
        """Operations of all layers for each sample, by cause."""
        return {cause: sum(layer[cause] for layer in self.operations.values()) for cause in CAUSES}

    def __str__(self) -> str:
        idle = "idle power not known" if self.idle is None else f"{self.idle.text('J')} idle"
        return f"{self.dynamic.text('J')} per sample + {idle} ({CAVEAT})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file, units in the keys; bounds are ``[low, high]``."""
        return {
            "note": CAVEAT,
            "name": self.name,
            "profile": self.profile.name,
            "about": self.profile.about,
            "steps_per_sample": self.steps,
            "latency_seconds_per_sample": self.latency.to_list(),
            "dynamic_joules_per_sample": self.dynamic.to_list(),
            "idle_joules_per_sample": None if self.idle is None else self.idle.to_list(),
            "causes_joules_per_sample": {cause: each.to_list() for cause, each in self.causes.items()},
            "layers_joules_per_sample": {
                layer: {cause: each.to_list() for cause, each in causes.items()}
                for layer, causes in self.layers.items()
            },
            "operations_per_sample": {layer: dict(causes) for layer, causes in self.operations.items()},
            "coefficients": {
                f"{name}_{_UNITS[each.unit]}": {
                    "range": [each.low, each.high],
                    "source": each.source,
                    "status": each.status,
                }
                for name, each in self.profile.numbers.items()
            },
            "assumptions": list(self.assumptions),
        }


_UNITS = {"J": "joules", "W": "watts", "s": "seconds"}


def estimate(
    counts: Mapping[str, Counts],
    profile: EnergyProfile | str,
    *,
    dt: float | None = None,
    latency: float | None = None,
    name: str = "network",
) -> Estimate:
    """What a network's counts cost on a device, for each sample.

    On a device that is not event-driven every connection costs a multiply-accumulate in every step, whatever the events were.

    Args:
        counts: by layer, as of ``eventnet.counting.count``.
        profile: a profile or its name.
        dt: seconds of a step. Without ``latency`` the device works in real time: steps x dt for each sample, or what it
            needs at least for as many steps, if that is more.
        latency: seconds for each sample, if it works faster or slower.

    Raises:
        ValueError: neither ``dt`` nor ``latency``, no samples, an unknown profile, or operations that the device cannot do.
    """
    device = energy_profile(profile) if isinstance(profile, str) else profile
    steps = steps_of(counts)
    seconds, how = latency_of(device, steps, dt, latency)
    operations = {layer: operations_of(each, device) for layer, each in counts.items()}
    assumptions = [how, "A spike is charged to the layer that sends it; events from outside are a layer without state."]
    if not device.event_driven:
        assumptions.append(f"{device.name} computes every connection in every step, with or without an event.")
    return checked(Estimate(name, device, operations, seconds, steps, tuple(assumptions)))


def price(profile: EnergyProfile, cause: str, *, dense: bool = False) -> Interval:
    """What one operation of a cause costs, all its parts together, in joules; of a ``dense`` network, the shares that it pays.

    Raises:
        ValueError: the device cannot do it, or nobody knows what it costs.

    Example:
        >>> price(energy_profile("loihi1"), "spikes").text("J")
        '1.7-35 pJ'
    """
    names = profile.names(cause)
    if not names:
        raise ValueError(
            f"{profile.name} has no cost of {cause}: it cannot do them, or none is known; "
            f"profile.changed({cause}=joules) gives it one, and another profile may have it"
        )
    parts = {name: profile.coefficients[name] for name in names}
    return _sum(Interval(x.low, x.high) * _share(profile, name, dense) for name, x in parts.items())


def _share(profile: EnergyProfile, name: str, dense: bool) -> float:
    """How much of a coefficient is paid."""
    return profile.dense.get(name, 1.0) if dense else 1.0


def operations_of(counts: Counts, profile: EnergyProfile) -> dict[str, float]:
    """The operations of one layer that a device is charged for, for each sample, by cause."""
    found = counts.per_sample()
    charged = {cause: float(found[cause]) for cause in CAUSES}
    if not profile.event_driven:
        charged |= {"accumulates": 0.0, "multiply_accumulates": found["dense"], "weight_reads": found["dense"]}
    return charged


def steps_of(counts: Mapping[str, Counts]) -> float:
    """Steps of a sample: those of the layer that has most.

    Raises:
        ValueError: no layers, or a layer that saw no samples.
    """
    if not counts:
        raise ValueError("counts: expected at least one layer, got none")
    for layer, each in counts.items():
        if each.samples < 1:
            raise ValueError(f"counts: layer {layer!r} saw no samples")
    return max(each.steps / each.samples for each in counts.values())


def latency_of(profile: EnergyProfile, steps: float, dt: float | None, latency: float | None) -> tuple[Interval, str]:
    """Seconds for each sample, and the sentence that says where they are from."""
    for name, value in (("dt", dt), ("latency", latency)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: expected seconds > 0, got {value!r}")
    if latency is not None:
        return Interval(latency, latency), f"A sample takes {engineering(latency, 's')}, as given."
    if dt is None:
        raise ValueError(
            "expected dt (the device works in real time) or latency (seconds for each sample), got neither"
        )
    real, step = steps * dt, profile.seconds_per_step
    if step is None or steps * step.high <= real:
        return Interval(real, real), f"A sample takes {engineering(real, 's')}: the device works in real time."
    slow = Interval(max(real, steps * step.low), steps * step.high)
    return (
        slow,
        f"A sample takes {slow.text('s')}: {profile.name} may not work in real time at steps of {engineering(dt, 's')}.",
    )


def checked(found: Estimate) -> Estimate:
    """The estimate, if the device can do all that it is charged for; else an error that names the layer."""
    for layer, causes in found.operations.items():
        for cause, n in causes.items():
            if n:
                try:
                    price(found.profile, cause)
                except ValueError as error:
                    raise ValueError(f"{found.name}, layer {layer!r}: {error}") from None
    return found


# ---- two estimates together ------------------------------------------------------------------------------------------------


def ratio(above: Estimate, below: Estimate, *, idle: bool) -> Interval:
    """The energy of one estimate over that of another, idle part included or not.

    On one device at one latency a coefficient has the same value in both. Each energy is linear in the coefficients, so their
    ratio is extreme where every coefficient is at a bound: all combinations of bounds are tried.

    Example:
        >>> counts = {"a": Counts(samples=1, steps=1, state_updates=10)}
        >>> one, two = (estimate({"a": each}, "loihi1", dt=1.0) for each in (counts["a"], counts["a"] + counts["a"]))
        >>> ratio(one, two, idle=False)
        Interval(low=1.0, high=1.0)
    """
    return hull([quotient(dot(a, above.totals), dot(b, below.totals)) for a, b in bounds_of(above, below, idle=idle)])


def bounds_of(one: Estimate, two: Estimate, *, idle: bool) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Joules of an operation, and of being idle for a sample, in two estimates, for each combination of bounds."""
    if one.profile == two.profile:
        numbers = one.profile.numbers
        for corner in itertools.product(*(sorted({each.low, each.high}) for each in numbers.values())):
            values = dict(zip(numbers, corner, strict=True))
            for bound in {"low"} if one.latency.low == one.latency.high else {"low", "high"}:
                yield _at(one, values, bound, idle), _at(two, values, bound, idle)
    else:
        ranges, others = _prices(one, idle), _prices(two, idle)
        for mine, theirs in itertools.product(("low", "high"), repeat=2):
            first = {name: getattr(each, mine) for name, each in ranges.items()}
            yield first, {name: getattr(each, theirs) for name, each in others.items()}


def _at(found: Estimate, values: Mapping[str, float], bound: str, idle: bool) -> dict[str, float]:
    """Joules of an operation of each cause, and of being idle for a sample, where every number of the device has a value."""
    device = found.profile
    prices = {
        cause: sum(values[name] * _share(device, name, found.dense) for name in device.names(cause)) for cause in CAUSES
    }
    power = values.get("idle_power", 0.0) if idle else 0.0
    return prices | {"idle": power * float(getattr(found.latency, bound))}


def dot(prices: Mapping[str, float], totals: Mapping[str, float]) -> float:
    """Joules of a sample, from what operations cost and how many there are; ``idle`` once, if it has a price."""
    return sum(prices[cause] * n for cause, n in totals.items()) + prices["idle"]


def hull(values: Sequence[float]) -> Interval:
    """The smallest interval that holds them."""
    return Interval(min(values), max(values))


def quotient(a: float, b: float) -> float:
    """a / b, infinite where b is zero and a is not."""
    return a / b if b else math.inf if a else 0.0


def _prices(found: Estimate, idle: bool) -> dict[str, Interval]:
    """Of each cause, zero if the device cannot do it; and of being idle for a sample."""
    nothing = Interval(0.0, 0.0)
    device = found.profile
    prices = {x: price(device, x, dense=found.dense) if device.names(x) else nothing for x in CAUSES}
    return prices | {"idle": found.idle if idle and found.idle is not None else nothing}


def _sum(intervals: Iterable[Interval]) -> Interval:
    result = Interval(0.0, 0.0)
    for each in intervals:
        result += each
    return result
