"""Is the file the network? Its simulation against the layers' own equations, in the same steps.

This is another way to the same numbers: no graph, no groups of delays, eventnet's units. A weight that is transposed, scaled
for another convention, or delayed by another step shows as another voltage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eventnet import LI, LIF
from eventnet.hardware.nir.importing import Imported
from eventnet.hardware.nir.simulate import Rules, to_steps

__all__ = ["check_against", "stepped"]

TOLERANCE = 1e-9  # of the largest voltage: both sides are float64, and sum in another order
OF_READOUT = ("weight", "tau_mem", "tau_syn", "bias")
STEPS = 50  # beyond the longest delay


def check_against(imported: Imported, layers: Sequence[Any]) -> None:
    """Raise where a file's spikes or voltages are not those of these layers, for random input spikes.

    After a spike that only rounding decided the two may go their own ways: the check ends there.

    Raises:
        RuntimeError: with the first layer and step at which they differ, and by how much.
    """
    neurons = [name for name in imported.flat.order if name in _neuron_names(imported)]
    shape = tuple(int(k) for k in imported.flat.nodes[imported.flat.input].output_type["output"])
    generator = torch.Generator().manual_seed(0)
    steps = STEPS + sum(_longest(layer, imported.rules.dt) for layer in layers)
    raster = (torch.rand(steps, 2, *shape, generator=generator) < 0.3).double()
    _, traces = imported(raster, return_traces=True)
    expected = [run for layer, run in stepped(layers, raster, imported.rules) if isinstance(layer, LIF | LI)]
    sound = steps  # steps before the first spike that rounding decided
    for name, (spikes, voltage, top) in zip(neurons, expected, strict=True):
        allowed = TOLERANCE * max(1.0, float(voltage.abs().max()))
        if name in traces.spikes:
            differ = (traces.spikes[name] != spikes)[:sound]
            if bool(differ.any()):
                first = int(differ.flatten(1).any(1).nonzero()[0])
                margin = float(top[first][differ[first]].abs().max())
                if margin > allowed:
                    raise RuntimeError(
                        f"{name}: other spikes than the layer's in step {first}, {margin:.3g} V from the threshold"
                    )
                sound = first
        error = (traces.voltages[name] - voltage)[:sound].abs()
        if error.numel() and float(error.max()) > allowed:
            first = int((error > allowed).flatten(1).any(1).nonzero()[0])
            raise RuntimeError(
                f"{name}: other voltages than the layer's from step {first} on, by up to {error.max().item():.3g} V"
            )


def _neuron_names(imported: Imported) -> set[str]:
    return {name for name in imported.flat.nodes if imported.flat.kind(name) in ("CubaLIF", "CubaLI")}


def _longest(layer: Any, dt: float) -> int:
    """The longest delays of a layer in steps."""
    delays = [getattr(layer, name, None) for name in ("delay", "recurrent_delay")]
    return sum(int(to_steps(d.detach().cpu(), dt).max(initial=0)) for d in delays if isinstance(d, Tensor))


Run = tuple[Tensor, Tensor, Tensor]  # spikes, voltages after the step, voltages above the threshold before the reset


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
    parameters = {name: value.double() for name, value in layer.state_dict().items()}
    return torch.func.functional_call(layer, parameters, (signal,))


def _run(layer: LIF | LI, arriving: Tensor, dt: float) -> Run:
    steps, batch, num = arriving.shape[0], arriving.shape[1], layer.out_features
    given = layer.arguments() if isinstance(layer, LIF) else {name: getattr(layer, name) for name in OF_READOUT}
    tau_mem, tau_syn, bias = (given[name].detach().double() for name in ("tau_mem", "tau_syn", "bias"))
    threshold = given.get("threshold", torch.tensor(torch.inf)).detach().double()  # that of a readout is never reached
    reset = given.get("reset", torch.tensor(0.0)).detach().double()
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
        self.weight = weight.detach().double() * given.get(f"{which}mask", 1.0)
        delay = torch.as_tensor(given.get(f"{which}delay", 0.0)).detach()
        count = torch.as_tensor(to_steps(delay.cpu(), dt)).expand(self.weight.shape)
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
