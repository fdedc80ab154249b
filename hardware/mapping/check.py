"""Whether a network fits on a chip, how it is split over its cores, and if it does not: where, by how much, what to do.

Checked are the limits of a profile (``eventnet.hardware.mapping.profiles``); neurons are placed and counted as
``eventnet.hardware.mapping.placement`` says. Not checked: refractory periods and biases, the wiring between cores, the traffic of
spikes, and on Speck the sizes and strides of kernels. A network that passes fits by these rules, which are those of published
documents and software; only the chip's own compiler knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.mapping.placement import Overfull, Piece, per_core, place, place_layers
from eventnet.hardware.mapping.profiles import Profile, profile
from eventnet.hardware.mapping.rules import RULES, Violation, violation
from eventnet.hardware.network import HardwareNetwork

__all__ = ["Placement", "check"]


@dataclass(frozen=True)
class Placement:
    """How a network lies on a chip.

    ``cores``: the pieces of the populations, each with its core; every neuron is in one, whether it fits or not.
    ``violations``: none if it fits. ``unverified``: the names of the limits that rest on no source, or have no number.
    """

    profile: Profile
    cores: tuple[Piece, ...]
    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        """Nothing is violated."""
        return not self.violations

    @property
    def num_cores(self) -> int:
        """Cores taken."""
        return len({piece.core for piece in self.cores})

    @property
    def unverified(self) -> tuple[str, ...]:
        """Limits that the answer rests on and for which no source was found."""
        return self.profile.unverified

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain values that JSON can hold."""
        limits = {name: self.profile.limits[name] for name in self.unverified}
        return {
            "profile": self.profile.name,
            "ok": self.ok,
            "num_cores": self.num_cores,
            "cores": [dataclasses.asdict(piece) for piece in self.cores],
            "violations": [{**dataclasses.asdict(each), "line": str(each)} for each in self.violations],
            "unverified": {name: {"value": limit.value, "source": limit.source} for name, limit in limits.items()},
        }

    def __str__(self) -> str:
        head = f"{self.profile.name}: {'fits on' if self.ok else 'does not fit;'} {self.num_cores} cores"
        return "\n".join([head, *(f"  {each}" for each in self.violations)])


def check(network: HardwareNetwork, chip: str | Profile) -> Placement:
    """Place a network on a chip and check all limits of its profile.

    Args:
        network: a hardware graph.
        chip: a name in ``PROFILES``, or a profile of your own (``Profile.changed``).

    Raises:
        ValueError: no profile has this name.

    Example:
        >>> from eventnet.hardware.network import Dense, Inputs
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 16), LIFNeurons("hidden", 80, du=1023, dv=256), LIFNeurons("output", 4, du=1023, dv=256)],
        ...     [
        ...         Dense("input", "hidden", torch.full((16, 80), 2)),
        ...         Dense("hidden", "hidden", 2 * torch.ones(80, 80, dtype=torch.int32).tril()),
        ...         Dense("hidden", "output", torch.full((80, 4), 2)),
        ...     ],
        ...     dt=1e-3,
        ... )
        >>> placed = check(network, "loihi1")
        >>> placed.ok, placed.num_cores, [(piece.population, piece.first, piece.last) for piece in placed.cores]
        (True, 1, [('hidden', 0, 79), ('output', 0, 3)])
        >>> print(check(network, "xylo").violations[0])
        hidden, neuron 0: fan-in 96 of 63 (33 such); prune to the 63 largest weights, or split the neuron
    """
    chip = profile(chip) if isinstance(chip, str) else chip
    foreign = [each for each in network.neurons if not isinstance(each, LIFNeurons)]
    if foreign:  # which no chip here has: how much room they would take is not known
        return Placement(
            chip, (), tuple(violation("neuron_kinds", each.name, None, each.kind, "lif") for each in foreign)
        )
    if chip.value("kernel_entries") is not None:
        pieces, homeless = place_layers(network, chip)
        placed = list(_layers(homeless, chip))
    else:
        pieces, overfull = place(network, chip)
        placed = [*_overfull(overfull, chip), *_cores(pieces, chip), *_out_axons(pieces, chip)]
    rules = [found for rule in RULES for found in rule(network, chip)]
    sets = _sets(network, pieces, chip)
    return Placement(chip, tuple(pieces), tuple([*rules, *placed, *sets]))


def _overfull(overfull: list[Overfull], chip: Profile) -> Iterator[Violation]:
    groups: dict[tuple[str, str], list[Overfull]] = {}
    for each in overfull:
        groups.setdefault((each.population, each.limit), []).append(each)
    for (population, limit), group in groups.items():
        worst = max(group, key=lambda each: each.found)
        yield violation(limit, population, worst.neuron, worst.found, chip.value(limit), len(group))


def _cores(pieces: list[Piece], chip: Profile) -> Iterator[Violation]:
    found, allowed = 1 + max((piece.core for piece in pieces), default=-1), chip.value("cores")
    if allowed is not None and found > allowed:
        first = next(piece for piece in pieces if piece.core == allowed)
        yield violation("cores", first.population, first.first, found, allowed)


def _out_axons(pieces: list[Piece], chip: Profile) -> Iterator[Violation]:
    allowed = chip.value("output_axons_per_core")
    counts = list(per_core(pieces, "axons_out"))
    over = [] if allowed is None else [core for core, out in enumerate(counts) if out > allowed]
    if over:
        worst = max(over, key=counts.__getitem__)
        largest = max((piece for piece in pieces if piece.core == worst), key=lambda piece: piece.axons_out)
        neuron = largest.first if largest.size == 1 else None
        yield violation("output_axons_per_core", largest.population, neuron, counts[worst], allowed, len(over))


def _layers(homeless: list[tuple[str, int, int]], chip: Profile) -> Iterator[Violation]:
    """Of layers that got no core: what is too large for any core, or else that there are too few cores of their size."""
    for name, kernel, neuron in homeless:
        too_large = False
        for limit, found in (("kernel_entries", kernel), ("neuron_entries", neuron)):
            if found > max(chip.value(limit)):
                too_large = True
                yield violation(limit, name, None, found, max(chip.value(limit)))
        if not too_large:
            pairs = zip(chip.value("kernel_entries"), chip.value("neuron_entries"), strict=True)
            enough = sum(kernel <= k and neuron <= n for k, n in pairs)
            remedy = (
                f"use fewer layers of this size: {kernel:,} kernel and {neuron:,} neuron entries fit on {enough} cores"
            )
            yield violation("cores", name, None, chip.value("cores") + 1, chip.value("cores"), remedy=remedy)


def _sets(network: HardwareNetwork, pieces: list[Piece], chip: Profile) -> Iterator[Violation]:
    for limit, names in (("time_constants_per_core", ("du", "dv")), ("thresholds_per_core", ("vth",))):
        allowed = chip.value(limit)
        over: dict[str, list[tuple[int, int]]] = {}  # by population: how many on a core, and the first neuron too many
        held: set[tuple[int, ...]] = set()
        core = -1
        for piece in pieces if allowed is not None else ():
            neurons = network[piece.population]
            if not isinstance(neurons, LIFNeurons):
                continue
            held = held if piece.core == core else set()
            core = piece.core
            rows = torch.stack([getattr(neurons, name)[piece.first : piece.last + 1] for name in names], 1).tolist()
            first = None
            for k, row in enumerate(rows):
                held.add(tuple(row))
                first = piece.first + k if first is None and len(held) > allowed else first
            if first is not None:
                over.setdefault(piece.population, []).append((len(held), first))
        for population, cores in over.items():
            found, neuron = max(cores, key=lambda each: each[0])
            yield violation(limit, population, neuron, found, allowed, len(cores))
