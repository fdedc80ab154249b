"""A liquid state machine: a fixed random spiking network whose spikes are features; only what reads them is trained.

In steps of ``dt``, the form that chips compute:

    u = decay u (1 - s) + gain (W_in x + W_rec s),    s = H(u - threshold),    H(0) = 0

with x the number of events of a step and s on the right the spikes of the step before. In continuous time (``tau_syn`` given),
solved exactly by ``eventnet.lif``:

    tau_mem V' = I - V,    tau_syn I' = -I,    tau_mem = -dt / ln(decay)

where an event adds ``gain W tau_mem / tau_syn`` to I: the integral of V over time is that of a jump by ``gain W``. As tau_syn and
dt go to 0 the forms differ in one thing: by how much a jump goes beyond the threshold is lost in steps, while in continuous time
the current goes on after the reset, so that nothing is (a jump by 2.5 thresholds is one spike or two).

Sources: Maass, Natschläger & Markram, "Real-time computing without stable states" (Neural Computation 2002); the stepped form and
its constants: Lin, Wang et al., "Resistive memory-based zero-shot liquid state machine for multimodal event data learning"
(Nature Computational Science 2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from eventnet import Events, kernels, lif
from eventnet.hardware.resistive.crossbar import IDEAL
from eventnet.hardware.resistive.devices import Cell
from eventnet.hardware.resistive.effects import Forming
from eventnet.hardware.resistive.formed import HALF_FORMED, formed_pairs
from eventnet.hardware.resistive.stepped import spikes_in_steps
from eventnet.hardware.resistive.weights import check_weights, random_weights

__all__ = ["Reservoir"]


@dataclass(frozen=True, eq=False, repr=False)
class Reservoir:
    """A fixed random spiking network on events; equations above.

    Decay, threshold and gain are those published for one chip and one data set; with other weights or inputs it can be silent or
    fire at every step. ``with_rate`` sets the threshold, or the input, for a mean rate.

    Args:
        weight: ``(in, out)``; ``recurrent_weight``: ``(out, out)`` or None. From a seed: ``Reservoir.random``; of the cells
            of a chip: ``Reservoir.formed``.
        dt: seconds of a step.
        decay: what is left of a voltage after a step, in (0, 1); 0 is allowed in steps.
        threshold: > 0, in the units of ``gain * weight``.
        gain: of all weights: k in ``w = k (G+ - G-)``.
        tau_syn: seconds, for continuous time; None: in steps.
        backend: of continuous time, as of ``eventnet.lif``; "reference" for weights on a GPU.

    Raises:
        ValueError: a bound is violated, shapes do not fit, or weights are not finite. TypeError: their dtypes or devices differ.

    Example:
        >>> reservoir = Reservoir.random(64, 50, seed=0, dt=1e-3, gain=0.3, threshold=1.0)
        >>> reservoir
        Reservoir(64 inputs, 50 units, dt=0.001, decay=0.9, threshold=1.0, gain=0.3, tau_syn=None, backend=auto)
        >>> events = Events.from_latency(torch.rand(2, 64, generator=torch.manual_seed(0)), 0.0, 0.02)
        >>> spikes = reservoir(events)
        >>> reservoir.features(events, times=[0.01, 0.02], tau=0.01).shape  # counts, and two traces
        torch.Size([2, 150])
    """

    weight: Tensor
    recurrent_weight: Tensor | None = None
    dt: float = 1e-3
    decay: float = 0.9
    threshold: float = 5.0
    gain: float = 0.07
    tau_syn: float | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_weights("Reservoir", self.weight, self.recurrent_weight)
        for name, value in (("dt", self.dt), ("threshold", self.threshold), ("gain", self.gain)):
            if not 0 < value < math.inf:
                raise ValueError(f"Reservoir: {name} must be a positive number, got {value}")
        lowest = "[0" if self.tau_syn is None else "(0"
        if not 0 <= self.decay < 1 or (self.tau_syn is not None and self.decay == 0):
            raise ValueError(f"Reservoir: decay must be in {lowest}, 1), got {self.decay}")
        if self.tau_syn is not None and not 0 < self.tau_syn < math.inf:
            raise ValueError(f"Reservoir: tau_syn must be a positive number of seconds or None, got {self.tau_syn}")

    def __repr__(self) -> str:
        inputs, units = self.weight.shape
        rest = {each.name: getattr(self, each.name) for each in fields(self)[2:]}
        return (
            f"Reservoir({inputs} inputs, {units} units, {', '.join(f'{name}={value}' for name, value in rest.items())})"
        )

    @classmethod
    def random(
        cls,
        in_features: int,
        out_features: int,
        seed: int,
        *,
        density: float = 1.0,
        recurrent_density: float = 1.0,
        radius: float | None = None,
        dt: float = 1e-3,
        decay: float = 0.9,
        threshold: float = 5.0,
        gain: float = 0.07,
        tau_syn: float | None = None,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> Reservoir:
        """One with ``random_weights``; with ``radius`` the recurrent ones are scaled to that spectral radius, before the gain."""
        densities = {"density": density, "recurrent_density": recurrent_density}
        weights = random_weights(in_features, out_features, seed, **densities, radius=radius, dtype=dtype)
        return cls(*weights, dt, decay, threshold, gain, tau_syn, backend)

    @classmethod
    def formed(
        cls,
        in_features: int,
        out_features: int,
        seed: int,
        *,
        forming: Forming = HALF_FORMED,
        cell: Cell = IDEAL,
        age: float = 0.0,
        radius: float | None = None,
        dt: float = 1e-3,
        decay: float = 0.9,
        threshold: float = 1.0,
        gain: float = 1.0,
        tau_syn: float | None = None,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> Reservoir:
        """One whose weights are the conductances that forming left in the cells of one chip: ``formed_pairs``.

        Its weights are fixed: read noise, which is new at every read, is left out, and so are wires. The threshold is a guess;
        ``with_rate`` sets it for a rate of spikes.

        Args:
            seed: the chip.
            forming, cell, age, radius: as of ``formed_pairs``; a weight of 1 is a cell at G_max.

        Example:
            >>> from eventnet.hardware.resistive import HFOX
            >>> fresh, aged = (Reservoir.formed(64, 50, seed=3, cell=HFOX, age=age, radius=1.0) for age in (1.0, 86_400.0))
            >>> f"{(fresh.weight - aged.weight).norm() / fresh.weight.norm():.2f}"  # the same cells, a day older
            '0.12'
        """
        weight, recurrent = (
            pair.weight().t().contiguous()
            for pair in formed_pairs(
                in_features, out_features, seed, forming=forming, cell=cell, age=age, radius=radius, dtype=dtype
            )
        )
        return cls(weight, recurrent, dt, decay, threshold, gain, tau_syn, backend)

    @property
    def tau_mem(self) -> float:
        """Seconds in which a voltage falls to 1/e."""
        return -self.dt / math.log(self.decay) if self.decay else 0.0

    def __call__(self, events: Events) -> Events:
        """The spikes, as ``Events`` of ``out`` units."""
        weight, recurrent = self.weight.detach(), self.recurrent_weight
        recurrent = None if recurrent is None else recurrent.detach()
        scale = self.gain if self.tau_syn is None else self.gain * self.tau_mem / self.tau_syn
        scaled, scaled_recurrent = weight * scale, None if recurrent is None else recurrent * scale
        if self.tau_syn is None:
            options = {"dt": self.dt, "decay": self.decay, "threshold": self.threshold}
            return spikes_in_steps(events, scaled, scaled_recurrent, **options)
        return lif(
            events.detach(),
            scaled,
            recurrent_weight=scaled_recurrent,
            tau_mem=self.tau_mem,
            tau_syn=self.tau_syn,
            threshold=self.threshold,
            backend=self.backend,
        )

    def features(
        self,
        events: Events,
        *,
        scale: float = 1.0,
        times: Tensor | list[float] | None = None,
        tau: float | None = None,
        batch_size: int = 1000,
    ) -> Tensor:
        """``(B, out)`` spike counts / ``scale``; with K ``times`` followed by ``(B, K out)`` traces of the spikes at these times.

        Args:
            events: of any number of samples: ``batch_size`` are run at a time, which changes no number.
            times: seconds, ``(K,)``.
            tau: seconds of the traces, ``sum e^{-(times[k] - t)/tau}`` over spikes up to times[k]; ``tau_mem`` if not given.

        Returns:
            In the weight's dtype; trace k is at columns ``out (k + 1)`` to ``out (k + 2)``.

        Raises:
            ValueError: a bound is violated, times that are not finite, or a ``tau`` without ``times``.
        """
        if not 0 < scale < math.inf or batch_size < 1:
            raise ValueError(
                f"Reservoir: expected a scale > 0 and a batch_size >= 1, got scale={scale}, batch_size={batch_size}"
            )
        if times is None and tau is not None:
            raise ValueError("Reservoir: a tau is of traces: times says when they are taken, got none")
        if times is not None and not bool(torch.isfinite(torch.as_tensor(times)).all()):
            raise ValueError("Reservoir: expected finite times, in seconds")
        kernels.check_layer_input("Reservoir", events, self.weight)
        parts = [events[start : start + batch_size] for start in range(0, events.batch_size, batch_size)] or [events]
        return torch.cat([self._features(self(part), scale, times, tau) for part in parts])

    def _features(self, spikes: Events, scale: float, times: Tensor | list[float] | None, tau: float | None) -> Tensor:
        found = [spikes.counts().to(self.weight.dtype) / scale]
        if times is not None:
            grid = torch.as_tensor(times, dtype=torch.float64, device=spikes.device)
            traces = spikes.to(torch.float64).to_trace(grid, self.tau_mem if tau is None else tau)
            found.append(traces.flatten(1).to(self.weight.dtype))
        return torch.cat(found, 1)
