"""Recipes: values are checked, errors name the nearest match, everything survives JSON and the command line's text."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eventnet import LI, LIF, Events, data
from eventnet.training import RECIPES, Recipe, RecipeError, SpikingRecipe, build, find, objective
from eventnet.training.setting import fields_of, parse

SETTINGS = {setting.name: setting for setting in fields_of(SpikingRecipe)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    recipe = find(name)
    assert recipe.name == name and recipe.summary
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_known_data_set(name):
    assert find(name).data in data.names()


@pytest.mark.parametrize("name", RECIPES)
def test_a_value_survives_as_text(name):
    for setting in fields_of(find(name)):
        if setting.element is not dict:
            assert parse(setting, setting.shown_default) == setting.default


def test_every_field_is_documented():
    fields = {f.name for f in dataclasses.fields(SpikingRecipe)} - {"name", "summary"}
    assert set(SETTINGS) == fields
    assert all(setting.help for setting in SETTINGS.values())
    seconds = {name for name, setting in SETTINGS.items() if setting.unit == "s"} | {"tau_spread"}  # a ratio
    delays = {"delay", "recurrent_delay", "delay_learning_rate", "longest_delay"}
    assert seconds == {name for name in SETTINGS if "tau" in name} | {"readout_decay", "readout_step"} | delays


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find("digit"), "unknown recipe 'digit'; did you mean 'digits'"),
        (lambda: find("xyz"), "unknown recipe 'xyz'; known: digits"),
        (lambda: find("digits").changed(epoch=3), "unknown field 'epoch'; did you mean 'epochs'"),
        (lambda: find("digits").changed(readout="frist_spike"), "readout: unknown value .* did you mean 'first_spike'"),
        (lambda: find("digits").changed(learn=("wieght",)), "learn: unknown value .* did you mean 'weight'"),
        (lambda: find("digits").changed(epochs=2.5), "epochs: expected INT, got 2.5"),
        (lambda: find("digits").changed(tau_mem="fast"), r"tau_mem: expected FLOAT \(s\), got 'fast'"),
        (lambda: find("digits").changed(tau_mem=-1), r"tau_mem: expected a number > 0 \(s\), got -1"),
        (lambda: find("digits").changed(tau_mem=float("nan")), "tau_mem: expected a number > 0"),
        (lambda: find("digits").changed(tau_mem=float("inf")), "tau_mem: expected a number > 0"),
        (lambda: find("digits").changed(hidden=100), r"hidden: expected INT,\.\.\., such as 100,50, got 100"),
        (lambda: find("digits").changed(hidden=(100, 0)), "hidden: expected a number >= 1, got 0"),
        (lambda: find("digits").changed(input_dropout=1.0), r"input_dropout: expected a number in \[0, 1\), got 1"),
        (lambda: find("digits").changed(recurrent=1), r"recurrent: expected yes\|no, got 1"),
        (lambda: find("digits").changed(epochs=True), "epochs: expected INT, got True"),
        (lambda: find("digits").changed(delay=0.03), r"delay: expected FLOAT,\.\.\. \(s\), such as 0.5,0.1, got 0.03"),
        (
            lambda: find("digits").changed(delay=(0.03,)),
            r"delay: expected none or low,high .* such as 0,0.03, got 0.03",
        ),
        (
            lambda: find("digits").changed(delay=(0.03, 0.0)),
            "delay: expected none or low,high with low <= high .*got 0.03,0",
        ),
        (lambda: find("digits").changed(delay=(-1, 0.0)), r"delay: expected a number >= 0 \(s\), got -1"),
        (
            lambda: find("digits").changed(recurrent_delay=(0, 0.01)),
            "recurrent_delay: expected none .* got 0,0.01; make it",
        ),
        (lambda: find("digits").changed(delay_kind="synapse"), "delay_kind: .*'synapse'; did you mean 'synaptic'"),
        (lambda: find("digits").changed(init_recurrent=(0.1,)), "init_recurrent: expected a mean and .*got 0.1"),
        (lambda: find("digits").changed(init_recurrent=(0.0, -0.1)), "init_recurrent: .* deviation >= 0"),
        (lambda: find("digits").changed(delay_learning_rate=0), r"delay_learning_rate: expected a number > 0 \(s\)"),
        (lambda: parse(SETTINGS["recurrent"], "maybe"), r"recurrent: expected yes\|no, got 'maybe'"),
        (lambda: find("digits").changed(data_options="x"), "data_options: expected KEY=VALUE"),
        (lambda: find("digits").changed(init_mean=(1.0, 2.0, 3.0)), "init_mean: expected 2 to 2 numbers"),
        (lambda: parse(SETTINGS["hidden"], "100,x"), r"hidden: expected INT,\.\.\., such as 100,50, got '100,x'"),
        (lambda: parse(SETTINGS["data_options"], "duration"), "expected KEY=VALUE, such as duration=0.3"),
        (lambda: Recipe.from_dict({"name": "a", "speed": 1}), "unknown field 'speed'"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(RecipeError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "7", 7),
        ("tau_mem", "2e-3", 2e-3),
        ("tau_mem", "1", 1.0),
        ("hidden", "100,50", (100, 50)),
        ("hidden", "none", ()),
        ("readout_decay", "none", None),
        ("learn", "weight,tau_mem", ("weight", "tau_mem")),
        ("recurrent", "yes", True),
        ("recurrent", "False", False),
        ("delay", "0,0.03", (0.0, 0.03)),
        ("delay", "none", ()),
        ("data_options", "crop=[0,0.1]", {"crop": [0, 0.1]}),
        ("data_options", "cache=memory", {"cache": "memory"}),
    ],
)
def test_parse(name, text, value):
    assert parse(SETTINGS[name], text) == value


@given(st.floats(1e-9, 1e9))
def test_any_positive_time_constant_is_kept_exactly(value):
    assert Recipe.from_dict(json.loads(json.dumps(SpikingRecipe("x", tau_mem=value).to_dict()))).tau_mem == value


def test_data_options_are_merged():
    recipe = SpikingRecipe("x", data_options={"duration": 1.0}).changed(data_options={"crop": None})
    assert recipe.data_options == {"duration": 1.0, "crop": None}


@pytest.mark.parametrize("readout", ["first_spike", "max", "mean", "integral", "at"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_network_of_every_readout(readout, hidden):
    recipe = SpikingRecipe(
        "x", hidden=hidden, readout=readout, readout_step=5e-3, init_mean=(1.0, 1.0), init_std=(0.1, 0.1)
    )
    network = build(recipe, num_units=5, num_classes=3)
    events = Events.from_list([([0.001, 0.002], [0, 3]), ([], [])], num_units=5, duration=0.02)
    outcome = network(events)
    steps = (4,) if readout == "at" else ()
    assert outcome.scores.shape == (2, *steps, 3)
    assert [spikes.num_units for spikes in outcome.spikes] == [*hidden, *([3] if readout == "first_spike" else [])]
    assert isinstance(network.readout, LIF if readout == "first_spike" else LI)
    labels = torch.zeros(outcome.scores.shape[:-1], dtype=torch.int64)
    objective.loss(recipe, outcome, labels).backward()
    assert network.readout.weight.grad is not None and bool(torch.isfinite(network.readout.weight.grad).all())
    assert objective.predict(recipe, outcome.scores).shape == labels.shape


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = build(SpikingRecipe("x", seed=3), 5, 2).state_dict()
    torch.manual_seed(2)
    again, other = (build(SpikingRecipe("x", seed=seed), 5, 2).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["readout.weight"], other["readout.weight"])


def test_calibration_reaches_the_wanted_share():
    recipe = SpikingRecipe("x", hidden=(50, 40), init_mean=(0.3, 0.1), init_std=(0.3, 0.1), init_firing=0.4)
    network = build(recipe, 20, 2)
    latencies = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    events = Events.from_latency(latencies, 0.0, 0.02, duration=0.05)
    network.calibrate_(events)
    for spikes in network.hidden_spikes(events):
        assert abs(float((spikes.counts() > 0).float().mean()) - 0.4) < 0.03


def test_labels_that_do_not_fit_are_named():
    recipe = SpikingRecipe("x", hidden=())
    outcome = build(recipe, 5, 2)(Events.from_list([([], [])], num_units=5, duration=0.02))
    with pytest.raises(ValueError, match=r"labels of shape \(1,\) for the readout 'max', got \(1, 4\)"):
        objective.loss(recipe, outcome, torch.zeros(1, 4, dtype=torch.int64))


def test_time_constants_are_spread_and_learnt_biases_are_one_per_neuron():
    plain = build(SpikingRecipe("x", hidden=(5,)), 4, 3)
    assert plain.hidden[0].tau_mem.dim() == plain.hidden[0].bias.dim() == plain.readout.bias.dim() == 0
    spread = build(SpikingRecipe("x", hidden=(5,), tau_spread=4.0, learn=("weight", "bias")), 4, 3)
    for name, tau in (("tau_mem", 20e-3), ("tau_syn", 5e-3)):
        expected = torch.tensor([tau / 4, tau / 2, tau, tau * 2, tau * 4])
        torch.testing.assert_close(getattr(spread.hidden[0], name), expected)
        assert getattr(spread.readout, name).dim() == 0
    assert spread.hidden[0].bias.shape == (5,) and spread.readout.bias.shape == (3,)
    with pytest.raises(RecipeError, match="tau_spread: expected a number >= 1"):
        SpikingRecipe("x", tau_spread=0.5)


# ---- recurrence and delays

BOTH = dict(recurrent=True, delay=(0.0, 0.03), recurrent_delay=(1e-3, 5e-3))


def shapes(network) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 2}


def test_hidden_layers_are_recurrent_and_delayed_and_the_readout_is_not():
    network = build(SpikingRecipe("x", hidden=(5, 3), readout="first_spike", **BOTH), 4, 2)
    connected = {}
    for layer, (num_in, num_out) in enumerate([(4, 5), (5, 3)]):
        connected[f"hidden.{layer}.weight"] = connected[f"hidden.{layer}.delay"] = (num_in, num_out)
        for name in ("recurrent_weight", "recurrent_delay"):
            connected[f"hidden.{layer}.{name}"] = (num_out, num_out)
    assert shapes(network) == connected | {"readout.weight": (3, 2)}
    assert all(p.requires_grad == (name in shapes(network)) for name, p in network.named_parameters())
    assert {
        tuple(layer.delay.shape)
        for layer in build(SpikingRecipe("x", hidden=(5,), delay_kind="axonal", **BOTH), 4, 2).hidden
    } == {(4, 1)}


def test_learn_names_connections_and_leaves_out_what_is_not_there():
    def learnt(**changes):
        network = build(SpikingRecipe("x", hidden=(5,), **changes), 4, 2)
        return {name for name, p in network.named_parameters() if p.requires_grad}

    weights = {"hidden.0.weight", "readout.weight"}
    assert learnt() == weights
    assert learnt(recurrent=True) == weights | {"hidden.0.recurrent_weight"}
    assert learnt(delay=(0.0, 0.01)) == weights | {"hidden.0.delay"}
    assert learnt(learn=("weight",), **BOTH) == weights
    assert learnt(learn=("delay", "tau_mem"), **BOTH) == {"hidden.0.delay", "hidden.0.tau_mem", "readout.tau_mem"}


def test_initial_delays_lie_in_their_range_and_depend_on_the_seed_alone():
    plain = build(SpikingRecipe("x", hidden=(40,), seed=3), 30, 2).state_dict()
    torch.manual_seed(1)
    first = build(SpikingRecipe("x", hidden=(40,), seed=3, init_recurrent=(0.1, 0.5), **BOTH), 30, 2).state_dict()
    torch.manual_seed(2)
    again, other = (
        build(SpikingRecipe("x", hidden=(40,), seed=seed, init_recurrent=(0.1, 0.5), **BOTH), 30, 2).state_dict()
        for seed in (3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], plain[name]) for name in plain)  # the weights of the network without
    assert not torch.equal(first["hidden.0.delay"], other["hidden.0.delay"])
    for name, (low, high) in {"delay": BOTH["delay"], "recurrent_delay": BOTH["recurrent_delay"]}.items():
        drawn = first[f"hidden.0.{name}"]
        assert low <= drawn.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < drawn.max() <= high
    assert first["hidden.0.recurrent_weight"].mean() == pytest.approx(0.1, abs=0.05)
    assert first["hidden.0.recurrent_weight"].std() == pytest.approx(0.5, abs=0.05)
