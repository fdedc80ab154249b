"""Seconds of a reservoir's features, and of a product on ideal crossbars against a plain matrix product.

Bounds: the features of 1,000 N-MNIST samples with 1,000 units in 10 s on two cores; an ideal product within three times the plain
one. Let nothing else run beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measure import machine, seconds
from resistive_chips import Choice, formed_reservoir
from resistive_inputs import DECAY, STEPS, both, pooled, times_of

from eventnet import data
from eventnet.hardware.resistive import ADC, HFOX, Crossbar, CrossbarLinear, seeded, to_pair

__all__ = ["products", "run", "table"]

SAMPLES, UNITS, BOUND, RATIO = 1000, 1000, 10.0, 3.0
SHAPES = ((1000, 256, 200), (1000, 1000, 1000), (32, 2312, 1000))  # batch, inputs, outputs


def run(root: Path, keep: Callable[[dict[str, Any]], object], *, quick: bool = False) -> dict[str, Any]:
    """Both rows, on as many threads as there are cores."""
    torch.set_num_threads(machine()["cores"])
    events, labels = both(data.load("nmnist", root=root / "nmnist_1k"))
    count = 50 if quick else min(SAMPLES, len(labels))
    rows = []
    for name, own in (("34 x 34 x 2", events[:count]), ("16 x 16", pooled(events[:count]))):
        reservoir = formed_reservoir(own[::18], UNITS, 0, Choice(), DECAY, STEPS)
        times, some = times_of(own), {"warm_up": 1, "repeats": 1 if quick else 3, "at_least": 0.0}
        taken = seconds(lambda reservoir=reservoir, own=own, times=times: reservoir.features(own, times=times), **some)
        spikes = reservoir(own).num_events / count
        rows.append({"data": name, "samples": count, "units": UNITS, "spikes": spikes, **asdict(taken)})
    found = {"threads": torch.get_num_threads(), "features": rows, "products": products()}
    keep(found)
    return found


@torch.no_grad()
def products(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> list[dict[str, Any]]:
    """Plain products, and those of ideal and of noisy crossbars, in turn."""
    rows = []
    for batch, inputs, outputs in shapes:
        generator = seeded(0)
        x, weight = torch.rand(batch, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
        ideal = Crossbar(to_pair(weight))
        noisy = CrossbarLinear.from_linear(_linear(weight), cell=HFOX, adc=ADC(8), age=1.0).eval().crossbar()
        calls: dict[str, Callable[[], torch.Tensor]] = {
            "plain": lambda x=x, weight=weight: x @ weight.t(),
            "ideal": lambda x=x, ideal=ideal: ideal.product(x),
            "noisy": lambda x=x, noisy=noisy, generator=generator: noisy.product(x, generator),
        }
        taken = {name: asdict(seconds(call)) for name, call in calls.items()}
        rows.append({"batch": batch, "inputs": inputs, "outputs": outputs, **taken})
    return rows


def _linear(weight: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.copy_(weight)
    return layer


# ---- table ----------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Markdown of the rows, each with its bound, which is a number to compare with, and no claim."""
    where = f" on {found['machine']['cpu']}, {found['machine']['cores']} cores" if "machine" in found else ""
    lines = [f"Speed{where}, {found['threads']} threads, float32; best / median of the repeats:", ""]
    lines += ["| what | seconds | against | bound |", "|---|---|---|---|"]
    for each in found["features"]:
        name = f"features of {each['samples']:,} N-MNIST samples, {each['data']}, {each['units']:,} units"
        lines.append(f"| {name}, {each['spikes']:,.0f} spikes a sample | {_pair(each)} s |  | {BOUND:g} s |")
    for each in found["products"]:
        name = f"product of {each['batch']:,} x {each['inputs']:,} with {each['inputs']:,} x {each['outputs']:,}"
        for kind, text, bound in (("ideal", "ideal crossbar", f"{RATIO:g}x"), ("noisy", "HfOx, 8-bit converters", "")):
            ratio = each[kind]["best"] / each["plain"]["best"], each[kind]["median"] / each["plain"]["median"]
            against = f"{ratio[0]:.2g} / {ratio[1]:.2g}x the plain product's {1e3 * each['plain']['best']:.2g} ms"
            lines.append(f"| {name}, {text} | {_pair(each[kind])} s | {against} | {bound} |")
    return "\n".join(lines)


def _pair(taken: dict[str, float]) -> str:
    return f"{taken['best']:.3g} / {taken['median']:.3g}"
