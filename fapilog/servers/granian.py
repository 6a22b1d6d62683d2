"""
granian: its logs through the hub, and an access event for each request.

On the command line ``granian app:app --log-config "$(python -m fapilog.servers.granian)"``, which names a JSON file; in a program
``Granian("app:app", log_dictconfig=fapilog.servers.granian.log_config())``.

Invariants:

1. Each request has one access event: the middleware's where the application has it, else what granian's access line tells
   (method, path, query, status, duration, client), which goes for RSGI applications too. granian writes access lines where
   `--access-log` asks for them; here they are asked for, unless `FAPILOG_ACCESS_LOG` is false.
2. The level of granian's own lines is its `--log-level`.
3. The main process is a master: worker 0, without a thread of ours, which it would fork with. Its children are workers. A server
   that has no children (`granian.server.embed`) is a worker.
4. A worker drains when its main thread has ended, as every child of `multiprocessing` does (`lifecycle.arm_exit`).

granian calls the handler's factory in the main process, while the server is made, and again in each worker, forked or spawned,
before it imports the application. Forked, a worker has the main process's frames on its stack: the nearest of granian's decides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog._internal.access_records import GRANIAN as ACCESS
from fapilog._internal.exchange import logs_access
from fapilog._internal.frames import frames, module_of
from fapilog.coordinator import coordinator
from fapilog.servers.setup import RecordsHandler, configure_or_exit, log_config_of

if TYPE_CHECKING:
    import logging

LOG_CONFIG_FILE = Path(__file__).with_name("granian_log_config.json")
_UP = "Started worker-"  # said by a worker; the main process says nothing of the kind, its errors are always on stderr


def log_config() -> dict[str, Any]:
    """Return a dict for ``Granian(log_dictconfig=...)``: granian's own logs and one access event a request, through the hub."""
    return log_config_of("granian", "_granian", ACCESS)


def handler() -> logging.Handler:
    """
    Make the handler of `log_config()`; `logging.config` calls it.

    Raises:
        SystemExit: A `FAPILOG_*` setting is wrong; with the one line that says which.
    """
    configure_or_exit()
    for frame in frames():
        if module_of(frame).startswith("granian.server."):
            if frame.f_code.co_name == "__init__":
                _enter_server(frame.f_locals.get("self"))
            else:
                coordinator.become_worker()
            break
    return RecordsHandler(_UP)


def _enter_server(server: Any) -> None:
    if any(base.__module__ == "granian.server.mp" for base in type(server).__mro__):
        coordinator.become_master()
    else:  # `granian.server.embed`, and threads: it serves by itself
        coordinator.become_worker()
    if logs_access():
        server.log_access = True


if __name__ == "__main__":
    sys.stdout.write(f"{LOG_CONFIG_FILE}\n")
