"""encoding.py: whatever the fields hold, one strict JSON object."""

from __future__ import annotations

import collections
import copy
import dataclasses
import decimal
import enum
import importlib
import json
import re
import time
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fapilog.encoding import encode_open
from tests._support import only_matrix, ran_well, rest_in_matrix, run_script, strict

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 262_144
CUT = re.compile(r"\.\.\.\[cut: (\d+) (bytes|items)\]")


def encoded(record: dict[Any, Any], max_bytes: int = LIMIT) -> bytes:
    raw = encode_open(record, max_bytes)
    assert type(raw) is bytes
    assert b"\n" not in raw
    assert b"\r" not in raw
    return raw + b"}"


def decoded(record: dict[Any, Any], max_bytes: int = LIMIT) -> dict[str, Any]:
    return strict(encoded(record, max_bytes))


def one(value: Any, max_bytes: int = LIMIT) -> Any:
    """Encode *value* alone and deep inside a list; both must say the same; return it."""
    alone = decoded({"event": "e", "value": value}, max_bytes)["value"]
    inside = decoded({"event": "e", "value": [[{"here": value}]]}, max_bytes)["value"][0][0]["here"]
    assert inside == alone
    return alone


class Colour(enum.Enum):
    RED = "red"
    BIG = 2**70


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


class Metres(float):
    pass


class HostileRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class HostileStr:
    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __repr__(self) -> str:
        return "<hostile str>"


class HostileAll:
    __hash__ = object.__hash__

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError


class HostileMapping(collections.UserDict):
    def items(self):
        raise RuntimeError("no items")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def lie(_self: Any) -> Any:
    raise RuntimeError("no class")


LyingClass = type("LyingClass", (), {"__class__": property(lie)})


class Endless:
    """Its text form is a new object of the same kind, for ever."""

    def __repr__(self) -> str:
        return f"<{Endless()!r}>"


TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30))])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([*Colour, Metres(1.5), object]),
    st.builds(HostileRepr),
    st.builds(HostileStr),
    st.builds(HostileAll),
    st.builds(HostileMapping),
    st.builds(ValueError, TEXT),
)
KEYS = st.one_of(
    TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=5), st.tuples(st.integers(), TEXT), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=5),
        st.builds(Point, inner, inner),
        st.sets(st.one_of(st.integers(), TEXT, st.binary(max_size=3)), max_size=4),
        st.frozensets(st.one_of(st.floats(), TEXT), max_size=4),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(collections.OrderedDict, st.dictionaries(KEYS, inner, max_size=3)),
    ),
    max_leaves=25,
)


def shape(value: Any) -> Any:
    """Return what can be compared of a nested value: types, identities of leaves, order."""
    if isinstance(value, dict):
        return dict, [(id(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, Point):
        return Point, shape(value.x), shape(value.y)
    return id(value)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=6), st.sampled_from([1024, LIMIT]))
def test_arbitrary_nested_values(record: dict[str, Any], max_bytes: int) -> None:
    """The result is one strict JSON object in UTF-8 without a raw newline, and the caller's objects are unchanged (O-VAL-1)."""
    before = shape(record)
    strict(encoded(record, max_bytes))
    assert shape(record) == before


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=-(10**600), max_value=10**600))
def test_integers_of_any_size(number: int) -> None:
    """Every digit is kept, alone and deep inside (O-VAL-1)."""
    assert one(number) == number


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**60])
def test_integers_at_the_edges(number: int) -> None:
    """The digits in the line are exactly those of the number (O-VAL-1)."""
    assert str(number).encode() in encoded({"event": "e", "n": number})
    assert one(number) == number


def test_an_integer_beyond_the_digit_limit_of_the_interpreter() -> None:
    """It is shown whole in hexadecimal, which has no such limit."""
    number = 1 << 100_000
    assert int(one(number), 16) == number


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_json_cannot_say(number: float) -> None:
    """They become null, never a NaN token (O-VAL-1)."""
    assert one(number) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (decimal.Decimal("1.50"), "1.50"),
        (b"abc\xff", "abc\\xff"),
        (Colour.RED, "red"),
        (Colour.BIG, 2**70),
        (Point(1, "a"), {"x": 1, "y": "a"}),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        ((1, "a", None), [1, "a", None]),
        ({7}, [7]),
    ],
)
def test_the_form_of_common_types(value: Any, shown: Any) -> None:
    """Each has one form, the same on the fast and on the slow way (O-VAL-1)."""
    assert one(value) == shown
    assert decoded({"event": "e", "value": value, "slow": 2**70})["value"] == shown


def test_a_subclass_of_float() -> None:
    """Its value is shown on the slow way too, as numpy's float64 is such a class (O-VAL-1)."""
    assert float(decoded({"event": "e", "value": Metres(1.5)})["value"]) == 1.5
    assert float(decoded({"event": "e", "value": Metres(1.5), "slow": 2**70})["value"]) == 1.5


def test_keys_that_become_equal_as_text() -> None:
    """Neither 1 nor "1" overwrites the other, whatever their order (O-VAL-1)."""
    assert sorted(one({1: "int", "1": "str"}).values()) == ["int", "str"]
    assert sorted(one({"1": "str", 1: "int", b"1": "bytes"}).values()) == ["bytes", "int", "str"]


def test_keys_of_the_record_itself_that_become_equal_as_text() -> None:
    """Both values are in the line, also when the line has to be cut (O-VAL-1)."""
    found = decoded({"event": "e", 1: "int", "1": "str"})
    assert {"int", "str"} <= set(found.values())
    found = decoded({"event": "e", 1: "int", "1": "str", "big": "x" * 5000}, 1024)
    assert {"int", "str"} <= set(found.values())


def test_thousands_of_keys_with_the_same_text() -> None:
    """All are kept, and the call stays cheap."""

    class Key:
        def __str__(self) -> str:
            return "k"

    value = {Key(): index for index in range(3000)}
    began = time.thread_time()
    found = decoded({"event": "e", "value": value}, 16 << 20)["value"]
    took = time.thread_time() - began
    assert sorted(found.values()) == list(range(3000))
    assert took < 0.5


@pytest.mark.parametrize(
    "key", [None, True, 1.5, float("nan"), (1, 2), b"x\xff", date(2026, 1, 2), Colour.RED, HostileAll(), "\udc80", "a\nb"]
)
def test_keys_of_any_type(key: Any) -> None:
    """The value is kept under some text (O-VAL-1)."""
    assert list(one({key: "kept"}).values()) == ["kept"]


@pytest.mark.parametrize("where", ["event", "value", "key", "nested", "bytes"])
def test_lone_surrogates(where: str) -> None:
    """The line is valid UTF-8 and shows the odd character escaped (O-VAL-2)."""
    odd = "a\udc80b\ud83d"
    records: dict[str, dict[str, Any]] = {
        "event": {"event": odd},
        "value": {"event": "e", "value": odd},
        "key": {"event": "e", odd: 1},
        "nested": {"event": "e", "value": [{"x": (odd,)}]},
        "bytes": {"event": "e", "value": odd.encode("utf-8", "surrogatepass")},
    }
    line = encoded(records[where])
    strict(line)
    assert b"80b" in line


def test_line_ends_and_control_characters() -> None:
    """They are escaped in the line and decode to what they were (O-SEC-1)."""
    text = "a\r\nb\x00\x1b[2J\u2028\u2029\u0085\u202e"
    assert one(text) == text
    assert list(one({text: 1})) == [text]


def test_a_dict_that_holds_itself() -> None:
    """The cycle is cut with a mark (O-VAL-3)."""
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    found = one(value)
    assert found["a"] == 1
    assert "[cut: cycle]" in json.dumps(found)


def test_two_lists_that_hold_each_other() -> None:
    """The cycle is cut with a mark (O-VAL-3)."""
    left: list[Any] = ["left"]
    right: list[Any] = ["right", left]
    left.append(right)
    assert "[cut: cycle]" in json.dumps(one(left))


def test_a_dataclass_in_its_own_list() -> None:
    """The cycle is cut with a mark (O-VAL-3)."""
    point = Point(1, [])
    point.y.append(point)
    assert "[cut: cycle]" in json.dumps(one(point))


def test_the_same_object_twice_without_a_cycle() -> None:
    """It is shown in full both times (O-VAL-3)."""
    shared = {"a": [1, 2], "n": 2**70}
    assert one([shared, shared]) == [shared, shared]


NESTED = """
import dataclasses, json, re, sys
from fapilog.encoding import MAX_DEPTH, encode_open

@dataclasses.dataclass
class Point:
    x: object

value = "bottom"
for _ in range({depth}):
    value = {wrap}
found = json.loads(encode_open({{"event": "e", "value": value}}, 262144) + b"}}")["value"]
text = json.dumps(found)
assert re.search(r"[.]{{3}}\\[cut: \\d+ (bytes|items)\\]", text), text[:200]
assert text.count("[") + text.count("{{") <= MAX_DEPTH + 2
print("cut", flush=True)
import os
os._exit(0)  # not every type takes a deep nest apart without recursion
"""
WRAPS = {"both": "[(value,)]", "dataclass": "Point(value)", "list": "[value]", "dict": "{'k': value}", "tuple": "(value,)"}


@pytest.mark.parametrize("depth", [only_matrix(300), only_matrix(5_000), 100_000])
@pytest.mark.parametrize("kind", rest_in_matrix(2, WRAPS))
def test_deep_nesting(depth: int, kind: str, tmp_path: Path) -> None:
    """It is cut at a stated depth with a mark, and the process lives (O-VAL-3)."""
    assert ran_well(run_script(NESTED.format(depth=depth, wrap=WRAPS[kind]), tmp_path)) == "cut\n"


CYCLES = {
    "list in dict": "value = {}; value['k'] = [(value, 1)]",
    "list": "value = []; value.append((value,))",
    "dict": "value = {}; value['k'] = (value,)",
    "object": "import types; value = types.SimpleNamespace(); value.k = (value,)",
}


@pytest.mark.parametrize("kind", rest_in_matrix(1, CYCLES))
def test_a_cycle_that_goes_through_a_tuple(kind: str, tmp_path: Path) -> None:
    """It is cut with a mark, and the process lives (O-VAL-3)."""
    code = f"""
        import json
        from fapilog.encoding import encode_open
        {CYCLES[kind]}
        print(json.loads(encode_open({{"event": "e", "value": value}}, 262144) + b"}}")["event"])
        """
    assert ran_well(run_script(code, tmp_path)) == "e\n"


def test_an_object_whose_text_form_never_ends() -> None:
    """It is named instead (O-VAL-3)."""
    assert "Endless" in one(Endless())


@pytest.mark.parametrize("kind", [HostileRepr, HostileStr, HostileAll, HostileMapping, LyingClass])
def test_hostile_objects(kind: type) -> None:
    """The call does not raise, and the other fields are whole."""
    value = kind()
    found = decoded({"event": "e", "value": value, "other": [1]})
    assert found["other"] == [1]
    assert decoded({"event": "e", "value": [value, 2**70], "other": [1]})["other"] == [1]


def test_an_exception_of_baseexception_kind_from_a_repr() -> None:
    """It passes: BaseExceptions of user code are not ours to swallow."""

    class Quits:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_open({"event": "e", "value": Quits()}, LIMIT)


def test_the_callers_nested_objects() -> None:
    """They are equal to what they were before, on the fast, the slow and the cutting way (O-VAL-4)."""
    value = {"a": [1, {"b": {2, 3}}], 5: (1, 2), "big": ["x" * 100] * 100}
    before = copy.deepcopy(value)
    for max_bytes in (LIMIT, 1024):
        encoded({"event": "e", "value": value}, max_bytes)
        encoded({"event": "e", "value": value, "n": 2**70}, max_bytes)
        assert value == before


@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f600", "\x00", "\udc80", '"'])
def test_a_text_that_is_too_long(character: str) -> None:
    """It is cut so that the line fits, ends in the mark and the mark names its original size in bytes."""
    text = character * 400_000
    line = encoded({"event": "e", "value": text, "after": 1})
    assert len(line) <= LIMIT
    found = strict(line)
    assert found["after"] == 1
    mark = CUT.search(found["value"])
    assert mark is not None
    assert found["value"].endswith(mark.group())
    assert mark.groups() == (str(len(text.encode("utf-8", "surrogatepass"))), "bytes")


def test_a_collection_that_is_too_long() -> None:
    """It is cut and the mark names its original number of items."""
    items = ["x" * 200 for _ in range(2_000)]
    line = encoded({"event": "e", "value": items})
    assert len(line) <= LIMIT
    assert CUT.findall(json.dumps(strict(line)["value"]))[-1] == ("2000", "items")


@pytest.mark.parametrize("value", [list(range(1_000_000)), set(range(300_000)), {str(n): n for n in range(300_000)}])
def test_a_collection_of_very_many_items(value: Any) -> None:
    """It is cut with the original number of items in the mark, and the line fits."""
    line = encoded({"event": "e", "value": value})
    assert len(line) <= LIMIT
    assert CUT.findall(line.decode())[-1] == (str(len(value)), "items")


@pytest.mark.parametrize("count", [100, 3_000, 10_000])
def test_very_many_small_fields(count: int) -> None:
    """Also a line without any large value fits its limit, and says that something is missing."""
    limit = 1024
    record: dict[str, Any] = {"event": "e", **{f"field{n}": "v" * 40 for n in range(count)}}
    began = time.perf_counter()
    line = encoded(record, limit)
    took = time.perf_counter() - began
    assert took < 0.5
    assert len(line) <= limit + 200
    assert strict(line)["event"] == "e"
    assert CUT.search(line.decode())


def test_a_key_that_is_too_long() -> None:
    """The line fits its limit and the event is still there."""
    line = encoded({"event": "e", "k" * 1_000_000: 1})
    assert len(line) <= LIMIT + 200
    assert strict(line)["event"] == "e"


def test_an_event_text_that_is_too_long_beside_small_fields() -> None:
    """Only the large one is cut."""
    found = decoded({"event": "x" * 10_000, "a": 1, "b": "short"}, 1024)
    assert found["event"].endswith("...[cut: 10000 bytes]")
    assert (found["a"], found["b"]) == (1, "short")


def test_the_cost_of_a_huge_value() -> None:
    """A value of 20 MB costs far less than a second (budget: 100 ms on an idle machine)."""
    began = time.perf_counter()
    encoded({"event": "e", "value": "x" * 20_000_000})
    assert time.perf_counter() - began < 1


MULTIPLE = [("a", "1"), ("a", "2"), ("token", "zq1"), ("b", "3"), ("token", "zq2")]


@pytest.mark.parametrize(
    "kind",
    [
        "starlette.datastructures.MultiDict",
        "starlette.datastructures.QueryParams",
        "starlette.datastructures.FormData",
        "httpx.QueryParams",
        "httpx.Headers",
        "werkzeug.datastructures.MultiDict",
        "werkzeug.datastructures.ImmutableMultiDict",
        "werkzeug.datastructures.CombinedMultiDict",
        "werkzeug.datastructures.Headers",
    ],
)
def test_a_mapping_with_several_values_for_a_key(kind: str) -> None:
    """All are shown, in names of their own, and what is secret is masked each time."""
    module, _, name = kind.rpartition(".")
    pytest.importorskip(module.partition(".")[0])
    made: Any = getattr(importlib.import_module(module), name)
    if name == "CombinedMultiDict":
        single = importlib.import_module(module).MultiDict
        value = made([single([pair]) for pair in MULTIPLE])
    else:
        value = made(MULTIPLE)
    shown = one(value)
    assert {key.lower(): item for key, item in shown.items()} == {"a": "1", "a_": "2", "token": "***", "b": "3", "token_": "***"}


def test_a_mapping_of_django_with_several_values_for_a_key() -> None:
    """All are shown; a key without any has an empty list."""
    datastructures = pytest.importorskip("django.utils.datastructures")
    assert one(datastructures.MultiValueDict({"a": [1, 2], "none": []})) == {"a": 1, "a_": 2, "none": []}


def test_a_mapping_with_very_many_values_for_a_key() -> None:
    """It is cut as any other."""
    structures = pytest.importorskip("starlette.datastructures")
    shown = decoded({"value": structures.MultiDict([("a", n) for n in range(20_000)])})["value"]
    assert shown["..."].startswith("...[cut: ")
    assert len(shown) <= 5_001
