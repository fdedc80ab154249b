"""A chip's own randomness as a network: the weights of a reservoir are what the forming of its cells left in them.

Conductances that nobody chose (one cell in two conducts) are the weights of spiking neurons; only a linear readout of their
spikes is trained, in closed form, for each chip. The cells are HFOX's: a day after they were written their conductances have
changed, and a readout that is fitted then does not mind. Beside it a linear readout of the input's event counts: what it has to
beat.

    python examples/11_reservoir.py [--quick]
"""

import argparse

import torch

from eventnet import Events, data
from eventnet.hardware.resistive import HFOX, Forming, Pair, Reservoir, RidgeReadout, seeded, spectral_radius, with_rate

CONDUCTANCE = Forming(formed=0.5, mean=20e-6, std=5e-6)  # siemens
STEP, DAY = 0.4e-3, 86_400.0  # seconds: of a step of the reservoir; after which the cells are read
RATE = 75.0  # spikes per second and neuron
PENALTIES = tuple(10.0**k for k in range(-2, 5))


def held(shape: tuple[int, int], stream: torch.Generator, age: float) -> torch.Tensor:
    """Weights ``(in, out)`` of random differential pairs, ``(G+ - G-) / G_max``, so many seconds after they were written."""
    formed = CONDUCTANCE.draw((2, *shape), stream).clamp(max=HFOX.g_max)
    positive, negative = HFOX.program(formed, stream).at(age)
    return Pair(positive, negative, 1 / HFOX.g_max).weight()


def reservoir_of(chip: int, units: int, typical: Events, age: float) -> Reservoir:
    """The network of one chip; its threshold is set so that neurons have a typical rate."""
    stream = seeded(chip)
    weight, recurrent = held((typical.num_units, units), stream, age), held((units, units), stream, age)
    recurrent = recurrent / spectral_radius(recurrent)
    return with_rate(Reservoir(weight, recurrent, dt=STEP, threshold=1.0, gain=1.0), typical, RATE)


def main(quick: bool = False) -> dict[str, float]:
    """Shares of right test samples, by what was read."""
    digits, units = data.load("digits"), 100 if quick else 400
    train, test = digits.train, digits.test
    times = [10e-3, 20e-3, 30e-3, 40e-3]  # of the traces
    found = {}

    def judge(name: str, features: torch.Tensor, test_features: torch.Tensor) -> None:
        readout = RidgeReadout(PENALTIES, standardize=True).fit(features, train.labels)  # penalty by leave-one-out
        found[name] = readout.score(test_features, test.labels)
        print(f"{name:<32} {found[name]:.1%} of {len(test)}, penalty {readout.chosen:g}")

    judge("event counts alone", *(part.events.counts().float() for part in (train, test)))
    for chip in range(3):
        reservoir = reservoir_of(chip, units, train.events[:200], DAY)
        features = [reservoir.features(part.events, times=times) for part in (train, test)]
        judge(f"chip {chip}, spike counts", *(x[:, :units] for x in features))
        judge(f"chip {chip}, counts and traces", *features)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller reservoirs")
    main(**vars(parser.parse_args()))
