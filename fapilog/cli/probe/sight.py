"""
What the child process saw of the user's program. Values, no behaviour; sent to the doctor as one JSON document.

It goes through a file without a name, since settings have secrets in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

Stage = Literal["begin", "server", "app", "done"]


@dataclass(frozen=True, slots=True)
class Failure:
    """
    What did not come to a good end.

    Args:
        kind: The name of the exception; ``exit``, ``signal`` or ``hang`` where the process itself ended or was ended.
        message: Of the exception; what is known of the end.
        where: The place in the user's code, ``app.py:12``, or empty.
        missing: The name of the module that was not found.
    """

    kind: str
    message: str
    where: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """
    Gunicorn's configuration, as Gunicorn reads it: file, `GUNICORN_CMD_ARGS`, defaults.

    Args:
        source: What was read, in words.
        hooks: By the name of each of our hooks: ``ours``, ``calls ours``, ``other`` (the user's alone) or ``none``.
        logger: The logger class.
        our_logger: Whether it is ours, or made from it.
        uid: The user that the workers run as.
    """

    source: str
    workers: int
    preload: bool
    graceful_timeout: float
    timeout: float
    max_requests: int
    worker_class: str
    access_log: str | None
    worker_tmp_dir: str | None
    uid: int
    gid: int
    logger: str
    our_logger: bool
    hooks: dict[str, str]


@dataclass(frozen=True, slots=True)
class ThreadSeen:
    """A thread that lives after the import, and the package whose code it runs."""

    name: str
    package: str


@dataclass(frozen=True, slots=True)
class FileSeen:
    """
    A file handler of the standard library's logging, or a file of loguru's.

    Args:
        kind: The name of its class.
        path: Absolute.
        rotates: Whether it renames its file.
        loggers: Those that it stands on; empty where it stands behind a queue.
    """

    kind: str
    path: str
    rotates: bool
    loggers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A queue that a thread empties: of a `QueueListener` of the standard library's, or of loguru's ``enqueue=True``."""

    kind: Literal["QueueListener", "loguru"]
    queue: str
    between_processes: bool


@dataclass(frozen=True, slots=True)
class ConfigSeen:
    """
    A call of `dictConfig()` or `fileConfig()`.

    Args:
        call: Which of the two.
        where: It stands.
        disables: Whether it disables loggers that exist.
        servers: The loggers of Gunicorn and uvicorn that it gives handlers.
    """

    call: str
    where: str
    disables: bool
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StructlogSeen:
    """
    structlog's configuration in the end.

    Args:
        configured: Whether there is one.
        feeds: Whether it ends in fapilog.
        where: The last `structlog.configure()` of somebody else's stands, or empty.
        caches: Whether that one asked for `cache_logger_on_first_use`.
        old: Where loggers come from that keep an earlier configuration: modules, or else their classes.
    """

    configured: bool
    feeds: bool
    where: str
    caches: bool
    old: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileSinkSeen:
    """A file sink: its template, and whether it rotates."""

    name: str
    template: str
    rotates: bool


@dataclass(frozen=True, slots=True)
class HubSeen:
    """
    What fapilog was asked for.

    Args:
        explicit: Whether by arguments, not by the environment alone.
        settings: By field name, with secrets.
        targets: Where the sinks write, in words.
        files: The file sinks.
        streams: The names of the stream sinks.
        pushing: The names of the sinks that the settings make and that push to a server.
        others: Whether there are sinks that the program made itself and that are no files or streams.
    """

    explicit: bool
    settings: dict[str, Any]
    targets: tuple[str, ...]
    files: tuple[FileSinkSeen, ...]
    streams: tuple[str, ...]
    pushing: tuple[str, ...]
    others: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """
    All of it.

    Args:
        stage: What was under way when this was written.
        directory: The working directory.
        environ: Variables of fapilog, OpenTelemetry, uvicorn and Gunicorn in the end: a module may have set some.
        fapilog: The file that ``import fapilog`` finds there.
        server: Gunicorn's configuration, if there is any.
        server_failure: Why it cannot be read.
        app: The import string that was imported.
        app_failure: Why it cannot be imported.
        asgi: Whether it is an ASGI application.
        middleware: Whether our middleware is in it.
        first: What fapilog was asked for by the server's configuration.
        hub: What it was asked for in the end.
        disabled: Loggers of the standard library's logging that are.
        streams: Handlers on the root logger that write to stdout or stderr, by class.
        names: Of all loggers of the standard library's logging.
    """

    stage: Stage = "begin"
    directory: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    fapilog: str = ""
    server: ServerSeen | None = None
    server_failure: Failure | None = None
    app: str = ""
    app_failure: Failure | None = None
    asgi: bool = False
    middleware: bool = False
    first: HubSeen | None = None
    hub: HubSeen | None = None
    threads: tuple[ThreadSeen, ...] = ()
    files: tuple[FileSeen, ...] = ()
    queues: tuple[QueueSeen, ...] = ()
    configs: tuple[ConfigSeen, ...] = ()
    disabled: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    structlog: StructlogSeen | None = None


SIGHT = TypeAdapter(Sight)
