"""A network for Lava 0.10.0, written by eventnet: the processes are built below, their numbers are in arrays.npz.

    python lava_network.py            run the samples of expected.npz and print the spike counts
    python lava_network.py --check    also compare every spike, current and voltage with those stored there

Needs lava-nc 0.10.0, NumPy and SciPy; nothing of eventnet. As Lava asks for Python < 3.11 and NumPy < 2 without need:
pip install "numpy<2.4" scipy "asteval<0.10" "networkx<=2.8.7" && pip install --no-deps --ignore-requires-python lava-nc==0.10.0
"""

import argparse
import dataclasses
import importlib
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix


def import_lava():
    """Lava 0.10.0 on Python 3.11 and later, which refuses its four dataclasses whose default is an object without a hash."""
    plain, names = dataclasses.dataclass, {"ByteEncoder", "CoreEncoder", "ChipEncoder", "AxonEncoder"}

    def dataclass(cls=None, **options):
        def decorate(cls):
            return plain(cls, **({**options, "unsafe_hash": True} if cls.__name__ in names else options))

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = plain


import_lava()

from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.proc.conv.process import Conv  # noqa: E402, F401
from lava.proc.dense.process import DelayDense, Dense  # noqa: E402, F401
from lava.proc.io import source  # noqa: E402, F401
from lava.proc.lif.process import LIF, LIFReset  # noqa: E402, F401
from lava.proc.monitor.process import Monitor  # noqa: E402
from lava.proc.sparse.process import DelaySparse, Sparse  # noqa: E402, F401
from lava.utils.weightutils import SignMode  # noqa: E402, F401

...  # OWN PROCESSES

INPUTS = ("input",)  # INPUTS
MODELS: dict[type, type] = {}  # MODELS of processes that Lava has not


def build(arrays, rasters):
    """The processes of the network, for inputs (units, steps); returns those of the neurons by name."""
    ...  # PROCESSES
    return {}  # NEURONS


def matrix(arrays, name, part, shape):
    """Synapses one by one as the sparse matrix (target, source) that Lava takes."""
    place = arrays[f"{name}.columns"], arrays[f"{name}.rows"]
    kind = np.int64 if part == "delay" else np.int32  # what Lava accepts
    return csr_matrix((arrays[f"{name}.{part}"].astype(kind), place), shape=shape)


def run(arrays, rasters):
    """One sample: {"spikes.NAME", "u.NAME", "v.NAME": (steps, units)} of all neurons."""
    neurons = build(arrays, rasters)
    steps = next(iter(rasters.values())).shape[-1]
    monitors = {}
    for name, process in neurons.items():
        for part, port in (("spikes", process.s_out), ("u", process.u), ("v", process.v)):
            monitors[f"{part}.{name}"] = Monitor()
            monitors[f"{part}.{name}"].probe(port, steps)
    own = {process: MODELS[type(process)] for process in neurons.values() if type(process) in MODELS}
    how = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=own)
    first = next(iter(neurons.values()))
    try:
        first.run(condition=RunSteps(num_steps=steps), run_cfg=how)
        return {
            name: next(iter(next(iter(monitor.get_data().values())).values())) for name, monitor in monitors.items()
        }
    finally:
        first.stop()


def load():
    """The arrays and what is expected."""
    return tuple(read(Path(__file__).resolve().parent / name) for name in ("arrays.npz", "expected.npz"))


def read(path):
    """The arrays of a file, or an end that says in a sentence why not."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        sys.exit(f"{path}: no such file; it belongs beside this script, export again")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        sys.exit(f"{path}: damaged or cut short ({error}); export again")


def check(samples=None):
    """Run the stored samples, or the first few; returns the differences, one line each, and the spikes of each sample."""
    arrays, expected = load()
    count = expected[f"spikes.{INPUTS[0]}"].shape[1]
    wrong, counts = [], []
    for sample in range(count if samples is None else min(samples, count)):
        rasters = {name: expected[f"spikes.{name}"][:, sample].T.astype(np.int32) for name in INPUTS}
        found = run(arrays, rasters)
        counts.append({name: np.count_nonzero(x) for name, x in found.items() if name.startswith("spikes.")})
        for name, x in found.items():
            different = np.argwhere(x.astype(np.int64) != expected[name][:, sample])
            if len(different):
                step, unit = different[0]
                wrong.append(
                    f"sample {sample}, {name}: {len(different)} of {x.size} numbers differ, the first in step {step} of unit "
                    f"{unit}: Lava {int(x[step, unit])}, expected {int(expected[name][step, sample, unit])}"
                )
    return wrong, counts


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="compare with expected.npz; exit code 1 if anything differs"
    )
    parser.add_argument("--samples", type=int, help="only the first few")
    options = parser.parse_args()
    if options.samples is not None and options.samples < 1:
        parser.error(f"--samples: expected at least 1, got {options.samples}")
    wrong, counts = check(options.samples)
    for sample, each in enumerate(counts):
        print(f"sample {sample}: " + ", ".join(f"{name.partition('.')[2]} {n} spikes" for name, n in each.items()))
    if options.check:
        print("\n".join(wrong) or f"every spike, current and voltage of {len(counts)} samples is as expected")
        sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
