"""
The child process that looks: reads the server's configuration, imports the application, says what it saw.

It is told what to do in its arguments, writes to a descriptor, and leaves by `os._exit()`: nothing that the program has left
behind runs at its end, or keeps it from ending. What it saw is written before each stage, so that the doctor knows which did not
end.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import orjson

from fapilog.cli.probe import program
from fapilog.cli.probe.hub import hub_of
from fapilog.cli.probe.importing import load
from fapilog.cli.probe.quiet import quieten
from fapilog.cli.probe.server import failure_of, read, source_of
from fapilog.cli.probe.sight import Failure, HubSeen, Sight
from fapilog.cli.probe.watching import Watch
from fapilog.coordinator import coordinator

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLD = ("FAPILOG_", "OTEL_", "GUNICORN_", "UVICORN_", "WEB_CONCURRENCY")


def main(asked: Mapping[str, Any]) -> None:
    """
    Look, and end the process.

    Args:
        asked: ``app`` and ``config`` as the command line has them, perhaps empty; ``limit`` in seconds; ``report`` and
            ``stacks``, descriptors of files.
    """
    faulthandler.dump_traceback_later(asked["limit"], exit=True, file=asked["stacks"])
    quieten()
    watch = Watch()
    watch.begin()
    report = asked["report"]
    sight = Sight("server")
    _write(report, sight)
    sys.path.insert(0, os.getcwd())  # as servers do
    sys.argv = ["gunicorn"]
    sight = _with_server(sight, asked["config"], asked["app"])
    sight = replace(sight, stage="app", environ=_environ(), directory=os.getcwd(), fapilog=_origin())
    _write(report, sight)
    if sight.app and sight.server_failure is None:
        sight = _with_app(sight)
    _write(report, _with_the_rest(sight, watch))
    os._exit(0)


def _with_server(sight: Sight, config: str, app: str) -> Sight:
    sight = replace(sight, app=app)
    if not source_of(config):
        return sight
    found = read(config, app)
    if isinstance(found, Failure):
        return replace(sight, server_failure=found)
    server, named = found
    return replace(sight, server=server, app=app or named, first=_hub())


def _with_app(sight: Sight) -> Sight:
    try:
        app = load(sight.app)
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too
        return replace(sight, app_failure=failure_of(error))
    return replace(sight, asgi=program.is_asgi(app), middleware=program.has_middleware(app))


def _with_the_rest(sight: Sight, watch: Watch) -> Sight:
    where, caches = watch.structlog
    return replace(
        sight,
        stage="done",
        environ=_environ(),
        hub=_hub(),
        threads=program.threads(),
        files=program.files(watch.listeners),
        queues=program.queues(watch.listeners),
        configs=tuple(watch.configs),
        disabled=program.disabled(),
        streams=program.streams(),
        names=program.names(),
        structlog=program.structlogs(where, caches=caches),
    )


def _hub() -> HubSeen | None:
    return None if coordinator.spec is None else hub_of(coordinator.spec)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith(TOLD)}


def _origin() -> str:
    """Return the file that ``import fapilog`` would find here, had it not been imported."""
    found = PathFinder.find_spec("fapilog", sys.path)
    return "" if found is None else str(found.origin or "")


def _write(report: int, sight: Sight) -> None:
    document = orjson.dumps(sight, option=orjson.OPT_NON_STR_KEYS, default=str)
    os.ftruncate(report, 0)
    os.pwrite(report, document, 0)
