"""Gunicorn's configuration and uvicorn's: hooks, time limits, access logs, the set-up of their own logs."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapilog.cli.checks.filesystems import kind_of
from fapilog.cli.checks.finding import Finding, error, fine, listed, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.cli.probe.sight import ServerSeen

CONFIG, HOOKS, TIMES, ACCESS, UVICORN, HEARTBEAT = "gunicorn", "hooks", "drain-timeout", "access-log", "uvicorn", "worker-tmp-dir"
_ONE_LINE = "`from fapilog.gunicorn_conf import logger_class`"
LOG_CONFIG = "UVICORN_LOG_CONFIG"
_OURS = "fapilog.servers.uvicorn.handler"
_BY_HAND = 'uvicorn --log-config "$(python -m fapilog.servers.uvicorn)"'


def check_gunicorn(case: Case) -> Iterator[Finding]:
    """Look whether Gunicorn can read its configuration."""
    failure, server = case.sight.server_failure, case.sight.server
    if failure is not None and failure.missing == "gunicorn":
        yield error(CONFIG, "Gunicorn is configured, and not installed for this Python.", "Install it: pip install gunicorn")
    elif failure is not None:
        where = f" at {failure.where}" if failure.where else ""
        message = "reading it does not come to an end" if failure.kind == "hang" else failure.message or failure.kind
        yield error(CONFIG, f"Gunicorn cannot read its configuration{where}: {message}.", "Change the configuration as it says.")
    elif server is not None:
        how = ", preload_app" if server.preload else ""
        yield fine(CONFIG, f"{server.source}: {server.workers} {server.worker_class} workers{how}.")


def check_hooks(case: Case) -> Iterator[Finding]:
    """Look whether our hooks are in Gunicorn's configuration."""
    server = case.sight.server
    if server is None:
        return
    if server.our_logger:
        yield fine(HOOKS, "logger_class is fapilog's, which brings all hooks and Gunicorn's own log lines.")
        return
    post_fork = server.hooks["post_fork"]
    if post_fork in {"ours", "calls ours"}:
        yield fine(HOOKS, "fapilog's post_fork arms every way in which a worker can end; Gunicorn keeps its own logs.")
        return
    found = (
        "post_fork in it is a function of yours that does not call fapilog's"
        if post_fork == "other"
        else "neither fapilog's logger_class nor its post_fork is in it"
    )
    journal = case.settings.journal != "off"
    # A program that sets fapilog up finds most of what it needs by itself; what an aborted worker leaves is for the journal.
    say = warning if case.sight.hub is not None and journal else error
    yield say(
        HOOKS,
        f"fapilog's hooks are not installed ({server.source}: {found}): Gunicorn's own lines are no events, nor are requests "
        "without fapilog's middleware; how a worker has died is not told; a wrong setting shows only after the fork; and what a "
        "worker that Gunicorn aborts has not delivered "
        f"{'is left to the journal' if journal else 'is lost, since there is no journal'}.",
        _add(server),
    )


def _add(server: ServerSeen) -> str:
    if server.source.endswith(".py") and not server.source.startswith("python:"):
        return f"Add to {server.source}: {_ONE_LINE}. Hooks of yours stay as they are."
    return f"Start with `gunicorn -c python:fapilog.gunicorn_conf`, or put {_ONE_LINE} into a gunicorn.conf.py."


def check_times(case: Case) -> Iterator[Finding]:
    """Look whether a worker has the time to deliver its last events."""
    server, drain = case.sight.server, case.settings.drain_timeout
    if server is None:
        return
    if drain >= server.graceful_timeout:
        yield error(
            TIMES,
            f"FAPILOG_DRAIN_TIMEOUT ({drain:g} s) is not below Gunicorn's graceful_timeout ({server.graceful_timeout:g} s): "
            "while a sink is slow, workers are killed in the midst of delivering their last events.",
            f"Set FAPILOG_DRAIN_TIMEOUT to at most half of graceful_timeout, or graceful_timeout to {2 * drain:.0f} or more.",
        )
    elif 0 < server.timeout <= drain and server.max_requests:
        yield warning(
            TIMES,
            f"FAPILOG_DRAIN_TIMEOUT ({drain:g} s) is not below Gunicorn's timeout ({server.timeout:g} s): a worker that "
            "max_requests ends gives no sign of life while it delivers, and is aborted.",
            "Set FAPILOG_DRAIN_TIMEOUT lower, or timeout higher.",
        )
    else:
        yield fine(
            TIMES, f"{drain:g} s for the last events, of the {server.graceful_timeout:g} s that Gunicorn waits for a worker."
        )


def check_access(case: Case) -> Iterator[Finding]:
    """Look whether each request is logged twice."""
    server = case.sight.server
    if server is None or not server.access_log or not case.settings.access_log:
        return
    if server.our_logger and server.access_log != "-":
        found = f"Each request is logged twice: as an event of fapilog's, and by Gunicorn in {server.access_log}."
    elif not server.our_logger and case.sight.middleware:
        where = "its stdout" if server.access_log == "-" else server.access_log
        found = f"Each request is logged twice: by fapilog's middleware, and by Gunicorn to {where}."
    else:
        return
    yield warning(ACCESS, found, "Remove accesslog from Gunicorn's configuration, or set FAPILOG_ACCESS_LOG=false.")


def check_heartbeat(case: Case) -> Iterator[Finding]:
    """Look at the directory of the files by which Gunicorn sees that its workers live."""
    server = case.sight.server
    folder = server.worker_tmp_dir if server is not None else None
    if not folder:
        return
    place = Path(case.sight.directory, folder)
    if not place.is_dir():
        found = f"worker_tmp_dir is {folder}, which is no directory: Gunicorn cannot start a worker."
        yield error(HEARTBEAT, found, "Make it, or set worker_tmp_dir to /dev/shm.")
    elif (kind := kind_of(place)) is not None and kind.remote:
        found = f"worker_tmp_dir {folder} is on a network file system ({kind.name}): when that hangs, all workers look dead."
        yield warning(HEARTBEAT, found, "Set worker_tmp_dir to /dev/shm.")


def check_uvicorn(case: Case) -> Iterator[Finding]:
    """Look at the set-up of uvicorn's own logs."""
    path = case.environ.get(LOG_CONFIG, "")
    if path:
        yield from _log_config(Path(case.sight.directory, path))
    elif case.sight.server is None and case.sight.asgi and find_spec("uvicorn") is not None:
        text = "its own lines are text on stderr, and each request is text on stdout beside fapilog's event"
        yield fine(UVICORN, f"If uvicorn serves {case.sight.app}: {text}, unless it is started with {_BY_HAND}.")


def _log_config(path: Path) -> Iterator[Finding]:
    """Look at the file that uvicorn takes its log configuration from."""
    try:
        config = _parsed(path)
    except Exception as problem:  # of a parser
        found = f"{LOG_CONFIG} names {path}, which cannot be read ({problem}): uvicorn cannot start."
        yield error(UVICORN, found, f"Remove it; use {_BY_HAND}.")
        return
    if config is None:
        return
    handlers: dict[str, Any] = config.get("handlers") or {}
    if any(handler.get("()") == _OURS for handler in handlers.values()):
        yield fine(UVICORN, f"{LOG_CONFIG} is fapilog's.")
        return
    loggers = [name for name in (config.get("loggers") or {}) if name.partition(".")[0] == "uvicorn"]
    also = (
        " It disables loggers that exist when it is read, too (disable_existing_loggers)."
        if config.get("disable_existing_loggers", True)
        else ""
    )
    yield warning(
        UVICORN,
        f"{LOG_CONFIG} names {path}, which sends the lines of {listed(loggers) or 'uvicorn'} elsewhere than to fapilog.{also}",
        f'Set {LOG_CONFIG}="$(python -m fapilog.servers.uvicorn)", and disable_existing_loggers to false in any other.',
    )
    root = (config.get("root") or {}).get("handlers")
    if root:
        found = (
            f"{path} gives the root logger handlers ({listed(root)}): records of the standard library's logging come out twice."
        )
        yield warning(UVICORN, found, "Take the root logger out of it.")


def _parsed(path: Path) -> dict[str, Any] | None:
    """Return what is in *path* as uvicorn reads it; None for a form that is not read here."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return dict(json.loads(text))
    if path.suffix in {".yaml", ".yml"} and find_spec("yaml") is not None:
        return dict(import_module("yaml").safe_load(text))
    return None
