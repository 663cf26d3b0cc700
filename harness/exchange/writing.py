"""A plan as a mergekit file that gives the same weights: ``layerswap export``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import LayerswapError
from harness.plan import Mix, Plan

Config = dict[str, Any]


def mergekit_config(plan: Plan, models: Mapping[str, str], dtype: str = "float32", tied: bool = False) -> Config:
    """The content of a mergekit file for ``plan``; ``models`` gives each expert's path or hub id.

    ``dtype`` is what the experts are stored in: arithmetic is in float32, and its result is rounded to that once.
    ``tied``: their head is their embeddings. Raises :class:`LayerswapError` for what mergekit cannot express, naming
    the key that has no such value.
    """
    if missing := [name for name in plan.experts if name not in models]:
        raise LayerswapError(f"no folder is given for the expert {missing[0]!r}")
    mixes = dict.fromkeys(mix for _, mix in plan.mixes)
    if len(mixes) == 1:
        config = _whole(next(iter(mixes)), models)
    else:
        for mix in mixes:
            if mix.operation != "linear":
                raise LayerswapError(
                    f"merge_method: mergekit has one method for all slots, but this plan fills some by {mix.operation}"
                )
        if tied and plan["embed"] != plan["head"]:
            raise LayerswapError(
                "slices: the experts' head is their embeddings, but the plan fills the two differently"
            )
        config = _sliced(plan, models)
    return config | {"dtype": "float32"} | ({"out_dtype": dtype} if dtype != "float32" else {})


def yaml_text(config: Config) -> str:
    """``config`` as YAML, its keys in order."""
    import yaml

    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120))


def _whole(mix: Mix, models: Mapping[str, str]) -> Config:
    """One operation over whole models."""
    if mix.operation == "linear":
        sources = [_weighted(models[name], weight) for name, weight in mix.sources]
        # mergekit asks the base for a weight where it is no source: the first source serves.
        return {
            "merge_method": "linear",
            "base_model": models[mix.sources[0][0]],
            "models": sources,
            "parameters": {"normalize": True},
        }
    if mix.operation == "slerp":
        names = [name for name, _ in mix.sources]
        return {
            "merge_method": "slerp",
            "base_model": models[names[0]],
            "models": [{"model": models[name]} for name in names],
            "parameters": {"t": mix.parameter("t")},
        }
    if mix.operation == "dare_ties":
        raise LayerswapError("merge_method: mergekit's dare_ties draws other random masks than this plan's seed does")
    if mix.parameter("trim") == "model":
        raise LayerswapError(
            "density: mergekit trims tensor by tensor, but this plan over the whole model (trim='model')"
        )
    base = str(mix.parameter("base"))
    if base in (name for name, _ in mix.sources):
        raise LayerswapError(
            f"base_model: {base!r} is the base and an expert of this plan, which mergekit takes for one"
        )
    sparse = ("density", "normalize") if mix.operation == "ties" else ()
    parameters: Config = {name: mix.parameter(name) for name in (*sparse, "lambda")}
    return {
        "merge_method": mix.operation,
        "base_model": models[base],
        "models": [_weighted(models[name], weight) for name, weight in mix.sources],
        "parameters": parameters if sparse else {"normalize": False, **parameters},
    }


def _sliced(plan: Plan, models: Mapping[str, str]) -> Config:
    """Copies and averages, slice by slice.

    mergekit fills the embeddings by the first slice, final norm and head by the last. So both ends have an empty slice
    of their own, which take the same models: it takes no more of the last than the first has.
    """
    if plan["norm"] != plan["head"]:
        raise LayerswapError("slices: mergekit fills final norm and head by one slice, but this plan differently")
    ends = dict.fromkeys(name for slot in ("embed", "norm") for name, _ in plan[slot].sources)
    slices = [_slice(_padded(plan["embed"], list(ends)), models, 0, 0)]
    first = 0
    for span, mix in plan.runs:
        if span.startswith("layers."):
            last = int(span.rpartition("-")[2].rpartition(".")[2]) + 1
            slices.append(_slice(dict(mix.sources), models, first, last))
            first = last
    slices.append(_slice(_padded(plan["norm"], list(ends)), models, plan.layers, plan.layers))
    return {
        "merge_method": "linear",
        "base_model": models[plan.experts[0]],
        "slices": slices,
        "parameters": {"normalize": True},
    }


def _padded(mix: Mix, names: list[str]) -> dict[str, float]:
    """The mix's own sources in their order, then the other models with no weight."""
    own = dict(mix.sources)
    return own | {name: 0.0 for name in names if name not in own}


def _slice(sources: Mapping[str, float], models: Mapping[str, str], first: int, last: int) -> Config:
    return {
        "sources": [
            {**_weighted(models[name], weight), "layer_range": [first, last]} for name, weight in sources.items()
        ]
    }


def _weighted(model: str, weight: float) -> Config:
    return {"model": model, "parameters": {"weight": weight}}
