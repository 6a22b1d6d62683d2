"""`fapilog tail`: which events, in which order, in which form; and real files that are written to and rotated meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapilog._internal.logfiles import files_in
from fapilog.cli.following import Follower
from fapilog.cli.forms import form_of
from fapilog.cli.merging import Reading, merged
from fapilog.cli.picking import condition, timestamp_of, wanted
from fapilog.errors import ConfigurationError
from tests.programs.running import FULL, wait_until
from tests.test_cli import ROOT, fapilog, refused, said

if TYPE_CHECKING:
    from collections.abc import Iterator


def line(second: float, seq: int = 1, worker: int = 1, boot: str = "", **fields: Any) -> bytes:
    stamp = f"2026-11-28T10:00:{second:09.6f}Z"
    own = {"service": "shop", "env": "", "host": "h", "worker": worker, "pid": 7, "boot": boot or f"b{worker}", "seq": seq}
    return orjson.dumps({"timestamp": stamp, "level": "info", "event": "step", "logger": "shop", **fields, **own})


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(lines) + end)


def seqs(text: str) -> list[tuple[int, int]]:
    return [(event["worker"], event["seq"]) for event in map(json.loads, text.splitlines())]


# Which events


EVENT = {
    "status": 503,
    "ms": 1.5,
    "user": "ada",
    "ok": True,
    "none": None,
    "http": {"code": "x=1", "n": 2},
    "a.b": 1,
    "list": [1, 2],
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        *[(text, True) for text in ("status=503", "status=503.0", "ms=1.5", "ok=true", "none=null", "list=[1,2]", "a.b=1")],
        *[
            (text, False)
            for text in ("status=50", "status=", "ok=1", "ok=True", "user=Ada", "absent=", "absent=null", "http.absent=1")
        ],
        *[
            (text, True)
            for text in ("status>500", "status>=503", "status<=503", "status<1e3", "ms>1", "http.n<3", "user>ac", "user<b")
        ],
        *[(text, False) for text in ("status<503", "status>ab", "user>1", "ok>0", "none<1", "absent<1", "list>0", "http>0")],
        *[(text, True) for text in ("user~^a.a$", "status~5..", "http.code~=", "http~code", "list~2")],
        *[(text, False) for text in ("user~b", "absent~.*", "user~^$")],
        *[(text, True) for text in ("user!=ada2", "absent!=1", "absent!~.*", "user!~b")],
        *[(text, False) for text in ("status!=503", "user!~a")],
        ("http.code=x=1", True),
        (" status >500", True),
    ],
)
def test_a_condition(text: str, met: bool) -> None:
    """Numbers are compared as numbers, all else as text; what an event does not have meets nothing but a negation."""
    assert condition(text)(EVENT) is met


@pytest.mark.parametrize("text", ["status", "=5", "", " =5", "user~(", "!~x"])
def test_a_condition_that_is_none(text: str) -> None:
    """The error names it."""
    with pytest.raises(ConfigurationError, match=re.escape(f"--where {text}:")):
        condition(text)


def test_moments() -> None:
    """Durations count back from now; times without a zone are local ones."""
    assert timestamp_of("90s", 1_000_000_000.25) == "2001-09-09T01:45:10.250000Z"
    assert timestamp_of("1d1h", 1_000_000_000) == "2001-09-08T00:46:40.000000Z"
    assert timestamp_of("2026-11-28T10:30Z") == "2026-11-28T10:30:00.000000Z"
    assert timestamp_of("2026-11-28T10:30+02:00") == "2026-11-28T08:30:00.000000Z"
    for text in ("soon", "10", "-5m", "2026-13-01"):
        with pytest.raises(ConfigurationError, match=f"--since {text}:"):
            timestamp_of(text)


def test_all_that_is_asked_for_together() -> None:
    """Level, worker, time and conditions are met by those events only that meet all of them."""
    want = wanted(30, [1, 2], "2026-11-28T10:00:05.000000Z", ["n>1"])
    assert want is not None
    good: dict[str, Any] = json.loads(line(5, worker=2, n=2, level="error"))
    assert want(good)
    for change in ({"level": "info"}, {"level": None}, {"worker": 3}, {"timestamp": "2026-11-28T10:00:04.999999Z"}, {"n": 1}):
        assert not want(good | change)
    assert wanted() is None


# In which order


@settings(max_examples=2_000 if FULL else 200, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6), max_size=5))
def test_streams_in_the_order_of_time(numbers: list[list[list[int]]]) -> None:
    """All entries come out once, by their keys; those with equal ones in the order of the streams and within each stream."""
    streams = []
    for which, blocks in enumerate(numbers):
        keys = iter(sorted(number for block in blocks for number in block))
        streams.append([[(f"{next(keys):02}", b"%d" % which) for _ in block] for block in blocks])
    everything = [entry for stream in streams for block in stream for entry in block]
    found = [entry for block in merged([iter(stream) for stream in streams]) for entry in block]
    assert sorted(found) == sorted(everything)
    assert [key for key, _ in found] == sorted(key for key, _ in everything)


def test_a_clock_that_is_set_back() -> None:
    """The events of a life stay in the order of their seqs; the next life has its own time."""
    reading = Reading()
    lines = [line(5, 1), line(3, 2), line(4, 3), line(6, 4), line(1, 1, boot="c"), line(2, 2, boot="c")]
    stamps = [stamp[17:19] for stamp, _ in reading.entries(lines[:2]) + reading.entries(lines[2:])]
    assert stamps == ["05", "05", "05", "06", "01", "02"]


def test_lines_that_are_no_events() -> None:
    """They are counted, but for empty ones and the first line of a file."""
    reading = Reading()
    header = b'{"timestamp":"2026-11-28T10:00:00.000000Z","event":"fapilog.rotated","worker":1,"boot":"b1"}'
    odd = [b"garbage", b"[1]", b'"x"', b"5", b"{}", b'{"timestamp":5}', line(1)[:-3], b"\xff\xfe"]
    assert len(reading.entries([header, *odd, b"", b"\r", line(1)])) == 1
    assert reading.bad == len(odd)


def test_files_of_several_workers(tmp_path: Path) -> None:
    """They come in the order of time, those that were rotated, compressed or not, before those that are written to."""
    logs = tmp_path / "logs"
    write(logs / "shop.1.jsonl.20261128T100002.000000Z", line(1, 1), line(1.5, 2))
    with gzip.open(logs / "shop.1.jsonl.20261128T100001.000000Z.gz", "wb") as file:
        file.write(line(0, 0) + b"\n")
    write(logs / "shop.1.jsonl", line(3, 3), line(5, 4))
    write(logs / "shop.2.jsonl", *(line(number, number + 1, 2) for number in range(6)))
    out = said(tmp_path, "tail", "logs")
    assert seqs(out) == [(1, 0), (2, 1), (1, 1), (2, 2), (1, 2), (2, 3), (1, 3), (2, 4), (2, 5), (1, 4), (2, 6)]
    assert out.encode().splitlines()[0] == line(0, 0)
    assert seqs(said(tmp_path, "tail", "-n", "3", "logs")) == [(2, 5), (1, 4), (2, 6)]
    assert seqs(said(tmp_path, "tail", "--worker", "1", "--since", "2026-11-28T10:00:01.2Z", "logs")) == [(1, 2), (1, 3), (1, 4)]
    assert seqs(said(tmp_path, "tail", "logs/shop.2.jsonl", "--where", "seq>4")) == [(2, 5), (2, 6)]


def test_without_a_path(tmp_path: Path) -> None:
    """The directory of the service's own files is meant, or there is one clear line."""
    assert "FAPILOG_FILE_PATH" in refused(tmp_path, "tail")
    write(tmp_path / "logs" / "x.jsonl", line(1))
    assert seqs(said(tmp_path, "tail")) == [(1, 1)]
    write(tmp_path / "other" / "y.jsonl", line(1, 2))
    assert seqs(said(tmp_path, "tail", FAPILOG_FILE_PATH="other/{worker}.jsonl")) == [(1, 2)]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "there is no file or directory nowhere"),
        (["--level", "LOUD", "."], "LOUD"),
        (["--since", "soon", "."], "--since soon"),
        (["--where", "x", "."], "--where x"),
        (["--format", "xml", "."], "--format xml: must be one of console, json, logfmt"),
        (["--worker", "-1", "."], "--worker"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, arguments: list[str], says: str) -> None:
    """One line says what is wrong, and the exit code is 2."""
    said_of_it = refused(tmp_path, "tail", *arguments)
    assert says in said_of_it
    assert said_of_it.count("\n") == 1


# In which form

HOSTILE_TEXTS = ["a\r\nb", "\0", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x9b31m", "\u2028\u2029", "\x85"]
HOSTILE_TEXTS += ["\u202eevil\u2066", "\u200e\u200f", '"quoted" \\', "a=b c", "\t", "", " ", "\ud800"]


@pytest.mark.matrix
def test_fields_that_are_chosen(tmp_path: Path) -> None:
    """JSON and logfmt have these alone, in the order they were asked for; the console form has its columns besides."""
    write(tmp_path / "a.jsonl", line(1, 1, user="ada b", http={"code": 200}, note='a="b"', nothing=None))
    fields = ["--fields", "http.code,user,absent"]
    assert said(tmp_path, "tail", "a.jsonl", *fields) == '{"http.code":200,"user":"ada b"}\n'
    assert said(tmp_path, "tail", "a.jsonl", *fields, "--format", "logfmt") == 'http.code=200 user="ada b"\n'
    logfmt = said(tmp_path, "tail", "a.jsonl", "--format", "logfmt")
    assert logfmt.startswith(
        'timestamp=2026-11-28T10:00:01.000000Z level=info event=step logger=shop user="ada b" http="{\\"code\\":200}"'
    )
    assert 'note="a=\\"b\\"" nothing=null service=shop env="" host=h' in logfmt
    console = said(tmp_path, "tail", "a.jsonl", *fields, "--format", "console", TZ="UTC")
    assert re.fullmatch(r'10:00:01\.000 info     w1  step +http\.code=200 user="ada b" \[shop\]\n', console)
    coloured = said(tmp_path, "tail", "a.jsonl", "--format", "console", FORCE_COLOR="1")
    assert "\x1b[" in coloured


@pytest.mark.parametrize("name", ["console", "json", "logfmt"])
@pytest.mark.parametrize("fields", [(), ("value", "ke\ny", "event")])
def test_hostile_values_on_a_terminal(name: str, fields: tuple[str, ...]) -> None:
    """O-SEC-1: one event is one line, and no control character, direction mark or line end comes out raw."""
    form = form_of(name, fields, {"NO_COLOR": "1"}, terminal=True)
    assert form is not None
    for text in HOSTILE_TEXTS:
        clean = text.encode("utf-8", "replace").decode()
        shown = form(
            orjson.dumps({"timestamp": clean, "level": clean, "event": clean, "logger": clean, "ke\ny": clean, "value": clean})
        )
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown.decode()), text


# While it is written to


class Following:
    """A `fapilog tail -f` that runs; what it has printed so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAPILOG_")}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fapilog", "tail", "-f", *arguments],
            cwd=folder,
            env={**clean, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[bytes] = []
        self.notes: list[bytes] = []
        pipes = ((self.process.stdout, self.lines), (self.process.stderr, self.notes))
        self._threads = [threading.Thread(target=into.extend, args=(pipe,)) for pipe, into in pipes]
        for thread in self._threads:
            thread.start()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.lines]

    def seen(self, count: int) -> None:
        wait_until(lambda: len(self.lines) >= count, f"{count} events are shown")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def following(folder: Path, *arguments: str) -> Iterator[Following]:
    it = Following(folder, *arguments)
    try:
        yield it
        assert it.interrupt() == 0
    finally:
        it.close()


def test_half_a_line_while_it_is_followed(tmp_path: Path) -> None:
    """O-CLI-2: it is shown once it is whole, within a second, also if it broke off inside a character; so are ten before it."""
    whole = line(1, 20, note="größe")
    write(tmp_path / "a.jsonl", *(line(0, seq) for seq in range(1, 20)))
    middle = whole.index("ö".encode()) + 1
    with following(tmp_path, "a.jsonl") as it, (tmp_path / "a.jsonl").open("ab", buffering=0) as file:
        it.seen(10)
        file.write(whole[:middle])
        begun = time.monotonic()
        while time.monotonic() < begun + 1.0:
            assert len(it.lines) == 10
            time.sleep(0.05)
        file.write(whole[middle:] + b"\n")
        ended = time.monotonic()
        it.seen(11)
        assert time.monotonic() - ended < 1.5
    assert [event["seq"] for event in it.events()] == list(range(10, 21))
    assert it.lines[-1] == whole + b"\n"
    assert it.notes == []


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    """O-CLI-2: what is there is shown; garbage, and a last line that a kill has cut off, are counted; an empty file is none."""
    write(tmp_path / "a.jsonl", line(1), b"garbage \x1b[2J", line(2, 2), line(3, 3)[:50], end=b"")
    (tmp_path / "b.jsonl").touch()
    done = fapilog(tmp_path, "tail", "a.jsonl", "b.jsonl")
    assert seqs(done.stdout) == [(1, 1), (1, 2)]
    assert re.fullmatch(r"fapilog: .*/a\.jsonl: 2 lines are no events, or not whole\n", done.stderr)
    write(tmp_path / "a.jsonl", line(1), line(2, 2), end=b"")
    done = fapilog(tmp_path, "tail", "a.jsonl")
    assert (seqs(done.stdout), done.stderr) == ([(1, 1), (1, 2)], "")


@pytest.mark.parametrize("follow", ["", "-f"])
def test_a_pipe_that_is_closed(tmp_path: Path, follow: str) -> None:
    """O-CLI-2: it ends quietly, at once, whether there is more to print or not."""
    write(tmp_path / "a.jsonl", *(line(1, seq) for seq in range(1, 20_000)))
    command = f"{sys.executable} -W error -m fapilog tail {follow} -n 15000 a.jsonl; echo $? >code"
    done = subprocess.run(
        ["bash", "-c", f"({command}) | head -1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.count(b"\n"), done.stderr) == (1, b"")
    assert (tmp_path / "code").read_text() == "0\n"


def test_files_that_come_and_go(tmp_path: Path) -> None:
    """New ones are read whole, renamed ones to their end, emptied ones from their beginning; what is odd is noted once."""
    logs = tmp_path / "logs"
    write(logs / "a.1.jsonl", line(1, 1))
    (logs / "loop.jsonl").symlink_to("loop.jsonl")
    with following(tmp_path, "logs") as it:
        it.seen(1)
        write(logs / "new.2.jsonl", line(2, 1, 2), line(3, 2, 2))
        it.seen(3)
        with (logs / "a.1.jsonl").open("ab", buffering=0) as file:  # logrotate has moved it, and its process has not noticed yet
            (logs / "a.1.jsonl").rename(logs / "a.1.jsonl.20261128T100004.000000Z")
            write(logs / "a.1.jsonl", line(5, 3))
            it.seen(4)
            file.write(line(4, 2) + b"\n")
            it.seen(5)
        (logs / "new.2.jsonl").unlink()
        os.truncate(logs / "a.1.jsonl", 0)
        wait_until(lambda: len(it.notes) == 1, "the loop is noted")
        with (logs / "a.1.jsonl").open("ab", buffering=0) as file:
            file.write(line(6, 4) + b"\n")
        it.seen(6)
        write(logs / "new.2.jsonl", line(7, 1, 2, "c"))
        it.seen(7)
    found = [(event["worker"], event["seq"]) for event in it.events()]
    assert found == [(1, 1), (2, 1), (2, 2), (1, 3), (1, 2), (1, 4), (2, 1)]
    assert re.fullmatch(rb"fapilog: .*loop\.jsonl: Too many levels of symbolic links\n", it.notes[0])


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is said to be awaited, and followed from its first line when it comes."""
    with following(tmp_path, "late.jsonl") as it:
        wait_until(lambda: it.notes, "it is said")
        write(tmp_path / "late.jsonl", line(1, 1))
        it.seen(1)
    assert it.notes == [b"fapilog: late.jsonl: is not there yet\n"]


@pytest.mark.matrix
@pytest.mark.parametrize("compressed", [False, True])
def test_files_that_are_rotated_twice_between_two_looks(tmp_path: Path, compressed: bool) -> None:
    """What was in the one between is shown, too, once and in its place; also what was written last to the one before."""
    logs = tmp_path / "logs"
    write(logs / "a.jsonl", line(0, 1))
    ending = ".gz" if compressed else ""
    with following(tmp_path, "logs") as it:
        it.seen(1)
        for turn in range(1, 15, 3):
            with (logs / "a.jsonl").open("ab", buffering=0) as file:
                file.write(line(turn, turn + 1) + b"\n")
            for late in (0.1, 0.2):
                plain = logs / f"a.jsonl.20261128T1000{turn + late * 10:02.0f}.{int(late * 10)}00000Z"
                data = (logs / "a.jsonl").read_bytes()
                (logs / "a.jsonl").rename(plain)
                write(logs / "a.jsonl", line(turn + late, int(turn + late * 10) + 1))
                if compressed:
                    half = logs / f".{plain.name}.tmp"
                    half.write_bytes(gzip.compress(data))
                    half.rename(f"{plain}{ending}")
                    plain.unlink()
            it.seen(turn + 3)
    assert [event["seq"] for event in it.events()] == list(range(1, 17))


def test_a_rotated_file_that_is_compressed_between_the_look_and_its_opening(tmp_path: Path) -> None:
    """Its lines come once, before those that are younger, and nothing is noted."""
    logs = tmp_path / "logs"
    written = logs / "a.jsonl"
    write(written, line(0))
    follower = Follower([str(logs)], None, pytest.fail)
    follower.begin()
    rotated = logs / "a.jsonl.20261128T100001.000000Z"
    written.rename(logs / "a.jsonl.20261128T100000.000000Z")
    write(rotated, line(1))
    write(written, line(2))
    found = files_in(str(logs))
    Path(f"{rotated}.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    rotated.unlink()
    series = follower.series[str(written)]
    series.look(sorted(found, key=lambda file: file.order), 0.0)
    assert [text for _, text in series.news(0.0)] == [line(1), line(2)]
    series.look(sorted(files_in(str(logs)), key=lambda file: file.order), 1.0)
    assert series.news(1.0) == []


def test_a_compressed_file_that_is_damaged(tmp_path: Path) -> None:
    """What can be read of it comes once, and what is wrong is noted once, however often one looks."""
    logs = tmp_path / "logs"
    write(logs / "a.jsonl", line(0))
    noted: list[str] = []
    follower = Follower([str(logs)], None, noted.append)
    follower.begin()
    whole = gzip.compress(b"".join(line(n) + b"\n" for n in range(1, 4)))
    (logs / "a.jsonl.20261128T100001.000000Z.gz").write_bytes(whole[:-8])
    seen = []
    for _ in range(3):
        follower._look_at = 0.0
        seen += [text for entries in follower.news() for _, text in entries]
    assert seen == [line(1), line(2), line(3)]
    assert len(noted) == 1


WORKER = """
import os, signal, sys, fapilog
fapilog.configure_logging(
    sinks=["file"], file_path="logs/app.{worker}.jsonl", run_dir="run", queue_overflow="block", queue_size=65536,
    file_keep=10_000,
    **dict(file_max_bytes=20_000, file_compress="gzip") if sys.argv[2] == "small" else dict(file_rotate_every="2s"),
)
log = fapilog.get_logger("a")
import time
end = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end:
    log.info("e", n=number)
    number += 1
    time.sleep(0.001)
fapilog.shutdown_logging()
"""


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["small", "timed"])
def test_workers_that_rotate_under_load(tmp_path: Path, way: str) -> None:
    """O-CLI-1, Show 4: each event once, those of a life in order, while files are rotated and workers come and go."""
    write(tmp_path / "logs" / "before.jsonl", line(0))
    seconds = 60.0 if FULL else 5.0
    with following(tmp_path, "logs") as it:
        it.seen(1)
        lives = [seconds, seconds, seconds, seconds / 3, seconds / 3, seconds / 3]
        running = [subprocess.Popen([sys.executable, "-c", WORKER, str(life), way], cwd=tmp_path) for life in lives[:4]]
        for life in lives[4:]:
            assert running.pop().wait(seconds + 60) == 0
            running.append(subprocess.Popen([sys.executable, "-c", WORKER, str(life), way], cwd=tmp_path))
        for each in running:
            assert each.wait(seconds + 60) == 0
        expected = sorted((event["boot"], event["seq"]) for event in map(json.loads, said(tmp_path, "tail", "logs").splitlines()))
        wait_until(lambda: len(it.lines) >= len(expected), "all are shown", 30.0)
    found = [(event["boot"], event["seq"]) for event in it.events()]
    assert sorted(found) == expected
    for boot in {boot for boot, _ in expected}:
        of_it = [seq for each, seq in found if each == boot]
        assert of_it == list(range(1, len(of_it) + 1))
    stamps = [event["timestamp"] for event in it.events()]
    late = sum(later < earlier for earlier, later in itertools.pairwise(stamps))
    assert late <= len(stamps) // 100
    assert it.notes == []


@pytest.mark.matrix
def test_what_merging_costs(tmp_path: Path) -> None:
    """At most four times what decoding the same lines costs in a bare loop."""
    count = 400_000 if FULL else 60_000
    for worker in range(1, 5):
        fields: dict[str, Any] = {"user": "ada", "status": 200, "path": "/api/items", "ms": 1.5, "ok": True, "tags": ["a", "b"]}
        write(tmp_path / f"a.{worker}.jsonl", *(line(n % 3600 / 60, n, worker, n=n, **fields) for n in range(1, count // 4)))
    lines = [each for path in tmp_path.glob("*.jsonl") for each in path.read_bytes().splitlines()]
    script = "import sys, time\nfrom pathlib import Path\nfrom fapilog.cli.tail import Options, tail\n"
    script += "began = time.perf_counter()\ntail([Path('.')], Options())\nprint(time.perf_counter() - began, file=sys.stderr)"
    ratios = []
    for _ in range(5):
        began = time.perf_counter()
        for each in lines:
            orjson.loads(each)
        bare = time.perf_counter() - began
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=out,
                stderr=subprocess.PIPE,
                check=True,
                timeout=120,
            )
        ratios.append(float(done.stderr) / bare)
        (tmp_path / "out").unlink()
    assert min(ratios) <= 4.0, ratios
