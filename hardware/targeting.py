"""Warnings where a layer is made that a chip could not hold as it is, long before it is trained and exported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from eventnet import EGRU, LI, LIF
from eventnet.hardware.network import MAX_DELAY

__all__ = ["TargetWarning", "targeting"]

COARSE = 0.05  # share of a time constant that its 12 bits may be off by


class TargetWarning(UserWarning):
    """A layer asks for what its target cannot hold."""


@contextmanager
def targeting(target: str = "loihi", *, dt: float) -> Iterator[None]:
    """While this lasts, layers that the target could not hold warn as they are made.

    Args:
        target: "loihi", also for Lava; "nir".
        dt: seconds of a step.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as found, targeting("loihi", dt=1e-3):
        ...     warnings.simplefilter("always")
        ...     layer = LIF(4, 3, delay=(0.08, 0.08))
        >>> print(found[0].message)
        LIF.delay: 0.08 s is 80 steps of 0.001 s; a chip holds 62: take steps of 0.00129 s or longer, or shorter delays
    """
    if target not in ("loihi", "nir"):
        raise ValueError(f"target: expected loihi or nir, got {target!r}")
    if not 0 < dt < float("inf"):
        raise ValueError(f"dt: expected seconds > 0, got {dt!r}")

    def look(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if isinstance(module, LIF | LI | EGRU) and parameter is not None:
            problem = _problem(module, name, parameter.detach(), target, dt)
            if problem:
                warnings.warn(f"{type(module).__name__}.{name}: {problem}", TargetWarning, stacklevel=4)

    handle = register_module_parameter_registration_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _problem(module: nn.Module, name: str, value: Tensor, target: str, dt: float) -> str:
    """What the target cannot hold of a parameter, and what to do; nothing if it can."""
    if isinstance(module, EGRU):
        return "NIR has no node for EGRU units; Lava takes them" if target == "nir" and name == "weight_ih_l0" else ""
    if name == "weight" and value.dim() == 3:
        return "neither Lava nor NIR has a neuron with dendritic branches: leave them out"
    if name == "refractory" and bool((value > 0).any()):
        return "neither Lava nor NIR has this neuron with a refractory period: leave it out"
    if target == "nir" or not value.numel():
        return ""
    if name.endswith("delay"):
        longest = float(value.max())
        if longest / dt >= MAX_DELAY + 0.5:
            return (
                f"{longest:.3g} s is {longest / dt:.0f} steps of {dt:g} s; a chip holds {MAX_DELAY}: take steps of "
                f"{longest / MAX_DELAY:.3g} s or longer, or shorter delays"
            )
    if name.startswith("tau"):
        decay = (4096 * (1 - torch.exp(-dt / value.double()))).round()
        error: Any = (-dt / torch.log1p(-decay / 4096) / value - 1).abs().max()
        if bool(error > COARSE):
            return f"decays of 12 bits hold it to {float(error):.0%} in steps of {dt:g} s: take longer steps"
    return ""
