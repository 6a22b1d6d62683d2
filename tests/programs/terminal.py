"""
A terminal for programs under test, and all that they write to it.

As a program, ``terminal.py PATH COMMAND...`` becomes the Python *COMMAND* with its standard output on the terminal *PATH*, for
programs that are started by what knows nothing of terminals.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Self

LIMIT_S = 60.0


class Terminal:
    """
    A pseudo-terminal; a context manager.

    Attributes:
        path: Of the device.
        fd: Of the program's side; held open, so that the terminal outlives single programs.
    """

    def __init__(self) -> None:
        self._primary, self.fd = pty.openpty()
        self.path = os.ttyname(self.fd)
        self._data = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._primary, 65536)
            except OSError:  # how Linux says that nobody holds the other side any more
                return
            if not chunk:
                return
            self._data += chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        os.close(self._primary)

    def end(self) -> str:
        """Let go of the program's side, wait for the rest and return all that was written, in which only line ends have a CR."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._reader.join(LIMIT_S)
        assert not self._reader.is_alive(), "a process still holds the terminal"
        text = self._data.decode("utf-8").replace("\r\n", "\n")
        assert "\r" not in text
        return text


def run(code: str, folder: Path, env: Mapping[str, str]) -> str:
    """Run *code* as ``program.py`` in *folder*, with standard output on a terminal; return what the terminal got."""
    program = folder / "program.py"
    program.write_text(code, encoding="utf-8")
    strict = ["-X", "faulthandler", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    with Terminal() as terminal:
        result = subprocess.run(
            [sys.executable, *strict, str(program)],
            cwd=folder,
            env=dict(env),
            stdout=terminal.fd,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            text=True,
            check=False,
        )
        text = terminal.end()
    assert (result.returncode, result.stderr) == (0, "")
    return text


def become(path: str, command: Sequence[str]) -> None:
    """Replace this program by the Python *command*, with standard output on the terminal *path*."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_NOCTTY), 1)
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
