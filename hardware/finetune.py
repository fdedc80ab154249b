"""Fine-tuning through the chip's own integers: the forward pass is the simulation, bit for bit; the backward pass goes straight
through what is rounded.

    forward    spikes and voltages of ``eventnet.hardware.loihi.simulate``, with weights of ``integer_weight``
    backward   dU[t-1] = alpha dU[t],  dV[t-1] = beta (1 - s[t]) dV[t],  dU[t] += K dV[t],  da[t] = dU[t]
               ds/dV = height max(0, 1 - |V - threshold| / (half_width threshold)) / threshold

in volts. Weights are kept as real numbers, rounded in the forward pass, and the gradient of the rounded one is theirs. Delays,
decays and thresholds stay as they are. Weights that oscillate are frozen (``eventnet.hardware.integer_weights``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events, metrics
from eventnet.hardware.deployment import Deployment
from eventnet.hardware.egru import EGRUUnits
from eventnet.hardware.egru_finetune import EGRUStage
from eventnet.hardware.integer_weights import IntegerWeights, on_grid, with_weight
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork, Inputs, Population
from eventnet.hardware.reading import Reader

__all__ = ["QuantizedTwin", "finetune"]

HEIGHT, HALF_WIDTH = 0.5, 0.5  # of the triangle that is the derivative of a spike
GATHERED = 2**22  # synapses at a time


class QuantizedTwin(IntegerWeights):
    """A deployed network whose weights can be trained: the same integers forward, a gradient backward.

    Args:
        deployment: of LIF layers and an LI readout, or of a readout that counts spikes, or of EGRU units.

    Parameters: ``weights[k]`` of projection k of the network, in units of the integer grid.

    Example:
        >>> from eventnet import LI, LIF
        >>> from eventnet.hardware.deployment import compile
        >>> model, events = nn.Sequential(LIF(4, 3), LI(3, 2)), Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
        >>> deployment = compile(model, calibration=events)
        >>> twin = QuantizedTwin(deployment)
        >>> torch.equal(twin(events), deployment.run(events).scores)
        True
    """

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        if deployment.reading.kind == "first_spike":
            raise ValueError(
                "a first spike on a grid has no gradient here: expected a readout of the voltage, or a count of spikes"
            )
        network = deployment.network
        self.stages = [_stage(network, each) for each in network.neurons]

    def forward(self, events: Events) -> Tensor:
        """Scores as ``Deployment.run``, with a gradient to the weights."""
        x = self.deployment.raster(events).to(torch.float32)
        network, reading = self.deployment.network, self.deployment.reading
        v = x
        for stage in self.stages:
            v, x = stage.apply(x, *(self.weights[k] for k in stage.projections))
        reader = Reader(reading, events.num_steps(network.dt), network.dt)
        reader.add(v, x)
        return reader.scores()


@dataclass(init=False)
class _Stage:
    """A population with what comes in from the one before it and from itself."""

    name: str
    projections: list[int]  # their places in the network: of the input, and of the recurrence if there is one

    def __init__(self, network: HardwareNetwork, neurons: LIFNeurons) -> None:
        self.network, self.neurons, self.name = network, neurons, neurons.name
        onto = [k for k, each in enumerate(network.projections) if each.target == neurons.name]
        self.projections = sorted(onto, key=lambda k: network.projections[k].source == neurons.name)
        given: list[Any] = [network.projections[k] for k in self.projections]
        if len(given) - sum(each.source == neurons.name for each in given) != 1 or len(given) > 2:
            raise ValueError(
                f"{neurons.name}: expected one projection onto it, and perhaps one of its own, got {len(given)}"
            )
        self.delays = [None if each.delay is None else each.delay.to(torch.int64) for each in given]
        self.alpha, self.beta = 1 - (neurons.du.double() + 1) / 4096, 1 - neurons.dv.double() / 4096
        self.threshold = (neurons.vth << 6).double()

    def apply(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """v and spikes ``(T, B, N)`` of what is heard, with a gradient to it and to the weights."""
        told: tuple[Tensor, Tensor] = _Integers.apply(self, x, *weights)
        return told

    def run(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, v before the reset, and the mini network's u."""
        source = self.network.projections[self.projections[0]].source
        synapses = [with_weight(self.network.projections[k], w) for k, w in zip(self.projections, weights, strict=True)]
        mini = HardwareNetwork([Inputs(source, x.shape[2]), self.neurons], synapses, self.network.dt)
        spikes, u, v = (part[self.name] for part in simulate(mini, x.to(torch.int32), record=[self.name]))
        return spikes, u, v


def _stage(network: HardwareNetwork, neurons: Population) -> _Stage | EGRUStage:
    """A population at work, with a gradient."""
    if isinstance(neurons, EGRUUnits):
        return EGRUStage(network, neurons)
    if isinstance(neurons, LIFNeurons):
        return _Stage(network, neurons)
    raise TypeError(f"{neurons.name}: neurons of kind {neurons.kind!r} have no gradient; expected lif or egru")


class _Integers(torch.autograd.Function):
    """A stage over all steps: ``x (T, B, I)`` and weights -> v and spikes ``(T, B, N)``, as floating-point numbers."""

    @staticmethod
    def forward(ctx: Any, stage: _Stage, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        spikes, u, v = stage.run(x, weights)
        before = torch.cat([stage.neurons.v.expand_as(v[:1]), v[:-1]])
        full = (
            torch.div(before.long() * (4096 - stage.neurons.dv.long()), 4096, rounding_mode="trunc")
            + u
            + stage.neurons.bias
        )
        ctx.stage, ctx.full = stage, full.to(torch.float32)
        ctx.save_for_backward(x, spikes, *weights)
        return v.double(), spikes.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        stage: _Stage = ctx.stage
        x, spikes, *weights = ctx.saved_tensors
        weights = [
            on_grid(w) * 2.0 ** stage.network.projections[k].weight_exp
            for k, w in zip(stage.projections, weights, strict=True)
        ]
        grad_v, grad_s = (g if g is None else g.to(torch.float32) for g in grads)
        grad_a = _adjoint(stage, ctx.full, spikes, grad_v, grad_s, weights)
        told = [x, spikes.to(torch.float32)]
        found: list[Tensor | None] = []
        for k, (weight, delay) in enumerate(zip(weights, stage.delays, strict=True)):
            scale = 2.0 ** stage.network.projections[stage.projections[k]].weight_exp
            found.append(_of_weight(told[k], grad_a, delay, weight.shape) * scale)
        grad_x = _of_input(grad_a, weights[0], stage.delays[0]) if ctx.needs_input_grad[1] else None
        return None, grad_x, *found


def _adjoint(
    stage: _Stage, full: Tensor, spikes: Tensor, grad_v: Tensor | None, grad_s: Tensor | None, weights: Sequence[Tensor]
) -> Tensor:
    """The gradient of what arrives at each step, ``(T, B, N)``, in units of 1 per integer weight."""
    threshold = stage.threshold.to(torch.float32)
    slope = HEIGHT * (1 - (full / threshold - 1).abs() / HALF_WIDTH).clamp(min=0) / threshold
    alpha, beta = stage.alpha.to(torch.float32), stage.beta.to(torch.float32)
    grad_a = torch.zeros_like(full)
    du = dv = torch.zeros_like(full[0])
    recurrent = len(weights) > 1
    steps = len(full)
    for t in range(steps - 1, -1, -1):
        ds = torch.zeros_like(du) if grad_s is None else grad_s[t].clone()
        if recurrent and t + 1 < steps:
            _hear(ds, grad_a, slope[t], weights[1], stage.delays[1], t)
        dv = dv * (spikes[t] == 0)
        if grad_v is not None:
            dv = dv + grad_v[t] * (spikes[t] == 0)
        dv = dv + ds * slope[t]
        du = du + dv
        grad_a[t] = 64 * du
        du, dv = alpha * du, beta * dv
    return grad_a


def _hear(ds: Tensor, grad_a: Tensor, slope: Tensor, weight: Tensor, delay: Tensor | None, t: int) -> None:
    """Add what a spike of step t would have changed at the neurons that it reaches, where it has a slope."""
    if delay is None:
        ds += grad_a[t + 1] @ weight.T
        return
    sample, unit = slope.nonzero(as_tuple=True)
    if not len(unit):
        return
    late = t + 1 + delay[unit]
    reached = grad_a[late.clamp(max=len(grad_a) - 1), sample[:, None], torch.arange(weight.shape[1])]
    ds[sample, unit] += (weight[unit] * reached * (late < len(grad_a))).sum(1)


def _of_weight(x: Tensor, grad_a: Tensor, delay: Tensor | None, shape: torch.Size) -> Tensor:
    """``sum over t, b of x[t, b, j] grad_a[t + 1 + delay[j, n], b, n]``."""
    if delay is None:
        return torch.einsum("tbj,tbn->jn", x[:-1], grad_a[1:])
    found, (step, sample, unit) = x.new_zeros(shape), x.nonzero(as_tuple=True)
    column = torch.arange(shape[1])
    for k in range(0, len(unit), max(1, GATHERED // shape[1])):
        t, b, j = (part[k : k + max(1, GATHERED // shape[1])] for part in (step, sample, unit))
        late = t[:, None] + 1 + delay[j]
        reached = grad_a[late.clamp(max=len(grad_a) - 1), b[:, None], column] * (late < len(grad_a))
        found.index_add_(0, j, reached * x[t, b, j][:, None])
    return found


def _of_input(grad_a: Tensor, weight: Tensor, delay: Tensor | None) -> Tensor:
    """``sum over n of weight[j, n] grad_a[t + 1 + delay[j, n], b, n]``."""
    later = torch.cat([grad_a[1:], torch.zeros_like(grad_a[:1])])
    if delay is None:
        return later @ weight.T
    found = grad_a.new_zeros(*grad_a.shape[:2], len(weight))
    for d in delay.unique().tolist():
        shifted = torch.zeros_like(later)
        shifted[: len(later) - d] = later[d:]
        found += shifted @ (weight * (delay == d)).T
    return found


def finetune(
    deployment: Deployment,
    batches: Iterable[tuple[Events, Tensor]],
    *,
    epochs: int = 3,
    learning_rate: float = 0.25,
    validation: tuple[Events, Tensor] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Deployment:
    """Train the weights through the chip's integers; returns the best of the start and each epoch.

    Args:
        deployment: of ``compile``.
        batches: events and labels, gone through once per epoch; of training data.
        epochs, learning_rate: of Adam, in units of the integer grid; it falls to zero along a cosine.
        validation: chosen by; without it the last epoch is kept.
        say: told how each epoch went.

    Example:
        >>> from eventnet import LI, LIF
        >>> from eventnet.hardware.deployment import compile
        >>> events = Events.from_list([([0.01, 0.03], [2, 1]), ([0.02], [0])], num_units=4, duration=0.1)
        >>> deployment = compile([LIF(4, 3), LI(3, 2)], calibration=events)
        >>> finetune(deployment, [(events, torch.tensor([0, 1]))], epochs=1).network.num_synapses > 0
        True
    """
    twin = QuantizedTwin(deployment)
    batches = batches if isinstance(batches, Sized) else list(batches)
    optimizer = torch.optim.Adam(twin.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(batches)))
    best, chosen = deployment, -1.0 if validation is None else share_right(deployment, *validation)
    if validation is not None:
        say(f"before fine-tuning: validation accuracy {chosen:.2%}")
    for epoch in range(epochs):
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(epoch)
        total, samples = 0.0, 0
        for events, labels in batches:
            scores = twin(events)
            loss = nn.functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            twin.after_step_()
            total, samples = total + loss.item() * len(labels), samples + len(labels)
        line = f"fine-tuning, epoch {epoch + 1}/{epochs}: loss {total / max(1, samples):.3f}"
        line += f", {twin.frozen_share():.1%} of the weights frozen"
        if validation is None:
            best = twin.deploy()
        elif (right := share_right(twin.deploy(), *validation)) > chosen:
            best, chosen = twin.deploy(), right
        say(line if validation is None else f"{line}, validation accuracy {right:.2%}")
    return best


def share_right(deployment: Deployment, events: Events, labels: Tensor) -> float:
    """Accuracy on labelled samples."""
    return metrics.accuracy(deployment.predict(events), labels)
