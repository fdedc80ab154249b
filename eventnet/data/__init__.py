"""Data sets as Events, split into training, validation and test part: ``load(name)``, ``names()``."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from eventnet.data import (
    adding,
    digits,
    ecg,
    fsdd,
    idx,
    lines,
    mackey_glass,
    permuted,
    tactile,
    text,
    tonic_sets,
    ucr,
    xor,
    yinyang,
)
from eventnet.data.dataset import Drop, EventDataset, Splits, collate, stratified_split
from eventnet.data.folders import simplified
from eventnet.data.tonic_reader import TonicDataset
from eventnet.data.tonic_table import NOT_CLASSES, TONIC_SETS

__all__ = ["Drop", "EventDataset", "Splits", "TonicDataset", "collate", "load", "names", "stratified_split"]

_LOADERS: dict[str, Callable[..., Splits]] = {
    "yinyang": yinyang.load,
    "digits": digits.load,
    "mnist": functools.partial(idx.load, "mnist"),
    "fashion_mnist": functools.partial(idx.load, "fashion_mnist"),
    "row_mnist": functools.partial(lines.load, "row_mnist"),
    "pixel_mnist": functools.partial(lines.load, "pixel_mnist"),
    "permuted_mnist": permuted.load,
    "objects": functools.partial(tactile.load, "objects"),
    "containers": functools.partial(tactile.load, "containers"),
    "ecg": ecg.load,
    "fsdd": fsdd.load,
    "fsdd_adding": adding.load,
    "vowels": ucr.load,
    "characters": text.load,
    "mackey_glass": mackey_glass.load,
    "xor": xor.load,
    **{name: functools.partial(tonic_sets.load, name) for name in TONIC_SETS},
}


def names() -> list[str]:
    """The names :func:`load` knows."""
    return list(_LOADERS)


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    **options: Any,
) -> Splits:
    """A data set by name, as training, validation and test part.

    Args:
        name: one of :func:`names`; case, hyphens and underscores do not matter ("N-MNIST").
        root: folder with the files of the set, or with a folder called like it; the environment variable
            ``EVENTNET_DATA`` if not given. "yinyang", "digits", "mackey_glass" and "xor" need none.
        seed: of the division of the training samples into training and validation part; the test part never
            changes.
        validation_fraction: of the training samples; each set has its own default.
        options: of the set; see the ``load`` of its module (``duration`` in seconds for most).

    Raises:
        ValueError: unknown name, damaged files; TypeError: unknown option; FileNotFoundError: missing files.

    Example:
        >>> splits = load("digits", seed=1)
        >>> len(splits.train), len(splits.validation), len(splits.test), splits.num_units
        (1257, 180, 360, 64)
    """
    known = _known(name)
    loader = _LOADERS[known]
    parameters = inspect.signature(loader).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    own = [key for key in parameters if key not in ("name", "root", "arguments")]
    for key in options:
        if key not in own and not takes_any:
            nearest = difflib.get_close_matches(key, own, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise TypeError(f"load({known!r}): unknown option {key!r}{hint} Options: {', '.join(own)}")
    if validation_fraction is not None:
        options["validation_fraction"] = validation_fraction
    return loader(root=root, seed=seed, **options)


def _known(name: str) -> str:
    by_simple_name = {simplified(known): known for known in _LOADERS}
    simple = simplified(str(name))
    if simple in by_simple_name:
        return by_simple_name[simple]
    if simple in NOT_CLASSES:
        raise ValueError(
            f"load: tonic's {name} has {NOT_CLASSES[simple]} instead of a class per recording, so there are "
            "no labels to split by; open it with tonic and pack its arrays with Events.from_structured"
        )
    nearest = difflib.get_close_matches(simple, by_simple_name, 1, cutoff=0.5)
    hint = f" Did you mean {by_simple_name[nearest[0]]!r}?" if nearest else ""
    raise ValueError(f"load: unknown data set {name!r}.{hint} Known: {', '.join(names())}")
