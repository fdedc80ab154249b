"""Whole numbers among the arguments: sizes and counts, of whatever type they come."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["whole", "whole_at_least"]


def whole(x: Any) -> int | None:
    """A whole number as an int, also one of NumPy's or of a tensor; None if it is none.

    Example:
        >>> import torch
        >>> whole(torch.tensor(3)), whole(3.0)
        (3, None)
    """
    try:
        return operator.index(x)
    except TypeError:
        return None


def whole_at_least(least: int, x: Any, what: str) -> int:
    """A whole number as an int, also one of NumPy's or of a tensor.

    Raises:
        ValueError: it is none, or below ``least``; the message names it ``what``.

    Example:
        >>> whole_at_least(1, 3, "branches")
        3
    """
    number = whole(x)
    if number is None or number < least:
        raise ValueError(f"{what} must be a whole number, at least {least}, got {x!r}")
    return number
