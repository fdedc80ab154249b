"""A chip's own randomness as a network: the weights of a reservoir are what the forming of its cells left in them.

Forming leaves random conductances (one cell in two conducts) that nobody chose; here they are the weights of spiking neurons. A
linear readout of these alone is trained, in closed form, for each chip. No value is written to such cells, but noise and aging
were measured on cells that were: each is read as an HFOX cell that was written to what forming left, after 1 s and a day later.

Beside it linear readouts of the input itself: of event counts, and of counts in as many windows as the traces have times. The
counts and traces of 400 units beat the first and lose to the second (100 units to both): here it is not worth its cells.

    python examples/11_reservoir.py [--quick]
"""

import argparse
import itertools

import torch

from eventnet import data
from eventnet.hardware.resistive import HFOX, Forming, Reservoir, RidgeReadout, with_rate

FORMING = Forming(formed=0.5, mean=20e-6, std=5e-6)  # siemens
STEP, WINDOW = 0.4e-3, 10e-3  # seconds: of a step of the reservoir; between the times of its traces
AGES = {"after 1 s": 1.0, "a day later": 86_400.0}  # seconds since the cells got their conductances
RATE = 75.0  # spikes per second and neuron
PENALTIES = tuple(10.0**k for k in range(-2, 5))


def main(quick: bool = False) -> dict[str, float]:
    """Shares of right test samples, by what was read."""
    digits, units = data.load("digits"), 100 if quick else 400
    train, test = digits.train, digits.test
    windows = round(train.events.duration[0].item() / WINDOW)
    times = [WINDOW * (k + 1) for k in range(windows)]  # of the traces
    found = {}

    def judge(name: str, features: torch.Tensor, test_features: torch.Tensor) -> None:
        readout = RidgeReadout(PENALTIES, standardize=True).fit(features, train.labels)  # penalty by leave-one-out
        found[name] = readout.score(test_features, test.labels)
        print(f"{name:<40} {found[name]:.1%} of {len(test)}, penalty {readout.chosen:g}")

    judge("event counts", *(part.events.counts().float() for part in (train, test)))
    floor = f"event counts in {windows} windows"
    judge(floor, *(part.events.to_dense(WINDOW).transpose(0, 1).flatten(1) for part in (train, test)))
    for chip, (when, age) in itertools.product(range(3), AGES.items()):  # the readout is fitted again at each age
        options = {"forming": FORMING, "cell": HFOX, "age": age, "radius": 1.0, "dt": STEP}
        reservoir = Reservoir.formed(train.events.num_units, units, chip, **options)
        reservoir = with_rate(reservoir, train.events[:200], RATE)  # by the threshold, again at each age
        features = [reservoir.features(part.events, times=times) for part in (train, test)]
        judge(f"chip {chip} {when}, spike counts", *(x[:, :units] for x in features))
        judge(f"chip {chip} {when}, counts and traces", *features)
    behind = found[floor] - max(share for name, share in found.items() if name.startswith("chip"))
    print(f"the best reservoir is {100 * abs(behind):.1f} points {'below' if behind > 0 else 'above'} {floor}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller reservoirs")
    main(**vars(parser.parse_args()))
