"""N-MNIST recordings through tonic, trained with exact gradients; or any other set that tonic reads.

python examples/04_nmnist_through_tonic.py --data-root FOLDER      # a folder with N-MNIST's Train/ and Test/
"""

import argparse

import torch
from torch.nn import functional

from eventnet import LI, LIF, data, initial


def main(data_root: str | None = None, quick: bool = False) -> float:
    """Train 2312-128-10 on the recordings that are there; returns the accuracy on the validation part."""
    torch.manual_seed(0)
    splits = data.load("nmnist", data_root)
    print(splits.note)
    classes = splits.num_classes
    hidden, readout = LIF(splits.num_units, 128), LI(128, classes, tau_mem=50e-3)
    events, _ = splits.train.__getitems__(list(range(min(32, len(splits.train)))))
    share = initial.fire_fraction_(hidden, events, 0.5)
    print(f"{100 * share:.0f} % of the hidden neurons fire on the first batch")
    optimizer = torch.optim.Adam([hidden.weight, readout.weight], lr=2e-3)
    accuracy = 0.0
    for epoch in range(3 if quick else 15):
        for index in torch.randperm(len(splits.train)).split(16):
            events, labels = splits.train.__getitems__(index.tolist())
            loss = functional.cross_entropy(5 * readout(hidden(events)).mean(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            events, labels = splits.validation.__getitems__(list(range(len(splits.validation))))
            accuracy = (readout(hidden(events)).mean().argmax(1) == labels).float().mean().item()
        print(f"epoch {epoch + 1}: validation accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder with the recordings; default: the variable EVENTNET_DATA")
    parser.add_argument("--quick", action="store_true", help="three epochs instead of fifteen")
    main(**vars(parser.parse_args()))
