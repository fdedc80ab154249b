"""The libraries, each in the fastest form found for it; ``networks.py`` has the recursion that they are set up to compute.

Their conventions differ by constant factors only, which ``gain`` puts into their weights. Their surrogate gradients are their
own; no time constant is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from networks import Decay, Network, linear, raster
from shapes import TAU_MEM, TAU_SYN, THRESHOLD, Problem
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["dcls", "norse", "sinabs", "snntorch", "spikingjelly"]


def snntorch(problem: Problem, dt: float) -> Network:
    """snnTorch: ``Synaptic`` cells in a loop over time, both input products outside of it.

    With its default reset, the faster one: subtraction, a step later (reset to zero at once costs a fifth
    more). A recurrent layer is an ``RSynaptic``.
    """
    import snntorch as snn
    from snntorch import surrogate

    decay = Decay(dt)
    w1, w2 = linear(problem.w1, decay.k), linear(problem.w2, decay.k)
    cell = dict(alpha=decay.a, beta=decay.b, threshold=THRESHOLD, spike_grad=surrogate.fast_sigmoid(slope=25))
    readout, parameters = snn.Synaptic(**cell, reset_mechanism="none"), [w1.weight, w2.weight]
    if problem.recurrent is None:
        hidden = snn.Synaptic(**cell)
    else:
        hidden = snn.RSynaptic(**cell, linear_features=len(problem.recurrent))
        hidden.recurrent = linear(problem.recurrent, decay.k)  # its own has a bias
        parameters.append(hidden.recurrent.weight)

    def run(cell: nn.Module, drive: Tensor, output: int) -> Tensor:
        state = cell.reset_mem()
        outputs = []
        for x in drive:
            now = cell(x, *state)  # spike, current, voltage; a recurrent cell wants all three back
            outputs.append(now[output])
            state = now[-len(state) :]
        return torch.stack(outputs)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes = run(hidden, w1(raster(problem, dt)), 0)
        return run(readout, w2(spikes), 2).mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, parameters)


def norse(problem: Problem, dt: float, modules: bool = False) -> Network:
    """Norse: its functional steps through its ``lift``; ``modules``: its sequence modules ``LIF`` and ``LI``.

    Norse steps by Euler's rule; it gets the time constants that make its factors a and b. The modules index
    ``x[t]`` at every step, whose backward pass costs steps^2; ``lift`` iterates over x and does not. A recurrent layer is a
    loop over the functional step that adds the recurrent product; ``modules``: a ``LIFRecurrent``, whose input product is
    inside of its loop.
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
    own = None if problem.recurrent is None else linear(problem.recurrent, gain)

    def layer(drive: Tensor) -> tuple[Tensor, object]:
        rest = torch.zeros_like(drive[0])
        return lift(lif_feed_forward_step, spiking)(drive, state=LIFFeedForwardState(rest, rest), dt=dt)

    def recurrent_layer(drive: Tensor) -> tuple[Tensor, object]:
        spike = torch.zeros_like(drive[0])
        state, spikes = LIFFeedForwardState(spike, spike), []
        for x in drive:
            spike, state = lif_feed_forward_step(x + own(spike), state, spiking, dt)
            spikes.append(spike)
        return torch.stack(spikes), state

    def leaky_layer(drive: Tensor) -> tuple[Tensor, object]:
        rest = torch.zeros_like(drive[0])
        return lift(li_feed_forward_step, leaky)(drive, state=LIState(rest, rest), dt=dt)

    hidden, readout, into = layer if own is None else recurrent_layer, leaky_layer, w1
    if modules:
        hidden, readout = norse.LIF(spiking, dt=dt), norse.LI(leaky, dt=dt)
    if modules and own is not None:
        weights = dict(input_weights=w1.weight, recurrent_weights=own.weight)
        hidden = norse.LIFRecurrent(*problem.w1.shape, p=spiking, autapses=True, dt=dt, **weights)
        into = nn.Identity()

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes, _ = hidden(into(raster(problem, dt)))
        voltage, _ = readout(w2(spikes))
        return voltage.mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight] + ([] if own is None else [own.weight]))


def spikingjelly(
    problem: Problem, dt: float, multi_step: bool = False, drive: Callable[[Problem], Tensor] | None = None
) -> Network:
    """SpikingJelly's current-based ``CUBALIFNode``, stepped; ``multi_step``: in its multi-step mode.

    The readout is a pair of ``NonSpikingLIFNode`` in multi-step mode, and when stepped a ``CUBALIFNode`` that
    cannot reach its threshold. Multi-step nodes index ``x[t]`` at every step, whose backward pass costs
    steps^2. (Its fused multi-step ``LIFNode`` has no synaptic current; one node per filter, joined through
    ``v_seq``, lies between the two.) A recurrent layer is the node in an ``ElementWiseRecurrentContainer`` whose function
    adds the recurrent product: unlike in a ``LinearRecurrentContainer`` the input product is outside of the loop.
    """
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    decay = Decay(dt)
    node = dict(c_decay=decay.a, v_decay=decay.b, v_reset=0.0, surrogate_function=surrogate.Sigmoid())
    hidden, readout = (
        neuron.CUBALIFNode(v_threshold=THRESHOLD, **node),
        neuron.CUBALIFNode(v_threshold=1e9, **node),
    )
    hidden.detach_reset = readout.detach_reset = True
    if problem.recurrent is not None:
        own = linear(problem.recurrent, decay.k)
        hidden = layer.ElementWiseRecurrentContainer(hidden, lambda y, x: x + own(y))
    hidden.step_mode = "m" if multi_step else "s"
    synapse = neuron.NonSpikingLIFNode(tau=1 / (1 - decay.a))
    membrane = neuron.NonSpikingLIFNode(tau=1 / (1 - decay.b), decode="mean-mem")
    gain = decay.k / ((1 - decay.a) * (1 - decay.b)) if multi_step else decay.k
    w1, w2 = linear(problem.w1, decay.k), linear(problem.w2, gain)

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        functional.reset_net(hidden)
        functional.reset_net(readout)
        current = drive(problem) if drive else w1(raster(problem, dt))
        if multi_step:
            spikes = hidden(current)
            return membrane(torch.stack(synapse(w2(spikes)))), lambda: spikes.sum((0, 2))
        spikes = torch.stack([hidden(x) for x in current])
        total = torch.zeros(())
        for x in w2(spikes):
            readout(x)
            total = total + readout.v
        return total / len(spikes), lambda: spikes.sum((0, 2))

    learnt = [w2.weight] if drive else [w1.weight, w2.weight]
    return Network(forward, learnt + ([] if problem.recurrent is None else [own.weight]))


def sinabs(problem: Problem, dt: float, sequence: bool = False) -> Network:
    """Sinabs: ``LIF`` layers with synaptic time constants, a step at a time or on the whole ``sequence``.

    The readout is a ``LIF`` layer without spikes. The layers keep their state from call to call; on a whole
    sequence they index ``x[:, t]`` at every step, whose backward pass costs steps^2. A recurrent layer is a ``LIF`` layer to
    whose input the recurrent product is added; on a whole sequence a ``LIFRecurrent``.
    """
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF, LIFRecurrent

    decay = Decay(dt)
    gain = decay.k / decay.a
    w1, w2 = linear(problem.w1, gain), linear(problem.w2, gain)
    taus = dict(tau_mem=TAU_MEM / dt, tau_syn=TAU_SYN / dt, norm_input=False)
    spiking = dict(spike_threshold=torch.tensor(THRESHOLD), spike_fn=SingleSpike, reset_fn=MembraneReset(), **taus)
    own = None if problem.recurrent is None else linear(problem.recurrent, gain)
    hidden = LIFRecurrent(rec_connect=own, **spiking) if sequence and own is not None else LIF(**spiking)
    readout = LIF(**taus, spike_threshold=None, spike_fn=None, reset_fn=None)
    hidden.requires_grad_(False)
    readout.requires_grad_(False)
    if own is not None:
        own.requires_grad_(True)

    def run(layer: nn.Module, drive: Tensor) -> Tensor:
        layer.reset_states()
        if sequence:
            return layer(drive.transpose(0, 1)).transpose(0, 1)
        return torch.cat([layer(x[:, None]) for x in drive], 1).transpose(0, 1)

    def run_recurrent(drive: Tensor) -> Tensor:
        hidden.reset_states()
        spikes = [torch.zeros_like(drive[0])]
        for x in drive:
            spikes.append(hidden((x + own(spikes[-1]))[:, None])[:, 0])
        return torch.stack(spikes[1:])

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        drive = w1(raster(problem, dt))
        spikes = run(hidden, drive) if own is None or sequence else run_recurrent(drive)
        return run(readout, w2(spikes)).mean(0), lambda: spikes.sum((0, 2))

    return Network(forward, [w1.weight, w2.weight] + ([] if own is None else [own.weight]))


def dcls(problem: Problem, dt: float) -> Network:
    """DCLS: a convolution over time whose kernels have one tap per synapse, at the delay, then SpikingJelly's neurons.

    As in Hammouamri et al., "Learning delays in spiking neural networks using dilated convolutions with learnable
    spacings" (2024), with the package's linear interpolation ("v1") in the place of a Gaussian that narrows to it.
    """
    from DCLS.construct.modules import Dcls1d

    taps = math.ceil(problem.shape.delay[1] / dt) + 1
    convolution = Dcls1d(*problem.w1.shape, 1, dilated_kernel_size=taps, bias=False, version="v1")
    convolution.weight.data = (Decay(dt).k * problem.w1.T[..., None]).contiguous()
    convolution.P.data = (taps // 2 - problem.delay.T / dt)[None, ..., None].contiguous()  # the last tap is the present
    rest = spikingjelly(problem, dt, drive=lambda problem: drive(raster(problem, dt)))

    def drive(steps: Tensor) -> Tensor:
        return convolution(pad(steps.permute(1, 2, 0), (taps - 1, 0))).permute(2, 0, 1)

    return Network(rest.forward, [convolution.weight, convolution.P, *rest.parameters])
