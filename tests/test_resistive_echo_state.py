"""Echo-state networks, against a plain loop, and forecasts of a series."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from resistive_cases import DT, F64, drawn, echo, on_every_device

from eventnet import data
from eventnet.hardware.resistive.echo_state import EchoState
from eventnet.hardware.resistive.ridge import RidgeReadout


def test_echo_state_is_the_loop():
    network, inputs = echo(), torch.randn(9, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    w, r, bias = network.weight.tolist(), network.recurrent_weight.tolist(), network.bias.tolist()
    state = [[0.0] * 7 for _ in range(2)]
    found = network(inputs)
    for t, row in enumerate(inputs.tolist()):
        for b in range(2):
            total = [
                0.5 * sum(row[b][j] * w[j][n] for j in range(3))
                + sum(state[b][m] * r[m][n] for m in range(7))
                + bias[n]
                for n in range(7)
            ]
            state[b] = [0.7 * x + 0.3 * math.tanh(y) for x, y in zip(state[b], total, strict=True)]
        assert torch.allclose(found[t], torch.tensor(state, dtype=F64), atol=1e-14)
    half = network(inputs[5:], state=network(inputs[:5])[-1])
    assert torch.allclose(half, found[5:], atol=1e-14)
    assert network(inputs[:0]).shape == (0, 2, 7)


def test_echo_state_on_events_is_that_on_their_raster():
    events, network = drawn(), echo(6)
    expected = network(events.to_dense(DT))
    assert torch.allclose(network.on_events(events, DT), expected, atol=1e-13)
    assert torch.allclose(network.on_events(events, DT, [24, 3]), expected[[24, 3]], atol=1e-13)
    assert network.on_events(events, DT, [30]).shape == (1, 4, 7)  # beyond the end: without input
    assert network.on_events(events, DT, []).shape == (0, 4, 7)


def test_biases_are_not_what_the_next_seed_has_as_weights():
    biases = EchoState.random(1, 50, seed=0, bias=1.0, dtype=F64).bias
    weight = EchoState.random(1, 50, seed=1, dtype=F64).weight[0]
    assert biases.std() > 0.5 and not torch.equal(biases, weight)


def test_initial_state_fades():
    network, inputs = echo(radius=0.8), torch.randn(300, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    ends = [network(inputs, state=torch.full((1, 7), x, dtype=F64))[-1] for x in (-1.0, 1.0)]
    assert (ends[0] - ends[1]).abs().max() < 1e-6


def test_errors():
    for changes, said in [
        ({"leak": 0.0}, "leak must be"),
        ({"gain": 0.0}, "gain must be"),
        ({"recurrent_weight": torch.zeros(2, 2)}, r"recurrent_weight \(7, 7\)"),
        ({"bias": torch.zeros(2)}, r"bias \(7,\)"),
        ({"bias": torch.full((7,), math.nan)}, "finite bias"),
        ({"weight": torch.zeros(2)}, "weight"),
    ]:
        with pytest.raises(ValueError, match=said):
            replace(echo(), **changes)
    with pytest.raises(ValueError, match=r"inputs \(T, B, 3\), got \(4, 3\)"):
        echo()(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="got Events; Events go to on_events"):
        echo(6)(drawn())
    with pytest.raises(ValueError, match=r"state \(B, out\) = \(2, 7\), got \(1, 7\)"):
        echo()(torch.zeros(4, 2, 3, dtype=F64), torch.zeros(1, 7, dtype=F64))
    with pytest.raises(ValueError, match="count from 0"):
        echo(6).on_events(drawn(), DT, [-1])
    with pytest.raises(ValueError, match="at least one input"):
        echo().forecast(lambda x: x, torch.zeros(0, 1, 3), 2)


def test_forecast_goes_on_from_its_own_output():
    network, inputs = echo(), torch.randn(6, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    out = torch.randn(7, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    found = network.forecast(lambda x: x @ out, inputs, 4)
    series = inputs
    for value in found:
        assert torch.allclose(value, network(series)[-1] @ out, atol=1e-13)
        series = torch.cat([series, value[None]])


def test_mackey_glass_goes_on_by_itself(report):
    """A Lyapunov time ahead, from its own output; the mean of the series has a normalised error of 1."""
    points = torch.from_numpy(data.mackey_glass.series(826))[:, None, None] - 0.9
    train, test = points[:750], points[750:]
    network = EchoState.random(1, 200, seed=0, radius=1.0, leak=0.6, bias=0.2, gain=0.5, dtype=F64)
    states = network(train[:-1])[50:, 0]
    readout = RidgeReadout(1e-8).fit(states, train[51:, 0])
    found = network.forecast(readout.scores, train, len(test))
    error = ((found - test).square().mean() / test.var(correction=0)).sqrt().item()
    report(f"Mackey-Glass, echo state of 200 units, 75 points from its own output: normalised error {error:.3f}")
    assert error < 0.25


@on_every_device
def test_states_are_the_same_on_any_device(device):
    events, here = drawn(), echo(6)
    moved = {name: getattr(here, name).to(device) for name in ("weight", "recurrent_weight", "bias")}
    found = replace(here, **moved).on_events(events.to(device), DT)
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), here.on_events(events, DT))
