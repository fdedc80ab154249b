"""MNIST and Fashion-MNIST from idx files written here."""

import gzip
import struct

import numpy as np
import pytest
import torch

from eventnet import data
from eventnet.data.idx import pixel_latencies, read_idx

STEMS = {"train": "train", "test": "t10k"}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder, sizes=(40, 10), packed=True, seed=0):
    """The four files of a tiny MNIST; returns the images and labels of both parts."""
    folder.mkdir(parents=True, exist_ok=True)
    random, made = np.random.RandomState(seed), {}
    for (part, stem), size in zip(STEMS.items(), sizes, strict=True):
        images = random.randint(0, 256, (size, 28, 28)) * (random.rand(size, 28, 28) < 0.2)
        images[0] = 0  # an empty image
        labels = np.arange(size) % 10
        made[part] = images, labels
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx_bytes(array)
            path = folder / f"{stem}-{kind}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return made


@pytest.mark.parametrize(
    ("name", "folder", "packed"),
    [
        ("mnist", "mnist", True),
        ("mnist", "MNIST/raw", False),
        ("mnist", ".", True),
        ("fashion_mnist", "fashion_mnist", True),
        ("fashion_mnist", "FashionMNIST/raw", False),
    ],
)
def test_layouts(tmp_path, name, folder, packed):
    made = write(tmp_path / folder, packed=packed)
    splits = data.load(name, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (37, 3, 10)
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (784, 10, (28, 28, 1))
    assert "40 of 60000 training, 10 of 10000 test" in splits.note
    images, labels = made["test"]
    assert splits.test.labels.tolist() == labels.tolist()
    pixels = torch.from_numpy(images.reshape(10, 784))
    expected = torch.where(pixels > 1, (1 - pixels / 255) * 0.02, torch.inf)
    torch.testing.assert_close(splits.test.events.first_times(), expected.to(torch.float32))
    assert splits.test.events.lengths.tolist() == (pixels > 1).sum(1).tolist()
    assert splits.test.events.lengths[0] == 0


def test_the_two_sets_are_not_mixed_up(tmp_path):
    write(tmp_path / "mnist", seed=1)
    write(tmp_path / "fashion_mnist", seed=2)
    first, second = data.load("mnist", tmp_path).test, data.load("fashion-mnist", tmp_path).test
    assert first.events.num_events != second.events.num_events


def test_split_is_disjoint_complete_and_follows_the_seed(tmp_path):
    write(tmp_path, sizes=(60, 10))

    def parts(seed):
        splits = data.load("mnist", tmp_path, seed=seed, validation_fraction=1 / 6)
        return [set(map(tuple, d.events.first_times().tolist())) for d in (splits.train, splits.validation)]

    train, validation = parts(0)
    assert not train & validation and parts(0)[1] == validation != parts(1)[1]
    labels = data.load("mnist", tmp_path, validation_fraction=1 / 6).validation.labels
    assert torch.bincount(labels).tolist() == [1] * 10


def test_latencies_of_single_pixels():
    images = np.zeros((3, 1, 4), np.uint8)
    images[0, 0] = [255, 0, 1, 51]
    images[2, 0] = [2, 2, 200, 255]
    events = pixel_latencies(images, t_max=0.01, duration=0.02)
    assert events.offsets.tolist() == [0, 2, 2, 6]
    assert events.units.tolist() == [0, 3, 3, 2, 0, 1]
    expected = [0.0, 0.008, 0.0, 0.01 * 55 / 255, 0.01 * 253 / 255, 0.01 * 253 / 255]
    torch.testing.assert_close(events.times, torch.tensor(expected))


def test_durations(tmp_path):
    write(tmp_path)
    splits = data.load("mnist", tmp_path, t_max=0.1, duration=0.3)
    assert torch.all(splits.train.events.duration == 0.3) and splits.train.events.times.max() > 0.05


@pytest.mark.parametrize("packed", [True, False])
def test_truncated_file(tmp_path, packed):
    write(tmp_path, packed=packed)
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.*truncated"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"<html>not found</html>", b"\x00\x00\x0d\x01\x00\x00\x00\x00"])
def test_wrong_magic(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an idx file of bytes"):
        read_idx(path)
    packed = tmp_path / "file.gz"
    packed.write_bytes(b"\x00" + content)
    with pytest.raises(ValueError, match="not a gzip file"):
        read_idx(packed)


def test_bytes_after_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(np.zeros((2, 3))) + b"\x00")
    with pytest.raises(ValueError, match="2 x 3 = 6 bytes, but 7 follow"):
        read_idx(path)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((40, 14, 14)), r"shape \(N, 28, 28\)"),
        ("train-images-idx3-ubyte", np.zeros(40), r"shape \(N, 28, 28\)"),
        ("train-labels-idx1-ubyte", np.zeros(39), "expected 40 labels"),
        ("t10k-labels-idx1-ubyte", np.full(10, 26), "label 26; expected classes 0 to 9"),
    ],
)
def test_foreign_files(tmp_path, file, array, message):
    write(tmp_path, packed=False)
    (tmp_path / file).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=f"{file}: .*{message}"):
        data.load("mnist", tmp_path)


def test_missing_file(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)
