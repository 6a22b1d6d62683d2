"""stdlib.py: what becomes of a record of the standard library's logging, and that it stays what it was."""

from __future__ import annotations

import contextlib
import copy
import logging
import logging.config
import sys
import threading
from typing import Any

import pytest

import fapilog
from fapilog._internal.gates import gates
from fapilog._internal.route import route
from fapilog.stdlib import HubHandler, message_of
from tests._support import caught_events, ran_well, read_lines, run_script

HEAD = {"timestamp", "level", "event", "logger"}


@pytest.fixture
def events():
    with caught_events() as found:
        yield found


@pytest.fixture
def log():
    """A logger that nothing but our handler listens to."""
    logger = logging.Logger("some.library", logging.DEBUG)  # noqa: LOG001 - pytest finds those that are registered
    logger.addHandler(HubHandler())
    return logger


def record(msg: Any = "message", *args: Any, name: str = "some.library", level: int = logging.INFO, **attributes: Any) -> Any:
    made = logging.LogRecord(name, level, "file.py", 1, msg, args, None)
    made.__dict__.update(attributes)
    return made


def fields(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in HEAD}


def test_a_record(events, log) -> None:
    """It is an event with its message, level and logger, and nothing that only logging needs."""
    log.info("hello")
    (event,) = events
    assert set(event) == HEAD
    assert (event["event"], event["level"], event["logger"]) == ("hello", "info", "some.library")


@pytest.mark.parametrize(
    ("number", "level"),
    [
        *[(10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "critical")],
        *[(5, "debug"), (1, "debug"), (15, "debug"), (25, "info"), (39, "warning"), (60, "critical"), (1000, "critical")],
    ],
)
def test_the_level_of_a_record(events, number, level) -> None:
    """The named level at or below it; below DEBUG it is DEBUG."""
    gates.set(0, {})
    HubHandler().handle(record(level=number))
    assert [event["level"] for event in events] == [level]


def test_the_level_of_the_handler(events, log) -> None:
    """Records below it are left alone."""
    log.handlers[:] = [HubHandler(logging.WARNING)]
    log.info("no")
    log.warning("yes")
    assert [event["event"] for event in events] == ["yes"]


@pytest.mark.parametrize(
    ("msg", "args", "shown"),
    [
        ("%s and %d", ("a", 2), "a and 2"),
        ("100%", (), "100%"),
        ("100%s", (), "100%s"),
        ("%(a)s-%(b)s", ({"a": 1, "b": 2},), "1-2"),
        ("%s", ({"a": 1},), "{'a': 1}"),
        ("%r", ("é",), "'é'"),
        (("a", "tuple"), (), "('a', 'tuple')"),
        (7, (), "7"),
        (None, (), "None"),
    ],
)
def test_a_message_with_arguments(events, log, msg, args, shown) -> None:
    """Formatted as the standard library does."""
    log.info(msg, *args)
    assert [event["event"] for event in events] == [shown]


UNFIT: list[tuple[str, tuple[Any, ...]]] = [
    *[("%s %s", ("one",)), ("none", ("one", "two")), ("%d", ("text",)), ("%(missing)s", ({"a": 1},)), ("%", ("one",))]
]


@pytest.mark.parametrize(("msg", "args"), UNFIT)
def test_arguments_that_do_not_fit_the_message(events, log, msg, args) -> None:
    """They are shown beside the raw text, and nothing is raised or printed."""
    log.info(msg, *args)
    (event,) = events
    assert msg in event["event"]
    assert str(args if len(args) > 1 or not isinstance(args[0], dict) else args[0]) in event["event"]


@pytest.mark.parametrize(("msg", "args"), [each for each in UNFIT if "missing" not in each[0]])
def test_arguments_that_do_not_fit_here_and_in_a_bound_logger(events, log, msg, args) -> None:
    """Both show the same."""
    log.info(msg, *args)
    fapilog.get_logger("some.library").info(msg, *args)
    assert events[0]["event"] == events[1]["event"]


class Fights:
    def __str__(self) -> str:
        raise ValueError("no text of mine")

    __repr__ = __str__


@pytest.mark.parametrize("make", [lambda: record(Fights()), lambda: record("%s", Fights()), lambda: record("x", extra=Fights())])
def test_a_value_without_a_text(events, make) -> None:
    """There is one event all the same, and nothing is raised."""
    HubHandler().handle(make())
    assert len(events) == 1
    assert isinstance(events[0]["event"], str)


def test_extra_fields(events, log) -> None:
    """They are fields of the event, with their types."""
    log.info("x", extra={"user": 7, "tags": ["a"], "nothing": None, "deep": {"a": 1.5}})
    assert fields(events[0]) == {"user": 7, "tags": ["a"], "nothing": None, "deep": {"a": 1.5}}


@pytest.mark.parametrize("name", ["timestamp", "level", "event", "logger", "pid", "worker", "seq", "service", "boot"])
def test_an_extra_field_whose_name_the_hub_has(events, log, name) -> None:
    """The hub's stays, and the user's is kept under the name with an underscore."""
    log.info("x", extra={name: "theirs"})
    assert events[0][f"{name}_"] == "theirs"
    assert (events[0]["event"], events[0]["logger"], events[0]["level"]) == ("x", "some.library", "info")
    assert events[0].get(name) != "theirs"


def test_an_extra_field_that_uvicorn_makes_for_terminals(events, log) -> None:
    """It is left out."""
    log.info("x", extra={"color_message": "\x1b[1mx"})
    assert fields(events[0]) == {}


@pytest.mark.parametrize("name", ["exc_info", "stack_info"])
def test_an_extra_field_that_the_standard_library_refuses(events, name) -> None:
    """Set by a filter or by hand it is the record's own, and an odd value of it does not raise."""
    for value in ("text", 1, (1, 2), (None, None, None), True, ValueError("v")):
        made = record()
        setattr(made, name, value)
        HubHandler().handle(made)
    assert len(events) == 6


def test_an_exception(events, log) -> None:
    """It is there in the pipeline's form, with its frames."""
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("failed")
    (event,) = events
    assert event["level"] == "error"
    shown = event["exception"]
    assert (shown["type"], shown["message"]) == ("ValueError", "wrong")
    assert shown["frames"][-1]["function"] == "test_an_exception"
    assert "exc_info" not in event


@pytest.mark.parametrize("given", [True, (None, None, None), False, None])
def test_exc_info_without_an_exception(events, log, given) -> None:
    """There is no field for it."""
    log.info("x", exc_info=given)
    assert fields(events[0]) == {}


def test_an_exception_object_as_exc_info(events, log) -> None:
    """It is shown, also outside its except block."""
    log.info("x", exc_info=KeyError("k"))
    assert events[0]["exception"]["type"] == "KeyError"


def test_stack_info(events, log) -> None:
    """It is the field `stack`."""
    log.info("x", stack_info=True)
    assert set(fields(events[0])) == {"stack"}
    assert "test_stack_info" in events[0]["stack"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: record("%s %s", "a"),
        lambda: record("%(a)s", {"a": 1}, user=7, timestamp="theirs"),
        lambda: record("x", exc_info=(ValueError, ValueError("v"), None), stack_info="Stack:\n"),
        lambda: record("x", color_message="c", deep={"a": [1]}),
    ],
)
def test_the_record_afterwards(events, make) -> None:
    """It has the attributes that it had, with the same values."""
    made = make()
    before = copy.copy(made.__dict__)
    deep = copy.deepcopy({name: value for name, value in before.items() if name != "exc_info"})
    HubHandler().handle(made)
    assert made.__dict__ == before
    assert {name: value for name, value in made.__dict__.items() if name != "exc_info"} == deep
    assert list(made.__dict__) == list(before)
    assert len(events) == 1


def test_another_handler_after_ours(events, log) -> None:
    """It gets the record as without us."""
    seen = []

    class Other(logging.Handler):
        def emit(self, made: logging.LogRecord) -> None:
            seen.append((made.msg, made.args, made.getMessage(), hasattr(made, "message"), made.user))  # type: ignore[attr-defined]

    log.addHandler(Other())
    log.info("%s", "a", extra={"user": 7})
    assert seen == [("%s", ("a",), "a", False, 7)]
    assert len(events) == 1


# ---- FAPILOG_LEVEL


@pytest.mark.parametrize(
    ("rules", "obeying", "by_name"),
    [
        ((20, {}), ["info", "error"], ["debug", "info", "error"]),
        ((40, {}), ["error"], ["debug", "info", "error"]),
        ((10, {}), ["debug", "info", "error"], ["debug", "info", "error"]),
        ((20, {"gunicorn.error": 40}), ["error"], ["error"]),
        ((20, {"gunicorn": 40}), ["error"], ["error"]),
        ((40, {"gunicorn.error": 10}), ["debug", "info", "error"], ["debug", "info", "error"]),
        ((20, {"gunicorn": 50, "gunicorn.error": 20}), ["info", "error"], ["info", "error"]),
        ((20, {"gunicorn.erro": 50, "uvicorn": 50}), ["info", "error"], ["debug", "info", "error"]),
    ],
)
def test_the_rules_for_levels(events, rules, obeying, by_name) -> None:
    """A handler obeys them; one that does not, a server's, obeys only a rule that names its logger or one above it."""
    gates.set(*rules)
    for obeys, expected in ((True, obeying), (False, by_name)):
        events.clear()
        handler = HubHandler(obeys=obeys)
        for level in (logging.DEBUG, logging.INFO, logging.ERROR):
            handler.handle(record(name="gunicorn.error", level=level))
        assert [event["level"] for event in events] == expected


def test_a_level_that_is_set_later(events, log) -> None:
    """It holds from then on, for a handler that exists."""
    log.debug("no")
    fapilog.set_level("DEBUG", "some")
    log.debug("yes")
    fapilog.set_level("ERROR", "some.library")
    log.warning("no")
    assert [event["event"] for event in events] == ["yes"]


# ---- filters, locks, closing


def test_a_filter_that_refuses_or_replaces(events) -> None:
    """The record is not logged, or the other one is; `handle()` says which."""
    handler = HubHandler()
    handler.addFilter(lambda made: made.getMessage() != "no")
    assert not handler.handle(record("no"))
    assert handler.handle(record("yes"))
    if sys.version_info >= (3, 12):
        handler.addFilter(lambda _: record("instead"))
        assert handler.handle(record("yes"))
    assert [event["event"] for event in events] == ["yes", "instead"][: 1 + (sys.version_info >= (3, 12))]


def test_the_lock(events) -> None:
    """There is none, also while another thread is inside the handler, or holds the lock of the logging module."""
    handler = HubHandler()
    assert handler.lock is None
    handler.acquire()
    handler.handle(record())
    handler.release()
    inside, go_on = threading.Event(), threading.Event()

    def slow(levelno: int, head: bytes) -> bool:
        inside.set()
        return go_on.wait(30)

    quick, route.accept = route.accept, slow
    thread = threading.Thread(target=handler.handle, args=[record()])
    thread.start()
    assert inside.wait(30)
    route.accept = quick
    with logging._lock:  # type: ignore[attr-defined]
        handler.handle(record("beside it"))
    go_on.set()
    thread.join(30)
    assert [event["event"] for event in events] == ["message", "beside it"]


def test_closing(events, log) -> None:
    """It is harmless: the handler goes on."""
    log.handlers[0].close()
    log.handlers[0].flush()
    log.handlers[0].close()
    log.info("after")
    assert [event["event"] for event in events] == ["after"]


def test_no_exception_comes_out_of_it(events, monkeypatch) -> None:
    """Where the way out of the pipeline raises, the caller does not hear of it."""

    def broken(levelno: int, head: bytes) -> bool:
        raise RuntimeError("broken")

    monkeypatch.setattr(route, "accept", broken)
    assert HubHandler().handle(record())


def test_a_message_that_raises_something_that_is_no_exception() -> None:
    """That passes, as out of any log call."""

    class Interrupts:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        message_of(record(Interrupts()))


@pytest.mark.parametrize("disable", [True, False])
def test_dict_config_of_the_applications_own(tmp_path, disable) -> None:
    """A handler that it does not name goes on where its logger is enabled; one that it makes by name works."""
    code = f"""
    import logging, logging.config, fapilog
    from fapilog.stdlib import HubHandler
    fapilog.configure_logging(sinks=["file"], file_path="out.jsonl")
    before = logging.getLogger("before"); before.setLevel("INFO"); before.propagate = False
    handler = HubHandler(); before.addHandler(handler)
    before.info("one")
    logging.config.dictConfig({{"version": 1, "disable_existing_loggers": {disable},
        "handlers": {{"hub": {{"class": "fapilog.stdlib.HubHandler", "level": "INFO"}},
                      "other": {{"()": "fapilog.stdlib.HubHandler", "obeys": False}}}},
        "loggers": {{"named": {{"level": "DEBUG", "handlers": ["hub"]}},
                    "server": {{"level": "DEBUG", "handlers": ["other"]}}}}}})
    before.disabled = False
    before.info("two")
    logging.getLogger("named").info("three")
    logging.getLogger("named").debug("not")
    logging.getLogger("server").debug("four")
    logging.shutdown()
    before.info("five")
    """
    ran_well(run_script(code, tmp_path))
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["event"] for line in lines] == ["one", "two", "three", "four", "five", "fapilog.closed"]


def test_records_in_a_child_that_was_forked_while_another_thread_logs(tmp_path) -> None:
    """They arrive: nothing that the other thread held at the fork is needed."""
    code = """
    import logging, os, threading, fapilog
    from fapilog.stdlib import HubHandler
    fapilog.configure_logging(sinks=["file"], file_path="out.{pid}.jsonl")
    log = logging.getLogger("x"); log.setLevel("INFO"); log.addHandler(HubHandler()); log.propagate = False
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            log.info("parent")
    thread = threading.Thread(target=busy); thread.start()
    import warnings; warnings.simplefilter("ignore")
    children = []
    for number in range(10):
        pid = os.fork()
        if not pid:
            log.info("child"); fapilog.shutdown_logging(); os._exit(0)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    stop.set(); thread.join(30)
    print(codes == [0] * 10, *children)
    """
    told, *children = ran_well(run_script(code, tmp_path, env={"FAPILOG_QUEUE_SIZE": "1000000"})).split()
    assert told == "True"
    for pid in children:
        assert [line["event"] for line in read_lines(tmp_path / f"out.{pid}.jsonl")] == ["child", "fapilog.closed"]


def test_a_processor_of_the_users(events, log) -> None:
    """It sees the event of a record, too, and may drop it."""
    import structlog

    from fapilog.logger import processors

    def judge(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "no":
            raise structlog.DropEvent
        return {**event, "judged": True}

    with contextlib.ExitStack() as stack:
        stack.callback(processors.clear)
        processors.append(judge)
        log.info("no")
        log.info("yes", extra={"user": 7})
    assert [fields(event) for event in events] == [{"user": 7, "judged": True}]


def test_extra_stacks_beside_stack_info(events, log) -> None:
    """None of the three is lost."""
    log.info("e", stack_info=True, extra={"stack": "mine", "stack_": "mine too"})
    assert {"mine", "mine too"} <= {value for value in events[0].values() if isinstance(value, str)}
    assert "Stack (most recent call last)" in events[0]["stack"]
