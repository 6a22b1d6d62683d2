"""What the tests of structlog's promises share: a configured process, loggers of both kinds, and what they logged."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import structlog

import fapilog
from tests._support import caught_events

LEVELS = ["debug", "info", "warning", "error", "critical"]


@pytest.fixture
def caught():
    """Configured, with a list in place of the queue."""
    with caught_events() as events:
        fapilog.configure_logging(level="DEBUG")
        yield events


@pytest.fixture(params=["structlog", "fapilog"])
def get_logger(request, caught) -> Any:
    return {"structlog": structlog.get_logger, "fapilog": fapilog.get_logger}[request.param]


@pytest.fixture
def log(get_logger) -> Any:
    return get_logger("app")


def configure(*chain: Any, **settings: Any) -> None:
    """Set our list of processors, as `configure_logging(processors=...)` does."""
    fapilog.configure_logging(level="DEBUG", processors=chain, **settings)


def without_ours(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("timestamp", "level", "event", "logger")}


def raised() -> ValueError:
    try:
        raise ValueError("bad")
    except ValueError as error:
        return error


def shown(event: dict[str, Any]) -> str:
    return repr(event["exception"])


def copies(thing: Any) -> list[Any]:
    pickled = [pickle.dumps(thing, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    return [copy.copy(thing), copy.deepcopy(thing), *map(pickle.loads, pickled)]
