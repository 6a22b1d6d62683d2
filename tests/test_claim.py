"""claim.py: who starts the hub, and what comes meanwhile: other threads' log calls, signals that would end the process."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests._support import NOT_MEASURED, ran_well, read_lines, run_script

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl", "FAPILOG_RUN_DIR": "run", "FAPILOG_JOURNAL": "on"}

SET_UP = """
import os, signal, sys, threading, time
import fapilog
from fapilog._internal import starting
from fapilog.coordinator import coordinator

log = fapilog.get_logger("a")
in_start = threading.Event()
take_slot = starting.take_slot

def in_the_midst(do):
    def taken(*arguments):
        in_start.set()
        do()
        return take_slot(*arguments)
    starting.take_slot = taken
"""


def names(folder: Path) -> list[str]:
    return [line["event"] for line in read_lines(folder / "out.jsonl") if not line["event"].startswith("fapilog.")]


def run(code: str, folder: Path, *, code_of_exit: int) -> list[str]:
    """Return the hub's own events in the file that a program leaves, which ends with *code_of_exit* and says nothing."""
    done = run_script(SET_UP + code, folder, env=HERE)
    assert (done.returncode, done.stderr) == (code_of_exit, ""), done.stderr
    return [line["event"] for line in read_lines(folder / "out.jsonl")] if (folder / "out.jsonl").exists() else []


def recover(folder: Path) -> None:
    run("log.info('next')", folder, code_of_exit=0)


@NOT_MEASURED
def test_calls_that_return_while_another_thread_starts_the_hub(tmp_path: Path) -> None:
    """They are protected as any other: the next start finds them."""
    code = """
in_the_midst(lambda: time.sleep(0.2))
threading.Thread(target=log.info, args=("first",), daemon=True).start()
in_start.wait()
for _ in range(20):
    log.info("e")
os._exit(7)
"""
    assert run(code, tmp_path, code_of_exit=7) == []
    recover(tmp_path)
    assert sorted(names(tmp_path)) == ["e"] * 20 + ["first", "next"]


@pytest.mark.matrix
def test_calls_that_return_while_another_thread_configures_anew(tmp_path: Path) -> None:
    """They are protected, however long the old hub's sink hangs."""
    code = """
fapilog.configure_logging()
log.info("warm")
threading.Thread(target=fapilog.configure_logging, kwargs={"level": "DEBUG"}, daemon=True).start()
count = 0
end = time.monotonic() + 1.0
while time.monotonic() < end:
    log.info("e")
    count += 1
    time.sleep(0.001)
os.write(1, b"%d" % count)
os._exit(7)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {**HERE, "FAPILOG_SINKS": "file,loki", "FAPILOG_LOKI_URL": url, "FAPILOG_DRAIN_TIMEOUT": "2"}
        done = run_script(SET_UP + code, tmp_path, env=env)
        assert done.returncode == 7, done.stderr
        ran_well(run_script(SET_UP + "log.info('next')", tmp_path, env=env))
    assert int(done.stdout) > 100
    assert names(tmp_path).count("e") == int(done.stdout)


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_in_the_midst_of_a_start(tmp_path: Path, times: int) -> None:
    """It ends the process once the hub has started and is drained: nothing is lost; a second one waits for nothing."""
    code = f"""
fapilog.configure_logging()
def end():
    for _ in range({times}):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)  # the handler runs
in_the_midst(end)
log.info("first")
"""
    written = run(code, tmp_path, code_of_exit=-signal.SIGTERM)
    assert written == (["first", "fapilog.closed"] if times == 1 else [])


def test_a_signal_to_a_worker_of_gunicorn_that_starts_its_hub(tmp_path: Path) -> None:
    """The worker is guarded before: what it has logged is delivered, and its life is closed."""
    code = """
from fapilog._internal import arbiter
class Worker:
    log = None
    def init_signals(self):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

fapilog.configure_logging()
worker = Worker()
worker.log = type("Log", (), {"reopen_files": lambda self: None})()
arbiter.arm(worker, coordinator)
log.info("held")
in_the_midst(lambda: os.kill(os.getpid(), signal.SIGTERM))
worker.init_signals()
"""
    written = run(code, tmp_path, code_of_exit=-signal.SIGTERM)
    assert written == ["fapilog.worker_started", "held", "fapilog.closed"]


def test_an_exception_of_a_signal_handler_while_the_old_hub_drains(tmp_path: Path) -> None:
    """The next event starts a hub: nobody waits for the start that was cut short."""
    code = """
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
fapilog.configure_logging()
log.info("first")
withdraw = coordinator._withdraw
def withdrawn(state):
    withdraw(state)
    signal.raise_signal(signal.SIGALRM)
coordinator._withdraw = withdrawn
try:
    fapilog.configure_logging(level="DEBUG")
except KeyboardInterrupt:
    log.info("second")
    began = time.monotonic()
    log.info("third")
    assert time.monotonic() - began < 1
"""
    run(code, tmp_path, code_of_exit=0)
    assert names(tmp_path) == ["first", "second", "third"]
