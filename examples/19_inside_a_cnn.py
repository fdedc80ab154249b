"""A spiking layer inside a convolutional network: its features are currents, spike times carry the gradient back to them.

python examples/19_inside_a_cnn.py
"""

import argparse

import torch
from torch import Tensor, nn

from eventnet import LIF
from eventnet.layers.dense import Dense

STEP = 30e-3  # seconds for which an image drives the neurons
DIRECTIONS = 4


def model() -> nn.Sequential:
    """Convolutions -> LIF, as a layer of (T, B, N) tensors -> linear layer; T = 1, for an image stands still."""
    spiking = LIF(8 * 4 * 4, 32)
    nn.init.normal_(spiking.weight, 0.0, 0.3)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Unflatten(0, (1, -1))),
        *(Dense(spiking, STEP, inputs="currents", outputs="trace"), nn.Flatten(0, 1), nn.Linear(32, DIRECTIONS)),
    )


def stripes(n: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 12, 12) of noisy stripes in one of four directions, and which one."""
    label, phase = torch.randint(DIRECTIONS, (n,)), 2 * torch.pi * torch.rand(n, 1, 1)
    angle = torch.pi * label[:, None, None] / DIRECTIONS
    place = torch.arange(12.0)
    x = torch.sin(1.5 * (place * angle.cos() + place[:, None] * angle.sin()) + phase)
    return (x + torch.randn(n, 12, 12))[:, None], label


def main(quick: bool = False) -> float:
    """Train on stripes; returns the accuracy on fresh images."""
    torch.manual_seed(0)
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(100 if quick else 300):
        x, label = stripes(64)
        loss = nn.functional.cross_entropy(network(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    x, label = stripes(1000)
    with torch.no_grad():
        accuracy = (network(x).argmax(1) == label).float().mean().item()
        spikes = network[5].layer.drive(network[:5](x), STEP).num_events / len(x)
    print(f"accuracy on fresh images {100 * accuracy:.1f} %, {spikes:.1f} spikes per image")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    main(**vars(parser.parse_args()))
