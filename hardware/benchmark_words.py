"""How a benchmark's page says things: names of devices and operations, ranges with their units, verdicts.

An energy is always two bounds, also where a source gives one number for both: one bare number would claim too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from eventnet.hardware import parity_pictures
from eventnet.hardware.energy import CAVEAT, engineering

__all__ = [
    "CAUSES",
    "CAVEAT",
    "NO_BREAK",
    "STAGES",
    "accuracy",
    "cause",
    "device",
    "devices_shown",
    "forecast",
    "percent",
    "rate_of",
    "seconds",
    "short",
    "span",
    "times",
    "verdict_kind",
]

NO_BREAK = "\u00a0"
Facts = Mapping[str, Any]

STAGES = {"trained": parity_pictures.STAGES["trained"], "fixed_point": parity_pictures.STAGES["chip"]}
DEVICES = {
    "loihi1": "Loihi 1",
    "spinnaker": "SpiNNaker",
    "spinnaker2": "SpiNNaker 2",
    "cpu": "CPU",
    "gpu": "GPU",
    "arm": "ARM",
    "asic45": "ASIC (45 nm)",
    "asic45_float32": "ASIC (45 nm, float32)",
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

    Between a number and its unit no line breaks.

    Example:
        >>> found = span([1.28e-6, 1.79e-6]), span([8.8e-7, 1.4e-6]), span([1.19e-3, 1.19e-3]), span([0, 0]), span(None)
        >>> [text.replace(NO_BREAK, " ") for text in found]
        ['1.3–1.8 µJ', '880 nJ to 1.4 µJ', '1.2–1.2 mJ', 'none', 'not known']
    """
    some = [x for x in bounds or () if x is not None]
    if len(some) != 2:
        return "not known"
    if not some[1]:
        return "none"
    low, high = (engineering(x, unit).replace("u", "µ").split(" ") for x in some)
    last = NO_BREAK.join(high)
    if not some[0] or low[1] == high[1]:
        return f"{low[0]}–{last}"
    return f"{NO_BREAK.join(low)} to {last}"


def seconds(bounds: Sequence[float | None] | None) -> str:
    """A time, which is one number where both bounds are the same.

    Example:
        >>> seconds([0.041, 0.041]).replace(NO_BREAK, " "), seconds([0.02, 0.041]).replace(NO_BREAK, " ")
        ('41 ms', '20–41 ms')
    """
    text = span(bounds, "s")
    return text.partition("–")[2] if bounds and bounds[0] == bounds[1] and "–" in text else text


def times(bounds: Sequence[float | None] | None) -> str:
    """Bounds of a ratio or a rate at two digits; an upper one that is None is infinite.

    Example:
        >>> times([0.178, 1.2998]), times([1.0, None]), times([8.4e-5, 0.0023]), times([380.0]), times(None)
        ('0.18–1.3', '1–∞', '0.000084–0.0023', '380', 'none')
    """
    if bounds is None:
        return "none"
    return "–".join("∞" if x is None else f"{Decimal(f'{x:.2g}'):,f}" for x in bounds)


def percent(share: float | None) -> str:
    """A share at three digits.

    Example:
        >>> [percent(x).replace(NO_BREAK, " ") for x in (0.97222, 0.0142392, None)]
        ['97.2 %', '1.42 %', '–']
    """
    return "–" if share is None else f"{100 * share:.3g}{NO_BREAK}%"


def accuracy(found: Facts | None) -> str:
    """A share of right answers with its interval.

    Example:
        >>> accuracy({"share": 0.9722, "low": 0.9496, "high": 0.9848}).replace(NO_BREAK, " ")
        '97.2 % (95.0 to 98.5 %)'
    """
    if not found or found["share"] is None:
        return "not known"
    share, low, high = (f"{100 * found[key]:.1f}" for key in ("share", "low", "high"))
    return f"{share}{NO_BREAK}% ({low} to {high}{NO_BREAK}%)"


def forecast(found: Facts | None) -> str:
    """The score of a network that forecasts numbers, which is no accuracy.

    Example:
        >>> forecast({"name": "test sMAPE", "value": 12.345})
        'test sMAPE 12.3'
    """
    return f"{found['name']} {found['value']:.3g}" if found else "not known"


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
