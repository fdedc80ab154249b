"""The rows of a run's metrics, one per epoch."""

from __future__ import annotations

__all__ = ["best_epoch"]


def best_epoch(history: list[dict[str, float]], by: str = "accuracy") -> dict[str, float]:
    """The row with the highest validation accuracy, of equal ones that with the lowest validation loss; or by the loss first;
    or the last one.

    Rows of forecasts have no accuracy.
    """
    if by == "last":
        return history[-1]
    if by == "loss":
        return min(history, key=lambda row: (row["validation_loss"], -row.get("validation_accuracy", 0.0)))
    return max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
