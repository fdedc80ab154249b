"""LIF neurons in fine-tuning: forward their integers, backward straight through what is rounded.

    dU[t-1] = alpha dU[t],  dV[t-1] = beta (1 - s[t]) dV[t],  dU[t] += dV[t],  da[t] = 64 dU[t],  dV[t] += ds[t] s'(V[t])
    s'(V) = height max(0, 1 - |V - threshold| / (half_width threshold)) / threshold
    ds[t, m] += sum over n of W[m, n] da[t + 1 + delay[m, n], n]
    dW[j, n] = sum over t of x[t, j] da[t + 1 + delay[j, n], n]

in units of the chip's v, of which W moves 64 per step. Delays, decays and thresholds stay as they are. The functions here say
what is meant in plain torch; on the CPU their compiled twins (``kernels/cpu/chip_adjoint.h``) do the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eventnet.hardware.integer_weights import on_grid, with_weight
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.loihi import simulate
from eventnet.hardware.network import HardwareNetwork, Inputs
from eventnet.kernels import cpu

__all__ = ["LIFStage"]

HEIGHT, HALF_WIDTH = 0.5, 0.5  # of the triangle that is the derivative of a spike
GATHERED = 2**22  # synapses at a time


class LIFStage:
    """A population with what comes in from the one before it and from itself."""

    def __init__(self, network: HardwareNetwork, neurons: LIFNeurons) -> None:
        self.network, self.neurons, self.name = network, neurons, neurons.name
        onto = [k for k, each in enumerate(network.projections) if each.target == neurons.name]
        # their places in the network: of the input, and of the recurrence if there is one
        self.projections = sorted(onto, key=lambda k: network.projections[k].source == neurons.name)
        given: list[Any] = [network.projections[k] for k in self.projections]
        if len(given) - sum(each.source == neurons.name for each in given) != 1 or len(given) > 2:
            raise ValueError(
                f"{neurons.name}: expected one projection onto it, and perhaps one of its own, got {len(given)}"
            )
        self.delays = [None if each.delay is None else each.delay.to(torch.int64) for each in given]
        self.alpha, self.beta = 1 - (neurons.du + 1) / 4096, 1 - neurons.dv / 4096
        self.threshold = (neurons.vth << 6).to(torch.float32)
        self.backend = "reference" if cpu.load() is None else "cpu"

    def to_(self, device: torch.device) -> LIFStage:
        """Its parameters on a device."""
        self.alpha, self.beta, self.threshold = (x.to(device) for x in (self.alpha, self.beta, self.threshold))
        self.delays = [None if delay is None else delay.to(device) for delay in self.delays]
        return self

    def apply(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """v and spikes ``(T, B, N)`` of what is heard, with a gradient to it and to the weights."""
        sent: tuple[Tensor, Tensor] = _Integers.apply(self, x, *weights)
        return sent

    def run(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, v before the reset, and the mini network's u."""
        source = self.network.projections[self.projections[0]].source
        synapses = [with_weight(self.network.projections[k], w) for k, w in zip(self.projections, weights, strict=True)]
        mini = HardwareNetwork([Inputs(source, x.shape[2]), self.neurons], synapses, self.network.dt)
        spikes, u, v = (part[self.name] for part in simulate(mini, x.to(torch.int32), record=[self.name]))
        return spikes, u, v


class _Integers(torch.autograd.Function):
    """A stage over all steps: ``x (T, B, I)`` and weights -> v and spikes ``(T, B, N)``, as floating-point numbers."""

    @staticmethod
    def forward(ctx: Any, stage: LIFStage, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        spikes, u, v = stage.run(x, weights)
        ctx.stage, ctx.full = stage, stage.neurons.before_reset(u, v).to(torch.float32)
        ctx.save_for_backward(x, spikes, *weights)
        return v.double(), spikes.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        stage: LIFStage = ctx.stage.to_(ctx.full.device)
        x, spikes, *weights = ctx.saved_tensors
        weights = [
            on_grid(w) * 2.0 ** stage.network.projections[k].weight_exp
            for k, w in zip(stage.projections, weights, strict=True)
        ]
        grad_v, grad_s = (g if g is None else g.to(torch.float32) for g in grads)
        compiled = stage.backend == "cpu" and x.device.type == "cpu"
        grad_a = (adjoint_cpu if compiled else adjoint)(stage, ctx.full, spikes, grad_v, grad_s, weights)
        sent = [x, spikes.to(torch.float32)]
        found: list[Tensor | None] = []
        for k, (weight, delay) in enumerate(zip(weights, stage.delays, strict=True)):
            scale = 2.0 ** stage.network.projections[stage.projections[k]].weight_exp
            found.append((of_weight_cpu if compiled else of_weight)(sent[k], grad_a, delay, weight.shape) * scale)
        grad_x = of_input(grad_a, weights[0], stage.delays[0]) if ctx.needs_input_grad[1] else None
        return None, grad_x, *found


def adjoint(
    stage: LIFStage,
    full: Tensor,
    spikes: Tensor,
    grad_v: Tensor | None,
    grad_s: Tensor | None,
    weights: Sequence[Tensor],
) -> Tensor:
    """The gradient of what arrives at each step, ``(T, B, N)``, in units of 1 per integer weight."""
    threshold, alpha, beta = stage.threshold, stage.alpha, stage.beta
    slope = HEIGHT * (1 - (full / threshold - 1).abs() / HALF_WIDTH).clamp(min=0) / threshold
    grad_a = torch.zeros_like(full)
    du = dv = torch.zeros_like(full[0])
    recurrent = len(weights) > 1
    steps = len(full)
    for t in range(steps - 1, -1, -1):
        ds = torch.zeros_like(du) if grad_s is None else grad_s[t].clone()
        if recurrent and t + 1 < steps:
            hear(ds, grad_a, slope[t], weights[1], stage.delays[1], t)
        dv = dv * (spikes[t] == 0)
        if grad_v is not None:
            dv = dv + grad_v[t] * (spikes[t] == 0)
        dv = dv + ds * slope[t]
        du = du + dv
        grad_a[t] = 64 * du
        du, dv = alpha * du, beta * dv
    return grad_a


def hear(ds: Tensor, grad_a: Tensor, slope: Tensor, weight: Tensor, delay: Tensor | None, t: int) -> None:
    """Add what a spike of step t would have changed at the neurons that it reaches, where it has a slope."""
    if delay is None:
        ds += grad_a[t + 1] @ weight.T
        return
    sample, unit = slope.nonzero(as_tuple=True)
    if not len(unit):
        return
    late = t + 1 + delay[unit]
    reached = grad_a[
        late.clamp(max=len(grad_a) - 1), sample[:, None], torch.arange(weight.shape[1], device=weight.device)
    ]
    ds[sample, unit] += (weight[unit] * reached * (late < len(grad_a))).sum(1)


def of_weight(x: Tensor, grad_a: Tensor, delay: Tensor | None, shape: torch.Size) -> Tensor:
    """``sum over t, b of x[t, b, j] grad_a[t + 1 + delay[j, n], b, n]``."""
    if delay is None:
        return torch.einsum("tbj,tbn->jn", x[:-1], grad_a[1:])
    found, (step, sample, unit) = x.new_zeros(shape), x.nonzero(as_tuple=True)
    column = torch.arange(shape[1], device=x.device)
    for k in range(0, len(unit), max(1, GATHERED // shape[1])):
        t, b, j = (part[k : k + max(1, GATHERED // shape[1])] for part in (step, sample, unit))
        late = t[:, None] + 1 + delay[j]
        reached = grad_a[late.clamp(max=len(grad_a) - 1), b[:, None], column] * (late < len(grad_a))
        found.index_add_(0, j, reached * x[t, b, j][:, None])
    return found


def adjoint_cpu(
    stage: LIFStage,
    full: Tensor,
    spikes: Tensor,
    grad_v: Tensor | None,
    grad_s: Tensor | None,
    weights: Sequence[Tensor],
) -> Tensor:
    """Compiled twin of ``adjoint``."""
    own, late = (weights[1], stage.delays[1]) if len(weights) > 1 else (None, None)
    given = [None if x is None else x.contiguous().numpy() for x in (grad_v, grad_s)]
    numbers = [x.contiguous().numpy() for x in (stage.threshold, stage.alpha, stage.beta)]
    synapses = [
        None if own is None else own.contiguous().numpy(),
        None if late is None else late.to(torch.uint8).numpy(),
    ]
    options = HEIGHT, HALF_WIDTH, torch.get_num_threads()
    module: Any = cpu.load()
    found = module.chip_adjoint(
        full.contiguous().numpy(), spikes.contiguous().numpy(), *given, *numbers, *synapses, *options
    )
    return torch.from_numpy(found).transpose(0, 1)  # (B, T, N) in memory: what a sample needs lies together


def of_weight_cpu(x: Tensor, grad_a: Tensor, delay: Tensor | None, shape: torch.Size) -> Tensor:
    """Compiled twin of ``of_weight``; without delays it is a product of matrices anyway."""
    if delay is None:
        return of_weight(x, grad_a, delay, shape)
    arrived, late = grad_a.transpose(0, 1).contiguous().numpy(), delay.to(torch.uint8).contiguous().numpy()
    module: Any = cpu.load()
    return torch.from_numpy(module.chip_weight_gradient(x.contiguous().numpy(), arrived, late, torch.get_num_threads()))


def of_input(grad_a: Tensor, weight: Tensor, delay: Tensor | None) -> Tensor:
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
