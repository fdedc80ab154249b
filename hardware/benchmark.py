"""``benchmark``: what a trained network does for its answers, counted, and what that would cost, estimated beside dense networks.

Counted are the trained network in floating point and, where it can be compiled, its fixed-point twin, which is what a chip would
run. Event-driven devices are charged for the twin's operations (without one: for the trained network's), events from outside
included; devices that compute every connection in every step, and the baselines, for their dense equivalent.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eventnet
from eventnet import EGRU, Events, metrics
from eventnet.counting import Counts, count, per_sample_of
from eventnet.hardware.baselines import Baseline, break_even, dense_twin, sparsity
from eventnet.hardware.counting import counts_of
from eventnet.hardware.deployment import compile
from eventnet.hardware.energy import estimate
from eventnet.hardware.energy_profiles import ENERGY_PROFILES
from eventnet.hardware.parity import interval
from eventnet.hardware.trained import fingerprint, layer_spikes, state_of

__all__ = ["FORMAT", "benchmark"]

FORMAT = 1
BATCH = 64  # samples at a time
ON = "asic45"  # where the baselines of the break-even run: the device with a price for arithmetic and memory
COMPARED = ("loihi1", "spinnaker2", "asic45", "in_memory")  # event-driven devices, beside those baselines
HIDDEN_ZEROS = (
    0.5  # share of a dense network's hidden activations that are zero: about what rectifiers give; of a GRU none
)
BINS = 200  # of the activity over time
MOST_SPIKES = 4000  # of a layer that are kept for a raster

Say = Callable[[str], None]


@torch.no_grad()
def benchmark(
    model: nn.Module,
    events: Events,
    labels: Tensor | None,
    *,
    dt: float,
    calibration: Events | None = None,
    predict: Callable[[Any], Tensor] | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Counts, energy ranges, baselines and break-even of a model on samples that were not used before, as plain values.

    Args:
        model: what is called with ``Events``: a module, or a network of ``eventnet.training``.
        events: the samples.
        labels: class numbers per sample or per step (-100: none); None if there is nothing to be right about.
        dt: seconds of a step of a chip, and of the dense equivalent.
        calibration: typical input to compile the fixed-point twin with; without it only the trained network is counted.
        predict: from the model's output to class numbers, ``(B,)`` or ``(B, K)``; by default the largest score.
        say: told what is being done.

    Example:
        >>> from eventnet import LI, LIF
        >>> events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
        >>> class Net(nn.Sequential):
        ...     def forward(self, events):
        ...         return super().forward(events).max()
        >>> found = benchmark(Net(LIF(4, 3), LI(3, 2)), events, torch.tensor([0]), dt=1e-3)
        >>> found["counts"]["trained"]["0"]["accumulates"], sorted(found["energy"])[:2]
        (6.0, ['arm', 'asic45'])
    """
    if not events.batch_size:
        raise ValueError("events: expected at least one sample, got none")
    say(f"counting the operations of {events.batch_size:,} samples")
    right: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, __, output: right.append(_predicted(output, predict)))
    try:
        trained = {"input": _inputs(events, dt), **count(model, _pieces(events), dt=dt)}
    finally:
        hook.remove()
    facts: dict[str, Any] = {
        "format": FORMAT,
        "identity": _identity(events, dt) | {"model_sha256": fingerprint(state_of(model))},
        "accuracy": {"trained": _share(torch.cat(right), labels)} if labels is not None else {},
        "counts": {"trained": per_sample_of(trained)},
        "notes": [],
    }
    deployed = _deployed(model, events, labels, calibration, dt, facts, say)
    charged, source = (deployed, "fixed_point") if deployed else (trained, "trained")
    facts |= {"charged": source, "activity": _activity(charged, dt)}
    gated = any(isinstance(each, EGRU) for each in model.modules())
    facts |= _energy(charged, dt, events.num_units, 0.0 if gated else HIDDEN_ZEROS)
    facts |= {"rasters": _rasters(model, events[:1], dt), "learnt": _learnt(model)}
    return facts


def _inputs(events: Events, dt: float) -> Counts:
    """The events from outside as a layer without state: what sends them to the first layer."""
    steps = int(events.num_steps(dt).sum())
    return Counts(samples=events.batch_size, steps=steps, neurons=events.num_units, spikes=events.num_events)


def _deployed(
    model: Any,
    events: Events,
    labels: Tensor | None,
    calibration: Events | None,
    dt: float,
    facts: dict[str, Any],
    say: Say,
) -> dict[str, Counts] | None:
    """The counts of the fixed-point twin, which go into the facts as well; None where there is none, with the reason."""
    if calibration is None:
        facts["notes"].append("No fixed-point twin was compiled: the counts are those of the trained network.")
        return None
    try:
        deployment = compile(model, calibration=calibration, dt=dt)
    except (TypeError, ValueError) as error:
        facts["notes"].append(f"No fixed-point twin: {error}. The counts are those of the trained network.")
        return None
    say(f"simulating the fixed-point twin in steps of {deployment.network.dt * 1e3:g} ms")
    decision = deployment.run(events)
    counts = counts_of(deployment.network, decision)
    if labels is not None:
        facts["accuracy"]["fixed_point"] = _share(deployment.reading.predict(decision.scores), labels)
    facts["counts"]["fixed_point"] = per_sample_of(counts)
    facts["notes"] += [f"The fixed-point twin leaves out or approximates: {each}." for each in deployment.log.lost]
    return counts


# ---- what it costs ---------------------------------------------------------------------------------------------------------


def _energy(counts: Mapping[str, Counts], dt: float, inputs: int, hidden_zeros: float) -> dict[str, Any]:
    """Estimates on every device, the baselines, where they break even, and what sparsity saves."""
    energy: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, profile in ENERGY_PROFILES.items():
        try:
            energy[name] = estimate(counts, profile, dt=dt).to_dict() | {"event_driven": profile.event_driven}
        except ValueError as error:
            refused[name] = str(error)
    layers = {name: each for name, each in counts.items() if each.dense}  # inputs have no connections
    twins = dense_twin(layers, zero_share=_zeros(layers, inputs, hidden_zeros))
    baselines = [twin.estimate(name, dt=dt).to_dict() for name in (ON, "arm", "gpu", "cpu") for twin in twins]
    even: dict[str, list[dict[str, Any]]] = {}
    for name in COMPARED:
        for twin in (twins[1], twins[3]):  # those that skip zeros: the stronger ones
            try:
                found = break_even(layers, name, twin.estimate(ON, dt=dt), dt=dt).to_dict()
            except ValueError as error:
                refused[name] = str(error)
                continue
            even.setdefault(name, []).append(found)
    found = {"energy": energy, "baselines": baselines, "break_even": even, "refused": refused}
    return found | {"sparsity": _sparsity(layers), "assumptions": _assumptions(twins)}


def _sparsity(layers: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """What sparse weights and sparse activity save, alone and together; nothing where a layer has no weights or no operations."""
    if not all(counts.synapses and counts.synaptic_operations for counts in layers.values()):
        return []
    density = {name: counts.synapses / (counts.dense / counts.steps) for name, counts in layers.items()}
    return [
        {
            "name": row.name,
            "operations_per_sample": row.operations,
            "energy_joules_per_sample": row.energy.to_list(),
            "share_of_dense": row.share.to_list(),
        }
        for row in sparsity(layers, ON, weight_density=density)
    ]


def _zeros(layers: Mapping[str, Counts], inputs: int, hidden: float) -> dict[str, float]:
    """The share of zeros among what each layer of a dense network receives: from outside as counted, from units ``hidden``."""
    found = dict.fromkeys(layers, hidden)
    first = next(iter(layers))
    counts = layers[first]
    outside = max(1 - counts.inputs / max(counts.steps * inputs, 1), 0.0)
    recurrent = counts.dense != counts.steps * inputs * counts.neurons
    share = inputs / (inputs + counts.neurons) if recurrent else 1.0  # of its connections that are from outside
    found[first] = share * outside + (1 - share) * hidden
    return found


def _assumptions(twins: Iterable[Baseline]) -> list[str]:
    """What the comparison rests on, each once."""
    said = [
        "All energies are estimates from counts and published coefficients, not measurements; ranges are those of the sources.",
        "Batch size 1; energy of training, of sensors and of getting data on and off the chip is left out.",
        "Dynamic energy and idle energy are separate lines; comparisons leave idle power out unless it is known for both sides.",
    ]
    return list(dict.fromkeys([*said, *(line for twin in twins for line in twin.assumptions)]))


# ---- what is shown beside it -----------------------------------------------------------------------------------------------


def _activity(counts: Mapping[str, Counts], dt: float) -> dict[str, Any]:
    """Spikes per neuron and second over time, averaged over samples, in at most ``BINS`` bins."""
    found = {}
    for name, each in counts.items():
        profile = each.spikes_per_step.double()
        if len(profile) and each.neurons:
            width = math.ceil(len(profile) / BINS)
            padded = nn.functional.pad(profile, (0, -len(profile) % width)).view(-1, width)
            lengths = torch.full((len(padded),), float(width))
            lengths[-1] = len(profile) - width * (len(padded) - 1)
            rates = padded.sum(1) / (each.samples * each.neurons * dt * lengths)
            found[name] = {"bin_s": width * dt, "rate_hz": [round(rate, 4) for rate in rates.tolist()]}
    return found


def _rasters(model: Any, sample: Events, dt: float) -> dict[str, Any]:
    """Spikes of the first sample: of the input, and of each layer of a model that can be compiled."""
    found = {"input": _raster(sample.times.tolist(), sample.units.tolist(), sample.num_units)}
    try:
        layers = layer_spikes(model, sample, dt, int(sample.num_steps(dt).max()) + 1)
    except (TypeError, ValueError):  # another kind of model
        layers = []
    for layer in layers:
        step, unit = layer.raster[:, 0].nonzero(as_tuple=True)
        found[layer.name] = _raster((step * dt).tolist(), unit.tolist(), layer.raster.shape[2])
    return {"duration_s": float(sample.duration.max()), "layers": found}


def _raster(times: list[float], units: list[int], size: int) -> dict[str, Any]:
    kept = slice(0, MOST_SPIKES)
    return {
        "times_s": [round(t, 6) for t in times[kept]],
        "units": units[kept],
        "size": size,
        "left_out": max(0, len(times) - MOST_SPIKES),
    }


def _learnt(model: nn.Module) -> dict[str, list[float]]:
    """Delays and time constants in seconds, at most a thousand of each parameter, evenly from all."""
    found = {}
    for name, parameter in model.named_parameters():
        if name.endswith(("delay", "tau_mem", "tau_syn")) and parameter.numel():
            values = parameter.detach().double().flatten().cpu()
            chosen = torch.linspace(0, len(values) - 1, min(len(values), 1000)).long()
            found[name] = [round(x, 7) for x in values.sort().values[chosen].tolist()]
    return found


def _identity(events: Events, dt: float) -> dict[str, Any]:
    return {
        "eventnet": eventnet.__version__,
        "torch": torch.__version__,
        "processor": _processor(),
        "samples": events.batch_size,
        "step_s": dt,
        "seconds_per_sample": float(events.duration.double().mean()),
        "input_events_per_sample": events.num_events / events.batch_size,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _share(predictions: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy with Wilson's 95 % interval."""
    counted = int((labels != metrics.IGNORED).sum())
    right = round(metrics.accuracy(predictions, labels) * counted) if counted else 0
    return {**interval(right, counted), "labels": counted}


def _predicted(output: Any, predict: Callable[[Any], Tensor] | None) -> Tensor:
    scores: Tensor = output if predict is None else predict(output)
    return (scores.argmax(-1) if predict is None else scores).cpu()


def _pieces(events: Events) -> Iterator[Events]:
    for k in range(0, events.batch_size, BATCH):
        yield events[k : k + BATCH]
