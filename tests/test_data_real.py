"""The recordings themselves, where the environment variable EVENTNET_DATA names a folder that holds them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eventnet import Events, data
from eventnet.data import collate, yinyang

if "EVENTNET_DATA" not in os.environ:
    pytest.skip("EVENTNET_DATA is not set", allow_module_level=True)
ROOT = Path(os.environ["EVENTNET_DATA"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENTNET_CACHE", str(tmp_path / "cache"))


def load(name, *folders, **options):
    """The set, or a skipped test where the folder is not there."""
    if not all((ROOT / folder).is_dir() for folder in folders):
        pytest.skip(f"EVENTNET_DATA has no {', '.join(folders)}")
    return data.load(name, **options)


def check(splits, sizes, units, classes, in_memory=True):
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == sizes
    assert (splits.num_units, splits.num_classes) == (units, classes)
    for part in parts:
        if in_memory:
            e = part.events
            Events(e.times, e.units, e.offsets, e.num_units, e.duration)  # runs its checks
            assert torch.all(e.times < e.duration[e.samples])
        labels = part.labels
        assert labels.min() == 0 and labels.max() == classes - 1


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_yinyang_equals_the_published_files(part):
    if not (ROOT / "yin_yang").is_dir():
        pytest.skip("EVENTNET_DATA has no yin_yang")
    samples, labels = yinyang.points(*yinyang.PARTS[part])
    np.testing.assert_array_equal(labels, np.load(ROOT / "yin_yang" / f"{part}_labels.npy"))
    published = np.load(ROOT / "yin_yang" / f"{part}_samples.npy")
    np.testing.assert_allclose(samples, published, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("name", "total"), [("mnist", 10_478_647), ("fashion_mnist", 26_787_143)])
def test_images(name, total):
    splits = load(name, name)
    check(splits, [55000, 5000, 10000], 784, 10)
    parts = (splits.train, splits.validation, splits.test)
    assert sum(part.events.num_events for part in parts) == total
    assert "partial" not in splits.note
    per_class = {
        "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        "fashion_mnist": [1000] * 10,
    }
    assert torch.bincount(splits.test.labels).tolist() == per_class[name]


@pytest.mark.parametrize(
    ("name", "sizes", "classes", "total"),
    [("objects", [504, 72, 144], 36, 1_794_232), ("containers", [200, 40, 60], 20, 769_323)],
)
def test_tactile(name, sizes, classes, total):
    splits = load(name, "tactile")
    check(splits, sizes, 78, classes)
    assert sum(part.events.num_events for part in (splits.train, splits.validation, splits.test)) == total
    assert torch.bincount(splits.validation.labels).tolist() == [2] * classes
    assert "partial" not in splits.note


def test_ecg():
    splits = load("ecg", "ecg_qtdb", unlabelled=0)
    check(splits, [525, 93, 141], 4, 6)
    assert splits.test.labels.shape == (141, 1301) and splits.test.events.num_events == 57_897
    assert "partial" not in splits.note


@pytest.mark.parametrize(
    ("folder", "sizes", "classes", "total"),
    [("nmnist_1k", [900, 100, 100], 10, 4_518_827), ("nmnist_6to9", [2520, 280, 400], 4, 13_313_987)],
)
def test_nmnist(folder, sizes, classes, total):
    splits = load("nmnist", folder, root=ROOT / folder)
    check(splits, sizes, 2312, classes)
    assert sum(part.events.num_events for part in (splits.train, splits.validation, splits.test)) == total
    assert f"partial copy: {sizes[0] + sizes[1]} of 60000 train, {sizes[2]} of 10000 test" in splits.note
    assert ("labels 0 = class 6" in splits.note) == (classes == 4)


def test_nmnist_is_not_guessed_between_two_copies():
    if not all((ROOT / folder).is_dir() for folder in ("nmnist_1k", "nmnist_6to9")):
        pytest.skip("EVENTNET_DATA has not both nmnist_1k and nmnist_6to9")
    with pytest.raises(ValueError, match="nmnist_1k, nmnist_6to9"):
        data.load("nmnist")


def test_nmnist_in_workers_through_the_disk_cache():
    packed = load("nmnist", "nmnist_1k", root=ROOT / "nmnist_1k").test
    lazy = data.load("nmnist", ROOT / "nmnist_1k", in_memory=False).test
    for _ in range(2):  # written, then read
        batches = list(DataLoader(lazy, batch_size=32, num_workers=2, collate_fn=collate))
        events, labels = Events.cat(e for e, _ in batches), torch.cat([y for _, y in batches])
        assert torch.equal(events.times, packed.events.times) and torch.equal(labels, packed.labels)
        assert torch.equal(events.units, packed.events.units)
    assert len(list(lazy.source.cache_path.glob("*.hdf5"))) == 100


def test_pokerdvs():
    splits = load("pokerdvs", "poker_dvs")
    check(splits, [36, 12, 20], 2450, 4)
    assert torch.bincount(splits.test.labels).tolist() == [5] * 4 and splits.test.events.num_events == 63_847
    assert "partial" not in splits.note


def test_smnist():
    splits = load("smnist", "mnist", cache="none")
    check(splits, [54000, 6000, 10000], 100, 10, in_memory=False)
    events, labels = splits.test.__getitems__([0, 1, 9999])
    assert labels.tolist() == [7, 2, 6] and events.units.max() < 100 and events.times.max() < 1.6


@pytest.mark.parametrize(("speaker", "sizes"), [(None, [2400, 300, 300]), ("george", [2250, 250, 500])])
def test_fsdd(speaker, sizes):
    splits = load("fsdd", "fsdd", speaker=speaker)
    check(splits, sizes, 700, 10)
    parts = (splits.train, splits.validation, splits.test)
    assert 2000 < sum(part.events.num_events for part in parts) / 3000 < 5000
    assert min(int(part.events.lengths.min()) for part in parts) > 100
    assert all(len(torch.bincount(part.labels).unique()) == 1 for part in parts)
    assert "partial" not in splits.note
