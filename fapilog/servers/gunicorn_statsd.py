"""Our gunicorn logger where `statsd_host` is set: gunicorn's metrics go on being sent."""

from __future__ import annotations

from typing import Any

from gunicorn.instrument.statsd import Statsd

from fapilog.servers.gunicorn_logger import Logger


class StatsdLogger(Logger, Statsd):  # type: ignore[misc]
    """Made by `Logger(cfg)`."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log the access event and send the metrics of the request."""
        super().access(resp, req, environ, request_time)
        if not self.access_log.handlers:
            Statsd.access(self, resp, req, environ, request_time)
