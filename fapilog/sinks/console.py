"""
The console form: events for people, from their JSON lines.

::

    10:30:00.123 info     w1  invoice_sent                 customer=4711 total="19.90" [billing.jobs]

Invariants:

1. An event is one line; only one with an `exception` or a `stack` has more, all of which begin with `INDENT`. An event's own
   line never begins with a blank. So no value, whatever it holds, can pass for the start of an event.
2. No control character, line end, direction mark or invisible character of a value comes out raw (`terminal.clean()`).
3. It is bounded: a value has at most `VALUE_LIMIT` characters, the fields of an event `FIELDS_LIMIT`, a traceback
   `tracebacks.LINES_LIMIT` lines, each cut with the mark. The JSON form is complete.
4. `shown()` never raises an `Exception`. It needs nothing but the line: no hub, not the process of the event; only what it is
   given as *source* reads files.

The time is the local one, of the time zone of the process that shows it, without the date; the JSON form has both, in UTC.
"""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fapilog.identity import HUB_FIELDS
from fapilog.sinks.terminal import ansi, clean, is_clean, plain, shortened
from fapilog.sinks.tracebacks import no_source, stack_lines, traceback_lines
from fapilog.typing import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.sinks.terminal import Paint
    from fapilog.sinks.tracebacks import Source

INDENT = "    "
VALUE_LIMIT = 4_096
KEY_LIMIT = 256
FIELDS_LIMIT = 32_768
LEVEL_WIDTH, WORKER_WIDTH, EVENT_WIDTH = 8, 3, 28

_IN_COLUMNS = frozenset(("timestamp", "level", "event", "logger", *HUB_FIELDS))
_DIM, _EVENT, _KEY, _LOGGER, _WORKER = "2", "1", "36", "34", "35"
_LEVELS = {"debug": "36", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_NO_TIME = "--:--:--.---"
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2})(:[0-9]{2})(?:\.([0-9]{1,9}))?Z")
#: What has to stand in quotes to be seen as one text: blanks, ``=``, a quote; and what JSON would read as something else.
_NOT_BARE = re.compile(r"[\s=\"]|^[\[{]|^(?:true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$")


def shown(line: bytes, *, colours: bool = False, worker: bool = False, source: Source = no_source) -> str:
    """
    Return *line*, an event as JSON from wherever, in the console form, its newline included; any thread.

    What cannot be read as an event is shown clean and cut, and said to be unreadable.

    Args:
        line: In UTF-8, with or without its newline.
        colours: With the escape sequences of a terminal's colours.
        worker: With a column for the worker number: for several processes on one terminal.
        source: What to ask for the code of a traceback's frames; by default there is none.
    """
    try:
        return render(_decoded(line), colours=colours, worker=worker, source=source)
    except Exception:
        text = line[:FIELDS_LIMIT].decode("utf-8", "backslashreplace").rstrip("\r\n")
        mark = f"...[cut: {len(line)} bytes]" if len(line) > FIELDS_LIMIT else ""
        return f"(unreadable) {clean(text)}{mark}\n"


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        return decode(line)
    except ValueError:
        return dict(json.loads(line))  # orjson refuses the escape of a lone surrogate, which others write


def render(fields: dict[str, Any], *, colours: bool = False, worker: bool = False, source: Source = no_source) -> str:
    """Return the event that *fields* says in the console form, its newline included; see `shown()`."""
    paint = ansi if colours else plain
    stack = stack_lines(fields.get("stack"), source)
    exception = traceback_lines(fields.get("exception"), paint, source)
    below = {name for name, lines in (("stack", stack), ("exception", exception)) if lines}
    pairs = {name: value for name, value in fields.items() if name not in _IN_COLUMNS and name not in below}
    first = " ".join([*_columns(fields, paint, worker=worker), *_pairs(pairs, paint), *_logger(fields, paint)]).rstrip(" ")
    return "\n".join([first, *(INDENT + line for line in [*(stack or ()), *(exception or ())]), ""])


def _columns(fields: dict[str, Any], paint: Paint, *, worker: bool) -> Iterator[str]:
    yield paint(_time(fields.get("timestamp")), _DIM)
    level = _bare(fields.get("level", ""))
    yield _padded(level, LEVEL_WIDTH, paint, _LEVELS.get(level, ""))
    if worker:
        yield _padded(f"w{_bare(fields.get('worker', '?'))}", WORKER_WIDTH, paint, _WORKER)
    yield _padded(_bare(fields.get("event", "")), EVENT_WIDTH, paint, _EVENT)


def _pairs(fields: dict[str, Any], paint: Paint) -> Iterator[str]:
    left = FIELDS_LIMIT
    for name, value in fields.items():
        key = _text(shortened(name, KEY_LIMIT))
        text = _old_exception(value) if name == "exception" else _value(value)
        left -= len(key) + len(text)
        if left < 0:
            yield f"...[cut: {len(fields)} items]"
            return
        yield f"{paint(key, _KEY)}={text}"


def _logger(fields: dict[str, Any], paint: Paint) -> Iterator[str]:
    if fields.get("logger"):
        yield paint(f"[{_bare(fields['logger'])}]", _LOGGER)


def _time(stamp: Any) -> str:
    found = _TIMESTAMP.fullmatch(stamp) if isinstance(stamp, str) else None
    if found is None:
        return _NO_TIME if stamp in (None, "") else _value(stamp)
    minute, second, fraction = found.groups()
    return f"{_local(minute)}{second}.{fraction or '':0<3.3}"


@lru_cache(maxsize=64)  # a minute's first event asks: libc answers under a lock, which a fork at that moment would leave held
def _local(minute: str) -> str:
    try:
        return f"{datetime.fromisoformat(f'{minute}+00:00').astimezone():%H:%M}"
    except (ValueError, OverflowError, OSError):  # a month 13, the year 9999
        return minute[-5:]


def _padded(text: str, width: int, paint: Paint, code: str) -> str:
    return paint(text, code) + " " * (width - _width(text))


def _width(text: str) -> int:
    """Return how many cells of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in {"W", "F"} else not unicodedata.combining(each) for each in text)


def _bare(value: Any) -> str:
    """Return a text as it is, if clean and cut; anything else as a value."""
    return clean(shortened(value, VALUE_LIMIT)) if isinstance(value, str) else _value(value)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(shortened(value, VALUE_LIMIT))
    return clean(shortened(_dumps(value), VALUE_LIMIT))


def _text(text: str) -> str:
    """Return *text*, in quotes where it would not be seen as one text without them."""
    if text and is_clean(text) and not _NOT_BARE.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{clean(escaped)}"'


def _old_exception(found: Any) -> str:
    """Return an exception on one line; for those of structlog's own form, which version 0.1 wrote, what and where it was."""
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict) or "exc_type" not in first:
        return _value(found)
    frames = first.get("frames")
    last = frames[-1] if isinstance(frames, list) and frames else None
    where = f" at {last.get('filename')}:{last.get('lineno')}" if isinstance(last, dict) else ""
    return _value(f"{first['exc_type']}: {first.get('exc_value')}{where}")
