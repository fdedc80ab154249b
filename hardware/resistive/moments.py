"""Sums over samples that a linear fit needs, which add up over batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments"]


@dataclass
class Moments:
    """Number, means and centred sums of products of features and targets, over all batches so far.

    Two parts are put together by ``S = S_1 + S_2 + n_1 n_2 / n d d'`` with d the difference of their means, which loses no digits
    where means are large (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1982).

    Example:
        >>> x, y = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [1.0], [2.0]])
        >>> moments = Moments.of(x[:1], y[:1]).with_(Moments.of(x[1:], y[1:]))
        >>> moments.count, moments.mean_x.item(), moments.xx.item()
        (3, 3.0, 14.0)
    """

    count: int
    mean_x: Tensor  # (F,)
    mean_y: Tensor  # (K,)
    xx: Tensor  # (F, F)
    xy: Tensor  # (F, K)
    yy: Tensor  # (K,)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        """Of one batch, ``(B, F)`` and ``(B, K)``."""
        x, y = x.double(), y.double()
        if not len(x):
            sizes = x.shape[1], y.shape[1]
            zeros = [x.new_zeros(shape) for shape in (sizes[0], sizes[1], (sizes[0], sizes[0]), sizes, sizes[1])]
            return cls(0, *zeros)
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        return cls(len(x), mean_x, mean_y, x.T @ x, x.T @ y, (y * y).sum(0))

    def with_(self, other: Moments) -> Moments:
        """Of both parts."""
        count = self.count + other.count
        if not self.count or not other.count:
            return other if not self.count else self
        share, both = other.count / count, self.count * other.count / count
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        return Moments(
            count,
            self.mean_x + share * dx,
            self.mean_y + share * dy,
            self.xx + other.xx + both * dx[:, None] * dx,
            self.xy + other.xy + both * dx[:, None] * dy,
            self.yy + other.yy + both * dy * dy,
        )

    def add_(self, other: Moments) -> None:
        """``with_`` in place of this one."""
        self.__dict__.update(self.with_(other).__dict__)

    def spread(self) -> Tensor:
        """``(F,)`` standard deviations of the features (of the population: divided by n); 1 where a feature is constant."""
        variance = self.xx.diagonal() / max(self.count, 1)
        rounding = self.count * torch.finfo(torch.float64).eps * self.mean_x**2
        return torch.where(variance > rounding, variance, 1.0).sqrt()
