"""
The current span of OpenTelemetry, as fields of an event; and how its instrumentation is kept from our own requests.

Source: "Trace Context in non-OTLP Log Formats" of the OpenTelemetry specification, which names the fields.

Invariants:

1. OpenTelemetry is never imported here: an application that has not imported it pays for one look into a dict.
2. Nothing is raised, whatever the span is or does.
3. What is remembered is one span's fields, for the events that follow within it; threads may overwrite it at any time.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "opentelemetry.trace"
CONTEXT = "opentelemetry.context"
SUPPRESS = "suppress_instrumentation"  # a key that all instrumentation looks at
loaded: dict[str, Any] = sys.modules

_NONE: dict[str, str] = {}
_last: tuple[Any, dict[str, str]] = (None, _NONE)


def span_fields() -> dict[str, str]:
    """Return the identifiers of the current span, in hexadecimal, and its flags; nothing without one. Not to be changed."""
    global _last
    try:
        context = loaded[MODULE].get_current_span().get_span_context()
        known, fields = _last
        if known is context:
            return fields
        if not context.is_valid:
            return _NONE
        fields = {
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "trace_flags": f"{context.trace_flags & 0xFF:02x}",
        }
    except Exception:  # the module is being imported by another thread, or is not OpenTelemetry's
        return _NONE
    _last = (context, fields)
    return fields


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Let OpenTelemetry's instrumentation of other libraries make no spans inside."""
    context: Any = loaded.get(CONTEXT)
    try:
        keys = {SUPPRESS, getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", SUPPRESS)}
        wanted = context.get_current()
        for key in keys:
            wanted = context.set_value(key, True, wanted)
        token = context.attach(wanted)
    except Exception:  # not there, or half imported
        yield
        return
    try:
        yield
    finally:
        context.detach(token)
