"""The ELM neuron: its compiled kernels against a plain loop over steps, and spoken-digit adding beside a GRU of equal parameters.

    python benchmarks/elm.py speed [--threads 1 2] --save
    python benchmarks/elm.py adding --data-root FOLDER --save

Speed: forward and backward with a gradient of ones on the same inputs (3 of 100 are 1, float32), by the compiled
kernels and by the reference, a loop that computes each step with torch's operators; called in turn, so that whatever else the
machine does hits both.

Adding: two spoken digits one after the other, label is their sum (``eventnet.data.adding``), 140 channels counted in bins. The
logits are the mean over the second digit's time; all else is the same for both. The learning rate is chosen with the first seed,
the epoch with each, both on the validation part; then the test part is used once. Seeds are of weights and the order of the
samples; the pairs are the same. Everything goes to results/elm.json.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import commit, machine
from speed import check_tests
from torch import Tensor, nn

from eventnet import Events, data
from eventnet.layers.elm import ELM
from eventnet.training.batches import Batches

RESULTS = Path(__file__).with_name("results") / "elm.json"
BIN, CHANNELS, DURATION = 10e-3, 140, 0.8  # seconds; of the cochlea; seconds of each digit
CLASSES = 19


class Size(NamedTuple):
    """A problem of the speed table."""

    name: str
    inputs: int
    outputs: int
    memory: int
    branches: int
    synapses: int
    batch: int
    steps: int


SIZES = [
    Size("biophysical neuron, the published 8,002 parameters", 1278, 2, 20, 45, 100, 8, 500),
    Size("biophysical neuron, the published 54,002 parameters", 1278, 2, 100, 45, 100, 8, 500),
    Size("spoken digits", 700, 20, 100, 100, 14, 8, 200),
    Size("spoken digits, a batch of 32", 700, 20, 100, 100, 14, 32, 200),
    Size("spoken-digit adding, as trained here", CHANNELS, CLASSES, 60, 70, 4, 32, 160),
    Size("a long sequence", 64, 10, 50, 64, 1, 4, 2000),
]


# ---- speed ----------------------------------------------------------------------------------------------------------


def measure(size: Size, version: int, repeats: int, threads: int = 1) -> dict[str, Any]:
    """Seconds of both, best and median of the repeats."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    form = {"memory": size.memory, "branches": size.branches, "synapses": size.synapses, "version": version}
    fused = ELM(size.inputs, size.outputs, **form)
    plain = copy.deepcopy(fused)
    plain.backend = "reference"
    x = (torch.rand(size.steps, size.batch, size.inputs) < 0.03).float()
    contenders = {"fused": fused, "loop": plain}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, layer in contenders.items():
            seconds = forward_and_backward(layer, x)
            if repeat:  # the first is a warm-up
                taken[name].append(seconds)
    found = {name: {"best": min(t), "median": statistics.median(t), "repeats": repeats} for name, t in taken.items()}
    return {"size": size._asdict(), "version": version, "threads": threads, "torch": torch.__version__, **found}


def forward_and_backward(layer: ELM, x: Tensor) -> float:
    """Seconds."""
    layer.zero_grad()
    gc.collect()
    start = time.perf_counter()
    output, _ = layer(x)
    output.backward(torch.ones_like(output))
    return time.perf_counter() - start


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds and ratios, by the best and the median of the repeats, for each number of threads."""
    threads = sorted({row["threads"] for row in rows})
    of = {(Size(**row["size"]), row["version"], row["threads"]): row for row in rows}
    heads = [f"fused, threads: {count} | loop | ratio: best, median" for count in threads]
    lines = [f"| problem | version | {' | '.join(heads)} |", f"|---|---|{'---|---|---|' * len(threads)}"]
    for size, version in dict.fromkeys(key[:2] for key in of):
        what = f"{size.name}: {size.inputs} inputs, {size.memory} memory, {size.branches} x {size.synapses} synapses, "
        cells = [cell for count in threads for cell in speed_cells(of[size, version, count])]
        lines.append(f"| {what}batch {size.batch}, {size.steps} steps | {version} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_cells(row: dict[str, Any]) -> list[str]:
    """Of one problem and number of threads."""
    ratios = [row["loop"][which] / row["fused"][which] for which in ("best", "median")]
    best = [f"{1e3 * row[name]['best']:.1f} ms" for name in ("fused", "loop")]
    return [*best, f"{ratios[0]:.1f}, {ratios[1]:.1f}"]


# ---- adding ---------------------------------------------------------------------------------------------------------


class Adder(nn.Module):
    """Counts in bins, a recurrent layer, and the mean of its logits while the second digit is heard."""

    def __init__(self, kind: str, channels: int = CHANNELS) -> None:
        super().__init__()
        form = {"memory": 60, "branches": channels // 2, "synapses": 4, "tau_mem": (BIN, 0.5), "tau_syn": BIN}
        elm = ELM(channels, CLASSES, step=BIN, **form)
        self.layer: nn.Module = elm
        self.readout: nn.Module = nn.Identity()
        if kind == "gru":
            hidden = gru_size(parameters(elm), channels)
            self.layer, self.readout = nn.GRU(channels, hidden), nn.Linear(hidden, CLASSES)

    def forward(self, events: Events) -> Tensor:
        """Logits ``(B, 19)``."""
        output, _ = self.layer(torch.log1p(events.to_dense(BIN)))
        return self.readout(output[len(output) // 2 :].mean(0))


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def gru_size(wanted: int, channels: int) -> int:
    """The smallest hidden size whose GRU and readout have at least as many parameters: the nearest one above."""
    hidden = 1
    while 3 * hidden * (channels + hidden + 2) + (hidden + 1) * CLASSES < wanted:
        hidden += 1
    return hidden


def train(kind: str, splits: Any, seed: int, rate: float, epochs: int) -> tuple[dict[str, Any], Adder]:
    """Train for so many epochs; the module of the best validation epoch, and what was measured."""
    torch.manual_seed(seed)
    module = Adder(kind, splits.num_units)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    batches = Batches(splits.train, 32, shuffle=True, seed=seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    best, kept, curve, started = (-1.0, 0), copy.deepcopy(module.state_dict()), [], time.perf_counter()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for events, labels in batches:
            loss = nn.functional.cross_entropy(module(events), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        curve.append(accuracy(module, splits.validation))
        print(f"{kind}, seed {seed}, rate {rate:g}, epoch {epoch + 1}: validation {curve[-1]:.4f}", flush=True)
        if curve[-1] > best[0]:
            best, kept = (curve[-1], epoch + 1), copy.deepcopy(module.state_dict())
    module.load_state_dict(kept)
    seconds = round(time.perf_counter() - started, 1)
    found = {"contender": kind, "seed": seed, "rate": rate, "epochs": epochs, "parameters": parameters(module)}
    return found | {"validation": best[0], "best_epoch": best[1], "curve": curve, "seconds": seconds}, module


@torch.no_grad()
def accuracy(module: nn.Module, dataset: Any) -> float:
    """Share of the sums that are right."""
    right = sum(int((module(events).argmax(1) == labels).sum()) for events, labels in Batches(dataset, 100))
    return right / len(dataset)


def adding(splits: Any, seed: int, epochs: int, rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The runs of a seed with each contender's rates; the one of the best validation accuracy is tested and has a "test"."""
    runs: list[dict[str, Any]] = []
    for kind, choice in rates.items():
        tried = [train(kind, splits, seed, rate, epochs) for rate in choice]
        found, module = max(tried, key=lambda run: run[0]["validation"])
        found["test"], found["data"] = accuracy(module, splits.test), splits.note
        print(f"{kind}, seed {seed}: test {found['test']:.4f}", flush=True)
        runs += [run for run, _ in tried]
    return runs


def adding_table(runs: list[dict[str, Any]]) -> str:
    """A row for each contender."""
    lines = ["| | parameters | rate | validation | test, by seed | mean |", "|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(run["contender"] for run in runs):
        mine = [run for run in runs if run["contender"] == kind and "test" in run]
        tests = [run["test"] for run in mine]
        cells = [
            kind.upper(),
            f"{mine[0]['parameters']:,}",
            f"{mine[0]['rate']:g}",
            f"{statistics.mean(run['validation'] for run in mine):.3f}",
            ", ".join(f"{test:.3f}" for test in tests),
            f"{statistics.mean(tests):.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "adding"))
    parser.add_argument("--repeats", type=int, default=10, help="of the speed rows (default 10)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the speed rows (default 1 and 2)")
    parser.add_argument("--data-root", default=os.environ.get("EVENTNET_DATA"), help="folder of the recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 5e-3, 1e-2, 2e-2], help="to choose from")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/elm.json")
    args = parser.parse_args()
    if args.what == "speed":
        check_tests(["tests/test_elm.py"])
        cases = itertools.product(SIZES, (1, 2), args.threads)
        rows = [measure(size, version, args.repeats, threads) for size, version, threads in cases]
        print(speed_table(rows))
        keep("speed", rows, args.save)
        return
    torch.set_num_threads(1)
    splits = data.load("fsdd_adding", args.data_root, channels=CHANNELS, duration=DURATION)
    rows, rates = [], dict.fromkeys(("elm", "gru"), args.rates)
    for seed in args.seeds:
        rows += adding(splits, seed, args.epochs, rates)
        rates = {run["contender"]: [run["rate"]] for run in rows if "test" in run}
        keep("adding", rows, args.save)
    print(adding_table(rows))


def keep(what: str, rows: list[dict[str, Any]], save: bool) -> None:
    """Put the rows in the file of the results."""
    if not save:
        return
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(
        json.dumps({**old, what: {"machine": machine(), "commit": commit(), "rows": rows}}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
