"""What the hub holds in memory while a sink takes nothing."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from tests._support import ran_well, run_script

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")

MIB = 1 << 20
#: An hour of 2,000 events a second to a sink that answers nothing but "later", in a worker whose time passes at once.
HOUR = """
    import asyncio, os
    from fapilog import EventQueue, QueueWorker, SinkUnavailable
    from fapilog._internal.terms import Terms
    from tests import fake_time

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    class Away:
        name = "away"
        terms = Terms(None, max_elapsed={max_elapsed}, backlog_bytes={backlog})
        tries = 0
        async def open(self, identity): pass
        async def write(self, events): raise AssertionError
        async def write_lines(self, lines):
            self.tries += 1
            raise SinkUnavailable("later")
        async def close(self): pass

    async def main():
        queue = EventQueue(100_000, max_bytes={queue})
        sink = Away()
        worker = QueueWorker([sink], queue=queue, announce=False)
        worker.start()
        head = b'{{"timestamp":"2026-01-01T00:00:00.000000Z","level":"info","event":"%b"' % (b"x" * {padding})
        began = most = resident()
        for second in range(3600):
            for _ in range({rate}):
                queue.accept(20, head)
            await asyncio.sleep(1.0)
            most = max(most, resident())
        books = worker.deliveries[0].books
        lost = books.dropped_total() + sum(window.count for window in queue.refused.values())
        print(most - began, books.backlog_bytes, lost + books.in_flight + queue.qsize(), sink.tries)

    fake_time.run(main())
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("padding", "rate", "max_elapsed"),
    [
        pytest.param(0, 2_000, "None", id="small", marks=pytest.mark.soak),
        pytest.param(0, 2_000, "300.0", id="small, expiring", marks=pytest.mark.soak),
        pytest.param(2_000, 400, "None", id="middle"),
        pytest.param(100_000, 10, "300.0", id="large, expiring"),
    ],
)
def test_an_hour_long_outage(tmp_path, padding: int, rate: int, max_elapsed: str) -> None:
    """Resident memory stays within queue, backlog and 20 MiB; every event is counted (O-LOOP-1)."""
    queue, backlog = 4 * MIB, 16 * MIB
    script = HOUR.format(padding=padding, rate=rate, max_elapsed=max_elapsed, queue=queue, backlog=backlog)
    root = str(__file__).rsplit("/tests/", 1)[0]
    printed = ran_well(run_script(script, tmp_path, env={"PYTHONPATH": root}, timeout=120)).split()
    growth, waiting, counted, tries = map(int, printed)
    assert growth <= queue + backlog + 20 * MIB
    assert waiting <= backlog
    assert counted == 3600 * rate
    assert tries > 100


#: As many events as the machine gives, to a file and a Loki that is not there; prints the growth and the books.
FOR_REAL = """
    import os, time, fapilog

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    log = fapilog.get_logger("a")
    log.info("warm")
    fapilog.flush(1)
    began = most = resident()
    end = time.monotonic() + {seconds}
    calls = 1
    while time.monotonic() < end:
        for _ in range(500):
            log.info("order placed", order=calls, user="u-1842", amount=129.95, path="/api/orders/" + "x" * 200)
            calls += 1
        most = max(most, resident())
        time.sleep(0.02)
    fapilog.flush(1)
    seen = fapilog.statistics()
    loki = seen.sinks["loki"]
    notices = seen.logged - calls
    print(most - began, loki.backlog_bytes, notices, loki.delivered, calls, sum(loki.dropped.values()))
"""


@pytest.mark.matrix
def test_an_outage_for_real(tmp_path) -> None:
    """A minute (when the full tests are asked for) of events that cannot be sent: memory stays within its bounds (O-LOOP-1)."""
    full = bool(os.environ.get("FAPILOG_TEST_FULL"))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        env = {
            "FAPILOG_SINKS": "file,loki",
            "FAPILOG_LOKI_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "FAPILOG_LOKI_BACKLOG_BYTES": "16MiB",
            "FAPILOG_QUEUE_MAX_BYTES": "4MiB",
            "FAPILOG_DRAIN_TIMEOUT": "0.5",
        }
        result = run_script(FOR_REAL.format(seconds=60 if full else 6), tmp_path, env=env, timeout=100)
    growth, waiting, notices, delivered, calls, dropped = map(int, ran_well(result).split())
    assert growth <= (4 + 16 + 20) * MIB
    assert waiting <= 16 * MIB
    assert (0 <= notices < 200, delivered) == (True, 0)
    assert calls > 10_000
    assert not full or dropped > 0
