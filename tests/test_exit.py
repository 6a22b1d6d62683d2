"""A program leaves, in whatever way and at whatever moment: it takes its events along and no longer than it may."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import rest_in_matrix
from tests.programs.running import FULL, Life, Running, only_life, start

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 20 if FULL else 8
#: Programs that stop more than once, with the calls of which they tell.
STOPS = {
    "stop_twice_then_flush": ["stop", "stop again", "flush", "logging.shutdown"],
    "two_threads_stop_at_once": ["stop 0", "stop 1"],
}
MARGIN_S = 1.0


def said(program: Running) -> dict[str, dict[str, Any]]:
    return {entry["at"]: entry for entry in map(json.loads, program.stdout.splitlines())}


def finished(program: Running, code: int, *, quiet: bool = True) -> None:
    assert program.ended() == code
    program.nothing_left()
    if quiet:
        assert program.stderr == ""


def assert_ticks(life: Life, count: int) -> None:
    assert [line["n"] for line in life.named("tick")] == list(range(count))


def run_often(folder: Path, way: str, times: int) -> list[Path]:
    """Start *way* several times at once, each in a folder of its own, and return the folders."""
    folders = [folder / str(number) for number in range(times)]
    with ExitStack() as stack:
        programs = []
        for one in folders:
            one.mkdir()
            programs.append(stack.enter_context(start(one, "exits", way)))
        for program in programs:
            finished(program, 0)
    return folders


def test_a_script_of_1000_events_ends_without_any_stop_call(tmp_path):
    """All 1,000 lines are in its file, every time."""
    for folder in run_often(tmp_path, "end", RUNS):
        assert_ticks(only_life(folder).whole(), 1000)


@pytest.mark.parametrize(
    ("way", "code", "last_line"),
    [
        ("sys_exit", 3, None),
        ("exception", 1, "LookupError: nobody catches this"),
        ("signal_itself", -signal.SIGTERM, None),
    ],
)
def test_a_script_ends_abnormally(tmp_path, way, code, last_line):
    """Its exit code and its own traceback are those that it would have without us, and its 1,000 lines are there."""
    with start(tmp_path, "exits", way) as program:
        finished(program, code, quiet=last_line is None)

        assert_ticks(only_life(tmp_path).whole(), 1000)
        if last_line is not None:
            assert program.stderr.splitlines()[-1] == last_line
            assert program.stderr.count("Traceback") == 1


@pytest.mark.parametrize(("number", "tracebacks"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
def test_a_waiting_script_is_ended_by_a_signal(tmp_path, number, tracebacks):
    """It dies of that signal after its 1,000 lines are written."""
    with start(tmp_path, "exits", "wait_for_a_signal") as program:
        program.said("ready")
        program.signal(number)
        finished(program, -number, quiet=False)

        assert program.stderr.count("Traceback") == tracebacks
        assert_ticks(only_life(tmp_path).whole(), 1000)


def test_sigterm_twice(tmp_path):
    """The second signal, during the drain of a sink that hangs, does not harm: the process dies of it within the drain limit."""
    os.mkfifo(tmp_path / "app.1.jsonl")

    with start(tmp_path, "exits", "wait_for_a_signal", FAPILOG_DRAIN_TIMEOUT="1.5") as program:
        program.said("ready")
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGTERM)
        finished(program, -signal.SIGTERM, quiet=False)

        assert time.monotonic() - began < 1.5 + MARGIN_S
        assert "Traceback" not in program.stderr


@pytest.mark.parametrize("way", ["first_in_atexit", "configured_then_first_in_atexit", "first_in_a_thread_that_outlives_main"])
def test_the_first_log_call_is_made_while_the_interpreter_ends(tmp_path, way):
    """The events are written, nothing is said on stderr and the exit code is unchanged."""
    with start(tmp_path, "exits", way, "20") as program:
        finished(program, 5)

        life = only_life(tmp_path)
        assert_ticks(life, 20)
        assert life.seqs == list(range(1, len(life.lines) + 1))


@pytest.mark.parametrize("way", ["atexit_before_ours", "atexit_after_ours", "thread_that_outlives_main"])
def test_events_follow_while_the_interpreter_ends(tmp_path, way):
    """Those logged before and those logged during the end are all written once; the exit code is unchanged."""
    with start(tmp_path, "exits", way, "1000") as program:
        finished(program, 5)

        life = only_life(tmp_path)
        assert_ticks(life, 2000)
        assert life.seqs == list(range(1, len(life.lines) + 1))
        assert len(life.named("fapilog.closed")) == 1


@pytest.mark.matrix
@pytest.mark.parametrize("limit", ["3.0", "1.0"])
@pytest.mark.parametrize("count", [100, 1500])
def test_the_file_hangs_until_the_end(tmp_path, limit, count):
    """A FIFO without a reader: the process ends within the drain limit + 1 s, says how many it leaves, and the books balance."""
    os.mkfifo(tmp_path / "app.1.jsonl")

    with start(tmp_path, "exits", "stalled_to_the_end", str(count), FAPILOG_DRAIN_TIMEOUT=limit) as program:
        code = program.ended()
        ended = time.monotonic()
        program.nothing_left()

        assert code == 0
        assert ended - said(program)["main ends"]["clock"] < float(limit) + MARGIN_S
        books = said(program)["after"]
        assert books["logged"] >= count + 1
        assert books["logged"] == books["accepted"] + books["refused"]
        assert (books["delivered"], books["in_flight"]) == (0, 0)
        assert books["sink_accepted"] == books["accepted"] == sum(books["dropped"].values())
        assert f"{books['dropped']['after_close']} events were not delivered to sink 'file'" in program.stderr
        assert "Traceback" not in program.stderr


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_comes_while_the_file_hangs(tmp_path, number):
    """The process dies of the signal within the drain limit + 1 s and says how many events are missing."""
    os.mkfifo(tmp_path / "app.1.jsonl")

    with start(tmp_path, "exits", "wait_for_a_signal", "100", FAPILOG_DRAIN_TIMEOUT="1.0") as program:
        program.said("ready")
        began = time.monotonic()
        program.signal(number)
        code = program.ended()

        assert code == -number
        assert time.monotonic() - began < 1.0 + MARGIN_S
        assert "101 events were not delivered to sink 'file'" in program.stderr


@pytest.mark.parametrize(
    ("way", "stalled"),
    rest_in_matrix(
        2,
        [
            ("stop_twice_then_flush", False),
            ("two_threads_stop_at_once", True),
            ("stop_twice_then_flush", True),
            ("two_threads_stop_at_once", False),
        ],
    ),
)
def test_stops_come_twice_or_at_once(tmp_path, way, stalled):
    """Every call returns within the drain limit, also with a full queue and a sink that hangs; nothing is written twice."""
    if stalled:
        os.mkfifo(tmp_path / "app.1.jsonl")

    with start(tmp_path, "exits", way, "1500" if stalled else "1000", FAPILOG_DRAIN_TIMEOUT="1.0") as program:
        finished(program, 0, quiet=not stalled)

        results = said(program)
        for call in STOPS[way]:
            assert results[call]["took"] < 1.0 + 0.5
            assert results[call]["complete"] in (None, not stalled)
        books = results["after"]
        assert books["logged"] == books["accepted"] + books["refused"]
        assert books["in_flight"] == 0
        assert books["sink_accepted"] == books["delivered"] + sum(books["dropped"].values())
        assert "Traceback" not in program.stderr
        if not stalled:
            assert_ticks(only_life(tmp_path).whole(), 1000)


def test_events_after_shutdown_logging(tmp_path):
    """Each is in the file when its call returns, once, with the next seq."""
    with start(tmp_path, "exits", "late", FAPILOG_TEST_FILE=str(tmp_path / "app.1.jsonl")) as program:
        finished(program, 0)

        life = only_life(tmp_path).whole()
        assert_ticks(life, 1005)
        assert (said(program)["closed"]["lines"], said(program)["late"]["lines"]) == (1001, 1006)
        books = said(program)["after"]
        assert books["logged"] == books["accepted"] == books["sink_accepted"] == books["delivered"] == 1006


def test_logging_is_configured_again_after_its_shutdown(tmp_path):
    """The hub opens again in the same life: all events are there once, with seqs that go on."""
    with start(tmp_path, "exits", "reopened") as program:
        finished(program, 0)

        life = only_life(tmp_path)
        assert_ticks(life, 2000)
        assert life.seqs == list(range(1, len(life.lines) + 1))
        assert len(life.named("fapilog.closed")) == 2


def test_a_handler_of_the_programs_own_for_sigterm(tmp_path):
    """It is left in place: what it logs and the exit code it chooses count."""
    with start(tmp_path, "exits", "own_handler") as program:
        program.said("ready")
        program.signal(signal.SIGTERM)
        finished(program, 7)

        assert_ticks(only_life(tmp_path).whole(), 1001)


def test_sigterm_is_ignored_by_the_program(tmp_path):
    """It goes on being ignored; the program ends by what else ends it."""
    with start(tmp_path, "exits", "ignored") as program:
        program.said("ready")
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGINT)
        finished(program, -signal.SIGINT, quiet=False)

        assert_ticks(only_life(tmp_path).whole(), 1000)


def test_a_daemon_thread_logs_until_the_interpreter_is_gone(tmp_path):
    """The end comes within the drain limit, what the main thread logged is there, and nothing is twice."""
    with start(
        tmp_path, "exits", "daemon_thread_logs_on", FAPILOG_QUEUE_OVERFLOW="block", FAPILOG_QUEUE_BLOCK_TIMEOUT="30"
    ) as program:
        code = program.ended()
        ended = time.monotonic()

        assert code == 5
        assert program.stderr == ""
        assert ended - said(program)["main ends"]["clock"] < 3.0 + MARGIN_S
        life = only_life(tmp_path)
        assert_ticks(life, 1000)
        assert len(set(life.seqs)) == len(life.seqs)
        busy = [line["n"] for line in life.named("busy")]
        assert busy == list(range(len(busy)))
        assert len(life.named("fapilog.closed")) == 1


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["write_hangs", "close_hangs"])
def test_a_sink_of_the_users_own_hangs_beside_a_file(tmp_path, way):
    """The file gets everything, and the process ends within the drain limit + 1 s and says which sink has not taken how many."""
    with start(tmp_path, "exits", way, FAPILOG_DRAIN_TIMEOUT="1.5") as program:
        code = program.ended()
        ended = time.monotonic()
        program.nothing_left()

        assert code == 0
        assert ended - said(program)["main ends"]["clock"] < 1.5 + MARGIN_S
        assert_ticks(only_life(tmp_path).whole(), 1000)
        assert "Traceback" not in program.stderr
        expected = "1001 events were not delivered to sink 'hanging'" if way == "write_hangs" else "sink 'hanging' did not close"
        assert expected in program.stderr


def test_a_process_is_killed_after_a_flush(tmp_path):
    """What was flushed is in the file, once."""
    with start(tmp_path, "exits", "killed") as program:
        finished(program, -signal.SIGKILL)

        life = only_life(tmp_path)
        assert_ticks(life, 1000)
        assert life.seqs == list(range(1, 1001))
