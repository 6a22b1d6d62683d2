"""
What structlog's documentation promises of wrapper classes, of testing and of caching, held by ours.

Each test runs with `structlog.get_logger()` after `configure_logging()`, and with `fapilog.get_logger()`.
"""

from __future__ import annotations

import asyncio
import collections
import io
import json
import logging
import multiprocessing
import pickle
import sys
from typing import Any

import pytest
import structlog

import fapilog
from fapilog._internal.route import route
from fapilog.logger import processors as our_processors
from tests import structlog_support, typing_promises
from tests._support import caught_events, only_matrix, ran_well, read_lines, run_script, strict
from tests.structlog_support import LEVELS, configure, copies, shown, without_ours

caught, get_logger, log = structlog_support.caught, structlog_support.get_logger, structlog_support.log


# Wrapper classes, context classes, other loggers.


class Shop(fapilog.FapilogLogger):
    """A wrapper class of the user's own, on ours."""

    def sold(self, what: str, **fields: Any) -> None:
        self.info("sold", what=what, **fields)

    def user_error(self, event: str, **fields: Any) -> Any:
        return self._proxy_to_logger("info", event, status="user_error", **fields)


class SemanticLogger(structlog.BoundLoggerBase):
    """The one of structlog's documentation."""

    def info(self, event: str, **kw: Any) -> Any:
        if "status" not in kw:
            return self._proxy_to_logger("info", event, status="ok", **kw)
        return self._proxy_to_logger("info", event, **kw)

    def user_error(self, event: str, **kw: Any) -> Any:
        self.info(event, status="user_error", **kw)


def test_a_subclass_of_ours(caught) -> None:
    """Its own methods work, binding keeps the type, and another `configure_logging()` leaves it in place."""
    structlog.configure(wrapper_class=Shop)
    configure(structlog.processors.add_log_level)
    log = structlog.get_logger("shop").bind(a=1)
    log.sold("towel", b=2)
    log.bind(c=3).user_error("forgot")
    assert type(log.unbind("a")) is Shop
    assert [(event["event"], without_ours(event)) for event in caught] == [
        ("sold", {"a": 1, "what": "towel", "b": 2}),
        ("forgot", {"a": 1, "c": 3, "status": "user_error"}),
    ]


def test_a_wrapper_class_from_before_configure_logging() -> None:
    """A class of the user's own stays, a class of structlog's gives way to ours."""
    for before, after in ((SemanticLogger, SemanticLogger), (Shop, Shop), (structlog.BoundLogger, fapilog.FapilogLogger)):
        with caught_events():
            structlog.configure(wrapper_class=before)
            fapilog.configure_logging()
            assert structlog.get_config()["wrapper_class"] is after


@pytest.mark.parametrize("feeding", [False, True], ids=["our chain", "a chain that ends in queue_sink"])
@pytest.mark.parametrize(
    "wrapper",
    [SemanticLogger, structlog.BoundLogger, structlog.stdlib.BoundLogger, structlog.make_filtering_bound_logger(20), Shop],
    ids=["BoundLoggerBase", "BoundLogger", "stdlib.BoundLogger", "filtering", "FapilogLogger"],
)
def test_wrapper_classes(caught, wrapper: Any, feeding: bool) -> None:
    """Whichever wrapper class structlog is told to use after `configure_logging()`, its events arrive once and whole."""
    chain = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, fapilog.queue_sink]
    structlog.configure(wrapper_class=wrapper, processors=chain if feeding else None)
    structlog.contextvars.bind_contextvars(c=3)
    log = structlog.get_logger("app", a=1).bind(b=2)
    log.info("x", d=4)
    status = {"status": "ok"} if wrapper is SemanticLogger else {}
    assert [(event["level"], event["logger"], event["event"], without_ours(event)) for event in caught] == [
        ("info", "app", "x", {"a": 1, "b": 2, "c": 3, "d": 4, **status})
    ]
    assert route.filtered == 0


@pytest.mark.parametrize(
    "fields", [{"extra": {"event": "e"}}, {"extra": 1}, {"msg": "m"}, {"msg": "m", "extra": {"a": 1}}, {"args": (1,)}]
)
def test_fields_of_a_wrapper_class_with_names_of_calls(caught, fields: dict[str, Any]) -> None:
    """They are fields like others (O-STD-1)."""
    structlog.configure(wrapper_class=structlog.BoundLogger)
    structlog.get_logger("app").info("x", **fields)
    assert (caught[0]["event"], without_ours(caught[0])) == ("x", strict(json.dumps(fields)))


def test_the_standard_librarys_wrapper_class(caught) -> None:
    """`structlog.stdlib.BoundLogger` finds in our logger what it expects of the standard library's."""
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger)
    log = structlog.stdlib.get_logger("app")
    log.info("%s and %s", "a", "b")
    log.warning("50%")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed", x=1)
    log.log(logging.CRITICAL, "worst")
    asyncio.run(log.ainfo("async", x=1))
    log.setLevel(logging.ERROR)
    log.warning("not this")
    assert (log.name, log.level, log.isEnabledFor(30), log.getEffectiveLevel(), log.disabled) == ("app", 40, False, 40, False)
    assert [(event["level"], event["event"]) for event in caught] == [
        ("info", "a and b"),
        ("warning", "50%"),
        ("error", "failed"),
        ("critical", "worst"),
        ("info", "async"),
    ]
    assert "ValueError" in shown(caught[2])
    assert "positional_args" not in caught[0]


def test_every_method_that_a_wrapper_class_may_call(caught) -> None:
    """The wrapped logger has those of the standard library's and of structlog's own."""
    structlog.configure(wrapper_class=structlog.BoundLogger)
    log = structlog.get_logger("app")
    for name in [*LEVELS, "warn", "err", "msg", "fatal", "exception"]:
        getattr(log, name)("x", n=1)
    log.bind()._logger.log(30, "x", n=1)
    assert [event["level"] for event in caught] == [*LEVELS, "warning", "error", "info", "critical", "error", "warning"]
    assert all((event["event"], event["n"]) == ("x", 1) for event in caught)


class OwnContext(dict):
    """A context class of the user's own."""


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, OwnContext])
def test_a_context_class(caught, kind: type) -> None:
    """The context is of the class that structlog is told to use, through all changes."""
    structlog.configure(context_class=kind)
    fapilog.configure_logging(level="DEBUG", service="other")
    log = structlog.get_logger("app", a=1).bind(b=2)
    for each in (log, log.unbind("a"), log.new(c=3), *copies(log)):
        assert type(structlog.get_context(each)) is kind
    log.info("x")
    assert without_ours(caught[0]) == {"a": 1, "b": 2}


def test_wrap_logger(caught) -> None:
    """Another library's logger, Celery's for example, is wrapped: its events come under its name."""
    log = structlog.wrap_logger(logging.getLogger("celery.task"), a=1)
    log.bind(b=2).info("x %s", 1)
    assert [(event["logger"], event["event"], without_ours(event)) for event in caught] == [
        ("celery.task", "x 1", {"a": 1, "b": 2})
    ]


def test_wrap_logger_without_a_name(caught) -> None:
    """Its events come under the name of the calling module."""
    structlog.wrap_logger(object()).info("x")
    assert caught[0]["logger"] == __name__


def test_wrap_logger_with_processors_of_ones_own(caught) -> None:
    """Then the logger is the output, as structlog has it."""
    out = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(out), processors=[structlog.processors.KeyValueRenderer(sort_keys=True)])
    log.bind(a=1).info("x %s", 1, b=2)
    log.exception("y")  # noqa: LOG004
    assert out.getvalue() == "a=1 b=2 event='x 1'\nevent='y' exc_info=True\n"
    assert caught == []
    assert route.filtered == 0


def test_wrap_logger_with_a_wrapper_class_of_structlogs(caught) -> None:
    """The page's example: everything is structlog's then."""
    out: list[Any] = []

    class CustomPrintLogger:
        def msg(self, message: str) -> None:
            out.append(message)

    def proc(_logger: Any, _name: str, event_dict: Any) -> str:
        return repr(event_dict)

    log = structlog.wrap_logger(CustomPrintLogger(), wrapper_class=structlog.BoundLogger, processors=[proc])
    log2 = log.bind(x=42)
    assert log != log2
    log.msg("hello world")
    log2.msg("hello world")
    assert out == ["{'event': 'hello world'}", "{'x': 42, 'event': 'hello world'}"]
    assert log == log2.unbind("x")


@pytest.mark.parametrize(
    ("last", "call"),
    [
        (lambda _logger, _name, event_dict: event_dict, ((), {"event": "x", "a": 1})),
        (lambda _logger, _name, event_dict: (("text",), event_dict), (("text",), {"event": "x", "a": 1})),
        (lambda _logger, _name, _event_dict: b"text", ((b"text",), {})),
    ],
    ids=["dict", "args and kwargs", "bytes"],
)
def test_what_a_wrapped_logger_gets(caught, last: Any, call: Any) -> None:
    """A text, keywords, or arguments and keywords, as the last processor has it."""
    logger = structlog.testing.CapturingLogger()
    structlog.wrap_logger(logger, processors=[last]).warning("x", a=1)
    assert logger.calls == [("warning", *call)]
    assert caught == []


def test_a_wrapped_logger_that_fails(caught) -> None:
    """The log call does not raise; the event comes to us instead and says why."""
    structlog.wrap_logger(object(), processors=[structlog.processors.add_log_level]).info("x", a=1)
    assert (caught[0]["event"], caught[0]["a"]) == ("x", 1)
    assert "output" in caught[0]["processor_error"]


# Testing.


def test_capture_logs(get_logger, caught) -> None:
    """The events of all loggers, cached and bound ones too, are captured and come nowhere else; afterwards all is as before."""
    cached = get_logger("app")
    bound = cached.bind(x="y")
    cached.info("before")
    with structlog.testing.capture_logs() as captured:
        bound.info("hello")
        cached.warn("hello")
        get_logger("other").exception("hello", exc_info=None)
    bound.info("after")
    assert captured == [
        {"x": "y", "event": "hello", "log_level": "info"},
        {"event": "hello", "log_level": "warning"},
        {"event": "hello", "log_level": "error", "exc_info": None},
    ]
    assert [event["event"] for event in caught] == ["before", "after"]
    assert our_processors == []


def test_capture_logs_with_processors(log, caught) -> None:
    """Those given to it run before the capture, the user's own do not, and they are back afterwards."""
    configure(structlog.processors.EventRenamer("message"))
    with structlog.testing.capture_logs(processors=[structlog.processors.add_log_level]) as captured:
        log.info("hello")
    log.info("after")
    assert captured == [{"event": "hello", "level": "info", "log_level": "info"}]
    assert [event["message"] for event in caught] == ["after"]


def test_log_capture_as_the_only_processor(caught) -> None:
    """The documented fixture: new loggers of structlog's log into it."""
    log_output = structlog.testing.LogCapture()
    structlog.configure(processors=[log_output])
    structlog.get_logger("app").bind(x=1).info("hello")
    assert log_output.entries == [{"x": 1, "event": "hello", "log_level": "info"}]
    assert caught == []


def test_a_capturing_logger_factory(caught) -> None:
    """The documented use: the rendered text arrives at the capturing logger."""
    cf = structlog.testing.CapturingLoggerFactory()
    structlog.configure(logger_factory=cf, processors=[structlog.processors.JSONRenderer()])
    structlog.get_logger().info("test!")
    assert cf.logger.calls == [("info", ('{"event": "test!"}',), {})]
    assert caught == []


# Performance: caching, and what is said to be lost by it.


def test_configure_logging_again_with_cached_loggers(log, caught) -> None:
    """Unlike structlog's, our cached loggers follow: new processors and levels hold for them."""
    log.info("one")
    bound = log.bind(a=1)
    fapilog.configure_logging(level="WARNING", processors=[structlog.processors.EventRenamer("message")])
    for each in (log, bound):
        each.info("two")
        each.warning("three")
    assert [(event["event"], event.get("message")) for event in caught] == [("one", None), *[("three", "three")] * 2]


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_pickling_and_copying(get_logger, caught, used: bool) -> None:
    """Loggers and proxies, cached or not, arrive with name and values; binding on a copy leaves the original alone (O-VAL-5)."""
    log = get_logger("app", a=1)
    if used:
        log.info("used")
        caught.clear()
    for original in (log, log.bind(b=2)):
        for each in copies(original):
            each.bind(c=3).info("copy")
            assert "c" not in structlog.get_context(original)
    assert [(event["logger"], event["a"], event.get("b"), event["c"]) for event in caught] == [
        *[("app", 1, None, 3)] * 6,
        *[("app", 1, 2, 3)] * 6,
    ]


def test_copies_follow_a_new_configuration(get_logger, caught) -> None:
    """They belong to our processors, not to a copy of them."""
    configure(structlog.processors.add_log_level)
    made = copies(get_logger("app").bind(a=1))
    configure(structlog.processors.EventRenamer("message"))
    for each in made:
        each.info("x")
    assert [event["message"] for event in caught] == ["x"] * 6


def test_pickling_keeps_the_class_and_processors_of_ones_own(caught) -> None:
    """A subclass comes back as itself, a chain of the user's own with its logger."""
    structlog.configure(wrapper_class=Shop)
    for each in copies(structlog.get_logger("shop", a=1).bind(b=2)):
        assert type(each) is Shop
        each.sold("towel")
    assert [event["what"] for event in caught] == ["towel"] * 6
    log = structlog.wrap_logger(logging.getLogger("own"), processors=[structlog.stdlib.add_logger_name, fapilog.queue_sink])
    caught.clear()
    for each in copies(log.bind(a=1)):
        each.info("x")
    assert [(event["logger"], event["a"]) for event in caught] == [("own", 1)] * 6


def test_pickling_a_cached_proxy_of_another_configuration() -> None:
    """Where structlog is configured otherwise, a proxy is pickled as one, without what is cached."""
    with caught_events():
        fapilog.configure_logging()
        structlog.configure(
            processors=[structlog.processors.KeyValueRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=structlog.testing.CapturingLoggerFactory(),
            cache_logger_on_first_use=True,
        )
        log = structlog.get_logger(a=1)
        log.info("x")
        again = pickle.loads(pickle.dumps(log))
        assert type(again) is type(log)
        again.info("y")
        assert len(structlog.get_config()["logger_factory"].logger.calls) == 2


@pytest.mark.parametrize("method", [only_matrix("spawn"), "forkserver"])
@pytest.mark.skipif(sys.platform == "win32", reason="spawn is covered by the script itself")
def test_an_object_with_loggers_in_a_child_process(tmp_path, method: str) -> None:
    """It logs there into the child's own sink, with its bound values, from loggers used before and unused ones (O-VAL-5)."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this platform")
    (tmp_path / "service.py").write_text(
        """
import fapilog, structlog

class Service:
    def __init__(self):
        self.ours = fapilog.get_logger("ours", a=1)
        self.bound = structlog.get_logger("bound").bind(a=1)
        self.cached = structlog.get_logger("cached", a=1)
        self.nameless = structlog.get_logger(a=1)
        self.unused = structlog.get_logger("unused", a=1)
        self.unused_nameless = structlog.get_logger(a=1)

    def use(self, where):
        for log in (self.ours, self.bound, self.cached, self.nameless):
            log.info(where)

    def run(self):
        self.use("child")
        for log in (self.unused, self.unused_nameless):
            log.info("child")
"""
    )
    (tmp_path / "main.py").write_text(
        f"""
import multiprocessing, fapilog
from service import Service

if __name__ == "__main__":
    fapilog.configure_logging()
    service = Service()
    service.use("parent")
    process = multiprocessing.get_context({method!r}).Process(target=service.run)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode
"""
    )
    ran_well(
        run_script(
            "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('main.py', run_name='__main__')",
            tmp_path,
            env={"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "{pid}.jsonl"},
        )
    )
    files = [read_lines(path) for path in tmp_path.glob("*.jsonl")]
    lives = {lines[0]["event"]: [line for line in lines if line["event"] in {"parent", "child"}] for lines in files}
    names = ["ours", "bound", "cached", "service"]
    assert [(line["logger"], line["a"]) for line in lives["parent"]] == [(name, 1) for name in names]
    assert [(line["logger"], line["a"]) for line in lives["child"]] == [(name, 1) for name in (*names, "unused", "service")]


# Typing.


def test_the_types_that_mypy_has_checked(caught) -> None:
    """The module that mypy checks as a user's code runs, too."""
    typing_promises.use_everything()
    assert {event["event"] for event in caught} == {"typed"}
