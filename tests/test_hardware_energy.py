"""Energy estimates: cases by hand, linearity, sources of every coefficient, dense twins and break-even."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventnet.counting import Counts
from eventnet.hardware.baselines import THRESHOLDS, break_even, dense_twin, sparsity
from eventnet.hardware.energy import Estimate, Interval, engineering, estimate, price, ratio
from eventnet.hardware.energy_profiles import (
    CAUSES,
    ENERGY_PROFILES,
    STATUSES,
    Coefficient,
    EnergyProfile,
    energy_profile,
)

HIDDEN = Counts(
    samples=2,
    steps=200,
    neurons=10,
    synapses=50,
    inputs=80,
    spikes=60,
    accumulates=400,
    dense=10_000,
    state_updates=2000,
    weight_reads=400,
    buffer_writes=20,
)
OUTPUT = Counts(
    samples=2, steps=200, neurons=2, synapses=20, accumulates=120, dense=4000, state_updates=400, weight_reads=120
)
LAYERS = {"hidden": HIDDEN, "output": OUTPUT}


def coefficient(low, high=None, unit="J"):
    return Coefficient(low, low if high is None else high, unit, "made up", "unverified")


def device(*, idle=None, **joules):
    """A device that does everything at no cost but what is given."""
    costs = {cause: coefficient(0.0) for cause in CAUSES} | {name: coefficient(value) for name, value in joules.items()}
    return EnergyProfile("toy", "made up", costs, idle_power=None if idle is None else coefficient(idle, unit="W"))


# ---- profiles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENERGY_PROFILES)
def test_every_number_has_a_source_a_status_and_bounds_in_order(name):
    profile = energy_profile(name)
    assert profile.name == name and len(profile.about) > 40 and profile.numbers
    for each in profile.numbers.values():
        assert len(each.source) > 10 and each.status in STATUSES and 0 <= each.low <= each.high
        assert each.high > 0 or "included in" in each.source  # a zero says where its energy is
    for cause in set(CAUSES) - {"multiply_accumulates"}:
        assert profile.names(cause)


def test_numbers_that_the_sources_give():
    loihi, keras = (
        ENERGY_PROFILES["loihi1"].coefficients,
        {"spinnaker": 13.3e-9, "cpu": 8.6e-9, "gpu": 0.3e-9, "arm": 0.9e-9},
    )
    assert loihi["accumulates"].low == loihi["accumulates"].high == pytest.approx(23.6e-12)
    assert (loihi["state_updates"].low, loihi["state_updates"].high) == pytest.approx((52e-12, 81e-12))
    for name, joules in keras.items():
        assert ENERGY_PROFILES[name].coefficients["accumulates"].high == pytest.approx(joules)
    float32 = ENERGY_PROFILES["asic45_float32"].coefficients
    assert float32["multiply_accumulates"].low == pytest.approx(0.9e-12 + 3.7e-12)
    crossbar = [
        ENERGY_PROFILES["in_memory"].coefficients[f"accumulates_{part}"] for part in ("cells", "converters", "buffers")
    ]
    shares = [each.low / sum(one.low for one in crossbar) for each in crossbar]
    assert shares == pytest.approx([0.02, 0.19, 0.79], abs=0.005)


def test_only_devices_with_a_multiplier_take_values():
    values = {"a": dataclasses.replace(HIDDEN, multiply_accumulates=7)}
    for name in ("loihi1", "in_memory"):
        with pytest.raises(ValueError, match=rf"layer 'a': {name} has no cost of multiply_accumulates.*changed"):
            estimate(values, name, dt=1e-3)
    changed = energy_profile("loihi1").changed(multiply_accumulates=30e-12)
    assert estimate(values, changed, dt=1e-3).causes["multiply_accumulates"].low == pytest.approx(3.5 * 30e-12)


def test_changed_profiles():
    chip = energy_profile("loihi1").changed(
        idle_power=None, spikes_hops=None, seconds_per_step=1e-6, event_driven=False
    )
    assert chip.idle_power is None and chip.names("spikes") == ("spikes_tile",) and not chip.event_driven
    assert chip.seconds_per_step == Coefficient(1e-6, 1e-6, "s", "set by hand", "unverified")
    assert energy_profile("loihi1").idle_power is not None


def test_errors_say_what_was_meant():
    with pytest.raises(ValueError, match="did you mean 'spinnaker2'"):
        energy_profile("spinaker2")
    with pytest.raises(ValueError, match="did you mean 'loihi1'"):
        estimate(LAYERS, "loihi", dt=1e-3)
    with pytest.raises(ValueError, match="did you mean 'accumulates'"):
        device(acumulates=1.0)
    for low, high in ((-1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="0 <= low <= high"):
            coefficient(low, high)
    with pytest.raises(ValueError, match="0 <= low <= high"):
        energy_profile("asic45").changed(accumulates=-1e-12)
    with pytest.raises(ValueError, match="source"):
        Coefficient(1.0, 1.0, "J", "", "measured")
    with pytest.raises(ValueError, match="status"):
        Coefficient(1.0, 1.0, "J", "someone", "certain")
    with pytest.raises(ValueError, match="in J, got one in W"):
        energy_profile("asic45").changed(accumulates=coefficient(1.0, unit="W"))
    for bad, match in ((dict(), "neither"), (dict(dt=0.0), "dt"), (dict(latency=-1.0), "latency")):
        with pytest.raises(ValueError, match=match):
            estimate(LAYERS, "asic45", **bad)
    with pytest.raises(ValueError, match="'a' saw no samples"):
        estimate({"a": Counts()}, "asic45", dt=1e-3)
    with pytest.raises(ValueError, match="at least one layer"):
        estimate({}, "asic45", dt=1e-3)


# ---- estimates -------------------------------------------------------------------------------------------------------------


def test_an_estimate_by_hand():
    costs = dict(accumulates=1.0, state_updates=0.1, spikes=2.0, weight_reads=0.5, buffer_writes=3.0)
    found = estimate(LAYERS, device(idle=5.0, **costs), dt=1e-3)
    joules = dict(zip(CAUSES, (200, 0, 100, 60, 100, 30), strict=True))
    assert {cause: each.low for cause, each in found.layers["hidden"].items()} == pytest.approx(joules)
    assert found.causes["accumulates"].high == pytest.approx(260)
    assert found.dynamic.low == found.dynamic.high == pytest.approx(490 + 60 + 20 + 30)
    assert found.idle == Interval(0.5, 0.5)  # 100 steps of 1 ms at 5 W
    assert "real time" in found.assumptions[0]
    assert estimate(LAYERS, device(idle=5.0), latency=2.0).idle == Interval(10.0, 10.0)


def test_the_parts_of_a_cause_add_up():
    whole = estimate(LAYERS, device(state_updates=0.3), dt=1.0)
    parts = device(state_updates=0.1).changed(state_updates_memory=0.2)
    assert estimate(LAYERS, parts, dt=1.0).dynamic.low == pytest.approx(whole.dynamic.low)


def test_a_network_without_spikes_still_pays_for_state_and_for_waiting():
    silent = {"a": Counts(samples=1, steps=1000, neurons=100, dense=10**6, state_updates=100_000)}
    found = estimate(silent, "loihi1", dt=1e-3)
    assert found.dynamic == found.causes["state_updates"] and found.dynamic.low == pytest.approx(5.2e-6)
    assert found.idle == Interval(0.029, 0.029)


def test_a_device_without_events_computes_every_connection():
    quiet = {"a": dataclasses.replace(HIDDEN, accumulates=1, weight_reads=1)}
    busy, calm = (estimate(each, "cpu", dt=1e-3) for each in ({"a": HIDDEN}, quiet))
    assert busy.dynamic == calm.dynamic and any("every connection" in each for each in busy.assumptions)
    assert busy.dynamic.low == pytest.approx((5000 + 1000) * 8.6e-9)


def test_a_device_that_is_too_slow_for_real_time_waits_longer():
    slow = estimate(LAYERS, "spinnaker", dt=1e-4)  # 100 steps of 1 ms at least
    assert slow.latency == Interval(0.1, 0.1) and "may not work in real time" in slow.assumptions[0]
    assert estimate(LAYERS, "spinnaker", dt=1e-3).latency == Interval(0.1, 0.1)


def test_text_and_file():
    found = estimate(LAYERS, "loihi1", dt=1e-3)
    assert str(found) == "68-103 nJ per sample + 2.9 mJ idle (estimate, not measurement)" or "per sample +" in str(
        found
    )
    assert "idle power not known" in str(estimate(LAYERS, "asic45", dt=1e-3))
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["note"] == "estimate, not measurement"
    assert plain["dynamic_joules_per_sample"] == [found.dynamic.low, found.dynamic.high]
    assert plain["coefficients"]["accumulates_joules"]["status"] == "synthesised"
    assert plain["coefficients"]["idle_power_watts"]["range"] == [0.029, 0.029]


def test_no_energy_is_one_number():
    found = estimate(LAYERS, "loihi1", dt=1e-3)
    names = [name for name in dir(found) if not name.startswith("_")]
    assert {name for name in names if isinstance(getattr(found, name), float)} == {"steps"}


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.2e-5, 1.9e-5, "12-19 uJ"),
        (1e-3, 1e-3, "1 mJ"),
        (9.96e-7, 9.99e-7, "1 uJ"),
        (0.0, 3e-9, "0-3 nJ"),
        (4e-13, 2.0, "400 fJ - 2 J"),
    ],
)
def test_engineering_prefixes(low, high, text):
    assert Interval(low, high).text("J") == text


def test_every_power_of_ten_has_a_prefix():
    for exponent in range(-18, 10):
        number, unit = engineering(10.0**exponent, "J").split(" ")
        assert float(number) in (1, 10, 100) and len(unit) <= 2


costs = st.fixed_dictionaries({cause: st.floats(0, 1e-6) for cause in CAUSES})
numbers = st.integers(0, 10**6)
layers = st.builds(Counts, samples=st.integers(1, 50), steps=st.integers(1, 1000), **dict.fromkeys(CAUSES, numbers))


@given(layers, costs, costs, st.floats(0, 100))
def test_energy_is_linear_in_the_coefficients(counts, first, second, factor):
    def energy(joules):
        return estimate({"a": counts}, device(**joules), dt=1e-3).dynamic.high

    mixed = {cause: first[cause] + factor * second[cause] for cause in CAUSES}
    assert energy(mixed) == pytest.approx(energy(first) + factor * energy(second), rel=1e-9, abs=1e-30)


@given(layers, layers, st.sampled_from(["spinnaker2", "asic45", "asic45_float32"]))
def test_energy_is_linear_in_the_counts(one, two, name):
    """Two batches cost what each costs, together; and so do two layers."""
    both, first, second = (estimate({"a": each}, name, dt=1e-3).dynamic for each in (one + two, one, two))
    samples = one.samples + two.samples
    for bound in ("low", "high"):
        parts = getattr(first, bound) * one.samples + getattr(second, bound) * two.samples
        assert getattr(both, bound) * samples == pytest.approx(parts, rel=1e-9)
    stacked = estimate({"a": one, "b": two}, name, dt=1e-3).dynamic
    assert stacked.high == pytest.approx(first.high + second.high, rel=1e-9)


# ---- dense twins -----------------------------------------------------------------------------------------------------------


def test_dense_twins_by_hand():
    every, skipped, once, once_skipped = dense_twin(
        LAYERS, zero_share={"hidden": 0.9, "output": 0.5}, zero_share_once=0.25
    )
    assert every.operations["hidden"] == dict(zip(CAUSES, (0, 5000, 0, 0, 5000, 1000), strict=True))
    assert skipped.operations["hidden"]["multiply_accumulates"] == pytest.approx(500)
    assert skipped.operations["output"]["weight_reads"] == pytest.approx(1000)
    assert once.bits == 7 and once.operations["hidden"]["multiply_accumulates"] == pytest.approx(
        50
    )  # ceil(log2(101)) bits
    assert once.operations["hidden"]["buffer_writes"] == pytest.approx(10)
    assert once_skipped.operations["output"]["multiply_accumulates"] == pytest.approx(15)


def test_an_event_pays_for_its_targets_sum_where_it_arrives_alone():
    """On the digital chips: from nothing, all events of a step gathered, to 32 bits of SRAM read and written, 2 x 5 pJ."""
    for name in ("asic45", "asic45_float32"):
        chip = energy_profile(name)
        for cause in ("accumulates", "multiply_accumulates"):
            part = chip.coefficients[f"{cause}_memory"]
            assert (part.low, part.high) == pytest.approx((0.0, 10e-12)) and "assumed" in part.source
            assert price(chip, cause).high == pytest.approx(chip.coefficients[cause].high + 10e-12)
            assert price(chip, cause, dense=True) == Interval(
                chip.coefficients[cause].low, chip.coefficients[cause].high
            )
        assert "Assumed: an event" in chip.about and "register" in chip.about


def test_a_dense_twin_has_bytes_and_no_state_unless_it_is_gated():
    chip = energy_profile("asic45")
    fed, gated = dense_twin(LAYERS)[0], dense_twin(LAYERS, gated=True)[0]
    found = fed.estimate(chip, dt=1e-3)
    assert found.causes["state_updates"] == found.causes["spikes"] == Interval(0.0, 0.0)
    assert found.causes["buffer_writes"].low == found.causes["buffer_writes"].high == pytest.approx(1200 * 2.5e-12)
    assert found.dynamic.low == pytest.approx(7000 * (0.23e-12 + 1.25e-12) + 1200 * 2.5e-12)
    assert "has no state" in " ".join(fed.assumptions) and "8 bits for each gated unit" in " ".join(gated.assumptions)
    states = gated.estimate(chip, dt=1e-3).causes["state_updates"]
    assert (states.low, states.high) == pytest.approx(
        (1200 * 2.8e-12, 1200 * 9e-12)
    )  # 2.5 pJ of memory, 0.3 to 6.5 of sums
    assert price(chip, "state_updates").low == pytest.approx(10.3e-12)
    assert price(chip, "state_updates").high == pytest.approx(26.5e-12)


def test_a_twin_on_the_same_chip_shares_its_coefficients():
    """What both pay for is taken at one bound in both, what only the network pays for at its own."""
    network, twin = estimate(LAYERS, "asic45", dt=1e-3), dense_twin(LAYERS)[0].estimate("asic45", dt=1e-3)
    joint, apart = ratio(twin, network, idle=False), twin.dynamic / network.dynamic
    assert apart.low < joint.low < joint.high < apart.high
    dense = ratio(twin, dataclasses.replace(twin, dense=False), idle=False)
    assert dense.high == pytest.approx(1.0) and dense.low < 0.7


def test_a_twin_of_many_answers_has_no_single_pass():
    assert [twin.name for twin in dense_twin(LAYERS, answers=50)] == [
        "int8, every step",
        "int8, every step, zeros skipped",
    ]


def test_a_twin_in_steps_of_its_own():
    every, skipped, once, _ = dense_twin(LAYERS, steps=25, zero_outputs={"hidden": 0.1, "output": 0.2}, zero_share=0.5)
    assert every.operations["hidden"]["multiply_accumulates"] == pytest.approx(1250) and every.steps == 25
    assert every.operations["output"]["buffer_writes"] == pytest.approx(50)
    assert skipped.operations["output"]["buffer_writes"] == pytest.approx(40)
    assert once.bits == 7 and once.operations["hidden"]["multiply_accumulates"] == pytest.approx(50)
    assert every.estimate("arm", dt=4e-3).latency == Interval(0.1, 0.1)
    with pytest.raises(ValueError, match="steps"):
        dense_twin(LAYERS, steps=-1)


def test_outputs_are_zero_as_often_as_the_next_layers_inputs():
    _, skipped, _, once = dense_twin(
        LAYERS, zero_share={"hidden": 0.9, "output": 0.4}, zero_share_once={"hidden": 0.8, "output": 0.1}
    )
    assert skipped.operations["hidden"]["buffer_writes"] == pytest.approx(600)
    assert skipped.operations["output"]["buffer_writes"] == pytest.approx(200)
    assert once.operations["hidden"]["buffer_writes"] == pytest.approx(9)


def test_a_crossbar_read_costs_as_much_for_one_operation():
    """From 4,096 operations of a read to a single one: one row with a spike, one column in use."""
    coefficients = energy_profile("in_memory").coefficients
    for part in ("cells", "converters", "buffers"):
        each = coefficients[f"accumulates_{part}"]
        assert each.high == pytest.approx(4096 * each.low)
    assert coefficients["accumulates_converters"].high == pytest.approx(64 * 2.125085e-12)


def test_a_twin_pays_for_the_width_of_its_multiplier_and_for_its_memory():
    chip = dataclasses.replace(device(multiply_accumulates=8.0, weight_reads=1.0), mac_bits=8)
    every, _, once, _ = dense_twin(LAYERS)
    assert every.estimate(chip, dt=1e-3).dynamic.low == pytest.approx(7000 * 9)
    assert once.estimate(chip, dt=1e-3).dynamic.low == pytest.approx(70 * (7 + 1))
    reused = dense_twin(LAYERS, weight_reuse=10)[0].estimate(chip, dt=1e-3)
    assert reused.dynamic.low == pytest.approx(7000 * 8.1)
    assert any("7 bits costs 0.875" in each for each in once.estimate(chip, dt=1e-3).assumptions)


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (3, 2), (4, 3), (5, 3), (7, 3), (8, 4), (1000, 10)])
def test_bits_that_hold_as_much_as_the_steps(steps, bits):
    layer = {"a": Counts(samples=3, steps=3 * steps, dense=30)}
    assert dense_twin(layer)[2].bits == bits


def test_twins_run_where_there_is_a_price_for_them_and_say_what_they_assume():
    for twin in dense_twin(LAYERS):
        for name in ("asic45", "asic45_float32", "cpu", "gpu", "arm", "spinnaker", "spinnaker2"):
            assert isinstance(twin.estimate(name, dt=1e-3), Estimate)
        with pytest.raises(ValueError, match="loihi1 has no cost of multiply_accumulates"):
            twin.estimate("loihi1", dt=1e-3)
        text = " ".join(twin.assumptions)
        assert "accuracy" in text and "fetched" in text and ("skipped" not in twin.name) == ("A zero costs" not in text)
    for bad in (
        dict(zero_share=1.5),
        dict(zero_share={"hidden": 0.5}),
        dict(weight_reuse=0.5),
        dict(zero_share_once=-0.1),
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            dense_twin(LAYERS, **bad)


# ---- break-even ------------------------------------------------------------------------------------------------------------

ONE = {
    "a": Counts(
        samples=1, steps=10, neurons=10, dense=1000, accumulates=100, weight_reads=100, state_updates=100, spikes=5
    )
}


def baseline_of(joules, profile):
    """An estimate of just so many joules: state updates at one joule each."""
    other = dataclasses.replace(profile, name="other").changed(state_updates=1.0)
    return Estimate(
        "given", other, {"a": {**dict.fromkeys(CAUSES, 0.0), "state_updates": joules}}, Interval(0.01, 0.01), 10
    )


def test_break_even_by_hand():
    """a = (100 x 1 + 100 x 0.5 + 5 x 2) / 0.1 = 1600, b = 100 x 0.2 + 0.01 s x 1000 W = 30, B = 350 + 10: r = 330 / 1600."""
    chip = device(accumulates=1.0, weight_reads=0.5, spikes=2.0, state_updates=0.2, idle=1000.0)
    found = break_even(ONE, chip, baseline_of(350.0, chip), dt=1e-3, rates=(0.1, 1.0))
    assert found.own_rate == pytest.approx(0.1) and found.with_idle
    assert found.break_even.low == found.break_even.high == pytest.approx(330 / 1600)
    assert [each.low for each in found.energy] == pytest.approx([190, 1630])
    assert found.advantage_now.low == pytest.approx(360 / 190) == found.advantage[0].high
    assert found.verdict == "pays at its own rate" and any("The devices differ" in each for each in found.assumptions)
    at = break_even(ONE, chip, baseline_of(350.0, chip), dt=1e-3, rates=(found.break_even.low,))
    assert at.advantage[0].low == pytest.approx(1.0)
    without = break_even(ONE, chip, baseline_of(350.0, chip), dt=1e-3, idle=False)
    assert without.break_even.low == pytest.approx((350 - 20) / 1600) and not without.with_idle


def test_it_may_never_pay_or_always():
    chip = device(accumulates=1.0, state_updates=0.2)
    never = break_even(ONE, chip, baseline_of(20.0, chip), dt=1e-3)
    assert never.break_even is None and never.verdict.startswith("never pays")
    always = break_even(ONE, chip, baseline_of(1e6, chip), dt=1e-3)
    assert always.break_even.low > 1 and always.verdict.startswith("always pays")
    free = break_even(ONE, device(state_updates=0.2), baseline_of(21.0, chip), dt=1e-3)
    assert free.break_even == Interval(float("inf"), float("inf"))
    json.dumps(free.to_dict(), allow_nan=False)
    assert "does not pay" in break_even(ONE, chip, baseline_of(50.0, chip), dt=1e-3).verdict
    with pytest.raises(ValueError, match="no synaptic operation"):
        break_even({"a": dataclasses.replace(ONE["a"], accumulates=0)}, chip, baseline_of(1.0, chip), dt=1e-3)


def test_bounds_are_wide_where_they_are_of_two_devices_and_joint_on_one():
    chip = device(accumulates=1.0).changed(state_updates=coefficient(0.1, 0.4))
    found = break_even(ONE, chip, baseline_of(35.0, chip), dt=1e-3)  # b is 10 to 40, a is 1000
    assert found.break_even.low == 0 and found.break_even.high == pytest.approx(0.025)
    assert found.verdict.startswith("does not pay")
    same = estimate(ONE, "asic45", dt=1e-3)
    assert ratio(same, same, idle=True) == Interval(1.0, 1.0)
    twin = dense_twin(ONE)[0].estimate("asic45", dt=1e-3)
    joint, apart = break_even(ONE, "asic45", twin, dt=1e-3).advantage_now, twin.dynamic / same.dynamic
    assert apart.low < joint.low <= joint.high < apart.high


def test_events_from_outside_grow_with_the_rate():
    """5 spikes of the layer and 15 from outside, 2 J each: a = (100 + 40) / 0.1, b = 20."""
    chip = device(accumulates=1.0, spikes=2.0, state_updates=0.2)
    outside = Counts(samples=1, steps=10, neurons=4, spikes=15)
    found = break_even({"input": outside, **ONE}, chip, baseline_of(160.0, chip), dt=1e-3)
    assert found.own_rate == pytest.approx(0.1) and found.advantage_now.low == pytest.approx(1.0)
    assert found.break_even.low == pytest.approx(0.1)
    written = dense_twin({"input": outside, **ONE})[0].operations["input"]
    assert written["buffer_writes"] == pytest.approx(40) and written["multiply_accumulates"] == 0


def test_idle_power_counts_only_if_both_are_known():
    chip = device(accumulates=1.0, idle=1000.0)
    other = baseline_of(350.0, device())
    found = break_even(ONE, chip, other, dt=1e-3)
    assert not found.with_idle and found.break_even.low == pytest.approx(0.35)
    assert any("not known for both" in each for each in found.assumptions)


def test_published_thresholds_are_beside_the_networks_own_rate():
    assert [each.high for each in THRESHOLDS] == [0.057, 0.064, 1.38]
    chip = device(accumulates=1.0)
    rows = break_even(ONE, chip, baseline_of(350.0, chip), dt=1e-3).beside_literature()
    assert [(own, place) for _, own, place in rows] == [(0.1, "above"), (0.1, "above"), (1.0, "between")]
    assert all(each.source and each.when for each, _, _ in rows)


# ---- two kinds of sparsity -------------------------------------------------------------------------------------------------


def test_weight_and_activity_sparsity_by_hand():
    """Rate 0.1 with half of the weights: activity 0.2. Dense: 1000 additions, 25 spikes, and state updates in every row."""
    chip = device(accumulates=1.0, spikes=4.0, state_updates=0.3)
    rows = {row.name: row for row in sparsity(ONE, chip, weight_density=0.5)}
    assert [row.operations for row in rows.values()] == pytest.approx([1000, 500, 200, 100])
    assert [row.energy.low for row in rows.values()] == pytest.approx([1130, 630, 250, 150])
    assert [row.share.low for row in rows.values()] == pytest.approx([1, 630 / 1130, 250 / 1130, 150 / 1130])
    dense, weights, activity, both = (row.operations for row in rows.values())
    assert both / dense == pytest.approx((weights / dense) * (activity / dense))


def test_sparsity_saves_nothing_where_every_connection_is_computed():
    assert {row.share for row in sparsity(ONE, "cpu", weight_density={"a": 0.5})} == {Interval(1.0, 1.0)}
    with pytest.raises(ValueError, match="'a'"):
        sparsity({"a": dataclasses.replace(ONE["a"], accumulates=0)}, "asic45", weight_density=1.0)
    with pytest.raises(ValueError, match="weight_density"):
        sparsity(ONE, "asic45", weight_density=1.2)
