"""The multi-timescale spiking XOR, generated: a slow bit, several fast ones, and the XOR of the slow with the last fast one.

After the task of Zheng et al., "Temporal dendritic heterogeneity incorporated with spiking neural networks for learning
multi-timescale dynamics" (2024); the numbers are this library's own. Two groups of ``channels`` units fire as Poisson processes
at a low or a high rate, which tells a bit:

- the slow group (units 0 ..) in a cue at the start: ``cue`` seconds, one bit a;
- the fast group (units ``channels`` ..) afterwards in ``pulses`` pulses of ``pulse`` seconds, each after a ``gap`` of silence: a
  fresh bit b each.

The class is a XOR (b of the last pulse). To tell it a neuron has to hold a for all pulses, but to have forgotten every b when
the next one comes, and to combine both: no single time constant does. All bits are drawn at even odds: neither a nor any b alone
tells anything of the class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eventnet.data.dataset import EventDataset, Splits
from eventnet.events import Events

__all__ = ["load", "trials"]

SIZES = {"train": 2000, "validation": 500, "test": 1000}


def trials(
    size: int,
    *,
    seed: int,
    channels: int = 20,
    pulses: int = 4,
    cue: float = 60e-3,
    pulse: float = 10e-3,
    gap: float = 20e-3,
    cue_rates: tuple[float, float] = (10.0, 60.0),
    pulse_rates: tuple[float, float] = (50.0, 300.0),
    dtype: torch.dtype = torch.float32,
) -> tuple[Events, Tensor, Tensor]:
    """``size`` trials: their events, classes ``(size,)``, and all bits ``(size, 1 + pulses)``, the slow one first.

    Args:
        size: number of trials.
        seed: of all bits and events; the first trials of a larger size are not those of a smaller one.
        channels: units of each group.
        pulses: fast bits, of which the last one counts.
        cue, pulse, gap: seconds. A trial ends with its last pulse, at ``cue + pulses (gap + pulse)``.
        cue_rates, pulse_rates: events per second and unit for the bits 0 and 1.
        dtype: of the times.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> events, labels, bits = trials(100, seed=0)
        >>> events.num_units, round(float(events.duration[0]), 3), bits.shape
        (40, 0.18, torch.Size([100, 5]))
        >>> bool((labels == bits[:, 0] ^ bits[:, -1]).all())
        True
    """
    if min(size, channels, pulses) < 1 or min(cue, pulse, *cue_rates, *pulse_rates) <= 0 or gap < 0:
        raise ValueError(
            "xor: expected size, channels and pulses of at least 1, cue, pulse and rates above 0 and gap at least 0, got "
            f"size={size}, channels={channels}, pulses={pulses}, cue={cue}, pulse={pulse}, gap={gap}, cue_rates={cue_rates}, "
            f"pulse_rates={pulse_rates}"
        )
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (size, 1 + pulses), generator=generator)
    starts = torch.tensor([0.0] + [cue + gap + k * (gap + pulse) for k in range(pulses)], dtype=torch.float64)
    lengths = torch.tensor([cue] + [pulse] * pulses, dtype=torch.float64)
    rates = torch.tensor([cue_rates] + [pulse_rates] * pulses, dtype=torch.float64)  # (1 + pulses, 2)
    chosen = rates[torch.arange(1 + pulses), bits] * lengths
    counts = (
        torch.poisson(chosen[..., None].expand(-1, -1, channels), generator).long().flatten()
    )  # by trial, stretch, unit
    place = torch.repeat_interleave(torch.arange(counts.numel()), counts)
    trial, stretch, unit = place // (channels * (1 + pulses)), place // channels % (1 + pulses), place % channels
    times = starts[stretch] + lengths[stretch] * torch.rand(place.numel(), generator=generator, dtype=torch.float64)
    order = times.argsort()
    order = order[trial[order].argsort(stable=True)]
    duration = cue + pulses * (gap + pulse)
    # an event just before the end must not be rounded to it
    times = times.to(dtype).clamp(
        max=torch.nextafter(torch.tensor(duration, dtype=dtype), torch.zeros((), dtype=dtype))
    )
    offsets = torch.nn.functional.pad(torch.bincount(trial, minlength=size).cumsum(0), (1, 0))
    units = (unit + channels * (stretch > 0)).to(torch.int32)
    events = Events(times[order], units[order], offsets, 2 * channels, duration)  # type: ignore[arg-type]
    return events, bits[:, 0] ^ bits[:, -1], bits


def load(
    root: object = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    channels: int = 20,
    pulses: int = 4,
    cue: float = 60e-3,
    pulse: float = 10e-3,
    gap: float = 20e-3,
    cue_rates: tuple[float, float] = (10.0, 60.0),
    pulse_rates: tuple[float, float] = (50.0, 300.0),
    dtype: torch.dtype = torch.float32,
) -> Splits:
    """2,000 trials for training, 500 for validation and 1,000 for testing; see ``trials`` for the options.

    Args:
        root: not used: the trials are generated.
        seed: of the training and the validation part; the test part never changes.
        validation_fraction: must be left out: the parts have fixed sizes.
    """
    if validation_fraction is not None:
        raise ValueError("xor: has a validation set of 500 trials of its own; leave validation_fraction out")
    seeds = {"train": 3 * seed + 1, "validation": 3 * seed + 2, "test": 0}
    made = {}
    for part, size in SIZES.items():
        events, labels, _ = trials(
            size,
            seed=seeds[part],
            channels=channels,
            pulses=pulses,
            cue=cue,
            pulse=pulse,
            gap=gap,
            cue_rates=cue_rates,
            pulse_rates=pulse_rates,
            dtype=dtype,
        )
        made[part] = EventDataset(events, labels)
    return Splits(
        made["train"],
        made["validation"],
        made["test"],
        name="xor",
        num_units=2 * channels,
        num_classes=2,
        sensor_size=None,
        note=f"generated: 2000 training, 500 validation, 1000 test trials of one slow and {pulses} fast bits",
    )
