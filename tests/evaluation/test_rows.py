from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation import trees
from harness.evaluation.rows import Cost, draft_tree, pack
from harness.evaluation.trees import Row

# Few tokens, so that sequences begin alike often.
SEQUENCE = st.lists(st.integers(0, 2), min_size=1, max_size=9)
SEQUENCES = st.lists(SEQUENCE, min_size=1, max_size=14)
COSTS = st.builds(Cost, st.floats(0.1, 100), st.floats(0, 10), st.none() | st.floats(0, 10))
RULES = st.one_of(st.none(), COSTS)


def check(rows: list[Row], sequences: list[list[int]]) -> None:
    """Every sequence is a path from the root of one row, and every node is on one."""
    assert sorted(n for row in rows for n in row.paths) == list(range(len(sequences)))
    for row in rows:
        assert len(row) == len(row.tokens) == len(row.parents)
        for number, path in row.paths.items():
            assert [row.tokens[node] for node in path] == sequences[number]
            assert [row.parents[node] for node in path] == [-1, *path[:-1]]
            assert [row.depths[node] for node in path] == list(range(len(path)))
        assert {node for path in row.paths.values() for node in path} == set(range(len(row)))
        assert row.parents.count(-1) == 1
        assert all(parent < node for node, parent in enumerate(row.parents))


@given(SEQUENCES, RULES)
def test_every_sequence_is_a_path_of_one_row(sequences, cost):
    rows = pack(sequences, cost)
    check(rows, sequences)
    for row in rows:  # no beginning twice
        assert len({(parent, token) for parent, token in zip(row.parents, row.tokens, strict=True)}) == len(row)
        assert row.is_chain or cost is not None
        assert [
            (node, token, child) for node, after in enumerate(row.children) for token, child in after.items()
        ] == sorted(
            (parent, token, node)
            for node, (parent, token) in enumerate(zip(row.parents, row.tokens, strict=True))
            if parent >= 0
        )


@given(SEQUENCES, RULES)
def test_equal_sequences_have_one_path(sequences, cost):
    rows = pack([*sequences, *sequences], cost)
    where = {number: (i, path) for i, row in enumerate(rows) for number, path in row.paths.items()}
    assert all(where[number] == where[number + len(sequences)] for number in range(len(sequences)))


def test_branches_that_are_computed_apart_share_what_comes_before_them_with_any_number():
    stem = list(range(500))
    questions = [[*stem, 1000 + n, *range(2000, 2095)] for n in range(20)]
    whole, apart = Cost(1.0, 0.001), Cost(1.0, 0.001, 10.0)
    assert [len(row) for row in pack(questions, apart)] == [500 + 20 * 96]
    assert len(pack(questions, whole)) > 1  # as every question would be paired with all others
    (row,) = pack(questions, apart)
    assert row.parts == [(0, 500), *((500 + 96 * n, 596 + 96 * n) for n in range(20))]
    assert apart.of(500, [96] * 20) == 500 + 20 * 96 + 0.001 * (500 * 500 + 20 * 96 * 596) + 20 * 10
    assert apart.of(50, [9]) == whole.of(59)  # as a whole, where that is less
    # Other exemplars after the same instruction: what comes after it would be one branch.
    other = [*stem[:40], *range(3000, 3460)]
    assert len(pack([*questions, *([*other, n] for n in range(20))], apart)) == 2
    assert len(pack([[0, *range(1, 99)], [0, 300]], Cost(1.0, 1.0, 100.0))) == 2  # not for one token


def test_a_row_takes_no_more_than_may_be_read_of_it_but_all_drafts_of_a_prompt():
    stem = list(range(500))
    questions = [[*stem, 1000 + n, *range(2000, 2095)] for n in range(7)]
    cost = Cost(1.0, 0.001, 10.0)
    rows = pack(questions, cost, read=[10] * 7, most=25)
    assert [sorted(row.paths) for row in rows] == [[0, 1], [2, 3], [4, 5], [6]]
    drafts = [[*question, 3000 + n] for question in questions for n in range(3)]
    rows = pack(drafts, cost, joined=[596] * 21, read=[10] * 21, most=5)
    assert [len(row.paths) for row in rows] == [3] * 7


@given(SEQUENCES, COSTS)
def test_sharing_is_never_dearer_than_a_row_for_each_sequence(sequences, cost):
    alone = sum(cost.of(len(sequence)) for sequence in {tuple(s) for s in sequences})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "PART", 1)
        shapes = [[end - start for start, end in row.parts] for row in pack(sequences, cost)]
    assert sum(cost.of(shape[0], shape[1:]) for shape in shapes) <= alone * (1 + 1e-9)


@given(SEQUENCES, st.integers(1, 12))
def test_rows_that_branch_are_no_longer_than_allowed(sequences, longest):
    for row in pack(sequences, Cost(1.0), longest):
        assert row.is_chain or len(row) <= max(longest, *(len(path) for path in row.paths.values()))


@given(
    st.lists(st.tuples(SEQUENCE, st.lists(SEQUENCE, min_size=1, max_size=4)), min_size=1, max_size=5),
    st.builds(Cost, st.just(1.0), st.sampled_from([0.0, 1e6])),
    st.integers(1, 9),
)
def test_the_drafts_of_a_prompt_stay_in_one_row_at_any_cost(groups, cost, longest):
    sequences = [[*prompt, *draft] for prompt, drafts in groups for draft in drafts]
    prompts = [prompt for prompt, drafts in groups for _ in drafts]
    rows = pack(sequences, cost, longest, joined=[len(prompt) for prompt in prompts])
    check(rows, sequences)
    place = {number: i for i, row in enumerate(rows) for number in row.paths}
    of: dict[tuple[int, ...], set[int]] = {}
    for number, prompt in enumerate(prompts):
        of.setdefault(tuple(prompt), set()).add(place[number])
    assert all(len(found) == 1 for found in of.values())


def test_what_lies_between_two_drafts_of_a_prompt_goes_with_them():
    # In the order of their tokens, the second prompt's draft comes between the first's two.
    sequences = [[1, 2, 3, 4], [1, 2, 5, 6, 7, 8], [1, 2, 9]]
    assert len(pack(sequences, Cost(1.0, 1e6), joined=[2, 5, 2])) == 1
    assert len(pack(sequences[:2], Cost(1.0, 1e6), joined=[2, 5])) == 2


def test_examples():
    (row,) = pack([[1, 2, 3], [1, 2, 4], [1, 2]], Cost(1.0))
    assert (row.tokens, row.parents, row.depths) == ((1, 2, 3, 4), (-1, 0, 1, 1), (0, 1, 2, 2))
    assert row.paths == {2: (0, 1), 0: (0, 1, 2), 1: (0, 1, 3)}
    assert [len(row) for row in pack([[1, 2, 3], [1, 2, 4], [1, 2]])] == [3, 3]
    assert len(pack([[1, 2], [3, 2]], Cost(1.0))) == 2  # nothing in common
    # Two words in common of two hundred: a row of its own is cheaper than attention to all that another one holds.
    assert len(pack([[0, *range(1, 200)], [0, 300]], Cost(0.0, 1.0))) == 2
    assert pack([], Cost(1.0)) == []
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        pack([[1], []])


@given(SEQUENCE, st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=5))
@settings(max_examples=50)
def test_a_draft_tree_has_each_draft_once_or_the_prompt_alone(prompt, drafts):
    tree = draft_tree(prompt, drafts)
    assert len(tree) == len(set(tree)) >= 1
    assert {sequence[len(prompt) :] for sequence in tree} == ({tuple(d) for d in drafts if d} or {()})
    assert all(list(sequence[: len(prompt)]) == prompt for sequence in tree)
