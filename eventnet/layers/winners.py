"""k-winners: of all units only those with the largest values speak, the others are zero.

    y_i = x_i if x_i exp(boost (k / n - d_i)) is among the k largest, else 0

A unit's duty cycle d_i is the share of recent training samples in which it was active, a running mean over about
``duty_cycle_period`` of them. Boosting lets units that were rarely active win more easily; it decides who wins, not what is said.
The gradient passes through the winners only.

Source: Ahmad & Scheinkman, "How can we be so dense? The benefits of using highly sparse representations" (2019).
"""

from __future__ import annotations

import math
from typing import Any, Self, SupportsIndex

import torch
from torch import Tensor, nn

from eventnet.layers.whole import whole_at_least

__all__ = ["KWinners", "KWinners2d", "k_winners"]


def k_winners(x: Tensor, k: SupportsIndex, dim: int = -1, *, ranked: Tensor | None = None) -> Tensor:
    """The k largest values along a dimension, zero elsewhere; the gradient passes through them only.

    Of equal values the one with the lowest index wins. A NaN is larger than anything else, so that it is not lost.

    Args:
        x: any shape.
        k: winners, at least 1; all win if there are no more than k.
        dim: along which units compete.
        ranked: of x's shape: by these values, instead of x, the winners are chosen.

    Raises:
        ValueError: k that is not a whole number, at least 1, or ranked of another shape.

    Example:
        >>> k_winners(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2)
        tensor([3., 0., 2., 0.])
    """
    if ranked is not None and ranked.shape != x.shape:
        raise ValueError(f"k_winners: ranked is {tuple(ranked.shape)}; expected it of the shape of x, {tuple(x.shape)}")
    k = whole_at_least(1, k, "k_winners: k")
    return x.masked_fill(~_winning(x if ranked is None else ranked, k, dim), 0.0)


@torch.no_grad()
def _winning(x: Tensor, k: int, dim: int) -> Tensor:
    """Where the k largest are."""
    if k >= x.shape[dim]:
        return torch.ones_like(x, dtype=torch.bool)
    winners = ~(x < _kth(x, k, dim))
    if not bool((winners.sum(dim) > k).any()):
        return winners
    x = torch.where(x.isnan(), torch.inf, x)
    kth = _kth(x, k, dim)
    above, tied = x > kth, x == kth
    return above | (tied & (tied.cumsum(dim) <= k - above.sum(dim, keepdim=True)))


def _kth(x: Tensor, k: int, dim: int) -> Tensor:
    """The k-th largest value; NaN if there is one."""
    return x.topk(k, dim, sorted=False).values.amin(dim, keepdim=True)


class KWinners(nn.Module):
    """Only the ``share`` of the units with the largest values speak.

    Args:
        units: number of units n.
        share: of them that win, in (0, 1]: ``k = round(share * units)``.
        eval_share: in evaluation, if another one.
        boost_strength: 0 chooses by the values themselves. It is an attribute: lower it between epochs for a schedule. Boosting
            multiplies, so it favours rare units only as far as winners are positive (they are where k is small).
        duty_cycle_period: training samples that the running mean of the duty cycle goes back to.

    ``duty_cycle`` ``(units,)``, a buffer, is learnt in training only; boosting uses it in evaluation, too. It stays
    float32 when the module is made ``half`` or ``bfloat16``, whose rounding would swallow what a sample adds.

    Shape:
        ``(..., units)`` to the same; each row has its own winners. Of equal values the one with the lowest index wins.

    Raises:
        ValueError: an argument out of its range, a share of which no winner is left, inputs of another shape.

    Example:
        >>> layer = KWinners(100, 0.05)
        >>> (layer(torch.randn(3, 100)) != 0).sum(1).tolist()
        [5, 5, 5]
    """

    duty_cycle: Tensor

    def __init__(
        self,
        units: SupportsIndex,
        share: float,
        *,
        eval_share: float | None = None,
        boost_strength: float = 0.0,
        duty_cycle_period: int = 1000,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        units = whole_at_least(1, units, f"{self._name}: units")
        if not (math.isfinite(boost_strength) and boost_strength >= 0):
            raise ValueError(f"{self._name}: boost_strength is {boost_strength}; expected a finite number >= 0")
        if not duty_cycle_period >= 1:
            raise ValueError(f"{self._name}: duty_cycle_period is {duty_cycle_period}; expected at least one sample")
        self.units, self.share, self.eval_share = units, share, share if eval_share is None else eval_share
        self.boost_strength, self.duty_cycle_period = boost_strength, duty_cycle_period
        for each in (self.share, self.eval_share):
            if not 0 < each <= 1:
                raise ValueError(f"{self._name}: a share is {each}; expected one in (0, 1]")
        self.register_buffer("duty_cycle", torch.zeros(units, device=device))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def forward(self, x: Tensor) -> Tensor:
        """The values of the winners, zeros for the others."""
        if x.dim() == 0 or x.shape[-1] != self.units:
            raise ValueError(f"{self._name}: expected x of shape (..., {self.units}), got {tuple(x.shape)}")
        y = k_winners(x, self._k(self.units), ranked=self._ranked(x, self.duty_cycle))
        if self.training:
            self._learn(y.reshape(-1, self.units))
        return y

    def _k(self, competing: int) -> int:
        share = self.share if self.training else self.eval_share
        if not (k := round(share * competing)):
            raise ValueError(f"{self._name}: a share of {share} of {competing} is no winner; raise it")
        return k

    def _ranked(self, x: Tensor, duty_cycle: Tensor) -> Tensor | None:
        if not self.boost_strength:
            return None
        # over the largest factor, and no smaller than e^-80 of it: nothing overflows, nothing becomes 0
        boost = self.boost_strength * (duty_cycle.min() - duty_cycle)
        return x.detach() * torch.exp(boost.clamp(min=-80.0))

    @torch.no_grad()
    def _learn(self, y: Tensor) -> None:
        """One batch ``(B, units, ...)`` into the duty cycle."""
        if y.numel():
            active = (y != 0).transpose(0, 1).flatten(1).to(self.duty_cycle.dtype).mean(1)
            self.duty_cycle.lerp_(active, min(len(y) / self.duty_cycle_period, 1.0))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = self.duty_cycle
        super()._apply(fn, recurse)
        if self.duty_cycle.itemsize < 4:
            self.duty_cycle = before.to(self.duty_cycle.device)
        return self

    def extra_repr(self) -> str:
        """Sizes and options."""
        return (
            f"{self.units}, share={self.share}, eval_share={self.eval_share}, boost_strength={self.boost_strength}, "
            f"duty_cycle_period={self.duty_cycle_period}"
        )


class KWinners2d(KWinners):
    """k-winners of feature maps.

    Args:
        units: channels.
        share: of the channels that win at each position (``local=True``), or of all channels and positions of a sample.
        local: whether the channels compete at each position, or all values of a sample with each other.
        others: as of ``KWinners``; there is one duty cycle per channel, its mean over positions.

    Shape:
        ``(B, units, H, W)`` to the same. Of equal values the one with the lowest index in the sample wins.

    Example:
        >>> layer = KWinners2d(8, 0.25)
        >>> (layer(torch.randn(2, 8, 3, 3)) != 0).sum(1).unique()
        tensor([2])
    """

    def __init__(
        self,
        units: SupportsIndex,
        share: float,
        *,
        local: bool = True,
        eval_share: float | None = None,
        boost_strength: float = 0.0,
        duty_cycle_period: int = 1000,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            units,
            share,
            eval_share=eval_share,
            boost_strength=boost_strength,
            duty_cycle_period=duty_cycle_period,
            device=device,
        )
        self.local = local

    def forward(self, x: Tensor) -> Tensor:
        """The values of the winners, zeros for the others."""
        if x.dim() != 4 or x.shape[1] != self.units:
            raise ValueError(f"{self._name}: expected x of shape (B, {self.units}, H, W), got {tuple(x.shape)}")
        ranked = self._ranked(x, self.duty_cycle[:, None, None])
        if self.local:
            y = k_winners(x, self._k(self.units), 1, ranked=ranked)
        else:
            rank = None if ranked is None else ranked.flatten(1)
            y = k_winners(x.flatten(1), self._k(math.prod(x.shape[1:])), ranked=rank).view_as(x)
        if self.training:
            self._learn(y)
        return y

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{super().extra_repr()}, local={self.local}"
