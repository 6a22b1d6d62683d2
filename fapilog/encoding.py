"""
From fields to one JSON object, whatever the fields hold.

Invariants:

1. `encode_open()` never raises an `Exception`.
2. What it returns, closed by ``}``, is one strict JSON object in UTF-8 without a raw line end.
3. Its size is at most `max_bytes` plus the size of the cut marks; a value that was cut says so and names its original size.
4. The caller's objects are not changed.

orjson encodes the common values in one C call. What it refuses (integers over 64 bits, keys that are not strings, lone
surrogates, cycles, depth over 254) raises at once, and the fields then go through `_plain()`, slow and bounded in depth and
items.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Mapping, Sized
from collections.abc import Set as AbstractSet
from typing import Any

import orjson

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

MAX_DEPTH = 32  # on the slow path
MAX_NESTING = 100  # on the fast one
MAX_NODES = 20_000
MAX_FIELDS = 1_000
MAX_KEY = 256
MAX_ITEMS = 10_000
MAX_REPR = 8_192
_INT64 = 1 << 63

_dumps = orjson.dumps

#: Whether orjson is one of those that follow tuples until the native stack is gone, which ends the process (3.12 and 3.13; found
#: here). The project's dependency keeps them out; where one is installed all the same, every record is walked first, for about
#: a fifth of what a structlog + orjson call costs.
_UNGUARDED = int(orjson.__version__.split(".")[1]) >= 12


def safe_text(value: object) -> str:
    """Return `repr(value)`, bounded; a `repr` that raises is named instead."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: repr raised {type(error).__name__}>"
    return cut_text(text, MAX_REPR)


def cut_text(text: str, limit: int) -> str:
    """Return *text* cut to *limit* characters, with the mark and the original size in bytes when it was longer."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}...[cut: {len(text.encode('utf-8', 'surrogatepass'))} bytes]"


def default(value: object) -> object:
    """The hook orjson asks for what it is not to expand by itself: return something it knows, checked like the record."""
    if isinstance(value, Mapping):
        return _checked(dict(value))
    if isinstance(value, AbstractSet | list):
        return _checked(list(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _checked(_dataclass_fields(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    plain = isinstance(value, BaseException) or type(value).__str__ is object.__str__
    return safe_text(value) if plain else _safe_str(value)


def _dataclass_fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}


def _safe_str(value: object) -> str:
    try:
        return cut_text(str(value), MAX_REPR)
    except Exception:
        return safe_text(value)


def _checked(value: Any) -> Any:
    if not _bounded(value, 0, [MAX_NODES]):
        raise ValueError("too deep or too many")
    return value


def _bounded(value: Any, depth: int, left: list[int]) -> bool:
    """
    Return whether *value*, a dict, list or tuple, is nested and filled within bounds; see `_UNGUARDED`.
    """
    left[0] -= len(value)
    if depth > MAX_NESTING or left[0] < 0:
        return False
    for item in value.values() if value.__class__ is dict else value:
        kind = item.__class__
        if (kind is dict or kind is list or kind is tuple) and not _bounded(item, depth + 1, left):
            return False
    return True


def encode_open(record: dict[str, Any], max_bytes: int) -> bytes:
    """
    Return *record* as a JSON object without its closing brace, ready for the identity to be spliced on.

    Any thread. The bytes are a copy: orjson's own object, which holds far more memory than it shows, is let go.

    Args:
        record: The fields, in the order they shall have; not empty.
        max_bytes: The most that the object may measure.
    """
    try:
        fast = not _UNGUARDED or _bounded(record, 0, [MAX_NODES])
        raw = _dumps(record, default, OPTIONS) if fast else _encode_slowly(record)
    except Exception:  # orjson refuses by several types, a user's hook by any
        raw = _encode_slowly(record)
    if len(raw) > max_bytes:
        raw = _cut_fields(record, max_bytes)
    return raw[:-1]


def _encode_slowly(record: dict[str, Any]) -> bytes:
    return _dumps(_Plain().mapping(record, 0), _last_resort, OPTIONS)


def _last_resort(value: object) -> str:
    return f"<{type(value).__name__}>"


def _cut_fields(record: dict[str, Any], max_bytes: int) -> bytes:
    """Encode each field by itself, cut the largest ones until all fit, and if there are too many, leave the last ones out."""
    parts: dict[str, bytes] = {}
    values: dict[str, Any] = {}
    names = _Plain()
    for key, value in itertools.islice(record.items(), MAX_FIELDS):
        name = names.name(cut_text(_key(key), MAX_KEY), parts)
        values[name] = value
        parts[name] = _encode_slowly({name: value})[1:-1]
    total = sum(map(len, parts.values())) + len(parts) + 1
    share = max(64, max_bytes // (2 * len(parts)))
    for name in sorted(parts, key=lambda name: len(parts[name]), reverse=True):
        if total <= max_bytes or len(parts[name]) <= share:
            break
        whole = parts[name]
        parts[name] = _encode_slowly({name: _cut_value(values[name], whole[len(name) :], share)})[1:-1]
        total += len(parts[name]) - len(whole)
    return b"{" + b",".join(_fitting(list(parts.values()), len(record), max_bytes)) + b"}"


def _fitting(parts: list[bytes], count: int, max_bytes: int) -> list[bytes]:
    """Return the first *parts* that fit, with a mark for the fields left out of *count*."""
    room = max_bytes - 2
    for index, part in enumerate(parts):
        room -= len(part) + 1
        if room < 0:
            parts = parts[:index]
            break
    if len(parts) < count:
        parts.append(_dumps({"...": f"...[cut: {count} items]"})[1:-1])
    return parts


def _cut_value(value: object, encoded: bytes, limit: int) -> str:
    if isinstance(value, str):
        return cut_text(value, limit // 6)
    text = encoded.partition(b":")[2].decode("utf-8")
    if isinstance(value, Sized) and not isinstance(value, bytes | bytearray | memoryview):
        return f"{text[: limit // 6]}...[cut: {len(value)} items]"
    return f"{text[: limit // 6]}...[cut: {len(text.encode())} bytes]"


class _Plain:
    """One pass that turns anything into what orjson takes, bounded in depth and in items."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS
        self.above: set[int] = set()
        self.repeats: dict[str, int] = {}

    def value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | float):
            return value if value is None or isinstance(value, bool) else float.__float__(value)
        if isinstance(value, enum.Enum):
            return self.value(value.value, depth + 1)
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, Mapping):
            return self.nested(value, depth, self.mapping)
        if isinstance(value, list | tuple | AbstractSet):
            return self.nested(value, depth, self.sequence)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.nested(_dataclass_fields(value), depth, self.mapping, marker=value)
        try:
            return orjson.Fragment(_dumps(value, None, OPTIONS))
        except Exception:
            return _text(str(default(value)))

    def nested(self, value: Any, depth: int, how: Any, marker: object = None) -> Any:
        identity = id(value if marker is None else marker)
        if identity in self.above:
            return "...[cut: cycle]"
        if depth >= MAX_DEPTH:
            return f"...[cut: {len(value)} items]"
        self.above.add(identity)
        try:
            return how(value, depth + 1)
        finally:
            self.above.discard(identity)

    def mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in list(value.items()):
            if self.left <= 0:
                plain["..."] = f"...[cut: {len(value)} items]"
                break
            self.left -= 1
            plain[self.name(_key(key), plain)] = self._guarded(item, depth)
        return plain

    def name(self, name: str, taken: Mapping[str, Any]) -> str:
        """Return a name not *taken*, with ``_`` and a count of its own added when it is, in constant time."""
        free = name
        while free in taken:
            self.repeats[name] = count = self.repeats.get(name, 0) + 1
            free = f"{name}_{count if count > 1 else ''}"
        return free

    def sequence(self, value: Any, depth: int) -> list[Any]:
        plain = []
        for item in list(value):
            if self.left <= 0:
                plain.append(f"...[cut: {len(value)} items]")
                break
            self.left -= 1
            plain.append(self._guarded(item, depth))
        return plain

    def _guarded(self, item: Any, depth: int) -> Any:
        try:
            return self.value(item, depth)
        except Exception:
            return _text(safe_text(item))


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
    if isinstance(key, bytes):
        return _text(key.decode("utf-8", "backslashreplace"))
    return _text(_safe_str(key))


def _text(text: str) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _integer(value: int) -> Any:
    if -_INT64 <= value < 2 * _INT64:
        return int(value)
    try:
        return orjson.Fragment(str(int(value)))
    except ValueError:  # over the interpreter's limit of decimal digits
        return hex(value)
