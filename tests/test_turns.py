"""Whose turn it is to write to a stream: between processes, threads, and what runs nested in a holder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fapilog.errors import SinkUnavailable
from fapilog.identity import Identity
from fapilog.sinks import StreamSink
from fapilog.sinks.turns import NAME, Patience, Place, Turn, key_of
from tests._support import ran_well, run_script
from tests.pipes import ROOT, until

if TYPE_CHECKING:
    from pathlib import Path

ME = Identity("shop", "prod", "host", 1, 77, "b00t")

HOLDER = """
import sys
from pathlib import Path
from fapilog.sinks.turns import Patience, Place, Turn
turn = Turn(Place(Path(sys.argv[1])), int(sys.argv[2]))
assert turn.take(Patience(10))
if "mark" in sys.argv:
    turn.mark()
print("held", flush=True)
sys.stdin.read()
turn.end()
print("ended", flush=True)
sys.stdin.read()
"""


ASKS = """
import sys
from pathlib import Path
from fapilog.sinks.turns import Patience, Place, Turn
print(Turn(Place(Path(sys.argv[1])), 7).take(Patience(0)))
"""


@contextlib.contextmanager
def held_elsewhere(folder: Path, key: int, *more: str):
    """Let another process hold a turn."""
    program = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(key), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"held\n"
        yield program
    finally:
        program.kill()
        program.communicate(timeout=30)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def taken(place: Place, key: int, seconds: float = 0.0) -> bool:
    """Whether a turn can be had in time; it is ended at once."""
    turn = Turn(place, key)
    try:
        return turn.take(Patience(seconds))
    finally:
        turn.end()


def test_a_turn_that_another_process_holds(tmp_path) -> None:
    """It cannot be had, in no more than the patience; once that process is killed, it can. Another stream's always can."""
    place = Place(tmp_path)
    with held_elsewhere(tmp_path, 7) as program:
        began = time.monotonic()
        assert not taken(place, 7)
        assert time.monotonic() - began < 0.1
        assert not taken(place, 7, 0.2)
        assert 0.2 <= time.monotonic() - began < 2
        assert taken(place, 8)
        program.kill()
        program.wait(30)
        assert taken(place, 7, 10)


def test_the_mark_of_a_process_that_was_killed(tmp_path) -> None:
    """The next holder learns that a line is cut; once it has closed that, the one after it does not."""
    with held_elsewhere(tmp_path, 7, "mark") as program:
        program.kill()
        program.wait(30)
    for found, left in ((True, True), (True, False), (False, False)):
        turn = Turn(Place(tmp_path), 7)
        assert turn.take(Patience(10))
        assert turn.midline is found
        turn.midline = left
        turn.unmark()
        turn.end()


def test_marks_of_many_streams(tmp_path) -> None:
    """The file stays small, and a stream whose place in it another has taken is not thought to be cut."""
    place = Place(tmp_path)
    for key in range(1, 3000):
        turn = Turn(place, key)
        assert turn.take(Patience(10))
        assert not turn.midline
        turn.mark()
        turn.midline = True
        turn.end()
    assert (tmp_path / NAME).stat().st_size <= 4096


def test_a_turn_that_another_thread_holds(tmp_path) -> None:
    """It cannot be had within the patience, and can when it has ended."""
    place, answers = Place(tmp_path), []
    turn = Turn(place, 7)
    assert turn.take(Patience())
    for _ in range(2):
        thread = threading.Thread(target=lambda: answers.append(taken(place, 7, 0.05)))
        thread.start()
        thread.join(30)
        turn.end()
    assert answers == [False, True]


def test_what_runs_nested_in_a_holder(tmp_path) -> None:
    """It shares the turn, without ending it; in the middle of a line it is refused at once."""
    place = Place(tmp_path)
    outer = Turn(place, 7)
    assert outer.take(Patience())
    assert taken(place, 7)
    answer = subprocess.run([sys.executable, "-c", ASKS, str(tmp_path)], capture_output=True, check=True, timeout=30)
    assert answer.stdout == b"False\n"
    outer.midline = True
    began = time.monotonic()
    assert not taken(place, 7, 5)
    assert time.monotonic() - began < 1
    outer.end()
    outer.end()
    assert not place.holders


def test_a_child_forked_from_a_holder(tmp_path) -> None:
    """It does not have its parent's turn, and gets it when the parent ends it."""
    place = Place(tmp_path)
    turn = Turn(place, 7)
    assert turn.take(Patience())
    ends = os.pipe()
    child = os.fork()
    if not child:
        os.write(ends[1], b"1" if taken(place, 7) else b"0")
        os.write(ends[1], b"1" if taken(place, 7, 30) else b"0")
        os._exit(0)
    assert os.read(ends[0], 1) == b"0"
    turn.end()
    assert os.read(ends[0], 1) == b"1"
    assert os.waitpid(child, 0)[1] == 0
    for end in ends:
        os.close(end)


def test_the_key_of_a_stream(pipe) -> None:
    """Every descriptor of a pipe has the same, in every process; another pipe has another."""
    key = key_of(os.fstat(pipe[1]))
    other = os.pipe()
    assert key_of(os.fstat(other[1])) != key
    code = "import os; from fapilog.sinks.turns import key_of; print(key_of(os.fstat(0)))"
    again = subprocess.run([sys.executable, "-c", code], stdin=pipe[0], stdout=subprocess.PIPE, check=True, timeout=30)
    assert int(again.stdout) == key
    assert 0 < key < 1 << 56
    for end in other:
        os.close(end)


def test_signal_handlers_that_raise_at_any_moment(tmp_path) -> None:
    """Whatever moment an exception cuts `write_now()` short, no turn stays taken, and no line is glued to a cut one."""
    printed = ran_well(
        run_script(
            """
            import signal, time
            from pathlib import Path
            from fapilog.sinks import StreamSink
            class Cut(Exception):
                pass
            armed = False
            def cut(*_):
                if armed:
                    raise Cut
            sink, cuts, end = StreamSink("stdout", form="json", run_dir=Path("run")), 0, time.monotonic() + 1.5
            signal.signal(signal.SIGALRM, cut)
            while time.monotonic() < end or cuts <= 50:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + cuts % 97 * 4e-6)
                line = b'{"n":%d,"x":"%s"}\\n' % (cuts, b"x" * (cuts % 3 * 10_000))
                try:
                    armed = True
                    sink.write_now([line], 5)
                    armed = False
                except Cut:
                    armed = False
                    cuts += 1
                assert not sink._place or not sink._place.holders
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            assert cuts > 50, cuts
            """,
            tmp_path,
        )
    )
    assert all(line.count('"n"') <= 1 for line in printed.split("\n"))
    with held_elsewhere(tmp_path / "run", 7):
        pass


def test_a_batch_that_is_given_up_while_it_waits(tmp_path, monkeypatch, pipe) -> None:
    """It is not written when the turn comes, and the next one is."""
    stream = os.fdopen(os.dup(pipe[1]), "w")
    monkeypatch.setattr(sys, "stdout", stream)

    async def main() -> None:
        sink = StreamSink("stdout", form="json", run_dir=tmp_path)
        await sink.open(ME)
        with held_elsewhere(tmp_path, key_of(os.fstat(pipe[1]))) as program:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await sink.write_lines([b'{"given":"up"}\n'])
            began = time.monotonic()
            with pytest.raises(SinkUnavailable, match="is writing"):
                sink.write_now([b'{"late":1}\n'], patience=0.1)
            assert time.monotonic() - began < 2
            program.kill()
            program.wait(30)
            await sink.write_lines([b'{"next":1}\n'])
        await sink.close()

    asyncio.run(main())
    assert os.read(pipe[0], 1000) == b'{"next":1}\n'
    stream.close()


def test_a_wait_for_room_that_is_given_up(tmp_path, monkeypatch, pipe) -> None:
    """The turn is given back, for the pipe's next writer."""
    stream = os.fdopen(os.dup(pipe[1]), "w")
    monkeypatch.setattr(sys, "stdout", stream)
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b"x" * 4096)
    os.set_blocking(pipe[1], True)
    place = Place(tmp_path)

    async def main() -> None:
        sink = StreamSink("stdout", form="json", run_dir=tmp_path)
        await sink.open(ME)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sink.write_lines([b'{"given":"up"}\n'])
        await sink.close()

    asyncio.run(main())
    until(lambda: taken(place, key_of(os.fstat(pipe[1]))), "the turn is given back", 10)
    stream.close()
