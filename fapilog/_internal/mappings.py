"""
The pairs of a mapping, of whatever kind it is.

Invariants:

1. No value is lost: a key that occurs several times, as in queries, forms and headers, has a pair for each of its values.
2. The mapping is not changed, and no more of it is looked at than is asked for, where that lies with us.
"""

from __future__ import annotations

import itertools
from collections import ChainMap, Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRIES = 3
_DICTS = frozenset((dict, OrderedDict, defaultdict, Counter))


def pairs_of(value: Any, limit: int) -> list[tuple[Any, Any]]:
    """
    Return the first *limit* pairs of a mapping.

    Raises:
        ValueError: Another thread changes it all the time.
        Exception: Whatever the mapping raises.
    """
    kind = type(value)
    for _ in range(RETRIES):
        try:
            if kind in _DICTS:
                # A copy is made without running any other code, so another thread may change the dict as it likes.
                return list(dict.copy(value).items()) if len(value) <= limit else list(itertools.islice(dict.items(value), limit))
            pairs = _chained(value, limit) if kind is ChainMap else _items(value, kind)
            return [(key, item) for key, item in itertools.islice(iter(pairs), limit)]
        except RuntimeError:  # it changed its size meanwhile
            continue
    raise ValueError("it never stands still")


def _items(value: Any, kind: type) -> Iterable[tuple[Any, Any]]:
    """Return all pairs, also where `items()` has one for each key only."""
    if hasattr(kind, "multi_items"):  # Starlette, httpx
        pairs: Iterable[tuple[Any, Any]] = value.multi_items()
        return pairs
    if hasattr(kind, "lists") and hasattr(kind, "getlist"):  # werkzeug, Django
        return ((key, item) for key, items in value.lists() for item in items or [items])
    return value.items()  # type: ignore[no-any-return]


def _chained(value: ChainMap[Any, Any], limit: int) -> Iterable[tuple[Any, Any]]:
    """Return the first pairs of a chain, whose own iterator would copy all of it."""
    found: dict[Any, Any] = {}
    for mapping in value.maps:
        for key, item in pairs_of(mapping, limit):
            found.setdefault(key, item)
        if len(found) >= limit:
            break
    return found.items()
