"""Prototypes: means of tasks, the nearest one, and tasks told apart without labels as often as the test says."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from eventnet.layers.prototypes import Prototypes

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = 60


def task(seed: int, samples: int = 4000) -> Tensor:
    """Correlated, skewed inputs with a mean of their own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(12, FEATURES, generator=generator)
    return (torch.randn(samples, 12, generator=generator).exp() @ mixing).relu()


def test_prototype_is_the_mean_and_nearest_is_by_distance():
    prototypes, inputs = Prototypes(FEATURES), [task(seed) for seed in range(3)]
    assert [prototypes.add(x) for x in inputs] == [0, 1, 2]
    torch.testing.assert_close(prototypes.contexts, torch.stack([x.mean(0) for x in inputs]))
    x = torch.cat(inputs)
    assert prototypes.nearest(x).equal(torch.cdist(x, prototypes.contexts).argmin(1))
    assert prototypes(x).equal(prototypes.nearest(x))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 50.0, 1e4])
def test_nearest_is_by_distance_far_from_zero(offset, dtype, autocast):
    """The squares are then much larger than what they differ by: 10 clusters of unit spread, an input between them."""
    generator = torch.Generator().manual_seed(0)
    centres = offset + torch.randn(10, FEATURES, generator=generator)
    prototypes = Prototypes(FEATURES)
    for centre in centres:
        prototypes.add(centre + torch.zeros(5, 1))
    x = (centres.repeat(50, 1) + torch.randn(500, FEATURES, generator=generator)).to(dtype)
    expected = (x[:, None].double() - prototypes.contexts.double()).square().sum(2).argmin(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert prototypes.nearest(x).equal(expected)


def test_inputs_may_be_of_any_floating_point_type():
    x = task(0, 50).half()
    p = []
    for dtype in (torch.float16, torch.float32, torch.float64):
        prototypes = Prototypes(FEATURES)
        prototypes.add(task(0, 100).half().to(dtype))
        assert prototypes.contexts.dtype == torch.float32
        p.append(prototypes.p_values(x.to(dtype)).item())
        assert prototypes.assign(x.to(dtype)) == 0 and prototypes.nearest(x.to(dtype)).eq(0).all()
    assert p == pytest.approx(p[:1] * 3, rel=0.05)


def test_p_values_are_the_same_under_autocast():
    prototypes, x = Prototypes(FEATURES), task(1, 50)
    prototypes.add(task(0))
    expected = prototypes.p_values(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert prototypes.p_values(x).equal(expected)


@pytest.mark.parametrize("scale", [1e-15, 1e15, 1e25])
def test_squares_beyond_float32_do_not_mix_tasks_up(scale):
    prototypes = Prototypes(FEATURES)
    assert [prototypes.assign(scale * task(seed)) for seed in (0, 1, 0, 1)] == [0, 1, 0, 1]
    assert prototypes.nearest(prototypes.contexts).tolist() == [0, 1]


def test_tasks_are_found_without_labels():
    prototypes, found = Prototypes(FEATURES), []
    for seed in (0, 1, 2, 0):  # the first one comes again
        found.append({prototypes.assign(batch) for batch in task(seed).split(100)})
    assert found == [{0}, {1}, {2}, {0}]
    assert prototypes.samples.tolist() == [8000, 4000, 4000]
    torch.testing.assert_close(prototypes.contexts[1], task(1).mean(0))


def test_p_values_are_uniform_for_batches_of_the_task():
    """Within what a sample of 1000 Gaussian batches allows; the approximation is of the tail as well."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, FEATURES, generator=generator) * torch.linspace(0.1, 1, 8)[:, None]
    values = []
    for _ in range(1000):
        prototypes = Prototypes(FEATURES)
        prototypes.add(torch.randn(50, 8, generator=generator) @ mixing)
        values.append(prototypes.p_values(torch.randn(40, 8, generator=generator) @ mixing))
    p = torch.cat(values)
    for share in (0.5, 0.1, 0.02):
        assert (p < share).double().mean().item() == pytest.approx(
            share, abs=0.02 + 3 * (share * (1 - share) / 1000) ** 0.5
        )


def test_a_batch_without_spread_is_of_its_prototype_or_of_none():
    prototypes = Prototypes(FEATURES)
    for value in (0.0, 1.0):
        prototypes.add(torch.full((5, FEATURES), value))
    assert prototypes.p_values(torch.ones(8, FEATURES)).tolist() == [0, 1]
    assert [prototypes.assign(torch.full((8, FEATURES), value)) for value in (1.0, 0.0, 2.0)] == [1, 0, 2]


def test_batches_alike_in_all_directions_are_told_apart():
    for features in (4, 8, 9, 50):  # the estimate of tr(S^2) is 0, or what rounding makes of it
        prototypes, one_hot = Prototypes(features), torch.eye(features)
        assert [prototypes.assign(one_hot + shift) for shift in (0.0, 3.0, 0.0, 3.0)] == [0, 1, 0, 1]
        assert prototypes.p_values(one_hot).isfinite().all()


def test_spread_is_estimated_without_bias():
    """tr(S) and tr(S^2), by fewer samples than features."""
    from eventnet.layers.prototypes import _spread

    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.2, 2, FEATURES).double()
    trace, square = [], []
    for _ in range(500):
        x = torch.randn(20, FEATURES, generator=generator, dtype=torch.float64) * scale
        found = _spread(x - x.mean(0))
        trace.append(found[0])
        square.append(found[1])
    for estimates, true in ((trace, (scale**2).sum()), (square, (scale**4).sum())):
        estimates = torch.stack(estimates)
        assert abs(estimates.mean() - true) < 4 * estimates.std() / 500**0.5


def test_state_dict_keeps_any_number():
    prototypes, other = Prototypes(FEATURES), Prototypes(FEATURES)
    for seed in range(3):
        prototypes.add(task(seed))
    other.load_state_dict(prototypes.state_dict())
    assert len(other) == 3 and other.contexts.equal(prototypes.contexts) and other.samples.equal(prototypes.samples)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Prototypes(FEATURES + 1).load_state_dict(prototypes.state_dict())


def test_what_cannot_be_is_refused():
    prototypes = Prototypes(FEATURES)
    with pytest.raises(ValueError, match="none yet"):
        prototypes.nearest(torch.ones(2, FEATURES))
    with pytest.raises(ValueError, match=rf"\(B, {FEATURES}\)"):
        prototypes.add(torch.ones(2, FEATURES + 1))
    for call in (prototypes.assign, prototypes.p_values):
        with pytest.raises(ValueError, match="at least 4"):
            call(torch.ones(3, FEATURES))
    for significance in (0.0, 1.5, float("nan")):  # with 0 a batch that is of no task would be of the first
        with pytest.raises(ValueError, match=f"significance is {significance}; expected a probability, more than 0"):
            prototypes.assign(torch.ones(4, FEATURES), significance)
    for call in (prototypes.add, prototypes.assign):
        with pytest.raises(ValueError, match=r"mean is too large for torch\.float32"):
            call(torch.full((4, FEATURES), 1e300, dtype=torch.float64))
    assert len(prototypes) == 0
    prototypes.add(torch.ones(5, FEATURES))
    before = copy.deepcopy(prototypes.state_dict())
    for call in (prototypes.add, prototypes.nearest, prototypes.assign, prototypes.p_values):
        with pytest.raises(ValueError, match=rf"\(B, {FEATURES}\)"):
            call(torch.ones(5, FEATURES + 1))
        with pytest.raises(TypeError, match=r"floating-point type, got torch\.int64"):
            call(torch.ones(5, FEATURES, dtype=torch.int64))
        for bad in (torch.nan, torch.inf):
            with pytest.raises(ValueError, match="finite inputs"):
                call(torch.ones(5, FEATURES).index_fill(0, torch.tensor([2]), bad))
    assert all(value.equal(before[name]) for name, value in prototypes.state_dict().items())


def test_sizes():
    assert repr(Prototypes(np.int64(3))) == "Prototypes(3, tasks=0)"
    for features in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"features must be a whole number, at least 1, got {features}"):
            Prototypes(features)
