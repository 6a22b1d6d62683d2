"""What the tests of programs ask of them: what they said, how they ended, which numbered events are in their files."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.programs.running import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs.running import Life, Running


def said(program: Running, at: str) -> list[dict[str, Any]]:
    return [entry for entry in map(json.loads, program.stdout.splitlines()) if entry.get("at") == at]


def finished(program: Running, code: int = 0) -> None:
    assert program.ended() == code
    program.nothing_left()
    assert program.stderr == ""


def ticks(life: Life) -> Counter[tuple[str, int]]:
    return Counter((line["role"], line["n"]) for line in life.named("tick"))


def numbered(role: str, count: int) -> Counter[tuple[str, int]]:
    return Counter((role, n) for n in range(count))


def by_role(found: list[Life]) -> dict[str, Life]:
    """Return the lives by the role of their events; one life has one role, no two share worker, pid or boot."""
    roles = {}
    for life in found:
        (role,) = {line["role"] for line in life.named("tick")}
        assert role not in roles
        roles[role] = life.whole()
    assert len({life.pid for life in found}) == len(found)
    return roles


def drain_fifo(path: Path, program: Running) -> bytes:
    """Be the reader that comes late: read until the program has ended."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    data = bytearray()

    def read_all() -> bool:
        ended = program.process.poll() is not None
        try:
            while chunk := os.read(fd, 65536):
                data.extend(chunk)
        except BlockingIOError:
            return False
        return ended

    try:
        wait_until(read_all, "the program ends")
    finally:
        os.close(fd)
    return bytes(data)
