"""
Where credentials stand in a text: after ``name=`` and ``"name":``, and before the ``@`` of a URL.

Each function takes time linear in the text, whatever it holds: an expression begins only where a run of its characters begins,
the possessive ``++`` never gives a run back, and a value is measured only behind the name of a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MASK = "***"

_NAME = r"[\w.%\[\]-]"
#: In an encoded line a line end and the like are two characters, and a quotation mark of a text has a backslash.
_PAIRS_IN_LINE = re.compile(rf"(?:\\u[0-9a-f]{{4}}|\\.|(?<![\w.%\[\]\\-]))({_NAME}++) ?=".encode())
_MEMBERS_IN_LINE = re.compile(rf"(?:(?<!\\)\\++\"|')({_NAME}++)(?:\\++\"|')\s*+:".encode())
_USER_IN_LINE = re.compile(rb"//(?:[^/?#\s\"\\@]|\\[\"\\])*+@")

_PAIR = re.compile(rf"(?<!{_NAME})({_NAME}++) ?= ?", re.ASCII)
_VALUE = re.compile(r"\"[^\"]*+\"|'[^']*+'|\"?'?[^\s&;'\"]*+")
_VALUE_IN_URL = re.compile(r"[^\s&;'\"#<>]*+")
_SCHEME = re.compile(r"(?:basic|bearer|digest|negotiate|token)", re.IGNORECASE)
_NEXT_WORD = re.compile(r"\s++[^\s&;'\"]++")
_USER = re.compile(r"(?<=//)[^/?#\s\"]++")
_MEMBER = re.compile(rf"(?<!\\)(\\*+[\"'])({_NAME}++)\1\s*+:\s*+", re.ASCII)
_QUOTE = re.compile(r"b?(\\*+[\"'])")
_BARE = re.compile(r"(?!(?:null|true|false|None|True|False)\b)(?:\[[^\]]*+\]?|\{[^}]*+\}?|[^\s,}\])]++)")


def names_in_line(line: bytes) -> list[bytes]:
    """Return what stands in an encoded line where a name of a credential could stand."""
    found: list[bytes] = _PAIRS_IN_LINE.findall(line) if b"=" in line else []
    return found + _MEMBERS_IN_LINE.findall(line) if b"\\" in line or b"'" in line else found


def has_user(line: bytes) -> bool:
    """Whether a URL in an encoded line names a user."""
    return b"@" in line and _USER_IN_LINE.search(line) is not None


def without_pairs(text: str, is_secret: Callable[[str], bool]) -> str:
    """Return *text* with a mask for each value after ``name=``."""
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _PAIR.finditer(text):
        # What an earlier value has swallowed is gone.
        if found.start() >= end and is_secret(found[1]):
            start, end = found.end(), _end_of_value(text, found.start(), found.end())
            cuts.append((start, end))
    return _masked(text, cuts)


def _end_of_value(text: str, name: int, start: int) -> int:
    in_url = name > 0 and text[name - 1] in "?&"
    value = (_VALUE_IN_URL if in_url else _VALUE).match(text, start)
    assert value is not None
    more = _NEXT_WORD.match(text, value.end()) if _SCHEME.fullmatch(value.group()) else None
    return (more or value).end()


def without_members(text: str, is_secret: Callable[[str], bool]) -> str:
    """Return *text* with a mask for each value after ``"name":``, as JSON and `repr()` write it, also within a text in a text."""
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _MEMBER.finditer(text):
        if found.start() >= end and is_secret(found[2]):
            start, end = _member_value(text, found.end())
            cuts.append((start, end))
    return _masked(text, cuts)


def _member_value(text: str, start: int) -> tuple[int, int]:
    quote = _QUOTE.match(text, start)
    if quote is None:
        bare = _BARE.match(text, start)
        return start, bare.end() if bare is not None else start
    mark = quote[1]
    at = text.find(mark, quote.end())
    while at > 0 and text[at - 1] == "\\" and not text.startswith("\\\\", at - 2):  # an escaped one, within the value
        at = text.find(mark, at + 1)
    return quote.end(), at if at >= 0 else len(text)


def without_users(text: str) -> str:
    """Return *text* with a mask for what stands before the ``@`` of each URL."""
    return _USER.sub(_masked_user, text)


def _masked_user(found: re.Match[str]) -> str:
    _, at, host = found.group().rpartition("@")
    return f"{MASK}@{host}" if at else found.group()


def _masked(text: str, cuts: list[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in cuts:
        if end > start:
            parts += [text[at:start], MASK]
            at = end
    return "".join([*parts, text[at:]]) if parts else text
