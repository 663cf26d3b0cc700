"""Recipes: what a person writes. Each gives a plan for a model of any depth; no weight and no torch is needed.

Roles and names: a recipe speaks of the *math* and the *language* expert. Those are also the default names of the
checkpoints that fill the roles; ``LayerSwap(math="math-long")`` puts another checkpoint into a role. The base model
is always called ``base``.
"""

from __future__ import annotations

from harness.recipes.common import PAPER, Recipe, SwapSizes, check_experts
from harness.recipes.methods import DareTies, Slerp, Soup, TaskArithmetic, Ties
from harness.recipes.slots import Slots
from harness.recipes.swaps import Expert, LayerSwap, OneSide, Placement, Revert

__all__ = [
    "PAPER",
    "DareTies",
    "Expert",
    "LayerSwap",
    "OneSide",
    "Placement",
    "Recipe",
    "Revert",
    "Slerp",
    "Slots",
    "Soup",
    "SwapSizes",
    "TaskArithmetic",
    "Ties",
    "check_experts",
]
