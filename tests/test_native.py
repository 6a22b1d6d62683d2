"""Real threads beside gevent's green ones, and what is handed between threads and loops."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from fapilog._internal import native
from fapilog._internal.executor import SinkExecutor
from fapilog._internal.native import Asked, NativeFuture, elsewhere
from tests._support import only_matrix, rest_in_matrix
from tests.programs.running import lives, only_life, start
from tests.programs.told import finished, numbered, said, ticks
from tests.recording import until

GREENLETS, EACH = 10, 100
LIMIT_S = 10
ORDER = pytest.mark.parametrize("order", ["before", only_matrix("after")])
ROOMY = {"FAPILOG_QUEUE_SIZE": "20000"}


def start_green(tmp_path, *arguments, **settings):
    pytest.importorskip("gevent")
    return start(tmp_path, "greens", *arguments, **ROOMY | settings)


def of_all_greenlets() -> Counter[tuple[str, int]]:
    roles = [f"{kind} {number}" for kind in ("greenlet", "thread") for number in range(GREENLETS)]
    return sum((numbered(role, EACH) for role in roles), Counter())


@pytest.mark.matrix
@ORDER
@pytest.mark.parametrize("way", ["end", "flushed", "own_sinks", "own_async_sinks"])
def test_greenlets_and_threads_of_gevent_log(tmp_path, way, order):
    """All their events are there once, whatever the sink waits by and whether a flush or the end of the program delivers them."""
    with start_green(tmp_path, way, order) as program:
        finished(program)

        assert ticks(only_life(tmp_path).whole(closed=way != "flushed")) == of_all_greenlets()
        if way == "own_sinks":
            (threads,) = said(program, "threads")
            assert (threads["own"], threads["number"]) == (True, 1)


@ORDER
def test_a_greenlet_flushes(tmp_path, order):
    """Others run meanwhile, here the one for which the sink waits."""
    with start_green(tmp_path, "flush_lets_others_run", order) as program:
        finished(program)

        (flush,) = said(program, "flush")
        assert (flush["early"], flush["complete"]) == (False, True)


@ORDER
def test_the_application_under_gevent_runs_event_loops_of_its_own(tmp_path, order):
    """The worker's is not seen in any greenlet, and gevent has no hub on the worker's thread."""
    with start_green(tmp_path, "the_workers_loop", order) as program:
        finished(program)

        (loop,) = said(program, "loop")
        assert (loop["seen"], loop["own"], loop["hubs"]) == (False, "ran", 1)
        assert ticks(only_life(tmp_path).whole()) == numbered("main", 10) + numbered("loop", 10)


@ORDER
def test_a_greenlet_computes(tmp_path, order):
    """The worker writes meanwhile."""
    with start_green(tmp_path, "busy_greenlet", order) as program:
        finished(program)

        (busy,) = said(program, "busy")
        assert busy["written"] == 2


@pytest.mark.matrix
@ORDER
@pytest.mark.parametrize("where", ["greenlet", "hub"])
def test_a_log_call_waits_for_room_under_gevent(tmp_path, where, order):
    """In a greenlet it lets the others run, in gevent's hub it waits with the whole thread: nothing is lost."""
    policy = {"FAPILOG_QUEUE_SIZE": "10", "FAPILOG_QUEUE_OVERFLOW": "block", "FAPILOG_QUEUE_BLOCK_TIMEOUT": "20"}

    with start_green(tmp_path, "blocked_greenlet", order, where, **policy) as program:
        finished(program)

        (books,) = said(program, "books")
        assert (books["refused"], books["dropped"]) == ({}, {})
        assert ticks(only_life(tmp_path).whole()) == numbered("main", 1) + numbered("filler", 300)


@ORDER
def test_a_log_call_in_gevents_hub(tmp_path, order):
    """A callback and a signal handler may log there; nothing is raised, nothing is lost."""
    with start_green(tmp_path, "in_the_hub", order) as program:
        finished(program)

        assert len(said(program, "hub")[0]["inside"]) == 2
        assert ticks(only_life(tmp_path).whole()) == numbered("callback", 3) + numbered("handler", 3)


@pytest.mark.parametrize(
    ("first", "order"),
    rest_in_matrix(1, [("main", "before"), ("greenlet", "after"), ("main", "after"), ("greenlet", "before")]),
)
def test_sigterm_under_gevent(tmp_path, first, order):
    """The process dies of it after all events are written, whichever greenlet of the main thread logged first."""
    with start_green(tmp_path, "waits_for_a_signal", order, first) as program:
        program.said("ready")
        program.signal(signal.SIGTERM)
        finished(program, -signal.SIGTERM)

        assert ticks(only_life(tmp_path).whole()) == of_all_greenlets() + numbered("first", 1)


@ORDER
def test_sigterm_comes_just_before_gevents_hub_waits_in_c(tmp_path, order):
    """The process dies of it all the same, after all events are written: the worker's thread repeats it until it is heard."""
    with start_green(tmp_path, "misses_a_signal", order) as program:
        finished(program, -signal.SIGTERM)

        assert ticks(only_life(tmp_path).whole()) == of_all_greenlets() + numbered("first", 1)


@ORDER
def test_fork_under_gevent(tmp_path, order):
    """The child has a worker of its own, on a real thread too."""
    with start_green(tmp_path, "forks", order) as program:
        finished(program)

        found = {life.pid == program.pid: life for life in lives(tmp_path)}
        assert ticks(found[True].whole()) == numbered("main", 10)
        assert ticks(found[False].whole(closed=False)) == of_all_greenlets()


@ORDER
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_green_thread_leaves_open(tmp_path, order):
    """No directory: what it has closed is closed before gevent's hub runs, so that nothing forked meanwhile inherits it."""
    with start_green(tmp_path, "leaves_open", order) as program:
        finished(program)

        assert [entry["directories"] for entry in said(program, "open")] == [[]]


# Without gevent.


def test_who_closes_descriptors():
    """`close_fd()` alone, all over the package."""
    package = Path(native.__file__).parents[1]
    assert [path.name for path in package.rglob("*.py") if "os.close(" in path.read_text()] == []


@pytest.fixture
def other_loop():
    """An event loop that runs on a thread of its own."""
    loop = native.new_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT_S)
    loop.close()


@pytest.fixture
def closed_loop():
    loop = native.new_loop()
    loop.close()
    return loop


async def answer() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def fail() -> None:
    await asyncio.sleep(0)
    raise LookupError("not here")


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def test_asked_for_a_result(other_loop):
    """It is there when `done` is."""

    async def main() -> Asked:
        asked = Asked(other_loop, answer)
        await until(lambda: asked.done, LIMIT_S)
        return asked

    assert asyncio.run(main()).result not in (None, threading.current_thread().name)


@pytest.mark.parametrize("make", [fail, cancel_itself])
def test_asked_for_what_fails(other_loop, make):
    """It is done, without a result, and nothing is raised or printed anywhere."""

    async def main() -> Asked:
        asked = Asked(other_loop, make)
        await until(lambda: asked.done, LIMIT_S)
        return asked

    assert asyncio.run(main()).result is None


def test_asked_of_a_closed_loop(closed_loop):
    """That is a RuntimeError, and no coroutine is left that nobody awaits."""
    with pytest.raises(RuntimeError):
        Asked(closed_loop, answer)


def test_elsewhere_returns_a_result(other_loop):
    """The coroutine runs on the other loop's thread."""
    assert asyncio.run(elsewhere(other_loop, answer)) != threading.current_thread().name


@pytest.mark.parametrize(("make", "error"), [(fail, LookupError), (cancel_itself, asyncio.CancelledError)])
def test_elsewhere_raises(other_loop, make, error):
    """What the coroutine raises arrives at the caller."""
    with pytest.raises(error):
        asyncio.run(elsewhere(other_loop, make))


def test_elsewhere_on_a_closed_loop(closed_loop):
    """That is a RuntimeError, and no coroutine is left that nobody awaits."""
    with pytest.raises(RuntimeError):
        asyncio.run(elsewhere(closed_loop, answer))


def test_elsewhere_is_cancelled(other_loop):
    """So is the coroutine over there, and the caller's cancellation is raised."""
    seen: list[str] = []

    async def hang() -> None:
        seen.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(elsewhere(other_loop, hang))
        await until(lambda: seen, LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(seen) == 2, LIMIT_S)

    asyncio.run(main())
    assert seen == ["began", "cancelled"]


def test_whoever_asked_elsewhere_is_gone(other_loop):
    """The coroutine ends without harm; its result goes nowhere."""
    gate = threading.Event()
    over = threading.Event()

    async def late() -> None:
        while not gate.is_set():
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(over.set)

    async def main() -> None:
        waiting = asyncio.get_running_loop().create_task(elsewhere(other_loop, late))
        await asyncio.sleep(0)
        del waiting

    loop = native.new_loop()
    task = loop.create_task(main())
    loop.run_until_complete(task)
    left = asyncio.all_tasks(loop)
    loop.close()
    gate.set()
    assert over.wait(LIMIT_S)
    assert asyncio.run(elsewhere(other_loop, answer))
    for one in left:
        one._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("raises", [None, ValueError("no"), SystemExit(3)])
def test_a_native_future_of_an_executor(raises):
    """`run_in_executor`, which aiofiles uses, gets the result or the exception of a call on the sink's thread."""
    executor = SinkExecutor("test")

    def call(name: str) -> str:
        if raises is not None:
            raise raises
        return f"{name} on {threading.current_thread().name}"

    async def main() -> str:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(executor, call, "x"), LIMIT_S)

    try:
        assert isinstance(executor.submit(lambda: None), NativeFuture)
        if raises is None:
            assert asyncio.run(main()) == "x on test"
        else:
            with pytest.raises(type(raises)):
                asyncio.run(main())
            assert executor.submit(lambda: 5).result(LIMIT_S) == 5
    finally:
        executor.shutdown()


def test_a_native_future_is_cancelled_before_its_turn():
    """Its call is left out, and the next one is made."""
    executor = SinkExecutor("test")
    gate = threading.Event()
    calls: list[int] = []
    try:
        executor.submit(gate.wait)
        doomed = executor.submit(calls.append, 1)
        after = executor.submit(calls.append, 2)
        assert doomed.cancel()
        gate.set()
        after.result(LIMIT_S)
        assert calls == [2]
    finally:
        gate.set()
        executor.shutdown()


def test_an_executor_is_shut_down():
    """What was submitted is still done, then its thread ends; a second time changes nothing."""
    executor = SinkExecutor("ends")
    result = executor.submit(threading.current_thread)
    executor.shutdown(wait=True)
    executor.shutdown()
    thread = result.result(LIMIT_S)
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_an_executor_that_did_nothing_is_shut_down():
    """No thread was ever there."""
    before = set(threading.enumerate())
    SinkExecutor("idle").shutdown()
    assert set(threading.enumerate()) <= before
