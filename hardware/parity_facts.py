"""Facts of a parity report that follow from others: what deserves a warning, and what the counts would cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from eventnet.counts import Counts
from eventnet.hardware.calibrate import THRESHOLDS
from eventnet.hardware.energy import estimate
from eventnet.hardware.energy_profiles import ENERGY_PROFILES

__all__ = ["energy_of", "warnings_of"]

TAU, SQNR, SPIKES = 0.05, 20.0, 0.1  # relative error of a time constant, decibel, share of a layer's spikes


def warnings_of(facts: Mapping[str, Any], merged: int = 0) -> list[str]:
    """A sentence for each number of a report that is far from the trained network's.

    Args:
        facts: of ``ParityReport``: its ``parameters``, ``dynamics`` and ``overflows``.
        merged: input events that were lost, as they shared a step with another of their unit.

    Example:
        >>> warnings_of({"parameters": {"hidden_0": {"tau_mem_relative_error": 0.08, "weight_sqnr_db": 45.0}}})
        ['hidden_0: tau_mem is off by up to 8.0%: take longer steps']
    """
    found = [line for name, errors in facts.get("parameters", {}).items() for line in _of_parameters(name, errors)]
    found += [line for name, layer in facts.get("dynamics", {}).items() for line in _of_spikes(name, layer)]
    overflows = {name: times for name, times in facts.get("overflows", {}).items() if times}
    found += [f"{name}: {times:,} numbers overflowed in all samples" for name, times in overflows.items()]
    if merged:
        found.append(f"{merged:,} input events that shared a step with another of their unit count once")
    return found


def _of_parameters(name: str, errors: Mapping[str, float]) -> Iterator[str]:
    for key, value in errors.items():
        if key.endswith("_relative_error") and key.startswith("tau") and not value <= TAU:
            yield f"{name}: {key.removesuffix('_relative_error')} is off by up to {value:.1%}: take longer steps"
        if key.endswith("sqnr_db") and value < SQNR:
            yield f"{name}: {key.removesuffix('_sqnr_db').replace('_', ' ')}: {value:.1f} dB of signal to rounding noise"
    factor = errors.get("threshold_factor")
    if factor in (min(THRESHOLDS), max(THRESHOLDS)):
        yield f"{name}: the search for a threshold ended at the edge of its grid, {factor:g} of the trained one"


def _of_spikes(name: str, layer: Mapping[str, float]) -> Iterator[str]:
    trained, exported = layer["spikes_trained"], layer["spikes_chip"]
    change = (exported - trained) / trained if trained else math.inf if exported else 0.0
    if abs(change) > SPIKES:
        by = f" ({change:+.0%})" if math.isfinite(change) else ""
        yield f"{name}: {trained:.4g} spikes per sample trained, {exported:.4g} exported{by}"


def energy_of(counts: Mapping[str, Counts], dt: float) -> dict[str, dict[str, list[float] | None]]:
    """What counts would cost on each event-driven device that can do them: joules per sample, ``[low, high]``; idle None where
    its power is not known.

    Example:
        >>> counts = {"hidden": Counts(samples=1, steps=100, neurons=10, accumulates=4000, state_updates=1000, spikes=50)}
        >>> [round(1e9 * joules) for joules in energy_of(counts, 1e-3)["loihi1"]["dynamic_joules_per_sample"]]
        [146, 177]
    """
    found: dict[str, dict[str, list[float] | None]] = {}
    for name, profile in ENERGY_PROFILES.items():
        if profile.event_driven:
            try:
                cost = estimate(counts, profile, dt=dt)
            except ValueError:  # the device cannot do all of it
                continue
            idle = None if cost.idle is None else cost.idle.to_list()
            found[name] = {"dynamic_joules_per_sample": cost.dynamic.to_list(), "idle_joules_per_sample": idle}
    return found
