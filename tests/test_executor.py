"""The threads for calls that may block: nobody waits for one that never returns."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fapilog._internal.executor import MAX_THREADS, DaemonPool
from tests._support import LAST_WORD, ended_within, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pool() -> Iterator[DaemonPool]:
    pool = DaemonPool("test-pool")
    yield pool
    pool.shutdown()


def test_calls_that_never_return(pool: DaemonPool) -> None:
    """They hold up no other call while there are threads left, and no thread is made where one is idle."""
    over = threading.Event()
    stuck = [pool.submit(over.wait) for _ in range(MAX_THREADS - 1)]
    for number in range(100):
        assert pool.submit(pow, number, 2).result(10) == number**2
    assert pool._count == MAX_THREADS
    over.set()
    assert [each.result(10) for each in stuck] == [True] * len(stuck)


def test_more_calls_than_threads(pool: DaemonPool) -> None:
    """The rest of them wait, and run when there is a thread again."""
    over = threading.Event()
    stuck = [pool.submit(over.wait) for _ in range(MAX_THREADS)]
    late = [pool.submit(pow, number, 2) for number in range(20)]
    assert not any(each.done() for each in late)
    over.set()
    assert [each.result(10) for each in late] == [number**2 for number in range(20)]
    assert all(each.result(10) for each in stuck)
    assert pool._count == MAX_THREADS


def test_many_threads_that_submit(pool: DaemonPool) -> None:
    """Each call runs once, and nobody is promised a thread that is busy."""
    results: list[int] = []

    def some(first: int) -> None:
        results.extend(pool.submit(pow, number, 1).result(10) for number in range(first, first + 200))

    threads = [threading.Thread(target=some, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [1000 * index + number for index in range(8) for number in range(200)]
    assert pool._count <= MAX_THREADS


def test_what_a_call_raises(pool: DaemonPool) -> None:
    """It is in the future, whatever it is, and the thread lives on."""
    for error in (ValueError("x"), SystemExit(1), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        assert pool.submit(fail).exception(10) is error
    assert pool.submit(pow, 2, 3).result(10) == 8
    assert pool._count == 1


def test_an_interpreter_that_starts_no_threads_any_more(pool: DaemonPool, monkeypatch) -> None:
    """Calls run where they are asked for; with a thread that is there already, they wait for it."""

    def refused(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("fapilog._internal.executor.start_thread", refused)
    assert pool.submit(threading.get_ident).result(0) == threading.get_ident()
    monkeypatch.undo()
    there = pool.submit(threading.get_ident).result(10)
    monkeypatch.setattr("fapilog._internal.executor.start_thread", refused)
    assert [pool.submit(threading.get_ident).result(10) for _ in range(20)] == [there] * 20


def test_after_the_shutdown(pool: DaemonPool) -> None:
    """What was submitted is done, nothing more is taken, and nobody waits for a call that hangs."""
    over = threading.Event()
    stuck = pool.submit(over.wait)
    began = time.monotonic()
    pool.shutdown(wait=True)
    assert time.monotonic() - began < 5
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 1, 1)
    over.set()
    assert stuck.result(10)


def test_a_loop_that_uses_it(pool: DaemonPool) -> None:
    """`to_thread()` and name lookups work, and closing the loop does not wait for one that hangs."""
    over = threading.Event()

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(pool)
        hanging = asyncio.create_task(asyncio.to_thread(over.wait))
        found = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        hanging.cancel()
        return await asyncio.to_thread(pow, 2, 5), found[0][4]

    assert asyncio.run(main()) == (32, ("127.0.0.1", 80))
    over.set()


@pytest.mark.parametrize("call", ["asyncio.get_running_loop().getaddrinfo('h', 1)", "asyncio.to_thread(time.sleep, 3600)"])
def test_a_sink_whose_lookup_hangs_when_the_program_ends(tmp_path, call: str) -> None:
    """The process ends within the drain limit and a second, and says how many events were not delivered (O-HANG-1)."""
    script = f"""
        {LAST_WORD}
        import asyncio, socket, fapilog
        socket.getaddrinfo = lambda *args, **kwargs: time.sleep(3600)
        class Net:
            name = "net"
            async def open(self, identity): pass
            async def write(self, events): await {call}
            async def close(self): pass
        fapilog.configure_logging(sinks=[Net()], drain_timeout=1.0)
        for number in range(100):
            fapilog.get_logger("a").info("e", n=number)
        print(time.time())
    """
    result = run_script(script, tmp_path)
    ended_within(1.0 + 1.0, result)
    assert "101 events were not delivered to sink 'net' (after_close)" in result.stderr
