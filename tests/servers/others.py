"""hypercorn and granian for tests, see `harness`."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING

import orjson

from tests.servers.harness import HERE, STEPS, Server, check_visits

if TYPE_CHECKING:
    from pathlib import Path

#: hypercorn evaluates the name in the module's dict, where `api` is not before it is asked for.
APPS_API = "apps:__getattr__('api')"


class Hypercorn(Server):
    """
    hypercorn in a directory of its own.

    Args:
        folder: Working directory; the log files are made here.
        arguments: More of the command line.
        app: ``module:name`` of the application, or ``wsgi:module:name``.
        workers: How many; 0 is the process itself.
        settings: More environment.
    """

    def __init__(self, folder: Path, *arguments: str, app: str = APPS_API, workers: int = 2, **settings: str) -> None:
        *interface, module, name = app.split(":")
        command = ["-m", "hypercorn", "--workers", str(workers), "--graceful-timeout", "15", *arguments]
        command.append(":".join([*interface, str(HERE / module), name]))
        super().__init__(command, folder, settings, max(1, workers), lambda fd, _: ["--bind", f"fd://{fd}"])


class Granian(Server):
    """
    granian in a directory of its own.

    Args:
        folder: Working directory; the log files are made here.
        arguments: More of the command line.
        app: ``module:name`` of the application.
        interface: ``asgi``, ``asginl``, ``wsgi`` or ``rsgi``.
        workers: How many.
        settings: More environment.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        app: str = "apps:api",
        interface: str = "asgi",
        workers: int = 2,
        **settings: str,
    ) -> None:
        command = ["-m", "granian", "--interface", interface, "--workers", str(workers)]
        if interface == "wsgi":
            command += ["--blocking-threads", "4"]
        command += [*arguments, "--working-dir", str(HERE), app]

        def listen(_: int, port: int) -> list[str]:
            return ["--host", "127.0.0.1", "--port", str(port)]

        super().__init__(command, folder, settings, workers, listen, inherits=False)


def check_slow_sink(server: Server, requests: int) -> None:
    """Let *server*, with `slow_app` in a directory of its own, end while its sinks have much to take: they get all of it."""
    visits = server.meet_workers()
    visits.send(requests)
    wanted = Counter((n, step, pid) for (n, pid), step in product(visits.answers.items(), range(STEPS)))
    before = _taken_slowly(server.folder).total()
    code = server.stop()

    assert code == 0
    assert before < wanted.total()
    assert _taken_slowly(server.folder) == wanted
    check_visits(server.folder, visits)


def _taken_slowly(folder: Path) -> Counter[tuple[int, int, int]]:
    """Return how often the sink of `slow_app` has taken the event of each visit, step and process."""
    lines = [orjson.loads(line) for path in folder.glob("slow.*") for line in path.read_bytes().splitlines()]
    return Counter((line["n"], line["step"], line["pid"]) for line in lines if line["event"] == "work")
