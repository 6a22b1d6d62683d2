"""Rotation of files: when, under which names, what the successors say, what is removed, and what is compressed."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import subprocess
import sys
import threading
import time
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

import fapilog
from fapilog._internal import notes
from fapilog._internal.compressor import Compression, Compressor
from fapilog._internal.native import nap
from fapilog._internal.schedule import Schedule
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError, SinkUnavailable
from fapilog.identity import Identity
from fapilog.sinks import FileSink, rotation
from fapilog.sinks.base import Appender
from fapilog.sinks.family import Family, first_line, last_line
from fapilog.sinks.written import WrittenFile
from tests._support import process_restored
from tests.programs.running import wait_until
from tests.rotated import ME, batch, content, family_lines, headers, line, lines_of, names, numbers, run, written

if TYPE_CHECKING:
    from collections.abc import Callable

STAMPED = re.compile(r"app\.1\.jsonl\.[0-9]{8}T[0-9]{6}\.[0-9]{6}Z(\.gz)?")


@pytest.fixture(autouse=True)
def _notes_anew() -> None:
    """Let each test see its own notes, which are rate-limited."""
    notes.forget()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.1.jsonl"


def rotated(path) -> list[str]:
    return Family(str(path)).stamps()


# ---- when: by size


def test_rotation_by_size(path) -> None:
    """Before the write that would exceed it: no file is larger, none but the last much smaller, every line is there once."""
    run(FileSink(path, max_bytes=1000, keep=1000), *(batch(range(n, n + 3), 100) for n in range(0, 300, 3)))
    sizes = [len(content(each)) for each in Family(str(path)).paths()]
    assert max(sizes) <= 1000
    assert min(sizes[:-1]) > 1000 - 100 - 1
    assert numbers(path) == list(range(300))


def test_a_batch_larger_than_the_limit(path) -> None:
    """It is split at line ends."""
    run(FileSink(path, max_bytes=1000, keep=1000), batch(range(100), 100))
    assert max(len(content(each)) for each in Family(str(path)).paths()) <= 1000
    assert numbers(path) == list(range(100))


def test_a_line_larger_than_the_limit(path) -> None:
    """It gets a file of its own, beside our first line."""
    run(FileSink(path, max_bytes=1000, keep=1000), [line(0), line(1, 5000), line(2), line(3, 5000), line(4)])
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[0], [1], [2], [3], [4]]


def test_a_limit_smaller_than_our_first_line(path) -> None:
    """Each file gets one line: rotation never goes on without a line written."""
    run(FileSink(path, max_bytes=1, keep=1000), batch(range(10)))
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[n] for n in range(10)]


def test_a_file_of_an_earlier_life_that_is_full(path) -> None:
    """It is rotated before the first line, and its successor names the last line of that life."""
    path.write_bytes(b"".join(batch(range(5), 300)))
    run(FileSink(path, max_bytes=1000), batch([5]))
    assert numbers(path) == [0, 1, 2, 3, 4, 5]
    assert [(h["previous_boot"], h["previous_last_seq"]) for h in headers(path)] == [("b00t", 4)]


def test_short_writes_and_a_full_disk_in_the_midst_of_rotations(path, monkeypatch) -> None:
    """Whatever the byte at which a write fails, the batch comes again and every line is there once and whole (O-IO-1)."""
    real, calls = os.write, 0

    def faulty(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, bytes(data)[:157])

    monkeypatch.setattr(os, "write", faulty)
    monkeypatch.setattr(rotation, "AGAIN_AFTER_S", 0.0)
    run(FileSink(path, max_bytes=1000, keep=1000), *(batch(range(n, n + 20), 100) for n in range(0, 200, 20)))
    monkeypatch.undo()
    assert numbers(path) == list(range(200))


def test_a_batch_that_is_not_tried_again(path, monkeypatch) -> None:
    """The next batch is another one: it is written from its first line, after the cut line was closed."""
    real, full = os.write, [True]

    def faulty(fd: int, data: bytes) -> int:
        if not full:
            return real(fd, data)
        if len(data) < 250:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, bytes(data)[:150])

    monkeypatch.setattr(os, "write", faulty)

    async def main() -> None:
        sink = FileSink(path)
        await sink.open(ME)
        with pytest.raises(SinkUnavailable):
            await sink.write_lines(batch(range(3), 100))
        full.clear()
        await sink.write_lines(batch(range(3, 6), 100))
        await sink.close()

    asyncio.run(main())
    lines = path.read_bytes().split(b"\n")
    assert lines[0] + b"\n" == line(0, 100)
    assert lines[1] == line(1, 100)[:50]
    assert b"\n".join(lines[2:]) == b"".join(batch(range(3, 6), 100))


# ---- when: by time


@pytest.mark.parametrize(("every", "seconds"), [("30s", 30), ("15m", 900), ("1h", 3600), ("1d", 86400)])
def test_periods(every: str, seconds: int) -> None:
    """They are aligned to the epoch, each moment lies in one, the ends meet."""
    for at in (0, 1, seconds - 1, 1_795_843_049.5):
        begin, end = Schedule(every).period(at)
        assert begin <= at < end == begin + seconds
        assert begin % seconds == 0


@pytest.fixture
def zone(monkeypatch):
    def set_to(name: str) -> ZoneInfo:
        monkeypatch.setenv("TZ", name)
        time.tzset()
        return ZoneInfo(name)

    yield set_to
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("Europe/Berlin", (2026, 3, 28)),  # spring forward and fall back in the night
        ("Europe/Berlin", (2026, 10, 24)),
        ("America/Sao_Paulo", (2018, 11, 3)),  # midnight does not exist
        ("America/Sao_Paulo", (2018, 2, 16)),  # the last hour of a day comes twice
        ("America/Havana", (2026, 10, 31)),  # midnight comes twice
        ("America/Havana", (2026, 3, 7)),
        ("Asia/Beirut", (2021, 3, 27)),
        ("Australia/Lord_Howe", (2026, 4, 4)),  # half an hour
        ("Pacific/Apia", (2011, 12, 28)),  # a day is missing
        ("UTC", (2026, 12, 31)),
    ],
)
def test_midnight(zone, name: str, day: tuple[int, int, int]) -> None:
    """A period is a local day, over every change of the clock: each moment in one, the ends meet."""
    here = zone(name)
    schedule = Schedule("midnight")
    first = int(datetime(*day, 1, 30, tzinfo=here).timestamp())
    for at in range(first, first + 4 * 86400, 600):
        begin, end = schedule.period(at)
        assert begin <= at < end
        days = {datetime.fromtimestamp(moment, here).date() for moment in (begin, at, end - 1)}
        assert len(days) == 1
        assert not days & {datetime.fromtimestamp(moment, here).date() for moment in (begin - 1, end)}
        assert schedule.period(end)[0] == end


class Clock:
    def __init__(self, monkeypatch, now: float) -> None:
        self.now = now
        monkeypatch.setattr("fapilog.sinks.rotation.time.time", lambda: self.now)


def test_rotation_by_time(path, monkeypatch) -> None:
    """The first line of a period begins a new file; a period without lines makes none."""
    start = 1_795_843_000 - 1_795_843_000 % 3600 + 10.0
    clock = Clock(monkeypatch, start)

    async def main() -> None:
        sink = FileSink(path, rotate_every="1h", keep=100)
        await sink.open(ME)
        for hours, number in ((0, 0), (0.9, 1), (1, 2), (1.1, 3), (5, 4)):
            clock.now = start + hours * 3600
            await sink.write_lines(batch([number]))
        await sink.close()

    asyncio.run(main())
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[0, 1], [2, 3], [4]]


def test_a_file_of_an_earlier_life_and_period(path, monkeypatch) -> None:
    """It is rotated at the first line of the next life; one of the same period is written on."""
    path.write_bytes(line(0))
    os.utime(path, (1_795_843_000, 1_795_843_000))
    run(FileSink(path, rotate_every="1h"), batch([1]))
    run(FileSink(path, rotate_every="1d"), batch([2]))
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[0], [1, 2]]


def test_a_clock_that_is_set_back(path, monkeypatch) -> None:
    """Periods go on from there, and names still sort in the order of the rotations."""
    clock = Clock(monkeypatch, 2_000_000_000.0)

    async def main() -> None:
        sink = FileSink(path, rotate_every="1h", keep=100)
        await sink.open(ME)
        for number in range(8):
            clock.now = (2_000_000_000.0 if number < 4 else 1_900_000_000.0) + number * 3600
            await sink.write_lines(batch([number]))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == list(range(8))
    assert len(rotated(path)) == 6


# ---- names


def test_names(path, tmp_path) -> None:
    """A rotated file is named for its moment, in UTC, and nothing else is left beside it."""
    run(FileSink(path, max_bytes=300), batch(range(6), 200))
    others = [name for name in names(tmp_path) if name != "app.1.jsonl"]
    assert len(others) == 5
    assert all(map(STAMPED.fullmatch, others))


def test_names_of_others(tmp_path) -> None:
    """Files of worker 11, of logrotate, of an editor are not of the family, and retention never touches them."""
    strangers = [
        "app.11.jsonl",
        "app.11.jsonl.20261128T051729.123456Z",
        "app.1.jsonl.1",
        "app.1.jsonl-20261128",
        "app.1.jsonl.gz",
    ]
    strangers += ["app.1.jsonl.20261128T051729.123456Z~", "app.1xjsonl.20261128T051729.123456Z", ".app.11.jsonl.new"]
    for name in strangers:
        (tmp_path / name).write_text("keep me")
    run(FileSink(tmp_path / "app.1.jsonl", max_bytes=300, keep=0, compress="gzip"), batch(range(9), 200))
    assert set(strangers) <= set(names(tmp_path))
    assert all((tmp_path / name).read_text() == "keep me" for name in strangers)


def test_odd_names(tmp_path) -> None:
    """Characters that mean something in patterns mean themselves."""
    odd = tmp_path / "a[1]*.(x)+?.jsonl"
    run(FileSink(odd, max_bytes=300), batch(range(4), 200))
    assert numbers(odd) == [0, 1, 2, 3]
    assert len(rotated(odd)) == 3


# ---- the first line of a successor


def test_first_lines(path) -> None:
    """Each names its predecessor and the last line in it, has the identity of who wrote it, and takes no seq (O-FILE-2)."""
    run(FileSink(path, max_bytes=1000, keep=100), *(batch(range(n, n + 7), 130) for n in range(1, 71, 7)))
    files = Family(str(path)).paths()
    assert len(files) > 5
    for before, after in pairwise(files):
        head, last = lines_of(after)[0], lines_of(before)[-1]
        assert list(head)[:4] == ["timestamp", "level", "event", "logger"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", head["timestamp"])
        assert (head["event"], head["logger"], head["level"]) == ("fapilog.rotated", "fapilog", "info")
        assert (head["previous"], head["previous_boot"], head["previous_last_seq"]) == (
            os.path.basename(before),
            "b00t",
            last["seq"],
        )
        assert {name: head[name] for name in ME.fields()} == ME.fields()
        assert "seq" not in head
        assert "trimmed" not in head


def test_the_first_file_of_all(path) -> None:
    """It has no first line of ours: nothing came before it."""
    run(FileSink(path, max_bytes=1000), batch([1]))
    assert path.read_bytes() == line(1)


def test_a_torn_line_before_a_rotation(path) -> None:
    """It gets its newline in the file it is in."""
    path.write_bytes(b"".join(batch(range(3), 400)) + b'{"n": 3, "x')
    run(FileSink(path, max_bytes=1000), batch([4]))
    old = Family(str(path)).paths()[0]
    assert content(old).endswith(b'{"n": 3, "x\n')
    assert [each.get("n") for each in lines_of(path)] == [None, 4]


# ---- retention


def test_retention(path) -> None:
    """The newest stay, the oldest go, and each first line says how much is gone: files, and the last line of the last one."""
    run(FileSink(path, max_bytes=500, keep=3), *(batch([n], 400) for n in range(1, 11)))
    assert numbers(path) == [7, 8, 9, 10]
    assert len(rotated(path)) == 3
    assert [head.get("trimmed") for head in headers(path)] == [
        {"files": 3, "boot": "b00t", "last_seq": 3},
        {"files": 4, "boot": "b00t", "last_seq": 4},
        {"files": 5, "boot": "b00t", "last_seq": 5},
        {"files": 6, "boot": "b00t", "last_seq": 6},
    ]


def test_retention_over_lives(path) -> None:
    """What was gone before this life is counted on, and the boot is that of the last line that went."""
    for boot in "abc":
        lines = [each.replace(b"b00t", boot.encode()) for each in batch(range(1, 4), 400)]
        run(FileSink(path, max_bytes=500, keep=2, compress="gzip"), lines, identity=Identity("app", "", "host", 1, 77, boot))
    assert headers(path)[-1]["trimmed"] == {"files": 6, "boot": "b", "last_seq": 3}
    assert [each["boot"] for lines in family_lines(path) for each in lines if "n" in each] == ["c"] * 3


def test_keeping_none(path) -> None:
    """Each file goes as soon as it is full."""
    run(FileSink(path, max_bytes=500, keep=0), *(batch([n], 400) for n in range(1, 5)))
    assert numbers(path) == [4]
    assert headers(path)[0]["trimmed"] == {"files": 3, "boot": "b00t", "last_seq": 3}


def test_retention_beside_an_operator_who_removes_files(path) -> None:
    """What somebody removed is not counted as kept: the newest that exist stay."""

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, keep=3)
        await sink.open(ME)
        for number in range(4):
            await sink.write_lines(batch([number], 400))
        for stamp in rotated(path)[1:]:
            os.unlink(f"{path}.{stamp}")
        await sink.write_lines(batch([4], 400))
        await sink.write_lines(batch([5], 400))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [0, 3, 4, 5]


def test_an_old_file_that_cannot_be_removed(path, monkeypatch, capfd) -> None:
    """Writing goes on, one note says so, and the next rotation tries again (O-IO-2)."""
    real = os.unlink
    refused = [True]

    def unlink(name, *args, **kwargs):
        if refused and STAMPED.fullmatch(os.path.basename(name)):
            raise PermissionError(errno.EACCES, "no", name)
        real(name, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", unlink)

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, keep=1)
        await sink.open(ME)
        for number in range(5):
            await sink.write_lines(batch([number], 400))
        assert len(rotated(path)) == 4
        refused.clear()
        await sink.write_lines(batch([5], 400))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [4, 5]
    assert capfd.readouterr().err.count("cannot be removed") == 1


# ---- compression


def compressed(path, count: int):
    def all_there() -> bool:
        found = Family(str(path)).paths()[:-1]
        return len(found) == count and all(each.endswith(".gz") for each in found)

    return all_there


def plain(directory) -> list[str]:
    return [name for name in names(directory) if STAMPED.fullmatch(name) and not name.endswith(".gz")]


def test_compression(path, tmp_path) -> None:
    """Rotated files are compressed in the background, whole, and nothing else is left."""

    async def main() -> None:
        sink = FileSink(path, max_bytes=5000, keep=100, compress="gzip")
        await sink.open(ME)
        await written(sink, [batch(range(n, n + 10), 300) for n in range(0, 100, 10)])
        count = len(rotated(path))
        await asyncio.to_thread(wait_until, compressed(path, count), "all are compressed")
        await asyncio.to_thread(
            wait_until, lambda: not plain(tmp_path), "the plain ones are removed, each after its compressed one"
        )
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == list(range(100))
    assert all(name == "app.1.jsonl" or STAMPED.fullmatch(name) for name in names(tmp_path))


def test_compression_of_what_an_earlier_life_left(path) -> None:
    """It is done after the next start, also where the earlier life compressed nothing."""
    run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(3)))

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, compress="gzip")
        await sink.open(ME)
        await asyncio.to_thread(wait_until, compressed(path, 2), "all are compressed")
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [0, 1, 2]


def test_a_compression_that_comes_too_late(tmp_path) -> None:
    """What has been stopped and tidied up makes no file any more, which nobody would remove."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    compressor = Compressor("late")
    compressor.stop()
    compressor.tidy()
    compressor._compress(Compression(str(path), str(tmp_path / ".passing"), lambda: None))
    assert list(tmp_path.iterdir()) == [path]


def held_up(monkeypatch, name: str, real: Callable[[Any], None]) -> tuple[threading.Event, threading.Event]:
    """Hold up the thread that compresses where it calls *name*; return what says that it is there, and what lets it go on."""
    there, go_on = threading.Event(), threading.Event()

    def waiting(argument: Any) -> None:
        if threading.current_thread().name.endswith("-gzip"):
            there.set()
            assert go_on.wait(30)
        real(argument)

    monkeypatch.setattr(name, waiting)
    return there, go_on


def test_writes_while_a_file_is_compressed(path, monkeypatch) -> None:
    """They do not wait for it, nor does closing; and what is cut short leaves the file as it was."""
    inside, go_on = held_up(monkeypatch, "fapilog._internal.compressor.nap", nap)

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, keep=100, compress="gzip")
        await sink.open(ME)
        await written(sink, [batch(range(3), 400)])
        assert await asyncio.to_thread(inside.wait, 30)
        began = time.monotonic()
        await written(sink, [batch(range(3, 20), 400)])
        await sink.close()
        assert time.monotonic() - began < 5

    asyncio.run(main())
    assert numbers(path) == list(range(20))
    go_on.set()
    wait_until(lambda: not any("gzip" in thread.name for thread in threading.enumerate()), "the thread ends")
    assert numbers(path) == list(range(20))
    assert not [name for name in names(path.parent) if name.startswith(".")]


def test_the_end_while_a_compressed_file_takes_its_place(path, monkeypatch) -> None:
    """It waits for that: a process that ends in order leaves each file in one form."""
    renamed, go_on = held_up(monkeypatch, "fapilog.sinks.family.os.unlink", os.unlink)

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, keep=100, compress="gzip")
        await sink.open(ME)
        await written(sink, [batch(range(3), 400)])
        assert await asyncio.to_thread(renamed.wait, 30)
        closing = asyncio.create_task(sink.close())
        done, _ = await asyncio.wait([closing], timeout=0.2)
        assert not done
        go_on.set()
        await closing
        stamps = [name.removesuffix(".gz") for name in names(path.parent) if STAMPED.fullmatch(name)]
        assert len(stamps) == len(set(stamps)) == len(rotated(path))

    asyncio.run(main())
    assert numbers(path) == list(range(3))


def test_the_priority_of_compression(path) -> None:
    """On Linux its thread has the lowest one, and no other thread has."""
    if sys.platform != "linux":
        pytest.skip("elsewhere a priority belongs to the process")

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, compress="gzip")
        await sink.open(ME)
        await written(sink, [batch(range(3), 400)])
        found = [thread for thread in threading.enumerate() if thread.name == "fapilog-file-gzip"]
        ident = found[0].native_id
        assert ident is not None
        await asyncio.to_thread(wait_until, lambda: os.getpriority(os.PRIO_PROCESS, ident) == 19, "it is nice")
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19
        await sink.close()

    asyncio.run(main())


def test_retention_of_compressed_files(path) -> None:
    """They count as the files they were, in whatever form."""

    async def main() -> None:
        sink = FileSink(path, max_bytes=500, keep=2, compress="gzip")
        await sink.open(ME)
        for number in range(1, 9):
            await written(sink, [batch([number], 400)])
            await asyncio.to_thread(wait_until, compressed(path, min(number - 1, 2)), "all are compressed")
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [6, 7, 8]
    assert headers(path)[-1]["trimmed"] == {"files": 5, "boot": "b00t", "last_seq": 5}


# ---- rights


def test_modes(path, tmp_path) -> None:
    """The umask holds, and what the administrator set is kept over rotation and compression, but for writing by others."""
    before = os.umask(0o027)
    try:
        run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(2)))
        assert {stat.S_IMODE(os.stat(each).st_mode) for each in Family(str(path)).paths()} == {0o640}
        os.chmod(path, 0o602)
        run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(2, 4)))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        os.umask(0)
        run(FileSink(tmp_path / "open.jsonl"), batch([1]))
        assert stat.S_IMODE(os.stat(tmp_path / "open.jsonl").st_mode) == 0o644
    finally:
        os.umask(before)


def test_the_owner_is_kept(path) -> None:
    """Where root writes to a file of somebody else, the successor is theirs, too."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    run(FileSink(path, max_bytes=500), batch([0], 400))
    os.chown(path, 65534, 65534)
    run(FileSink(path, max_bytes=500), batch([1], 400))
    assert {(os.stat(each).st_uid, os.stat(each).st_gid) for each in Family(str(path)).paths()} == {(65534, 65534)}


# ---- what cannot be rotated


def test_a_rotation_that_is_refused(path, monkeypatch, capfd) -> None:
    """Lines go on into the old file, one note says so, and later it is tried again (O-IO-2)."""
    real, refused = os.rename, [True]

    def rename(source, target, **kwargs):
        if refused:
            raise PermissionError(errno.EACCES, "no", source)
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", rename)

    async def main() -> None:
        sink = FileSink(path, max_bytes=500)
        await sink.open(ME)
        for number in range(5):
            await sink.write_lines(batch([number], 400))
        assert rotated(path) == []
        refused.clear()
        monkeypatch.setattr(rotation.Rotator, "postpone", lambda _: None)
        rotator = sink._home.rotator
        assert rotator is not None
        rotator._again_at = 0.0
        await sink.write_lines(batch([5], 400))
        await sink.close()

    asyncio.run(main())
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[0, 1, 2, 3, 4], [5]]
    assert capfd.readouterr().err.count("cannot be rotated now") == 1


def test_a_second_rename_that_is_refused(path, monkeypatch) -> None:
    """The first one is taken back: the written file keeps its name."""
    real = os.rename

    def rename(source, target, **kwargs):
        if str(source).endswith(".new"):
            raise OSError(errno.EIO, "no", source)
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(3)))
    assert [each["n"] for each in lines_of(path)] == [0, 1, 2]
    assert rotated(path) == []


def test_a_link_is_not_rotated(path, tmp_path, capfd) -> None:
    """Its target may be anything; one note says so."""
    path.symlink_to(tmp_path / "elsewhere")
    run(FileSink(path, max_bytes=500), *(batch([n], 400) for n in range(3)))
    assert [each["n"] for each in lines_of(tmp_path / "elsewhere")] == [0, 1, 2]
    assert names(tmp_path) == ["app.1.jsonl", "elsewhere"]
    assert capfd.readouterr().err.count("is a link") == 1


def test_stdout_as_a_path(tmp_path) -> None:
    """`/dev/stdout`, whatever it is, is written to and never renamed."""
    code = (
        "from fapilog.sinks import FileSink\nfrom tests.rotated import *\n"
        "run(FileSink('/dev/stdout', max_bytes=500), *(batch([n], 400) for n in range(4)))"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=40)
    assert [each["n"] for each in lines_of(tmp_path / "out")] == [0, 1, 2, 3]


def test_a_fifo_is_not_rotated(path) -> None:
    """Its lines arrive, and it stays where it is (O-LOOP-2)."""
    os.mkfifo(path)
    got: list[bytes] = []

    def read() -> None:
        with path.open("rb") as fifo:
            got.append(fifo.read())

    reader = threading.Thread(target=read)
    reader.start()
    run(FileSink(path, max_bytes=100), *(batch([n], 400) for n in range(4)))
    reader.join(30)
    assert got == [b"".join(batch(range(4), 400))]
    assert stat.S_ISFIFO(os.stat(path).st_mode)


# ---- write_now


def test_write_now_rotates(path) -> None:
    """By size, with the same names, first lines and retention, and without a thread (compression is left to others)."""
    sink = FileSink(path, max_bytes=500, keep=2, compress="gzip")
    sink.bind(ME)
    threads = set(threading.enumerate())
    for number in range(1, 8):
        sink.write_now(batch([number], 400))
    assert set(threading.enumerate()) <= threads
    sink.release()
    assert numbers(path) == [5, 6, 7]
    assert headers(path)[-1]["trimmed"] == {"files": 4, "boot": "b00t", "last_seq": 4}
    assert headers(path)[-1]["previous_last_seq"] == 6
    assert not [name for name in names(path.parent) if name.startswith(".")]


def test_write_now_after_close_with_rotation(path) -> None:
    """The late lines follow in the same family."""
    sink = FileSink(path, max_bytes=500, keep=100)
    run(sink, *(batch([n], 400) for n in range(3)))
    sink.write_now(batch([3], 400))
    sink.write_now(batch([4], 400))
    sink.release()
    run(sink, batch([5], 400))
    assert numbers(path) == [0, 1, 2, 3, 4, 5]


def test_write_now_from_many_threads(path) -> None:
    """Nothing is lost or doubled while one of them rotates."""
    sink = FileSink(path, max_bytes=2000, keep=100_000)
    sink.bind(ME)
    failed: list[BaseException] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 200):
                sink.write_now(batch([number], 150), 10.0)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 1600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sink.release()
    assert failed == []
    assert sorted(numbers(path)) == list(range(1600))
    assert len(rotated(path)) > 5  # how often depends on who is inside while another one would rotate


def test_write_now_while_another_rotates(path) -> None:
    """It waits for nobody: the line goes into the file that there is."""
    sink = FileSink(path, max_bytes=500, keep=100)
    sink.bind(ME)
    sink.write_now(batch([0], 400))
    sink._late._turner = 1
    sink.write_now(batch([1], 400))
    sink._late._turner = 0
    sink.write_now(batch([2], 400))
    sink.release()
    assert [[each["n"] for each in lines if "n" in each] for lines in family_lines(path)] == [[0, 1], [2]]


def test_write_now_after_a_rename(path) -> None:
    """It finds the path again within a second or so, as the thread does (O-FILE-3)."""
    sink = FileSink(path)
    sink.bind(ME)
    sink.write_now(batch([0]))
    path.rename(path.with_suffix(".old"))
    file = sink._late.file
    assert isinstance(file, WrittenFile)
    file.look_soon()
    sink.write_now(batch([1]))
    path.unlink()
    sink.write_now(batch([2]))
    sink.release()
    assert numbers(path) == [2]


# ---- settings


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": -1}, {"keep": -1}, {"rotate_every": "1w"}, {"compress": "zip"}, {"rotate_every": "0s"}]
)
def test_wrong_values(path, wrong) -> None:
    """They are refused when the sink is made."""
    with pytest.raises(ConfigurationError):
        FileSink(path, **wrong)


def test_settings(path, tmp_path) -> None:
    """The four of them reach the sink, and a re-configuration that changes one takes effect."""
    with process_restored():
        common: dict[str, Any] = {"sinks": ["file"], "file_path": str(path), "run_dir": str(tmp_path / "run")}
        fapilog.configure_logging(**common, file_max_bytes=700, file_keep=1, file_compress="gzip", file_rotate_every="1d")
        assert coordinator.spec is not None
        (sink,) = coordinator.spec.sinks
        assert isinstance(sink, FileSink)
        assert sink.policy == rotation.RotationPolicy(700, "1d", 1, "gzip") == sink.fresh().policy
        for number in range(10):
            fapilog.get_logger().info("x", n=number, pad="x" * 100)
        assert fapilog.flush(10).complete
        assert len(rotated(path)) == 1
        fapilog.configure_logging(**common, file_max_bytes=700, file_keep=3)
        for number in range(10, 30):
            fapilog.get_logger().info("x", n=number, pad="x" * 100)
        assert fapilog.shutdown_logging().complete
        assert len(rotated(path)) == 3
        assert not (tmp_path / ".app.1.jsonl.lock").exists()


def test_sinks_of_ones_own_that_differ_in_rotation_only(path, tmp_path) -> None:
    """A re-configuration takes the new one."""
    with process_restored():
        for keep in (1, 2):
            fapilog.configure_logging(sinks=[FileSink(path, max_bytes=100, keep=keep)], run_dir=str(tmp_path / "run"))
            for number in range(4):
                fapilog.get_logger().info("x", n=number)
            assert fapilog.flush(10).complete
            assert len(rotated(path)) == keep
        fapilog.shutdown_logging()


def test_strict_with_rotation(path) -> None:
    """It needs a directory that can be written, not the file alone; and a directory is no file (O-IO-2)."""
    path.mkdir()
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        FileSink(path).check(ME)


# ---- parts


def test_ends_of_files(tmp_path) -> None:
    """The last whole line is found behind a torn one, over blocks, and not at all in what is no log."""
    file = tmp_path / "a"
    long = line(7, 200_000)
    for data, expected in (
        (b"", None),
        (b"x", None),
        (line(1), 1),
        (line(1) + line(2), 2),
        (line(1) + line(2) + b'{"n": 3', 2),
        (line(1) + long, 7),
        (long, 7),
        (line(1) + long + b"x" * 100_000, 7),
        (b"\xff\n", None),
        (b"[1]\n", None),
    ):
        file.write_bytes(data)
        assert last_line(str(file)).get("n") == expected
    assert last_line(str(tmp_path / "none")) == first_line(str(tmp_path / "none")) == {}


def test_an_appender_that_stops_between_lines(tmp_path) -> None:
    """It knows how many lines are whole, and how much of the next."""
    lines = [b"ab\n", b"cde\n", b"f\n"]
    appender = Appender()
    for stop in range(9):
        target = tmp_path / str(stop)
        appender.give_up()
        appender.torn = False
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "write", _stopping(stop))
                appender.begin(lines)
                with pytest.raises(OSError, match="full"):
                    appender.write(fd, 3)
            whole = b"".join(lines)[:stop].count(b"\n")
            assert (appender.done, appender.cut) == (whole, stop - len(b"".join(lines[:whole])))
            appender.begin(list(lines))
            appender.write(fd, 3)
        finally:
            os.close(fd)
        assert target.read_bytes() == b"".join(lines)


def _stopping(stop: int):
    real, left = os.write, [stop]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        count = real(fd, bytes(data)[: left[0]])
        left[0] -= count
        return count

    return write
