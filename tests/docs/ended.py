"""Beside a page: the files of three workers that have ended; rotated, one with a full queue, one after a death."""

from __future__ import annotations

import subprocess
import sys

BEGIN = """
import os, fapilog
fapilog.configure_logging(
    service="shop", sinks=["file"], file_path="logs/{service}.{worker}.jsonl", queue_overflow="OVERFLOW", queue_block_timeout=10,
    file_max_bytes=64_000, file_keep=3, journal="on",
)
log = fapilog.get_logger("shop.cart")
"""
STEADY, FULL = BEGIN.replace("OVERFLOW", "block"), BEGIN.replace("OVERFLOW", "drop")
MANY = "for n in range(900): log.info('step', n=n)\n"
#: Side by side, so that they are workers 1, 2 and 3; each says when it has its number, and waits for the others.
FIRST = [MANY * 3, MANY + "fapilog.flush()\n", MANY]
WAIT = "log.info('here'); print('here', flush=True); input()\n"


def started(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


first = [started(STEADY + WAIT + code + ("os._exit(1)" if number == 1 else "")) for number, code in enumerate(FIRST)]
for process in first:
    process.communicate("\n")
full = "for n in range(3_000): log.info('step', n=n)\n"
for code in (FULL + WAIT + full, STEADY + WAIT + MANY):
    second = [started(code), started(STEADY + WAIT)]
    for process in second:
        process.communicate("\n")
print("ready", flush=True)
sys.stdin.read()
