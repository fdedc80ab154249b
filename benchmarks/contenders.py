"""Who is measured: every contender runs the same network on the same events, each in its own fast form.

The network is inputs -> current-based LIF with synaptic current -> LI, the loss the cross-entropy of the mean
readout voltage. On a grid of step dt every library is set up to compute the same recursion (a =
e^{-dt/tau_syn}, b = e^{-dt/tau_mem}, K the exact answer of the voltage to a unit current over a step; see
``grid_gather/grid_gather.cpp``):

    I[k] = a I[k-1] + x[k],   U[k] = b V[k-1] + K I[k],   s[k] = U[k] >= threshold,   V[k] = 0 where s[k] else
    U[k]

The libraries' own conventions differ by constant factors only, which ``gain`` puts into their weights.
Building the raster from the events is part of every step on a grid. The libraries' surrogate gradients are
their own; no time constant is learnt.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from shapes import TAU_MEM, TAU_SYN, THRESHOLD, Problem, Shape
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["CONTENDERS", "LIBRARIES", "Contender", "Network", "version"]


@dataclass
class Network:
    """One contender set up for one problem.

    ``forward`` maps the problem to the mean readout voltage ``(B, outputs)`` and the number of hidden spikes
    per sample (a tensor, or a function that counts them afterwards, off the clock).
    """

    forward: Callable[[Problem], tuple[Tensor, Tensor | Callable[[], Tensor]]]
    parameters: list[nn.Parameter] = field(default_factory=list)

    def train(self, problem: Problem) -> None:
        """Forward and backward pass with fresh gradients of all weights."""
        for p in self.parameters:
            p.grad = None
        voltage, _ = self.forward(problem)
        cross_entropy(voltage, problem.labels).backward()


@dataclass(frozen=True)
class Contender:
    """A name, how to set it up for (problem, step), and whether it runs on a grid."""

    name: str
    build: Callable[[Problem, float], Network]
    grid: bool = True
    package: str = "eventnet"


def raster(problem: Problem, dt: float) -> Tensor:
    """``(T, B, N)`` event counts: one scatter, faster than any library's own conversion."""
    events = problem.events
    steps, batch = steps_of(problem.shape, dt), events.batch_size
    step = (events.times * (1.0000005 / dt)).to(torch.int64).clamp_(max=steps - 1)
    where = (step * batch + events.samples) * events.num_units + events.units
    dense = torch.zeros(steps * batch * events.num_units)
    return dense.index_add_(0, where, torch.ones(where.shape)).reshape(steps, batch, -1)


def steps_of(shape: Shape, dt: float) -> int:
    return round(shape.duration / dt)


@dataclass(frozen=True)
class Decay:
    """The factors of one step."""

    dt: float

    @property
    def a(self) -> float:
        return math.exp(-self.dt / TAU_SYN)

    @property
    def b(self) -> float:
        return math.exp(-self.dt / TAU_MEM)

    @property
    def k(self) -> float:
        return TAU_SYN / (TAU_MEM - TAU_SYN) * (self.b - self.a)


def linear(weight: Tensor, gain: float) -> nn.Linear:
    """``nn.Linear`` without bias whose weight is ``gain * weight``, weight being (in, out)."""
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight.data = (gain * weight.T).contiguous()
    return layer


def eventnet(problem: Problem, dt: float) -> Network:
    from eventnet import LI, LIF

    taus = dict(tau_mem=TAU_MEM, tau_syn=TAU_SYN)
    hidden = LIF(*problem.w1.shape, threshold=THRESHOLD, **taus)
    readout = LI(*problem.w2.shape, **taus)
    hidden.weight.data, readout.weight.data = problem.w1.clone(), problem.w2.clone()

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes = hidden(problem.events)
        return readout(spikes).mean(), lambda: spikes.lengths

    return Network(forward, [hidden.weight, readout.weight])


def grid_gather(problem: Problem, dt: float) -> Network:
    from grid_gather import grid_gather

    w1, w2 = nn.Parameter(problem.w1.clone()), nn.Parameter(problem.w2.clone())
    settings = dict(dt=dt, tau_mem=TAU_MEM, tau_syn=TAU_SYN, threshold=THRESHOLD)

    def forward(problem: Problem) -> tuple[Tensor, Tensor]:
        return grid_gather(problem.events, w1, w2, steps=steps_of(problem.shape, dt), **settings)

    return Network(forward, [w1, w2])


class Floor(Network):
    """Not a network: it streams the weight rows of all events forwards, and the gradient's rows backwards."""

    def train(self, problem: Problem) -> None:
        from grid_gather import floor

        floor(problem.events, problem.w1, backward=True)


def floor(problem: Problem, dt: float) -> Network:
    from grid_gather import floor

    def forward(problem: Problem) -> tuple[Tensor, Tensor]:
        floor(problem.events, problem.w1, backward=False)
        return torch.zeros(()), torch.zeros(())

    return Floor(forward)


def snntorch(problem: Problem, dt: float) -> Network:
    """snnTorch: ``Synaptic`` cells in a loop over time, both input products outside of it.

    With its default reset, the faster one: subtraction, a step later (reset to zero at once costs a fifth
    more).
    """
    import snntorch as snn
    from snntorch import surrogate

    decay = Decay(dt)
    w1, w2 = linear(problem.w1, decay.k), linear(problem.w2, decay.k)
    cell = dict(alpha=decay.a, beta=decay.b, threshold=THRESHOLD, spike_grad=surrogate.fast_sigmoid(slope=25))
    hidden, readout = snn.Synaptic(**cell), snn.Synaptic(**cell, reset_mechanism="none")

    def run(cell: nn.Module, drive: Tensor, output: int) -> Tensor:
        synaptic, membrane = cell.reset_mem()
        outputs = []
        for x in drive:
            spike, synaptic, membrane = cell(x, synaptic, membrane)
            outputs.append((spike, synaptic, membrane)[output])
        return torch.stack(outputs)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes = run(hidden, w1(raster(problem, dt)), 0)
        return run(readout, w2(spikes), 2).mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight])


def norse(problem: Problem, dt: float, modules: bool = False) -> Network:
    """Norse: its functional steps through its ``lift``; ``modules``: its sequence modules ``LIF`` and ``LI``.

    Norse steps by Euler's rule; it gets the time constants that make its factors a and b. The modules index
    ``x[t]`` at every step, whose backward pass costs steps^2; ``lift`` iterates over x and does not.
    """
    import norse.torch as norse
    from norse.torch.functional.leaky_integrator import LIParameters, LIState, li_feed_forward_step
    from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, lif_feed_forward_step
    from norse.torch.functional.lift import lift

    decay = Decay(dt)
    rates = dict(tau_syn_inv=torch.tensor((1 - decay.a) / dt), tau_mem_inv=torch.tensor((1 - decay.b) / dt))
    gain = decay.k / (1 - decay.b)
    w1, w2 = linear(problem.w1, gain), linear(problem.w2, gain)
    spiking, leaky = LIFParameters(**rates, v_th=torch.tensor(THRESHOLD)), LIParameters(**rates)
    if modules:
        hidden, readout = norse.LIF(spiking, dt=dt), norse.LI(leaky, dt=dt)
    else:
        steps = lift(lif_feed_forward_step, spiking), lift(li_feed_forward_step, leaky)

        def hidden(drive: Tensor) -> tuple[Tensor, object]:
            rest = torch.zeros_like(drive[0])
            return steps[0](drive, state=LIFFeedForwardState(rest, rest), dt=dt)

        def readout(drive: Tensor) -> tuple[Tensor, object]:
            rest = torch.zeros_like(drive[0])
            return steps[1](drive, state=LIState(rest, rest), dt=dt)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes, _ = hidden(w1(raster(problem, dt)))
        voltage, _ = readout(w2(spikes))
        return voltage.mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight])


def spikingjelly(problem: Problem, dt: float, multi_step: bool = False) -> Network:
    """SpikingJelly's current-based ``CUBALIFNode``, stepped; ``multi_step``: in its multi-step mode.

    The readout is a pair of ``NonSpikingLIFNode`` in multi-step mode, and when stepped a ``CUBALIFNode`` that
    cannot reach its threshold. Multi-step nodes index ``x[t]`` at every step, whose backward pass costs
    steps^2. (Its fused multi-step ``LIFNode`` has no synaptic current; one node per filter, joined through
    ``v_seq``, lies between the two.)
    """
    from spikingjelly.activation_based import functional, neuron, surrogate

    decay = Decay(dt)
    node = dict(c_decay=decay.a, v_decay=decay.b, v_reset=0.0, surrogate_function=surrogate.Sigmoid())
    hidden, readout = (
        neuron.CUBALIFNode(v_threshold=THRESHOLD, **node),
        neuron.CUBALIFNode(v_threshold=1e9, **node),
    )
    hidden.detach_reset = readout.detach_reset = True
    hidden.step_mode = "m" if multi_step else "s"
    synapse = neuron.NonSpikingLIFNode(tau=1 / (1 - decay.a))
    membrane = neuron.NonSpikingLIFNode(tau=1 / (1 - decay.b), decode="mean-mem")
    gain = decay.k / ((1 - decay.a) * (1 - decay.b)) if multi_step else decay.k
    w1, w2 = linear(problem.w1, decay.k), linear(problem.w2, gain)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        functional.reset_net(hidden)
        functional.reset_net(readout)
        drive = w1(raster(problem, dt))
        if multi_step:
            spikes = hidden(drive)
            return membrane(torch.stack(synapse(w2(spikes)))), lambda: spikes.sum((0, 2))
        spikes = torch.stack([hidden(x) for x in drive])
        total = torch.zeros(())
        for x in w2(spikes):
            readout(x)
            total = total + readout.v
        return total / len(spikes), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight])


def sinabs(problem: Problem, dt: float, sequence: bool = False) -> Network:
    """Sinabs: ``LIF`` layers with synaptic time constants, a step at a time or on the whole ``sequence``.

    The readout is a ``LIF`` layer without spikes. The layers keep their state from call to call; on a whole
    sequence they index ``x[:, t]`` at every step, whose backward pass costs steps^2.
    """
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF

    decay = Decay(dt)
    gain = decay.k / decay.a
    w1, w2 = linear(problem.w1, gain), linear(problem.w2, gain)
    taus = dict(tau_mem=TAU_MEM / dt, tau_syn=TAU_SYN / dt, norm_input=False)
    hidden = LIF(**taus, spike_threshold=torch.tensor(THRESHOLD), spike_fn=SingleSpike, reset_fn=MembraneReset())
    readout = LIF(**taus, spike_threshold=None, spike_fn=None, reset_fn=None)
    hidden.requires_grad_(False)
    readout.requires_grad_(False)

    def run(layer: nn.Module, drive: Tensor) -> Tensor:
        layer.reset_states()
        if sequence:
            return layer(drive.transpose(0, 1)).transpose(0, 1)
        return torch.cat([layer(x[:, None]) for x in drive], 1).transpose(0, 1)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes = run(hidden, w1(raster(problem, dt)))
        return run(readout, w2(spikes)).mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight])


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("eventnet", eventnet, grid=False),
        Contender("grid-gather", grid_gather),
        Contender("spikingjelly", spikingjelly, package="spikingjelly"),
        Contender("spikingjelly-sequence", partial(spikingjelly, multi_step=True), package="spikingjelly"),
        Contender("snntorch", snntorch, package="snntorch"),
        Contender("norse", norse, package="norse"),
        Contender("norse-sequence", partial(norse, modules=True), package="norse"),
        Contender("sinabs", sinabs, package="sinabs"),
        Contender("sinabs-sequence", partial(sinabs, sequence=True), package="sinabs"),
        Contender("floor", floor, grid=False),
    )
}
LIBRARIES = tuple(name for name, contender in CONTENDERS.items() if contender.package != "eventnet")


def version(contender: Contender) -> str:
    """The installed version of the package that is measured; raises PackageNotFoundError without it."""
    try:
        return importlib.metadata.version(contender.package)
    except importlib.metadata.PackageNotFoundError:
        if contender.package != "eventnet":
            raise
        return "source"
