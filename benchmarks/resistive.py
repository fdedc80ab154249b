"""Random conductances as a network: accuracy of reservoirs, what devices cost them and trained networks, and what they cost.

    python benchmarks/resistive.py --data-root FOLDER [--save]              readout and devices
    python benchmarks/resistive.py --data-root FOLDER --part readout --sets fsdd --units 200 --save
    python benchmarks/resistive.py --data-root FOLDER --part drift [--save]  a trained network on phase-change memory
    python benchmarks/resistive.py --data-root FOLDER --zero-shot [--save]  images and sounds of unseen classes
    python benchmarks/resistive.py --data-root FOLDER --speed [--save]
    python benchmarks/resistive.py --data-root FOLDER --quick

FOLDER has ``nmnist_1k`` and, used where there, the other sets of ``resistive_inputs.SETS``. Weights are differential pairs of
random conductances (``Forming``), a seed is a chip, and ridge readouts take their penalty by leave-one-out within the samples
that they are fitted to. Rate, spectral radius, share of formed cells, the range of converters and the decay of weights are chosen
on training samples, on a chip that is not one of those reported. What each part measures is said in its file:

- ``resistive_readout.py``: reservoirs with a ridge readout on data sets;
- ``resistive_sweeps.py``, with the contenders of ``resistive_devices.py``: accuracy against noise, converters, stuck cells, age;
- ``resistive_drift.py``: a trained network on cells that drift, with and without compensation;
- ``resistive_zero_shot.py``: images told by sounds of classes that were not trained, and back;
- ``resistive_speed.py``: seconds of reservoir features and of crossbar products.

``--save`` writes ``results/resistive.json``, each part for itself, and ``resistive.png``; what there is, after each chip or set.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import resistive_drift
import resistive_readout
import resistive_speed
import resistive_sweeps
import resistive_zero_shot
import torch
from measure import commit, machine
from resistive_drawing import draw
from resistive_inputs import SETS

RESULT = Path(__file__).with_name("results") / "resistive.json"
PARTS: Mapping[str, Any] = {
    "readout": resistive_readout,
    "devices": resistive_sweeps,
    "drift": resistive_drift,
    "zero_shot": resistive_zero_shot,
    "speed": resistive_speed,
}


def table(found: dict[str, Any]) -> str:
    """Markdown of ``resistive.json``, of the parts that are there."""
    return "\n\n".join(part.table(found[name]) for name, part in PARTS.items() if name in found)


def save(name: str, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Put one part into the file, beside the others."""
    whole = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if name == "readout":
        found = resistive_readout.merged(whole.get(name, {}), found)
    own = {"torch": torch.__version__, "seconds": round(seconds), "machine": machine(), "commit": commit()}
    whole[name] = {**found, **own}
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(part, RESULT)
    return whole


def keeper(name: str) -> Callable[[dict[str, Any]], None]:
    """Saves what there is of a part, and draws it."""
    start = time.perf_counter()

    def keep(found: dict[str, Any]) -> None:
        save(name, found, time.perf_counter() - start)
        if name == "devices":
            draw(found, RESULT.with_suffix(".png"))

    return keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--part", choices=("readout", "devices", "drift"), help="one of them only")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="of the readout")
    parser.add_argument("--units", nargs="+", type=int, help="sizes of the readout's reservoirs; 0: floors alone")
    parser.add_argument("--zero-shot", action="store_true", help="that part only")
    parser.add_argument("--speed", action="store_true", help="that part only")
    parser.add_argument("--quick", action="store_true", help="two chips, the ends of each sweep; nothing is saved")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--draw", action="store_true", help="only draw the picture of what was saved")
    options = parser.parse_args()
    if options.draw:
        return draw(json.loads(RESULT.read_text())["devices"], RESULT.with_suffix(".png"))
    if options.data_root is None:
        parser.error("--data-root is needed")
    single = {"zero_shot": options.zero_shot, "speed": options.speed, options.part: options.part is not None}
    names = [name for name, wanted in single.items() if wanted] or ["readout", "devices"]
    for name in names:
        keep = keeper(name) if options.save and not options.quick else lambda found: None
        more = {"sets": options.sets, "units": options.units} if name == "readout" else {}
        found = PARTS[name].run(options.data_root, keep, quick=options.quick, **more)
        print(table({name: found}), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
