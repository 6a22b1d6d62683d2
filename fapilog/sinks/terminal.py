"""
What may reach a terminal: text without control characters, and colours where they are wanted.

Invariants:

1. What `clean()` returns has no character that moves the cursor, ends a line, starts an escape sequence, changes the direction of
   text or cannot be seen: each is shown as its escape.
2. What `json_for_terminal()` and `json_in_ascii()` return says the same as before, as JSON.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Returns a text in the colour of a code of SGR parameters, such as ``1;31``.
    Paint = Callable[[str, str], str]

#: Control characters (C0, DEL, C1), line and paragraph separators, invisible and reordering characters of Unicode's category Cf
#: (bidi marks and isolates, zero-width ones, soft hyphen, BOM, interlinear and musical marks, tags) and lone surrogates. What is
#: left of Cf are Arabic, Syriac and other number signs, which can be seen.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_MARK = re.compile(r"\.\.\.\[cut: [0-9]+ [a-z]+\]$")
_LONGEST_MARK = 48


def clean(text: str) -> str:
    r"""Return *text* with what a terminal must not get shown as escapes such as ``\x1b``, ``\n``, ``\u202e``."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escape, text)


def is_clean(text: str) -> bool:
    """Whether `clean()` would leave *text* as it is."""
    return not _UNSAFE.search(text)


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def shortened(text: str, limit: int) -> str:
    """
    Return *text* cut to *limit* characters, with the mark of a cut value when it was longer.

    A value that was cut before keeps the size that its mark names. The mark comes on top of the limit.
    """
    if len(text) <= limit:
        return text
    earlier = _MARK.search(text, len(text) - _LONGEST_MARK)
    if earlier:
        return text[: min(limit, earlier.start())] + earlier.group()
    return f"{text[:limit]}...[cut: {len(text.encode('utf-8', 'surrogatepass'))} bytes]"


def json_for_terminal(line: bytes) -> bytes:
    """Return *line*, JSON in UTF-8, with what a terminal must not get as JSON escapes; its newline stays."""
    text = line.decode("utf-8", "backslashreplace").removesuffix("\n")
    if is_clean(text):
        return line
    return (_UNSAFE.sub(_json_escape, text) + "\n").encode("utf-8")


def json_in_ascii(line: bytes, encoding: str) -> bytes:
    """Return *line*, JSON in UTF-8, with every character beyond ASCII as a JSON escape where *encoding* lacks one of them."""
    if line.isascii():
        return line
    text = line.decode("utf-8", "backslashreplace")
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return _BEYOND_ASCII.sub(_json_escape, text).encode("ascii")
    return line


def _json_escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def plain(text: str, _code: str) -> str:
    """Return *text*; the `Paint` without colours."""
    return text


def ansi(text: str, code: str) -> str:
    """Return *text* between the escape sequences that switch a colour on and off."""
    return f"\x1b[{code}m{text}\x1b[0m" if text and code else text


def wants_colours(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """
    Whether to colour what a person reads; the first that says something decides.

    1. `NO_COLOR`, set and not empty: no (https://no-color.org).
    2. `FORCE_COLOR`, set and not empty: yes, also off a terminal; ``0`` and ``false`` mean no.
    3. `TERM` is ``dumb``: no.
    4. Whether it is a *terminal*.
    """
    if environ.get("NO_COLOR"):
        return False
    if forced := environ.get("FORCE_COLOR"):
        return forced.lower() not in {"0", "false"}
    return terminal and environ.get("TERM") != "dumb"
