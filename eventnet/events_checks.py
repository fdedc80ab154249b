"""What ``Events`` must hold: checked where they enter, with errors that name the sample, the index and the value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["as_duration", "check_events", "check_offsets", "check_tensors", "locate", "printed"]


def check_tensors(times: Tensor, units: Tensor, offsets: Tensor, values: Tensor | None) -> None:
    """Types, shapes and devices."""
    for name, x in (("times", times), ("units", units), ("offsets", offsets), ("values", values)):
        if name == "values" and x is None:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(
                f"Events: {name} must be a tensor, got {type(x).__name__}; Events.from_list takes lists and arrays"
            )
        if x.dim() != 1:
            raise ValueError(f"Events: {name} must be one-dimensional, got shape {tuple(x.shape)}")
        if x.device != times.device:
            raise ValueError(f"Events: {name} is on {x.device} but times is on {times.device}; move all to one device")
    if times.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Events: times must be float32 or float64 seconds, got {times.dtype}")
    for name, x in (("units", units), ("offsets", offsets)):
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"Events: {name} must be integers, got {x.dtype}")
    if units.numel() != times.numel():
        raise ValueError(f"Events: {times.numel()} times but {units.numel()} units; every event needs one of each")
    if values is not None and (values.dtype != times.dtype or values.shape != times.shape):
        raise ValueError(
            f"Events: values must be {tuple(times.shape)} {times.dtype} like times, got {tuple(values.shape)} {values.dtype}"
        )


def check_offsets(offsets: Tensor, events: int) -> None:
    """``(B + 1,)`` numbers that ascend from 0 to the number of events."""
    if offsets.numel() == 0 or offsets[0] != 0 or offsets[-1] != events or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError(
            f"Events: offsets must ascend from 0 to the number of events, {events} (B + 1 numbers for B samples), "
            f"got {offsets.tolist()[:8]}{'...' if offsets.numel() > 8 else ''}"
        )


def as_duration(duration: Any, batch: int, like: Tensor) -> Tensor:
    """``(B,)`` seconds from one number or ``(B,)``, in the dtype and on the device of ``like``."""
    value = torch.as_tensor(duration, dtype=like.dtype, device=like.device).detach()
    if value.dim() > 1 or (value.dim() == 1 and value.numel() != batch):
        raise ValueError(
            f"Events: duration must be one number or ({batch},) for {batch} samples, got {tuple(value.shape)}"
        )
    value = value.expand(batch).contiguous()
    bad = ~(torch.isfinite(value) & (value >= 0))
    if bool(bad.any()):
        b = int(bad.nonzero()[0])
        raise ValueError(
            f"Events: sample {b}: duration {printed(value[b])} s; expected a finite number of seconds >= 0"
        )
    return value


def check_events(times: Tensor, units: Tensor, offsets: Tensor, num_units: int, values: Tensor | None) -> None:
    """Each event's time, unit and value, and the order within each sample."""
    if times.numel() == 0:
        return
    bad = ~(torch.isfinite(times) & (times >= 0))
    if bool(bad.any()):
        b, k, value = locate(offsets, bad, times)
        raise ValueError(f"Events: sample {b}, event {k}: time {value} s; expected finite seconds >= 0")
    bad = (units < 0) | (units >= num_units)
    if bool(bad.any()):
        b, k, value = locate(offsets, bad, units)
        raise ValueError(f"Events: sample {b}, event {k}: unit {value} is outside [0, {num_units})")
    bad = times[1:] < times[:-1]
    starts = offsets[1:-1]
    bad[starts[(starts > 0) & (starts < times.numel())] - 1] = False
    if bool(bad.any()):
        bad = torch.nn.functional.pad(bad, (1, 0))
        b, k, value = locate(offsets, bad, times)
        raise ValueError(
            f"Events: sample {b}, event {k}: time {value} s comes before its predecessor; each sample must be sorted by "
            "time (sort=True in from_list and from_structured does it)"
        )
    if values is not None and not bool(torch.isfinite(values).all()):
        b, k, value = locate(offsets, ~torch.isfinite(values), values)
        raise ValueError(f"Events: sample {b}, event {k}: value {value}; expected a finite number")


def locate(offsets: Tensor, bad: Tensor, of: Tensor) -> tuple[int, int, str]:
    """Sample, index within the sample, and value, as ``printed``, of the first bad event."""
    i = int(bad.nonzero()[0])
    b = int(torch.searchsorted(offsets, i, right=True)) - 1
    return b, i - int(offsets[b]), printed(of[i])


def printed(value: Tensor) -> str:
    """One number with the digits that its dtype holds: 0.1 in float32, not 0.10000000149011612."""
    return str(value.detach().cpu().numpy())
