from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.recipe_files import Request, read_request, request_text
from harness.recipes import LayerSwap, Soup, Ties

TEXTS = {
    "inline.toml": "recipe = \"layer-swap(bottom=2, transition=(1, 0))\"\n[experts]\nmath = 'm'\n",
    "table.toml": "experts = {math = 'm'}\n[recipe]\nkind = 'layer-swap'\nbottom = 2\ntransition = [1, 0]\n",
    "inline.yaml": "recipe: layer-swap(bottom=2, transition=(1, 0))\nexperts: {math: m}\n",
    "table.yml": "recipe: {kind: LayerSwap, bottom: 2, transition: [1, 0]}\nexperts:\n  math: m\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_has_a_recipe_and_may_name_experts(name, tmp_path):
    (tmp_path / name).write_text(TEXTS[name], "utf-8")
    expected = Request(LayerSwap(2, transition=(1, 0)), {"math": "m"}, "auto", tmp_path)
    assert read_request(str(tmp_path / name)) == expected


def test_a_request_is_written_and_read_back(tmp_path):
    (tmp_path / "models" / "math").mkdir(parents=True)
    place = str(tmp_path / "models" / "math")
    request = Request(Soup({"math": 1, "lang": 2}), {"math": place, "lang": 'org/mod"el'}, "bfloat16")
    (tmp_path / "recipe.toml").write_text(request_text(request, tmp_path), "utf-8")
    found = read_request(str(tmp_path / "recipe.toml"))
    assert (found.recipe, found.dtype) == (request.recipe, "bfloat16")
    assert dict(found.experts) == {"math": str(Path("models", "math")), "lang": 'org/mod"el'}
    assert place in request_text(request)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 'ties'\nmodels = 3", "unknown key 'models': expected recipe, experts, dtype"),
        ("recipe = 'tis'", "recipe: 'tis' is no recipe"),
        ("[recipe]\nbottom = 3", "recipe: expected a text .* or a table with a kind"),
        ("[recipe]\nkind = 'ties'\ndensty = 3", "recipe: .*unknown argument densty"),
        ("experts = {a = 'b'}", "recipe: expected a text"),
        ("recipe = 'ties'\nexperts = 'b'", "experts is 'b': expected a folder or hub id by name"),
        ("recipe = 'ties'\ndtype = 'int4'", "dtype is 'int4': expected auto, float32"),
        ("recipe = ", "recipe.toml: .*[Ii]nvalid"),
        ("merge_method = 'ties'", "is a mergekit file: 'layerswap import"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(text, message, tmp_path):
    (tmp_path / "recipe.toml").write_text(text, "utf-8")
    with pytest.raises(LayerswapError, match=message) as caught:
        read_request(str(tmp_path / "recipe.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("a: [", "recipe.yaml: "), ("- a", "expected a table"), ("", "table")])
def test_yaml_that_is_no_table_is_refused(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text, "utf-8")
    with pytest.raises(LayerswapError, match=message) as caught:
        read_request(str(tmp_path / "recipe.yaml"))
    assert "\n" not in str(caught.value)


def test_yaml_makes_no_objects(tmp_path):
    (tmp_path / "recipe.yaml").write_text("recipe: !!python/object/apply:os.getcwd []\n", "utf-8")
    with pytest.raises(LayerswapError, match="could not determine a constructor"):
        read_request(str(tmp_path / "recipe.yaml"))


def test_a_file_that_is_not_there():
    with pytest.raises(LayerswapError, match=r"nowhere\.toml: cannot be read: No such file"):
        read_request(str(Path("nowhere.toml")))


def test_a_file_may_say_lambda(tmp_path):
    (tmp_path / "recipe.yaml").write_text("recipe: {kind: ties, density: 0.2, lambda: 0.8}\n", "utf-8")
    assert read_request(str(tmp_path / "recipe.yaml")).recipe == Ties(0.2, lambda_=0.8)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
PLACES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)


@settings(max_examples=40)
@given(st.dictionaries(PLACES, PLACES, max_size=3), st.sampled_from(["auto", "bfloat16"]))
def test_whatever_experts_are_called_a_file_gives_them_back(experts, dtype):
    request = Request(LayerSwap(2), experts, dtype)
    with tempfile.TemporaryDirectory() as place:
        Path(place, "recipe.toml").write_text(request_text(request), "utf-8")
        found = read_request(str(Path(place, "recipe.toml")))
    assert (found.recipe, dict(found.experts), found.dtype) == (request.recipe, experts, dtype)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["recipe", "experts", "dtype", "kind", "other"]), VALUES, max_size=4))
def test_any_values_in_yaml_are_a_request_or_refused_by_the_files_name(values):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "recipe.yaml")
        path.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
        try:
            read_request(str(path))
            said = f"{path}: "
        except LayerswapError as error:
            said = str(error)
    assert said.startswith(f"{path}: ")
