"""The sinks: whole lines, short writes, full disks, late events, and sinks of the user's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import random
import sys
import threading
import time
from typing import Any

import pytest

import fapilog
from fapilog.errors import ConfigurationError, SinkRejected, SinkUnavailable
from fapilog.identity import Identity
from fapilog.sinks import FileSink, StreamSink
from fapilog.typing import Event
from tests._support import process_restored, ran_well, read_lines, run_script

#: What a write to a file or a pipe may fail with, and succeed another time.
WRITE_ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EAGAIN]

ME = Identity("shop", "prod", "host", 3, 77, "b00t")


def event(number: int, padding: int = 10) -> Event:
    return Event.of(json.dumps({"n": number, "x": "x" * padding, "seq": number}).encode() + b"\n")


def events(start: int, stop: int) -> list[Event]:
    return [event(number, 10 + number % 50) for number in range(start, stop)]


def numbers(path: Any) -> list[int]:
    return [line["n"] for line in read_lines(path)]


class FaultyWrite:
    """Stands in for `os.write` on one descriptor: writes a few bytes at a time and fails as told."""

    def __init__(self, most: int = 7, failures: dict[int, int] | None = None) -> None:
        self.most = most
        self.failures = failures or {}
        self.calls = 0
        self.real = os.write

    def __call__(self, fd: int, data: Any) -> int:
        if fd <= 2:
            return self.real(fd, data)
        self.calls += 1
        if self.calls in self.failures:
            raise OSError(self.failures[self.calls], os.strerror(self.failures[self.calls]))
        return self.real(fd, bytes(data[: self.most]))


async def until_taken(sink: Any, batch: list[Event], tries: int = 300) -> int:
    """Write *batch* as a delivery does: again with the same events while the sink is unavailable."""
    for attempt in range(tries):
        try:
            await sink.write(batch)
        except SinkUnavailable:
            continue
        return attempt
    raise AssertionError("never taken")


def test_a_file_takes_whole_lines(tmp_path) -> None:
    """Each batch is appended whole, in order, behind what is there."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(event(0).line)

    async def main() -> None:
        sink = FileSink(path)
        await sink.open(ME)
        for start in range(1, 100, 10):
            await sink.write(events(start, start + 10))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == list(range(101))


def test_a_file_gets_one_write_a_batch(tmp_path, monkeypatch) -> None:
    """So the kernel keeps the batch in one piece (O-FILE-1)."""
    counting = FaultyWrite(most=1 << 30)
    monkeypatch.setattr(os, "write", counting)

    async def main() -> None:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        await sink.write(events(0, 50))
        await sink.close()

    asyncio.run(main())
    assert counting.calls == 1


def test_a_file_that_somebody_renames_and_makes_anew(tmp_path) -> None:
    """The next look finds the new one, as logrotate's `create` makes it; what was written before stays where it is (O-FILE-3)."""
    path = tmp_path / "a.jsonl"

    async def main() -> None:
        sink = FileSink(path)
        await sink.open(ME)
        await sink.write(events(0, 2))
        path.rename(tmp_path / "old.jsonl")
        path.touch()
        assert sink._file is not None
        sink._file.look_soon()
        await sink.write(events(2, 4))
        await sink.close()

    asyncio.run(main())
    assert (numbers(tmp_path / "old.jsonl"), numbers(path)) == ([0, 1], [2, 3])


def test_a_template_is_filled_in_for_the_process(tmp_path) -> None:
    """service, env, host, worker and pid; a slash in a value makes no directory."""

    async def main() -> None:
        sink = FileSink(tmp_path / "{service}/{env}-{host}-{worker}-{pid}.jsonl")
        await sink.open(Identity("a/b", "..", "h", 2, 5, "b"))
        await sink.write(events(0, 1))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "a_b" / "..-h-2-5.jsonl") == [0]


def test_missing_directories(tmp_path) -> None:
    """They are made (O-IO-2)."""

    async def main() -> None:
        sink = FileSink(tmp_path / "a" / "b" / "c.jsonl")
        await sink.open(ME)
        await sink.write(events(0, 2))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "a" / "b" / "c.jsonl") == [0, 1]


def test_a_directory_whose_name_has_braces(tmp_path, monkeypatch) -> None:
    """A relative path below it works: only the given path is a template, not the working directory."""
    odd = tmp_path / "{x}"
    odd.mkdir()
    monkeypatch.chdir(odd)
    sink = FileSink("{service}.jsonl")
    sink.bind(ME)
    assert sink.path == odd / "shop.jsonl"


def test_a_template_with_an_unknown_name(tmp_path) -> None:
    """It is a ConfigurationError when the sink is made, not an error at the first event."""
    with pytest.raises(ConfigurationError, match="nope"):
        FileSink(tmp_path / "{nope}.jsonl")


def test_short_writes(tmp_path, monkeypatch) -> None:
    """A write is resumed at its byte: every line parses, none is doubled."""
    monkeypatch.setattr(os, "write", FaultyWrite(most=3))

    async def main() -> None:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        for start in range(0, 60, 20):
            await sink.write(events(start, start + 20))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "a.jsonl") == list(range(60))


@pytest.mark.parametrize("seed", range(8))
def test_a_disk_that_fills_up_and_recovers(tmp_path, monkeypatch, seed: int) -> None:
    """Whatever the byte at which it fails, after recovery every line parses and none is doubled (O-IO-1)."""
    chance = random.Random(seed)
    failures = {call: chance.choice(WRITE_ERRORS) for call in range(1, 400) if chance.random() < 0.3}
    monkeypatch.setattr(os, "write", FaultyWrite(chance.randint(1, 40), failures))

    async def main() -> None:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        for start in range(0, 60, 20):
            await until_taken(sink, events(start, start + 20))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "a.jsonl") == list(range(60))


REFUSED = """
import errno, os, time
import fapilog
real, refused, error = os.{call}, 0, {error}
def is_ours(what):
    if {sink!r} == "stdout":
        return what == 1
    return os.path.exists("a.jsonl") and os.path.samestat(os.fstat(what), os.stat("a.jsonl")) if "{call}" == "write" else (
        os.fspath(what).endswith("a.jsonl")
    )
def refusing(what, *others, **named):
    global refused
    if error and is_ours(what):
        refused += 1
        raise OSError(error, os.strerror(error))
    return real(what, *others, **named)
os.{call} = refusing
fapilog.configure_logging(sinks=[{sink!r}], format="json", file_path="a.jsonl", queue_retry_delay=0.01, drain_timeout=20)
log = fapilog.get_logger()
for n in range(50):
    log.info("x", n=n)
end = time.monotonic() + 20
while refused < 3 and time.monotonic() < end:
    time.sleep(0.001)
held = fapilog.statistics().sinks[{sink!r}]
assert refused >= 3, refused
assert (held.accepted, held.delivered, held.in_flight, sum(held.dropped.values())) == (50, 0, 50, 0), held
assert held.retries > 0, held
error = 0
assert fapilog.flush(20).complete
after = fapilog.statistics().sinks[{sink!r}]
assert (after.accepted, after.delivered, sum(after.dropped.values())) == (50, 50, 0), after
"""


@pytest.mark.matrix
@pytest.mark.parametrize(("sink", "call"), [("file", "open"), ("file", "write"), ("stdout", "write")])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_a_file_system_that_refuses_for_a_while(tmp_path, sink: str, call: str, error: int) -> None:
    """
    The application sees no error, one note says so, events are tried again, counted and written as soon as they are taken.

    Full, over the quota, read-only, broken, or without rights, at the opening or at a write (O-IO-1, O-IO-2).
    """
    result = run_script(REFUSED.format(sink=sink, call=call, error=error), tmp_path)
    printed = ran_well(result)
    lines = printed if sink == "stdout" else (tmp_path / "a.jsonl").read_text()
    assert [json.loads(line).get("n") for line in lines.splitlines()] == [*range(50), None]
    [note] = [line for line in result.stderr.splitlines() if "takes no events" in line]
    assert os.strerror(error) in note
    assert len(result.stderr.splitlines()) <= 2, result.stderr


def test_a_batch_that_was_given_up_half_way(tmp_path, monkeypatch) -> None:
    """After closing and opening again the cut line is closed first, and the new lines are all there (O-IO-1)."""
    full = FaultyWrite(most=10, failures=dict.fromkeys(range(3, 10), errno.ENOSPC))
    monkeypatch.setattr(os, "write", full)

    async def main() -> None:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        with pytest.raises(SinkUnavailable):
            await sink.write(events(0, 3))
        await sink.close()
        full.failures = {}
        await sink.open(ME)
        await sink.write(events(10, 13))
        await sink.close()

    asyncio.run(main())
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert lines[-1] == b""
    whole = [json.loads(line)["n"] for line in lines[:-1] if line.endswith(b"}")]
    assert whole == [10, 11, 12]


def test_late_lines_after_a_batch_that_was_given_up(tmp_path, monkeypatch) -> None:
    """write_now() closes the cut line first (O-IO-1)."""
    full = FaultyWrite(most=10, failures=dict.fromkeys(range(3, 10), errno.ENOSPC))
    monkeypatch.setattr(os, "write", full)

    async def main() -> FileSink:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        with pytest.raises(SinkUnavailable):
            await sink.write(events(0, 3))
        await sink.close()
        return sink

    sink = asyncio.run(main())
    full.failures = {}
    sink.write_now([event(10).line])
    sink.release()
    assert (tmp_path / "a.jsonl").read_bytes().split(b"\n")[1:] == [event(10).line[:-1], b""]


def test_write_now_after_close(tmp_path) -> None:
    """The file is opened anew and the lines are appended."""

    async def main() -> FileSink:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        await sink.write(events(0, 3))
        await sink.close()
        return sink

    sink = asyncio.run(main())
    sink.write_now([event(3).line])
    sink.write_now([event(4).line, event(5).line])
    sink.release()
    sink.write_now([event(6).line])
    sink.release()
    assert numbers(tmp_path / "a.jsonl") == list(range(7))


def test_write_now_without_an_open(tmp_path) -> None:
    """A sink that was only bound to its process can write."""
    sink = FileSink(tmp_path / "new" / "{worker}.jsonl")
    sink.bind(ME)
    sink.write_now([event(0).line])
    sink.release()
    assert numbers(tmp_path / "new" / "3.jsonl") == [0]


def test_write_now_on_a_fifo_without_a_reader(tmp_path) -> None:
    """It refuses at once instead of waiting."""
    os.mkfifo(tmp_path / "pipe")
    sink = FileSink(tmp_path / "pipe")
    sink.bind(ME)
    began = time.monotonic()
    with pytest.raises(SinkUnavailable):
        sink.write_now([event(0).line])
    assert time.monotonic() - began < 1


def test_write_now_while_a_write_hangs(tmp_path, monkeypatch) -> None:
    """It refuses when its patience is at its end, and nothing is written beside the bytes that are on their way."""
    inside, go_on, real = threading.Event(), threading.Event(), os.write

    def hanging(fd: int, data: Any) -> int:
        inside.set()
        assert go_on.wait(30)
        return real(fd, data)

    async def main() -> None:
        sink = FileSink(tmp_path / "a.jsonl")
        await sink.open(ME)
        monkeypatch.setattr(os, "write", hanging)
        task = asyncio.create_task(sink.write(events(0, 3)))
        while not inside.is_set():
            await asyncio.sleep(0.001)
        for patience in (0.0, 0.05):
            began = time.monotonic()
            with pytest.raises(SinkUnavailable):
                sink.write_now([event(9).line], patience)
            assert patience <= time.monotonic() - began < 1
        go_on.set()
        await task
        await sink.close()
        monkeypatch.setattr(os, "write", real)
        sink.release()

    asyncio.run(main())
    assert numbers(tmp_path / "a.jsonl") == [0, 1, 2]


class TextStream(io.StringIO):
    """A stream without a descriptor."""


def test_a_stream_writes_whole_lines_past_pythons_buffers(tmp_path) -> None:
    """Each line of the pipe parses, and short writes are resumed at their byte."""
    printed = ran_well(
        run_script(
            """
            import asyncio, os, fapilog
            from fapilog.sinks import StreamSink
            real = os.write
            os.write = lambda fd, data: real(fd, bytes(data[:5]) if fd == 1 else data)
            log = fapilog.get_logger()
            for n in range(50):
                log.info("x", n=n)
            """,
            tmp_path,
        )
    )
    assert [json.loads(line).get("n") for line in printed.splitlines()] == [*range(50), None]


@pytest.mark.matrix
@pytest.mark.parametrize("error", WRITE_ERRORS, ids=errno.errorcode.get)
def test_a_stream_that_fails_half_way_and_recovers(tmp_path, error: int) -> None:
    """Every line parses and none is doubled."""
    printed = ran_well(
        run_script(
            f"""
            import os, fapilog
            real, calls = os.write, 0
            def write(fd, data):
                global calls
                if fd != 1:
                    return real(fd, data)
                calls += 1
                if calls % 3 == 0 and calls < 60:
                    raise OSError({error}, "no")
                return real(fd, bytes(data[:100]))
            os.write = write
            fapilog.configure_logging(queue_retry_delay=0.001, drain_timeout=20)
            log = fapilog.get_logger()
            for n in range(50):
                log.info("x", n=n)
            """,
            tmp_path,
        )
    )
    assert [json.loads(line).get("n") for line in printed.splitlines()] == [*range(50), None]


def test_a_stream_without_a_descriptor(monkeypatch) -> None:
    """It gets the lines as text through its own write(), from the queue's thread and from the caller's (write_now)."""
    stream = TextStream()
    monkeypatch.setattr(sys, "stdout", stream)

    async def main() -> StreamSink:
        sink = StreamSink("stdout", form="json")
        await sink.open(ME)
        await sink.write(events(0, 2))
        await sink.close()
        return sink

    sink = asyncio.run(main())
    sink.write_now([event(2).line])
    assert [json.loads(line)["n"] for line in stream.getvalue().splitlines()] == [0, 1, 2]


def test_a_stream_that_is_gone(monkeypatch) -> None:
    """Without a stdout (pythonw, daemons) the events are refused, and not tried again until the drain's limit."""
    monkeypatch.setattr(sys, "stdout", None)

    async def main() -> None:
        sink = StreamSink("stdout", form="auto")
        await sink.open(ME)
        with pytest.raises(SinkRejected, match="None") as refused:
            await sink.write(events(0, 2))
        assert refused.value.count == 2
        with pytest.raises(SinkUnavailable):
            sink.write_now([event(0).line])
        await sink.close()

    asyncio.run(main())


class Collecting:
    """A custom sink that keeps what it gets."""

    def __init__(self, name: str = "mine", pause: float = 0.0) -> None:
        self.name = name
        self.pause = pause
        self.batches: list[Any] = []
        self.life: list[str] = []
        self.threads: set[str] = set()

    async def open(self, identity: Identity) -> None:
        self.identity = identity
        self.life.append("open")

    async def write(self, events: Any) -> None:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.pause)
        self.batches.append(events)

    async def close(self) -> None:
        self.life.append("close")

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch if not event["event"].startswith("fapilog.")]


@pytest.fixture
def configure(tmp_path):
    with process_restored():

        def do(*sinks: Any, **overrides: Any) -> None:
            settings: dict[str, Any] = {
                "file_path": str(tmp_path / "out.jsonl"),
                "run_dir": str(tmp_path / "run"),
                "queue_batch_timeout": 0.02,
            }
            fapilog.configure_logging(sinks=sinks, **{**settings, **overrides})

        yield do


def test_two_custom_sinks_and_a_file(configure, tmp_path) -> None:
    """Each gets every event once, expanded, with the identity, equal to the file's line, and as a copy of its own."""
    one, two = Collecting("one"), Collecting("two")
    configure(one, two, "file", service="shop")
    log = fapilog.get_logger("l")
    for number in range(25):
        log.info("x", n=number, nested={"a": [number]})
    assert fapilog.flush(10).complete
    assert [event["n"] for event in one.events] == list(range(25))
    assert [dict(event) for event in one.events] == [dict(event) for event in two.events] == read_lines(tmp_path / "out.jsonl")
    assert not {id(event) for event in one.events} & {id(event) for event in two.events}
    first = one.events[0]
    assert isinstance(first, Event)
    assert (first["service"], first["pid"], first["seq"], first.seq, first.levelno) == ("shop", os.getpid(), 1, 1, 20)
    assert json.loads(first.line) == first
    one.events[0]["nested"]["a"].append("changed")
    assert two.events[0]["nested"] == {"a": [0]}
    assert fapilog.shutdown_logging().complete
    assert one.life == two.life == ["open", "close"]
    assert one.identity.pid == os.getpid()


@pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 10**60, 10**400], ids=["2**64+1", "-2**63-1", "10**60", "10**400"])
def test_a_large_integer_on_its_way_to_a_custom_sink(configure, tmp_path, number: int) -> None:
    """The sink gets it exactly, and so it does the other events of the batch (O-VAL-1)."""
    sink = Collecting()
    configure(sink, "file", queue_retry_delay=0.01, queue_max_retries=1)
    log = fapilog.get_logger()
    log.info("before")
    log.info("large", n=number)
    log.info("after")
    fapilog.flush(10)
    assert [event["event"] for event in sink.events] == ["before", "large", "after"]
    assert sink.events[1]["n"] == number
    assert [line["event"] for line in read_lines(tmp_path / "out.jsonl")] == ["before", "large", "after"]


def test_a_custom_sink_that_blocks_its_thread(configure, tmp_path) -> None:
    """A time.sleep (here: a wait) in it delays no other sink and no log call, and it has a thread of its own."""
    go_on = threading.Event()

    class Blocking(Collecting):
        async def write(self, events: Any) -> None:
            assert go_on.wait(60)
            await super().write(events)

    slow, quick, path = Blocking("slow"), Collecting("quick"), tmp_path / "out.jsonl"
    configure(slow, quick, "file")
    log = fapilog.get_logger()
    for number in range(20):
        log.info("x", n=number)
    end = time.monotonic() + 30
    while time.monotonic() < end and not (len(quick.events) == 20 and path.exists() and path.read_bytes().count(b"\n") == 20):
        time.sleep(0.005)
    assert len(quick.events) == len(read_lines(path)) == 20
    assert not slow.events
    go_on.set()
    assert fapilog.flush(30).complete
    assert len(slow.events) == 20
    assert slow.threads.isdisjoint(quick.threads)


def test_a_custom_sink_that_hangs_at_shutdown(configure) -> None:
    """The shutdown ends within its limit and says what was not delivered."""

    class Hanging(Collecting):
        async def write(self, events: Any) -> None:
            await asyncio.sleep(3600)

    quick = Collecting("quick")
    configure(Hanging(), quick)
    fapilog.get_logger().info("x")
    began = time.monotonic()
    result = fapilog.shutdown_logging(0.5)
    assert time.monotonic() - began < 2
    assert not result.complete
    assert result.per_sink["mine"].in_flight == 0
    assert result.per_sink["mine"].dropped == 2
    assert result.per_sink["quick"].delivered == 2


def test_late_events_for_a_custom_sink(configure) -> None:
    """With write_now it gets them from the caller's thread; without, they are counted after_close."""

    class Late(Collecting):
        def write_now(self, lines: Any) -> None:
            self.late = lines

    late, other = Late("late"), Collecting("other")
    configure(late, other)
    fapilog.get_logger().info("in time")
    fapilog.shutdown_logging()
    fapilog.get_logger().info("late")
    assert json.loads(late.late[0])["event"] == "late"
    sinks = fapilog.statistics().sinks
    assert sinks["other"].dropped == {"after_close": 1}
    assert sinks["late"].dropped == {}


@pytest.mark.parametrize("kind", ["file", "stdout into a file", "stdout into a pipe"])
def test_an_event_is_logged_while_the_drain_writes_its_last_batch(configure, tmp_path, monkeypatch, kind: str) -> None:
    """It waits for that write, and is in the file once: a thread that logs on while a process ends loses nothing."""
    inside, real, path = threading.Event(), os.write, tmp_path / "out.jsonl"

    def slow(fd: int, data: Any) -> int:
        if b"fapilog.closed" in bytes(data):
            inside.set()
            time.sleep(0.03)
        return real(fd, data)

    def log_on() -> None:
        assert inside.wait(30)
        fapilog.get_logger().info("late")

    with contextlib.ExitStack() as opened:
        reader = None
        if kind == "stdout into a file":
            monkeypatch.setattr(sys, "stdout", opened.enter_context(path.open("a")))
        if kind == "stdout into a pipe":
            reader, writer = os.pipe()
            monkeypatch.setattr(sys, "stdout", opened.enter_context(os.fdopen(writer, "w")))
        configure("file" if kind == "file" else StreamSink("stdout", form="json"))
        monkeypatch.setattr(os, "write", slow)
        thread = threading.Thread(target=log_on)
        thread.start()
        fapilog.get_logger().info("in time")
        fapilog.shutdown_logging()
        thread.join(30)
        (sink,) = fapilog.statistics().sinks.values()
        assert sink.dropped == {}
        if reader is not None:
            path.write_bytes(os.read(reader, 100_000))
            os.close(reader)
    assert [line["event"] for line in read_lines(path)] == ["in time", "fapilog.closed", "late"]


def test_many_late_events_for_a_sink_that_is_stuck(configure) -> None:
    """All together wait for it no longer than a tenth of a second, and are counted."""
    inside, go_on = threading.Event(), threading.Event()

    class Stuck(Collecting):
        def write_now(self, lines: Any) -> None:
            inside.set()
            assert go_on.wait(30)

    configure(Stuck("stuck"))
    fapilog.get_logger().info("in time")
    fapilog.shutdown_logging()
    thread = threading.Thread(target=fapilog.get_logger().info, args=("first",))
    thread.start()
    assert inside.wait(30)
    began = time.monotonic()
    for _ in range(100):
        fapilog.get_logger().info("late")
    assert time.monotonic() - began < 1.0
    go_on.set()
    thread.join(30)
    assert fapilog.statistics().sinks["stuck"].dropped == {"after_close": 100}


def test_sinks_of_the_same_name(configure) -> None:
    """They are refused with the name."""
    with pytest.raises(ConfigurationError, match="'mine'"):
        configure(Collecting(), Collecting())
    with pytest.raises(ConfigurationError, match="file"):
        configure("file", "file")


class NoWrite:
    name = "x"

    async def open(self, identity: Identity) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("sink", [object(), print, 5, None, NoWrite(), b"file"])
def test_a_sink_that_is_none(configure, sink: Any) -> None:
    """It is refused with what a sink must have."""
    with pytest.raises(ConfigurationError, match="write"):
        configure(sink)


def test_a_sink_class_instead_of_a_sink(configure) -> None:
    """It is refused: forgotten parentheses must not turn into silence."""

    class Named(Collecting):
        name = "class"

    with pytest.raises(ConfigurationError):
        configure(Named)


def test_an_unknown_name_of_a_sink(configure) -> None:
    """It is refused with the name."""
    with pytest.raises(ConfigurationError, match="flie"):
        configure("flie")


def test_sinks_from_a_generator(tmp_path) -> None:
    """Any iterable will do, as the signature says."""
    with process_restored():
        fapilog.configure_logging(
            sinks=(name for name in ("file",)), file_path=str(tmp_path / "out.jsonl"), run_dir=str(tmp_path / "run")
        )
        fapilog.get_logger().info("x")
        fapilog.shutdown_logging()
        assert read_lines(tmp_path / "out.jsonl")[0]["event"] == "x"


def test_synchronous_output_with_a_custom_sink_without_write_now(configure) -> None:
    """It is refused at set-up, with the sink's name."""
    with pytest.raises(ConfigurationError, match="mine"):
        configure(Collecting(), queue_enabled=False)


def test_synchronous_output_to_a_file(configure, tmp_path) -> None:
    """The line is in the file when the call returns."""
    configure("file", queue_enabled=False)
    for number in range(3):
        fapilog.get_logger().info("x", n=number)
        assert [line["n"] for line in read_lines(tmp_path / "out.jsonl")] == list(range(number + 1))


def test_synchronous_output_to_a_replaced_stdout(configure, monkeypatch) -> None:
    """A StringIO in place of stdout, as in tests, gets the line."""
    stream = TextStream()
    monkeypatch.setattr(sys, "stdout", stream)
    configure("stdout", queue_enabled=False)
    fapilog.get_logger().info("x")
    assert json.loads(stream.getvalue())["event"] == "x"


def test_file_strict_with_a_directory_that_cannot_be_made(configure, tmp_path) -> None:
    """It fails at set-up and names the path; without it, set-up succeeds (O-IO-2)."""
    (tmp_path / "taken").write_text("a file")
    bad = str(tmp_path / "taken" / "out.jsonl")
    with pytest.raises(ConfigurationError, match="taken"):
        configure("file", file_path=bad, file_strict=True)
    configure("file", file_path=bad, drain_timeout=0.3)


def test_a_directory_that_is_removed_while_running(configure, tmp_path) -> None:
    """The log call does not raise, and the books balance (O-IO-2)."""
    configure("file", file_path=str(tmp_path / "logs" / "out.jsonl"))
    log = fapilog.get_logger()
    log.info("one")
    assert fapilog.flush(10).complete
    (tmp_path / "logs" / "out.jsonl").unlink()
    (tmp_path / "logs").rmdir()
    log.info("two")
    fapilog.flush(10)
    books = fapilog.statistics().sinks["file"]
    assert books.accepted == books.delivered + sum(books.dropped.values()) + books.in_flight == 2
