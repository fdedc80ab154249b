"""The recipes themselves: what their networks are, and that they train on files written here."""

import pytest
import torch
from spoken_files import write_spikes

from eventnet.training import RECIPES, SpikingRecipe, build, find, load_model, train

pytestmark = pytest.mark.usefixtures("one_thread")

RECURRENT = {"fsdd_chip", "ecg_recurrent", "fsdd_recurrent", "shd_recurrent", "ssc_recurrent"}
DELAYED = {"fsdd_chip", "fsdd_delays", "yinyang30_delays"}


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if isinstance(recipe, SpikingRecipe)])
def test_networks_have_what_their_names_say(name):
    recipe = find(name)
    layer = build(recipe, 6, 3).hidden[0]
    assert hasattr(layer, "recurrent_weight") == (name in RECURRENT)
    assert hasattr(layer, "delay") == (name in DELAYED)
    assert layer.weight.requires_grad
    if name in RECURRENT:
        assert layer.recurrent_weight.requires_grad
    if name in DELAYED:
        assert layer.delay.requires_grad and layer.delay.shape == (6, recipe.hidden[0])


def test_delays_stay_within_the_longest():
    network = build(find("fsdd_chip").changed(hidden=(5,)), 6, 3)
    layer = network.hidden[0]
    with torch.no_grad():
        layer.delay.add_(0.04)
        layer.recurrent_delay.sub_(1.0)
    network.after_step_(())
    assert layer.delay.max().item() == pytest.approx(0.06) and layer.recurrent_delay.max().item() == 0


@pytest.mark.parametrize("unit", ["egru", "gru"])
def test_gates_are_biased_to_remember(unit):
    bias = build(find("row_mnist").changed(unit=unit, memory=200.0), 28, 10).hidden.bias_hh_l0
    plain = build(find("row_mnist").changed(unit=unit), 28, 10).hidden.bias_hh_l0
    steps = bias[128:256].detach().exp()
    assert float(steps.min()) >= 1 and 150 < float(steps.max()) <= 199
    assert torch.equal(bias[:128], plain[:128]) and torch.equal(bias[256:], plain[256:])


def test_published_sizes():
    assert find("yinyang30").hidden == find("yinyang30_delays").hidden == (30,)
    network = build(find("yinyang30_delays"), 5, 3)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 2 * 5 * 30 + 30 * 3


@pytest.mark.parametrize("name", ["shd", "shd_recurrent", "ssc", "ssc_recurrent"])
def test_speech_trains_on_files_in_the_format_of_shd(tmp_path, monkeypatch, name):
    monkeypatch.setenv("EVENTNET_CACHE", str(tmp_path / "cache"))
    data = name.partition("_")[0]
    for part in ("train", "test") if data == "shd" else ("train", "valid", "test"):
        write_spikes(tmp_path / data / f"{data}_{part}.h5", size=18)
    # the files have 20 spikes where a spoken digit has thousands, so they count for more
    recipe = find(name).changed(epochs=2, hidden=(12,), batch_size=6, init_mean=(3.0, 0.0))
    if data == "shd":
        recipe = recipe.changed(validation_fraction=1 / 3)
    result = train(recipe, tmp_path / "run", data_root=tmp_path, progress=False)
    assert result.test.samples == 18 and result.test.activity["spikes_per_inference"] > 0
    layer = load_model(result.folder)[0].hidden[0]
    if name in RECURRENT:
        start = build(recipe, 700, 3).hidden[0]
        assert not torch.equal(layer.recurrent_weight, start.recurrent_weight)
