"""Random hardware graphs that reach into every corner of the arithmetic."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eventnet.hardware.egru import PLACES, EGRUUnits
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.network import Convolution, Dense, HardwareNetwork, Inputs, Projection, Sparse

SIGNS = {"mixed": (-300, 300), "excitatory": (-20, 300), "inhibitory": (-300, 20), None: (-300, 300)}


def random_network(seed: int) -> tuple[HardwareNetwork, Tensor]:
    """A network of two populations, and input ``(T, 1, N)``; the seed decides everything."""
    draw = np.random.default_rng(seed)
    sizes = {"input": int(draw.integers(1, 9)), "hidden": int(draw.integers(1, 9)), "output": int(draw.integers(1, 5))}
    graded = bool(draw.random() < 0.2)
    neurons = [lif(name, sizes[name], draw) for name in ("hidden", "output")]
    pairs = [("input", "hidden"), ("hidden", "output")]
    pairs += [pair for pair in (("hidden", "hidden"), ("output", "hidden"), ("input", "output")) if draw.random() < 0.5]
    projections = [synapses(a, b, sizes[a], sizes[b], draw, 16 if graded and a == "input" else 0) for a, b in pairs]
    steps = int(draw.integers(20, 50))
    spikes = draw.random((steps, 1, sizes["input"])) < draw.uniform(0.05, 0.6)
    values = spikes * (draw.integers(-40, 40, spikes.shape) if graded else 1)
    network = HardwareNetwork([Inputs("input", sizes["input"]), *neurons], projections, dt=1e-3)
    return network, torch.from_numpy(values.astype(np.int32))


def lif(name: str, size: int, draw: np.random.Generator) -> LIFNeurons:
    """Neurons whose parameters are shared or their own, small or at the ends of their ranges."""

    def some(low: int, high: int) -> np.ndarray | int:
        ends = draw.random() < 0.15
        values = draw.choice([low, high], size) if ends else draw.integers(low, high + 1, size)
        return values if draw.random() < 0.5 else int(values[0])

    loud = draw.random() < 0.2  # currents wrap and voltages clip
    interval = int(draw.integers(1, 12)) if draw.random() < 0.2 else None
    return LIFNeurons(
        name,
        size,
        du=some(-1, 4095 if not loud else 3),
        dv=some(0, 4096 if not loud else 3),
        vth=some(0, int(draw.choice([50, 2000, 131_071]))),
        bias_mant=some(-4096, 4095) if draw.random() < 0.5 else 0,
        bias_exp=some(-7, 7),
        u=some(-(2**23) + 1, 2**23 - 1) if loud else some(-5000, 5000),
        v=some(-(2**23) + 1, 2**23 - 1) if loud else some(-5000, 5000),
        reset_interval=interval,
        reset_offset=int(draw.integers(0, 12)),
    )


def synapses(source: str, target: str, rows: int, columns: int, draw: np.random.Generator, message: int) -> Projection:
    """Dense or sparse synapses, with or without delays, of any sign mode, bits and exponent."""
    sign = [*SIGNS][draw.integers(4)]
    weight = draw.integers(*SIGNS[sign], (rows, columns), endpoint=True)
    longest = int(draw.choice([0, 3, 62]))
    delay = draw.integers(0, longest, (rows, columns), endpoint=True)
    options = {
        "weight_exp": int(draw.integers(-7, 8)),
        "weight_bits": int(draw.integers(1, 9)),
        "sign_mode": sign,
        "message_bits": message,
    }
    if draw.random() < 0.6:
        return Dense(source, target, weight, delay=delay if longest else None, **options)
    there = draw.random((rows, columns)) < 0.6
    there[0, 0] = True
    row, column = there.nonzero()
    late = delay[there] if longest else None
    return Sparse(source, target, weight[there], rows=row, columns=column, delay=late, **options)


def random_convolution(seed: int) -> tuple[HardwareNetwork, Tensor]:
    """An image, a convolution of any geometry, and neurons behind it."""
    draw = np.random.default_rng(seed)
    groups = int(draw.integers(1, 3))
    shape = (2 * groups, int(draw.integers(4, 8)), int(draw.integers(4, 8)))
    kernel = draw.integers(-200, 200, (2 * groups, 2, int(draw.integers(1, 4)), int(draw.integers(1, 4))))
    pair = lambda low, high: (int(draw.integers(low, high)), int(draw.integers(low, high)))  # noqa: E731
    options = {"stride": pair(1, 3), "padding": pair(0, 3), "dilation": pair(1, 2), "groups": groups}
    convolution = Convolution("image", "hidden", kernel, shape=shape, **options)
    size = int(np.prod(convolution.out_shape))
    hidden = LIFNeurons("hidden", size, du=409, dv=300, vth=200)
    dense = Dense("hidden", "output", draw.integers(-200, 200, (size, 3)))
    populations = [Inputs("image", int(np.prod(shape))), hidden, LIFNeurons("output", 3, du=300, dv=100, vth=300)]
    spikes = draw.random((20, 1, int(np.prod(shape)))) < 0.2
    return HardwareNetwork(populations, [convolution, dense], dt=1e-3), torch.from_numpy(spikes.astype(np.int32))


def random_egru(seed: int) -> tuple[HardwareNetwork, Tensor]:
    """Two layers of EGRU units and an output that never fires, and input ``(T, 1, N)``, graded or not."""
    draw = np.random.default_rng(seed)
    sizes = {
        "input": int(draw.integers(1, 9)),
        **{f"hidden_{k}": int(draw.integers(1, 9)) for k in range(2)},
        "output": 3,
    }
    message = 8 if draw.random() < 0.7 else 0
    layers, projections, below = [], [], ("input", message)
    for k in range(2):
        name, size = f"hidden_{k}", sizes[f"hidden_{k}"]
        layers.append(egru(name, size, k + 2, draw))
        for port, (source, bits) in (("input", below), ("recurrent", (name, layers[-1].payload_bits))):
            weight = draw.integers(-300, 300, (sizes[source], 3 * size))
            exponent = int(draw.choice([0, 0, 0, -2, 1]))
            projections.append(Dense(source, name, weight, port=port, message_bits=bits, weight_exp=exponent))
        below = name, layers[-1].payload_bits
    weight = draw.integers(-300, 300, (sizes["hidden_1"], 3))
    projections.append(Dense("hidden_1", "output", weight, message_bits=below[1], weight_exp=-5))
    output = LIFNeurons("output", 3, du=4095, dv=int(draw.choice([4096, 410])), vth=131_071)
    steps = int(draw.integers(10, 30))
    spikes = draw.random((steps, 1, sizes["input"])) < draw.uniform(0.1, 0.8)
    values = spikes * (draw.integers(-255, 256, spikes.shape) if message else 1)
    network = HardwareNetwork([Inputs("input", sizes["input"]), *layers, output], projections, dt=1e-3)
    return network, torch.from_numpy(values.astype(np.int32))


def egru(name: str, size: int, first: int, draw: np.random.Generator) -> EGRUUnits:
    """EGRU units whose pre-activations reach over the tables' whole range, or beyond; some with tables of their own."""
    gain = {}
    for end in ("input", "recurrent"):
        gain[f"{end}_multiplier"] = draw.integers(2**13, 2**15, 3 * size)
        gain[f"{end}_shift"] = draw.integers(14, 20, 3 * size)
        gain[f"{end}_bias"] = draw.integers(-(2**13), 2**13, 3 * size)
    odd = draw.integers(-(2**15), 2**15 + 1, (3, PLACES)) if draw.random() < 0.2 else None
    threshold = draw.choice([0, 2**15], size) if draw.random() < 0.1 else draw.integers(0, 2**14, size)
    bits = int(draw.choice([8, 8, 1, 12, 15]))
    return EGRUUnits(name, size, threshold=threshold, payload_bits=bits, first_step=first, table=odd, **gain)
