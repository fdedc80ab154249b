"""Counters of PyTorch's own layers: products of inputs with weights, effective operation by effective operation.

Of recurrent layers the products ``W x`` and ``R h`` count: each input that is not zero with the weights of its column that are
not zero, ``h(0)`` included. The elementwise products of the gates do not: as in ``EGRU`` they belong to the state update, of
which there is one for each unit and step. NeuroBench 2.3 adds up to three of them for each unit and step of a ``GRUCell`` or
``LSTMCell`` (where its binary copy of the gates is not zero), and does not count ``nn.GRU``, ``nn.LSTM`` and ``nn.RNN``. It takes
all of a cell for accumulates if x is plain; here ``W x`` and ``R h`` are judged each by their own inputs.

What a layer said is read from its output. Of several layers of ``nn.GRU``, ``nn.LSTM`` or ``nn.RNN`` the output shows the last
alone: the others are computed again, layer by layer, which costs nearly another inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from eventnet.counts import Counts, counter, kept, kept_of, total
from eventnet.layers.egru_steps import within

__all__ = ["Fan", "Rows", "argument", "operations", "product", "recurrent"]

BLOCK = 1 << 16  # numbers that are looked at together: what is made of them stays in the cache


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    """An argument of a call, None if it was not given."""
    return args[position] if len(args) > position else kwargs.get(name)


def operations(number: int, plain: bool) -> dict[str, Any]:
    """So many synaptic operations as fields of ``Counts``: accumulates if the inputs are plain spikes.

    Example:
        >>> Counts(**operations(6, plain=False)).multiply_accumulates
        6
    """
    return {"accumulates" if plain else "multiply_accumulates": number, "weight_reads": number}


# ---- numbers that are not zero ---------------------------------------------------------------------------------------------


def nonzero(x: Tensor) -> int:
    """How many numbers are not zero.

    Example:
        >>> nonzero(torch.eye(3))
        3
    """
    if x.device.type != "cpu":
        return int(x.count_nonzero())
    if x.numel() <= BLOCK:
        return int(np.count_nonzero(x.bool().numpy()))
    return sum(int(np.count_nonzero(there.numpy())) for there in _blocks(_rows(x)))


def by_row(x: Tensor) -> Tensor:
    """``(R,)`` numbers of each row of ``(R, N)`` that are not zero."""
    return torch.cat([there.sum(1, dtype=torch.int32) for there in _blocks(x)]).long()


def by_column(x: Tensor) -> Tensor:
    """``(N,)`` numbers of each column of ``(R, N)`` that are not zero."""
    found = torch.zeros(x.shape[1], dtype=torch.int64, device=x.device)
    for there in _blocks(x):
        found += there.sum(0, dtype=torch.int32)
    return found


def is_plain(x: Tensor, but: int = 0) -> bool:
    """Whether all numbers, ``but`` so many, are -1, 0 or 1: with such inputs weights are added, not multiplied.

    Example:
        >>> is_plain(torch.tensor([1.0, 0.0, -1.0])), is_plain(torch.tensor([0.5, 1.0])), is_plain(torch.tensor([0.5]), but=1)
        (True, False, True)
    """
    if not x.numel():
        return True
    rows = _rows(x)
    first = min(max(1, 4096 // rows.shape[1]), len(rows))  # most are not, and show it soon
    found = others(rows[:first])
    for part in rows[first:].split(_length(rows.shape[1], x)):
        if found > but:
            return False
        found += others(part)
    return found <= but


def others(x: Tensor) -> int:
    """How many numbers are not -1, 0 or 1."""
    return nonzero(x) + nonzero(x.abs().sub_(1)) - x.numel()


def _rows(x: Tensor) -> Tensor:
    """``(R, N)``, in any order."""
    if x.dim() == 3 and not x.is_contiguous() and x.transpose(0, 1).is_contiguous():
        x = x.transpose(0, 1)
    return x.reshape(-1, x.shape[-1]) if x.dim() and x.numel() else x.reshape(-1, 1)


def _length(size: int, x: Tensor) -> int:
    """Rows of a block."""
    return max(1, BLOCK // max(size, 1)) if x.device.type == "cpu" else max(x.numel(), 1)


def _blocks(x: Tensor) -> Iterator[Tensor]:
    """Where ``(R, N)`` is not zero, some rows at a time; each lasts until the next one is asked for."""
    rows, size = x.shape
    length = min(_length(size, x), rows)
    if length == rows:
        yield x.bool()
        return
    room = torch.empty(length, size, dtype=torch.bool, device=x.device)
    for part in x.split(length):
        yield room[: len(part)].copy_(part)  # several times faster than !=


# ---- products --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fan:
    """The weights that are not zero: ``each (sources,)`` of them, and how many if all sources have as many, else None."""

    synapses: int
    each: Tensor
    even: int | None

    @classmethod
    def of(cls, each: Tensor) -> Fan:
        """From the number of each source.

        Example:
            >>> Fan.of(torch.tensor([2, 2])).even, Fan.of(torch.tensor([2, 1])).even
            (2, None)
        """
        each = each.long()
        first = int(each[0]) if len(each) else 0
        return cls(int(each.sum()), each, first if bool((each == first).all()) else None)

    def times(self, rows: Tensor, active: int) -> int:
        """The synapses that the numbers of ``(R, sources)`` meet that are not zero, ``active`` of them."""
        return self.even * active if self.even is not None else self.weigh(by_column(rows))

    def weigh(self, numbers: Tensor) -> int:
        """The synapses that so many inputs of each source meet."""
        return int((numbers * self.each).sum())


def columns(weight: Tensor, name: str) -> Fan:
    """The weights of each column, found once."""
    return kept(name, (weight,), lambda: Fan.of(by_column(weight)))


def product(x: Tensor, weight: Tensor, name: str = "weight") -> Counts:
    """The product of inputs ``(..., in)`` with a weight ``(out, in)``; a layer's weights differ in their ``name``.

    Example:
        >>> found = product(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [4.0, 5.0]]))
        >>> found.accumulates, found.dense
        (5, 8)
    """
    rows = _rows(x) if weight.shape[1] else x.reshape(-1, 1)[:0]
    fan, active = columns(weight, name), nonzero(rows)
    done = fan.times(rows, active) if active else 0
    return Counts(synapses=fan.synapses, dense=weight.numel() * len(rows), **operations(done, is_plain(rows)))


@counter(nn.Linear)
def _linear(layer: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """``weight x``; a step is a row of x, padding included, as a linear layer knows no lengths."""
    x: Tensor = argument(args, kwargs, 0, "input")
    weight = layer.weight
    rows = _rows(x) if layer.in_features else x.reshape(-1, 1)[:0]
    fan, active = columns(weight, "weight"), nonzero(rows)
    return Counts(
        samples=int(x.dim() == 1),  # of others the first dimension may be time
        steps=output.numel() // layer.out_features if layer.out_features else 0,
        neurons=layer.out_features,
        synapses=fan.synapses,
        inputs=active,
        spikes=nonzero(output),
        dense=weight.numel() * len(rows),
        **operations(fan.times(rows, active), is_plain(rows)),
    )


@counter(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """``weight * x``; a step is an image, a neuron one of its outputs. Zeros around it never count; what ``padding_mode``
    repeats of it does."""
    x: Tensor = argument(args, kwargs, 0, "input")
    images, weight = x.reshape(-1, *x.shape[-len(layer.kernel_size) - 1 :]), layer.weight

    def uses() -> tuple[int, Fan, int]:
        there = weight != 0
        fan = Fan.of(_uses(layer, there, images.shape[1:]).flatten())
        if bool(there.all()):
            return there.numel(), fan, fan.synapses
        return int(there.sum()), fan, int(_uses(layer, torch.ones_like(there), images.shape[1:]).sum())

    synapses, fan, each = kept(f"uses {tuple(images.shape[1:])}", (weight,), uses)
    rows = images.flatten(1)
    active = nonzero(rows)
    return Counts(
        samples=int(x.dim() == len(layer.kernel_size) + 1),
        steps=len(images),
        neurons=output.numel() // max(len(images), 1),
        synapses=synapses,
        inputs=active,
        spikes=nonzero(output),
        dense=each * len(images),
        **operations(fan.times(rows, active), is_plain(rows)),
    )


def _uses(layer: Any, there: Tensor, shape: torch.Size) -> Tensor:
    """How many products a pixel is a factor of, ``shape``: what all outputs together change by, if each weight counts as 1."""
    # outputs of a group are added up beforehand
    there = there.double().reshape(layer.groups, -1, *there.shape[1:]).sum(1)
    image = torch.zeros(1, *shape, dtype=torch.float64, device=there.device, requires_grad=True)
    with torch.enable_grad():
        reached = layer._conv_forward(image, there, None).sum()
        (found,) = torch.autograd.grad(reached, image)
    return found[0].round().long()


@counter(nn.Embedding)
def _embedding(layer: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """A row of weights is read for each index but that of the padding; nothing is computed."""
    index: Tensor = argument(args, kwargs, 0, "input")
    read = index.numel() if layer.padding_idx is None else int((index != layer.padding_idx).sum())
    return Counts(
        samples=int(index.dim() == 0),
        steps=index.numel(),
        neurons=layer.embedding_dim,
        synapses=kept("weight", (layer.weight,), lambda: nonzero(layer.weight)),
        inputs=read,
        spikes=nonzero(output),
        weight_reads=read * layer.embedding_dim,
    )


# ---- recurrent layers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """How the steps of samples are laid out in the rows of what a layer said, ``(T, B, N)``, ``(B, T, N)`` or packed ``(R, N)``.

    Args:
        samples: how many there are.
        steps: of all samples together.
        shape: ``(T, B)`` or ``(B, T)``, None for packed ones.
        turned: ``(B, T)``.
        sizes: samples of each step, of packed ones.
        ends: row of each sample's last step; None where all of ``(T, B)`` are there.
    """

    samples: int
    steps: int
    shape: tuple[int, int] | None = None
    turned: bool = False
    sizes: Tensor | None = None
    ends: Tensor | None = None

    @classmethod
    def full(cls, first: int, second: int, turned: bool = False) -> Rows:
        """Samples of equal length."""
        return cls(first if turned else second, first * second, (first, second), turned)

    @classmethod
    def padded(cls, lengths: Tensor, steps: int, turned: bool = False) -> Rows:
        """Samples of ``lengths (B,)``, 0 after them."""
        num, sample = len(lengths), torch.arange(len(lengths), device=lengths.device)
        ends = sample * steps + lengths - 1 if turned else (lengths - 1) * num + sample
        return cls(num, int(lengths.sum()), (num, steps) if turned else (steps, num), turned, ends=ends)

    @classmethod
    def packed(cls, lengths: Tensor) -> Rows:
        """Samples of ``lengths (B,)``, step after step those that are still there.

        Example:
            >>> rows = Rows.packed(torch.tensor([2, 1]))
            >>> rows.sizes.tolist(), rows.ends.tolist(), rows.by_step(torch.tensor([5, 6, 7])).tolist()
            ([2, 1], [2, 1], [11, 7])
        """
        there = within(lengths, int(lengths.max()) if len(lengths) else 0)
        row = there.flatten().cumsum(0).view(there.shape) - 1
        ends = row[lengths - 1, torch.arange(len(lengths), device=row.device)]
        return cls(len(lengths), int(lengths.sum()), sizes=there.sum(1), ends=ends)

    def by_step(self, rows: Tensor) -> Tensor:
        """``(T,)`` the sum of each step's numbers, one for each row."""
        if self.shape is not None:
            return rows.view(self.shape).sum(0 if self.turned else 1)
        assert self.sizes is not None
        before, end = torch.nn.functional.pad(rows.cumsum(0), (1, 0)), self.sizes.cumsum(0)
        return before[end] - before[end - self.sizes]

    def side(self, x: Tensor, last: bool) -> Tensor:
        """``(B, N)`` of the last step of each sample, or the first, from all rows ``(R, N)``."""
        if self.shape is None or (last and self.ends is not None):
            return x[self.ends] if last else x[: self.samples]
        grid = x.view(*self.shape, x.shape[1])
        return grid.select(1 if self.turned else 0, -1 if last else 0)


def recurrent(
    x: Tensor,
    y: Tensor,
    start: Tensor | None,
    weights: tuple[Tensor, Tensor],
    rows: Rows,
    reverse: bool = False,
    name: str = "",
    inputs: int = 0,
) -> Counts:
    """A layer in one direction: the products of its inputs and of what its units sent a step before.

    Args:
        x: inputs, ``in`` numbers for each row; rows that no sample has are 0.
        y: what the units send, a row for each step of each sample; rows that no sample has are 0.
        start: ``(B, units)`` what they sent before the first step, None is 0.
        weights: of the inputs and of the units, ``(gates * units, in)`` each.
        rows: how x and y are laid out.
        reverse: from the last step to the first.
        name: of the weights, where the layer has more than these.
        inputs: that come from outside and are not zero.
    """
    units = y.shape[-1]
    y = y.reshape(-1, units)
    by_row_of_y = by_row(y)
    spikes = int(by_row_of_y.sum())
    of_inputs = product(x, weights[0], "ih" + name)
    unheard = rows.side(y, not reverse)  # what no step follows
    fan = columns(weights[1], "hh" + name)
    if fan.even is not None:
        done = fan.even * (spikes - nonzero(unheard) + (0 if start is None else nonzero(start)))
    else:
        done = fan.weigh(by_column(y) - by_column(unheard) + (0 if start is None else by_column(start)))
    plain = (start is None or is_plain(start)) and is_plain(y, but=others(unheard))
    own = operations(done, plain)
    return Counts(
        samples=rows.samples,
        steps=rows.steps,
        neurons=units,
        synapses=of_inputs.synapses + fan.synapses,
        inputs=inputs,
        spikes=spikes,
        accumulates=of_inputs.accumulates + own.get("accumulates", 0),
        multiply_accumulates=of_inputs.multiply_accumulates + own.get("multiply_accumulates", 0),
        dense=(weights[0].numel() + weights[1].numel()) * rows.steps,
        state_updates=units * rows.steps,
        weight_reads=of_inputs.weight_reads + done,
        spikes_per_step=rows.by_step(by_row_of_y).cpu(),
    )


@counter(nn.RNN, nn.GRU, nn.LSTM)
def _recurrent(layer: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """All layers and directions; what the last layer said is the output, what the others said is computed again."""
    if layer.proj_size:
        raise TypeError("nn.LSTM with proj_size has no counter: what is projected is no output of it")
    given = argument(args, kwargs, 0, "input")
    x, rows = laid_out(given, layer.batch_first)
    state, directions = argument(args, kwargs, 1, "hx"), 1 + layer.bidirectional
    h: Tensor | None = state[0] if isinstance(state, tuple) else state
    shape = layer.num_layers * directions, rows.samples, layer.hidden_size
    before = [None] * shape[0] if h is None else h.reshape(shape)
    found: list[Counts] = []
    outside = nonzero(x)
    if layer.num_layers > 1:
        start = x.new_zeros(shape) if h is None else h.reshape(shape)
        inner = _inner(
            layer, given, start, state[1].reshape(shape) if isinstance(state, tuple) else torch.zeros_like(start)
        )
    for k in range(layer.num_layers):
        here = slice(k * directions, (k + 1) * directions)
        y, rows = laid_out(output[0] if k == layer.num_layers - 1 else next(inner), layer.batch_first)
        for side, (told, h0, weights) in enumerate(
            zip(y.chunk(directions, -1), before[here], layer.all_weights[here], strict=True)
        ):
            found.append(
                recurrent(
                    x, told, h0, (weights[0], weights[1]), rows, bool(side), f" {k} {side}", 0 if found else outside
                )
            )
        x = y
    return total(found)


def laid_out(given: Tensor | PackedSequence, batch_first: bool, lengths: Tensor | None = None) -> tuple[Tensor, Rows]:
    """What goes into a layer or comes out of it as it is in memory, and how it is laid out; ``lengths`` of padded samples."""
    if isinstance(given, PackedSequence):
        sizes, device = given.batch_sizes, given.data.device

        def rows() -> Rows:
            return Rows.packed((sizes[:, None] > torch.arange(int(sizes[0]))).sum(0).to(device))

        return given.data, kept_of(sizes, "rows", rows)
    x = given[:, None] if given.dim() == 2 else given
    turned = batch_first and given.dim() == 3
    if not x.is_contiguous() and x.transpose(0, 1).is_contiguous():
        x, turned = x.transpose(0, 1), not turned
    if lengths is not None:
        return x, Rows.padded(lengths, x.shape[1 if turned else 0], turned)
    return x, Rows.full(x.shape[0], x.shape[1], turned)


def _inner(
    layer: nn.RNNBase, given: Tensor | PackedSequence, h: Tensor, c: Tensor
) -> Iterator[Tensor | PackedSequence]:
    """What all layers but the last one say, in the form of the output."""
    directions, x = 1 + layer.bidirectional, given
    for k in range(layer.num_layers - 1):
        here = slice(k * directions, (k + 1) * directions)
        x = _one_layer(layer, k, x, h[here], c[here])
        yield x


def _one_layer(layer: nn.RNNBase, k: int, x: Any, h: Tensor, c: Tensor) -> Any:
    """The output of the k-th layer alone."""
    directions = 1 + layer.bidirectional
    made = {"GRU": nn.GRU, "LSTM": nn.LSTM}.get(layer.mode, nn.RNN)
    options = {} if made is not nn.RNN else {"nonlinearity": layer.mode.removeprefix("RNN_").lower()}
    one = made(
        (x.data if isinstance(x, PackedSequence) else x).shape[-1],
        layer.hidden_size,
        bias=layer.bias,
        batch_first=layer.batch_first,
        bidirectional=layer.bidirectional,
        device="meta",
        **options,
    )
    own = [each for weights in layer.all_weights[k * directions : (k + 1) * directions] for each in weights]
    if isinstance(x, Tensor) and x.dim() == 2:
        h, c = h[:, 0], c[:, 0]
    state = (h.contiguous(), c.contiguous()) if layer.mode == "LSTM" else h.contiguous()
    return functional_call(one, dict(zip(one._flat_weights_names, own, strict=True)), (x, state))[0]


@counter(nn.RNNCell, nn.GRUCell, nn.LSTMCell)
def _cell(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """One step."""
    state = argument(args, kwargs, 1, "hx")
    h = state[0] if isinstance(state, tuple) else state
    y = output[0] if isinstance(output, tuple) else output
    return one_step(argument(args, kwargs, 0, "input"), y, h, layer)


def one_step(x: Tensor, y: Tensor, before: Tensor | None, cell: Any) -> Counts:
    """The counts of a cell: inputs ``(B, in)`` or ``(in,)``, what its units send, and what they sent a step before."""
    x, y = (part.reshape(-1, part.shape[-1]) for part in (x, y))
    spikes, units = nonzero(y), y.shape[1]
    of_units = Counts() if before is None else product(before.reshape(y.shape), cell.weight_hh, "hh")
    of_inputs = product(x, cell.weight_ih, "ih")
    synapses = of_units.synapses if before is not None else columns(cell.weight_hh, "hh").synapses
    return Counts(
        samples=len(y),
        steps=len(y),
        neurons=units,
        synapses=of_inputs.synapses + synapses,
        inputs=nonzero(x),
        spikes=spikes,
        accumulates=of_inputs.accumulates + of_units.accumulates,
        multiply_accumulates=of_inputs.multiply_accumulates + of_units.multiply_accumulates,
        dense=of_inputs.dense + cell.weight_hh.numel() * len(y),
        state_updates=units * len(y),
        weight_reads=of_inputs.weight_reads + of_units.weight_reads,
        spikes_per_step=torch.tensor([spikes]),
    )
