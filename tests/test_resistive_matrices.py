"""Matrices of weights: those that arrays hold, by name, and layers and weights that are refused."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune

from eventnet import EGRU, LI, LIF, EGRUCell
from eventnet.hardware.resistive.matrices import matrices_of
from eventnet.training.build import build
from eventnet.training.recipes import find


def test_of_each_kind_of_layer():
    model = nn.ModuleDict(
        {
            "spiking": LIF(4, 3, recurrent=True),
            "units": EGRU(3, 2, bidirectional=True),
            "cell": EGRUCell(3, 2),
            "rest": nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2), nn.BatchNorm1d(2)),
            "read": LI(2, 2),
        }
    )
    found = matrices_of(model)
    assert [each.name for each in found] == [
        "spiking.weight",
        "spiking.recurrent_weight",
        *(f"units.weight_{kind}h_l0{way}" for way in ("", "_reverse") for kind in "ih"),
        "cell.weight_ih",
        "cell.weight_hh",
        "rest.1.weight",
        "read.weight",
    ]
    for name, layer, parameter in found:
        assert model.get_parameter(name) is parameter and parameter in set(layer.parameters())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(3, 3), "weight", amount=0.5)


def parametrized() -> nn.Module:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    "call, error, says",
    [
        (
            lambda: matrices_of(nn.Sequential(nn.GRU(2, 3))),
            TypeError,
            "0: a GRU has weights \\(weight_ih_l0, weight_hh_l0\\)",
        ),
        (lambda: matrices_of(nn.Conv2d(1, 2, 3)), TypeError, "model: a Conv2d"),
        (lambda: matrices_of(nn.ReLU()), ValueError, "at least one layer"),
        (lambda: matrices_of(LIF(2, 2, branches=2)), TypeError, "model: weights of dendritic branches are not placed"),
        (lambda: matrices_of(Tied()), ValueError, "b.weight: shared with a.weight"),
        (lambda: matrices_of(build(find("characters").changed(hidden=(4,)), 3, 3)), ValueError, "\\(tied\\)"),
        (lambda: matrices_of(pruned()), ValueError, "weight: pruned or parametrized"),
        (
            lambda: matrices_of(prune.l1_unstructured(EGRU(2, 3), "weight_hh_l0", 0.5)),
            ValueError,
            "weight_hh_l0: pruned or",
        ),
        (lambda: matrices_of(parametrized()), ValueError, "0.weight: pruned or parametrized"),
        (
            lambda: matrices_of(nn.MultiheadAttention(4, 2)),
            TypeError,
            "model: a MultiheadAttention has weights \\(in_proj",
        ),
        (lambda: matrices_of(nn.Sequential(nn.Embedding(4, 2))), TypeError, "0: an? Embedding"),
        (
            lambda: matrices_of(build(find("row_mnist").changed(unit="gru", hidden=(4,)), 3, 3)),
            TypeError,
            "hidden: a GRU has weights",
        ),
    ],
)
def test_what_is_not_placed_is_refused_by_name(call, error, says):
    with pytest.raises(error, match=says):
        call()
