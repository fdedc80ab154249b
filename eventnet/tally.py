"""What of numbers and of events counts: those that are not zero, by row and by column, and events before the end of their sample.

Each has a compiled form for contiguous tensors on the CPU, which reads every number once, and one in torch for all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet.counts import kept_of
from eventnet.events import Events
from eventnet.kernels import cpu

__all__ = ["InSteps", "Tally", "by_step", "sent_and_met", "tally"]


@dataclass(frozen=True)
class Tally:
    """Of numbers ``(R, N)``: how many are not zero, in all, in each row ``(R,)`` and in each column ``(N,)``; and how many of
    these are *graded*, neither 1 nor -1."""

    active: int
    graded: int
    rows: Tensor
    columns: Tensor | None = None


class InSteps(NamedTuple):
    """Events as the numbers ``(T, B, N)`` of ``Events.to_dense(dt)``."""

    events: Events
    dt: float


def tally(x: Tensor | InSteps, columns: bool = False) -> Tally:
    """Of numbers ``(..., N)``, rows in the order that they have in memory; ``columns`` if asked for.

    Example:
        >>> found = tally(torch.tensor([[1.0, 0.0], [0.5, -1.0]]), columns=True)
        >>> found.active, found.graded, found.rows.tolist(), found.columns.tolist()
        (3, 1, [1, 2], [2, 1])
    """
    if isinstance(x, InSteps):
        return kept_of(x.events, f"tally {x.dt} {columns}", lambda: _tally_in_steps(*x, columns))
    if x.is_inference():  # which has no version
        return _tally(x, columns)
    # layers after each other meet the same tensor, unless something in between changed it in place
    return kept_of(x, f"tally {x._version} {columns}", lambda: _tally(x, columns))


def _tally(x: Tensor, columns: bool) -> Tally:
    x = in_rows(x)
    kernel = _kernel(x)
    if kernel is None:
        there = x != 0
        by_column = there.sum(0) if columns else None
        return Tally(int(there.sum()), int((there & (x.abs() != 1)).sum()), there.sum(1), by_column)
    active, graded, rows, found = kernel.tally(x.detach().numpy(), columns, torch.get_num_threads())
    return Tally(active, graded, torch.from_numpy(rows), torch.from_numpy(found) if columns else None)


def _tally_in_steps(events: Events, dt: float, columns: bool) -> Tally:
    kernel = _kernel(events.times)
    if kernel is None or (events.values is not None and events.values.dtype != events.dtype):
        return _tally(events.to_dense(dt), columns)
    steps, slack = events.num_steps(dt), 1 - torch.finfo(events.dtype).eps
    arrays = [_array(x) for x in (events.times, events.units, events.offsets, events.values, events.duration)]
    active, graded, rows, found = kernel.tally_in_steps(*arrays, _array(steps), events.num_units, dt, slack)
    return Tally(active, graded, torch.from_numpy(rows).flatten(), torch.from_numpy(found))


def in_rows(x: Tensor) -> Tensor:
    """``(R, N)``, rows in the order that they have in memory.

    Example:
        >>> in_rows(torch.zeros(3, 2, 5)).shape, in_rows(torch.tensor(1.0)).shape
        (torch.Size([6, 5]), torch.Size([1, 1]))
    """
    if x.dim() == 3 and not x.is_contiguous() and x.transpose(0, 1).is_contiguous():
        x = x.transpose(0, 1)
    return x.reshape(-1, x.shape[-1]) if x.dim() and x.numel() else x.reshape(-1, 1)


def sent_and_met(events: Events, *fans: Tensor) -> tuple[int, ...]:
    """How many events count, before the end of their sample and not of value 0, and of each of ``fans (N,)`` the sum over them.

    Example:
        >>> events = Events.from_list([([0.0, 0.1, 0.2], [0, 1, 1])], num_units=2, duration=0.2)
        >>> sent_and_met(events, torch.tensor([3, 4]))
        (2, 7)
    """
    kernel = _kernel(events.times)
    if kernel is not None and (events.values is None or events.values.dtype == events.dtype):
        arrays = [_array(x) for x in (events.times, events.units, events.offsets, events.values, events.duration)]
        return tuple(kernel.sent_and_met(*arrays, [_array(each) for each in fans]))
    there = events.times < events.duration[events.samples]
    if events.values is not None:
        there &= events.values != 0
    units = events.units[there].to(torch.int64)
    return len(units), *(int(each[units].sum()) for each in fans)


def by_step(events: Events, dt: float, steps: Tensor, longest: int) -> Tensor:
    """``(longest,)`` events of each step of ``dt`` seconds, of all samples of ``steps (B,)``; the last has what is later.

    Example:
        >>> events = Events.from_list([([0.0, 0.1, 0.2], [0, 1, 1])], num_units=2, duration=0.2)
        >>> by_step(events, 0.1, torch.tensor([2]), 2)
        tensor([1, 2])
    """
    slack, kernel = 1 - torch.finfo(events.dtype).eps, _kernel(events.times)  # as in Events.to_dense
    if kernel is not None:
        arrays = (_array(x) for x in (events.times, events.offsets, steps))
        return torch.from_numpy(kernel.by_step(*arrays, dt, slack, longest))
    step = (events.times.double() / dt / slack).to(torch.int64)  # times are not negative
    step = torch.minimum(step, steps[events.samples] - 1).clamp(min=0)
    return torch.bincount(step, minlength=longest).cpu()


def _kernel(x: Tensor) -> Any:
    """The compiled kernels, of the dtype of a contiguous tensor on the CPU; else None."""
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
    return cpu.load() if fits else None


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.detach().contiguous().numpy()
