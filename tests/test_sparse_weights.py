"""Sparse weights: as many connections as asked for, and none more whatever the optimiser does."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eventnet.layers.sparse_weights import Masked, fan_in_uniform_, random_mask, sparsify_


class Blind(torch.optim.Optimizer):
    """Moves every entry by noise, whatever its gradient is."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p))


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.1),
    "Adam with decay": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.5, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9),
    "blind": Blind,
}
MODULES = {"linear": lambda: (nn.Linear(30, 12), (5, 30)), "conv": lambda: (nn.Conv2d(6, 12, 3), (5, 6, 4, 4))}


def there(module: nn.Module) -> Tensor:
    return module.parametrizations.weight[0].mask.bool()


def train(module: nn.Module, shape: tuple[int, ...], optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (module(torch.randn(shape)).square().mean() - module.weight.sum()).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimiser_fills_a_weight_in(kind, name):
    module, shape = MODULES[kind]()
    sparsify_(module, 0.3)
    before, mask = module.weight.detach().clone(), there(module)
    train(module, shape, OPTIMIZERS[name](module.parameters()))
    assert not module.weight[~mask].any()
    assert (module.weight != before)[mask].all() and module.weight[mask].all()


def test_momentum_from_before_does_not_either():
    module = nn.Linear(30, 12)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    train(module, (5, 30), optimizer)
    dense = module.weight
    sparsify_(module, 0.3)
    assert module.parametrizations.weight.original is dense  # the optimiser still has it, with its momentum
    train(module, (5, 30), optimizer)
    assert dense[~there(module)].any()  # so this is what the mask is for
    assert not module.weight[~there(module)].any()


def test_masked_entries_have_no_gradient():
    module = sparsify_(nn.Linear(30, 12), 0.3)
    module(torch.randn(5, 30)).sum().backward()
    gradient = module.parametrizations.weight.original.grad
    assert not gradient[~there(module)].any() and gradient[there(module)].all()


def test_gradient():
    mask = random_mask((4, 6), 0.5)
    assert torch.autograd.gradcheck(
        Masked(mask, torch.float64), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    )


@given(st.integers(1, 5), st.integers(1, 30), st.floats(0.02, 1.0))
def test_each_row_has_its_share(rows, fan_in, density):
    if round(density * fan_in) == 0:
        with pytest.raises(ValueError, match="is none"):
            random_mask((rows, fan_in), density)
    else:
        assert random_mask((rows, fan_in), density).sum(1).tolist() == [round(density * fan_in)] * rows


def test_rows_may_be_of_several_dimensions():
    mask = random_mask((3, 4, 10), 0.2, rows=2)
    assert mask.sum(2).eq(2).all()
    assert len({tuple(row.tolist()) for row in mask.flatten(0, 1)}) > 1


def test_connections_are_uniform():
    mask = random_mask((4000, 10), 0.3, generator=torch.Generator().manual_seed(0))
    standard_error = (0.3 * 0.7 / 4000) ** 0.5
    assert (mask.double().mean(0) - 0.3).abs().max() < 4 * standard_error


def test_generator_decides():
    one, again, other = (random_mask((5, 50), 0.5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.equal(again) and not one.equal(other)


def test_remaining_values_stay():
    module = nn.Linear(30, 12)
    weight = module.weight.detach().clone()
    sparsify_(module, 0.3)
    assert module.weight[there(module)].equal(weight[there(module)])


def test_state_dict_round_trip():
    module, other = sparsify_(nn.Linear(30, 12), 0.3), sparsify_(nn.Linear(30, 12), 0.3)
    train(module, (5, 30), OPTIMIZERS["AdamW"](module.parameters()))
    assert not other.weight.equal(module.weight)
    other.load_state_dict(module.state_dict())
    assert other.weight.equal(module.weight) and there(other).equal(there(module))
    train(other, (5, 30), Blind(other.parameters()))
    assert not other.weight[~there(module)].any()


def test_copies_stay_sparse():
    module = sparsify_(nn.Linear(30, 12), 0.3)
    other = copy.deepcopy(module).double()
    assert other.weight.dtype == torch.float64 and there(other).equal(there(module))
    train(module, (5, 30), Blind(module.parameters()))
    assert not other.weight.float().equal(module.weight)


def test_assigned_weights_are_masked():
    module = sparsify_(nn.Linear(30, 12), 0.3)
    module.weight = torch.ones(12, 30)
    assert module.weight.equal(there(module).float())


def test_made_plain_again():
    module = sparsify_(nn.Linear(30, 12), 0.3)
    weight = module.weight.detach().clone()
    parametrize.remove_parametrizations(module, "weight")
    assert isinstance(module.weight, nn.Parameter) and module.weight.equal(weight)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        sparsify_(nn.Linear(30, 12), 0.0)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        sparsify_(nn.Linear(30, 12), 1.1)
    with pytest.raises(ValueError, match="parametrization already"):
        sparsify_(sparsify_(nn.Linear(30, 12), 0.5), 0.5)
    with pytest.raises(ValueError, match="share is 0"):
        fan_in_uniform_(torch.empty(2, 2), 0)
    with pytest.raises(AttributeError):
        sparsify_(nn.ReLU(), 0.5)


def test_initial_scale_keeps_the_variance():
    """Of a sum over few products: 1/3 times the square of the inputs, as of nn.Linear's bound for all of them."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(400, 3000, bias=False)
    fan_in_uniform_(layer.weight, 0.5 * 0.1, generator=generator)
    sparsify_(layer, 0.5, generator=generator)
    x = torch.randn(20, 400, generator=generator) * random_mask((20, 400), 0.1, generator=generator)
    assert layer(x).var().item() == pytest.approx(1 / 3, rel=0.15)
