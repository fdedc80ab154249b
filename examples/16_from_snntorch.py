"""A network of snnTorch, trained there with surrogate gradients, goes on here with exact ones.

python examples/16_from_snntorch.py      (needs snntorch)
"""

import argparse
import math

import snntorch as snn
import torch
from snntorch import functional, utils
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eventnet import Events, data
from eventnet.interop import from_snntorch, to_snntorch, to_steps

DT = 2e-3  # seconds that a step stands for


def a_model() -> nn.Sequential:
    """As snnTorch's users write it: 64-60-10, leaky synaptic neurons, the last ones never reset."""
    decay = {"alpha": math.exp(-DT / 5e-3), "beta": math.exp(-DT / 20e-3), "init_hidden": True}
    return nn.Sequential(
        nn.Linear(64, 60),
        snn.Synaptic(**decay),
        nn.Linear(60, 10),
        snn.Synaptic(**decay, reset_mechanism="none", output=True),
    )


def membrane(model: nn.Sequential, events: Events) -> Tensor:
    """Mean membrane potential of the outputs: a loop over the steps."""
    utils.reset(model)
    return torch.stack([model(x)[-1] for x in events.to_dense(DT)]).mean(0)


def main(quick: bool = False) -> dict[str, float]:
    """Train there, convert, train on here, go back; returns the accuracies on the validation digits."""
    torch.manual_seed(0)
    splits, found = data.load("digits"), {}
    held, labels = splits.validation.events, splits.validation.labels

    def train(output, groups: list[dict], epochs: int) -> None:
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        for _ in range(epochs):
            for index in torch.randperm(len(splits.train)).split(32):
                events, answers = splits.train.__getitems__(index.tolist())
                loss = cross_entropy(5 * output(events), answers)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def measure(name: str, output) -> None:
        with torch.no_grad():
            found[name] = (output(held).argmax(1) == labels).float().mean().item()
        print(f"{name:30} {100 * found[name]:5.1f} %")

    model = a_model()
    train(lambda events: membrane(model, events), [{"params": [*model.parameters()], "lr": 2e-3}], 2 if quick else 8)
    measure("snnTorch", lambda events: membrane(model, events))

    network, report = from_snntorch(model, DT, probe=held[:8])
    print(report)
    measure("converted", lambda events: network(events).mean())

    # Adam's steps are in units of the weights, and the conversion multiplied these
    pairs = [(network[0].weight, model[0].weight), (network[1].weight, model[2].weight)]
    groups = [{"params": [here], "lr": 2e-3 * (here.norm() / there.norm()).item()} for here, there in pairs]
    train(lambda events: network(events).mean(), groups, 1 if quick else 5)
    measure("trained on, exact gradients", lambda events: network(events).mean())

    back, _ = to_snntorch(network, DT, probe=held[:8])
    measure("back in snnTorch", lambda events: membrane(back, events))

    spikes = network[0](held[:8])  # their tools take our spikes
    rates = functional.ce_count_loss()(to_steps(spikes, DT), torch.zeros(8, dtype=torch.int64))
    print(f"a loss of snnTorch's on the {spikes.num_events} hidden spikes of 8 digits: {rates.item():.2f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three epochs in all")
    main(**vars(parser.parse_args()))
