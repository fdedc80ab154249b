"""What counting costs: inference with ``eventnet.counting.count`` against inference alone.

    python benchmarks/counting.py [CASE ...] [--seconds 3] [--save]

Each case runs the same batches alone and counted in turn, so that a busy moment of the machine meets both. Printed are best and
median of the repeats, their ratios, and what counting adds to a batch, of which a layer's hook and its few small operations are
a floor that the smallest networks show. ``count`` is asked for several batches at once, as its users do: what it keeps of a
layer (the fan-out of its sources) is found once. ``--save`` writes ``benchmarks/results/counting.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine
from shapes import SHAPES, TAU_MEM, TAU_SYN
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from eventnet import EGRU, LI, LIF, Events
from eventnet.counting import count
from eventnet.training import RECIPES
from eventnet.training.build import build
from eventnet.training.run import load_data

RESULTS = Path(__file__).with_name("results") / "counting.json"
DT = 1e-3
ALLOWED = 1.1  # with / without
SPAN = 0.05  # seconds of inference that a repeat takes, at least
MOST_BATCHES = 32

Case = tuple[nn.Module, Any]  # a network and a batch


class Read(nn.Module):
    """The mean voltage of a readout, so that it is computed."""

    def forward(self, voltage: Any) -> Tensor:
        return voltage.mean()


class Output(nn.Module):
    """The first of what a recurrent layer returns."""

    def forward(self, x: Any) -> Any:
        return x[0]


def recipe(name: str, batch: int) -> Case:
    """A recipe's network, untrained, on its own data, which come with eventnet."""
    data = load_data(RECIPES[name], None)
    network = build(RECIPES[name], data.num_units, data.num_classes)
    events = data.train.events[:batch]
    network.calibrate_(events)
    return network, events


def digits(batch: int) -> Case:
    """64-400-10 and a latency for each pixel."""
    return recipe("digits", batch)


def yinyang(batch: int) -> Case:
    """5-200-3 and five events a sample: the smallest of all."""
    return recipe("yinyang", batch)


def speech(batch: int, **changes: Any) -> Case:
    """700-256-20, 8,000 events a sample."""
    problem = dataclasses.replace(SHAPES["speech-dense"], batch=batch).problem()
    taus: dict[str, Any] = {"tau_mem": TAU_MEM, "tau_syn": TAU_SYN}
    layers = LIF(*problem.w1.shape, **taus, **changes), LI(*problem.w2.shape, **taus)
    for layer, weight in zip(layers, (problem.w1, problem.w2), strict=True):
        layer.weight.data = weight.clone()
    return nn.Sequential(*layers, Read()), problem.events


def pruned(batch: int) -> Case:
    """As ``speech``, one weight in ten left: sources differ in their fan-out."""
    network, events = speech(batch)
    network[0].weight.data *= torch.rand(700, 256) < 0.1
    network[0].weight.data *= 3
    return network, events


def delays(batch: int) -> Case:
    """As ``speech``, 0 to 30 ms of delay for each synapse."""
    return speech(batch, delay=(0.0, 0.03))


def sequences(batch: int) -> Tensor:
    """100 steps of 64 inputs, one in twenty there: ``(T, B, 64)``."""
    return torch.randn(100, batch, 64) * (torch.rand(100, batch, 64) < 0.05)


def egru(batch: int, layers: int = 1) -> Case:
    """256 units, 100 steps, and a linear readout of each step."""
    return nn.Sequential(EGRU(64, 256, layers), Output(), nn.Linear(256, 10)), sequences(batch)


def egru_two(batch: int) -> Case:
    """As ``egru``, two layers."""
    return egru(batch, 2)


def egru_events(batch: int) -> Case:
    """As ``egru``, the same inputs as events."""
    raster = (sequences(batch) != 0).float()
    return nn.Sequential(EGRU(64, 256, step=DT), Output(), nn.Linear(256, 10)), Events.from_dense(raster, DT)


def egru_packed(batch: int) -> Case:
    """As ``egru``, packed sequences of 50 to 100 steps."""
    lengths = torch.linspace(50, 100, batch).long()
    return EGRU(64, 256), pack_padded_sequence(sequences(batch), lengths, enforce_sorted=False)


def gru(batch: int, layers: int = 1) -> Case:
    """256 units, 100 steps, and a linear readout of each step."""
    return nn.Sequential(nn.GRU(64, 256, layers), Output(), nn.Linear(256, 10)), sequences(batch)


def gru_two(batch: int) -> Case:
    """As ``gru``, two layers: what the lower one says is computed again, as no output shows it."""
    return gru(batch, 2)


def conv(batch: int) -> Case:
    """Two convolutions of 16 and 32 channels on images of 28 x 28, then a linear readout."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )
    return network, torch.rand(batch, 1, 28, 28) * (torch.rand(batch, 1, 28, 28) < 0.2)


def characters(batch: int) -> Case:
    """The recipe's network, untrained: 50 characters, 100 steps; the embedding is the output, too."""
    network = build(RECIPES["characters"], 50, 50)
    raster = torch.zeros(100, batch, 50).scatter_(2, torch.randint(50, (100, batch, 1)), 1.0)
    return network, Events.from_dense(raster, RECIPES["characters"].step)


def vowels(batch: int) -> Case:
    """The recipe's network, untrained: 12 graded inputs, 7 to 29 steps."""
    network = build(RECIPES["vowels"], 12, 9)
    step, steps = RECIPES["vowels"].step, torch.linspace(7, 29, batch).long()
    times = [(torch.arange(int(n)) * step).repeat_interleave(12) for n in steps]
    units = torch.cat([torch.arange(12).repeat(int(n)) for n in steps])
    offsets = nn.functional.pad((12 * steps).cumsum(0), (1, 0))
    return network, Events(torch.cat(times), units, offsets, 12, steps * step, torch.randn(len(units)))


CASES: dict[str, tuple[Callable[[int], Case], tuple[int, ...]]] = {
    "LIF digits": (digits, (64, 256)),
    "LIF yinyang": (yinyang, (64, 256)),
    "LIF speech": (speech, (64, 256)),
    "LIF speech, 10 % of the weights": (pruned, (64,)),
    "LIF speech, delays": (delays, (64,)),
    "EGRU 256": (egru, (64, 256)),
    "EGRU 256, two layers": (egru_two, (64,)),
    "EGRU 256, events": (egru_events, (64,)),
    "EGRU 256, packed": (egru_packed, (64,)),
    "nn.GRU 256": (gru, (64, 256)),
    "nn.GRU 256, two layers": (gru_two, (64,)),
    "conv2d": (conv, (64, 256)),
    "EGRU characters": (characters, (64,)),
    "EGRU vowels": (vowels, (64,)),
}


def measure(name: str, size: int, span: float) -> dict[str, Any]:
    """Seconds of a batch without and with counting, best and median, in turn for ``span`` seconds."""
    torch.manual_seed(0)
    network, batch = CASES[name][0](size)
    network.eval()
    without(network, [batch])
    batches = [batch] * max(2, min(MOST_BATCHES, round(SPAN / taken(lambda: without(network, [batch])))))
    calls = {"without": lambda: without(network, batches), "with": lambda: count(network, batches, dt=DT)}
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        while len(seconds["with"]) < 7 or time.perf_counter() - started < span:
            for key in reversed(calls) if len(seconds["with"]) % 2 else calls:
                seconds[key].append(taken(calls[key]) / len(batches))
    finally:
        gc.enable()
    found: dict[str, Any] = {"case": name, "batch": size, "batches": len(batches), "repeats": len(seconds["with"])}
    for key, each in seconds.items():
        found[key] = {"best": min(each), "median": statistics.median(each)}
    found["ratio"] = {which: found["with"][which] / found["without"][which] for which in ("best", "median")}
    return found | {"added": found["with"]["best"] - found["without"]["best"]}


@torch.no_grad()
def without(network: nn.Module, batches: list[Any]) -> None:
    """Inference alone."""
    for batch in batches:
        network(batch)


def taken(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Rows for a reader, those above the limit marked."""
    yield "| network | batch | without | with | best | median | added to a batch |"
    yield "|---|---|---|---|---|---|---|"
    for r in results:
        times = [f"{1e3 * r[key]['best']:.3g} / {1e3 * r[key]['median']:.3g} ms" for key in ("without", "with")]
        ratios = [f"{r['ratio'][which] - 1:+.0%}" for which in ("best", "median")]
        mark = " !" if r["ratio"]["best"] > ALLOWED else ""
        yield f"| {r['case']} | {r['batch']} | {' | '.join([*times, *ratios])}{mark} | {1e6 * r['added']:.0f} us |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"what to measure; all: {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a row, at least (default 3)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/counting.json")
    args = parser.parse_args()
    unknown = [name for name in args.cases if name not in CASES]
    if unknown or (args.save and args.cases):
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "--save keeps all cases: name none")
    here = {"machine": machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "commit": commit()}
    results = []
    for name in args.cases or CASES:
        for size in CASES[name][1]:
            results.append(measure(name, size, args.seconds) | here)
            print(f"{name}, batch {size}: {results[-1]['ratio']['best'] - 1:+.1%}", flush=True)
    print(f"\n{here['machine']['cpu']}, {here['threads']} threads, PyTorch {here['torch']}, commit {here['commit']}\n")
    print("\n".join(table(results)))
    over = [f"{r['case']} ({r['batch']})" for r in results if r["ratio"]["best"] > ALLOWED]
    print(f"\nabove {ALLOWED - 1:.0%}: {', '.join(over) or 'none'}")
    if args.save:
        part = RESULTS.with_suffix(".part")
        part.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
        os.replace(part, RESULTS)


if __name__ == "__main__":
    main()
