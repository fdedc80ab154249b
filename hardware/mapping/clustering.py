"""Fewer distinct time constants and thresholds: a chip's cores hold a limited number of sets of them.

Each neuron has a set (du, dv). Its time constants, in steps, are ``tau = -1 / log(1 - d / 4096)`` with d = du + 1 for the
current and d = dv for the voltage. The sets are points (log tau_syn, log tau_mem), as heavy as they have neurons, and k-means
finds ``num`` centres for them: so it is ratios of time constants that are kept small. The first centre is the heaviest point,
each further one the point farthest from all others; Lloyd's steps follow until nothing moves. The same network always gives
the same result; that it is the best one is not certain. Thresholds are clustered by themselves, as log vth.

Values without a finite logarithm (no decay, full decay, a threshold of 0) stay what they are and are never joined to others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.network import HardwareNetwork

__all__ = ["ClusteringReport", "cluster_time_constants"]

Array = NDArray[np.float64]
APART = 1e6  # farther than any two logarithms are
MAX_STEPS = 300


@dataclass(frozen=True)
class ClusteringReport:
    """What clustering did: distinct values before and after, and the change over all neurons, |after / before - 1|."""

    sets_before: int
    sets_after: int
    thresholds_before: int
    thresholds_after: int
    max_change_tau_syn: float
    mean_change_tau_syn: float
    max_change_tau_mem: float
    mean_change_tau_mem: float
    max_change_threshold: float
    mean_change_threshold: float

    def __str__(self) -> str:
        parts = (
            (f"{self.sets_before} -> {self.sets_after} time-constant sets", "tau_syn", "tau_mem"),
            (f"{self.thresholds_before} -> {self.thresholds_after} thresholds", "threshold"),
        )
        changes = [
            ", ".join(
                [
                    head,
                    *(
                        f"{x} by {getattr(self, f'mean_change_{x}'):.1%} ({getattr(self, f'max_change_{x}'):.1%} at most)"
                        for x in names
                    ),
                ]
            )
            for head, *names in parts
        ]
        return "; ".join(changes)


def cluster_time_constants(
    network: HardwareNetwork, num: int | None, thresholds: int | None = None
) -> tuple[HardwareNetwork, ClusteringReport]:
    """A network with at most ``num`` distinct sets (du, dv) in all, and at most that many thresholds.

    With as few in all, no core has more. Weights and thresholds are not adapted to the new time constants: measure again.

    Args:
        network: any; one that has no more than is asked for comes back unchanged.
        num: of sets (du, dv); None leaves them.
        thresholds: how many of those; None leaves them.

    Raises:
        ValueError: fewer than 1, or fewer than there are kinds that cannot be joined (see the top of this file).

    Example:
        >>> from eventnet.hardware.network import Dense, Inputs
        >>> network = HardwareNetwork(
        ...     [Inputs("input", 1), LIFNeurons("hidden", 4, du=409, dv=[200, 202, 99, 101], vth=1000)],
        ...     [Dense("input", "hidden", [[2, 2, 2, 2]])],
        ...     dt=1e-3,
        ... )
        >>> clustered, report = cluster_time_constants(network, 2)
        >>> clustered["hidden"].dv.tolist(), report.sets_before, report.sets_after, round(report.max_change_tau_mem, 3)
        ([201, 201, 100, 100], 4, 2, 0.01)
    """
    layers = [each for each in network.neurons if isinstance(each, LIFNeurons)]
    du, dv, vth = (
        torch.cat([getattr(each, x) for each in layers]).numpy() if layers else np.zeros(0, np.int32)
        for x in ("du", "dv", "vth")
    )
    sets = np.stack([du + 1, dv], axis=1)
    new_sets = sets if num is None else _clustered(sets, _log_tau(sets), _decay, num, "num")
    new_vth = vth[:, None]
    if thresholds is not None:
        new_vth = _clustered(vth[:, None], _log(vth[:, None]), _threshold, thresholds, "thresholds")
    starts = np.cumsum([0, *(each.size for each in layers)])
    changed = {
        each.name: dataclasses.replace(each, du=new_sets[a:b, 0] - 1, dv=new_sets[a:b, 1], vth=new_vth[a:b, 0])
        for each, a, b in zip(layers, starts, starts[1:], strict=False)
    }
    populations = [changed.get(each.name, each) for each in network.populations]
    return network.changed(populations=populations), _report(sets, new_sets, vth[:, None], new_vth)


def _log_tau(decay: NDArray[np.int32]) -> Array:
    """log tau of decays in 1/4096, and the special values 0 and 4096 far away from all and each other."""
    inner = np.clip(decay, 1, 4095)
    found = -np.log(-np.log1p(-inner / 4096))
    return np.where(decay == 0, APART, np.where(decay == 4096, -APART, found))


def _decay(log_tau: Array) -> Array:
    """The decays in 1/4096 of the time constants: the reverse of ``_log_tau``."""
    inner = np.clip(np.rint(-4096 * np.expm1(-np.exp(-np.clip(log_tau, -50, 50)))), 1, 4095)
    return np.where(log_tau > APART / 2, 0, np.where(log_tau < -APART / 2, 4096, inner))


def _log(value: NDArray[np.int32]) -> Array:
    """log of thresholds, and 0 far away from all."""
    return np.where(value == 0, -APART, np.log(np.maximum(value, 1)))


def _threshold(logarithm: Array) -> Array:
    """The reverse of ``_log``."""
    return np.where(logarithm < -APART / 2, 0, np.rint(np.exp(np.clip(logarithm, 0, 50))))


def _clustered(
    values: NDArray[np.int32], points: Array, back: Callable[[Array], Array], num: int, name: str
) -> NDArray[np.int32]:
    """Values of which at most ``num`` rows differ; ``points`` are their logarithms, ``back`` undoes these."""
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ValueError(f"{name}: expected an integer from 1, got {num!r}")
    distinct, first, which, counts = np.unique(
        values, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(distinct) <= num:
        return values
    where = points[first]
    kinds = len(np.unique(np.sign(where) * (np.abs(where) >= APART), axis=0))
    if num < kinds:
        raise ValueError(
            f"{name}: expected at least {kinds}, as no decay, full decay and thresholds of 0 stay apart, got {num}"
        )
    centres, label = _k_means(where, counts.astype(np.float64), num)
    return back(centres)[label][which.reshape(-1)].astype(np.int32)


def _k_means(points: Array, weight: Array, num: int) -> tuple[Array, NDArray[np.int64]]:
    """Centres ``(num, D)`` of weighted points ``(P, D)``, and the centre of each point; num < P."""
    centres = points[[int(weight.argmax())]]
    nearest = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < num:
        centres = np.concatenate([centres, points[[int(nearest.argmax())]]])
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(1))
    label = np.full(len(points), -1)
    for _ in range(MAX_STEPS):
        closest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        if (closest == label).all():
            break
        label = closest
        mass = np.bincount(label, weights=weight, minlength=num)
        sums = [np.bincount(label, weights=weight * axis, minlength=num) for axis in points.T]
        held = mass > 0
        centres[held] = (np.stack(sums, axis=1)[held].T / mass[held]).T
    return centres, label


def _report(
    sets: NDArray[np.int32], new_sets: NDArray[np.int32], vth: NDArray[np.int32], new_vth: NDArray[np.int32]
) -> ClusteringReport:
    log_tau = _log_tau(new_sets) - _log_tau(sets)
    changes = (log_tau[:, :1], log_tau[:, 1:], _log(new_vth) - _log(vth))
    sizes = []
    for change in changes:
        relative = np.abs(np.expm1(change))
        sizes += [float(relative.max(initial=0)), float(relative.mean()) if relative.size else 0.0]
    counts = [len(np.unique(x, axis=0)) for x in (sets, new_sets, vth, new_vth)]
    return ClusteringReport(*counts, *sizes)
