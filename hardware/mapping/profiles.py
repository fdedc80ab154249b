"""What neuromorphic chips have room for: profiles as data, each limit with its source and how far to trust it.

A limit is ``verified`` if a document that its makers published states it, ``reported`` if software for the chip or a
second-hand text does, ``unverified`` if no source was found. A limit of None is one that exists and whose number is not
known: nothing can be checked against it. A limit that is absent does not exist, or does not apply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eventnet.hardware.checks import nearest

__all__ = ["LIMITS", "PROFILES", "Limit", "Profile", "profile"]

STATUSES = ("verified", "reported", "unverified")

# What there can be in a profile, and the words for it.
LIMITS: Mapping[str, str] = MappingProxyType(
    {
        "cores": "cores",
        "cores_shared": "populations on one core",  # may two populations share a core?
        "inputs": "input units",
        "hidden": "hidden neurons",  # those that project to a population
        "outputs": "output neurons",  # those that project to none
        "neurons_per_core": "neurons on a core",
        "input_axons_per_core": "input axons of a core",
        "axons_by_sign": "input axons for each sign",  # two for a source with weights of both signs
        "output_axons_per_core": "output axons of a core",
        "synapse_bits_per_core": "synapse bits on a core",
        "synapse_format": "synapse format",  # "blocks" or "words"
        "block_synapses": "synapses in a block",
        "block_header_bits": "header bits of a block",
        "block_unit_bits": "bits that a block is rounded up to",
        "delay_bits": "delay bits of a synapse",
        "tag_bits": "tag bits of a synapse",
        "index_bits": "index bits of a synapse in sparse format",
        "word_bits": "bits of a synapse",
        "delay_slots_per_core": "delay slots on a core",  # for each neuron its longest delay + 1
        "kernel_entries": "kernel entries",  # of each core
        "neuron_entries": "neuron entries",  # of each core
        "fan_in": "fan-in",
        "output_fan_in": "fan-in",  # of the output neurons, where it is another
        "weight_bits": "weight bits",
        "weight_format": "weight format",  # "sign mode", "signed" or "magnitude"
        "max_delay": "delay",
        "time_constants_per_core": "time-constant sets on a core",
        "thresholds_per_core": "thresholds on a core",
        "neuron_kinds": "neuron kind",
        "decay": "decay",  # "any", "bit shift" or "none"
        "resets": "reset",  # "zero", "subtract"
        "recurrent": "recurrence",
        "recurrent_outputs": "recurrence of outputs",
        "graded_bits": "bits of a graded spike",
    }
)


@dataclass(frozen=True)
class Limit:
    """One number, yes or no, or choice of a chip; where it is from; ``verified``, ``reported`` or ``unverified``.

    Example:
        >>> Limit(128, "Davies et al., IEEE Micro 2018", "verified").value
        128
    """

    value: Any
    source: str
    status: str

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")
        if not self.source:
            raise ValueError("source: expected who says so, got nothing; write 'none found' if there is none")


@dataclass(frozen=True)
class Profile:
    """A chip: its limits by name (``LIMITS`` has the names and what they mean).

    Raises:
        ValueError: a limit of a name that is not in ``LIMITS``.

    Example:
        >>> chip = profile("loihi1")
        >>> chip.value("neurons_per_core"), chip.limits["neurons_per_core"].status
        (1024, 'verified')
        >>> chip.changed(neurons_per_core=512).limits["neurons_per_core"]
        Limit(value=512, source='set by hand', status='unverified')
    """

    name: str
    about: str
    limits: Mapping[str, Limit]

    def __post_init__(self) -> None:
        for name in self.limits:
            if name not in LIMITS:
                raise ValueError(f"{self.name}: no limit is called {name!r}{nearest(name, LIMITS)}")
        object.__setattr__(self, "limits", MappingProxyType(dict(self.limits)))

    def value(self, name: str) -> Any:
        """The value of a limit; None if it is absent or not known."""
        if name not in LIMITS:
            raise ValueError(f"no limit is called {name!r}{nearest(name, LIMITS)}")
        return self.limits[name].value if name in self.limits else None

    @property
    def unverified(self) -> tuple[str, ...]:
        """The limits for which no source was found."""
        return tuple(name for name, limit in self.limits.items() if limit.status == "unverified")

    def changed(self, **values: Any) -> Profile:
        """A copy with other values: a ``Limit``, or a plain value, which is then ``unverified``."""
        own = {
            name: value if isinstance(value, Limit) else Limit(value, "set by hand", "unverified")
            for name, value in values.items()
        }
        return dataclasses.replace(self, limits={**self.limits, **own})


def profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        ValueError: there is none; the nearest name is given.

    Example:
        >>> profile("xylo").value("fan_in")
        63
    """
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}{nearest(name, PROFILES)}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def _verified(value: Any, source: str) -> Limit:
    return Limit(value, source, "verified")


def _reported(value: Any, source: str) -> Limit:
    return Limit(value, source, "reported")


def _unverified(value: Any, why: str = "none found") -> Limit:
    return Limit(value, why, "unverified")


DAVIES = "Davies et al., Loihi, IEEE Micro 2018"
NENGO = "nengo-loihi 1.1"
LAVA = "lava-nc 0.10.0"

LOIHI1 = Profile(
    "loihi1",
    "Intel Loihi, one chip.",
    {
        "cores": _verified(128, DAVIES),
        "cores_shared": _unverified(True, f"none found; {NENGO} gives each population cores of its own"),
        "neurons_per_core": _verified(1024, DAVIES),
        "input_axons_per_core": _reported(4096, f"{NENGO}: MAX_IN_AXONS in block.py"),
        "output_axons_per_core": _reported(4096, f"{NENGO}: MAX_OUT_AXONS in block.py"),
        "synapse_bits_per_core": _reported(16384 * 64, f"{NENGO}: MAX_SYNAPSE_BITS in block.py"),
        "synapse_format": _reported("blocks", f"{NENGO}: SynapseConfig.bits_per_axon in block.py"),
        "block_synapses": _reported(64, f"{NENGO}: n_synapses of the synapse configuration"),
        "block_header_bits": _reported(10, f"{NENGO}: 4 bits of the synapse format and 6 of the number of synapses"),
        "block_unit_bits": _reported(64, f"{NENGO}: bits_per_memunit"),
        "delay_bits": _reported(6, f"six bits hold 63, the limit of the format in {LAVA}"),
        "tag_bits": _reported(0, f"{NENGO}: none without learning"),
        "index_bits": _reported(10, f"{NENGO}: 6 to 12 are possible; ten tell the 1,024 neurons of a core apart"),
        "delay_slots_per_core": _unverified(None),
        "weight_bits": _reported(8, f"{NENGO}: WEIGHT_BITS_MAP in block.py"),
        "weight_format": _reported("sign mode", f"{LAVA}: mixed weights give one bit to the sign"),
        "max_delay": _reported(62, f"{LAVA}: 63 is the limit of the format"),
        "time_constants_per_core": _reported(32, f"{NENGO}: compartment configurations in hardware/validate.py"),
        "thresholds_per_core": _reported(
            16, f"{NENGO}: threshold configurations in hardware/validate.py; 8 in one place"
        ),
        "neuron_kinds": _verified(("lif",), DAVIES),
        "decay": _reported("any", f"{NENGO} and {LAVA}: 12 bits each of du and dv"),
        "resets": _reported(("zero",), f"{LAVA}: its LIF"),
        "recurrent": _verified(True, DAVIES),
        "graded_bits": _reported(0, "Intel's technology brief of Loihi 2 names graded spikes as new there"),
    },
)

BRIEF = "Intel's technology brief of Loihi 2, as SANA-FE's documentation quotes it"

LOIHI2 = Profile(
    "loihi2",
    "Intel Loihi 2, one chip. Its synapse memory is counted as Loihi 1's is.",
    {
        "cores": _reported(128, f"{BRIEF}: 8 x 16 cores"),
        "cores_shared": _unverified(True, "none found; as Loihi 1"),
        "neurons_per_core": _reported(8192, f"{BRIEF}: at most, as the state allows"),
        "input_axons_per_core": _unverified(None),
        "output_axons_per_core": _unverified(None),
        "synapse_bits_per_core": _reported(128 * 1024 * 8, f"{BRIEF}: up to 128 KB of a core's 192 KB"),
        "synapse_format": _unverified("blocks", "none found; as Loihi 1"),
        "block_synapses": _unverified(64, "none found; as Loihi 1"),
        "block_header_bits": _unverified(10, "none found; as Loihi 1"),
        "block_unit_bits": _unverified(64, "none found; as Loihi 1"),
        "delay_bits": _unverified(6, "none found; as Loihi 1"),
        "tag_bits": _unverified(0, "none found; as Loihi 1"),
        "index_bits": _unverified(13, "none found; thirteen tell 8,192 neurons apart"),
        "delay_slots_per_core": _unverified(None),
        "weight_bits": _reported(8, "Timcheck et al. 2026 (arXiv 2601.10035), as SANA-FE's documentation quotes it"),
        "weight_format": _reported("sign mode", f"{LAVA}: mixed weights give one bit to the sign"),
        "max_delay": _reported(63, f"{LAVA}: the limit of the format"),
        "time_constants_per_core": _unverified(None),
        "thresholds_per_core": _unverified(None),
        "neuron_kinds": _reported(("lif",), f"{LAVA}; other kinds are programs of their own"),
        "decay": _reported("any", f"{LAVA}: 12 bits each of du and dv"),
        "resets": _reported(("zero",), f"{LAVA}: its LIF; others are programs of their own"),
        "recurrent": _verified(
            True, "Mészáros et al. 2025 (arXiv 2510.13757): recurrent networks with delays run on it"
        ),
        "graded_bits": _reported(32, "Intel's presentation of Loihi 2, as SANA-FE's documentation quotes it"),
    },
)

ROCKPOOL = "Rockpool's overview of the Xylo family"

XYLO = Profile(
    "xylo",
    "SynSense Xylo Audio 2 (SYNS61201). Its fan-out (64) is not checked.",
    {
        "cores": _verified(1, ROCKPOOL),
        "cores_shared": _verified(True, ROCKPOOL),
        "inputs": _verified(16, ROCKPOOL),
        "hidden": _verified(1000, ROCKPOOL),
        "outputs": _verified(8, ROCKPOOL),
        "fan_in": _reported(63, "Open Neuromorphic's page of Xylo"),
        "output_fan_in": _verified(1000, f"{ROCKPOOL}: largest output projection"),
        "weight_bits": _verified(8, ROCKPOOL),
        "weight_format": _reported("signed", "Rockpool quantises them to int8"),
        "max_delay": _reported(0, f"{ROCKPOOL}: delays are not among what it lists"),
        "neuron_kinds": _verified(("lif",), ROCKPOOL),
        "decay": _verified("bit shift", f"{ROCKPOOL}: v - (v >> dash)"),
        "resets": _verified(("subtract",), ROCKPOOL),
        "recurrent": _verified(True, ROCKPOOL),
        "recurrent_outputs": _reported(False, "Rockpool's mapper for Xylo: output neurons may not be recurrent"),
        "graded_bits": _reported(0, f"{ROCKPOOL}: several events for one spike, no values"),
    },
)

SINABS = "sinabs' documentation of Speck"
KI = 1024

SPECK = Profile(
    "speck",
    "SynSense Speck 2e and 2f: a layer on each core.",
    {
        "cores": _verified(9, SINABS),
        "cores_shared": _verified(False, f"{SINABS}: one convolution, its neurons and a pooling on each core"),
        "kernel_entries": _reported(
            tuple(k * KI for k in (16, 16, 16, 32, 32, 64, 64, 16, 16)), "sinabs 3: chips/dynapcnn.py"
        ),
        "neuron_entries": _reported(
            tuple(k * KI for k in (64, 64, 64, 32, 32, 16, 16, 16, 16)), "sinabs 3: chips/dynapcnn.py"
        ),
        "weight_bits": _verified(8, SINABS),
        "weight_format": _reported("signed", "sinabs 3: discretize.py"),
        "max_delay": _reported(0, f"{SINABS}: delays are not among the available operations"),
        "neuron_kinds": _verified(("lif",), f"{SINABS}: IAF, which is LIF without decays"),
        "decay": _verified("none", f"{SINABS}: IAF, with a constant leak at most"),
        "resets": _reported(("zero", "subtract"), "sinabs 3: return_to_zero in chips/dynapcnn.py"),
        "recurrent": _verified(False, f"{SINABS}: not supported, can end in a deadlock"),
        "graded_bits": _reported(0, f"{SINABS}: events without a value"),
    },
)

SPINNAKER2 = Profile(
    "spinnaker2",
    "SpiNNaker2, one chip: processors, so most limits are those of a program, and of its memory beside code and state.",
    {
        "cores": _verified(152, "Gonzalez et al. 2024 (arXiv 2401.04491): 152 ARM Cortex-M4F"),
        "cores_shared": _unverified(False),
        "neurons_per_core": _unverified(None, "none found; py-spinnaker2 lets the user choose it"),
        "synapse_bits_per_core": _unverified(128 * KI * 8, "none found that was read; all of a core's 128 kB"),
        "synapse_format": _unverified("words"),
        "word_bits": _unverified(32),
        "weight_bits": _unverified(8),
        "weight_format": _unverified("signed"),
        "max_delay": _unverified(None),
        "neuron_kinds": _unverified(("lif",), "none found; it is a program"),
        "decay": _unverified("any", "none found; it is a program"),
        "resets": _reported(("zero",), "py-spinnaker2's import of NIR: ResetMethod.ZERO"),
        "recurrent": _unverified(True),
        "graded_bits": _unverified(32),
    },
)

KIP = "KIP Heidelberg's page of its hardware"

BRAINSCALES2 = Profile(
    "brainscales2",
    "BrainScaleS-2, one chip (HICANN-X). Its analogue time constants are calibrated: their range is not checked.",
    {
        "cores": _reported(2, "second-hand: 512 neurons in two halves"),
        "cores_shared": _unverified(True),
        "neurons_per_core": _verified(256, f"{KIP}: 512 neurons in all"),
        "input_axons_per_core": _verified(256, f"{KIP}: 131k synapses, so 256 rows at 512 neurons"),
        "axons_by_sign": _unverified(True, "none found that was read; a row of synapses is taken to have one sign"),
        "fan_in": _verified(256, f"{KIP}: 131k synapses, so 256 at 512 neurons"),
        "weight_bits": _reported(6, "Open Neuromorphic's page of BrainScaleS-2"),
        "weight_format": _unverified(
            "magnitude", "none found that was read; a row of synapses is taken to have one sign"
        ),
        "max_delay": _unverified(0),
        "neuron_kinds": _verified(("lif",), f"{KIP}: AdEx, which can be LIF"),
        "decay": _verified("any", f"{KIP}: parameters of each neuron can be configured"),
        "resets": _unverified(("zero",), "none found that was read; AdEx has a reset potential"),
        "recurrent": _reported(True, "Arnold et al. 2024 (arXiv 2401.16840): recurrent subnetworks that fit"),
        "graded_bits": _unverified(0),
    },
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {each.name: each for each in (LOIHI1, LOIHI2, XYLO, SPECK, SPINNAKER2, BRAINSCALES2)}
)
