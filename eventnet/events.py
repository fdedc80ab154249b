"""A packed, ragged batch of events: who fired when.

Sample ``b`` of a batch owns the slice ``offsets[b]:offsets[b + 1]`` of ``times`` and ``units``, sorted by time.
Nothing is padded, so an empty sample costs nothing and memory is proportional to the number of events.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from eventnet.events_checks import as_duration, check_events, check_offsets, check_tensors, locate, printed
from eventnet.graphs import outside_graphs

__all__ = ["Events"]


@dataclass(frozen=True, eq=False)
class Events:
    """A batch of event streams over ``num_units`` units, times in seconds.

    Args:
        times: ``(E,)`` float32 or float64, seconds, finite, not negative, ascending within each sample. May require grad.
        units: ``(E,)`` integers in ``[0, num_units)``; kept as int32.
        offsets: ``(B + 1,)`` int64; sample ``b`` is ``offsets[b]:offsets[b + 1]``.
        num_units: number of units (input lines, pixels, neurons).
        duration: seconds, one number for the batch or ``(B,)``. Events after it are kept but layers do not count them.
        values: optional ``(E,)`` sizes of graded events, in the dtype of ``times``; ``None`` means every event has size 1.

    Raises:
        ValueError, TypeError: on anything else; the message names the sample, the index and the value.

    Example:
        >>> events = Events.from_list([([0.001, 0.004], [2, 0]), ([], [])], num_units=3, duration=0.01)
        >>> events.batch_size, events.counts().tolist()
        (2, [[1, 0, 1], [0, 0, 0]])
    """

    times: Tensor
    units: Tensor
    offsets: Tensor
    num_units: int
    duration: Tensor
    values: Tensor | None = None

    def __post_init__(self) -> None:
        check_tensors(self.times, self.units, self.offsets, self.values)
        object.__setattr__(self, "num_units", int(self.num_units))
        object.__setattr__(self, "offsets", self.offsets.to(torch.int64))
        check_offsets(self.offsets, self.times.numel())
        object.__setattr__(self, "duration", as_duration(self.duration, self.offsets.numel() - 1, self.times))
        check_events(self.times.detach(), self.units, self.offsets, self.num_units, self.values)
        object.__setattr__(self, "units", self.units.to(torch.int32))  # after the check: a huge unit would wrap

    # ---- construction -------------------------------------------------------------------------------------------

    @classmethod
    def trusted(
        cls,
        times: Tensor,
        units: Tensor,
        offsets: Tensor,
        num_units: int,
        duration: Tensor,
        values: Tensor | None = None,
    ) -> Events:
        """Build without checks: for producers that guarantee order and ranges (kernels, the methods of this class)."""
        events = object.__new__(cls)
        fields = dict(times=times, units=units, offsets=offsets, num_units=num_units, duration=duration, values=values)
        for name, value in fields.items():
            object.__setattr__(events, name, value)
        return events

    @classmethod
    def from_list(
        cls,
        samples: Sequence[tuple[Any, Any]],
        num_units: int,
        duration: float | Sequence[float] | Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        sort: bool = False,
    ) -> Events:
        """Pack ``[(times, units), ...]``, one pair of equal-length sequences per sample.

        ``sort=True`` orders each sample by time first; without it unsorted times are an error.

        Example:
            >>> Events.from_list([([0.1, 0.2], [0, 1])], num_units=2, duration=1.0).times
            tensor([0.1000, 0.2000])
        """
        times = [torch.as_tensor(t, dtype=dtype).reshape(-1) for t, _ in samples]
        units = [torch.as_tensor(np.asarray(u) if not isinstance(u, Tensor) else u).reshape(-1) for _, u in samples]
        units = [u.to(torch.int32) if u.numel() == 0 else u for u in units]
        for b, (t, u) in enumerate(zip(times, units, strict=True)):
            if t.numel() != u.numel():
                raise ValueError(
                    f"Events.from_list: sample {b} has {t.numel()} times but {u.numel()} units; every event needs one of each"
                )
            if u.is_floating_point() or u.is_complex():
                raise TypeError(f"Events.from_list: sample {b} has units of dtype {u.dtype}; expected integers")
        packed = torch.cat(times) if times else torch.empty(0, dtype=dtype)
        ids = torch.cat([u.to(torch.int64) for u in units]) if units else torch.empty(0, dtype=torch.int64)
        offsets = _offsets([t.numel() for t in times])
        if sort:
            order = sorting_order(packed, _sample_index(offsets))
            packed, ids = packed[order], ids[order]
        return cls(packed, ids, offsets, num_units, duration)  # type: ignore[arg-type]

    @classmethod
    @outside_graphs
    def from_dense(cls, raster: Tensor, dt: float) -> Events:
        """Events of a spike-count raster ``(T, B, N)``: a count of n at step t gives n events at ``t * dt``.

        Example:
            >>> Events.from_dense(torch.eye(3).reshape(3, 1, 3), dt=1e-3).times
            tensor([0.0000, 0.0010, 0.0020])
        """
        if raster.dim() != 3:
            raise ValueError(f"Events.from_dense: expected a raster of shape (T, B, N), got {tuple(raster.shape)}")
        if not 0 < dt < inf:
            raise ValueError(f"Events.from_dense: dt must be a positive number of seconds, got {dt}")
        if raster.requires_grad and torch.is_grad_enabled():
            warnings.warn(
                "Events.from_dense cuts the gradient of the raster: counts jump. LIF.drive takes numbers per step as "
                "currents, Events.from_latency as times, both differentiable; where no gradient is meant, raster.detach() "
                "says so",
                stacklevel=3,  # of the caller
            )
        if raster.dtype == torch.bool:
            raster = raster.to(torch.float32)
        counts = raster.round()
        if raster.numel() and (not torch.equal(counts, raster.to(counts.dtype)) or bool((raster < 0).any())):
            raise ValueError(
                "Events.from_dense: the raster must hold spike counts (0, 1, 2, ...); graded values do not count"
            )
        dtype = raster.dtype if raster.dtype in (torch.float32, torch.float64) else torch.float32
        steps, batch, num_units = raster.shape
        sample, step, unit = counts.permute(1, 0, 2).nonzero(as_tuple=True)
        repeats = counts[step, sample, unit].to(torch.int64)
        sample, step, unit = (x.repeat_interleave(repeats) for x in (sample, step, unit))
        offsets = _offsets(torch.bincount(sample, minlength=batch))
        times = step.to(torch.float64) * dt
        duration = torch.full((batch,), steps * dt, dtype=dtype, device=raster.device)
        return cls.trusted(times.to(dtype), unit.to(torch.int32), offsets, num_units, duration)

    @classmethod
    def from_structured(
        cls,
        samples: np.ndarray | Sequence[np.ndarray],
        sensor_size: tuple[int, int, int],
        *,
        duration: float | None = None,
        time_unit: float = 1e-6,
        dtype: torch.dtype = torch.float32,
        sort: bool = False,
    ) -> Events:
        """Pack structured arrays with fields t, x, y, p (tonic's format), one array per sample.

        ``unit = (p * height + y) * width + x`` with ``sensor_size = (width, height, polarities)`` as in tonic, so that
        ``to_dense(dt).reshape(T, B, polarities, height, width)`` are frames. Fields x, y or p may be missing (a cochlea
        has only x): they count as 0. ``time_unit`` is the length of one tick of ``t`` in seconds. Without ``duration``
        it is just past the last event of the batch.
        """
        arrays = [samples] if isinstance(samples, np.ndarray) else list(samples)
        width, height, polarities = sensor_size
        limits = {"x": width, "y": height, "p": polarities}
        pairs = []
        for b, array in enumerate(arrays):
            names = array.dtype.names or ()
            if "t" not in names:
                raise TypeError(
                    f"Events.from_structured: sample {b} has fields {names}; expected at least t, and x, y, p"
                )
            coordinate = {}
            for name, limit in limits.items():
                value = array[name].astype(np.int64) if name in names else np.zeros(len(array), np.int64)
                bad = np.flatnonzero((value < 0) | (value >= limit))
                if bad.size:
                    raise ValueError(
                        f"Events.from_structured: sample {b}, event {bad[0]}: {name} = {value[bad[0]]} is outside "
                        f"[0, {limit}) of sensor_size (width, height, polarities) = {tuple(sensor_size)}"
                    )
                coordinate[name] = value
            unit = (coordinate["p"] * height + coordinate["y"]) * width + coordinate["x"]
            pairs.append((array["t"].astype(np.float64) * time_unit, unit))
        if duration is None:
            last = max((float(t.max()) for t, _ in pairs if len(t)), default=0.0)
            duration = last + time_unit
        return cls.from_list(pairs, width * height * polarities, duration, dtype=dtype, sort=sort)

    @classmethod
    @outside_graphs
    def from_latency(
        cls,
        values: Tensor,
        t_min: float,
        t_max: float,
        *,
        duration: float | None = None,
        minimum: float | None = None,
    ) -> Events:
        """One event per value, larger values earlier: ``t = t_max - value * (t_max - t_min)``; differentiable.

        Args:
            values: ``(B, N)`` in [0, 1].
            t_min, t_max: seconds; the times of value 1 and of value 0.
            duration: seconds; ``t_max`` if not given.
            minimum: values below it give no event; ``None``: every value gives one.

        Example:
            >>> Events.from_latency(torch.tensor([[0.0, 1.0, 0.5]]), 0.0, 0.02).units
            tensor([1, 2, 0], dtype=torch.int32)
        """
        if values.dim() != 2 or not values.is_floating_point():
            raise ValueError(
                f"Events.from_latency: expected float values of shape (B, N), got {tuple(values.shape)} {values.dtype}"
            )
        if not 0 <= t_min <= t_max < inf:
            raise ValueError(f"Events.from_latency: expected 0 <= t_min <= t_max seconds, got {t_min} and {t_max}")
        bad = ~((values >= 0) & (values <= 1))
        if bool(bad.any()):
            b, n = bad.nonzero()[0].tolist()
            raise ValueError(
                f"Events.from_latency: sample {b}, unit {n}: value {printed(values[b, n])} is outside [0, 1]"
            )
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float()  # times need more digits than half precision has: under autocast, say
        kept = torch.ones_like(bad) if minimum is None else values >= minimum
        sample, unit = kept.nonzero(as_tuple=True)
        times = t_max - values[sample, unit] * (t_max - t_min)
        order = sorting_order(times.detach(), sample)
        offsets = _offsets(kept.sum(1))
        end = as_duration(t_max if duration is None else duration, values.shape[0], times)
        return cls.trusted(times[order], unit[order].to(torch.int32), offsets, values.shape[1], end)

    @classmethod
    def cat(cls, batches: Iterable[Events]) -> Events:
        """Put batches of the same units behind each other, sample after sample."""
        parts = list(batches)
        if not parts:
            raise ValueError("Events.cat: expected at least one Events, got none")
        first = parts[0]
        for i, part in enumerate(parts):
            if part.num_units != first.num_units:
                raise ValueError(f"Events.cat: item {i} has {part.num_units} units, item 0 has {first.num_units}")
            if (part.values is None) != (first.values is None):
                raise ValueError("Events.cat: some items have values (graded events) and some have none")
        return cls.trusted(
            torch.cat([p.times for p in parts]),
            torch.cat([p.units for p in parts]),
            _offsets(torch.cat([p.lengths for p in parts])),
            first.num_units,
            torch.cat([p.duration for p in parts]),
            None if first.values is None else torch.cat([p.values for p in parts]),  # type: ignore[misc]
        )

    # ---- what is in it ------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.offsets.numel() - 1

    def __len__(self) -> int:
        return self.batch_size

    @property
    def num_events(self) -> int:
        """Number of events of the whole batch."""
        return self.times.numel()

    @property
    def device(self) -> torch.device:
        """Where the events are."""
        return self.times.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the times."""
        return self.times.dtype

    @property
    def lengths(self) -> Tensor:
        """``(B,)`` int64: events per sample."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def samples(self) -> Tensor:
        """``(E,)`` int64: the sample that each event belongs to."""
        return _sample_index(self.offsets, self.num_events)

    @outside_graphs
    def counts(self) -> Tensor:
        """``(B, N)`` int64: events per sample and unit."""
        return torch.bincount(self._keys(), minlength=self.batch_size * self.num_units).reshape(
            self.batch_size, self.num_units
        )

    @outside_graphs
    def first_times(self) -> Tensor:
        """``(B, N)`` time of each unit's first event, ``inf`` where it is silent; differentiable."""
        size, events = self.batch_size * self.num_units, self.num_events
        index = torch.arange(events, device=self.device)
        first = torch.full((size,), events, dtype=torch.int64, device=self.device)
        first = first.scatter_reduce(0, self._keys(), index, "amin")
        padded = torch.cat([self.times, self.times.new_full((1,), torch.inf)])
        return padded[first].reshape(self.batch_size, self.num_units)

    def __repr__(self) -> str:
        graded = ", graded" if self.values is not None else ""
        span = f"{self.duration.min().item():g}" if self.batch_size else "-"
        if self.batch_size and self.duration.max() != self.duration.min():
            span += f"..{self.duration.max().item():g}"
        return (
            f"Events({self.num_events} events, {self.batch_size} samples, {self.num_units} units, {span} s, "
            f"{str(self.dtype).removeprefix('torch.')}, {self.device}{graded})"
        )

    # ---- parts of it --------------------------------------------------------------------------------------------

    def sample(self, i: int) -> Events:
        """Sample ``i`` alone, as a batch of one."""
        if not -self.batch_size <= i < self.batch_size:
            raise IndexError(f"Events.sample: no sample {i} in a batch of {self.batch_size}")
        i %= self.batch_size
        start, stop = int(self.offsets[i]), int(self.offsets[i + 1])
        return Events.trusted(
            self.times[start:stop],
            self.units[start:stop],
            _offsets([stop - start]).to(self.device),
            self.num_units,
            self.duration[i : i + 1],
            None if self.values is None else self.values[start:stop],
        )

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Events:
        """Samples by number, slice, list or tensor of numbers or mask, always as a batch."""
        if isinstance(index, int | np.integer) or (isinstance(index, Tensor) and index.dim() == 0):
            return self.sample(int(index))
        chosen = torch.arange(self.batch_size, device=self.device)[index]
        lengths = self.lengths[chosen]
        offsets = _offsets(lengths)
        gather = torch.arange(int(offsets[-1]), device=self.device)
        gather += (self.offsets[chosen] - offsets[:-1]).repeat_interleave(lengths)
        return Events.trusted(
            self.times[gather],
            self.units[gather],
            offsets,
            self.num_units,
            self.duration[chosen],
            None if self.values is None else self.values[gather],
        )

    def keep(self, mask: Tensor) -> Events:
        """Only the events where ``mask`` ``(E,)`` is true."""
        kept = torch.bincount(self.samples[mask], minlength=self.batch_size)
        return Events.trusted(
            self.times[mask],
            self.units[mask],
            _offsets(kept),
            self.num_units,
            self.duration,
            None if self.values is None else self.values[mask],
        )

    def crop(self, start: float, stop: float) -> Events:
        """Events with ``start <= t < stop``, counted from ``start``; the duration is cut likewise."""
        if not 0 <= start <= stop:
            raise ValueError(f"Events.crop: expected 0 <= start <= stop seconds, got {start} and {stop}")
        inside = self.keep((self.times.detach() >= start) & (self.times.detach() < stop))
        duration = (self.duration.clamp(max=stop) - start).clamp(min=0)
        return replace_unchecked(inside, times=inside.times - start, duration=duration)

    def shift(self, amount: float | Tensor) -> Events:
        """Move samples by ``amount`` seconds, one number or ``(B,)``, and lengthen them by it; differentiable."""
        amount = torch.as_tensor(amount, dtype=self.dtype, device=self.device)
        batch = self.batch_size
        if amount.dim() != 0 and amount.shape != (batch,):
            raise ValueError(
                f"Events.shift: expected a number or ({batch},), one per sample, got {tuple(amount.shape)}; "
                "Events.retime moves events one by one"
            )
        times = self.times + amount.expand(batch)[self.samples]
        moved = replace_unchecked(self, duration=(self.duration + amount.detach()).clamp(min=0))
        return moved.retime(times)

    def retime(self, times: Tensor) -> Events:
        """The same events at other ``times`` ``(E,)``, brought into order again; differentiable."""
        if times.shape != self.times.shape:
            raise ValueError(
                f"Events.retime: expected a time for each event, {tuple(self.times.shape)}, got {tuple(times.shape)}"
            )
        bad = ~(torch.isfinite(times.detach()) & (times.detach() >= 0))
        if bool(bad.any()):
            b, k, value = locate(self.offsets, bad, times)
            raise ValueError(f"Events: sample {b}, event {k} would move to {value} s; times must be finite and >= 0")
        return replace_unchecked(self, times=times).sort()

    def sort(self) -> Events:
        """The same events in order of time within each sample (ties keep their order)."""
        order = sorting_order(self.times.detach(), self.samples)
        return replace_unchecked(
            self,
            times=self.times[order],
            units=self.units[order],
            values=None if self.values is None else self.values[order],
        )

    def merge(self, other: Events) -> Events:
        """Both batches' events, sample by sample; the longer duration counts."""
        if (self.batch_size, self.num_units) != (other.batch_size, other.num_units):
            raise ValueError(
                f"Events.merge: expected {self.batch_size} samples of {self.num_units} units, "
                f"got {other.batch_size} of {other.num_units}"
            )
        if (self.values is None) != (other.values is None):
            raise ValueError("Events.merge: one side has values (graded events), the other has none")
        times, sample = torch.cat([self.times, other.times]), torch.cat([self.samples, other.samples])
        order = sorting_order(times.detach(), sample)
        values = None if self.values is None else torch.cat([self.values, other.values])[order]  # type: ignore[list-item]
        return Events.trusted(
            times[order],
            torch.cat([self.units, other.units])[order],
            self.offsets + other.offsets,
            self.num_units,
            torch.maximum(self.duration, other.duration),
            values,
        )

    # ---- other forms --------------------------------------------------------------------------------------------

    @outside_graphs
    def to_dense(self, dt: float) -> Tensor:
        """``(T, B, N)`` event counts (sums of values if graded) per step; step t holds ``t*dt <= time < (t+1)*dt``.

        A time or duration within one rounding of dt and one of the product (``eps`` of its dtype, relative) of ``t*dt`` is
        taken for it, so that ``torch.arange(T) * dt`` has one event per step and ``Events.from_dense(x, dt).to_dense(dt)``
        is ``x``. Events at or after a sample's duration are left out. Times have no gradient through it, as counts jump: a
        warning says so where they require one. Values have.
        """
        if self.times.requires_grad and torch.is_grad_enabled():
            warnings.warn(
                "Events.to_dense cuts the gradient of the event times: counts per step jump. Differentiable ways out are "
                "Events.to_trace, first_times, the voltage of a layer and LI readouts; where no gradient is meant, "
                "events.detach().to_dense(dt) says so",
                stacklevel=3,  # of the caller
            )
        counts = self.num_steps(dt)
        steps = int(counts.max()) if self.batch_size else 0
        slack = 1 - torch.finfo(self.dtype).eps
        step = (self.times.detach().double() / dt / slack).floor().to(torch.int64).clamp(max=steps - 1)
        counted = self.times.detach() < self.duration[self.samples]
        where = (step[counted], self.samples[counted], self.units[counted].to(torch.int64))
        size = torch.ones_like(self.times) if self.values is None else self.values
        dense = torch.zeros(steps, self.batch_size, self.num_units, dtype=self.dtype, device=self.device)
        return dense.index_put(where, size[counted], accumulate=True)

    def num_steps(self, dt: float) -> Tensor:
        """``(B,)`` steps of ``dt`` seconds that each sample lasts, a part of one counted whole; rounding as in ``to_dense``.

        Example:
            >>> Events.from_list([([], []), ([], [])], num_units=1, duration=[0.3, 0.25]).num_steps(0.1)
            tensor([3, 3])
        """
        if not 0 < dt < inf:
            raise ValueError(f"Events: dt must be a positive number of seconds, got {dt}")
        slack = 1 - torch.finfo(self.dtype).eps
        return (self.duration.double() / dt * slack).ceil().to(torch.int64)

    def to_list(self) -> list[tuple[Tensor, Tensor]]:
        """``[(times, units), ...]``, a pair per sample."""
        lengths = self.lengths.tolist()
        return list(zip(self.times.split(lengths), self.units.split(lengths), strict=True))

    @outside_graphs
    def to_trace(self, times: Tensor, tau: float | Tensor) -> Tensor:
        """``(B, K, N)`` exponential traces, ``sum over events with t <= times[k] of value e^{-(times[k] - t)/tau}``.

        Differentiable in the events' times and values and in ``tau`` (seconds, one number or ``(N,)``). Events after a
        sample's duration do not count. Memory is O(K (K + B N)).

        Example:
            >>> events = Events.from_list([([0.0], [0])], num_units=1, duration=1.0)
            >>> events.to_trace(torch.tensor([0.0, 0.01]), tau=0.01).flatten()
            tensor([1.0000, 0.3679])
        """
        tau = torch.as_tensor(tau, dtype=self.dtype, device=self.device)
        grid, back = torch.as_tensor(times, dtype=self.dtype, device=self.device).sort()
        if grid.dim() != 1:
            raise ValueError(f"Events.to_trace: expected times of shape (K,), got {tuple(times.shape)}")
        if not bool((tau > 0).all()):
            raise ValueError("Events.to_trace: tau must be positive (seconds)")
        kept, slot = self._before(grid)
        age = grid[slot] - kept.times
        unit = kept.units.to(torch.int64)
        size = torch.exp(-age / (tau if tau.dim() == 0 else tau[unit]))
        if kept.values is not None:
            size = size * kept.values
        arrived = torch.zeros(self.batch_size, grid.numel(), self.num_units, dtype=self.dtype, device=self.device)
        arrived = arrived.index_put((kept.samples, slot, unit), size, accumulate=True)
        gap = (grid[:, None] - grid[None, :]).clamp(min=0)
        with torch.autocast(self.device.type, enabled=False):  # whose products have too few digits
            if tau.dim() == 0:
                trace = torch.exp(-gap / tau).tril() @ arrived
            else:
                decay = torch.exp(-gap[..., None] / tau) * torch.ones_like(gap).tril()[..., None]
                trace = torch.einsum("kjn,bjn->bkn", decay, arrived)
        return trace[:, back.argsort()]

    def to(self, *args: Any, **kwargs: Any) -> Events:
        """Move to a device or convert times and values to a float dtype, as ``Tensor.to``; units and offsets stay integers."""
        moved = self.times.to(*args, **kwargs)
        if moved.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"Events.to: times are float32 or float64 seconds, not {moved.dtype}")
        device = moved.device
        return Events.trusted(
            moved,
            self.units.to(device),
            self.offsets.to(device),
            self.num_units,
            self.duration.to(moved),
            None if self.values is None else self.values.to(moved),
        )

    def pin_memory(self, device: Any = None) -> Events:
        """A copy in page-locked memory, for fast transfer to an accelerator (a DataLoader calls it)."""
        return pytree.tree_map_only(Tensor, lambda x: x.pin_memory(), self)

    def detach(self) -> Events:
        """The same events, cut from the autograd graph."""
        return pytree.tree_map_only(Tensor, Tensor.detach, self)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, loader workers too: a part of a batch goes without the rest of it."""
        return {name: _own_storage(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle, which may be anyone's: checked like new events, for kernels rely on order and ranges."""
        for name in Events.__dataclass_fields__:
            object.__setattr__(self, name, state[name])
        self.__post_init__()

    # ---- inside -------------------------------------------------------------------------------------------------

    def _keys(self) -> Tensor:
        return self.samples * self.num_units + self.units

    def _before(self, grid: Tensor) -> tuple[Events, Tensor]:
        """Events that some grid time (ascending) comes at or after, within the duration, and the first such grid index."""
        at = self.times.detach()
        slot = torch.searchsorted(grid.detach().contiguous(), at.contiguous())
        kept = (slot < grid.numel()) & (at <= self.duration[self.samples])
        return self.keep(kept), slot[kept]


def replace_unchecked(events: Events, **changes: Any) -> Events:
    """``dataclasses.replace`` without the checks."""
    fields = {name: getattr(events, name) for name in Events.__dataclass_fields__}
    return Events.trusted(**(fields | changes))


def _offsets(lengths: Sequence[int] | Tensor) -> Tensor:
    lengths = torch.as_tensor(lengths, dtype=torch.int64)
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _sample_index(offsets: Tensor, events: int | None = None) -> Tensor:
    batch = torch.arange(offsets.numel() - 1, device=offsets.device)
    return batch.repeat_interleave(offsets[1:] - offsets[:-1], output_size=events)


def sorting_order(times: Tensor, sample: Tensor) -> Tensor:
    """The permutation that sorts by sample, then time; stable."""
    by_time = times.argsort(stable=True)
    return by_time[sample[by_time].argsort(stable=True)]


def _own_storage(value: Any) -> Any:
    """A tensor that shares its memory with a larger one is copied out of it; all else comes back as it is."""
    if isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.numel() * value.element_size():
        return value.clone()
    return value


def _unflatten(children: Iterable[Any], num_units: int) -> Events:
    times, units, offsets, duration, values = children
    return Events.trusted(times, units, offsets, num_units, duration, values)


pytree.register_pytree_node(
    Events,
    lambda e: ([e.times, e.units, e.offsets, e.duration, e.values], e.num_units),
    _unflatten,
    serialized_type_name="eventnet.events.Events",
)

torch.serialization.add_safe_globals([Events])  # torch.load(weights_only=True) may build them: __setstate__ checks
