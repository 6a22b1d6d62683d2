"""
What a collection holds, read without changing it, in bounded time, and while other threads may change it; mappings have a room of
their own (`mappings`).
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RETRIES = 3
MAX_MEMBERS = 16  # of an object that may name its value itself
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
