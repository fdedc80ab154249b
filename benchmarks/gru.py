"""A GRU on binned events, trained the usual way: what a dense recurrent network makes of the same spikes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events
from eventnet.training.batches import Batches

BIN = 10e-3  # seconds


class BinnedGRU(nn.Module):
    """Events -> counts per bin and unit -> GRU -> mean of its states over time -> logits.

    Counts ``c`` enter as ``log(1 + c)``.

    Example:
        >>> events = Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
        >>> BinnedGRU(4, 8, 3)(events).shape
        torch.Size([1, 3])
    """

    def __init__(self, num_units: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(num_units, hidden)
        self.readout = nn.Linear(hidden, num_classes)

    def forward(self, events: Events) -> Tensor:
        """Logits ``(B, classes)``."""
        states, _ = self.gru(torch.log1p(events.to_dense(BIN)))
        logits: Tensor = self.readout(states.mean(0))
        return logits


def size_for(parameters: int, num_units: int, num_classes: int) -> int:
    """The hidden size with at most this many parameters, ``3 h (in + h + 2) + (h + 1) classes``.

    Example:
        >>> module = BinnedGRU(700, size_for(250_000, 700, 10), 10)
        >>> 247_000 < sum(p.numel() for p in module.parameters()) <= 250_000
        True
    """
    b = 3 * (num_units + 2) + num_classes
    return max(1, int((math.sqrt(b * b + 12 * (parameters - num_classes)) - b) / 6))


def train(
    splits: Any,
    parameters: int,
    *,
    seed: int = 0,
    epochs: int = 40,
    learning_rate: float = 2e-3,
    batch_size: int = 32,
    dropout: float = 0.2,
    shift: int = 20,
) -> dict[str, Any]:
    """Adam for ``epochs``, the best validation epoch, tested once; augmented like the spiking networks.

    Returns:
        ``test_accuracy``, ``validation_accuracy``, ``best_epoch``, ``seconds``, ``parameters``, ``hidden`` and the settings.
    """
    settings = {name: value for name, value in locals().items() if name not in ("splits", "parameters")}
    torch.manual_seed(seed)
    module = BinnedGRU(splits.num_units, size_for(parameters, splits.num_units, splits.num_classes), splits.num_classes)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    batches = Batches(splits.train, batch_size, shuffle=True, seed=seed, dropout=dropout, shift=shift)
    best: tuple[float, float] = (-1.0, 0.0)  # accuracy, minus the loss
    kept: Mapping[str, Tensor] = {}
    best_epoch, started = 0, time.perf_counter()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for events, labels in batches:
            loss = nn.functional.cross_entropy(module(events), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        found = _measure(module, splits.validation, batch_size)
        if found > best:
            best, best_epoch = found, epoch + 1
            kept = {name: value.clone() for name, value in module.state_dict().items()}
    seconds = time.perf_counter() - started
    module.load_state_dict(kept)
    return {
        "test_accuracy": _measure(module, splits.test, batch_size)[0],
        "validation_accuracy": best[0],
        "best_epoch": best_epoch,
        "seconds": round(seconds, 2),
        "parameters": sum(p.numel() for p in module.parameters()),
        "hidden": module.gru.hidden_size,
        "settings": settings,
    }


@torch.no_grad()
def _measure(module: BinnedGRU, dataset: Any, batch_size: int) -> tuple[float, float]:
    """Accuracy, minus the mean loss."""
    correct, loss = 0, 0.0
    for events, labels in Batches(dataset, batch_size):
        logits = module(events)
        correct += int((logits.argmax(1) == labels).sum())
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    return correct / len(dataset), -loss / len(dataset)
