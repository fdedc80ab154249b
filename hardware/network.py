"""The hardware graph: what a chip is given. Populations of integer neurons, and projections of integer weights between them.

Every exporter starts from it, and every import of a file ends in it. Time goes in steps of ``dt`` seconds. A spike of step t
reaches its target in step t + 1 + delay: each projection is a hop of one step. The ranges of the numbers are those of Loihi;
what they mean for the neurons and synapses is written in ``eventnet.hardware.loihi``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from eventnet.hardware.checks import check_name, check_number, integers

__all__ = ["Convolution", "Dense", "HardwareNetwork", "Inputs", "Population", "Projection", "Sparse", "Stepper"]

Ints = Any  # an integer, or an array of integers: a list, an ndarray or a tensor

M = 2**23  # currents, voltages and a convolution's sums have 24 bits

MAX_DELAY = 62  # steps; 63 is the format's limit, and Lava's 0 is a latency of one step
SIGN_MODES = ("mixed", "excitatory", "inhibitory")


# ---- populations -----------------------------------------------------------------------------------------------------------


class Stepper(Protocol):
    """A population at work: its arithmetic, with its parameters on a device. The state is that of a batch: ``(B, N)`` each."""

    def start(self, batch: int) -> dict[str, Tensor]:
        """The state before the first step, among it ``u`` and ``v``, which a simulation records."""

    def step(self, t: int, arrived: Mapping[str, Tensor], state: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Move the state on by step t, the first of which is 1, with what ``arrived`` at each port: the spikes, and how many
        numbers overflowed."""


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one kind, under a name."""

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Population]]] = {}  # all there are, by name
    name: str
    size: int

    def __init_subclass__(cls) -> None:
        Population.kinds[cls.kind] = cls

    def __post_init__(self) -> None:
        check_name("a population", self.name)
        object.__setattr__(self, "size", check_number(f"{self.name}.size", self.size, 1, 2**31 - 1))

    @property
    def ports(self) -> dict[str, int]:
        """Where projections end, by name, and how many numbers arrive there in a step."""
        return {"": self.size}

    def stepper(self, device: torch.device) -> Stepper:
        """The population at work."""
        raise NotImplementedError(f"neurons of kind {self.kind!r} have no arithmetic")


@dataclass(frozen=True, eq=False)
class Inputs(Population):
    """Units whose spikes come from outside."""

    kind = "inputs"


# ---- projections -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another.

    ``weight_exp`` shifts what a step's spikes add up to (the sum, not each weight); ``weight_bits`` and ``sign_mode`` cut the
    weights down to what the synapses hold (``effective``). ``message_bits`` 0: a spike counts as 1, whatever its value;
    otherwise its value multiplies the weights. ``port``: of the target, where it has more than one.
    """

    kind: ClassVar[str] = ""
    source: str
    target: str
    weight: Ints
    weight_exp: int = field(default=0, kw_only=True)
    weight_bits: int = field(default=8, kw_only=True)
    sign_mode: str | None = field(default=None, kw_only=True)
    message_bits: int = field(default=0, kw_only=True)
    port: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        for end in (self.source, self.target):
            check_name("the end of a projection", end)
        object.__setattr__(self, "weight", integers(f"{self.name}.weight", self.weight, -(2**15), 2**15 - 1))
        for name, low, high in (("weight_exp", -7, 7), ("weight_bits", 1, 8), ("message_bits", 0, 32)):
            object.__setattr__(self, name, check_number(f"{self.name}.{name}", getattr(self, name), low, high))
        if self.sign_mode not in (None, *SIGN_MODES):
            raise ValueError(
                f"{self.name}.sign_mode: expected one of {', '.join(SIGN_MODES)}, or None, got {self.sign_mode!r}"
            )

    @property
    def name(self) -> str:
        """``source->target``."""
        return f"{self.source}->{self.target}"

    @property
    def max_delay(self) -> int:
        """The longest delay, in steps."""
        delay = getattr(self, "delay", None)
        return 0 if delay is None or not delay.numel() else int(delay.max())

    def effective(self) -> Tensor:
        """The weights that the synapses hold: clipped, then cut to ``weight_bits`` (towards minus infinity)."""
        return cut(self.weight, self.sign_mode or guessed_sign(self.weight), self.weight_bits)

    def check_sizes(self, source: int, target: int) -> None:
        """An error if the synapses do not fit these populations."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Dense(Projection):
    """A weight for each pair of neurons, ``(source, target)``, and a delay if there are any: 0 to 62 steps, one number or
    ``(source, target)``.

    Example:
        >>> Dense("input", "hidden", [[100, -3], [7, 0]], weight_exp=2).effective()
        tensor([[100,  -4],
                [  6,   0]], dtype=torch.int32)
    """

    kind = "dense"
    delay: Ints = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.dim() != 2:
            raise ValueError(f"{self.name}.weight: expected (source, target), got {self.weight.dim()} dimensions")
        if self.delay is not None:
            delay = integers(f"{self.name}.delay", self.delay, 0, MAX_DELAY, shape=tuple(self.weight.shape))
            object.__setattr__(self, "delay", delay if bool(delay.any()) else None)

    def check_sizes(self, source: int, target: int) -> None:
        if tuple(self.weight.shape) != (source, target):
            raise ValueError(
                f"{self.name}.weight: expected ({source}, {target}), the sizes of its populations, got "
                f"{tuple(self.weight.shape)}"
            )


@dataclass(frozen=True, eq=False)
class Sparse(Projection):
    """Synapses one by one: ``rows`` (of the source), ``columns`` (of the target), ``weight`` and, if there are any, ``delay``;
    ``(S,)`` each.

    Example:
        >>> Sparse("input", "hidden", [4, 6], rows=[0, 1], columns=[2, 2]).weight.numel()
        2
    """

    kind = "sparse"
    rows: Ints = field(kw_only=True)
    columns: Ints = field(kw_only=True)
    delay: Ints = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = tuple(self.weight.shape)
        if len(shape) != 1:
            raise ValueError(f"{self.name}.weight: expected one number per synapse (S,), got {len(shape)} dimensions")
        for name in ("rows", "columns"):
            value = integers(f"{self.name}.{name}", getattr(self, name), 0, 2**31 - 1)
            if tuple(value.shape) != shape:
                raise ValueError(f"{self.name}.{name}: expected {shape}, one for each weight, got {tuple(value.shape)}")
            object.__setattr__(self, name, value)
        pairs = torch.stack([self.rows, self.columns])
        if torch.unique(pairs, dim=1).shape[1] != pairs.shape[1]:
            raise ValueError(f"{self.name}: expected at most one synapse for a pair of neurons, got some twice")
        if self.delay is not None:
            delay = integers(f"{self.name}.delay", self.delay, 0, MAX_DELAY, shape=shape)
            object.__setattr__(self, "delay", delay if bool(delay.any()) else None)

    def check_sizes(self, source: int, target: int) -> None:
        for name, ends, size in (("rows", self.rows, source), ("columns", self.columns, target)):
            if ends.numel() and int(ends.max()) >= size:
                raise ValueError(f"{self.name}.{name}: expected 0 to {size - 1}, got {int(ends.max())}")


@dataclass(frozen=True, eq=False)
class Convolution(Projection):
    """A kernel ``(channels out, channels in / groups, height, width)`` over images ``(channels, height, width)``, as
    ``torch.nn.Conv2d``; units are numbered in that order. ``effective`` is the kernel itself: Lava's processor model of a
    convolution neither cuts its weights nor shifts its sums (``weight_exp`` and ``weight_bits`` do not apply).
    """

    kind = "convolution"
    shape: tuple[int, int, int] = field(kw_only=True)
    stride: tuple[int, int] = field(default=(1, 1), kw_only=True)
    padding: tuple[int, int] = field(default=(0, 0), kw_only=True)
    dilation: tuple[int, int] = field(default=(1, 1), kw_only=True)
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, length, least in (("shape", 3, 1), ("stride", 2, 1), ("padding", 2, 0), ("dilation", 2, 1)):
            value = tuple(getattr(self, name))
            if len(value) != length:
                raise ValueError(f"{self.name}.{name}: expected {length} integers from {least}, got {value}")
            value = tuple(check_number(f"{self.name}.{name}", k, least, 2**31 - 1) for k in value)
            object.__setattr__(self, name, value)
        channels = self.shape[0]
        groups = check_number(f"{self.name}.groups", self.groups, 1, channels)
        object.__setattr__(self, "groups", groups)
        if self.weight.dim() != 4 or channels % groups or self.weight.shape[1] * groups != channels:
            raise ValueError(
                f"{self.name}.weight: expected (channels out, {channels} / {groups}, height, width), got "
                f"{tuple(self.weight.shape)}"
            )
        if self.weight.shape[0] % groups:
            raise ValueError(f"{self.name}.groups: {groups} does not divide the {self.weight.shape[0]} channels out")
        if self.weight_exp or self.weight_bits != 8:
            raise ValueError(
                f"{self.name}: weight_exp and weight_bits do not apply to a convolution in Lava; scale the weights"
            )
        if min(self.out_shape) < 1:
            raise ValueError(f"{self.name}: the kernel is larger than the padded image {self.shape}")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of the target."""
        size = [
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                self.shape[1:], self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        ]
        return (self.weight.shape[0], size[0], size[1])

    def effective(self) -> Tensor:
        return self.weight

    def check_sizes(self, source: int, target: int) -> None:
        for name, shape, size in (("shape", self.shape, source), ("out_shape", self.out_shape, target)):
            if math.prod(shape) != size:
                raise ValueError(f"{self.name}.{name}: expected {size} units in all, got {shape}")


def guessed_sign(weight: Tensor) -> str:
    """The sign mode of weights that are given none: excitatory unless one is negative, inhibitory unless one is positive."""
    if not weight.numel() or int(weight.min()) >= 0:
        return "excitatory"
    return "inhibitory" if int(weight.max()) <= 0 else "mixed"


def cut(weight: Tensor, sign_mode: str, bits: int) -> Tensor:
    """Weights clipped to what ``sign_mode`` allows and cut to ``bits``, one of them for the sign of mixed weights."""
    mixed, turned = sign_mode == "mixed", sign_mode == "inhibitory"
    weight = -weight if turned else weight
    weight = weight.clamp(-256 if mixed else 0, 255)
    lost = 8 - bits + mixed
    weight = (weight >> lost) << lost
    return -weight if turned else weight


# ---- the network -----------------------------------------------------------------------------------------------------------

PROJECTIONS: Mapping[str, type[Projection]] = {each.kind: each for each in (Dense, Sparse, Convolution)}


@dataclass(frozen=True, eq=False)
class HardwareNetwork:
    """Populations, projections, and the seconds of a step.

    Args:
        populations: at least one ``Inputs`` among them.
        projections: between them; onto ``Inputs`` there are none.
        dt: seconds of a step.
        notes: what else is known of the network: plain values that JSON can hold.

    Raises:
        ValueError: sizes do not fit, a number is out of range, a name is unknown or used twice.

    Example:
        >>> from eventnet.hardware.lif import LIFNeurons
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 2), LIFNeurons("hidden", 3, vth=100)],
        ...     [Dense("input", "hidden", [[100, 50, 0], [0, 50, 100]]), Dense("hidden", "hidden", torch.eye(3).int())],
        ...     dt=1e-3,
        ... )
        >>> network.inputs[0].size, network.num_synapses
        (2, 7)
    """

    populations: Sequence[Population]  # tuples, once they are here
    projections: Sequence[Projection]
    dt: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", tuple(self.populations))
        object.__setattr__(self, "projections", tuple(self.projections))
        if not (isinstance(self.dt, int | float) and 0 < self.dt < math.inf):
            raise ValueError(f"dt: expected seconds > 0, got {self.dt!r}")
        names = [each.name for each in self.populations]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"populations: expected names that differ, got {twice!r} twice")
        if not self.inputs:
            raise ValueError("populations: expected at least one of kind Inputs, got none")
        for each in self.projections:
            for end in (each.source, each.target):
                if end not in names:
                    raise ValueError(f"{each.name}: no population {end!r}; there are {', '.join(names)}")
            if isinstance(self[each.target], Inputs):
                raise ValueError(f"{each.name}: expected a target that is no Inputs")
            ports = self[each.target].ports
            if each.port not in ports:
                raise ValueError(f"{each.name}: no port {each.port!r}; {each.target} has {', '.join(map(repr, ports))}")
            each.check_sizes(self[each.source].size, ports[each.port])

    def __getitem__(self, name: str) -> Population:
        for each in self.populations:
            if each.name == name:
                return each
        raise KeyError(f"no population {name!r}; there are {', '.join(each.name for each in self.populations)}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{each.name} {each.size}" for each in self.populations)
        return f"HardwareNetwork({sizes}; {self.num_synapses:,} synapses, dt={self.dt:g} s)"

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """The populations whose spikes come from outside."""
        return tuple(each for each in self.populations if isinstance(each, Inputs))

    @property
    def neurons(self) -> tuple[Population, ...]:
        """The other populations."""
        return tuple(each for each in self.populations if not isinstance(each, Inputs))

    @property
    def num_synapses(self) -> int:
        """Weights that are not zero (of a convolution: in its kernel)."""
        return sum(int(each.effective().count_nonzero()) for each in self.projections)

    def onto(self, name: str) -> tuple[Projection, ...]:
        """The projections whose target is this population."""
        return tuple(each for each in self.projections if each.target == name)

    def changed(self, **changes: Any) -> HardwareNetwork:
        """A copy with other populations, projections, dt or notes."""
        return dataclasses.replace(self, **changes)
