"""
The Prometheus side of the board: a collector for any registry, and applications that serve it.

Invariants:

1. One scrape of any process of a service shows the rows of all its processes, as they stand on the board. The reader's own too:
   if one process knew it better than the others, counters would fall from one scrape to the next.
2. A scrape never raises: a board that cannot be read gives none of our samples and one note on stderr.
3. Nothing is kept between scrapes, no file is written and no thread is started, but for the hub of a process that had none yet.
4. prometheus_client is imported when a collector is made, not before: importing it reads `PROMETHEUS_MULTIPROC_DIR`, which a
   program may set itself. What the board says never goes through files of that directory.

Formats: Prometheus text and OpenMetrics, by content negotiation, both prometheus_client's own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog._internal.notes import note
from fapilog._internal.overview import overview
from fapilog.bootstrap import service_statistics
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

    from fapilog.results import ServiceStatistics

    AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
    WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class FapilogCollector:
    """
    The rows of all processes of a service, for a prometheus_client registry: ``REGISTRY.register(FapilogCollector())``.

    Any process and thread; before or after a fork. Making and registering it reads nothing.

    Args:
        run_dir: Whose board to show; that of this process by default.

    Raises:
        ConfigurationError: The package prometheus-client is missing.
    """

    def __init__(self, run_dir: str | Path | None = None) -> None:
        try:
            from fapilog._internal import families
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "prometheus_client":
                raise
            raise ConfigurationError("fapilog.metrics needs another package: pip install prometheus-client") from error
        self._families = families
        self._run_dir = None if run_dir is None else Path(run_dir).absolute()

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, so that a registry knows the names."""
        return self._families.described()

    def collect(self) -> Iterable[Metric]:
        """Return the families with all samples as of now, or nothing if the board cannot be read; never raises."""
        try:
            return self._families.exposed(self._statistics())
        except Exception as error:
            note("metrics", f"there are no metrics: {error}")
            return []

    def _statistics(self) -> ServiceStatistics:
        return service_statistics() if self._run_dir is None else overview(self._run_dir)


def make_asgi_app(registry: CollectorRegistry | None = None, *, run_dir: str | Path | None = None) -> AsgiApp:
    """
    Return an ASGI application that serves the board; in FastAPI: ``app.mount("/metrics", fapilog.metrics.make_asgi_app())``.

    Args:
        registry: What else to serve. A `FapilogCollector` is registered there, unless one is already. By default the board alone.
        run_dir: As for `FapilogCollector`.

    Raises:
        ConfigurationError: The package prometheus-client is missing.
    """
    served = _with_board(registry, run_dir)
    from prometheus_client import make_asgi_app as make

    app: AsgiApp = make(served)
    return app


def make_wsgi_app(registry: CollectorRegistry | None = None, *, run_dir: str | Path | None = None) -> WsgiApp:
    """Return the same as a WSGI application; see `make_asgi_app()`."""
    served = _with_board(registry, run_dir)
    from prometheus_client import make_wsgi_app as make

    app: WsgiApp = make(served)
    return app


def _with_board(registry: CollectorRegistry | None, run_dir: str | Path | None) -> CollectorRegistry:
    collector = FapilogCollector(run_dir)
    if registry is None:
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
    with contextlib.suppress(ValueError):  # the names are taken: the user has registered one
        registry.register(collector)
    return registry
