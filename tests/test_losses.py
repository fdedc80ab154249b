"""Losses on spike times against plain formulas and finite differences, and what they do with silence."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import F64, random_events
from torch import Tensor

from eventnet import LIF, Events, losses

SILENT = math.inf
TIMES = [
    [0.010, 0.012, 0.011],
    [0.004, SILENT, 0.009],
    [0.020, 0.0195, SILENT],
    [0.0301, 0.0303, 0.0302],
    [0.007, 0.008, SILENT],
    [SILENT, SILENT, SILENT],
]
LABELS = torch.tensor([0, 2, 1, 2, 2, 0])


def by_hand(times: list[list[float]], labels: list[int], tau: float, late_weight: float, late_tau: float) -> float:
    """-log softmax(-t / tau)[y] + late_weight (exp(t_y / late_tau) - 1), log N where y is silent; the mean over the batch."""
    total = 0.0
    for row, label in zip(times, labels, strict=True):
        if math.isinf(row[label]):
            total += math.log(len(row))
            continue
        others = sum(math.exp((row[label] - t) / tau) for t in row)
        total += math.log(others) + late_weight * (math.exp(row[label] / late_tau) - 1)
    return total / len(labels)


@pytest.mark.parametrize("given", [{}, {"tau": 2e-3, "late_weight": 0.1, "late_tau": 0.02}], ids=["paper", "other"])
def test_first_spike_cross_entropy_is_the_formula(given):
    options = {"tau": 0.5e-3, "late_weight": 0.003, "late_tau": 6.4e-3} | given
    times = torch.tensor(TIMES, dtype=F64, requires_grad=True)
    loss = losses.first_spike_cross_entropy(times, LABELS, **given)
    assert loss.item() == pytest.approx(by_hand(TIMES, LABELS.tolist(), **options), rel=1e-12)
    loss.backward()
    step = 1e-8
    for b, row in enumerate(TIMES):
        for n, t in enumerate(row):
            if math.isinf(t):
                assert times.grad[b, n] == 0
                continue
            moved = [[list(r) for r in TIMES] for _ in range(2)]
            moved[0][b][n] -= step
            moved[1][b][n] += step
            low, high = (by_hand(m, LABELS.tolist(), **options) for m in moved)
            assert times.grad[b, n].item() == pytest.approx((high - low) / (2 * step), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [2, 1, 1, 1]], ids=str)
def test_silence_gives_no_gradient_and_no_nan(labels):
    """All outputs silent, only the label silent, all others silent, and spikes far apart."""
    times = torch.tensor([[SILENT] * 3, [0.01, SILENT, 0.02], [SILENT, 0.01, SILENT], [1.0, 1e-3, SILENT]], dtype=F64)
    times.requires_grad_()
    loss = losses.first_spike_cross_entropy(times, torch.tensor(labels))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(times.grad).all()
    assert (times.grad[:2] == 0).all() and (times.grad[~torch.isfinite(times)] == 0).all()
    assert times.grad[3, labels[3]] > 0


def test_silence_is_worth_no_more_than_a_guess():
    silent = losses.first_spike_cross_entropy(torch.full((2, 3), SILENT), torch.tensor([0, 2]))
    guess = losses.first_spike_cross_entropy(torch.full((2, 3), 0.01), torch.tensor([0, 2]), late_weight=0.0)
    right = losses.first_spike_cross_entropy(torch.tensor([[0.010, 0.015, 0.015]]), torch.tensor([0]))
    assert silent.item() == pytest.approx(math.log(3))
    assert right < guess <= silent


def test_late_term_can_be_switched_off_for_long_trials():
    times = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = losses.first_spike_cross_entropy(times, torch.tensor([1]), tau=0.5, late_weight=0.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-6)
    assert torch.isfinite(times.grad).all()


def test_earlier_label_spike_is_better():
    early, late = (torch.tensor([[t, 0.010]], dtype=F64) for t in (0.008, 0.012))
    label = torch.tensor([0])
    assert losses.first_spike_cross_entropy(early, label) < losses.first_spike_cross_entropy(late, label)


def test_empty_batch_has_no_loss():
    times = torch.empty(0, 3, dtype=F64, requires_grad=True)
    loss = losses.first_spike_cross_entropy(times, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and times.grad.shape == (0, 3)


@pytest.mark.parametrize(("times", "labels"), [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (2, 1))], ids=str)
def test_shapes_that_do_not_fit_are_refused(times, labels):
    with pytest.raises(ValueError, match=r"expected times \(B, N\) and labels \(B,\), got \("):
        losses.first_spike_cross_entropy(torch.zeros(times), torch.zeros(labels, dtype=torch.int64))


def test_prediction_is_the_earliest_unit_or_none():
    assert losses.predict_first_spike(torch.tensor(TIMES)).tolist() == [0, 0, 1, 0, 0, -1]


def test_loss_trains_a_layer():
    """Gradient steps through a layer make the label's neuron first."""
    events = random_events(torch.Generator().manual_seed(0), [6, 6, 6], 5)
    torch.manual_seed(0)
    layer = LIF(5, 3, dtype=F64)
    torch.nn.init.uniform_(layer.weight, 2.0, 4.0)
    labels = torch.tensor([2, 0, 1])
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        first = layer(events).first_times()
        losses.first_spike_cross_entropy(first, labels).backward()
        optimiser.step()
    assert losses.predict_first_spike(layer(events).first_times()).tolist() == labels.tolist()


# ---- activity ------------------------------------------------------------------------------------------------------

ACTIVE = [([0.01, 0.02, 0.03], [0, 0, 1]), ([0.01, 0.04], [0, 0])]  # counts [2, 1, 0], [2, 0, 0]; means 2, 0.5, 0


def moving(samples: list[tuple[list[float], list[int]]], duration: float = 0.1) -> tuple[Events, Tensor]:
    base = Events.from_list(samples, 3, duration, dtype=F64)
    times = base.times.clone().requires_grad_()
    return Events.trusted(times, base.units, base.offsets, 3, base.duration), times


def test_spike_count_penalty_by_hand():
    events, times = moving(ACTIVE)
    loss = losses.spike_count_penalty(events, 1.0, tau=0.02)
    assert loss.item() == pytest.approx(((2 - 1) ** 2 + (0.5 - 1) ** 2 + (0 - 1) ** 2) / 3)
    loss.backward()
    too_many = -2 * (2 - 1) / 3 / 2 / 0.02  # later is less: descent moves these spikes to later times
    too_few = -2 * (0.5 - 1) / 3 / 2 / 0.02
    assert times.grad.tolist() == pytest.approx([too_many, too_many, too_few, too_many, too_many])


def test_rate_penalty_by_hand():
    events, times = moving(ACTIVE)
    loss = losses.rate_penalty(events, 15.0, tau=0.02)
    assert loss.item() == pytest.approx((20 - 15) ** 2 / 3)
    loss.backward()
    slope = -2 * (20 - 15) / 3 / 2 / 0.02 / 0.1
    assert times.grad.tolist() == pytest.approx([slope, slope, 0, slope, slope])
    assert losses.rate_penalty(events, 25.0) == 0


@pytest.mark.parametrize("penalty", [losses.spike_count_penalty, losses.rate_penalty])
@pytest.mark.parametrize("samples", [[([], []), ([], [])], []], ids=["silent", "no samples"])
def test_penalties_of_silence_are_finite(penalty, samples):
    events, times = moving(samples)
    loss = penalty(events, 2.0)
    loss.backward()
    assert torch.isfinite(loss) and times.grad.shape == (0,)
    assert loss == (4.0 if penalty is losses.spike_count_penalty and samples else 0.0)


def test_lift_silent_adds_to_neurons_silent_in_the_whole_batch():
    weight = torch.zeros(4, 3, requires_grad=True)
    events = Events.from_list(ACTIVE, 3, 0.1)
    assert losses.lift_silent_(weight, events, 0.25) == 1
    assert weight.tolist() == [[0.0, 0.0, 0.25]] * 4
    assert losses.lift_silent_(weight, events[:0], 1.0) == 0
    assert weight.tolist() == [[0.0, 0.0, 0.25]] * 4
    with pytest.raises(ValueError, match=r"weight is \(in, out\) = \(4, 3\) but the events have 2 units"):
        losses.lift_silent_(weight, Events.from_list([], 2, 1.0), 0.1)


def test_lifting_reaches_all_branches_of_a_silent_neuron():
    weight = torch.zeros(3, 2, 2)
    assert losses.lift_silent_(weight, Events.from_list([([0.01], [0])], num_units=2, duration=0.1), 0.5) == 1
    assert torch.equal(weight[..., 1], torch.full((3, 2), 0.5)) and not weight[..., 0].any()


def test_lifting_brings_a_layer_back():
    events = random_events(torch.Generator().manual_seed(0), [8, 8], 5)
    layer = LIF(5, 3, dtype=F64)
    torch.nn.init.constant_(layer.weight, -1.0)
    for _ in range(100):
        if losses.lift_silent_(layer.weight, layer(events), 0.2) == 0:
            break
    assert (layer(events).counts().sum(0) > 0).all()
