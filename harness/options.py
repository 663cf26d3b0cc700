"""The ``--ablation-*`` options, each with an ini twin ``ablation_*``: read and checked before any long work."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from harness.devices import check_name
from harness.errors import LayerswapError
from harness.execution import Cluster, backend, cluster
from harness.files import expanded

if TYPE_CHECKING:
    from harness.gating.baselines import Baselines
    from harness.profiles import Profile

VALUES = (
    ("profile", "NAME|PATH", "embedded", "experts and benchmarks: a shipped profile's name, or a TOML file"),
    ("data", "FOLDER", "", "the benchmarks' files in their published formats (default: the profile's, else the hub)"),
    ("limit", "N", "", "documents of each task, a seeded sample (default: all)"),
    ("device", "DEVICE", "", "where models run, as torch names it (default: the profile's)"),
    ("dtype", "DTYPE", "", "float32, bfloat16, float16 or auto (default: the profile's)"),
    ("baseline", "NAME|PATH", "", "accepted results to hold cases to, or 'none' (default: the profile's, if recorded)"),
    ("missing", "fail|warn|record", "", "a case without accepted result (default: fail under CI, elsewhere warn)"),
    ("save-baseline", "NAME|PATH", "", "accept this run's results under a name, instead of holding them to a floor"),
    ("report", "FOLDER", "reports", "where the report goes, or 'none'"),
    ("cache", "FOLDER", "", "where answers and scores are kept from run to run (default: the user's cache folder)"),
    ("memory", "SIZE", "2GB", "bytes for computed slots and hidden states that variants share"),
    ("backend", "shared|hf|vllm", "shared", "what answers: the shared engine, or lm-eval's own class on each variant"),
    ("backend-args", "NAME=VALUE,...", "", "what that class is given beside, such as max_model_len=4096"),
    ("disk", "SIZE", "100GB", "bytes that checkpoints written for a backend may take at a time"),
    ("executor", "local|ray", "local", "who computes: this machine's processes, or the workers of a Ray cluster"),
    ("ray-address", "auto|ray://...", "", "a running Ray cluster (default: a cluster of this machine, for this run)"),
    ("ray-workers", "N", "", "workers of the cluster at most (default: as many as it has room for)"),
)
EXPERT = "another place of one of the profile's experts: a folder, a GGUF file or a hub id; may be given again"
SWITCHES = (
    ("update", "accept what the selected cases score, in the accepted results in use, and print old and new"),
    ("force", "let results be accepted although CI is set"),
    ("no-cache", "use no answer or score of earlier runs, and keep none"),
    ("refresh", "use no answer or score of earlier runs, but keep this run's"),
    ("strict", "fail a floor that too few documents could decide"),
    ("unsafe-code", "run generated programs (mbpp) without a sandbox where there is none, instead of skipping them"),
)
Missing = Literal["fail", "warn", "record"]


@dataclass(frozen=True)
class Options:
    """What a session was asked for, checked.

    ``accept_into`` is the file that this run's results go to, or None: all of them if ``accept_all``, in which case
    no floor is asserted, or else those of cases without accepted result. ``reports`` is None for no report, ``store``
    for nothing kept from run to run. ``memory`` and ``disk`` are in bytes. ``cluster`` is None unless Ray computes.
    ``beside`` names experts that were given a place and are none of the profile's.
    """

    profile: Profile
    limit: int | None
    device: str
    dtype: str
    baselines: Baselines
    missing: Missing
    accept_into: Path | None
    accept_all: bool
    updating: bool
    reports: Path | None
    strict: bool
    store: Path | None
    refresh: bool
    memory: int
    unsafe_code: bool
    backend: str
    backend_args: tuple[tuple[str, Any], ...]
    disk: int
    cluster: Cluster | None
    beside: tuple[str, ...] = ()


_OPTIONS = pytest.StashKey[Options]()


def add_options(parser: pytest.Parser) -> None:
    """Adds every option and its ini twin."""
    group = parser.getgroup("ablation", "ablations of layer-swapped models")
    for name, metavar, default, text in VALUES:
        group.addoption(f"--ablation-{name}", metavar=metavar, default=None, help=text)
        parser.addini(_key(name), text, default=default)
    group.addoption("--ablation-expert", metavar="NAME=PLACE", action="append", default=None, help=EXPERT)
    parser.addini(_key("expert"), EXPERT, type="linelist", default=[])
    for name, text in SWITCHES:
        group.addoption(f"--ablation-{name}", action="store_true", default=None, help=text)
        parser.addini(_key(name), text, type="bool", default=False)


def given(config: pytest.Config, reproducing: bool = False) -> list[str]:
    """The valued options of the command line as they would be typed again; ``reproducing``: those that make a score."""
    # Who computes a score makes no difference to it.
    others = ("missing", "save-baseline", "report", "cache", "memory", "disk", "executor", "ray-address", "ray-workers")
    written = others if reproducing else ()
    values = [(name, config.getoption(_key(name))) for name, *_ in VALUES if name not in written]
    values += [("expert", place) for place in config.getoption(_key("expert")) or ()]
    return [f"--ablation-{name} {shlex.quote(value)}" for name, value in values if value]


def read_options(config: pytest.Config) -> Options:
    """Every option, checked once a session; a mistake ends the session with one sentence."""
    if _OPTIONS not in config.stash:
        try:
            config.stash[_OPTIONS] = _read(config)
        except LayerswapError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_OPTIONS]


def failed(error: LayerswapError) -> BaseException:
    """What an item ends with for an error of a user's, to be raised ``from None``: its sentence alone, once."""
    return pytest.fail.Exception(str(error), pytrace=False)


def under_ci(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``CI`` is set, as the hosts of continuous integration do."""
    return environment.get("CI", "").lower() not in ("", "0", "false", "no")


def _read(config: pytest.Config) -> Options:
    from harness.profiles import load_profile, parse_experts

    places = parse_experts(config.getoption(_key("expert")) or config.getini(_key("expert")))
    here = config.invocation_params.dir
    named = load_profile(_value(config, "profile"))
    profile = named.changed(places, _value(config, "data"), here)
    if profile.tasks in ("embedded", "small") and _value(config, "data"):
        raise LayerswapError(
            f"--ablation-data: the tasks of profile {profile.name} bring their own files and would read none of yours: "
            "leave it out, or give another --ablation-profile, such as template"
        )
    limit = _value(config, "limit")
    if limit and not (limit.isdecimal() and int(limit) > 0):
        raise LayerswapError(f"--ablation-limit is {limit!r}: expected a whole number of documents, 1 or more")
    dtype = _value(config, "dtype")
    if dtype and dtype not in ("float32", "bfloat16", "float16", "auto"):
        raise LayerswapError(f"--ablation-dtype is {dtype!r}: expected float32, bfloat16, float16 or auto")
    device = _value(config, "device") or profile.device
    check_name(device)
    baselines = _baselines(config, profile)
    missing = _missing(config, bool(baselines.scores))
    save, updating = _value(config, "save-baseline"), _switch(config, "update")
    into = _accept_into(config, profile, save, updating, missing)
    if limit and into:
        option = "save-baseline" if save else "update" if updating else "missing=record"
        raise LayerswapError(f"--ablation-{option} with --ablation-limit would accept results on a part only")
    reports = _value(config, "report")
    answering = backend(_value(config, "backend"), _value(config, "backend-args"))
    executor, address, workers = (_value(config, name) for name in ("executor", "ray-address", "ray-workers"))
    return Options(
        profile=profile,
        limit=int(limit) if limit else None,
        device=device,
        dtype=dtype or profile.dtype,
        baselines=baselines,
        missing=missing,
        accept_into=into,
        accept_all=bool(save or updating),
        updating=updating,
        reports=None if reports == "none" else config.rootpath / reports,
        strict=_switch(config, "strict"),
        store=_store(config),
        refresh=_switch(config, "refresh"),
        memory=_bytes(_value(config, "memory")),
        unsafe_code=_switch(config, "unsafe-code"),
        backend=answering[0],
        backend_args=answering[1],
        disk=_bytes(_value(config, "disk"), "disk"),
        cluster=cluster(executor, address, workers, bool(getattr(config.option, "numprocesses", None))),
        beside=tuple(name for name in places if name not in named.experts),
    )


def _accept_into(config: pytest.Config, profile: Profile, save: str, updating: bool, missing: Missing) -> Path | None:
    if save and updating:
        raise LayerswapError("--ablation-update and --ablation-save-baseline both accept results: give one of them")
    if save:
        return _path(config, save)
    if not updating and missing != "record":
        return None
    option = "--ablation-update" if updating else "--ablation-missing=record"
    name = _value(config, "baseline")
    if name == "none":
        raise LayerswapError(f"{option} with --ablation-baseline=none: there are no accepted results to write to")
    if under_ci() and not _switch(config, "force"):
        raise LayerswapError(
            f"{option} while CI is set would accept whatever this machine scores, unseen: "
            "accept results where their diff is reviewed, or add --ablation-force"
        )
    return _path(config, name or profile.name)


def _missing(config: pytest.Config, accepted: bool) -> Missing:
    value = _value(config, "missing")
    if not value:
        return "fail" if accepted and under_ci() else "warn"
    for known in ("fail", "warn", "record"):
        if value == known:
            return known
    raise LayerswapError(f"--ablation-missing is {value!r}: expected fail, warn or record")


def _baselines(config: pytest.Config, profile: Profile) -> Baselines:
    from harness.gating.baselines import Baselines, load_baselines

    name = _value(config, "baseline")
    if name == "none":
        return Baselines(Path())
    creating = _switch(config, "update") or _value(config, "missing") == "record"
    return load_baselines(_path(config, name or profile.name), missing_ok=not name or creating)


def _path(config: pytest.Config, name: str) -> Path:
    path = Path(name)
    if path.suffix == ".json" or path.parent != Path():
        return config.invocation_params.dir / path
    return config.rootpath / "ablations" / "baselines" / f"{name}.json"


def _store(config: pytest.Config) -> Path | None:
    from harness.evaluation.responses import FILE_NAME, default_path

    if _switch(config, "no-cache"):
        if _switch(config, "refresh"):
            raise LayerswapError(
                "--ablation-no-cache keeps nothing and --ablation-refresh replaces it: give one of them"
            )
        return None
    folder = _value(config, "cache")
    return config.invocation_params.dir / expanded(folder) / FILE_NAME if folder else default_path()


def _bytes(text: str, option: str = "memory") -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", text.strip().lower())
    size = 0 if found is None else int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))
    if size == 0:
        raise LayerswapError(f"--ablation-{option} is {text!r}: expected a size such as 500MB or 2GB")
    return size


def _key(name: str) -> str:
    return f"ablation_{name.replace('-', '_')}"


def _value(config: pytest.Config, name: str) -> str:
    value = config.getoption(_key(name))
    return str(value if value is not None else config.getini(_key(name)))


def _switch(config: pytest.Config, name: str) -> bool:
    return bool(config.getoption(_key(name)) or config.getini(_key(name)))
