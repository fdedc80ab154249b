"""Active dendrites: the formula, its gradients, one context or many, segments computed once for each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eventnet.layers.dendrites import ActiveDendrites, ActiveDendrites2d, Segments

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("one_thread")


def plain_gate(weight: Tensor, context: Tensor, choice: str) -> Tensor:
    """``(units,)`` of one context: unit by unit, as the formula says."""
    gates = []
    for unit in weight:
        d = [(u * context).sum() for u in unit]
        size = [abs(x.item()) if choice == "absolute_max" else x.item() for x in d]
        gates.append(1 / (1 + torch.exp(-d[size.index(max(size))])))
    return torch.stack(gates)


def layer_of(kind: str, segments: int = 3, **options) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if kind == "linear":
        return ActiveDendrites(7, 5, segments, 6, dtype=F64, **options), torch.randn(4, 7, dtype=F64)
    return ActiveDendrites2d(3, 5, 2, segments, 6, dtype=F64, **options), torch.randn(4, 3, 4, 4, dtype=F64)


def base(layer: nn.Module) -> nn.Module:
    return layer.linear if isinstance(layer, ActiveDendrites) else layer.conv


KINDS = pytest.mark.parametrize("kind", ["linear", "conv"])
CHOICES = pytest.mark.parametrize("choice", ["absolute_max", "max"])


@KINDS
@CHOICES
@pytest.mark.parametrize("segments", [1, 3])
def test_formula_and_its_gradients(kind, choice, segments):
    layer, x = layer_of(kind, segments, choice=choice)
    contexts = torch.randn(4, 6, dtype=F64, requires_grad=True)
    x.requires_grad_()
    gates = torch.stack([plain_gate(layer.segments.weight, context, choice) for context in contexts])
    y = base(layer)(x)
    expected = y * gates.view(gates.shape + (1,) * (y.dim() - 2))
    found = layer(x, contexts)
    torch.testing.assert_close(found, expected)
    of = [x, contexts, *layer.parameters()]
    towards = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, of, towards), torch.autograd.grad(expected, of, towards), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@KINDS
@CHOICES
def test_gradcheck(kind, choice):
    layer, x = layer_of(kind, choice=choice)
    contexts, index = torch.randn(2, 6, dtype=F64, requires_grad=True), torch.tensor([0, 1, 1, 0])
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, contexts: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, (contexts, index)))

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), contexts, *layer.parameters()))


@KINDS
def test_ways_to_pass_contexts(kind):
    layer, x = layer_of(kind)
    contexts, index = torch.randn(2, 6, dtype=F64), torch.tensor([0, 1, 1, 0])
    by_row = layer(x, contexts[index])
    torch.testing.assert_close(layer(x, (contexts, index)), by_row)
    torch.testing.assert_close(layer(x, contexts[0])[[0, 3]], by_row[[0, 3]])
    ways = [contexts[0].expand(4, 6), contexts[0], (contexts, torch.zeros(4, dtype=torch.int64))]
    gradients = []
    for context in ways:
        layer.zero_grad()
        layer(x, context).sum().backward()
        gradients.append([p.grad for p in layer.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


@KINDS
def test_a_batch_of_no_rows(kind):
    layer, x = layer_of(kind)
    none = torch.empty(0, dtype=torch.int64)
    for contexts in (torch.ones(6, dtype=F64), torch.ones(0, 6, dtype=F64), (torch.ones(2, 6, dtype=F64), none)):
        layer.zero_grad()
        found = layer(x[:0], contexts)
        assert found.shape == (0, *layer(x, torch.ones(6, dtype=F64)).shape[1:])
        found.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def test_context_of_a_row_is_that_of_all_its_steps():
    layer, _ = layer_of("linear")
    x, contexts = torch.randn(4, 4, 7, dtype=F64), torch.randn(4, 6, dtype=F64)  # as many steps as rows
    steps = torch.stack([layer(x[:, t], contexts) for t in range(4)], 1)
    torch.testing.assert_close(layer(x, contexts), steps)


def test_shapes_are_checked():
    (linear, _), (conv, _) = layer_of("linear"), layer_of("conv")
    with pytest.raises(ValueError, match=r"\(B, \.\.\., in\), got \(7,\)"):
        linear(torch.ones(7, dtype=F64), torch.ones(6, dtype=F64))
    with pytest.raises(ValueError, match=r"\(B, in, H, W\), got \(3, 4, 4\)"):
        conv(torch.ones(3, 4, 4, dtype=F64), torch.ones(6, dtype=F64))


def test_segments_are_computed_once_for_each_context(monkeypatch):
    layer, x = layer_of("linear")
    rows = []
    activation = Segments.activation
    monkeypatch.setattr(Segments, "activation", lambda self, c: rows.append(c.shape) or activation(self, c))
    layer(x, (torch.randn(2, 6, dtype=F64), torch.tensor([0, 1, 1, 0])))
    assert rows == [(2, 6)]


def test_gradient_goes_to_winning_segments_only():
    segments, context = Segments(5, 4, 6, dtype=F64), torch.randn(6, dtype=F64)
    segments(context).sum().backward()
    touched = segments.weight.grad.abs().sum(2) > 0
    expected = (segments.weight @ context).abs().argmax(1)
    assert touched.equal(nn.functional.one_hot(expected, 4).bool())


def test_choices_differ_where_the_largest_is_negative():
    weight = torch.tensor([[[-3.0], [1.0]]])
    for choice, activation in (("absolute_max", -3.0), ("max", 1.0)):
        segments = Segments(1, 2, 1, choice=choice)
        segments.weight.data.copy_(weight)
        assert segments.activation(torch.ones(1)).item() == activation
        assert segments(torch.ones(1)).item() == pytest.approx(torch.tensor(activation).sigmoid().item())


@KINDS
def test_without_segments_it_is_the_layer_alone(kind):
    layer, x = layer_of(kind, 0)
    assert layer.segments is None and layer(x).equal(base(layer)(x))
    with pytest.raises(ValueError, match="takes no context"):
        layer(x, torch.ones(6, dtype=F64))


@KINDS
def test_sparse_weights_and_segments(kind):
    layer, x = layer_of(kind, density=0.5, segment_density=1 / 3)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x, torch.randn(4, 6, dtype=F64)).square().sum().backward()
        optimizer.step()
    fan_in = base(layer).weight[0].numel()
    assert (base(layer).weight != 0).flatten(1).sum(1).eq(round(fan_in / 2)).all()
    assert (layer.segments.weight != 0).sum(2).eq(2).all()
    other, _ = layer_of(kind, density=0.5, segment_density=1 / 3)
    other.load_state_dict(layer.state_dict())
    assert other(x, torch.ones(6, dtype=F64)).equal(layer(x, torch.ones(6, dtype=F64)))


def test_initial_scales():
    layer = ActiveDendrites(100, 400, 3, 50, density=0.5, input_share=0.05, context_share=0.1)
    for weight, share in ((layer.linear.weight, 0.5 * 0.05 * 100), (layer.segments.weight, 0.1 * 50)):
        bound = share**-0.5
        assert weight.abs().max() <= bound
        assert weight[weight != 0].std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@KINDS
@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "needs a context"),
        (torch.ones(3, 6, dtype=F64), "each of 4 rows, got 3"),
        (torch.ones(4, 5, dtype=F64), r"\(N, 6\)"),
        (torch.ones(1, 4, 6, dtype=F64), r"\(N, 6\)"),
        ((torch.ones(6, dtype=F64), torch.zeros(4, dtype=torch.int64)), r"index \(4,\)"),
        ((torch.ones(2, 6, dtype=F64), torch.zeros(3, dtype=torch.int64)), r"index \(4,\)"),
        ((torch.ones(0, 6, dtype=F64), torch.zeros(4, dtype=torch.int64)), r"contexts \(N, C\), one or more,"),
        ((torch.ones(2, 6, dtype=F64), torch.zeros(4)), r"index \(4,\) of integers, got .* torch.float32"),
        ((torch.ones(2, 6, dtype=F64), torch.zeros(4, dtype=torch.bool)), r"of integers, got .* torch.bool"),
    ],
)
def test_contexts_are_checked(kind, context, message):
    layer, x = layer_of(kind)
    with pytest.raises(ValueError, match=message):
        layer(x, context)


@KINDS
@pytest.mark.parametrize(
    ("context", "message"),
    [
        ([1.0] * 6, r"expected a context: \(C,\), .*tensors, C = 6, got list of float, float, float"),
        (np.ones(6), "got ndarray"),
        ((torch.ones(2, 6, dtype=F64), [0, 1, 1, 0]), "got tuple of Tensor, list"),
        ((torch.ones(2, 6, dtype=F64), torch.zeros(4, dtype=torch.int64), 3), "got tuple of Tensor, Tensor, int"),
        (torch.ones(6), r"contexts are torch\.float32 on cpu, weights are torch\.float64 on cpu"),
        (torch.ones(4, 6, dtype=torch.int64), r"contexts are torch\.int64"),
        (torch.ones(6, dtype=F64, device="meta"), "contexts are torch.float64 on meta"),
    ],
)
def test_contexts_are_tensors_like_the_weights(kind, context, message):
    layer, x = layer_of(kind)
    with pytest.raises(TypeError, match=message):
        layer(x, context)


def test_segments_alone_want_a_tensor():
    with pytest.raises(TypeError, match="expected a tensor of contexts, got list"):
        Segments(2, 3, 6)([1.0] * 6)


@KINDS
@pytest.mark.parametrize("form", ["one", "by row", "pair"])
def test_contexts_within_autocast(kind, form):
    """Which come from a layer, of lower precision."""
    layer, x = layer_of(kind)
    layer, x, before = layer.float(), x.float(), nn.Linear(3, 6)

    def call() -> tuple[Tensor, Tensor]:
        contexts = before(torch.linspace(-1, 1, 12).view(4, 3))
        index = torch.tensor([0, 1, 1, 0])
        return contexts, layer(x, {"one": contexts[0], "by row": contexts, "pair": (contexts, index)}[form])

    with torch.autocast("cpu", torch.bfloat16):
        contexts, found = call()
    assert contexts.dtype == found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), call()[1], rtol=0.1, atol=0.1)
    found.sum().backward()
    assert before.weight.grad.any() and layer.segments.weight.grad.any()


@KINDS
@pytest.mark.parametrize("number", [2, -1])
def test_an_index_out_of_range_is_refused(kind, number):
    layer, x = layer_of(kind)
    with pytest.raises(IndexError, match="out of range"):
        layer(x, (torch.ones(2, 6, dtype=F64), torch.tensor([0, 1, number, 0])))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_options_are_checked():
    with pytest.raises(ValueError, match="choice"):
        Segments(2, 2, 2, choice="min")
    for sizes in ((2, 2, 2), (2, 2, 2.5, 2), (2, 2, -1, 2), (2, 0, 2, 2)):
        with pytest.raises(ValueError, match="at least one each"):
            ActiveDendrites(*sizes)
    for segments in (0, 2):
        with pytest.raises(ValueError, match=r"at least one input, got Linear\(in_features=0"):
            ActiveDendrites(0, 2, segments, 2)
        with pytest.raises(ValueError, match=r"at least one input, got Conv2d\(0"):
            ActiveDendrites2d(0, 2, 3, segments, 2)
        with pytest.raises(ValueError, match="choice is 'min'"):
            ActiveDendrites(2, 2, segments, 2, choice="min")
        with pytest.raises(ValueError, match="density is 5"):
            ActiveDendrites(2, 2, segments, 2, segment_density=5)
    for name in ("density", "segment_density"):
        for share in (0.0, 1.5):
            with pytest.raises(ValueError, match="density is"):
                ActiveDendrites(2, 2, 2, 2, **{name: share})
    with pytest.raises(ValueError, match="input_share"):
        ActiveDendrites(2, 2, 2, 2, input_share=0.0)
    with pytest.raises(ValueError, match="context_share"):
        ActiveDendrites(2, 2, 2, 2, context_share=2.0)
