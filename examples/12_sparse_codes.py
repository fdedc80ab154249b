"""Dendritic segments that recognise noisy sparse codes: choose the threshold by theory, then see whether it keeps its word.

Each class is one random pattern of 40 out of 1,000 units, and one segment with synapses onto 20 of its active units. A noisy
code has lost 22 of the 40 and has 22 others instead. The threshold is the one that theory finds best; the pool is then shown
a noisy code of every class, and as many random codes.

    python examples/12_sparse_codes.py [--quick]
"""

import argparse

import torch

from eventnet.layers.codes import Codes
from eventnet.layers.segments import SegmentPool
from eventnet.layers.sparse_codes import capacity, classification_error, false_match, false_negative, optimal_threshold

UNITS, ACTIVE, SYNAPSES, LOST = 1000, 40, 20, 22


def noisy(patterns: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The patterns ``(B, active)`` with ``LOST`` of their units replaced by others."""
    kept = patterns.gather(1, torch.rand(patterns.shape, generator=generator).argsort(1)[:, LOST:])
    free = torch.rand(len(patterns), UNITS, generator=generator).scatter_(1, patterns, -1.0)
    return torch.cat([kept, free.topk(LOST, 1).indices], 1)


def main(quick: bool = False) -> dict[str, float]:
    """Measured shares and what theory gives for them."""
    classes = 500 if quick else 2000
    generator = torch.Generator().manual_seed(0)
    tolerated = {"false_match": 1e-4, "false_negative": 0.05}
    threshold = int(optimal_threshold(UNITS, ACTIVE, SYNAPSES, lost=LOST, **tolerated))
    print(f"threshold {threshold} of {SYNAPSES} synapses")

    pool = SegmentPool(classes, UNITS, capacity=SYNAPSES)
    patterns = Codes.random(classes, UNITS, ACTIVE, generator=generator)
    pool.learn(range(classes), patterns, SYNAPSES, generator=generator)

    shown = noisy(patterns.units.reshape(classes, ACTIVE), generator)
    found = pool.active(shown, threshold).to_list()
    other = pool.active(Codes.random(classes, UNITS, ACTIVE, generator=generator), threshold)
    results = {
        "right": sum(segments == [k] for k, segments in enumerate(found)) / classes,
        "right, at least": 1
        - classification_error(UNITS, ACTIVE, SYNAPSES, threshold, classes=classes, lost=LOST).item(),
        "missed": sum(k not in segments for k, segments in enumerate(found)) / classes,
        "missed, theory": false_negative(ACTIVE, SYNAPSES, threshold, LOST).item(),
        "false matches": other.units.numel() / classes**2,
        "false matches, theory": false_match(UNITS, ACTIVE, SYNAPSES, threshold).item(),
    }
    for name, value in results.items():
        print(f"{name:<24}{value:.3g}")
    most = int(capacity(UNITS, ACTIVE, SYNAPSES, threshold, false_match=0.01))
    print(f"one segment can store {most} patterns before it recognises one random code in 100")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 classes")
    main(**vars(parser.parse_args()))
