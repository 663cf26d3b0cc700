"""The pytest plugin: options, fixtures and hooks, each a few lines that call the rest of the package.

It loads in every pytest run of its environment, so it imports nothing heavy and stays silent until an item that
uses the ``ablation`` fixture has been collected.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import LayerswapError
from harness.files import replace_text

if TYPE_CHECKING:
    from harness.experts import LoadedExpert
    from harness.gating.baselines import Baselines
    from harness.profiles import Profile
    from harness.suite import Ablation, Context

_OPTIONS = (
    ("profile", "NAME|PATH", "embedded", "experts and benchmarks: a shipped profile's name, or a TOML file"),
    ("limit", "N", "", "documents of each task, a seeded sample (default: all)"),
    ("device", "DEVICE", "", "where models run, as torch names it (default: the profile's)"),
    ("dtype", "DTYPE", "", "float32, bfloat16, float16 or auto (default: the profile's)"),
    ("baseline", "NAME|PATH", "", "accepted results to hold cases to, or 'none' (default: the profile's, if recorded)"),
    ("save-baseline", "NAME|PATH", "", "accept this run's results under a name, instead of holding them to a floor"),
    ("report", "FOLDER", "reports", "where the report goes, or 'none'"),
)


@dataclass
class State:
    """What the plugin knows during one session of one process."""

    folder: Path
    owns_folder: bool
    started: float = field(default_factory=time.monotonic)
    total: int = 0
    done: int = 0
    left: dict[str, int] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)
    context: Context | None = None


_STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ablation-*`` options, each with an ini twin ``ablation_*``."""
    group = parser.getgroup("ablation", "ablations of layer-swapped models")
    for name, metavar, default, text in _OPTIONS:
        group.addoption(f"--ablation-{name}", metavar=metavar, default=None, help=text)
        parser.addini(f"ablation_{name.replace('-', '_')}", text, default=default)
    group.addoption(
        "--ablation-strict", action="store_true", default=None, help="fail a floor that too few documents could decide"
    )
    parser.addini("ablation_strict", "fail a floor that too few documents could decide", type="bool", default=False)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and a folder that all processes of the run share."""
    config.addinivalue_line("markers", "ablation: an item that merges and evaluates a model (added by the plugin)")
    shared = getattr(config, "workerinput", {}).get("layerswap_folder")
    config.stash[_STATE] = State(Path(shared) if shared else Path(), owns_folder=False)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not shared:
        config.pluginmanager.register(Progress(config, reporter), "layerswap-progress")
    explicit = [name for name, *_ in _OPTIONS if config.getoption(f"ablation_{name.replace('-', '_')}") is not None]
    if explicit and not shared:
        _checked(config)


def _option(config: pytest.Config, name: str) -> str:
    key = f"ablation_{name.replace('-', '_')}"
    given = config.getoption(key)
    return str(given if given is not None else config.getini(key))


def _checked(config: pytest.Config) -> tuple[Profile, int | None]:
    """The profile and the limit; a mistake in an option ends the session with one sentence."""
    from harness.profiles import load_profile

    try:
        profile = load_profile(_option(config, "profile"))
        _baselines(config, profile)
    except LayerswapError as error:
        raise pytest.UsageError(str(error)) from None
    limit = _option(config, "limit")
    if limit and not (limit.isdecimal() and int(limit) > 0):
        raise pytest.UsageError(f"--ablation-limit is {limit!r}: expected a whole number of documents, 1 or more")
    dtype = _option(config, "dtype")
    if dtype and dtype not in ("float32", "bfloat16", "float16", "auto"):
        raise pytest.UsageError(f"--ablation-dtype is {dtype!r}: expected float32, bfloat16, float16 or auto")
    if limit and _option(config, "save-baseline"):
        raise pytest.UsageError("--ablation-save-baseline with --ablation-limit would accept results on a part only")
    return profile, int(limit) if limit else None


def _placement(config: pytest.Config, profile: Profile) -> tuple[str, str]:
    """Device and dtype of this run: the options', or else the profile's."""
    return _option(config, "device") or profile.device, _option(config, "dtype") or profile.dtype


def _baseline_path(config: pytest.Config, name: str) -> Path:
    path = Path(name)
    if path.suffix == ".json" or path.parent != Path():
        return config.invocation_params.dir / path
    return config.rootpath / "ablations" / "baselines" / f"{name}.json"


def _baselines(config: pytest.Config, profile: Profile) -> Baselines:
    from harness.gating.baselines import Baselines, load_baselines

    name = _option(config, "baseline")
    if name == "none":
        return Baselines(Path())
    return load_baselines(_baseline_path(config, name or profile.name), missing_ok=not name)


def _is_ablation(item: pytest.Item) -> bool:
    return "ablation" in getattr(item, "fixturenames", ())


def _names(item: Any) -> tuple[str, str]:
    """Family and case of an item: ``test_transition[removed-mgsm]`` is (transition, removed)."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    identifier = item.callspec.id if hasattr(item, "callspec") else item.name
    benchmark = params.get("benchmark_name")
    family = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", "-")
    return family, identifier.removesuffix(f"-{benchmark}") if benchmark else identifier


def _names_of_id(nodeid: str) -> tuple[str, str]:
    """The same from an id alone, which is all that an xdist controller has."""
    function, _, rest = nodeid.rpartition("::")[2].partition("[")
    return function.removeprefix("test_").replace("_", "-"), rest.removesuffix("]").rpartition("-")[0]


def _count(state: State, names: list[tuple[str, str]]) -> None:
    state.total = len(names)
    for family, case in names:
        state.left[f"{family}/{case}"] = state.left.get(f"{family}/{case}", 0) + 1


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks ablations, so that ``-m ablation`` and ``-m 'not ablation'`` work."""
    if _is_ablation(item):
        item.add_marker("ablation")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes which cases were selected, and checks the options before any long work."""
    state = session.config.stash[_STATE]
    items = [item for item in session.items if _is_ablation(item)]
    names = [_names(item) for item in items]
    _count(state, names)
    if hasattr(session.config, "workerinput"):
        worker = session.config.workerinput["workerid"]
        replace_text(state.folder / "items" / f"{worker}.json", json.dumps(names))
    elif items and not session.config.option.collectonly:
        _checked(session.config)


def pytest_report_collectionfinish(config: pytest.Config, start_path: Path) -> list[str]:
    """One line about the run, once it is known that there are ablations in it."""
    if not config.stash[_STATE].total or config.option.collectonly or hasattr(config, "workerinput"):
        return []
    profile, limit = _checked(config)
    device, dtype = _placement(config, profile)
    accepted = _baselines(config, profile)
    documents = f"{limit} documents a task" if limit else "all documents"
    known = f"{len(accepted.scores)} accepted cases" if accepted.scores else "no accepted results"
    return [f"ablations: profile {profile.name}, {device}, {dtype}, {documents}, {known}"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: gives the worker the folder that the run shares."""
    node.workerinput["layerswap_folder"] = str(_folder(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """xdist: the controller itself collects nothing, so a worker has noted which cases there are."""
    state = node.config.stash[_STATE]
    if not state.total:
        path = state.folder / "items" / f"{node.gateway.id}.json"
        _count(state, [(family, case) for family, case in json.loads(path.read_text(encoding="utf-8"))])
        reporter = node.config.pluginmanager.get_plugin("terminalreporter")
        for line in pytest_report_collectionfinish(node.config, Path()):
            _write_line(reporter, line)


def _folder(config: pytest.Config) -> Path:
    state = config.stash[_STATE]
    if state.folder == Path():
        state.folder, state.owns_folder = Path(tempfile.mkdtemp(prefix="layerswap-")), True
    return state.folder


@pytest.fixture(scope="session")
def ablation_context(request: pytest.FixtureRequest) -> Iterator[Context]:
    """Experts, grid and baselines of the session, shared by every ablation."""
    config = request.config
    state = config.stash[_STATE]
    if state.context is None:
        state.context = _context(config, state)
    yield state.context
    from harness.runlog import write_facts

    write_facts(state.folder, state.context.grid)


def _context(config: pytest.Config, state: State) -> Context:
    from harness.evaluation.grid import Grid, Settings
    from harness.runlog import write_record
    from harness.suite import Context

    # The hub is asked for nothing that a profile does not name; this also spares the libraries' own look-ups.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Progress bars would be printed below a broken floor, as what the failed item wrote.
    os.environ.setdefault("TQDM_DISABLE", "1")
    profile, limit = _checked(config)
    folder = _folder(config)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    settings = Settings(
        profile,
        *_placement(config, profile),
        limit,
        max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None,
    )
    return Context(
        grid=Grid(settings, folder),
        baselines=_baselines(config, profile),
        recording=bool(_option(config, "save-baseline")),
        strict=bool(config.getoption("ablation_strict") or config.getini("ablation_strict")),
        record=lambda result: write_record(folder, result),
        command="",
    )


@pytest.fixture(scope="session")
def experts(ablation_context: Context) -> Mapping[str, LoadedExpert]:
    """Every expert of the profile by name, each loaded once for the session."""
    grid = ablation_context.grid
    grid.load(grid.settings.profile.experts)
    return grid.experts


@pytest.fixture
def ablation(request: pytest.FixtureRequest, ablation_context: Context) -> Any:
    """Call it with a recipe; then ``.check(benchmark)`` merges, evaluates and asserts the floor."""
    from dataclasses import replace

    from harness.suite import Ablation

    family, case = _names(request.node)
    options = [
        f"--ablation-{n} {v}"
        for n, *_ in _OPTIONS
        if (v := request.config.getoption(f"ablation_{n.replace('-', '_')}"))
    ]
    context = replace(ablation_context, command=" ".join(["pytest", f"'{request.node.nodeid}'", *options]))

    def make(recipe: Any) -> Ablation:
        return Ablation(context, family, case, recipe, request.node.user_properties)

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Ablations get a line a case instead of a character an item, unless ``-v`` asks for a line an item."""
    if "ablation" in getattr(report, "keywords", ()) and report.when == "call" and config.option.verbose == 0:
        return report.outcome, "", "FAILED" if report.failed else ""
    return None


class Progress:
    """Prints a line when the last item of a case is done: its values, and on a terminal the time that is left."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        self._state = config.stash[_STATE]
        self._reporter = reporter
        self._quiet = config.option.verbose != 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called in the controller for every phase of every item."""
        if "ablation" not in report.keywords or (report.when != "call" and report.passed) or report.when == "teardown":
            return
        state, properties = self._state, dict(report.user_properties)
        family, case = _names_of_id(report.nodeid)
        name = str(properties.get("ablation", f"{family}/{case}"))
        state.done += 1
        state.left[name] = state.left.get(name, 1) - 1
        state.shown.setdefault(name, []).append(_shown(report, properties))
        if state.left[name] == 0 and not self._quiet:
            _write_line(self._reporter, f"  {name:<28} {'  '.join(filter(None, state.shown[name]))}{self._time_left()}")

    def _time_left(self) -> str:
        state = self._state
        share = f"   [{state.done}/{state.total}"
        if not self._reporter.isatty or state.done == state.total:
            return share + "]"
        seconds = (time.monotonic() - state.started) / state.done * (state.total - state.done)
        return f"{share}, about {seconds // 60:.0f}:{seconds % 60:02.0f} left]"


def _write_line(reporter: Any, line: str) -> None:
    """A line of its own; under xdist the reporter does not know that its line of dots has begun."""
    if reporter is not None:
        reporter.ensure_newline()
        if reporter._tw.width_of_current_line:
            reporter.write_line("")
        reporter.write_line(line)


def _shown(report: pytest.TestReport, properties: dict[str, object]) -> str:
    """*mgsm 43.2 55.0*, with the verdict behind it if it is not a plain pass."""
    benchmark = str(properties.get("benchmark", ""))
    values = " ".join(f"{100 * v:.1f}" for k, v in properties.items() if isinstance(v, float) and k.endswith(" value"))
    verdict = str(properties.get("verdict", report.outcome.upper()))
    return f"{benchmark} {values}".strip() + ("" if verdict in ("PASS", "NEW") else f" {verdict}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the report and, if asked for, accepts the results; in one process only, after all items."""
    config = session.config
    state = config.stash[_STATE]
    if hasattr(config, "workerinput") or not (state.folder / "records").is_dir():
        return
    from harness.gating.baselines import save_baselines
    from harness.reporting.report import write_report
    from harness.reporting.samples import collect
    from harness.runlog import run_result, scores, versions

    profile, limit = _checked(config)
    device, dtype = _placement(config, profile)
    header = {"device": device, "dtype": dtype, "batch size": str(profile.batch_size), "limit": str(limit or "none")}
    name = f"{profile.name}-{datetime.now():%Y%m%d-%H%M%S}"
    header["wall seconds"] = f"{time.monotonic() - state.started:.0f}"
    result = run_result(state.folder, name, profile, header, state.left)
    lines = []
    try:
        if (reports := _option(config, "report")) != "none":
            samples = collect(scores(state.folder, result, profile, every=True), result.columns)
            lines.append(f"report: {write_report(result, config.rootpath / reports / name, samples)}")
        if baseline := _option(config, "save-baseline"):
            path = _baseline_path(config, baseline)
            accepted = scores(state.folder, result, profile)
            save_baselines(path, accepted, {"device": device, **versions()})
            lines.append(f"accepted: {len(accepted)} cases in {path}")
    except (LayerswapError, OSError) as error:
        lines.append(f"ERROR: {error}")
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    config.stash[_LINES] = lines


_LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says where the report is."""
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the shared folder."""
    state = config.stash.get(_STATE, None)
    if state is not None and state.owns_folder:
        shutil.rmtree(state.folder, ignore_errors=True)
