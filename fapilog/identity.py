"""
Who wrote a line: the fields that are constant for one process life.

The hub puts `service`, `env`, `host`, `worker`, `pid` and `boot` on every line, `seq` after them. They are encoded once per
process (`Identity.tail`) and spliced on as bytes.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import orjson

#: The hub's own fields at the end of a line; on a clash they win and the user's value is kept under the same name with ``_``.
HUB_FIELDS = ("service", "env", "host", "worker", "pid", "boot", "seq")


def new_boot_id() -> str:
    """Return 64 random bits in hexadecimal, straight from the kernel: a forked child cannot repeat its parent's."""
    return os.urandom(8).hex()


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The identity of one process life.

    Args:
        service: `FAPILOG_SERVICE`.
        env: `FAPILOG_ENV`.
        host: The host's name.
        worker: The worker slot: a small number from 1, 0 for a server's master; the pid where there is no run directory.
        pid: The process id.
        boot: Random, new for each process life.
    """

    service: str
    env: str
    host: str
    worker: int
    pid: int
    boot: str

    @classmethod
    def of_this_process(cls, service: str = "fapilog", env: str = "", worker: int = 0, boot: str | None = None) -> Identity:
        """Return the identity of the calling process."""
        return cls(service, env, socket.gethostname(), worker, os.getpid(), boot or new_boot_id())

    def fields(self) -> dict[str, str | int]:
        """Return the fields by name, in the order of a line, without `seq`."""
        return {name: getattr(self, name) for name in HUB_FIELDS[:-1]}

    def tail(self) -> bytes:
        """
        Return the end of every line as a bytes template: ``tail % seq`` completes a line whose closing brace was left out.
        """
        return self.ends().replace(b"%", b"%%") + b"%d}\n"

    def ends(self) -> bytes:
        """Return what stands before the `seq` at the end of every line."""
        return b"," + orjson.dumps(self.fields())[1:-1] + b',"seq":'


def seq_of(line: bytes) -> int:
    """Return the `seq` of a line that ends in what `Identity.tail()` makes."""
    return int(line[line.rindex(b":") + 1 : -2])
