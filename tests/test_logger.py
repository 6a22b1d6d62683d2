"""logger.py: the bound logger, its levels and its life before and after configure_logging()."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

import fapilog
from fapilog._internal.gates import gates
from fapilog.stdlib import HubHandler
from tests._support import caught_events, ran_well, read_lines, run_script, strict


@pytest.fixture
def caught():
    with caught_events() as events:
        yield events


@pytest.fixture
def log(caught) -> Any:
    return fapilog.get_logger("app.module")


LEVELS = ["debug", "info", "warning", "error", "critical"]


@pytest.mark.parametrize(
    ("method", "level"),
    [
        *((name, name) for name in LEVELS[1:]),
        ("warn", "warning"),
        ("err", "error"),
        ("fatal", "critical"),
        ("msg", "info"),
        ("exception", "error"),
    ],
)
def test_the_methods(log, caught, method: str, level: str) -> None:
    """Each logs at its level, as its async twin does."""
    getattr(log, method)("sync", x=1)
    twin = {"err": "error"}.get(method, method)
    asyncio.run(getattr(log, f"a{twin}")("async", x=1))
    assert [(event["level"], event["event"], event["x"]) for event in caught] == [(level, "sync", 1), (level, "async", 1)]


def test_a_disabled_level(log, caught) -> None:
    """Nothing is written, formatted or called."""

    class Bomb:
        def __str__(self) -> str:
            raise AssertionError("was formatted")

    log.debug("%s", Bomb(), x=Bomb())
    log.log(10, "%s", Bomb())
    asyncio.run(log.adebug("%s", Bomb()))
    assert caught == []


@pytest.mark.parametrize(
    ("event", "args", "shown"),
    [
        ("50%", (), "50%"),
        ("http://x/%20y", (), "http://x/%20y"),
        ("%s and %d", ("a", 2), "a and 2"),
        ("%(k)s", ({"k": 1},), "1"),
        ("%s", ({},), "{}"),
        ("%s", (("a", "b"),), "('a', 'b')"),
    ],
)
def test_positional_arguments(log, caught, event: str, args: tuple[Any, ...], shown: str) -> None:
    """They are formatted as the standard library does; without any the text stays as it is (O-STD-2)."""
    log.info(event, *args)
    assert caught[0]["event"] == shown


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("a", ("x",)),
        ("%s %s", (1,)),
        ("%d", ("x",)),
        ("%(k)s", (1,)),
        ("%(k)s", ({"other": 1},)),
        (5, ("x",)),
        (None, (1,)),
        ("%", (1,)),
    ],
)
def test_wrong_positional_arguments(log, caught, event: Any, args: tuple[Any, ...]) -> None:
    """The event shows the raw text and the arguments; nothing is raised (O-STD-2)."""
    log.info(event, *args, other=1)
    assert str(event) in caught[0]["event"]
    assert repr(args[0]) in caught[0]["event"]
    assert caught[0]["other"] == 1


def test_an_argument_whose_text_form_raises(log, caught) -> None:
    """The log call does not raise, and the other fields are kept."""

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    log.info("%s", Silent(), other=1)
    assert caught[0]["other"] == 1


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("argument", [Mute(), 10**5000, [Mute()]], ids=["mute", "huge", "list"])
@pytest.mark.parametrize("bridge", [False, True])
def test_a_bad_argument_beside_good_ones(log, caught, bridge: bool, argument: Any) -> None:
    """Each is shown by itself, so the good ones are seen."""
    if bridge:
        record = logging.LogRecord("app", 20, "f", 1, "user %s did %d", ("ann", argument), None)
        HubHandler().handle(record)
    else:
        log.info("user %s did %d", "ann", argument)
    assert caught[0]["event"].startswith("user %s did %d ('ann', ")
    assert "<tuple: repr raised" not in caught[0]["event"]


def test_a_huge_integer_as_an_argument(log, caught) -> None:
    """Every digit is kept, in hexadecimal, as in a field."""
    log.info("n %s", 10**5000, n=10**5000)
    assert caught[0]["event"] == f"n %s ({10**5000:#x},)"
    assert caught[0]["n"] == f"{10**5000:#x}"


@dataclass
class Holder:
    value: Any


def test_an_argument_that_holds_more_than_can_be_shown(log, caught) -> None:
    """Beside a text that it does not fit, its beginning is shown, and the call ends soon."""
    doubled: Any = [1]
    for _ in range(40):
        doubled = [doubled, doubled]
    log.info("x", *[Holder(doubled), "good"])
    assert caught[0]["event"].startswith("x ({'value': [[[[")
    assert len(caught[0]["event"]) < 10_000


def test_very_many_arguments_that_do_not_fit(log, caught) -> None:
    """They are cut, and the text says so."""
    log.info("x", *["y" * 100] * 100_000)
    assert len(caught[0]["event"]) < 10_000
    assert "...[cut: " in caught[0]["event"]


def test_a_call_without_an_event(log, caught) -> None:
    """event= is the event then, and without one it is null."""
    log.info(event="by name")
    log.info(x=1)
    assert [event["event"] for event in caught] == ["by name", None]


def test_exception(log, caught) -> None:
    """It logs at ERROR with the exception that is being handled; exc_info= may say otherwise."""
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("a", x=1)
        log.exception("b", exc_info=False)  # noqa: LOG007
    assert caught[0]["level"] == "error"
    assert caught[0]["exception"]["type"] == "ValueError"
    assert "exception" not in caught[1]


def test_aexception(log, caught) -> None:
    """The same from a coroutine."""

    async def main() -> None:
        try:
            raise ValueError("bad")
        except ValueError:
            await log.aexception("a")

    asyncio.run(main())
    assert caught[0]["exception"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("level", "named"),
    [
        (20, "info"),
        (logging.WARNING, "warning"),
        (35, "warning"),
        (99, "critical"),
        ("error", "error"),
        ("WARN", "warning"),
        (True, None),
    ],
)
def test_log_with_a_level(log, caught, level: Any, named: str | None) -> None:
    """A number is rounded down to a named level, a name is taken in any case."""
    log.log(level, "a", x=1)
    asyncio.run(log.alog(level, "b"))
    assert [event["level"] for event in caught] == ([named] * 2 if named else [])


@pytest.mark.parametrize("level", [None, "no such level", 5.5, float("nan"), object(), [], 10**30])
def test_log_with_a_level_that_is_none(log, caught, level: Any) -> None:
    """A log call never raises."""
    log.log(level, "a")


def test_bind_unbind_try_unbind_and_new(log, caught) -> None:
    """As in structlog: new loggers come out, the old one stays as it is."""
    bound = log.bind(a=1, b=2)
    bound.info("bound")
    bound.unbind("a").info("unbound")
    bound.try_unbind("a", "nothing").info("tried")
    bound.new(c=3).info("new")
    log.info("old")
    fields = [{name: event[name] for name in "abc" if name in event} for event in caught]
    assert fields == [{"a": 1, "b": 2}, {"b": 2}, {"b": 2}, {"c": 3}, {}]
    with pytest.raises(KeyError):
        log.unbind("nothing")
    assert isinstance(bound, fapilog.FapilogLogger)


def test_bound_values_given_to_get_logger(caught) -> None:
    """Every event of the logger has them."""
    fapilog.get_logger("n", a=1).bind(b=2).info("x")
    assert (caught[0]["a"], caught[0]["b"]) == (1, 2)


def test_the_name_of_a_logger(caught) -> None:
    """Without one it is that of the calling module."""
    fapilog.get_logger().info("x")
    fapilog.get_logger("given").info("y")
    assert [event["logger"] for event in caught] == [__name__, "given"]


@pytest.mark.parametrize("name", [5, b"x", [], {}, 0, False, "", Mute(), object])
def test_a_name_that_is_no_text(caught, name: Any) -> None:
    """The calling module's is used, as structlog does."""
    fapilog.get_logger(name).info("x")
    assert caught[0]["logger"] == __name__


def test_a_name_by_keyword_that_is_no_text(caught) -> None:
    """It is a bound value."""
    fapilog.get_logger(name=5).info("x")
    assert (caught[0]["logger"], caught[0]["name"]) == (__name__, 5)


@pytest.mark.parametrize("name", ["\udc80", "a\nb", "\x1b[2J", "x" * 5000])
def test_an_odd_name_of_a_logger(caught, name: str) -> None:
    """It is shown escaped; nothing is raised (O-VAL-2, O-SEC-1)."""
    fapilog.get_logger(name).info("x")
    assert caught[0]["event"] == "x"
    assert len(caught[0]["logger"]) >= 1


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(log, caught, protocol: int) -> None:
    """A logger comes back with its name and its bound values, and logs (O-VAL-5)."""
    again = pickle.loads(pickle.dumps(log.bind(a=1), protocol))
    again.info("x")
    assert (caught[0]["logger"], caught[0]["a"]) == ("app.module", 1)
    assert again.bind(b=2)._context == {"a": 1, "b": 2}


def test_copying(log, caught) -> None:
    """A copy logs, and binding on one does not change the other."""
    for each in (copy.copy(log.bind(a=1)), copy.deepcopy(log.bind(a=1))):
        each.info("x")
    assert [event["a"] for event in caught] == [1, 1]


def test_is_enabled_for(log) -> None:
    """It says whether an event at that level would be logged."""
    fapilog.set_level("WARNING")
    assert [log.is_enabled_for(level) for level in (10, 20, 30, 40)] == [False, False, True, True]
    assert log.get_effective_level() == 30


def test_set_level_for_all_and_for_one(log, caught) -> None:
    """A rule for a logger holds for those below it and for loggers that exist already."""
    below = fapilog.get_logger("app.module.below")
    beside = fapilog.get_logger("app.module2")
    fapilog.set_level("DEBUG", "app.module")
    for each in (log, below, beside):
        each.debug("x")
    fapilog.set_level("ERROR")
    for each in (log, below, beside):
        each.info("y")
    assert [event["logger"] for event in caught] == ["app.module", "app.module.below"] * 2


def test_set_level_to_nonsense(log) -> None:
    """It is a ConfigurationError that names the value."""
    with pytest.raises(fapilog.ConfigurationError, match="warnning"):
        fapilog.set_level("warnning")


def test_loggers_of_the_same_name() -> None:
    """They share one gate, so a level holds for all of them at once."""
    assert fapilog.get_logger("same")._gate is fapilog.get_logger("same").bind(a=1)._gate is gates.of("same")


def test_per_logger_levels_from_the_environment(tmp_path) -> None:
    """FAPILOG_LEVEL="INFO,a.b=DEBUG" lets the debug events of a.b and those below it through, of nobody else."""
    ran_well(
        run_script(
            """
            import fapilog
            early = fapilog.get_logger("a.b.c")
            fapilog.configure_logging()
            for log in (early, *map(fapilog.get_logger, ("a.b", "a.bc", "a", None))):
                log.debug("d")
            fapilog.get_logger("a").info("i")
            """,
            tmp_path,
            env={"FAPILOG_LEVEL": "INFO,a.b=DEBUG", "FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl"},
        )
    )
    found = [(line["logger"], line["event"]) for line in read_lines(tmp_path / "out.jsonl")]
    assert found == [("a.b.c", "d"), ("a.b", "d"), ("a", "i"), ("fapilog", "fapilog.closed")]


def test_a_logger_obtained_before_configure_logging(tmp_path) -> None:
    """It uses what configure_logging() set up later: level, processors and sinks."""
    ran_well(
        run_script(
            """
            import fapilog
            log = fapilog.get_logger("early", a=1).bind(b=2)
            def mark(_logger, _name, event_dict):
                event_dict["marked"] = True
                return event_dict
            fapilog.configure_logging(sinks=["file"], file_path="out.jsonl", level="DEBUG", processors=[mark])
            log.debug("x")
            """,
            tmp_path,
        )
    )
    line = read_lines(tmp_path / "out.jsonl")[0]
    assert (line["event"], line["a"], line["b"], line["marked"]) == ("x", 1, 2, True)


def test_an_event_before_configure_logging(tmp_path) -> None:
    """It configures from the environment, and structlog.get_logger() is ours from then on."""
    ran_well(
        run_script(
            """
            import fapilog, structlog
            fapilog.get_logger("first").info("one")
            structlog.get_logger("second").info("two")
            """,
            tmp_path,
            env={"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl", "FAPILOG_SERVICE": "shop"},
        )
    )
    found = [(line["service"], line["logger"], line["event"], line["seq"]) for line in read_lines(tmp_path / "out.jsonl")]
    assert found[:2] == [("shop", "first", "one", 1), ("shop", "second", "two", 2)]


def test_an_event_before_configure_logging_with_a_wrong_environment(tmp_path) -> None:
    """It says so on stderr and goes on with the defaults; the log call does not raise (O-CFG-1)."""
    result = run_script(
        "import fapilog; fapilog.get_logger('first').info('one'); print('went on', flush=True)",
        tmp_path,
        env={"FAPILOG_QUEUE_SIZE": "10k"},
    )
    lines = ran_well(result).splitlines()
    assert "went on" in lines
    # Where the defaults lead, others may have died before: a process of theirs that was killed is told of first.
    assert "one" in {strict(line)["event"] for line in lines if line.startswith("{")}
    assert "FAPILOG_QUEUE_SIZE" in result.stderr
    assert "10k" in result.stderr


def test_an_event_before_configure_logging_that_then_says_otherwise(tmp_path) -> None:
    """Nothing of either is lost or doubled."""
    ran_well(
        run_script(
            """
            import fapilog
            log = fapilog.get_logger("a")
            log.info("before")
            fapilog.configure_logging(sinks=["file"], file_path="second.jsonl")
            log.info("after")
            """,
            tmp_path,
            env={"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "first.jsonl"},
        )
    )
    assert [line["event"] for line in read_lines(tmp_path / "first.jsonl")] == ["before", "fapilog.closed"]
    assert [line["event"] for line in read_lines(tmp_path / "second.jsonl")] == ["after", "fapilog.closed"]


def test_an_interface_that_structlog_promises() -> None:
    """Whatever structlog's own filtering bound logger can do, ours can."""
    theirs = structlog.make_filtering_bound_logger(20)
    missing = [name for name in dir(theirs) if not name.startswith("_") and not hasattr(fapilog.FapilogLogger, name)]
    assert missing == []


class Remainder:
    """Has a ``%`` of its own, as arrays do: on an endless argument it would never end."""

    def __mod__(self, args: Any) -> Any:
        raise AssertionError(args)

    def __str__(self) -> str:
        return "remainder"


@pytest.mark.parametrize("event", [7, b"x %s", Remainder(), [1, 2]], ids=lambda event: type(event).__name__)
def test_arguments_of_an_event_that_is_no_text(log, caught, event: Any) -> None:
    """They stand beside it: ``%`` of anything but a text is not ours to call."""
    log.info(event, "argument")
    assert "argument" in caught[0]["event"]
    assert "pipeline_error" not in caught[0]
