"""Spoken digits of six speakers (the Free Spoken Digit Dataset) through a cochlea of 700 channels.

Jackson et al., "Free Spoken Digit Dataset" (2018), CC BY-SA 4.0: 3,000 recordings ``digit_speaker_number.wav``, numbers 0 to
49 of each digit and speaker, 8 kHz, 16 bits, one channel, 0.14 to 2.3 s, most of them under 0.7 s. ``eventnet.data.cochlea``
turns them into some 3,000 spikes each; the whole set takes some 20 s, so nothing is cached.
"""

from __future__ import annotations

import io
import os
import re
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from eventnet.data import cochlea
from eventnet.data.dataset import EventDataset, Splits, stratified_split
from eventnet.data.folders import data_root, find_file

__all__ = ["RATE", "load", "read_wav"]

RATE = 8000  # samples per second
ARCHIVES, FOLDERS = ("fsdd_recordings.zip",), ("fsdd", "free-spoken-digit-dataset", ".")
COMPLETE, TEST_NUMBERS = 3000, range(5)
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


class Recording(NamedTuple):
    """One file."""

    digit: int
    speaker: str
    number: int
    sound: np.ndarray


def load(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float | None = None,
    speaker: str | None = None,
    validation_speaker: str | None = None,
    channels: int = 700,
    duration: float = 1.0,
) -> Splits:
    """2,400 / 300 / 300 spoken digits as spikes of 700 channels, unit 0 the lowest frequency.

    Args:
        root: folder with ``fsdd_recordings.zip`` or the folder ``recordings``, or with ``fsdd/`` that has one of them.
        seed, validation_fraction: of the validation part, drawn evenly from each digit of each speaker of the training files;
            5 of each if not given.
        speaker: this speaker's recordings are the test part (2,250 / 250 / 500: how well are strangers understood?);
            if not given, the numbers 0 to 4 of every digit and speaker are, as the authors of the set propose.
        validation_speaker: this speaker's training files are the validation part, so that choices can be made for
            strangers too; ``seed`` and ``validation_fraction`` then mean nothing.
        channels: of the cochlea.
        duration: seconds; what a recording has later is left out (1 s cuts one in 200).

    Raises:
        FileNotFoundError: nothing there; ValueError: a file is damaged, empty or of another format, or nobody is called so.
    """
    recordings = sorted(_recordings(_find(data_root(root, "fsdd"))), key=lambda r: r[:3])
    events = cochlea.encode([r.sound for r in recordings], RATE, channels=channels, duration=duration)
    everything = EventDataset(events, torch.tensor([r.digit for r in recordings]))
    names = sorted({r.speaker for r in recordings})
    who = np.array([names.index(r.speaker) for r in recordings])
    tested = np.array([r.number in TEST_NUMBERS for r in recordings])
    if speaker is not None:
        tested = who == _index("speaker", speaker, names)
    pool = torch.from_numpy(np.flatnonzero(~tested))
    if validation_speaker is not None:
        if validation_speaker == speaker:
            raise ValueError(f"fsdd: validation_speaker: {speaker!r} is the test part already; choose another")
        chosen = torch.from_numpy(who[~tested] == _index("validation_speaker", validation_speaker, names))
        train, validation = pool[~chosen], pool[chosen]
        kind = validation_speaker
    else:
        groups = everything.labels[pool] * len(names) + torch.from_numpy(who)[pool]
        default = 1 / 9 if speaker is None else 1 / 10
        rest, part = stratified_split(groups, default if validation_fraction is None else validation_fraction, seed)
        train, validation, kind = pool[rest], pool[part], f"seed {seed}"
    test = torch.from_numpy(np.flatnonzero(tested))
    partial = f"; partial copy: {len(recordings)} of {COMPLETE} recordings" if len(recordings) != COMPLETE else ""
    return Splits(
        train=everything.select(train),
        validation=everything.select(validation),
        test=everything.select(test),
        name="fsdd",
        num_units=channels,
        num_classes=10,
        sensor_size=None,
        note=f"Free Spoken Digit Dataset (CC BY-SA 4.0), cochlea of {channels} channels: {len(train)} training, "
        f"{len(validation)} validation ({kind}), {len(test)} test ({speaker or 'numbers 0 to 4'}){partial}",
    )


def read_wav(content: bytes, where: str) -> np.ndarray:
    """The samples of a wav file of one channel, 16 bits and 8 kHz, ``(samples,)`` int16; ``where`` begins errors."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            announced, data = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{where}: truncated or not a wav file of plain samples ({error or 'it ends early'})"
        ) from error
    if found != (1, 16, RATE):
        raise ValueError(
            f"{where}: expected 1 channel, 16 bits, {RATE} Hz, got {found[0]} channel(s), {found[1]} bits, {found[2]} Hz; "
            "convert it first"
        )
    if announced == 0:
        raise ValueError(f"{where}: holds no samples; get it again, or delete it")
    if len(data) != 2 * announced:
        raise ValueError(f"{where}: truncated: {announced} samples announced, {len(data) // 2} there; get it again")
    return np.frombuffer(data, "<i2")


def _index(option: str, speaker: str, names: list[str]) -> int:
    if speaker not in names:
        raise ValueError(f"fsdd: {option}: nobody is called {speaker!r}; choose from {', '.join(names)}")
    return names.index(speaker)


def _find(root: Path) -> Path:
    path = find_file(root, FOLDERS, (*ARCHIVES, "recordings"))
    if path is None and next(root.glob("?_*_*.wav"), None) is not None:
        path = root
    if path is None:
        raise FileNotFoundError(
            f"fsdd: no {ARCHIVES[0]} and no folder recordings in {root} or {root / 'fsdd'}; pass root=<folder that holds it>"
        )
    return path


def _recordings(source: Path) -> Iterator[Recording]:
    some = False
    for name, content in _files(source):
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{source}, {name}: expected a name like 3_george_17.wav: digit, speaker, number")
        some = True
        yield Recording(int(match[1]), match[2], int(match[3]), read_wav(content, f"{source}, {name}"))
    if not some:
        raise FileNotFoundError(f"fsdd: no recordings digit_speaker_number.wav in {source}")


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wav files in a folder or an archive."""
    if source.is_dir():
        for path in sorted(source.glob("*.wav")):
            yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if name.endswith(".wav"):
                    yield name.rpartition("/")[2], archive.read(name)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{source}: truncated or not a zip archive ({error}); get it again") from error
