"""Random forests of calls whose truth is known: every row must lead to exactly its tree."""

import pytest

from deepflow.trace import assemble, forest
from tests.trace.world import BEGIN_US, Program, World, random_forest, shape, shop


def check(world: World, every: int = 1) -> None:
    rows = world.shuffled()
    assert rows
    for row in rows[::every]:
        assert shape(assemble(rows, row.id)) == world.tree_of(row.id), f"from row {row.id}"
    found = {trace.root.row.id: shape(trace) for trace in forest(rows)}
    roots = {world.root(row.id) for row in rows}
    assert found == {root: world.tree_of(root) for root in roots}


@pytest.mark.parametrize("seed", range(80))
def test_every_row_leads_to_its_true_tree(seed: int) -> None:
    check(random_forest(seed))


@pytest.mark.parametrize("seed", range(3))
def test_fifty_concurrent_requests_are_fifty_trees(seed: int) -> None:
    world = shop(seed)
    check(world, every=10)
    trees = forest(world.shuffled())
    assert [len(tree.spans) for tree in trees] == [14] * 50
    assert not any(span.outside_parent for tree in trees for span in tree.spans)


def test_a_program_that_was_not_seen_cuts_the_tree_and_nothing_is_guessed() -> None:
    world = World(1)
    front, hidden, back = Program("front", 1, 80), Program("hidden", 2, 81, seen=False), Program("back", 3, 82)
    entry = world.call(Program("load", 9, 0), front, BEGIN_US, BEGIN_US + 1000)
    inner = world.call(front, hidden, entry.start, entry.end, entry)
    world.call(hidden, back, inner.start, inner.end, inner)
    trees = [shape(tree) for tree in forest(world.shuffled())]
    assert trees == [{1: None, 2: 1, 3: 2}, {4: None}]
