"""Digits read pixel by pixel by a single cortical neuron: an ELM with eight branches and thirty memories.

python examples/14_elm.py
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from eventnet.layers.elm import ELM


def main(quick: bool = False) -> float:
    """Train it; returns the validation accuracy."""
    torch.manual_seed(0)
    digits = load_digits()
    pixels = (
        torch.tensor(digits.images, dtype=torch.float32).flatten(1).t()[:, :, None] / 16
    )  # (64 steps, 1797 images, 1)
    labels = torch.tensor(digits.target)
    train, validation = torch.randperm(len(labels)).split([1400, 397])
    neuron = ELM(1, 10, memory=30, branches=8, version=1, tau_mem=(1e-3, 100e-3), learn=("tau_mem", "tau_syn"))
    optimizer = torch.optim.Adam(neuron.parameters(), lr=5e-3)
    for _ in range(10 if quick else 20):
        for index in train[torch.randperm(len(train))].split(32):
            output, _ = neuron(pixels[:, index])  # a step of 1 ms for each pixel
            loss = nn.functional.cross_entropy(output[-1], labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        output, _ = neuron(pixels[:, validation])
    accuracy = (output[-1].argmax(1) == labels[validation]).float().mean().item()
    print(
        f"validation accuracy {100 * accuracy:.1f} %, a parameter count of {sum(p.numel() for p in neuron.parameters()):,}"
    )
    print(f"learnt memories of {1e3 * neuron.tau_mem.min():.1f} to {1e3 * neuron.tau_mem.max():.0f} ms")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    main(**vars(parser.parse_args()))
