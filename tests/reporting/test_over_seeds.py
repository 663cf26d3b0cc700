from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import LayerswapError
from harness.gating.baselines import Baselines, save_baselines
from harness.reporting.over_seeds import over_seeds, seeds_table
from tests.reporting.conftest import make_score

SWAP, BASE = "method/layer-swap", "method/base"


def seed(swap: float, base: float) -> Baselines:
    scores = {SWAP: {"mgsm sw": make_score("mgsm sw", swap, 1)}, BASE: {"mgsm sw": make_score("mgsm sw", base, 2)}}
    return Baselines(Path(), scores)


def test_mean_spread_and_lead_are_over_runs():
    reference, base = over_seeds([seed(0.6, 0.4), seed(0.7, 0.5), seed(0.6, 0.5)], "mgsm sw", SWAP)
    assert (reference.case, reference.lead, len(reference.values)) == (SWAP, None, 3)
    leads = [b - a for a, b in zip(reference.values, base.values, strict=True)]
    assert base.lead == pytest.approx(sum(leads) / 3)
    assert base.low < base.lead < base.high < 0
    # Wider than over documents alone: the runs themselves differ.
    assert base.low <= min(leads) + 0.05
    assert seeds_table([reference, base]).count("\n") == 3


def test_a_case_that_one_run_lacks_is_left_out_and_a_lacking_reference_is_named():
    part = Baselines(Path(), {SWAP: seed(0.6, 0.4).scores[SWAP]})
    assert [row.case for row in over_seeds([seed(0.6, 0.4), part], "mgsm sw", SWAP)] == [SWAP]
    with pytest.raises(LayerswapError, match="not every run has method/base on 'mgsm sw'"):
        over_seeds([seed(0.6, 0.4), part], "mgsm sw", BASE)
    with pytest.raises(LayerswapError, match="1 run: expected two or more"):
        over_seeds([seed(0.6, 0.4)], "mgsm sw", SWAP)


def test_the_command_reads_saved_runs(tmp_path, capsys):
    for number, run in enumerate((seed(0.6, 0.4), seed(0.7, 0.5))):
        save_baselines(tmp_path / f"{number}.json", run.scores, {})
    assert main(["seeds", str(tmp_path / "0.json"), str(tmp_path / "1.json")]) == 0
    assert BASE in capsys.readouterr().out
