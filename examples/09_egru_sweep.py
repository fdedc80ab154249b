"""How much of a GRU's work is needed? Accuracy against multiplications, for event-based GRUs and two ways to spare a plain one.

python examples/09_egru_sweep.py --out sweep.png

Digits are read row by row. Every point is a network: a GRU; the same GRU that, without any training, tells only states with a
large |state| x norm of their column of the weight; event-based GRUs of several thresholds, half-widths and wanted activities;
and some of both with their smallest recurrent weights pruned. All are trained equally long, pruned ones for the last third
without these weights. Multiplications are those with the recurrent
weight, per step; they and the accuracy are those of one validation part of 360 images, so a point is good to two percent.
"""

import argparse
import copy
import itertools
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import prune

from eventnet import EGRU, constrain_, losses, plots

HIDDEN, LAST = 64, 360  # images of the validation part
ACTIVITIES, HALF_WIDTHS, THRESHOLDS = (0.05, 0.1, 0.2, 0.4), (0.3, 1.0), (0.1, 0.3)
PRUNED, GATED = (0.5, 0.8, 0.9), (0.1, 0.2, 0.4, 0.8, 1.2)


class Reader(nn.Module):
    """A recurrent layer over the rows of an image, and a linear readout of what it says last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.readout = layer, nn.Linear(HIDDEN, 10)

    def forward(self, rows: Tensor) -> tuple[Tensor, list]:
        """Logits, and what the units of an EGRU did."""
        if isinstance(self.layer, EGRU):
            output, _, steps = self.layer(rows, return_steps=True)
            return self.readout(output[-1]), steps
        return self.readout(self.layer(rows)[0][-1]), []


def train(model: Reader, rows: Tensor, labels: Tensor, epochs: range, total: int, activity: float = 0.0) -> None:
    """Adam; the wanted activity is asked for little by little."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in epochs:
        for index in torch.randperm(len(labels)).split(32):
            logits, steps = model(rows[:, index])
            loss = nn.functional.cross_entropy(logits, labels[index])
            for done in steps:
                loss = loss + 10 * epoch / total * losses.activity_penalty(done.fired, activity)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            constrain_(model)


@torch.no_grad()
def measure(model: Reader, rows: Tensor, labels: Tensor) -> tuple[float, float]:
    """Multiplications with the recurrent weight per step, and accuracy."""
    logits, steps = model(rows)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return steps[0].activity().multiplications if steps else float(model.layer.weight_hh_l0.count_nonzero()), accuracy


@torch.no_grad()
def measure_gated(model: Reader, rows: Tensor, labels: Tensor, least: float) -> tuple[float, float]:
    """A GRU whose states are told only where |state| times the norm of their column is at least so much."""
    gru, told = model.layer, 0
    h, norm = rows.new_zeros(len(labels), HIDDEN), gru.weight_hh_l0.norm(dim=0)
    y = h
    for x in rows:
        x_r, x_z, x_n = nn.functional.linear(x, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, 1)
        y_r, y_z, y_n = nn.functional.linear(y, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, 1)
        z = torch.sigmoid(x_z + y_z)
        h = (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + y_r) * y_n) + z * h
        y = torch.where(h.abs() * norm >= least, h, 0.0)
        told += int(y.count_nonzero())
    accuracy = (model.readout(h).argmax(1) == labels).float().mean().item()
    return 3.0 * HIDDEN * told / (len(rows) * len(labels)), accuracy


def main(quick: bool = False, out: Path = Path("egru_sweep.png")) -> dict[str, list[tuple[float, float]]]:
    """Train all, print and draw them; returns multiplications and accuracy of each, by kind."""
    digits = load_digits()
    rows = torch.tensor(digits.images, dtype=torch.float32).transpose(0, 1) / 16  # (8 rows, 1797 images, 8 pixels)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    training, validation = ((rows[:, index], labels[index]) for index in (order[:-LAST], order[-LAST:]))
    epochs = 12 if quick else 45
    early = 2 * epochs // 3
    found: dict[str, list[tuple[float, float]]] = {"GRU": [], "GRU, pruned": [], "GRU, gated without training": []}

    def note(kind: str, what: str, point: tuple[float, float]) -> None:
        found.setdefault(kind, []).append(point)
        print(f"{kind:28} {what:40} {point[0]:8,.0f} multiplications a step, accuracy {100 * point[1]:.1f} %")

    def finish(model: Reader, kind: str, what: str, shares: tuple[float, ...], activity: float = 0.0) -> Reader:
        """Train, the last third also without some of the weights; the model that keeps all of them."""
        train(model, *training, range(early), epochs, activity)
        for share in shares:
            pruned = copy.deepcopy(model)
            prune.l1_unstructured(pruned.layer, "weight_hh_l0", share)
            train(pruned, *training, range(early, epochs), epochs, activity)
            note(f"{kind}, pruned", f"{what} {share:.0%} pruned", measure(pruned, *validation))
        train(model, *training, range(early, epochs), epochs, activity)
        note(kind, what, measure(model, *validation))
        return model

    torch.manual_seed(0)
    dense = finish(Reader(nn.GRU(8, HIDDEN)), "GRU", "", PRUNED)
    for least in GATED:
        note("GRU, gated without training", f"least {least}", measure_gated(dense, *validation, least))
    settings = list(itertools.product(ACTIVITIES, HALF_WIDTHS, THRESHOLDS))
    for activity, half_width, threshold in [(0.1, 0.3, 0.1), (0.2, 1.0, 0.1)] if quick else settings:
        torch.manual_seed(0)
        model = Reader(EGRU(8, HIDDEN, half_width=half_width, threshold_mean=threshold, trace_decay=0.7))
        what = f"activity {activity}, half-width {half_width}, thresholds {threshold}"
        finish(model, "EGRU", what, PRUNED if (half_width, threshold) == (1.0, 0.1) else (), activity)
    plots.save(plots.pareto(found, cost="recurrent multiplications per step", score="validation accuracy"), out)
    print(f"drawn in {out}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer networks, fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("egru_sweep.png"), help="picture (default egru_sweep.png)")
    main(**vars(parser.parse_args()))
