"""A recipe: everything that determines a training run, as one small set of fields that all recipes share."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin, get_type_hints

from eventnet.training.errors import RecipeError, nearest

__all__ = ["READOUTS", "Recipe", "Setting", "parse", "settings"]

READOUTS = ("first_spike", "max", "mean", "integral", "at")
CONNECTIONS = ("weight", "recurrent_weight", "delay", "recurrent_delay")
LEARNABLE = (*CONNECTIONS, "tau_mem", "tau_syn", "threshold", "reset", "bias")
DELAY_KINDS = ("synaptic", "axonal", "dendritic")
BACKENDS = ("auto", "cpu", "reference")

# The groups that the fields are shown in: the field that each one starts with.
PANELS = {
    "data": "Data",
    "hidden": "Network",
    "first_spike_tau": "Loss",
    "input_dropout": "Augmentation",
    "learning_rate": "Training",
}

_BOUNDS = {
    "> 0": lambda x: x > 0,
    ">= 0": lambda x: x >= 0,
    ">= 1": lambda x: x >= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
    "in (0, 1)": lambda x: 0 < x < 1,
}

_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_EXAMPLES = {int: "100,50", float: "0.5,0.1", str: "weight,tau_mem"}  # of several values, by their type


def _about(help: str, unit: str = "", bound: str = "", choices: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"help": help, "unit": unit, "bound": bound, "choices": choices}


def _set(default: Any, help: str, unit: str = "", bound: str = "", choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata=_about(help, unit, bound, choices))


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, how. Times are in seconds, voltages in volts; each field's metadata says what
    it is.

    Network: the data's units -> LIF layers of the sizes in ``hidden`` -> one output per class, which is an
    LIF layer for ``readout="first_spike"`` and a leaky integrator (LI) that never spikes for the others.

    Raises:
        RecipeError: a value of the wrong type or out of range; the message names the field and what it
        expects.

    Example:
        >>> recipe = Recipe(name="mine", data="digits", hidden=(100, 50))
        >>> recipe.changed(tau_mem=10e-3).tau_mem
        0.01
    """

    name: str
    summary: str = ""

    data: str = _set("digits", "data set, one of eventnet.data.names()")
    data_options: dict[str, Any] = field(
        default_factory=dict, metadata=_about("options of the data set, as duration=0.3; see eventnet.data")
    )
    validation_fraction: float | None = _set(
        None, "share of the training samples kept for validation; none: the data set's own", bound="in (0, 1)"
    )

    hidden: tuple[int, ...] = _set((200,), "neurons of each hidden layer", bound=">= 1")
    readout: str = _set(
        "max",
        "what the classes are read from: the output neurons' first spikes; the maximum, mean or integral of "
        "the readout voltage; or its samples, for labels per step",
        choices=READOUTS,
    )
    recurrent: bool = _set(False, "each hidden layer hears its own spikes too")
    delay: tuple[float, ...] = _set(
        (), "delays of the hidden layers' inputs are drawn evenly from low,high; none: no delays", "s", ">= 0"
    )
    recurrent_delay: tuple[float, ...] = _set(
        (), "delays of the hidden layers' own spikes, as delay; needs recurrent", "s", ">= 0"
    )
    delay_kind: str = _set(
        "synaptic", "one delay per connection (synaptic), source (axonal) or target (dendritic)", choices=DELAY_KINDS
    )
    tau_mem: float = _set(20e-3, "membrane time constant of the hidden layers", "s", "> 0")
    tau_syn: float = _set(5e-3, "synaptic time constant of the hidden layers", "s", "> 0")
    tau_spread: float = _set(
        1.0,
        "the hidden neurons' time constants lie evenly on a log scale from tau / this to tau * this, the same factor "
        "for tau-mem and tau-syn of a neuron; 1: all alike",
        bound=">= 1",
    )
    threshold: float = _set(1.0, "threshold of all spiking layers", "V", "> 0")
    readout_tau_mem: float = _set(20e-3, "membrane time constant of the readout", "s", "> 0")
    readout_tau_syn: float = _set(5e-3, "synaptic time constant of the readout", "s", "> 0")
    readout_decay: float | None = _set(
        None, "readout integral: V counts e^(-t/decay) at time t; none: alike at all times", "s", "> 0"
    )
    readout_step: float = _set(4e-3, "readout at: time between two samples, the length of a label", "s", "> 0")
    logit_scale: float = _set(
        1.0,
        "factor from readout to logits, in 1/V (integral: it is divided by its decay first)",
        "1/V",
        "> 0",
    )
    init_mean: tuple[float, ...] = _set(
        (0.1, 0.1), "mean of the initial weights, per layer; the last is the readout's, the one before it "
        "serves all further hidden layers", "V"
    )  # fmt: skip
    init_std: tuple[float, ...] = _set(
        (0.1, 0.1), "standard deviation of the initial weights, as init-mean", "V", ">= 0"
    )
    init_recurrent: tuple[float, ...] = _set(
        (0.0, 0.02), "mean and standard deviation of the initial recurrent weights", "V"
    )
    init_firing: float | None = _set(
        None,
        "scale the initial weights of each hidden layer so that this share of its neurons fires on a sample; "
        "none: leave them",
        bound="in (0, 1)",
    )
    learn: tuple[str, ...] = _set(
        CONNECTIONS, "parameters that are trained; connections that the network lacks are left out", choices=LEARNABLE
    )
    backend: str = _set("auto", "kernels; see eventnet kernels", choices=BACKENDS)

    first_spike_tau: float = _set(0.5e-3, "readout first_spike: time constant of the softmax", "s", "> 0")
    late_weight: float = _set(0.003, "readout first_spike: weight of the cost of late spikes", bound=">= 0")
    late_tau: float = _set(6.4e-3, "readout first_spike: time constant of the cost of late spikes", "s", "> 0")
    count_target: float = _set(0.0, "wanted mean spikes per hidden neuron and sample", "spikes", ">= 0")
    count_weight: float = _set(0.0, "weight of the squared distance from count-target", bound=">= 0")
    highest_rate: float = _set(100.0, "highest unpunished mean rate of a hidden neuron", "Hz", ">= 0")
    rate_weight: float = _set(0.0, "weight of the squared excess over highest-rate", "1/Hz^2", ">= 0")
    lift: float = _set(0.0, "added to all weights of a neuron that is silent in a whole batch, per step", "V", ">= 0")

    input_dropout: float = _set(0.0, "probability that an input event of training is left out", bound="in [0, 1)")
    input_shift: int = _set(
        0, "training inputs are moved by up to this many units, at random per sample", "units", ">= 0"
    )

    learning_rate: float = _set(
        5e-3, "Adam's step for weights; other parameters than delays: times their initial size", "V", "> 0"
    )
    delay_learning_rate: float = _set(0.2e-3, "Adam's step for delays", "s", "> 0")
    learning_rate_decay: float = _set(1.0, "factor on the learning rate after each epoch", bound="> 0")
    beta2: float = _set(
        0.99,
        "Adam's memory of squared gradients; short, so that the rare large gradient of a grazing spike fades soon",
        bound="in [0, 1)",
    )
    gradient_clip: float | None = _set(None, "largest norm of the gradient; none: no limit", bound="> 0")
    slope_floor: float = _set(
        0.0,
        "the gradient of a spike is divided by the voltage's slope there, or by this if that is smaller; 0: exact",
        "V/s",
        ">= 0",
    )
    batch_size: int = _set(32, "samples per optimiser step", "samples", ">= 1")
    epochs: int = _set(30, "passes through the training samples", bound=">= 1")
    seed: int = _set(0, "of the initial weights, the validation part, order and dropout", bound=">= 0")

    def __post_init__(self) -> None:
        for setting in settings(self):
            object.__setattr__(self, setting.name, setting.check(getattr(self, setting.name)))
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

    def changed(self, **changes: Any) -> Recipe:
        """A copy with other values; unknown names and wrong values are errors. ``data_options`` are merged."""
        known = [setting.name for setting in settings(self)]
        for name in changes:
            if name not in known:
                raise RecipeError(f"unknown field {name!r}{nearest(name, known)}")
        if isinstance(changes.get("data_options"), Mapping):
            changes["data_options"] = {**self.data_options, **changes["data_options"]}
        return dataclasses.replace(self, **changes)

    def renamed(self, name: str, summary: str) -> Recipe:
        """A copy under another name."""
        return dataclasses.replace(self, name=name, summary=summary)

    def initial(self, name: str, layer: int) -> float:
        """``init_mean`` or ``init_std`` of layer ``layer``; ``len(hidden)`` is the readout."""
        values = getattr(self, name)
        return float(values[-1] if layer == len(self.hidden) else values[min(layer, len(values) - 2)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe of ``to_dict``; unknown names are errors."""
        if not isinstance(plain, Mapping) or "name" not in plain:
            raise RecipeError(f"expected a recipe as written by Recipe.to_dict, got {plain!r:.80}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        name, summary = values.pop("name"), values.pop("summary", "")
        return cls(name=name, summary=summary).changed(**values)


@dataclass(frozen=True)
class Setting:
    """One field of a recipe that can be set, and how its value reads and looks."""

    name: str
    type: Any
    default: Any
    help: str
    unit: str
    bound: str
    choices: tuple[str, ...]

    @property
    def many(self) -> bool:
        """Whether it holds several values."""
        return get_origin(self.type) is tuple

    @property
    def optional(self) -> bool:
        """Whether it may be None."""
        return get_origin(self.type) in (Union, types.UnionType)

    @property
    def element(self) -> Any:
        """bool, int, float, str or dict."""
        if get_origin(self.type) is dict:
            return dict
        return get_args(self.type)[0] if self.many or self.optional else self.type

    @property
    def kind(self) -> str:
        """The type in words, as shown in help and errors."""
        if self.element is dict:
            return "KEY=VALUE"
        word = {bool: "yes|no", int: "INT", float: "FLOAT", str: "NAME"}[self.element]
        return f"{word},..." if self.many else f"{word}|none" if self.optional else word

    @property
    def shown_default(self) -> str:
        """The default as one would type it."""
        return self.text(self.default)

    def text(self, value: Any) -> str:
        """A value as one would type it."""
        if isinstance(value, Mapping):
            return " ".join(f"{key}={json.dumps(item)}" for key, item in value.items()) or "none"
        if isinstance(value, tuple):
            return ",".join(self.text(item) for item in value) or "none"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def check(self, value: Any) -> Any:
        """The value in its type (an int where a float is wanted becomes one), or a RecipeError."""
        if self.optional and value is None:
            return None
        if self.element is dict:
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise self._wrong(value)
            return dict(value)
        if not self.many:
            return self._check_one(value, value)
        if not isinstance(value, tuple | list):
            raise self._wrong(value)
        return tuple(self._check_one(item, value) for item in value)

    def _check_one(self, value: Any, whole: Any) -> Any:
        if self.element is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, self.element) or isinstance(value, bool) != (self.element is bool):
            raise self._wrong(whole)
        if self.choices and value not in self.choices:
            raise RecipeError(f"{self.name}: unknown value {value!r}{nearest(value, self.choices)}")
        number = self.element in (int, float)
        if number and not (math.isfinite(value) and (not self.bound or _BOUNDS[self.bound](value))):
            wanted = f"a number {self.bound}" if self.bound else "a finite number"
            raise RecipeError(f"{self.name}: expected {wanted}{f' ({self.unit})' if self.unit else ''}, got {value:g}")
        return value

    def _wrong(self, value: Any) -> RecipeError:
        unit = f" ({self.unit})" if self.unit else ""
        example = f", such as {_EXAMPLES[self.element]}" if self.many else ""
        return RecipeError(f"{self.name}: expected {self.kind}{unit}{example}, got {value!r}")


def settings(recipe: Recipe | type[Recipe] = Recipe) -> list[Setting]:
    """All fields that can be set, with this recipe's values as defaults."""
    hints = get_type_hints(Recipe)
    fields = [f for f in dataclasses.fields(Recipe) if f.metadata]
    if isinstance(recipe, Recipe):
        defaults = {f.name: getattr(recipe, f.name) for f in fields}
    else:
        defaults = {f.name: {} if f.default is dataclasses.MISSING else f.default for f in fields}
    return [Setting(f.name, hints[f.name], defaults[f.name], **f.metadata) for f in fields]


def parse(setting: Setting, text: str) -> Any:
    """The value that ``text`` stands for: ``20e-3``, ``100,50``, ``none``, ``yes``, ``duration=0.3``.

    Example:
        >>> parse(next(s for s in settings() if s.name == "hidden"), "100,50")
        (100, 50)
    """
    empty = text.strip().lower() in ("none", "")
    if setting.optional and empty:
        return None
    if setting.element is dict:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"{setting.name}: expected KEY=VALUE, such as duration=0.3, got {text!r}")
        try:
            return {key.strip(): json.loads(value)}
        except json.JSONDecodeError:
            return {key.strip(): value}  # a bare word is itself
    if setting.element is bool:
        if text.strip().lower() not in _WORDS:
            raise setting._wrong(text)
        return _WORDS[text.strip().lower()]
    parts = ([] if empty else text.split(",")) if setting.many else [text]
    try:
        values = tuple(setting.element(part.strip()) for part in parts)
    except ValueError:
        raise setting._wrong(text) from None
    return setting.check(values if setting.many else values[0])
