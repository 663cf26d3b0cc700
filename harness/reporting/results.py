"""A run as plain data: everything the report shows, as primitives that survive JSON and xdist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.errors import LayerswapError
from harness.files import shortened
from harness.gating.corpus import CorpusComparison
from harness.gating.floors import Verdict
from harness.gating.statistics import Comparison

SCHEMA = 2


@dataclass(frozen=True)
class ColumnResult:
    """One case on one column. ``value`` is a share of one over ``n`` documents; ``corpus`` is in usual units.

    ``graded`` is False where a document is right or wrong, True where its value may lie between.

    ``versus_method`` compares with the un-ablated method of this run, ``versus_accepted`` with the accepted result;
    either is None where there was none. ``verdict`` is None for a result that is shown but was held to no floor (the
    reference, when only another family was selected). ``seconds`` is what computing it took, in this run
    or in the earlier one that kept it.
    """

    value: float
    n: int
    metric: str
    verdict: Verdict | None
    graded: bool = False
    reason: str = ""
    corpus: Mapping[str, float] = field(default_factory=dict)
    versus_method: Comparison | None = None
    versus_accepted: Comparison | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class CaseResult:
    """One ablation: its recipe in words, its plan, the digest of the weights, and a result per column.

    ``merge_seconds`` is what building the variant took, 0 if another case had built equal weights; ``peak_bytes`` the
    most memory that the process (on a GPU: the device) held while it was evaluated, 0 if that was not measured.
    """

    family: str
    case: str
    title: str
    recipe_text: str
    drawing: str
    plan_text: str
    identity: str
    columns: Mapping[str, ColumnResult]
    merge_seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def case_id(self) -> str:
        """``family/case``: the name of the case in baselines and across families."""
        return f"{self.family}/{self.case}"


@dataclass(frozen=True)
class ParameterChange:
    """How far an expert moved from the base in one slot and kind of module (``self_attn.q_proj``, ``embed``, ...).

    ``mean_absolute`` is the mean of |expert - base| in the weights' units; ``relative`` is the Euclidean norm of the
    change over that of the base's weights, None where these are all zero.
    """

    expert: str
    slot: str
    kind: str
    parameters: int
    mean_absolute: float
    relative: float | None


@dataclass(frozen=True)
class CorpusContrast:
    """A metric of a whole corpus: the method (``comparison.value``) against the case ``label``, on one column."""

    column: str
    label: str
    comparison: CorpusComparison


@dataclass(frozen=True)
class RunResult:
    """One run. ``columns`` is the order of the tables' columns; a column's first word is its benchmark.

    ``reference`` is the case id of the un-ablated method. ``comparators`` names the cases that the method is held
    against in the report, as label to case id (base, each expert, soup). ``experts`` maps names to digests of
    their weights, ``header`` and ``provenance`` are shown as they are (above and below the tables), and ``seconds``
    are seconds by stage. ``changes`` says how far each expert moved from the base, and where;
    ``corpus`` holds the method against the comparators on metrics of whole corpora; ``averages`` names the columns of
    each column that is an average.
    """

    name: str
    profile: str
    columns: tuple[str, ...]
    reference: str
    cases: tuple[CaseResult, ...]
    comparators: Mapping[str, str] = field(default_factory=dict)
    experts: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    changes: tuple[ParameterChange, ...] = ()
    corpus: tuple[CorpusContrast, ...] = ()
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    schema: int = SCHEMA

    def case(self, case_id: str) -> CaseResult | None:
        """The case of this id, or None if the run did not have it."""
        return next((case for case in self.cases if case.case_id == case_id), None)

    @property
    def families(self) -> tuple[str, ...]:
        """Every family, in the order of its first case."""
        return tuple(dict.fromkeys(case.family for case in self.cases))

    def to_dict(self) -> dict[str, Any]:
        """Primitives only: what ``results.json`` holds."""
        data = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}
        cases = [case_to_dict(case) for case in self.cases]
        changes = [dict(vars(change)) for change in self.changes]
        lists = {"columns": list(self.columns), "cases": cases, "changes": changes}
        return {"schema": self.schema, **data, **lists, "corpus": [asdict(contrast) for contrast in self.corpus]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunResult:
        """The inverse of :meth:`to_dict`; raises :class:`LayerswapError` for another schema or damaged data."""
        if data.get("schema") != SCHEMA:
            raise LayerswapError(f"results in schema {shortened(data.get('schema'))}: this version reads {SCHEMA}")
        try:
            cases = tuple(case_from_dict(case) for case in data["cases"])
            changes = tuple(ParameterChange(**change) for change in data["changes"])
            corpus = tuple(
                CorpusContrast(**{**contrast, "comparison": CorpusComparison(**contrast["comparison"])})
                for contrast in data["corpus"]
            )
            lists = {"columns": tuple(data["columns"]), "cases": cases, "changes": changes, "corpus": corpus}
            averages = {name: tuple(columns) for name, columns in data.get("averages", {}).items()}
            run = cls(**{**data, **lists, "averages": averages})
            _check(cls, data)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise LayerswapError(f"damaged results: {shortened(error, 300)}") from error
        unknown = set(run.columns).difference(run.averages, *(case.columns for case in cases))
        if unknown:
            raise LayerswapError(f"damaged results: no case has the column {shortened(sorted(unknown)[0])}")
        return run


def _check(kind: type[RunResult], data: Mapping[str, Any]) -> None:
    """Raises ValueError naming the first value that is not of its field's type."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place} is {shortened(first['input'])}: {first['msg']}") from None


def case_to_dict(case: CaseResult) -> dict[str, Any]:
    """One case as primitives."""
    columns = {}
    for name, result in case.columns.items():
        columns[name] = {
            **vars(result),
            "verdict": str(result.verdict) if result.verdict else None,
            "corpus": dict(result.corpus),
            "versus_method": dict(vars(result.versus_method)) if result.versus_method else None,
            "versus_accepted": dict(vars(result.versus_accepted)) if result.versus_accepted else None,
        }
    return {**vars(case), "columns": columns}


def case_from_dict(data: Mapping[str, Any]) -> CaseResult:
    """The inverse of :func:`case_to_dict`."""
    columns = {}
    for name, result in data["columns"].items():
        columns[name] = ColumnResult(
            **{
                **result,
                "verdict": Verdict(result["verdict"]) if result["verdict"] else None,
                "versus_method": Comparison(**result["versus_method"]) if result["versus_method"] else None,
                "versus_accepted": Comparison(**result["versus_accepted"]) if result["versus_accepted"] else None,
            }
        )
    return CaseResult(**{**data, "columns": columns})
