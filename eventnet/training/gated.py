"""The network that a gated recipe describes: layers that go step by step, event-based, dense or dendritic, and a readout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from eventnet import EGRU, Events, constrain_, losses
from eventnet.counters_torch import product
from eventnet.counting import Counts, counter, total
from eventnet.layers.egru_steps import within
from eventnet.layers.elm import ELM
from eventnet.training.errors import DataError, RecipeError
from eventnet.training.meter import GatedMeter
from eventnet.training.network import Heard, Network, Outcome
from eventnet.training.recipe import GatedRecipe

__all__ = ["GatedNetwork"]

ALIKE = 1e-6  # a standard deviation that is no larger than this share of the largest number is rounding


class GatedNetwork(Network):
    """Events, counted in steps -> an embedding, if there is one -> gated layers -> a linear readout.

    The initial parameters depend on ``recipe.seed`` alone. Samples of a batch may differ in their number of steps.

    Example:
        >>> network = GatedNetwork(GatedRecipe(name="mine", hidden=(20,), step=1e-3), num_units=4, num_classes=3)
        >>> network(Events.from_list([([0.001], [2])], num_units=4, duration=0.02)).scores.shape
        torch.Size([1, 3])
    """

    recipe: GatedRecipe
    mean: Tensor
    deviation: Tensor
    remedy = (
        "told nothing; a smaller --threshold-mean lets its units start to tell, a smaller --activity-weight or larger "
        "--activity-target lets them go on"
    )

    def __init__(self, recipe: GatedRecipe, num_units: int, num_classes: int) -> None:
        super().__init__(recipe, num_units, num_classes)
        if recipe.tied and num_units != num_classes:
            raise RecipeError(
                f"tied: expected data whose classes are its units, got {num_units} units and {num_classes} classes"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            heard = recipe.embedding or num_units
            self.embedding = nn.Linear(num_units, recipe.embedding, bias=False) if recipe.embedding else None
            self.hidden = gated_layers(recipe, heard)
            if recipe.memory:
                assert isinstance(self.hidden, nn.RNNBase)  # the recipe says so
                remember_(self.hidden, recipe.memory)
            # tied, the outputs are compared with the embeddings of the units
            self.readout = nn.Linear(recipe.hidden[-1], recipe.embedding if recipe.tied else num_classes)
            self.bias = nn.Parameter(torch.zeros(num_classes)) if recipe.tied else None
            self.tied = None if self.embedding is None or not recipe.tied else TiedOutput(self.embedding)
            self.direct = nn.Linear(num_units, num_classes, bias=False) if recipe.direct else None
            if self.direct is not None:
                nn.init.zeros_(self.direct.weight)
            if recipe.standardize:
                self.register_buffer("mean", torch.zeros(()))
                self.register_buffer("deviation", torch.ones(()))
            if self.embedding is not None:
                nn.init.normal_(self.embedding.weight, std=recipe.embedding**-0.5)

    @torch.no_grad()
    def calibrate_(self, events: Events) -> None:
        """Mean and standard deviation of all numbers that are there, for a recipe that standardizes.

        Raises:
            RecipeError: there are fewer than two numbers, or all are alike, so that there is no deviation to divide by.
        """
        if not self.recipe.standardize:
            return
        values = torch.ones(events.num_events) if events.values is None else events.values
        if len(values) < 2:
            raise RecipeError(f"standardize: expected at least 2 numbers in samples of training, got {len(values)}")
        deviation = values.std()
        if not float(deviation) > ALIKE * float(values.abs().max()):
            raise RecipeError(
                f"standardize: expected input of several values, got {len(values)} numbers all alike, about "
                f"{float(values[0]):.4g}"
            )
        self.mean.copy_(values.mean())
        self.deviation.copy_(deviation)

    def forward(self, events: Events) -> Outcome:
        """Scores of the classes, and what the layers heard and did."""
        lengths = events.num_steps(self.recipe.step)
        if bool((lengths < 1).any()):
            raise DataError(f"sample {int(lengths.argmin())} of the batch lasts 0 s; expected at least one step of it")
        inputs = self.dense(events)
        x, heard = self.layers(inputs, lengths)
        if self.recipe.readout == "last":
            x = x[lengths - 1, torch.arange(len(lengths), device=x.device)]
        elif self.recipe.readout == "mean":
            x = (x * within(lengths, len(x))[:, :, None]).sum(0) / lengths[:, None]
        else:
            x, inputs = x.transpose(0, 1), inputs.transpose(0, 1)
        return Outcome(self.read(x, inputs), heard=heard)

    @torch.no_grad()
    def forecast(self, events: Events, known: Tensor) -> Tensor:
        """Outputs ``(B, K, outputs)`` of each step; after the first ``known`` steps ``(B,)`` the inputs are these outputs.

        The outputs of a step are the first units of the next one, whose other units are those of this step, moved on.

        Raises:
            DataError: the outputs are not read from each step, or not the latest of the inputs; there are fewer steps than known.
        """
        if self.recipe.readout != "each" or self.recipe.embedding or self.num_units % self.num_classes:
            raise DataError(
                f"{self.recipe.name}: a forecast needs readout=each, embedding=0 and units that are whole steps of the "
                f"{self.num_classes} outputs; got {self.recipe.readout}, {self.recipe.embedding}, {self.num_units} units"
            )
        given = self.dense(events)
        if int(known.max()) > len(given):
            raise DataError(
                f"forecast: {int(known.max())} steps are said to be known, and the events last {len(given)}"
            )
        first = max(int(known.min()), 1)
        # without lengths: a sample that ends earlier goes on to be forecast, which nobody reads
        told, state = self.hidden(given[:first])
        said = [*self.read(told, given[:first])]
        mine = (known.to(given.device) > torch.arange(len(given), device=given.device)[:, None])[:, :, None]
        x = given[first - 1]
        for step in range(first, len(given)):
            latest = (said[-1] - self.mean) / self.deviation if self.recipe.standardize else said[-1]
            moved = torch.cat([latest, x[:, : self.num_units - self.num_classes]], 1)
            x = torch.where(mine[step], given[step], moved)
            told, state = self.hidden(x[None], state)
            said.append(self.read(told[0], x))
        return torch.stack(said, 1)

    def dense(self, events: Events) -> Tensor:
        """The events of each step, embedded or standardized: ``(T, B, N)``."""
        x = events.to_dense(self.recipe.step).to(self.readout.weight.dtype)
        if self.recipe.standardize:
            x = (x - self.mean) / self.deviation
        return x if self.embedding is None else self.embedding(x)

    def layers(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Heard, ...]]:
        """What the last layer says of inputs ``(T, B, N)``, ``(T, B, H)``, and what each one heard and did."""
        # an ELM may go on after the end of a sample, where nobody listens
        packed = bool((lengths < len(x)).any()) and not isinstance(self.hidden, ELM)
        flow: Any = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False) if packed else x
        first = (flow.data if packed else flow).detach()
        positions = int(lengths.sum())
        if isinstance(self.hidden, EGRU):
            flow, _, steps = self.hidden(flow, return_steps=True)
            not_zero = [int(told.count_nonzero()) for told in (first, *(done.y for done in steps[:-1]))]
        else:
            flow, _ = self.hidden(flow)
            steps = [None] * len(self.recipe.hidden)
            not_zero = [int(first.count_nonzero()), *(positions * size for size in self.recipe.hidden[:-1])]
        sizes = (x.shape[-1], *self.recipe.hidden)
        heard = tuple(
            Heard(positions, size, some, hidden, did, *weights_of(self.hidden, hidden))
            for size, hidden, some, did in zip(sizes[:-1], sizes[1:], not_zero, steps, strict=True)
        )
        said: Tensor = pad_packed_sequence(flow)[0] if packed else flow
        return functional.dropout(said, self.recipe.dropout, self.training), heard

    def read(self, x: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Logits, or the numbers of a forecast, from what the last layer says and, if direct, the inputs of the same steps."""
        out: Tensor = self.readout(x)
        if self.direct is not None:
            assert inputs is not None
            out = out + self.direct(inputs)
        if self.recipe.standardize:
            out = out * self.deviation + self.mean
        return out if self.tied is None else self.tied(out, self.bias)

    def penalty(self, outcome: Outcome, progress: float) -> Tensor | None:
        """What the units' activity adds to the loss."""
        recipe = self.recipe
        told = [heard.steps for heard in outcome.heard if heard.steps is not None]
        if not (recipe.activity_weight and told):
            return None
        rising = min(1.0, progress / recipe.activity_ramp) if recipe.activity_ramp else 1.0
        parts = [losses.activity_penalty(steps.fired, recipe.activity_target) for steps in told]
        return recipe.activity_weight * rising * torch.stack(parts).sum()

    def after_step_(self, spikes: tuple[Events, ...]) -> None:
        """Thresholds stay between 0 and 1."""
        constrain_(self)

    def meter(self) -> GatedMeter:
        """What adds up the activity of an epoch."""
        return GatedMeter(self.recipe.hidden)


class TiedOutput(nn.Module):
    """Logits ``E^T x + b`` from the weight E of an embedding, which stays the embedding's own: a module, so that it is counted.

    Source: Press & Wolf, "Using the output embedding to improve language models" (EACL 2017).
    """

    def __init__(self, embedding: nn.Linear) -> None:
        super().__init__()
        self.shared = (embedding,)  # in a tuple: not a module of this one, so that its weight has one name

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, self.shared[0].weight.t(), bias)


@counter(TiedOutput)
def _tied(layer: TiedOutput, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, dt: float) -> Counts:
    weight, x = layer.shared[0].weight.t(), args[0]
    outputs = Counts(
        steps=output.numel() // len(weight),
        neurons=len(weight),
        inputs=int(x.count_nonzero()),
        spikes=int(output.count_nonzero()),
    )
    return total([outputs, product(x, weight)])


def weights_of(layers: nn.RNNBase | ELM, hidden: int) -> tuple[float, float]:
    """Of a layer of so many units, the weights that an input meets on average, and all others."""
    if isinstance(layers, ELM):
        inward = layers.mlp_in.weight.numel() + layers.mlp_out.weight.numel()
        return layers.weight.numel() / layers.in_features, float(inward)
    return 3.0 * hidden, 3.0 * hidden * hidden


def gated_layers(recipe: GatedRecipe, inputs: int) -> nn.RNNBase | ELM:
    """The recipe's layers: event-based, dense or dendritic."""
    size, num_layers = recipe.hidden[0], len(recipe.hidden)
    dropout = recipe.dropout if num_layers > 1 else 0.0
    if recipe.unit == "elm":
        if 0 < recipe.branches * recipe.synapses < inputs:
            raise RecipeError(
                f"synapses: expected at least one for each of the {inputs} inputs, got {recipe.branches} branches of "
                f"{recipe.synapses}; 0 takes just enough"
            )
        return ELM(
            inputs,
            None,
            memory=size,
            branches=recipe.branches or None,
            synapses=recipe.synapses or None,
            tau_mem=(recipe.tau_mem[0], recipe.tau_mem[1]),
            tau_syn=recipe.tau_syn,
            step=recipe.step,
            backend=recipe.backend,
        )
    if recipe.unit == "gru":
        return nn.GRU(inputs, size, num_layers, dropout=dropout)
    return EGRU(
        inputs,
        size,
        num_layers,
        dropout=dropout,
        threshold_mean=recipe.threshold_mean,
        height=recipe.height,
        half_width=recipe.half_width,
        trace_decay=recipe.trace_decay,
        zoneout=recipe.zoneout,
        drop_connect=recipe.drop_connect,
        backend=recipe.backend,
    )


@torch.no_grad()
def remember_(layers: nn.RNNBase, steps: float) -> None:
    """Bias the gates z so that each unit keeps its state for a number of steps drawn evenly from 2 to ``steps``.

    A unit with z = T / (T + 1) forgets by a factor of e in about T steps: ``b_z = log(T)``, ``T`` from 1 to ``steps - 1``.

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (ICLR 2018), section 2.
    """
    for name, bias in layers.named_parameters():
        if name.startswith("bias_hh"):
            z = bias[layers.hidden_size : 2 * layers.hidden_size]
            z.copy_(torch.empty_like(z).uniform_(1.0, max(1.0, steps - 1.0)).log())
