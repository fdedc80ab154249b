"""Records what Lava 0.10.0 does with a few random networks, for machines that have no Lava: ``python tests/record_lava.py``.

Writes ``tests/recorded/lava_N.safetensors`` (the network) and ``lava_N.npz`` (its input and Lava's spikes, currents and voltages)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from hardware_networks import random_convolution, random_egru, random_network

from eventnet.hardware.files import save_network
from eventnet.hardware.lava import to_lava

HERE = Path(__file__).resolve().parent
NETWORKS = [
    *(random_network(seed) for seed in range(1000, 1008)),
    *(random_convolution(seed) for seed in range(1000, 1002)),
    *(random_egru(seed) for seed in range(1000, 1003)),
]


def main() -> None:
    out = HERE / "recorded"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for k, (network, spikes) in enumerate(NETWORKS):
            here = Path(folder) / str(k)
            to_lava(network, here, spikes)
            command = [sys.executable, str(HERE / "lava_worker.py"), str(here), "--record"]
            subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
            (name,) = (each.name for each in network.inputs)
            lava = dict(np.load(here / "lava.npz"))
            save_network(network, out / f"lava_{k}.safetensors")
            np.savez_compressed(out / f"lava_{k}.npz", **lava, **{f"spikes.{name}": spikes[:, 0].numpy()})


if __name__ == "__main__":
    main()
