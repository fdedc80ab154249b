"""Our networks in NeuroBench's harness: its numbers are those of a brute-force enumeration of what each connection receives."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from eventnet import EGRU, LI, LIF, Events, data
from eventnet.data.dataset import lagged
from eventnet.training import GatedRecipe, SpikingRecipe, build, find

pytest.importorskip("neurobench")
pytest.importorskip("snntorch")

from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import (
    SMAPE,
    ActivationSparsity,
    ClassificationAccuracy,
    MembraneUpdates,
    SynapticOperations,
)

from eventnet.training.neurobench import EventLoader, to_neurobench

pytestmark = pytest.mark.usefixtures("one_thread")

STATIC = [ConnectionSparsity, Footprint, ParameterCount]
WORK = [ActivationSparsity, MembraneUpdates, SynapticOperations]
DT = 1e-3


def harness(model, loader, *more):
    return Benchmark(model, loader, [], [], [STATIC, [*WORK, *more]]).run(quiet=True)


def poisson(batch: int, units: int, durations: list[float], seed: int = 0, graded: bool = False) -> Events:
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for duration in durations[:batch]:
        times = torch.rand(40, generator=generator).sort().values * duration
        samples.append((times, torch.randint(0, units, (40,), generator=generator)))
    plain = Events.from_list(samples, units, durations)
    if not graded:
        return plain
    values = torch.rand(plain.num_events, generator=generator) + 0.1
    return Events(plain.times, plain.units, plain.offsets, units, plain.duration, values)


def cells(events: Events, dt: float = DT) -> set[tuple[int, int, int]]:
    """(sample, step, unit) of every event, one by one."""
    found = set()
    for sample, (times, units) in enumerate(events.to_list()):
        for time, unit in zip(times.tolist(), units.tolist(), strict=True):
            found.add((sample, int(time / dt + 1e-6), unit))
    return found


def fan_out(weight: torch.Tensor, unit: int) -> int:
    """Synapses of an input unit of a weight (in, out)."""
    return sum(int(w != 0) for w in weight[unit].tolist())


def chain() -> nn.Sequential:
    torch.manual_seed(1)
    mask = torch.rand(6, 5) < 0.7
    first = LIF(6, 5, recurrent=True, mask=mask, tau_mem=10e-3, delay=(0.0, 2e-3))
    second, readout = LIF(5, 4, tau_mem=10e-3), LI(4, 3)
    with torch.no_grad():
        first.weight.abs_().mul_(8)
        second.weight.abs_().mul_(8)
        readout.weight[1] = 0
    return nn.Sequential(first, second, readout)


def test_a_chain_of_lif_layers_is_counted_as_by_hand():
    network, durations = chain(), [0.03, 0.05, 0.02]
    events = poisson(3, 6, durations)
    dataset = data.EventDataset(events, torch.tensor([0, 1, 2]))
    model = to_neurobench(network, DT, output=lambda voltage: voltage.max().argmax(1))
    found = harness(model, EventLoader(dataset, 3), ClassificationAccuracy)

    first, second, readout = network
    spikes = first(events)
    more = second(spikes)
    assert spikes.num_events > 20 and more.num_events > 5
    effective = sum(fan_out(first.weight * first.mask, unit) for _, _, unit in cells(events))
    effective += sum(fan_out(first.recurrent_weight, unit) for _, _, unit in cells(spikes))
    effective += sum(fan_out(second.weight, unit) for _, _, unit in cells(spikes))
    effective += sum(fan_out(readout.weight, unit) for _, _, unit in cells(more))
    steps = sum(round(duration / DT) for duration in durations)
    dense = steps * (6 * 5 + 5 * 5 + 5 * 4 + 4 * 3)
    operations = found["SynapticOperations"]
    assert operations["Effective_ACs"] * 3 == pytest.approx(effective, abs=1e-9)
    assert operations["Effective_MACs"] == 0 and operations["Dense"] * 3 == pytest.approx(dense, abs=1e-9)
    told = len(cells(spikes)) + len(cells(more))
    assert found["ActivationSparsity"] == pytest.approx(1 - told / (steps * 9))

    weights = [(first.weight * first.mask), first.recurrent_weight, second.weight, readout.weight]
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert found["ConnectionSparsity"] == pytest.approx(zeros / (30 + 25 + 20 + 12), abs=1e-4)
    assert found["ParameterCount"] == sum(p.numel() for p in network.parameters())
    tensors = [*network.parameters(), *network.buffers()]
    assert found["Footprint"] == sum(t.numel() * t.element_size() for t in tensors) + 4 * 2 * (5 + 4 + 3)
    right = network(events).max().argmax(1) == dataset.labels
    assert found["ClassificationAccuracy"] == pytest.approx(right.float().mean().item())


def test_membrane_updates_are_the_steps_in_which_a_voltage_changes():
    layer = LIF(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, 0.0]]))
    events = Events.from_list([([0.0045], [0])], 1, 0.01)
    found = harness(
        to_neurobench(nn.Sequential(layer), DT, output=lambda spikes: spikes.counts().argmax(1)),
        EventLoader(data.EventDataset(events, torch.tensor([0])), 1),
    )
    # both neurons in the first step, as NeuroBench has it; then the first one from the step of its event on
    assert found["MembraneUpdates"] == 2 + 6 and found["SynapticOperations"]["Effective_ACs"] == 1


def test_spikes_of_a_unit_in_one_step_count_once_and_are_reported():
    events = Events.from_list([([0.0101, 0.0102, 0.02], [0, 0, 0])], 2, 0.03)
    model = to_neurobench(nn.Sequential(LI(2, 3)), DT, output=lambda voltage: voltage.max().argmax(1))
    found = harness(model, EventLoader(data.EventDataset(events, torch.tensor([0])), 1))
    assert found["SynapticOperations"]["Effective_ACs"] == 2 * 3 and model.merged == 1


def test_hidden_spikes_in_one_step_are_reported_once():
    first, second = LIF(2, 1, tau_mem=10e-3), LIF(1, 2)
    with torch.no_grad():
        first.weight.fill_(200.0)
    events = Events.from_list([([0.0005, 0.001], [0, 1])], 2, 0.03)
    spikes = first(events)
    lost = spikes.num_events - len(cells(spikes))
    assert lost > 3 and len(cells(events)) == 2
    for network in (nn.Sequential(first, second), nn.Sequential(first)):
        model = to_neurobench(network, DT, output=lambda spikes: spikes.counts().argmax(1))
        model(events)
        assert model.merged == lost


def ragged_gated(**changes):
    recipe = GatedRecipe("small", hidden=(6, 6), step=5e-3, threshold_mean=0.1, **changes)
    network = build(recipe, 6, 6)
    with torch.no_grad():
        if network.direct is not None:
            network.direct.weight.normal_()
        if recipe.standardize:
            network.mean.fill_(0.5)
    return network


class Apart(nn.Module):
    """A linear layer before the units, which gets all steps: (B, T, N) or (T, B, N)."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.before, self.units, self.first = nn.Linear(6, 5), EGRU(5, 4, threshold_mean=0.1), batch_first

    def forward(self, events: Events) -> torch.Tensor:
        x = events.to_dense(5e-3)
        x = self.before(x.transpose(0, 1)).transpose(0, 1) if self.first else self.before(x)
        lengths = events.num_steps(5e-3)
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.units(x)[0])[0].sum((0, 2))


RAGGED = {
    "LIF": lambda: to_neurobench(chain(), DT, output=lambda voltage: voltage.max().argmax(1)),
    "LIF at the end": lambda: to_neurobench(chain()[:2], DT, output=lambda spikes: spikes.counts().argmax(1)),
    "embedding": lambda: to_neurobench(ragged_gated(embedding=4, readout="mean")),
    "tied, each": lambda: to_neurobench(ragged_gated(embedding=4, readout="each", tied=True)),
    "direct": lambda: to_neurobench(
        ragged_gated(readout="each", direct=True, standardize=True), output=lambda outcome: outcome.scores[:, 0, 0]
    ),
    "gru": lambda: to_neurobench(ragged_gated(readout="each", unit="gru")),
    "(B, T, N)": lambda: to_neurobench(Apart(True), 5e-3, output=lambda out: out),
    "(T, B, N)": lambda: to_neurobench(Apart(False), 5e-3, output=lambda out: out),
}


@pytest.mark.parametrize("name", RAGGED)
@torch.no_grad()
def test_a_batch_of_several_lengths_costs_what_its_samples_cost(name):
    events = poisson(3, 6, [0.03, 0.05, 0.02], graded="LIF" not in name)
    dataset = data.EventDataset(events, torch.tensor([0, 1, 2]))
    whole, single = (harness(RAGGED[name](), EventLoader(dataset, size)) for size in (3, 1))
    assert whole["SynapticOperations"] == pytest.approx(single["SynapticOperations"], rel=1e-9)
    assert whole["MembraneUpdates"] == pytest.approx(single["MembraneUpdates"], rel=1e-9)
    assert whole["SynapticOperations"]["Dense"] > 0 and (whole["MembraneUpdates"] > 0) == (name != "gru")


def test_samples_as_many_as_steps_are_not_guessed():
    events = poisson(3, 6, [0.015, 0.01, 0.005], graded=True)
    with pytest.raises(NotImplementedError, match="expected batches of another size"):
        RAGGED["(B, T, N)"]()(events)
    assert len(to_neurobench(ragged_gated(embedding=4, readout="each"))(events)) == 3


def test_a_piece_of_samples_that_last_no_time():
    """It adds nothing but to the number of samples, alone or beside others."""
    events = Events.from_list([([], []), ([0.001, 0.012], [0, 3]), ([], [])], 6, [0.0, 0.03, 0.0])
    model = RAGGED["LIF"]
    found = [
        harness(model(), EventLoader(data.EventDataset(some, torch.zeros(len(some), dtype=torch.int64)), size))
        for some, size in ((events[1:2], 1), (events, 1), (events, 3))
    ]
    for each in found[1:]:
        assert each["SynapticOperations"]["Dense"] * 3 == pytest.approx(found[0]["SynapticOperations"]["Dense"])
        assert each["MembraneUpdates"] * 3 == pytest.approx(found[0]["MembraneUpdates"])


def test_graded_events_are_multiply_accumulates():
    events = poisson(2, 4, [0.05, 0.05], graded=True)
    model = to_neurobench(nn.Sequential(LIF(4, 3), LI(3, 2)), DT, output=lambda voltage: voltage.max().argmax(1))
    found = harness(model, EventLoader(data.EventDataset(events, torch.tensor([0, 1])), 2))
    assert found["SynapticOperations"]["Effective_MACs"] * 2 == 3 * len(cells(events))


def brute_force_egru(layer: EGRU, x: torch.Tensor, lengths: list[int]) -> tuple[int, int, int]:
    """Effective operations, events and events and units of all, sample by sample, step by step, weight by weight."""
    work = told = units = 0
    for sample, length in enumerate(lengths):
        c = [torch.zeros(layer.hidden_size) for _ in range(layer.num_layers)]
        y = [torch.zeros(layer.hidden_size) for _ in range(layer.num_layers)]
        for step in range(length):
            flow = x[step, sample]
            for k in range(layer.num_layers):
                w, u = getattr(layer, f"weight_ih_l{k}"), getattr(layer, f"weight_hh_l{k}")
                work += sum(int(w[row, col] != 0) for col in flow.nonzero().flatten().tolist() for row in range(len(w)))
                work += sum(int(u[row, col] != 0) for col in y[k].nonzero().flatten().tolist() for row in range(len(u)))
                a = w @ flow + getattr(layer, f"bias_ih_l{k}")
                b = u @ y[k] + getattr(layer, f"bias_hh_l{k}")
                r, z = (torch.sigmoid(p + q) for p, q in zip(a.chunk(3)[:2], b.chunk(3)[:2], strict=True))
                n = torch.tanh(a.chunk(3)[2] + r * b.chunk(3)[2])
                v = z * c[k] + (1 - z) * n
                fired = (v > getattr(layer, f"threshold_l{k}")).float()
                y[k], c[k] = fired * v, v - fired * getattr(layer, f"threshold_l{k}")
                told, units, flow = told + int(fired.sum()), units + len(fired), y[k]
    return work, told, units


@torch.no_grad()
def test_an_egru_is_counted_as_by_hand():
    recipe = GatedRecipe("small", hidden=(6, 6), step=10e-3, readout="mean", threshold_mean=0.1)
    network = build(recipe, 4, 3)
    network.hidden.weight_hh_l0[:, 2] = 0
    events = poisson(3, 4, [0.05, 0.08, 0.03], graded=True)
    dataset = data.EventDataset(events, torch.tensor([0, 1, 2]))
    found = harness(to_neurobench(network), EventLoader(dataset, 3), ClassificationAccuracy)
    work, told, units = brute_force_egru(network.hidden, events.to_dense(10e-3), [5, 8, 3])
    assert 0 < told < units
    operations = found["SynapticOperations"]
    outputs = network.hidden(events.to_dense(10e-3))[0]
    ever = sum(int(outputs[:length, k].any(0).sum()) for k, length in enumerate((5, 8, 3)))  # in the mean that is read
    assert operations["Effective_MACs"] * 3 == pytest.approx(work + 3 * ever, abs=1e-6)
    assert operations["Dense"] * 3 == pytest.approx(16 * (18 * 4 + 18 * 6 * 3) + 3 * 3 * 6, abs=1e-6)
    assert found["ActivationSparsity"] == pytest.approx(1 - told / units)
    assert found["ParameterCount"] == sum(p.numel() for p in network.parameters())
    assert found["Footprint"] == 4 * (found["ParameterCount"] + 2 * 2 * 6)
    right = network.eval()(events).scores.argmax(1) == dataset.labels
    assert found["ClassificationAccuracy"] == pytest.approx(right.float().mean().item())


@torch.no_grad()
def test_a_gru_is_dense_in_all_but_its_first_state():
    network = build(GatedRecipe("small", hidden=(6, 6), step=10e-3, readout="each", unit="gru"), 4, 3)
    events = poisson(2, 4, [0.05, 0.05], graded=True)
    dataset = data.EventDataset(events, torch.zeros(2, 5, dtype=torch.int64))
    found = harness(to_neurobench(network), EventLoader(dataset, 2), ClassificationAccuracy)
    inputs = int(events.to_dense(10e-3).count_nonzero())
    work = 18 * inputs + 2 * (18 * 6 * (4 + 5 + 4) + 5 * 18)
    assert found["SynapticOperations"]["Effective_MACs"] * 2 == work
    assert found["ActivationSparsity"] == 0 and found["MembraneUpdates"] == 0
    assert found["ParameterCount"] == sum(p.numel() for p in network.parameters())


def test_recipes_networks_predict_classes():
    events = poisson(4, 6, [0.05] * 4)
    dataset = data.EventDataset(events, torch.tensor([0, 1, 2, 0]))
    spiking = build(SpikingRecipe("x", hidden=(8,), readout="max", init_mean=(1.0, 0.1)), 6, 3)
    tied = build(GatedRecipe("y", hidden=(8,), readout="mean", step=5e-3, embedding=4, tied=True), 6, 6)
    for model in (to_neurobench(spiking, DT), to_neurobench(tied)):
        found = harness(model, EventLoader(dataset, 2), ClassificationAccuracy)
        right = (model.network(events).scores.argmax(1) == dataset.labels).float().mean().item()
        assert found["ClassificationAccuracy"] == pytest.approx(right)
    with torch.no_grad():  # embedding, gates, outputs, and the outputs' comparison with the embeddings, once a sample
        assert found["SynapticOperations"]["Dense"] == 10 * (24 + 24 * 4 + 24 * 8) + 8 * 4 + 4 * 6


def forecaster(unit: str = "egru", **changes):
    recipe = find("mackey_glass").changed(hidden=(8,), unit=unit, **changes)
    splits = data.load("mackey_glass", window=4)
    network = build(recipe, 4, 1)
    network.calibrate_(splits.train.events)
    with torch.no_grad():
        network.direct.weight[0, 0] = 0.9
    return network.eval(), splits


@pytest.mark.parametrize("unit", ["egru", "gru"])
@torch.no_grad()
def test_a_forecast_is_that_of_the_network_and_counted_without_its_context(unit):
    network, splits = forecaster(unit)
    series = torch.from_numpy(data.mackey_glass.series(1501)).double()[:, None]
    steps = 60
    pairs = torch.utils.data.TensorDataset(series[750 : 750 + steps, None], series[751 : 751 + steps])
    loader = torch.utils.data.DataLoader(pairs, batch_size=steps)
    model = to_neurobench(network, context=series[:750].float())
    found = harness(model, loader, SMAPE)

    events, _ = splits.test.__getitems__([0])
    own = network.forecast(events, torch.tensor([751]))[0, 750 : 750 + steps]
    assert torch.equal(model(series[750 : 750 + steps, None]).float(), own)
    expected = 200 * ((own - pairs[:][1]).abs() / (own.abs() + pairs[:][1].abs())).mean()
    assert found["SMAPE"] == pytest.approx(expected.item(), rel=1e-6)

    x = torch.cat([series[:751].float(), own[:-1]])
    windows = lagged(x, 4)[:, None]
    said, _ = network.hidden((windows - network.mean) / network.deviation)
    told = said[749:-1].count_nonzero().item(), said[750:].count_nonzero().item()
    work = steps * (4 * 24 + 1) + 24 * told[0] + told[1]  # three of the direct weights are zero
    assert found["SynapticOperations"]["Effective_MACs"] * steps == pytest.approx(
        work, abs=2 * 25
    )  # a unit at its threshold
    assert found["SynapticOperations"]["Dense"] == 4 * 24 + 8 * 24 + 8 + 4
    assert found["Footprint"] == 4 * (found["ParameterCount"] + 2 + 8 * (2 if unit == "egru" else 1) + 4)


def test_what_is_not_counted_is_refused():
    with pytest.raises(ValueError, match="counted in steps; pass their length"):
        to_neurobench(nn.Sequential(LIF(2, 2)))
    with pytest.raises(TypeError, match=r"1, a Conv1d, has weight of its own"):
        to_neurobench(nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1)))
    with pytest.raises(ValueError, match="expected dt > 0"):
        to_neurobench(nn.Linear(2, 2), dt=-1.0)
    with pytest.raises(ValueError, match=r"steps of 0\.001 s, got dt=0\.002"):
        to_neurobench(forecaster()[0], dt=2e-3)
    with pytest.raises(ValueError, match="forecasts numbers, and has no classes; pass the context"):
        to_neurobench(forecaster()[0])
    to_neurobench(forecaster()[0], output=lambda outcome: outcome.scores)
    with pytest.raises(ValueError, match="a context is for"):
        to_neurobench(nn.Linear(2, 2), context=torch.zeros(3, 1))
    network = nn.Sequential(EGRU(2, 3, bidirectional=True))
    with pytest.raises(NotImplementedError, match="both directions"):
        to_neurobench(network)(torch.zeros(4, 1, 2))
    assert dataclasses.is_dataclass(
        next(iter(EventLoader(data.EventDataset(poisson(1, 2, [0.1]), torch.tensor([0])))))[0]
    )


def test_the_linear_floor_of_the_benchmark_forecasts_a_linear_series():
    """A sine is its own linear forecast, and costs a multiplication per point of the window."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import mackey_glass
    from neurobench.models import TorchModel

    series = (2 + torch.sin(torch.arange(1501.0, dtype=torch.float64) / 7))[:, None]
    known = series[: mackey_glass.TRAINING]
    model = mackey_glass.Linear(5, known).fit(known)
    with torch.no_grad():
        found = mackey_glass.in_harness(TorchModel(model), series)
    assert found["smape"] < 1e-3 and found["macs"] == found["dense"] == 5 and found["parameters"] == 6
    text = mackey_glass.table([{"contender": "linear", "repeat": 0, **found}])
    assert "| linear | 0.00 | 1 | 5 | 5 | 6 |" in text and "| LSTM (published) | 13.37 |" in text
