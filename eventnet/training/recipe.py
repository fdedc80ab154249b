"""A recipe: everything that determines a training run, as one small set of fields.

``Recipe`` has the fields that all have, ``SpikingRecipe`` those of networks of LIF neurons, ``GatedRecipe`` those of networks of
event-based gated units and of their dense twins. The recipe of networks that learn task after task is in
``eventnet.training.continual``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from eventnet.training.errors import RecipeError, nearest
from eventnet.training.setting import described, fields_of, setting

__all__ = ["GatedRecipe", "Recipe", "SpikingRecipe"]

CONNECTIONS = ("weight", "recurrent_weight", "delay", "recurrent_delay")
LEARNABLE = (*CONNECTIONS, "tau_mem", "tau_syn", "threshold", "reset", "bias")
DELAY_KINDS = ("synaptic", "axonal", "dendritic")
BACKENDS = ("auto", "cpu", "reference")

# The groups that the fields are shown in: the field that each one starts with.
PANELS = {
    "data": "Data",
    "hidden": "Network",
    "input_dropout": "Augmentation",
    "learning_rate": "Training",
    "recurrent": "Network",
    "unit": "Network",
    "first_spike_tau": "Loss",
    "activity_target": "Loss",
    "delay_learning_rate": "Training",
    "tasks": "Data",
    "row": "Network",
}


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, how: the fields of every family of networks. Times are in seconds, voltages in volts; each
    field's metadata says what it is.

    Raises:
        RecipeError: a value of the wrong type or out of range; the message names the field and what it
        expects.
    """

    family: ClassVar[str] = ""

    name: str
    summary: str = ""

    data: str = setting("digits", "data set, one of eventnet.data.names()")
    data_options: dict[str, Any] = field(
        default_factory=dict, metadata=described("options of the data set, as duration=0.3; see eventnet.data")
    )
    validation_fraction: float | None = setting(
        None, "share of the training samples kept for validation; none: the data set's own", bound="in (0, 1)"
    )

    hidden: tuple[int, ...] = setting((200,), "neurons of each hidden layer", bound=">= 1")
    readout: str = setting("", "what the classes are read from")
    backend: str = setting("auto", "kernels; see eventnet kernels", choices=BACKENDS)

    input_dropout: float = setting(0.0, "probability that an input event of training is left out", bound="in [0, 1)")
    input_shift: int = setting(
        0, "training inputs are moved by up to this many units, at random per sample", "units", ">= 0"
    )

    learning_rate: float = setting(1e-3, "Adam's step", bound="> 0")
    learning_rate_decay: float = setting(1.0, "factor on the learning rate after each epoch", bound="> 0")
    beta2: float = setting(0.999, "Adam's memory of squared gradients", bound="in [0, 1)")
    gradient_clip: float | None = setting(None, "largest norm of the gradient; none: no limit", bound="> 0")
    batch_size: int = setting(32, "samples per optimiser step", "samples", ">= 1")
    epochs: int = setting(30, "passes through the training samples", bound=">= 1")
    best: str = setting(
        "accuracy",
        "which epoch is kept: that of the highest validation accuracy or of the lowest loss",
        choices=("accuracy", "loss"),
    )
    seed: int = setting(0, "of the initial weights, the validation part, order and dropout", bound=">= 0")

    def __post_init__(self) -> None:
        if not self.family:
            families = ", ".join(kind.__name__ for kind in Recipe.__subclasses__())
            raise TypeError(f"Recipe: what all recipes share; expected one of {families}")
        for each in fields_of(self):
            object.__setattr__(self, each.name, each.check(getattr(self, each.name)))

    def changed(self, **changes: Any) -> Self:
        """A copy with other values; unknown names and wrong values are errors. ``data_options`` are merged."""
        known = [each.name for each in fields_of(self)]
        for name in changes:
            if name not in known:
                raise RecipeError(f"unknown field {name!r}{nearest(name, known)}")
        if isinstance(changes.get("data_options"), Mapping):
            changes["data_options"] = {**self.data_options, **changes["data_options"]}
        return dataclasses.replace(self, **changes)

    @property
    def total_epochs(self) -> int:
        """Passes through training samples from start to end."""
        return self.epochs

    def place(self, epoch: int) -> tuple[int, int]:
        """The task that an epoch of the run is of, and the number of the epoch in it, all from 0."""
        return 0, epoch

    def renamed(self, name: str, summary: str) -> Self:
        """A copy under another name."""
        return dataclasses.replace(self, name=name, summary=summary)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        plain = {"family": self.family, **dataclasses.asdict(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Recipe:
        """The recipe of ``to_dict``; unknown names are errors."""
        if not isinstance(plain, Mapping) or "name" not in plain:
            raise RecipeError(f"expected a recipe as written by Recipe.to_dict, got {plain!r:.80}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        families = {kind.family: kind for kind in Recipe.__subclasses__()}
        family = values.pop("family", SpikingRecipe.family)  # which recipes of older runs do not name
        if family not in families:
            raise RecipeError(f"unknown family of recipes {family!r}{nearest(str(family), families)}")
        name, summary = values.pop("name"), values.pop("summary", "")
        return families[family](name=name, summary=summary).changed(**values)


@dataclass(frozen=True)
class SpikingRecipe(Recipe):
    """Training of LIF neurons.

    The data's units -> LIF layers of the sizes in ``hidden`` -> one output per class, which is an LIF layer for
    ``readout="first_spike"`` and a leaky integrator (LI) that never spikes for the others.

    Example:
        >>> recipe = SpikingRecipe(name="mine", data="digits", hidden=(100, 50))
        >>> recipe.changed(tau_mem=10e-3).tau_mem
        0.01
    """

    family = "spiking"

    readout: str = setting(
        "max",
        "what the classes are read from: the output neurons' first spikes; the maximum, mean, integral or last value of "
        "the readout voltage; or its samples, for labels per step",
        choices=("first_spike", "max", "mean", "integral", "last", "at"),
    )
    recurrent: bool = setting(False, "each hidden layer hears its own spikes too")
    branches: int = setting(0, "dendritic branches of each neuron of the hidden layers; 0: none", bound=">= 0")
    branch_tau_syn: tuple[float, ...] = setting(
        (),
        "synaptic time constants of the branches, evenly on a log scale from low,high; none: tau-syn for all",
        "s",
        "> 0",
    )
    delay: tuple[float, ...] = setting(
        (), "delays of the hidden layers' inputs are drawn evenly from low,high; none: no delays", "s", ">= 0"
    )
    recurrent_delay: tuple[float, ...] = setting(
        (), "delays of the hidden layers' own spikes, as delay; needs recurrent", "s", ">= 0"
    )
    delay_kind: str = setting(
        "synaptic", "one delay per connection (synaptic), source (axonal) or target (dendritic)", choices=DELAY_KINDS
    )
    longest_delay: float | None = setting(
        None, "delays are not learnt beyond this, as for a chip whose buffers end there; none: no limit", "s", "> 0"
    )
    tau_mem: float = setting(20e-3, "membrane time constant of the hidden layers", "s", "> 0")
    tau_syn: float = setting(5e-3, "synaptic time constant of the hidden layers", "s", "> 0")
    tau_spread: float = setting(
        1.0,
        "the hidden neurons' time constants lie evenly on a log scale from tau / this to tau * this, the same factor "
        "for tau-mem and tau-syn of a neuron; 1: all alike",
        bound=">= 1",
    )
    threshold: float = setting(1.0, "threshold of all spiking layers", "V", "> 0")
    readout_tau_mem: float = setting(20e-3, "membrane time constant of the readout", "s", "> 0")
    readout_tau_syn: float = setting(5e-3, "synaptic time constant of the readout", "s", "> 0")
    readout_decay: float | None = setting(
        None, "readout integral: V counts e^(-t/decay) at time t; none: alike at all times", "s", "> 0"
    )
    readout_step: float = setting(4e-3, "readout at: time between two samples, the length of a label", "s", "> 0")
    logit_scale: float = setting(
        1.0,
        "factor from readout to logits, in 1/V (integral: it is divided by its decay first)",
        "1/V",
        "> 0",
    )
    init_mean: tuple[float, ...] = setting(
        (0.1, 0.1), "mean of the initial weights, per layer; the last is the readout's, the one before it "
        "serves all further hidden layers", "V"
    )  # fmt: skip
    init_std: tuple[float, ...] = setting(
        (0.1, 0.1), "standard deviation of the initial weights, as init-mean", "V", ">= 0"
    )
    init_recurrent: tuple[float, ...] = setting(
        (0.0, 0.02), "mean and standard deviation of the initial recurrent weights", "V"
    )
    init_firing: float | None = setting(
        None,
        "scale the initial weights of each hidden layer so that this share of its neurons fires on a sample; "
        "none: leave them",
        bound="in (0, 1)",
    )
    learn: tuple[str, ...] = setting(
        CONNECTIONS, "parameters that are trained; connections that the network lacks are left out", choices=LEARNABLE
    )

    first_spike_tau: float = setting(0.5e-3, "readout first_spike: time constant of the softmax", "s", "> 0")
    late_weight: float = setting(0.003, "readout first_spike: weight of the cost of late spikes", bound=">= 0")
    late_tau: float = setting(6.4e-3, "readout first_spike: time constant of the cost of late spikes", "s", "> 0")
    count_target: float = setting(0.0, "wanted mean spikes per hidden neuron and sample", "spikes", ">= 0")
    count_weight: float = setting(0.0, "weight of the squared distance from count-target", bound=">= 0")
    highest_rate: float = setting(100.0, "highest unpunished mean rate of a hidden neuron", "Hz", ">= 0")
    rate_weight: float = setting(0.0, "weight of the squared excess over highest-rate", "1/Hz^2", ">= 0")

    learning_rate: float = setting(
        5e-3, "Adam's step for weights; other parameters than delays: times their initial size", "V", "> 0"
    )
    beta2: float = setting(
        0.99,
        "Adam's memory of squared gradients; short, so that the rare large gradient of a grazing spike fades soon",
        bound="in [0, 1)",
    )
    delay_learning_rate: float = setting(0.2e-3, "Adam's step for delays", "s", "> 0")
    slope_floor: float = setting(
        0.0,
        "the gradient of a spike is divided by the voltage's slope there, or by this if that is smaller; 0: exact",
        "V/s",
        ">= 0",
    )
    lift: float = setting(
        0.0, "added to all weights of a neuron that is silent in a whole batch, per step", "V", ">= 0"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("init_mean", "init_std"):
            given, layers = len(getattr(self, name)), len(self.hidden) + 1
            if not 2 <= given <= max(2, layers):
                raise RecipeError(
                    f"{name}: expected 2 to {max(2, layers)} numbers (hidden layers, then the readout), got {given}"
                )
        for name in ("delay", "recurrent_delay"):
            low_high = getattr(self, name)
            if low_high and (len(low_high) != 2 or low_high[0] > low_high[1]):
                raise RecipeError(
                    f"{name}: expected none or low,high with low <= high (s), such as 0,0.03, "
                    f"got {','.join(f'{x:g}' for x in low_high)}"
                )
        if self.branch_tau_syn and (
            not self.branches or len(self.branch_tau_syn) != 2 or self.branch_tau_syn[0] > self.branch_tau_syn[1]
        ):
            raise RecipeError(
                "branch_tau_syn: expected low,high with low <= high (s), such as 0.005,0.1, and branches, got "
                f"{','.join(f'{x:g}' for x in self.branch_tau_syn)} and branches={self.branches}"
            )
        if self.branches and self.tau_spread != 1:
            raise RecipeError(f"tau_spread: expected 1 with branches, got {self.tau_spread:g}")
        if self.recurrent_delay and not self.recurrent:
            raise RecipeError(
                f"recurrent_delay: expected none in a network that is not recurrent, got {self.recurrent_delay[0]:g},"
                f"{self.recurrent_delay[1]:g}; make it recurrent, or leave it out"
            )
        if len(self.init_recurrent) != 2 or self.init_recurrent[1] < 0:
            raise RecipeError(
                "init_recurrent: expected a mean and a standard deviation >= 0 (V), such as 0,0.02, "
                f"got {','.join(f'{x:g}' for x in self.init_recurrent)}"
            )

    def initial(self, name: str, layer: int) -> float:
        """``init_mean`` or ``init_std`` of layer ``layer``; ``len(hidden)`` is the readout."""
        values = getattr(self, name)
        return float(values[-1] if layer == len(self.hidden) else values[min(layer, len(values) - 2)])


@dataclass(frozen=True)
class GatedRecipe(Recipe):
    """Training of event-based gated units (EGRU), or of the dense ones of ``torch.nn.GRU`` in their place, step by step.

    The data's units, counted in steps of ``step`` seconds -> an embedding, if there is one -> layers of the sizes in
    ``hidden`` -> one output per class.

    Example:
        >>> recipe = GatedRecipe(name="mine", data="vowels", hidden=(64,), step=10e-3)
        >>> recipe.changed(unit="gru").hidden
        (64,)
    """

    family = "gated"

    hidden: tuple[int, ...] = setting((128,), "units of each hidden layer, the same for all", bound=">= 1")
    readout: str = setting(
        "last",
        "the outputs hear the last step of a sample, the mean of its steps, or each step, for labels per step",
        choices=("last", "mean", "each"),
    )
    unit: str = setting(
        "egru",
        "kind of the layers: event-based gated units, their dense twin torch.nn.GRU, or one dendritic layer (ELM)",
        choices=("egru", "gru", "elm"),
    )
    step: float = setting(1e-3, "length of a step; data that comes in steps has its own", "s", "> 0")
    embedding: int = setting(
        0, "numbers that each input unit is embedded in; 0: none, the layers hear the units", bound=">= 0"
    )
    tied: bool = setting(False, "the outputs use the embedding's weight; classes are the input's units")
    direct: bool = setting(False, "the outputs hear the input of their step too, by weights of their own; readout each")
    standardize: bool = setting(
        False,
        "inputs and outputs are in units of the inputs' standard deviation from their mean, over samples of training",
    )
    memory: float = setting(
        0.0,
        "the gates z are biased at first so that units keep their state for 1 to this many steps (chrono initialisation); "
        "0: no bias",
        "steps",
        ">= 0",
    )
    trace_decay: float | None = setting(
        None,
        "of an egru: the outputs hear a moving average of it, trace = this * trace + (1 - this) * y; none: y itself",
        bound="in [0, 1)",
    )
    threshold_mean: float = setting(0.3, "of an egru: mean of the initial thresholds", bound="in (0, 1)")
    height: float = setting(0.7, "of an egru: height of the triangle that is the derivative of firing", bound=">= 0")
    half_width: float = setting(1.0, "of an egru: half of that triangle's width", bound="> 0")
    zoneout: float = setting(
        0.0, "of an egru: share of the units that keep their state c for a step, in training", bound="in [0, 1)"
    )
    drop_connect: float = setting(
        0.0, "of an egru: share of the recurrent weights left out of a batch, in training", bound="in [0, 1)"
    )
    branches: int = setting(0, "of an elm: branches of the dendrite; 0: one for each input", bound=">= 0")
    synapses: int = setting(
        0, "of an elm: synapses of each branch; 0: just enough for each input to have one", bound=">= 0"
    )
    tau_syn: float = setting(5e-3, "of an elm: time constant of the traces", "s", "> 0")
    tau_mem: tuple[float, ...] = setting(
        (1e-3, 0.15), "of an elm: the shortest and the longest time constant of its memory", "s", "> 0"
    )
    dropout: float = setting(
        0.0, "share of what a layer says that the next one, or the outputs, do not hear, in training", bound="in [0, 1)"
    )

    activity_target: float = setting(0.1, "of an egru: wanted share of units that fire in a step", bound="in [0, 1)")
    activity_weight: float = setting(
        0.0, "of an egru: weight of the squared distance from activity-target", bound=">= 0"
    )
    activity_ramp: float = setting(
        0.5,
        "of an egru: share of the training in which that weight rises from 0, as units that have not learnt yet fall silent",
        bound="in [0, 1]",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise RecipeError("hidden: expected at least one layer, such as 128, got none")
        if len(set(self.hidden)) > 1:
            sizes = ",".join(map(str, self.hidden))
            raise RecipeError(f"hidden: expected gated layers of one size, such as 128,128, got {sizes}")
        for name in ("direct", "standardize"):
            if getattr(self, name) and (self.readout != "each" or self.embedding):
                raise RecipeError(
                    f"{name}: expected readout=each and no embedding, got readout={self.readout}, embedding={self.embedding}"
                )
        if len(self.tau_mem) != 2 or self.tau_mem[0] > self.tau_mem[1]:
            raise RecipeError(
                f"tau_mem: expected shortest,longest (s), such as 0.001,0.15, got {','.join(f'{x:g}' for x in self.tau_mem)}"
            )
        if self.unit == "elm" and (len(self.hidden) > 1 or self.memory):
            raise RecipeError(
                f"unit: an elm is one layer without gates; expected one number in hidden and memory=0, got "
                f"{','.join(map(str, self.hidden))} and {self.memory:g}"
            )
        if self.tied and not self.embedding:
            raise RecipeError("tied: expected an embedding to share the weight of, such as embedding=64, got none")
