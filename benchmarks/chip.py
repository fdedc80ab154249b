"""Speed of the simulation of a chip: a recurrent network of 700 inputs, 256 and 20 neurons with delays, against Lava 0.10.0.

    python benchmarks/chip.py [--save]

Both run the same integers on the same machine in the same run, and must agree. Ours takes a batch of 64 samples of 1,000 steps of
1 ms; Lava takes one sample of fewer steps, and the time of its start (processes, compiler) is measured by runs of two lengths and
taken off. The result is time per sample and step, and how many times faster than real time the batch is in all. ``make lava``
installs Lava.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine, seconds

from eventnet.hardware import HardwareNetwork
from eventnet.hardware.lava import to_lava
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Dense, Inputs

RESULTS = Path(__file__).with_name("results") / "chip.json"
INPUTS, HIDDEN, OUTPUTS, BATCH, STEPS, DT = 700, 256, 20, 64, 1000, 1e-3
RATE = 5.0  # Hz, of an input
LAVA_STEPS = (20, 120)


def network() -> HardwareNetwork:
    """Delays of up to 62 steps on every synapse, 8-bit weights of both signs."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    hidden = LIFNeurons("hidden", HIDDEN, du=741, dv=199, vth=4000)
    output = LIFNeurons("output", OUTPUTS, du=741, dv=199, vth=131_071)
    projections = [
        Dense(
            "input", "hidden", 2 * draw(-60, 80, INPUTS, HIDDEN), delay=draw(0, 63, INPUTS, HIDDEN), sign_mode="mixed"
        ),
        Dense(
            "hidden", "hidden", 2 * draw(-30, 30, HIDDEN, HIDDEN), delay=draw(0, 63, HIDDEN, HIDDEN), sign_mode="mixed"
        ),
        Dense("hidden", "output", 2 * draw(-60, 60, HIDDEN, OUTPUTS), sign_mode="mixed"),
    ]
    return HardwareNetwork([Inputs("input", INPUTS), hidden, output], projections, dt=DT)


def lava_seconds(net: HardwareNetwork, spikes: torch.Tensor) -> tuple[float, bool]:
    """Seconds of a step in Lava, and whether it agrees on every number."""
    taken, agrees = [], True
    for steps in LAVA_STEPS:
        with tempfile.TemporaryDirectory() as folder:
            script = to_lava(net, folder, spikes[:steps, :1])
            spec = importlib.util.spec_from_file_location("lava_network", script)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            started = time.perf_counter()
            wrong, _ = module.check()
            taken.append(time.perf_counter() - started)
            agrees = agrees and not wrong
    return (taken[1] - taken[0]) / (LAVA_STEPS[1] - LAVA_STEPS[0]), agrees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    net = network()
    spikes = (torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(1)) < RATE * DT).to(torch.int32)
    record = simulate(net, spikes, record=())
    found: dict[str, Any] = {"shape": f"{INPUTS}-{HIDDEN}-{OUTPUTS}, batch {BATCH}, {STEPS} steps"}
    found["hidden_rate_hz"] = float(record.spikes["hidden"].double().mean()) / DT  # type: ignore[union-attr]
    lava, found["lava_agrees"] = lava_seconds(net, spikes)
    ours = seconds(lambda: simulate(net, spikes, record=()), repeats=3).best
    one = seconds(lambda: simulate(net, spikes[:, :1], record=()), repeats=3).best
    reference = seconds(lambda: simulate(net, spikes[:50], record=(), backend="reference"), warm_up=0, repeats=1).best
    found["lava_step_seconds"] = lava
    found["ours_sample_step_seconds"] = ours / (STEPS * BATCH)
    found["ours_alone_step_seconds"] = one / STEPS
    found["reference_sample_step_seconds"] = reference / (50 * BATCH)
    found["times_lava"] = lava / found["ours_sample_step_seconds"]
    found["times_real_time"] = STEPS * DT * BATCH / ours
    found |= {"machine": machine(), "commit": commit()}
    print(json.dumps(found, indent=2))
    if options.save:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
