"""The fidelity ledger: every model against a reference, the tolerance reached, and when.

    python benchmarks/fidelity.py [--data-root FOLDER]      writes benchmarks/results/fidelity.md and
    fidelity.json

A row whose reference is not here (a simulator or a data set that is not installed) keeps its last result and
date. The exit status is 1 if a row misses its tolerance.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import commit
from torch import Tensor

from eventnet import LI, LIF, Events, lif

RESULTS = Path(__file__).with_name("results")
TAU_MEM, TAU_SYN = 20e-3, 5e-3


class NotHere(Exception):
    """The reference of a row is not installed here; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One line of the ledger: ``error`` is the largest that was found, in the unit of ``compared``."""

    model: str
    reference: str
    compared: str
    error: float
    tolerance: float
    cases: str


CHECKS: dict[str, Callable[[argparse.Namespace], Row]] = {}


def check(name: str) -> Callable[[Callable[[argparse.Namespace], Row]], Callable[[argparse.Namespace], Row]]:
    """Register a row of the ledger under ``name``."""

    def register(function: Callable[[argparse.Namespace], Row]) -> Callable[[argparse.Namespace], Row]:
        CHECKS[name] = function
        return function

    return register


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


# ---- spike times ---------------------------------------------------------------------------------


def nest_spikes(events: Events, weight: Tensor, resolution: float, refractory: float) -> list[np.ndarray]:
    """Each neuron's spike times in seconds by NEST; resolution and refractory in ms."""
    if importlib.util.find_spec("nest") is None:
        raise NotHere("nest-simulator")
    with tempfile.TemporaryDirectory() as folder:
        problem, spikes = Path(folder) / "problem.npz", Path(folder) / "spikes.npz"
        np.savez(
            problem,
            times=1e3 * events.times.numpy(),
            units=events.units.numpy(),
            weight=weight.numpy(),
            duration=1e3 * events.duration.item(),
            tau_mem=1e3 * TAU_MEM,
            tau_syn=1e3 * TAU_SYN,
            resolution=resolution,
            refractory=refractory,
        )
        command = [
            sys.executable,
            str(Path(__file__).with_name("nest_process.py")),
            str(problem),
            str(spikes),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with np.load(spikes) as found:
            return _by_neuron(found["units"], 1e-3 * found["times"], weight.shape[1])


def _by_neuron(units: np.ndarray, times: np.ndarray, number: int) -> list[np.ndarray]:
    return [np.sort(times[units == n]) for n in range(number)]


def _ours(events: Events, weight: Tensor, **settings: Any) -> list[np.ndarray]:
    spikes = lif(events, weight, tau_mem=TAU_MEM, tau_syn=TAU_SYN, **settings)
    return _by_neuron(spikes.units.numpy(), spikes.times.numpy(), weight.shape[1])


def _largest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    worst = 0.0
    for a, b in pairs:
        if len(a) != len(b):
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)))
    return worst


@check("nest-first")
def nest_first_spikes(_: argparse.Namespace) -> Row:
    events, weight = drive(60, 80.0, 0.1, seed=1), weights(60, 400, 0.12, 0.5, seed=2)
    nest, ours = nest_spikes(events, weight, 1e-3, 1e-3), _ours(events, weight)
    error = _largest((a[:1], b[:1]) for a, b in zip(ours, nest, strict=True))
    reference = f"NEST {_version('nest-simulator')} iaf_psc_exp_ps"
    cases = f"first spikes of {sum(len(a) > 0 for a in ours)} of 400 neurons"
    return Row("LIF", reference, "spike times, s", error, 1e-12, cases)


@check("nest-all")
def nest_all_spikes(_: argparse.Namespace) -> Row:
    """NEST must have a refractory time of a step at least: two short ones, extrapolated to none."""
    events, weight = drive(60, 80.0, 0.1, seed=3), weights(60, 40, 0.12, 0.5, seed=4)
    one, two = (nest_spikes(events, weight, 1e-5, refractory) for refractory in (1e-5, 2e-5))
    ours = _ours(events, weight)
    if any(len(a) != len(b) for a, b in zip(one, two, strict=True)):
        error = float("inf")
    else:
        error = _largest((a, 2 * b - c) for a, b, c in zip(ours, one, two, strict=True))
    reference = f"NEST {_version('nest-simulator')} iaf_psc_exp_ps, refractory time of 10 and 20 ns extrapolated to 0"
    return Row("LIF", reference, "spike times, s", error, 2e-9, f"all {sum(map(len, ours))} spikes of 40 neurons")


@check("closed-form")
def closed_form(_: argparse.Namespace) -> Row:
    """First spikes where tau_mem = tau_syn (Lambert W) and tau_mem = 2 tau_syn (a quadratic)."""
    from scipy.special import lambertw

    random, tau, worst, cases = np.random.default_rng(5), 10e-3, 0.0, 0
    for _case in range(200):
        times, w = np.sort(random.uniform(0, 2e-3, 5)), random.uniform(0.4, 1.6, 5)
        scaled = times / tau
        for ratio in (1, 2):
            if ratio == 1:
                a, b = (w * np.exp(scaled)).sum(), (w * scaled * np.exp(scaled)).sum()
                silent = np.exp(b / a) / a > np.exp(-1)
                expected = tau * (b / a - lambertw(-np.exp(b / a) / a).real)
            else:
                a1, a2 = ((w * np.exp(scaled / n)).sum() for n in (1, 2))
                silent = a2**2 < 4 * a1
                expected = 2 * tau * np.log(2 * a1 / (a2 + np.sqrt(max(a2**2 - 4 * a1, 0))))
            if silent or expected <= times[-1]:
                continue  # no spike, or one before the last input
            events = Events.from_list([(times, range(5))], 5, 0.1, dtype=torch.float64)
            first = lif(events, torch.tensor(w)[:, None], tau_mem=ratio * tau, tau_syn=tau).first_times()
            worst, cases = max(worst, float(abs(first.item() - expected))), cases + 1
    reference = "closed forms of Göltz et al. 2021, tau_mem = tau_syn and 2 tau_syn"
    return Row("LIF", reference, "spike times, s", worst, 1e-13, f"{cases} first spikes")


@check("float32")
def float32(_: argparse.Namespace) -> Row:
    events, weight = drive(200, 40.0, 0.5, seed=6, batch=2), weights(200, 64, 0.0, 0.3, seed=7)
    single, double = (
        lif(events.to(dtype), weight.to(dtype), tau_mem=TAU_MEM, tau_syn=TAU_SYN)
        for dtype in (torch.float32, torch.float64)
    )
    key = [(s.samples * 64 + s.units).numpy() for s in (single, double)]
    pairs = [_by_neuron(k, s.times.double().numpy(), 128) for k, s in zip(key, (single, double), strict=True)]
    error = _largest(zip(*pairs, strict=True))
    return Row(
        "LIF, float32",
        "LIF, float64",
        "spike times, s",
        error,
        5e-6,
        f"{double.num_events} spikes within 0.5 s",
    )


@check("backends")
def backends(_: argparse.Namespace) -> Row:
    from eventnet import kernels

    if "not compiled" in kernels.available()["cpu"]:
        raise NotHere("compiled kernels")
    events, weight = drive(20, 60.0, 0.1, seed=8, batch=2), weights(20, 24, 0.1, 0.7, seed=9)
    sides = [lif(events, weight, tau_mem=TAU_MEM, tau_syn=TAU_SYN, backend=name) for name in ("cpu", "reference")]
    pairs = [_by_neuron((s.samples * 24 + s.units).numpy(), s.times.numpy(), 48) for s in sides]
    error = _largest(zip(*pairs, strict=True))
    return Row("LIF, compiled", "LIF, plain torch", "spike times, s", error, 1e-12, f"{sides[0].num_events} spikes")


# ---- voltages ------------------------------------------------------------------------------------


@check("ode")
def integrated_voltage(_: argparse.Namespace) -> Row:
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
    return Row("LI", f"SciPy {_version('scipy')} DOP853", "voltage samples, V", error, 1e-10, f"{found.size} samples")


def _li_slope(_: float, state: np.ndarray) -> np.ndarray:
    voltage, current = state[:4], state[4:]
    return np.concatenate([(0.2 - voltage + current) / TAU_MEM, -current / TAU_SYN])


# ---- gradients -----------------------------------------------------------------------------------


@check("finite-differences")
def finite_differences(_: argparse.Namespace) -> Row:
    """Central differences of a loss on a two-layer network, for every kind of parameter."""
    events, first, second = (
        drive(8, 60.0, 0.08, seed=12, batch=2),
        weights(8, 10, 0.3, 0.8, 13),
        weights(10, 3, 0.2, 0.5, 14),
    )
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
    hidden.weight.data, readout.weight.data = first, second
    direction = weights(2, 3, 0.0, 1.0, seed=15)

    def loss() -> tuple[Tensor, list[int]]:
        spikes = hidden(events)
        voltage = readout(spikes)
        value = (direction * (voltage.mean() + voltage.max())).sum() + (spikes.times**2).sum()
        return value, (spikes.samples * 10 + spikes.units).tolist()

    value, order = loss()
    value.backward()
    parameters = {f"hidden {name}": getattr(hidden, name) for name in names} | {"readout weight": readout.weight}
    worst, compared = 0.0, 0
    for parameter in parameters.values():
        flat, step = parameter.data.view(-1), 3e-6 * parameter.data.abs().mean().item()
        numeric, skipped = torch.zeros_like(flat), torch.zeros_like(flat, dtype=torch.bool)
        for i in range(flat.numel()):
            kept, values = flat[i].item(), []
            for k in (-2, -1, 1, 2):
                flat[i] = kept + k * step
                with torch.no_grad():
                    value, now = loss()
                skipped[i] |= now != order
                values.append(value.item())
            flat[i] = kept
            numeric[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        exact = parameter.grad.view(-1)[~skipped]
        compared += exact.numel()
        worst = max(worst, ((exact - numeric[~skipped]).norm() / exact.norm()).item())
    what = "gradients, relative norm, worst parameter"
    cases = f"{compared} entries of {', '.join(names)}, readout weight"
    return Row("LIF and LI", "finite differences, 4th order, float64", what, worst, 1e-6, cases)


# ---- data ----------------------------------------------------------------------------------------


@check("yin-yang")
def yin_yang(args: argparse.Namespace) -> Row:
    from eventnet.data.yinyang import PARTS, points

    folder = Path(args.data_root or "") / "yin_yang"
    if not args.data_root or not folder.is_dir():
        raise NotHere("the published samples (a folder yin_yang in --data-root)")
    worst, total = 0.0, 0
    for part, (seed, size) in PARTS.items():
        samples, labels = points(seed, size)
        published = np.load(folder / f"{part}_samples.npy"), np.load(folder / f"{part}_labels.npy")
        if not np.array_equal(labels, published[1]):
            worst = float("inf")
        worst, total = max(worst, float(np.abs(samples - published[0]).max())), total + size
    return Row(
        "Yin-Yang data",
        "published samples and labels",
        "coordinates",
        worst,
        1e-7,
        f"{total} samples, labels equal",
    )


# ---- the ledger ----------------------------------------------------------------------------------


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The ledger as a Markdown table."""
    lines = [
        "# Fidelity ledger",
        "",
        "Every model against a reference, written by `benchmarks/fidelity.py`: the largest error found,",
        "the tolerance it must keep, and when that was last measured.",
        "",
        "| model | reference | compared | largest error | tolerance | cases | date |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        error = f"{row['error']:.1e}" if row["error"] <= row["tolerance"] else f"**{row['error']:.1e}**"
        cells = (
            row["model"],
            row["reference"],
            row["compared"],
            error,
            f"{row['tolerance']:.0e}",
            row["cases"],
            row["date"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace, known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All rows, new where the reference is here, else as known."""
    rows = {}
    for name, function in CHECKS.items():
        try:
            row = function(args)
        except NotHere as missing:
            print(
                f"{name}: {missing} is not here" + ("; keeping the last result" if name in known else ""),
                file=sys.stderr,
            )
            if name in known:
                rows[name] = known[name]
            continue
        rows[name] = asdict(row) | {"date": datetime.date.today().isoformat(), "commit": commit()}
        verdict = "ok" if row.error <= row.tolerance else "MISSED"
        print(f"{name:20} {row.error:9.1e} (tolerance {row.tolerance:.0e}) {verdict}: {row.cases}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("EVENTNET_DATA"), help="folder of the data sets")
    args = parser.parse_args()
    stored = RESULTS / "fidelity.json"
    rows = run(args, json.loads(stored.read_text()) if stored.exists() else {})
    RESULTS.mkdir(exist_ok=True)
    for path, text in (
        (stored, json.dumps(rows, indent=1) + "\n"),
        (RESULTS / "fidelity.md", markdown(rows)),
    ):
        part = path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, path)
    if any(not row["error"] <= row["tolerance"] for row in rows.values()):
        sys.exit("a row misses its tolerance")


if __name__ == "__main__":
    main()
