"""
uvicorn: its logs through the hub, and our middleware around its application.

Two ways to say so: ``uvicorn.run(..., log_config=fapilog.servers.uvicorn.log_config())``, and on the command line
``uvicorn app:app --log-config "$(python -m fapilog.servers.uvicorn)"``, which prints the path of the same as a JSON file.

Invariants:

1. Each request has one access event: the middleware's, which is put around whatever `Config.load()` has loaded, so that it sees
   ASGI 2, ASGI 3 and WSGI applications alike. uvicorn's own access lines are switched off by that, and only then.
2. A process that only supervises (`--workers`, `--reload`) is worker 0 and writes synchronously, so that its children, which are
   spawned, count from 1.
3. Loggers and handlers of the user stay as they are.

uvicorn calls the handler's factory inside `Config.configure_logging()`, in the parent and again in each spawned child, before it
imports the application; the `Config` is found up the stack, and its `load` replaced on that one object (which is pickled to the
children, so what replaces it can be pickled).
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from fapilog._internal.access_records import UVICORN as ACCESS
from fapilog._internal.access_records import is_access_record, log_access_record
from fapilog._internal.frames import frames
from fapilog.asgi import FapilogMiddleware
from fapilog.coordinator import coordinator
from fapilog.servers.setup import configure_or_exit, echo
from fapilog.stdlib import HubHandler

LOG_CONFIG_FILE = Path(__file__).with_name("uvicorn_log_config.json")
#: What uvicorn says when it is up: a process by itself has bound its socket then, a child (True) has it from its parent.
_UP = {False: "Uvicorn running on", True: "Application startup complete"}
LOGGERS = ("uvicorn", "uvicorn.error", ACCESS, "uvicorn.asgi")


def log_config() -> dict[str, Any]:
    """Return a dict for ``uvicorn.run(log_config=...)``: uvicorn's own logs and one access event a request, through the hub."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        # uvicorn sets a colour on these two, whoever uses them.
        "formatters": {"default": {"format": "%(message)s"}, "access": {"format": "%(message)s"}},
        "handlers": {"fapilog": {"()": "fapilog.servers.uvicorn.handler"}},
        "loggers": {
            "uvicorn": {"handlers": ["fapilog"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"level": "INFO"},
            ACCESS: {"handlers": ["fapilog"], "level": "INFO", "propagate": False},
        },
    }


class ServerHandler(HubHandler):
    """Takes uvicorn's records; the first one tells a supervisor from a server. Errors of the start are also on stderr."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(obeys=False)
        self._config = config
        self._starting = True

    def emit(self, record: logging.LogRecord) -> None:
        """Log *record* as an event; an access record by the names of the access event as far as uvicorn tells them."""
        config, self._config = self._config, None
        if config is not None and config.use_subprocess and multiprocessing.parent_process() is None:
            coordinator.become_master()
        if is_access_record(record):
            log_access_record(record)
            return
        super().emit(record)
        if self._starting:
            self._starting = not str(record.msg).startswith(_UP[multiprocessing.parent_process() is not None])
            echo(record)


def handler() -> logging.Handler:
    """
    Make the handler of `log_config()`; `logging.config` calls it.

    Raises:
        SystemExit: A `FAPILOG_*` setting is wrong; with the one line that says which.
    """
    configure_or_exit()
    config = _config_above()
    if config is not None:
        wrap_application(config)
    return ServerHandler(config)


def wrap_application(config: Any) -> None:
    """Put our middleware around the application that *config*, a `uvicorn.Config`, will load; idempotent."""
    if "load" not in vars(config):
        config.load = functools.partial(_load_and_wrap, config)


def _load_and_wrap(config: Any) -> None:
    type(config).load(config)
    config.loaded_app = FapilogMiddleware(config.loaded_app, access=None if config.access_log else False)
    access = logging.getLogger(ACCESS)
    access.handlers = [each for each in access.handlers if not isinstance(each, ServerHandler)]
    for name in LOGGERS:  # the application's own set-up may have disabled what existed before it
        logging.getLogger(name).disabled = False


def _config_above() -> Any:
    for frame in frames():
        found = frame.f_locals.get("self")
        if any(base.__module__ == "uvicorn.config" and base.__name__ == "Config" for base in type(found).__mro__):
            return found
    return None


if __name__ == "__main__":
    sys.stdout.write(f"{LOG_CONFIG_FILE}\n")
