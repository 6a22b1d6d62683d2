"""
The slow way from any value to what orjson takes: bounded in depth, in items and in characters, masking as it goes.

Invariants:

1. What comes out consists of exact dicts with text keys, lists, texts without lone surrogates, numbers, booleans and *None*.
2. What is a secret never becomes part of it: a value is judged by its name before it is looked at.
3. The caller's objects are read, never changed, and iterators and generators are not consumed.
4. No key is lost: of two that look alike as text, the second gets ``_`` and a number.
"""

from __future__ import annotations

import enum
from array import array
from collections import deque
from collections.abc import Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from fapilog._internal.forms import (
    array_of,
    bytes_text,
    fields_of,
    is_mapping,
    name_of,
    number_of,
    number_text,
    printable,
    safe_text,
    size_in_bytes,
    text_of,
)
from fapilog._internal.mappings import pairs_of
from fapilog._internal.members import Names, items_of, named_value, pair_name
from fapilog.redaction import MASK, Allowance, is_maskable, redaction

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
MAX_DEPTH = 32
MAX_KEY = 1_024
MAX_ODD = 8_192  # characters of a text with lone surrogates
MARGIN = 1_024  # characters beyond a cut that are still searched for secrets, so that none is cut in two

_NATIVE = (datetime, date, time, UUID)
_LISTS = (list, tuple, AbstractSet, deque, range, array, ValuesView, Sequence)
#: The arguments of an exception, past whatever its class makes of them.
ARGS_OF: Any = BaseException.__dict__["args"].__get__
_BYTES = (bytes, bytearray, memoryview)


class Plain:
    """
    One pass over one value.

    Args:
        items: How many items of collections are taken in all.
        room: How many characters of text are taken in all.
        allowance: Of the log call.
    """

    def __init__(self, items: int, room: int, allowance: Allowance | None = None) -> None:
        self.left = items
        self.room = room
        self._allowance = allowance or Allowance()
        self._above: set[int] = set()
        self._redactor = redaction.current

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return *value* in its plain form."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self.text(value)
        if kind is int:
            return self._number(value)
        if kind is float:
            return value
        if kind is dict:
            return self._nested(value, value, depth, self._mapping)
        return self._other(value, kind, depth)

    def text(self, text: str) -> str:
        """Return *text* without secrets, cut where the room ends."""
        room = max(0, self.room)
        size = str.__len__(text)
        beginning = str.__getitem__(text, slice(room + MARGIN))  # exact, whatever *text* is, and never a copy of a huge one
        if size > MAX_ODD and room > MAX_ODD and not _is_encodable(beginning):
            room = MAX_ODD  # each odd character becomes six
        if size <= room:
            self.room -= size
            return printable(self._redacted(beginning))
        self.room = 0
        shown = self._redacted(beginning[: room + MARGIN], cut=True)[:room]
        return printable(f"{shown}...[cut: {size_in_bytes(text)} bytes]")

    def _redacted(self, text: str, *, cut: bool = False) -> str:
        return self._redactor.text(text, cut=cut, allowance=self._allowance)

    def _bytes(self, value: Any) -> str:
        room = max(0, self.room)
        size = memoryview(value).nbytes
        text = bytes_text(value, room + MARGIN, mark=False)
        if size <= room and len(text) <= room:  # an odd byte becomes four characters
            return self.text(text)
        self.room = 0
        shown = self._redacted(text[: room + MARGIN], cut=True)[:room]
        return f"{shown}...[cut: {size} bytes]"

    def _number(self, value: int) -> Any:
        if self._redactor.rewrites and abs(value) > 9999:
            digits = text_of(value)
            if self._redactor.text(digits) != digits:
                return self._redactor.text(digits)
        bits = value.bit_length()
        if bits > 64:
            if self.room <= 0:
                return f"...[cut: {bits // 8 + 1} bytes]"
            self.room -= bits // 4
        return number_of(value)

    def _other(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, enum.Enum):
            return self.guarded(value.value, depth + 1) if depth < MAX_DEPTH else safe_text(value)
        if issubclass(kind, str):
            return self.text(value)
        if issubclass(kind, int):
            return self._number(int.__int__(value))
        if issubclass(kind, float):
            return float.__float__(value)
        if issubclass(kind, _NATIVE):
            return _native(value, kind)
        if issubclass(kind, _BYTES):
            return self._bytes(value)
        return self._collection(value, kind, depth)

    def _collection(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, tuple):
            if hasattr(kind, "geturl"):
                return self.text(text_of(value.geturl()))
            name = pair_name(value)
            if name is not None and self._redactor.is_secret(name) and is_maskable(value[1]):
                return [self.guarded(name, depth), MASK]
        fields = fields_of(value, kind)
        if fields is not None:
            return self._nested(fields, value, depth, self._mapping)
        if is_mapping(kind):
            return self._nested(value, value, depth, self._mapping)
        if issubclass(kind, _LISTS):
            return self._nested(value, value, depth, self._sequence)
        if issubclass(kind, BaseException) and kind.__repr__ is BaseException.__repr__:
            return self._error(value, kind, depth)
        found = array_of(value, kind, max(1, self.left))
        if found is NotImplemented:
            return self.text(text_of(value))
        if type(found) is not list:
            return self.value(found, depth + 1)
        shown = self._nested(found, value, depth, self._sequence)
        if len(found) < len(value) and type(shown) is list:
            # It ends in the mark of the part that was looked at, or has no mark yet.
            shown[min(len(found), max(0, len(shown) - 1)) :] = [_cut_mark(value)]
        return shown

    def _error(self, value: BaseException, kind: type, depth: int) -> str:
        """Return what `repr()` says of an exception, its arguments bounded."""
        shown = self._nested(ARGS_OF(value), value, depth, self._sequence)
        return f"{name_of(kind)}({', '.join(map(safe_text, shown))})" if type(shown) is list else f"{name_of(kind)}({shown})"

    def _nested(self, value: Any, marker: object, depth: int, how: Callable[[Any, int], Any]) -> Any:
        identity = id(marker)
        if identity in self._above:
            return "...[cut: cycle]"
        if depth >= MAX_DEPTH:
            return _cut_mark(value)
        self._above.add(identity)
        try:
            return how(value, depth + 1)
        finally:
            self._above.discard(identity)

    def _mapping(self, value: Any, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        names = Names()
        pairs = pairs_of(value, self.left + 1)
        named = named_value(pairs)
        for given, item in pairs:
            key = given.value if issubclass(type(given), enum.Enum) else given
            if self.left <= 0 or self.room <= 0:
                plain[names.free("...", plain)] = _cut_mark(value)
                break
            self.left -= 1
            secret = self._redactor.is_secret(key)
            if named is not None and type(key) is str and key.lower() == "value":
                secret = secret or self._redactor.is_secret(named)
            name = names.free(self.key(key), plain)
            plain[name] = MASK if secret and is_maskable(item) else self.guarded(item, depth)
        return plain

    def key(self, key: object) -> str:
        """Return a key as text."""
        if type(key) is not str:
            key = _key_text(key)
        self.room -= len(key)
        shown = printable(self._redacted(key[: MAX_KEY + MARGIN]))
        return shown if len(key) <= MAX_KEY else f"{shown[:MAX_KEY]}...[cut: {size_in_bytes(key)} bytes]"

    def _sequence(self, value: Any, depth: int) -> list[Any]:
        plain: list[Any] = []
        for item in items_of(value, self.left + 1):
            if self.left <= 0 or self.room <= 0:
                plain.append(_cut_mark(value))
                break
            self.left -= 1
            name = pair_name(item)
            if name is not None and self._redactor.is_secret(name) and is_maskable(item[1]):
                plain.append([self.guarded(name, depth), MASK])
            else:
                plain.append(self.guarded(item, depth))
        return plain

    def guarded(self, item: Any, depth: int = 0) -> Any:
        """Return the plain form of *item*; one that fights back is named instead."""
        try:
            return self.value(item, depth)
        except Exception as error:
            if type(item) is str:  # it was the end of the stack: no line without its event, but a call that is counted
                raise
            return self.text(_named(item, error))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_safe_moment(value: Any) -> bool:
    """Whether orjson may have a datetime or time: it crashes where a zone of the user's own raises (3.11; found here)."""
    zone = value.tzinfo
    return zone is None or type(zone) is timezone or type(zone) is ZoneInfo


def _native(value: Any, kind: type) -> Any:
    if kind is datetime and is_safe_moment(value):
        return orjson.Fragment(orjson.dumps(value, None, OPTIONS))
    if kind is UUID or kind is date:
        return orjson.Fragment(orjson.dumps(value, None, OPTIONS))
    try:
        return printable(str(kind.__str__(value)) if issubclass(kind, UUID) else value.isoformat())
    except Exception:  # a zone that raises
        return printable(text_of(value.replace(tzinfo=None))) if hasattr(kind, "tzinfo") else text_of(value)


def _key_text(key: object) -> str:
    kind = type(key)
    if issubclass(kind, str):
        return str.__str__(key)
    if issubclass(kind, bytes):
        return bytes_text(key, MAX_KEY)
    if kind is int:
        return number_text(key)  # type: ignore[arg-type]
    return text_of(key)


def _named(item: object, error: Exception) -> str:
    """Return a text for what could not be unfolded; a collection is not asked for its `repr()`, which may have no end."""
    kind = type(item)
    try:
        return f"<{name_of(kind)}: {name_of(type(error))}>" if issubclass(kind, _LISTS) or is_mapping(kind) else safe_text(item)
    except Exception:
        return f"<{name_of(kind)}>"


def _cut_mark(value: Any) -> str:
    try:
        return f"...[cut: {len(value)} items]"
    except Exception:
        return "...[cut: more items]"
