"""What comes in from outside: names, integers and events, checked where they come in."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet import Events

__all__ = ["check_events", "check_name", "check_number", "integers", "nearest"]


def check_name(of: str, name: Any) -> None:
    """A name that files, reports and scripts can hold."""
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)):
        raise ValueError(f"the name of {of}: expected letters, digits and underscores, as in Python, got {name!r}")


def check_number(what: str, value: Any, low: int, high: int) -> int:
    """One integer in a range, NumPy's among them, as Python's.

    Example:
        >>> check_number("size", np.int64(3), 1, 8)
        3
    """
    try:
        found = operator.index(value)
    except TypeError:
        found = low - 1
    if isinstance(value, bool) or not low <= found <= high:
        raise ValueError(f"{what}: expected an integer from {low:,} to {high:,}, got {value!r}")
    return found


def check_events(what: str, value: Any) -> None:
    """Events, or an error that says how to get them from what came.

    Example:
        >>> check_events("calibration", torch.zeros(10, 1, 4))
        Traceback (most recent call last):
        TypeError: calibration: expected Events, got Tensor; Events.from_dense(raster, dt) makes them of a raster (T, B, N)
    """
    if isinstance(value, Events):
        return
    hint = ""
    if isinstance(value, Tensor):
        hint = "; Events.from_dense(raster, dt) makes them of a raster (T, B, N)"
    elif isinstance(value, tuple | list) and len(value) and isinstance(value[0], Events):
        hint = "; pass the events of the pair alone"
    raise TypeError(f"{what}: expected Events, got {type(value).__name__}{hint}")


def integers(what: str, value: Any, low: int, high: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """An int32 tensor of integers in a range, spread to ``shape`` if there is one.

    Raises:
        TypeError: not integers; ValueError: out of range, or of another shape.
    """
    found = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"{what}: expected integers, got {found.dtype}; quantise or round them first")
    if found.numel() and not (low <= int(found.min()) and int(found.max()) <= high):
        raise ValueError(f"{what}: expected {low:,} to {high:,}, got {int(found.min()):,} to {int(found.max()):,}")
    if shape is not None:
        try:
            found = found.expand(shape)
        except RuntimeError:
            raise ValueError(f"{what}: expected one integer or {shape}, got {tuple(found.shape)}") from None
    return found.to(torch.int32).contiguous()


def nearest(name: str, names: Iterable[str]) -> str:
    """The nearest of some names as a question in brackets; nothing if none is near.

    Example:
        >>> nearest("lohi2", ["loihi1", "loihi2"])
        " (did you mean 'loihi2'?)"
    """
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f" (did you mean {near[0]!r}?)" if near else ""
