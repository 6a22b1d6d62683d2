"""Label sets as Loki writes and reads them: ``{name="value", other="quoted as in Go"}``, sorted by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_SHORT = {char: f"\\{letter}" for letter, char in _ESCAPES.items() if letter != "'"}
_NUMBER = re.compile(r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}")
_SPACE = " \t\r\n"


class LabelError(ValueError):
    """The text of a label set cannot be parsed."""


def quote(text: str) -> str:
    """Return *text* as Go's strconv.Quote writes it."""
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def label_text(labels: Mapping[str, str]) -> str:
    """Return the label set as Loki shows it in its messages."""
    return "{" + ", ".join(f"{name}={quote(labels[name])}" for name in sorted(labels)) + "}"


def check_name(name: str) -> None:
    """Raise `LabelError` where *name* is no name of a label."""
    if not _NAME.fullmatch(name):
        raise LabelError(f"1:2: parse error: unexpected character inside braces: {name[:40]!r}")


def parse_labels(text: str, *, names_checked: bool = True) -> list[tuple[str, str]]:
    """
    Return the pairs of a label set's text, in its order.

    Raises:
        LabelError: It is no label set.
    """
    reader = _Reader(text)
    pairs: list[tuple[str, str]] = []
    reader.take("{")
    while not reader.have("}"):
        name = reader.name(checked=names_checked)
        reader.take("=")
        pairs.append((name, reader.value()))
        if not reader.have(","):
            reader.take("}")
            break
    if reader.rest():
        raise reader.error("text after the closing brace")
    return pairs


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str) -> LabelError:
        return LabelError(f"1:{self.at + 1}: parse error: {what}")

    def rest(self) -> str:
        while self.text[self.at : self.at + 1] in set(_SPACE):
            self.at += 1
        return self.text[self.at :]

    def have(self, char: str) -> bool:
        found = self.rest().startswith(char)
        self.at += found
        return found

    def take(self, char: str) -> None:
        if not self.have(char):
            raise self.error(f"unexpected {self.rest()[:1]!r}, expected {char!r}")

    def name(self, *, checked: bool) -> str:
        """Read a name; VictoriaLogs takes any and quotes it where it is no plain one."""
        rest = self.rest()
        if not checked and rest.startswith('"'):
            return self.value()
        found = _NAME.match(rest) if checked else re.match(r"[^=,{}\s]+", rest)
        if found is None:
            raise self.error(f"unexpected character inside braces: {rest[:1]!r}")
        self.at += found.end()
        return found[0]

    def value(self) -> str:
        rest = self.rest()
        if rest.startswith("`"):
            end = rest.find("`", 1)
            if end < 0:
                raise self.error("unterminated raw string")
            self.at += end + 1
            return rest[1:end]
        if not rest.startswith('"'):
            raise self.error(f"unexpected {rest[:1]!r}, expected a string")
        return self._quoted_value()

    def _quoted_value(self) -> str:
        made = bytearray()
        self.at += 1
        while (char := self.text[self.at : self.at + 1]) != '"':
            if char in {"", "\n"}:
                raise self.error("unterminated quoted string")
            self.at += 1
            made += self._escape() if char == "\\" else char.encode()
        self.at += 1
        try:
            return made.decode()
        except UnicodeDecodeError:
            raise self.error("invalid UTF-8 in a quoted string") from None

    def _escape(self) -> bytes:
        letter = self.text[self.at : self.at + 1]
        if letter in _ESCAPES:
            self.at += 1
            return _ESCAPES[letter].encode()
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            raise self.error("unknown escape sequence")
        self.at = number.end()
        kind, digits = number[0][0], number[0][1:]
        if kind == "x":
            return bytes([int(digits, 16)])
        if kind in "uU":
            return chr(int(digits, 16)).encode()
        return bytes([int(number[0], 8)])
