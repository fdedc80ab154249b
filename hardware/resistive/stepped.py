"""Leaky integrate-and-fire neurons in steps of ``dt``, the form that chips compute.

    u = decay u (1 - s) + W_in x + W_rec s,    s = H(u - threshold),    H(0) = 0

with x the number of events of a step and s on the right the spikes of the step before. Only the rows of units that fired are read
and added, in the order of the events. So a sample's spikes do not depend on the number of threads nor on the other samples of the
batch, to the last bit.

Source: Lin, Wang et al., "Resistive memory-based zero-shot liquid state machine for multimodal event data learning" (Nature
Computational Science 2025).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eventnet import Events, kernels
from eventnet.hardware.resistive.weights import check_weights

__all__ = ["Drive", "spikes_in_steps"]


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

    Raises:
        TypeError, ValueError: shapes, dtypes or devices do not fit; weights that are not finite; a bound is violated.

    Example:
        >>> events = Events.from_list([([0.0, 0.001], [0, 0])], num_units=1, duration=0.004)
        >>> spikes_in_steps(events, torch.tensor([[3.0]]), torch.tensor([[6.0]]), dt=1e-3).times
        tensor([0.0010, 0.0020, 0.0030])
    """
    drive = Drive(events, dt, weight)
    check_weights("spikes_in_steps", weight, recurrent_weight)
    given = {"decay": torch.as_tensor(decay), "threshold": torch.as_tensor(threshold)}
    if not bool(((given["decay"] >= 0) & (given["decay"] <= 1)).all()):
        raise ValueError(f"spikes_in_steps: decay must be from 0 to 1, got {decay}")
    if not bool((given["threshold"] > 0).all()):
        raise ValueError(f"spikes_in_steps: threshold must be > 0, got {threshold}")
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
