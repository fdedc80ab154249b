"""Properties of recurrent, delayed layers, on networks that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eventnet import Events, lif

IN, NUM, DURATION = 3, 4, 0.06
Arguments = dict[str, Tensor]
PER_NEURON = ("tau_mem", "tau_syn", "threshold", "reset", "bias")

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def networks(draw: st.DrawFn) -> tuple[Arguments, Events]:
    """Two samples of up to 12 events and a layer that spikes several times, with delays per source or none."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)

    def normal(mean: float, std: float, *shape: int) -> Tensor:
        return mean + std * torch.randn(*shape, dtype=torch.float64, generator=generator)

    layer = {
        "weight": normal(2.0, 2.0, IN, NUM),
        "recurrent_weight": normal(-0.1, 1.0, NUM, NUM),
        "tau_mem": uniform(8e-3, 30e-3, NUM),
        "tau_syn": uniform(3e-3, 20e-3, NUM),
        "threshold": uniform(0.8, 1.2, NUM),
        "reset": uniform(-0.3, 0.2, NUM),
        "bias": uniform(-0.2, 0.2, NUM),
    }
    if draw(st.booleans()):
        layer |= {"delay": uniform(0, 5e-3, IN, 1), "recurrent_delay": uniform(0, 5e-3, NUM, 1)}
    if draw(st.booleans()):
        layer |= {name: layer[name][0] for name in PER_NEURON}
    samples = []
    for _ in range(2):
        count = draw(st.integers(0, 12))
        times = uniform(0, DURATION / 2, count).sort().values
        samples.append((times, torch.randint(IN, (count,), generator=generator)))
    return layer, Events.from_list(samples, IN, DURATION, dtype=torch.float64)


def holds(property_: Callable[..., None]) -> Callable[..., None]:
    """On both backends, with fewer examples on the slow reference."""
    many, few = given(networks())(property_), settings(max_examples=2)(given(networks())(property_))

    @pytest.mark.parametrize("backend", ["cpu", "reference"])
    def test(backend: str) -> None:
        (few if backend == "reference" else many)(backend)

    test.__name__, test.__doc__ = property_.__name__, property_.__doc__
    return test


def run(backend: str, layer: Arguments, events: Events) -> Events:
    return lif(events, backend=backend, **layer)


def assert_same(found: Events, expected: Events, shift: float = 0.0) -> None:
    assert found.units.equal(expected.units) and found.offsets.equal(expected.offsets)
    torch.testing.assert_close(found.times, expected.times + shift, rtol=0, atol=1e-10)


@holds
def test_later_input_gives_the_same_output_later(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    assert_same(run(backend, layer, events.shift(7e-3)), run(backend, layer, events), shift=7e-3)


@holds
def test_order_of_neurons_does_not_matter(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: value[order] if value.shape == (NUM,) else value for name, value in layer.items()}
    moved["weight"], moved["recurrent_weight"] = layer["weight"][:, order], layer["recurrent_weight"][order][:, order]
    if "recurrent_delay" in layer:
        moved["recurrent_delay"] = layer["recurrent_delay"][order]
    found = run(backend, moved, events)
    found = Events.trusted(found.times, order[found.units.long()].int(), found.offsets, NUM, found.duration)
    assert_same(found, run(backend, layer, events))


@holds
def test_samples_do_not_see_each_other(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    assert_same(run(backend, layer, events[[1, 0]]), run(backend, layer, events)[[1, 0]])


@holds
def test_a_neuron_that_nothing_reaches_changes_nothing(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    more = {name: torch.cat([value, value[:1]]) if value.shape == (NUM,) else value for name, value in layer.items()}
    more["weight"] = torch.nn.functional.pad(layer["weight"], (0, 1))
    more["recurrent_weight"] = torch.nn.functional.pad(layer["recurrent_weight"], (0, 1, 0, 1))
    more["recurrent_weight"][NUM] = 5.0
    if "recurrent_delay" in layer:
        more["recurrent_delay"] = torch.nn.functional.pad(layer["recurrent_delay"], (0, 0, 0, 1))
    assert_same(run(backend, more, events), run(backend, layer, events))


@holds
def test_zero_recurrent_weights_are_none(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    zero = layer | {"recurrent_weight": torch.zeros(NUM, NUM, dtype=torch.float64)}
    plain = {name: value for name, value in layer.items() if not name.startswith("recurrent")}
    assert_same(run(backend, zero, events), run(backend, plain, events))


@holds
def test_delay_zero_is_none(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    plain = {name: value for name, value in layer.items() if "delay" not in name}
    zero = plain | {"delay": torch.zeros(IN, 1).double(), "recurrent_delay": torch.zeros(NUM, 1).double()}
    assert_same(run(backend, zero, events), run(backend, plain, events))


@holds
def test_an_event_in_two_halves_is_one(backend: str, drawn: tuple[Arguments, Events]) -> None:
    layer, events = drawn
    ones = torch.ones_like(events.times)
    whole = Events(events.times, events.units, events.offsets, IN, DURATION, ones)
    half = Events(events.times, events.units, events.offsets, IN, DURATION, ones / 2)
    assert_same(run(backend, layer, half.merge(half)), run(backend, layer, whole))
