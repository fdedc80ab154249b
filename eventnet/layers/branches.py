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

import torch
from torch import Tensor, nn

from eventnet import kernels
from eventnet.events import Events
from eventnet.layers.lif import lif
from eventnet.layers.neuron import as_parameter, describe, register
from eventnet.layers.synapses import initial_tau_syn, normal_weight

__all__ = ["PlateauLIF"]


class PlateauLIF(nn.Module):
    """A layer of neurons with dendritic thresholds; see the module for the equations.

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
        learn: names of the parameters that require grad; call ``eventnet.constrain_`` after optimiser steps on others than the
            weight and the jump.
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
        if not (isinstance(branches, int) and branches >= 1):
            raise ValueError(f"branches must be a whole number, at least 1, got {branches}")
        self.in_features, self.out_features, self.branches = in_features, out_features, branches
        self.branch_refractory, self.backend = branch_refractory, backend
        given = {
            "tau_branch": tau_branch,
            "tau_syn": tau_syn,
            "branch_threshold": branch_threshold,
            "jump": jump,
            "tau_plateau": initial_tau_syn(tau_plateau, branches, out_features, "tau_plateau"),
        }
        own = {name: self._of_each_branch(name, as_parameter(value, dtype)) for name, value in given.items()}
        soma = {"tau_mem": tau_mem, "threshold": threshold, "reset": reset, "bias": bias}
        own |= {name: as_parameter(value, dtype) for name, value in soma.items()}
        weight = normal_weight(in_features, branches * out_features, dtype=dtype)
        register(self, learn, weight=weight.reshape(in_features, branches, out_features), **own)
        if mask is not None and mask.shape != self.weight.shape:
            raise ValueError(f"mask must be bool {tuple(self.weight.shape)}, as the weight, got {tuple(mask.shape)}")
        self.register_buffer("mask", None if mask is None else mask.detach().clone())
        none = self.weight.new_zeros(0)
        self(
            Events(none, none.int(), torch.zeros(1, dtype=torch.int64), in_features, none)
        )  # says what is wrong already

    def forward(self, events: Events, return_branches: bool = False) -> Events | tuple[Events, Events]:
        """Spikes of ``out_features`` units; with ``return_branches`` also the dendritic events, of unit ``k * out_features + n``
        for branch k of neuron n."""
        kernels.check_layer_input("PlateauLIF", events, self.weight, branched=True)
        dendritic = lif(
            events,
            self.weight.flatten(1),
            tau_mem=self.tau_branch.flatten(),
            tau_syn=self.tau_syn.flatten(),
            threshold=self.branch_threshold.flatten(),
            refractory=self.branch_refractory,
            mask=None if self.mask is None else self.mask.flatten(1),
            backend=self.backend,
        )
        size = self.branches, self.out_features
        spikes = lif(
            dendritic,
            torch.diag_embed(self.jump.expand(size).flatten()).reshape(-1, *size),  # each branch to its own soma only
            tau_mem=self.tau_mem,
            tau_syn=self.tau_plateau.expand(size),
            threshold=self.threshold,
            reset=self.reset,
            bias=self.bias,
            backend=self.backend,
        )
        return (spikes, dendritic) if return_branches else spikes

    def extra_repr(self) -> str:
        named: dict[str, Tensor] = {name: p for name, p in self.named_parameters() if name != "weight"}
        return f"{self.in_features}, {self.out_features}, branches={self.branches}, {describe(named)}"

    def _of_each_branch(self, name: str, value: Tensor) -> Tensor:
        wanted = self.branches, self.out_features
        if value.dim() and value.shape != wanted:
            raise ValueError(f"{name} must be one number or (branches, out) = {wanted}, got shape {tuple(value.shape)}")
        return value
