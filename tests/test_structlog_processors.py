"""
What structlog's documentation promises of processors, held by those of `configure_logging(processors=...)`.

Each test runs with `structlog.get_logger()` after `configure_logging()`, and with `fapilog.get_logger()`.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
import structlog

from fapilog._internal.route import route
from fapilog.logger import processors as our_processors
from tests import structlog_support
from tests.structlog_support import configure, raised, shown, without_ours

caught, get_logger, log = structlog_support.caught, structlog_support.get_logger, structlog_support.log


# Processors.


def test_a_processor_gets_what_structlog_gives_it(log, caught) -> None:
    """A logger with its name, the name of the level and an event dict of its own with context and event."""
    seen: list[Any] = []

    def processor(logger: Any, method_name: str, event_dict: Any) -> Any:
        seen.append((logger.name, method_name, dict(event_dict)))
        event_dict["added"] = True
        return event_dict

    configure(processor)
    bound = log.bind(x=42)
    bound.warn("some %s", "event", y=23)
    bound.exception("e", exc_info=None)
    assert seen == [
        ("app", "warning", {"x": 42, "y": 23, "event": "some event"}),
        ("app", "error", {"x": 42, "event": "e", "exc_info": None}),
    ]
    assert [event["added"] for event in caught] == [True, True]
    assert structlog.get_context(bound) == {"x": 42}


def test_what_lies_between_two_processors_is_their_own_business(log, caught) -> None:
    """A processor may return anything that its successor takes; only what the last one returns is looked at."""

    def wrap(_logger: Any, _name: str, event_dict: Any) -> Any:
        return [event_dict]

    def unwrap(_logger: Any, _name: str, wrapped: Any) -> Any:
        return {**wrapped[0], "unwrapped": True}

    configure(wrap, unwrap)
    log.info("x", a=1)
    assert (caught[0]["event"], without_ours(caught[0])) == ("x", {"a": 1, "unwrapped": True})


def test_a_processor_that_returns_a_dict_of_its_own(log, caught) -> None:
    """It is left as it is."""
    constant = {"event": "constant", "a": 1}
    configure(lambda _logger, _name, _event_dict: constant)
    log.info("x")
    log.info("x")
    assert [event["event"] for event in caught] == ["constant", "constant"]
    assert constant == {"event": "constant", "a": 1}


def test_drop_event(log, caught) -> None:
    """The event is dropped silently, and counted as filtered."""

    def no_monitoring(_logger: Any, _name: str, event_dict: Any) -> Any:
        if event_dict.get("peer") == "127.0.0.1":
            raise structlog.DropEvent
        return event_dict

    configure(no_monitoring)
    log.info("x", peer="127.0.0.1")
    log.info("x", peer="10.0.0.1")
    assert [event["peer"] for event in caught] == ["10.0.0.1"]
    assert route.filtered == 1


def test_a_processor_that_raises(log, caught) -> None:
    """The event says so; the processors after it run all the same."""

    def broken(_logger: Any, _name: str, _event_dict: Any) -> Any:
        raise RuntimeError("no")

    configure(broken, structlog.processors.add_log_level)
    log.info("x", a=1)
    assert "broken" in caught[0]["processor_error"]
    assert (caught[0]["event"], caught[0]["a"]) == ("x", 1)


def test_add_log_level_and_logger_name(log, caught) -> None:
    """They say what we say, so nothing is doubled; the number of the level is a field."""
    configure(
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level_number,
        structlog.stdlib.PositionalArgumentsFormatter(),
    )
    log.warning("a %s", "b")
    assert (caught[0]["event"], caught[0]["level"], caught[0]["logger"]) == ("a b", "warning", "app")
    assert without_ours(caught[0]) == {"level_number": 30}


def test_filter_by_level(log, caught) -> None:
    """It asks our level."""
    configure(structlog.stdlib.filter_by_level)
    log.setLevel("INFO")
    log.debug("x")
    log.info("y")
    assert [(event["event"], without_ours(event)) for event in caught] == [("y", {})]


@pytest.mark.parametrize(
    ("stamper", "name", "form"),
    [
        (structlog.processors.TimeStamper(fmt="iso", utc=True), None, ""),
        (structlog.processors.TimeStamper(), "timestamp_", r"\d+\.\d+"),
        (structlog.processors.TimeStamper(fmt="iso", utc=False), "timestamp_", r"\d{4}-\d\d-\d\dT[\d:.]+"),
        (structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False), "timestamp_", r"\d{4}-\d\d-\d\d [\d:]+"),
        (structlog.processors.TimeStamper(fmt="%Y", key="year"), "year", r"\d{4}"),
        (structlog.processors.MaybeTimeStamper(), "timestamp_", r"\d+\.\d+"),
    ],
    ids=["iso", "unix", "local", "format", "key", "maybe"],
)
def test_time_stamper(log, caught, stamper: Any, name: str | None, form: str) -> None:
    """In our own form it is the event's time; in another, it is beside ours."""
    configure(stamper)
    log.info("x")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", caught[0]["timestamp"])
    assert set(without_ours(caught[0])) == ({name} if name else set())
    assert name is None or re.fullmatch(form, str(caught[0][name]))


def test_a_timestamp_without_microseconds(log, caught) -> None:
    """`isoformat()` leaves them out when they are zero; the line does not."""
    log.info("x", timestamp="2026-01-02T03:04:05Z")
    assert (caught[0]["timestamp"], without_ours(caught[0])) == ("2026-01-02T03:04:05.000000Z", {})


@pytest.mark.parametrize("method", ["info", "ainfo", "exception", "log", "alog"])
def test_callsite_parameters(log, caught, method: str) -> None:
    """They are those of the code that called the log method."""
    configure(structlog.processors.CallsiteParameterAdder())
    call = getattr(log, method)
    args = (20, "x") if method in {"log", "alog"} else ("x",)

    async def main() -> None:
        await call(*args)

    if method.startswith("a"):
        asyncio.run(main())
    else:
        call(*args)
    function = "main" if method.startswith("a") else "test_callsite_parameters"
    assert (caught[0]["func_name"], caught[0]["module"]) == (function, "test_structlog_processors")
    assert caught[0]["filename"] == "test_structlog_processors.py"
    assert caught[0]["thread_name"] == threading.current_thread().name


def test_callsite_parameters_in_a_thread_without_frames(log, caught) -> None:
    """A log method that is the target of a thread has no caller; the event is whole."""
    import _thread

    configure(structlog.processors.CallsiteParameterAdder())
    done = threading.Event()
    event: dict[str, Any] = {}

    def when_done(_logger: Any, _name: str, event_dict: Any) -> Any:
        event.update(event_dict)
        done.set()
        return event_dict

    our_processors.append(when_done)
    _thread.start_new_thread(log.bind().info, ("x",), {"a": 1})
    assert done.wait(10)
    assert (event["event"], event["a"]) == ("x", 1)


def test_stack_info_renderer(log, caught) -> None:
    """It shows the stack of the caller."""
    configure(structlog.processors.StackInfoRenderer())
    log.info("x", stack_info=True)
    assert caught[0]["stack"].rstrip().endswith('log.info("x", stack_info=True)')


@pytest.mark.parametrize(
    ("renderer", "kind"),
    [
        (structlog.processors.format_exc_info, str),
        (structlog.processors.dict_tracebacks, list),
        (structlog.processors.ExceptionRenderer(), str),
        (structlog.processors.ExceptionRenderer(lambda exc_info: {"kind": exc_info[0].__name__}), dict),
    ],
)
def test_a_users_own_rendering_of_exceptions(log, caught, renderer: Any, kind: type) -> None:
    """It stays as the user's processor made it."""
    configure(renderer)
    log.info("none")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("x")
    assert "exception" not in caught[0]
    assert isinstance(caught[1]["exception"], kind)
    assert "ValueError" in shown(caught[1])


def test_set_exc_info(log, caught) -> None:
    """structlog.dev's processor for `exception()` changes nothing."""
    configure(structlog.dev.set_exc_info)
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("x")
    assert "ValueError" in shown(caught[0])


def test_event_renamer(log, caught) -> None:
    """The event is under its new name too, and what replaces it is the event; a line always has one."""
    configure(structlog.processors.EventRenamer("message"))
    log.info("happened")
    configure(structlog.processors.EventRenamer("message", "_event"))
    log.info("happened", _event="ours")
    assert [(event["event"], event["message"]) for event in caught] == [("happened", "happened"), ("ours", "happened")]
    assert "_event" not in caught[1]


def test_unicode_decoder_and_encoder(log, caught) -> None:
    """Bytes become text, of what the decoder could decode."""
    configure(structlog.processors.UnicodeDecoder())
    log.info("x", a=b"\xc3\xa9")
    configure(structlog.processors.UnicodeEncoder())
    log.info("x", a="\xe9")
    assert [(event["event"], event["a"]) for event in caught] == [("x", "\xe9")] * 2


def test_a_json_renderer_at_the_end(log, caught) -> None:
    """What it rendered is taken apart again, so that its fields are fields."""
    import orjson

    for renderer in (structlog.processors.JSONRenderer(), structlog.processors.JSONRenderer(serializer=orjson.dumps)):
        configure(structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), renderer)
        log.bind(b=2).info("x", a=1)
    assert [(event["event"], without_ours(event)) for event in caught] == [("x", {"a": 1, "b": 2})] * 2


@pytest.mark.parametrize(
    "renderer",
    [structlog.processors.KeyValueRenderer(), structlog.processors.LogfmtRenderer(), structlog.dev.ConsoleRenderer(colors=False)],
)
def test_another_renderer_at_the_end(log, caught, renderer: Any) -> None:
    """Its text is the event; level, logger and time are still ours."""
    configure(renderer)
    log.warning("happened", a=1)
    assert (caught[0]["level"], caught[0]["logger"]) == ("warning", "app")
    assert "happened" in caught[0]["event"]
    assert "a=1" in caught[0]["event"]


@pytest.mark.parametrize("text", ["{", "{}x", '{"a": NaN}', "[1]", "", "{\udc80}", b"\xff"])
def test_a_text_that_is_no_json_object(log, caught, text: Any) -> None:
    """It is the event, and nothing is raised."""
    configure(lambda _logger, _name, _event_dict: text)
    log.info("x")
    assert isinstance(caught[0]["event"], str)
    assert "pipeline_error" not in caught[0]


@pytest.mark.parametrize(
    "renderer",
    [
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        structlog.stdlib.render_to_log_args_and_kwargs,
        structlog.stdlib.render_to_log_kwargs,
    ],
    ids=["wrap_for_formatter", "render_to_log_args_and_kwargs", "render_to_log_kwargs"],
)
def test_renderers_for_the_standard_library_at_the_end(log, caught, renderer: Any) -> None:
    """What they make into arguments of a call becomes event and fields again."""
    configure(renderer)
    log.info("x", a=1, exc_info=raised())
    assert caught[0]["event"] == "x"
    assert caught[0]["a"] == 1
    assert "ValueError" in shown(caught[0])
    assert set(without_ours(caught[0])) == {"a", "exception"}


@pytest.mark.parametrize("odd", [(), (1,), (1, 2, 3), ((), 5), (("x",), {1: 2}), 5, None, [1], object()])
def test_a_processor_that_returns_nonsense(log, caught, odd: Any) -> None:
    """The event goes out all the same."""
    configure(lambda _logger, _name, _event_dict: odd)
    log.info("x")
    assert len(caught) == 1


def test_fine_grained_filtering(log, caught) -> None:
    """The recipe: a processor behind `CallsiteParameterAdder` drops what one function logs."""

    def filter_f(_logger: Any, _name: str, event_dict: Any) -> Any:
        if event_dict.get("func_name") == "f":
            raise structlog.DropEvent
        return event_dict

    configure(structlog.processors.CallsiteParameterAdder([structlog.processors.CallsiteParameter.FUNC_NAME]), filter_f)

    def f() -> None:
        log.info("f called")

    def g() -> None:
        log.info("g called")

    f()
    g()
    assert [(event["event"], event["func_name"]) for event in caught] == [("g called", "g")]
