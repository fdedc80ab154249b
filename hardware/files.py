"""Files of a hardware graph: one, written whole or not at all, read without executing code.

A safetensors file: the integers as tensors, the rest as JSON in its header.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eventnet.files import write_files
from eventnet.hardware import egru, lif  # noqa: F401, so that their kinds of population are known
from eventnet.hardware.network import PROJECTIONS, HardwareNetwork, Population

__all__ = ["contents", "load_network", "save_network"]

FORMAT = 1  # raise it when the file's meaning changes
HEADER = "eventnet.hardware"


def save_network(network: HardwareNetwork, path: str | Path) -> None:
    """Write a hardware graph into one file; what was there before is replaced once the new one is whole.

    Raises:
        OSError: the disk is full or the folder is not there or read-only; a file that was there is untouched.
    """
    write_files({Path(path): contents(network)})


def contents(network: HardwareNetwork) -> bytes:
    """What the file of a hardware graph holds: the same for the same graph."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {"format": FORMAT, "dt": network.dt, "notes": dict(network.notes)}
    parts: dict[str, Any] = {"populations": network.populations, "projections": network.projections}
    for part, kinds in parts.items():
        plain[part] = []
        for k, each in enumerate(kinds):
            fields = {item.name: getattr(each, item.name) for item in dataclasses.fields(each)}
            arrays = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
            tensors |= {f"{part}.{k}.{name}": value.contiguous() for name, value in arrays.items()}
            plain[part].append({"kind": each.kind, **{name: x for name, x in fields.items() if name not in arrays}})
    return save(tensors, {HEADER: json.dumps(plain)})


def load_network(path: str | Path) -> HardwareNetwork:
    """Read a hardware graph.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, something else, or of another format; a number in it is out of range.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged, cut short or no hardware graph ({error})") from error
    if header is None:
        raise ValueError(f"{path}: expected a hardware graph of eventnet, found a safetensors file of something else")
    try:
        return _network(json.loads(header), tensors, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: a part of the graph is missing or something else ({error!r})") from error


def _network(plain: Any, tensors: Mapping[str, Tensor], path: Path) -> HardwareNetwork:
    if plain["format"] != FORMAT:
        raise ValueError(f"{path}: format {plain['format']}; expected {FORMAT}: write it again with this version")
    made: dict[str, list[Any]] = {}
    for part, kinds in (("populations", Population.kinds), ("projections", PROJECTIONS)):
        made[part] = []
        for k, fields in enumerate(plain[part]):
            kind = fields.pop("kind")
            if kind not in kinds:
                raise ValueError(f"{path}: unknown kind of {part} {kind!r}; expected one of {', '.join(kinds)}")
            arrays: dict[str, Any] = {
                name.split(".", 2)[2]: x for name, x in tensors.items() if name.startswith(f"{part}.{k}.")
            }
            made[part].append(kinds[kind](**fields, **arrays))
    return HardwareNetwork(dt=plain["dt"], notes=plain["notes"], **made)
