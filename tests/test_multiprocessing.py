"""Children of `multiprocessing` and `concurrent.futures`: born in three ways, ended in four, and none loses its events."""

from __future__ import annotations

import signal
from collections import Counter
from itertools import product

import pytest

from tests._support import FORKED, rest_in_matrix
from tests.programs.running import FULL, Life, Running, lives, start
from tests.programs.told import finished, numbered, said, ticks

METHODS = ["fork", "spawn", "forkserver"]
METHOD = pytest.mark.parametrize("method", METHODS)
KINDS = ["Process", "Pool", "ProcessPoolExecutor"]
SET_UPS = ["import", "environment", "initializer"]
# Each kind and method, each method and set-up, each set-up and kind; all of them together take their time.
SQUARE = [(kind, method, SET_UPS[(i + j) % 3]) for i, kind in enumerate(KINDS) for j, method in enumerate(METHODS)]
CHILDREN, EVENTS = 3, 100


def of_children(program: Running, found: list[Life]) -> list[Life]:
    return [life for life in found if life.pid != program.pid]


def assert_children_whole(program: Running, found: list[Life]) -> None:
    """Check that the children's events are there once, each child's under a pid and a worker number of its own."""
    children = of_children(program, found)
    total = sum((ticks(life.whole()) for life in children), Counter())
    assert total == sum((numbered(f"child {number}", EVENTS) for number in range(CHILDREN)), Counter())
    for life in children:
        assert len({line["role"] for line in life.named("tick")}) == 1
    assert len({life.worker for life in found}) == len({life.pid for life in found}) == len(found)


@pytest.mark.parametrize(
    ("kind", "method", "set_up"),
    # First those on the diagonal: each kind, each method and each set-up once.
    list(product(KINDS, METHODS, SET_UPS))
    if FULL
    else rest_in_matrix(3, sorted(SQUARE, key=lambda cell: SQUARE.index(cell) % 4)),
)
def test_children_return(tmp_path, kind, method, set_up):
    """O-EXIT-1 (a), (b): 100 of 100 are there, with the right pid and a worker number that no other live process has."""
    with start(tmp_path, "children", "of_kind", method, kind, set_up) as program:
        finished(program)

        found = lives(tmp_path)
        assert_children_whole(program, found)
        children = {life.pid for life in of_children(program, found)}
        if kind == "Process":
            assert {entry["worker"] for entry in said(program, "worked")} == children
        else:
            assert set(said(program, "pids")[0]["pids"]) == children
        parents = [life for life in found if life.pid == program.pid]
        assert [ticks(life.whole()) for life in parents] == [numbered("parent", 10)] * (set_up != "initializer")


@FORKED
def test_a_pool_is_left_by_its_with_statement(tmp_path, method):
    """O-EXIT-1 (c): it ends its children by SIGTERM; whatever they had logged is there, without half a line."""
    with start(tmp_path, "children", "of_kind", method, "Pool left", "environment") as program:
        finished(program)

        assert_children_whole(program, lives(tmp_path))


@METHOD
def test_a_child_flushes_and_leaves_by_os_exit(tmp_path, method):
    """O-EXIT-1 (d): 100 of 100 are there."""
    with start(tmp_path, "children", "by_os_exit", method) as program:
        finished(program)

        total = sum((ticks(life.whole(closed=False)) for life in lives(tmp_path)), Counter())
        assert total == sum((numbered(f"child {number}", EVENTS) for number in range(CHILDREN)), Counter())


@pytest.mark.matrix
@METHOD
def test_children_are_terminated_while_they_log(tmp_path, method):
    """They die of SIGTERM, with every event up to some moment in their files and not one line too many or half."""
    with start(tmp_path, "children", "terminated_while_logging", method, FAPILOG_QUEUE_SIZE="20000") as program:
        finished(program)

        found = of_children(program, lives(tmp_path))
        assert len(found) == CHILDREN
        for life in found:
            count = len(life.whole().named("tick"))
            assert count > EVENTS
            assert ticks(life) == numbered(life.first["role"], count)


@FORKED
def test_sigterm_comes_just_before_a_child_waits_in_c(tmp_path, method):
    """The child dies of it all the same, drained: otherwise `with Pool(...)` would wait for such a worker for ever."""
    with start(tmp_path, "children", "deaf", method) as program:
        assert program.ended(20) == 0
        program.nothing_left()

        assert [told["code"] for told in said(program, "ended")] == [-signal.SIGTERM]
        (life,) = (life for life in lives(tmp_path) if life.named("tick"))
        assert ticks(life.whole()) == numbered("child", EVENTS)


@pytest.mark.matrix
@METHOD
def test_loggers_are_sent_to_children(tmp_path, method):
    """They log there with the values that were bound here, in the name of the child."""
    with start(tmp_path, "children", "sent_loggers", method) as program:
        finished(program)

        found = {line["role"]: line for life in lives(tmp_path) for line in life.whole().named("tick")}
        assert sorted(found) == ["child 0", "child 1", "child 2", "parent"]
        assert [found[role].get("colour") for role in sorted(found)] == [None, "red", "blue", "red"]
        assert [found[role].get("number") for role in sorted(found)] == [None, 1, None, 1]
        assert [found[role]["logger"] for role in sorted(found)] == [*["test.telling"] * 2, "test.sent", "test.telling"]
        assert len({line["pid"] for line in found.values()}) == 4


@pytest.mark.matrix
@METHOD
def test_a_child_has_children(tmp_path, method):
    """Four processes of three generations have exactly their own events."""
    with start(tmp_path, "children", "nested", method) as program:
        finished(program)

        found = {life.first["role"]: life for life in lives(tmp_path)}
        counts = {"parent": EVENTS, "child": 2 * EVENTS, "grandchild": EVENTS, "forked": EVENTS}
        assert {role: ticks(life.whole(closed=role != "forked")) for role, life in found.items()} == {
            role: numbered(role, count) for role, count in counts.items()
        }
        assert found["parent"].pid == program.pid
        assert len({life.pid for life in found.values()}) == 4


@pytest.mark.matrix
@METHOD
@pytest.mark.parametrize("kind", ["Process", "ProcessPoolExecutor"])
def test_children_are_started_by_a_thread_while_another_logs(tmp_path, kind, method):
    """They are as good as any; the parent's events are its own."""
    with start(tmp_path, "children", "from_a_thread", method, kind, "environment", FAPILOG_QUEUE_SIZE="20000") as program:
        finished(program)

        found = lives(tmp_path)
        assert_children_whole(program, found)
        (parent,) = (life for life in found if life.pid == program.pid)
        busy = len([line for line in parent.named("tick") if line["role"] == "busy"])
        assert ticks(parent.whole()) == numbered("parent", 10) + numbered("busy", busy)
