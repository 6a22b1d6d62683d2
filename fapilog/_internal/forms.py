"""
How single values are shown: the text and number forms that JSON has no type for. Pure, bounded, never raising an `Exception`.

Types are asked of `type()`, never of the object, whose `__class__` may lie or raise.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import orjson

MAX_REPR = 8_192
MAX_COUNTED = 1 << 19  # characters
MAX_HEX_BITS = 1 << 18
_INT64 = 1 << 63
_SCALARS = (str, bytes, int, float, bool, type(None))
_MAX_DECIMAL = 10**4300  # readers in Python refuse integers of over 4,300 digits


def cut_text(text: str, limit: int) -> str:
    """Return *text* cut to *limit* characters, with the mark and the original size in bytes when it was longer."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}...[cut: {size_in_bytes(text)} bytes]"


def size_in_bytes(text: str) -> int:
    """
    Return the length of *text* in UTF-8.

    Of a text of over `MAX_COUNTED` characters beyond ASCII it is what its beginning suggests: to count them all would take longer
    than a log call may.
    """
    size = str.__len__(text)
    if str.isascii(text):
        return size
    if size <= MAX_COUNTED:
        return len(str.encode(text, "utf-8", "surrogatepass"))
    beginning = str.__getitem__(text, slice(MAX_COUNTED // 8))
    return size * len(beginning.encode("utf-8", "surrogatepass")) // len(beginning)


def safe_text(value: object) -> str:
    """Return `repr(value)`, bounded; a `repr` that raises is named instead."""
    try:
        text = repr(value)
        return cut_text(text if type(text) is str else str.__str__(text), MAX_REPR)
    except Exception as error:
        return f"<{name_of(type(value))}: repr raised {name_of(type(error))}>"


def text_of(value: object) -> str:
    """Return what `str()` says if the type has a text form of its own, else `repr()`; bounded."""
    kind = type(value)
    try:
        if kind.__str__ is object.__str__ or issubclass(kind, BaseException):
            return safe_text(value)
        text = str(value)
        return cut_text(text if type(text) is str else str.__str__(text), MAX_REPR)
    except Exception:
        return safe_text(value)


def is_scalar(value: object) -> bool:
    """Whether *value* is of one of the types whose `repr()` may be asked: bounded by its size, and no code of anybody's."""
    return any(type(value) is kind for kind in _SCALARS)  # not by `in`, which asks the type for its hash: it may fight back


def name_of(kind: type) -> str:
    """Return the name of a type, whatever its metaclass says."""
    try:
        return str(type.__dict__["__name__"].__get__(kind))
    except Exception:
        return "object"


def printable(text: str) -> str:
    """Return *text* with lone surrogates, which UTF-8 has no bytes for, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def bytes_text(value: Any, limit: int, *, mark: bool = True) -> str:
    """Return bytes as text, what is not UTF-8 escaped, cut after *limit* bytes, with or without the mark."""
    view = memoryview(value)
    size = view.nbytes
    flat = view.cast("B") if view.c_contiguous and view.ndim <= 1 else view.tobytes() if size <= limit else b""
    text = bytes(flat[:limit]).decode("utf-8", "backslashreplace")
    return f"{text}...[cut: {size} bytes]" if size > limit and mark else text


def number_of(value: int) -> Any:
    """Return an integer as the encoder takes it, every digit kept: as a number up to 4,300 digits, above that in hexadecimal."""
    if -_INT64 <= value < 2 * _INT64:
        return int(value)
    if -_MAX_DECIMAL < value < _MAX_DECIMAL and not 0 < sys.get_int_max_str_digits() < 4300:
        return orjson.Fragment(str(int(value)))
    bits = value.bit_length()
    if bits <= MAX_HEX_BITS:
        return hex(value)
    return f"{hex(value >> (bits - 1024))}...[cut: {math.ceil(bits / 8)} bytes]"


def number_text(value: int) -> str:
    """Return `number_of()` as text."""
    shown = number_of(value)
    return shown if isinstance(shown, str) else str(value)


def fields_of(value: Any, kind: type) -> dict[str, Any] | None:
    """
    Return the fields of a named tuple, namespace, dataclass, attrs or pydantic object by name; *None* for anything else.

    A field declared ``repr=False`` (or, in pydantic, ``exclude=True``) is not for showing and left out.
    """
    if issubclass(kind, tuple):
        names = getattr(kind, "_fields", None)
        return dict(zip(names, tuple(value), strict=False)) if isinstance(names, tuple) else None
    if issubclass(kind, SimpleNamespace):
        return dict(object.__getattribute__(value, "__dict__"))
    if hasattr(kind, "__dataclass_fields__"):
        return _present(value, [field.name for field in dataclasses.fields(value) if field.repr])
    if hasattr(kind, "__attrs_attrs__"):
        return _present(value, [field.name for field in kind.__attrs_attrs__ if field.repr])
    if hasattr(kind, "__pydantic_fields__") and hasattr(kind, "__pydantic_validator__"):
        shown = [name for name, field in kind.__pydantic_fields__.items() if field.repr and not field.exclude]
        return {**_present(value, shown), **(getattr(value, "__pydantic_extra__", None) or {})}
    return None


def _present(value: object, names: list[str]) -> dict[str, Any]:
    """Return the attributes of these *names* that can be read."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = getattr(value, name)
        except AttributeError:  # a slot without a value
            continue
        except Exception as error:
            found[name] = f"<{name_of(type(error))}>"
    return found


def is_mapping(kind: type) -> bool:
    """Whether values of the type are mappings, by the book or by what they can do (headers of several libraries)."""
    return issubclass(kind, Mapping) or (hasattr(kind, "items") and hasattr(kind, "keys") and hasattr(kind, "__getitem__"))


def array_of(value: Any, kind: type, limit: int) -> Any:
    """
    Return the Python form of a fraction, of a numpy scalar, or of the first *limit* items of an array; else *NotImplemented*.

    An array of several dimensions becomes a list of arrays, so that each has its own bounds.
    """
    if kind.__module__ == "fractions" and hasattr(kind, "numerator"):
        return f"{number_text(value.numerator)}/{number_text(value.denominator)}"
    numpy = sys.modules.get("numpy")
    if numpy is None or not issubclass(kind, numpy.generic | numpy.ndarray):
        return NotImplemented
    if issubclass(kind, numpy.ndarray) and value.ndim > 1:
        return [value[row] for row in range(min(limit, len(value)))]
    if value.dtype.kind in "mM":
        return [str(item) for item in value[:limit]] if value.shape else str(value)
    if value.dtype.names:
        rows = value[:limit].tolist() if value.shape else [value.item()]
        shown = [dict(zip(value.dtype.names, row, strict=False)) for row in rows]
        return shown if value.shape else shown[0]
    if issubclass(kind, numpy.generic) or not value.shape:
        found = value.item()
        return str(value) if isinstance(found, numpy.generic) else found
    return value[:limit].tolist()
