"""Ridge, logistic and contrastive readouts, against scikit-learn, closed forms and each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import F64
from hypothesis import given
from hypothesis import strategies as st

from eventnet.hardware.resistive import contrastive
from eventnet.hardware.resistive.contrastive import (
    Contrastive,
    Labelled,
    contrastive_loss,
    fit_contrastive,
    zero_shot,
)
from eventnet.hardware.resistive.readouts import LogisticReadout, Moments, RidgeReadout, folds_of

PENALTIES = (1e-3, 0.1, 1.0, 10.0, 1e3)
SHAPES = [(60, 8), (12, 30), (25, 25)]  # more samples, more features, as many


def problem(samples=60, features=8, seed=0, classes=3):
    """Features of different sizes and offsets, class numbers, and numbers that depend on the features."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, features, dtype=F64, generator=generator)
    weight = torch.randn(features, classes, dtype=F64, generator=generator)
    noisy = x @ weight + 2 * torch.randn(samples, classes, dtype=F64, generator=generator)
    x = x * torch.logspace(-1, 1, features, dtype=F64) + torch.linspace(-3, 5, features, dtype=F64)
    labels = noisy.argmax(1)
    labels[:classes] = torch.arange(classes)  # each is there
    return x, labels, noisy + 10


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(np.asarray(expected), dtype=F64)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


# ---- ridge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("penalty", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_ridge_is_scikit_learns(shape, penalty, intercept, how):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, _, y = problem(*shape)
    theirs = linear_model.Ridge(alpha=penalty, fit_intercept=intercept).fit(x.numpy(), y.numpy())
    ours = getattr(RidgeReadout(penalty, intercept=intercept), how)(x, y)
    close(ours.weight, theirs.coef_.T)
    close(ours.predict(x), theirs.predict(x.numpy()))
    if intercept:
        close(ours.bias, theirs.intercept_)
    assert ours.score(x, y) == pytest.approx(theirs.score(x.numpy(), y.numpy()), abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_classifier_is_scikit_learns(shape, classes, how):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels, _ = problem(*shape, classes=classes)
    theirs = linear_model.RidgeClassifier(alpha=2.0).fit(x.numpy(), labels.numpy())
    ours = getattr(RidgeReadout(2.0, num_classes=classes), how)(x, labels)
    decision = theirs.decision_function(x.numpy())
    close(ours.scores(x)[:, 1] if classes == 2 else ours.scores(x), decision)
    other = problem(*shape, seed=1, classes=classes)[0]
    assert ours.predict(other).tolist() == theirs.predict(other.numpy()).tolist()
    assert ours.score(x, labels) == theirs.score(x.numpy(), labels.numpy())


@pytest.mark.parametrize("how", ["fit", "partial_fit"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_standardised_ridge_is_scikit_learns(shape, how):
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, _, y = problem(*shape)
    x[:, 3] = 0.1  # constant
    scaler = preprocessing.StandardScaler().fit(x.numpy())
    theirs = linear_model.Ridge(alpha=3.0).fit(scaler.transform(x.numpy()), y.numpy())
    ours = getattr(RidgeReadout(3.0, standardize=True), how)(x, y)
    other = problem(*shape, seed=1)[0]
    other[:, 3] = 0.1
    close(ours.predict(other), theirs.predict(scaler.transform(other.numpy())))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
def test_left_out_errors_are_those_of_refitting(shape, intercept, standardize):
    if standardize and not intercept:
        return
    x, _, y = problem(*shape)
    ours = RidgeReadout(PENALTIES, intercept=intercept, standardize=standardize).fit(x, y)
    if standardize:  # once, with all
        x = (x - x.mean(0)) / x.std(0, correction=0)
    for penalty, found in zip(PENALTIES, ours.errors, strict=True):
        total = 0.0
        for i in range(len(x)):
            rest = torch.arange(len(x)) != i
            refitted = RidgeReadout(penalty, intercept=intercept).fit(x[rest], y[rest])
            total += float(((refitted.predict(x[[i]]) - y[[i]]) ** 2).sum())
        assert found == pytest.approx(total / y.numel(), rel=1e-6)
    assert ours.chosen == PENALTIES[int(np.argmin(ours.errors))]


def test_chosen_penalty_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    for seed in range(5):
        x, labels, y = problem(40, 12, seed)
        theirs = linear_model.RidgeCV(alphas=PENALTIES).fit(x.numpy(), y.numpy())
        ours = RidgeReadout(PENALTIES).fit(x, y)
        assert ours.chosen == theirs.alpha_
        close(ours.weight, theirs.coef_.T)
        theirs = linear_model.RidgeClassifierCV(alphas=PENALTIES).fit(x.numpy(), labels.numpy())
        assert RidgeReadout(PENALTIES).fit(x, labels).chosen == theirs.alpha_


@pytest.mark.parametrize("standardize", [True, False])
def test_fold_errors_are_those_of_refitting(standardize):
    x, _, y = problem(43, 9)
    ours = RidgeReadout(PENALTIES, standardize=standardize, folds=4).partial_fit(x, y)
    assert ours.chosen is None  # nothing is solved before it is asked for
    assert ours.predict(x).shape == y.shape
    fold = folds_of(0, 43, 4)
    for penalty, found in zip(PENALTIES, ours.errors, strict=True):
        total = 0.0
        for k in range(4):
            refitted = RidgeReadout(penalty, standardize=standardize).fit(x[fold != k], y[fold != k])
            total += float(((refitted.predict(x[fold == k]) - y[fold == k]) ** 2).sum())
        assert found == pytest.approx(total / y.numel(), rel=1e-8)
    assert ours.chosen == PENALTIES[int(np.argmin(ours.errors))]
    close(ours.weight, RidgeReadout(ours.chosen, standardize=standardize).fit(x, y).weight, 1e-9)


@given(st.lists(st.integers(0, 50), max_size=6), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_batches_may_be_cut_anywhere(cuts, labelled, standardize, seed):
    x, labels, y = problem(50, 7, seed)
    target = labels if labelled else y
    edges = [0, *sorted(cuts), 50]
    whole = RidgeReadout(PENALTIES, standardize=standardize, num_classes=3).partial_fit(x, target)
    cut = RidgeReadout(PENALTIES, standardize=standardize, num_classes=3)
    for start, stop in itertools.pairwise(edges):
        cut.partial_fit(x[start:stop], target[start:stop])
    close(cut.scores(x), whole.scores(x), 1e-9)
    assert cut.chosen == whole.chosen and cut.errors == pytest.approx(whole.errors, rel=1e-8)
    close(whole.weight, RidgeReadout(whole.chosen, standardize=standardize).fit(x, target).weight, 1e-8)


@pytest.mark.parametrize("period", [2, 3, 5, 10])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_even_over_classes_in_a_regular_order(period, folds):
    fold, label = folds_of(0, 3000, folds), torch.arange(3000) % period
    sizes = torch.bincount(fold * period + label, minlength=folds * period)
    assert (sizes - 3000 / folds / period).abs().max() <= 4
    assert torch.equal(torch.cat([folds_of(0, 7, folds), folds_of(7, 100, folds)]), fold[:107])


def test_prediction_between_batches_changes_nothing():
    x, labels, _ = problem()
    first = RidgeReadout(PENALTIES, num_classes=3).partial_fit(x[:30], labels[:30])
    first.predict(x)
    again = RidgeReadout(PENALTIES, num_classes=3).partial_fit(x, labels)
    close(first.partial_fit(x[30:], labels[30:]).weight, again.weight, 1e-12)


@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_sums_keep_their_digits_far_from_zero(offset, seed):
    x, _, y = problem(30, 5, seed)
    parts = [Moments.of(x[a:b] + offset, y[a:b]) for a, b in ((0, 1), (1, 1), (1, 20), (20, 30))]
    total = parts[0]
    for part in parts[1:]:
        total = total.with_(part)
    centred = x - x.mean(0)
    assert total.count == 30
    assert torch.allclose(total.xx, centred.T @ centred, rtol=1e-7, atol=1e-6)
    assert torch.allclose(total.xy, centred.T @ (y - y.mean(0)), rtol=1e-7, atol=1e-6)
    assert torch.allclose(total.spread(), x.std(0, correction=0), rtol=1e-7)


def test_vectors_and_single_precision():
    x, _, y = problem()
    ours = RidgeReadout(1.0).fit(x.float(), y[:, 0].float())
    assert ours.predict(x).shape == (60,) and ours.weight.dtype == F64
    assert ours.score(x, y[:, 0]) == pytest.approx(RidgeReadout(1.0).fit(x, y[:, :1]).score(x, y[:, :1]), abs=1e-5)
    assert not RidgeReadout(1.0).fit(x.clone().requires_grad_(), y).weight.requires_grad


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x, y: RidgeReadout(0.0), "penalties > 0"),
        (lambda x, y: RidgeReadout(()), "penalties > 0"),
        (lambda x, y: RidgeReadout(standardize=True, intercept=False), "needs the intercept"),
        (lambda x, y: RidgeReadout(folds=1), "2 folds"),
        (lambda x, y: RidgeReadout().fit(x[:-1], y), "B targets"),
        (lambda x, y: RidgeReadout().fit(x * math.nan, y), "not finite"),
        (lambda x, y: RidgeReadout().fit(x, x * math.inf), "finite targets"),
        (lambda x, y: RidgeReadout().fit(x[:1], y[:1]), "at least 2 samples"),
        (lambda x, y: RidgeReadout().fit(x, y - 1), "from 0 to 1, got -1 to 1"),
        (lambda x, y: RidgeReadout(num_classes=2).fit(x, y), "from 0 to 1, got 0 to 2"),
        (lambda x, y: RidgeReadout().partial_fit(x, y), "needs num_classes"),
        (lambda x, y: RidgeReadout(num_classes=3).partial_fit(x, y).partial_fit(x[:, 1:], y), "8 features"),
        (lambda x, y: RidgeReadout(num_classes=3).partial_fit(x, y).partial_fit(x, x), "in another"),
        (lambda x, y: LogisticReadout(-1.0), "penalty >= 0"),
        (lambda x, y: LogisticReadout().fit(x, x), "class numbers"),
    ],
)
def test_errors(make, said):
    x, labels, _ = problem()
    with pytest.raises(ValueError, match=said):
        make(x, labels)


def test_errors_of_order():
    x, labels, _ = problem()
    for readout in (RidgeReadout(), LogisticReadout(), RidgeReadout(num_classes=3).partial_fit(x[:1], labels[:1])):
        with pytest.raises(RuntimeError, match="fit it first"):
            readout.predict(x)
    with pytest.raises(RuntimeError, match="make another"):
        RidgeReadout(num_classes=3).fit(x, labels).partial_fit(x, labels)


# ---- logistic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logistic_is_scikit_learns(shape, penalty, standardize):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels, _ = problem(*shape)
    x = x / x.abs().amax(0)
    scaled = (x - x.mean(0)) / x.std(0, correction=0) if standardize else x
    theirs = linear_model.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(
        scaled.numpy(), labels.numpy()
    )
    ours = LogisticReadout(penalty, standardize=standardize, tolerance=1e-9).fit(x, labels)
    assert ours.converged
    probabilities = ours.scores(x).softmax(1)
    close(probabilities, theirs.predict_proba(scaled.numpy()), 1e-5)
    assert ours.predict(x).tolist() == theirs.predict(scaled.numpy()).tolist()
    assert ours.score(x, labels) == theirs.score(scaled.numpy(), labels.numpy())
    assert torch.equal(
        ours.weight, LogisticReadout(penalty, standardize=standardize, tolerance=1e-9).fit(x, labels).weight
    )


def test_logistic_says_when_it_has_not_converged():
    x, labels, _ = problem()
    assert not LogisticReadout(0.0, iterations=2).fit(x, labels).converged


# ---- contrastive ----------------------------------------------------------------------------------------------------


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


def test_errors_of_contrastive():
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
    with pytest.raises(ValueError, match=r"classes \[1\] have no prototype"):
        zero_shot(model, first, second, prototypes=(first, shared((0,), 3, 0)[1]))
    with pytest.raises(ValueError, match=r"expected features \(B, 25\)"):
        model.first(second.features)
    with pytest.raises(ValueError, match=r"similarities \(B, B\)"):
        contrastive_loss(torch.zeros(2, 3), torch.arange(2))
