"""An EGRU step by step is the EGRU."""

from __future__ import annotations

import pytest
import torch
from helpers import compiled_for, needs_compiled, on_every_isa

from eventnet import EGRU, EGRUState, EGRUStream

pytestmark = needs_compiled
FORMS = [{}, {"num_layers": 3}, {"bias": False}, {"trace_decay": 0.8, "num_layers": 2}, {"zoneout": 0.3}]


def made(inputs: int, hidden: int, dtype: torch.dtype = torch.float64, **form) -> EGRU:
    torch.manual_seed(0)
    layer = EGRU(inputs, hidden, dtype=dtype, **form)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.normal_(std=0.3)
    return layer


@on_every_isa
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("inputs", "hidden", "batch"), [(1, 1, 1), (5, 37, 3), (64, 320, 1)])
def test_steps_are_those_of_the_layer(inputs, hidden, batch, form, isa):
    layer = made(inputs, hidden, **form).eval()
    x = torch.randn(12, batch, inputs, dtype=torch.float64) * (torch.rand(12, batch, inputs) < 0.5)
    expected, last = layer(x)
    with compiled_for(isa):
        stream = EGRUStream(layer, batch)
        told = torch.stack([stream(step) for step in x])
    torch.testing.assert_close(told, expected)
    for a, b in zip(stream.state, last, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-12)


def test_float32_on_any_number_of_threads():
    layer = made(16, 400, torch.float32)
    x = torch.randn(20, 2, 16)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            stream = EGRUStream(layer, 2)
            results.append(torch.stack([stream(step) for step in x]))
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])
    torch.testing.assert_close(results[0][:10], layer(x)[0][:10], rtol=1e-4, atol=1e-5)


def test_it_goes_on_where_the_layer_stopped_and_back():
    layer = made(5, 20, num_layers=2, trace_decay=0.9)
    x = torch.randn(9, 3, 5, dtype=torch.float64)
    expected, last = layer(x)
    _, state = layer(x[:4])
    stream = EGRUStream(layer, 3, state)
    before = stream.state
    told = [stream(step) for step in x[4:7]]
    torch.testing.assert_close(torch.stack(told), expected[4:7])
    assert before.c.equal(state.c)  # a copy: steps do not change what was given or taken
    rest, end = layer(x[7:], stream.state)
    torch.testing.assert_close(rest, expected[7:])
    torch.testing.assert_close(end.c, last.c)
    assert not told[0].requires_grad and told[0].data_ptr() != told[1].data_ptr()


def test_weights_are_those_at_its_making():
    layer = made(5, 20)
    x = torch.randn(6, 1, 5, dtype=torch.float64)
    expected, _ = layer(x)
    stream = EGRUStream(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    torch.testing.assert_close(torch.stack([stream(step) for step in x]), expected)


def test_what_is_not_a_number_stays_one():
    stream = EGRUStream(made(5, 20))
    assert torch.isnan(stream(torch.full((1, 5), torch.nan, dtype=torch.float64))).all()


def test_what_cannot_be_streamed_is_said():
    with pytest.raises(ValueError, match="needs the whole sequence"):
        EGRUStream(EGRU(3, 4, bidirectional=True))
    with pytest.raises(ValueError, match="needs the compiled kernels"):
        EGRUStream(EGRU(3, 4, backend="reference"))
    with pytest.raises(RuntimeError, match=r"expected state.c of shape \(1, 2, 4\), got \(1, 1, 4\)"):
        EGRUStream(EGRU(3, 4), 2, EGRUState(torch.zeros(1, 1, 4), torch.zeros(1, 2, 4)))
    stream = EGRUStream(EGRU(3, 4), 2)
    with pytest.raises(RuntimeError, match=r"expected x \(2, 3\) of torch.float32, got \(3,\)"):
        stream(torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"got \(2, 3\) of torch.float64"):
        stream(torch.zeros(2, 3, dtype=torch.float64))


def test_what_is_no_layer_state_or_step_is_refused():
    layer = EGRU(3, 4)
    with pytest.raises(TypeError, match="expected an EGRU, got GRU"):
        EGRUStream(torch.nn.GRU(3, 4))
    with pytest.raises(TypeError, match=r"expected a state EGRUState\(c, y\), got Tensor"):
        EGRUStream(layer, state=torch.zeros(1, 1, 4))
    with pytest.raises(TypeError, match="expected the tensor of a step, got list"):
        EGRUStream(layer)([[0.0, 0.0, 0.0]])
