"""Rows of the fidelity ledger on the way to hardware: integers against Lava, NIR against its readers, operations counted.

An error that is a count, of numbers or spikes that differ, has a tolerance of 0. ``fidelity.py`` runs them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ledger import Check, NotHere, Row, version
from torch import Tensor, nn

from eventnet import LIF
from eventnet.counting import count, total
from eventnet.hardware.lava import to_lava
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork
from eventnet.kernels import cpu

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.append(str(TESTS))

from hardware_networks import random_convolution, random_egru, random_network  # noqa: E402

DT = 1e-4  # seconds of a step in NIR; snnTorch has no other
INTEGERS = "numbers that differ (spikes, u, v)"
OPERATIONS = "operations, difference"


# ---- integers ------------------------------------------------------------------------------------


def lava_lif(_: str | None) -> Row:
    networks = [random_network(seed) for seed in range(6)] + [random_convolution(seed) for seed in range(2)]
    return _against_lava("LIF, fixed point", "{}", networks, "6 random networks and 2 convolutions")


def lava_egru(_: str | None) -> Row:
    """The process is ours, as Lava has none: what is compared is its Python with ours, and Lava's messages."""
    networks = [random_egru(seed) for seed in (1, 2)]
    return _against_lava("EGRU, integers", "its own process in {}", networks, "2 random networks of 2 layers")


def _against_lava(model: str, reference: str, networks: list[tuple[HardwareNetwork, Tensor]], cases: str) -> Row:
    reference, wrong, numbers, spikes = reference.format(f"Lava {version('lava-nc')}"), 0, 0, 0
    for (network, given), lava in zip(networks, lava_runs(networks), strict=True):
        ours = simulate(network, given)
        expected = {f"{part}.{each.name}" for part in ours._fields for each in network.neurons}
        if set(lava) != expected:
            raise RuntimeError(f"Lava recorded {sorted(lava)}, not {sorted(expected)}")
        for name, found in lava.items():
            part, population = name.split(".")
            mine = getattr(ours, part)[population][:, 0].numpy()
            wrong, numbers = wrong + int((mine != found).sum()), numbers + found.size
            spikes += np.count_nonzero(found) if part == "spikes" else 0
    return Row(model, reference, INTEGERS, wrong, 0, f"{numbers} numbers of {cases}, {spikes} spikes")


def lava_runs(networks: list[tuple[HardwareNetwork, Tensor]]) -> list[dict[str, np.ndarray]]:
    """What Lava does with each network and its input; in a group of processes of its own, ended after a time."""
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(k) for k in range(len(networks))]
        for (network, spikes), folder in zip(networks, folders, strict=True):
            to_lava(network, folder, spikes)
        command = [sys.executable, str(TESTS / "lava_worker.py"), "--record", *map(str, folders)]
        pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        worker = subprocess.Popen(command, start_new_session=True, **pipes)
        try:
            _, said = worker.communicate(timeout=60 + 20 * len(networks))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)  # a process of Lava that fails leaves the others waiting
        if worker.returncode:
            raise RuntimeError(f"Lava: {said}")
        return [dict(np.load(folder / "lava.npz")) for folder in folders]


def compiled_chip(_: str | None) -> Row:
    if cpu.load() is None:
        raise NotHere("compiled kernels")
    wrong = numbers = spikes = 0
    for seed in range(100):
        network, given = random_network(seed)
        batch = torch.cat([given, given.flip(0), given.roll(3, 0)], dim=1)
        found, expected = (simulate(network, batch, backend=name) for name in ("cpu", "reference"))
        for mine, other in zip(found, expected, strict=True):
            wrong += sum(int((x != other[name]).sum()) for name, x in mine.items())
            numbers += sum(x.numel() for x in mine.values())
        spikes += sum(int(expected.spikes[each.name].count_nonzero()) for each in network.neurons)
    cases = f"{numbers} numbers of 100 random networks, 3 samples each, {spikes} spikes"
    return Row("LIF, fixed point, compiled", "LIF, fixed point, plain torch", INTEGERS, wrong, 0, cases)


# ---- NIR -----------------------------------------------------------------------------------------


def nir_file(data_root: str | None) -> tuple[Path, Tensor, Tensor, Tensor]:
    """The published neuron, its input, and the voltage and spikes that it must have."""
    version("nir")
    folder = Path(data_root or "") / "nir"
    if not data_root or not (folder / "lif_norse.nir").is_file():
        raise NotHere("the published neuron (a folder nir in --data-root)")
    current, voltage, spikes = torch.tensor(np.loadtxt(folder / "lif_exact.csv", delimiter=",")).T
    return folder / "lif_norse.nir", current.reshape(-1, 1, 1), voltage, spikes.nonzero().flatten()


def nir_spikes(data_root: str | None) -> Row:
    from eventnet.hardware.nir import from_nir

    path, given, _, expected = nir_file(data_root)
    steps = from_nir(path, dt=DT, reset="to_value")(given).flatten().nonzero().flatten()
    error = float((steps - expected).abs().max()) if len(steps) == len(expected) else float("inf")
    cases = f"{len(steps)} spikes, in steps {', '.join(map(str, steps.tolist()))}"
    return Row("NIR, LIF", "lif_exact.csv of lif_norse.nir", "spike steps, difference", error, 0, cases)


def nir_voltage(data_root: str | None) -> Row:
    """With exponential decay it is the exact solution that was recorded, until the first spike."""
    from eventnet.hardware.nir import from_nir

    path, given, voltage, spikes = nir_file(data_root)
    _, traces = from_nir(path, dt=DT, reset="to_value", decay="exponential")(given, return_traces=True)
    (found,) = traces.voltages.values()
    first = int(spikes[0])
    error = float((found.flatten() - voltage)[:first].abs().max())
    cases = f"{first} steps to the first spike"
    return Row("NIR, LIF, exponential", "lif_exact.csv of lif_norse.nir", "voltages, V", error, 1e-7, cases)


def exported() -> dict[str, nn.Module]:
    """Models of all that Norse and snnTorch read without loss."""
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "one layer": _layers(8, 6),
        "three layers": _layers(8, 12, 12, 5),
        "time constants of each neuron": _layers(8, 6, tau_mem=_spread(5e-3, 2e-2), tau_syn=_spread(2e-3, 8e-3)),
        "recurrent": _layers(8, 6, recurrent=True),
        "three recurrent layers": _layers(8, 6, 6, 4, recurrent=True),
        "Linear with a bias": nn.Sequential(nn.Linear(8, 8), *_layers(8, 6)),
    }
    with torch.no_grad():
        for model in made.values():
            for name, parameter in model.named_parameters():
                if name.endswith("weight"):
                    parameter.mul_(5.0)  # so that it fires
    return made


def _layers(*sizes: int, **given: Any) -> nn.Sequential:
    options: dict[str, Any] = {"tau_mem": 10e-3, "tau_syn": 5e-3} | given
    return nn.Sequential(*(LIF(*pair, **options) for pair in pairwise(sizes)))


def _spread(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, 6)


def norse(path: Path, raster: Tensor) -> Tensor:
    import nir
    import norse.torch

    return _stepped(norse.torch.from_nir(nir.read(path), dt=DT), raster)


def snntorch(path: Path, raster: Tensor) -> Tensor:
    import nir
    from snntorch.import_nir import import_from_nir

    return _stepped(import_from_nir(nir.read(path)), raster)


@torch.no_grad()
def _stepped(network: Any, raster: Tensor) -> Tensor:
    state, outputs = None, []
    for arriving in raster.float():
        output, state = network(arriving, state)
        outputs.append(output)
    return torch.stack(outputs).double()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Peers say which of a node's parameters they do not take, and what they miss when they are imported."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def nir_reader(name: str, package: str, read: Callable[[Path, Tensor], Tensor]) -> Check:
    def check(_: str | None) -> Row:
        reference = f"{name} {version(package)}, nirtorch {version('nirtorch')}"
        version("nir")
        from eventnet.hardware.nir import write_nir

        raster = (torch.rand(300, 3, 8, generator=torch.Generator().manual_seed(1)) < 0.05).double()
        wrong, spikes, models = 0, 0, exported()
        with tempfile.TemporaryDirectory() as folder, _quiet():
            for k, model in enumerate(models.values()):
                path = Path(folder) / f"{k}.nir"
                write_nir(model, path, dt=DT)
                ours, theirs = _simulated(path, raster), read(path, raster)
                if ours.shape != theirs.shape:
                    raise RuntimeError(f"{name}: spikes of shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
                wrong, spikes = wrong + int((ours != theirs).sum()), spikes + int(ours.sum())
        cases = f"{spikes} spikes of {len(models)} models: {', '.join(models)}"
        return Row("NIR, export", reference, "spikes that differ", wrong, 0, cases)

    return check


@torch.no_grad()
def _simulated(path: Path, raster: Tensor) -> Tensor:
    from eventnet.hardware.nir import from_nir

    return from_nir(path)(raster)


# ---- operations ----------------------------------------------------------------------------------


def neurobench_layers(_: str | None) -> Row:
    """NeuroBench adds three products of gates with each other for each unit and sample of a GRU or LSTM cell."""
    reference = f"NeuroBench {version('neurobench')} single_layer_MACs, without products of gates"
    with _quiet():
        from neurobench.metrics.utils.layers import single_layer_MACs
    worst = operations = 0
    layers = shared_layers()
    for layer, given in layers:
        found = count(_Apart(layer), [given], dt=1e-3)["layer"]
        gates = 3 * given[0].shape[0] * layer.hidden_size if isinstance(layer, nn.GRUCell | nn.LSTMCell) else 0
        (effective, spiking), (dense, _) = (single_layer_MACs(given, layer, total=every) for every in (False, True))
        mine = [found.synaptic_operations, found.dense]
        theirs = [effective - gates, dense - gates]
        if not isinstance(given, tuple):  # of a cell it judges x alone, whatever the state
            mine.append(found.accumulates)
            theirs.append(effective if spiking else 0)
        worst = max(worst, *(abs(a - b) for a, b in zip(mine, theirs, strict=True)))
        operations += found.synaptic_operations
    compared = "their dense ones; but for cells, the accumulates among them"
    cases = f"{operations} effective operations of {len(layers)} layers, {compared}"
    return Row("operation counts", reference, OPERATIONS, worst, 0, cases)


def shared_layers() -> list[tuple[nn.Module, Any]]:
    """Layers with zeros among their weights, and inputs for them, of spikes and of numbers."""
    torch.manual_seed(0)
    made: list[tuple[nn.Module, Any]] = []
    for spikes in (False, True):
        made += [
            (nn.Linear(30, 20), mostly_zero(16, 30, spikes=spikes)),
            (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), mostly_zero(8, 4, 19, spikes=spikes)),
            (nn.Conv2d(3, 6, 3, padding=1, groups=3), mostly_zero(5, 3, 9, 8, spikes=spikes)),
            (nn.Conv2d(2, 5, (2, 3), stride=(2, 1), bias=False), mostly_zero(5, 2, 9, 8, spikes=spikes)),
            (nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=(0, 1, 1)), mostly_zero(3, 1, 4, 5, 4, spikes=spikes)),
        ]
        x, h = mostly_zero(7, 12, spikes=spikes), torch.randn(7, 9)
        made += [(nn.RNNCell(12, 9), (x, h)), (nn.GRUCell(12, 9), (x, h)), (nn.LSTMCell(12, 9), (x, (h, h.roll(1))))]
    for layer, _ in made:
        _thin(layer)
    return made


def mostly_zero(*shape: int, spikes: bool) -> Tensor:
    there = (torch.rand(shape) < 0.3).float()
    return there if spikes else there * torch.randn(shape)


def _thin(network: nn.Module) -> None:
    """A quarter of the weights are 0."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "weight" in name:
                parameter.mul_(torch.rand_like(parameter) < 0.75)


class _Apart(nn.Module):
    """A layer whose arguments may come as a tuple."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, given: Any) -> Any:
        return self.layer(*given) if isinstance(given, tuple) else self.layer(given)


def neurobench_network(_: str | None) -> Row:
    reference = f"NeuroBench {version('neurobench')} SynapticOperations"
    with _quiet():
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel
    torch.manual_seed(1)
    convolutions = nn.Conv2d(2, 6, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    network = nn.Sequential(*convolutions, nn.Linear(54, 20), nn.ReLU(), nn.Linear(20, 10))
    _thin(network)
    x = mostly_zero(16, 2, 14, 14, spikes=True)
    model = TorchModel(network)
    model.register_hooks()
    theirs = SynapticOperations()(model, model(x), (x, torch.zeros(16)))
    model.cleanup_hooks()
    mine = total(count(network, [x], dt=1e-3).values()).per_sample()
    names = {"Effective_MACs": "multiply_accumulates", "Effective_ACs": "accumulates", "Dense": "dense"}
    error = max(abs(mine[name] - theirs[their]) for their, name in names.items())
    numbers = ", ".join(f"{mine[name]:g} {name.replace('_', '-')}" for name in names.values())
    return Row(
        "operation counts", reference, f"{OPERATIONS} per sample", error, 0, f"{numbers} of a network of 3 layers"
    )


def spikingjelly_network(_: str | None) -> Row:
    """It takes no notice of weights that are zero: there are none."""
    reference = f"SpikingJelly {version('spikingjelly')} SynOpCounter"
    with _quiet():
        from spikingjelly.activation_based.neuron import IFNode
        from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
    torch.manual_seed(2)
    sizes = (30, 40, 20, 10)
    layers = [(nn.Linear(*pair, bias=False), IFNode(v_reset=0.0, step_mode="m")) for pair in pairwise(sizes)]
    network = nn.Sequential(*(each for pair in layers for each in pair))
    for linear, _neurons in layers:
        linear.weight.data.add_(0.05)
    x = mostly_zero(25, 8, 30, spikes=True)
    operations = SynOpCounter()
    with _quiet(), torch.no_grad(), DispatchCounterMode([operations]):
        network(x)
    for _linear, neurons in layers:
        neurons.reset()
    theirs, mine = operations.get_counts(), count(network, [x], dt=1e-3)
    error = max(abs(each.accumulates - sum(theirs[f"Sequential.{name}"].values())) for name, each in mine.items())
    numbers = ", ".join(str(each.accumulates) for each in mine.values())
    return Row("operation counts", reference, OPERATIONS, error, 0, f"{numbers} accumulates of {len(mine)} layers")


CHECKS: dict[str, Check] = {
    "lava-lif": lava_lif,
    "lava-egru": lava_egru,
    "compiled-chip": compiled_chip,
    "nir-spikes": nir_spikes,
    "nir-voltage": nir_voltage,
    "nir-norse": nir_reader("Norse", "norse", norse),
    "nir-snntorch": nir_reader("snnTorch", "snntorch", snntorch),
    "neurobench-layers": neurobench_layers,
    "neurobench-network": neurobench_network,
    "spikingjelly": spikingjelly_network,
}
