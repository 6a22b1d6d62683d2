"""A Celery app for tests; run as a script it sends tasks: ``celery_app.py work 0 100`` for ``work(0)`` to ``work(99)``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from celery import Celery
from celery.utils.log import get_task_logger

import fapilog

STEPS = 5
PLACE = os.environ["TEST_BROKER"]
TOLD = os.open(os.environ["TEST_TOLD"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

if os.environ.get("TEST_INSTALL", "1") == "1":
    import fapilog.servers.celery

    fapilog.servers.celery.install()
else:
    fapilog.configure_logging()

app = Celery("celery_app")
app.conf.update(
    broker_url="filesystem://localhost",
    broker_transport_options={"data_folder_in": PLACE, "data_folder_out": PLACE, "control_folder": PLACE + ".control"},
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_pool_start_method=os.environ.get("TEST_START_METHOD", "fork"),
)
log = fapilog.get_logger("tasks")
own = get_task_logger("tasks.own")
standard = logging.getLogger("tasks.standard")


def tell(n: int) -> None:
    """Log what a task has to say; what is in the file of the told has been logged: its call has returned."""
    for step in range(STEPS):
        log.info("work", n=n, step=step)
        os.write(TOLD, b"%d %d %d\n" % (n, step, os.getpid()))


@app.task
def work(n: int) -> int:
    tell(n)
    return n


@app.task
def speak(n: int) -> None:
    """Log by each kind of logger, and leave something bound."""
    log.info("ours", n=n)
    own.info("own %d", n)
    standard.warning("standard %d", n)
    fapilog.bind_contextvars(left_by=n)
    log.info("bound", n=n)


@app.task
def outer(n: int) -> None:
    """Run another task in this one."""
    fapilog.bind_contextvars(of_outer=n)
    log.info("before", n=n)
    speak.apply((n,))
    log.info("after", n=n)


@app.task
def fail(n: int) -> None:
    raise ValueError(n)


@app.task(bind=True, max_retries=1)
def retried(self, n: int) -> None:
    log.info("tried", n=n)
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task
def hang(n: int) -> None:
    """Tell, and wait for an end that comes from outside."""
    tell(n)
    time.sleep(600)


@app.task
def hang_deaf(n: int) -> None:
    """Do the same like code in C that does not come back: no handler of a signal runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    hang(n)


@app.task
def perish(n: int) -> None:
    """Tell, and be killed at once, before anything of it can have been delivered."""
    tell(n)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def chat(n: int) -> None:
    """Log without a pause until the soft time limit."""
    from celery.exceptions import SoftTimeLimitExceeded

    logged = 0
    try:
        while True:
            log.info("chat", n=n, logged=logged)
            logged += 1
    except SoftTimeLimitExceeded:
        log.info("interrupted", n=n, logged=logged)
        tell(n)


if __name__ == "__main__":
    for name, first, last in zip(*[iter(sys.argv[1:])] * 3, strict=True):
        for number in range(int(first), int(last)):
            app.tasks[f"celery_app.{name}"].delay(number)
