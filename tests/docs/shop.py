"""Beside a page: a service of three workers, one of which took the place of one that was killed without a journal."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

WORKER = """
import sys, time, fapilog
fapilog.configure_logging(
    service="shop", sinks=["file"], file_path="logs/{service}.{worker}.jsonl", journal="off", queue_batch_timeout=30
)
log = fapilog.get_logger("shop.cart")
for n in range(20):
    log.info("step", n=n)
fapilog.flush()
for n in range(9):  # one less than makes a batch: under way, until more are logged
    log.info("under_way", n=n)
me = fapilog.statistics()
while not any(each.identity == me.identity and each.logged >= me.logged for each in fapilog.service_statistics().workers):
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
while True:
    log.info("step")
    time.sleep(0.02)
"""


class Worker:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> subprocess.Popen[str]:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with contextlib.ExitStack() as stack:
    *others, killed = [stack.enter_context(worker) for worker in [Worker(), Worker(), Worker()]]
    killed.kill()
    killed.wait()
    for process in [*others, stack.enter_context(Worker())]:
        assert process.stdin is not None
        process.stdin.write("\n")
    print("ready", flush=True)
    signal.pause()
