"""EGRU: nn.GRU where nothing is held back, the derived gradients, and the ways it is called."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from eventnet import EGRU, EGRUCell, EGRUState, Events, constrain_
from eventnet.kernels.reference_egru import Fired, Unit, egru_reference
from eventnet.losses import activity_penalty, voltage_penalty

T, B, I, H = 7, 3, 5, 6
FORMS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 3, "bidirectional": True}, {"bias": False}]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(seed: int = 0, **options) -> EGRU:
    torch.manual_seed(seed)
    made = EGRU(I, H, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("bias"):
                parameter.normal_(std=0.3)
    return made


class Open(torch.autograd.Function):
    """A gate that is always open."""

    @staticmethod
    def forward(ctx, above, height, half_width):
        return torch.ones_like(above)

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad), None, None


@pytest.mark.parametrize("form", FORMS)
def test_an_open_gate_that_takes_nothing_off_is_torchs_gru(form, monkeypatch):
    mine, theirs = layer(backend="reference", **form), nn.GRU(I, H, dtype=torch.float64, **form)
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            if name.startswith("threshold"):
                parameter.zero_()
    theirs.load_state_dict({k: v for k, v in mine.state_dict().items() if not k.startswith("threshold")})
    monkeypatch.setattr("eventnet.kernels.reference_egru.Fired", Open)
    monkeypatch.setattr("eventnet.layers.egru.Fired", Open)
    x, start = numbers(T, B, I).requires_grad_(), numbers(len(mine.all_weights), B, H, seed=1)
    found, state = mine(x, EGRUState(start, start))
    expected, last = theirs(x, start)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(state.c, last)
    torch.testing.assert_close(state.y, last)
    parameters = [p for name, p in mine.named_parameters() if not name.startswith("threshold")]
    for a, b in zip(
        torch.autograd.grad(found.sin().sum(), [x, *parameters]),
        torch.autograd.grad(expected.sin().sum(), [x, *theirs.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def derived(drive: Tensor, unit: Unit, c: Tensor, y: Tensor, of_y: Tensor, of_v: Tensor) -> list[Tensor]:
    """The gradients of ``sum(of_y y + of_v v)`` by the rule written down step by step, without autograd."""
    weight, bias, theta, height, half_width = unit
    saved = []
    for now in drive:
        back = y @ weight.t() + bias
        r, z = torch.sigmoid((now + back)[:, :H]), torch.sigmoid((now + back)[:, H : 2 * H])
        n = torch.tanh(now[:, 2 * H :] + r * back[:, 2 * H :])
        v = z * c + (1 - z) * n
        o = (v > theta).double()
        saved.append((r, z, n, back[:, 2 * H :], v, o, c, y))
        c, y = v - o * theta, o * v
    d_weight, d_bias, d_theta = torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(theta)
    d_drive, d_c, d_y = torch.zeros_like(drive), torch.zeros_like(c), torch.zeros_like(y)
    for t in reversed(range(len(drive))):
        r, z, n, h, v, o, c, y = saved[t]
        d_y = d_y + of_y[t]
        d_o = v * d_y - theta * d_c
        d_s = d_o * height * (1 - (v - theta).abs() / half_width).clamp(min=0)
        d_theta -= (d_s + o * d_c).sum(0)
        d_v = o * d_y + d_s + d_c + of_v[t]
        d_c = z * d_v
        d_n = (1 - z) * d_v * (1 - n * n)
        d_r, d_z = d_n * h * r * (1 - r), (c - n) * d_v * z * (1 - z)
        d_drive[t] = torch.cat([d_r, d_z, d_n], 1)
        d_back = torch.cat([d_r, d_z, d_n * r], 1)
        d_weight += d_back.t() @ y
        d_bias += d_back.sum(0)
        d_y = d_back @ weight
    return [d_drive, d_weight, d_bias, d_theta, d_c, d_y]


@pytest.mark.parametrize(("height", "half_width"), [(0.7, 1.0), (3.6, 0.3), (0.3, 0.05), (0.0, 1.0)])
def test_gradients_are_those_of_the_derived_rule(height, half_width):
    given = [
        2 * numbers(20, B, 3 * H), numbers(3 * H, H, seed=1), numbers(3 * H, seed=2), numbers(H, seed=3).sigmoid() / 2,
        numbers(B, H, seed=4), numbers(B, H, seed=5).clamp(min=0),
    ]  # fmt: skip
    leaves = [x.requires_grad_() for x in given]
    drive, weight, bias, theta, c, y = leaves
    done = egru_reference(drive, Unit(weight, bias, theta, height, half_width), c, y)
    of_y, of_v = numbers(20, B, H, seed=6), 0.1 * numbers(20, B, H, seed=7)
    assert 0.1 < (done.y != 0).double().mean() < 0.9
    grads = torch.autograd.grad((of_y * done.y + of_v * done.v).sum(), leaves)
    with torch.no_grad():
        rule = derived(drive, Unit(weight, bias, theta, height, half_width), c, y, of_y, of_v)
    for name, found, expected in zip(("drive", "weight", "bias", "threshold", "c", "y"), grads, rule, strict=True):
        assert (found - expected).norm() <= 1e-10 * expected.norm(), name


def test_between_events_gradients_are_differences():
    """Without the pseudo-derivative the gradient is that of the numbers at a fixed pattern of events."""
    made, x = layer(height=0.0), numbers(T, B, I)
    loss = lambda: (made(x)[0] * numbers(T, B, H, seed=1)).sum()  # noqa: E731
    grads = torch.autograd.grad(loss(), list(made.parameters()))
    for (name, parameter), grad in zip(made.named_parameters(), grads, strict=True):
        way = numbers(*parameter.shape, seed=2)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step * way
                values.append(loss().item())
                parameter -= step * way
        numeric, exact = (values[0] - values[1]) / 2e-6, (grad * way).sum().item()
        assert abs(numeric - exact) <= 1e-6 * max(abs(exact), 1e-2), name


def test_one_unit_by_hand():
    """z = 1/2, n = tanh(1): v = n / 2, then c / 2 + n / 2 with the threshold taken off where it fired."""
    made = EGRU(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        made.weight_ih_l0.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        made.weight_hh_l0.zero_(), made.threshold_l0.fill_(0.5)
    n = torch.tanh(torch.tensor(1.0, dtype=torch.float64)).item()
    y, state = made(torch.ones(3, 1, 1, dtype=torch.float64))
    assert y.flatten().tolist() == pytest.approx([0.0, 0.75 * n, 0.0])
    kept = 0.75 * n - 0.5
    assert state.c.item() == pytest.approx(kept / 2 + n / 2)
    assert state.y.item() == 0


@pytest.mark.parametrize("form", [{}, {"num_layers": 2}, {"trace_decay": 0.9}])
def test_a_cut_sequence_is_the_whole(form):
    made, x = layer(**form), numbers(T, B, I)
    whole, last = made(x)
    first, state = made(x[:3])
    second, end = made(x[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    for a, b in zip(end, last, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=0, atol=1e-12)
    assert not any(part.requires_grad for part in state.detach() if part is not None)


@pytest.mark.parametrize("form", [*FORMS, {"trace_decay": 0.8, "bidirectional": True}])
def test_packed_sequences_are_each_by_itself(form):
    made = layer(**form)
    sequences = [numbers(n, I, seed=n) for n in (3, 7, 1, 5)]
    start = EGRUState(numbers(len(made.all_weights), 4, H), numbers(len(made.all_weights), 4, H, seed=1).clamp(min=0))
    output, state, steps = made(pack_sequence(sequences, enforce_sorted=False), start, return_steps=True)
    padded, lengths = pad_packed_sequence(output)
    assert lengths.tolist() == [3, 7, 1, 5]
    for b, x in enumerate(sequences):
        alone, end = made(x, EGRUState(start.c[:, b], start.y[:, b]))
        torch.testing.assert_close(padded[: len(x), b], alone)
        torch.testing.assert_close(state.c[:, b], end.c)
        torch.testing.assert_close(state.y[:, b], end.y)
        if state.trace is not None:
            torch.testing.assert_close(state.trace[b], end.trace)
    assert all(done.y.shape == (16, H) for done in steps)


def test_batch_first_and_unbatched_are_views_of_the_same():
    made, x = layer(num_layers=2), numbers(T, B, I)
    output, state = made(x)
    made.batch_first = True
    first, other = made(x.transpose(0, 1))
    torch.testing.assert_close(first.transpose(0, 1), output)
    alone, end = made(x[:, 1])
    torch.testing.assert_close(alone, output[:, 1])
    torch.testing.assert_close(end.c, state.c[:, 1])
    assert other.c.shape == state.c.shape == (2, B, H)


def test_a_cell_is_a_step():
    cell, made = EGRUCell(I, H, dtype=torch.float64), layer()
    made.load_state_dict({name + "_l0": value for name, value in cell.state_dict().items()})
    x = numbers(T, B, I)
    output, last = made(x)
    state = None
    for t in range(T):
        state = cell(x[t], state)
        torch.testing.assert_close(state.y, output[t])
    torch.testing.assert_close(state.c, last.c[0])
    alone = cell(x[0, 0])
    torch.testing.assert_close(alone.y, output[0, 0])
    with pytest.raises(RuntimeError, match=r"expected x of shape \(B, 5\)"):
        cell(numbers(B, I + 1))
    with pytest.raises(RuntimeError, match=r"state.c of shape \(3, 6\)"):
        cell(x[0], EGRUState(numbers(B, 2), numbers(B, H)))


def test_a_zero_height_stops_what_passes_by_firing():
    made, x = layer(height=0.0, half_width=1e-9), numbers(T, B, I)
    _, _, (done,) = made(x, return_steps=True)
    assert done.fired.sum() > 5
    assert not torch.autograd.grad(done.fired.sum(), made.weight_hh_l0, allow_unused=True)[0].any()


def test_regularisers_push_activity_down():
    made, x = layer(), numbers(30, B, I)
    _, _, (done,) = made(x, return_steps=True)
    before = done.fired.mean().item()
    optimiser = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        _, _, (done,) = made(x, return_steps=True)
        (activity_penalty(done.fired, 0.02) + 0.01 * voltage_penalty(done.c)).backward()
        optimiser.step()
        constrain_(made)
    assert done.fired.mean().item() < before / 2
    assert made.threshold_l0.min() >= 0 and made.threshold_l0.max() <= 1


def test_zoneout_and_drop_connect_act_in_training_only_as_they_say():
    x = numbers(400, 2, I)
    made = layer(zoneout=0.3)
    torch.manual_seed(0)
    _, _, (done,) = made(x, return_steps=True)
    kept = (done.v[1:] == done.c[:-1]).double().mean().item()
    assert 0.25 < kept < 0.35
    made.eval()
    assert made(x)[0].equal(made(x)[0])
    plain = layer().eval()
    plain.load_state_dict(made.state_dict())
    _, _, (mean,), (own,) = *made(x[:1], return_steps=True), plain(x[:1], return_steps=True)[2]
    torch.testing.assert_close(mean.v, 0.7 * own.v)  # from a state of 0
    dropped = layer(drop_connect=0.5)
    assert not dropped(x)[0].equal(dropped(x)[0])
    assert dropped.eval()(x)[0].equal(layer()(x)[0])


def test_what_is_wrong_with_a_call_is_said():
    made = layer(check=True)
    with pytest.raises(ValueError, match=r"2 dimensions \(T, I\) or 3"):
        made(numbers(1, T, B, I))
    with pytest.raises(RuntimeError, match="Expected 5, got 4"):
        made(numbers(T, B, I - 1))
    with pytest.raises(ValueError, match="does not match weight dtype"):
        made(numbers(T, B, I).float())
    with pytest.raises(RuntimeError, match="at least one step"):
        made(numbers(0, B, I))
    with pytest.raises(RuntimeError, match=r"state.y of shape \(1, 3, 6\), got \(2, 3, 6\)"):
        made(numbers(T, B, I), EGRUState(numbers(1, B, H), numbers(2, B, H)))
    with pytest.raises(TypeError, match=r"EGRUState\(c, y\), got Tensor"):
        made(numbers(T, B, I), numbers(1, B, H))
    x = numbers(T, B, I)
    x[2, 1, 4] = torch.nan
    with pytest.raises(ValueError, match="input is nan at step 2, sample 1, unit 4"):
        made(x)
    for wrong in (
        {"threshold_mean": 1.0},
        {"half_width": 0.0},
        {"zoneout": 1.0},
        {"trace_decay": -0.1},
        {"drop_connect": 2.0},
    ):
        with pytest.raises(ValueError, match=f"EGRU: .*{next(iter(wrong))}"):
            EGRU(I, H, **wrong)
    with pytest.raises(ValueError, match="dropout should be a number"):
        EGRU(I, H, dropout=2.0)


def test_nothing_told_is_nothing_heard():
    """A batch of no samples works; a silent layer beyond the reach of its triangle has gradients of zero, not none."""
    made = layer(half_width=0.1)
    empty, state = made(numbers(T, 0, I))
    assert empty.shape == (T, 0, H) and state.c.shape == (1, 0, H)
    empty.sum().backward()
    assert not made.weight_hh_l0.grad.any()
    with torch.no_grad():
        made.threshold_l0.fill_(1.0), made.weight_ih_l0.mul_(1e-3), made.bias_ih_l0.zero_(), made.bias_hh_l0.zero_()
    quiet = made(numbers(T, B, I))[0]
    assert not quiet.any()
    quiet.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())


def test_equal_lengths_stay_in_their_places():
    made, x = layer(), numbers(4, 40, I)
    expected, _ = made(x)
    packed, _ = made(pack_padded_sequence(x, torch.full((40,), 4)))
    assert pad_packed_sequence(packed)[0].equal(expected)
    packed, _ = made(pack_padded_sequence(x, torch.full((40,), 4), enforce_sorted=False))
    assert pad_packed_sequence(packed)[0].equal(expected)


def test_zoneout_of_packed_sequences_in_both_directions():
    made = layer(zoneout=0.5, bidirectional=True).eval()
    sequences = [numbers(n, I, seed=n) for n in (3, 6)]
    padded, _ = pad_packed_sequence(made(pack_sequence(sequences, enforce_sorted=False))[0])
    torch.testing.assert_close(padded[:3, 0], made(sequences[0])[0])


def test_what_is_not_a_number_stays_one():
    x = numbers(T, B, I)
    x[2, 1, 4] = torch.nan
    for backend in ("auto", "reference"):
        for trace_decay in (None, 0.9):
            output, _ = layer(backend=backend, trace_decay=trace_decay)(x)
            assert torch.isnan(output[2:, 1]).all() and not torch.isnan(output[:, [0, 2]]).any()
            assert not torch.isnan(output[:2]).any()


def test_dtypes_are_as_torch_has_them():
    made, x = layer().float(), numbers(T, B, I).float()
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = made(x)
        lower, _ = made(x.bfloat16())
    assert output.dtype == lower.dtype == torch.float32
    torch.testing.assert_close(output, made(x)[0], rtol=0.1, atol=0.3)
    trace, told = EGRU(I, H, trace_decay=0.9), EGRU(I, H)
    told.load_state_dict(trace.state_dict())
    with torch.autocast("cpu", torch.bfloat16):  # which is for products with weights, not for the trace
        expected = sum(0.1 * 0.9 ** (T - 1 - t) * y for t, y in enumerate(told(x)[0]))
        torch.testing.assert_close(trace(x)[0][-1], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.bfloat16; backend='reference'"):
        layer().bfloat16()(x.bfloat16())
    assert layer(backend="reference").bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match=r"state\.c is torch\.float64"):
        made(x, EGRUState(numbers(1, B, H), numbers(1, B, H)))
    with pytest.raises(RuntimeError, match=r"threshold of shape \(6,\), got \(1,\)"):
        torch.func.functional_call(made, {"threshold_l0": torch.ones(1)}, (x,))


def test_it_is_a_module_like_any_other():
    made, x = layer(num_layers=2, bidirectional=True), numbers(T, B, I)
    expected = made(x)[0]
    whole = io.BytesIO()
    torch.save(made, whole)
    whole.seek(0)
    assert torch.load(whole, weights_only=False)(x)[0].equal(expected)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    other = layer(1, num_layers=2, bidirectional=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(x)[0].equal(expected)
    assert copy.deepcopy(made)(x)[0].equal(expected)
    changed = {name: 0.5 * value for name, value in made.named_parameters()}
    halved = torch.func.functional_call(made, changed, (x,))[0]
    assert not halved.equal(expected)
    assert layer().float()(x.float())[0].dtype == torch.float32
    assert "half_width=0.3" in repr(layer(half_width=0.3)) and "EGRU(5, 6)" in repr(layer())
    prune.l1_unstructured(made, "weight_hh_l0", amount=0.5)
    assert not made(x)[0].equal(expected) and (made.weight_hh_l0 == 0).sum() == 3 * H * H // 2
    assert EGRU(I, H, device="meta").threshold_l0.is_meta


def test_thresholds_are_drawn_from_their_distribution():
    drawn = EGRU(1, 4000, threshold_mean=0.4).threshold_l0
    assert 0.38 < drawn.mean() < 0.42 and drawn.min() > 0 and drawn.max() < 1


@pytest.mark.parametrize("half_width", [0.5, 2.0])
def test_the_pseudo_derivative_is_its_triangle(half_width):
    above = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    fired = Fired.apply(above, 0.7, half_width)
    assert fired.equal((above > 0).double()) and fired[20] == 0  # on the threshold: not yet
    (grad,) = torch.autograd.grad(fired.sum(), above)
    torch.testing.assert_close(grad, 0.7 * (1 - above.detach().abs() / half_width).clamp(min=0))


def test_events_are_counted_step_by_step():
    made = layer(step=2e-3)
    samples = [([0.0, 0.0005, 0.003, 0.0081], [0, 0, 3, 4]), ([], []), ([0.005], [2])]
    events = Events.from_list(samples, num_units=I, duration=0.01, dtype=torch.float64)
    output, state = made(events)
    expected, last = made(events.to_dense(2e-3))
    assert output.shape == (5, 3, H) and output.equal(expected) and state.c.equal(last.c)
    with pytest.raises(TypeError, match="step=1e-3"):
        layer()(events)
    with pytest.raises(RuntimeError, match="expected Events of 5 units, got 4"):
        made(Events.from_list([([0.0], [0])], num_units=4, duration=0.01, dtype=torch.float64))


def test_what_is_told_as_events_is_what_is_told():
    made = layer()
    _, _, (steps,) = made(numbers(T, B, I), return_steps=True)
    told = steps.to_events(1e-3)
    assert told.num_events > 10
    torch.testing.assert_close(told.to_dense(1e-3), steps.y)
    weights = torch.linspace(-1, 1, told.num_events, dtype=torch.float64)
    (a,) = torch.autograd.grad((told.values * weights).sum(), made.weight_hh_l0, retain_graph=True)
    order = torch.zeros_like(steps.y).transpose(0, 1)
    order[steps.y.transpose(0, 1) != 0] = weights
    (b,) = torch.autograd.grad((steps.y * order.transpose(0, 1)).sum(), made.weight_hh_l0)
    torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="positive number of seconds"):
        steps.to_events(0.0)
    packed = pack_sequence([numbers(3, I), numbers(2, I)])
    output, _, (steps,) = made(packed, return_steps=True)
    told = steps.to_events(1e-3)
    assert told.duration.tolist() == pytest.approx([3e-3, 2e-3])
    torch.testing.assert_close(told.to_dense(1e-3), pad_packed_sequence(output)[0])


def test_activity_counts_what_a_loop_counts():
    made, x = layer(half_width=0.2), numbers(T, B, I)
    prune.random_unstructured(made, "weight_hh_l0", amount=0.3)
    _, _, (steps,) = made(x, return_steps=True)
    found = steps.activity()
    ahead = back = told = needed = 0
    for t in range(T):
        for b in range(B):
            for j in range(H):
                column = int((made.weight_hh_l0[:, j] != 0).sum())
                near = abs(steps.v[t, b, j] - made.threshold_l0[j]).item() < 0.2
                told += bool(steps.y[t, b, j])
                ahead += column * bool(steps.y[t, b, j])
                needed += bool(steps.y[t, b, j]) or near
                back += column * (bool(steps.y[t, b, j]) or near)
    assert found.forward == pytest.approx(told / (T * B * H)) and found.backward == pytest.approx(needed / (T * B * H))
    assert found.multiplications == pytest.approx(ahead / (T * B))
    assert found.backward_multiplications == pytest.approx((ahead + back) / (T * B))
    assert found.dense == 3 * H * H


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 32, 75])
def test_a_trace_forgets_step_by_step(steps, decay):
    layer, plain = (EGRU(3, 6, trace_decay=trace, dtype=torch.float64) for trace in (decay, None))
    plain.load_state_dict(layer.state_dict())
    x, now, expected = torch.randn(steps, 4, 3, dtype=torch.float64), torch.rand(4, 6, dtype=torch.float64), []
    start = EGRUState(*(torch.zeros(1, 4, 6, dtype=torch.float64) for _ in range(2)), now)
    for told in plain(x, EGRUState(start.c, start.y))[0]:
        now = decay * now + (1 - decay) * told
        expected.append(now)
    trace, after = layer(x, start)
    torch.testing.assert_close(trace, torch.stack(expected))
    torch.testing.assert_close(after.trace, now)


@pytest.mark.parametrize("form", [{}, {"num_layers": 2}, {"bidirectional": True}, {"trace_decay": 0.8}], ids=str)
def test_samples_of_events_end_when_they_end(form):
    """A batch of samples of different durations is each of them alone."""
    torch.manual_seed(0)
    made = EGRU(3, 12, step=1e-3, threshold_mean=0.05, dtype=torch.float64, **form)
    generator = torch.Generator().manual_seed(1)
    samples = []
    for count in (5, 9, 2):
        at, unit = (torch.rand(count, 3, generator=generator) < 0.5).nonzero(as_tuple=True)
        samples.append((at.double() * 1e-3, unit))
    events = Events.from_list(samples, 3, [5e-3, 9e-3, 2e-3], dtype=torch.float64)
    output, state, steps = made(events, return_steps=True)
    told = [done.to_events(1e-3) for done in steps]
    assert len(output) == 9 and (output != 0).any()
    for b, count in enumerate((5, 9, 2)):
        alone, end, did = made(events.sample(b), return_steps=True)
        torch.testing.assert_close(output[:count, b], alone[:, 0])
        assert not output[count:, b].any()
        torch.testing.assert_close(state.c[:, b], end.c[:, 0])
        torch.testing.assert_close(state.y[:, b], end.y[:, 0])
        for mine, own in zip(told, did, strict=True):
            mine, own = mine.sample(b), own.to_events(1e-3)
            torch.testing.assert_close((mine.times, mine.values), (own.times, own.values))
            assert mine.units.equal(own.units) and mine.duration.item() == pytest.approx(count * 1e-3)
    assert len(steps[0].y) == 16


def test_events_that_do_not_fit_are_refused():
    made = EGRU(3, 4, step=1e-3)
    with pytest.raises(RuntimeError, match="expected Events of 3 units, got 2"):
        made(Events.from_list([([0.0], [1])], 2, 0.01))
    with pytest.raises(RuntimeError, match="sample 1 lasts 0 s"):
        made(Events.from_list([([0.0], [1]), ([], [])], 3, [0.01, 0.0]))
    for step in (0, -1.0, "1e-3", float("inf")):
        with pytest.raises(ValueError, match="expected a positive number of seconds, or None"):
            EGRU(3, 4, step=step)
    assert "step=0.001" in repr(made)
