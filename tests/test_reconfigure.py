"""Set-up again and again, while others log: nothing is lost, doubled, leaked or left in the old state."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import fapilog
from fapilog import EventQueue
from fapilog.coordinator import coordinator
from fapilog.identity import Identity
from fapilog.sinks import FileSink
from tests._support import process_restored, ran_well, read_lines, run_script
from tests.recording import RecordingSink

HERE = {"FAPILOG_RUN_DIR": "run", "FAPILOG_FILE_PATH": "out.jsonl", "PYTHONPATH": str(Path(__file__).parents[1])}


def test_threads_log_while_the_level_changes(tmp_path: Path) -> None:
    """Thirty set-ups under four logging threads: a custom sink without `write_now` gets every event once, none is dropped."""
    ran_well(
        run_script(
            """
            import threading, time
            import fapilog
            from tests.recording import RecordingSink

            sink = RecordingSink()
            fapilog.configure_logging(sinks=[sink], queue_size=100_000)
            log = fapilog.get_logger("x")
            stop = threading.Event()
            counts = [0] * 4

            def busy(index):
                while not stop.is_set():
                    log.error("e", who=index, n=counts[index])
                    counts[index] += 1
                    if counts[index] % 20 == 0:
                        time.sleep(0.001)

            threads = [threading.Thread(target=busy, args=(index,)) for index in range(4)]
            for thread in threads:
                thread.start()
            for number in range(30):
                level = ("DEBUG", "INFO")[number % 2]
                fapilog.configure_logging(sinks=[sink], queue_size=100_000, level=level, service=f"s{number}")
                assert fapilog.statistics().identity.service == f"s{number}"
            stop.set()
            for thread in threads:
                thread.join()
            result = fapilog.flush(20)
            assert result.complete, result
            found = sorted((event["who"], event["n"]) for event in sink.own())
            assert found == sorted((who, n) for who in range(4) for n in range(counts[who]))
            """,
            tmp_path,
            env=HERE,
            timeout=60,
        )
    )


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["dead custom sink", "file"])
def test_sinks_that_were_never_opened(tmp_path: Path, kind: str) -> None:
    """Their threads and descriptors go with the shutdown all the same."""
    ran_well(
        run_script(
            f"""
            import os, threading
            import fapilog
            from tests.recording import RecordingSink

            class Dead(RecordingSink):
                async def open(self, identity):
                    raise OSError("no")

            def cycle(number):
                sinks = [Dead("dead")] if {kind!r} != "file" else ["file"]
                fapilog.configure_logging(sinks=sinks, service=f"s{{number}}", drain_timeout=0.05)
                if {kind!r} != "file":
                    fapilog.get_logger().info("x")
                fapilog.statistics()
                fapilog.shutdown_logging()

            def used():
                return threading.active_count(), len(os.listdir("/proc/self/fd"))

            for number in range(3):
                cycle(number)
            before = used()
            for number in range(12):
                cycle(number)
            threads, files = used()
            assert threads <= before[0] + 2 and files <= before[1] + 6, (before, threads, files)
            """,
            tmp_path,
            env=HERE,
        )
    )


def test_a_file_that_ends_in_half_a_line(tmp_path: Path) -> None:
    """The next life closes it with a newline, whether its first line goes out through the worker or at once."""
    path = tmp_path / "out.jsonl"
    for enabled in ("true", "false"):
        path.write_bytes(b'{"event":"whole"}\n{"event":"ha')
        env = {**HERE, "FAPILOG_SINKS": "file", "FAPILOG_QUEUE_ENABLED": enabled}
        ran_well(run_script("import fapilog; fapilog.get_logger().info('next')", tmp_path, env=env))
        lines = path.read_bytes().split(b"\n")
        assert lines[1] == b'{"event":"ha'
        path.write_bytes(b"\n".join([lines[0], *lines[2:]]))
        assert [line["event"] for line in read_lines(path)] == ["whole", "next", "fapilog.closed"]


def test_a_large_late_line_meets_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """`write_now()` gives up instead of waiting for the reader, and the line is counted."""
    result = run_script(
        """
        import os, sys, time
        import fapilog

        reader, writer = os.pipe()
        os.dup2(writer, 1)
        fapilog.configure_logging(sinks=["stdout"])
        log = fapilog.get_logger("x")
        log.info("a")
        fapilog.shutdown_logging(1)
        began = time.monotonic()
        log.error("late", dump="y" * 90_000)
        took = time.monotonic() - began
        dropped = fapilog.statistics().sinks["stdout"].dropped
        assert took < 1 and dropped == {"after_close": 1}, (took, dropped)
        """,
        tmp_path,
        env=HERE,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr


def test_late_descriptors_belong_to_their_writers(tmp_path: Path) -> None:
    """A sink that is released while a thread holds its late file closes it only after that thread: never somebody else's file."""
    sink = FileSink(tmp_path / "out.jsonl")
    sink.bind(Identity.of_this_process())
    sink.write_now([b'{"n":1}\n'])
    held = sink._late.file
    assert held is not None
    sink.release()
    assert not held.file.closed
    os.write(held.fd, b'{"n":2}\n')
    del held
    assert [line["n"] for line in read_lines(tmp_path / "out.jsonl")] == [1, 2]


def test_an_event_that_can_never_fit_is_refused_at_once() -> None:
    """Under `block` too: waiting for room would be in vain."""
    queue = EventQueue(10, max_bytes=1_000, overflow="block", block_timeout=5.0)
    began = time.monotonic()
    assert not queue.accept(20, b"x" * 2_000)
    assert time.monotonic() - began < 1.0


def test_a_custom_sink_raises_a_base_exception(tmp_path: Path) -> None:
    """Its delivery takes it for "not now" and gives it the batch again."""

    class Odd(BaseException):
        pass

    sink = RecordingSink()
    sink.failures = [Odd("once")]
    with process_restored():
        fapilog.configure_logging(sinks=[sink], queue_retry_delay=0.001, run_dir=str(tmp_path / "run"))
        fapilog.get_logger().info("x")
        assert fapilog.flush(10).complete
    assert [event["event"] for event in sink.own()] == ["x"]


def test_results_while_no_hub_is_running(tmp_path: Path) -> None:
    """They name the sinks that were asked for and do not forget what was lost."""
    with process_restored():
        fapilog.configure_logging(sinks=["file"], file_path=str(tmp_path / "out.jsonl"), run_dir=str(tmp_path / "run"))
        assert coordinator.state.hub is None
        assert fapilog.flush().per_sink == {"file": fapilog.SinkResult(0, 0, 0)}
