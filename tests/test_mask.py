"""Synapses that are not there: as weights of zero, without gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import needs_compiled, on_both_backends
from torch import Tensor
from torch.nn.utils import prune

from eventnet import LIF, Events, diagnose, initial, lif

INPUTS, NEURONS, DURATION = 20, 18, 0.05
KINDS = {
    "plain": {},
    "axonal": {"delay": (INPUTS, 1)},
    "dendritic": {"delay": (1, NEURONS)},
    "synaptic": {"delay": (INPUTS, NEURONS)},
    "recurrent": {"recurrent_weight": (NEURONS, NEURONS), "recurrent_delay": (NEURONS, 1)},
    "recurrent synaptic": {
        "delay": (INPUTS, NEURONS),
        "recurrent_weight": (NEURONS, NEURONS),
        "recurrent_delay": (NEURONS, NEURONS),
    },
}


def network(
    kind: str, density: float, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], dict[str, Tensor], Events]:
    """Weights and delays of a layer that fires, its masks, and its input."""
    generator = torch.Generator().manual_seed(list(KINDS).index(kind))

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    sizes = {"weight": (INPUTS, NEURONS), **KINDS[kind]}
    masks = {"mask": random(INPUTS, NEURONS) < density}
    given = {"weight": (random(INPUTS, NEURONS) - 0.2) * 3 / density**0.5}
    for name, shape in sizes.items():
        if name.endswith("delay"):
            given[name] = random(*shape) * 20e-3
    if "recurrent_weight" in sizes:
        given["recurrent_weight"] = (random(NEURONS, NEURONS) - 0.6) / density**0.5
        masks["recurrent_mask"] = random(NEURONS, NEURONS) < density
    samples = [
        (random(n).mul(DURATION).sort().values.tolist(), torch.randint(INPUTS, (n,), generator=generator).tolist())
        for n in (24, 0, 20)
    ]
    events = Events.from_list(samples, num_units=INPUTS, duration=DURATION, dtype=torch.float64)
    return {name: x.to(dtype) for name, x in given.items()}, masks, events


def run(given: dict[str, Tensor], events: Events, **options) -> tuple[Events, dict[str, Tensor]]:
    """Spikes and all gradients, those of the input times as well."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
    times = events.times.detach().clone().requires_grad_()
    spikes = lif(events.retime(times), **leaves, **options)
    (spikes.times * torch.linspace(-1, 1, spikes.num_events, dtype=spikes.times.dtype)).sum().backward()
    return spikes, {**{name: x.grad for name, x in leaves.items()}, "times": times.grad}


@on_both_backends
@pytest.mark.parametrize("density", [0.1, 0.4, pytest.param(0.9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_synapse_that_is_not_there_is_one_of_weight_zero_without_gradient(kind, density, backend):
    given, masks, events = network(kind, density)
    found, mine = run(given, events, **masks, backend=backend)
    zero = {name: x * masks.get(name.replace("weight", "mask"), torch.ones(())) for name, x in given.items()}
    expected, theirs = run(zero, events, backend=backend)
    assert expected.num_events > 10
    assert found.units.equal(expected.units)
    torch.testing.assert_close(found.times, expected.times, rtol=0, atol=1e-12)
    for name, grad in mine.items():
        mask = masks.get("recurrent_mask" if name.startswith("recurrent") else "mask")
        if mask is None or grad.shape != mask.shape:  # of the input's times, or of a delay that several synapses share
            mask = torch.ones((), dtype=torch.bool)
        assert not grad[~mask.expand(grad.shape)].any(), name
        right = theirs[name] * mask
        assert (grad - right).norm() <= 1e-9 * right.norm().clamp(min=1e-9), name


@needs_compiled
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("density", [0.1, 0.4, pytest.param(0.9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["dendritic", "synaptic", "recurrent synaptic"])
def test_compiled_sparse_rows_are_the_reference(kind, density, shared):
    """Time constants of their own and learnt ones take other ways through the kernels."""
    given, masks, events = network(kind, density)
    taus = {"tau_mem": torch.full((), 12e-3), "tau_syn": torch.full((), 4e-3)}
    if not shared:
        taus = {name: tau * torch.linspace(0.8, 1.3, NEURONS) for name, tau in taus.items()}
    for learnt in (False, True):
        options = {"refractory": 1e-3}
        more = {name: tau.double() for name, tau in taus.items()}
        (given if learnt else options).update(more)
        fast, mine = run(given, events, **masks, **options, backend="cpu")
        slow, theirs = run(given, events, **masks, **options, backend="reference")
        assert slow.num_events > 10
        torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-12)
        for name, grad in theirs.items():
            assert (mine[name] - grad).norm() <= 1e-9 * grad.norm().clamp(min=1e-9), name


@needs_compiled
@pytest.mark.parametrize("kind", ["synaptic", "recurrent synaptic"])
def test_runs_repeat_bit_for_bit_on_any_number_of_threads(kind):
    given, masks, some = network(kind, 0.2, torch.float32)
    events = Events.cat([some[[k % 3]] for k in range(150)])
    assert (events.num_events + 150) * NEURONS > 3e4  # enough for more than one thread
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(run(given, events, **masks, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for spikes, _ in results[1:]:
        assert spikes.times.equal(results[0][0].times)
    assert all(results[1][1][name].equal(grad) for name, grad in results[2][1].items())


@on_both_backends
@pytest.mark.parametrize("kind", ["plain", "synaptic", "recurrent synaptic"])
def test_a_cut_trial_is_the_whole(kind, backend):
    given, masks, events = network(kind, 0.3)
    whole = lif(events, **given, **masks, backend=backend)
    first, state = lif(events.crop(0.0, 0.02), **given, **masks, backend=backend, return_state=True)
    assert kind == "plain" or 0 < state.pending.num_events < events.num_events
    second = lif(events.crop(0.02, DURATION), **given, **masks, backend=backend, state=state)
    both = torch.cat([first.times, second.times + 0.02]).sort().values
    torch.testing.assert_close(both, whole.times.sort().values, rtol=0, atol=1e-9)


@on_both_backends
@pytest.mark.parametrize("kind", ["plain", "synaptic", "recurrent synaptic"])
def test_voltages_do_not_see_what_is_not_there(kind, backend):
    given, masks, events = network(kind, 0.4)
    zero = {name: x * masks.get(name.replace("weight", "mask"), torch.ones(())) for name, x in given.items()}
    grid = torch.linspace(0, DURATION, 9, dtype=torch.float64)
    given["delay"] = given.get("delay", torch.zeros(INPUTS, 1).double()).requires_grad_()
    _, voltage = lif(events, **given, **masks, backend=backend, return_voltage=True)
    _, expected = lif(events, **zero, backend=backend, return_voltage=True)
    torch.testing.assert_close(voltage.at(grid), expected.at(grid), rtol=0, atol=1e-9)
    torch.testing.assert_close(voltage.max(), expected.max(), rtol=0, atol=1e-9)
    torch.testing.assert_close(voltage.integral(0.01), expected.integral(0.01), rtol=0, atol=1e-9)
    voltage.mean().sum().backward()
    assert torch.isfinite(given["delay"].grad).all()


@needs_compiled
@pytest.mark.parametrize("masked", ["mask", "recurrent_mask"])
@pytest.mark.parametrize("batch", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_one_of_both_may_be_sparse(masked, batch):
    given, masks, events = network("recurrent synaptic", 0.2)
    masks = {masked: masks[masked]}
    fast, mine = run(given, events[:batch], **masks, backend="cpu")
    slow, theirs = run(given, events[:batch], **masks, backend="reference")
    assert slow.num_events > 5
    torch.testing.assert_close(fast.times, slow.times, rtol=0, atol=1e-12)
    for name, grad in theirs.items():
        assert (mine[name] - grad).norm() <= 1e-9 * grad.norm().clamp(min=1e-9), name


@on_both_backends
def test_without_any_synapse_nothing_happens(backend):
    given, masks, events = network("recurrent synaptic", 0.5)
    masks = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    given["weight"] = torch.full_like(given["weight"], torch.nan)  # whatever a weight that is not there may be
    leaves = {name: x.requires_grad_() for name, x in given.items()}
    spikes, state = lif(events, **leaves, **masks, backend=backend, return_state=True)
    spikes.times.sum().backward()
    assert spikes.num_events == 0 and not state.voltage.any() and state.pending.num_events == 0
    assert all(x.grad is not None and not x.grad.any() for x in leaves.values())


def test_layer_keeps_its_masks():
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    layer = LIF(6, 4, delay=(0.0, 10e-3), mask=mask, recurrent=True, recurrent_mask=~torch.eye(4, dtype=torch.bool))
    assert "share of mask=" in repr(layer) and "share of recurrent_mask=0.75" in repr(layer)
    assert "mask=?" in repr(copy.deepcopy(layer).to("meta"))
    assert layer.state_dict()["mask"].equal(mask) and layer.state_dict()["mask"] is not mask
    with torch.no_grad():
        layer.weight.fill_(4.0)
    events = Events.from_list([([0.0, 0.001, 0.002], [0, 1, 2])], num_units=6, duration=0.05)
    layer(events).times.sum().backward()
    assert layer.weight.grad[mask].any() and not layer.weight.grad[~mask].any()
    assert diagnose(layer, events).spikes > 0


def test_scale_to_the_input_counts_the_synapses_that_are_there():
    mask = torch.zeros(3, 2, dtype=torch.bool)
    mask[0] = True
    layer = LIF(3, 2, mask=mask)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [50.0, 50.0], [50.0, 50.0]]))
    events = Events.from_list([([0.0, 0.0, 0.0], [0, 1, 2])], num_units=3, duration=0.1)
    assert initial.fire_fraction_(layer, events, 0.99) == 1.0
    assert layer(events).num_events == 2


def test_weights_that_torch_prunes_are_zero():
    torch.manual_seed(0)
    layer = LIF(8, 5)
    mask = torch.rand(8, 5) < 0.5
    with torch.no_grad():
        layer.weight.fill_(5.0)
    events = Events.from_list([([0.001 * k for k in range(8)], list(range(8)))], num_units=8, duration=0.1)
    expected = lif(events, layer.weight.detach() * mask)
    prune.custom_from_mask(layer, "weight", mask)
    found = layer(events)
    assert found.times.detach().equal(expected.times)
    found.times.sum().backward()
    assert layer.weight_orig.grad[mask].any() and not layer.weight_orig.grad[~mask].any()
    with pytest.raises(ValueError, match="pruned or parametrized"):
        initial.fire_fraction_(layer, events, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(3, 2)}, r"mask must be bool \(3, 2\)"),
        ({"mask": torch.ones(2, 3, dtype=torch.bool)}, r"got torch.bool \(2, 3\)"),
        ({"mask": [[True] * 2] * 3}, "mask must be a bool tensor, got list"),
        ({"recurrent_mask": torch.ones(2, 2, dtype=torch.bool)}, "recurrent_mask needs a recurrent_weight"),
        ({"recurrent": True, "recurrent_mask": torch.ones(3, 2, dtype=torch.bool)}, "recurrent_mask must be bool"),
    ],
)
def test_masks_that_do_not_fit_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LIF(3, 2, **options)
