"""Lava: a hardware graph as a script that builds its processes, with what they are expected to do.

A folder with ``lava_network.py``, ``arrays.npz`` (weights and parameters) and ``expected.npz`` (some samples, and every spike,
current and voltage of them in our simulation). The script needs lava-nc 0.10.0 and NumPy, nothing of eventnet;
``python lava_network.py --check`` runs it and compares. Recurrence and delays are included, as is what netx cannot hold.

Source: lava-nc 0.10.0 (BSD-3), the last release; ``make lava`` installs it beside torch on Python 3.11.
"""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from eventnet.hardware.files import write_files
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import (
    Convolution,
    Dense,
    HardwareNetwork,
    Inputs,
    Population,
    Projection,
    Sparse,
    guessed_sign,
)

__all__ = ["to_lava"]

SCRIPT, ARRAYS, EXPECTED = "lava_network.py", "arrays.npz", "expected.npz"
TEMPLATE = Path(__file__).with_name("lava_template.py")


def to_lava(network: HardwareNetwork, folder: str | Path, spikes: Tensor | Mapping[str, Tensor]) -> Path:
    """Write the script, its arrays and what is expected of it into a folder; returns the script's path.

    Args:
        network: the graph; a population that Lava 0.10.0 has no process for is refused by name.
        folder: made if it is not there.
        spikes: input ``(T, B, N)`` of the samples that the script checks itself with, as of ``simulate``.

    Raises:
        ValueError: Lava cannot hold a population.

    Example:
        >>> network = HardwareNetwork([Inputs("input", 1), LIFNeurons("neuron", 1)], [Dense("input", "neuron", [[100]])], dt=1e-3)
        >>> script = to_lava(network, folder, torch.ones(5, 1, 1, dtype=torch.int32))  # doctest: +SKIP
    """
    found = simulate(network, spikes)
    arrays: dict[str, np.ndarray] = {}
    lines = [line for each in network.populations for line in _population(each, arrays)]
    lines += [line for k, each in enumerate(network.projections) for line in _projection(k, each, network, arrays)]
    expected = {f"spikes.{name}": x for name, x in found.spikes.items()}
    expected |= {f"u.{name}": x for name, x in found.u.items()} | {f"v.{name}": x for name, x in found.v.items()}
    expected = {name: x if x.dim() == 3 else x[:, None] for name, x in expected.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_files(
        {
            folder / SCRIPT: _script(network, lines).encode(),
            folder / ARRAYS: _packed(arrays),
            folder / EXPECTED: _packed({name: x.cpu().numpy() for name, x in expected.items()}),
        }
    )
    return folder / SCRIPT


def _script(network: HardwareNetwork, lines: list[str]) -> str:
    """The template with the processes of this network in it."""
    template = TEMPLATE.read_text(encoding="utf-8")
    names = ", ".join(f'"{each.name}": neurons_{each.name}' for each in network.neurons)
    inputs = ", ".join(f'"{each.name}"' for each in network.inputs)
    body = textwrap.indent("\n".join(lines), "    ")
    parts = {"    ...  # PROCESSES": body, "{}  # NEURONS": f"{{{names}}}", '("input",)  # INPUTS': f"({inputs},)"}
    for mark, text in parts.items():
        if template.count(mark) != 1:
            raise RuntimeError(f"{TEMPLATE.name}: expected the mark {mark!r} once")
        template = template.replace(mark, text)
    return template


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _population(each: Population, arrays: dict[str, np.ndarray]) -> list[str]:
    """The lines that make a population's process."""
    if isinstance(each, Inputs):
        return [f'neurons_{each.name} = source.RingBuffer(data=rasters["{each.name}"])']
    if not isinstance(each, LIFNeurons):
        raise ValueError(f"{each.name}: Lava 0.10.0 has no process for neurons of kind {each.kind!r}")
    if bool(each.refractory.any()):
        raise ValueError(f"{each.name}: Lava 0.10.0 has no fixed-point neuron with a refractory period; expected 0")
    options = [f"shape=({each.size},)"]
    for name in ("du", "dv", "vth", "bias_mant", "bias_exp", "u", "v"):
        value = getattr(each, name)
        if bool((value == value[0]).all()):
            options.append(f"{name}={int(value[0])}")
        else:
            arrays[f"{each.name}.{name}"] = value.numpy()
            options.append(f'{name}=arrays["{each.name}.{name}"]')
    process = "LIF"
    if each.reset_interval is not None:
        process = "LIFReset"
        options += [f"reset_interval={each.reset_interval}", f"reset_offset={each.reset_offset}"]
    return [f"neurons_{each.name} = {process}({', '.join(options)})"]


def _projection(k: int, each: Projection, network: HardwareNetwork, arrays: dict[str, np.ndarray]) -> list[str]:
    """The lines that make a projection's process and connect it."""
    name, key = f"synapses_{k}", f"synapses_{k}"
    sign = (each.sign_mode or guessed_sign(each.weight)).upper()
    options = [f"num_message_bits={each.message_bits}"]
    before, after = f"neurons_{each.source}.s_out", f"{name}.a_out"
    if isinstance(each, Convolution):
        # Lava's images are (width, height, channels), its kernels (out, width, height, in) and turned round
        arrays[f"{key}.weight"] = each.weight.flip(2, 3).permute(0, 3, 2, 1).contiguous().numpy()
        for option in ("stride", "padding", "dilation"):
            options.append(f"{option}={getattr(each, option)[::-1]}")
        options += [f"groups={each.groups}", f"input_shape={each.shape[::-1]}"]
        process, weight = "Conv", f'weight=arrays["{key}.weight"]'
        before += f".reshape({each.shape}).transpose((2, 1, 0))"
        after += f".transpose((2, 1, 0)).reshape(({network[each.target].size},))"
    else:
        options += [
            f"weight_exp={each.weight_exp}",
            f"num_weight_bits={each.weight_bits}",
            f"sign_mode=SignMode.{sign}",
        ]
        delayed = each.max_delay > 0
        process = ("Delay" if delayed else "") + type(each).__name__
        if isinstance(each, Dense):
            arrays[f"{key}.weight"] = each.weight.T.contiguous().numpy()
            weight = f'weights=arrays["{key}.weight"]'
            if delayed:
                arrays[f"{key}.delay"] = each.delay.T.contiguous().numpy().astype(np.int64)
                options.append(f'delays=arrays["{key}.delay"]')
        else:
            assert isinstance(each, Sparse)
            shape = (network[each.target].size, network[each.source].size)
            for part in ("weight", "rows", "columns") + (("delay",) if delayed else ()):
                arrays[f"{key}.{part}"] = getattr(each, part).numpy()
            weight = f'weights=matrix(arrays, "{key}", "weight", {shape})'
            if delayed:
                options.append(f'delays=matrix(arrays, "{key}", "delay", {shape})')
    return [
        f"{name} = {process}({', '.join([weight, *options])})  # {each.name}",
        f"{before}.connect({name}.s_in)",
        f"{after}.connect(neurons_{each.target}.a_in)",
    ]


def is_there() -> bool:
    """Whether Lava can be imported here (not done: it takes a second, and a change to Python's dataclasses)."""
    return importlib.util.find_spec("lava") is not None
