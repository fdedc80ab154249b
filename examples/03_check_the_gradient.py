"""Is the gradient exact? Compare it with finite differences in float64, on a network of your own.

python examples/03_check_the_gradient.py
"""

import argparse
from itertools import pairwise

import torch

from eventnet import LI, LIF, Events


def main(quick: bool = False) -> float:
    """Largest relative error over random directions in all parameters of a three-layer network."""
    torch.manual_seed(3)
    learn = ("weight", "tau_mem", "tau_syn", "threshold", "reset", "bias")
    sizes = (6, 10, 8)
    layers = [LIF(a, b, learn=learn, dtype=torch.float64) for a, b in pairwise(sizes)]
    readout = LI(sizes[-1], 3, learn=("weight", "tau_mem", "tau_syn", "bias"), dtype=torch.float64)
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_(1.2, 1.0)
    times, units = torch.rand(40, dtype=torch.float64).sort().values * 0.1, torch.randint(6, (40,))
    events = Events.from_list([(times, units)], num_units=6, duration=0.12, dtype=torch.float64)
    parameters = [p for part in (*layers, readout) for p in part.parameters()]

    def loss() -> tuple[torch.Tensor, list[int]]:
        x, order = events, []
        for layer in layers:
            x = layer(x)
            order += x.units.tolist()
        voltage = readout(x)
        return voltage.max().sum() + 10 * voltage.integral(0.05).sum() + 10 * x.times.sum(), order

    value, order = loss()
    gradient = torch.autograd.grad(value, parameters)
    print(f"{len(order)} spikes, {sum(p.numel() for p in parameters)} parameters")
    worst, h = 0.0, 3e-7
    for trial in range(5 if quick else 50):
        direction = [torch.randn_like(p) * p.abs().mean().clamp(min=0.1) for p in parameters]
        exact = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        samples = []
        with torch.no_grad():
            for k in (-2, -1, 1, 2):
                for p, d in zip(parameters, direction, strict=True):
                    p += k * h * d
                samples.append(loss())
                for p, d in zip(parameters, direction, strict=True):
                    p -= k * h * d
        if any(o != order for _, o in samples):
            continue  # a spike appeared or vanished: there the time of a spike has no derivative
        far, near, above, beyond = (s for s, _ in samples)
        numeric = (far - 8 * near + 8 * above - beyond) / (12 * h)
        worst = max(worst, abs((exact - numeric) / numeric).item())
        print(f"direction {trial}: EventProp {exact:.10f}, finite differences {numeric:.10f}")
    print(f"EventProp vs finite differences, max relative error {worst:.1e}")
    return worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five directions instead of fifty")
    main(**vars(parser.parse_args()))
