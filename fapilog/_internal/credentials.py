"""
Where credentials stand in a text: after ``name=`` and ``"name":``, and before the ``@`` of a URL.

Each function takes time linear in the text, whatever it holds: an expression begins only where a run of its characters begins,
the possessive ``++`` never gives a run back, and a value is measured only behind the name of a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MASK = "***"
#: Names that are looked for before a colon in any text: headers as programs print them.
HEADERS = ("authorization", "cookie", "api-key", "auth-token", "csrf-token")

_NAME = r"[\w.%\[\]-]"
_COLOUR = r"(?:\x1b\[[0-9;]*+m)*+"
#: In an encoded line a line end and the like are two characters, other signs six, and a quotation mark has a backslash.
_ESCAPES = r"(?<!\\)(?:\\u[0-9a-f]{4}|\\.)++"
_QUOTE_IN_LINE = r"(?<!\\)(?:\\++\"|\\*+')"
_PAIRS_IN_LINE = re.compile(
    rf"(?:{_ESCAPES}|(?<![\w.%\[\]\\-]))({_NAME}++)(?:\\u001b\[[0-9;]*+m)*+(?:[ ]|\\t)*+=(?![=>])".encode()
)
_MEMBERS_IN_LINE = re.compile(rf"{_QUOTE_IN_LINE}({_NAME}++)(?:\\++\"|\\*+')(?:[ ]|\\[nrt])*+[:,]".encode())
_HEADERS_IN_LINE = re.compile(rf"(?i:({'|'.join(HEADERS)})) ?:".encode())
_USER_IN_LINE = re.compile(rb"/(?:\\\\)?/(?:[^/?#\s\"\\@]|\\u[0-9a-f]{4}|\\[\"\\bf])*+@")
_ODD_USER_IN_LINE = re.compile(rb"/(?:\\\\)?/[^/?#\s\"\\@:]++:(?![0-9]{1,5}[/?#])(?:[^\s\"\\@]|\\u[0-9a-f]{4}|\\[\"\\bf])++@")

_PAIR = re.compile(rf"(?<!{_NAME})({_NAME}++){_COLOUR}[ \t]*+=(?![=>])[ \t]*+{_COLOUR}", re.ASCII)
_RUN = re.compile(r"[^\s&;'\"]*+")
_RUN_IN_URL = re.compile(r"[^\s&;'\"#<>]*+")
_REST_OF_HEADER = re.compile(r"[^\n\r'\"]*+")
_REST_OF_LINE = re.compile(r"[^\n\r&;'\"]*+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]*+:?[ \t]")
_PREFIX = re.compile(r"[A-Za-z_][\w.]*+(?=[(\[{])|[bBfFrRuU]{1,2}(?=\\*+[\"'])")
_QUOTE = re.compile(r"\\*+[\"']")
_PART = re.compile(r"\\.|[\"'()\[\]{}]", re.DOTALL)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
#: What is no secret, and what stands for one in SQL.
_NOTHING = re.compile(r"(?:(?:null|true|false|None|True|False)\b|%s|%\(\w++\)s|\$[0-9]++|\?|:\w++)(?=[\s,;)\]}&'\"]|\Z)")
_HEADER = re.compile(rf"(?i:{'|'.join(HEADERS)})[ \t]?:[ \t]*+(?=[^\s'\"])", re.ASCII)
_COUPLE = re.compile(rf"[(\[]b?(\\*+[\"'])({_NAME}++)\1,[ ]?(?=b?\\*+[\"'])", re.ASCII)
_BARE = re.compile(r"[^\s,}\])]*+")
_AUTHORITY = r"(?:(?<=//)|(?<=/\\/))"
_USER = re.compile(rf"{_AUTHORITY}[^/?#\s\"]++")
#: A password with signs that no URL may hold, which people do write into addresses of databases; a port is none.
_ODD_USER = re.compile(rf"{_AUTHORITY}[^/?#\s\"@:]++:(?![0-9]{{1,5}}(?:[/?#\s]|\Z))[^\s\"'<>]++")
_MEMBER = re.compile(rf"(?<!\\)(\\*+[\"'])({_NAME}++)\1\s*+:\s*+", re.ASCII)
_CUT = "...[cut:"
HARMLESS_USERS = frozenset(("", "git", MASK))


def names_in_line(line: bytes) -> list[bytes]:
    """Return what stands in an encoded line where a name of a credential could stand."""
    found: list[bytes] = _PAIRS_IN_LINE.findall(line) if b"=" in line else []
    if b"\\" in line or b"'" in line:
        found += _MEMBERS_IN_LINE.findall(line)
    return found


def has_credentials(line: bytes) -> bool:
    """Whether an encoded line has a URL with a user, or a header that carries a secret."""
    if b"@" in line and (_USER_IN_LINE.search(line) or _ODD_USER_IN_LINE.search(line)):
        return True
    return (b": " in line or b":\\t" in line) and _HEADERS_IN_LINE.search(line) is not None


def without_pairs(
    text: str, is_secret: Callable[[str], bool], are_harmless: Callable[[Iterable[str]], bool] = lambda _names: False
) -> str:
    """Return *text* with a mask for each value after ``name=``; *are_harmless* answers for all names at once if it can."""
    if are_harmless(_PAIR.findall(text)):
        return text
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _PAIR.finditer(text):
        # What an earlier value has swallowed is gone.
        if found.start() >= end and not _NOTHING.match(text, found.end()) and is_secret(found[1]):
            start, end = found.end(), _end_of_value(text, found.start(), found.end())
            cuts.append((start, end))
    return _masked(text, cuts)


def without_headers(text: str) -> str:
    """Return *text* with a mask for the rest of each line that begins like a header which carries a secret."""
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _HEADER.finditer(text):
        if found.start() >= end:
            start, end = found.end(), _end(_REST_OF_HEADER, text, found.end())
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
    """
    Return what is behind the *mark* that closes a value; the end of the text where there is none.

    A mark of m backslashes and a quotation mark stands m levels deep in texts within texts. There an escaped one has 2m + 1, and
    each escaped backslash before it has 2m + 2 of them.
    """
    depth = len(mark) - 1
    while (at := text.find(mark[-1], at)) >= 0:
        behind = at
        while text[behind - 1 : behind] == "\\":
            behind -= 1
        if (at - behind) % (2 * depth + 2) == depth:
            return at + 1
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
    """
    Return *text* with a mask for each value after ``"name":`` and in ``("name", "value")``.

    As JSON and `repr()` write them, also within a text in a text.
    """
    cuts: list[tuple[int, int]] = []
    for expression in (_MEMBER, _COUPLE):
        end = 0
        for found in expression.finditer(text):
            if found.start() >= end and is_secret(found[2]):
                start, end = _member_value(text, found.end())
                if expression is _MEMBER or text[end + len(found[1]) : end + len(found[1]) + 1] in {")", "]"}:
                    cuts.append((start, end))
        text, cuts = _masked(text, cuts), []
    return text


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
    if "//" not in text and "/\\/" not in text:
        return text
    end = len(text) if cut else text.find(_CUT)

    def masked(found: re.Match[str]) -> str:
        whole = found.group()
        user, at, host = whole.rpartition("@")
        if at:
            return whole if user in HARMLESS_USERS else f"{MASK}@{host}"
        if end >= 0 and found.start() <= end <= found.end() and ":" in whole[: end - found.start()]:
            return MASK + whole[end - found.start() :]
        return whole

    return _ODD_USER.sub(masked, _USER.sub(masked, text))


def _masked(text: str, cuts: list[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in cuts:
        if end > start:
            parts += [text[at:start], MASK]
            at = end
    return "".join([*parts, text[at:]]) if parts else text
