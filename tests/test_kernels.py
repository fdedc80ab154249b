"""The compiled kernels against the reference, and what torch asks of an operator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product

import pytest
import torch
from helpers import (
    F64,
    KINDS,
    Case,
    Recorder,
    compiled_for,
    drive_at,
    error,
    layer_gradients,
    needs_compiled,
    on_every_isa,
    run_lif,
    table,
)
from torch import Tensor

from eventnet import Events, kernels
from eventnet.events import replace_unchecked
from eventnet.kernels import cpu

pytestmark = pytest.mark.usefixtures("one_thread")

GRAZING = 0.02  # volts per time constant: below it, float32 cannot tell when, or whether, the threshold is met
CLOSE = 1e-6  # seconds; about what rounding moves such a spike

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
    Case(
        kind,
        counts,
        6,
        outputs,
        *size,
        graded=graded,
        late=not graded,
        grid=grid,
        duration=duration,
        seed=seed,
    )
    for (kind, size), (counts, outputs, duration), (graded, grid), seed in product(
        zip(KINDS, [(1, 2), (0.5, 1), (0.3, 0.6), (1, 2), (0, 2)], strict=True),
        [((40, 0, 7), 40, 0.05), ((60,), 13, 0.02), ((3, 5, 1, 0, 8, 2), 8, 0.2)],
        [(False, None), (True, 1e-3)],
        range(2),
    )
]

Parameters = dict[str, Tensor]
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


# ---- float32 -----------------------------------------------------------------------------------------------


def single(case: Case) -> tuple[Events, Parameters]:
    """The case rounded to float32."""
    events, parameters = case.draw()
    return events.to(torch.float32), {name: x.to(torch.float32) for name, x in parameters.items()}


@cache
def reference_of_single(case: Case) -> tuple[Tensor, int, dict[str, Tensor], Gradients]:
    """The float64 reference fed the float32 numbers.

    Returns which spikes ``(B, N, K)`` are steady, how many are not, the outputs, and the gradients over the steady ones.
    A spike is steady if it and all before it of its neuron cross the threshold with a slope of at least GRAZING, and no
    arrival is so close that float32 could not tell which comes first.
    """
    events, parameters = single(case)
    events, parameters = events.to(F64), {name: x.to(F64) for name, x in parameters.items()}
    spikes = run_lif(events, parameters, "reference")
    gap = (spikes.times[:, None] - events.times[None]).abs()
    gap = gap.masked_fill(spikes.samples[:, None] != events.samples[None], torch.inf)
    sound = drive_at(spikes, events, parameters) >= GRAZING
    sound &= (gap > CLOSE).all(1)
    flags = table(replace_unchecked(spikes, times=sound.to(F64)))
    steady = torch.isfinite(flags) & (flags.cummin(2).values == 1) if flags.numel() else flags.bool()
    _, outputs, slopes = layer_gradients(events, parameters, "reference", steady)
    return steady, spikes.num_events - int(steady.sum()), outputs, slopes


def assert_close_in_single(case: Case) -> tuple[int, int]:
    """float32 is within 1e-4 over the steady spikes; returns how many spikes there are and how many are not steady."""
    steady, unsteady, expected_outputs, expected_slopes = reference_of_single(case)
    spikes = run_lif(*single(case), "cpu")
    settled = steady.all(2) | ~torch.isfinite(expected_outputs["times"]).any(2)
    expected_counts = torch.isfinite(expected_outputs["times"]).sum(2)
    assert (spikes.counts() == expected_counts)[settled].all(), "float32 misses or invents a spike"
    _, outputs, slopes = layer_gradients(*single(case), "cpu", steady)
    found = table(spikes, steady.shape[2])
    errors = {"times": error(found[steady], expected_outputs["times"][steady])}
    for name, value in outputs.items():
        if name != "times":
            errors[name] = error(value, expected_outputs[name])
        for leaf, slope in slopes[name].items():
            errors[f"{name} / {leaf}"] = error(slope, expected_slopes[name][leaf])
    assert not {name: value for name, value in errors.items() if not value <= 1e-4}
    return int(expected_counts.sum()), unsteady


@on_every_isa
def test_float32_is_close_to_the_float64_reference(isa, report):
    with compiled_for(isa):
        spikes, unsteady = (sum(x) for x in zip(*map(assert_close_in_single, CASES), strict=True))
    left_out = f"{unsteady} of {spikes} spikes left out (grazing, or within 1 µs of an arrival)"
    report(f"float32 kernel within 1e-4 of the float64 reference ({isa}); {left_out}")
    assert unsteady <= 0.02 * spikes


@pytest.mark.slow
@on_every_isa
def test_float32_is_close_to_the_float64_reference_on_the_grid(isa, report):
    with compiled_for(isa):
        spikes, unsteady = (sum(x) for x in zip(*map(assert_close_in_single, GRID), strict=True))
    left_out = f"{unsteady} of {spikes} spikes left out (grazing, or within 1 µs of an arrival)"
    report(f"float32 kernel on the grid ({isa}): {left_out}")
    assert unsteady <= 0.02 * spikes


# ---- the same numbers every time ---------------------------------------------------------------------------

WIDE = [
    Case("slow membrane", counts=(40, 25, 0, 33, 18), inputs=20, outputs=700, mean=0.5, std=1.5, graded=True),
    Case("per neuron", counts=(60,), inputs=20, outputs=2000, mean=0.5, std=1.5),
]


def everything(case: Case, backend: str, dtype: torch.dtype = F64) -> list[Tensor]:
    """All that a layer returns, with all gradients, as a flat list."""
    events, parameters = case.draw()
    parameters = {name: x.to(dtype) for name, x in parameters.items()}
    spikes, outputs, slopes = layer_gradients(events.to(dtype), parameters, backend)
    return [
        spikes.times.detach(),
        spikes.units,
        *outputs.values(),
        *(x for part in slopes.values() for x in part.values()),
    ]


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_runs_on_two_threads_repeat_bit_for_bit(case, dtype):
    with threads(2):
        first, *others = (everything(case, "cpu", dtype) for _ in range(4))
    assert all(torch.equal(x, y) for other in others for x, y in zip(first, other, strict=True))


def test_reference_repeats_bit_for_bit():
    first, second = (everything(CASES[0], "reference") for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@needs_compiled
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_number_of_threads_does_not_matter(case):
    results = []
    for number in (1, 2, 3, 5):
        with threads(number):
            results.append(everything(case, "cpu"))
    for other in results[1:]:
        assert all(error(x, y) <= 1e-12 for x, y in zip(other, results[0], strict=True) if torch.isfinite(y).all())


DIGEST = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
from helpers import BACKENDS, ISAS, Case
from test_kernels import CASES, everything
torch.set_num_threads(2)
if sys.argv[2] == "filled":
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
digest = hashlib.sha256()
for backend, cases in (("cpu", CASES if ISAS else []), ("reference", CASES[:1])):
    for case in cases:
        for x in everything(case, backend):
            digest.update(x.contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="poisons memory through glibc's allocator")
def test_results_do_not_depend_on_uninitialised_memory():
    """Memory that nobody wrote is zero, then 1e38 in every float (float64: 1e306), and NaN in torch's own tensors."""

    def digest(mode: str, **environment: str) -> str:
        command = [sys.executable, "-c", DIGEST, os.path.dirname(__file__), mode]
        ran = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    poison = digest("filled", GLIBC_TUNABLES="glibc.malloc.tcache_count=0:glibc.malloc.perturb=128")
    assert poison == digest("plain")


# ---- what torch asks of an operator ------------------------------------------------------------------------


@needs_compiled
@pytest.mark.parametrize("case", [CASES[0], CASES[6]], ids=str)
def test_operators_pass_opcheck(case):
    with Recorder() as recorder:
        layer_gradients(*case.draw(), "cpu")
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("eventnet::")}
    elsewhere = {"eventnet::lif_each", "eventnet::lif_each_backward"}  # see test_recurrent.py
    # see test_egru_kernels.py, test_elm.py, test_branches.py
    own = {name for name in registered - elsewhere if not any(x in name for x in ("egru", "elm_", "branches"))}
    assert {function.name() for function, _, _ in recorder.calls} == own
    for function, args, _ in recorder.calls:
        forward = not function.name().endswith("_backward")
        fresh = [
            x.detach().clone().requires_grad_(forward and x.is_floating_point()) if isinstance(x, Tensor) else x
            for x in args
        ]
        torch.library.opcheck(function, tuple(fresh))


# ---- which backend serves ----------------------------------------------------------------------------------


@needs_compiled
def test_auto_takes_the_compiled_kernel():
    with Recorder() as recorder:
        run_lif(*CASES[0].draw(), "auto")
    assert [function.name() for function, _, _ in recorder.calls] == ["eventnet::lif"]
    assert kernels.choose("auto", torch.device("cpu")) == "cpu"
    assert "compiled" in kernels.available()["cpu"]


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without compiled kernels."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cpu.importlib, "import_module", missing)
    cpu.load.cache_clear()
    kernels._announce_reference.cache_clear()
    yield
    monkeypatch.undo()
    cpu.load.cache_clear()
    kernels._announce_reference.cache_clear()


def test_without_kernels_the_reference_serves_and_says_so_once(no_kernels):
    events, parameters = CASES[0].draw()
    with pytest.warns(RuntimeWarning, match="slow reference backend: not compiled") as caught:
        first = run_lif(events, parameters, "auto")
        run_lif(events, parameters, "auto", return_voltage=True)[1].max()
    assert len(caught) == 1
    assert torch.equal(first.times, run_lif(events, parameters, "reference").times)
    assert "not compiled" in kernels.available()["cpu"]


def test_without_kernels_asking_for_them_is_an_error(no_kernels):
    with pytest.raises(RuntimeError, match=r"backend 'cpu' is not there: not compiled.*backend='reference'"):
        run_lif(*CASES[0].draw(), "cpu")


def test_unknown_backend_is_an_error():
    with pytest.raises(ValueError, match=r"backend must be one of auto, cpu, reference, got 'gpu'"):
        run_lif(*CASES[0].draw(), "gpu")


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_other_devices_are_refused_with_the_backend_that_serves_them(backend):
    with pytest.raises(ValueError, match=r"no compiled kernel for tensors on meta.*backend='reference'"):
        kernels.choose(backend, torch.device("meta"))
    assert kernels.choose("reference", torch.device("meta")) == "reference"


@needs_compiled
def test_build_for_another_processor_is_refused():
    with pytest.raises(RuntimeError, match=r"kernels for 'sse9': this processor has .*baseline"):
        cpu.load("sse9")
