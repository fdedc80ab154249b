"""ELM: compiled against the reference, gradients against differences and closed forms, streams, and the published sizes."""

from __future__ import annotations

import copy
import doctest
import math

import numpy as np
import pytest
import torch
from helpers import compiled_for, needs_compiled, on_both_backends, on_every_isa
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eventnet.kernels import cpu
from eventnet.layers import elm
from eventnet.layers.elm import ELM, ELMState, windows

T, B, I, O, M = 9, 3, 10, 2, 5
BOTH = ("tau_mem", "tau_syn")
F64 = torch.float64
on_both_versions = pytest.mark.parametrize("version", [1, 2])
# inputs, memory, branches, synapses, hidden; steps, batch: one of all, odd sizes, more steps than are taken at a time, by
# branches and by products, more samples than wait for their sums, more than a group of them, more inputs than fit the cache
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1),
    (10, 5, 4, 3, 7, 9, 3),
    (6, 3, 9, 2, 4, 75, 2),
    (5, 3, 2, 4, 6, 150, 1),
    (3, 2, 2, 2, 3, 2, 530),
    (20, 17, 5, 8, 33, 6, 37),
    (3000, 2, 3, 1200, 4, 12, 2),
]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def layer(version: int = 2, seed: int = 0, **options) -> ELM:
    """With weights of both signs, and time constants that differ."""
    torch.manual_seed(seed)
    form = {"memory": M, "branches": 4, "synapses": 3, "tau_mem": (2e-3, 30e-3), "learn": BOTH, "dtype": F64}
    made = ELM(*options.pop("features", (I, O)), version=version, **(form | options))
    with torch.no_grad():
        made.weight.uniform_(-0.2, 1.0).mul_(3 / made.weight.shape[1])  # a branch's value is about 1
        for name, parameter in made.named_parameters():
            if name.endswith("tau_syn.original"):
                parameter.normal_(std=0.5)
    return made


def a_state(made: ELM, batch: int, dtype: torch.dtype = F64) -> ELMState:
    trace, memory = (batch, *made.tau_syn.shape), (batch, made.memory)
    return ELMState(
        numbers(*trace, seed=3, dtype=dtype).requires_grad_(), numbers(*memory, seed=4, dtype=dtype).requires_grad_()
    )


def run(made: ELM, backend: str, x: Tensor, state: ELMState) -> list[Tensor]:
    """What comes out, and the gradients of all that goes in."""
    made.backend = backend
    output, after = made(x, state)
    found = [output, *after]
    loss = sum((numbers(*part.shape, seed=k, dtype=part.dtype) * part.sin()).sum() for k, part in enumerate(found, 5))
    return [*found, *torch.autograd.grad(loss, [x, *state, *made.parameters()])]


# ---- the compiled kernels are the reference -------------------------------------------------------------------------


@needs_compiled
@on_every_isa
@on_both_versions
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_kernels_are_the_reference(shape, dtype, tolerance, version, isa):
    inputs, memory, branches, synapses, hidden, steps, batch = shape
    sizes = {"memory": memory, "branches": branches, "synapses": synapses, "hidden": hidden}
    made = layer(version, features=(inputs, O), dtype=dtype, **sizes)
    x, state = numbers(steps, batch, inputs, seed=1, dtype=dtype).requires_grad_(), a_state(made, batch, dtype)
    names = [
        "output",
        "trace",
        "memory",
        "of x",
        "of trace",
        "of memory",
        *(f"of {n}" for n, _ in made.named_parameters()),
    ]
    with compiled_for(isa):
        found = run(made, "cpu", x, state)
    expected = run(made, "reference", x, state)
    for k, (name, a, b) in enumerate(zip(names, found, expected, strict=True)):
        allowed = tolerance if k < 3 else 10 * tolerance  # gradients are sums over all steps and samples
        assert a.shape == b.shape
        assert (a - b).abs().max() <= allowed * max(b.abs().max(), 1), (
            f"{name}: {(a - b).abs().max() / b.abs().max():.1e}"
        )


@needs_compiled
@on_both_versions
def test_without_blas_the_numbers_are_the_same(version):
    made = layer(version)
    x, state = numbers(T, B, I, seed=1).requires_grad_(), a_state(made, B)
    expected = run(made, "cpu", x, state)
    module = cpu.load()
    try:
        module.set_blas(0, 0)
        found = run(made, "cpu", x, state)
    finally:
        module.set_blas(*cpu.blas())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@needs_compiled
@on_both_versions
def test_runs_repeat_bit_for_bit_on_any_number_of_threads(version):
    made = layer(version, dtype=torch.float32)
    x, state = numbers(20, 70, I, seed=1, dtype=torch.float32).requires_grad_(), a_state(made, 70, torch.float32)
    names = ["output", "trace", "memory", "x", "trace", "memory", *(name for name, _ in made.named_parameters())]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(made, "cpu", x, state))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, a, b in zip(names, results[0], other, strict=True):
            assert a.equal(b) or name.startswith(("readout", "parametrizations")), name  # those are torch's sums
        torch.testing.assert_close(other, results[0])


@needs_compiled
@on_both_versions
def test_the_operators_are_as_torch_asks(version):
    from eventnet.kernels import ops_elm  # noqa: F401, defines them

    made, hidden = layer(version), 6
    decay = torch.exp(-made.step / made.tau_syn).detach().requires_grad_()
    start = numbers(B, *made.tau_syn.shape).requires_grad_()
    check(torch.ops.eventnet.elm_branches, (numbers(T, B, I).requires_grad_(), made.weight, made.index, decay, start))
    shapes = (T, B, 4), (hidden, 4), (hidden,), (hidden, M), (M, hidden), (M,), (M,), (M,), (B, M)
    for kept in (True, False):
        units = [numbers(*shape, seed=2).requires_grad_(kept) for shape in shapes]
        check(torch.ops.eventnet.elm_memory, (*units, kept))


def check(op, args) -> None:
    """Its schema, the shapes it announces, and that gradients go through it; torch's tests of tracing take seconds each."""
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op.default, args, test_utils=utilities)


# ---- gradients against differences and closed forms -----------------------------------------------------------------


@on_both_backends
@on_both_versions
@pytest.mark.parametrize("bounded_gain", [False, True])
def test_gradients_are_differences(backend, version, bounded_gain):
    made = layer(version, backend=backend, bounded_gain=bounded_gain)
    names = [name for name, _ in made.named_parameters()]

    def call(x, trace, memory, *parameters):
        output, after = torch.func.functional_call(
            made, dict(zip(names, parameters, strict=True)), (x, ELMState(trace, memory))
        )
        return output, *after

    inputs = (numbers(T, B, I).requires_grad_(), *a_state(made, B), *made.parameters())
    assert torch.autograd.gradcheck(call, inputs, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=True)


@on_both_backends
@on_both_versions
def test_a_trace_is_its_closed_form(backend, version):
    """One input of 2 at step 0: after n steps the trace is ``2 w k^n``, its derivatives those of this."""
    made = ELM(1, 1, memory=1, version=version, tau_syn=4e-3, learn=["tau_syn"], backend=backend, dtype=F64)
    x = torch.zeros(6, 1, 1, dtype=F64)
    x[0] = 2.0
    x.requires_grad_()
    _, state = made(x)
    k = math.exp(-0.25)
    assert state.trace.item() == pytest.approx(2 * 0.5 * k**5, rel=1e-12)
    of_x, of_w, of_raw = torch.autograd.grad(
        state.trace.sum(), [x, made.weight, made.parametrizations.tau_syn.original]
    )
    assert of_x.flatten().tolist() == pytest.approx([0.5 * k ** (5 - t) for t in range(6)], rel=1e-12)
    assert of_w.item() == pytest.approx(2 * k**5, rel=1e-12)
    # tau = low (high / low)^sigmoid(raw), halfway between the bounds, which are a factor of 100 apart
    of_tau = 5 * (1e-3 / 4e-3**2) * k**5
    assert of_raw.item() == pytest.approx(of_tau * 4e-3 * math.log(100) / 4, rel=1e-9)


@on_both_backends
@pytest.mark.parametrize("bounded_gain", [False, True])
def test_memory_under_a_constant_push_is_its_closed_form(backend, bounded_gain):
    """``m_n = k^n m_0 + g push (1 - k^n) / (1 - k)``."""
    made = ELM(3, 2, memory=M, backend=backend, bounded_gain=bounded_gain, lam=3.0, dtype=F64)
    with torch.no_grad():
        made.mlp_out.weight.zero_()
        made.mlp_out.bias.copy_(torch.linspace(-1, 1, M))
    start = ELMState(torch.zeros(1, 3, dtype=F64), numbers(1, M))
    output, state = made(numbers(7, 1, 3), start)
    tau = torch.tensor([1e-3 * 150 ** (n / (M - 1)) for n in range(M)], dtype=F64)
    k = torch.exp(-1e-3 / tau)
    gain = 1 - torch.exp(-3e-3 / tau) if bounded_gain else 3 * (1 - k)
    push = 1.7159 * torch.tanh(2 / 3 * torch.linspace(-1, 1, M, dtype=F64))
    expected = k**7 * start.memory + gain * push * (1 - k**7) / (1 - k)
    torch.testing.assert_close(state.memory, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output[-1], made.readout(expected), rtol=1e-12, atol=1e-12)


@on_both_backends
@on_both_versions
def test_a_synapse_of_negative_weight_is_silent(backend, version):
    made = layer(version, backend=backend)
    with torch.no_grad():
        made.weight.fill_(-0.1)
    x = numbers(T, B, I).requires_grad_()
    output, state = made(x)
    assert not state.trace.any()
    of_x, of_weight = torch.autograd.grad(output.sum(), [x, made.weight])
    assert not of_x.any() and not of_weight.any()


# ---- versions, sizes, wiring ----------------------------------------------------------------------------------------


@given(
    inputs=st.integers(1, 12),
    branches=st.integers(1, 6),
    synapses=st.integers(1, 5),
    steps=st.integers(1, 40),
    batch=st.integers(1, 4),
)
@settings(deadline=None, max_examples=25)
def test_with_one_time_constant_both_versions_are_the_same(inputs, branches, synapses, steps, batch):
    form = {"memory": 4, "branches": branches, "synapses": synapses, "routing": "random", "dtype": F64}
    first, second = ELM(inputs, 2, version=1, **form), ELM(inputs, 2, version=2, **form)
    with torch.no_grad():
        first.weight.uniform_(0, 1)
    second.load_state_dict(first.state_dict() | {"tau_syn": second.tau_syn})
    x = numbers(steps, batch, inputs)
    a, b = first(x), second(x)
    torch.testing.assert_close(a[0], b[0], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(a[1].trace.sum(-1), b[1].trace, rtol=1e-10, atol=1e-11)


# of the published models of a biophysical neuron: 1,278 inputs, 45 branches of 100 synapses, 2 outputs, fixed time constants
PUBLISHED = {1: 4601, 2: 4708, 3: 4823, 5: 5077, 7: 5363, 10: 5852, 15: 6827, 20: 8002, 25: 9377, 30: 10952, 40: 14702}
PUBLISHED |= {50: 19252, 75: 34127, 100: 54002}


@on_both_versions
@pytest.mark.parametrize(("memory", "published"), PUBLISHED.items())
def test_parameters_are_as_many_as_published(memory, published, version):
    made = ELM(1278, 2, memory=memory, branches=45, synapses=100, version=version)
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == published


@given(inputs=st.integers(1, 60), branches=st.integers(1, 12), synapses=st.integers(1, 12))
@settings(deadline=None)
def test_windows_reach_every_input_or_are_refused(inputs, branches, synapses):
    if branches * synapses < inputs:
        with pytest.raises(ValueError, match=rf"reach {branches * synapses} of {inputs} inputs; .* routing='random'"):
            ELM(inputs, 1, branches=branches, synapses=synapses)
        return
    found = windows(inputs, branches, synapses)
    assert found.shape == (branches, synapses) and found.min() >= 0 and found.max() < inputs
    assert len(found.unique()) == inputs


def test_sizes_may_be_whole_numbers_of_other_kinds():
    three = np.int64(3)
    made = ELM(three, torch.tensor(2), memory=three, branches=three, synapses=three, hidden=three)
    assert all(type(size) is int for size in (made.in_features, made.out_features, made.memory, made.hidden))
    assert made(torch.ones(4, 1, 3))[0].shape == (4, 1, 2)


def test_routing_is_what_is_given():
    chosen = torch.tensor([[0, 9], [3, 3]])
    made = ELM(I, 1, branches=2, synapses=2, routing=chosen)
    assert made.index.equal(chosen)
    torch.manual_seed(0)
    drawn = ELM(1000, 1, branches=3, synapses=50, routing="random", memory=2).index
    assert drawn.min() >= 0 and drawn.max() < 1000 and len(drawn.unique()) > 120
    assert ELM(I, 1).index.flatten().tolist() == list(range(I))


def test_time_constants_start_where_they_should_and_stay_within_bounds():
    made = ELM(I, O, memory=20, learn=BOTH, dtype=F64)
    assert made.tau_mem.min().item() == pytest.approx(1e-3) and made.tau_mem.max().item() == pytest.approx(150e-3)
    ratios = made.tau_mem[1:] / made.tau_mem[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(19))
    fixed = ELM(I, O, memory=20, dtype=F64)
    torch.testing.assert_close(made.tau_mem, fixed.tau_mem)
    torch.testing.assert_close(made.tau_syn, fixed.tau_syn)
    assert not any("tau" in name for name, _ in fixed.named_parameters())
    optimizer = torch.optim.SGD(made.parameters(), lr=1e6)
    made(numbers(T, B, I))[0].square().sum().backward()
    optimizer.step()
    for tau, low, high in ((made.tau_mem, 1e-4, 1.5), (made.tau_syn, 0.5e-3, 50e-3)):
        assert low * (1 - 1e-12) <= tau.min() and tau.max() <= high * (1 + 1e-12)
    given_ones = ELM(I, O, memory=3, tau_mem=torch.tensor([0.01, 0.02, 0.03]), learn=["tau_mem"])
    assert given_ones.tau_mem.tolist() == pytest.approx([0.01, 0.02, 0.03])


# ---- ways to call it ------------------------------------------------------------------------------------------------


@on_both_backends
@on_both_versions
def test_a_cut_sequence_is_the_whole(backend, version):
    made, x = layer(version, backend=backend), numbers(T, B, I)
    whole, last = made(x)
    first, state = made(x[:4])
    second, end = made(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=1e-12, atol=1e-12)
    parts = torch.autograd.grad((first.sum() + second.sin().sum()), list(made.parameters()))
    wholes = torch.autograd.grad((whole[:4].sum() + whole[4:].sin().sum()), list(made.parameters()))
    torch.testing.assert_close(parts, wholes, rtol=1e-10, atol=1e-11)
    assert not any(part.requires_grad for part in state.detach())


@on_both_versions
def test_batch_first_and_unbatched_are_views_of_the_same(version):
    made, x = layer(version), numbers(T, B, I)
    output, state = made(x, start := a_state(made, B))
    alone, end = made(x[:, 1], ELMState(start.trace[1], start.memory[1]))
    torch.testing.assert_close(alone, output[:, 1])
    torch.testing.assert_close(end, ELMState(state.trace[1], state.memory[1]))
    made.batch_first = True
    torch.testing.assert_close(made(x.transpose(0, 1), start)[0], output.transpose(0, 1))


@on_both_backends
def test_a_batch_of_no_samples(backend):
    made = layer(backend=backend)
    output, state = made(numbers(T, 0, I))
    assert output.shape == (T, 0, O) and state.memory.shape == (0, M)
    output.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())


def test_it_is_a_module_like_any_other():
    made, x = layer(), numbers(T, B, I)
    expected = made(x)[0]
    other = layer(seed=1)
    assert not other(x)[0].equal(expected)
    other.load_state_dict(made.state_dict())
    assert other(x)[0].equal(expected) and copy.deepcopy(made)(x)[0].equal(expected)
    with torch.no_grad():
        assert made(x)[0].equal(expected)
    assert made.float()(x.float())[0].dtype == torch.float32
    assert "memory=5, branches=4, synapses=3, hidden=10, version=2" in repr(made)
    assert ELM(I, O, device="meta").weight.is_meta


def test_learnt_time_constants_are_loaded_with_their_bounds():
    """Into a layer that was made for others."""
    made, other = layer(tau_mem=(2e-3, 30e-3), tau_syn=5e-3), layer(tau_mem=(1e-2, 1.0), tau_syn=2e-2)
    other.load_state_dict(made.state_dict())
    assert other.tau_mem.equal(made.tau_mem) and other.tau_syn.equal(made.tau_syn)
    with pytest.raises(ValueError, match=r"between 0\.0002 and 0.3 s"):
        other.tau_mem = torch.full((M,), 2.0, dtype=F64)


@on_both_backends
def test_autocast_takes_what_the_layer_before_says(backend):
    before, made, x = nn.Linear(4, I), layer(backend=backend).float(), numbers(T, B, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        heard = before(x)
        output, _ = made(heard)
    assert heard.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), made(before(x))[0], rtol=0.1, atol=0.1)
    output.sum().backward()
    assert before.weight.grad.dtype == torch.float32 and before.weight.grad.any()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"input is torch\.float64"):
        made(heard.double())
    with pytest.raises(TypeError, match=r"input is torch\.bfloat16"):
        made(heard)


@on_both_backends
def test_autocast_is_as_torch_has_it(backend):
    made, x = layer(backend=backend).float(), numbers(T, B, I).float()
    with torch.autocast("cpu", torch.bfloat16):
        output, state = made(x)
    assert output.dtype == torch.bfloat16 and state.memory.dtype == torch.float32
    torch.testing.assert_close(output.float(), made(x)[0], rtol=0.1, atol=0.1)


def test_it_learns_to_remember():
    """Which of two inputs came, 60 steps ago."""
    torch.manual_seed(0)
    made = ELM(2, 2, memory=10, tau_mem=(5e-3, 100e-3))
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    labels = torch.arange(16) % 2
    x = torch.zeros(60, 16, 2)
    x[0, torch.arange(16), labels] = 1.0
    for _ in range(60):
        loss = nn.functional.cross_entropy(made(x)[0][-1], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (made(x)[0][-1].argmax(1) == labels).all() and loss < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory must be a whole number, at least 1, got 0"),
        ({"branches": -1}, "branches must be .* got -1"),
        ({"synapses": 1.5}, r"synapses must be .* got 1\.5"),
        ({"hidden": 0}, "hidden must be .* got 0"),
        ({"memory": "5"}, "memory must be .* got '5'"),
        ({"branches": 2, "synapses": 4}, "2 branches of 4 synapses reach 8 of 10 inputs"),
        ({"branches": 1, "synapses": 3}, "1 branches of 3 synapses reach 3 of 10 inputs"),
        ({"version": 3}, "version is 3; expected 1"),
        ({"tau_syn": 0.0}, "tau_syn is 0.0; expected a positive number"),
        ({"step": -1e-3}, "step is -0.001"),
        ({"lam": math.inf}, "lam is inf"),
        ({"tau_mem": (1e-3,)}, "tau_mem is .* expected the shortest and the longest"),
        ({"tau_mem": torch.ones(3)}, "or a tensor of 100"),
        ({"tau_mem": (0.0, 1.0)}, "positive seconds"),
        ({"learn": ["tau"]}, "learn names 'tau'; expected some of"),
        ({"routing": "near"}, "routing is 'near'; expected 'windows', 'random'"),
        ({"routing": torch.full((I, 1), I)}, r"numbers of inputs, 0 to 9, of shape \(10, 1\)"),
        ({"routing": torch.zeros(2, 2)}, r"got torch.float32 of shape \(2, 2\)"),
        ({"routing": torch.zeros(I, 1, dtype=torch.bool)}, r"got torch.bool"),
        ({"routing": torch.zeros(I, 1, dtype=torch.complex64)}, r"got torch.complex64"),
    ],
)
def test_what_is_no_layer_is_refused(options, message):
    with pytest.raises(ValueError, match=f"ELM: .*{message}"):
        ELM(I, O, **options)


def test_what_is_wrong_with_a_call_is_said():
    made, x = layer(), numbers(T, B, I)
    with pytest.raises(ValueError, match=r"\(T, B, in\) or \(T, in\) with in = 10, got \(9, 3, 9\)"):
        made(x[..., 1:])
    with pytest.raises(ValueError, match="at least one step"):
        made(x[:0])
    with pytest.raises(TypeError, match=r"expected a tensor, got list; events\.to_dense\(step\)"):
        made(x.tolist())
    with pytest.raises(TypeError, match=r"input is torch.float32 on cpu, weights are torch.float64"):
        made(x.float())
    with pytest.raises(TypeError, match=r"ELMState\(trace, memory\), got Tensor"):
        made(x, x)
    with pytest.raises(ValueError, match=r"state.trace \(3, 4\) of torch.float64 on cpu, got \(3, 4, 3\)"):
        made(x, ELMState(numbers(B, 4, 3), numbers(B, M)))
    with pytest.raises(ValueError, match=r"state.trace .* on cpu, got \(3, 4\) of torch.float64 on meta"):
        made(x, ELMState(numbers(B, 4).to("meta"), numbers(B, M)))
    with pytest.raises(ValueError, match=r"state.memory \(3, 5\)"):
        made(x, ELMState(numbers(B, 4), numbers(2, M)))
    with pytest.raises(ValueError, match=r"between 0\.0002 and 0.3 s"):
        made.tau_mem = torch.full((M,), 2.0, dtype=F64)


@needs_compiled
def test_what_the_kernels_cannot_do_is_said():
    made = layer(learn=()).bfloat16()
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.bfloat16; backend='reference'"):
        made(numbers(T, B, I).bfloat16())
    made.backend = "reference"
    assert made(numbers(T, B, I).bfloat16())[0].dtype == torch.bfloat16
    made, x = layer(), numbers(T, B, I).requires_grad_()
    (grad,) = torch.autograd.grad(made(x)[0].sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no double backward; backend='reference'"):
        grad.sum().backward()


def test_examples():
    found = doctest.testmod(elm)
    assert found.attempted >= 5 and found.failed == 0
