"""
Patterns that are masked in any text: the built-in ones, and regular expressions of the user's.

Each built-in search takes time linear in the text. It begins with a character of a set, so that the library skips all others at
once, and where parts of a match stay, the text is split around the matches: no function is called for each.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from fapilog._internal.credentials import MASK

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEMES = {"bB": "earer|asic", "dD": "igest", "nN": "egotiate", "tT": "oken"}
_SCHEME = "|".join(f"(?<=[{first}])(?i:{rest})" for first, rest in _SCHEMES.items())
_ALSO_LETTERS = "\u0130\u0131\u017f\u212a"  # i, s and k, when case is ignored
#: The first group stays.
_BEARER = re.compile(rf"([bBdDnNtT](?<!\w[bBdDnNtT])(?:{_SCHEME})[ \t]+)[A-Za-z{_ALSO_LETTERS}0-9._~+/=-]{{8,}}+")
_JWT = re.compile(r"eyJ(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]*+)?")
#: The first group is the whole number.
_CARD = re.compile(
    r"([2-6](?<![0-9][2-6])(?:[0-9]{12,18}+|[0-9]{3}([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{4}|(?<=3)[0-9]{3}([ -])[0-9]{6}\3[0-9]{5}))"
    r"(?![0-9])"
)
_CARD_GROUPS = 3
_AS_NUMBERS = bytes.maketrans(b"0123456789", bytes(range(10)))
_AS_DOUBLED = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))


def search_for(pattern: str) -> Callable[[str], str]:
    """
    Return what masks the matches of *pattern* in a text.

    Args:
        pattern: ``bearer``, ``jwt``, ``card`` (numbers that a payment card could have), or a regular expression.
    """
    if pattern == "bearer":
        return _without_bearers
    if pattern == "card":
        return _without_cards
    return partial((_JWT if pattern == "jwt" else re.compile(pattern)).sub, MASK)


def _without_bearers(text: str) -> str:
    parts = _BEARER.split(text)
    parts[1::2] = [scheme + MASK for scheme in parts[1::2]]
    return "".join(parts)


def _without_cards(text: str) -> str:
    parts = _CARD.split(text)
    if len(parts) == 1:
        return text
    step = _CARD_GROUPS + 1
    numbers = parts[1::step]
    masked = {number: MASK if _is_card(number) else number for number in set(numbers)}
    texts = parts[::step]
    texts[1:] = [masked[number] + between for number, between in zip(numbers, texts[1:], strict=True)]
    return "".join(texts)


def _is_card(number: str) -> bool:
    """Whether the last digit of *number* is the one that Luhn's algorithm (ISO/IEC 7812-1, annex B) gives for those before it."""
    digits = number.encode().translate(None, b" -")
    parts = digits[::-2].translate(_AS_NUMBERS) + digits[-2::-2].translate(_AS_DOUBLED)
    return int.from_bytes(parts, "big") % 255 % 10 == 0  # 256 is 1 modulo 255: this is the sum of the bytes, far below 255
