"""One part of a tonic data set, opened where it lies and read sample by sample as Events."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eventnet.data.dataset import EventDataset, Sample, collate
from eventnet.data.tonic_table import TONIC_SETS
from eventnet.events import Events
from eventnet.packages import MissingPackage

__all__ = ["Encoding", "Source", "TonicDataset"]

CACHES = ("disk", "memory", "none")
MICROSECOND = 1e-6  # tonic's unit of time, in all its sets


@dataclass(frozen=True)
class Encoding:
    """How a structured array of tonic becomes Events.

    ``crop = (start, stop)`` keeps the events between these seconds and counts from the first; then
    ``duration`` cuts. ``downsample`` multiplies coordinates (tonic's ``Downsample(spatial_factor=...)``).
    """

    sensor_size: tuple[int, int, int]
    duration: float
    crop: tuple[float, float] | None = None
    downsample: float = 1.0
    from_first: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def size(self) -> tuple[int, int, int]:
        """(width, height, polarities) after downsampling."""
        width, height, polarities = self.sensor_size
        return int((width - 1) * self.downsample) + 1, int((height - 1) * self.downsample) + 1, polarities

    def __call__(self, array: np.ndarray) -> Events:
        """A batch of one."""
        array = array.reshape(-1)
        if self.downsample != 1:
            from tonic.transforms import Downsample

            array = Downsample(spatial_factor=self.downsample)(array)
        if self.from_first and len(array):
            array = array.copy()
            array["t"] -= array["t"].min()
        if self.sensor_size[2] == 1:
            # Cochleas: tonic adds a polarity of 1 to all events, while its sensor_size allows only 0.
            array = array[[field for field in array.dtype.names or () if field != "p"]]
        array = self._within(array)
        unsorted = bool((np.diff(array["t"].astype(np.int64)) < 0).any())
        return Events.from_structured(
            [array],
            self.size,
            duration=self.duration,
            time_unit=MICROSECOND,
            dtype=self.dtype,
            sort=unsorted,
        )

    def _within(self, array: np.ndarray) -> np.ndarray:
        """The events within crop and duration, counted from the start of the crop."""
        start, stop = self.crop or (0.0, self.duration)
        first, end = _ticks(start), _ticks(min(stop, start + self.duration))
        kept = array[(array["t"] >= first) & (array["t"] < end)].copy()
        kept["t"] -= first
        return kept


@dataclass(frozen=True)
class Source:
    """Where one part lies and how to open it; small, and pickles, so that each worker opens its own."""

    name: str
    part: str
    folder: Path
    where: str
    arguments: Mapping[str, Any]
    cache: str
    cache_path: Path

    def opened(self) -> Any:
        """tonic's dataset on this folder, without its check for a complete copy, and without a download."""
        import tonic

        entry = TONIC_SETS[self.name]
        tonic_class = getattr(tonic.datasets, entry.class_name)
        here = str(self.folder)
        local = type(
            tonic_class.__name__,
            (tonic_class,),
            {
                # tonic would look in <save_to>/<ClassName>; its constructor cannot overwrite a property.
                "location_on_system": property(lambda _: here, lambda _, value: None),
                "_check_exists": lambda _: True,
            },
        )
        arguments = {**entry.parts[self.part].arguments, **self.arguments}
        try:
            return local(str(self.folder.parent), **arguments)
        except (OSError, KeyError, ValueError, AssertionError) as error:
            raise ValueError(
                f"{self.name}: tonic cannot open the {self.part} part, {self.where} "
                f"({type(error).__name__}: {error}); a file is damaged or of another format"
            ) from error

    def ordered(self) -> _Ordered:
        """tonic's samples in the order of :func:`order`."""
        dataset = self.opened()
        return _Ordered(dataset, order(dataset), self.name)

    def cached(self) -> Any:
        """The same through tonic's cache."""
        import tonic

        if self.cache == "disk":
            return tonic.DiskCachedDataset(self.ordered(), cache_path=str(self.cache_path))
        return tonic.MemoryCachedDataset(self.ordered()) if self.cache == "memory" else self.ordered()


class TonicDataset(Dataset[Sample]):
    """Samples read when asked for, by any number of workers: ``dataset[i]`` is ``(Events, label)``, batch 1.

    ``positions`` are the samples of the source that belong to this dataset, ``labels`` theirs (int64).
    """

    def __init__(
        self,
        source: Source,
        encoding: Encoding,
        positions: Tensor,
        labels: Tensor,
        transform: Callable[[Events], Events] | None = None,
    ) -> None:
        self.source = source
        self.encoding = encoding
        self.positions = positions
        self.labels = labels
        self.transform = transform
        self._open: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.source.name}: no sample {index} among {len(self)}")
        array, _ = self._read(int(self.positions[index]))
        events = self.encoding(array)
        return (events if self.transform is None else self.transform(events)), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """A batch at once; a ``DataLoader`` calls this instead of one ``[i]`` per sample."""
        return collate([self[i] for i in indices])

    def select(self, indices: Sequence[int] | Tensor) -> TonicDataset:
        """The dataset of these samples only, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return TonicDataset(self.source, self.encoding, self.positions[chosen], self.labels[chosen], self.transform)

    def pack(self) -> EventDataset:
        """All of it read, past the cache, and packed in memory."""
        recordings = self.source.ordered()
        parts = [self.encoding(recordings[position][0]) for position in self.positions.tolist()]
        nothing = Events.from_list([], int(np.prod(self.encoding.size)), [], dtype=self.encoding.dtype)
        return EventDataset(Events.cat([nothing, *parts]), self.labels, self.transform)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def _read(self, position: int) -> tuple[np.ndarray, Any]:
        # Open files must not cross a fork: each process opens its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), self.source.cached())
        recordings = self._open[1]
        try:
            return recordings[position]
        except KeyError:
            if self.source.cache != "disk":
                raise
            # A file of the cache that an interrupted run left half written: make it again.
            (self.source.cache_path / f"{position}_0.hdf5").unlink(missing_ok=True)
            return recordings[position]


def order(dataset: Any) -> np.ndarray:
    """A fixed order of a tonic dataset's samples; that of files in a folder varies from machine to machine.

    By path, or by label where the dataset holds arrays (which tonic reads in the order of their names).
    """
    if _holds_paths(dataset):
        return np.array(sorted(range(len(dataset.data)), key=lambda i: dataset.data[i]), np.int64)
    if isinstance(getattr(dataset, "data", None), list) and dataset.data:
        return np.argsort(np.asarray(dataset.targets), kind="stable")
    return np.arange(len(dataset))


def _ticks(seconds: float) -> int:
    """The first whole microsecond not before ``seconds``."""
    return math.ceil(round(seconds / MICROSECOND, 3))


class _Ordered:
    """A tonic dataset in another order, whose errors name the file."""

    def __init__(self, dataset: Any, order: np.ndarray, name: str) -> None:
        self.dataset, self.order, self.name = dataset, order, name

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[np.ndarray, Any]:
        index = int(self.order[position])
        try:
            return self.dataset[index]
        except ImportError as error:
            raise MissingPackage(
                f"{self.name}: tonic needs the package {error.name} to read it: pip install {error.name}"
            ) from error
        except (OSError, ValueError, IndexError, KeyError, EOFError) as error:
            where: Any = f"sample {index} in {self.dataset.location_on_system}"
            if _holds_paths(self.dataset):
                where = self.dataset.data[index]
            raise ValueError(
                f"{self.name}: {where} cannot be read ({type(error).__name__}: {error}); the file is "
                "truncated or damaged"
            ) from error


def _holds_paths(dataset: Any) -> bool:
    data = getattr(dataset, "data", None)
    return isinstance(data, list) and bool(data) and isinstance(data[0], str)
