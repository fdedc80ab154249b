"""Two orders of the same four spikes, told apart by learning nothing but delays.

python examples/06_learn_delays.py
"""

import argparse

import torch

from eventnet import LIF, Events, constrain_, losses

INTERVAL = 5e-3  # seconds between the spikes of a pattern


def patterns(n: int) -> tuple[Events, torch.Tensor]:
    """n samples of four inputs that fire one after the other, upwards (class 0) or downwards (class 1), with jitter."""
    label = torch.randint(2, (n,))
    place = torch.arange(4.0).expand(n, 4)
    times = INTERVAL * torch.where(label[:, None] == 0, place, 3 - place) + 0.5e-3 * torch.rand(n, 4)
    samples = [(t, torch.arange(4)) for t in times]
    return Events.from_list(samples, num_units=4, duration=0.1, sort=True), label


def main(quick: bool = False) -> float:
    """Train the delays; returns the accuracy on fresh patterns."""
    torch.manual_seed(0)
    layer = LIF(4, 2, delay=(0.0, 2e-3), tau_mem=10e-3, tau_syn=3e-3, learn=("delay",))
    with torch.no_grad():
        layer.weight.fill_(3.0)  # all alike: only when the spikes arrive can make a difference
    optimizer = torch.optim.Adam(layer.parameters(), lr=2e-4)  # delays are seconds
    for step in range(150 if quick else 400):
        events, label = patterns(32)
        loss = losses.first_spike_cross_entropy(layer(events).first_times(), label, tau=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        constrain_(layer)  # delays stay at 0 or above
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    events, label = patterns(1000)
    with torch.no_grad():
        accuracy = (layer(events).first_times().argmin(1) == label).float().mean().item()
    print("learnt delays in ms, a column per neuron:")
    print((1e3 * layer.delay.detach()).round(decimals=1))
    print(f"accuracy on fresh patterns {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    main(**vars(parser.parse_args()))
