"""
The console form: one readable line per event, for people.

Invariant: whatever the values hold, an event is one line and no control character of a value reaches the terminal.
"""

from __future__ import annotations

import json
import re
from typing import Any

from fapilog.identity import HUB_FIELDS
from fapilog.typing import decode

_HIDDEN = frozenset(("timestamp", "level", "event", "logger", "exception", *HUB_FIELDS))
_COLOURS = {"debug": "36", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_EVENT_WIDTH = 28


def clean(text: str) -> str:
    """Return *text* with control characters, line ends and direction marks shown as escapes."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return clean(value) if value and not re.search(r"[\s=\"]", value) else clean(json.dumps(value, ensure_ascii=False))
    return clean(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def shown(line: bytes, *, colours: bool) -> bytes:
    """Return *line*, an event as JSON, in the console form; a line that defies it comes out as it is, but clean."""
    try:
        return render(decode(line), colours=colours)
    except Exception:
        return clean(line.decode("utf-8", "backslashreplace").rstrip("\n")).encode("utf-8") + b"\n"


def render(fields: dict[str, Any], *, colours: bool) -> bytes:
    """Return the event that *fields* says as one line for a terminal, its newline included."""
    level = clean(str(fields.get("level", "")))
    shown_level = f"{level:<8}"
    if colours:
        shown_level = f"\x1b[{_COLOURS.get(level, '0')}m{shown_level}\x1b[0m"
    logger = fields.get("logger")
    parts = [
        clean(str(fields.get("timestamp", "")))[11:23],
        shown_level,
        f"{clean(str(fields.get('event', ''))):<{_EVENT_WIDTH}}",
    ]
    parts += [f"{clean(str(key))}={_shown(value)}" for key, value in fields.items() if key not in _HIDDEN]
    if logger:
        parts.append(f"[{clean(str(logger))}]")
    if fields.get("exception"):
        parts.append(_exception(fields["exception"]))
    return (" ".join(parts).rstrip() + "\n").encode("utf-8", "backslashreplace")


def _exception(found: Any) -> str:
    """Return type and message of the exception and where it was raised; the JSON form has the rest."""
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        return f"exception={_shown(found)}"
    first = found[0]
    frames = first.get("frames")
    last = frames[-1] if isinstance(frames, list) and frames else None
    where = f" at {clean(str(last.get('filename')))}:{last.get('lineno')}" if isinstance(last, dict) else ""
    return f"{clean(str(first.get('exc_type')))}: {clean(str(first.get('exc_value')))}{where}"
