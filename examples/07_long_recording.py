"""A recording of a million events, trained on a piece at a time in bounded memory: the state goes on, the gradient is cut.

python examples/07_long_recording.py
"""

import argparse
import time

import torch

from eventnet import LIF, Events, constrain_, initial

PIECE = 0.1  # seconds


def piece(number: int, rate: float) -> Events:
    """The events of one piece, as a sensor would hand them over: drawn anew each time, never kept."""
    generator = torch.Generator().manual_seed(number)
    n = int(rate * PIECE)
    times = (torch.rand(n, generator=generator) * PIECE).sort().values
    units = torch.randint(100, (n,), generator=generator)
    return Events(times, units, torch.tensor([0, n]), num_units=100, duration=PIECE)


def main(quick: bool = False) -> tuple[int, int]:
    """Train 64 recurrent neurons to fire 20 times per second; returns events seen, and the most that were kept at once."""
    torch.manual_seed(0)
    rate, pieces = 10_000.0, 20 if quick else 1000
    layer = LIF(100, 64, recurrent=True, delay=(0.0, 10e-3), recurrent_delay=(1e-3, 5e-3))
    with torch.no_grad():
        layer.recurrent_weight.mul_(0.3)
    initial.fire_fraction_(layer, piece(0, rate), 0.5)
    weights, delays = [layer.weight, layer.recurrent_weight], [layer.delay, layer.recurrent_delay]
    optimizer = torch.optim.Adam(
        [{"params": weights, "lr": 2e-3}, {"params": delays, "lr": 1e-5}]
    )  # delays are seconds
    state, seen, kept = None, 0, 0
    began = time.perf_counter()
    for k in range(pieces):
        events = piece(k, rate)
        spikes, state = layer(events, state=state, return_state=True)
        # spikes that are too many should come later, those that are too few earlier
        surplus = spikes.num_events / 64 / PIECE - 20.0
        loss = -surplus * spikes.times.sum() / spikes.num_events if spikes.num_events else spikes.times.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        constrain_(layer)
        seen, kept = seen + events.num_events, max(kept, state.pending.num_events)
        if k % (pieces // 10) == 0:
            print(
                f"{seen:8d} events, {10 * spikes.num_events / 64:5.1f} spikes per neuron and second, {kept} events on their way"
            )
    print(f"{seen} events in {time.perf_counter() - began:.1f} s")
    return seen, kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pieces")
    main(**vars(parser.parse_args()))
