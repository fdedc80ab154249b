"""Are the gradients exact? A comparison with central finite differences that anyone can run on their own network."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from eventnet import LIF, Events

__all__ = ["example", "max_relative_error"]


def max_relative_error(
    module: nn.Module | None = None, loss: Callable[[], Tensor] | None = None, *, step: float = 3e-6
) -> float:
    """Largest difference between EventProp's gradient and finite differences, relative to the parameter's
    largest gradient.

    Over all parameters p of ``module`` that require grad: ``max |g - d| / max |d|``, where ``g`` is the
    gradient by ``backward`` and ``d[i]`` the fourth-order central difference by element i, from four evaluations
    of the loss at distances of ``step`` and ``2 * step`` times the parameter's largest element.

    Differences say something only where the loss is smooth between the two points: in float64, with no spike
    that appears, vanishes or changes its order there. A result near 1 can also mean that.

    Args:
        module: of float64 parameters; by default the network of ``example()``.
        loss: a function without arguments that evaluates the module.
        step: relative step of the differences.

    Raises:
        TypeError: a parameter that is not float64; ValueError: nothing to check.

    Example:
        >>> max_relative_error() < 1e-7
        True
    """
    if module is None:
        module, loss = example()
    if loss is None:
        raise ValueError("max_relative_error: expected a loss function for the module, got None")
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("max_relative_error: no parameter requires grad (LIF(..., learn=(...)) chooses them)")
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float64:
            raise TypeError(
                f"max_relative_error: {name} is {parameter.dtype}; differences need float64: module.double()"
            )
    exact = torch.autograd.grad(loss(), list(parameters.values()), materialize_grads=True)
    worst = 0.0
    for parameter, gradient in zip(parameters.values(), exact, strict=True):
        difference = _differences(parameter, loss, step)
        largest = difference.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        worst = max(worst, float((gradient - difference).abs().max() / largest))
    return worst


@torch.no_grad()
def _differences(parameter: Tensor, loss: Callable[[], Tensor], step: float) -> Tensor:
    """Fourth-order central differences by each element."""
    h = step * (float(parameter.abs().max()) or 1.0)
    found = torch.zeros_like(parameter)
    flat, out = parameter.view(-1), found.view(-1)
    for i in range(flat.numel()):
        value = flat[i].item()
        moved = []
        for distance in (h, -h, 2 * h, -2 * h):
            flat[i] = value + distance
            moved.append(loss())
        flat[i] = value
        out[i] = (8 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12 * h)
    return found


class _Stack(nn.Module):
    """LIF layers one after another."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        learn = ("weight", "tau_mem", "tau_syn", "threshold", "reset", "bias")
        self.layers = nn.ModuleList(
            LIF(before, after, learn=learn, dtype=torch.float64) for before, after in itertools.pairwise(sizes)
        )

    def forward(self, events: Events) -> Events:
        for layer in self.layers:
            events = layer(events)
        return events


def example(sizes: tuple[int, ...] = (5, 8, 6, 3), *, seed: int = 0) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A small float64 network of LIF layers, every parameter learnt, and a loss on its output spike times.

    The neurons fire several times, so that the gradient passes through resets.
    """
    generator = torch.Generator().manual_seed(seed)
    network = _Stack(sizes)
    for k, layer in enumerate(network.layers):
        assert isinstance(layer, LIF)
        weight = 2.0 + torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        layer.weight.data.copy_(weight * (5.0 if k == 0 else 2.5) / layer.in_features)
    duration, count = 0.1, 12
    times = torch.rand(4, count, generator=generator, dtype=torch.float64).sort(1).values * 0.06
    units = torch.randint(sizes[0], (4, count), generator=generator)
    events = Events.from_list(list(zip(times, units, strict=True)), sizes[0], duration, dtype=torch.float64)

    def loss() -> Tensor:
        spikes = network(events)
        scale = torch.cos(torch.arange(spikes.num_events, dtype=torch.float64))
        return (scale * (spikes.times / 0.02) ** 2).sum()

    return network, loss
