"""Seconds, bytes and the machine: what a benchmark measures with."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Seconds", "commit", "machine", "peak_growth", "seconds"]

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


@dataclass(frozen=True)
class Seconds:
    """Best and median of the repeats."""

    best: float
    median: float
    repeats: int


def seconds(
    call: Callable[[], Any], *, warm_up: int = 2, repeats: int = 5, at_least: float = 0.5, most: int = 500
) -> Seconds:
    """Time ``call`` after a warm-up: ``repeats`` times or more, for ``at_least`` seconds."""
    for _ in range(warm_up):
        call()
    taken: list[float] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while len(taken) < repeats or (sum(taken) < at_least and len(taken) < most):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return Seconds(min(taken), statistics.median(taken), len(taken))


def peak_growth(call: Callable[[], Any]) -> int | None:
    """Bytes by which peak resident memory exceeds what was resident before ``call``; None where unknown.

    Linux keeps the peak (VmHWM) and resets it on request, so short peaks are not missed as they are by
    sampling.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    gc.collect()
    _return_free_memory()
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = _kilobytes(status, "VmRSS")
    call()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(x for x in status.read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1])


def _return_free_memory() -> None:
    """Give freed heap back to the system, so that reusing it shows as growth again (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, and the vector extensions that matter here."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": cores,
        "features": [name for name in FEATURES if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that is checked out; ``+`` if the working tree differs from it."""

    def git(*args: str) -> str | None:
        done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "none"
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
