"""Weights of a deployed network that can be trained: kept as real numbers, rounded where they are used.

A weight that keeps jumping between two integers pulls its neurons to and fro without learning: once it has turned back too often
it is frozen at the integer at which it was longer.

Source: Nagel, Fournarakis, Bondarenko & Blankevoort, "Overcoming oscillations in quantization-aware training" (ICML 2022).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from eventnet.hardware.deployment import Deployment
from eventnet.hardware.egru_quantize import gated_of
from eventnet.hardware.network import Dense, HardwareNetwork
from eventnet.hardware.quantize import FULL, layers_of, names_of, weights_of

__all__ = ["IntegerWeights", "on_grid", "with_weight"]

MEMORY, TURNS = 0.98, 0.02  # of the running mean of a weight's turns, and the share of steps that freezes it


class IntegerWeights(nn.Module):
    """The weights of a deployment of dense synapses: ``weights[k]`` of projection k, in units of the integer grid.

    Raises:
        TypeError: synapses that are not dense.
    """

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        network = deployment.network
        for each in network.projections:
            if not isinstance(each, Dense):
                raise TypeError(f"{each.name}: expected dense synapses, got {each.kind}")
        self.deployment = deployment
        absent = _absent(deployment)
        self.weights = nn.ParameterList([nn.Parameter(each.weight.to(torch.float32)) for each in network.projections])
        for k, weight in enumerate(self.weights):
            for name, start in (
                ("whole", weight.detach()),
                ("turn", torch.zeros_like(weight)),
                ("turns", torch.zeros_like(weight)),
            ):
                self.register_buffer(f"{name}_{k}", start.clone(), persistent=False)
            self.register_buffer(f"mean_{k}", weight.detach().clone(), persistent=False)
            # where there is no synapse, the weight is 0 and stays so
            self.register_buffer(
                f"frozen_{k}", absent.get(network.projections[k].name, weight != weight), persistent=False
            )

    @torch.no_grad()
    def after_step_(self) -> None:
        """After each step of the optimiser: weights stay in range, and those that oscillate are frozen."""
        for k, weight in enumerate(self.weights):
            weight.clamp_(-256, FULL)
            whole, turn, turns, mean, frozen = (
                getattr(self, f"{n}_{k}") for n in ("whole", "turn", "turns", "mean", "frozen")
            )
            now = on_grid(weight)
            moved = (now - whole).sign()
            back = (moved != 0) & (moved == -turn)
            turns.mul_(MEMORY).add_(back, alpha=1 - MEMORY)
            mean.mul_(MEMORY).add_(now, alpha=1 - MEMORY)
            turn.copy_(torch.where(moved != 0, moved, turn))
            frozen |= turns > TURNS
            weight.copy_(torch.where(frozen, on_grid(mean), weight))
            whole.copy_(on_grid(weight))

    def frozen_share(self) -> float:
        """Share of the weights that are frozen."""
        frozen = [getattr(self, f"frozen_{k}") for k in range(len(self.weights))]
        return sum(int(x.sum()) for x in frozen) / max(1, sum(x.numel() for x in frozen))

    def deploy(self) -> Deployment:
        """The deployment with the weights as they are now; what the log said of the weights before does not hold any more."""
        errors = {
            name: {what: x for what, x in own.items() if not what.endswith(("sqnr_db", "clipped"))}
            for name, own in self.deployment.log.errors.items()
        }
        log = dataclasses.replace(self.deployment.log, errors=errors)
        return dataclasses.replace(self.deployment, network=self._network(), log=log)

    def _network(self) -> HardwareNetwork:
        old = self.deployment.network
        pairs = zip(old.projections, self.weights, strict=True)
        changed = [with_weight(each, weight) for each, weight in pairs]
        return old.changed(projections=changed, notes={**old.notes, "fine_tuned": True})


def _absent(deployment: Deployment) -> dict[str, Tensor]:
    """Of each projection of LIF and LI layers, by name, where a mask or pruning has left no synapse."""
    if deployment.model is None or gated_of(deployment.model) is not None:
        return {}
    layers, found = layers_of(deployment.model), {}
    for name, layer in zip(names_of(layers), layers, strict=True):
        weights = weights_of(layer)
        for each in deployment.network.onto(name):
            found[each.name] = weights["recurrent_" if each.source == name else ""] == 0
    return found


def on_grid(weight: Tensor) -> Tensor:
    """The nearest even integers from -256 to 254."""
    return (2 * (weight / 2).round()).clamp(-256, FULL)


def with_weight(projection: Any, weight: Tensor) -> Dense:
    """The projection with another weight, rounded."""
    return dataclasses.replace(projection, weight=on_grid(weight.detach()).to(torch.int32))
