from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation import trees
from harness.evaluation.rows import pack
from harness.evaluation.trees import BATCH, Row, batches
from tests.evaluation.test_rows import COSTS, RULES, SEQUENCES


@given(SEQUENCES, COSTS, st.integers(1, 4))
def test_every_node_sees_the_first_part_and_its_own_alone(sequences, cost, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "PART", part)
        for row in pack(sequences, cost):
            assert [node for start, end in row.parts for node in range(start, end)] == list(range(len(row)))
            assert row.is_chain == (len(row.parts) == 1)
            stem = range(row.parts[0][1])
            assert list(row.parents[: len(stem)]) == list(range(-1, len(stem) - 1))
            for start, end in row.parts[1:]:
                assert row.parents[start] == len(stem) - 1  # all of the stem, that is
                assert all(parent == len(stem) - 1 or start <= parent < end for parent in row.parents[start:end])
                branches = sum(parent == len(stem) - 1 for parent in row.parents[start:end])
                assert branches == 1 or end - start <= part


@given(SEQUENCES, RULES, st.integers(1, 5), st.integers(1, 30))
def test_batches_hold_every_row_once_and_keep_their_bounds(sequences, cost, most_rows, most_tokens):
    rows = pack(sequences, cost)
    found = list(batches(rows, most_rows, most_tokens))
    assert sorted(id(row) for batch in found for row in batch.rows) == sorted(map(id, rows))
    for batch in found:
        lengths = [len(row) for row in batch.rows]
        assert lengths == sorted(lengths, reverse=True)
        assert batch.width == lengths[0]
        assert len(batch.rows) <= most_rows
        assert len(batch.rows) == 1 or len(batch.rows) * batch.width <= most_tokens
        assert len({row.is_chain for row in batch.rows}) == 1
        assert batch.is_causal is batch.rows[0].is_chain


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 90))
def test_batches_are_the_cheapest_that_there_are(lengths, most_rows, most_tokens):
    def cost(parts: list[list[int]]) -> float:
        return sum(len(part) * max(part) + BATCH * most_tokens for part in parts)

    def splits(left: list[int]) -> Iterator[list[list[int]]]:
        if not left:
            yield []
        for count in range(1, len(left) + 1):
            if count == 1 or (count <= most_rows and count * left[0] <= most_tokens):
                for rest in splits(left[count:]):
                    yield [left[:count], *rest]

    rows = [Row(tuple(range(n)), tuple(range(-1, n - 1)), {}) for n in lengths]
    found = [[len(row) for row in batch.rows] for batch in batches(rows, most_rows, most_tokens)]
    assert cost(found) == pytest.approx(min(map(cost, splits(sorted(lengths, reverse=True)))))
