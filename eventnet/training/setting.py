"""One field of a recipe: what it is, how its value reads and looks."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin, get_type_hints

from eventnet.training.errors import RecipeError, nearest

__all__ = ["Setting", "described", "fields_of", "parse", "setting"]

BOUNDS = {
    "> 0": lambda x: x > 0,
    ">= 0": lambda x: x >= 0,
    ">= 1": lambda x: x >= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
    "in (0, 1)": lambda x: 0 < x < 1,
    "in (0, 1]": lambda x: 0 < x <= 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
}
WORDS = {"yes": True, "true": True, "no": False, "false": False}
EXAMPLES = {int: "100,50", float: "0.5,0.1", str: "weight,tau_mem"}  # of several values, by their type


def described(help: str, unit: str = "", bound: str = "", choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """The metadata of a field."""
    return {"help": help, "unit": unit, "bound": bound, "choices": choices}


def setting(default: Any, help: str, unit: str = "", bound: str = "", choices: tuple[str, ...] = ()) -> Any:
    """A field of a dataclass, with its metadata."""
    return field(default=default, metadata=described(help, unit, bound, choices))


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
        if isinstance(value, float):
            short = f"{value:g}"
            return short if float(short) == value else repr(value)
        return "none" if value is None else str(value)

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
        if number and not (math.isfinite(value) and (not self.bound or BOUNDS[self.bound](value))):
            wanted = f"a number {self.bound}" if self.bound else "a finite number"
            raise RecipeError(f"{self.name}: expected {wanted}{f' ({self.unit})' if self.unit else ''}, got {value:g}")
        return value

    def _wrong(self, value: Any) -> RecipeError:
        unit = f" ({self.unit})" if self.unit else ""
        example = f", such as {EXAMPLES[self.element]}" if self.many else ""
        return RecipeError(f"{self.name}: expected {self.kind}{unit}{example}, got {value!r}")


def fields_of(record: Any) -> list[Setting]:
    """The fields of a dataclass that can be set; of an object, with its values as defaults."""
    own = record if isinstance(record, type) else type(record)
    hints = get_type_hints(own)
    fields = [f for f in dataclasses.fields(own) if f.metadata]
    if record is own:
        defaults = {f.name: {} if f.default is dataclasses.MISSING else f.default for f in fields}
    else:
        defaults = {f.name: getattr(record, f.name) for f in fields}
    return [Setting(f.name, hints[f.name], defaults[f.name], **f.metadata) for f in fields]


def parse(setting: Setting, text: str) -> Any:
    """The value that ``text`` stands for: ``20e-3``, ``100,50``, ``none``, ``yes``, ``duration=0.3``.

    Example:
        >>> from eventnet.training import SpikingRecipe
        >>> parse(next(s for s in fields_of(SpikingRecipe) if s.name == "hidden"), "100,50")
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
        if text.strip().lower() not in WORDS:
            raise setting._wrong(text)
        return WORDS[text.strip().lower()]
    parts = ([] if empty else text.split(",")) if setting.many else [text]
    try:
        values = tuple(setting.element(part.strip()) for part in parts)
    except ValueError:
        raise setting._wrong(text) from None
    return setting.check(values if setting.many else values[0])
