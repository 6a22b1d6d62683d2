"""Loggers that take fields as keywords: structlog (the baseline) and loguru; and a function that does nothing."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.session import Session, nothing

if TYPE_CHECKING:
    from pathlib import Path


def open_structlog(directory: Path) -> Session:
    """structlog as its performance guide recommends, one write and flush an event."""
    import orjson
    import structlog

    file = open(directory / "bench.jsonl", "ab")  # noqa: SIM115 - closed by Session.close
    p = structlog.processors
    stamp, render = p.TimeStamper(fmt="iso", utc=True), p.JSONRenderer(serializer=orjson.dumps)
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[structlog.contextvars.merge_contextvars, p.add_log_level, p.format_exc_info, stamp, render],
        logger_factory=structlog.BytesLoggerFactory(file),
    )
    return Session(structlog.get_logger().bind(), file.close)


def _loguru(directory: Path, *, enqueue: bool) -> Session:
    from loguru import logger

    logger.remove()
    logger.add(directory / "bench.jsonl", level="INFO", serialize=True, enqueue=enqueue, backtrace=False, diagnose=False)
    return Session(logger, logger.remove, logger.complete)


def open_loguru(directory: Path) -> Session:
    """loguru into a file, synchronously."""
    return _loguru(directory, enqueue=False)


def open_loguru_queue(directory: Path) -> Session:
    """loguru into a file, through its queue for several processes."""
    return _loguru(directory, enqueue=True)


def noop(event: str, **fields: Any) -> None:
    """The floor: the price of a Python call that takes these keywords and does nothing."""


def open_noop(_directory: Path) -> Session:
    """Nothing at all."""
    return Session(SimpleNamespace(info=noop, debug=noop), nothing)
