"""An echo-state network: a fixed random recurrent network with graded states; only what reads them is trained.

    x(t) = (1 - leak) x(t - 1) + leak tanh(gain W_in u(t) + W_rec x(t - 1) + bias)

Source: Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks", GMD report 148 (2001), with the
leaky form of Jaeger, Lukoševičius, Popovici & Siewert, "Optimization and applications of echo state networks with
leaky-integrator neurons" (Neural Networks 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eventnet import Events
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.stepped import Drive
from eventnet.hardware.resistive.weights import check_weights, random_weights

__all__ = ["EchoState"]


@dataclass(frozen=True, eq=False)
class EchoState:
    """A leaky tanh echo-state network; equation above.

    Args:
        weight: ``(in, out)``; ``recurrent_weight``: ``(out, out)``, row m from unit m. From a seed: ``EchoState.random``; of the
            cells of a chip: the transposed weights of ``formed_pairs``.
        bias: ``(out,)``, or None for 0.
        leak: in (0, 1]; 1 is the network without leak.
        gain: of the input weights.

    Raises:
        ValueError: a bound is violated, or shapes do not fit.

    Example:
        >>> network = EchoState.random(2, 30, seed=0, radius=0.9)
        >>> network(torch.rand(5, 1, 2, generator=torch.manual_seed(0))).shape
        torch.Size([5, 1, 30])
    """

    weight: Tensor
    recurrent_weight: Tensor
    bias: Tensor | None = None
    leak: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        check_weights("EchoState", self.weight, self.recurrent_weight)
        out = self.weight.shape[1]
        if self.bias is not None and (self.bias.shape != (out,) or not bool(torch.isfinite(self.bias).all())):
            raise ValueError(f"EchoState: expected a finite bias ({out},), got {tuple(self.bias.shape)}")
        if not 0 < self.leak <= 1:
            raise ValueError(f"EchoState: leak must be in (0, 1], got {self.leak}")
        if not 0 < self.gain < math.inf:
            raise ValueError(f"EchoState: gain must be a positive number, got {self.gain}")

    @classmethod
    def random(
        cls,
        in_features: int,
        out_features: int,
        seed: int,
        *,
        radius: float = 0.9,
        density: float = 1.0,
        recurrent_density: float = 1.0,
        bias: float = 0.0,
        leak: float = 1.0,
        gain: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> EchoState:
        """One with ``random_weights``, the recurrent ones scaled to a spectral radius, and biases N(0, bias^2).

        A radius below 1 makes the initial state fade for nearly all inputs; for leak 1 and no input it is what decides.
        """
        densities = {"density": density, "recurrent_density": recurrent_density}
        weights = random_weights(in_features, out_features, seed, **densities, radius=radius, dtype=dtype)
        if not bias:
            return cls(*weights, None, leak, gain)
        # a stream of its own: seed + 1 would draw what the next network's weights are made of
        drawn = torch.randn(out_features, generator=seeded(seed, 1), dtype=torch.float64)
        return cls(*weights, bias * drawn.to(dtype), leak, gain)

    def initial(self, batch_size: int) -> Tensor:
        """``(B, out)`` states of 0."""
        return self.weight.new_zeros(batch_size, self.weight.shape[1])

    def step(self, state: Tensor, drive: Tensor) -> Tensor:
        """The next state ``(B, out)``; ``drive`` is W_in u of this step, ``(B, out)``."""
        total = torch.addmm(self.gain * drive, state, self.recurrent_weight)
        if self.bias is not None:
            total = total + self.bias
        return torch.lerp(state, torch.tanh(total), self.leak)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """States ``(T, B, out)`` for inputs ``(T, B, in)``, from ``state`` ``(B, out)`` or from 0."""
        expected = f"EchoState: expected inputs (T, B, {self.weight.shape[0]})"
        if not isinstance(inputs, Tensor):
            raise TypeError(f"{expected}, got {type(inputs).__name__}; Events go to on_events")
        if inputs.dim() != 3 or inputs.shape[2] != self.weight.shape[0]:
            raise ValueError(f"{expected}, got {tuple(inputs.shape)}")
        found = []
        state = self.initial(inputs.shape[1]) if state is None else state
        if state.shape != (inputs.shape[1], self.weight.shape[1]):
            expected = f"({inputs.shape[1]}, {self.weight.shape[1]})"
            raise ValueError(f"EchoState: expected a state (B, out) = {expected}, got {tuple(state.shape)}")
        for drive in (inputs.to(self.weight.dtype) @ self.weight).unbind(0):
            state = self.step(state, drive)
            found.append(state)
        return torch.stack(found) if found else self.weight.new_zeros(0, *state.shape)

    @torch.no_grad()
    def on_events(self, events: Events, dt: float, steps: Sequence[int] | None = None) -> Tensor:
        """States ``(K, B, out)`` with u(t) the numbers of events of each ``dt`` seconds.

        Args:
            events: of ``in`` units; only the rows of units that fired are read.
            steps: those whose states are kept, not negative, in any order; all if not given. After its end a sample gets no
                input.

        Example:
            >>> events = Events.from_latency(torch.rand(4, 6, generator=torch.manual_seed(0)), 0.0, 0.01)
            >>> EchoState.random(6, 20, seed=0).on_events(events, 1e-3, steps=[4, 9]).shape
            torch.Size([2, 4, 20])
        """
        drive = Drive(events, dt, self.weight)
        wanted = range(drive.num_steps) if steps is None else steps
        if any(t < 0 for t in wanted):
            raise ValueError(f"EchoState: steps count from 0, got {min(wanted)}")
        kept, state = {}, self.initial(events.batch_size)
        for t in range(max(wanted, default=-1) + 1):
            state = self.step(state, drive.at(t))
            if t in wanted:
                kept[t] = state
        return torch.stack([kept[t] for t in wanted]) if wanted else self.weight.new_zeros(0, *state.shape)

    @torch.no_grad()
    def forecast(self, readout: Callable[[Tensor], Tensor], inputs: Tensor, steps: int) -> Tensor:
        """``(steps, B, in)``: the series goes on by itself, every step's output being the next step's input.

        Args:
            readout: from states ``(B, out)`` to the next input ``(B, in)``, such as a fitted ``RidgeReadout``'s ``scores``.
            inputs: ``(T, B, in)`` of the true series, T >= 1: with them the states are right when it starts (teacher forcing).
            steps: to forecast; the first is what comes after the last input.

        Example:
            >>> network = EchoState(torch.ones(1, 1), torch.zeros(1, 1))  # x = tanh(u)
            >>> network.forecast(lambda x: torch.atanh(x) / 2, torch.tensor([[[0.8]]]), 3).flatten()
            tensor([0.4000, 0.2000, 0.1000])
        """
        if not len(inputs):
            raise ValueError("EchoState: a forecast needs at least one input to start from")
        state = self(inputs)[-1]
        found = []
        for _ in range(steps):
            value = readout(state).to(self.weight.dtype)
            found.append(value)
            state = self.step(state, value @ self.weight)
        return torch.stack(found) if found else inputs.new_zeros(0, *inputs.shape[1:])
