"""
How `fapilog tail` shows an event: as JSON, for people, or as logfmt. Pure.

Invariants:

1. An event is one line, in the console form with its traceback below. Nothing that a value holds can begin another one, and no
   control character reaches a terminal.
2. JSON that is neither chosen from nor for a terminal is the line as it stands in the file.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import orjson

from fapilog.cli.picking import MISSING, text_of, value_of
from fapilog.errors import ConfigurationError
from fapilog.sinks.console import shown
from fapilog.sinks.terminal import clean, is_clean, json_for_terminal, wants_colours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Form = Callable[[bytes], bytes]

FORMS = ("console", "json", "logfmt")
_COLUMNS = ("timestamp", "level", "event", "logger", "worker")
_NO_KEY = re.compile(r"[\s=\"]+")
_NOT_BARE = re.compile(r"[\s=\"\\]")


def form_of(name: str, fields: Sequence[str], environ: Mapping[str, str], *, terminal: bool) -> Form | None:
    """
    Return what turns a line without its end into what is printed, without its end; None if that is the line.

    Args:
        name: One of `FORMS`, or ``auto``: for people on a terminal, else JSON.
        fields: Which to show; all if there are none. In the console form, besides those that have a column.
        environ: What may say whether there are colours.
        terminal: Whether a terminal shows it.

    Raises:
        ConfigurationError: There is no such form.
    """
    form = name if name != "auto" else "console" if terminal else "json"
    if form not in FORMS:
        raise ConfigurationError(f"--format {name}: must be one of {', '.join(FORMS)}")
    if form == "console":
        return functools.partial(_console, fields, wants_colours(environ, terminal=terminal))
    if form == "logfmt":
        return functools.partial(_logfmt, fields)
    if fields:
        return functools.partial(_chosen_json, fields, terminal)
    return _json_on_terminal if terminal else None


def _console(fields: Sequence[str], colours: bool, line: bytes) -> bytes:
    if fields:
        found = orjson.loads(line)
        line = orjson.dumps({name: found[name] for name in _COLUMNS if name in found} | _chosen(fields, found))
    return shown(line, colours=colours, worker=True).rstrip("\n").encode("utf-8", "backslashreplace")


def _chosen(fields: Sequence[str], found: dict[str, Any]) -> dict[str, Any]:
    values = ((name, value_of(found, name)) for name in fields)
    return {name: value for name, value in values if value is not MISSING}


def _json_on_terminal(line: bytes) -> bytes:
    return json_for_terminal(line + b"\n").rstrip(b"\n")


def _chosen_json(fields: Sequence[str], terminal: bool, line: bytes) -> bytes:
    chosen = orjson.dumps(_chosen(fields, orjson.loads(line)))
    return _json_on_terminal(chosen) if terminal else chosen


def _logfmt(fields: Sequence[str], line: bytes) -> bytes:
    found = orjson.loads(line)
    chosen = _chosen(fields, found) if fields else found
    return " ".join(f"{_key(name)}={_value(value)}" for name, value in chosen.items()).encode("utf-8", "backslashreplace")


def _key(name: str) -> str:
    return clean(_NO_KEY.sub("_", name)) or "_"


def _value(value: Any) -> str:
    text = text_of(value)
    if text and is_clean(text) and not _NOT_BARE.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{clean(escaped)}"'
