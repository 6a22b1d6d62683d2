"""The cells of a product that are run, see `tests.servers.cells`."""

from __future__ import annotations

from itertools import product

from tests.servers.cells import covering, marked, pairs_of

CELLS = list(product("abc", (True, False), "xyz", (1, 2)))


def test_pairs_that_are_covered() -> None:
    """Every two values that go together in a cell go together in one that is chosen, or in one that was there before."""
    first = {("a", True, "x", 1), ("b", False, "y", 2)}
    chosen = covering(CELLS, first)
    assert set().union(*map(pairs_of, [*chosen, *first])) == set().union(*map(pairs_of, CELLS))
    assert len(chosen) + len(first) <= 12


def test_cells_that_exist_in_part() -> None:
    """What goes together in no cell is not missed."""
    assert covering([("a", 1), ("b", 2)], [("a", 1)]) == [("b", 2)]


def test_the_marks() -> None:
    """A representative cell has none, one of a pair is the matrix's, and the rest the soak's; all have names."""
    found = marked(product("ab", (1, 2), (3, 4)), {("a", 1, 3)})
    kinds = {each.id: [mark.name for mark in each.marks] for each in found}
    assert kinds["a-1-3"] == []
    assert sorted(name for names in kinds.values() for name in names) == ["matrix"] * 3 + ["soak"] * 4
