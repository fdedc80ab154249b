"""netx, lava-dl's HDF5 description of feed-forward networks: for the graphs that it can hold.

Its loader takes a chain of dense layers of LIF neurons: integer weights as they are, ``du = iDecay - 1``, ``dv = vDecay``,
``vth = vThMant`` and ``bias << 6``. It has no recurrence and no exponent of weights, drops delays without a word and starts every
neuron at 0. A graph that needs one of these is refused by name; the script of ``eventnet.hardware.lava`` holds it.

Source: lava-dl, ``lava.lib.dl.netx`` (the loader of its last version).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from eventnet.files import write_files
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.network import Dense, HardwareNetwork

__all__ = ["to_netx"]

BIAS_EXPONENT = 6  # what the loader shifts every bias by


def to_netx(network: HardwareNetwork, path: str | Path) -> None:
    """Write a chain of dense layers as the HDF5 file that netx reads.

    Raises:
        ValueError: the graph has something that netx cannot hold; it is named.

    Example:
        >>> import tempfile
        >>> from eventnet.hardware.network import Inputs
        >>> populations = [Inputs("input", 2), LIFNeurons("out", 1, vth=9)]
        >>> network = HardwareNetwork(populations, [Dense("input", "out", [[2], [4]])], dt=1e-3)
        >>> to_netx(network, Path(tempfile.mkdtemp()) / "network.net")
    """
    import h5py

    layers = _chain(network)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for k, (neurons, synapses) in enumerate(layers):
            group = file.create_group(f"layer/{k}")
            group.create_dataset("type", (1,), "S10", [b"dense"])
            group.create_dataset("shape", data=[neurons.size])
            group.create_dataset("inFeatures", data=synapses.weight.shape[0])
            group.create_dataset("outFeatures", data=neurons.size)
            group.create_dataset("weight", data=synapses.effective().T.contiguous().numpy())
            if bool(neurons.bias.any()):
                group.create_dataset("bias", data=(neurons.bias >> BIAS_EXPONENT).numpy())
            own = group.create_group("neuron")
            own.create_dataset("type", (1,), "S10", [b"LOIHI"])
            for name, value in (("iDecay", neurons.du + 1), ("vDecay", neurons.dv), ("vThMant", neurons.vth)):
                own.create_dataset(name, data=_alike(f"{neurons.name}.{name}", value))
            own.create_dataset("refDelay", data=1)
            own.create_dataset("gradedSpike", data=False)
    write_files({Path(path): buffer.getvalue()})


def _alike(what: str, value: torch.Tensor) -> int:
    if not bool((value == value[0]).all()):
        raise ValueError(
            f"{what}: netx has one number for all neurons of a layer, expected them alike, got {len(value.unique())}"
        )
    return int(value[0])


def _chain(network: HardwareNetwork) -> list[tuple[LIFNeurons, Dense]]:
    """The layers in order, or an error that names what netx cannot hold."""
    if len(network.inputs) != 1:
        raise ValueError(f"inputs: netx has one, got {len(network.inputs)}")
    layers: list[tuple[LIFNeurons, Dense]] = []
    before = network.inputs[0].name
    for neurons in network.neurons:
        onto: Any = network.onto(neurons.name)
        if not isinstance(neurons, LIFNeurons):
            raise ValueError(f"{neurons.name}: netx has no neurons of kind {neurons.kind!r}")
        if any(each.source == neurons.name for each in onto):
            raise ValueError(f"{neurons.name}: netx has no recurrent layers of this kind; the Lava script has them")
        if [each.source for each in onto] != [before] or not isinstance(onto[0], Dense):
            found = ", ".join(f"{each.source} ({each.kind})" for each in onto) or "none"
            raise ValueError(
                f"{neurons.name}: netx has a chain of dense layers, expected one from {before}, got {found}"
            )
        _check(neurons, onto[0])
        layers.append((neurons, onto[0]))
        before = neurons.name
    return layers


def _check(neurons: LIFNeurons, synapses: Dense) -> None:
    reasons = {
        f"{synapses.name}: netx drops delays": synapses.delay is not None,
        f"{synapses.name}: netx has no exponent of weights, got {synapses.weight_exp}": synapses.weight_exp != 0,
        f"{synapses.name}: netx takes plain spikes, got graded ones": synapses.message_bits > 0,
        f"{neurons.name}: netx starts neurons at 0": bool(neurons.u.any() or neurons.v.any()),
        f"{neurons.name}: netx has no refractory period": bool(neurons.refractory.any()),
        f"{neurons.name}: netx has no reset at intervals": neurons.reset_interval is not None,
        f"{neurons.name}: netx shifts biases by {BIAS_EXPONENT}, got some that are no multiple": bool(
            (neurons.bias % 2**BIAS_EXPONENT).any()
        ),
    }
    for reason, there in reasons.items():
        if there:
            raise ValueError(f"{reason}; the Lava script holds it")
