"""Contrastive projections: two kinds of features in one space, so that classes are recognised that no pair has shown.

Of images a and sounds b, features of two reservoirs, with one linear projection each:

    z_a = A a / |A a|,    z_b = B b / |B b|,    s_ij = e^log_scale z_a,i . z_b,j
    loss = (mean_i CE(s_i., T_i.) + mean_j CE(s_.j, T_.j)) / 2

T is 1 for pair i = j. Where a class occurs more than once in a batch, all its pairs are right, in equal parts: to call one of
them wrong would push apart what belongs together. With every class once it is the loss of CLIP.

Zero-shot: of classes that no pair of the training had, the class of an image is that of the sound prototype nearest to it (mean
of z_b over sounds of the class), and the other way round.

Sources: Radford et al., "Learning transferable visual models from natural language supervision" (CLIP, 2021); the shared target:
Yang et al., "Unified contrastive learning in image-text-label space" (2022); on reservoirs: Lin, Wang et al., "Resistive
memory-based zero-shot liquid state machine for multimodal event data learning" (2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventnet.hardware.resistive.checks import checked_features, checked_labels

__all__ = ["Contrastive", "History", "Labelled", "ZeroShot", "contrastive_loss", "fit_contrastive", "zero_shot"]

HIGHEST = math.log(100.0)  # of log_scale, as in CLIP


class Labelled(NamedTuple):
    """Features ``(B, F)`` of one kind, and their class numbers ``(B,)``."""

    features: Tensor
    labels: Tensor


Samples = tuple[Tensor, Tensor]  # as Labelled


class Contrastive(nn.Module):
    """Two linear projections onto one unit sphere, and the scale of the similarities.

    Args:
        first_features, second_features: of the two kinds.
        dim: of the common space.
        seed: of the initial projections, normal with standard deviation features^-1/2.

    Features are standardised by ``shift_`` and ``spread_``, buffers that ``fit_contrastive`` sets from the training pairs.

    Example:
        >>> model = Contrastive(20, 30, dim=8, seed=0)
        >>> model.first(torch.ones(2, 20)).norm(dim=1)
        tensor([1., 1.], grad_fn=<LinalgVectorNormBackward0>)
    """

    def __init__(self, first_features: int, second_features: int, *, dim: int = 64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, size in (("first", first_features), ("second", second_features)):
            drawn = torch.randn(size, dim, generator=generator) / math.sqrt(size)
            self.register_parameter(f"{name}_weight", nn.Parameter(drawn))
            self.register_buffer(f"{name}_shift", torch.zeros(size))
            self.register_buffer(f"{name}_spread", torch.ones(size))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def first(self, features: Tensor) -> Tensor:
        """``(B, dim)``, of length 1."""
        return self._projected("first", features)

    def second(self, features: Tensor) -> Tensor:
        """``(B, dim)``, of length 1."""
        return self._projected("second", features)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarities ``(B, B')``, scaled."""
        return self.log_scale.clamp(max=HIGHEST).exp() * self.first(first) @ self.second(second).T

    def _projected(self, name: str, features: Tensor) -> Tensor:
        weight = getattr(self, f"{name}_weight")
        if features.dim() != 2 or features.shape[1] != len(weight):
            raise ValueError(f"Contrastive.{name}: expected features (B, {len(weight)}), got {tuple(features.shape)}")
        shift, spread = getattr(self, f"{name}_shift"), getattr(self, f"{name}_spread")
        return F.normalize((features.to(weight.dtype) - shift) / spread @ weight, dim=1)

    @torch.no_grad()
    def standardize_(self, first: Tensor, second: Tensor) -> None:
        """Set the shift and spread of both kinds; a constant feature is left at its scale."""
        for name, features in (("first", first), ("second", second)):
            x = features.double()
            spread = x.std(0, correction=0)
            getattr(self, f"{name}_shift").copy_(x.mean(0))
            getattr(self, f"{name}_spread").copy_(torch.where(spread > 1e-9 * x.abs().amax(0), spread, 1.0))


def contrastive_loss(similarities: Tensor, labels: Tensor) -> Tensor:
    """The symmetric loss of pairs with scaled similarities ``(B, B)`` and classes ``(B,)``; equation above.

    Example:
        >>> contrastive_loss(torch.zeros(4, 4), torch.arange(4))  # log 4: a guess
        tensor(1.3863)
    """
    if similarities.shape != (len(labels), len(labels)):
        raise ValueError(
            f"contrastive_loss: expected similarities (B, B) of B = {len(labels)} pairs, got {tuple(similarities.shape)}"
        )
    same = (labels[:, None] == labels).to(similarities.dtype)
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(similarities, target) + F.cross_entropy(similarities.T, target)) / 2


@dataclass(frozen=True)
class History:
    """Losses of each epoch, on training pairs and on the validation pairs, and the epoch (from 0) whose projections were kept."""

    training: tuple[float, ...]
    validation: tuple[float, ...]
    best: int


def fit_contrastive(
    model: Contrastive,
    first: Samples,
    second: Samples,
    validation: tuple[Samples, Samples],
    *,
    epochs: int = 100,
    patience: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
) -> History:
    """Train on pairs of one class; keep the epoch with the lowest loss on validation pairs.

    Args:
        model: changed in place.
        first, second: features ``(B, F)`` and class numbers ``(B,)`` of the training samples of the seen classes. In an epoch
            each sample of ``first`` has one partner, drawn from ``second`` among those of its class.
        validation: other samples **of the seen classes**, first and second kind; pairs of them are drawn once. A class that the
            training does not have is an error: epochs must not be chosen by unseen classes.
        epochs: at most; training stops after ``patience`` epochs without a lower loss.
        learning_rate, weight_decay: of AdamW; the scale does not decay.
        seed: of the pairs and their order.

    Raises:
        ValueError: a class lacks one of the kinds, or the validation has classes that the training lacks; shapes do not fit, or
            features are not finite.
    """
    first, second = _checked("fit_contrastive", first, second)
    held = _checked("fit_contrastive", *validation)
    seen = {kind: set(part.labels.tolist()) for kind, part in (("first", first), ("second", second))}
    if seen["first"] != seen["second"] or not seen["first"]:
        raise ValueError(
            "fit_contrastive: both kinds need samples of the same classes, got "
            f"{sorted(seen['first'])} and {sorted(seen['second'])}"
        )
    for part in held:
        if unseen := set(part.labels.tolist()) - seen["first"]:
            raise ValueError(
                f"fit_contrastive: the validation has classes {sorted(unseen)} that the training lacks; epochs must not be "
                "chosen by unseen classes"
            )
    generator = torch.Generator().manual_seed(seed)
    model.standardize_(first.features, second.features)
    held_out = _pairs(held[0], held[1], generator)
    if epochs < 1 or not len(held_out[2]):
        raise ValueError(
            f"fit_contrastive: expected at least one epoch and one validation pair, got {epochs}, {len(held_out[2])}"
        )
    scale = [model.log_scale]
    weights = [each for each in model.parameters() if each is not model.log_scale]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": scale, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    training: list[float] = []
    losses: list[float] = []
    best = {name: x.clone() for name, x in model.state_dict().items()}
    for _ in range(epochs):
        training.append(_epoch(model, optimizer, _pairs(first, second, generator), batch_size))
        losses.append(_loss(model, held_out, batch_size))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"fit_contrastive: the loss of epoch {len(losses) - 1} is not finite; are all features?")
        lowest = losses.index(min(losses))
        if lowest == len(losses) - 1:
            best = {name: x.clone() for name, x in model.state_dict().items()}
        elif len(losses) - 1 - lowest >= patience:
            break
    model.load_state_dict(best)
    return History(tuple(training), tuple(losses), losses.index(min(losses)))


Pairs = tuple[Tensor, Tensor, Tensor]  # first features, second features, labels


def _pairs(first: Labelled, second: Labelled, generator: torch.Generator) -> Pairs:
    """Each sample of the first kind that has one with one of its class of the second, in a random order."""
    own = torch.randperm(len(first.labels), generator=generator).to(first.labels.device)
    by_label = second.labels.argsort(stable=True)
    sorted_labels = second.labels[by_label]
    low = torch.searchsorted(sorted_labels, first.labels[own].contiguous())
    count = torch.searchsorted(sorted_labels, first.labels[own].contiguous(), right=True) - low
    share = torch.rand(len(own), generator=generator, dtype=torch.float64).to(count.device)
    drawn = low + (share * count).long()
    own, partner = own[count > 0], by_label[drawn[count > 0]]
    return first.features[own], second.features[partner], first.labels[own]


def _epoch(model: Contrastive, optimizer: torch.optim.Optimizer, pairs: Pairs, batch_size: int) -> float:
    total = 0.0
    with torch.enable_grad():
        for first, second, labels in zip(*(x.split(batch_size) for x in pairs), strict=True):
            loss = contrastive_loss(model(first, second), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(labels)
    return total / max(len(pairs[2]), 1)


@torch.no_grad()
def _loss(model: Contrastive, pairs: Pairs, batch_size: int) -> float:
    parts = zip(*(x.split(batch_size) for x in pairs), strict=True)
    losses = [contrastive_loss(model(first, second), labels) * len(labels) for first, second, labels in parts]
    return float(sum(losses)) / max(len(pairs[2]), 1)


class ZeroShot(NamedTuple):
    """Shares of right classes, of how many, and that of a guess."""

    first_to_second: float
    second_to_first: float
    first_count: int
    second_count: int
    chance: float


@torch.no_grad()
def zero_shot(
    model: Contrastive,
    first: Samples,
    second: Samples,
    *,
    prototypes: tuple[Samples, Samples] | None = None,
) -> ZeroShot:
    """Recognise samples of either kind by the nearest prototype of the other kind.

    Args:
        first, second: features ``(B, F)`` and class numbers ``(B,)`` of what is to be recognised, such as the unseen classes.
        prototypes: samples of the first and of the second kind that prototypes are the means of; ``first`` and ``second``
            themselves if not given: a sample is never compared with its own kind.

    Raises:
        ValueError: a class to be recognised has no prototype; shapes do not fit, or features are not finite.

    Example:
        >>> model = Contrastive(5, 5, dim=4, seed=0)
        >>> some = torch.randn(6, 5, generator=torch.manual_seed(0)), torch.tensor([8, 8, 8, 9, 9, 9])
        >>> zero_shot(model, some, some).chance
        0.5
    """
    first, second = _checked("zero_shot", first, second)
    of_first, of_second = (first, second) if prototypes is None else _checked("zero_shot", *prototypes)
    found = {
        "first": _recognised(
            model.first(first.features), first.labels, model.second(of_second.features), of_second.labels
        ),
        "second": _recognised(
            model.second(second.features), second.labels, model.first(of_first.features), of_first.labels
        ),
    }
    classes = len(of_first.labels.unique()), len(of_second.labels.unique())
    if classes[0] != classes[1]:
        raise ValueError(
            f"zero_shot: prototypes of {classes[0]} classes of the first kind but {classes[1]} of the second"
        )
    return ZeroShot(found["first"], found["second"], len(first.labels), len(second.labels), 1 / classes[0])


def _checked(name: str, *parts: Samples) -> list[Labelled]:
    for part in parts:
        if not isinstance(part, tuple) or len(part) != 2:
            raise TypeError(
                f"{name}: expected a pair of features (B, F) and class numbers (B,), got {type(part).__name__}"
            )
    found = [Labelled(*part) for part in parts]
    for each in found:
        checked_features(name, each.features, each.labels)
        checked_labels(name, each.labels, None)
    return found


def _recognised(z: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> float:
    """Share of samples whose nearest prototype (by angle) has their class."""
    names, number = other_labels.unique(return_inverse=True)
    if missing := set(labels.tolist()) - set(names.tolist()):
        raise ValueError(f"zero_shot: classes {sorted(missing)} have no prototype")
    sums = torch.zeros(len(names), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, number, others)
    said = names[(z @ F.normalize(sums, dim=1).T).argmax(1)]
    return float((said == labels).double().mean()) if len(labels) else math.nan
