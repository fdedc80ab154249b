"""Ridge regression of fixed features, in closed form.

With features X ``(B, F)`` and targets Y ``(B, K)`` taken from their means (the intercept is not penalised):

    W = (X'X + penalty I)^-1 X'Y,    b = mean(Y) - mean(X) W

X'X and X'Y add up over batches, so a data set of any size is fitted in one pass, in memory O(F^2). Classes are targets: +1 for a
sample's own, -1 for the others, and the largest output is the prediction. Several penalties are compared by their squared errors
on samples left out, without refitting:

- ``fit``: every sample alone (leave-one-out): residual / (1 - h), h the sample's weight in its own prediction (Golub, Heath &
  Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter", 1979, section 1: Allen's PRESS);
- ``partial_fit``: folds. What is needed of a fold are its own sums. Sample i is in fold floor(folds frac(i g)) with g the golden
  ratio, which is even over any regular order of the classes.

Everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet.hardware.resistive.checks import checked_features, checked_inputs, checked_labels, share_right
from eventnet.hardware.resistive.moments import Moments

__all__ = ["RidgeReadout", "folds_of"]

PENALTIES = tuple(10.0**k for k in range(-4, 7))


class RidgeReadout:
    """Ridge regression or classification; equations above.

    Args:
        penalty: > 0, one number, or several of which the one with the smallest error on samples left out is taken. As in
            scikit-learn's ``alpha`` it is added to X'X, a sum over samples; nothing is divided by their number.
        intercept: whether there is one. Without it features and targets are not centred.
        standardize: whether each feature is divided by its standard deviation over the training samples (needs an intercept). In
            cross-validation the scale is that of all training samples, or of the other folds.
        num_classes: of integer labels; for ``partial_fit``, which cannot see them all. From the labels if not given.
        folds: of ``partial_fit``, if there are several penalties; memory O(folds F^2).

    After fitting: ``weight`` ``(F, K)``, ``bias`` ``(K,)``, float64; ``chosen`` penalty; ``errors``: of each penalty the mean
    squared error on samples left out, an empty tuple if there was one penalty.

    Raises:
        ValueError: a penalty is not positive, numbers are not finite, shapes do not fit. RuntimeError: not fitted yet.

    Example:
        >>> x = torch.randn(60, 3, generator=torch.manual_seed(0))
        >>> readout = RidgeReadout(penalty=(0.1, 1.0, 10.0)).fit(x, (x[:, 0] > x[:, 1]).long())
        >>> readout.score(x, (x[:, 0] > x[:, 1]).long()) > 0.9, readout.weight.shape
        (True, torch.Size([3, 2]))
    """

    def __init__(
        self,
        penalty: float | Sequence[float] = PENALTIES,
        *,
        intercept: bool = True,
        standardize: bool = False,
        num_classes: int | None = None,
        folds: int = 5,
    ) -> None:
        given = [float(penalty)] if isinstance(penalty, int | float) else [float(x) for x in penalty]
        if not given or not all(0 < x < math.inf for x in given):
            raise ValueError(f"RidgeReadout: expected penalties > 0, got {penalty!r}")
        if standardize and not intercept:
            raise ValueError("RidgeReadout: standardize needs the intercept: it moves the features by their means")
        if folds < 2:
            raise ValueError(f"RidgeReadout: expected at least 2 folds, got {folds}")
        self.penalties = torch.tensor(given, dtype=torch.float64)
        self.intercept, self.standardize, self.num_classes = intercept, standardize, num_classes
        self.folds = folds if len(given) > 1 else 1
        self._clear()

    def _clear(self) -> None:
        self._parts: list[Moments] = []
        self._seen = 0
        self._linear: Linear | None = None
        self._classifies: bool | None = None
        self._vector = False  # whether targets were (B,)
        self.chosen: float | None = None
        self.errors: tuple[float, ...] = ()

    def fit(self, x: Tensor, y: Tensor) -> RidgeReadout:
        """Fit all samples at once, ``(B, F)``, to class numbers ``(B,)`` or to numbers ``(B,)`` or ``(B, K)``."""
        self._clear()
        x, targets = self._checked(x, y)
        if len(x) < 2:
            raise ValueError(f"RidgeReadout: expected at least 2 samples, got {len(x)}")
        mean_x, mean_y = (z.mean(0) if self.intercept else z.new_zeros(z.shape[1]) for z in (x, targets))
        scale = Moments.of(x, targets[:, :0]).spread() if self.standardize else torch.ones_like(mean_x)
        x, targets = (x - mean_x) / scale, targets - mean_y
        u, values, back = _decomposed(x)
        projected = u.T @ targets
        self.chosen = float(self.penalties[0])
        if len(self.penalties) > 1:
            self.errors = tuple(
                _left_out(u, values, projected, targets, each, self.intercept) for each in self.penalties
            )
            self.chosen = float(self.penalties[min(range(len(self.errors)), key=self.errors.__getitem__)])
        weight = back @ (projected / (values + self.chosen)[:, None]) / scale[:, None]
        self._linear = Linear(weight, mean_y - mean_x @ weight)
        return self

    def partial_fit(self, x: Tensor, y: Tensor) -> RidgeReadout:
        """Add a batch; what is fitted is all batches since the readout was made, however they were cut."""
        if self._linear is not None and not self._parts:
            raise RuntimeError("RidgeReadout: fit kept no sums to add to; make another readout for partial_fit")
        if self.num_classes is None and not y.is_floating_point():
            raise ValueError("RidgeReadout: partial_fit to labels needs num_classes: a batch may lack some of them")
        x, targets = self._checked(x, y)
        if not self._parts:
            self._parts = [Moments.of(x[:0], targets[:0]) for _ in range(self.folds)]
        elif self._parts[0].xy.shape != (x.shape[1], targets.shape[1]):
            before = tuple(self._parts[0].xy.shape)
            raise ValueError(
                f"RidgeReadout: expected {before[0]} features and {before[1]} targets as before, got {x.shape[1]} and "
                f"{targets.shape[1]}"
            )
        fold = folds_of(self._seen, len(x), self.folds).to(x.device)
        for k, part in enumerate(self._parts):
            part.add_(Moments.of(x[fold == k], targets[fold == k]))
        self._seen += len(x)
        self._linear = None
        return self

    @property
    def weight(self) -> Tensor:
        """``(F, K)``; a column per class, or per number."""
        return self._fitted().weight

    @property
    def bias(self) -> Tensor:
        """``(K,)``."""
        return self._fitted().bias

    def scores(self, x: Tensor) -> Tensor:
        """``(B, K)``: of each class about 1 if it is the sample's and -1 if not, or the numbers."""
        linear = self._fitted()
        return checked_inputs("RidgeReadout", x, len(linear.weight)) @ linear.weight + linear.bias

    def predict(self, x: Tensor) -> Tensor:
        """Class numbers ``(B,)``, or numbers in the shape of the targets."""
        scores = self.scores(x)
        if self._classifies:
            return scores.argmax(1)
        return scores[:, 0] if self._vector else scores

    def score(self, x: Tensor, y: Tensor) -> float:
        """Share of right classes; of numbers R^2, ``1 - sum |y - prediction|^2 / sum |y - mean y|^2``, the mean over columns."""
        predicted = self.predict(x)
        if self._classifies:
            return share_right("RidgeReadout", predicted, y)
        if y.shape != predicted.shape:
            raise ValueError(f"RidgeReadout: expected numbers {tuple(predicted.shape)}, got {tuple(y.shape)}")
        y = y.detach().double()
        return float((1 - ((y - predicted) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)).mean())

    def _fitted(self) -> Linear:
        """The solution; of sums that have not been solved since the last batch, now."""
        if self._linear is None:
            if self._seen < 2:
                raise RuntimeError("RidgeReadout: fit it first, to at least 2 samples")
            self._linear = self._from_sums()
        return self._linear

    def _from_sums(self) -> Linear:
        whole = self._parts[0]
        for part in self._parts[1:]:
            whole = whole.with_(part)
        options = self.intercept, self.standardize
        penalties = self.penalties.to(whole.xx.device)
        if len(penalties) > 1:
            errors = torch.zeros_like(penalties)
            for k, left_out in enumerate(self._parts):
                rest = Moments.of(left_out.mean_x[None][:0], left_out.mean_y[None][:0])
                for part in self._parts[:k] + self._parts[k + 1 :]:
                    rest = rest.with_(part)
                if left_out.count and rest.count:
                    errors += squared_error(solved(rest, penalties, *options), left_out)
            self.errors = tuple((errors / whole.count / len(whole.mean_y)).tolist())
            penalties = penalties[errors.argmin()][None]
        self.chosen = float(penalties[0])
        found = solved(whole, penalties, *options)
        return Linear(found.weight[0], found.bias[0])

    def _checked(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Features and targets ``(B, K)`` in float64."""
        x, y = checked_features("RidgeReadout", x, y), y.detach()
        classifies = not y.is_floating_point()
        if self._classifies not in (None, classifies):
            raise ValueError("RidgeReadout: class numbers in one batch and floats in another")
        if not classifies:
            if y.dim() not in (1, 2) or not bool(torch.isfinite(y).all()):
                raise ValueError(f"RidgeReadout: expected finite targets (B,) or (B, K), got {tuple(y.shape)}")
            self._classifies, self._vector = False, y.dim() == 1
            return x, y.double()[:, None] if self._vector else y.double()
        num_classes = checked_labels("RidgeReadout", y, self.num_classes)
        self._classifies = True
        return x, 2 * F.one_hot(y.long(), num_classes).double() - 1


# ---- from sums over batches --------------------------------------------------------------------------------------------


class Linear(NamedTuple):
    """``scores = x @ weight + bias``; of P penalties at once ``(P, F, K)`` and ``(P, K)``."""

    weight: Tensor
    bias: Tensor


def solved(moments: Moments, penalties: Tensor, intercept: bool, standardize: bool) -> Linear:
    """Ridge weights for each of the ``(P,)`` penalties, from one eigendecomposition of X'X."""
    xx, xy = _second_moments(moments, intercept)
    scale = moments.spread() if standardize else torch.ones_like(moments.mean_x)
    values, vectors = torch.linalg.eigh(xx / scale[:, None] / scale)
    projected = vectors.T @ (xy / scale[:, None])
    shrunk = projected / (values.clamp(min=0)[:, None] + penalties[:, None, None])
    weight = (vectors @ shrunk) / scale[:, None]
    bias = moments.mean_y - moments.mean_x @ weight if intercept else torch.zeros_like(weight[:, 0])
    return Linear(weight, bias)


def squared_error(linear: Linear, moments: Moments) -> Tensor:
    """``(P,)`` sums of squared errors on the samples of ``moments``: ``|y - x W - b|^2`` written out in their sums."""
    missed = moments.mean_y - moments.mean_x @ linear.weight - linear.bias  # (P, K)
    explained = (linear.weight * moments.xy).sum((1, 2))
    quadratic = (linear.weight * (moments.xx @ linear.weight)).sum((1, 2))
    return moments.yy.sum() - 2 * explained + quadratic + moments.count * (missed**2).sum(1)


def _second_moments(moments: Moments, intercept: bool) -> tuple[Tensor, Tensor]:
    if intercept:
        return moments.xx, moments.xy
    mean, count = moments.mean_x, moments.count
    return moments.xx + count * mean[:, None] * mean, moments.xy + count * mean[:, None] * moments.mean_y


def folds_of(first: int, count: int, folds: int) -> Tensor:
    """The folds of so many samples from number ``first`` on.

    Example:
        >>> folds_of(0, 8, 2).tolist()
        [0, 1, 0, 1, 0, 0, 1, 0]
    """
    turns = torch.arange(first, first + count) % 2**31 * 2654435769 % 2**32  # frac(i g) 2^32
    return turns * folds // 2**32


# ---- from all samples at once -----------------------------------------------------------------------------------------


def _decomposed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``u (B, R)`` orthonormal, ``values (R,)``, ``back (F, R)``: ``x x' = u values u'`` and ``back = x' u``."""
    smaller = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values, vectors = torch.linalg.eigh(smaller)
    kept = values > values[-1:] * max(x.shape) * torch.finfo(torch.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    if len(x) <= x.shape[1]:
        return vectors, values, x.T @ vectors
    return x @ vectors / values.sqrt(), values, vectors * values.sqrt()


def _left_out(u: Tensor, values: Tensor, projected: Tensor, targets: Tensor, penalty: Tensor, intercept: bool) -> float:
    """Mean squared error of each sample predicted from all others."""
    share = values / (values + penalty)
    residual = targets - u @ (share[:, None] * projected)
    own = (u * u) @ share + (1 / len(u) if intercept else 0.0)
    return float(((residual / (1 - own)[:, None]) ** 2).mean())
