"""The fidelity ledger: every model against a reference, the tolerance reached, and when.

    python benchmarks/fidelity.py [--data-root FOLDER]      writes benchmarks/results/fidelity.md and
    fidelity.json

A row whose reference is not here (a simulator or a data set that is not installed) keeps its last result and
date. The exit status is 1 if a row misses its tolerance.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fidelity_hardware
import ledger
import numpy as np
import torch
from ledger import NotHere, Row, version
from nest_process import simulate_apart
from torch import Tensor, nn

from eventnet import EGRU, LI, LIF, EGRUState, Events, kernels, lif
from eventnet.data import mackey_glass, yinyang
from eventnet.kernels.reference_egru import Unit
from eventnet.training.gradient_check import max_relative_error

RESULTS = Path(__file__).with_name("results")
TAU_MEM, TAU_SYN = 20e-3, 5e-3
SECONDS = "spike times, s"
GRADIENTS = "gradients, relative to each parameter's largest"


def drive(inputs: int, rate: float, duration: float, seed: int, batch: int = 1) -> Events:
    """Poisson events in float64, none in the first 0.5 ms."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(batch):
        count = random.poisson(rate * inputs * duration)
        samples.append((np.sort(random.uniform(0.5e-3, duration, count)), random.integers(inputs, size=count)))
    return Events.from_list(samples, inputs, duration, dtype=torch.float64)


def weights(inputs: int, outputs: int, mean: float, std: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)


def need_kernels() -> None:
    if "not compiled" in kernels.available()["cpu"]:
        raise NotHere("compiled kernels")


# ---- spike times ---------------------------------------------------------------------------------


def layer(events: Events, weight: Tensor, **settings: Any) -> Events:
    return lif(events, weight, tau_mem=TAU_MEM, tau_syn=TAU_SYN, **settings)


def trains(spikes: Events) -> list[np.ndarray]:
    """The spike times of every neuron in every sample."""
    keys = (spikes.samples * spikes.num_units + spikes.units).numpy()
    return by_neuron(keys, spikes.times.double().numpy(), spikes.batch_size * spikes.num_units)


def by_neuron(units: np.ndarray, times: np.ndarray, number: int) -> list[np.ndarray]:
    return [np.sort(times[units == n]) for n in range(number)]


def largest(ones: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> float:
    """Largest difference of two spike trains; infinite where one has more spikes than the other."""
    pairs = list(zip(ones, others, strict=True))
    if any(len(a) != len(b) for a, b in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def nest_trains(
    events: Events,
    weight: Tensor,
    resolution: float,
    refractory: float,
    recurrent: Tensor | None = None,
    recurrent_delay: Tensor | None = None,
) -> list[np.ndarray]:
    """Each neuron's spike times in seconds by NEST; resolution, refractory and delays in ms."""
    if importlib.util.find_spec("nest") is None:
        raise NotHere("nest-simulator")
    units, times = simulate_apart(
        times=1e3 * events.times.numpy(),
        units=events.units.numpy(),
        weight=weight.numpy(),
        duration=1e3 * events.duration.item(),
        tau_mem=1e3 * TAU_MEM,
        tau_syn=1e3 * TAU_SYN,
        resolution=resolution,
        refractory=refractory,
        recurrent=np.zeros(0) if recurrent is None else recurrent.numpy(),
        recurrent_delay=np.zeros(0) if recurrent_delay is None else recurrent_delay.numpy(),
    )
    return by_neuron(units, 1e-3 * times, weight.shape[1])


def nest_first_spikes(_: str | None) -> Row:
    events, weight = drive(60, 80.0, 0.1, seed=1), weights(60, 400, 0.12, 0.5, seed=2)
    nest, ours = nest_trains(events, weight, 1e-3, 1e-3), trains(layer(events, weight))
    error = largest((a[:1] for a in ours), (a[:1] for a in nest))
    reference = f"NEST {version('nest-simulator')} iaf_psc_exp_ps"
    cases = f"first spikes of {sum(len(a) > 0 for a in ours)} of 400 neurons"
    return Row("LIF", reference, SECONDS, error, 1e-12, cases)


def nest_all_spikes(_: str | None) -> Row:
    """NEST must have a refractory time of a step at least: two short ones, extrapolated to none."""
    events, weight = drive(60, 80.0, 0.1, seed=3), weights(60, 40, 0.12, 0.5, seed=4)
    one, two = (nest_trains(events, weight, 1e-5, refractory) for refractory in (1e-5, 2e-5))
    ours, error = trains(layer(events, weight)), float("inf")
    if largest(one, two) < float("inf"):
        error = largest(ours, (2 * a - b for a, b in zip(one, two, strict=True)))
    reference = f"NEST {version('nest-simulator')} iaf_psc_exp_ps, refractory time of 10 and 20 ns extrapolated to 0"
    return Row("LIF", reference, SECONDS, error, 2e-9, f"all {sum(map(len, ours))} spikes of 40 neurons")


def nest_recurrent(_: str | None) -> Row:
    """Delays are multiples of NEST's step of 1 µs, from 1 to 5 ms: one for each synapse."""
    events, weight = drive(20, 80.0, 0.1, seed=7), weights(20, 20, 0.3, 0.7, seed=8)
    back = weights(20, 20, -0.1, 0.4, seed=9)
    generator = torch.Generator().manual_seed(10)
    delay = torch.randint(1000, 5000, (20, 20), generator=generator).double() * 1e-3
    nest = nest_trains(events, weight, 1e-3, 1.0, back, delay)
    found = dict(recurrent_weight=back, recurrent_delay=1e-3 * delay, refractory=1e-3, backend="reference")
    ours = trains(layer(events, weight, **found))
    reference = f"NEST {version('nest-simulator')} iaf_psc_exp_ps"
    cases = f"all {sum(map(len, ours))} spikes of 20 neurons, a delay per synapse, refractory for 1 ms"
    return Row("LIF, recurrent, plain torch", reference, SECONDS, largest(ours, nest), 1e-12, cases)


def closed_form(_: str | None) -> Row:
    random, tau, worst, cases = np.random.default_rng(5), 10e-3, 0.0, 0
    for _case in range(200):
        times, w = np.sort(random.uniform(0, 2e-3, 5)), random.uniform(0.4, 1.6, 5)
        events = Events.from_list([(times, range(5))], 5, 0.1, dtype=torch.float64)
        for ratio in (1, 2):
            expected = tau * _first_spike(times / tau, w, ratio)
            if not expected > times[-1]:
                continue  # no spike, or one before the last input
            first = lif(events, torch.tensor(w)[:, None], tau_mem=ratio * tau, tau_syn=tau).first_times()
            worst, cases = max(worst, float(abs(first.item() - expected))), cases + 1
    reference = "closed forms of Göltz et al. 2021, tau_mem = tau_syn and 2 tau_syn"
    return Row("LIF", reference, SECONDS, worst, 1e-13, f"{cases} first spikes")


def _first_spike(times: np.ndarray, w: np.ndarray, ratio: int) -> float:
    """In units of tau_syn, NaN if there is none; ``ratio = tau_mem / tau_syn``: 1 (Lambert W) or 2 (a quadratic)."""
    from scipy.special import lambertw

    a = (w * np.exp(times)).sum()
    if ratio == 1:
        b = (w * times * np.exp(times)).sum()
        x = -np.exp(b / a) / a
        return float(b / a - lambertw(x).real) if x >= -np.exp(-1) else np.nan
    b = (w * np.exp(times / 2)).sum()
    return float(2 * np.log(2 * a / (b + np.sqrt(b**2 - 4 * a)))) if b**2 >= 4 * a else np.nan


def float32(_: str | None) -> Row:
    events, weight = drive(200, 40.0, 0.5, seed=6, batch=2), weights(200, 64, 0.0, 0.3, seed=7)
    single, double = (layer(events.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.float64))
    error, cases = largest(trains(single), trains(double)), f"{double.num_events} spikes within 0.5 s"
    return Row("LIF, float32", "LIF, float64", SECONDS, error, 5e-6, cases)


def backends(_: str | None) -> Row:
    need_kernels()
    events, weight = drive(20, 60.0, 0.1, seed=8, batch=2), weights(20, 24, 0.1, 0.7, seed=9)
    compiled, plain = (layer(events, weight, backend=name) for name in ("cpu", "reference"))
    error = largest(trains(compiled), trains(plain))
    return Row("LIF, compiled", "LIF, plain torch", SECONDS, error, 1e-12, f"{compiled.num_events} spikes")


# ---- voltages ------------------------------------------------------------------------------------


def integrated_voltage(_: str | None) -> Row:
    from scipy.integrate import solve_ivp

    events, weight = drive(10, 40.0, 0.1, seed=10), weights(10, 4, 0.1, 0.8, seed=11)
    readout = LI(10, 4, tau_mem=TAU_MEM, tau_syn=TAU_SYN, bias=0.2, dtype=torch.float64)
    readout.weight.data = weight
    state, start, grid = np.concatenate([np.full(4, 0.2), np.zeros(4)]), 0.0, np.linspace(0, 0.0995, 200)
    expected = np.full((200, 4), 0.2)
    stops = [*zip(events.times.tolist(), events.units.tolist(), strict=True), (0.1, None)]
    for stop, unit in stops:
        at = np.append(grid[(grid > start) & (grid < stop)], stop)
        solved = solve_ivp(_li_slope, (start, stop), state, "DOP853", t_eval=at, rtol=1e-12, atol=1e-14)
        expected[np.searchsorted(grid, at[:-1])] = solved.y[:4, :-1].T
        state, start = solved.y[:, -1].copy(), stop
        if unit is not None:
            state[4:] += weight[unit].numpy()
    with torch.no_grad():
        found = readout(events).at(torch.from_numpy(grid))[0].numpy()
    error = float(np.abs(found - expected).max())
    return Row("LI", f"SciPy {version('scipy')} DOP853", "voltage samples, V", error, 1e-10, f"{found.size} samples")


def _li_slope(_: float, state: np.ndarray) -> np.ndarray:
    voltage, current = state[:4], state[4:]
    return np.concatenate([(0.2 - voltage + current) / TAU_MEM, -current / TAU_SYN])


# ---- gradients -----------------------------------------------------------------------------------


def finite_differences(_: str | None) -> Row:
    """A loss on a two-layer network, every kind of parameter."""
    events = drive(8, 60.0, 0.08, seed=12, batch=2)
    names = ("weight", "tau_mem", "tau_syn", "threshold", "reset", "bias")
    spread = torch.linspace(0.9, 1.1, 10, dtype=torch.float64)
    hidden = LIF(
        8,
        10,
        tau_mem=TAU_MEM * spread,
        tau_syn=TAU_SYN * spread.flip(0),
        threshold=spread,
        reset=0.1 * spread - 0.1,
        bias=0.1 * spread,
        learn=names,
        dtype=torch.float64,
    )
    readout = LI(10, 3, tau_mem=TAU_MEM, tau_syn=TAU_SYN, dtype=torch.float64)
    hidden.weight.data, readout.weight.data = weights(8, 10, 0.3, 0.8, seed=13), weights(10, 3, 0.2, 0.5, seed=14)
    direction = weights(2, 3, 0.0, 1.0, seed=15)

    def loss() -> Tensor:
        spikes = hidden(events)
        voltage = readout(spikes)
        return (direction * (voltage.mean() + voltage.max())).sum() + (spikes.times**2).sum()

    network = nn.ModuleList([hidden, readout])
    error = max_relative_error(network, loss)
    entries = sum(p.numel() for p in network.parameters() if p.requires_grad)
    cases = f"{entries} entries of {', '.join(names)}, readout weight"
    return Row("LIF and LI", "finite differences, 4th order, float64", GRADIENTS, error, 1e-6, cases)


# ---- gated units ---------------------------------------------------------------------------------

FORMS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True},
    {"bias": False},
]
SIZES = [(12, 2, 16), (50, 8, 64), (20, 3, 37), (5, 33, 300)]  # steps, samples, units


class Open(torch.autograd.Function):
    """A gate that is always open."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, height: float, half_width: float) -> Tensor:
        return torch.ones_like(above)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return torch.zeros_like(grad), None, None


Pairs = list[tuple[Tensor, Tensor]]


def opened() -> tuple[Pairs, Pairs]:
    """Of EGRU with thresholds of 0 behind an open gate, and of torch's GRU: values, and gradients, of every form."""
    values, gradients = [], []
    for seed, form in enumerate(FORMS):
        torch.manual_seed(seed)
        ours = EGRU(9, 16, dtype=torch.float64, backend="reference", **form)
        theirs = nn.GRU(9, 16, dtype=torch.float64, **form)
        shared = {name: x for name, x in ours.named_parameters() if not name.startswith("threshold")}
        with torch.no_grad():
            for name, parameter in ours.named_parameters():
                if name.startswith("threshold"):
                    parameter.zero_()
                elif name.startswith("bias"):
                    parameter.normal_(std=0.3)
        theirs.load_state_dict(shared)
        x = torch.randn(40, 4, 9, dtype=torch.float64, requires_grad=True)
        start = torch.randn(len(ours.all_weights), 4, 16, dtype=torch.float64, requires_grad=True)
        with patch("eventnet.kernels.reference_egru.Fired", Open), patch("eventnet.layers.egru.Fired", Open):
            found, state = ours(x, EGRUState(start, start))
        expected, last = theirs(x, start)
        values += [(found, expected), (state.c, last), (state.y, last)]
        leaves = [[x, start, *own] for own in (shared.values(), theirs.parameters())]
        given = zip((found, expected), leaves, strict=True)
        gradients += list(zip(*(torch.autograd.grad(y.sin().sum(), own) for y, own in given), strict=True))
    return values, gradients


def apart(pairs: Pairs, relative: bool = False) -> float:
    """Largest difference, also relative to the largest number of each second tensor; NaN if one is."""
    errors = [(a - b).detach().abs().max() / (b.detach().abs().max() if relative else 1) for a, b in pairs]
    return float(torch.stack(errors).max())


def open_gate(_: str | None) -> Row:
    values, _gradients = opened()
    cases = f"{sum(b.numel() for _a, b in values)} outputs and states of {len(FORMS)} forms"
    reference = f"torch {version('torch')} nn.GRU"
    return Row("EGRU, gate open, nothing subtracted", reference, "values", apart(values), 1e-12, cases)


def open_gate_gradients(_: str | None) -> Row:
    _values, gradients = opened()
    cases = f"{sum(b.numel() for _a, b in gradients)} entries of parameters, input, first state of {len(FORMS)} forms"
    reference, error = f"torch {version('torch')} nn.GRU", apart(gradients, relative=True)
    return Row("EGRU, gate open, nothing subtracted", reference, GRADIENTS, error, 1e-12, cases)


def gated(steps: int, batch: int, hidden: int, backend: str) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """What units tell, their values, and the gradients of a loss on both."""
    generator = torch.Generator().manual_seed(hidden)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    y = numbers(batch, hidden)
    given = [
        2 * numbers(steps, batch, 3 * hidden),
        numbers(3 * hidden, hidden) / hidden**0.5,
        0.3 * numbers(3 * hidden),
        numbers(hidden).sigmoid() / 2,
        numbers(batch, hidden),
        torch.where(y > 0.8, y, 0.0),
    ]
    drive, weight, bias, threshold, c, y = leaves = [x.requires_grad_() for x in given]
    done = kernels.egru(drive, Unit(weight, bias, threshold, 0.7, 1.0), c, y, backend)
    loss = (numbers(*done.y.shape) * done.y + 0.1 * numbers(*done.v.shape) * done.v).sum()
    return done.y.detach(), done.v.detach(), torch.autograd.grad(loss, leaves)


def compiled_gates(_: str | None) -> Row:
    """Infinite where the pattern of events is another."""
    need_kernels()
    pairs: Pairs = []
    for size in SIZES:
        (y, v, _), (told, values, _) = (gated(*size, backend) for backend in ("cpu", "reference"))
        pairs += [(y, told), (v, values)]
    alike = all((y != 0).equal(told != 0) for y, told in pairs[::2])
    error = apart(pairs) if alike else float("inf")
    events = sum(int(told.count_nonzero()) for _y, told in pairs[::2])
    numbers = sum(told.numel() for _y, told in pairs[::2])
    cases = f"all {events} events in {numbers} places, values of all, {len(SIZES)} sizes"
    return Row("EGRU, compiled", "EGRU, plain torch", "values", error, 1e-12, cases)


def compiled_gates_gradients(_: str | None) -> Row:
    need_kernels()
    pairs: Pairs = []
    for size in SIZES:
        ours, theirs = (gated(*size, backend)[2] for backend in ("cpu", "reference"))
        pairs += zip(ours, theirs, strict=True)
    cases = f"{sum(b.numel() for _a, b in pairs)} entries of drive, weight, bias, threshold, c, y, {len(SIZES)} sizes"
    return Row("EGRU, compiled", "EGRU, plain torch", GRADIENTS, apart(pairs, relative=True), 1e-11, cases)


# ---- data ----------------------------------------------------------------------------------------


def yin_yang(data_root: str | None) -> Row:
    folder = Path(data_root or "") / "yin_yang"
    if not data_root or not folder.is_dir():
        raise NotHere("the published samples (a folder yin_yang in --data-root)")
    worst, total = 0.0, 0
    for part, (seed, size) in yinyang.PARTS.items():
        samples, labels = yinyang.points(seed, size)
        if not np.array_equal(labels, np.load(folder / f"{part}_labels.npy")):
            worst = float("inf")
        published = np.load(folder / f"{part}_samples.npy")
        worst, total = max(worst, float(np.abs(samples - published).max())), total + size
    reference, cases = "published samples and labels", f"{total} samples, labels equal"
    return Row("Yin-Yang data", reference, "coordinates", worst, 1e-7, cases)


def mackey_glass_series(_: str | None) -> Row:
    """Chaos doubles errors again and again: two Lyapunov times are compared."""
    differences = []
    for tau in (17, 23, 30):
        lyapunov_time, past = mackey_glass.SERIES[tau]
        times = np.linspace(0, 2 * lyapunov_time, 150)
        differences.append(mackey_glass.solve(times, tau, past) - _delayed(times, tau, past))
    error, cases = float(np.abs(differences).max()), f"{np.size(differences)} points, 2 Lyapunov times, tau 17, 23, 30"
    return Row("Mackey-Glass data", f"SciPy {version('scipy')} DOP853", "values", error, 1e-9, cases)


def _delayed(times: np.ndarray, tau: float, past: float) -> np.ndarray:
    """By SciPy, one delay after the other: what was is known within each."""
    from scipy.integrate import solve_ivp

    options: dict[str, Any] = dict(method="DOP853", rtol=1e-12, atol=1e-13, max_step=2.0, dense_output=True)
    solved: Any = None  # of the delay before

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        delayed = past if solved is None else solved.sol(t - tau)[0]
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

    last, found = past, np.full_like(times, np.nan)
    for k in range(int(times.max() // tau) + 1):
        span = k * tau, (k + 1) * tau
        solved = solve_ivp(slope, span, [last], **options)
        here = (times >= span[0]) & (times <= span[1])
        found[here], last = solved.sol(times[here])[0], solved.y[0, -1]
    return found


CHECKS: dict[str, ledger.Check] = {
    "nest-first": nest_first_spikes,
    "nest-all": nest_all_spikes,
    "nest-recurrent": nest_recurrent,
    "closed-form": closed_form,
    "float32": float32,
    "backends": backends,
    "ode": integrated_voltage,
    "finite-differences": finite_differences,
    "open-gate": open_gate,
    "open-gate-gradients": open_gate_gradients,
    "compiled-gates": compiled_gates,
    "compiled-gates-gradients": compiled_gates_gradients,
    **fidelity_hardware.CHECKS,
    "yin-yang": yin_yang,
    "mackey-glass": mackey_glass_series,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("EVENTNET_DATA"), help="folder of the data sets")
    stored = RESULTS / "fidelity.json"
    known = json.loads(stored.read_text()) if stored.exists() else {}
    rows = ledger.run(CHECKS, parser.parse_args().data_root, known)
    RESULTS.mkdir(exist_ok=True)
    written = {stored: json.dumps(rows, indent=1) + "\n", RESULTS / "fidelity.md": ledger.markdown(rows)}
    for path, text in written.items():
        part = path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, path)
    if not all(map(ledger.kept_tolerance, rows.values())):
        sys.exit("a row misses its tolerance")


if __name__ == "__main__":
    main()
