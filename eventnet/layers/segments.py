"""SegmentPool: many dendritic segments that recognise sparse binary codes, at the cost of the synapses that are active.

    overlap of code A and segment k:  o_k = number of connected synapses of k onto units in A
    k recognises A:                   o_k >= threshold

A code is a set of active units, given by their indices (``Codes``); a segment is a short list of synapses. No dense vector or
matrix is made: from each active unit the pool follows the synapses that listen to it, in an index sorted by unit, and counts
them by segment. A segment that learnt several patterns holds the union of their synapses. How often it is then right and
wrong is in ``eventnet.layers.sparse_codes``.

Ahmad and Hawkins, How do neurons operate on sparse distributed representations? arXiv:1601.00720, 2016; permanences as in
Hawkins and Ahmad, Why neurons have thousands of synapses, Frontiers in Neural Circuits 10:23, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.layers.codes import Codes, offsets_of
from eventnet.layers.whole import whole_at_least

__all__ = ["SegmentPool"]

EMPTY = -1  # in place of a unit: no synapse
LOST = 1e-5  # permanences to here are 0: what rounding leaves of 1 less a thousand times 0.001
WORK = 1 << 20  # counters and active synapses that are worked on at once: what bounds memory, some 40 bytes for each


class SegmentPool(nn.Module):
    """``num_segments`` dendritic segments with up to ``capacity`` synapses each onto ``num_units`` units.

    A synapse counts if its permanence is at least ``connected``. The segments start empty; ``learn`` grows synapses and
    ``reinforce`` moves permanences. Nothing here has a gradient. Both tensors are buffers, so ``state_dict`` holds the
    segments and ``to`` moves them. The index by unit is made from them when it is needed, and anew after they were replaced or
    written into (but what is written through ``.data`` or NumPy goes unseen).

    Args:
        num_segments: number of segments.
        num_units: number of units that codes are over, fewer than 2^31.
        capacity: places for synapses on each segment, fewer than 2^31 in all; learning more than fits is an error.
        connected: permanence from which a synapse counts, in (0, 1].

    Shapes:
        units ``(num_segments, capacity)`` int32, -1 where there is no synapse; permanence alike, float32, 0 there.
        Codes come as ``Codes``, as ``Events`` in which no unit fires twice, or as a list of lists of units.

    Raises:
        ValueError: a size that is not a whole number in its range, a permanence out of its.

    Example:
        >>> pool = SegmentPool(num_segments=2, num_units=100, capacity=10)
        >>> pool.learn([0, 1], [[3, 5, 8, 13], [20, 30, 40]])
        >>> pool([[3, 8, 13, 30], []])
        tensor([[3, 1],
                [0, 0]], dtype=torch.int32)
        >>> pool.active([[3, 8, 13, 30], []], threshold=2).to_list()
        [[0], []]
    """

    units: Tensor
    permanence: Tensor

    def __init__(
        self, num_segments: SupportsIndex, num_units: SupportsIndex, capacity: SupportsIndex, *, connected: float = 0.5
    ) -> None:
        super().__init__()
        num_segments = whole_at_least(1, num_segments, "SegmentPool: num_segments")
        num_units = whole_at_least(1, num_units, "SegmentPool: num_units")
        capacity = whole_at_least(1, capacity, "SegmentPool: capacity")
        if num_units >= 2**31:
            raise ValueError(f"SegmentPool: num_units is {num_units}; expected fewer than 2^31: they are kept as int32")
        if num_segments * capacity >= 2**31:
            raise ValueError(
                f"SegmentPool: {num_segments} x {capacity} places; expected fewer than 2^31: use several pools"
            )
        if not 0 < connected <= 1:
            raise ValueError(f"SegmentPool: connected must be in (0, 1], got {connected}")
        self.num_units, self.connected = num_units, connected
        self.register_buffer("units", torch.full((num_segments, capacity), EMPTY, dtype=torch.int32))
        self.register_buffer("permanence", torch.zeros(num_segments, capacity))
        self._indexed: list[_Listeners] = []  # of all segments; then of those that have changed since
        self._indexed_at: list[tuple[Tensor, float]] = []  # the buffers, and how often they had been written into

    @property
    def num_segments(self) -> int:
        """Number of segments."""
        return self.units.shape[0]

    @property
    def capacity(self) -> int:
        """Places for synapses on each segment."""
        return self.units.shape[1]

    def extra_repr(self) -> str:
        """Sizes, for ``print``."""
        return f"{self.num_segments}, {self.num_units}, capacity={self.capacity}, connected={self.connected}"

    def sizes(self) -> Tensor:
        """``(num_segments,)`` number of connected synapses of each segment."""
        return (self.permanence >= self.connected).sum(1)

    # ---- recognising ------------------------------------------------------------------------------------------------

    def forward(self, codes: Codes | Events | Sequence[Any]) -> Tensor:
        """``(B, num_segments)`` int32: how many connected synapses of each segment are onto active units of each code."""
        packed, index = self._packed(codes, "the pool"), self._index()
        counts = torch.zeros(packed.batch_size, self.num_segments, dtype=torch.int32, device=self.units.device)
        for start, stop in self._chunks(packed, index):
            self._count(packed, index, start, stop, counts[start:stop])
        return counts

    def active(self, codes: Codes | Events | Sequence[Any], threshold: SupportsIndex) -> Codes:
        """The segments that recognise each code, ascending: ``overlap >= threshold``, as codes over the segments.

        Memory is proportional to the answer and to a bounded part of the batch, not to batch times segments.
        """
        least = whole_at_least(1, threshold, "SegmentPool.active: threshold")
        below = min(least - 1, self.capacity)  # no overlap is above it, and int32 has room for it
        packed, index = self._packed(codes, "active"), self._index()
        none = torch.empty(0, dtype=torch.int64, device=self.units.device)
        found, sizes = [none], [none]
        for start, stop in self._chunks(packed, index):
            counts = torch.zeros(stop - start, self.num_segments, dtype=torch.int32, device=self.units.device)
            self._count(packed, index, start, stop, counts)
            row, segment = (counts > below).nonzero(as_tuple=True)
            found.append(segment)
            sizes.append(torch.bincount(row, minlength=stop - start))
        return Codes.trusted(torch.cat(found), offsets_of(torch.cat(sizes)), self.num_segments)

    def _count(self, codes: Codes, index: list[_Listeners], start: int, stop: int, counts: Tensor) -> None:
        """Add the overlaps of codes start to stop to ``counts`` of zeros."""
        offsets = codes.offsets[start : stop + 1]
        units = codes.units[int(offsets[0]) : int(offsets[-1])]
        rows = torch.repeat_interleave(offsets.diff(), output_size=units.numel())
        for k, listeners in enumerate(index):
            if k:
                counts[:, listeners.segments] = 0  # what was counted of them is of before they changed
            listeners.add_to(counts, units, rows)

    def _chunks(self, codes: Codes, index: list[_Listeners]) -> Iterator[tuple[int, int]]:
        """Runs of codes with at most ``WORK`` counters and active synapses in all, but at least one code each."""
        synapses = torch.stack([listeners.number(codes.units) for listeners in index]).sum(0)
        until = offsets_of(synapses)[codes.offsets]
        cost = (until + self.num_segments * torch.arange(codes.batch_size + 1, device=until.device)).cpu()
        start = 0
        while start < codes.batch_size:
            stop = int(torch.searchsorted(cost, cost[start] + WORK, right=True)) - 1
            stop = max(stop, start + 1)
            yield start, stop
            start = stop

    def _index(self) -> list[_Listeners]:
        """The synapses by unit: of all segments, and of those that have changed since, whose entries in the first are void."""
        if not self._is_indexed():
            self._indexed = [self._listeners(torch.arange(self.num_segments, device=self.units.device))]
            self._indexed_at = self._versions()
        return self._indexed

    def _is_indexed(self) -> bool:
        """Whether the index is of the buffers as they are now."""
        both = zip(self._versions(), self._indexed_at, strict=False)
        return bool(self._indexed) and all(x is y and now == then for (x, now), (y, then) in both)

    def _versions(self) -> list[tuple[Tensor, float]]:
        """The buffers and how often each was written into; inference tensors do not know, and NaN equals nothing."""
        return [(x, math.nan if x.is_inference() else x._version) for x in (self.units, self.permanence)]

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled: without the index, which is made anew."""
        return {**self.__dict__, "_indexed": [], "_indexed_at": []}

    def _listeners(self, segments: Tensor) -> _Listeners:
        connected = self.permanence[segments] >= self.connected
        return _Listeners(segments, self.units[segments], connected, self.num_units)

    def _write(self, segments: Tensor, units: Tensor, permanence: Tensor) -> None:
        """Write to these segments, and index them anew; once an eighth of all have changed, the rest too (when next needed)."""
        was_indexed = self._is_indexed()
        self.units[segments], self.permanence[segments] = units, permanence
        if was_indexed:
            changed = torch.cat([segments, *(x.segments for x in self._indexed[1:])]).unique()
            few = 8 * changed.numel() <= self.num_segments
            self._indexed = [self._indexed[0], self._listeners(changed)] if few else []
            self._indexed_at = self._versions()

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def learn(
        self,
        segments: Sequence[int] | Tensor,
        codes: Codes | Events | Sequence[Any],
        synapses: SupportsIndex | None = None,
        *,
        permanence: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Let segment ``segments[i]`` store code i: synapses onto a random sample of its active units.

        Units of the sample onto which the segment has a synapse keep it as it is, so that a segment that stores many codes
        holds the union of their samples. Nothing is grown if one of the segments has too few free places.

        Args:
            segments: ``(B,)`` different segments, one for each code.
            codes: B codes.
            synapses: size of the samples; None: all active units.
            permanence: of new synapses, in (0, 1].
            generator: draws the samples, on the CPU.

        Raises:
            ValueError: a segment out of range or there twice, a number of codes that is not that of the segments, a code with
                fewer active units than ``synapses``, a segment without enough free places.
        """
        index, packed = self._pairs(segments, codes, "learn")
        if not 0 < permanence <= 1:
            raise ValueError(f"SegmentPool.learn: permanence must be in (0, 1], got {permanence}")
        row, unit = packed.rows(), packed.units
        if synapses is not None:
            row, unit = _sampled(packed, synapses, generator)
        key = index[row] * self.num_units + unit
        units, strength = self.units[index], self.permanence[index]
        have = units.to(torch.int64)
        known = (index[:, None] * self.num_units + have)[have != EMPTY]
        new = ~torch.isin(key, known)
        row, unit = row[new], unit[new]
        grown = torch.bincount(row, minlength=index.numel())
        free = (have == EMPTY).sum(1)
        if bool((grown > free).any()):
            i = int((grown > free).nonzero()[0])
            raise ValueError(
                f"SegmentPool.learn: segment {int(index[i])} has {int(free[i])} free places of {self.capacity}, and code {i} "
                f"needs {int(grown[i])}; use a larger capacity, fewer synapses or another segment"
            )
        place = (have != EMPTY).to(torch.int8).argsort(dim=1, stable=True)  # the free ones first
        rank = torch.arange(row.numel(), device=row.device) - (grown.cumsum(0) - grown)[row]
        where = row, place[row, rank]
        units[where], strength[where] = unit.to(torch.int32), permanence
        self._write(index, units, strength)

    @torch.no_grad()
    def reinforce(
        self,
        segments: Sequence[int] | Tensor,
        codes: Codes | Events | Sequence[Any],
        *,
        up: float = 0.1,
        down: float = 0.1,
    ) -> None:
        """Move the permanences of segment ``segments[i]`` towards code i; a synapse whose permanence falls to 0 is gone.

            permanence + up onto active units, permanence - down onto the others, at most 1

        Args:
            segments: ``(B,)`` different segments, one for each code.
            codes: B codes.
            up, down: changes of permanence, 0 or more.

        Raises:
            ValueError: as ``learn``; a negative change.
        """
        index, packed = self._pairs(segments, codes, "reinforce")
        if not (up >= 0 and down >= 0):
            raise ValueError(f"SegmentPool.reinforce: up and down must be 0 or more, got {up} and {down}")
        have = self.units[index].to(torch.int64)
        row = torch.arange(index.numel(), device=index.device)[:, None]
        hit = torch.isin(row * self.num_units + have, packed.rows() * self.num_units + packed.units)
        moved = torch.where(hit, self.permanence[index] + up, self.permanence[index] - down).clamp(max=1.0)
        gone = (have == EMPTY) | (moved <= LOST)
        self._write(index, have.masked_fill(gone, EMPTY).to(torch.int32), moved.masked_fill(gone, 0.0))

    # ---- arguments --------------------------------------------------------------------------------------------------

    def _packed(self, codes: Codes | Events | Sequence[Any], who: str) -> Codes:
        device = self.units.device
        if isinstance(codes, Events):
            codes = Codes(codes.units, codes.offsets, codes.num_units)
        elif not isinstance(codes, Codes):
            codes = Codes.from_list(codes, self.num_units).to(device)
        if codes.num_units != self.num_units:
            raise ValueError(f"SegmentPool: {who} got codes over {codes.num_units} units, expected {self.num_units}")
        if codes.units.device != device:
            raise ValueError(f"SegmentPool: {who} got codes on {codes.units.device}, the pool is on {device}; move one")
        return codes

    def _pairs(
        self, segments: Sequence[int] | Tensor, codes: Codes | Events | Sequence[Any], who: str
    ) -> tuple[Tensor, Codes]:
        packed = self._packed(codes, who)
        index = torch.as_tensor(segments, device=self.units.device)
        if index.dim() != 1 or (index.is_floating_point() and index.numel()) or index.dtype == torch.bool:
            raise TypeError(
                f"SegmentPool.{who}: segments must be a list of integers, got {index.dtype} {tuple(index.shape)}"
            )
        index = index.to(torch.int64)
        if index.numel() != packed.batch_size:
            raise ValueError(
                f"SegmentPool.{who}: {index.numel()} segments but {packed.batch_size} codes; expected one code for each"
            )
        bad = (index < 0) | (index >= self.num_segments)
        if bool(bad.any()):
            raise ValueError(f"SegmentPool.{who}: segment {int(index[bad][0])} is outside [0, {self.num_segments})")
        if index.unique().numel() != index.numel():
            raise ValueError(f"SegmentPool.{who}: a segment is there twice; call again for its second code")
        return index, packed


class _Listeners:
    """The connected synapses of some segments, sorted by the unit they listen to."""

    def __init__(self, segments: Tensor, units: Tensor, connected: Tensor, num_units: int) -> None:
        place = connected.reshape(-1).nonzero().squeeze(1)
        unit = units.reshape(-1).index_select(0, place)
        if unit.numel() and not (unit.min() >= 0 and unit.max() < num_units):
            bad = unit.max() if unit.min() >= 0 else unit.min()
            raise ValueError(
                f"SegmentPool: a synapse is onto unit {int(bad)}, outside [0, {num_units}); were the segments loaded from a "
                "pool over more units?"
            )
        order = place.index_select(0, unit.argsort()) // units.shape[1]
        self.segments = segments
        self.segment = segments.to(torch.int32).index_select(0, order)  # (synapses,)
        self.starts = offsets_of(torch.bincount(unit, minlength=num_units)).to(torch.int32)  # of each unit in segment

    def number(self, units: Tensor) -> Tensor:
        """How many synapses listen to each of ``units``."""
        return self.starts.index_select(0, units + 1) - self.starts.index_select(0, units)

    def add_to(self, counts: Tensor, units: Tensor, rows: Tensor) -> None:
        """Count in ``counts`` (contiguous), row ``rows[i]``, the synapses that listen to ``units[i]``."""
        number = self.number(units)
        until = number.cumsum(0)
        total = int(until[-1]) if until.numel() else 0
        # int32 throughout: it moves half the bytes, and bytes are what this costs
        shift = (self.starts.index_select(0, units) - until + number).to(torch.int32)
        at = torch.arange(total, dtype=torch.int32, device=units.device)
        at += torch.repeat_interleave(shift, number, output_size=total)
        target = self.segment.index_select(0, at)
        target += torch.repeat_interleave((rows * counts.shape[1]).to(torch.int32), number, output_size=total)
        one = torch.ones((), dtype=counts.dtype, device=counts.device)
        counts.view(-1).index_add_(0, target, one.expand(total))


def _sampled(codes: Codes, synapses: SupportsIndex, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """``synapses`` random active units of each code, and the codes to which they belong."""
    sizes, size = codes.sizes(), whole_at_least(1, synapses, "SegmentPool.learn: synapses (or None: all active units)")
    if bool((sizes < size).any()):
        i = int((sizes < size).nonzero()[0])
        raise ValueError(f"SegmentPool.learn: code {i} has {int(sizes[i])} active units, fewer than {size} synapses")
    rows = codes.rows()
    order = torch.rand(rows.numel(), generator=generator, dtype=torch.float64).argsort().to(rows.device)
    order = order[rows[order].argsort(stable=True)]  # shuffled within each code
    rank = torch.arange(rows.numel(), device=rows.device) - codes.offsets[rows]
    chosen = order[rank < size]
    return rows[chosen], codes.units[chosen]
