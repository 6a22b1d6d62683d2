"""
What structlog's documentation promises of a bound logger, held by ours: its methods, its context, its exceptions.

Each test runs with `structlog.get_logger()` after `configure_logging()`, and with `fapilog.get_logger()`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

import fapilog
from tests import structlog_support
from tests.structlog_support import LEVELS, configure, raised, shown, without_ours

caught, get_logger, log = structlog_support.caught, structlog_support.get_logger, structlog_support.log


# Bound loggers.


def test_a_bound_logger_is_bindable(log) -> None:
    """`isinstance(log, BindableLogger)`, of the proxy and of what it binds."""
    assert isinstance(log, structlog.typing.BindableLogger)
    assert isinstance(log.bind(), structlog.typing.BindableLogger)


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.bind(b=2),
        lambda log: log.bind(a=9),
        lambda log: log.unbind("a"),
        lambda log: log.try_unbind("a", "nothing"),
        lambda log: log.new(),
        lambda log: log.new(c=3),
    ],
)
def test_no_change_changes_the_logger(get_logger, caught, change: Any) -> None:
    """The original is never changed: another one comes out, of the same type."""
    log = get_logger("app", a=1).bind()
    other = change(log)
    assert other is not log
    assert type(other) is type(log) is fapilog.FapilogLogger
    log.info("x")
    assert structlog.get_context(log) == {"a": 1}
    assert without_ours(caught[0]) == {"a": 1}


def test_bind_unbind_try_unbind_and_new(get_logger, caught) -> None:
    """More, less or other values; `unbind` of a key that is not there is a KeyError, `try_unbind` ignores it."""
    log = get_logger("app", a=1).bind(b=2)
    for each in (log.bind(a=0, c=3), log.unbind("a", "b"), log.try_unbind("b", "nothing"), log.new(c=3)):
        each.info("x")
    assert [without_ours(event) for event in caught] == [{"a": 0, "b": 2, "c": 3}, {}, {"a": 1}, {"c": 3}]
    with pytest.raises(KeyError, match="nothing"):
        log.unbind("nothing")


def test_binding_on_the_lazy_proxy(get_logger, caught) -> None:
    """Each of the four makes a bound logger of it; its initial values are in every event."""
    log = get_logger("app", a=1)
    for each in (log, log.bind(b=2), log.try_unbind("a"), log.unbind("a")):
        each.info("x")
    assert [without_ours(event) for event in caught] == [{"a": 1}, {"a": 1, "b": 2}, {}, {}]


def test_get_context(get_logger) -> None:
    """It is the logger's own, not a copy; with `get_merged_contextvars`, those of the context beside it."""
    log = get_logger("app", a=1).bind(b=2)
    assert structlog.get_context(log) is log._context
    assert structlog.get_context(get_logger("app", a=1)) == {"a": 1}
    structlog.contextvars.bind_contextvars(a=0, c=3)
    assert structlog.contextvars.get_merged_contextvars(log) == {"a": 1, "b": 2, "c": 3}


def test_equality(log) -> None:
    """Bound loggers are equal when their contexts are."""
    assert log.bind(a=1) == log.bind(a=1)
    assert log.bind(a=1) != log.bind(a=2)
    assert log.bind(a=1).unbind("a") == log.bind()
    assert "a" in repr(log.bind(a=1))


def test_the_order_of_call_bound_and_context_values(get_logger, caught) -> None:
    """The call's own win over bound ones, these over those of the context."""
    structlog.contextvars.bind_contextvars(a=0, b=0, c=0)
    get_logger("app").bind(a=1, b=1).info("x", a=2)
    assert without_ours(caught[0]) == {"a": 2, "b": 1, "c": 0}


@pytest.mark.parametrize("method", [*LEVELS, "warn", "msg", "fatal", "exception"])
def test_all_methods_and_their_async_twins(log, caught, method: str) -> None:
    """They interpolate positional arguments, take fields, return None, and log at their level."""
    level = {"warn": "warning", "msg": "info", "fatal": "critical", "exception": "error"}.get(method, method)
    assert getattr(log, method)("a %s", "b", x=1) is None
    assert asyncio.run(getattr(log, f"a{method}")("a %s", "b", x=1)) is None
    assert [(event["level"], event["event"], event["x"]) for event in caught] == [(level, "a b", 1)] * 2


def test_log_and_alog(log, caught) -> None:
    """The level is a number, positional or by name, and so is the event."""
    log.log(logging.WARNING, "a %s", "b", x=1)
    log.log(logging.WARNING, event="a b", x=1)
    log.log(level=logging.WARNING, event="a b", x=1)
    asyncio.run(log.alog(logging.WARNING, "a %s", "b", x=1))
    asyncio.run(log.alog(level=logging.WARNING, event="a b", x=1))
    assert [(event["level"], event["event"], event["x"]) for event in caught] == [("warning", "a b", 1)] * 5


@pytest.mark.parametrize(
    ("event", "args", "shown"),
    [
        ("50%", (), "50%"),
        ("https://host/a%20b?q=%s", (), "https://host/a%20b?q=%s"),
        ("a", ("x",), "a ('x',)"),
        ("%s %s", (1,), "%s %s (1,)"),
        ("%(k)s", ({"k": 1},), "1"),
        ("%d", ("x",), "%d ('x',)"),
        ("%s", ({},), "{}"),
        ("%s and %r", ("a", "b"), "a and 'b'"),
        ("%%", (), "%%"),
        ("%s", ((1, 2),), "(1, 2)"),
    ],
)
def test_percent_signs(log, caught, event: str, args: tuple[Any, ...], shown: str) -> None:
    """Text without arguments is untouched; what does not fit is shown raw with its arguments (O-STD-2)."""
    log.info(event, *args)
    asyncio.run(log.ainfo(event, *args))
    assert [event["event"] for event in caught] == [shown] * 2


def test_levels(log, caught) -> None:
    """`is_enabled_for` and `get_effective_level`, also in the standard library's spelling, follow the level as it is now."""
    fapilog.set_level("WARNING", "app")
    assert [log.is_enabled_for(number) for number in (10, 20, 30, 40)] == [False, False, True, True]
    assert [log.isEnabledFor(number) for number in (10, 20, 30, 40)] == [False, False, True, True]
    assert (log.get_effective_level(), log.getEffectiveLevel()) == (30, 30)
    log.info("no")
    log.setLevel("debug")
    log.debug("yes")
    log.setLevel(logging.ERROR)
    log.warning("no")
    with pytest.raises(ValueError, match="loud"):
        log.setLevel("loud")
    assert [event["event"] for event in caught] == ["yes"]
    assert log.name == "app"


# Names of fields that somebody keeps for himself.

RESERVED = [
    *("name", "args", "filename", "message", "process", "level", "event", "method_name"),
    *("self", "logger", "msg", "stack_info", "timestamp", "pid", "worker", "seq"),
    *("boot", "host", "service", "env", "positional_args", "fields", "processors", "context"),
    *("_context", "module", "lineno", "funcName", "extra", "stacklevel"),
]
OURS = {"level", "event", "logger", "timestamp", "stack_info", "pid", "worker", "seq", "boot", "host", "service", "env"}


def found_under(name: str, event: dict[str, Any]) -> Any:
    return event[f"{name}_"] if name in OURS else event[name]


WAYS = {
    "call": lambda get, name: get("app").info("x", **{name: "mine"}),
    "bind": lambda get, name: get("app").bind().bind(**{name: "mine"}).info("x"),
    "new": lambda get, name: get("app").bind().new(**{name: "mine"}).info("x"),
    "async": lambda get, name: asyncio.run(get("app").ainfo("x", **{name: "mine"})),
    "log": lambda get, name: get("app").log(20, "x", **{name: "mine"}),
}


SAME = [lambda _logger, _name, event_dict: event_dict]


@pytest.mark.parametrize("chain", [[], SAME], ids=["no processors", "processors"])
@pytest.mark.parametrize("way", WAYS)
def test_a_reserved_name_of_a_field(get_logger, caught, way: str, chain: list[Any]) -> None:
    """The hub's own value stays and the user's is under the name with `_` added; names that are only somebody else's are kept
    as they are (O-STD-1).
    """
    configure(*chain)
    for name in RESERVED:
        WAYS[way](get_logger, name)
        event = caught.pop()
        assert (event["event"], event["logger"], event["level"]) == ("x", "app", "info")
        assert (name, found_under(name, event)) == (name, "mine")


def test_a_reserved_name_in_the_context(log, caught) -> None:
    """The same for values of the context (O-STD-1)."""
    for name in RESERVED:
        with structlog.contextvars.bound_contextvars(**{name: "mine"}):
            log.info("x")
        event = caught.pop()
        assert (name, event["event"], found_under(name, event)) == (name, "x", "mine")


def test_a_reserved_name_of_an_initial_value(caught) -> None:
    """The same for initial values of `fapilog.get_logger()` (O-STD-1)."""
    for name in RESERVED:
        fapilog.get_logger("app", **{name: "mine"}).info("x")
        event = caught.pop()
        assert (name, event["event"], event["logger"], found_under(name, event)) == (name, "x", "app", "mine")


def test_a_reserved_name_of_an_initial_value_of_structlog(caught) -> None:
    """The same for those of `structlog.get_logger()`, but for the names that it takes for parameters of its own (O-STD-1)."""
    parameters_of_wrap_logger = {"logger", "processors"}
    for name in set(RESERVED) - parameters_of_wrap_logger:
        structlog.get_logger("app", **{name: "mine"}).info("x")
        event = caught.pop()
        assert (name, event["event"], found_under(name, event)) == (name, "x", "mine")


@pytest.mark.parametrize("chain", [[], SAME], ids=["no processors", "processors"])
def test_a_name_and_the_name_it_would_give_way_to(log, caught, chain: list[Any]) -> None:
    """Both values are kept, however often `_` must be added (O-STD-1)."""
    configure(*chain)
    log.bind(pid_=2).info("x", event="a", event_="b", pid=1, level="c", level_="d", level__="e")
    assert without_ours(caught[0]) == {
        "event_": "b",
        "event__": "a",
        "pid_": 2,
        "pid__": 1,
        "level_": "d",
        "level__": "e",
        "level___": "c",
    }


def test_a_reserved_name_with_an_odd_value(log, caught) -> None:
    """Nothing is raised and the event is whole."""
    configure(*SAME)
    for name in ["level", "timestamp", "logger", "event", "positional_args", "stack_info"]:
        for value in ([1, 2], {"a": 1}, 5, None, True, object()):
            log.info("x", other=1, **{name: value})
            event = caught.pop()
            assert (event["event"], event["other"]) == ("x", 1)
            assert "pipeline_error" not in event


def test_get_logger_by_the_name_of_its_parameter(caught) -> None:
    """`fapilog.get_logger(name="a")` is the logger a; beside a positional name it is a field."""
    fapilog.get_logger(name="a").info("x")
    fapilog.get_logger("b", name="c").info("x")
    assert [(event["logger"], event.get("name")) for event in caught] == [("a", None), ("b", "c")]


# Context variables.


def test_the_flow_of_context_variables(log, caught) -> None:
    """clear, bind, unbind, bound (as context manager and decorator), reset by token: as the page's example shows."""
    from structlog.contextvars import (
        bind_contextvars,
        bound_contextvars,
        clear_contextvars,
        reset_contextvars,
        unbind_contextvars,
    )

    clear_contextvars()
    bind_contextvars(a=1, b=2)
    log.info("both")
    unbind_contextvars("b")
    log.info("a")
    with bound_contextvars(a=0, b=2):
        log.info("bound")
    log.info("again")

    @bound_contextvars(d=4)
    def decorated() -> None:
        log.info("decorated")

    decorated()
    tokens = bind_contextvars(a=2)
    log.info("overridden")
    reset_contextvars(**tokens)
    log.info("restored")
    clear_contextvars()
    log.info("clear")
    assert [(event["event"], without_ours(event)) for event in caught] == [
        ("both", {"a": 1, "b": 2}),
        ("a", {"a": 1}),
        ("bound", {"a": 0, "b": 2}),
        ("again", {"a": 1}),
        ("decorated", {"a": 1, "d": 4}),
        ("overridden", {"a": 2}),
        ("restored", {"a": 1}),
        ("clear", {}),
    ]


def test_merge_contextvars_in_a_users_chain(log, caught) -> None:
    """It finds done what it would do, and bound values still win."""
    configure(structlog.contextvars.merge_contextvars)
    structlog.contextvars.bind_contextvars(a=0, b=0)
    log.bind(a=1).info("x")
    assert without_ours(caught[0]) == {"a": 1, "b": 0}


def test_contexts_of_tasks_and_threads(log, caught) -> None:
    """Each has its own; a thread starts without, unless it is given it."""

    async def task(n: int) -> None:
        structlog.contextvars.bind_contextvars(n=n)
        await asyncio.sleep(0)
        await log.ainfo("task")

    async def main() -> None:
        await asyncio.gather(*(task(n) for n in range(10)))
        await log.ainfo("main")
        await asyncio.create_task(log.ainfo("created", a="b"))
        structlog.contextvars.bind_contextvars(n="main")
        await asyncio.to_thread(log.info, "to_thread")

    asyncio.run(main())
    structlog.contextvars.bind_contextvars(n="this thread")
    thread = threading.Thread(target=log.info, args=("thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(structlog.contextvars.bind_contextvars, **structlog.contextvars.get_contextvars()).result()
        pool.submit(log.info, "pool").result()
    found = [(event["event"], event.get("n")) for event in caught]
    assert sorted(found[:10]) == [("task", n) for n in range(10)]
    assert found[10:] == [
        ("main", None),
        ("created", None),
        ("to_thread", "main"),
        ("thread", None),
        ("pool", "this thread"),
    ]


# Exceptions.


@pytest.mark.parametrize(
    "give", [lambda error: error, lambda error: (type(error), error, error.__traceback__)], ids=["it", "tuple"]
)
def test_exc_info_that_is_an_exception(log, caught, give: Any) -> None:
    """An exception or a `sys.exc_info()` tuple is rendered, inside an except block and outside."""
    log.info("x", exc_info=give(raised()))
    asyncio.run(log.ainfo("x", exc_info=give(raised())))
    assert all("ValueError" in shown(event) and "bad" in shown(event) for event in caught)
    assert [("exc_info" in event) for event in caught] == [False, False]


@pytest.mark.parametrize("value", [True, 1, "yes"])
def test_exc_info_that_is_true(log, caught, value: Any) -> None:
    """It is the exception that is being handled, and nothing where none is."""
    log.info("outside", exc_info=value)
    try:
        raise ValueError("bad")
    except ValueError:
        log.info("inside", exc_info=value)
    assert "exception" not in caught[0]
    assert "ValueError" in shown(caught[1])


@pytest.mark.parametrize("value", [False, None, 0])
def test_exc_info_that_is_false(log, caught, value: Any) -> None:
    """There is no exception in the event, for `exception()` neither."""
    try:
        raise ValueError("bad")
    except ValueError:
        log.info("x", exc_info=value)
        log.exception("x", exc_info=value)
    assert [without_ours(event) for event in caught] == [{}, {}]


def test_exception_outside_of_an_except_block(log, caught) -> None:
    """It logs at ERROR, without an exception."""
    log.exception("x")  # noqa: LOG004
    asyncio.run(log.aexception("x"))
    assert [(event["level"], without_ours(event)) for event in caught] == [("error", {})] * 2


def test_exception_in_an_except_block(log, caught) -> None:
    """The exception is there, for the async method too, and a given one wins over the one that is being handled."""

    async def main() -> None:
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("x %s", 1, y=2)
            await log.aexception("x %s", 1, y=2)
            await log.aerror("x %s", 1, y=2, exc_info=True)
            log.exception("x %s", 1, y=2, exc_info=KeyError("other"))

    asyncio.run(main())
    assert [(event["level"], event["event"], event["y"]) for event in caught] == [("error", "x 1", 2)] * 4
    assert [re.findall("ValueError|KeyError", shown(event))[0] for event in caught] == [*["ValueError"] * 3, "KeyError"]


def test_stack_info(log, caught) -> None:
    """The stack of the caller, not ours or structlog's, is under `stack`."""
    log.info("x", stack_info=True)
    log.info("x", stack_info=False)
    stack = caught[0]["stack"]
    assert stack.startswith("Stack (most recent call last):")
    assert stack.rstrip().endswith('log.info("x", stack_info=True)')
    assert [set(without_ours(event)) for event in caught] == [{"stack"}, set()]
