from __future__ import annotations

import numpy as np
import pytest

from harness.gating.seeds import hierarchical


def test_one_run_gives_the_interval_of_its_documents():
    run = [1.0] * 60 + [0.0] * 100 + [-1.0] * 40
    low, high = hierarchical([run])
    half = 1.96 * np.std(run) / np.sqrt(len(run))
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.012)


def test_runs_that_disagree_widen_it_and_runs_that_agree_narrow_it():
    better, worse = [1.0] * 40 + [0.0] * 160, [-1.0] * 40 + [0.0] * 160
    alone = hierarchical([better])
    agreeing, disagreeing = hierarchical([better, better, better]), hierarchical([better, worse, better])
    assert agreeing[1] - agreeing[0] < alone[1] - alone[0] < disagreeing[1] - disagreeing[0]
    assert disagreeing[0] < 0 < agreeing[0]


def test_runs_weigh_the_same_whatever_their_number_of_documents():
    low, high = hierarchical([[1.0] * 500, [0.0] * 10], confidence=0.5)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.01)


def test_it_is_the_same_again_and_constant_data_have_no_width():
    assert hierarchical([[0.5, -0.5, 1.0]]) == hierarchical([[0.5, -0.5, 1.0]])
    assert hierarchical([[0.25] * 8, [0.25] * 4]) == (0.25, 0.25)


@pytest.mark.parametrize("runs", [[], [[]], [[1.0], []]])
def test_nothing_to_draw_from_is_an_error(runs):
    with pytest.raises(ValueError, match="at least one run, and documents in every run"):
        hierarchical(runs)
