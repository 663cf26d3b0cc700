"""Profiles: which experts, which benchmarks, which default swap. Read from TOML, checked before anything is loaded."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import LayerswapError, one_line
from harness.files import expanded
from harness.places import is_hub_id, is_placeholder, locate
from harness.recipes import SwapSizes
from harness.tuning.spec import TrainingSpec

SHIPPED = Path(__file__).parent / "profiles"
SHIPPED_TASKS = Path(__file__).parent / "evaluation" / "tasks"
EMBEDDED_TASKS = SHIPPED_TASKS / "embedded"
OWN_TASKS = ("embedded", "small", "real")  # folders of tasks that ship
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnSpec(_Strict):
    """One number of a table: an lm-eval task, and which of its metrics after which of its filters.

    ``scale`` divides the metric into [0, 1]; ``graded`` is true if a document's value may lie between 0 and 1.
    ``corpus`` names metrics of the whole corpus that are reported beside it. ``where`` keeps the documents in which
    that field is true, or is false after a ``not``: beside a column of the whole task it costs no evaluation. ``pair``
    names the experts it is evaluated with, if not the profile's own; columns of one ``average`` are averaged under that
    name. ``part`` keeps a third of the documents, on which a search may choose (``tuning``), or the others
    (``held-out``): see :func:`part_of`.
    """

    name: str
    task: str
    metric: str
    filter: str = "none"
    graded: bool = False
    scale: float = Field(default=1.0, gt=0)
    corpus: tuple[str, ...] = ()
    where: str = ""
    pair: str = ""
    average: str = ""
    part: Literal["", "tuning", "held-out"] = ""

    def keeps(self, document: Mapping[str, Any]) -> bool:
        """Whether the column scores ``document``. Raises :class:`LayerswapError` if that lacks the field."""
        if self.part and part_of(document) != self.part:
            return False
        if not self.where:
            return True
        negated, field = self.where.startswith("not "), self.where.removeprefix("not ")
        if field not in document:
            raise LayerswapError(
                f"column {self.name}: where = {self.where!r}, but documents of {self.task} have no field {field!r}: "
                f"they have {', '.join(document)}"
            )
        return bool(document[field]) is not negated


def part_of(document: Mapping[str, Any]) -> str:
    """``tuning`` or ``held-out``, for good: by a hash of the document, or of its number in a published benchmark.

    Languages number their documents alike, so a problem and its translations are in one part.
    """
    number = str(document.get("id", "")).rpartition("-")[2]
    text = number if number.isdigit() else json.dumps(document, sort_keys=True, default=str)
    return "held-out" if int(hashlib.sha256(f"part {text}".encode()).hexdigest(), 16) % 3 else "tuning"


class BenchmarkSpec(_Strict):
    """A benchmark: its columns, and how far a case may fall below its baseline (a share of one)."""

    margin: Share = 0.05
    columns: tuple[ColumnSpec, ...] = Field(min_length=1)

    @property
    def averages(self) -> dict[str, tuple[ColumnSpec, ...]]:
        """The columns of every average, by its name."""
        names = dict.fromkeys(column.average for column in self.columns if column.average)
        return {name: tuple(c for c in self.columns if c.average == name) for name in names}


class SwapSpec(_Strict):
    """The default recipe's sizes, in layers of an ``of``-layer model; other depths get the same fractions."""

    bottom: int = 5
    top: int = 2
    transition: tuple[int, int] = (1, 1)
    weights: tuple[float, float] = (0.5, 0.5)
    outer: Literal["average", "language", "math", "base"] = "average"
    of: int = 32


class Profile(_Strict):
    """What one run is about. ``folder`` is where its ``file`` lies: relative paths start there.

    ``training`` says how experts are tuned from the base, by name: see :mod:`harness.tuning`.
    ``tasks`` names a folder of lm-eval tasks (``embedded``, ``small`` and ``real`` ship; empty for lm-eval's own),
    ``data`` one of benchmark files in their published formats for tasks that read such. ``pairs`` are further sets of
    experts for the same recipes, by name: which expert stands in for ``language``, ``math`` or another.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    experts: dict[str, str] = Field(min_length=1)
    pairs: dict[str, dict[str, str]] = {}
    benchmarks: dict[str, BenchmarkSpec] = Field(min_length=1)
    swap: SwapSpec = SwapSpec()
    training: dict[str, TrainingSpec] = {}
    tasks: str = ""
    data: str = ""
    device: str = "cpu"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(default=64, ge=1)
    folder: Path = Path()
    file: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Profile:
        if missing := [role for role in ("base", "math", "language") if role not in self.experts]:
            raise ValueError(f"[experts] names no {' and no '.join(missing)}")
        if unknown := sorted(set(self.training) - (set(self.experts) - {"base"})):
            raise ValueError(f"[training.{unknown[0]}] is of no expert: there are {', '.join(self.experts)}")
        names = [column.name for benchmark in self.benchmarks.values() for column in benchmark.columns]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"several columns are named {', '.join(repeated)}")
        for benchmark, spec in self.benchmarks.items():
            for column in spec.columns:
                if column.name.split()[:1] != [benchmark]:
                    raise ValueError(f"column {column.name!r} of {benchmark} must begin with the benchmark's name")
                if column.pair and column.pair not in self.pairs:
                    raise ValueError(
                        f"column {column.name!r} names pair {column.pair!r}: [pairs] has {_listed(self.pairs)}"
                    )
            for name, columns in spec.averages.items():
                if name.split()[:1] != [benchmark] or name in names:
                    raise ValueError(f"average {name!r} must begin with {benchmark!r}, and be the name of no column")
                if len({(column.metric, column.graded) for column in columns}) > 1:
                    raise ValueError(f"average {name!r} is of columns with different metrics")
        for pair, others in self.pairs.items():
            if unknown := [name for name in (*others, *others.values()) if name not in self.experts or name == "base"]:
                known = _listed(name for name in self.experts if name != "base")
                raise ValueError(f"pair {pair!r} names {unknown[0]!r}: expected experts other than the base: {known}")
        return self

    @property
    def sizes(self) -> SwapSizes:
        """The default swap's sizes, for recipes that leave theirs out."""
        return SwapSizes(**self.swap.model_dump())

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column's name, in the order of the tables."""
        return tuple(
            name
            for benchmark in self.benchmarks.values()
            for name in (*(column.name for column in benchmark.columns), *benchmark.averages)
        )

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns of every average, by its name."""
        found = {
            name: columns for benchmark in self.benchmarks.values() for name, columns in benchmark.averages.items()
        }
        return {name: tuple(column.name for column in columns) for name, columns in found.items()}

    @property
    def task_folder(self) -> Path | None:
        """The folder of the profile's own task files; None if all its tasks are lm-eval's."""
        if self.tasks in OWN_TASKS:
            return SHIPPED_TASKS / self.tasks
        return self.folder / self.tasks if self.tasks else None

    @property
    def data_folder(self) -> Path | None:
        """The folder of the benchmarks' data in their published formats; None if the hub is to be asked."""
        return self.folder / expanded(self.data) if self.data else None

    def expert_path(self, name: str) -> Path:
        """The local folder of an expert: see :mod:`harness.places`.

        Raises :class:`LayerswapError` if there is none, or if the place has yet to be filled in.
        """
        place = self.experts[name]
        if is_placeholder(place):
            raise LayerswapError(
                f"profile {self.file or self.name}: experts.{name} is still a placeholder ({place}): write a folder, a "
                f"GGUF file or a hub id there, or give --ablation-expert {name}=PLACE"
            )
        try:
            return locate(place, self.folder, self.dtype)
        except LayerswapError as error:
            raise LayerswapError(f"profile {self.name}: expert {name}: {error}") from error

    def changed(self, experts: Mapping[str, str] | None = None, data: str = "", at: Path = Path()) -> Profile:
        """The profile with other places of experts, and another data folder; relative paths start at ``at``."""
        places = {name: _from(at, place) for name, place in (experts or {}).items()}
        update: dict[str, Any] = {"experts": {**self.experts, **places}}
        return self.model_copy(update=update | ({"data": str(at / expanded(data))} if data else {}))


def _from(at: Path, place: str) -> str:
    """``place`` with a path made absolute; hub ids, placeholders and models that ship stay as they are."""
    if ":" in place or is_placeholder(place) or is_hub_id(place, at):
        return place
    return str((at / expanded(place)).absolute())


def parse_experts(given: Iterable[str]) -> dict[str, str]:
    """``NAME=PLACE`` for each, by name. Raises :class:`LayerswapError` for anything else."""
    found = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not (name.strip() and equals and place.strip()):
            raise LayerswapError(f"--ablation-expert is {text!r}: expected NAME=PLACE, such as math=models/math")
        found[name.strip()] = place.strip()
    return found


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def load_profile(name_or_path: str) -> Profile:
    """The shipped profile of a name, or the one in a TOML file.

    Raises :class:`LayerswapError` naming the file, the key and what was expected.
    """
    known = shipped_profiles()
    path = known.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise LayerswapError(
            f"no profile {name_or_path!r}: it is no file, and the shipped ones are {', '.join(known)}"
            + _nearest(name_or_path, known)
        )
    try:
        data = _toml(path)
    except (ValueError, OSError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise LayerswapError(f"profile {path}: not readable as TOML: {one_line(error)}") from error
    try:
        return Profile(**{**data, "folder": path.parent, "file": path})
    except ValidationError as error:
        raise LayerswapError(f"profile {path}: {'; '.join(_problem(e) for e in error.errors())}") from error


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        keys = {k for model in (Profile, SwapSpec, BenchmarkSpec, ColumnSpec, TrainingSpec) for k in model.model_fields}
        return f"unknown key {where}" + _nearest(str(error["loc"][-1]), keys - {"folder", "file"})
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
