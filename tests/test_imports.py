"""Imports go one way, `import eventnet` stays light, and hardware/ is reached as eventnet.hardware only."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module may import from its own rank and from lower ones. A new module of eventnet/ gets its rank here.
RANKS = {
    "eventnet.events": 0,
    "eventnet.events_checks": 0,
    "eventnet.files": 0,
    "eventnet.graphs": 0,
    "eventnet.packages": 0,
    "eventnet.kernels": 1,
    "eventnet.counters": 2,
    "eventnet.counters_torch": 2,
    "eventnet.counting": 2,
    "eventnet.counts": 2,
    "eventnet.data": 2,
    "eventnet.initial": 2,
    "eventnet.layers": 2,
    "eventnet.losses": 2,
    "eventnet.metrics": 2,
    "eventnet.plots": 2,
    "eventnet.tally": 2,
    "eventnet": 3,  # the names of the package init
    "eventnet.interop": 5,
    "eventnet.training": 4,
    "eventnet.cli": 6,
    "eventnet.cli_hardware": 5,
    "eventnet.__main__": 6,
}
FOR_HARDWARE = {
    "eventnet",
    "eventnet.counting",
    "eventnet.counts",
    "eventnet.events",
    "eventnet.files",
    "eventnet.kernels",
    "eventnet.layers",
    "eventnet.metrics",
    "eventnet.packages",
    "eventnet.hardware",
}
HEAVY = {"h5py", "lava", "lightning", "matplotlib", "nir", "pytorch_lightning"}
HEAVY |= {"norse", "rich", "scipy", "sklearn", "snntorch", "tonic", "triton", "typer"}


def modules() -> dict[str, Path]:
    """The modules of this repository by the names under which they are installed."""
    found = {}
    for folder, package in (("eventnet", "eventnet"), ("hardware", "eventnet.hardware")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


MODULES = modules()


def imports(name: str, source: str, is_package: bool) -> Iterator[tuple[str, int, bool]]:
    """Yield (imported module, line, whether inside a function) for each import in `source`, module `name`."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name.split(".") if is_package else name.split(".")[:-1]
                here = here[: len(here) - (node.level - 1)]
                base = ".".join([*here, base]) if base else ".".join(here)
            for alias in node.names:  # `from eventnet import losses` names a module, `import LIF` does not
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES or inner in RANKS else base, node.lineno, inside
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield str(first.value), node.lineno, inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(source), False)


def top(module: str) -> str:
    """`eventnet.layers.lif` -> `eventnet.layers`: the unit that has a rank."""
    return ".".join(module.split(".")[:2])


def violations(name: str, source: str, is_package: bool = False) -> list[str]:
    """What module `name` with this source imports against the rule, one line each."""
    mine, found = top(name), []
    if mine != "eventnet.hardware" and mine not in RANKS:
        return [f"{name}: not in RANKS of tests/test_imports.py: give it its place"]
    for target, line, inside in imports(name, source, is_package):
        theirs = top(target)
        if theirs.split(".")[0] not in ("eventnet", "hardware"):
            continue
        if theirs == "hardware" or theirs.startswith("hardware."):
            found.append(f"{name}:{line} imports {target}: the package is eventnet.hardware")
        elif mine == "eventnet.hardware":
            if theirs not in FOR_HARDWARE:
                found.append(f"{name}:{line} imports {target}: hardware may import {sorted(FOR_HARDWARE)}")
        elif theirs == "eventnet.hardware":
            if mine not in ("eventnet.cli", "eventnet.cli_hardware") or not inside:
                found.append(f"{name}:{line} imports {target}: only functions of eventnet/cli*.py do that")
        elif RANKS.get(theirs, RANKS["eventnet"]) > RANKS[mine]:
            found.append(f"{name}:{line} imports {target}, which is above it")
    return found


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, outside the repository."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded(statement: str) -> set[str]:
    """The top-level packages in sys.modules after `statement` in a fresh interpreter."""
    result = run(f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def test_imports_go_one_way():
    assert {"eventnet", "eventnet.hardware"} <= set(MODULES)
    found = [
        line
        for name, path in MODULES.items()
        for line in violations(name, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("eventnet.events", "from eventnet.kernels import reference"),
        ("eventnet.kernels.reference", "def f():\n    from ..layers.lif import LIF"),
        ("eventnet.layers.lif", "from eventnet import LIF"),
        ("eventnet.plots", "import eventnet.training"),
        ("eventnet.metrics", "from . import training"),
        ("eventnet.layers.lif", "import eventnet.hardware.quantize"),
        ("eventnet.layers.lif", "def f():\n    import eventnet.hardware"),
        ("eventnet.cli", "from eventnet.hardware import loihi"),
        ("eventnet.cli", "def f():\n    import hardware"),
        ("eventnet.hardware.loihi", "from ..plots import raster"),
        ("eventnet.hardware.resistive.crossbar", "from ...training import trainer"),
        ("eventnet.hardware.parity", "from eventnet import losses"),
        ("eventnet.training.trainer", "import importlib\nimportlib.import_module('eventnet.cli')"),
        ("eventnet.unheard_of", ""),
    ],
)
def test_rule_refuses(name, source):
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("eventnet.cli", "def f():\n    from eventnet.hardware import loihi"),
        ("eventnet.layers.lif", "import torch\nfrom ..events import Events\nfrom ..kernels import reference"),
        ("eventnet.training.trainer", "from eventnet import LIF, losses"),
        ("eventnet.hardware.resistive.crossbar", "from ..network import A\nfrom ...layers.lif import LIF"),
        ("eventnet.hardware.parity", "from eventnet import Events, metrics"),
    ],
)
def test_rule_allows(name, source):
    assert violations(name, source) == []


def test_import_eventnet_is_light():
    added = loaded("import eventnet") - loaded("import torch, numpy")
    assert "eventnet" in added
    assert not added & HEAVY


def test_import_hardware_is_refused_in_one_line():
    result = run("import hardware", PYTHONPATH=str(ROOT))
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "eventnet.hardware" in result.stderr.splitlines()[-1]


def test_hardware_is_installed_as_eventnet_hardware():
    result = run("import eventnet.hardware as h, sys; print(h.__name__, 'hardware' in sys.modules)")
    assert result.stdout.split() == ["eventnet.hardware", "False"], result.stderr


def test_few_public_names():
    import eventnet

    assert len(eventnet.__all__) < 30
    assert len(set(eventnet.__all__)) == len(eventnet.__all__)
    assert all(hasattr(eventnet, name) for name in eventnet.__all__)
