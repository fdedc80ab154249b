"""Counters of PyTorch's own layers: products of inputs with weights, effective operation by effective operation.

Of recurrent layers the products ``W x`` and ``R h`` count: each input that is not zero with the weights of its column that are
not zero, ``h(0)`` included. The elementwise products of the gates do not: as in ``EGRU`` they belong to the state update, of
which there is one for each unit and step. NeuroBench 2.3 adds up to three of them for each unit and step of a ``GRUCell`` or
``LSTMCell`` (where its binary copy of the gates is not zero), and does not count ``nn.GRU``, ``nn.LSTM`` and ``nn.RNN``. It takes
all of a cell for accumulates if x is plain; here ``W x`` and ``R h`` are judged each by their own inputs.

What a layer said is read from its output. Of several layers of ``nn.GRU``, ``nn.LSTM`` or ``nn.RNN`` the output shows the last
alone: while they are counted they run one after the other, which gives the same numbers, up to rounding, in the same time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from eventnet.counts import Counts, Forward, counter, kept, kept_of, total
from eventnet.layers.egru_steps import within
from eventnet.tally import InSteps, Tally, in_rows, tally

__all__ = ["Fan", "Rows", "argument", "operations", "product", "recurrent"]


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

    def tally(self, x: Tensor | InSteps) -> Tally:
        """Of inputs ``(..., sources)``, or of events, with what ``met`` needs."""
        return tally(x, columns=self.even is None)

    def met(self, found: Tally) -> int:
        """The synapses that inputs meet that are not zero."""
        if self.even is not None:
            return self.even * found.active
        assert found.columns is not None
        return int((found.columns * self.each).sum())


def columns(weight: Tensor, name: str) -> Fan:
    """The weights of each column that are not zero, found once."""
    return kept(name, (weight,), lambda: Fan.of((weight != 0).sum(0)))


def product(x: Tensor | InSteps, weight: Tensor, name: str = "weight") -> Counts:
    """The product of inputs ``(..., in)``, or of events, with a weight ``(out, in)``; a layer's weights differ in ``name``.

    Example:
        >>> found = product(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [4.0, 5.0]]))
        >>> found.accumulates, found.dense
        (5, 8)
    """
    fan = columns(weight, name)
    found = fan.tally(x)
    return Counts(
        synapses=fan.synapses, dense=weight.numel() * len(found.rows), **operations(fan.met(found), not found.graded)
    )


@counter(nn.Linear)
def _linear(layer: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """``weight x``; a step is a row of x, padding included, as a linear layer knows no lengths."""
    x: Tensor = argument(args, kwargs, 0, "input")
    return dataclasses.replace(
        product(x, layer.weight),
        samples=int(x.dim() == 1),  # of others the first dimension may be time
        steps=output.numel() // layer.out_features if layer.out_features else 0,
        neurons=layer.out_features,
        inputs=columns(layer.weight, "weight").tally(x).active,
        spikes=tally(output).active,
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
    active = fan.tally(images.flatten(1))
    return Counts(
        samples=int(x.dim() == len(layer.kernel_size) + 1),
        steps=len(images),
        neurons=output.numel() // max(len(images), 1),
        synapses=synapses,
        inputs=active.active,
        spikes=tally(output.flatten(1)).active,
        dense=each * len(images),
        **operations(fan.met(active), not active.graded),
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
        synapses=kept("weight", (layer.weight,), lambda: tally(layer.weight).active),
        inputs=read,
        spikes=tally(output).active,
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
    x: Tensor | InSteps,
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
        x: inputs, ``in`` numbers for each row, or events; rows that no sample has are 0.
        y: what the units send, a row for each step of each sample; rows that no sample has are 0.
        start: ``(B, units)`` what they sent before the first step, None is 0.
        weights: of the inputs and of the units, ``(gates * units, in)`` each.
        rows: how x and y are laid out.
        reverse: from the last step to the first.
        name: of the weights, where the layer has more than these.
        inputs: that come from outside and are not zero.
    """
    units = y.shape[-1]
    of_inputs, fan = product(x, weights[0], "ih" + name), columns(weights[1], "hh" + name)
    told = fan.tally(y)
    unheard = fan.tally(rows.side(in_rows(y), not reverse))  # what no step follows
    done, graded = fan.met(told) - fan.met(unheard), told.graded - unheard.graded
    if start is not None:
        before = fan.tally(start)
        done, graded = done + fan.met(before), graded + before.graded
    own = operations(done, not graded)
    return Counts(
        samples=rows.samples,
        steps=rows.steps,
        neurons=units,
        synapses=of_inputs.synapses + fan.synapses,
        inputs=inputs,
        spikes=told.active,
        accumulates=of_inputs.accumulates + own.get("accumulates", 0),
        multiply_accumulates=of_inputs.multiply_accumulates + own.get("multiply_accumulates", 0),
        dense=(weights[0].numel() + weights[1].numel()) * rows.steps,
        state_updates=units * rows.steps,
        weight_reads=of_inputs.weight_reads + done,
        spikes_per_step=rows.by_step(told.rows).cpu(),
    )


def in_turn(layer: nn.RNNBase) -> Forward | None:
    """A forward that also returns what each layer said: the layers one after the other, as PyTorch computes them, too."""
    if layer.num_layers == 1:
        return None
    directions, ones = 1 + layer.bidirectional, [_one(layer, k) for k in range(layer.num_layers)]

    def forward(input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        x, said, ends = input, [], []
        for k, (one, names) in enumerate(ones):
            here = slice(k * directions, (k + 1) * directions)
            own = [each for weights in layer.all_weights[here] for each in weights]
            h = tuple(part[here] for part in hx) if isinstance(hx, tuple) else None if hx is None else hx[here]
            x, end = functional_call(one, dict(zip(names, own, strict=True)), (x, h))
            said.append(x)
            ends.append(end)
        if layer.mode == "LSTM":
            return (x, tuple(torch.cat(part) for part in zip(*ends, strict=True))), said
        return (x, torch.cat(ends)), said

    return forward


def _one(layer: nn.RNNBase, k: int) -> tuple[nn.Module, list[str]]:
    """A module like the k-th layer alone, without weights, and the names of those that it takes."""
    kinds: dict[str, Any] = {"GRU": nn.GRU, "LSTM": nn.LSTM}
    options = {} if layer.mode in kinds else {"nonlinearity": layer.mode.removeprefix("RNN_").lower()}
    one: nn.RNNBase = kinds.get(layer.mode, nn.RNN)(
        layer.hidden_size * (1 + layer.bidirectional) if k else layer.input_size,
        layer.hidden_size,
        bias=layer.bias,
        batch_first=layer.batch_first,
        bidirectional=layer.bidirectional,
        device="meta",
        **options,
    )
    return one, list(one._flat_weights_names)


@counter(nn.RNN, nn.GRU, nn.LSTM, more=in_turn)
def _recurrent(layer: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """All layers and directions."""
    if layer.proj_size:
        raise TypeError("nn.LSTM with proj_size has no counter: what is projected is no output of it")
    (last, _), said = output
    x, rows = laid_out(argument(args, kwargs, 0, "input"), layer.batch_first)
    state, directions = argument(args, kwargs, 1, "hx"), 1 + layer.bidirectional
    h: Tensor | None = state[0] if isinstance(state, tuple) else state
    shape = layer.num_layers * directions, rows.samples, layer.hidden_size
    before = [None] * shape[0] if h is None else h.reshape(shape)
    found: list[Counts] = []
    outside = tally(x).active
    for k, each in enumerate(said or [last]):
        here = slice(k * directions, (k + 1) * directions)
        y, rows = laid_out(each, layer.batch_first)
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
    spikes, units = tally(y).active, y.shape[1]
    of_units = Counts() if before is None else product(before.reshape(y.shape), cell.weight_hh, "hh")
    of_inputs = product(x, cell.weight_ih, "ih")
    synapses = of_units.synapses if before is not None else columns(cell.weight_hh, "hh").synapses
    return Counts(
        samples=len(y),
        steps=len(y),
        neurons=units,
        synapses=of_inputs.synapses + synapses,
        inputs=tally(x).active,
        spikes=spikes,
        accumulates=of_inputs.accumulates + of_units.accumulates,
        multiply_accumulates=of_inputs.multiply_accumulates + of_units.multiply_accumulates,
        dense=of_inputs.dense + cell.weight_hh.numel() * len(y),
        state_updates=units * len(y),
        weight_reads=of_inputs.weight_reads + of_units.weight_reads,
        spikes_per_step=torch.tensor([spikes]),
    )
