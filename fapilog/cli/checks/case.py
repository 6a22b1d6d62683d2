"""
What is examined: the program as the child process saw it, and the settings that hold for it.

The program's own settings hold where it has set fapilog up by its import or its server's configuration; else those of the
environment, as that import left it. Of wrong settings the defaults take the place, so that the other checks can be made.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog import bootstrap
from fapilog._internal import owner
from fapilog._internal.rundir import default_run_dir
from fapilog.cli.probe.hub import hub_of
from fapilog.errors import ConfigurationError
from fapilog.settings import PREFIX, FapilogSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fapilog.cli.probe.sight import HubSeen, ServerSeen, Sight

CONCURRENCY = "WEB_CONCURRENCY"  # how many workers Gunicorn and uvicorn start where nothing else says
_NAMED = re.compile(rf"((?:{PREFIX}|OTEL_)[A-Z0-9_]+)=")
_PUSHING = ("loki", "otlp")


@dataclass(frozen=True, slots=True)
class Case:
    """
    What the checks read.

    Args:
        sight: What the child process saw.
        environ: Of the program, in the end.
        settings: That hold.
        problems: What is wrong with settings, one line for each.
        hub: What fapilog is asked for by them.
        run_dir: Where the processes of the service meet.
        push: Whether a line may be sent to a server.
    """

    sight: Sight
    environ: Mapping[str, str]
    settings: FapilogSettings
    problems: tuple[str, ...]
    hub: HubSeen
    run_dir: Path
    push: bool = True

    @property
    def workers(self) -> int | None:
        """How many workers there will be, if that is known."""
        if self.sight.server is not None:
            return self.sight.server.workers
        told = self.environ.get(CONCURRENCY, "")
        return int(told) if told.isascii() and told.isdigit() else None

    @property
    def several(self) -> bool:
        """Whether there may be several workers."""
        return self.workers is None or self.workers > 1

    @property
    def preloads(self) -> bool | None:
        """Whether the application is imported before the workers are forked, if that is known."""
        return None if self.sight.server is None else self.sight.server.preload


def case_of(sight: Sight, *, push: bool = True) -> Case:
    """Return what is to be examined."""
    environ = sight.environ
    settings, problems = _readable(environ)
    hub = sight.hub
    if hub is None:
        settings, hub, more = _asked_for(_in(sight.directory, settings))
        problems = (*problems, *more)
    else:
        settings = load_settings(hub.settings, {})
    chosen = Path(sight.directory or ".", settings.run_dir) if settings.run_dir else None
    with working_for(sight.server):
        run_dir = chosen or default_run_dir(settings.service, hub.targets)
    return Case(sight, environ, settings, problems, hub, run_dir, push)


@contextlib.contextmanager
def working_for(server: ServerSeen | None) -> Iterator[None]:
    """Ask for the user that the workers of *server* run as, where root asks; see `owner`."""
    if server is not None:
        owner.work_for(server.uid, server.gid)
    try:
        yield
    finally:
        owner.work_for_oneself()


def _in(directory: str, settings: FapilogSettings) -> FapilogSettings:
    """Return *settings* with the path of files as a process in *directory* would have it."""
    escaped = directory.replace("{", "{{").replace("}", "}}")
    return load_settings({**settings.model_dump(), "file_path": os.path.join(escaped, settings.file_path)}, {})


def _readable(environ: Mapping[str, str]) -> tuple[FapilogSettings, tuple[str, ...]]:
    """Return the settings of *environ* as far as they are right, and what is wrong with the others."""
    strict = {"file_strict": False}  # which would make directories
    try:
        return load_settings(strict, environ), ()
    except ConfigurationError as error:
        problems = tuple(str(error).split("\n  ")[1:])
    wrong = {found[1] for problem in problems if (found := _NAMED.match(problem))}
    return load_settings(strict, {name: value for name, value in environ.items() if name.upper() not in wrong}), problems


def _asked_for(settings: FapilogSettings) -> tuple[FapilogSettings, HubSeen, tuple[str, ...]]:
    """Return what *settings* ask for; without the sinks that push to a server, if those are what is wrong with them."""
    try:
        return settings, hub_of(bootstrap.spec_of(settings, None, {}, explicit=False)), ()
    except ConfigurationError as error:
        sinks = tuple(name for name in settings.sinks if name not in _PUSHING) or ("stdout",)
        settings = load_settings({**settings.model_dump(), "sinks": sinks}, {})
        return settings, hub_of(bootstrap.spec_of(settings, None, {}, explicit=False)), (str(error),)
