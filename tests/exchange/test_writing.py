from __future__ import annotations

import pytest
import yaml

from harness.cli import main
from harness.errors import LayerswapError
from harness.exchange.writing import mergekit_config, yaml_text
from harness.plan import Mix, Plan, copy, linear, slot_names
from harness.recipes import DareTies, LayerSwap, Slots, Soup, Ties

MODELS = {"base": "B", "math": "M", "language": "L"}


def test_a_swap_is_slices_with_ends_of_their_own():
    config = mergekit_config(LayerSwap(2, 1, (0, 1), outer="math").plan(8), MODELS)
    assert yaml.safe_load(yaml_text(config)) == config
    shown = [
        (*part["sources"][0]["layer_range"], {s["model"]: s["parameters"]["weight"] for s in part["sources"]})
        for part in config["slices"]
    ]
    assert shown == [
        (0, 0, {"M": 1.0}),
        (0, 2, {"L": 1.0}),
        (2, 6, {"M": 1.0}),
        (6, 7, {"M": 0.5, "L": 0.5}),
        (7, 8, {"L": 1.0}),
        (8, 8, {"M": 1.0}),
    ]
    assert (config["merge_method"], config["dtype"], "out_dtype" in config) == ("linear", "float32", False)


def test_both_ends_have_as_many_models():
    plan = Slots({"embed": "math", "layers.0-1": "base", "norm, head": {"language": 1, "base": 2}}).plan(2)
    first, *_, last = mergekit_config(plan, MODELS)["slices"]
    assert [s["parameters"]["weight"] for s in first["sources"]] == [1.0, 0.0, 0.0]
    assert sorted(s["model"] for s in first["sources"]) == sorted(s["model"] for s in last["sources"])


def test_a_soup_has_one_of_its_models_as_base():
    config = mergekit_config(Soup({"language": 1, "math": 2}).plan(4), MODELS, "float16")
    assert config["base_model"] == "L"
    assert config["out_dtype"] == "float16"


def of(embed: Mix, layer: Mix, norm: Mix, head: Mix) -> Plan:
    return Plan.of(1, dict(zip(slot_names(1), (embed, layer, norm, head), strict=True)))


MATH, AVERAGE = copy("math"), linear([("math", 1), ("language", 1)])
REFUSED: dict[str, tuple[Plan, str]] = {
    "masks": (DareTies().plan(2), "merge_method: .*other random masks"),
    "a threshold over the model": (Ties(trim="model").plan(2), "density: .*trims tensor by tensor"),
    "two methods": (of(MATH, Ties().plan(1)["head"], MATH, MATH), "merge_method: .*fills some by ties"),
    "norm and head": (of(MATH, MATH, MATH, copy("base")), "slices: .*final norm and head by one slice"),
    "the base as an expert": (
        Ties(weights={"base": 1, "math": 1}).plan(2),
        "base_model: 'base' is the base and an expert",
    ),
    "a model that is not there": (Soup({"math": 1, "other": 1}).plan(2), "no folder is given for the expert 'other'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_cannot_express_is_refused_by_its_key(name):
    plan, message = REFUSED[name]
    with pytest.raises(LayerswapError, match=message):
        mergekit_config(plan, MODELS)


def test_a_tied_head_cannot_differ_from_the_embeddings():
    plan = of(AVERAGE, MATH, MATH, MATH)
    mergekit_config(plan, MODELS)
    with pytest.raises(LayerswapError, match="slices: the experts' head is their embeddings"):
        mergekit_config(plan, MODELS, tied=True)


@pytest.mark.parametrize("recipe", ["layer-swap", "ties(0.2)"])
def test_the_command_prints_or_writes(recipe, tiny_profile, tmp_path, capsys):
    arguments = ["export", recipe, "--profile", str(tiny_profile)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, "--to", str(tmp_path / "deep" / "mergekit.yaml")]) == 0
    assert (tmp_path / "deep" / "mergekit.yaml").read_text("utf-8") == printed
    assert yaml.safe_load(printed)["dtype"] == "float32"


def test_an_adapter_has_to_be_merged_first(tiny_profile, tmp_path, capsys):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}", "utf-8")
    given = ["--profile", str(tiny_profile), "--expert", f"math={tmp_path / 'lora'}"]
    assert main(["export", "layer-swap", *given]) == 2
    assert "models: math is an adapter: write it merged into its base first" in capsys.readouterr().err
