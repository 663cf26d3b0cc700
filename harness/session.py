"""What the plugin does in one session: a folder for all processes, the context of all items, and the report at the end.

Imports nothing heavy before an item needs it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from harness.collecting import seldom_collecting
from harness.errors import LayerswapError, one_line, refused
from harness.options import read_options
from harness.progress import Tally, TaskView
from harness.stopping import stopping_well

if TYPE_CHECKING:
    from harness.evaluation.responses import Store
    from harness.suite import Context


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


STATE = pytest.StashKey[State]()


def folder_of(config: pytest.Config) -> Path:
    """The folder that all processes of the run share; made when it is first asked for."""
    state = config.stash[STATE]
    if state.folder == Path():
        state.folder = Path(tempfile.mkdtemp(prefix="layerswap-"))
        state.closing.callback(shutil.rmtree, state.folder, ignore_errors=True)
        state.terminated = state.closing.enter_context(stopping_well())
        atexit.register(state.closing.close)  # a second Ctrl-C may keep pytest from coming to its end
    return state.folder


def make_context(config: pytest.Config, state: State) -> Context:
    """What the items of this process share; with a cluster, once it has answered everything."""
    state.closing.enter_context(seldom_collecting())  # before the libraries are imported
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
    folder = folder_of(config)
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

    options, folder = read_options(config), folder_of(config)
    if options.store is not None:
        store = Store(options.store, refresh=options.refresh, run=folder.name)
        if not store.messages:
            return store
        state.lines += store.messages
        store.close()
    return Store(folder / "responses.sqlite", run=folder.name)


def finish_session(session: pytest.Session, exitstatus: int) -> None:
    """Writes the report and accepts what is to be accepted; what goes wrong is said, and ends in an exit status."""
    config = session.config
    state = config.stash[STATE]
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
