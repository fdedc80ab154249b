"""Trained networks on neuromorphic hardware: fixed-point twins, exporters, mapping, energy, parity reports.

The directory is called `hardware`, the package `eventnet.hardware`. It knows eventnet, not the reverse.
"""

if __name__ != "eventnet.hardware":
    raise ImportError("hardware/ is eventnet.hardware: install eventnet, then import eventnet.hardware")
