"""The honest baseline of the speed tables: a compiled LIF on a grid that gathers a weight row per event.

``grid_gather.cpp`` holds the equations. It is compiled on first use with the flags of eventnet's own kernels
for the best instruction set of this CPU, into ``build/benchmarks`` of the source tree.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eventnet import Events

__all__ = ["compile_library", "floor", "grid_gather", "grid_spikes", "instruction_set"]

SOURCE = Path(__file__).with_name("grid_gather.cpp")
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
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(flags).encode()).hexdigest()[:12]
    target = CACHE / f"grid_gather-{isa}-{key}.so"
    if target.exists():
        return target
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise RuntimeError("grid-gather needs a C++20 compiler: install g++ or clang++, or name one in CXX")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(part)], check=True)
    os.replace(part, target)
    return target


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(compile_library()))
    p, n, f, d = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_double
    grid = [n, d, d, d, f]  # steps, dt, tau_mem, tau_syn, threshold
    library.grid_gather_width.argtypes = [n]
    library.grid_gather_forward.argtypes = [p, p, p, n, p, n, n, *grid, n, p, p, p]
    library.grid_gather_backward.argtypes = [p, p, p, n, n, n, *grid, f, n, p, p, p]
    library.floor_forward.argtypes = [p, p, n, p, n, n, n]
    library.floor_backward.argtypes = [p, p, n, n, n, n, p]
    library.floor_forward.restype = f
    for name in ("grid_gather_forward", "grid_gather_backward", "floor_backward"):
        getattr(library, name).restype = None
    return library


def grid_gather(
    events: Events,
    w1: Tensor,
    w2: Tensor,
    *,
    dt: float,
    steps: int,
    tau_mem: float = 20e-3,
    tau_syn: float = 5e-3,
    threshold: float = 1.0,
    slope: float = 25.0,
) -> tuple[Tensor, Tensor]:
    """Mean readout voltage ``(B, outputs)`` and hidden spikes per sample ``(B,)``.

    ``w1 (inputs, hidden)`` and ``w2 (hidden, outputs)``, float32; times float32. Differentiable in both
    weights: BPTT with a fast-sigmoid surrogate of ``slope``, the reset detached.
    """
    for name, x in (("times", events.times), ("w1", w1), ("w2", w2)):
        if x.dtype != torch.float32:
            raise TypeError(f"grid_gather: {name} must be float32, got {x.dtype}")
    if w1.shape[0] != events.num_units or w2.shape[0] != w1.shape[1]:
        raise ValueError(f"grid_gather: {events.num_units} units do not fit {tuple(w1.shape)} and {tuple(w2.shape)}")
    w1 = w1.contiguous()
    settings = (steps, dt, tau_mem, tau_syn, threshold)
    filtered, spikes = _Hidden.apply(w1, events, settings, slope)
    return filtered[:, : w1.shape[1]] @ w2, spikes


def grid_spikes(
    events: Events, w1: Tensor, *, dt: float, steps: int, tau_mem: float, tau_syn: float, threshold: float
) -> Events:
    """The hidden spikes, each at the end of the step in which the voltage was found above the threshold."""
    settings = (steps, dt, tau_mem, tau_syn, threshold)
    _, _, kept = _forward(w1.detach(), events, settings, keep=True)
    sample, step, unit = (kept[:, :, : w1.shape[1]] >= threshold).nonzero(as_tuple=True)
    offsets = torch.searchsorted(sample, torch.arange(events.batch_size + 1))
    times = ((step + 1).double() * dt).to(events.dtype)
    return Events(times, unit, offsets, w1.shape[1], torch.tensor(steps * dt, dtype=events.dtype))


def _forward(w1: Tensor, events: Events, settings: tuple, *, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Filtered spikes (B, width), counts (B,), voltages before the reset (B, steps, width) if ``keep``."""
    batch, (inputs, hidden) = events.batch_size, w1.shape
    width = _library().grid_gather_width(hidden)
    kept = torch.empty(batch, settings[0], width) if keep else None
    filtered, spikes = torch.zeros(batch, width), torch.empty(batch, dtype=torch.int64)
    _library().grid_gather_forward(
        *_pointers(events), w1.data_ptr(), inputs, hidden, *settings, torch.get_num_threads(),
        None if kept is None else kept.data_ptr(), filtered.data_ptr(), spikes.data_ptr(),
    )  # fmt: skip
    return filtered, spikes, kept


def _pointers(events: Events) -> tuple[int, int, int, int]:
    return events.times.data_ptr(), events.units.data_ptr(), events.offsets.data_ptr(), events.batch_size


class _Hidden(torch.autograd.Function):
    """The hidden layer: a neuron's spikes, each weighted with what it adds to the readout's mean."""

    @staticmethod
    def forward(ctx: Any, w1: Tensor, events: Events, settings: tuple, slope: float) -> tuple[Tensor, Tensor]:
        filtered, spikes, kept = _forward(w1, events, settings, keep=ctx.needs_input_grad[0])
        ctx.saved = (events, kept, settings, slope, w1.shape)
        ctx.mark_non_differentiable(spikes)
        return filtered, spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        events, kept, settings, slope, (inputs, hidden) = ctx.saved
        grad, dw1 = grad.contiguous(), torch.empty(inputs, hidden)
        _library().grid_gather_backward(
            *_pointers(events), inputs, hidden, *settings, slope, torch.get_num_threads(),
            kept.data_ptr(), grad.data_ptr(), dw1.data_ptr(),
        )  # fmt: skip
        return dw1, None, None, None


def floor(events: Events, w1: Tensor, *, backward: bool) -> float:
    """Stream the weight rows of all events, and the gradient's rows back if ``backward``."""
    (inputs, hidden), threads = w1.shape, torch.get_num_threads()
    args = (events.units.data_ptr(), events.offsets.data_ptr(), events.batch_size)
    total: float = _library().floor_forward(*args, w1.data_ptr(), inputs, hidden, threads)
    if backward:
        dw1 = torch.empty(inputs, hidden)
        _library().floor_backward(*args, inputs, hidden, threads, dw1.data_ptr())
        total += float(dw1[0, 0])
    return total
