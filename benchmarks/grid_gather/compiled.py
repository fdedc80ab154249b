"""Compiles ``grid_gather.cpp`` on first use, with the flags of eventnet's own kernels, and loads it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

__all__ = ["compile_library", "instruction_set", "library"]

SOURCES = sorted(Path(__file__).parent.glob("*.cpp")) + sorted(Path(__file__).parent.glob("*.h"))
CACHE = Path(__file__).resolve().parents[2] / "build" / "benchmarks"
FLAGS = ["-O3", "-std=c++20", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
ISA_FLAGS = {
    "avx512": [
        "-mavx512f",
        "-mavx512vl",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx2",
        "-mfma",
        "-mprefer-vector-width=512",
    ],
    "avx2": ["-mavx2", "-mfma"],
    "baseline": [],
}


def instruction_set() -> str:
    """The best instruction set that this CPU has and the library is written for."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.exists():
        return "baseline"
    features = set(next((x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")), "").split())
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma"} <= features:
        return "avx512"
    return "avx2" if {"avx2", "fma"} <= features else "baseline"


def compile_library(isa: str | None = None) -> Path:
    """Compile for ``isa`` unless that is done already; returns the shared library."""
    isa = isa or instruction_set()
    flags = FLAGS + ISA_FLAGS[isa]
    text = b"".join(source.read_bytes() for source in SOURCES)
    key = hashlib.sha256(text + " ".join(flags).encode()).hexdigest()[:12]
    target = CACHE / f"grid_gather-{isa}-{key}.so"
    if target.exists():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise RuntimeError("grid-gather needs a C++20 compiler: install g++ or clang++, or name one in CXX")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    subprocess.run([compiler, *flags, str(SOURCES[0]), "-o", str(part)], check=True)
    os.replace(part, target)
    return target


@functools.cache
def library() -> ctypes.CDLL:
    """The functions of ``grid_gather.cpp`` with their types."""
    loaded = ctypes.CDLL(str(compile_library()))
    p, n, f, d = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_double
    grid = [n, d, d, d, f]  # steps, dt, tau_mem, tau_syn, threshold
    layer = [p, p, p, n, p, n, n, *grid, n]  # times, units, offsets, batch, w1, inputs, hidden, grid, threads
    for name in ("grid_gather_width", "grid_gather_lanes"):
        getattr(loaded, name).argtypes = [n]
    loaded.grid_gather_forward.argtypes = [*layer, p, p, p]
    loaded.grid_gather_backward.argtypes = [p, p, p, n, n, n, *grid, f, n, p, p, p]
    loaded.recurrent_forward.argtypes = [*layer, p, n, p, p, p]
    loaded.recurrent_backward.argtypes = [*layer, p, n, f, p, p, p, p]
    loaded.delayed_forward.argtypes = [*layer, p, p, p, p]
    loaded.delayed_backward.argtypes = [*layer, p, f, p, p, p, p]
    loaded.floor_forward.argtypes = [p, p, n, p, n, n, n]
    loaded.floor_backward.argtypes = [p, p, n, n, n, n, p]
    loaded.floor_forward.restype = f
    for layer_name in ("grid_gather", "recurrent", "delayed"):
        for way in ("forward", "backward"):
            getattr(loaded, f"{layer_name}_{way}").restype = None
    loaded.floor_backward.restype = None
    return loaded
