"""Spoken digits of a stranger: one of six speakers is left out as the test part, in turn.

    python benchmarks/fsdd_folds.py --data-root FOLDER
    python benchmarks/fsdd_folds.py --data-root FOLDER --contenders fsdd gru --speakers george theo --epochs 15

The contenders are recipes (``fsdd``, ``fsdd_recurrent``, ``fsdd_delays``) and ``gru``, a GRU with as many parameters as
``fsdd_recurrent`` on the same spikes in bins of 10 ms. Every fold is a process of its own with a folder of its own under
``runs/fsdd_folds``: called again, finished folds are kept, stopped recipes resumed and a stopped GRU (minutes) begun anew.
The epoch is chosen on the validation part, which is of the other five speakers; the test part is used once per fold. The
result goes to ``benchmarks/results/fsdd_folds.json``, and a table is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import accuracy
import gru
import tables
import torch
from measure import ROOT, commit

from eventnet import data
from eventnet.training import Network, Recipe, build, find

RESULT = Path(__file__).with_name("results") / "fsdd_folds.json"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
CONTENDERS = ("fsdd", "fsdd_recurrent", "fsdd_delays", "gru")
SAME_SIZE = "fsdd_recurrent"  # the recipe whose number of parameters the GRU gets


def run(
    contender: str,
    speaker: str,
    seed: int,
    runs: Path,
    data_root: str | None,
    changes: list[str],
    epochs: int | None = None,
) -> Path:
    """Run one fold, or what is left of it; its folder. Fewer ``epochs`` have the learning rate fall as far in them."""
    folder = runs / f"{contender}-{speaker}-{seed}"
    if contender == "gru":
        if not (folder / "result.json").exists():
            command = [sys.executable, __file__, "--fold", speaker, "--seeds", str(seed), "--runs", str(runs)]
            command += ["--data-root", data_root] if data_root else []
            command += ["--epochs", str(epochs)] if epochs else []
            if subprocess.run(command).returncode:
                sys.exit(f"gru, {speaker}: stopped; the same command begins this fold anew")
    else:
        if epochs:
            recipe = find(contender)
            decay = recipe.learning_rate_decay ** (recipe.epochs / epochs)
            changes = [f"epochs={epochs}", f"learning_rate_decay={decay:.4g}", *changes]
        accuracy.train(contender, seed, folder, data_root, [f"data_options=speaker={speaker}", *changes])
    return folder


def gru_fold(speaker: str, seed: int, folder: Path, data_root: str | None, epochs: int | None = None) -> None:
    """Train the GRU of one fold in this process."""
    recipe = find(SAME_SIZE)
    splits = data.load("fsdd", data_root, seed=seed, speaker=speaker, **recipe.data_options)
    found = gru.train(
        splits,
        parameters(recipe, splits.num_units, splits.num_classes),
        seed=seed,
        epochs=epochs or recipe.epochs,
        dropout=recipe.input_dropout,
        shift=recipe.input_shift,
    )
    machine = {"torch": torch.__version__, "torch_threads": torch.get_num_threads(), "cores": os.cpu_count()}
    accuracy.write(folder / "result.json", {**found, "data": splits.note, "environment": machine, "commit": [commit()]})


def parameters(recipe: Recipe, num_units: int, num_classes: int) -> int:
    """How many numbers a recipe's network learns."""
    return count(build(recipe, num_units, num_classes))


def count(network: Network) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def read(contender: str, speaker: str, seed: int, folder: Path) -> dict[str, Any]:
    """What the result keeps of a finished fold."""
    fold: dict[str, Any] = {"contender": contender, "speaker": speaker, "seed": seed}
    if contender == "gru":
        return {**fold, **json.loads((folder / "result.json").read_text())}
    return {**fold, **accuracy.read_run(seed, folder)}


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Folds of the file with those of this call in their place, in the order of contenders and speakers."""

    def key(fold: dict[str, Any]) -> tuple[str, str, int]:
        return fold["contender"], fold["speaker"], fold["seed"]

    folds = {key(fold): fold for fold in [*old, *new]}
    return sorted(
        folds.values(), key=lambda f: (CONTENDERS.index(f["contender"]), SPEAKERS.index(f["speaker"]), f["seed"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--speakers", nargs="+", default=list(SPEAKERS), choices=SPEAKERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-root", default=os.environ.get("EVENTNET_DATA"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "fsdd_folds", help="folder of the folds' folders")
    parser.add_argument("--epochs", type=int, help="of every contender, instead of the recipes'")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the recipes to change")
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the results; folds in it are kept")
    parser.add_argument("--fold", choices=SPEAKERS, help=argparse.SUPPRESS)  # the GRU's, in this process
    args = parser.parse_args()
    if args.fold:
        folder = args.runs / f"gru-{args.fold}-{args.seeds[0]}"
        gru_fold(args.fold, args.seeds[0], folder, args.data_root, args.epochs)
        return
    folds = json.loads(args.result.read_text())["folds"] if args.result.exists() else []
    for speaker in args.speakers:
        for contender in args.contenders:
            for seed in args.seeds:
                folder = run(contender, speaker, seed, args.runs, args.data_root, args.set, args.epochs)
                folds = merged(folds, [read(contender, speaker, seed, folder)])
                accuracy.write(args.result, {"folds": folds})
    print(tables.fold_table(folds))


if __name__ == "__main__":
    main()
