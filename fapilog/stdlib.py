"""
From the standard library's logging into the pipeline.

Invariants:

1. A record is read, never changed: other handlers see it as it was.
2. Nothing here raises, waits or takes a lock; the handler has none of its own, so a fork cannot leave it held.
3. `close()` is harmless: `logging.config.dictConfig()` calls it on every handler there is, and ours goes on.
4. %-arguments are formatted as the standard library does; what does not fit is shown beside the raw text. A message that is a
   dict, as structlog's `ProcessorFormatter.wrap_for_formatter` makes it, is an event with its fields; so is the JSON object that
   a renderer of structlog's has made, if structlog is what calls the logger. Other texts stay texts, whatever they look like.
   A dict without an ``event`` is named by its ``msg`` or ``message``, if that is a text, else by the record's logger.
5. What is logged while an event is being delivered (by a sink, or the HTTP client that it calls) does not come back as an event;
   a warning or worse is noted on stderr. The application's own use of the same client, on its own threads, is logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from fapilog._internal.chain import event_in, unrendered
from fapilog._internal.formatting import beside
from fapilog._internal.forms import name_of
from fapilog._internal.gates import gates
from fapilog._internal.native import delivers
from fapilog._internal.notes import note
from fapilog._internal.route import route
from fapilog._internal.settling import keep
from fapilog.encoding import safe_text
from fapilog.logger import processors
from fapilog.pipeline import LEVEL_NAMES, emit

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_FOR_TERMINALS = {"color_message"}  # uvicorn's: the message again, with escapes
MAX_RENDERED = 1 << 20  # characters of a rendered event that is taken apart again
_FRAMES = 24  # that lie between structlog's call and us, at most
_FOR_STRUCTLOG = {"_logger", "_name"}  # what `wrap_for_formatter` tells the formatter


class HubHandler(logging.Handler):
    """
    A `logging.Handler` that logs each record as an event: its message, its `extra` as fields, its exception and stack.

    Args:
        level: Records below it are left alone.
        obeys: Whether `FAPILOG_LEVEL` decides too. A server has a level of its own; of ours it obeys only a rule that names its
            logger, such as ``INFO,gunicorn.error=WARNING``.
    """

    def __init__(self, level: int = logging.NOTSET, *, obeys: bool = True) -> None:
        super().__init__(level)
        self._obeys = obeys

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Make no lock."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take *record* if the filters let it through."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Log *record* as an event; any thread, never raises an `Exception`."""
        try:
            if delivers():
                _cut(record)
            elif record.levelno >= ((gates.of(record.name).level if self._obeys else gates.rule_of(record.name)) or 0):
                self.log(record)
        except RecursionError:  # no frames left for a note either
            route.unplaced += 1
        except Exception as error:  # a record that somebody made by hand, without a level or a name, say
            note("stdlib", f"a record of the standard library's logging could not be logged: {error!r}")

    def log(self, record: logging.LogRecord) -> None:
        """Log *record*, which passed its level."""
        levelno = max(10, min(50, record.levelno // 10 * 10))
        try:
            told = _event_dict(record)
            event = message_of(record) if told is None else _event_of(told, record)
            fields = fields_of(record, told)
        except Exception as error:
            event, fields = safe_text(record.msg), {"pipeline_error": safe_text(error)}
        emit(levelno, LEVEL_NAMES[levelno], record.name, event, {}, fields, processors)


def message_of(record: logging.LogRecord) -> str:
    """Return the message with its arguments, however badly they fit."""
    try:
        return record.getMessage()
    except Exception:
        return beside(record.msg, record.args if type(record.args) is tuple else (record.args,))


def fields_of(record: logging.LogRecord, told: dict[Any, Any] | None) -> dict[str, Any]:
    """
    Return what the record carries beside its message: `extra`, and the exception and stack in the pipeline's form.

    Args:
        record: It.
        told: The event dict that its message is, if it is one.
    """
    fields = {
        name: value for name, value in list(record.__dict__.items()) if name not in _STANDARD and name not in _FOR_TERMINALS
    }
    if told is not None:
        fields = {name: value for name, value in fields.items() if name not in _FOR_STRUCTLOG}
        fields.update((name, value) for name, value in told.items() if name != "event")
        if fields.get("logger") == record.name:
            del fields["logger"]
    if record.exc_info:
        if told is not None and _is_rendering(fields.get("exception"), record.exc_info):
            del fields["exception"]
        fields["exc_info"] = record.exc_info
    if record.stack_info:
        keep(fields, "stack")
        fields["stack"] = record.stack_info
    return fields


def _event_dict(record: logging.LogRecord) -> dict[Any, Any] | None:
    """Return the event dict that the message of *record* is, or that structlog has rendered it from; None for other messages."""
    msg: Any = record.msg
    if record.args:
        return None
    if isinstance(msg, dict):
        return msg
    if type(msg) not in (str, bytes) or len(msg) > MAX_RENDERED or msg[:1] not in ("{", b"{") or not _comes_from_structlog():
        return None
    told = unrendered(msg)
    return None if told.get("event") is msg or event_in(told) is None else told


def _comes_from_structlog() -> bool:
    """
    Whether structlog has called the logger whose record is being handled.

    Asked of the stack, since the text itself proves nothing: in ``logging.info(text)`` it may be anybody's, who is not to choose
    the fields of an event.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - as the standard library's logging does
    for _ in range(_FRAMES):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "structlog":
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


def _event_of(told: dict[Any, Any], record: logging.LogRecord) -> Any:
    event = event_in(told)
    return record.name if event is None else event


def _is_rendering(shown: object, exc_info: Any) -> bool:
    """Whether *shown* is what one of structlog's processors has made of the exception that the record has too."""
    error = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) > 1 else exc_info
    return isinstance(shown, str | list) and name_of(type(error)) in str(shown)


def _cut(record: logging.LogRecord) -> None:
    if record.levelno >= logging.WARNING:
        note(
            f"cut {record.name}",
            f"{record.name} said while an event was being delivered, so it is not logged: {message_of(record)}",
        )
