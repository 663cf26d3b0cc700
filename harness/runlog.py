"""What the processes of one run leave for its report: a record a case and benchmark, and facts about the run."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.cache import Cache, key_of
from harness.errors import LayerswapError
from harness.evaluation.cells import CellReader
from harness.evaluation.grid import Grid
from harness.evaluation.scores import Score
from harness.files import replace_text
from harness.gating.corpus import compare_corpus
from harness.identity import Digested
from harness.merging.ranges import write_all
from harness.places import origin
from harness.plan import slot_names
from harness.profiles import Profile
from harness.reporting.results import (
    CaseResult,
    CorpusContrast,
    ParameterChange,
    RunResult,
    case_from_dict,
    case_to_dict,
)
from harness.versions import versions_of

COMPARATORS = {
    "base": "method/base",
    "math expert": "method/math",
    "language expert": "method/language",
    "base outside, math's middle": "revert/base-outer",
    "soup": "method/soup",
    "TIES": "method/ties-50",
    "task arithmetic": "method/task-arithmetic",
}
PACKAGES = ("pytest-layerswap", "torch", "transformers", "lm-eval", "safetensors", "sacrebleu", "pytest")


def write_record(folder: Path, result: CaseResult) -> None:
    """Adds one item's result to this process's records; a process may write the same one again.

    Raises :class:`LayerswapError` if it cannot be written: then nothing of it is there.
    """
    path = folder / "records" / f"{os.getpid()}.jsonl"
    line = json.dumps(case_to_dict(result)).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                write_all(file, memoryview(line))
            except OSError:
                file.truncate(before)  # or the next record would go on in the middle of this one's line
                raise
    except OSError as error:
        raise LayerswapError(f"the result cannot be noted in {str(path)!r}: {error.strerror or error}") from error


def write_facts(folder: Path, grid: Grid, cache: Cache | None = None, interrupted: bool = False) -> None:
    """Adds what this process knows of the run: digests and changes of its experts, editions, and seconds by stage.

    ``interrupted``: nothing is computed for it. The import of torch may be what the interrupt met, and cannot be begun
    again in the same process.
    """
    loading, started = grid.seconds.get("load experts", 0.0), time.monotonic()
    if interrupted:
        found = kept_changes(grid.digests, grid.settings.device, cache) or ()
    else:
        found = parameter_changes(grid, cache)
    moved = [asdict(change) for change in found]
    loading = grid.seconds.get("load experts", 0.0) - loading  # of a base that no case had needed
    seconds = {**grid.seconds, "compare experts": time.monotonic() - started - loading}
    digests = {
        name: hashlib.sha256(json.dumps(sorted(expert.slot_digests.items())).encode()).hexdigest()
        for name, expert in grid.digests.items()
    }
    profile = grid.settings.profile
    origins = {name: origin(profile.experts[name], profile.expert_path(name)) for name in grid.digests}
    facts: dict[str, Any] = {"experts": digests, "origins": origins, "seconds": seconds, "changes": moved}
    room = grid.variants.room
    facts |= {"editions": dict(grid.editions), "work": grid.work, "memory": room.text if room else ""}
    text = json.dumps(facts)
    replace_text(folder / "facts" / f"{os.getpid()}.json", text)


def parameter_changes(grid: Grid, cache: Cache | None = None) -> tuple[ParameterChange, ...]:
    """How far each expert that ``grid`` has loaded moved from the base.

    Looked up in ``cache`` by the digests of base and expert; if one is not there, weights are compared, and the base is
    loaded if need be. Sums of floats depend in their last bits on the device and the number of threads: what was
    found first is kept. Empty if no expert but the base is loaded, or if they do not fit the base.
    """
    try:
        if any(name != "base" for name in grid.digests):
            grid.variants.know(["base"])  # which no plan may have named; its weights may not be needed
        known = kept_changes(grid.digests, grid.settings.device, cache)
        if known is not None:
            return known
        from harness.merging.analysis import changes
        from harness.reporting.changes import as_parameter_changes

        grid.load((*grid.digests, "base"))
    except LayerswapError:  # a table beside the results: what no case needed must not fail the run
        return ()
    rows = as_parameter_changes(changes({n: grid.experts[n] for n in grid.digests}, device=grid.settings.home))
    if cache is not None:
        for name in dict.fromkeys(row.expert for row in rows):
            mine = [{**vars(row), "expert": ""} for row in rows if row.expert == name]
            cache.add_document("changes", _changes_key(grid.digests, name, grid.settings.device), json.dumps(mine))
    return rows


def kept_changes(
    experts: Mapping[str, Digested], device: str, cache: Cache | None
) -> tuple[ParameterChange, ...] | None:
    """The rows of all ``experts`` but the base, from ``cache``; None if those of one are not there."""
    others = [name for name in experts if name != "base"]
    if not others:
        return ()
    if cache is None or "base" not in experts:
        return None
    texts = [(name, cache.document("changes", _changes_key(experts, name, device))) for name in others]
    if any(text is None for _, text in texts):
        return None
    return tuple(ParameterChange(**{**row, "expert": name}) for name, text in texts for row in json.loads(text or ""))


def _changes_key(experts: Mapping[str, Digested], name: str, device: str) -> str:
    digests = [[experts[n].config_digest, sorted(experts[n].slot_digests.items())] for n in ("base", name)]
    return key_of([digests, device], "torch")


def _joined(facts: Iterable[Mapping[str, Any]], experts: Iterable[str]) -> tuple[ParameterChange, ...]:
    """The changes that all processes saw, by expert in the order of ``experts``, then by slot and kind of module."""
    rows = [ParameterChange(**data) for fact in facts for data in fact["changes"]]
    found = {(row.expert, row.slot, row.kind): row for row in rows}
    slots = slot_names(len({row.slot for row in rows if row.slot.startswith("layers.")}))
    kinds = dict.fromkeys(row.kind for row in rows)  # as the base's modules come, in every process
    keys = itertools.product(experts, slots, kinds)
    return tuple(found[key] for key in keys if key in found)


def _read(folder: Path) -> list[Any]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def _records(folder: Path) -> list[Any]:
    """Every line of every process's records; one that a killed process left unfinished is no record."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.split("\n")[:-1]]


def cases(folder: Path, order: Iterable[str]) -> tuple[CaseResult, ...]:
    """Every case of the run in ``order`` (of case ids), its columns joined from all benchmarks."""
    joined: dict[str, CaseResult] = {}
    for data in _records(folder / "records"):
        new = case_from_dict(data)
        old = joined.get(new.case_id)
        columns = dict(old.columns) if old else {}
        for name, column in new.columns.items():
            # The method is recorded by every item, without a verdict; its own items' verdicts stay.
            if name not in columns or columns[name].verdict is None:
                columns[name] = column
        joined[new.case_id] = replace(
            new,
            columns=columns,
            merge_seconds=max(new.merge_seconds, old.merge_seconds if old else 0.0),
            peak_bytes=max(new.peak_bytes, old.peak_bytes if old else 0),
        )
    rank = {case_id: i for i, case_id in enumerate(order)}
    return tuple(sorted(joined.values(), key=lambda c: (rank.get(c.case_id, -1), c.case_id)))


def run_result(folder: Path, name: str, profile: Profile, header: Mapping[str, str], order: Iterable[str]) -> RunResult:
    """The whole run, from what its processes left in ``folder``."""
    found = cases(folder, order)
    facts = _read(folder / "facts")
    seconds: dict[str, float] = {}
    for fact in facts:
        for stage, value in fact["seconds"].items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    digests = {expert: digest for fact in facts for expert, digest in fact["experts"].items()}
    sources = {f"source of {k}": f"`{v}`" for fact in facts for k, v in fact.get("origins", {}).items() if v}
    present = {c.case_id for c in found}
    named = {column for c in found for column in c.columns}
    return RunResult(
        name=name,
        profile=profile.title or profile.name,
        columns=tuple(column for column in profile.columns if column in named),
        reference="method/layer-swap",
        cases=tuple(replace(c, columns={k: c.columns[k] for k in profile.columns if k in c.columns}) for c in found),
        comparators={label: case_id for label, case_id in COMPARATORS.items() if case_id in present},
        experts={expert: digests[expert] for expert in profile.experts if expert in digests},
        versions=versions_of(PACKAGES),
        header=header,
        provenance={**sources, "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC", **_shared_work(facts)},
        seconds=seconds,
        changes=_joined(facts, profile.experts),
        averages={name: columns for name, columns in profile.averages.items() if name in named},
    )


def _shared_work(facts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """How much of the evaluating was done once for several variants, and how a GPU's memory was divided.

    Nothing if all came from the store.
    """
    facts = list(facts)
    made, asked = (sum(fact["work"][name] for fact in facts) for name in ("layer calls", "layer calls unshared"))
    shared = {"layer calls": f"{made:,} made, {asked:,} without sharing"} if asked else {}
    rooms = dict.fromkeys(fact["memory"] for fact in facts if fact.get("memory"))
    return shared | ({"device memory": " · ".join(rooms)} if rooms else {})


def scores(folder: Path, result: RunResult, profile: Profile, cells: CellReader) -> dict[str, dict[str, Score]]:
    """Per-document scores by case and column, of everything that the run shows."""
    found: dict[str, dict[str, Score]] = {}
    editions = {name: edition for fact in _read(folder / "facts") for name, edition in fact["editions"].items()}
    for case in result.cases:
        for benchmark in profile.benchmarks:
            cell = cells.read(editions[benchmark], benchmark, case.identity) if benchmark in editions else None
            for score in cell.scores if cell else ():
                if score.column in case.columns:
                    found.setdefault(case.case_id, {})[score.column] = score
    return found


def held_or_recorded(result: RunResult, scores: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, Score]]:
    """Those of ``scores`` that were held to a floor or recorded: not a reference that is only shown."""
    verdicts = {case.case_id: {name: c.verdict for name, c in case.columns.items()} for case in result.cases}
    found = {
        case: {name: score for name, score in columns.items() if verdicts[case][name] is not None}
        for case, columns in scores.items()
    }
    return {case: columns for case, columns in found.items() if columns}


def corpus_contrasts(
    result: RunResult, scores: Mapping[str, Mapping[str, Score]], cache: Cache | None = None
) -> tuple[CorpusContrast, ...]:
    """The method against every comparator on the metrics of whole corpora, from the answers of both."""
    found = []
    for column, method in scores.get(result.reference, {}).items():
        for label, case_id in result.comparators.items():
            other = scores.get(case_id, {}).get(column)
            if method.corpus and other is not None and other.documents == method.documents:
                found += [CorpusContrast(column, label, c) for c in compare_corpus(method, other, cache=cache)]
    return tuple(found)


def provenance(result: RunResult) -> dict[str, str]:
    """Where the scores of a run came from, for whoever reads them later."""
    weights = {f"weights of {name}": digest[:16] for name, digest in result.experts.items()}
    return {"device": result.header["device"], **weights, **result.versions}
