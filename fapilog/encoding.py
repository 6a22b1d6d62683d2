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
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import orjson

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC

MAX_DEPTH = 32
MAX_ITEMS = 10_000
MAX_REPR = 8_192
_INT64 = 1 << 63

_dumps = orjson.dumps


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
    """The hook orjson asks for types it does not know: return something it knows."""
    if isinstance(value, AbstractSet):
        return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseException):
        return safe_text(value)
    return safe_text(value) if type(value).__str__ is object.__str__ else _safe_str(value)


def _safe_str(value: object) -> str:
    try:
        return cut_text(str(value), MAX_REPR)
    except Exception:
        return safe_text(value)


def encode_open(record: dict[str, Any], max_bytes: int) -> bytes:
    """
    Return *record* as a JSON object without its closing brace, ready for the identity to be spliced on.

    Any thread. The bytes are a copy: orjson's own object, which holds far more memory than it shows, is let go.

    Args:
        record: The fields, in the order they shall have; not empty.
        max_bytes: The most that the object may measure.
    """
    try:
        raw = _dumps(record, default, OPTIONS)
    except Exception:
        raw = _encode_slowly(record)
    if len(raw) > max_bytes:
        raw = _cut_fields(record, max_bytes)
    return raw[:-1]


def _encode_slowly(record: dict[str, Any]) -> bytes:
    return _dumps(_Plain().mapping(record, 0), _last_resort, OPTIONS)


def _last_resort(value: object) -> str:
    return f"<{type(value).__name__}>"


def _cut_fields(record: dict[str, Any], max_bytes: int) -> bytes:
    """Encode each field by itself and cut the largest ones until all fit."""
    parts = {key: _encode_slowly({key: value})[1:-1] for key, value in record.items()}
    share = max(64, max_bytes // (2 * len(parts)))
    for key in sorted(parts, key=lambda k: len(parts[k]), reverse=True):
        if sum(map(len, parts.values())) + len(parts) + 2 <= max_bytes:
            break
        if len(parts[key]) > share:
            parts[key] = _encode_slowly({key: _cut_value(record[key], parts[key], share)})[1:-1]
    return b"{" + b",".join(parts.values()) + b"}"


def _cut_value(value: object, encoded: bytes, limit: int) -> str:
    if isinstance(value, str):
        return cut_text(value, limit // 6)
    text = encoded.partition(b":")[2].decode("utf-8")
    return f"{text[: limit // 6]}...[cut: {len(text.encode())} bytes]"


class _Plain:
    """One pass that turns anything into what orjson takes, bounded in depth and in items."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS
        self.above: set[int] = set()

    def value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | float):
            return value
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
            fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
            return self.nested(fields, depth, self.mapping, marker=value)
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
            name = _key(key)
            while name in plain:
                name += "_"
            plain[name] = self._guarded(item, depth)
        return plain

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
