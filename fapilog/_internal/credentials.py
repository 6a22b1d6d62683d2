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
_RUN = re.compile(r"[^\s&;'\"]*+")
_RUN_IN_URL = re.compile(r"[^\s&;'\"#<>]*+")
_REST_OF_LINE = re.compile(r"[^\n\r&;'\"]*+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]*+:?[ \t]")
_PREFIX = re.compile(r"[A-Za-z_][\w.]*+(?=[(\[{])|[bBfFrRuU]{1,2}(?=\\*+[\"'])")
_QUOTE = re.compile(r"\\*+[\"']")
_PART = re.compile(r"\\.|[\"'()\[\]{}]", re.DOTALL)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_NOTHING = re.compile(r"(?:null|true|false|None|True|False)\b")
_BARE = re.compile(r"[^\s,}\])]*+")
_USER = re.compile(r"(?<=//)[^/?#\s\"]++")
_MEMBER = re.compile(rf"(?<!\\)(\\*+[\"'])({_NAME}++)\1\s*+:\s*+", re.ASCII)
_CUT = "...[cut:"


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
    if name > 0 and text[name - 1] in "?&":
        return _end(_RUN_IN_URL, text, start)
    if (end := _end_of_whole(text, start)) is not None:
        return end
    # ``authorization=Bearer abc``: what follows a scheme belongs to it, whatever form it has.
    if "auth" in text[max(0, name) : start].lower() and _SCHEME.match(text, start):
        return _end(_REST_OF_LINE, text, start)
    return _end(_RUN, text, start)


def _end(expression: re.Pattern[str], text: str, start: int) -> int:
    found = expression.match(text, start)
    return start if found is None else found.end()


def _end_of_whole(text: str, start: int) -> int | None:
    """Return where a quoted or bracketed value ends, with what may stand before it (``b'...'``, ``Secret(...)``)."""
    begin = _end(_PREFIX, text, start)
    quote = _QUOTE.match(text, begin)
    if quote is not None:
        return _end_of_quoted(text, quote.group(), quote.end())
    return _end_of_bracketed(text, begin) if text[begin : begin + 1] in _OPENING else None


def _end_of_quoted(text: str, mark: str, at: int) -> int:
    """Return what is behind the next *mark* that is not escaped itself; the end of the text where there is none."""
    while (at := text.find(mark, at)) >= 0:
        behind = at
        while text[behind - 1 : behind] == "\\":
            behind -= 1
        if (at - behind) % 2 == 0:
            return at + len(mark)
        at += 1
    return len(text)


def _end_of_bracketed(text: str, start: int) -> int:
    """Return what is behind the bracket that closes the one at *start*; the end of the text where none does."""
    depth = 0
    quote = ""
    for found in _PART.finditer(text, start):
        part = found.group()
        if quote:
            quote = "" if part == quote else quote
        elif part in {'"', "'"}:
            quote = part
        elif part in _OPENING:
            depth += 1
        elif part in _CLOSING:
            depth -= 1
            if depth <= 0:
                return found.end()
    return len(text)


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
    """Return where the value of a member begins and ends; of a quoted one, the quotation marks stay."""
    begin = _end(_PREFIX, text, start)
    quote = _QUOTE.match(text, begin)
    if quote is not None:
        end = _end_of_quoted(text, quote.group(), quote.end())
        closed = text.endswith(quote.group(), quote.end(), end)
        return quote.end(), end - len(quote.group()) if closed else end
    if _NOTHING.match(text, start):
        return start, start
    whole = _end_of_whole(text, start)
    return start, _end(_BARE, text, start) if whole is None else whole


def without_users(text: str, *, cut: bool = False) -> str:
    """
    Return *text* with a mask for what stands before the ``@`` of each URL.

    Args:
        text: Perhaps with the mark of a cut at its end.
        cut: Whether it was cut and the mark is yet to come: behind the cut there may have been an ``@``.
    """
    end = len(text) if cut else text.find(_CUT)

    def masked(found: re.Match[str]) -> str:
        whole = found.group()
        _, at, host = whole.rpartition("@")
        if at:
            return f"{MASK}@{host}"
        if end >= 0 and found.start() <= end <= found.end() and ":" in whole[: end - found.start()]:
            return MASK + whole[end - found.start() :]
        return whole

    return _USER.sub(masked, text)


def _masked(text: str, cuts: list[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in cuts:
        if end > start:
            parts += [text[at:start], MASK]
            at = end
    return "".join([*parts, text[at:]]) if parts else text
