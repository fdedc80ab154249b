"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import eventnet
import eventnet.hardware
import eventnet.kernels
import eventnet.layers

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (eventnet, eventnet.layers, eventnet.kernels)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name in ("events", "initial", "losses", "metrics")
    or module.name.startswith("count")
    or package is not eventnet
]
HARDWARE = [
    module.name
    for module in pkgutil.walk_packages(eventnet.hardware.__path__, "eventnet.hardware.")
    if not module.name.endswith("lava_template")  # which imports Lava
]


def run(name: str) -> doctest.TestResults:
    torch.manual_seed(0)
    public = {name: getattr(eventnet, name) for name in eventnet.__all__}
    return doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch, "nn": torch.nn, **public})


@pytest.mark.parametrize("name", ["eventnet.kernels", *MODULES, *HARDWARE])
def test_examples(name):
    assert run(name).failed == 0


def test_there_are_examples():
    assert len(MODULES) >= 8
    assert all(run(name).attempted for name in ("eventnet.events", "eventnet.layers.lif", "eventnet.layers.readout"))
    assert sum(run(name).attempted > 0 for name in HARDWARE) >= 12
