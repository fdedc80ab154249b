"""What a sample costs a reservoir on resistive arrays: arrays, drivers, converters and the digital readout, each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resistive_inputs import WINDOWS

from eventnet.hardware.energy import Interval
from eventnet.hardware.energy_profiles import energy_profile
from eventnet.hardware.resistive.energy import Reads, array_energy

__all__ = ["energy", "table"]

BITS = (4, 6, 8)
KEPT = ("total_joules_per_sample", "adc_share", "causes_joules_per_sample", "layers_joules_per_sample")
PARTS = {"arrays": ("cells", "buffers"), "drivers": ("drivers",), "converters": ("converters",)}
PARTS["sums and neurons"] = ("digital", "neurons")


def energy(
    units: int, inputs: int, events: float, spikes: float, *, steps: int, classes: int, graded: bool = False
) -> dict[str, Any]:
    """Joules of a sample by bits of the converters: the reservoir's arrays, and its digital readout (not on arrays).

    ``events`` are the inputs that are not 0 and ``spikes`` those of the reservoir, in all steps; graded inputs have 8 bits.
    """
    each = energy_profile("asic45").coefficients["multiply_accumulates"]
    products = classes * (1 + WINDOWS) * units
    found: dict[str, Any] = {"events": events, "spikes": spikes, "steps": steps, "bits": {}}
    found["readout_joules"] = [products * joules for joules in (each.low, each.high)]
    for bits in BITS:
        reads = {
            "input": Reads(
                units, inputs, steps, events, input_bits=8 if graded else 1, adc_bits=bits, updates=steps * units
            ),
            "recurrent": Reads(units, units, steps, spikes, adc_bits=bits),
        }
        whole = array_energy(reads).to_dict()
        found["bits"][str(bits)] = {name: whole[name] for name in KEPT}
    return found


def table(rows: Sequence[tuple[str, dict[str, Any]]], bits: Sequence[int] = (8,)) -> str:
    """Markdown of energies by name; bounds of each part, and the converters' share of the arrays' total."""
    heads = ["reservoir", "bits", "events", "spikes", *PARTS, "digital readout", "converters' share"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, found in rows:
        for each in bits:
            mine = found["bits"][str(each)]
            causes = {cause: Interval(*joules) for cause, joules in mine["causes_joules_per_sample"].items()}
            parts = [sum((causes[cause] for cause in part), Interval(0.0, 0.0)).text("J") for part in PARTS.values()]
            share = " to ".join(f"{100 * bound:.0f}" for bound in mine["adc_share"]) + " %"
            counts = [str(each), f"{found['events']:,.0f}", f"{found['spikes']:,.0f}"]
            lines.append(
                "| " + " | ".join([name, *counts, *parts, Interval(*found["readout_joules"]).text("J"), share]) + " |"
            )
    return "\n".join(lines)
