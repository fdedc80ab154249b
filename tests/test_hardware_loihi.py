"""The integer simulation: equal to Lava 0.10.0, live or as recorded, and right in small cases written out by hand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hardware_networks import random_convolution, random_network
from hypothesis import given, settings
from hypothesis import strategies as st
from in_lava import compare_with_lava

from eventnet.hardware.files import load_network, save_network
from eventnet.hardware.lava import to_lava
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs, Sparse
from eventnet.kernels import cpu

HERE = Path(__file__).resolve().parent
RECORDED = sorted((HERE / "recorded").glob("lava_*.npz"))
needs_lava = pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="Lava is not installed: make lava")


def one(du=4095, dv=0, vth=1000, **options):
    """A neuron that hears one input through a weight of 100."""
    neuron = LIFNeurons("neuron", 1, du=du, dv=dv, vth=vth, **options)
    return HardwareNetwork([Inputs("input", 1), neuron], [Dense("input", "neuron", [[100]])], dt=1e-3)


def run(network, *spikes):
    found = simulate(network, torch.tensor(spikes, dtype=torch.int32)[:, None])
    return tuple(part["neuron"][:, 0].tolist() for part in found)


# ---- equal to Lava -------------------------------------------------------------------------------------------------------


@needs_lava
def test_random_networks_equal_lava(tmp_path):
    networks = [random_network(seed) for seed in range(18)] + [random_convolution(seed) for seed in range(2)]
    assert compare_with_lava(networks, tmp_path) == {}


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 320, 20))
def test_more_random_networks_equal_lava(first, tmp_path):
    networks = [random_network(seed) for seed in range(first, first + 18)]
    networks += [random_convolution(seed) for seed in range(first, first + 2)]
    assert compare_with_lava(networks, tmp_path) == {}


@needs_lava
def test_lava_s_check_sees_a_wrong_weight(tmp_path):
    network, spikes = random_convolution(3)
    to_lava(network, tmp_path / "a", spikes)
    wrong = dict(np.load(tmp_path / "a" / "expected.npz"))
    wrong["v.hidden"] = wrong["v.hidden"] + 1
    np.savez(tmp_path / "a" / "expected.npz", **wrong)
    command = [sys.executable, str(tmp_path / "a" / "lava_network.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1 and "v.hidden" in result.stdout, result.stderr


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_networks_equal_lava(path):
    network, lava = load_network(path.with_suffix(".safetensors")), dict(np.load(path))
    (inputs,) = (each.name for each in network.inputs)
    found = simulate(network, torch.from_numpy(lava.pop(f"spikes.{inputs}")))
    for name, x in lava.items():
        part, population = name.split(".")
        np.testing.assert_array_equal(getattr(found, part)[population].numpy(), x, err_msg=name)


def test_there_are_recorded_networks():
    networks = [load_network(path.with_suffix(".safetensors")) for path in RECORDED]
    kinds = {projection.kind for network in networks for projection in network.projections}
    assert kinds == {"dense", "sparse", "convolution"}
    assert any(projection.max_delay > 50 for network in networks for projection in network.projections)
    spikes = sum(
        int(x.sum()) for path in RECORDED for name, x in np.load(path).items() if name.startswith("spikes.hidden")
    )
    assert spikes > 300


# ---- written out by hand -------------------------------------------------------------------------------------------------


def test_a_hop_takes_a_step_and_the_current_enters_the_voltage_at_once():
    _, u, v = run(one(), 1, 0, 0)
    assert u == [0, 6400, 0] and v == [0, 6400, 6400]


def test_decays_round_towards_zero():
    _, u, _ = run(one(du=2047, u=-3), 0, 0)  # half a step: -1.5 -> -1, -0.5 -> 0
    assert u == [-1, 0]
    _, _, v = run(one(dv=2048, v=-3), 0, 0)
    assert v == [-1, 0]


def test_threshold_is_strict_and_resets_the_voltage_alone():
    spikes, u, v = run(one(du=-1, vth=100), 1, 0, 0)
    assert spikes == [0, 0, 1] and v == [0, 6400, 0] and u == [0, 6400, 6400]


def test_current_wraps_once_and_voltage_clips():
    high = 2**23 - 1
    _, u, v = run(one(du=-1, u=high, vth=131_071, v=high, dv=0), 1, 0)
    assert u == [high, high + 6400 - 2**24]
    spikes, _, v = run(one(du=-1, u=-high, v=-high, vth=131_071), 0)
    assert v == [-high] and spikes == [0]


def test_bias_shifts_up_and_down():
    assert run(one(bias_mant=5, bias_exp=3), 0)[2] == [40]
    assert run(one(bias_mant=-5, bias_exp=-1), 0)[2] == [-3]  # towards minus infinity


def test_interval_reset_comes_before_the_step():
    _, u, v = run(one(du=-1, u=10, v=10, reset_interval=3, reset_offset=2), 0, 0, 0)
    assert u == [10, 0, 0] and v == [20, 0, 0]


def test_refractory_neuron_is_held():
    spikes, _, v = run(one(du=-1, u=6401, vth=100, refractory=2), 0, 0, 0, 0)
    assert spikes == [1, 0, 0, 1] and v == [0, 0, 0, 0]


def test_sum_is_shifted_not_each_weight():
    network = HardwareNetwork(
        [Inputs("input", 2), LIFNeurons("neuron", 1)],
        [Dense("input", "neuron", [[3], [3]], weight_exp=-1, sign_mode="excitatory")],
        dt=1e-3,
    )
    found = simulate(network, torch.ones(1, 1, 2, dtype=torch.int32).repeat(2, 1, 1))
    assert int(found.u["neuron"][1]) == (6 >> 1) << 6


def test_delay_zero_arrives_a_step_later_and_62_is_the_last():
    for delay in (0, 1, 62):
        network = HardwareNetwork(
            [Inputs("input", 1), LIFNeurons("neuron", 1)], [Dense("input", "neuron", [[100]], delay=delay)], dt=1e-3
        )
        spikes = torch.zeros(70, 1, 1, dtype=torch.int32)
        spikes[3] = 1
        assert simulate(network, spikes).u["neuron"].flatten().nonzero().tolist() == [[3 + 1 + delay]]
    with pytest.raises(ValueError, match="delay: expected 0 to 62"):
        Dense("input", "neuron", [[100]], delay=63)


def test_effective_weights():
    weight = [[-300, -5, 3, 300]]
    assert Dense("a", "b", weight, sign_mode="mixed").effective().tolist() == [[-256, -6, 2, 254]]
    assert Dense("a", "b", weight, sign_mode="mixed", weight_bits=1).effective().tolist() == [[-256, -256, 0, 0]]
    assert Dense("a", "b", weight, sign_mode="excitatory").effective().tolist() == [[0, 0, 3, 255]]
    assert Dense("a", "b", weight, sign_mode="inhibitory", weight_bits=7).effective().tolist() == [[-254, -4, 0, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_voltage_before_the_reset(seed):
    network, spikes = random_network(seed)
    found = simulate(network, spikes)
    for neurons in network.neurons:
        u, v, fired = (part[neurons.name] for part in (found.u, found.v, found.spikes))
        before = neurons.before_reset(u, v)
        assert torch.equal(before > (neurons.vth << 6), fired > 0)
        assert torch.equal(torch.where(fired > 0, 0, before), v)


# ---- properties ----------------------------------------------------------------------------------------------------------


def same(a, b):
    return all(
        torch.equal(x, y[name])
        for part, other in zip(a, b, strict=True)
        for name, x, y in [(n, x, other) for n, x in part.items()]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_a_run_cut_in_two_is_the_whole(seed, data):
    network, spikes = random_network(seed)
    cut = data.draw(st.integers(0, len(spikes)))
    whole = simulate(network, spikes)
    first, state = simulate(network, spikes[:cut], return_state=True)
    second = simulate(network, spikes[cut:], state=state)
    joined = tuple({name: torch.cat([x, b[name]]) for name, x in a.items()} for a, b in zip(first, second, strict=True))
    assert same(whole, joined)
    assert state.step == cut  # the state is not touched by going on from it


@pytest.mark.skipif(cpu.load() is None, reason="no compiled kernels")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_compiled_kernel_equals_the_reference(seed):
    network, spikes = random_network(seed)
    spikes = torch.cat([spikes, spikes.roll(5, 0)], dim=1)
    runs = [simulate(network, spikes, backend=backend, return_state=True) for backend in ("reference", "cpu")]
    assert same(*(found for found, _ in runs))
    states = [state for _, state in runs]
    assert states[0].overflows == states[1].overflows and states[0].step == states[1].step
    assert all(torch.equal(x, states[1].pending[port]) for port, x in states[0].pending.items())


def test_a_backend_that_does_not_serve_says_why():
    network, spikes = random_convolution(0)
    with pytest.raises(ValueError, match=r"does not serve this network: .*no convolutions.*backend='reference'"):
        simulate(network, spikes, backend="cpu")
    with pytest.raises(ValueError, match="expected one of auto, cpu, reference, got 'gpu'"):
        simulate(network, spikes, backend="gpu")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_samples_of_a_batch_do_not_see_each_other(seed):
    network, spikes = random_network(seed)
    batch = torch.cat([spikes, torch.zeros_like(spikes), spikes.roll(3, 0)], dim=1)
    together = simulate(network, batch)
    for k in range(3):
        alone = simulate(network, batch[:, k])
        assert same(alone, tuple({name: x[:, k] for name, x in part.items()} for part in together))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_sparse_synapses_are_dense_ones_with_zeros(seed):
    draw = np.random.default_rng(seed)
    weight, delay = draw.integers(-256, 255, (5, 6)), draw.integers(0, 20, (5, 6))
    weight[draw.random((5, 6)) < 0.5] = 0
    rows, columns = weight.nonzero()
    options = {"weight_exp": int(draw.integers(-3, 3)), "sign_mode": "mixed"}
    neurons = [Inputs("input", 5), LIFNeurons("hidden", 6, du=500, dv=300, vth=300)]
    dense = HardwareNetwork(neurons, [Dense("input", "hidden", weight, delay=delay, **options)], dt=1e-3)
    late = delay[rows, columns]
    sparse = Sparse("input", "hidden", weight[rows, columns], rows=rows, columns=columns, delay=late, **options)
    spikes = torch.from_numpy((draw.random((40, 2, 5)) < 0.3).astype(np.int32))
    assert same(simulate(dense, spikes), simulate(dense.changed(projections=[sparse]), spikes))


def test_convolution_is_torch_s():
    kernel = torch.randint(-9, 9, (4, 1, 3, 2), generator=torch.Generator().manual_seed(0))
    geometry = Convolution("image", "neuron", kernel, shape=(2, 5, 6), stride=(2, 1), padding=(1, 0), groups=2)
    size = int(np.prod(geometry.out_shape))
    network = HardwareNetwork([Inputs("image", 60), LIFNeurons("neuron", size, vth=131_071)], [geometry], dt=1e-3)
    image = torch.randint(0, 2, (1, 3, 60), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    found = simulate(network, torch.cat([image, torch.zeros_like(image)])).u["neuron"][1]
    expected = torch.nn.functional.conv2d(
        image[0].double().reshape(3, 2, 5, 6), kernel.double(), None, (2, 1), (1, 0), 1, 2
    )
    assert torch.equal(found, expected.flatten(1).int() << 6)


# ---- files and errors ----------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_a_file_keeps_everything(tmp_path_factory, seed, image):
    network, spikes = random_convolution(seed) if image else random_network(seed)
    path = tmp_path_factory.mktemp("file") / "network.safetensors"
    save_network(network, path)
    back = load_network(path)
    assert same(simulate(network, spikes), simulate(back, spikes))
    save_network(back, path.with_name("again"))
    assert path.read_bytes() == path.with_name("again").read_bytes()


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_network(path)
    save_network(one(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged, cut short"):
        load_network(path)
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(ValueError, match="format 9; expected 1"):
        load_network(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIFNeurons("a", 2, du=[1, 2, 3]), r"a.du: expected one integer or \(2,\), got \(3,\)"),
        (lambda: LIFNeurons("a", 2, vth=131_072), "a.vth: expected 0 to 131,071"),
        (lambda: LIFNeurons("a", 0), "a.size: expected an integer from 1"),
        (lambda: LIFNeurons("a b", 1), "letters, digits and underscores"),
        (lambda: Dense("a", "b", [1, 2]), r"expected \(source, target\), got 1 dimensions"),
        (lambda: Dense("a", "b", [[1]], weight_exp=8), "weight_exp: expected an integer from -7 to 7"),
        (lambda: Dense("a", "b", [[1]], sign_mode="odd"), "sign_mode: expected one of mixed"),
        (lambda: Sparse("a", "b", [1, 2], rows=[0, 0], columns=[1, 1]), "got some twice"),
        (lambda: Convolution("a", "b", [[[[1]]]], shape=(2, 3, 3)), "weight: expected"),
        (lambda: HardwareNetwork([LIFNeurons("a", 1)], [], 1e-3), "at least one of kind Inputs"),
        (lambda: HardwareNetwork([Inputs("a", 1)], [], 0.0), "dt: expected seconds > 0"),
        (lambda: HardwareNetwork([Inputs("a", 1), Inputs("a", 1)], [], 1e-3), "'a' twice"),
        (lambda: HardwareNetwork([Inputs("a", 1)], [Dense("a", "b", [[1]])], 1e-3), "no population 'b'; there are a"),
        (
            lambda: HardwareNetwork([Inputs("a", 1)], [Dense("a", "a", [[1]])], 1e-3),
            "expected a target that is no Inputs",
        ),
        (lambda: one().changed(projections=[Dense("input", "neuron", [[1, 2]])]), r"weight: expected \(1, 1\)"),
        (
            lambda: simulate(one(), torch.zeros(3, 2, dtype=torch.int32)),
            r"expected \(T, B, 1\) or \(T, 1\), got \(3, 2\)",
        ),
        (lambda: simulate(one(), {"other": torch.zeros(3, 1, dtype=torch.int32)}), "expected those of input"),
    ],
)
def test_wrong_numbers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_of_something_else_is_refused():
    network, spikes = random_network(0)
    _, state = simulate(network, spikes.repeat(1, 2, 1), return_state=True)
    for backend in ("auto", "reference"):
        with pytest.raises(ValueError, match="a state goes on with the same network and samples"):
            simulate(network, spikes.repeat(1, 6, 1), state=state, backend=backend)
        with pytest.raises(ValueError, match="state: expected one of neuron"):
            simulate(one(), torch.zeros(3, 2, 1, dtype=torch.int32), state=state, backend=backend)
    with pytest.raises(ValueError, match="expected numbers of 32 bits"):
        simulate(one(), torch.full((3, 1), 2**32))


def test_numbers_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match=r"weight: expected integers, got torch.float64"):
        Dense("a", "b", [[1.5]])
    with pytest.raises(TypeError, match=r"expected bool or integers, got torch.float32"):
        simulate(one(), torch.zeros(3, 1))
