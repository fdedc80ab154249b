"""Multinomial logistic regression of fixed features.

minimise  - sum_b log softmax(x_b W + b)[y_b] + penalty / 2 |W|^2,   by L-BFGS, in float64
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet.hardware.resistive.checks import checked_features, checked_inputs, checked_labels, share_right
from eventnet.hardware.resistive.moments import Moments

__all__ = ["LogisticReadout"]


class LogisticReadout:
    """Multinomial logistic regression; equation above.

    Args:
        penalty: >= 0, on the weights of (standardised) features; 1 / C of scikit-learn.
        standardize: whether features are moved and scaled to mean 0 and standard deviation 1 of the training samples first.
        num_classes: from the labels if not given.
        iterations: of L-BFGS at most.
        tolerance: the largest element of the gradient per sample at which it stops.

    After fitting: ``weight`` ``(F, K)`` and ``bias`` ``(K,)`` for the features as they are, float64; ``converged``.

    Raises:
        ValueError: labels are not class numbers, numbers are not finite, shapes do not fit. RuntimeError: not fitted yet.

    Example:
        >>> x = torch.randn(60, 3, generator=torch.manual_seed(0))
        >>> readout = LogisticReadout().fit(x, (x[:, 0] > x[:, 1]).long())
        >>> readout.score(x, (x[:, 0] > x[:, 1]).long()) > 0.9, readout.converged
        (True, True)
    """

    weight: Tensor
    bias: Tensor
    converged: bool

    def __init__(
        self,
        penalty: float = 1.0,
        *,
        standardize: bool = True,
        num_classes: int | None = None,
        iterations: int = 500,
        tolerance: float = 1e-7,
    ) -> None:
        if not 0 <= penalty < math.inf:
            raise ValueError(f"LogisticReadout: expected a penalty >= 0, got {penalty}")
        self.penalty, self.standardize, self.num_classes = penalty, standardize, num_classes
        self.iterations, self.tolerance = iterations, tolerance

    def fit(self, x: Tensor, y: Tensor) -> LogisticReadout:
        """Fit to class numbers ``(B,)``, from weights of 0."""
        x, y = checked_features("LogisticReadout", x, y), y.detach()
        if not len(x):
            raise ValueError("LogisticReadout: expected at least one sample, got none")
        num_classes = checked_labels("LogisticReadout", y, self.num_classes)
        moments = Moments.of(x, x[:, :0])
        shift = moments.mean_x if self.standardize else torch.zeros_like(moments.mean_x)
        scale = moments.spread() if self.standardize else torch.ones_like(shift)
        weight, bias, self.converged = self._minimised((x - shift) / scale, y.long(), num_classes)
        self.weight = weight / scale[:, None]
        self.bias = bias - shift @ self.weight
        return self

    def _minimised(self, x: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor, bool]:
        weight = x.new_zeros(x.shape[1], num_classes, requires_grad=True)
        bias = x.new_zeros(num_classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.iterations,
            max_eval=2 * self.iterations,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weight + bias, y) + self.penalty / (2 * len(x)) * (weight**2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
            loss()
        steepest = max(float(each.grad.abs().max()) for each in (weight, bias) if each.grad is not None)
        return weight.detach(), bias.detach(), steepest <= 10 * self.tolerance

    def scores(self, x: Tensor) -> Tensor:
        """``(B, K)`` logits."""
        if not hasattr(self, "weight"):
            raise RuntimeError("LogisticReadout: fit it first")
        return checked_inputs("LogisticReadout", x, len(self.weight)) @ self.weight + self.bias

    def predict(self, x: Tensor) -> Tensor:
        """Class numbers ``(B,)``."""
        return self.scores(x).argmax(1)

    def score(self, x: Tensor, y: Tensor) -> float:
        """Share of right classes."""
        return share_right("LogisticReadout", self.predict(x), y)
