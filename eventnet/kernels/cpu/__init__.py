"""Loads the compiled CPU kernels: the build for the widest instruction set that this processor has."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

WIDEST_FIRST = ("avx512", "avx2", "baseline")


@cache
def load(isa: str | None = None) -> ModuleType | None:
    """The extension module built for ``isa`` (by default the best one for this processor), ``None`` if not compiled."""
    try:
        baseline = importlib.import_module("eventnet.kernels.cpu._cpu_baseline")
    except ModuleNotFoundError:
        return None
    supported = [name for name in WIDEST_FIRST if baseline.supports(name)]
    if isa is None:
        isa = supported[0]
    if isa not in supported:
        raise RuntimeError(f"kernels for {isa!r}: this processor has {', '.join(supported)}")
    return importlib.import_module(f"eventnet.kernels.cpu._cpu_{isa}")


def describe() -> str:
    """What is loaded, or why nothing is."""
    module = load()
    if module is None:
        return "not compiled: this installation was built without the C++ kernels (a C++20 compiler was missing)"
    return f"compiled C++ for {module.isa}, on torch's threads"
