"""k-winners: who wins, also where values are equal; whose gradient passes; how duty cycles are learnt and what they change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eventnet.layers.winners import KWinners, KWinners2d, k_winners

pytestmark = pytest.mark.usefixtures("one_thread")

VALUES = st.sampled_from([-torch.inf, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, torch.inf])  # few, so that many are equal


def by_sorting(row: list[float], k: int) -> set[int]:
    """The winners, by Python's stable sort."""
    return set(sorted(range(len(row)), key=lambda i: -row[i])[:k])


def chosen(x: Tensor, k: int, dim: int = -1) -> Tensor:
    """Who wins: told apart from losers even where the value is 0."""
    return k_winners(torch.ones_like(x), k, dim, ranked=x) != 0


@given(st.lists(st.lists(VALUES, min_size=7, max_size=7), min_size=1, max_size=4), st.integers(1, 9))
def test_winners_are_those_of_a_stable_sort(rows, k):
    found = chosen(torch.tensor(rows), k)
    assert [set(row.nonzero().flatten().tolist()) for row in found] == [by_sorting(row, k) for row in rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [1, 20, 399])
def test_values_and_number_of_winners(dtype, k):
    x = torch.randn(6, 400, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = k_winners(x, k)
    won = chosen(x, k)
    assert y.dtype == dtype and won.sum(1).eq(k).all()
    assert y.equal(torch.where(won, x, torch.zeros_like(x)))
    for row, who in zip(x, won, strict=True):
        assert row[who].min() >= row[~who].max()


def test_ties_do_not_depend_on_threads():
    x = torch.randint(5, (300, 1000), generator=torch.Generator().manual_seed(0)).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(chosen(x, 77))
    finally:
        torch.set_num_threads(before)
    expected = x.sort(dim=1, descending=True, stable=True).indices[:, :77].sort(1).values
    for won in found:
        assert won.nonzero()[:, 1].view(300, 77).equal(expected)


def test_number_of_winners_may_be_of_numpy_or_of_a_tensor():
    x = torch.randn(3, 10)
    for kind in (np.int64, np.uint8, torch.tensor):
        assert k_winners(x, kind(2)).equal(k_winners(x, 2)) and KWinners(kind(10), 0.2)(x).equal(k_winners(x, 2))


def test_dimension():
    x = torch.randint(4, (3, 8, 5), generator=torch.Generator().manual_seed(1)).float()
    assert chosen(x, 3, 1).equal(chosen(x.transpose(1, 2), 3).transpose(1, 2))


def test_nan_is_not_lost():
    x = torch.tensor([[1.0, 2.0, torch.nan, 3.0], [torch.nan, 1.0, torch.nan, torch.nan], [1.0, 2.0, 3.0, 4.0]])
    y = k_winners(x, 2)
    assert y.isnan().tolist() == [[False, False, True, False], [True, False, True, False], [False] * 4]
    assert y[0, 3] == 3 and y[2].tolist() == [0, 0, 3, 4]


def test_gradient_passes_through_winners_only():
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: k_winners(x, 3), x)
    k_winners(x, 3).sum().backward()
    assert x.grad.equal(chosen(x.detach(), 3).double())


@pytest.mark.parametrize("k", [0, -1, 2.0, 12.5, math.nan])
def test_a_number_of_winners_that_is_none_is_refused(k):
    with pytest.raises(ValueError, match=f"k_winners: k must be a whole number, at least 1, got {k}"):
        k_winners(torch.ones(3), k)


# ---- the layer ------------------------------------------------------------------------------------------------------


def test_layer_without_boost_is_the_function():
    x = torch.randn(5, 40)
    assert KWinners(40, 0.1)(x).equal(k_winners(x, 4))
    assert KWinners(40, 0.1)(x.view(5, 1, 40)).equal(k_winners(x, 4).view(5, 1, 40))


def test_evaluation_has_its_own_share():
    layer, x = KWinners(40, 0.1, eval_share=0.2), torch.randn(5, 40)
    assert (layer(x) != 0).sum(1).eq(4).all()
    assert (layer.eval()(x) != 0).sum(1).eq(8).all()


def test_duty_cycle_is_the_running_share():
    layer = KWinners(3, 1 / 3, duty_cycle_period=10)
    for x, expected in (
        (torch.tensor([[3.0, 1, 2], [1, 5, 2]]), [0.1, 0.1, 0.0]),  # 2 / 10 of (1/2, 1/2, 0)
        (torch.tensor([[3.0, 1, 2]] * 5), [0.55, 0.05, 0.0]),  # 5 / 10 of (1, 0, 0), and half of those before
        (torch.tensor([[-1.0, -1, 0]] * 5), [0.275, 0.025, 0.0]),  # who wins with 0 was not active
        (torch.tensor([[1.0, 2, 3]] * 20), [0.0, 0.0, 1.0]),  # more than a period
    ):
        layer(x)
        torch.testing.assert_close(layer.duty_cycle, torch.tensor(expected))


def test_duty_cycle_is_learnt_in_training_only():
    layer = KWinners(20, 0.2).eval()
    layer(torch.randn(5, 20))
    assert not layer.duty_cycle.any()
    layer.train()(torch.randn(0, 20))
    assert not layer.duty_cycle.any()


def test_boosting_chooses_but_is_not_said():
    layer = KWinners(4, 0.25, boost_strength=2.0)
    layer.duty_cycle.copy_(torch.tensor([0.9, 0.0, 0.5, 0.0]))
    boosted = [v * 2.718281828 ** (2 * (0.25 - d)) for v, d in zip((3, 1, 2.5, 0.9), (0.9, 0, 0.5, 0), strict=True)]
    assert boosted.index(max(boosted)) == 1  # not unit 0, whose value is the largest
    assert layer.eval()(torch.tensor([[3.0, 1, 2.5, 0.9]])).tolist() == [[0, 1, 0, 0]]


def test_strong_boosting_neither_overflows_nor_vanishes():
    x, layer = torch.tensor([[1.0, 2, 4, 0, 3]]), KWinners(5, 0.4, boost_strength=1e4).eval()
    assert layer(x).tolist() == [[0, 0, 4, 0, 3]]  # alike: e^4000
    layer.duty_cycle.copy_(torch.tensor([0.1, 0.3, 0.9, 0.2, 0.1]))
    assert layer(x).tolist() == [[1, 0, 0, 0, 3]]
    layer.duty_cycle.copy_(torch.tensor([0.9, 0.9, 0.9, 0.1, 0.9]))
    assert layer(x - 0.5)[0].nonzero().flatten().tolist() == [2, 4]
    masked = torch.tensor([[1.0, 2, -torch.inf, 0.5, 3]])
    assert layer(masked).tolist() == [[0, 0, 0, 0.5, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_boosting_is_as_fine_for_coarse_values(dtype):
    """Those of a type that holds fewer digits, or none, than the factors differ by."""
    layer = KWinners(4, 0.25, boost_strength=1.0).eval()
    layer.duty_cycle.copy_(torch.tensor([0.2505, 0.2502, 0.25, 0.2503]))
    assert layer(torch.full((1, 4), 3).to(dtype)).tolist() == [[0, 0, 3, 0]]


def test_boosting_evens_out_who_is_active():
    generator = torch.Generator().manual_seed(0)
    head_start = torch.linspace(0, 1, 50)
    shares = {}
    for strength in (0.0, 10.0):
        layer = KWinners(50, 0.1, boost_strength=strength, duty_cycle_period=500)
        for _ in range(200):
            layer(torch.rand(20, 50, generator=generator) + head_start)
        shares[strength] = layer.duty_cycle
    assert shares[0.0].std() > 4 * shares[10.0].std()
    assert shares[10.0].mean() == pytest.approx(0.1, abs=0.01)


def test_state_dict_keeps_duty_cycle():
    layer, other = KWinners(20, 0.2), KWinners(20, 0.2)
    layer(torch.randn(50, 20))
    other.load_state_dict(layer.state_dict())
    assert layer.duty_cycle.any() and other.duty_cycle.equal(layer.duty_cycle)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"share": 0.1, "eval_share": -1}, "share"),
        ({"share": 0.1, "boost_strength": -1.0}, "boost_strength"),
        ({"share": 0.1, "boost_strength": float("nan")}, "boost_strength"),
        ({"share": 0.1, "duty_cycle_period": 0}, "duty_cycle_period"),
        ({"share": 0.1, "duty_cycle_period": float("nan")}, "duty_cycle_period"),
        ({"share": float("nan")}, "share"),
    ],
)
def test_options_are_checked(options, message):
    for kind in (KWinners, KWinners2d):
        with pytest.raises(ValueError, match=message):
            kind(10, **options)


@pytest.mark.parametrize("shape", [(2, 4, 0, 3), (0, 4, 2, 3), (0, 4, 0, 0)])
def test_maps_without_positions_teach_nothing(shape):
    layer = KWinners2d(4, 0.5)
    layer(torch.rand(20, 4, 2, 2))
    before = layer.duty_cycle.clone()
    assert layer(torch.rand(shape)).shape == shape
    assert before.any() and layer.duty_cycle.equal(before)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_duty_cycle_is_learnt_in_half_precision_too(kind):
    """What one sample adds would be lost in rounding."""
    layer, coarse = KWinners(10, 0.2), KWinners(10, 0.2).to(kind)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        x = torch.rand(1, 10, generator=generator).to(kind)
        layer(x.float()), coarse(x)
    assert coarse.duty_cycle.dtype == torch.float32 and coarse.duty_cycle.equal(layer.duty_cycle)
    assert coarse.duty_cycle.data_ptr() == coarse.half().duty_cycle.data_ptr()
    assert KWinners(4, 0.5).double().duty_cycle.dtype == torch.float64
    assert KWinners(4, 0.5, device="meta").to_empty(device="cpu").duty_cycle.device.type == "cpu"


@pytest.mark.parametrize("local", [True, False])
def test_a_batch_of_no_samples(local):
    layer = KWinners2d(4, 0.5, local=local, boost_strength=1.0)
    assert layer(torch.ones(0, 4, 2, 3)).shape == (0, 4, 2, 3) and not layer.duty_cycle.any()
    assert KWinners(4, 0.5, boost_strength=1.0)(torch.ones(0, 4)).shape == (0, 4)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"ranked is \(3,\); expected it of the shape of x, \(2, 3\)"):
        k_winners(torch.ones(2, 3), 1, ranked=torch.ones(3))
    for kind in (KWinners, KWinners2d):
        with pytest.raises(ValueError, match="units must be a whole number, at least 1, got 0"):
            kind(0, 0.5)
        with pytest.raises(ValueError, match=r"units must be a whole number, at least 1, got 10\.0"):
            kind(10.0, 0.5)
    with pytest.raises(ValueError, match=r"\(\.\.\., 10\), got \(3, 9\)"):
        KWinners(10, 0.2)(torch.ones(3, 9))
    with pytest.raises(ValueError, match="no winner"):
        KWinners(10, 0.01)(torch.ones(3, 10))
    with pytest.raises(ValueError, match=r"\(B, 10, H, W\)"):
        KWinners2d(10, 0.2)(torch.ones(3, 10))


# ---- feature maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boost", [0.0, 3.0])
def test_local_winners_are_those_of_each_position(boost):
    maps, rows = KWinners2d(8, 0.25, boost_strength=boost), KWinners(8, 0.25, boost_strength=boost)
    duty = torch.rand(8)
    maps.duty_cycle.copy_(duty)
    rows.duty_cycle.copy_(duty)
    x = torch.randint(4, (2, 8, 3, 5)).float()
    found = maps.eval()(x)
    assert found.equal(rows.eval()(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("boost", [0.0, 3.0])
def test_global_winners_are_those_of_the_sample(boost):
    layer = KWinners2d(8, 0.1, local=False, boost_strength=boost).eval()
    layer.duty_cycle.copy_(torch.rand(8))
    x = torch.rand(2, 8, 3, 5)
    ranked = x * torch.exp(boost * (0.1 - layer.duty_cycle))[:, None, None]
    assert layer(x).equal(k_winners(x.flatten(1), 12, ranked=ranked.flatten(1)).view_as(x))


def test_duty_cycle_of_channels_is_the_mean_over_positions():
    layer = KWinners2d(2, 0.5, duty_cycle_period=1)
    x = torch.zeros(1, 2, 2, 2)
    x[0, 0], x[0, 1, 0, 0] = 1.0, 2.0  # channel 1 wins at one of four positions
    layer(x)
    assert layer.duty_cycle.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("local", [True, False])
def test_gradient_of_feature_maps(local):
    layer = KWinners2d(4, 0.5, local=local, boost_strength=1.0).double().eval()
    layer.duty_cycle.copy_(torch.rand(4))
    assert torch.autograd.gradcheck(layer, torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True))
