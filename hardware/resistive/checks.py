"""Features and labels that readouts are given, checked where they come in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["checked_features", "checked_labels"]


def checked_features(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Features ``(B, F)`` in float64, finite, as many as targets."""
    if x.dim() != 2 or y.dim() < 1 or len(x) != len(y):
        raise ValueError(f"{name}: expected features (B, F) and B targets, got {tuple(x.shape)} and {tuple(y.shape)}")
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: the features are not finite")
    return x


def checked_labels(name: str, y: Tensor, num_classes: int | None) -> int:
    """The number of classes of labels ``(B,)``."""
    if y.is_floating_point() or y.dim() != 1:
        raise ValueError(f"{name}: expected class numbers (B,), got {y.dtype} {tuple(y.shape)}")
    low, high = (int(y.min()), int(y.max())) if y.numel() else (0, 0)
    if low < 0 or (num_classes is not None and high >= num_classes):
        raise ValueError(
            f"{name}: expected class numbers from 0 to {(num_classes or high + 1) - 1}, got {low} to {high}"
        )
    return high + 1 if num_classes is None else num_classes
