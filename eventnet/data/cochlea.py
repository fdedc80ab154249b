"""A cochlea in numbers: sound in, spikes of some 700 channels out, each channel tuned to a frequency.

Sound ``x`` passes four stages, as in the cochlea models that began with Lyon, "A computational model of filtering,
detection, and compression in the cochlea" (ICASSP 1982); that 700 such channels make a task for spiking networks is the idea
of Cramer et al., "The Heidelberg spiking data sets" (2020), whose model is a hydrodynamic one.

1. Level and tilt: ``x[n] - 0.97 x[n - 1]`` (speech falls by 6 dB per octave), divided by its root mean square.
2. Basilar membrane: complex gammatone filters of order 4 with gain 1 at their centre ``f`` (Patterson et al. 1992)

       g(t) ~ t^3 e^(-2 pi b t) e^(2 pi i f t),   G(nu) = (1 + i (nu - f) / b)^-4,   b = 1.019 ERB(f),

   whose centres lie evenly on the ERB-rate scale of Glasberg & Moore (1990): ``ERB(f) = 24.7 + 0.108 f`` Hz,
   ``E(f) = 21.4 log10(1 + 0.00437 f)``.
3. Hair cells: half-wave rectification, of which a cell's membrane keeps the mean over a period, the envelope ``|z|`` up to a
   factor; sampled every ms; compressed to ``I = GAIN |z|^0.3`` (loudness grows like that; Stevens 1957).
4. Nerve: one leaky integrate-and-fire neuron per channel, driven by the steps of ``I``,

       V' = (I - V) / tau,   spike and V = 0 at V = 1, then V stays there for the refractory period.

   A step's current is constant, so the time of a spike in it has a closed form; it is not on the grid.

The same sound gives the same spikes, bit for bit, alone or in a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from eventnet.events import Events

__all__ = ["centres", "encode"]

LOWEST, HIGHEST = 60.0, 0.9  # Hz; of half the sampling rate
TILT = 0.97
EXPONENT = 0.3
STEP = 1e-3  # seconds between two samples of the envelope; at least this is the refractory period
TAU, REFRACTORY = 10e-3, 4e-3  # seconds
GAIN = 1.7
TAIL = 50e-3  # seconds that a filter may ring on
CHUNK = 64  # sounds whose nerves are stepped together


def centres(channels: int, rate: int) -> np.ndarray:
    """Centre frequencies in Hz ``(channels,)``, ascending, evenly on the ERB-rate scale from 60 Hz to 0.45 of ``rate``.

    Example:
        >>> centres(5, 8000).round().tolist()
        [60.0, 322.0, 823.0, 1778.0, 3600.0]
    """
    low, high = (21.4 * np.log10(1 + 0.00437 * f) for f in (LOWEST, HIGHEST * rate / 2))
    return (10 ** (np.linspace(low, high, channels) / 21.4) - 1) / 0.00437


def encode(sounds: Sequence[np.ndarray], rate: int, *, channels: int = 700, duration: float = 1.0) -> Events:
    """Sounds as the spikes of ``channels`` units, unit 0 the lowest frequency.

    Args:
        sounds: each ``(samples,)``, of any level: only its course counts. Silence (all zeros) has no events.
        rate: samples per second.
        channels: units.
        duration: seconds; what a sound has later is left out.

    Returns:
        ``Events`` of one sample per sound, float32 times.

    Raises:
        ValueError: a number is out of range, a sound is not one-dimensional or not finite.

    Example:
        >>> tone = np.sin(2 * np.pi * 830 * np.arange(2000) / 8000)
        >>> events = encode([tone], 8000, channels=5, duration=0.25)
        >>> events.counts().argmax(1).tolist()  # the channel of 823 Hz
        [2]
    """
    if channels < 2 or rate <= 0 or not 0 < duration < float("inf"):
        raise ValueError(
            f"cochlea: expected channels >= 2, a rate > 0 and a duration > 0, got {channels}, {rate} and {duration}"
        )
    for k, sound in enumerate(sounds):
        if sound.ndim != 1 or not np.isfinite(sound).all():
            raise ValueError(f"cochlea: sound {k}: expected finite numbers of shape (samples,), got {sound.shape}")
    steps = int(np.ceil(duration / STEP))
    parts = []
    for first in range(0, len(sounds), CHUNK):
        currents = [_current(sound, rate, channels, steps) for sound in sounds[first : first + CHUNK]]
        parts.append(_fire(currents, channels, duration))
    return Events.cat(parts) if parts else Events.from_list([], channels, duration)


def _current(sound: np.ndarray, rate: int, channels: int, steps: int) -> np.ndarray:
    """``I`` at every ms ``(K, channels)`` float32, K at most ``steps``: stages 1 to 3."""
    level = np.asarray(sound, np.float64)
    level = level - TILT * np.concatenate([[0.0], level[:-1]])
    power = float(np.mean(level**2)) if level.size else 0.0
    stride = round(rate * STEP)
    kept = min(steps, -(-level.size // stride))
    if not power:
        return np.zeros((0, channels), np.float32)
    size = stride * 2 ** int(np.ceil(np.log2((level.size + TAIL * rate) / stride)))
    spectrum = torch.fft.rfft(torch.from_numpy(level / power**0.5), n=size)[: size // 2].to(torch.complex64)
    # Every stride-th sample of z has the spectrum of z, cut into as many pieces, laid over each other.
    pieces = (spectrum * _filters(channels, rate, size)).reshape(channels, -1, size // stride).sum(1)
    envelope = torch.fft.ifft(pieces)[:, :kept].abs() / stride
    return (GAIN * envelope**EXPONENT).T.numpy()


@functools.lru_cache(maxsize=4)
def _filters(channels: int, rate: int, size: int) -> torch.Tensor:
    """``2 G`` at the positive frequencies of a transform of ``size``, ``(channels, size / 2)``; 2 for the negative ones."""
    f = torch.from_numpy(centres(channels, rate))[:, None]
    width = 1.019 * (24.7 + 0.108 * f)
    at = torch.arange(size // 2, dtype=torch.float64) * (rate / size)
    return (2 / (1 + 1j * (at - f) / width) ** 4).to(torch.complex64)


def _fire(currents: Sequence[np.ndarray], channels: int, duration: float) -> Events:
    """Stage 4 for a chunk of sounds, all neurons together, step by step."""
    longest = max(len(current) for current in currents)
    driven = np.zeros((longest, len(currents), channels), np.float32)
    for k, current in enumerate(currents):
        driven[: len(current), k] = current
    voltage, held = (np.zeros(driven.shape[1:], np.float32) for _ in range(2))
    found = []
    for k, current in enumerate(driven):
        start = np.minimum(held, np.float32(STEP))  # of the free part of the step
        held = held - start
        end = current + (voltage - current) * np.exp((start - np.float32(STEP)) / np.float32(TAU))
        sample, unit = np.nonzero(end >= 1)
        if sample.size:
            drive, before = current[sample, unit].astype(np.float64), voltage[sample, unit].astype(np.float64)
            late = start[sample, unit] + TAU * np.log((drive - before) / (drive - 1))
            found.append((k * STEP + np.minimum(late, STEP), sample, unit))
            end[sample, unit] = 0
            held[sample, unit] = np.minimum(late, STEP) + (REFRACTORY - STEP)
        voltage = end
    return _packed(found, len(currents), channels, duration)


def _packed(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], size: int, channels: int, duration: float
) -> Events:
    """Spikes (time, sample, unit), step by step, sorted by sample and time."""
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.empty(0)] * 3
    times, samples, units = (c.astype(d) for c, d in zip(columns, (np.float32, np.int64, np.int32), strict=True))
    inside = times < np.float32(duration)
    times, samples, units = times[inside], samples[inside], units[inside]
    order = np.lexsort((units, times, samples))
    offsets = np.concatenate([[0], np.bincount(samples, minlength=size).cumsum()])
    return Events(
        torch.from_numpy(times[order]),
        torch.from_numpy(units[order]),
        torch.from_numpy(offsets),
        channels,
        duration,  # type: ignore[arg-type]
    )
