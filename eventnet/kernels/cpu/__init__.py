"""Loads the compiled CPU kernels: the build for the widest instruction set that this processor has."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

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
    module = importlib.import_module(f"eventnet.kernels.cpu._cpu_{isa}")
    module.set_blas(*blas())
    return module


@cache
def blas() -> tuple[int, int]:
    """The addresses of torch's own dense products, of float32 and float64; 0 where this build of torch does not export them.

    Where they are missing, the kernels' sparse products do all the work: the same numbers, slower where most units are active.
    """
    folder = Path(torch.__file__).parent / "lib"
    for path in (*folder.glob("libtorch_cpu.so"), *folder.glob("libtorch_cpu.dylib")):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            single, double = (
                ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in ("sgemm_", "dgemm_")
            )
            return single or 0, double or 0
    return 0, 0


def describe() -> str:
    """What is loaded, or why nothing is."""
    module = load()
    if module is None:
        return "not compiled: this installation was built without the C++ kernels (a C++20 compiler was missing)"
    dense = "torch's BLAS" if all(blas()) else "no BLAS for dense products, as torch exports none"
    return f"compiled C++ for {module.isa}, on torch's threads; {dense}"
