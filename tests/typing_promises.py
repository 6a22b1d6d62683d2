"""A user's code, for mypy: our loggers are what structlog's type hints and protocols ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

import fapilog
from fapilog import FapilogLogger

if TYPE_CHECKING:
    from structlog.typing import BindableLogger, FilteringBoundLogger


class Own(FapilogLogger):
    """A wrapper class of the user's own."""

    def sold(self, what: str) -> None:
        self.info("typed", what=what)


def takes_filtering(log: FilteringBoundLogger) -> None:
    log.info("typed", a=1)


def takes_bindable(log: BindableLogger) -> BindableLogger:
    return log.bind(a=1)


async def asynchronous(log: FilteringBoundLogger) -> None:
    await log.ainfo("typed")
    await log.alog(20, "typed")


def use_everything() -> None:
    """Log "typed" through each."""
    log: FapilogLogger = fapilog.get_logger("app", a=1)
    takes_filtering(log)
    takes_bindable(log)
    filtering: FilteringBoundLogger = fapilog.get_logger()
    filtering.warning("typed", b=2)
    bound: FapilogLogger = log.bind(b=2).unbind("b").try_unbind("c").new(d=4)
    bound.log(20, "typed")
    enabled: bool = bound.is_enabled_for(20)
    level: int = bound.get_effective_level()
    assert enabled
    assert level
    own: Own = Own(fapilog.get_logger("own")._logger, [], {}).bind(a=1)
    own.sold("towel")
    context: dict[Any, Any] = structlog.get_context(log)
    assert context == {"a": 1}
    asyncio.run(asynchronous(log))
