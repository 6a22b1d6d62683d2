"""What a process does about the journals of the dead, moment by moment; with real processes: tests/chaos."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fapilog._internal.accounting import OfDead
from fapilog._internal.journal import Journal, journals
from fapilog._internal.recovery import Recovery
from fapilog.identity import Identity
from tests.programs.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = Identity("s", "", "h", 9, 9, "9" * 16)


class File:
    """A sink with a file, whose file system answers when it is let."""

    name = "file"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()

    def put_back(self, identity: Identity, lines: dict[int, bytes], started: float) -> int:
        self.asked.append(identity.boot)
        assert self.answers.wait(30)
        return len(lines)


@pytest.fixture
def sink() -> File:
    return File()


@pytest.fixture
def recovery(run_dir: Path, sink: File) -> Iterator[Recovery]:
    made = Recovery(run_dir, OWN, "t", [sink], lambda *_: None, OfDead())
    made.prepare()
    yield made
    made.close()


def dead(run_dir: Path, worker: int) -> str:
    """Leave the journal of a process that has logged one event; return its boot."""
    identity = Identity("s", "", "h", worker, 100 + worker, f"{worker:016x}")
    journal = Journal.make(run_dir, identity, ("file",), "t", 4096)
    journal.append(b'{"timestamp":"2026-11-28T00:00:00.000000Z","level":"info","event":"e"' + identity.tail() % 1)
    journal.close(done=False)
    return identity.boot


def test_a_death_while_another_is_looked_after_at_the_end(run_dir: Path, sink: File, recovery: Recovery) -> None:
    """A process that ends looks once more when that is done: nobody else may be there to do it."""
    first = dead(run_dir, 1)
    recovery.now(0.0)
    wait_until(lambda: sink.asked == [first], "the first is looked after")
    second = dead(run_dir, 2)
    threading.Timer(0.2, sink.answers.set).start()
    asyncio.run(recovery.last(time.monotonic() + 60))
    assert sink.asked == [first, second]
    assert journals(run_dir) == []


def test_an_end_with_a_file_system_that_hangs(run_dir: Path, sink: File, recovery: Recovery) -> None:
    """It comes, and what was not done is there for the next process."""
    dead(run_dir, 1)
    recovery.now(0.0)
    wait_until(lambda: sink.asked, "it is looked after")
    dead(run_dir, 2)
    began = time.monotonic()
    asyncio.run(recovery.last(time.monotonic() + 0.4))
    assert time.monotonic() - began < 5
    assert len(journals(run_dir)) == 2
    sink.answers.set()
