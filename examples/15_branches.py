"""A XOR of a slow and a fast bit: neurons with two dendritic branches learn it, neurons with one time constant hardly do.

python examples/15_branches.py
"""

import argparse

import torch
from torch import Tensor, nn

from eventnet import LI, LIF, Events, constrain_
from eventnet.data.xor import trials

HIDDEN, BATCH = 32, 64
STARTS = {1: [22e-3], 2: [5e-3, 100e-3]}  # seconds; one branch starts in between


class Reader(nn.Module):
    """Hidden neurons with branches, and two leaky integrators: the higher at the end of the trial is the answer."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        tau_syn = torch.tensor(STARTS[branches])[:, None]  # one number per branch, for all neurons
        learn = ("weight", "tau_syn")
        self.hidden = LIF(40, HIDDEN, branches=branches, tau_mem=10e-3, tau_syn=tau_syn, slope_floor=20.0, learn=learn)
        self.out = LI(HIDDEN, 2, tau_mem=20e-3, tau_syn=5e-3)
        with torch.no_grad():  # a slow branch adds its input up for longer
            self.hidden.weight.normal_(0.04, 0.3).mul_((5e-3 / tau_syn).sqrt())

    def forward(self, events: Events) -> Tensor:
        return 4 * self.out(self.hidden(events)).at(events.duration[:1])[:, 0]


def train(branches: int, steps: int, seed: int = 0) -> float:
    """Accuracy on fresh trials."""
    torch.manual_seed(seed)
    model = Reader(branches)
    weights = [model.hidden.weight, model.out.weight]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 1e-2}, {"params": [model.hidden.tau_syn], "lr": 1e-4}])
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    events, labels, _ = trials(BATCH * steps, seed=seed + 1)
    for step in range(steps):
        batch = slice(BATCH * step, BATCH * (step + 1))
        loss = nn.functional.cross_entropy(model(events[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.hidden.weight, 1.0)
        optimizer.step()
        schedule.step()
        constrain_(model)  # time constants stay above 0
    fresh, labels, _ = trials(1000, seed=10**6)
    with torch.no_grad():
        accuracy = (model(fresh).argmax(1) == labels).float().mean().item()
    before, after = (
        ", ".join(f"{1e3 * t:.1f}" for t in x) for x in (STARTS[branches], model.hidden.tau_syn[:, 0].tolist())
    )
    print(f"{branches} branch(es): accuracy {100 * accuracy:.1f} %; time constants {before} ms, learnt {after} ms")
    return accuracy


def main(quick: bool = False) -> dict[int, float]:
    """Train both; returns their accuracies."""
    return {branches: train(branches, 150 if quick else 500) for branches in (1, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    main(**vars(parser.parse_args()))
