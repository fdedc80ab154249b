"""Ridge readouts, against scikit-learn, refitting and each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from resistive_cases import F64, PENALTIES, SHAPES, close, on_every_device, problem

from eventnet.hardware.resistive.ridge import RidgeReadout, folds_of


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
        (lambda x, y: RidgeReadout().fit(x, y).predict(x[:, 1:]), r"features \(B, 8\) as when it was fitted"),
        (lambda x, y: RidgeReadout().fit(x, y).predict(x * math.nan), "not finite"),
        (lambda x, y: RidgeReadout().fit(x, y).score(x, y[:, None]), "expected class numbers"),
        (lambda x, y: RidgeReadout().fit(x, x[:, 0]).score(x, x[:, :1]), "expected numbers"),
    ],
)
def test_errors(make, said):
    x, labels, _ = problem()
    with pytest.raises(ValueError, match=said):
        make(x, labels)


def test_errors_of_order():
    x, labels, _ = problem()
    for readout in (RidgeReadout(), RidgeReadout(num_classes=3).partial_fit(x[:1], labels[:1])):
        with pytest.raises(RuntimeError, match="fit it first"):
            readout.predict(x)
    with pytest.raises(RuntimeError, match="make another"):
        RidgeReadout(num_classes=3).fit(x, labels).partial_fit(x, labels)


@on_every_device
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_a_readout_is_where_its_features_are(device, how):
    x, labels, _ = problem()
    here, there = (RidgeReadout(PENALTIES, standardize=True, num_classes=3) for _ in range(2))
    scores = getattr(there, how)(x.to(device), labels.to(device)).scores(x.to(device))
    assert scores.device.type == device
    close(scores.cpu(), getattr(here, how)(x, labels).scores(x))
    assert there.chosen == here.chosen and there.score(x.to(device), labels.to(device)) == here.score(x, labels)
