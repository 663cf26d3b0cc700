"""The report as one page: ``report.html`` holds its tables, figures and every answer, and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from harness.gating.floors import Verdict
from harness.reporting import content
from harness.reporting.packing import Packed, pack
from harness.reporting.results import CaseResult, ColumnResult, RunResult
from harness.reporting.samples import ColumnSamples
from harness.reporting.tables import (
    CONTRAST_HEADERS,
    best_values,
    contrast_rows,
    contrasts,
    difference,
    document_count,
    family_cases,
    family_columns,
    points,
    significance,
)

if TYPE_CHECKING:
    from markupsafe import Markup

BUDGET = 20_000_000
"""Characters of packed answers that a page may hold: beyond, it says where else they are."""

_TEMPLATES = Path(__file__).parent / "templates"
_NO_FIGURES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Cell:
    """One case on one column, as text; ``number`` is what the column is sorted by, ``link`` opens its documents."""

    value: str
    number: float
    best: bool
    arrow: str
    difference: str
    verdict: str
    link: str


@dataclass(frozen=True)
class Row:
    """One case in a family's table. ``layers`` are groups of (letter, class): embeddings, layers, norm and head."""

    case: str
    case_id: str
    title: str
    is_reference: bool
    layers: tuple[tuple[tuple[str, str], ...], ...]
    spoken: str
    twin: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Family:
    """One family's table: ``columns`` are (name, how many documents)."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    figure: Figure | None


@dataclass(frozen=True)
class Figure:
    """A picture as a ``data:`` address; in an ``img`` its ids cannot clash with another's and nothing in it runs."""

    name: str
    title: str
    alt: str
    address: str


def render_page(
    run: RunResult,
    samples: Sequence[ColumnSamples] = (),
    figures: Mapping[str, str] = _NO_FIGURES,
    *,
    budget: int = BUDGET,
) -> str:
    """The whole page. ``figures`` maps names to SVG: ``forest-FAMILY`` stands with its family, others by themselves.

    Answers that need more than ``budget`` characters are left out with a note. The same input gives the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    packed = pack(samples)
    size = sum(len(column.data) for column in packed)
    shown = packed if size <= budget else ()
    drawn = [_figure(name, svg) for name, svg in figures.items()]
    with_family = {f"forest-{family}" for family in run.families}
    style, script = _read("page.css"), _read("page.js")
    rows = contrasts(run)
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = inline
    return environment.get_template("page.html.j2").render(
        run=run,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        verdicts=content.verdict_line(run),
        failed=any(r.verdict is Verdict.FAIL for case in run.cases for r in case.columns.values()),
        header=content.header(run),
        unmet=[(*row, _link(run, shown, row[1], row[2])) for row in content.unmet(run)],
        unmet_headers=content.UNMET_HEADERS,
        reading=content.reading(run),
        key=[(mark, _class(mark), name) for mark, name in content.marks(run).items()],
        families=[_family(run, name, shown, drawn) for name in run.families],
        contrasts=contrast_rows(rows),
        contrast_headers=CONTRAST_HEADERS,
        findings=content.findings(rows),
        figures=[figure for figure in drawn if figure.name not in with_family],
        packed=shown,
        omitted=size if size > budget else 0,
        cases=zip(run.cases, content.case_rows(run), strict=True),
        case_headers=content.CASE_HEADERS,
        cost=content.cost_rows(run) if run.seconds else [],
        provenance=content.provenance(run),
        notes=[line.removeprefix("- ") for line in content.METHOD_NOTES.splitlines()],
    )


def inline(text: str) -> Markup:
    """Code in backticks and bold in asterisks, of Markdown, as HTML; everything else is text."""
    from markupsafe import Markup, escape

    def marked(part: str) -> Markup:
        if len(part) > 2 and part[0] == part[-1] == "`":
            return Markup("<code>{}</code>").format(part[1:-1])
        if len(part) > 4 and part[:2] == part[-2:] == "**":
            return Markup("<strong>{}</strong>").format(part[2:-2])
        return escape(part)

    return Markup("").join(marked(part) for part in re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text))


def _family(run: RunResult, name: str, packed: Sequence[Packed], figures: Sequence[Figure]) -> Family:
    shown, columns = family_cases(run, name), family_columns(run, name)
    best = best_values(shown)
    arrows = significance(case for case in shown if case.case_id != run.reference)
    first: dict[str, str] = {}
    rows = []
    for case in shown:
        cells: list[Cell | None] = []
        for column in columns:
            if (result := case.columns.get(column)) is None:
                cells.append(None)
                continue
            arrow = arrows.get((case.case_id, column), "")
            link = _link(run, packed, case.case_id, column)
            cells.append(_cell(result, result.value == best.get(column), arrow, link))
        rows.append(_row(case, case.case_id == run.reference, first.setdefault(case.identity, case.case), cells))
    counts = tuple((column, document_count(shown, column)) for column in columns)
    figure = next((figure for figure in figures if figure.name == f"forest-{name}"), None)
    return Family(name, counts, tuple(rows), figure)


def _link(run: RunResult, packed: Sequence[Packed], case_id: str, column: str) -> str:
    """The address of the documents of a case against the reference, if the page has the answers of both."""
    held = next((set(found.cases) for found in packed if found.column == column), set())
    if case_id == run.reference or not {case_id, run.reference} <= held:
        return ""
    return "#documents?" + urlencode({"column": column, "b": case_id})


def _cell(result: ColumnResult, best: bool, arrow: str, link: str) -> Cell:
    against = difference(result.versus_method) if result.versus_method else ""
    return Cell(points(result.value), result.value, best, arrow, against, str(result.verdict or ""), link)


def _row(case: CaseResult, is_reference: bool, twin: str, cells: Sequence[Cell | None]) -> Row:
    groups = case.drawing.split("|")
    layers = tuple(tuple((mark, _class(mark)) for mark in group) for group in groups)
    spoken = ", then ".join(" ".join(content.MARKS.get(mark, f"expert {mark}") for mark in group) for group in groups)
    same = "" if twin == case.case else twin
    return Row(case.case, case.case_id, case.title, is_reference, layers, spoken, same, tuple(cells))


def _class(mark: str) -> str:
    return f"mark-{mark}" if mark in "LMTB" else "mark-star" if mark == "*" else "mark-other"


def _figure(name: str, svg: str) -> Figure:
    kind, _, rest = name.partition("-")
    titles = {
        "layers": ("Which layer comes from where", "The layers of every case, coloured by the model they come from."),
        "forest": (
            f"Differences in {rest}",
            f"Differences of the cases of {rest} to the un-ablated method, with 95 % "
            "intervals: the numbers of the table above.",
        ),
        "sweep": (
            f"Sweep: {rest.replace('-', ' ')}",
            f"Scores over the sweep {rest.replace('-', ' ')}, with intervals.",
        ),
        "changes": ("How far the experts moved", "Size of each expert's change from the base, by layer and module."),
        "pareto": (
            "Mathematics against language",
            "Cases by two scores; those that no other case beats in both stand out.",
        ),
    }
    title, alt = titles.get(kind, (name, f"Figure {name}."))
    return Figure(name, title, alt, "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii"))


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and nothing runs but the page's own script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
