"""Random numbers of chips: drawn on the CPU, one after another and in float32, whatever the threads, the device and the dtype."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["normals", "seeded", "uniforms"]

BLOCK = 16  # torch draws normal numbers in blocks of this many


def seeded(*seed: int) -> torch.Generator:
    """A generator for a seed, or for one of the streams of a seed: ``seeded(chip, cycle)``.

    Raises:
        ValueError: a seed that is negative, or no whole number.

    Example:
        >>> torch.rand(1, generator=seeded(3)).equal(torch.rand(1, generator=seeded(3, 0)))
        False
    """
    if not all(isinstance(each, int | np.integer) and each >= 0 for each in seed):
        raise ValueError(f"expected whole seeds >= 0, got {', '.join(map(str, seed))}")
    # The length counts too: NumPy's seed sequences take trailing zeros for nothing.
    state = np.random.SeedSequence([len(seed), *seed]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(state))


def normals(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """``shape`` standard normal numbers on the device and in the dtype of ``like``.

    Drawn row by row (rows of the last dimension) in whole blocks, so that rows drawn in several calls are those drawn in one.

    Example:
        >>> once, twice = seeded(0), seeded(0)
        >>> parts = [normals((2, 5), twice, torch.zeros(())), normals((1, 5), twice, torch.zeros(()))]
        >>> normals((3, 5), once, torch.zeros(())).equal(torch.cat(parts))
        True
    """
    _check(generator)
    *outer, last = shape or (1,)
    padded = -(-last // BLOCK) * BLOCK
    drawn = torch.randn(*outer, padded, generator=generator, dtype=torch.float32)
    return drawn[..., :last].reshape(shape).to(like.device, like.dtype)


def uniforms(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    """``shape`` numbers from 0 to 1, float32, on the device of ``like``."""
    _check(generator)
    return torch.rand(shape, generator=generator, dtype=torch.float32).to(like.device)


def _check(generator: torch.Generator) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"expected a generator that draws the noise, as seeded(0), got {generator!r}")
