"""Event data sets through tonic: its classes read the files, its cache keeps them; here they get split."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventnet.data.dataset import Drop, EventDataset, Splits, stratified_split
from eventnet.data.folders import cache_folder, child_folders, data_root, fingerprint, unpacked
from eventnet.data.tonic_reader import CACHES, Encoding, Source, TonicDataset, order
from eventnet.data.tonic_table import TONIC_SETS, Part, TonicSet

__all__ = ["load"]

# Of sets without an official split: the test part is the same for every seed of load.
TEST_FRACTION, TEST_SEED = 0.2, 2021
EVENT_BYTES = 5  # of one event in the .bin files of N-MNIST and N-Caltech101


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    duration: float | None = None,
    crop: tuple[float, float] | None = None,
    downsample: float = 1.0,
    drop: float = 0.0,
    in_memory: bool | None = None,
    cache: str = "disk",
    cache_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Splits:
    """One of tonic's data sets from files that are there, be they all of it or a part.

    Args:
        name: "nmnist", "shd", ...
        root: the folder of the recordings, or one that has them in a folder called like the set (``NMNIST``,
            ``poker_dvs``, ``nmnist_1k``). Archives are unpacked into the cache; nothing is written into
            ``root``.
        seed, validation_fraction: of the validation part, drawn evenly from the classes of the training part
            (a tenth if not given, of pokerdvs a quarter). Sets with an official validation part (ssc) use it.
            Sets without an official test part (asldvs, cifar10dvs, ncaltech101) have a fixed fifth as such.
        duration: seconds; later events are left out. Each set has its own default.
        crop: ``(start, stop)`` seconds: only the events in between, counted from ``start``; ``stop - start``
            is then the default duration.
        downsample: factor for the coordinates: 0.5 halves width and height.
        drop: fraction of the training events left out at random, anew on every access.
        in_memory: pack everything as one Events; by default small sets (pokerdvs, nmnist up to 20,000
            samples) are packed and the others read lazily.
        cache: of lazily read samples: "disk" (tonic's DiskCachedDataset), "memory" (MemoryCachedDataset) or
            "none".
        cache_root: folder of the cache; ``$EVENTNET_CACHE`` or ``~/.cache/eventnet`` if not given.
        download: let tonic fetch the set into ``root`` if nothing of it is there.
        dtype: of the times.
        arguments: passed on to tonic's class, such as ``first_saccade_only=True`` for nmnist.

    Raises:
        FileNotFoundError: files are missing; ValueError: files are damaged, or several folders match.
    """
    entry = TONIC_SETS[name]
    if cache not in CACHES:
        raise ValueError(f"{name}: cache must be one of {', '.join(CACHES)}, got {cache!r}")
    if not 0 < downsample <= 1:
        raise ValueError(f"{name}: downsample must be in (0, 1], such as 0.5 for half the width, got {downsample}")
    if crop is not None and not 0 <= crop[0] < crop[1]:
        raise ValueError(f"{name}: crop must be (start, stop) in seconds with 0 <= start < stop, got {crop}")
    if duration is not None and not 0 < duration < float("inf"):
        raise ValueError(f"{name}: duration must be a positive number of seconds, got {duration}")
    _check_arguments(name, entry, arguments)
    caches = cache_folder(cache_root)
    folder = _folder(name, entry, root, download, arguments)
    sources = {
        part: _source(name, part, folder, caches, cache, arguments)
        for part in entry.parts
        if part != "validation" or _is_there(folder, entry.parts[part])
    }
    targets, sensor_size = {}, (0, 0, 0)
    for part, source in sources.items():
        opened = source.opened()
        if not len(opened):
            raise FileNotFoundError(f"{name}: tonic finds no recordings of the {part} part in {source.folder}")
        targets[part] = np.asarray(entry.targets(opened))[order(opened)]
        sensor_size = entry.sensor_size(opened)
    labels, classes, remarks = _contiguous(targets, entry)
    if duration is None:
        duration = entry.duration if crop is None else crop[1] - crop[0]
    encoding = Encoding(sensor_size, duration, crop, downsample, entry.from_first, dtype)
    whole = {
        part: TonicDataset(source, encoding, torch.arange(len(labels[part])), labels[part])
        for part, source in sources.items()
    }
    parts, division = _divided(name, entry, whole, seed, validation_fraction)
    total = sum(map(len, parts.values()))
    packed = total < entry.packed_below if in_memory is None else in_memory
    made: dict[str, Any] = {part: dataset.pack() if packed else dataset for part, dataset in parts.items()}
    if drop:
        made["train"].transform = Drop(drop)
    note = "; ".join(
        [
            f"{entry.class_name} through tonic, folder {folder.resolve().name}: {division}",
            *_missing(entry, whole),
            *remarks,
            *_silent(made),
            f"events up to {duration:g} s" + (" after the first" if entry.from_first else ""),
            "in memory" if packed else f"read lazily, cache: {cache}",
        ]
    )
    return Splits(
        **made,
        name=name,
        num_units=int(np.prod(encoding.size)),
        num_classes=classes,
        sensor_size=encoding.size,
        note=note,
    )


# ---- finding the files ------------------------------------------------------------------------------------


def _is_there(folder: Path, part: Part) -> bool:
    unpacked_files = all(next(folder.glob(pattern), None) is not None for pattern in part.files)
    return unpacked_files or _archives(folder, part) is not None


def _archives(folder: Path, part: Part) -> list[Path] | None:
    found = [folder / name for name in part.archives]
    return found if found and all(path.is_file() for path in found) else None


def _folder(
    name: str,
    entry: TonicSet,
    root: str | os.PathLike[str] | None,
    download: bool,
    arguments: Mapping[str, Any],
) -> Path:
    if download and root is not None:
        Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    base = data_root(root, name)

    def holds(folder: Path) -> bool:
        return any(_is_there(folder, part) for part in entry.parts.values())

    def candidates() -> list[Path]:
        return [base] if holds(base) else child_folders(base, (name, entry.class_name, *entry.aliases), holds)

    found = candidates()
    if not found and download:
        _download(entry, base, arguments)
        found = candidates()
    if len(found) > 1:
        raise ValueError(
            f"{name}: several folders in {base} hold such recordings: "
            f"{', '.join(path.name for path in found)}; pass one of them, such as root={str(found[0])!r}"
        )
    if not found:
        raise FileNotFoundError(
            f"{name}: no recordings in {base}; expected {_expected(entry)} in it or in its folder "
            f"{entry.class_name}. download=True lets tonic fetch the set"
        )
    return found[0]


def _expected(entry: TonicSet) -> str:
    wanted = []
    for part in entry.parts.values():
        archives = f" (or {', '.join(part.archives)})" if part.archives else ""
        wanted.append(" and ".join(part.files) + archives)
    return "; ".join(dict.fromkeys(wanted))


def _download(entry: TonicSet, root: Path, arguments: Mapping[str, Any]) -> None:
    import tonic

    for part in entry.parts.values():
        try:
            getattr(tonic.datasets, entry.class_name)(str(root), **{**part.arguments, **arguments})
        except SystemExit as stop:  # tonic's DVSLip prints where to get the set by hand, and exits
            raise FileNotFoundError(f"{entry.class_name}: tonic cannot download it; see its message above") from stop


def _source(name: str, part: str, folder: Path, caches: Path, cache: str, arguments: Mapping[str, Any]) -> Source:
    import tonic

    wanted = TONIC_SETS[name].parts[part]
    if not _is_there(folder, wanted):
        raise FileNotFoundError(f"{name}: {folder} has no {part} part; expected {' and '.join(wanted.files)}")
    files = _files(folder, wanted)
    if not files:
        archives = _archives(folder, wanted)
        assert archives is not None
        folder = unpacked(archives, caches)
        files = _files(folder, wanted)
    if not files:
        raise ValueError(f"{name}: the archives {', '.join(wanted.archives)} hold no {' and '.join(wanted.files)}")
    for path in files:
        if path.suffix == ".bin" and path.stat().st_size % EVENT_BYTES:
            raise ValueError(
                f"{path}: truncated: {path.stat().st_size} bytes are not a whole number of events, "
                f"which take {EVENT_BYTES} bytes each"
            )
    mark = fingerprint(files, folder, tonic.__version__, part, sorted(arguments.items()))
    where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {folder}"
    return Source(name, part, folder, where, arguments, cache, caches / "tonic" / f"{name}-{part}-{mark}")


def _files(folder: Path, part: Part) -> tuple[Path, ...]:
    """All files of a part, or none if a pattern has no match."""
    matches = [sorted(folder.glob(pattern)) for pattern in part.files]
    return tuple(path for match in matches for path in match) if all(matches) else ()


# ---- labels and splits ------------------------------------------------------------------------------------


def _contiguous(targets: Mapping[str, np.ndarray], entry: TonicSet) -> tuple[dict[str, Tensor], int, list[str]]:
    """Labels from 0 without gaps, their number, and what to say about it."""
    present = np.unique(np.concatenate(list(targets.values())))
    labels = {part: torch.from_numpy(np.searchsorted(present, values)) for part, values in targets.items()}
    remarks = []
    if len(present) != entry.num_classes:
        remarks.append(f"{len(present)} of {entry.num_classes} classes")
    if present.dtype.kind in "iu" and not np.array_equal(present, np.arange(len(present))):
        remarks.append("labels " + ", ".join(f"{new} = class {old}" for new, old in enumerate(present)))
    for part, values in targets.items():
        absent = np.setdiff1d(present, values)
        if len(absent):
            remarks.append(f"no {part} sample of class {', '.join(map(str, absent))}")
    return labels, len(present), remarks


def _divided(
    name: str, entry: TonicSet, whole: Mapping[str, TonicDataset], seed: int, fraction: float | None
) -> tuple[dict[str, TonicDataset], str]:
    """Training, validation and test part, and their sizes in words."""
    test_kind = "official"
    if "all" in whole:
        rest, test_part = stratified_split(whole["all"].labels, TEST_FRACTION, TEST_SEED)
        training, test = whole["all"].select(rest), whole["all"].select(test_part)
        test_kind = "a fixed fifth, for want of an official split"
    else:
        training, test = whole["train"], whole["test"]
    if "validation" in whole:
        if fraction is not None:
            raise ValueError(f"{name}: has an official validation part; leave validation_fraction out")
        train, validation, validation_kind = training, whole["validation"], "official"
    else:
        rest, part = stratified_split(
            training.labels, entry.validation_fraction if fraction is None else fraction, seed
        )
        train, validation, validation_kind = training.select(rest), training.select(part), f"seed {seed}"
    words = f"{len(train)} training, {len(validation)} validation ({validation_kind}), {len(test)} test ({test_kind})"
    return {"train": train, "validation": validation, "test": test}, words


def _missing(entry: TonicSet, whole: Mapping[str, TonicDataset]) -> list[str]:
    counts = [(part, len(dataset), entry.parts[part].complete) for part, dataset in whole.items()]
    partial = [f"{here} of {complete} {part}" for part, here, complete in counts if complete not in (None, here)]
    absent = [f"no {part} part" for part in entry.parts if part not in whole]
    return [f"partial copy: {', '.join(partial + absent)}"] if partial or absent else []


def _silent(made: Mapping[str, Any]) -> list[str]:
    packed = [dataset for dataset in made.values() if isinstance(dataset, EventDataset)]
    silent = sum(int((dataset.events.lengths == 0).sum()) for dataset in packed)
    return [f"{silent} recordings without events"] if silent else []


def _check_arguments(name: str, entry: TonicSet, arguments: Mapping[str, Any]) -> None:
    if not arguments:
        return
    import tonic

    accepted = inspect.signature(getattr(tonic.datasets, entry.class_name).__init__).parameters
    fixed = {"self", "save_to", "train", "split", "transform", "target_transform", "transforms"}
    fixed |= {key for part in entry.parts.values() for key in part.arguments}
    own = [key for key in inspect.signature(load).parameters if key not in ("name", "root", "arguments")]
    options = [*own, *(key for key in accepted if key not in fixed)]
    for key in arguments:
        if key not in options:
            raise TypeError(f"{name}: unknown option {key!r}; known are {', '.join(options)}")
