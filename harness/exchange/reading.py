"""A mergekit file as a recipe that gives the same weights: ``layerswap import``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LayerswapError
from harness.exchange.naming import TASK_VECTORS, named, places
from harness.exchange.roles import recipe_of
from harness.exchange.schema import MergekitFile, Parameters, Slice, parse_mergekit
from harness.files import expanded
from harness.plan import DEEPEST, OUTER_SLOTS, Mix, Plan, copy, layer_slot, linear
from harness.recipe_files import Request, read_table
from harness.recipes import Recipe, Slerp, Slots, Soup, TaskArithmetic, Ties

# What each method reads, beside the weights of its sources.
_USED = {
    "linear": {"weight", "normalize"},
    "passthrough": set[str](),
    "ties": {"weight", "density", "normalize", "lambda"},
    "task_arithmetic": {"weight", "normalize", "lambda"},
    "slerp": {"t"},
}


@dataclass(frozen=True)
class _Reader:
    """One file: what it says, which name each model gets, and the words that messages begin with."""

    path: Path
    file: MergekitFile
    names: Mapping[str, str]

    def refuse(self, key: str, reason: str) -> LayerswapError:
        return LayerswapError(f"{self.path}: {key} {reason}")


def read_mergekit(path: Path, names: Mapping[str, str] | None = None) -> Request:
    """The recipe, the experts and the dtype of the mergekit file at ``path``.

    ``names`` maps paths as they stand in the file to names of experts; other models are named after their folder, the
    base of task vectors ``base``. Raises :class:`LayerswapError` naming the key that a recipe cannot say.
    """
    file = parse_mergekit(read_table(path), path)
    reader = _Reader(path, file, named(path, file, names or {}))
    if bool(file.slices) == bool(file.models):
        raise reader.refuse("slices", "and models are both there, or neither: expected one of them")
    recipe = _from_slices(reader) if file.slices else _from_models(reader)
    experts = {reader.names[place]: place for place in places(file) if place in reader.names}
    return Request(recipe, experts, file.out_dtype or file.dtype or "auto")


def _values(reader: _Reader, where: str, *levels: Parameters) -> dict[str, float | bool]:
    """Parameters of a source, its slice and the file, the nearest one first; those without an effect are refused."""
    method = reader.file.merge_method
    found: dict[str, float | bool] = {}
    for level in levels:
        for name, value in level.given().items():
            if name not in _USED[method]:
                raise reader.refuse(f"{where}.{name}", f"has no effect in {method}: leave it out")
            found.setdefault(name, value)
    return found


def _from_models(reader: _Reader) -> Recipe:
    method, file = reader.file.merge_method, reader.file
    base = file.base_model
    if method == "slerp":
        return _slerp(reader)
    if method == "passthrough" and len(file.models) > 1:
        raise reader.refuse("models", f"has {len(file.models)} models: passthrough takes one")
    pairs: list[tuple[str, dict[str, float | bool]]] = []
    for i, model in enumerate(file.models):
        if method in TASK_VECTORS and model.model == base:
            continue  # mergekit takes the base from the list
        values = _values(reader, f"models[{i}].parameters", model.parameters, file.parameters)
        pairs.append((reader.names[model.model], values))
    if method in ("linear", "passthrough"):
        if method == "linear" and base is not None and base not in (model.model for model in file.models):
            raise reader.refuse("base_model", "is none of the models, and has no weight: add it to them with weight 0")
        mix = _average(reader, "models", pairs)
        return Soup(mix.sources)
    if base is None:
        raise reader.refuse("base_model", f"is not there: {method} needs one")
    if not pairs:
        raise reader.refuse("models", "has none beside the base: add one")
    return _task_vectors(reader, pairs)


def _slerp(reader: _Reader) -> Recipe:
    file = reader.file
    places = [model.model for model in file.models]
    if len(places) != 2 or file.base_model not in places:
        raise reader.refuse("models", "are not two, with base_model one of them: slerp needs that")
    if any(model.parameters.given() for model in file.models):
        raise reader.refuse("models.parameters", "is per model: slerp has one t for all")
    t = _values(reader, "parameters", file.parameters).get("t")
    if t is None:
        raise reader.refuse("parameters.t", "is not there: slerp needs it")
    other = next(place for place in places if place != file.base_model)
    return Slerp(float(t), reader.names[str(file.base_model)], reader.names[other])


def _task_vectors(reader: _Reader, pairs: Sequence[tuple[str, dict[str, float | bool]]]) -> Recipe:
    def same(name: str, otherwise: float | bool) -> float | bool:
        values = {values.get(name, otherwise) for _, values in pairs}
        if len(values) > 1:
            raise reader.refuse(f"models.parameters.{name}", "differs from model to model: a recipe has one for all")
        return values.pop()

    _distinct(reader, "models", [name for name, _ in pairs])
    weights = tuple((name, _weight(reader, "models", values)) for name, values in pairs)
    lambda_ = float(same("lambda", 1.0))
    if reader.file.merge_method == "task_arithmetic":
        if same("normalize", False):
            raise reader.refuse("parameters.normalize", "is true: task arithmetic adds task vectors up here")
        return TaskArithmetic(weights, lambda_)
    density = float(same("density", 1.0))
    return Ties(density, weights, bool(same("normalize", True)), lambda_)


def _from_slices(reader: _Reader) -> Recipe:
    file = reader.file
    if file.merge_method not in ("linear", "passthrough"):
        raise reader.refuse("slices", f"cannot be read with merge_method {file.merge_method}: only linear, passthrough")
    mixes: dict[str, Mix] = {}
    expected = 0
    for i, part in enumerate(file.slices):
        first, last = _range(reader, f"slices[{i}]", part)
        if first != expected:
            raise reader.refuse(
                f"slices[{i}].sources[0].layer_range",
                f"is [{first}, {last}]: expected to begin at {expected}, since every layer keeps its place",
            )
        mix = _slice_mix(reader, i, part)
        mixes |= {layer_slot(layer): mix for layer in range(first, last)}
        expected = last
    if not expected:
        raise reader.refuse("slices", "have no layers: expected those of a whole model")
    ends = file.slices[0], file.slices[-1]
    if len(ends[1].sources) != len(ends[0].sources):
        raise reader.refuse(
            f"slices[{len(file.slices) - 1}].sources",
            f"are {len(ends[1].sources)}, and the first slice's {len(ends[0].sources)}: mergekit fills embeddings by "
            "the first slice, norm and head by the last, and leaves models out if these have not as many",
        )
    outer = _slice_mix(reader, 0, ends[0]), _slice_mix(reader, len(file.slices) - 1, ends[1])
    mixes |= {"embed": outer[0]} | dict.fromkeys(OUTER_SLOTS[1:], outer[1])
    plan = Plan.of(expected, mixes)
    return recipe_of(plan) if _has_depth(reader, expected) else Slots(dict(plan.mixes))


def _has_depth(reader: _Reader, layers: int) -> bool:
    """Whether the models are here to have that depth; a recipe that scales with the depth is right only then."""
    from harness.merging.storage import read_depth

    local = [expanded(place) for place in places(reader.file)]
    for folder in (folder for folder in local if folder.is_dir()):
        if (depth := read_depth(folder)) != layers:
            raise reader.refuse("slices", f"end at layer {layers}, but {folder} has {depth}: a recipe keeps them all")
    return any(folder.is_dir() for folder in local)


def _range(reader: _Reader, where: str, part: Slice) -> tuple[int, int]:
    ranges = [source.layer_range for source in part.sources]
    if len(set(ranges)) > 1:
        raise reader.refuse(f"{where}.sources[1].layer_range", "is another than the first source's: expected the same")
    if not 0 <= ranges[0][0] <= ranges[0][1] <= DEEPEST:
        raise reader.refuse(f"{where}.sources[0].layer_range", f"is {list(ranges[0])}: expected a range of layers")
    return ranges[0]


def _slice_mix(reader: _Reader, index: int, part: Slice) -> Mix:
    where = f"slices[{index}].sources"
    levels = (part.parameters, reader.file.parameters)
    pairs = [
        (reader.names[source.model], _values(reader, f"{where}[{i}].parameters", source.parameters, *levels))
        for i, source in enumerate(part.sources)
    ]
    return _average(reader, where, pairs)


def _average(reader: _Reader, where: str, pairs: Sequence[tuple[str, dict[str, float | bool]]]) -> Mix:
    if reader.file.merge_method == "passthrough":
        if len(pairs) > 1:
            raise reader.refuse(where, f"has {len(pairs)} models: passthrough takes one")
        return copy(pairs[0][0])
    _distinct(reader, where, [name for name, _ in pairs])
    weights = [(name, _weight(reader, where, values)) for name, values in pairs]
    total = sum(weight for _, weight in weights)
    if total != 1.0 and not all(values.get("normalize", True) for _, values in pairs):
        raise reader.refuse("parameters.normalize", f"is false and the weights of {where} sum to {total}: expected 1")
    if total == 0:
        raise reader.refuse(f"{where}.parameters.weight", "is 0 for all models: give one a weight above 0")
    return linear(weights)


def _weight(reader: _Reader, where: str, values: Mapping[str, float | bool]) -> float:
    if "weight" not in values:
        raise reader.refuse(f"{where}.parameters.weight", "is not there: give every model one")
    if float(values["weight"]) < 0:
        raise reader.refuse(f"{where}.parameters.weight", f"is {values['weight']}: expected a number of 0 or more")
    return float(values["weight"])


def _distinct(reader: _Reader, where: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise reader.refuse(where, f"name {name} twice: add up its weights")
        seen.add(name)
