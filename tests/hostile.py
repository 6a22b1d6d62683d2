"""
Values that fight back, by name, and what tests of them need: limits of time and memory, a snapshot that asks the value nothing.

`CATALOGUE` maps a name to a function that makes a new value; `KEYS` does so for what can be a key. Some are ordinary types of the
standard library, numpy, attrs and pydantic: what applications log without a thought.
"""

from __future__ import annotations

import array
import asyncio
import collections
import collections.abc
import contextlib
import ctypes
import dataclasses
import datetime  # noqa: ICN001 - its types are what this is about
import decimal
import enum
import fractions
import functools
import gc
import io
import ipaddress
import itertools
import operator
import pathlib
import re
import resource
import signal
import sys
import threading
import types
import typing
import unittest.mock
import uuid
import weakref
import zoneinfo
from typing import TYPE_CHECKING, Any, NamedTuple

import attr
import numpy as np
import pydantic

import fapilog
from fapilog._internal.route import route
from tests._support import process_restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_BYTES = 3 << 30
ROOT = pathlib.Path(__file__).parent.parent


class Hung(BaseException):
    """Raised in the main thread when a call takes too long; a BaseException, so that a log call lets it pass."""


@contextlib.contextmanager
def limits(seconds: float = 20):
    """Let nothing inside take more than some seconds of CPU or memory: a value without end shall fail a test, not the machine."""

    def hung(_signum: int, _frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGPROF, hung)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def caught_heads(**settings: Any):
    """Configure with *settings* and put a list in place of the queue; it gets each event as the bytes of a JSON object."""
    heads: list[bytes] = []

    def accept(_levelno: int, head: bytes) -> bool:
        heads.append(head + b"}")
        return True

    with process_restored():
        fapilog.configure_logging(**settings)
        route.accept = accept
        yield heads


def fight(*_args: Any, **_options: Any) -> Any:
    raise RuntimeError("fight")


class UnprintableError(Exception):
    """Has no text at all."""

    __str__ = __repr__ = fight


class ClasslessError(Exception):
    """Does not tell its class."""

    __class__ = property(fight)


class HalfMadeError(Exception):
    """Did not call its base class, and asks for two arguments."""

    def __init__(self, first: object, second: object) -> None:
        self.first, self.second = first, second


ERRORS = (RuntimeError, RecursionError, MemoryError, StopIteration, AttributeError, TypeError, UnprintableError)
METHODS = (
    *("__repr__", "__str__", "__format__", "__bytes__", "__fspath__", "__index__", "__int__", "__float__", "__complex__"),
    *("__hash__", "__eq__", "__bool__", "__len__", "__length_hint__", "__iter__", "__next__", "__getitem__", "__contains__"),
    *("__getattr__", "__getattribute__", "__dir__", "__reduce__", "__reduce_ex__", "__sizeof__", "__copy__", "__deepcopy__"),
    *("__call__", "__del__x", "__array__", "__json__", "__rich__", "keys", "items", "values", "tolist", "item", "_asdict"),
    *("isoformat", "model_dump", "model_dump_json", "dict", "json", "to_dict", "serialize", "__structlog__"),
)
ATTRIBUTES = (
    *(
        "__class__",
        "__dict__",
        "__doc__",
        "__module__",
        "__dataclass_fields__",
        "__attrs_attrs__",
        "model_fields",
        "__pydantic_fields__",
    ),
    *(
        "__pydantic_serializer__",
        "dtype",
        "shape",
        "ndim",
        "value",
        "name",
        "_fields",
        "__name__",
        "__array_interface__",
        "__slots__x",
    ),
)
LIES = (
    *(dict, list, tuple, set, frozenset, str, int, float, bool, bytes, bytearray, complex, type(None), type, object),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, pathlib.Path, enum.Enum),
    *(BaseException, ExceptionGroup, collections.abc.Mapping, collections.abc.Sequence, collections.deque, array.array),
    *(np.ndarray, np.float64, np.generic, pydantic.BaseModel, 5, "dict", None),
)


def raising(name: str, error: type[Exception]) -> Callable[[], Any]:
    """Make a maker of objects whose method or attribute *name* raises *error*."""

    def method(*_args: Any, **_options: Any) -> Any:
        raise error("fight")

    made = property(method) if name in ATTRIBUTES else method
    return type(f"Raising_{name}", (), {name: made, "public": 1} | ({} if name == "__hash__" else {"__hash__": object.__hash__}))


def lying(name: object) -> Callable[[], Any]:
    """Make a maker of objects whose `__class__` is *name*."""
    return type("Liar", (), {"__class__": property(lambda _self: name)})


def sub(base: type, *names: str, with_: Any = fight, **methods: Any) -> Any:
    """Make a subclass of *base* in which *names* are overridden."""
    members = dict.fromkeys(names, with_) | methods
    if base.__hash__ is not None:
        members.setdefault("__hash__", base.__hash__)
    return type(f"Sub{base.__name__}", (base,), members)


ALL_TEXT = ("__str__", "__repr__", "__format__")
FightingStr = sub(
    str,
    *ALL_TEXT,
    "__len__",
    "__iter__",
    "__getitem__",
    "__eq__",
    "__contains__",
    "encode",
    "isascii",
    "lower",
    "casefold",
    "replace",
)
LyingStr = sub(str, *ALL_TEXT, "lower", "casefold", "upper", "encode", with_=lambda *_a, **_k: "a lie")
FightingInt = sub(
    int, *ALL_TEXT, "__int__", "__index__", "__lt__", "__le__", "__ge__", "__gt__", "__abs__", "__eq__", "bit_length"
)
FightingFloat = sub(float, *ALL_TEXT, "__float__", "__int__", "__eq__", "__lt__", "is_integer", "hex")
FightingBytes = sub(bytes, *ALL_TEXT, "__len__", "__iter__", "__getitem__", "decode", "hex")
FightingDatetime = sub(datetime.datetime, *ALL_TEXT, "isoformat", "utcoffset", "astimezone", "strftime", "timetuple")
FightingZone = sub(datetime.tzinfo, *ALL_TEXT, "utcoffset", "tzname", "dst", "fromutc")


def endless(*_args: Any) -> Iterator[Any]:
    return itertools.count()


def endless_pairs(*_args: Any) -> Iterator[Any]:
    return ((n, n) for n in itertools.count())


def endless_in_python(*_args: Any) -> Iterator[Any]:
    while True:
        yield 1


def one_key(*_args: Any) -> Iterator[Any]:
    return iter(["k"])


def mapping(base: type = collections.abc.Mapping, **methods: Any) -> Any:
    """Make a mapping out of odd methods."""
    plain = {"__iter__": one_key, "__len__": lambda _self: 1, "__getitem__": lambda _self, _key: 1}
    return type("OddMapping", (base,), plain | methods)


def sequence(**methods: Any) -> Any:
    """Make a sequence out of odd methods."""
    plain = {"__len__": lambda _self: 1, "__getitem__": lambda _self, index: (1,)[index]}
    return type("OddSequence", (collections.abc.Sequence,), plain | methods)


def iterable_set(**methods: Any) -> Any:
    """Make a set out of odd methods."""
    plain = {"__len__": lambda _self: 1, "__iter__": one_key, "__contains__": lambda _self, _item: True}
    return type("OddSet", (collections.abc.Set,), plain | methods)


class EndlessMapping(collections.abc.Mapping):
    __iter__ = one_key

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: object) -> EndlessMapping:
        return EndlessMapping()


class EndlessSequence(collections.abc.Sequence):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (EndlessSequence(), EndlessSequence())[index]


class EndlessText:
    def __str__(self) -> str:
        return f"<{EndlessText()}>"

    __repr__ = __str__


@dataclasses.dataclass
class EndlessDataclass:
    x: Any = None

    def __getattribute__(self, name: str) -> Any:
        return EndlessDataclass() if name == "x" else object.__getattribute__(self, name)


@attr.define(slots=False)
class EndlessAttrs:
    x: Any = None

    def __getattribute__(self, name: str) -> Any:
        return EndlessAttrs() if name == "x" else object.__getattribute__(self, name)


class EndlessModel(pydantic.BaseModel):
    x: Any = None

    def model_dump(self, **_options: Any) -> Any:
        return {"again": EndlessModel()}

    def __getattribute__(self, name: str) -> Any:
        return EndlessModel() if name == "x" else super().__getattribute__(name)


class EndlessTuple(collections.namedtuple("EndlessTuple", "x", defaults=[None])):  # noqa: PYI024, SLOT002 - NamedTuple lets no method be overridden
    def _asdict(self) -> Any:
        return {"x": EndlessTuple()}


class EveryAttribute:
    """Has each attribute anybody asks for, and it is callable, as with a proxy of a remote object."""

    def __getattr__(self, name: str) -> Any:
        return EveryAttribute()

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        return EveryAttribute()


class HostileMeta(type):
    """Its classes do not tell their name, and cannot be looked up or compared."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("no attribute of the class")

    __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = __repr__ = __str__ = fight


class OfHostileMeta(metaclass=HostileMeta):
    pass


class NamelessMeta(type):
    __name__ = __module__ = property(fight)
    __repr__ = fight


class OfNamelessMeta(metaclass=NamelessMeta):
    __repr__ = fight


class HashedOnce:
    """Could be put into a dict; its hash raises from then on."""

    def __init__(self) -> None:
        self.hashed = False

    def __hash__(self) -> int:
        if self.hashed:
            raise RuntimeError("no second hash")
        self.hashed = True
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


class SameText:
    """Distinct keys with one text."""

    def __str__(self) -> str:
        return "k"

    __repr__ = __str__


class Colour(enum.Enum):
    RED = "red"
    BIG = 2**70
    ODD = "\udc80"
    PAIR = (1, (2, 3))
    TABLE = {"a": {1, 2}}  # noqa: RUF012 - a value
    NOT = float("nan")


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    HELLO = "hello"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class RightsInt(enum.IntFlag, boundary=enum.KEEP):
    READ = 1


class ValuelessEnum(enum.Enum):
    X = 1

    @property
    def value(self) -> Any:
        raise RuntimeError("no value")

    name = value


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Point:
    x: Any = 1
    y: Any = 2


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any = 1
    y: Any = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any = 1


@dataclasses.dataclass
class RaisingProperty:
    x: Any = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise RuntimeError("no x")
        return object.__getattribute__(self, name)


@dataclasses.dataclass
class LateField:
    x: Any = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class LyingFields:
    x: Any = 1


LyingFields.__dataclass_fields__ = 5  # type: ignore[assignment]


@attr.define
class Attrs:
    x: Any = 1
    y: Any = 2


@attr.s
class OldAttrs:
    x = attr.ib(default=1)


class Model(pydantic.BaseModel):
    x: Any = 1
    y: Any = 2


class Computing(pydantic.BaseModel):
    x: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.x * 2


class ComputingBadly(pydantic.BaseModel):
    x: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def worse(self) -> int:
        raise RuntimeError("cannot compute")


class NoDump(pydantic.BaseModel):
    x: int = 1

    model_dump = model_dump_json = __iter__ = __repr__ = __str__ = __repr_args__ = fight


class BadSerializer(pydantic.BaseModel):
    x: int = 1

    @pydantic.field_serializer("x")
    def serialized(self, _value: int) -> int:
        raise RuntimeError("no serializer")


class Open(pydantic.BaseModel, extra="allow"):
    x: int = 1


class Root(pydantic.RootModel[list[Any]]):
    pass


class Structure(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int),)


def without(made: Any, name: str) -> Any:
    """Return *made* without its attribute *name*."""
    object.__delattr__(made, name)
    return made


def circular(made: Any) -> Any:
    """Return *made*, which holds itself as `x`."""
    made.x = made
    return made


def circular_list(*_args: Any) -> list[Any]:
    made: list[Any] = [1]
    made.append((made,))
    return made


def circular_dict() -> dict[Any, Any]:
    made: dict[Any, Any] = {1: 1}
    made["again"] = [made]
    return made


def deep(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = wrap(value)
    return value


def raised(error: BaseException) -> BaseException:
    """Return *error* with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def dead_proxy() -> Any:
    return weakref.proxy(SameText())


def released_view() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def closed_file() -> Any:
    made = io.StringIO("text")
    made.close()
    return made


def closed_coroutine() -> Any:
    async def nothing() -> None:
        """Do nothing."""

    made = nothing()
    made.close()
    return made


def closed_loop() -> Any:
    loop = asyncio.SelectorEventLoop()
    loop.close()
    return loop


def broken_iterator() -> Any:
    changed = {1: 1, 2: 2}
    made = iter(changed)
    changed[3] = 3
    return made


def self_referring_array() -> Any:
    made = np.empty(2, dtype=object)
    made[0] = made
    return made


def dtype_arrays() -> dict[str, Callable[[], Any]]:
    """Return an array and a scalar of every dtype."""
    codes = [*"?bBhHiIlLqQefdgFDGSUVmM", "S3", "U3", "V3", "M8[ns]", "M8[D]", "M8[Y]", "m8[us]", ">f8", "<f8", ">i2", ">U2", "O"]
    return {
        f"numpy {code} {form}": functools.partial(make, code)
        for code in codes
        for form, make in {
            "array": lambda code: np.zeros(3, dtype=code),
            "scalar": lambda code: np.zeros(1, dtype=code)[0],
            "0-d": lambda code: np.zeros((), dtype=code),
        }.items()
    }


NUMPY: dict[str, Callable[[], Any]] = {
    **dtype_arrays(),
    "numpy nan": lambda: np.array([np.nan, np.inf, -np.inf]),
    "numpy nan scalar": lambda: np.float64("nan"),
    "numpy float16 inf": lambda: np.float16("inf"),
    "numpy uint64 max": lambda: np.uint64(2**64 - 1),
    "numpy NaT": lambda: np.array(["NaT", "2026-01-01"], dtype="M8[s]"),
    "numpy year 10000": lambda: np.datetime64("12345-01-01"),
    "numpy structured": lambda: np.zeros(2, dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", [("d", "U3")])]),
    "numpy record": lambda: np.array([(1, "x"), (2, "y")], dtype=[("a", int), ("b", "U1")]).view(np.recarray),
    "numpy void": lambda: np.zeros(1, dtype=[("a", "i4")])[0],
    "numpy object": lambda: np.array([{1: 2}, "\udc80", SameText(), 2**70], dtype=object),
    "numpy object fighting": lambda: np.array([raising("__repr__", RuntimeError)(), FightingStr("x")], dtype=object),
    "numpy in itself": self_referring_array,
    "numpy surrogate": lambda: np.array(["\udc80"]),
    "numpy strided": lambda: np.arange(20).reshape(4, 5)[::2, ::-2],
    "numpy big endian": lambda: np.arange(3, dtype=">i8"),
    "numpy fortran": lambda: np.asfortranarray(np.arange(6).reshape(2, 3)),
    "numpy 5-d": lambda: np.zeros((2, 1, 2, 1, 2)),
    "numpy empty": lambda: np.zeros((0, 3)),
    "numpy 40-d": lambda: np.zeros((1,) * 30),
    "numpy broadcast": lambda: np.broadcast_to(np.int8(1), (10**6, 10**6)),
    "numpy masked": lambda: np.ma.array([1, 2], mask=[True, False]),
    "numpy masked one": lambda: np.ma.masked,
    "numpy readonly": lambda: np.frombuffer(b"12345678", dtype="i4"),
    "numpy dtype": lambda: np.dtype("f8"),
    "numpy ufunc": lambda: np.add,
    "numpy generator": lambda: np.random.default_rng(1),
    "numpy matrix": lambda: np.eye(300),
    "numpy subclass": lambda: np.zeros(2).view(
        type("SubArray", (np.ndarray,), {"tolist": fight, "__iter__": fight, "dtype": property(fight)})
    ),
}

STANDARD: dict[str, Callable[[], Any]] = {
    "integer over 64 bits": lambda: 10**60,
    "integer over the digit limit": lambda: 10**5000,
    "negative integer over the digit limit": lambda: -(10**5000),
    "decimal nan": lambda: decimal.Decimal("NaN"),
    "decimal snan": lambda: decimal.Decimal("sNaN123"),
    "decimal inf": lambda: decimal.Decimal("-Infinity"),
    "decimal of a huge exponent": lambda: decimal.Decimal("1E+999999"),
    "decimal of many digits": lambda: decimal.Decimal("1." + "3" * 5000),
    "fraction": lambda: fractions.Fraction(1, 3),
    "fraction of huge integers": lambda: fractions.Fraction(10**5000, 3**9000),
    "complex": lambda: complex("nan+infj"),
    "bytes": lambda: b"\x00\xff\xed\xa0\x80",
    "bytearray": lambda: bytearray(b"\xff\x00"),
    "memoryview": lambda: memoryview(b"abc"),
    "memoryview of dimensions": lambda: memoryview(bytes(12)).cast("B", shape=[2, 2, 3]),
    "memoryview strided": lambda: memoryview(b"abcdef")[::2],
    "memoryview of floats": lambda: memoryview(array.array("d", [1.5, float("nan")])),
    "memoryview released": released_view,
    "array": lambda: array.array("d", [1.0, float("nan")]),
    "array of text": lambda: array.array("u", "ab") if sys.version_info < (3, 13) else array.array("w", "ab"),
    "deque": lambda: collections.deque([1, {2: 3}], maxlen=5),
    "ChainMap": lambda: collections.ChainMap({1: 1}, {"1": 2}, {}),
    "MappingProxyType": lambda: types.MappingProxyType({1: {2: 3}}),
    "defaultdict": lambda: collections.defaultdict(list, {1: [2]}),
    "OrderedDict": lambda: collections.OrderedDict({2: 1, 1: 2}),
    "Counter": lambda: collections.Counter("abca"),
    "UserDict": lambda: collections.UserDict({1: [2]}),
    "UserList": lambda: collections.UserList([1, 2]),
    "UserString": lambda: collections.UserString("a\udc80"),
    "range": lambda: range(0, 10**30, 3),
    "slice": lambda: slice(1, None),
    "dict views": lambda: [{1: 2}.keys(), {1: 2}.values(), {1: 2}.items()],
    "generator": lambda: (n for n in range(3)),
    "iterator": lambda: iter([1, 2]),
    "iterator of a changed dict": broken_iterator,
    "count": itertools.count,
    "cycle": lambda: itertools.cycle([1]),
    "map": lambda: map(fight, [1]),
    "text file": lambda: sys.__stderr__,
    "StringIO": lambda: io.StringIO("text"),
    "closed file": closed_file,
    "lock": threading.Lock,
    "thread": threading.current_thread,
    "module": lambda: sys,
    "function": lambda: deep,
    "lambda": lambda: lambda n: n + 1,
    "builtin": lambda: len,
    "partial": lambda: functools.partial(deep, functools.partial(len)),
    "bound method": lambda: "text".upper,
    "itemgetter": lambda: operator.itemgetter(1),
    "property": lambda: Computing.__dict__["double"],
    "class": lambda: Point,
    "class of a hostile metaclass": lambda: OfHostileMeta,
    "generic alias": lambda: list[dict[str, int]],
    "typing alias": lambda: typing.Annotated[int, "x"],
    "TypeVar": lambda: typing.TypeVar("TypeVar"),
    "ellipsis": lambda: [..., NotImplemented],
    "weakref dead": lambda: weakref.ref(SameText()),
    "weak proxy dead": dead_proxy,
    "WeakValueDictionary": weakref.WeakValueDictionary,
    "coroutine": closed_coroutine,
    "event loop": closed_loop,
    "frame": sys._getframe,
    "code": lambda: deep.__code__,
    "traceback": lambda: raised(ValueError()).__traceback__,
    "ctypes structure": lambda: Structure(1),
    "ctypes array": lambda: (ctypes.c_int * 3)(1, 2, 3),
    "UUID": lambda: uuid.UUID(int=5),
    "path": lambda: pathlib.Path("/a/b"),
    "path of surrogates": lambda: pathlib.Path("/a/\udcff"),
    "pure path": lambda: pathlib.PureWindowsPath("c:\\a"),
    "date": lambda: datetime.date.min,
    "datetime naive": lambda: datetime.datetime.max,  # noqa: DTZ901
    "datetime fold": lambda: datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "datetime at the edge": lambda: datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=14))),
    "datetime at the other edge": lambda: datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-14))),
    "datetime with seconds of offset": lambda: datetime.datetime(
        1900, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(minutes=19, seconds=32, microseconds=7))
    ),
    "datetime with a fighting zone": lambda: datetime.datetime(2026, 1, 1, tzinfo=FightingZone()),
    "datetime with an abstract zone": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.tzinfo()),  # type: ignore[abstract]
    "time with a zone": lambda: datetime.time(1, 2, tzinfo=datetime.UTC),
    "time with a fighting zone": lambda: datetime.time(1, 2, tzinfo=FightingZone()),
    "timedelta": lambda: datetime.timedelta.min,
    "zone": lambda: datetime.UTC,
    "ipaddress": lambda: [ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")],
    "pattern": lambda: [re.compile("a\udc80+"), re.compile(b"\xff"), re.match("a", "a")],
    "enum": lambda: list(Colour),
    "IntEnum": lambda: Number.ONE,
    "StrEnum": lambda: Word.HELLO,
    "flag": lambda: [Rights.READ | Rights.WRITE, Rights(0), RightsInt(65)],
    "enum without a value": lambda: ValuelessEnum.__members__["X"],
    "namedtuple": lambda: Pair(1, {2: 3}),
    "SimpleNamespace": lambda: types.SimpleNamespace(x=1, **{"\udc80": 2}),
    "SimpleNamespace in itself": lambda: circular(types.SimpleNamespace()),
    "text": lambda: "\x00\x1b[2J\r\n\u2028\x85\u202e",
    "lone surrogate": lambda: "a\udc80b\ud83d",
    "floats": lambda: [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308],
    "exception": lambda: ValueError("text", {1: 2}),
    "exception raised": lambda: raised(KeyError("k")),
    "exception with surrogates": lambda: OSError(2, "No \udc80", "/a/\udcff"),
    "exception unprintable": UnprintableError,
    "exception classless": ClasslessError,
    "exception half made": lambda: HalfMadeError(1, 2),
    "exception group": lambda: ExceptionGroup("g\udc80", [ValueError(1), ExceptionGroup("h", [UnprintableError()])]),
    "exception class": lambda: UnprintableError,
    "system exit": lambda: SystemExit(3),
    "logger": lambda: fapilog.get_logger("a", bound=1),
    "mock": unittest.mock.Mock,
    "magic mock": unittest.mock.MagicMock,
}

MODELS: dict[str, Callable[[], Any]] = {
    "dataclass": Point,
    "dataclass slots": lambda: Slotted(2**70, {1: 2}),
    "dataclass frozen": Frozen,
    "dataclass whose field raises": RaisingProperty,
    "dataclass without its field": lambda: without(LateField(), "x"),
    "dataclass slots without its field": lambda: without(Slotted(), "x"),
    "dataclass in itself": lambda: circular(Point()),
    "dataclass slots in itself": lambda: circular(Slotted()),
    "dataclass of lying fields": LyingFields,
    "attrs": Attrs,
    "attrs old": OldAttrs,
    "attrs without its field": lambda: without(Attrs(), "x"),
    "attrs in itself": lambda: circular(Attrs()),
    "pydantic": lambda: Model(x={1: 2**70}),
    "pydantic in itself": lambda: circular(Model()),
    "pydantic without fields": Model.model_construct,
    "pydantic unmade": lambda: Model.__new__(Model),
    "pydantic computed": Computing,
    "pydantic computing badly": ComputingBadly,
    "pydantic without a dump": NoDump,
    "pydantic bad serializer": BadSerializer,
    "pydantic wrong values": lambda: Computing.model_construct(x=[object()]),
    "pydantic extra": lambda: Open.model_validate({"x": 1, "more": SameText()}),
    "pydantic root": lambda: Root([1, {2: 3}]),
    "pydantic secrets": lambda: [pydantic.SecretStr("s"), pydantic.SecretBytes(b"s")],
}

SUBCLASSES: dict[str, Callable[[], Any]] = {
    "str fighting": lambda: FightingStr("text"),
    "str fighting surrogate": lambda: FightingStr("\udc80"),
    "str lying": lambda: LyingStr("text"),
    "str of a wrong type": lambda: sub(str, *ALL_TEXT, with_=lambda _self, *_a: 5)("text"),
    "int fighting": lambda: FightingInt(5),
    "int fighting and large": lambda: FightingInt(2**70),
    "int fighting and larger": lambda: FightingInt(10**5000),
    "float fighting": lambda: FightingFloat(1.5),
    "float fighting nan": lambda: FightingFloat("nan"),
    "bytes fighting": lambda: FightingBytes(b"\xff"),
    "bytearray fighting": lambda: sub(bytearray, *ALL_TEXT, "decode", "__len__", "__iter__")(b"\xff"),
    "datetime fighting": lambda: FightingDatetime(2026, 1, 1, tzinfo=datetime.UTC),
    "date fighting": lambda: sub(datetime.date, *ALL_TEXT, "isoformat", "strftime")(2026, 1, 1),
    "timedelta fighting": lambda: sub(datetime.timedelta, *ALL_TEXT, "total_seconds")(1),
    "Decimal fighting": lambda: sub(decimal.Decimal, *ALL_TEXT, "as_tuple", "is_finite")("1.5"),
    "UUID fighting": lambda: sub(uuid.UUID, *ALL_TEXT, "__int__", hex=property(fight))("0" * 32),
    "path fighting": lambda: sub(pathlib.PurePosixPath, *ALL_TEXT, "__fspath__", "as_posix")("/a"),
    "dict whose items raise": lambda: sub(dict, "items", "__iter__", "keys", "values", *ALL_TEXT)({1: 2}),
    "dict whose items lie": lambda: sub(dict, items=lambda _s: [("lie", 1)])({1: 2}),
    "dict whose items are no pairs": lambda: sub(dict, "items", "keys", "__iter__", with_=lambda _s: [1, (2,), "abc"])({1: 2}),
    "dict whose items are a number": lambda: sub(dict, "items", "keys", "__iter__", with_=lambda _s: 5)({1: 2}),
    "dict without end": lambda: sub(dict, items=endless_pairs, keys=endless, __iter__=endless)({1: 2}),
    "dict of negative length": lambda: sub(dict, __len__=lambda _s: -1)({1: 2}),
    "dict of huge length": lambda: sub(dict, __len__=lambda _s: 2**62)({1: 2}),
    "dict of another length": lambda: sub(dict, __len__=lambda _s: "two")({1: 2}),
    "dict whose length raises": lambda: sub(dict, "__len__", "__bool__")({1: 2}),
    "dict without a copy": lambda: sub(dict, "copy", "__getitem__", "get", "__contains__", "__missing__")({1: 2}),
    "list without end": lambda: sub(list, __iter__=endless)([1]),
    "list without end in Python": lambda: sub(list, __iter__=endless_in_python)([1]),
    "list of huge length": lambda: sub(list, __len__=lambda _s: 2**62)([1]),
    "list fighting": lambda: sub(list, "__iter__", "__len__", "__getitem__", "__bool__", *ALL_TEXT)([1]),
    "tuple without end": lambda: sub(tuple, __iter__=endless)((1,)),
    "tuple of negative length": lambda: sub(tuple, __len__=lambda _s: -5)((1,)),
    "set fighting": lambda: sub(set, "__iter__", "__len__", *ALL_TEXT)({1}),
    "frozenset without end": lambda: sub(frozenset, __iter__=endless)({1}),
    "deque fighting": lambda: sub(collections.deque, "__iter__", "__len__", *ALL_TEXT)([1]),
    "namedtuple fighting": lambda: sub(Pair, "_asdict", "__iter__", _fields=property(fight))(1, 2),
    "exception fighting": lambda: sub(ValueError, *ALL_TEXT, "__eq__", args=property(fight), __traceback__=property(fight))("x"),
}

ODD: dict[str, Callable[[], Any]] = {
    "mapping without end": mapping(__iter__=endless),
    "mapping without end in Python": mapping(__iter__=endless_in_python),
    "mapping whose values raise": mapping(__getitem__=fight),
    "mapping whose length raises": mapping(__len__=fight),
    "mapping of huge length": mapping(__len__=lambda _s: 2**62),
    "mapping of negative length": mapping(__len__=lambda _s: -1),
    "mapping whose items are endless": mapping(items=endless_pairs),
    "mapping of keys that are not there": mapping(__getitem__=lambda _s, key: {}[key]),
    "mapping without a hash for its keys": mapping(__iter__=lambda _s: iter([[1], {}])),
    "sequence without end": sequence(__iter__=endless, __getitem__=lambda _s, _i: 1, __len__=lambda _s: 2**62),
    "sequence that raises": sequence(__getitem__=fight),
    "set without end": iterable_set(__iter__=endless),
    "set that raises": iterable_set(__iter__=fight),
    "endless mapping": EndlessMapping,
    "endless sequence": EndlessSequence,
    "endless text": EndlessText,
    "endless dataclass": EndlessDataclass,
    "endless attrs": EndlessAttrs,
    "endless model": EndlessModel,
    "endless namedtuple": EndlessTuple,
    "every attribute": EveryAttribute,
    "hostile metaclass": OfHostileMeta,
    "nameless metaclass": OfNamelessMeta,
    "name of surrogates": type("a\nb\udc80"[:3] + "\x1b", (), {}),
    "huge name": type("N" * 100_000, (), {}),
    "huge text form": type("HugeText", (), {"__repr__": lambda _s: "x" * 2_000_000}),
    "surrogate text form": type("OddText", (), {"__repr__": lambda _s: "\udc80\n"}),
    "text form of a wrong type": type("WrongText", (), {"__repr__": lambda _s: 5, "__str__": lambda _s: b"x"}),
    "text form of a fighting str": type(
        "FightingText", (), {"__repr__": lambda _s: FightingStr("x"), "__str__": lambda _s: FightingStr("y")}
    ),
    "list in itself": circular_list,
    "dict in itself": circular_dict,
    "deep list": lambda: deep(lambda value: [value], 300),
    "deep dict": lambda: deep(lambda value: {1: value}, 300),
    "deep tuple": lambda: deep(lambda value: (value,), 300),
    "deep dataclass": lambda: deep(Point, 150),
    "deep namespace": lambda: deep(lambda value: types.SimpleNamespace(x=value), 150),
    "many items": lambda: list(range(100_000)),
    "many keys": lambda: {n: n for n in range(30_000)},
    "long text": lambda: "\u00e4" * 300_000,
    "laughing lists": lambda: deep(lambda value: [value] * 10, 20),
    "laughing dicts": lambda: deep(lambda value: dict.fromkeys("abcdefgh", value), 20),
}

RAISING: dict[str, Callable[[], Any]] = {
    f"{name} raises {error.__name__}": raising(name, error) for name in (*METHODS, *ATTRIBUTES) for error in ERRORS
}
LYING: dict[str, Callable[[], Any]] = {f"says it is {getattr(lie, '__name__', lie)!s}": lying(lie) for lie in LIES}
CATALOGUE: dict[str, Callable[[], Any]] = {**STANDARD, **MODELS, **SUBCLASSES, **ODD, **NUMPY, **RAISING, **LYING}

KEYS: dict[str, Callable[[], Any]] = {
    **{
        repr(key): functools.partial(lambda key: key, key)
        for key in (1, "1", None, True, 1.5, (1, 2), b"x", b"1", "None", "nan", "")
    },
    "nan": lambda: float("nan"),
    "datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "date": lambda: datetime.date(2026, 1, 2),
    "large integer": lambda: 2**70,
    "integer over the digit limit": lambda: 10**5000,
    "Decimal": lambda: decimal.Decimal(2),
    "UUID": lambda: uuid.UUID(int=1),
    "enum": lambda: Colour.RED,
    "IntEnum": lambda: Number.ONE,
    "StrEnum": lambda: Word.HELLO,
    "frozenset": lambda: frozenset({1}),
    "class": lambda: Point,
    "object": object,
    "hashed once": HashedOnce,
    "same text": SameText,
    "fighting str": lambda: FightingStr("fighting"),
    "lying str": lambda: LyingStr("lying"),
    "fighting int": lambda: FightingInt(77),
    "fighting bytes": lambda: FightingBytes(b"fighting"),
    "without text": raising("__str__", RuntimeError),
    "without any text": UnprintableError,
    "endless text": EndlessText,
    "surrogate": lambda: "\udc80",
    "escaped surrogate": lambda: "\\udc80",
    "control characters": lambda: "\n\x00",
    "numpy": lambda: np.int64(1234),
    "path": lambda: pathlib.PurePosixPath("/a/\udcff"),
    "exception": lambda: ValueError("x"),
    "deep tuple": lambda: deep(lambda value: (value,), 50),
    "long": lambda: "k" * 5000,
}


def snapshot(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return the structure, the order and the identity of all that *value* holds, without calling a method of its own."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return id(value)
    seen[id(value)] = value  # kept alive, so that no other object can take its place
    kind = type(value)
    if issubclass(kind, dict):
        return id(value), [(id(key), snapshot(item, seen)) for key, item in dict.items(value)]
    for base in (list, tuple, collections.deque, set, frozenset):
        if issubclass(kind, base):
            return id(value), [snapshot(item, seen) for item in base.__iter__(value)]
    if issubclass(kind, bytearray):
        return id(value), bytearray.hex(value)
    if issubclass(kind, np.ndarray):
        return id(value), np.ndarray.tobytes(value) if np.ndarray.nbytes.__get__(value) < 1 << 20 else None
    if kind is types.MappingProxyType:
        return id(value), [snapshot(item, seen) for item in gc.get_referents(value)]
    if any(kind is held for held in _HELD_BY_ATTRIBUTES):
        return id(value), [(name, snapshot(item, seen)) for name, item in _attributes(value)]
    return id(value)


_HELD_BY_ATTRIBUTES = (
    Point,
    Slotted,
    Attrs,
    Model,
    Computing,
    Open,
    types.SimpleNamespace,
    collections.UserDict,
    collections.ChainMap,
)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    slots = getattr(type(value), "__slots__", ())
    found = [(name, getattr(value, name)) for name in slots if name in {"x", "y"} and hasattr(value, name)]
    return found + list(getattr(value, "__dict__", {}).items())


class Nested:
    """Shows what it holds in its own text form, as many classes do."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Nested({self.x!r})"


def object_array(value: object) -> Any:
    """Return an array that holds *value*."""
    made = np.empty(1, dtype=object)
    made[0] = value
    return made
