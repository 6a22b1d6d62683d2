"""Forks at bad moments: no child hangs, nobody waits long, no event is lost or doubled; and who is who afterwards."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter

import pytest

from tests._support import only_matrix
from tests.programs.running import FULL, LEDGER, lives, lives_in, only_life, start
from tests.programs.told import drain_fifo, finished, numbered, said, ticks

BLOCKS = {"FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "30", "FAPILOG_QUEUE_SIZE": "10000"}
FORK_LIMIT_S = 0.35
FORK_FLUSH_S = 0.1  # coordinator.FORK_FLUSH


@pytest.mark.parametrize("children", [50, only_matrix(1000 if FULL else 200)])
def test_o_fork_1_in_a_storm(tmp_path, children):
    """O-FORK-1: eight threads log at every moment of a fork; no child hangs, and every event is there once."""
    with start(tmp_path, "storm", "threads", str(children), **BLOCKS) as program:
        assert program.ended(240 if FULL else 90) == 0
        finished(program)

        found = lives(tmp_path)
        (parent,) = (life for life in found if life.pid == program.pid)
        (counts,) = said(program, "threads")
        expected = Counter((f"thread {index}", n) for index, count in enumerate(counts["counts"]) for n in range(count))
        assert ticks(parent.whole()) == expected
        roles = {life.first["role"]: life for life in found if life is not parent}
        assert len(found) == children + 1
        assert len({life.lines[0]["boot"] for life in found}) == len(found)
        for number in range(children):
            child = roles[f"child {number}"].whole(closed=not number % 10)
            assert ticks(child) == numbered(f"child {number}", 3)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    """A program with a slow sink and at-fork hooks of its own that log; the lives in its files and what its threads counted."""
    folder = tmp_path_factory.mktemp("hooked")
    children = 50 if FULL else 16
    # A sink of one's own gets what dead siblings left as events of its own process's: here files are to hold one process each.
    with start(folder, "hooks", str(children), **BLOCKS, FAPILOG_DRAIN_TIMEOUT="30", FAPILOG_JOURNAL="off") as program:
        finished(program)
        (counts,) = said(program, "threads")
        found = lives(folder)
        (parent,) = (life for life in found if life.pid == program.pid)
    return children, parent, [life for life in found if life is not parent], counts["counts"]


def test_o_fork_1_with_a_sink_that_sleeps(hooked):
    """O-FORK-1: no child hangs; its three records are there once, and the parent's numbering has no gap and no repeat."""
    children, parent, others, counts = hooked

    from_threads = Counter((f"thread {index}", n) for index, count in enumerate(counts) for n in range(count))
    assert from_threads <= ticks(parent.whole())
    from_children = sum((ticks(life.whole(closed=False)) for life in others), Counter())
    expected = sum((numbered(f"child {number}", 3) for number in range(children)), Counter())
    assert Counter({key: count for key, count in from_children.items() if key[0].startswith("child")}) == expected


@pytest.mark.parametrize("order", ["early", "late"])
@pytest.mark.parametrize("moment", ["before", "parent", "child"])
def test_at_fork_hooks_of_the_users_own_log(hooked, order, moment):
    """Each event is in the file of the process that logged it, once for each fork, whoever registered first."""
    children, parent, others, _ = hooked

    role = f"{order} {moment}"
    here = [parent] if moment != "child" else others
    there = others if moment != "child" else [parent]
    assert sum(ticks(life)[role, 0] for life in here) == children
    assert sum(ticks(life)[role, 0] for life in there) == 0


@pytest.mark.parametrize("hub", ["started", only_matrix("cold")])
def test_o_fork_2(tmp_path, hub):
    """O-FORK-2: threads wait for room in the queue of a file that hangs; a fork waits neither for them nor for it."""
    os.mkfifo(tmp_path / "app.1.jsonl")

    with start(tmp_path, "storm", "full_queue", "200", hub, **BLOCKS | {"FAPILOG_QUEUE_SIZE": "10"}) as program:
        finished(program)

        (forks,) = said(program, "forks")
        assert len(forks["took"]) == 200
        # On a busy machine a fork may take that long without anybody's fault, but not three times.
        assert sorted(forks["took"])[-3] < FORK_LIMIT_S
        (tmp_path / "app.1.jsonl").unlink()
        roles = sorted(life.first["role"] for life in lives(tmp_path))
        assert roles == sorted(f"child {number}" for number in range(0, 200, 20))


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_o_fork_4(tmp_path, kind):
    """O-FORK-4: a callback of a running loop forks; the child logs, also in a loop of its own, and the parent misses nothing."""
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")

    with start(tmp_path, "storm", "in_a_loop", kind) as program:
        finished(program)

        found = {life.first["role"]: life for life in lives(tmp_path)}
        assert sorted(found) == ["child 300", "child 600", "parent"]
        assert ticks(found.pop("parent").whole()) == numbered("parent", 1000)
        assert all(ticks(life.whole(closed=False)) == numbered(role, 2) for role, life in found.items())


@pytest.mark.parametrize("where", ["queue", "backlog"])
def test_o_dup_1(tmp_path, where):
    """O-DUP-1: 100 records wait when four are forked; after the release there are 104, and no child counts what it inherited."""
    fifo = tmp_path / "app.1.jsonl"
    os.mkfifo(fifo)

    with start(tmp_path, "storm", "stalled", where, FAPILOG_DRAIN_TIMEOUT="30") as program:
        program.said("children gone")
        data = drain_fifo(fifo, program)
        finished(program)
        fifo.unlink()

        (parent,) = lives_in(data, fifo)
        children = lives(tmp_path)
        found = ticks(parent.whole()) + sum((ticks(life.whole(closed=False)) for life in children), Counter())
        assert found == sum((numbered(f"child {number}", 1) for number in range(4)), numbered("parent", 100))
        assert parent.pid == program.pid
        assert len({life.lines[0]["boot"] for life in [parent, *children]}) == 5
        told = Counter(life.pid for life in children for line in life.lines if line["event"] in LEDGER)
        for books in said(program, "child"):
            # A child may have had to tell of one that left its slot by `os._exit()`, before it said its numbers or after.
            assert 1 <= books["logged"] <= 1 + told[books["pid"]]
            assert books["logged"] == books["accepted"] == books["offered"]
            assert books["refused"] == books["dropped"] == {}


def test_o_met_1(tmp_path):
    """O-MET-1: after two steps of forks there are nine identities with the right pids, and the totals are what was logged."""
    with start(tmp_path, "storm", "generations") as program:
        finished(program)

        books = said(program, "books")
        generation = {entry["pid"]: entry["generation"] for entry in books}
        told = Counter(generation[life.pid] for life in lives(tmp_path) for line in life.lines if line["event"] in LEDGER)
        assert len({entry["boot"] for entry in books}) == len({entry["pid"] for entry in books}) == 9
        # What it has to tell of dead siblings, a process may log before it says its numbers or after.
        assert 14 <= sum(entry["logged"] for entry in books if entry["generation"] < 2) <= 14 + told[0] + told[1]
        assert 18 <= sum(entry["logged"] for entry in books) <= 18 + told.total()
        assert all(entry["logged"] == entry["accepted"] for entry in books)
        assert all(entry["refused"] == entry["dropped"] == {} for entry in books)
        found = lives(tmp_path)
        assert {life.pid: life.lines[0]["boot"] for life in found} == {entry["pid"]: entry["boot"] for entry in books}
        assert {life.pid: life.worker for life in found} == {entry["pid"]: entry["worker"] for entry in books}
        total = sum((ticks(life.whole(closed=life.pid == program.pid)) for life in found), Counter())
        assert total.total() == 18
        assert set(total.values()) == {1}
        # The hub's own events are the end of the parent's life, and what the next one in a slot tells of those that left by
        # `os._exit()`.
        assert sum(len(life.lines) for life in found) == 19 + told.total()


def test_the_generation_after_a_fork(tmp_path):
    """It goes up by one in the child and stays in the parent."""
    with start(tmp_path, "storm", "generations") as program:
        finished(program)

        assert [entry["generation"] for entry in said(program, "generation")] == [1] * 4
        assert sorted(entry["generation"] for entry in said(program, "books")) == [0, *[1] * 4, *[2] * 4]


@pytest.mark.parametrize("way", [["daemon", "100", "0"], ["daemon", "100", "0.1"], ["daemon_at_once"]], ids=" ".join)
def test_a_program_becomes_a_daemon(tmp_path, way):
    """Its first process leaves by `os._exit()` right after its fork, which has flushed: all events of both are there once."""
    with start(tmp_path, "storm", *way) as program:
        finished(program)

        found = {life.first["role"]: life for life in lives(tmp_path)}
        assert sorted(found) == ["daemon", "parent"]
        assert ticks(found["parent"].whole(closed=False)) == numbered("parent", 100)
        assert ticks(found["daemon"].whole()) == numbered("daemon", 100)
        assert found["parent"].pid == program.pid


@pytest.mark.parametrize("way", ["failing_sink", "idle_hub"])
def test_a_fork_while_a_flush_would_be_of_no_use(tmp_path, way):
    """It is not tried: the sink is failing, or nothing waits."""
    with start(tmp_path, "storm", way) as program:
        assert program.ended() == 0

        (fork,) = said(program, "fork")
        assert not fork["behind"]
        assert fork["next_flush"] == 0


def test_forks_in_a_row_while_a_sink_hangs(tmp_path):
    """The first waits for about 0.1 s; none of the next second does, then one waits again."""
    with start(tmp_path, "storm", "hanging_sink", FAPILOG_DRAIN_TIMEOUT="1") as program:
        assert program.ended() == 0

        forks = said(program, "fork")
        took = {flushed: [fork["took"] for fork in forks if fork["flushed"] is flushed] for flushed in (True, False)}
        assert forks[0]["flushed"]
        assert len(took[True]) == 2
        assert all(fork["planned"] <= fork["ended"] for fork in forks if fork["flushed"])
        assert all(fork["began"] < fork["planned"] for fork in forks if not fork["flushed"])
        # The second begins about a second after the first: each looks at the clock a moment after it began.
        assert forks[-1]["ended"] - forks[-1]["took"] - (forks[0]["ended"] - forks[0]["took"]) >= 0.95
        assert FORK_FLUSH_S <= min(took[True]) < FORK_LIMIT_S
        # A fork may take that long on a busy machine, but not every time.
        assert min(took[False]) < FORK_FLUSH_S


def test_a_sink_forks_inside_its_write(tmp_path):
    """It does not wait for a flush, which would wait for it."""
    with start(tmp_path, "storm", "forking_sink") as program:
        assert program.ended() == 0

        (fork,) = said(program, "fork")
        assert fork["next_flush"] == 0


@pytest.mark.matrix
@pytest.mark.parametrize("moment", ["atexit", "thread callback", "thread", "finaliser"])
@pytest.mark.parametrize("sink", ["file", "own", "late"])
def test_o_exit_4(tmp_path, moment, sink):
    """O-EXIT-4: the first events come at the last moment: written at once or counted, no traceback, the same exit code."""
    with start(tmp_path, "storm", "last_moment", moment, sink) as program:
        assert program.ended() == 5
        program.nothing_left()

        assert "Traceback" not in program.stderr
        assert "Exception ignored" not in program.stderr
        (books,) = said(program, "books")
        assert books["logged"] == books["accepted"] == books["offered"] == 3
        if sink == "file":
            assert books["dropped"] == {}
            assert ticks(only_life(tmp_path)) == numbered("parent", 3)
        elif sink == "late":
            assert books["dropped"] == {}
            assert program.stdout.count('"tick"') == 3
        else:  # by its worker, where a thread can still be started, or not at all
            assert books["dropped"] in ({}, {"after_close": 3})
            assert program.stderr.count("took no event") == bool(books["dropped"])


def test_a_forked_child_logs_first_in_an_inherited_exit_callback(tmp_path):
    """Its events are in its own file, and the parent's of the same callback in the parent's."""
    with start(tmp_path, "storm", "inherited_exit_callback") as program:
        finished(program)

        found = {life.first["role"]: life for life in lives(tmp_path)}
        assert ticks(found["child"].whole(closed=False)) == numbered("child", 3)
        assert ticks(found["parent"].whole()) == Counter(("parent", n) for n in (0, 1, 2, *range(10, 20)))
