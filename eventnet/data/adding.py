"""Spoken-digit adding: two spoken digits one after the other; how much do they make together?

As SHD-Adding (Spieler et al., "The expressive leaky memory neuron", ICLR 2024), of the recordings and the cochlea of
``eventnet.data.fsdd``: the second digit begins when the time of the first is over; the label is their sum, 0 to 18. What was
heard first has to be kept until the second is there. A pair is made within the training, the validation or the test part,
so that no recording, and nobody left out, is in two of them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from eventnet.data import fsdd
from eventnet.data.dataset import EventDataset, Splits

__all__ = ["load", "pairs"]

TEST_SEED = 2024  # a constant: the test part is the same for every seed of load
ROUNDS = 2  # of the validation and the test part


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    rounds: int = ROUNDS,
    speaker: str | None = None,
    validation_speaker: str | None = None,
    channels: int = 700,
    duration: float = 1.0,
) -> Splits:
    """4,800 / 600 / 600 pairs of spoken digits as spikes of 700 channels, 19 classes.

    Args:
        root: folder of the recordings, as of ``eventnet.data.fsdd``.
        seed: of the validation part and of the pairs in it and in the training part; those of the test part never change.
        rounds: how often each training recording is a first digit, and how often a second one; 2 in the other parts.
        duration: seconds that each of the two digits has.
        validation_fraction, speaker, validation_speaker, channels: as of ``eventnet.data.fsdd.load``.

    Raises:
        FileNotFoundError: nothing there; ValueError: ``rounds`` is no positive integer, or what ``eventnet.data.fsdd`` says.
    """
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"fsdd_adding: rounds is {rounds!r}; expected a positive integer")
    digits = fsdd.load(
        root,
        seed=seed,
        validation_fraction=validation_fraction,
        speaker=speaker,
        validation_speaker=validation_speaker,
        channels=channels,
        duration=duration,
    )
    parts: dict[str, Any] = {
        "train": (rounds, (seed, 0)),
        "validation": (ROUNDS, (seed, 1)),
        "test": (ROUNDS, TEST_SEED),
    }
    made = {name: pairs(getattr(digits, name), *how) for name, how in parts.items()}
    sizes = ", ".join(f"{len(part)} {name}" for name, part in made.items())
    return Splits(
        train=made["train"],
        validation=made["validation"],
        test=made["test"],
        name="fsdd_adding",
        num_units=digits.num_units,
        num_classes=2 * digits.num_classes - 1,
        sensor_size=None,
        note=f"pairs of spoken digits ({sizes}; pairs: seed {seed}, test fixed), each within its part of: {digits.note}",
    )


def pairs(digits: EventDataset, rounds: int, seed: int | tuple[int, ...]) -> EventDataset:
    """Pairs of samples, one after the other, labelled by their sum; each sample ``rounds`` times first and as often second.

    Example:
        >>> from eventnet import Events
        >>> events = Events.from_list([([0.1], [0]), ([0.2], [1])], num_units=2, duration=0.5)
        >>> made = pairs(EventDataset(events, torch.tensor([3, 4])), rounds=1, seed=0)
        >>> len(made), made.labels.sum().item(), made.events.duration.tolist()
        (2, 14, [1.0, 1.0])
    """
    # RandomState, not default_rng: numpy promises never to change its streams.
    random = np.random.RandomState(seed)
    first, second = (
        torch.from_numpy(np.concatenate([random.permutation(len(digits)) for _ in range(rounds)])) for _ in range(2)
    )
    one, other = digits.events[first], digits.events[second]
    return EventDataset(one.merge(other.shift(one.duration)), digits.labels[first] + digits.labels[second])
