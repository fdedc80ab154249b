"""Paths that skip a population: refused, or made as long as the others."""

import itertools

import pytest
import torch

from eventnet.hardware.hops import check_hops, compensated, depths
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs


def relay(name: str) -> LIFNeurons:
    """A neuron that passes each spike on, a step later."""
    return LIFNeurons(name, 1, du=4095, dv=4095, vth=10)


def diamond(length: int, *, delay: int = 0, back: bool = False) -> HardwareNetwork:
    """Two paths from the input to ``end``: through ``length`` relays, and straight."""
    names = ["input", *(f"relay_{k}" for k in range(length)), "end"]
    projections = [Dense(a, b, [[100]]) for a, b in itertools.pairwise(names)]
    projections.append(Dense("input", "end", [[100]], delay=delay or None))
    if back:
        projections += [Dense("end", "relay_0", [[0]]), Dense("end", "end", [[0]])]
    neurons = [relay(name) for name in names[1:]]
    return HardwareNetwork([Inputs("input", 1), *neurons], projections, dt=1e-3)


def spike_steps(network: HardwareNetwork) -> list[int]:
    raster = torch.zeros(20, 1, dtype=torch.int32)
    raster[0] = 1
    return simulate(network, raster).spikes["end"][:, 0].nonzero().flatten().tolist()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_both_paths_arrive_together_once_compensated(length):
    assert spike_steps(diamond(length)) == [1, length + 1]  # the straight one first
    assert spike_steps(compensated(diamond(length))) == [length + 1]


def test_own_delays_stay_on_top():
    network = compensated(diamond(2, delay=3))
    assert int(network.projections[-1].delay) == 2 + 3
    assert spike_steps(network) == [3, 6]


@pytest.mark.parametrize("length, delay", [(1, 0), (3, 2)])
def test_a_skip_is_refused_by_name(length, delay):
    with pytest.raises(ValueError, match=rf"input->end: skips {length} .* arrive {length} step"):
        check_hops(diamond(length, delay=delay))


def test_a_chain_and_a_compensated_skip_pass():
    check_hops(diamond(0))
    check_hops(diamond(2, delay=2))
    check_hops(compensated(diamond(3)))


def test_synapses_without_a_weight_have_no_delay_to_look_at():
    neurons = [relay("relay"), LIFNeurons("end", 2, du=4095, dv=4095, vth=10)]
    path = [Dense("input", "relay", [[100]]), Dense("relay", "end", [[100, 100]])]
    for weight, delay in (([[100, 0]], [[1, 0]]), ([[0, 0]], None)):
        skip = Dense("input", "end", weight, delay=delay if delay is None else torch.tensor(delay))
        check_hops(HardwareNetwork([Inputs("input", 1), *neurons], [*path, skip], dt=1e-3))
    with pytest.raises(ValueError, match="input->end: skips 1"):
        skip = Dense("input", "end", [[100, 100]], delay=torch.tensor([[1, 0]]))
        check_hops(HardwareNetwork([Inputs("input", 1), *neurons], [*path, skip], dt=1e-3))


def test_loops_are_no_skips():
    loop = diamond(0, back=False).changed(
        projections=[Dense("input", "end", [[100]]), Dense("end", "end", [[-2]], sign_mode="mixed")]
    )
    check_hops(loop)
    assert compensated(loop).projections[1].delay is None


def test_a_loop_back_into_a_path_takes_its_populations_off_the_path():
    """relay_0 and end lead to each other: which of them comes first is not a matter of depth."""
    network = diamond(1, back=True)
    assert depths(network) == {"input": 0, "relay_0": 1, "end": 1}
    check_hops(network)


def test_what_cannot_be_delayed_is_refused():
    network = diamond(1, delay=62)
    with pytest.raises(ValueError, match=r"input->end: 1 skipped populations .* make 63 steps, expected at most 62"):
        compensated(network)
    convolution = Convolution("input", "end", [[[[100]]]], shape=(1, 1, 1))
    with pytest.raises(ValueError, match="a convolution has no delays"):
        compensated(network.changed(projections=[*network.projections[:-1], convolution]))
