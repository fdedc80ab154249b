"""Products with inputs that are mostly zero: the numbers of dense ones, forward and back, however many are zero."""

from __future__ import annotations

import pytest
import torch
from helpers import compiled_for, needs_compiled, on_every_isa
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from eventnet import EGRU, kernels
from eventnet.kernels.ops_egru import DENSE_INPUT

pytestmark = needs_compiled
SHARES = [0.0, 0.1, 0.3, 0.38, 0.45, 0.7, 1.0]  # on both sides of each break-even


def draw(steps: int, batch: int, inputs: int, hidden: int, share: float, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (steps, batch, inputs), (3 * hidden, inputs), (3 * hidden,)
    x, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    x = x * (torch.rand(x.shape, generator=generator) < share)
    return [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]


def run(given: list[Tensor], backend: str, needed: Tensor | None = None) -> tuple[Tensor, ...]:
    drive = kernels.egru_drive(*given, needed, backend)
    of_drive = torch.randn(drive.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(drive.dtype)
    return drive, *torch.autograd.grad((of_drive * drive).sum(), given)


@on_every_isa
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (1, 1, 1, 1), (4, 3, 40, 33), (0, 3, 4, 5), (3, 0, 4, 5)], ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_products_and_gradients_are_dense_ones(shape, share, isa):
    problem = draw(*shape, share)
    with compiled_for(isa):
        found = run(problem, "cpu")
    for one, other in zip(found, run(problem, "reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@on_every_isa
@pytest.mark.parametrize("share", SHARES)
def test_inputs_that_need_no_gradient_have_none_or_the_right_one(share, isa):
    problem = draw(6, 4, 30, 21, 0.2)
    needed = torch.rand(6, 4, 30, generator=torch.Generator().manual_seed(2)) < share
    with compiled_for(isa):
        found = run(problem, "cpu", needed)
    expected = run(problem, "reference")
    for k in (0, 2, 3):
        torch.testing.assert_close(found[k], expected[k], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found[1][needed], expected[1][needed], rtol=1e-11, atol=1e-11)
    rest = found[1][~needed]
    assert not rest.any() or torch.allclose(rest, expected[1][~needed], rtol=1e-11, atol=1e-11)


@given(st.integers(0, 2**31), st.sampled_from(SHARES), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_size_and_share(seed, share, inputs, hidden):
    problem = draw(3, 2, inputs, hidden, share, seed)
    for one, other in zip(run(problem, "cpu"), run(problem, "reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


OPTIONS = [{}, {"zoneout": 0.3}, {"dropout": 0.4}, {"drop_connect": 0.3}]


@pytest.mark.parametrize("half_width", [0.05, 2.0])
@pytest.mark.parametrize("form", [{"num_layers": 3}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_stacked_layers_have_the_gradients_of_the_reference(half_width, form, packed, options):
    """What is left out of the gradient between two layers is of no use to the lower one."""
    torch.manual_seed(3)
    common = {"half_width": half_width, "dtype": torch.float64, **form, **options}
    layers = [EGRU(4, 30, backend=backend, **common) for backend in ("cpu", "reference")]
    with torch.no_grad():
        for name, parameter in layers[0].named_parameters():
            if name.startswith("weight"):
                parameter.mul_(4)
            elif name.startswith("threshold"):
                parameter.add_(0.15)
    layers[1].load_state_dict(layers[0].state_dict())
    samples = [torch.randn(n, 4, dtype=torch.float64) for n in (9, 14, 3)]
    whole = pack_sequence(samples, enforce_sorted=False) if packed else torch.stack([samples[1]] * 2, 1)
    found = []
    for layer in layers:
        torch.manual_seed(5)  # of what is dropped
        output, state, steps = layer(whole, return_steps=True)
        told = [
            output.data if packed else output,
            state.c,
            state.y,
            *(part for s in steps for part in (s.y, s.v, s.fired)),
        ]
        generator = torch.Generator().manual_seed(4)
        loss = sum((torch.randn(x.shape, generator=generator, dtype=torch.float64) * x).sum() for x in told)
        found.append([*told, *torch.autograd.grad(loss, list(layer.parameters()))])
        assert all((s.y != 0).any() for s in steps)
        if half_width < 1:  # few enough that the others are left out
            assert all(s.needed.double().mean() < DENSE_INPUT for s in steps)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_unit_that_fires_at_zero_needs_its_gradient():
    torch.manual_seed(0)
    layers = [EGRU(3, 6, num_layers=2, half_width=0.05, backend=b, dtype=torch.float64) for b in ("cpu", "reference")]
    with torch.no_grad():
        layers[0].threshold_l0[:3] = -2.0  # without constrain_
    layers[1].load_state_dict(layers[0].state_dict())
    grads = []
    for layer in layers:
        output, _, steps = layer(torch.zeros(4, 2, 3, dtype=torch.float64), return_steps=True)
        grads.append(torch.autograd.grad(output.sum() + steps[1].v.sum(), list(layer.parameters()), allow_unused=True))
    assert any(g.any() for g in grads[1])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("weight_ih_l0", (24, 3), None),
        ("weight_ih_l0", (24, 9), None),
        ("weight_ih_l0", (24, 6), torch.float64),
        ("bias_ih_l0", (8,), None),
        ("bias_ih_l0", (24,), torch.float64),
    ],
)
def test_parameters_that_do_not_fit_are_refused_however_many_inputs_are_zero(name, shape, dtype, share):
    layer, x = EGRU(6, 8), torch.randn(3, 2, 6) * (torch.rand(3, 2, 6) < share)
    with pytest.raises(RuntimeError, match=r"shape|size|dtype|must match"):
        torch.func.functional_call(layer, {name: torch.zeros(shape, dtype=dtype)}, (x,))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_float32(share):
    single = [part.detach().float().requires_grad_() for part in draw(6, 4, 64, 40, share)]
    needed = torch.rand(6, 4, 64, generator=torch.Generator().manual_seed(2)) < 0.2
    found, expected = run(single, "cpu", needed), run(single, "reference")
    for k in (0, 2, 3):
        torch.testing.assert_close(found[k], expected[k], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1][needed], expected[1][needed], rtol=1e-4, atol=1e-4)


def test_what_is_not_a_number_is_not_skipped():
    x, weight, bias = (part.detach() for part in draw(2, 2, 20, 5, 0.1))
    x[1, 0, 3] = torch.nan
    drive = kernels.egru_drive(x, weight, bias, None, "cpu")
    assert drive[1, 0].isnan().all() and drive[0].isfinite().all()


def test_operators_pass_opcheck():
    for share in (0.1, 0.9):
        x, weight, bias = draw(3, 2, 10, 5, share)
        for needed in (None, torch.rand(3, 2, 10) < 0.3):
            torch.library.opcheck(torch.ops.eventnet.egru_drive.default, (x, weight, bias, needed))
    with pytest.raises(RuntimeError, match="no double backward"):
        (grad,) = torch.autograd.grad(
            kernels.egru_drive(x, weight, bias, None, "cpu").square().sum(), x, create_graph=True
        )
        grad.sum().backward()
