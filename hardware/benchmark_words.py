"""How a benchmark's page says things: names of devices and operations, ranges with their units, verdicts.

An energy is always two bounds, also where a source gives one number for both: one bare number would claim too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventnet.hardware.energy import CAVEAT, engineering

__all__ = [
    "CAUSES",
    "CAVEAT",
    "STAGES",
    "accuracy",
    "cause",
    "device",
    "devices_shown",
    "percent",
    "rate_of",
    "short",
    "span",
    "times",
    "verdict_kind",
]

Facts = Mapping[str, Any]

STAGES = {"trained": "floating point", "fixed_point": "fixed-point simulation"}
DEVICES = {
    "loihi1": "Loihi 1",
    "spinnaker": "SpiNNaker",
    "spinnaker2": "SpiNNaker 2",
    "cpu": "CPU",
    "gpu": "GPU",
    "arm": "ARM",
    "asic45": "ASIC 45 nm, 8 bits",
    "asic45_float32": "ASIC 45 nm, float32",
    "in_memory": "in-memory computing",
}
CAUSES = {
    "accumulates": "accumulates",
    "multiply_accumulates": "multiply-accumulates",
    "state_updates": "state updates",
    "spikes": "spikes sent",
    "weight_reads": "weight reads",
    "buffer_writes": "delay buffer writes",
}
CHOSEN = ("loihi1", "asic45")  # a chip that was built, and the device whose figures are the plainest
KINDS = (("pays", "good"), ("always pays", "good"), ("does not pay", "bad"), ("never pays", "bad"))


def device(name: str) -> str:
    """What a device is called."""
    return DEVICES.get(name, name)


def cause(name: str) -> str:
    """What an operation is called."""
    return CAUSES.get(name, name)


def devices_shown(energy: Facts) -> list[str]:
    """The devices that are shown closely: those of ``CHOSEN`` that have an estimate, else the first that has one."""
    return [name for name in CHOSEN if name in energy] or list(energy)[:1]


def span(bounds: Sequence[float | None] | None, unit: str = "J") -> str:
    """Both bounds with SI prefixes, also if they are equal.

    Example:
        >>> span([1.28e-6, 1.79e-6]), span([8.8e-7, 1.4e-6]), span([1.19e-3, 1.19e-3]), span([0, 0]), span(None)
        ('1.3–1.8 µJ', '880 nJ to 1.4 µJ', '1.2–1.2 mJ', 'none', 'not known')
    """
    if bounds is None:
        return "not known"
    low, high = (None if x is None else engineering(x, unit).replace(" u", " µ") for x in bounds)
    if low is None or high is None:
        return f"{low or 'not known'} or more"
    if not bounds[1]:
        return "none"
    if not bounds[0]:
        return f"0–{high}"
    return f"{low.split(' ')[0]}–{high}" if low.split(" ")[1] == high.split(" ")[1] else f"{low} to {high}"


def times(bounds: Sequence[float | None] | None) -> str:
    """Bounds of a ratio or a rate at two digits; an upper one that is None is infinite.

    Example:
        >>> times([0.178, 1.2998]), times([1.0, None]), times([0.0745, 0.0815]), times(None)
        ('0.18–1.3', '1–∞', '0.075–0.082', 'none')
    """
    if bounds is None:
        return "none"
    return "–".join("∞" if x is None else f"{float(f'{x:.2g}'):,g}" for x in bounds)


def percent(share: float | None) -> str:
    """A share at three digits.

    Example:
        >>> percent(0.97222), percent(0.0142392), percent(None)
        ('97.2 %', '1.42 %', '–')
    """
    return "–" if share is None else f"{100 * share:.3g} %"


def accuracy(found: Facts | None) -> str:
    """A share of right answers with its interval.

    Example:
        >>> accuracy({"share": 0.9722, "low": 0.9496, "high": 0.9848})
        '97.2 % (95.0 to 98.5 %)'
    """
    if not found:
        return "not known"
    return f"{100 * found['share']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f} %)"


def rate_of(counts: Mapping[str, Facts]) -> float | None:
    """Synaptic operations as a share of the dense ones: events per connection and step."""
    dense = sum(each.get("dense", 0) for each in counts.values())
    done = sum(each.get("accumulates", 0) + each.get("multiply_accumulates", 0) for each in counts.values())
    return done / dense if dense else None


def short(name: str, longest: int = 16) -> str:
    """A name for the margin of a picture.

    Example:
        >>> short("encoder.blocks.11.attention")
        'encoder…ttention'
    """
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def verdict_kind(text: str) -> str:
    """The colour of a verdict: good, bad, or open where it is neither.

    Example:
        >>> [verdict_kind(x) for x in ("pays at its own rate", "never pays: ...", "may or may not pay at its own rate")]
        ['good', 'bad', 'open']
    """
    return next((kind for start, kind in KINDS if text.startswith(start)), "open")
