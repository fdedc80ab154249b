"""From a recipe to its network."""

from __future__ import annotations

from eventnet.training.continual import ContinualNetwork, ContinualRecipe
from eventnet.training.gated import GatedNetwork
from eventnet.training.network import Network
from eventnet.training.recipe import GatedRecipe, Recipe, SpikingRecipe
from eventnet.training.spiking import SpikingNetwork

__all__ = ["build"]


def build(recipe: Recipe, num_units: int, num_classes: int) -> Network:
    """The network of a recipe for data with ``num_units`` units and ``num_classes`` classes; not yet calibrated.

    Example:
        >>> build(SpikingRecipe(name="mine", hidden=(20,)), num_units=4, num_classes=3).hidden[0]
        LIF(4, 20, tau_mem=0.02, tau_syn=0.005, threshold=1)
    """
    if isinstance(recipe, SpikingRecipe):
        return SpikingNetwork(recipe, num_units, num_classes)
    if isinstance(recipe, GatedRecipe):
        return GatedNetwork(recipe, num_units, num_classes)
    if isinstance(recipe, ContinualRecipe):
        return ContinualNetwork(recipe, num_units, num_classes)
    raise TypeError(f"build: expected a SpikingRecipe, a GatedRecipe or a ContinualRecipe, got {type(recipe).__name__}")
