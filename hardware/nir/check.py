"""Is the file the network? Its simulation against the layers' own equations, in the same steps.

This is another way to the same numbers: no graph, no groups of delays, eventnet's units. A weight that is transposed, scaled
for another convention, or delayed by another step shows as another voltage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventnet import LI, LIF
from eventnet.hardware.nir.files import Disagreement
from eventnet.hardware.nir.importing import Imported
from eventnet.hardware.nir.simulate import Rules, Traces, to_steps

__all__ = ["Agreement", "check_against", "neurons_of", "stepped"]

TOLERANCE = 1e-9  # of the largest voltage: both sides are float64, and sum in another order
OF_READOUT = ("weight", "tau_mem", "tau_syn", "bias")
STEPS = 50  # beyond the longest delay
Run = tuple[Tensor, Tensor, Tensor]  # spikes, voltages after the step, voltages above the threshold before the reset


class Agreement(NamedTuple):
    """What was found to be the same: ``spikes`` that the file and the layers both have, ``voltages`` compared, and the largest
    ``difference`` of two of them in V; over so many ``steps``, up to the first spike that rounding decided."""

    spikes: int
    voltages: int
    difference: float
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.spikes:,} spikes equal, {self.voltages:,} voltages at most {self.difference:.1e} V apart, "
            f"in {self.steps:,} steps"
        )


def check_against(imported: Imported, layers: Sequence[Any], raster: Tensor | None = None) -> Agreement:
    """Raise where a file's spikes or voltages are not those of these layers.

    After a spike that only rounding decided the two may go their own ways: the check ends there.

    Args:
        imported: the file.
        layers: that it was made of.
        raster: input ``(T, B, ...)``; by default random spikes, for longer than the longest delays.

    Raises:
        Disagreement: with the first layer and step at which they differ, and by how much; or in how many neurons.
    """
    _check_sizes(imported, layers)
    raster = _random_input(imported, layers) if raster is None else raster.double()
    _, traces = imported(raster, return_traces=True)
    expected = [run for layer, run in stepped(layers, raster, imported.rules) if isinstance(layer, LIF | LI)]
    found = Agreement(0, 0, 0.0, len(raster))
    for name, run in zip(neurons_of(imported), expected, strict=True):
        found = _compared(name, traces, run, found)
    return found


def _check_sizes(imported: Imported, layers: Sequence[Any]) -> None:
    """An error if the file has other neurons or another input than the layers."""
    nodes, own = imported.flat.nodes, [layer for layer in layers if isinstance(layer, LIF | LI)]
    sizes = [int(nodes[name].r.size) for name in neurons_of(imported)]
    if sizes != [layer.out_features for layer in own]:
        raise Disagreement(f"neurons: {sizes} in the file, {[layer.out_features for layer in own]} in the layers")
    shape = _input_shape(imported)
    if isinstance(layers[0], LIF | LI) and shape != (layers[0].in_features,):
        raise Disagreement(f"input: of shape {shape} in the file, {(layers[0].in_features,)} of the layers")


def _compared(name: str, traces: Traces, run: Run, found: Agreement) -> Agreement:
    """``found`` and what one layer adds to it."""
    spikes, voltage, above = run
    allowed, sound, fired = TOLERANCE * max(1.0, float(voltage.abs().max())), found.steps, 0
    if name in traces.spikes:
        differ = (traces.spikes[name] != spikes)[:sound]
        if bool(differ.any()):
            first = int(differ.flatten(1).any(1).nonzero()[0])
            margin = float(above[first][differ[first]].abs().max())
            if margin > allowed:
                raise Disagreement(
                    f"{name}: other spikes than the layer's in step {first}, {margin:.3g} V from the threshold"
                )
            sound = first
        fired = int(spikes[:sound].sum())
    error = (traces.voltages[name] - voltage)[:sound].abs()
    worst = float(error.max()) if error.numel() else 0.0
    if worst > allowed:
        first = int((error > allowed).flatten(1).any(1).nonzero()[0])
        raise Disagreement(f"{name}: other voltages than the layer's from step {first} on, by up to {worst:.3g} V")
    return Agreement(found.spikes + fired, found.voltages + error.numel(), max(found.difference, worst), sound)


def neurons_of(imported: Imported) -> list[str]:
    """The nodes of the layers' neurons, from the input side."""
    return [name for name in imported.flat.order if imported.flat.kind(name) in ("CubaLIF", "CubaLI")]


def _random_input(imported: Imported, layers: Sequence[Any]) -> Tensor:
    """Spikes of two samples, the same each time."""
    generator = torch.Generator().manual_seed(0)
    steps = STEPS + sum(_longest(layer, imported.rules.dt) for layer in layers)
    return (torch.rand(steps, 2, *_input_shape(imported), generator=generator) < 0.3).double()


def _input_shape(imported: Imported) -> tuple[int, ...]:
    return tuple(int(k) for k in imported.flat.nodes[imported.flat.input].output_type["output"])


def _longest(layer: Any, dt: float) -> int:
    """The longest delays of a layer in steps."""
    delays = [getattr(layer, name, None) for name in ("delay", "recurrent_delay")]
    return sum(int(to_steps(d.detach().cpu(), dt).max(initial=0)) for d in delays if isinstance(d, Tensor))


@torch.no_grad()
def stepped(layers: Sequence[Any], raster: Tensor, rules: Rules) -> list[tuple[Any, Run]]:
    """Each layer with its spikes, voltages and distances to threshold, ``(T, B, out)``, under forward Euler in float64.

        I <- (1 - dt/tau_syn) I + arrivals,   V <- V + dt/tau_mem (bias - V + I)

    A spike arrives ``delay`` later, in whole steps; one of the layer itself a step later at least.
    """
    height = 1.0 if rules.convention == "step" else 1 / rules.dt
    runs: list[tuple[Any, Run]] = []
    signal, is_spikes = raster, True
    for layer in layers:
        if isinstance(layer, LIF | LI):
            run = _run(layer, signal if is_spikes else signal / height, rules.dt)
            runs.append((layer, run))
            signal, is_spikes = run[0], isinstance(layer, LIF)
        else:
            signal = signal * height if is_spikes else signal
            signal = torch.stack([_applied(layer, step) for step in signal])
            is_spikes = False
    return runs


def _applied(layer: torch.nn.Module, signal: Tensor) -> Tensor:
    """One of torch's layers, in float64."""
    parameters = {name: value.cpu().double() for name, value in layer.state_dict().items()}
    return torch.func.functional_call(layer, parameters, (signal,))


def _run(layer: LIF | LI, arriving: Tensor, dt: float) -> Run:
    steps, batch, num = arriving.shape[0], arriving.shape[1], layer.out_features
    given = layer.arguments() if isinstance(layer, LIF) else {name: getattr(layer, name) for name in OF_READOUT}
    tau_mem, tau_syn, bias = (given[name].detach().cpu().double() for name in ("tau_mem", "tau_syn", "bias"))
    threshold = (
        given.get("threshold", torch.tensor(torch.inf)).detach().cpu().double()
    )  # that of a readout is never reached
    reset = given.get("reset", torch.tensor(0.0)).detach().cpu().double()
    forward, recurrent = (_Synapses(given, which, dt, steps, batch) for which in ("", "recurrent_"))
    current = torch.zeros(batch, num, dtype=torch.float64)
    voltage = torch.where(bias >= threshold, reset, bias).expand(batch, num)
    spikes = torch.zeros(steps, batch, num, dtype=torch.float64)
    voltages, above = torch.zeros_like(spikes), torch.zeros_like(spikes)
    for t in range(steps):
        forward.send(t, arriving[t])
        current = (1 - dt / tau_syn) * current + forward.at(t) + recurrent.at(t)
        voltage = voltage + dt / tau_mem * (bias - voltage + current)
        above[t] = voltage - threshold
        spikes[t] = (above[t] > 0).double()
        recurrent.send(t, spikes[t])
        voltage = torch.where(above[t] > 0, reset, voltage)
        voltages[t] = voltage
    return (spikes if isinstance(layer, LIF) else voltages), voltages, above


class _Synapses:
    """What arrives when: each spike's weights are put down for the steps at which they arrive, synapse by synapse."""

    def __init__(self, given: dict[str, Any], which: str, dt: float, steps: int, batch: int) -> None:
        weight = given.get(f"{which}weight")
        if weight is None:
            self.weight = None
            return
        self.weight = weight.detach().cpu().double() * torch.as_tensor(given.get(f"{which}mask", 1.0)).cpu()
        delay = torch.as_tensor(given.get(f"{which}delay", 0.0)).detach().cpu()
        count = torch.as_tensor(to_steps(delay, dt)).expand(self.weight.shape)
        self.delay = count.clamp(min=1) if which else count
        self.arrivals = torch.zeros(steps + int(self.delay.max()), batch, self.weight.shape[1], dtype=torch.float64)

    def send(self, t: int, spikes: Tensor) -> None:
        """Put down what the spikes ``(B, in)`` of step t bring."""
        if self.weight is not None:
            sample, unit = spikes.nonzero(as_tuple=True)
            where = (t + self.delay[unit], sample[:, None], torch.arange(self.weight.shape[1]))
            self.arrivals.index_put_(where, spikes[sample, unit][:, None] * self.weight[unit], accumulate=True)

    def at(self, t: int) -> Tensor | float:
        """``(B, out)`` what arrives in step t."""
        return 0.0 if self.weight is None else self.arrivals[t]
