"""The compiled kernels of gated units against their reference."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers import compiled_for, needs_compiled, on_every_isa
from torch import Tensor

from eventnet import EGRU, kernels
from eventnet.kernels import cpu
from eventnet.kernels.reference_egru import Steps, Unit

pytestmark = needs_compiled
NAMES = ("drive", "weight", "bias", "threshold", "c", "y")
SHAPES = [(1, 1, 1), (9, 3, 7), (12, 2, 16), (5, 4, 37), (3, 0, 4), (4, 4, 300)]  # the last on more than one thread


def draw(steps: int, batch: int, hidden: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    y = numbers(batch, hidden)
    drawn = [
        2 * numbers(steps, batch, 3 * hidden),
        numbers(3 * hidden, hidden) / hidden**0.5,
        0.3 * numbers(3 * hidden),
        numbers(hidden).sigmoid() / 2,
        numbers(batch, hidden),
        torch.where(y > 0.8, y, 0.0),
    ]
    return [x.to(dtype).requires_grad_() for x in drawn]


def run(
    given: list[Tensor], backend: str, triangle: tuple[float, float] = (0.7, 1.0), **options
) -> tuple[Steps, list[Tensor]]:
    drive, weight, bias, threshold, c, y = given
    done = kernels.egru(drive, Unit(weight, bias, threshold, *triangle), c, y, backend, **options)
    generator = torch.Generator().manual_seed(9)
    of_y, of_v = (torch.randn(done.y.shape, generator=generator, dtype=torch.float64).to(drive.dtype) for _ in range(2))
    return done, list(torch.autograd.grad((of_y * done.y + 0.1 * of_v * done.v).sum(), given))


def assert_same(found: tuple[Steps, list[Tensor]], expected: tuple[Steps, list[Tensor]], tolerance: float) -> None:
    assert (found[0].y != 0).equal(expected[0].y != 0)
    for name, a, b in zip(
        ("told", "values", *NAMES), (*found[0], *found[1]), (*expected[0], *expected[1]), strict=True
    ):
        assert a.shape == b.shape
        assert (a - b).norm() <= tolerance * b.norm().clamp(min=1e-9), (
            f"{name}: {((a - b).norm() / b.norm()).item():.1e}"
        )


@on_every_isa
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("triangle", [(0.7, 1.0), (3.6, 0.2), (0.0, 1.0)])
def test_compiled_kernel_is_the_reference(shape, triangle, isa):
    given = draw(*shape)
    with compiled_for(isa):
        assert_same(run(given, "cpu", triangle), run(given, "reference", triangle), 1e-11)


@on_every_isa
@pytest.mark.parametrize("shape", [(7, 17, 40), (3, 16, 5), (1, 20, 33), (5, 33, 300)], ids=str)
@pytest.mark.parametrize("threshold", [-3.0, -0.2, 0.1, 0.6], ids=str)
def test_where_many_are_active_products_are_dense(shape, threshold, isa):
    """From all units active to few; the same numbers where torch exports no dense products."""
    given = draw(*shape)
    with torch.no_grad():
        given[3].fill_(threshold)
    expected = run(given, "reference", (0.7, 0.3))
    with compiled_for(isa):
        module = cpu.load()
        assert_same(run(given, "cpu", (0.7, 0.3)), expected, 1e-11)
        try:
            module.set_blas(0, 0)
            assert_same(run(given, "cpu", (0.7, 0.3)), expected, 1e-11)
        finally:
            module.set_blas(*cpu.blas())
    assert all(cpu.blas())  # or nothing dense was tested


@on_every_isa
def test_units_that_keep_their_state(isa):
    given = draw(9, 3, 21)
    kept = torch.rand(9, 3, 21, generator=torch.Generator().manual_seed(1)) < 0.3
    with compiled_for(isa):
        assert_same(run(given, "cpu", kept=kept), run(given, "reference", kept=kept), 1e-11)
        assert_same(run(given, "cpu", zoneout=0.2), run(given, "reference", zoneout=0.2), 1e-11)


@on_every_isa
def test_float32_differs_in_few_events_and_by_rounding(isa):
    """Rounding moves an event by a step now and then; up to the first of these the numbers are the same."""
    single, double = draw(100, 16, 128, dtype=torch.float32), draw(100, 16, 128)
    with compiled_for(isa):
        found, expected = run(single, "cpu")[0], run(double, "reference")[0]
    told = found.y != 0, expected.y != 0
    assert 0.05 < told[1].double().mean() < 0.6
    assert (told[0] != told[1]).double().mean() < 1e-4
    start = 20
    assert told[0][:start].equal(told[1][:start])
    torch.testing.assert_close(found.v[:start].double(), expected.v[:start], rtol=1e-4, atol=1e-5)
    short = [[x.detach()[:start] if k == 0 else x.detach() for k, x in enumerate(given)] for given in (single, double)]
    with compiled_for(isa):
        assert_same(*(run([x.requires_grad_() for x in g], "cpu") for g in short), 1e-4)


def test_a_state_given_as_a_view_is_read_as_it_is():
    given = draw(5, 3, 9)
    views = [x.detach().clone() for x in given]
    views[4] = views[4].t().contiguous().t()
    views[5] = torch.zeros(1, 9, dtype=torch.float64).expand(3, 9)
    views[0] = views[0].transpose(0, 1).contiguous().transpose(0, 1)
    solid = [x.contiguous().requires_grad_() for x in views]
    assert_same(run([x.requires_grad_() for x in views], "cpu"), run(solid, "reference"), 1e-11)


def test_extreme_drives_saturate():
    given = draw(4, 2, 20, dtype=torch.float32)
    with torch.no_grad():
        given[0].mul_(1e4)
        given[0][0, 0, :3] = torch.tensor([torch.inf, -torch.inf, 0.0])
    found, expected = run(given, "cpu"), run(given, "reference")
    torch.testing.assert_close(found[0].v, expected[0].v, rtol=1e-5, atol=1e-6)
    assert all(torch.isfinite(g).all() for g in found[1])


def test_runs_repeat_bit_for_bit_on_any_number_of_threads():
    given = draw(10, 6, 300, dtype=torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            done, grads = run(given, "cpu")
            results.append([*done, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_that_are_dense_and_sparse_in_turn(dtype):
    """Most units fire, then few, then most; with units that keep their state; on any number of threads."""
    given = draw(12, 20, 300, dtype=dtype)
    with torch.no_grad():
        given[0][:, :, 600:] = torch.tensor([3.0, -3.0]).repeat_interleave(3).repeat(2)[:, None, None].to(dtype)
        given[3].fill_(0.2)
    kept = torch.rand(12, 20, 300, generator=torch.Generator().manual_seed(1)) < 0.1
    expected = run(given, "reference", (0.7, 0.05), kept=kept)
    shares = (expected[0].y != 0).double().mean((1, 2))
    assert shares.max() > 0.5 and shares.min() < 0.2
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = run(given, "cpu", (0.7, 0.05), kept=kept)
            assert_same(found, expected, 1e-11 if dtype == torch.float64 else 1e-4)
    finally:
        torch.set_num_threads(before)


def test_operator_passes_opcheck():
    given = draw(4, 2, 5)
    kept = torch.zeros(4, 2, 5, dtype=torch.bool)
    for keep in (True, False):
        packed = torch.ops.eventnet.egru_pack.default(given[1].detach())
        torch.library.opcheck(
            torch.ops.eventnet.egru.default, (*given, kept if keep else None, 0.7, 1.0, 0.0, packed, True)
        )
    torch.library.opcheck(torch.ops.eventnet.egru_pack.default, (given[1].detach(),))


def test_what_is_not_asked_for_is_not_kept():
    layer, x = EGRU(3, 8), torch.randn(6, 2, 3)
    with torch.no_grad():
        assert not layer(x)[0].requires_grad
    packed = torch.ops.eventnet.egru_pack.default(layer.weight_hh_l0.detach())
    given = [p.detach() for p in (torch.zeros(6, 2, 24), layer.weight_hh_l0, layer.bias_hh_l0, layer.threshold_l0)]
    state = torch.zeros(2, 8)
    for keep in (True, False):
        _, _, gates = torch.ops.eventnet.egru.default(*given, state, state, None, 0.7, 1.0, 0.0, packed, keep)
        assert (gates.numel() > 0) == keep
    frozen = EGRU(3, 8).requires_grad_(False)
    x.requires_grad_()
    output, _ = frozen(x)
    (grad,) = torch.autograd.grad(output.sum(), x)
    assert grad.shape == x.shape
    with pytest.raises(RuntimeError, match="no double backward"):
        (again,) = torch.autograd.grad(frozen(x)[0].square().sum(), x, create_graph=True)
        again.sum().backward()


def test_a_device_without_a_kernel_is_named():
    layer = EGRU(3, 8, device="meta")
    with pytest.raises(ValueError, match="no compiled kernel for tensors on meta"):
        layer(torch.zeros(2, 1, 3, device="meta"))


OUT_OF_MEMORY = """
import resource, torch
from eventnet import kernels
from eventnet.kernels.reference_egru import Unit

torch.set_num_threads(2)
unit = Unit(torch.randn(960, 320), torch.zeros(960), torch.full((320,), -2.0), 0.7, 1.0)
drive, state = torch.randn(2, 4000, 960), torch.zeros(4000, 320)
kernels.egru(drive, unit, state, state, "cpu")  # once, so that everything is loaded
pages = int(open("/proc/self/statm").read().split()[0])
ended = set()
for extra in range(0, 160, 4):
    limit = pages * resource.getpagesize() + (extra << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        kernels.egru(drive, unit, state, state, "cpu")
        ended.add("done")
    except MemoryError:
        ended.add("no memory")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kernels.egru(drive, unit, state, state, "cpu")  # as before
print("no memory" in ended)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and sizes are Linux's")
def test_running_out_of_memory_is_an_error_wherever_it_happens():
    """In the outputs, or in a thread of the team while the others wait for it."""
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
