"""Packages that are asked for only by what needs them."""

from __future__ import annotations

import importlib.util

__all__ = ["MissingPackage", "need"]


class MissingPackage(ImportError):
    """A package that is not installed; the message says what needs it and how to get it."""


def need(name: str, what: str, install: str) -> None:
    """Raise ``MissingPackage`` if a package is not there.

    Example:
        >>> need("torch", "eventnet", "pip install torch")
        >>> need("no_such_package", "this example", "pip install it")
        Traceback (most recent call last):
        eventnet.packages.MissingPackage: this example needs the package no_such_package, which is not installed: pip install it
    """
    if importlib.util.find_spec(name) is None:
        raise MissingPackage(f"{what} needs the package {name}, which is not installed: {install}", name=name)
