"""fapilog.testing: what a user's tests use. Its documentation is run, too."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog

import fapilog
from fapilog._internal import flat
from fapilog._internal.gates import gates
from fapilog._internal.route import Route, route
from fapilog.bootstrap import use_worker
from fapilog.coordinator import coordinator
from fapilog.logger import processors as our_processors
from fapilog.stdlib import HubHandler
from fapilog.testing import (
    CapturedEvents,
    FailingSink,
    FakeClock,
    RecordingSink,
    StalledSink,
    capture_events,
    logging_restored,
)
from tests._support import ran_well, run_script, strict

DOCS = Path(__file__).parent.parent / "docs" / "testing.md"
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-q"]


@pytest.fixture(autouse=True)
def _restored():
    with logging_restored():
        yield


# Captures.


def test_a_capture_in_a_process_without_any_set_up() -> None:
    """Events of both kinds of loggers are captured as a sink would see them; nothing is started and nothing remains."""
    early = structlog.get_logger("early")
    threads = set(threading.enumerate())
    with capture_events() as events:
        fapilog.get_logger("ours", a=1).info("one", password="x" * 3)
        early.warning("two", pid="mine")
        structlog.stdlib.get_logger("third").error("three")
        assert [(event["event"], event["logger"], event["level"]) for event in events] == [
            ("one", "ours", "info"),
            ("two", "early", "warning"),
            ("three", "third", "error"),
        ]
        assert fapilog.flush().complete
        assert set(threading.enumerate()) <= threads
    assert coordinator.spec is None
    assert coordinator.state.hub is None
    assert type(route) is Route
    assert not structlog.is_configured()
    first = events[0]
    assert strict(first.line) == first
    assert [event.seq for event in events] == [event["seq"] for event in events] == [1, 2, 3]
    assert (first["service"], first["worker"], first["pid"], first.levelno) == ("fapilog", 1, os.getpid(), 20)
    assert {"timestamp", "env", "host", "boot"} <= set(first)
    assert (events[1]["pid"], events[1]["pid_"]) == (os.getpid(), "mine")


def test_a_capture_of_loggers_from_before(capsys) -> None:
    """Cached and bound loggers are captured, and log to where they did when it is over."""
    fapilog.configure_logging(sinks=["stdout"], format="json", queue_enabled=False)
    cached, bound, ours = structlog.get_logger("cached"), structlog.get_logger("bound").bind(a=1), fapilog.get_logger("ours")
    loggers = (cached, bound, ours)
    for each in loggers:
        each.info("before")
    with capture_events() as events:
        for each in loggers:
            each.info("during")
    for each in loggers:
        each.info("after")
    assert events.names() == ["during"] * 3
    out = [strict(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert out == [*["before"] * 3, *["after"] * 3]


def test_a_capture_of_many_threads() -> None:
    """None is lost, and they are in the order of their seqs, however many there are."""
    with capture_events() as events:
        log = fapilog.get_logger("threads")
        threads = [threading.Thread(target=lambda: [log.info("x", n=n) for n in range(2000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        partly = len(events)
        for thread in threads:
            thread.join()
    assert 0 <= partly <= len(events) == 8000
    assert [event["seq"] for event in events] == list(range(1, 8001))


def test_a_capture_in_coroutines() -> None:
    """Async methods and tasks are captured with their context."""

    async def task(n: int) -> None:
        structlog.contextvars.bind_contextvars(n=n)
        await fapilog.get_logger("tasks").ainfo("x")

    async def main() -> None:
        await asyncio.gather(*(task(n) for n in range(5)))
        assert (await fapilog.aflush()).complete

    with capture_events() as events:
        asyncio.run(main())
        assert sorted(event["n"] for event in events) == list(range(5))


def test_a_capture_of_the_standard_library() -> None:
    """Records that our handler takes are events."""
    logger = logging.getLogger("captured.stdlib")
    logger.addHandler(handler := HubHandler())
    try:
        with capture_events() as events:
            logger.warning("hello %s", "you", extra={"a": 1})
            assert events.one("hello you", a=1, level="warning", logger="captured.stdlib")
    finally:
        logger.removeHandler(handler)


def test_a_capture_of_the_standard_library_where_it_is_captured() -> None:
    """After `configure_logging()` in the block its records are events; afterwards logging and warnings are as they were found."""
    before = (logging.root.parent, list(logging.root.handlers), logging.root.level, warnings.showwarning)
    with capture_events() as events:
        fapilog.configure_logging()
        logging.getLogger("a.b").warning("std %s", 1, extra={"a": 1})
        assert events.one("std 1", a=1)["logger"] == "a.b"
    assert (logging.root.parent, list(logging.root.handlers), logging.root.level, warnings.showwarning) == before


def test_a_capture_of_a_chain_that_ends_in_queue_sink() -> None:
    """It is left as it is, and its events are captured, from a hand-made worker too."""
    with logging_restored():
        structlog.configure(processors=[structlog.processors.add_log_level, fapilog.queue_sink])
        worker = fapilog.QueueWorker([])
        use_worker(worker)
        with capture_events() as events:
            structlog.get_logger().error("x", a=1)
            assert events.one("x", level="error", a=1)
        structlog.get_logger().error("y")
        assert worker.queue.get_nowait()["event"] == "y"
        use_worker(None)


def test_code_under_test_that_sets_logging_up(tmp_path) -> None:
    """Its levels, processors and identity hold, its sinks get nothing, and afterwards the set-up before is back."""
    fapilog.configure_logging(service="before", level="WARNING", sinks=[outer := RecordingSink()], run_dir=str(tmp_path))
    fapilog.get_logger("x").warning("before")
    assert fapilog.flush(10).complete
    before = coordinator.spec
    inner = RecordingSink("inner")
    with capture_events() as events:
        fapilog.get_logger("x").info("too low")
        fapilog.configure_logging(
            service="inside",
            env="test",
            level="DEBUG",
            sinks=[inner],
            processors=[structlog.processors.EventRenamer("message")],
            run_dir=str(tmp_path / "other"),
        )
        fapilog.get_logger("x").debug("debug")
        fapilog.shutdown_logging(10)
        fapilog.get_logger("x").info("after the shutdown")
        fapilog.configure_logging(service="again")
        structlog.get_logger("x").info("again")
    assert [(event["event"], event["service"], event["env"], event.get("message")) for event in events] == [
        ("debug", "inside", "test", "debug"),
        ("after the shutdown", "inside", "test", "after the shutdown"),
        ("again", "again", "", None),
    ]
    assert coordinator.spec is before
    fapilog.get_logger("x").info("too low")
    fapilog.get_logger("x").warning("after")
    assert fapilog.flush(10).complete
    assert [event["event"] for event in outer.events if event["event"] != "fapilog.closed"] == ["before", "after"]
    assert {event["service"] for event in outer.events} == {"before"}
    assert [event["event"] for event in inner.events] in ([], ["fapilog.closed"])


def test_code_under_test_that_shuts_logging_down(tmp_path) -> None:
    """The hub that was open before is open again."""
    fapilog.configure_logging(sinks=[sink := RecordingSink()], run_dir=str(tmp_path))
    fapilog.get_logger("x").info("before")
    with capture_events():
        fapilog.shutdown_logging(10)
    fapilog.get_logger("x").info("after")
    assert fapilog.flush(10).complete
    assert "after" in [event["event"] for event in sink.events]
    assert fapilog.statistics().sinks["recording"].dropped == {}


def test_nested_captures() -> None:
    """The innermost gets the events; the outer goes on afterwards."""
    log = fapilog.get_logger("nested")
    with capture_events() as outer:
        log.info("one")
        with capture_events(level="DEBUG") as inner:
            log.debug("two")
        log.debug("not this")
        log.info("three")
    assert (outer.names(), inner.names()) == (["one", "three"], ["two"])
    assert type(route) is Route


def test_a_block_that_raises() -> None:
    """Everything is restored all the same."""
    level = gates.of("anything").level
    with pytest.raises(ZeroDivisionError), capture_events(level="DEBUG"):
        fapilog.configure_logging(processors=[print])
        raise ZeroDivisionError
    assert type(route) is Route
    assert coordinator.spec is None
    assert our_processors == []
    assert gates.of("anything").level == level


def test_a_capture_and_contextvars() -> None:
    """Values bound in it are gone, those from before are back."""
    with structlog.contextvars.bound_contextvars(a=1):
        with capture_events() as events:
            structlog.contextvars.bind_contextvars(a=2, b=3)
            fapilog.get_logger("x").info("x")
        assert structlog.contextvars.get_contextvars() == {"a": 1}
    assert events.one("x", a=2, b=3)


def test_a_capture_under_a_wrong_environment(monkeypatch) -> None:
    """Without a set-up, a wrong value does not matter; the set-up under test may complain of it."""
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "10k")
    monkeypatch.setenv("FAPILOG_SERVICE", "shop")
    with capture_events() as events:
        fapilog.get_logger("x").info("x")
        assert events.one("x")["service"] == "fapilog"
    monkeypatch.delenv("FAPILOG_QUEUE_SIZE")
    with capture_events() as events:
        fapilog.get_logger("x").info("x")
        assert events.one("x")["service"] == "shop"


def test_a_wrong_level() -> None:
    """It is a ConfigurationError, and nothing is captured or changed."""
    with pytest.raises(fapilog.ConfigurationError, match="warnning"), capture_events(level="warnning"):
        pass
    assert type(route) is Route


def test_events_of_a_forked_child(tmp_path) -> None:
    """They are not captured: they go where the child's set-up sends them."""
    printed = ran_well(
        run_script(
            """
            import os, fapilog
            from fapilog.testing import capture_events
            with capture_events() as events:
                fapilog.get_logger("x").info("parent")
                if os.fork() == 0:
                    fapilog.get_logger("x").info("child")
                    fapilog.flush(10)
                    os._exit(0)
                assert os.wait()[1] == 0
                assert events.names() == ["parent"]
            """,
            tmp_path,
        )
    )
    assert [strict(line)["event"] for line in printed.splitlines()] == ["child"]


def test_what_a_capture_costs_log_calls_when_it_is_over() -> None:
    """Nothing: the class of the route is what it was, with its plain attributes."""
    with capture_events():
        assert type(route) is not Route
    assert type(route) is Route
    assert type(vars(Route)["accept"]).__name__ == "member_descriptor"


# Looking into events.


@pytest.fixture
def events():
    with capture_events(level="DEBUG") as captured:
        log = fapilog.get_logger("app")
        log.info("paid", customer=1, total=5)
        log.info("paid", customer=2, total=(1, 2), at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
        log.error("failed", customer=2)
        yield captured


def test_the_events_as_a_sequence(events) -> None:
    """They behave as a list of dicts that grows."""
    assert len(events) == 3
    assert events[-1]["event"] == "failed"
    assert [event["event"] for event in events[1:]] == ["paid", "failed"]
    assert all(isinstance(event, fapilog.Event) for event in events)
    assert events == list(events)
    assert events != []
    assert events != 3
    assert events.names() == ["paid", "paid", "failed"]
    assert events[0] in events
    fapilog.get_logger("app").info("more")
    assert len(events) == 4
    events.clear()
    assert events == []
    assert repr(events) == "<no captured events>"
    assert isinstance(events, CapturedEvents)


def test_finding_events(events) -> None:
    """By name, by values as they stand or in their form in a line, or by both."""
    assert len(events.named("paid")) == len(events.named(customer=2)) == 2
    assert events.named("paid", customer=3) == []
    assert events.one("paid", customer=1)["total"] == 5
    assert events.one("paid", total=(1, 2)) == events.one(total=[1, 2])
    assert events.one(at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert events.one("failed", customer=pytest.approx(2))
    assert events.named("paid", absent=None) == []


def test_no_event(events) -> None:
    """The failure names what was asked for and shows the events of that name, or all."""
    with pytest.raises(AssertionError) as failure:
        events.one("paid", customer=3)
    assert str(failure.value).splitlines()[:2] == [
        "no event 'paid' with customer=3; these are named like that:",
        "  info 'paid' logger='app' customer=1 total=5",
    ]
    with pytest.raises(AssertionError) as failure:
        events.one("payed")
    assert str(failure.value).splitlines()[0] == "no event 'payed'; all that was captured:"
    assert len(str(failure.value).splitlines()) == 4
    events.clear()
    with pytest.raises(AssertionError, match=r"^no event with customer=1; nothing was captured$"):
        events.one(customer=1)


def test_more_than_one_event(events) -> None:
    """The failure shows them."""
    with pytest.raises(AssertionError) as failure:
        events.one("paid")
    assert str(failure.value).splitlines()[0] == "one event 'paid' was expected, there are 2:"
    assert len(str(failure.value).splitlines()) == 3


def test_a_failure_with_very_many_and_large_events(events) -> None:
    """The text stays short."""
    for n in range(1000):
        fapilog.get_logger("app").info("large", n=n, text="x" * 10_000)
    with pytest.raises(AssertionError) as failure:
        events.one("large")
    assert "... and 960 more" in str(failure.value)
    assert len(str(failure.value)) < 30_000


def test_waiting_for_an_event(events) -> None:
    """It comes from another thread; if it does not come, the failure says after how long and what there is."""
    log = fapilog.get_logger("app")
    threading.Timer(0.02, log.info, ("later",), {"timeout": 7}).start()
    assert events.wait_for("later", 10, timeout=7)["timeout"] == 7
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"^after 0.05 s: no event 'never'; all that was captured:\n"):
        events.wait_for("never", 0.05)
    assert time.monotonic() - began < 5


# Sinks and clock.


@pytest.fixture
def configured(tmp_path):
    def do(*sinks: Any) -> None:
        fapilog.configure_logging(
            sinks=sinks, queue_batch_timeout=0.01, queue_retry_delay=0.01, run_dir=str(tmp_path / "run"), drain_timeout=1.0
        )

    return do


def test_a_failing_sink(configured) -> None:
    """It fails the first times, each with what it is told to raise, and keeps what it was given and what it took."""
    given: list[int] = []

    def error(events: Any) -> Exception:
        given.append(len(events))
        return ConnectionError("no route")

    sink = FailingSink(2, error)
    configured(sink)
    fapilog.get_logger("x").info("x")
    sink.wait_for_attempts(3, 10)
    assert fapilog.flush(10).complete
    assert given == [1, 1]
    assert [event["event"] for event in sink.events] == ["x"]
    assert [[event["event"] for event in batch] for batch in sink.attempts[:3]] == [["x"]] * 3
    assert sink.identity is not None
    assert sink.identity.pid == os.getpid()
    fapilog.shutdown_logging(10)
    assert sink.closed == 1


def test_a_sink_that_always_fails(configured) -> None:
    """After the retries the event is counted as dropped; waiting for more attempts than there are fails with their number."""
    sink = FailingSink(name="never")
    configured(sink)
    fapilog.get_logger("x").info("x")
    sink.wait_for_attempts(4, 10)
    assert not fapilog.flush(10).complete
    assert fapilog.statistics().sinks["never"].dropped["retries_exhausted"] >= 1
    assert sink.events == []
    with pytest.raises(AssertionError, match=r"sink 'never': .* attempts after 0.01 s, not 1000"):
        sink.wait_for_attempts(1000, 0.01)


def test_a_stalled_sink(configured) -> None:
    """Its write returns when it is released; until then another sink goes on."""
    stalled, other = StalledSink(), RecordingSink()
    configured(stalled, other)
    fapilog.get_logger("x").info("x")
    stalled.wait_for_attempts(1, 10)
    other.wait_for_attempts(1, 10)
    assert (stalled.events, len(other.events)) == ([], 1)
    stalled.release()
    assert fapilog.flush(10).complete
    assert stalled.events == other.events


def test_a_stalled_sink_that_is_never_released(configured) -> None:
    """The end of the process or of the test is not held up."""
    sink = StalledSink()
    configured(sink)
    fapilog.get_logger("x").info("x")
    sink.wait_for_attempts(1, 10)
    result = fapilog.shutdown_logging(0.2)
    assert not result.complete
    assert result.waited < 5
    assert sink.events == []


@pytest.mark.parametrize("sink", [RecordingSink(), FailingSink(), StalledSink()], ids=lambda sink: sink.name)
def test_the_sinks_are_sinks(sink: Any) -> None:
    """They fulfil the protocol."""
    assert isinstance(sink, fapilog.Sink)


def test_a_fake_clock() -> None:
    """Events have its time, in the form of a line, while the block lasts; it moves when it is told to."""
    before = flat.clock_ns
    with capture_events() as events, FakeClock() as clock:
        began = clock()
        fapilog.get_logger("x").info("a")
        clock.advance(0.25)
        fapilog.get_logger("x").info("b")
        with pytest.raises(structlog.DropEvent):
            fapilog.queue_sink(None, "info", {"event": "c"})
        assert (clock(), clock.now()) == (began + 0.25, datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC))
    assert began <= time.monotonic()
    assert [event["timestamp"] for event in events] == [
        "2026-01-01T00:00:00.000000Z",
        "2026-01-01T00:00:00.250000Z",
        "2026-01-01T00:00:00.250000Z",
    ]
    assert flat.clock_ns is before


def test_fake_clocks_one_in_another() -> None:
    """The inner one holds, then the outer one again."""
    with capture_events() as events, FakeClock():
        with FakeClock(datetime(2030, 1, 1)):  # noqa: DTZ001 - taken as UTC
            fapilog.get_logger("x").info("inner")
        fapilog.get_logger("x").info("outer")
    assert [event["timestamp"][:4] for event in events] == ["2030", "2026"]


def test_the_zone_of_a_fake_clock() -> None:
    """It starts at the moment that it is given, in any zone, and shows it in any."""
    east = timezone(timedelta(hours=5))
    clock = FakeClock(datetime(2026, 1, 1, 5, tzinfo=east))
    assert clock.now() == clock.now(east) == datetime(2026, 1, 1, tzinfo=UTC)
    assert (clock.now().tzinfo, clock.now(east).tzinfo) == (UTC, east)


def test_a_fake_clock_that_shall_go_back() -> None:
    """It is a ValueError."""
    with pytest.raises(ValueError, match="-1"):
        FakeClock().advance(-1)


def test_a_fake_clock_and_sampling_rules() -> None:
    """Their intervals pass by it; what a rule stops is not in the capture, and starts nothing."""
    with capture_events() as events, FakeClock() as clock:
        fapilog.configure_logging(sampling="x=2/60s")
        log = fapilog.get_logger("sampled")
        for count in (2, 4):
            for _ in range(5):
                log.info("x")
            assert len(events) == count
            clock.advance(61)
    assert coordinator.state.hub is None


# The plugin and the documentation.


def run_pytest(folder: Path, *options: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAPILOG_", "PYTEST_"))}
    result = subprocess.run(
        [*PYTEST, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"


@pytest.mark.matrix
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_project_that_uses_the_fixture(tmp_path, workers: list[str]) -> None:
    """Tests pass, async ones too; one that fails shows its events; tests do not see each other's."""
    (tmp_path / "conftest.py").write_text(
        "import fapilog\nfrom fapilog.testing import capture_events\n\npytest_plugins = ['fapilog.testing']\n"
    )
    (tmp_path / "app.py").write_text(
        "import fapilog, structlog\n\nfapilog.configure_logging(service='app')\nlog = structlog.get_logger('app')\n"
    )
    (tmp_path / "test_app.py").write_text(
        """
import asyncio
import pytest
import fapilog
from app import log

@pytest.mark.parametrize("n", range(20))
def test_one(fapilog_events, n):
    log.info("event", n=n)
    assert fapilog_events.one("event", n=n)["service"] == "app"
    assert fapilog_events.one()["seq"] == 1

@pytest.mark.anyio
async def test_async(fapilog_events):
    await asyncio.gather(*(log.ainfo("event", n=n) for n in range(3)))
    assert len(fapilog_events.named("event")) == 3

@pytest.fixture
def anyio_backend():
    return "asyncio"

def test_that_fails(fapilog_events):
    log.warning("the reason", n=1)
    fapilog_events.one("something else")
"""
    )
    output = run_pytest(tmp_path, *workers)
    assert "exit code 1" in output
    assert "21 passed" in output, output
    assert "1 failed" in output
    assert re.search(r"Captured fapilog events teardown -+\n  warning 'the reason' logger='app' n=1", output), output
    assert "AssertionError: no event 'something else'; all that was captured:\nE         warning 'the reason'" in output, output


@pytest.mark.matrix
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_the_documentation(tmp_path, workers: list[str]) -> None:
    """Every block of docs/testing.md is a file of a project whose tests pass."""
    if not DOCS.is_file():
        pytest.skip("only in a checkout")
    text = DOCS.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("\n```python")
    for block in blocks:
        name = block.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"[\w/]+\.py", name), block
        path = tmp_path / name
        assert not path.exists(), name
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    tests = sum(len(re.findall(r"^ *def test_", block, re.MULTILINE)) for block in blocks)
    output = run_pytest(tmp_path, *workers)
    assert f"{tests} passed" in output, output


def test_an_import_without_pytest(tmp_path) -> None:
    """All but the fixture is there."""
    ran_well(
        run_script(
            """
            import sys
            sys.modules["pytest"] = None
            import fapilog.testing
            assert not hasattr(fapilog.testing, "fapilog_events")
            with fapilog.testing.capture_events() as events:
                fapilog.get_logger("x").info("x")
                assert events.one("x")
            """,
            tmp_path,
        )
    )


def test_the_types_of_a_capture() -> None:
    """For mypy: an event is a dict, its search takes any fields."""
    with capture_events() as events:
        fapilog.get_logger("x").info("x", n=1)
        event: fapilog.Event = events[0]
        some: list[fapilog.Event] = events[0:1]
        names: list[Any] = events.names()
    assert [event] == some
    assert names == ["x"]
