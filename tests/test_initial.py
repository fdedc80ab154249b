"""Initialisation that makes neurons fire."""

from __future__ import annotations

import time

import pytest
import torch
from helpers import random_events

from eventnet import LI, LIF, Events, PlateauLIF, initial


def typical(seed: int = 0) -> Events:
    return random_events(torch.Generator().manual_seed(seed), [30] * 12, 20).to(torch.float32)


def share(layer: LIF, events: Events) -> float:
    return (layer(events).counts() > 0).float().mean().item()


def test_normal_draws_from_the_generator():
    weight = torch.empty(200, 200)
    assert initial.normal_(weight, 1.5, 0.78, generator=torch.Generator().manual_seed(0)) is weight
    assert weight.mean().item() == pytest.approx(1.5, abs=0.02) and weight.std().item() == pytest.approx(0.78, abs=0.02)
    again = initial.normal_(torch.empty(200, 200), 1.5, 0.78, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weight, again)
    parameter = LIF(3, 2).weight
    assert initial.normal_(parameter, 0.0, 1.0).requires_grad


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_fire_fraction_reaches_the_fraction_from_any_scale(fraction, scale):
    torch.manual_seed(0)
    layer = LIF(20, 80)
    initial.normal_(layer.weight, 0.5 * scale, scale)
    direction = layer.weight.detach().clone()
    reached = initial.fire_fraction_(layer, typical(), fraction)
    assert reached == pytest.approx(fraction, abs=0.0201)
    assert share(layer, typical()) == pytest.approx(reached)
    ratio = layer.weight.detach() / direction
    assert ratio.std() < 1e-5 * ratio.mean()  # one common factor
    assert layer.weight.requires_grad and layer.weight.grad_fn is None


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_fire_fraction_of_branches(fraction, scale):
    torch.manual_seed(0)
    layer = LIF(20, 40, branches=3, tau_syn=(2e-3, 50e-3), recurrent=True)
    initial.normal_(layer.weight, 0.5 * scale, scale)
    direction, back = layer.weight.detach().clone(), layer.recurrent_weight.detach().clone()
    reached = initial.fire_fraction_(layer, typical(), fraction)
    assert reached == pytest.approx(fraction, abs=0.0201) and torch.equal(layer.recurrent_weight, back)
    ratio = layer.weight.detach() / direction
    assert ratio.std() < 1e-5 * ratio.mean()  # one common factor


def test_fire_fraction_of_one_branch_is_that_of_the_layer_without():
    torch.manual_seed(0)
    plain, branched = LIF(20, 40), LIF(20, 40, branches=1)
    with torch.no_grad():
        branched.weight.copy_(plain.weight[:, None])
    assert initial.fire_fraction_(plain, typical(), 0.3) == initial.fire_fraction_(branched, typical(), 0.3)
    torch.testing.assert_close(
        branched.weight[:, 0], plain.weight, rtol=2e-4, atol=0
    )  # both are just above the quantile


@pytest.mark.parametrize("kind", ["synaptic", "axonal", "dendritic"])
def test_fire_fraction_knows_delays(kind):
    torch.manual_seed(0)
    layer = LIF(20, 40, delay=(0.0, 40e-3), delay_kind=kind, tau_mem=torch.linspace(5e-3, 50e-3, 40))
    delay = layer.delay.detach().clone()
    reached = initial.fire_fraction_(layer, typical(), 0.4)
    assert reached == pytest.approx(0.4, abs=0.0201) and share(layer, typical()) == pytest.approx(reached, abs=0.005)
    assert torch.equal(layer.delay, delay)


@pytest.mark.parametrize("what", ["empty samples", "negative weights"])
@pytest.mark.parametrize("branches", [None, 2])
def test_fire_fraction_that_can_not_be_reached_is_an_error_and_changes_nothing(what, branches):
    """And it is found out soon, without a storm of spikes."""
    events = typical()
    layer = LIF(20, 10, branches=branches)
    if what == "empty samples":
        initial.normal_(layer.weight, 1.0, 0.5)
        silence = Events.from_list([([], [])] * 12, 20, 0.05)
        events = Events.cat([events, silence])
    else:
        torch.nn.init.constant_(layer.weight, -1.0)
    before, start = layer.weight.detach().clone(), time.perf_counter()
    with pytest.raises(
        ValueError, match=r"at most 0\.\d+ of the neurons fire on these events, 0\.8 was asked for; are there"
    ):
        initial.fire_fraction_(layer, events, 0.8)
    assert torch.equal(layer.weight, before)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("layer", [PlateauLIF(20, 2), LI(20, 2)])
def test_fire_fraction_wants_a_lif(layer):
    with pytest.raises(
        TypeError, match=rf"expected a LIF layer, got {type(layer).__name__}; .* diagnosing\(layer\) tells"
    ):
        initial.fire_fraction_(layer, typical())


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_fire_fraction_must_be_a_fraction(fraction):
    with pytest.raises(ValueError, match=f"fraction must be between 0 and 1, got {fraction}"):
        initial.fire_fraction_(LIF(20, 2), typical(), fraction)
