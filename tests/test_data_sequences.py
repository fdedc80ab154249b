"""Data sets of gated recipes: lines of images, text, time series; on small files in each set's own format."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from eventnet import data
from eventnet.data.ucr import read_ts

HEADER = "# a comment\n@problemName JapaneseVowels\n@univariate false\n@classLabel true 1 2\n@data\n"
SERIES = ["1.5,0.0,-2.0:0.5,0.25,1:1", "3,4:0.1,0.2:2", "1,1,1,1:2,2,2,2:1", "5,6:7,8:2"]


def write_images(folder, images: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for part, pixels in images.items():
        head = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
        labels = (np.arange(len(pixels)) % 10).astype(np.uint8)
        head = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))


def write_series(folder, train: str, test: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "JapaneseVowels_TRAIN.ts").write_text(train)
    (folder / "JapaneseVowels_TEST.ts").write_text(test)


@pytest.mark.parametrize("name, units", [("row_mnist", 28), ("pixel_mnist", 1)])
def test_images_line_by_line_are_the_images(tmp_path, name, units):
    generator = np.random.default_rng(0)
    pixels = {part: generator.integers(0, 256, (n, 28, 28), np.uint8) for part, n in (("train", 40), ("t10k", 20))}
    pixels["t10k"][3] = 0  # an image without an event
    write_images(tmp_path / "mnist", pixels)
    splits = data.load(name, tmp_path, validation_fraction=0.25)
    assert (splits.num_units, splits.num_classes, len(splits.validation)) == (units, 10, 10)
    events = splits.test.events
    dense = events.to_dense(1e-3)
    assert dense.shape == (784 // units, 20, units) and (events.num_steps(1e-3) == 784 // units).all()
    expected = torch.from_numpy(pixels["t10k"].astype(np.float32) / 255).reshape(20, -1, units)
    torch.testing.assert_close(dense.transpose(0, 1), expected, rtol=0, atol=0)
    assert splits.test.labels.tolist() == [k % 10 for k in range(20)]


def test_text_in_pieces_with_the_next_character_as_label(tmp_path):
    text = "abcab\nca" * 40
    (tmp_path / "input.txt").write_text(text)
    splits = data.load("characters", tmp_path, length=8)
    assert splits.num_units == splits.num_classes == 4
    alphabet, start = sorted(set(text)), {"train": 0, "validation": 256, "test": 288}
    for part, first in start.items():
        dataset = getattr(splits, part)
        read = dataset.events.to_dense(1e-3).argmax(2).t()
        assert dataset.events.counts().sum() == read.numel()
        said, following = ("".join(alphabet[k] for k in codes.flatten()) for codes in (read, dataset.labels))
        assert said == text[first : first + len(said)] and following == text[first + 1 : first + 1 + len(said)]
    ends = [first + getattr(splits, part).labels.numel() for part, first in start.items()]
    assert ends[0] < start["validation"] and ends[1] < start["test"] and ends[2] < len(text)


def test_text_that_is_too_short_or_no_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tinyshakespeare\.txt or input\.txt"):
        data.load("characters", tmp_path)
    (tmp_path / "input.txt").write_text("too short")
    with pytest.raises(ValueError, match="give a longer text or a smaller length"):
        data.load("characters", tmp_path)
    for options, error in (
        ({"length": 0}, "length must be a whole number of characters >= 1, got 0"),
        ({"length": 8.5}, "length must be a whole number"),
        ({"validation_fraction": 1.5}, "validation_fraction must be a share"),
    ):
        with pytest.raises(ValueError, match=error):
            data.load("characters", tmp_path, **options)
    (tmp_path / "input.txt").write_bytes(b"\xff\xfe" * 500)
    with pytest.raises(ValueError, match="not text in UTF-8"):
        data.load("characters", tmp_path)


def test_series_of_different_lengths(tmp_path):
    write_series(tmp_path / "ucr", HEADER + "\n".join(SERIES), HEADER + "\n".join(SERIES[:2]))
    splits = data.load("vowels", tmp_path, validation_fraction=0.5)
    assert (splits.num_units, splits.num_classes) == (2, 2)
    events = splits.test.events
    assert events.num_steps(1e-3).tolist() == [3, 2] and splits.test.labels.tolist() == [0, 1]
    expected = torch.tensor([[[1.5, 0.5], [0.0, 0.25], [-2.0, 1.0]], [[3.0, 0.1], [4.0, 0.2], [0.0, 0.0]]])
    torch.testing.assert_close(events.to_dense(1e-3).transpose(0, 1), expected)


@pytest.mark.parametrize(
    "content, error",
    [
        ("", "no line @data"),
        ("@data\n1:2:1", "@classLabel"),
        (HEADER, "has no series"),
        (HEADER + "1,2:3:1", "equally long channels"),
        (HEADER + SERIES[0] + "\n1,2:1", "as many as in the first series"),
        (HEADER + "1,2:3,4:9", "series 1 is damaged"),
        (HEADER + SERIES[0] + "\n1,2:3,", "series 2 is damaged"),
        (HEADER + "1,x:3,4:1", "series 1 is damaged"),
        (HEADER + "1,nan:3,4:1", "not finite"),
    ],
)
def test_damaged_series_are_named(tmp_path, content, error):
    path = tmp_path / "a.ts"
    path.write_text(content)
    with pytest.raises(ValueError, match=error):
        read_ts(path)


def test_series_files_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no JapaneseVowels_TRAIN\.ts"):
        data.load("vowels", tmp_path)
    write_series(tmp_path, HEADER + SERIES[0], HEADER.replace("1 2", "1 2 3") + SERIES[0])
    with pytest.raises(ValueError, match="are not those of the training file"):
        data.load("vowels", tmp_path)
    write_series(tmp_path, HEADER + SERIES[0], HEADER + "1:1:1:1")
    with pytest.raises(ValueError, match="differ in their channels"):
        data.load("vowels", tmp_path)
