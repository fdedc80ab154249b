"""Counts are what enumeration finds, operation by operation; they add up; NeuroBench and SpikingJelly find the same."""

from __future__ import annotations

import doctest
import importlib
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence

from eventnet import EGRU, LI, LIF, EGRUCell, EGRUState, Events
from eventnet.counting import Counts, count, counter, per_sample_of, total
from eventnet.counts import COUNTERS
from eventnet.layers.dendrites import ActiveDendrites
from eventnet.layers.dense import Dense
from eventnet.layers.elm import ELM
from eventnet.layers.prototypes import Prototypes

DT = 1e-3
MODULES = ("eventnet.counting", "eventnet.counts", "eventnet.counters", "eventnet.counters_torch", "eventnet.tally")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    torch.manual_seed(0)
    names = {"torch": torch, "nn": nn, "Events": Events, "LIF": LIF, "LI": LI}
    found = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert found.failed == 0 and found.attempted


def random_events(seed: int, units: int, batch: int = 3, events: int = 12, graded: bool = False) -> Events:
    """Samples of several lengths, one silent, some events at or after the end of their sample."""
    generator = torch.Generator().manual_seed(seed)
    times = [torch.rand(events * (b != 1), generator=generator, dtype=torch.float64) * 0.03 for b in range(batch)]
    samples = [(x.sort().values, torch.randint(units, x.shape, generator=generator)) for x in times]
    made = Events.from_list(samples, units, [0.02 + 0.0053 * (b % 3) for b in range(batch)], dtype=torch.float64)
    if not graded:
        return made
    values = torch.randint(-1, 4, (made.num_events,), generator=generator).to(torch.float64)
    return Events(made.times, made.units, made.offsets, units, made.duration, values)


def numbers(counts: Counts) -> dict[str, int]:
    """What adds up and does not depend on which inputs are together in a batch."""
    return {
        "samples": counts.samples,
        "steps": counts.steps,
        "neurons": counts.neurons,
        "inputs": counts.inputs,
        "spikes": counts.spikes,
        "operations": counts.synaptic_operations,
        "dense": counts.dense,
        "state_updates": counts.state_updates,
        "weight_reads": counts.weight_reads,
        "buffer_writes": counts.buffer_writes,
    }


# ---- spiking layers --------------------------------------------------------------------------------------------------------

SPIKING = {
    "plain": {},
    "recurrent": {"recurrent": True},
    "synaptic": {"delay": (0.0, 0.01), "recurrent": True, "recurrent_delay": (0.0, 0.01)},
    "axonal": {"delay": (0.0, 0.01), "recurrent": True, "recurrent_delay": 2e-3, "delay_kind": "axonal"},
    "dendritic": {"delay": (0.0, 0.01), "recurrent": True, "recurrent_delay": (0.0, 0.01), "delay_kind": "dendritic"},
    "masked": {"mask": True, "recurrent": True, "recurrent_mask": True, "delay": (0.0, 0.01)},
}


def spiking_layer(kind: str, seed: int = 0) -> LIF:
    """A layer that fires, with weights, and delays if it has any, that are zero here and there."""
    torch.manual_seed(seed)
    options: dict[str, Any] = dict(SPIKING[kind])
    for name, shape in (("mask", (4, 3)), ("recurrent_mask", (3, 3))):
        if name in options:
            options[name] = torch.rand(shape) < 0.6
    layer = LIF(4, 3, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("weight"):
                strength = parameter if name.startswith("recurrent") else 20 * parameter.abs()
                parameter.copy_(strength * (torch.rand_like(parameter) < 0.7))
            elif name.endswith("delay"):
                parameter.mul_(torch.rand_like(parameter) < 0.7)
    return layer


def routed(sent: Events, weight: Tensor, mask: Tensor | None, delay: Tensor | None) -> tuple[int, int]:
    """Operations and writes into delay buffers, one by one."""
    weight, operations, writes = weight.detach(), 0, 0
    for b in range(sent.batch_size):
        sample = sent.sample(b).detach()
        for k in range(sample.num_events):
            source = int(sample.units[k])
            if float(sample.times[k]) >= float(sample.duration[0]):
                continue
            if sample.values is not None and float(sample.values[k]) == 0:
                continue
            waits = []
            for target in range(weight.shape[1]):
                if float(weight[source, target]) == 0 or (mask is not None and not mask[source, target]):
                    continue
                operations += 1
                waits.append(delay is not None and float(delay.detach().expand_as(weight)[source, target]) > 0)
            per_source = delay is not None and delay.shape[1] == 1
            writes += any(waits) if per_source else sum(waits)
    return operations, writes


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("kind", SPIKING)
def test_spiking_layers_as_enumerated(kind, graded):
    layer, events = spiking_layer(kind), random_events(3, 4, graded=graded)
    found, spikes = count(layer, [events], dt=DT)[""], layer(events)
    assert spikes.num_events > 5
    of_inputs = routed(events, layer.weight, layer.mask, getattr(layer, "delay", None))
    own = (0, 0)
    if hasattr(layer, "recurrent_weight"):
        own = routed(spikes, layer.recurrent_weight, layer.recurrent_mask, getattr(layer, "recurrent_delay", None))
    plain, valued = (own[0], of_inputs[0]) if graded else (own[0] + of_inputs[0], 0)
    assert (found.accumulates, found.multiply_accumulates) == (plain, valued)
    assert found.buffer_writes == of_inputs[1] + own[1] and found.weight_reads == of_inputs[0] + own[0]
    steps = [20, 26, 31]  # of 20, 25.3 and 30.6 ms
    assert found.steps == sum(steps) and found.samples == 3 and found.state_updates == 3 * sum(steps)
    assert found.dense == sum(1 for n in steps for _ in range(n) for _ in range(12 + 9 * (kind != "plain")))
    there = (events.times < events.duration[events.samples]) & (events.values != 0 if graded else True)
    assert found.inputs == int(there.sum()) < events.num_events and found.spikes == spikes.num_events
    assert torch.equal(found.spikes_per_step, spikes.to_dense(DT).sum((1, 2)).long())


@pytest.mark.parametrize("delayed", [False, True])
def test_branches_as_enumerated(delayed):
    torch.manual_seed(0)
    mask = torch.rand(4, 2, 3) < 0.7
    options = {"delay": (0.0, 5e-3), "delay_kind": "axonal"} if delayed else {}
    layer = LIF(4, 3, branches=2, mask=mask, recurrent=True, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.weight.copy_(10 * layer.weight.abs() * (torch.rand(4, 2, 3) < 0.7))
    events = random_events(0, 4)
    spikes, found = layer(events), count(layer, [events], dt=DT)[""]
    there = ((layer.weight != 0) & mask).flatten(1).sum(1)
    sent = [
        int(u) for t, u, b in zip(events.times, events.units, events.samples, strict=True) if t < events.duration[b]
    ]
    back = int((layer.recurrent_weight != 0).flatten(1).sum(1)[spikes.units.long()].sum())
    assert spikes.num_events and found.accumulates == sum(int(there[u]) for u in sent) + back
    assert found.dense == (4 + 3) * 2 * 3 * found.steps and found.synapses == int(there.sum()) + 18
    late = (layer.delay > 0).flatten() & (there > 0) if delayed else torch.zeros(4, dtype=torch.bool)
    assert found.buffer_writes == sum(
        int(late[u]) for u in sent
    )  # the event itself waits: there is one delay per source


def test_a_readout_as_enumerated():
    torch.manual_seed(1)
    layer, events = LI(4, 3), random_events(0, 4)
    layer.weight.data[1] = 0
    found = count(layer, [events], dt=DT)[""]
    assert (found.accumulates, found.buffer_writes) == routed(events, layer.weight, None, None)
    assert found.spikes == 0 and found.state_updates == 3 * found.steps == 3 * 77 and found.dense == 12 * 77


def test_pruned_and_parametrized_weights():
    layer, events = spiking_layer("recurrent"), random_events(2, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    found = count(layer, [events], dt=DT)[""]
    assert found.accumulates == sum(
        routed(x, w, None, None)[0] for x, w in ((events, layer.weight), (layer(events), layer.recurrent_weight))
    )

    class Half(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (torch.arange(weight.shape[-1]) % 2)

    linear = nn.Linear(6, 2)
    parametrize.register_parametrization(linear, "weight", Half())
    assert count(linear, [torch.ones(3, 6)], dt=DT)[""].accumulates == 3 * 2 * 3


def test_a_trial_cut_in_two_costs_what_the_whole_costs():
    layer, whole = spiking_layer("synaptic"), random_events(5, 4).crop(0.0, 0.02)

    class InParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, events: Events) -> None:
            _, state = self.layer(events.crop(0.0, 0.008), return_state=True)
            self.layer(events.crop(0.008, 0.02), state=state, return_state=True)

    assert numbers(count(InParts(), [whole], dt=DT)["layer"]) == numbers(count(layer, [whole], dt=DT)[""])


# ---- recurrent layers ------------------------------------------------------------------------------------------------------

CELLS = {"EGRU": EGRUCell, "GRU": nn.GRUCell, "LSTM": nn.LSTMCell, "RNN": nn.RNNCell}
STEPS, BATCH, INPUTS, UNITS = 6, 3, 4, 5


def unrolled(layer: nn.RNNBase, samples: list[Tensor], starts: list[Any]) -> dict[str, Any]:
    """Steps and products one by one, sample by sample, with cells that have the layer's parameters."""
    found = {"plain": 0, "valued": 0, "spikes": 0, "updates": 0, "steps": [0] * max(map(len, samples))}
    plain = {}  # by layer, direction and side: whether all inputs of the products are -1, 0 or 1
    operations = {}
    kind = type(layer).__name__
    options = {"nonlinearity": "relu"} if kind == "RNN" else {}
    for x, start in zip(samples, starts, strict=True):
        flow = [row for row in x]
        for k in range(layer.num_layers):
            sides = []
            for direction in range(1 + layer.bidirectional):
                cell = CELLS[kind](len(flow[0]), UNITS, dtype=torch.float64, **options)
                suffix = f"_l{k}" + "_reverse" * direction
                for name, parameter in cell.named_parameters():
                    parameter.data = getattr(layer, name + suffix).data
                at = k * (1 + layer.bidirectional) + direction
                state = None if start is None else start(at)
                told = [None] * len(flow)
                for t in reversed(range(len(flow))) if direction else range(len(flow)):
                    y = state if state is None or kind in ("GRU", "RNN") else state[0 if kind == "LSTM" else 1]
                    pairs = {"x": (flow[t], cell.weight_ih), "y": (y, cell.weight_hh)}
                    for side, (values, weight) in pairs.items():
                        for j, value in enumerate([] if values is None else values.tolist()):
                            plain[at, side] = plain.get((at, side), True) and value in (-1, 0, 1)
                            some = sum(1 for w in weight[:, j].tolist() if w != 0) if value != 0 else 0
                            operations[at, side] = operations.get((at, side), 0) + some
                    state = cell(flow[t], state)
                    told[t] = state if kind in ("GRU", "RNN") else state[0 if kind == "LSTM" else 1]
                    fired = sum(1 for value in told[t].tolist() if value != 0)
                    found["spikes"] += fired
                    found["steps"][t] += fired
                    found["updates"] += UNITS
                sides.append(told)
            flow = [torch.cat(each) for each in zip(*sides, strict=True)]
    for key, number in operations.items():
        found["plain" if plain[key] else "valued"] += number
    return found


def recurrent_layer(kind: str, num_layers: int, bidirectional: bool, **options: Any) -> nn.RNNBase:
    torch.manual_seed(num_layers)
    own = {"nonlinearity": "relu"} if kind == "RNN" else {}
    made = EGRU if kind == "EGRU" else getattr(nn, kind)
    layer = made(INPUTS, UNITS, num_layers, bidirectional=bidirectional, dtype=torch.float64, **own, **options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("weight"):
                parameter.mul_(1.5 * (torch.rand_like(parameter) < 0.8))
    return layer.eval()


@pytest.mark.parametrize("form", ["steps first", "batch first", "packed", "packed, sorted", "one sample"])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_recurrent_layers_as_unrolled(kind, num_layers, bidirectional, form):
    layer = recurrent_layer(kind, num_layers, bidirectional, batch_first=form == "batch first")
    batch = 1 if form == "one sample" else BATCH
    lengths = torch.tensor([4, 6, 3] if form == "packed" else [6, 4, 4] if "sorted" in form else [6] * batch)
    x = torch.randn(STEPS, batch, INPUTS, dtype=torch.float64) * (torch.rand(STEPS, batch, INPUTS) < 0.5)
    x = x.sign() if num_layers == 1 else x
    start = [torch.randn(num_layers * (1 + bidirectional), batch, UNITS, dtype=torch.float64) for _ in range(2)]
    start[1] *= torch.rand_like(start[1]) < 0.5
    c, y = start
    states = {"EGRU": EGRUState(c, y), "LSTM": (y, c), "GRU": y, "RNN": y}
    given: Any = {"batch first": x.transpose(0, 1), "one sample": x[:, 0]}.get(form, x)
    if form.startswith("packed"):
        given = pack_padded_sequence(x, lengths, enforce_sorted="sorted" in form)
    state = states[kind]
    if form == "one sample":
        state = {"EGRU": EGRUState(c[:, 0], y[:, 0]), "LSTM": (y[:, 0], c[:, 0])}.get(kind, y[:, 0])

    def own(b: int) -> Any:
        parts = {"EGRU": lambda k: EGRUState(c[k, b], y[k, b]), "LSTM": lambda k: (y[k, b], c[k, b])}
        return parts.get(kind, lambda k: y[k, b])

    expected = unrolled(layer, [x[:n, b] for b, n in enumerate(lengths.tolist())], [own(b) for b in range(batch)])

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, pair: Any) -> Any:
            return self.layer(*pair)

    found = count(Call(), [(given, state)], dt=DT)["layer"]
    assert (found.accumulates, found.multiply_accumulates) == (expected["plain"], expected["valued"])
    assert (found.spikes, found.state_updates) == (expected["spikes"], expected["updates"])
    assert found.spikes_per_step.tolist() == expected["steps"]
    assert found.samples == batch and found.steps == int(lengths.sum()) and found.buffer_writes == 0
    assert found.inputs == sum(int(x[:n, b].count_nonzero()) for b, n in enumerate(lengths.tolist()))
    weights = [p for name, p in layer.named_parameters() if name.startswith("weight")]
    assert found.dense == found.steps * sum(p.numel() for p in weights)
    assert found.synapses == sum(int(p.count_nonzero()) for p in weights)


def test_gated_units_of_events():
    layer = recurrent_layer("EGRU", 2, False, step=5e-3)
    events = random_events(7, INPUTS)
    found = count(layer, [events], dt=DT)[""]
    x = events.to_dense(5e-3)
    steps = [4, 6, 7]  # of 20, 25.3 and 30.6 ms
    with torch.no_grad():
        expected = unrolled(layer, [x[:n, b] for b, n in enumerate(steps)], [None] * 3)
    assert (found.accumulates, found.multiply_accumulates) == (expected["plain"], expected["valued"])
    assert found.steps == 17 and found.samples == 3 and found.inputs == int(x.count_nonzero())
    again = count(Steps(layer), [events], dt=DT)["layer"]
    assert again == found  # with return_steps


class Steps(nn.Module):
    """The layer, called with ``return_steps``."""

    def __init__(self, layer: EGRU) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, return_steps=True)


class Unrolled(nn.Module):
    """A cell, called step by step, and a readout of its last state."""

    def __init__(self, cell: nn.Module, units: int) -> None:
        super().__init__()
        self.cell, self.readout = cell, nn.Linear(units, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.transpose(0, 1):
            state = self.cell(step, state)
        last = state.y if isinstance(state, EGRUState) else state[0] if isinstance(state, tuple) else state
        return self.readout(last)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_step_by_step_cost_what_their_layer_costs(kind):
    layer = recurrent_layer(kind, 1, False, batch_first=True)
    cell = CELLS[kind](INPUTS, UNITS, dtype=torch.float64, **({"nonlinearity": "relu"} if kind == "RNN" else {}))
    for name, parameter in cell.named_parameters():
        parameter.data = getattr(layer, name + "_l0").data
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64) * (torch.rand(BATCH, STEPS, INPUTS) < 0.6)
    found, expected = count(Unrolled(cell, UNITS), [x, x[:2]], dt=DT), count(layer, [x, x[:2]], dt=DT)[""]
    assert found["cell"] == expected and found["cell"].samples == found["readout"].samples == 5
    assert found["cell"].spikes_per_step.tolist() == expected.spikes_per_step.tolist()
    assert found["readout"].steps == 5


def test_a_projected_lstm_is_refused():
    with pytest.raises(TypeError, match="proj_size has no counter"):
        count(nn.LSTM(3, 4, proj_size=2), [torch.ones(2, 1, 3)], dt=DT)


# ---- layers without a state ------------------------------------------------------------------------------------------------


def sparse(*shape: int, every: int = 3, spikes: bool = False) -> Tensor:
    """Numbers in a pattern, many of them zero: the same on every machine."""
    k = torch.arange(1, 1 + int(torch.tensor(shape).prod()))
    return torch.where(k * k % every < every // 2, 1.0 if spikes else (k % 7 - 3) / 4.0, 0.0).reshape(shape)


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 2, 6)])
def test_linear_as_enumerated(shape, spikes):
    layer, x = nn.Linear(6, 3), sparse(*shape, every=5, spikes=spikes)
    layer.weight.data = sparse(3, 6, every=7)
    expected = sum(
        1
        for row in x.reshape(-1, 6).tolist()
        for weights in layer.weight.tolist()
        for value, weight in zip(row, weights, strict=True)
        if value != 0 and weight != 0
    )
    found = count(layer, [x], dt=DT)[""]
    assert (found.accumulates, found.multiply_accumulates) == ((expected, 0) if spikes else (0, expected))
    rows = x.numel() // 6
    assert found.dense == 18 * rows and found.steps == rows and found.samples == (shape[0] if len(shape) > 1 else 1)
    assert found.inputs == int(x.count_nonzero()) and found.weight_reads == expected and found.state_updates == 0


CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 9)),
    "1d same": (nn.Conv1d(2, 3, 4, padding="same"), (1, 2, 7)),
    "1d circular": (nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 6)),
    "2d": (nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False), (3, 2, 5, 7)),
    "2d depthwise": (nn.Conv2d(3, 3, 3, padding=1, groups=3), (2, 3, 5, 5)),
    "2d one image": (nn.Conv2d(2, 2, 2), (2, 4, 4)),
    "3d": (nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=(0, 1, 1)), (2, 1, 3, 4, 3)),
}


def enumerated(layer: Any, x: Tensor) -> tuple[int, int]:
    """Products of a convolution one by one: those of numbers that are not zero, and all."""
    dims = len(layer.kernel_size)
    images, weight = x.reshape(-1, *x.shape[-dims - 1 :]).numpy(), layer.weight.detach().numpy()
    sizes, reach = images.shape[2:], [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    padding = [(r // 2, r) for r in reach] if layer.padding == "same" else [(p, 2 * p) for p in layer.padding]
    outputs = [
        (size + both - r - 1) // stride + 1
        for size, (_, both), r, stride in zip(sizes, padding, reach, layer.stride, strict=True)
    ]
    effective = dense = 0
    per_group, group_size = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for b, at, out in itertools.product(
        range(len(images)), itertools.product(*map(range, outputs)), range(layer.out_channels)
    ):
        for i, tap in itertools.product(range(per_group), itertools.product(*map(range, layer.kernel_size))):
            place = [
                o * s - p + t * d
                for o, s, (p, _), t, d in zip(at, layer.stride, padding, tap, layer.dilation, strict=True)
            ]
            if layer.padding_mode == "circular":
                place = [p % size for p, size in zip(place, sizes, strict=True)]
            if not all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
                continue
            dense += 1
            value = images[(b, out // group_size * per_group + i, *place)]
            effective += bool(value != 0 and weight[(out, i, *tap)] != 0)
    return effective, dense


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_as_enumerated(name, spikes):
    layer, shape = CONVOLUTIONS[name]
    x = sparse(*shape, every=5, spikes=spikes)
    layer.weight.data = sparse(*layer.weight.shape, every=7)
    found, (effective, dense) = count(layer, [x], dt=DT)[""], enumerated(layer, x)
    assert (found.accumulates, found.multiply_accumulates) == ((effective, 0) if spikes else (0, effective))
    assert found.dense == dense > effective > 0
    assert found.samples == found.steps == (shape[0] if len(shape) == len(layer.kernel_size) + 2 else 1)
    assert found.neurons * found.samples == layer(x).numel()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("plain", [True, False])
def test_an_elm_as_enumerated(version, outputs, plain):
    torch.manual_seed(0)
    layer = ELM(5, outputs, memory=3, branches=2, synapses=4, hidden=6, version=version, routing="random")
    layer.weight.data[0, 1] = -0.5  # no synapse
    layer.mlp_in.weight.data *= torch.rand(6, 5) < 0.8
    layer.mlp_out.weight.data *= torch.rand(3, 6) < 0.8
    x = (torch.rand(7, 2, 5) < 0.4).float() * (1.0 if plain else 0.5)
    found = count(layer, [x], dt=DT)[""]
    _, _, steps = layer(x, return_steps=True)
    of_inputs, others = 0, 0
    for t, b in itertools.product(range(7), range(2)):
        for j, s in itertools.product(range(2), range(4)):
            of_inputs += int(x[t, b, layer.index[j, s]] != 0 and layer.weight[j, s] > 0)
        before = steps.memory[t - 1, b] if t else torch.zeros(3)
        told = torch.cat([steps.branch[t, b], before])
        others += sum(int(w != 0 and told[k] != 0) for row in layer.mlp_in.weight for k, w in enumerate(row))
        others += sum(
            int(w != 0 and steps.hidden[t, b, k] != 0) for row in layer.mlp_out.weight for k, w in enumerate(row)
        )
        others += 0 if outputs is None else 3 * outputs
    assert (steps.hidden == 0).any() and (steps.hidden != 0).any()
    assert (found.accumulates, found.multiply_accumulates) == (
        (of_inputs, others) if plain else (0, of_inputs + others)
    )
    assert found.dense == 14 * (8 + 6 * 5 + 3 * 6 + 3 * (outputs or 0))
    assert found.state_updates == 14 * (3 + (8 if version == 1 else 2))
    assert (found.samples, found.steps, found.neurons) == (2, 14, 3)


class InContext(nn.Module):
    """Two units' worth of tasks: the samples know theirs."""

    def __init__(self, layer: ActiveDendrites, contexts: Tensor, shared: bool) -> None:
        super().__init__()
        self.layer, self.contexts, self.shared = layer, contexts, shared

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(len(x)) % len(self.contexts)
        return self.layer(x, (self.contexts, index) if self.shared else self.contexts[index])


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("shared", [True, False])
def test_segments_cost_what_their_contexts_meet(density, shared):
    torch.manual_seed(0)
    layer = ActiveDendrites(6, 5, 3, 8, density=density, segment_density=density)
    contexts = torch.randn(2, 8) * (torch.rand(2, 8) < 0.7)
    found = count(InContext(layer, contexts, shared), [torch.randn(7, 6)], dt=DT)
    seen = contexts if shared else contexts[torch.arange(7) % 2]
    assert layer.segments is not None
    there = (layer.segments.weight != 0).long().sum((0, 1))
    assert found["layer.segments"].synaptic_operations == int(((seen != 0).long() * there).sum())
    assert found["layer.segments"].dense == len(seen) * 5 * 3 * 8
    assert found["layer.linear"].synaptic_operations == 7 * 5 * round(6 * density)
    assert found["layer.segments"].samples == found["layer.linear"].samples == 7


@pytest.mark.parametrize(("tasks", "features", "batches"), [(3, 8, (7,)), (1, 5, (4, 6))])
def test_the_nearest_prototype_costs_a_product_with_each(tasks, features, batches):
    """Rows x tasks x features multiply-accumulates; what is zero in an input, or in a prototype, costs nothing."""
    torch.manual_seed(0)
    prototypes = Prototypes(features)
    for _ in range(tasks):
        prototypes.add(torch.rand(9, features) + 0.1)
    found = count(prototypes, [torch.rand(rows, features) + 0.1 for rows in batches], dt=DT)[""]
    rows = sum(batches)
    assert found.multiply_accumulates == found.dense == found.weight_reads == rows * tasks * features
    assert (found.accumulates, found.state_updates, found.neurons, found.spikes) == (0, 0, 0, 0)
    assert (found.samples, found.steps, found.inputs, found.synapses) == (rows, rows, rows * features, tasks * features)
    prototypes.contexts[:, 0] = 0
    x = torch.rand(2, features) + 0.1
    x[0, 1] = 0
    sparse = count(prototypes, [x], dt=DT)[""]
    assert sparse.multiply_accumulates == tasks * (2 * (features - 1) - 1) and sparse.dense == 2 * tasks * features


def test_rows_of_an_embedding_are_read():
    layer = nn.Embedding(5, 3, padding_idx=0)
    found = count(layer, [torch.tensor([[1, 2, 0], [4, 4, 0]])], dt=DT)[""]
    assert found.weight_reads == 4 * 3 and found.synaptic_operations == found.dense == 0
    assert found.inputs == 4 and found.samples == 2 and found.steps == 6


# ---- properties ------------------------------------------------------------------------------------------------------------


def networks() -> dict[str, tuple[nn.Module, Any]]:
    """Networks and their input: a batch of nine samples."""
    torch.manual_seed(3)
    events = random_events(9, 4, batch=9)
    layers = nn.Sequential(spiking_layer("synaptic"), LI(3, 2, dtype=torch.float64))
    numbers = torch.randn(9, 5, 4, dtype=torch.float64) * (torch.rand(9, 5, 4) < 0.5)
    images = sparse(9, 2, 6, 6, every=5)
    convolutions = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(108, 4)
    )
    return {
        "spiking": (layers, events),
        "graded": (spiking_layer("axonal"), random_events(2, 4, batch=9, graded=True)),
        "EGRU of events": (recurrent_layer("EGRU", 2, True, step=4e-3), events),
        "EGRU": (recurrent_layer("EGRU", 1, False, batch_first=True), numbers),
        "GRU": (recurrent_layer("GRU", 2, True, batch_first=True), numbers),
        "LSTM": (recurrent_layer("LSTM", 1, False, batch_first=True), numbers),
        "images": (convolutions, images),
    }


NETWORKS = networks()
WHOLE = {name: count(network, [x], dt=DT) for name, (network, x) in NETWORKS.items()}


@given(st.sampled_from(sorted(NETWORKS)), st.permutations(range(9)), st.sets(st.integers(1, 8)))
def test_samples_in_any_order_and_batches_add_up(name, order, cuts):
    network, x = NETWORKS[name]
    ends = [0, *sorted(cuts), 9]
    batches = [x[torch.tensor(order[a:b])] for a, b in itertools.pairwise(ends)]
    found = count(network, batches, dt=DT)
    assert {k: numbers(v) for k, v in found.items()} == {k: numbers(v) for k, v in WHOLE[name].items()}
    for layer, counts in found.items():
        assert torch.equal(counts.spikes_per_step, WHOLE[name][layer].spikes_per_step)


@pytest.mark.parametrize("name", NETWORKS)
def test_silence_costs_nothing(name):
    network, x = NETWORKS[name]
    quiet = x.keep(torch.zeros(x.num_events, dtype=torch.bool)) if isinstance(x, Events) else torch.zeros_like(x)
    found = count(network, [quiet], dt=DT)
    first = found[next(iter(found))]
    assert first.inputs == 0 and first.dense > 0 and first.samples == 9
    if isinstance(x, Events) and not isinstance(network, EGRU):  # gated units may fire by their biases alone
        assert total(found.values()).synaptic_operations == total(found.values()).buffer_writes == 0


@given(st.sampled_from([name for name in NETWORKS if name != "images"]), st.integers(0, 2**20))
def test_what_is_zero_costs_nothing(name, seed):
    network, x = NETWORKS[name]
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if "weight" in key:
                    parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.5)
        found = count(network, [x], dt=DT)
        weights = [p for key, p in network.named_parameters() if "weight" in key]
        present = sum(int(p.count_nonzero()) for p in weights)
        assert total(found.values()).synapses <= present  # masked ones are not there
        for parameter in weights:
            parameter.data.zero_()
        nothing = total(count(network, [x], dt=DT).values())
        assert nothing.synaptic_operations == nothing.synapses == nothing.weight_reads == nothing.buffer_writes == 0
        assert nothing.dense == total(WHOLE[name].values()).dense
    finally:
        network.load_state_dict(kept)


def test_counts_are_added_layer_by_layer_and_batch_by_batch():
    one, two = Counts(samples=1, steps=2, neurons=3, spikes=4), Counts(samples=2, steps=5, neurons=3, spikes=1)
    assert (one + two).samples == 3 and (one + two).steps == 7 and (one + two).neurons == 3 and (one + two).spikes == 5
    assert total([]) == Counts() and total([one, one]).neurons == 6 and total([one, one]).samples == 1
    profile = Counts(spikes_per_step=torch.tensor([1, 2])) + Counts(spikes_per_step=torch.tensor([1, 0, 5]))
    assert profile.spikes_per_step.tolist() == [2, 2, 5]
    assert per_sample_of({"a": two})["a"]["spikes"] == 0.5 and "samples" not in two.per_sample()


# ---- count itself ----------------------------------------------------------------------------------------------------------


def test_modes_are_kept_and_a_layer_of_two_names_counts_once():
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.Dropout(0.9), nn.BatchNorm1d(3).eval(), nn.Sequential(shared))
    network.train()
    network[2].eval()
    found = count(network, [torch.ones(4, 3)], dt=DT)
    assert [m.training for m in network] == [True, True, False, True] and network.training
    assert list(found) == ["0"] and found["0"].samples == 4 and found["0"].steps == 8
    assert not shared._forward_hooks


def test_samples_are_those_of_the_network():
    network = nn.Sequential(EGRU(4, 3), First(), nn.Linear(3, 2))
    found = count(network, [torch.randn(7, 2, 4)], dt=DT)
    assert found["0"].samples == found["2"].samples == 2 and found["2"].steps == 14


class First(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[0]


def test_weights_without_a_counter_are_refused():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = nn.Parameter(torch.eye(3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.mixing

    for layer in (nn.Bilinear(2, 2, 2), nn.ConvTranspose1d(2, 2, 1), nn.MultiheadAttention(4, 2), Own()):
        with pytest.raises(TypeError, match=rf"^1: a {type(layer).__name__} with weights has no counter"):
            count(nn.Sequential(nn.ReLU(), layer), [], dt=DT)
    others = nn.Sequential(nn.LayerNorm(3), nn.PReLU(), nn.BatchNorm1d(3), nn.AvgPool1d(1), nn.Identity())
    assert count(others, [torch.ones(2, 3)], dt=DT) == {}
    counter(Own)(lambda layer, args, kwargs, output, dt: Counts(accumulates=7))
    try:
        assert count(Own(), [torch.ones(2, 3)], dt=DT)[""].per_sample()["accumulates"] == 3.5
    finally:
        del COUNTERS[Own]


@pytest.mark.parametrize("dt", [0, -1e-3, float("inf"), float("nan")])
def test_dt_is_checked(dt):
    with pytest.raises(ValueError, match="dt: expected seconds > 0"):
        count(nn.Linear(1, 1), [], dt=dt)


# ---- peers -----------------------------------------------------------------------------------------------------------------
# Their numbers were written down once, so that they hold where the peers are not installed; where they are, they are asked.

NEUROBENCH = {  # 2.3.0, single_layer_MACs: effective operations, whether they are accumulates, and all operations
    "linear of numbers": (27, False, 90),
    "convolution 1d of numbers": (90, False, 312),
    "convolution 1d circular of numbers": (80, False, 288),
    "convolution 2d of numbers": (216, False, 810),
    "convolution 2d depthwise of numbers": (257, False, 1014),
    "convolution 3d of numbers": (116, False, 384),
    "RNN cell of numbers": (80, False, 200),
    "GRU cell of numbers": (305, False, 660),
    "LSTM cell of numbers": (389, False, 860),
    "linear of spikes": (30, True, 90),
    "convolution 1d of spikes": (106, True, 312),
    "convolution 1d circular of spikes": (90, True, 288),
    "convolution 2d of spikes": (285, True, 810),
    "convolution 2d depthwise of spikes": (298, True, 1014),
    "convolution 3d of spikes": (133, True, 384),
    "RNN cell of spikes": (84, True, 200),
    "GRU cell of spikes": (318, True, 660),
    "LSTM cell of spikes": (407, True, 860),
}
NEUROBENCH_NETWORK = {"Effective_MACs": 22.5, "Effective_ACs": 450.0, "Dense": 1420.0}  # SynapticOperations, per sample
SPIKINGJELLY = {"0": 900, "2": 372}  # 2.0.0, SynOpCounter


def shared_layers() -> dict[str, tuple[nn.Module, Any]]:
    """Layers that NeuroBench counts too, with weights and inputs in a pattern."""
    made: dict[str, tuple[nn.Module, Any]] = {}
    for kind, spikes in (("numbers", False), ("spikes", True)):
        made[f"linear of {kind}"] = nn.Linear(6, 3), sparse(5, 6, every=5, spikes=spikes)
        for name in ("1d", "1d circular", "2d", "2d depthwise", "3d"):
            layer, shape = CONVOLUTIONS[name]
            made[f"convolution {name} of {kind}"] = layer, sparse(*shape, every=5, spikes=spikes)
        inputs, state = sparse(5, 6, every=5, spikes=spikes), sparse(5, 4, every=3) + 0.1
        made[f"RNN cell of {kind}"] = nn.RNNCell(6, 4), (inputs, state)
        made[f"GRU cell of {kind}"] = nn.GRUCell(6, 4), (inputs, state)
        made[f"LSTM cell of {kind}"] = nn.LSTMCell(6, 4), (inputs, (state, state))
    for layer, _ in made.values():
        for name, parameter in layer.named_parameters():
            parameter.data = sparse(*parameter.shape, every=7) if "weight" in name else torch.ones_like(parameter)
    return made


def test_neurobench_counts_the_same():
    for name, (layer, x) in shared_layers().items():
        found = count(Apart(layer), [x], dt=DT)["layer"]
        effective, spiking, dense = NEUROBENCH[name]
        # NeuroBench adds three products of gates for each unit and sample, none of which is zero here
        gates = 3 * 5 * 4 if "GRU" in name or "LSTM" in name else 0
        assert (found.synaptic_operations, found.dense) == (effective - gates, dense - gates), name
        if "cell" not in name:
            assert (found.accumulates if spiking else found.multiply_accumulates) == effective
        else:  # it judges a cell by x alone
            assert spiking == (found.accumulates > 0) and found.multiply_accumulates > 0


def test_the_numbers_of_neurobench_are_its_own():
    layers = pytest.importorskip("neurobench.metrics.utils.layers")
    for name, (layer, x) in shared_layers().items():
        effective, spiking = layers.single_layer_MACs(x, layer)
        assert NEUROBENCH[name] == (effective, spiking, layers.single_layer_MACs(x, layer, total=True)[0]), name


class Apart(nn.Module):
    """A layer whose arguments may come as a tuple."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(*x) if isinstance(x, tuple) else self.layer(x)


def ordinary() -> tuple[nn.Module, Tensor]:
    """A network of layers that NeuroBench counts, and images."""
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    )
    for name, parameter in network.named_parameters():
        parameter.data = sparse(*parameter.shape, every=7) * ("weight" in name)
    return network, sparse(4, 2, 11, 11, every=5, spikes=True)


def test_neurobench_counts_the_same_of_a_network():
    network, x = ordinary()
    found = total(count(network, [x], dt=DT).values()).per_sample()
    assert found["multiply_accumulates"] == NEUROBENCH_NETWORK["Effective_MACs"] > 0
    assert found["accumulates"] == NEUROBENCH_NETWORK["Effective_ACs"] > 0
    assert found["dense"] == NEUROBENCH_NETWORK["Dense"]


def test_the_numbers_of_neurobench_of_a_network_are_its_own():
    models, metrics = (pytest.importorskip(f"neurobench.{name}") for name in ("models", "metrics.workload"))
    network, x = ordinary()
    model = models.TorchModel(network)
    model.register_hooks()
    output, metric = model(x), metrics.SynapticOperations()
    assert metric(model, output, (x, torch.zeros(4))) == NEUROBENCH_NETWORK


class Fire(nn.Module):
    """Integrate and fire, reset to 0: SpikingJelly's IFNode in one file."""

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for now in x:
            v = v + now
            spikes.append((v >= 1).to(x.dtype))
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


def stepwise(neurons: Any) -> tuple[nn.Module, Tensor]:
    """Two layers of neurons behind linear ones, and spikes ``(T, B, N)``."""
    network = nn.Sequential(nn.Linear(7, 9, bias=False), neurons(), nn.Linear(9, 4, bias=False), neurons())
    for k in (0, 2):
        shape = network[k].weight.shape
        network[k].weight.data = (torch.arange(shape.numel()) % 5 - 1.25).reshape(shape) / 4  # none is zero
    return network, sparse(8, 3, 7, every=5, spikes=True)


def test_spikingjelly_counts_the_same():
    network, x = stepwise(Fire)
    found = count(network, [x], dt=DT)
    assert {name: each.accumulates for name, each in found.items()} == SPIKINGJELLY
    assert total(found.values()).multiply_accumulates == 0


def test_the_numbers_of_spikingjelly_are_its_own():
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    network, x = stepwise(lambda: neuron.IFNode(v_reset=0.0, step_mode="m"))
    operations = counters.SynOpCounter()
    with torch.no_grad(), counters.DispatchCounterMode([operations]):
        output = network(x)
    counts = operations.get_counts()
    assert {name: sum(counts[f"Sequential.{name}"].values()) for name in SPIKINGJELLY} == SPIKINGJELLY
    assert torch.equal(output, stepwise(Fire)[0](x))


def test_layers_driven_by_currents_are_refused():
    """No hook sees ``drive``: without a word the counts would be too low."""
    model = nn.Sequential(Dense(LIF(4, 3), 1e-2, inputs="currents", outputs="trace"), nn.Linear(3, 2))
    x = torch.rand(5, 2, 4)
    expected = model(x)
    with pytest.raises(NotImplementedError, match=r"layer 0\.layer is driven by currents .*Events\.from_latency"):
        count(model, [x], dt=1e-3)
    assert torch.equal(model(x), expected)  # it drives as ever
