"""A liquid state machine: a fixed random spiking network whose spikes are features; only what reads them is trained.

In steps of ``dt``, the form that chips compute:

    u = decay u (1 - s) + gain (W_in x + W_rec s),    s = H(u - threshold),    H(0) = 0

with x the number of events of a step and s on the right the spikes of the step before. In continuous time (``tau_syn`` given),
solved exactly by ``eventnet.lif``:

    tau_mem V' = I - V,    tau_syn I' = -I,    tau_mem = -dt / ln(decay)

where an event adds ``gain W tau_mem / tau_syn`` to I: the integral of V over time is that of a jump by ``gain W``. As tau_syn and
dt go to 0 the forms differ in one thing: by how much a jump goes beyond the threshold is lost in steps, while in continuous time
the current goes on after the reset, so that nothing is (a jump by 2.5 thresholds is one spike or two).

Only the rows of units that fired are read and added, in the order of the events. So a sample's spikes do not depend on the number
of threads nor on the other samples of the batch, to the last bit.

Sources: Maass, Natschläger & Markram, "Real-time computing without stable states" (Neural Computation 2002); the stepped form and
its constants: Lin, Wang et al., "Resistive memory-based zero-shot liquid state machine for multimodal event data learning"
(Nature Computational Science 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet import Events, kernels, lif, metrics

__all__ = ["Drive", "Reservoir", "bisected", "random_weights", "spectral_radius", "spikes_in_steps", "with_rate"]

SQUARINGS = 24  # of a matrix, for its spectral radius
DOUBLINGS, HALVINGS = 40, 50  # of a bisection: for the bracket, and within it


# ---- weights --------------------------------------------------------------------------------------------------------


def random_weights(
    in_features: int,
    out_features: int,
    seed: int,
    *,
    density: float = 1.0,
    recurrent_density: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Input weights ``(in, out)`` and recurrent ones ``(out, out)``: normal, N(0, 1), each present with probability ``density``.

    A seed stands for a chip. Conductances drawn from a device model, ``G+ - G-``, serve as well.

    Example:
        >>> weight, recurrent_weight = random_weights(4, 3, seed=0, density=0.5)
        >>> weight.shape, recurrent_weight.shape
        (torch.Size([4, 3]), torch.Size([3, 3]))
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows, share in ((in_features, density), (out_features, recurrent_density)):
        if not 0 <= share <= 1:
            raise ValueError(f"random_weights: a density is a share from 0 to 1, got {share}")
        weight = torch.randn(rows, out_features, generator=generator, dtype=torch.float64)
        present = torch.rand(rows, out_features, generator=generator, dtype=torch.float64) < share
        found.append((weight * present).to(dtype))
    return found[0], found[1]


def spectral_radius(weight: Tensor) -> float:
    """Largest absolute value of the eigenvalues of a square matrix, ``lim |W^n|^(1/n)``, rounded to six digits.

    W is squared again and again, to n = 2^24, with its norm taken out each time: a power iteration that a complex pair of
    eigenvalues does not disturb, in matrix products only.

    Raises:
        ValueError: the matrix is not square, or not finite.

    Example:
        >>> spectral_radius(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
        2.0
    """
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"spectral_radius: expected a square matrix, got {tuple(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("spectral_radius: the matrix is not finite")
    power, log = weight.detach().double(), 0.0  # log |W^n| / n
    for k in range(SQUARINGS + 1):
        norm = float(power.norm())
        if norm == 0:
            return 0.0
        log += math.log(norm) / 2**k
        if k < SQUARINGS:
            power = (power / norm) @ (power / norm)
    return float(f"{math.exp(log):.6g}")


# ---- in steps -------------------------------------------------------------------------------------------------------


class Drive:
    """What the events of each step add up to: the rows of ``weight`` of the units that fired, times the events' values.

    Args:
        events: of ``in`` units; those at or after the end of their sample do not count, as in ``Events.to_dense``.
        dt: seconds of a step.
        weight: ``(in, out)``.

    Example:
        >>> events = Events.from_list([([0.0, 0.001, 0.001], [0, 1, 1])], num_units=2, duration=0.002)
        >>> drive = Drive(events, 1e-3, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        >>> [drive.at(t).tolist() for t in range(drive.num_steps)]
        [[[1.0, 0.0]], [[0.0, 6.0]]]
    """

    def __init__(self, events: Events, dt: float, weight: Tensor) -> None:
        kernels.check_layer_input("reservoir", events, weight)
        self.weight = weight
        self.batch_size = events.batch_size
        self.steps = events.num_steps(dt)  # (B,), of each sample
        self.num_steps = int(self.steps.max()) if events.batch_size else 0
        events = events.detach()
        events = events.keep(events.times < events.duration[events.samples])
        slack = 1 - torch.finfo(events.dtype).eps
        step = (events.times.double() / dt / slack).floor().to(torch.int64).clamp(max=self.num_steps - 1)
        bag = step * events.batch_size + events.samples
        bag, order = bag.sort(stable=True)
        self.units = events.units[order]
        self.values = None if events.values is None else events.values[order].to(weight.dtype)
        ends = torch.arange(self.num_steps * events.batch_size + 1, device=events.device)
        self.offsets = torch.searchsorted(bag, ends)
        self.starts = self.offsets[:: max(events.batch_size, 1)].tolist()

    def at(self, step: int) -> Tensor:
        """``(B, out)``: what arrives in a step; 0 in steps that are none of a sample's."""
        if step >= self.num_steps:
            return self.weight.new_zeros(self.batch_size, self.weight.shape[1])
        start, stop = self.starts[step], self.starts[step + 1]
        offsets = self.offsets[step * self.batch_size : (step + 1) * self.batch_size + 1] - start
        values = None if self.values is None else self.values[start:stop]
        return added_rows(self.weight, self.units[start:stop], offsets, values)


def added_rows(weight: Tensor, rows: Tensor, offsets: Tensor, values: Tensor | None = None) -> Tensor:
    """``(B, out)``: for each b the sum of the ``weight`` rows ``rows[offsets[b]:offsets[b + 1]]``, one after the other."""
    return F.embedding_bag(
        rows.to(torch.int64),
        weight,
        offsets,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )


@torch.no_grad()
def spikes_in_steps(
    events: Events,
    weight: Tensor,
    recurrent_weight: Tensor | None = None,
    *,
    dt: float,
    decay: float | Tensor = 0.9,
    threshold: float | Tensor = 5.0,
) -> Events:
    """Spikes of leaky integrate-and-fire neurons in steps of ``dt``; those of step t are at ``t * dt``.

        u = decay u (1 - s) + W_in x + W_rec s,    s = H(u - threshold)

    Args:
        events: of ``in`` units. A sample's spikes end with its duration.
        weight: ``(in, out)``; ``recurrent_weight``: ``(out, out)``, the row of the neuron that spiked, or None.
        dt: seconds of a step.
        decay: what is left of u after a step, from 0 to 1; one number or ``(out,)``.
        threshold: > 0; one number or ``(out,)``.

    Returns:
        ``Events`` of ``out`` units with the same durations.

    Example:
        >>> events = Events.from_list([([0.0, 0.001], [0, 0])], num_units=1, duration=0.004)
        >>> spikes_in_steps(events, torch.tensor([[3.0]]), torch.tensor([[6.0]]), dt=1e-3).times
        tensor([0.0010, 0.0020, 0.0030])
    """
    drive = Drive(events, dt, weight)
    out = weight.shape[1]
    u = weight.new_zeros(events.batch_size, out)
    fired = torch.zeros_like(u, dtype=torch.bool)
    found = [torch.empty(0, 2, dtype=torch.int64, device=weight.device)]
    ragged = bool((drive.steps != drive.num_steps).any())
    samples = torch.arange(events.batch_size + 1, device=weight.device)
    for t in range(drive.num_steps):
        u.masked_fill_(fired, 0.0).mul_(decay).add_(drive.at(t))
        if recurrent_weight is not None and len(found[-1]):
            sample, unit = found[-1].unbind(1)
            u.add_(added_rows(recurrent_weight, unit, torch.searchsorted(sample.contiguous(), samples)))
        fired = u > threshold
        if ragged:
            fired &= (t < drive.steps)[:, None]
        found.append(fired.nonzero())
    step = torch.arange(drive.num_steps, device=weight.device)
    step = step.repeat_interleave(torch.tensor([len(x) for x in found[1:]], dtype=torch.int64, device=weight.device))
    sample, unit = torch.cat(found).unbind(1)
    sample, order = sample.sort(stable=True)
    times = (step[order].double() * dt).to(events.dtype)
    offsets = torch.searchsorted(sample, samples)
    return Events.trusted(times, unit[order].to(torch.int32), offsets, out, events.duration)


# ---- the reservoir --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reservoir:
    """A fixed random spiking network on events; equations above.

    Args:
        weight: ``(in, out)``; ``recurrent_weight``: ``(out, out)`` or None. From a seed: ``Reservoir.random``; of a chip: the
            differences of its conductances.
        dt: seconds of a step.
        decay: what is left of a voltage after a step, in (0, 1); 0 is allowed in steps.
        threshold: > 0, in the units of ``gain * weight``.
        gain: of all weights: k in ``w = k (G+ - G-)``.
        tau_syn: seconds, for continuous time; None: in steps.

    Raises:
        ValueError: a bound is violated, or shapes do not fit.

    Example:
        >>> reservoir = Reservoir.random(64, 50, seed=0, dt=1e-3, gain=0.3, threshold=1.0)
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

    def __post_init__(self) -> None:
        if self.weight.dim() != 2:
            raise ValueError(f"Reservoir: expected a weight (in, out), got {tuple(self.weight.shape)}")
        out = self.weight.shape[1]
        if self.recurrent_weight is not None and self.recurrent_weight.shape != (out, out):
            raise ValueError(
                f"Reservoir: expected a recurrent_weight ({out}, {out}), got {tuple(self.recurrent_weight.shape)}"
            )
        for name, value in (("dt", self.dt), ("threshold", self.threshold), ("gain", self.gain)):
            if not 0 < value < math.inf:
                raise ValueError(f"Reservoir: {name} must be a positive number, got {value}")
        lowest = "[0" if self.tau_syn is None else "(0"
        if not 0 <= self.decay < 1 or (self.tau_syn is not None and self.decay == 0):
            raise ValueError(f"Reservoir: decay must be in {lowest}, 1), got {self.decay}")
        if self.tau_syn is not None and not 0 < self.tau_syn < math.inf:
            raise ValueError(f"Reservoir: tau_syn must be a positive number of seconds or None, got {self.tau_syn}")

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
        dtype: torch.dtype = torch.float32,
    ) -> Reservoir:
        """One with ``random_weights``; with ``radius`` the recurrent ones are scaled to that spectral radius, before the gain."""
        densities = {"density": density, "recurrent_density": recurrent_density}
        weight, recurrent = random_weights(in_features, out_features, seed, **densities, dtype=dtype)
        if radius is not None:
            own = spectral_radius(recurrent)
            if own == 0:
                raise ValueError(
                    "Reservoir.random: the recurrent weights have spectral radius 0: no scale gives another"
                )
            recurrent = recurrent * (radius / own)
        return cls(weight, recurrent, dt, decay, threshold, gain, tau_syn)

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
        """
        parts = [events[start : start + batch_size] for start in range(0, events.batch_size, batch_size)] or [events]
        return torch.cat([self._features(self(part), scale, times, tau) for part in parts])

    def _features(self, spikes: Events, scale: float, times: Tensor | list[float] | None, tau: float | None) -> Tensor:
        found = [spikes.counts().to(self.weight.dtype) / scale]
        if times is not None:
            grid = torch.as_tensor(times, dtype=torch.float64, device=spikes.device)
            traces = spikes.to(torch.float64).to_trace(grid, self.tau_mem if tau is None else tau)
            found.append(traces.flatten(1).to(self.weight.dtype))
        return torch.cat(found, 1)


# ---- calibration ----------------------------------------------------------------------------------------------------


def with_rate(
    reservoir: Reservoir,
    events: Events,
    rate: float,
    *,
    by: Literal["threshold", "input"] = "threshold",
    tolerance: float = 0.05,
) -> Reservoir:
    """The reservoir whose neurons have this mean rate on calibration events, by bisection.

    Args:
        events: a batch of typical input, of the training part.
        rate: spikes per second and neuron, averaged over samples and neurons; in steps at most 1 / dt.
        by: what is changed: the threshold, or a factor on the input weights only, which leaves the recurrence as it is.
        tolerance: relative; a rate beyond it is an error.

    Raises:
        ValueError: the rate cannot be reached: too little input, neurons that most inputs inhibit, or recurrent weights that keep
            the spikes going by themselves, so that the rate jumps past the wanted one.

    Example:
        >>> events = Events.from_latency(torch.rand(8, 64, generator=torch.manual_seed(0)), 0.0, 0.02)
        >>> reservoir = with_rate(Reservoir.random(64, 200, seed=0, radius=1.0), events, rate=20.0)
        >>> abs(metrics.firing_rates(reservoir(events)).mean().item() - 20.0) <= 1.0
        True
    """
    if by not in ("threshold", "input"):
        raise ValueError(f"with_rate: by must be 'threshold' or 'input', got {by!r}")
    if not rate > 0 or (reservoir.tau_syn is None and rate >= 1 / reservoir.dt):
        raise ValueError(
            f"with_rate: expected a rate in (0, 1 / dt = {1 / reservoir.dt:g}) spikes per second, got {rate}"
        )

    def scaled(factor: float) -> Reservoir:
        if by == "threshold":
            return replace(reservoir, threshold=reservoir.threshold / factor)
        return replace(reservoir, weight=reservoir.weight * factor)

    def reached(factor: float) -> float:
        return metrics.firing_rates(scaled(factor)(events)).mean().item()

    factor, found = bisected(reached, rate, tolerance / 10)
    if not abs(found - rate) <= tolerance * rate:
        raise ValueError(
            f"with_rate: the nearest to {rate:g} spikes per second is {found:g}. Either the rate ends there: too few events, or "
            "neurons whose weights add up to less than 0 stay silent. Or it jumps there: recurrent weights keep the spikes "
            "going, and a smaller spectral radius, or by='input', has more rates"
        )
    return scaled(factor)


def bisected(function: Callable[[float], float], wanted: float, tolerance: float) -> tuple[float, float]:
    """A factor > 0 at which a ``function`` that grows with it is nearest to ``wanted``, of those tried, and its value there.

    Doubles or halves from 1 until ``wanted`` is passed, then halves the interval of the factor's logarithm, until the value is
    within the relative tolerance.

    Example:
        >>> factor, value = bisected(lambda x: x * x, 9.0, 1e-6)
        >>> round(factor, 3), round(value, 3)
        (3.0, 9.0)
    """
    tried: list[tuple[float, float, float]] = []  # (distance, factor, value)

    def low(x: float) -> bool:
        value = function(math.exp(x))
        tried.append((abs(value - wanted), math.exp(x), value))
        return value < wanted

    def done() -> bool:
        return min(tried)[0] <= tolerance * abs(wanted)

    step = math.log(2)
    up = low(0.0)
    left = right = 0.0
    for _ in range(DOUBLINGS):
        if done():
            break
        left, right = (right, right + step) if up else (left - step, left)
        if low(right if up else left) != up:
            break
    else:
        return min(tried)[1:]
    for _ in range(HALVINGS):
        if done():
            break
        middle = (left + right) / 2
        left, right = (middle, right) if low(middle) else (left, middle)
    _, factor, value = min(tried)
    return factor, value
