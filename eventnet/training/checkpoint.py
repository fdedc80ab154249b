"""Files of a run, written whole or not at all, and read without executing code.

- ``model.safetensors`` and ``model.json``: weights and what they mean (recipe, sizes, epoch), of the best
  epoch.
- ``training.pt``: weights, optimiser state and history at the end of the last epoch;
  ``torch.load(weights_only=True)``.

Lightning's own checkpoints are not used: they keep counters of its loops, whose meaning changes between its
versions, are written in place (a full disk destroys the previous one), and a resumed run needs only the
epoch's number here, because order and dropout derive from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eventnet import __version__, files
from eventnet.training.build import build
from eventnet.training.errors import CheckpointError
from eventnet.training.network import Network
from eventnet.training.recipe import Recipe

__all__ = [
    "FORMAT",
    "load_model",
    "load_state",
    "read_json",
    "save_model",
    "save_state",
    "write_files",
]

FORMAT = 1  # of model.json and training.pt; raise it when they change
WEIGHTS, MODEL, STATE = "model.safetensors", "model.json", "training.pt"


# ---- files ------------------------------------------------------------------------------------------------


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files of a folder or none.

    Raises:
        CheckpointError: the disk is full, the folder is read-only or absent; what was there before is
        untouched.
    """
    try:
        files.write_files(contents)
    except OSError as error:
        names = ", ".join(path.name for path in contents)
        folder = next(iter(contents)).parent
        raise CheckpointError(
            f"cannot write {names} into {folder}: {error.strerror or error}; what was saved there before is intact"
        ) from error


def to_json(content: Any) -> bytes:
    """Readable JSON."""
    return (json.dumps(content, indent=2) + "\n").encode()


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(_read(path))
    except ValueError as error:  # includes UnicodeDecodeError
        raise CheckpointError(f"{path}: damaged or cut short ({error})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; is {path.parent} the folder of a run?") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_format(path: Path, content: Any) -> None:
    if not isinstance(content, Mapping) or "format" not in content:
        raise CheckpointError(f"{path}: expected an eventnet checkpoint with a format number, found none")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {content['format']}, written by eventnet {content.get('eventnet', '?')}; this "
            f"is eventnet {__version__}, which reads format {FORMAT}: use that version, or train again"
        )


# ---- the model --------------------------------------------------------------------------------------------


def save_model(folder: Path, network: Network, **facts: Any) -> None:
    """Write ``model.safetensors`` and ``model.json``; ``facts`` are kept in the latter (epoch, accuracy)."""
    from safetensors.torch import save

    weights = save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})
    description = {
        "format": FORMAT,
        "eventnet": __version__,
        "recipe": network.recipe.to_dict(),
        "num_units": network.num_units,
        "num_classes": network.num_classes,
        "weights": WEIGHTS,
        "sha256": hashlib.sha256(weights).hexdigest(),
        **facts,
    }
    write_files({folder / WEIGHTS: weights, folder / MODEL: to_json(description)})


def load_model(folder: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """The network of a run with its best weights, in evaluation mode, and the content of ``model.json``.

    Raises:
        CheckpointError: files are missing, cut short, of another version, or do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    description = read_json(folder / MODEL)
    _check_format(folder / MODEL, description)
    content = _read(folder / WEIGHTS)
    try:
        weights = load(content)
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: {len(content)} bytes, damaged or cut short ({error}); "
            "resume the run or train again to write it anew"
        ) from error
    if hashlib.sha256(content).hexdigest() != description.get("sha256"):
        raise CheckpointError(
            f"{folder / WEIGHTS}: not the weights that {MODEL} describes; copy both files of one run, or resume it"
        )
    try:
        recipe = Recipe.from_dict(description["recipe"])
        network = build(recipe, int(description["num_units"]), int(description["num_classes"]))
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # ValueError: also RecipeError
        raise CheckpointError(f"{folder / MODEL}: does not describe {WEIGHTS}: {error}") from error
    return network.eval(), description


# ---- the training state -----------------------------------------------------------------------------------


def save_state(folder: Path, state: Mapping[str, Any], beside: Mapping[Path, bytes]) -> None:
    """Write ``training.pt``, and further files together with it."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "eventnet": __version__, **state}, buffer)
    write_files({**beside, folder / STATE: buffer.getvalue()})


def load_state(folder: Path) -> dict[str, Any]:
    """What ``save_state`` wrote.

    Raises:
        CheckpointError: the file is missing, cut short, of another version, or would execute code.
    """
    path = folder / STATE
    content = _read(path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: {len(content)} bytes, damaged or cut short ({reason}); the run cannot go on from it, but "
            f"{WEIGHTS} still holds its best weights (eventnet evaluate {folder} --part validation)"
        ) from error
    _check_format(path, state)
    return dict(state)
