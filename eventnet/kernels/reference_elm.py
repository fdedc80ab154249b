"""The specification of the expressive leaky memory neuron: a loop over steps in plain torch, with autograd.

s = k_s s + w x,  b = sum of s over a branch      one trace per synapse, or
b = k_s b + sum of w x over a branch              one trace per branch: the same where all of a branch share their k_s
h = relu(V b + v + U (k_m m))
m = k_m m + g 1.7159 tanh(2/3 (W h + c))          m on the right: memory of the step before
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HEIGHT, SLOPE = 1.7159, 2 / 3  # of the tanh


class Tree(NamedTuple):
    """Synapses on branches: weights and the numbers of their inputs ``(J, S)``; decays ``(J, S)``, or ``(J,)`` of branches."""

    weight: Tensor
    inputs: Tensor
    decay: Tensor


class Memory(NamedTuple):
    """Memory units and the hidden ones that move them.

    ``inward (H, J)`` and ``inward_bias (H,)``: V, v; ``back (H, M)``: U; ``forth (M, H)`` and ``forth_bias (M,)``: W, c;
    ``keep`` and ``gain (M,)``: k_m, g.
    """

    inward: Tensor
    inward_bias: Tensor
    back: Tensor
    forth: Tensor
    forth_bias: Tensor
    keep: Tensor
    gain: Tensor


class Run(NamedTuple):
    """Of each step the memory ``(T, B, M)``; the last traces, ``(B, J, S)`` or ``(B, J)``; and, if ``whole``, of each step the
    branch sums ``(T, B, J)`` and the hidden units h ``(T, B, H)``."""

    memory: Tensor
    trace: Tensor
    branch: Tensor | None = None
    hidden: Tensor | None = None


def elm_reference(x: Tensor, tree: Tree, memory: Memory, trace: Tensor, m: Tensor, whole: bool = False) -> Run:
    """The memory of a sequence ``(T, B, I)``, T >= 1, from the traces and the memory ``(B, M)`` of the step before it."""
    found, branches, hiddens = [], [], []
    for now in x.unbind(0):
        current = tree.weight * now[:, tree.inputs]
        if tree.decay.dim() == 2:
            trace = tree.decay * trace + current
            branch = trace.sum(-1)
        else:
            branch = trace = tree.decay * trace + current.sum(-1)
        kept = memory.keep * m
        hidden = torch.relu(branch @ memory.inward.t() + memory.inward_bias + kept @ memory.back.t())
        move = HEIGHT * torch.tanh(SLOPE * (hidden @ memory.forth.t() + memory.forth_bias))
        m = kept + memory.gain * move
        found.append(m)
        if whole:
            branches.append(branch)
            hiddens.append(hidden)
    if not whole:
        return Run(torch.stack(found), trace)
    return Run(torch.stack(found), trace, torch.stack(branches), torch.stack(hiddens))
