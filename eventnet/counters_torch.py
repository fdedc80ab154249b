"""Counters of PyTorch's own layers: products of inputs with weights, effective operation by effective operation.

Of recurrent layers the products ``W x`` and ``R h`` count: each input that is not zero with the weights of its column that are
not zero, ``h(0)`` included. The elementwise products of the gates do not: as in ``EGRU`` they belong to the state update, of
which there is one for each unit and step. NeuroBench 2.3 adds up to three of them for each unit and step of a ``GRUCell`` or
``LSTMCell`` (where its binary copy of the gates is not zero), and does not count ``nn.GRU``, ``nn.LSTM`` and ``nn.RNN``. It takes
all of a cell for accumulates if x is plain; here ``W x`` and ``R h`` are judged each by their own inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from eventnet.counts import Counts, counter, total
from eventnet.layers.egru_steps import within

__all__ = ["argument", "operations", "product", "recurrent"]


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


def is_plain(x: Tensor) -> bool:
    """Whether all numbers are -1, 0 or 1: with such inputs weights are added, not multiplied."""
    return bool(((x == 0) | (x.abs() == 1)).all())


def product(x: Tensor, weight: Tensor) -> Counts:
    """The product of inputs ``(..., in)`` with a weight ``(out, in)``.

    Example:
        >>> found = product(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [4.0, 5.0]]))
        >>> found.accumulates, found.dense
        (5, 8)
    """
    rows = x.reshape(-1, weight.shape[1]) if weight.shape[1] else x.reshape(-1, 1)[:0]
    there, active = weight != 0, (rows != 0).sum(0)
    return Counts(
        synapses=int(there.sum()),
        dense=weight.numel() * len(rows),
        **operations(int((active * there.sum(0)).sum()), is_plain(rows)),
    )


@counter(nn.Linear)
def _linear(layer: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """``weight x``; a step is a row of x, padding included, as a linear layer knows no lengths."""
    x: Tensor = argument(args, kwargs, 0, "input")
    outside = Counts(
        samples=int(x.dim() == 1),  # of others the first dimension may be time
        steps=output.numel() // layer.out_features if layer.out_features else 0,
        neurons=layer.out_features,
        inputs=int(x.count_nonzero()),
        spikes=int(output.count_nonzero()),
    )
    return total([outside, product(x, layer.weight)])


@counter(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    """``weight * x``; a step is an image, a neuron one of its outputs. Zeros around it never count; what ``padding_mode``
    repeats of it does."""
    x: Tensor = argument(args, kwargs, 0, "input")
    images = x.reshape(-1, *x.shape[-len(layer.kernel_size) - 1 :])
    there = layer.weight != 0
    active = (images != 0).sum(0)
    done = int((active * _uses(layer, there, active.shape)).sum())
    each = int(_uses(layer, torch.ones_like(there), active.shape).sum())
    return Counts(
        samples=int(x.dim() == len(layer.kernel_size) + 1),
        steps=len(images),
        neurons=output.numel() // max(len(images), 1),
        synapses=int(there.sum()),
        inputs=int(active.sum()),
        spikes=int(output.count_nonzero()),
        dense=each * len(images),
        **operations(done, is_plain(x)),
    )


def _uses(layer: Any, there: Tensor, shape: torch.Size) -> Tensor:
    """How many products a pixel is a factor of, ``shape``: what all outputs together change by, if each weight counts as 1."""
    image = torch.zeros(1, *shape, dtype=torch.float64, device=there.device, requires_grad=True)
    with torch.enable_grad():
        reached = layer._conv_forward(image, there.double(), None).sum()
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
        synapses=int(layer.weight.count_nonzero()),
        inputs=read,
        spikes=int(output.count_nonzero()),
        weight_reads=read * layer.embedding_dim,
    )


# ---- recurrent layers ------------------------------------------------------------------------------------------------------


def recurrent(
    x: Tensor, y: Tensor, start: Tensor, weights: tuple[Tensor, Tensor], there: Tensor, reverse: bool = False
) -> Counts:
    """A layer in one direction: the products of its inputs and of what its units sent a step before.

    Args:
        x: ``(T, B, in)`` inputs.
        y: ``(T, B, units)`` what the units send, in order of time, 0 after the end of a sample.
        start: ``(B, units)`` what they sent before the first step.
        weights: of the inputs and of the units, ``(gates * units, in)`` each.
        there: ``(T, B)`` which steps a sample has.
        reverse: from the last step to the first.
    """
    if reverse:
        before = torch.cat([y[1:], torch.zeros_like(y[:1])])
        before[there.sum(0) - 1, torch.arange(y.shape[1], device=y.device)] = start.to(y.dtype)
    else:
        before = torch.cat([start[None].to(y.dtype), y[:-1]])
    units, steps = y.shape[2], int(there.sum())
    outside = Counts(
        samples=y.shape[1],
        steps=steps,
        neurons=units,
        spikes=int(y.count_nonzero()),
        state_updates=units * steps,
        spikes_per_step=y.count_nonzero((1, 2)).cpu(),
    )
    return total([outside, product(x[there], weights[0]), product(before[there], weights[1])])


@counter(nn.RNN, nn.GRU, nn.LSTM)
def _recurrent(layer: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dt: float) -> Counts:
    """All layers and directions; their outputs are computed again, layer by layer."""
    if layer.proj_size:
        raise TypeError("nn.LSTM with proj_size has no counter: what is projected is no output of it")
    given = argument(args, kwargs, 0, "input")
    x, lengths = _steps_first(layer, given)
    there = within(lengths, len(x))
    state, directions = argument(args, kwargs, 1, "hx"), 1 + layer.bidirectional
    h: Tensor = state[0] if isinstance(state, tuple) else state
    shape = layer.num_layers * directions, x.shape[1], layer.hidden_size
    start = x.new_zeros(shape) if h is None else h.reshape(shape)
    c = state[1].reshape(shape) if isinstance(state, tuple) else torch.zeros_like(start)
    found = [Counts(inputs=int(x[there].count_nonzero()))]
    for k in range(layer.num_layers):
        here = slice(k * directions, (k + 1) * directions)
        y = _one_layer(layer, k, x, lengths, start[here], c[here])
        for told, h0, weights, reverse in zip(
            y.chunk(directions, 2), start[here], layer.all_weights[here], (False, True), strict=False
        ):
            found.append(recurrent(x, told, h0, (weights[0], weights[1]), there, reverse))
        x = y
    return total(found)


def _steps_first(layer: nn.RNNBase, given: Tensor | PackedSequence) -> tuple[Tensor, Tensor]:
    """The input as ``(T, B, in)``, and the steps of each sample ``(B,)``."""
    if isinstance(given, PackedSequence):
        x, lengths = pad_packed_sequence(given)
        return x, lengths.to(x.device)
    x = given[:, None] if given.dim() == 2 else given.transpose(0, 1) if layer.batch_first else given
    return x, torch.full((x.shape[1],), len(x), device=x.device)


def _one_layer(layer: nn.RNNBase, k: int, x: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """``(T, B, directions * units)`` outputs of the k-th layer alone, 0 after the end of a sample."""
    directions = 1 + layer.bidirectional
    made = {"GRU": nn.GRU, "LSTM": nn.LSTM}.get(layer.mode, nn.RNN)
    options = {} if made is not nn.RNN else {"nonlinearity": layer.mode.removeprefix("RNN_").lower()}
    one = made(
        x.shape[2],
        layer.hidden_size,
        bias=layer.bias,
        bidirectional=layer.bidirectional,
        device="meta",
        **options,
    )
    own = [each for weights in layer.all_weights[k * directions : (k + 1) * directions] for each in weights]
    flow: Tensor | PackedSequence = x
    if bool((lengths < len(x)).any()):
        flow = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    state = (h.contiguous(), c.contiguous()) if layer.mode == "LSTM" else h.contiguous()
    y, _ = functional_call(one, dict(zip(one._flat_weights_names, own, strict=True)), (flow, state))
    return pad_packed_sequence(y)[0] if isinstance(y, PackedSequence) else y


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
    start = torch.zeros_like(y) if before is None else before.reshape(y.shape)
    there = torch.ones(1, len(y), dtype=torch.bool, device=y.device)
    done = recurrent(x[None], y[None], start, (cell.weight_ih, cell.weight_hh), there)
    return total([done, Counts(inputs=int(x.count_nonzero()))])
