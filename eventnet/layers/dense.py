"""A spiking layer between dense layers: tensors ``(T, B, N)`` in and out, exact spike times in between."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.layers.lif import LIF
from eventnet.layers.readout import Voltage

__all__ = ["Dense", "mean_trace"]

INPUTS, OUTPUTS = ("spikes", "currents"), ("spikes", "trace", "voltage")


@outside_graphs
def mean_trace(events: Events, steps: int, dt: float, tau: float) -> Tensor:
    """``(T, B, N)``: the mean of the trace ``r' = -r / tau + spikes`` over each step of ``dt`` seconds; differentiable.

    An event at t gives ``(tau / dt) (1 - e^{-(end - t) / tau})`` to its step, the more the earlier it comes, and less and less
    to the later ones. It passes from one step to the next, and in at the end of the last one, without a jump. Samples of a
    trace jump there, which no gradient tells; and that at the end is the larger the later an event comes, so that a gradient
    that asks for more of it delays spikes until they are gone.

    Example:
        >>> events = Events.from_list([([0.0], [0])], num_units=1, duration=0.02)
        >>> mean_trace(events, 2, 10e-3, tau=10e-3).flatten()
        tensor([0.6321, 0.2325])
    """
    ends = _ends(events, steps, dt)
    kept, slot = events._before(ends)
    size = torch.ones_like(kept.times) if kept.values is None else kept.values
    came = size.new_zeros(steps, events.batch_size, events.num_units)
    came = came.index_put((slot, kept.samples, kept.units.to(torch.int64)), size, accumulate=True)
    left = events.to_trace(ends, tau).transpose(0, 1)
    before = torch.nn.functional.pad(left, (0, 0, 0, 0, 1, 0))[:-1]
    return (came + before - left) * (tau / dt)  # the integral of r', solved for that of r


def _ends(events: Events, steps: int, dt: float) -> Tensor:
    """Seconds at which the steps end, ``(T,)``."""
    return (torch.arange(1, steps + 1, dtype=torch.float64, device=events.device) * dt).to(events.dtype)


class Dense(nn.Module):
    """A layer of events as one of dense tensors ``(T, B, N)`` in steps of ``dt`` seconds; its spikes stay off the grid.

    Args:
        layer: a ``LIF``, an ``LI``, or any module that takes ``Events`` and returns ``Events`` or a ``Voltage``.
        dt: seconds per step.
        inputs: what comes in. "spikes": counts, n of step k being n events at ``k dt``. "currents": numbers that hold for a
            step each, by ``LIF.drive``; differentiable.
        outputs: what goes out. "spikes": how many come in each step. Counts move in jumps, so no gradient flows through them,
            and a warning says so where one would be needed. "trace": ``mean_trace``, differentiable. "voltage": the
            membrane's at the ends of the steps, differentiable; of a ``LIF``, or of a layer that returns a ``Voltage``.
        tau: seconds, of the trace.

    Each call starts anew, from the layer's initial voltage.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(5, 8), Dense(LIF(8, 4), 1e-3, inputs="currents", outputs="trace"), nn.Linear(4, 2))
        >>> model(torch.rand(20, 3, 5)).shape  # 20 steps, 3 samples
        torch.Size([20, 3, 2])
    """

    def __init__(
        self, layer: nn.Module, dt: float, *, inputs: str = "spikes", outputs: str = "spikes", tau: float = 20e-3
    ) -> None:
        super().__init__()
        for name, value, known in (("inputs", inputs, INPUTS), ("outputs", outputs, OUTPUTS)):
            if value not in known:
                raise ValueError(f"Dense: {name} must be one of {', '.join(known)}, got {value!r}")
        for name, seconds in (("dt", dt), ("tau", tau)):
            if not isinstance(seconds, int | float) or not 0 < seconds < inf:
                raise ValueError(f"Dense: {name} must be a positive number of seconds, got {seconds!r}")
        if inputs == "currents" and not isinstance(layer, LIF):
            raise TypeError(f"Dense: inputs='currents' drive a LIF layer; {type(layer).__name__} takes events only")
        self.layer, self.dt, self.inputs, self.outputs, self.tau = layer, float(dt), inputs, outputs, float(tau)

    @outside_graphs
    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, out)`` for ``x`` (T, B, in)."""
        if not isinstance(x, Tensor):
            raise TypeError(f"Dense: expected a tensor of shape (T, B, N), got {type(x).__name__}")
        if x.dim() != 3:
            raise ValueError(
                f"Dense: expected a tensor of shape (T, B, N), got {tuple(x.shape)}; what stands still is one step: "
                "x.flatten(1)[None]"
            )
        if self.outputs == "voltage":
            return self._voltage(x)
        spikes = self._driven().drive(x, self.dt) if self.inputs == "currents" else self.layer(self._events(x))
        if not isinstance(spikes, Events):
            raise TypeError(
                f"Dense: {type(self.layer).__name__} returned {type(spikes).__name__}; expected Events for "
                f"outputs={self.outputs!r} (a Voltage: outputs='voltage')"
            )
        if self.outputs == "spikes":
            return _as_long_as(x, spikes.to_dense(self.dt))
        return mean_trace(spikes, len(x), self.dt, self.tau)

    def _voltage(self, x: Tensor) -> Tensor:
        if self.inputs == "currents":
            return self._driven().drive(x, self.dt, return_voltage=True)[1]
        events = self._events(x)
        voltage = self.layer(events, True)[1] if isinstance(self.layer, LIF) else self.layer(events)
        if not isinstance(voltage, Voltage):
            raise TypeError(
                f"Dense: {type(self.layer).__name__} returned {type(voltage).__name__}; outputs='voltage' is for a LIF layer "
                "or one that returns a Voltage, such as LI"
            )
        return voltage.at(_ends(events, len(x), self.dt)).transpose(0, 1)

    def _driven(self) -> LIF:
        assert isinstance(self.layer, LIF)
        return self.layer

    def _events(self, x: Tensor) -> Events:
        if x.is_floating_point() and bool((x != x.round()).any()):
            raise ValueError(
                "Dense: inputs='spikes' takes counts, 0, 1, 2, ...; numbers of any size: inputs='currents'"
            )
        return Events.from_dense(x, self.dt)

    def extra_repr(self) -> str:
        tau = f", tau={self.tau:g}" if self.outputs == "trace" else ""
        return f"dt={self.dt:g}, inputs={self.inputs!r}, outputs={self.outputs!r}{tau}"


def _as_long_as(x: Tensor, raster: Tensor) -> Tensor:
    """With as many steps as ``x``, also where there are no samples to take their number from."""
    return raster if len(raster) == len(x) else raster.new_zeros(len(x), *raster.shape[1:])
