"""Trained networks on neuromorphic hardware: fixed-point twins, exporters, mapping, energy, parity reports.

The directory is called `hardware`, the package `eventnet.hardware`. It knows eventnet, not the reverse.

- ``compile``: a trained model as a network of integers, a ``Deployment``.
- ``export``: that into a folder, for Loihi's arithmetic, Lava or NIR, with a report that says whether it is still the same;
  ``export_nir``: a trained model alone, without integers.
- ``eventnet.hardware.resistive``: memory cells whose conductances are weights, crossbars of them, random reservoirs;
  ``compile(model, "resistive")`` puts a trained model on them.
- ``targeting``: warnings where a layer is made that a chip could not hold.
- ``eventnet.hardware.loihi.simulate``: a graph of plain integers, run bit for bit as Lava 0.10.0 does.
- ``eventnet.hardware.nir``: NIR files. ``eventnet.hardware.mapping``: does it fit on a chip?
"""

if __name__ != "eventnet.hardware":
    raise ImportError("hardware/ is eventnet.hardware: install eventnet, then import eventnet.hardware")

from eventnet.hardware.deployment import Deployment, compile
from eventnet.hardware.exporting import export, export_nir
from eventnet.hardware.finetuning import QuantizedTwin, finetune
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.parity import ParityReport
from eventnet.hardware.targeting import TargetWarning, targeting

__all__ = [
    "Deployment",
    "HardwareNetwork",
    "ParityReport",
    "QuantizedTwin",
    "TargetWarning",
    "compile",
    "export",
    "export_nir",
    "finetune",
    "targeting",
]
