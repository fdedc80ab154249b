"""Features and labels that readouts are given, checked where they come in; how many of their answers are right."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["checked_features", "checked_inputs", "checked_labels", "share_right"]


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


def checked_inputs(name: str, x: Tensor, count: int) -> Tensor:
    """Features ``(B, count)`` to predict from, in float64, finite."""
    if x.dim() != 2 or x.shape[1] != count:
        raise ValueError(f"{name}: expected features (B, {count}) as when it was fitted, got {tuple(x.shape)}")
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: the features are not finite")
    return x


def share_right(name: str, predicted: Tensor, y: Tensor) -> float:
    """Share of the class numbers ``(B,)`` that are right."""
    if y.shape != predicted.shape:  # (B, 1) would be compared with all
        raise ValueError(f"{name}: expected class numbers ({len(predicted)},), got {tuple(y.shape)}")
    return float((predicted == y).double().mean())
