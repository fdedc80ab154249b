"""An EGRU step by step: for sensors, where the next input is not there yet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eventnet.kernels import choose
from eventnet.layers.egru import EGRU, EGRUState

__all__ = ["EGRUStream"]


class EGRUStream:
    """The layers of an ``EGRU`` with a state of their own: each call is a step, without gradient.

    Of all weights only those of inputs and units that are not zero are read. The weights are those that the layer had when the
    stream was made: make a new one after they have changed. Zoneout is that of evaluation; nothing is dropped.

    Args:
        layer: an ``EGRU`` of one direction on the CPU.
        batch: samples side by side.
        state: to go on from; None starts at 0.

    Shape:
        x ``(batch, input_size)``; what is told ``(batch, hidden_size)``, with ``trace_decay`` its trace.

    Example:
        >>> layer = EGRU(8, 16, num_layers=2)
        >>> stream, x = EGRUStream(layer, batch=3), torch.randn(5, 3, 8)
        >>> told = torch.stack([stream(step) for step in x])
        >>> torch.allclose(told, layer(x)[0], atol=1e-6)
        True
    """

    def __init__(self, layer: EGRU, batch: int = 1, state: EGRUState | None = None) -> None:
        if not isinstance(layer, EGRU):
            raise TypeError(f"EGRUStream: expected an EGRU, got {type(layer).__name__}")
        if not (state is None or isinstance(state, EGRUState)):
            raise TypeError(f"EGRUStream: expected a state EGRUState(c, y), got {type(state).__name__}")
        if layer.bidirectional:
            raise ValueError("EGRUStream: a layer of both directions needs the whole sequence")
        weight = next(layer.parameters())
        if choose(layer.backend, weight.device) != "cpu":
            raise ValueError("EGRUStream: needs the compiled kernels; use the layer itself, a step at a time")
        from eventnet.kernels.ops_egru import stepper

        self.layer, self.shape = layer, (batch, layer.input_size)
        size = (layer.num_layers, batch, layer.hidden_size)
        if state is None:
            state = EGRUState(weight.new_zeros(size), weight.new_zeros(size))
        for name, part in (("c", state.c), ("y", state.y)):
            if part.shape != size:
                raise RuntimeError(f"EGRUStream: expected state.{name} of shape {size}, got {tuple(part.shape)}")
        self._c, self._y = (part.detach().clone().contiguous() for part in (state.c, state.y))
        self._trace = None
        if layer.trace_decay is not None:
            self._trace = (
                self._y.new_zeros(batch, layer.hidden_size) if state.trace is None else state.trace.detach().clone()
            )
        self._steps: list[Any] = []
        for k in range(layer.num_layers):
            names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "threshold")
            parameters: dict[str, Any] = {name: getattr(layer, f"{name}_l{k}", None) for name in names}
            self._steps.append(stepper(**parameters, c=self._c[k], y=self._y[k], zoneout=layer.zoneout))

    def __call__(self, x: Tensor) -> Tensor:
        """What the last layer tells after ``x``."""
        if not isinstance(x, Tensor):
            raise TypeError(f"EGRUStream: expected the tensor of a step, got {type(x).__name__}")
        if x.shape != self.shape or x.dtype != self._c.dtype:
            raise RuntimeError(
                f"EGRUStream: expected x {self.shape} of {self._c.dtype}, got {tuple(x.shape)} of {x.dtype}"
            )
        told = x.detach().contiguous().numpy()
        for step in self._steps:
            told = step(told)
        if self._trace is None:
            return self._y[-1].clone()
        self._trace.lerp_(self._y[-1], 1 - self.layer.trace_decay)  # type: ignore[operator]
        return self._trace.clone()

    @property
    def state(self) -> EGRUState:
        """The state now, for ``EGRU`` or another stream."""
        return EGRUState(self._c.clone(), self._y.clone(), None if self._trace is None else self._trace.clone())
