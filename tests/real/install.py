"""
Install VictoriaLogs for the tests, by the `go` client, into a cache outside the checkout: ``python -m tests.real.install``.

Invariants:
    1. A binary that is there is whole: it is built elsewhere and moved in.
    2. Of several that ask at once one builds; the others wait for it and build nothing.
    3. Tests never install: they skip with `missing()` as the reason.

Without `go`, or where the build fails, it says so and ends with 0, so that the suite runs without; with ``--require`` it ends
with 1.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Named, because tags of another project that the repository inherited are higher; newer ones need a newer Go than 1.26.
VERSION = "v1.52.1"
PACKAGE = "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
HOW = "python -m tests.real.install"
LIMIT_S = 1200


class NotInstalledError(Exception):
    """It could not be installed; the text says why."""


def cache() -> Path:
    """Return the directory of the tests' programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fapilog-tests"


def binary() -> Path:
    """Return where the binary is, or would be."""
    return cache() / f"victoria-logs-{VERSION}"


def missing() -> str:
    """Return why there is no VictoriaLogs to test with; "" if there is one."""
    return why_not("VictoriaLogs", binary(), HOW)


def why_not(name: str, target: Path, how: str) -> str:
    """Return why the program *target* is not there and *how* to have it; "" if it is there."""
    if target.is_file():
        return ""
    if shutil.which("go") is None:
        return f"{name} is not installed, and there is no `go` to install it with"
    return f"{name} is not installed: run `{how}` first (needs the network, takes minutes)"


def install() -> Path:
    """
    Return the binary, built first where it is not there yet.

    Raises:
        NotInstalledError: There is no `go`, or it failed.
    """
    return once(binary(), _build)


def once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return *target*, built first where it is not there yet, by one at a time; raises what *build* raises."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel, whatever becomes of this process
        if not target.is_file():
            build(target)
    return target


def _build(target: Path) -> None:
    go = found_go()
    print(f"VictoriaLogs {VERSION}: building it with {go}, which takes minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        run_go([go, "install", f"{PACKAGE}@{VERSION}"], folder, GOBIN=folder)
        os.replace(Path(folder) / "victoria-logs", target)


def found_go() -> str:
    """
    Return the `go` client.

    Raises:
        NotInstalledError: There is none.
    """
    go = shutil.which("go")
    if go is None:
        raise NotInstalledError("there is no `go`")
    return go


def run_go(command: list[str], folder: str, **more: str) -> None:
    """
    Run `go` in *folder* with *more* environment.

    Raises:
        NotInstalledError: It failed.
    """
    env = {**os.environ, "CGO_ENABLED": "0", **more}
    try:
        made = subprocess.run(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"`go {command[1]}` ran longer than {LIMIT_S} s") from None
    if made.returncode:
        raise NotInstalledError(f"`{' '.join(command[1:])}` failed:\n{made.stderr[-2000:]}")


def main(arguments: list[str]) -> int:
    return told(f"VictoriaLogs {VERSION}", install, arguments)


def told(name: str, install: Callable[[], Path], arguments: list[str]) -> int:
    """Install, say how it went, and return the exit code."""
    begun = time.monotonic()
    try:
        print(f"{name}: {install()} ({time.monotonic() - begun:.0f} s)")
    except NotInstalledError as error:
        print(f"{name} is not installed, the tests against it will skip: {error}")
        return int("--require" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
