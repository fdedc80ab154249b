"""Data sets: packing, batching, splitting, and the sets that need no files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

from eventnet import Events, data
from eventnet.data import Drop, EventDataset, collate, stratified_split, yinyang

SAMPLES = [([0.001, 0.004], [2, 0]), ([], []), ([0.002], [1]), ([0.0, 0.0, 0.009], [0, 1, 2])]


def small(labels=(0, 1, 1, 2), **options) -> EventDataset:
    events = Events.from_list(SAMPLES, num_units=3, duration=[0.01, 0.02, 0.03, 0.04])
    return EventDataset(events, torch.tensor(labels), **options)


def same(a: Events, b: Events) -> bool:
    fields = ("times", "units", "offsets", "duration")
    return a.num_units == b.num_units and all(torch.equal(getattr(a, f), getattr(b, f)) for f in fields)


# ---- EventDataset and collate -----------------------------------------------------------------------------


def test_one_sample_many_samples_and_select_agree():
    dataset = small()
    assert len(dataset) == 4
    batch, labels = dataset.__getitems__([3, 1, 0])
    assert labels.tolist() == [2, 1, 0]
    assert same(batch, Events.cat(dataset[i][0] for i in (3, 1, 0)))
    assert same(dataset.select([3, 1, 0]).events, batch)
    assert dataset[1][0].num_events == 0 and dataset[-1][1] == 2


def test_collate_gives_the_same_batch_from_every_kind_of_input():
    dataset = small()
    ready = dataset.__getitems__([0, 1, 2])
    listed = collate([dataset[i] for i in (0, 1, 2)])
    assert collate(ready)[0] is ready[0]
    assert same(listed[0], ready[0]) and torch.equal(listed[1], ready[1])
    one, label = collate(dataset[2])
    assert one.batch_size == 1 and label.tolist() == [1]
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_labels_per_step():
    dataset = small(labels=[[0, 1, 2, 3, 4]] * 4)
    assert collate([dataset[0], dataset[1]])[1].shape == (2, 5)
    assert collate(dataset.__getitems__([2]))[1].shape == (1, 5)
    assert collate(dataset[2])[1].shape == (1, 5)


@pytest.mark.parametrize("labels", [(0, 1), [[[0]]] * 4])
def test_labels_of_a_wrong_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels of shape \(B,\) or \(B, T\) for B = 4"):
        small(labels=labels)


def test_labels_must_be_integers():
    with pytest.raises(TypeError, match="integers"):
        small(labels=(0.0, 1.0, 1.0, 2.0))


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, [0, 1, 2, 3]), lambda d: ConcatDataset([d])])
def test_loader_batches(wrap):
    dataset = small()
    batches = list(DataLoader(wrap(dataset), batch_size=3, collate_fn=collate))
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 1], [2]]
    assert same(Events.cat(events for events, _ in batches), dataset.events)


def test_loader_without_batching_and_random_split():
    dataset = small()
    alone = list(DataLoader(dataset, batch_size=None, collate_fn=collate))
    assert [labels.tolist() for _, labels in alone] == [[0], [1], [1], [2]]
    first, second = random_split(dataset, [3, 1], torch.Generator().manual_seed(0))
    assert len(collate(first.__getitems__([0, 1, 2]))[1]) == 3 and len(second) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches_as_none(method):
    dataset = small()
    options = dict(batch_size=2, collate_fn=collate)
    plain = list(DataLoader(dataset, **options))
    parallel = list(DataLoader(dataset, num_workers=2, multiprocessing_context=method, **options))
    for (events, labels), (events_, labels_) in zip(plain, parallel, strict=True):
        assert same(events, events_) and torch.equal(labels, labels_)


def test_drop_leaves_events_out_anew_and_evenly():
    events = Events(
        torch.linspace(0, 1, 20000), torch.zeros(20000, dtype=torch.int32), torch.tensor([0, 20000]), 1, 1.0
    )
    dataset = EventDataset(events, torch.tensor([0]), transform=Drop(0.25))
    torch.manual_seed(0)
    kept = [dataset[0][0].num_events for _ in range(2)]
    assert kept[0] != kept[1] and all(abs(k / 20000 - 0.75) < 0.02 for k in kept)
    assert same(Drop(0.0)(events), events)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Drop(1.0)


# ---- splitting --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=200), st.floats(0, 0.99), st.integers(0, 2**32 - 1))
def test_split_is_a_stratified_partition(labels, fraction, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    rest, part = stratified_split(labels, fraction, seed)
    assert sorted(rest.tolist() + part.tolist()) == list(range(len(labels)))
    assert rest.tolist() == sorted(rest.tolist()) and part.tolist() == sorted(part.tolist())
    again = stratified_split(labels, fraction, seed)
    assert torch.equal(rest, again[0]) and torch.equal(part, again[1])
    kept = torch.zeros(6)
    for label in labels.unique().tolist():
        size = int((labels == label).sum())
        taken = int((labels[part] == label).sum())
        kept[label] = size - taken
        assert taken < size and abs(taken - size * fraction) <= 1 + 1e-6
    if (kept[labels.unique()] > 1).all():  # no class was at its limit
        assert len(part) == round(fraction * len(labels))


def test_split_depends_on_the_seed():
    labels = torch.arange(100) % 4
    parts = {tuple(stratified_split(labels, 0.2, seed)[1].tolist()) for seed in range(5)}
    assert len(parts) == 5


def test_split_of_labels_per_step_is_a_plain_draw():
    rest, part = stratified_split(torch.zeros(40, 7, dtype=torch.int64), 0.25, 0)
    assert len(rest) == 30 and len(part) == 10


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_split_refuses_a_bad_fraction(fraction):
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\)"):
        stratified_split(torch.zeros(3, dtype=torch.int64), fraction, 0)


# ---- load and names ---------------------------------------------------------------------------------------


def test_names_cover_the_sets():
    assert {"yinyang", "digits", "mnist", "fashion_mnist", "objects", "containers", "ecg"} <= set(data.names())
    assert {"nmnist", "pokerdvs", "dvsgesture", "shd", "ssc"} <= set(data.names())


@pytest.mark.parametrize(("typo", "meant"), [("yingyang", "yinyang"), ("n-mist", "nmnist"), ("digit", "digits")])
def test_unknown_name_suggests_the_nearest(typo, meant):
    with pytest.raises(ValueError, match=rf"unknown data set '{typo}'. Did you mean '{meant}'\?"):
        data.load(typo)


def test_names_are_found_in_other_spellings():
    assert data.load("Yin-Yang").name == "yinyang"


def test_a_set_without_classes_says_why():
    with pytest.raises(ValueError, match="disparity and optical flow"):
        data.load("DSEC")


def test_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"unknown option 'durations'; did you mean 'duration'\?"):
        data.load("digits", durations=1.0)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "objects", "containers", "ecg", "fsdd", "nmnist", "shd"])
def test_missing_root_is_a_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.delenv("EVENTNET_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"pass root=.*EVENTNET_DATA"):
        data.load(name)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        data.load(name, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"^{name}: no "):
        data.load(name, tmp_path)


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENTNET_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        data.load("mnist")


# ---- Yin-Yang ---------------------------------------------------------------------------------------------


def test_yinyang_is_the_published_set():
    splits = data.load("yinyang")
    counts = [torch.bincount(part.labels).tolist() for part in (splits.train, splits.validation, splits.test)]
    assert counts == [[1681, 1702, 1617], [316, 336, 348], [350, 316, 334]]
    samples, _ = yinyang.points(seed=42, size=1)
    np.testing.assert_allclose(samples[0, :2], [0.68030754, 0.45049925], atol=5e-9)
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (5, 3, None)


def test_yinyang_events():
    splits = data.load("yinyang", dtype=torch.float64)
    events = splits.train.events
    assert events.dtype == torch.float64 and torch.all(events.duration == 0.06)
    assert torch.all(events.counts() == 1)
    x, y, not_x, not_y, bias = events.first_times().unbind(1)
    assert torch.all(bias == 0)
    torch.testing.assert_close(x + not_x, torch.full_like(x, 0.03))
    torch.testing.assert_close(y + not_y, torch.full_like(y, 0.03))
    assert x[0].item() == pytest.approx(0.68030754 * 0.03, abs=1e-9)
    later = data.load("yinyang", t_max=0.1, duration=0.2).test.events
    assert later.times.max() > 0.09 and torch.all(later.duration == 0.2)


def test_yinyang_has_its_own_validation_set():
    with pytest.raises(ValueError, match="validation_fraction"):
        data.load("yinyang", validation_fraction=0.1)


# ---- digits -----------------------------------------------------------------------------------------------


def test_digits_are_all_there_once():
    from sklearn.datasets import load_digits

    splits = data.load("digits")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert (splits.num_units, splits.num_classes, splits.sensor_size) == (64, 10, (8, 8, 1))
    ink = load_digits().data.astype(int)
    rows = torch.cat([part.events.first_times() for part in parts]).numpy()
    found = np.where(np.isinf(rows), 0.0, 16 - 16 * rows / 0.02).round(3)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, ink.tolist()))
    assert all(part.events.counts().max() == 1 for part in parts)


def test_digits_test_part_never_changes_and_validation_follows_the_seed():
    first, again, other = (data.load("digits", seed=seed) for seed in (3, 3, 4))
    assert same(first.test.events, other.test.events)
    assert same(first.validation.events, again.validation.events)
    assert not same(first.validation.events, other.validation.events)
    for part in (first.train, first.validation, first.test):
        shares = torch.bincount(part.labels) / len(part)
        assert torch.all((shares - 0.1).abs() < 0.01)
    halves = data.load("digits", validation_fraction=0.5)
    assert abs(len(halves.train) - len(halves.validation)) <= 1 and same(halves.test.events, first.test.events)
