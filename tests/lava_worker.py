"""Runs the Lava scripts in the folders given, in one process, and prints what differs as JSON: ``{folder: [lines]}``.

Lava is apart from the tests: a process of it that fails leaves its parent waiting, so this one runs under a time limit.
"""

import importlib.util
import json
import sys
from pathlib import Path

found = {}
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("lava_network", Path(folder) / "lava_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found[folder] = module.check()[0]
print(json.dumps(found))
