"""The compiled kernels against the reference, and what torch asks of an operator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from helpers import (
    F64,
    KINDS,
    NAMES,
    Case,
    compiled_for,
    drive_at,
    error,
    layer_gradients,
    needs_compiled,
    on_every_isa,
    ranks,
    run_lif,
    table,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import eventnet
from eventnet import LIF, Events, kernels, lif
from eventnet.kernels import cpu

pytestmark = pytest.mark.usefixtures("one_thread")

GRAZING = 0.02  # volts per time constant: below it, float32 can not tell whether and when the threshold is met

CASES = [
    Case("slow membrane"),
    Case("slow membrane", outputs=33, counts=(25, 0, 18), mean=1, std=2, graded=True, late=True),
    Case("slow membrane", outputs=20, counts=(50,), mean=0.5, std=2, duration=0.01),
    Case("slow membrane", outputs=3, counts=(0, 0)),
    Case("equal time constants", outputs=16, mean=0.5, std=1),
    Case("slow synapse", outputs=9, mean=0.3, std=0.6, grid=2e-3),
    Case("per neuron", outputs=17, mean=1, std=2, graded=True, grid=1e-3),
    Case("per neuron", outputs=1, inputs=1, mean=3, std=0.1),
    Case("tonic", outputs=70, mean=0, std=2),
    Case("tonic", outputs=4, mean=-1, std=0.3, late=True),
]
GRID = [
    Case(kind, counts, 6, outputs, *size, graded=graded, late=not graded, grid=grid, duration=duration, seed=seed)
    for (kind, size), (counts, outputs, duration), (graded, grid), seed in product(
        zip(KINDS, [(1, 2), (0.5, 1), (0.3, 0.6), (1, 2), (0, 2)], strict=True),
        [((40, 0, 7), 40, 0.05), ((60,), 13, 0.02), ((3, 5, 1, 0, 8, 2), 8, 0.2)],
        [(False, None), (True, 1e-3)],
        range(2),
    )
]

Gradients = dict[str, dict[str, Tensor]]


@cache
def reference(case: Case) -> tuple[Events, dict[str, Tensor], Gradients]:
    return layer_gradients(*case.draw(), "reference")


def assert_same(case: Case) -> float:
    """Every output and every gradient of the compiled kernel is the reference's; returns the largest error."""
    spikes, outputs, slopes = layer_gradients(*case.draw(), "cpu")
    expected_spikes, expected_outputs, expected_slopes = reference(case)
    assert spikes.units.tolist() == expected_spikes.units.tolist()
    assert spikes.offsets.tolist() == expected_spikes.offsets.tolist()
    finite = torch.isfinite(expected_outputs["times"])
    errors = {"times": error(outputs["times"][finite], expected_outputs["times"][finite])}
    for name, value in outputs.items():
        if name != "times":
            errors[name] = error(value, expected_outputs[name])
        for leaf, slope in slopes[name].items():
            errors[f"{name} / {leaf}"] = error(slope, expected_slopes[name][leaf])
    assert not {name: value for name, value in errors.items() if not value <= 1e-9}
    return max(errors.values())


@on_every_isa
def test_compiled_kernel_is_the_reference(isa, report):
    with compiled_for(isa):
        worst = max(assert_same(case) for case in CASES)
    report(f"kernel vs reference, float64, max relative error {worst:.0e} ({isa}, {len(CASES)} layers)")


@pytest.mark.slow
@on_every_isa
@pytest.mark.parametrize("case", GRID, ids=str)
def test_compiled_kernel_is_the_reference_on_the_grid(case, isa):
    with compiled_for(isa):
        assert_same(case)


# ---- float32 ---------------------------------------------------------------------------------------------------------


def single(case: Case) -> tuple[Events, dict[str, Tensor]]:
    """The case in float32, and no two arrivals or spikes in a different order for it."""
    events, parameters = case.draw()
    return events.to(torch.float32), {name: x.to(torch.float32) for name, x in parameters.items()}


@cache
def reference_of_single(case: Case) -> tuple[Events, Tensor]:
    """Spikes of the float64 reference fed the float32 numbers, and their slopes times tau_mem as a ``table``."""
    events, parameters = single(case)
    events, parameters = events.to(F64), {name: x.to(F64) for name, x in parameters.items()}
    spikes = run_lif(events, parameters, "reference")
    slopes = table(replace_times(spikes, drive_at(spikes, events, parameters)))
    return spikes, slopes


def replace_times(events: Events, times: Tensor) -> Events:
    return Events.trusted(times, events.units, events.offsets, events.num_units, events.duration)


@cache
def masked_reference(case: Case, mask: bytes) -> Gradients: ...
