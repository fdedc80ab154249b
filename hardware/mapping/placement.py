"""Neurons to cores: a greedy fill in order, and how much of a core each neuron takes.

Synapses lie with the neuron that they reach. Populations are taken in the order of the network and their neurons in theirs;
a core takes whole neurons as long as all of its limits hold, then the next core begins. Nothing is moved to a better place.

The synapses of a core are counted for each projection and each source neuron apart, as Loihi 1 stores them: in blocks of up
to 64, a block of n synapses taking

    bits(n) = n (weight + delay + tag [+ index] bits) + 10, rounded up to 64

The delay bits are there if the projection has a delay at all. Without indices a source with any weight onto a population's
neurons of a core holds one for each of them, zeros too; with indices only the weights that are not zero. ``Sparse`` and
``Convolution`` are stored with indices (each synapse by itself, no kernel is shared), ``Dense`` without, or with them where a
core's part of it then takes fewer bits. Tags are for learning: none.

A source neuron takes an input axon on each core that it reaches, however many projections it reaches it by, and a neuron an
output axon for each core that it reaches, its own too. Units of ``Inputs`` lie on no core.

Source: nengo-loihi 1.1, ``SynapseConfig.bits_per_axon``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from eventnet.hardware.mapping.profiles import Profile
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Population, Projection, Sparse

__all__ = ["Overfull", "Piece", "Synapses", "per_core", "place", "place_layers"]

Array = NDArray[np.int64]
FAR = np.iinfo(np.int64).max
ROUNDS = 8  # of placing with fewer neurons on a core, where output axons run out


@dataclass(frozen=True)
class Piece:
    """The neurons ``first`` to ``last`` of a population on a core, and what they add to what it holds."""

    core: int
    population: str
    first: int
    last: int
    synapse_bits: int
    axons_in: int
    axons_out: int
    delay_slots: int

    @property
    def size(self) -> int:
        """How many neurons."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Overfull:
    """A neuron that does not fit on a core even alone."""

    population: str
    neuron: int
    limit: str
    found: int


class Synapses:
    """The weights of a projection that are not zero, by target.

    Example:
        >>> fan = Synapses(Dense("input", "hidden", [[1, 0], [2, 3]]), 2, 2)
        >>> fan.fan_in().tolist(), [part.tolist() for part in fan.window(0, 1)]
        ([2, 1], [[0, 1], [0, 0], [1, 2]])
    """

    def __init__(self, projection: Projection, sources: int, targets: int) -> None:
        self.projection, self.sources, self.targets = projection, sources, targets
        weight = projection.effective()
        self.matrix = weight.numpy() if isinstance(projection, Dense) else None
        if self.matrix is None:
            source, target, value = _pairs(projection, weight)
            order = np.argsort(target, kind="stable")
            self._source, self._target, self._value = source[order], target[order], value[order]
            self._starts = np.searchsorted(self._target, np.arange(targets + 1))

    def window(self, first: int, stop: int) -> tuple[Array, Array, Array]:
        """Sources, targets and weights of the synapses onto the neurons ``first`` to ``stop - 1``, in order of targets."""
        if self.matrix is not None:
            part = self.matrix[:, first:stop].T
            target, source = np.nonzero(part)
            return source, target + first, part[target, source]
        here = slice(self._starts[first], self._starts[stop])
        return self._source[here], self._target[here], self._value[here]

    def fan_in(self) -> Array:
        """Synapses of each target, ``(targets,)``."""
        return np.count_nonzero(self.matrix, axis=0) if self.matrix is not None else np.diff(self._starts)

    def widths(self, profile: Profile) -> tuple[int | None, int | None]:
        """Bits of a synapse without an index, for the zeros too, and with one; None where the format does not apply."""
        if profile.value("synapse_format") is None:
            return None, None
        if profile.value("synapse_format") == "words":
            return None, profile.value("word_bits")
        bits = self.projection.weight_bits + (self.projection.weight_bits == 7)  # there are 1 to 6 and 8
        bits += profile.value("tag_bits") + (profile.value("delay_bits") if self.projection.max_delay else 0)
        indexed = bits + profile.value("index_bits")
        if self.matrix is None:
            return None, indexed
        sparse = np.count_nonzero(self.matrix) * indexed < self.matrix.size * bits  # or indices can gain nothing
        return bits, indexed if sparse else None


def _pairs(projection: Projection, weight: torch.Tensor) -> tuple[Array, Array, Array]:
    """Sources, targets and weights of all synapses that are not zero."""
    if isinstance(projection, Sparse):
        held = weight.nonzero()[:, 0]
        return tuple(x[held].numpy().astype(np.int64) for x in (projection.rows, projection.columns, weight))  # type: ignore[return-value]
    if not isinstance(projection, Convolution):
        raise TypeError(f"{projection.name}: expected Dense, Sparse or Convolution, got {type(projection).__name__}")
    channels, height, width = projection.shape
    units = torch.arange(1, channels * height * width + 1, dtype=torch.float64).reshape(1, channels, height, width)
    geometry = {"dilation": projection.dilation, "padding": projection.padding, "stride": projection.stride}
    reached = functional.unfold(units, tuple(weight.shape[2:]), **geometry)[0].to(torch.int64)  # 0 is padding
    rows, places = reached.shape[0] // projection.groups, reached.shape[1]
    found = []
    for channel, kernel in enumerate(weight.reshape(len(weight), -1)):
        group = channel * projection.groups // len(weight)
        source = reached[group * rows : (group + 1) * rows]
        row, place = ((source > 0) & (kernel != 0)[:, None]).nonzero(as_tuple=True)
        found.append((source[row, place] - 1, place + channel * places, kernel[row]))
    return tuple(torch.cat(part).numpy().astype(np.int64) for part in zip(*found, strict=True))  # type: ignore[return-value]


def block_bits(count: Array, width: int, profile: Profile) -> Array:
    """Bits of ``count`` synapses of one source on one core; see the top of this file."""
    if profile.value("synapse_format") == "words":
        return count * width
    block, header, unit = (profile.value(name) for name in ("block_synapses", "block_header_bits", "block_unit_bits"))
    rest = count % block
    last = np.where(rest > 0, -(-(rest * width + header) // unit) * unit, 0)
    return (count // block) * (-(-(block * width + header) // unit) * unit) + last


@dataclass
class _Core:
    """What a core holds so far."""

    number: int
    neurons: int = 0
    bits: int = 0
    slots: int = 0
    axons: dict[str, NDArray[np.bool_]] = field(default_factory=dict)  # by population: the sources that reach it

    @property
    def axons_in(self) -> int:
        return sum(int(held.sum()) for held in self.axons.values())


@dataclass
class _Window:
    """What neurons would add to a core: of each array, entry k is that of the first k + 1 of them."""

    neurons: Array
    bits: Array
    slots: Array
    axons: Array
    reached: dict[str, Array]  # by population: for each source the first target, counted from 0, that it reaches


class _Placing:
    """A placement on its way."""

    def __init__(self, network: HardwareNetwork, profile: Profile) -> None:
        self.network, self.profile = network, profile
        self.onto = {
            each.name: [Synapses(p, network[p.source].size, each.size) for p in network.onto(each.name)]
            for each in network.neurons
        }
        self.widths = {id(fan): fan.widths(profile) for fans in self.onto.values() for fan in fans}
        self.signs = 2 if profile.value("axons_by_sign") else 1
        self.caps: dict[str, int] = {}

    def run(self) -> tuple[list[Piece], list[Overfull]]:
        """Place all; with fewer neurons on a core where its output axons run out, if that helps."""
        greedy = self._run()
        pieces, overfull = greedy
        for _ in range(ROUNDS):
            over = self._over(pieces)
            if not over:
                return pieces, overfull
            self.caps |= over
            pieces, overfull = self._run()
        return greedy if self._over(pieces) else (pieces, overfull)

    def _over(self, pieces: list[Piece]) -> dict[str, int]:
        """Of populations on cores with too many output axons: how many of their neurons such a core may hold."""
        allowed = self.profile.value("output_axons_per_core")
        found: dict[str, int] = {}
        for number, out in enumerate(per_core(pieces, "axons_out")):
            if allowed is not None and out > allowed:
                for piece in (each for each in pieces if each.core == number and each.axons_out):
                    found[piece.population] = min(
                        max(1, piece.size * allowed // out), found.get(piece.population, piece.size)
                    )
        return found

    def _run(self) -> tuple[list[Piece], list[Overfull]]:
        taken: list[tuple[int, str, int, int, _Window]] = []
        overfull: list[Overfull] = []
        core = _Core(0)
        for population in self.network.neurons:
            if core.neurons and not self.profile.value("cores_shared"):
                core = _Core(core.number + 1)
            first, guess = 0, 64
            while first < population.size:
                window, fit, failed = self._fit(core, population, first, guess)
                if fit == 0 and core.neurons:
                    core = _Core(core.number + 1)
                    continue
                if fit == 0:  # alone on a core, over its limit, so that every neuron has a place
                    overfull.append(Overfull(population.name, first, *failed))
                    fit = 1
                self._take(core, window, fit)
                taken.append((core.number, population.name, first, fit, window))
                first, guess = first + fit, fit + 1
                if first < population.size:  # whatever stopped it, no more of these go here
                    core = _Core(core.number + 1)
        return self._pieces(taken, core.number + 1), overfull

    def _fit(self, core: _Core, population: Population, first: int, guess: int) -> tuple[_Window, int, tuple[str, int]]:
        """How many neurons from ``first`` on the core has room for; of a first one too many, the limit and what was found."""
        cap = min(population.size - first, self.caps.get(population.name, population.size))
        guess = min(cap, guess)
        while True:
            window = self._window(core, population, first, first + guess)
            fits = np.ones(guess, bool)
            failed = ("", 0)
            for name, used, added in (
                ("neurons_per_core", core.neurons, window.neurons),
                ("input_axons_per_core", core.axons_in, window.axons),
                ("synapse_bits_per_core", core.bits, window.bits),
                ("delay_slots_per_core", core.slots, window.slots),
            ):
                limit = self.profile.value(name)
                if limit is not None:
                    fits &= used + added <= limit
                    if used + added[0] > limit:
                        failed = (name, int(used + added[0]))
            fit = int(fits.sum())  # what is added only grows: those that fit come first
            if fit < guess or guess == cap:
                return window, fit, failed
            guess = min(cap, 2 * guess)

    def _window(self, core: _Core, population: Population, first: int, stop: int) -> _Window:
        size = stop - first
        count = np.arange(1, size + 1)
        bits = np.zeros(size, np.int64)
        reached: dict[str, Array] = {}
        slots = 1 + max((fan.projection.max_delay for fan in self.onto[population.name]), default=0)
        for fan in self.onto[population.name]:
            source, target, weight = fan.window(first, stop)
            target = target - first
            bits += self._bits(fan, source, target, count)
            axon = source + fan.sources * (weight < 0) if self.signs == 2 else source
            seen = reached.setdefault(fan.projection.source, np.full(fan.sources * self.signs, FAR))
            mine = np.full_like(seen, FAR)
            mine[axon[::-1]] = target[::-1]  # the last to be written is the first target
            np.minimum(seen, mine, out=seen)
        axons = np.zeros(size, np.int64)
        for name, seen in reached.items():
            new = (seen < FAR) & ~core.axons.get(name, np.zeros(len(seen), bool))
            axons += np.bincount(seen[new], minlength=size).cumsum()
        return _Window(count, bits, slots * count, axons, reached)

    def _bits(self, fan: Synapses, source: Array, target: Array, count: Array) -> Array:
        """Synapse bits of the first 1, 2, ... neurons of a window."""
        plain, indexed = self.widths[id(fan)]
        found = []
        if plain:
            seen = np.full(fan.sources, FAR)
            seen[source[::-1]] = target[::-1]
            held = np.bincount(seen[seen < FAR], minlength=len(count)).cumsum()
            found.append(held * block_bits(count, plain, self.profile))
        if indexed and len(source):
            order = np.argsort(source, kind="stable")  # each source's synapses side by side, in order of targets
            starts = np.flatnonzero(np.diff(source[order], prepend=-1))
            rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
            table = block_bits(np.arange(int(rank.max()) + 2), indexed, self.profile)
            grown = np.bincount(target[order], weights=np.diff(table)[rank], minlength=len(count))
            found.append(grown.astype(np.int64).cumsum())
        return np.minimum.reduce(found) if found else np.zeros_like(count)

    def _take(self, core: _Core, window: _Window, fit: int) -> None:
        core.neurons += fit
        core.bits += int(window.bits[fit - 1])
        core.slots += int(window.slots[fit - 1])
        for name, seen in window.reached.items():
            core.axons[name] = core.axons.get(name, np.zeros(len(seen), bool)) | (seen < fit)

    def _pieces(self, taken: list[tuple[int, str, int, int, _Window]], num_cores: int) -> list[Piece]:
        reach = {each.name: np.zeros((each.size, num_cores), bool) for each in self.network.populations}
        for number, _, _, fit, window in taken:
            for name, seen in window.reached.items():
                reach[name][:, number] |= (seen < fit).reshape(self.signs, -1).any(0)
        out = {name: cores.sum(1) for name, cores in reach.items()}
        return [
            Piece(
                number,
                name,
                first,
                first + fit - 1,
                int(window.bits[fit - 1]),
                int(window.axons[fit - 1]),
                int(out[name][first : first + fit].sum()),
                int(window.slots[fit - 1]),
            )
            for number, name, first, fit, window in taken
        ]


def per_core(pieces: list[Piece], what: str) -> Iterator[int]:
    """The sum of a field of the pieces on each core, core by core."""
    sums = [0] * (1 + max((piece.core for piece in pieces), default=-1))
    for piece in pieces:
        sums[piece.core] += getattr(piece, what)
    yield from sums


def place(network: HardwareNetwork, profile: Profile) -> tuple[list[Piece], list[Overfull]]:
    """Neurons to cores; see the top of this file. Each neuron is in one piece, those that fit on no core too.

    Example:
        >>> from eventnet.hardware.lif import LIFNeurons; from eventnet.hardware.network import Inputs
        >>> from eventnet.hardware.mapping.profiles import profile
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 700), LIFNeurons("hidden", 256)],
        ...     [Dense(name, "hidden", torch.full((size, 256), 2)) for name, size in (("input", 700), ("hidden", 256))],
        ...     dt=1e-3,
        ... )
        >>> [(piece.core, piece.first, piece.last) for piece in place(network, profile("loihi1"))[0]]
        [(0, 0, 125), (1, 126, 251), (2, 252, 255)]
    """
    return _Placing(network, profile).run()


def place_layers(network: HardwareNetwork, profile: Profile) -> tuple[list[Piece], list[tuple[str, int, int]]]:
    """A population to each core, where each core has memory of its own for kernels and neurons (Speck).

    A convolution of c channels to f takes ``c 2^(ceil(log2(kx ky)) + ceil(log2 f))`` kernel entries and
    ``f 2^(ceil(log2 fx) + ceil(log2 fy))`` neuron entries; any other projection is taken for one of 1 x 1 on images of 1 x 1.

    Returns:
        The pieces (without axons: there are none), and of the populations that got no core: name, kernel and neuron entries.

    Source: sinabs 3, ``DynapcnnLayer.memory_summary``.
    """
    kernels, neurons = profile.value("kernel_entries"), profile.value("neuron_entries")
    needs = [(each.name, *_entries(network, each)) for each in network.neurons]
    holder: dict[int, int] = {}  # of each core the layer

    def seat(layer: int, tried: set[int]) -> bool:
        """Find a core for a layer; those who have one move if they can."""
        for core in range(len(kernels)):
            if core not in tried and needs[layer][1] <= kernels[core] and needs[layer][2] <= neurons[core]:
                tried.add(core)
                if core not in holder or seat(holder[core], tried):
                    holder[core] = layer
                    return True
        return False

    homeless = [needs[layer] for layer in range(len(needs)) if not seat(layer, set())]
    found = {needs[layer][0]: core for core, layer in holder.items()}
    found |= {name: len(kernels) + k for k, (name, _, _) in enumerate(homeless)}
    bits = profile.value("weight_bits")
    pieces = [Piece(found[name], name, 0, network[name].size - 1, kernel * bits, 0, 0, 0) for name, kernel, _ in needs]
    return pieces, homeless


def _entries(network: HardwareNetwork, population: Population) -> tuple[int, int]:
    """Kernel and neuron entries of a population."""
    kernel, neuron = 0, population.size
    for each in network.onto(population.name):
        if isinstance(each, Convolution):
            (channels, rows, columns), (height, width) = each.out_shape, each.weight.shape[2:]
            kernel += each.shape[0] * _power(height * width) * _power(channels)
            neuron = max(neuron, channels * _power(rows) * _power(columns))
        else:
            kernel += network[each.source].size * _power(population.size)
    return kernel, neuron


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
