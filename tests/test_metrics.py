"""Metrics against counts made by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eventnet import Events
from eventnet.metrics import accuracy, firing_rates, silent_share, spikes_per_inference, spikes_per_neuron


@pytest.fixture
def events() -> Events:
    """Sample 0: unit 0 twice, unit 2 once; sample 1: unit 2 once; 0.5 s each."""
    return Events.from_list([([0.1, 0.2, 0.3], [0, 2, 0]), ([0.4], [2])], num_units=4, duration=0.5)


def test_accuracy_per_sample_and_per_step():
    assert accuracy(torch.tensor([1, 2, 0]), torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    labels = torch.tensor([[0, -100], [1, 1]])
    assert accuracy(torch.tensor([[0, 1], [1, 0]]), labels) == pytest.approx(2 / 3)


def test_accuracy_of_nothing_is_nan():
    assert math.isnan(accuracy(torch.tensor([1]), torch.tensor([-100])))


def test_accuracy_names_the_shapes():
    with pytest.raises(ValueError, match=r"\(2,\) and labels \(3,\)"):
        accuracy(torch.zeros(2), torch.zeros(3))


def test_activity(events):
    assert spikes_per_inference(events) == 2.0
    assert spikes_per_inference([events, events]) == 4.0
    assert spikes_per_inference([]) == 0.0
    assert spikes_per_neuron(events) == 0.5
    assert firing_rates(events).tolist() == [2.0, 0.0, 2.0, 0.0]
    assert silent_share(events) == 0.5


def test_layers_of_different_batches_are_an_error(events):
    with pytest.raises(ValueError, match=r"batch sizes \[1, 2\]"):
        spikes_per_inference([events, events.sample(0)])


def test_empty_batch():
    empty = Events.from_list([], num_units=3, duration=[])
    assert (spikes_per_inference(empty), spikes_per_neuron(empty), silent_share(empty)) == (0.0, 0.0, 1.0)
    assert firing_rates(empty).tolist() == [0.0] * 3


@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=5))
def test_rates_add_up_to_the_spikes(samples):
    made = [([0.01 * k for k in range(len(units))], units) for units in samples]
    events = Events.from_list(made, num_units=5, duration=0.25)
    total = float(firing_rates(events).sum()) * 0.25
    assert total == pytest.approx(spikes_per_inference(events))
    assert spikes_per_neuron(events) * 5 == pytest.approx(spikes_per_inference(events))
