"""A trained network on a neuromorphic chip: 8-bit weights, delays in whole steps, and proof of what was lost.

Trains a recurrent network with learnt delays on spike latencies of digits, compiles it for steps of 0.5 ms, fine-tunes it through
the chip's integers, and writes it for Lava and for NIR, each with a report (parity.html) and its gates.

    python examples/10_export.py [--quick] [--out FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

import torch

from eventnet import LI, LIF, constrain_, data, initial
from eventnet.hardware import ParityReport, compile, export, finetune


def trained(digits: data.Splits, epochs: int) -> list[torch.nn.Module]:
    """A hidden layer with delays on every synapse, and a readout."""
    hidden = LIF(64, 60, recurrent=True, delay=(0.0, 10e-3), recurrent_delay=(1e-3, 10e-3))
    readout = LI(60, 10)
    with torch.no_grad():
        hidden.recurrent_weight.mul_(0.1)
    initial.fire_fraction_(hidden, digits.train.events[:100], 0.5)
    delays = [hidden.delay, hidden.recurrent_delay]
    weights = [hidden.weight, hidden.recurrent_weight, readout.weight]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 5e-3}, {"params": delays, "lr": 1e-4}], betas=(0.9, 0.99))
    for _ in range(epochs):
        for index in torch.randperm(len(digits.train)).split(32):
            events, labels = digits.train.events[index], digits.train.labels[index]
            loss = torch.nn.functional.cross_entropy(4 * readout(hidden(events)).max(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            constrain_(hidden)
    return [hidden, readout]


def main(quick: bool = False, out: Path | None = None) -> dict[str, ParityReport]:
    torch.manual_seed(0)
    folder, digits = out or Path(tempfile.mkdtemp()), data.load("digits")
    model = trained(digits, epochs=2 if quick else 8)
    deployment = compile(model, calibration=digits.train.events[:64], dt=0.5e-3)
    batches = [
        (digits.train.events[k : k + 32], digits.train.labels[k : k + 32]) for k in range(0, 320 if quick else 1248, 32)
    ]
    validation = digits.validation.events, digits.validation.labels
    tuned = finetune(deployment, batches, epochs=1, learning_rate=0.1, validation=validation, say=print)
    found = {}
    for target in ("lava", "nir"):
        test = digits.test.events, digits.test.labels
        chosen = tuned if target == "lava" else deployment  # NIR holds the trained layers, not the chip's integers
        found[target] = export(chosen, model, target, folder / target, *test, tolerance=0.02, samples=1, steps=40)
        print(f"\n{folder / target}", *found[target].gates, sep="\n  ")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, help="a folder for what is written")
    main(**vars(parser.parse_args()))
