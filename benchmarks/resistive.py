"""Random conductances as a network: accuracy of reservoirs, and what devices cost them and trained networks.

    python benchmarks/resistive.py --data-root FOLDER [--save]              readout and devices
    python benchmarks/resistive.py --data-root FOLDER --zero-shot [--save]  images and sounds of unseen classes
    python benchmarks/resistive.py --data-root FOLDER --quick

FOLDER has ``nmnist_1k`` (and, used where there, ``nmnist_6to9`` and ``fsdd``). Weights are differential pairs of random
conductances (``Forming``), a seed is a chip, and ridge readouts take their penalty by leave-one-out within the samples that they
are fitted to. Rate, spectral radius, share of formed cells, the range of converters and the decay of weights are chosen on
training samples, on a chip that is not one of those reported.

*Readout*: the official test part, ten chips. *Devices*: 700 training samples, 400 held out (the official test part and 300
others), one polarity pooled to 16 x 16; each effect alone, then all together:

- the reservoir whose readout is fitted on the chip as it is then, or carried over from ideal cells, or (ages) fitted after 1 s;
- a trained network with one hidden layer (counts in four windows of time, ``nn.Linear``, ReLU, ``nn.Linear``), placed by
  ``compile(model, "resistive")``; and, as a control, its last layer fitted again on each chip by the same ridge;
- a trained LIF network, placed in the same way; layers of events have no read noise and no converters there.

``--save`` writes ``results/resistive.json``, each part for itself, and ``resistive.png``; what there is, after each chip.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine
from torch import Tensor, nn

from eventnet import LI, LIF, Events, data, initial
from eventnet.hardware import compile
from eventnet.hardware.energy import Interval
from eventnet.hardware.energy_profiles import energy_profile
from eventnet.hardware.parity import interval
from eventnet.hardware.resistive import (
    ADC,
    HFO2_STUCK,
    HFOX,
    HFOX_PROGRAMMING,
    Cell,
    Contrastive,
    Crossbar,
    Forming,
    Labelled,
    Pair,
    ReadNoise,
    Reads,
    Reservoir,
    RidgeReadout,
    Stuck,
    array_energy,
    fit_contrastive,
    seeded,
    spectral_radius,
    with_rate,
    zero_shot,
)

RESULT = Path(__file__).with_name("results") / "resistive.json"
PENALTIES = tuple(10.0**k for k in range(-2, 6))
STEPS, WINDOWS, DECAY, UNITS = 50, 4, 0.9, 200
DAY = 86_400.0
BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)  # of converters
OF_EVENTS = ("programming", "stuck", "age")  # effects that layers of events have
MEAN, STD = 20e-6, 5e-6  # siemens, of the cells that are formed
CHOOSING = 1000  # the chip that choices are made on
SWEEPS: dict[str, tuple[Any, ...]] = {
    "programming": (0.0, 0.5, 1.0, 1.5, 2.0),  # times HFOX_PROGRAMMING after 1 s
    "read": (0.0, 0.01, 0.03, 0.1, 0.3),  # of the conductance, at each read
    "bits": (8, 7, 6, 5, 4, 3),
    "stuck": (0.0, 0.025, 0.05, 0.1, 0.2),  # of the cells, on and off as in HFO2_STUCK
    "age": (1.0, DAY, 2 * DAY),  # of HFOX
    "together": (1.0, DAY, 2 * DAY),  # ages, with read noise of 1 %, 8-bit converters and HFO2_STUCK
}
CONTENDERS = {
    "fitted": "reservoir, readout fitted on the chip",
    "fitted_1s": "reservoir, readout fitted on the chip after 1 s",
    "carried": "reservoir, readout carried over from ideal cells",
    "placed": "trained network, placed",
    "refitted": "trained network, placed, last layer fitted on the chip",
    "lif": "trained LIF network, placed",
}
PUBLISHED = (
    "Published (Lin, Wang et al. 2025), full N-MNIST (60,000 / 10,000 samples): 89.1 % in simulation and 89.7 % on the chip with "
    "200 units, 98.1 % with 3,600; a trained recurrent network 96.2 %. Here 1,000 training "
    "samples and 100 to test, or the four classes 6-9 with 2,800 and 400: other numbers are to be expected."
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- chips ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What is chosen on training samples: spikes per second and neuron, spectral radius, share of formed cells."""

    rate: float = 15.0
    radius: float = 1.0
    formed: float = 0.5


def formed_pairs(inputs: int, units: int, seed: int, choice: Choice) -> tuple[Pair, Pair]:
    """Conductances ``(out, in)`` of the input and of the recurrent weights of a chip, the latter of that spectral radius."""
    generator, forming = seeded(seed), Forming(choice.formed, MEAN, STD)
    found = []
    for rows in (inputs, units):
        positive, negative = forming.draw((2, units, rows), generator).clamp(max=HFOX.g_max)
        found.append(Pair(positive, negative, 1 / HFOX.g_max))
    own = spectral_radius(found[1].weight())
    return found[0], replace(found[1], scale=found[1].scale * choice.radius / own)


def formed_reservoir(
    typical: Events, units: int, seed: int, choice: Choice, decay: float = DECAY, steps: int = STEPS
) -> Reservoir:
    """Ideal cells with these conductances, the threshold such that ``typical`` gives the chosen rate."""
    pairs = formed_pairs(typical.num_units, units, seed, choice)
    weight, recurrent = (pair.weight().t().contiguous() for pair in pairs)
    dt = typical.duration[0].item() / steps
    return with_rate(Reservoir(weight, recurrent, dt, decay, threshold=1.0, gain=1.0), typical, choice.rate)


def times_of(events: Events) -> list[float]:
    duration = events.duration[0].item()
    return [duration * (k + 1) / WINDOWS for k in range(WINDOWS)]


IDEAL = Cell()


@dataclass(frozen=True)
class Setting:
    """The devices of one point of a sweep."""

    cell: Cell = IDEAL
    bits: int | None = None
    age: float = 0.0


def setting(sweep: str, value: float) -> Setting:
    """What ``value`` of a sweep stands for; everything else is ideal."""
    share = HFO2_STUCK.on / (HFO2_STUCK.on + HFO2_STUCK.off)
    if sweep == "programming":
        scaled = tuple(tuple(value * c for c in each) for each in HFOX_PROGRAMMING.coefficients)
        return Setting(Cell(programming=replace(HFOX_PROGRAMMING, coefficients=scaled)), age=1.0)
    if sweep == "read":
        return Setting(Cell(read=ReadNoise(value)))
    if sweep == "bits":
        return Setting(bits=int(value))
    if sweep == "stuck":
        return Setting(Cell(stuck=Stuck(on=value * share, off=value * (1 - share))))
    if sweep == "age":
        return Setting(replace(HFOX, read=None), age=value)
    return Setting(replace(HFOX, stuck=HFO2_STUCK), 8, value)


def crossbar_of(pair: Pair, devices: Setting, seed: int, stream: int, bound: float) -> Crossbar:
    """The arrays of a chip that was written with the conductances of ``pair``."""
    chip = devices.cell.program(torch.stack([pair.positive, pair.negative]), seeded(seed, stream))
    conductance, sigma = chip.reading(devices.age)
    held = Pair(conductance[0], conductance[1], pair.scale)
    adc = None if devices.bits is None else ADC(devices.bits, bound)
    return Crossbar(held, devices.cell, read_sigma=None if sigma is None else (sigma[0], sigma[1]), adc=adc)


@torch.no_grad()
def features_on_chip(
    raster: Tensor, arrays: tuple[Crossbar, Crossbar], threshold: float, generator: torch.Generator
) -> Tensor:
    """Counts and traces, as ``Reservoir.features``, of a raster ``(T, B, in)`` of zeros and ones: each step reads the arrays.

    Traces are those at the end of each window.
    """
    steps, batch, _ = raster.shape
    u = torch.zeros(batch, arrays[1].out_features)
    s, count, trace, traces = u, torch.zeros_like(u), torch.zeros_like(u), []
    marks = [round(steps * (k + 1) / WINDOWS) for k in range(WINDOWS)]
    for t in range(steps):
        u = DECAY * u * (1 - s) + arrays[0].product(raster[t].float(), generator) + arrays[1].product(s, generator)
        s = (u > threshold).float()
        count, trace = count + s, DECAY * trace + s
        if t + 1 in marks:
            traces.append(trace)
    return torch.cat([count, *traces], 1)


def pooled(events: Events) -> Events:
    """The first polarity of a 34 x 34 sensor, 2 x 2 pixels in one, the last row and column cut: 16 x 16 units."""
    events = events.keep(events.units < 34 * 34)
    y, x = events.units // 34 // 2, events.units % 34 // 2
    events = replace(events, units=(y * 16 + x).clamp(max=255), num_units=256)
    return events.keep((y < 16) & (x < 16))


def binary(events: Events) -> Events:
    """Events of a unit in one step of the reservoir are one."""
    dt = events.duration[0].item() / STEPS
    return Events.from_dense(events.to_dense(dt)[:STEPS].clamp(max=1), dt)


def in_windows(events: Events) -> Tensor:
    """``(B, WINDOWS * units)`` event counts."""
    duration = events.duration[0].item()
    return events.to_dense(duration / WINDOWS)[:WINDOWS].transpose(0, 1).flatten(1)


def fitted(x: Tensor, y: Tensor) -> RidgeReadout:
    return RidgeReadout(PENALTIES, standardize=True).fit(x, y)


# ---- readout --------------------------------------------------------------------------------------------------------


Part = tuple[Events, Tensor]


def chosen(train: Part, units: int = UNITS, **options: Any) -> Choice:
    """By the squared error of the readout's leave-one-out on training samples, on a chip of its own."""
    errors = {}
    for rate, radius, formed in itertools.product((5.0, 15.0, 40.0), (0.3, 1.0), (0.1, 0.5)):
        choice = Choice(rate, radius, formed)
        try:
            reservoir = formed_reservoir(train[0][::9], units, CHOOSING, choice, **options)
        except ValueError:  # such a rate cannot be reached
            continue
        features = reservoir.features(train[0], times=times_of(train[0]))
        errors[choice] = min(fitted(features, train[1]).errors)
    return min(errors, key=errors.__getitem__)


def row(name: str, shares: Sequence[float], samples: int, **more: Any) -> dict[str, Any]:
    """One line of the readout's table: the mean over chips with Wilson's interval, as of one reading of the test samples."""
    mean = statistics.mean(shares)
    found = {"name": name, "shares": list(shares), **interval(mean * samples, samples), "samples": samples, **more}
    say(f"{name}: {mean:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    return found


def floors(train: Part, test: Part) -> list[dict[str, Any]]:
    """Linear readouts of the input itself."""
    kinds = {"counts": lambda e: e.counts().float(), f"counts in {WINDOWS} windows": in_windows}
    scores = {name: fitted(of(train[0]), train[1]).score(of(test[0]), test[1]) for name, of in kinds.items()}
    return [row(f"linear floor, {name}", [score], len(test[1])) for name, score in scores.items()]


def readout(train: Part, test: Part, chips: int, units: int, choice: Choice) -> list[dict[str, Any]]:
    """Reservoirs on one data set: ridge on spike counts, and on counts and traces."""
    shares: dict[str, list[float]] = {"counts": [], "counts and traces": []}
    start = time.perf_counter()
    for chip in range(chips):
        reservoir = formed_reservoir(train[0][::18], units, chip, choice)
        x, z = (reservoir.features(part[0], times=times_of(part[0])) for part in (train, test))
        for name, columns in (("counts", units), ("counts and traces", None)):
            found = fitted(x[:, :columns], train[1]).score(z[:, :columns], test[1])
            shares[name].append(found)
    more = {"seconds_per_chip": round((time.perf_counter() - start) / chips, 1)}
    return [row(f"{units} units, {name}", each, len(test[1]), **more) for name, each in shares.items()]


# ---- devices --------------------------------------------------------------------------------------------------------


def trained_layers(
    x: Tensor, y: Tensor, *, hidden: int, epochs: int, weight_decay: float, seed: int = 0
) -> nn.Sequential:
    """Linear, ReLU, Linear, without a choice on anything but what it is given."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, int(y.max()) + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(32):
            dropped = nn.functional.dropout(x[index], 0.2)
            loss = nn.functional.cross_entropy(model(dropped), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def trained_lif(events: Events, y: Tensor, *, hidden: int, epochs: int, seed: int = 0) -> list[nn.Module]:
    """As the recipe ``nmnist``, smaller: LIF and LI, mean voltage, dropped events, exact gradients; the last epoch."""
    torch.manual_seed(seed)
    layers = LIF(events.num_units, hidden), LI(hidden, int(y.max()) + 1, tau_mem=50e-3)
    initial.fire_fraction_(layers[0], events[:100], 0.5)
    optimizer = torch.optim.Adam([layers[0].weight, layers[1].weight], lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(32):
            batch = events[index]
            batch = batch.keep(torch.rand(batch.num_events) > 0.2)
            loss = nn.functional.cross_entropy(5 * layers[1](layers[0](batch)).mean(), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return list(layers)


class Net:
    """The trained network on the devices: its scores, and its last layer fitted again."""

    def __init__(self, train: Part, held: Part, hidden: int, epochs: int) -> None:
        x, z = in_windows(train[0]), in_windows(held[0])
        spread = x.std()  # one scale for all: inputs stay as sparse as they are
        self.x, self.z, self.y, self.target = x / spread, z / spread, train[1], held[1]
        inner = torch.arange(len(self.y)) % 5 == 0
        options = {"hidden": hidden, "epochs": epochs}
        losses = {}
        for decay in (1e-2, 1e-1, 1.0):
            model = trained_layers(self.x[~inner], self.y[~inner], weight_decay=decay, **options)
            with torch.no_grad():
                losses[decay] = nn.functional.cross_entropy(model(self.x[inner]), self.y[inner]).item()
        self.weight_decay = min(losses, key=losses.__getitem__)
        self.model = trained_layers(self.x, self.y, weight_decay=self.weight_decay, **options)
        self.bound = min(BOUNDS, key=self._missed)

    def _missed(self, bound: float) -> float:
        """Loss on training samples with ideal cells and five bits."""
        placed = compile(self.model, "resistive", cell=IDEAL, adc=ADC(5, bound))
        return nn.functional.cross_entropy(placed(self.x), self.y).item()

    def on(self, devices: Setting, seed: int) -> dict[str, float]:
        adc = None if devices.bits is None else ADC(devices.bits, self.bound)
        placed = compile(self.model, "resistive", cell=devices.cell, adc=adc, seed=seed, age=devices.age)
        x, z = (placed.model[:2](part) for part in (self.x, self.z))
        said = placed.model[2](z).argmax(1)
        return {
            "placed": (said == self.target).double().mean().item(),
            "refitted": fitted(x, self.y).score(z, self.target),
        }


class Random:
    """One chip's reservoir on the devices."""

    def __init__(self, train: Part, held: Part, seed: int, choice: Choice, units: int) -> None:
        self.seed, self.y, self.target = seed, train[1], held[1]
        events = Events.cat([train[0], held[0]])
        dt = events.duration[0].item() / STEPS
        self.raster = events.to_dense(dt)[:STEPS].to(torch.uint8)
        self.pairs = formed_pairs(events.num_units, units, seed, choice)
        self.threshold = formed_reservoir(train[0][::9], units, seed, choice).threshold
        self.ideal: RidgeReadout | None = None
        self.bound = 10.0

    def features(self, devices: Setting) -> tuple[Tensor, Tensor]:
        arrays = [crossbar_of(each, devices, self.seed, k, self.bound) for k, each in enumerate(self.pairs)]
        found = features_on_chip(self.raster, (arrays[0], arrays[1]), self.threshold, seeded(self.seed, 9))
        return found[: len(self.y)], found[len(self.y) :]

    def on(self, devices: Setting, early: RidgeReadout | None) -> tuple[dict[str, float], RidgeReadout]:
        if self.ideal is None:
            self.ideal = fitted(self.features(Setting())[0], self.y)
        x, z = self.features(devices)
        own = fitted(x, self.y)
        found = {"fitted": own.score(z, self.target), "carried": self.ideal.score(z, self.target)}
        if early is not None:
            found["fitted_1s"] = early.score(z, self.target)
        return found, own


def bound_of(train: Part, choice: Choice, units: int) -> float:
    """The range of the reservoir's converters: smallest leave-one-out error on training samples at five bits."""
    random, errors = Random(train, train, CHOOSING, choice, units), {}
    random.raster = random.raster[:, : len(train[1])]
    for random.bound in BOUNDS:
        errors[random.bound] = min(fitted(random.features(Setting(bits=5))[0], train[1]).errors)
    return min(errors, key=errors.__getitem__)


def points(quick: bool) -> Iterator[tuple[str, float]]:
    for sweep, values in SWEEPS.items():
        yield from ((sweep, value) for value in (values[:: len(values) - 1] if quick else values))


@dataclass
class Bench:
    """What all chips share: the data (of the networks, and with binary steps for the reservoir), the networks, the choices."""

    held: Part
    ones: Part
    others: Part
    net: Net
    lif: list[nn.Module]
    choice: Choice
    bound: float
    units: int
    points: tuple[tuple[str, float], ...]

    def chip(self, chip: int) -> tuple[dict[str, float], list[dict[str, float]], float]:
        """Shares on ideal devices, at every point, and the reservoir's spikes of a sample on ideal devices."""
        torch.set_num_threads(1)
        random = Random(self.ones, self.others, chip, self.choice, self.units)
        random.bound, early = self.bound, None
        spikes = random.features(Setting())[1][:, : self.units].sum(1).mean().item()
        ideal = {**random.on(Setting(), None)[0], **self.net.on(Setting(), chip), **self._lif(Setting(), chip)}
        found = []
        for sweep, value in self.points:
            if value == 0:  # ideal
                kept = [name for name in ideal if name != "lif" or sweep in OF_EVENTS]
                found.append({name: ideal[name] for name in kept})
                continue
            where, aging = setting(sweep, value), sweep in ("age", "together")
            first = value == SWEEPS[sweep][0]
            shares, own = random.on(where, None if first or not aging else early)
            if aging and first:
                early, shares["fitted_1s"] = own, shares["fitted"]
            found.append({**shares, **self.net.on(where, chip)})
            if sweep in OF_EVENTS:
                found[-1].update(self._lif(where, chip))
        say(f"chip {chip}")
        return {name: share for name, share in ideal.items() if name != "carried"}, found, spikes

    def _lif(self, where: Setting, seed: int) -> dict[str, float]:
        placed = compile(self.lif, "resistive", cell=where.cell, seed=seed, age=where.age, reading="mean")
        return {"lif": (placed.predict(self.held[0]) == self.held[1]).double().mean().item()}


def devices(
    train: Part,
    held: Part,
    *,
    chips: int,
    units: int = UNITS,
    epochs: int = 20,
    quick: bool = False,
    workers: int = 1,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Accuracy of every contender at every point, for each chip; the choices; what each has on ideal devices.

    ``workers`` processes take a chip each, which changes no number; ``keep`` gets what there is after each chip.
    """
    start = time.perf_counter()
    net, lif = Net(train, held, units, epochs), trained_lif(*train, hidden=units, epochs=epochs)
    say(f"networks trained, {time.perf_counter() - start:.0f} s")
    ones, others = (binary(train[0]), train[1]), (binary(held[0]), held[1])
    choice = chosen((ones[0][:500], ones[1][:500]), units)
    bound = bound_of((ones[0][:500], ones[1][:500]), choice, units)
    bench = Bench(held, ones, others, net, lif, choice, bound, units, tuple(points(quick)))
    say(f"{choice}, bounds {bound:g} and {net.bound:g}, {time.perf_counter() - start:.0f} s")
    whole: dict[str, Any] = {
        "choice": vars(choice),
        "adc_bound": {"reservoir": bound, "network": net.bound},
        "weight_decay": net.weight_decay,
        "units": units,
        "epochs": epochs,
        "training_samples": len(train[1]),
        "samples": len(held[1]),
        "linear_floor": {each["name"]: each["share"] for each in floors(train, held)},
    }
    ideal: dict[str, list[float]] = {}
    every: list[dict[str, list[float]]] = [{} for _ in bench.points]
    spikes = []
    with (
        futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
        if workers > 1
        else nullcontext() as pool
    ):
        for own, shares, fired in (pool.map if pool else map)(bench.chip, range(chips)):
            for into, each in zip([ideal, *every], [own, *shares], strict=True):
                for name, share in each.items():
                    into.setdefault(name, []).append(share)
            spikes.append(fired)
            pairs = zip(bench.points, every, strict=True)
            whole["ideal"] = ideal
            whole["points"] = [{"sweep": sweep, "value": value, "shares": shares} for (sweep, value), shares in pairs]
            events = others[0].num_events / len(held[1])
            whole["energy"] = energy(units, others[0].num_units, events, statistics.mean(spikes))
            keep(whole)
    return whole


def energy(units: int, inputs: int, events: float, spikes: float) -> dict[str, Any]:
    """Joules of a sample by bits of the converters: the reservoir's arrays, and its digital readout (not on arrays)."""
    found: dict[str, Any] = {"events": events, "spikes": spikes, "bits": {}}
    each = energy_profile("asic45").coefficients["multiply_accumulates"]
    found["readout_joules"] = [10 * (1 + WINDOWS) * units * joules for joules in (each.low, each.high)]
    for bits in (4, 6, 8):
        arrays = array_energy(
            {
                "input": Reads(units, inputs, STEPS, events, adc_bits=bits, updates=STEPS * units),
                "recurrent": Reads(units, units, STEPS, spikes, adc_bits=bits),
            }
        )
        found["bits"][str(bits)] = arrays.to_dict()
    return found


# ---- zero-shot ------------------------------------------------------------------------------------------------------


def zero_shot_pairs(image: tuple[Part, Part], sound: tuple[Part, Part], *, quick: bool = False) -> dict[str, Any]:
    """All pairs of classes left out of training in turn: images told by sounds that no training pair had, and back.

    The epoch is the one with the lowest loss on validation samples of the seen classes.
    """
    kinds = []
    for parts, decay, steps in ((image, DECAY, STEPS), (sound, 0.97, 129)):
        some = parts[0][0][::3], parts[0][1][::3]
        choice = chosen(some, decay=decay, steps=steps)
        reservoir = formed_reservoir(some[0][::3], UNITS, 0, choice, decay, steps)
        kinds.append([Labelled(reservoir.features(x, times=times_of(x)), y) for x, y in parts])

    def only(part: Labelled, classes: Sequence[int]) -> Labelled:
        kept = torch.isin(part.labels, torch.tensor(classes))
        return Labelled(part.features[kept], part.labels[kept])

    rows = []
    for pair in itertools.islice(itertools.combinations(range(10), 2), 1 if quick else None):
        seen = [k for k in range(10) if k not in pair]
        model = Contrastive(*(kind[0].features.shape[1] for kind in kinds))
        (first, first_held), (second, second_held) = ([only(x, seen) for x in kind] for kind in kinds)
        fit_contrastive(model, first, second, (first_held, second_held), epochs=60, weight_decay=0.1)
        new = [
            Labelled(torch.cat([only(x, pair).features for x in kind]), torch.cat([only(x, pair).labels for x in kind]))
            for kind in kinds
        ]
        own = zero_shot(model, first_held, second_held, prototypes=(first, second))
        told = zero_shot(model, *new)
        directions = {"image_to_sound": (told[0], told[2]), "sound_to_image": (told[1], told[3])}
        rows.append({"unseen": list(pair), "seen_validation": list(own[:2]), "chance": told.chance})
        rows[-1].update({name: {**interval(x * n, n), "samples": n} for name, (x, n) in directions.items()})
        say(f"{pair}: {told[0]:.3f}, {told[1]:.3f}")
    samples = [sum(len(x.labels) for x in kind) for kind in kinds]  # each is in nine pairs, and counts once
    means = {}
    for name, n in zip(("image_to_sound", "sound_to_image"), samples, strict=True):
        mean = statistics.mean(each[name]["share"] for each in rows)
        beyond = [
            sum(each[name][side] * sign > 0.5 * sign for each in rows) for side, sign in (("low", 1), ("high", -1))
        ]
        means[name] = {**interval(mean * n, n), "samples": n, "pairs_above_chance": beyond[0], "pairs_below": beyond[1]}
    return {"chance": 0.5, "pairs": rows, "mean": means}


# ---- tables and the picture -----------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Markdown of ``resistive.json``, of the parts that are there."""
    parts = []
    if "readout" in found:
        lines = ["| data | readout | test accuracy | Wilson 95 % | chips: lowest to highest |", "|---|---|---|---|---|"]
        for name, rows in found["readout"]["sets"].items():
            for each in rows:
                chips = each["shares"]
                spread = f"{100 * min(chips):.1f} to {100 * max(chips):.1f} of {len(chips)}" if len(chips) > 1 else ""
                shown = f"{100 * each['share']:.1f} %", _range(each), spread
                lines.append(
                    "| " + " | ".join([f"{name}, {each['samples']} test samples", each["name"], *shown]) + " |"
                )
        parts.append("\n".join([*lines, "", PUBLISHED]))
    if "devices" in found:
        parts += [_device_table(found["devices"]), _energy_text(found["devices"]["energy"])]
    if "zero_shot" in found:
        parts.append(_zero_shot_text(found["zero_shot"]))
    return "\n\n".join(parts)


def _range(each: dict[str, Any]) -> str:
    return f"{100 * each['low']:.1f} to {100 * each['high']:.1f}"


def losses(found: dict[str, Any], point: dict[str, Any], name: str) -> list[float] | None:
    """Of each chip, what a contender loses against itself on ideal devices."""
    if name not in point["shares"]:
        return None
    best = found["ideal"]["fitted" if name in ("carried", "fitted_1s") else name]
    return [a - b for a, b in zip(best, point["shares"][name], strict=True)]


def label(sweep: str, value: float) -> str:
    """A point in words."""
    age = "1 s" if value == 1 else f"{value / DAY:g} d"
    return {
        "programming": f"programming noise x {value:g}",
        "read": f"read noise {100 * value:g} %",
        "bits": f"converters of {value:g} bits",
        "stuck": f"{100 * value:g} % of the cells stuck",
        "age": f"HfOx after {age}",
        "together": f"all together after {age}",
    }[sweep]


def _device_table(found: dict[str, Any]) -> str:
    lines = ["| devices | " + " | ".join(CONTENDERS.values()) + " |", "|---" * (1 + len(CONTENDERS)) + "|"]

    def shown(shares: list[float], lost: list[float] | None) -> str:
        text = f"{100 * statistics.mean(shares):.1f} %"
        if lost is None:
            return text
        spread = statistics.stdev(lost) if len(lost) > 1 else 0.0
        return f"{text} ({round(-100 * statistics.mean(lost), 1) + 0.0:+.1f} ± {100 * spread:.1f})"

    own = found["ideal"]
    cells = [shown(own[name], None) if name in own else "" for name in CONTENDERS]
    lines.append("| " + " | ".join(["ideal", *cells]) + " |")
    for point in found["points"]:
        cells = [
            shown(point["shares"][name], losses(found, point, name)) if name in point["shares"] else ""
            for name in CONTENDERS
        ]
        lines.append("| " + " | ".join([label(point["sweep"], point["value"]), *cells]) + " |")
    chips, count = len(own["fitted"]), found["samples"]
    half = interval(0.8 * count, count)
    floor = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["linear_floor"].items())
    lines += [
        "",
        f"Means over {chips} chips of the same {count} held-out samples; in brackets the change against the same chip's ideal "
        f"devices, in points, and its standard deviation over chips. Wilson's interval of one accuracy of 80 %: {_range(half)}. "
        f"Of the same input, not on devices: {floor}.",
    ]
    return "\n".join(lines)


def _energy_text(found: dict[str, Any]) -> str:
    lines = []
    for bits, each in found["bits"].items():
        total, share = Interval(*each["total_joules_per_sample"]), each["adc_share"]
        lines.append(
            f"- converters of {bits} bits: {total.text('J')} a sample, of which {_percent(share)} in converters"
        )
    digital = Interval(*found["readout_joules"]).text("J")
    said = (
        f"Energy of the reservoir's arrays (estimate; {found['events']:.0f} events, {found['spikes']:.0f} spikes a sample, "
        f"{STEPS} reads); its digital readout takes {digital} more:"
    )
    return "\n".join([said, "", *lines])


def _percent(share: Sequence[float]) -> str:
    return f"{100 * share[0]:.0f} to {100 * share[1]:.0f} %"


def _zero_shot_text(found: dict[str, Any]) -> str:
    lines = [f"Zero-shot, two unseen classes, all {len(found['pairs'])} pairs, chance {100 * found['chance']:g} %:", ""]
    for name, each in found["mean"].items():
        lines.append(
            f"- {name.replace('_', ' ')}: {100 * each['share']:.1f} % ({_range(each)}, {each['samples']:,} samples), "
            f"{each['pairs_above_chance']} pairs above chance beyond their interval, {each['pairs_below']} below"
        )
    return "\n".join(lines)


STYLES = {
    "fitted": ("tab:blue", "-", "o"),
    "fitted_1s": ("tab:cyan", "--", "v"),
    "carried": ("tab:purple", ":", "s"),
    "placed": ("tab:red", "-", "o"),
    "refitted": ("tab:orange", "--", "^"),
    "lif": ("0.35", "-.", "D"),
}


def draw(found: dict[str, Any], path: Path) -> None:
    """Accuracy against each effect: means over chips, bands from the lowest to the highest chip."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "programming": ("Programming noise", "times that of HfOx after 1 s"),
        "read": ("Read noise", "standard deviation, % of the conductance"),
        "bits": ("Converters", "bits"),
        "age": ("Age", "since programming, HfOx"),
        "stuck": ("Stuck cells (axis from 0)", "% of all cells"),
        "together": ("All of HfOx, 8 bits, 11 % stuck (axis from 0)", "since programming"),
    }
    figure, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
    floor = 100 * found["linear_floor"][f"linear floor, counts in {WINDOWS} windows"]
    for axis, sweep in zip(axes.flat, titles, strict=True):
        mine = [point for point in found["points"] if point["sweep"] == sweep]
        even = sweep in ("age", "together", "bits", "read")
        values = [p["value"] for p in mine]
        at = list(range(len(mine))) if even else [100 * v if sweep == "stuck" else v for v in values]
        for name, (color, line, marker) in STYLES.items():
            shares = [[100 * x for x in point["shares"].get(name, [])] for point in mine]
            if not all(shares):
                continue
            mean = [statistics.mean(x) for x in shares]
            axis.fill_between(at, [min(x) for x in shares], [max(x) for x in shares], color=color, alpha=0.15, lw=0)
            axis.plot(at, mean, color=color, ls=line, marker=marker, ms=4, label=CONTENDERS[name])
        axis.axhline(floor, color="k", lw=0.8, ls=(0, (1, 3)), label="linear floor (counts in windows), not on devices")
        if even:
            ages = ["1 s" if v == 1 else f"{v / DAY:g} d" for v in values]
            names = {"bits": [f"{v:g}" for v in values], "read": [f"{100 * v:g}" for v in values]}.get(sweep, ages)
            axis.set_xticks(at, names)
        axis.set_title(titles[sweep][0], fontsize=11)
        axis.set_xlabel(titles[sweep][1])
        axis.set_ylim(0 if sweep in ("stuck", "together") else 60, 100)
        axis.grid(alpha=0.25)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"right of {found['samples']} held-out samples, %")
    known = {}
    for axis in axes.flat:
        known.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    seen = {name: known[name] for name in [*CONTENDERS.values(), *known] if name in known}
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9.5)
    figure.suptitle(
        f"N-MNIST, 1k, {found['units']} units: means over {len(found['ideal']['fitted'])} chips, bands lowest to highest"
    )
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=130)
    plt.close(figure)
    os.replace(part, path)


# ---- on data --------------------------------------------------------------------------------------------------------


def both(splits: Any) -> Part:
    """Training and validation part together, in a fixed order without the classes' own."""
    events = Events.cat([splits.train.events, splits.validation.events])
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return events[order], labels[order]


def run_readout(root: Path, quick: bool, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Small reservoirs of all sets first; ``keep`` gets what there is after each set."""
    parts: dict[str, tuple[Part, Part]] = {}
    for name, folder in (("N-MNIST 1k", "nmnist_1k"), ("N-MNIST 6-9", "nmnist_6to9")):
        if not (root / folder).exists() or (quick and parts):
            continue
        splits = data.load("nmnist", root=root / folder)
        train, test = both(splits), (splits.test.events, splits.test.labels)
        labels = train[1].unique()
        train, test = ((e, torch.searchsorted(labels, y)) for e, y in (train, test))
        if quick:
            train = train[0][:300], train[1][:300]
        parts[f"{name}, 16 x 16"] = (pooled(train[0]), train[1]), (pooled(test[0]), test[1])
        parts[f"{name}, 34 x 34 x 2"] = train, test
    found: dict[str, Any] = {"choices": {}, "sets": {}}
    for name, (train, test) in parts.items():
        choice = chosen((train[0][:500], train[1][:500]))
        say(f"{name}: {choice}")
        found["choices"][name] = vars(choice)
        found["sets"][name] = [*floors(train, test), *readout(train, test, 2 if quick else 10, UNITS, choice)]
        keep(found)
    for name, (train, test) in parts.items():
        if "34" in name and not quick:
            choice = Choice(**found["choices"][name])
            chips = 10 if len(train[1]) < 2000 else 3  # as a readout of 5,000 features then takes half a minute
            found["sets"][name] += readout(train, test, chips, 1000, choice)
            keep(found)
    return found


def run_devices(root: Path, quick: bool, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    splits = data.load("nmnist", root=root / "nmnist_1k")
    events, labels = both(splits)
    events = pooled(events)
    held = Events.cat([events[700:], pooled(splits.test.events)]), torch.cat([labels[700:], splits.test.labels])
    chips, cores = (2 if quick else 10), len(os.sched_getaffinity(0))
    return devices((events[:700], labels[:700]), held, chips=chips, quick=quick, workers=cores, keep=keep)


def run_zero_shot(root: Path, quick: bool, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    splits = data.load("nmnist", root=root / "nmnist_1k"), data.load("fsdd", root=root)
    kinds = []
    for each in splits:
        test = both(
            replace(each, train=each.validation, validation=each.test)
        )  # validation and test: no choice but the epoch
        kinds.append(((each.train.events, each.train.labels), test))
    found = zero_shot_pairs(*kinds, quick=quick)
    keep(found)
    return found


def save(name: str, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Put one part into the file, beside the others."""
    whole = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    own = {"torch": torch.__version__, "seconds": round(seconds), "machine": machine(), "commit": commit()}
    whole[name] = {**found, **own}
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(part, RESULT)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--part", choices=("readout", "devices"), help="one of them only")
    parser.add_argument("--zero-shot", action="store_true", help="that part only")
    parser.add_argument("--quick", action="store_true", help="two chips, the ends of each sweep; nothing is saved")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--draw", action="store_true", help="only draw the picture of what was saved")
    options = parser.parse_args()
    if options.draw:
        return draw(json.loads(RESULT.read_text())["devices"], RESULT.with_suffix(".png"))
    if options.data_root is None:
        parser.error("--data-root is needed")
    runs = {"readout": run_readout, "devices": run_devices, "zero_shot": run_zero_shot}
    names = ["zero_shot"] if options.zero_shot else [options.part] if options.part else ["readout", "devices"]
    for name in names:
        start = time.perf_counter()

        def keep(found: dict[str, Any], name: str = name, start: float = start) -> None:
            if options.save and not options.quick:
                save(name, found, time.perf_counter() - start)
                if name == "devices":
                    draw(found, RESULT.with_suffix(".png"))

        print(table({name: runs[name](options.data_root, options.quick, keep)}), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
