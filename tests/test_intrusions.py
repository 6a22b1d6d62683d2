"""Programs that do as they like with signals, descriptors and threads: they find things as without us, and their events too."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests._support import only_matrix, ran_well, read_lines, run_script

if TYPE_CHECKING:
    from pathlib import Path

FILE = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl"}


def run(code: str, folder: Path) -> Any:
    return run_script(code, folder, env=FILE)


def events(folder: Path) -> list[str]:
    return [line["event"] for line in read_lines(folder / "out.jsonl")]


@pytest.mark.parametrize("method", ["fork", only_matrix("spawn")])
def test_a_child_of_multiprocessing_has_a_sigterm_handler_of_its_own(tmp_path, method: str) -> None:
    """It is called once for each signal, and what it does then is not interrupted."""
    (tmp_path / "child.py").write_text(
        """
import signal, sys, time
import fapilog

def child(queue):
    calls = []
    signal.signal(signal.SIGTERM, lambda *_: (calls.append(1), sys.exit(0)))
    fapilog.get_logger("x").info("working")
    try:
        open("ready", "x").close()  # not by the queue, whose lock may be held when the signal comes
        time.sleep(60)
    finally:
        time.sleep(0.3)
        queue.put(len(calls))
"""
    )
    code = f"""
        import multiprocessing, os, sys, time
        sys.path.insert(0, ".")
        from child import child
        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            queue = context.Queue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            while not os.path.exists("ready"):
                time.sleep(0.01)
            process.terminate()
            print(queue.get(timeout=20))
            process.join(20)
            print(process.exitcode)
        """
    assert ran_well(run(code, tmp_path)) == "1\n0\n"
    assert events(tmp_path) == ["working", "fapilog.closed"]


def test_the_first_event_comes_from_another_thread(tmp_path) -> None:
    """The guard was armed at set-up: SIGTERM loses nothing."""
    code = """
        import os, signal, threading, time
        import fapilog
        fapilog.configure_logging()
        def work():
            for n in range(5):
                fapilog.get_logger().info("served")
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(30)
        """
    assert run(code, tmp_path).returncode == -signal.SIGTERM
    assert events(tmp_path) == [*["served"] * 5, "fapilog.closed"]


def test_a_handler_of_the_programs_own_calls_the_one_that_it_found(tmp_path) -> None:
    """It comes back, the program ends by its own will, and what it logs until then is there."""
    code = """
        import os, signal, sys, time
        import fapilog
        log = fapilog.get_logger()
        log.info("one")
        found = signal.getsignal(signal.SIGTERM)
        stop = []
        def graceful(number, frame):
            stop.append(number)
            if callable(found):
                found(number, frame)
        signal.signal(signal.SIGTERM, graceful)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        log.info("two")
        sys.exit(7)
        """
    assert run(code, tmp_path).returncode == 7
    assert [event for event in events(tmp_path) if event in {"one", "two"}] == ["one", "two"]


@pytest.mark.parametrize("number", ["SIGUSR1", "SIGTERM"])
def test_a_signal_that_the_program_blocks_to_take_it_later(tmp_path, number: str) -> None:
    """No thread of ours takes it."""
    code = f"""
        import os, signal, time
        import fapilog
        fapilog.get_logger().info("one")
        assert fapilog.flush(5).complete
        signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.{number}}})
        os.kill(os.getpid(), signal.{number})
        time.sleep(0.3)
        assert signal.{number} in signal.sigpending()
        assert signal.sigwait({{signal.{number}}}) == signal.{number}
        print("taken")
        """
    assert ran_well(run(code, tmp_path)) == "taken\n"


def test_the_program_closes_all_descriptors_and_opens_others(tmp_path) -> None:
    """Its files stay open, here and in a child, nothing foreign is in them, and the events are written all the same."""
    code = """
        import os, time
        import fapilog
        log = fapilog.get_logger()
        log.info("one")
        assert fapilog.flush(5).complete
        os.closerange(3, 4096)
        mine = [open(f"mine{n}.dat", "w+b", buffering=0) for n in range(12)]
        log.error("two")
        time.sleep(1)
        log.info("three")
        def check():
            for n, file in enumerate(mine):
                assert os.readlink(f"/proc/self/fd/{file.fileno()}").endswith(f"mine{n}.dat")
                assert os.path.getsize(file.name) == 0
        check()
        pid = os.fork()
        if not pid:
            check()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert not fapilog.flush(5).per_sink["file"].in_flight
        check()
        os._exit(0)
        """
    ran_well(run(code, tmp_path))
    assert events(tmp_path)[:3] == ["one", "two", "three"]


@pytest.mark.matrix
@pytest.mark.parametrize("free", [1, 2, 3, 4, 5])
def test_no_descriptors_are_left_when_the_hub_starts(tmp_path, free: int) -> None:
    """Once there are some again, events are written; no flush waits for a worker that never was."""
    code = f"""
        import os, resource, time
        import fapilog
        fapilog.configure_logging()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        hog = []
        try:
            while True:
                hog.append(os.open("/dev/null", 0))
        except OSError:
            pass
        for _ in range({free}):
            os.close(hog.pop())
        log = fapilog.get_logger()
        log.info("short")
        time.sleep(0.2)
        for fd in hog:
            os.close(fd)
        log.info("plenty")
        began = time.monotonic()
        result = fapilog.flush(2)
        assert time.monotonic() - began < 3
        assert not result.per_sink["file"].in_flight, result
        os._exit(0)
        """
    assert run(code, tmp_path).returncode == 0
    assert "plenty" in events(tmp_path)


def test_a_program_that_has_logged_becomes_a_master(tmp_path) -> None:
    """Its threads end, its life is closed, and it goes on as worker 0."""
    code = """
        import threading, time
        import fapilog
        from fapilog.coordinator import coordinator
        log = fapilog.get_logger()
        log.info("program")
        coordinator.become_master()
        end = time.monotonic() + 5
        while threading.active_count() > 1 and time.monotonic() < end:  # ended threads are unlisted a moment later
            time.sleep(0.001)
        log.info("master")
        print(threading.active_count(), fapilog.statistics().identity.worker)
        """
    assert ran_well(run(code, tmp_path)).split() == ["1", "0"]
    lines = read_lines(tmp_path / "out.jsonl")
    assert [(line["event"], line["worker"]) for line in lines] == [
        ("program", 1),
        ("fapilog.closed", 1),
        ("master", 0),
        ("fapilog.closed", 0),
    ]
