"""The network that a spiking recipe describes: LIF layers, then an LI or LIF readout with one output per class."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import LI, LIF, Events, constrain_, initial, losses
from eventnet.training.meter import SpikingMeter
from eventnet.training.network import Network, Outcome
from eventnet.training.recipe import CONNECTIONS, SpikingRecipe

__all__ = ["SpikingNetwork"]


class SpikingNetwork(Network):
    """LIF layers and their readout.

    Recurrence and delays are those of the hidden layers. The initial weights and delays depend on ``recipe.seed`` alone.

    Example:
        >>> recipe = SpikingRecipe(name="mine", hidden=(20,), readout="mean")
        >>> network = SpikingNetwork(recipe, num_units=4, num_classes=3)
        >>> network(Events.from_list([([0.001], [2])], num_units=4, duration=0.02)).scores.shape
        torch.Size([1, 3])
    """

    recipe: SpikingRecipe
    remedy = (
        "did not spike once and gets no gradient; --lift adds to the weights of silent neurons, --init-firing and --init-mean "
        "let them start with spikes"
    )

    def __init__(self, recipe: SpikingRecipe, num_units: int, num_classes: int) -> None:
        super().__init__(recipe, num_units, num_classes)
        spiking: dict[str, Any] = {"threshold": recipe.threshold, "slope_floor": recipe.slope_floor}
        synapses: dict[str, Any] = {
            "recurrent": recipe.recurrent,
            "delay": recipe.delay or None,
            "recurrent_delay": recipe.recurrent_delay or None,
            "delay_kind": recipe.delay_kind,
        }
        there = {name for name in CONNECTIONS if name == "weight" or synapses[name.replace("_weight", "")]}
        learn = tuple(name for name in recipe.learn if name in there or name not in CONNECTIONS)
        plain = tuple(name for name in learn if name == "weight" or name not in CONNECTIONS)  # of the readout
        read: dict[str, Any] = {"tau_mem": recipe.readout_tau_mem, "tau_syn": recipe.readout_tau_syn}
        common: dict[str, Any] = {"backend": recipe.backend}
        sizes = (num_units, *recipe.hidden)
        self.hidden = nn.ModuleList(
            LIF(
                before,
                after,
                tau_mem=spread(recipe.tau_mem, recipe.tau_spread, after),
                tau_syn=(recipe.branch_tau_syn[0], recipe.branch_tau_syn[1])
                if recipe.branch_tau_syn
                else spread(recipe.tau_syn, recipe.tau_spread, after),
                branches=recipe.branches or None,
                bias=resting(recipe, after),
                learn=learn,
                **synapses,
                **spiking,
                **common,
            )
            for before, after in itertools.pairwise(sizes)
        )
        self.readout: LIF | LI
        if recipe.readout == "first_spike":
            bias = resting(recipe, num_classes)
            self.readout = LIF(sizes[-1], num_classes, bias=bias, learn=plain, **read, **spiking, **common)
        else:
            plain = tuple(name for name in plain if name not in ("threshold", "reset"))
            bias = resting(recipe, num_classes)
            self.readout = LI(sizes[-1], num_classes, bias=bias, learn=plain, **read, **common)
        generator = torch.Generator().manual_seed(recipe.seed)
        for k, layer in enumerate([*self.hidden, self.readout]):
            mean, std = recipe.initial("init_mean", k), recipe.initial("init_std", k)
            initial.normal_(layer.weight, mean, std, generator=generator)
            if k < len(self.hidden) and recipe.branches:  # a slow branch adds up its input for longer
                layer.weight.detach().mul_((layer.tau_syn.detach().min() / layer.tau_syn.detach()).sqrt())
        for layer in self.hidden:  # after all weights, which are thus the same with and without
            draw_connections_(layer, recipe, generator)
        learnt = {name.rpartition(".")[2] for name, p in self.named_parameters() if p.requires_grad}
        self._bounded = bool(learnt - {"weight", "recurrent_weight", "bias"})  # something that has bounds is learnt

    @torch.no_grad()
    def calibrate_(self, events: Events) -> None:
        """Scale the hidden layers' initial weights to the recipe's ``init_firing`` on a batch of typical input."""
        if self.recipe.init_firing is None:
            return
        for layer in self.hidden:
            assert isinstance(layer, LIF)
            initial.fire_fraction_(layer, events, self.recipe.init_firing)
            events = layer(events)

    def forward(self, events: Events) -> Outcome:
        """Scores of the classes, and the spikes of the layers."""
        spikes = self.hidden_spikes(events)
        last = spikes[-1] if spikes else events
        kind, recipe = self.recipe.readout, self.recipe
        if kind == "first_spike":
            output = self.readout(last)
            return Outcome(output.first_times(), (*spikes, output))
        voltage = self.readout(last)
        if kind == "max":
            logits = voltage.max()
        elif kind == "mean":
            logits = voltage.mean()
        elif kind == "last":
            logits = voltage.last()
        elif kind == "integral":
            logits = voltage.integral(recipe.readout_decay) / (recipe.readout_decay or 1.0)
        else:
            logits = voltage.at(self.read_times(events))
        return Outcome(logits if recipe.logit_scale == 1 else logits * recipe.logit_scale, spikes)

    def penalty(self, outcome: Outcome, progress: float) -> Tensor | None:
        """Penalties on the spikes of the hidden layers."""
        recipe, parts = self.recipe, []
        for events in outcome.spikes[: len(recipe.hidden)]:
            if recipe.count_weight:
                parts.append(recipe.count_weight * losses.spike_count_penalty(events, recipe.count_target))
            if recipe.rate_weight:
                parts.append(recipe.rate_weight * losses.rate_penalty(events, recipe.highest_rate))
        return torch.stack(parts).sum() if parts else None

    def after_step_(self, spikes: tuple[Events, ...]) -> None:
        """Wake silent neurons, restore bounds."""
        if self.recipe.lift:
            for layer, fired in zip([*self.hidden, self.readout], spikes, strict=False):
                losses.lift_silent_(layer.weight, fired, self.recipe.lift)
        if self._bounded:
            constrain_(self)
        if self.recipe.longest_delay is not None:
            for name, parameter in self.hidden.named_parameters():
                if name.endswith("delay"):
                    parameter.detach().clamp_(max=self.recipe.longest_delay)

    def step_size(self, name: str) -> float:
        """Weights and delays have their own; any other parameter one in proportion to its initial size, so that 5e-3 moves a time
        constant of 20 ms by 0.1 ms; one that starts at 0 (reset, bias) in proportion to the threshold.

        Example:
            >>> recipe = SpikingRecipe(name="mine", learning_rate=5e-3, tau_mem=20e-3)
            >>> SpikingNetwork(recipe, 4, 3).step_size("hidden.0.tau_mem")
            0.0001
        """
        recipe, kind = self.recipe, name.rpartition(".")[2]
        if kind.endswith("delay"):
            return recipe.delay_learning_rate
        if kind.endswith("weight"):
            return recipe.learning_rate
        read = name.startswith("readout") and kind.startswith("tau")
        return recipe.learning_rate * float(getattr(recipe, f"readout_{kind}" if read else kind, recipe.threshold))

    def meter(self) -> SpikingMeter:
        """What adds up the activity of an epoch."""
        return SpikingMeter(self.recipe.hidden)

    def hidden_spikes(self, events: Events) -> tuple[Events, ...]:
        """The spikes of each hidden layer."""
        spikes = []
        for layer in self.hidden:
            events = layer(events)
            spikes.append(events)
        return tuple(spikes)

    def read_times(self, events: Events) -> Tensor:
        """Readout ``at``: the end of each step, ``(K,)`` seconds, up to the longest duration of the batch."""
        step = self.recipe.readout_step
        steps = round(events.duration.max().item() / step) if events.batch_size else 0
        return torch.arange(1, steps + 1, dtype=events.dtype, device=events.device) * step


@torch.no_grad()
def draw_connections_(layer: nn.Module, recipe: SpikingRecipe, generator: torch.Generator) -> None:
    """Draw a hidden layer's recurrent weights and its delays."""
    for name in ("recurrent_weight", "delay", "recurrent_delay"):
        parameter = getattr(layer, name, None)
        if name == "recurrent_weight" and parameter is not None:
            mean, std = recipe.init_recurrent
            initial.normal_(parameter, mean, std, generator=generator)
        elif parameter is not None:
            parameter.uniform_(*getattr(recipe, name), generator=generator)


def spread(tau: float, factor: float, num: int) -> float | Tensor:
    """One time constant per neuron, evenly on a log scale from ``tau / factor`` to ``tau * factor``; at 1 just ``tau``.

    Example:
        >>> spread(0.02, 2.0, 3)
        tensor([0.0100, 0.0200, 0.0400])
    """
    return tau if factor == 1 else tau * factor ** torch.linspace(-1.0, 1.0, num)


def resting(recipe: SpikingRecipe, num: int) -> float | Tensor:
    """The initial bias: 0, and one per neuron where it is learnt (a common one would move all classes alike)."""
    return torch.zeros(num) if "bias" in recipe.learn else 0.0
