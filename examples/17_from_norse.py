"""A network of Norse in continuous time, and a layer of eventnet inside a network of Norse.

python examples/17_from_norse.py      (needs norse)
"""

import argparse

import norse.torch as norse
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eventnet import LIF, Events, data, initial
from eventnet.interop import StateSteps, from_norse, to_norse

DT = 1e-3


def to_and_from() -> tuple[float, float]:
    """Errors of Norse's spike times at two steps: what is lost on a grid falls with the step."""
    torch.manual_seed(0)
    p = norse.LIFParameters(tau_mem_inv=torch.tensor(50.0))
    model = norse.SequentialState(norse.LIFRecurrent(20, 30, p), nn.Linear(30, 5), norse.LI())
    with torch.no_grad():
        model[0].input_weights.mul_(3)
    raster = (torch.rand(100, 4, 20) < 0.05).float()
    network, report = from_norse(model, probe=raster)
    print(report)
    errors = []
    network[0].recurrent_delay.data.zero_()  # it stood for Norse's step; a finer one makes it shorter
    for dt in (DT, DT / 10):
        _, report = to_norse(network, dt, probe=Events.from_dense(raster, DT))
        errors.append(report.layers[0].error[0])
        print(f"in steps of {1e3 * dt:g} ms: spike times {1e6 * errors[-1]:.0f} us apart in the median")
    return errors[0], errors[1]


def inside(quick: bool) -> float:
    """Accuracy of a Norse network whose spiking layer is ours, after some training on digits."""
    torch.manual_seed(0)
    splits = data.load("digits")
    hidden = LIF(64, 80)
    initial.fire_fraction_(hidden, splits.train.events[:64], 0.7)
    model = norse.SequentialState(StateSteps(hidden, DT), nn.Linear(80, 10), norse.LI(dt=DT))
    groups = [{"params": [hidden.weight], "lr": 0.1}, {"params": [*model[1].parameters()], "lr": 5e-3}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def voltage(events: Events) -> Tensor:
        return model(events.to_dense(DT))[0].mean(0)

    for _ in range(2 if quick else 8):
        for index in torch.randperm(len(splits.train)).split(32):
            events, answers = splits.train.__getitems__(index.tolist())
            loss = cross_entropy(20 * voltage(events), answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        guess = voltage(splits.validation.events).argmax(1)
    accuracy = (guess == splits.validation.labels).float().mean().item()
    print(f"our layer in a SequentialState: validation accuracy {100 * accuracy:.1f} %")
    return accuracy


def main(quick: bool = False) -> tuple[float, float, float]:
    """Errors of the spike times at 1 ms and 0.1 ms, and the accuracy of the mixed network."""
    return *to_and_from(), inside(quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two epochs instead of eight")
    main(**vars(parser.parse_args()))
