"""Contenders on the devices of resistive memory: a random reservoir and trained networks, on the same cells.

- The reservoir whose readout is fitted on the chip as it is then, or carried over from ideal cells, or (ages) fitted after 1 s.
- A trained network with one hidden layer (counts in four windows of time, ``nn.Linear``, ReLU, ``nn.Linear``), placed by
  ``compile(model, "resistive")``; and, as a control, its last layer fitted again on each chip by the same ridge.
- A trained LIF network, placed in the same way; layers of events have no read noise and no converters there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from resistive_chips import CHOOSING, Choice, fitted, formed_reservoir
from resistive_inputs import DECAY, STEPS, WINDOWS, Part, in_windows
from torch import Tensor, nn

from eventnet import LI, LIF, Events, initial
from eventnet.hardware import compile
from eventnet.hardware.resistive import ADC, HFOX, Cell, Crossbar, Pair, ReadNoise, RidgeReadout, Stuck, seeded
from eventnet.hardware.resistive.effects import HFO2_STUCK, HFOX_PROGRAMMING
from eventnet.hardware.resistive.formed import formed_pairs

__all__ = ["Net", "Random", "Setting", "bound_of", "crossbar_of", "setting", "trained_lif"]

BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)  # of converters
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

    def on(self, devices: Setting, seed: int, compensate_drift: bool = False) -> dict[str, float]:
        adc = None if devices.bits is None else ADC(devices.bits, self.bound)
        options = {"adc": adc, "seed": seed, "age": devices.age, "compensate_drift": compensate_drift}
        placed = compile(self.model, "resistive", cell=devices.cell, **options)
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
        self.pairs = formed_pairs(events.num_units, units, seed, **choice.cells)
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
