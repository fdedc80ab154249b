"""Counts of the fixed-point network are what enumeration over the simulation's spikes finds, synapse by synapse."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hardware_networks import random_convolution, random_network
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.counting import Counts
from eventnet.hardware import compile, deployment
from eventnet.hardware.counting import count_deployed, counts_of
from eventnet.hardware.deployment import Deployment
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Convolution, HardwareNetwork, Inputs, Projection, Sparse
from eventnet.hardware.reading import Reading


def random_events(seed: int, units: int, batch: int = 3, events: int = 12) -> Events:
    """Samples of several lengths, one silent, some events at or after the end of their sample."""
    generator = torch.Generator().manual_seed(seed)
    times = [(torch.rand(events * (b != 1), generator=generator) * 0.03).sort().values for b in range(batch)]
    samples = [(x, torch.randint(units, x.shape, generator=generator)) for x in times]
    return Events.from_list(samples, units, [0.02 + 0.0053 * (b % 3) for b in range(batch)])


def synapses(projection: Projection, sources: int, targets: int) -> list[tuple[int, int, int, int]]:
    """``(source, target, weight, delay)``, one by one."""
    weight, delay = projection.effective().tolist(), getattr(projection, "delay", None)
    if isinstance(projection, Sparse):
        late = [0] * len(weight) if delay is None else delay.tolist()
        return list(zip(projection.rows.tolist(), projection.columns.tolist(), weight, late, strict=True))
    if isinstance(projection, Convolution):
        return list(pixels(projection))
    return [
        (j, n, weight[j][n], 0 if delay is None else int(delay[j, n])) for j in range(sources) for n in range(targets)
    ]


def pixels(projection: Convolution) -> Any:
    """Synapses of a convolution."""
    (channels, height, width), (_, rows, columns) = projection.shape, projection.out_shape
    kernel = projection.weight
    per_group, group = channels // projection.groups, len(kernel) // projection.groups
    for out, row, column in itertools.product(range(len(kernel)), range(rows), range(columns)):
        for i, a, b in itertools.product(*map(range, kernel.shape[1:])):
            y = row * projection.stride[0] - projection.padding[0] + a * projection.dilation[0]
            x = column * projection.stride[1] - projection.padding[1] + b * projection.dilation[1]
            if 0 <= y < height and 0 <= x < width:
                source = ((out // group * per_group + i) * height + y) * width + x
                yield source, (out * rows + row) * columns + column, int(kernel[out, i, a, b]), 0


def enumerated(found: Deployment, events: Events) -> dict[str, dict[str, int]]:
    """Each sample alone: its spikes step by step, and what each does at each synapse."""
    network = found.network
    counts = {each.name: dict.fromkeys(ENUMERATED, 0) for each in network.populations}
    for b in range(events.batch_size):
        record = simulate(network, found.raster(events[b : b + 1]), backend="reference")
        steps = int(events.num_steps(network.dt)[b]) + 1 + found.reading.lag
        spikes: dict[str, Tensor] = {name: x[:steps, 0] for name, x in record.spikes.items()}
        for name, own in counts.items():
            own["steps"] += steps
            own["spikes"] += sum(1 for x in spikes[name].flatten().tolist() if x != 0)
            own["state_updates"] += 0 if isinstance(network[name], Inputs) else steps * network[name].size
        for each in network.projections:
            own = counts[each.target]
            kind = "multiply_accumulates" if each.message_bits else "accumulates"
            ends = network[each.source].size, network[each.target].ports[each.port]
            listed = synapses(each, *ends)
            own["dense"] += steps * len(listed)
            fired = (spikes[each.source] != 0).sum(0).tolist()
            for source, _, weight, delay in listed:
                own[kind] += fired[source] * (weight != 0)
                own["buffer_writes"] += fired[source] * (weight != 0) * (delay > 0)
    return counts


ENUMERATED = ("steps", "spikes", "accumulates", "multiply_accumulates", "dense", "state_updates", "buffer_writes")


def deployed(network: HardwareNetwork) -> Deployment:
    """A graph with a reading of any kind."""
    size = network.neurons[-1].size
    return Deployment(network, Reading("count", volts=(1.0,) * size, offset=(0.0,) * size))


def fields(counts: dict[str, Counts]) -> dict[str, dict[str, int]]:
    return {name: {each: getattr(x, each) for each in ENUMERATED} for name, x in counts.items()}


def test_random_networks_as_enumerated():
    kinds: set[str] = set()
    for seed in range(16):
        network, _ = random_network(seed)
        found, events = deployed(network), random_events(seed, network.inputs[0].size, events=30)
        counts = count_deployed(found, events)
        assert fields(counts) == enumerated(found, events)
        for name, each in counts.items():
            assert each.weight_reads == each.synaptic_operations and each.samples == 3
            assert int(each.spikes_per_step.sum()) == each.spikes and each.neurons == network[name].size
            assert each.inputs == sum(
                counts[source].spikes for source in {p.source for p in network.onto(name)} - {name}
            )
            kinds |= {kind for kind in ENUMERATED if getattr(each, kind)}
    assert kinds == set(ENUMERATED)  # all of them were there


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_as_enumerated(seed):
    network, _ = random_convolution(seed)
    found, events = deployed(network), random_events(seed, network.inputs[0].size, events=60)
    counts = count_deployed(found, events)
    assert fields(counts) == enumerated(found, events) and counts["hidden"].accumulates > 0
    assert sum(each.synapses for each in counts.values()) == network.num_synapses


def test_a_gated_network_as_enumerated():
    torch.manual_seed(0)
    events = random_events(3, 5, events=40)
    model = nn.ModuleList([EGRU(5, 6, num_layers=2, step=2e-3), nn.Linear(6, 3)])
    for threshold in (model[0].threshold_l0, model[0].threshold_l1):
        threshold.data.fill_(0.02)
    found = compile(list(model), calibration=events)
    counts = count_deployed(found, events)
    assert fields(counts) == enumerated(found, events)
    assert found.reading.lag == 2 and counts["hidden_0"].steps == sum(n + 3 for n in (10, 13, 16))
    assert counts["hidden_1"].multiply_accumulates > 0 and counts["output"].multiply_accumulates > 0


def small() -> tuple[Deployment, Events]:
    """A compiled network of two layers, and samples for it."""
    torch.manual_seed(2)
    model = nn.Sequential(LIF(6, 8, recurrent=True, delay=(0.0, 5e-3)), LI(8, 3))
    model[0].weight.data.abs_().mul_(8)
    events = random_events(4, 6, batch=20, events=20)
    return compile(model, calibration=events, search=False), events


def test_pieces_add_up(monkeypatch):
    found, events = small()
    whole = count_deployed(found, events)
    monkeypatch.setattr(deployment, "SAMPLES", 3)
    monkeypatch.setattr(deployment, "STEPS", 7)
    apart = count_deployed(found, events)
    assert apart == whole and whole["hidden_0"].buffer_writes > 0
    assert all(torch.equal(apart[name].spikes_per_step, whole[name].spikes_per_step) for name in whole)


@given(st.permutations(range(20)), st.integers(1, 19))
def test_samples_in_any_order_and_batches_add_up(order, cut):
    found, events = SMALL
    parts = [count_deployed(found, events[order[:cut]]), count_deployed(found, events[order[cut:]])]
    for name, whole in WHOLE.items():
        assert parts[0][name] + parts[1][name] == whole


SMALL = small()
WHOLE = count_deployed(SMALL[0], SMALL[1])


def test_silence_and_zero_weights_cost_nothing():
    found, events = small()
    quiet = count_deployed(found, events.keep(torch.zeros(events.num_events, dtype=torch.bool)))
    assert all(each.synaptic_operations == each.spikes == each.buffer_writes == 0 for each in quiet.values())
    assert quiet["hidden_0"].dense > 0 and quiet["hidden_0"].state_updates == WHOLE["hidden_0"].state_updates
    network = found.network
    nothing = [dataclasses.replace(each, weight=torch.zeros_like(each.weight)) for each in network.projections]
    counts = count_deployed(dataclasses.replace(found, network=network.changed(projections=nothing)), events)
    assert counts["hidden_0"].synaptic_operations == counts["hidden_0"].synapses == 0
    assert counts["input"].spikes == WHOLE["input"].spikes


def test_the_report_counts_all_samples():
    found, events = SMALL
    counts = found.report(events).facts["counts"]
    assert counts["samples"] == 20
    operations = counts["synaptic_operations_per_sample"]
    onto = operations["input->hidden_0"] + operations["hidden_0->hidden_0"]
    assert onto * 20 == pytest.approx(WHOLE["hidden_0"].synaptic_operations)
    assert counts["spikes_per_sample"]["hidden_0"] * 20 == pytest.approx(WHOLE["hidden_0"].spikes)
    assert counts["populations"]["output"]["accumulates"] * 20 == pytest.approx(WHOLE["output"].accumulates)
    assert counts_of(found.network, found.run(events)) == WHOLE
