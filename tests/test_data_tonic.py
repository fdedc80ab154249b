"""Sets read through tonic, from tiny files written here in the formats of the sets."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from spoken_files import write_spikes
from torch.utils.data import DataLoader

from eventnet import Events, data
from eventnet.data import EventDataset, TonicDataset, collate

pytest.importorskip("tonic")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Caches of these tests go into their own folder."""
    monkeypatch.setenv("EVENTNET_CACHE", str(tmp_path / "cache"))


def some_events(seed, size=30, last=300_000, width=34, height=34):
    """x, y, p, t with t in microseconds, ascending."""
    random = np.random.RandomState(seed)
    t = np.sort(random.choice(last, size, replace=False))
    return random.randint(0, width, size), random.randint(0, height, size), random.randint(0, 2, size), t


def as_events(x, y, p, t, size=(34, 34, 2), duration=1.0) -> Events:
    units = (np.asarray(p) * size[1] + np.asarray(y)) * size[0] + np.asarray(x)
    return Events.from_list([(np.asarray(t) * 1e-6, units)], size[0] * size[1] * size[2], duration)


def assert_same(a: Events, b: Events):
    assert a.num_units == b.num_units and a.units.tolist() == b.units.tolist()
    torch.testing.assert_close(a.times, b.times, rtol=0, atol=1e-7)


# ---- N-MNIST ---------------------------------------------------------------------------------------------


def bin_bytes(x, y, p, t) -> bytes:
    """40 bits per event: x, y, p and t22..16, t15..8, t7..0."""
    rows = np.stack([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255], axis=1)
    return rows.astype(np.uint8).tobytes()


def write_nmnist(folder, classes=(0, 1, 2), train=4, test=2):
    """{(part, class, number): (x, y, p, t)}"""
    made = {}
    for part, count in (("Train", train), ("Test", test)):
        for label in classes:
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                made[part, label, i] = some_events(len(made))
                (folder / part / str(label) / f"{i:05}.bin").write_bytes(bin_bytes(*made[part, label, i]))
    return made


@pytest.mark.parametrize("place", [".", "NMNIST", "nmnist", "N-MNIST", "nmnist_few"])
def test_nmnist_is_found_and_packed(tmp_path, place):
    root = tmp_path / "data"
    made = write_nmnist(root / place)
    splits = data.load("nmnist", root)
    assert isinstance(splits.train, EventDataset)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (11, 1, 6)
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (2312, 3, (34, 34, 2))
    assert "partial copy: 12 of 60000 train, 6 of 10000 test; 3 of 10 classes" in splits.note
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for i, key in enumerate(k for k in made if k[0] == "Test"):
        assert_same(splits.test[i][0], as_events(*made[key]))
    assert torch.all(splits.test.events.duration == 0.34)


def test_nmnist_folder_itself_and_two_candidates(tmp_path):
    for name in ("nmnist_a", "nmnist_b"):
        write_nmnist(tmp_path / name)
    with pytest.raises(ValueError, match=r"several folders.*nmnist_a, nmnist_b; pass one of them"):
        data.load("nmnist", tmp_path)
    assert len(data.load("nmnist", tmp_path / "nmnist_b").test) == 6


def test_labels_of_a_partial_copy_count_from_zero(tmp_path):
    write_nmnist(tmp_path, classes=(9, 6))
    splits = data.load("nmnist", tmp_path, validation_fraction=0.25)
    assert splits.num_classes == 2 and "labels 0 = class 6, 1 = class 9" in splits.note
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert splits.train.labels.tolist() == [0] * 3 + [1] * 3 and splits.validation.labels.tolist() == [0, 1]
    for path in (tmp_path / "Test" / "6").iterdir():
        path.unlink()
    assert "no test sample of class 6" in data.load("nmnist", tmp_path).note


def test_split_follows_the_seed_and_keeps_the_test_part(tmp_path):
    write_nmnist(tmp_path, train=20)

    def rows(part):
        return {tuple(part[i][0].times.tolist()) for i in range(len(part))}

    a, b, c = (data.load("nmnist", tmp_path, seed=seed, validation_fraction=0.2) for seed in (0, 0, 1))
    assert rows(a.validation) == rows(b.validation) != rows(c.validation)
    assert not rows(a.train) & rows(a.validation) and len(rows(a.train) | rows(a.validation)) == 60
    assert rows(a.test) == rows(c.test) and not rows(a.test) & (rows(a.train) | rows(a.validation))


def test_truncated_bin(tmp_path):
    write_nmnist(tmp_path)
    path = tmp_path / "Train" / "1" / "00002.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"1.00002\.bin: truncated: 147 bytes"):
        data.load("nmnist", tmp_path)


def test_empty_recordings_and_overflow_marks(tmp_path):
    write_nmnist(tmp_path)
    (tmp_path / "Test" / "0" / "00000.bin").write_bytes(b"")
    x, y, p, t = (np.array(v) for v in ([1, 0, 2], [3, 240, 4], [0, 0, 1], [5, 0, 7]))
    (tmp_path / "Test" / "0" / "00001.bin").write_bytes(bin_bytes(x, y, p, t))
    splits = data.load("nmnist", tmp_path)
    assert "1 recordings without events" in splits.note
    assert splits.test[0][0].num_events == 0
    assert_same(splits.test[1][0], as_events([1, 2], [3, 4], [0, 1], [5, 7 + 2**13]))
    lazy = data.load("nmnist", tmp_path, in_memory=False)
    assert lazy.test[0][0].num_events == 0 and lazy.test[0][0].num_units == 2312


def test_missing_parts_are_clear_errors(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected Train/\*/\*\.bin.*download=True"):
        data.load("nmnist", root)
    write_nmnist(root, test=0)
    with pytest.raises(FileNotFoundError, match=r"no test part; expected Test/\*/\*\.bin"):
        data.load("nmnist", root)


def test_duration_crop_and_downsample(tmp_path):
    made = write_nmnist(tmp_path)
    x, y, p, t = made["Test", 0, 0]
    short = data.load("nmnist", tmp_path, duration=0.1).test
    kept = t < 100_000
    assert 0 < kept.sum() < 30 and torch.all(short.events.duration == 0.1)
    assert_same(short[0][0], as_events(x[kept], y[kept], p[kept], t[kept]))
    middle = data.load("nmnist", tmp_path, crop=(0.1, 0.2)).test
    kept = (t >= 100_000) & (t < 200_000)
    assert torch.all(middle.events.duration == 0.1)
    assert_same(middle[0][0], as_events(x[kept], y[kept], p[kept], t[kept] - 100_000))
    half = data.load("nmnist", tmp_path, downsample=0.5)
    assert half.sensor_size == (17, 17, 2) and half.num_units == 578
    assert_same(half.test[0][0], as_events(x // 2, y // 2, p, t, size=(17, 17, 2)))
    for options in (dict(duration=0.0), dict(crop=(0.2, 0.1)), dict(downsample=2.0), dict(cache="tape")):
        with pytest.raises(ValueError, match=next(iter(options))):
            data.load("nmnist", tmp_path, **options)


def test_drop_concerns_the_training_part_only(tmp_path):
    write_nmnist(tmp_path)
    for in_memory in (True, False):
        splits = data.load("nmnist", tmp_path, drop=0.5, in_memory=in_memory)
        torch.manual_seed(0)
        dropped = sum(splits.train[i][0].num_events for i in range(11))
        assert 100 < dropped < 230
        assert splits.test[0][0].num_events == splits.validation[0][0].num_events == 30


def test_options_of_tonics_class(tmp_path):
    made = write_nmnist(tmp_path)
    x, y, p, t = made["Test", 0, 0]
    first = data.load("nmnist", tmp_path, first_saccade_only=True).test[0][0]
    kept = t < 100_000
    assert_same(first, as_events(x[kept], y[kept], p[kept], t[kept]))
    for option in ("first_saccade", "train"):
        with pytest.raises(TypeError, match=f"unknown option '{option}'.*first_saccade_only"):
            data.load("nmnist", tmp_path, **{option: True})


def test_download_is_tonics_own_and_only_on_request(tmp_path, monkeypatch):
    import tonic

    asked = []

    def download(self):
        asked.append(self.train)
        write_nmnist(tmp_path / "new" / "NMNIST")

    monkeypatch.setattr(tonic.datasets.NMNIST, "download", download)
    with pytest.raises(FileNotFoundError):
        data.load("nmnist", tmp_path / "new")
    assert not asked
    assert len(data.load("nmnist", tmp_path / "new", download=True).test) == 6
    assert asked == [True, False]
    assert len(data.load("nmnist", tmp_path / "new", download=True).test) == 6
    assert asked == [True, False]  # what is there is used, though tonic would not find it complete


# ---- lazily read sets ------------------------------------------------------------------------------------


def assert_spikes(events: Events, spikes):
    times, units = spikes
    assert events.units.tolist() == units.tolist()
    expected = torch.from_numpy(times).to(torch.float32)  # tonic cuts to whole microseconds
    torch.testing.assert_close(events.times, expected, rtol=0, atol=1.1e-6)


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
@pytest.mark.parametrize("place", [".", "SHD", "hsd"])
def test_shd_samples_equal_the_file(tmp_path, cache, place):
    root = tmp_path / "data"
    made = {part: write_spikes(root / place / f"shd_{part}.h5") for part in ("train", "test")}
    splits = data.load("shd", root, cache=cache, validation_fraction=1 / 3)
    assert isinstance(splits.train, TonicDataset)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 2, 6)
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (700, 3, (700, 1, 1))
    assert splits.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for _ in range(2):  # the second time from the cache
        for i, spikes in enumerate(made["test"]):
            events, label = splits.test[i]
            assert_spikes(events, spikes)
            assert label == i % 3 and torch.all(events.duration == 1.4)
    assert splits.test[1][0].num_events == 0
    with pytest.raises(IndexError, match="no sample 6 among 6"):
        splits.test[6]
    cached = list((tmp_path / "cache").rglob("*.hdf5"))
    assert len(cached) == (6 if cache == "disk" else 0)
    assert "partial copy: 6 of 8156 train, 6 of 2264 test; 3 of 20 classes" in splits.note


def test_packing_equals_lazy_reading(tmp_path):
    for part in ("train", "test"):
        write_spikes(tmp_path / f"shd_{part}.h5")
    lazy = data.load("shd", tmp_path)
    packed = data.load("shd", tmp_path, in_memory=True)
    assert isinstance(packed.train, EventDataset) and "in memory" in packed.note
    for part in ("train", "validation", "test"):
        a, b = getattr(lazy, part), getattr(packed, part)
        assert torch.equal(a.labels, b.labels) and len(a) == len(b)
        if len(a):
            assert_same(collate([a[i] for i in range(len(a))])[0], b.events)
    nothing = data.load("shd", tmp_path, in_memory=True, validation_fraction=0.0).validation
    assert len(nothing) == 0 and nothing.events.num_units == 700


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_samples(tmp_path, method):
    for part in ("train", "test"):
        write_spikes(tmp_path / f"shd_{part}.h5", size=10)
    splits = data.load("shd", tmp_path, validation_fraction=0.0)
    options = dict(batch_size=4, collate_fn=collate)
    assert splits.train[0][0].num_events == 20  # opened in this process too
    parallel = list(DataLoader(splits.train, num_workers=2, multiprocessing_context=method, **options))
    plain = list(DataLoader(splits.train, **options))
    assert [len(labels) for _, labels in parallel] == [4, 4, 2]
    for (events, labels), (events_, labels_) in zip(plain, parallel, strict=True):
        assert_same(events, events_)
        assert torch.equal(events.offsets, events_.offsets) and torch.equal(labels, labels_)


def test_the_cache_follows_the_files_and_heals(tmp_path):
    for part in ("train", "test"):
        write_spikes(tmp_path / f"shd_{part}.h5")
    splits = data.load("shd", tmp_path, validation_fraction=0.0)
    before = splits.test[0][0]
    path = splits.test.source.cache_path / "0_0.hdf5"
    with h5py.File(path, "a") as file:
        del file["target"]  # as an interrupted run may leave it
    assert_same(splits.test[0][0], before)
    path.write_bytes(path.read_bytes()[:200])
    assert_same(splits.test[0][0], before)
    changed = write_spikes(tmp_path / "shd_test.h5", size=7)
    again = data.load("shd", tmp_path).test
    assert len(again) == 7 and again.source.cache_path != splits.test.source.cache_path
    assert_spikes(again[6][0], changed[6])


def test_ssc_has_its_own_validation_part(tmp_path):
    for part in ("train", "valid", "test"):
        write_spikes(tmp_path / f"ssc_{part}.h5", size=10)
    splits = data.load("ssc", tmp_path)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [10, 10, 10]
    assert "10 validation (official)" in splits.note
    with pytest.raises(ValueError, match="official validation part"):
        data.load("ssc", tmp_path, validation_fraction=0.1)
    (tmp_path / "ssc_valid.h5").unlink()
    splits = data.load("ssc", tmp_path)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [9, 1, 10]
    assert "no validation part" in splits.note and "10 of 75466 train" in splits.note


def test_a_damaged_hdf5_file_is_named(tmp_path):
    for part in ("train", "test"):
        write_spikes(tmp_path / f"shd_{part}.h5")
    path = tmp_path / "shd_test.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"test part, .*shd_test\.h5"):
        data.load("shd", tmp_path)


def write_gestures(root, samples=3, start=0):
    """Gestures as [n, 4] arrays x, y, p, t in milliseconds; {path: array}"""
    made = {}
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        for user in ("user01_fluorescent", "user02_led"):
            (root / part / user).mkdir(parents=True)
            for label in range(samples):
                x, y, p, t = some_events(len(made), last=5000, width=128, height=128)
                path = root / part / user / f"{label}.npy"
                made[str(path.relative_to(root))] = x, y, p, t
                np.save(path, np.stack([x, y, p, t + start], axis=1).astype(np.float64))
    return made


@pytest.mark.parametrize("start", [0, 70_000])
def test_dvsgesture(tmp_path, start):
    made = write_gestures(tmp_path / "DVSGesture", start=start)
    splits = data.load("dvsgesture", tmp_path, validation_fraction=0.5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (3, 3, 6)
    assert splits.sensor_size == (128, 128, 2) and splits.num_classes == 3
    assert splits.test.labels.tolist() == [0, 1, 2] * 2  # in the order of the files' names
    for i, key in enumerate(sorted(k for k in made if "Test" in k)):
        x, y, p, t = made[key]
        assert_same(splits.test[i][0], as_events(x, y, p, (t - t[0]) * 1000, size=(128, 128, 2)))
    assert "events up to 6 s after the first" in splits.note


def test_a_damaged_recording_is_named(tmp_path):
    write_gestures(tmp_path)
    path = tmp_path / "ibmGestureTest" / "user02_led" / "1.npy"
    path.write_bytes(path.read_bytes()[:300])
    splits = data.load("dvsgesture", tmp_path)
    assert splits.test[3][0].num_events == 30
    with pytest.raises(ValueError, match=r"user02_led.1\.npy cannot be read.*truncated or damaged"):
        splits.test[4]


# ---- archives --------------------------------------------------------------------------------------------


def write_poker(root, train=4, test=2):
    root.mkdir(parents=True)
    made = {}
    for part, count in (("train", train), ("test", test)):
        with tarfile.open(root / f"pips_{part}.tar.gz", "w:gz") as archive:
            for suit in ("sp", "cl", "he", "di"):
                for i in range(count):
                    x, y, p, t = made[part, suit, i] = some_events(len(made), last=20_000, width=35, height=35)
                    file = io.BytesIO()
                    np.save(file, np.stack([t, x, y, p], axis=1).astype(np.uint64))
                    info = tarfile.TarInfo(f"pips_{part}/{suit}/{i}.npy")
                    info.size = file.tell()
                    file.seek(0)
                    archive.addfile(info, file)
    return made


def test_pokerdvs_is_unpacked_into_the_cache_only(tmp_path):
    root = tmp_path / "data"
    made = write_poker(root / "poker_dvs")
    for path in (root / "poker_dvs", root):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    before = sorted(os.walk(root))
    try:
        splits = data.load("pokerdvs", root)
        unpacked = list((tmp_path / "cache" / "unpacked").iterdir())
        times = [path.stat().st_mtime_ns for path in unpacked]
        data.load("pokerdvs", root)
    finally:
        for path in (root, root / "poker_dvs"):
            path.chmod(stat.S_IRWXU)
    assert before == sorted(os.walk(root))
    assert len(unpacked) == 2 and [path.stat().st_mtime_ns for path in unpacked] == times
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 4, 8)
    assert torch.bincount(splits.validation.labels).tolist() == [1, 1, 1, 1]
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for i, (suit, number) in enumerate((s, n) for s in ("cl", "he", "di", "sp") for n in range(2)):
        assert_same(splits.test[i][0], as_events(*made["test", suit, number], size=(35, 35, 2)))


def test_a_truncated_archive_leaves_nothing_behind(tmp_path):
    write_poker(tmp_path / "data")
    path = tmp_path / "data" / "pips_test.tar.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"pips_test\.tar\.gz: cannot be unpacked"):
        data.load("pokerdvs", tmp_path / "data")
    assert [p.name.split("-")[0] for p in (tmp_path / "cache" / "unpacked").iterdir()] == ["pips_train"]


def test_nmnist_from_its_zip_files(tmp_path):
    write_nmnist(tmp_path / "plain")
    (tmp_path / "data").mkdir()
    for part in ("Train", "Test"):
        with zipfile.ZipFile(tmp_path / "data" / f"{part.lower()}.zip", "w") as archive:
            for path in (tmp_path / "plain" / part).rglob("*.bin"):
                archive.write(path, path.relative_to(tmp_path / "plain"))
    packed, plain = (data.load("nmnist", tmp_path / name).test for name in ("data", "plain"))
    assert_same(packed.events, plain.events)


def test_smnist_from_the_files_of_mnist(tmp_path):
    folder, random = tmp_path / "data" / "mnist", np.random.RandomState(0)
    folder.mkdir(parents=True)
    for stem, size in (("train", 20), ("t10k", 10)):
        images = random.randint(0, 256, (size, 28, 28)).astype(np.uint8)
        content = struct.pack(">4I", 2051, size, 28, 28) + images.tobytes()
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        content = struct.pack(">2I", 2049, size) + bytes(range(10)) * (size // 10)
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))
    splits = data.load("smnist", tmp_path / "data")
    assert (splits.num_units, splits.sensor_size, splits.num_classes) == (100, (100, 1, 1), 10)
    assert splits.test.labels.tolist() == list(range(10))
    events = splits.test[1][0]
    assert events.num_events > 0 and events.times.max() < 1.6
    assert data.load("smnist", tmp_path / "data", num_neurons=49).num_units == 50


# ---- other sets ------------------------------------------------------------------------------------------


def write_ntidigits(root):
    root.mkdir(parents=True, exist_ok=True)
    made = {}
    with h5py.File(root / "n-tidigits.hdf5", "w") as file:
        for part in ("train", "test"):
            ids = [f"man-ab-a-{digits}" for digits in ("o", "12", "1", "z")]
            file[f"{part}_labels"] = [i.encode() for i in ids]
            for k, i in enumerate(ids):
                x, _, _, t = some_events(k, last=2_000_000, width=64)
                made[part, i] = x, t
                file[f"{part}_addresses/{i}"], file[f"{part}_timestamps/{i}"] = x, t * 1e-6
    return made


def test_ntidigits_single_digits(tmp_path):
    made = write_ntidigits(tmp_path / "NTIDIGITS18")
    splits = data.load("ntidigits18", tmp_path, validation_fraction=0.0)
    assert splits.num_units == 64 and splits.num_classes == 3
    assert splits.test.labels.tolist() == [0, 1, 2] and "0 = class 0, 1 = class 1, 2 = class 10" in splits.note
    loader = DataLoader(splits.test, batch_size=3, num_workers=1, collate_fn=collate)
    events, _ = next(iter(loader))  # its HDF5 file is opened anew in the worker
    for i, digit in enumerate("o1z"):
        x, t = made["test", f"man-ab-a-{digit}"]
        assert events[i].units.tolist() == x.tolist()
        torch.testing.assert_close(events[i].times, torch.tensor(t * 1e-6).float(), rtol=0, atol=1.1e-6)


def test_ncaltech101_gets_a_fixed_test_part(tmp_path):
    for name in ("accordion", "zebra"):
        (tmp_path / "Caltech101" / name).mkdir(parents=True)
        for i in range(10):
            content = bin_bytes(*some_events(i, width=200, height=150))
            (tmp_path / "Caltech101" / name / f"image_{i:04}.bin").write_bytes(content)
    splits = data.load("ncaltech101", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (14, 2, 4)
    assert splits.sensor_size == (240, 180, 2) and "a fixed fifth" in splits.note
    assert splits.test.labels.tolist() == [0, 0, 1, 1] and splits.test[0][0].num_events == 30
    other = data.load("ncaltech101", tmp_path, seed=5)
    assert torch.equal(other.test.positions, splits.test.positions)
    assert not set(splits.test.positions.tolist()) & set(splits.train.positions.tolist())


def test_asldvs(tmp_path):
    for letter in "ab":
        (tmp_path / letter).mkdir()
        for i in range(5):
            x, y, p, t = some_events(i, last=90_000, width=240, height=180)
            columns = dict(ts=t[:, None] + 1000, x=x[:, None], y=y[:, None], pol=p[:, None])
            scipy.io.savemat(tmp_path / letter / f"{letter}_{i:04}.mat", columns)
    splits = data.load("asldvs", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (7, 1, 2)
    i = int(splits.test.positions[0])
    x, y, p, t = some_events(i, last=90_000, width=240, height=180)
    expected = as_events(x, 179 - y, p, t - t[0], size=(240, 180, 2))  # tonic turns the picture upright
    assert_same(splits.test[0][0], expected)


def test_dvslip(tmp_path):
    made = {}
    dtype = [("t", np.int32), ("x", np.int16), ("y", np.int16), ("p", np.int8)]
    for part in ("train", "test"):
        for word in ("accused", "young"):
            (tmp_path / "DVS-Lip" / part / word).mkdir(parents=True)
            for i in range(2):
                x, y, p, t = made[part, word, i] = some_events(len(made), width=128, height=128)
                array = np.array(list(zip(t, x, y, p, strict=True)), dtype=dtype)
                np.save(tmp_path / "DVS-Lip" / part / word / f"{i}.npy", array)
    splits = data.load("dvslip", tmp_path)
    assert splits.num_classes == 2 and "labels 0 = class 0, 1 = class 99" in splits.note
    x, y, p, t = made["test", "young", 0]
    assert_same(splits.test[2][0], as_events(x, y, p, t - t[0], size=(128, 128, 2)))


def test_a_missing_reader_package_is_named(tmp_path):
    if __import__("importlib").util.find_spec("aedat"):
        pytest.skip("the package aedat is installed")
    for name in ("airplane", "truck"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.aedat4").write_bytes(gzip.compress(b""))
    splits = data.load("cifar10dvs", tmp_path)
    with pytest.raises(ImportError, match="needs the package aedat"):
        splits.test[0]
