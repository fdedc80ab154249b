"""LI: a leaky integrator that never spikes, read out in closed form.

    V' = (bias - V + I) / tau_mem,   I' = -I / tau_syn,   an event of unit j adds value * weight[j] to I

Between events V is a sum of exponentials, so its maximum, integral and samples need no time grid. ``Voltage`` also reads
the voltage of a spiking layer: at a spike V is exactly the threshold, so a reset subtracts ``threshold - reset`` and
the voltage is that of a leaky integrator plus one decaying exponential per spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eventnet import kernels
from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.kernels.reference import Neuron, check_finite, decay_integral, synaptic_kernel
from eventnet.layers.neuron import as_neuron, as_parameter, describe, register

__all__ = ["LI", "Voltage"]


@dataclass(frozen=True, eq=False)
class Voltage:
    """The voltage of a layer over the whole trial, ``0 <= t <= duration``; every reading is exact and differentiable.

    Made by ``LI`` and by ``lif(..., return_voltage=True)``. Gradients reach the weights, all neuron parameters and the
    times (and values) of the input events.
    """

    events: Events
    weight: Tensor
    neuron: Neuron
    spikes: Events | None = None
    backend: str = "auto"
    initial: Tensor | None = None  # volts at time 0, instead of the neuron's own start

    @property
    def _linear(self) -> Neuron:
        """The neurons without their spikes. One with an initial voltage has no rest, but a reset: it starts there."""
        if self.initial is None:
            return self.neuron
        return self.neuron._replace(threshold=self.neuron.bias.detach(), reset=self.initial)

    def __repr__(self) -> str:
        return f"Voltage of {self.events.batch_size} samples, {self.weight.shape[1]} neurons"

    @outside_graphs
    def max(self) -> Tensor:
        """``(B, N)`` largest voltage of the trial (for a neuron that spiked: its threshold).

        At an arrival where V stops rising, the maximum moves with that arrival; its gradient counts that in.
        """
        highest = kernels.li_max(self.events, self.weight, self._linear, self.backend)
        if self.spikes is None:
            return highest
        return torch.where(self.spikes.counts() > 0, self.neuron.threshold, highest)

    @outside_graphs
    def mean(self) -> Tensor:
        """``(B, N)`` average over the trial, ``1/T integral_0^T V dt`` (at T = 0: the voltage at the start)."""
        duration = self.events.duration.to(self.weight.dtype)[:, None]
        if duration.numel() > 0 and duration.min().item() > 0:
            return self.integral() / duration
        empty = duration == 0
        return torch.where(empty, self._linear.start(), self.integral() / torch.where(empty, 1.0, duration))

    @outside_graphs
    def integral(self, decay: float | None = None) -> Tensor:
        """``(B, N)`` ``integral_0^T V(t) e^{-t/decay} dt`` in volt seconds; without ``decay`` the plain integral."""
        if decay is not None and not decay > 0:
            raise ValueError(f"Voltage.integral: decay must be a positive number of seconds or None, got {decay}")
        rate = 0.0 if decay is None else 1.0 / decay
        total = kernels.li_integral(self.events, self.weight, self._linear, rate, self.backend)
        return total if self.spikes is None else total - self._sum_of_resets(rate)

    @outside_graphs
    def last(self) -> Tensor:
        """``(B, N)`` voltage at the end of each sample; of ``at``, with K different durations."""
        ends, which = self.events.duration.unique(return_inverse=True)
        return self.at(ends)[torch.arange(len(which), device=which.device), which]

    @outside_graphs
    def at(self, times: Tensor) -> Tensor:
        """``(B, K, N)`` voltage at ``times`` ``(K,)`` seconds (just after a spike at that very time).

        Memory is O(E N + K (K + B N)) for E events; per-neuron time constants take O(K^2 N).
        """
        dtype, neuron = self.weight.dtype, self.neuron
        grid, back = torch.as_tensor(times, dtype=self.events.dtype, device=self.weight.device).sort()
        if grid.dim() != 1 or not bool((torch.isfinite(grid) & (grid >= 0)).all()):
            raise ValueError("Voltage.at: expected times of shape (K,), finite seconds >= 0")
        kept, slot = self.events._before(grid)
        age = (grid[slot] - kept.times).to(dtype)[:, None]
        tau_mem, tau_syn = neuron.tau_mem.reshape(-1), neuron.tau_syn.reshape(-1)
        drive = self.weight[kept.units.to(torch.int64)]
        if kept.values is not None:
            drive = drive * kept.values.to(dtype)[:, None]
        shape = (self.events.batch_size, grid.numel(), self.weight.shape[1])
        where = (kept.samples, slot)
        voltage = self.weight.new_zeros(shape).index_put(where, drive * synaptic_kernel(age, tau_mem, tau_syn), True)
        current = self.weight.new_zeros(shape).index_put(where, drive * torch.exp(-age / tau_syn), True)
        gap = (grid[:, None] - grid[None, :]).clamp(min=0).to(dtype)[..., None]
        past = torch.ones_like(gap[..., 0]).tril()[..., None]
        total = _carry(torch.exp(-gap / tau_mem) * past, voltage)
        total = total + _carry(synaptic_kernel(gap, tau_mem, tau_syn) * past, current)
        total = total + neuron.bias
        total = total + (self._linear.start() - neuron.bias) * torch.exp(-grid.to(dtype)[:, None] / neuron.tau_mem)
        if self.spikes is not None:
            trace = self.spikes.to_trace(grid, tau_mem if tau_mem.numel() > 1 else tau_mem[0])
            total = total - (neuron.threshold - neuron.reset) * trace.to(dtype)
        check_finite(total)
        return total[:, back.argsort()]

    def _sum_of_resets(self, rate: float) -> Tensor:
        spikes, dtype = self.spikes, self.weight.dtype
        assert spikes is not None
        neuron = self.neuron.expand(spikes.num_units).at(spikes.units.to(torch.int64))
        left = (spikes.duration[spikes.samples] - spikes.times).to(dtype)
        fallen = (neuron.threshold - neuron.reset) * torch.exp(-rate * spikes.times.to(dtype))
        area = fallen * decay_integral(1 / neuron.tau_mem + rate, left)
        total = self.weight.new_zeros(spikes.batch_size * spikes.num_units).index_add(0, spikes._keys(), area)
        return total.reshape(spikes.batch_size, spikes.num_units)


def _carry(factor: Tensor, arrived: Tensor) -> Tensor:
    """Sum over earlier slots j of ``factor[k, j] arrived[:, j]``; factor is (K, K, 1) if shared, else (K, K, N)."""
    with torch.autocast(arrived.device.type, enabled=False):  # whose products have too few digits
        if factor.shape[-1] == 1:
            return factor[..., 0] @ arrived
        return torch.einsum("kjn,bjn->bkn", factor, arrived)


class LI(nn.Module):
    """Leaky-integrator readout: events in, ``Voltage`` out.

    Args:
        in_features, out_features: units of the events, number of outputs. ``weight`` is ``(in_features, out_features)``.
        tau_mem, tau_syn: seconds; one number or ``(out_features,)``.
        bias: resting voltage; one number or ``(out_features,)``. The voltage starts there.
        learn: names of the parameters that require grad, of weight, tau_mem, tau_syn, bias.
        backend: "auto", "cpu" or "reference"; see ``eventnet.kernels``.
        dtype: of the parameters; torch's default if not given.

    Example:
        >>> readout = LI(3, 2)
        >>> events = Events.from_list([([0.001], [0]), ([], [])], num_units=3, duration=0.02)
        >>> readout(events).max().shape, readout(events).at(torch.linspace(0, 0.02, 5)).shape
        (torch.Size([2, 2]), torch.Size([2, 5, 2]))
    """

    weight: Tensor
    tau_mem: Tensor
    tau_syn: Tensor
    bias: Tensor
    _never: Tensor
    _zero: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau_mem: float | Tensor = 20e-3,
        tau_syn: float | Tensor = 5e-3,
        bias: float | Tensor = 0.0,
        learn: tuple[str, ...] = ("weight",),
        backend: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        weight = torch.randn(in_features, out_features, dtype=dtype) / max(in_features, 1) ** 0.5
        taus = {"tau_mem": as_parameter(tau_mem, dtype), "tau_syn": as_parameter(tau_syn, dtype)}
        register(self, learn, weight=weight, **taus, bias=as_parameter(bias, dtype))
        for name, value in (("_never", torch.inf), ("_zero", 0.0)):  # its threshold and reset: it never spikes
            self.register_buffer(name, as_parameter(value, dtype), persistent=False)
        self._neuron()  # what is wrong is said here already

    @outside_graphs
    def forward(self, events: Events) -> Voltage:
        """``Voltage`` of ``out_features`` units for events of ``in_features`` units."""
        kernels.check_layer_input("LI", events, self.weight)
        return Voltage(events, self.weight, self._neuron(), backend=self.backend)

    def _neuron(self) -> Neuron:
        return as_neuron(
            self.out_features,
            self.weight,
            tau_mem=self.tau_mem,
            tau_syn=self.tau_syn,
            threshold=self._never,
            reset=self._zero,
            bias=self.bias,
        )

    def extra_repr(self) -> str:
        shown = {"tau_mem": self.tau_mem, "tau_syn": self.tau_syn, "bias": self.bias}
        return f"{self.in_features}, {self.out_features}, {describe(shown)}"
