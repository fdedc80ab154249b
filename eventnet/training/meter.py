"""What the units of a network did, added up over the batches of an epoch or of a part of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from eventnet import Diagnosis

if TYPE_CHECKING:
    from eventnet.training.network import Outcome

__all__ = ["ContinualMeter", "GatedMeter", "Meter", "SpikingMeter"]


class Meter(Protocol):
    """Fed batch by batch, it says what the activity was."""

    def add(self, outcome: Outcome, found: Iterable[Diagnosis] | None = None) -> None:
        """One batch, and the diagnoses of its layers if there are any."""

    def metrics(self) -> dict[str, float]:
        """Numbers by name, for the record."""

    def sentence(self) -> str:
        """The most important of them, in words."""

    def silent_layers(self) -> list[str]:
        """The names of the layers that did not say anything."""

    def counts(self) -> Sequence[Tensor]:
        """Events of each hidden unit, per layer."""


class SpikingMeter:
    """Of spiking layers: ``spikes_per_neuron`` and sample of the hidden ones, ``spikes_per_inference`` of all, ``silent_share``
    of the hidden neurons; if slopes have a floor, ``floored_share``, of all spikes those below it.
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        self._counts = [torch.zeros(size, dtype=torch.int64) for size in hidden]
        self._read: Tensor | None = None  # spikes of a readout that spikes
        self._samples = 0
        self._floored: int | None = None

    def add(self, outcome: Outcome, found: Iterable[Diagnosis] | None = None) -> None:
        """One batch, and the diagnoses of its layers if slopes have a floor."""
        self._samples += len(outcome.scores)
        if found is not None:
            self._floored = (self._floored or 0) + sum(layer.floored for layer in found)
        counts = [torch.bincount(events.units, minlength=events.num_units) for events in outcome.spikes]
        for total, count in zip(self._counts, counts, strict=False):
            total += count.to(total.device)
        for count in counts[len(self._counts) :]:
            self._read = count if self._read is None else self._read + count

    def metrics(self) -> dict[str, float]:
        """Numbers by name, for the record."""
        hidden = sum(int(counts.sum()) for counts in self._counts)
        everything = hidden + (0 if self._read is None else int(self._read.sum()))
        neurons = sum(counts.numel() for counts in self._counts)
        silent = sum(int((counts == 0).sum()) for counts in self._counts)
        floored = {} if self._floored is None else {"floored_share": self._floored / max(everything, 1)}
        return {
            "spikes_per_neuron": hidden / max(self._samples * neurons, 1),
            "spikes_per_inference": everything / max(self._samples, 1),
            "silent_share": silent / max(neurons, 1),
            **floored,
        }

    def sentence(self) -> str:
        """The most important of them, in words."""
        found = self.metrics()
        floored = found.get("floored_share")
        more = "" if floored is None else f", {floored:.1%} of spikes below the slope floor"
        return f"{found['spikes_per_neuron']:.2f} spikes per neuron{more}"

    def silent_layers(self) -> list[str]:
        """The names of the spiking layers without a single spike."""
        if not self._samples:
            return []
        silent = [f"hidden layer {k + 1}" for k, counts in enumerate(self._counts) if not counts.any()]
        return [*silent, "the readout"] if self._read is not None and not self._read.any() else silent

    def counts(self) -> Sequence[Tensor]:
        """Spikes of each hidden neuron, per layer."""
        return self._counts


class GatedMeter:
    """Of gated layers, per sample and step: ``activity``, the share of units that fired; ``backward_activity``, the share that
    had a gradient; ``multiplications`` of weights with numbers that are not zero, inputs of the layers and what their units
    told, without embedding and readout; ``dense_multiplications``, with zeros. And the ``silent_share`` of the units. Dense
    units are always active; zeros among their inputs do not count either.
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        self._counts = [torch.zeros(size, dtype=torch.int64) for size in hidden]
        self._needed = 0.0  # units * positions
        self._multiplications, self._dense, self._positions = 0.0, 0.0, 0

    def add(self, outcome: Outcome, found: Iterable[Diagnosis] | None = None) -> None:
        """One batch."""
        for total, heard in zip(self._counts, outcome.heard, strict=True):
            positions, hidden = heard.positions, heard.hidden
            self._multiplications += heard.met * heard.not_zero
            self._dense += (heard.met * heard.inputs + heard.own) * positions
            if heard.steps is None:
                total += positions
                self._needed += hidden * positions
                self._multiplications += heard.own * positions
            else:
                did = heard.steps.activity()
                total += did.events
                self._needed += did.backward * hidden * positions
                self._multiplications += did.multiplications * positions
        self._positions += outcome.heard[0].positions

    def metrics(self) -> dict[str, float]:
        """Numbers by name, for the record."""
        units = sum(counts.numel() for counts in self._counts)
        size, positions = max(units * self._positions, 1), max(self._positions, 1)
        return {
            "activity": sum(int(counts.sum()) for counts in self._counts) / size,
            "backward_activity": self._needed / size,
            "multiplications": self._multiplications / positions,
            "dense_multiplications": self._dense / positions,
            "silent_share": sum(int((counts == 0).sum()) for counts in self._counts) / max(units, 1),
        }

    def sentence(self) -> str:
        """The most important of them, in words."""
        found = self.metrics()
        return f"{found['activity']:.1%} of units active, {found['multiplications']:,.0f} multiplications a step"

    def silent_layers(self) -> list[str]:
        """The names of the layers that told nothing."""
        if not self._positions:
            return []
        return [f"hidden layer {k + 1}" for k, counts in enumerate(self._counts) if not counts.any()]

    def counts(self) -> Sequence[Tensor]:
        """Events of each unit, per layer."""
        return self._counts


class ContinualMeter:
    """Of layers without time: ``activity``, the share of hidden units that said something other than zero, per sample, and the
    ``silent_share`` of the units, which never did.
    """

    def __init__(self, hidden: Sequence[int]) -> None:
        self._counts = [torch.zeros(size, dtype=torch.int64) for size in hidden]
        self._samples = 0

    def add(self, outcome: Outcome, found: Iterable[Diagnosis] | None = None) -> None:
        """One batch."""
        self._samples += len(outcome.scores)
        for total, active in zip(self._counts, outcome.active, strict=True):
            total += active.to(total.device)

    def metrics(self) -> dict[str, float]:
        """Numbers by name, for the record."""
        units = sum(counts.numel() for counts in self._counts)
        return {
            "activity": sum(int(counts.sum()) for counts in self._counts) / max(units * self._samples, 1),
            "silent_share": sum(int((counts == 0).sum()) for counts in self._counts) / max(units, 1),
        }

    def sentence(self) -> str:
        """The most important of them, in words."""
        return f"{self.metrics()['activity']:.1%} of units active"

    def silent_layers(self) -> list[str]:
        """The names of the layers that said nothing."""
        if not self._samples:
            return []
        return [f"hidden layer {k + 1}" for k, counts in enumerate(self._counts) if not counts.any()]

    def counts(self) -> Sequence[Tensor]:
        """In how many samples each unit was active, per layer."""
        return self._counts
