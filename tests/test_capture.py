"""The capture of the standard library's logging in one process: what arrives, once, and that everything else stays as it was."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import signal
import time
import warnings
from typing import Any

import pytest
import structlog

import fapilog
from fapilog._internal import capture, native, notes
from fapilog._internal.gates import gates
from fapilog.stdlib import HubHandler
from tests._support import caught_events

HEAD = {"timestamp", "level", "event", "logger"}
NAME = "fapilog_tests.captured"


@contextlib.contextmanager
def bare_root():
    """Take pytest's handlers away, which come back for each phase of a test, and one of which raises."""
    handlers = list(logging.root.handlers)
    logging.root.handlers[:] = []
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


@pytest.fixture
def events():
    """The capture is on, and every level passes; afterwards all is as before."""
    root = logging.root
    handlers, level, parent = list(root.handlers), root.level, root.parent
    with caught_events() as found, warnings.catch_warnings():
        gates.set(0, {})
        capture.start()
        try:
            yield found
        finally:
            logging.captureWarnings(capture=False)
            root.handlers[:] = handlers
            root.setLevel(level)
    capture.stop()
    assert (root.handlers, root.level, root.parent) == (handlers, level, parent)


@pytest.fixture
def log():
    """A logger of the standard library's, registered, whose records propagate to the root."""
    logger = logging.getLogger(NAME)
    logger.setLevel(1)
    yield logger
    logger.handlers[:] = []
    logger.filters[:] = []
    logger.propagate, logger.disabled = True, False
    logger.setLevel(logging.NOTSET)


def fields(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in HEAD}


def texts(events: list[dict[str, Any]]) -> list[Any]:
    return [event["event"] for event in events]


# ---- once, whatever is on the root


def test_a_record_of_any_logger(events, log) -> None:
    """It is one event, with its name, level, message and fields."""
    log.info("hello %s", "you", extra={"user": 7})
    (event,) = events
    assert set(event) == HEAD | {"user"}
    assert (event["event"], event["level"], event["logger"], event["user"]) == ("hello you", "info", NAME, 7)


def test_the_root_loggers_own_record(events) -> None:
    """It is one event with the logger `root`."""
    logging.root.error("mine")
    assert [(event["event"], event["logger"]) for event in events] == [("mine", "root")]


def test_switching_on_again(events, log) -> None:
    """There is still one event a record."""
    capture.start()
    capture.start()
    assert ours_on_root() == 1
    log.info("once")
    assert texts(events) == ["once"]


def test_switching_off(events, log) -> None:
    """Nothing arrives any more, and what stood before is there again."""
    shows = warnings.showwarning
    assert ours_on_root() == 1
    capture.stop()
    log.error("no")
    assert logging.root.parent is None
    assert ours_on_root() == 0
    assert warnings.showwarning is not shows
    capture.stop()
    capture.start()
    log.error("yes")
    assert texts(events) == ["yes"]


def test_a_listener_of_somebody_elses_behind_the_root(events, log) -> None:
    """It stays where it is, also when ours is taken away."""
    theirs = logging.Logger("theirs")  # noqa: LOG001
    for put in (True, False):
        capture.stop()
        if put:
            logging.root.parent = theirs
            capture.start()
        else:
            capture.start()
            listener = logging.root.parent
            assert listener is not None
            listener.parent = theirs
        events.clear()
        log.error("one")
        assert texts(events) == ["one"]
        capture.stop()
        assert logging.root.parent is theirs
        assert theirs.parent is None
        logging.root.parent = None
    capture.start()


def test_the_roots_handlers_are_taken_away_and_its_level_is_changed(events, log) -> None:
    """Records arrive as before (O-STD-3)."""
    logging.root.handlers = []
    logging.root.setLevel(logging.ERROR)
    log.info("still")
    logging.getLogger("fapilog_tests.other").error("too")
    logging.getLogger("fapilog_tests.other").warning("not")
    assert texts(events) == ["still", "too"]


def test_basic_config_after_ours(events, log) -> None:
    """It works as without us, with `force`, too, and not where somebody else has set the root up; ours stays."""
    with bare_root():
        capture.start()
        _basic_configs(events, log)
        logging.basicConfig(level=logging.ERROR)
        assert logging.root.level == logging.INFO
        with pytest.raises(ValueError, match="Unrecognised"):
            logging.basicConfig(force=True, nonsense=1)  # type: ignore[call-overload]
        assert ours_on_root() == 1
    capture.stop()
    assert ours_on_root() == 0
    assert logging.basicConfig.__module__ == "logging"
    assert not hasattr(logging.basicConfig, "__wrapped__")


def ours_on_root() -> int:
    return sum(isinstance(each, HubHandler) for each in logging.root.handlers)


def _basic_configs(events, log) -> None:
    stream = io.StringIO()
    logging.basicConfig(stream=stream, format="%(message)s", level=logging.INFO)
    log.info("one")
    logging.basicConfig(stream=stream, format="again %(message)s", level=logging.INFO, force=True)
    log.info("two")
    assert stream.getvalue() == "one\nagain two\n"
    assert texts(events) == ["one", "two"]


def test_dict_config_with_root_handlers_of_the_users(events, log) -> None:
    """They get their records, and we get ours."""
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"own": {"class": "logging.StreamHandler", "stream": stream}},
            "root": {"level": "INFO", "handlers": ["own"]},
        }
    )
    log.info("one")
    assert stream.getvalue() == "one\n"
    assert texts(events) == ["one"]


@pytest.mark.parametrize("where", ["logger", "root"])
def test_a_handler_of_ours_that_the_user_has_put_somewhere(events, log, where) -> None:
    """The record is one event; what that handler's level leaves is still taken."""
    (log if where == "logger" else logging.root).addHandler(HubHandler(logging.WARNING))
    log.info("low")
    log.error("high")
    assert texts(events) == ["low", "high"]


def test_a_logger_that_does_not_propagate(events, log) -> None:
    """Its records are its own handlers' affair."""
    log.propagate = False
    log.error("not ours")
    assert events == []


def test_a_record_from_elsewhere(events) -> None:
    """Handed to a logger by hand, with another name, it arrives once; without a name or a level nothing is raised."""
    logging.getLogger(NAME).handle(logging.LogRecord("far.away", logging.ERROR, "", 1, "from a socket", (), None))
    logging.getLogger(NAME).handle(logging.makeLogRecord({"msg": "no name", "levelno": 20}))
    assert [(event["event"], event.get("logger")) for event in events] == [("from a socket", "far.away"), ("no name", None)]
    HubHandler().handle(logging.makeLogRecord({"msg": "no level"}))


def test_queue_and_memory_handlers_of_the_users(events, log) -> None:
    """They and their targets get what they get without us, and we get each record once."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, target)
    memory = logging.handlers.MemoryHandler(10, target=target)
    log.addHandler(logging.handlers.QueueHandler(waiting))
    log.addHandler(memory)
    listener.start()
    try:
        try:
            raise ValueError("wrong")
        except ValueError:
            log.exception("failed %d times", 2)
    finally:
        listener.stop()
    memory.close()
    assert stream.getvalue().count("failed 2 times") == 2
    assert texts(events) == ["failed 2 times"]
    assert "exception" in events[0]


def test_pytests_own_caplog(log, caplog) -> None:
    """It sees the records as without us, and its level is its own."""
    with caught_events() as events:
        gates.set(0, {})
        capture.start()
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("fapilog_tests.seen").debug("both")
        log.info("again")
    assert caplog.messages == ["both", "again"]
    assert texts(events) == ["both", "again"]


def test_logging_is_disabled(events, log) -> None:
    """So is what we take."""
    logging.disable(logging.INFO)
    try:
        log.info("no")
        log.warning("yes")
    finally:
        logging.disable(logging.NOTSET)
    assert texts(events) == ["yes"]


# ---- fields and messages


@pytest.mark.parametrize("name", ["name", "args", "filename", "message", "process"])
def test_an_extra_field_that_the_standard_library_keeps_for_itself(events, log, name) -> None:
    """It raises before we see anything, as it does without us (O-STD-1)."""
    with pytest.raises(KeyError):
        log.info("x", extra={name: "theirs"})
    assert events == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *[(name, f"{name}_") for name in ("event", "level", "logger", "timestamp", "pid", "worker", "service", "env", "host")],
        *[(name, f"{name}_") for name in ("boot", "seq")],
        *[(name, name) for name in ("method_name", "msecs_", "stack", "severity")],
    ],
)
def test_an_extra_field_that_others_keep_for_themselves(events, log, name, shown) -> None:
    """Ours wins, and theirs is beside it; what we do not need keeps its name (O-STD-1)."""
    log.info("said", extra={name: "theirs"})
    (event,) = events
    assert event[shown] == "theirs"
    assert (event["event"], event["level"], event["logger"]) == ("said", "info", NAME)


def test_an_extra_field_named_stack_beside_a_stack(events, log) -> None:
    """Both are there."""
    log.info("x", stack_info=True, extra={"stack": "theirs"})
    (event,) = events
    assert "test_an_extra_field_named_stack" in event["stack"]
    assert event["stack_"] == "theirs"


@pytest.mark.parametrize(
    ("msg", "args", "shown"),
    [
        ("50%", (), "50%"),
        ("http://here/a%20b", (), "http://here/a%20b"),
        ("a", ("x",), "a ('x',)"),
        ("%s %s", (1,), "%s %s (1,)"),
        ("%(k)s", ({"k": 1},), "1"),
        ("%d", ("x",), "%d ('x',)"),
    ],
)
def test_percent_signs(events, log, msg, args, shown) -> None:
    """Without arguments text passes unchanged, what does not fit is shown beside it, here and in our own loggers (O-STD-2)."""
    with bare_root():
        log.info(msg, *args)
    fapilog.get_logger(NAME).info(msg, *args)
    assert texts(events) == [shown, shown]


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (15, "debug"), (25, "info"), (35, "warning"), (45, "error"), (99, "critical")],
)
def test_a_level_without_a_name_of_ours(events, log, number, level) -> None:
    """It is shown as the named level below it, and compared with `FAPILOG_LEVEL` as the number that it is."""
    log.log(number, "x")
    assert [event["level"] for event in events] == [level]
    gates.set(number, {})
    log.log(number, "equal")
    gates.set(number + 1, {})
    log.log(number, "below")
    assert texts(events) == ["x", "equal"]


# ---- structlog on top of the standard library


@pytest.fixture
def chained():
    """Return a function that configures structlog with a chain of the user's own on top of the standard library."""

    def configure(*processors: Any) -> Any:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.filter_by_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                *processors,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        return structlog.get_logger(NAME)

    yield configure
    structlog.reset_defaults()


def test_a_chain_that_wraps_for_a_formatter(events, log, chained) -> None:
    """The event comes once, its fields as fields; a handler with structlog's formatter prints it as without us."""
    stream = io.StringIO()
    other = logging.StreamHandler(stream)
    other.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer(sort_keys=True)))
    log.addHandler(other)
    logger = chained(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
    logger.info("paid", amount=3)
    (event,) = events
    assert (event["event"], event["level"], event["logger"]) == ("paid", "info", NAME)
    assert fields(event) == {"amount": 3}
    printed = json.loads(stream.getvalue())
    assert (printed["event"], printed["amount"], printed["timestamp"]) == ("paid", 3, event["timestamp"])


def test_an_exception_in_a_chain_that_wraps_for_a_formatter(events, log, chained) -> None:
    """The event has it."""
    logger = chained(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("failed", order=1)
    (event,) = events
    assert event["order"] == 1
    assert "wrong" in json.dumps(event["exception"])
    assert "exc_info" not in event


def test_a_chain_that_hands_over_keyword_arguments(events, log, chained) -> None:
    """The event comes once, its fields as fields."""
    chained(structlog.stdlib.render_to_log_kwargs).warning("paid", amount=3)
    (event,) = events
    assert (event["event"], event["level"], event["amount"]) == ("paid", "warning", 3)


RENDERERS = [
    structlog.processors.JSONRenderer(),
    structlog.processors.JSONRenderer(serializer=lambda *args, **_: json.dumps(args[0]).encode()),
]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_chain_that_renders_json(events, log, chained, renderer) -> None:
    """The event comes once, its fields as fields."""
    chained(renderer).warning("paid", amount=3, password="s")
    (event,) = events
    assert (event["event"], event["level"], event["logger"]) == ("paid", "warning", NAME)
    assert fields(event) == {"amount": 3, "password": "***"}


@pytest.mark.parametrize("before", [structlog.processors.format_exc_info, structlog.processors.dict_tracebacks])
def test_an_exception_in_a_chain_that_renders_json(events, log, chained, before) -> None:
    """It is in the event once, as an object."""
    try:
        raise ValueError("wrong")
    except ValueError:
        chained(before, structlog.processors.JSONRenderer()).exception("failed", order=1)
    (event,) = events
    assert (event["event"], event["exception"]["type"]) == ("failed", "ValueError")
    assert fields(event).keys() == {"order", "exception"}


def test_a_chain_that_renames_the_event_and_renders_json(events, log, chained) -> None:
    """The renamed event is the event."""
    chained(structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()).info("paid", amount=3)
    (event,) = events
    assert (event["event"], event["amount"]) == ("paid", 3)


@pytest.mark.parametrize("made", ["{}", '{"a": 1}', "{", "[1]", '{"event": null}'])
def test_a_chain_that_renders_something_else(events, log, chained, made) -> None:
    """The event is that text."""
    chained(lambda *_: made).info("paid")
    assert texts(events) == [made]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_text_of_the_users_that_is_a_json_object(events, log, size) -> None:
    """It stays a text: whoever can make a program log a text cannot choose the fields of an event by it."""
    forged = json.dumps({"event": "login", "user": "admin", "pad": "x" * size})
    log.info(forged)
    log.info("%s", forged)
    assert [event["event"][:20] for event in events] == [forged[:20]] * 2
    assert [fields(event) for event in events] == [{}, {}]


def test_a_dict_as_a_message(events, log) -> None:
    """Its entries are fields, without an event it is named by its message or its logger, and the dict stays as it is."""
    given = {"event": "paid", "amount": 3, 5: "five"}
    log.info(given)
    log.info({"amount": 3})
    log.info({"amount": 3, "message": "paid too"})
    log.info({"amount": 3, "message": 5})
    assert fields(events[0]) == {"amount": 3, "5": "five"}
    named = ["paid", NAME, "paid too", NAME]
    assert [(event["event"], event["amount"]) for event in events] == [(name, 3) for name in named]
    assert given == {"event": "paid", "amount": 3, 5: "five"}


class Hostile(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("no")

    items = get


def test_a_dict_that_fights_back(events, log) -> None:
    """There is one event, and nothing is raised."""
    log.info(Hostile(a=1))
    (event,) = events
    assert "no" in event["pipeline_error"]


# ---- warnings


def test_a_warning(events) -> None:
    """It is an event of the logger `py.warnings` that says what and where; nothing is on stderr."""
    warnings.simplefilter("always")
    warnings.warn("take care", DeprecationWarning, stacklevel=1)
    (event,) = events
    assert (event["event"], event["level"], event["logger"]) == ("take care", "warning", "py.warnings")
    assert fields(event)["category"] == "DeprecationWarning"
    assert fields(event)["filename"] == __file__
    assert isinstance(fields(event)["lineno"], int)


def test_a_warning_and_the_levels(events) -> None:
    """A rule for `py.warnings` holds."""
    warnings.simplefilter("always")
    gates.set(20, {"py.warnings": 40})
    warnings.warn("take care", stacklevel=1)
    assert events == []


def test_a_warning_for_a_file_or_on_a_thread_of_ours(events, monkeypatch) -> None:
    """It goes where it goes without us."""
    shown = []
    capture.stop()
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    capture.start()
    warnings.showwarning("to a file", UserWarning, "f.py", 1, io.StringIO())
    warnings.simplefilter("always")
    on_a_thread_of_ours(lambda: warnings.warn("of a sink", stacklevel=1))
    assert shown == ["to a file", "of a sink"]
    assert events == []


def test_a_warning_whose_text_raises(events) -> None:
    """There is one event all the same."""

    class Fights(UserWarning):
        def __str__(self) -> str:
            raise ValueError("no text")

    warnings.showwarning(Fights(), Fights, "f.py", 1)
    assert [event["category"] for event in events] == ["Fights"]


def test_a_handler_of_the_users_and_a_warning(events) -> None:
    """It does not get it, as without us (O-STD-3)."""
    stream = io.StringIO()
    logging.root.addHandler(logging.StreamHandler(stream))
    warnings.simplefilter("always")
    warnings.warn("take care", stacklevel=1)
    assert stream.getvalue() == ""
    assert texts(events) == ["take care"]


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_a_program_that_captures_its_warnings_itself(events, first) -> None:
    """There is one event with the same fields, and switching ours off leaves theirs."""
    capture.stop()
    for who in ("theirs", "ours") if first == "theirs" else ("ours", "theirs"):
        if who == "ours":
            capture.start()
        else:
            logging.captureWarnings(capture=True)
    warnings.simplefilter("always")
    warnings.warn("take care\nof this", stacklevel=1)
    (event,) = events
    assert (event["event"], event["logger"]) == ("take care\nof this", "py.warnings")
    assert (event["category"], event["filename"]) == ("UserWarning", __file__)
    stream = io.StringIO()
    other = logging.StreamHandler(stream)
    logging.root.addHandler(other)
    capture.stop()
    warnings.warn("later", stacklevel=1)
    assert "later" in stream.getvalue()
    assert len(events) == 1


def test_a_program_that_wraps_the_showing_of_warnings(events) -> None:
    """Both see them, however often the capture is switched, and nothing goes in circles."""
    shown: list[int] = []
    capture.stop()
    warnings.showwarning = lambda *_: None
    for turn in range(3):
        before = warnings.showwarning

        @functools.wraps(before)
        def show(*args: Any, turn: int = turn, before: Any = before, **kwargs: Any) -> None:
            shown.append(turn)
            before(*args, **kwargs)

        warnings.showwarning = show
        capture.start()
    warnings.simplefilter("always")
    warnings.warn("on", stacklevel=1)
    assert (texts(events), shown) == (["on"], [])
    capture.stop()
    warnings.warn("off", stacklevel=1)
    assert (texts(events), shown) == (["on"], [2, 1, 0])


def test_warnings_that_somebody_catches(events) -> None:
    """They are not ours, and afterwards ours come again."""
    warnings.simplefilter("always")
    with pytest.warns(UserWarning, match="theirs"):
        warnings.warn("theirs", stacklevel=1)
    warnings.warn("ours", stacklevel=1)
    assert texts(events) == ["ours"]


# ---- uvicorn's access line


def access_line() -> None:
    logging.getLogger("uvicorn.access").log(
        20, '%s - "%s %s HTTP/%s" %d', "127.0.0.1:5000", "GET", "/a%20b?token=SECRET&x=1", "1.1", 200
    )


def test_an_access_line(events, monkeypatch) -> None:
    """Where nobody else saw the request it is an access event, as far as it tells."""
    monkeypatch.setattr(capture._capture, "middleware", False)  # whatever application an earlier test has made here
    logging.getLogger("uvicorn.access").setLevel(20)
    access_line()
    (event,) = events
    assert (event["event"], event["logger"]) == ("request", "fapilog.access")
    assert fields(event) == {"method": "GET", "path": "/a b", "query": "token=***&x=1", "status": 200, "client": "127.0.0.1"}


@pytest.mark.parametrize("why", ["middleware", "setting", "level"])
def test_an_access_line_that_nobody_wants(events, why) -> None:
    """With our middleware, without access events, or below the logger's level there is no event."""
    import fapilog.asgi

    logging.getLogger("uvicorn.access").setLevel(20)
    if why == "middleware":
        fapilog.asgi.FapilogMiddleware(lambda *_: None)  # type: ignore[arg-type]
    elif why == "setting":
        capture.start(access=False)
    else:
        gates.set(20, {"uvicorn.access": 30})
    access_line()
    assert events == []


# ---- what comes out of a delivery


def on_a_thread_of_ours(run: Any) -> None:
    over: Any = native.SimpleQueue()
    native.start_thread(lambda: over.put(run()), "fapilog-test")
    over.get(timeout=30)


def test_a_record_made_on_a_thread_of_ours(events, log, monkeypatch) -> None:
    """It is no event; a warning is noted on stderr; other handlers get it (O-RE-3)."""
    noted: list[str] = []
    monkeypatch.setattr("fapilog.stdlib.note", lambda _kind, message: noted.append(message))
    stream = io.StringIO()
    log.addHandler(logging.StreamHandler(stream))
    on_a_thread_of_ours(lambda: [log.debug("low"), log.warning("high %d", 1)])
    log.info("mine")
    assert texts(events) == ["mine"]
    assert stream.getvalue() == "low\nhigh 1\nmine\n"
    assert len(noted) == 1
    assert NAME in noted[0]
    assert "high 1" in noted[0]


def test_a_record_made_while_write_now_runs(events, log) -> None:
    """It is no event either; before and after it is."""
    log.info("before")
    outside = native.writing_now.set(True)
    log.info("inside")
    native.writing_now.reset(outside)
    log.info("after")
    assert texts(events) == ["before", "after"]


def test_notes_about_records_that_were_cut(events, log, capfd) -> None:
    """There is one, however many records there are."""
    notes.forget()
    on_a_thread_of_ours(lambda: [log.error("again") for _ in range(100)])
    assert capfd.readouterr().err.count("again") == 1


# ---- any moment


def test_records_of_a_signal_handler_and_a_finaliser(events, log) -> None:
    """Each is one event, also where it comes in the middle of another record's (O-RE-1, O-RE-2)."""

    class Loud:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            log.info("finaliser %d", self.number)

        def __str__(self) -> str:
            log.info("text %d", self.number)
            return f"value {self.number}"

    ticks: Any = []
    before = signal.signal(signal.SIGALRM, lambda *_: log.info("signal %d", ticks.append(1) or len(ticks)))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        end = time.monotonic() + 30
        number = 0
        with bare_root():
            while (number < 500 or len(ticks) < 20) and time.monotonic() < end:
                log.info("%s", Loud(number))
                number += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = texts(events)
    assert sum(each.startswith("signal") for each in found) == len(ticks) >= 20
    for kind in ("value", "text", "finaliser"):
        assert [each for each in found if each.startswith(kind)] == [f"{kind} {n}" for n in range(number)]
