"""Tactile and ECG recordings from files written here in the formats of the sets."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io
import torch

from eventnet import data
from eventnet.data.ecg import STEP
from eventnet.data.tactile import BIN

# ---- tactile ----------------------------------------------------------------------------------------------


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tactile_files(bins=250, train=12, test=4, classes=4):
    """{name in the set: content} and {part: arrays in the order of their numbers}."""
    random, files, arrays = np.random.RandomState(0), {}, {}
    for part, size in (("train", train), ("test", test)):
        arrays[part] = (random.rand(size, 39, 2, bins) < 0.02).astype(np.float32)
        arrays[part][0] = 0  # nothing touched
        for i, array in enumerate(arrays[part]):
            files[f"{part}/sample_{i}_label_{i % classes}.npy"] = npy(array)
    return files, arrays


def write_zip(path, stem, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}/", b"")
        for name in sorted(files):  # 0, 1, 10, 11, 2, ... as in the published archives
            archive.writestr(f"{stem}/{name}", files[name])


@pytest.mark.parametrize(
    ("name", "stem", "bins"), [("objects", "Ev-Objects", 250), ("containers", "Ev-Containers", 325)]
)
@pytest.mark.parametrize("place", ["zip", "zip below", "folder", "folder itself"])
def test_tactile_layouts(tmp_path, name, stem, bins, place):
    files, arrays = tactile_files(bins)
    root = tmp_path
    if place.startswith("zip"):
        write_zip(tmp_path / ("tactile" if "below" in place else "") / f"{stem}.zip", stem, files)
    else:
        for file, content in files.items():
            (tmp_path / stem / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / stem / file).write_bytes(content)
        root = tmp_path / stem if "itself" in place else tmp_path
    splits = data.load(name, root, validation_fraction=1 / 3)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 4, 4)
    assert splits.num_units == 78 and splits.sensor_size == (39, 1, 2)
    assert splits.num_classes == (36 if name == "objects" else 20)
    assert "12 of" in splits.note and "4 of" in splits.note
    assert splits.test.labels.tolist() == [0, 1, 2, 3]
    dense = splits.test.events.to_dense(BIN)  # (bins, B, 78)
    expected = torch.from_numpy(arrays["test"]).permute(3, 0, 2, 1).flatten(2)
    assert torch.equal(dense, expected) and splits.test.events.lengths[0] == 0
    assert torch.all(splits.test.events.duration == torch.tensor(bins * BIN))


def test_tactile_split_and_duration(tmp_path):
    files, _ = tactile_files()
    write_zip(tmp_path / "Ev-Objects.zip", "Ev-Objects", files)

    def rows(dataset):
        return {tuple(dataset[i][0].times.tolist()) for i in range(len(dataset))}

    a, b, c = (data.load("objects", tmp_path, seed=seed, validation_fraction=0.5) for seed in (0, 0, 1))
    assert rows(a.validation) == rows(b.validation) != rows(c.validation)
    assert not rows(a.validation) & rows(a.train) and len(rows(a.validation) | rows(a.train)) == 12
    short = data.load("objects", tmp_path, duration=1.0)
    assert torch.all(short.test.events.duration == 1) and short.test.events.times.max() < 1
    with pytest.raises(ValueError, match="positive number of seconds"):
        data.load("objects", tmp_path, duration=0.0)


def test_tactile_damaged(tmp_path):
    files, _ = tactile_files()
    path = tmp_path / "Ev-Objects.zip"
    for name, content, message in [
        ("sample_0_label_36.npy", npy(np.zeros((39, 2, 250))), "label 36; expected 0 to 35"),
        ("sample_0_label_0.npy", npy(np.zeros((39, 2, 325))), r"shape \(39, 2, 325\)"),
        ("sample_0_label_0.npy", npy(np.full((39, 2, 250), 3.0)), "zeros and ones.*to 3.0"),
        ("sample_0_label_0.npy", npy(np.zeros((39, 2, 250)))[:-8], "truncated"),
    ]:
        write_zip(path, "Ev-Objects", {**files, f"train/{name}": content})
        with pytest.raises(ValueError, match=message):
            data.load("objects", tmp_path)
    write_zip(path, "Ev-Objects", {f: c for f, c in files.items() if f.startswith("train")})
    with pytest.raises(FileNotFoundError, match="test/sample"):
        data.load("objects", tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"Ev-Objects.zip: truncated"):
        data.load("objects", tmp_path)


# ---- ecg --------------------------------------------------------------------------------------------------


def write_ecg(folder, sizes=(20, 6), steps=30):
    folder.mkdir(parents=True, exist_ok=True)
    random, made = np.random.RandomState(0), {}
    for part, size in zip(("train", "test"), sizes, strict=True):
        x = (random.rand(size, steps, 4) < 0.1).astype(np.int16)
        x[0] = 0
        x[:, -1] = [-1, 0, 0, 0]
        waves = random.randint(0, 6, (size, steps))
        y = np.eye(6, dtype=np.uint8)[waves]
        y[:, 3:5] = 0  # steps without a mark
        made[part] = x, waves
        scipy.io.savemat(folder / f"QTDB_{part}.mat", {"x": x, "y": y, "max_i": np.full((size, 1), steps)})
    return made


@pytest.mark.parametrize("folder", ["ecg_qtdb", "."])
def test_ecg(tmp_path, folder):
    made = write_ecg(tmp_path / folder)
    splits = data.load("ecg", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (17, 3, 6)
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (4, 6, None)
    assert "20 of 618 training, 6 of 141 test" in splits.note
    x, waves = made["test"]
    dense = splits.test.events.to_dense(STEP)
    assert torch.equal(dense, torch.from_numpy((x > 0).astype(np.float32)).transpose(0, 1))
    assert torch.allclose(splits.test.events.duration, torch.tensor(30 * STEP))
    marked = np.ones(30, bool)
    marked[3:5] = False
    assert np.array_equal(splits.test.labels[:, marked], waves[:, marked])
    assert (splits.test.labels[:, ~marked] == 0).all() and splits.test.events.lengths[0] == 0
    ignored = data.load("ecg", tmp_path, unlabelled=-100)
    assert (ignored.test.labels[:, ~marked] == -100).all()
    assert torch.equal(ignored.validation.events.times, splits.validation.events.times)
    assert not torch.equal(data.load("ecg", tmp_path, seed=1).validation.events.times, splits.validation.events.times)


def test_ecg_damaged(tmp_path):
    write_ecg(tmp_path)
    path = tmp_path / "QTDB_train.mat"
    good = scipy.io.loadmat(path)
    for x, y, message in [
        (good["x"][..., :3], good["y"], r"x \(N, T, 4\)"),
        (good["x"], good["y"][:, 1:], r"y \(N, T, 6\)"),
        (-good["x"], good["y"], "x of 0 and 1"),
        (2 * good["x"], good["y"], "x of 0 and 1"),
    ]:
        scipy.io.savemat(path, {"x": x, "y": y})
        with pytest.raises(ValueError, match=f"QTDB_train.mat: .*{message}"):
            data.load("ecg", tmp_path)
    scipy.io.savemat(path, {"z": [1]})
    with pytest.raises(ValueError, match="expected the variables x and y"):
        data.load("ecg", tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"QTDB_train.mat: truncated"):
        data.load("ecg", tmp_path)
    (tmp_path / "QTDB_test.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"QTDB_test\.mat"):
        data.load("ecg", tmp_path)
