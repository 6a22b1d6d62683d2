"""
hypercorn: its logs through the hub, and an access event for each request.

On the command line ``hypercorn app:app --log-config "json:$(python -m fapilog.servers.hypercorn)"``, which names a JSON file; in
a configuration of one's own ``config.logconfig_dict = fapilog.servers.hypercorn.log_config()``.

Invariants:

1. Each request has one access event: the middleware's where the application has it, else what hypercorn's access line tells,
   which is all of it but a `request_id` that the request did not bring. hypercorn writes access lines where `--access-logfile`
   asks for them; here they are asked for, unless `FAPILOG_ACCESS_LOG` is false.
2. The level of hypercorn's own lines is its `--log-level`.
3. A worker drains however it ends: by itself, or by the SIGTERM that the parent sends to all others as soon as one has ended
   (`lifecycle.guard_signals`). The parent logs nothing and is no process of ours.

hypercorn calls the handler's factory when it first logs, in the process that serves, after the application is loaded.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from fapilog._internal.access_records import HYPERCORN as ACCESS
from fapilog._internal.exchange import logs_access
from fapilog._internal.frames import frames, module_of
from fapilog.servers.setup import RecordsHandler, configure_or_exit, log_config_of

LOG_CONFIG_FILE = Path(__file__).with_name("hypercorn_log_config.json")
_UP = "Running on"


def log_config() -> dict[str, Any]:
    """Return a dict for `Config.logconfig_dict`: hypercorn's own logs and one access event a request, through the hub."""
    return log_config_of("hypercorn", "hypercorn.error", ACCESS)


def handler() -> logging.Handler:
    """
    Make the handler of `log_config()`; `logging.config` calls it.

    Raises:
        SystemExit: A `FAPILOG_*` setting is wrong; with the one line that says which.
    """
    configure_or_exit()
    for frame in frames():
        if module_of(frame) == "hypercorn.logging" and frame.f_code.co_name == "__init__":
            _ask_for_access_lines(frame.f_locals.get("self"))
            break
    return RecordsHandler(_UP)


def _ask_for_access_lines(logger: Any) -> None:
    """Let hypercorn's *logger*, which is being made, write access lines."""
    if logs_access() and getattr(logger, "access_logger", ...) is None:
        logger.access_logger = logging.getLogger(ACCESS)


if __name__ == "__main__":
    sys.stdout.write(f"{LOG_CONFIG_FILE}\n")
