"""Who is measured: every contender runs the same network on the same events, each in its own fast form.

``networks.py`` says which network. Building the raster from the events is part of every step on a grid.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from libraries import dcls, norse, sinabs, snntorch, spikingjelly
from networks import Network, steps_of
from shapes import TAU_MEM, TAU_SYN, THRESHOLD, Problem
from torch import Tensor, nn

__all__ = ["CONTENDERS", "LIBRARIES", "Contender", "version"]


@dataclass(frozen=True)
class Contender:
    """A name, how to set it up for (problem, step), whether it runs on a grid, and the kinds of shapes it has a layer for."""

    name: str
    build: Callable[[Problem, float], Network]
    grid: bool = True
    package: str = "eventnet"
    kinds: tuple[str, ...] = ("plain", "recurrent")


def eventnet(problem: Problem, dt: float) -> Network:
    from eventnet import LI, LIF

    taus = dict(tau_mem=TAU_MEM, tau_syn=TAU_SYN)
    own: dict[str, Any] = {"learn": ("weight",)}
    if problem.recurrent is not None:
        own = {"recurrent": True, "recurrent_delay": problem.shape.recurrent_delay, "delay_kind": "axonal"}
        own["learn"] = ("weight", "recurrent_weight")  # the delay is a constant: no grid could learn it
    elif problem.delay is not None:
        own = {"delay": problem.delay, "mask": problem.mask, "learn": ("weight", "delay")}
    hidden = LIF(*problem.w1.shape, threshold=THRESHOLD, **taus, **own)
    readout = LI(*problem.w2.shape, **taus)
    hidden.weight.data, readout.weight.data = problem.w1.clone(), problem.w2.clone()
    if problem.recurrent is not None:
        hidden.recurrent_weight.data = problem.recurrent.clone()

    def forward(problem: Problem) -> tuple[Tensor, Callable[[], Tensor]]:
        spikes = hidden(problem.events)
        return readout(spikes).mean(), lambda: spikes.lengths

    return Network(forward, [p for p in (*hidden.parameters(), readout.weight) if p.requires_grad])


def grid_gather(problem: Problem, dt: float) -> Network:
    from grid_gather import grid_gather

    given = {"w1": problem.w1, "w2": problem.w2, "recurrent": problem.recurrent, "delay": problem.delay}
    learnt = {name: nn.Parameter(x.clone()) for name, x in given.items() if x is not None}
    settings = dict(dt=dt, tau_mem=TAU_MEM, tau_syn=TAU_SYN, threshold=THRESHOLD)
    settings["recurrent_delay"] = problem.shape.recurrent_delay

    def forward(problem: Problem) -> tuple[Tensor, Tensor]:
        return grid_gather(problem.events, steps=steps_of(problem.shape, dt), **learnt, **settings)

    return Network(forward, list(learnt.values()))


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


EVERY = ("plain", "recurrent", "delays")
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("eventnet", eventnet, grid=False, kinds=EVERY),
        Contender("grid-gather", grid_gather, kinds=EVERY),
        Contender("dcls", dcls, package="DCLS", kinds=("delays",)),
        Contender("spikingjelly", spikingjelly, package="spikingjelly"),
        Contender("spikingjelly-sequence", partial(spikingjelly, multi_step=True), package="spikingjelly"),
        Contender("snntorch", snntorch, package="snntorch"),
        Contender("norse", norse, package="norse"),
        Contender("norse-sequence", partial(norse, modules=True), package="norse"),
        Contender("sinabs", sinabs, package="sinabs"),
        Contender("sinabs-sequence", partial(sinabs, sequence=True), package="sinabs"),
        Contender("floor", floor, grid=False, kinds=EVERY),
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
