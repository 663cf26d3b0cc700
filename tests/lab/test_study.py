from __future__ import annotations

import json

import pytest

from harness.cli import main
from harness.errors import LayerswapError
from harness.lab import study as module
from harness.lab.study import METHOD, MODELS, as_dict, study, table
from harness.lab.training import Architecture, new_model

SOME = {name: MODELS[name] for name in (METHOD, "math expert", "soup")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """Two seeds of experts that know nothing."""
    made = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"seed-{seed}")
        for number, name in enumerate(("base", "math", "language")):
            model = new_model(
                Architecture(hidden=16, intermediate=32, layers=4, heads=2), tokenizer, 10 * seed + number
            )
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def found(folders):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.lab.benchmarks.MGSM_KINDS", {"change": 12, "groups": 8})
        return study(folders, 5, "validation", 2, SOME, progress=lambda line: None)


def test_every_model_has_a_share_for_each_seed_and_column(found):
    assert [(r.model, r.column) for r in found] == [(m, c) for c in module.COLUMNS for m in SOME]
    assert all(len(r.seeds) == 2 and all(0 <= share <= 1 for share in r.seeds) for r in found)


def test_the_swap_is_compared_on_all_documents_of_all_seeds(found):
    for rival in found:
        if rival.model == METHOD:
            assert rival.pooled is None
            continue
        assert rival.pooled is not None
        assert rival.pooled.n == sum(c.n for c in rival.each)
        assert rival.pooled.gained == sum(c.gained for c in rival.each)
        assert rival.pooled.lost == sum(c.lost for c in rival.each)
    sizes = {r.column: r.pooled.n for r in found if r.pooled}
    assert sizes["mgsm sw"] == 80
    assert sizes["mgsm sw new"] + sizes["mgsm sw known"] == 80


def test_the_table_names_lead_p_and_seeds(found):
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(SOME)
    assert "p (Holm)" in lines[0]
    assert lines[2].split("|")[6].strip() == ""  # the swap does not lead itself
    assert lines[3].split("|")[8].count(",") == 1


def test_pooling_keeps_seeds_apart(found):
    rival = found[1]
    assert rival.pooled.difference == pytest.approx(sum(c.difference for c in rival.each) / 2)
    assert json.loads(json.dumps(as_dict(found)))[1]["pooled"]["n"] == rival.pooled.n


def test_a_folder_without_an_expert_is_named(tmp_path, folders):
    with pytest.raises(LayerswapError, match="holds no base and no math and no language: build it first"):
        study([folders[0], tmp_path], 5)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["study", str(tmp_path), "--seed", "5"]) == 2
    assert f"error: {tmp_path} holds no base" in capsys.readouterr().err
