"""Checkpoints: what is read back is what was written; damage is named; nothing saved is lost when a disk is full."""

import errno
import json
import os

import pytest
import torch

from eventnet import data
from eventnet.training import CheckpointError, SpikingRecipe, build, find, load_model, train
from eventnet.training.checkpoint import FORMAT, load_state, save_model, save_state, write_files

RECIPE = SpikingRecipe("x", hidden=(6,), init_mean=(0.5, 0.1), init_std=(0.5, 0.1))


@pytest.fixture
def saved(tmp_path):
    """A folder with a model and a training state."""
    network = build(RECIPE, 4, 3)
    save_model(tmp_path, network, epoch=2)
    save_state(tmp_path, {"epoch": 2, "network": network.state_dict(), "history": [{"epoch": 1}]}, beside={})
    return tmp_path


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def full_disk(monkeypatch, call: str = "fsync"):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)


def test_round_trip(saved):
    network, description = load_model(saved)
    expected = build(RECIPE, 4, 3).state_dict()
    assert network.recipe == RECIPE
    assert all(torch.equal(network.state_dict()[name], expected[name]) for name in expected)
    assert (description["epoch"], description["format"]) == (2, FORMAT)
    state = load_state(saved)
    assert (state["epoch"], state["history"]) == (2, [{"epoch": 1}])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "training.pt"])
def test_cut_short(saved, name, share):
    path = saved / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=rf"{name}: .*damaged or cut short"):
        load_state(saved) if name == "training.pt" else load_model(saved)


def test_a_flipped_bit_is_found(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not the weights that model\.json describes"):
        load_model(saved)


def test_another_version(saved):
    change_json(saved / "model.json", format=99, eventnet="7.0")
    with pytest.raises(CheckpointError, match=r"checkpoint format 99, written by eventnet 7\.0; .* reads format 1"):
        load_model(saved)
    torch.save({"format": 99, "eventnet": "7.0"}, saved / "training.pt")
    with pytest.raises(CheckpointError, match=r"training\.pt: checkpoint format 99, written by eventnet 7\.0"):
        load_state(saved)


def test_something_else(saved):
    (saved / "model.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="expected an eventnet checkpoint"):
        load_model(saved)
    torch.save([1, 2], saved / "training.pt")
    with pytest.raises(CheckpointError, match="expected an eventnet checkpoint"):
        load_state(saved)


@pytest.mark.parametrize(
    "changes", [{"num_units": 5}, {"recipe": {"name": "x", "speed": 1}}, {"recipe": None}, {"num_classes": "many"}]
)
def test_description_that_does_not_fit(saved, changes):
    change_json(saved / "model.json", **changes)
    with pytest.raises(CheckpointError, match=r"model\.json: does not describe model\.safetensors"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "training.pt"])
def test_missing(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: no such file; is .* the folder of a run"):
        load_state(saved) if name == "training.pt" else load_model(saved)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_loading_executes_no_code(saved, tmp_path):
    torch.save({"format": FORMAT, "history": Evil(tmp_path / "owned")}, saved / "training.pt")
    with pytest.raises(CheckpointError):
        load_state(saved)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_files(saved, monkeypatch, call):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with monkeypatch.context() as patched:
        full_disk(patched, call)
        with pytest.raises(CheckpointError, match=r"No space left on device; what was saved there before is intact"):
            save_model(saved, build(RECIPE.changed(seed=1), 4, 3), epoch=3)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert load_model(saved)[1]["epoch"] == 2


def test_write_files_is_all_or_nothing(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(CheckpointError, match=r"cannot write a, b into"):
        write_files({tmp_path / "a": b"new", tmp_path / "no folder" / "b": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def small_splits() -> data.Splits:
    whole = data.load("digits")
    parts = {part: getattr(whole, part).select(range(40)) for part in ("train", "validation", "test")}
    return data.Splits(**parts, name="few", num_units=64, num_classes=10, sensor_size=None, note="a few digits")


@pytest.mark.usefixtures("one_thread")
def test_a_disk_that_fills_up_loses_no_finished_epoch(tmp_path, monkeypatch):
    from lightning.pytorch.callbacks import Callback

    class FillDisk(Callback):
        def on_train_epoch_start(self, trainer, module):
            if module.epoch == 2:
                full_disk(monkeypatch)

    recipe = find("digits").changed(hidden=(10,), epochs=4)
    splits = small_splits()
    with pytest.raises(CheckpointError, match="No space left"):
        train(recipe, tmp_path / "run", splits=splits, progress=False, callbacks=[FillDisk()])
    monkeypatch.undo()
    assert load_state(tmp_path / "run")["epoch"] == 2
    load_model(tmp_path / "run")
    resumed = train(None, tmp_path / "run", resume=True, splits=splits, progress=False)
    assert resumed.test == train(recipe, tmp_path / "whole", splits=splits, progress=False).test


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=r"cannot be made the run's folder .*choose another with --out"):
            train(find("digits"), folder, splits=small_splits())


def test_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(CheckpointError, match=r"Permission denied\); choose another with --out"):
        train(find("digits"), tmp_path / "run", splits=small_splits())
