"""
From fields to one JSON object, whatever the fields hold.

Invariants:

1. `encode_open()` never raises an `Exception`.
2. What it returns, closed by ``}``, is one strict JSON object in UTF-8 without a raw line end.
3. Its size is at most `max_bytes` plus the size of the cut marks; a value that was cut says so and names its original size.
4. The caller's objects are not changed, and what is encoded is what was checked: nested dicts and lists are copied first, and
   each copy is made in one step, so another thread may change the originals as it likes.
5. Nothing becomes text that has not been through redaction (but for the names at the top, see `pipeline`).
6. The cost is bounded: what is long, deep, wide or strange is never given to orjson whole.

orjson encodes the common values in one C call, flat ones even before this (`flat`). Records that hold anything else, or too much
of it, take the slow way (`Plain`), field by field, so that one huge field leaves the others alone.
"""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import PosixPath, WindowsPath
from typing import Any

import orjson

from fapilog._internal.flat import BRIEF, MAX_TEXT
from fapilog._internal.forms import bytes_text, cut_text, safe_text, text_of
from fapilog._internal.members import Names, named_value, pair_name
from fapilog._internal.plain import MAX_DEPTH, OPTIONS, Plain, is_safe_moment
from fapilog.redaction import Allowance, redaction

__all__ = ["MAX_DEPTH", "cut_text", "encode_open", "safe_text"]

MAX_NODES = 2_000  # of nested values, on the fast way
MAX_CHARACTERS = 65_536  # of nested texts, on the fast way
MAX_FIELDS = 1_000
MAX_ITEMS = 5_000  # on the slow way, all fields together
MIN_ITEMS, MIN_ROOM = 16, 256  # for each field, when there are very many
MAX_NAME = 256  # characters, in a line that has to be cut
MARK_SIZE = 48  # bytes, of the longest mark
MIN_SHARE = 64  # bytes of a field, when there are very many

_CHECKED = frozenset((Decimal, bytes, PosixPath, WindowsPath, timedelta, datetime))
_MARK = re.compile(r"\.\.\.\[cut: (\d+) bytes\]\Z")


class _TooMuchError(Exception):
    """The fast way is not for this value."""


def default(value: object) -> str:
    """Return the text of one of the types that orjson does not know and that need no care; its hook."""
    if type(value) is bytes:
        return bytes_text(value, MAX_TEXT)
    if type(value) in _CHECKED:
        return text_of(value)
    raise TypeError


def encode_open(record: dict[str, Any], max_bytes: int) -> bytes:
    """
    Return *record* as a JSON object without its closing brace, ready for the identity to be spliced on.

    Any thread. The bytes are a copy: orjson's own object, which holds far more memory than it shows, is let go.

    Args:
        record: The fields, in the order they shall have; not empty.
        max_bytes: The most that the object may measure.
    """
    redactor = redaction.current
    try:
        raw = b"" if redactor.rewrites else orjson.dumps(_copied(record), default, OPTIONS)
    except Exception:  # orjson refuses by several types, a user's object by any
        raw = b""
    if not raw or len(raw) > max_bytes or redactor.suspects(raw):
        return _encoded_slowly(record, max_bytes)
    return raw[:-1]


def _copied(record: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of *record* with its nested values copied and found harmless and small, or raise."""
    if len(record) > MAX_FIELDS:
        raise _TooMuchError
    copy = record.copy()
    left = [MAX_NODES, MAX_CHARACTERS]
    for name, value in record.items():
        kind = type(value)
        if kind is not str and kind not in BRIEF:
            copy[name] = _copy(value, kind, 1, left)
        elif kind is str:
            left[1] -= len(value)
            if len(value) > MAX_TEXT or left[1] < 0:
                raise _TooMuchError
    return copy


def _copy(value: Any, kind: type, depth: int, left: list[int]) -> Any:
    if kind in _CHECKED:
        left[1] -= 4 * len(value) if kind is bytes else 0
        if left[1] < 0 or (kind is datetime and not is_safe_moment(value)):
            raise _TooMuchError
        return value
    if kind not in {dict, list, tuple} or depth > MAX_DEPTH:
        raise _TooMuchError
    left[0] -= len(value) + 1
    if left[0] < 0 or (kind is tuple and _is_secret_pair(value)):
        raise _TooMuchError
    if kind is dict:
        copy = value.copy()
        _check_names(copy)
        pairs: Any = copy.items()
    else:
        copy = list(value)
        pairs = enumerate(copy)
    for at, item in pairs:
        member = type(item)
        if member is str:
            left[1] -= len(item)
            if len(item) > MAX_TEXT or left[1] < 0:
                raise _TooMuchError
        elif member not in BRIEF:
            if member is list and kind is not dict and _is_secret_pair(item):
                raise _TooMuchError
            copy[at] = _copy(item, member, depth + 1, left)
    return copy


def _is_secret_pair(value: Any) -> bool:
    name = pair_name(value)
    return name is not None and redaction.current.is_secret(name)


def _check_names(copy: dict[Any, Any]) -> None:
    redactor = redaction.current
    if not redactor.are_harmless(copy) and any(
        type(name) is not str or len(name) > MAX_NAME or redactor.is_secret(name) for name in copy
    ):
        raise _TooMuchError
    if ("value" in copy or "Value" in copy) and redactor.is_secret(named_value(list(copy.items()))):
        raise _TooMuchError


def _encoded_slowly(record: dict[str, Any], max_bytes: int) -> bytes:
    """Encode each field by itself, with its share of the bounds; if the line is too long, cut the largest ones until it fits."""
    pairs = list(itertools.islice(record.copy().items(), MAX_FIELDS))
    large = sum(1 for _, value in pairs if _is_large(value))
    items = max(MIN_ITEMS, MAX_ITEMS // max(1, large))
    room = max(MIN_ROOM, max_bytes // max(1, large))
    small = max(MIN_ROOM, min(MAX_TEXT, 4 * max_bytes // len(pairs)))
    plain: dict[str, Any] = {}
    names = Names()
    allowance = Allowance()
    for key, value in pairs:
        one = Plain(items, room if _is_large(value) else small, allowance)
        name = names.free(cut_text(one.key(key), MAX_NAME), plain)
        plain[name] = one.guarded(value)
    raw = _json(plain)
    if len(raw) > max_bytes or len(pairs) < len(record):
        raw = _cut_fields(plain, dict(zip(plain, (value for _, value in pairs), strict=True)), len(record), max_bytes)
    return raw[:-1]


def _is_large(value: object) -> bool:
    kind = type(value)
    try:
        if kind is str or kind is bytes:
            return len(value) > MAX_TEXT  # type: ignore[arg-type]
        return kind not in BRIEF and kind not in _CHECKED
    except Exception:  # a metaclass that fights back
        return True


def _cut_fields(plain: dict[str, Any], values: dict[str, Any], count: int, max_bytes: int) -> bytes:
    """Encode each field by itself, cut the largest ones so that all fit, and if there are too many, leave the last ones out."""
    parts = {name: _part(name, value) for name, value in plain.items()}
    share = _share(sorted(map(len, parts.values())), max_bytes - 2)
    for name, whole in parts.items():
        if len(whole) > share:
            room = share - len(_part(name, "")) - MARK_SIZE
            parts[name] = _part(name, _cut_value(plain[name], _size(values[name]), max(0, room)))
    return b"{" + b",".join(_fitting(list(parts.values()), count, max_bytes)) + b"}"


def _share(sizes: list[int], room: int) -> int:
    """Return how large a field may be so that all of *sizes*, smallest first, fit into *room*: the small ones whole."""
    for index, size in enumerate(sizes):
        share = room // (len(sizes) - index)
        if size + 1 > share:
            return max(MIN_SHARE, share - 1)
        room -= size + 1
    return room


def _part(name: str, value: Any) -> bytes:
    return _json({name: value})[1:-1]


def _json(value: Any) -> bytes:
    return orjson.dumps(value, safe_text, OPTIONS)


def _fitting(parts: list[bytes], count: int, max_bytes: int) -> list[bytes]:
    """Return the first *parts* that fit, with a mark for the fields left out of *count*."""
    room = max_bytes - 2
    for index, part in enumerate(parts):
        room -= len(part) + 1
        if room < 0:
            parts = parts[:index]
            break
    if len(parts) < count:
        parts.append(_part("...", f"...[cut: {count} items]"))
    return parts


def _size(value: Any) -> int:
    try:
        return len(value)
    except Exception:
        return 0


def _cut_value(plain: Any, items: int, room: int) -> Any:
    """Return the beginning of a plain value, in *room* bytes or less, and the mark; a collection had *items* or more."""
    if isinstance(plain, dict | list):
        return _cut_collection(plain, f"...[cut: {max(items, len(plain))} items]", room)
    text = plain if isinstance(plain, str) else _json(plain).decode()
    found = _MARK.search(text)
    size = found[1] if found else len(text.encode())
    text = text[:room]
    while (measured := len(_json(text)) - 2) > room:
        text = text[: min(len(text) - 1, len(text) * room // measured)]
    return f"{text}...[cut: {size} bytes]"


def _cut_collection(plain: Any, mark: str, room: int) -> Any:
    """Keep the first items that fit, and the beginning of the one after them if that is a collection too."""
    is_dict = isinstance(plain, dict)
    kept: list[Any] = []
    for item in plain.items() if is_dict else plain:
        value = item[1] if is_dict else item
        size = len(_part(*item)) + 1 if is_dict else len(_json(item)) + 1
        if size > room:
            room -= MARK_SIZE + (size - len(_json(value)))
            if room > MARK_SIZE:
                beginning = _cut_value(value, 0, room)
                kept.append((item[0], beginning) if is_dict else beginning)
            break
        room -= size
        kept.append(item)
    return {**dict(kept), "...": mark} if is_dict else [*kept, mark]
