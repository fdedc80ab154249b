"""Runs the Lava scripts in the folders given, in one process, and prints what differs as JSON: ``{folder: [lines]}``.

Lava is apart from the tests: a process of it that fails leaves its parent waiting, so this one runs under a time limit. With
``--record``, what Lava did with the first sample is also written into ``lava.npz`` beside the script.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

record = "--record" in sys.argv
found = {}
for folder in [name for name in sys.argv[1:] if name != "--record"]:
    spec = importlib.util.spec_from_file_location("lava_network", Path(folder) / "lava_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if record:
        arrays, expected = module.load()
        rasters = {name: expected[f"spikes.{name}"][:, 0].T for name in module.INPUTS}
        lava = {name: x.astype(np.int32) for name, x in module.run(arrays, rasters).items()}
        np.savez_compressed(Path(folder) / "lava.npz", **lava)
    found[folder] = module.check()[0]
print(json.dumps(found))
