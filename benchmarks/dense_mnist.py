"""MNIST by a convolutional network with a spiking layer in it: conv features -> LIF -> linear layer, exact gradients throughout.

    python benchmarks/dense_mnist.py --data-root FOLDER [--coding current latency] [--seeds 0 1] [--epochs 6] [--save]

FOLDER has ``mnist/``. Two layers of convolutions make 1,176 features of an image. *current*: they drive 128 LIF neurons for
30 ms, by ``LIF.drive``. *latency*: each feature is one event, the larger the earlier, by ``Events.from_latency``. The linear
layer reads the mean trace of each neuron's spikes, nothing else. Of the 60,000 training images 5,000 are for validation, evenly
from the classes: the epoch with the best validation accuracy is the one whose test accuracy is told.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine
from torch import Tensor, nn

from eventnet import LIF, Events
from eventnet.data import idx
from eventnet.data.dataset import stratified_split
from eventnet.data.folders import data_root
from eventnet.files import write_files
from eventnet.layers.dense import mean_trace

RESULT = Path(__file__).with_name("results") / "dense_mnist.json"
CODINGS = ("current", "latency")
DURATION = 30e-3  # seconds
BATCH, RATE = 100, 2e-3


class Network(nn.Module):
    """Features -> spikes -> their mean traces -> classes."""

    def __init__(self, coding: str, hidden: int = 128) -> None:
        super().__init__()
        self.coding = coding
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 24, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten()),
        )
        self.spiking = LIF(24 * 7 * 7, hidden, slope_floor=5.0)
        self.classes = nn.Linear(hidden, 10)
        nn.init.normal_(self.spiking.weight, 0.0, {"current": 0.05, "latency": 0.4}[coding])

    def spikes(self, x: Tensor) -> Events:
        features = self.features(x)
        if self.coding == "current":
            return self.spiking.drive(features[None], DURATION)
        squashed = torch.tanh(features)  # of features >= 0: from 0 to 1; those of 0 give no event
        return self.spiking(Events.from_latency(squashed, 0.0, 20e-3, duration=DURATION, minimum=1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.spikes(x))

    def read(self, spikes: Events) -> Tensor:
        return self.classes(mean_trace(spikes, 1, DURATION, tau=20e-3)[0])


@dataclass
class Images:
    """``(B, 1, 28, 28)`` from 0 to 1, and labels."""

    x: Tensor
    labels: Tensor

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for part in (torch.arange(len(self.x)) if order is None else order).split(size):
            yield self.x[part], self.labels[part]


def mnist(root: str, seed: int) -> dict[str, Images]:
    """Training, validation and test images."""
    parts = {}
    for name in ("train", "test"):
        images, labels = idx.read_images(data_root(root, "mnist"), "mnist", name)
        parts[name] = Images(torch.from_numpy(images / 255.0).float()[:, None], torch.from_numpy(labels.astype(int)))
    whole = parts["train"]
    training, validation = stratified_split(whole.labels, 1 / 12, seed)
    return {
        "train": Images(whole.x[training], whole.labels[training]),
        "validation": Images(whole.x[validation], whole.labels[validation]),
        "test": parts["test"],
    }


@torch.no_grad()
def evaluate(network: Network, images: Images) -> tuple[float, float]:
    """Accuracy, and spikes per image."""
    right, spikes = 0, 0
    network.eval()
    for x, labels in images.batches(500):
        events = network.spikes(x)
        right += int((network.read(events).argmax(1) == labels).sum())
        spikes += events.num_events
    return right / len(images.x), spikes / len(images.x)


def train(coding: str, parts: dict[str, Images], epochs: int, seed: int) -> dict[str, Any]:
    """The result of the epoch with the best validation accuracy."""
    torch.manual_seed(seed)
    network = Network(coding)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    steps = epochs * -(-len(parts["train"].x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    best, chosen, seconds, of_epochs = -1.0, copy.deepcopy(network.state_dict()), 0.0, []
    for epoch in range(epochs):
        start = time.perf_counter()
        network.train()
        for x, labels in parts["train"].batches(BATCH, torch.randperm(len(parts["train"].x))):
            loss = nn.functional.cross_entropy(network(x), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - start
        accuracy, spikes = evaluate(network, parts["validation"])
        of_epochs.append(accuracy)
        print(
            f"{coding}, seed {seed}, epoch {epoch + 1}: validation {accuracy:.4f}, {spikes:.0f} spikes per image",
            flush=True,
        )
        if accuracy > best:
            best, chosen = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(chosen)
    test, spikes = evaluate(network, parts["test"])
    print(f"{coding}, seed {seed}: test {test:.4f}, {seconds / epochs:.1f} s per epoch", flush=True)
    return {
        "test_accuracy": test,
        "validation_accuracy": of_epochs,
        "spikes_per_image": spikes,
        "seconds_per_epoch": seconds / epochs,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "commit": commit(),
    }


def table(kept: dict[str, dict[str, Any]]) -> str:
    """A line for each run."""
    lines = [
        "| coding, epochs, seed | test accuracy | best validation accuracy | spikes per image | seconds per epoch |",
        "|---|---|---|---|---|",
    ]
    for name, found in kept.items():
        cells = (name.replace("-", ", "), f"{found['test_accuracy']:.2%}", f"{max(found['validation_accuracy']):.2%}")
        lines.append(f"| {' | '.join(cells)} | {found['spikes_per_image']:.0f} | {found['seconds_per_epoch']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder with mnist/")
    parser.add_argument("--coding", nargs="+", default=list(CODINGS), choices=CODINGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--save", action="store_true", help=f"keep the results in {RESULT.name}")
    args = parser.parse_args()
    for seed in args.seeds:
        parts = mnist(args.data_root, seed)
        for coding in args.coding:
            found = train(coding, parts, args.epochs, seed)
            if args.save:
                kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
                kept[f"{coding}-{args.epochs}-{seed}"] = found
                write_files({RESULT: (json.dumps(kept, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
