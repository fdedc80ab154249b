"""Logistic readouts, against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from resistive_cases import SHAPES, close, on_every_device, problem

from eventnet.hardware.resistive.logistic import LogisticReadout


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


def test_errors():
    x, labels, _ = problem()
    with pytest.raises(ValueError, match="penalty >= 0"):
        LogisticReadout(-1.0)
    with pytest.raises(ValueError, match="class numbers"):
        LogisticReadout().fit(x, x)
    with pytest.raises(RuntimeError, match="fit it first"):
        LogisticReadout().predict(x)
    with pytest.raises(ValueError, match="at least one sample"):
        LogisticReadout().fit(x[:0], torch.zeros(0, dtype=torch.int64))
    fitted = LogisticReadout().fit(x, labels)
    with pytest.raises(ValueError, match="as when it was fitted"):
        fitted.predict(x[:, 1:])
    with pytest.raises(ValueError, match="expected class numbers"):
        fitted.score(x, labels[:, None])


@on_every_device
def test_a_readout_is_where_its_features_are(device):
    x, labels, _ = problem()
    scores = LogisticReadout().fit(x.to(device), labels.to(device)).scores(x.to(device))
    assert scores.device.type == device
    close(scores.softmax(1).cpu(), LogisticReadout().fit(x, labels).scores(x).softmax(1), 1e-5)
