"""EGRU: a gated recurrent unit whose units speak only when they have something to say.

    r = sigmoid(W_r x + b_r + R_r y + b'_r)           v = z c + (1 - z) n
    z = sigmoid(W_z x + b_z + R_z y + b'_z)           o = 1 where v > threshold, else 0
    n = tanh(W_n x + b_n + r (R_n y + b'_n))          y = o v,   c = v - o threshold

A unit keeps its state c to itself. Only when it passes its threshold is its value told to the others, and the threshold
taken off the state: y is zero most of the time, and what is zero need not be multiplied. With a gate that is always open
(o = 1) and nothing taken off this is ``torch.nn.GRU``; names, order of gates, shapes and arguments are those of that module.

The step o(v) has the pseudo-derivative ``height max(0, 1 - |v - threshold| / half_width)``. Gradients flow through units that
fired or are within ``half_width`` of their threshold: the narrower it is, the sparser is the backward pass.

Source: Subramoney, Nazeer, Schöne, Mayr & Kappel, "Efficient recurrent architectures through activity sparsity and sparse
back-propagation through time" (ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from eventnet import kernels
from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.kernels.reference_egru import Fired, Unit
from eventnet.layers.egru_steps import EGRUSteps, within

__all__ = ["EGRU", "EGRUCell", "EGRUState"]

THRESHOLD_MEAN, THRESHOLD_TAIL = 0.3, 3.0  # of the Beta(a, 3) distribution that thresholds are drawn from


class EGRUState(NamedTuple):
    """The state of the units, ``(layers * directions, B, H)``: what they keep to themselves and what they told last.

    ``trace``, ``(B, directions * H)``, is that of the output, of a layer that has one.
    """

    c: Tensor
    y: Tensor
    trace: Tensor | None = None

    def detach(self) -> EGRUState:
        """The same numbers without their history: where gradients through time are to end."""
        return EGRUState(self.c.detach(), self.y.detach(), None if self.trace is None else self.trace.detach())


class EGRU(nn.RNNBase):
    """Event-based GRU: called, named and shaped as ``torch.nn.GRU``; its state is ``EGRUState(c, y)``.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as of ``torch.nn.GRU``.
        threshold_mean: of the thresholds, one for each unit, drawn from Beta(a, 3) and learnt within [0, 1] (``constrain_``).
        height, half_width: of the triangle that is the derivative of firing.
        trace_decay: if given, the output is a trace of what the last layer tells, ``trace = decay trace + (1 - decay) y``.
        zoneout: share of the units that keep their c for a step, in training; then, all keep that share of it.
        drop_connect: share of the connections between the units that are left out of a call, in training; the others grow
            by 1 / (1 - share).
        step: seconds of a step; the input may then be ``Events``, which are counted (their values added up) step by step.
        check: refuse input that is not finite.
        backend: "auto" or "reference".

    Shape:
        input ``(T, B, input_size)``, ``(B, T, input_size)`` if ``batch_first``, ``(T, input_size)`` without a batch, packed, or
        ``Events`` of ``input_size`` units, each sample for the steps that it lasts; the output has those of the longest one, zero
        after the end of a sample. Output: alike with ``directions * H``, most of it zero. State: ``(layers * directions, B, H)``
        each, after the last step of each sample; None is 0. Where ``torch.nn.GRU`` gives ``h[-1]``, this is ``state.y[-1]``.
        Equations: ``help(eventnet.layers.egru)``.

    Example:
        >>> layer = EGRU(8, 16, num_layers=2)
        >>> output, state = layer(torch.randn(5, 3, 8))
        >>> output.shape, state.c.shape
        (torch.Size([5, 3, 16]), torch.Size([2, 3, 16]))
        >>> output, state = layer(torch.randn(5, 3, 8), state.detach())  # goes on
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        threshold_mean: float = THRESHOLD_MEAN,
        height: float = 0.7,
        half_width: float = 1.0,
        trace_decay: float | None = None,
        zoneout: float = 0.0,
        drop_connect: float = 0.0,
        step: float | None = None,
        check: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_options(
            threshold_mean, height, half_width, trace_decay=trace_decay, zoneout=zoneout, drop_connect=drop_connect
        )
        if step is not None and not (isinstance(step, int | float) and 0 < step < float("inf")):
            raise ValueError(f"EGRU: step is {step!r}; expected a positive number of seconds, or None")
        self.threshold_mean, self.height, self.half_width = threshold_mean, height, half_width
        self.trace_decay, self.zoneout, self.drop_connect = trace_decay, zoneout, drop_connect
        self.step, self.check, self.backend = step, check, backend
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        for suffix in self._suffixes():
            self.register_parameter(
                "threshold" + suffix, nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
            )
        self.reset_parameters()

    @outside_graphs
    def forward(
        self, input: Tensor | PackedSequence | Events, state: EGRUState | None = None, *, return_steps: bool = False
    ) -> tuple[Tensor | PackedSequence, EGRUState] | tuple[Tensor | PackedSequence, EGRUState, list[EGRUSteps]]:
        """The output and the last state; with ``return_steps`` also what each layer and direction did, for losses and counts.

        Of what a lower layer told, the gradient may be left out where it is of no use to that layer's parameters and inputs.
        """
        x, lengths = self._padded(input)
        before = self._state(state, x, batched=not (isinstance(input, Tensor) and input.dim() == 2))
        steps: list[EGRUSteps] = []
        ends: list[tuple[Tensor, Tensor]] = []
        needed: Tensor | None = None
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = functional.dropout(x, self.dropout, self.training)
            told = []
            for direction in range(1 + self.bidirectional):
                done, end = self._run(x, needed, lengths, before, layer, direction)
                told.append(done)
                steps.append(done)
                ends.append(end)
            x = torch.cat([done.y for done in told], -1) if self.bidirectional else told[0].y
            if torch.is_grad_enabled() and layer + 1 < self.num_layers:
                needed = torch.cat([done.needed for done in told], -1)
        trace = None
        if self.trace_decay is not None:
            x, trace = self._trace(x, lengths, before.trace)
        c, y = (torch.stack(part) for part in zip(*ends, strict=True))
        after = EGRUState(c, y, trace)
        if isinstance(input, Tensor) and input.dim() == 2:
            after = EGRUState(c[:, 0], y[:, 0], None if trace is None else trace[0])
        output = self._like(input, x, lengths)
        if not return_steps:
            return output, after
        return output, after, [_valid(done, lengths) for done in steps]

    def reset_parameters(self) -> None:
        """Xavier-normal weights, gate by gate; biases 0; thresholds from Beta(a, 3)."""
        _draw_(self, self.threshold_mean)

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        given: dict[str, float | None] = {
            "step": None,
            "height": 0.7,
            "half_width": 1.0,
            "trace_decay": None,
            "zoneout": 0.0,
            "drop_connect": 0.0,
        }
        changed = [f"{name}={getattr(self, name)}" for name, usual in given.items() if getattr(self, name) != usual]
        return ", ".join([super().extra_repr(), *changed])

    # ---- parts of the call ---------------------------------------------------------------------------------------------

    def _suffixes(self) -> Iterator[str]:
        for layer in range(self.num_layers):
            yield from (f"_l{layer}{end}" for end in ("", "_reverse")[: 1 + self.bidirectional])

    def _padded(self, input: Tensor | PackedSequence | Events) -> tuple[Tensor, Tensor | None]:
        """The input as ``(T, B, I)``, and the lengths of samples that differ in them."""
        lengths: Tensor | None
        if isinstance(input, Events):
            if self.step is None:
                raise TypeError("EGRU: Events need the seconds of a step: EGRU(..., step=1e-3)")
            if input.num_units != self.input_size:
                raise RuntimeError(f"EGRU: expected Events of {self.input_size} units, got {input.num_units}")
            x, counts = input.to_dense(self.step).to(next(self.parameters()).dtype), input.num_steps(self.step)
            if bool((counts < 1).any()):
                raise RuntimeError(f"EGRU: sample {int(counts.argmin())} lasts 0 s; expected at least one step of it")
            lengths = None if bool((counts == len(x)).all()) else counts
        elif isinstance(input, PackedSequence):
            self.check_input(input.data, input.batch_sizes)
            x, lengths = pad_packed_sequence(input)
            lengths = lengths.to(x.device)
        else:
            if input.dim() not in (2, 3):
                raise ValueError(f"EGRU: expected input of 2 dimensions (T, I) or 3 (T, B, I), got {input.dim()}")
            x, lengths = input, None
            if input.dim() == 2:
                x = input.unsqueeze(1)
            elif self.batch_first:
                x = input.transpose(0, 1)
            self.check_input(x, None)
        if not x.shape[0]:
            raise RuntimeError("EGRU: expected a sequence of at least one step, got none")
        if self.check and not bool(torch.isfinite(x).all()):
            t, b, i = (int(k) for k in (~torch.isfinite(x)).nonzero()[0])
            raise ValueError(
                f"EGRU: input is {x[t, b, i].item()} at step {t}, sample {b}, unit {i}; expected finite numbers"
            )
        return x, lengths

    def _state(self, state: EGRUState | None, x: Tensor, batched: bool) -> EGRUState:
        shape = (self.num_layers * (1 + self.bidirectional), x.shape[1], self.hidden_size)
        if state is None:
            like = next(self.parameters())  # under autocast the input may be of lower precision
            return EGRUState(like.new_zeros(shape), like.new_zeros(shape))
        if not isinstance(state, EGRUState):
            raise TypeError(f"EGRU: expected a state EGRUState(c, y), got {type(state).__name__}")
        if not batched:
            trace = None if state.trace is None else state.trace.unsqueeze(-2)
            state = EGRUState(state.c.unsqueeze(-2), state.y.unsqueeze(-2), trace)
        expected: dict[str, tuple[int, ...]] = {"c": shape, "y": shape}
        if self.trace_decay is not None and state.trace is not None:
            expected["trace"] = (x.shape[1], (1 + self.bidirectional) * self.hidden_size)
        for name, size in expected.items():
            if getattr(state, name).shape != size:
                raise RuntimeError(
                    f"EGRU: expected state.{name} of shape {size}, got {tuple(getattr(state, name).shape)}"
                )
        return state

    def _run(
        self,
        x: Tensor,
        needed: Tensor | None,
        lengths: Tensor | None,
        before: EGRUState,
        layer: int,
        direction: int,
    ) -> tuple[EGRUSteps, tuple[Tensor, Tensor]]:
        """A layer in one direction: its steps in order of time, and its last state.

        ``needed``: inputs whose gradient is of use.
        """
        suffix = f"_l{layer}" + "_reverse" * direction
        weight: Tensor = getattr(self, "weight_hh" + suffix)
        threshold: Tensor = getattr(self, "threshold" + suffix)
        bias: Tensor = getattr(self, "bias_hh" + suffix) if self.bias else weight.new_zeros(len(weight))
        if self.drop_connect:
            weight = functional.dropout(weight, self.drop_connect, self.training)
        if direction:
            x, needed = _turned(x, lengths), None if needed is None else _turned(needed, lengths)
        of_inputs = getattr(self, "weight_ih" + suffix), getattr(self, "bias_ih" + suffix) if self.bias else None
        drive = kernels.egru_drive(x, *of_inputs, needed, self.backend)
        drive = drive.to(weight.dtype)  # autocast's products are of lower precision, the units are not
        unit = Unit(weight, bias, threshold, self.height, self.half_width)
        at = layer * (1 + self.bidirectional) + direction
        kept = None
        if self.zoneout and self.training:
            kept = torch.rand(*x.shape[:2], self.hidden_size, device=x.device) < self.zoneout
        zoneout = 0.0 if self.training else self.zoneout
        y, v = kernels.egru(drive, unit, before.c[at], before.y[at], self.backend, kept, zoneout)
        last_y, last_v = (_last(part, lengths) for part in (y, v))
        fired = Fired.apply(last_v - threshold, self.height, self.half_width)
        if direction:
            y, v = _turned(y, lengths), _turned(v, lengths)
        return EGRUSteps(y, v, unit), (last_v - fired * threshold, last_y)

    def _trace(self, y: Tensor, lengths: Tensor | None, start: Tensor | None) -> tuple[Tensor, Tensor]:
        """The trace of each direction's output, and the last one ``(B, directions * H)``."""
        decay = self.trace_decay
        assert decay is not None
        traces, ends = [], []
        sides = y.chunk(1 + self.bidirectional, -1)
        starts = [None] * len(sides) if start is None else start.chunk(len(sides), -1)
        for direction, (told, now) in enumerate(zip(sides, starts, strict=True)):
            flow = _turned(told, lengths) if direction else told
            whole = _decaying(flow, decay, torch.zeros_like(flow[0]) if now is None else now)
            ends.append(_last(whole, lengths))
            traces.append(_turned(whole, lengths) if direction else whole)
        return torch.cat(traces, -1), torch.cat(ends, -1)

    def _like(
        self, input: Tensor | PackedSequence | Events, x: Tensor, lengths: Tensor | None
    ) -> Tensor | PackedSequence:
        """The output in the form of the input."""
        if isinstance(input, PackedSequence):
            assert lengths is not None
            if input.sorted_indices is not None:  # in the input's own order, also where lengths are equal
                x, lengths = x[:, input.sorted_indices], lengths[input.sorted_indices]
            packed = pack_padded_sequence(x, lengths.cpu())
            return PackedSequence(packed.data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        if isinstance(input, Tensor) and input.dim() == 2:
            return x.squeeze(1)
        if lengths is not None:  # Events of samples that end before the longest one
            x = x * within(lengths, len(x))[:, :, None]
        return x.transpose(0, 1) if self.batch_first else x


class EGRUCell(nn.Module):
    """One step of an ``EGRU`` layer, called as ``torch.nn.GRUCell``: ``state = cell(x, state)``, told is ``state.y``.

    Args:
        input_size, hidden_size, bias, device, dtype: as of ``torch.nn.GRUCell``; the others as of ``EGRU``.

    Shape:
        x ``(B, input_size)`` or ``(input_size,)``; state ``(B, H)`` or ``(H,)`` each, None starts at 0.

    Example:
        >>> cell, state = EGRUCell(8, 16), None
        >>> for x in torch.randn(5, 3, 8):
        ...     state = cell(x, state)
        >>> state.y.shape
        torch.Size([3, 16])
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    threshold: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        threshold_mean: float = THRESHOLD_MEAN,
        height: float = 0.7,
        half_width: float = 1.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_options(threshold_mean, height, half_width)
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.threshold_mean, self.height, self.half_width, self.backend = threshold_mean, height, half_width, backend
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (3 * hidden_size, input_size),
            "weight_hh": (3 * hidden_size, hidden_size),
        }
        biases: dict[str, tuple[int, ...]] = {"bias_ih": (3 * hidden_size,), "bias_hh": (3 * hidden_size,)}
        for name, shape in (shapes | biases | {"threshold": (hidden_size,)}).items():
            parameter = (
                nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if bias or name not in biases else None
            )
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As those of ``EGRU``."""
        _draw_(self, self.threshold_mean)

    @outside_graphs
    def forward(self, x: Tensor, state: EGRUState | None = None) -> EGRUState:
        """The state after ``x``."""
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"EGRUCell: expected x of shape (B, {self.input_size}) or ({self.input_size},), got {tuple(x.shape)}"
            )
        shape = (*x.shape[:-1], self.hidden_size)
        if not (state is None or isinstance(state, EGRUState)):
            raise TypeError(f"EGRUCell: expected a state EGRUState(c, y), got {type(state).__name__}")
        c, y, _ = EGRUState(x.new_zeros(shape), x.new_zeros(shape)) if state is None else state
        for name, part in (("c", c), ("y", y)):
            if part.shape != shape:
                raise RuntimeError(f"EGRUCell: expected state.{name} of shape {shape}, got {tuple(part.shape)}")
        drive = functional.linear(x, self.weight_ih, self.bias_ih).reshape(1, -1, 3 * self.hidden_size)
        bias = self.weight_hh.new_zeros(3 * self.hidden_size) if self.bias_hh is None else self.bias_hh
        unit = Unit(self.weight_hh, bias, self.threshold, self.height, self.half_width)
        before = c.reshape(-1, self.hidden_size), y.reshape(-1, self.hidden_size)
        done = kernels.egru(drive, unit, *before, self.backend)
        after = EGRUSteps(*done, unit)
        return EGRUState(after.c[0].reshape(shape), after.y[0].reshape(shape))

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}"


@torch.no_grad()
def _draw_(module: nn.Module, threshold_mean: float) -> None:
    """Xavier-normal weights, gate by gate; biases 0; thresholds from Beta(a, 3)."""
    tail = torch.tensor(THRESHOLD_TAIL)
    drawn = torch.distributions.Beta(tail * threshold_mean / (1 - threshold_mean), tail)
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("weight"):
            for gate in parameter.chunk(3):
                nn.init.xavier_normal_(gate)
        elif name.startswith("bias"):
            nn.init.zeros_(parameter)
        elif name.startswith("threshold") and not parameter.is_meta:
            parameter.copy_(drawn.sample(parameter.shape))


def _check_options(threshold_mean: float, height: float, half_width: float, **shares: float | None) -> None:
    if not 0 < threshold_mean < 1:
        raise ValueError(f"EGRU: threshold_mean is {threshold_mean}; expected a number between 0 and 1")
    if not (height >= 0 and half_width > 0):
        raise ValueError(f"EGRU: height is {height}, half_width {half_width}; expected height >= 0 and half_width > 0")
    for name, share in shares.items():
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"EGRU: {name} is {share}; expected a number in [0, 1)")


def _decaying(x: Tensor, decay: float, now: Tensor) -> Tensor:
    """``trace = decay trace + (1 - decay) x`` of steps ``(T, B, H)``, ``(B, H)`` before them; by a product for every 32 steps."""
    block = min(len(x), 32)
    step = torch.arange(block, dtype=x.dtype, device=x.device)
    age, fading = step[:, None] - step, decay ** (step + 1)
    kernel = torch.where(age >= 0, (1 - decay) * decay ** age.clamp(min=0), 0.0)
    traces: list[Tensor] = []
    with torch.autocast(x.device.type, enabled=False):  # whose products are of lower precision
        for part in x.split(block):
            size = len(part)
            new = (kernel[:size, :size] @ part.flatten(1)).view_as(part) + fading[:size, None, None] * now
            if bool(new.isfinite().all()):
                traces.append(new)
            else:  # in a product what is not finite would reach the steps before it
                for told in part:
                    now = decay * now + (1 - decay) * told
                    traces.append(now[None])
            now = traces[-1][-1]
    return torch.cat(traces)


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Steps from the last to the first, of each sequence within its length."""
    if lengths is None:
        return x.flip(0)
    step = torch.arange(len(x), device=x.device)[:, None]
    order = torch.where(step < lengths, lengths - 1 - step, step)
    return x.gather(0, order[:, :, None].expand_as(x))


def _last(x: Tensor, lengths: Tensor | None) -> Tensor:
    return x[-1] if lengths is None else x[lengths - 1, torch.arange(x.shape[1], device=x.device)]


def _valid(done: EGRUSteps, lengths: Tensor | None) -> EGRUSteps:
    if lengths is None:
        return done
    there = within(lengths, len(done.y))
    return done._replace(y=done.y[there], v=done.v[there], lengths=lengths)
