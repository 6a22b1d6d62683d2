"""
Any value, at any place, through the whole pipeline: one strict JSON line, no exception, the caller's objects as they were.

Written from the issue and the cases O-VAL-1 to O-VAL-4 and O-SEC-1, not from the code. `tests/hostile.py` has the values.
"""

from __future__ import annotations

import asyncio
import collections
import copy
import dataclasses
import datetime  # noqa: ICN001 - its types are what this is about
import decimal
import gc
import itertools
import json
import math
import os
import re
import sys
import threading
import types
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fapilog
from fapilog._internal.route import redact, route
from tests import hostile
from tests._support import only_matrix, process_restored, ran_well, read_lines, run_script, strict
from tests.hostile import CATALOGUE, KEYS, caught_heads, limits, snapshot
from tests.recording import RecordingSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FULL = os.environ.get("FAPILOG_TEST_FULL") == "1"  # the suite tries the same examples each time, `make thorough` others
EXAMPLES = 20_000 if FULL else 2_000
LIMIT = 262_144
MARGIN = 256  # what marks may take on top of the limit; the identity, which is not in a head, comes on top of both
CUT = re.compile(r"\.\.\.\[cut: (?:\d+ (?:bytes|items)|cycle)\]")


class Caught:
    """Logs, and returns what became of it."""

    def __init__(self, heads: list[bytes], max_bytes: int) -> None:
        self.heads = heads
        self.max_bytes = max_bytes
        self.log: Any = fapilog.get_logger("hostile")

    def taken(self) -> dict[str, Any]:
        """Return the one event since the last call, checked."""
        assert len(self.heads) == 1, f"{len(self.heads)} events"
        head = self.heads.pop()
        assert not re.search(rb"[\x00-\x1f]", head), "a raw control character"
        assert len(head) <= self.max_bytes + MARGIN
        found = strict(head)
        assert "pipeline_error" not in found, found["pipeline_error"]
        return found

    def one(self, value: Any) -> Any:
        """Log *value* alone and deep inside a list; both must say the same; return it."""
        self.log.info("e", value=value, inside=[[{"here": value}]])
        found = self.taken()
        assert found["inside"][0][0]["here"] == found["value"]
        return found["value"]


@pytest.fixture(params=[LIMIT])
def caught(request) -> Iterator[Caught]:
    with caught_heads(max_event_bytes=request.param) as heads:
        yield Caught(heads, request.param)


# -- Shows 1: arbitrary values --------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=-9, seconds=7))])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(),
    st.ip_addresses(),
)


@dataclass(frozen=True)
class Recipe:
    """How to make a value: hypothesis prints and shrinks recipes, and never touches what fights back."""

    kind: str
    parts: Any


def circular(held: Any) -> Any:
    made: dict[Any, Any] = {"held": held}
    made["again"] = (made, [made])
    return made


MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "values of a dict": lambda items: dict(enumerate(items)).values(),
    "generator": lambda items: (item for item in items),
    "twice": lambda items: [items, items, items],
    "circular": circular,
    "dataclass": lambda items: hostile.Point(items, 1),
    "slots": lambda items: hostile.Slotted(1, items),
    "attrs": lambda items: hostile.Attrs(items, 1),
    "pydantic": lambda items: hostile.Model(x=items),
    "namedtuple": lambda items: hostile.Pair(1, items),
    "namespace": lambda items: types.SimpleNamespace(x=items),
    "object array": lambda items: np.fromiter(items, dtype=object, count=len(items)),
    "exception": lambda items: ValueError(*items),
    "group": lambda items: ExceptionGroup("group", [hostile.raised(ValueError(item)) for item in items] or [ValueError()]),
}
TABLES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": lambda pairs: collections.defaultdict(list, pairs),
    "ChainMap": lambda pairs: collections.ChainMap(pairs, {}),
    "MappingProxyType": types.MappingProxyType,
    "UserDict": collections.UserDict,
    "set": set,
    "frozenset": frozenset,
    "items": lambda pairs: pairs.items(),
    "list of pairs": lambda pairs: list(pairs.items()),
}

LEAVES = st.one_of(
    st.builds(Recipe, st.just("plain"), PLAIN),
    st.builds(Recipe, st.just("catalogue"), st.sampled_from(sorted(CATALOGUE))),
)
KEY_RECIPES = st.one_of(
    st.builds(
        Recipe, st.just("plain"), st.one_of(TEXT, st.integers(), st.floats(), st.binary(max_size=5), st.tuples(TEXT, st.none()))
    ),
    st.builds(Recipe, st.just("key"), st.sampled_from(sorted(KEYS))),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Recipe, st.sampled_from(sorted(MAKERS)), st.lists(inner, max_size=4)),
        st.builds(Recipe, st.sampled_from(sorted(TABLES)), st.lists(st.tuples(KEY_RECIPES, inner), max_size=4)),
    ),
    max_leaves=12,
)


def made(recipe: Recipe) -> Any:
    if recipe.kind == "plain":
        return recipe.parts
    if recipe.kind == "catalogue":
        return CATALOGUE[recipe.parts]()
    if recipe.kind == "key":
        return KEYS[recipe.parts]()
    if recipe.kind in MAKERS:
        return MAKERS[recipe.kind]([made(part) for part in recipe.parts])
    pairs: dict[Any, Any] = {}
    for key, part in recipe.parts:
        try:
            pairs[made(key)] = made(part)
        except RuntimeError:  # a key that does not let itself be compared with one that is there
            continue
    try:
        return TABLES[recipe.kind](pairs)
    except RuntimeError:  # a key that lets itself be put into one table only
        return pairs


ENTRANCES = ["call", "bound", "context", "queue_sink"]


def logged(log: Any, entrance: str, event: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    if entrance == "call":
        log.info(event, *args, **fields)
    elif entrance == "bound":
        log.bind(**fields).info(event, *args)
    elif entrance == "context":
        with structlog.contextvars.bound_contextvars(**fields):
            log.info(event, *args)
    else:
        with pytest.raises(structlog.DropEvent):
            fapilog.queue_sink(None, "info", {"event": event, "args": args, **fields})


@pytest.mark.parametrize(("max_bytes", "share"), [(LIMIT, 0.2), (1024, 0.1), only_matrix(LIMIT, 0.8), only_matrix(1024, 0.2)])
def test_arbitrary_values(max_bytes: int, share: float) -> None:
    """
    Whatever is logged, wherever it comes in, is one strict JSON line that fits, raises nothing, and leaves its objects unchanged
    (Shows 1, O-VAL-1, O-VAL-4).
    """
    with caught_heads(max_event_bytes=max_bytes) as heads:
        caught = Caught(heads, max_bytes)

        @settings(
            max_examples=int(EXAMPLES * share),
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            event=st.one_of(st.builds(Recipe, st.just("plain"), TEXT), VALUES),
            args=st.lists(VALUES, max_size=2),
            fields=st.dictionaries(TEXT, VALUES, min_size=1, max_size=4),
            error=st.one_of(st.none(), VALUES),
            entrance=st.sampled_from(ENTRANCES),
        )
        def check(event: Recipe, args: list[Recipe], fields: dict[str, Recipe], error: Recipe | None, entrance: str) -> None:
            heads.clear()
            values = [made(event), *map(made, args)]
            given_fields = {"sibling": "kept", **{f"_{name}": made(recipe) for name, recipe in fields.items()}}
            if error is not None:
                given_fields["exc_info"] = made(error)
            before = snapshot([*values, given_fields])
            try:
                with limits(5):
                    logged(caught.log, entrance, values[0], tuple(values[1:]), given_fields)
            except hostile.Hung:
                raise AssertionError("the call did not end") from None  # an Exception, so that hypothesis names the example
            assert snapshot([*values, given_fields])[1] == before[1]
            found = caught.taken()
            assert found["level"] == "info"
            if max_bytes == LIMIT:
                assert found["sibling"] == "kept"

        check()


PLACES: dict[str, Callable[[Any, Any], None]] = {
    "value": lambda log, value: log.info("e", sibling="kept", value=value),
    "item": lambda log, value: log.info("e", sibling="kept", value=[{"deep": (value, 2**70)}]),
    "event": lambda log, value: log.info(value, sibling="kept"),
    "argument": lambda log, value: log.info("%s %r", value, value, sibling="kept"),
    "bound": lambda log, value: log.bind(sibling="kept", value=value).info("e"),
    "exc_info": lambda log, value: log.info("e", sibling="kept", exc_info=value),
    "stack_info": lambda log, value: log.info("e", sibling="kept", stack_info=value),
    "hub's field": lambda log, value: log.info("e", sibling="kept", pid=value, level=value, timestamp=value, logger=value),
    "exception": lambda log, value: log.info("e", sibling="kept", exception=value),
}


@pytest.mark.matrix
@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("family", ["STANDARD", "MODELS", "SUBCLASSES", "ODD", "NUMPY", "RAISING", "LYING"])
def test_each_value_of_the_catalogue(caught, family: str, place: str) -> None:
    """Each is one line beside which its sibling stands whole, within seconds; what failed is named."""
    failed = []
    for name, make in getattr(hostile, family).items():
        value = make()
        before = snapshot(value)
        try:
            with limits(5):
                PLACES[place](caught.log, value)
            assert caught.taken()["sibling"] == "kept"
            assert snapshot(value) == before, "was changed"
        except (Exception, hostile.Hung) as error:
            caught.heads.clear()
            failed.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    assert failed == []


@pytest.mark.parametrize("name", sorted(KEYS))
def test_each_key_of_the_catalogue(caught, name: str) -> None:
    """Its value is kept under some text, also where the line is cut (O-VAL-1)."""
    for filler in ("", "x" * LIMIT):
        caught.log.info("e", sibling="kept", value={KEYS[name](): "its value"}, filler=filler)
        found = caught.taken()
        assert found["sibling"] == "kept"
        assert list(found["value"].values()) == ["its value"]


@pytest.mark.parametrize("order", [1, -1])
def test_all_keys_in_one_dict(caught, order: int) -> None:
    """None silently overwrites another, though several have the same text (O-VAL-1)."""
    value: dict[Any, int] = {}
    for index, name in enumerate(sorted(KEYS)[::order]):
        try:
            value[KEYS[name]()] = index
        except RuntimeError:  # it does not let itself be compared
            continue
    assert sorted(caught.one(value).values()) == sorted(value.values())


def test_arbitrary_keys(caught) -> None:
    """As many values come out as were in the dict (O-VAL-1); whatever the keys say, since nothing is masked here."""
    redact(enabled=False)

    @settings(
        max_examples=EXAMPLES // 10, deadline=None, database=None, derandomize=not FULL, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(KEY_RECIPES, max_size=12))
    def check(keys: list[Recipe]) -> None:
        caught.heads.clear()
        value: dict[Any, int] = {}
        for index, key in enumerate(keys):
            try:
                value[made(key)] = index
            except RuntimeError:
                continue
        count = len(value)
        caught.log.info("e", value=value)
        assert sorted(caught.taken()["value"].values()) == sorted(dict.values(value))
        assert len(value) == count

    check()


# -- O-VAL-1: what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**60, -(10**4000)], ids=lambda n: hex(n)[:20]
)
def test_the_digits_of_integers(caught, number: int) -> None:
    """They are exactly those of the number, alone, as a subclass and as numpy's (O-VAL-1)."""
    assert caught.one(number) == number
    caught.log.info("e", value=number)
    assert f'"value":{number}'.encode() in caught.heads[0]
    caught.heads.clear()
    assert caught.one(hostile.FightingInt(number)) == number


@pytest.mark.parametrize("number", [10**5000, -(10**5000), 10**6000 - 1], ids=["10**5000", "-(10**5000)", "10**6000 - 1"])
def test_an_integer_over_the_digit_limit_of_the_interpreter(caught, number: int) -> None:
    """No digit is lost: it is shown whole, in decimal or, as text, in hexadecimal (O-VAL-1)."""
    caught.log.info("e", value=number)
    raw = caught.heads.pop()
    shown = re.search(rb'"value":"?(-?)(0x)?([0-9a-f]+)"?[,}]', raw)
    assert shown is not None, raw[:200]
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        found = int(shown.group(3), 16 if shown.group(2) else 10)
    finally:
        sys.set_int_max_str_digits(before)
    assert (-found if shown.group(1) else found) == number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int64(5), 5),
        (np.int8(-5), -5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.float64("nan"), None),
        (np.array([1, 2, 3]), [1, 2, 3]),
        (np.array([[1.5, 2.5]]), [[1.5, 2.5]]),
        (np.array([True, False]), [True, False]),
        (np.arange(3, dtype=">i4"), [0, 1, 2]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.arange(4).reshape(2, 2).T, [[0, 2], [1, 3]]),
        (np.array(7), 7),
        (np.array([2**64 - 1], dtype="u8"), [2**64 - 1]),
        (np.array([np.nan, 1.0]), [None, 1.0]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([{"k": 1}, None], dtype=object), [{"k": 1}, None]),
        (np.zeros((0,)), []),
    ],
    ids=repr,
)
def test_numbers_of_numpy(caught, value: Any, shown: Any) -> None:
    """They are numbers, and arrays are lists, on the fast and on the slow way (O-VAL-1)."""
    assert caught.one(value) == shown
    caught.log.info("e", value=value, slow={1: 2**70, "\udc80": 1})
    found = caught.taken()["value"]
    assert (found, type(found)) == (shown, type(shown))


@pytest.mark.parametrize("make", [hostile.Point, hostile.Slotted, hostile.Attrs, lambda x, y: hostile.Model(x=x, y=y)])
def test_fields_of_models(caught, make: Any) -> None:
    """Dataclasses, attrs classes and pydantic models are objects of their fields, and so is what they hold (O-VAL-1)."""
    shown = {"x": 2**70, "y": [{"x": "a", "y": {"1": None}}]}
    assert caught.one(make(2**70, [make("a", {1: None})])) == shown


def test_a_field_that_cannot_be_read(caught) -> None:
    """The others are shown all the same."""

    @dataclasses.dataclass
    class Half:
        good: int = 1
        bad: int = 2

        def __getattribute__(self, name: str) -> Any:
            if name == "bad":
                raise RuntimeError("no bad")
            return object.__getattribute__(self, name)

    assert caught.one(Half())["good"] == 1
    assert caught.one(hostile.without(hostile.Slotted(x=7), "y"))["x"] == 7
    assert caught.one(hostile.without(hostile.Attrs(x=7), "y"))["x"] == 7


def test_secrets_of_pydantic(caught) -> None:
    """A `SecretStr` keeps its secret, wherever it stands; so does `SecretBytes`."""

    class Holder(pydantic.BaseModel):
        plain: pydantic.SecretStr = pydantic.SecretStr("hunter2")
        raw: pydantic.SecretBytes = pydantic.SecretBytes(b"hunter2")

    held = Holder()
    caught.log.info("%s", held, value=[held, held.plain, {held.plain: held.raw}], exc_info=ValueError(held))
    assert b"hunter2" not in caught.heads[0]


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal("1.50"), decimal.Decimal("-1E+30"), decimal.Decimal("0.1") + decimal.Decimal("0.2")],
    ids=str,
)
def test_decimals(caught, value: decimal.Decimal) -> None:
    """They lose no digit: the text in the line makes an equal Decimal (O-VAL-1)."""
    assert decimal.Decimal(str(caught.one(value))) == value


@pytest.mark.parametrize("number", [0.1, 5e-324, 1.7976931348623157e308, -0.0, 1e22, math.pi])
def test_floats(caught, number: float) -> None:
    """They come back as they were."""
    assert repr(caught.one(number)) == repr(number)
    assert float(caught.one(hostile.FightingFloat(number))) == number


@pytest.mark.parametrize(
    ("moment", "same"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC), "2026-01-02T03:04:05.000006+00:00"),
        (
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
            "2026-01-01T21:34:05+00:00",
        ),
        (
            datetime.datetime(1900, 1, 1, 0, 19, 32, tzinfo=datetime.timezone(datetime.timedelta(minutes=19, seconds=32))),
            "1900-01-01T00:00:00+00:00",
        ),
        (datetime.datetime(1, 1, 1, tzinfo=datetime.UTC), "0001-01-01T00:00:00+00:00"),
    ],
    ids=["UTC", "India", "seconds", "year 1"],
)
def test_the_moment_of_a_datetime(caught, moment: datetime.datetime, same: str) -> None:
    """What is shown is ISO 8601 and names the same moment, to the second at least where a zone has seconds (O-VAL-1)."""
    shown = datetime.datetime.fromisoformat(caught.one(moment))
    assert abs(shown - datetime.datetime.fromisoformat(same)) < datetime.timedelta(minutes=1)
    if moment.utcoffset() == datetime.timedelta(minutes=19, seconds=32):
        return
    assert shown == datetime.datetime.fromisoformat(same)


@pytest.mark.parametrize(
    ("make", "items"),
    [
        (lambda: {3, 1}, [1, 3]),
        (lambda: frozenset("ab"), ["a", "b"]),
        (lambda: collections.deque([1, {2: 3}]), [1, {"2": 3}]),
        (lambda: types.MappingProxyType({"a": {1: 2}}), {"a": {"1": 2}}),
        (lambda: collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (lambda: collections.Counter("aab"), {"a": 2, "b": 1}),
        (lambda: collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (lambda: collections.UserDict({"a": [1]}), {"a": [1]}),
        (lambda: {"a": (1, (2,))}, {"a": [1, [2]]}),
    ],
    ids=["set", "frozenset", "deque", "MappingProxyType", "OrderedDict", "Counter", "ChainMap", "UserDict", "tuple"],
)
def test_what_collections_hold(caught, make: Any, items: Any) -> None:
    """Mappings are objects and other collections lists, on the fast and on the slow way."""
    for beside in (0, 2**70):
        caught.log.info("e", value=make(), beside=beside)
        found = caught.taken()["value"]
        assert (sorted(found) if isinstance(make(), set | frozenset) else found) == items


# -- what must not happen to values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: (n for n in range(5)),
        lambda: iter(range(5)),
        lambda: iter([0, 1, 2, 3, 4]),
        lambda: map(int, "01234"),
        lambda: zip(range(5), strict=True),
        lambda: itertools.islice(itertools.count(), 5),
        lambda: reversed([4, 3, 2, 1, 0]),
    ],
    ids=["generator", "range", "list", "map", "zip", "islice", "reversed"],
)
def test_iterators(caught, make: Any) -> None:
    """They are not consumed, not even by one item."""
    value = make()
    caught.log.info("%s", value, value=value, nested=[{"slow": (value, 2**70)}], exc_info=ValueError(value))
    caught.taken()
    assert list(value) == list(make())


def test_a_file(caught, tmp_path) -> None:
    """It is neither read nor closed."""
    (tmp_path / "f").write_text("content")
    with open(tmp_path / "f") as file:
        caught.log.info("e", value=file, nested=[file, 2**70])
        assert "content" not in json.dumps(caught.taken())
        assert file.read() == "content"


def test_a_default_dict(caught) -> None:
    """It does not grow."""
    value: Any = collections.defaultdict(lambda: collections.defaultdict(list), {1: {}})
    caught.log.info("e", value=value, slow=[2**70])
    assert value == {1: {}}


def test_a_coroutine(caught) -> None:
    """It is neither awaited nor closed, and nothing is said about one that never was."""

    async def answer() -> int:
        return 42

    value = answer()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        caught.log.info("e", value=value, nested=[{"slow": (value, 2**70)}])
        gc.collect()
    assert [str(warning.message) for warning in said] == []
    assert asyncio.run(value) == 42


def test_an_object_that_is_logged(caught) -> None:
    """Nothing holds it after the call, its attributes are what they were, and a lock in it is not taken."""

    class Held:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.self = self

    value = Held()
    before = dict(vars(value))
    references = sys.getrefcount(value)
    caught.log.info("e", value=value, nested=[value, 2**70])
    assert sys.getrefcount(value) == references
    assert vars(value) == before
    assert not value.lock.locked()


# -- O-VAL-2: lone surrogates; O-SEC-1: control characters ----------------------------------------------------------------------

ODD = "a\udc80b\ud83d"
ODD_PLACES: dict[str, Callable[[Any], None]] = {
    "event": lambda log: log.info(ODD),
    "argument": lambda log: log.info("%s", ODD),
    "value": lambda log: log.info("e", value=ODD),
    "nested": lambda log: log.info("e", value=[{"x": (ODD, {ODD})}]),
    "field name": lambda log: log.info("e", **{ODD: 1}),
    "key": lambda log: log.info("e", value={ODD: 1}),
    "logger name": lambda _log: fapilog.get_logger(ODD).info("e"),
    "exception": lambda log: log.info("e", exc_info=ValueError(ODD)),
    "note": lambda log: log.info("e", exc_info=noted(ValueError(), ODD)),
    "bound value": lambda log: log.bind(value=ODD).info("e"),
    "context value": lambda log: in_context(log, value=ODD),
    "bytes": lambda log: log.info("e", value=ODD.encode("utf-8", "surrogatepass")),
    "path": lambda log: log.info("e", value=CATALOGUE["path of surrogates"](), more=ODD),
    "type name": lambda log: log.info("e", value=type("T", (), {"__repr__": lambda _self: ODD})()),
    "processor's error": lambda log: log.info("e", exc_info=hostile.raised(OSError(2, ODD, ODD))),
}


def noted(error: BaseException, *notes: Any) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


def in_context(log: Any, **values: Any) -> None:
    with structlog.contextvars.bound_contextvars(**values):
        log.info("e")


@pytest.mark.parametrize("place", list(ODD_PLACES))
def test_a_lone_surrogate(caught, place: str) -> None:
    """The line is valid UTF-8 and shows the odd character escaped or replaced; the rest of the text is whole (O-VAL-2)."""
    ODD_PLACES[place](caught.log)
    line = caught.heads[0].decode("utf-8")
    caught.taken()
    assert re.search('a[^"]{1,16}b', line), line


def test_lone_surrogates_amid_a_batch(tmp_path) -> None:
    """Of 100 events all arrive, in the file and on stdout, as valid UTF-8 (O-VAL-2)."""
    result = run_script(
        """
        import fapilog
        fapilog.configure_logging(sinks=["file", "stdout"], format="json", queue_overflow="block", queue_block_timeout=20)
        log = fapilog.get_logger("batch")
        odd = "a\\udc80b"
        for n in range(50):
            log.info("e", n=n)
        log.info(odd, n=50)
        log.info("e", n=51, value=odd)
        log.info("e", n=52, **{odd: 1})
        fapilog.get_logger(odd).info("e", n=53)
        log.info("e", n=54, exc_info=ValueError(odd))
        log.bind(bound=odd).info("e", n=55)
        for n in range(56, 100):
            log.info("e", n=n)
        """,
        tmp_path,
        env={"FAPILOG_FILE_PATH": "out.jsonl"},
    )
    printed = [strict(line) for line in ran_well(result).splitlines()]
    for lines in (printed, read_lines(tmp_path / "out.jsonl")):
        assert [line["n"] for line in lines if "n" in line] == list(range(100))


CONTROLS = 'a\r\nb\x00\x1b[2J\x1b]0;title\x07\u2028\u2029\x85\u202e\u200f\x9b31m{}"\\'


def test_control_characters(caught) -> None:
    """One event is one line whose content decodes to what it was: event, key, value, logger's name and exception (O-SEC-1)."""
    fapilog.get_logger(CONTROLS).info(CONTROLS, value=CONTROLS, nested={CONTROLS: [CONTROLS]}, exc_info=ValueError(CONTROLS))
    found = caught.taken()
    assert (found["logger"], found["event"], found["value"], found["nested"]) == (
        CONTROLS,
        CONTROLS,
        CONTROLS,
        {CONTROLS: [CONTROLS]},
    )
    assert found["exception"]["message"] == CONTROLS


# -- O-VAL-3: cycles and depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CATALOGUE if "in itself" in name])
def test_a_cycle(caught, name: str) -> None:
    """It is cut with a mark, and the call ends (O-VAL-3)."""
    with limits():
        caught.log.info("e", value=CATALOGUE[name](), sibling="kept")
    found = caught.taken()
    assert CUT.search(json.dumps(found["value"])), json.dumps(found["value"])[:300]
    assert found["sibling"] == "kept"


def test_a_cycle_of_two(caught) -> None:
    """It is cut with a mark (O-VAL-3)."""
    left: list[Any] = ["left"]
    right: dict[str, Any] = {"right": left}
    left.append(right)
    assert CUT.search(json.dumps(caught.one(left)))


def test_the_same_object_twice(caught) -> None:
    """Without a cycle it is shown in full each time, on the fast and on the slow way, whatever its type (O-VAL-3)."""
    for shared in ({"a": [1, 2]}, [1, {"b": 2**70}], hostile.Point(1, [2]), hostile.Attrs(1, {3: 4}), hostile.Model(x=[5])):
        found = caught.one([shared, {"again": shared}, (shared, shared)])
        assert found[0] == found[1]["again"] == found[2][0] == found[2][1]
        assert "cut" not in json.dumps(found)


WRAPS = {
    "list": "[value]",
    "tuple": "(value,)",
    "dict": "{'k': value}",
    "odd key": "{1: value}",
    "both": "[{'k': (value,)}]",
    "set": "frozenset([value])",
    "deque": "collections.deque([value])",
    "dataclass": "hostile.Point(value)",
    "attrs": "hostile.Attrs(value)",
    "pydantic": "hostile.Model.model_construct(x=value)",
    "namedtuple": "hostile.Pair(value, 1)",
    "namespace": "types.SimpleNamespace(x=value)",
    "proxy": "types.MappingProxyType({'k': value})",
    "ChainMap": "collections.ChainMap({'k': value})",
    "UserDict": "collections.UserDict(k=value)",
    "partial": "functools.partial(print, value)",
    "object array": "hostile.object_array(value)",
    "exception": "ValueError(value)",
    "generic alias": "list[value]",
    "repr": "hostile.Nested(value)",
}
DEEP = """
import collections, functools, json, os, types
import fapilog
from tests import hostile

fapilog.configure_logging(sinks=["file"])
log = fapilog.get_logger("deep")
kept = []  # not every type takes a deep nest apart without recursion
for depth in {depths}:
    value = "bottom"
    for _ in range(depth):
        value = {wrap}
    kept.append(value)
    log.info("e", value=value, sibling="kept", depth=depth)
    log.info("e", value=value, sibling="kept", depth=depth, slow={{1: 2**70}})
    log.info("e", sibling="kept", depth=depth, exc_info=ValueError(value) if depth < 1000 else None)
    log.bind(value=value).info("bound", sibling="kept", depth=depth)
assert fapilog.flush(10).complete
os._exit(0)
"""
DEPTHS = (300, 5_000, 100_000)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", list(WRAPS))
def test_a_deep_nest(kind: str, tmp_path: Path) -> None:
    """It is cut with a mark or named, its siblings are whole, and the process lives (O-VAL-3)."""
    root = os.pathsep.join([str(hostile.ROOT), os.environ.get("PYTHONPATH", "")])
    script = DEEP.format(depths=DEPTHS, wrap=WRAPS[kind])
    ran_well(run_script(script, tmp_path, env={"FAPILOG_FILE_PATH": "out.jsonl", "PYTHONPATH": root}))
    lines = read_lines(tmp_path / "out.jsonl")
    assert [(line["sibling"], line["depth"]) for line in lines] == [("kept", depth) for depth in DEPTHS for _ in range(4)]
    if kind not in {"partial", "exception", "generic alias", "repr", "namespace"}:  # their own text form says how deep it goes
        for value in (json.dumps(line["value"]) for n, line in enumerate(lines) if n % 4 < 2):
            assert "bottom" not in value
            assert CUT.search(value), value[:300]


def test_logging_near_the_end_of_the_stack(caught) -> None:
    """With a hundred frames left, a call raises nothing and the line is whole."""
    heights = []

    def dive(height: int) -> None:
        try:
            dive(height + 1)
        finally:
            heights.append(height)
            if heights[0] - height >= 100:
                caught.log.info("climbing", height=height, nested=[{"a": (1,)}], slow={1: 2**70})

    with pytest.raises(RecursionError):
        dive(0)
    found = [strict(head) for head in caught.heads]
    assert [event["height"] for event in found] == list(range(heights[0] - 100, -1, -1))
    assert all(event["nested"] == [{"a": [1]}] and event["slow"] == {"1": 2**70} for event in found)


@pytest.mark.parametrize("method", ["info", "exception", "log", "formatted", "slow", "core"])
def test_logging_at_the_end_of_the_stack(caught, method: str) -> None:
    """From the frame on that the call itself fits into, it raises nothing; each event is written, without secrets, or counted."""
    calls = {
        "info": lambda: caught.log.info("deep"),
        "exception": lambda: caught.log.exception("deep"),  # noqa: LOG004 - it is called in one
        "log": lambda: caught.log.log(20, "deep"),
        "formatted": lambda: caught.log.info("%s", ["deep"]),
        "slow": lambda: caught.log.info("deep", at={1: 2**70, "password": "hunter2"}, url="https://me:hunter2@host/"),
        "core": lambda: caught.log._logger.info("deep", password="hunter2"),
    }
    call = calls[method]
    raised, left = [], []

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            left.append(0)
            if len(left) > 2:  # frames: of the lambda and of the method
                try:
                    call()
                except RecursionError as error:
                    raised.append((len(left), error))
            raise

    before = route.unplaced
    with pytest.raises(RecursionError):
        dive()
    assert raised == []
    found = [strict(head) for head in caught.heads]
    assert all(event["timestamp"][:2] == "20" and event["level"] in {"info", "error"} for event in found)
    assert sum("deep" in event["event"] for event in found) > len(found) - 10
    assert not any(b"hunter2" in head for head in caught.heads)
    assert len(caught.heads) + route.unplaced - before == len(left) - 2
    assert 0 < route.unplaced - before < 30


FIRST_CALL = """
import logging, os, sys, traceback, warnings
import fapilog

configured = {configured}
if configured:
    fapilog.configure_logging()
log = fapilog.get_logger("deep")
calls = {{
    "info": lambda: log.info("deep"),
    "debug": lambda: log.debug("deep"),
    "exception": lambda: log.exception("deep"),
    "log": lambda: log.log(20, "deep"),
    "core": lambda: log._logger.info("deep"),  # what a wrapper class of the user's own calls
    "warning": lambda: warnings.showwarning("deep", UserWarning, "here.py", 1),
    "stdlib": lambda: logging.getLogger("deep").info("deep"),
}}
call = calls["{method}"]


def depth():
    frame, found = sys._getframe(), 0
    while frame is not None:
        frame, found = frame.f_back, found + 1
    return found


def dive(frames):
    return dive(frames - 1) if frames else call()


def first(left):
    "Log for the first time in this process with so many frames left, and once more with all of them."
    raised = None
    try:
        dive(sys.getrecursionlimit() - depth() - left)
    except RecursionError as error:
        raised = error
    if raised is not None and os.path.dirname(fapilog.__file__) in traceback.extract_tb(raised.__traceback__)[-1].filename:
        os._exit(7)  # a call of ours was entered, and raised
    log.warning("after", left=left)
    done = fapilog.flush(10)
    log.warning("count", left=left, fit=raised is None, refused=fapilog.statistics().refused, complete=done.complete)
    os._exit(not fapilog.flush(10).complete)


for left in [*range(1, 40), *range(40, 260, 15)]:
    child = os.fork()
    if not child:
        first(left)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, (left, code)
    print(left)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("method", "configured"),
    [
        ("info", True),
        only_matrix("info", False),
        *(only_matrix(*each) for each in itertools.product(("debug", "exception", "log", "core"), (True, False))),
        *(only_matrix(each, True) for each in ("warning", "stdlib")),  # which are there once somebody has configured
    ],
)
def test_the_first_call_of_a_process_at_the_end_of_the_stack(method: str, configured: bool, tmp_path: Path) -> None:
    """It raises nothing and is written or counted; set-up is not cut short, so that all that comes later is delivered."""
    env = {"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl", "FAPILOG_JOURNAL": "on"}
    result = run_script(FIRST_CALL.format(method=method, configured=configured), tmp_path, env=env)
    lefts = list(map(int, ran_well(result).split()))
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["left"] for line in lines if line["event"] == "after"] == lefts
    counts = [line for line in lines if line["event"] == "count"]
    assert all(line["complete"] for line in counts)
    fit = sum(line["fit"] for line in counts)
    deep = sum(line["event"] == "deep" for line in lines)
    exhausted = sum(line["refused"].pop("stack_exhausted", 0) for line in counts)
    assert not any(line["refused"] for line in counts)
    if method == "debug":  # stopped by its level, which nobody knows at the end of the stack of a process that has not started
        assert deep == 0
        assert exhausted <= fit
    else:
        assert deep + exhausted == fit
        assert deep >= sum(left > 230 for left in lefts)
    assert fit >= len(lefts) - (8 if method == "stdlib" else 3)  # the frames before ours


def test_the_first_call_of_a_program_with_a_low_recursion_limit(tmp_path: Path) -> None:
    """It is delivered: what set-up would like to have left of the stack is not more than such a program has."""
    script = "import sys, fapilog; log = fapilog.get_logger(); sys.setrecursionlimit(150); log.info('first')"
    ran_well(run_script(script, tmp_path, env={"FAPILOG_SINKS": "file", "FAPILOG_FILE_PATH": "out.jsonl"}))
    assert [line["event"] for line in read_lines(tmp_path / "out.jsonl")] == ["first", "fapilog.closed"]


# -- O-VAL-4: the caller's objects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caught", [LIMIT, 1024], indirect=True)
def test_the_callers_nested_objects(caught) -> None:
    """They are equal to what they were, and the same ones, on the fast, the slow and the cutting way (O-VAL-4)."""
    value = {
        "a": [1, {"b": {2, 3}}],
        5: (1, 2),
        "big": ["x" * 100] * 100,
        "password": {"token": ["t"]},
        "url": "a://b:c@d/?token=1",
    }
    before, same = copy.deepcopy(value), snapshot(value)
    for beside in (1, 2**70, hostile.FightingStr("x")):
        caught.log.info("e", value=value, beside=beside)
        caught.taken()
        assert value == before
        assert snapshot(value) == same


def test_fields_that_are_reused(caught) -> None:
    """The dict given with ** and the one that queue_sink gets are not changed (O-VAL-4)."""
    fields = {"pid": 1, "exc_info": ValueError("x"), "level": "mine", "password": "p", "stack_info": True}
    before = dict(fields)
    caught.log.info("e", **fields)
    bound = caught.log.bind(**fields)
    bound.info("e")
    bound.info("e")
    event_dict = {"event": "e", **fields}
    with pytest.raises(structlog.DropEvent):
        fapilog.queue_sink(None, "info", event_dict)
    assert fields == before
    assert event_dict == {"event": "e", **before}
    shown = [{k: v for k, v in strict(head).items() if k not in {"timestamp", "stack"}} for head in caught.heads]
    assert shown[1] == shown[2]


def test_values_that_change_after_the_call(tmp_path) -> None:
    """Each of two sinks shows the values at call time, at every level of nesting (O-VAL-4)."""
    memory = RecordingSink()
    path = tmp_path / "out.jsonl"
    with process_restored():
        fapilog.configure_logging(sinks=["file", memory], file_path=str(path), run_dir=str(tmp_path / "run"))
        log = fapilog.get_logger("case")
        value: dict[str, Any] = {"n": 0, "deep": {"n": 0, "list": [0]}, "odd": {1: bytearray(b"0")}, "array": np.zeros(1)}
        log.info("e", value=value)
        value["n"] = value["deep"]["n"] = value["deep"]["list"][0] = value["array"][0] = 1
        value["odd"][1][:] = b"1"
        assert fapilog.flush(10).complete
        for found in (read_lines(path)[0], memory.own()[0]):
            assert found["value"] == {"n": 0, "deep": {"n": 0, "list": [0]}, "odd": {"1": "0"}, "array": [0.0]}


@pytest.mark.matrix
def test_a_dict_that_another_thread_changes(tmp_path) -> None:
    """Of 10,000 events none is lost and none raises, in two sinks (O-VAL-4)."""
    memory = RecordingSink()
    path = tmp_path / "out.jsonl"
    value: dict[Any, Any] = {"deep": {}, "set": set()}
    stop = threading.Event()

    def change() -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            value["deep"][n % 50 if n % 3 else f"k{n % 70}"] = [n]
            value["set"].add(n % 40)
            value[n % 20] = n
            if n % 200 == 0:
                value["deep"].clear()
                value["set"].clear()

    with process_restored():
        fapilog.configure_logging(
            sinks=["file", memory],
            file_path=str(path),
            run_dir=str(tmp_path / "run"),
            queue_overflow="block",
            queue_block_timeout=20,
        )
        thread = threading.Thread(target=change)
        thread.start()
        try:
            log = fapilog.get_logger("case")
            for n in range(10_000):
                log.info("e", n=n, value=value)
        finally:
            stop.set()
            thread.join()
        assert fapilog.flush(20).complete
        for lines in (read_lines(path), memory.own()):
            assert [line["n"] for line in lines if "n" in line] == list(range(10_000))
            assert not any("pipeline_error" in line for line in lines)
