"""
fapilog's own diagnostics: one line on stderr, rate-limited by kind, never through the pipeline.
"""

from __future__ import annotations

import os
import sys
import time

from fapilog.redaction import Redactor

INTERVAL = 30.0
_STDERR = 2
_last: dict[str, float] = {}
_redactor = Redactor()  # whatever `FAPILOG_REDACT` says: an error of a sink may show its address with the password


def forget() -> None:
    """Let every kind be noted again: what a forked child says is its own."""
    _last.clear()


def note(kind: str, message: str) -> None:
    """
    Write ``fapilog[pid]: message`` to stderr, at most once in `INTERVAL` seconds for each *kind*.

    Any thread, signal handler or moment; never raises. Written with one `os.write`, past Python's buffers, so that it takes no
    lock.
    """
    if sys.__stderr__ is None:  # the program was started without one: descriptor 2 may be anybody's file
        return
    now = time.monotonic()
    if now - _last.get(kind, -INTERVAL) < INTERVAL:
        return
    _last[kind] = now
    text = f"fapilog[{os.getpid()}]: {_redactor.text(message)}\n"
    try:
        os.write(_STDERR, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return
