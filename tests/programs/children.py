"""
Children of `multiprocessing`. `python children.py WAY METHOD [KIND] [SET-UP]`.

SET-UP is where `configure_logging()` is called: at import, in an initializer of each child, or nowhere. All children of one
program are alive at once: each leaves a mark in the working directory and waits for those of the others.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import telling  # type: ignore[import-not-found]

import fapilog

if TYPE_CHECKING:
    from collections.abc import Callable

CHILDREN = 3
EVENTS = 100
arguments = [*sys.argv, "", "", "", ""]
method, kind, set_up = arguments[2:5]
say, tick, until, log = telling.say, telling.tick, telling.until, telling.log

if set_up == "import":
    fapilog.configure_logging()


def initializer() -> None:
    if set_up == "initializer":
        fapilog.configure_logging()


def meet(number: int, others: int = CHILDREN) -> None:
    Path(f"mark {number}").touch()
    until(lambda: len(list(Path.cwd().glob("mark *"))) >= others)


def work(number: int) -> int:
    tick(f"child {number}", EVENTS)
    meet(number)
    return os.getpid()


def process(number: int) -> None:
    initializer()
    say("worked", number=number, worker=work(number))


def started(target: Callable[..., object], *each: tuple[Any, ...]) -> list[Any]:
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=target, args=one) for one in each]
    for child in children:
        child.start()
    return children


def joined(children: list[Any], code: int = 0) -> None:
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [code] * len(children)


def of_kind() -> None:
    context: Any = multiprocessing.get_context(method)
    if set_up != "initializer":
        tick("parent", 10)
    if kind == "Process":
        joined(started(process, *((number,) for number in range(CHILDREN))))
    elif kind == "Pool":
        pool = context.Pool(CHILDREN, initializer)
        say("pids", pids=pool.map(work, range(CHILDREN), chunksize=1))
        pool.close()
        pool.join()
    elif kind == "Pool left":
        with context.Pool(CHILDREN, initializer) as pool:
            say("pids", pids=pool.map(work, range(CHILDREN), chunksize=1))
    else:
        with concurrent.futures.ProcessPoolExecutor(CHILDREN, context, initializer) as executor:
            say("pids", pids=list(executor.map(work, range(CHILDREN))))


def flush_and_exit(number: int) -> None:
    tick(f"child {number}", EVENTS)
    assert fapilog.flush().complete
    os._exit(0)


def by_os_exit() -> None:
    joined(started(flush_and_exit, *((number,) for number in range(CHILDREN))))


def log_without_end(number: int) -> None:
    for n in range(10**9):
        tick(f"child {number}", 1, first=n)
        if n == EVENTS:
            meet(number)
        if not n % 10:
            time.sleep(0.001)


def terminated_while_logging() -> None:
    children = started(log_without_end, *((number,) for number in range(CHILDREN)))
    until(lambda: len(list(Path.cwd().glob("mark *"))) == CHILDREN)
    for child in children:
        child.terminate()
    joined(children, -signal.SIGTERM)


def use(logger: Any, number: int) -> None:
    logger.info("tick", role=f"child {number}", n=0)


def sent_loggers() -> None:
    """Loggers with and without bound values are arguments of the children."""
    bound = log.bind(colour="red").bind(number=1)
    bound.info("tick", role="parent", n=0)
    joined(started(use, (log, 0), (bound, 1), (fapilog.get_logger("test.sent", colour="blue"), 2)))


def grandchild() -> None:
    tick("grandchild", EVENTS)


def with_a_fork() -> None:
    tick("child", EVENTS)
    telling.joined(telling.forked(lambda: tick("forked", EVENTS)))
    joined(started(grandchild, ()))
    tick("child", EVENTS, first=EVENTS)


def nested() -> None:
    """A child forks by hand and starts a child of its own."""
    tick("parent", EVENTS)
    joined(started(with_a_fork, ()))


def from_a_thread() -> None:
    """All children are started by a thread that is not the main one, while another logs."""
    stop = threading.Event()

    def busy() -> None:
        for n in range(10**9):
            if stop.is_set():
                return
            tick("busy", 1, first=n)
            time.sleep(0.001)

    threading.Thread(target=busy).start()
    thread = threading.Thread(target=of_kind)
    thread.start()
    thread.join()
    stop.set()


def deaf_child() -> None:
    """
    The main thread waits in C for what never comes, as a worker of a pool does for a lock whose holder was terminated.

    SIGTERM is taken by another thread, so that it does not interrupt the wait: as when it comes just before the wait begins.
    """
    tick("child", EVENTS)
    waiting = multiprocessing.get_context(method).Semaphore(0)

    def take_the_signal() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    threading.Thread(target=take_the_signal, daemon=True).start()
    waiting.acquire()


def deaf() -> None:
    """A child does not hear SIGTERM, and is joined."""
    (child,) = started(deaf_child, ())
    child.join()
    telling.say("ended", code=child.exitcode)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
