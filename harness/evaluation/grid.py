"""The grid of one run: variants times benchmarks, each cell computed once, by whichever process needs it first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness.errors import LayerswapError
from harness.evaluation.memory import peak_bytes, reset_peak
from harness.evaluation.scores import Sample, Score
from harness.files import replace_text

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.experts import LoadedExpert
    from harness.merging.assemble import Assembler
    from harness.plan import Plan
    from harness.profiles import Profile


@dataclass(frozen=True)
class Settings:
    """How a profile is evaluated in this run. ``limit`` is documents a task, None for all."""

    profile: Profile
    device: str
    dtype: str
    limit: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Cell:
    """The scores of one variant on one benchmark, and what computing them took.

    ``merge_seconds`` is 0 where the variant stood already. ``peak_bytes``: see :mod:`harness.evaluation.memory`.
    """

    identity: str
    benchmark: str
    scores: tuple[Score, ...]
    seconds: float
    merge_seconds: float = 0.0
    peak_bytes: int = 0


class Grid:
    """Evaluates plans on benchmarks. ``folder`` is shared by the processes of one run and holds what is computed.

    Variants are known by the digest of their weights, so plans that give equal weights are evaluated once.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self._experts: dict[str, LoadedExpert] = {}
        self._assembler: Assembler | None = None
        self._columns: dict[str, list[Column]] = {}
        self._cells: dict[tuple[str, str], Cell] = {}
        self._variant: tuple[str, Any] | None = None
        self.seconds: dict[str, float] = {}

    @cached_property
    def layers(self) -> int:
        """The base's depth, from its config alone: no weights are read."""
        from harness.merging.storage import read_config

        config = read_config(self.settings.profile.expert_path("base"))
        return int(config.get_text_config().num_hidden_layers)

    @property
    def experts(self) -> Mapping[str, LoadedExpert]:
        """Every expert that has been loaded so far."""
        return self._experts

    def load(self, names: Iterable[str]) -> Assembler:
        """Experts in memory, each loaded once for the session, and checked against each other."""
        names = tuple(dict.fromkeys(names))
        profile = self.settings.profile
        if unknown := [name for name in names if name not in profile.experts]:
            raise LayerswapError(
                f"profile {profile.name} has no expert {', '.join(unknown)}: it has {', '.join(profile.experts)}"
            )
        missing = [name for name in names if name not in self._experts]
        if missing or self._assembler is None:
            started = time.monotonic()
            import torch

            from harness.experts import load_expert
            from harness.merging.assemble import Assembler
            from harness.merging.preflight import preflight

            if self.settings.threads:
                torch.set_num_threads(self.settings.threads)
            paths = {name: profile.expert_path(name) for name in names}
            # An adapter has no shapes of its own to compare: it is applied to the base, which is checked.
            preflight({name: path for name, path in paths.items() if not (path / "adapter_config.json").is_file()})
            base = profile.expert_path("base")
            for name in missing:
                expert = load_expert(name, paths[name], self.settings.dtype, base_path=base)
                try:
                    expert.model.to(self.settings.device)
                except (RuntimeError, AssertionError) as error:  # unknown, not there, not built in, or full
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    raise LayerswapError(
                        f"device {self.settings.device!r} cannot hold the experts: {reason}"
                    ) from error
                self._experts[name] = expert
            self._assembler = Assembler(self._experts)
            self._add("load experts", started)
        return self._assembler

    def identity(self, plan: Plan) -> str:
        """The digest of the weights that ``plan`` gives."""
        from harness.experts import identity

        self.load(plan.experts)
        return identity(plan, self._experts, self.settings.dtype)

    def cell(self, plan: Plan, benchmark: str) -> Cell:
        """The scores of ``plan`` on ``benchmark``, computed unless a process of this run has done so."""
        key = (self.identity(plan), benchmark)
        if key not in self._cells:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{key[0]}-{benchmark}.json"
            with FileLock(f"{path}.lock"):
                if path.is_file():
                    self._cells[key] = _from_json(path.read_text(encoding="utf-8"))
                else:
                    merged = self.seconds.get("merge", 0.0)
                    model = self.model(plan)
                    merged = self.seconds.get("merge", 0.0) - merged
                    self._cells[key] = replace(self._compute(model, *key), merge_seconds=merged)
                    replace_text(path, json.dumps(asdict(self._cells[key])))
        return self._cells[key]

    def model(self, plan: Plan) -> Any:
        """The variant itself; the last one is kept, since a case's benchmarks come one after the other."""
        identity = self.identity(plan)
        if self._variant is None or self._variant[0] != identity:
            started = time.monotonic()
            self._variant = (identity, self.load(plan.experts).build(plan))
            self._add("merge", started)
        return self._variant[1]

    def afresh(self, plan: Plan, benchmark: str) -> tuple[Any, Cell]:
        """A variant of its own for ``plan`` and its scores, computed although equal weights may have some already."""
        model = self.load(plan.experts).build(plan)
        return model, self._compute(model, self.identity(plan), benchmark)

    def _compute(self, model: Any, identity: str, benchmark: str) -> Cell:
        columns = self._built(benchmark)
        started = time.monotonic()
        reset_peak(self.settings.device)
        from lm_eval.models.huggingface import HFLM

        tokenizer = self._tokenizer
        # Log-likelihoods in float32 whatever the model's dtype; no token before the prompt unless the prompt has it.
        engine = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=self.settings.profile.batch_size,
            softmax_dtype="float32",
            add_bos_token=False,
        )
        scores: list[Score] = []
        for column in columns:
            shares = (column.share(whole, score) for whole, score in zip(columns, scores, strict=False))
            scores.append(next((share for share in shares if share), None) or column.score(engine))
        self._add(f"evaluate {benchmark}", started)
        seconds = time.monotonic() - started
        return Cell(identity, benchmark, tuple(scores), seconds, peak_bytes=peak_bytes(self.settings.device))

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.settings.profile.expert_path("base"), local_files_only=True)

    def _built(self, benchmark: str) -> list[Column]:
        if benchmark not in self._columns:
            started = time.monotonic()
            from harness.evaluation.benchmarks import build_columns

            settings = self.settings
            self._columns[benchmark] = build_columns(
                settings.profile, benchmark, settings.limit, settings.profile.batch_size, settings.dtype
            )
            self._add("build prompts", started)
        return self._columns[benchmark]

    def _add(self, stage: str, started: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started


def _from_json(text: str) -> Cell:
    data = json.loads(text)
    scores = tuple(
        Score(
            **{
                **score,
                "documents": tuple(score["documents"]),
                "values": tuple(score["values"]),
                "samples": tuple(Sample(**sample) for sample in score["samples"]),
            }
        )
        for score in data["scores"]
    )
    return Cell(**{**data, "scores": scores})


def read_cell(folder: Path, identity: str, benchmark: str) -> Cell | None:
    """A cell that some process of the run has computed, or None."""
    path = folder / f"{identity}-{benchmark}.json"
    return _from_json(path.read_text(encoding="utf-8")) if path.is_file() else None
