"""PlateauLIF: neurons whose dendritic branches have thresholds of their own, as NMDA spikes have; exact gradients.

    tau_branch u_k' = -u_k + I_k,   tau_syn I_k' = -I_k        an event of unit j adds value * weight[j, k, n] to I_k of neuron n
    tau_mem V' = bias - V + sum_k P_k,   tau_plateau[k] P_k' = -P_k

When the voltage u_k of branch k reaches ``branch_threshold`` from below, the branch emits a dendritic event: u_k becomes 0 and
stays there for ``branch_refractory`` seconds; the plateau current P_k of its neuron grows by ``jump[k]``. When V reaches
``threshold`` the neuron emits a spike and V becomes ``reset``. So the neuron is an OR, or a sum, of branches that each detect a
pattern.

Both transitions are crossings of a continuous voltage: their times, and all that follows, have exact gradients (EventProp) in all
parameters and in the input. This is put together from ``lif`` twice, the branches' events being the soma's input.

Not exact, and not offered: a threshold on the branch *current*. It jumps when an event arrives, so the moment of the transition
is that of the arrival, and whether there is one changes in a step: that has no gradient. A branch voltage with a ``tau_branch``
that is short against ``tau_syn`` follows its current as closely as wanted.

After the pyramidal neuron of Larkum, "A cellular mechanism for cortical associations" (2013), in the form of events.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eventnet import kernels
from eventnet.events import Events
from eventnet.graphs import outside_graphs
from eventnet.kernels.reference_lif import Layer
from eventnet.layers.lif import Watcher, as_layer, check_numbers, run_layer
from eventnet.layers.neuron import as_parameter, describe, register
from eventnet.layers.synapses import check_mask, initial_tau_syn, normal_weight
from eventnet.layers.whole import whole_at_least

__all__ = ["PlateauLIF"]

KEPT = "(eventnet.constrain_(module) after each optimiser step keeps it so)"
EXPECTED = dict.fromkeys(("tau_branch", "tau_syn", "tau_plateau"), f"positive, finite seconds {KEPT}")
EXPECTED |= {"branch_threshold": f"a voltage above the reset, which is 0 {KEPT}", "jump": "a finite voltage"}


class PlateauLIF(nn.Module):
    """A layer of neurons with dendritic thresholds; see the module for the equations.

    It has no delays and no recurrent weights, takes and returns no state, and returns no voltage: ``LIF(branches=K)`` does.

    Args:
        in_features, out_features: units in and out.
        branches: K per neuron. ``weight`` is ``(in_features, K, out_features)``, normal with standard deviation in^-1/2.
        tau_branch, tau_syn: seconds > 0, of a branch's voltage and of its synapses; one number or ``(K, out_features)``.
        branch_threshold: volts > 0; one number or ``(K, out_features)``.
        branch_refractory: seconds >= 0 in which a branch emits no other event; one number.
        jump: volts by which a dendritic event raises the plateau current, of either sign; one number or ``(K, out_features)``.
        tau_plateau: seconds > 0; one number, ``(low, high)``: log-spaced over the branches, or ``(K, out_features)``.
        tau_mem, threshold, reset, bias: of the soma, as those of ``LIF``.
        mask: bool, as the weight; where False there is no synapse.
        learn: names of the parameters that require grad; what was given as one number stays one for all. Call
            ``eventnet.constrain_`` after optimiser steps on others than the weight and the jump.
        backend: "auto", "cpu" or "reference".
        dtype: of the parameters; torch's default if not given.

    Raises:
        ValueError, TypeError: as ``lif``.

    Example:
        >>> layer = PlateauLIF(2, 1, branches=2, jump=3.0, branch_threshold=0.5, branch_refractory=50e-3)
        >>> _ = nn.init.constant_(layer.weight, 4.0)
        >>> spikes, dendritic = layer(Events.from_list([([0.01], [0])], num_units=2, duration=0.2), return_branches=True)
        >>> dendritic.units.tolist(), spikes.num_events > 0  # both branches of the neuron, which then fires
        ([0, 1], True)
    """

    weight: Tensor
    tau_branch: Tensor
    tau_syn: Tensor
    branch_threshold: Tensor
    jump: Tensor
    tau_plateau: Tensor
    tau_mem: Tensor
    threshold: Tensor
    reset: Tensor
    bias: Tensor
    mask: Tensor | None
    watchers: tuple[Watcher, ...] = ()  # of each call: see diagnosing
    branch_watchers: tuple[Watcher, ...] = ()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        branches: int = 2,
        tau_branch: float | Tensor = 10e-3,
        tau_syn: float | Tensor = 5e-3,
        branch_threshold: float | Tensor = 1.0,
        branch_refractory: float = 0.0,
        jump: float | Tensor = 1.0,
        tau_plateau: float | Tensor | tuple[float, float] = 50e-3,
        tau_mem: float | Tensor = 20e-3,
        threshold: float | Tensor = 1.0,
        reset: float | Tensor = 0.0,
        bias: float | Tensor = 0.0,
        mask: Tensor | None = None,
        learn: tuple[str, ...] = ("weight", "jump", "tau_plateau"),
        backend: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        branches = whole_at_least(1, branches, "branches")
        if np.ndim(branch_refractory) or not 0 <= branch_refractory < inf:
            raise ValueError(f"branch_refractory is {branch_refractory!r}; expected one number of finite seconds >= 0")
        self.in_features, self.out_features, self.branches = in_features, out_features, branches
        self.branch_refractory, self.backend = branch_refractory, backend
        given = {
            "tau_branch": tau_branch,
            "tau_syn": tau_syn,
            "branch_threshold": branch_threshold,
            "jump": jump,
            "tau_plateau": initial_tau_syn(tau_plateau, branches, out_features, "tau_plateau"),
        }
        soma = {"tau_mem": tau_mem, "threshold": threshold, "reset": reset, "bias": bias}
        check_numbers(**given, **soma)
        own = {name: self._of_each_branch(name, as_parameter(value, dtype)) for name, value in given.items()}
        own |= {name: as_parameter(value, dtype) for name, value in soma.items()}
        weight = normal_weight(in_features, branches * out_features, dtype=dtype)
        register(self, learn, weight=weight.reshape(in_features, branches, out_features), **own)
        if mask is not None:
            check_mask(mask, self.weight, "")
        self.register_buffer("mask", None if mask is None else mask.detach().clone())
        self(Events.from_list([], in_features, 0.0))  # what is wrong is said here already

    @outside_graphs
    def forward(self, events: Events, return_branches: bool = False) -> Events | tuple[Events, Events]:
        """Spikes of ``out_features`` units; with ``return_branches`` also the dendritic events, of unit ``k * out_features + n``
        for branch k of neuron n."""
        kernels.check_layer_input("PlateauLIF", events, self.weight, branched=True)
        self._check()
        branches = as_layer(
            self.weight.flatten(1),
            tau_mem=self.tau_branch.flatten(),
            tau_syn=self.tau_syn.flatten(),
            threshold=self.branch_threshold.flatten(),
            refractory=self.branch_refractory,
            mask=None if self.mask is None else self.mask.flatten(1),
        )
        size = self.branches, self.out_features
        soma = as_layer(
            torch.diag_embed(self.jump.expand(size).flatten()).reshape(-1, *size),  # each branch to its own soma only
            tau_mem=self.tau_mem,
            tau_syn=self.tau_plateau.expand(size),
            threshold=self.threshold,
            reset=self.reset,
            bias=self.bias,
        )
        dendritic = self._run(events, branches, self.branch_watchers)
        spikes = self._run(dendritic, soma, self.watchers)
        return (spikes, dendritic) if return_branches else spikes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if not name.endswith("watchers")}

    def extra_repr(self) -> str:
        named: dict[str, Tensor] = {name: p for name, p in self.named_parameters() if name != "weight"}
        return f"{self.in_features}, {self.out_features}, branches={self.branches}, {describe(named)}"

    def _run(self, events: Events, layer: Layer, watchers: tuple[Watcher, ...]) -> Events:
        spikes = run_layer(events, layer, None, False, False, self.backend, watchers=watchers)
        assert isinstance(spikes, Events)  # neither voltage nor state was asked for
        return spikes

    def _check(self) -> None:
        """Raise for a number out of its bounds by the name it has here: ``lif`` has its own."""
        for name, expected in EXPECTED.items():
            value = getattr(self, name)
            sound = value > (-inf if name == "jump" else 0)
            if name != "branch_threshold":  # which may be out of reach
                sound = sound & value.isfinite()
            if not bool(sound.all()):
                place = (~sound).nonzero()[0].tolist()
                where = " of branch {} of neuron {}".format(*place) if place else ""
                raise ValueError(f"{name}{where} is {value[tuple(place)].item()}; expected {expected}")

    def _of_each_branch(self, name: str, value: Tensor) -> Tensor:
        wanted = self.branches, self.out_features
        if value.dim() and value.shape != wanted:
            raise ValueError(f"{name} must be one number or (branches, out) = {wanted}, got shape {tuple(value.shape)}")
        return value
