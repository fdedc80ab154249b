"""Move one spike: the time of a neuron's first spike, its exact gradient, and gradient descent on it.

python examples/01_first_spike.py
"""

import argparse

import torch

from eventnet import Events, lif


def main(quick: bool = False) -> float:
    """Train two weights until the neuron fires at 6 ms; returns the distance left in seconds."""
    events = Events.from_list([([0.000, 0.002], [0, 1])], num_units=2, duration=0.05, dtype=torch.float64)
    weight = torch.tensor([[4.0], [4.0]], dtype=torch.float64, requires_grad=True)
    target = 0.006
    for step in range(20 if quick else 60):
        spike = lif(events, weight).first_times()[0, 0]
        (gradient,) = torch.autograd.grad(spike, weight)
        if step % 10 == 0:
            print(
                f"step {step:2d}: spike at {1e3 * spike.item():.4f} ms, d(time)/d(weight) = {gradient.flatten().tolist()}"
            )
        with torch.no_grad():  # Newton's method along the gradient: time is smooth in the weights
            weight -= 0.5 * (spike - target) * gradient / gradient.square().sum()
    error = abs(lif(events, weight).first_times().item() - target)
    print(f"the spike is {1e6 * error:.3f} microseconds from 6 ms")
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    main(**vars(parser.parse_args()))
