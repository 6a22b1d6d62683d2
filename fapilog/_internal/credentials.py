"""
Where credentials stand in a text: after ``name=`` and ``"name":``, and before the ``@`` of a URL.

Each function takes time linear in the text, whatever it holds: an expression begins only where a run of its characters begins,
the possessive ``++`` never gives a run back, and a value is measured only behind the name of a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    #: Returns those of the names that are names of secrets.
    SecretsAmong = Callable[[Sequence[str]], AbstractSet[str]]

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
_RUN = r"[^\s&;'\"]*+"
_RUN_IN_URL = re.compile(r"[^\s&;'\"#<>]*+")
_REST_OF_HEADER = re.compile(r"[^\n\r'\"]*+")
_REST_OF_LINE = re.compile(r"[^\n\r&;'\"]*+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]*+:?[ \t]")
_PREFIX = re.compile(r"[A-Za-z_][\w.]*+(?=[(\[{])|[bBfFrRuU]{1,2}(?=\\*+[\"'])")
#: A quoted or bracketed value, with what may stand before it (``b'...'``, ``Secret(...)``).
_WHOLE = re.compile(rf"(?:{_PREFIX.pattern})?(?:\\*+[\"']|[(\[{{])")
_QUOTE = re.compile(r"\\*+[\"']")
_QUOTED = re.compile(r"\"(?:[^\"\\]++|\\[\s\S])*+\"|'(?:[^'\\]++|\\[\s\S])*+'")
_PART = re.compile(r"\\.|[\"'()\[\]{}]", re.DOTALL)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
#: What is no secret, and what stands for one in SQL.
_NOTHING = re.compile(r"(?:(?:null|true|false|None|True|False)\b|%s|%\(\w++\)s|\$[0-9]++|\?|:\w++)(?=[\s,;)\]}&'\"]|\Z)")
_VALUE = re.compile(rf"({_NOTHING.pattern})|{_QUOTED.pattern}|({_WHOLE.pattern})|{_RUN}")
_IS_NOTHING, _IS_WHOLE = 1, 2  # the group of `_VALUE` that matched
_HEADER = re.compile(rf"(?i:{'|'.join(HEADERS)})[ \t]?:[ \t]*+(?=[^\s'\"])", re.ASCII)
_COUPLE = re.compile(rf"[(\[]b?(\\*+[\"'])({_NAME}++)\1,[ ]?(?=b?\\*+[\"'])", re.ASCII)
_BARE = re.compile(r"[^\s,}\])]*+")
_AUTHORITY = r"(?:(?<=//)|(?<=/\\/))"
_USER_RUN = re.compile(rf"{_AUTHORITY}[^/?#\s\"]++")
#: A user that is none, ``git`` and a mask stay. What is put in the place of the match is a constant: no function is called.
_USER = re.compile(rf"/{_AUTHORITY}(?!(?:git|\*\*\*)?@[^/?#\s\"@]*+(?!@))[^/?#\s\"]*@")
_ODD_NAME = r"[^/?#\s\"@:]++:(?![0-9]{1,5}(?:[/?#\s]|\Z))"
_ODD_HINT = re.compile(rf"/{_ODD_NAME}")
_ODD_RUN = re.compile(rf"{_AUTHORITY}{_ODD_NAME}[^\s\"'<>]++")
#: A password with signs that no URL may hold, which people do write into addresses of databases; a port is none.
#: What follows it is the first group; the second is a run without a user, which is taken whole so that none begins within it.
_ODD_USER = re.compile(rf"{_AUTHORITY}(?:{_ODD_NAME}[^\s\"'<>]*(@[^\s\"'<>@]*+)|({_ODD_NAME}[^\s\"'<>]++))")
_MEMBER = re.compile(rf"(?<!\\)(\\*+[\"'])({_NAME}++)\1\s*+:\s*+", re.ASCII)
_CUT = "...[cut:"


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


def without_pairs(text: str, secrets_among: SecretsAmong) -> str:
    """Return *text* with a mask for each value after ``name=``."""
    secrets = secrets_among(_PAIR.findall(text))
    if not secrets:
        return text
    # ``authorization=Bearer abc``: what follows a scheme belongs to it, whatever form it has.
    schemes = {name for name in secrets if "auth" in name.lower()}
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _PAIR.finditer(text):
        name = found[1]
        if name not in secrets:
            continue
        begin, start = found.span()
        # What an earlier value has swallowed is gone.
        if begin < end:
            continue
        value = _VALUE.match(text, start)
        if value is not None and value.lastindex != _IS_NOTHING:
            end = _end_of_value(text, begin, value, may_be_scheme=name in schemes)
            cuts.append((start, end))
    return _masked(text, cuts)


def without_headers(text: str) -> str:
    """Return *text* with a mask for the rest of each line that begins like a header which carries a secret."""
    small = text.lower()
    if not any(name in small for name in HEADERS):
        return text
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in _HEADER.finditer(text):
        if found.start() >= end:
            start, end = found.end(), _end(_REST_OF_HEADER, text, found.end())
            cuts.append((start, end))
    return _masked(text, cuts)


def _end_of_value(text: str, name: int, value: re.Match[str], *, may_be_scheme: bool) -> int:
    start = value.start()
    if name > 0 and text[name - 1] in "?&":
        return _end(_RUN_IN_URL, text, start)
    if value.lastindex == _IS_WHOLE:
        return _end_of_whole(text, start)
    if may_be_scheme and _SCHEME.match(text, start):
        return _end(_REST_OF_LINE, text, start)
    return value.end()


def _end(expression: re.Pattern[str], text: str, start: int) -> int:
    found = expression.match(text, start)
    return start if found is None else found.end()


def _end_of_whole(text: str, start: int) -> int:
    """Return where a value that `_WHOLE` begins ends."""
    begin = _end(_PREFIX, text, start)
    quote = _QUOTE.match(text, begin)
    if quote is not None:
        return _end_of_quoted(text, quote.group(), quote.end())
    return _end_of_bracketed(text, begin)


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


def without_members(text: str, secrets_among: SecretsAmong) -> str:
    """
    Return *text* with a mask for each value after ``"name":`` and in ``("name", "value")``.

    As JSON and `repr()` write them, also within a text in a text.
    """
    text = _without_values(_MEMBER, text, secrets_among)
    return _without_values(_COUPLE, text, secrets_among) if "(" in text or "[" in text else text


def _without_values(expression: re.Pattern[str], text: str, secrets_among: SecretsAmong) -> str:
    secrets = secrets_among([name for _, name in expression.findall(text)])
    if not secrets:
        return text
    cuts: list[tuple[int, int]] = []
    end = 0
    for found in expression.finditer(text):
        if found[2] in secrets and found.start() >= end:
            start, end = _member_value(text, found.end())
            if expression is _MEMBER or text[end + len(found[1]) : end + len(found[1]) + 1] in {")", "]"}:
                cuts.append((start, end))
    return _masked(text, cuts)


def _member_value(text: str, start: int) -> tuple[int, int]:
    """Return where the value of a member begins and ends; of a quoted one, the quotation marks stay."""
    if simple := _QUOTED.match(text, start):
        return start + 1, simple.end() - 1
    begin = _end(_PREFIX, text, start)
    quote = _QUOTE.match(text, begin)
    if quote is not None:
        end = _end_of_quoted(text, quote.group(), quote.end())
        closed = text.endswith(quote.group(), quote.end(), end)
        return quote.end(), end - len(quote.group()) if closed else end
    if _NOTHING.match(text, start):
        return start, start
    return start, _end_of_whole(text, start) if _WHOLE.match(text, start) else _end(_BARE, text, start)


def without_users(text: str, *, cut: bool = False) -> str:
    """
    Return *text* with a mask for what stands before the ``@`` of each URL.

    Args:
        text: Perhaps with the mark of a cut at its end.
        cut: Whether it was cut and the mark is yet to come: behind the cut there may have been an ``@``.
    """
    if "//" not in text and "/\\/" not in text:
        return text
    text = _without_cut_user(_USER_RUN, text, cut=cut)
    if "@" in text:
        text = _USER.sub(f"/{MASK}@", text)
    if ":" not in text or not _ODD_HINT.search(text):
        return text
    text = _without_cut_user(_ODD_RUN, text, cut=cut)
    return _without_odd_users(text) if "@" in text else text


def _without_odd_users(text: str) -> str:
    parts: list[str | None] = _ODD_USER.split(text)
    parts[1::3] = [host and MASK + host for host in parts[1::3]]
    return "".join(filter(None, parts))


def _without_cut_user(expression: re.Pattern[str], text: str, *, cut: bool) -> str:
    """Return *text* with a mask for what could be a user and a password whose ``@`` is behind the cut."""
    end = len(text) if cut else text.find(_CUT)
    if end < 0:
        return text
    # None of the expressions takes white space or a quotation mark: what holds the cut begins behind the last of them.
    before = text[:end]
    run = "" if before[-1:].isspace() else before.rsplit(None, 1)[-1:][0].rpartition('"')[2] if before else ""
    if ":" in run:
        begin = end - len(run)
        for found in expression.finditer(text, max(begin, text.rfind("/", begin, end)) if expression is _USER_RUN else begin):
            if found.end() >= end:
                if found.start() <= end and "@" not in found.group() and ":" in text[found.start() : end]:
                    return text[: found.start()] + MASK + text[end:]
                break
    return text


def _masked(text: str, cuts: list[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in cuts:
        if end > start:
            parts += [text[at:start], MASK]
            at = end
    return "".join([*parts, text[at:]]) if parts else text
