"""
The user's own structlog processors, run as structlog would run them.

Invariants:

1. A processor gets a logger with a name, the name of the level and an event dict of the event's own, which it may change.
2. One that raises is named on the event (`processor_error`) and stops neither the event nor the processors after it; only
   `structlog.DropEvent` drops the event. One that returns None (its `return` was forgotten) is named too, and the event goes on
   as that processor left the dict that it was given.
3. The call site that structlog's processors look for is the caller of the log method, never a frame of ours.
4. Whatever the last one returns becomes fields again, so that what a renderer has put into a text is still found, redacted and
   labelled: a JSON object, and the arguments that structlog's renderers make for the standard library. Other texts are the event.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from fapilog.encoding import safe_text
from fapilog.typing import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextvars import Token

#: Where structlog's own async methods, which run in another thread, leave the frame of their caller for its processors.
_CALLER: Any = getattr(structlog.contextvars, "_ASYNC_CALLING_STACK", None)
_OTHER_NAMES = ("msg", "message")  # of the event
_FOR_FORMATTER = frozenset({"_logger", "_name"})


class Taken(structlog.DropEvent):
    """Raised instead of `structlog.DropEvent` when an event was not dropped but has gone its own way."""


class ForeignChain:
    """
    A user's processors and the logger they end in, as structlog joins the two: its method gets what the last one returns.

    Args:
        processors: The user's list itself: `structlog.testing.capture_logs` changes it in place.
        logger: Any object with methods named like levels.
    """

    __slots__ = ("logger", "processors")

    def __init__(self, processors: Iterable[Any], logger: Any) -> None:
        self.processors = processors
        self.logger = logger

    def __iter__(self) -> Iterator[Any]:
        yield from self.processors
        yield self.output

    def output(self, logger: Any, method_name: str, result: Any) -> Any:
        """Call the logger's method as structlog does."""
        method = getattr(logger, method_name)
        if isinstance(result, tuple):
            args, kwargs = result
            method(*args, **kwargs)
        elif isinstance(result, dict):
            method(**result)
        else:
            method(result)
        raise Taken


def run(
    processors: Iterable[Any], logger: Any, level: str, event: object, fields: dict[str, Any]
) -> tuple[object, dict[str, Any]]:
    """Return the event and the fields that *processors* make of these; `structlog.DropEvent` passes. Called by `emit()` only."""
    current: Any = {**(_without_event(fields) if "event" in fields else fields), "event": event}
    given = processors.logger if isinstance(processors, ForeignChain) else logger
    failed: list[str] = []
    token = _point_at_caller()
    try:
        for processor in processors:
            try:
                returned = processor(given, level, current)
            except structlog.DropEvent:
                raise
            except Exception as error:
                failed.append(f"{processor_name(processor)}: {safe_text(error)}")
            else:
                if returned is None:
                    failed.append(f"{processor_name(processor)}: returned None, not the event dict")
                else:
                    current = returned
    finally:
        if token is not None:
            _CALLER.reset(token)
    fields = dict(current) if current.__class__ is dict and "event" in current else unrendered(current)
    if failed:
        fields["processor_error"] = "; ".join(failed)
    if "logger" in fields and isinstance(fields["logger"], str) and fields["logger"] == logger.name:
        del fields["logger"]  # from `structlog.stdlib.add_logger_name`
    return fields.pop("event", event), fields


def processor_name(processor: Any) -> str:
    """Return the name of a processor for people."""
    try:
        return str(getattr(processor, "__qualname__", type(processor).__qualname__))
    except Exception:  # an object that fights back
        return "a processor"


def _without_event(fields: dict[str, Any]) -> dict[str, Any]:
    """Return *fields* with the one named ``event`` under a free name: the event itself has that one."""
    rest = dict(fields)
    value = rest.pop("event")
    name = "event_"
    while name in rest:
        name += "_"
    return {**rest, name: value}


def _point_at_caller() -> Token[Any] | None:
    """Say where the log method was called, unless one of structlog's async methods has said so already."""
    if _CALLER is None or _CALLER.get(None) is not None:
        return None
    frame = sys._getframe(3)  # noqa: SLF001 - as structlog itself does; behind run() and emit()
    while str(frame.f_globals.get("__name__")).startswith("fapilog.") and frame.f_back is not None:
        frame = frame.f_back
    token: Token[Any] = _CALLER.set(frame)
    return token


def unrendered(result: Any) -> dict[str, Any]:
    """Return an event dict of its own with what *result*, which the last processor of a chain returned, says; never raises."""
    try:
        if result.__class__ is dict or isinstance(result, Mapping):
            of_call = "event" not in result and "msg" in result and "extra" in result
            return _of_call((), dict(result)) if of_call else dict(result)
        if isinstance(result, str | bytes | bytearray):
            return _of_text(result)
        if isinstance(result, tuple):
            args, kwargs = result
            return _of_call(tuple(args), dict(kwargs))
    except Exception:  # neither what structlog allows nor what can be taken apart
        return {"event": result}
    return {"event": result}


def event_dict_of(result: Any) -> dict[str, Any]:
    """
    Return what a chain that ends in `queue_sink` gave it, as `unrendered()` does; never raises.

    Such a chain may have moved the event to another name (`EventRenamer`), where `event_in()` finds it. Of an event that a
    processor before has replaced by None nothing is left but that it happened.
    """
    if result is None:
        return {"event": None, "processor_error": "the processor before queue_sink returned None, not the event dict"}
    fields = unrendered(result)
    if fields.get("event") is None and (event := event_in(fields)) is not None:
        fields["event"] = event
    return fields


def event_in(fields: Mapping[Any, Any]) -> Any:
    """Return what *fields* say as ``event``; without that, the first text under a name that others give it, or None."""
    event = fields.get("event")
    if event is None:
        return next((fields[name] for name in _OTHER_NAMES if isinstance(fields.get(name), str)), None)
    return event


def _of_text(text: str | bytes | bytearray) -> dict[str, Any]:
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    if raw.lstrip().startswith(b"{"):
        try:
            return decode(raw)
        except ValueError:
            return {"event": text}
    return {"event": text}


def _of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what `wrap_for_formatter` or a `render_to_log_...` of `structlog.stdlib` has made into the arguments of a call."""
    fields = dict(kwargs)
    if not args and ("event" in fields or "msg" not in fields):  # an event dict as keywords
        return fields
    event, *positional = args or (fields.pop("msg"),)
    extra = fields.pop("extra", None)
    if isinstance(extra, Mapping):
        fields = {**{name: value for name, value in extra.items() if name not in _FOR_FORMATTER}, **fields}
    elif extra is not None:
        fields["extra"] = extra
    fields.update(unrendered(event))
    if positional:
        fields["positional_args"] = tuple(positional)
    return fields
