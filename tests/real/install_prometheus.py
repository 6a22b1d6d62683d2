"""
Install Debian's Prometheus for the tests, by `apt-get`, into a cache outside the checkout:
``python -m tests.real.install_prometheus``.

Invariants: those of `tests.real.install`, whose cache and lock it shares, and

    1. The package is unpacked, not installed: no service is started, no right of root is needed, the system stays as it is.

A `prometheus` that is installed already is used as it is. Without `apt-get`, or where it fails, it says so and ends with 0, so
that the suite runs without; with ``--require`` it ends with 1.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.real.install import NotInstalledError, cache

HOW = "python -m tests.real.install_prometheus"
PROGRAMS = ("promtool", "prometheus")
NEEDED = ("apt-get", "dpkg-deb")
LIMIT_S = 300


def program(name: str) -> Path:
    """Return where `prometheus` or `promtool` is, or would be."""
    installed = shutil.which(name)
    return Path(installed) if installed else cache() / "prometheus" / name


def missing() -> str:
    """Return why there is no Prometheus to test with; "" if there is one."""
    if all(program(name).is_file() for name in PROGRAMS):
        return ""
    if absent := [name for name in NEEDED if shutil.which(name) is None]:
        return f"Prometheus is not installed, and there is no `{absent[0]}` to fetch it with"
    return f"Prometheus is not installed: run `{HOW}` first (needs the network)"


def install() -> Path:
    """
    Return the program, fetched first where it is not there yet.

    Raises:
        NotInstalledError: There is no `apt-get`, or it failed.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel, whatever becomes of this process
        if reason := missing():
            if any(shutil.which(name) is None for name in NEEDED):
                raise NotInstalledError(reason)
            _fetch()
    return program("prometheus")


def _fetch() -> None:
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        folder = Path(name)
        try:
            _run(folder, "apt-get", "download", "prometheus")
        except NotInstalledError:  # the machine's package lists are missing or old: lists of our own
            own = [f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache", "-oDebug::NoLocking=1"]
            for part in ("lists/partial", "cache/archives/partial"):
                (folder / part).mkdir(parents=True)
            _run(folder, "apt-get", *own, "update")
            _run(folder, "apt-get", *own, "download", "prometheus")
        (package,) = folder.glob("prometheus_*.deb")
        _run(folder, "dpkg-deb", "-x", str(package), "unpacked")
        target = cache() / "prometheus"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(folder / "unpacked" / "usr" / "bin", target)


def _run(folder: Path, *command: str) -> None:
    try:
        made = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"`{command[0]}` ran longer than {LIMIT_S} s") from None
    if made.returncode:
        raise NotInstalledError(f"`{' '.join(command)}` failed:\n{made.stdout[-2000:]}")


def main(arguments: list[str]) -> int:
    try:
        print(f"Prometheus: {install()}")
    except NotInstalledError as error:
        print(f"Prometheus is not installed, the tests against it will skip: {error}")
        return int("--require" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
