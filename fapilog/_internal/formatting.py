"""
%-arguments put into the text of an event, as structlog and the standard library do it; never raising, and bounded.

The `repr()` of a collection has no bound: a few lists in one another can say more than there is memory for. So large ones are
replaced by the beginning of their plain form first. What a class of the user's own says in its `__str__` is its own affair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from fapilog._internal.forms import MAX_REPR, cut_text, is_scalar, number_text, safe_text
from fapilog._internal.plain import Plain

MAX_NODES = 1_000  # of collections that are formatted as they are
MAX_DEPTH = 32
MAX_ROOM = 8_192  # characters of those that are not
_COLLECTIONS = (dict, list, tuple, set, frozenset, deque)
_BUILT_IN = frozenset(kind.__repr__ for kind in _COLLECTIONS)


def interpolated(event: Any, args: tuple[Any, ...]) -> Any:
    """
    Return ``event % args``; what does not fit is shown beside the raw text, since a log call must not raise.

    Only a text is formatted: ``%`` of anything else is an operation of its own, which an array tries on all that is in *args*.
    """
    try:
        if not issubclass(type(event), str):
            return beside(event, args)
        args = tuple(map(_formattable, args))
        if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
            return event % args[0]
        return event % args
    except Exception:
        return beside(event, args)


def beside(event: object, args: tuple[Any, ...]) -> str:
    """Return *event* as it is with *args* behind it, each shown by itself: one without a text does not hide the others."""
    shown: list[str] = []
    room = MAX_REPR
    for arg in args:
        if room <= 0:
            shown.append(f"...[cut: {len(args)} items]")
            break
        shown.append(_argument(arg))
        room -= len(shown[-1])
    text = f"({', '.join(shown)}{',' if len(shown) == 1 else ''})"
    return f"{event if type(event) is str else _argument(event)} {cut_text(text, MAX_REPR)}"


def _argument(value: Any) -> str:
    """
    Return the text of one argument: that of its plain form, since what an object holds may have a `repr()` without bound.

    An integer too long for `repr()` keeps its digits.
    """
    if type(value) is int:
        return number_text(value)
    if is_scalar(value):
        return safe_text(value)
    plain = Plain(MAX_NODES, MAX_ROOM).guarded(value)
    return plain if type(plain) is str else safe_text(plain)


def _formattable(value: Any) -> Any:
    if not _is_collection(type(value)) or _is_small(value, 0, [MAX_NODES]):
        return value
    return Plain(MAX_NODES, MAX_ROOM).guarded(value)


def _is_collection(kind: type) -> bool:
    """Whether the `repr()` of such values is the built-in one, which shows everything in them."""
    try:
        return issubclass(kind, _COLLECTIONS) and kind.__repr__ in _BUILT_IN
    except Exception:  # a metaclass that fights back
        return False


def _is_small(value: Any, depth: int, left: list[int]) -> bool:
    kind = type(value)
    if kind not in _COLLECTIONS:  # a subclass may iterate for ever
        return False
    left[0] -= len(value) + 1
    if left[0] < 0 or depth > MAX_DEPTH:
        return False
    items = list(value.values()) if kind is dict else list(value)
    return all(_is_small(item, depth + 1, left) for item in items if _is_collection(type(item)))
