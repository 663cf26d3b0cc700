"""What a search chooses from: the sizes of a layer swap that fit a depth, weights, and who fills the outer slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import LayerswapError
from harness.recipes import LayerSwap, SwapSizes

if TYPE_CHECKING:
    from optuna import Trial

OUTER = ("average", "language", "math", "base")


@dataclass(frozen=True)
class Space:
    """Blocks of 0 to ``block`` layers at each end, with transitions of 0 to ``zone`` layers beside them.

    Together they always fit. Math's weight in averages goes from 0.1 to 0.9 by tenths.
    """

    block: int
    zone: int

    def suggest(self, trial: Trial) -> LayerSwap:
        """The swap that a trial's parameters stand for."""
        weight = trial.suggest_int("weight", 1, 9)
        return LayerSwap(
            bottom=trial.suggest_int("bottom", 0, self.block),
            top=trial.suggest_int("top", 0, self.block),
            transition=(
                trial.suggest_int("transition_bottom", 0, self.zone),
                trial.suggest_int("transition_top", 0, self.zone),
            ),
            weights=(weight / 10, (10 - weight) / 10),
            outer=trial.suggest_categorical("outer", OUTER),  # type: ignore[arg-type]
        )

    def nearest(self, sizes: SwapSizes) -> dict[str, int | str]:
        """The parameters of the swap with these sizes, or of the one in the space that is next to it."""
        math, language = sizes.weights
        below, above = sizes.transition
        return {
            "bottom": min(sizes.bottom, self.block),
            "top": min(sizes.top, self.block),
            "transition_bottom": min(below, self.zone),
            "transition_top": min(above, self.zone),
            "weight": min(9, max(1, round(10 * math / (math + language)))),
            "outer": sizes.outer,
        }


def space_of(layers: int) -> Space:
    """The space for a depth: zones of up to an eighth of it (at least 2 layers if there are 8), blocks up to the half.

    Raises :class:`LayerswapError` for less than four layers.
    """
    if layers < 4:
        raise LayerswapError(f"a model of {layers} layers leaves nothing to search: expected at least 4")
    zone = max(layers // 8, min(2, layers // 4))
    return Space(layers // 2 - zone, zone)


def text_of(recipe: LayerSwap) -> str:
    """The recipe as the command line takes it."""
    assert isinstance(recipe.transition, tuple)
    assert recipe.weights
    below, above = recipe.transition
    math, language = recipe.weights
    return (
        f"layer-swap(bottom={recipe.bottom}, top={recipe.top}, transition=({below}, {above}), "
        f"weights=({math:g}, {language:g}), outer='{recipe.outer}')"
    )
