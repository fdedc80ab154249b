"""Which context is this? Mean inputs of the tasks so far, and the nearest of them.

With task labels, the prototype of a task is the mean of its training inputs. Without, batches are told apart by a test: is the
distance between a batch's mean and the nearest prototype one that batches of the same task have? For n samples behind the
prototype, B in the batch and the batch's covariance S,

    T = |mean - prototype|^2 / (tr(S) (1/B + 1/n)),    nu T ~ chi^2(nu),    nu = tr(S)^2 / tr(S^2)

which asks for no inverse of S, of which B < C samples do not suffice. tr(S)^2 and tr(S^2) are estimated without bias for
Gaussian inputs; the distribution is Box's approximation.

Sources: Iyer et al., "Avoiding catastrophe" (2022; they use Hotelling's test with a pseudo-inverse); Box, "Some theorems on
quadratic forms applied in the study of analysis of variance problems" (1954); Bai & Saranadasa, "Effect of high dimension: by an
example of a two sample problem" (1996; the estimates).
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from eventnet.layers.whole import whole_at_least

__all__ = ["Prototypes"]


class Prototypes(nn.Module):
    """Mean inputs of tasks: the contexts of ``ActiveDendrites``.

    Args:
        features: length C of an input.

    ``contexts`` ``(N, C)`` and ``samples`` ``(N,)`` (behind each of them) are buffers, in the ``state_dict``. Inputs may be of
    another floating-point type than the prototypes.

    Raises:
        ValueError, TypeError: ``features`` that is not a whole number, at least 1; then inputs that are not ``(B, features)`` of
            finite floating-point numbers, a mean that the prototypes' type has no room for, no prototype to be nearest.

    Example:
        >>> prototypes, left, right = Prototypes(2), torch.randn(50, 2) - 9, torch.randn(50, 2) + 9
        >>> prototypes.add(left), prototypes.add(right)
        (0, 1)
        >>> prototypes.nearest(torch.tensor([[8.0, 9.5], [-7.0, -9.0]]))
        tensor([1, 0])
    """

    contexts: Tensor
    samples: Tensor

    def __init__(
        self, features: SupportsIndex, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        features = whole_at_least(1, features, "Prototypes: features")
        self.register_buffer("contexts", torch.empty(0, features, device=device, dtype=dtype))
        self.register_buffer("samples", torch.empty(0, device=device, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.contexts)

    @torch.no_grad()
    def add(self, x: Tensor) -> int:
        """A new task with the mean of its inputs ``(B, C)`` as prototype; its number."""
        self._check(x)
        self.contexts = torch.cat([self.contexts, self._mean(x)[None]])
        self.samples = torch.cat([self.samples, self.samples.new_tensor([len(x)])])
        return len(self) - 1

    def forward(self, x: Tensor) -> Tensor:
        """``nearest``, as a call that hooks see."""
        return self.nearest(x)

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        """The number of the nearest prototype to each input, ``(B, C)`` to ``(B,)``."""
        self._check(x)
        if not len(self):
            raise ValueError("Prototypes: there are none yet; add(x) makes one")
        # |x - p|^2 / 2 without |x|^2, which is the same for all; in float64, also under autocast, as large terms cancel
        contexts = self.contexts.double()
        return (contexts.square().sum(1) / 2 - x.double() @ contexts.T).argmin(1)

    @torch.no_grad()
    def assign(self, x: Tensor, significance: float = 1e-6) -> int:
        """The task of a batch ``(B, C)`` that comes from one, without its label; its prototype learns the batch.

        A batch that has such a distance from the nearest prototype with a probability below ``significance`` starts a new
        task: that is how often a task is split by chance, at each batch.
        """
        if not 0 < significance <= 1:
            raise ValueError(f"Prototypes: significance is {significance}; expected a probability, more than 0")
        p = self.p_values(x)
        if not len(p) or p.max() < significance:
            return self.add(x)
        task, mean = int(p.argmax()), self._mean(x)
        self.samples[task] += len(x)
        self.contexts[task].lerp_(mean, len(x) / float(self.samples[task]))
        return task

    @torch.no_grad()
    def p_values(self, x: Tensor) -> Tensor:
        """Of each prototype, ``(N,)``: how probable so large a distance of the batch's mean is in that task."""
        self._check(x)
        if (batch := len(x)) < 4:
            raise ValueError(f"Prototypes: expected a batch of at least 4 inputs to estimate their spread, got {batch}")
        mean = x.mean(0)
        trace, square = _spread((x - mean).double())  # float64, which autocast leaves alone and no float32 overflows
        variance = trace * (1 / batch + 1 / self.samples.double())
        distance = (mean - self.contexts).double().square().sum(1)
        if not trace > 0:  # all inputs are the same: of a task only if they are its prototype
            return (distance == 0).double()
        square = square.clamp(min=trace.square() / len(mean))  # as tr(S)^2 <= C tr(S^2); the estimate can be 0
        freedom = trace.square() / square
        return torch.special.gammaincc((freedom / 2).expand_as(distance), freedom * distance / (2 * variance))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("contexts", "samples"):  # as many as were saved
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape[1:] == getattr(self, name).shape[1:]:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Sizes, for ``print``."""
        return f"{self.contexts.shape[1]}, tasks={len(self)}"

    def _mean(self, x: Tensor) -> Tensor:
        """Of the inputs, as a prototype."""
        mean = x.mean(0).to(self.contexts)
        if not bool(mean.isfinite().all()):
            raise ValueError(
                f"Prototypes: the inputs' mean is too large for {mean.dtype}, the prototypes' type; scale them"
            )
        return mean

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.contexts.shape[1] or not len(x):
            raise ValueError(
                f"Prototypes: expected inputs of shape (B, {self.contexts.shape[1]}), B >= 1, got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"Prototypes: expected inputs of a floating-point type, got {x.dtype}")
        if not bool(x.isfinite().all()):  # one would be in a prototype for good
            raise ValueError("Prototypes: expected finite inputs, got NaN or infinity")


def _spread(centred: Tensor) -> tuple[Tensor, Tensor]:
    """tr(S) and an estimate of tr(S^2) of the covariance, of rows less their mean."""
    n = len(centred) - 1
    gram = (centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred) / n
    trace = gram.trace()
    return trace, n**2 / ((n + 2) * (n - 1)) * (gram.square().sum() - trace.square() / n)
