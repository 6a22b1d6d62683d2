"""Streams that processes share, that nobody reads, that are closed, exchanged or of an odd encoding."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import io
import json
import os
import random
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fapilog._internal import rundir
from fapilog._internal.rundir import default_run_dir, meeting_place
from fapilog.sinks import StreamSink
from tests._support import ran_well, read_lines, rest_in_matrix, run_script, strict
from tests.pipes import SharedPipe, once_each, pads, until
from tests.servers.harness import OUR_CONF

SIZES = "100,5000,70000,100,1000000,5000,300"


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits_in_a_write(pid: int) -> bool:
    """Whether a thread of the process stands in the kernel's `pipe_write`, or in the poll before it, and the pipe is full."""
    names = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            names.add(Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()[0])
    return "1" in names


def full(pipe: SharedPipe) -> bool:
    """Whether the pipe takes nothing more."""
    import select

    return not select.select([], [pipe.write_end], [], 0)[1]


@pytest.mark.matrix
def test_processes_on_one_pipe_with_a_slow_reader(tmp_path) -> None:
    """Eight, with lines of 100 B, 5 KB, 70 KB and 1 MB: every line parses and every event is there once (O-FILE-1)."""
    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe:
        for index in range(8):
            pipe.writer(f"p{index}", 7, SIZES)
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(7, *(f"p{index}" for index in range(8)))


@pytest.mark.matrix
def test_children_of_every_origin_on_one_pipe(tmp_path) -> None:
    """Forked, spawned and executed ones and their parent, twice: none cuts into another's line (O-FILE-1)."""
    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe:
        for index in range(2):
            pipe.writer(f"p{index}", 12, "100,5000,70000,300000", "tree")
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    names = [f"p{index}-{origin}" for index in range(2) for origin in ("spawned", "executed", "forked")]
    assert pads(events) == once_each(12, *names) + once_each(12, "p0", "p1") + once_each(1, "p0", "p1")


@pytest.mark.matrix
def test_two_services_on_one_pipe(tmp_path) -> None:
    """They meet in one directory, whatever their services and sinks (O-FILE-1)."""
    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe:
        for index in range(4):
            pipe.writer(f"p{index}", 20, "100,70000,5000", env={**pipe.env, "FAPILOG_SERVICE": f"s{index}"})
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(20, *(f"p{index}" for index in range(4)))


def test_where_the_processes_of_a_user_meet_by_default(monkeypatch) -> None:
    """In one directory, beside the run directories of the services, however much room there is."""
    place = meeting_place(None)
    assert default_run_dir("shop", ["stdout"]).parent.name == place.name == f"fapilog-{os.geteuid()}"
    monkeypatch.setattr(rundir, "ROOM_BYTES", 1 << 60)
    assert meeting_place(None) == place
    assert meeting_place(Path("/run/mine")) == Path("/run/mine")


def test_stdout_and_stderr_on_one_pipe(tmp_path) -> None:
    """The two sinks of one process, and those of another, take turns (O-FILE-1)."""
    code = """
    import fapilog
    fapilog.configure_logging(sinks=["stdout", "stderr"], format="json", queue_overflow="block", queue_block_timeout=30)
    log = fapilog.get_logger()
    for n in range(21):
        log.info("pad", name=NAME, n=n, x="x" * [100, 5000, 70000][n % 3])
    """
    import textwrap

    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe:
        for index in range(2):
            pipe.start("-c", f"NAME = 'p{index}'\n{textwrap.dedent(code)}", stderr=pipe.write_end)
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(21, "p0", "p1") + once_each(21, "p0", "p1")


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(2))
def test_writers_that_are_killed(tmp_path, seed: int) -> None:
    """Only a line that a kill has cut does not parse, at most one a kill, and nothing is glued to it (O-FILE-1)."""
    chance = random.Random(seed)
    with SharedPipe(tmp_path, 1 << 14, 0.0002) as pipe:
        survivors = [pipe.writer(f"p{index}", 40, "100,5000,70000,300") for index in range(2)]
        victims = [pipe.writer(f"v{index}", 0, "5000,70000,200000", "ever") for index in range(4)]
        until(lambda: all(b'"name":"v%d"' % index in pipe.data for index in range(4)), "all victims write")
        for victim in victims:
            time.sleep(chance.random() * 0.1)
            victim.kill()
            victim.wait()
        pipe.programs = survivors
        pipe.wait()
        events, others = pipe.parsed()
    assert len(others) <= len(victims)
    assert all(line.startswith(b'{"timestamp":"') and line.count(b'"timestamp"') == 1 for line in others if line)
    counts = pads(events)
    assert max(counts.values()) == 1
    assert {key for key in counts if key[0][0] == "p"} == set(once_each(40, "p0", "p1"))


def test_a_holder_that_is_killed_in_the_middle_of_a_line(tmp_path) -> None:
    """The next writer closes the line, although it was forked from the dead one while that held the lock."""
    code = """
    import os, signal, sys, time
    import fapilog
    fapilog.configure_logging(sinks=["stdout"], format="json", max_event_bytes="4MiB")
    fapilog.get_logger().info("cut", x="x" * 1_000_000)
    while "1" not in {open(f"/proc/self/task/{each}/syscall").read().split()[0] for each in os.listdir("/proc/self/task")}:
        time.sleep(0.005)
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    fapilog.get_logger().info("next")
    """
    import textwrap

    with SharedPipe(tmp_path) as pipe:
        pipe.reading.clear()
        program = pipe.start("-c", textwrap.dedent(code))
        program.wait(30)
        pipe.programs.clear()
        pipe.reading.set()
        pipe.wait()
        events, others = pipe.parsed()
    # Whether it takes the slot of the dead one, of which it has to tell then, is a matter of who is quicker.
    assert [event["event"] for event in events if event["event"] != "fapilog.worker_died"] == ["next", "fapilog.closed"]
    assert len(others) == 1
    assert others[0].startswith(b'{"timestamp":')


def test_a_holder_that_is_stopped(tmp_path) -> None:
    """Another one's shutdown ends within its limit and counts what it could not write; nobody cuts into the line."""
    code = """
    import sys, time
    import fapilog
    fapilog.configure_logging(sinks=["stdout", "file"], format="json", file_path="other.jsonl")
    fapilog.get_logger().info("waits")
    began = time.monotonic()
    result = fapilog.shutdown_logging(0.5)
    print(time.monotonic() - began, result.per_sink["stdout"].dropped, result.per_sink["file"].delivered, file=sys.stderr)
    """
    import subprocess
    import textwrap

    with SharedPipe(tmp_path) as pipe:
        pipe.reading.clear()
        holder = pipe.writer("holder", 1, "1000000")
        until(lambda: waits_in_a_write(holder.pid), "the holder writes")
        holder.send_signal(signal.SIGSTOP)
        pipe.reading.set()
        other = pipe.start("-c", textwrap.dedent(code), stderr=subprocess.PIPE)
        said = other.communicate(timeout=30)[1].decode().splitlines()
        holder.send_signal(signal.SIGCONT)
        pipe.wait()
        events, others = pipe.parsed()
    waited, dropped, in_the_file = said[-1].split()
    assert float(waited) < 2
    assert (dropped, in_the_file) == ("2", "2")
    assert others == []
    assert pads(events) == once_each(1, "holder")
    assert [line["event"] for line in read_lines(tmp_path / "other.jsonl")] == ["waits", "fapilog.closed"]


def test_a_stdout_that_somebody_made_non_blocking(tmp_path) -> None:
    """Every line parses, its mode stays as it is, and no processor time is used while its reader rests."""
    with SharedPipe(tmp_path, 1 << 15) as pipe:
        os.set_blocking(pipe.write_end, False)
        pipe.reading.clear()
        writers = [pipe.writer(f"p{index}", 30, "100,5000,70000,300000") for index in range(3)]
        until(lambda: full(pipe), "the pipe is full")
        until(lambda: all(_rests(writer.pid) for writer in writers), "the writers rest")
        assert not os.get_blocking(pipe.write_end)
        pipe.reading.set()
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(30, "p0", "p1", "p2")


def _rests(pid: int) -> bool:
    """Whether a process uses less than a tenth of a processor, for half a second."""
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(0.5)
    return cpu_seconds(pid) - before < 0.1 * (time.monotonic() - began)


def test_the_mode_of_a_blocking_stdout(tmp_path) -> None:
    """It stays blocking, also while a late event is written."""
    with SharedPipe(tmp_path) as pipe:
        writer = pipe.start(
            "-c", "import fapilog; fapilog.get_logger().info('a'); fapilog.shutdown_logging(); print('', flush=True)"
        )
        writer.wait(30)
        assert fcntl.fcntl(pipe.write_end, fcntl.F_GETFL) & os.O_NONBLOCK == 0
        pipe.wait()


@pytest.mark.parametrize(
    ("kind", "sigpipe"),
    rest_in_matrix(2, [("pipe", "SIG_DFL"), ("socket", "SIG_IGN"), ("pipe", "SIG_IGN"), ("socket", "SIG_DFL")]),
)
def test_a_reader_that_has_gone(tmp_path, sigpipe: str, kind: str) -> None:
    """The events are refused, the program lives, whatever SIGPIPE does, and its end does not cost the drain's limit."""
    code = f"""
    import json, signal, sys, time
    import fapilog
    signal.signal(signal.SIGPIPE, signal.{sigpipe})
    fapilog.configure_logging(sinks=["stdout", "file"], format="json", file_path="a.jsonl", drain_timeout=20)
    log = fapilog.get_logger()
    for n in range(100):
        log.info("x", n=n)
    began = time.monotonic()
    fapilog.shutdown_logging()
    log.info("late")
    assert time.monotonic() - began < 5
    print(json.dumps(fapilog.statistics().sinks["stdout"].dropped), file=sys.stderr)
    """
    import subprocess
    import textwrap

    if kind == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = (end.detach() for end in socket.socketpair())
    os.close(ours)
    env = {**os.environ, "FAPILOG_RUN_DIR": str(tmp_path / "run")}
    program = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=env,
        timeout=40,
        check=False,
    )
    os.close(theirs)
    said = program.stderr.decode().splitlines()
    assert program.returncode == 0, said
    in_the_file = read_lines(tmp_path / "a.jsonl")
    assert json.loads(said[-1]) == {"rejected": len(in_the_file) - 1, "after_close": 1}
    assert sum(line["event"] == "x" for line in in_the_file) == 100
    assert sum("rejected" in line or "refused" in line for line in said[:-1]) == 1


def test_a_fifo_whose_reader_comes_back(tmp_path) -> None:
    """What was logged meanwhile is written to the next one: a FIFO is not refused for good."""
    code = """
    import sys
    import fapilog
    fapilog.configure_logging(sinks=["stdout"], format="json", drain_timeout=20, queue_retry_delay=0.01, queue_batch_timeout=0.01)
    log = fapilog.get_logger()
    log.info("one")
    fapilog.flush(10)
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    log.info("two")
    """
    import subprocess
    import textwrap

    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with open(tmp_path / "fifo", "wb") as end:
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=end,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "FAPILOG_RUN_DIR": str(tmp_path / "run")},
        )
    assert program.stdin is not None
    assert program.stderr is not None
    assert program.stderr.readline() == b"ready\n"
    assert strict(os.read(reader, 1 << 16).rstrip(b"\n"))["event"] == "one"
    os.close(reader)
    program.stdin.write(b"\n")
    program.stdin.flush()
    assert b"takes no events" in program.stderr.readline()
    with open(tmp_path / "fifo", "rb") as again:
        lines = again.read().splitlines()
    program.communicate(timeout=30)
    assert [strict(line)["event"] for line in lines] == ["two", "fapilog.closed"]
    assert program.returncode == 0


def test_a_reader_that_stops_and_returns(tmp_path) -> None:
    """Neither the log call, the program's loop nor the file waits for it, and afterwards every line arrives (O-LOOP-2)."""
    code = """
    import asyncio, sys, time
    import fapilog
    fapilog.configure_logging(
        sinks=["stdout", "file"], format="json", file_path="a.jsonl", queue_batch_timeout=0.05, drain_timeout=20
    )
    log = fapilog.get_logger()
    async def main():
        calls, lags = [], []
        for n in range(400):
            began = time.perf_counter()
            log.info("x", n=n, x="x" * 1000)
            calls.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - began - 0.005)
        print(sorted(calls)[-4], sorted(lags)[-4], open("a.jsonl").read().count('"event":"x"'), file=sys.stderr, flush=True)
    asyncio.run(main())
    sys.stdin.readline()
    """
    import subprocess
    import textwrap

    with SharedPipe(tmp_path) as pipe:
        pipe.reading.clear()
        program = pipe.start("-c", textwrap.dedent(code), stderr=subprocess.PIPE, stdin=subprocess.PIPE)
        assert program.stderr is not None
        call, lag, in_the_file = program.stderr.readline().split()
        assert full(pipe)
        pipe.reading.set()
        program.communicate(b"\n", timeout=30)
        pipe.wait()
        events, others = pipe.parsed()
    assert float(call) < 0.001
    assert float(lag) < 0.1
    assert int(in_the_file) > 300
    assert others == []
    assert [event["n"] for event in events if event["event"] == "x"] == list(range(400))


def test_a_stdout_that_is_exchanged_and_closed(tmp_path) -> None:
    """One note, then the first stdout takes its place, also for events of an exit hook; the file has everything (O-IO-3)."""
    result = run_script(
        """
        import atexit, io, sys
        import fapilog
        fapilog.configure_logging(sinks=["stdout", "file"], file_path="a.jsonl", queue_overflow="block", queue_block_timeout=10)
        log = fapilog.get_logger()
        atexit.register(lambda: log.info("exit"))
        log.info("\\U0001f600")
        fapilog.flush()
        sys.stdout = io.StringIO()
        log.info("swapped")
        fapilog.flush()
        assert '"swapped"' in sys.stdout.getvalue()
        sys.stdout.close()
        for n in range(1000):
            log.info("x", n=n)
        """,
        tmp_path,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "FAPILOG_FORMAT": "json"},
    )
    on_stdout = [strict(line) for line in ran_well(result).splitlines()]
    in_the_file = read_lines(tmp_path / "a.jsonl")
    assert [line for line in in_the_file if line["event"] != "swapped"] == on_stdout
    assert [line["n"] for line in on_stdout if line["event"] == "x"] == list(range(1000))
    assert '"event":"\U0001f600"' in result.stdout  # a pipe gets UTF-8, whatever the locale
    assert {line["event"] for line in in_the_file} >= {"exit", "fapilog.closed", "swapped"}
    assert result.stderr.count("fapilog[") == 1
    assert "sys.stdout is closed" in result.stderr


def test_a_stdout_closed_for_good(tmp_path) -> None:
    """Descriptor and all: the events are refused, at the end nothing waits for them, and the file has everything (O-IO-3)."""
    result = run_script(
        """
        import os, sys, time
        import fapilog
        fapilog.configure_logging(sinks=["stdout", "file"], file_path="a.jsonl", drain_timeout=20)
        sys.stdout.close()
        fapilog.get_logger().info("x")
        began = time.monotonic()
        fapilog.shutdown_logging()
        assert time.monotonic() - began < 5
        print(fapilog.statistics().sinks["stdout"].dropped["rejected"], file=sys.stderr)
        """,
        tmp_path,
    )
    ran_well(result)
    assert len(read_lines(tmp_path / "a.jsonl")) == int(result.stderr.splitlines()[-1])
    assert result.stderr.count("fapilog[") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_text_stream_of_an_encoding(monkeypatch, encoding: str, form: str) -> None:
    """A stream without a descriptor gets what it lacks as an escape, and JSON stays JSON (O-IO-3)."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    StreamSink("stdout", form=form).write_now(['{"event":"\u00e9\U0001f600"}\n'.encode()])
    text = raw.getvalue().decode(encoding)
    if form == "json":
        assert json.loads(text) == {"event": "\u00e9\U0001f600"}
    else:
        assert {"ascii": "\\xe9\\U0001f600", "latin-1": "\u00e9\\U0001f600", "utf-8": "\u00e9\U0001f600"}[encoding] in text


def test_processes_that_write_synchronously(tmp_path) -> None:
    """Callers' threads take the turn, too: every line parses, and every event is there once (O-FILE-1)."""
    with SharedPipe(tmp_path) as pipe:
        for index in range(3):
            env = {**pipe.env, "FAPILOG_QUEUE_ENABLED": "false"}
            pipe.writer(f"p{index}", 40, "100,5000,70000,300", env=env)
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(40, "p0", "p1", "p2")


def test_gunicorn_workers_on_one_pipe(tmp_path) -> None:
    """Four, and the master: every line parses, every request's event is there once (O-FILE-1)."""
    (tmp_path / "padded.py").write_text(
        "import os, fapilog\n"
        "log = fapilog.get_logger()\n"
        "def app(environ, start_response):\n"
        "    _, n, size = environ['PATH_INFO'].split('/')\n"
        "    log.info('pad', name='app', n=int(n), x='x' * int(size))\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return [b'']\n"
    )
    sizes = [100, 5000, 70_000, 1_000_000, 300]
    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe, socket.create_server(("127.0.0.1", 0)) as listener:
        env = {**pipe.env, "FAPILOG_SINKS": "stdout", "FAPILOG_MAX_EVENT_BYTES": "4MiB", "FAPILOG_DRAIN_TIMEOUT": "20"}
        conf = [*OUR_CONF, "--workers", "4", "--bind", f"fd://{listener.fileno()}", "padded:app"]
        server = pipe.start("-m", "gunicorn", *conf, env=env, pass_fds=[listener.fileno()])

        def ask(n: int) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)
            connection.request("GET", f"/{n}/{sizes[n % len(sizes)]}")
            status = connection.getresponse().status
            connection.close()
            return status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(60))) == {200}
        server.send_signal(signal.SIGTERM)
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(60, "app")
    assert sum(event["event"] == "request" for event in events) == 60
    assert sum(event["event"] == "fapilog.closed" for event in events) == 5


@pytest.mark.matrix
def test_no_place_to_meet(tmp_path) -> None:
    """Lines of up to PIPE_BUF bytes are still kept in one piece, and a note says what is not."""
    (tmp_path / "run").write_text("not a directory")
    with SharedPipe(tmp_path, 1 << 15, 0.0005) as pipe:
        errors = (tmp_path / "errors").open("wb")
        for index in range(4):
            pipe.writer(f"p{index}", 200, "100,1000,3000", stderr=errors)
        pipe.wait()
        errors.close()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(200, *(f"p{index}" for index in range(4)))
    assert (tmp_path / "errors").read_text().count("may be mixed") == 4


def test_descriptors_that_are_all_closed_and_a_lock_file_that_is_removed(tmp_path) -> None:
    """The sink opens the lock file anew, and never touches what got the number of its descriptor."""
    result = run_script(
        """
        import os
        import fapilog
        fapilog.configure_logging(sinks=["stdout"], format="json", queue_enabled=False)
        log = fapilog.get_logger()
        log.info("a")
        highest = max(map(int, os.listdir("/proc/self/fd")))
        os.closerange(3, highest + 1)
        mine = [os.open("mine", os.O_RDWR | os.O_CREAT) for _ in range(highest)]
        log.info("b", x="x" * 10_000)
        for fd in mine:
            os.fstat(fd)
        assert os.path.getsize("mine") == 0
        os.unlink("run/streams.lock")
        log.info("c")
        assert os.path.exists("run/streams.lock")
        """,
        tmp_path,
    )
    assert [json.loads(line)["event"] for line in ran_well(result).splitlines()] == ["a", "b", "c", "fapilog.closed"]


def test_processes_on_one_terminal(tmp_path) -> None:
    """Its driver keeps each write in one piece, without a lock: every line of 70 KB parses."""
    import pty
    import tty

    leader, end = pty.openpty()
    tty.setraw(end)
    with SharedPipe(tmp_path, ends=(leader, end)) as pipe:
        for index in range(3):
            pipe.writer(f"p{index}", 20, "100,5000,70000")
        pipe.wait()
        events, others = pipe.parsed()
    assert others == []
    assert pads(events) == once_each(20, "p0", "p1", "p2")
    assert not (tmp_path / "run" / "streams.lock").exists()
