"""The network that a gated recipe describes: event-based gated layers, or dense ones in their place, and a linear readout."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from eventnet import EGRU, Events, constrain_, losses
from eventnet.training.meter import GatedMeter
from eventnet.training.network import Heard, Network, Outcome
from eventnet.training.recipe import GatedRecipe

__all__ = ["GatedNetwork"]


class GatedNetwork(Network):
    """Events, counted in steps -> an embedding, if there is one -> gated layers -> a linear readout.

    The initial parameters depend on ``recipe.seed`` alone. Samples of a batch may differ in their number of steps.

    Example:
        >>> network = GatedNetwork(GatedRecipe(name="mine", hidden=(20,), step=1e-3), num_units=4, num_classes=3)
        >>> network(Events.from_list([([0.001], [2])], num_units=4, duration=0.02)).scores.shape
        torch.Size([1, 3])
    """

    recipe: GatedRecipe
    remedy = (
        "told nothing; a smaller --threshold-mean lets its units start to tell, a smaller --activity-weight or larger "
        "--activity-target lets them go on"
    )

    def __init__(self, recipe: GatedRecipe, num_units: int, num_classes: int) -> None:
        super().__init__(recipe, num_units, num_classes)
        if recipe.tied and num_units != num_classes:
            raise ValueError(
                f"tied: expected classes that are the input's units, got {num_units} units, {num_classes} classes"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            heard = recipe.embedding or num_units
            self.embedding = nn.Linear(num_units, recipe.embedding, bias=False) if recipe.embedding else None
            sizes = (heard, *recipe.hidden)
            last = len(recipe.hidden) - 1
            self.hidden = nn.ModuleList(
                gated_layer(recipe, before, after, k == last)
                for k, (before, after) in enumerate(itertools.pairwise(sizes))
            )
            # tied, the outputs are compared with the embeddings of the units
            self.readout = nn.Linear(sizes[-1], recipe.embedding if recipe.tied else num_classes)
            self.bias = nn.Parameter(torch.zeros(num_classes)) if recipe.tied else None
            if self.embedding is not None:
                nn.init.normal_(self.embedding.weight, std=recipe.embedding**-0.5)

    def forward(self, events: Events) -> Outcome:
        """Scores of the classes, and what the layers heard and did."""
        lengths = events.num_steps(self.recipe.step)
        x, heard = self.layers(self.dense(events), lengths)
        if self.recipe.readout == "last":
            x = x[lengths - 1, torch.arange(len(lengths), device=x.device)]
        elif self.recipe.readout == "mean":
            there = torch.arange(len(x), device=x.device)[:, None] < lengths
            x = (x * there[:, :, None]).sum(0) / lengths[:, None]
        else:
            x = x.transpose(0, 1)
        return Outcome(self.read(x), heard=heard)

    def dense(self, events: Events) -> Tensor:
        """The events of each step, embedded: ``(T, B, N)``."""
        x = events.to_dense(self.recipe.step).to(self.readout.weight.dtype)
        return x if self.embedding is None else self.embedding(x)

    def layers(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Heard, ...]]:
        """What the last layer says of inputs ``(T, B, N)``, ``(T, B, H)``, and what each one heard and did."""
        packed = bool((lengths < len(x)).any())
        flow: Any = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False) if packed else x
        heard = []
        for layer in self.hidden:
            inputs = flow.data if packed else flow.flatten(0, 1)
            if isinstance(layer, EGRU):
                flow, _, (steps,) = layer(flow, return_steps=True)
            else:
                (flow, _), steps = layer(flow), None
            heard.append(Heard(inputs.detach(), layer.hidden_size, steps))
            flow = self._dropped(flow)
        return pad_packed_sequence(flow)[0] if packed else flow, tuple(heard)

    def read(self, x: Tensor) -> Tensor:
        """Logits of what the last layer says."""
        out: Tensor = self.readout(x)
        if self.recipe.tied:
            assert self.embedding is not None
            out = functional.linear(out, self.embedding.weight.t(), self.bias)
        return out

    def penalty(self, outcome: Outcome, progress: float) -> Tensor | None:
        """What the units' activity adds to the loss."""
        recipe = self.recipe
        told = [heard.steps for heard in outcome.heard if heard.steps is not None]
        if not (recipe.activity_weight and told):
            return None
        rising = min(1.0, progress / recipe.activity_ramp) if recipe.activity_ramp else 1.0
        parts = [losses.activity_penalty(steps.fired, recipe.activity_target) for steps in told]
        return recipe.activity_weight * rising * torch.stack(parts).sum()

    def after_step_(self, outcome: Outcome) -> None:
        """Thresholds stay between 0 and 1."""
        constrain_(self)

    def meter(self) -> GatedMeter:
        """What adds up the activity of an epoch."""
        return GatedMeter(self.recipe.hidden)

    def _dropped(self, flow: Any) -> Any:
        share = self.recipe.dropout
        if not share:
            return flow
        if isinstance(flow, PackedSequence):
            return flow._replace(data=functional.dropout(flow.data, share, self.training))
        return functional.dropout(flow, share, self.training)


def gated_layer(recipe: GatedRecipe, before: int, after: int, last: bool) -> nn.Module:
    """A layer of the recipe's units; the trace is that of the last one."""
    if recipe.unit == "gru":
        return nn.GRU(before, after)
    return EGRU(
        before,
        after,
        threshold_mean=recipe.threshold_mean,
        height=recipe.height,
        half_width=recipe.half_width,
        trace_decay=recipe.trace_decay if last else None,
        zoneout=recipe.zoneout,
        drop_connect=recipe.drop_connect,
        backend=recipe.backend,
    )
