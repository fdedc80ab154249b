"""Active dendrites: what a unit says is gated by the one of its dendritic segments that knows the context.

    y_i = w_i . x + b_i                    d_ij = u_ij . context
    j*  = argmax_j |d_ij|                  y'_i = y_i sigmoid(d_ij*)

Segments see the context only, which many rows share (all samples of a task): they are computed once for each distinct context.
The gradient passes through the winning segment of each unit.

Source: Iyer, Grewal, Velu, Souza, Forest & Ahmad, "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic
environments" (Frontiers in Neurorobotics, 2022).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eventnet.layers.sparse_weights import fan_in_uniform_, sparsify_
from eventnet.layers.whole import whole

__all__ = ["ActiveDendrites", "ActiveDendrites2d", "Segments"]

CHOICES = ("absolute_max", "max")
Context = Tensor | tuple[Tensor, Tensor]


class Segments(nn.Module):
    """Dendritic segments of units: from contexts to the gates of the units, in (0, 1).

    Args:
        units: that have segments.
        segments: of each unit; with one there is no choice.
        context_features: length C of a context.
        choice: of the segment that gates: "absolute_max", by |d|, or "max", by d.
        density: of the segments' weights.
        context_share: share of a context that is not zero; initial weights are larger where it is small.

    Shape:
        ``(C,)`` to ``(units,)``; ``(N, C)`` to ``(N, units)``. ``weight`` is ``(units, segments, C)``.

    Example:
        >>> gates = Segments(5, 3, 8)(torch.randn(2, 8))
        >>> gates.shape, bool(((0 < gates) & (gates < 1)).all())
        (torch.Size([2, 5]), True)
    """

    weight: Tensor

    def __init__(
        self,
        units: int,
        segments: int,
        context_features: int,
        *,
        choice: str = "absolute_max",
        density: float = 1.0,
        context_share: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_options(choice, density=density, context_share=context_share)
        if any((whole(size) or 0) < 1 for size in (units, segments, context_features)):
            raise ValueError(
                f"Segments: {units} units, {segments} segments, {context_features} context features; expected whole "
                "numbers, at least one each"
            )
        self.units, self.segments, self.context_features = units, segments, context_features
        self.choice, self.density, self.context_share = choice, density, context_share
        self.weight = nn.Parameter(torch.empty(units, segments, context_features, device=device, dtype=dtype))
        fan_in_uniform_(self.weight, density * context_share, rows=2)
        if density < 1:
            sparsify_(self, density, rows=2)

    def forward(self, context: Tensor) -> Tensor:
        """The gates of the units."""
        return torch.sigmoid(self.activation(context))

    def activation(self, context: Tensor) -> Tensor:
        """``d_ij*``: of each unit that of the segment which gates."""
        if not isinstance(context, Tensor):
            raise TypeError(f"Segments: expected a tensor of contexts, got {type(context).__name__}")
        if context.dim() not in (1, 2) or context.shape[-1] != self.context_features:
            raise ValueError(
                f"Segments: expected contexts of shape (N, {self.context_features}) or ({self.context_features},), "
                f"got {tuple(context.shape)}"
            )
        weight = self.weight.flatten(0, 1)
        # autocast brings them together
        fits = context.dtype == weight.dtype or torch.is_autocast_enabled(context.device.type)
        if not fits or context.device != weight.device:
            raise TypeError(
                f"Segments: contexts are {context.dtype} on {context.device}, weights are {weight.dtype} on {weight.device}"
            )
        d = (context @ weight.T).unflatten(-1, (self.units, self.segments))
        if self.segments == 1:
            return d.squeeze(-1)
        best = (d.detach().abs() if self.choice == "absolute_max" else d.detach()).argmax(-1, keepdim=True)
        return d.gather(-1, best).squeeze(-1)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return (
            f"{self.units}, {self.segments}, {self.context_features}, choice={self.choice!r}, density={self.density}, "
            f"context_share={self.context_share}"
        )


class ActiveDendrites(nn.Module):
    """A linear layer whose units are gated by their dendritic segments.

    Args:
        in_features, out_features, bias: as of ``nn.Linear``.
        segments: of each unit; 0: none, the layer is linear and takes no context.
        context_features: length C of a context.
        choice, segment_density, context_share: ``choice``, ``density``, ``context_share`` of ``Segments``.
        density: of the weights; they stay sparse under any optimiser (``sparsify_``).
        input_share: share of the inputs that are not zero; initial weights are larger where it is small.

    Shape:
        x ``(B, ..., in)`` to ``(B, ..., out)``; the context is ``(C,)`` (one for all rows), ``(B, C)`` (one per row), or a
        pair of the distinct contexts ``(N, C)`` and the index ``(B,)`` of each row's among them. Segments are computed once
        for each context that is passed: with few distinct ones pass the pair.

    The parts are ``linear`` (``nn.Linear``) and ``segments`` (``Segments``, or None). With a density below 1 keep the layer by
    its ``state_dict``: torch does not pickle parametrized modules (``copy.deepcopy`` works).

    Raises:
        ValueError: sizes, options or shapes that do not fit; no context, or one without segments.
        TypeError: contexts or an index that are no tensors; contexts of another dtype or device than the segments.
        IndexError: an index out of range.

    Example:
        >>> layer = ActiveDendrites(20, 10, segments=4, context_features=6)
        >>> x, contexts, task = torch.randn(3, 20), torch.randn(2, 6), torch.tensor([0, 1, 0])
        >>> torch.allclose(layer(x, (contexts, task)), layer(x, contexts[task]), atol=1e-6)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        segments: int,
        context_features: int = 0,
        *,
        bias: bool = True,
        choice: str = "absolute_max",
        density: float = 1.0,
        segment_density: float = 1.0,
        input_share: float = 1.0,
        context_share: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        _sparse_(self.linear, density, input_share)
        self.segments = _segments(
            out_features,
            segments,
            context_features,
            choice=choice,
            density=segment_density,
            context_share=context_share,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """What the units say in these contexts."""
        if x.dim() < 2:
            raise ValueError(f"ActiveDendrites: expected x of shape (B, ..., in), got {tuple(x.shape)}")
        y, gate = self.linear(x), _gate(self, context, len(x))
        if gate is None:
            return y
        return y * (gate if gate.dim() == 1 else gate.view(len(x), *(1,) * (x.dim() - 2), gate.shape[-1]))


class ActiveDendrites2d(nn.Module):
    """A convolution whose channels are gated by their dendritic segments, alike at all positions.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, bias: as of ``nn.Conv2d``.
        others: as of ``ActiveDendrites``.

    Shape:
        x ``(B, in, H, W)`` to ``(B, out, H', W')``; contexts as of ``ActiveDendrites``, one per sample.

    The parts are ``conv`` (``nn.Conv2d``) and ``segments`` (``Segments``, or None). Copies are as of ``ActiveDendrites``.

    Raises:
        ValueError, TypeError, IndexError: as ``ActiveDendrites``.

    Example:
        >>> layer = ActiveDendrites2d(3, 8, 5, segments=4, context_features=6)
        >>> layer(torch.randn(2, 3, 9, 9), torch.randn(6)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        segments: int,
        context_features: int = 0,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        choice: str = "absolute_max",
        density: float = 1.0,
        segment_density: float = 1.0,
        input_share: float = 1.0,
        context_share: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, bias=bias, device=device, dtype=dtype
        )
        _sparse_(self.conv, density, input_share)
        self.segments = _segments(
            out_channels,
            segments,
            context_features,
            choice=choice,
            density=segment_density,
            context_share=context_share,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """What the channels say in these contexts."""
        if x.dim() != 4:
            raise ValueError(f"ActiveDendrites2d: expected x of shape (B, in, H, W), got {tuple(x.shape)}")
        y, gate = self.conv(x), _gate(self, context, len(x))
        return y if gate is None else y * gate[..., None, None]


def _check_options(choice: str, **shares: float) -> None:
    if choice not in CHOICES:
        raise ValueError(f"Segments: choice is {choice!r}; expected one of {', '.join(map(repr, CHOICES))}")
    _check_shares(**shares)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name} is {share}; expected a share in (0, 1]")


def _sparse_(layer: nn.Linear | nn.Conv2d, density: float, input_share: float) -> None:
    _check_shares(density=density, input_share=input_share)
    if 0 in layer.weight.shape[1:]:
        raise ValueError(f"expected at least one input, got {layer}")
    fan_in_uniform_(layer.weight, density * input_share)
    if density < 1:
        sparsify_(layer, density)


def _segments(
    units: int, segments: int, context_features: int, *, choice: str, density: float, context_share: float, **own: Any
) -> Segments | None:
    options: dict[str, Any] = {"choice": choice, "density": density, "context_share": context_share}
    _check_options(**options)  # where there are no segments, too
    return Segments(units, segments, context_features, **options, **own) if segments else None


def _gate(layer: ActiveDendrites | ActiveDendrites2d, context: Context | None, rows: int) -> Tensor | None:
    """``(units,)`` or ``(B, units)``; None of a layer without segments."""
    name = type(layer).__name__
    if layer.segments is None:
        if context is not None:
            raise ValueError(f"{name}: a layer with segments=0 takes no context")
        return None
    forms = (
        "a context: (C,), (B, C), or the distinct ones and their index ((N, C), (B,)), tensors, C = "
        f"{layer.segments.context_features}"
    )
    if context is None:
        raise ValueError(f"{name}: needs {forms}")
    if isinstance(context, Tensor):
        if context.dim() == 2 and len(context) != rows:
            raise ValueError(
                f"{name}: expected one context for each of {rows} rows, got {len(context)}; fewer distinct ones are "
                "passed with the index of each row's: (contexts, index)"
            )
        return layer.segments(context)
    parts = context if isinstance(context, tuple | list) else ()
    if len(parts) != 2 or not all(isinstance(part, Tensor) for part in parts):
        of = ", ".join(type(part).__name__ for part in parts[:3])
        raise TypeError(f"{name}: expected {forms}, got {type(context).__name__}{of and f' of {of}'}")
    contexts, index = context
    whole_numbers = index.dtype in (torch.int64, torch.int32)
    if contexts.dim() != 2 or not len(contexts) or index.shape != (rows,) or not whole_numbers:
        raise ValueError(
            f"{name}: expected contexts (N, C), one or more, and an index ({rows},) of integers, got "
            f"{tuple(contexts.shape)} and {tuple(index.shape)} of {index.dtype}"
        )
    return layer.segments(contexts).index_select(0, index)  # which refuses an index out of range
