"""``benchmark``: what a trained network does for its answers, counted, and what that would cost, estimated beside dense networks.

Counted are the trained network in floating point and, where it can be compiled, its fixed-point twin, which is what a chip would
run. Event-driven devices are charged for the twin's operations (without one: for the trained network's), events from outside
included; devices that compute every connection in every step, and the baselines, for their dense equivalent.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

FORMAT = 2
BATCH = 64  # samples at a time
ON = "asic45"  # where the baselines of the break-even run: the device with a price for arithmetic and memory
COMPARED = ("loihi1", "spinnaker2", "asic45", "in_memory")  # event-driven devices, beside those baselines
HIDDEN_ZEROS = (
    0.5  # share of a dense network's hidden activations that are zero: about what rectifiers give; of a GRU none
)
DRAWS = 1000  # of samples, for the interval of an accuracy per step
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
    baseline_dt: float | None = None,
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
        baseline_dt: seconds of a step of the dense baselines, which should be what the task asks for; by default ``dt``.
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
    baseline_dt = dt if baseline_dt is None else baseline_dt
    say(f"counting the operations of {events.batch_size:,} samples")
    right: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, __, output: right.append(_predicted(output, predict)))
    try:
        trained = {"input": _inputs(events, dt), **count(model, _pieces(events), dt=dt)}
    finally:
        hook.remove()
    said = _joined(right)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "identity": _identity(events, dt, baseline_dt) | {"model_sha256": fingerprint(state_of(model))},
        "accuracy": {"trained": _share(said, labels)} if labels is not None else {},
        "counts": {"trained": per_sample_of(trained)},
        "notes": [],
    }
    deployed = _deployed(model, events, labels, calibration, dt, facts, say)
    if deployed is None:
        charged, steps, facts["charged"] = trained, events.num_steps(dt), "trained"
    else:
        (charged, steps), facts["charged"] = deployed, "fixed_point"
    facts["activity"] = _activity(charged, steps, dt)
    twins = _twins(model, charged, events, dt, baseline_dt, answers=said.shape[1] if said.dim() > 1 else 1)
    if said.dim() > 1 and said.shape[1] > 1:
        facts["notes"].append(
            f"No dense network that runs once is among the baselines: a sample has up to {said.shape[1]:,} answers, not one."
        )
    facts |= _energy(charged, dt, twins, baseline_dt)
    facts |= {"rasters": _rasters(model, events[:1], dt), "learnt": _learnt(model)}
    return facts


def _inputs(events: Events, dt: float) -> Counts:
    """The events from outside, before the end of their sample, as a layer without state: what sends them to the first layer."""
    steps, heard = int(events.num_steps(dt).sum()), int(_heard(events).sum())
    return Counts(samples=events.batch_size, steps=steps, neurons=events.num_units, spikes=heard)


def _heard(events: Events) -> Tensor:
    """Which events a layer gets, ``(E,)``: those before the end of their sample, of a value that is not zero."""
    heard = events.times < events.duration[events.samples]
    return heard if events.values is None else heard & (events.values != 0)


def _deployed(
    model: Any,
    events: Events,
    labels: Tensor | None,
    calibration: Events | None,
    dt: float,
    facts: dict[str, Any],
    say: Say,
) -> tuple[dict[str, Counts], Tensor] | None:
    """The counts of the fixed-point twin, which go into the facts as well, and the steps of each sample; None where there is no
    twin, with the reason."""
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
        facts["accuracy"]["fixed_point"] = _share(deployment.reading.predict(decision.scores).cpu(), labels)
    facts["counts"]["fixed_point"] = per_sample_of(counts)
    facts["notes"] += [f"The fixed-point twin leaves out or approximates: {each}." for each in deployment.log.lost]
    return counts, decision.steps


# ---- what it costs ---------------------------------------------------------------------------------------------------------


def _energy(counts: Mapping[str, Counts], dt: float, twins: Sequence[Baseline], baseline_dt: float) -> dict[str, Any]:
    """Estimates on every device, the baselines, where they break even, and what sparsity saves."""
    energy: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, profile in ENERGY_PROFILES.items():
        try:
            energy[name] = estimate(counts, profile, dt=dt).to_dict() | {"event_driven": profile.event_driven}
        except ValueError as error:
            refused[name] = str(error)
    baselines = [twin.estimate(name, dt=baseline_dt).to_dict() for name in (ON, "arm", "gpu", "cpu") for twin in twins]
    even: dict[str, list[dict[str, Any]]] = {}
    for name in COMPARED:
        for twin in (each for each in twins if "zeros skipped" in each.name):  # the stronger ones
            try:
                found = break_even(counts, name, twin.estimate(ON, dt=baseline_dt), dt=dt).to_dict()
            except ValueError as error:
                refused[name] = str(error)
                continue
            even.setdefault(name, []).append(found)
    found = {"energy": energy, "baselines": baselines, "break_even": even, "refused": refused}
    layers = {name: each for name, each in counts.items() if each.dense}  # inputs have no connections
    return found | {"sparsity": _sparsity(layers), "assumptions": _assumptions(twins, dt, baseline_dt)}


def _twins(
    model: nn.Module, counts: Mapping[str, Counts], events: Events, dt: float, baseline_dt: float, answers: int
) -> tuple[Baseline, ...]:
    """The dense baselines: what they receive from outside is as often zero as it was in their steps, or in whole samples."""
    gated = any(isinstance(each, EGRU) for each in model.modules())
    hidden = 0.0 if gated else HIDDEN_ZEROS
    shares: dict[str, Any] = {}
    for kind, step in (("", baseline_dt), ("_once", None)):
        outside = _silent(events, step)
        shares[f"zero_share{kind}"] = _zeros(counts, events.num_units, outside, hidden)
        shares[f"zero_outputs{kind}"] = _zero_outputs(counts, outside, hidden)
    steps = float(events.num_steps(baseline_dt).double().mean())
    return dense_twin(counts, **shares, gated=gated, answers=answers, steps=steps)


def _sparsity(layers: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """What sparse weights and sparse activity save, alone and together; nothing where a layer has no weights or no operations."""
    if not layers or not all(counts.synapses and counts.synaptic_operations for counts in layers.values()):
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


def _silent(events: Events, step: float | None) -> float:
    """The share of zeros among what comes from outside: units without an event in a step, or in a whole sample.

    Example:
        >>> events = Events.from_list([([0.0, 0.0, 0.03], [0, 1, 1])], num_units=4, duration=0.04)
        >>> _silent(events, 0.01), _silent(events, None)
        (0.8125, 0.5)
    """
    heard = _heard(events)
    units, samples = events.units[heard].long(), events.samples[heard]
    place = samples * events.num_units + units
    places = events.batch_size * events.num_units
    if step is not None:
        steps = events.num_steps(step)
        slack = 1 - torch.finfo(events.dtype).eps  # as of Events.to_dense
        at = (events.times[heard].detach().double() / step / slack).floor().long()
        place = torch.minimum(at, steps[samples] - 1) * places + place
        places = int(steps.sum()) * events.num_units
    return 1 - len(place.unique()) / places if places else 0.0


def _zeros(counts: Mapping[str, Counts], inputs: int, outside: float, hidden: float) -> dict[str, float]:
    """The share of zeros among what each layer of a dense network receives: from outside ``outside``, from units ``hidden``."""
    found = dict.fromkeys(counts, hidden)
    for name in (name for name, each in counts.items() if each.dense):
        layer = counts[name]
        recurrent = layer.neurons and layer.dense != layer.steps * inputs * layer.neurons
        share = inputs / (inputs + layer.neurons) if recurrent else 1.0  # of its connections that are from outside
        found[name] = share * outside + (1 - share) * hidden
        if layer.neurons:  # without, it asks in which context the input is, before the first layer hears it
            break
    return found


def _zero_outputs(counts: Mapping[str, Counts], outside: float, hidden: float) -> dict[str, float]:
    """The share of zeros among what each layer of a dense network sends, and the input: of the last layer none."""
    found = {name: hidden if each.dense else outside for name, each in counts.items()}
    last = [name for name, each in counts.items() if each.dense][-1:]
    return found | dict.fromkeys(last, 0.0)


def _assumptions(twins: Iterable[Baseline], dt: float, baseline_dt: float) -> list[str]:
    """What the comparison rests on, each once."""
    same = "as the chip does" if baseline_dt == dt else f"the task's, where the chip takes steps of {dt * 1e3:g} ms"
    said = [
        "All energies are estimates from counts and published coefficients, not measurements; ranges are those of the sources.",
        "Batch size 1; energy of training, of sensors and of getting data on and off the chip is left out.",
        f"The dense baselines take steps of {baseline_dt * 1e3:g} ms, {same}.",
        "Dynamic energy and idle energy are separate lines; comparisons leave idle power out unless it is known for both sides.",
    ]
    return list(dict.fromkeys([*said, *(line for twin in twins for line in twin.assumptions)]))


# ---- what is shown beside it -----------------------------------------------------------------------------------------------


def _activity(counts: Mapping[str, Counts], steps: Tensor, dt: float) -> dict[str, Any]:
    """Spikes per neuron and second over time, averaged over the samples that still last, in at most ``BINS`` bins.

    Args:
        steps: ``(B,)`` that each sample lasts.
    """
    found = {}
    for name, each in counts.items():
        profile = each.spikes_per_step.double()
        if len(profile) and each.neurons:
            width = math.ceil(len(profile) / BINS)
            lasting = (steps.cpu()[None] > torch.arange(len(profile))[:, None]).sum(1).double()
            spikes, lasted = (
                nn.functional.pad(x, (0, -len(profile) % width)).view(-1, width).sum(1) for x in (profile, lasting)
            )
            rates = spikes / (each.neurons * dt * lasted.clamp(min=1))
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


def _identity(events: Events, dt: float, baseline_dt: float) -> dict[str, Any]:
    return {
        "eventnet": eventnet.__version__,
        "torch": torch.__version__,
        "processor": _processor(),
        "samples": events.batch_size,
        "step_s": dt,
        "baseline_step_s": baseline_dt,
        "seconds_per_sample": float(events.duration.double().mean()),
        "input_events_per_sample": int(_heard(events).sum()) / events.batch_size,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _share(predictions: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy with a 95 % interval: Wilson's of labels per sample; of labels per step, which are not independent, from
    drawing whole samples anew. None where no label counts."""
    if labels.dim() > 1 and predictions.dim() == labels.dim():  # samples of several lengths
        more = labels.shape[1] - predictions.shape[1]
        predictions = nn.functional.pad(predictions, (0, max(more, 0)), value=-1)
    counted = labels != metrics.IGNORED
    number = int(counted.sum())
    if not number:
        return {"share": None, "low": None, "high": None, "labels": 0, "interval": "none"}
    share = metrics.accuracy(predictions, labels)
    if labels.dim() == 1:
        return {**interval(round(share * number), number), "labels": number, "interval": "Wilson"}
    right = ((predictions == labels) & counted).flatten(1).sum(1).double()
    found = {"share": share, "labels": number, "samples": len(labels), "interval": "bootstrap over samples"}
    if len(labels) == 1:
        return {**found, "low": 0.0, "high": 1.0, "interval": "none: there is one sample"}
    low, high = _bootstrap(right, counted.flatten(1).sum(1).double())
    return {**found, "low": min(low, share), "high": max(high, share)}


def _bootstrap(right: Tensor, counted: Tensor) -> tuple[float, float]:
    """The 95 % interval of ``right / counted``, sums over samples, if as many samples are drawn again and again."""
    generator, size = torch.Generator().manual_seed(0), len(right)
    shares = []
    for _ in range(DRAWS):
        drawn = torch.randint(size, (size,), generator=generator)
        shares.append(right[drawn].sum() / counted[drawn].sum().clamp(min=1))
    low, high = torch.stack(shares).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Predictions of all samples; those per step filled up with -1, which is no class."""
    if parts[0].dim() > 1:
        longest = max(each.shape[1] for each in parts)
        parts = [nn.functional.pad(each, (0, longest - each.shape[1]), value=-1) for each in parts]
    return torch.cat(list(parts))


def _predicted(output: Any, predict: Callable[[Any], Tensor] | None) -> Tensor:
    scores: Tensor = output if predict is None else predict(output)
    return (scores.argmax(-1) if predict is None else scores).cpu()


def _pieces(events: Events) -> Iterator[Events]:
    for k in range(0, events.batch_size, BATCH):
        yield events[k : k + BATCH]
