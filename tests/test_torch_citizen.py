"""What PyTorch does with any module it does with a model that has layers of events in it."""

from __future__ import annotations

import copy
import io
import pickle
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from eventnet import EGRU, ELM, LI, LIF, ActiveDendrites, Events, KWinners, PlateauLIF, SegmentPool
from eventnet.layers.dense import Dense

pytestmark = pytest.mark.usefixtures("one_thread")

DURATION = 40e-3


class Latency(nn.Module):
    """Linear layer -> latencies -> LIF -> LI -> linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.spiking, self.readout, self.decode = nn.Linear(6, 8), LIF(8, 12), LI(12, 5), nn.Linear(5, 3)
        nn.init.normal_(self.spiking.weight, 1.0, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        events = Events.from_latency(self.encode(x).sigmoid(), 0.0, 20e-3, duration=DURATION)
        return self.decode(self.readout(self.spiking(events)).max())


class Driven(nn.Module):
    """Linear layer -> currents -> LIF -> traces -> linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 8), nn.Linear(12, 3)
        self.spiking = Dense(LIF(8, 12), 10e-3, inputs="currents", outputs="trace")
        nn.init.normal_(self.spiking.layer.weight, 1.0, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.spiking(self.encode(x).relu().expand(4, *x.shape[:-1], 8)).mean(0))


class Gated(nn.Module):
    """Linear layer -> EGRU -> linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.units, self.decode = nn.Linear(6, 8), EGRU(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.units(self.encode(x).expand(4, *x.shape[:-1], 8))[0].mean(0))


class Branched(Latency):
    """Its neurons have dendritic branches."""

    def __init__(self) -> None:
        super().__init__()
        self.spiking = LIF(8, 12, branches=2, tau_syn=(3e-3, 30e-3), learn=("weight", "tau_syn"))
        nn.init.normal_(self.spiking.weight, 0.6, 0.6)


class Plateaus(Latency):
    """Their branches have thresholds."""

    def __init__(self) -> None:
        super().__init__()
        self.spiking = PlateauLIF(8, 12, jump=4.0)
        nn.init.normal_(self.spiking.weight, 1.5, 0.8)


class Dendritic(nn.Module):
    """Linear layer -> active dendrites, whose context is the input -> k-winners -> linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.units, self.decode = nn.Linear(6, 8), ActiveDendrites(8, 12, 3, 6), nn.Linear(12, 3)
        self.winners = KWinners(12, 0.3, boost_strength=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.winners(self.units(self.encode(x).relu(), x)))


class Remembering(Gated):
    """By an ELM."""

    def __init__(self) -> None:
        super().__init__()
        self.units = ELM(8, 12, memory=5)


OF_EVENTS = (Latency, Driven, Gated, Branched, Plateaus)
KINDS = (*OF_EVENTS, Dendritic, Remembering)
on_layers_of_events = pytest.mark.parametrize("kind", OF_EVENTS)
on_all = pytest.mark.parametrize("kind", KINDS)


def draw(batch: int = 5) -> Tensor:
    return torch.rand(batch, 6, generator=torch.Generator().manual_seed(batch))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(x).square().mean(0).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: nn.Module, other: nn.Module, **tolerance: float) -> None:
    """Outputs and gradients, which are there."""
    for batch in (5, 3):
        torch.testing.assert_close(model(draw(batch)), other(draw(batch)), **tolerance)
    expected, found = gradients(model, draw()), gradients(other, draw())
    assert any(slope.any() for name, slope in expected.items() if name.startswith("encode"))
    for (name, slope), (_, other_slope) in zip(expected.items(), found.items(), strict=True):
        torch.testing.assert_close(other_slope, slope, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


# ---- torch.compile ---------------------------------------------------------------------------------------------


@on_layers_of_events
def test_compiled_models_have_graphs_between_layers_of_events(kind):
    """What is dense is in graphs, what is not runs between them as it is."""
    graphs: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op in ("call_function", "call_method")])
        return graph.forward

    torch._dynamo.reset()
    model = made(kind)
    compiled = torch.compile(copy.deepcopy(model), backend=backend, dynamic=False)
    compiled(draw())
    found = [name for graph in graphs for name in graph]
    assert (
        len(graphs) == 2 and sum("linear" in name for name in found) == 2
    )  # one before the layers of events, one after
    assert not [name for name in found if "eventnet" in name]
    assert len(found) <= 5  # two products and what stands beside them, nothing of the layers' own
    assert_same(model, compiled, rtol=0, atol=0)


@pytest.mark.slow
@on_all
def test_models_compiled_to_machine_code_are_the_models(kind):
    torch._dynamo.reset()
    model = made(kind)
    assert_same(model, torch.compile(copy.deepcopy(model)), rtol=1e-4, atol=1e-6)


# ---- export --------------------------------------------------------------------------------------------------------


@on_layers_of_events
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["export", "strict export", "trace", "onnx"])
def test_exports_are_refused_with_the_reason(kind, way, tmp_path):
    call = {
        "export": lambda model: torch.export.export(model, (draw(),)),
        "strict export": lambda model: torch.export.export(model, (draw(),), strict=True),
        "trace": lambda model: torch.jit.trace(model, (draw(),)),
        "onnx": lambda model: torch.onnx.export(model, (draw(),), tmp_path / "model.onnx", dynamo=False),
    }[way]
    with pytest.raises(Exception, match=r"layers of events cannot be exported.*eventnet\.hardware exports networks"):
        call(made(kind))
    assert not list(tmp_path.iterdir())


# ---- copies --------------------------------------------------------------------------------------------------------


def through_a_state_dict(kind: type[nn.Module], model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = kind()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@on_all
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict", "functional_call"])
def test_copies_are_the_model(kind, way):
    model = made(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)  # as no new one is
    other = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda x: pickle.loads(pickle.dumps(x)),
        "state_dict": partial(through_a_state_dict, kind),
        "functional_call": lambda x: Called(kind(), dict(x.named_parameters())),
    }[way](model)
    if way != "functional_call":
        assert_same(model, other, rtol=0, atol=0)
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert not torch.equal(other(draw()), model(draw()))  # nothing is shared
    else:
        assert torch.equal(other(draw()), model(draw()))
        expected = gradients(model, draw())
        model.zero_grad()
        other(draw()).square().mean(0).sum().backward()
        assert all(torch.equal(p.grad, expected[name]) for name, p in model.named_parameters() if name in expected)


class Called(nn.Module):
    """A model with the parameters of another one."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.call = partial(torch.func.functional_call, model, parameters)

    def forward(self, x: Tensor) -> Tensor:
        return self.call((x,))


SPARSE = {
    "ELM": lambda: ELM(6, 3, memory=4, learn=("tau_mem", "tau_syn")),
    "ActiveDendrites": lambda: ActiveDendrites(6, 3, segments=0, density=0.5),
}


@pytest.mark.parametrize("name", SPARSE)
def test_parametrized_layers_are_kept_by_their_state_dict(name):
    """Torch pickles none of them."""
    layer, x = SPARSE[name](), draw()
    for other in (copy.deepcopy(layer), through_a_state_dict(SPARSE[name], layer)):
        torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"parametrized modules is only supported through state_dict\(\)"):
        pickle.dumps(layer)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_copies_of_a_pool_hear_and_learn_what_it_does(way):
    def of_three() -> SegmentPool:
        return SegmentPool(3, 50, 5)

    pool, codes = of_three(), [[1, 4, 9], [4, 9, 30]]
    pool.learn([0, 2], codes)
    other = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda x: pickle.loads(pickle.dumps(x)),
        "state_dict": partial(through_a_state_dict, of_three),
    }[way](pool)
    assert pool(codes).any() and other(codes).equal(pool(codes))
    other.learn([1], [[1, 4, 30]])
    assert not other(codes).equal(pool(codes))  # nothing is shared
    pool.learn([1], [[1, 4, 30]])
    assert other(codes).equal(pool(codes))


# ---- autocast ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_spikes_and_readings_know_nothing_of_autocast(backend):
    """bfloat16 has three digits, too few for spike times: layers of events compute in their parameters' dtype."""
    torch.manual_seed(0)
    spiking, readout = LIF(6, 12, backend=backend), LI(12, 4, backend=backend)
    nn.init.normal_(spiking.weight, 1.5, 1.0)
    current, times = 2 * draw().expand(3, 5, 6), torch.linspace(0, DURATION, 7)
    incoming = Events.from_latency(draw(), 0.0, 20e-3, duration=DURATION)

    def readings() -> list[Tensor]:
        driven, membrane = spiking.drive(current, 10e-3, return_voltage=True)
        spikes, hidden = spiking(incoming, return_voltage=True)
        voltage = readout(spikes)
        taus = torch.full((12,), 10e-3)
        return [
            *(driven.times, membrane, spikes.times, hidden.at(times), hidden.max(), voltage.integral()),
            *(voltage.at(times), spikes.to_trace(times, 10e-3), spikes.to_trace(times, taus)),
        ]

    expected = readings()
    with torch.autocast("cpu", torch.bfloat16):
        found = readings()
    assert len(expected[0]) > 20 and len(expected[2]) > 20
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


@on_all
def test_autocast_reaches_the_dense_layers_around_them(kind):
    model = made(kind)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(draw())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), model(draw()), rtol=0.1, atol=0.1)
    output.float().sum().backward()
    slopes = [p.grad for p in model.parameters() if p.grad is not None]
    assert slopes and all(slope.dtype == torch.float32 and slope.isfinite().all() for slope in slopes)


# ---- several processes ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def learn(rank: int, world: int, port: int, folder: str) -> None:
    """Keeps the gradients that a process of several has after its share of the batch."""
    torch.set_num_threads(1)
    address = f"tcp://localhost:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    try:
        found = {}
        for kind in KINDS:
            model = DistributedDataParallel(made(kind))
            found[kind.__name__] = gradients(model, draw(8).chunk(world)[rank])
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def assert_as_one(folder: Path, world: int) -> None:
    """Each process has the gradients of the whole batch."""
    for rank in range(world):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        for kind in KINDS:
            expected = gradients(made(kind), draw(8))
            assert len(found[kind.__name__]) == len(expected) > 4
            for name, slope in expected.items():
                torch.testing.assert_close(found[kind.__name__][f"module.{name}"], slope, rtol=1e-5, atol=1e-7)


def test_one_process_of_one(tmp_path):
    learn(0, 1, free_port(), str(tmp_path))
    assert_as_one(tmp_path, 1)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(learn, (2, free_port(), str(tmp_path)), nprocs=2)
    assert_as_one(tmp_path, 2)


CHECKPOINTED = {
    "LIF": lambda: (LIF(4, 3), nn.Identity()),
    "LIF, delays": lambda: (LIF(4, 3, delay=(0.0, 5e-3), recurrent=True, recurrent_delay=1e-3), nn.Identity()),
    "LIF, branches": lambda: (LIF(4, 3, branches=2), nn.Identity()),
    "PlateauLIF": lambda: (PlateauLIF(4, 3, jump=5.0), nn.Identity()),
    "LI, maximum": lambda: (LIF(4, 3), LI(3, 2)),
    "EGRU": lambda: (None, EGRU(4, 3)),
    "ELM": lambda: (None, ELM(4, 3, memory=5)),
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpoints_give_the_same_gradients(name):
    """torch.utils.checkpoint computes activations again instead of keeping them."""
    torch.manual_seed(0)
    spiking, other = CHECKPOINTED[name]()
    if spiking is not None:
        nn.init.normal_(spiking.weight, 3.0, 0.5)
    if isinstance(other, LI):
        nn.init.constant_(other.weight, 1.0)  # voltages that have a maximum

    def call(x: Tensor) -> Tensor:
        if spiking is None:
            return other(x)[0].sum()
        out = other(spiking(Events.from_latency(x, 0.0, 20e-3, duration=DURATION)))
        return out.times.sum() if isinstance(out, Events) else out.max().sum()

    x = torch.rand((5, 4) if spiking is not None else (7, 5, 4))
    parameters = [*other.parameters(), *(spiking.parameters() if spiking is not None else ())]
    parameters = [p for p in parameters if p.requires_grad]
    plain = torch.autograd.grad(call(x), parameters, allow_unused=True)
    found = torch.autograd.grad(checkpoint(call, x, use_reentrant=False), parameters, allow_unused=True)
    assert any(bool(g.any()) for g in plain if g is not None)
    for a, b in zip(plain, found, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
