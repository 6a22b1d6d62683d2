"""pipeline.py: from the values of a log call to the head of its line."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars

import fapilog
from fapilog import logger as logger_module
from fapilog import pipeline
from fapilog._internal import flat
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.route import route
from fapilog.identity import HUB_FIELDS, Identity
from fapilog.pipeline import emit_dict, head_of
from tests._support import caught_events, strict


@pytest.fixture
def caught():
    with caught_events() as events:
        yield events


@pytest.fixture
def log(caught) -> Any:
    return fapilog.get_logger("app.module")


@pytest.fixture
def processors(caught):
    return logger_module.processors


def test_the_fields_of_a_line(caught) -> None:
    """Their order: timestamp, level, event, logger, the user's, then service, env, host, worker, pid, boot, and seq last."""
    queue = EventQueue(identity=Identity("shop", "prod", "h", 3, 77, "b00t"))
    route.accept = queue.accept
    fapilog.get_logger("a.b", bound=1).info("hello", called=2)
    line = queue.take()[0][0]
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found = strict(line)
    assert list(found) == ["timestamp", "level", "event", "logger", "bound", "called", *HUB_FIELDS]
    assert [found[name] for name in HUB_FIELDS] == ["shop", "prod", "h", 3, 77, "b00t", 1]
    assert (found["level"], found["event"], found["logger"]) == ("info", "hello", "a.b")


def test_an_identity_with_percent_signs_and_quotes(caught) -> None:
    """They are in the line as they are."""
    queue = EventQueue(identity=Identity('50%d "x"', "%s", "h%%", 1, 2, "b"))
    route.accept = queue.accept
    fapilog.get_logger("a").info("100%d")
    found = strict(queue.take()[0][0])
    assert (found["service"], found["env"], found["host"], found["event"]) == ('50%d "x"', "%s", "h%%", "100%d")


@pytest.mark.parametrize(
    ("microsecond", "shown"),
    [(0, "2026-01-02T03:04:05.000000Z"), (7, "2026-01-02T03:04:05.000007Z"), (123456, "2026-01-02T03:04:05.123456Z")],
)
def test_the_timestamp(caught, log, monkeypatch, microsecond: int, shown: str) -> None:
    """RFC 3339 in UTC with six digits of a second and a Z, also when they are all zero, by every entrance."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    monkeypatch.setattr(flat, "clock_ns", lambda: int(moment.timestamp()) * 10**9 + microsecond * 1000 + 999)
    log.info("a")
    log.info("clashing", pid=1)
    emit_dict(None, "info", {"event": "dict"})
    assert [event["timestamp"] for event in caught] == [shown] * 3
    assert strict(pipeline.own_head("own") + b"}")["timestamp"] == shown


def test_a_timestamp_that_the_user_gives_in_our_form(log, caught) -> None:
    """It is taken as the event's time, and nothing is kept twice."""
    log.info("a", timestamp="2020-01-01T00:00:00.000001Z")
    assert caught[0]["timestamp"] == "2020-01-01T00:00:00.000001Z"
    assert "timestamp_" not in caught[0]


@pytest.mark.parametrize("name", ["timestamp", "event", "logger", *HUB_FIELDS])
@pytest.mark.parametrize("own_processor", [False, True])
def test_a_field_with_a_name_of_the_hub(log, caught, processors, name: str, own_processor: bool) -> None:
    """The hub's field wins and the user's value is kept with an underscore added, with and without own processors (O-STD-1)."""
    if own_processor:
        processors.append(lambda _logger, _name, event_dict: event_dict)
    log.info("hello", **{name: "mine"})
    assert caught[0][f"{name}_"] == "mine"
    assert caught[0]["event"] == "hello"
    assert caught[0]["logger"] == "app.module"
    assert caught[0].get(name) != "mine"


def test_a_field_called_level(log, caught) -> None:
    """Another level is kept as level_; one that says the same is no clash (O-STD-1)."""
    log.info("a", level="mine")
    log.info("b", level="info")
    assert (caught[0]["level"], caught[0]["level_"]) == ("info", "mine")
    assert "level_" not in caught[1]


def test_a_clash_whose_new_name_is_taken_too(log, caught) -> None:
    """Both values of the user are kept (O-STD-1)."""
    log.info("a", pid=1, pid_=2)
    assert {caught[0]["pid_"], caught[0]["pid__"]} == {1, 2}


@pytest.mark.parametrize(
    "name", ["name", "args", "filename", "message", "msg", "process", "method_name", "self", "level_", "kwargs"]
)
def test_a_field_with_a_name_of_other_libraries(log, caught, name: str) -> None:
    """It is a field like any other (O-STD-1)."""
    log.info("a", **{name: "mine"})
    assert caught[0][name] == "mine"


def test_contextvars_bound_values_and_call_values(log, caught) -> None:
    """The call's win over the bound ones, which win over the contextvars."""
    bind_contextvars(a="context", b="context", c="context")
    log.bind(b="bound", c="bound").info("x", c="call")
    assert (caught[0]["a"], caught[0]["b"], caught[0]["c"]) == ("context", "bound", "call")
    clear_contextvars()
    log.info("y")
    assert "a" not in caught[1]


def test_a_context_that_is_cleared_right_after_the_call(log, caught) -> None:
    """The event has what was bound when it was made (O-CTX-2)."""
    with bound_contextvars(request_id="r1"):
        log.info("inside")
    log.info("outside")
    assert caught[0]["request_id"] == "r1"
    assert "request_id" not in caught[1]


def test_a_processor_that_drops_the_event(log, caught, processors) -> None:
    """The event counts as filtered and nothing is written."""

    def drop(_logger: Any, _name: str, _event_dict: Any) -> Any:
        raise structlog.DropEvent

    processors.append(drop)
    before = route.filtered
    log.info("a")
    log.info("b")
    assert caught == []
    assert route.filtered == before + 2


def test_a_processor_that_raises(log, caught, processors) -> None:
    """The event goes on through the processors behind it and names the failed one in processor_error."""

    def broken(_logger: Any, _name: str, event_dict: Any) -> Any:
        event_dict["seen"] = True
        raise ValueError("oh no")

    def behind(_logger: Any, _name: str, event_dict: Any) -> Any:
        event_dict["behind"] = True
        return event_dict

    processors.extend([broken, behind])
    log.info("a", x=1)
    assert (caught[0]["event"], caught[0]["x"], caught[0]["seen"], caught[0]["behind"]) == ("a", 1, True, True)
    assert "broken" in caught[0]["processor_error"]
    assert "oh no" in caught[0]["processor_error"]


def test_two_processors_that_raise(log, caught, processors) -> None:
    """Both are named."""

    def first(_logger: Any, _name: str, _event_dict: Any) -> Any:
        raise ValueError("one")

    def second(_logger: Any, _name: str, _event_dict: Any) -> Any:
        raise ValueError("two")

    processors.extend([first, second])
    log.info("a")
    assert "one" in str(caught[0])
    assert "two" in str(caught[0])


def test_a_processor_that_raises_a_baseexception(log, caught, processors) -> None:
    """It passes: BaseExceptions of user code are not ours to swallow."""

    def quits(_logger: Any, _name: str, _event_dict: Any) -> Any:
        raise KeyboardInterrupt

    processors.append(quits)
    with pytest.raises(KeyboardInterrupt):
        log.info("a")


def test_a_processor_that_forgot_its_return(log, caught, processors) -> None:
    """The event goes on with what that processor put into it, and names it in processor_error."""

    def forgetful(_logger: Any, _name: str, event_dict: Any) -> None:
        event_dict["seen"] = True

    def behind(_logger: Any, _name: str, event_dict: Any) -> Any:
        return {**event_dict, "behind": True}

    processors.extend([forgetful, behind])
    log.info("a", x=1)
    assert (caught[0]["event"], caught[0]["x"], caught[0]["seen"], caught[0]["behind"]) == ("a", 1, True, True)
    assert "forgetful: returned None" in caught[0]["processor_error"]


def test_a_processor_whose_name_cannot_be_read(log, caught, processors) -> None:
    """Its error is told all the same."""

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __call__(self, *_: Any) -> None:
            return None

    processors.append(Hostile())
    log.info("a")
    assert caught[0]["event"] == "a"
    assert "a processor: returned None" in caught[0]["processor_error"]


@pytest.mark.parametrize("returned", [None, "rendered", b"bytes", ("a", {}), 7])
def test_a_processor_that_returns_no_dict(log, caught, processors, returned: Any) -> None:
    """What it returned becomes the event text; nothing is raised."""
    processors.append(lambda *_: returned)
    log.info("a", x=1)
    assert len(caught) == 1
    assert "pipeline_error" not in caught[0]


def test_a_users_processor_changes_event_and_fields(log, caught, processors) -> None:
    """The line shows what the processors made of it; the callers dict is not theirs."""
    given = {"secret": "s", "nested": {"a": 1}}

    def change(logger: Any, name: str, event_dict: Any) -> Any:
        del event_dict["secret"]
        event_dict["event"] = f"{logger.name} {name} {event_dict['event']}"
        return event_dict

    processors.append(change)
    log.info("a", **given)
    assert caught[0]["event"] == "app.module info a"
    assert "secret" not in caught[0]
    assert given == {"secret": "s", "nested": {"a": 1}}


def test_structlogs_own_processors_in_the_users_chain(log, caught, processors) -> None:
    """Level and timestamp that they add are no clash."""
    processors.extend([structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)])
    log.warning("a")
    assert not [name for name in caught[0] if name.endswith("_")]


def failing() -> None:
    raise ValueError("bad", 7)


@pytest.mark.parametrize("form", ["true", "instance", "tuple"])
def test_exc_info(log, caught, form: str) -> None:
    """True, an exception and a tuple give the same structure: type, value and frames."""
    try:
        failing()
    except ValueError as error:
        log.error("a", exc_info={"true": True, "instance": error, "tuple": sys.exc_info()}[form])  # noqa: TRY400
    first = caught[0]["exception"]
    assert first["type"] == "ValueError"
    assert "bad" in first["message"]
    assert first["frames"][-1]["function"] == "failing"
    assert "exc_info" not in caught[0]
    assert not any(frame.get("locals") for frame in first["frames"])


def test_exc_info_of_an_exception_that_is_not_being_handled(log, caught) -> None:
    """An exception object speaks for itself, wherever the call is made."""
    log.info("a", exc_info=KeyError("late"))
    assert caught[0]["exception"]["type"] == "KeyError"


@pytest.mark.parametrize("given", [None, False, (), True, (None, None, None)])
def test_exc_info_without_an_exception(log, caught, given: Any) -> None:
    """There is no exception field, and nothing is raised."""
    log.info("a", exc_info=given)
    assert "exception" not in caught[0]
    assert "exc_info" not in caught[0]
    assert "pipeline_error" not in caught[0]


@pytest.mark.parametrize(
    "given", [(1, 2), (ValueError,), ("a", "b", "c"), (ValueError, ValueError("x"), None), "yes", 1, object()]
)
def test_exc_info_of_an_odd_shape(log, caught, given: Any) -> None:
    """The event keeps its other fields."""
    log.info("a", exc_info=given, other=1)
    assert caught[0]["other"] == 1


def test_an_exception_with_a_cause_and_its_own_constructor(log, caught) -> None:
    """The chain is in the line; nothing of the exception has to be copied or sent (O-VAL-5)."""

    class Odd(Exception):
        def __init__(self, a: int, b: Any) -> None:
            super().__init__(a, b)
            self.b = b

    try:
        try:
            failing()
        except ValueError as error:
            raise Odd(1, lambda: None) from error
    except Odd:
        log.exception("a")
    shown = caught[0]["exception"]
    assert (shown["type"].rpartition(".")[2], shown["cause"]["type"]) == ("Odd", "ValueError")


def test_an_exception_whose_str_raises(log, caught) -> None:
    """The event keeps its fields."""

    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    log.error("a", exc_info=Silent(), other=1)
    assert caught[0]["other"] == 1


def test_an_exception_field_beside_exc_info(log, caught) -> None:
    """The user's own value is kept."""
    log.error("a", exc_info=ValueError("x"), exception="mine")
    assert "mine" in str(caught[0])


def test_stack_info(log, caught) -> None:
    """The stack ends at the line that logs, not inside of the logger."""
    log.info("a", stack_info=True)
    assert "stack_info" not in caught[0]
    assert caught[0]["stack"].rstrip().endswith('log.info("a", stack_info=True)')


@pytest.mark.parametrize("value", [object(), 2**70, float("nan"), "\udc80", {1: {2: 3}}, {1, 2}])
def test_values_that_the_fast_encoder_refuses(log, caught, value: Any) -> None:
    """The event is written with all its fields (O-VAL-1)."""
    log.info("a", value=value, other=1)
    assert caught[0]["other"] == 1
    assert "value" in caught[0]


@pytest.mark.parametrize("event", [None, 5, b"bytes", {"a": 1}, ["x"], ValueError("x"), "", "\udc80", object()])
def test_an_event_that_is_no_text(log, caught, event: Any) -> None:
    """It is written in its JSON form."""
    log.info(event, other=1)
    assert caught[0]["other"] == 1
    assert "event" in caught[0]


def test_an_event_that_is_larger_than_the_limit(log, caught) -> None:
    """It is cut to FAPILOG_MAX_EVENT_BYTES with a mark, not dropped."""
    route.max_bytes = 2_000
    log.info("a", value="x" * 10_000)
    assert caught[0]["value"].endswith("...[cut: 10000 bytes]")


def test_a_value_changed_right_after_the_call(log, caught) -> None:
    """The line shows what it was at call time, at every level (O-VAL-4)."""
    value = {"a": [1]}
    log.info("x", value=value)
    value["a"].append(2)
    value["b"] = [3]
    assert caught[0]["value"] == {"a": [1]}


def test_an_event_that_our_own_code_could_not_take(log, caught, monkeypatch) -> None:
    """At least its text is written, as it was, with the error beside it."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(pipeline, "settled", broken)
    log.info("hello", pid=1)
    assert caught[0]["event"] == "hello"
    assert "ours" in caught[0]["pipeline_error"]


def test_an_exception_that_comes_after_the_event_was_taken(log, caught) -> None:
    """A signal handler may raise there: the event is not written a second time (O-RE-2)."""
    taken: list[bytes] = []

    def interrupted(_levelno: int, head: bytes) -> bool:
        taken.append(head)
        if len(taken) == 1:
            raise TimeoutError("by a signal handler")
        return True

    route.accept = interrupted
    log.info("a")
    assert len(taken) == 1


def test_a_queue_that_raises(log, caught) -> None:
    """The log call does not."""

    def broken(_levelno: int, _head: bytes) -> bool:
        raise RuntimeError("queue")

    route.accept = broken
    log.info("a")
    emit_dict(None, "info", {"event": "b"})


def test_a_dict_that_came_from_a_users_own_chain() -> None:
    """Its level decides, its logger and fields are kept, and a clash keeps both values."""
    levelno, head = head_of(
        {"event": "e", "level": "ERROR", "logger": "mine", "pid": 5, "x": 1, "timestamp": "yesterday"}, "info"
    )
    found = strict(head + b"}")
    assert levelno == 40
    assert list(found)[:4] == ["timestamp", "level", "event", "logger"]
    assert (found["level"], found["logger"], found["pid_"], found["x"]) == ("error", "mine", 5, 1)
    assert found["timestamp_"] == "yesterday"
    assert "pid" not in found


def test_a_dict_with_a_logger_that_is_no_text() -> None:
    """The value is kept."""
    assert "77" in head_of({"event": "e", "logger": 77})[1].decode()


def test_a_dict_with_a_level_that_is_none() -> None:
    """The method's level counts and the value is kept."""
    levelno, head = head_of({"event": "e", "level": 35}, "warning")
    found = strict(head + b"}")
    assert (levelno, found["level"], found["level_"]) == (30, "warning", 35)


def test_the_dict_itself() -> None:
    """It is not changed."""
    given = {"event": "e", "level": "info", "pid": 1, "exc_info": ValueError("x"), "nested": {}}
    before = dict(given)
    head_of(given)
    assert given == before


@pytest.mark.parametrize("given", ["rendered text", b"bytes", None, 5])
def test_something_that_is_no_dict_at_the_end_of_a_users_chain(caught, given: Any) -> None:
    """The log call does not raise, and the text is not lost."""
    emit_dict(None, "info", given)
    assert len(caught) == 1


def test_two_very_long_names_that_begin_alike(log, caught) -> None:
    """Both values are in the line, under names that were cut."""
    log.info("e", **{"k" * 5000 + "a": "first", "k" * 5000 + "b": "second"})
    assert {"first", "second"} <= set(caught[0].values())
    assert max(map(len, caught[0])) < 1_100
