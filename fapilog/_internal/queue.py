"""
The queue, its worker and the processor that feeds it, under one roof.

`EventQueue` (`line_queue.py`) and `QueueWorker` (`worker.py`) state their own invariants. `queue_sink` has two:

1. With a worker it takes the event and raises `structlog.DropEvent`, so that nothing behind it writes the event again.
2. Without one it loses nothing: it hands the event on for synchronous output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from fapilog import pipeline
from fapilog._internal.chain import Taken, event_dict_of
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.route import route
from fapilog._internal.worker import QueueWorker

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["EventQueue", "QueueWorker", "queue_sink"]


def queue_sink(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> Any:
    """
    Be the last processor of a structlog chain of your own: put the event into fapilog's queue.

    Any thread. The target is the worker given to `fapilog.bootstrap.use_worker()`, else the hub of this process.

    Returns:
        Only when there is neither: the event, rendered to one JSON line if this is the end of the configured chain and the
        wrapped logger prints text or bytes, otherwise unchanged for the processor that follows.

    Raises:
        structlog.DropEvent: The event was taken (delivered or counted from here on).
    """
    if route.by_hand is None and not route.configured:
        return _handed_on(logger, method_name, event_dict)
    try:
        pipeline.emit_dict(logger, method_name, event_dict)
    except RecursionError:  # the stack is at its end
        route.unplaced += 1
    raise Taken


def _handed_on(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> Any:
    chain = structlog.get_config()["processors"]
    printer = isinstance(logger, structlog.PrintLogger | structlog.WriteLogger | structlog.BytesLogger)
    if not printer or not chain or chain[-1] is not queue_sink:
        return event_dict
    line = pipeline.head_of(event_dict_of(event_dict), method_name)[1] + b"}"
    return line if isinstance(logger, structlog.BytesLogger) else line.decode("utf-8")
