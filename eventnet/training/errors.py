"""Errors that a user can do something about; the command line prints their text as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["CheckpointError", "DataError", "RecipeError", "TrainingError", "UserError", "nearest"]


class UserError(Exception):
    """What was expected, what came, what to do."""


class RecipeError(UserError, ValueError):
    """An unknown recipe or field, or a value of the wrong type or out of range."""


class DataError(UserError, ValueError):
    """A data set that is missing, damaged or does not fit the recipe."""


class CheckpointError(UserError, RuntimeError):
    """A run folder or a file in it that cannot be read or written."""


class TrainingError(UserError, RuntimeError):
    """Training that cannot go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the most similar known one, if there is one, and all of
    them.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "; did you mean 'epochs'? Known: epochs, seed"
    """
    known = list(known)
    found = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return (f"; did you mean {found[0]!r}? Known: " if found else "; known: ") + ", ".join(known)
