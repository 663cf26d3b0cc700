"""The report as one page: ``report.html`` holds its tables, figures and every answer, and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from harness.cache import Cache
from harness.gating.floors import Verdict
from harness.reporting import content
from harness.reporting.figures import shown as figure
from harness.reporting.figures import shown_family
from harness.reporting.findings import bought
from harness.reporting.markup import Reader, Section, layer_map, split
from harness.reporting.packing import pack
from harness.reporting.results import CaseResult, ColumnResult, RunResult
from harness.reporting.samples import ColumnSamples
from harness.reporting.sections import (
    averages_section,
    cases_section,
    cost_section,
    does_swapping_pay_section,
    exploratory_section,
    folded,
    method_notes_section,
    moved_section,
    pareto_section,
    provenance_section,
)
from harness.reporting.tables import (
    best_values,
    detectable_drops,
    difference,
    document_count,
    family_cases,
    family_columns,
    family_details,
    key_values,
    markdown,
    points,
    significance,
)

if TYPE_CHECKING:
    from markupsafe import Markup

BUDGET = 20_000_000
"""Characters of packed answers that a page may hold: beyond, it says where else they are."""

_TEMPLATES = Path(__file__).parent / "templates"
# Documents and figures stand between what is read and what is looked up.
READ = (does_swapping_pay_section, averages_section, pareto_section, exploratory_section)
LOOKED_UP = (moved_section, cost_section, cases_section, provenance_section)
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
    """One case in a family's table; ``twin`` names an earlier row with equal weights."""

    case: CaseResult
    is_reference: bool
    twin: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Family:
    """One family's table, and what the report says ``before`` and ``after`` it.

    ``columns`` are (name, how many documents), ``drops`` what each of them could have missed.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    drops: tuple[str, ...]
    rows: tuple[Row, ...]
    before: Markup
    after: Markup


def render_page(
    run: RunResult,
    samples: Sequence[ColumnSamples] = (),
    figures: Mapping[str, str] = _NO_FIGURES,
    *,
    budget: int = BUDGET,
    cache: Cache | None = None,
) -> str:
    """The whole page. ``figures`` maps the names of :func:`figure_names` to SVG; each stands where the report has it.

    Answers that need more than ``budget`` characters are left out with a note; packed answers may be in ``cache``. The
    same input gives the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    packed = pack(samples, cache)
    size = sum(len(column.data) for column in packed)
    shown = packed if size <= budget else ()
    style, script = _read("page.css"), _read("tables.js") + _read("documents.js")
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    reader = Reader(run, partial(_link, run, {column.column: set(column.cases) for column in shown}), figures)
    unmet = content.unmet(run)
    drawings = content.legend(run).partition("\n\n")[2]
    return environment.get_template("page.html.j2").render(
        run=run,
        reader=reader,
        layer_map=layer_map,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        verdicts=content.verdict_line(run),
        failed=any(r.verdict is Verdict.FAIL for case in run.cases for r in case.columns.values()),
        header=key_values(content.header(run)),
        unmet=[Section("Floors that were not met", markdown(unmet, content.UNMET_HEADERS))] if unmet else [],
        legend=f"{content.reading(run)}\n\n{drawings}\n\n{folded('All layer maps', figure(run, 'layers'))}",
        families=[_family(run, reader, name) for name in run.families],
        read=split("\n".join(part(run) for part in READ))[1],
        looked_up=split("\n".join([*(part(run) for part in LOOKED_UP), method_notes_section()]))[1],
        packed=shown,
        omitted=size if size > budget else 0,
    )


def _family(run: RunResult, reader: Reader, name: str) -> Family:
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
            link = reader.link(case.case_id, column)
            cells.append(_cell(result, result.value == best.get(column), arrow, link))
        twin = first.setdefault(case.identity, case.case)
        rows.append(Row(case, case.case_id == run.reference, "" if twin == case.case else twin, tuple(cells)))
    counts = tuple((column, document_count(shown, column)) for column in columns)
    found = detectable_drops(run)
    drops = tuple(points(found[column]) if column in found else "" for column in columns) if found else ()
    details = family_details(run, name)
    after = folded(f"{name}: every interval and p-value", details) if details else ""
    after = f"{after}\n\n{shown_family(run, name)}"
    return Family(name, counts, drops, tuple(rows), reader.blocks(bought(run, name)), reader.blocks(after, name))


def _link(run: RunResult, packed: Mapping[str, set[str]], case_id: str, column: str) -> str:
    """The address of the documents of a case against the reference, if the page has the answers of both.

    ``packed`` names the cases of every column whose answers the page has.
    """
    if case_id == run.reference or not {case_id, run.reference} <= packed.get(column, set()):
        return ""
    return "#documents?" + urlencode({"column": column, "b": case_id})


def _cell(result: ColumnResult, best: bool, arrow: str, link: str) -> Cell:
    against = difference(result.versus_method) if result.versus_method else ""
    return Cell(points(result.value), result.value, best, arrow, against, str(result.verdict or ""), link)


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
