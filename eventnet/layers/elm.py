"""ELM: the expressive leaky memory neuron, a cortical neuron's traces, dendritic branches and slow memory in one layer.

    s = k_s s + relu(w) x                          a trace per synapse, of the inputs that reach it
    b = sum of s over the synapses of a branch
    m' = 1.7159 tanh(2/3 MLP([b, k_m m]))          MLP: one hidden layer of relu units
    m = k_m m + g m',   g = lambda (1 - k_m)       memory units, k_m = exp(-step / tau_mem), from 1 to 150 ms
    y = W_y m + c

Version 2 keeps one trace per branch, ``b = k_s b + sum of relu(w) x``: as long as the synapses of a branch share their time
constant, which only version 1 can learn for each of them, both are the same numbers. Gain: with ``bounded_gain`` it is
``1 - k_m^lambda``, as in the authors' later code, nearly the same for memories much slower than a step, and never above 1.

Traces are linear: they are computed for the whole sequence at once, as are all products but those of the memory with itself.

Source: Spieler, Rahaman, Martius, Schölkopf & Levina, "The expressive leaky memory neuron: an efficient and expressive
phenomenological neuron model can solve long-horizon tasks" (ICLR 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from eventnet.kernels import choose
from eventnet.kernels.reference_elm import Memory, Run, Tree, elm_reference
from eventnet.layers.whole import whole_at_least

__all__ = ["ELM", "ELMState", "ELMSteps", "windows"]

LEARNABLE = ("tau_mem", "tau_syn")
REACH = 10.0  # learnt time constants stay within this factor of where the layer's may start


class ELMState(NamedTuple):
    """Where an ELM stopped: traces ``(B, branches, synapses)``, of version 2 ``(B, branches)``, and memory ``(B, memory)``."""

    trace: Tensor
    memory: Tensor

    def detach(self) -> ELMState:
        """The same numbers without their history: where gradients through time are to end."""
        return ELMState(self.trace.detach(), self.memory.detach())


class ELMSteps(NamedTuple):
    """What an ELM computed in each step, for counts: ``x (T, B, in)``, sums of branches ``(T, B, branches)``, hidden units
    ``(T, B, hidden)`` and memory ``(T, B, memory)``, which was ``start (B, memory)`` before. No gradient through the hidden units
    of the compiled kernel."""

    x: Tensor
    branch: Tensor
    hidden: Tensor
    memory: Tensor
    start: Tensor


class Bounded(nn.Module):
    """A time constant between two others: ``low (high / low)^sigmoid(x)``, x being learnt."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)  # in the state_dict: what is learnt means nothing without them
        self.register_buffer("high", high)

    def forward(self, x: Tensor) -> Tensor:
        """Seconds."""
        return self.low * (self.high / self.low) ** torch.sigmoid(x)

    def right_inverse(self, tau: Tensor) -> Tensor:
        """The x of a time constant."""
        if not bool(((tau > self.low) & (tau < self.high)).all()):
            raise ValueError(f"ELM: expected time constants between {self.low:g} and {self.high:g} s, got {tau}")
        return torch.logit(torch.log(tau / self.low) / torch.log(self.high / self.low))


class ELM(nn.Module):
    """A layer whose memory units of many time constants see the inputs through dendritic branches.

    Args:
        in_features, out_features: numbers per step that come and go. None for the latter: the memory goes, without readout.
        memory: memory units.
        branches: of the dendrite; None: as many as inputs.
        synapses: of each branch; None: just enough for each input to have one.
        routing: "windows" (neighbouring inputs on a branch, evenly spaced; branches overlap where there are more synapses
            than inputs), "random", or the numbers of the inputs, ``(branches, synapses)``. Windows reach every input; the
            others may leave some out.
        hidden: units of the hidden layer; None: ``2 memory``.
        version: 1, a trace per synapse, or 2, a trace per branch.
        tau_mem: seconds; the shortest and the longest, between which those of the units are spaced evenly by their logarithms, or
            all of them, ``(memory,)``.
        tau_syn: seconds, of all traces at first.
        learn: which time constants are learnt, of "tau_mem" and "tau_syn"; they stay within a factor of 10 of the above.
        step: seconds of a step.
        lam: how far the MLP moves the memory.
        bounded_gain: see ``help(eventnet.layers.elm)``, which has the equations.
        batch_first: sequences are ``(B, T, ...)``.
        backend: "auto", "cpu" or "reference".

    Shape:
        input ``(T, B, in_features)``, ``(B, T, in_features)`` if ``batch_first``, or ``(T, in_features)`` without a batch; output
        alike, and an :class:`ELMState` from which a next call goes on. None is 0.

    Within autocast the input may be of lower precision; memory and traces stay in that of the parameters. With ``learn``
    keep the layer by its ``state_dict``: torch does not pickle parametrized modules (``copy.deepcopy`` works).

    Raises:
        ValueError: a size, time constant, option or routing is none; windows that would leave inputs out; shapes that do not
            fit. The message names what was expected.
        TypeError: an input or state that is no tensor, or of another dtype or device than the parameters.

    Example:
        >>> layer = ELM(700, 19, memory=20, branches=45, synapses=100)
        >>> output, state = layer(torch.rand(50, 3, 700))
        >>> output.shape, state.memory.shape
        (torch.Size([50, 3, 19]), torch.Size([3, 20]))
        >>> output, state = layer(torch.rand(50, 3, 700), state.detach())  # goes on
    """

    index: Tensor
    tau_mem: Tensor
    tau_syn: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int | None,
        *,
        memory: int = 100,
        branches: int | None = None,
        synapses: int | None = None,
        routing: str | Tensor = "windows",
        hidden: int | None = None,
        version: int = 2,
        tau_mem: tuple[float, float] | Tensor = (1e-3, 150e-3),
        tau_syn: float = 5e-3,
        learn: Sequence[str] = (),
        step: float = 1e-3,
        lam: float = 5.0,
        bounded_gain: bool = False,
        batch_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        in_features = whole_at_least(1, in_features, "ELM: in_features")
        memory = whole_at_least(1, memory, "ELM: memory")
        out_features = None if out_features is None else whole_at_least(1, out_features, "ELM: out_features")
        branches = in_features if branches is None else whole_at_least(1, branches, "ELM: branches")
        synapses = -(-in_features // branches) if synapses is None else whole_at_least(1, synapses, "ELM: synapses")
        hidden = 2 * memory if hidden is None else whole_at_least(1, hidden, "ELM: hidden")
        for name, value in {"tau_syn": tau_syn, "step": step, "lam": lam}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"ELM: {name} is {value!r}; expected a positive number")
        if version not in (1, 2):
            raise ValueError(f"ELM: version is {version!r}; expected 1 (a trace per synapse) or 2 (a trace per branch)")
        learn = [learn] if isinstance(learn, str) else learn
        unknown = [name for name in learn if name not in LEARNABLE]
        if unknown:
            raise ValueError(
                f"ELM: learn names {unknown[0]!r}; expected some of {LEARNABLE}: weights are learnt anyway"
            )
        super().__init__()
        self.in_features, self.memory, self.hidden = in_features, memory, hidden
        self.out_features = memory if out_features is None else out_features
        self.version, self.step, self.lam, self.bounded_gain = version, step, lam, bounded_gain
        self.batch_first, self.backend = batch_first, backend
        own = {"device": device, "dtype": dtype}
        self.register_buffer("index", _routed(routing, in_features, branches, synapses).to(device))
        self.weight = nn.Parameter(torch.empty(branches, synapses, **own))  # type: ignore[arg-type]
        self.mlp_in = nn.Linear(branches + memory, hidden, **own)  # type: ignore[arg-type]
        self.mlp_out = nn.Linear(hidden, memory, **own)  # type: ignore[arg-type]
        self.readout = None if out_features is None else nn.Linear(memory, out_features, **own)  # type: ignore[arg-type]
        times = _spaced(tau_mem, memory).to(self.weight)
        shape = (branches, synapses) if version == 1 else (branches,)
        self._time_constant("tau_mem", times, learn)
        self._time_constant("tau_syn", torch.full(shape, tau_syn, dtype=torch.float64).to(self.weight), learn)
        nn.init.constant_(self.weight, 0.5)

    def forward(
        self, input: Tensor, state: ELMState | None = None, *, return_steps: bool = False
    ) -> tuple[Tensor, ELMState] | tuple[Tensor, ELMState, ELMSteps]:
        """The output of each step, and the state after the last one; with ``return_steps`` also what was computed on the way."""
        x = self._time_first(input)
        trace, m = self._start(state, x.shape[1], batched=input.dim() == 3)
        run = self._run(x, trace, m, return_steps)
        output, after = run.memory, ELMState(run.trace, run.memory[-1])
        if self.readout is not None:
            output = self.readout(output)
        if input.dim() == 2:
            output, after = output[:, 0], ELMState(after.trace[0], after.memory[0])
        elif self.batch_first:
            output = output.transpose(0, 1)
        if not return_steps:
            return output, after
        assert run.branch is not None and run.hidden is not None
        return output, after, ELMSteps(x, run.branch, run.hidden, run.memory, m)

    def extra_repr(self) -> str:
        """Sizes and version."""
        branches, synapses = self.index.shape
        return (
            f"{self.in_features}, {self.out_features}, memory={self.memory}, branches={branches}, "
            f"synapses={synapses}, hidden={self.hidden}, version={self.version}"
        )

    # ---- parts of the call ---------------------------------------------------------------------------------------------

    def _time_constant(self, name: str, seconds: Tensor, learn: Sequence[str]) -> None:
        if name not in learn:
            self.register_buffer(name, seconds)
            return
        self.register_parameter(name, nn.Parameter(seconds))
        parametrize.register_parametrization(self, name, Bounded(seconds.min() / REACH, seconds.max() * REACH))

    def _run(self, x: Tensor, trace: Tensor, m: Tensor, whole: bool) -> Run:
        keep = torch.exp(-self.step / self.tau_mem)
        gain = 1 - keep**self.lam if self.bounded_gain else self.lam * (1 - keep)
        tree = Tree(functional.relu(self.weight), self.index, torch.exp(-self.step / self.tau_syn))
        inward, back = self.mlp_in.weight.split([len(self.index), self.memory], 1)
        memory = Memory(inward, self.mlp_in.bias, back, self.mlp_out.weight, self.mlp_out.bias, keep, gain)
        if choose(self.backend, x.device) == "reference":
            return elm_reference(x, tree, memory, trace, m, whole)
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"ELM: the compiled kernels take float32 or float64, got {x.dtype}; backend='reference' takes any"
            )
        from eventnet.kernels.ops_elm import elm_cpu

        return elm_cpu(x, tree, memory, trace, m, whole)

    def _time_first(self, input: Tensor) -> Tensor:
        """The input as ``(T, B, in)``."""
        if not isinstance(input, Tensor):
            raise TypeError(
                f"ELM: expected a tensor, got {type(input).__name__}; events.to_dense(step) makes one of Events"
            )
        if input.dim() not in (2, 3) or input.shape[-1] != self.in_features:
            form = "(B, T, in)" if self.batch_first else "(T, B, in)"
            raise ValueError(
                f"ELM: expected input {form} or (T, in) with in = {self.in_features}, got {tuple(input.shape)}"
            )
        lower = input.dtype != self.weight.dtype and input.dtype in (torch.bfloat16, torch.float16)
        if lower and torch.is_autocast_enabled(input.device.type):
            input = input.to(self.weight.dtype)  # from a layer before this one, as nn.GRU takes it
        if input.dtype != self.weight.dtype or input.device != self.weight.device:
            raise TypeError(
                f"ELM: input is {input.dtype} on {input.device}, weights are {self.weight.dtype} on {self.weight.device}"
            )
        x = input[:, None] if input.dim() == 2 else input.transpose(0, 1) if self.batch_first else input
        if not len(x):
            raise ValueError("ELM: expected a sequence of at least one step, got none")
        return x

    def _start(self, state: ELMState | None, batch: int, batched: bool) -> tuple[Tensor, Tensor]:
        shapes = (batch, *self.tau_syn.shape), (batch, self.memory)
        if state is None:
            return self.weight.new_zeros(shapes[0]), self.weight.new_zeros(shapes[1])
        if not isinstance(state, ELMState):
            raise TypeError(f"ELM: expected a state ELMState(trace, memory), got {type(state).__name__}")
        parts = state if batched else (state.trace[None], state.memory[None])
        for name, part, shape in zip(ELMState._fields, parts, shapes, strict=True):
            if part.shape != shape or part.dtype != self.weight.dtype or part.device != self.weight.device:
                raise ValueError(
                    f"ELM: expected state.{name} {shape} of {self.weight.dtype} on {self.weight.device}, "
                    f"got {tuple(part.shape)} of {part.dtype} on {part.device}"
                )
        return parts[0], parts[1]


def windows(in_features: int, branches: int, synapses: int) -> Tensor:
    """Inputs of each branch ``(branches, synapses)``: neighbours, from the first to the last input, as evenly as they go.

    Where a branch has more synapses than there are inputs they go round.

    Raises:
        ValueError: there are fewer synapses than inputs.

    Example:
        >>> windows(6, 3, 2).tolist(), windows(6, 2, 4).tolist()
        ([[0, 1], [2, 3], [4, 5]], [[0, 1, 2, 3], [2, 3, 4, 5]])
    """
    if branches * synapses < in_features:
        raise ValueError(
            f"ELM: windows: {branches} branches of {synapses} synapses reach {branches * synapses} of {in_features} inputs; "
            "expected one synapse for each or more; routing='random' or the numbers of the inputs may leave some out"
        )
    last = max(in_features - synapses, 0)
    first = torch.linspace(0, last, branches, dtype=torch.float64).round().to(torch.int64)
    return (first[:, None] + torch.arange(synapses)) % in_features


def _routed(routing: str | Tensor, in_features: int, branches: int, synapses: int) -> Tensor:
    if isinstance(routing, Tensor):
        integers = not (routing.is_floating_point() or routing.is_complex() or routing.dtype == torch.bool)
        if (
            not integers
            or routing.shape != (branches, synapses)
            or not bool(((routing >= 0) & (routing < in_features)).all())
        ):
            raise ValueError(
                f"ELM: routing: expected numbers of inputs, 0 to {in_features - 1}, of shape {(branches, synapses)}, "
                f"got {routing.dtype} of shape {tuple(routing.shape)}"
            )
        return routing.to(torch.int64)
    if routing == "windows":
        return windows(in_features, branches, synapses)
    if routing == "random":
        return torch.randint(in_features, (branches, synapses))
    raise ValueError(f"ELM: routing is {routing!r}; expected 'windows', 'random' or the numbers of the inputs")


def _spaced(tau_mem: tuple[float, float] | Tensor, memory: int) -> Tensor:
    tau = torch.as_tensor(tau_mem, dtype=torch.float64)
    spaced = tau.dim() == 1 and (len(tau) == memory if isinstance(tau_mem, Tensor) else len(tau) == 2)
    if not spaced or not bool((tau > 0).all()) or not bool(torch.isfinite(tau).all()):
        raise ValueError(
            f"ELM: tau_mem is {tau_mem}; expected the shortest and the longest, or a tensor of {memory}, positive seconds"
        )
    if isinstance(tau_mem, Tensor):
        return tau
    return torch.logspace(math.log10(tau[0]), math.log10(tau[1]), memory, dtype=torch.float64)
