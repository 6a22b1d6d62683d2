"""Which cells of a product of set-ups and endings are run: few by `make test`, all pairs by `make matrix`, all by `make soak`."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Cell = tuple[Any, ...]


def pairs_of(cell: Cell) -> set[tuple[Any, ...]]:
    """Return each two values of *cell*, with their columns."""
    return set(combinations(enumerate(cell), 2))


def covering(cells: Iterable[Cell], first: Collection[Cell]) -> list[Cell]:
    """Return some of *cells* that have, together with the *first* ones, every two values that go together in any."""
    cells = list(cells)
    missing = set().union(*map(pairs_of, cells)) - set().union(*map(pairs_of, first))
    chosen = []
    while missing:
        best = max(cells, key=lambda cell: len(pairs_of(cell) & missing))
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen


def marked(
    cells: Iterable[Cell],
    representative: Collection[Cell],
    name: Callable[[Cell], str] = lambda cell: "-".join(map(str, cell)),
) -> list[Any]:
    """Return *cells* as parameters: the *representative* ones for every run, those that complete all pairs for `make matrix`."""
    cells = list(cells)
    pairs = covering(cells, representative)
    marks = {cell: pytest.mark.matrix if cell in pairs else pytest.mark.soak for cell in cells if cell not in representative}
    return [pytest.param(*cell, id=name(cell), marks=marks.get(cell, ())) for cell in cells]
