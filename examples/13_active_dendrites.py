"""Learn one task after the other without forgetting: active dendrites and k-winners on permuted digits.

Each task is the same 8 x 8 digits with their pixels in another order, seen for a while and then no more. All units of a plain
network take part in every task, so each task overwrites those before. With k-winners few units speak; with dendritic segments
the context decides which. The context is the mean image of the task; nobody tells which task a test image is from (its context
is the nearest mean image), and in the last row nobody tells in training either (a test finds where a new task begins).

    python examples/13_active_dendrites.py [--quick]
"""

import argparse

import torch
from torch import nn

from eventnet import data
from eventnet.layers.dendrites import ActiveDendrites
from eventnet.layers.prototypes import Prototypes
from eventnet.layers.winners import KWinners

PIXELS, CLASSES, UNITS, SHARE, EPOCHS = 64, 10, 512, 0.05, 5


class Network(nn.Module):
    """One hidden layer; without segments it takes no context."""

    def __init__(self, segments: int, winners: bool) -> None:
        super().__init__()
        self.hidden = ActiveDendrites(PIXELS, UNITS, segments, PIXELS, density=0.5, context_share=0.1)
        self.active = KWinners(UNITS, SHARE) if winners else nn.ReLU()
        self.readout = nn.Linear(UNITS, CLASSES)

    def forward(self, x: torch.Tensor, context: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.readout(self.active(self.hidden(x, context if self.hidden.segments else None)))


def ink(part: data.EventDataset) -> torch.Tensor:
    """Pixels of an image, of which the darker ones came earlier, within 20 ms."""
    return (1 - part.events.first_times() / 20e-3).clamp(min=0) - 0.3


def learn(network: Network, orders: list[torch.Tensor], labelled: bool) -> tuple[float, int]:
    """Share of right test images of all tasks after the last one, and the number of contexts."""
    digits, prototypes = data.load("digits"), Prototypes(PIXELS)
    x, y = ink(digits.train), digits.train.labels
    for order in orders:
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        if labelled:
            prototypes.add(x[:, order])
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(y)).split(64):
                inputs = x[batch][:, order]
                task = len(prototypes) - 1 if labelled else prototypes.assign(inputs)
                context = prototypes.contexts, torch.full((len(batch),), task)
                loss = nn.functional.cross_entropy(network(inputs, context), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    with torch.no_grad():
        tests = [ink(digits.test)[:, order] for order in orders]
        said = [network(test, (prototypes.contexts, prototypes.nearest(test))).argmax(1) for test in tests]
    return torch.stack([one == digits.test.labels for one in said]).float().mean().item(), len(prototypes)


def main(quick: bool = False) -> dict[str, float]:
    """Accuracy over all tasks, by what the network has."""
    tasks, found = 4 if quick else 10, {}
    rows = {
        "neither": (0, False, True),
        "winners": (0, True, True),
        "dendrites": (tasks, False, True),
        "both": (tasks, True, True),
        "both, tasks not told": (tasks, True, False),
    }
    for name, (segments, winners, labelled) in rows.items():
        torch.manual_seed(0)
        orders = [torch.randperm(PIXELS) for _ in range(tasks)]
        found[name], contexts = learn(Network(segments, winners), orders, labelled)
        print(f"{name:<21} {found[name]:.1%} of the test images of {tasks} tasks, {contexts} contexts")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 tasks, too few to see much forgetting")
    main(**vars(parser.parse_args()))
