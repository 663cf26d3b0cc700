from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.places import EMBEDDED_WEIGHTS
from harness.profiles import EMBEDDED_TASKS, load_profile, shipped_profiles
from harness.recipes import LayerSwap

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MINIMAL = """
name = "mine"
[experts]
base = "models/base"
math = "/elsewhere/math"
language = "embedded:language"
[benchmarks.mmlu]
columns = [{ name = "mmlu", task = "embedded_mmlu", metric = "acc" }]
"""


@pytest.fixture
def write(tmp_path):
    """Writes a profile, by default a correct one with a part of its text replaced."""

    def write(old: str = "", new: str = "", text: str = MINIMAL) -> Path:
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return path

    return write


def test_a_minimal_profile_has_the_defaults_of_the_paper(write):
    profile = load_profile(str(write()))
    assert (profile.sizes.bottom, profile.sizes.top, profile.sizes.transition, profile.sizes.of) == (5, 2, (1, 1), 32)
    assert (profile.device, profile.dtype, profile.columns) == ("cpu", "float32", ("mmlu",))


def test_relative_paths_start_where_the_profile_lies(write, tmp_path):
    (tmp_path / "models" / "base").mkdir(parents=True)
    profile = load_profile(str(write('name = "mine"', 'name = "mine"\ntasks = "tasks"')))
    assert profile.expert_path("base") == tmp_path / "models" / "base"
    assert profile.expert_path("language") == EMBEDDED_WEIGHTS / "language"
    assert profile.task_folder == tmp_path / "tasks"


def test_an_expert_without_a_folder_is_named(write):
    with pytest.raises(LayerswapError, match=r"profile mine: expert math: there is no folder '/elsewhere/math'"):
        load_profile(str(write())).expert_path("math")


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_shipped_profiles_load(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.benchmarks) == {"mgsm", "belebele", "flores", "mbpp", "mmlu"}


def test_the_embedded_profile_is_all_in_the_package():
    profile = load_profile("embedded")
    assert profile.task_folder == EMBEDDED_TASKS
    assert all(profile.expert_path(name).parent == EMBEDDED_WEIGHTS for name in profile.experts)
    tasks = {column.task for benchmark in profile.benchmarks.values() for column in benchmark.columns}
    assert tasks == {
        path.read_text("utf-8").partition("task: ")[2].split()[0] for path in EMBEDDED_TASKS.glob("*.yaml")
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[experts]", "[expert]", r"unknown key expert \(did you mean 'experts'\?\)"),
        ('metric = "acc"', 'metrics = "acc"', r"unknown key benchmarks.mmlu.columns.0.metrics \(did you mean 'metric'"),
        ("[experts]", "[swap]\nbotom = 3\n[experts]", r"unknown key swap.botom \(did you mean 'bottom'\?\)"),
        ("[experts]", "batch_size = 0\n[experts]", "batch_size: .*greater than or equal to 1"),
        ("[experts]", 'dtype = "float8"\n[experts]', "dtype: .*'float32'"),
        ("[benchmarks.mmlu]", "[benchmarks.mmlu]\nmargin = 5", "benchmarks.mmlu.margin: .*less than or equal to 1"),
        ('"mine"', '"../mine"', "name: .*match"),
        ('math = "/elsewhere/math"\nlanguage = "embedded:language"', "", r"\[experts\] names no math and no language"),
        ('name = "mmlu"', 'name = "knowledge"', "column 'knowledge' of mmlu must begin with the benchmark's name"),
        ("columns = [", 'columns = [{ name = "mmlu", task = "t", metric = "acc" }, ', "several columns are named mmlu"),
        ("[benchmarks.mmlu]", "[benchmarks.mmlu", "not readable as TOML"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_nearest_one(write, old, new, message):
    path = write(old, new)
    with pytest.raises(LayerswapError, match=message) as caught:
        load_profile(str(path))
    assert str(caught.value).startswith(f"profile {path}: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_shipped_profiles():
    with pytest.raises(LayerswapError, match=r"no profile 'embeded'.*embedded.*did you mean 'embedded'"):
        load_profile("embeded")


def test_places_may_be_changed_for_one_run(write, tmp_path):
    profile = load_profile(str(write()))
    places = {"math": "models/../math", "language": "org/model@v1", "base": "embedded:base", "math-lora": "<mine>"}
    changed = profile.changed(places, "files", at=tmp_path / "here")
    assert changed.experts == {**places, "math": str(tmp_path / "here" / "models" / ".." / "math")}
    assert changed.data_folder == tmp_path / "here" / "files"
    assert profile.data_folder is None
    assert profile.changed() == profile


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b-sw", "llama-3.1-8b-te", "llama-3.1-8b-bn", "llama-3.1-8b-ja", "llama-3.1-8b"]
)
def test_the_papers_profiles_are_the_papers_and_wait_for_experts(name):
    profile = load_profile(name)
    plan = LayerSwap().plan(32, profile.sizes)
    assert plan.drawing == "T|LLLLLT" + "M" * 23 + "TLL|TT"
    with pytest.raises(LayerswapError, match=rf"{name}.toml: experts.math is still a placeholder .*--ablation-expert"):
        profile.expert_path("math")


def test_a_profile_says_how_its_experts_are_tuned(write):
    text = '[training.math]\ndata = "org/problems"\nmethod = "lora"\nsamples = 30000\n[experts]'
    spec = load_profile(str(write("[experts]", text))).training["math"]
    assert (spec.data, spec.method, spec.samples, spec.epochs) == ("org/problems", "lora", 30000, 1.0)
    with pytest.raises(LayerswapError, match=r"unknown key training.math.sample \(did you mean 'samples'\?\)"):
        load_profile(str(write("[experts]", "[training.math]\nsample = 3\n[experts]")))
    with pytest.raises(LayerswapError, match=r"\[training.maths\] is of no expert: there are base, math, language"):
        load_profile(str(write("[experts]", "[training.maths]\n[experts]")))


@pytest.mark.parametrize("name", ["llama-3.1-8b-sw", "llama-3.1-8b-te", "llama-3.1-8b-bn", "llama-3.1-8b-ja"])
def test_the_papers_profiles_have_recipes_of_its_size(name):
    training = load_profile(name).training
    assert set(training) == {"math", "language"}
    assert all(30_000 <= spec.samples <= 40_000 for spec in training.values())


KEYS = ["name", "experts", "benchmarks", "swap", "tasks", "data", "device", "dtype", "batch_size", "title", "folder"]
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 99), st.floats(allow_nan=True), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["mmlu", "columns", "math", "of"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_values_are_a_profile_or_refused_by_the_files_name(values):
    sound = tomllib.loads(MINIMAL)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "mine.toml")
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in {**sound, **values}.items())
        path.write_text(text, "utf-8")
        try:
            assert load_profile(str(path)).experts.keys() >= {"base", "math", "language"}
        except LayerswapError as error:
            said = str(error)
        else:
            said = f"profile {path}: "
    assert said.startswith(f"profile {path}: ")
    assert "\n" not in said


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    return json.dumps(value) if not isinstance(value, str) else json.dumps(value).replace("\\u007f", "")
