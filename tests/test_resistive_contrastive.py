"""Contrastive projections: unseen classes, losses by hand, pairs, errors."""

from __future__ import annotations

import math

import pytest
import torch
from resistive_cases import F64, on_every_device

from eventnet.hardware.resistive import contrastive
from eventnet.hardware.resistive.contrastive import Contrastive, Labelled, contrastive_loss, fit_contrastive, zero_shot


def shared(classes, samples, seed, noise=0.4, latent=6):
    """Two kinds of views of one latent point per class; mixing and class points are always the same."""
    fixed = torch.Generator().manual_seed(99)
    points = 2 * torch.randn(30, latent, generator=fixed)
    mixing = [torch.randn(latent, size, generator=fixed) for size in (25, 40)]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for mix in mixing:
        labels = torch.tensor(classes).repeat_interleave(samples)
        labels = labels[torch.randperm(len(labels), generator=generator)]
        z = points[labels] + noise * torch.randn(len(labels), latent, generator=generator)
        x = z @ mix + 0.5 * torch.randn(len(labels), mix.shape[1], generator=generator)
        found.append(Labelled(3 * x + 1, labels))
    return found[0], found[1]


def trained(classes=tuple(range(20)), seed=0, noise=0.4, **options):
    model = Contrastive(25, 40, dim=16, seed=seed)
    first, second = shared(classes, 12, seed=1, noise=noise)
    validation = shared(classes, 4, seed=2, noise=noise)
    history = fit_contrastive(model, first, second, validation, seed=seed, **({"epochs": 40} | options))
    return model, history


def test_unseen_classes_are_recognised():
    model, history = trained()
    unseen = shared(range(20, 30), 20, seed=3)
    found = zero_shot(model, *unseen)
    before = zero_shot(Contrastive(25, 40, dim=16, seed=0), *unseen)
    assert found.chance == 0.1 and (found.first_count, found.second_count) == (200, 200)
    assert min(found.first_to_second, found.second_to_first) > 0.5
    assert max(before.first_to_second, before.second_to_first) < 0.35
    assert history.validation[history.best] == min(history.validation) < history.validation[0]
    own = zero_shot(model, *shared(range(20), 5, seed=4), prototypes=shared(range(20), 12, seed=1))
    assert min(own.first_to_second, own.second_to_first) > 0.9


def test_training_is_reproducible_and_keeps_the_best_epoch():
    (model, history), (again, same) = trained(epochs=8), trained(epochs=8)
    assert history == same
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    # so much noise that it gets worse again: what is kept is what fewer epochs give
    noisy = {"noise": 2.0, "learning_rate": 3e-3, "weight_decay": 0.0}
    late, long = trained(epochs=100, patience=3, **noisy)
    assert len(long.validation) == long.best + 4 < 100
    short, _ = trained(epochs=long.best + 1, **noisy)
    assert all(torch.equal(a, b) for a, b in zip(late.state_dict().values(), short.state_dict().values(), strict=True))


def test_samples_may_be_plain_tuples():
    first = torch.tensor([[1.0, 0.1], [0.2, 1.0]]), torch.tensor([7, 9])
    second = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([7, 9])
    models = [Contrastive(2, 2, dim=2, seed=1) for _ in range(2)]
    one = fit_contrastive(models[0], first, second, (first, second), epochs=3)
    named = Labelled(*first), Labelled(*second)
    assert one == fit_contrastive(models[1], *named, named, epochs=3)
    assert zero_shot(models[0], first, second, prototypes=(first, second)) == zero_shot(models[1], *named)


def test_loss_is_clips_where_every_class_is_there_once():
    similarities = torch.randn(5, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i in range(5):
        expected += -math.log(math.exp(similarities[i, i]) / sum(math.exp(s) for s in similarities[i].tolist()))
        expected += -math.log(math.exp(similarities[i, i]) / sum(math.exp(s) for s in similarities[:, i].tolist()))
    assert contrastive_loss(similarities, torch.arange(5)).item() == pytest.approx(expected / 10, rel=1e-12)


def test_loss_shares_the_target_among_pairs_of_a_class():
    labels = torch.tensor([0, 0, 1])
    right = torch.tensor([[50.0, 50.0, 0.0], [50.0, 50.0, 0.0], [0.0, 0.0, 50.0]])
    lowest = (math.log(2) + math.log(2) + 0) / 3
    assert contrastive_loss(right, labels).item() == pytest.approx(lowest, abs=1e-6)
    similarities = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = 0.0
    for s in (x.log_softmax(1) for x in (similarities.detach(), similarities.detach().T)):
        expected -= float((s[0, 0] + s[0, 1]) / 2 + (s[1, 0] + s[1, 1]) / 2 + s[2, 2]) / 6
    assert contrastive_loss(similarities, labels).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: contrastive_loss(s, labels), similarities)


def test_features_are_standardised_by_the_training_pairs():
    model, _ = trained(epochs=1)
    for name, part in zip(("first", "second"), shared(range(20), 12, seed=1), strict=True):
        assert torch.allclose(getattr(model, f"{name}_shift"), part.features.mean(0), atol=1e-4)
        assert torch.allclose(getattr(model, f"{name}_spread"), part.features.std(0, correction=0), rtol=1e-4)


def test_losses_are_means_over_pairs():
    """Projections of 0: each pair's loss is the logarithm of its batch's size."""
    model = Contrastive(25, 40, dim=16)
    for weight in (model.first_weight, model.second_weight):
        torch.nn.init.zeros_(weight)
    parts = shared(range(20), 4, seed=1)
    history = fit_contrastive(model, *parts, parts, epochs=1, learning_rate=0.0, batch_size=64)
    expected = (64 * math.log(64) + 16 * math.log(16)) / 80
    assert history.training[0] == pytest.approx(expected, rel=1e-5)
    assert history.validation[0] == pytest.approx(expected, rel=1e-5)


def test_partners_have_one_class():
    first, second = shared(range(6), 5, seed=0)
    second = Labelled(second.labels[:, None].float(), second.labels)
    second = Labelled(*(x[second.labels != 4] for x in second))
    x, partners, labels = contrastive._pairs(first, second, torch.Generator().manual_seed(0))
    assert torch.equal(partners[:, 0].long(), labels) and len(x) == 25


def test_zero_shot_by_hand():
    model = Contrastive(2, 2, dim=2)
    with torch.no_grad():
        model.first_weight.copy_(torch.eye(2))
        model.second_weight.copy_(torch.eye(2))
    first = Labelled(torch.tensor([[1.0, 0.1], [0.2, 1.0], [1.0, 0.3]]), torch.tensor([7, 9, 9]))
    second = Labelled(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([7, 9]))
    found = zero_shot(model, first, second)
    assert found == pytest.approx((2 / 3, 1.0, 3, 2, 0.5))


def test_errors():
    model = Contrastive(25, 40, dim=4)
    first, second = shared((0, 1), 3, 0)
    with pytest.raises(ValueError, match=r"classes \[5\] that the training lacks"):
        fit_contrastive(model, first, second, shared((0, 5), 3, 0))
    with pytest.raises(ValueError, match="samples of the same classes"):
        fit_contrastive(model, first, shared((0, 2), 3, 0)[1], shared((0, 1), 3, 0))
    with pytest.raises(ValueError, match="at least one epoch and one validation pair"):
        fit_contrastive(model, first, second, (shared((0,), 3, 0)[0], shared((1,), 3, 0)[1]))
    with pytest.raises(ValueError, match="not finite"):
        fit_contrastive(model, Labelled(first.features * math.nan, first.labels), second, (first, second))
    with pytest.raises(ValueError, match="B targets"):
        fit_contrastive(model, Labelled(first.features, first.labels[1:]), second, (first, second))
    with pytest.raises(ValueError, match="not finite"):
        zero_shot(model, Labelled(first.features * math.nan, first.labels), second)
    for part, kind in ((first.features, "Tensor"), ((first.features,), "tuple")):
        with pytest.raises(TypeError, match=rf"expected a pair of features .*, got {kind}"):
            zero_shot(model, part, second)
    with pytest.raises(ValueError, match=r"classes \[1\] have no prototype"):
        zero_shot(model, first, second, prototypes=(first, shared((0,), 3, 0)[1]))
    with pytest.raises(ValueError, match=r"expected features \(B, 25\)"):
        model.first(second.features)
    with pytest.raises(ValueError, match=r"similarities \(B, B\)"):
        contrastive_loss(torch.zeros(2, 3), torch.arange(2))


@on_every_device
def test_projections_are_trained_where_the_features_are(device):
    def moved(parts):
        return tuple(Labelled(*(each.to(device) for each in part)) for part in parts)

    model = Contrastive(25, 40, dim=16).to(device)
    parts, validation = moved(shared(range(20), 12, seed=1)), moved(shared(range(20), 4, seed=2))
    history = fit_contrastive(model, *parts, validation, epochs=5)
    assert history.validation == pytest.approx(trained(epochs=5)[1].validation, rel=1e-3)
    assert zero_shot(model, *validation).chance == 0.05
