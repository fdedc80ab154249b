"""``compile``: from a trained model to what a chip is given; ``Deployment``: that, and what can be done with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from eventnet import LI, LIF, Events
from eventnet.counts import summed
from eventnet.hardware.calibrate import calibrate
from eventnet.hardware.checks import check_events, nearest
from eventnet.hardware.egru_quantize import binned, gated_of, quantize_gated
from eventnet.hardware.files import load_network, save_network
from eventnet.hardware.lava import to_lava
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork
from eventnet.hardware.quantize import (
    Log,
    Scale,
    check_finite,
    gain,
    layers_of,
    names_of,
    quantize,
    rasterize,
    within,
)
from eventnet.hardware.reading import Reader, Reading
from eventnet.hardware.trained import fingerprint, reading_of, state_of

if TYPE_CHECKING:
    from eventnet.hardware.parity import ParityReport
    from eventnet.hardware.resistive import ADC, DAC, Cell
    from eventnet.hardware.resistive.placing import ResistiveDeployment

__all__ = ["Decision", "Deployment", "compile"]

TARGETS = {  # and the options that each has
    "loihi": ("calibration", "dt", "reading", "search"),
    "resistive": (
        *("calibration", "reading", "cell", "tile", "dac", "adc"),
        *("wire_resistance", "seed", "age", "compensate_drift"),
    ),
}
STEP = 1e-3  # seconds, where nothing says another
NETWORK = "network.safetensors"  # in the folder of an export
SAMPLES, STEPS = 64, 256  # that are simulated at a time


class Decision(NamedTuple):
    """What a deployed network says about a batch: ``scores`` as the trained one's, the spikes of each population ``(B,)``, how
    often a current wrapped or a voltage was clipped, and how many input events were lost, as they shared a step with another of
    their unit.

    For counts: the ``steps (B,)`` that each sample ran, and the spikes within them of each neuron ``(N,)`` and of each step
    ``(T,)``, of all samples, by population.
    """

    scores: Tensor
    spikes: dict[str, Tensor]
    overflows: dict[str, int]
    merged: int
    steps: Tensor
    by_neuron: dict[str, Tensor]
    by_step: dict[str, Tensor]


@dataclass(repr=False)
class Deployment:
    """A network of integers, how it is read, and what it lost on the way; made by ``compile`` or ``Deployment.load``."""

    network: HardwareNetwork
    reading: Reading
    log: Log = field(default_factory=Log)
    distances: Mapping[str, float] = field(default_factory=dict)
    model: Any = None  # that it was compiled from; not saved

    def __repr__(self) -> str:
        return f"Deployment({self.network!r}, readout {self.reading})"

    def run(self, events: Events) -> Decision:
        """Simulate the chip on events, bit for bit.

        Example:
            >>> model = nn.Sequential(LIF(4, 3), LI(3, 2))
            >>> events = Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
            >>> compile(model, calibration=events).run(events).scores.shape
            torch.Size([1, 2])
        """
        check_events("events", events)
        parts = [self._piece(part) for part in _pieces(events)]
        spikes = {name: torch.cat([part.spikes[name] for part in parts]) for name in parts[0].spikes}
        overflows = {name: sum(part.overflows.get(name, 0) for part in parts) for name in parts[0].overflows}
        scores = [part.scores for part in parts]
        if self.reading.kind == "at":  # samples of several lengths
            longest = max(part.shape[1] for part in scores)
            scores = [nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in scores]
        return Decision(
            torch.cat(scores),
            spikes,
            overflows,
            sum(part.merged for part in parts),
            torch.cat([part.steps for part in parts]),
            {name: torch.stack([part.by_neuron[name] for part in parts]).sum(0) for name in spikes},
            {name: summed([part.by_step[name] for part in parts]) for name in spikes},
        )

    def predict(self, events: Events) -> Tensor:
        """The class of each sample, or of each of its steps."""
        return self.reading.predict(self.run(events).scores)

    def raster(self, events: Events) -> Tensor:
        """The events as they are sent to the chip, step by step: ``(T, B, N)`` int32."""
        check_events("events", events)
        values = self.network.notes.get("values")
        if events.values is not None and values is None:
            raise ValueError("events: expected none with values, as the network was compiled for, got graded ones")
        if self.network.notes.get("binned"):
            return binned(events, self.network.dt, values, late=self.reading.lag + 1)
        return rasterize(events, self.network.dt, values)

    def to_lava(self, folder: str | Path, events: Events, steps: int | None = None) -> Path:
        """Write a Lava script with these samples (their first steps) to check itself with; see ``hardware.lava.to_lava``."""
        return to_lava(self.network, folder, self.raster(events)[:steps])

    def to_nir(self, path: str | Path) -> None:
        """Write the trained layers as a NIR file in steps of this network's dt; see ``hardware.nir.write_nir``."""
        from eventnet.hardware.nir import write_nir

        write_nir(layers_of(self.trained()), path, dt=self.network.dt)

    def report(self, events: Events, labels: Tensor | None = None, *, chip: str = "loihi2") -> ParityReport:
        """How this network differs from the trained one, on samples that were not used before; see ``hardware.parity``.

        The gates come with ``eventnet.hardware.exporting``, which writes files and reads them again.
        """
        from eventnet.hardware.parity import measure

        return measure(self, self.trained(), events, labels, chip=chip)

    def trained(self, model: Any = None) -> Any:
        """The model that this was compiled from: the one given, or its own.

        Raises:
            ValueError: there is none, or it is another one, or was trained further.
        """
        model = self.model if model is None else model
        if model is None:
            raise ValueError(
                "a deployment that was loaded from a file has no trained model: set deployment.model to it"
            )
        known = self.network.notes.get("model_sha256")
        if known is not None and fingerprint(state_of(model)) != known:
            raise ValueError(
                "model: its parameters are not those that were compiled: it is another model, or was trained further; expected "
                "the one of compile, or compile it again"
            )
        return model

    def save(self, path: str | Path) -> None:
        """Write everything into one file."""
        notes = {"reading": self.reading.to_dict(), "log": self.log.to_dict(), "distances": dict(self.distances)}
        save_network(self.network.changed(notes={**self.network.notes, **notes}), path)

    @staticmethod
    def load(path: str | Path) -> Deployment:
        """What ``save`` wrote, or ``export`` into a folder.

        Raises:
            FileNotFoundError: there is none. ValueError: damaged, or something else.
        """
        path = Path(path) / NETWORK if Path(path).is_dir() else path
        network = load_network(path)
        notes = dict(network.notes)
        if "reading" not in notes:
            raise ValueError(f"{path}: a hardware graph, but not one that says how it is read; load_network reads it")
        reading, log, distances = (notes.pop(name) for name in ("reading", "log", "distances"))
        return Deployment(network.changed(notes=notes), Reading.from_dict(reading), Log(**log), distances)

    @torch.no_grad()
    def _piece(self, events: Events) -> Decision:
        raster, state = self.raster(events), None
        fired: dict[str, Tensor] = {each.name: torch.zeros((), dtype=torch.int64) for each in self.network.populations}
        by_step: dict[str, list[Tensor]] = {name: [] for name in fired}
        reader = Reader(self.reading, events.num_steps(self.network.dt), self.network.dt)
        steps = events.num_steps(self.network.dt) + self.reading.lag  # a sample's spikes after its end do not count
        output = self.network.neurons[-1].name
        for part in raster.split(STEPS):
            found, state = simulate(self.network, part, state=state, record=[output], return_state=True)
            reader.add(found.v[output], found.spikes[output])
            alive = within(steps, len(part), reader.done - len(part)).to(part.device)
            for name, spikes in found.spikes.items():
                counted = (spikes != 0) & alive
                fired[name] = counted.sum(0) + fired[name].to(counted.device)
                by_step[name].append(counted.sum((1, 2)))
        assert state is not None
        merged = 0 if self.network.projections[0].message_bits else int((raster - 1).clamp(min=0).sum())
        return Decision(
            reader.scores(),
            {name: counts.sum(1) for name, counts in fired.items()},
            state.overflows,
            merged,
            steps + 1,
            {name: counts.sum(0) for name, counts in fired.items()},
            {name: torch.cat(parts) for name, parts in by_step.items()},
        )


@overload
def compile(
    model: nn.Module | list[nn.Module],
    target: Literal["loihi"] = ...,
    *,
    calibration: Events,
    dt: float | None = ...,
    reading: Reading | str | None = ...,
    search: bool = ...,
) -> Deployment: ...


@overload
def compile(
    model: nn.Module | list[nn.Module],
    target: Literal["resistive"],
    *,
    calibration: Events | None = ...,
    reading: Reading | str | None = ...,
    cell: Cell = ...,
    tile: tuple[int, int] | None = ...,
    dac: DAC | None = ...,
    adc: ADC | None = ...,
    wire_resistance: float = ...,
    seed: int = ...,
    age: float = ...,
    compensate_drift: bool = ...,
) -> ResistiveDeployment: ...


def compile(
    model: nn.Module | list[nn.Module], target: str = "loihi", **options: Any
) -> Deployment | ResistiveDeployment:
    """A trained model as a network of integers, or on the arrays of a resistive chip.

    Args:
        model: LIF layers, at the end LIF or LI, or an EGRU and an ``nn.Linear``: a list, an ``nn.Sequential``, or a network of
            ``eventnet.training``. Dropout is left out.
        target: "loihi", the arithmetic of ``eventnet.hardware.loihi``; or "resistive", crossbars of memory cells.
        calibration: a batch of typical input, not of the test set. "resistive" does not need it: the largest weight of a
            matrix is its scale.
        dt: ("loihi") seconds of a step; by default 1 ms, and of gated units their own.
        reading: what the classes are read from, a ``Reading`` or one of its kinds: of LI "max", "mean", "integral" or "at", of
            LIF "first_spike" or "count", of EGRU "last", "mean" or "at". By default what the model says itself (a network of
            ``eventnet.training`` does), else the first of these, which the report then says was assumed.
        search: ("loihi") look for the scales on the calibration batch; otherwise the largest are taken.
        cell, tile, dac, adc, wire_resistance, seed, age, compensate_drift: ("resistive") see
            ``eventnet.hardware.resistive.placing.place``, which also takes other models.

    Raises:
        TypeError: a layer that the chip has no neurons for; an option that the target does not have.
        ValueError: a number is beyond what a neuron or synapse holds.

    Example:
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> compile([LIF(4, 3), LI(3, 2)], calibration=events, reading="mean").reading.kind
        'mean'
        >>> compile([LIF(4, 3), LI(3, 2)], "resistive", seed=1).run(events).shape
        torch.Size([1, 2])
    """
    _check_target(target)
    _check_options(target, options)
    if target == "loihi":
        return _integers(model, **options)
    from eventnet.hardware.resistive.placing import place

    calibration = options.pop("calibration", None)
    if calibration is not None:
        check_events("calibration", calibration)
    return place(model, **options)


def _integers(
    model: nn.Module | list[nn.Module],
    *,
    calibration: Events,
    dt: float | None = None,
    reading: Reading | str | None = None,
    search: bool = True,
) -> Deployment:
    """``compile`` for "loihi"."""
    check_events("calibration", calibration)
    if not calibration.batch_size:
        raise ValueError("calibration: expected at least one sample, got none")
    gated = gated_of(model)
    layers = [] if gated is not None else layers_of(model)
    _check_units(calibration, layers[0].in_features if gated is None else gated.weight_in.shape[1])
    found, assumed = reading_of(model, reading)
    notes = {"model_sha256": fingerprint(state_of(model))}
    if gated is not None:
        if dt not in (None, gated.step):
            raise ValueError(f"dt: the units were trained with steps of {gated.step:g} s, expected those, got {dt!r}")
        network, log, found, apart = quantize_gated(model, calibration, reading=found)
        log.lost.append(
            "EGRU units are in no stock process of Lava, in no node of NIR and on no chip: the Lava script brings its own"
        )
        log.assumed += assumed
        return Deployment(network.changed(notes={**network.notes, **notes}), found, log, apart, model)
    log, dt = Log(assumed=assumed), STEP if dt is None else dt
    check_finite(layers, dt)
    bits, values = _message(calibration, dt, log)
    scales: dict[str, Scale] = {}
    distances: dict[str, float] = {}
    if search:
        scales, distances = calibrate(layers, calibration, dt, message_bits=bits)  # type: ignore[arg-type]
    noted = notes if values is None else {**notes, "values": values}
    network, rounded = quantize(layers, dt, scales=scales, message_bits=bits, notes=noted)  # type: ignore[arg-type]
    log.errors, log.lost = rounded.errors, log.lost + rounded.lost
    return Deployment(network, _with_volts(found, layers, log, dt), log, distances, model)


def _check_target(target: str) -> None:
    if target in ("lava", "nir"):
        says = {
            "lava": f"compile for 'loihi', then export(deployment, model, {target!r}, folder, events)",
            "nir": "NIR holds the trained layers, not integers: export_nir(model, folder, events) writes them",
        }
        raise ValueError(f"target: expected loihi, got {target!r}: {says[target]}")
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")


def _check_options(target: str, options: Mapping[str, Any]) -> None:
    known = TARGETS[target]
    for name in options:
        if name not in known:
            others = [other for other, has in TARGETS.items() if name in has]
            hint = f"; {name} is one of {others[0]}" if others else nearest(name, known)
            raise TypeError(f"compile: {target} has no option {name!r}{hint}; it has {', '.join(known)}")
    if target == "loihi" and "calibration" not in options:
        raise TypeError("compile: loihi needs calibration=events, a batch of typical input")


def _check_units(calibration: Events, units: int) -> None:
    if calibration.num_units != units:
        raise ValueError(
            f"calibration: expected events of {units} units, the model's inputs, got {calibration.num_units}"
        )


def _message(events: Events, dt: float, log: Log) -> tuple[int, float | None]:
    """Bits of the input's spikes, and the factor on their values; 0 and None where each is a plain spike."""
    if events.values is not None:
        raise ValueError("calibration: expected events without values; graded input is not carried over yet")
    most = int(rasterize(events, dt).max()) if events.num_events else 0
    if most <= 1:
        return 0, None
    log.lost.append(
        f"up to {most} input events of one unit in a step of {dt:g} s: sent as one graded spike, which Loihi 2 has and "
        "Loihi 1 has not"
    )
    return 16, None


def _with_volts(reading: Reading, layers: list[LIF | LI], log: Log, dt: float) -> Reading:
    """The reading, with the volts of the output's integers."""
    last, name = layers[-1], names_of(layers)[-1]
    k = gain(
        dt,
        *(torch.as_tensor(x).detach().double().cpu().expand(last.out_features) for x in (last.tau_mem, last.tau_syn)),
    )
    reset = getattr(last, "reset", torch.zeros(()))
    offset = torch.as_tensor(reset).detach().double().cpu().expand(last.out_features)
    volts = k / (64 * log.errors[name]["scale"])
    return dataclasses.replace(reading, volts=tuple(volts.tolist()), offset=tuple(offset.tolist()))


def _pieces(events: Events) -> Iterator[Events]:
    """A few samples at a time."""
    if not events.batch_size:
        raise ValueError("events: expected at least one sample, got none")
    for k in range(0, events.batch_size, SAMPLES):
        yield events[k : k + SAMPLES]
