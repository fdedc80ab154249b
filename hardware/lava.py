"""Lava: a hardware graph as a script that builds its processes, with what they are expected to do.

A folder with ``lava_network.py``, ``arrays.npz`` (weights and parameters) and ``expected.npz`` (some samples, and every spike,
current and voltage of them in our simulation). The script needs lava-nc 0.10.0 and NumPy, nothing of eventnet;
``python lava_network.py --check`` runs it and compares. Recurrence and delays are included, as is what netx cannot hold.

Source: lava-nc 0.10.0 (BSD-3), the last release; ``make lava`` installs it beside torch on Python 3.11.
"""

from __future__ import annotations

import ast
import functools
import io
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from eventnet.files import write_files
from eventnet.hardware.egru import EGRUUnits
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

__all__ = ["rebuilt", "to_lava"]

SCRIPT, ARRAYS, EXPECTED = "lava_network.py", "arrays.npz", "expected.npz"
TEMPLATE = Path(__file__).with_name("lava_template.py")
EGRU_PROCESS = Path(__file__).with_name("egru_lava_template.py")  # outside stock Lava, so the script brings it along
PORTS = {"": "a_in", "input": "a_in", "recurrent": "r_in"}  # of a process by those of its population


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
    if any(isinstance(each, EGRUUnits) for each in network.populations):
        source = EGRU_PROCESS.read_text(encoding="utf-8")
        imports, classes = source[source.index("\nfrom lava") + 1 :].rstrip().split("\n\n\n", 1)
        imports = imports.replace("\n", "  # noqa: E402\n") + "  # noqa: E402"
        parts |= {"...  # OWN PROCESSES": f"{imports}\n\n\n{classes}\n\n", "{}  # MODELS": "{EGRU: PyEGRU}  # MODELS"}
    else:
        parts |= {"...  # OWN PROCESSES\n\n": ""}
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
    if isinstance(each, EGRUUnits):
        return _egru(each, arrays)
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


def _egru(each: EGRUUnits, arrays: dict[str, np.ndarray]) -> list[str]:
    """The lines that make the process of EGRU units."""
    options = [f"shape=({each.size},)", f"payload_bits={each.payload_bits}", f"first_step={each.first_step}"]
    for name in [f"{end}_{part}" for end in ("input", "recurrent") for part in each.RANGES] + ["threshold", "table"]:
        arrays[f"{each.name}.{name}"] = getattr(each, name).numpy()
        options.append(f'{name}=arrays["{each.name}.{name}"]')
    return [f"neurons_{each.name} = EGRU({', '.join(options)})"]


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
        f"{after}.connect(neurons_{each.target}.{PORTS[each.port]})",
    ]


# ---- back from the script --------------------------------------------------------------------------------------------------


def rebuilt(script: str | Path) -> HardwareNetwork:
    """The hardware graph that a script builds: its two functions are run with stand-ins for Lava's processes. For scripts that
    were just written; a file that may be somebody else's is not to be run, here or in Lava.

    Raises:
        ValueError: the script is not one of ``to_lava``, or was cut short.
    """
    script = Path(script)
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
        arrays = dict(np.load(script.with_name(ARRAYS), allow_pickle=False))
        expected = np.load(script.with_name(EXPECTED), allow_pickle=False)
        sizes = {
            name.partition(".")[2]: expected[name].shape[2] for name in expected.files if name.startswith("spikes.")
        }
    except (SyntaxError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{script}: cannot be read ({error})") from error
    wanted = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    if not {"build", "matrix"} <= set(wanted):
        raise ValueError(f"{script}: expected the functions build and matrix of a script of eventnet")
    made: list[_Process] = []
    kinds = ("Dense", "DelayDense", "Sparse", "DelaySparse", "Conv", "LIF", "LIFReset", "EGRU")
    names: dict[str, Any] = {kind: functools.partial(_Process, made, kind) for kind in kinds}
    names |= {"source": SimpleNamespace(RingBuffer=functools.partial(_Process, made, "Inputs")), "np": np}
    names |= {"SignMode": SimpleNamespace(MIXED="mixed", EXCITATORY="excitatory", INHIBITORY="inhibitory")}
    names["csr_matrix"] = lambda parts, shape: (*parts, shape)
    code = compile(ast.Module([wanted["build"], wanted["matrix"]], []), str(script), "exec")
    names["__builtins__"] = {}  # the script is one of ours, and needs none
    exec(code, names)
    neurons = names["build"](arrays, {name: name for name in sizes})
    known = {id(process): name for name, process in neurons.items()}
    known |= {id(each): each.options["data"] for each in made if each.kind == "Inputs"}
    populations = [_as_population(known[id(each)], each, sizes) for each in made if id(each) in known]
    projections = [_as_projection(each, known) for each in made if id(each) not in known]
    return HardwareNetwork(populations, projections, dt=1.0)


class _Process:
    """Stands for a process of Lava: remembers how it was made and what it was connected to."""

    def __init__(self, made: list[_Process], kind: str, **options: Any) -> None:
        self.kind, self.options = kind, options
        self.before: _Process | None = None
        self.after: _Process | None = None
        self.port = ""  # of what comes after
        made.append(self)

    s_in = a_in = s_out = a_out = property(lambda self: self)
    r_in = property(lambda self: SimpleNamespace(process=self))

    def reshape(self, *shape: Any) -> _Process:
        return self

    transpose = reshape

    def connect(self, other: _Process | SimpleNamespace) -> None:
        if isinstance(other, SimpleNamespace):
            self.after, self.port = other.process, "recurrent"
        elif self.kind in ("LIF", "LIFReset", "EGRU", "Inputs"):
            other.before = self
        else:
            self.after, self.port = other, "input" if other.kind == "EGRU" else ""


def _as_population(name: str, process: _Process, sizes: Mapping[str, int]) -> Population:
    if process.kind == "Inputs":
        return Inputs(name, sizes[name])
    kind = EGRUUnits if process.kind == "EGRU" else LIFNeurons
    return kind(name, process.options["shape"][0], **{k: x for k, x in process.options.items() if k != "shape"})


def _as_projection(process: _Process, known: Mapping[int, str]) -> Projection:
    given = process.options
    ends = known[id(process.before)], known[id(process.after)]
    options: dict[str, Any] = {"message_bits": given["num_message_bits"], "port": process.port}
    if process.kind == "Conv":
        weight = given["weight"].transpose(0, 3, 2, 1)[:, :, ::-1, ::-1].copy()
        options |= {name: given[name][::-1] for name in ("stride", "padding", "dilation")}
        return Convolution(*ends, weight, shape=given["input_shape"][::-1], groups=given["groups"], **options)
    options |= {
        "weight_exp": given["weight_exp"],
        "weight_bits": given["num_weight_bits"],
        "sign_mode": given["sign_mode"],
    }
    if process.kind.endswith("Dense"):
        return Dense(
            *ends, given["weights"].T.copy(), delay=given["delays"].T.copy() if "delays" in given else None, **options
        )
    weight, (columns, rows), _ = given["weights"]
    return Sparse(
        *ends, weight, rows=rows, columns=columns, delay=given["delays"][0] if "delays" in given else None, **options
    )
