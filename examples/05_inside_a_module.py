"""A spiking layer in the middle of an ordinary nn.Module: dense features in, latencies, spikes, logits out.

python examples/05_inside_a_module.py
"""

import argparse

import torch
from torch import Tensor, nn

from eventnet import LI, LIF, Events


class Hybrid(nn.Module):
    """Linear layer -> latency of one spike per feature -> LIF -> leaky integrator -> linear layer; all differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(2, 20), nn.Sigmoid())
        self.spiking = LIF(20, 40)
        self.readout = LI(40, 20)
        self.decode = nn.Linear(20, 2)
        with torch.no_grad():
            self.spiking.weight.normal_(1.0, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        events = Events.from_latency(self.encode(x), t_min=0.0, t_max=20e-3, duration=40e-3)
        return self.decode(self.readout(self.spiking(events)).max())


def two_moons(n: int) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles with noise, and which one each point is from."""
    angle, label = torch.pi * torch.rand(n), torch.randint(2, (n,))
    x = torch.where(label == 0, angle.cos(), 1 - angle.cos())
    y = torch.where(label == 0, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + 0.1 * torch.randn(n, 2), label


def main(quick: bool = False) -> float:
    """Train on two moons; returns the accuracy on fresh points."""
    torch.manual_seed(0)
    model = Hybrid()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(100 if quick else 400):
        x, label = two_moons(64)
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    x, label = two_moons(1000)
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == label).float().mean().item()
    print(f"accuracy on fresh points {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    main(**vars(parser.parse_args()))
