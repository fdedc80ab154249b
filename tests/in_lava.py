"""Runs networks in Lava, in a process of its own under a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from eventnet.hardware.lava import to_lava

HERE = Path(__file__).resolve().parent


def compare_with_lava(networks, folder):
    """What differs of each network and its input, by its number; empty if Lava does the same."""
    folders = []
    for k, (network, spikes) in enumerate(networks):
        to_lava(network, folder / str(k), spikes)
        folders.append(str(folder / str(k)))
    command = [sys.executable, str(HERE / "lava_worker.py"), *folders]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120 + 30 * len(networks), check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert sorted(found) == sorted(folders)
    return {Path(name).name: lines for name, lines in found.items() if lines}
