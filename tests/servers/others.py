"""hypercorn and granian for tests, see `harness`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.harness import HERE, Server

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
