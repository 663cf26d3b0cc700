"""The pytest plugin: options, fixtures and hooks, each a few lines that call the rest of the package.

It loads in every pytest run of its environment, so it imports nothing heavy and stays silent until an item that
uses the ``ablation`` fixture has been collected.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import LayerswapError
from harness.files import replace_text
from harness.options import add_options, failed, given, read_options
from harness.progress import Progress, write_line
from harness.session import STATE, State, finish_session, folder_of, make_context
from harness.stopping import TERMINATED

if TYPE_CHECKING:
    from harness.experts import LoadedExpert
    from harness.suite import Ablation, Context


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--ablation-*`` options, each with an ini twin ``ablation_*``."""
    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and a folder that all processes of the run share."""
    config.addinivalue_line("markers", "ablation: an item that merges and evaluates a model (added by the plugin)")
    shared = getattr(config, "workerinput", {}).get("layerswap_folder")
    config.stash[STATE] = State(Path(shared) if shared else Path())
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not shared:
        progress = Progress(config.stash[STATE].tally, reporter, quiet=config.option.verbose != 0)
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
    state = session.config.stash[STATE]
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
        folder_of(session.config)


def pytest_report_collectionfinish(config: pytest.Config, start_path: Path) -> list[str]:
    """One line about the run, once it is known that there are ablations in it."""
    if not config.stash[STATE].tally.total or config.option.collectonly or hasattr(config, "workerinput"):
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
    node.workerinput["layerswap_folder"] = str(folder_of(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """xdist: the controller itself collects nothing, so a worker has noted which cases there are."""
    state = node.config.stash[STATE]
    if not state.tally.total:
        path = state.folder / "items" / f"{node.gateway.id}.json"
        state.tally.expect([(family, case) for family, case in json.loads(path.read_text(encoding="utf-8"))])
        reporter = node.config.pluginmanager.get_plugin("terminalreporter")
        for line in pytest_report_collectionfinish(node.config, Path()):
            write_line(reporter, line)


@pytest.fixture(scope="session")
def ablation_context(request: pytest.FixtureRequest) -> Iterator[Context]:
    """Experts, grid and baselines of the session, shared by every ablation."""
    config = request.config
    state = config.stash[STATE]
    if state.context is None:
        try:
            state.context = make_context(config, state)
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
    state = config.stash[STATE]
    try:
        return (yield)
    finally:
        if not hasattr(config, "workerinput"):
            if state.folder != Path() and (state.folder / "records").is_dir():
                finish_session(session, exitstatus)
            if state.terminated.is_set():
                session.exitstatus = TERMINATED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says where the report is; on GitHub, marks the lines of the suite whose items failed."""
    for line in config.stash[STATE].lines:
        terminalreporter.write_line(line)
    if os.environ.get("GITHUB_ACTIONS") == "true" and config.stash[STATE].tally.total:
        from harness.finish import error_lines

        for line in error_lines(terminalreporter.stats.get("failed", [])):
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the shared folder."""
    state = config.stash.get(STATE, None)
    if state is not None:
        state.closing.close()
        atexit.unregister(state.closing.close)
