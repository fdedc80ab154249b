"""Recipes, and training by them: ``train(find("digits"), "runs/digits")``. Importing this does not import Lightning."""

from eventnet.training.build import build
from eventnet.training.checkpoint import load_model
from eventnet.training.continual import ContinualRecipe
from eventnet.training.errors import CheckpointError, DataError, RecipeError, TrainingError, UserError
from eventnet.training.evaluation import Evaluation, evaluate_network
from eventnet.training.network import Network, Outcome
from eventnet.training.recipe import GatedRecipe, Recipe, SpikingRecipe
from eventnet.training.recipes import RECIPES, find
from eventnet.training.run import Result, evaluate, train

__all__ = [
    "CheckpointError",
    "ContinualRecipe",
    "DataError",
    "Evaluation",
    "GatedRecipe",
    "Network",
    "Outcome",
    "RECIPES",
    "Recipe",
    "RecipeError",
    "Result",
    "SpikingRecipe",
    "TrainingError",
    "UserError",
    "build",
    "evaluate",
    "evaluate_network",
    "find",
    "load_model",
    "train",
]
