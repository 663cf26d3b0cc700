from __future__ import annotations

import gc

import pytest

from harness.collecting import SELDOM, seldom_collecting


@pytest.mark.parametrize(("before", "meanwhile"), [(700, SELDOM), (2 * SELDOM, 2 * SELDOM), (0, 0)])
def test_only_the_youngest_are_looked_at_less_often_and_only_meanwhile(before: int, meanwhile: int) -> None:
    own, seen = gc.get_threshold(), list[tuple[int, int, int]]()
    gc.set_threshold(before, 7, 9)
    try:
        with pytest.raises(KeyError):
            _seen_while_failing(seen)
        assert seen == [(meanwhile, 7, 9)]
        assert gc.get_threshold() == (before, 7, 9)
    finally:
        gc.set_threshold(*own)


def _seen_while_failing(seen: list[tuple[int, int, int]]) -> None:
    with seldom_collecting():
        seen.append(gc.get_threshold())
        raise KeyError
