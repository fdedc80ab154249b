"""Networks on chips: how neurons are split over cores, what does not fit, and clustering of time constants."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.mapping import PROFILES, Limit, check, cluster_time_constants, profile
from eventnet.hardware.mapping.placement import Synapses, place
from eventnet.hardware.mapping.rules import bits_needed
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs, Population, Sparse

XYLO = {"du": 1023, "dv": 256}  # decays that Xylo has
IF = {"du": 4095, "dv": 0}  # neurons that Speck has


def weights(rows, columns, seed=0, density=1.0):
    """Even weights of both signs, those that 8 bits hold."""
    rng = np.random.default_rng(seed)
    values = 2 * rng.integers(1, 120, (rows, columns)) * rng.choice([-1, 1], (rows, columns))
    return values * (rng.random((rows, columns)) < density)


def network(inputs, hidden, *, recurrent=False, delay=None, density=1.0, outputs=0, **neurons):
    populations = [Inputs("input", inputs), LIFNeurons("hidden", hidden, **neurons)]
    projections = [Dense("input", "hidden", weights(inputs, hidden, 0, density), delay=delay)]
    if recurrent:
        projections.append(Dense("hidden", "hidden", weights(hidden, hidden, 1, density), delay=delay))
    if outputs:
        populations.append(LIFNeurons("output", outputs, **neurons))
        projections.append(Dense("hidden", "output", weights(hidden, outputs, 2, density)))
    return HardwareNetwork(populations, projections, dt=1e-3)


def only(placement, limit):
    """The one violation of this limit."""
    found = [each for each in placement.violations if each.limit == limit]
    assert len(found) == 1, str(placement)
    return found[0]


# ---- cores -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "delay", "cores"), [(256, None, 3), (256, 40, 4), (512, 40, 9)])
def test_loihi_1_takes_as_many_cores_as_are_known(hidden, delay, cores):
    placed = check(network(700, hidden, recurrent=True, delay=delay), "loihi1")
    assert placed.ok and placed.num_cores == cores


def test_synapse_bits_by_hand():
    one = check(network(1, 70), "loihi1").cores[0]
    assert one.synapse_bits == 576 + 64  # 64 * 8 + 10 -> 576, 6 * 8 + 10 -> 64
    delayed = check(network(1, 70, delay=1), "loihi1").cores[0]
    assert delayed.synapse_bits == 960 + 128  # 14 bits each
    rows, columns = np.arange(3), np.array([0, 0, 5])
    sparse = Sparse("input", "hidden", [2, 4, 6], rows=rows, columns=columns)
    alone = HardwareNetwork([Inputs("input", 3), LIFNeurons("hidden", 6)], [sparse], dt=1e-3)
    assert check(alone, "loihi1").cores[0].synapse_bits == 3 * 64  # 8 + 10 bits of index + 10 -> 64
    assert check(alone, "spinnaker2").cores[0].synapse_bits == 3 * 32


def test_zeros_take_no_axon_and_many_of_them_no_memory():
    weight = np.zeros((8, 500), int)
    weight[0, 0] = weight[1, 499] = 2
    placed = check(
        HardwareNetwork([Inputs("input", 8), LIFNeurons("h", 500)], [Dense("input", "h", weight)], dt=1e-3), "loihi1"
    )
    assert (placed.cores[0].axons_in, placed.cores[0].synapse_bits) == (2, 128)


def test_axons_are_counted_by_source_and_by_core():
    placed = check(network(700, 256, recurrent=True), "loihi1")
    assert [piece.axons_in for piece in placed.cores] == [956] * 3
    assert [piece.axons_out for piece in placed.cores] == [126 * 3, 126 * 3, 4 * 3]


def test_populations_share_a_core_where_they_can():
    both = network(10, 20, outputs=5)
    assert [piece.core for piece in check(both, "loihi1").cores] == [0, 0]
    assert [piece.core for piece in check(both, profile("loihi1").changed(cores_shared=False)).cores] == [0, 1]


def test_output_axons_run_out_and_fewer_neurons_go_on_a_core():
    chip = profile("loihi1").changed(output_axons_per_core=40, neurons_per_core=30)
    graph = network(4, 60, outputs=60)
    freely = check(graph, chip.changed(output_axons_per_core=None))
    assert freely.num_cores == 4 and max(piece.axons_out for piece in freely.cores) == 60
    placed = check(graph, chip)
    assert placed.ok and placed.num_cores > 4 and max(piece.axons_out for piece in placed.cores) <= 40


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_neuron_has_one_place_and_no_core_is_over_its_limits(data):
    sizes = data.draw(st.tuples(*[st.integers(1, 30)] * 3))
    density, delay = data.draw(st.sampled_from([0.1, 0.5, 1.0])), data.draw(st.sampled_from([None, 3]))
    limits = {
        "neurons_per_core": data.draw(st.integers(1, 20)),
        "input_axons_per_core": data.draw(st.integers(5, 60)),
        "output_axons_per_core": data.draw(st.integers(5, 200)),
        "synapse_bits_per_core": data.draw(st.integers(500, 8000)),
        "delay_slots_per_core": data.draw(st.integers(4, 80)),
        "axons_by_sign": data.draw(st.booleans()),
        "cores_shared": data.draw(st.booleans()),
    }
    graph = network(*sizes[:2], recurrent=True, delay=delay, density=density, outputs=sizes[2])
    placed = check(graph, profile("loihi1").changed(**limits))
    for each in graph.neurons:
        covered = [
            k for piece in placed.cores if piece.population == each.name for k in range(piece.first, piece.last + 1)
        ]
        assert covered == list(range(each.size))
    if placed.ok:
        for core in {piece.core for piece in placed.cores}:
            here = [piece for piece in placed.cores if piece.core == core]
            sums = {
                name: sum(getattr(piece, name) for piece in here)
                for name in ("size", "axons_in", "axons_out", "synapse_bits", "delay_slots")
            }
            for name, limit in zip(
                sums, ("neurons", "input_axons", "output_axons", "synapse_bits", "delay_slots"), strict=True
            ):
                assert sums[name] <= limits[f"{limit}_per_core"]


@settings(max_examples=40, deadline=None)
@given(
    sources=st.integers(1, 12),
    targets=st.integers(1, 90),
    density=st.sampled_from([0.05, 0.4, 1.0]),
    delay=st.booleans(),
)
def test_placement_counts_as_a_plain_loop_does(sources, targets, density, delay):
    graph = network(sources, targets, density=density, delay=2 if delay else None)
    matrix = graph.projections[0].effective().numpy()
    chip = profile("loihi1").changed(synapse_bits_per_core=2500)
    bits = 14 if graph.projections[0].max_delay else 8

    def block(number, width):
        parts = [min(64, number - k) for k in range(0, number, 64)]
        return sum(-(-(part * width + 10) // 64) * 64 for part in parts)

    for piece in place(graph, chip)[0]:
        part = matrix[:, piece.first : piece.last + 1] != 0
        plain = sum(block(part.shape[1], bits) for row in part if row.any())
        indexed = sum(block(int(row.sum()), bits + 10) for row in part)
        gains = (matrix != 0).sum() * (bits + 10) < matrix.size * bits
        assert piece.synapse_bits == (min(plain, indexed) if gains else plain)
        assert piece.axons_in == part.any(1).sum()


def test_a_convolution_has_the_synapses_of_the_matrix_that_it_is():
    shape, groups = (4, 5, 6), 2
    kernel = torch.from_numpy(weights(6, 2 * 3 * 2, density=0.7).reshape(6, 2, 3, 2))
    geometry = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": groups}
    convolution = Convolution("input", "hidden", kernel, shape=shape, **geometry)
    sources, targets = 4 * 5 * 6, int(np.prod(convolution.out_shape))
    images = torch.eye(sources, dtype=torch.float64).reshape(sources, *shape)
    matrix = torch.nn.functional.conv2d(images, kernel.double(), **geometry).reshape(sources, targets).long().numpy()
    fan = Synapses(convolution, sources, targets)
    source, target, weight = fan.window(0, targets)
    found = np.zeros_like(matrix)
    found[source, target] = weight
    assert (found == matrix).all() and (fan.fan_in() == (matrix != 0).sum(0)).all()
    some = fan.window(3, 7)
    assert (np.bincount(some[1], minlength=7)[3:] == fan.fan_in()[3:7]).all()


# ---- violations ------------------------------------------------------------------------------------------------------------


def test_fan_in_names_neuron_limit_and_remedy():
    weight = np.zeros((80, 20), int)
    weight[:, 17] = 2
    graph = HardwareNetwork(
        [Inputs("input", 80), LIFNeurons("hidden", 20, **XYLO)], [Dense("input", "hidden", weight)], dt=1e-3
    )
    chip = profile("xylo").changed(output_fan_in=None)
    line = "hidden, neuron 17: fan-in 80 of 63; prune to the 63 largest weights, or split the neuron"
    assert line in [str(each) for each in check(graph, chip).violations]
    assert not [each for each in check(graph, "xylo").violations if "fan_in" in each.limit]  # outputs may have 1,000
    assert only(check(graph, profile("xylo").changed(output_fan_in=70)), "output_fan_in").found == 80


def test_inputs_hidden_and_outputs():
    placed = check(network(17, 1001, outputs=9, density=0.01, **XYLO), "xylo")
    assert [only(placed, name).found for name in ("inputs", "hidden", "outputs")] == [17, 1001, 9]
    small = check(network(16, 40, outputs=8, density=0.5, **XYLO), "xylo")
    assert {each.limit for each in small.violations} == {"resets"}


@pytest.mark.parametrize(
    ("limit", "allowed", "neuron"),
    [("synapse_bits_per_core", 6 * 64 - 1, 0), ("input_axons_per_core", 5, 0), ("delay_slots_per_core", 3, 0)],
)
def test_a_neuron_that_fits_on_no_core(limit, allowed, neuron):
    chip = profile("loihi1").changed(**{limit: allowed})
    found = only(check(network(6, 4, delay=3), chip), limit)
    assert (found.layer, found.neuron, found.count) == ("hidden", neuron, 4) and found.found == allowed + 1


def test_too_few_cores():
    chip = profile("loihi1").changed(cores=2)
    found = only(check(network(700, 256, recurrent=True), chip), "cores")
    assert (found.neuron, found.found, found.allowed) == (252, 3, 2)


def test_output_axons_that_no_split_helps():
    chip = profile("loihi1").changed(neurons_per_core=1, output_axons_per_core=3)
    found = only(check(network(1, 5, recurrent=True), chip), "output_axons_per_core")
    assert (found.layer, found.neuron, found.found, found.count) == ("hidden", 0, 5, 5)


def test_weights_that_need_more_bits():
    weight = np.array([[2, 4], [126, -252]])
    graph = HardwareNetwork([Inputs("input", 2), LIFNeurons("hidden", 2)], [Dense("input", "hidden", weight)], dt=1e-3)
    assert not [each for each in check(graph, "loihi1").violations if each.limit == "weight_bits"]
    found = only(check(graph, "brainscales2"), "weight_bits")
    assert (found.layer, found.neuron, found.found, found.allowed, found.count) == ("input->hidden", 1, 7, 6, 1)
    large = Convolution("input", "hidden", [[[[300]]]], shape=(1, 1, 2))
    found = only(check(graph.changed(projections=[large]), profile("loihi1").changed(weight_bits=6)), "weight_bits")
    assert (found.neuron, found.found) == (None, 7)  # 300 is 75 << 2; a kernel has many targets
    sparse = Sparse("input", "hidden", [1, 127, -255], rows=[0, 1, 0], columns=[0, 0, 1], sign_mode="mixed")
    graph = graph.changed(projections=[sparse])
    assert only(check(graph, profile("speck").changed(weight_bits=7)), "weight_bits").neuron == 1


@given(st.lists(st.integers(-255, 255), min_size=1, max_size=8), st.sampled_from(["signed", "magnitude", "sign mode"]))
def test_bits_hold_the_weights_and_fewer_do_not(values, weight_format):
    factor = np.gcd.reduce(np.abs(values))
    factor = int(factor & -factor) or 1
    signed = weight_format == "signed" or (weight_format == "sign mode" and min(values) < 0 < max(values))

    def fits(value, bits):
        return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) if signed else value < 2**bits

    for value, bits in zip(values, bits_needed(torch.tensor(values), weight_format).tolist(), strict=True):
        value = value // factor if signed else abs(value) // factor
        assert fits(value, bits)
        assert bits == signed or not fits(value, bits - 1)


def test_delays():
    delay = np.zeros((3, 4), int)
    delay[1, 2], delay[0, 0] = 20, 16
    graph = HardwareNetwork(
        [Inputs("input", 3), LIFNeurons("hidden", 4)], [Dense("input", "hidden", weights(3, 4), delay=delay)], dt=1e-3
    )
    found = only(check(graph, profile("loihi1").changed(max_delay=15)), "max_delay")
    assert (found.layer, found.neuron, found.found, found.count) == ("input->hidden", 2, 20, 2)
    assert check(graph, "loihi1").ok and only(check(graph, "xylo"), "max_delay").allowed == 0


def test_time_constants_and_thresholds_of_a_core():
    dv, vth = np.arange(100, 140), np.arange(40) // 2
    graph = network(3, 40, dv=dv, vth=vth)
    placed = check(graph, "loihi1")
    sets, thresholds = only(placed, "time_constants_per_core"), only(placed, "thresholds_per_core")
    assert (sets.neuron, sets.found, sets.allowed) == (32, 40, 32)
    assert (thresholds.neuron, thresholds.found, thresholds.allowed) == (32, 20, 16)
    assert check(graph, profile("loihi1").changed(neurons_per_core=20)).ok  # they are counted core by core
    two = network(3, 20, outputs=20, dv=dv[:20])
    output = dataclasses.replace(two["output"], dv=dv[20:])
    two = two.changed(populations=[*two.populations[:2], output])
    assert only(check(two, "loihi1"), "time_constants_per_core").layer == "output"  # which shares the core


def test_kinds_of_neurons():
    class Resonators(Population):
        kind = "resonators"

    graph = HardwareNetwork(
        [Inputs("input", 2), Resonators("hidden", 3)], [Dense("input", "hidden", weights(2, 3))], dt=1e-3
    )
    assert str(only(check(graph, "loihi1"), "neuron_kinds")).startswith("hidden: neuron kind resonators, not lif;")


def test_resets():
    assert only(check(network(2, 3, **XYLO), "xylo"), "resets").allowed == "subtract"
    assert check(network(2, 3), "loihi1").ok


@pytest.mark.parametrize(
    ("chip", "good", "bad"),
    [("speck", IF, {"dv": [0, 0, 5], "du": 4095}), ("xylo", XYLO, {"dv": [256, 2, 300], "du": 1023})],
)
def test_decays(chip, good, bad):
    assert not [each for each in check(network(2, 3, **good), chip).violations if each.limit == "decay"]
    found = only(check(network(2, 3, **bad), chip), "decay")
    assert (found.neuron, found.count) == (2, 1)


def test_recurrence():
    graph = network(2, 3, recurrent=True, **IF)
    assert only(check(graph, "speck"), "recurrent").layer == "hidden->hidden"
    assert only(check(graph, "xylo"), "recurrent_outputs").layer == "hidden->hidden"  # it is the output, too
    loop = network(2, 3, outputs=2, **IF)
    loop = loop.changed(projections=[*loop.projections, Dense("output", "hidden", weights(2, 3))])
    layers = {each.layer for each in check(loop, "speck").violations if each.limit == "recurrent"}
    assert layers == {"hidden->output", "output->hidden"}


def test_graded_spikes():
    graph = network(2, 3)
    graph = graph.changed(projections=[dataclasses.replace(graph.projections[0], message_bits=16)])
    assert only(check(graph, "loihi1"), "graded_bits").found == 16
    assert not [each for each in check(graph, "loihi2").violations if each.limit == "graded_bits"]


def test_layers_of_speck_find_the_cores_that_hold_them():
    def image(source, target, channels, into, side):
        kernel = weights(into, channels * 9).reshape(into, channels, 3, 3) // 2
        return Convolution(source, target, kernel, shape=(channels, side, side), padding=(1, 1))

    small = [LIFNeurons("a", 8 * 32 * 32, **IF), LIFNeurons("b", 64 * 16 * 16, **IF), LIFNeurons("c", 10, **IF)]
    projections = [image("input", "a", 2, 8, 32), Dense("b", "c", weights(64 * 256, 10) // 2)]
    graph = HardwareNetwork([Inputs("input", 2 * 32 * 32), *small], projections, dt=1e-3)
    found = only(check(graph, "speck"), "kernel_entries")
    assert (found.layer, found.found, found.allowed) == ("c", 64 * 256 * 16, 64 * 1024)
    fits = graph.changed(projections=projections[:1])
    placed = check(fits, "speck")
    assert placed.ok and len({piece.core for piece in placed.cores}) == 3
    assert placed.cores[0].synapse_bits == 2 * 16 * 8 * 8
    wide = HardwareNetwork([Inputs("input", 2), LIFNeurons("a", 65 * 1024, **IF)], [], dt=1e-3)
    assert only(check(wide, "speck"), "neuron_entries").found == 65 * 1024
    many = [LIFNeurons(f"layer{k}", 64 * 1024, **IF) for k in range(4)]  # three cores have so many neurons
    crowded = check(HardwareNetwork([Inputs("input", 2), *many], [], dt=1e-3), "speck")
    assert only(crowded, "cores").layer == "layer3" and "fit on 3 cores" in str(only(crowded, "cores"))
    assert len({piece.core for piece in crowded.cores}) == 4


def test_a_layer_moves_for_one_that_fits_nowhere_else():
    chip = profile("speck").changed(kernel_entries=(8, 8), neuron_entries=(64, 16), cores=2)
    layers = [LIFNeurons("first", 10, **IF), LIFNeurons("second", 50, **IF)]
    placed = check(HardwareNetwork([Inputs("input", 2), *layers], [], dt=1e-3), chip)
    assert placed.ok and [piece.core for piece in placed.cores] == [1, 0]


def test_a_source_of_both_signs_takes_two_rows_of_brainscales():
    signs = np.array([[2, -2], [2, 2], [-2, -2]])
    graph = HardwareNetwork([Inputs("input", 3), LIFNeurons("hidden", 2)], [Dense("input", "hidden", signs)], dt=1e-3)
    assert check(graph, "brainscales2").cores[0].axons_in == 4
    assert check(graph, "loihi1").cores[0].axons_in == 3


def test_the_result_is_plain_and_says_what_is_not_verified():
    placed = check(network(3, 4, **XYLO), "loihi2")
    plain = json.loads(json.dumps(placed.to_dict()))
    assert plain["ok"] is True and plain["cores"][0]["last"] == 3 and plain["violations"] == []
    assert "input_axons_per_core" in placed.unverified and "weight_bits" not in placed.unverified
    assert plain["unverified"]["input_axons_per_core"] == {"value": None, "source": "none found"}
    failed = check(network(3, 4, **XYLO), "xylo").to_dict()
    assert failed["ok"] is False and failed["violations"][0]["line"].startswith("hidden: reset to zero, not subtract;")
    assert "does not fit" in str(check(network(3, 4), "xylo"))


# ---- profiles --------------------------------------------------------------------------------------------------------------


def test_profiles():
    assert list(PROFILES) == ["loihi1", "loihi2", "xylo", "speck", "spinnaker2", "brainscales2"]
    for each in PROFILES.values():
        assert all(limit.value is not None or limit.status == "unverified" for limit in each.limits.values())
        assert all(limit.status == "unverified" for limit in each.limits.values() if "none found" in limit.source)
    with pytest.raises(ValueError, match=r"no profile 'loihi' .did you mean 'loihi[12]'"):
        profile("loihi")
    with pytest.raises(ValueError, match=r"no limit is called 'fanin' .did you mean 'fan_in'"):
        profile("xylo").changed(fanin=3)
    with pytest.raises(ValueError, match="no limit is called 'corez'"):
        profile("xylo").value("corez")
    with pytest.raises(ValueError, match="expected one of verified, reported, unverified"):
        Limit(3, "someone", "sure")
    with pytest.raises(ValueError, match="expected who says so"):
        Limit(3, "", "verified")
    assert profile("xylo").changed(fan_in=Limit(64, "a letter", "reported")).limits["fan_in"].source == "a letter"


# ---- clustering ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4095), st.integers(0, 4096), st.integers(0, 500)), min_size=1, max_size=40),
    st.integers(9, 20),
)
def test_clustering_never_adds_sets_and_twice_is_once(neurons, num):
    du, dv, vth = (list(part) for part in zip(*neurons, strict=True))
    graph = network(2, len(neurons), du=du, dv=dv, vth=vth)
    once, report = cluster_time_constants(graph, num, thresholds=num)
    twice, again = cluster_time_constants(once, num, thresholds=num)
    assert report.sets_after <= min(num, report.sets_before)
    assert report.thresholds_after <= min(num, report.thresholds_before)
    for name in ("du", "dv", "vth"):
        assert torch.equal(getattr(once["hidden"], name), getattr(twice["hidden"], name))
    assert again.max_change_tau_mem == again.max_change_tau_syn == again.max_change_threshold == 0
    for name, special in (("du", -1), ("du", 4095), ("dv", 0), ("dv", 4096), ("vth", 0)):
        before, after = getattr(graph["hidden"], name), getattr(once["hidden"], name)
        assert torch.equal(before == special, after == special)  # what has no decay keeps none


def test_clustered_networks_pass_and_the_change_is_reported():
    rng = np.random.default_rng(0)
    neurons = {
        "du": rng.integers(300, 1200, 300),
        "dv": rng.integers(50, 400, 300),
        "vth": rng.integers(100, 4000, 300),
    }
    graph = network(5, 300, recurrent=True, **neurons)
    assert {each.limit for each in check(graph, "loihi1").violations} == {
        "time_constants_per_core",
        "thresholds_per_core",
    }
    clustered, report = cluster_time_constants(graph, 32, thresholds=16)
    assert check(clustered, "loihi1").ok
    tau = [-1 / np.log1p(-each["hidden"].dv.numpy() / 4096) for each in (graph, clustered)]
    change = np.abs(tau[1] / tau[0] - 1)
    assert report.max_change_tau_mem == pytest.approx(change.max()) and report.mean_change_tau_mem == pytest.approx(
        change.mean()
    )
    change = np.abs(clustered["hidden"].vth.numpy() / neurons["vth"] - 1)
    assert report.max_change_threshold == pytest.approx(change.max()) and report.mean_change_threshold < 0.1
    assert report.mean_change_tau_mem < 0.15 and report.mean_change_tau_syn < 0.15
    assert "300" not in str(report).split(";")[1] and "-> 16 thresholds" in str(report)
    more = cluster_time_constants(graph, 128)[1]
    assert more.mean_change_tau_mem < report.mean_change_tau_mem and more.max_change_threshold == 0
    left, same = cluster_time_constants(graph, None, thresholds=16)
    assert same.max_change_tau_mem == 0 and torch.equal(left["hidden"].du, graph["hidden"].du)


def test_groups_of_time_constants_are_found():
    centres = np.repeat([100, 400, 1600], 5)
    spread = np.tile([-4, -2, 0, 2, 4], 3) * centres // 400
    clustered, report = cluster_time_constants(network(1, 15, dv=centres + spread), 3)
    assert report.max_change_tau_mem < 0.03
    assert len(np.unique(clustered["hidden"].dv.numpy().reshape(3, 5), axis=1)[0]) == 1
    assert np.abs(clustered["hidden"].dv.numpy() - centres).max() <= 1


def test_clustering_refuses_what_it_cannot_do():
    graph = network(1, 3, dv=[0, 4096, 300])
    with pytest.raises(ValueError, match="num: expected at least 3"):
        cluster_time_constants(graph, 2)
    with pytest.raises(ValueError, match="thresholds: expected an integer from 1, got 0"):
        cluster_time_constants(graph, 3, thresholds=0)
