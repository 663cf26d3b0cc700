"""The pytest plugin: options, fixtures and hooks, each a few lines that call the rest of the package.

It loads in every pytest run of its environment, so it imports nothing heavy and stays silent until an item that
uses the ``ablation`` fixture has been collected.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import LayerswapError, one_line, refused
from harness.files import replace_text
from harness.options import add_options, failed, given, read_options
from harness.progress import Progress, Tally, TaskView, write_line
from harness.stopping import TERMINATED, stopping_well

if TYPE_CHECKING:
    from harness.evaluation.responses import Store
    from harness.experts import LoadedExpert
    from harness.suite import Ablation, Context


@dataclass
class State:
    """What the plugin knows during one session of one process; ``asked``: recipe and benchmark of selected items.

    ``closing`` undoes at the end what the session has set up; ``terminated`` says whether SIGTERM has come.
    """

    folder: Path
    closing: ExitStack = field(default_factory=ExitStack)
    terminated: Event = field(default_factory=Event)
    tally: Tally = field(default_factory=Tally)
    context: Context | None = None
    lines: list[str] = field(default_factory=list)
    asked: list[tuple[Any, str]] = field(default_factory=list)


_STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ablation-*`` options, each with an ini twin ``ablation_*``."""
    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and a folder that all processes of the run share."""
    config.addinivalue_line("markers", "ablation: an item that merges and evaluates a model (added by the plugin)")
    shared = getattr(config, "workerinput", {}).get("layerswap_folder")
    config.stash[_STATE] = State(Path(shared) if shared else Path())
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not shared:
        progress = Progress(config.stash[_STATE].tally, reporter, quiet=config.option.verbose != 0)
        config.pluginmanager.register(progress, "layerswap-progress")
    if given(config) and not shared:
        read_options(config)


def _is_ablation(item: pytest.Item) -> bool:
    return "ablation" in getattr(item, "fixturenames", ())


def _names(item: Any) -> tuple[str, str]:
    """Family and case of an item: ``test_transition[removed-mgsm]`` is (transition, removed)."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    identifier = item.callspec.id if hasattr(item, "callspec") else item.name
    benchmark = params.get("benchmark_name")
    family = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", "-")
    return family, identifier.removesuffix(f"-{benchmark}") if benchmark else identifier


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
    state.tally.expect(names)
    params = [item.callspec.params for item in items if hasattr(item, "callspec")]
    state.asked = [(p["recipe"], p["benchmark_name"]) for p in params if {"recipe", "benchmark_name"} <= set(p)]
    if hasattr(session.config, "workerinput"):
        worker = session.config.workerinput["workerid"]
        replace_text(state.folder / "items" / f"{worker}.json", json.dumps(names))
    elif items and not session.config.option.collectonly:
        read_options(session.config)
        _folder(session.config)


def pytest_report_collectionfinish(config: pytest.Config, start_path: Path) -> list[str]:
    """One line about the run, once it is known that there are ablations in it."""
    if not config.stash[_STATE].tally.total or config.option.collectonly or hasattr(config, "workerinput"):
        return []
    options = read_options(config)
    documents = f"{options.limit} documents a task" if options.limit else "all documents"
    accepted = len(options.baselines.scores)
    known = f"{accepted} accepted cases" if accepted else "no accepted results"
    beside = f", beside its experts {', '.join(options.beside)}" if options.beside else ""  # a slip of the pen, perhaps
    run = f"{options.device}, {options.dtype}, {documents}, {known}"
    return [f"ablations: profile {options.profile.name}{beside}, {run}"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: gives the worker the folder that the run shares."""
    node.workerinput["layerswap_folder"] = str(_folder(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """xdist: the controller itself collects nothing, so a worker has noted which cases there are."""
    state = node.config.stash[_STATE]
    if not state.tally.total:
        path = state.folder / "items" / f"{node.gateway.id}.json"
        state.tally.expect([(family, case) for family, case in json.loads(path.read_text(encoding="utf-8"))])
        reporter = node.config.pluginmanager.get_plugin("terminalreporter")
        for line in pytest_report_collectionfinish(node.config, Path()):
            write_line(reporter, line)


def _folder(config: pytest.Config) -> Path:
    state = config.stash[_STATE]
    if state.folder == Path():
        state.folder = Path(tempfile.mkdtemp(prefix="layerswap-"))
        state.closing.callback(shutil.rmtree, state.folder, ignore_errors=True)
        state.terminated = state.closing.enter_context(stopping_well())
        atexit.register(state.closing.close)  # a second Ctrl-C may keep pytest from coming to its end
    return state.folder


@pytest.fixture(scope="session")
def ablation_context(request: pytest.FixtureRequest) -> Iterator[Context]:
    """Experts, grid and baselines of the session, shared by every ablation."""
    config = request.config
    state = config.stash[_STATE]
    if state.context is None:
        try:
            state.context = _context(config, state)
        except LayerswapError as error:  # of a config that cannot be read, as soon as the depth is asked for
            raise failed(error) from None
    yield state.context
    from harness.runlog import write_facts

    grid = state.context.grid
    try:
        write_facts(state.folder, grid, grid.store, request.session.exitstatus == pytest.ExitCode.INTERRUPTED)
    except OSError as error:
        state.lines.append(f"ERROR: what the report says of the run cannot be kept in {str(state.folder)!r}: {error}")
    state.lines += grid.store.messages
    grid.store.close()  # the end of the run opens it again


def _context(config: pytest.Config, state: State) -> Context:
    from harness.devices import choose
    from harness.evaluation.cluster import fill_with_view, place_here
    from harness.evaluation.pairs import PairGrid
    from harness.evaluation.variants import Settings
    from harness.runlog import write_record
    from harness.suite import Context, expect

    # The hub is asked for nothing that a profile does not name; this also spares the libraries' own look-ups.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Progress bars would be printed below a broken floor, as what the failed item wrote.
    os.environ.setdefault("TQDM_DISABLE", "1")
    options = read_options(config)
    if "PYTEST_XDIST_WORKER" in os.environ:
        choose(os.environ["PYTEST_XDIST_WORKER"], options.device, os.environ)
    folder = _folder(config)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None
    settings = Settings(
        options.profile,
        options.device,
        options.dtype,
        options.limit,
        threads,
        workers,
        options.memory,
        options.unsafe_code,
        options.backend,
        options.backend_args,
        options.disk,
    )
    if options.cluster is not None:
        settings = replace(settings, place=place_here(settings.device))
    grid = PairGrid(settings, folder, _open_store(config, state))
    expect(grid, state.asked)
    if options.cluster is not None:
        capture = config.pluginmanager.get_plugin("capturemanager")
        try:  # shown meanwhile, and not as what the first item wrote
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                fill_with_view(grid, options.cluster, TaskView(config.pluginmanager.get_plugin("terminalreporter")))
        except LayerswapError as error:  # each item would wait for the cluster again
            grid.store.close()
            pytest.exit(f"ERROR: {error}", returncode=pytest.ExitCode.INTERNAL_ERROR)
    return Context(
        grid=grid,
        cache=grid.store,
        baselines=options.baselines,
        recording=options.accept_all,
        missing=options.missing,
        strict=options.strict,
        record=lambda result: write_record(folder, result),
        command="",
    )


def _open_store(config: pytest.Config, state: State) -> Store:
    """The store that outlives the run if there is to be one and it can be written, else one of the run's own."""
    from harness.evaluation.responses import Store

    options, folder = read_options(config), _folder(config)
    if options.store is not None:
        store = Store(options.store, refresh=options.refresh, run=folder.name)
        if not store.messages:
            return store
        state.lines += store.messages
        store.close()
    return Store(folder / "responses.sqlite", run=folder.name)


@pytest.fixture(scope="session")
def experts(ablation_context: Context) -> Mapping[str, LoadedExpert]:
    """Every expert of the profile by name, each loaded once for the session."""
    grid = ablation_context.grid
    try:
        grid.load(grid.settings.profile.experts)
    except LayerswapError as error:
        raise failed(error) from None
    return grid.experts


@pytest.fixture
def ablation(request: pytest.FixtureRequest, ablation_context: Context) -> Any:
    """Call it with a recipe; then ``.check(benchmark)`` merges, evaluates and asserts the floor."""
    from harness.suite import Ablation

    family, case = _names(request.node)
    command = " ".join(["pytest", f"'{request.node.nodeid}'", *given(request.config, reproducing=True)])
    context = replace(ablation_context, command=command)

    def make(recipe: Any) -> Ablation:
        return Ablation(context, family, case, recipe, request.node.user_properties)

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Ablations get a line a case instead of a character an item, unless ``-v`` asks for a line an item."""
    if "ablation" in getattr(report, "keywords", ()) and report.when == "call" and config.option.verbose == 0:
        return report.outcome, "", "FAILED" if report.failed else ""
    return None


# After the fixtures of an interrupted session, which note what the report needs, and whatever fails in other plugins.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Writes the report and, if asked for, accepts the results; in one process only, after all items."""
    config = session.config
    state = config.stash[_STATE]
    try:
        return (yield)
    finally:
        if not hasattr(config, "workerinput"):
            if state.folder != Path() and (state.folder / "records").is_dir():
                _finish(session, exitstatus)
            if state.terminated.is_set():
                session.exitstatus = TERMINATED


def _finish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    state = config.stash[_STATE]
    from harness.evaluation.cells import CellReader
    from harness.finish import finish

    options, tally = read_options(config), state.tally
    header = {
        "device": options.device,
        "dtype": options.dtype,
        "batch size": str(options.profile.batch_size),
        "limit": str(options.limit or "none"),
        "wall seconds": f"{time.monotonic() - tally.started:.0f}",
    }
    if tally.done < tally.total:
        header["incomplete"] = f"{tally.done} of {tally.total} items were run"
    try:
        if state.context is not None:  # what this process has read or computed, it need not read again
            store, cells = state.context.grid.store, state.context.grid.cells
        else:
            store = _open_store(config, state)
            cells = CellReader(store)
        if exitstatus == pytest.ExitCode.INTERRUPTED and options.accept_into is not None:
            options = replace(options, accept_into=None)
            state.lines.append("nothing was accepted: the run was interrupted")
        state.lines += finish(options, state.folder, tally.left, header, store, cells)
        store.close()
    except (LayerswapError, OSError) as error:
        state.lines.append(f"ERROR: {refused(error) if isinstance(error, OSError) else error}")
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    except Exception as error:  # what an import says that was interrupted before, and cannot be begun again
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            raise
        state.lines.append(f"interrupted: no report can be written any more: {one_line(error)}")
    except KeyboardInterrupt:
        state.lines.append("interrupted: the report that was being written is not there")
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says where the report is; on GitHub, marks the lines of the suite whose items failed."""
    for line in config.stash[_STATE].lines:
        terminalreporter.write_line(line)
    if os.environ.get("GITHUB_ACTIONS") == "true" and config.stash[_STATE].tally.total:
        from harness.finish import error_lines

        for line in error_lines(terminalreporter.stats.get("failed", [])):
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the shared folder."""
    state = config.stash.get(_STATE, None)
    if state is not None:
        state.closing.close()
        atexit.unregister(state.closing.close)
