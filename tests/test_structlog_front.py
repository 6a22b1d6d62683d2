"""The structlog front: structlog.get_logger(), and queue_sink at the end of a chain of the user's own."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
import structlog

import fapilog
from fapilog._internal import notes
from fapilog._internal.route import route
from fapilog.bootstrap import use_worker
from fapilog.testing import capture_events
from tests._support import process_restored, ran_well, read_lines, run_script, strict


class Collecting:
    name = "collecting"

    def __init__(self) -> None:
        self.events: list[fapilog.Event] = []

    async def open(self, identity: fapilog.Identity) -> None:
        pass

    async def write(self, events: Any) -> None:
        self.events.extend(events)

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _restored():
    with process_restored():
        yield


@pytest.fixture
def configure(tmp_path):
    """Configure this process with a file sink, or as asked; returns a reader of that file after a flush."""

    def do(name: str = "out.jsonl", **overrides: Any):
        settings: dict[str, Any] = {
            "sinks": ["file"],
            "file_path": str(tmp_path / name),
            "run_dir": str(tmp_path / "run"),
            "queue_batch_timeout": 0.05,
        }
        fapilog.configure_logging(**{**settings, **overrides})

        def read() -> list[dict[str, Any]]:
            assert fapilog.flush(10).complete
            return read_lines(tmp_path / name)

        return read

    return do


def chain(*before: Any, after: tuple[Any, ...] = (), factory: Any = None, cache: bool = False) -> None:
    structlog.configure(
        processors=[*before, fapilog.queue_sink, *after],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=factory or structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=cache,
    )


def test_structlog_get_logger_after_configure_logging(configure) -> None:
    """It is our logger: bound values, contextvars and the level gate work, and the name is the argument or the module."""
    read = configure()
    structlog.contextvars.bind_contextvars(c=3)
    structlog.get_logger("named", a=1).bind(b=2).info("x")
    structlog.get_logger().info("y")
    structlog.get_logger("named").debug("not this")
    structlog.stdlib.get_logger("third").info("z")
    lines = read()
    assert [(line["logger"], line["event"]) for line in lines] == [("named", "x"), (__name__, "y"), ("third", "z")]
    assert (lines[0]["a"], lines[0]["b"], lines[0]["c"]) == (1, 2, 3)


def test_a_structlog_logger_made_before_configure_logging(configure) -> None:
    """A module's top-level structlog.get_logger() is lazy, so it writes into ours too."""
    early = structlog.get_logger("early")
    read = configure()
    early.info("x")
    assert [line["event"] for line in read()] == ["x"]


def test_cached_loggers_after_another_configuration(configure) -> None:
    """Bound and cached loggers write to the new sinks, through the new processors, at the new level."""
    first = configure("first.jsonl")
    log = structlog.get_logger("cached")
    bound = log.bind(a=1)
    ours = fapilog.get_logger("ours")
    for each in (log, bound, ours):
        each.info("one")
    assert len(first()) == 3

    def mark(_logger: Any, _name: str, event_dict: Any) -> Any:
        event_dict["marked"] = True
        return event_dict

    second = configure("second.jsonl", level="DEBUG", processors=[mark])
    for each in (log, bound, ours):
        each.debug("two")
    lines = second()
    assert [(line["event"], line["marked"]) for line in lines] == [("two", True)] * 3
    assert lines[1]["a"] == 1


def test_structlog_configure_by_the_user_afterwards(configure) -> None:
    """It changes structlog.get_logger(), not fapilog.get_logger()."""
    read = configure()
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    structlog.get_logger("theirs").info("theirs")
    fapilog.get_logger("ours").info("ours")
    assert [line["event"] for line in read()] == ["ours"]
    assert "theirs" in out.getvalue()


def test_queue_sink_with_the_hub(configure) -> None:
    """The event goes to the hub with what the chain put into it, once, and nothing is printed."""
    read = configure()
    out = io.StringIO()
    chain(
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        factory=structlog.PrintLoggerFactory(out),
    )
    structlog.contextvars.bind_contextvars(c=1)
    structlog.get_logger().bind(b=2).warning("hello", a=3, pid=4)
    lines = read()
    assert [(line["level"], line["event"], line["a"], line["b"], line["c"], line["pid_"]) for line in lines] == [
        ("warning", "hello", 3, 2, 1, 4)
    ]
    assert not [name for name in lines[0] if name.endswith("_") and name != "pid_"]
    assert out.getvalue() == ""


@pytest.mark.parametrize("name", ["msg", "message"])
def test_queue_sink_after_an_event_renamer(configure, name: str) -> None:
    """The event is under its new name too, as with one in `processors=`, and sampling rules find it by its name."""
    read = configure(sampling="often=1/1h")
    chain(structlog.processors.EventRenamer(name))
    for event in ("happened", "often", "often"):
        structlog.get_logger().info(event, a=1)
    lines = [line for line in read() if line["event"] != "fapilog.dropped"]
    assert [(line["event"], line[name]) for line in lines] == [("happened", "happened"), ("often", "often")]


@pytest.mark.parametrize("hub", [True, False])
def test_queue_sink_after_a_processor_that_forgot_its_return(configure, hub: bool) -> None:
    """There is one line, which says what has happened to the event."""
    out = io.StringIO()
    read = configure() if hub else lambda: [strict(out.getvalue())]
    chain(lambda *_: None, factory=structlog.PrintLoggerFactory(out))
    structlog.get_logger().info("x")
    (line,) = [line for line in read() if line["event"] != "fapilog.dropped"]
    assert "returned None" in line["processor_error"]


def told_on_stderr(capfd, *, given: Any = (), before: Any = None) -> list[str]:
    notes.forget()
    if before is not None:
        before()
    fapilog.configure_logging(sinks=["stderr"], processors=given)
    fapilog.configure_logging()
    return [line for line in capfd.readouterr().err.splitlines() if "structlog.configure()" in line]


def mine(_logger: Any, _name: str, event_dict: Any) -> Any:
    return event_dict


def test_processors_given_to_structlog_before_configure_logging(capfd) -> None:
    """One line on stderr names them and says where they belong."""
    own: list[Any] = [mine, structlog.processors.JSONRenderer()]
    (told,) = told_on_stderr(capfd, before=lambda: structlog.configure(processors=own))
    assert "mine, JSONRenderer" in told
    assert "configure_logging(processors=[...])" in told


@pytest.mark.parametrize(
    ("before", "given"),
    [
        (None, []),
        (lambda: structlog.configure(logger_factory=structlog.PrintLoggerFactory()), []),
        (lambda: structlog.configure(processors=list(structlog.get_config()["processors"])), []),
        (lambda: structlog.configure(processors=[mine, fapilog.queue_sink]), []),
        (lambda: structlog.configure(processors=[mine, structlog.processors.JSONRenderer()]), [mine]),
    ],
    ids=["nothing", "no processors", "the defaults", "queue_sink", "processors for us too"],
)
def test_a_structlog_configuration_that_loses_nothing(capfd, before: Any, given: Any) -> None:
    """Nothing is said."""
    assert told_on_stderr(capfd, before=before, given=given) == []


def test_a_capture_beside_processors_given_to_structlog(capfd) -> None:
    """Nothing is said: the capture brings them back."""
    notes.forget()
    structlog.configure(processors=[mine, structlog.processors.JSONRenderer()])
    with capture_events():
        structlog.get_logger().info("x")
    with capture_events():
        fapilog.configure_logging(sinks=[])
    assert "structlog.configure()" not in capfd.readouterr().err


@pytest.mark.parametrize("renderer", [structlog.processors.JSONRenderer(), structlog.processors.KeyValueRenderer()])
def test_queue_sink_before_a_renderer_with_the_hub(configure, renderer: Any) -> None:
    """The hub has the event, and the renderer never sees it."""
    read = configure()
    out = io.StringIO()
    chain(after=(renderer,), factory=structlog.PrintLoggerFactory(out))
    structlog.get_logger().info("x")
    assert [line["event"] for line in read()] == ["x"]
    assert out.getvalue() == ""


def test_queue_sink_with_a_standard_library_logger_name(configure) -> None:
    """The name of the wrapped logger is in the line."""
    read = configure()
    chain(factory=structlog.stdlib.LoggerFactory())
    structlog.get_logger("std.name").info("x")
    assert [(line["logger"], line["event"]) for line in read()] == [("std.name", "x")]


def test_queue_sink_with_exc_info(configure) -> None:
    """The exception is in the line as a structure."""
    read = configure()
    chain()
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger().exception("x")
    assert read()[0]["exception"]["type"] == "ValueError"


@pytest.mark.parametrize("kind", [structlog.DropEvent])
def test_queue_sink_called_by_hand_with_the_hub(configure, kind: type[BaseException]) -> None:
    """It raises structlog.DropEvent after taking the event, and leaves the dict as it was."""
    read = configure()
    given = {"event": "x", "a": 1, "level": "info"}
    with pytest.raises(kind):
        fapilog.queue_sink(None, "info", given)
    assert given == {"event": "x", "a": 1, "level": "info"}
    assert [line["event"] for line in read()] == ["x"]


def test_queue_sink_with_a_hand_made_worker() -> None:
    """use_worker() makes it the target: the events are in its queue and reach its sink expanded."""
    sink = Collecting()

    async def main() -> None:
        worker = fapilog.QueueWorker([sink], announce=False)
        use_worker(worker)
        chain(structlog.processors.add_log_level)
        worker.start()
        structlog.get_logger().error("hello", a=1)
        structlog.get_logger().info("again")
        assert (await worker.stop()).complete
        use_worker(None)

    asyncio.run(main())
    assert [(event["level"], event["event"], event["seq"]) for event in sink.events] == [
        ("error", "hello", 1),
        ("info", "again", 2),
    ]
    assert sink.events[0]["a"] == 1


def test_a_hand_made_worker_beside_the_hub(configure) -> None:
    """queue_sink goes to the worker, fapilog's own loggers to the hub; taken away, queue_sink goes to the hub again."""
    read = configure()
    chain()
    worker = fapilog.QueueWorker([Collecting()])
    use_worker(worker)
    structlog.get_logger().info("to the worker")
    fapilog.get_logger().info("to the hub")
    use_worker(None)
    structlog.get_logger().info("to the hub too")
    assert [line["event"] for line in read()] == ["to the hub", "to the hub too"]
    assert worker.queue.get_nowait()["event"] == "to the worker"


def test_a_full_queue_behind_queue_sink() -> None:
    """The event is refused and counted, and DropEvent is raised all the same: nothing is written beside the queue."""
    worker = fapilog.QueueWorker([], queue_size=1, reserve=0.0)
    use_worker(worker)
    for _ in range(3):
        with pytest.raises(structlog.DropEvent):
            fapilog.queue_sink(None, "info", {"event": "x"})
    assert worker.queue.put_events == 1
    assert worker.queue.refused["queue_full"].count == 2  # type: ignore[index]


def test_queue_sink_without_any_worker_before_a_print_logger() -> None:
    """The print logger gets one JSON line, so nothing is lost."""
    out = io.StringIO()
    chain(structlog.processors.add_log_level, factory=structlog.PrintLoggerFactory(out))
    structlog.get_logger().info("hello", a=2**70, pid=1)
    line = strict(out.getvalue().removesuffix("\n"))
    assert out.getvalue().count("\n") == 1
    assert (line["event"], line["level"], line["a"]) == ("hello", "info", 2**70)
    assert not route.configured


@pytest.mark.parametrize(
    ("factory", "buffer"), [(structlog.WriteLoggerFactory, io.StringIO), (structlog.BytesLoggerFactory, io.BytesIO)]
)
def test_queue_sink_without_any_worker_before_other_loggers(factory: Any, buffer: Any) -> None:
    """They get the line in the type that they write."""
    out = buffer()
    chain(factory=factory(out))
    structlog.get_logger().info("hello")
    assert strict(out.getvalue().strip())["event"] == "hello"


def test_queue_sink_without_any_worker_before_a_renderer() -> None:
    """The renderer gets the dict."""
    out = io.StringIO()
    chain(after=(structlog.processors.JSONRenderer(sort_keys=True),), factory=structlog.PrintLoggerFactory(out))
    structlog.get_logger().info("hello", a=1)
    assert out.getvalue() == '{"a": 1, "event": "hello"}\n'


def test_queue_sink_called_by_hand_without_any_worker() -> None:
    """It returns the dict that it was given."""
    given = {"event": "x", "a": 1}
    assert fapilog.queue_sink(None, "info", given) == {"event": "x", "a": 1}


def test_queue_sink_in_a_fresh_process_without_any_worker(tmp_path) -> None:
    """The line is printed to stdout at once."""
    printed = ran_well(
        run_script(
            """
            import structlog
            from fapilog import queue_sink
            structlog.configure(processors=[queue_sink])
            structlog.get_logger().info("hello")
            """,
            tmp_path,
        )
    )
    assert strict(printed.removesuffix("\n"))["event"] == "hello"


def test_a_hand_made_worker_in_a_forked_child(tmp_path) -> None:
    """The child's events do not go into the parent's copy, where nobody would ever take them."""
    printed = ran_well(
        run_script(
            """
            import os, sys, structlog, fapilog
            from fapilog.bootstrap import use_worker
            worker = fapilog.QueueWorker([])
            use_worker(worker)
            structlog.configure(processors=[fapilog.queue_sink])
            structlog.get_logger().info("parent")
            if os.fork() == 0:
                structlog.get_logger().info("child")
                print("waiting", worker.queue.qsize(), flush=True)
                os._exit(0)
            assert os.wait()[1] == 0
            print("waiting", worker.queue.qsize(), flush=True)
            """,
            tmp_path,
        )
    )
    assert printed.count("waiting 1") == 2
    assert [strict(line)["event"] for line in printed.splitlines() if line.startswith("{")] == ["child"]
