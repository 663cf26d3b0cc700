"""What changes the edition of a benchmark, so that its scores are computed anew, and what does not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness import versions
from harness.evaluation import editions
from harness.evaluation.editions import built_edition, edition, engine_digest
from harness.evaluation.embedded import TASKS
from harness.evaluation.grid import Grid, Settings
from harness.profiles import Profile, load_profile


@pytest.fixture
def profile(tiny_profile: Path, tmp_path: Path) -> Profile:
    """The tiny profile with experts and tasks of its own, which a test may change."""
    for name in ("base", "math", "language"):
        (tmp_path / name).mkdir()
        for file in (tiny_profile.parent / name).iterdir():
            if not file.name.endswith(".safetensors"):
                shutil.copy(file, tmp_path / name)
    shutil.copytree(TASKS, tmp_path / "tasks")
    text = tiny_profile.read_text("utf-8").replace('tasks = "embedded"', 'tasks = "tasks"')
    (tmp_path / "own.toml").write_text(text, "utf-8")
    return load_profile(str(tmp_path / "own.toml"))


def of(profile: Profile, **changes: object) -> tuple[str | None, str | None]:
    """The edition, and the digest of what answers requests."""
    settings = Settings(**{"profile": profile, "device": "cpu", "dtype": "float32"} | changes)
    return edition(settings, "mmlu"), engine_digest(settings)


def test_an_edition_is_the_same_every_time(profile):
    assert of(profile) == of(profile)
    assert of(profile)[0] != edition(Settings(profile, "cpu", "float32"), "flores")
    assert None not in of(profile)


@pytest.mark.parametrize(
    "changes",
    [{"threads": 3}, {"workers": 4}, {"memory": 10**9}, {"device": "cpu:0"}],
    ids=lambda change: next(iter(change)),
)
def test_how_a_run_is_spread_changes_nothing(profile, changes):
    assert of(profile, **changes) == of(profile)


@pytest.mark.parametrize(
    ("changes", "engine"),
    [({"limit": 8}, False), ({"dtype": "bfloat16"}, False), ({"device": "cuda"}, True)],
    ids=["limit", "dtype", "device"],
)
def test_what_is_evaluated_and_where_changes_it(profile, changes, engine):
    (old, before), (new, after) = of(profile), of(profile, **changes)
    assert new != old
    assert (after != before) is engine


def test_the_profile_counts_as_far_as_it_decides_scores(profile):
    before = of(profile)
    assert of(profile.model_copy(update={"title": "another", "name": "other"})) == before
    assert of(profile.model_copy(update={"experts": {**profile.experts, "more": "math"}})) == before
    changed, engine = of(profile.model_copy(update={"batch_size": 7}))
    assert changed != before[0]
    assert engine != before[1]
    spec = profile.benchmarks["mmlu"]
    for update, same in (
        ({"margin": 0.2}, True),
        ({"columns": (*spec.columns, *profile.benchmarks["mbpp"].columns)}, False),
    ):
        other = profile.model_copy(
            update={"benchmarks": {**profile.benchmarks, "mmlu": spec.model_copy(update=update)}}
        )
        assert (of(other)[0] == before[0]) is same
        assert of(other)[1] == before[1]


@pytest.mark.parametrize(
    ("file", "engine"),
    [
        ("tasks/mmlu.yaml", False),
        ("tasks/data/mmlu.jsonl", False),
        ("tasks/utils.py", False),
        ("base/tokenizer.json", True),
        ("base/tokenizer_config.json", True),
        ("base/config.json", True),
        ("base/generation_config.json", True),
    ],
)
def test_a_changed_file_changes_it(profile, file, engine):
    path = profile.folder / file
    old, before = of(profile)
    path.write_bytes(path.read_bytes() + b"\n")
    new, after = of(profile)
    assert new != old
    assert (after != before) is engine
    path.write_bytes(path.read_bytes()[:-1])
    assert of(profile) == (old, before)


def test_files_that_decide_nothing_change_nothing(profile):
    before = of(profile)
    (profile.folder / "tasks" / "__pycache__").mkdir(exist_ok=True)
    (profile.folder / "tasks" / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"x")
    (profile.folder / "tasks" / ".DS_Store").write_bytes(b"x")
    (profile.folder / "base" / "README.md").write_text("a model", "utf-8")
    (profile.folder / "math" / "tokenizer.json").write_text("{}", "utf-8")  # the base's tokenizer is used
    assert of(profile) == before


def test_a_new_task_file_changes_it(profile):
    before, engine = of(profile)
    (profile.folder / "tasks" / "more.yaml").write_text("task: more\n", "utf-8")
    assert of(profile)[0] != before
    assert of(profile)[1] == engine


def test_the_versions_of_the_libraries_count(profile, monkeypatch):
    before = of(profile)
    versions.version_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(versions, "version", lambda name: "9.9")
        after = of(profile)
    versions.version_of.cache_clear()
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_stock_tasks_are_known_by_their_prompts_once_they_are_built(tiny_profile, tmp_path):
    from dataclasses import replace

    profile = load_profile(str(tiny_profile))
    stock = Settings(profile.model_copy(update={"tasks": ""}), "cpu", "float32", limit=3)
    assert edition(stock, "mmlu") is None
    columns = Grid(Settings(profile, "cpu", "float32", limit=3), tmp_path)._built("mmlu")
    before = built_edition(stock, columns)
    assert built_edition(stock, columns) == before
    (column,) = columns
    for other in (
        replace(column, documents=column.documents[1:]),
        replace(column, fingerprint={**column.fingerprint, "prompts": "other"}),
        replace(column, spec=column.spec.model_copy(update={"metric": "acc_norm"})),
    ):
        assert built_edition(stock, [other]) != before
    assert built_edition(replace(stock, limit=4), columns) != before
    assert built_edition(replace(stock, dtype="bfloat16"), columns) != before


def test_answers_are_known_by_all_code_that_makes_them() -> None:
    folder = Path(editions.__file__).parent
    imported = re.compile(r"from harness\.evaluation\.(\w+) import")
    found = {
        f"{name}.py" for module in editions._ENGINE for name in imported.findall((folder / module).read_text("utf-8"))
    }
    assert {"trees.py", "sharing.py"} < found <= set(editions._ENGINE)
