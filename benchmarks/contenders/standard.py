"""The standard library's logging, and what takes its place: with a formatter that makes one JSON object of a record."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.contenders.session import Session
from benchmarks.event import AS_EXTRA, FIELDS, NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class JsonFormatter(logging.Formatter):
    """With the standard library's own encoder, as the cookbook has it."""

    _own = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields = {key: value for key, value in vars(record).items() if key not in self._own}
        head = {"timestamp": self.formatTime(record), "level": record.levelname, "logger": record.name}
        return json.dumps({**head, "event": record.getMessage(), **fields})


def _session(handler: logging.Handler, close: Callable[[], object]) -> Session:
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers[:] = [handler]
    return Session(log, close, call=AS_EXTRA)


def _formatted(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(JsonFormatter())
    return handler


def open_file(directory: Path) -> Session:
    """A `FileHandler`, one write and flush an event."""
    handler = _formatted(logging.FileHandler(directory / "bench.jsonl"))
    return _session(handler, handler.close)


def open_queue(directory: Path) -> Session:
    """A `QueueHandler`, whose queue has no bound, and a `QueueListener` with a `FileHandler`."""
    handler = _formatted(logging.FileHandler(directory / "bench.jsonl"))
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, handler)
    listener.start()

    def close() -> None:
        listener.stop()
        handler.close()

    return _session(logging.handlers.QueueHandler(waiting), close)


def open_concurrent(directory: Path) -> Session:
    """concurrent-log-handler: a lock file for each event, so that processes may share a file."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    handler = _formatted(ConcurrentRotatingFileHandler(str(directory / "bench.jsonl"), maxBytes=1 << 40))
    return _session(handler, handler.close)


def open_picologging(directory: Path) -> Session:
    """picologging, which takes no `extra`, and whose times as text are sometimes none: the caller encodes the fields."""
    import picologging

    handler = picologging.FileHandler(str(directory / "bench.jsonl"))
    form = '{"timestamp":%(created)f,"level":"%(levelname)s","logger":"%(name)s","extra":%(message)s}'
    handler.setFormatter(picologging.Formatter(form))
    log = picologging.Logger("bench", picologging.INFO)
    log.addHandler(handler)
    call = f"log.{{level}}(dumps({ {'event': NAME, **FIELDS}!r}).decode())"

    def close() -> None:
        handler.flush()
        handler.close()

    return Session(log, close, call=call, names={"dumps": orjson.dumps})
