"""Digits read row by row: an event-based GRU beside torch.nn.GRU, and what each of them multiplies.

python examples/08_egru.py
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from eventnet import EGRU, constrain_, losses

HIDDEN = 64


class Reader(nn.Module):
    """A recurrent layer over the rows of an image, and a linear readout of what it says last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.readout = layer, nn.Linear(HIDDEN, 10)
        self.told = {"return_steps": True} if isinstance(layer, EGRU) else {}

    def forward(self, rows: Tensor) -> tuple[Tensor, list]:
        """Logits, and what the units of an EGRU did."""
        output, _, *steps = self.layer(rows, **self.told)
        return self.readout(output[-1]), steps[0] if steps else []


def main(quick: bool = False) -> dict[str, tuple[float, float]]:
    """Train both; returns validation accuracy and multiplications per step for each."""
    torch.manual_seed(0)
    digits = load_digits()
    rows = torch.tensor(digits.images, dtype=torch.float32).transpose(0, 1) / 16  # (8 rows, 1797 images, 8 pixels)
    labels = torch.tensor(digits.target)
    train, validation = torch.randperm(len(labels)).split([1400, 397])
    found = {}
    for name, layer in (("GRU", nn.GRU(8, HIDDEN)), ("EGRU", EGRU(8, HIDDEN, half_width=0.5, trace_decay=0.7))):
        model = Reader(layer)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        epochs = 25 if quick else 40
        for epoch in range(epochs):
            for index in train[torch.randperm(len(train))].split(32):
                logits, steps = model(rows[:, index])
                loss = nn.functional.cross_entropy(logits, labels[index])
                for done in steps:  # silence is asked for bit by bit: from the start it would end all learning
                    loss = loss + 5 * epoch / epochs * losses.activity_penalty(done.fired, 0.15)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                constrain_(model)  # thresholds stay between 0 and 1
        with torch.no_grad():
            logits, steps = model(rows[:, validation])
        accuracy = (logits.argmax(1) == labels[validation]).float().mean().item()
        multiplications = steps[0].activity().multiplications if steps else 3.0 * HIDDEN * HIDDEN
        found[name] = accuracy, multiplications
        print(
            f"{name:4}: validation accuracy {100 * accuracy:.1f} %, {multiplications:,.0f} recurrent multiplications per step"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    main(**vars(parser.parse_args()))
