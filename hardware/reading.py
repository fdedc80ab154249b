"""What a network on a chip says: scores of the classes, from the integers of its output population.

The voltage of an output is ``v volts`` above its reset, where ``volts`` is one number per neuron; at step t it is that of time
t dt. A sample that lasts n steps is read from step 0 to step n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["KINDS", "Reading", "Reader", "accepted"]

KINDS: Mapping[str, str] = {
    "max": "largest voltage",
    "mean": "mean voltage",
    "integral": "integral of the voltage",
    "at": "voltage at the end of every step",
    "last": "voltage at the end",
    "first_spike": "first spike",
    "count": "count of spikes",
}
OF_LAYERS: Mapping[str, tuple[str, ...]] = {
    "LI": ("max", "mean", "integral", "at"),
    "LIF": ("first_spike", "count"),
    "EGRU": ("last", "mean", "at"),
}


@dataclass(frozen=True)
class Reading:
    """How the outputs are read.

    Args:
        kind: ``"max"``, ``"mean"`` or ``"integral"`` of the voltage, or its samples ``"at"`` the end of every ``step``, or the
            ``"last"`` at the end of a dt; or the time of the ``"first_spike"``, or the ``"count"`` of spikes.
        factor: of the scores.
        decay: of the integral, seconds: V counts ``e^(-t/decay)`` and the integral is divided by it; None: alike at all times.
        step: seconds between two samples.
        volts, offset: of each output: ``V = volts v + offset``.
        lag: steps by which the outputs are late.
        of_steps: the mean is that of the voltages at the end of each step, as of gated units, not that over time. (Older files
            say ``"step_mean"``.)
    """

    kind: str
    factor: float = 1.0
    decay: float | None = None
    step: float | None = None
    volts: tuple[float, ...] = field(default=())
    offset: tuple[float, ...] = field(default=())
    lag: int = 0
    of_steps: bool = False

    def __post_init__(self) -> None:
        if self.kind == "step_mean":
            object.__setattr__(self, "kind", "mean")
            object.__setattr__(self, "of_steps", True)
        if self.kind not in KINDS:
            raise ValueError(f"readout: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "at" and not (self.step and self.step > 0):
            raise ValueError(f"readout 'at': expected the seconds of a step, Reading('at', step=...), got {self.step}")
        for name in ("volts", "offset"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.kind} ({KINDS[self.kind]})"

    def predict(self, scores: Tensor) -> Tensor:
        """The class of each sample, or of each step: the largest score, or the earliest spike."""
        return scores.argmin(-1) if self.kind == "first_spike" else scores.argmax(-1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Reading:
        """That of ``to_dict``."""
        return Reading(**plain)


def accepted(reading: Reading, layer: str) -> None:
    """An error if outputs of this kind of layer ("LI", "LIF", "EGRU") are not read so.

    Example:
        >>> accepted(Reading("max"), "LIF")
        Traceback (most recent call last):
        ValueError: readout 'max' of LIF outputs: expected first_spike or count
    """
    *others, last = OF_LAYERS[layer]
    if reading.kind not in OF_LAYERS[layer]:
        raise ValueError(f"readout {reading.kind!r} of {layer} outputs: expected {', '.join(others)} or {last}")


class Reader:
    """Adds up what a reading needs, a piece of the run at a time.

    Args:
        reading: what is wanted.
        steps: ``(B,)`` steps that each sample lasts.
        dt: seconds of a step.
    """

    def __init__(self, reading: Reading, steps: Tensor, dt: float) -> None:
        self.reading, self.steps, self.dt, self.done = reading, steps, dt, 0
        self.total: Tensor | None = None
        if reading.kind == "at":
            last = round(int(steps.max()) * dt / reading.step) if len(steps) else 0  # type: ignore[operator]
            self.samples = (torch.arange(1, last + 1) * (reading.step / dt)).round().to(torch.int64)  # type: ignore[operator]

    def add(self, v: Tensor, spikes: Tensor) -> None:
        """Voltages and spikes ``(T, B, N)`` of the next steps."""
        step = torch.arange(self.done, self.done + len(v), device=v.device)[:, None] - self.reading.lag
        there = (step >= 0) & (step <= self.steps.to(v.device))
        rule = "step_mean" if self.reading.kind == "mean" and self.reading.of_steps else self.reading.kind
        part = getattr(self, "_" + rule)(v, spikes, step, there)
        merge: Callable[[Tensor, Tensor], Tensor] = {"max": torch.maximum, "first_spike": torch.minimum}.get(
            self.reading.kind, torch.add
        )
        self.total = part if self.total is None else merge(self.total, part)
        self.done += len(v)

    def scores(self) -> Tensor:
        """``(B, N)``, for samples ``(B, K, N)``, as the float network's: logits, or times of first spikes (inf: none)."""
        if self.total is None:
            raise ValueError("a reader without a step has no scores; expected at least one")
        return self.total if self.reading.kind in ("first_spike", "count") else self.total * self.reading.factor

    def _volts(self, v: Tensor) -> Tensor:
        volts, offset = (
            torch.tensor(x, dtype=torch.float64, device=v.device) for x in (self.reading.volts, self.reading.offset)
        )
        return v * volts + offset

    def _max(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        return self._volts(v).masked_fill(~there[:, :, None], -torch.inf).amax(0)

    def _mean(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        steps = self.steps.to(v.device)
        return (self._volts(v) * self._trapezoid(step, there)[:, :, None]).sum(0) / steps.clamp(min=1)[:, None]

    def _integral(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        decay = self.reading.decay
        fading = torch.exp(-step * (self.dt / decay)) / decay if decay else torch.ones_like(step)
        return (self._volts(v) * (self._trapezoid(step, there) * fading * self.dt)[:, :, None]).sum(0)

    def _at(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        samples = self.samples.to(v.device) + self.reading.lag
        here = (samples >= self.done) & (samples < self.done + len(v))
        found = torch.zeros(v.shape[1], len(samples), v.shape[2], dtype=torch.float64, device=v.device)
        found[:, here] = self._volts(v)[samples[here] - self.done].transpose(0, 1)
        return found

    def _last(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        return (self._volts(v) * (step == self.steps.to(v.device))[:, :, None]).sum(0)

    def _step_mean(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        counted = (there & (step > 0))[:, :, None]
        return (self._volts(v) * counted).sum(0) / self.steps.to(v.device).clamp(min=1)[:, None]

    def _first_spike(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        fired = (spikes != 0) & there[:, :, None]
        return torch.where(fired, step[:, :, None] * self.dt, torch.inf).amin(0)

    def _count(self, v: Tensor, spikes: Tensor, step: Tensor, there: Tensor) -> Tensor:
        return (spikes * there[:, :, None]).sum(0).to(torch.float64)

    def _trapezoid(self, step: Tensor, there: Tensor) -> Tensor:
        ends = (step == 0) | (step == self.steps.to(step.device))
        return there * torch.where(ends, 0.5, 1.0)
