"""How the spikes of a step reach their targets: weights gathered for those that there were, no others, unless they are many."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, M, Projection, Sparse

__all__ = ["Synapses"]

MANY = 16  # one in so many units with a graded spike: a product is then faster than gathering
BATCH_OF_SYNAPSES = 2**22  # that are gathered at a time: 16 MB of weights


class Synapses:
    """A projection, ready to deliver the spikes of a step."""

    def __init__(self, projection: Projection, network: HardwareNetwork, device: torch.device) -> None:
        self.source, self.target, self.port = projection.source, projection.target, projection.port
        self.graded = projection.message_bits > 0
        self.shift = projection.weight_exp
        self.geometry = projection if isinstance(projection, Convolution) else None
        self.first: Tensor | None = None
        self.delay: Tensor | None = None
        self.num_delays = projection.max_delay + 1
        weight = projection.effective().to(device)
        if isinstance(projection, Sparse):
            self._sort(projection, weight, network[self.source].size, device)
        else:
            self.weight = weight
            if isinstance(projection, Dense) and projection.delay is not None:
                self.delay = projection.delay.to(device, torch.int64)
        if self.shift >= 0:
            self.weight = self.weight << self.shift  # as good as the shifted sum
        plain = self.graded and isinstance(projection, Dense) and self.delay is None
        self.factor = self.weight.to(torch.float64) if plain else None

    def _sort(self, projection: Sparse, weight: Tensor, sources: int, device: torch.device) -> None:
        rows = projection.rows.to(device, torch.int64)
        order = rows.argsort(stable=True)
        self.weight, self.columns = weight[order], projection.columns.to(device, torch.int64)[order]
        if projection.delay is not None:
            self.delay = projection.delay.to(device, torch.int64)[order]
        counts = torch.bincount(rows, minlength=sources)
        self.first, self.count = counts.cumsum(0) - counts, counts

    def deliver(self, spikes: Tensor, step: int, pending: Tensor) -> None:
        """Add what the spikes ``(B, N)`` of a step cause to what is on its way to the target: ``pending (slots, B, size)``, of
        which slot s holds what arrives in the steps t with ``t % slots == s``."""
        if self.geometry is not None:
            self._convolve(self.geometry, spikes, step, pending)
            return
        where, unit = spikes.nonzero(as_tuple=True)
        if not len(unit):
            return
        if self.factor is not None and MANY * len(unit) > spikes.numel():  # integers below 2^53 are exact
            sums = (spikes.to(torch.float64) @ self.factor).to(torch.int64) >> max(0, -self.shift)
            pending[(step + 1) % len(pending)] += sums.to(torch.int32)
            return
        value = spikes[where, unit].to(torch.int32) if self.graded else None
        slots, batch, size = pending.shape
        if self.shift < 0:  # the sum of each delay is shifted, so it is made apart
            sums = pending.new_zeros(self.num_delays, batch, size)
            self._add(sums, 0, where, unit, value)
            late = (step + 1 + torch.arange(self.num_delays, device=spikes.device)) % slots
            pending.index_add_(0, late, sums >> -self.shift)
        else:
            self._add(pending, step + 1, where, unit, value)

    def _add(self, onto: Tensor, step: int, where: Tensor, unit: Tensor, value: Tensor | None) -> None:
        """Add the weights of ``unit`` of sample ``where``, times ``value``, to the slots ``step + delay`` of ``onto``."""
        each = self.weight.shape[1] if self.first is None else max(1, int(self.count.max()))
        chunk = max(1, BATCH_OF_SYNAPSES // each)
        slots, batch, size = onto.shape
        for k in range(0, len(unit), chunk):
            b, j = where[k : k + chunk], unit[k : k + chunk]
            some = None if value is None else value[k : k + chunk]
            if self.first is None and self.delay is None:
                rows = self.weight[j] if some is None else self.weight[j] * some[:, None]
                onto[step % slots].index_add_(0, b, rows)
                continue
            if self.first is None:
                assert self.delay is not None
                weight, delay = self.weight[j], self.delay[j]
                sample, column = b[:, None], torch.arange(size, device=onto.device)
                some = None if some is None else some[:, None]
            else:
                counts = self.count[j]
                spike = torch.repeat_interleave(torch.arange(len(j), device=j.device), counts)
                index = torch.arange(len(spike), device=j.device) - (counts.cumsum(0) - counts - self.first[j])[spike]
                weight, column, sample = self.weight[index], self.columns[index], b[spike]
                delay = torch.zeros_like(column) if self.delay is None else self.delay[index]
                some = None if some is None else some[spike]
            place = (((step + delay) % slots) * batch + sample) * size + column
            weight = weight if some is None else weight * some
            onto.view(-1).index_add_(0, place.expand(weight.shape).reshape(-1), weight.reshape(-1))

    def _convolve(self, geometry: Convolution, spikes: Tensor, step: int, pending: Tensor) -> None:
        if not bool(spikes.any()):
            return
        value = spikes if self.graded else spikes != 0
        images = value.to(torch.float64).reshape(-1, *geometry.shape)  # integers below 2^53 are exact
        options = geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        sums = functional.conv2d(images, self.weight.to(torch.float64), None, *options)
        pending[(step + 1) % len(pending)] += ((sums.flatten(1).to(torch.int64) + M) % (2 * M) - M).to(torch.int32)
