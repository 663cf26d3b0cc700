"""The Markdown of the report as HTML: the few forms that the report is written in, all else as text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from harness.reporting.content import MARKS
from harness.reporting.results import CaseResult, RunResult

if TYPE_CHECKING:
    from markupsafe import Markup

_INLINE = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)")
_FIGURE = re.compile(r"!\[([^\]]*)\]\(figures/([^)]+)\.svg\)")
_FOLD = re.compile(r"<details><summary>(.*)</summary>")


@dataclass(frozen=True)
class Section:
    """A heading of the second level, an id for links to it, and the Markdown below it."""

    title: str
    text: str

    @property
    def slug(self) -> str:
        """Letters, digits and dashes."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def split(text: str, level: str = "## ") -> tuple[str, list[Section]]:
    """What stands before the first heading of a level, and the sections below those headings."""
    before, *parts = f"\n{text}".split(f"\n{level}")
    return before.strip("\n"), [Section(*(half.strip("\n") for half in part.partition("\n")[::2])) for part in parts]


def layer_map(drawing: str) -> Markup:
    """A plan's drawing as coloured cells with letters: embeddings, layers, norm and head."""
    from markupsafe import Markup

    groups = drawing.split("|")
    spoken = ", then ".join(" ".join(MARKS.get(mark, f"expert {mark}") for mark in group) for group in groups)
    cells = [
        Markup('<span class="group">{}</span>').format(Markup("").join(chip(mark) for mark in group))
        for group in groups
    ]
    return Markup('<span class="layers" role="img" aria-label="{}">{}</span>').format(spoken, Markup("").join(cells))


def chip(mark: str) -> Markup:
    """One cell of a layer map."""
    from markupsafe import Markup

    kind = mark if mark in "LMTB" else "star" if mark == "*" else "other"
    return Markup('<i class="mark mark-{}">{}</i>').format(kind, mark)


@dataclass(frozen=True)
class Reader:
    """Reads the Markdown of ``run``. ``link`` gives the address of a case's documents on a column, or nothing.

    ``figures`` maps names to SVG; a figure that is not in it is left out.
    """

    run: RunResult
    link: Callable[[str, str], str]
    figures: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _drawings(self) -> frozenset[str]:
        return frozenset(case.drawing for case in self.run.cases)

    @cached_property
    def _cases(self) -> Mapping[str, CaseResult]:
        return {case.case_id: case for case in reversed(self.run.cases)}

    @cached_property
    def _marks(self) -> frozenset[str]:
        return frozenset("".join(self._drawings)) - {"|"}

    def blocks(self, text: str, family: str = "", facts: bool = False) -> Markup:
        """Paragraphs, lists, tables and folded parts. In a table of ``family`` cases go by their short names.

        ``facts`` tables have a name and a value in every row, the head as well.
        """
        from markupsafe import Markup

        found = Markup("")
        folds = 0
        for kind, group in groupby(text.split("\n"), _kind):
            lines = list(group)
            if kind == "table":
                found += self._facts(lines) if facts else self._table(lines, family)
            elif kind == "list":
                items = (Markup("<li>{}</li>\n").format(self.inline(line[2:])) for line in lines)
                found += Markup('<ul class="prose">\n{}</ul>\n').format(Markup("").join(items))
            elif kind == "text":
                found += Markup('<p class="prose">{}</p>\n').format(self.inline(" ".join(lines)))
            for line in lines:
                if kind == "figure":
                    found += self._figure(line)
                elif kind == "fold":
                    title = _FOLD.sub(r"\1", line)
                    found += Markup("<details>\n<summary>{}</summary>\n").format(title)
                    folds += 1
                elif kind == "end" and folds:
                    found += Markup("</details>\n")
                    folds -= 1
        return found + Markup("</details>\n") * folds

    def inline(self, text: str) -> Markup:
        """Code in backticks, bold and emphasis in asterisks; letters and drawings of layer maps are drawn."""
        from markupsafe import Markup

        return Markup("").join(self._marked(part) for part in _INLINE.split(text))

    def _marked(self, part: str) -> Markup:
        from markupsafe import Markup, escape

        if not _INLINE.fullmatch(part):
            return escape(part)
        if part[0] == "`":
            code = part[1:-1]
            if code in self._drawings:
                return layer_map(code)
            return chip(code) if code in self._marks else Markup("<code>{}</code>").format(code)
        if part[:2] == "**":
            return Markup("<strong>{}</strong>").format(part[2:-2])
        return Markup("<em>{}</em>").format(part[1:-1])

    def _figure(self, line: str) -> Markup:
        """As a ``data:`` address: in an ``img`` its ids cannot clash with another's and nothing in it runs."""
        from markupsafe import Markup

        alt, name = _FIGURE.sub(r"\1", line), _FIGURE.sub(r"\2", line)
        if name not in self.figures:
            return Markup("")
        data = base64.b64encode(self.figures[name].encode()).decode("ascii")
        return Markup(
            '<figure>\n<img src="data:image/svg+xml;base64,{}" alt="{}" decoding="async">\n</figure>\n'
        ).format(data, alt)

    def _facts(self, lines: Sequence[str]) -> Markup:
        from markupsafe import Markup

        rows = [cells for i, cells in enumerate(map(_cells, lines)) if i != 1]
        shown = [Markup("<div><dt>{}</dt><dd>{}</dd></div>\n").format(row[0], self.inline(row[1])) for row in rows]
        return Markup('<dl class="facts">\n{}</dl>\n').format(Markup("").join(shown))

    def _table(self, lines: Sequence[str], family: str) -> Markup:
        from markupsafe import Markup

        head, _, *rows = (_cells(line) for line in lines)
        heads = [Markup('<th scope="col"><button type="button">{}</button></th>\n').format(cell) for cell in head]
        return Markup(
            '<div class="scroll narrow" role="region" aria-label="Table: {}" tabindex="0">\n'
            '<table class="plain sortable">\n<thead><tr>\n{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n'
        ).format(", ".join(head), Markup("").join(heads), Markup("").join(self._row(row, family) for row in rows))

    def _row(self, cells: Sequence[str], family: str) -> Markup:
        from markupsafe import Markup

        prefix = f"{family}/" if family else ""
        case = next((found for cell in cells[:2] if (found := self._cases.get(prefix + cell))), None)
        shown = [self.inline(cell) for cell in cells]
        for i, cell in enumerate(cells):
            if case and cell in self.run.columns and (address := self.link(case.case_id, cell)):
                title = f"Documents of {case.case_id} against the method"
                shown[i] = Markup('<a href="{}" title="{}">{}</a>').format(address, title, cell)
        attributes = Markup("")
        if case:
            attributes = Markup(' data-id="{}" data-case="{}"').format(case.case_id, f"{case.case_id} {case.title}")
        tail = Markup("").join(Markup("<td>{}</td>\n").format(cell) for cell in shown[1:])
        return Markup('<tr{}>\n<th scope="row">{}</th>\n{}</tr>\n').format(attributes, shown[0], tail)


def _kind(line: str) -> str:
    if not line:
        return ""
    if line.startswith("|"):
        return "table"
    if line.startswith("- "):
        return "list"
    if _FIGURE.fullmatch(line):
        return "figure"
    if _FOLD.fullmatch(line):
        return "fold"
    return "end" if line == "</details>" else "text"


def _cells(line: str) -> list[str]:
    """The cells of a line of a table, without the escapes of :func:`harness.reporting.tables.markdown`."""
    return [cell.strip(" ").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
