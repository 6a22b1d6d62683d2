"""
What a collection holds, read without changing it, in bounded time, and while other threads may change it.
"""

from __future__ import annotations

import itertools
from array import array
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RETRIES = 3
MAX_MEMBERS = 16  # of an object that may name its value itself
_DICTS = frozenset((dict, OrderedDict, defaultdict, Counter))
_NAMING = ("name", "key", "field", "header")


class Names:
    """Keeps the names of one object apart, in constant time for each."""

    def __init__(self) -> None:
        self._repeats: dict[str, int] = {}

    def free(self, name: str, taken: Mapping[str, Any]) -> str:
        """Return *name*, or if it is *taken*, the name with ``_`` and a count of its own."""
        free = name
        while free in taken:
            self._repeats[name] = count = self._repeats.get(name, 0) + 1
            free = f"{name}_{count if count > 1 else ''}"
        return free


def pair_name(item: Any) -> str | bytes | None:
    """Return the first member of a list or tuple of two if it may be a name."""
    if (type(item) is tuple or type(item) is list) and len(item) == 2 and isinstance(item[0], str | bytes):
        return item[0]
    return None


def named_value(pairs: Sequence[tuple[Any, Any]]) -> object:
    """Return the name in an object like ``{"name": ..., "value": ...}``, as lists of headers, cookies and variables have."""
    if not 2 <= len(pairs) <= MAX_MEMBERS:
        return None
    found = {key.lower(): item for key, item in pairs if type(key) is str}
    return next((found[name] for name in _NAMING if name in found), None) if "value" in found else None


def pairs_of(value: Any, limit: int) -> list[tuple[Any, Any]]:
    """Return the first *limit* pairs of a mapping."""
    kind = type(value)
    for _ in range(RETRIES):
        try:
            if kind in _DICTS:
                # A copy is made without running any other code, so another thread may change the dict as it likes.
                return list(dict.copy(value).items()) if len(value) <= limit else list(itertools.islice(dict.items(value), limit))
            pairs = _chained(value, limit) if kind is ChainMap else value.items()
            return [(key, item) for key, item in itertools.islice(iter(pairs), limit)]
        except RuntimeError:  # it changed its size meanwhile
            continue
    raise ValueError("it never stands still")


def _chained(value: ChainMap[Any, Any], limit: int) -> Iterable[tuple[Any, Any]]:
    """Return the first pairs of a chain, whose own iterator would copy all of it."""
    found: dict[Any, Any] = {}
    for mapping in value.maps:
        for key, item in pairs_of(mapping, limit):
            found.setdefault(key, item)
        if len(found) >= limit:
            break
    return found.items()


def items_of(value: Any, limit: int) -> list[Any]:
    """Return the first *limit* items of a collection."""
    kind = type(value)
    if kind is list or kind is tuple or issubclass(kind, array):
        return list(value[:limit])
    for _ in range(RETRIES):
        try:
            return list(itertools.islice(_iterator(value, kind), limit))
        except RuntimeError:
            continue
    raise ValueError("it never stands still")


def _iterator(value: Iterable[Any], kind: type) -> Any:
    """Return an iterator over *value*; over what a subclass of list or tuple really holds."""
    for base in (list, tuple, set, frozenset, deque):
        if issubclass(kind, base):
            return base.__iter__(value)  # type: ignore[arg-type]
    return iter(value)
